//! What a process has written while no daemon listened, as pid 1 has kept it in the depot.

use crate::init::proto::SPOOL_MAX;
use crate::sys::at::{self, Open, Resolve};
use std::fs::File;
use std::io::{Read, Take};
use std::path::PathBuf;

/// Most bytes of the line that says how much of a spool was dropped.
const LINE_MAX: u64 = 256;

/// The two spools of one process. They are in the depot until they are taken, or pid 1 forgets the
/// process: a daemon that ends before has lost nothing of them.
#[derive(Clone)]
pub struct Spool {
    dir: PathBuf,
    id: String,
}

impl Spool {
    pub(super) fn new(dir: PathBuf, id: String) -> Spool {
        Spool { dir, id }
    }

    /// What it wrote to stdout and to stderr, at most [`SPOOL_MAX`] bytes each and a line about the
    /// rest; nothing when it is asked again. Blocking.
    pub fn take(&self) -> (Vec<u8>, Vec<u8>) {
        let (out, err) = self.open();
        (all(out), all(err))
    }

    /// The same of one of them. Blocking.
    pub(super) fn take_one(&self, err: bool) -> Vec<u8> {
        all(self.open_one(if err { "err" } else { "out" }))
    }

    /// The same as files that nobody else finds any more. Blocking.
    pub fn open(&self) -> (Option<Take<File>>, Option<Take<File>>) {
        (self.open_one("out"), self.open_one("err"))
    }

    /// Opens and removes one spool file. The directory belongs to the container's root: should one
    /// ever get out of the container, it must not lead us elsewhere, hold us up or fill us up.
    fn open_one(&self, stream: &str) -> Option<Take<File>> {
        let name = format!("{}.{stream}", self.id);
        let flags = Open::O_RDONLY | Open::O_NONBLOCK | Open::O_NOFOLLOW;
        let opened = File::open(&self.dir)
            .and_then(|dir| at::open(&dir, &name, flags, 0, Resolve::RESOLVE_BENEATH));
        let _ = std::fs::remove_file(self.dir.join(name));
        Some(File::from(opened.ok()?).take(SPOOL_MAX + LINE_MAX))
    }
}

/// What is in a spool.
fn all(file: Option<Take<File>>) -> Vec<u8> {
    let mut text = Vec::new();
    // What was read before an error is better than nothing.
    let _ = file.map(|mut file| file.read_to_end(&mut text));
    text
}
