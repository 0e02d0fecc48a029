//! Images from a directory in the form of the OCI image layout, 1.0: `oci-layout`, `index.json`
//! and `blobs/sha256/<hex>`. Nothing in it is believed before its digest was seen to be right, and
//! no link of it is followed.

use super::error::{ImageError, UnpackError};
use super::local::Rootfs;
use super::manifest::{self, Blob, Choice, Image};
use super::platform::Runs;
use super::registry::failure;
use super::several::{self, Stack};
use super::stream::unpack_wanted;
use super::unpack::{Options, Summary};
use super::work::{Feed, Wish};
use super::{notes, tree};
use crate::sys::at::{self, Open, Resolve};
use crate::sys::beneath::{self, Links};
use crate::sys::file;
use crate::unit::Digest;
use crate::volume::{Draft, Store};
use sha2::{Digest as _, Sha256};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

/// Longest index, manifest or configuration.
const JSON_MAX: u64 = 4 << 20;
/// Indexes that lead to one another.
const INDEXES_MAX: usize = 4;
/// Why a name of the layout's own documents is not opened.
const OUTSIDE: &str = "it leads out of the directory or archive, where nothing of an image is";

/// Imports an image of the layout at `path`, which may end with `:TAG` or `#TAG`; without one it is
/// the first image of `index.json` that runs on this box. Layers are named by chain id, as the
/// specification defines it: images that begin alike share them, and what is there is not unpacked
/// again.
pub fn import_layout(store: &Store, path: &Path) -> Result<Rootfs, ImageError> {
    let (dir, tag) = reference(path);
    let layout = Layout::open(dir)?;
    let image = layout.image(tag.as_deref())?;
    let mut chains: Vec<Digest> = Vec::with_capacity(image.layers.len());
    for (_, diff) in &image.layers {
        chains.push(chains.last().map_or(*diff, |below| below.chain(diff)));
    }
    let (pin, wish) = (store.pin(&chains), Wish::new(store));
    let layers: Vec<_> =
        image.layers.iter().map(|(blob, diff)| (LayerFile::Blob(*blob), *diff)).collect();
    let stack = Stack { name: String::new(), layers: &layers, chains: &chains };
    several::make((store, &wish), &layout, &[stack])?;
    let chains = without_hidden(store, chains).map_err(|err| layout.unreadable(err))?;
    let bytes = notes::layers_bytes(store, &chains)?;
    let (env, volumes) = (image.config.env, image.config.volumes);
    Ok(Rootfs { layers: chains, image: None, env, volumes, bytes, pin })
}

/// Directory and tag of what a client names.
fn reference(path: &Path) -> (PathBuf, Option<String>) {
    let whole = || (path.to_owned(), None);
    if path.is_dir() {
        return whole();
    }
    let Some(text) = path.to_str() else { return whole() };
    let begin = text.rfind('/').map_or(0, |slash| slash + 1);
    match text[begin..].find(['#', ':']) {
        Some(at) => {
            let (dir, tag) = text.split_at(begin + at);
            (PathBuf::from(dir), Some(tag[1..].to_owned()))
        }
        None => whole(),
    }
}

/// The layers that count: below one that hides everything nothing does, and an overlay cannot say
/// that of its root.
pub(super) fn without_hidden(store: &Store, mut chains: Vec<Digest>) -> io::Result<Vec<Digest>> {
    let place = |chain: &Digest| store.dir().join("layers").join(chain.hex());
    let hides = hides_last(&chains.iter().map(place).collect::<Vec<_>>())?;
    chains.drain(..hides);
    Ok(chains)
}

/// Which of the layers that are in these places is the last that hides all those below it; 0 when none
/// does. It has the mark of a directory that hides the one below it.
pub(super) fn hides_last(places: &[PathBuf]) -> io::Result<usize> {
    for (at, place) in places.iter().enumerate().rev() {
        let mark = match File::open(place) {
            Err(err) if err.kind() == io::ErrorKind::NotFound => None,
            layer => file::xattr(layer?.as_fd(), tree::OPAQUE)?,
        };
        if mark.as_deref() == Some(b"y") {
            return Ok(at);
        }
    }
    Ok(0)
}

/// An open layout, or another directory with files of images.
pub(super) struct Layout {
    /// Named in errors.
    pub(super) path: PathBuf,
    pub(super) dir: File,
}

/// A layer's packed tar in a layout.
#[derive(Clone, Debug)]
pub(super) enum LayerFile {
    /// Named by what is in it.
    Blob(Blob),
    /// Named somehow, beneath the directory.
    Path(PathBuf),
}

