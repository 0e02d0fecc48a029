//! Layers of which only the blob is known, as of images of the first schema and of registries of the first
//! version: what they are shows when they are unpacked. So they are made one after the other, and what
//! each has become is noted: a pull that is broken off does not fetch it again.
//!
//! ```text
//! imports/<key>.blob      the digest of the layer's tar, and its chain id
//! ```
//!
//! A note that is lost costs time, never content.

use super::catalog;
use super::error::ImageError;
use super::fetch::{Fetch, Name};
use super::registry::download::Wanted;
use super::several::{PATIENCE, patiently};
use super::show::Unpacked;
use super::{held, implied, parts};
use crate::unit::Digest;
use crate::volume::{Pin, Store};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How a note's name ends.
const END: &str = "blob";
/// Of one that is being written, and how long that may take.
const DRAFT: &str = "new";
const DRAFT_MAX: Duration = Duration::from_secs(3600);

impl Fetch<'_> {
    /// Makes a layer of which only the blob is known, above the layers `chains`, and adds its name to
    /// them; what it is, and what keeps them all. Where there is no memory for what is to be remembered
    /// of it, again when others have given some back.
    pub fn unknown(
        &self,
        name: &Name,
        chains: &mut Vec<Digest>,
    ) -> Result<(Digest, Pin), ImageError> {
        let below = chains.len();
        patiently(&self.own, PATIENCE, &held::free, || {
            chains.truncate(below);
            self.unknown_once(name, chains)
        })
    }

    fn unknown_once(
        &self,
        name: &Name,
        chains: &mut Vec<Digest>,
    ) -> Result<(Digest, Pin), ImageError> {
        // Two at a time would write into one another's part.
        let _turn = self.turn(&name.turn())?;
        let key = key(name, chains.last());
        if let Some(made) = recall(self.store, &key, chains) {
            return Ok(made);
        }
        let mut unpacked = self.unpack(name, wanted(name), &|_| ())?;
        let diff = unpacked.diff;
        let chain = chains.last().map_or(diff, |below| below.chain(&diff));
        let below = chains.clone();
        chains.push(chain);
        // Before it is there: a collection may begin at any moment.
        let pin = self.store.pin(chains);
        let Unpacked { draft, summary, .. } = &mut unpacked;
        let settled = implied::settle(self.store, draft.dir(), summary, &below, &|| self.is_over());
        if let Err(err) = settled {
            if self.is_of_content(&err) {
                unpacked.kept.forget();
            }
            return Err(self.broken(name, err));
        }
        self.show(vec![(unpacked, chain)], || Ok(catalog::Drafts::default()))?;
        remember(self.store, &key, &diff, &chain);
        Ok((diff, pin))
    }
}

/// What is known of the blob.
fn wanted(name: &Name) -> Wanted<'_> {
    match name {
        Name::Digest(digest) => Wanted { digest: Some(*digest), size: None, advice: None },
        Name::Id(own) => Wanted { digest: None, size: own.size, advice: own.advice.as_ref() },
    }
}

/// What a blob is called that is unpacked above the layer `below`. An id is one of its registry only.
fn key(name: &Name, below: Option<&Digest>) -> Digest {
    let below = below.map(Digest::to_string).unwrap_or_default();
    let name = match name {
        Name::Digest(digest) => digest.to_string(),
        Name::Id(own) => own.key().to_string(),
    };
    Digest::of(format!("blob {name} above {below}").as_bytes())
}

/// What a blob became, if that is still here: above the layers `chains`, to which it is added.
fn recall(store: &Store, key: &Digest, chains: &mut Vec<Digest>) -> Option<(Digest, Pin)> {
    let text = fs::read_to_string(note(store, key)).ok()?;
    let (diff, chain) = text.trim_end().split_once(' ')?;
    let (diff, chain): (Digest, Digest) = (diff.parse().ok()?, chain.parse().ok()?);
    let all = [&chains[..], &[chain]].concat();
    // Before it is looked for: a collection may begin at any moment.
    let pin = store.pin(&all);
    store.layer(&chain)?;
    *chains = all;
    Some((diff, pin))
}

/// Notes what a blob became, and forgets what is about layers that are gone.
fn remember(store: &Store, key: &Digest, diff: &Digest, chain: &Digest) {
    let (note, draft) = (note(store, key), note(store, key).with_extension(DRAFT));
    let dir = note.parent().unwrap_or(store.dir());
    let written = fs::create_dir_all(dir)
        .and_then(|()| fs::write(&draft, format!("{diff} {chain}\n")))
        .and_then(|()| fs::rename(&draft, &note));
    if let Err(err) = written {
        crate::warn!("image.note_lost", path = note.display(), err = err);
    }
    for item in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = item.path();
        if path.extension().is_some_and(|end| end == DRAFT) && is_old(&path) {
            let _ = fs::remove_file(&path);
        }
        if path.extension().is_none_or(|end| end != END) {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap_or_default();
        let chain = text.trim_end().split_once(' ').and_then(|(_, chain)| chain.parse().ok());
        if chain.is_none_or(|chain: Digest| store.layer(&chain).is_none()) {
            // Gone already, or looked at again the next time.
            let _ = fs::remove_file(path);
        }
    }
}

/// Whoever wrote it does so no more.
fn is_old(draft: &Path) -> bool {
    let written = fs::metadata(draft).and_then(|meta| meta.modified()).ok();
    written.and_then(|at| at.elapsed().ok()).is_some_and(|age| age > DRAFT_MAX)
}

fn note(store: &Store, key: &Digest) -> PathBuf {
    store.dir().join("imports").join(format!("{}.{END}", key.hex()))
}

impl Name {
    /// Whose turn it is to write the blob.
    fn turn(&self) -> Digest {
        match self {
            Name::Digest(digest) => parts::turn_of_blob(digest),
            Name::Id(own) => parts::turn_of_blob(&own.key()),
        }
    }
}
