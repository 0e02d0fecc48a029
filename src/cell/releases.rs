//! What an app runs, what it ran before, and when it goes back to that.

use super::converge::{self, lrps, stopping, world};
use super::diff::Key;
use super::record::{AppRecord, Fate, Release};
use super::revisions;
use super::rollout::{Verdict, verdict};
use super::shared::{AppChange, Shared, State, now_ms};
use crate::model::lrp::DesiredLrp;
use crate::model::manifest::PROCESSES_MAX;
use crate::model::view::ROLLED_BACK;
use crate::stage::recipe;
use crate::unit::AppName;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// How the reason of an app ends that has gone back.
pub(super) const RUNS_AGAIN: &str = "; the version before runs again";

/// The app runs `release` from now on, and as many of it as its manifest says where that ends a wish.
pub fn replace(app: &mut AppRecord, release: Release) {
    let ended = app.take_ended();
    if app.release.as_ref() != Some(&release) {
        let old = app.release.replace(release);
        // A release that was never good is nothing to go back to.
        if app.proven {
            app.last_good = old;
        }
        app.proven = false;
    }
    app.end(ended);
}

/// It would go back to the version before.
pub(super) fn is_on_trial(app: &AppRecord) -> bool {
    let wants = app.release.as_ref().is_some_and(|release| release.manifest.rollout.rollback);
    wants && !app.proven && app.last_good.is_some()
}

/// Why it has gone back to the version before, if that was the last that became of it.
pub fn rolled_back(app: &AppRecord) -> Option<&str> {
    app.failure.as_deref().filter(|why| why.starts_with(ROLLED_BACK))
}

/// The apps that would.
pub fn on_trial(apps: &BTreeMap<AppName, AppRecord>) -> BTreeSet<AppName> {
    let some = apps.iter().filter(|(_, app)| is_on_trial(app));
    some.map(|(name, _)| name.clone()).collect()
}

/// What is made of an app's release, with the instances that its manifest wants.
pub fn made(app: &AppRecord) -> Vec<DesiredLrp> {
    app.release.iter().flat_map(|it| of_release(app, it)).collect()
}

/// The LRPs of a release of this app: its own, then those that somebody has scaled and a droplet does not have.
fn of_release(app: &AppRecord, release: &Release) -> Vec<DesiredLrp> {
    let mut all = lrps(release, app.restarts);
    if release.image.is_none() && release.container.is_none() {
        let Release { manifest, result, droplet, .. } = release;
        let most = PROCESSES_MAX.saturating_sub(all.len());
        let stand_in =
            |name: &String| recipe::stand_in(manifest, result, *droplet, app.restarts, name);
        all.extend(app.lacks(release).into_iter().filter_map(stand_in).take(most));
    }
    all
}

/// What an app wants to run.
pub fn desired(app: &AppRecord) -> Vec<DesiredLrp> {
    let mut all = made(app);
    for lrp in &mut all {
        if let Some(instances) = app.scale.get(&lrp.guid.process) {
            lrp.instances = *instances;
        }
    }
    all
}

/// The LRPs of the version that an app may go back to.
pub fn before(app: &AppRecord) -> Vec<DesiredLrp> {
    app.last_good.iter().flat_map(|it| of_release(app, it)).collect()
}

/// What an instance of this version was made from, of what is wanted and the LRPs `before` that; and
/// whether that is not known any more. The checks of a newer version say nothing about an older one.
pub fn made_from(wanted: DesiredLrp, before: Vec<DesiredLrp>, version: &str) -> (DesiredLrp, bool) {
    if wanted.version == version {
        return (wanted, false);
    }
    let mut before = before.into_iter();
    match before.find(|lrp| lrp.guid == wanted.guid && lrp.version == version) {
        Some(lrp) => (lrp, false),
        None => (DesiredLrp { version: version.to_owned(), ..wanted }, true),
    }
}

