//! The life of a Task as the BBS has it: every operation in every state. Pure.
//!
//! ```text
//!            desire              start                complete, fail, cancel
//!   nothing --------> PENDING ----------> RUNNING -------------------------> COMPLETED
//!                        ^  \_______________|______ fail, cancel ____________^  |  ^
//!                        |__________________|                                   |  | demote
//!                               reject                        delete <- RESOLVING -'
//! ```

use crate::model::task::{REASON_MAX, Task, TaskRecord, TaskState};
use std::fmt;

/// Rejections before the one that ends a Task.
pub const REJECTIONS_MAX: u32 = 3;

/// Why a Task that was cancelled has failed.
pub const CANCELLED: &str = "task was cancelled";

/// What is done to a Task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TaskOp {
    /// It is asked for.
    Desire(Box<Task>),
    /// A cell begins it.
    Start {
        /// Which one.
        cell: String,
    },
    /// It has ended there.
    Complete {
        /// On which cell.
        cell: String,
        /// Why it failed; `None`: it did not.
        failure: Option<String>,
        /// What was in its result file.
        result: String,
    },
    /// Nobody wants it any more.
    Cancel,
    /// It shall not be tried any longer.
    Fail(String),
    /// It could not be begun; that may be tried again.
    Reject(String),
    /// Whoever wants to know is being told.
    Resolve,
    /// He did not hear it.
    Demote,
    /// It is forgotten.
    Delete,
}

impl TaskOp {
    /// The words for all of them, taken apart in [`TaskOp::name`] as those of an instance's events.
    pub const NAMES: [&'static str; 9] =
        ["desire", "start", "complete", "cancel", "fail", "reject", "resolve", "demote", "delete"];

    /// A word for it.
    pub fn name(&self) -> &'static str {
        let [desire, start, complete, cancel, fail, reject, resolve, demote, delete] =
            TaskOp::NAMES;
        match self {
            TaskOp::Desire(_) => desire,
            TaskOp::Start { .. } => start,
            TaskOp::Complete { .. } => complete,
            TaskOp::Cancel => cancel,
            TaskOp::Fail(_) => fail,
            TaskOp::Reject(_) => reject,
            TaskOp::Resolve => resolve,
            TaskOp::Demote => demote,
            TaskOp::Delete => delete,
        }
    }
}

/// Why a Task stays as it is. The texts are the BBS's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// There is one of that guid.
    Exists,
    /// There is none.
    NotFound,
    /// Not in this state.
    Transition {
        /// Where it stands.
        from: TaskState,
        /// Where it was to go.
        to: &'static str,
    },
    /// Another cell has it.
    OtherCell {
        /// Who has it.
        actual: String,
        /// Who asked.
        expected: String,
    },
    /// It cannot be rejected.
    Request,
}

impl Refusal {
    /// Its type in the BBS.
    pub fn name(&self) -> &'static str {
        match self {
            Refusal::Exists => "ResourceExists",
            Refusal::NotFound => "ResourceNotFound",
            Refusal::Transition { .. } => "InvalidStateTransition",
            Refusal::OtherCell { .. } => "RunningOnDifferentCell",
            Refusal::Request => "InvalidRequest",
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::Exists => f.write_str("the requested resource already exists"),
            Refusal::NotFound => f.write_str("the requested resource could not be found"),
            Refusal::Transition { from, to } => write!(f, "Cannot transition from {from} to {to}"),
            Refusal::OtherCell { actual, expected } => {
                write!(f, "Running on cell {actual} not {expected}")
            }
            Refusal::Request => f.write_str("the request received is invalid"),
        }
    }
}

impl std::error::Error for Refusal {}

/// What comes of an operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The record as it is now; `None`: it is gone.
    pub record: Option<TaskRecord>,
    /// After [`TaskOp::Start`]: the one who asked may begin. Never said twice.
    pub should_start: bool,
}

