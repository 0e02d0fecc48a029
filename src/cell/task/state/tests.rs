use super::*;
use crate::model::action::Action;
use crate::model::task::Rootfs;
use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::Path;

fn task() -> Task {
    let (rootfs, nothing) = (Rootfs::Stack("tiny".into()), Action::Serial(Vec::new()));
    Task { log_source: "TASK".into(), ..Task::new("t", "d", rootfs, nothing) }
}

/// A record in this state, as the operations make it.
fn record(state: TaskState) -> TaskRecord {
    let done = |record: Option<TaskRecord>, op: TaskOp| {
        apply(record.as_ref(), &op, 10).expect("a legal step").record
    };
    let here = || "here".to_owned();
    let mut record = done(None, TaskOp::Desire(Box::new(task())));
    if state != TaskState::Pending {
        record = done(record, TaskOp::Start { cell: here() });
    }
    if matches!(state, TaskState::Completed | TaskState::Resolving) {
        let end = TaskOp::Complete { cell: here(), failure: None, result: "r".into() };
        record = done(record, end);
    }
    if state == TaskState::Resolving {
        record = done(record, TaskOp::Resolve);
    }
    record.expect("a record")
}

fn ops() -> Vec<(&'static str, TaskOp)> {
    let complete = |cell: &str, failure: Option<&str>| TaskOp::Complete {
        cell: cell.into(),
        failure: failure.map(str::to_owned),
        result: "it".into(),
    };
    vec![
        ("desire", TaskOp::Desire(Box::new(task()))),
        ("start here", TaskOp::Start { cell: "here".into() }),
        ("start there", TaskOp::Start { cell: "there".into() }),
        ("complete here", complete("here", None)),
        ("complete here, failed", complete("here", Some("why"))),
        ("complete there", complete("there", None)),
        ("cancel", TaskOp::Cancel),
        ("fail", TaskOp::Fail("why".into())),
        ("reject", TaskOp::Reject("why".into())),
        ("resolve", TaskOp::Resolve),
        ("demote", TaskOp::Demote),
        ("delete", TaskOp::Delete),
    ]
}

fn line(outcome: Result<Outcome, Refusal>) -> String {
    let outcome = match outcome {
        Err(refusal) => return format!("{}: {refusal}", refusal.name()),
        Ok(outcome) => outcome,
    };
    let Some(record) = outcome.record else { return "gone".into() };
    let mut text = record.state.to_string();
    let mut add = |say: bool, more: String| {
        if say {
            text.push_str(&more);
        }
    };
    add(outcome.should_start, " should_start".into());
    add(!record.cell_id.is_empty(), format!(" cell={}", record.cell_id));
    add(record.failed, format!(" failed `{}`", record.failure_reason));
    add(!record.result.is_empty(), format!(" result=`{}`", record.result));
    let rejected = format!(" rejected={} `{}`", record.rejection_count, record.rejection_reason);
    add(record.rejection_count > 0, rejected);
    let times = format!(
        " created={} updated={} completed={}",
        record.created_at, record.updated_at, record.first_completed_at
    );
    add(true, times);
    text
}

/// Row 1, row 29: every operation in every state; what is refused changes nothing, as it gives no
/// record at all. TERRARIUM_BLESS=1 rewrites the table, for review as code.
#[test]
fn row_1_the_whole_table_is_as_it_was_reviewed() {
    let mut text = String::new();
    let states = TaskState::ALL.map(|state| (state.to_string(), Some(record(state))));
    let states = [("nothing".to_owned(), None)].into_iter().chain(states);
    for (name, record) in states {
        for (op, does) in ops() {
            let outcome = line(apply(record.as_ref(), &does, 20));
            writeln!(text, "{name:<9} | {op:<21} | {outcome}").expect("text");
        }
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/task-states.txt");
    if std::env::var_os("TERRARIUM_BLESS").is_some() {
        std::fs::write(&path, &text).expect("golden file");
    }
    assert_eq!(text, std::fs::read_to_string(&path).expect("golden file"));
}

/// Row 2: whatever is done to a Task in whatever order, it is told to start at most once between
/// two rejections, and never after it has ended.
#[test]
fn row_2_no_order_of_operations_starts_a_task_twice() {
    let ops = ops();
    let mut seed = 1_u64;
    let mut next = |n: usize| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (seed >> 33) as usize % n
    };
    for _ in 0..2000 {
        let mut record = apply(None, &TaskOp::Desire(Box::new(task())), 0).expect("new").record;
        let (mut started, mut ended) = (false, false);
        for now in 1..60 {
            let Some(known) = &record else { break };
            let (_, op) = &ops[next(ops.len())];
            let Ok(outcome) = apply(Some(known), op, now) else { continue };
            if matches!(op, TaskOp::Reject(_)) {
                started = false;
            }
            assert!(!(outcome.should_start && (started || ended)), "{op:?} {known:?}");
            started |= outcome.should_start;
            if let Some(after) = &outcome.record {
                ended |= after.state == TaskState::Completed;
                assert!(!ended || after.cell_id.is_empty());
                assert_eq!(ended, after.first_completed_at != 0);
            }
            record = outcome.record;
        }
    }
}

#[test]
fn row_3_the_fourth_rejection_fails_with_the_last_reason() {
    let mut record = record(TaskState::Running);
    for n in 1..=4 {
        let op = TaskOp::Reject(format!("reason {n}"));
        record = apply(Some(&record), &op, n).expect("rejected").record.expect("kept");
        assert_eq!(record.rejection_count, n as u32);
        assert_eq!(record.state == TaskState::Completed, n == 4);
    }
    assert!(record.failed && record.failure_reason == "reason 4", "{record:?}");
}

#[test]
fn a_reason_is_cut_at_a_character() {
    let op = TaskOp::Fail("é".repeat(REASON_MAX));
    let record = apply(Some(&record(TaskState::Pending)), &op, 1).expect("failed").record;
    assert_eq!(record.expect("kept").failure_reason.len(), REASON_MAX);
}

/// Before and after the write of every one, and at no other.
#[test]
fn the_daemon_can_die_at_every_operation() {
    let of_op = |name: &&str| [format!("task:{name}:asked"), format!("task:{name}:written")];
    let all: Vec<String> = TaskOp::NAMES.iter().flat_map(of_op).collect();
    let of_source = crate::sys::fault::POINTS.iter().filter(|point| point.starts_with("task:"));
    assert_eq!(BTreeSet::from_iter(all), of_source.map(|point| point.to_string()).collect());
    let shown: BTreeSet<&str> = ops().iter().map(|(_, op)| op.name()).collect();
    assert_eq!(shown, TaskOp::NAMES.into(), "the golden table has every operation");
}
