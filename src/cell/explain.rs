//! What happened to an app last, why, what happens next and when, and what can be done.
//!
//! [`explain`] is pure: it puts together what the views and the records hold.

mod text;
mod update;

use super::crash::{self, Next};
use super::diff::Key;
use super::error::CellError;
use super::record::AppRecord;
use super::releases;
use super::shared::{Cell, now_ms};
use super::view::expect;
use crate::model::death::{Cause, Death, Stopper};
use crate::model::explain::{ExplainView, Explanation};
use crate::model::lrp::{ActualLrp, DesiredLrp, LrpState};
use crate::model::manifest::{Check, Restart};
use crate::model::view::{AppView, InstanceView, NO_ROOM_CURE, ProcessView, TOO_LARGE_CURE};
use std::collections::{BTreeMap, BTreeSet};

/// What comes next to whatever waits for that.
const DRAINED: &str = "the cell is drained; it starts again after `terrarium undrain`";

/// All that an explanation is made of.
pub struct Facts<'a> {
    /// The app's record.
    pub app: &'a AppRecord,
    /// The app as it is shown.
    pub view: &'a AppView,
    /// Its LRPs, also of an app that is stopped.
    pub lrps: &'a [DesiredLrp],
    /// Records of its instances.
    pub actual: &'a BTreeMap<Key, ActualLrp>,
    /// The cell is drained, or on its way there.
    pub drained: bool,
    /// When what could not be staged is tried again by itself, in milliseconds since 1970.
    pub again_ms: Option<u64>,
    /// Milliseconds since 1970.
    pub now_ms: u64,
}

impl Cell {
    /// What is the matter with an app, one of its processes or one instance.
    pub fn explain(
        &self,
        name: &str,
        process: Option<&str>,
        index: Option<u32>,
    ) -> Result<ExplainView, CellError> {
        let view = self.glance(name)?;
        expect(&view, process, index)?;
        let state = self.shared.state();
        let app = state.apps.get(&view.name).ok_or_else(|| CellError::no_app(name))?;
        let made = releases::made(app);
        let again_ms = match (app.away, &app.container) {
            (true, _) => Some(state.away.at_ms(&view.name).unwrap_or_else(now_ms)),
            (false, Some(_)) => state.away.at_ms(&view.name),
            (false, None) => None,
        };
        let facts = Facts {
            app,
            again_ms,
            view: &view,
            lrps: &made,
            actual: &state.actual,
            drained: state.node.drain.is_some(),
            now_ms: now_ms(),
        };
        Ok(explain(&facts, process, index))
    }
}

/// The explanation; only of this process and this instance where they are named.
pub fn explain(facts: &Facts<'_>, process: Option<&str>, index: Option<u32>) -> ExplainView {
    let view = facts.view;
    let mut parts: Vec<Explanation> = whole(facts).into_iter().chain(unfollowed(facts)).collect();
    for one in &view.processes {
        if process.is_none_or(|name| one.name == name) {
            instances(facts, one, index, &mut parts);
        }
    }
    if parts.is_empty() {
        parts.push(Explanation {
            subject: view.name.to_string(),
            state: view.state.clone(),
            happened: "nothing yet".into(),
            why: "no instance is wanted".into(),
            cure: format!("`terrarium scale {}=1` runs one", view.name),
            ..Explanation::default()
        });
    }
    ExplainView { app: view.name.clone(), state: view.state.clone(), parts }
}

