//! Which image an archive of the box has become, so that a file that looks as it did is not read again.

use super::catalog::Known;
use super::{notes, preload};
use crate::unit::Digest;
use crate::volume::Store;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// How an archive looked before it was read.
pub struct Looks(Digest);

impl Looks {
    /// How it looks now, and where it is.
    pub fn of(path: &Path) -> io::Result<Looks> {
        let looks = preload::looks(path)?;
        Ok(Looks(Digest::of(&[looks.to_string().as_bytes(), path.as_os_str().as_bytes()].concat())))
    }

    /// The note by which a later one is known to be this.
    fn key(&self, image: &Digest) -> Digest {
        Digest::of(format!("archive {} {image}", self.0).as_bytes())
    }

    /// It has become this image, for as long as its layers are here.
    pub fn became(&self, store: &Store, image: &Known) {
        if let Some(top) = image.layers.last() {
            notes::remember(store, &self.key(&image.digest), top);
        }
    }

    /// Whether it is known to become this image.
    pub fn is(&self, store: &Store, image: &Digest) -> bool {
        notes::recall(store, &self.key(image)).is_some()
    }
}
