//! One container's own rules as a list of requests. Pure.
//!
//! `c<slot>`: its neighbours on a shared bridge; jump `common` or `guest`; the container's own
//! published address; a rule for every protocol × address range × port range that is open; what
//! becomes of the rest. The first match ends the chain. An app's openings that log come first, and
//! the rest is rejected. With Garden's default the last opening comes first, which may open another
//! container; then other containers are refused; then networks that are allowed, networks that are
//! denied, accept.

use super::plan::{self, ADMIN_PROHIBITED, Place, TCP, UDP, egress_chain};
use super::{NetConfig, PortMap};
use crate::model::egress;
use crate::netlink::nft::{Family, Handle, Op, R1, Rule, Table, Value, Verdict};
use crate::netlink::wire::{EXCL, Request};
use crate::unit::Slot;
use std::net::Ipv4Addr;

/// Packet rules in one container's chain, after every range has been multiplied out.
pub const RULES_MAX: usize = 4096;
/// Rules of a chain before the first that opens something; one more on a shared bridge.
const HEAD: usize = 2;
/// Log lines a second that one rule writes, and how many at once.
const LOG_PER_SECOND: u64 = 10;
const LOG_BURST: u32 = 20;
/// IP protocol number.
const ICMP: u8 = 1;

/// What a request of a list is about: for the error, when the kernel refuses it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum About {
    /// The container's chain, or its entry in `senders`.
    Chain,
    /// A rule in it.
    Rule,
    /// This host port.
    Port(u16),
}

/// More rules than [`RULES_MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooMany(pub usize);

/// Addresses, both included.
pub type Range = (Ipv4Addr, Ipv4Addr);

/// What becomes of traffic that no opening lets through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Otherwise<'a> {
    /// It is refused: an app reaches what it declares.
    #[default]
    Deny,
    /// Garden's way: to `allow` it passes, to `deny` it is refused, all other passes, but for other
    /// containers'. The box itself is another matter: [`NetConfig::allow_host_access`].
    Garden {
        /// Beats `deny`.
        allow: &'a [Range],
        /// What only an opening opens.
        deny: &'a [Range],
        /// What the kernel's log calls the container where an opening logs, in printable ASCII; empty: by
        /// its bridge.
        log: &'a str,
    },
}

/// Everything that a container's own rules consist of.
#[derive(Clone, Copy, Debug)]
pub struct Grant<'a> {
    /// Whose.
    pub place: &'a Place,
    /// Host ports that lead to it.
    pub ports: &'a [PortMap],
    /// What it may reach.
    pub egress: &'a [egress::Rule],
    /// And besides.
    pub otherwise: Otherwise<'a>,
}

/// The requests for a container that has no rules yet; refused as a whole if it has.
pub fn allow(cfg: &NetConfig, grant: &Grant<'_>) -> Result<Vec<(About, Request)>, TooMany> {
    let table = Table { family: Family::Ip, name: &cfg.table };
    let chain = egress_chain(grant.place.slot);
    let mut list = vec![(About::Chain, table.add_chain(&chain, EXCL))];
    list.extend(entries(cfg, grant)?);
    Ok(list)
}

/// The requests that put these rules in the place of those that the container has, of which
/// `old` are the keys in `ports`.
pub fn replace(
    cfg: &NetConfig,
    grant: &Grant<'_>,
    old: &[Vec<u8>],
) -> Result<Vec<(About, Request)>, TooMany> {
    let mut list: Vec<_> =
        clear(cfg, grant.place, old).into_iter().map(|request| (About::Chain, request)).collect();
    list.extend(entries(cfg, grant)?);
    Ok(list)
}

/// The requests that remove a container's rules, of which `old` are the keys in `ports`. What is
/// not there is first made, so that removing it never fails.
pub fn release(cfg: &NetConfig, place: &Place, old: &[Vec<u8>]) -> Vec<Request> {
    let table = Table { family: Family::Ip, name: &cfg.table };
    let mut list = clear(cfg, place, old);
    list.push(table.delete_chain(&egress_chain(place.slot)));
    list
}

/// Leaves the chain, empty, and nothing that leads to it.
fn clear(cfg: &NetConfig, place: &Place, old: &[Vec<u8>]) -> Vec<Request> {
    let table = Table { family: Family::Ip, name: &cfg.table };
    let chain = egress_chain(place.slot);
    let (key, address) = (place.key(), place.addresses.container.octets());
    let mut list: Vec<_> = old.iter().map(|key| table.delete_element("ports", key)).collect();
    list.push(table.add_chain(&chain, 0));
    list.push(table.ensure_element("senders", &key, &verdict(place.slot)));
    list.push(table.delete_element("senders", &key));
    for (set, key) in [("guests", key.as_slice()), ("statics", &address)] {
        list.push(table.ensure_element(set, key, &Value::None));
        list.push(table.delete_element(set, key));
    }
    list.push(table.flush_chain(&chain));
    list
}

fn verdict(slot: Slot) -> Value {
    Value::Verdict(Verdict::Goto(egress_chain(slot)))
}