/// The app as a whole, where there is something to say that is not about an instance.
fn whole(facts: &Facts<'_>) -> Option<Explanation> {
    let (app, view) = (facts.app, facts.view);
    let name = &view.name;
    let part = Explanation {
        subject: name.to_string(),
        state: view.state.clone(),
        happened_ms: app.wish.as_ref().map(|wish| wish.at_ms),
        ..Explanation::default()
    };
    let said = match view.state.as_str() {
        "stopped" | "stopping" if app.stopped => {
            let next = match view.state.as_str() {
                "stopping" => "its last instances end, within 11 s each",
                _ => "nothing: it stays stopped, also after a restart of the box",
            };
            let cure = format!("`terrarium start {name}` runs it again");
            ("somebody has stopped it (`terrarium stop`)", String::new(), next, cure)
        }
        "deleting" => {
            let next = "it is gone when its last instance has ended";
            (
                "it is being deleted",
                "somebody asked for it, or its manifest is gone".into(),
                next,
                String::new(),
            )
        }
        // Also one that waits, as nothing new is begun at all.
        "staging" | "waiting" if is_unstaged(app, &view.state) => match &view.reason {
            Some(why) => (
                "it waits to be staged",
                why.clone(),
                "it is staged when its turn comes",
                String::new(),
            ),
            None => {
                let cure = format!("`terrarium logs {name} --source STG -f` shows how far it is");
                let next = match app.release {
                    Some(_) => "it takes over from what runs when that has succeeded",
                    None => "it starts when that has succeeded",
                };
                ("it is being staged", "it was declared anew".into(), next, cure)
            }
        },
        _ => return update::unstaged(facts, &part).or_else(|| update::under_way(facts, &part)),
    };
    let (happened, why, next, cure) = said;
    Some(Explanation { happened: happened.into(), why, next: next.into(), cure, ..part })
}

/// What is declared is not staged yet.
fn is_unstaged(app: &AppRecord, state: &str) -> bool {
    state == "staging" || (app.release.is_none() && app.staged != Some(app.generation))
}

/// Its file in a manifest directory says something that is not followed.
fn unfollowed(facts: &Facts<'_>) -> Option<Explanation> {
    let view = facts.view;
    Some(Explanation {
        subject: view.name.to_string(),
        state: view.state.clone(),
        happened: "its manifest has changed, and is refused as it is now".into(),
        why: view.refused.clone()?,
        next:
            "nothing: it stays as the manifest said before; the file is read again when it changes"
                .into(),
        cure: format!("mend it; `terrarium check {}` shows all that is wrong", view.manifest),
        ..Explanation::default()
    })
}

/// The instances of one process: those that are well and have always been are one part.
fn instances(
    facts: &Facts<'_>,
    process: &ProcessView,
    index: Option<u32>,
    parts: &mut Vec<Explanation>,
) {
    let lrp = facts.lrps.iter().find(|lrp| lrp.guid.process == process.name);
    let Some(lrp) = lrp else { return };
    let asked = process.instances.iter().filter(|one| index.is_none_or(|index| one.index == index));
    // Of the newest version, of another one, and on their way out.
    let mut well = [Vec::new(), Vec::new(), Vec::new()];
    for one in asked {
        let is_its = |it: &&ActualLrp| {
            let is_there = |handle: &String| {
                it.place().is_some_and(|place| place.handle.as_str() == handle.as_str())
            };
            (&it.guid, it.index, it.since_ms) == (&lrp.guid, one.index, one.since_ms)
                && one.handle.as_ref().is_none_or(is_there)
        };
        let record = facts.actual.values().find(is_its);
        let ended = record.is_some_and(|record| record.death.is_some());
        let is_ready = one.ready != Some(false);
        let leaves = leaves(facts, process, one);
        match one.state == "running" && is_ready && !ended && index.is_none() {
            true if leaves.is_some() => well[2].push(one),
            true => well[usize::from(one.outdated)].push(one),
            false => parts.push(instance(facts, lrp, (one, leaves), record)),
        }
    }
    let kinds = [(false, false), (true, false), (false, true)];
    for (well, (outdated, leaving)) in well.into_iter().zip(kinds).filter(|it| !it.0.is_empty()) {
        let since = well.iter().map(|one| one.since_ms).max();
        let happened = match well.len() {
            1 => "it started, and has not ended since".to_owned(),
            number => format!("{number} instances started, and none has ended since"),
        };
        parts.push(Explanation {
            subject: update::subject(facts, lrp.guid.to_string(), outdated),
            state: "running".into(),
            since_ms: since,
            happened,
            happened_ms: since,
            next: match well.first().and_then(|one| leaves(facts, process, one)) {
                Some(why) if leaving => why.into(),
                _ if outdated => update::ends(facts).into(),
                _ => running(lrp).into(),
            },
            ..Explanation::default()
        });
    }
    let wanted = process.instances.iter().map(|one| one.index).filter(|at| *at < process.desired);
    let there = wanted.collect::<BTreeSet<u32>>().len() as u32;
    if there < process.desired && index.is_none_or(|index| index >= there) && parts.is_empty() {
        parts.push(Explanation {
            subject: lrp.guid.to_string(),
            state: "unclaimed".into(),
            happened: format!("{} of {} instances have begun", there, process.desired),
            next: "the others begin at once".into(),
            ..Explanation::default()
        });
    }
}

