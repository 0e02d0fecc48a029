//! From the name of an image to its layers in the store.
//!
//! ```text
//! name ─► manifest (through indexes) ─► configuration ─► layers, several at a time ─► catalogue
//! ```
//!
//! What is here is not asked for again: an image by its digest, a layer by its chain id, and of a
//! layer that broke off, what has come. An image that is named by tag is asked about each time; when
//! nobody can be reached, what the tag meant last is taken.

use super::catalog::{self, Known};
use super::config::ImageConfig;
use super::error::{ImageError, UnpackError};
use super::layout;
use super::local::Rootfs;
use super::manifest::{self, Blob, Choice, Image, Kind};
use super::notes;
use super::platform::Runs;
use super::registry::Http;
use super::registry::credentials::{Credentials, Login};
use super::registry::download::{self, Download, Pace, Wanted};
use super::registry::failure::{self, Failure};
use super::registry::repository::{Document, Repository};
use super::registry::settings::Settings;
use super::schema1;
use super::stream::unpack_packed;
use super::unpack::Options;
use crate::unit::{Bytes, Digest, ImageRef};
use crate::volume::{Pin, Store};
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Indexes that lead to one another.
const INDEXES_MAX: usize = 3;
/// Layers that are fetched at a time, at least: waiting for a network costs no processor.
const WORKERS_MIN: usize = 3;
/// How long half a layer is kept for the next try.
const HALF_KEPT: Duration = Duration::from_secs(7 * 24 * 3600);

/// An image that is here.
#[derive(Clone, Debug)]
pub struct Pulled {
    /// All about it.
    pub image: Known,
    /// Keeps its layers.
    pub pin: Pin,
}

impl Pulled {
    /// The root of a container of it.
    pub fn rootfs(self, store: &Store) -> Result<Rootfs, ImageError> {
        self.image.rootfs(store, self.pin)
    }
}

/// Makes sure that an image is here. `login` goes before the box's own. `progress` is told bytes of
/// layers: done, and in all. Blocking.
pub fn pull(
    store: &Store,
    settings: &Settings,
    name: &ImageRef,
    login: Option<Login>,
    progress: &(dyn Fn(u64, u64) + Sync),
) -> Result<Pulled, ImageError> {
    let name = name.at(&settings.default);
    let here = || {
        let (image, pin) = catalog::find(store, &catalog::meaning(store, &name)?)?;
        Some(Pulled { image, pin })
    };
    if let (Some(_), Some(pulled)) = (name.digest(), here()) {
        return Ok(pulled);
    }
    let patient = here().is_none();
    let pull = Pull { store, settings, name: &name, runs: Runs::here(), patient, progress };
    match pull.run(login) {
        Err(ImageError::Pull { source, .. }) if source.kind == failure::Kind::Passing => {
            let known = here()
                .ok_or(ImageError::Pull { image: name.to_string(), source: source.clone() })?;
            crate::warn!(
                "image.unreachable",
                image = name,
                digest = known.image.digest,
                err = source
            );
            Ok(known)
        }
        other => other,
    }
}

/// One pull.
struct Pull<'a> {
    store: &'a Store,
    settings: &'a Settings,
    name: &'a ImageRef,
    runs: Runs,
    /// Nothing of that name is here: it is worth waiting for.
    patient: bool,
    progress: &'a (dyn Fn(u64, u64) + Sync),
}

/// A layer that is to be made.
struct Layer {
    blob: Blob,
    diff: Digest,
    chain: Digest,
}

