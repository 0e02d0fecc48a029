//! Layers whose blobs are files here, several at a time: those of OCI layouts and of what `docker save`
//! writes.
//!
//! Each is unpacked without those below it, as in a pull ([`super::fetch`]). One that says something of
//! them waits until they are in the store, without its turn, and others go on meanwhile: those that wait
//! are fewer than those who work, as lower ones are begun first.
//!
//! Where there is no memory for what several have to remember ([`super::held`]), or what those that wait
//! keep would be much, some are made afterwards, one by one, of one file at a time. Such a one begins again
//! when others have given memory back, for a while, and keeps nothing until then.

use super::error::{ImageError, UnpackError};
use super::held::{self, HELD_MAX, REMEMBERED};
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
use std::time::{Duration, Instant};

/// How often somebody who waits, for layers below or for memory, looks whether he still has to.
const LOOK: Duration = Duration::from_millis(100);
/// How long a layer that is made afterwards is tried again while others have the memory that it takes.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);
/// Longest pause between two tries.
const PAUSE_MAX: Duration = Duration::from_secs(8);
/// Tries beside which nobody else had any: then it takes more than there is.
const TRIES_ALONE: u32 = 2;

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
    all.afterwards(missing);
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
    /// Bytes of memory that are kept for those that wait for layers below.
    held: usize,
    /// Why it is given up.
    first: Option<ImageError>,
}

/// What has become of a layer.
#[derive(Debug, PartialEq, Eq)]
enum Made {
    /// It is in the store.
    Here,
    /// There was no memory for it beside others.
    Later,
}

/// What a layer does that says something of those below.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    /// They are here.
    GoOn,
    /// It waits for them, and keeps what it has.
    Wait,
    /// It is made afterwards, and gives back what it has.
    Later,
}

impl State {
    /// What a layer above `below` does that has so many bytes of memory: `more` beside what is counted
    /// for those that wait.
    fn next(&self, below: &[Digest], more: usize) -> Next {
        if below.iter().all(|chain| self.here.contains(chain)) {
            return Next::GoOn;
        }
        let is_much = self.held.saturating_add(more) >= HELD_MAX;
        match is_much || below.iter().any(|chain| self.later.contains(chain)) {
            true => Next::Later,
            false => Next::Wait,
        }
    }
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

    /// Makes those that were left for later, lowest first.
    fn afterwards(&self, missing: Vec<Place>) {
        let later = std::mem::take(&mut self.state().later);
        if later.is_empty() || self.wish.is_over() {
            return;
        }
        // Nobody: it is over.
        let Some(_turn) = work::large(&self.wish) else { return };
        for place in missing.into_iter().filter(|place| later.contains(&self.chain(*place))) {
            if !self.wish.is_over() {
                self.take(place, false);
            }
        }
    }

