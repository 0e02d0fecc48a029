//! The network of containers: links, addresses and packet rules on the host's side.
//!
//! Owns: the `wb-<tag><slot>` bridges of one container each, the `wb-<tag>s<network>` bridges that
//! containers share, the `w<tag><slot>-0` veth ends and their queues, the nf_tables tables of the
//! configured name, the pools of slots, host ports and networks.
//! Must not: know what an app is; make or enter network namespaces; touch links, tables or settings
//! that it did not make, but for `ip_forward`.
//! Called by: `container`, `cell`, `daemon`, `cli` (who has a port). Calls: `netlink`, `model::egress`, `sys`,
//! `unit`, `log`.
//! Entry points: [`Net`], [`pool`], [`subnets`], [`text`] and [`plan`] (all four pure), [`host_address`],
//! [`choose_pool`], [`listening`].
//! Ancestor: garden-linux network, iptables and subnets; warden's net.sh.
//!
//! Everything is found again by name or address, so nothing here is written down. A container's
//! whole set of rules enters and leaves in one transaction: no packet sees half of it.

mod bandwidth;
mod config;
pub mod egress;
mod error;
mod host;
pub mod listening;
mod more;
pub mod plan;
pub mod pool;
mod shared;
pub mod subnets;
pub mod text;

pub use crate::netlink::RuleWatch;
pub use bandwidth::Bandwidth;
pub use config::{NetConfig, PortMap};
pub use egress::Otherwise;
pub use error::NetError;
pub use more::{Renewal, Renewed};
pub use plan::Addresses;
pub use subnets::SubnetError;

use crate::model;
use crate::netlink::nft::{self, Family, Table};
use crate::netlink::wire::Request;
use crate::netlink::{NetlinkError, Protocol, Route, Socket, conntrack};
use crate::unit::Slot;
use egress::{About, Grant};
use host::{Host, lock};
use plan::Place;
use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard};
use subnets::Subnets;

/// The network of all containers of one daemon.
///
/// It works in the network namespace of the thread that opened it, whichever thread calls.
pub struct Net {
    cfg: NetConfig,
    host: Host,
    /// One transaction at a time, so that what was read is still true when it is changed.
    rules: Mutex<Socket>,
    /// For the kernel's table of connections: to look through it takes milliseconds.
    connections: Mutex<Socket>,
    /// What containers hold of networks that they asked for.
    subnets: Mutex<Subnets>,
    /// The tables were found gone and made again, and [`Net::mend`] has not told it yet.
    emptied: AtomicBool,
}

impl Net {
    /// Makes the tables and the rules that all containers share, or renews those of an earlier
    /// daemon and leaves live containers' own as they are. Sets `ip_forward`. After a failure the
    /// tables are gone again, unless a container has rules in them.
    pub fn open(cfg: NetConfig) -> Result<Net, NetError> {
        cfg.check()?;
        let host = Host::open()?;
        let socket =
            || Socket::open(Protocol::Netfilter).map_err(|source| NetError::Open { source });
        let (rules, connections) = (Mutex::new(socket()?), Mutex::new(socket()?));
        let subnets = Mutex::new(Subnets::new(cfg.pool));
        let emptied = AtomicBool::new(false);
        let net = Net { cfg, host, rules, connections, subnets, emptied };
        let opened = net.prepare();
        if opened.is_err() {
            // The first error is the one to tell.
            let _ = net.close();
        }
        opened.map(|()| net)
    }

    /// Makes the rules that all containers share, and lets packets pass.
    fn prepare(&self) -> Result<(), NetError> {
        self.set_up(&mut lock(&self.rules))?;
        for chain in self.other_firewalls()? {
            crate::warn!("net.forward_policy_drop", chain = chain);
        }
        self.host.sweep_shared(&self.cfg.tag)?;
        host::forward_packets()
    }

    /// The addresses of a slot: gateway first, container second in its /30, or what it claimed.
    pub fn addresses(&self, slot: Slot) -> Addresses {
        self.place(slot).addresses
    }

    /// Makes a slot's bridge with the gateway's address, or joins that of the network that it claimed,
    /// and a veth from it into `netns`, whose end there is down and without address. After a failure
    /// nothing is left.
    pub fn attach(&self, slot: Slot, netns: BorrowedFd<'_>) -> Result<(), NetError> {
        self.host.attach(&self.cfg, &self.place(slot), netns)
    }

