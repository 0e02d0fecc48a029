//! The images of the store as the local API wants them.

pub(super) mod flow;
mod users;

use super::service::Service;
use crate::api::apps::images::{
    CollectedView, ImageService, ImageView, ImagesView, LeftView, NamedImage, Pieces, PullEvent,
    RemovedView, Saved,
};
use crate::api::apps::{ErrorKind, Served, ServiceError};
use crate::container::Host;
use crate::image::catalog::{self, Known};
use crate::image::registry::settings::Settings as Registries;
use crate::image::work::Wish;
use crate::image::{self, ImageError, Loaded, Save};
use crate::log::chain;
use crate::unit::{Digest, ImageRef};
use crate::volume::Store;
use flow::Incoming;
use smol::channel::{Sender, bounded};
use smol::stream;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Images that are loaded and saved for the command line at a time; and that are fetched for it, with
/// those that wait for others.
const WORKERS_MAX: usize = 8;
const PULLS_MAX: usize = 32;
/// Progress is told this often at most.
const OFTEN: Duration = Duration::from_millis(250);
/// Events, and pieces of an archive, that a client may be behind.
const BEHIND_MAX: usize = 16;
/// Digits that a digest may be cut to.
const DIGITS_MIN: usize = 6;

/// What is needed beside the cell.
pub struct Images {
    host: Arc<Host>,
    registries: Registries,
    busy: Arc<AtomicUsize>,
    /// Held by who removes names.
    removals: Arc<Mutex<()>>,
    pulls: Arc<AtomicUsize>,
}

impl Images {
    /// Of the store of `host`.
    pub fn new(host: Arc<Host>, registries: Registries) -> Images {
        let (busy, removals, pulls) = Default::default();
        Images { host, registries, busy, removals, pulls }
    }

    /// The right to do something long; given back when it is dropped.
    fn worker(&self) -> Served<Worker> {
        Worker::of(&self.busy, WORKERS_MAX)
    }

    /// The right to fetch something.
    fn puller(&self) -> Served<Worker> {
        Worker::of(&self.pulls, PULLS_MAX)
    }

    /// Does `work` with the host on a thread that may block.
    async fn unblock<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Host, &str) -> Served<T> + Send + 'static,
    ) -> Served<T> {
        let (host, default) = (self.host.clone(), self.registries.default.clone());
        smol::unblock(move || work(&host, &default)).await
    }
}

/// One of the few.
struct Worker(Arc<AtomicUsize>);