/// What becomes of an app whose release was judged; `None`: nothing. The text is for its log.
pub fn judged(app: &AppRecord, verdict: Verdict) -> Option<(AppRecord, Option<String>)> {
    match (verdict, &app.last_good) {
        (Verdict::Good, _) => {
            let mut app = AppRecord { proven: true, last_good: None, ..app.clone() };
            app.lapsed.clear();
            revisions::mark(&mut app, Fate::Good);
            Some((app, None))
        }
        (Verdict::Bad(why), Some(good)) if is_on_trial(app) => {
            let mut app = app.clone();
            revisions::mark(&mut app, Fate::Failed(why.clone()));
            app.hold_again();
            let why = format!("{ROLLED_BACK}{why}{RUNS_AGAIN}");
            let release = Some(good.clone());
            let failure = Some(why.clone());
            let app = AppRecord { release, failure, proven: true, last_good: None, ..app };
            Some((app, Some(why)))
        }
        (Verdict::Bad(_) | Verdict::Open(_), _) => None,
    }
}

impl Shared {
    /// Looks at every release that is not known to be good: one that runs is, and from one that never
    /// gets healthy, or ready, the app goes back. When to look again, in milliseconds since 1970.
    pub(super) async fn judge_releases(self: &Arc<Self>) -> Option<u64> {
        let (mut decided, mut due_ms) = (Vec::new(), None);
        {
            let state = self.state();
            for (name, app) in state.apps.iter().filter(|(_, app)| is_open(app)) {
                match verdict_of(&state, app) {
                    Verdict::Open(due) if is_on_trial(app) => {
                        due_ms = due_ms.into_iter().chain(due).min();
                    }
                    Verdict::Good => decided.push(name.clone()),
                    Verdict::Bad(_) if is_on_trial(app) => decided.push(name.clone()),
                    Verdict::Open(_) | Verdict::Bad(_) => {}
                }
            }
        }
        for name in decided {
            let mut said = None;
            let judged = self.change_app(&name, |state| {
                // Looked at again: the record may have changed meanwhile.
                let found = state.apps.get(&name).filter(|app| is_open(app));
                let found = found.and_then(|app| judged(app, verdict_of(state, app)));
                let Some((app, text)) = found else { return Ok(AppChange::Keep) };
                said = text;
                Ok(AppChange::Put(Box::new(app)))
            });
            match judged.await {
                Ok(()) => self.tell_judged(&name, said),
                Err(err) => crate::error!("record.refused", app = name, err = err),
            }
        }
        due_ms
    }

    /// Whether an app goes back from this version of an instance, or has just done so: it does not
    /// start again.
    pub(super) fn gives_up(&self, key: &Key, version: &str) -> bool {
        let state = self.state();
        let Some(app) = state.apps.get(&key.0.app) else { return false };
        if is_open(app) && is_on_trial(app) {
            return matches!(verdict_of(&state, app), Verdict::Bad(_));
        }
        let is_other = |lrp: &DesiredLrp| lrp.guid == key.0 && lrp.version != version;
        rolled_back(app).is_some() && desired(app).iter().any(is_other)
    }

    fn tell_judged(&self, name: &AppName, said: Option<String>) {
        // The layers of one of the two are of no more use.
        self.state().litter = true;
        if let Some(why) = said {
            let cure = "mend it and apply it again";
            self.say(name, "CELL", true, format!("Rolled back: {why}; {cure}"));
            crate::warn!("app.rolled_back", app = name, err = why);
        }
    }
}

/// It runs a release that is not known to be good.
pub fn is_open(app: &AppRecord) -> bool {
    !app.proven && app.release.is_some() && !app.stopped && !app.deleting
}

fn verdict_of(state: &State, app: &AppRecord) -> Verdict {
    let wanted = desired(app);
    let mine: Vec<&DesiredLrp> = wanted.iter().collect();
    let all = converge::desired(&state.apps);
    let (supervised, held, trial) = (stopping(state), BTreeMap::new(), on_trial(&state.apps));
    let world = world(state, &all, &supervised, (&held, &trial));
    verdict(&mine, &before(app), &world, now_ms())
}

#[cfg(test)]
pub(super) mod tests;