    /// Makes one, and notes what became of it.
    fn take(&self, place: Place, has_others: bool) {
        let made = match has_others {
            true => self.one(place, true),
            false => patiently(&self.wish, PATIENCE, &held::free, || self.one(place, false)),
        };
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
            if !self.wait_below(&chains[..at], summary.held())? {
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

    /// Waits until these are here, with so many bytes of memory; `false`: they will be when no others are
    /// made, or those are too many to wait with.
    fn wait_below(&self, below: &[Digest], bytes: usize) -> Result<bool, ImageError> {
        let (mut state, mut counted) = (self.state(), 0);
        let is_here = loop {
            if self.wish.is_over() {
                break Err(self.over());
            }
            match state.next(below, bytes - counted) {
                Next::GoOn => break Ok(true),
                Next::Later => break Ok(false),
                Next::Wait => {
                    state.held += bytes - counted;
                    counted = bytes;
                }
            }
            let waited = self.changed.wait_timeout(state, LOOK);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        };
        state.held -= counted;
        is_here
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

/// Tries again what finds no memory, when others have given some back (`free`: bytes that nobody has), for
/// `most` at most, and until the wish is over. Nothing is kept meanwhile, and each try may fetch all of
/// it: the pauses grow, but where nobody else has any left.
pub(super) fn patiently<T>(
    wish: &Wish,
    most: Duration,
    free: &dyn Fn() -> usize,
    mut one: impl FnMut() -> Result<T, ImageError>,
) -> Result<T, ImageError> {
    let (begin, mut alone, mut tries) = (Instant::now(), 0, 0);
    loop {
        let before = free();
        let made = one();
        if !made.as_ref().is_err_and(ImageError::lacks_memory) {
            return made;
        }
        let left = free();
        if before.min(left) >= REMEMBERED {
            alone += 1;
        }
        let is_over = || alone >= TRIES_ALONE || begin.elapsed() >= most || wish.is_over();
        tries += 1;
        let next = Instant::now() + pause(tries);
        // Others may have given theirs back before it was looked for.
        while !is_over() && left < REMEMBERED && (free() <= left || Instant::now() < next) {
            wish.wait(LOOK);
        }
        if is_over() {
            return made;
        }
    }
}

/// The pause after so many tries, at least.
fn pause(tries: u32) -> Duration {
    LOOK.saturating_mul(1 << tries.saturating_sub(1).min(16)).min(PAUSE_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::{Cell, RefCell};

    fn lacking() -> Result<Made, ImageError> {
        let source = UnpackError::no_memory("");
        Err(ImageError::Unpack { archive: "a".into(), source })
    }

    #[test]
    fn those_that_wait_for_layers_below_keep_little() {
        let [a, b, c] = [b"a", b"b", b"c"].map(|text| Digest::of(text));
        let state = State { here: [a].into(), later: [c].into(), held: 1000, first: None };
        // Nobody has to wait: however much it is.
        assert_eq!(state.next(&[a], HELD_MAX), Next::GoOn);
        assert_eq!(state.next(&[], HELD_MAX), Next::GoOn);
        assert_eq!(state.next(&[a, b], 0), Next::Wait);
        assert_eq!(state.next(&[a, b], HELD_MAX - 1001), Next::Wait);
        assert_eq!(state.next(&[a, b], HELD_MAX - 1000), Next::Later);
        assert_eq!(state.next(&[a, b], usize::MAX), Next::Later);
        assert_eq!(state.next(&[b, c], 0), Next::Later);
    }

    #[test]
    fn what_finds_no_memory_is_tried_again_when_others_have_given_some_back() {
        const HOUR: Duration = Duration::from_secs(3600);
        let wish = Wish::default();
        // What is free at each look, and how often it is tried.
        let tried = |looks: &[usize], most: Duration, fits_at: u32| {
            let (looks, tries) = (RefCell::new(looks.iter().copied()), Cell::new(0));
            let free = || looks.borrow_mut().next().expect("it looks once more");
            let made = patiently(&wish, most, &free, || {
                tries.set(tries.get() + 1);
                if tries.get() == fits_at { Ok(Made::Here) } else { lacking() }
            });
            (made.is_ok(), tries.get(), looks.borrow().len())
        };
        const SOME: usize = REMEMBERED / 2;
        // Before and after a try, then until there is more.
        assert_eq!(tried(&[SOME, SOME, SOME, SOME, SOME + 1, SOME + 1], HOUR, 2), (true, 2, 0));
        // What others had is here already when it is looked for.
        assert_eq!(tried(&[SOME, REMEMBERED, REMEMBERED], HOUR, 2), (true, 2, 0));
        // Nobody else has any.
        assert_eq!(tried(&[REMEMBERED; 4], HOUR, 9), (false, 2, 0));
        // Nobody gives any back.
        assert_eq!(tried(&[SOME; 2], Duration::ZERO, 9), (false, 1, 0));
        // Nobody wants it any more.
        wish.end();
        assert_eq!(tried(&[SOME; 2], HOUR, 9), (false, 1, 0));
        // Another failure is told at once.
        let other = || Err::<Made, _>(ImageError::Empty { archive: "a".into() });
        assert!(patiently(&Wish::default(), HOUR, &|| SOME, other).is_err());
    }

    /// However often somebody gives a byte back.
    #[test]
    fn what_finds_no_memory_is_not_fetched_again_and_again() {
        assert_eq!([1, 2, 4, 99].map(pause), [LOOK, LOOK * 2, LOOK * 8, PAUSE_MAX]);
        let ends = (1..).scan(Duration::ZERO, |all, tries| {
            *all += pause(tries);
            Some(*all)
        });
        assert!(ends.take_while(|end| *end < PATIENCE).count() <= 15);
    }

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
