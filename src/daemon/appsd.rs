//! The manifest directories: files that appear are applied, files that go away take their app
//! along.
//!
//! `/etc/terrarium/apps.d/NAME.toml` stands over the same name in `/run/terrarium/apps.d`, and that over
//! `/usr/lib/terrarium/apps.d`; a link to /dev/null, or an empty file, masks a lower one. What stands in
//! `NAME.toml.d/*.toml` is laid over it, key by key.
//!
//! Whoever made an app owns it: one that was applied by hand from another file is left alone, and the
//! file here is refused by name. No app goes while any file of the set cannot be read: it may be the
//! one that the app has moved to.

mod found;

use super::notify;
use crate::cell::{Cell, Declaration, How};
use crate::config::machine::Config;
use crate::config::waits;
use crate::log::chain;
use crate::model::manifest::{HealthTimes, Manifest};
use crate::sys;
use crate::unit::AppName;
use async_io::{Async, Timer};
use found::{Seen, drop_in_dirs, is_in_doubt, read};
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Changes this close together are looked at once: an editor writes, renames and touches.
const SETTLE: Duration = Duration::from_millis(200);

/// From a directory that could not be read or watched to the next try.
const AGAIN: Duration = Duration::from_secs(10);

/// From a file that has become empty to the next look: who writes it slowly is not done yet.
const DOUBT: Duration = Duration::from_secs(2);

/// Makes the directories, before anybody is told that they are there.
pub fn make_dirs(config: &Config) {
    for dir in config.paths.apps() {
        // A vendor directory that is not there cannot be made on a read-only /usr; etc can.
        let _ = fs::create_dir_all(dir);
    }
}

/// Applies what there is and follows the changes; never ends.
pub async fn follow(config: &Config, cell: &Cell) {
    // Lowest precedence first.
    let mut dirs = config.paths.apps();
    dirs.reverse();
    let mut known = BTreeMap::new();
    let mut there = BTreeSet::new();
    let mut hollow = BTreeSet::new();
    // What was told of it last, so that it is told once.
    let mut trouble = None;
    loop {
        let mut looked = Ok(0);
        let mut again = None;
        // First, so that nothing comes between the look and the watch; and each time, for a
        // directory may be another one of the same name by now.
        let watched: Vec<PathBuf> = dirs.iter().cloned().chain(drop_in_dirs(&dirs)).collect();
        let watch = sys::event::directory_changes(&watched).and_then(Async::new);
        let watch = watch.map_err(|err| looked = Err(format!("cannot watch the manifests: {err}")));
        let found = match missing(&dirs, &mut there) {
            Some(gone) => Err(gone),
            None => read(&dirs, &known, &mut hollow),
        };
        match found {
            Ok(found) => {
                looked = looked.map(|_| found.len());
                again = is_in_doubt(&found, &hollow).then_some(DOUBT);
                look(&dirs, cell, &mut known, found, config.health.times).await;
            }
            // It says more than the watch can.
            Err(err) => looked = Err(err),
        }
        match &looked {
            Ok(number) => notify::status(format!("Serving; manifests in apps.d: {number}")),
            Err(err) if trouble.as_ref() != Some(err) => {
                crate::error!("apps.unread", err = err);
                notify::status(format!("Serving; {err}; apps stay as they are"));
            }
            Err(_) => {}
        }
        trouble = looked.err();
        wait(watch.as_ref().ok(), again.or(trouble.as_ref().map(|_| AGAIN))).await;
    }
}

/// A directory that was there before and is not: somebody is putting another in its place, or has
/// removed it. That is found out by the next look, which takes it for an empty one.
fn missing(dirs: &[PathBuf], there: &mut BTreeSet<PathBuf>) -> Option<String> {
    let gone: Vec<&PathBuf> =
        dirs.iter().filter(|dir| there.contains(*dir) && !dir.is_dir()).collect();
    let first = gone.first().map(|dir| format!("{} is gone", dir.display()));
    *there = dirs.iter().filter(|dir| dir.is_dir()).cloned().collect();
    first
}

/// Waits until something has changed, or until it is time for another try.
async fn wait(watch: Option<&Async<OwnedFd>>, again: Option<Duration>) {
    let later = async {
        match again {
            Some(again) => drop(Timer::after(again).await),
            None => smol::future::pending().await,
        }
    };
    let changed = async {
        match watch {
            Some(watch) if watch.readable().await.is_ok() => drop(Timer::after(SETTLE).await),
            _ => smol::future::pending().await,
        }
    };
    smol::future::or(changed, later).await;
    if let Some(Err(err)) = watch.map(|watch| sys::event::drain(watch.get_ref())) {
        crate::warn!("apps.watch", err = err);
    }
}

/// The file that speaks for an app: its name, what is known of it, the whole text, and whether it is as
/// it was at the last look.
struct Claim<'a> {
    name: &'a String,
    seen: &'a Seen,
    text: String,
    manifest: Manifest,
    fresh: bool,
}

