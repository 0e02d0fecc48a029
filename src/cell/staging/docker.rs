//! Stages an app that comes as an image: gets the image, and records what it says of itself.
//!
//! No container is needed, as nothing of the image is run. Whoever starts an instance later finds
//! its layers here and asks nobody.

use super::{Shared, Unstaged};
use crate::cell::record::{AppRecord, Release};
use crate::exec::cancel::Cancel;
use crate::image::archived::Looks;
use crate::image::catalog::{self, Known};
use crate::image::registry::failure;
use crate::image::work::Wish;
use crate::image::{self, Fits, ImageError};
use crate::log::chain;
use crate::model::image::StagedImage;
use crate::model::manifest::{Image, Manifest};
use crate::model::signals;
use crate::stage::{docker, types};
use crate::sys::clock;
use crate::unit::{AppName, Bytes, Digest, ImageRef};
use crate::volume::Pin;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Lines about one transfer.
const QUARTERS: u64 = 4;

/// Gets the image and records it.
pub(super) async fn stage(
    shared: &Arc<Shared>,
    record: &AppRecord,
    wanted: &Image,
    cancel: &Cancel,
) -> Result<Release, Unstaged> {
    let manifest = record.manifest.clone();
    let app = &manifest.name;
    let (inner, same, what) = (shared.clone(), record.clone(), wanted.clone());
    if let Some(release) = smol::unblock(move || same_archive(&inner, &same, &what)).await {
        return Ok(release);
    }
    shared.say(app, "STG", false, format!("Fetching image {wanted}"));
    let (inner, name, what) = (shared.clone(), app.clone(), wanted.clone());
    let lost = shared.lost_image(record);
    // Who gives up on it ends it; what has come is there for the next one.
    let (wish, _wisher) = Wish::held(shared.host.store());
    let most = most_disk(&manifest);
    let wish = wish.at_most(most);
    let fetched = cancel.or(async {
        let turn = shared.fetches.acquire_arc().await;
        smol::unblock(move || {
            let _turn = turn;
            fetch(&inner, &name, (&what, most), (lost, &wish))
        })
        .await
    });
    let (known, bytes, pin) = match fetched.await.ok_or_else(|| "it was stopped".to_owned())? {
        Ok(fetched) => fetched,
        Err(Unfetched { why, is_away: true, .. }) if let Some(old) = unchanged(shared, record) => {
            let (release, pin) = old;
            shared.say(app, "STG", true, format!("{why}; it stays the image that it is"));
            for line in super::told_of_web(record, &release) {
                shared.say(app, "STG", false, line);
            }
            shared.state().fetched.insert(app.clone(), pin);
            return Ok(release);
        }
        Err(Unfetched { why, passes, .. }) => return Err(Unstaged { why, is_away: passes }),
    };
    shared.state().fetched.insert(app.clone(), pin);
    let image = StagedImage {
        digest: known.digest,
        layers: known.layers,
        bytes,
        env: known.config.env.clone(),
        volumes: known.config.volumes.clone(),
        stop_signal: signals::number(&known.config.stop_signal),
    };
    let size = Bytes::mib(bytes.div_ceil(1 << 20));
    let layers = match image.layers.len() {
        1 => "one layer".to_owned(),
        count => format!("{count} layers"),
    };
    let text = format!("Image {} is here: {layers}, {size}", image.digest);
    shared.say(app, "STG", false, text);
    let result =
        docker::result(&wanted.to_string(), &known.config).map_err(|err| err.to_string())?;
    // What cannot run is found here, while somebody looks, not at every start.
    docker::desired_lrps(&manifest, &result, &image, 0).map_err(|err| err.to_string())?;
    docker::check_disk(&manifest, &image).map_err(|err| err.to_string())?;
    for line in types::borrowed(&manifest, &result) {
        shared.say(app, "STG", false, line);
    }
    let digest = image.digest;
    Ok(Release {
        manifest,
        fingerprint: digest,
        result,
        stack: digest,
        droplet: digest,
        image: Some(image),
        container: None,
    })
}

/// An image that cannot be had.
struct Unfetched {
    /// For the user.
    why: String,
    /// Nobody gives it now: that says nothing against the image.
    is_away: bool,
    /// Nobody was reached who could say more: asked later, somebody may give it.
    passes: bool,
}

impl From<ImageError> for Unfetched {
    fn from(err: ImageError) -> Unfetched {
        use failure::Kind as K;
        let is_away = matches!(&err, ImageError::Pull { source, .. }
            if matches!(source.kind, K::Passing | K::Untrusted | K::Denied | K::Missing));
        // Memory comes back when others have theirs. By the wrong clock of a box that has just begun no certificate is good.
        let passes = matches!(&err, ImageError::Pull { source, .. }
            if source.kind == K::Passing
                || (source.is_unreached && (source.kind != K::Untrusted || clock_is_behind())));
        Unfetched { passes: passes || err.lacks_memory(), why: chain(&err), is_away }
    }
}

/// The box's clock is before what is known to be past.
fn clock_is_behind() -> bool {
    clock::wall() < clock::WRITTEN.max(clock::vouched())
}

/// The smallest disk of the app's processes: the image counts as part of it.
fn most_disk(manifest: &Manifest) -> Bytes {
    let disks = manifest.processes.values().map(|process| process.disk);
    disks.min().unwrap_or(Bytes::new(u64::MAX))
}

