//! Placement: an instance begins when the box has room for it; until then it waits, unclaimed.
//!
//! A lack of room is nobody's crash: it is not counted, and what comes back wakes the loop.

use super::clock::Jump;
use super::diff::Key;
use super::fit::{Misfit, Wish, fit};
use super::instance::{Begin, supervise};
use super::lrp_state::{self, LrpEvent};
use super::record::Release;
use super::shared::{Shared, now_ms};
use super::worked_on::Supervised;
use crate::container::ContainerError;
use crate::exec::cancel;
use crate::exec::room::Resources;
use crate::log::chain;
use crate::model::lrp::DesiredLrp;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// When an instance that found no room on the box itself tries again though nothing came back:
/// somebody else may have made room on its disk, and nothing tells us.
const AGAIN_MS: u64 = 30_000;

/// Instances that were admitted and then found no room on the box.
#[derive(Default)]
pub struct Waiting {
    /// Counts what has come back since the daemon began.
    returned: u64,
    /// Of which version, `returned` when it was tried, and when it failed.
    failed: BTreeMap<Key, (String, u64, u64)>,
    /// All that the box had no room for when they were tried last.
    no_room: BTreeSet<Key>,
}

impl Waiting {
    /// Something came back: whoever waits may try again.
    pub fn room_returned(&mut self) {
        self.returned += 1;
    }

    /// The instance is not wanted any more.
    pub fn forget(&mut self, key: &Key) {
        self.failed.remove(key);
        self.no_room.remove(key);
    }

    /// Whom the box had no room for when they were tried last.
    pub fn no_room(&self) -> &BTreeSet<Key> {
        &self.no_room
    }

    /// How often something has come back.
    pub fn returned(&self) -> u64 {
        self.returned
    }

    /// It was admitted, and the box had no room for it after all; `returned`: as it was when that was
    /// tried.
    pub fn starved(&mut self, key: &Key, version: &str, returned: u64, now_ms: u64) {
        self.failed.insert(key.clone(), (version.to_owned(), returned, now_ms));
    }

    /// It is tried: what the last try came to does not count any more.
    pub fn tried(&mut self, key: &Key) {
        self.failed.remove(key);
    }

    /// The box has no room for it. Whether that is new.
    pub fn refused(&mut self, key: &Key) -> bool {
        self.no_room.insert(key.clone())
    }

    /// It has its room.
    pub fn placed(&mut self, key: &Key) {
        self.no_room.remove(key);
    }

    /// The clock was set.
    pub fn jump(&mut self, jump: Jump) {
        self.failed.values_mut().for_each(|(.., since_ms)| *since_ms = jump.moved(*since_ms));
    }

