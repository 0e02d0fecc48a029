//! Directories of slots that no container has yet, and the step by which one becomes a container's.

use super::entry::Entry;
use super::{Depot, ENTRY, FILES_AHEAD, empty_file, furnish};
use crate::unit::{IdMap, Slot};
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::PathBuf;

impl Depot {
    /// The directory of a slot that no container has yet.
    pub fn reserve_dir(&self, slot: Slot) -> PathBuf {
        self.reserve.join(slot.to_string())
    }

    /// Makes that directory, with all that a container's has: it is written down then that something is
    /// about to be made for the slot. What an earlier one has left goes.
    pub fn make_reserve(&self, slot: Slot, ids: IdMap) -> io::Result<()> {
        self.forget_reserve(slot)?;
        let dir = self.reserve_dir(slot);
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir)?;
        furnish(&dir, ids)?;
        // To make a file costs ten times what it costs to write it.
        for (name, mode) in FILES_AHEAD {
            File::options().write(true).create_new(true).mode(mode).open(dir.join(name))?;
        }
        Ok(())
    }

    /// As [`Depot::make`], of the directory of the entry's slot that [`Depot::make_reserve`] has made. In
    /// one step that is the container's, or still the slot's.
    pub fn make_of_reserve(&self, entry: &Entry) -> io::Result<()> {
        let dir = self.reserve_dir(entry.slot);
        let text = serde_json::to_vec(entry).map_err(io::Error::other)?;
        empty_file(&dir.join(ENTRY), 0o600)?.write_all(&text)?;
        fs::rename(dir, self.dir(&entry.spec.handle))
    }

    /// The slots that have such a directory.
    pub fn reserve(&self) -> io::Result<Vec<Slot>> {
        let items = match fs::read_dir(&self.reserve) {
            Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other?,
        };
        let mut slots = Vec::new();
        for item in items {
            let name = item?.file_name();
            let number = name.to_str().and_then(|name| name.parse().ok());
            slots.extend(number.and_then(|number: u32| Slot::new(number).ok()));
        }
        Ok(slots)
    }

    /// Removes such a directory, and what they are in after the last one; gone already is success.
    pub fn forget_reserve(&self, slot: Slot) -> io::Result<()> {
        match fs::remove_dir_all(self.reserve_dir(slot)) {
            Err(err) if err.kind() != io::ErrorKind::NotFound => return Err(err),
            _ => {}
        }
        self.close_reserve();
        Ok(())
    }

    /// Removes what those directories are in, unless there is one. Containers are made of them by a rename,
    /// which leaves the place of the last one empty.
    pub fn close_reserve(&self) {
        let _ = fs::remove_dir(&self.reserve);
    }
}
