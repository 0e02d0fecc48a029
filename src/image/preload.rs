//! Images that came with the box: archives and layouts of one directory, in the catalogue for as long
//! as their file is there, whether anything is made of them or not.
//!
//! ```text
//! images/preloaded/<hash of the path>   JSON: the path, how the file looked, digests of its images
//! ```
//!
//! A file that looks as it did, and all of whose images are here, is not read again. So a name that
//! means another image by now keeps that meaning.

use super::catalog;
use super::error::ImageError;
use super::import::identity;
use super::load;
use crate::unit::{Digest, ImageRef};
use crate::volume::Store;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Files of the directory.
const FILES_MAX: usize = 1000;
/// Longest note.
const NOTE_MAX: u64 = 1 << 20;
/// An image may be collected between its coming and the note that keeps it.
const TRIES: u32 = 2;

/// What is remembered of a file.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Note {
    path: PathBuf,
    /// Hash of its size, times and number, or of those of a layout's index.
    looks: Digest,
    /// Its images.
    images: Vec<Digest>,
}

/// What became of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preloaded {
    /// It was read, and held so many images.
    Read(usize),
    /// All of it was here.
    Known,
}

/// Files and directories of `dir` that images may be in, by name; none when it is not there. What
/// begins with a dot is left alone: it may not be whole yet.
pub fn files(dir: &Path) -> Result<Vec<PathBuf>, ImageError> {
    let unreadable = |source| ImageError::Read { archive: dir.into(), source };
    let items = match fs::read_dir(dir) {
        Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        items => items.map_err(unreadable)?,
    };
    let mut found = Vec::new();
    for item in items {
        let path = item.map_err(unreadable)?.path();
        let is_hidden = path.file_name().is_some_and(|name| name.as_bytes().starts_with(b"."));
        if !is_hidden {
            found.push(path);
        }
        if found.len() > FILES_MAX {
            let why =
                format!("it holds more than {FILES_MAX} files; put images into fewer archives");
            return Err(unreadable(io::Error::other(why)));
        }
    }
    found.sort();
    Ok(found)
}

/// Loads the images of one file, unless they are here. Ends early, with an error, when the daemon does.
/// Blocking.
pub fn preload(store: &Store, default_host: &str, path: &Path) -> Result<Preloaded, ImageError> {
    let unreadable = |source| ImageError::Read { archive: path.into(), source };
    let looks = looks(path).map_err(unreadable)?;
    let is_here = |note: &Note| note.images.iter().all(|it| catalog::find(store, it).is_some());
    let known = read(&note_path(store, path)).filter(|note| note.looks == looks);
    if known.is_some_and(|note| is_here(&note)) {
        return Ok(Preloaded::Known);
    }
    for _ in 0..TRIES {
        let loaded = load::load(store, default_host, path, called(path).as_ref())?;
        let mut images: Vec<Digest> = loaded.iter().map(|loaded| loaded.digest).collect();
        images.sort();
        images.dedup();
        let note = Note { path: path.into(), looks, images };
        let text = serde_json::to_vec(&note).map_err(|err| unreadable(err.into()))?;
        let to = note_path(store, path);
        let unwritten = |source| ImageError::Read { archive: to.clone(), source };
        catalog::write(&to, &text).map_err(unwritten)?;
        if is_here(&note) {
            return Ok(Preloaded::Read(note.images.len()));
        }
    }
    Err(unreadable(io::Error::other("its images are removed as soon as they are here")))
}

/// Images of files that are there; they stay. What is noted of others is forgotten.
pub(super) fn pinned(store: &Store) -> io::Result<BTreeSet<Digest>> {
    let mut all = BTreeSet::new();
    for item in catalog::entries(dir(store))? {
        match read(&item) {
            Some(note) if !is_gone(&note.path) => all.extend(note.images),
            _ => catalog::gone(fs::remove_file(item))?,
        }
    }
    Ok(all)
}

/// Forgets what is noted of all files but these: the directory is another one now.
pub fn only(store: &Store, files: &[PathBuf]) -> Result<(), ImageError> {
    let failed = |source| ImageError::Read { archive: dir(store), source };
    let keep: BTreeSet<PathBuf> = files.iter().map(|path| note_path(store, path)).collect();
    for item in catalog::entries(dir(store)).map_err(failed)? {
        if !keep.contains(&item) {
            catalog::gone(fs::remove_file(item)).map_err(failed)?;
        }
    }
    Ok(())
}

/// The repository of images that say no more than a tag: what their file is called, without what says
/// which form it has. `None`: that cannot be one.
fn called(path: &Path) -> Option<ImageRef> {
    let mut name = path.file_name()?.to_str()?;
    for end in [".gz", ".zst", ".tgz", ".tar", ".oci", ".docker"] {
        name = name.strip_suffix(end).unwrap_or(name);
    }
    let name: ImageRef = name.parse().ok()?;
    (!name.has_tag() && name.digest().is_none() && name.host().is_none()).then_some(name)
}

/// How a file looks from outside. A layout is written anew by its index.
pub(super) fn looks(path: &Path) -> io::Result<Digest> {
    let mut text = format!("{:?}", identity(&fs::metadata(path)?));
    for name in ["index.json", "manifest.json"] {
        match fs::metadata(path.join(name)) {
            Ok(meta) => text += &format!(" {name} {:?}", identity(&meta)),
            Err(err) if is_absent(&err) => {}
            Err(err) => return Err(err),
        }
    }
    Ok(Digest::of(text.as_bytes()))
}

/// Only what is known to be gone is: a disk that does not answer may come back.
fn is_gone(path: &Path) -> bool {
    fs::metadata(path).is_err_and(|err| is_absent(&err))
}

fn is_absent(err: &io::Error) -> bool {
    matches!(err.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

fn dir(store: &Store) -> PathBuf {
    catalog::dir(store).join("preloaded")
}

fn note_path(store: &Store, path: &Path) -> PathBuf {
    dir(store).join(Digest::of(path.as_os_str().as_bytes()).hex())
}

fn read(path: &Path) -> Option<Note> {
    if fs::metadata(path).ok()?.len() > NOTE_MAX {
        return None;
    }
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_a_repository_where_its_name_can_be_one() {
        let of = |file: &str| called(&Path::new("/images").join(file)).map(|name| name.to_string());
        for file in ["app", "app.oci", "app.tar", "app.tar.gz", "app.tgz", "app.oci.tar.zst"] {
            assert_eq!(of(file).as_deref(), Some("app"), "{file}");
        }
        assert_eq!(of("redis-7.2.tar").as_deref(), Some("redis-7.2"));
        for file in ["App.tar", "app:1.tar", "a b", ".tar", "-x"] {
            assert_eq!(of(file), None, "{file}");
        }
    }
}
