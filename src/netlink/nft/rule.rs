//! One packet rule: a list of expressions. Pure.
//!
//! Values travel from expression to expression in registers: number 1 is 16 bytes long and the same
//! place as the 4-byte registers 8 to 11; 12 follows. Addresses, ports and names lie there as in the
//! packet; protocol numbers, states and generated numbers in host order.

use super::{DATA_VALUE, Family, LIST_ELEM, NAMELESS, Verdict};
use crate::netlink::wire::Request;

/// The first register, 16 bytes.
pub const R1: u32 = 1;
/// The 4-byte registers that overlap register 1.
pub const R8: u32 = 8;
/// The second word.
pub const R9: u32 = 9;
/// The fifth word: what follows an interface name that starts in register 1.
pub const R12: u32 = 12;

/// How a comparison is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// Equal.
    Eq = 0,
    /// Not equal.
    Ne = 1,
}

/// The expressions of one rule, in the order in which they run; the first that does not hold
/// ends the rule.
#[derive(Clone, Debug)]
pub struct Rule(pub(super) Request);

impl Default for Rule {
    fn default() -> Rule {
        Rule::new()
    }
}

impl Rule {
    /// A rule that matches every packet and does nothing.
    pub fn new() -> Rule {
        Rule(Request::new(0, 0))
    }

    fn expr(self, name: &str, fill: impl FnOnce(Request) -> Request) -> Rule {
        Rule(self.0.nest(LIST_ELEM, |m| m.text(1, name).nest(2, fill)))
    }

    /// Loads bytes of the network header (`base` 1) or the transport header (2).
    fn payload(self, base: u32, offset: u32, len: u32, to: u32) -> Rule {
        self.expr("payload", |m| m.be32(1, to).be32(2, base).be32(3, offset).be32(4, len))
    }

    /// Loads the source address.
    pub fn saddr(self, to: u32) -> Rule {
        self.payload(1, 12, 4, to)
    }

    /// Loads the destination address.
    pub fn daddr(self, to: u32) -> Rule {
        self.payload(1, 16, 4, to)
    }

    /// Loads the destination port; the protocol must have been checked.
    pub fn dport(self, to: u32) -> Rule {
        self.payload(2, 2, 2, to)
    }

    /// Loads the type of an ICMP packet, one byte; the protocol must have been checked.
    pub fn icmp_type(self, to: u32) -> Rule {
        self.payload(2, 0, 1, to)
    }

    /// Loads the code of an ICMP packet, one byte; the protocol must have been checked.
    pub fn icmp_code(self, to: u32) -> Rule {
        self.payload(2, 1, 1, to)
    }

    fn meta(self, key: u32, to: u32) -> Rule {
        self.expr("meta", |m| m.be32(1, to).be32(2, key))
    }

    /// Loads the name of the incoming link.
    pub fn iifname(self, to: u32) -> Rule {
        self.meta(6, to)
    }

    /// Holds when the incoming link is (`Op::Eq`) or is not of this group.
    pub fn from_group(self, op: Op, group: u32) -> Rule {
        self.meta(21, R1).cmp(op, R1, &group.to_ne_bytes())
    }

    /// Holds when the outgoing link is (`Op::Eq`) or is not of this group.
    pub fn to_group(self, op: Op, group: u32) -> Rule {
        self.meta(22, R1).cmp(op, R1, &group.to_ne_bytes())
    }

    /// Loads the transport protocol, one byte.
    pub fn protocol(self, to: u32) -> Rule {
        self.meta(16, to)
    }

    fn ct(self, key: u32, to: u32) -> Rule {
        self.expr("ct", |m| m.be32(1, to).be32(2, key))
    }

    /// Holds when the connection is in one of these states: invalid 1, established 2, related 4.
    pub fn state(self, states: u32) -> Rule {
        self.ct(0, R1).mask(R1, &states.to_ne_bytes()).cmp(Op::Ne, R1, &[0; 4])
    }

    /// Holds when the connection's destination was (`Op::Ne`) or was not (`Op::Eq`) translated.
    pub fn translated(self, op: Op) -> Rule {
        self.ct(2, R1).mask(R1, &0x20u32.to_ne_bytes()).cmp(op, R1, &[0; 4])
    }

    /// Holds when the destination is an address of this box.
    pub fn to_this_box(self) -> Rule {
        self.expr("fib", |m| m.be32(1, R1).be32(2, 3).be32(3, 2)).cmp(
            Op::Eq,
            R1,
            &2u32.to_ne_bytes(),
        )
    }

    /// Holds when the destination is an address of the very link that the packet came in by.
    pub fn to_this_link(self) -> Rule {
        self.expr("fib", |m| m.be32(1, R1).be32(2, 3).be32(3, 2 | 8)).cmp(
            Op::Eq,
            R1,
            &2u32.to_ne_bytes(),
        )
    }

