//! Packet rules: linux/netfilter/nf_tables.h. Pure.
//!
//! A message is the family header (family u8, version 0, resource id be16) and attributes, whose
//! integers are big endian. Keys and values of sets are laid out as the registers of a [`Rule`] are.

mod rule;

pub use rule::{Op, R1, R8, R9, R12, Rule};

use super::socket::Reply;
use super::wire::{self, CREATE, EXCL, Request, attribute, attributes, text};

/// Netfilter's subsystem number, in the upper byte of every message type.
const NFTABLES: u16 = 10;
const NEWTABLE: u16 = 0;
const DELTABLE: u16 = 2;
const NEWCHAIN: u16 = 3;
const GETCHAIN: u16 = 4;
const DELCHAIN: u16 = 5;
const NEWRULE: u16 = 6;
const GETRULE: u16 = 7;
const DELRULE: u16 = 8;
const NEWSET: u16 = 9;
const NEWSETELEM: u16 = 12;
const GETSETELEM: u16 = 13;
const DELSETELEM: u16 = 14;

/// The list element attribute, the same number in every list.
const LIST_ELEM: u16 = 1;
/// A value, or a verdict, inside a data attribute.
const DATA_VALUE: u16 = 1;
const DATA_VERDICT: u16 = 2;

/// Set flags.
const ANONYMOUS: u32 = 1;
const CONSTANT: u32 = 2;
const MAP: u32 = 8;
/// The kernel puts a number in the place of `%d`.
const NAMELESS: &str = "__map%d";

/// Opens a batch.
pub fn batch_begin() -> Request {
    Request::new(0x10, 0).body(&header(0, NFTABLES))
}

/// Closes and commits a batch.
pub fn batch_end() -> Request {
    Request::new(0x11, 0).body(&header(0, NFTABLES))
}

fn header(family: u8, resource: u16) -> [u8; 4] {
    let [high, low] = resource.to_be_bytes();
    [family, 0, high, low]
}

fn message(kind: u16, flags: u16, family: u8) -> Request {
    Request::new(NFTABLES << 8 | kind, flags).body(&header(family, 0))
}

/// Which packets a table sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    Ip = 2,
    /// Everything that one link takes in.
    Netdev = 5,
    /// IPv6.
    Ip6 = 10,
}

/// The verdict at the end of a rule, or in a verdict map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Done here; other base chains still decide.
    Accept,
    /// Gone, for every chain.
    Drop,
    /// Into a chain and back.
    Jump(String),
    /// Into a chain.
    Goto(String),
}

impl Verdict {
    fn write(&self, m: Request) -> Request {
        let (code, chain) = match self {
            Verdict::Accept => (1, None),
            Verdict::Drop => (0, None),
            Verdict::Jump(chain) => (-3, Some(chain)),
            Verdict::Goto(chain) => (-4, Some(chain)),
        };
        m.nest(DATA_VERDICT, |m| {
            let m = m.attr(1, &i32::to_be_bytes(code));
            chain.iter().fold(m, |m, chain| m.text(2, chain))
        })
    }
}

/// Where a base chain hangs in the kernel's packet path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hook {
    /// `filter` or `nat`.
    pub kind: &'static str,
    /// One of the constants.
    pub number: u32,
    /// Lower comes first.
    pub priority: i32,
}

impl Hook {
    /// Everything that comes in.
    pub const PREROUTING: u32 = 0;
    /// What is for this box.
    pub const INPUT: u32 = 1;
    /// What passes through.
    pub const FORWARD: u32 = 2;
    /// What this box sends.
    pub const OUTPUT: u32 = 3;
    /// Everything that goes out.
    pub const POSTROUTING: u32 = 4;
}

/// A set, or a map when it has data.
#[derive(Clone, Copy, Debug)]
pub struct Set<'a> {
    /// Its name; not a keyword of the `nft` tool, which could not read its own listing.
    pub name: &'a str,
    /// Any number that is unique in its batch.
    pub id: u32,
    /// What the key is made of.
    pub key: &'a [Field],
    /// What it leads to.
    pub data: Data<'a>,
}

