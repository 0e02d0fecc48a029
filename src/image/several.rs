//! Layers whose blobs are files here, several at a time: those of OCI layouts and of what `docker save`
//! writes.
//!
//! Each is unpacked without those below it, as in a pull ([`super::fetch`]). One that says something of
//! them waits until they are in the store, without its turn, and others go on meanwhile: those that wait
//! are fewer than those who work, as lower ones are begun first.
//!
//! Where there is no memory for what several have to remember ([`super::held`]), some are made afterwards,
//! one by one.

use super::error::{ImageError, UnpackError};
use super::layout::{LayerFile, Layout};
use super::work::{self, Wish};
use super::{implied, notes};
use crate::unit::Digest;
use crate::volume::Store;
use std::collections::BTreeSet;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// How often somebody who waits for layers below looks whether he still has to.
const LOOK: Duration = Duration::from_millis(100);

/// An image whose layers are to be made.
pub(super) struct Stack<'a> {
    /// What errors call it; empty: by its file only.
    pub name: String,
    /// Files of its layers, lowest first, and what each must be unpacked.
    pub layers: &'a [(LayerFile, Digest)],
    /// What each is called, with those below.
    pub chains: &'a [Digest],
}

/// A layer: of this image, at this place.
type Place = (usize, usize);

/// Makes all layers of `stacks` that are not here, from the files of `dir`; the first failure ends all.
/// Layers that are whole by then stay, and nothing else does. Whoever calls has pinned them.
pub(super) fn make(
    (store, wish): (&Store, &Wish),
    dir: &Layout,
    stacks: &[Stack<'_>],
) -> Result<(), ImageError> {
    let (here, missing) = split(stacks, |chain| store.layer(chain).is_some());
    if missing.is_empty() {
        return Ok(());
    }
    let lengths = missing.iter().map(|&(image, at)| dir.length(&stacks[image].layers[at].0));
    work::make_room_ahead(store, lengths.fold(0, u64::saturating_add));
    let state = Mutex::new(State { here, ..State::default() });
    let all = Several { store, wish: wish.part(), dir, stacks, state, changed: Condvar::new() };
    all.at_once(&missing);
    let later = std::mem::take(&mut all.state().later);
    for place in missing.into_iter().filter(|place| later.contains(&all.chain(*place))) {
        if !all.wish.is_over() {
            all.take(place, false);
        }
    }
    let first = all.state().first.take();
    match first {
        Some(err) => Err(err),
        None if wish.is_over() => Err(all.over()),
        None => Ok(()),
    }
}

/// The layers that are here, and the places of the others, each once, those of an image lowest first.
fn split(
    stacks: &[Stack<'_>],
    is_here: impl Fn(&Digest) -> bool,
) -> (BTreeSet<Digest>, Vec<Place>) {
    let (mut here, mut seen, mut missing) = (BTreeSet::new(), BTreeSet::new(), Vec::new());
    for (image, stack) in stacks.iter().enumerate() {
        for (at, chain) in stack.chains.iter().enumerate() {
            match seen.insert(*chain) {
                true if is_here(chain) => drop(here.insert(*chain)),
                true => missing.push((image, at)),
                false => {}
            }
        }
    }
    (here, missing)
}

/// The making of them.
struct Several<'a> {
    store: &'a Store,
    /// Over when one has failed, too.
    wish: Wish,
    dir: &'a Layout,
    stacks: &'a [Stack<'a>],
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Layers that are in the store.
    here: BTreeSet<Digest>,
    /// Those that are made when no others are.
    later: BTreeSet<Digest>,
    /// Why it is given up.
    first: Option<ImageError>,
}

/// What has become of a layer.
enum Made {
    /// It is in the store.
    Here,
    /// There was no memory for it beside others.
    Later,
}

