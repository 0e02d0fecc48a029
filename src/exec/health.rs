//! Health checks in their phases: until the first success, until a failure, and readiness, which
//! comes and goes. One try is [`super::probe`]'s, what it comes to [`super::tries`]'s.

use super::assembly::{Tell, Told};
use super::cancel::{self, Cancel};
use super::probe::Trial;
use super::run::Executor;
use super::steps::{StepError, StepResult, join_all};
use super::streams::Sink;
use super::tries::{self, InARow, Said, Startup};
use super::turns::Pool;
use crate::model::manifest::{Check, Health};
use crate::model::process::ProcessSpec;
use crate::model::work::Work;
use crate::unit::span;
use smol::future::{self, FutureExt};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What to probe, and who to tell.
pub struct Monitor<'a> {
    /// The container.
    pub exec: &'a Executor,
    /// The container's address.
    pub address: Ipv4Addr,
    /// What the instance does.
    pub work: &'a Work,
    /// What is tried, and when.
    pub health: &'a Health,
    /// When connections are led to it; `None`: while it runs.
    pub readiness: Option<&'a Health>,
    /// Source `HEALTH` of the instance.
    pub sink: Sink,
    /// Bounds how many are tried at a time.
    pub pool: Arc<Pool>,
    /// The same for those that run a program.
    pub programs: Arc<Pool>,
}

/// What became of a round of tries.
struct Round {
    /// What those say that have failed.
    why: String,
    /// How long the last of them waited for its turn.
    waited: Duration,
}

