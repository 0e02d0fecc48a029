//! The images that the store holds, by name and by digest.
//!
//! ```text
//! images/<hex>.json         one image, named by the digest of its manifest
//! images/names/<hash>       a name and, behind a blank, the digest that it means
//! ```
//!
//! Each file is replaced in one step and forced to the disk, after the layers that it speaks of: an
//! image that is here can be run without asking anybody, after a power cut too.

use super::config::ImageConfig;
use super::error::ImageError;
use super::local::Rootfs;
use super::notes;
use crate::unit::{Digest, ImageRef};
use crate::volume::{Pin, Store};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::PathBuf;

/// Format of the files; newer ones are left alone.
const FORMAT: u32 = 1;
/// Longest file.
const FILE_MAX: u64 = 16 << 20;

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
    /// When it was fetched or last used, in milliseconds since 1970.
    pub used_ms: u64,
}

impl Known {
    /// One of the present format.
    pub fn new(digest: Digest, id: Digest, config: ImageConfig, raw: String) -> Known {
        let (layers, diffs) = (Vec::new(), Vec::new());
        Known { format: FORMAT, digest, id, layers, diffs, config, raw, used_ms: 0 }
    }

    /// The root of a container of it.
    pub fn rootfs(&self, store: &Store, pin: Pin) -> Result<Rootfs, ImageError> {
        let bytes = notes::layers_bytes(store, &self.layers)?;
        let (layers, env) = (self.layers.clone(), self.config.env.clone());
        Ok(Rootfs { layers, env, bytes, pin })
    }
}

/// The image of this digest, if all of it is here; it stays for as long as the pin does.
pub fn find(store: &Store, digest: &Digest) -> Option<(Known, Pin)> {
    let known = read(store, digest)?;
    let pin = store.pin(&known.layers);
    known.layers.iter().all(|layer| store.layer(layer).is_some()).then_some((known, pin))
}

/// What a name means here.
pub fn meaning(store: &Store, name: &ImageRef) -> Option<Digest> {
    if let Some(digest) = name.digest() {
        return Some(*digest);
    }
    let text = fs::read_to_string(name_path(store, name)).ok()?;
    let (known, digest) = text.trim_end().rsplit_once(' ')?;
    (known == key(name)).then(|| digest.parse().ok())?
}

/// Adds an image. Its layers are there.
pub fn add(store: &Store, known: &Known) -> io::Result<()> {
    fs::create_dir_all(dir(store).join("names"))?;
    let text = serde_json::to_vec(known).map_err(io::Error::other)?;
    write(&image_path(store, &known.digest), &text)
}

/// Gives a name to an image that was added; nothing else has it any more. What is asked for by digest
/// has no name: it would be that of a tag which nobody has asked about.
pub fn name(store: &Store, name: &ImageRef, digest: &Digest) -> io::Result<()> {
    if name.digest().is_some() {
        return Ok(());
    }
    let text = format!("{} {digest}\n", key(name));
    write(&name_path(store, name), text.as_bytes())
}

/// All images with their names, in order of digest.
pub fn list(store: &Store) -> io::Result<Vec<(Known, Vec<String>)>> {
    let mut names: Vec<(String, Digest)> = Vec::new();
    for item in entries(dir(store).join("names"))? {
        let text = fs::read_to_string(item).unwrap_or_default();
        let Some((name, digest)) = text.trim_end().rsplit_once(' ') else { continue };
        names.extend(digest.parse().ok().map(|digest| (name.to_owned(), digest)));
    }
    names.sort();
    let mut all = Vec::new();
    for item in entries(dir(store))? {
        let hex = item.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        let Ok(digest) = format!("sha256:{hex}").parse() else { continue };
        let Some(known) = read(store, &digest) else { continue };
        let own = names.iter().filter(|(_, of)| *of == digest).map(|(name, _)| name.clone());
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
}

/// The layers of images that stay, with those in use. Images beyond what `keep` says are forgotten,
/// those that were not asked for the longest first.
pub fn keep(
    store: &Store,
    used: BTreeSet<Digest>,
    keep: &Keep,
) -> Result<BTreeSet<Digest>, ImageError> {
    let unreadable = |source| ImageError::Read { archive: dir(store), source };
    let mut all = list(store).map_err(unreadable)?;
    let always: Vec<String> = keep.always.iter().map(key).collect();
    let stays = |(known, names): &(Known, Vec<String>)| {
        known.layers.iter().all(|layer| used.contains(layer))
            || names.iter().any(|name| always.contains(name))
    };
    all.sort_by_key(|image| (!stays(image), std::cmp::Reverse(image.0.used_ms)));
    let mut kept = used.clone();
    for image in all {
        let (known, names) = &image;
        let more: BTreeSet<Digest> = kept.iter().chain(&known.layers).copied().collect();
        let bytes = match keep.bytes {
            None => 0,
            Some(_) => notes::layers_bytes(store, &more.iter().copied().collect::<Vec<_>>())?,
        };
        if stays(&image) || keep.bytes.is_none_or(|most| bytes <= most) {
            kept = more;
            continue;
        }
        for name in names {
            gone(fs::remove_file(path_of(store, name))).map_err(unreadable)?;
        }
        remove(store, &known.digest).map_err(unreadable)?;
        crate::info!("image.removed", digest = known.digest, names = names.join(" "));
    }
    Ok(kept)
}

/// An image is asked for now: it goes later than others.
pub fn touch(store: &Store, known: &Known, now_ms: u64) {
    /// What is written at most once in this time.
    const OFTEN: u64 = 3_600_000;
    if now_ms.abs_diff(known.used_ms) > OFTEN {
        // Costs it its place in the row, nothing more.
        let _ = add(store, &Known { used_ms: now_ms, ..known.clone() });
    }
}

/// Forgets a name; what has none is for the collection.
pub fn forget(store: &Store, name: &ImageRef) -> io::Result<()> {
    gone(fs::remove_file(name_path(store, name)))
}

/// Forgets an image; its layers are for the collection.
pub fn remove(store: &Store, digest: &Digest) -> io::Result<()> {
    gone(fs::remove_file(image_path(store, digest)))
}

fn read(store: &Store, digest: &Digest) -> Option<Known> {
    let path = image_path(store, digest);
    if fs::metadata(&path).ok()?.len() > FILE_MAX {
        return None;
    }
    let known: Known = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
    (known.format == FORMAT && known.digest == *digest).then_some(known)
}

/// A name in full, without a digest: with one it means itself.
pub fn key(name: &ImageRef) -> String {
    let host = name.host().unwrap_or_default();
    format!("{host}/{}:{}", name.repository(host), name.tag())
}

fn dir(store: &Store) -> PathBuf {
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

fn write(path: &std::path::Path, text: &[u8]) -> io::Result<()> {
    let draft = path.with_extension("new");
    let mut file = File::create(&draft)?;
    file.write_all(text)?;
    file.sync_all()?;
    fs::rename(&draft, path)?;
    File::open(path.parent().unwrap_or(path))?.sync_all()
}

fn entries(dir: PathBuf) -> io::Result<Vec<PathBuf>> {
    match fs::read_dir(dir) {
        Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        items => items?.map(|item| item.map(|item| item.path())).collect(),
    }
}

fn gone(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
