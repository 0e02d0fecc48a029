//! What somebody is told who waits for an app: lines and states, what it is held up by, and the last word.

use crate::api::apps::{ApplyEvent, ErrorKind, ServiceError};
use crate::cell::Cell;
use crate::cell::waits::Delay;
use crate::model::view::{AppView, InstanceView, LogLine, ROLLED_BACK};
use crate::unit::AppName;
use smol::channel::{Receiver, Sender};
use smol::future;
use std::time::Duration;

/// What holds an app up, and for how long it is still waited for.
type Held = (Delay, Duration);

/// Somebody waits for this app.
pub(super) struct Report {
    pub cell: Cell,
    pub name: AppName,
    /// What its log gets.
    pub lines: Receiver<LogLine>,
    /// Hears of every change.
    pub changes: Receiver<()>,
    /// What is told goes here.
    pub sender: Sender<ApplyEvent>,
    /// He leaves when that takes longer than the app says, and not before all that runs is ready. Who does
    /// not, stays as long as the app.
    pub is_bounded: bool,
}

/// What was told last, and since when the app is seen to be held up.
#[derive(Default)]
struct Told {
    state: String,
    waits: String,
    since_ms: Option<u64>,
}

impl Report {
    /// Tells what happens to the app until it runs or has failed. A client that left ends it.
    pub async fn tell(self) {
        let mut told = Told::default();
        while self.look(&mut told).await.is_some() {}
    }

    /// Looks once, tells what is new, and waits until there is something to look at again. `None`: the last
    /// word was told, or nobody listens.
    async fn look(&self, told: &mut Told) -> Option<()> {
        let mut held = None;
        let last = match self.cell.glance(self.name.as_str()) {
            Err(err) => Some(ApplyEvent::Error(ServiceError::from(err).view())),
            Ok(view) => {
                if view.state != told.state {
                    told.state.clone_from(&view.state);
                    self.send(ApplyEvent::State(view.state.clone())).await?;
                }
                if self.is_bounded && is_begun(&view) {
                    held = self.cell.held_up(&self.name, &mut told.since_ms);
                }
                last_word(view, held.as_ref())
            }
        };
        // What was logged before the last word is told before it. No more: an app may print faster
        // than anybody reads.
        for _ in 0..self.lines.len() {
            let Ok(line) = self.lines.try_recv() else { break };
            self.send(ApplyEvent::Log(line)).await?;
        }
        if let Some(mut last) = last {
            if let (ApplyEvent::Done(view), Ok(whole)) =
                (&mut last, self.cell.app(self.name.as_str()).await)
            {
                **view = whole;
            }
            self.send(last).await?;
            return None;
        }
        if let Some((delay, _)) = held.as_ref().filter(|(delay, _)| delay.what != told.waits) {
            told.waits.clone_from(&delay.what);
            self.send(ApplyEvent::Waits(delay.what.clone())).await?;
        }
        self.wait(held.map(|(_, left)| left)).await
    }

    /// Until something changes, or that time is over; lines are told as they come. `None`: nobody to tell, as
    /// the client has left, the app is gone or the daemon ends.
    async fn wait(&self, left: Option<Duration>) -> Option<()> {
        let line = async { self.lines.recv().await.map(Some) };
        let change = async { self.changes.recv().await.map(|()| None) };
        let over = async {
            match left {
                Some(left) => drop(async_io::Timer::after(left).await),
                None => future::pending().await,
            }
            Ok(None)
        };
        match future::or(future::or(line, change), over).await {
            Ok(Some(line)) => self.send(ApplyEvent::Log(line)).await,
            Ok(None) => (!self.sender.is_closed()).then_some(()),
            Err(_) => None,
        }
    }

    async fn send(&self, event: ApplyEvent) -> Option<()> {
        self.sender.send(event).await.ok()
    }
}

/// What is declared is what its instances are made of, and some of them have begun: only then they tell
/// how long it may take.
fn is_begun(view: &AppView) -> bool {
    matches!(view.state.as_str(), "starting" | "waiting" | "running")
}

/// The last word about an app that is `held` up, or not, if it has been spoken.
fn last_word(view: AppView, held: Option<&Held>) -> Option<ApplyEvent> {
    let name = view.name.clone();
    match (outcome(view), held) {
        (last @ Some(ApplyEvent::Error(_)), _) | (last, None) => last,
        (_, Some((delay, left))) if left.is_zero() => {
            Some(error(ErrorKind::NotRunning, format!("app {name} {}", delay.why)))
        }
        (_, Some(_)) => None,
    }
}

