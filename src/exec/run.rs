//! Runs processes inside one container, to their end.

use super::cancel::{self, Cancel};
use super::fetch::Fetcher;
use super::limit::Limit;
use super::steps::{StepError, StepResult};
use super::streams::{Sink, log_lines};
use crate::container::{Container, Process, ProcessError};
use crate::model::action::RunAction;
use crate::model::process::{ExitStatus, ProcessSpec};
use crate::sys::signal::{KILL, TERM};
use smol::future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// From TERM to KILL. Diego's graceful shutdown interval.
pub const GRACE: Duration = Duration::from_secs(10);

/// From KILL to giving up on a process.
const DEATH_MAX: Duration = Duration::from_secs(1);

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
}

impl Executor {
    /// Runs a helper to its end. A success is not told; a failure is, with all that it wrote.
    pub async fn help(&self, run: &RunAction, cancel: &Cancel) -> StepResult {
        let sink = self.sink(&run.log_source);
        let process = self.start(run.process.clone(), &sink.source).await;
        let process = process.map_err(|err| StepError::Failed(err.to_string()))?;
        self.to_its_end(process, None, &sink, Told::Failure, cancel).await
    }

    /// Runs one process to its end, with its output going there, unless the action wants none.
    pub(super) async fn run_to(&self, run: &RunAction, sink: &Sink, cancel: &Cancel) -> StepResult {
        match self.start(run.process.clone(), &sink.source).await {
            Ok(process) => {
                let silent = Sink { log: None, ..sink.clone() };
                let sink = if run.suppress_log_output { &silent } else { sink };
                self.see_through(process, None, sink, cancel).await
            }
            Err(err) => Err(StepError::Failed(err.to_string())),
        }
    }

    /// Starts a process with the executor's environment. A refusal is logged.
    pub async fn start(
        &self,
        mut spec: ProcessSpec,
        source: &str,
    ) -> Result<Process, ProcessError> {
        spec.env.extend(self.env.iter().cloned());
        if spec.id.is_empty() {
            spec.id = self.new_id();
        }
        self.container.start(spec).await.inspect_err(|err| {
            self.sink(source).say(false, format!("failed-creating-process: {err}"));
        })
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
        self.to_its_end(process, ended, sink, Told::Always, cancel).await
    }

    async fn to_its_end(
        &self,
        mut process: Process,
        ended: Option<ExitStatus>,
        sink: &Sink,
        told: Told,
        cancel: &Cancel,
    ) -> StepResult {
        let source = &sink.source;
        let oom_before = if ended.is_some() { 0 } else { self.container.oom_kills() };
        let (end, over) = cancel::pair();
        let streams = std::mem::take(&mut process.streams);
        let to = (sink.clone(), self.limit.clone());
        let output = future::zip(
            log_lines(streams.stdout, streams.spooled_out, false, to.clone(), over.clone()),
            log_lines(streams.stderr, streams.spooled_err, true, to, over),
        );
        let life = async {
            let life = match ended {
                Some(status) => (Some(status), Stop::Not),
                None => self.wait(&process, cancel).await,
            };
            end.cancel();
            life
        };
        let (_, (end, stop)) = future::zip(output, life).await;
        let Some(status) = end else {
            return Err(match stop {
                // Pid 1 is in the container's memory too, and may be the one that is ended.
                Stop::Not | Stop::Asked if self.container.oom_kills() > oom_before => {
                    StepError::Failed(format!("{source}: Exited with status 137 (out of memory)"))
                }
                Stop::Not | Stop::Asked => StepError::Failed("container is gone".into()),
                Stop::Killed => StepError::NotDead,
            });
        };
        let out_of_memory = match self.container.oom_kills() > oom_before {
            true => " (out of memory)",
            false => "",
        };
        let code = status.code();
        let oom_text = if code == 0 { "" } else { out_of_memory };
        let late = match stop {
            Stop::Killed => " (exceeded 10s graceful shutdown interval)",
            Stop::Not | Stop::Asked => "",
        };
        if told == Told::Always || code != 0 {
            sink.say(false, format!("Exit status {code}{late}{oom_text}"));
        }
        // What has been told is of no more use to pid 1.
        let _ = self.container.forget(&process.id).await;
        match (stop, status) {
            (Stop::Killed, _) => Err(StepError::GraceExceeded),
            (Stop::Asked, _) => Err(StepError::Cancelled),
            (Stop::Not, ExitStatus::Exited(0)) => Ok(()),
            (Stop::Not, _) => {
                Err(StepError::Failed(format!("{source}: Exited with status {code}{oom_text}")))
            }
        }
    }

    /// The sink for another source.
    pub fn sink(&self, source: &str) -> Sink {
        Sink { source: source.to_owned(), ..self.sink.clone() }
    }

    /// A fresh process name.
    pub fn new_id(&self) -> String {
        format!("p{}", self.last_id.fetch_add(1, Ordering::Relaxed) + 1)
    }

    /// Waits for the end; on cancel TERM, then KILL. `None`: it cannot be known.
    async fn wait(&self, process: &Process, cancel: &Cancel) -> (Option<ExitStatus>, Stop) {
        let ended = async { process.wait().await.ok() };
        if let Some(end) = cancel.or(ended).await {
            return (end, Stop::Not);
        }
        let _ = process.signal(TERM).await;
        if let Some(end) = within(GRACE, process).await {
            return (end, Stop::Asked);
        }
        let _ = process.signal(KILL).await;
        (within(DEATH_MAX, process).await.flatten(), Stop::Killed)
    }
}

/// When the exit status of a process is a line of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    Always,
    Failure,
}

/// How a process was made to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stop {
    Not,
    Asked,
    Killed,
}

/// The end of a process if it comes in time.
async fn within(limit: Duration, process: &Process) -> Option<Option<ExitStatus>> {
    future::or(async { Some(process.wait().await.ok()) }, async {
        async_io::Timer::after(limit).await;
        None
    })
    .await
}
