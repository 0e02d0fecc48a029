//! A directory tree as a tar stream, always the same for the same tree.
//!
//! Order: by name, a directory before what is in it. Kept: contents, permission bits (without
//! setuid and setgid), times of change, symbolic links as they are, several names of one file.
//! Left out: sockets, fifos and devices. Holes are filled: a file has its whole length in the
//! stream. No link is ever followed on the way.
//!
//! [`Packer::like_tar`] writes what Garden's clients expect of tar instead: owners, all mode bits and
//! fifos too, names as they are given, and a file that grows meanwhile as far as it went.

use super::error::LifecycleError;
use super::walk::{Item, Walk};
use crate::sys::beneath;
use crate::unit::Digest;
use sha2::{Digest as _, Sha256};
use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{File, Metadata};
use std::io::{self, BufWriter, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use tar::{EntryType, Header};
use wrap::{Counted, Exact, Hasher};

mod wrap;

/// Permission bits that travel: never setuid or setgid.
pub(super) const MODE_MASK: u32 = 0o1777;

/// Files with several names whose first one is remembered; the names of further ones are files of
/// their own in the stream.
const SEEN_MAX: usize = 65_536;

/// Writes the tree in `dir` to `out`, owned by root; `exclude` names are left out at its top.
/// Returns the length of the stream in bytes.
///
/// Errors: `Changed` when a file grew, shrank or went away meanwhile: the stream then lacks its
/// end mark, so that its reader fails too.
pub fn pack_dir(dir: &Path, exclude: &[String], out: impl Write) -> Result<u64, LifecycleError> {
    let mut packer = Packer::new(out, 0, Times::Kept);
    packer.tree(dir, Path::new(""), exclude)?;
    packer.finish().map(|(_, bytes)| bytes)
}

/// The digest of the stream of [`pack_dir`] with all times set to 0: names, contents, modes and
/// links count, a `touch` or a fresh checkout of the same files does not.
pub fn tree_digest(dir: &Path, exclude: &[String]) -> Result<Digest, LifecycleError> {
    let mut packer = Packer::new(Hasher(Sha256::new()), 0, Times::All(0));
    packer.tree(dir, Path::new(""), exclude)?;
    packer.finish().map(|(Hasher(hash), _)| Digest::finish(hash))
}

/// The digest of what is in one file.
pub fn file_digest(file: &Path) -> Result<Digest, LifecycleError> {
    let mut hash = Hasher(Sha256::new());
    let opened = File::open(file).map_err(LifecycleError::file("open", file))?;
    io::copy(&mut io::BufReader::new(opened), &mut hash)
        .map_err(LifecycleError::file("read", file))?;
    Ok(Digest::finish(hash.0))
}

/// Which times a stream has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Times {
    /// Those of the files; 0 for what is no file.
    Kept,
    /// This one, in seconds since 1970.
    All(u64),
}

/// What is written of each file.
#[derive(Clone, Copy)]
enum Style {
    /// The same for the same tree: one owner.
    Same { owner: u64, times: Times },
    /// As tar has it.
    Tar,
}

/// A tar stream under construction.
pub(super) struct Packer<W: Write> {
    tar: tar::Builder<Counted<BufWriter<W>>>,
    style: Style,
    /// First name of each file that has several, by device and inode.
    seen: HashMap<(u64, u64), PathBuf>,
}

impl<W: Write> Packer<W> {
    /// Everything belongs to user and group `owner`.
    pub(super) fn new(out: W, owner: u32, times: Times) -> Packer<W> {
        Packer::with(out, Style::Same { owner: owner.into(), times })
    }

    /// Files are described as they are.
    pub(super) fn like_tar(out: W) -> Packer<W> {
        Packer::with(out, Style::Tar)
    }

    fn with(out: W, style: Style) -> Packer<W> {
        let out = Counted { out: BufWriter::with_capacity(64 * 1024, out), bytes: 0, torn: false };
        Packer { tar: tar::Builder::new(out), style, seen: HashMap::new() }
    }

    /// A directory that need not exist anywhere.
    pub(super) fn dir(&mut self, name: &Path) -> Result<(), LifecycleError> {
        let header = self.header(EntryType::Directory, 0o755, None);
        self.put(header, name, None, io::empty())
    }

    /// A file from memory.
    pub(super) fn file(&mut self, name: &Path, bytes: &[u8]) -> Result<(), LifecycleError> {
        let mut header = self.header(EntryType::Regular, 0o644, None);
        header.set_size(bytes.len() as u64);
        self.put(header, name, None, bytes)
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
        loop {
            let item = match walk.step() {
                Ok(Some(item)) => item,
                Ok(None) => return Ok(()),
                Err(LifecycleError::Changed { .. }) if self.is_like_tar() => continue,
                Err(err) => return Err(err),
            };
            let name = prefix.join(&item.path);
            self.one(&name, &item, || walk.open(&item))?;
        }
    }

    /// One file, directory or link under `name`; `open` opens it for reading, if it is a file. What
    /// is of a kind that is left out is an error.
    pub(super) fn item(
        &mut self,
        name: &Path,
        item: &Item,
        open: impl FnOnce() -> Result<File, LifecycleError>,
    ) -> Result<(), LifecycleError> {
        let written = self.one(name, item, open).and_then(|written| {
            let why = || io::Error::other("it is no file, directory, link or fifo");
            written.then_some(()).ok_or_else(|| LifecycleError::file("pack", &item.here)(why()))
        });
        self.tar.get_mut().torn |= written.is_err();
        written
    }