/// What a set holds beside its keys.
#[derive(Clone, Copy, Debug)]
pub enum Data<'a> {
    /// Nothing: a plain set.
    None,
    /// A verdict.
    Verdict,
    /// A value.
    Value(&'a [Field]),
}

/// A part of a key or value: type number for display, and its length in bytes.
#[derive(Clone, Copy, Debug)]
pub enum Field {
    /// IPv4 address, network order.
    Address,
    /// `tcp` or `udp`, one byte.
    Protocol,
    /// Port, network order.
    Port,
    /// A number in host order.
    Number,
    /// An interface name, NUL padded.
    Interface,
}

impl Field {
    fn shape(self) -> (u32, u32) {
        match self {
            Field::Address => (7, 4),
            Field::Protocol => (12, 1),
            Field::Port => (13, 2),
            Field::Number => (4, 4),
            Field::Interface => (41, 16),
        }
    }

    /// Type number and length of a concatenation: 6 bits a type, every part padded to 4 bytes.
    fn shape_of(fields: &[Field]) -> (u32, u32) {
        match fields {
            [one] => one.shape(),
            _ => fields
                .iter()
                .map(|field| field.shape())
                .fold((0, 0), |(kind, len), (k, l)| (kind << 6 | k, len + l.next_multiple_of(4))),
        }
    }
}

/// What an element leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// Nothing: a member of a plain set.
    None,
    /// A verdict.
    Verdict(Verdict),
    /// Bytes, laid out as the set says.
    Bytes(Vec<u8>),
}

/// A table by name; its methods build the requests about what is in it.
#[derive(Clone, Copy, Debug)]
pub struct Table<'a> {
    /// Which packets.
    pub family: Family,
    /// Its name.
    pub name: &'a str,
}