    /// Holds when an answer to the source would not leave by the link that the packet came in by:
    /// the source is forged. Not a matter of the `rp_filter` settings. Flags `saddr | iif`, result
    /// `oif`, which is 0 then; linux/netfilter/nf_tables.h.
    pub fn forged(self) -> Rule {
        self.expr("fib", |m| m.be32(1, R1).be32(2, 1).be32(3, 1 | 8)).cmp(Op::Eq, R1, &[0; 4])
    }

    /// Compares the start of a register.
    pub fn cmp(self, op: Op, from: u32, value: &[u8]) -> Rule {
        self.expr("cmp", |m| {
            m.be32(1, from).be32(2, op as u32).nest(3, |m| m.attr(DATA_VALUE, value))
        })
    }

    /// Holds when the start of a register is (`Op::Eq`) or is not within these, both included.
    pub fn range(self, op: Op, from: u32, first: &[u8], last: &[u8]) -> Rule {
        if first == last {
            return self.cmp(op, from, first);
        }
        self.expr("range", |m| {
            m.be32(1, from)
                .be32(2, op as u32)
                .nest(3, |m| m.attr(DATA_VALUE, first))
                .nest(4, |m| m.attr(DATA_VALUE, last))
        })
    }

    /// Keeps only these bits of a 4-byte register.
    pub fn mask(self, register: u32, bits: &[u8; 4]) -> Rule {
        self.expr("bitwise", |m| {
            m.be32(1, register)
                .be32(2, register)
                .be32(3, 4)
                .nest(4, |m| m.attr(DATA_VALUE, bits))
                .nest(5, |m| m.attr(DATA_VALUE, &[0; 4]))
        })
    }

    /// Holds when the registers are in this set.
    pub fn lookup(self, set: &str, from: u32) -> Rule {
        self.expr("lookup", |m| m.text(1, set).be32(2, from))
    }

    /// Loads what the registers lead to in this map; register 0 makes it the verdict.
    pub fn map(self, map: &str, from: u32, to: u32) -> Rule {
        self.expr("lookup", |m| m.text(1, map).be32(2, from).be32(3, to))
    }

    /// As `map`, with the nameless map of this number in the same batch.
    pub fn map_of_batch(self, id: u32, from: u32, to: u32) -> Rule {
        self.expr("lookup", |m| m.text(1, NAMELESS).be32(2, from).be32(3, to).be32(4, id))
    }

    /// Loads 0, 1, … `modulus`-1 in turn.
    pub fn count(self, to: u32, modulus: u32) -> Rule {
        self.expr("numgen", |m| m.be32(1, to).be32(2, modulus).be32(3, 0).be32(4, 0))
    }

    /// Sends the connection to the address and port in these registers instead.
    pub fn dnat(self, address: u32, port: u32) -> Rule {
        self.expr("nat", |m| m.be32(1, 1).be32(2, Family::Ip as u32).be32(3, address).be32(5, port))
    }

    /// Makes the connection come from the outgoing link's own address.
    pub fn masquerade(self) -> Rule {
        self.expr("masq", |m| m)
    }

    /// Answers with an ICMP "unreachable" of this code.
    pub fn reject(self, code: u8) -> Rule {
        self.expr("reject", |m| m.be32(1, 0).attr(2, &[code]))
    }

    /// Writes the packet's headers to the kernel log.
    pub fn log(self, prefix: &str) -> Rule {
        self.expr("log", |m| m.text(2, prefix))
    }

    /// Holds for at most this many packets a second, and a burst above it.
    pub fn limit(self, per_second: u64, burst: u32) -> Rule {
        self.expr("limit", |m| {
            m.attr(1, &per_second.to_be_bytes())
                .attr(2, &1u64.to_be_bytes())
                .be32(3, burst)
                .be32(4, 0)
        })
    }

    /// Holds for what comes faster than this many bytes a second; `burst` bytes and those of one
    /// second may come at once. Type 1 counts bytes, flag 1 turns the sense around.
    pub fn over(self, per_second: u64, burst: u32) -> Rule {
        self.expr("limit", |m| {
            let m = m.attr(1, &per_second.to_be_bytes()).attr(2, &1u64.to_be_bytes());
            m.be32(3, burst).be32(4, 1).be32(5, 1)
        })
    }

    /// Ends the rule with a verdict.
    pub fn verdict(self, verdict: &Verdict) -> Rule {
        self.expr("immediate", |m| m.be32(1, 0).nest(2, |m| verdict.write(m)))
    }

    /// Ends the rule: let it pass.
    pub fn accept(self) -> Rule {
        self.verdict(&Verdict::Accept)
    }

    /// Ends the rule: let it vanish.
    pub fn drop(self) -> Rule {
        self.verdict(&Verdict::Drop)
    }
}