    fn one(
        &mut self,
        name: &Path,
        item: &Item,
        open: impl FnOnce() -> Result<File, LifecycleError>,
    ) -> Result<bool, LifecycleError> {
        let Item { here, held, meta, .. } = item;
        if meta.is_dir() {
            let header = self.header(EntryType::Directory, meta.mode(), Some(meta));
            self.put(header, name, None, io::empty())?;
        } else if self.known(meta, name)? {
            // Written as one more name of a file that is in the stream.
        } else if meta.is_symlink() {
            let target = beneath::read_link(held.as_fd());
            let target = target.map_err(LifecycleError::file("read", here))?;
            let header = self.header(EntryType::Symlink, 0o777, Some(meta));
            self.put(header, name, Some(&target), io::empty())?;
        } else if meta.is_file() {
            match open() {
                // Gone meanwhile.
                Err(LifecycleError::Changed { .. }) if self.is_like_tar() => {}
                file => self.contents(file?, name, here)?,
            }
        } else if meta.file_type().is_fifo() && self.is_like_tar() {
            let header = self.header(EntryType::Fifo, meta.mode(), Some(meta));
            self.put(header, name, None, io::empty())?;
        } else {
            return Ok(false);
        }
        Ok(true)
    }

    fn is_like_tar(&self) -> bool {
        matches!(self.style, Style::Tar)
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
        let mut header = self.header(EntryType::Regular, before.mode(), Some(&before));
        header.set_size(before.len());
        let mut exact = Exact { file: &file, left: before.len(), failure: None, short: false };
        self.put(header, name, None, &mut exact)?;
        if let Some(source) = exact.failure {
            return Err(LifecycleError::File { doing: "read", path: here.to_owned(), source });
        }
        let after = look()?;
        let state = |meta: &Metadata| (meta.len(), meta.mtime(), meta.mtime_nsec());
        // Whoever streams out of a container that runs gets its logs as far as they went.
        if exact.short || !self.is_like_tar() && state(&before) != state(&after) {
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
            if self.seen.len() < SEEN_MAX {
                self.seen.insert((meta.dev(), meta.ino()), name.to_owned());
            }
            return Ok(false);
        };
        let header = self.header(EntryType::Link, meta.mode(), Some(meta));
        self.put(header, name, Some(first.as_os_str()), io::empty())?;
        Ok(true)
    }

    /// The header of a file that may exist nowhere.
    fn header(&self, kind: EntryType, mode: u32, of: Option<&Metadata>) -> Header {
        // Before 1970 is 0: the field has no sign.
        let mtime_s = of.map_or(0, MetadataExt::mtime).try_into().unwrap_or(0);
        let (mode, user, group, mtime_s) = match (self.style, of) {
            (Style::Tar, Some(of)) => (mode & 0o7777, of.uid().into(), of.gid().into(), mtime_s),
            (Style::Tar, None) => (mode, 0, 0, 0),
            (Style::Same { owner, times }, _) => {
                let mtime_s = if let Times::All(time_s) = times { time_s } else { mtime_s };
                (mode & MODE_MASK, owner, owner, mtime_s)
            }
        };
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(user);
        header.set_gid(group);
        header.set_size(0);
        header.set_mtime(mtime_s);
        header
    }

    /// Writes one entry.
    fn put(
        &mut self,
        mut header: Header,
        name: &Path,
        link: Option<&OsStr>,
        data: impl Read,
    ) -> Result<(), LifecycleError> {
        if self.is_like_tar() {
            return self.put_as_named(header, name, link, data);
        }
        self.write(|tar| match link {
            Some(link) => tar.append_link(&mut header, name, link),
            None => tar.append_data(&mut header, name, data),
        })
    }

    /// The same with the very name that is given; a directory's ends with `/`. The crate would
    /// leave out `./`.
    fn put_as_named(
        &mut self,
        mut header: Header,
        name: &Path,
        link: Option<&OsStr>,
        data: impl Read,
    ) -> Result<(), LifecycleError> {
        let mut name = name.as_os_str().as_bytes().to_vec();
        if header.entry_type().is_dir() && !name.ends_with(b"/") {
            name.push(b'/');
        }
        let link = link.unwrap_or_default().as_bytes();
        for (kind, text) in [(b'L', &*name), (b'K', link)] {
            let room = header.as_old().name.len();
            if text.len() > room {
                let mut long = Header::new_gnu();
                long.set_entry_type(EntryType::new(kind));
                long.as_old_mut().name[..13].copy_from_slice(b"././@LongLink");
                long.set_mode(0o644);
                long.set_size(text.len() as u64 + 1);
                long.set_cksum();
                self.write(|tar| tar.append(&long, text.chain(&b"\0"[..])))?;
            }
            let old = header.as_old_mut();
            let field = if kind == b'L' { &mut old.name } else { &mut old.linkname };
            let fits = text.len().min(room);
            field[..fits].copy_from_slice(&text[..fits]);
        }
        header.set_cksum();
        self.write(|tar| tar.append(&header, data))
    }

    fn write(
        &mut self,
        step: impl FnOnce(&mut tar::Builder<Counted<BufWriter<W>>>) -> io::Result<()>,
    ) -> Result<(), LifecycleError> {
        step(&mut self.tar).map_err(|source| LifecycleError::Stream { doing: "write", source })
    }
}
