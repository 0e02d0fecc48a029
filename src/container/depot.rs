//! The depot: one directory per container with all that must be readable without the records.
//!
//! ```text
//! depot/<handle>/container.json   what was asked for, slot, ports, pid; written before anything is made
//! depot/<handle>/container.json.new   the next one, or the one before: nobody reads it
//! depot/<handle>/init/            exit statuses and spools, owned by the container's root (0700)
//! depot/<handle>/init.sock        where pid 1 serves
//! depot/<handle>/peas/<disk>      layers below a pea's disk in the store, and its id; written before it is made
//! depot/<handle>/leaving          empty; its removal has begun
//! depot/<handle>/scratch/         empty; pid 1 builds the root there, in its own mount namespace
//! depot/<handle>/{hosts,resolv.conf,hostname}   an app's, shown read-only inside
//! depot.reserve/<slot>/           what will be a container's, all but its entry; links were made for it
//! depot.port                      the host port that is given next: the next daemon goes on there
//! ```

mod ahead;
mod entry;
mod peas;

pub use entry::{Entry, FORMAT, Glimpse};

use crate::sys::file;
use crate::unit::{Handle, IdMap};
use entry::entry_of;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

/// Says that the removal of a container has begun.
const LEAVING: &str = "leaving";

/// The end of the name of the directory beside the depot's, where slots are that no container has yet.
const RESERVE: &str = ".reserve";

/// The end of the name of the file beside the depot's that says which host port is next.
const PORT: &str = ".port";

/// A container's entry, and the next one before it is in place.
const ENTRY: &str = "container.json";
const NEXT_ENTRY: &str = "container.json.new";

/// Files of a container that are made ahead, and their modes.
const FILES_AHEAD: [(&str, u32); 5] = [
    (ENTRY, 0o600),
    (NEXT_ENTRY, 0o600),
    ("hosts", 0o644),
    ("resolv.conf", 0o644),
    ("hostname", 0o644),
];

/// Where a container's peas are written down.
const PEAS: &str = "peas";

/// The directory that holds all containers' directories.
#[derive(Clone, Debug)]
pub struct Depot {
    dir: PathBuf,
    reserve: PathBuf,
    /// Entries that were read while a daemon starts, which asks for each many times; nobody else writes
    /// them. `None`: every reading is of the file.
    known: Arc<Mutex<Option<BTreeMap<Handle, Entry>>>>,
    port: PathBuf,
}

