//! What is to be done about Tasks now, and when to look again. Pure: the records, who works on
//! which, and the clock are arguments.

use crate::model::task::{TaskRecord, TaskState};
use std::collections::{BTreeMap, BTreeSet};

const SECOND: u64 = 1_000_000_000;

/// Diego's times, in nanoseconds.
const PENDING_MAX_NS: u64 = 30 * 60 * SECOND;
const COMPLETED_MAX_NS: u64 = 120 * SECOND;
const KICK_NS: u64 = 30 * SECOND;

/// The times of the BBS, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    /// So long may a Task wait for its begin.
    pub pending_max: u64,
    /// So long is it remembered after its end.
    pub completed_max: u64,
    /// From a try that came to nothing to the next.
    pub kick: u64,
}

impl Default for Times {
    /// Diego's.
    fn default() -> Times {
        Times { pending_max: PENDING_MAX_NS, completed_max: COMPLETED_MAX_NS, kick: KICK_NS }
    }
}

/// Why a Task that nobody could begin has failed.
pub const NOT_STARTED: &str = "not started within time limit";
/// Why one has failed whose supervisor is gone.
pub const DISAPPEARED: &str = "cell disappeared before completion";

/// One thing to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// Nobody could begin it: it fails.
    GiveUp,
    /// It runs by the record, and nobody works on it: it fails.
    Lost,
    /// It shall be begun.
    Begin,
    /// Whoever was to be told did not hear it.
    Demote,
    /// Whoever wants to know is told.
    Tell,
    /// It is forgotten.
    Expire,
}

/// What to do, in order, and when to look again, in nanoseconds since 1970.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Guids with what is due for each; beginnings last, the largest memory first.
    pub acts: Vec<(String, Due)>,
    /// `None`: when something changes.
    pub next_ns: Option<u64>,
}

/// Compares the records with the clock. `busy`: guids that somebody works on at this moment; they
/// are left to him.
pub fn due(
    records: &BTreeMap<String, TaskRecord>,
    busy: &BTreeSet<String>,
    times: &Times,
    now_ns: u64,
) -> Plan {
    let mut plan = Plan::default();
    let mut begin: Vec<&TaskRecord> = Vec::new();
    for (guid, record) in records.iter().filter(|(guid, _)| !busy.contains(*guid)) {
        let mut wait = |at: u64| plan.next_ns = Some(plan.next_ns.map_or(at, |next| next.min(at)));
        match judge(record, times, now_ns) {
            Verdict::Now(Due::Begin) => begin.push(record),
            Verdict::Now(due) => plan.acts.push((guid.clone(), due)),
            Verdict::At(at) => wait(at),
        }
    }
    // The large ones first: small ones find a place beside them, not the other way round.
    begin.sort_by_key(|record| {
        (std::cmp::Reverse(record.task.limits.memory), record.created_at, &record.task.guid)
    });
    plan.acts.extend(begin.into_iter().map(|record| (record.task.guid.clone(), Due::Begin)));
    plan
}

enum Verdict {
    Now(Due),
    At(u64),
}