fn entries(cfg: &NetConfig, grant: &Grant<'_>) -> Result<Vec<(About, Request)>, TooMany> {
    let table = Table { family: Family::Ip, name: &cfg.table };
    let chain = egress_chain(grant.place.slot);
    let mut list: Vec<_> =
        rules(cfg, grant)?.iter().map(|rule| (About::Rule, table.add_rule(&chain, rule))).collect();
    let key = grant.place.key();
    let value = verdict(grant.place.slot);
    list.push((About::Chain, table.add_element("senders", &key, &value)));
    if grant.place.shared {
        let address = grant.place.addresses.container.octets();
        list.push((About::Chain, table.ensure_element("statics", &address, &Value::None)));
    }
    if matches!(grant.otherwise, Otherwise::Garden { .. }) {
        list.push((About::Chain, table.add_element("guests", &key, &Value::None)));
    }
    list.extend(grant.ports.iter().map(|map| port(cfg, grant.place, *map)));
    Ok(list)
}

/// The request that leads a host port to a container; refused if it leads somewhere.
pub fn port(cfg: &NetConfig, place: &Place, port: PortMap) -> (About, Request) {
    let table = Table { family: Family::Ip, name: &cfg.table };
    let value = Value::Bytes(plan::target(place.addresses.container, port.container).into());
    let request = table.add_element("ports", &plan::port_key(port.host), &value);
    (About::Port(port.host), request)
}

/// The requests that open more to a container that has rules, of which `handles` are all. Of these
/// openings and the earlier ones the last is looked at first; none of the earlier ones ever misses.
/// `None`: the chain is none that [`allow`] made.
pub fn open_more(
    cfg: &NetConfig,
    place: &Place,
    (more, log): (&[egress::Rule], &str),
    handles: &[Handle],
) -> Result<Option<Vec<(About, Request)>>, TooMany> {
    let table = Table { family: Family::Ip, name: &cfg.table };
    let chain = egress_chain(place.slot);
    let head = HEAD + usize::from(place.shared);
    // One more is the rule for the rest.
    let earlier = handles.len().saturating_sub(head + 1);
    few(earlier.saturating_add(multiplied(more)))?;
    let Some(before) = handles.get(head) else { return Ok(None) };
    let insert = |rule: &Rule| (About::Rule, table.insert_rule(&chain, *before, rule));
    let openings = more.iter().rev().flat_map(|open| opening(cfg, (place.slot, log), open));
    Ok(Some(openings.map(|rule| insert(&rule)).collect()))
}

/// How many packet rules these come to.
fn multiplied(rules: &[egress::Rule]) -> usize {
    let count = |rule: &egress::Rule| {
        let product = rule.to.len().max(1).saturating_mul(rule.ports.len().max(1));
        product.saturating_mul(if rule.log { 2 } else { 1 })
    };
    rules.iter().map(count).fold(0, usize::saturating_add)
}

fn few(count: usize) -> Result<(), TooMany> {
    if count > RULES_MAX { Err(TooMany(count)) } else { Ok(()) }
}

/// Whether these are no more than one container may have.
pub fn fits(egress: &[egress::Rule], otherwise: Otherwise<'_>) -> Result<(), TooMany> {
    let others = match otherwise {
        Otherwise::Deny => 0,
        // One more refuses other containers.
        Otherwise::Garden { allow, deny, .. } => allow.len().saturating_add(deny.len() + 1),
    };
    few(multiplied(egress).saturating_add(others))
}

fn rules(cfg: &NetConfig, grant: &Grant<'_>) -> Result<Vec<Rule>, TooMany> {
    fits(grant.egress, grant.otherwise)?;
    let container = grant.place.addresses.container;
    let (head, log) = match grant.otherwise {
        Otherwise::Deny => ("common", ""),
        Otherwise::Garden { log, .. } => ("guest", log),
    };
    // With bridge netfilter on, what goes from port to port of the bridge comes by, too.
    let neighbours = to_range(Rule::new(), grant.place.addresses.range()).accept();
    let mut list: Vec<_> = grant.place.shared.then_some(neighbours).into_iter().collect();
    list.extend([
        Rule::new().verdict(&Verdict::Jump(head.to_owned())),
        Rule::new().daddr(R1).cmp(Op::Eq, R1, &container.octets()).accept(),
    ]);
    let opening = |open: &egress::Rule| opening(cfg, (grant.place.slot, log), open);
    let to = |range: &Range| to_range(Rule::new(), *range);
    match grant.otherwise {
        Otherwise::Deny => {
            for log in [true, false] {
                let openings = grant.egress.iter().filter(|open| open.log == log);
                list.extend(openings.flat_map(opening));
            }
            list.push(Rule::new().reject(ADMIN_PROHIBITED));
        }
        Otherwise::Garden { allow, deny, .. } => {
            list.extend(grant.egress.iter().rev().flat_map(opening));
            list.push(plan::to_siblings(cfg).reject(ADMIN_PROHIBITED));
            list.extend(allow.iter().map(|range| to(range).accept()));
            list.extend(deny.iter().map(|range| to(range).reject(ADMIN_PROHIBITED)));
            list.push(Rule::new().accept());
        }
    }
    Ok(list)
}