/// What the files say together.
#[derive(Default)]
struct Set<'a> {
    /// By app.
    spokesmen: BTreeMap<AppName, Claim<'a>>,
    /// Why some are not followed.
    refused: BTreeMap<PathBuf, String>,
    /// Of these it is not known which app they speak for.
    mute: usize,
}

/// One look at what the directories hold. `known`: the files that need no more attention as they
/// are; `usual`: the box's own times of checks.
async fn look(
    dirs: &[PathBuf],
    cell: &Cell,
    known: &mut BTreeMap<String, Seen>,
    found: BTreeMap<String, Seen>,
    usual: HealthTimes,
) {
    let have: BTreeMap<AppName, PathBuf> = cell.files().into_iter().collect();
    let Set { mut spokesmen, mut refused, mute } = sort(&found, known, &have, usual);
    let ours = |file: &Path| dirs.iter().any(|dir| file.parent() == Some(dir));
    let there = |file: &Path| found.values().any(|seen| seen.path == file);
    for (app, file) in have.iter().filter(|(app, file)| ours(file) && !spokesmen.contains_key(app))
    {
        // Who makes a mistake in a manifest does not mean to delete an app, this one or another.
        if mute == 0 {
            crate::info!("app.removed", app = app, path = file.display());
            remove(cell, app).await;
        } else if !there(file) {
            crate::warn!("app.kept", app = app, path = file.display(), files = mute);
        }
    }
    // Who is waited for is there first.
    let waits =
        spokesmen.iter().map(|(app, claim)| (app.clone(), claim.manifest.waits())).collect();
    for app in waits::in_order(&waits) {
        let Some(claim) = spokesmen.remove(&app) else { continue };
        let path = &claim.seen.path;
        if let Some(other) = have.get(&app).filter(|file| !ours(file)) {
            let why = format!(
                "app {app} was applied from {}; `terrarium apply {}` hands it over to this file",
                other.display(),
                path.display()
            );
            if claim.fresh {
                crate::error!("manifest.refused", path = path.display(), err = why);
            }
            refused.insert(path.clone(), why);
            // Until its owner lets go of it.
            known.remove(claim.name);
            continue;
        }
        // Deleted since: that is left alone until the file changes.
        let file_is_new =
            claim.fresh || have.get(&app).is_some_and(|file| ours(file) && !there(file));
        if !file_is_new || cell.has(&claim.manifest, path) {
            continue;
        }
        if cell.is_leaving(&app) {
            remove(cell, &app).await;
        }
        let how = How::ToStay;
        let wanted =
            Declaration { text: &claim.text, file: path, pushed: None, counted: false, how };
        match cell.apply(wanted, None).await {
            Ok(app) => crate::info!("app.applied", app = app, path = path.display()),
            Err(err) => {
                // What is in its way may be gone at the next look.
                known.remove(claim.name);
                refused.insert(path.clone(), err.brief().to_owned());
                crate::error!("manifest.refused", path = path.display(), err = err.brief());
            }
        }
    }
    known.retain(|name, _| found.contains_key(name));
    cell.refuse(refused);
}

/// Which file speaks for which app. `have`: the apps that are there, and from which file.
fn sort<'a>(
    found: &'a BTreeMap<String, Seen>,
    known: &mut BTreeMap<String, Seen>,
    have: &BTreeMap<AppName, PathBuf>,
    usual: HealthTimes,
) -> Set<'a> {
    let mut set = Set::default();
    for (name, seen) in found {
        let fresh = known.get(name) != Some(seen);
        known.insert(name.clone(), seen.clone());
        let (text, manifest) = match seen.whole(usual) {
            Ok(whole) => whole,
            Err(why) => {
                set.mute += 1;
                if fresh && seen.text.is_ok() {
                    crate::error!("manifest.refused", path = seen.path.display(), err = why);
                }
                set.refused.insert(seen.path.clone(), why);
                continue;
            }
        };
        let app = manifest.name.clone();
        let claim = Claim { name, seen, text, manifest, fresh };
        let other = match set.spokesmen.entry(app.clone()) {
            Entry::Vacant(entry) => {
                entry.insert(claim);
                continue;
            }
            // Two files of one app: the one that it runs from, else the first.
            Entry::Occupied(mut entry) if have.get(&app) == Some(&seen.path) => entry.insert(claim),
            Entry::Occupied(_) => claim,
        };
        let speaks = set.spokesmen[&app].seen.path.display();
        let why = format!("app {app} has another file here, {speaks}; remove one of them");
        if other.fresh || fresh {
            crate::error!("manifest.refused", path = other.seen.path.display(), err = why);
        }
        set.refused.insert(other.seen.path.clone(), why);
    }
    set
}

async fn remove(cell: &Cell, app: &AppName) {
    if let Err(err) = cell.delete(app.as_str()).await {
        crate::error!("app.undeleted", app = app, err = chain(&err));
    }
}
