//! What an app has run, so that it can be run again.
//!
//! Each release that took over is a revision: its manifest, as text and as it was read, and its droplet
//! or image, by digest. The last [`KEPT`] that were ever healthy are kept with the app's record, and their
//! layers in the store; one that never was takes the place of none of them (D103). To go back makes a new
//! revision of old content.

use super::claims::check_ports;
use super::error::{CellError, Kind};
use super::record::{AppRecord, Fate, Release, Revision, Wish};
use super::releases;
use super::shared::{AppChange, Cell, now_ms};
use crate::model::manifest::Manifest;
use crate::model::view::RevisionView;
use crate::unit::{AppName, Digest};
use serde_json::Value;
use std::collections::BTreeSet;
use std::sync::Arc;

/// Good revisions of one app, as many as Cloud Foundry keeps droplets. With as many of them, one that was never
/// healthy is kept beside them.
pub const KEPT: usize = 5;

/// Longest text of a manifest that is kept with a revision, in bytes; of a longer one none is.
pub const TEXT_MAX: usize = 64 * 1024;

/// Takes down what the app runs, unless it is what was taken down last. `why`: as people are told.
pub fn note(app: &mut AppRecord, why: &str, at_ms: u64) {
    let Some(release) = app.release.clone().filter(|release| release.container.is_none()) else {
        return;
    };
    let is_known =
        |last: &Revision| last.release == release && !matches!(last.fate, Fate::Failed(_));
    if !app.revisions.last().is_some_and(is_known) {
        push(app, release, why.to_owned(), at_ms);
    }
}

/// The app runs `release` from now on, which is a revision of its own when it is another one than before.
pub fn replace(app: &mut AppRecord, release: Release, at_ms: u64) {
    let why = app.wish.as_ref().map_or("apply", |wish| &*wish.what).to_owned();
    if app.revisions.is_empty() {
        // Of a record that knows of none yet.
        note(app, "apply", at_ms);
    }
    let is_other = app.release.as_ref() != Some(&release);
    // The same droplet comes out: who asks for a staging wants fresh instances all the same.
    let same = app.release.as_ref().is_some_and(|old| old.droplet == release.droplet);
    if same && app.forced == Some(app.generation) {
        app.restarts += 1;
    }
    releases::replace(app, release);
    // What has gone back runs as the revision that it was.
    if is_other {
        note(app, &why, at_ms);
    }
}

/// Takes down what has become of what the app runs.
pub fn mark(app: &mut AppRecord, fate: Fate) {
    let Some(at) = current(app) else { return };
    // What was healthy once stays so.
    if !app.revisions[at].fate.is_good() {
        app.revisions[at].fate = fate;
    }
    sweep(&mut app.revisions);
}

fn push(app: &mut AppRecord, release: Release, why: String, made_ms: u64) -> u64 {
    let number = app.revisions.last().map_or(1, |last| last.number + 1);
    let text = app.text.clone();
    let fate = if app.proven { Fate::Good } else { Fate::Unproven };
    app.revisions.push(Revision { number, made_ms, why, text, release, fate });
    sweep(&mut app.revisions);
    number
}

/// Forgets what is too old: good ones beyond those that are kept, and of the others all but the last where
/// there is no place for more.
fn sweep(all: &mut Vec<Revision>) {
    let is_good = |it: &Revision| it.fate.is_good();
    loop {
        let good = all.iter().filter(|it| is_good(it)).count();
        let good_goes = good > KEPT;
        let other_goes = all.len() > KEPT && all.len() - good > 1;
        if !good_goes && !other_goes {
            return;
        }
        let oldest = all.iter().position(|it| is_good(it) == good_goes);
        all.remove(oldest.expect("there is more than one"));
    }
}

/// The place of the revision that runs, among those that are kept.
fn current(app: &AppRecord) -> Option<usize> {
    let release = app.release.as_ref()?;
    app.revisions.iter().rposition(|it| it.release == *release)
}

