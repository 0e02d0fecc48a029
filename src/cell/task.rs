//! Tasks: work that is done at most once. Staging is one of them.
//!
//! Every change goes through [`state::apply`] and is on the disk before anything follows from it: a
//! Task's record says RUNNING before its container is begun, so that no daemon after this one begins
//! it again. What the last daemon has left running has failed; its containers go as the depot is
//! looked through, before this room is asked for the first time.

mod callback;
pub mod due;
mod run;
mod staging;
pub mod state;

pub(super) use run::{Made, beside_image, notes};
pub(super) use staging::run_staging;

use super::error::CellError;
use super::events::derive;
use super::shared::{Cell, Shared, now_ns};
use super::worked_on::TaskWork;
use crate::exec::cancel;
use crate::exec::state::{ContainerEvent, ContainerState};
use crate::model::task::{Rootfs, Task, TaskRecord, TaskState, is_made_up};
use crate::model::view::TasksView;
use crate::sys::fault;
use crate::unit::AppName;
use due::Due;
use state::{Outcome, Refusal, TaskOp, apply};
use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

/// Tasks that are remembered at the same time.
const TASKS_MAX: usize = 1024;

/// Why a Task was not changed.
#[derive(Debug)]
pub enum TaskError {
    /// The BBS says no.
    Refused(Refusal),
    /// There are so many already.
    TooMany,
    /// The record could not be written.
    Failed(CellError),
}

impl TaskError {
    /// Its type in the BBS.
    pub fn name(&self) -> &'static str {
        match self {
            TaskError::Refused(refusal) => refusal.name(),
            TaskError::TooMany => "ResourceConflict",
            TaskError::Failed(_) => "UnknownError",
        }
    }
}

impl fmt::Display for TaskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TaskError::Refused(refusal) => refusal.fmt(f),
            TaskError::TooMany => write!(
                f,
                "{TASKS_MAX} tasks are remembered already; delete some, or wait: completed ones are \
                 forgotten after two minutes"
            ),
            TaskError::Failed(err) => err.fmt(f),
        }
    }
}

impl std::error::Error for TaskError {}

impl Cell {
    /// Every Task, by guid; with a domain only those of it.
    pub fn tasks(&self, domain: Option<&str>) -> Vec<TaskRecord> {
        let state = self.shared.state();
        let wanted = |it: &&TaskRecord| domain.is_none_or(|domain| it.task.domain == domain);
        state.tasks.values().filter(wanted).cloned().collect()
    }

    /// How many stand where.
    pub fn count_tasks(&self) -> TasksView {
        let state = self.shared.state();
        let count = |wanted: &[TaskState]| {
            state.tasks.values().filter(|record| wanted.contains(&record.state)).count()
        };
        TasksView {
            pending: count(&[TaskState::Pending]),
            running: count(&[TaskState::Running]),
            completed: count(&[TaskState::Completed, TaskState::Resolving]),
        }
    }

    /// One Task.
    pub fn task(&self, guid: &str) -> Result<TaskRecord, TaskError> {
        let found = self.shared.state().tasks.get(guid).cloned();
        found.ok_or(TaskError::Refused(Refusal::NotFound))
    }

    /// Whether the log of this name is a Task's.
    pub fn is_task_log(&self, name: &AppName) -> bool {
        self.shared.state().tasks.values().any(|record| record.task.app == *name)
    }

    /// How far its container is, in executor's words.
    pub fn container_of_task(&self, record: &TaskRecord) -> ContainerState {
        let state = self.shared.state();
        let work = state.task_work.get(&record.task.guid);
        ContainerState::of_task(work.map(TaskWork::state), record.state)
    }

    /// Asks for a Task. It is on the disk when this returns, and begun as soon as there is room.
    pub async fn desire_task(&self, task: Task) -> Result<(), TaskError> {
        let guid = task.guid.clone();
        crate::info!("task.desired", task = guid);
        self.shared.change_task(&guid, TaskOp::Desire(Box::new(task))).await.map(drop)
    }

    /// Ends a Task: its record first, then its processes.
    pub async fn cancel_task(&self, guid: &str) -> Result<(), TaskError> {
        self.shared.change_task(guid, TaskOp::Cancel).await?;
        crate::info!("task.cancelled", task = guid);
        if let Some(work) = self.shared.state().task_work.get(guid) {
            work.cancel();
        }
        Ok(())
    }

