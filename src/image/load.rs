//! Images from files: what `docker save` writes, OCI layouts as directories and as archives. They
//! are in the catalogue afterwards, and can be run without any network.

use super::bounded;
use super::called::{self, Names};
use super::catalog::{self, Known, Origin};
use super::config::ImageConfig;
use super::error::ImageError;
use super::evict::{ALWAYS_FITS, Fits};
use super::layout::{self, LayerFile, Layout};
use super::manifest::{self, Blob, Choice, LAYERS_MAX, Named};
use super::platform::Runs;
use super::several::{self, Stack};
use super::stream::unpack_wanted;
use super::unpack::{Options, UnpackError};
use super::work::{self, Feed, Wish};
use crate::sys::{beneath, fault};
use crate::unit::{Bytes, Digest, ImageRef};
use crate::volume::{Pin, Store};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// Files of an archive, and their bytes together.
const FILES_MAX: u64 = 100_000;
const BYTES_MAX: Bytes = Bytes::mib(64 << 10);
/// Indexes that lead to one another.
const INDEXES_MAX: usize = 3;
/// Most images of one file, and values in the table of them all.
const IMAGES_MAX: usize = 1000;
const VALUES_MAX: usize = 200_000;
/// Most bytes that their configurations may have together: they are in memory at the same time.
const CONFIGS_MAX: usize = 16 << 20;
/// Most entries of an index of which an error tells why they are no images.
const TOLD_MAX: usize = 8;
/// What is said of archives that docker wrote before 1.10 (2016): a directory for each layer, whose id is
/// random, and no list of images.
const OLDEST: &str = "it has `repositories` and no manifest.json, as docker before 1.10 saved images; that \
                      form is not read: load it into a docker or podman of today and save it again";

/// An image that was loaded.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// What it is found by, see [`catalog::find`].
    pub digest: Digest,
    /// What it is called now.
    pub names: Vec<ImageRef>,
    /// Which of these names meant another image before.
    pub moved: Vec<(ImageRef, Digest)>,
    /// What the file calls it, and it is not called, and why.
    pub left: Vec<String>,
    /// Keeps its layers.
    pub pin: Pin,
}

/// An image in a directory.
struct Found {
    digest: Digest,
    /// Its configuration, which can be read.
    raw: Vec<u8>,
    layers: Vec<(LayerFile, Digest)>,
    names: Names,
    /// Digests of indexes that lead to it.
    through: Vec<Digest>,
}

/// The images of a directory, one by one.
#[derive(Default)]
struct All {
    found: Vec<Found>,
    bytes: usize,
}

/// One image of `manifest.json`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

/// Loads all images of an archive or a directory that run on this box. With a tag, `name` is what the
/// only one is called. Without, those that have no more than a tag get it in front of that, and an
/// image without any, if it is the only such one, gets it as it is; others without a name are found by
/// digest. Who loads them says what they are for: nobody has asked for those without a name. Blocking.
pub fn load(
    store: &Store,
    default_host: &str,
    path: &Path,
    name: Option<&ImageRef>,
) -> Result<Vec<Loaded>, ImageError> {
    load_wanted((store, &Wish::new(store)), default_host, path, name, ALWAYS_FITS)
}

/// The same, until nobody wants it any more, of what `fits` takes: that is asked as soon as sizes are
/// known, and again of what has become of them.
pub fn load_wanted(
    (store, wish): (&Store, &Wish),
    default_host: &str,
    path: &Path,
    name: Option<&ImageRef>,
    fits: &Fits<'_>,
) -> Result<Vec<Loaded>, ImageError> {
    let unreadable = |source| ImageError::Read { archive: path.into(), source };
    let manner = Manner { default_host, feed: Feed::File, wish, fits };
    if fs::metadata(path).map_err(unreadable)?.is_dir() {
        let dir = Layout::open(path.into())?;
        return load_dir(store, manner, &dir, name);
    }
    load_from(store, manner, path, open(path)?, name)
}