/// The revision `to` that an app goes back to, or the last one of what does not run now that was healthy once.
pub fn target(app: &AppRecord, to: Option<u64>) -> Result<&Revision, String> {
    let name = &app.manifest.name;
    let known: Vec<String> = app.revisions.iter().map(|it| it.number.to_string()).collect();
    match to {
        Some(to) => {
            app.revisions.iter().find(|it| it.number == to).ok_or_else(|| match known.is_empty() {
                true => format!("app {name} has no revision yet"),
                false => format!("app {name} has no revision {to}; it has {}", known.join(", ")),
            })
        }
        None => {
            let all = app.revisions.iter().rev();
            let mut others = all.filter(|it| app.release.as_ref() != Some(&it.release)).peekable();
            let any = others.peek().is_some();
            others.find(|it| it.fate.is_good()).ok_or_else(|| match any {
                false => format!(
                    "app {name} has nothing to go back to; `terrarium revisions {name}` lists what is kept"
                ),
                true => format!(
                    "app {name} has nothing to go back to that was ever healthy; `--to` takes any of those \
                     that `terrarium revisions {name}` lists"
                ),
            })
        }
    }
}

/// The app as it goes back to `to`, and the number of the revision that this makes. How many were wanted of
/// a process that a manifest has named and `to` does not have is forgotten: `web` would run in its place.
pub fn rolled_back(app: &AppRecord, to: &Revision, at_ms: u64) -> (AppRecord, u64) {
    // The file still says what it said: it must not be taken for a change of it.
    let overruled = app.overruled.or_else(|| Some(digest(&app.manifest)));
    let has = to.release.processes();
    let mut app = app.clone();
    if app.last_good.as_ref() == Some(&to.release) {
        app.hold_again();
    }
    let is_lost = |process: &&String| !has.contains(*process) && app.says(process);
    let lapses = app.scale.keys().filter(is_lost).cloned().collect();
    let over = app.all_over();
    let mut app = AppRecord {
        manifest: to.release.manifest.clone(),
        text: to.text.clone(),
        generation: app.generation + 1,
        staged: Some(app.generation + 1),
        failure: None,
        away: false,
        lapses,
        over,
        stopped: false,
        overruled,
        wish: Wish::new("rollback", at_ms),
        ..app
    };
    releases::replace(&mut app, to.release.clone());
    let number = push(&mut app, to.release.clone(), format!("rollback to {}", to.number), at_ms);
    (app, number)
}

/// What tells one declaration from another.
pub fn digest(manifest: &Manifest) -> Digest {
    Digest::of(&serde_json::to_vec(manifest).expect("our own types with text keys become JSON"))
}

fn view(app: &AppRecord) -> Vec<RevisionView> {
    let now = current(app);
    let one = |(at, it): (usize, &Revision)| RevisionView {
        revision: it.number,
        current: Some(at) == now,
        made_ms: it.made_ms,
        why: it.why.clone(),
        changed: match at.checked_sub(1).and_then(|before| app.revisions.get(before)) {
            Some(before) => changed(&before.release, &it.release),
            None => Vec::new(),
        },
        health: match it.fate {
            Fate::Good => "healthy",
            Fate::Unproven => "unproven",
            Fate::Failed(_) => "failed",
        }
        .to_owned(),
        failure: match &it.fate {
            Fate::Failed(why) => Some(why.clone()),
            Fate::Good | Fate::Unproven => None,
        },
        droplet: it.release.droplet.to_string(),
        image: it
            .release
            .image
            .as_ref()
            .map(|_| it.release.result.lifecycle_metadata.docker_image.clone()),
        manifest: it.text.clone(),
    };
    app.revisions.iter().enumerate().map(one).collect()
}

/// Parts of a manifest of which each entry has a name of its own.
const NAMED: [&str; 6] = ["build", "run", "env", "sidecars", "stop", "rollout"];

/// What the second release has that the first has not, in the words of a manifest, without any value.
fn changed(old: &Release, new: &Release) -> Vec<String> {
    let mut words = Vec::new();
    if old.droplet != new.droplet {
        words.push(if new.image.is_some() { "image" } else { "droplet" }.to_owned());
    }
    let [old, new] = [old, new].map(|it| serde_json::to_value(&it.manifest).unwrap_or_default());
    let all = differing("", &old, &new);
    for key in all {
        match key.as_str() {
            // The droplet, or the image, is what comes of it.
            "source" => {}
            "image" if words.iter().any(|it| it == "image") => {}
            "processes" => words.extend(of_processes(&old["processes"], &new["processes"])),
            key if NAMED.contains(&key) => {
                words.extend(differing(&format!("{key}."), &old[key], &new[key]));
            }
            key => words.push(key.to_owned()),
        }
    }
    // What all processes have of [run] is told once.
    let of_run: Vec<String> =
        words.iter().filter_map(|it| it.strip_prefix("run.").map(str::to_owned)).collect();
    words.retain(|word| {
        let own = word.strip_prefix("process.").and_then(|it| it.rsplit_once('.'));
        own.is_none_or(|(_, key)| !of_run.iter().any(|it| it == key))
    });
    words
}