impl<'a> Monitor<'a> {
    /// Everything that is tried. An older monitor counts only where there is no check.
    fn trials(&self) -> Vec<Trial<'a>> {
        let probes = of(self.health, 0);
        match &self.work.monitor {
            Some(action) if probes.is_empty() => vec![Trial::Action(action)],
            _ => probes,
        }
    }

    /// Tries until everything has passed once. Fails when a try fails after the start timeout has
    /// passed.
    pub async fn startup(&self, cancel: &Cancel) -> StepResult {
        let mut left = self.trials();
        if left.is_empty() {
            return Ok(());
        }
        self.cell().say(false, "Starting health monitoring of container");
        let (begin, mut waited) = (Instant::now(), Duration::ZERO);
        loop {
            if !cancel.sleep(self.health.interval_unhealthy).await {
                return Err(StepError::Cancelled);
            }
            let Some(Round { why, waited: for_turns }) = self.round(&mut left, cancel).await else {
                return Err(StepError::Cancelled);
            };
            // That others are tried before it is not the app's fault.
            waited += for_turns;
            let limit = self.health.start_timeout;
            match tries::startup(left.is_empty(), begin.elapsed().saturating_sub(waited), limit) {
                Startup::Healthy => {
                    self.cell().say(false, "Container became healthy");
                    return Ok(());
                }
                Startup::Again => {}
                Startup::TooLate => {
                    self.sink.say(true, why.clone());
                    let after = span::show_go(limit);
                    let text = format!("Failed after {after}: startup health check never passed.");
                    self.cell().say(true, text);
                    return Err(StepError::never_healthy(limit, &why));
                }
            }
        }
    }

    /// Tries all at once and keeps those that fail. `None`: cancelled.
    async fn round(&self, left: &mut Vec<Trial<'a>>, cancel: &Cancel) -> Option<Round> {
        let tried = left.iter().map(|trial| Box::pin(self.attempt(trial, cancel)));
        let results = join_all(tried.collect()).await;
        if cancel.is_cancelled() {
            return None;
        }
        let waited = results.iter().map(|tried| tried.waited).max().unwrap_or_default();
        let mut whys = Vec::new();
        let mut results = results.into_iter();
        left.retain(|_| match results.next().map(|tried| tried.outcome) {
            Some(Err(why)) => {
                whys.push(why);
                true
            }
            _ => false,
        });
        Some(Round { why: whys.join("; "), waited })
    }

    /// Tries until one of them has failed as often in a row as it may.
    pub async fn liveness(&self, cancel: &Cancel) -> StepError {
        let all = self.trials();
        let failed = self.first_failure(&all, self.health, cancel).await;
        let Some(why) = failed else { return StepError::Cancelled };
        self.sink.say(true, why.clone());
        self.cell().say(true, "Container became unhealthy");
        StepError::unhealthy(&why)
    }

    /// Every check at its own pace; the text of the first that has failed. `None`: cancelled. None of
    /// them is under way any more then.
    async fn first_failure(
        &self,
        all: &[Trial<'a>],
        health: &Health,
        cancel: &Cancel,
    ) -> Option<String> {
        if all.is_empty() {
            cancel.cancelled().await;
            return None;
        }
        let (stop, inner) = cancel::pair();
        let (stop, inner) = (&stop, &inner);
        let watches = all.iter().map(|trial| {
            Box::pin(async move {
                let why = match trial {
                    Trial::Probe(probe, _) if probe.check == Check::Watchdog => {
                        self.watchdog(probe.interval, health.failures, inner).await
                    }
                    _ => self.until_failure(trial, health, inner).await,
                };
                stop.cancel();
                why
            })
        });
        let forward = async {
            cancel.cancelled().await;
            stop.cancel();
            future::pending().await
        };
        let whys = join_all(watches.collect()).or(forward).await;
        whys.into_iter().flatten().next()
    }

    async fn until_failure(
        &self,
        trial: &Trial<'a>,
        health: &Health,
        cancel: &Cancel,
    ) -> Option<String> {
        let interval = match trial {
            Trial::Probe(probe, _) => probe.interval,
            Trial::Action(_) => health.interval_healthy,
        };
        let mut failures = InARow::new(health.failures);
        loop {
            if !cancel.sleep(interval).await {
                return None;
            }
            let tried = self.attempt(trial, cancel).await;
            if cancel.is_cancelled() {
                return None;
            }
            if failures.is_over(tried.outcome.is_ok()) {
                return tried.outcome.err();
            }
        }
    }

    /// Waits until the app has been silent for too long.
    async fn watchdog(&self, interval: Duration, most: u32, cancel: &Cancel) -> Option<String> {
        let mut shown = String::new();
        loop {
            let said = self.said().await;
            if let Ok(Said { status, .. }) = &said
                && *status != shown
            {
                self.sink.say(false, format!("Status: {status}"));
                shown.clone_from(status);
            }
            let wait = match said {
                Ok(said) => tries::watchdog(&said, interval, most),
                // Whether pid 1 is there is for others to find out.
                Err(_) => Some(interval),
            };
            let Some(wait) = wait else {
                let silent = span::show_go(interval * most.max(1));
                let last = match shown.as_str() {
                    "" => String::new(),
                    status => format!("; its last status: {status}"),
                };
                return Some(format!("the app has not sent WATCHDOG=1 for {silent}{last}"));
            };
            if !cancel.sleep(wait).await {
                return None;
            }
        }
    }

    /// What the app has said to pid 1 of its container, which keeps it while no daemon is there.
    pub(super) async fn said(&self) -> Result<Said, String> {
        self.exec.container.notified().await.map_err(|err| crate::log::chain(&err)).map(|said| {
            Said {
                ready: said.ready,
                stopping: said.stopping,
                age: Duration::from_millis(said.age_ms),
                status: said.status,
            }
        })
    }

    /// Tells whenever the instance becomes ready for connections, or is not any more; never ends by
    /// itself. `ready`: it was, before this daemon.
    pub async fn readiness(&self, mut ready: bool, tell: Tell<'_>, cancel: &Cancel) {
        let Some(health) = self.readiness else { return cancel.cancelled().await };
        let all = of(health, READINESS);
        let cell = self.cell();
        cell.say(false, "Starting readiness health monitoring of container");
        loop {
            if !ready {
                let mut left = all.clone();
                while !left.is_empty() {
                    if !cancel.sleep(health.interval_unhealthy).await {
                        return;
                    }
                    let round = self.round(&mut left, cancel).await;
                    let Some(Round { why, .. }) = round else { return };
                    // All of them in the same round.
                    if !left.is_empty() {
                        tell(Told::Unready(why)).await;
                        left = all.clone();
                    }
                }
                cell.say(false, PASSED);
                tell(Told::Ready(true)).await;
            }
            let failed = self.first_failure(&all, health, cancel).await;
            let Some(why) = failed else { return };
            self.sink.say(true, why.clone());
            cell.say(true, FAILED);
            ready = false;
            tell(Told::Unready(why)).await;
            tell(Told::Ready(false)).await;
        }
    }

    fn cell(&self) -> Sink {
        Sink { source: "CELL".into(), ..self.sink.clone() }
    }

    /// A process of nobody in particular, for a check of an LRP that says nothing about it.
    pub(super) fn plain(&self) -> ProcessSpec {
        super::places::first_process(&self.work.action).cloned().unwrap_or_default()
    }
}

/// Numbers of readiness checks begin here: their processes have names of their own.
const READINESS: usize = 100;

const PASSED: &str = "Container passed the readiness health check. Container marked ready and added \
                      to route pool.";

const FAILED: &str = "Container failed the readiness health check. Container marked not ready and \
                      removed from route pool.";

fn of<'a>(health: &Health, first: usize) -> Vec<Trial<'a>> {
    let number = |(index, probe)| Trial::Probe(probe, first + index);
    health.probes().into_iter().enumerate().map(number).collect()
}
