//! What all pulls, loads and imports of this process take together, and who waits for it.
//!
//! | what | at a time | who wants more |
//! |---|---|---|
//! | images that are fetched | 4 | waits in order, 64 at most; then an error |
//! | layers that are unpacked | one for each core and one more, 3 to 5 | waits in order |
//! | of those, that others send | all but one, of clients one | waits in order |
//! | archives of images that are read | 1 | waits in order |
//! | zstd windows | 16 MiB together | waits in order; a larger window is refused |
//!
//! A layer has pieces of about 3 MiB between its threads, so all of it stays below 32 MiB, whatever
//! the images' sizes. Others may take hours over a layer, the box's own files come as fast as they are
//! taken: so these do not wait for those. Who holds a window waits for nobody; who holds a layer waits for
//! a window only; who reads an archive, for those two; who fetches an image, for those two and for turns:
//! there is no circle.

use super::registry::failure::{Failure, Kind};
use crate::volume::Store;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, LazyLock, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Largest zstd window, as a power of two, and all windows together. Levels up to 19 use 8 MiB at
/// most, and so do the builders of images; `--long` and `--ultra` use more.
pub const WINDOW_LOG_MAX: u32 = 24;
/// The same in bytes.
pub const WINDOWS: u64 = 1 << WINDOW_LOG_MAX;
/// Images that are fetched at a time, and how many more may wait.
const PULLS: u64 = 4;
const PULLS_WAITING: usize = 64;
/// Layers that are unpacked at a time. Those who wait are bounded by pulls, loads and imports.
const LAYERS: (usize, usize) = (3, 5);
/// How often somebody who waits looks whether he still has to.
const LOOK: Duration = Duration::from_millis(100);
/// What is said of something that nobody wants any more.
const OVER: &str = "nobody wants it any more; what has come of it is kept for the next time";

static IMAGES: LazyLock<Gate> = LazyLock::new(|| Gate::new(PULLS, PULLS_WAITING));
static UNPACKED: LazyLock<Layers> =
    LazyLock::new(|| Layers::new(thread::available_parallelism().map_or(1, usize::from)));
static ARCHIVES: LazyLock<Gate> = LazyLock::new(|| Gate::new(1, usize::MAX));
static IN_WINDOWS: LazyLock<Gate> = LazyLock::new(|| Gate::new(WINDOWS, usize::MAX));

/// Whether somebody still wants what is being made. Clones are the same wish.
#[derive(Clone, Debug, Default)]
pub struct Wish {
    over: Arc<AtomicBool>,
    /// The daemon ends.
    ending: Arc<AtomicBool>,
}

/// Who wants it: the wish is over when this is dropped.
#[derive(Debug)]
pub struct Wisher(Wish);

impl Wish {
    /// Lasts as long as the store's daemon, unless it is over sooner.
    pub fn new(store: &Store) -> Wish {
        Wish { over: Arc::default(), ending: store.ending() }
    }

    /// A wish, and who has it.
    pub fn held(store: &Store) -> (Wish, Wisher) {
        let wish = Wish::new(store);
        (wish.clone(), Wisher(wish))
    }

    /// Nobody wants it any more.
    pub fn end(&self) {
        self.over.store(true, Ordering::Release);
    }

    /// Whether it is over.
    pub fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire) || self.ending.load(Ordering::Acquire)
    }

    /// Waits this long, or until it is over.
    pub fn wait(&self, pause: Duration) {
        let begin = Instant::now();
        while !self.is_over() {
            let left = pause.saturating_sub(begin.elapsed());
            if left.is_zero() {
                return;
            }
            // No event: a server is left alone, in slices that end when nobody wants it.
            thread::sleep(left.min(LOOK));
        }
    }

    /// Does `work`; when the wish is over meanwhile, `interrupt` is called once.
    pub fn watched<T>(&self, interrupt: impl Fn() + Sync, work: impl FnOnce() -> T) -> T {
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            let watch = scope.spawn(|| {
                while !done.load(Ordering::Acquire) {
                    if self.is_over() {
                        return interrupt();
                    }
                    thread::park_timeout(LOOK);
                }
            });
            let _end = Ended(&done, watch.thread().clone());
            work()
        })
    }

    /// Why it is not gone on with.
    pub fn failure() -> Failure {
        Failure::new(Kind::Here, OVER)
    }
}

