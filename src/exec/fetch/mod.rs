//! Files of other machines: downloads and what is kept of them, uploads.
//!
//! ```text
//! <cache>/downloads/index.json             what is kept, and what servers call it
//! <cache>/downloads/<md5 of the key>-<n>   one tar each
//! <cache>/downloads/temp/                  under way; emptied at the start
//! ```
//!
//! What is kept is asked for anew each time it is wanted; the server says that it is the same, or
//! sends another. A server that cannot be reached stops nobody from what was checked against the
//! very checksum that is asked for now. All of it may vanish at any time.

mod checksum;
mod given_up;
mod http;
mod notice;
pub mod plan;

use crate::lifecycle::form;
use crate::model::action::Checksum;
use crate::unit::Bytes;
use checksum::{Hasher, hex};
pub use given_up::{GiveUp, GivenUp};
use http::{Answer, Bounds, Lost};
use plan::{Entry, Index, Version};
use smol::lock::{Mutex as Turns, Semaphore};
use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

/// Downloads at a time, and uploads. Diego's.
const AT_ONCE: usize = 5;

/// Attempts at an upload.
const UPLOAD_TRIES: u32 = 3;

/// The way to other machines' files. Clones are the same one.
#[derive(Clone)]
pub struct Fetcher(Arc<Inner>);

struct Inner {
    dir: PathBuf,
    certs: PathBuf,
    most: u64,
    index: Mutex<Index>,
    /// Who wants something that somebody fetches waits for it, and then asks himself.
    flights: Mutex<BTreeMap<String, Arc<Turns<()>>>>,
    downloads: Semaphore,
    uploads: Arc<Semaphore>,
}

/// What is wanted.
#[derive(Clone)]
pub struct Wanted {
    /// Where it is.
    pub url: String,
    /// What it is kept under; empty: it is not kept.
    pub cache_key: String,
    /// What it must be.
    pub checksum: Option<Checksum>,
}

/// A file that is here, as a tar.
pub struct Fetched {
    /// At its beginning.
    pub file: File,
    /// Bytes that came for it; `None`: it was here.
    pub came: Option<u64>,
    /// It does not go before it is read.
    _held: Option<Held>,
}

/// Keeps what is read.
struct Held {
    inner: Arc<Inner>,
    id: String,
    file: String,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.inner.index().release(&self.id, &self.file);
    }
}

/// Somebody who wants something that is kept under `id`; without a turn: it is not kept.
struct Flight {
    inner: Arc<Inner>,
    id: String,
    turn: Option<Arc<Turns<()>>>,
}

impl Drop for Flight {
    fn drop(&mut self) {
        drop(self.turn.take());
        self.inner.forget_turn(&self.id);
    }
}

/// Why something could not be fetched or sent. Shows neither path nor query of a URL.
#[derive(Debug, PartialEq, Eq)]
pub struct FetchError(String);

impl fmt::Display for FetchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for FetchError {}

