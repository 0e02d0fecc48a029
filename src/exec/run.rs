//! Runs processes inside one container, to their end.

use super::cancel::{self, Cancel};
use super::fetch::Fetcher;
use super::found::{Begun, Found};
use super::limit::Limit;
use super::metrics::{self, COUNTERS};
use super::steps::{StepError, StepResult};
use super::streams::{Sink, log_lines};
use crate::container::{Container, Process, ProcessError};
use crate::model::action::RunAction;
use crate::model::death::{Cause, Sender};
use crate::model::process::{ExitStatus, ProcessSpec};
use crate::model::work::Stop;
use crate::sys::signal::KILL;
use crate::unit::span;
use smol::future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// From KILL to giving up on a process.
pub(super) const DEATH_MAX: Duration = Duration::from_secs(1);

/// Runs actions in one container.
pub struct Executor {
    /// The container.
    pub container: Arc<Container>,
    /// Where output goes; each action sets its own source.
    pub sink: Sink,
    /// How downloads come and uploads go.
    pub fetcher: Fetcher,
    /// How much of its processes' output is logged.
    pub limit: Limit,
    /// Appended to the environment of every process.
    pub env: Vec<(String, String)>,
    /// Numbers the processes.
    pub last_id: AtomicU32,
    /// How processes are asked to end.
    pub stop: Stop,
    /// Processes that an earlier daemon has started, which actions go on with.
    pub found: Found,
    /// Tells when processes have been started.
    pub begun: Begun,
}

/// A process whose end is waited for.
struct Watched {
    process: Process,
    /// It has ended already, while nobody was attached.
    ended: Option<ExitStatus>,
    /// What the container had been ended for want of memory, before this was started: it may happen at
    /// once.
    oom_before: u64,
}

impl Executor {
    /// Runs a helper to its end. A success is not told; a failure is, with all that it wrote.
    pub async fn help(&self, run: &RunAction, cancel: &Cancel) -> StepResult {
        let sink = self.sink(&run.log_source);
        let oom_before = self.container.oom_kills();
        let started = cancel.or(self.start(run.process.clone(), &sink.source)).await;
        let Some(started) = started else { return Err(StepError::Cancelled) };
        let process = started.map_err(|err| StepError::Failed(err.to_string()))?;
        let watched = Watched { process, ended: None, oom_before };
        self.to_its_end(watched, &sink, Told::Failure, cancel).await
    }

    /// Runs one process to its end, with its output going there, unless the action wants none.
    pub(super) async fn run_to(&self, run: &RunAction, sink: &Sink, cancel: &Cancel) -> StepResult {
        let silent = Sink { log: None, ..sink.clone() };
        let sink = if run.suppress_log_output { &silent } else { sink };
        let told = if sink.heard.is_some() { Told::Never } else { Told::Always };
        let id = &run.process.id;
        if let Some((process, ended)) = self.found.take(id) {
            self.begun.tell(id);
            return self.to_its_end(self.resumed(process, ended), sink, told, cancel).await;
        }
        let oom_before = self.container.oom_kills();
        // Given up before its answer, a start is undone when that comes after all.
        let started = match told {
            Told::Never => cancel.or(self.launch(run.process.clone())).await,
            Told::Always | Told::Failure => {
                cancel.or(self.start(run.process.clone(), &sink.source)).await
            }
        };
        match started {
            Some(Ok(process)) => {
                self.begun.tell(id);
                let watched = Watched { process, ended: None, oom_before };
                self.to_its_end(watched, sink, told, cancel).await
            }
            Some(Err(err)) => Err(StepError::Failed(err.to_string())),
            None => Err(StepError::Cancelled),
        }
    }

    /// Starts a process with the executor's environment. A refusal is logged.
    pub async fn start(&self, spec: ProcessSpec, source: &str) -> Result<Process, ProcessError> {
        self.launch(spec).await.inspect_err(|err| {
            self.sink(source).say(false, format!("failed-creating-process: {err}"));
        })
    }

    async fn launch(&self, mut spec: ProcessSpec) -> Result<Process, ProcessError> {
        spec.env.extend(self.env.iter().cloned());
        spec.never_waits = true;
        if spec.id.is_empty() {
            spec.id = self.new_id();
        }
        self.container.start(spec).await
    }

    /// Logs a process's output until it has ended, stopping it when `cancel` says so. `ended`: it
    /// has already, while nobody was attached.
    pub async fn see_through(
        &self,
        process: Process,
        ended: Option<ExitStatus>,
        sink: &Sink,
        cancel: &Cancel,
    ) -> StepResult {
        self.to_its_end(self.resumed(process, ended), sink, Told::Always, cancel).await
    }

    /// One that an earlier daemon has started. If it has ended already, memory may have been why.
    fn resumed(&self, process: Process, ended: Option<ExitStatus>) -> Watched {
        let oom_before = if ended.is_some() { 0 } else { self.container.oom_kills() };
        Watched { process, ended, oom_before }
    }

