//! What is added to a container's rules while it runs, and all of them anew.

use super::egress;
use super::egress::{Grant, Otherwise};
use super::host::lock;
use super::{Net, NetError, PortMap, plan, too_many};
use crate::model;
use crate::netlink::nft;
use crate::unit::Slot;

impl Net {
    /// Opens more to a slot that has rules, in one step. Garden's order: the last opening is looked at
    /// first, which shows in what is logged. `NoRules`: it has none, so `allow` must come first.
    pub fn open_more(&self, slot: Slot, egress: &[model::egress::Rule]) -> Result<(), NetError> {
        let mut rules = lock(&self.rules);
        let chain = plan::egress_chain(slot);
        let replies = match rules.dump(self.table().get_rules(&chain)) {
            Err(err) if err.missing() => Vec::new(),
            replies => replies.map_err(self.failed("list"))?,
        };
        let handles: Vec<_> = replies.iter().filter_map(nft::parse_handle).collect();
        let list =
            egress::open_more(&self.cfg, &self.place(slot), egress, &handles).map_err(too_many)?;
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

    /// Whether so many openings fit, without looking at the kernel. `TooManyRules`: they do not.
    pub fn check_egress(
        &self,
        egress: &[model::egress::Rule],
        otherwise: Otherwise<'_>,
    ) -> Result<(), NetError> {
        egress::fits(egress, otherwise).map_err(too_many)
    }
}
