//! What an app has run, so that it can be run again.
//!
//! Each release that took over is a revision: its manifest, as text and as it was read, and its droplet
//! or image, by digest. The last [`KEPT`] are kept with the app's record, and their layers in the
//! store. To go back makes a new revision of old content.

use super::claims::check_ports;
use super::error::{CellError, Kind};
use super::record::{AppRecord, Release, Revision, Wish};
use super::releases;
use super::shared::{AppChange, Cell, now_ms};
use crate::model::manifest::Manifest;
use crate::model::view::RevisionView;
use crate::unit::{AppName, Digest};
use serde_json::Value;
use std::collections::BTreeSet;
use std::sync::Arc;

/// Revisions of one app, as many as Cloud Foundry keeps droplets.
pub const KEPT: usize = 5;

/// Longest text of a manifest that is kept with a revision, in bytes; of a longer one none is.
pub const TEXT_MAX: usize = 64 * 1024;

/// Takes down what the app runs, unless it is what was taken down last. `why`: as people are told.
pub fn note(app: &mut AppRecord, why: &str, at_ms: u64) {
    let Some(release) = app.release.clone().filter(|release| release.container.is_none()) else {
        return;
    };
    if app.revisions.last().is_none_or(|last| last.release != release) {
        push(app, release, why.to_owned(), at_ms);
    }
}

/// The app runs `release` from now on, which is a revision of its own when it is another one than before.
pub fn replace(app: &mut AppRecord, release: Release, at_ms: u64) {
    let why = app.wish.as_ref().map_or("apply", |wish| &*wish.what).to_owned();
    // Of a record that knows of no revisions yet.
    note(app, "apply", at_ms);
    // The same droplet comes out: who asks for a staging wants fresh instances all the same.
    let same = app.release.as_ref().is_some_and(|old| old.droplet == release.droplet);
    if same && app.forced == Some(app.generation) {
        app.restarts += 1;
    }
    releases::replace(app, release);
    // From now on the declaration counts again.
    for process in std::mem::take(&mut app.lapses) {
        app.scale.remove(&process);
    }
    note(app, &why, at_ms);
}

fn push(app: &mut AppRecord, release: Release, why: String, made_ms: u64) -> u64 {
    let number = app.revisions.last().map_or(1, |last| last.number + 1);
    let text = app.text.clone();
    app.revisions.push(Revision { number, made_ms, why, text, release });
    let old = app.revisions.len().saturating_sub(KEPT);
    app.revisions.drain(..old);
    number
}

/// The place of the revision that runs, among those that are kept.
fn current(app: &AppRecord) -> Option<usize> {
    let release = app.release.as_ref()?;
    app.revisions.iter().rposition(|it| it.release == *release)
}

