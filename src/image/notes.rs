//! What the store remembers about layers beside them, and which of them may go.
//!
//! ```text
//! imports/<key>           the chain id of the layer that a file has become
//! imports/<chain>.layer   bytes in that layer's files and how many names it has, decimal; after a
//!                         blank each: the layers that it is a tree of, lowest first
//! ```
//!
//! A note that is lost costs time, never content.

use super::catalog::{self, Keep, Sweep};
use super::error::ImageError;
use super::parts;
use crate::sys::{beneath, fault, file};
use crate::unit::Digest;
use crate::volume::{Pin, Round, Store, VolumeError};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

/// Entries of one layer that are looked at to add up its files.
const ENTRIES_MAX: u64 = 2_000_000;
/// Deepest layer.
const DEPTH_MAX: usize = 300;

/// What `key` became, if that layer is still here; it stays for as long as the pin does.
pub(super) fn recall(store: &Store, key: &Digest) -> Option<(Digest, Pin)> {
    let text = fs::read_to_string(dir(store).join(key.hex())).ok()?;
    let chain = text.trim_end().parse().ok()?;
    let pin = store.pin(&[chain]);
    store.layer(&chain).map(|_| (chain, pin))
}

/// Remembers that `key` became `chain`, and forgets what is about layers that are gone.
pub(super) fn remember(store: &Store, key: &Digest, chain: &Digest) {
    write(store, &key.hex(), &format!("{chain}\n"));
    for entry in fs::read_dir(dir(store)).into_iter().flatten().filter_map(Result::ok) {
        let about = fs::read_to_string(entry.path()).ok();
        let about = about.and_then(|text| text.trim_end().parse::<Digest>().ok());
        if about.is_some_and(|chain| store.layer(&chain).is_none()) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// What layers hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LayerSize {
    /// Bytes in files, with holes.
    pub bytes: u64,
    /// Names: a file with two counts twice, one that an upper layer replaces or hides as well.
    pub names: u64,
}

/// Remembers how much is in a layer that has just become one.
pub(super) fn record(store: &Store, chain: &Digest, size: LayerSize) {
    write(store, &about(chain), &format!("{} {}\n", size.bytes, size.names));
}

/// The same for a tree of several layers, which holds nothing of its own.
pub(super) fn record_tree(store: &Store, chain: &Digest, layers: &[Digest]) {
    let layers: String = layers.iter().map(|layer| format!(" {layer}")).collect();
    write(store, &about(chain), &format!("0 0{layers}\n"));
}

/// Bytes in the files of these layers, each layer counted once.
pub fn layers_bytes(store: &Store, layers: &[Digest]) -> Result<u64, ImageError> {
    layers_size(store, layers).map(|size| size.bytes)
}

/// What these layers hold, each counted once. What no note says is added up and noted; a layer that
/// is not there holds nothing.
pub fn layers_size(store: &Store, layers: &[Digest]) -> Result<LayerSize, ImageError> {
    let mut all = LayerSize::default();
    for chain in layers.iter().collect::<BTreeSet<_>>() {
        let size = match (noted(store, chain), store.layer(chain)) {
            (Some(size), _) => size,
            (None, None) => LayerSize::default(),
            (None, Some(layer)) => {
                let size = add_up(&layer)
                    .map_err(|source| ImageError::Read { archive: layer.clone(), source })?;
                record(store, chain, size);
                size
            }
        };
        all.bytes = all.bytes.saturating_add(size.bytes);
        all.names = all.names.saturating_add(size.names);
    }
    Ok(all)
}

/// What the note says.
fn noted(store: &Store, chain: &Digest) -> Option<LayerSize> {
    let text = fs::read_to_string(dir(store).join(about(chain))).ok()?;
    let mut words = text.split_whitespace();
    let mut number = || words.next()?.parse().ok();
    Some(LayerSize { bytes: number()?, names: number()? })
}

/// What a collection has removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Layers.
    pub layers: u64,
    /// Bytes in their files, as far as they were noted, and of what has come of downloads.
    pub bytes: u64,
}

