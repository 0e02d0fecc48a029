//! The layers of one image, from blobs of a repository to the store.
//!
//! Several come at a time, and each is unpacked while it comes; for that nothing has to be known of
//! the layers below, but what directories are that a layer only implies. Such a layer waits for
//! those below before it is shown.

use super::error::{ImageError, UnpackError};
use super::manifest::Blob;
use super::registry::download::{self, Download, Pace, Wanted};
use super::registry::failure::Failure;
use super::registry::first::First;
use super::registry::repository::Repository;
use super::registry::settings::Settings;
use super::stream::unpack_packed;
use super::unpack::{Options, Summary};
use super::{implied, notes};
use crate::unit::{Bytes, Digest, ImageRef};
use crate::volume::{Draft, Store};
use std::fs;
use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// Layers that are fetched at a time, at least: waiting for a network costs no processor.
const WORKERS_MIN: usize = 3;
/// How long half a layer is kept for the next try.
const HALF_KEPT: Duration = Duration::from_secs(7 * 24 * 3600);
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

/// A blob as its source names it.
#[derive(Clone, Debug)]
pub enum Name {
    /// By what is in it.
    Digest(Digest),
    /// Just so; 64 hex digits.
    Id(String),
}

/// The fetching of one image's layers.
pub struct Fetch<'a> {
    store: &'a Store,
    settings: &'a Settings,
    name: &'a ImageRef,
    source: Source<'a>,
    /// Set once; nobody goes on.
    failed: AtomicBool,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Which layers are in the store.
    here: Vec<bool>,
    first: Option<ImageError>,
}

/// A layer that is unpacked, and not yet shown.
struct Unpacked<'a> {
    draft: Draft<'a>,
    summary: Summary,
    diff: Digest,
}

