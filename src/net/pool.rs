//! Which slots and host ports are free. Pure sets; what they hold is rebuilt from the kernel and
//! the depot when the daemon starts.

use crate::unit::Slot;
use std::collections::{BTreeSet, VecDeque};
use std::ops::RangeInclusive;

/// The slots: the lowest free one first, so that names and addresses stay small.
#[derive(Clone, Debug, Default)]
pub struct Slots {
    used: BTreeSet<Slot>,
}

impl Slots {
    /// All slots free.
    pub fn new() -> Slots {
        Slots::default()
    }

    /// Takes the lowest free slot; `None`: all 16384 are taken.
    pub fn acquire(&mut self) -> Option<Slot> {
        // The first gap in the sorted set; as long as there is none, the next number.
        let mut next = 0;
        for slot in &self.used {
            if u32::from(*slot) != next {
                break;
            }
            next += 1;
        }
        let slot = Slot::new(next).ok()?;
        self.used.insert(slot);
        Some(slot)
    }

    /// Takes this slot; `false`: it was taken.
    pub fn reserve(&mut self, slot: Slot) -> bool {
        self.used.insert(slot)
    }

    /// Gives a slot back; giving back a free one does nothing.
    pub fn release(&mut self, slot: Slot) {
        self.used.remove(&slot);
    }

    /// How many are taken.
    pub fn used(&self) -> usize {
        self.used.len()
    }
}

/// Host ports: the one that has been free for longest first, so that late packets for an app that
/// is gone meet a closed port and not the next app.
#[derive(Clone, Debug)]
pub struct Ports {
    range: RangeInclusive<u16>,
    free: VecDeque<u16>,
    used: BTreeSet<u16>,
}

impl Ports {
    /// All ports of the range free; `acquire` hands out no other.
    pub fn new(range: RangeInclusive<u16>) -> Ports {
        Ports { free: range.clone().collect(), range, used: BTreeSet::new() }
    }

    /// Takes the port that has been free for longest; `None`: the range is used up.
    pub fn acquire(&mut self) -> Option<u16> {
        let port = self.free.pop_front()?;
        self.used.insert(port);
        Some(port)
    }

    /// Takes this port, which may lie outside the range; `false`: it was taken.
    pub fn reserve(&mut self, port: u16) -> bool {
        self.free.retain(|free| *free != port);
        self.used.insert(port)
    }

    /// Gives a port back, to the end of the queue; giving back a free one does nothing.
    pub fn release(&mut self, port: u16) {
        if self.used.remove(&port) && self.range.contains(&port) {
            self.free.push_back(port);
        }
    }

    /// Which `acquire` gives next; `None`: the range is used up.
    pub fn next(&self) -> Option<u16> {
        self.free.front().copied()
    }

    /// Has `acquire` begin with this port and go on upwards, as [`Ports::next`] said in an earlier life:
    /// those below it were used last. One that is not free changes nothing.
    pub fn begin_with(&mut self, port: u16) {
        if let Some(place) = self.free.iter().position(|free| *free == port) {
            self.free.rotate_left(place);
        }
    }

    /// How many are left in the range.
    pub fn free(&self) -> usize {
        self.free.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot(n: u32) -> Slot {
        Slot::new(n).expect("slot")
    }

    #[test]
    fn the_lowest_free_slot_comes_first() {
        let mut slots = Slots::new();
        assert!(slots.reserve(slot(1)));
        assert!(!slots.reserve(slot(1)));
        assert_eq!(slots.acquire(), Some(slot(0)));
        assert_eq!(slots.acquire(), Some(slot(2)));
        slots.release(slot(0));
        slots.release(slot(0));
        assert_eq!(slots.used(), 2);
        assert_eq!(slots.acquire(), Some(slot(0)));
    }

    #[test]
    fn every_slot_can_be_had_once() {
        let mut slots = Slots::new();
        for n in 0..Slot::COUNT {
            assert!(slots.reserve(slot(n)));
        }
        assert_eq!(slots.acquire(), None);
        slots.release(slot(777));
        assert_eq!(slots.acquire(), Some(slot(777)));
    }

    #[test]
    fn a_released_port_is_the_last_to_be_used_again() {
        let mut ports = Ports::new(61_001..=61_003);
        assert_eq!(ports.acquire(), Some(61_001));
        ports.release(61_001);
        ports.release(61_001);
        assert_eq!(ports.free(), 3);
        let order: Vec<_> = std::iter::from_fn(|| ports.acquire()).collect();
        assert_eq!(order, [61_002, 61_003, 61_001]);
    }

    #[test]
    fn a_pool_goes_on_where_an_earlier_one_was() {
        let mut ports = Ports::new(61_001..=61_003);
        assert_eq!(ports.acquire(), Some(61_001));
        let next = ports.next().expect("two are left");
        ports.release(61_001);
        let mut after = Ports::new(61_001..=61_003);
        after.begin_with(next);
        after.begin_with(8080);
        let order: Vec<_> = std::iter::from_fn(|| after.acquire()).collect();
        assert_eq!(order, [61_002, 61_003, 61_001]);
        assert_eq!(after.next(), None);
    }

    #[test]
    fn a_reserved_port_is_not_handed_out_and_one_outside_the_range_does_not_enter_it() {
        let mut ports = Ports::new(61_001..=61_002);
        assert!(ports.reserve(61_001) && ports.reserve(8080));
        assert!(!ports.reserve(8080));
        ports.release(8080);
        assert_eq!((ports.acquire(), ports.acquire()), (Some(61_002), None));
        assert_eq!(Ports::new(65_535..=65_535).acquire(), Some(65_535));
    }
}