impl Pull<'_> {
    fn run(&self, login: Option<Login>) -> Result<Pulled, ImageError> {
        let host = self.name.host().unwrap_or_default();
        let http = Http::new(self.settings.clone());
        let credentials =
            Credentials::read(&self.settings.credentials).map_err(|err| self.failed(err))?;
        let repository = self.name.repository(host);
        let mut first = None;
        for place in self.places(host) {
            let known = credentials.find(if place == host { host } else { &place }, &repository);
            let login = login.clone().filter(|_| place == host).or_else(|| known.cloned());
            let address = self.settings.address(&place);
            let tried = self.try_place(&http, address, &repository, login);
            match tried {
                Err(ImageError::Pull { image, source }) => {
                    crate::info!(
                        "image.not_there",
                        image = image,
                        registry = address,
                        err = source
                    );
                    // What the registry itself says counts, not what its mirrors do.
                    first = Some(ImageError::Pull { image, source });
                }
                other => return other,
            }
        }
        Err(first.unwrap_or_else(|| self.failed(Failure::wrong("no registry is named"))))
    }

    /// Who is asked, in order: mirrors, then the registry. A tag is the registry's to tell.
    fn places(&self, host: &str) -> Vec<String> {
        let mirrors = self.settings.mirrors.get(host).into_iter().flatten();
        let asked = self.name.digest().is_some() || self.settings.mirrors_tell_tags;
        mirrors.filter(|_| asked).cloned().chain([host.to_owned()]).collect()
    }

    fn try_place(
        &self,
        http: &Http,
        address: &str,
        repository: &str,
        login: Option<Login>,
    ) -> Result<Pulled, ImageError> {
        let found = self.again(|| Repository::find(http, address, repository, login.clone()));
        let Some(repository) = found.map_err(|err| self.failed(err))? else {
            let text = format!("{address} is no registry of the second version");
            return Err(self.failed(Failure::wrong(text)));
        };
        let (digest, document, kind) =
            self.document(&repository).map_err(|err| self.failed(err))?;
        if let Some((image, pin)) = catalog::find(self.store, &digest) {
            self.add(&image)?;
            return Ok(Pulled { image, pin });
        }
        match kind {
            Kind::First => self.first(&repository, digest, &document),
            _ => self.second(&repository, digest, &document),
        }
    }

    /// The manifest that the name leads to on this box.
    fn document(&self, repository: &Repository<'_>) -> Result<(Digest, Vec<u8>, Kind), Failure> {
        let wanted = self.name.digest();
        let reference = wanted.map_or_else(|| self.name.tag().to_owned(), Digest::to_string);
        let mut document = self.again(|| repository.manifest(&reference))?;
        let mut digest = check(&document, wanted)?;
        for _ in 0..=INDEXES_MAX {
            let kind =
                manifest::kind(&document.bytes, &document.media_type).map_err(Failure::wrong)?;
            if kind != Kind::Index {
                return Ok((digest, document.bytes, kind));
            }
            let choice =
                manifest::choose(&document.bytes, None, &self.runs).map_err(Failure::wrong)?;
            let (Choice::Index(blob) | Choice::Manifest(blob)) = choice;
            document = self.again(|| repository.manifest(&blob.digest.to_string()))?;
            digest = check(&document, Some(&blob.digest))?;
        }
        Err(Failure::wrong(format!("its index leads to more than {INDEXES_MAX} others")))
    }

    /// An image of today: its configuration says what its layers become, so they come in any order.
    fn second(
        &self,
        repository: &Repository<'_>,
        digest: Digest,
        document: &[u8],
    ) -> Result<Pulled, ImageError> {
        let wrong = |why: String| self.failed(Failure::wrong(why));
        let id = manifest::config(document).map_err(wrong)?;
        let raw = self
            .again(|| repository.document(&id.digest, id.size))
            .map_err(|err| self.failed(err))?;
        let Image { layers, config } =
            manifest::image(document, &raw, &self.runs).map_err(wrong)?;
        let mut chains: Vec<Digest> = Vec::with_capacity(layers.len());
        for (_, diff) in &layers {
            chains.push(chains.last().map_or(*diff, |below| below.chain(diff)));
        }
        let pin = self.store.pin(&chains);
        let diffs = layers.iter().map(|(_, diff)| *diff).collect();
        let layers = layers.into_iter().zip(&chains);
        let layers =
            layers.map(|((blob, diff), chain)| Layer { blob, diff, chain: *chain }).collect();
        self.layers(repository, layers)?;
        let raw = String::from_utf8_lossy(&raw).into_owned();
        let image = Known { diffs, ..Known::new(digest, id.digest, config, raw) };
        self.finish(image, chains, pin)
    }

    /// An image of the first schema: what its layers become shows when they are unpacked.
    fn first(
        &self,
        repository: &Repository<'_>,
        digest: Digest,
        document: &[u8],
    ) -> Result<Pulled, ImageError> {
        let wrong = |why: String| self.failed(Failure::wrong(why));
        let host = self.name.host().unwrap_or_default();
        if !self.settings.is_old(host) {
            return Err(wrong(format!(
                "its manifest is of the first schema, which proves little; push it again with a \
                 program of today, or name {host} in [registry] v1"
            )));
        }
        let image = schema1::read(document).map_err(wrong)?;
        let config = ImageConfig::read_first(image.newest.as_bytes()).map_err(wrong)?.0;
        let (mut chains, mut diffs) = (Vec::new(), Vec::new());
        let mut pin = Pin::default();
        for blob in &image.layers {
            let below = chains.last().copied();
            let wanted = Wanted { digest: Some(*blob), size: None };
            let (diff, chain) = self.unknown(repository, wanted, below)?;
            diffs.push(diff);
            chains.push(chain);
            pin = self.store.pin(&chains);
        }
        let known = Known::new(digest, Digest::of(image.newest.as_bytes()), config, image.newest);
        self.finish(Known { diffs, ..known }, chains, pin)
    }

    /// Writes down an image whose layers are here.
    fn finish(&self, image: Known, chains: Vec<Digest>, pin: Pin) -> Result<Pulled, ImageError> {
        let place = || self.store.dir().join("layers");
        let layers = layout::without_hidden(self.store, chains)
            .map_err(|source| ImageError::Read { archive: place(), source })?;
        let image = Known { layers, used_ms: now_ms(), ..image };
        self.add(&image)?;
        crate::info!(
            "image.pulled",
            image = self.name,
            digest = image.digest,
            layers = image.layers.len()
        );
        Ok(Pulled { image, pin })
    }

    fn add(&self, image: &Known) -> Result<(), ImageError> {
        catalog::add(self.store, self.name, image)
            .map_err(|source| ImageError::Read { archive: self.store.dir().join("images"), source })
    }

    /// Makes all layers that are not here, several at a time; the first failure ends all.
    fn layers(&self, repository: &Repository<'_>, layers: Vec<Layer>) -> Result<(), ImageError> {
        let missing = |layer: &&Layer| self.store.layer(&layer.chain).is_none();
        let missing: Vec<&Layer> = layers.iter().filter(missing).collect();
        let all = missing.iter().map(|layer| layer.blob.size).sum();
        self.sweep();
        let (next, done, failed) = (AtomicUsize::new(0), AtomicU64::new(0), AtomicBool::new(false));
        let first: Mutex<Option<ImageError>> = Mutex::default();
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let work = || {
            while !failed.load(Ordering::Relaxed) {
                let Some(layer) = missing.get(next.fetch_add(1, Ordering::Relaxed)) else { return };
                let tell = |bytes: u64| {
                    let done = done.fetch_add(bytes, Ordering::Relaxed) + bytes;
                    (self.progress)(done.min(all), all);
                };
                if let Err(err) = self.layer(repository, layer, &failed, &tell) {
                    failed.store(true, Ordering::Relaxed);
                    first.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(err);
                }
            }
        };
        thread::scope(|scope| {
            for _ in 0..missing.len().min(cores.max(WORKERS_MIN)) {
                scope.spawn(work);
            }
        });
        first.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
    }

    /// Makes one layer, unless it is here. Who asks for the same blob at the same time waits.
    fn layer(
        &self,
        repository: &Repository<'_>,
        layer: &Layer,
        failed: &AtomicBool,
        tell: &(dyn Fn(u64) + Sync),
    ) -> Result<(), ImageError> {
        let Layer { blob, diff, chain } = layer;
        let _turn = self.store.turn(&blob.digest);
        if self.store.layer(chain).is_some() {
            tell(blob.size);
            return Ok(());
        }
        let wanted = Wanted { digest: Some(blob.digest), size: Some(blob.size) };
        let mut tried = self.unpack(repository, wanted, Some(diff), &|_| *chain, failed, tell);
        if tried.as_ref().is_err_and(is_mismatch) {
            // What was kept from an earlier time may have been damaged by a power cut: once more.
            tried = self.unpack(repository, wanted, Some(diff), &|_| *chain, failed, tell);
        }
        tried.map(|_| ())
    }

    /// Makes a layer of which only the blob is known.
    fn unknown(
        &self,
        repository: &Repository<'_>,
        wanted: Wanted,
        below: Option<Digest>,
    ) -> Result<(Digest, Digest), ImageError> {
        let chain = |diff: &Digest| below.map_or(*diff, |below| below.chain(diff));
        let failed = AtomicBool::new(false);
        self.unpack(repository, wanted, None, &chain, &failed, &|_| ())
    }

    /// Fetches and unpacks a blob into a draft, and makes that the layer that `chain` names when all
    /// of it was right.
    fn unpack(
        &self,
        repository: &Repository<'_>,
        wanted: Wanted,
        expected: Option<&Digest>,
        chain: &dyn Fn(&Digest) -> Digest,
        failed: &AtomicBool,
        tell: &(dyn Fn(u64) + Sync),
    ) -> Result<(Digest, Digest), ImageError> {
        let digest = wanted.digest.unwrap_or(Digest::of(b""));
        let image = self.name.to_string();
        let in_store = |source| ImageError::Store { archive: image.clone().into(), source };
        let broken = |source| ImageError::Layer { image: image.clone(), layer: digest, source };
        // Twice: what comes is kept until it is unpacked.
        let room = Bytes::new(wanted.size.unwrap_or_default());
        self.store.ensure_room(room).map_err(in_store)?;
        let part = self.parts().map_err(UnpackError::stream).map_err(broken)?.join(digest.hex());
        let pace = Pace { window: self.settings.idle * 2, least: self.settings.least_bytes };
        let open = |from, etag: Option<&str>| match failed.load(Ordering::Relaxed) {
            false => repository.blob(&digest, from, etag),
            true => Err(Failure::wrong("another layer failed")),
        };
        let mut source = Download::new(&part, wanted, pace, open)
            .map_err(UnpackError::stream)
            .map_err(broken)?;
        let draft = self.store.draft().map_err(in_store)?;
        let counted = Counted { source: &mut source, tell, failed };
        let unpacked = unpack_packed(self.store, counted, draft.dir(), &Options::default());
        let (summary, diff) = unpacked.map_err(|err| match download::failure_in(&err) {
            Some(failure) => self.failed(failure),
            None => broken(err),
        })?;
        if expected.is_some_and(|expected| *expected != diff) {
            let why = format!("holds {diff}, the configuration says another");
            return Err(broken(UnpackError::archive(why)));
        }
        let chain = chain(&diff);
        draft.commit(&chain).map_err(in_store)?;
        notes::record(self.store, &chain, summary.size());
        source.settle();
        crate::info!(
            "layer.made",
            image = image,
            digest = digest,
            files = summary.made,
            bytes = summary.bytes,
            skipped = summary.skipped
        );
        Ok((diff, chain))
    }

    /// Where half layers are kept.
    fn parts(&self) -> std::io::Result<PathBuf> {
        let dir = self.store.dir().join("downloads");
        fs::create_dir_all(&dir)?;
        Ok(dir)
    }

    /// Removes half layers that nobody came back for.
    fn sweep(&self) {
        let items = self.parts().and_then(fs::read_dir).into_iter().flatten().flatten();
        for item in items {
            let age = item.metadata().and_then(|meta| meta.modified());
            let age = age.ok().and_then(|time| time.elapsed().ok());
            if age.is_some_and(|age| age > HALF_KEPT) {
                let _ = fs::remove_file(item.path());
            }
        }
    }

    /// Asks again for what only failed at the moment.
    fn again<T>(&self, mut ask: impl FnMut() -> Result<T, Failure>) -> Result<T, Failure> {
        let mut failed = 0;
        loop {
            let failure = match ask() {
                Ok(answer) => return Ok(answer),
                Err(failure) => failure,
            };
            failed += 1;
            let jitter = u64::from(std::process::id());
            let pause = failure.pause(failed, jitter).filter(|_| self.patient);
            let Some(pause) = pause else { return Err(failure) };
            crate::warn!("registry.again", failed = failed, err = failure);
            // No event: the server is left alone for this long.
            thread::sleep(pause);
        }
    }

    fn failed(&self, source: Failure) -> ImageError {
        ImageError::Pull { image: self.name.to_string(), source }
    }
}

