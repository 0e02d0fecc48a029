//! A directory tree as a tar stream, always the same for the same tree.
//!
//! Order: by name, a directory before what is in it. Kept: contents, permission bits (without
//! setuid and setgid), times of change, symbolic links as they are, several names of one file.
//! Left out: sockets, fifos and devices. Holes are filled: a file has its whole length in the
//! stream. No link is ever followed on the way.

use super::error::LifecycleError;
use super::walk::{Item, Walk};
use crate::sys::beneath;
use crate::unit::Digest;
use sha2::{Digest as _, Sha256};
use std::collections::HashMap;
use std::fs::{File, Metadata};
use std::io::{self, BufWriter, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use tar::{EntryType, Header};

/// Permission bits that travel: never setuid or setgid.
pub(super) const MODE_MASK: u32 = 0o1777;

/// Writes the tree in `dir` to `out`, owned by root; `exclude` names are left out at its top.
/// Returns the length of the stream in bytes.
///
/// Errors: `Changed` when a file grew, shrank or went away meanwhile: the stream then lacks its
/// end mark, so that its reader fails too.
pub fn pack_dir(dir: &Path, exclude: &[String], out: impl Write) -> Result<u64, LifecycleError> {
    let mut packer = Packer::new(out, 0, true);
    packer.tree(dir, Path::new(""), exclude)?;
    packer.finish().map(|(_, bytes)| bytes)
}

/// The digest of the stream of [`pack_dir`] with all times set to 0: names, contents, modes and
/// links count, a `touch` or a fresh checkout of the same files does not.
pub fn tree_digest(dir: &Path, exclude: &[String]) -> Result<Digest, LifecycleError> {
    let mut packer = Packer::new(Hasher(Sha256::new()), 0, false);
    packer.tree(dir, Path::new(""), exclude)?;
    packer.finish().map(|(Hasher(hash), _)| Digest::finish(hash))
}

struct Hasher(Sha256);

impl Write for Hasher {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Counts what passes, and lets nothing pass any more once torn.
struct Counted<W> {
    out: W,
    bytes: u64,
    /// After an error: without this, the builder would write the end mark when it is dropped, and
    /// the reader would take half a tree for a whole one.
    torn: bool,
}

impl<W: Write> Write for Counted<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.torn {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let written = self.out.write(bytes)?;
        self.bytes += written as u64;
        Ok(written)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// A tar stream under construction.
pub(super) struct Packer<W: Write> {
    tar: tar::Builder<Counted<BufWriter<W>>>,
    owner: u64,
    times: bool,
    /// First name of each file that has several, by device and inode.
    seen: HashMap<(u64, u64), PathBuf>,
}

impl<W: Write> Packer<W> {
    /// Everything belongs to user and group `owner`; without `times` every time is 0.
    pub(super) fn new(out: W, owner: u32, times: bool) -> Packer<W> {
        let out = Counted { out: BufWriter::with_capacity(64 * 1024, out), bytes: 0, torn: false };
        let tar = tar::Builder::new(out);
        Packer { tar, owner: owner.into(), times, seen: HashMap::new() }
    }

    /// A directory that need not exist anywhere, with time 0.
    pub(super) fn dir(&mut self, name: &Path) -> Result<(), LifecycleError> {
        let mut header = self.header(EntryType::Directory, 0o755, 0);
        self.write(|tar| tar.append_data(&mut header, name, io::empty()))
    }

    /// A file from memory, with time 0.
    pub(super) fn file(&mut self, name: &Path, bytes: &[u8]) -> Result<(), LifecycleError> {
        let mut header = self.header(EntryType::Regular, 0o644, 0);
        header.set_size(bytes.len() as u64);
        self.write(|tar| tar.append_data(&mut header, name, bytes))
    }

    /// What is in `dir` (not `dir` itself), under `prefix`.
    pub(super) fn tree(
        &mut self,
        dir: &Path,
        prefix: &Path,
        exclude: &[String],
    ) -> Result<(), LifecycleError> {
        let walked = self.walk(dir, prefix, exclude);
        self.tar.get_mut().torn |= walked.is_err();
        walked
    }

    fn walk(
        &mut self,
        dir: &Path,
        prefix: &Path,
        exclude: &[String],
    ) -> Result<(), LifecycleError> {
        let mut walk = Walk::begin(dir, exclude)?;
        while let Some(item) = walk.step()? {
            let Item { path, here, held, meta } = &item;
            let name = prefix.join(path);
            if meta.is_dir() {
                let mut header = self.header(EntryType::Directory, meta.mode(), meta.mtime());
                self.write(|tar| tar.append_data(&mut header, &name, io::empty()))?;
            } else if self.known(meta, &name)? {
                // Written as one more name of a file that is in the stream.
            } else if meta.is_symlink() {
                let target = beneath::read_link(held.as_fd());
                let target = target.map_err(LifecycleError::file("read", here))?;
                let mut header = self.header(EntryType::Symlink, 0o777, meta.mtime());
                self.write(|tar| tar.append_link(&mut header, &name, &target))?;
            } else if meta.is_file() {
                let file = walk.open(&item)?;
                self.contents(file, &name, here)?;
            }
        }
        Ok(())
    }

    /// Ends the stream; returns the writer and the stream's length in bytes.
    pub(super) fn finish(self) -> Result<(W, u64), LifecycleError> {
        let broken = |source| LifecycleError::Stream { doing: "write", source };
        let Counted { out, bytes, .. } = self.tar.into_inner().map_err(broken)?;
        let out = out.into_inner().map_err(|err| broken(err.into_error()))?;
        Ok((out, bytes))
    }

    /// A regular file. When it turns out shorter or longer than it said, the entry still has the
    /// announced length and the error comes behind it.
    fn contents(&mut self, file: File, name: &Path, here: &Path) -> Result<(), LifecycleError> {
        let look = || file.metadata().map_err(LifecycleError::file("look at", here));
        let before = look()?;
        if !before.is_file() {
            return Err(LifecycleError::Changed { path: here.to_owned() });
        }
        let mut header = self.header(EntryType::Regular, before.mode(), before.mtime());
        header.set_size(before.len());
        let mut exact = Exact { file: &file, left: before.len(), failure: None };
        self.write(|tar| tar.append_data(&mut header, name, &mut exact))?;
        if let Some(source) = exact.failure {
            return Err(LifecycleError::File { doing: "read", path: here.to_owned(), source });
        }
        let after = look()?;
        let state = |meta: &Metadata| (meta.len(), meta.mtime(), meta.mtime_nsec());
        if state(&before) != state(&after) {
            return Err(LifecycleError::Changed { path: here.to_owned() });
        }
        Ok(())
    }

    /// Whether this is one more name of a file that is in the stream; writes it then.
    fn known(&mut self, meta: &Metadata, name: &Path) -> Result<bool, LifecycleError> {
        if meta.nlink() < 2 || !(meta.is_file() || meta.is_symlink()) {
            return Ok(false);
        }
        let Some(first) = self.seen.get(&(meta.dev(), meta.ino())).cloned() else {
            self.seen.insert((meta.dev(), meta.ino()), name.to_owned());
            return Ok(false);
        };
        let mut header = self.header(EntryType::Link, meta.mode(), meta.mtime());
        self.write(|tar| tar.append_link(&mut header, name, &first))?;
        Ok(true)
    }

    fn header(&self, kind: EntryType, mode: u32, mtime_s: i64) -> Header {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode & MODE_MASK);
        header.set_uid(self.owner);
        header.set_gid(self.owner);
        header.set_size(0);
        // Before 1970 is 0: the field has no sign.
        header.set_mtime(if self.times { mtime_s.try_into().unwrap_or(0) } else { 0 });
        header
    }

    fn write(
        &mut self,
        step: impl FnOnce(&mut tar::Builder<Counted<BufWriter<W>>>) -> io::Result<()>,
    ) -> Result<(), LifecycleError> {
        step(&mut self.tar).map_err(|source| LifecycleError::Stream { doing: "write", source })
    }
}

/// Gives exactly `left` bytes: a file's own, then zeros when it is too short or cannot be read.
struct Exact<'a> {
    file: &'a File,
    left: u64,
    failure: Option<io::Error>,
}

impl Read for Exact<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let want = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let buffer = &mut buffer[..want];
        let got = match self.failure.is_some() {
            true => 0,
            false => match self.file.read(buffer) {
                Err(err) if err.kind() == io::ErrorKind::Interrupted => return Err(err),
                Err(err) => {
                    self.failure = Some(err);
                    0
                }
                Ok(got) => got,
            },
        };
        let given = if got == 0 { want } else { got };
        buffer[got..given].fill(0);
        self.left -= given as u64;
        Ok(given)
    }
}
