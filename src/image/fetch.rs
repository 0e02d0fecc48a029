//! The layers of one image, from blobs of a repository to the store.
//!
//! Several come at a time, and each is unpacked while it comes; for that nothing has to be known of
//! the layers below, but what directories are that a layer only implies. Such a layer is shown no
//! sooner than those below. All that is unpacked is shown together, at the end or when it is much: the
//! disk is waited for once, not for each layer. Until then what came of it is kept.

use super::catalog;
use super::error::{ImageError, UnpackError};
use super::held;
use super::manifest::Blob;
use super::parts;
use super::registry::download::{self, Advice, Download, Wanted};
use super::registry::failure::{Failure, Kind};
use super::registry::first::First;
use super::registry::pace::Pace;
use super::registry::repository::Repository;
use super::registry::settings::Settings;
use super::several::{PATIENCE, patiently};
use super::show::{State, Unpacked};
use super::stream::unpack_wanted;
use super::unpack::Options;
use super::work::{self, Feed, Wish};
use crate::unit::{Bytes, Digest, ImageRef};
use crate::volume::{Store, Turn, VolumeError};
use std::io::{self, Read};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

/// Layers of one image that are begun at a time. How many are worked on is a matter of the process.
const WORKERS_MAX: usize = 5;
/// Room that is made sure of ahead of what comes: for it, and for what others write meanwhile.
const ROOM: u64 = 32 << 20;
/// What a layer says that was given up because of another one.
const GIVEN_UP: &str = "another layer failed";

/// A layer that is to be made.
#[derive(Clone, Copy, Debug)]
pub struct Layer {
    /// What is fetched.
    pub blob: Blob,
    /// What it must be unpacked.
    pub diff: Digest,
    /// What it is called, with those below.
    pub chain: Digest,
}

/// Who has the blobs.
#[derive(Clone, Copy)]
pub enum Source<'a> {
    /// A repository of today.
    Second(&'a Repository<'a>),
    /// One of the first version, whose layers have ids.
    First(&'a First<'a>),
}

impl Source<'_> {
    /// Breaks off whatever comes from there.
    fn interrupt(self) {
        match self {
            Source::Second(repository) => repository.interrupt(),
            Source::First(first) => first.interrupt(),
        }
    }
}

/// A blob as its source names it.
#[derive(Clone, Debug)]
pub enum Name {
    /// By what is in it.
    Digest(Digest),
    /// Just so.
    Id(Box<Id>),
}

/// A layer of a registry of the first version.
#[derive(Clone, Debug)]
pub struct Id {
    /// Its registry, which alone knows what it means.
    pub host: String,
    /// 64 hex digits.
    pub id: String,
    /// Bytes of its blob; `None`: nobody says.
    pub size: Option<u64>,
    /// What the registry says its blob is; `None`: nothing.
    pub advice: Option<Advice>,
}

impl Id {
    /// What is behind the id, as far as its registry says.
    pub fn key(&self) -> Digest {
        let sums = self.advice.iter().flat_map(|advice| &advice.sums);
        let sums: String = sums.map(|sum| format!(" {sum}")).collect();
        Digest::of(format!("first version layer {} {}{sums}", self.host, self.id).as_bytes())
    }
}

/// Writes what the catalogue is to say of an image with these layers, lowest first, without those that
/// a later one hides wholly.
pub type List<'a> = dyn Fn(Vec<Digest>) -> Result<catalog::Drafts, ImageError> + 'a;

/// The fetching of one image's layers.
pub struct Fetch<'a> {
    pub(super) store: &'a Store,
    settings: &'a Settings,
    pub(super) name: &'a ImageRef,
    /// The digest that the image has here.
    pub(super) image: Digest,
    source: Source<'a>,
    wish: &'a Wish,
    /// The same until one layer has failed; nobody goes on then.
    pub(super) own: Wish,
    /// What it takes counts for this image.
    feed: Feed,
    state: Mutex<State<'a>>,
    /// Held while layers are shown: they are neither unpacked nor here.
    pub(super) showing: Mutex<()>,
    /// Some were.
    pub(super) shown: Condvar,
}

impl<'a> Fetch<'a> {
    /// Nothing is asked for yet.
    pub fn new(
        store: &'a Store,
        settings: &'a Settings,
        (name, image): (&'a ImageRef, Digest),
        source: Source<'a>,
        wish: &'a Wish,
    ) -> Fetch<'a> {
        let (own, feed) = (wish.part(), Feed::registry());
        let (state, showing, shown) = (Mutex::default(), Mutex::new(()), Condvar::new());
        Fetch { store, settings, name, image, source, wish, own, feed, state, showing, shown }
    }