/// Removes every layer that is not in use; `None`: all were kept, as `used` wants it. That is asked after
/// the search has begun and tells every layer that something on the box is made of (trees go with their
/// layers), or `None` to keep all this time; images of the catalogue stay as `keep` says. Layers that are pinned, or were while
/// this runs, stay; so a container may be made at the same time, of layers that are pinned until the
/// depot names them.
pub fn collect(
    store: &Store,
    keep: &Keep,
    used: impl FnOnce() -> Option<BTreeSet<Digest>>,
) -> Result<Option<Collected>, ImageError> {
    let refused = |source| ImageError::Store { archive: store.dir().join("layers"), source };
    let round = store.begin_round();
    let Some(used) = used() else { return Ok(None) };
    let used = catalog::keep(store, used, keep)?;
    let mut collected = Collected::default();
    if keep.sweep != Sweep::Quiet {
        collected.bytes = parts::clear(store);
    }
    for chain in store.layers().map_err(refused)?.into_iter().filter(|chain| !used.contains(chain))
    {
        if is_tree_of(store, &chain, &used) {
            continue;
        }
        if let Some(size) = drop_layer(store, &round, &chain).map_err(refused)? {
            collected.layers += 1;
            collected.bytes = collected.bytes.saturating_add(size.bytes);
        }
    }
    Ok(Some(collected))
}

/// Removes a layer with its note; what it held, or `None` if it stays.
pub(super) fn drop_layer(
    store: &Store,
    round: &Round<'_>,
    chain: &Digest,
) -> Result<Option<LayerSize>, VolumeError> {
    let size = noted(store, chain).unwrap_or_default();
    if !round.remove(chain)? {
        return Ok(None);
    }
    fault::point(format_args!("collect:layer"));
    let _ = fs::remove_file(dir(store).join(about(chain)));
    crate::info!("layer.removed", digest = chain);
    Ok(Some(size))
}

/// Trees that any of these layers is part of.
pub(super) fn trees_of(
    store: &Store,
    layers: &BTreeSet<Digest>,
) -> Result<Vec<Digest>, VolumeError> {
    let is_one = |chain: &Digest| {
        let text = fs::read_to_string(dir(store).join(about(chain))).unwrap_or_default();
        let mut parts = text.split_whitespace().skip(2);
        parts.any(|part| part.parse().is_ok_and(|part| layers.contains(&part)))
    };
    Ok(store.layers()?.into_iter().filter(is_one).collect())
}

/// Whether `chain` is a tree whose layers are all used.
fn is_tree_of(store: &Store, chain: &Digest, used: &BTreeSet<Digest>) -> bool {
    let text = fs::read_to_string(dir(store).join(about(chain))).unwrap_or_default();
    let mut layers = text.split_whitespace().skip(2).peekable();
    let is_used = |layer: &str| layer.parse().is_ok_and(|layer| used.contains(&layer));
    layers.peek().is_some() && layers.all(is_used)
}

/// The sizes of the files of a layer together, and how many names it has.
fn add_up(layer: &PathBuf) -> io::Result<LayerSize> {
    let (mut bytes, mut entries, mut several) = (0u64, 0u64, BTreeSet::new());
    let list = |dir: &File| beneath::names_at_most(dir.as_fd(), ENTRIES_MAX as usize);
    let root = File::open(layer)?;
    let mut levels = vec![(list(&root)?, root)];
    while let Some((names, dir)) = levels.last_mut() {
        let Some(name) = names.pop() else {
            levels.pop();
            continue;
        };
        let meta = File::from(file::open_node(dir.as_fd(), name.as_bytes())?).metadata()?;
        entries += 1;
        if meta.is_file() && (meta.nlink() == 1 || several.insert(meta.ino())) {
            bytes = bytes.saturating_add(meta.len());
        }
        if meta.is_dir() {
            let below = File::from(file::open_dir(dir.as_fd(), name.as_bytes())?);
            levels.push((list(&below)?, below));
        }
        if entries > ENTRIES_MAX || levels.len() > DEPTH_MAX {
            return Err(io::Error::other("it has more files, or deeper ones, than any layer"));
        }
    }
    Ok(LayerSize { bytes, names: entries })
}

fn about(chain: &Digest) -> String {
    format!("{}.layer", chain.hex())
}

fn dir(store: &Store) -> PathBuf {
    store.dir().join("imports")
}

/// Replaces a note; what cannot be written is only told.
fn write(store: &Store, name: &str, text: &str) {
    let (note, draft) = (dir(store).join(name), dir(store).join(format!("{name}.new")));
    let written = fs::write(&draft, text).and_then(|()| fs::rename(&draft, &note));
    if let Err(err) = written {
        crate::warn!("image.note_lost", path = note.display(), err = err);
    }
}