impl<'a> Fetch<'a> {
    /// Nothing is asked for yet.
    pub fn new(
        store: &'a Store,
        settings: &'a Settings,
        name: &'a ImageRef,
        source: Source<'a>,
    ) -> Fetch<'a> {
        let (failed, state, changed) = (AtomicBool::new(false), Mutex::default(), Condvar::new());
        Fetch { store, settings, name, source, failed, state, changed }
    }

    /// Makes all layers that are not here; the first failure ends all. `progress` is told bytes of
    /// blobs: done, and in all.
    pub fn all(
        &self,
        layers: Vec<Layer>,
        progress: &(dyn Fn(u64, u64) + Sync),
    ) -> Result<(), ImageError> {
        self.sweep();
        let here: Vec<bool> =
            layers.iter().map(|layer| self.store.layer(&layer.chain).is_some()).collect();
        let missing: Vec<usize> = (0..layers.len()).filter(|at| !here[*at]).collect();
        self.state().here = here;
        let whole = missing.iter().map(|at| layers[*at].blob.size).sum();
        let (next, done) = (AtomicUsize::new(0), AtomicU64::new(0));
        let tell = |bytes: u64| {
            let done = done.fetch_add(bytes, Ordering::Relaxed) + bytes;
            progress(done.min(whole), whole);
        };
        // Taken in order: who waits for layers below waits for somebody who works.
        let work = || {
            while let Some(at) = missing.get(next.fetch_add(1, Ordering::Relaxed)) {
                let made = self.one(&layers, *at, &tell);
                let mut state = self.state();
                match made {
                    Ok(()) => state.here[*at] = true,
                    Err(err) => {
                        self.failed.store(true, Ordering::Relaxed);
                        state.first.get_or_insert(err);
                    }
                }
                self.changed.notify_all();
                if self.failed.load(Ordering::Relaxed) {
                    return;
                }
            }
        };
        let cores = thread::available_parallelism().map_or(1, usize::from);
        thread::scope(|scope| {
            for _ in 0..missing.len().min(cores.max(WORKERS_MIN)) {
                scope.spawn(work);
            }
        });
        self.state().first.take().map_or(Ok(()), Err)
    }

    /// Makes one layer, unless it is here. Who asks for the same blob at the same time waits.
    fn one(
        &self,
        layers: &[Layer],
        at: usize,
        tell: &(dyn Fn(u64) + Sync),
    ) -> Result<(), ImageError> {
        let Layer { blob, diff, chain } = &layers[at];
        let turn = self.store.turn(&blob.digest);
        if self.store.layer(chain).is_some() {
            tell(blob.size);
            return Ok(());
        }
        let wanted = Wanted { digest: Some(blob.digest), size: Some(blob.size) };
        let name = Name::Digest(blob.digest);
        let mut tried = self.unpack(&name, wanted, tell);
        if tried.as_ref().is_err_and(is_mismatch) {
            // What was kept from an earlier time may have been damaged by a power cut: once more.
            tried = self.unpack(&name, wanted, tell);
        }
        let unpacked = tried?;
        if unpacked.diff != *diff {
            let why = format!("holds {}, the configuration says {diff}", unpacked.diff);
            return Err(self.broken(&name, UnpackError::archive(why)));
        }
        if unpacked.summary.implied.is_empty() {
            return self.show(unpacked, &[], chain);
        }
        // Nobody may hold a turn while he waits.
        drop(turn);
        self.wait_below(at)?;
        let below: Vec<Digest> = layers[..at].iter().map(|layer| layer.chain).collect();
        self.show(unpacked, &below, chain)
    }

    /// Waits until all layers below are here.
    fn wait_below(&self, at: usize) -> Result<(), ImageError> {
        let mut state = self.state();
        while !state.here[..at].iter().all(|here| *here) {
            if self.failed.load(Ordering::Relaxed) {
                return Err(self.lost(Failure::wrong(GIVEN_UP)));
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        Ok(())
    }

    /// Makes a layer of which only the blob is known; what it is, and its name above `below`.
    pub fn unknown(&self, name: &Name, below: &[Digest]) -> Result<(Digest, Digest), ImageError> {
        let digest = match name {
            Name::Digest(digest) => Some(*digest),
            Name::Id(_) => None,
        };
        let unpacked = self.unpack(name, Wanted { digest, size: None }, &|_| ())?;
        let diff = unpacked.diff;
        let chain = below.last().map_or(diff, |below| below.chain(&diff));
        self.show(unpacked, below, &chain)?;
        Ok((diff, chain))
    }

    /// Fetches and unpacks a blob.
    fn unpack(
        &self,
        name: &Name,
        wanted: Wanted,
        tell: &(dyn Fn(u64) + Sync),
    ) -> Result<Unpacked<'a>, ImageError> {
        let broken = |source| self.broken(name, UnpackError::stream(source));
        // What comes is kept until it is unpacked: it needs its own room.
        let room = Bytes::new(wanted.size.unwrap_or_default());
        self.store.ensure_room(room).map_err(|source| self.in_store(source))?;
        let part = self.parts().map_err(broken)?.join(match name {
            Name::Digest(digest) => digest.hex(),
            Name::Id(id) => format!("v1-{id}"),
        });
        let pace = Pace { window: self.settings.idle * 2, least: self.settings.least_bytes };
        let open = |from, etag: Option<&str>| match self.failed.load(Ordering::Relaxed) {
            false => match (self.source, name) {
                (Source::Second(repository), Name::Digest(digest)) => {
                    repository.blob(digest, from, etag)
                }
                (Source::First(repository), Name::Id(id)) => repository.layer(id, from, etag),
                _ => Err(Failure::wrong("a layer is named as its registry does not name layers")),
            },
            true => Err(Failure::wrong(GIVEN_UP)),
        };
        let mut source = Download::new(&part, wanted, pace, open).map_err(broken)?;
        let draft = self.store.draft().map_err(|source| self.in_store(source))?;
        let counted = Counted { source: &mut source, tell, failed: &self.failed };
        let unpacked = unpack_packed(self.store, counted, draft.dir(), &Options::default());
        let (summary, diff) = unpacked.map_err(|err| match download::failure_in(&err) {
            Some(failure) => self.lost(failure),
            None => self.broken(name, err),
        })?;
        source.settle();
        Ok(Unpacked { draft, summary, diff })
    }

    /// Makes an unpacked layer one of the store.
    fn show(
        &self,
        unpacked: Unpacked<'_>,
        below: &[Digest],
        chain: &Digest,
    ) -> Result<(), ImageError> {
        let Unpacked { draft, summary, .. } = unpacked;
        implied::settle(self.store, draft.dir(), &summary.implied, below)?;
        draft.commit(chain).map_err(|source| self.in_store(source))?;
        notes::record(self.store, chain, summary.size());
        crate::info!(
            "layer.made",
            image = self.name,
            digest = chain,
            files = summary.made,
            bytes = summary.bytes,
            skipped = summary.skipped
        );
        Ok(())
    }

    /// Where half layers are kept.
    fn parts(&self) -> io::Result<PathBuf> {
        let dir = self.store.dir().join("downloads");
        fs::create_dir_all(&dir)?;
        Ok(dir)
    }

    /// Removes half layers that nobody came back for.
    fn sweep(&self) {
        for item in self.parts().and_then(fs::read_dir).into_iter().flatten().flatten() {
            let age = item.metadata().and_then(|meta| meta.modified());
            let age = age.ok().and_then(|time| time.elapsed().ok());
            if age.is_some_and(|age| age > HALF_KEPT) {
                // Somebody else's turn: fine.
                let _ = fs::remove_file(item.path());
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lost(&self, source: Failure) -> ImageError {
        ImageError::Pull { image: self.name.to_string(), source }
    }

    fn broken(&self, layer: &Name, source: UnpackError) -> ImageError {
        let layer = match layer {
            Name::Digest(digest) => digest.to_string(),
            Name::Id(id) => id.clone(),
        };
        ImageError::Layer { image: self.name.to_string(), layer, source }
    }

    fn in_store(&self, source: crate::volume::VolumeError) -> ImageError {
        ImageError::Store { archive: self.name.to_string().into(), source }
    }
}

/// Counts what goes by, and ends when another layer has failed.
struct Counted<'a, R> {
    source: &'a mut R,
    tell: &'a (dyn Fn(u64) + Sync),
    failed: &'a AtomicBool,
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.failed.load(Ordering::Relaxed) {
            return Err(io::Error::other(Failure::wrong(GIVEN_UP)));
        }
        let read = self.source.read(buffer)?;
        (self.tell)(read as u64);
        Ok(read)
    }
}

fn is_mismatch(err: &ImageError) -> bool {
    matches!(err, ImageError::Pull { source, .. } if download::is_mismatch(source))
}
