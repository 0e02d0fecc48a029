//! Who has which slot and host ports, and on which containers work is under way. Pure.
//!
//! Numbers belong to a handle from before its depot entry is written until nothing of it is left:
//! so no two entries of the depot name the same numbers, and what a failed removal has left behind
//! keeps them.

use super::depot::{Entry, Glimpse};
use super::error::ContainerError;
use crate::net::pool::{Ports, Slots};
use crate::unit::{Handle, Slot};
use std::collections::{BTreeMap, BTreeSet};

/// The range of host ports is used up.
const NO_PORT: ContainerError =
    ContainerError::Full { what: "host port", cure: "widen [net] ports or scale down" };

/// All slots are taken.
const NO_SLOT: ContainerError = ContainerError::Full {
    what: "slot",
    cure: "each container takes one of 16384; delete apps or scale down",
};

/// A container's slot, and its ports: outside and inside.
pub type Numbers = (Slot, Vec<(u16, u16)>);

/// The pools, and what of them is whose.
pub struct Claims {
    slots: Slots,
    ports: Ports,
    held: BTreeMap<Handle, Held>,
    /// Reserved for what is on the box and could not be told; an entry may name it yet.
    avoided: BTreeSet<Slot>,
}

/// What one container has.
struct Held {
    /// `None`: its entry names a slot that another container has.
    slot: Option<Slot>,
    ports: Vec<u16>,
    work: Work,
}

/// What is done to a container at this moment.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Work {
    /// Nothing.
    Rests,
    /// It is being made or removed.
    Busy,
    /// It is destroyed but for its links; nobody waits for them.
    Leaving,
}

impl Claims {
    /// Nobody has anything.
    pub fn new(slots: Slots, ports: Ports) -> Claims {
        Claims { slots, ports, held: BTreeMap::new(), avoided: BTreeSet::new() }
    }

    /// Takes numbers for a container that is about to be made; it is busy until [`Self::rest`] or
    /// [`Self::forget`]. `reserved`: a slot of [`Self::reserve`], which is the container's then; not so
    /// after an error.
    pub fn begin(
        &mut self,
        handle: &Handle,
        inside: &[u16],
        reserved: Option<Slot>,
    ) -> Result<Numbers, ContainerError> {
        if self.held.contains_key(handle) {
            return Err(ContainerError::Exists(handle.clone()));
        }
        let slot = reserved.or_else(|| self.slots.acquire()).ok_or(NO_SLOT)?;
        let outside: Vec<u16> = inside.iter().map_while(|_| self.ports.acquire()).collect();
        if outside.len() < inside.len() {
            outside.into_iter().for_each(|port| self.ports.release(port));
            if reserved.is_none() {
                self.slots.release(slot);
            }
            return Err(NO_PORT);
        }
        let ports = outside.iter().copied().zip(inside.iter().copied()).collect();
        self.held
            .insert(handle.clone(), Held { slot: Some(slot), ports: outside, work: Work::Busy });
        Ok((slot, ports))
    }

    /// Takes a slot for which there is no container yet.
    pub fn reserve(&mut self) -> Option<Slot> {
        self.slots.acquire()
    }

    /// The same with this one; `false`: somebody has it.
    pub fn reserve_this(&mut self, slot: Slot) -> bool {
        self.slots.reserve(slot)
    }

    /// Gives such a slot back.
    pub fn unreserve(&mut self, slot: Slot) {
        self.slots.release(slot);
    }

    /// Gives a container that was found in the depot the numbers of its entry. `false`: some are
    /// another's, so it cannot be kept.
    pub fn adopt(&mut self, entry: &Entry) -> bool {
        let handle = &entry.spec.handle;
        if self.held.get(handle).is_some_and(|held| held.work != Work::Rests) {
            return false;
        }
        self.forget(handle);
        let held = self.take(entry);
        let whole = held.slot.is_some() && held.ports.len() == entry.ports.len();
        self.held.insert(handle.clone(), held);
        if !whole {
            self.forget(handle);
        }
        whole
    }