impl Table<'_> {
    fn message(self, kind: u16, flags: u16) -> Request {
        message(kind, flags, self.family as u8).text(1, self.name)
    }

    /// Makes the table unless it exists.
    pub fn add(self) -> Request {
        self.message(NEWTABLE, CREATE)
    }

    /// Removes the table and all that is in it.
    pub fn delete(self) -> Request {
        self.message(DELTABLE, 0)
    }

    /// Makes a base chain that accepts what no rule decides, unless it exists.
    pub fn add_base_chain(self, chain: &str, hook: Hook) -> Request {
        self.message(NEWCHAIN, CREATE)
            .text(3, chain)
            .nest(4, |m| m.be32(1, hook.number).attr(2, &hook.priority.to_be_bytes()))
            .be32(5, 1)
            .text(7, hook.kind)
    }

    /// Makes a base chain for what this link takes in; the family must be [`Family::Netdev`].
    pub fn add_ingress_chain(self, chain: &str, link: &str) -> Request {
        self.message(NEWCHAIN, CREATE)
            .text(3, chain)
            .nest(4, |m| m.be32(1, 0).be32(2, 0).text(3, link))
            .be32(5, 1)
            .text(7, "filter")
    }

    /// Makes a chain unless it exists; with [`EXCL`] in `flags`, refuses if it does.
    pub fn add_chain(self, chain: &str, flags: u16) -> Request {
        self.message(NEWCHAIN, CREATE | flags).text(3, chain)
    }

    /// Removes an empty chain to which nothing leads.
    pub fn delete_chain(self, chain: &str) -> Request {
        self.message(DELCHAIN, 0).text(3, chain)
    }

    /// One chain; the answer is an error when it is not there.
    pub fn get_chain(self, chain: &str) -> Request {
        self.message(GETCHAIN, 0).text(3, chain)
    }

    /// Removes the rules of a chain.
    pub fn flush_chain(self, chain: &str) -> Request {
        self.message(DELRULE, 0).text(2, chain)
    }

    /// Appends a rule.
    pub fn add_rule(self, chain: &str, rule: &Rule) -> Request {
        self.message(NEWRULE, CREATE | wire::APPEND).text(2, chain).nest(4, |m| m.embed(&rule.0))
    }

    /// Puts a rule right before the one with this handle.
    pub fn insert_rule(self, chain: &str, before: Handle, rule: &Rule) -> Request {
        let m = self.message(NEWRULE, CREATE).text(2, chain).nest(4, |m| m.embed(&rule.0));
        m.attr(6, &before.0.to_be_bytes())
    }

    /// Every rule of a chain in order, none when there is no such chain; the socket adds the dump
    /// flag.
    pub fn get_rules(self, chain: &str) -> Request {
        self.message(GETRULE, 0).text(2, chain)
    }

    /// Makes a set or map unless it exists.
    pub fn add_set(self, set: &Set<'_>) -> Request {
        let flags = if matches!(set.data, Data::None) { 0 } else { MAP };
        self.set(set, flags)
    }

    /// Makes a map from numbers that has no name and lives and dies with the one rule of the same
    /// batch that uses it ([`Rule::map_of_batch`]).
    pub fn add_nameless_map(self, id: u32, data: Data<'_>) -> Request {
        let set = Set { name: NAMELESS, id, key: &[Field::Number], data };
        // For `nft list`: the key is in host order (user data 0 = 1).
        self.set(&set, ANONYMOUS | CONSTANT | MAP).attr(13, &[0, 4, 1, 0, 0, 0])
    }

    /// Adds one element to a map that [`Table::add_nameless_map`] makes in the same batch.
    pub fn add_nameless_element(self, id: u32, number: u32, value: &Value) -> Request {
        self.add_element(NAMELESS, &number.to_ne_bytes(), value).be32(4, id)
    }

    fn set(self, set: &Set<'_>, flags: u32) -> Request {
        let (key_type, key_len) = Field::shape_of(set.key);
        let m = self.message(NEWSET, CREATE).text(2, set.name).be32(3, flags);
        let m = m.be32(4, key_type).be32(5, key_len);
        let m = match set.data {
            Data::None => m,
            Data::Verdict => m.be32(6, 0xffff_ff00).be32(7, 0),
            Data::Value(fields) => {
                let (data_type, data_len) = Field::shape_of(fields);
                m.be32(6, data_type).be32(7, data_len)
            }
        };
        m.be32(10, set.id)
    }

    /// Adds one element; refuses if the key is there already.
    pub fn add_element(self, set: &str, key: &[u8], value: &Value) -> Request {
        self.element(NEWSETELEM, CREATE | EXCL, set, key, value)
    }

    /// Adds one element unless the same is there already.
    pub fn ensure_element(self, set: &str, key: &[u8], value: &Value) -> Request {
        self.element(NEWSETELEM, CREATE, set, key, value)
    }

    /// Removes one element.
    pub fn delete_element(self, set: &str, key: &[u8]) -> Request {
        self.element(DELSETELEM, 0, set, key, &Value::None)
    }

    /// One element; the answer is an error when it is not there.
    pub fn get_element(self, set: &str, key: &[u8]) -> Request {
        self.element(GETSETELEM, 0, set, key, &Value::None)
    }

    /// Removes every element.
    pub fn flush_set(self, set: &str) -> Request {
        self.message(DELSETELEM, 0).text(2, set)
    }

    /// Every element; the socket adds the dump flag.
    pub fn get_elements(self, set: &str) -> Request {
        self.message(GETSETELEM, 0).text(2, set)
    }

    fn element(self, kind: u16, flags: u16, set: &str, key: &[u8], value: &Value) -> Request {
        self.message(kind, flags).text(2, set).nest(3, |m| {
            m.nest(LIST_ELEM, |m| {
                let m = m.nest(1, |m| m.attr(DATA_VALUE, key));
                match value {
                    Value::None => m,
                    Value::Verdict(verdict) => m.nest(2, |m| verdict.write(m)),
                    Value::Bytes(bytes) => m.nest(2, |m| m.attr(DATA_VALUE, bytes)),
                }
            })
        })
    }
}

/// Every chain of every table; the socket adds the dump flag.
pub fn get_chains() -> Request {
    message(GETCHAIN, 0, 0)
}

/// The key and the value of one element.
pub type Element = (Vec<u8>, Vec<u8>);