impl Fetcher {
    /// Opens the cache in `dir`, made when missing, of at most `most` bytes. What is there without
    /// being in its index goes. `certs`: directories of further certificates, one for each host.
    /// Blocking.
    pub fn open(dir: &Path, certs: &Path, most: Bytes) -> io::Result<Fetcher> {
        let temp = dir.join("temp");
        match fs::remove_dir_all(&temp) {
            Err(err) if err.kind() != io::ErrorKind::NotFound => return Err(err),
            _ => {}
        }
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&temp)?;
        let text = fs::read(dir.join("index.json")).unwrap_or_default();
        let mut index: Index = serde_json::from_slice(&text).unwrap_or_default();
        index.forget_missing(|entry| {
            fs::metadata(dir.join(&entry.file)).is_ok_and(|it| it.len() == entry.bytes)
        });
        for item in fs::read_dir(dir)? {
            let (path, name) = item.map(|item| (item.path(), item.file_name()))?;
            let known = index.files().any(|file| name == file);
            if known || name == "temp" || name == "index.json" {
                continue;
            }
            // No reason not to start, above all for a directory, such as the lost+found of a disk.
            if let Err(err) = fs::remove_file(&path) {
                crate::warn!("download.foreign", path = path.display(), err = err);
            }
        }
        Ok(Fetcher(Arc::new(Inner {
            dir: dir.to_owned(),
            certs: certs.to_owned(),
            most: most.get(),
            index: Mutex::new(index),
            flights: Mutex::default(),
            downloads: Semaphore::new(AT_ONCE),
            uploads: Arc::new(Semaphore::new(AT_ONCE)),
        })))
    }

    /// Fetches what is wanted. One at a time for each key; dropped, it is given up.
    pub async fn fetch(&self, wanted: &Wanted) -> Result<Fetched, FetchError> {
        let id = id_of(&wanted.cache_key);
        let flight = self.0.flight(&id);
        let held = match &flight.turn {
            Some(turn) => Some(turn.lock().await),
            None => None,
        };
        let slot = self.0.downloads.acquire().await;
        let give_up = GiveUp::default();
        let (inner, wanted) = (self.0.clone(), wanted.clone());
        let (given_up, name) = (give_up.heard(), id.clone());
        let fetched = smol::unblock(move || inner.fetch(&wanted, &name, &given_up)).await;
        drop((slot, held));
        fetched
    }

    /// Posts a file of `length` bytes, with its digests. Blocking work on the pool; dropped, it is
    /// given up.
    pub async fn send(&self, file: File, length: u64, url: &str) -> Result<(), FetchError> {
        // The place is the thread's: given up, it goes on until its server is heard of.
        let slot = self.0.uploads.acquire_arc().await;
        let give_up = GiveUp::default();
        let (inner, url, given_up) = (self.0.clone(), url.to_owned(), give_up.heard());
        smol::unblock(move || {
            let _slot = slot;
            inner.send(file, length, &url, &given_up)
        })
        .await
    }

    /// A file for what is on its way to somewhere else; it has no name. Blocking.
    pub fn scratch(&self) -> io::Result<File> {
        self.0.scratch()
    }

    /// The longest file that is taken.
    pub fn most(&self) -> u64 {
        self.0.most
    }
}

