//! The number from which a container's network names, addresses and ids are derived.

use super::OutOfRange;
use serde::{Deserialize, Serialize};
use std::fmt;

/// A container's place in the pools: 0 to 16383, one /30 of a /16 each.
///
/// Everything that has to be found again by name after a crash derives from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct Slot(u16);

impl Slot {
    /// How many slots there are.
    pub const COUNT: u32 = 16_384;

    /// Checks the number.
    pub fn new(n: u32) -> Result<Slot, OutOfRange> {
        match u16::try_from(n) {
            Ok(small) if n < Slot::COUNT => Ok(Slot(small)),
            _ => Err(OutOfRange { what: "slot", got: n.into(), want: "0..=16383" }),
        }
    }

    /// The number.
    pub fn get(self) -> u16 {
        self.0
    }

    /// The bridge of this slot's subnet; `tag` (0 to 2 characters) keeps two daemons apart.
    pub fn bridge(self, tag: &str) -> String {
        format!("wb-{tag}{}", self.0)
    }

    /// The veth end that stays on the host.
    pub fn veth_host(self, tag: &str) -> String {
        format!("w{tag}{}-0", self.0)
    }

    /// The veth end inside the container.
    pub fn veth_inside(self, tag: &str) -> String {
        format!("w{tag}{}-1", self.0)
    }

    /// The 65536 host ids that this slot's container may use.
    pub fn ids(self) -> IdRange {
        IdRange { base: IdRange::FIRST + u32::from(self.0) * IdRange::WIDTH }
    }
}

impl TryFrom<u32> for Slot {
    type Error = OutOfRange;
    fn try_from(n: u32) -> Result<Slot, OutOfRange> {
        Slot::new(n)
    }
}

impl From<Slot> for u32 {
    fn from(slot: Slot) -> u32 {
        slot.0.into()
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A run of 65536 host user and group ids that belongs to one container: id 0 inside is `base`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdRange {
    /// The host id of the container's root.
    pub base: u32,
}

impl IdRange {
    /// Ids in one range.
    pub const WIDTH: u32 = 65_536;

    /// Whether one side of a user text can be meant: a name, or a number that is in a range. What
    /// begins like a number is one.
    pub fn may_be(text: &str) -> bool {
        let plain =
            text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
        let is_number = text.starts_with(|c: char| c.is_ascii_digit());
        !is_number || plain && text.parse::<u32>().is_ok_and(|id| id < Self::WIDTH)
    }
    /// The lowest id in use: above what `useradd` and `/etc/subuid` hand out by default.
    pub const FIRST: u32 = 0x1000_0000;

    /// The host id of `inside`, or `None` when a container cannot hold that id.
    pub fn host(self, inside: u32) -> Option<u32> {
        (inside < IdRange::WIDTH).then(|| self.base + inside)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_fifteen_characters_and_ids_do_not_overlap() {
        let last = Slot::new(Slot::COUNT - 1).expect("last slot");
        assert!(Slot::new(Slot::COUNT).is_err());
        for name in [last.bridge("zz"), last.veth_host("zz"), last.veth_inside("zz")] {
            assert!(name.len() <= 15, "{name}");
        }
        let (a, b) = (Slot::new(0).expect("slot").ids(), Slot::new(1).expect("slot").ids());
        assert_eq!(a.host(65_535).map(|id| id + 1), b.host(0));
        assert_eq!(a.host(65_536), None);
        assert!(u64::from(last.ids().base) + 65_536 < u64::from(u32::MAX));
    }
}