/// An archive of the box, through links.
fn open(path: &Path) -> Result<fs::File, ImageError> {
    let unreadable = |source| ImageError::Read { archive: path.into(), source };
    let file = beneath::open_followed(path).map_err(unreadable)?;
    match file.metadata().map_err(unreadable)?.is_file() {
        true => Ok(file),
        false => Err(ImageError::Kind { path: path.into() }),
    }
}

/// As [`load_wanted`], of an archive that somebody sends, who has asked for all that is in it, and of which
/// nothing may be made for a while: does not `fits` take all of it, names mean what they meant before.
/// `path` is what errors call it; nothing is opened there.
pub fn load_stream(
    (store, wish): (&Store, &Wish),
    default_host: &str,
    path: &Path,
    stream: impl Read + Send,
    name: Option<&ImageRef>,
    fits: &Fits<'_>,
) -> Result<Vec<Loaded>, ImageError> {
    let manner = Manner { default_host, feed: Feed::Client, wish, fits };
    load_from(store, manner, path, stream, name)
}

/// How images are loaded.
#[derive(Clone, Copy)]
struct Manner<'a> {
    /// The registry of names that say none.
    default_host: &'a str,
    /// Who gives the file: a client asks for the images without a name, too.
    feed: Feed,
    /// Whether somebody still wants them, who hears what they wait for.
    wish: &'a Wish,
    /// Whether they may stay.
    fits: &'a Fits<'a>,
}

fn load_from(
    store: &Store,
    manner: Manner<'_>,
    path: &Path,
    stream: impl Read + Send,
    name: Option<&ImageRef>,
) -> Result<Vec<Loaded>, ImageError> {
    let unreadable = |source| ImageError::Read { archive: path.into(), source };
    // Members come in any order, and the table of contents often last: all is unpacked, as a layer
    // is, and goes when it was read.
    let draft =
        store.draft().map_err(|source| ImageError::Store { archive: path.into(), source })?;
    let options = Options {
        owner: Some((0, 0)),
        whiteouts: false,
        file_capabilities: false,
        max_bytes: BYTES_MAX,
        max_entries: FILES_MAX,
        ..Options::default()
    };
    // Layers that are packed, and of several images: no image's bytes.
    let wish = manner.wish.without_bound();
    unpack_wanted(store, &wish, manner.feed, stream, draft.dir(), &options)
        .map_err(|source| ImageError::Unpack { archive: path.into(), source })?;
    let inside = fs::File::open(draft.dir()).map_err(unreadable)?;
    load_dir(store, manner, &Layout { path: path.into(), dir: inside }, name)
}

fn load_dir(
    store: &Store,
    manner: Manner<'_>,
    dir: &Layout,
    name: Option<&ImageRef>,
) -> Result<Vec<Loaded>, ImageError> {
    let wrong = |why: &str| ImageError::Layout { layout: dir.path.clone(), why: why.into() };
    let _turn = work::archive(manner.wish).ok_or_else(|| ImageError::Unpack {
        archive: dir.path.clone(),
        source: UnpackError::stream(io::Error::other(Wish::failure())),
    })?;
    let mut found = match (has(dir, "index.json")?, has(dir, "manifest.json")?) {
        (true, _) => in_layout(dir, name)?,
        (false, true) => in_saved(dir)?,
        (false, false) if has(dir, "repositories")? => return Err(wrong(OLDEST)),
        (false, false) => {
            return Err(wrong(
                "it is neither what `docker save` writes nor an OCI layout: it has no manifest.json \
                 and no index.json",
            ));
        }
    };
    let mut names: Vec<&mut Names> = found.iter_mut().map(|it| &mut it.names).collect();
    if let Some(name) = name {
        called::call(&mut names, name).map_err(|why| wrong(&why))?;
    }
    called::settle(&mut names, manner.default_host);
    check_packed(store, dir, &found, manner.fits)?;
    let imported = import((store, manner.wish), dir, found)?;
    let layers: Vec<Digest> = imported.iter().flat_map(|it| &it.layers).copied().collect();
    (manner.fits)(&layers, 0)?;
    // Only now: of a file that is bad, or too large, nothing is listed.
    let record = |it: Imported| it.record(store, dir, manner);
    imported.into_iter().map(record).collect()
}

