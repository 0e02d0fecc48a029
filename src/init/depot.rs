//! The files that pid 1 leaves in the depot for whoever comes after it or after the daemon.
//!
//! | name       | content                                                                  |
//! |------------|--------------------------------------------------------------------------|
//! | `ID.out`   | standard output (of a terminal: everything) since nobody was attached     |
//! | `ID.err`   | the same of standard error                                                |
//! | `ID.exit`  | `ExitStatus` as JSON, complete or not there                               |

use super::{Doing, InitError};
use crate::model::process::ExitStatus;
use crate::sys::at::{self, Open, Resolve};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;

/// The container's `init` directory in the depot. It is on the box, out of sight of the container,
/// and belongs to the container's root, as pid 1 does.
pub struct Depot(File);

/// One name in the directory itself, not a link.
const ENTRY: Resolve = Resolve::RESOLVE_BENEATH.union(Resolve::RESOLVE_NO_SYMLINKS);

impl Depot {
    /// Takes the directory.
    pub fn new(dir: &OwnedFd) -> Result<Depot, InitError> {
        // A descriptor of our own, whatever way the daemon opened its.
        let flags = Open::O_RDONLY | Open::O_DIRECTORY;
        let dir = at::open(dir, ".", flags, 0, ENTRY).doing(|| {
            "open the depot's init directory (does it belong to the container's root?)".into()
        })?;
        Ok(Depot(dir.into()))
    }

    /// Opens a spool for adding at its end.
    pub fn spool(&self, name: &str) -> io::Result<File> {
        let flags = Open::O_WRONLY | Open::O_APPEND | Open::O_CREAT;
        Ok(at::open(&self.0, name, flags, 0o600, ENTRY)?.into())
    }

    /// The same when there is none: somebody may be just taking what there is.
    pub fn new_spool(&self, name: &str) -> io::Result<File> {
        let flags = Open::O_WRONLY | Open::O_APPEND | Open::O_CREAT | Open::O_EXCL;
        Ok(at::open(&self.0, name, flags, 0o600, ENTRY)?.into())
    }

    /// Writes how process `id` ended, for who comes when we have ended too. Nothing is forced to the
    /// disk: after a power cut nobody asks, the container is gone; and who waits for the end of a process
    /// would wait for the box's disk, twice, with all that goes on in the container.
    pub fn write_exit(&self, id: &str, status: ExitStatus) -> io::Result<()> {
        let (name, draft) = (format!("{id}.exit"), format!("{id}.exit.new"));
        let flags = Open::O_WRONLY | Open::O_CREAT | Open::O_TRUNC;
        let mut file = File::from(at::open(&self.0, &draft, flags, 0o600, ENTRY)?);
        file.write_all(&serde_json::to_vec(&status)?)?;
        at::rename(&self.0, &draft, &name)
    }

    /// Removes everything of process `id`. What is gone already is as well.
    pub fn forget(&self, id: &str) -> io::Result<()> {
        let mut result = Ok(());
        for end in ["out", "err", "exit"] {
            match at::remove(&self.0, format!("{id}.{end}").as_str()) {
                Err(err) if err.kind() != io::ErrorKind::NotFound => result = Err(err),
                _ => {}
            }
        }
        result
    }
}
