//! Tasks: the order of steps is that of `src/cell/task.rs` and `task/run.rs`.

use crate::cell::Act;
use crate::deaths::{Moment, row_of_task};
use crate::mutant::Mutant;
use crate::upkeep::Maker;
use crate::world::{Event, Exit, Process, World};
use terrarium::cell::owner::Owner;
use terrarium::cell::task::due::{self, Due};
use terrarium::cell::task::state::{TaskOp, apply};
use terrarium::exec::room::Resources;
use terrarium::model::task::{Task, TaskRecord, TaskState};
use terrarium::unit::Handle;

const CELL: &str = "cell";
const NO_DAEMON: &str = "there is no daemon";

/// What whoever works on a Task does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Does {
    Room,
    Start,
    /// A turn to make its container.
    Create,
    Make,
    Created,
    Run,
    /// Its processes have ended, or end now.
    End,
    Remove,
    Tell,
    Told,
}

/// Who works on a Task.
#[derive(Clone, Debug)]
pub struct Work {
    pub serial: u64,
    pub cancelled: bool,
    pub handle: Option<Handle>,
    pub needs: Option<Resources>,
    outcome: Option<TaskOp>,
    tells: bool,
}

impl Work {
    fn new(serial: u64, needs: Option<Resources>, tells: bool) -> Work {
        Work { serial, cancelled: false, handle: None, needs, outcome: None, tells }
    }

    /// That of a staging, which has its room before it has a record.
    pub fn of_staging(serial: u64, needs: Resources) -> Work {
        Work::new(serial, Some(needs), false)
    }

    /// It is not only told of.
    pub fn runs(&self) -> bool {
        !self.tells
    }
}

impl World {
    /// Does `op`: on the disk first, then in memory. `true`: it applied, and whoever asked may begin.
    pub fn change_task(&mut self, guid: &str, op: &TaskOp) -> Result<bool, String> {
        let now = self.wall_ns();
        let Some(mem) = &self.mem else { return Err(NO_DAEMON.to_owned()) };
        let old = mem.tasks.get(guid);
        let row = row_of_task(old, op);
        let outcome = match apply(old, op, now) {
            Ok(outcome) => outcome,
            Err(err) => {
                self.note(|| format!("task    {guid} {}: {err}", op.name()));
                return Err(err.to_string());
            }
        };
        self.check_row(&row);
        if self.dies_at(row, Moment::Before) {
            return Err(NO_DAEMON.to_owned());
        }
        let Some(mem) = &mut self.mem else { return Err(NO_DAEMON.to_owned()) };
        match &outcome.record {
            Some(record) => {
                self.disk.tasks.insert(guid.to_owned(), record.clone());
                mem.tasks.insert(guid.to_owned(), record.clone());
            }
            None => {
                self.disk.tasks.remove(guid);
                mem.tasks.remove(guid);
            }
        }
        let state = outcome.record.as_ref().map(|it| it.state);
        self.note(|| format!("task    {guid} {} -> {state:?}", op.name()));
        if self.dies_at(row, Moment::After) {
            return Err(NO_DAEMON.to_owned());
        }
        self.wake();
        Ok(outcome.should_start)
    }

    /// Those that the last daemon has left running, and those of its own.
    pub fn left_tasks(&self) -> Vec<String> {
        let Some(mem) = &self.mem else { return Vec::new() };
        let left = |it: &&TaskRecord| it.task.internal || it.state == TaskState::Running;
        mem.tasks.values().filter(left).map(|record| record.task.guid.clone()).collect()
    }

    /// Nobody works on it any more, and nobody will.
    pub fn lose_task(&mut self, guid: &str) {
        let Some(record) = self.mem.as_ref().and_then(|mem| mem.tasks.get(guid)).cloned() else {
            return;
        };
        if self.mutant == Mutant::TaskAgain {
            let record = TaskRecord { state: TaskState::Pending, cell_id: String::new(), ..record };
            self.disk.tasks.insert(guid.to_owned(), record.clone());
            if let Some(mem) = &mut self.mem {
                mem.tasks.insert(guid.to_owned(), record);
            }
            return;
        }
        let failure = Some(due::DISAPPEARED.to_owned());
        let op = match record.state {
            TaskState::Running => {
                let cell = record.cell_id;
                TaskOp::Complete { cell, failure, result: String::new() }
            }
            _ => TaskOp::Fail(due::DISAPPEARED.to_owned()),
        };
        let _ = self.change_task(guid, &op);
        if record.task.internal {
            let _ = self.change_task(guid, &TaskOp::Resolve);
            let _ = self.change_task(guid, &TaskOp::Delete);
        }
    }