fn error(kind: ErrorKind, text: String) -> ApplyEvent {
    ApplyEvent::Error(ServiceError::new(kind, text).view())
}

/// What its state says, wherever it is held up.
fn outcome(view: AppView) -> Option<ApplyEvent> {
    let crashed = || {
        let instances = view.processes.iter().flat_map(|process| &process.instances);
        let reasons = instances.filter(|one| one.state == "crashed");
        let reason = reasons.filter_map(|one| one.crash_reason.as_deref()).next();
        let text = reason.unwrap_or("it crashed");
        format!("app {} does not run: {text}", view.name)
    };
    let waits = || {
        let instances = view.processes.iter().flat_map(|process| &process.instances);
        let one = instances.into_iter().find(|one| one.placement_error.is_some());
        let why = one.and_then(|one| one.placement_error.as_deref()).unwrap_or("the box has none");
        if one.is_some_and(InstanceView::waits_for_app) {
            return format!("app {} waits and starts by itself then: it {why}", view.name);
        }
        if one.is_some_and(InstanceView::is_too_large) {
            return format!("app {} does not fit the box and does not start: {why}", view.name);
        }
        if one.is_some_and(|one| !one.waits_for_room()) {
            return format!("app {} waits and starts by itself then: {why}", view.name);
        }
        format!("app {} waits for room and starts by itself when there is some: {why}", view.name)
    };
    let error = |kind, text| Some(error(kind, text));
    match (view.state.as_str(), &view.reason) {
        ("staging", _) => None,
        // A new version that could not be staged leaves the old one running.
        (_, Some(reason)) if reason.starts_with(ROLLED_BACK) => {
            error(ErrorKind::Failed, format!("cannot update app {}: {reason}", view.name))
        }
        (_, Some(reason)) => {
            error(ErrorKind::Failed, format!("cannot stage app {}: {reason}", view.name))
        }
        ("running" | "stopped" | "finished", None) => Some(ApplyEvent::Done(view.into())),
        // What it waits for is on its way.
        ("waiting", None) if comes(&view) => None,
        ("waiting", None) => error(ErrorKind::NotRunning, waits()),
        ("crashed", None) => error(ErrorKind::NotRunning, crashed()),
        ("deleting", None) => {
            error(ErrorKind::Conflict, format!("app {} is being deleted", view.name))
        }
        _ => None,
    }
}

/// All that waits of it waits for an app that is about to run.
fn comes(view: &AppView) -> bool {
    let instances = view.processes.iter().flat_map(|process| &process.instances);
    let mut waiting = instances.filter(|one| one.state == "waiting");
    waiting.all(InstanceView::waits_for_start)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::apps::fake::view;

    fn held(left: Duration) -> Held {
        let (what, why) = ("until it is ready".into(), "runs and is not ready: no flag".into());
        (Delay { what, why, until_ms: 0 }, left)
    }

    #[test]
    fn who_runs_and_is_not_ready_is_waited_for_and_then_told_as_such() {
        let (now, later) = (held(Duration::ZERO), held(Duration::from_secs(1)));
        let running = || view("web", "running");
        assert!(matches!(last_word(running(), None), Some(ApplyEvent::Done(_))));
        assert_eq!(last_word(running(), Some(&later)), None);
        for state in ["running", "starting"] {
            let Some(ApplyEvent::Error(said)) = last_word(view("web", state), Some(&now)) else {
                panic!("{state}: its time is over")
            };
            assert_eq!(ErrorKind::of(&said), ErrorKind::NotRunning);
            assert_eq!(said.message, "app web runs and is not ready: no flag");
        }
        // What its state says itself is said at once.
        let crashed = last_word(view("web", "crashed"), Some(&later));
        let Some(ApplyEvent::Error(said)) = crashed else { panic!("it crashed") };
        assert_eq!(said.message, "cannot stage app web: exit status 1");
    }

    /// A version that is being staged says nothing of the instances of the one before.
    #[test]
    fn only_instances_that_have_begun_tell_how_long_it_may_take() {
        for (state, begun) in
            [("starting", true), ("waiting", true), ("running", true), ("staging", false)]
        {
            assert_eq!(is_begun(&view("web", state)), begun, "{state}");
        }
    }
}