/// What the app has, when its archive is the one that it was made of, by looks: then it is not read
/// again, unless somebody asks for that. Blocking.
fn same_archive(shared: &Shared, record: &AppRecord, wanted: &Image) -> Option<Release> {
    let Image::Archive(path) = wanted else { return None };
    let (release, pin) = unchanged(shared, record)?;
    let image = release.image.as_ref()?.digest;
    let is_forced = record.forced == Some(record.generation);
    if is_forced || !Looks::of(path).ok()?.is(shared.host.store(), &image) {
        return None;
    }
    for line in
        super::told_of_same(record, &release, ["archive and manifest are", "the archive is"])
    {
        shared.say(&release.manifest.name, "STG", false, line);
    }
    shared.state().fetched.insert(release.manifest.name.clone(), pin);
    Some(release)
}

/// What the app has, when its manifest names the same image as before and all of that is here; the pin
/// keeps it.
fn unchanged(shared: &Shared, record: &AppRecord) -> Option<(Release, Pin)> {
    let old = record.release.as_ref()?;
    let image = old.image.as_ref()?;
    let store = shared.host.store();
    let pin = store.pin(&image.layers);
    let is_same = old.manifest.image == record.manifest.image
        && image.layers.iter().all(|layer| store.layer(layer).is_some())
        && docker::desired_lrps(&record.manifest, &old.result, image, 0).is_ok()
        && docker::check_disk(&record.manifest, image).is_ok();
    is_same.then(|| (Release { manifest: record.manifest.clone(), ..old.clone() }, pin))
}

/// The image, the bytes that it has, and what keeps its layers until they are recorded. `lost`: the
/// one that the app had, which counts more than what its name means now. Blocking.
fn fetch(
    shared: &Shared,
    app: &AppName,
    (wanted, most): (&Image, Bytes),
    (lost, wish): (Option<Digest>, &Wish),
) -> Result<(Known, u64, Pin), Unfetched> {
    let store = shared.host.store();
    // What would be refused afterwards does not come.
    let fits = |layers: &[Digest], coming: u64| {
        let bytes = image::layers_bytes(store, layers)?.saturating_add(coming);
        match bytes < most.get() {
            true => Ok(()),
            false => Err(ImageError::TooLarge { image: wanted.to_string(), bytes, disk: most }),
        }
    };
    let (known, pin) = match wanted {
        Image::Ref(name) => {
            let said = AtomicU64::new(0);
            let progress = |done: u64, all: u64| {
                let quarter = done.saturating_mul(QUARTERS).checked_div(all).unwrap_or_default();
                if quarter > said.fetch_max(quarter, Ordering::Relaxed) && quarter < QUARTERS {
                    let text = format!("{} of {} MiB are here", done >> 20, all >> 20);
                    shared.say(app, "STG", false, text);
                }
            };
            let pull = |name: &ImageRef| {
                let (asked, wish) = ((name, None), wish.clone().at_most(most));
                image::pull_for_later(store, &shared.registries, asked, &wish, &progress, &fits)
            };
            let before = lost.and_then(|digest| pull(&name.pinned(digest)).ok());
            let pulled = before.map_or_else(|| pull(name), Ok);
            // A pull makes the store wider than it has to be.
            let _ = shared.went.try_send(());
            let pulled = pulled?;
            if let Some(why) = &pulled.unasked {
                let digest = pulled.image.digest;
                let text = format!("Cannot ask what {name} is now, it stays at {digest}: {why}");
                shared.say(app, "STG", true, text);
            }
            (pulled.image, pulled.pin)
        }
        Image::Archive(path) => load(shared, path, wish, &fits)?,
    };
    let bytes = image::layers_bytes(store, &known.layers)?;
    Ok((known, bytes, pin))
}

impl Shared {
    /// Whether the app is of an image by name, and nothing on the box has that name.
    pub(in crate::cell) fn lacks_image(&self, app: &AppRecord) -> bool {
        let Some(Image::Ref(name)) = &app.manifest.image else { return false };
        let name = name.at(&self.registries.default);
        let meant = catalog::meaning(self.host.store(), &name);
        meant.is_none_or(|digest| !catalog::has(self.host.store(), &digest))
    }
}

/// The one image of an archive.
fn load(
    shared: &Shared,
    path: &Path,
    wish: &Wish,
    fits: &Fits<'_>,
) -> Result<(Known, Pin), Unfetched> {
    let (store, default) = (shared.host.store(), &shared.registries.default);
    let looks = Looks::of(path);
    let is_away = looks.as_ref().is_err_and(|err| err.kind() == io::ErrorKind::NotFound);
    // Of an archive only a person can help, but for memory that others have.
    let failed = |why: String| Unfetched { why, is_away, passes: false };
    let all = image::load_wanted((store, wish), default, path, None, fits);
    // It makes the store wider than it has to be, as a pull does.
    let _ = shared.went.try_send(());
    let all = all.map_err(|err| Unfetched { passes: err.lacks_memory(), ..failed(chain(&err)) })?;
    let count = all.len();
    let mut all = all.into_iter();
    let (known, pin) = match (all.next(), all.next()) {
        (Some(only), None) => catalog::find(store, &only.digest).ok_or_else(|| {
            failed(format!("the image of {} has gone again; apply it again", path.display()))
        })?,
        _ => {
            return Err(failed(format!(
                "{} has {count} images that run on this box; write one of them to an archive of its \
                 own",
                path.display()
            )));
        }
    };
    if let Ok(looks) = looks {
        looks.became(store, &known);
    }
    Ok((known, pin))
}
