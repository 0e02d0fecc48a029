//! The layer's directory while it is filled: finds parents and replaces what is in the way, by
//! descriptor only. The archive cannot lead it outside: every path goes through
//! [`file::open_dir_in_root`], every name below it is a single component.

use super::error::UnpackError;
use super::held::Held;
use crate::sys::at;
use crate::sys::file::{self, FileTime};
use std::collections::BTreeSet;
use std::fs::{self, File, Metadata, Permissions};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};

/// Overlay's mark of a directory that hides the one below it.
pub const OPAQUE: &std::ffi::CStr = c"trusted.overlay.opaque";
/// Deepest tree that is removed when something else takes its place. Paths are shorter than this;
/// only symlinks can build something deeper.
const REMOVE_DEPTH_MAX: usize = 300;

/// Most directories that an archive may leave out: one short entry can bring a hundred of them.
const IMPLIED_MAX: usize = 100_000;
/// Bytes that one takes beside its text as long as it is remembered.
const PATH: usize = 96;

/// A directory tree that only grows through this.
pub struct Tree {
    root: File,
    /// Who owns parents that the archive does not mention.
    owner: (u32, u32),
    /// The directory that was used last. Archives keep neighbours together, so most entries cost
    /// no lookup; and its time can be put back once, when the walk leaves it.
    last: Option<Parent>,
    /// Directories that were made because something is in them, by path.
    implied: BTreeSet<Vec<u8>>,
    /// Memory for them.
    held: Held,
    /// How many were made so, whatever the archive said of them later.
    made: usize,
}

/// An open directory with the time that it is to keep.
struct Parent {
    path: Vec<u8>,
    dir: File,
    time: FileTime,
}

/// What was at a name before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Was {
    /// Nothing, or something that is gone now.
    Free,
    /// A whiteout, gone now: a directory in its place must stay opaque.
    Whiteout,
    /// A directory, still there.
    Directory,
}

impl Tree {
    /// Starts below `root`, an open directory.
    pub fn new(root: File, owner: (u32, u32)) -> Tree {
        let (implied, held) = (BTreeSet::new(), Held::default());
        Tree { root, owner, last: None, implied, held, made: 0 }
    }

    /// The archive says itself what the directory at `path` is.
    pub fn told(&mut self, path: &[&[u8]]) {
        if !self.implied.is_empty()
            && let Some(path) = self.implied.take(&joined(path))
        {
            self.held.give_back(path.len() + PATH);
        }
    }

    /// Directories of which the archive says nothing but that something is in them, and the memory for
    /// them.
    pub fn implied(self) -> (Vec<Vec<u8>>, Held) {
        (self.implied.into_iter().collect(), self.held)
    }

    /// The root itself.
    pub fn root(&self) -> &File {
        &self.root
    }

    /// The directory with the components `parts`, made if it is not there. `entry` is for errors.
    pub fn parent(&mut self, parts: &[&[u8]], entry: &[u8]) -> Result<&File, UnpackError> {
        let path = joined(parts);
        if self.last.as_ref().is_none_or(|last| last.path != path) {
            self.leave(entry)?;
            let dir = match file::open_dir_in_root(self.root.as_fd(), &path) {
                Ok(dir) => File::from(dir),
                Err(err) if is_missing(&err) => self.make_parents(parts, entry)?,
                Err(err) => return Err(UnpackError::refused(entry, "has no usable parent")(err)),
            };
            let meta = dir.metadata().map_err(UnpackError::refused(entry, "cannot be placed"))?;
            self.last = Some(Parent { path, dir, time: time_of(&meta) });
        }
        Ok(&self.last.as_ref().expect("set just now").dir)
    }

    /// Puts back the time of the directory that was used last, which new names in it have changed.
    pub fn leave(&mut self, entry: &[u8]) -> Result<(), UnpackError> {
        let Some(last) = self.last.take() else { return Ok(()) };
        file::set_times(last.dir.as_fd(), b".", last.time)
            .map_err(UnpackError::refused(entry, "cannot be left"))
    }

    /// The path of the directory `parts` from the root, through no symlink, with a `/` after it unless
    /// it is the root itself. The directory is made if it is not there.
    pub fn real_path(&mut self, parts: &[&[u8]], entry: &[u8]) -> Result<Vec<u8>, UnpackError> {
        let of = |dir: &File| fs::read_link(format!("/proc/self/fd/{}", dir.as_raw_fd()));
        let refused = || UnpackError::refused(entry, "cannot be placed");
        let whole = of(self.parent(parts, entry)?).map_err(refused())?;
        let root = of(&self.root).map_err(refused())?;
        let path = whole.strip_prefix(root).map_err(io::Error::other).map_err(refused())?;
        let mut path = path.as_os_str().as_bytes().to_vec();
        if !path.is_empty() {
            path.push(b'/');
        }
        Ok(path)
    }

    /// An existing directory, without making anything; for targets of hard links.
    pub fn find(&self, parts: &[&[u8]]) -> io::Result<File> {
        file::open_dir_in_root(self.root.as_fd(), &joined(parts)).map(File::from)
    }

    /// Makes the missing ones of `parts`, 0755.
    fn make_parents(&mut self, parts: &[&[u8]], entry: &[u8]) -> Result<File, UnpackError> {
        let refused = || UnpackError::refused(entry, "cannot get a parent directory");
        let mut above =
            File::from(file::open_dir_in_root(self.root.as_fd(), b".").map_err(refused())?);
        for (at, name) in parts.iter().enumerate() {
            let so_far = joined(&parts[..=at]);
            above = match file::open_dir_in_root(self.root.as_fd(), &so_far) {
                Ok(dir) => File::from(dir),
                Err(err) if is_missing(&err) => {
                    self.count_implied(so_far.len(), entry)?;
                    let made = self.make_parent(&above, name, entry)?;
                    self.implied.insert(so_far);
                    made
                }
                Err(err) => return Err(refused()(err)),
            };
        }
        Ok(above)
    }

