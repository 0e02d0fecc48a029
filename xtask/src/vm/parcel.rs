//! Files for the guest: an archive on a drive of its own, which the guest unpacks. Through ssh the
//! same bytes would take a software processor minutes.

use super::guest::Guest;
use crate::vm;
use anyhow::{Context, Result};
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

/// Of the drive; sparse. A running guest knows no other.
const SIZE: u64 = 2 << 30;

/// Makes an empty drive, for a guest that is about to boot.
pub fn prepare() -> Result<()> {
    open()?.set_len(SIZE).context("cannot make the drive for the guest's files")
}

/// Puts files and whole directories into the guest, at the paths that they have here: compiled in,
/// tests know them by these.
pub fn send(guest: &Guest, paths: &[PathBuf]) -> Result<()> {
    let file = open()?;
    // Holes where an earlier parcel was.
    file.set_len(0)?;
    let mut archive = tar::Builder::new(BufWriter::new(&file));
    for path in paths {
        append(&mut archive, path).with_context(|| format!("cannot pack {}", path.display()))?;
    }
    archive.into_inner()?.flush()?;
    let mib = file.metadata()?.len().div_ceil(1 << 20);
    file.set_len(SIZE)?;
    // Straight from the drive: what the guest remembers of it may be an earlier parcel.
    let read = format!("dd if=/dev/disk/by-id/virtio-parcel iflag=direct bs=1M count={mib}");
    guest.ok(&format!("{read} status=none | tar --extract --directory=/ --no-same-owner"))
}

fn open() -> Result<File> {
    let path = vm::dir().join("parcel.img");
    File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .with_context(|| format!("cannot open {}", path.display()))
}

fn append<W: Write>(archive: &mut tar::Builder<W>, path: &Path) -> Result<()> {
    let name = path.strip_prefix("/")?;
    match fs::metadata(path)?.is_dir() {
        true => archive.append_dir_all(name, path)?,
        false => archive.append_path_with_name(path, name)?,
    }
    Ok(())
}
