//! Names, addresses and the packet rules that all containers share, as lists of requests. Pure.
//!
//! ```text
//! table ip NAME                    "ours" = a link of the group that the bridges are born into
//!   raw      prerouting -300   ours: nothing to or from 127.0.0.0/8, no forged source
//!   pre      prerouting -100   tcp to this box          -> jump inward
//!   out      output     -100   tcp to this box          -> jump inward
//!   inward                     by ports -> that container; by published -> goto p<port>
//!   post     postrouting 100   masquerade: 127/8 to ours; pool and statics to the world; the same
//!                              to each other (dnat)
//!   pass     forward       0   answers; from ours by senders -> goto c<slot>, else drop;
//!                              to ours only what inward sent there
//!   local    input         0   from ours: answers, DNS if allowed, guests if allowed, else reject
//!   common                     head of an app's c<slot>: DNS; never link-local, multicast, direct
//!   guest                      the same of a Garden client's, but for direct
//!   c<slot>                    what that container may reach (egress.rs)
//!   p<port>                    the next of the running instances
//!   ports      tcp . port              -> address . port       one instance
//!   published  tcp . port              -> goto p<port>         all instances
//!   senders    link name . address     -> goto c<slot>         whoever forges either is dropped
//!   guests     link name . address     containers with Garden's default
//!   statics    address                 containers outside the pool
//!   resolvers  address
//! table ip6 NAME: nothing from or to ours
//! ```

use super::NetConfig;
use crate::netlink::nft::{
    Data, Family, Field, Hook, Op, R1, R8, R9, R12, Rule, Set, Table, Value, Verdict,
};
use crate::netlink::wire::Request;
use crate::unit::Slot;
use serde::{Deserialize, Serialize};
use std::net::Ipv4Addr;

/// `icmp host-prohibited`: this box does not talk to containers.
const HOST_PROHIBITED: u8 = 10;
/// `icmp admin-prohibited`: no egress rule opens this.
pub(super) const ADMIN_PROHIBITED: u8 = 13;
/// IP protocol numbers.
pub(super) const TCP: u8 = 6;
/// IP protocol numbers.
pub(super) const UDP: u8 = 17;

const INVALID: u32 = 1;
const ESTABLISHED: u32 = 2;
const RELATED: u32 = 4;

/// Leading bits of one container's subnet.
pub const SUBNET_PREFIX: u8 = 30;
/// Leading bits of the pool: room for [`Slot::COUNT`] subnets.
pub const POOL_PREFIX: u8 = 16;

/// The two addresses of one container's subnet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Addresses {
    /// The bridge: the container's default route.
    pub gateway: Ipv4Addr,
    /// The container.
    pub container: Ipv4Addr,
    /// Leading bits of the subnet.
    pub prefix: u8,
}

/// The gateway is the first address of the slot's /30, the container the second.
pub fn addresses(pool: Ipv4Addr, slot: Slot) -> Addresses {
    let base = pool.to_bits() + u32::from(slot.get()) * 4;
    let (gateway, container) = (Ipv4Addr::from_bits(base + 1), Ipv4Addr::from_bits(base + 2));
    Addresses { gateway, container, prefix: SUBNET_PREFIX }
}

/// Where a container is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Which one.
    pub slot: Slot,
    /// Its bridge.
    pub bridge: String,
    /// Its addresses.
    pub addresses: Addresses,
    /// Other containers may be on that bridge, too, and reach each other.
    pub shared: bool,
}

impl Place {
    /// On the bridge of the network that it asked for (`held`), else on one of its own.
    pub fn new(cfg: &NetConfig, slot: Slot, held: Option<Addresses>) -> Place {
        let bridge = match held {
            Some(held) => shared_bridge(&cfg.tag, held.subnet().0),
            None => slot.bridge(&cfg.tag),
        };
        let addresses = held.unwrap_or_else(|| addresses(cfg.pool.0, slot));
        Place { slot, bridge, addresses, shared: held.is_some() }
    }