/// The revision `to` that an app goes back to, or the last other one before what runs.
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
            let now = current(app).unwrap_or(app.revisions.len());
            let before = app.revisions[..now].iter().rev();
            let mut others = before.filter(|it| app.release.as_ref() != Some(&it.release));
            others.next().ok_or_else(|| {
                format!("app {name} has nothing to go back to; `terrarium revisions {name}` lists what is kept")
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
    let mut scale = app.scale.clone();
    scale.retain(|process, _| has.contains(process) || !app.says(process));
    let mut app = AppRecord {
        manifest: to.release.manifest.clone(),
        text: to.text.clone(),
        generation: app.generation + 1,
        staged: Some(app.generation + 1),
        failure: None,
        away: false,
        lapses: BTreeSet::new(),
        stopped: false,
        overruled,
        wish: Wish::new("rollback", at_ms),
        ..app.clone()
    };
    app.scale = scale;
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
        let (to, layers) = {
            let state = self.shared.state();
            let app = state.apps.get(&name).ok_or_else(|| CellError::no_app(name.as_str()))?;
            let to = target(app, to).map_err(refused)?;
            (to.number, to.release.layers())
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
        let text = format!("Rolling back to revision {to}, as revision {made}");
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
mod tests {
    use super::super::releases::tests::app as declared;
    use super::*;

    fn release(app: &AppRecord, run: &str) -> Release {
        Release { droplet: Digest::of(run.as_bytes()), ..app.release.clone().expect("a release") }
    }

    /// An app that has run these, one after the other.
    fn ran(all: &[&str]) -> AppRecord {
        let mut app = AppRecord { proven: true, ..declared("") };
        note(&mut app, "apply", 1);
        for (at, run) in all.iter().enumerate() {
            let release = release(&app, run);
            releases::replace(&mut app, release);
            app.proven = true;
            note(&mut app, "apply", at as u64 + 2);
            note(&mut app, "scale", 99);
        }
        app
    }

    fn shape(app: &AppRecord) -> Vec<(u64, bool, String)> {
        view(app).into_iter().map(|it| (it.revision, it.current, it.why)).collect()
    }

    #[test]
    fn what_takes_over_is_a_revision_and_the_oldest_go() {
        let app = ran(&["b", "c", "d", "e", "f"]);
        let numbers: Vec<u64> = app.revisions.iter().map(|it| it.number).collect();
        assert_eq!(numbers, [2, 3, 4, 5, 6]);
        assert_eq!(shape(&app).last().map(|it| (it.0, it.1)), Some((6, true)));
    }

    #[test]
    fn instances_by_scale_hold_until_the_next_declaration_takes_over() {
        let mut app = ran(&[]);
        app.scale("web".into(), 3);
        let mut app = app.clone().declared(app.manifest.clone(), app.file.clone());
        assert_eq!(app.scale.get("web"), Some(&3), "what runs goes on as it is");
        let mut late = app.clone();
        late.scale("web".into(), 5);
        for (app, left) in [(&mut app, None), (&mut late, Some(&5))] {
            let next = release(app, "b");
            replace(app, next, 7);
            assert_eq!(app.scale.get("web"), left);
            // Not by what somebody merely stages again.
            let again = release(app, "c");
            replace(app, again, 8);
            assert_eq!(app.scale.get("web"), left);
        }
    }

    #[test]
    fn web_does_not_run_in_place_of_a_process_that_the_older_manifest_does_not_name() {
        let mut app = ran(&["b"]);
        let next = declared("memory = \"32MiB\"\n[process.web]\n[process.worker]\n");
        app = app.clone().declared(next.manifest.clone(), app.file.clone());
        replace(&mut app, next.release.expect("a release"), 7);
        app.scale("worker".into(), 3);
        app.scale("web".into(), 2);
        // No manifest has named it: as in Cloud Foundry it stays wanted.
        app.scale.insert("clock".into(), 1);
        let counts = |app: &AppRecord| -> Vec<(String, u32)> {
            let all = releases::desired(app).into_iter();
            all.map(|lrp| (lrp.guid.process, lrp.instances)).collect()
        };
        let of = |all: &[(&str, u32)]| -> Vec<(String, u32)> {
            all.iter().map(|&(name, count)| (name.to_owned(), count)).collect()
        };
        assert_eq!(counts(&app), of(&[("web", 2), ("worker", 3), ("clock", 1)]));
        let (back, _) = rolled_back(&app, target(&app, None).expect("the one before"), 8);
        assert_eq!(counts(&back), of(&[("web", 2), ("clock", 1)]));
        assert!(!back.process_types().contains("worker"));
        // A revision that has it keeps what is wanted of it.
        let (again, _) = rolled_back(&app, app.revisions.last().expect("kept"), 8);
        assert_eq!(again.scale, app.scale);
    }

    #[test]
    fn what_has_changed_is_told_in_the_words_of_a_manifest() {
        let of = |run: &str| declared(run).release.expect("a release");
        let old = of("memory = \"32MiB\"\n[env]\nSECRET = \"a\"\n");
        assert_eq!(changed(&old, &old), [""; 0]);
        let new =
            of("memory = \"48MiB\"\n[env]\nSECRET = \"b\"\n[process.web]\n[process.worker]\n");
        let droplet = Release { droplet: old.droplet, ..new.clone() };
        assert_eq!(changed(&old, &droplet), ["env.SECRET", "process.worker", "run.memory"]);
        let mut moved = new.clone();
        moved.manifest.source = "/elsewhere".into();
        assert_eq!(changed(&droplet, &moved), ["droplet"]);
        let more = of("memory = \"48MiB\"\n[process.web]\n[process.worker]\ninstances = 3\n");
        assert_eq!(changed(&new, &more), ["droplet", "env.SECRET", "process.worker.instances"]);
    }

    #[test]
    fn to_go_back_makes_a_revision_of_old_content() {
        let app = ran(&["b", "c"]);
        let first = target(&app, None).expect("the one before");
        assert_eq!(first.number, 2);
        let (back, number) = rolled_back(&app, first, 7);
        assert_eq!((number, back.release.as_ref()), (4, Some(&first.release)));
        // What was away is not asked for any more.
        let away = AppRecord { away: true, ..app.clone() };
        assert!(!rolled_back(&away, first, 7).0.away);
        assert_eq!(back.staged, Some(back.generation));
        assert_eq!(back.last_good, app.release, "what it goes back from may come back");
        let why = |at: usize| shape(&back)[at].clone();
        assert_eq!((why(2).1, why(3)), (false, (4, true, "rollback to 2".into())));
        // The file still says what it said, however often one goes back.
        let declared = Some(digest(&app.manifest));
        assert_eq!(back.overruled, declared);
        let (again, _) = rolled_back(&back, target(&back, Some(1)).expect("kept"), 8);
        assert_eq!(again.overruled, declared);
        // Once more without a number: not to itself.
        assert_eq!(target(&back, None).map(|it| it.number), Ok(3));
        let err = target(&app, Some(9)).expect_err("refused");
        assert!(err.contains("no revision 9; it has 1, 2, 3"), "{err}");
        assert!(target(&ran(&[]), None).expect_err("refused").contains("nothing to go back to"));
    }
}
