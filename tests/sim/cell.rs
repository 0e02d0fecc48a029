//! The daemon: its start, its loop. The order of steps is that of `src/cell`'s `adopt` and
//! `converge`; what a round does is in `round`,
//! what it writes in `records`, what it knows in `memory`.

use crate::instance::Does;
use crate::memory::{Drains, Mem};
use crate::mutant::Mutant;
use crate::upkeep::Turns;
use crate::world::{Process, World};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use terrarium::cell::diff::{self, Key, Op};
use terrarium::cell::lrp_state::LrpEvent;
use terrarium::cell::placement::Waiting;
use terrarium::cell::task::due::Due;
use terrarium::cell::{desired, owner, releases};
use terrarium::exec::room::Room;
use terrarium::model::death::Cause;
use terrarium::unit::{AppName, Handle};

/// One step of the daemon.
#[derive(Clone, Debug)]
pub enum Act {
    /// Its start goes on.
    Start,
    /// The loop goes on.
    Turn,
    /// The loop was to look again now.
    Due(u64),
    /// A staging has ended.
    Staged(AppName, u64, bool),
    /// The directory of manifests is looked at.
    Follow,
    /// A supervisor goes on.
    Sup(Key, u64, Does),
    /// Whoever works on a Task goes on.
    Task(String, u64, crate::tasks::Does),
    /// The process of this container has ended.
    Ended(Handle),
    /// What runs beside it has.
    BesideEnded(Handle),
    /// Its probe passes.
    Healthy(Handle),
    /// Its probe fails.
    Sick(Handle),
    /// Its readiness check says something new.
    Ready(Handle),
    /// A removal is tried again, for the so manieth time.
    Again(Handle, u32),
    /// A staging goes on.
    Stage(AppName, u64),
    /// The box is looked through for containers that nobody knows; those that were seen.
    Reap(Option<Vec<Handle>>),
    /// The cell tries itself; the container that it has made.
    Check(Option<Handle>),
}

/// What the loop, or the start, does next.
#[derive(Clone, Debug)]
pub enum Todo {
    Look(Handle),
    Places,
    Lose(Key),
    Tasks,
    LoseTask(String),
    Serve,
    Clock,
    Staging,
    Deletions,
    Delete(AppName),
    Afresh,
    Forget(Key),
    Judge,
    Drain,
    Plan,
    Publish,
    Op(Op),
    Tend,
    Due(String, Due),
    Sleep,
}

impl World {
    /// A daemon starts: the records are read, the depot is looked through, then the loop turns.
    pub fn daemon_starts(&mut self) {
        if self.mem.is_some() {
            return;
        }
        self.note(|| "daemon  starts".to_owned());
        let reading = Some(self.catch_up());
        let disk = self.disk.clone();
        // The wish does not outlive the run of the box that it was made in.
        let boot = self.boot_id();
        let drains = disk.drains.filter(|record| record.boot == boot);
        let drains = drains.map(|record| Drains { record, begun: self.now });
        let mut todo: VecDeque<Todo> = self.containers.keys().cloned().map(Todo::Look).collect();
        todo.extend([Todo::Places, Todo::Tasks, Todo::Serve]);
        let before = disk.apps.values().flat_map(releases::before).collect();
        let newest = disk.apps.values().map(|app| app.generation).max();
        self.mem = Some(Mem {
            desired: desired(&disk.apps),
            before,
            newest: newest.unwrap_or(0),
            apps: disk.apps,
            actual: disk.actual,
            tasks: disk.tasks,
            supervised: BTreeMap::new(),
            task_work: BTreeMap::new(),
            staging: BTreeMap::new(),
            room: Room::new(self.nature.total),
            waiting: Waiting::default(),
            afresh: BTreeSet::new(),
            stuck: BTreeMap::new(),
            drains,
            ill: false,
            turns: Turns::default(),
            reading,
            serves: false,
            serial: 0,
            todo,
            turning: true,
            woken: false,
            due: 0,
            again: None,
        });
        self.ledger.daemon_started(self.now);
        self.act_soon(Act::Start);
    }

    pub fn act(&mut self, act: Act) {
        match act {
            Act::Start | Act::Turn => self.turn(),
            Act::Due(serial) => {
                if self.mem.as_ref().is_some_and(|mem| mem.due == serial) {
                    self.wake();
                }
            }
            Act::Staged(app, generation, failed) => self.staged(&app, generation, failed),
            Act::Follow => self.follow(),
            Act::Sup(key, serial, does) => self.supervise(&key, serial, does),
            Act::Task(guid, serial, does) => self.work_on(&guid, serial, does),
            Act::Ended(handle) => self.heard_of_end(&handle),
            Act::BesideEnded(handle) => self.heard_of_beside(&handle),
            Act::Healthy(handle) => self.heard_of_health(&handle, true),
            Act::Sick(handle) => self.heard_of_health(&handle, false),
            Act::Ready(handle) => self.heard_of_readiness(&handle),
            Act::Again(handle, tries) => self.try_removal_again(&handle, tries),
            Act::Stage(app, generation) => self.stage(&app, generation),
            Act::Reap(seen) => self.reap(seen),
            Act::Check(made) => self.check_itself(made),
        }
    }

