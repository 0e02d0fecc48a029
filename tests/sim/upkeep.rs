//! What goes on beside the loop: turns to make a container, instances that cannot be reached at once,
//! containers that nobody knows, the cell that tries itself. The order of steps is that of
//! `src/cell`'s `seek`, `reap` and `self_check`, and of `exec::turns`.

use crate::cell::Act;
use crate::instance::{Does, Stage};
use crate::mutant::Mutant;
use crate::tasks;
use crate::world::{Container, Process, World};
use std::collections::VecDeque;
use terrarium::cell::diff::Key;
use terrarium::cell::lrp_state::LrpEvent;
use terrarium::cell::owner::Owner;
use terrarium::cell::reap::plan::{Known, strays};
use terrarium::exec::room::Resources;
use terrarium::exec::state::ContainerState;
use terrarium::model::death::Cause;
use terrarium::model::lrp::{ActualLrp, DesiredLrp};
use terrarium::unit::Handle;

/// How long an instance waits for its turn at most.
pub const RESERVED_MAX_MS: u64 = 60_000;

/// After this long, one that nobody can reach is made anew.
const SEEK_MAX_MS: u64 = 5 * 60_000;

/// From one look for strays to the next.
const POLLING_MS: u64 = 30_000;

/// From one check of the cell itself to the next.
const CHECK_MS: u64 = 120_000;
const CHECK_ILL_MS: u64 = 30_000;

/// Who makes a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Maker {
    Instance(Key, u64),
    Task(String, u64),
}

/// So many make containers, and these wait.
#[derive(Clone, Debug, Default)]
pub struct Turns {
    busy: usize,
    waits: VecDeque<Maker>,
}

impl World {
    /// Takes a turn to make a container, or waits for one.
    pub fn takes_turn(&mut self, maker: Maker) -> bool {
        let most = self.nature.creators;
        let Some(mem) = &mut self.mem else { return false };
        let free = mem.turns.busy < most;
        match free {
            true => mem.turns.busy += 1,
            false => mem.turns.waits.push_back(maker),
        }
        free
    }

    /// Gives it to who has waited longest.
    pub fn gives_turn(&mut self) {
        let Some(mem) = &mut self.mem else { return };
        let act = match mem.turns.waits.pop_front() {
            None => return mem.turns.busy -= 1,
            Some(Maker::Instance(key, serial)) => {
                if let Some(sup) = mem.supervised.get_mut(&key) {
                    sup.stage = Stage::Making;
                }
                Act::Sup(key, serial, Does::Make)
            }
            Some(Maker::Task(guid, serial)) => Act::Task(guid, serial, tasks::Does::Make),
        };
        self.act_soon(act);
    }

    /// Waits no more; whether it did.
    pub fn leaves_queue(&mut self, maker: &Maker) -> bool {
        let Some(mem) = &mut self.mem else { return false };
        let before = mem.turns.waits.len();
        mem.turns.waits.retain(|it| it != maker);
        mem.turns.waits.len() < before
    }

    /// It lives, or may, and cannot be taken over yet: it keeps its place meanwhile.
    pub fn seek(&mut self, key: Key, lrp: DesiredLrp, handle: &Handle, container: Container) {
        self.note(|| format!("daemon  cannot reach {handle}"));
        let Some(mem) = &mut self.mem else { return };
        mem.room.force(container.needs);
        let version = mem.actual.get(&key).map(|record| record.version.clone());
        let lrp = DesiredLrp { version: version.unwrap_or_default(), ..lrp };
        let serial = self.enter(&key, lrp, container.needs);
        let runs =
            self.mem.as_ref().and_then(|mem| mem.actual.get(&key)).is_some_and(ActualLrp::runs);
        if let Some(sup) = self.sup(&key, serial) {
            (sup.handle, sup.stage) = (Some(handle.clone()), Stage::Seeking);
            sup.container = ContainerState::survived(runs);
        }
        self.act_after(1_000, Act::Sup(key, serial, Does::Look(1)));
    }