    /// Whoever asked for it takes note of its end himself; when he does not forget it, it is told anew.
    pub async fn resolve_task(&self, guid: &str) -> Result<(), TaskError> {
        self.shared.change_task(guid, TaskOp::Resolve).await.map(drop)
    }

    /// Forgets a Task whose end somebody has taken note of.
    pub async fn forget_task(&self, guid: &str) -> Result<(), TaskError> {
        self.shared.change_task(guid, TaskOp::Delete).await.map(drop)
    }

    /// Forgets a Task that has completed.
    pub async fn delete_task(&self, guid: &str) -> Result<(), TaskError> {
        self.shared.change_task(guid, TaskOp::Resolve).await?;
        self.shared.change_task(guid, TaskOp::Delete).await.map(drop)
    }
}

impl Shared {
    /// Does `op` to a Task: on the disk first, then in memory. What begins a Task must be on the disk;
    /// an end that cannot be written counts all the same, as the next daemon takes it for failed.
    pub(super) async fn change_task(
        self: &Arc<Self>,
        guid: &str,
        op: TaskOp,
    ) -> Result<Outcome, TaskError> {
        let turn = self.task_turns.lock_arc().await;
        let outcome = {
            let state = self.state();
            if matches!(op, TaskOp::Desire(_)) && state.tasks.len() >= TASKS_MAX {
                return Err(TaskError::TooMany);
            }
            apply(state.tasks.get(guid), &op, now_ns()).map_err(TaskError::Refused)?
        };
        let must = matches!(op, TaskOp::Desire(_) | TaskOp::Start { .. });
        let (shared, guid) = (self.clone(), guid.to_owned());
        smol::unblock(move || {
            fault::point(format_args!("task:{}:asked", op.name()));
            if let Err(err) = shared.store.put_task(&guid, outcome.record.as_ref()) {
                let err = CellError::failed(format!("cannot record task {guid}"), &err);
                if must {
                    return Err(TaskError::Failed(err));
                }
                crate::error!("record.refused", task = guid, err = err);
            }
            fault::point(format_args!("task:{}:written", op.name()));
            let before = {
                let mut state = shared.state();
                let before = match &outcome.record {
                    Some(record) => state.tasks.insert(guid, record.clone()),
                    None => state.tasks.remove(&guid),
                };
                // With the state in hand: what is told comes in the order in which it happened.
                shared.events.tell(derive::task(before.as_ref(), outcome.record.as_ref()));
                before
            };
            drop(turn);
            if let (Some(gone), None) = (before, &outcome.record) {
                shared.forget_log(&gone.task);
            }
            shared.wake();
            Ok(outcome)
        })
        .await
    }

    /// The log of a Task goes with it; that of a staging or of an app's Task is the app's. Blocking.
    fn forget_log(&self, task: &Task) {
        if task.internal || matches!(task.rootfs, Rootfs::App(..)) {
            return;
        }
        if let Err(err) = self.logs.remove(&task.app) {
            crate::warn!("log.left", task = task.guid, err = err);
        }
    }

    /// What the last daemon has left running has failed; before anybody is served.
    pub(super) async fn settle_tasks(self: &Arc<Self>) {
        let lost: Vec<TaskRecord> = {
            let state = self.state();
            let left = |it: &&TaskRecord| it.task.internal || it.state == TaskState::Running;
            state.tasks.values().filter(left).cloned().collect()
        };
        for record in lost {
            let guid = &record.task.guid;
            self.lose(guid, &record).await;
            if record.task.internal {
                self.try_op(guid, TaskOp::Resolve).await;
                self.try_op(guid, TaskOp::Delete).await;
            }
        }
    }

    /// Nobody works on it any more, and nobody will.
    async fn lose(self: &Arc<Self>, guid: &str, record: &TaskRecord) {
        let failure = Some(due::DISAPPEARED.to_owned());
        let op = match record.state {
            TaskState::Running => {
                let cell = record.cell_id.clone();
                TaskOp::Complete { cell, failure, result: String::new() }
            }
            _ => TaskOp::Fail(due::DISAPPEARED.into()),
        };
        self.end_task(guid, op).await;
    }