    /// When an instance may try again; `None`: now.
    pub fn until(&self, key: &Key, version: &str, now_ms: u64) -> Option<u64> {
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
            let wish = Wish {
                has_rootfs: true,
                volume_drivers: &[],
                placement_tags: None,
                cpu_weight: lrp.limits.cpu_weight,
            };
            if let Err(why) = fit(&state.node.node(), &wish) {
                drop(state);
                self.ready(&key, &lrp.version);
                // It is not room that is missing: nobody has to make way for it.
                self.wait(&key, &why.to_string());
                return None;
            }
            if let Some(until) = state.waiting.until(&key, &lrp.version, now_ms()) {
                return Some(until);
            }
            state.waiting.tried(&key);
            let needs = Resources::of(&lrp.limits);
            let beside = state.supervised.get(&(key.0.clone(), key.1, key.2.other()));
            let helps = beside.is_none_or(|work| state.room.would_fit(needs, work.needs));
            state.room.take(needs).map_err(|why| (why, helps))
        };
        self.ready(&key, &lrp.version);
        match taken {
            // Last, as it is read from the disk.
            Ok(()) if !self.has_rootfs(&release).await => {
                self.state().room.give_back(Resources::of(&lrp.limits));
                self.wait(&key, &Misfit::Rootfs.to_string());
            }
            Ok(()) => self.begin(key, lrp.clone(), Begin::Fresh(Box::new(release))),
            Err((why, helps)) => {
                let why = format!("{why}; {}", why.cure());
                match helps {
                    true => self.wait_for_room(&key, &why),
                    false => {
                        // The one beside it would stop serving for nothing.
                        self.state().waiting.no_room.remove(&key);
                        self.wait(&key, &why);
                    }
                }
            }
        }
        None
    }

    /// Begins to work on an instance.
    pub(super) fn begin(self: &Arc<Self>, key: Key, lrp: DesiredLrp, begin: Begin) {
        let (canceller, cancel) = cancel::pair();
        // What is there takes what it was made with, whatever is wanted by now.
        let (needs, survived) = match &begin {
            Begin::Adopted { container, healthy, .. } => {
                (Resources::of(&container.entry().spec.limits), Some(*healthy))
            }
            Begin::Fresh(_) => (Resources::of(&lrp.limits), None),
        };
        let work = Supervised::new(canceller, &lrp.version, needs, survived);
        {
            let mut state = self.state();
            if let Begin::Adopted { .. } = begin {
                // Before anything new asks for room.
                state.room.force(needs);
            }
            // A container that finds no room after all says so again.
            state.waiting.placed(&key);
            state.supervised.insert(key.clone(), work);
        }
        smol::spawn(supervise(self.clone(), key, lrp, (begin, needs), cancel)).detach();
    }

    /// An admitted instance found no room on the box; `returned`: as it was when that was tried.
    pub(super) fn starve(&self, key: &Key, lrp: &DesiredLrp, returned: u64, err: &ContainerError) {
        self.state().waiting.starved(key, &lrp.version, returned, now_ms());
        match err {
            // Nobody who goes makes that any shorter.
            ContainerError::Expired => self.wait(key, &chain(err)),
            _ => self.wait_for_room(key, &chain(err)),
        }
    }

    /// Makes an instance's record ready for a start in this version.
    fn ready(&self, key: &Key, version: &str) {
        let event = lrp_state::before_start(self.state().actual.get(key), version);
        event.into_iter().for_each(|event| self.note(key, event));
    }

    /// Notes that the box has no room for an instance: an older one beside it makes room. What waits
    /// for any other reason is noted by [`Shared::wait_for_app`], and stops nobody.
    fn wait_for_room(&self, key: &Key, why: &str) {
        let first = self.state().waiting.refused(key);
        self.wait(key, why);
        if first {
            // It may be that the one beside it has to make room.
            self.wake();
        }
    }

    /// Notes that an instance waits for another app.
    pub(super) fn wait_for_app(&self, key: &Key, version: &str, why: &str) {
        self.ready(key, version);
        self.wait(key, why);
    }

    /// Notes that an instance waits, and why; said once. Not in the records on disk: hundreds may
    /// wait, what is left changes with each container that goes, and the next daemon looks itself.
    fn wait(&self, key: &Key, why: &str) {
        let before = {
            let state = self.state();
            state.actual.get(key).and_then(|record| record.placement_error.clone())
        };
        if before.as_deref() == Some(why) {
            return;
        }
        if before.is_none() {
            let text = format!("Cell cannot start instance {}/{} yet: {why}", key.0, key.1);
            self.logs.app(&key.0.app).write("CELL", key.1, true, text);
            crate::warn!("instance.waits", app = key.0, index = key.1, err = why);
        }
        self.note(key, LrpEvent::Fail(why.to_owned()));
        // Whoever waits for the app hears of it.
        self.tell();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::lrp::{ProcessGuid, Side};

    #[test]
    fn who_found_no_room_waits_for_some_to_come_back_or_for_half_a_minute() {
        let key = |index| {
            let app = "web".parse().expect("name");
            (ProcessGuid { app, process: "web".into() }, index, Side::Left)
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