/// Every packet rule that this egress rule stands for.
fn opening(cfg: &NetConfig, (slot, log): (Slot, &str), open: &egress::Rule) -> Vec<Rule> {
    let prefix = match log {
        "" => format!("{} {}: ", cfg.table, slot.bridge(&cfg.tag)),
        name => format!("{name} "),
    };
    let logged = |matches: &Rule| {
        let limited = matches.clone().limit(LOG_PER_SECOND, LOG_BURST);
        open.log.then(|| limited.log(&prefix))
    };
    let accepted = |matches: Rule| logged(&matches).into_iter().chain([matches.accept()]);
    product(cfg, open).into_iter().flat_map(accepted).collect()
}

/// The matching part of every packet rule that this egress rule stands for.
fn product(cfg: &NetConfig, open: &egress::Rule) -> Vec<Rule> {
    let protocol = |number: u8| Rule::new().protocol(R1).cmp(Op::Eq, R1, &[number]);
    let (start, ported) = match open.protocol {
        egress::Protocol::All => (Rule::new(), false),
        egress::Protocol::Tcp => (protocol(TCP), true),
        egress::Protocol::Udp => (protocol(UDP), true),
        egress::Protocol::Icmp => (icmp(protocol(ICMP), open.icmp), false),
    };
    let by_address: Vec<Rule> = match open.to.as_slice() {
        // "Everywhere" means the world; containers' addresses must be named.
        [] => {
            let outward = start.to_group(Op::Ne, plan::group(&cfg.tag));
            vec![plan::in_pool(outward.daddr(R1), Op::Ne, cfg.pool.0)]
        }
        ranges => ranges.iter().map(|range| to_range(start.clone(), *range)).collect(),
    };
    if !ported || open.ports.is_empty() {
        return by_address;
    }
    let to_port = |rule: &Rule, (first, last): (u16, u16)| {
        rule.clone().dport(R1).range(Op::Eq, R1, &first.to_be_bytes(), &last.to_be_bytes())
    };
    by_address.iter().flat_map(|rule| open.ports.iter().map(|p| to_port(rule, *p))).collect()
}

fn icmp(rule: Rule, only: Option<(u8, Option<u8>)>) -> Rule {
    let Some((kind, code)) = only else { return rule };
    let rule = rule.icmp_type(R1).cmp(Op::Eq, R1, &[kind]);
    code.into_iter().fold(rule, |rule, code| rule.icmp_code(R1).cmp(Op::Eq, R1, &[code]))
}

fn to_range(rule: Rule, (first, last): Range) -> Rule {
    rule.daddr(R1).range(Op::Eq, R1, &first.octets(), &last.octets())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::egress::{Protocol, Rule as Open};

    fn cfg() -> NetConfig {
        NetConfig::new("terrarium", "")
    }

    fn place() -> Place {
        Place::new(&cfg(), Slot::new(3).expect("slot"), None)
    }

    fn grant<'a>(place: &'a Place, ports: &'a [PortMap], egress: &'a [Open]) -> Grant<'a> {
        Grant { place, ports, egress, otherwise: Otherwise::Deny }
    }

    fn open(to: usize, ports: usize, log: bool) -> Open {
        let to = vec![(Ipv4Addr::new(1, 2, 3, 4), Ipv4Addr::new(1, 2, 3, 9)); to];
        Open { protocol: Protocol::Tcp, to, ports: vec![(80, 90); ports], icmp: None, log }
    }

    fn count(list: &[(About, Request)], about: About) -> usize {
        list.iter().filter(|(found, _)| *found == about).count()
    }

    #[test]
    fn ranges_and_ports_are_multiplied_out() {
        let nothing = allow(&cfg(), &grant(&place(), &[], &[])).expect("few");
        let base = count(&nothing, About::Rule);
        assert_eq!(base, 3, "common, its own address, reject");
        for (rule, want) in [(open(0, 0, false), 1), (open(2, 3, false), 6), (open(2, 3, true), 12)]
        {
            let list = allow(&cfg(), &grant(&place(), &[], &[rule])).expect("few");
            assert_eq!(count(&list, About::Rule), base + want);
        }
    }

    #[test]
    fn a_list_without_end_is_refused_before_it_is_built() {
        let rules = vec![open(64, 64, false), open(1, 1, false)];
        let refused = allow(&cfg(), &grant(&place(), &[], &rules)).map(drop);
        assert_eq!(refused, Err(TooMany(4097)));
    }

    #[test]
    fn every_host_port_is_a_request_of_its_own_so_that_a_clash_has_a_name() {
        let ports = [PortMap { host: 80, container: 8080 }, PortMap { host: 81, container: 8080 }];
        let list = allow(&cfg(), &grant(&place(), &ports, &[])).expect("few");
        assert_eq!(list.last().map(|(about, _)| *about), Some(About::Port(81)));
        assert_eq!(count(&list, About::Port(80)), 1);
    }
}
