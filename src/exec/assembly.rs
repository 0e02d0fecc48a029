//! Puts the actions of an LRP instance together, as Diego's executor does, and sees them through.
//!
//! ```text
//! serial[ setup?, long-lived ]
//! long-lived = action, sidecars.., health check, readiness check: all at once
//! ```
//!
//! An error of any of them ends all. With sidecars any end does. With a health check, exit status 0
//! of the action does not: the program may have put itself into the background, and the check
//! decides. [`super::ending`] knows that.

use super::cancel::{self, Cancel};
use super::ending::{Part, Rule, outcome};
use super::health::Monitor;
use super::metrics::COUNTERS;
use super::places;
use super::run::Executor;
use super::steps::{StepError, StepResult, join_all};
use crate::model::work::{Sidecar, Work};
use smol::future::{self, FutureExt};
use std::pin::Pin;
use std::time::Instant;

/// What becomes of an instance while it lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// It has begun, and has passed its health check if it has one.
    Healthy,
    /// Its readiness check leads connections to it, or does not any more.
    Ready(bool),
    /// Why not, whenever that is known anew.
    Unready(String),
}

/// Who is told. The instance goes on when the answer is there.
pub type Tell<'a> =
    &'a (dyn Fn(Told) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>> + Send + Sync);

/// How an instance begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begin {
    /// From the start.
    Fresh,
    /// Its processes run already, or have ended meanwhile: they are in [`Executor::found`].
    Adopted {
        /// It was recorded as healthy before.
        healthy: bool,
        /// It was recorded as ready before.
        ready: bool,
        /// It is of an older version: it gets nothing that it did not have.
        outdated: bool,
    },
}

type Running<'a> = Pin<Box<dyn Future<Output = (Part, StepResult)> + Send + 'a>>;

/// Runs until it has ended, its health check fails or `cancel` says so; then all of its processes
/// have ended. The work has the names of [`places::named`].
pub async fn keep(
    exec: &Executor,
    monitor: &Monitor<'_>,
    begin: Begin,
    tell: Tell<'_>,
    cancel: &Cancel,
) -> StepResult {
    if let (Begin::Fresh, Some(setup)) = (begin, &monitor.work.setup) {
        let begun = Instant::now();
        let done = exec.perform(setup, cancel).await;
        COUNTERS.setups.add(begun, done.is_ok());
        done?;
    }
    let (healthy, ready) = match begin {
        Begin::Fresh => (false, false),
        Begin::Adopted { healthy, ready, .. } => (healthy, ready),
    };
    let work = monitor.work;
    let begun = exec.begun.all_of(places::awaited(&work.action));
    let (stop, inner) = cancel::pair();
    let (inner, stop) = (&inner, &stop);
    let health = async move {
        // What was healthy before is so since then.
        if !healthy {
            if inner.or(begun.cancelled()).await.is_none() {
                return Err(StepError::Cancelled);
            }
            monitor.startup(inner).await?;
            tell(Told::Healthy).await;
        }
        Err(monitor.liveness(inner).await)
    };
    let readiness = async move {
        monitor.readiness(ready, tell, inner).await;
        Err(StepError::Cancelled)
    };
    let mut parts: Vec<Running<'_>> = vec![
        Box::pin(async move { (Part::Action, exec.perform(&work.action, inner).await) }),
        Box::pin(async move { (Part::Health, health.await) }),
        Box::pin(async move { (Part::Readiness, readiness.await) }),
    ];
    let outdated = matches!(begin, Begin::Adopted { outdated: true, .. });
    let had = |id: &String| exec.found.has(id);
    let is_meant = |sidecar: &&Sidecar| !outdated || places::runs(&sidecar.action).iter().any(had);
    for sidecar in work.sidecars.iter().filter(is_meant) {
        let done = exec.perform(&sidecar.action, inner);
        parts.push(Box::pin(async move { (Part::Sidecar, done.await) }));
    }
    let rule = Rule::of(work, monitor.health);
    let parts = parts.into_iter().map(|part| {
        let all_end = async move {
            let (part, result) = part.await;
            let (result, all) = rule.ended(part, result, inner.is_cancelled());
            if all {
                stop.cancel();
            }
            result
        };
        Box::pin(all_end) as Pin<Box<dyn Future<Output = StepResult> + Send + '_>>
    });
    let forward = async {
        cancel.cancelled().await;
        stop.cancel();
        future::pending().await
    };
    let results = join_all(parts.collect()).or(forward).await;
    outcome(results, cancel.is_cancelled())
}

/// The processes of a container that an instance of this work goes on with, of those that are known
/// there. `None`: it has to be made anew.
pub fn resume(work: &Work, known: &[String]) -> Option<Vec<String>> {
    let is_known = |id: &str| known.iter().any(|it| it == id);
    if !places::resumes(&work.action, &is_known) {
        return None;
    }
    Some(places::long_lived(work).into_iter().filter(|id| is_known(id)).collect())
}
