//! Layers that are unpacked become layers of the store, together: the disk is waited for once, not for
//! each. A layer that says something of those below is shown no sooner than they.

use super::catalog::Drafts;
use super::error::ImageError;
use super::fetch::{Fetch, Layer, List, Name};
use super::held::HELD_MAX;
use super::registry::part::Kept;
use super::unpack::Summary;
use super::work::Wish;
use super::{implied, layout, notes};
use crate::unit::Digest;
use crate::volume::{Draft, Store};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::PoisonError;
use std::time::Duration;

/// So many bytes that are unpacked are shown before the rest of the image is here: they take room
/// twice until then, packed too.
const SHOWN_AT: u64 = 256 << 20;
/// How often somebody who waits for layers below looks whether he still has to.
const LOOK: Duration = Duration::from_millis(100);

/// The turn of who shows an image, or layers of it: all of it is visible before it is on the disk. Nobody
/// waits for anything else with it in hand.
pub(super) fn turn_of(image: &Digest) -> Digest {
    Digest::of(format!("shown image {image}").as_bytes())
}

/// What who wants it then has to wait for.
const SHOWN: &str = "this image is being written to the disk";

/// Waits while somebody shows this image, or until nobody wants it; whether anybody did. Not for who only
/// fetches it: a file may have brought it meanwhile.
pub(super) fn is_waited_for(store: &Store, image: &Digest, wish: &Wish) -> bool {
    let key = turn_of(image);
    let is_shown = store.is_taken(&key);
    if is_shown {
        wish.waits(SHOWN);
        drop(store.turn_until(&key, &|| wish.is_over()));
    }
    is_shown
}

/// What has become of the layers of an image so far.
#[derive(Default)]
pub(super) struct State<'a> {
    /// Which layers are in the store.
    pub here: Vec<bool>,
    /// Those that are unpacked and not yet shown, by their place.
    pub unpacked: BTreeMap<usize, Unpacked<'a>>,
    /// Why it is given up.
    pub first: Option<ImageError>,
}

impl State<'_> {
    /// Bytes of files that are unpacked.
    fn bytes(&self) -> u64 {
        self.unpacked.values().map(|it| it.summary.bytes).fold(0, u64::saturating_add)
    }

    /// Bytes of memory that are held for them.
    fn held(&self) -> usize {
        self.unpacked.values().map(|it| it.summary.held()).sum()
    }
}

/// A layer that is unpacked, and not yet shown.
pub(super) struct Unpacked<'a> {
    pub draft: Draft<'a>,
    pub summary: Summary,
    pub diff: Digest,
    /// The blob, until the layer is in the store.
    pub kept: Kept,
}

impl<'a> Fetch<'a> {
    /// Notes that a layer is here, or unpacked; whether that is enough to be shown now.
    pub(super) fn is_made(&self, at: usize, made: Option<Unpacked<'a>>) -> bool {
        let mut state = self.state();
        match made {
            Some(unpacked) => drop(state.unpacked.insert(at, unpacked)),
            None => state.here[at] = true,
        }
        state.bytes() >= SHOWN_AT || state.held() >= HELD_MAX
    }

    /// Waits while too much is held for layers that those below keep from being shown. These are begun
    /// sooner, and whoever makes the last of them shows what waits.
    pub(super) fn wait_below(&self) {
        let mut state = self.state();
        while state.held() >= HELD_MAX && !self.is_over() {
            let waited = self.shown.wait_timeout(state, LOOK);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Shows what is unpacked, but for what needs layers below that are not; up to one that is not
    /// what it should be above them. If those are all, with what `list` writes of them.
    pub(super) fn show_unpacked(
        &self,
        layers: &[Layer],
        list: Option<&List<'_>>,
    ) -> Result<(), ImageError> {
        let _showing = self.showing.lock().unwrap_or_else(PoisonError::into_inner);
        let place = |layer: &Layer| self.store.dir().join("layers").join(layer.chain.hex());
        let mut places: Vec<PathBuf> = layers.iter().map(place).collect();
        let (mut group, mut at_all, mut settled) = (Vec::new(), Vec::new(), Ok(()));
        for (at, mut unpacked) in self.take_unpacked() {
            let Unpacked { draft, summary, .. } = &mut unpacked;
            let (below, is_over) = (&places[..at], || self.is_over());
            let own = implied::settle_above(self.store, draft.dir(), summary, below, &is_over);
            if let Err(err) = own {
                if self.is_of_content(&err) {
                    unpacked.kept.forget();
                }
                settled = Err(self.broken(&Name::Digest(layers[at].blob.digest), err));
                break;
            }
            places[at] = draft.dir().into();
            at_all.push(at);
            group.push((unpacked, layers[at].chain));
        }
        let list = list.filter(|_| settled.is_ok());
        self.show(group, || {
            list.map_or(Ok(Drafts::default()), |list| list(shown(layers, &places)?))
        })?;
        let mut state = self.state();
        at_all.into_iter().for_each(|at| state.here[at] = true);
        drop(state);
        self.shown.notify_all();
        settled
    }

    /// Takes what can be shown now, lowest first.
    fn take_unpacked(&self) -> Vec<(usize, Unpacked<'a>)> {
        let mut state = self.state();
        let mut known = state.here.clone();
        let (mut taken, mut left) = (Vec::new(), BTreeMap::new());
        for (at, unpacked) in std::mem::take(&mut state.unpacked) {
            match !unpacked.summary.needs_below() || known[..at].iter().all(|it| *it) {
                true => {
                    known[at] = true;
                    taken.push((at, unpacked));
                }
                false => drop(left.insert(at, unpacked)),
            }
        }
        state.unpacked = left;
        taken
    }

    /// Makes unpacked layers those of the store, and right after them visible what `list` writes.
    pub(super) fn show(
        &self,
        group: Vec<(Unpacked<'_>, Digest)>,
        list: impl FnOnce() -> Result<Drafts, ImageError>,
    ) -> Result<(), ImageError> {
        let (mut drafts, mut rest) = (Vec::new(), Vec::new());
        for (Unpacked { draft, summary, mut kept, .. }, chain) in group {
            kept.forget_quick();
            // Before the layer: who lists it counts it. A note of a layer that never comes is replaced
            // when it does.
            notes::record(self.store, &chain, summary.size());
            drafts.push((draft, chain));
            rest.push((chain, summary, kept));
        }
        let (mut listed, unlisted) = match list() {
            Ok(listed) => (listed, Ok(())),
            // The layers need not come again for that.
            Err(err) => (Drafts::default(), Err(err)),
        };
        if drafts.is_empty() && listed.is_empty() {
            return unlisted;
        }
        // Who finds the image meanwhile waits for the disk.
        let shows = self.store.turn(&turn_of(&self.image));
        let shown = self.store.commit_with(&drafts, || listed.publish());
        drop(shows);
        shown.map_err(|source| self.in_store(source))?;
        for (chain, mut summary, kept) in rest {
            kept.forget();
            summary.spent.keep();
            crate::info!(
                "layer.made",
                image = self.name,
                digest = chain,
                files = summary.made,
                bytes = summary.bytes,
                skipped = summary.skipped
            );
        }
        unlisted
    }
}

/// The layers that count, of those in these places.
fn shown(layers: &[Layer], places: &[PathBuf]) -> Result<Vec<Digest>, ImageError> {
    let unread = |source| ImageError::Read { archive: places[0].clone(), source };
    let hides = if places.is_empty() { 0 } else { layout::hides_last(places).map_err(unread)? };
    Ok(layers[hides..].iter().map(|layer| layer.chain).collect())
}