/// Refuses images that are too large before their layers are unpacked, as a pull does: what they become
/// is more than most of what they are packed.
fn check_packed(
    store: &Store,
    dir: &Layout,
    found: &[Found],
    fits: &Fits<'_>,
) -> Result<(), ImageError> {
    let (mut here, mut missing) = (BTreeSet::new(), BTreeMap::new());
    for one in found {
        for (chain, (file, _)) in one.chains().into_iter().zip(&one.layers) {
            match store.layer(&chain) {
                Some(_) => drop(here.insert(chain)),
                None => drop(missing.insert(chain, dir.packed(file)?)),
            }
        }
    }
    let coming = missing.into_values().fold(0u64, u64::saturating_add);
    match coming {
        0 => Ok(()),
        coming => fits(&here.into_iter().collect::<Vec<_>>(), coming - coming / 8),
    }
}

impl All {
    /// Adds an image, or names of one that is there.
    fn add(&mut self, dir: &Layout, found: Found) -> Result<(), ImageError> {
        if let Some(same) = self.found.iter_mut().find(|it| it.digest == found.digest) {
            same.names.join(found.names);
            same.through.extend(found.through);
            return Ok(());
        }
        self.bytes += found.raw.len();
        let why = match (self.found.len(), self.bytes) {
            (IMAGES_MAX.., _) => format!("it holds more than {IMAGES_MAX} images"),
            (_, bytes) if bytes > CONFIGS_MAX => {
                let most = CONFIGS_MAX >> 20;
                format!("the configurations of its images are longer than {most} MiB together")
            }
            _ => {
                self.found.push(found);
                return Ok(());
            }
        };
        let why = format!("{why}; write them to several files");
        Err(ImageError::Layout { layout: dir.path.clone(), why })
    }
}

fn has(dir: &Layout, file: &str) -> Result<bool, ImageError> {
    match dir.linked(Path::new(file)) {
        Ok(_) => Ok(true),
        Err(ImageError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            Ok(false)
        }
        Err(err) => Err(err),
    }
}

/// Images of an OCI layout. What is none, or of another box, is passed over, and told.
fn in_layout(dir: &Layout, name: Option<&ImageRef>) -> Result<Vec<Found>, ImageError> {
    let wrong = |why| ImageError::Layout { layout: dir.path.clone(), why };
    let runs = Runs::here();
    let index = dir.small("index.json", None)?;
    let (mut all, mut skipped) = (All::default(), Vec::new());
    for one in manifest::all(&index, &runs).map_err(wrong)? {
        let found = match one {
            Ok(named) => in_entry(dir, named, name, &runs)?,
            Err(why) => Entry::Odd(why),
        };
        match found {
            Entry::Image(found) => all.add(dir, found)?,
            Entry::Alien => {}
            Entry::Odd(why) => {
                crate::info!("image.passed_over", path = dir.path.display(), err = why);
                skipped.push(why);
            }
        }
    }
    if all.found.is_empty() {
        let alien = || manifest::choose(&index, None, &runs).err();
        let none = || "none of its images runs on this box".to_owned();
        skipped.truncate(TOLD_MAX);
        return Err(wrong(match skipped.is_empty() {
            true => alien().unwrap_or_else(none),
            false => format!("it has no image that runs on this box: {}", skipped.join("; ")),
        }));
    }
    Ok(all.found)
}

/// What an entry of an index leads to.
enum Entry {
    Image(Found),
    /// Images, for other boxes only.
    Alien,
    /// No image that runs here; why.
    Odd(String),
}