    /// As it was written into `senders`, from a key there. What the key does not say is guessed, for
    /// who only removes.
    pub fn of_key(cfg: &NetConfig, slot: Slot, key: &[u8]) -> Option<Place> {
        let (bridge, address) = key.split_at_checked(16)?;
        let bridge = std::str::from_utf8(bridge).ok()?.trim_end_matches('\0').to_owned();
        let network = network_of_bridge(&bridge, &cfg.tag)?;
        let container = Ipv4Addr::from(<[u8; 4]>::try_from(address).ok()?);
        let gateway = Ipv4Addr::from_bits(network.to_bits() + 1);
        let addresses = Addresses { gateway, container, prefix: SUBNET_PREFIX };
        Some(Place { slot, bridge, addresses, shared: true })
    }

    /// Its key in `senders`.
    pub fn key(&self) -> [u8; 20] {
        source_key(&self.bridge, self.addresses.container)
    }
}

/// The bridge of a network that containers asked for; at most 14 characters.
pub fn shared_bridge(tag: &str, network: Ipv4Addr) -> String {
    format!("wb-{tag}s{:08x}", network.to_bits())
}

/// The network of a bridge that [`shared_bridge`] named.
pub fn network_of_bridge(name: &str, tag: &str) -> Option<Ipv4Addr> {
    let digits = name.strip_prefix("wb-")?.strip_prefix(tag)?.strip_prefix('s')?;
    let network = Ipv4Addr::from_bits(u32::from_str_radix(digits, 16).ok()?);
    (shared_bridge(tag, network) == name).then_some(network)
}

/// A fixed, locally administered MAC address for the bridge, so that no port can change it.
pub fn bridge_mac(gateway: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = gateway.octets();
    [0x02, 0x77, a, b, c, d]
}

/// The link group of a tag's bridges. Rules match it rather than a name's start, which could not
/// tell `wb-a1` of tag `a` from the same start of tag `ab`.
pub fn group(tag: &str) -> u32 {
    tag.bytes().fold(0x7762, |group, byte| group << 8 | u32::from(byte))
}

/// The slot of a bridge or host-side veth name, if the name is one that this tag makes.
pub fn slot_of_link(name: &str, tag: &str) -> Option<Slot> {
    let inner = name.strip_prefix("wb-").or_else(|| name.strip_prefix('w')?.strip_suffix("-0"))?;
    let slot = number(inner.strip_prefix(tag)?)?;
    (name == slot.bridge(tag) || name == slot.veth_host(tag)).then_some(slot)
}

/// The chain of a container's egress rules.
pub fn egress_chain(slot: Slot) -> String {
    format!("c{slot}")
}

/// The slot of a chain that `egress_chain` named.
pub fn slot_of_chain(name: &str) -> Option<Slot> {
    number(name.strip_prefix('c')?)
}

/// Reads back what `Display` of a slot writes, and nothing else.
fn number(digits: &str) -> Option<Slot> {
    let n = digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok())??;
    Slot::new(n).ok().filter(|slot| slot.to_string() == digits)
}

/// A block of addresses.
pub type Subnet = (Ipv4Addr, u8);

/// The address with its host bits cleared.
pub fn network((address, prefix): Subnet) -> Ipv4Addr {
    Ipv4Addr::from_bits(address.to_bits() & mask(prefix))
}

fn mask(prefix: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(prefix.min(32))).unwrap_or(0)
}