    /// Lets the loop look again.
    pub fn wake(&mut self) {
        let Some(mem) = &mut self.mem else { return };
        if mem.turning {
            mem.woken = true;
            return;
        }
        mem.turning = true;
        mem.due += 1;
        mem.again = None;
        mem.todo.extend([Todo::Clock, Todo::Staging, Todo::Deletions, Todo::Afresh, Todo::Judge]);
        mem.todo.extend([Todo::Drain, Todo::Plan, Todo::Tend, Todo::Sleep]);
        self.act_soon(Act::Turn);
    }

    fn turn(&mut self) {
        let Some(todo) = self.mem.as_mut().and_then(|mem| mem.todo.pop_front()) else { return };
        let goes_on = !matches!(todo, Todo::Sleep | Todo::Serve);
        let more = self.do_one(todo);
        if let Some(mem) = &mut self.mem {
            more.into_iter().rev().for_each(|todo| mem.todo.push_front(todo));
        }
        if goes_on {
            self.act_soon(Act::Turn);
        }
    }

    /// One thing; what has to be done right after it.
    fn do_one(&mut self, todo: Todo) -> Vec<Todo> {
        let Some(mem) = &mut self.mem else { return Vec::new() };
        match todo {
            Todo::Look(handle) => self.decide(&handle),
            Todo::Places => {
                let placed = mem.actual.iter().filter(|(key, record)| {
                    record.place().is_some() && !mem.supervised.contains_key(*key)
                });
                return placed.map(|(key, _)| Todo::Lose(key.clone())).collect();
            }
            Todo::Lose(key) => {
                self.happen(&key, LrpEvent::Lose(Cause::Unseen { rebooted: true }));
            }
            Todo::Tasks => {
                let left = self.left_tasks();
                return left.into_iter().map(Todo::LoseTask).collect();
            }
            Todo::LoseTask(guid) => self.lose_task(&guid),
            Todo::Serve => {
                mem.serves = true;
                mem.turning = false;
                self.publish();
                self.act_after(30_000, Act::Reap(None));
                self.act_soon(Act::Check(None));
                self.wake();
                self.act_soon(Act::Follow);
            }
            Todo::Clock => self.mind_the_clock(),
            Todo::Drain => self.drain_on(),
            Todo::Staging => self.begin_staging(),
            Todo::Deletions => {
                let busy = |name: &AppName| {
                    mem.staging.contains_key(name)
                        || mem.supervised.keys().any(|key| key.0.app == *name)
                        || mem.actual.keys().any(|key| key.0.app == *name)
                };
                let gone = mem.apps.iter().filter(|(name, app)| app.deleting && !busy(name));
                return gone.map(|(name, _)| Todo::Delete(name.clone())).collect();
            }
            Todo::Delete(name) => self.put_app(&name, None),
            Todo::Afresh => return self.make_afresh(),
            Todo::Forget(key) => self.forget(&key),
            Todo::Judge => self.judge(),
            Todo::Plan => return self.plan(),
            Todo::Publish => {
                self.publish();
                self.tell_leaving();
            }
            Todo::Op(op) => self.op(op),
            Todo::Tend => {
                let plan = self.due_tasks();
                return plan.into_iter().map(|(guid, due)| Todo::Due(guid, due)).collect();
            }
            Todo::Due(guid, due) => self.tend_task(&guid, due),
            Todo::Sleep => self.sleep(),
        }
        Vec::new()
    }

    /// The round is over: until something happens, or somebody is due.
    fn sleep(&mut self) {
        let wall = self.wall();
        let Some(mem) = &mut self.mem else { return };
        mem.turning = false;
        if std::mem::take(&mut mem.woken) {
            return self.wake();
        }
        let (due, again) = (mem.due, mem.again);
        if let Some(at) = again {
            self.act_after(at.saturating_sub(wall).max(1), Act::Due(due));
        }
    }

    pub fn look_again(&mut self, at: u64) {
        if let Some(mem) = &mut self.mem {
            mem.look_again(at);
        }
    }

    /// What to do with a container of the depot, at the start.
    fn decide(&mut self, handle: &Handle) {
        let (mutant, Some(container)) = (self.mutant, self.containers.get(handle).cloned()) else {
            return;
        };
        let Some(mem) = &self.mem else { return };
        let found = diff::lives_in(handle, &mem.actual).and_then(|(key, _)| {
            let lrp = mem.desired.get(&key.0)?;
            let takes = diff::is_wanted(&key, lrp) && !mem.supervised.contains_key(&key);
            let owned = container.owner == owner::Owner::Lrp { guid: key.0.clone(), index: key.1 };
            let lives = container.process != Process::None;
            let before = mem.before_of(&key.0.app);
            let record = mem.actual.get(&key)?;
            let (lrp, _) = releases::made_from(lrp.clone(), before, &record.version);
            (takes && owned && lives).then_some((key, lrp))
        });
        match found {
            Some((key, lrp)) if mutant != Mutant::NothingAdopted && self.fails(6) => match mutant {
                Mutant::NothingSought => {
                    self.check_sweep(handle);
                    self.remove(handle, 1);
                }
                _ => self.seek(key, lrp, handle, container),
            },
            Some((key, lrp)) if mutant != Mutant::NothingAdopted => {
                self.adopt(key, lrp, handle, container);
            }
            _ if mutant == Mutant::NothingSwept => {}
            _ => {
                self.note(|| format!("daemon  sweeps {handle}"));
                self.check_sweep(handle);
                self.remove(handle, 1);
            }
        }
    }
}
