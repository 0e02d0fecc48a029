//! From one tree of files to another, by descriptor, never through a name that could lead out of
//! either.
//!
//! | what | of the box ([`Source::Box`]) | of a layer ([`Source::Layer`]) |
//! |---|---|---|
//! | where to | an empty directory | a tree with the layers below, which it changes |
//! | data | copied, holes kept | shared |
//! | whiteouts, opaque directories | are no such thing: devices | carried out |
//! | owner | 0 to 65535, or refused | kept |
//! | devices, sockets | not made, counted | there are none |
//! | extended attributes | as for archives | but overlay's |
//! | mounted below it, subvolumes | stay out; an empty directory | there are none |
//! | changes meanwhile | refused when they are seen | there are none |

mod content;

use super::error::UnpackError;
use super::tree;
use super::unpack::{BUFFER, Summary};
use crate::sys::file::{self, FileTime};
use crate::sys::{at, beneath};
use crate::unit::{Bytes, IdRange};
use crate::volume::Store;
use std::collections::BTreeMap;
use std::fs::{File, Metadata, Permissions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};

/// Files of one tree together, holes included.
const BYTES_MAX: Bytes = Bytes::mib(16 << 10);
/// Entries of one tree, and names in one directory.
const ENTRIES_MAX: u64 = 1_000_000;
/// Deepest tree; two descriptors are open for each level.
const DEPTH_MAX: usize = 256;
/// Room that is made sure of ahead of the copying, and how often we look.
const ROOM: u64 = 16 << 20;
/// What an entry takes in the file system's trees, at most, as a rule.
const ENTRY: u64 = 4 << 10;
/// Said of whatever is not what it was a moment ago.
const CHANGED: &str = "changed while it was read; try again when nobody writes to it";

/// Where the files come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// A directory that somebody on the box has made.
    Box,
    /// A layer of the store.
    Layer,
}

/// Copies all that is in the directory `from` into the directory `to`.
pub(super) fn copy(
    store: &Store,
    source: Source,
    from: &File,
    to: &File,
) -> Result<Summary, UnpackError> {
    let refused = |why| UnpackError::refused(b".", why);
    let meta = from.metadata().map_err(refused("cannot be read"))?;
    let root = to.try_clone().map_err(refused("cannot be made"))?;
    let mut job = Job {
        store,
        source,
        device: meta.dev(),
        root,
        path: Vec::new(),
        links: BTreeMap::new(),
        buffer: vec![0; BUFFER],
        entries: 0,
        written: 0,
        sure_until: 0,
        summary: Summary::default(),
    };
    let [from, to] = [from, to].map(File::try_clone);
    let level = job.enter(
        from.map_err(refused("cannot be read"))?,
        to.map_err(refused("cannot be made"))?,
        &meta,
    )?;
    job.walk(level)?;
    Ok(job.summary)
}

/// A directory that is being copied.
struct Level {
    from: File,
    to: File,
    names: std::vec::IntoIter<Vec<u8>>,
    time: FileTime,
}

/// One copying.
struct Job<'a> {
    store: &'a Store,
    source: Source,
    device: u64,
    root: File,
    /// Components of what is being copied.
    path: Vec<Vec<u8>>,
    /// Where files of several names were put.
    links: BTreeMap<u64, Vec<Vec<u8>>>,
    buffer: Vec<u8>,
    entries: u64,
    written: u64,
    sure_until: u64,
    summary: Summary,
}

