//! The daemon's own program in a form that containers may execute.

use crate::sys;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The binary, and its sealed copy in memory once somebody needed that: some megabytes, which count
/// for the daemon and are shared by all containers.
pub(super) struct OwnProgram {
    path: PathBuf,
    memory: Mutex<Option<Arc<OwnedFd>>>,
}

impl OwnProgram {
    /// The program in this file.
    pub(super) fn new(path: &Path) -> Arc<OwnProgram> {
        Arc::new(OwnProgram { path: path.to_owned(), memory: Mutex::default() })
    }

    /// The sealed copy.
    pub(super) async fn load(self: &Arc<Self>) -> io::Result<Arc<OwnedFd>> {
        if let Some(memory) = &*self.memory() {
            return Ok(memory.clone());
        }
        let own = self.clone();
        smol::unblock(move || own.load_now()).await
    }

    /// The same. Blocking.
    pub(super) fn load_now(&self) -> io::Result<Arc<OwnedFd>> {
        // Held meanwhile: who comes second shall not make another copy.
        let mut memory = self.memory();
        if let Some(memory) = &*memory {
            return Ok(memory.clone());
        }
        let sealed = sys::fd::sealed_program("terrarium", &mut File::open(&self.path)?)?;
        Ok(memory.insert(Arc::new(sealed)).clone())
    }

    fn memory(&self) -> MutexGuard<'_, Option<Arc<OwnedFd>>> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
