//! Room for something that does not fit, made of images that nobody uses.

use super::catalog::{self, Keep, Known};
use super::error::ImageError;
use super::{notes, parts, preload};
use crate::unit::{Bytes, Digest};
use crate::volume::Store;
use std::collections::{BTreeMap, BTreeSet};

/// So much is made at least when anything is: to wait for it takes a while.
const LEAST: u64 = 256 << 20;

/// Asked of the layers of images that are to get their names, with how many bytes of them are still to
/// come: whether they may stay.
pub type Fits<'a> = dyn Fn(&[Digest], u64) -> Result<(), ImageError> + Sync + 'a;

/// For who makes something of the image at once: what is used stays.
pub(super) const ALWAYS_FITS: &Fits<'static> = &|_, _| Ok(());

/// Whether `images`, of these layers and as many bytes that are still to come, would stay beside what
/// is needed: if not, they would be gone before anybody makes anything of them. Layers in `used` and
/// of images that stay always are needed; what has come of other downloads makes way.
pub fn check_room(
    store: &Store,
    keep: &Keep,
    (images, layers, coming): (&str, &[Digest], u64),
    used: Option<BTreeSet<Digest>>,
) -> Result<(), ImageError> {
    let Some(most) = keep.bytes else { return Ok(()) };
    let unreadable = |source| ImageError::Read { archive: catalog::dir(store), source };
    let bytes_of = |all: &BTreeSet<Digest>| {
        notes::layers_bytes(store, &all.iter().copied().collect::<Vec<_>>())
    };
    let mut needed = used.unwrap_or_default();
    let preloaded = preload::pinned(store).map_err(unreadable)?;
    for (known, names) in catalog::list(store).map_err(unreadable)? {
        if preloaded.contains(&known.digest) || keep.is_always(&names) {
            needed.extend(known.layers);
        }
    }
    let beside = bytes_of(&needed)?;
    needed.extend(layers);
    let all = bytes_of(&needed)?.saturating_add(coming);
    let bytes = all.saturating_sub(beside);
    if bytes > 0 && all > most {
        return Err(ImageError::NoRoom { images: images.into(), bytes, beside, most });
    }
    // What is on its way continues with what has come of it.
    if coming == 0 && all.saturating_add(parts::bytes(store)) > most {
        parts::clear(store);
    }
    Ok(())
}

/// Why images stay though nothing is made of them, for people.
pub fn why_stay(
    store: &Store,
    keep: &Keep,
) -> Result<BTreeMap<Digest, Vec<&'static str>>, ImageError> {
    let unreadable = |source| ImageError::Read { archive: catalog::dir(store), source };
    let preloaded = preload::pinned(store).map_err(unreadable)?;
    let mut all = BTreeMap::new();
    for (known, names) in catalog::list(store).map_err(unreadable)? {
        let is_pinned = known.layers.iter().any(|layer| store.is_pinned(layer));
        let reasons = [
            (preloaded.contains(&known.digest), "it came with the box"),
            (keep.is_always(&names), "`persistent_images` in [garden] names it"),
            (is_pinned, "it is pinned: something is being made of its layers at this moment"),
        ];
        let reasons = reasons.into_iter().filter_map(|(is_so, why)| is_so.then_some(why));
        all.insert(known.digest, reasons.collect());
    }
    Ok(all)
}

/// Removes parts of blobs that nobody goes on with, and images that nothing is made of, those that
/// were not asked for the longest first, until `need` bytes are gone, or a little more; how many are.
///
/// What stays: `used`, which is asked after the search has begun and tells every layer that something
/// on the box is or will be made of; what is pinned, or was meanwhile; images that stay always, and those
/// of files that came with the box. Other layers than those of images stay as well, whoever they are of.
pub fn make_room(
    store: &Store,
    keep: &Keep,
    need: Bytes,
    used: impl FnOnce() -> Option<BTreeSet<Digest>>,
) -> Result<u64, ImageError> {
    let refused = |source| ImageError::Store { archive: store.dir().join("layers"), source };
    let need = need.get().max(LEAST);
    let round = store.begin_round();
    let mut freed = parts::clear(store);
    let Some(used) = used() else { return Ok(freed) };
    let unreadable = |source| ImageError::Read { archive: store.dir().join("images"), source };
    let mut images = catalog::list(store).map_err(unreadable)?;
    let of_files = preload::pinned(store).map_err(unreadable)?;
    images.sort_by_key(|(known, _)| known.place());
    let mut gone = BTreeSet::new();
    for at in 0..images.len() {
        if freed >= need {
            break;
        }
        let (known, names) = &images[at];
        let own = own_layers(store, &images, at, &gone, &used);
        if own.is_empty() || keep.is_always(names) || of_files.contains(&known.digest) {
            continue;
        }
        catalog::drop_image(store, known, names)?;
        gone.insert(known.digest);
        let trees = notes::trees_of(store, &own).map_err(refused)?;
        for layer in own.iter().chain(&trees).filter(|layer| !used.contains(layer)) {
            let size = notes::drop_layer(store, &round, layer).map_err(refused)?;
            freed = freed.saturating_add(size.map_or(0, |size| size.bytes));
        }
    }
    Ok(freed)
}

/// Whether images, and what has come of others, have more bytes than they may.
pub fn exceeds(store: &Store, keep: &Keep) -> bool {
    let Some(most) = keep.bytes else { return false };
    let held = store.layers().ok().and_then(|all| notes::layers_bytes(store, &all).ok());
    held.is_some_and(|held| held.saturating_add(parts::bytes(store)) > most)
}

/// Layers that only the image at this place needs.
fn own_layers(
    store: &Store,
    images: &[(Known, Vec<String>)],
    at: usize,
    gone: &BTreeSet<Digest>,
    used: &BTreeSet<Digest>,
) -> BTreeSet<Digest> {
    let others = images.iter().enumerate();
    let others = others.filter(|(other, (known, _))| *other != at && !gone.contains(&known.digest));
    let others: BTreeSet<&Digest> = others.flat_map(|(_, (known, _))| &known.layers).collect();
    let is_own = |layer: &&Digest| {
        !used.contains(layer) && !others.contains(layer) && !store.is_pinned(layer)
    };
    images[at].0.layers.iter().filter(is_own).copied().collect()
}