impl Job<'_> {
    fn walk(&mut self, root: Level) -> Result<(), UnpackError> {
        let mut levels = vec![root];
        while let Some(level) = levels.last_mut() {
            let Some(name) = level.names.next() else {
                // Only now: everything that was put into it has changed its time.
                let done = file::set_times(level.to.as_fd(), b".", level.time);
                done.map_err(self.refused("cannot be made"))?;
                levels.pop();
                self.path.pop();
                continue;
            };
            self.path.push(name);
            if self.path.len() > DEPTH_MAX {
                return Err(self.error("lies more than 256 directories deep"));
            }
            match self.entry(level)? {
                Some(below) => levels.push(below),
                None => drop(self.path.pop()),
            }
        }
        Ok(())
    }

    /// Copies one entry; a directory is only begun.
    fn entry(&mut self, level: &Level) -> Result<Option<Level>, UnpackError> {
        self.entries += 1;
        if self.entries > ENTRIES_MAX {
            return Err(self.error(format!("is one more than {ENTRIES_MAX} files")));
        }
        self.will_write(ENTRY)?;
        let name = self.path.last().expect("pushed by the walk").clone();
        let held = file::open_node(level.from.as_fd(), &name).map(File::from);
        let held = held.map_err(|err| self.unread(err))?;
        let meta = held.metadata().map_err(self.refused("cannot be read"))?;
        let kind = meta.file_type();
        if self.source == Source::Layer {
            let keep = meta.is_dir();
            tree::clear(&level.to, &name, keep).map_err(self.refused("cannot be replaced"))?;
            if tree::is_whiteout(&meta) {
                return Ok(None);
            }
        }
        if meta.dev() != self.device && self.source == Source::Box {
            return self.foreign(level, &name, &meta).map(|()| None);
        }
        if meta.is_dir() {
            self.summary.made += 1;
            return self.directory(level, &name, &meta).map(Some);
        }
        if meta.nlink() > 1
            && let Some(first) = self.links.get(&meta.ino())
        {
            self.link(level, &name, first).map_err(self.refused("cannot be linked"))?;
        } else if meta.is_file() {
            self.file(level, &name, &meta)?;
        } else if meta.is_symlink() {
            self.symlink(level, &name, &held, &meta)?;
        } else if kind.is_fifo() {
            let owner = self.owner(&meta)?;
            file::make_fifo(level.to.as_fd(), &name)
                .and_then(|()| own(&level.to, &name, owner))
                .and_then(|()| file::set_mode_at(level.to.as_fd(), &name, meta.mode() & 0o7777))
                .and_then(|()| file::set_times(level.to.as_fd(), &name, time_of(&meta)))
                .map_err(self.refused("cannot be made"))?;
        } else {
            self.summary.skipped += 1;
            return Ok(None);
        }
        self.summary.made += 1;
        if meta.nlink() > 1 {
            self.links.entry(meta.ino()).or_insert_with(|| self.path.clone());
        }
        Ok(None)
    }

    /// What another file system shows here: a directory stays, empty, to be mounted on.
    fn foreign(&mut self, level: &Level, name: &[u8], meta: &Metadata) -> Result<(), UnpackError> {
        self.summary.skipped += 1;
        if !meta.is_dir() {
            return Ok(());
        }
        at::make_dir(&level.to, name, 0o755)
            .and_then(|()| own(&level.to, name, (0, 0)))
            .and_then(|()| file::set_mode_at(level.to.as_fd(), name, 0o755))
            .map_err(self.refused("cannot be made"))
    }

    fn directory(
        &mut self,
        level: &Level,
        name: &[u8],
        meta: &Metadata,
    ) -> Result<Level, UnpackError> {
        let from = file::open_dir(level.from.as_fd(), name).map(File::from);
        let from = from.map_err(|err| self.unread(err))?;
        self.same(&from, meta)?;
        match at::make_dir(&level.to, name, 0o700) {
            Err(err) if err.kind() != io::ErrorKind::AlreadyExists => {
                return Err(self.refused("cannot be made")(err));
            }
            _ => {}
        }
        let to = file::open_dir(level.to.as_fd(), name).map(File::from);
        self.enter(from, to.map_err(self.refused("cannot be made"))?, meta)
    }

    /// Gives the directory `to` what `from` has but its entries, and lists these.
    fn enter(&mut self, from: File, to: File, meta: &Metadata) -> Result<Level, UnpackError> {
        let is_opaque =
            || file::xattr(from.as_fd(), tree::OPAQUE).map(|mark| mark.as_deref() == Some(b"y"));
        if self.source == Source::Layer && is_opaque().map_err(self.refused("cannot be read"))? {
            tree::empty(&to).map_err(self.refused("cannot be replaced"))?;
        }
        // The root is root's and open to all: as when it comes in an archive.
        let (owner, mode) = match (self.path.is_empty(), self.source) {
            (true, Source::Box) => ((0, 0), meta.mode() | 0o755),
            _ => (self.owner(meta)?, meta.mode()),
        };
        at::set_owner(&to, owner.0, owner.1).map_err(self.refused("cannot be made"))?;
        self.attributes(&from, &to)?;
        to.set_permissions(Permissions::from_mode(mode & 0o7777))
            .map_err(self.refused("cannot be made"))?;
        let names = beneath::names_at_most(from.as_fd(), ENTRIES_MAX as usize);
        let names = names.map_err(self.refused("cannot be listed"))?;
        let names: Vec<Vec<u8>> = names.into_iter().map(OsStringExt::into_vec).collect();
        Ok(Level { from, to, names: names.into_iter(), time: time_of(meta) })
    }

    fn file(&mut self, level: &Level, name: &[u8], meta: &Metadata) -> Result<(), UnpackError> {
        let owner = self.owner(meta)?;
        self.summary.bytes = self.summary.bytes.saturating_add(meta.len());
        if self.summary.bytes > BYTES_MAX.get() {
            return Err(self.error(format!("brings the files to more than {BYTES_MAX}")));
        }
        let from = file::open_to_read(level.from.as_fd(), name);
        let from = from.map_err(|err| self.unread(err))?;
        self.same(&from, meta)?;
        let to = file::create_file(level.to.as_fd(), name);
        let to = to.map_err(self.refused("cannot be made"))?;
        let shared =
            self.source == Source::Layer && file::share_data(from.as_fd(), to.as_fd()).is_ok();
        if !shared {
            self.data(&from, &to, meta.len())?;
        }
        // Owner before mode and capabilities: changing it clears both.
        at::set_owner(&to, owner.0, owner.1).map_err(self.refused("cannot be made"))?;
        self.attributes(&from, &to)?;
        to.set_permissions(Permissions::from_mode(meta.mode() & 0o7777))
            .and_then(|()| file::set_times(level.to.as_fd(), name, time_of(meta)))
            .map_err(self.refused("cannot be made"))
    }

    fn symlink(
        &mut self,
        level: &Level,
        name: &[u8],
        held: &File,
        meta: &Metadata,
    ) -> Result<(), UnpackError> {
        let owner = self.owner(meta)?;
        let target = beneath::read_link(held.as_fd()).map_err(self.refused("cannot be read"))?;
        at::make_link(target.as_bytes(), &level.to, name)
            .and_then(|()| own(&level.to, name, owner))
            .and_then(|()| file::set_times(level.to.as_fd(), name, time_of(meta)))
            .map_err(self.refused("cannot be made"))
    }

    /// A further name for what was put at the path `first`.
    fn link(&self, level: &Level, name: &[u8], first: &[Vec<u8>]) -> io::Result<()> {
        let (last, above) = first.split_last().expect("no directory has several names");
        let above = if above.is_empty() { b".".to_vec() } else { above.join(&b'/') };
        let dir = file::open_dir_in_root(self.root.as_fd(), &above)?;
        file::link(file::open_node(dir.as_fd(), last)?.as_fd(), level.to.as_fd(), name)
    }

    /// Who is to own it.
    fn owner(&self, meta: &Metadata) -> Result<(u32, u32), UnpackError> {
        let (uid, gid) = (meta.uid(), meta.gid());
        if self.source == Source::Box && uid.max(gid) >= IdRange::WIDTH {
            let why = format!(
                "belongs to {uid}:{gid}; a container holds ids 0 to 65535: change its owner"
            );
            return Err(self.error(why));
        }
        Ok((uid, gid))
    }

    /// Whether what was opened is what was looked at.
    fn same(&self, opened: &File, meta: &Metadata) -> Result<(), UnpackError> {
        let opened = opened.metadata().map_err(self.refused("cannot be read"))?;
        let is = |meta: &Metadata| (meta.dev(), meta.ino(), meta.file_type(), meta.len());
        if is(&opened) == is(meta) { Ok(()) } else { Err(self.error(CHANGED)) }
    }

    /// Makes sure ahead of time that so many more bytes can be written.
    fn will_write(&mut self, bytes: u64) -> Result<(), UnpackError> {
        self.written = self.written.saturating_add(bytes);
        if self.written > self.sure_until {
            let room = self.store.ensure_room(Bytes::new(ROOM)).map_err(io::Error::other);
            room.map_err(self.refused("finds no room"))?;
            self.sure_until = self.written + ROOM / 2;
        }
        Ok(())
    }

    /// It cannot be opened: most likely, it is gone.
    fn unread(&self, err: io::Error) -> UnpackError {
        match err.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => self.error(CHANGED),
            _ => self.refused("cannot be read")(err),
        }
    }

    fn error(&self, why: impl Into<String>) -> UnpackError {
        UnpackError::entry(&self.shown(), why)
    }

    fn refused(&self, why: &'static str) -> impl FnOnce(io::Error) -> UnpackError + use<> {
        UnpackError::refused(&self.shown(), why)
    }

    fn shown(&self) -> Vec<u8> {
        if self.path.is_empty() { b".".to_vec() } else { self.path.join(&b'/') }
    }
}

/// Gives away what was just made and cannot be opened for real.
fn own(dir: &File, name: &[u8], owner: (u32, u32)) -> io::Result<()> {
    at::set_owner(file::open_node(dir.as_fd(), name)?, owner.0, owner.1)
}

fn time_of(meta: &Metadata) -> FileTime {
    FileTime { seconds: meta.mtime(), nanos: meta.mtime_nsec() as u32 }
}