    pub fn due_tasks(&mut self) -> Vec<(String, Due)> {
        let now = self.wall_ns();
        let Some(mem) = &self.mem else { return Vec::new() };
        let plan = due::due(
            &mem.tasks,
            &mem.task_work.keys().cloned().collect(),
            &due::Times::default(),
            now,
        );
        if let Some(at) = plan.next_ns {
            self.look_again(at / 1_000_000 + 1);
        }
        plan.acts
    }

    pub fn tend_task(&mut self, guid: &str, due: Due) {
        match due {
            Due::GiveUp => {
                self.check_given_up(guid);
                let _ = self.change_task(guid, &TaskOp::Fail(due::NOT_STARTED.into()));
            }
            Due::Lost => self.lose_task(guid),
            Due::Begin if self.mem.as_ref().is_some_and(|mem| mem.closed()) => {}
            Due::Begin => self.begin_work(guid, Does::Room),
            Due::Demote => drop(self.change_task(guid, &TaskOp::Demote)),
            Due::Tell => self.begin_work(guid, Does::Tell),
            Due::Expire => {
                let _ = self.change_task(guid, &TaskOp::Resolve);
                let _ = self.change_task(guid, &TaskOp::Delete);
            }
        }
    }

    fn begin_work(&mut self, guid: &str, does: Does) {
        let Some(mem) = &mut self.mem else { return };
        if mem.task_work.contains_key(guid) {
            return;
        }
        mem.serial += 1;
        let serial = mem.serial;
        mem.task_work.insert(guid.to_owned(), Work::new(serial, None, does == Does::Tell));
        self.act_soon(Act::Task(guid.to_owned(), serial, does));
    }

    fn work(&mut self, guid: &str, serial: u64) -> Option<&mut Work> {
        let work = self.mem.as_mut()?.task_work.get_mut(guid)?;
        (work.serial == serial).then_some(work)
    }

    /// Nobody works on it any more.
    fn end_work(&mut self, guid: &str) {
        self.end_staging(guid);
        let Some(mem) = &mut self.mem else { return };
        if let Some(needs) = mem.task_work.remove(guid).and_then(|work| work.needs) {
            mem.give_back(needs);
        }
        self.wake();
    }

    pub fn work_on(&mut self, guid: &str, serial: u64, does: Does) {
        let Some(work) = self.work(guid, serial).cloned() else { return };
        let Some(record) = self.mem.as_ref().and_then(|mem| mem.tasks.get(guid)).cloned() else {
            return self.end_work(guid);
        };
        let next = |does| Act::Task(guid.to_owned(), serial, does);
        match does {
            Does::Room => self.take_task_room(guid, serial, &record.task),
            Does::Start => match self.change_task(guid, &TaskOp::Start { cell: CELL.to_owned() }) {
                Ok(true) => self.act_soon(next(Does::Create)),
                Ok(false) | Err(_) => self.end_work(guid),
            },
            Does::Create if work.cancelled => self.act_soon(next(Does::End)),
            Does::Create => {
                if self.takes_turn(Maker::Task(guid.to_owned(), serial)) {
                    self.act_soon(next(Does::Make));
                }
            }
            Does::Make => {
                let handle = self.fresh_handle("task");
                let needs = Resources::of(&record.task.limits);
                let owner = match record.task.internal {
                    true => Owner::Staging(record.task.app.clone()),
                    false => Owner::Task(guid.to_owned()),
                };
                self.make(&handle, owner, None, needs);
                if let Some(work) = self.work(guid, serial) {
                    work.handle = Some(handle);
                }
                let ms = self.rng.between(20, 3_000);
                self.act_after(ms, next(Does::Created));
            }
            Does::Created if self.fails(self.nature.create_fails_in) || self.ill => {
                self.gives_turn();
                if let Some(work) = self.work(guid, serial) {
                    work.outcome = Some(TaskOp::Reject("it failed".to_owned()));
                }
                self.act_soon(next(Does::End));
            }
            Does::Created => {
                self.gives_turn();
                self.act_soon(next(Does::Run));
            }
            Does::Run if work.cancelled => self.act_soon(next(Does::End)),
            Does::Run => self.run_task(guid, &work),
            Does::End => {
                let failure = Some("it was told to end".to_owned());
                let (cell, result) = (CELL.to_owned(), String::new());
                let told = TaskOp::Complete { cell, failure, result };
                let _ = self.change_task(guid, &work.outcome.unwrap_or(told));
                let ms = self.rng.between(5, 500);
                self.act_after(ms, next(Does::Remove));
            }
            Does::Remove => {
                if let Some(handle) = work.handle {
                    self.remove(&handle, 1);
                }
                self.end_work(guid);
            }
            Does::Tell => match self.change_task(guid, &TaskOp::Resolve) {
                Ok(_) => {
                    let ms = self.rng.between(1, 2_000);
                    self.act_after(ms, next(Does::Told));
                }
                Err(_) => self.end_work(guid),
            },
            Does::Told => {
                if !self.fails(2) {
                    let _ = self.change_task(guid, &TaskOp::Delete);
                }
                self.end_work(guid);
            }
        }
    }

