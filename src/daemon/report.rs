//! What somebody is told who waits for an app: lines and states, what it is held up by, and the last word.

use crate::api::apps::{ApplyEvent, ErrorKind, ServiceError};
use crate::cell::Cell;
use crate::cell::waits::{Held, Seen};
use crate::model::view::{AppView, InstanceView, LogLine, ROLLED_BACK};
use crate::unit::AppName;
use smol::channel::{Receiver, Sender};
use smol::future;
use std::time::Duration;

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
    /// What he has declared, or whatever counted when he came.
    pub declaration: Option<u64>,
}

/// What was told last, and since when he who waits sees what holds the app up.
#[derive(Default)]
struct Told {
    state: String,
    waits: String,
    seen: Seen,
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
                if self.is_bounded && !is_staging(&view) {
                    held = self.cell.held_up(&self.name, &mut told.seen);
                }
                // After the look: what it saw may be the other's.
                match self.is_overtaken() {
                    true => Some(overtaken(&view.name)),
                    false => last_word(view, held.as_ref()),
                }
            }
        };
        // What was logged before the last word is told before it. No more: an app may print faster
        // than anybody reads.
        for _ in 0..self.lines.len() {
            let Ok(line) = self.lines.try_recv() else { break };
            self.send(ApplyEvent::Log(line)).await?;
        }
        if let Some(what) = to_tell(held.as_ref(), &told.waits, last.as_ref()) {
            told.waits = what.to_owned();
            self.send(ApplyEvent::Waits(what.to_owned())).await?;
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
        self.wait(held.map(|held| held.left)).await
    }

    /// Somebody has declared something else meanwhile: whatever becomes of the app is not what is waited for.
    /// Who stays as long as the app does not wait for a declaration.
    fn is_overtaken(&self) -> bool {
        self.is_bounded && self.cell.declaration(&self.name) != self.declaration
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

/// It has no instances of what is declared now, which would tell how long it may take. A staging ends by
/// itself.
fn is_staging(view: &AppView) -> bool {
    view.state == "staging"
}

/// What is waited for, if that is to be told: whenever it is something else, and before a last word of
/// failure once, however late somebody comes to look.
fn to_tell<'a>(held: Option<&'a Held>, told: &str, last: Option<&ApplyEvent>) -> Option<&'a str> {
    let what = held.and_then(|held| held.delay.what.as_deref());
    what.filter(|what| match last {
        None => *what != told,
        Some(ApplyEvent::Done(_)) => false,
        Some(_) => told.is_empty(),
    })
}

fn overtaken(name: &AppName) -> ApplyEvent {
    let why = format!(
        "app {name} was declared anew before this was done, which has the last word now; `terrarium app \
         {name}` tells what runs"
    );
    error(ErrorKind::Conflict, why)
}

/// The last word about an app that is `held` up, or not, if it has been spoken.
fn last_word(view: AppView, held: Option<&Held>) -> Option<ApplyEvent> {
    let name = view.name.clone();
    match (outcome(view), held) {
        (last @ Some(ApplyEvent::Error(_)), _) | (last, None) => last,
        (last @ Some(_), Some(held)) if !held.is_missing => last,
        (_, Some(held)) if held.left.is_zero() => {
            Some(error(ErrorKind::NotRunning, format!("app {name} {}", held.delay.why)))
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
    use crate::cell::waits::Delay;

    fn held(left: Duration) -> Held {
        let (what, why) = ("until it is ready".into(), "runs and is not ready: no flag".into());
        let delay = Delay { what: Some(what), why, until_ms: 0 };
        Held { delay, left, is_missing: true }
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

    /// The end of every wait is none of what runs as it shall.
    #[test]
    fn the_net_ends_what_has_no_other_end() {
        let net = |left| Held { is_missing: false, ..held(left) };
        for left in [Duration::ZERO, Duration::from_secs(1)] {
            let last = last_word(view("web", "running"), Some(&net(left)));
            assert!(matches!(last, Some(ApplyEvent::Done(_))), "{left:?}");
        }
        for state in ["starting", "stopping"] {
            assert_eq!(last_word(view("web", state), Some(&net(Duration::from_secs(1)))), None);
            let last = last_word(view("web", state), Some(&net(Duration::ZERO)));
            assert!(matches!(last, Some(ApplyEvent::Error(_))), "{state}");
        }
    }

    /// A version that is being staged says nothing of the instances of the one before.
    #[test]
    fn only_what_is_staged_tells_how_long_it_may_take() {
        for (state, is) in [("starting", false), ("stopping", false), ("staging", true)] {
            assert_eq!(is_staging(&view("web", state)), is, "{state}");
        }
    }

    /// Who looks late, as on a busy box, finds the time over that he was to be told of.
    #[test]
    fn what_was_waited_for_is_told_before_the_word_that_ends_it() {
        let held = held(Duration::ZERO);
        let failed = error(ErrorKind::NotRunning, "app web runs and is not ready".into());
        let done = ApplyEvent::Done(view("web", "running").into());
        let what = Some("until it is ready");
        for (told, last, tells) in [
            ("", None, what),
            ("until it is ready", None, None),
            ("until it is healthy", None, what),
            ("", Some(&failed), what),
            ("until it is ready", Some(&failed), None),
            ("", Some(&done), None),
        ] {
            assert_eq!(to_tell(Some(&held), told, last), tells, "{told:?} {last:?}");
        }
        assert_eq!(to_tell(None, "", Some(&failed)), None);
    }
}
