//! What all pulls, loads and imports of this process take together, and who waits for it.
//!
//! | what | at a time | who wants more |
//! |---|---|---|
//! | images that are fetched | 4 | waits in order, 64 at most; then an error |
//! | layers that are unpacked while they come from a registry | for one image one for each core, 2 to 4; for all of them 5 | waits in order, behind images that have none |
//! | archives that are unpacked while a client sends them | 2 | waits in order |
//! | layers, stacks and droplets that are unpacked from files here | one for each core, 2 to 4 | waits in order |
//! | archives of images that are read | 1 | waits in order |
//! | files whose layers found no memory beside others | 1 | waits in order |
//! | zstd windows up to 8 MiB of files and clients | 8 MiB together | waits in order |
//! | other zstd windows | 16 MiB together, of one image one or 8 MiB | waits in order; a larger window is refused |
//! | layers with large pieces between their threads | 1 | has small ones |
//!
//! Whoever feeds a layer may stop to: so each of the three has a row of its own ([`Feed`]), and a dead
//! registry holds up pulls only. Of what images from registries take a part is kept for those that have
//! none of it, so that one image whose registry is slow, or means to be, never has all. Several may: two on
//! four cores and more, three on three, four on two; of windows two with 8 MiB each. And a layer comes
//! once for all images that have it, from where it was begun.
//!
//! Each layer has less than half a MiB for itself, and all have 4 MiB together for what is to be remembered of
//! them ([`super::held`]), so all of it stays within 32 MiB, whatever the images' sizes and whatever they
//! say. Who holds a window waits for what feeds it only; who holds a layer, for a window too; who fetches an
//! image, for those two and for turns; who has what found no memory, for the same; who reads an archive, for
//! that as well: there is no circle.

pub use super::gate::Pass;
use super::gate::{Gate, Refused};
use super::held::REMEMBERED;
use super::registry::failure::{Failure, Kind};
use super::stream;
use super::unpack::Options;
use crate::unit::Bytes;
use crate::volume::Store;
use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::thread;
use std::time::{Duration, Instant};

/// Largest zstd window, as a power of two, and all windows of pulls together. Levels up to 19 use 8 MiB
/// at most, and so do the builders of images; `--long` and `--ultra` use more.
pub const WINDOW_LOG_MAX: u32 = 24;
/// The same in bytes.
pub const WINDOWS: u64 = 1 << WINDOW_LOG_MAX;
/// Images that are fetched at a time, and how many more may wait.
const PULLS: u64 = 4;
const PULLS_WAITING: usize = 64;
/// What is kept of it for files and clients.
const WINDOWS_HERE: u64 = 8 << 20;
/// Layers that are unpacked at a time: least and most of registries, and of files here; and of clients.
/// Those who wait are bounded by pulls, loads and imports.
const AT_A_TIME: (usize, usize) = (2, 4);
const SENT: u64 = 2;
/// What all of it may take together, in bytes.
const ALL_BYTES: u64 = 32 << 20;
/// Layers that are unpacked at a time, whoever feeds them, and the bytes of their pieces. Where there are
/// cores for one more, the pieces of all of them are smaller.
const FEW: Share = Share { layers: 10, piece: 20 << 10 };
const MANY: Share = Share { layers: 11, piece: 17 << 10 };
const _: () = {
    assert!(FEW.bytes() + WINDOWS + WINDOWS_HERE + REMEMBERED as u64 <= ALL_BYTES);
    assert!(MANY.bytes() + WINDOWS + WINDOWS_HERE + REMEMBERED as u64 <= ALL_BYTES);
    // One for an image that has none is left in any case.
    assert!(FEW.layers > SENT + 2 * (AT_A_TIME.1 as u64 - 1));
    assert!(MANY.layers > SENT + 2 * AT_A_TIME.1 as u64);
};
/// What of all windows is for images that have none.
const WINDOWS_KEPT: u64 = WINDOWS / 2;
/// Room that is asked for once, before so many packed bytes come: so many times what comes, and
/// something for the file system itself.
const TIMES: u64 = 10;
const SPARE: u64 = 64 << 20;
/// Where btrfs has little that nobody has taken yet, who makes files waits for one commit after the
/// other: for each file it keeps a megabyte free until that is on the disk, and lends an eighth of half
/// of what is not taken. Layers come in a third of the time where that is so many times what comes.
const WIDE_TIMES: u64 = 128;
/// Neither is more than this.
const AHEAD_MAX: u64 = 4 << 30;
/// How often somebody who waits looks whether he still has to.
const LOOK: Duration = Duration::from_millis(100);
/// What is said of something that nobody wants any more.
const OVER: &str = "nobody wants it any more; what has come of it is kept for the next time";