    /// Gives a container that nobody touches what is known of its numbers: nobody else gets them.
    /// `false`: it has numbers already.
    pub fn hold(&mut self, handle: &Handle, seen: &Glimpse) -> bool {
        let has_none =
            |held: &Held| held.slot.is_none() && held.ports.is_empty() && held.work == Work::Rests;
        let is_new = self.held.get(handle).is_none_or(has_none);
        if is_new {
            let held = self.take_numbers(seen.slot, &seen.ports);
            self.held.insert(handle.clone(), held);
        }
        is_new
    }

    /// Marks a container as being removed. What its entry names is its own from now on, unless
    /// another has it. `Some(true)`: the slot is its own, and with it links and rules; `None`: it
    /// is being made or removed already.
    pub fn begin_removal(&mut self, handle: &Handle, entry: Option<&Entry>) -> Option<bool> {
        if !self.held.contains_key(handle) {
            let nothing = Held { slot: None, ports: Vec::new(), work: Work::Rests };
            let held = entry.map_or(nothing, |entry| self.take(entry));
            self.held.insert(handle.clone(), held);
        }
        let held = self.held.get_mut(handle)?;
        if held.work != Work::Rests {
            return None;
        }
        held.work = Work::Busy;
        Some(held.slot.is_some() && held.slot == entry.map(|entry| entry.slot))
    }

    /// The slot that a container has.
    pub fn slot(&self, handle: &Handle) -> Option<Slot> {
        self.held.get(handle)?.slot
    }

    /// Of a container that is being removed only the links are left; they go in the background,
    /// until [`Self::rest`] or [`Self::forget`].
    pub fn leave(&mut self, handle: &Handle) {
        if let Some(held) = self.held.get_mut(handle) {
            held.work = Work::Leaving;
        }
    }

    /// A container is destroyed but for its links.
    pub fn is_leaving(&self, handle: &Handle) -> bool {
        self.held.get(handle).is_some_and(|held| held.work == Work::Leaving)
    }

    /// Work on a container is over; it keeps its numbers.
    pub fn rest(&mut self, handle: &Handle) {
        if let Some(held) = self.held.get_mut(handle) {
            held.work = Work::Rests;
        }
    }

    /// A container has the slot of its entry, and nobody works on it.
    pub fn rests(&self, entry: &Entry) -> bool {
        let held = self.held.get(&entry.spec.handle);
        held.is_some_and(|held| held.work == Work::Rests && held.slot == Some(entry.slot))
    }

    /// Nothing of a container is left: its numbers are free.
    pub fn forget(&mut self, handle: &Handle) {
        let Some(held) = self.held.remove(handle) else { return };
        held.ports.into_iter().for_each(|port| self.ports.release(port));
        if let Some(slot) = held.slot {
            self.slots.release(slot);
        }
    }

    /// A container's slot turns out to be in use by somebody else on this box, or stays with
    /// [`Self::reserve`]: it is not free when the container goes.
    pub fn lose_slot(&mut self, handle: &Handle) {
        if let Some(held) = self.held.get_mut(handle) {
            held.slot = None;
        }
    }

    /// Takes more host ports for a container that has numbers; all or none. Port 0 outside stands
    /// for any, inside for the same as outside.
    pub fn add_ports(
        &mut self,
        handle: &Handle,
        wanted: &[(u16, u16)],
    ) -> Result<Vec<(u16, u16)>, ContainerError> {
        let mut taken = Vec::new();
        let added = self.take_ports(wanted, &mut taken);
        match (&added, self.held.get_mut(handle)) {
            (Ok(_), Some(held)) => held.ports.extend(taken),
            _ => taken.into_iter().for_each(|port| self.ports.release(port)),
        }
        added
    }

