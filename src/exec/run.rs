//! Walks an action tree inside one container.

use super::cancel::{self, Cancel};
use super::copy;
use super::limit::Limit;
use super::streams::{Sink, log_lines};
use crate::container::{Container, Process, ProcessError};
use crate::model::action::{Action, RunAction};
use crate::model::process::{ExitStatus, ProcessSpec};
use crate::sys::signal::{KILL, TERM};
use crate::unit::span;
use smol::future::{self, FutureExt};
use std::fmt;
use std::pin::Pin;
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
    /// How much of its processes' output is logged.
    pub limit: Limit,
    /// Appended to the environment of every process.
    pub env: Vec<(String, String)>,
    /// Numbers the processes.
    pub last_id: AtomicU32,
}

/// Why a step failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StepError {
    /// It was asked to stop, and did.
    Cancelled,
    /// It was asked to stop and had to be killed.
    GraceExceeded,
    /// It does not even die of KILL.
    NotDead,
    /// It took too long; with the child's own text.
    Timeout(Duration, String),
    /// For the user: the text says it all.
    Failed(String),
    /// Some of several failed; empty texts are left out.
    Several(Vec<StepError>),
}

impl fmt::Display for StepError {
    /// Diego's texts; the internal ones of a combination are left out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StepError::Cancelled => f.write_str("cancelled"),
            StepError::GraceExceeded => f.write_str("exceeded graceful shutdown interval"),
            StepError::NotDead => f.write_str("process did not exit"),
            StepError::Timeout(limit, child) => {
                write!(f, "exceeded {} timeout", span::show_go(*limit))?;
                if child.is_empty() { Ok(()) } else { write!(f, "; {child}") }
            }
            StepError::Failed(text) => f.write_str(text),
            StepError::Several(errors) => {
                let texts = errors.iter().map(StepError::emittable).filter(|text| !text.is_empty());
                f.write_str(&texts.collect::<Vec<_>>().join("; "))
            }
        }
    }
}

impl StepError {
    /// The text for the user; empty for what only the executor needs to know.
    fn emittable(&self) -> String {
        match self {
            StepError::Cancelled | StepError::GraceExceeded => String::new(),
            other => other.to_string(),
        }
    }
}

/// A step's end.
pub type StepResult = Result<(), StepError>;

impl Executor {
    /// Does `action`; stops it, within [`GRACE`] and a second, when `cancel` says so.
    pub fn perform<'a>(
        &'a self,
        action: &'a Action,
        cancel: &'a Cancel,
    ) -> Pin<Box<dyn Future<Output = StepResult> + Send + 'a>> {
        Box::pin(async move {
            if cancel.is_cancelled() {
                return Err(StepError::Cancelled);
            }
            match action {
                Action::Run(run) => self.run(run, cancel).await,
                Action::CopyIn(copy) => copy::copy_in(self, copy, cancel).await,
                Action::CopyOut(copy) => copy::copy_out(self, copy, cancel).await,
                Action::Timeout { action, timeout } => self.timeout(action, *timeout, cancel).await,
                Action::Serial(actions) => {
                    for action in actions {
                        self.perform(action, cancel).await?;
                    }
                    Ok(())
                }
                Action::Codependent(actions) => self.codependent(actions, cancel).await,
            }
        })
    }

    /// Runs one process to its end.
    pub async fn run(&self, run: &RunAction, cancel: &Cancel) -> StepResult {
        let started = self.start(run.process.clone(), &run.log_source).await;
        match started {
            Ok(process) => self.see_through(process, None, &run.log_source, cancel).await,
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
        mut process: Process,
        ended: Option<ExitStatus>,
        source: &str,
        cancel: &Cancel,
    ) -> StepResult {
        let sink = self.sink(source);
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
        sink.say(false, format!("Exit status {code}{late}{oom_text}"));
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

    async fn timeout(&self, action: &Action, limit: Duration, cancel: &Cancel) -> StepResult {
        let (stop, inner) = cancel::pair();
        let watch = async {
            let late = cancel.sleep(limit).await;
            stop.cancel();
            late
        };
        let work = self.perform(action, &inner);
        // The child is awaited after it was told to stop, so a run may take 11 s longer.
        let mut work = std::pin::pin!(work);
        let first = future::or(async { Err(work.as_mut().await) }, async { Ok(watch.await) }).await;
        match first {
            Err(result) => result,
            Ok(false) => work.await,
            Ok(true) => {
                let child = work.await.err().map(|err| err.emittable()).unwrap_or_default();
                Err(StepError::Timeout(limit, child))
            }
        }
    }

    async fn codependent(&self, actions: &[Action], cancel: &Cancel) -> StepResult {
        let (stop, inner) = cancel::pair();
        let (stop, inner) = (&stop, &inner);
        let forward = async {
            cancel.cancelled().await;
            stop.cancel();
            future::pending::<()>().await;
        };
        let work = actions.iter().map(|action| async move {
            let result = self.perform(action, inner).await;
            let first = !inner.is_cancelled();
            stop.cancel();
            match result {
                Ok(()) if first => Some(StepError::Failed("Codependent step exited".to_owned())),
                Ok(()) => None,
                Err(err) => Some(err),
            }
        });
        let all = join_all(work.collect());
        let errors = all
            .or(async {
                forward.await;
                unreachable!("forward never ends")
            })
            .await;
        Err(StepError::Several(errors.into_iter().flatten().collect()))
    }
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

/// All results, in order. The lists are as long as an action has children: a handful.
async fn join_all<T, F: Future<Output = T> + Send>(work: Vec<F>) -> Vec<T> {
    let mut work: Vec<_> = work.into_iter().map(|future| (Box::pin(future), None)).collect();
    future::poll_fn(|context| {
        let mut pending = false;
        for (future, result) in &mut work {
            if result.is_none() {
                match future.as_mut().poll(context) {
                    std::task::Poll::Ready(value) => *result = Some(value),
                    std::task::Poll::Pending => pending = true,
                }
            }
        }
        if pending { std::task::Poll::Pending } else { std::task::Poll::Ready(()) }
    })
    .await;
    work.into_iter().map(|(_, result)| result.expect("all are ready")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn combined_errors_leave_out_what_only_the_executor_needs() {
        let several = StepError::Several(vec![
            StepError::Failed("APP: Exited with status 1".into()),
            StepError::Cancelled,
            StepError::GraceExceeded,
            StepError::Failed("Instance became unhealthy: x".into()),
        ]);
        assert_eq!(several.to_string(), "APP: Exited with status 1; Instance became unhealthy: x");
        let late = StepError::Timeout(Duration::from_secs(900), String::new());
        assert_eq!(late.to_string(), "exceeded 15m0s timeout");
    }
}
