//! What is added to a container's rules while it runs, and all of them anew.

use super::egress;
use super::egress::{Grant, Otherwise};
use super::host::lock;
use super::{Net, NetError, PortMap, plan, ports_to, too_many};
use crate::model;
use crate::netlink::nft;
use crate::unit::Slot;
use std::collections::BTreeSet;

/// Requests of one transaction, of many containers: a batch of rules has to fit into the socket.
const TOGETHER_MAX: usize = 1000;

/// What a slot is to have, as in [`Net::renew`].
#[derive(Debug)]
pub struct Renewal<'a> {
    /// Which one.
    pub slot: Slot,
    /// Host ports that lead to it.
    pub ports: Vec<PortMap>,
    /// What it may reach.
    pub egress: &'a [model::egress::Rule],
    /// And besides.
    pub otherwise: Otherwise<'a>,
}

/// What [`Net::renew_all`] has done, and seen.
#[derive(Debug, Default)]
pub struct Renewed {
    /// Slots whose rules are as they are to be.
    pub done: BTreeSet<Slot>,
    /// Those of them that have no limit of bandwidth.
    pub unlimited: BTreeSet<Slot>,
}

impl Net {
    /// Opens more to a slot that has rules, in one step. Garden's order: the last opening is looked at
    /// first, which shows in what is logged, under the name `log` of [`Otherwise::Garden`]. `NoRules`: it
    /// has none, so `allow` must come first.
    pub fn open_more(
        &self,
        slot: Slot,
        egress: &[model::egress::Rule],
        log: &str,
    ) -> Result<(), NetError> {
        let mut rules = lock(&self.rules);
        let chain = plan::egress_chain(slot);
        let replies = match rules.dump(self.table().get_rules(&chain)) {
            Err(err) if err.missing() => Vec::new(),
            replies => replies.map_err(self.failed("list"))?,
        };
        let handles: Vec<_> = replies.iter().filter_map(nft::parse_handle).collect();
        let list = egress::open_more(&self.cfg, &self.place(slot), (egress, log), &handles)
            .map_err(too_many)?;
        self.send(&mut rules, list.ok_or(NetError::NoRules { slot })?)
    }

    /// Leads one more host port to a slot that has rules. `PortTaken`: it leads somewhere already.
    /// `NoRules`: `allow` must come first.
    pub fn map_port(&self, slot: Slot, port: PortMap) -> Result<(), NetError> {
        let mut rules = lock(&self.rules);
        if !self.is_sender(&mut rules, slot)? {
            return Err(NetError::NoRules { slot });
        }
        self.check_published(&mut rules, port.host)?;
        let list = vec![egress::port(&self.cfg, &self.place(slot), port)];
        self.send(&mut rules, list)
    }

    /// As [`Net::allow`], for a slot that most likely has rules: they are replaced at once, and no
    /// packet sees it without.
    pub fn renew(
        &self,
        slot: Slot,
        ports: &[PortMap],
        egress: &[model::egress::Rule],
        otherwise: Otherwise<'_>,
    ) -> Result<(), NetError> {
        let place = &self.place(slot);
        let mut rules = self.rules_before(ports)?;
        self.replace(&mut rules, &Grant { place, ports, egress, otherwise })
    }

    /// As [`Net::renew`], for many slots at once: one at a time, each has the kernel check the rules of
    /// all. Those that have rules, and whose ports no app has; the others are for `renew`, which tells what
    /// is wrong.
    pub fn renew_all(&self, all: &[Renewal<'_>]) -> Result<Renewed, NetError> {
        let mut rules = lock(&self.rules);
        self.ensure_table(&mut rules)?;
        let keys = |elements: Vec<nft::Element>| -> BTreeSet<Vec<u8>> {
            elements.into_iter().map(|(key, _)| key).collect()
        };
        let senders = keys(self.elements(&mut rules, "senders")?);
        let published = keys(self.elements(&mut rules, "published")?);
        let ports = self.elements(&mut rules, "ports")?;
        let mut done = BTreeSet::new();
        let (mut list, mut slots) = (Vec::new(), Vec::new());
        for (at, one) in all.iter().enumerate() {
            let Renewal { slot, ports: own, egress, otherwise } = one;
            let place = &self.place(*slot);
            let is_free =
                |port: &PortMap| !published.contains(plan::port_key(port.host).as_slice());
            if senders.contains(place.key().as_slice()) && own.iter().all(is_free) {
                let grant = Grant { place, ports: own, egress, otherwise: *otherwise };
                let old = ports_to(place.addresses.container, &ports);
                list.extend(egress::replace(&self.cfg, &grant, &old).map_err(too_many)?);
                slots.push(*slot);
            }
            if list.len() >= TOGETHER_MAX || at + 1 == all.len() {
                self.send(&mut rules, std::mem::take(&mut list))?;
                done.extend(slots.drain(..));
            }
        }
        let mut unlimited: BTreeSet<Slot> =
            self.host.unshaped(&self.cfg.tag)?.into_iter().collect();
        unlimited.retain(|slot| done.contains(slot));
        for chain in self.chains(&mut rules)?.iter().filter(|chain| self.polices(chain)) {
            plan::slot_of_chain(&chain.name).map(|slot| unlimited.remove(&slot));
        }
        Ok(Renewed { done, unlimited })
    }

    /// Whether so many openings fit, without looking at the kernel. `TooManyRules`: they do not.
    pub fn check_egress(
        &self,
        egress: &[model::egress::Rule],
        otherwise: Otherwise<'_>,
    ) -> Result<(), NetError> {
        egress::fits(egress, otherwise).map_err(too_many)
    }
}
