//! What the loop does in a round: the order of steps is that of `src/cell`'s `converge`, `placement`,
//! `drain` and `rollout`.

use crate::cell::Todo;
use crate::instance::Sup;
use crate::mutant::Mutant;
use crate::world::World;
use std::collections::BTreeMap;
use std::time::Duration;
use terrarium::cell::diff::{self, Key, Op};
use terrarium::cell::drain::plan as drain;
use terrarium::cell::lrp_state::{self, LrpEvent};
use terrarium::cell::rollout::Verdict;
use terrarium::cell::{fit, queue, releases};
use terrarium::exec::room::Resources;
use terrarium::unit::{AppName, Slot};

/// Whatever has its root here.
const ANY: fit::Wish<'static> =
    fit::Wish { has_rootfs: true, volume_drivers: &[], placement_tags: None, cpu_weight: None };

impl World {
    /// The next step of a draining, if there is one.
    pub fn drain_on(&mut self) {
        let (now, wall) = (self.now, self.wall());
        let Some(mem) = &mut self.mem else { return };
        let Some(drains) = &mem.drains else { return };
        let world = drain::World {
            tasks: mem.staging.len().max(mem.task_work.values().filter(|it| it.runs()).count()),
            running: mem.supervised.values().filter(|sup| !sup.stopping).count(),
            left: mem.supervised.len() + mem.stuck.len(),
            since: Duration::from_millis(now - drains.begun),
            timeout: Duration::from_millis(drains.record.timeout_ms),
        };
        let step = drain::next(&world);
        let guids: Vec<String> = mem.task_work.keys().cloned().collect();
        let stagings: Vec<AppName> = mem.staging.keys().cloned().collect();
        match step {
            drain::Step::Drained => return,
            drain::Step::Ending | drain::Step::Wait(_) => {}
            drain::Step::CutTasks => {
                stagings.iter().for_each(|app| self.cancel_staging(app));
                guids.iter().for_each(|guid| self.end_task(guid));
            }
            drain::Step::StopInstances => {
                mem.supervised.values_mut().for_each(Sup::leave);
                if self.mutant == Mutant::PublishedLate {
                    self.tell_leaving();
                }
            }
        }
        self.look_again(wall + 10_000);
    }

    /// Ends what is to be made afresh.
    pub fn make_afresh(&mut self) -> Vec<Todo> {
        let Some(mem) = &mut self.mem else { return Vec::new() };
        let asked = std::mem::take(&mut mem.afresh);
        let (working, resting): (Vec<_>, Vec<_>) =
            asked.into_iter().partition(|key| mem.supervised.contains_key(key));
        let known = resting.into_iter().filter(|key| mem.actual.contains_key(key));
        let known = known.map(Todo::Forget).collect();
        for key in &working {
            mem.supervised.get_mut(key).into_iter().for_each(Sup::leave);
        }
        if self.mutant == Mutant::PublishedLate {
            self.tell_leaving();
        }
        known
    }

    /// One verdict at a time; a change wakes the loop for the next.
    pub fn judge(&mut self) {
        let wall = self.wall();
        let Some(mem) = self.mem.as_ref().filter(|_| self.mutant != Mutant::NeverJudged) else {
            return;
        };
        let (mut changed, mut due) = (None, None);
        for (name, app) in mem.apps.iter().filter(|(_, app)| releases::is_open(app)) {
            match mem.verdict(app, wall, self.mutant == Mutant::UnreadyForEver) {
                Verdict::Open(at) => due = due.into_iter().chain(at).min(),
                verdict => {
                    let judged = releases::judged(app, verdict);
                    changed = changed.or_else(|| Some((name.clone(), judged?.0)));
                }
            }
        }
        due.into_iter().for_each(|at| self.look_again(at));
        if let Some((name, app)) = changed {
            self.put_app(&name, Some(app));
        }
    }

    pub fn plan(&mut self) -> Vec<Todo> {
        let wall = self.wall();
        // With this mistake every wait is over.
        let now = if self.mutant == Mutant::NoBackoff { wall + 16 * 60_000 } else { wall };
        let Some(mem) = &self.mem else { return Vec::new() };
        let held = match self.mutant {
            Mutant::NeedsIgnored => BTreeMap::new(),
            _ => mem.held(),
        };
        let (supervised, trial) = (mem.stopping(), releases::on_trial(&mem.apps));
        let mut world = mem.world(&supervised, &held, &trial);
        world.closed &= self.mutant != Mutant::IllnessIgnored;
        let plan = diff::diff(&world, now);
        if let Some(at) = plan.due_ms {
            self.look_again(at);
        }
        for op in &plan.ops {
            self.check_op(op);
            if let Op::Stop(key) | Op::MakeRoom(key) = op
                && let Some(sup) = self.mem.as_mut().and_then(|mem| mem.supervised.get_mut(key))
            {
                sup.stopping = true;
            }
        }
        let Some(mem) = &self.mem else { return Vec::new() };
        let ops = queue::in_turn(plan.ops, &mem.desired, &mem.actual);
        let ops = ops.into_iter().map(Todo::Op);
        match self.mutant {
            Mutant::PublishedLate => ops.chain([Todo::Publish]).collect(),
            _ => [Todo::Publish].into_iter().chain(ops).collect(),
        }
    }