    /// Makes all layers that are not here; the first failure ends all. `progress` is told bytes of
    /// blobs: done, and in all. What `list` writes becomes visible right after the last of them.
    pub fn all(
        &self,
        layers: Vec<Layer>,
        progress: &(dyn Fn(u64, u64) + Sync),
        list: &List<'_>,
    ) -> Result<(), ImageError> {
        let here: Vec<bool> =
            layers.iter().map(|layer| self.store.layer(&layer.chain).is_some()).collect();
        let missing: Vec<usize> = (0..layers.len()).filter(|at| !here[*at]).collect();
        self.state().here = here;
        // The registry's numbers, whatever they are.
        let whole = missing.iter().fold(0u64, |sum, at| sum.saturating_add(layers[*at].blob.size));
        if !missing.is_empty() {
            work::make_room_ahead(self.store, whole);
        }
        let (next, done) = (AtomicUsize::new(0), AtomicU64::new(0));
        let tell = |bytes: u64| {
            let add = |done: u64| Some(done.saturating_add(bytes));
            let done = done.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
            let done = done.unwrap_or_default().saturating_add(bytes);
            progress(done.min(whole), whole);
        };
        let work = || {
            while let Some(at) = missing.get(next.fetch_add(1, Ordering::Relaxed)) {
                let make = || {
                    let told = AtomicU64::new(0);
                    let tell = |bytes: u64| {
                        told.fetch_add(bytes, Ordering::Relaxed);
                        tell(bytes);
                    };
                    let made = self.make(&layers, *at, &tell);
                    if made.is_err() {
                        // It comes again, if anything does.
                        let back = told.into_inner();
                        let less = |done: u64| Some(done.saturating_sub(back));
                        let _ = done.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
                    }
                    made
                };
                if let Err(err) = patiently(&self.own, PATIENCE, &held::free, make) {
                    self.state().first.get_or_insert(err);
                    self.own.end();
                    // Who waits for his server does not look.
                    self.source.interrupt();
                }
                if self.is_over() {
                    return;
                }
            }
        };
        thread::scope(|scope| {
            for at in 0..missing.len().min(WORKERS_MAX) {
                let begun = thread::Builder::new().name("layer".into()).spawn_scoped(scope, work);
                match begun {
                    Ok(_) => {}
                    // Those who are there do it.
                    Err(err) if at > 0 => {
                        crate::warn!("layer.no_thread", err = err);
                        return;
                    }
                    Err(err) => {
                        let text = format!("no thread can be started for its layers: {err}");
                        self.state().first = Some(self.lost(Failure::new(Kind::Here, text)));
                        return;
                    }
                }
            }
        });
        // Those beside one that failed need not come again, unless there is no time for them.
        let list = Some(list).filter(|_| self.state().first.is_none());
        let shown = match self.wish.is_over() {
            true => Ok(()),
            false => self.show_unpacked(&layers, list),
        };
        self.state().unpacked.clear();
        // Afterwards: a clock that was wrong must not take away what was just gone on with.
        parts::sweep(self.store, None);
        self.state().first.take().map_or(shown, Err)
    }

    /// Unpacks one layer, unless it is here. Who asks for the same blob at the same time waits, and
    /// finds the layer if it can be shown. Where there is no memory for what is to be remembered of it
    /// nobody waits for it.
    fn make(
        &self,
        layers: &[Layer],
        at: usize,
        tell: &(dyn Fn(u64) + Sync),
    ) -> Result<(), ImageError> {
        let turn = self.turn(&parts::turn_of_blob(&layers[at].blob.digest))?;
        let made = match self.one(&layers[at], tell) {
            Err(err) if err.lacks_memory() => {
                // Those of this image that wait to be shown have some of it.
                self.show_unpacked(layers, None)?;
                return Err(err);
            }
            made => made?,
        };
        if self.is_made(at, made) || turn.is_wanted() {
            self.show_unpacked(layers, None)?;
        }
        // Nobody may hold a turn while he waits.
        drop(turn);
        self.wait_below();
        Ok(())
    }