    /// One more that the archive does not mention.
    fn count_implied(&mut self, bytes: usize, entry: &[u8]) -> Result<(), UnpackError> {
        self.made += 1;
        if self.made > IMPLIED_MAX {
            let why = "needs more parent directories that the archive does not have than are made";
            return Err(UnpackError::entry(entry, why));
        }
        match self.held.take(bytes + PATH) {
            true => Ok(()),
            false => Err(UnpackError::no_memory("").at(entry)),
        }
    }

    /// Makes the directory `name`, where there is nothing, or a whiteout whose place it takes.
    fn make_parent(&self, above: &File, name: &[u8], entry: &[u8]) -> Result<File, UnpackError> {
        let refused = || UnpackError::refused(entry, "cannot get a parent directory");
        let kept = time_of(&above.metadata().map_err(refused())?);
        let hidden = match look(above, name).map_err(refused())? {
            None => false,
            Some(meta) if is_whiteout(&meta) => {
                at::remove(above, name).map_err(refused())?;
                true
            }
            // A symlink is followed by the kernel, inside; it got here because it leads nowhere.
            Some(meta) if meta.is_symlink() => {
                return Err(UnpackError::entry(entry, "lies below a symlink that leads nowhere"));
            }
            Some(_) => {
                return Err(UnpackError::entry(entry, "lies below something that is no directory"));
            }
        };
        let make = || {
            at::make_dir(above, name, 0o755)?;
            let dir = File::from(file::open_dir(above.as_fd(), name)?);
            let is = at::stat(&dir)?;
            if (is.uid, is.gid) != self.owner {
                at::set_owner(&dir, self.owner.0, self.owner.1)?;
            }
            if is.mode != 0o755 {
                dir.set_permissions(Permissions::from_mode(0o755))?;
            }
            if hidden {
                set_opaque(&dir)?;
            }
            file::set_times(above.as_fd(), b".", kept)?;
            Ok(dir)
        };
        make().map_err(refused())
    }
}

/// Removes what is at `name`, unless it is a directory and `keep_directory`.
pub fn clear(dir: &File, name: &[u8], keep_directory: bool) -> io::Result<Was> {
    match look(dir, name)? {
        None => Ok(Was::Free),
        Some(meta) if meta.is_dir() && keep_directory => Ok(Was::Directory),
        Some(meta) if meta.is_dir() => remove_tree(dir, name).map(|()| Was::Free),
        Some(meta) => {
            at::remove(dir, name)?;
            Ok(if is_whiteout(&meta) { Was::Whiteout } else { Was::Free })
        }
    }
}

/// What is at `name`, a symlink itself; `None`: nothing.
pub fn look(dir: &File, name: &[u8]) -> io::Result<Option<Metadata>> {
    match file::open_node(dir.as_fd(), name) {
        Ok(node) => File::from(node).metadata().map(Some),
        Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(err) => Err(err),
    }
}

/// Lets a directory hide what the layers below have in it.
pub fn set_opaque(dir: &File) -> io::Result<()> {
    file::set_xattr(dir.as_fd(), OPAQUE, b"y")
}

/// Whether it is a whiteout. No archive can bring a device, so all devices here are ours.
pub(super) fn is_whiteout(meta: &Metadata) -> bool {
    meta.file_type().is_char_device() && meta.rdev() == 0
}

/// Removes everything that is in a directory, following nothing.
pub fn empty(dir: &File) -> io::Result<()> {
    loop {
        let names = file::first_names(dir.as_fd())?;
        if names.is_empty() {
            return Ok(());
        }
        for name in names {
            clear(dir, &name, false)?;
        }
    }
}

/// Removes a directory with all that is in it, following nothing.
fn remove_tree(dir: &File, name: &[u8]) -> io::Result<()> {
    let mut open = vec![(File::from(file::open_dir(dir.as_fd(), name)?), name.to_vec())];
    while let Some((top, _)) = open.last() {
        let names = file::first_names(top.as_fd())?;
        if names.is_empty() {
            let (_, name) = open.pop().expect("there is a top");
            let above = open.last().map_or(dir, |(above, _)| above);
            file::remove_dir(above.as_fd(), &name)?;
            continue;
        }
        let mut down = None;
        for name in names {
            match at::remove(top, name.as_slice()) {
                Err(err) if err.kind() == io::ErrorKind::IsADirectory => {
                    down = Some((File::from(file::open_dir(top.as_fd(), &name)?), name));
                    break;
                }
                other => other?,
            }
        }
        open.extend(down);
        if open.len() > REMOVE_DEPTH_MAX {
            return Err(io::Error::other("a directory in the way is too deep to remove"));
        }
    }
    Ok(())
}

/// No such file, or a file in place of a directory.
fn is_missing(err: &io::Error) -> bool {
    matches!(err.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// Components as the kernel takes them; `.` for none.
fn joined(parts: &[&[u8]]) -> Vec<u8> {
    if parts.is_empty() { b".".to_vec() } else { parts.join(&b'/') }
}

pub(super) fn time_of(meta: &Metadata) -> FileTime {
    FileTime { seconds: meta.mtime(), nanos: meta.mtime_nsec() as u32 }
}
