//! The file of what has come of a blob: a next try goes on behind it, whatever ended the one before.
//!
//! Nothing of it waits for the disk. What a power cut makes of it shows by the blob's digest; where there is
//! none, what an earlier run of the box has left counts as nothing.

use super::validator::Validator;
use crate::sys::clock::boot_id;
use crate::sys::file;
use std::ffi::CStr;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

/// Beside the bytes of a blob that nothing else names: in which run of the box they came, and what its
/// server tells it by.
const VALIDATOR: &CStr = c"user.terrarium.validator";

/// What has come; written at its end, read from its beginning first.
pub struct Part {
    path: PathBuf,
    /// Read to its end before anything is added.
    file: File,
    at_end: bool,
    forgotten: bool,
    /// Of no use to anybody else: nothing says what it must be.
    is_own: bool,
}

impl Drop for Part {
    fn drop(&mut self) {
        if self.is_own {
            self.forget();
        }
    }
}

impl Part {
    /// What is there from an earlier time counts, unless it is more than the `size` in bytes that the blob
    /// must have. If it `is_bare` (no digest tells in the end what came) it counts only with what its
    /// server tells it by, written in this run of the box, which is returned then.
    pub fn open(
        path: &Path,
        is_bare: bool,
        size: Option<u64>,
    ) -> io::Result<(Part, Option<Validator>)> {
        let mut options = File::options();
        let file = options.read(true).append(true).create(true).open(path)?;
        let validator = match is_bare {
            true => file::xattr(file.as_fd(), VALIDATOR)?
                .and_then(|text| Validator::read(&text, &boot_id())),
            false => None,
        };
        let is_own = is_bare && validator.is_none();
        // What is longer than the blob is not the beginning of it.
        let (length, most) = (file.metadata()?.len(), size.unwrap_or(u64::MAX));
        if is_own || length > most {
            file.set_len(0)?;
        } else if is_bare && length == most {
            // Something is asked for in any case: else nobody says that it is still the same.
            file.set_len(length.saturating_sub(1))?;
        }
        let part = Part { path: path.to_owned(), file, at_end: false, forgotten: false, is_own };
        Ok((part, validator))
    }

    /// From here on it is what its server tells by this, as far as it is kept; without that, or where it
    /// cannot be written down, it is of no use to anybody else.
    pub fn vouch(&mut self, validator: Option<&Validator>) {
        let boot = boot_id();
        let text = validator.map(|own| own.text(&boot)).unwrap_or_default();
        let set = file::set_xattr(self.file.as_fd(), VALIDATOR, text.as_bytes());
        self.is_own = validator.is_none() || boot.is_empty() || set.is_err();
    }

    /// One that cannot be written, as on a disk that fails.
    #[cfg(test)]
    pub fn broken(path: &Path) -> Part {
        let file = File::open(path).expect("a file");
        let path = path.to_owned();
        Part { path, file, at_end: false, forgotten: false, is_own: false }
    }

    /// Of what was there; 0: that was all.
    pub fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at_end {
            return Ok(0);
        }
        let read = self.file.read(buffer)?;
        self.at_end = read == 0;
        Ok(read)
    }

    /// Adds at the end.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)
    }

    /// The file is of no use any more.
    pub fn forget(&mut self) {
        if !std::mem::replace(&mut self.forgotten, true) {
            // Gone already, or swept later.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// What was kept of a blob that came whole.
pub struct Kept {
    part: Option<Part>,
    /// It came in a moment.
    is_quick: bool,
}

impl Kept {
    /// All of a blob that came; `is_quick`: it would come again in a moment.
    pub fn new(part: Part, is_quick: bool) -> Kept {
        Kept { part: Some(part), is_quick }
    }

    /// Its content is where it belongs: the file is not needed any more.
    pub fn forget(mut self) {
        self.remove();
    }

    /// Its content waits for the disk only. What would come again in a moment need not be written there
    /// too: what nobody has open any more is not.
    pub fn forget_quick(&mut self) {
        if self.is_quick {
            self.remove();
        }
    }

    fn remove(&mut self) {
        if let Some(mut part) = self.part.take() {
            part.forget();
        }
    }
}