fn judge(record: &TaskRecord, times: &Times, now_ns: u64) -> Verdict {
    // A clock that was set back makes nothing wait for it to catch up.
    let over = |since: u64, limit: u64| !(since..since.saturating_add(limit)).contains(&now_ns);
    let either = |at: u64, due: Due, limit: u64| match over(at, limit) {
        true => Verdict::Now(due),
        false => Verdict::At(at.saturating_add(limit)),
    };
    let (updated, ended) = (record.updated_at, record.first_completed_at);
    match record.state {
        // Who waits for it says himself when it is begun.
        TaskState::Pending if record.task.internal => Verdict::Now(Due::Lost),
        TaskState::Pending if now_ns.saturating_sub(record.created_at) >= times.pending_max => {
            Verdict::Now(Due::GiveUp)
        }
        TaskState::Pending if record.rejection_count == 0 => Verdict::Now(Due::Begin),
        TaskState::Pending => match either(updated, Due::Begin, times.kick) {
            Verdict::At(at) => Verdict::At(at.min(record.created_at + times.pending_max)),
            now => now,
        },
        TaskState::Running => Verdict::Now(Due::Lost),
        TaskState::Completed | TaskState::Resolving if record.task.internal => {
            Verdict::Now(Due::Expire)
        }
        TaskState::Completed | TaskState::Resolving if over(ended, times.completed_max) => {
            Verdict::Now(Due::Expire)
        }
        TaskState::Resolving => either(updated, Due::Demote, times.kick),
        TaskState::Completed if record.task.completion_callback_url.is_empty() => {
            Verdict::At(ended.saturating_add(times.completed_max))
        }
        // Just now: whoever wants to know is told at once.
        TaskState::Completed if updated == ended => Verdict::Now(Due::Tell),
        TaskState::Completed => either(updated, Due::Tell, times.kick),
    }
}

#[cfg(test)]
pub(in crate::cell) mod tests {
    use super::*;
    use crate::cell::task::state::{TaskOp, apply};
    use crate::model::action::Action;
    use crate::model::limits::Limits;
    use crate::model::task::{Rootfs, Task};
    use crate::unit::Bytes;

    const MINUTE: u64 = 60 * SECOND;
    const T0: u64 = 1_000 * MINUTE;

    pub(in crate::cell) fn task(guid: &str, memory: u64, callback: &str) -> Task {
        let (rootfs, nothing) = (Rootfs::Stack("tiny".into()), Action::Serial(Vec::new()));
        Task {
            limits: Limits { memory: Some(Bytes::mib(memory)), ..Limits::default() },
            completion_callback_url: callback.into(),
            ..Task::new(guid, "d", rootfs, nothing)
        }
    }

    pub(in crate::cell) fn after(task: Task, ops: &[(u64, TaskOp)]) -> TaskRecord {
        let new = apply(None, &TaskOp::Desire(Box::new(task)), T0).expect("new").record;
        let record = ops.iter().fold(new, |record, (at, op)| {
            apply(record.as_ref(), op, *at).expect("a legal step").record
        });
        record.expect("a record")
    }

    fn start() -> (u64, TaskOp) {
        (T0, TaskOp::Start { cell: "c".into() })
    }

    fn complete(at: u64) -> (u64, TaskOp) {
        (at, TaskOp::Complete { cell: "c".into(), failure: None, result: String::new() })
    }

    /// What is due for this record alone, and when to look again.
    fn one(record: &TaskRecord, now: u64) -> (Option<Due>, Option<u64>) {
        let records = BTreeMap::from([(record.task.guid.clone(), record.clone())]);
        let plan = due(&records, &BTreeSet::new(), &Times::default(), now);
        (plan.acts.first().map(|(_, due)| *due), plan.next_ns)
    }

    #[test]
    fn row_7_a_task_that_nobody_begins_fails_after_thirty_minutes() {
        let waits = after(task("a", 1, ""), &[(T0 + MINUTE, TaskOp::Reject("no room".into()))]);
        let rejected = T0 + MINUTE;
        assert_eq!(one(&waits, rejected), (None, Some(rejected + KICK_NS)));
        assert_eq!(one(&waits, rejected + KICK_NS - 1), (None, Some(rejected + KICK_NS)));
        assert_eq!(one(&waits, rejected + KICK_NS).0, Some(Due::Begin));
        assert_eq!(one(&waits, T0 + PENDING_MAX_NS - 1).0, Some(Due::Begin));
        assert_eq!(one(&waits, T0 + PENDING_MAX_NS).0, Some(Due::GiveUp));
        assert_eq!(one(&after(task("a", 1, ""), &[]), T0).0, Some(Due::Begin));
        // The clock was set back by years, and forth.
        assert_eq!(one(&waits, 1).0, Some(Due::Begin));
        assert_eq!(one(&waits, u64::MAX).0, Some(Due::GiveUp));
    }

