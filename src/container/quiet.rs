//! When the box has time for what nobody waits for.
//!
//! Making half a container takes the processors and the kernel's locks from whoever is asked for something
//! meanwhile. So between its steps it waits until no container is being made, removed or told to start a
//! process, nor has been for a moment. Each wait has an end, and none is when somebody waits for the half.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// What follows one request at once is the next one of the same client.
const PAUSE: Duration = Duration::from_millis(5);

/// Who is busy.
#[derive(Default)]
pub(super) struct Quiet {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Requests under way.
    busy: usize,
    /// When the last of them was over.
    last: Option<Instant>,
    /// Those who wait for what is done in quiet moments.
    hurry: usize,
}

/// A request under way, until it is dropped.
pub(super) struct Busy(Arc<Quiet>);

/// Nothing is waited for until this is dropped.
pub(super) struct Hurry<'a>(&'a Quiet);

impl Quiet {
    /// A request begins.
    pub(super) fn begin(self: &Arc<Self>) -> Busy {
        self.state().busy += 1;
        Busy(self.clone())
    }

    /// Somebody waits for what is done in quiet moments: it goes on at once.
    pub(super) fn hurry(&self) -> Hurry<'_> {
        self.state().hurry += 1;
        self.changed.notify_all();
        Hurry(self)
    }

    /// Waits for a quiet moment, but no longer than `most`; whether there is one.
    pub(super) fn wait(&self, most: Duration) -> bool {
        let begun = Instant::now();
        let mut state = self.state();
        loop {
            let since = state.last.map_or(PAUSE, |last| last.elapsed());
            let left = match (state.busy, PAUSE.checked_sub(since)) {
                (0, None | Some(Duration::ZERO)) => return true,
                (0, Some(rest)) => rest,
                (_, _) => most,
            };
            let left = left.min(most.saturating_sub(begun.elapsed()));
            if state.hurry > 0 || left.is_zero() {
                return false;
            }
            let waited = self.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.busy -= 1;
        state.last = Some(Instant::now());
        if state.busy == 0 {
            self.0.changed.notify_all();
        }
    }
}

impl Drop for Hurry<'_> {
    fn drop(&mut self) {
        self.0.state().hurry -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(600);

    #[test]
    fn what_nobody_waits_for_waits_until_nobody_is_busy() {
        let quiet = Arc::new(Quiet::default());
        assert!(quiet.wait(LONG), "nothing has happened yet");
        let (first, second) = (quiet.begin(), quiet.begin());
        drop(first);
        assert!(
            !quiet.wait(Duration::from_millis(20)),
            "one is busy still, and the wait has an end"
        );
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| quiet.wait(LONG));
            drop(second);
            assert!(waits.join().expect("no panic"));
        });
        let over = quiet.state().last.expect("a request was there");
        assert!(over.elapsed() >= PAUSE, "a moment after the last");
    }

    #[test]
    fn who_waits_for_it_has_it_go_on() {
        let quiet = Arc::new(Quiet::default());
        let _busy = quiet.begin();
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| quiet.wait(LONG));
            let hurry = quiet.hurry();
            assert!(!waits.join().expect("no panic"));
            drop(hurry);
        });
        assert!(!quiet.wait(Duration::from_millis(1)), "it ends by itself again");
        assert_eq!(quiet.state().hurry, 0);
    }
}
