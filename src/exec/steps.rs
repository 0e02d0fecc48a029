//! Walks an action tree: what actions do with other actions.

use super::cancel::{self, Cancel};
use super::metrics::{self, COUNTERS};
use super::run::Executor;
use super::streams::Sink;
use super::transfer;
use super::{copy, places};
use crate::model::action::Action;
use crate::model::death::Cause;
use crate::unit::span;
use smol::future::{self, FutureExt};
use std::fmt;
use std::pin::Pin;
use std::time::Duration;

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
    /// A process or a health check has ended it, and it is known how; its text is Diego's.
    Died(Box<Cause>),
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
            StepError::Died(cause) => f.write_str(&cause.text()),
            StepError::Several(errors) => {
                let texts = errors.iter().map(StepError::emittable).filter(|text| !text.is_empty());
                f.write_str(&texts.collect::<Vec<_>>().join("; "))
            }
        }
    }
}

impl StepError {
    /// It has ended like this.
    pub fn died(cause: Cause) -> StepError {
        StepError::Died(Box::new(cause))
    }

    /// The health check has not passed within `limit`; `output`: what the last probe said.
    pub fn never_healthy(limit: Duration, output: &str) -> StepError {
        metrics::count(&COUNTERS.checks_failed);
        let after_ms = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
        StepError::died(Cause::NeverHealthy { after_ms, output: output.to_owned() })
    }

    /// The health check has failed after it had passed; `output`: what the probe said.
    pub fn unhealthy(output: &str) -> StepError {
        metrics::count(&COUNTERS.checks_failed);
        StepError::died(Cause::Unhealthy { output: output.to_owned() })
    }

    /// The same end with its causes changed.
    pub fn map_cause(self, change: &mut dyn FnMut(Cause) -> Cause) -> StepError {
        match self {
            StepError::Died(cause) => StepError::died(change(*cause)),
            StepError::Several(all) => {
                StepError::Several(all.into_iter().map(|one| one.map_cause(change)).collect())
            }
            other => other,
        }
    }

