//! Who looks after what is in the store, which this room knows nothing of.

use super::VolumeError;
use super::store::Store;
use crate::unit::Bytes;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// What was removed is free only when the kernel's cleaner has been through it: how long we wait for
/// that, and how often we look.
const CLEANED: Duration = Duration::from_secs(20);
const LOOK: Duration = Duration::from_millis(100);

/// So much does not fit; `true`: something was removed.
type Answer = dyn Fn(Bytes) -> bool + Send + Sync;

/// The keeper, and whether the store's daemon ends.
#[derive(Default)]
pub(super) struct Keeper {
    answer: OnceLock<Box<Answer>>,
    ending: Arc<AtomicBool>,
    /// One calls at a time: what he gets may do for the next one.
    turn: Mutex<()>,
}

impl fmt::Debug for Keeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keeper").field("ending", &self.ending).finish_non_exhaustive()
    }
}

impl Store {
    /// Names the keeper: `answer` is told how many bytes do not fit, and says whether it has removed
    /// something. It is called from any thread that works in the store, which holds nothing but turns
    /// and pins. The first one counts.
    pub fn keep_with(&self, answer: impl Fn(Bytes) -> bool + Send + Sync + 'static) {
        let _ = self.keeper.answer.set(Box::new(answer));
    }

    /// The daemon ends: what takes long ends now.
    pub fn end(&self) {
        self.keeper.ending.store(true, Ordering::Release);
    }

    /// Whether it ends.
    pub fn is_ending(&self) -> bool {
        self.keeper.ending.load(Ordering::Acquire)
    }

    /// The same, for who asks again and again.
    pub fn ending(&self) -> Arc<AtomicBool> {
        self.keeper.ending.clone()
    }

    /// Tries again what found no room for `need`, when the keeper has removed something.
    pub(super) fn after_removal(
        &self,
        need: Bytes,
        full: VolumeError,
        again: &dyn Fn() -> Result<(), VolumeError>,
    ) -> Result<(), VolumeError> {
        let _turn = self.keeper.turn.lock().unwrap_or_else(PoisonError::into_inner);
        // Somebody else may have called meanwhile.
        if again().is_ok() {
            return Ok(());
        }
        if !self.keeper.answer.get().is_some_and(|answer| answer(need)) {
            return Err(full);
        }
        let begin = Instant::now();
        loop {
            self.write_down()?;
            match again() {
                Err(err) if err.is_full() && begin.elapsed() < CLEANED && !self.is_ending() => {
                    // No event: the kernel does not tell when its cleaner is done.
                    std::thread::sleep(LOOK);
                }
                done => return done,
            }
        }
    }
}
