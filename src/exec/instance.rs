//! Keeps one LRP instance: its process and its health check, side by side.

use super::cancel::{self, Cancel};
use super::health::Monitor;
use super::run::Executor;
use super::steps::{StepError, StepResult};
use crate::container::Process;
use crate::model::action::RunAction;
use crate::model::manifest::Check;
use crate::model::process::ExitStatus;
use smol::future;

/// The process that an instance is about.
pub enum First {
    /// To be started.
    Start(RunAction),
    /// It runs already: found after a restart of the daemon.
    Adopted {
        /// The process, attached.
        process: Process,
        /// Source of its output.
        log_source: String,
        /// It was recorded as healthy before.
        healthy: bool,
        /// How it has ended meanwhile, if it has.
        ended: Option<ExitStatus>,
    },
}

/// Runs until the process ends, the health check fails or `cancel` says so; then everything of
/// both has ended. Does `on_healthy` after the first success.
///
/// With a monitor, exit status 0 does not end the instance: the program may have put itself in
/// the background, and the monitor decides. That is Diego's rule.
pub async fn keep(
    exec: &Executor,
    first: First,
    monitor: Monitor<'_>,
    cancel: &Cancel,
    on_healthy: impl Future<Output = ()>,
) -> StepResult {
    let monitored = monitor.health.check != Check::Process;
    let (process, source, healthy, ended) = match first {
        First::Adopted { process, log_source, healthy, ended } => {
            (process, log_source, healthy, ended)
        }
        First::Start(run) => match exec.start(run.process.clone(), &run.log_source).await {
            Ok(process) => (process, run.log_source, false, None),
            Err(err) => return Err(StepError::Failed(err.to_string())),
        },
    };
    let (stop, inner) = cancel::pair();
    let life = async {
        let end = exec.see_through(process, ended, &exec.sink(&source), &inner).await;
        if end.is_err() || !monitored {
            stop.cancel();
        }
        end
    };
    let health = async {
        let started = async {
            // What was healthy before is so since then.
            if !healthy {
                monitor.startup(&inner).await?;
                on_healthy.await;
            }
            Ok(())
        };
        let end = match started.await {
            Ok(()) => monitor.liveness(&inner).await,
            Err(err) => err,
        };
        stop.cancel();
        end
    };
    let forward = async {
        cancel.cancelled().await;
        stop.cancel();
        future::pending().await
    };
    let (life, health) = future::or(future::zip(life, health), forward).await;
    if cancel.is_cancelled() {
        return Err(match life {
            Err(StepError::GraceExceeded) => StepError::GraceExceeded,
            _ => StepError::Cancelled,
        });
    }
    match (life, health) {
        (life, StepError::Cancelled) => life,
        (Ok(()), health) => Err(health),
        (Err(life), health) => Err(StepError::Several(vec![life, health])),
    }
}
