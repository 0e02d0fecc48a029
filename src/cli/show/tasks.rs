//! Tasks as a person reads them. Pure.

use crate::cli::text::{Ink, Table, ago, clean};
use crate::model::view::{TaskView, TasksView};

/// `terrarium tasks`.
pub fn tasks(tasks: &[TaskView], now_ms: u64, color: bool) -> String {
    if tasks.is_empty() {
        return "no tasks\n".into();
    }
    let mut table = Table::new("", &["GUID", "DOMAIN", "STATE", "AGE", "REASON"]);
    for task in tasks {
        table.row([
            (clean(&task.task_guid), Ink::Plain),
            (clean(&task.domain), Ink::Plain),
            (state(task).0, state(task).1),
            (ago(now_ms, task.created_at / 1_000_000), Ink::Plain),
            (clean(reason(task)), Ink::Plain),
        ]);
    }
    table.render(color)
}

/// `terrarium task GUID`.
pub fn task(task: &TaskView, now_ms: u64, color: bool) -> String {
    let (word, ink) = state(task);
    let mut out = format!(
        "guid       {}\nstate      {}\n",
        clean(&task.task_guid),
        ink.paint(&clean(&word), color)
    );
    let mut field = |key: &str, value: &str| {
        if !value.is_empty() {
            out.push_str(&format!("{key:<10} {}\n", clean(value)));
        }
    };
    field("reason", reason(task));
    field("domain", &task.domain);
    field("rootfs", &task.rootfs);
    field("cell", &task.cell_id);
    field("asked for", &format!("{} ago", ago(now_ms, task.created_at / 1_000_000)));
    if task.rejection_count > 0 {
        let times = match task.rejection_count {
            1 => "once".to_owned(),
            count => format!("{count} times"),
        };
        field("rejected", &times);
    }
    if !task.log_name.is_empty() {
        field("log", &format!("terrarium logs {}", task.log_name));
    }
    field("result", &task.result);
    out
}

/// A line of `status`; nothing when there are none.
pub fn counts(tasks: &TasksView) -> String {
    let parts =
        [(tasks.pending, "pending"), (tasks.running, "running"), (tasks.completed, "completed")];
    let said: Vec<String> = parts
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("{count} {what}"))
        .collect();
    if said.is_empty() { String::new() } else { format!("tasks: {}\n", said.join(", ")) }
}

fn state(task: &TaskView) -> (String, Ink) {
    match (task.state.as_str(), task.failed) {
        ("COMPLETED" | "RESOLVING", true) => ("failed".into(), Ink::Bad),
        ("COMPLETED" | "RESOLVING", false) => ("completed".into(), Ink::Good),
        (other, _) => (other.to_lowercase(), Ink::Busy),
    }
}

fn reason(task: &TaskView) -> &str {
    if task.failed { &task.failure_reason } else { &task.rejection_reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(state: &str) -> TaskView {
        TaskView {
            task_guid: "G_1".into(),
            domain: "d".into(),
            state: state.into(),
            created_at: 1_000_000_000,
            ..TaskView::default()
        }
    }

    #[test]
    fn a_task_is_shown_with_its_end_and_its_reason() {
        let failed = TaskView {
            failed: true,
            failure_reason: "task was cancelled".into(),
            log_name: "g-1-abc".into(),
            ..one("COMPLETED")
        };
        let done = TaskView { result: "{\"a\":1}".into(), ..one("COMPLETED") };
        let text = tasks(&[one("RUNNING"), failed.clone(), done.clone()], 61_000, false);
        let lines: Vec<Vec<&str>> =
            text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[1][..4], ["G_1", "d", "running", "1m"]);
        assert_eq!(lines[2][2..], ["failed", "1m", "task", "was", "cancelled"]);
        assert!(task(&failed, 61_000, false).contains("log        terrarium logs g-1-abc\n"));
        assert!(task(&done, 61_000, false).contains("result     {\"a\":1}\n"));
        assert_eq!(tasks(&[], 0, false), "no tasks\n");
    }

    #[test]
    fn status_counts_tasks_where_there_are_some() {
        assert_eq!(counts(&TasksView::default()), "");
        let some = TasksView { pending: 0, running: 1, completed: 2 };
        assert_eq!(counts(&some), "tasks: 1 running, 2 completed\n");
    }
}
