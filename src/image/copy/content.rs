//! What is in a file, and its extended attributes.

use super::{CHANGED, Job, Source};
use crate::image::error::UnpackError;
use crate::image::make::may_have;
use crate::image::unpack::BUFFER;
use crate::sys::file;
use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;

impl Job<'_> {
    /// Copies `len` bytes, leaving holes where there are some.
    pub(super) fn data(&mut self, from: &File, to: &File, len: u64) -> Result<(), UnpackError> {
        let mut offset = 0;
        while offset < len {
            let piece = file::next_data(from.as_fd(), offset);
            let Some((begin, end)) = piece.map_err(self.refused("cannot be read"))? else { break };
            offset = begin;
            while offset < end.min(len) {
                let want = usize::try_from(end.min(len) - offset).unwrap_or(BUFFER).min(BUFFER);
                let read = from.read_at(&mut self.buffer[..want], offset);
                let n = read.map_err(self.refused("cannot be read"))?;
                if n == 0 {
                    return Err(self.error(CHANGED));
                }
                self.will_write(n as u64)?;
                to.write_all_at(&self.buffer[..n], offset)
                    .map_err(self.refused("cannot be written"))?;
                offset += n as u64;
            }
        }
        to.set_len(len).map_err(self.refused("cannot be written"))
    }

    /// Sets the extended attributes that may be set.
    pub(super) fn attributes(&mut self, from: &File, to: &File) -> Result<(), UnpackError> {
        let names = match file::xattr_names(from.as_fd()) {
            Err(err) if err.kind() == io::ErrorKind::Unsupported => return Ok(()),
            other => other.map_err(self.refused("cannot be read"))?,
        };
        for name in names {
            let key = CString::new(name.as_slice()).expect("names are split at NULs");
            let value = file::xattr(from.as_fd(), &key).map_err(self.refused("cannot be read"))?;
            let Some(value) = value else { continue };
            if may_have(&name, &value, true) {
                file::set_xattr(to.as_fd(), &key, &value)
                    .map_err(self.refused("has an extended attribute that does not fit"))?;
            } else if self.source == Source::Box {
                self.summary.attributes_dropped += 1;
            }
        }
        Ok(())
    }
}
