//! The room of what is on its way: it counts like what is kept, which goes for it. Several that come at
//! once and find none beside each other wait, but for one; that one has its own bound, the cache's size
//! for what comes and for what is made of it.

use super::given_up::GivenUp;
use super::{FetchError, Inner};
use std::fs::{self, File};
use std::io::{self, Write};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

/// How long a download that finds no room beside others waits for their end, as long as an attempt
/// may take; and between two looks at whether it is given up.
pub(super) const CROWDED_MAX: Duration = Duration::from_secs(600);
const CROWDED_LOOK: Duration = Duration::from_secs(1);

/// The room of what is on its way, or was and is read now.
pub(super) struct Coming {
    inner: Arc<Inner>,
    who: u64,
}

impl Coming {
    /// Of `who`, a number of its own; nothing yet.
    pub(super) fn new(inner: &Arc<Inner>, who: u64) -> Coming {
        Coming { inner: inner.clone(), who }
    }

    /// Whose it is, for the index.
    pub(super) fn who(&self) -> u64 {
        self.who
    }
}

impl Drop for Coming {
    fn drop(&mut self) {
        self.inner.index().forget(self.who);
        self.inner.freed.notify_all();
    }
}

/// A file that takes its room as it grows.
pub(super) struct Room<'a> {
    file: &'a mut File,
    coming: &'a Coming,
    is_crowded: bool,
}

impl Room<'_> {
    pub(super) fn of<'a>(file: &'a mut File, coming: &'a Coming) -> Room<'a> {
        Room { file, coming, is_crowded: false }
    }

    /// There was none.
    pub(super) fn is_crowded(&self) -> bool {
        self.is_crowded
    }
}

impl Write for Room<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if !self.coming.inner.grow(self.coming.who, bytes.len() as u64) {
            self.is_crowded = true;
            return Err(io::Error::other(crowded()));
        }
        self.file.write_all(bytes).map(|()| bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Inner {
    /// Returns when nothing is on its way, holding nothing meanwhile; not after `end`.
    pub(super) fn wait_for_others(
        &self,
        end: Instant,
        given_up: &GivenUp,
    ) -> Result<(), FetchError> {
        let mut index = self.index();
        while index.is_coming() {
            if Instant::now() >= end || given_up.is() {
                return Err(crowded());
            }
            let waited = self.freed.wait_timeout(index, CROWDED_LOOK);
            index = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        Ok(())
    }

    /// Takes the room of so many more bytes on their way; `false`: there is none.
    pub(super) fn grow(&self, who: u64, bytes: u64) -> bool {
        let mut index = self.index();
        let Some(gone) = index.come(who, bytes, self.most) else { return false };
        if !gone.is_empty() {
            if let Err(err) = self.write(&index) {
                crate::warn!("download.unkept", err = err);
            }
            gone.iter().for_each(|entry| drop(fs::remove_file(self.dir.join(&entry.file))));
        }
        true
    }
}

/// Why something does not come, though it may come another time.
pub(super) fn crowded() -> FetchError {
    FetchError("there is no room for it beside other downloads ([downloads] size)".into())
}