    /// The host port that is given next; see [`Ports::begin_with`].
    pub fn next_port(&self) -> Option<u16> {
        self.ports.next()
    }

    /// Takes back what [`Self::add_ports`] gave.
    pub fn drop_ports(&mut self, handle: &Handle, added: &[(u16, u16)]) {
        let Some(held) = self.held.get_mut(handle) else { return };
        for (port, _) in added {
            held.ports.retain(|held| held != port);
            self.ports.release(*port);
        }
    }

    /// What is taken on the way is in `taken`, also after a failure.
    fn take_ports(
        &mut self,
        wanted: &[(u16, u16)],
        taken: &mut Vec<u16>,
    ) -> Result<Vec<(u16, u16)>, ContainerError> {
        // Those that have a number first: "any" shall not be one of them.
        for port in wanted.iter().map(|(host, _)| *host).filter(|host| *host != 0) {
            if !self.ports.reserve(port) {
                return Err(ContainerError::PortTaken { port });
            }
            taken.push(port);
        }
        let mut all = Vec::new();
        for &(host, inside) in wanted {
            let host = match host {
                0 => self.ports.acquire().inspect(|any| taken.push(*any)).ok_or(NO_PORT)?,
                named => named,
            };
            all.push((host, if inside == 0 { host } else { inside }));
        }
        Ok(all)
    }

    /// Keeps a slot from being given away, for what is on the box and not ours to remove. Should a
    /// container turn out to have it, whose entry could not be read before, it gets it.
    pub fn avoid(&mut self, slot: Slot) {
        if self.slots.reserve(slot) {
            self.avoided.insert(slot);
        }
    }

    /// What of an entry's numbers nobody has yet.
    fn take(&mut self, entry: &Entry) -> Held {
        self.take_numbers(Some(entry.slot), &entry.ports)
    }

    fn take_numbers(&mut self, slot: Option<Slot>, ports: &[(u16, u16)]) -> Held {
        let slot = slot.filter(|slot| self.avoided.remove(slot) || self.slots.reserve(*slot));
        let outside = ports.iter().map(|(outside, _)| *outside);
        let ports = outside.filter(|port| self.ports.reserve(*port)).collect();
        Held { slot, ports, work: Work::Rests }
    }
}

#[cfg(test)]
mod tests {
    use super::super::depot::FORMAT;
    use super::super::spec::ContainerSpec;
    use super::*;

    fn claims() -> Claims {
        Claims::new(Slots::new(), Ports::new(61_001..=61_003))
    }

    fn name(text: &str) -> Handle {
        text.parse().expect("handle")
    }

    fn entry(handle: &str, slot: u32, ports: &[(u16, u16)]) -> Entry {
        let spec = ContainerSpec::new(name(handle), Vec::new());
        let slot = Slot::new(slot).expect("slot");
        let ports = ports.into();
        Entry { format: FORMAT, spec, slot, ports, addresses: None, pid: None, boot: String::new() }
    }

    #[test]
    fn a_handle_is_made_once_and_not_removed_while_it_is_made() {
        let mut claims = claims();
        claims.begin(&name("a"), &[8080], None).expect("room");
        assert!(matches!(claims.begin(&name("a"), &[], None), Err(ContainerError::Exists(_))));
        assert_eq!(claims.begin_removal(&name("a"), Some(&entry("a", 0, &[]))), None);
        claims.rest(&name("a"));
        assert_eq!(claims.begin_removal(&name("a"), Some(&entry("a", 0, &[]))), Some(true));
        assert_eq!(claims.begin_removal(&name("a"), Some(&entry("a", 0, &[]))), None, "twice");
        claims.forget(&name("a"));
        assert_eq!(claims.begin(&name("b"), &[], None).expect("room").0.get(), 0);
    }