    /// What the kernel leads connections to becomes what it shall be.
    pub fn publish(&mut self) {
        let Some(mem) = &self.mem else { return };
        let wanted = diff::published(&mem.desired, &mem.before, &mem.actual, &mem.stopping());
        let slots = |behind: Vec<(Slot, u16)>| {
            behind.into_iter().map(|(slot, _)| u32::from(slot.get())).collect()
        };
        self.ports = wanted.into_iter().map(|(port, behind)| (port, slots(behind))).collect();
    }

    /// Those that are to end, whatever the plan says, are told so.
    pub fn tell_leaving(&mut self) {
        let Some(mem) = &self.mem else { return };
        let leaving = mem.supervised.iter().filter(|(_, sup)| sup.leaves && !sup.cancelled);
        let leaving: Vec<Key> = leaving.map(|(key, _)| key.clone()).collect();
        leaving.iter().for_each(|key| self.cancel(key));
    }

    pub fn op(&mut self, op: Op) {
        self.note(|| format!("loop    {op:?}"));
        match op {
            Op::Stop(key) | Op::MakeRoom(key) => self.cancel(&key),
            Op::Forget(key) => {
                if let Some(mem) = &mut self.mem {
                    mem.waiting.forget(&key);
                }
                self.forget(&key);
                self.wake();
            }
            Op::Wait(key, why) => {
                let lrp = self.mem.as_ref().and_then(|mem| mem.desired.get(&key.0));
                let Some(version) = lrp.map(|lrp| lrp.version.clone()) else { return };
                self.ready(&key, &version);
                self.wait(&key, &why);
            }
            Op::Start(key) => self.place(key),
        }
    }

    pub fn forget(&mut self, key: &Key) {
        let Some(mem) = &self.mem else { return };
        let place = mem.actual.get(key).map(|record| record.place().cloned());
        if let Some(place) = place {
            self.happen(key, LrpEvent::Remove(place.map(|place| place.handle)));
        }
    }

    fn place(&mut self, key: Key) {
        let wall = self.wall();
        let Some(mem) = &mut self.mem else { return };
        let Some(lrp) = mem.desired.get(&key.0).cloned() else { return };
        let unhealthy = mem.ill.then(|| "it cannot make containers".to_owned());
        let tags = Default::default();
        let node = fit::Node { is_draining: mem.drains.is_some(), unhealthy, tags };
        if let Err(why) = fit::fit(&node, &ANY) {
            self.ready(&key, &lrp.version);
            return self.wait(&key, &why.to_string());
        }
        if let Some(until) = mem.waiting.until(&key, &lrp.version, wall) {
            return mem.look_again(until);
        }
        mem.waiting.tried(&key);
        let needs = Resources::of(&lrp.limits);
        let beside = mem.supervised.get(&(key.0.clone(), key.1, key.2.other()));
        let helps = beside.is_none_or(|sup| mem.room.would_fit(needs, sup.needs));
        let taken = mem.room.take(needs);
        self.ready(&key, &lrp.version);
        match taken {
            Ok(()) => self.begin(key, lrp),
            Err(why) if helps || self.mutant == Mutant::RoomForNothing => {
                self.check_way_made(&key, needs);
                self.wait_for_room(&key, &why.to_string());
            }
            Err(why) => {
                // The one beside it would stop serving for nothing.
                if let Some(mem) = &mut self.mem {
                    mem.waiting.placed(&key);
                }
                self.wait(&key, &why.to_string());
            }
        }
    }

    fn ready(&mut self, key: &Key, version: &str) {
        let Some(mem) = &self.mem else { return };
        if let Some(event) = lrp_state::before_start(mem.actual.get(key), version) {
            self.change(key, event, false);
        }
    }

    pub fn wait_for_room(&mut self, key: &Key, why: &str) {
        let first = self.mem.as_mut().is_some_and(|mem| mem.waiting.refused(key));
        self.wait(key, why);
        if first {
            self.wake();
        }
    }

    pub fn wait(&mut self, key: &Key, why: &str) {
        let Some(mem) = &self.mem else { return };
        let before = mem.actual.get(key).and_then(|record| record.placement_error.as_deref());
        if before != Some(why) {
            self.change(key, LrpEvent::Fail(why.to_owned()), false);
        }
    }
}