/// What is behind an entry. What is broken is an error: nobody knows what it was.
fn in_entry(
    dir: &Layout,
    Named { choice, name: called }: Named,
    name: Option<&ImageRef>,
    runs: &Runs,
) -> Result<Entry, ImageError> {
    let Some((blob, through)) = followed(dir, choice, runs)? else { return Ok(Entry::Alien) };
    let odd = |why: String| Ok(Entry::Odd(format!("{}: {why}", blob.digest)));
    let document = dir.json(&blob)?;
    let config = match manifest::config(&document) {
        Ok(config) => config,
        Err(why) => return odd(why),
    };
    let raw = dir.json(&config)?;
    let image = match manifest::image(&document, &raw, runs) {
        Ok(image) => image,
        Err(why) => return odd(why),
    };
    let layers = image.layers.into_iter().map(|(blob, diff)| (LayerFile::Blob(blob), diff));
    let names = Names::of_layout(called.as_deref(), name);
    let layers = layers.collect();
    Ok(Entry::Image(Found { digest: blob.digest, raw, layers, names, through }))
}

/// The manifest behind indexes, and their digests; `None`: none of them runs here.
fn followed(
    dir: &Layout,
    mut choice: Choice,
    runs: &Runs,
) -> Result<Option<(Blob, Vec<Digest>)>, ImageError> {
    let mut through = Vec::new();
    for _ in 0..=INDEXES_MAX {
        match choice {
            Choice::Manifest(blob) => return Ok(Some((blob, through))),
            Choice::Index(blob) => {
                let Ok(next) = manifest::choose(&dir.json(&blob)?, None, runs) else {
                    return Ok(None);
                };
                through.push(blob.digest);
                choice = next;
            }
        }
    }
    let why = format!("its index leads to more than {INDEXES_MAX} others");
    Err(ImageError::Layout { layout: dir.path.clone(), why })
}

/// The digest that a configuration's name has: docker writes `<hex>.json` or `blobs/sha256/<hex>`, crane, ko
/// and kaniko `sha256:<hex>`; jib calls it `config.json`, which says nothing.
fn says_digest(config: &str) -> Option<&str> {
    let name = Path::new(config).file_stem()?.to_str()?;
    let hex = name.strip_prefix("sha256:").unwrap_or(name);
    let is_hex = hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    (hex.len() == 64 && is_hex).then_some(hex)
}

/// Images of `docker save`.
fn in_saved(dir: &Layout) -> Result<Vec<Found>, ImageError> {
    let wrong = |why: String| ImageError::Layout { layout: dir.path.clone(), why };
    let text = dir.small("manifest.json", None)?;
    if bounded::has_more(&text, VALUES_MAX) {
        return Err(wrong(format!("its manifest.json has more than {VALUES_MAX} values")));
    }
    let saved: Vec<Saved> = manifest::read(&text, "its manifest.json").map_err(wrong)?;
    let runs = Runs::here();
    let (mut all, mut others) = (All::default(), Vec::new());
    for saved in saved {
        let raw = dir.small(&saved.config, None)?;
        let digest = Digest::of(&raw);
        if says_digest(&saved.config).is_some_and(|hex| hex != digest.hex()) {
            let config = manifest::clean(&saved.config);
            return Err(wrong(format!("{config} is damaged: it holds something else")));
        }
        let (_, platform, diffs) = ImageConfig::read(&raw).map_err(wrong)?;
        if !platform.architecture.is_empty() && runs.rank(&platform).is_none() {
            others.push(platform.to_string());
            continue;
        }
        if saved.layers.len() != diffs.len() || !(1..=LAYERS_MAX).contains(&diffs.len()) {
            let (has, says) = (saved.layers.len(), diffs.len());
            let text = format!(
                "the image has {has} layers, its configuration {says}, of 1 to {LAYERS_MAX}"
            );
            return Err(wrong(text));
        }
        let layers = saved.layers.into_iter().map(|path| LayerFile::Path(PathBuf::from(path)));
        let layers = layers.zip(diffs).collect();
        let names = Names::of_saved(&saved.repo_tags.unwrap_or_default());
        all.add(dir, Found { digest, raw, layers, names, through: Vec::new() })?;
    }
    match (all.found.is_empty(), others.is_empty()) {
        (false, _) => Ok(all.found),
        (true, true) => Err(wrong("its manifest.json names no image".into())),
        (true, false) => {
            others.dedup();
            let has = manifest::list(others.iter().map(String::as_str));
            Err(wrong(format!("no image runs on {}; it has {has}", runs.name())))
        }
    }
}