    /// One more look at it; `n`: the how manieth.
    pub fn look(&mut self, key: &Key, serial: u64, n: u32) {
        let Some(sup) = self.sup(key, serial).cloned() else { return };
        let Some(handle) = sup.handle.clone().filter(|_| sup.stage == Stage::Seeking) else {
            return;
        };
        let container = self.containers.get(&handle).cloned();
        let pauses = |n: u32| (1_000u64 << n.min(5)).min(30_000);
        let waited: u64 = (0..n).map(pauses).sum();
        match container.filter(|it| it.process != Process::None) {
            Some(_) if self.fails(2) && waited < SEEK_MAX_MS => {
                let act = Act::Sup(key.clone(), serial, Does::Look(n + 1));
                self.act_after(pauses(n), act);
            }
            Some(container) if waited < SEEK_MAX_MS => {
                self.take_over(key, serial, &handle, &container);
            }
            _ => self.give_up(key, serial),
        }
    }

    /// Nobody can reach it, or somebody wants it gone: it is destroyed, and lives nowhere any more.
    pub fn give_up(&mut self, key: &Key, serial: u64) {
        let Some(sup) = self.sup(key, serial) else { return };
        sup.stopping = true;
        let (needs, handle) = (sup.needs, sup.handle.clone());
        self.publish();
        if let Some(handle) = handle {
            self.note(|| format!("daemon  gives up {handle}"));
            self.remove(&handle, 1);
        }
        self.happen(key, LrpEvent::Lose(Cause::Unseen { rebooted: false }));
        let Some(mem) = &mut self.mem else { return };
        mem.give_back(needs);
        mem.supervised.remove(key);
        self.wake();
    }

    /// Looks for containers that nobody knows: first what there is, then who is known.
    pub fn reap(&mut self, seen: Option<Vec<Handle>>) {
        let Some(seen) = seen else {
            let all: Vec<Handle> = self.containers.keys().cloned().collect();
            let ms = self.rng.below(50);
            return self.act_after(ms, Act::Reap(Some(all)));
        };
        self.act_after(POLLING_MS, Act::Reap(None));
        let Some(mem) = self.mem.as_ref().filter(|mem| mem.serves) else { return };
        if self.mutant == Mutant::NothingReaped {
            return;
        }
        let mut known = Known {
            tasks: mem.task_work.keys().cloned().collect(),
            staging: mem.staging.keys().cloned().collect(),
            stuck: mem.stuck.keys().cloned().collect(),
            ..Known::default()
        };
        for (key, sup) in &mem.supervised {
            let has = matches!(sup.stage, Stage::Living | Stage::Ending);
            let own = sup.handle.clone().filter(|_| has);
            known.instances.entry((key.0.clone(), key.1)).or_default().push(own);
        }
        let owners = seen.iter().filter_map(|handle| {
            let container = self.containers.get(handle)?;
            Some((handle.clone(), Some(container.owner.clone())))
        });
        let listed: Vec<_> = owners.collect();
        for handle in strays(&listed, &known) {
            self.note(|| format!("daemon  reaps {handle}"));
            self.check_reap(&handle);
            self.remove(&handle, 1);
        }
        self.wake();
    }

    /// The cell tries itself: what earlier ones have left goes, a container is made, and goes.
    pub fn check_itself(&mut self, made: Option<Handle>) {
        let Some(handle) = made else {
            let left = self.containers.iter().filter(|(_, it)| it.owner == Owner::Check);
            let left: Vec<Handle> = left.map(|(handle, _)| handle.clone()).collect();
            for handle in left {
                self.containers.remove(&handle);
            }
            if self.ill {
                return self.is_well(false);
            }
            let handle = self.fresh_handle("check");
            self.make(&handle, Owner::Check, None, Resources::default());
            let ms = self.rng.between(20, 500);
            return self.act_after(ms, Act::Check(Some(handle)));
        };
        self.containers.remove(&handle);
        self.is_well(true);
    }

    fn is_well(&mut self, well: bool) {
        let Some(mem) = &mut self.mem else { return };
        let changes = mem.ill == well;
        mem.ill = !well;
        if well && changes {
            mem.waiting.room_returned();
        }
        if changes {
            self.note(|| format!("cell    is well: {well}"));
            self.wake();
        }
        let pause = if well { CHECK_MS } else { CHECK_ILL_MS };
        self.act_after(pause, Act::Check(None));
    }
}
