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
    taken: Mutex<BTreeSet<Digest>>,
    given_back: Condvar,
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
        let turns = &self.turns;
        let mut taken = lock(&turns.taken);
        while !taken.insert(*key) {
            taken = turns.given_back.wait(taken).unwrap_or_else(PoisonError::into_inner);
        }
        Turn { turns, key: *key }
    }

    /// The same, until `is_over`; then `None`.
    pub fn turn_until(&self, key: &Digest, is_over: &dyn Fn() -> bool) -> Option<Turn<'_>> {
        let turns = &self.turns;
        let mut taken = lock(&turns.taken);
        while !taken.insert(*key) {
            if is_over() {
                return None;
            }
            let waited = turns.given_back.wait_timeout(taken, LOOK);
            taken = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        Some(Turn { turns, key: *key })
    }

    /// Whether somebody has the turn of `key` now.
    pub fn is_taken(&self, key: &Digest) -> bool {
        lock(&self.turns.taken).contains(key)
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

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        lock(&self.turns.taken).remove(&self.key);
        self.turns.given_back.notify_all();
    }
}

/// Who panicked with it in hand has left it whole.
fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}