/// An image whose layers are here.
struct Imported {
    found: Found,
    /// Without those that a later one hides wholly.
    layers: Vec<Digest>,
    pin: Pin,
}

impl Found {
    /// What its layers are called, lowest first.
    fn chains(&self) -> Vec<Digest> {
        let mut chains: Vec<Digest> = Vec::with_capacity(self.layers.len());
        for (_, diff) in &self.layers {
            chains.push(chains.last().map_or(*diff, |below| below.chain(diff)));
        }
        chains
    }
}

/// Makes their layers.
fn import(
    (store, wish): (&Store, &Wish),
    dir: &Layout,
    found: Vec<Found>,
) -> Result<Vec<Imported>, ImageError> {
    let chains: Vec<Vec<Digest>> = found.iter().map(Found::chains).collect();
    let pins: Vec<Pin> = chains.iter().map(|chains| store.pin(chains)).collect();
    let mut stacks = Vec::with_capacity(found.len());
    for (Found { layers, names, .. }, chains) in found.iter().zip(&chains) {
        let name = names.own.first().map(ImageRef::to_string).unwrap_or_default();
        stacks.push(Stack { name, layers, chains });
    }
    several::make((store, wish), dir, &stacks)?;
    drop(stacks);
    let imported = found.into_iter().zip(chains).zip(pins).map(|((found, chains), pin)| {
        let layers =
            layout::without_hidden(store, chains).map_err(|source| dir.unreadable(source))?;
        Ok(Imported { found, layers, pin })
    });
    imported.collect()
}

impl Imported {
    /// Puts it into the catalogue.
    fn record(
        self,
        store: &Store,
        dir: &Layout,
        Manner { feed, .. }: Manner<'_>,
    ) -> Result<Loaded, ImageError> {
        let Imported { found, layers, pin } = self;
        let Found { digest, raw, names, through, .. } = found;
        let wrong = |why: String| ImageError::Layout { layout: dir.path.clone(), why };
        let (config, ..) = ImageConfig::read(&raw).map_err(wrong)?;
        let id = Digest::of(&raw);
        let raw = String::from_utf8_lossy(&raw).into_owned();
        let diffs = found.layers.iter().map(|(_, diff)| *diff).collect();
        let image = Known { layers, diffs, ..Known::new(digest, id, config, raw) };
        let failed = |source| ImageError::Read { archive: store.dir().join("images"), source };
        let image = image.asked_now(store).map_err(failed)?;
        catalog::add(store, &image).map_err(failed)?;
        fault::point(format_args!("load:image"));
        let (left, names) = (names.left(), names.own);
        let mut moved = Vec::new();
        for name in &names {
            let before = catalog::meaning(store, name).filter(|before| *before != digest);
            moved.extend(before.map(|before| (name.clone(), before)));
            catalog::name(store, name, &digest, Origin::File).map_err(failed)?;
        }
        fault::point(format_args!("load:names"));
        // Without a name its digest is all that it can be asked for by.
        let is_asked = feed == Feed::Client && names.is_empty();
        catalog::alias(store, &digest, &digest, is_asked).map_err(failed)?;
        for index in &through {
            catalog::alias(store, index, &digest, false).map_err(failed)?;
        }
        fault::point(format_args!("load:aliases"));
        crate::info!("image.loaded", path = dir.path.display(), digest = digest);
        for why in &left {
            crate::info!("image.not_named", path = dir.path.display(), digest = digest, err = why);
        }
        Ok(Loaded { digest, names, moved, left, pin })
    }
}
