//! The local dialect: what the command line asks of the daemon, JSON under `/v1`.
//!
//! | method | path | body | answer |
//! |---|---|---|---|
//! | GET | `/v1/ping` | | [`Ping`] |
//! | GET | `/v1/box?containers=` | | `BoxView`; so many containers of Garden's clients, else all |
//! | POST | `/v1/check` | [`ApplyRequest`] | `{}` when the box has what the manifest needs |
//! | GET | `/v1/apps` | | list of `AppView` |
//! | GET | `/v1/apps/N` | | `AppView` |
//! | PUT | `/v1/apps/N?wait=` | [`ApplyRequest`] | a line of JSON for each [`ApplyEvent`] |
//! | DELETE | `/v1/apps/N` | | `{}` when everything of it is gone |
//! | POST | `/v1/apps/N/{start,restart}` | | `{}` |
//! | POST | `/v1/apps/N/stop?wait=` | | `{}`, with `wait` when nothing of it runs any more |
//! | POST | `/v1/apps/N/scale` | [`ScaleRequest`] | `{}` |
//! | POST | `/v1/apps/N/restage` | | `{}` |
//! | PUT | `/v1/apps/N/source` | a tar | 201, [`source::SourceView`] |
//! | GET | `/v1/apps/N/follow` | | a line of JSON for each [`ApplyEvent`], until it runs or has failed |
//! | GET | `/v1/apps/N/revisions` | | list of `RevisionView` |
//! | POST | `/v1/apps/N/rollback` | [`history::RollbackRequest`] | [`history::RolledBack`] |
//! | POST | `/v1/apps/N/tasks` | [`history::TaskRequest`] | 201, [`history::TaskMade`] |
//! | GET | `/v1/apps/N/logs?`... | | a line of JSON for each `LogLine` that [`LogQuery`] wants |
//! | POST | `/v1/apps/N/instances/P/I/restart` | | `{}`; a fresh instance takes the index over |
//! | POST | `/v1/apps/N/instances/P/I/exec` | [`ExecRequest`] | 101, then `http::wire` frames |
//! | GET | `/v1/apps/N/explain?process=&index=` | | `ExplainView` |
//! | GET | `/v1/events?since=&follow=` | | server-sent events, see [`watch`] |
//! | GET | `/v1/container_metrics` | | each instance's figures, in the rep's words |
//! | GET | `/metrics` | | all figures as OpenMetrics text |
//! | GET | `/v1/images` | | [`images::ImagesView`] |
//! | POST | `/v1/images?from=&name=` | an archive | list of [`images::NamedImage`] |
//! | GET | `/v1/images/I` | | a document in docker's words; `I`: a name, a digest, its beginning |
//! | DELETE | `/v1/images/I` | | [`images::RemovedView`] |
//! | POST | `/v1/images/I/pull` | | a line of JSON for each [`images::PullEvent`] |
//! | GET | `/v1/images/I/archive` | | an archive, its image's id in `Terrarium-Image-Id` |
//! | POST | `/v1/drain?timeout=&wait=` | | `DrainView`, with `wait` when nothing is left |
//! | DELETE | `/v1/drain` | | `{}`; what is desired starts again |
//! | POST | `/v1/collect?all=` | | [`images::CollectedView`] |
//!
//! Below `/v1/tasks` and `/v1/containers` are the dialects of [`crate::api::records`].
//!
//! Errors: `ErrorView` with 404, 409, 422 or 500.

pub mod cell;
mod exec;
mod handle;
pub mod history;
pub mod images;
mod route;
pub mod source;
pub mod watch;

#[cfg(test)]
pub mod fake;

pub use exec::PROTOCOL as EXEC_PROTOCOL;

use crate::model::process::{ExitStatus, WindowSize};
use crate::model::view::{AppView, BoxView, ErrorView, LogLine, Pushed};
use crate::unit::AppName;
use serde::{Deserialize, Serialize};
use smol::channel::Sender;
use smol::io::{BoxedReader, BoxedWriter};
use smol::{future, stream};
use std::fmt;
use std::path::PathBuf;

/// Longest body of an apply request, in bytes.
pub const APPLY_MAX: usize = 1024 * 1024;
/// Most lines of the past that one logs request gets.
pub const LINES_MAX: usize = 10_000;

/// Says who answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ping {
    /// The daemon's version.
    pub version: String,
    /// Its process id.
    pub pid: u32,
}

/// One manifest to be made true.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApplyRequest {
    /// The TOML text.
    pub manifest_text: String,
    /// Where it came from, absolute: for diagnostics, and relative paths in it start there.
    pub file: PathBuf,
    /// It goes when the answer to this is no longer read: that stays open for its whole life.
    #[serde(default)]
    pub temporary: bool,
    /// What was pushed; without a manifest, `file` is one that need not be there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pushed: Option<Pushed>,
    /// The count of `web` in it was typed with it: it counts over what somebody has scaled.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub counted: bool,
    /// It is staged whether anything has changed or not.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub force: bool,
    /// It is declared and not started, nor staged.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stopped: bool,
    /// Stay until the app runs or has failed; travels as the query `wait`.
    #[serde(skip)]
    pub wait: bool,
}

