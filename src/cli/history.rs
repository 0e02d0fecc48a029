//! The verbs about what an app was and what is done with it: restage, revisions, rollback, run-task.

use super::change;
use super::error::{CliError, code};
use super::parse::RunTask;
use super::remote::Remote;
use super::show::{self, Health};
use super::text::{Ink, Table, ago, clean};
use super::ui::{Ui, now_ms};
use crate::api::apps::LogQuery;
use crate::api::apps::history::TaskRequest;
use crate::api::http::within;
use crate::model::view::{LogLine, RevisionView};
use crate::unit::AppName;
use serde_json::json;
use std::time::Duration;

/// From one look at a task to the next.
const LOOK: Duration = Duration::from_millis(300);
/// Lines of a task that are shown.
const LINES: usize = 1000;

/// How long somebody stays.
#[derive(Clone, Copy, Debug)]
pub struct Stay {
    /// Until it runs or has failed.
    pub wait: bool,
    /// No longer than this.
    pub timeout: Option<Duration>,
}

/// `restage`.
pub async fn restage(
    ui: &mut Ui,
    remote: &Remote,
    name: &AppName,
    stay: Stay,
) -> Result<u8, CliError> {
    remote.post(name, "restage").await?;
    ui.note(&format!("{name}: staging again"));
    follow(ui, remote, name, stay).await
}

/// `rollback`.
pub async fn rollback(
    ui: &mut Ui,
    remote: &Remote,
    name: &AppName,
    to: Option<u64>,
    stay: Stay,
) -> Result<u8, CliError> {
    let never_ran = match to {
        Some(to) => remote.revisions(name).await?.into_iter().find(|it| is_unsure(it, to)),
        None => None,
    };
    let revision = remote.rollback(name, to).await?;
    if let Some(to) = never_ran {
        ui.note(&format!("{name}: revision {} was never healthy before", to.revision));
    }
    match ui.json {
        true => ui.item(&json!({ "app": name, "revision": revision }))?,
        false => ui.note(&format!("{name}: revision {revision}")),
    }
    follow(ui, remote, name, stay).await
}

/// It is revision `to`, and nobody has seen it healthy.
fn is_unsure(one: &RevisionView, to: u64) -> bool {
    one.revision == to && ["failed", "unproven"].contains(&&*one.health)
}

/// Shows what happens to an app until it runs or has failed.
async fn follow(ui: &mut Ui, remote: &Remote, name: &AppName, stay: Stay) -> Result<u8, CliError> {
    if !stay.wait {
        return Ok(0);
    }
    let work = async {
        let reply = remote.follow(name).await?;
        let (app, _) = change::follow(ui, name, reply, &mut |_| {}).await?;
        if !ui.json && !ui.quiet {
            ui.print(&show::app(&app, now_ms(), ui.color))?;
        }
        Ok(if show::health(&app) == Health::Bad { code::NOT_RUNNING } else { 0 })
    };
    match stay.timeout {
        Some(limit) => within(limit, work).await.unwrap_or(Err(CliError::TimedOut(limit))),
        None => work.await,
    }
}

/// `revisions`.
pub async fn revisions(ui: &mut Ui, remote: &Remote, name: &AppName) -> Result<u8, CliError> {
    let all = remote.revisions(name).await?;
    match ui.json {
        true => ui.document(&all)?,
        false => ui.print(&list(name, &all, now_ms(), ui.color))?,
    }
    Ok(0)
}