impl Depot {
    /// Opens the depot, making it (0700) when missing.
    pub fn open(dir: &Path) -> io::Result<Depot> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        let beside = |end: &str| {
            let mut path = dir.as_os_str().to_owned();
            path.push(end);
            PathBuf::from(path)
        };
        Ok(Depot {
            dir: dir.to_owned(),
            reserve: beside(RESERVE),
            port: beside(PORT),
            known: Arc::default(),
        })
    }

    /// From here on each entry is read once, until [`Depot::forget_known`].
    pub fn remember(&self) {
        *self.known() = Some(BTreeMap::new());
    }

    /// From here on every reading is of the file.
    pub fn forget_known(&self) {
        *self.known() = None;
    }

    fn known(&self) -> MutexGuard<'_, Option<BTreeMap<Handle, Entry>>> {
        self.known.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// What was read of this one is not true any more.
    fn unlearn(&self, handle: &Handle) {
        if let Some(known) = &mut *self.known() {
            known.remove(handle);
        }
    }

    /// Writes down which host port is given next. As the entries it is not forced to the disk.
    pub fn note_port(&self, next: u16) -> io::Result<()> {
        // As long as every other: nothing is cut, and one write is whole.
        let text = format!("{next:05}\n");
        let mut options = File::options();
        let options = options.write(true).create(true).truncate(false).mode(0o600);
        options.open(&self.port)?.write_all(text.as_bytes())
    }

    /// What [`Depot::note_port`] has written; `None`: nothing that can be read.
    pub fn noted_port(&self) -> Option<u16> {
        fs::read_to_string(&self.port).ok()?.trim().parse().ok()
    }

    /// The directory of one container.
    pub fn dir(&self, handle: &Handle) -> PathBuf {
        self.dir.join(handle.as_str())
    }

    /// Makes a container's directory and writes its entry. The handle must be free.
    pub fn make(&self, entry: &Entry) -> io::Result<()> {
        let dir = self.dir(&entry.spec.handle);
        fs::DirBuilder::new().mode(0o700).create(&dir)?;
        furnish(&dir, entry.ids())?;
        self.write(entry)
    }

    /// Replaces a container's entry in one step. It is not forced to the disk: a power cut ends
    /// everything that it speaks of but the writable layer, and that one is swept without an entry
    /// too; a daemon that is killed leaves it in the kernel's hands, whole.
    pub fn write(&self, entry: &Entry) -> io::Result<()> {
        let written = self.write_file(entry);
        self.unlearn(&entry.spec.handle);
        written
    }

    fn write_file(&self, entry: &Entry) -> io::Result<()> {
        let dir = self.dir(&entry.spec.handle);
        let text = serde_json::to_vec(entry).map_err(io::Error::other)?;
        let next = dir.join(NEXT_ENTRY);
        empty_file(&next, 0o600)?.write_all(&text)?;
        // They change places, and the entry of before stays as the draft: over one that is replaced by a
        // rename ext4 writes the data to the device at once, which takes longer than all the rest.
        match file::exchange(&next, &dir.join(ENTRY)) {
            // There is none yet, or this file system cannot.
            Err(_) => fs::rename(next, dir.join(ENTRY)),
            Ok(()) => Ok(()),
        }
    }

    /// Reads one container's entry; `None`: the directory or a whole entry is not there.
    /// `Unsupported`: a newer program has written it; `InvalidData`: it is none.
    pub fn read(&self, handle: &Handle) -> io::Result<Option<Entry>> {
        // Held over the reading, so that nothing old is learnt after somebody has written.
        let mut known = self.known();
        let Some(all) = &mut *known else {
            drop(known);
            return self.read_file(handle);
        };
        if let Some(entry) = all.get(handle) {
            return Ok(Some(entry.clone()));
        }
        let entry = self.read_file(handle)?;
        all.extend(entry.iter().map(|entry| (handle.clone(), entry.clone())));
        Ok(entry)
    }

    fn read_file(&self, handle: &Handle) -> io::Result<Option<Entry>> {
        let text = match fs::read(self.dir(handle).join(ENTRY)) {
            Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        entry_of(&text).map(Some)
    }

    /// What can be told of a container whose entry is not for this program.
    pub fn glimpse(&self, handle: &Handle) -> Glimpse {
        let text = fs::read(self.dir(handle).join(ENTRY)).unwrap_or_default();
        let all: Value = serde_json::from_slice(&text).unwrap_or_default();
        let text = |value: &Value| value.as_str().map(str::to_owned);
        Glimpse {
            slot: serde_json::from_value(all["slot"].clone()).ok(),
            ports: serde_json::from_value(all["ports"].clone()).unwrap_or_default(),
            addresses: serde_json::from_value(all["addresses"].clone()).ok(),
            owner: text(&all["spec"]["owner"]).unwrap_or_default(),
            // An app's is not written down.
            is_apps: all["spec"]["posture"].is_null(),
        }
    }

    /// Every container that has a directory, in order of name.
    pub fn list(&self) -> io::Result<Vec<Handle>> {
        let mut handles = Vec::new();
        for item in fs::read_dir(&self.dir)? {
            if let Some(handle) = item?.file_name().to_str().and_then(|name| name.parse().ok()) {
                handles.push(handle);
            }
        }
        handles.sort();
        Ok(handles)
    }

    /// Writes down that a container is about to be removed; one without a directory is gone.
    pub fn mark_leaving(&self, handle: &Handle) -> io::Result<()> {
        match File::create(self.dir(handle).join(LEAVING)) {
            Err(err) if err.kind() != io::ErrorKind::NotFound => Err(err),
            _ => Ok(()),
        }
    }

    /// Whether the removal of a container has begun.
    pub fn is_leaving(&self, handle: &Handle) -> io::Result<bool> {
        self.dir(handle).join(LEAVING).try_exists()
    }

    /// Removes a container's directory; gone already is success. The entry goes first: what is found
    /// half-removed is never taken for a container.
    pub fn remove(&self, handle: &Handle) -> io::Result<()> {
        match fs::remove_file(self.dir(handle).join(ENTRY)) {
            Err(err) if err.kind() != io::ErrorKind::NotFound => return Err(err),
            _ => {}
        }
        self.unlearn(handle);
        crate::sys::fault::point(format_args!("destroy:half-entry"));
        match fs::remove_dir_all(self.dir(handle)) {
            Err(err) if err.kind() != io::ErrorKind::NotFound => Err(err),
            _ => Ok(()),
        }
    }
}

/// Makes the directories in a container's.
fn furnish(dir: &Path, ids: IdMap) -> io::Result<()> {
    fs::DirBuilder::new().mode(0o700).create(dir.join("scratch"))?;
    fs::DirBuilder::new().mode(0o700).create(dir.join("init"))?;
    let root = Some(ids.root());
    std::os::unix::fs::chown(dir.join("init"), root, root)
}

/// A file with nothing in it, to be written: the one that was made ahead, if nobody has, or a new one. None
/// is cut: what comes into a file that was cut to nothing, be it empty before, ext4 writes to the device at
/// once, in case that somebody relies on it.
pub(super) fn empty_file(path: &Path, mode: u32) -> io::Result<File> {
    match File::options().write(true).open(path) {
        Ok(file) if file.metadata()?.len() == 0 => return Ok(file),
        Ok(_) => fs::remove_file(path)?,
        Err(err) if err.kind() == io::ErrorKind::NotFound => {}
        Err(err) => return Err(err),
    }
    File::options().write(true).create_new(true).mode(mode).open(path)
}

#[cfg(test)]
mod tests;