/// Processes that are there in only one of both, and what is other in the others.
fn of_processes(old: &Value, new: &Value) -> Vec<String> {
    let names = differing("", old, new).into_iter();
    let words = names.map(|name| match (old.get(&name), new.get(&name)) {
        (Some(before), Some(now)) => differing(&format!("process.{name}."), before, now),
        _ => vec![format!("process.{name}")],
    });
    words.flatten().collect()
}

/// Keys whose values differ, with this before each.
fn differing(before: &str, old: &Value, new: &Value) -> Vec<String> {
    let keys = [old, new].into_iter().filter_map(Value::as_object).flat_map(|it| it.keys());
    let keys: BTreeSet<&String> = keys.filter(|key| old.get(*key) != new.get(*key)).collect();
    keys.into_iter().map(|key| format!("{before}{key}")).collect()
}

impl Cell {
    /// The revisions of an app that are kept, oldest first.
    pub fn revisions(&self, name: &str) -> Result<Vec<RevisionView>, CellError> {
        let state = self.shared.state();
        let app = state.apps.iter().find(|(app, _)| app.as_str() == name);
        app.map(|(_, app)| view(app)).ok_or_else(|| CellError::no_app(name))
    }

    /// Runs an old revision again, as a new one; the number of that. `None`: the last other one.
    pub async fn rollback(&self, name: &str, to: Option<u64>) -> Result<u64, CellError> {
        let name: AppName = name.parse().map_err(|_| CellError::no_app(name))?;
        let refused = |text| CellError::new(Kind::NotFound, text);
        let (to, layers, was_good) = {
            let state = self.shared.state();
            let app = state.apps.get(&name).ok_or_else(|| CellError::no_app(name.as_str()))?;
            let to = target(app, to).map_err(refused)?;
            (to.number, to.release.layers(), to.fate.is_good())
        };
        let shared = self.shared.clone();
        let lost = smol::unblock(move || {
            layers.into_iter().find(|layer| shared.host.store().layer(layer).is_none())
        });
        if let Some(layer) = lost.await {
            let text = format!(
                "app {name} cannot go back to revision {to}: layer {layer} of it is not in the store any \
                 more; apply its manifest again, which `terrarium revisions {name} --json` has"
            );
            return Err(CellError::new(Kind::Failed, text));
        }
        let mut made = 0;
        let changed = self.shared.change_app(&name, |state| {
            let app = state.apps.get(&name).filter(|app| !app.deleting);
            let app = app.ok_or_else(|| CellError::no_app(name.as_str()))?;
            let to = target(app, Some(to)).map_err(refused)?;
            check_ports(state, &to.release.manifest)?;
            let (app, number) = rolled_back(app, to, now_ms());
            made = number;
            Ok(AppChange::Put(Box::new(app)))
        });
        changed.await?;
        let never = if was_good { "" } else { "; it was never healthy before" };
        let text = format!("Rolling back to revision {to}, as revision {made}{never}");
        self.shared.say(&name, "CELL", false, text);
        crate::info!("app.rollback", app = name);
        Ok(made)
    }

    /// Stages an app again, whether its source has changed or not, and runs what comes of it.
    pub async fn restage(&self, name: &str) -> Result<(), CellError> {
        let name: AppName = name.parse().map_err(|_| CellError::no_app(name))?;
        let shared: &Arc<_> = &self.shared;
        let changed = shared.change_app(&name, |state| {
            let app = state.apps.get(&name).filter(|app| !app.deleting);
            let app = app.ok_or_else(|| CellError::no_app(name.as_str()))?;
            if app.container.is_some() {
                let text =
                    format!("app {name} is a container of another cell's record; it is not staged");
                return Err(CellError::new(Kind::Invalid, text));
            }
            super::wishes::cancel_staging(state, &name);
            let generation = app.generation + 1;
            Ok(AppChange::Put(Box::new(AppRecord {
                generation,
                forced: Some(generation),
                failure: None,
                away: false,
                stopped: false,
                wish: Wish::new("restage", now_ms()),
                ..app.clone()
            })))
        });
        changed.await
    }
}

#[cfg(test)]
mod tests;