/// Does `op` to a Task at `now_ns`. The only place where one changes its state.
pub fn apply(record: Option<&TaskRecord>, op: &TaskOp, now_ns: u64) -> Result<Outcome, Refusal> {
    use TaskState as S;
    let record = match (record, op) {
        (None, TaskOp::Desire(task)) => return Ok(become_one(desired(task, now_ns))),
        (None, _) => return Err(Refusal::NotFound),
        (Some(_), TaskOp::Desire(_)) => return Err(Refusal::Exists),
        (Some(record), _) => record,
    };
    let fresh = TaskRecord { updated_at: now_ns, ..record.clone() };
    let not = |to| Err(Refusal::Transition { from: record.state, to });
    match (op, record.state) {
        (TaskOp::Desire(_), _) => Err(Refusal::Exists),
        (TaskOp::Start { cell }, S::Pending) => {
            let record = TaskRecord { state: S::Running, cell_id: cell.clone(), ..fresh };
            Ok(Outcome { record: Some(record), should_start: true })
        }
        (TaskOp::Start { cell }, S::Running) if *cell == record.cell_id => {
            Ok(become_one(record.clone()))
        }
        (TaskOp::Start { .. }, S::Running | S::Completed | S::Resolving) => not("RUNNING"),
        (TaskOp::Complete { cell, failure, result }, S::Running) => {
            if *cell != record.cell_id {
                let (actual, expected) = (record.cell_id.clone(), cell.clone());
                return Err(Refusal::OtherCell { actual, expected });
            }
            Ok(become_one(ended(fresh, failure.clone(), result.clone())))
        }
        (TaskOp::Complete { .. }, S::Pending | S::Completed | S::Resolving) => not("COMPLETED"),
        (TaskOp::Cancel, S::Pending | S::Running) => {
            Ok(become_one(ended(fresh, Some(CANCELLED.into()), String::new())))
        }
        (TaskOp::Fail(why), S::Pending | S::Running) => {
            Ok(become_one(ended(fresh, Some(why.clone()), String::new())))
        }
        (TaskOp::Cancel | TaskOp::Fail(_), S::Completed | S::Resolving) => not("COMPLETED"),
        (TaskOp::Reject(why), S::Pending | S::Running) => {
            Ok(become_one(rejected(fresh, why.clone())))
        }
        (TaskOp::Reject(_), S::Completed | S::Resolving) => Err(Refusal::Request),
        (TaskOp::Resolve, S::Completed) => {
            Ok(become_one(TaskRecord { state: S::Resolving, ..fresh }))
        }
        (TaskOp::Resolve, S::Pending | S::Running | S::Resolving) => not("RESOLVING"),
        (TaskOp::Demote, S::Resolving) => {
            Ok(become_one(TaskRecord { state: S::Completed, ..fresh }))
        }
        (TaskOp::Demote, S::Pending | S::Running | S::Completed) => not("COMPLETED"),
        (TaskOp::Delete, S::Resolving) => Ok(Outcome { record: None, should_start: false }),
        (TaskOp::Delete, S::Pending | S::Running | S::Completed) => not("DELETED"),
    }
}

fn become_one(record: TaskRecord) -> Outcome {
    Outcome { record: Some(record), should_start: false }
}

fn desired(task: &Task, now_ns: u64) -> TaskRecord {
    TaskRecord {
        task: task.clone(),
        state: TaskState::Pending,
        cell_id: String::new(),
        created_at: now_ns,
        updated_at: now_ns,
        first_completed_at: 0,
        failed: false,
        failure_reason: String::new(),
        result: String::new(),
        rejection_count: 0,
        rejection_reason: String::new(),
    }
}

fn ended(record: TaskRecord, failure: Option<String>, result: String) -> TaskRecord {
    TaskRecord {
        state: TaskState::Completed,
        cell_id: String::new(),
        first_completed_at: record.updated_at,
        failed: failure.is_some(),
        failure_reason: cut(failure.unwrap_or_default()),
        result,
        ..record
    }
}

/// Back to where it was before it was begun; once too often, it has failed.
fn rejected(record: TaskRecord, why: String) -> TaskRecord {
    let last = record.rejection_count >= REJECTIONS_MAX;
    let back = TaskRecord {
        state: TaskState::Pending,
        cell_id: String::new(),
        rejection_count: record.rejection_count.saturating_add(1),
        rejection_reason: cut(why.clone()),
        ..record
    };
    if last { ended(back, Some(why), String::new()) } else { back }
}

/// Cuts a reason to [`REASON_MAX`] bytes, at a character.
fn cut(mut text: String) -> String {
    if text.len() > REASON_MAX {
        let end = (0..=REASON_MAX).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(end);
    }
    text
}

#[cfg(test)]
mod tests;