static IMAGES: LazyLock<Gate> = LazyLock::new(|| Gate::new(PULLS, PULLS_WAITING));
static ARCHIVES: LazyLock<Gate> = LazyLock::new(|| Gate::new(1, usize::MAX));
static LARGE: LazyLock<Gate> = LazyLock::new(|| Gate::new(1, usize::MAX));
static OF_REGISTRIES: LazyLock<Gate> = LazyLock::new(|| {
    let (all, kept) = of_registries(at_a_time());
    Gate::new(all, usize::MAX).keeping(kept)
});
static OF_CLIENTS: LazyLock<Gate> = LazyLock::new(|| Gate::new(SENT, usize::MAX));
static OF_FILES: LazyLock<Gate> = LazyLock::new(|| Gate::new(at_a_time() as u64, usize::MAX));
static WIDE: LazyLock<Gate> = LazyLock::new(|| Gate::new(1, 0));
static IN_WINDOWS: LazyLock<Gate> =
    LazyLock::new(|| Gate::new(WINDOWS, usize::MAX).keeping(WINDOWS_KEPT));
static IN_WINDOWS_HERE: LazyLock<Gate> = LazyLock::new(|| Gate::new(WINDOWS_HERE, usize::MAX));

/// How the memory of layers is shared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Share {
    layers: u64,
    piece: usize,
}

impl Share {
    /// Where so many layers of files are unpacked at a time: one for each core.
    fn of(files: usize) -> Share {
        if files < AT_A_TIME.1 { FEW } else { MANY }
    }

    const fn bytes(self) -> u64 {
        self.layers * stream::layer_bytes(self.piece) + stream::wide_bytes(self.piece)
    }
}

/// Where the bytes of a layer come from. Who holds something while he waits for a slow feed holds up
/// only those with the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feed {
    /// A file of this box.
    File,
    /// A client who sends it.
    Client,
    /// A registry, over a network; for the image of this number.
    Registry(u64),
}

impl Feed {
    /// A registry, for an image that no other feed of this process is for.
    pub(super) fn registry() -> Feed {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Feed::Registry(NEXT.fetch_add(1, Ordering::Relaxed))
    }

    /// The image that what is taken counts for, where others are kept something.
    fn image(self) -> Option<u64> {
        match self {
            Feed::Registry(image) => Some(image),
            Feed::File | Feed::Client => None,
        }
    }
}

/// Whether somebody still wants what is being made. Clones are the same wish.
#[derive(Clone, Default)]
pub struct Wish {
    over: Arc<AtomicBool>,
    /// The daemon ends.
    ending: Arc<AtomicBool>,
    /// Hears what it has to wait for.
    told: Option<Arc<Told>>,
    /// What the image may have.
    allowance: Option<Allowance>,
    /// What it is a part of: over when that is.
    whole: Option<Box<Wish>>,
}

/// Bytes that the layers of an image may have together, so that a small file that becomes a large one
/// ends where it is too large. Clones are the same bytes.
#[derive(Clone, Debug)]
pub struct Allowance {
    all: Bytes,
    left: Arc<AtomicU64>,
}

/// What one layer has had of it; given back when that comes to nothing.
#[derive(Debug, Default)]
pub(super) struct Spent {
    of: Option<Allowance>,
    bytes: u64,
}

impl Spent {
    /// Nothing yet.
    pub fn of(allowance: Option<Allowance>) -> Spent {
        Spent { of: allowance, bytes: 0 }
    }

    /// Takes so many bytes more.
    pub fn add(&mut self, bytes: u64) -> io::Result<()> {
        let Some(Allowance { all, left }) = &self.of else { return Ok(()) };
        let take = |left: u64| left.checked_sub(bytes);
        if left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_err() {
            let why = format!(
                "the image has more than {all}, which is all of `disk`; write a larger `disk` below [run]"
            );
            return Err(io::Error::new(io::ErrorKind::QuotaExceeded, why));
        }
        self.bytes += bytes;
        Ok(())
    }

