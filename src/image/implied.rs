//! Directories that a layer only implies, by having something in them: in the image they are what
//! the layers below say. In a union the upper layer's directory hides theirs, so it is made like
//! it.

use super::tree::{is_whiteout, look};
use super::{error::ImageError, tree};
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
enum Says {
    /// It is this directory.
    Is(File),
    /// It is nothing, or nothing that goes on below.
    Hidden,
    /// Nothing: what is below counts.
    Nothing,
}

/// Makes the directories `implied` in the layer at `dir` what they are in the layers `below`, lowest
/// first.
pub fn settle(
    store: &Store,
    dir: &Path,
    implied: &[Vec<u8>],
    below: &[Digest],
) -> Result<(), ImageError> {
    let unreadable = |path: &Path| {
        let archive = path.to_owned();
        |source| ImageError::Read { archive, source }
    };
    if implied.is_empty() || below.is_empty() {
        return Ok(());
    }
    let own = File::open(dir).map_err(unreadable(dir))?;
    let mut layers = Vec::with_capacity(below.len());
    for layer in below.iter().rev() {
        let path = store.dir().join("layers").join(layer.hex());
        layers.push(File::open(&path).map_err(unreadable(&path))?);
    }
    for path in implied {
        settle_one(&own, path, &layers).map_err(unreadable(dir))?;
    }
    Ok(())
}

fn settle_one(own: &File, path: &[u8], layers: &[File]) -> io::Result<()> {
    // Gone, replaced, or below something that hides what is below: it is what it is.
    let (Says::Is(own), false) = says(own, path)? else { return Ok(()) };
    for layer in layers {
        match says(layer, path)? {
            (Says::Is(theirs), _) => return copy(&theirs, &own),
            (Says::Hidden, _) | (Says::Nothing, true) => return Ok(()),
            (Says::Nothing, false) => {}
        }
    }
    Ok(())
}

/// What a layer has at a path, and whether it hides what the layers below have there.
fn says(layer: &File, path: &[u8]) -> io::Result<(Says, bool)> {
    let mut dir = layer.try_clone()?;
    let mut hides = is_opaque(&dir)?;
    for name in path.split(|byte| *byte == b'/') {
        match look(&dir, name)? {
            None => return Ok((Says::Nothing, hides)),
            Some(meta) if is_whiteout(&meta) || !meta.is_dir() => return Ok((Says::Hidden, true)),
            Some(_) => dir = File::from(file::open_dir(dir.as_fd(), name)?),
        }
        hides |= is_opaque(&dir)?;
    }
    Ok((Says::Is(dir), hides))
}

fn is_opaque(dir: &File) -> io::Result<bool> {
    Ok(file::xattr(dir.as_fd(), tree::OPAQUE)?.as_deref() == Some(b"y"))
}

/// Owner, mode, attributes and time.
fn copy(from: &File, to: &File) -> io::Result<()> {
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
    to.set_permissions(Permissions::from_mode(meta.mode() & 0o7777))?;
    file::set_times(to.as_fd(), b".", tree::time_of(&meta))
}