impl Worker {
    fn of(busy: &Arc<AtomicUsize>, most: usize) -> Served<Worker> {
        let worker = Worker(busy.clone());
        match busy.fetch_add(1, Ordering::AcqRel) < most {
            true => Ok(worker),
            false => {
                let text = format!("{most} images are on their way already; try again");
                Err(ServiceError::new(ErrorKind::Conflict, text))
            }
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// What an image that was loaded is called now; once without a name if it has none.
fn named(loaded: &Loaded) -> Vec<NamedImage> {
    let was = |name: &ImageRef| loaded.moved.iter().find(|(own, _)| own == name).map(|it| it.1);
    let one = |name: &ImageRef| NamedImage {
        was: was(name),
        ..NamedImage::new(Some(catalog::key(name)), loaded.digest)
    };
    let mut all: Vec<NamedImage> = loaded.names.iter().map(one).collect();
    if all.is_empty() {
        all.push(NamedImage::new(None, loaded.digest));
    }
    all[0].unnamed.clone_from(&loaded.left);
    all
}

/// Images of the catalogue with their names.
type All = Vec<(Known, Vec<String>)>;

fn all(store: &Store) -> Served<All> {
    catalog::list(store)
        .map_err(|source| failed(&ImageError::Read { archive: store.dir().join("images"), source }))
}

fn failed(err: &dyn std::error::Error) -> ServiceError {
    ServiceError::new(ErrorKind::Failed, chain(err))
}

/// The image that `text` names, and the name, when it is one: a name, a digest, or how a digest
/// begins. `led` tells which image a digest leads to, as that of an index.
fn find(
    all: &All,
    text: &str,
    default: &str,
    led: impl Fn(&Digest) -> Digest,
) -> Served<(usize, Option<String>)> {
    let name = text.parse::<ImageRef>().ok().map(|name| name.at(default));
    let pinned = name.as_ref().and_then(ImageRef::digest).copied();
    if let Some(digest) = pinned.or_else(|| text.parse().ok()) {
        let digest = led(&digest);
        let at = all.iter().position(|(known, _)| known.digest == digest);
        return at.map(|at| (at, None)).ok_or_else(|| unknown(text));
    }
    let key = name.as_ref().map(catalog::key);
    if let Some(key) = key
        && let Some(at) = all.iter().position(|(_, names)| names.contains(&key))
    {
        return Ok((at, Some(key)));
    }
    let digits = text.strip_prefix("sha256:").unwrap_or(text);
    let is_hex = digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    if !is_hex || digits.is_empty() {
        return Err(unknown(text));
    }
    let begins = |(_, (known, _)): &(usize, &(Known, _))| known.digest.hex().starts_with(digits);
    let mut found = all.iter().enumerate().filter(begins).map(|(at, _)| at);
    match (found.next(), found.next()) {
        (Some(_), _) if digits.len() < DIGITS_MIN => {
            let text =
                format!("no image is called `{text}`; of a digest, write {DIGITS_MIN} digits");
            Err(ServiceError::new(ErrorKind::NotFound, text))
        }
        (Some(at), None) => Ok((at, None)),
        (None, _) => Err(unknown(text)),
        (Some(_), Some(_)) => {
            let text = format!("several images begin with `{digits}`; write more of the digest");
            Err(ServiceError::new(ErrorKind::Invalid, text))
        }
    }
}

fn unknown(text: &str) -> ServiceError {
    let text = text.escape_default();
    let cure = "`terrarium image ls` lists those of this box";
    ServiceError::new(ErrorKind::NotFound, format!("no image `{text}` here; {cure}"))
}

/// One that is listed, and of which a layer is gone, or its file just now.
fn incomplete(listed: &Known) -> ServiceError {
    let Known { digest, .. } = listed;
    let text = format!("image {digest} is not whole on this box; pull or load it again");
    ServiceError::new(ErrorKind::NotFound, text)
}

impl ImageService for Service {
    async fn images(&self) -> Served<ImagesView> {
        let apps = self.cell.idle_images();
        let work = move |host: &Host, _: &str| {
            let store = host.store();
            let all = all(store)?;
            let used = users::of(host, &apps, &all)?;
            let bytes =
                |layers: &[Digest]| image::layers_bytes(store, layers).map_err(|err| failed(&err));
            let layers: BTreeSet<Digest> =
                all.iter().flat_map(|(known, _)| known.layers.iter().copied()).collect();
            let total = bytes(&layers.into_iter().collect::<Vec<_>>())?;
            let view = |((known, names), used_by): ((Known, Vec<String>), Vec<String>)| {
                let bytes = bytes(&known.layers)?;
                let Known { digest, id, layers, used_ms, .. } = known;
                Ok(ImageView { digest, id, names, layers, bytes, used_ms, used_by })
            };
            let images = all.into_iter().zip(used).map(view).collect::<Served<_>>()?;
            Ok(ImagesView { images, bytes: total })
        };
        self.images.unblock(work).await
    }

    async fn inspect(&self, image: &str) -> Served<serde_json::Value> {
        let (text, apps) = (image.to_owned(), self.cell.idle_images());
        let work = move |host: &Host, default: &str| {
            let store = host.store();
            let all = all(store)?;
            let (at, _) = find(&all, &text, default, |digest| catalog::led(store, digest))?;
            let used = users::of(host, &apps, &all)?;
            let (listed, names) = &all[at];
            let (known, _pin) =
                catalog::find(store, &listed.digest).ok_or_else(|| incomplete(listed))?;
            let bytes = image::layers_bytes(store, &known.layers);
            let bytes = bytes.map_err(|err| failed(&err))?;
            Ok(image::docker::inspect(&known, names, bytes, &used[at]))
        };
        self.images.unblock(work).await
    }

    async fn pull(&self, name: ImageRef) -> Served<stream::Boxed<PullEvent>> {
        let worker = self.images.puller()?;
        let (host, registries) = (self.images.host.clone(), self.images.registries.clone());
        let (wish, wisher) = Wish::held(host.store());
        let (name, cell) = (name.at(&registries.default), self.cell.clone());
        let (sender, receiver) = bounded(BEHIND_MAX);
        let (tell, room, waits) = (sender.clone(), cell.clone(), sender.clone());
        let wish = wish.telling(move |why| {
            let _ = waits.try_send(PullEvent::Waits { why: why.to_owned() });
        });
        let work = move || {
            let told = Mutex::new(None::<Instant>);
            let progress = |done, total| {
                let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
                if told.is_none_or(|told| told.elapsed() >= OFTEN) {
                    *told = Some(Instant::now());
                    // A client that is behind, or has left, misses it.
                    let _ = tell.try_send(PullEvent::Progress { done, total });
                }
            };
            let fits = |layers: &[Digest], coming| {
                room.check_images(&format!("image {name}"), layers, coming)
            };
            let (store, asked) = (host.store(), (&name, None));
            match image::pull_for_later(store, &registries, asked, &wish, &progress, &fits) {
                Err(err) => PullEvent::Error(failed(&err).view()),
                Ok(pulled) => {
                    let name = name.digest().is_none().then(|| catalog::key(&name));
                    PullEvent::Done(NamedImage::new(name, pulled.image.digest))
                }
            }
        };
        // Ends when the client has gone, by itself: a thread cannot be dropped.
        let whole = async move {
            let last = smol::unblock(work).await;
            smol::unblock(move || cell.look_at_images()).await;
            drop(worker);
            let _ = sender.send(last).await;
        };
        smol::spawn(whole).detach();
        let events = smol::stream::StreamExt::inspect(receiver, move |_| {
            // Owned by what the client reads from, and dropped with it.
            let _ = &wisher;
        });
        Ok(Box::pin(events))
    }

    async fn load(
        &self,
        from: String,
        name: Option<ImageRef>,
        pieces: Pieces,
        waits: Sender<String>,
    ) -> Served<Vec<NamedImage>> {
        let (worker, cell) = (self.images.worker()?, self.cell.clone());
        // Over when the client has gone and this is dropped; the thread then ends by itself.
        let (wish, _wisher) = Wish::held(self.images.host.store());
        let work = move |host: &Host, default: &str| {
            let _worker = worker;
            let stream = Incoming::new(pieces);
            let wish = wish.telling(move |why| {
                let _ = waits.try_send(why.to_owned());
            });
            let (store, from) = (host.store(), Path::new(&from));
            let fits = |layers: &[Digest], coming| {
                cell.check_images(&from.display().to_string(), layers, coming)
            };
            let loaded =
                image::load_stream((store, &wish), default, from, stream, name.as_ref(), &fits);
            let loaded = loaded.map_err(|err| {
                cell.look_at_images();
                failed(&err)
            })?;
            let named = loaded.iter().flat_map(named).collect();
            // Nothing holds on to them any more.
            cell.look_at_images();
            Ok(named)
        };
        self.images.unblock(work).await
    }

    async fn save(&self, image: &str) -> Served<Saved> {
        let worker = self.images.worker()?;
        let text = image.to_owned();
        let look = move |host: &Host, default: &str| {
            let store = host.store();
            let all = all(store)?;
            let (at, name) = find(&all, &text, default, |digest| catalog::led(store, digest))?;
            let (listed, names) = &all[at];
            let found = catalog::find(store, &listed.digest);
            let (known, pin) = found.ok_or_else(|| incomplete(listed))?;
            let names = name.map_or_else(|| names.clone(), |name| vec![name]);
            Save::new(store, &known, &names, pin).map_err(|err| failed(&err))
        };
        let save = self.images.unblock(look).await?;
        let (id, host) = (save.id, self.images.host.clone());
        let (to, pieces) = bounded(BEHIND_MAX);
        let work = move || {
            let _worker = worker;
            flow::send(to, |out| save.write(host.store(), out));
        };
        smol::spawn(smol::unblock(work)).detach();
        Ok(Saved { id, pieces: Box::pin(pieces) })
    }

    async fn remove(&self, image: &str) -> Served<RemovedView> {
        // Those are known to their clients by other names.
        let garden = self.garden.view(usize::MAX).await.containers;
        let (text, apps) = (image.to_owned(), self.cell.idle_images());
        let (wanted, instances) = (self.cell.image_names(), self.cell.instances());
        let guids = self.cell.lrp_guids();
        let removals = self.images.removals.clone();
        let work = move |host: &Host, default: &str| {
            // Who finds another name still there leaves the image to it.
            let _turn = removals.lock().unwrap_or_else(PoisonError::into_inner);
            let store = host.store();
            let all = all(store)?;
            let (at, name) = find(&all, &text, default, |digest| catalog::led(store, digest))?;
            let (known, names) = &all[at];
            let check = |going: &[String]| match wanted.iter().find(|it| going.contains(&it.1)) {
                Some((app, name)) => Err(users::refusal_of_name(app, name)),
                None => Ok(()),
            };
            let unwritten =
                |source| failed(&ImageError::Read { archive: store.dir().join("images"), source });
            let forget = |key: &String| match key.parse() {
                Ok(name) => catalog::forget(store, &name).map_err(unwritten),
                Err(err) => Err(failed(&err)),
            };
            if let Some(name) = name.filter(|_| names.len() > 1) {
                check(std::slice::from_ref(&name))?;
                forget(&name)?;
                return Ok(RemovedView { names: vec![name], digest: None });
            }
            let handle = |name: &String| {
                let own = garden.iter().find(|container| container.name == *name);
                own.map_or_else(|| name.clone(), |container| container.handle.clone())
            };
            let users = &users::of(host, &apps, &all)?[at];
            if !users.is_empty() {
                let instance = |handle: &str| instances.get(handle).cloned();
                let users = users::with_apps(users, instance, &guids);
                return Err(users::refusal(&text, &users, handle));
            }
            check(names)?;
            names.iter().try_for_each(forget)?;
            catalog::remove(store, &known.digest).map_err(unwritten)?;
            crate::info!("image.removed", digest = known.digest, names = names.join(" "));
            Ok(RemovedView { names: names.clone(), digest: Some(known.digest) })
        };
        self.images.unblock(work).await
    }

    async fn collect(&self, everything: bool) -> Served<CollectedView> {
        let count = |host: &Host, _: &str| Ok(all(host.store())?.len());
        let before = self.images.unblock(count).await?;
        let collected = self.cell.collect(everything).await.map_err(|err| failed(&err))?;
        let after = self.images.unblock(count).await?;
        let collected = collected.ok_or_else(|| {
            let text = "nothing can be removed while an app is being staged; try again later";
            ServiceError::new(ErrorKind::Conflict, text)
        })?;
        let images = before.saturating_sub(after) as u64;
        let left = self.left(everything).await?;
        Ok(CollectedView { images, layers: collected.layers, bytes: collected.bytes, left })
    }
}

impl Service {
    /// The images that are here, and why: who is made of them, what the settings say, and who can ask for
    /// them.
    async fn left(&self, everything: bool) -> Served<Vec<LeftView>> {
        let (uses, cell) = (self.cell.image_uses(), self.cell.clone());
        let instances = self.cell.instances();
        let garden = self.garden.view(usize::MAX).await.containers;
        let work = move |host: &Host, _: &str| {
            let reasons = cell.why_images_stay().map_err(|err| failed(&err))?;
            let all = all(host.store())?;
            let used = users::of(host, &[], &all)?;
            let view = |((known, names), handles): ((Known, Vec<String>), Vec<String>)| {
                let own = uses.iter().filter(|it| it.digest == known.digest);
                let mut why = users::reasons(&handles, own, |handle| {
                    let own = garden.iter().find(|container| container.name == handle);
                    let own = own.map(|container| container.handle.as_str());
                    (instances.get(handle).cloned(), own.unwrap_or(handle).to_owned())
                });
                let more = reasons.get(&known.digest).into_iter().flatten();
                why.extend(more.map(|it| (*it).to_owned()));
                if why.is_empty() {
                    why.push(users::last_reason(&names, everything).to_owned());
                }
                LeftView { digest: known.digest, names, why }
            };
            Ok(all.into_iter().zip(used).map(view).collect())
        };
        self.images.unblock(work).await
    }
}

#[cfg(test)]
mod tests;
