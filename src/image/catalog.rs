//! The images that the store holds, by name and by digest.
//!
//! ```text
//! images/<hex>.json         one image, named by the digest of its manifest
//! images/names/<hash>       a name, the digest that it means, and `loaded` when a file gave it
//! images/aliases/<hex>      for another digest that leads to an image, as that of its index: the
//!                           image's, and `asked` when somebody asked for it by this digest
//! images/preloaded/         which images came from files of the box: see `preload.rs`
//! *.new                     a file that is being written
//! ```
//!
//! Each file is replaced in one step and forced to the disk, after the layers that it speaks of: an
//! image that is here can be run without asking anybody, after a power cut too.

use super::config::ImageConfig;
pub(super) use super::drafts::{Drafts, write};
use super::drafts::{WRITES, is_draft, own_drafts, replace, write_down};
use super::error::ImageError;
use super::local::Rootfs;
use super::{notes, parts, preload};
use crate::sys::fault;
use crate::unit::{Digest, ImageRef};
use crate::volume::{Pin, Store};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Format of the files; newer ones are left alone.
const FORMAT: u32 = 1;
/// The last turn that was given, by the catalogue's directory.
static NEWEST: Mutex<BTreeMap<PathBuf, u64>> = Mutex::new(BTreeMap::new());

/// Longest file.
const FILE_MAX: u64 = 16 << 20;
/// How long an image without a name is left alone: it may be about to get one. And a draft: it may
/// be about to be finished.
const SETTLED: Duration = Duration::from_secs(3600);

/// One image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Known {
    /// Of this file.
    pub format: u32,
    /// Digest of its manifest: what it is asked for by.
    pub digest: Digest,
    /// Digest of its configuration: its id.
    pub id: Digest,
    /// Its layers in the store, lowest first, without those that a later one hides wholly.
    pub layers: Vec<Digest>,
    /// What its layers hold, lowest first.
    pub diffs: Vec<Digest>,
    /// How its processes are run.
    pub config: ImageConfig,
    /// The configuration as it came, for those who want all of it.
    pub raw: String,
    /// When it was fetched or last used, in milliseconds since 1970, as the clock said: to be shown.
    pub used_ms: u64,
    /// The larger, the later it was asked for: no clock decides who goes first.
    #[serde(default)]
    pub turn: u64,
}

impl Known {
    /// One of the present format.
    pub fn new(digest: Digest, id: Digest, config: ImageConfig, raw: String) -> Known {
        let (layers, diffs) = (Vec::new(), Vec::new());
        Known { format: FORMAT, digest, id, layers, diffs, config, raw, used_ms: 0, turn: 0 }
    }

    /// The same, asked for now.
    pub(super) fn asked_now(self, store: &Store) -> io::Result<Known> {
        let last = list(store)?.iter().map(|(known, _)| known.turn).max().unwrap_or_default();
        let turn = last.saturating_add(1);
        NEWEST.lock().unwrap_or_else(PoisonError::into_inner).insert(dir(store), turn);
        Ok(Known { used_ms: now_ms(), turn, ..self })
    }

    /// Whether nobody was asked for since, in this process.
    fn is_newest(&self, store: &Store) -> bool {
        let newest = NEWEST.lock().unwrap_or_else(PoisonError::into_inner);
        newest.get(&dir(store)) == Some(&self.turn)
    }

    /// Its place among those that may go: the first one goes first.
    pub(super) fn place(&self) -> (u64, u64) {
        (self.turn, self.used_ms)
    }

    /// The root of a container of it.
    pub fn rootfs(&self, store: &Store, pin: Pin) -> Result<Rootfs, ImageError> {
        let bytes = notes::layers_bytes(store, &self.layers)?;
        let (layers, env) = (self.layers.clone(), self.config.env.clone());
        let volumes = self.config.volumes.clone();
        Ok(Rootfs { layers, image: Some(self.digest), env, volumes, bytes, pin })
    }
}

/// The image of this digest, if all of it is here; it stays for as long as the pin does.
pub fn find(store: &Store, digest: &Digest) -> Option<(Known, Pin)> {
    let known = read(store, digest)?;
    let pin = store.pin(&known.layers);
    known.layers.iter().all(|layer| store.layer(layer).is_some()).then_some((known, pin))
}

