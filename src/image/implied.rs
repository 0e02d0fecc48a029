//! Directories that a layer only implies, by having something in them: in the image they are what
//! the layers below say. In a union the upper layer's directory hides theirs, so it is made like
//! it.

use super::error::UnpackError;
use super::lower;
use super::tree;
use super::unpack::{Options, Summary};
use super::walk::Walk;
use super::work::Wish;
use crate::sys::{at, file};
use crate::unit::Digest;
use crate::volume::Store;
use std::ffi::CString;
use std::fs::{File, Permissions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Extended attributes that say something about a layer, not about the image.
const OVERLAY: &[u8] = b"trusted.overlay.";

/// What one layer says of a path.
#[derive(Debug)]
pub(super) enum Says {
    /// It is this directory.
    Is(File),
    /// It is nothing, or nothing that goes on below.
    Hidden,
    /// Nothing: what is below counts.
    Nothing,
}

/// Makes what the layer at `dir` only implies, by `summary`, what it is in the layers `below`, lowest
/// first: directories, and files that it links. It ends when `is_over`.
pub fn settle(
    store: &Store,
    dir: &Path,
    summary: &mut Summary,
    below: &[Digest],
    is_over: &dyn Fn() -> bool,
) -> Result<(), UnpackError> {
    let places = |layer: &Digest| store.dir().join("layers").join(layer.hex());
    settle_above(store, dir, summary, &below.iter().map(places).collect::<Vec<_>>(), is_over)
}

/// The same with layers below that are wherever they are.
pub fn settle_above(
    store: &Store,
    dir: &Path,
    summary: &mut Summary,
    below: &[PathBuf],
    is_over: &dyn Fn() -> bool,
) -> Result<(), UnpackError> {
    if !summary.needs_below() || below.is_empty() && summary.links.is_empty() {
        return Ok(());
    }
    let unreadable = || UnpackError::refused(b".", "cannot be compared with the layers below");
    let own = File::open(dir).map_err(unreadable())?;
    let layers = below.iter().rev().map(File::open).collect::<io::Result<Vec<_>>>();
    let layers = layers.map_err(unreadable())?;
    settle_all(&own, &summary.implied, &layers, is_over)?;
    let room = Options::default().max_bytes.get().saturating_sub(summary.bytes);
    let room = (room, &mut summary.spent);
    summary.bytes += lower::settle(store, &own, &summary.links, &layers, room, is_over)?;
    Ok(())
}

/// Makes the directories `paths` of `own` what they are in `layers`, topmost first: layer by layer,
/// as neighbours share what leads to them.
fn settle_all(
    own: &File,
    paths: &[Vec<u8>],
    layers: &[File],
    is_over: &dyn Fn() -> bool,
) -> Result<(), UnpackError> {
    let refused = |path| UnpackError::refused(path, "cannot be made as in the layers below");
    let mut open: Vec<&Vec<u8>> = paths.iter().collect();
    for layer in layers {
        let (mut own, mut theirs) = (Walk::new(own), Walk::new(layer));
        let mut left = Vec::new();
        for path in open {
            if is_over() {
                return Err(UnpackError::stream(io::Error::other(Wish::failure())));
            }
            if !settle_in(&mut own, path, &mut theirs).map_err(refused(path))? {
                left.push(path);
            }
        }
        open = left;
    }
    Ok(())
}

/// Makes the directory `path` of `own` what it is in `layers`, topmost first.
pub(super) fn settle_one(own: &File, path: &[u8], layers: &[File]) -> io::Result<()> {
    for layer in layers {
        if settle_in(&mut Walk::new(own), path, &mut Walk::new(layer))? {
            break;
        }
    }
    Ok(())
}

/// The same by one layer; `false`: it says nothing, so those below it count.
fn settle_in(own: &mut Walk<'_>, path: &[u8], theirs: &mut Walk<'_>) -> io::Result<bool> {
    let theirs = match theirs.says(path)? {
        (Says::Is(theirs), _) => theirs,
        (Says::Hidden, _) | (Says::Nothing, true) => return Ok(true),
        (Says::Nothing, false) => return Ok(false),
    };
    // Gone, replaced, or below something that hides what is below: it is what it is.
    if let (Says::Is(own), false) = own.says(path)? {
        copy_attributes(&theirs, &own)?;
        file::set_times(own.as_fd(), b".", tree::time_of(&theirs.metadata()?))?;
    }
    Ok(true)
}

/// What a layer has at a path, which is empty for its root, and whether it hides what the layers below have there.
pub(super) fn says(layer: &File, path: &[u8]) -> io::Result<(Says, bool)> {
    Walk::new(layer).says(path)
}

pub(super) fn is_opaque(dir: &File) -> io::Result<bool> {
    Ok(file::xattr(dir.as_fd(), tree::OPAQUE)?.as_deref() == Some(b"y"))
}

/// Owner, mode and extended attributes.
pub(super) fn copy_attributes(from: &File, to: &File) -> io::Result<()> {
    let meta = from.metadata()?;
    at::set_owner(to, meta.uid(), meta.gid())?;
    for name in file::xattr_names(from.as_fd())? {
        if name.starts_with(OVERLAY) {
            continue;
        }
        let name = CString::new(name).map_err(io::Error::other)?;
        if let Some(value) = file::xattr(from.as_fd(), &name)? {
            file::set_xattr(to.as_fd(), &name, &value)?;
        }
    }
    to.set_permissions(Permissions::from_mode(meta.mode() & 0o7777))
}
