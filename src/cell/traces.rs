//! Whose lines a log can have: who asks for those of something that its app never had is told what there is.

use super::error::{CellError, Kind};
use super::lacking::lacking;
use super::record::AppRecord;
use super::releases;
use super::shared::Cell;
use crate::model::lrp::DesiredLrp;
use crate::model::view::{AppView, LogLine, ProcessView, is_below};
use crate::unit::AppName;
use std::collections::BTreeSet;

/// What every app's log may have beside what its processes say. Tasks have a source each, below the last.
const OF_ALL: [&str; 4] = ["STG", "CELL", "HEALTH", TASKS];
const TASKS: &str = "APP/TASK";
/// Sources that an error names.
const NAMED_MAX: usize = 24;

/// What somebody wants to see of a log, whenever it was said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// Lines of this process type.
    pub process: Option<String>,
    /// Of this instance.
    pub index: Option<u32>,
    /// Of this source and those below it, in any case.
    pub source: Option<String>,
}

/// What can be asked for, whether it has said anything yet or not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Traces {
    /// `app` or `task`, and its name.
    subject: (&'static str, String),
    /// Process types, and how many instances each has or would have.
    processes: Vec<(String, u32)>,
    sources: BTreeSet<String>,
}

/// What of that is in the log, whoever said it: what is gone has left lines all the same.
#[derive(Debug, Default)]
pub struct Heard {
    process: bool,
    index: bool,
    source: bool,
    sources: BTreeSet<String>,
}

impl Heard {
    /// One line of the log.
    pub fn hear(&mut self, asked: &Asked, line: &LogLine) {
        let is_process = asked.process.as_ref().is_none_or(|process| line.is_of(process));
        self.process |= is_process;
        self.index |= is_process && asked.index.is_none_or(|index| line.index == index);
        self.source |= asked.source.as_ref().is_none_or(|source| line.is_below(source));
        if self.sources.len() <= NAMED_MAX && !self.sources.contains(&line.source) {
            self.sources.insert(line.source.clone());
        }
    }
}

impl Traces {
    /// Whether all of it is known without a look at the log.
    pub fn has(&self, asked: &Asked) -> bool {
        self.missing(asked, &Heard::default()).is_none()
    }

    /// What was asked for and never was there, with what is.
    pub fn refuse(&self, asked: &Asked, heard: &Heard) -> Result<(), CellError> {
        match self.missing(asked, heard) {
            None => Ok(()),
            Some(text) => Err(CellError::new(Kind::NotFound, text)),
        }
    }

    fn missing(&self, asked: &Asked, heard: &Heard) -> Option<String> {
        let (kind, name) = &self.subject;
        let process = asked.process.as_ref();
        // One of which none is wanted may have had its first.
        let there = self.processes.iter().map(|(name, count)| (name.clone(), *count.max(&1)));
        let mut counts: Vec<(String, u32)> = there.collect();
        let is_left =
            |process: &&String| heard.process && !counts.iter().any(|it| it.0 == **process);
        if let Some(left) = process.filter(is_left) {
            counts.push((left.clone(), 1));
        }
        let (of, index) = (process.map(String::as_str), asked.index.filter(|_| !heard.index));
        if let Some(text) = lacking((kind, name), &counts, of, index) {
            return Some(text);
        }
        let source = asked.source.as_ref().filter(|_| !heard.source)?;
        if self.sources.iter().any(|known| is_below(known, source)) {
            return None;
        }
        let all: BTreeSet<&String> = self.sources.iter().chain(&heard.sources).collect();
        let named: Vec<&str> = all.iter().take(NAMED_MAX).map(|it| it.as_str()).collect();
        let more = if all.len() > NAMED_MAX { " and more" } else { "" };
        let source = source.escape_default();
        Some(format!(
            "the log of {kind} {name} has no source `{source}`: it has {}{more}, and those above them",
            named.join(", ")
        ))
    }
}

impl Cell {
    /// What can be asked of an app's log, or, where there is no app of this name, of a Task's.
    pub fn traces(&self, name: &AppName) -> Result<Traces, CellError> {
        let view = match self.glance(name.as_str()) {
            Ok(view) => view,
            Err(_) if self.is_task_log(name) => {
                let sources = OF_ALL.map(String::from).into();
                return Ok(Traces {
                    subject: ("task", name.to_string()),
                    processes: vec![],
                    sources,
                });
            }
            Err(err) => return Err(err),
        };
        let state = self.shared.state();
        let app = state.apps.get(name).ok_or_else(|| CellError::no_app(name.as_str()))?;
        let tasks = state.tasks.values().filter(|it| it.task.app == *name);
        let tasks = tasks.map(|it| it.task.log_source.clone());
        Ok(of_app(&view, app, tasks))
    }
}