/// Whether an image of this digest is listed. A look at a name, no more.
pub fn has(store: &Store, digest: &Digest) -> bool {
    image_path(store, digest).exists()
}

/// Who gave a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A registry, which is asked again each time.
    Registry,
    /// A file; a registry need not know it.
    File,
}

/// What a name means here. A digest means itself, or the image that it leads to.
pub fn meaning(store: &Store, name: &ImageRef) -> Option<Digest> {
    match name.digest() {
        Some(digest) => Some(led(store, digest)),
        None => Some(named(store, name)?.0),
    }
}

/// The image's digest that a digest leads to here: that of an index, to one of its images.
pub fn led(store: &Store, digest: &Digest) -> Digest {
    let alias = || Some(words(&alias_path(store, digest))?.0);
    match image_path(store, digest).exists() {
        true => *digest,
        false => alias().unwrap_or(*digest),
    }
}

/// Who gave this name, if it means something here.
pub fn origin(store: &Store, name: &ImageRef) -> Option<Origin> {
    named(store, name).map(|(_, origin)| origin)
}

fn named(store: &Store, name: &ImageRef) -> Option<(Digest, Origin)> {
    let (known, digest, origin) = read_name(&name_path(store, name))?;
    (known == key(name)).then_some((digest, origin))
}

/// Adds an image. Its layers are there.
pub fn add(store: &Store, known: &Known) -> io::Result<()> {
    let text = text_of(known)?;
    write(&image_path(store, &known.digest), &text)
}

/// What the file of an image has. One that nobody would read again is not written.
fn text_of(known: &Known) -> io::Result<Vec<u8>> {
    let text = serde_json::to_vec(known).map_err(io::Error::other)?;
    match text.len() as u64 > FILE_MAX {
        true => {
            let why = format!(
                "image {} says more of itself than the {FILE_MAX} bytes that are kept",
                known.digest
            );
            Err(io::Error::new(io::ErrorKind::FileTooLarge, why))
        }
        false => Ok(text),
    }
}

/// Gives a name to an image that was added; nothing else has it any more. What is asked for by digest
/// has no name: it would be that of a tag which nobody has asked about.
pub fn name(store: &Store, name: &ImageRef, digest: &Digest, origin: Origin) -> io::Result<()> {
    if name.digest().is_some() {
        return Ok(());
    }
    write(&name_path(store, name), &name_text(name, digest, origin))
}

fn name_text(name: &ImageRef, digest: &Digest, origin: Origin) -> Vec<u8> {
    let more = if origin == Origin::File { " loaded" } else { "" };
    format!("{} {digest}{more}\n", key(name)).into_bytes()
}

/// Writes down that `from` leads to the image `to`; `is_asked`: somebody asked for it by `from`, so
/// the image stays without a name. Once asked for is for ever.
pub fn alias(store: &Store, from: &Digest, to: &Digest, is_asked: bool) -> io::Result<()> {
    if from == to && !is_asked {
        return Ok(());
    }
    replace(&alias_path(store, from), |old| alias_text(old, to, is_asked))
}

fn alias_text(old: Option<&[u8]>, to: &Digest, is_asked: bool) -> Vec<u8> {
    let is_asked = is_asked || old.is_some_and(|old| old.ends_with(b" asked\n"));
    format!("{to}{}\n", if is_asked { " asked" } else { "" }).into_bytes()
}

/// All images with their names, in order of digest, without what they say of themselves (`raw` and
/// `config` are empty: [`find`] has them), which may be megabytes each.
pub fn list(store: &Store) -> io::Result<Vec<(Known, Vec<String>)>> {
    let _turn = WRITES.read().unwrap_or_else(PoisonError::into_inner);
    let names = entries(dir(store).join("names"))?;
    let mut names: Vec<_> = names.iter().filter_map(|item| read_name(item)).collect();
    names.sort_by(|one, other| one.0.cmp(&other.0));
    let mut all = Vec::new();
    for item in entries(dir(store))? {
        let hex = item.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        let Ok(digest) = format!("sha256:{hex}").parse() else { continue };
        let Some(known) = read_listed(store, &digest) else { continue };
        let own = names.iter().filter(|(_, of, _)| *of == digest).map(|(name, ..)| name.clone());
        all.push((known, own.collect()));
    }
    all.sort_by_key(|(known, _)| known.digest);
    Ok(all)
}

