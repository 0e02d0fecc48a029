//! What the box gets back when it is quiet.

use super::diff::Key;
use super::record::{AppRecord, Release};
use super::shared::{Cell, Shared};
use crate::image::catalog::{self, Keep, Sweep};
use crate::image::{self, Collected, ImageError};
use crate::log::chain;
use crate::model::lrp::ActualLrp;
use crate::model::manifest::Image;
use crate::unit::{AppName, Bytes, Digest};
use smol::future;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Quiet this long after the last container went, the store may be cut: a staging makes way for
/// its instances, and a crashed one for the next, sooner than that.
const QUIET: Duration = Duration::from_secs(15);

/// Looks at the store after containers have gone.
const LOOKS: u32 = 2;

/// What an app has an image for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageUse {
    /// The image.
    pub digest: Digest,
    /// The app.
    pub app: AppName,
    /// What for.
    pub what: UsedFor,
}

/// What an image is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UsedFor {
    /// Its instances start from it.
    Start,
    /// It goes back to it when the one after that fails.
    Return,
    /// Somebody may have it go back to this revision.
    Revision(u64),
}

/// Those of one app; each image once, for what comes first.
fn image_uses(app: &AppName, record: &AppRecord) -> Vec<ImageUse> {
    let of = |release: &Release| release.image.as_ref().map(|image| image.digest);
    let start = record.release.iter().map(|it| (of(it), UsedFor::Start));
    let last = record.last_good.iter().map(|it| (of(it), UsedFor::Return));
    let revisions = record.revisions.iter();
    let revisions = revisions.map(|it| (of(&it.release), UsedFor::Revision(it.number)));
    let mut uses: Vec<ImageUse> = Vec::new();
    for (digest, what) in start.chain(last).chain(revisions) {
        if let Some(digest) = digest.filter(|it| uses.iter().all(|own| own.digest != *it)) {
            uses.push(ImageUse { digest, app: app.clone(), what });
        }
    }
    uses
}

impl Cell {
    /// Lets the next quiet round remove layers that nothing on the box is made of: containers have
    /// gone that this room knows nothing of.
    pub fn look_for_litter(&self) {
        self.shared.state().litter = true;
        self.shared.wake();
    }

    /// Lets the next quiet round remove images that are too many, if they are, and take from the store
    /// what it was made wider by while they came. Blocking.
    pub fn look_at_images(&self) {
        self.look_at_store();
        if image::exceeds(self.shared.host.store(), &self.shared.keep) {
            self.look_for_litter();
        }
    }

    /// Whether images of these layers, with as many bytes that are still to come, stay beside what the
    /// box needs. `images` is what the error calls them. Blocking.
    pub fn check_images(
        &self,
        images: &str,
        layers: &[Digest],
        coming: u64,
    ) -> Result<(), ImageError> {
        let (store, keep) = (self.shared.host.store(), &self.shared.keep);
        image::check_room(store, keep, (images, layers, coming), self.shared.layers_of_all())
    }

    /// Looks after the store from now on: removes images that nobody uses when something does not
    /// fit.
    pub fn keep_store(&self) {
        // The store is part of what we hold.
        let shared = Arc::downgrade(&self.shared);
        let make_room = move |need| shared.upgrade().is_some_and(|shared| shared.make_room(need));
        self.shared.host.store().keep_with(make_room);
    }

    /// Removes now what nobody can ask for or needs, or with `all` every image that nothing is made
    /// of; `None`: all are kept, as something is being staged or the containers cannot be told.
    pub async fn collect(&self, all: bool) -> Result<Option<Collected>, ImageError> {
        let shared = self.shared.clone();
        let sweep = if all { Sweep::All } else { Sweep::Now };
        let work = move || {
            let keep = Keep { sweep, ..shared.keep.clone() };
            image::collect(shared.host.store(), &keep, || shared.used_layers())
        };
        let collected = smol::unblock(work).await;
        // The store has room again for whoever waits for it.
        self.shared.state().waiting.room_returned();
        self.shared.wake();
        collected
    }