fn of_app(view: &AppView, app: &AppRecord, tasks: impl Iterator<Item = String>) -> Traces {
    // A stopped one would have those as well.
    let wanted = |name: &str| {
        let declared = app.manifest.processes.get(name).map(|it| it.instances);
        app.scale.get(name).copied().or(declared).unwrap_or_default()
    };
    let count = |process: &ProcessView| {
        let there = process.instances.iter().map(|one| one.index + 1).max().unwrap_or_default();
        (process.name.clone(), there.max(process.desired).max(wanted(&process.name)))
    };
    let mut sources: BTreeSet<String> = OF_ALL.map(String::from).into();
    sources.extend(tasks);
    sources.extend(releases::made(app).iter().flat_map(of_lrp));
    // Of one that was not staged yet, too.
    sources.extend(view.processes.iter().map(|it| format!("APP/PROC/{}", it.name.to_uppercase())));
    sources.retain(|source| !source.is_empty());
    let processes = view.processes.iter().map(count).collect();
    Traces { subject: ("app", view.name.to_string()), processes, sources }
}

/// Whatever an LRP names as the source of something that it does.
fn of_lrp(lrp: &DesiredLrp) -> Vec<String> {
    let work = &lrp.work;
    let sidecars = work.sidecars.iter().map(|it| &it.action);
    let actions = work.setup.iter().chain([&work.action]).chain(sidecars).chain(&work.monitor);
    let mut all = vec![lrp.log_source.clone()];
    actions.for_each(|action| action.log_sources(&mut all));
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn traces() -> Traces {
        let sources = OF_ALL.iter().chain(&["APP/PROC/WEB", "APP/PROC/WEB/SIDECAR/RELAY"]);
        Traces {
            subject: ("app", "two".into()),
            processes: vec![("web".into(), 2), ("worker".into(), 1), ("idle".into(), 0)],
            sources: sources.map(|it| (*it).to_owned()).collect(),
        }
    }

    fn asked(process: &str, index: Option<u32>, source: &str) -> Asked {
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        Asked { process: some(process), index, source: some(source) }
    }

    #[test]
    fn what_an_app_never_had_is_said_with_what_it_has() {
        let sources = "APP/PROC/WEB, APP/PROC/WEB/SIDECAR/RELAY, APP/TASK, CELL, HEALTH, STG";
        let none = format!("the log of app two has no source `NOPE`: it has {sources}, and those");
        for (asked, why) in [
            (asked("", None, ""), ""),
            (asked("web", Some(1), "app"), ""),
            (asked("idle", Some(0), ""), ""),
            (asked("", None, "app/proc/web/sidecar"), ""),
            (asked("", None, "APP/TASK"), ""),
            (asked("foo", None, ""), "app two has no process `foo`: it has web, worker, idle"),
            (asked("", Some(7), ""), "no instance 7 of `two`: it has 0..1"),
            (asked("worker", Some(1), ""), "no instance 1 of `two:worker`: it has 0"),
            (asked("", None, "NOPE"), &none),
            (asked("", None, "APP/PRO"), "the log of app two has no source `APP/PRO`: it has "),
            (asked("", None, "APP/TASK/x"), "the log of app two has no source `APP/TASK/x`: it"),
        ] {
            let said = traces().refuse(&asked, &Heard::default()).err();
            assert_eq!(said.is_none(), why.is_empty(), "{asked:?}");
            assert_eq!(traces().has(&asked), why.is_empty(), "{asked:?}");
            assert!(said.iter().all(|it| it.kind == Kind::NotFound && it.text.starts_with(why)));
        }
    }

    /// An instance that was scaled away, a process of an older manifest, a Task that is forgotten.
    #[test]
    fn what_is_gone_and_has_left_lines_is_none_of_that() {
        let line = |source: &str, index| LogLine {
            time_ms: 1,
            source: source.into(),
            index,
            err: false,
            text: String::new(),
        };
        let lines = [line("APP/PROC/WEB", 7), line("APP/PROC/OLD", 0), line("APP/TASK/two-1", 0)];
        for (asked, is_there) in [
            (asked("", Some(7), ""), true),
            (asked("web", Some(7), ""), true),
            (asked("worker", Some(7), ""), false),
            (asked("", Some(8), ""), false),
            (asked("old", None, ""), true),
            (asked("old", Some(3), ""), false),
            (asked("", None, "app/task/two-1"), true),
            (asked("", None, "app/task/two-2"), false),
        ] {
            let mut heard = Heard::default();
            lines.iter().for_each(|line| heard.hear(&asked, line));
            assert_eq!(traces().refuse(&asked, &heard).is_ok(), is_there, "{asked:?}");
        }
    }
}