/// Which images stay although nothing on the box is made of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Keep {
    /// Bytes that images of the catalogue may hold, those in use included; `None`: all stay.
    pub bytes: Option<u64>,
    /// These stay all the same; names in full.
    pub always: Vec<ImageRef>,
    /// What goes beyond that.
    pub sweep: Sweep,
}

/// What a collection takes, of that which nothing is made of and which stays not always.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sweep {
    /// What is too much, and after a while what nobody can ask for.
    #[default]
    Quiet,
    /// That at once, and what has come of downloads that nobody goes on with.
    Now,
    /// All.
    All,
}

impl Keep {
    /// Whether one of these names, in full, stays always.
    pub(super) fn is_always(&self, names: &[String]) -> bool {
        self.always.iter().any(|name| names.contains(&key(name)))
    }
}

/// The layers of images that stay, with those in use. Images beyond what `keep` says are forgotten,
/// those that were not asked for the longest first; what
/// has come of blobs counts as well.
///
/// An image that nothing is made of and that nobody can ask for any more, as its tag means another
/// one now, goes whatever `keep` says. One that was asked for by digest, or loaded from a file
/// without a name, can be asked for: it is treated as one with a name. One of a file that came with
/// the box stays while that file is there.
pub fn keep(
    store: &Store,
    used: BTreeSet<Digest>,
    keep: &Keep,
) -> Result<BTreeSet<Digest>, ImageError> {
    let unreadable = |source| ImageError::Read { archive: dir(store), source };
    sweep(store);
    let mut all = list(store).map_err(unreadable)?;
    let asked = asked(store).map_err(unreadable)?;
    let pinned = preload::pinned(store).map_err(unreadable)?;
    let now = now_ms();
    let is_lost = |(known, names): &(Known, Vec<String>)| {
        let settled = keep.sweep != Sweep::Quiet
            || u128::from(now.abs_diff(known.used_ms)) > SETTLED.as_millis();
        let nameless = names.is_empty() && !asked.contains(&known.digest);
        keep.sweep == Sweep::All || (nameless && settled)
    };
    let stays = |(known, names): &(Known, Vec<String>)| {
        // What is pinned is about to be used.
        known.layers.iter().all(|layer| used.contains(layer) || store.is_pinned(layer))
            || pinned.contains(&known.digest)
            || keep.is_always(names)
    };
    let parts = parts::sweep(store, keep.bytes);
    all.sort_by_key(|image| (!stays(image), std::cmp::Reverse(image.0.place())));
    let mut kept = used.clone();
    for image in all {
        let (known, names) = &image;
        let more: BTreeSet<Digest> = kept.iter().chain(&known.layers).copied().collect();
        let bytes = match keep.bytes {
            None => 0,
            Some(_) => notes::layers_bytes(store, &more.iter().copied().collect::<Vec<_>>())?,
        };
        let fits = || {
            !is_lost(&image) && keep.bytes.is_none_or(|most| bytes.saturating_add(parts) <= most)
        };
        if stays(&image) || fits() {
            kept = more;
            continue;
        }
        drop_image(store, known, names)?;
    }
    Ok(kept)
}

/// Forgets an image with its names: these first, for one without any is removed sooner or later.
pub(super) fn drop_image(store: &Store, known: &Known, names: &[String]) -> Result<(), ImageError> {
    let unreadable = |source| ImageError::Read { archive: dir(store), source };
    for name in names {
        gone(fs::remove_file(path_of(store, name))).map_err(unreadable)?;
    }
    fault::point(format_args!("collect:names"));
    remove(store, &known.digest).map_err(unreadable)?;
    fault::point(format_args!("collect:image"));
    crate::info!("image.removed", digest = known.digest, names = names.join(" "));
    Ok(())
}

