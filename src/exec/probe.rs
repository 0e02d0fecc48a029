//! One try of a health check. Connections are made by the daemon, to the container's own address,
//! without a process each; what runs a program runs it in the container, as the app's user.

mod net;

use super::cancel::{self, Cancel};
use super::health::Monitor;
use super::streams::{Heard, Sink};
use crate::model::action::{Action, RunAction};
use crate::model::manifest::{Check, Probe};
use crate::unit::span;
use smol::future;
use std::time::{Duration, Instant};

/// How long the program of a monitor action may take. Diego has no limit; a try that hangs is a
/// failure here.
const MONITOR_MAX: Duration = Duration::from_secs(60);

/// What is tried.
#[derive(Clone, Debug)]
pub(super) enum Trial<'a> {
    /// A check, and its number among those of the instance.
    Probe(Probe, usize),
    /// An action that succeeds.
    Action(&'a Action),
}

/// What became of a try.
pub(super) struct Tried {
    /// The texts are those of Diego's healthcheck program. `Ok` also of one that was stopped: nobody
    /// asks for its outcome any more.
    pub outcome: Result<(), String>,
    /// How long it waited for its turn.
    pub waited: Duration,
}

impl Monitor<'_> {
    /// One try. Its time begins with its turn.
    pub(super) async fn attempt(&self, trial: &Trial<'_>, cancel: &Cancel) -> Tried {
        // What runs a program may take a minute: what only asks does not wait behind it.
        let pool = match trial {
            Trial::Probe(Probe { check: Check::Process, .. }, _) => {
                return Tried { outcome: Ok(()), waited: Duration::ZERO };
            }
            Trial::Probe(Probe { check: Check::Exec { .. }, .. }, _) | Trial::Action(_) => {
                &self.programs
            }
            Trial::Probe(..) => &self.pool,
        };
        let begin = Instant::now();
        let turn = cancel.or(pool.enter()).await;
        let waited = begin.elapsed();
        let outcome = match (turn, trial) {
            (None, _) => Ok(()),
            (Some(_turn), Trial::Action(action)) => self.perform(action, MONITOR_MAX, cancel).await,
            (Some(_turn), Trial::Probe(probe, number)) => self.probe(probe, *number, cancel).await,
        };
        Tried { outcome, waited }
    }

    /// One try of a check that has its turn.
    async fn probe(&self, probe: &Probe, number: usize, cancel: &Cancel) -> Result<(), String> {
        match &probe.check {
            Check::Process => Ok(()),
            Check::Port { port } => {
                let tried = net::connect((self.address, *port), probe.timeout);
                cancel.or(tried).await.unwrap_or(Ok(()))
            }
            Check::Http { port, path } => {
                let tried = net::request((self.address, *port), path, probe.timeout);
                cancel.or(tried).await.unwrap_or(Ok(()))
            }
            Check::Exec { command } => {
                let action = self.program(command, number);
                self.perform(&action, probe.timeout, cancel).await
            }
            Check::Watchdog => match self.said().await {
                Ok(said) if said.ready => Ok(()),
                Ok(said) if said.status.is_empty() => {
                    Err("the app has not sent READY=1 yet".into())
                }
                Ok(said) => Err(format!(
                    "the app has not sent READY=1 yet; its last status: {}",
                    said.status
                )),
                Err(why) => Err(why),
            },
        }
    }

    /// The program of a check, as the app's user, in its environment and its limits.
    fn program(&self, command: &[String], number: usize) -> Action {
        let mut words = command.iter().cloned();
        let mut process = self.work.probe.clone().unwrap_or_else(|| self.plain());
        process.id = format!("check-{number}");
        process.path = words.next().unwrap_or_default();
        process.args = words.collect();
        Action::Run(RunAction { process, log_source: String::new(), suppress_log_output: false })
    }

    /// An action whose output is the text of its failure.
    async fn perform(
        &self,
        action: &Action,
        limit: Duration,
        cancel: &Cancel,
    ) -> Result<(), String> {
        let heard = Heard::default();
        let sink = Sink { log: None, heard: Some(heard.clone()), ..self.sink.clone() };
        let (stop, inner) = cancel::pair();
        let late = async {
            let late = cancel.sleep(limit).await;
            stop.cancel();
            late
        };
        let mut work = self.exec.step(action, &sink, &inner);
        let first = future::or(async { Err(work.as_mut().await) }, async { Ok(late.await) }).await;
        let done = match first {
            Err(done) => done,
            // Stopped: nobody asks for the outcome any more.
            Ok(false) => work.await.or(Ok(())),
            Ok(true) => {
                let _ = work.await;
                let text = heard.text();
                let late = format!("timed out after {}", span::show_go(limit));
                return Err(if text.is_empty() { late } else { format!("{late}: {text}") });
            }
        };
        done.map_err(|err| match heard.text() {
            text if text.is_empty() => format!("Failed to invoke process: {err}"),
            text => text,
        })
    }
}

/// The outcome if it comes in time.
async fn within<T>(limit: Duration, work: impl Future<Output = T>) -> Option<T> {
    future::or(async { Some(work.await) }, async {
        async_io::Timer::after(limit).await;
        None
    })
    .await
}
