//! Staging as a Task: its record is there while it runs, and its completion is told to the pipeline
//! that asked for it instead of to a URL.

use super::run::Made;
use super::state::{self, TaskOp};
use crate::cell::shared::Shared;
use crate::cell::worked_on::TaskWork;
use crate::exec::cancel::{self, Cancel};
use crate::model::task::{Task, TaskRecord, TaskState};
use smol::future;
use std::sync::Arc;

/// Runs a Task of a staging, in a container of `made`, whose room is taken. The error is why it failed. Its record goes with the
/// answer; that of a staging which the daemon did not live to see the end of has failed when the
/// next one looks, and its app is staged by another Task.
pub(in crate::cell) async fn run_staging(
    shared: &Arc<Shared>,
    task: Task,
    made: Made,
    cancel: &Cancel,
) -> Result<(), String> {
    let guid = task.guid.clone();
    // Cancelled as a Task, it has failed; stopped with its app, it has only been stopped.
    let (stop, inner) = cancel::pair();
    shared.state().task_work.insert(guid.clone(), TaskWork::new(stop));
    let forward = async {
        cancel.cancelled().await;
        if let Some(work) = shared.state().task_work.get(&guid) {
            work.cancel();
        }
        future::pending().await
    };
    let ended = future::or(run(shared, task, made, &inner), forward).await;
    shared.try_op(&guid, TaskOp::Resolve).await;
    shared.try_op(&guid, TaskOp::Delete).await;
    shared.state().task_work.remove(&guid);
    let ended = ended?;
    match ended.failed {
        true => Err(ended.failure_reason),
        false => Ok(()),
    }
}

/// The record at its end.
async fn run(
    shared: &Arc<Shared>,
    task: Task,
    made: Made,
    cancel: &Cancel,
) -> Result<TaskRecord, String> {
    let desire = TaskOp::Desire(Box::new(task.clone()));
    shared.change_task(&task.guid, desire).await.map_err(|err| err.to_string())?;
    shared.see_through(&task, Some(made), cancel).await;
    // Somebody waits for it and sees why: it is not tried again behind his back.
    let pending = shared.state().tasks.get(&task.guid).cloned();
    if let Some(record) = pending.filter(|record| record.state == TaskState::Pending) {
        shared.try_op(&task.guid, TaskOp::Fail(record.rejection_reason)).await;
    }
    let ended = shared.state().tasks.get(&task.guid).cloned();
    // It was cancelled as a Task, and deleted by the same hand.
    ended.ok_or_else(|| state::CANCELLED.to_owned())
}