    /// Does what is due. When to look again, in milliseconds since 1970.
    pub(super) async fn tend_tasks(self: &Arc<Self>) -> Option<u64> {
        let plan = {
            let state = self.state();
            if state.closing || state.tasks.is_empty() {
                return None;
            }
            let busy: BTreeSet<String> = state.task_work.keys().cloned().collect();
            due::due(&state.tasks, &busy, &self.settings.tasks, now_ns())
        };
        for (guid, due) in plan.acts {
            match due {
                Due::GiveUp => self.end_task(&guid, TaskOp::Fail(due::NOT_STARTED.into())).await,
                Due::Lost => {
                    let record = self.state().tasks.get(&guid).cloned();
                    if let Some(record) = record {
                        self.lose(&guid, &record).await;
                    }
                }
                // They wait until something new is begun again.
                Due::Begin if self.refusal(&self.state()).is_some() => {}
                Due::Begin => self.begin_task(&guid),
                Due::Demote => self.try_op(&guid, TaskOp::Demote).await,
                Due::Tell => self.begin_telling(&guid),
                Due::Expire => {
                    self.try_op(&guid, TaskOp::Resolve).await;
                    self.try_op(&guid, TaskOp::Delete).await;
                }
            }
        }
        plan.next_ns.map(|ns| ns / 1_000_000 + 1)
    }

    /// Something happens to the container of a Task that somebody works on.
    fn task_turn(&self, guid: &str, event: ContainerEvent) {
        if let Some(work) = self.state().task_work.get_mut(guid) {
            work.turn(event);
        }
    }

    async fn end_task(self: &Arc<Self>, guid: &str, op: TaskOp) {
        crate::warn!("task.given_up", task = guid);
        self.try_op(guid, op).await;
    }

    /// Does what may not apply any more.
    pub(super) async fn try_op(self: &Arc<Self>, guid: &str, op: TaskOp) {
        match self.change_task(guid, op).await {
            Ok(_) | Err(TaskError::Refused(_)) => {}
            Err(err) => crate::error!("task.unchanged", task = guid, err = err),
        }
    }

    /// Begins a Task in the background, as the only one who does.
    fn begin_task(self: &Arc<Self>, guid: &str) {
        let (canceller, cancel) = cancel::pair();
        {
            let mut state = self.state();
            if state.task_work.contains_key(guid) {
                return;
            }
            state.task_work.insert(guid.to_owned(), TaskWork::new(canceller));
        }
        let (shared, guid) = (self.clone(), guid.to_owned());
        smol::spawn(async move {
            let task = shared.state().tasks.get(&guid).map(|record| record.task.clone());
            shared.work_on(&guid, &cancel).await;
            shared.let_go(&guid, task).await;
        })
        .detach();
    }

    /// Nobody works on a Task any more. Whoever has deleted it since it completed has taken its log away,
    /// and the end of its container was logged after that.
    async fn let_go(self: &Arc<Self>, guid: &str, task: Option<Task>) {
        // Nobody asks for another one of that guid meanwhile.
        let turn = self.task_turns.lock().await;
        let is_gone = !self.state().tasks.contains_key(guid);
        if let Some(task) = task.filter(|_| is_gone) {
            let shared = self.clone();
            smol::unblock(move || shared.forget_log(&task)).await;
        }
        self.state().task_work.remove(guid);
        drop(turn);
        self.wake();
    }

    /// Removes logs of Tasks and records that are gone: a daemon that died has not. Blocking.
    pub(super) fn sweep_logs(&self) {
        let names = match self.logs.names() {
            Ok(names) => names,
            Err(err) => return crate::warn!("log.unknown", err = err),
        };
        for name in names.iter().filter(|name| is_made_up(name)) {
            let is_known = {
                let state = self.state();
                state.apps.contains_key(name)
                    || state.set_aside.contains_key(name.as_str())
                    || state.tasks.values().any(|record| record.task.app == *name)
            };
            if !is_known && let Err(err) = self.logs.remove(name) {
                crate::warn!("log.left", app = name, err = err);
            }
        }
    }

    /// Tells whoever wants to know of a Task's end, in the background.
    fn begin_telling(self: &Arc<Self>, guid: &str) {
        {
            let mut state = self.state();
            if state.task_work.contains_key(guid) {
                return;
            }
            state.task_work.insert(guid.to_owned(), TaskWork::telling());
        }
        let (shared, guid) = (self.clone(), guid.to_owned());
        smol::spawn(async move {
            shared.tell_of(&guid).await;
            shared.state().task_work.remove(&guid);
            shared.wake();
        })
        .detach();
    }
}