    /// Makes a slot's bridge ahead of its container, which [`Net::plug`] is to connect to it. `false`: its
    /// network is shared, and nothing was made; [`Net::attach`] does all. After a failure nothing is left.
    pub fn make_bridge(&self, slot: Slot) -> Result<bool, NetError> {
        let place = self.place(slot);
        match place.shared {
            true => Ok(false),
            false => self.host.make_bridge(&self.cfg, &place).map(|()| true),
        }
    }

    /// Makes a veth from the bridge of [`Net::make_bridge`] into `netns`, as [`Net::attach`] does. After
    /// a failure neither is left.
    pub fn plug(&self, slot: Slot, netns: BorrowedFd<'_>) -> Result<(), NetError> {
        self.host.plug(&self.cfg, &self.place(slot), netns)
    }

    /// Waits, as a rule not at all, until packets pass to and from the container; to be called once
    /// its own end is up. Without it the first packets may be lost, and what sent them stalls for a
    /// second. `false`: packets do not pass, as that end is not up.
    pub fn settle(&self, slot: Slot) -> Result<bool, NetError> {
        self.host.settle(&self.cfg, &self.place(slot))
    }

    /// Sets a slot's host ports and egress rules, and what becomes of other traffic, in the place of
    /// any that it has. All or nothing.
    /// `PortTaken`: a host port leads elsewhere already.
    pub fn allow(
        &self,
        slot: Slot,
        ports: &[PortMap],
        egress: &[model::egress::Rule],
        otherwise: Otherwise<'_>,
    ) -> Result<(), NetError> {
        let place = &self.place(slot);
        let grant = Grant { place, ports, egress, otherwise };
        let fresh = egress::allow(&self.cfg, &grant).map_err(too_many)?;
        let mut rules = self.rules_before(ports)?;
        match self.send(&mut rules, fresh) {
            // The chain is there: the container has rules already.
            Err(NetError::Rules { source, .. })
                if source.exists() && source.message() == Some(0) =>
            {
                self.replace(&mut rules, &grant)
            }
            sent => sent,
        }
    }