    async fn to_its_end(
        &self,
        watched: Watched,
        sink: &Sink,
        told: Told,
        cancel: &Cancel,
    ) -> StepResult {
        let source = &sink.source;
        let Watched { mut process, ended, oom_before } = watched;
        let (end, over) = cancel::pair();
        let streams = std::mem::take(&mut process.streams);
        let to = (sink.clone(), self.limit.clone());
        let output = future::zip(
            log_lines(
                (streams.stdout, streams.spooled_out),
                false,
                to.clone(),
                over.clone(),
                Some(process.relief(false)),
            ),
            log_lines(
                (streams.stderr, streams.spooled_err),
                true,
                to,
                over,
                Some(process.relief(true)),
            ),
        );
        let life = async {
            let life = match ended {
                Some(status) => (Some(status), End::Not),
                None if sink.heard.is_some() => wait_or_kill(&process, cancel).await,
                None => self.wait(&process, cancel).await,
            };
            end.cancel();
            life
        };
        let (_, (end, stop)) = future::zip(output, life).await;
        let Some(status) = end else {
            return Err(match stop {
                // Pid 1 is in the container's memory too, and may be the one that is ended.
                End::Not | End::Asked if self.container.oom_kills() > oom_before => {
                    StepError::died(out_of_memory(source, 137))
                }
                End::Not | End::Asked => StepError::died(Cause::ContainerLost),
                End::Killed => StepError::NotDead,
            });
        };
        let code = status.code();
        let starved = code != 0 && self.container.oom_kills() > oom_before;
        let oom_text = if starved { " (out of memory)" } else { "" };
        if stop == End::Killed && sink.heard.is_none() {
            metrics::count(&COUNTERS.exited_on_timeout);
        }
        let late = match stop {
            End::Killed => {
                let grace = span::show_go(self.stop.timeout);
                format!(" (exceeded {grace} graceful shutdown interval)")
            }
            End::Not | End::Asked => String::new(),
        };
        if told == Told::Always || (told == Told::Failure && code != 0) {
            sink.say(false, format!("Exit status {code}{late}{oom_text}"));
        }
        // What has been told is of no more use to pid 1; but of a process with a place in the
        // instance's work the next daemon has to know that it has ended.
        if is_numbered(&process.id) || told != Told::Always {
            let _ = self.container.forget(&process.id).await;
        }
        match (stop, status) {
            (End::Killed, _) => Err(StepError::GraceExceeded),
            (End::Asked, _) => Err(StepError::Cancelled),
            (End::Not, ExitStatus::Exited(0)) => Ok(()),
            (End::Not, _) if starved => Err(StepError::died(out_of_memory(source, code))),
            (End::Not, status) => Err(StepError::died(end_of(source, status))),
        }
    }

    /// The sink for another source.
    pub fn sink(&self, source: &str) -> Sink {
        Sink { source: source.to_owned(), ..self.sink.clone() }
    }

    /// A fresh process name; see [`is_numbered`].
    pub fn new_id(&self) -> String {
        format!("p{}", self.last_id.fetch_add(1, Ordering::Relaxed) + 1)
    }

    /// Waits for the end; on cancel asks for it, then KILL. `None`: it cannot be known.
    async fn wait(&self, process: &Process, cancel: &Cancel) -> (Option<ExitStatus>, End) {
        let ended = async { process.wait().await.ok() };
        if let Some(end) = cancel.or(ended).await {
            return (end, End::Not);
        }
        let _ = process.signal(self.stop.signal).await;
        if let Some(end) = within(self.stop.timeout, process).await {
            return (end, End::Asked);
        }
        let _ = process.signal(KILL).await;
        (within(DEATH_MAX, process).await.flatten(), End::Killed)
    }
}

/// The kernel has ended a process for lack of memory. Which one, and what the limit was, is found
/// out by whoever decides about the container.
fn out_of_memory(source: &str, code: i32) -> Cause {
    let source = source.to_owned();
    Cause::OutOfMemory { source, code, victim: None, limit_bytes: None, whole_box: false }
}

/// How a process ended that nobody here has stopped.
fn end_of(source: &str, status: ExitStatus) -> Cause {
    let source = source.to_owned();
    match status {
        ExitStatus::Exited(_) => Cause::Exited { source, code: status.code() },
        ExitStatus::Signaled(signal) => Cause::Signalled { source, signal, by: Sender::of(signal) },
    }
}

/// Whether a name is one of those that count up, for processes without a place in the work.
fn is_numbered(id: &str) -> bool {
    id.strip_prefix('p').is_some_and(|rest| rest.bytes().all(|byte| byte.is_ascii_digit()))
}

/// When the exit status of a process is a line of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    Always,
    Failure,
    Never,
}

/// How a process was made to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Not,
    Asked,
    Killed,
}

/// Waits for the end of a check; on cancel it is killed at once, with all that it has started: those
/// of every try would be left.
async fn wait_or_kill(process: &Process, cancel: &Cancel) -> (Option<ExitStatus>, End) {
    let ended = async { process.wait().await.ok() };
    if let Some(end) = cancel.or(ended).await {
        return (end, End::Not);
    }
    let _ = process.kill_all().await;
    match within(DEATH_MAX, process).await {
        Some(end) => (end, End::Asked),
        None => (None, End::Killed),
    }
}

/// The end of a process if it comes in time.
pub(super) async fn within(limit: Duration, process: &Process) -> Option<Option<ExitStatus>> {
    future::or(async { Some(process.wait().await.ok()) }, async {
        async_io::Timer::after(limit).await;
        None
    })
    .await
}
