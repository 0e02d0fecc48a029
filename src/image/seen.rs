//! The latest time that a server's certificate vouched for, over restarts: where the box's clock begins
//! anew at each boot, a certificate that was too old by then stays so.
//!
//! ```text
//! clock      empty; the time it was written is that time
//! ```

use crate::sys::clock;
use crate::volume::Store;
use std::fs::{self, File};
use std::path::PathBuf;
use std::time::{Duration, UNIX_EPOCH};

/// Less is not worth a write.
const WORTH: Duration = Duration::from_secs(24 * 3600);

/// What was noted counts from here on.
pub fn recall(store: &Store) {
    clock::vouch(noted(store));
}

/// Notes what is known now.
pub fn note(store: &Store) {
    let (known, path) = (clock::vouched(), path(store));
    if known < noted(store).saturating_add(WORTH) {
        return;
    }
    let file = File::options().create(true).append(true).open(&path);
    if let Err(err) = file.and_then(|file| file.set_modified(UNIX_EPOCH + known)) {
        crate::warn!("clock.not_noted", path = path.display(), err = err);
    }
}

fn noted(store: &Store) -> Duration {
    let written = fs::metadata(path(store)).and_then(|meta| meta.modified()).ok();
    written.and_then(|at| at.duration_since(UNIX_EPOCH).ok()).unwrap_or_default()
}

fn path(store: &Store) -> PathBuf {
    store.dir().join("clock")
}