/// The pool to use: the one where live containers (`own`) are, else `wanted` if no route of the
/// host (`taken`) meets it, else the first of 10.254/16 down to 10.200/16 and 172.31/16 down to
/// 172.16/16 that none meets. Routes wider than /7 are ways out, as the default route is.
pub fn pick_pool(wanted: Ipv4Addr, own: &[Subnet], taken: &[Subnet]) -> Option<Ipv4Addr> {
    if let Some((address, _)) = own.first() {
        return Some(network((*address, POOL_PREFIX)));
    }
    let ten = (200..=254).rev().map(|n| Ipv4Addr::new(10, n, 0, 0));
    let private = (16..=31).rev().map(|n| Ipv4Addr::new(172, n, 0, 0));
    let meets = |pool: Ipv4Addr, (address, prefix): Subnet| {
        prefix >= 8 && (pool.to_bits() ^ address.to_bits()) & mask(prefix.min(POOL_PREFIX)) == 0
    };
    let wanted = network((wanted, POOL_PREFIX));
    let mut candidates = std::iter::once(wanted).chain(ten).chain(private);
    candidates.find(|pool| !taken.iter().any(|route| meets(*pool, *route)))
}

/// The key of `ports` and `published`.
pub fn port_key(port: u16) -> [u8; 8] {
    let [high, low] = port.to_be_bytes();
    [TCP, 0, 0, 0, high, low, 0, 0]
}

/// The port in a key of `published`.
pub fn port_of_key(key: &[u8]) -> Option<u16> {
    Some(u16::from_be_bytes(key.get(4..6)?.try_into().ok()?))
}

/// The value of `ports`, and what a published port leads to.
pub fn target(address: Ipv4Addr, port: u16) -> [u8; 8] {
    let ([a, b, c, d], [high, low]) = (address.octets(), port.to_be_bytes());
    [a, b, c, d, high, low, 0, 0]
}

/// The key of `senders`: link name padded to 16 bytes, then the address.
pub fn source_key(bridge: &str, address: Ipv4Addr) -> [u8; 20] {
    let mut key = [0; 20];
    key[..bridge.len()].copy_from_slice(bridge.as_bytes());
    key[16..].copy_from_slice(&address.octets());
    key
}

/// The pool as a test on an address.
pub(super) fn in_pool(rule: Rule, op: Op, pool: Ipv4Addr) -> Rule {
    rule.mask(R1, &mask(POOL_PREFIX).to_be_bytes()).cmp(op, R1, &pool.octets())
}

/// An address block of the sort that is refused always, as a test on the destination.
fn to_block(first: [u8; 4], bits: [u8; 4]) -> Rule {
    Rule::new().daddr(R1).mask(R1, &bits).cmp(Op::Eq, R1, &first)
}

/// The rules for IPv4 that all containers share. Sent again over an earlier daemon's table it
/// renews them and leaves every container's own chains and elements as they are.
pub fn base(cfg: &NetConfig) -> Vec<Request> {
    let table = Table { family: Family::Ip, name: &cfg.table };
    let mut list = vec![table.add()];
    list.extend(sets().iter().map(|set| table.add_set(set)));
    list.push(table.flush_set("resolvers"));
    for address in &cfg.resolvers {
        list.push(table.ensure_element("resolvers", &address.octets(), &Value::None));
    }
    let hook = |kind, number, priority| Hook { kind, number, priority };
    let base_chains = [
        ("raw", hook("filter", Hook::PREROUTING, -300)),
        ("pre", hook("nat", Hook::PREROUTING, -100)),
        ("out", hook("nat", Hook::OUTPUT, -100)),
        ("post", hook("nat", Hook::POSTROUTING, 100)),
        ("pass", hook("filter", Hook::FORWARD, 0)),
        ("local", hook("filter", Hook::INPUT, 0)),
    ];
    list.extend(base_chains.iter().map(|(name, hook)| table.add_base_chain(name, *hook)));
    list.extend(["inward", "common", "guest"].map(|name| table.add_chain(name, 0)));
    for (name, rules) in base_rules(cfg) {
        list.push(table.flush_chain(name));
        list.extend(rules.iter().map(|rule| table.add_rule(name, rule)));
    }
    list
}