impl Layout {
    pub(super) fn open(path: PathBuf) -> Result<Layout, ImageError> {
        let err = match beneath::open_place(&path) {
            Ok(dir) => return Ok(Layout { path, dir }),
            Err(err) => err,
        };
        let why = match err.kind() {
            io::ErrorKind::NotFound => "it is not there",
            io::ErrorKind::NotADirectory => "it is not a directory",
            _ => return Err(ImageError::Read { archive: path, source: err }),
        };
        let why = format!("{why}; name a directory that holds `oci-layout` and `index.json`");
        Err(ImageError::Layout { layout: path, why })
    }

    /// Finds an image.
    fn image(&self, tag: Option<&str>) -> Result<Image, ImageError> {
        let wrong = |why| ImageError::Layout { layout: self.path.clone(), why };
        let runs = Runs::here();
        let index = self.small("index.json", None).map_err(|err| match err {
            ImageError::Read { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                wrong("it has no `index.json`, so it is no image layout".into())
            }
            err => err,
        })?;
        let mut choice = manifest::choose(&index, tag, &runs).map_err(wrong)?;
        for _ in 0..INDEXES_MAX {
            match choice {
                Choice::Manifest(blob) => {
                    let manifest = self.json(&blob)?;
                    let config = self.json(&manifest::config(&manifest).map_err(wrong)?)?;
                    return manifest::image(&manifest, &config, &runs).map_err(wrong);
                }
                Choice::Index(blob) => {
                    let index = self.json(&blob)?;
                    choice = manifest::choose(&index, None, &runs).map_err(wrong)?;
                }
            }
        }
        Err(wrong(format!("its index leads to more than {INDEXES_MAX} others")))
    }

    /// Unpacks a layer of `image` into a draft; it is what it is named by, and `diff`.
    pub(super) fn unpack<'s>(
        &self,
        (store, wish): (&'s Store, &Wish),
        layer: &LayerFile,
        diff: &Digest,
        image: &str,
    ) -> Result<(Draft<'s>, Summary), ImageError> {
        let in_store = |source| ImageError::Store { archive: self.path.clone(), source };
        let wrong = |why| ImageError::Layout { layout: self.path.clone(), why };
        let name = called(layer, image);
        let damaged = |size: u64| {
            wrong(format!(
                "blob {name} is damaged: it does not hold the {size} bytes that it is named by"
            ))
        };
        let (file, size) = match layer {
            // One byte more than there should be shows that there are more.
            LayerFile::Blob(blob) => (self.file(&blob_path(blob))?, blob.size.saturating_add(1)),
            LayerFile::Path(path) => (self.linked(path)?, u64::MAX),
        };
        if let LayerFile::Blob(blob) = layer
            && file.metadata().is_ok_and(|meta| meta.len() != blob.size)
        {
            return Err(damaged(blob.size));
        }
        let draft = store.draft().map_err(in_store)?;
        let (mut hash, mut read) = (Sha256::new(), 0);
        let checked = Checked { file: file.take(size), hash: &mut hash, read: &mut read };
        let (feed, options) = (Feed::File, Options::default());
        let unpacked = unpack_wanted(store, wish, feed, checked, draft.dir(), &options);
        let (summary, unpacked) = unpacked.map_err(|source| self.broken(layer, image, source))?;
        if let LayerFile::Blob(Blob { digest, size }) = layer
            && (read != *size || Digest::finish(hash) != *digest)
        {
            return Err(damaged(*size));
        }
        if unpacked != *diff {
            let text = format!("layer {name} holds {unpacked}, the configuration says {diff}");
            return Err(wrong(text));
        }
        Ok((draft, summary))
    }

    /// A layer of `image` cannot or must not be unpacked.
    pub(super) fn broken(&self, layer: &LayerFile, image: &str, source: UnpackError) -> ImageError {
        ImageError::Blob { layout: self.path.clone(), blob: called(layer, image), source }
    }

    /// Bytes of a layer's file, as far as that is one which is read: nothing is made wider for what will be
    /// refused.
    pub(super) fn length(&self, layer: &LayerFile) -> u64 {
        let file = match layer {
            LayerFile::Blob(blob) => self.file(&blob_path(blob)),
            LayerFile::Path(path) => self.linked(path),
        };
        let length = file.ok().and_then(|file| file.metadata().ok()).map_or(0, |meta| meta.len());
        match layer {
            LayerFile::Blob(blob) if blob.size != length => 0,
            _ => length,
        }
    }

    /// Bytes of a layer as it is packed.
    pub(super) fn packed(&self, layer: &LayerFile) -> Result<u64, ImageError> {
        match layer {
            LayerFile::Blob(blob) => Ok(blob.size),
            LayerFile::Path(path) => self
                .linked(path)?
                .metadata()
                .map(|meta| meta.len())
                .map_err(|it| self.unreadable(it)),
        }
    }

