//! The manifest directories: files that appear are applied, files that go away take their app
//! along.
//!
//! `/etc/terrarium/apps.d/NAME.toml` stands over `/usr/lib/terrarium/apps.d/NAME.toml`; a link to
//! /dev/null, or an empty file, masks the vendor's. Apps applied by hand are left alone.

use super::notify;
use crate::cell::Cell;
use crate::config::machine::Config;
use crate::config::{Diagnostic, Diagnostics, manifest};
use crate::log::chain;
use crate::model::manifest::Manifest;
use crate::sys;
use crate::unit::AppName;
use async_io::{Async, Timer};
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fs, io};

/// Changes this close together are looked at once: an editor writes, renames and touches.
const SETTLE: Duration = Duration::from_millis(200);

/// From a directory that could not be read or watched to the next try.
const AGAIN: Duration = Duration::from_secs(10);

/// What is known of one file.
#[derive(Clone, PartialEq, Eq)]
struct Seen {
    path: PathBuf,
    /// Why not: it is there but cannot be read.
    text: Result<String, String>,
}

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
    // What was told of it last, so that it is told once.
    let mut trouble = None;
    loop {
        let mut looked = Ok(0);
        // First, so that nothing comes between the look and the watch; and each time, for a
        // directory may be another one of the same name by now.
        let watch = sys::event::directory_changes(&dirs).and_then(Async::new);
        let watch = watch.map_err(|err| looked = Err(format!("cannot watch the manifests: {err}")));
        match missing(&dirs, &mut there).map_or_else(|| read(&dirs, &known), Err) {
            Ok(found) => {
                looked = looked.map(|_| found.len());
                look(&dirs, cell, &mut known, found).await;
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
        wait(watch.as_ref().ok(), trouble.is_some()).await;
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
async fn wait(watch: Option<&Async<OwnedFd>>, again: bool) {
    let later = async {
        if !again {
            smol::future::pending::<()>().await;
        }
        Timer::after(AGAIN).await;
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

/// One look at what the directories hold. `known`: the files that need no more attention as they
/// are.
async fn look(
    dirs: &[PathBuf],
    cell: &Cell,
    known: &mut BTreeMap<String, Seen>,
    found: BTreeMap<String, Seen>,
) {
    let have: BTreeMap<AppName, PathBuf> = cell.files().into_iter().collect();
    let mut fresh = |name: &String, seen: &Seen| {
        let fresh = known.get(name) != Some(seen);
        known.insert(name.clone(), seen.clone());
        fresh
    };
    // The file that speaks for each app, and files that speak for none as they are.
    let mut spokesmen: BTreeMap<AppName, (&String, &Seen, Manifest, bool)> = BTreeMap::new();
    let mut mute: BTreeSet<&Path> = BTreeSet::new();
    let mut refused: BTreeMap<PathBuf, String> = BTreeMap::new();
    for (name, seen) in &found {
        let path = seen.path.display().to_string();
        let parsed = seen.text.as_ref().map(|text| {
            let dir = seen.path.parent().unwrap_or(Path::new("/"));
            manifest::parse(text, &path, dir)
        });
        let mut refuse = |path: &Path, why: String| drop(refused.insert(path.to_owned(), why));
        let fresh = fresh(name, seen);
        match parsed {
            Err(why) => {
                mute.insert(&seen.path);
                refuse(&seen.path, why.clone());
            }
            Ok(Err(mistakes)) => {
                mute.insert(&seen.path);
                refuse(&seen.path, brief(&mistakes));
                if fresh {
                    crate::error!("manifest.refused", path = path, err = brief(&mistakes));
                }
            }
            Ok(Ok(manifest)) => {
                let app = manifest.name.clone();
                let claim = (name, seen, manifest, fresh);
                let other = match spokesmen.entry(app.clone()) {
                    Entry::Vacant(entry) => {
                        entry.insert(claim);
                        continue;
                    }
                    // Two files of one app: the one that it runs from, else the first.
                    Entry::Occupied(mut entry) if have.get(&app) == Some(&seen.path) => {
                        entry.insert(claim)
                    }
                    Entry::Occupied(_) => claim,
                };
                let why = format!("app {app} has another file here");
                refuse(&other.1.path, why.clone());
                if other.3 || fresh {
                    crate::error!("manifest.refused", path = other.1.path.display(), err = why);
                }
            }
        }
    }
    let ours = |file: &Path| dirs.iter().any(|dir| file.parent() == Some(dir));
    let there = |file: &Path| found.values().any(|seen| seen.path == file);
    for (app, file) in &have {
        // Who makes a mistake in a manifest does not mean to delete the app.
        if ours(file) && !spokesmen.contains_key(app) && !mute.contains(file.as_path()) {
            crate::info!("app.removed", app = app, path = file.display());
            remove(cell, app).await;
        }
    }
    for (app, (name, seen, manifest, fresh)) in spokesmen {
        // Deleted or applied by hand since: that is left alone until the file changes.
        let file_is_new = fresh || have.get(&app).is_some_and(|file| ours(file) && !there(file));
        if !file_is_new || cell.has(&manifest, &seen.path) {
            continue;
        }
        if cell.is_leaving(&app) {
            remove(cell, &app).await;
        }
        let text = seen.text.as_deref().unwrap_or_default();
        match cell.apply(text, &seen.path, None, false).await {
            Ok(app) => crate::info!("app.applied", app = app, path = seen.path.display()),
            Err(err) => {
                // What is in its way may be gone at the next look.
                known.remove(name);
                refused.insert(seen.path.clone(), err.brief().to_owned());
                crate::error!("manifest.refused", path = seen.path.display(), err = err.brief());
            }
        }
    }
    known.retain(|name, _| found.contains_key(name));
    cell.refuse(refused);
}

/// Where the mistakes are and what they are, without the lines themselves: they may hold secrets.
fn brief(mistakes: &Diagnostics) -> String {
    let one = |it: &Diagnostic| format!("{}:{}: {}", it.line, it.column, it.message);
    mistakes.iter().map(one).collect::<Vec<_>>().join("; ")
}

async fn remove(cell: &Cell, app: &AppName) {
    if let Err(err) = cell.delete(app.as_str()).await {
        crate::error!("app.undeleted", app = app, err = chain(&err));
    }
}

/// The files that count, by name. A directory that is there and cannot be read is an error: who
/// takes it for an empty one deletes all its apps.
fn read(
    dirs: &[PathBuf],
    known: &BTreeMap<String, Seen>,
) -> Result<BTreeMap<String, Seen>, String> {
    let mut found: BTreeMap<String, Seen> = BTreeMap::new();
    for dir in dirs {
        let files = manifests(dir).map_err(|err| {
            format!("cannot read {}, which must be a directory: {err}", dir.display())
        })?;
        for (name, path) in files {
            match text_of(&path) {
                Ok(text) if text.trim().is_empty() => drop(found.remove(&name)),
                Ok(text) => drop(found.insert(name, Seen { path, text: Ok(text) })),
                // It went away just now, or is a link to nothing.
                Err(err) if err.kind() == io::ErrorKind::NotFound => {}
                Err(err) => {
                    let seen = Seen { path, text: Err(err.to_string()) };
                    if known.get(&name) != Some(&seen) {
                        let path = seen.path.display();
                        crate::error!("manifest.unread", path = path, err = err);
                    }
                    found.insert(name, seen);
                }
            }
        }
    }
    Ok(found)
}

/// A manifest's text; nothing for /dev/null. Anything else, such as a pipe, would be waited for.
fn text_of(path: &Path) -> io::Result<String> {
    let kind = fs::metadata(path)?.file_type();
    match kind.is_file() {
        true => fs::read_to_string(path),
        false if kind.is_char_device() => Ok(String::new()),
        false => Err(io::Error::other("it is not a file")),
    }
}

/// `NAME.toml` files of a directory, by name; none when it is not there.
fn manifests(dir: &Path) -> io::Result<Vec<(String, PathBuf)>> {
    let items = match fs::read_dir(dir) {
        Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        items => items?,
    };
    let mut found = Vec::new();
    for item in items {
        let Ok(name) = item?.file_name().into_string() else { continue };
        if !name.starts_with('.') && name.ends_with(".toml") {
            found.push((name.clone(), dir.join(name)));
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_cannot_be_read_is_not_an_empty_one() {
        let root = std::env::temp_dir().join(format!("terrarium-appsd-{}", std::process::id()));
        let dirs = ["lib", "etc"].map(|name| root.join(name));
        fs::create_dir_all(&dirs[0]).expect("directory");
        fs::write(dirs[0].join("web.toml"), "x").expect("manifest");
        let found = read(&dirs, &BTreeMap::new()).expect("one that is missing is empty");
        assert_eq!(found.len(), 1);
        fs::write(&dirs[1], "a file in its place").expect("file");
        let err = read(&dirs, &BTreeMap::new()).err().expect("refused");
        assert!(err.contains("/etc, which must be a directory"), "{err}");
        fs::remove_dir_all(&root).expect("clean up");
    }
}
