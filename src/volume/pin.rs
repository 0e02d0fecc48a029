//! Layers that are about to be used, and who makes what at the moment.
//!
//! Removing unused layers is done in three steps: begin a [`Round`], find out which layers are in
//! use, remove the others. A layer that is pinned, or was at any time of the round, is not
//! removed: whoever had it may by now have written it down where the second step no longer looked.

use super::VolumeError;
use super::store::Store;
use crate::unit::Digest;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How often somebody who waits for a turn looks whether he still has to.
const LOOK: Duration = Duration::from_millis(100);

/// Pins of one store.
#[derive(Debug, Default)]
pub(super) struct Pins {
    held: BTreeMap<Digest, usize>,
    /// Let go while a round was open.
    touched: BTreeSet<Digest>,
    rounds: usize,
}

/// Keeps layers, there already or not yet, from being removed for as long as it lives. The default
/// keeps nothing.
#[derive(Debug, Default)]
pub struct Pin {
    pins: Arc<Mutex<Pins>>,
    layers: Vec<Digest>,
}

/// A search for unused layers.
#[derive(Debug)]
pub struct Round<'a> {
    store: &'a Store,
}

/// Things that are being made, by key; who wants the same waits.
#[derive(Debug, Default)]
pub(super) struct Turns {
    all: Mutex<Keys>,
    given_back: Condvar,
}

#[derive(Debug, Default)]
struct Keys {
    taken: BTreeSet<Digest>,
    /// How many wait for each.
    wanted: BTreeMap<Digest, usize>,
}

/// The right to make one thing, given back when it is dropped.
#[derive(Debug)]
pub struct Turn<'a> {
    turns: &'a Turns,
    key: Digest,
}

impl Store {
    /// Keeps `layers`. First pin, then look whether they are there: then they stay.
    pub fn pin(&self, layers: &[Digest]) -> Pin {
        let pin = Pin { pins: self.pins.clone(), layers: layers.to_vec() };
        pin.take();
        pin
    }

    /// Begins a search for unused layers.
    pub fn begin_round(&self) -> Round<'_> {
        lock(&self.pins).rounds += 1;
        Round { store: self }
    }

    /// Waits until nobody else has the turn of `key`, and takes it. Nobody may hold one turn and
    /// wait for another, but for a blob's, with an image's in hand.
    pub fn turn(&self, key: &Digest) -> Turn<'_> {
        self.turns.take(key)
    }

    /// The same, until `is_over`; then `None`.
    pub fn turn_until(&self, key: &Digest, is_over: &dyn Fn() -> bool) -> Option<Turn<'_>> {
        self.turns.take_until(key, is_over)
    }

    /// Whether somebody has the turn of `key` now.
    pub fn is_taken(&self, key: &Digest) -> bool {
        lock(&self.turns.all).taken.contains(key)
    }

    /// Whether a layer is pinned now.
    pub fn is_pinned(&self, layer: &Digest) -> bool {
        lock(&self.pins).held.contains_key(layer)
    }
}

impl Pin {
    fn take(&self) {
        let mut pins = lock(&self.pins);
        for layer in &self.layers {
            *pins.held.entry(*layer).or_default() += 1;
        }
    }
}

impl Clone for Pin {
    fn clone(&self) -> Pin {
        let pin = Pin { pins: self.pins.clone(), layers: self.layers.clone() };
        pin.take();
        pin
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        let mut pins = lock(&self.pins);
        for layer in &self.layers {
            if pins.rounds > 0 {
                pins.touched.insert(*layer);
            }
            match pins.held.get_mut(layer) {
                Some(count) if *count > 1 => *count -= 1,
                _ => {
                    pins.held.remove(layer);
                }
            }
        }
    }
}

impl Round<'_> {
    /// Removes a layer that nothing was found to use, unless it is pinned or was since this round
    /// began; then, `false`.
    pub fn remove(&self, chain: &Digest) -> Result<bool, VolumeError> {
        // Held meanwhile: a pin that comes later finds the layer whole or not at all.
        let pins = lock(&self.store.pins);
        if pins.held.contains_key(chain) || pins.touched.contains(chain) {
            return Ok(false);
        }
        self.store.remove_layer(chain).map(|()| true)
    }
}

impl Drop for Round<'_> {
    fn drop(&mut self) {
        let mut pins = lock(&self.store.pins);
        pins.rounds -= 1;
        if pins.rounds == 0 {
            pins.touched.clear();
        }
    }
}

impl Turns {
    fn take(&self, key: &Digest) -> Turn<'_> {
        let mut all = lock(&self.all);
        all.want(key);
        while !all.taken.insert(*key) {
            all = self.given_back.wait(all).unwrap_or_else(PoisonError::into_inner);
        }
        all.want_no_more(key);
        Turn { turns: self, key: *key }
    }

    fn take_until(&self, key: &Digest, is_over: &dyn Fn() -> bool) -> Option<Turn<'_>> {
        let mut all = lock(&self.all);
        all.want(key);
        let mut is_ours = all.taken.insert(*key);
        while !is_ours && !is_over() {
            let waited = self.given_back.wait_timeout(all, LOOK);
            all = waited.unwrap_or_else(PoisonError::into_inner).0;
            is_ours = all.taken.insert(*key);
        }
        all.want_no_more(key);
        is_ours.then(|| Turn { turns: self, key: *key })
    }
}

impl Keys {
    fn want(&mut self, key: &Digest) {
        *self.wanted.entry(*key).or_default() += 1;
    }

    fn want_no_more(&mut self, key: &Digest) {
        match self.wanted.get_mut(key) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(self.wanted.remove(key)),
        }
    }
}

impl Turn<'_> {
    /// Whether somebody waits for it now.
    pub fn is_wanted(&self) -> bool {
        lock(&self.turns.all).wanted.contains_key(&self.key)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        lock(&self.turns.all).taken.remove(&self.key);
        self.turns.given_back.notify_all();
    }
}

/// Who panicked with it in hand has left it whole.
fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Instant;

    #[test]
    fn a_turn_is_wanted_while_somebody_waits_for_it() {
        let (turns, key, other) = (Turns::default(), Digest::of(b"a"), Digest::of(b"b"));
        let (held, free) = (turns.take(&key), turns.take(&other));
        assert!(!held.is_wanted());
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let gives_up =
                scope.spawn(|| turns.take_until(&key, &|| over.load(Ordering::SeqCst)).is_none());
            wait_until(|| held.is_wanted());
            over.store(true, Ordering::SeqCst);
            assert!(gives_up.join().expect("no panic"));
            assert!(!held.is_wanted());
            let waits = scope.spawn(|| turns.take(&key).is_wanted());
            wait_until(|| held.is_wanted());
            assert!(!free.is_wanted(), "nobody waits for that one");
            drop(held);
            assert!(!waits.join().expect("no panic"));
        });
        assert!(lock(&turns.all).wanted.is_empty());
    }

    fn wait_until(is_so: impl Fn() -> bool) {
        let begin = Instant::now();
        while !is_so() {
            assert!(begin.elapsed() < Duration::from_secs(60), "nobody waits");
            std::thread::yield_now();
        }
    }
}