impl Drop for Wisher {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// Sends the watching thread home, after a panic too.
struct Ended<'a>(&'a AtomicBool, thread::Thread);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
        self.1.unpark();
    }
}

/// The right to fetch an image.
pub fn image(wish: &Wish) -> Result<Pass<'static>, Failure> {
    IMAGES.take(1, &|| wish.is_over()).map_err(|refused| match refused {
        Refused::Over => Wish::failure(),
        Refused::Full => Failure::passing(format!(
            "{PULLS} images are being fetched and {PULLS_WAITING} wait for that; try again when some \
             of them are here"
        )),
    })
}

/// Who gives the bytes of a layer or an archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Giver {
    /// This box, from a file.
    Box,
    /// A registry, at its own pace.
    Registry,
    /// A client, at his.
    Client,
}

/// The right to unpack a layer that somebody gives; `None`: it is over.
pub fn layer(giver: Giver, is_over: &dyn Fn() -> bool) -> Option<Vec<Pass<'static>>> {
    UNPACKED.take(giver, is_over)
}

/// The right to read what is in an archive of images, whose configurations are in memory meanwhile;
/// `None`: it is over.
pub fn archive(is_over: &dyn Fn() -> bool) -> Option<Pass<'static>> {
    ARCHIVES.take(1, is_over).ok()
}

/// The right to memory for a window of so many bytes, [`WINDOWS`] at most; `None`: it is over.
pub fn window(bytes: u64, is_over: &dyn Fn() -> bool) -> Option<Pass<'static>> {
    IN_WINDOWS.take(bytes.min(WINDOWS), is_over).ok()
}

/// Rights to unpack, of which some are left for those who are fast.
struct Layers {
    all: Gate,
    /// Not from files of the box.
    sent: Gate,
    by_clients: Gate,
}

impl Layers {
    fn new(cores: usize) -> Layers {
        let most = (cores + 1).clamp(LAYERS.0, LAYERS.1) as u64;
        let gate = |free| Gate::new(free, usize::MAX);
        Layers { all: gate(most), sent: gate(most - 1), by_clients: gate(1) }
    }

    /// The wider one last: nobody holds it and waits for a narrower one.
    fn take(&self, giver: Giver, is_over: &dyn Fn() -> bool) -> Option<Vec<Pass<'_>>> {
        let gates: &[&Gate] = match giver {
            Giver::Box => &[&self.all],
            Giver::Registry => &[&self.sent, &self.all],
            Giver::Client => &[&self.by_clients, &self.sent, &self.all],
        };
        gates.iter().map(|gate| gate.take(1, is_over).ok()).collect()
    }
}

/// Something of which there is so much, given out in the order of asking.
struct Gate {
    row: Mutex<Row>,
    changed: Condvar,
    waiting_max: usize,
}

#[derive(Default)]
struct Row {
    free: u64,
    next: u64,
    waiting: VecDeque<u64>,
}

/// A part of it, given back when it is dropped.
pub struct Pass<'a> {
    gate: &'a Gate,
    units: u64,
}

/// Why there is none.
#[derive(Debug, PartialEq, Eq)]
enum Refused {
    /// Too many wait already.
    Full,
    /// Who asked does not want it any more.
    Over,
}

impl Gate {
    fn new(free: u64, waiting_max: usize) -> Gate {
        let row = Row { free, ..Row::default() };
        Gate { row: Mutex::new(row), changed: Condvar::new(), waiting_max }
    }