    #[test]
    fn removing_what_names_anothers_numbers_does_not_free_them() {
        let mut claims = claims();
        let (slot, ports) = claims.begin(&name("a"), &[8080], None).expect("room");
        assert_eq!((slot.get(), ports[0].0), (0, 61_001));
        let twin = entry("twin", 0, &[(61_001, 8080), (61_002, 8080)]);
        assert!(!claims.adopt(&twin));
        assert_eq!(claims.begin_removal(&name("twin"), Some(&twin)), Some(false));
        claims.forget(&name("twin"));
        let (slot, ports) = claims.begin(&name("b"), &[1, 2], None).expect("room");
        assert_eq!(slot.get(), 1);
        assert!(ports.iter().all(|(outside, _)| *outside != 61_001), "{ports:?}");
    }

    #[test]
    fn what_is_only_seen_keeps_its_numbers_from_others() {
        let mut claims = claims();
        let slot = Slot::new(0).ok();
        let seen = Glimpse { slot, ports: vec![(61_001, 80)], ..Glimpse::default() };
        assert!(claims.hold(&name("newer"), &seen));
        assert!(!claims.hold(&name("newer"), &seen), "twice");
        claims.hold(&name("blank"), &Glimpse::default());
        let (slot, ports) = claims.begin(&name("a"), &[1], None).expect("room");
        assert_eq!((slot.get(), ports[0].0), (1, 61_002));
        assert!(matches!(claims.begin(&name("blank"), &[], None), Err(ContainerError::Exists(_))));
        claims.forget(&name("newer"));
        claims.add_ports(&name("a"), &[(61_001, 1)]).expect("free again");
    }

    #[test]
    fn what_is_told_later_gets_the_numbers_that_were_kept_for_it() {
        let mut claims = claims();
        claims.avoid(Slot::new(0).expect("slot"));
        assert!(claims.hold(&name("a"), &Glimpse::default()), "nothing is known of it");
        let seen =
            Glimpse { slot: Slot::new(0).ok(), ports: vec![(61_001, 80)], ..Glimpse::default() };
        assert!(claims.hold(&name("a"), &seen));
        let (slot, ports) = claims.begin(&name("b"), &[1], None).expect("room");
        assert_eq!((slot.get(), ports[0].0), (1, 61_002));
        let entry = entry("a", 0, &[(61_001, 80)]);
        assert!(claims.adopt(&entry) && claims.rests(&entry));
        claims.forget(&name("a"));
        assert_eq!(claims.begin(&name("c"), &[], None).expect("room").0.get(), 0, "free again");
    }

    #[test]
    fn a_removal_that_failed_keeps_its_numbers() {
        let mut claims = claims();
        let left = entry("left", 0, &[(61_001, 8080)]);
        assert_eq!(claims.begin_removal(&name("left"), Some(&left)), Some(true));
        claims.rest(&name("left"));
        assert_eq!(claims.begin(&name("a"), &[], None).expect("room").0.get(), 1);
        assert_eq!(claims.begin_removal(&name("left"), Some(&left)), Some(true), "again");
        claims.forget(&name("left"));
        assert_eq!(claims.begin(&name("b"), &[], None).expect("room").0.get(), 0);
    }

    #[test]
    fn what_leaves_has_its_numbers_until_it_is_gone() {
        let mut claims = claims();
        let left = entry("a", 0, &[(61_001, 8080)]);
        assert!(claims.adopt(&left) && claims.rests(&left));
        assert_eq!(claims.begin_removal(&name("a"), Some(&left)), Some(true));
        assert!(!claims.is_leaving(&name("a")), "it is only being removed");
        claims.leave(&name("a"));
        assert!(claims.is_leaving(&name("a")) && !claims.rests(&left) && !claims.adopt(&left));
        assert_eq!(claims.begin_removal(&name("a"), Some(&left)), None);
        assert_eq!(claims.begin(&name("b"), &[], None).expect("room").0.get(), 1);
        assert!(matches!(
            claims.begin(&name("c"), &[1; 3], None),
            Err(ContainerError::Full { .. })
        ));
        claims.rest(&name("a"));
        assert!(!claims.is_leaving(&name("a")), "its removal failed");
        assert_eq!(claims.begin_removal(&name("a"), Some(&left)), Some(true), "again");
        claims.leave(&name("a"));
        claims.forget(&name("a"));
        assert_eq!(claims.begin(&name("c"), &[1; 3], None).expect("room").0.get(), 0);
    }