/// What `ports` and the choices of `published` lead to.
const TARGET: Data<'static> = Data::Value(&[Field::Address, Field::Port]);

fn sets() -> [Set<'static>; 6] {
    const PORT: &[Field] = &[Field::Protocol, Field::Port];
    const SOURCE: &[Field] = &[Field::Interface, Field::Address];
    [
        Set { name: "ports", id: 1, key: PORT, data: TARGET },
        Set { name: "published", id: 2, key: PORT, data: Data::Verdict },
        Set { name: "senders", id: 3, key: SOURCE, data: Data::Verdict },
        Set { name: "guests", id: 5, key: SOURCE, data: Data::None },
        Set { name: "statics", id: 6, key: &[Field::Address], data: Data::None },
        Set { name: "resolvers", id: 4, key: &[Field::Address], data: Data::None },
    ]
}

/// What goes to another container, and not through a port of the box.
pub(super) fn to_siblings(cfg: &NetConfig) -> Rule {
    Rule::new().translated(Op::Eq).to_group(Op::Eq, group(&cfg.tag))
}

fn base_rules(cfg: &NetConfig) -> [(&'static str, Vec<Rule>); 9] {
    let ours = group(&cfg.tag);
    let from = |op: Op| Rule::new().from_group(op, ours);
    let loopback = |rule: Rule| rule.mask(R1, &[255, 0, 0, 0]).cmp(Op::Eq, R1, &[127, 0, 0, 0]);
    let inward = || {
        let tcp = Rule::new().protocol(R1).cmp(Op::Eq, R1, &[TCP]).to_this_box();
        vec![tcp.verdict(&Verdict::Jump("inward".to_owned()))]
    };
    let key = || Rule::new().protocol(R8).dport(R9);
    let dns = |protocol| {
        let dns = Rule::new().protocol(R1).cmp(Op::Eq, R1, &[protocol]);
        dns.dport(R1).cmp(Op::Eq, R1, &53u16.to_be_bytes()).daddr(R1)
    };
    let resolvers = [TCP, UDP].map(|protocol| dns(protocol).lookup("resolvers", R1).accept());
    let refuse = |rule: Rule| rule.reject(ADMIN_PROHIBITED);

    let mut local = vec![from(Op::Ne).accept(), Rule::new().state(ESTABLISHED | RELATED).accept()];
    local.extend(resolvers.clone());
    if cfg.dns_on_gateway {
        local.extend([TCP, UDP].map(|protocol| dns(protocol).to_this_link().accept()));
    }
    if cfg.allow_host_access {
        local.push(Rule::new().iifname(R1).saddr(R12).lookup("guests", R1).accept());
    }
    local.push(Rule::new().reject(HOST_PROHIBITED));

    let mut common = resolvers.to_vec();
    common.push(refuse(to_block([169, 254, 0, 0], [255, 255, 0, 0])));
    common.push(refuse(to_block([224, 0, 0, 0], [224, 0, 0, 0])));
    let guest = common.clone();
    common.push(refuse(to_siblings(cfg)));

    let statics = || Rule::new().saddr(R1).lookup("statics", R1);
    let pool = |op: Op| in_pool(Rule::new().saddr(R1), op, cfg.pool.0);
    [
        (
            "raw",
            vec![
                loopback(from(Op::Eq).daddr(R1)).drop(),
                loopback(from(Op::Eq).saddr(R1)).drop(),
                // Before an established connection lets it pass. The bridges' own rp_filter does
                // not settle it: where the box's `all` is 2, as on Ubuntu, that one holds.
                from(Op::Eq).forged().drop(),
            ],
        ),
        ("pre", inward()),
        ("out", inward()),
        ("inward", vec![key().map("ports", R8, R1).dnat(R8, R9), key().map("published", R8, 0)]),
        (
            "post",
            vec![
                loopback(Rule::new().to_group(Op::Eq, ours).saddr(R1)).masquerade(),
                in_pool(pool(Op::Eq).daddr(R1), Op::Ne, cfg.pool.0).masquerade(),
                pool(Op::Eq).translated(Op::Ne).masquerade(),
                statics().to_group(Op::Ne, ours).masquerade(),
                statics().translated(Op::Ne).masquerade(),
            ],
        ),
        (
            "pass",
            vec![
                Rule::new().state(ESTABLISHED | RELATED).accept(),
                from(Op::Eq).state(INVALID).drop(),
                Rule::new().iifname(R1).saddr(R12).map("senders", R1, 0),
                from(Op::Eq).drop(),
                Rule::new().translated(Op::Ne).to_group(Op::Eq, ours).accept(),
                Rule::new().to_group(Op::Eq, ours).drop(),
            ],
        ),
        ("local", local),
        ("common", common),
        ("guest", guest),
    ]
}

/// The rules for IPv6: containers have none of it.
pub fn base6(cfg: &NetConfig) -> Vec<Request> {
    let table = Table { family: Family::Ip6, name: &cfg.table };
    let ours = group(&cfg.tag);
    let hook = |number| Hook { kind: "filter", number, priority: 0 };
    let mut list = vec![table.add()];
    list.push(table.add_base_chain("pass", hook(Hook::FORWARD)));
    list.push(table.add_base_chain("local", hook(Hook::INPUT)));
    list.push(table.flush_chain("pass"));
    list.push(table.flush_chain("local"));
    list.push(table.add_rule("pass", &Rule::new().from_group(Op::Eq, ours).drop()));
    list.push(table.add_rule("pass", &Rule::new().to_group(Op::Eq, ours).drop()));
    list.push(table.add_rule("local", &Rule::new().from_group(Op::Eq, ours).drop()));
    list
}

/// Spreads connections to `port` over `backends` in turn, in the place of those that it leads to
/// now. No backends: the port is not published any more.
///
/// Every port counts for itself: with one counter for all, two ports that are asked in turn would
/// each lead to one instance only.
pub fn publish(cfg: &NetConfig, port: u16, backends: &[(Ipv4Addr, u16)]) -> Vec<Request> {
    let table = Table { family: Family::Ip, name: &cfg.table };
    let chain = format!("p{port}");
    let goto = Value::Verdict(Verdict::Goto(chain.clone()));
    let mut list = vec![table.add_chain(&chain, 0), table.flush_chain(&chain)];
    list.push(table.ensure_element("published", &port_key(port), &goto));
    match u32::try_from(backends.len()) {
        Ok(count) if count > 0 => {
            list.push(table.add_nameless_map(1, TARGET));
            for (number, (address, port)) in (0..count).zip(backends) {
                let value = Value::Bytes(target(*address, *port).into());
                list.push(table.add_nameless_element(1, number, &value));
            }
            let tcp = Rule::new().protocol(R1).cmp(Op::Eq, R1, &[TCP]);
            let turn = tcp.count(R1, count).map_of_batch(1, R1, R1);
            list.push(table.add_rule(&chain, &turn.dnat(R8, R9)));
        }
        _ => {
            list.push(table.delete_element("published", &port_key(port)));
            list.push(table.delete_chain(&chain));
        }
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    const POOL: Ipv4Addr = Ipv4Addr::new(10, 254, 0, 0);

    #[test]
    fn every_slot_has_a_subnet_of_its_own_inside_the_pool() {
        let last = addresses(POOL, Slot::new(Slot::COUNT - 1).expect("slot"));
        assert_eq!(last.container, Ipv4Addr::new(10, 254, 255, 254));
        let first = addresses(POOL, Slot::new(0).expect("slot"));
        assert_eq!((first.gateway, first.prefix), (Ipv4Addr::new(10, 254, 0, 1), 30));
    }

    #[test]
    fn only_names_of_this_tag_are_ours() {
        let slot = Slot::new(42).ok();
        for (name, tag, want) in [
            ("wb-42", "", slot),
            ("w42-0", "", slot),
            ("wb-ab42", "ab", slot),
            ("wab42-0", "ab", slot),
            ("wb-ab42", "a", None),
            ("wb-ab42", "", None),
            ("wb-042", "", None),
            ("wb-+42", "", None),
            ("w42-1", "", None),
            ("wb-16384", "", None),
            ("wlan0", "", None),
            ("w", "", None),
        ] {
            assert_eq!(slot_of_link(name, tag), want, "{name} {tag:?}");
        }
        assert_eq!(slot_of_chain("c42"), slot);
        assert_eq!(slot_of_chain("common"), None);
    }

    #[test]
    fn a_shared_bridge_has_the_name_of_its_network_and_of_no_slot() {
        let network = Ipv4Addr::new(255, 254, 1, 0);
        for tag in ["", "a", "s", "ss"] {
            let name = shared_bridge(tag, network);
            assert!(name.len() <= 15, "{name}");
            assert_eq!(network_of_bridge(&name, tag), Some(network));
            for other in ["", "a", "s", "ss"] {
                assert_eq!(slot_of_link(&name, other), None);
                assert!(other == tag || network_of_bridge(&name, other).is_none());
            }
        }
        for name in ["wb-1", "wb-s1", "wb-s+a090100", "wb-s0A090100", "wb-s0a0901000"] {
            assert_eq!(network_of_bridge(name, ""), None, "{name}");
        }
        let cfg = NetConfig::new("t", "a");
        let slot = Slot::new(3).expect("slot");
        let held = Addresses { container: Ipv4Addr::new(10, 9, 1, 7), ..addresses(POOL, slot) };
        let place = Place::new(&cfg, slot, Some(held));
        let back = Place::of_key(&cfg, slot, &place.key()).expect("ours");
        assert_eq!((back.bridge, back.addresses.container), (place.bridge, held.container));
        assert_eq!(Place::of_key(&cfg, slot, &Place::new(&cfg, slot, None).key()), None);
    }

    #[test]
    fn a_pool_that_meets_a_route_of_the_host_is_passed_over() {
        let ip = Ipv4Addr::new;
        let check = |own: &[Subnet], taken: &[Subnet]| pick_pool(POOL, own, taken);
        assert_eq!(check(&[], &[(ip(0, 0, 0, 0), 0), (ip(192, 168, 1, 0), 24)]), Some(POOL));
        assert_eq!(check(&[], &[(ip(10, 254, 7, 0), 24)]), Some(ip(10, 253, 0, 0)));
        let both = [(ip(10, 254, 0, 0), 16), (ip(10, 252, 0, 0), 15)];
        assert_eq!(check(&[], &both), Some(ip(10, 251, 0, 0)));
        assert_eq!(check(&[], &[(ip(10, 0, 0, 0), 8)]), Some(ip(172, 31, 0, 0)));
        assert_eq!(check(&[], &[(ip(0, 0, 0, 0), 1), (ip(128, 0, 0, 0), 1)]), Some(POOL));
        assert_eq!(check(&[], &[(ip(10, 0, 0, 0), 8), (ip(172, 16, 0, 0), 12)]), None);
        let own = [(ip(10, 253, 0, 4), 30)];
        assert_eq!(check(&own, &both), Some(ip(10, 253, 0, 0)), "live containers stay reachable");
    }

    #[test]
    fn keys_are_laid_out_as_the_sets_say() {
        assert_eq!(port_key(8080), [6, 0, 0, 0, 0x1f, 0x90, 0, 0]);
        assert_eq!(port_of_key(&port_key(8080)), Some(8080));
        assert_eq!(target(POOL, 80), [10, 254, 0, 0, 0, 80, 0, 0]);
        assert_eq!(&source_key("wb-1", POOL)[..6], b"wb-1\0\0");
    }
}