    /// A document, whole and as its digest says.
    pub(super) fn json(&self, blob: &Blob) -> Result<Vec<u8>, ImageError> {
        let data = self.small(&blob_path(blob), Some(blob.size))?;
        if Digest::of(&data) != blob.digest {
            let why = format!("blob {} is damaged: it holds something else", blob.digest);
            return Err(ImageError::Layout { layout: self.path.clone(), why });
        }
        Ok(data)
    }

    /// A file of at most 4 MiB, with this length when it is known.
    pub(super) fn small(&self, name: &str, size: Option<u64>) -> Result<Vec<u8>, ImageError> {
        let mut data = Vec::new();
        let max = size.unwrap_or(JSON_MAX).min(JSON_MAX);
        let read = self.file(name)?.take(max + 1).read_to_end(&mut data);
        read.map_err(|err| self.unreadable(err))?;
        if data.len() as u64 > max || size.is_some_and(|size| size != data.len() as u64) {
            let why = match size {
                Some(size) if size <= JSON_MAX => format!("{name} is not {size} bytes long"),
                _ => format!("{name} is longer than {JSON_MAX} bytes"),
            };
            return Err(ImageError::Layout { layout: self.path.clone(), why });
        }
        Ok(data)
    }

    /// Opens a regular file of the layout.
    fn file(&self, name: &str) -> Result<File, ImageError> {
        let plain = |why| io::Error::new(io::ErrorKind::InvalidInput, why);
        let opened = match beneath::open_file(self.dir.as_fd(), Path::new(name), Links::Refused) {
            Err(err) if err.kind() == io::ErrorKind::CrossesDevices => Err(plain(OUTSIDE)),
            // ELOOP, which has no kind.
            Err(err) if err.raw_os_error() == Some(40) => {
                Err(plain("it is a symbolic link, or below one; put the file itself there"))
            }
            other => other,
        };
        let checked = opened.and_then(|file| match file.metadata()?.is_file() {
            true => Ok(file),
            false => Err(plain("it is not a file")),
        });
        checked.map_err(|source| ImageError::Read { archive: self.path.join(name), source })
    }

    /// Opens a regular file, through links that stay inside: `docker save` has one for a layer that
    /// is there twice.
    pub(super) fn linked(&self, name: &Path) -> Result<File, ImageError> {
        // The last name may be the link.
        let flags = Open::O_RDONLY | Open::O_NONBLOCK | Open::O_NOCTTY;
        let how = Resolve::RESOLVE_BENEATH | Resolve::RESOLVE_NO_MAGICLINKS;
        let opened = at::open(&self.dir, name, flags, 0, how).map(File::from);
        let opened = opened.map_err(|err| match err.kind() {
            io::ErrorKind::CrossesDevices => io::Error::new(io::ErrorKind::InvalidInput, OUTSIDE),
            _ => err,
        });
        let checked = opened.and_then(|file| match file.metadata()?.is_file() {
            true => Ok(file),
            false => Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a file")),
        });
        checked.map_err(|source| ImageError::Read { archive: self.path.join(name), source })
    }

    pub(super) fn unreadable(&self, source: io::Error) -> ImageError {
        ImageError::Read { archive: self.path.clone(), source }
    }
}

fn blob_path(blob: &Blob) -> String {
    format!("blobs/sha256/{}", blob.digest.hex())
}

/// What errors call a layer of `image`, which may have no name.
fn called(layer: &LayerFile, image: &str) -> String {
    let name = match layer {
        LayerFile::Blob(blob) => blob.digest.to_string(),
        LayerFile::Path(path) => failure::clean(&path.to_string_lossy()),
    };
    if image.is_empty() { name } else { format!("{name} of {image}") }
}

/// Hashes and counts a blob as it is read.
struct Checked<'a> {
    file: io::Take<File>,
    hash: &'a mut Sha256,
    read: &'a mut u64,
}

impl Read for Checked<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.file.read(buffer)?;
        self.hash.update(&buffer[..n]);
        *self.read += n as u64;
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_follows_a_colon_or_a_hash_in_the_last_name() {
        let of = |text: &str| {
            let (dir, tag) = reference(Path::new(text));
            (dir.display().to_string(), tag)
        };
        let tag = |text: &str| Some(text.to_owned());
        assert_eq!(of("/no/image"), ("/no/image".into(), None));
        assert_eq!(of("/no/image:v1"), ("/no/image".into(), tag("v1")));
        assert_eq!(of("/no/image#a:b"), ("/no/image".into(), tag("a:b")));
        assert_eq!(of("/no:w/image"), ("/no:w/image".into(), None));
    }
}
