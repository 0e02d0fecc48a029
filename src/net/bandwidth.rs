//! How fast a container may receive and send.
//!
//! What it receives waits in a token bucket on the host's end of its link. What it sends passes a
//! policer where it enters the host, before bridge and routes: chain `c<slot>` of table netdev NAME,
//! which nothing inside the container can reach or get around.

use super::plan::egress_chain;
use super::{Net, NetConfig, NetError, lock};
use crate::netlink::nft::{Chain, Family, Rule, Table};
use crate::netlink::route::queue::Bucket;
use crate::netlink::wire::Request;
use crate::netlink::{NetlinkError, Socket};
use crate::unit::Slot;
use serde::{Deserialize, Serialize};

/// How long packets may wait in the bucket: rate / 40 is 25 ms.
const LATENCY_PARTS: u64 = 40;
/// An ethernet header, which counts as well.
const HEADER: u64 = 14;
/// More is counted as this much: no link of this box is faster.
const RATE_MAX: u64 = 10_000_000_000;
const BURST_MAX: u64 = 1 << 30;

/// A limit, for either direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bandwidth {
    /// Bytes a second; 0 is no limit.
    pub rate_bytes: u64,
    /// Bytes at once. Less than one packet is counted as one packet.
    pub burst_bytes: u64,
}

impl Bandwidth {
    /// What the kernel can count.
    fn within(self, cfg: &NetConfig) -> Bandwidth {
        Bandwidth {
            rate_bytes: self.rate_bytes.min(RATE_MAX),
            burst_bytes: self.burst_bytes.clamp(u64::from(cfg.mtu) + HEADER, BURST_MAX),
        }
    }

    fn bucket(self) -> Bucket {
        let number = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
        Bucket {
            rate: self.rate_bytes,
            burst: number(self.burst_bytes),
            limit: number(self.rate_bytes / LATENCY_PARTS + self.burst_bytes),
        }
    }

    /// The way back from what the kernel tells.
    fn of((rate, limit): (u64, u32)) -> Bandwidth {
        let burst_bytes = u64::from(limit).saturating_sub(rate / LATENCY_PARTS);
        Bandwidth { rate_bytes: rate, burst_bytes }
    }
}

impl Net {
    /// Limits what a slot's container receives and, on its own, what it sends; `None`: no limit.
    /// Takes the place of an earlier limit. To send it may use up one second's bytes on top of the
    /// burst. After a failure there is no limit.
    pub fn limit_bandwidth(&self, slot: Slot, limit: Option<Bandwidth>) -> Result<(), NetError> {
        let limit = limit.filter(|limit| limit.rate_bytes > 0);
        let Some(limit) = limit.map(|limit| limit.within(&self.cfg)) else {
            self.host.shape(&self.cfg, slot, None)?;
            return self.unpolice(slot);
        };
        let policed = self.police(slot, limit);
        let limited = policed.and_then(|()| self.host.shape(&self.cfg, slot, Some(limit.bucket())));
        if limited.is_err() {
            // The first error is the one to tell.
            let _ = self.host.shape(&self.cfg, slot, None);
            let _ = self.unpolice(slot);
        }
        limited
    }

    /// The limit that the kernel has for a slot; `None`: none, or half of one, as after somebody has
    /// emptied the box's packet rules.
    pub fn bandwidth(&self, slot: Slot) -> Result<Option<Bandwidth>, NetError> {
        let Some(shaped) = self.host.shaped(&self.cfg, slot)? else { return Ok(None) };
        let policed = self.is_policed(&mut lock(&self.rules), slot)?;
        Ok(policed.then(|| Bandwidth::of(shaped)))
    }

    fn police(&self, slot: Slot, limit: Bandwidth) -> Result<(), NetError> {
        let mut rules = lock(&self.rules);
        let known = self.is_policed(&mut rules, slot)?;
        let list = police(&self.cfg, slot, limit, known);
        rules.transaction(list).map_err(self.failed("limit bandwidth in"))
    }

    /// Removes a slot's policer. Already gone is success.
    pub(super) fn unpolice(&self, slot: Slot) -> Result<(), NetError> {
        let mut rules = lock(&self.rules);
        if self.is_policed(&mut rules, slot)? {
            let (table, chain) = (table(&self.cfg), egress_chain(slot));
            let list = vec![table.flush_chain(&chain), table.delete_chain(&chain)];
            match rules.transaction(list) {
                // It went with the link.
                Err(err) if err.missing() => {}
                removed => removed.map_err(self.failed("remove"))?,
            }
        }
        Ok(())
    }

    /// It is the chain of a policer.
    pub(super) fn polices(&self, chain: &Chain) -> bool {
        chain.family == Family::Netdev as u8 && chain.table == self.cfg.table
    }

    fn is_policed(&self, rules: &mut Socket, slot: Slot) -> Result<bool, NetError> {
        match rules.request(table(&self.cfg).get_chain(&egress_chain(slot))) {
            Ok(_) => Ok(true),
            Err(err) if absent(&err) => Ok(false),
            Err(err) => Err(self.failed("look into")(err)),
        }
    }
}

/// No such chain, or a kernel that cannot have it.
fn absent(err: &NetlinkError) -> bool {
    err.missing() || err.unsupported()
}

fn table(cfg: &NetConfig) -> Table<'_> {
    Table { family: Family::Netdev, name: &cfg.table }
}

/// The requests that let a slot's link take in no more than this, in the place of a policer that is
/// `known` to be there.
fn police(cfg: &NetConfig, slot: Slot, limit: Bandwidth, known: bool) -> Vec<Request> {
    let (table, chain) = (table(cfg), egress_chain(slot));
    let burst = u32::try_from(limit.burst_bytes).unwrap_or(u32::MAX);
    let rule = Rule::new().over(limit.rate_bytes, burst).drop();
    let mut list = match known {
        true => vec![table.flush_chain(&chain)],
        false => vec![table.add(), table.add_ingress_chain(&chain, &slot.veth_host(&cfg.tag))],
    };
    list.push(table.add_rule(&chain, &rule));
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_read_back_as_it_was_set_within_what_a_packet_and_the_kernel_need() {
        let cfg = NetConfig::new("terrarium", "");
        for (rate, burst, want) in [
            (125_000, 10_000, (125_000, 10_000)),
            (1, 0, (1, 1514)),
            (u64::MAX, u64::MAX, (RATE_MAX, BURST_MAX)),
        ] {
            let limit = Bandwidth { rate_bytes: rate, burst_bytes: burst }.within(&cfg);
            let bucket = limit.bucket();
            let back = Bandwidth::of((bucket.rate, bucket.limit));
            assert_eq!((back.rate_bytes, back.burst_bytes), want);
            assert_eq!(limit, back);
        }
    }
}