/// What happens while a manifest is applied; a line of JSON each.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ApplyEvent {
    /// A line of output of staging or of the app.
    Log(LogLine),
    /// The app's new state: `staging`, `starting`, `running`.
    State(String),
    /// What it waits for, and how long at most: `until instance web/0 is ready, 1m at most`.
    Waits(String),
    /// It failed; nothing follows.
    Error(ErrorView),
    /// It is done: the app as it is now; nothing follows. Without `wait`: as it was accepted.
    Done(Box<AppView>),
}

/// How many instances are wanted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScaleRequest {
    /// The process type; `None`: `web`, or the only one.
    pub process: Option<String>,
    /// Instances, 0 to 1000.
    pub instances: u32,
}

/// Which log lines are wanted. The query: `lines`, `follow`, `process`, `index`, `since`, `source`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogQuery {
    /// So many of the past, the newest; at most [`LINES_MAX`].
    pub lines: usize,
    /// Go on with new ones until the app is deleted, or nothing of it is left to be started
    /// (stopped, or crashed for good).
    pub follow: bool,
    /// Only of this process type.
    pub process: Option<String>,
    /// Only of this instance.
    pub index: Option<u32>,
    /// Only those read then or later, in milliseconds since 1970.
    pub since_ms: Option<u64>,
    /// Only of this source and those below it, in any case: `app` has `APP/PROC/WEB`.
    pub source: Option<String>,
}

impl LogQuery {
    /// Whether `line` is one of them, however many there are.
    pub fn wants(&self, line: &LogLine) -> bool {
        self.index.is_none_or(|index| line.index == index)
            && self.since_ms.is_none_or(|since| line.time_ms >= since)
            && self.process.as_ref().is_none_or(|process| line.is_of(process))
            && self.source.as_ref().is_none_or(|source| line.is_below(source))
    }
}

/// A command to be run in an instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecRequest {
    /// Program and arguments; at least the program.
    pub argv: Vec<String>,
    /// `None`: the app's own user.
    #[serde(default)]
    pub user: Option<String>,
    /// Added to the app's own environment.
    #[serde(default)]
    pub env: Vec<(String, String)>,
    /// `None`: the app's own directory.
    #[serde(default)]
    pub dir: Option<String>,
    /// A terminal of this size.
    #[serde(default)]
    pub tty: Option<WindowSize>,
    /// Stdin is connected. A terminal always has one.
    #[serde(default)]
    pub stdin: bool,
}

/// A command that has been started. Dropping the session hangs up: the service ends the command
/// when [`ExecSession::control`] closes before it has ended by itself.
pub struct ExecSession {
    /// Its stdin; dropping it is the end of input. `None` when none was asked for.
    pub stdin: Option<BoxedWriter>,
    /// Its output; with a terminal all of it.
    pub stdout: BoxedReader,
    /// Its stderr; `None` with a terminal.
    pub stderr: Option<BoxedReader>,
    /// Resizes and signals.
    pub control: Sender<ExecControl>,
    /// How it ended.
    pub exit: future::Boxed<Result<ExitStatus, ServiceError>>,
}

/// What can be done to a running command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExecControl {
    /// Its terminal has a new size.
    Resize(WindowSize),
    /// Send it this signal.
    Signal(i32),
}

/// What kind of refusal it is: decides the status and the exit code of the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// No such app, process or instance.
    NotFound,
    /// The request or the manifest is wrong; nothing was changed.
    Invalid,
    /// It is there but does not run.
    NotRunning,
    /// Somebody or something else has it: a name, a port.
    Conflict,
    /// The command to be run does not exist in the container.
    NoProgram,
    /// The command to be run is no program.
    NotExecutable,
    /// It did not work.
    Failed,
}

impl ErrorKind {
    /// All kinds with their text and status.
    const TABLE: [(ErrorKind, &'static str, u16); 7] = [
        (ErrorKind::NotFound, "not_found", 404),
        (ErrorKind::Invalid, "invalid", 422),
        (ErrorKind::NotRunning, "not_running", 409),
        (ErrorKind::Conflict, "conflict", 409),
        (ErrorKind::NoProgram, "no_program", 422),
        (ErrorKind::NotExecutable, "not_executable", 422),
        (ErrorKind::Failed, "failed", 500),
    ];

    /// As it stands in `ErrorView::kind`.
    pub fn as_str(self) -> &'static str {
        ErrorKind::row(self).1
    }

    /// The HTTP status.
    pub fn status(self) -> u16 {
        ErrorKind::row(self).2
    }

    /// The kind in an `ErrorView`; what a newer daemon may say is [`ErrorKind::Failed`].
    pub fn of(view: &ErrorView) -> ErrorKind {
        let row = ErrorKind::TABLE.into_iter().find(|row| row.1 == view.kind);
        row.map_or(ErrorKind::Failed, |row| row.0)
    }

