//! Directories that a layer only implies, by having something in them: in the image they are what
//! the layers below say. In a union the upper layer's directory hides theirs, so it is made like
//! it.

use super::error::UnpackError;
use super::lower;
use super::tree::{self, is_whiteout, look};
use super::unpack::{Options, Summary};
use crate::sys::{at, file};
use crate::unit::Digest;
use crate::volume::Store;
use std::ffi::CString;
use std::fs::{File, Permissions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

/// Extended attributes that say something about a layer, not about the image.
const OVERLAY: &[u8] = b"trusted.overlay.";

/// What one layer says of a path.
pub(super) enum Says {
    /// It is this directory.
    Is(File),
    /// It is nothing, or nothing that goes on below.
    Hidden,
    /// Nothing: what is below counts.
    Nothing,
}

/// Makes what the layer at `dir` only implies, by `summary`, what it is in the layers `below`, lowest
/// first: directories, and files that it links.
pub fn settle(
    store: &Store,
    dir: &Path,
    summary: &mut Summary,
    below: &[Digest],
) -> Result<(), UnpackError> {
    if !summary.needs_below() || below.is_empty() && summary.links.is_empty() {
        return Ok(());
    }
    let unreadable = || UnpackError::refused(b".", "cannot be compared with the layers below");
    let own = File::open(dir).map_err(unreadable())?;
    let mut layers = Vec::with_capacity(below.len());
    for layer in below.iter().rev() {
        let path = store.dir().join("layers").join(layer.hex());
        layers.push(File::open(&path).map_err(unreadable())?);
    }
    for path in &summary.implied {
        settle_one(&own, path, &layers)
            .map_err(UnpackError::refused(path, "cannot be made as in the layers below"))?;
    }
    let room = Options::default().max_bytes.get().saturating_sub(summary.bytes);
    summary.bytes += lower::settle(store, &own, &summary.links, &layers, room)?;
    Ok(())
}

pub(super) fn settle_one(own: &File, path: &[u8], layers: &[File]) -> io::Result<()> {
    // Gone, replaced, or below something that hides what is below: it is what it is.
    let (Says::Is(own), false) = says(own, path)? else { return Ok(()) };
    for layer in layers {
        match says(layer, path)? {
            (Says::Is(theirs), _) => {
                copy_attributes(&theirs, &own)?;
                let time = tree::time_of(&theirs.metadata()?);
                return file::set_times(own.as_fd(), b".", time);
            }
            (Says::Hidden, _) | (Says::Nothing, true) => return Ok(()),
            (Says::Nothing, false) => {}
        }
    }
    Ok(())
}

/// What a layer has at a path, which is empty for its root, and whether it hides what the layers below have there.
pub(super) fn says(layer: &File, path: &[u8]) -> io::Result<(Says, bool)> {
    let mut dir = layer.try_clone()?;
    let mut hides = is_opaque(&dir)?;
    for name in path.split(|byte| *byte == b'/').filter(|name| !name.is_empty()) {
        match look(&dir, name)? {
            None => return Ok((Says::Nothing, hides)),
            Some(meta) if is_whiteout(&meta) || !meta.is_dir() => return Ok((Says::Hidden, true)),
            Some(_) => dir = File::from(file::open_dir(dir.as_fd(), name)?),
        }
        hides |= is_opaque(&dir)?;
    }
    Ok((Says::Is(dir), hides))
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