impl Several<'_> {
    /// One more than are unpacked at a time, as some of them wait for layers below.
    fn at_once(&self, missing: &[Place]) {
        let next = AtomicUsize::new(0);
        let work = || {
            while let Some(place) = missing.get(next.fetch_add(1, Ordering::Relaxed)) {
                if self.wish.is_over() {
                    return;
                }
                self.take(*place, true);
            }
        };
        thread::scope(|scope| {
            for _ in 1..missing.len().min(work::at_a_time() + 1) {
                let begun = thread::Builder::new().name("layer".into()).spawn_scoped(scope, work);
                if let Err(err) = begun {
                    // Those who are there do it.
                    crate::warn!("layer.no_thread", err = err);
                    break;
                }
            }
            work();
        });
    }

    /// Makes one, and notes what became of it.
    fn take(&self, place: Place, has_others: bool) {
        let made = self.one(place, has_others);
        let mut state = self.state();
        match made {
            Ok(Made::Here) => drop(state.here.insert(self.chain(place))),
            Ok(Made::Later) => drop(state.later.insert(self.chain(place))),
            Err(err) => {
                state.first.get_or_insert(err);
                self.wish.end();
            }
        }
        drop(state);
        self.changed.notify_all();
    }

    fn one(&self, place: Place, has_others: bool) -> Result<Made, ImageError> {
        let (image, at) = place;
        let Stack { name, layers, chains } = &self.stacks[image];
        let ((file, diff), chain) = (&layers[at], &chains[at]);
        let is_over = || self.wish.is_over();
        let turn = || self.store.turn_until(chain, &is_over).ok_or_else(|| self.over());
        let mut held = turn()?;
        if self.store.layer(chain).is_some() {
            return Ok(Made::Here);
        }
        let (draft, mut summary) = match self.dir.unpack((self.store, &self.wish), file, diff, name)
        {
            Err(err) if has_others && err.lacks_memory() => return Ok(Made::Later),
            unpacked => unpacked?,
        };
        if summary.needs_below() {
            // Nobody may hold a turn while he waits.
            drop(held);
            if !self.wait_below(&chains[..at])? {
                return Ok(Made::Later);
            }
            held = turn()?;
            if self.store.layer(chain).is_some() {
                return Ok(Made::Here);
            }
        }
        implied::settle(self.store, draft.dir(), &mut summary, &chains[..at], &is_over)
            .map_err(|source| self.dir.broken(file, name, source))?;
        let in_store = |source| ImageError::Store { archive: self.dir.path.clone(), source };
        draft.commit(chain).map_err(in_store)?;
        summary.spent.keep();
        notes::record(self.store, chain, summary.size());
        crate::info!(
            "image.imported",
            path = self.dir.path.display(),
            digest = chain,
            files = summary.made,
            bytes = summary.bytes,
            skipped = summary.skipped
        );
        drop(held);
        Ok(Made::Here)
    }

    /// Waits until these are here; `false`: they will be when no others are made.
    fn wait_below(&self, below: &[Digest]) -> Result<bool, ImageError> {
        let mut state = self.state();
        loop {
            if self.wish.is_over() {
                return Err(self.over());
            }
            if below.iter().all(|chain| state.here.contains(chain)) {
                return Ok(true);
            }
            if below.iter().any(|chain| state.later.contains(chain)) {
                return Ok(false);
            }
            let waited = self.changed.wait_timeout(state, LOOK);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn chain(&self, (image, at): Place) -> Digest {
        self.stacks[image].chains[at]
    }

    fn over(&self) -> ImageError {
        let source = UnpackError::stream(io::Error::other(Wish::failure()));
        ImageError::Unpack { archive: self.dir.path.clone(), source }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layer_of_several_images_is_made_once_and_after_those_below_it() {
        let digests = [b"a", b"b", b"c", b"d"].map(|text| Digest::of(text));
        let [a, b, c, d] = digests;
        let chains = [vec![a, b, c], vec![a, b, d], vec![d, a]];
        let stack = |chains| Stack { name: String::new(), layers: &[], chains };
        let stacks: Vec<Stack<'_>> = chains.iter().map(|it| stack(it)).collect();
        let (here, missing) = split(&stacks, |chain| *chain == b);
        assert_eq!((here, missing), (BTreeSet::from([b]), vec![(0, 0), (0, 2), (1, 2)]));
    }
}