/// Keys and values in an answer to `get_elements`; a verdict comes out as its chain's name.
pub fn parse_elements(reply: &Reply) -> Vec<Element> {
    let attrs = reply.body.get(4..).unwrap_or(&[]);
    let elements = attribute(attrs, 3).unwrap_or(&[]);
    let parse = |element: &[u8]| {
        let key = attribute(attribute(element, 1)?, DATA_VALUE)?;
        let data = attribute(element, 2).unwrap_or(&[]);
        let value = match attribute(data, DATA_VERDICT) {
            Some(verdict) => text(attribute(verdict, 2).unwrap_or(&[]))?.as_bytes(),
            None => attribute(data, DATA_VALUE).unwrap_or(&[]),
        };
        Some((key.to_vec(), value.to_vec()))
    };
    attributes(elements).filter_map(|(_, element)| parse(element)).collect()
}

/// The kernel's own number for a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handle(u64);

/// Reads an answer to `get_rules`.
pub fn parse_handle(reply: &Reply) -> Option<Handle> {
    let handle = attribute(reply.body.get(4..)?, 3)?;
    Some(Handle(u64::from_be_bytes(handle.try_into().ok()?)))
}

/// A chain as the kernel describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// Family number of its table.
    pub family: u8,
    /// Its table.
    pub table: String,
    /// Its name.
    pub name: String,
    /// For a base chain its hook, and whether it drops what no rule decides.
    pub base: Option<(u32, bool)>,
}

/// Reads an answer to `get_chains`.
pub fn parse_chain(reply: &Reply) -> Option<Chain> {
    let attrs = reply.body.get(4..)?;
    let number = |bytes: &[u8]| bytes.try_into().ok().map(u32::from_be_bytes);
    let hook = attribute(attrs, 4).and_then(|hook| attribute(hook, 1)).and_then(number);
    let drops = attribute(attrs, 5).and_then(number) == Some(0);
    Some(Chain {
        family: *reply.body.first()?,
        table: text(attribute(attrs, 1)?)?.to_owned(),
        name: text(attribute(attrs, 3)?)?.to_owned(),
        base: hook.map(|hook| (hook, drops)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_endian = "little")]
    fn an_element_is_byte_for_byte_what_the_header_says() {
        let table = Table { family: Family::Ip, name: "t" };
        let value = Value::Verdict(Verdict::Goto("c".to_owned()));
        let bytes = table.add_element("m", &[1, 2, 3, 4], &value).finish(7).expect("short");
        #[rustfmt::skip]
        let want = [
            80, 0, 0, 0,  12, 10, 1, 6,  7, 0, 0, 0,  0, 0, 0, 0,
            2, 0, 0, 0,
            6, 0, 1, 0, b't', 0, 0, 0,
            6, 0, 2, 0, b'm', 0, 0, 0,
            44, 0, 3, 0,  40, 0, 1, 0,
            12, 0, 1, 0,  8, 0, 1, 0,  1, 2, 3, 4,
            24, 0, 2, 0,  20, 0, 2, 0,
            8, 0, 1, 0,  0xff, 0xff, 0xff, 0xfc,
            6, 0, 2, 0, b'c', 0, 0, 0,
        ];
        assert_eq!(bytes, want.to_vec());
    }

    #[test]
    fn elements_are_read_back_as_they_were_written() {
        let table = Table { family: Family::Ip, name: "t" };
        let value = Value::Bytes(vec![10, 254, 0, 2, 31, 144, 0, 0]);
        let bytes = table.add_element("m", &[6, 0, 0, 0], &value).finish(1).expect("short");
        let reply = Reply { kind: NFTABLES << 8 | NEWSETELEM, body: bytes[16..].to_vec() };
        let want = (vec![6, 0, 0, 0], vec![10, 254, 0, 2, 31, 144, 0, 0]);
        assert_eq!(parse_elements(&reply), [want]);
    }

    #[test]
    fn a_concatenation_pads_every_part_to_four_bytes() {
        assert_eq!(Field::shape_of(&[Field::Protocol, Field::Port]), (12 << 6 | 13, 8));
        assert_eq!(Field::shape_of(&[Field::Interface, Field::Address]), (41 << 6 | 7, 20));
        assert_eq!(Field::shape_of(&[Field::Port]), (13, 2));
    }

    #[test]
    fn a_rule_too_large_for_its_length_is_an_error() {
        let table = Table { family: Family::Ip, name: "t" };
        let rule = (0..2_000).fold(Rule::new(), |rule, _| rule.masquerade().accept());
        assert!(table.add_rule("c", &rule).finish(1).is_err());
    }
}