    /// What it comes to: of several ends, the first that says more than its text.
    pub fn cause(&self) -> Cause {
        match self {
            StepError::Died(cause) => cause.as_ref().clone(),
            StepError::Several(errors) => {
                let known = errors.iter().map(StepError::cause);
                let mut known = known.filter(|cause| !matches!(cause, Cause::Failed { .. }));
                known.next().unwrap_or_else(|| Cause::Failed { text: self.to_string() })
            }
            other => Cause::Failed { text: other.to_string() },
        }
    }

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

/// A step under way.
type Step<'a> = Pin<Box<dyn Future<Output = StepResult> + Send + 'a>>;

impl Executor {
    /// Does `action`; stops it, within its [`Stop`](crate::model::work::Stop) and a second, when `cancel` says so.
    pub fn perform<'a>(&'a self, action: &'a Action, cancel: &'a Cancel) -> Step<'a> {
        self.step(action, &self.sink, cancel)
    }

    /// The same for part of a tree; `sink` is for those that name no log source.
    pub(super) fn step<'a>(
        &'a self,
        action: &'a Action,
        sink: &'a Sink,
        cancel: &'a Cancel,
    ) -> Step<'a> {
        Box::pin(async move {
            if cancel.is_cancelled() {
                return Err(StepError::Cancelled);
            }
            match action {
                Action::Run(run) => self.run_to(run, &sink.or(&run.log_source), cancel).await,
                Action::CopyIn(copy) => copy::copy_in(self, copy, cancel).await,
                Action::CopyOut(copy) => copy::copy_out(self, copy, cancel).await,
                Action::Download(download) => {
                    let sink = sink.or(&download.log_source);
                    transfer::download(self, download, &sink, cancel).await
                }
                Action::Upload(upload) => {
                    let sink = sink.or(&upload.log_source);
                    transfer::upload(self, upload, &sink, cancel).await
                }
                Action::Timeout { action, timeout } => {
                    self.timeout(action, *timeout, sink, cancel).await
                }
                Action::Serial(actions) => {
                    // What was done before a restart of the daemon is not done again.
                    let done = places::resume_at(actions, &|id| self.found.has(id)).unwrap_or(0);
                    for action in &actions[done..] {
                        self.step(action, sink, cancel).await?;
                    }
                    Ok(())
                }
                Action::Parallel(actions) => self.parallel(actions, sink, cancel).await,
                Action::Codependent(actions) => self.codependent(actions, sink, cancel).await,
                Action::Try(action) => {
                    if let Err(err) = self.step(action, sink, cancel).await {
                        crate::info!("step.tried", source = sink.source, err = err);
                    }
                    Ok(())
                }
                Action::EmitProgress { .. } => self.emit_progress(action, sink, cancel).await,
                Action::LogSource { source, action } => {
                    self.step(action, &sink.or(source), cancel).await
                }
            }
        })
    }

    async fn timeout(
        &self,
        action: &Action,
        limit: Duration,
        sink: &Sink,
        cancel: &Cancel,
    ) -> StepResult {
        let (stop, inner) = cancel::pair();
        let watch = async {
            let late = cancel.sleep(limit).await;
            stop.cancel();
            late
        };
        // The child is awaited after it was told to stop, so a run may take 11 s longer.
        let mut work = self.step(action, sink, &inner);
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

    async fn parallel(&self, actions: &[Action], sink: &Sink, cancel: &Cancel) -> StepResult {
        let work = actions.iter().map(|action| self.step(action, sink, cancel));
        let errors: Vec<_> =
            join_all(work.collect()).await.into_iter().filter_map(Result::err).collect();
        if errors.is_empty() { Ok(()) } else { Err(StepError::Several(errors)) }
    }

    async fn codependent(&self, actions: &[Action], sink: &Sink, cancel: &Cancel) -> StepResult {
        let (stop, inner) = cancel::pair();
        let (stop, inner) = (&stop, &inner);
        let forward = async {
            cancel.cancelled().await;
            stop.cancel();
            future::pending().await
        };
        let work = actions.iter().map(|action| async move {
            let result = self.step(action, sink, inner).await;
            let first = !inner.is_cancelled();
            stop.cancel();
            match result {
                Ok(()) if first => Some(StepError::Failed("Codependent step exited".to_owned())),
                Ok(()) => None,
                Err(err) => Some(err),
            }
        });
        let errors = join_all(work.map(Box::pin).collect()).or(forward).await;
        Err(StepError::Several(errors.into_iter().flatten().collect()))
    }

    /// Does an [`Action::EmitProgress`].
    async fn emit_progress(&self, action: &Action, sink: &Sink, cancel: &Cancel) -> StepResult {
        let Action::EmitProgress { action, start_message, success_message, failure_message_prefix } =
            action
        else {
            return Ok(());
        };
        let say = |err: bool, text: &str| {
            if !text.is_empty() {
                sink.say(err, text);
            }
        };
        say(false, start_message);
        let result = self.step(action, sink, cancel).await;
        match &result {
            Ok(()) => say(false, success_message),
            // An empty message is none, whatever would follow it.
            Err(_) if failure_message_prefix.is_empty() => {}
            Err(err) => match err.emittable().as_str() {
                "" => say(true, failure_message_prefix),
                text => say(true, &format!("{failure_message_prefix}: {text}")),
            },
        }
        result
    }
}

/// All results, in order. The lists are as long as an action has children.
pub async fn join_all<T, F: Future<Output = T> + Send + Unpin>(work: Vec<F>) -> Vec<T> {
    let mut work: Vec<_> = work.into_iter().map(|future| (future, None)).collect();
    future::poll_fn(|context| {
        let mut pending = false;
        for (future, result) in &mut work {
            if result.is_none() {
                match Pin::new(future).poll(context) {
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

    #[test]
    fn of_several_ends_the_one_that_is_known_is_the_cause() {
        let text = |text: &str| StepError::Failed(text.into());
        let unhealthy = StepError::unhealthy("connection refused");
        let all = vec![StepError::Cancelled, text("Codependent step exited"), unhealthy.clone()];
        assert_eq!(StepError::Several(all).cause(), unhealthy.cause());
        let unknown = StepError::Several(vec![text("a"), StepError::GraceExceeded, text("b")]);
        assert_eq!(unknown.cause(), Cause::Failed { text: "a; b".into() });
        let late = StepError::never_healthy(Duration::from_secs(60), "x");
        assert_eq!(late.to_string(), "Instance never healthy after 1m0s: x");
    }
}