    fn one(
        &self,
        Layer { blob, diff, chain }: &Layer,
        tell: &(dyn Fn(u64) + Sync),
    ) -> Result<Option<Unpacked<'a>>, ImageError> {
        if self.store.layer(chain).is_some() {
            tell(blob.size);
            return Ok(None);
        }
        let wanted = Wanted { digest: Some(blob.digest), size: Some(blob.size), advice: None };
        let name = Name::Digest(blob.digest);
        let unpacked = self.unpack(&name, wanted, tell)?;
        if unpacked.diff != *diff {
            let why = format!("holds {}, the configuration says {diff}", unpacked.diff);
            unpacked.kept.forget();
            return Err(self.broken(&name, UnpackError::archive(why)));
        }
        Ok(Some(unpacked))
    }

    /// Fetches and unpacks a blob.
    pub(super) fn unpack(
        &self,
        name: &Name,
        wanted: Wanted<'_>,
        tell: &(dyn Fn(u64) + Sync),
    ) -> Result<Unpacked<'a>, ImageError> {
        match self.unpack_once(name, wanted, tell) {
            // What was kept from an earlier time may have been damaged by a power cut: once more.
            Err(ImageError::Pull { source, .. }) if source.kind == Kind::Mismatch => {
                self.unpack_once(name, wanted, tell)
            }
            tried => tried,
        }
    }

    fn unpack_once(
        &self,
        name: &Name,
        wanted: Wanted<'_>,
        tell: &(dyn Fn(u64) + Sync),
    ) -> Result<Unpacked<'a>, ImageError> {
        let broken = |source| self.broken(name, UnpackError::stream(source));
        let options = Options::default();
        let most = options.max_bytes;
        if let Some(size) = wanted.size.filter(|size| *size > most.get()) {
            let why = format!("has {size} bytes; layers of at most {most} are fetched");
            return Err(self.broken(name, UnpackError::archive(why)));
        }
        let part = match name {
            Name::Digest(digest) => parts::of_blob(self.store, digest),
            Name::Id(own) => parts::of_blob(self.store, &own.key()),
        };
        let part = part.map_err(broken)?;
        let pace = Pace { window: self.settings.idle * 2, least: self.settings.least_bytes };
        let is_over = || self.is_over();
        let open = |from, etag: Option<&str>| match self.is_over() {
            false => match (self.source, name) {
                (Source::Second(repository), Name::Digest(digest)) => {
                    repository.blob(digest, from, etag)
                }
                (Source::First(repository), Name::Id(own)) => repository.layer(&own.id, from, etag),
                _ => Err(Failure::wrong("a layer is named as its registry does not name layers")),
            },
            true => Err(self.why_over()),
        };
        let source = Download::new(&part, wanted, pace, open).map_err(broken)?;
        let mut source = source.until(&is_over).at_most(most.get());
        let draft = self.store.draft().map_err(|source| self.in_store(source))?;
        let counted = Counted { source: &mut source, tell, fetch: self, seen: 0, sure_until: 0 };
        let unpacked =
            unpack_wanted(self.store, &self.own, self.feed, counted, draft.dir(), &options);
        let (summary, diff) = unpacked.map_err(|err| match download::failure_in(&err) {
            Some(failure) => self.lost(failure),
            None if !self.is_of_content(&err) => self.broken(name, err),
            // All that came is of the registry: it would come again.
            None if !source.is_patched() => {
                source.forget();
                self.broken(name, err)
            }
            None => {
                match self.read_on(&mut source) {
                    // What could not be unpacked is not what was asked for.
                    Err(failure) if failure.kind == Kind::Mismatch => return self.lost(failure),
                    // It is.
                    Ok(()) if !self.is_over() => source.forget(),
                    _ => source.forget_bare(),
                }
                self.broken(name, err)
            }
        })?;
        Ok(Unpacked { draft, summary, diff, kept: source.kept() })
    }

    /// Reads a blob that cannot be unpacked to its end, which is bounded: only there it shows whether
    /// it is the right one.
    fn read_on(&self, source: &mut impl Read) -> Result<(), Failure> {
        let mut scratch = vec![0; 64 << 10];
        while !self.is_over() {
            match source.read(&mut scratch) {
                Ok(0) => return Ok(()),
                Ok(_) => {}
                Err(err) => {
                    let other = || Failure::new(Kind::Here, err.to_string());
                    return Err(download::failure_in(&err).unwrap_or_else(other));
                }
            }
        }
        Ok(())
    }

    /// The turn of a blob; who waits for somebody else's goes on from there when that one gives up.
    pub(super) fn turn(&self, key: &Digest) -> Result<Turn<'a>, ImageError> {
        let turn = self.store.turn_until(key, &|| self.is_over());
        turn.ok_or_else(|| self.lost(self.why_over()))
    }

    /// Whether it is of no use to go on.
    pub(super) fn is_over(&self) -> bool {
        self.own.is_over()
    }

    /// Whether it is the fault of what came. What breaks off because it is over says nothing of that.
    pub(super) fn is_of_content(&self, err: &UnpackError) -> bool {
        !self.is_over() && is_of_content(err)
    }

    fn why_over(&self) -> Failure {
        match self.wish.is_over() {
            true => Wish::failure(),
            false => Failure::wrong(GIVEN_UP),
        }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State<'a>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lost(&self, source: Failure) -> ImageError {
        ImageError::Pull { image: self.name.to_string(), source }
    }

    pub(super) fn broken(&self, layer: &Name, source: UnpackError) -> ImageError {
        let layer = match layer {
            Name::Digest(digest) => digest.to_string(),
            Name::Id(own) => own.id.clone(),
        };
        ImageError::Layer { image: self.name.to_string(), layer, source }
    }

    pub(super) fn in_store(&self, source: crate::volume::VolumeError) -> ImageError {
        ImageError::Store { archive: self.name.to_string().into(), source }
    }
}

