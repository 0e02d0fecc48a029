//! Placement: an instance begins when the box has room for it; until then it waits, unclaimed.
//!
//! A lack of room is nobody's crash: it is not counted, and what comes back wakes the loop.

use super::diff::Key;
use super::instance::{Begin, supervise};
use super::record::Release;
use super::shared::{Shared, Supervised, now_ms};
use crate::container::ContainerError;
use crate::exec::cancel;
use crate::exec::room::Resources;
use crate::log::chain;
use crate::model::lrp::{ActualLrp, DesiredLrp, LrpState};
use std::collections::BTreeMap;
use std::sync::Arc;

/// When an instance that found no room on the box itself tries again though nothing came back:
/// somebody else may have made room on its disk, and nothing tells us.
const AGAIN_MS: u64 = 30_000;

/// Instances that were admitted and then found no room on the box.
#[derive(Default)]
pub(super) struct Waiting {
    /// Counts what has come back since the daemon began.
    returned: u64,
    /// Of which version, `returned` when it was tried, and when it failed.
    failed: BTreeMap<Key, (String, u64, u64)>,
}

impl Waiting {
    /// Something came back: whoever waits may try again.
    pub fn room_returned(&mut self) {
        self.returned += 1;
    }

    /// The instance is not wanted any more.
    pub fn forget(&mut self, key: &Key) {
        self.failed.remove(key);
    }

    /// How often something has come back.
    pub fn returned(&self) -> u64 {
        self.returned
    }

    /// When an instance may try again; `None`: now.
    fn until(&self, key: &Key, version: &str, now_ms: u64) -> Option<u64> {
        let (failed, returned, since) = self.failed.get(key)?;
        // A clock that was set back does not hold it up, and another version may need less.
        let waits = failed == version
            && *returned == self.returned
            && (*since..since + AGAIN_MS).contains(&now_ms);
        waits.then_some(since + AGAIN_MS)
    }
}

impl Shared {
    /// Begins an instance if the box has room for it. When to look again, if it has to wait for
    /// what nobody announces.
    pub(super) async fn place(
        self: &Arc<Self>,
        key: Key,
        lrp: &DesiredLrp,
        release: Release,
    ) -> Option<u64> {
        let taken = {
            let mut state = self.state();
            if let Some(until) = state.waiting.until(&key, &lrp.version, now_ms()) {
                return Some(until);
            }
            state.waiting.forget(&key);
            state.room.take(Resources::of(&lrp.limits))
        };
        match taken {
            Ok(()) => self.begin(key, lrp.clone(), Begin::Fresh(Box::new(release))),
            Err(why) => {
                let cure = "stop, delete or scale down an app, or raise [cell] of terrarium.toml";
                let why = format!("{why}; {cure}");
                self.wait_for_room(&key, lrp, &why);
            }
        }
        None
    }

    /// Begins to work on an instance.
    pub(super) fn begin(self: &Arc<Self>, key: Key, lrp: DesiredLrp, begin: Begin) {
        let (canceller, cancel) = cancel::pair();
        let version = lrp.version.clone();
        let work = Supervised { canceller, stopping: false, version, container: None };
        // What is there takes what it was made with, whatever is wanted by now.
        let needs = match &begin {
            Begin::Adopted { container, .. } => Resources::of(&container.entry().spec.limits),
            Begin::Fresh(_) => Resources::of(&lrp.limits),
        };
        {
            let mut state = self.state();
            if let Begin::Adopted { .. } = begin {
                // Before anything new asks for room.
                state.room.force(needs);
            }
            state.supervised.insert(key.clone(), work);
        }
        smol::spawn(supervise(self.clone(), key, lrp, (begin, needs), cancel)).detach();
    }

    /// An admitted instance found no room on the box; `returned`: as it was when that was tried.
    pub(super) fn starve(&self, key: &Key, lrp: &DesiredLrp, returned: u64, err: &ContainerError) {
        let failed = (lrp.version.clone(), returned, now_ms());
        self.state().waiting.failed.insert(key.clone(), failed);
        self.wait_for_room(key, lrp, &chain(err));
    }

    /// Notes that an instance waits, and why; said once. Not in the records on disk: hundreds may
    /// wait, what is left changes with each container that goes, and the next daemon looks itself.
    fn wait_for_room(&self, key: &Key, lrp: &DesiredLrp, why: &str) {
        let before = self.state().actual.get(key).cloned();
        let kept = before.filter(|record| record.version == lrp.version);
        let waits = |record: &ActualLrp| {
            record.state == LrpState::Unclaimed && record.placement_error.is_some()
        };
        if kept.as_ref().is_some_and(|it| waits(it) && it.placement_error.as_deref() == Some(why)) {
            return;
        }
        if !kept.as_ref().is_some_and(waits) {
            let text = format!("Cell cannot start instance {}/{} yet: {why}", key.0, key.1);
            self.logs.app(&key.0.app).write("CELL", key.1, true, text);
            crate::warn!("instance.waits", app = key.0, index = key.1, err = why);
        }
        let record = ActualLrp {
            guid: key.0.clone(),
            index: key.1,
            version: lrp.version.clone(),
            state: LrpState::Unclaimed,
            crash_count: kept.as_ref().map_or(0, |record| record.crash_count),
            crash_reason: kept.as_ref().and_then(|record| record.crash_reason.clone()),
            placement_error: Some(why.to_owned()),
            since_ms: kept.filter(waits).map_or_else(now_ms, |record| record.since_ms),
        };
        self.state().actual.insert(key.clone(), record);
        // Whoever waits for the app hears of it.
        self.tell();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::lrp::ProcessGuid;

    #[test]
    fn who_found_no_room_waits_for_some_to_come_back_or_for_half_a_minute() {
        let key = |index| {
            let app = "web".parse().expect("name");
            (ProcessGuid { app, process: "web".into() }, index)
        };
        let mut waiting = Waiting::default();
        assert_eq!(waiting.until(&key(0), "1", 0), None, "it never failed");
        waiting.failed.insert(key(0), ("1".into(), waiting.returned, 1_000));
        assert_eq!(waiting.until(&key(0), "1", 1_000), Some(31_000));
        assert_eq!(waiting.until(&key(0), "1", 30_999), Some(31_000));
        assert_eq!(waiting.until(&key(0), "1", 31_000), None);
        assert_eq!(waiting.until(&key(0), "1", 999), None, "the clock was set back");
        assert_eq!(waiting.until(&key(0), "2", 1_000), None, "another version");
        assert_eq!(waiting.until(&key(1), "1", 1_000), None, "another instance");
        waiting.room_returned();
        assert_eq!(waiting.until(&key(0), "1", 1_000), None);
        waiting.failed.insert(key(0), ("1".into(), waiting.returned, 1_000));
        waiting.forget(&key(0));
        assert_eq!(waiting.until(&key(0), "1", 1_000), None, "another one of the same name");
    }
}