    #[test]
    fn more_ports_are_all_had_or_none_and_go_with_their_container() {
        let mut claims = claims();
        claims.begin(&name("a"), &[8080], None).expect("room");
        let refused = claims.add_ports(&name("a"), &[(0, 1), (70, 2), (61_001, 3)]);
        assert!(matches!(refused, Err(ContainerError::PortTaken { port: 61_001 })));
        let refused = claims.add_ports(&name("a"), &[(70, 1), (0, 2), (0, 3), (0, 4)]);
        assert!(matches!(refused, Err(ContainerError::Full { .. })));
        let twice = claims.add_ports(&name("a"), &[(70, 1), (70, 2)]);
        assert!(matches!(twice, Err(ContainerError::PortTaken { port: 70 })));
        let wanted = [(0, 0), (61_002, 5), (0, 6), (70, 0)];
        let refused = claims.add_ports(&name("a"), &wanted);
        assert!(matches!(refused, Err(ContainerError::Full { .. })), "61001 is its own already");
        let added = claims.add_ports(&name("a"), &wanted[..2]).expect("room");
        assert_eq!(added, [(61_003, 61_003), (61_002, 5)]);
        claims.drop_ports(&name("a"), &added[..1]);
        claims.drop_ports(&name("a"), &[(4711, 1)]);
        assert_eq!(
            claims.add_ports(&name("a"), &[(0, 9), (70, 0)]).expect("room"),
            [(61_003, 9), (70, 70)]
        );
        claims.forget(&name("a"));
        assert_eq!(claims.begin(&name("b"), &[1, 2, 3], None).expect("all are free").1.len(), 3);
        claims.add_ports(&name("b"), &[(70, 0)]).expect("free");
    }

    #[test]
    fn a_reserved_slot_is_a_containers_or_nobodys() {
        let mut claims = claims();
        let slot = claims.reserve().expect("room");
        let full = claims.begin(&name("a"), &[1; 4], Some(slot));
        assert!(matches!(full, Err(ContainerError::Full { .. })));
        assert_eq!(claims.begin(&name("b"), &[], None).expect("room").0.get(), 1, "it is not free");
        assert_eq!(claims.begin(&name("a"), &[], Some(slot)).expect("its own").0, slot);
        claims.lose_slot(&name("a"));
        claims.forget(&name("a"));
        assert_eq!(claims.reserve().expect("room").get(), 2, "it went back to the reserve");
        claims.begin(&name("c"), &[], Some(slot)).expect("again");
        claims.forget(&name("c"));
        assert_eq!(claims.reserve(), Some(slot), "it went with its container");
        claims.unreserve(slot);
        assert_eq!(claims.begin(&name("d"), &[], None).expect("room").0, slot);
    }

    #[test]
    fn a_slot_that_is_somebody_elses_is_not_given_away_again() {
        let mut claims = claims();
        claims.begin(&name("a"), &[], None).expect("room");
        claims.lose_slot(&name("a"));
        claims.forget(&name("a"));
        assert_eq!(claims.begin(&name("a"), &[], None).expect("room").0.get(), 1);
    }

    #[test]
    fn ports_that_do_not_suffice_are_all_given_back() {
        let mut claims = claims();
        assert!(matches!(
            claims.begin(&name("a"), &[1; 4], None),
            Err(ContainerError::Full { .. })
        ));
        let (slot, ports) = claims.begin(&name("a"), &[1; 3], None).expect("room");
        assert_eq!((slot.get(), ports.len()), (0, 3));
    }
}