    #[test]
    fn row_7_the_owner_may_have_other_times() {
        let waits = after(task("a", 1, ""), &[(T0, TaskOp::Reject("no room".into()))]);
        let records = BTreeMap::from([("a".to_owned(), waits)]);
        let times = Times { kick: SECOND, ..Times::default() };
        let at = |now| due(&records, &BTreeSet::new(), &times, now);
        assert_eq!(at(T0 + SECOND - 1).next_ns, Some(T0 + SECOND));
        assert_eq!(at(T0 + SECOND).acts, [("a".to_owned(), Due::Begin)]);
    }

    #[test]
    fn row_7_a_completed_task_is_forgotten_after_two_minutes() {
        let ended = T0 + MINUTE;
        let done = after(task("a", 1, ""), &[start(), complete(ended)]);
        assert_eq!(one(&done, ended), (None, Some(ended + COMPLETED_MAX_NS)));
        assert_eq!(one(&done, ended + COMPLETED_MAX_NS - 1).0, None);
        assert_eq!(one(&done, ended + COMPLETED_MAX_NS).0, Some(Due::Expire));
        assert_eq!(one(&done, 1).0, Some(Due::Expire), "the clock was set back");
    }

    #[test]
    fn row_6_who_was_not_told_is_told_again_and_given_up_on_after_two_minutes() {
        let ended = T0 + MINUTE;
        let told = |more: &[(u64, TaskOp)]| {
            let ops = [&[start(), complete(ended)][..], more].concat();
            after(task("a", 1, "http://x/"), &ops)
        };
        assert_eq!(one(&told(&[]), ended).0, Some(Due::Tell));
        let resolving = told(&[(ended, TaskOp::Resolve)]);
        assert_eq!(one(&resolving, ended + 1), (None, Some(ended + KICK_NS)));
        assert_eq!(one(&resolving, ended + KICK_NS).0, Some(Due::Demote));
        let kicked = ended + KICK_NS;
        let demoted = told(&[(ended, TaskOp::Resolve), (kicked, TaskOp::Demote)]);
        assert_eq!(one(&demoted, kicked + 1), (None, Some(kicked + KICK_NS)));
        assert_eq!(one(&demoted, kicked + KICK_NS).0, Some(Due::Tell));
        assert_eq!(one(&demoted, ended + COMPLETED_MAX_NS).0, Some(Due::Expire));
        assert_eq!(one(&resolving, ended + COMPLETED_MAX_NS).0, Some(Due::Expire));
    }

    #[test]
    fn row_2_a_running_task_that_nobody_works_on_is_lost_and_not_begun_again() {
        let running = after(task("a", 1, ""), &[start()]);
        assert_eq!(one(&running, T0).0, Some(Due::Lost));
        let records = BTreeMap::from([("a".to_owned(), running)]);
        let busy = BTreeSet::from(["a".to_owned()]);
        assert_eq!(due(&records, &busy, &Times::default(), T0), Plan::default());
        let own = Task { internal: true, ..task("a", 1, "") };
        assert_eq!(one(&after(own.clone(), &[]), T0).0, Some(Due::Lost));
        assert_eq!(one(&after(own, &[start(), complete(T0)]), T0).0, Some(Due::Expire));
    }

    #[test]
    fn row_23_tasks_with_much_memory_are_begun_first() {
        let records = [("a", 64), ("b", 256), ("c", 64), ("d", 128)]
            .map(|(guid, memory)| (guid.to_owned(), after(task(guid, memory, ""), &[])));
        let plan = due(&records.into(), &BTreeSet::new(), &Times::default(), T0);
        let order: Vec<&str> = plan.acts.iter().map(|(guid, _)| guid.as_str()).collect();
        assert_eq!(order, ["b", "d", "a", "c"]);
    }
}