impl Inner {
    fn index(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The turn of those who want the same.
    fn flight(self: &Arc<Self>, id: &str) -> Flight {
        let mut flights = self.flights.lock().unwrap_or_else(PoisonError::into_inner);
        let turn = (!id.is_empty()).then(|| flights.entry(id.to_owned()).or_default().clone());
        Flight { inner: self.clone(), id: id.to_owned(), turn }
    }

    /// Nobody else waits: it need not be remembered.
    fn forget_turn(&self, id: &str) {
        let mut flights = self.flights.lock().unwrap_or_else(PoisonError::into_inner);
        if flights.get(id).is_some_and(|turn| Arc::strong_count(turn) == 1) {
            flights.remove(id);
        }
    }

    fn fetch(
        self: &Arc<Self>,
        wanted: &Wanted,
        id: &str,
        given_up: &GivenUp,
    ) -> Result<Fetched, FetchError> {
        let kept = self.kept(id);
        // What is kept may be of another checksum than what is wanted now.
        let same =
            |entry: &Entry| wanted.checksum.is_none() || is_same(&wanted.checksum, &entry.checksum);
        let kept = kept.filter(|kept| same(&kept.1));
        let known = kept.as_ref().map(|(_, entry)| entry.version.clone()).unwrap_or_default();
        let answer = self.ask(wanted, &known, given_up);
        match (answer, kept) {
            (Ok(None), Some((kept, _))) => Ok(kept),
            (Ok(None), None) => Err(FetchError("the server says it is the same as nothing".into())),
            (Ok(Some(came)), kept) => {
                // It makes room for what has come.
                drop(kept);
                self.take(wanted, id, came)
            }
            (Err(err), Some((kept, entry))) if wanted.checksum.is_some() => {
                crate::warn!("download.offline", file = entry.file, err = err);
                Ok(kept)
            }
            (Err(err), _) => Err(err),
        }
    }

    /// What is kept under `id`, if it is still there. It stays while the server is asked about it.
    fn kept(self: &Arc<Self>, id: &str) -> Option<(Fetched, Entry)> {
        let (file, entry) = {
            let mut index = self.index();
            let entry = index.get(id).cloned()?;
            let file = File::open(self.dir.join(&entry.file)).ok()?;
            index.hold(id);
            (file, entry)
        };
        let held = Held { inner: self.clone(), id: id.to_owned(), file: entry.file.clone() };
        Some((Fetched { file, came: None, _held: Some(held) }, entry))
    }

    /// Asks the server, again and again while that may help. `None`: what is known is the same.
    fn ask(
        &self,
        wanted: &Wanted,
        known: &Version,
        given_up: &GivenUp,
    ) -> Result<Option<Came>, FetchError> {
        for failed in 1.. {
            match self.ask_once(wanted, known, given_up) {
                Ok(answer) => return Ok(answer),
                Err(Lost::Final(why)) => return Err(FetchError(why)),
                // No event: a server does not say when it is back.
                Err(Lost::Passing(why)) => match http::pause(failed, http::TRIES, jitter()) {
                    Some(pause) if !given_up.is() => std::thread::sleep(pause),
                    _ => return Err(FetchError(why)),
                },
            }
        }
        unreachable!("the pauses end")
    }

    fn ask_once(
        &self,
        wanted: &Wanted,
        known: &Version,
        given_up: &GivenUp,
    ) -> Result<Option<Came>, Lost> {
        let here = |err: io::Error| Lost::Final(format!("{}: {err}", self.dir.display()));
        let mut file = self.scratch().map_err(here)?;
        let mut hash = wanted.checksum.as_ref().map(|sum| Hasher::new(sum.algorithm));
        let bounds = Bounds { given_up, most: self.most };
        let from = (wanted.url.as_str(), self.certs.as_path());
        match http::download(from, known, &mut file, hash.as_mut(), &bounds)? {
            Answer::Same => Ok(None),
            Answer::New { version, bytes } => {
                if let (Some(sum), Some(hash)) = (&wanted.checksum, hash) {
                    checksum::check(sum, &hash.finish()).map_err(Lost::Final)?;
                }
                Ok(Some(Came { file, version, bytes }))
            }
        }
    }

    /// Makes a tar of what came, and keeps it if it can be kept.
    fn take(
        self: &Arc<Self>,
        wanted: &Wanted,
        id: &str,
        came: Came,
    ) -> Result<Fetched, FetchError> {
        let here = |err: io::Error| FetchError(format!("{}: {err}", self.dir.display()));
        let Came { mut file, version, bytes } = came;
        let form = form::form_of(&mut file).map_err(here)?;
        let form = form.ok_or_else(|| FetchError("unknown archive format".into()))?;
        let path = self.temp().map_err(here)?.join(format!("{id}-{}", unique()));
        // What was checked is the same for ever, whatever its server calls it.
        let keep = !id.is_empty() && (!version.is_none() || wanted.checksum.is_some());
        let mut options = File::options();
        let options = options.read(true).write(true).create_new(true).mode(0o600);
        let mut tar = if keep { options.open(&path) } else { self.scratch() }.map_err(here)?;
        let made = form::to_tar(form, file, &mut tar, self.most).and_then(|()| tar.sync_data());
        if let Err(err) = made {
            let _ = fs::remove_file(&path);
            return Err(FetchError(format!("it cannot be read: {err}")));
        }
        let length = tar.seek(SeekFrom::End(0)).and_then(|length| tar.rewind().map(|()| length));
        let length = length.map_err(here)?;
        let mut fetched = Fetched { file: tar, came: Some(bytes), _held: None };
        if !keep {
            self.drop_kept(id);
            return Ok(fetched);
        }
        let name = path.file_name().expect("made above").to_string_lossy().into_owned();
        let entry = Entry::new(name, length, version, wanted.checksum.clone());
        match self.keep(id, entry, &path) {
            Ok(held) => fetched._held = held,
            Err(err) => crate::warn!("download.unkept", err = err),
        }
        Ok(fetched)
    }

    /// Gives the file at `path` its place, held for its first reader. `None`: there is no room for it.
    fn keep(self: &Arc<Self>, id: &str, entry: Entry, path: &Path) -> io::Result<Option<Held>> {
        let file = entry.file.clone();
        let kept = self.dir.join(&file);
        let mut index = self.index();
        let Some(gone) = index.keep(id, entry, self.most) else {
            fs::remove_file(path)?;
            return Ok(None);
        };
        index.hold(id);
        let done = fs::rename(path, &kept).and_then(|()| self.write(&index));
        gone.iter().for_each(|entry| drop(fs::remove_file(self.dir.join(&entry.file))));
        if let Err(err) = done {
            index.remove(id);
            let _ = fs::remove_file(path);
            let _ = fs::remove_file(kept);
            return Err(err);
        }
        Ok(Some(Held { inner: self.clone(), id: id.to_owned(), file }))
    }

    /// What is kept under `id` is not what the server has, and cannot be asked about.
    fn drop_kept(&self, id: &str) {
        let mut index = self.index();
        let Some(entry) = index.remove(id) else { return };
        if let Err(err) = self.write(&index) {
            crate::warn!("download.unkept", err = err);
        }
        let _ = fs::remove_file(self.dir.join(entry.file));
    }

    /// Writes the index down; the next daemon removes what is not in it.
    fn write(&self, index: &Index) -> io::Result<()> {
        let text = serde_json::to_vec(index).map_err(io::Error::other)?;
        let part = self.temp()?.join("index.json");
        let mut options = File::options();
        let options = options.write(true).create(true).truncate(true).mode(0o600);
        let mut file = options.open(&part)?;
        file.write_all(&text)?;
        file.sync_data()?;
        fs::rename(part, self.dir.join("index.json"))
    }

    /// The place of what is under way, made anew if it has vanished.
    fn temp(&self) -> io::Result<PathBuf> {
        let temp = self.dir.join("temp");
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&temp)?;
        Ok(temp)
    }