    fn row(self) -> (ErrorKind, &'static str, u16) {
        let row = ErrorKind::TABLE.into_iter().find(|row| row.0 == self);
        row.expect("the table has a row for every kind")
    }
}

/// A refusal, for the caller and for a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceError {
    /// For the caller.
    pub kind: ErrorKind,
    /// What was tried, on which object, why it failed with all causes, and the cure.
    pub message: String,
}

impl ServiceError {
    /// A refusal of this kind.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> ServiceError {
        ServiceError { kind, message: message.into() }
    }

    /// As it goes over the wire.
    pub fn view(&self) -> ErrorView {
        ErrorView { kind: self.kind.as_str().into(), message: self.message.clone() }
    }
}

impl fmt::Display for ServiceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for ServiceError {}

/// What comes out of the service.
pub type Served<T> = Result<T, ServiceError>;

/// What the dialect needs: `cell` has it, and the tests have a small one of their own.
///
/// A future may be dropped half way only when the daemon ends; a stream is dropped when its
/// client leaves, and that must not undo what it reports about.
pub trait AppService: Send + Sync {
    /// The box itself, with at most so many containers of Garden's clients.
    fn examine_box(&self, containers: usize) -> impl Future<Output = Served<BoxView>> + Send;
    /// All apps, by name.
    fn apps(&self) -> impl Future<Output = Served<Vec<AppView>>> + Send;
    /// One app.
    fn app(&self, name: &AppName) -> impl Future<Output = Served<AppView>> + Send;
    /// Refuses a manifest that `apply` would refuse for what it says; changes nothing.
    fn check(&self, request: ApplyRequest) -> impl Future<Output = Served<()>> + Send;
    /// Makes the manifest true. Refuses, as invalid, a manifest whose name is not `name`.
    fn apply(
        &self,
        name: &AppName,
        request: ApplyRequest,
    ) -> impl Future<Output = Served<stream::Boxed<ApplyEvent>>> + Send;
    /// Wants so many instances of a process from now on.
    fn scale(
        &self,
        name: &AppName,
        request: ScaleRequest,
    ) -> impl Future<Output = Served<()>> + Send;
    /// Ends all instances; the app stays. `wait`: returns when they have ended.
    fn stop(&self, name: &AppName, wait: bool) -> impl Future<Output = Served<()>> + Send;
    /// Runs a stopped or crashed app again.
    fn start(&self, name: &AppName) -> impl Future<Output = Served<()>> + Send;
    /// Ends all instances and runs them again.
    fn restart(&self, name: &AppName) -> impl Future<Output = Served<()>> + Send;
    /// Ends one instance and makes a fresh one of the same index; what is wanted stays as it is.
    fn restart_instance(
        &self,
        name: &AppName,
        process: &str,
        index: u32,
    ) -> impl Future<Output = Served<()>> + Send;
    /// Removes the app; returns when nothing of it is left.
    fn delete(&self, name: &AppName) -> impl Future<Output = Served<()>> + Send;
    /// Its log.
    fn logs(
        &self,
        name: &AppName,
        query: LogQuery,
    ) -> impl Future<Output = Served<stream::Boxed<LogLine>>> + Send;
    /// Starts a command in an instance.
    fn exec(
        &self,
        name: &AppName,
        process: &str,
        index: u32,
        request: ExecRequest,
    ) -> impl Future<Output = Served<ExecSession>> + Send;
}

/// The dialect over a service.
pub struct Apps<S> {
    service: S,
}

impl<S: AppService> Apps<S> {
    /// Serves `service`.
    pub fn new(service: S) -> Apps<S> {
        Apps { service }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn row_52_lines_are_wanted_by_instance_process_source_and_time() {
        let line = |source: &str, index, time_ms| LogLine {
            time_ms,
            source: source.into(),
            index,
            err: false,
            text: String::new(),
        };
        let lines = [
            line("STG", 0, 1),
            line("APP/PROC/WEB", 0, 2),
            line("APP/PROC/WEB", 1, 3),
            line("APP/PROC/WEBHOOK", 0, 4),
            line("CELL", 0, 5),
        ];
        let all = LogQuery::default;
        let source = |text: &str| LogQuery { source: Some(text.into()), ..all() };
        for (query, times) in [
            (all(), &[1, 2, 3, 4, 5][..]),
            (LogQuery { index: Some(1), ..all() }, &[3]),
            (LogQuery { process: Some("web".into()), ..all() }, &[2, 3]),
            (LogQuery { since_ms: Some(4), ..all() }, &[4, 5]),
            (LogQuery { since_ms: Some(2), index: Some(1), ..all() }, &[3]),
            (source("app"), &[2, 3, 4]),
            (source("APP/PROC/WEB"), &[2, 3]),
            (source("APP/"), &[]),
            (source("ST"), &[]),
            (source("stg"), &[1]),
            (source("APP/PROC/WEBHOOK/MORE"), &[]),
        ] {
            let found = lines.iter().filter(|line| query.wants(line)).map(|line| line.time_ms);
            assert_eq!(found.collect::<Vec<_>>(), times, "{query:?}");
        }
    }
}
