//! From the name of an image to its layers in the store.
//!
//! ```text
//! name ─► manifest (through indexes) ─► configuration ─► layers, several at a time ─► catalogue
//! ```
//!
//! What is here is not asked for again: an image by its digest, a layer by its chain id, and of a
//! layer that broke off, what has come. An image that is named by tag is asked about each time; when
//! nobody can be reached, what the tag meant last is taken. A name that a file gave is taken too when
//! the registry does not know it.

use super::catalog::{self, Drafts, Known, Origin};
use super::config::ImageConfig;
use super::error::ImageError;
use super::evict::{self, Fits};
use super::fetch::{Fetch, Id, Layer, Name, Source, is_of_content};
use super::layout;
use super::local::Rootfs;
use super::manifest::{self, Blob, Choice, Image, Kind};
use super::platform::{Platform, Runs};
use super::registry::Http;
use super::registry::credentials::{self, Credentials, Login};
use super::registry::failure::{self, Failure};
use super::registry::first::First;
use super::registry::repository::{Document, Found, Repository};
use super::registry::settings::Settings;
use super::work::{self, Pass, Wish};
use super::{schema1, seen, show};
use crate::unit::{Digest, ImageRef};
use crate::volume::{Pin, Store, Turn};
use std::cell::RefCell;
use std::io;

/// Indexes that lead to one another.
pub(super) const INDEXES_MAX: usize = 3;

/// An image that is here.
#[derive(Clone, Debug)]
pub struct Pulled {
    /// All about it.
    pub image: Known,
    /// Keeps its layers.
    pub pin: Pin,
    /// Why its registry could not be asked what the name means now: it is what it meant last.
    pub unasked: Option<String>,
}

impl Pulled {
    fn new(image: Known, pin: Pin) -> Pulled {
        Pulled { image, pin, unasked: None }
    }

    /// The root of a container of it.
    pub fn rootfs(self, store: &Store) -> Result<Rootfs, ImageError> {
        self.image.rootfs(store, self.pin)
    }
}

/// Makes sure that an image is here. `login` goes before the box's own. `progress` is told bytes of
/// layers: done, and in all. When the wish ends, so does this, at once; what has come of layers is
/// kept. Two who want the same image make it one after the other: the second finds it, or goes on
/// where the first gave up. Blocking.
pub fn pull(
    store: &Store,
    settings: &Settings,
    name: &ImageRef,
    login: Option<Login>,
    wish: &Wish,
    progress: &(dyn Fn(u64, u64) + Sync),
) -> Result<Pulled, ImageError> {
    pull_for_later(store, settings, (name, login), wish, progress, evict::ALWAYS_FITS)
}

/// As [`pull`], of an image that nothing may be made of for a while. Does not `fits` take it, the name
/// means what it meant before; that is asked as soon as sizes are known, and again of what has come.
pub fn pull_for_later(
    store: &Store,
    settings: &Settings,
    (name, login): (&ImageRef, Option<Login>),
    wish: &Wish,
    progress: &(dyn Fn(u64, u64) + Sync),
    fits: &Fits<'_>,
) -> Result<Pulled, ImageError> {
    let name = name.at(&settings.default);
    seen::recall(store);
    let here = || {
        let (image, pin) = catalog::find(store, &catalog::meaning(store, &name)?)?;
        Some(Pulled::new(image, pin))
    };
    let here = || {
        let found = here()?;
        // What is shown is not on the disk before who shows it is done.
        match show::is_waited_for(store, &found.image.digest, wish) {
            true => here(),
            false => Some(found),
        }
    };
    if let (Some(digest), Some(pulled)) = (name.digest(), here()) {
        fits(&pulled.image.layers, 0)?;
        hit(store, &name, &pulled.image, &[*digest]);
        return Ok(pulled);
    }
    let patient = here().is_none();
    let runs = Runs::here();
    let pull = Pull { store, settings, name: &name, runs, patient, wish, progress, fits };
    let pulled = pull.run(login);
    seen::note(store);
    match pulled {
        // Whatever broke off: this is why.
        Err(_) if wish.is_over() => Err(pull.failed(Wish::failure())),
        Err(ImageError::Pull { source, .. })
            if will_do(catalog::origin(store, &name), source.kind) =>
        {
            let known = here()
                .ok_or(ImageError::Pull { image: name.to_string(), source: source.clone() })?;
            let digest = known.image.digest;
            crate::warn!("image.unreachable", image = name, digest = digest, err = source);
            catalog::touch(store, &known.image);
            Ok(Pulled { unasked: Some(source.text), ..known })
        }
        other => other,
    }
}

