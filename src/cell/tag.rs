//! What orders the records that clients are told of.

use super::diff::Key;
use crate::model::lrp::{ActualLrp, Tag};
use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};

/// An epoch that no other record has.
pub(super) fn epoch() -> String {
    // Keyed by the kernel's random numbers, each with keys of its own.
    let half = || RandomState::new().hash_one(());
    format!("{:016x}{:016x}", half(), half())
}

/// What a record becomes, with the tag that comes after that of `old`. What changes nothing keeps it.
pub(super) fn next(old: Option<&ActualLrp>, new: Option<ActualLrp>) -> Option<ActualLrp> {
    let new = new?;
    let tag = old.map_or_else(Tag::default, |old| old.tag.clone());
    let same = ActualLrp { tag, ..new };
    match old == Some(&same) {
        true => Some(same),
        false => Some(ActualLrp { tag: same.tag.next(epoch), ..same }),
    }
}

/// The records as this daemon finds them. Of those that live nowhere the last one may have told changes
/// that it never wrote: what is told of them from here on comes after any of it.
pub(super) fn resume(mut actual: BTreeMap<Key, ActualLrp>) -> BTreeMap<Key, ActualLrp> {
    for record in actual.values_mut().filter(|record| record.place().is_none()) {
        record.tag = Tag { epoch: epoch(), index: 0 };
    }
    actual
}

#[cfg(test)]
mod tests {
    use super::super::lrp_state::{LrpEvent, apply};
    use super::*;
    use crate::model::lrp::{Place, ProcessGuid, Side};
    use crate::unit::Slot;
    use std::collections::BTreeSet;

    /// Row 21: one epoch from the first record to the last, and an index that only grows.
    #[test]
    fn row_21_every_change_of_a_record_comes_after_the_one_before() {
        let guid = ProcessGuid { app: "web".parse().expect("a name"), process: "web".into() };
        let key = (guid, 0, Side::Left);
        let after = |old: Option<&ActualLrp>, event| {
            next(old, apply(&key, old, event, 1_000).expect("it applies"))
        };
        let desire = |version: &str| LrpEvent::Desire { version: version.into() };
        let first = after(None, desire("1")).expect("a record");
        assert_eq!((first.tag.epoch.len(), first.tag.index), (32, 0));
        let waits = after(Some(&first), LrpEvent::Fail("no room".into())).expect("a record");
        assert_eq!(waits.tag, Tag { index: 1, ..first.tag.clone() });
        assert_eq!(after(Some(&waits), LrpEvent::Fail("no room".into())), Some(waits.clone()));
        // Made afresh in another version: still the record of this index.
        let fresh = after(Some(&waits), desire("2")).expect("a record");
        assert_eq!(fresh.tag, Tag { index: 2, ..first.tag.clone() });
        assert_eq!(after(Some(&fresh), LrpEvent::Remove(None)), None);
        let again = after(None, desire("2")).expect("a record");
        assert_ne!(again.tag.epoch, first.tag.epoch, "another record");
        // Of an earlier program's record nobody has been told an order.
        let old = ActualLrp { tag: Tag::default(), ..fresh };
        let text = serde_json::to_string(&old).expect("JSON");
        assert!(!text.contains("\"tag\""), "{text}");
        let read: ActualLrp = serde_json::from_str(&text).expect("a record");
        let changed = after(Some(&read), LrpEvent::Fail("no room".into())).expect("a record");
        assert_eq!((changed.tag.epoch.len(), changed.tag.index), (32, 0));
    }

    /// Row 21, row 51: where changes may have been told that no record shows, another order begins.
    #[test]
    fn row_51_the_next_daemon_goes_on_with_the_tags_of_what_runs() {
        let guid = ProcessGuid { app: "web".parse().expect("a name"), process: "web".into() };
        let keys = [0, 1].map(|index| (guid.clone(), index, Side::Left));
        let place = Place {
            handle: "web-0-00000007".parse().expect("a handle"),
            slot: Slot::new(3).expect("a slot"),
            ports: Vec::new(),
        };
        let start = LrpEvent::Start { version: "1".into(), place };
        let events = [start, LrpEvent::Desire { version: "1".into() }];
        let record = |(key, event): (&Key, LrpEvent)| {
            let new = apply(key, None, event, 1_000).expect("it applies");
            (key.clone(), next(None, new).expect("a record"))
        };
        let before: BTreeMap<Key, ActualLrp> = keys.iter().zip(events).map(record).collect();
        let after = resume(before.clone());
        assert_eq!(after[&keys[0]], before[&keys[0]]);
        assert_ne!(after[&keys[1]].tag.epoch, before[&keys[1]].tag.epoch);
    }

    #[test]
    fn no_epoch_comes_twice() {
        assert_eq!((0..1000).map(|_| epoch()).collect::<BTreeSet<_>>().len(), 1000);
    }
}
