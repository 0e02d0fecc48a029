//! Images from files: what `docker save` writes, OCI layouts as directories and as archives. They
//! are in the catalogue afterwards, and can be run without any network.

use super::catalog::{self, Known, Origin};
use super::config::ImageConfig;
use super::error::ImageError;
use super::layout::{self, LayerFile, Layout};
use super::manifest::{self, Choice, LAYERS_MAX, Named};
use super::platform::Runs;
use super::stream::unpack_packed;
use super::unpack::Options;
use crate::sys::beneath;
use crate::unit::{Bytes, Digest, ImageRef};
use crate::volume::{Pin, Store};
use serde::Deserialize;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// Files of an archive, and their bytes together.
const FILES_MAX: u64 = 100_000;
const BYTES_MAX: Bytes = Bytes::mib(64 << 10);
/// Indexes that lead to one another.
const INDEXES_MAX: usize = 3;
/// Most images of one file.
const IMAGES_MAX: usize = 1000;

/// An image that was loaded.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// All about it.
    pub image: Known,
    /// What it is called now.
    pub names: Vec<ImageRef>,
    /// Keeps its layers.
    pub pin: Pin,
}

/// An image in a directory.
struct Found {
    digest: Digest,
    raw: Vec<u8>,
    config: ImageConfig,
    layers: Vec<(LayerFile, Digest)>,
    names: Vec<ImageRef>,
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

/// Loads all images of an archive or a directory that run on this box. Those that have no name get
/// `name`, or its tag when they have one; without it they have none and are found by digest.
/// Blocking.
pub fn load(
    store: &Store,
    default_host: &str,
    path: &Path,
    name: Option<&ImageRef>,
) -> Result<Vec<Loaded>, ImageError> {
    let unreadable = |source| ImageError::Read { archive: path.into(), source };
    if fs::metadata(path).map_err(unreadable)?.is_dir() {
        return load_dir(store, default_host, &Layout::open(path.into())?, name);
    }
    let file = beneath::open_regular(path).map_err(unreadable)?;
    load_stream(store, default_host, path, file, name)
}

/// As [`load`], of an archive that is read from a stream. `path` is what errors call it; nothing is
/// opened there.
pub fn load_stream(
    store: &Store,
    default_host: &str,
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
    unpack_packed(store, stream, draft.dir(), &options)
        .map_err(|source| ImageError::Unpack { archive: path.into(), source })?;
    let inside = fs::File::open(draft.dir()).map_err(unreadable)?;
    load_dir(store, default_host, &Layout { path: path.into(), dir: inside }, name)
}

fn load_dir(
    store: &Store,
    default_host: &str,
    dir: &Layout,
    name: Option<&ImageRef>,
) -> Result<Vec<Loaded>, ImageError> {
    let wrong = |why: &str| ImageError::Layout { layout: dir.path.clone(), why: why.into() };
    let found = match (has(dir, "index.json")?, has(dir, "manifest.json")?) {
        (true, _) => in_layout(dir, default_host, name)?,
        (false, true) => in_saved(dir, default_host)?,
        (false, false) => {
            return Err(wrong(
                "it is neither what `docker save` writes nor an OCI layout: it has no manifest.json \
                 and no index.json",
            ));
        }
    };
    if found.is_empty() {
        return Err(wrong("none of its images runs on this box"));
    }
    found.into_iter().map(|found| found.load(store, dir, default_host, name)).collect()
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

/// Images of an OCI layout.
fn in_layout(
    dir: &Layout,
    default_host: &str,
    name: Option<&ImageRef>,
) -> Result<Vec<Found>, ImageError> {
    let wrong = |why| ImageError::Layout { layout: dir.path.clone(), why };
    let runs = Runs::here();
    let all = manifest::all(&dir.small("index.json", None)?, &runs).map_err(wrong)?;
    let mut found: Vec<Found> = Vec::new();
    for Named { choice, name: called } in all.into_iter().take(IMAGES_MAX) {
        let Some(blob) = followed(dir, choice, &runs)? else { continue };
        let called = called.and_then(|called| full_name(&called, name));
        let called = called.map(|called| called.at(default_host));
        if let Some(same) = found.iter_mut().find(|found| found.digest == blob.digest) {
            same.names.extend(called);
            continue;
        }
        let document = dir.json(&blob)?;
        let raw = dir.json(&manifest::config(&document).map_err(wrong)?)?;
        let image = manifest::image(&document, &raw, &runs).map_err(wrong)?;
        let layers = image.layers.into_iter().map(|(blob, diff)| (LayerFile::Blob(blob), diff));
        let (layers, names) = (layers.collect(), called.into_iter().collect());
        found.push(Found { digest: blob.digest, raw, config: image.config, layers, names });
    }
    Ok(found)
}

/// The manifest behind indexes; `None`: none of them runs here.
fn followed(
    dir: &Layout,
    mut choice: Choice,
    runs: &Runs,
) -> Result<Option<manifest::Blob>, ImageError> {
    for _ in 0..=INDEXES_MAX {
        match choice {
            Choice::Manifest(blob) => return Ok(Some(blob)),
            Choice::Index(blob) => match manifest::choose(&dir.json(&blob)?, None, runs) {
                Ok(next) => choice = next,
                Err(_) => return Ok(None),
            },
        }
    }
    let why = format!("its index leads to more than {INDEXES_MAX} others");
    Err(ImageError::Layout { layout: dir.path.clone(), why })
}

/// A name as a layout has it: a whole one, or a tag of what the caller calls it.
fn full_name(called: &str, name: Option<&ImageRef>) -> Option<ImageRef> {
    match (called.contains(['/', ':']), name) {
        (true, _) => called.parse().ok(),
        (false, Some(name)) => name.tagged(called),
        (false, None) => None,
    }
}

/// Images of `docker save`.
fn in_saved(dir: &Layout, default_host: &str) -> Result<Vec<Found>, ImageError> {
    let wrong = |why: String| ImageError::Layout { layout: dir.path.clone(), why };
    let text = dir.small("manifest.json", None)?;
    let all: Vec<Saved> = manifest::read(&text, "its manifest.json").map_err(wrong)?;
    let runs = Runs::here();
    let mut found = Vec::new();
    for saved in all.into_iter().take(IMAGES_MAX) {
        let raw = dir.small(&saved.config, None)?;
        let id = Digest::of(&raw);
        // `<hex>.json`, or `blobs/sha256/<hex>`.
        let named = Path::new(&saved.config).file_stem().and_then(|name| name.to_str());
        if named != Some(&id.hex()) {
            let text = format!("{} is damaged: it holds something else", saved.config);
            return Err(wrong(text));
        }
        let (config, platform, diffs) = ImageConfig::read(&raw).map_err(wrong)?;
        if !platform.architecture.is_empty() && runs.rank(&platform).is_none() {
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
        let names = saved.repo_tags.unwrap_or_default();
        let names = names.iter().filter_map(|name| name.parse::<ImageRef>().ok());
        let names = names.map(|name| name.at(default_host)).collect();
        found.push(Found { digest: id, raw, config, layers: layers.zip(diffs).collect(), names });
    }
    Ok(found)
}

impl Found {
    fn load(
        mut self,
        store: &Store,
        dir: &Layout,
        default_host: &str,
        name: Option<&ImageRef>,
    ) -> Result<Loaded, ImageError> {
        if self.names.is_empty() {
            self.names.extend(name.map(|name| name.at(default_host)));
        }
        let mut chains: Vec<Digest> = Vec::with_capacity(self.layers.len());
        for (_, diff) in &self.layers {
            chains.push(chains.last().map_or(*diff, |below| below.chain(diff)));
        }
        let pin = store.pin(&chains);
        for (at, (file, diff)) in self.layers.iter().enumerate() {
            dir.import(store, file, diff, &chains[..=at])?;
        }
        let layers =
            layout::without_hidden(store, chains).map_err(|source| dir.unreadable(source))?;
        let raw = String::from_utf8_lossy(&self.raw).into_owned();
        let image = Known {
            layers,
            diffs: self.layers.iter().map(|(_, diff)| *diff).collect(),
            used_ms: catalog::now_ms(),
            ..Known::new(self.digest, Digest::of(&self.raw), self.config, raw)
        };
        let failed = |source| ImageError::Read { archive: store.dir().join("images"), source };
        catalog::add(store, &image).map_err(failed)?;
        for name in &self.names {
            catalog::name(store, name, &image.digest, Origin::File).map_err(failed)?;
        }
        if self.names.is_empty() {
            // Its digest is all that it can be asked for by.
            catalog::alias(store, &image.digest, &image.digest, true).map_err(failed)?;
        }
        crate::info!("image.loaded", path = dir.path.display(), digest = image.digest);
        Ok(Loaded { image, names: self.names, pin })
    }
}