fn list(name: &AppName, all: &[RevisionView], now_ms: u64, color: bool) -> String {
    if all.is_empty() {
        return format!("{name} has not run yet\n");
    }
    let mut table = Table::new("", &["REVISION", "AGE", "BY", "HEALTH", "CHANGED", "DROPLET"]);
    for one in all {
        let (mark, ink) = if one.current { ("*", Ink::Good) } else { ("", Ink::Plain) };
        // A name may mean another image each time.
        let what = match &one.image {
            Some(image) if !image.contains('@') => format!("{image}@{}", one.droplet),
            Some(image) => image.clone(),
            None => one.droplet.clone(),
        };
        table.row([
            (format!("{}{mark}", one.revision), ink),
            (ago(now_ms, one.made_ms), Ink::Plain),
            (clean(&one.why), Ink::Plain),
            (clean(&one.health), if one.health == "failed" { Ink::Bad } else { Ink::Plain }),
            (clean(&changes(&one.changed)), Ink::Plain),
            (clean(&what), Ink::Plain),
        ]);
    }
    let failed = all.iter().filter_map(|one| Some((one.revision, one.failure.as_ref()?)));
    let failed = failed.map(|(revision, why)| format!("revision {revision}: {}\n", clean(why)));
    table.render(color) + &failed.collect::<String>()
}

/// Words of what has changed that are shown.
const CHANGES: usize = 4;

fn changes(all: &[String]) -> String {
    let (shown, rest) = all.split_at(all.len().min(CHANGES));
    match (shown, rest.len()) {
        ([], _) => "-".into(),
        (shown, 0) => shown.join(","),
        (shown, more) => format!("{},+{more}", shown.join(",")),
    }
}

/// `run-task`.
pub async fn run_task(ui: &mut Ui, remote: &Remote, wanted: RunTask) -> Result<u8, CliError> {
    let RunTask { app, command, memory, disk, wait } = wanted;
    let guid = remote.run_task(&app, &TaskRequest { command, memory, disk }).await?;
    match ui.json {
        true => ui.item(&json!({ "app": app, "task_guid": guid }))?,
        false => ui.print(&format!("{guid}\n"))?,
    }
    if !wait {
        return Ok(0);
    }
    // The stream of events may break off or leave some out: it would have to be asked for all the same.
    // It is remembered for two minutes after its end, which this does not miss.
    let task = loop {
        let task = remote.task(&guid).await?;
        if matches!(task["state"].as_str(), Some("COMPLETED" | "RESOLVING")) {
            break task;
        }
        async_io::Timer::after(LOOK).await;
    };
    let source = Some(format!("APP/TASK/{guid}"));
    let query = LogQuery { lines: LINES, source, ..LogQuery::default() };
    let mut reply = remote.logs(&app, &query).await?;
    while let Some(line) = reply.next_line::<LogLine>().await? {
        ui.log(&line)?;
    }
    if task["failed"].as_bool() != Some(true) {
        return Ok(0);
    }
    let why = clean(task["failure_reason"].as_str().unwrap_or_default());
    ui.complain(&format!("terrarium: task {guid} has failed: {why}\n"));
    Ok(code::NOT_RUNNING)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn revisions_are_listed_with_the_one_that_runs() {
        let one = |revision, current, why: &str, image: Option<&str>| RevisionView {
            revision,
            current,
            made_ms: 0,
            why: why.into(),
            health: if current { "healthy" } else { "failed" }.into(),
            failure: (!current).then(|| "it fell".into()),
            changed: if revision == 2 {
                ["a", "b", "c", "d", "e", "f"].map(String::from).to_vec()
            } else {
                Vec::new()
            },
            droplet: "sha256:00".into(),
            image: image.map(str::to_owned),
            manifest: String::new(),
        };
        let all = [one(1, false, "apply", None), one(2, true, "rollback to 1", Some("busybox:1"))];
        let name = "web".parse().expect("name");
        let text = list(&name, &all, 60_000, false);
        let rows: Vec<Vec<&str>> = text.lines().map(|it| it.split_whitespace().collect()).collect();
        assert_eq!(rows[0], ["REVISION", "AGE", "BY", "HEALTH", "CHANGED", "DROPLET"]);
        assert_eq!(rows[1], ["1", "1m", "apply", "failed", "-", "sha256:00"]);
        let last =
            ["2*", "1m", "rollback", "to", "1", "healthy", "a,b,c,d,+2", "busybox:1@sha256:00"];
        assert_eq!(rows[2], last);
        assert_eq!(text.lines().last(), Some("revision 1: it fell"));
        assert_eq!(list(&name, &[], 0, false), "web has not run yet\n");
    }
}