    /// The layer is in the store.
    pub fn keep(&mut self) {
        self.of = None;
    }
}

impl Drop for Spent {
    fn drop(&mut self) {
        if let Some(Allowance { left, .. }) = &self.of {
            left.fetch_add(self.bytes, Ordering::Relaxed);
        }
    }
}

/// Who hears what somebody has to wait for.
type Told = dyn Fn(&str) + Send + Sync;

impl fmt::Debug for Wish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wish").field("is_over", &self.is_over()).finish_non_exhaustive()
    }
}

/// Who wants it: the wish is over when this is dropped.
#[derive(Debug)]
pub struct Wisher(Wish);

impl Wish {
    /// Lasts as long as the store's daemon, unless it is over sooner.
    pub fn new(store: &Store) -> Wish {
        Wish { ending: store.ending(), ..Wish::default() }
    }

    /// The same; `told` hears, on the thread that waits, what it has to wait for: a text that completes
    /// "it waits: ...".
    pub fn telling(self, told: impl Fn(&str) + Send + Sync + 'static) -> Wish {
        Wish { told: Some(Arc::new(told)), ..self }
    }

    /// The same; what it is for may have so many bytes in its layers.
    pub fn at_most(self, bytes: Bytes) -> Wish {
        let left = Arc::new(AtomicU64::new(bytes.get()));
        Wish { allowance: Some(Allowance { all: bytes, left }), ..self }
    }

    /// The same for what is no layer.
    pub(super) fn without_bound(&self) -> Wish {
        Wish { allowance: None, ..self.clone() }
    }

    /// One for some of it, that may be over sooner.
    pub(super) fn part(&self) -> Wish {
        Wish { over: Arc::default(), whole: Some(Box::new(self.clone())), ..self.clone() }
    }

    pub(super) fn allowance(&self) -> Option<Allowance> {
        self.allowance.clone()
    }