/// What becomes of one that is not wanted any more; `None`: it is.
fn leaves(facts: &Facts<'_>, process: &ProcessView, one: &InstanceView) -> Option<&'static str> {
    match facts.app {
        app if app.deleting => Some("it ends, as its app is being deleted"),
        app if app.stopped => Some("it ends, as its app was stopped"),
        _ if one.index >= process.desired => Some("it ends, as fewer instances are wanted"),
        _ => None,
    }
}

/// One instance; `leaves`: it is not wanted any more.
fn instance(
    facts: &Facts<'_>,
    lrp: &DesiredLrp,
    (view, leaves): (&InstanceView, Option<&'static str>),
    record: Option<&ActualLrp>,
) -> Explanation {
    let target = format!("{}/{}", lrp.guid, view.index);
    let death = record.and_then(|record| record.death.clone());
    let mut part = Explanation {
        subject: update::subject(facts, target.clone(), view.outdated),
        state: view.state.clone(),
        since_ms: Some(view.since_ms),
        crash_count: view.crash_count,
        ..Explanation::default()
    };
    if let Some(death) = &death {
        let words = text::words(&death.cause, &target, &lrp.health.check);
        part.happened = match view.crash_count {
            count @ 2.. if death.counted => {
                format!("{}, its crash {count} in a row", words.happened)
            }
            _ => words.happened,
        };
        (part.happened_ms, part.why, part.cure) = (Some(death.at_ms), words.why, words.cure);
        if leaves.is_none() && matches!(death.cause, Cause::Stopped { by: Stopper::Scale, .. }) {
            part.why = "fewer instances were wanted for a while; now it is wanted again".into();
        }
    } else if let Some(reason) = &view.crash_reason {
        // Recorded by an older program.
        part.happened = format!("it ended: {reason}");
        part.happened_ms = Some(view.since_ms);
    }
    if let Some(why) = leaves {
        part.next = why.into();
        return Explanation { death, ..part };
    }
    if view.state == "waiting" && facts.drained && ended_by_drain(death.as_ref()) {
        part.next = DRAINED.into();
        return Explanation { death, ..part };
    }
    if view.state == "waiting" {
        part.happened_ms = Some(view.since_ms);
        part.why = view.placement_error.clone().unwrap_or_default();
        let (happened, next, cure) = waits(view);
        // The reason of a Cell names its cure as well: it is told once.
        if let Some(why) = part.why.strip_suffix(cure).and_then(|why| why.strip_suffix("; ")) {
            part.why = why.to_owned();
        }
        (part.happened, part.next, part.cure) = (happened.into(), next.into(), cure.into());
        return Explanation { death, ..part };
    }
    (part.next, part.next_ms) = next(facts, lrp, view, record);
    if let (Some(false), Some(why)) = (view.ready, &view.unready) {
        part.happened = "it runs, and its [readiness] check does not pass".into();
        part.happened_ms = None;
        part.why = format!("the probe said: {why}");
        part.cure = "mend what the check asks for, or the check".into();
        return Explanation { death, ..part };
    }
    if view.state == "finished" {
        // As it was meant to.
        part.why = "its work is done".into();
        part.cure.clear();
    }
    if matches!(view.state.as_str(), "running" | "starting") {
        // It has begun again: what it was is past.
        if part.happened.is_empty() {
            part.happened = "it started, and has not ended since".into();
            part.happened_ms = Some(view.since_ms);
        }
        if !death.as_ref().is_some_and(|death| death.counted) {
            part.cure.clear();
        }
    }
    Explanation { death, ..part }
}

/// It ran until the cell was drained.
fn ended_by_drain(death: Option<&Death>) -> bool {
    let cause = death.map(|death| &death.cause);
    matches!(cause, Some(Cause::Stopped { by: Stopper::Drain, .. }))
}

/// What is said of one that waits: what happened, what comes next, what can be done.
fn waits(view: &InstanceView) -> (&'static str, &'static str, &'static str) {
    if view.waits_for_app() {
        return ("it was not started yet", "it starts as soon as that app runs", "");
    }
    if view.is_too_large() {
        let next = "nothing: it does not start, as it asks for more than the whole box has";
        return ("it can never be placed", next, TOO_LARGE_CURE);
    }
    match view.waits_for_room() {
        true => {
            ("it could not be placed", "it starts as soon as the box has room for it", NO_ROOM_CURE)
        }
        false => (
            "it was not started yet",
            "it starts as soon as the cell starts things again",
            "`terrarium status` tells how the box is",
        ),
    }
}

/// What happens next to an instance, and when.
fn next(
    facts: &Facts<'_>,
    lrp: &DesiredLrp,
    view: &InstanceView,
    record: Option<&ActualLrp>,
) -> (String, Option<u64>) {
    match view.state.as_str() {
        "running" if view.ready == Some(false) => {
            ("connections are led to it when its [readiness] check passes".into(), None)
        }
        "running" if view.outdated => (update::ends(facts).into(), None),
        "running" => (running(lrp).into(), None),
        "finished" => ("nothing: its work is done, and the manifest wants no more".into(), None),
        "starting" if lrp.health.check == Check::Process => {
            ("it runs as soon as its process has begun".into(), None)
        }
        "starting" => {
            let limit = lrp.health.start_timeout;
            let last = record.filter(|record| matches!(record.state, LrpState::Claimed(_)));
            let last = last.filter(|_| !limit.is_zero());
            let until = last.map(|record| record.since_ms + limit.as_millis() as u64);
            ("it runs when its health check passes, or ends".into(), until)
        }
        "crashed" if update::gives_way(facts, lrp, record) => {
            ("nothing: its version gives way to the one before".into(), None)
        }
        "crashed" => crashed(facts, lrp, record),
        _ => ("it starts at once".into(), None),
    }
}

/// When one that has crashed starts again.
fn crashed(
    facts: &Facts<'_>,
    lrp: &DesiredLrp,
    record: Option<&ActualLrp>,
) -> (String, Option<u64>) {
    let at_once = || ("it starts again at once".to_owned(), Some(facts.now_ms));
    let Some(record) = record else { return at_once() };
    let succeeded = matches!(record.state, LrpState::Crashed { succeeded: true });
    match crash::after(lrp.restart, succeeded, record.crash_count, record.since_ms) {
        Next::Now | Next::At(_) if facts.drained => (DRAINED.into(), None),
        Next::Now => at_once(),
        Next::At(at) if crash::is_due(at, facts.now_ms) => at_once(),
        Next::At(at) => ("it starts again by itself".into(), Some(at)),
        Next::Never => {
            let why = match lrp.restart {
                Restart::Always => "it has crashed 200 times in a row",
                Restart::OnFailure | Restart::Never => "[restart] of the manifest says so",
            };
            let name = &facts.view.name;
            (format!("nothing: {why}; `terrarium start {name}` gives it a new chance"), None)
        }
    }
}

fn running(lrp: &DesiredLrp) -> &'static str {
    match lrp.health.check {
        Check::Process => "nothing: it runs on until its process ends",
        _ => "nothing: it runs on, and its health is looked at",
    }
}

#[cfg(test)]
mod tests;