/// An image is asked for now: it goes later than others. Written when it does not do so already, and at
/// most once in an hour of this process, unless the clock has moved by more.
pub fn touch(store: &Store, known: &Known) {
    const OFTEN: Duration = Duration::from_secs(3600);
    /// Images that are remembered to be written already; then all are forgotten.
    const WRITTEN_MAX: usize = 10_000;
    static WRITTEN: Mutex<BTreeMap<PathBuf, Instant>> = Mutex::new(BTreeMap::new());
    let path = image_path(store, &known.digest);
    let mut written = WRITTEN.lock().unwrap_or_else(PoisonError::into_inner);
    let is_recent = written.get(&path).is_some_and(|time| time.elapsed() < OFTEN);
    if (is_recent || known.is_newest(store))
        && u128::from(now_ms().abs_diff(known.used_ms)) <= OFTEN.as_millis()
    {
        return;
    }
    if written.len() >= WRITTEN_MAX {
        written.clear();
    }
    written.insert(path, Instant::now());
    drop(written);
    // Costs it its place in the row, nothing more.
    let _ = known.clone().asked_now(store).and_then(|known| add(store, &known));
}

/// Forgets a name, or a digest that leads to an image; what has none is for the collection.
pub fn forget(store: &Store, name: &ImageRef) -> io::Result<()> {
    let path = match name.digest() {
        Some(digest) => alias_path(store, digest),
        None => name_path(store, name),
    };
    gone(fs::remove_file(&path))?;
    fault::point(format_args!("forget:name"));
    write_down(&path)
}

/// Forgets an image and what else led to it, for good; its layers are for the collection.
pub fn remove(store: &Store, digest: &Digest) -> io::Result<()> {
    let path = image_path(store, digest);
    gone(fs::remove_file(&path))?;
    fault::point(format_args!("forget:image"));
    write_down(&path)?;
    // What is left of these over a power cut leads nowhere, and is swept.
    for item in entries(dir(store).join("aliases"))? {
        if words(&item).is_some_and(|(to, _)| to == *digest) {
            gone(fs::remove_file(item))?;
        }
    }
    Ok(())
}

/// Images that somebody asked for by a digest.
fn asked(store: &Store) -> io::Result<BTreeSet<Digest>> {
    let _turn = WRITES.read().unwrap_or_else(PoisonError::into_inner);
    let all = entries(dir(store).join("aliases"))?;
    let all = all.iter().filter_map(|item| words(item));
    Ok(all.filter(|(_, asked)| *asked).map(|(to, _)| to).collect())
}

/// Removes drafts that a kill or a power cut has left, and what leads to images that are gone.
fn sweep(store: &Store) {
    let own = own_drafts();
    let places = [dir(store), dir(store).join("names"), dir(store).join("aliases")];
    for item in places.iter().filter_map(|dir| fs::read_dir(dir).ok()).flatten().flatten() {
        let age = item.metadata().and_then(|meta| meta.modified()).ok();
        let age = age.and_then(|time| time.elapsed().ok());
        let is_own = item.file_name().to_string_lossy().contains(&own);
        if is_draft(&item.path()) && (!is_own || age.is_some_and(|age| age > SETTLED)) {
            // The next time, then.
            let _ = fs::remove_file(item.path());
        }
    }
    // Images are written before what leads to them, and none is while this looks.
    let _turn = WRITES.write().unwrap_or_else(PoisonError::into_inner);
    let names = entries(dir(store).join("names")).unwrap_or_default();
    let names = names.iter().map(|item| (item, read_name(item).map(|(_, to, _)| to)));
    let aliases = entries(dir(store).join("aliases")).unwrap_or_default();
    let aliases = aliases.iter().map(|item| (item, words(item).map(|(to, _)| to)));
    for (item, to) in names.chain(aliases) {
        if to.is_some_and(|to| !image_path(store, &to).exists()) {
            let _ = fs::remove_file(item);
        }
    }
}

fn read(store: &Store, digest: &Digest) -> Option<Known> {
    let known: Known = serde_json::from_slice(&bytes_of(store, digest)?).ok()?;
    (known.format == FORMAT && known.digest == *digest).then_some(known)
}