/// Counts what goes by, has room for it made, as all of it is kept until it is unpacked, and ends
/// when another layer has failed.
struct Counted<'a, 'b, R> {
    source: &'a mut R,
    tell: &'a (dyn Fn(u64) + Sync),
    fetch: &'a Fetch<'b>,
    seen: u64,
    sure_until: u64,
}

impl<R: Read> Read for Counted<'_, '_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.fetch.is_over() {
            return Err(io::Error::other(self.fetch.why_over()));
        }
        if self.seen >= self.sure_until {
            self.fetch.store.ensure_room(Bytes::new(ROOM)).map_err(io::Error::other)?;
            self.sure_until = self.seen + ROOM / 2;
        }
        let read = self.source.read(buffer)?;
        self.seen += read as u64;
        (self.tell)(read as u64);
        Ok(read)
    }
}

/// Whether it is the fault of what came: it is so again, whenever it comes.
pub(super) fn is_of_content(err: &UnpackError) -> bool {
    let is_ours = || err.lacks_memory() || is_ours(err);
    download::failure_in(err).is_none() && (err.is_refused_for_good() || !is_ours())
}

/// Whether it is the store's fault, or the disk's or the box's, and not what came: decoders and readers of
/// archives have no numbers of the kernel's, and those that it refuses entries by for what they are
/// ([`super::refusal`]) are taken out before.
fn is_ours(err: &(dyn std::error::Error + 'static)) -> bool {
    let mut next = Some(err);
    while let Some(err) = next {
        let io = err.downcast_ref::<io::Error>();
        let of_box = |err: &io::Error| {
            use io::ErrorKind as K;
            // The last four: no memory, no thread, and what was broken off.
            let kind = err.kind();
            err.raw_os_error().is_some()
                || matches!(kind, K::StorageFull | K::QuotaExceeded | K::ReadOnlyFilesystem)
                || matches!(kind, K::OutOfMemory | K::WouldBlock | K::Interrupted | K::TimedOut)
        };
        let is_volume = |err: &io::Error| err.get_ref().is_some_and(|it| it.is::<VolumeError>());
        if err.is::<VolumeError>() || io.is_some_and(|err| of_box(err) || is_volume(err)) {
            return true;
        }
        next = err.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_decoders_and_readers_of_archives_speak_of_the_content() {
        // EMFILE, ENFILE, EIO, ENOSPC, ENOMEM.
        let of_box = [24, 23, 5, 28, 12];
        for number in of_box {
            let err = || io::Error::from_raw_os_error(number);
            assert!(!is_of_content(&UnpackError::stream(err())), "{number}");
            assert!(!is_of_content(&UnpackError::refused(b"a", "cannot be made")(err())));
        }
        use io::ErrorKind as K;
        for kind in [K::WouldBlock, K::QuotaExceeded, K::Interrupted, K::TimedOut] {
            assert!(!is_of_content(&UnpackError::stream(io::Error::new(kind, "why"))), "{kind}");
        }
        let over = UnpackError::stream(io::Error::other(Wish::failure()));
        assert!(!is_of_content(&over) && !is_of_content(&UnpackError::no_memory("")));
        for kind in [K::UnexpectedEof, K::InvalidInput, K::InvalidData, K::Unsupported, K::Other] {
            assert!(is_of_content(&UnpackError::stream(io::Error::new(kind, "why"))), "{kind}");
        }
        assert!(is_of_content(&UnpackError::entry(b"../a", "is outside")));
        // ENAMETOOLONG, ELOOP, EINVAL: of an entry, and of what only comes from there.
        for number in [36, 40, 22] {
            let err = || io::Error::from_raw_os_error(number);
            let refused = UnpackError::refused(b"a", "cannot be made")(err());
            assert!(is_of_content(&refused.at(b"a")), "{number}");
            assert!(!is_of_content(&UnpackError::stream(err()).at(b"a")), "{number}");
        }
    }
}
