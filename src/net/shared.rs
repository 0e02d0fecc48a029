//! Containers that asked for a network by address: what they hold, and the bridge that those of one
//! network share. It comes with the first of them and goes with the last.

use super::error::NetError;
use super::host::{Host, failed, lock};
use super::plan::{self, Addresses, Place, Subnet};
use super::subnets::Wanted;
use super::{Net, NetConfig};
use crate::netlink::{Link, Socket};
use crate::unit::Slot;

impl Net {
    /// Gives a slot an address of the network that it asks for, as Garden's clients write it:
    /// `a.b.c.d/n`, without host bits for any address of it. From now on that is where the slot is.
    /// To be called before [`Net::attach`]; [`Net::release`] gives it back. `Subnet`: it cannot be.
    pub fn claim(&self, slot: Slot, network: &str) -> Result<Addresses, NetError> {
        let wanted = Wanted::parse(network).map_err(NetError::Subnet)?;
        let routes = self.host.foreign_routes(&self.cfg.tag)?;
        lock(&self.subnets).reserve(slot, wanted, &routes).map_err(NetError::Subnet)
    }

    /// Takes back what [`Net::claim`] gave a slot that was never attached.
    pub fn unclaim(&self, slot: Slot) {
        lock(&self.subnets).release(slot);
    }

    /// Gives a slot what [`Net::claim`] gave it before the daemon was started again.
    pub fn reclaim(&self, slot: Slot, had: Addresses) -> Result<(), NetError> {
        lock(&self.subnets).restore(slot, had).map_err(NetError::Subnet)
    }

    /// Where a slot is.
    pub(super) fn place(&self, slot: Slot) -> Place {
        Place::new(&self.cfg, slot, lock(&self.subnets).get(slot))
    }

    /// Where a slot's rules say that it is, for who removes it: after a crash its record may be gone.
    pub(super) fn place_in_rules(&self, rules: &mut Socket, slot: Slot) -> Result<Place, NetError> {
        let place = self.place(slot);
        if self.has(rules, "senders", &place.key())? {
            return Ok(place);
        }
        let chain = plan::egress_chain(slot);
        let senders = self.elements(rules, "senders")?;
        let found = senders.iter().find(|(_, leads_to)| leads_to == chain.as_bytes());
        let told = found.and_then(|(key, _)| Place::of_key(&self.cfg, slot, key));
        Ok(told.unwrap_or(place))
    }
}

impl Host {
    /// Where routes of this box lead, but for those over bridges that containers share.
    fn foreign_routes(&self, tag: &str) -> Result<Vec<Subnet>, NetError> {
        let mut route = lock(&self.route);
        let failed = || failed("list", "routes of this box");
        let links = route.links().map_err(failed())?;
        let routes = route.routes().map_err(failed())?;
        let is_shared = |index: u32| links.iter().any(|l| l.index == index && is_shared(l, tag));
        let foreign = routes.iter().filter(|route| !route.link.is_some_and(is_shared));
        Ok(foreign.map(|route| (route.to, route.prefix)).collect())
    }

    /// The shared bridge that a slot is on. Asked of the kernel unless `place` knows it: after a crash
    /// the record may be gone.
    pub(super) fn shared_bridge(
        &self,
        cfg: &NetConfig,
        place: &Place,
    ) -> Result<Option<String>, NetError> {
        if place.shared {
            return Ok(Some(place.bridge.clone()));
        }
        let outer = place.slot.veth_host(&cfg.tag);
        let mut route = lock(&self.route);
        let Some(link) = route.link(&outer).map_err(failed("look up", &outer))? else {
            return Ok(None);
        };
        let own = route.link(&place.bridge).map_err(failed("look up", &place.bridge))?;
        if own.is_some() || link.master.is_none() {
            return Ok(None);
        }
        let links = route.links().map_err(failed("list", "of this box"))?;
        let master = links.into_iter().find(|other| Some(other.index) == link.master);
        Ok(master.filter(|master| is_shared(master, &cfg.tag)).map(|master| master.name))
    }

    /// Takes a slot off the bridge that it shares, and removes the bridge after the last one.
    pub(super) fn leave(&self, cfg: &NetConfig, slot: Slot, bridge: &str) -> Result<(), NetError> {
        // Nobody joins a bridge while it goes.
        let _joining = lock(&self.joining);
        self.delete(&slot.veth_host(&cfg.tag))?;
        self.sweep(|link| link.name == bridge)
    }

    /// Removes shared bridges on which nobody is: a crash may leave one.
    pub fn sweep_shared(&self, tag: &str) -> Result<(), NetError> {
        let _joining = lock(&self.joining);
        self.sweep(|link| is_shared(link, tag))
    }

    fn sweep(&self, which: impl Fn(&Link) -> bool) -> Result<(), NetError> {
        let links = lock(&self.remover).links().map_err(failed("list", "of this box"))?;
        let is_used = |bridge: &Link| links.iter().any(|link| link.master == Some(bridge.index));
        let mut empty = links.iter().filter(|link| which(link) && !is_used(link));
        empty.try_for_each(|link| self.delete(&link.name))
    }
}

fn is_shared(link: &Link, tag: &str) -> bool {
    plan::network_of_bridge(&link.name, tag).is_some()
}