/// The same without what the image says of itself, which is not taken apart.
fn read_listed(store: &Store, digest: &Digest) -> Option<Known> {
    /// As [`Known`].
    #[derive(Deserialize)]
    struct Listed {
        format: u32,
        digest: Digest,
        id: Digest,
        layers: Vec<Digest>,
        diffs: Vec<Digest>,
        used_ms: u64,
        #[serde(default)]
        turn: u64,
    }
    let Listed { format, digest: own, id, layers, diffs, used_ms, turn } =
        serde_json::from_slice(&bytes_of(store, digest)?).ok()?;
    let none = Known::new(own, id, ImageConfig::default(), String::new());
    let known = Known { format, layers, diffs, used_ms, turn, ..none };
    (known.format == FORMAT && known.digest == *digest).then_some(known)
}

fn bytes_of(store: &Store, digest: &Digest) -> Option<Vec<u8>> {
    let path = image_path(store, digest);
    if fs::metadata(&path).ok()?.len() > FILE_MAX {
        return None;
    }
    fs::read(path).ok()
}

/// A name in full, without a digest: with one it means itself.
pub fn key(name: &ImageRef) -> String {
    let host = name.host().unwrap_or_default();
    format!("{host}/{}:{}", name.repository(host), name.tag())
}

pub(super) fn dir(store: &Store) -> PathBuf {
    store.dir().join("images")
}

fn image_path(store: &Store, digest: &Digest) -> PathBuf {
    dir(store).join(format!("{}.json", digest.hex()))
}

fn name_path(store: &Store, name: &ImageRef) -> PathBuf {
    path_of(store, &key(name))
}

fn path_of(store: &Store, key: &str) -> PathBuf {
    dir(store).join("names").join(Digest::of(key.as_bytes()).hex())
}

fn alias_path(store: &Store, digest: &Digest) -> PathBuf {
    dir(store).join("aliases").join(digest.hex())
}

/// A name, what it means, and who gave it.
fn read_name(path: &Path) -> Option<(String, Digest, Origin)> {
    let text = fs::read_to_string(path).ok()?;
    let mut words = text.split_whitespace();
    let (name, digest) = (words.next()?.to_owned(), words.next()?.parse().ok()?);
    let is_loaded = words.next() == Some("loaded");
    Some((name, digest, if is_loaded { Origin::File } else { Origin::Registry }))
}

/// What an alias leads to, and whether it was asked for.
fn words(path: &Path) -> Option<(Digest, bool)> {
    let text = fs::read_to_string(path).ok()?;
    let mut words = text.split_whitespace();
    Some((words.next()?.parse().ok()?, words.next() == Some("asked")))
}

impl Drafts {
    /// An image, whose layers are about to be there; digests that lead to it, `asked` among them if it
    /// was asked for by that; and its name, if that is not a digest.
    pub fn new(
        store: &Store,
        known: &Known,
        through: &[Digest],
        name: &ImageRef,
    ) -> io::Result<Drafts> {
        let (mut drafts, to) = (Drafts::default(), known.digest);
        let text = text_of(known)?;
        drafts.add(image_path(store, &to), move |_| text.clone())?;
        for from in through {
            let is_asked = name.digest() == Some(from);
            if *from != to || is_asked {
                drafts.add(alias_path(store, from), move |old| alias_text(old, &to, is_asked))?;
            }
        }
        if name.digest().is_none() {
            let text = name_text(name, &to, Origin::Registry);
            drafts.add(name_path(store, name), move |_| text.clone())?;
        }
        Ok(drafts)
    }
}

/// Files of a directory, without drafts.
pub(super) fn entries(dir: PathBuf) -> io::Result<Vec<PathBuf>> {
    let items = match fs::read_dir(dir) {
        Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        items => items?.map(|item| item.map(|item| item.path())),
    };
    items.filter(|item| item.as_ref().map_or(true, |path| !is_draft(path))).collect()
}

/// Milliseconds since 1970.
pub(super) fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

pub(super) fn gone(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_would_read_again_is_not_written() {
        let (digest, id) = (Digest::of(b"manifest"), Digest::of(b"config"));
        let of = |bytes: usize| {
            text_of(&Known::new(digest, id, ImageConfig::default(), "\"".repeat(bytes)))
        };
        assert!(of(7 << 20).is_ok());
        // Each of them is two in the file.
        let said = of(8 << 20).expect_err("too long").to_string();
        assert!(said.contains(&digest.to_string()) && said.contains("16777216"), "{said}");
    }
}