    /// A file without a name.
    fn scratch(&self) -> io::Result<File> {
        let path = self.temp()?.join(format!("scratch-{}", unique()));
        let mut options = File::options();
        let file = options.read(true).write(true).create_new(true).mode(0o600).open(&path)?;
        fs::remove_file(&path)?;
        Ok(file)
    }

    fn send(
        &self,
        mut file: File,
        length: u64,
        url: &str,
        given_up: &GivenUp,
    ) -> Result<(), FetchError> {
        let here = |err: io::Error| FetchError(err.to_string());
        let digests = digests(&mut file).map_err(here)?;
        for failed in 1.. {
            file.rewind().map_err(here)?;
            let body = given_up.reading(&file);
            match http::upload((url, self.certs.as_path()), body, length, &digests) {
                Ok(()) => return Ok(()),
                Err(Lost::Final(why)) => return Err(FetchError(why)),
                // No event: a server does not say when it is back.
                Err(Lost::Passing(why)) => match http::pause(failed, UPLOAD_TRIES, jitter()) {
                    Some(pause) if !given_up.is() => std::thread::sleep(pause),
                    _ => return Err(FetchError(why)),
                },
            }
        }
        unreachable!("the pauses end")
    }
}

/// Whether something can be sent there.
pub fn is_url(url: &str) -> bool {
    http::is_url(url)
}

/// What something of this cache key is kept under; empty: it is not kept.
fn id_of(cache_key: &str) -> String {
    if cache_key.is_empty() {
        return String::new();
    }
    let mut hash = Hasher::new(crate::model::action::ChecksumAlgorithm::Md5);
    hash.update(cache_key.as_bytes());
    hex(&hash.finish())
}

/// Came from a server.
struct Came {
    file: File,
    version: Version,
    bytes: u64,
}

/// Both of the headers that tell what a body is.
fn digests(file: &mut File) -> io::Result<Vec<(&'static str, String)>> {
    use crate::model::action::ChecksumAlgorithm::{Md5, Sha256};
    use base64::Engine;
    file.rewind()?;
    let mut hashes = [Hasher::new(Md5), Hasher::new(Sha256)];
    let mut piece = vec![0; 64 << 10];
    loop {
        let read = file.read(&mut piece)?;
        if read == 0 {
            break;
        }
        hashes.iter_mut().for_each(|hash| hash.update(&piece[..read]));
    }
    let text = hashes.map(|hash| base64::engine::general_purpose::STANDARD.encode(hash.finish()));
    let [md5, sha256] = text;
    Ok(vec![("Content-MD5", md5), ("Content-Digest", format!("sha-256=:{sha256}:"))])
}

fn is_same(one: &Option<Checksum>, other: &Option<Checksum>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => {
            one.algorithm == other.algorithm && one.value.eq_ignore_ascii_case(&other.value)
        }
        _ => false,
    }
}

/// Tells names of one process apart; another one empties the directory first.
fn unique() -> u64 {
    static LAST: AtomicU64 = AtomicU64::new(0);
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_nanos() as u64 ^ LAST.fetch_add(1, Ordering::Relaxed).rotate_right(8)
}

/// Boxes that failed together shall not come back together.
fn jitter() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().subsec_nanos().into()
}

#[cfg(test)]
mod tests;