/// Counts what goes by, and ends when another layer has failed.
struct Counted<'a, R> {
    source: &'a mut R,
    tell: &'a (dyn Fn(u64) + Sync),
    failed: &'a AtomicBool,
}

impl<R: std::io::Read> std::io::Read for Counted<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if self.failed.load(Ordering::Relaxed) {
            return Err(std::io::Error::other(Failure::wrong("another layer failed")));
        }
        let read = self.source.read(buffer)?;
        (self.tell)(read as u64);
        Ok(read)
    }
}

/// The digest of a document that is what was asked for and what its sender says.
fn check(document: &Document, wanted: Option<&Digest>) -> Result<Digest, Failure> {
    let is = match manifest::kind(&document.bytes, &document.media_type) {
        // Its signatures are not part of what is named.
        Ok(Kind::First) => schema1::digest(&document.bytes).map_err(Failure::wrong)?,
        _ => Digest::of(&document.bytes),
    };
    match wanted.or(document.says.as_ref()) {
        Some(other) if *other != is => {
            Err(Failure::wrong(format!("the manifest that came is {is}, not {other}")))
        }
        _ => Ok(is),
    }
}

fn is_mismatch(err: &ImageError) -> bool {
    matches!(err, ImageError::Pull { source, .. } if download::is_mismatch(source))
}

/// Milliseconds since 1970.
fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}
