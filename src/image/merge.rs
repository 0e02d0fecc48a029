//! Layers put together to one tree, for containers whose root is a snapshot instead of a union.
//!
//! A tree is a layer of the store like the others, but made of them: it shares their data, and what
//! they hide is not in it. It begins as a snapshot of the longest tree that there is of its lowest
//! layers; the lowest alone always becomes one, as it is what the box's containers share.

use super::copy::{self, Source};
use super::error::ImageError;
use super::notes;
use crate::unit::Digest;
use crate::volume::{Draft, Pin, Store};
use std::fs::File;

/// The tree of `layers`, lowest first, made if it is not there; it stays at least for as long as the
/// pin does. Who asks for one that is being made waits for that.
pub fn merge(store: &Store, layers: &[Digest]) -> Result<(Digest, Pin), ImageError> {
    let top = *layers.last().unwrap_or(&Digest::of(b""));
    let chain = name(layers);
    let pin = store.pin(&[chain]);
    if store.layer(&chain).is_some() {
        return Ok((chain, pin));
    }
    let below = match (1..layers.len()).rev().find_map(|n| known(store, &layers[..n])) {
        None if layers.len() > 1 => {
            let (tree, pin) = merge(store, &layers[..1])?;
            Some((1, tree, pin))
        }
        found => found,
    };
    let _turn = store.turn(&chain);
    if store.layer(&chain).is_some() {
        return Ok((chain, pin));
    }
    let place = store.dir().join("layers").join(chain.hex());
    let in_store = |source| ImageError::Store { archive: place.clone(), source };
    let (merged, draft) = match &below {
        Some((n, tree, _)) => (*n, store.draft_of(tree)),
        None => (0, store.draft()),
    };
    let draft: Draft<'_> = draft.map_err(in_store)?;
    let unreadable = |source| ImageError::Read { archive: place.clone(), source };
    let to = File::open(draft.dir()).map_err(unreadable)?;
    for layer in &layers[merged..] {
        let from = store.dir().join("layers").join(layer.hex());
        let from = File::open(&from)
            .map_err(|source| ImageError::Read { archive: from.clone(), source })?;
        copy::copy(store, Source::Layer, &from, &to)
            .map_err(|source| ImageError::Tree { layer: top, source })?;
    }
    // Before it is there: without the note it would be removed as used by nobody.
    notes::record_tree(store, &chain, layers);
    draft.commit(&chain).map_err(in_store)?;
    crate::info!("image.merged", digest = chain, layers = layers.len());
    Ok((chain, pin))
}

/// The tree of these layers, if there is one; how many they are comes first.
fn known(store: &Store, layers: &[Digest]) -> Option<(usize, Digest, Pin)> {
    let tree = name(layers);
    let pin = store.pin(&[tree]);
    store.layer(&tree).map(|_| (layers.len(), tree, pin))
}

/// The name of the tree of these layers.
fn name(layers: &[Digest]) -> Digest {
    let layers: String = layers.iter().map(|layer| format!(" {layer}")).collect();
    Digest::of(format!("terrarium tree{layers}").as_bytes())
}