    fn row(&self) -> MutexGuard<'_, Row> {
        self.row.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until all who came before are served and `units` are free.
    fn take(&self, units: u64, is_over: &dyn Fn() -> bool) -> Result<Pass<'_>, Refused> {
        let mut row = self.row();
        if row.waiting.is_empty() && row.free >= units {
            row.free -= units;
            return Ok(Pass { gate: self, units });
        }
        if row.waiting.len() >= self.waiting_max {
            return Err(Refused::Full);
        }
        let own = row.next;
        row.next += 1;
        row.waiting.push_back(own);
        let taken = loop {
            if is_over() {
                break Err(Refused::Over);
            }
            if row.waiting.front() == Some(&own) && row.free >= units {
                row.free -= units;
                break Ok(Pass { gate: self, units });
            }
            let waited = self.changed.wait_timeout(row, LOOK);
            row = waited.unwrap_or_else(PoisonError::into_inner).0;
        };
        row.waiting.retain(|ticket| *ticket != own);
        drop(row);
        // The next one may have room as well.
        self.changed.notify_all();
        taken
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        self.gate.row().free += self.units;
        self.gate.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    /// Waits until so many stand in the row.
    fn stand(gate: &Gate, waiting: usize) {
        let begin = Instant::now();
        while gate.row().waiting.len() != waiting {
            assert!(begin.elapsed() < Duration::from_secs(60), "nobody came");
            thread::yield_now();
        }
    }

    #[test]
    fn who_comes_first_is_served_first_and_too_many_are_refused() {
        let gate = Gate::new(2, 2);
        let held = gate.take(2, &|| false).expect("free");
        let (tell, told) = channel();
        thread::scope(|scope| {
            // The second would fit earlier than the first.
            for (at, units) in [2, 1].into_iter().enumerate() {
                let (gate, tell) = (&gate, tell.clone());
                scope.spawn(move || {
                    let pass = gate.take(units, &|| false).expect("in turn");
                    tell.send(units).expect("told");
                    drop(pass);
                });
                stand(gate, at + 1);
            }
            assert_eq!(gate.take(1, &|| false).err(), Some(Refused::Full));
            drop(held);
        });
        assert_eq!(told.try_iter().collect::<Vec<_>>(), [2, 1]);
        assert_eq!(gate.row().free, 2);
    }

    #[test]
    fn who_is_slow_leaves_a_layer_to_who_is_fast() {
        for cores in [1, 2, 64] {
            let layers = Layers::new(cores);
            let all = layers.all.row().free;
            // Who would have to wait gets nothing.
            let take = |giver| layers.take(giver, &|| true);
            let sent = take(Giver::Client).expect("free");
            assert!(take(Giver::Client).is_none(), "one at a time");
            let fetched: Vec<_> = std::iter::from_fn(|| take(Giver::Registry)).collect();
            assert_eq!(fetched.len() as u64, all - 2, "{cores} cores");
            let own = take(Giver::Box).expect("left for it");
            assert!(take(Giver::Box).is_none());
            drop((sent, fetched, own));
            let own: Vec<_> = std::iter::from_fn(|| take(Giver::Box)).collect();
            assert_eq!(own.len() as u64, all);
        }
    }

    #[test]
    fn who_does_not_want_it_any_more_leaves_the_row() {
        let gate = Gate::new(1, 9);
        let held = gate.take(1, &|| false).expect("free");
        let wish = Wish::default();
        thread::scope(|scope| {
            let waits = scope.spawn(|| gate.take(1, &|| wish.is_over()).err());
            stand(&gate, 1);
            wish.end();
            assert_eq!(waits.join().expect("no panic"), Some(Refused::Over));
        });
        assert!(gate.row().waiting.is_empty());
        drop(held);
        assert!(gate.take(1, &|| false).is_ok());
    }

    #[test]
    fn what_is_under_way_is_interrupted_when_the_wish_ends_and_only_then() {
        let wish = Wish::default();
        assert_eq!(wish.watched(|| panic!("it is wanted"), || 7), 7);
        let (tell, told) = channel();
        let ended = wish.watched(
            move || tell.send(()).expect("told"),
            || {
                wish.end();
                told.recv()
            },
        );
        assert_eq!(ended, Ok(()));
        // The pause is far longer than any test.
        wish.wait(Duration::from_secs(3600));
    }
}