    /// It has to wait now.
    pub(super) fn waits(&self, why: &str) {
        if let Some(told) = &self.told {
            told(why);
        }
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
        self.over.load(Ordering::Acquire)
            || self.ending.load(Ordering::Acquire)
            || self.whole.as_ref().is_some_and(|whole| whole.is_over())
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

    /// Does `work`; when the wish is over meanwhile, `interrupt` is called once. An error: nobody could
    /// look whether it is, and nothing is done.
    pub fn watched<T>(
        &self,
        interrupt: impl Fn() + Sync,
        work: impl FnOnce() -> T,
    ) -> Result<T, Failure> {
        let done = AtomicBool::new(false);
        let look = || {
            while !done.load(Ordering::Acquire) {
                if self.is_over() {
                    return interrupt();
                }
                thread::park_timeout(LOOK);
            }
        };
        thread::scope(|scope| {
            let watch = thread::Builder::new().name("watch".into()).spawn_scoped(scope, look);
            let watch = watch.map_err(|err| {
                Failure::new(Kind::Here, format!("no thread can be started for it: {err}"))
            })?;
            let _end = Ended(&done, watch.thread().clone());
            Ok(work())
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

/// Has room made for what so many packed bytes become. A box that has less is no failure: what is needed
/// is made sure of step by step, and no image goes for what may not be.
/// What is larger than any layer may be is refused later, and makes nothing wider.
pub fn make_room_ahead(store: &Store, packed: u64) {
    if packed > Options::default().max_bytes.get() {
        return;
    }
    let bytes = packed.saturating_mul(TIMES).saturating_add(SPARE).min(AHEAD_MAX);
    let wide = packed.saturating_mul(WIDE_TIMES).min(AHEAD_MAX);
    let made = store.try_room(Bytes::new(bytes)).and_then(|()| store.widen(Bytes::new(wide)));
    if let Err(err) = made {
        crate::info!("image.little_room", bytes = bytes, err = err);
    }
}

/// Layers that are unpacked at a time, of registries, and as many of files: one for each core, within
/// bounds.
pub(super) fn at_a_time() -> usize {
    // Asked for once, as the gates are made once: pieces are as large as those have room for.
    static CORES: LazyLock<usize> =
        LazyLock::new(|| thread::available_parallelism().map_or(1, usize::from));
    CORES.clamp(AT_A_TIME.0, AT_A_TIME.1)
}

/// Bytes of a piece between a layer's threads.
pub(super) fn piece() -> usize {
    Share::of(at_a_time()).piece
}

/// Layers of registries that are unpacked at a time where so many of files are, and how many of them are
/// for images that have none: each image that is fetched has one, as far as there is memory. So four have
/// where two of files are, three where three are, and two where four are.
fn of_registries(files: usize) -> (u64, u64) {
    let (share, files) = (Share::of(files), files as u64);
    let all = (files + PULLS - 1).min(share.layers - SENT - files);
    (all, all.saturating_sub(files).max(1))
}

/// The right to fetch an image.
pub fn image(wish: &Wish) -> Result<Pass<'static>, Failure> {
    let waits = || wish.waits(&format!("{PULLS} images are fetched at a time"));
    IMAGES.take_told(1, &|| wish.is_over(), &waits).map_err(|refused| match refused {
        Refused::Over => Wish::failure(),
        Refused::Full => Failure::passing(format!(
            "{PULLS} images are being fetched and {PULLS_WAITING} wait for that; try again when some \
             of them are here"
        )),
    })
}

/// The right to unpack a layer; `None`: it is over.
pub fn layer(feed: Feed, wish: &Wish) -> Option<Pass<'static>> {
    let (gate, why) = match feed {
        Feed::File => (&OF_FILES, None),
        Feed::Client => (&OF_CLIENTS, Some(format!("{SENT} archives are taken in at a time"))),
        // Layers of one image wait for one another.
        Feed::Registry(_) => (&OF_REGISTRIES, None),
    };
    let waits = || why.iter().for_each(|why| wish.waits(why));
    gate.take_for(feed.image(), 1, &|| wish.is_over(), &waits).ok()
}

/// The right to large pieces; `None`: another layer has them.
pub fn wide() -> Option<Pass<'static>> {
    // Nobody may wait in this row.
    WIDE.take(1, &|| true).ok()
}

/// The right to read what is in an archive of images, whose configurations are in memory meanwhile;
/// `None`: it is over.
pub fn archive(wish: &Wish) -> Option<Pass<'static>> {
    let waits = || wish.waits("the images of one archive are read at a time");
    ARCHIVES.take_told(1, &|| wish.is_over(), &waits).ok()
}

/// The right to make layers of files that found no memory for what is to be remembered beside others: two
/// who each wait for what the other one has would both find none. `None`: it is over.
pub fn large(wish: &Wish) -> Option<Pass<'static>> {
    LARGE.take(1, &|| wish.is_over()).ok()
}

/// The right to memory for a window of so many bytes, [`WINDOWS`] at most; `None`: it is over.
pub fn window(bytes: u64, feed: Feed, is_over: &dyn Fn() -> bool) -> Option<Pass<'static>> {
    let gate = match feed {
        Feed::File | Feed::Client if bytes <= WINDOWS_HERE => &IN_WINDOWS_HERE,
        _ => &IN_WINDOWS,
    };
    gate.take_for(feed.image(), bytes.min(WINDOWS), is_over, &|| ()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    /// One for each core as ever where there are few, and something for others in any case.
    #[test]
    fn layers_of_registries_are_as_many_as_there_is_memory_for() {
        assert_eq!([2, 3, 4].map(of_registries), [(5, 3), (5, 2), (5, 1)]);
        for files in AT_A_TIME.0..=AT_A_TIME.1 {
            let ((all, kept), share) = (of_registries(files), Share::of(files));
            assert!(all + files as u64 + SENT <= share.layers, "{files}");
            assert_eq!(all - kept, files as u64, "one image has one for each core");
        }
    }

    #[test]
    fn what_is_under_way_is_interrupted_when_the_wish_ends_and_only_then() {
        let wish = Wish::default();
        assert_eq!(wish.watched(|| panic!("it is wanted"), || 7), Ok(7));
        let (tell, told) = channel();
        let ended = wish.watched(
            move || tell.send(()).expect("told"),
            || {
                wish.end();
                told.recv()
            },
        );
        assert_eq!(ended, Ok(Ok(())));
        // The pause is far longer than any test.
        wish.wait(Duration::from_secs(3600));
    }
}
