//! What was promised to a disk that no quota group limits, written down on the disk itself: the next
//! daemon finds it there, and it goes with the disk.

use crate::sys::file;
use crate::unit::Bytes;
use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;

/// Attribute of the subvolume's root. Nobody but the host's root sees or sets those of this kind.
const PROMISED: &CStr = c"trusted.terrarium.promised";

/// Writes down what is promised to the disk at `dir`: bytes in decimal, or `none`.
pub fn write(dir: &Path, promised: Option<Bytes>) -> io::Result<()> {
    let dir = File::open(dir)?;
    // Nothing written means nothing promised.
    if promised.is_none() && file::xattr(dir.as_fd(), PROMISED)?.is_none() {
        return Ok(());
    }
    let text = promised.map_or_else(|| "none".to_owned(), |bytes| bytes.get().to_string());
    file::set_xattr(dir.as_fd(), PROMISED, text.as_bytes())
}

/// What was written down for the disk at `dir`. What is no number promises nothing.
pub fn read(dir: &Path) -> io::Result<Option<Bytes>> {
    let value = file::xattr(File::open(dir)?.as_fd(), PROMISED)?;
    let text = value.and_then(|value| String::from_utf8(value).ok());
    Ok(text.and_then(|text| text.parse().ok()).map(Bytes::new))
}