    /// The lock on the rules, for who gives a container these ports.
    fn rules_before(&self, ports: &[PortMap]) -> Result<MutexGuard<'_, Socket>, NetError> {
        let mut rules = lock(&self.rules);
        self.ensure_table(&mut rules)?;
        for port in ports {
            self.check_published(&mut rules, port.host)?;
        }
        Ok(rules)
    }

    fn replace(&self, rules: &mut Socket, grant: &Grant<'_>) -> Result<(), NetError> {
        let old = self.ports_of(rules, grant.place)?;
        let list = egress::replace(&self.cfg, grant, &old).map_err(too_many)?;
        self.send(rules, list)
    }

    /// Removes a slot's rules: its host ports lead nowhere any more. Already gone is success.
    pub fn revoke(&self, slot: Slot) -> Result<(), NetError> {
        self.revoke_found(slot).map(drop)
    }

    /// Does it where the slot is found, and tells where that is.
    fn revoke_found(&self, slot: Slot) -> Result<Place, NetError> {
        let mut rules = lock(&self.rules);
        if !self.has_table(&mut rules)? {
            return Ok(self.place(slot));
        }
        let place = self.place_in_rules(&mut rules, slot)?;
        let old = self.ports_of(&mut rules, &place)?;
        let list = egress::release(&self.cfg, &place, &old);
        rules.transaction(list).map_err(self.failed("remove"))?;
        Ok(place)
    }

    /// Removes a slot's rules, then its links, then the kernel's memory of its connections, which
    /// would still be let through for the next container of this slot. Already gone is success.
    /// Takes tens of milliseconds, in which other calls go on.
    pub fn release(&self, slot: Slot) -> Result<(), NetError> {
        let place = self.revoke_found(slot)?;
        self.unpolice(slot)?;
        self.host.remove(&self.cfg, &place)?;
        let container = place.addresses.container;
        let forgotten = conntrack::forget(&mut lock(&self.connections), container);
        if let Err(err) = forgotten {
            // A kernel may be built without the door to it; the connections time out then.
            crate::warn!("net.connections_kept", slot = slot, err = crate::log::chain(&err));
        }
        lock(&self.subnets).release(slot);
        Ok(())
    }

    /// Spreads tcp connections to a host port over these addresses and ports in turn; none: the port
    /// is not published any more. New connections follow at once, old ones stay where they are.
    pub fn publish(&self, port: u16, backends: &[(Ipv4Addr, u16)]) -> Result<(), NetError> {
        let mut rules = lock(&self.rules);
        self.ensure_table(&mut rules)?;
        if !backends.is_empty() && self.has(&mut rules, "ports", &plan::port_key(port))? {
            return Err(NetError::PortTaken { port });
        }
        let list = plan::publish(&self.cfg, port, backends);
        rules.transaction(list).map_err(self.failed("publish a port in"))
    }

    /// The ports that `publish` spreads now, for the sweep after a crash.
    pub fn published_ports(&self) -> Result<Vec<u16>, NetError> {
        let elements = self.elements(&mut lock(&self.rules), "published")?;
        Ok(elements.iter().filter_map(|(key, _)| plan::port_of_key(key)).collect())
    }

    /// Whether a slot's rules are in force. Not so before `allow`, and after somebody has emptied
    /// the box's packet rules (`nft flush ruleset`): then `allow` and `publish` mend it.
    pub fn is_allowed(&self, slot: Slot) -> Result<bool, NetError> {
        self.is_sender(&mut lock(&self.rules), slot)
    }

    /// Whether a slot's link leads to a network that lives.
    pub fn is_connected(&self, slot: Slot) -> Result<bool, NetError> {
        self.host.is_connected(&self.cfg, slot)
    }

    /// Puts back what all containers share when somebody has emptied the box's packet rules, first
    /// of all what keeps containers away from the box. `true`: it was gone since the last time,
    /// and with it containers' own rules and published ports.
    pub fn mend(&self) -> Result<bool, NetError> {
        let mut rules = lock(&self.rules);
        self.ensure_table(&mut rules)?;
        Ok(self.emptied.swap(false, Ordering::Relaxed))
    }

    /// The slots of which links or rules are there, in order.
    pub fn slots_on_host(&self) -> Result<Vec<Slot>, NetError> {
        let mut slots = BTreeSet::from_iter(self.host.slots(&self.cfg.tag)?);
        let chains = self.chains(&mut lock(&self.rules))?;
        let own = chains.iter().filter(|chain| self.owns(chain));
        slots.extend(own.filter_map(|chain| plan::slot_of_chain(&chain.name)));
        Ok(slots.into_iter().collect())
    }

    /// Bytes that a slot's container received and sent; `None`: it has no link.
    pub fn traffic(&self, slot: Slot) -> Result<Option<(u64, u64)>, NetError> {
        self.host.traffic(&self.cfg, slot)
    }

    /// Chains of others ("table chain") that drop what they do not know of all that passes through:
    /// a drop in any table is final, so containers may be cut off.
    pub fn other_firewalls(&self) -> Result<Vec<String>, NetError> {
        let chains = self.chains(&mut lock(&self.rules))?;
        let others = chains
            .iter()
            .filter(|chain| chain.base == Some((nft::Hook::FORWARD, true)) && !self.owns(chain));
        Ok(others.map(|chain| format!("{} {}", chain.table, chain.name)).collect())
    }

    /// Removes the tables when no container and no published port is left.
    pub fn close(&self) -> Result<(), NetError> {
        if !self.slots_on_host()?.is_empty() || !self.published_ports()?.is_empty() {
            return Ok(());
        }
        let mut rules = lock(&self.rules);
        for family in [Family::Ip, Family::Ip6, Family::Netdev] {
            match rules.transaction(vec![Table { family, name: &self.cfg.table }.delete()]) {
                Err(err) if err.missing() || err.unsupported() => {}
                deleted => deleted.map_err(self.failed("remove"))?,
            }
        }
        Ok(())
    }

    /// Makes or renews what all containers share.
    fn set_up(&self, rules: &mut Socket) -> Result<(), NetError> {
        rules.transaction(plan::base(&self.cfg)).map_err(self.failed("set up"))?;
        match rules.transaction(plan::base6(&self.cfg)) {
            // No IPv6 in this kernel: nothing that needs to be kept out.
            Err(err) if err.unsupported() => Ok(()),
            set_up => set_up.map_err(self.failed("set up IPv6")),
        }
    }

    fn has_table(&self, rules: &mut Socket) -> Result<bool, NetError> {
        match rules.request(self.table().get_chain("common")) {
            Ok(_) => Ok(true),
            Err(err) if err.missing() => Ok(false),
            Err(err) => Err(self.failed("look into")(err)),
        }
    }

    /// Firewall scripts like to start with `flush ruleset`.
    fn ensure_table(&self, rules: &mut Socket) -> Result<(), NetError> {
        if self.has_table(rules)? {
            return Ok(());
        }
        crate::warn!("net.table_restored", table = self.cfg.table);
        self.set_up(rules)?;
        self.emptied.store(true, Ordering::Relaxed);
        Ok(())
    }

    fn table(&self) -> Table<'_> {
        Table { family: Family::Ip, name: &self.cfg.table }
    }

    fn failed(&self, doing: &'static str) -> impl FnOnce(NetlinkError) -> NetError {
        let of = format!("of table {}", self.cfg.table);
        move |source| NetError::Rules { doing, of, source }
    }

    /// Sends a container's requests as one transaction; a clash is reported as what it is.
    fn send(&self, rules: &mut Socket, list: Vec<(About, Request)>) -> Result<(), NetError> {
        let (about, requests): (Vec<_>, Vec<_>) = list.into_iter().unzip();
        rules.transaction(requests).map_err(|err| {
            match err.message().and_then(|at| about.get(at)) {
                Some(About::Port(port)) if err.exists() => NetError::PortTaken { port: *port },
                _ => self.failed("add")(err),
            }
        })
    }

    fn is_sender(&self, rules: &mut Socket, slot: Slot) -> Result<bool, NetError> {
        self.has(rules, "senders", &self.place(slot).key())
    }

    fn check_published(&self, rules: &mut Socket, port: u16) -> Result<(), NetError> {
        match self.has(rules, "published", &plan::port_key(port))? {
            true => Err(NetError::PortTaken { port }),
            false => Ok(()),
        }
    }

    /// Whether a map has this key.
    fn has(&self, rules: &mut Socket, map: &str, key: &[u8]) -> Result<bool, NetError> {
        match rules.request(self.table().get_element(map, key)) {
            Ok(_) => Ok(true),
            Err(err) if err.missing() => Ok(false),
            Err(err) => Err(self.failed("look into")(err)),
        }
    }

    /// The keys in `ports` that lead to a container: read from the kernel, so that they are found after
    /// a crash too.
    fn ports_of(&self, rules: &mut Socket, place: &Place) -> Result<Vec<Vec<u8>>, NetError> {
        Ok(ports_to(place.addresses.container, &self.elements(rules, "ports")?))
    }

    fn elements(&self, rules: &mut Socket, set: &str) -> Result<Vec<nft::Element>, NetError> {
        match rules.dump(self.table().get_elements(set)) {
            Ok(replies) => Ok(replies.iter().flat_map(nft::parse_elements).collect()),
            Err(err) if err.missing() => Ok(Vec::new()),
            Err(err) => Err(self.failed("list")(err)),
        }
    }

    fn chains(&self, rules: &mut Socket) -> Result<Vec<nft::Chain>, NetError> {
        let replies = rules.dump(nft::get_chains()).map_err(self.failed("list"))?;
        Ok(replies.iter().filter_map(nft::parse_chain).collect())
    }

    fn owns(&self, chain: &nft::Chain) -> bool {
        chain.table == self.cfg.table
            && [Family::Ip, Family::Ip6, Family::Netdev].map(|f| f as u8).contains(&chain.family)
    }
}

/// The keys in `ports` that lead to this container.
fn ports_to(container: Ipv4Addr, ports: &[nft::Element]) -> Vec<Vec<u8>> {
    let own = ports.iter().filter(|(_, value)| value.starts_with(&container.octets()));
    own.map(|(key, _)| key.clone()).collect()
}

fn too_many(err: egress::TooMany) -> NetError {
    NetError::TooManyRules { count: err.0 }
}

/// The address that this box uses towards the world: where an app can be reached. Sends nothing.
pub fn host_address() -> Option<Ipv4Addr> {
    let world = Ipv4Addr::new(1, 2, 3, 4);
    Route::open().ok()?.way_to(world).ok()??.source
}

/// The pool to configure: where this tag's live containers are, else `wanted`, else another /16,
/// one that no route of the box meets.
pub fn choose_pool(wanted: Ipv4Addr, tag: &str) -> Result<Ipv4Addr, NetError> {
    let (own, others) = host::subnets(tag)?;
    plan::pick_pool(wanted, &own, &others).ok_or(NetError::NoPool)
}
