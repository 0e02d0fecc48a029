//! What Garden's clients name as the root of a container, when it is on the box: a directory or an
//! archive.

use super::copy::{self, Source};
use super::error::ImageError;
use super::import::import_pinned;
use super::notes;
use crate::sys::beneath;
use crate::unit::Digest;
use crate::volume::{Pin, Store};
use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// The root of a container, imported.
#[derive(Clone, Debug, Default)]
pub struct Rootfs {
    /// Its layers, lowest first.
    pub layers: Vec<Digest>,
    /// The image of the catalogue that they are of, if they are of one.
    pub image: Option<Digest>,
    /// What the image wants in the environment of every process, `NAME=value`.
    pub env: Vec<String>,
    /// Directories that the image wants to be there.
    pub volumes: Vec<String>,
    /// Bytes in the files of all its layers.
    pub bytes: u64,
    /// Keeps the layers until the container's entry in the depot names them.
    pub pin: Pin,
}

/// Imports a directory or an archive (tar, plain or as gzip or zstd) of the box; links are followed
/// to it. Each is imported once for as long as it has its path, its time and its inode, a directory
/// its own time, not that of what is in it. Who asks for what is being imported waits for that.
///
/// What a directory may hold is told in `copy.rs`, what an archive, in [`super::unpack`].
pub fn import_local(store: &Store, path: &Path) -> Result<Rootfs, ImageError> {
    let unreadable = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => ImageError::Missing { path: path.into() },
        _ => ImageError::Read { archive: path.into(), source },
    };
    let place = fs::canonicalize(path).map_err(unreadable)?;
    let meta = fs::metadata(&place).map_err(unreadable)?;
    let (chain, pin) = match (meta.is_dir(), meta.is_file()) {
        (true, _) => import_directory(store, &place)?,
        (_, true) => import_pinned(store, &place, &mut |_, _| ())?,
        _ => return Err(ImageError::Kind { path: place }),
    };
    let bytes = notes::layers_bytes(store, &[chain])?;
    let (env, volumes) = (Vec::new(), Vec::new());
    Ok(Rootfs { layers: vec![chain], image: None, env, volumes, bytes, pin })
}

/// The layer of a directory, at a path without links.
fn import_directory(store: &Store, path: &Path) -> Result<(Digest, Pin), ImageError> {
    let unreadable = |source| ImageError::Read { archive: path.into(), source };
    let in_store = |source| ImageError::Store { archive: path.into(), source };
    let dir = beneath::open_place(path).map_err(unreadable)?;
    let meta = dir.metadata().map_err(unreadable)?;
    let chain = key(path, &meta);
    let _turn = store.turn(&chain);
    let pin = store.pin(&[chain]);
    if store.layer(&chain).is_some() {
        return Ok((chain, pin));
    }
    let draft = store.draft().map_err(in_store)?;
    let to = File::open(draft.dir()).map_err(unreadable)?;
    let summary = copy::copy(store, Source::Box, &dir, &to)
        .map_err(|source| ImageError::Copy { directory: path.into(), source })?;
    if summary.made == 0 {
        return Err(ImageError::Empty { archive: path.into() });
    }
    if key(path, &dir.metadata().map_err(unreadable)?) != chain {
        return Err(ImageError::Changed { archive: path.into() });
    }
    draft.commit(&chain).map_err(in_store)?;
    notes::record(store, &chain, summary.size());
    crate::info!(
        "image.imported",
        path = path.display(),
        digest = chain,
        files = summary.made,
        bytes = summary.bytes,
        skipped = summary.skipped
    );
    Ok((chain, pin))
}

/// The chain id of a directory in this state.
fn key(path: &Path, meta: &Metadata) -> Digest {
    let state = (meta.dev(), meta.ino(), meta.mtime(), meta.mtime_nsec());
    let state = format!("terrarium directory\0{state:?}\0");
    Digest::of(&[state.as_bytes(), path.as_os_str().as_bytes()].concat())
}