    fn take_task_room(&mut self, guid: &str, serial: u64, task: &Task) {
        let needs = Resources::of(&task.limits);
        let Some(mem) = &mut self.mem else { return };
        match mem.room.take(needs) {
            Ok(()) => {
                if let Some(work) = self.work(guid, serial) {
                    work.needs = Some(needs);
                }
                self.act_soon(Act::Task(guid.to_owned(), serial, Does::Start));
            }
            Err(why) => {
                let _ = self.change_task(guid, &TaskOp::Reject(why.to_string()));
                self.end_work(guid);
            }
        }
    }

    fn run_task(&mut self, guid: &str, work: &Work) {
        let Some(handle) = work.handle.clone() else { return };
        self.check_task_start(guid);
        if let Some(container) = self.containers.get_mut(&handle) {
            container.process = Process::Alive;
        }
        self.note(|| format!("kernel  {handle} runs task {guid}"));
        let (ms, code) = self.task_ends.get(guid).copied().unwrap_or((100, 0));
        self.after(ms, Event::Ends(handle, Exit::Code(code)));
    }

    /// Its process has ended by itself.
    pub fn task_ended(&mut self, handle: &Handle, exit: Exit) {
        let Some(mem) = &mut self.mem else { return };
        let found = mem.task_work.iter_mut().find(|(_, it)| it.handle.as_ref() == Some(handle));
        let Some((guid, work)) = found else { return };
        if work.cancelled {
            return;
        }
        let failure = (exit != Exit::Code(0)).then(|| format!("{exit:?}"));
        let (cell, result) = (CELL.to_owned(), String::new());
        work.outcome = Some(TaskOp::Complete { cell, failure, result });
        let act = Act::Task(guid.clone(), work.serial, Does::End);
        self.act_soon(act);
    }

    /// Nobody wants it any more: its record first, then its processes.
    pub fn cancel_task(&mut self, guid: &str) {
        if self.change_task(guid, &TaskOp::Cancel).is_err() {
            return;
        }
        let Some(work) = self.mem.as_mut().and_then(|mem| mem.task_work.get_mut(guid)) else {
            return;
        };
        work.cancelled = true;
        let (serial, handle) = (work.serial, work.handle.clone());
        self.kill_task(guid, serial, handle);
    }

    /// Tells whoever works on it to end it, as a draining does.
    pub fn end_task(&mut self, guid: &str) {
        let Some(work) = self.mem.as_mut().and_then(|mem| mem.task_work.get_mut(guid)) else {
            return;
        };
        work.cancelled = true;
        let (serial, handle) = (work.serial, work.handle.clone());
        self.kill_task(guid, serial, handle);
    }

    fn kill_task(&mut self, guid: &str, serial: u64, handle: Option<Handle>) {
        if self.leaves_queue(&Maker::Task(guid.to_owned(), serial)) {
            return self.act_soon(Act::Task(guid.to_owned(), serial, Does::End));
        }
        let container = handle.and_then(|handle| self.containers.get_mut(&handle));
        if let Some(container) = container.filter(|it| it.process == Process::Alive) {
            container.process = Process::Ended(Exit::Told);
            self.act_soon(Act::Task(guid.to_owned(), serial, Does::End));
        }
    }
}