/// The turn of who makes an image.
fn turn_of_image(digest: &Digest) -> Digest {
    Digest::of(format!("image {digest}").as_bytes())
}

/// What who wants an image that somebody else fetches has to wait for.
const FETCHED: &str = "somebody else fetches this image";

/// Whether an image that is here will do although its registry failed so.
fn will_do(origin: Option<Origin>, failed: failure::Kind) -> bool {
    use failure::Kind as K;
    match failed {
        K::Passing | K::Untrusted => true,
        // Nobody has to have pushed what a file brought.
        K::Denied | K::Missing => origin == Some(Origin::File),
        K::Wrong | K::Mismatch | K::Here => false,
    }
}

/// An image that is here was asked for, and `through` led to it: what that changes is written down.
/// It is here all the same when that fails.
fn hit(store: &Store, name: &ImageRef, image: &Known, through: &[Digest]) {
    catalog::touch(store, image);
    if let Err(err) = record(store, name, image, through) {
        crate::warn!("image.not_recorded", image = name, digest = image.digest, err = err);
    }
}

/// What led to an image: the name, unless it is a digest that counts, and digests of indexes.
fn record(store: &Store, name: &ImageRef, image: &Known, through: &[Digest]) -> io::Result<()> {
    for from in through {
        catalog::alias(store, from, &image.digest, name.digest() == Some(from))?;
    }
    match name.digest() {
        // What a tag beside a digest means is not told by it.
        Some(_) => Ok(()),
        None => catalog::name(store, name, &image.digest, Origin::Registry),
    }
}

/// Where a name leads.
struct Led {
    /// The digest of the image's manifest.
    digest: Digest,
    /// All digests on the way, that one too.
    through: Vec<Digest>,
    what: What,
}

enum What {
    /// An image that is here.
    Here(Box<Known>, Pin),
    /// A manifest of an image that is to be fetched.
    There(Vec<u8>, Kind),
}

/// One pull.
struct Pull<'a> {
    store: &'a Store,
    settings: &'a Settings,
    name: &'a ImageRef,
    runs: Runs,
    /// Nothing of that name is here, and nobody else is asked: it is worth waiting for.
    patient: bool,
    wish: &'a Wish,
    progress: &'a (dyn Fn(u64, u64) + Sync),
    fits: &'a Fits<'a>,
}

