//! The manifest directories: files that appear are applied, files that go away take their app
//! along.
//!
//! `/etc/terrarium/apps.d/NAME.toml` stands over `/usr/lib/terrarium/apps.d/NAME.toml`; a link to
//! /dev/null, or an empty file, masks the vendor's. Apps applied by hand are left alone.

use crate::cell::Cell;
use crate::config::machine::Config;
use crate::log::chain;
use crate::sys;
use async_io::Async;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Changes this close together are looked at once: an editor writes, renames and touches.
const SETTLE: Duration = Duration::from_millis(200);

/// What is known of one file.
#[derive(Clone, PartialEq, Eq)]
struct Seen {
    path: PathBuf,
    text: String,
}

/// Applies what there is and follows the changes; never ends.
pub async fn follow(config: &Config, cell: &Cell) {
    // Lowest precedence first.
    let mut dirs = config.paths.apps();
    dirs.reverse();
    for dir in &dirs {
        // A vendor directory that is not there cannot be made on a read-only /usr; etc can.
        let _ = fs::create_dir_all(dir);
    }
    let watch = sys::event::directory_changes(&dirs).and_then(Async::new);
    let mut known = BTreeMap::new();
    loop {
        look(&dirs, cell, &mut known).await;
        let Ok(watch) = &watch else {
            crate::error!("apps.unwatched", dir = config.paths.etc.display());
            return smol::future::pending().await;
        };
        if watch.readable().await.is_err() {
            return;
        }
        async_io::Timer::after(SETTLE).await;
        if let Err(err) = sys::event::drain(watch.get_ref()) {
            crate::warn!("apps.watch", err = err);
        }
    }
}

/// One look at the directories.
async fn look(dirs: &[PathBuf], cell: &Cell, known: &mut BTreeMap<String, Seen>) {
    let mut found: BTreeMap<String, Seen> = BTreeMap::new();
    for dir in dirs {
        for (name, path) in manifests(dir) {
            match fs::read_to_string(&path) {
                Ok(text) if text.trim().is_empty() => drop(found.remove(&name)),
                Ok(text) => drop(found.insert(name, Seen { path, text })),
                Err(err) => crate::error!("manifest.unread", path = path.display(), err = err),
            }
        }
    }
    for (name, seen) in &found {
        if known.get(name) == Some(seen) || already(cell, seen) {
            continue;
        }
        match cell.apply(&seen.text, &seen.path, None).await {
            Ok(app) => crate::info!("app.applied", app = app, path = seen.path.display()),
            Err(err) => {
                crate::error!("manifest.refused", path = seen.path.display(), err = chain(&err));
            }
        }
    }
    for (app, file) in cell.files() {
        let ours = dirs.iter().any(|dir| file.parent() == Some(dir));
        if ours && !found.values().any(|seen| seen.path == file) {
            crate::info!("app.removed", app = app, path = file.display());
            if let Err(err) = cell.delete(app.as_str()).await {
                crate::error!("app.undeleted", app = app, err = chain(&err));
            }
        }
    }
    *known = found;
}

/// The records hold this very manifest already: nothing changed while the daemon was away.
fn already(cell: &Cell, seen: &Seen) -> bool {
    let dir = seen.path.parent().unwrap_or(Path::new("/"));
    crate::config::manifest::parse(&seen.text, &seen.path.display().to_string(), dir)
        .is_ok_and(|manifest| cell.has(&manifest, &seen.path))
}

/// `NAME.toml` files of a directory, by name.
fn manifests(dir: &Path) -> Vec<(String, PathBuf)> {
    let Ok(items) = fs::read_dir(dir) else { return Vec::new() };
    let mut found: Vec<_> = items
        .filter_map(|item| {
            let name = item.ok()?.file_name().into_string().ok()?;
            let hidden = name.starts_with('.') || !name.ends_with(".toml");
            (!hidden).then(|| (name.clone(), dir.join(name)))
        })
        .collect();
    found.sort();
    found
}