    /// Apps of images that have no container now, as they are stopped or wait for something, with the
    /// digest of the image that they start from; and those that may go back to another image.
    pub fn idle_images(&self) -> Vec<(AppName, Digest)> {
        let state = self.shared.state();
        let lives = |name: &AppName| {
            let mut own = state.actual.iter().filter(|(key, _)| key.0.app == *name);
            own.any(|(_, record)| record.place().is_some())
        };
        let images = |(name, app): (&AppName, &AppRecord)| {
            let idle = app.release.iter().filter(|_| !lives(name));
            let releases = idle.chain(&app.last_good).filter_map(|it| it.image.as_ref());
            releases.map(|image| (name.clone(), image.digest)).collect::<Vec<_>>()
        };
        state.apps.iter().flat_map(images).collect()
    }

    /// Which images apps may be made of again, and for what.
    pub fn image_uses(&self) -> Vec<ImageUse> {
        let state = self.shared.state();
        let all = state.apps.iter().flat_map(|(app, record)| image_uses(app, record));
        all.collect()
    }

    /// Instances as people call them, by the names that their containers have on the box.
    pub fn instances(&self) -> BTreeMap<String, String> {
        let state = self.shared.state();
        let one = |((guid, index, _), record): (&Key, &ActualLrp)| {
            Some((record.place()?.handle.to_string(), format!("{}/{index}", guid.app)))
        };
        state.actual.iter().filter_map(one).collect()
    }

    /// What clients call those apps that are LRPs of theirs: people know them by nothing else.
    pub fn lrp_guids(&self) -> BTreeMap<AppName, String> {
        let state = self.shared.state();
        let guid = |(name, app): (&AppName, &AppRecord)| {
            Some((name.clone(), app.container.as_ref()?.guid.clone()))
        };
        state.apps.iter().filter_map(guid).collect()
    }

    /// Why images stay though nothing is made of them. Blocking.
    pub fn why_images_stay(&self) -> Result<BTreeMap<Digest, Vec<&'static str>>, ImageError> {
        image::why_stay(self.shared.host.store(), &self.shared.keep)
    }

    /// Names in full of images that apps' manifests have, each with its app.
    pub fn image_names(&self) -> Vec<(AppName, String)> {
        let state = self.shared.state();
        let name = |app: &AppRecord| match &app.manifest.image {
            Some(Image::Ref(name)) if name.digest().is_none() => {
                Some(catalog::key(&name.at(&self.shared.registries.default)))
            }
            _ => None,
        };
        let apps = state.apps.iter().filter(|(_, app)| !app.deleting);
        apps.filter_map(|(app, record)| Some((app.clone(), name(record)?))).collect()
    }

    /// More images that came with the box are here.
    pub fn preloaded(&self) {
        self.shared.wake();
    }

    /// No more images that came with the box will be here: who needs others asks registries.
    pub fn preload_is_over(&self) {
        self.shared.state().preloading = false;
        self.shared.wake();
    }

    /// Lets the store be looked at: containers have gone that this room knows nothing of, or it was made
    /// wider for images.
    pub fn look_at_store(&self) {
        let _ = self.shared.went.try_send(());
    }

    /// Gives the disk below the store what no container was promised any more; never ends. A few
    /// looks at the start and after containers have gone, none in between.
    pub async fn keep_store_small(&self) {
        let shared = &self.shared;
        loop {
            while future::or(async { shared.gone.recv().await.is_ok() }, async {
                async_io::Timer::after(QUIET).await;
                false
            })
            .await
            {}
            // What was removed counts as free only once that is on the disk, and the kernel's
            // cleaner has been through it; several looks, then, with a quiet time between.
            for _ in 0..LOOKS {
                let inner = shared.clone();
                match smol::unblock(move || inner.host.store().write_down()).await {
                    Ok(()) => async_io::Timer::after(QUIET).await,
                    Err(err) => {
                        crate::warn!("volume.not_shrunk", err = chain(&err));
                        break;
                    }
                };
                let inner = shared.clone();
                if let Err(err) = smol::unblock(move || inner.host.store().give_back()).await {
                    crate::warn!("volume.not_shrunk", err = chain(&err));
                }
            }
            if shared.gone.recv().await.is_err() {
                return future::pending().await;
            }
        }
    }
}

impl Shared {
    /// Whether images could be removed for something that does not fit. Blocking.
    fn make_room(&self, need: Bytes) -> bool {
        let made = image::make_room(self.host.store(), &self.keep, need, || self.layers_of_all());
        match made {
            Ok(bytes) => {
                crate::info!("store.room_made", bytes = bytes);
                bytes > 0
            }
            Err(err) => {
                crate::warn!("layer.left", err = chain(&err));
                false
            }
        }
    }
}