impl Pull<'_> {
    fn run(&self, login: Option<Login>) -> Result<Pulled, ImageError> {
        let host = self.name.host().unwrap_or_default();
        let http = Http::new(self.settings.clone(), self.wish.clone());
        let work = || self.run_with(&http, login, host);
        let done = self.wish.watched(|| http.interrupt(), work);
        done.map_err(|err| self.failed(err))?
    }

    fn run_with(
        &self,
        http: &Http,
        login: Option<Login>,
        host: &str,
    ) -> Result<Pulled, ImageError> {
        let credentials =
            Credentials::read(&self.settings.credentials).map_err(|err| self.failed(err))?;
        let repository = self.name.repository(host);
        let mut first = None;
        let places = self.places(host);
        for (left, place) in (0..places.len()).rev().zip(places) {
            let known = credentials.find(if place == host { host } else { &place }, &repository);
            let login = login.clone().filter(|_| place == host).or_else(|| known.cloned());
            let has_login = login.is_some();
            let address = self.settings.address(&place);
            // Where others can be asked, nobody is waited for.
            let patient = self.patient && left == 0;
            let one = Pull { patient, runs: self.runs.clone(), ..*self };
            let tried = one.try_place(http, (&place, address), &repository, login);
            match tried {
                Err(ImageError::Pull { image, mut source }) => {
                    if let (Some(name), true, false) = (
                        credentials.helper(&place),
                        source.kind == failure::Kind::Denied,
                        has_login,
                    ) {
                        source
                            .text
                            .push_str(&credentials::helper_text(&self.settings.credentials, name));
                    }
                    crate::info!(
                        "image.not_there",
                        image = image,
                        registry = address,
                        err = source
                    );
                    // What the registry itself says counts, not what its mirrors do.
                    first = Some(ImageError::Pull { image, source });
                }
                // Others may have what this one has damaged.
                Err(ImageError::Layer { image, layer, source })
                    if left > 0 && !self.wish.is_over() && is_of_content(&source) =>
                {
                    let err = crate::log::chain(&source);
                    crate::warn!("image.damaged", image = image, registry = address, err = err);
                    first = Some(ImageError::Layer { image, layer, source });
                }
                other => return other,
            }
        }
        Err(first.unwrap_or_else(|| self.failed(Failure::wrong("no registry is named"))))
    }

    /// Who is asked, in order: mirrors, then the registry. A tag is the registry's to tell.
    fn places(&self, host: &str) -> Vec<String> {
        let mirrors = self.settings.mirrors.get(host).into_iter().flatten();
        let asked = self.name.digest().is_some() || self.settings.mirrors_tell_tags;
        mirrors.filter(|_| asked).cloned().chain([host.to_owned()]).collect()
    }

    fn try_place(
        &self,
        http: &Http,
        (place, address): (&str, &str),
        repository: &str,
        login: Option<Login>,
    ) -> Result<Pulled, ImageError> {
        let found = self.again(|| Repository::find(http, address, repository, login.clone()));
        let repository = match found.map_err(|err| self.failed(err))? {
            Found::Second(repository) => repository,
            Found::Other(scheme) => {
                return self.old(http, (place, scheme, address), repository, login.as_ref());
            }
        };
        let Led { digest, through, what } =
            self.document(&repository).map_err(|err| self.failed(err))?;
        let (document, kind) = match what {
            What::Here(image, pin) => {
                if show::is_waited_for(self.store, &digest, self.wish) && self.wish.is_over() {
                    return Err(self.failed(Wish::failure()));
                }
                return self.here((*image, pin), &through);
            }
            What::There(document, kind) => (document, kind),
        };
        let _turn = self.turn(&digest)?;
        if let Some(found) = catalog::find(self.store, &digest) {
            return self.here(found, &through);
        }
        let _pass = self.pass()?;
        let pulled = match kind {
            Kind::First => {
                // By digest it is what was asked for, whatever it calls itself.
                let is_by_tag = self.name.digest().is_none() && through.len() == 1;
                self.first(&repository, (digest, is_by_tag), &document)
            }
            _ => self.second(&repository, (digest, &through), &document),
        }?;
        record(self.store, self.name, &pulled.image, &through)
            .map_err(|err| self.unrecorded(err))?;
        Ok(pulled)
    }

    /// An image that is here already.
    fn here(&self, (image, pin): (Known, Pin), through: &[Digest]) -> Result<Pulled, ImageError> {
        (self.fits)(&image.layers, 0)?;
        hit(self.store, self.name, &image, through);
        Ok(Pulled::new(image, pin))
    }

    /// Refuses an image that is too large before its layers come. What they become is more than most
    /// of what they are packed: only headers, and what does not shrink, take less.
    fn check_packed(&self, layers: &[(Blob, Digest)], chains: &[Digest]) -> Result<(), ImageError> {
        let is_here = |chain: &&Digest| self.store.layer(chain).is_some();
        let here: Vec<Digest> = chains.iter().filter(is_here).copied().collect();
        let missing = layers.iter().zip(chains).filter(|(_, chain)| !is_here(chain));
        let coming = missing.fold(0u64, |sum, ((blob, _), _)| sum.saturating_add(blob.size));
        (self.fits)(&here, coming - coming / 8)
    }

    /// The manifest that the name leads to on this box, unless its image is here.
    fn document(&self, repository: &Repository<'_>) -> Result<Led, Failure> {
        let wanted = self.name.digest();
        let reference = wanted.map_or_else(|| self.name.tag().to_owned(), Digest::to_string);
        let document = self.again(|| repository.manifest(&reference))?;
        let (mut digest, mut bytes, mut kind) = check(document, wanted)?;
        let mut through = vec![digest];
        for _ in 0..=INDEXES_MAX {
            if let Some((image, pin)) = catalog::find(self.store, &digest) {
                return Ok(Led { digest, through, what: What::Here(image.into(), pin) });
            }
            if kind != Kind::Index {
                return Ok(Led { digest, through, what: What::There(bytes, kind) });
            }
            let choice = manifest::choose(&bytes, None, &self.runs).map_err(Failure::wrong)?;
            let (Choice::Index(blob) | Choice::Manifest(blob)) = choice;
            through.push(blob.digest);
            if let Some((image, pin)) = catalog::find(self.store, &blob.digest) {
                return Ok(Led {
                    digest: blob.digest,
                    through,
                    what: What::Here(image.into(), pin),
                });
            }
            let document = self.again(|| repository.manifest(&blob.digest.to_string()))?;
            (digest, bytes, kind) = check(document, Some(&blob.digest))?;
        }
        Err(Failure::wrong(format!("its index leads to more than {INDEXES_MAX} others")))
    }

    /// An image of today: its configuration says what its layers become, so they come in any order.
    fn second(
        &self,
        repository: &Repository<'_>,
        (digest, through): (Digest, &[Digest]),
        document: &[u8],
    ) -> Result<Pulled, ImageError> {
        let wrong = |why: String| self.failed(Failure::wrong(why));
        let id = manifest::config(document).map_err(wrong)?;
        let raw = self
            .again(|| repository.document(&id.digest, id.size))
            .map_err(|err| self.failed(err))?;
        let Image { layers, config } =
            manifest::image(document, &raw, &self.runs).map_err(wrong)?;
        let mut chains: Vec<Digest> = Vec::with_capacity(layers.len());
        for (_, diff) in &layers {
            chains.push(chains.last().map_or(*diff, |below| below.chain(diff)));
        }
        let pin = self.store.pin(&chains);
        self.check_packed(&layers, &chains)?;
        let diffs = layers.iter().map(|(_, diff)| *diff).collect();
        let of =
            |((blob, diff), chain): ((Blob, Digest), &Digest)| Layer { blob, diff, chain: *chain };
        let layers = layers.into_iter().zip(&chains).map(of).collect();
        let raw = text(raw);
        let known = Known { diffs, ..Known::new(digest, id.digest, config, raw) };
        let listed = RefCell::new(None);
        // The image becomes visible with the last of its layers: the disk is waited for once.
        let list = |layers: Vec<Digest>| {
            (self.fits)(&layers, 0)?;
            let image = Known { layers, ..known.clone() }.asked_now(self.store);
            let image = image.map_err(|err| self.unrecorded(err))?;
            let drafts = Drafts::new(self.store, &image, through, self.name);
            let drafts = drafts.map_err(|err| self.unrecorded(err))?;
            listed.replace(Some(image));
            Ok(drafts)
        };
        self.fetch(Source::Second(repository), digest).all(layers, self.progress, &list)?;
        match listed.take() {
            Some(image) => Ok(self.told(image, pin)),
            None => Err(self.failed(Wish::failure())),
        }
    }

    /// An image of a registry that speaks the first version only. Its ids are those of `place`, and say
    /// nothing of another registry that holds the repository too.
    fn old(
        &self,
        http: &Http,
        (place, scheme, address): (&str, &str, &str),
        repository: &str,
        login: Option<&Login>,
    ) -> Result<Pulled, ImageError> {
        let failed = |err| self.failed(err);
        let host = self.name.host().unwrap_or_default();
        if !self.settings.is_old(host) || self.name.digest().is_some() {
            return Err(failed(Failure::wrong(format!(
                "{address} is no registry, or one of the first version, in which nothing is named by \
                 what it is; if that is meant and will do, name {host} in [registry] v1"
            ))));
        }
        let find = || First::find(http, (scheme, address), repository, login);
        let first = self.again(find).map_err(failed)?;
        let id = self.again(|| first.id(self.name.tag())).map_err(failed)?;
        let digest = Digest::of(format!("first version {place}/{repository} {id}").as_bytes());
        let _turn = self.turn(&digest)?;
        if let Some(found) = catalog::find(self.store, &digest) {
            return self.here(found, &[]);
        }
        let _pass = self.pass()?;
        let ids = self.again(|| first.layers(&id)).map_err(failed)?;
        let (mut chains, mut diffs, mut config) = (Vec::new(), Vec::new(), ImageConfig::default());
        let (mut pin, mut raw) = (Pin::default(), Vec::new());
        for id in ids {
            let about = self.again(|| first.about(&id)).map_err(failed)?;
            let (size, advice) = (about.size, about.advice());
            // It may have megabytes: nobody else has it any more.
            raw = about.json;
            let (own, platform) =
                ImageConfig::read_first(&raw).map_err(|why| failed(Failure::wrong(why)))?;
            self.check_platform(&platform).map_err(failed)?;
            config = own.over(config).map_err(|why| failed(Failure::wrong(why)))?;
            let source = Source::First(&first);
            let name = Name::Id(Box::new(Id { host: place.to_owned(), id, size, advice }));
            let (diff, own) = self.fetch(source, digest).unknown(&name, &mut chains)?;
            diffs.push(diff);
            pin = own;
        }
        let raw = text(raw);
        let known = Known::new(digest, Digest::of(raw.as_bytes()), config, raw);
        let pulled = self.finish(Known { diffs, ..known }, chains, pin)?;
        record(self.store, self.name, &pulled.image, &[]).map_err(|err| self.unrecorded(err))?;
        Ok(pulled)
    }

    /// Refuses what was made for other boxes and says so.
    fn check_platform(&self, platform: &Platform) -> Result<(), Failure> {
        if platform.architecture.is_empty() || self.runs.rank(platform).is_some() {
            return Ok(());
        }
        let text = format!("the image is for {platform}; this box is {}", self.runs.name());
        let text = failure::clean(&text);
        Err(Failure::wrong(format!("{text}; ask for one that was built for it")))
    }

    /// An image of the first schema: what its layers become shows when they are unpacked.
    fn first(
        &self,
        repository: &Repository<'_>,
        (digest, is_by_tag): (Digest, bool),
        document: &[u8],
    ) -> Result<Pulled, ImageError> {
        let wrong = |why: String| self.failed(Failure::wrong(why));
        let host = self.name.host().unwrap_or_default();
        if !self.settings.is_old(host) {
            return Err(wrong(format!(
                "its manifest is of the first schema, which proves little; push it again with a \
                 program of today, or name {host} in [registry] v1"
            )));
        }
        let image = schema1::read(document).map_err(wrong)?;
        if is_by_tag {
            image.check_name(&self.name.repository(host), self.name.tag()).map_err(wrong)?;
        }
        let (config, mut platform) =
            ImageConfig::read_first(image.newest.as_bytes()).map_err(wrong)?;
        if platform.architecture.is_empty() {
            platform.architecture.clone_from(&image.architecture);
        }
        self.check_platform(&platform).map_err(|err| self.failed(err))?;
        let (mut chains, mut diffs) = (Vec::new(), Vec::new());
        let mut pin = Pin::default();
        for blob in &image.layers {
            let name = Name::Digest(*blob);
            let source = Source::Second(repository);
            let (diff, own) = self.fetch(source, digest).unknown(&name, &mut chains)?;
            diffs.push(diff);
            pin = own;
        }
        let known = Known::new(digest, Digest::of(image.newest.as_bytes()), config, image.newest);
        self.finish(Known { diffs, ..known }, chains, pin)
    }

    /// The right to fetch the image `digest`, which nobody else does then.
    fn turn(&self, digest: &Digest) -> Result<Turn<'_>, ImageError> {
        let key = turn_of_image(digest);
        if self.store.is_taken(&key) {
            self.wish.waits(FETCHED);
        }
        let turn = self.store.turn_until(&key, &|| self.wish.is_over());
        turn.ok_or_else(|| self.failed(Wish::failure()))
    }

    /// The right to fetch any: few do.
    fn pass(&self) -> Result<Pass<'static>, ImageError> {
        work::image(self.wish).map_err(|err| self.failed(err))
    }

    /// The fetching of layers of the image `digest`.
    fn fetch<'a>(&'a self, source: Source<'a>, digest: Digest) -> Fetch<'a> {
        Fetch::new(self.store, self.settings, (self.name, digest), source, self.wish)
    }

    /// Writes down an image whose layers are here.
    fn finish(&self, image: Known, chains: Vec<Digest>, pin: Pin) -> Result<Pulled, ImageError> {
        let place = || self.store.dir().join("layers");
        let layers = layout::without_hidden(self.store, chains)
            .map_err(|source| ImageError::Read { archive: place(), source })?;
        (self.fits)(&layers, 0)?;
        let image = Known { layers, ..image }.asked_now(self.store);
        let image = image.map_err(|err| self.unrecorded(err))?;
        let shows = self.store.turn(&show::turn_of(&image.digest));
        catalog::add(self.store, &image).map_err(|err| self.unrecorded(err))?;
        drop(shows);
        Ok(self.told(image, pin))
    }

    /// An image that is here now.
    fn told(&self, image: Known, pin: Pin) -> Pulled {
        let layers = image.layers.len();
        crate::info!("image.pulled", image = self.name, digest = image.digest, layers = layers);
        Pulled::new(image, pin)
    }

    fn unrecorded(&self, source: io::Error) -> ImageError {
        ImageError::Read { archive: self.store.dir().join("images"), source }
    }

    /// Asks again for what only failed at the moment.
    fn again<T>(&self, mut ask: impl FnMut() -> Result<T, Failure>) -> Result<T, Failure> {
        let mut failed = 0;
        loop {
            let failure = match ask() {
                Ok(answer) => return Ok(answer),
                Err(failure) => failure,
            };
            failed += 1;
            let pause = failure.pause(failed).filter(|_| self.patient);
            let Some(pause) = pause else { return Err(failure) };
            crate::warn!("registry.again", failed = failed, err = failure);
            self.wish.wait(pause);
            if self.wish.is_over() {
                return Err(Wish::failure());
            }
        }
    }

    fn failed(&self, source: Failure) -> ImageError {
        ImageError::Pull { image: self.name.to_string(), source }
    }
}

/// A document as text, copied only where it is none.
fn text(raw: Vec<u8>) -> String {
    String::from_utf8(raw)
        .unwrap_or_else(|err| String::from_utf8_lossy(err.as_bytes()).into_owned())
}

/// A document that is what was asked for and what its sender says: its digest, the bytes that the
/// digest is over, and what they are. Nothing else of it may be read.
pub(super) fn check(
    document: Document,
    wanted: Option<&Digest>,
) -> Result<(Digest, Vec<u8>, Kind), Failure> {
    let Document { bytes, media_type, says } = document;
    let told = manifest::kind(&bytes, &media_type);
    let bytes = match told {
        // Its signatures are not part of what is named.
        Ok(Kind::First) => schema1::signed(&bytes).map_err(Failure::wrong)?,
        _ => bytes,
    };
    let is = Digest::of(&bytes);
    match wanted.or(says.as_ref()) {
        Some(other) if *other != is => {
            Err(Failure::wrong(format!("the manifest that came is {is}, not {other}")))
        }
        _ => Ok((is, bytes, told.map_err(Failure::wrong)?)),
    }
}
