//! One entry of each kind, made by descriptor below its parent.

use super::archive::{Archive, Entry};
use super::error::UnpackError;
use super::name;
use super::tree::{self, Was};
use super::unpack::{BUFFER, Job};
use crate::sys::at;
use crate::sys::file;
use crate::unit::IdRange;
use std::ffi::CString;
use std::fs::{File, Metadata, Permissions};
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};

/// Most extended attributes of one entry; an inode holds fewer anyway.
const XATTRS_MAX: usize = 64;

impl Job<'_> {
    pub(super) fn directory(
        &mut self,
        above: &[&[u8]],
        name: &[u8],
        entry: &Entry,
    ) -> Result<(), UnpackError> {
        let refused = || refused(entry);
        let owner = self.owner(entry)?;
        let parent = self.tree.parent(above, &entry.path)?;
        let was = match at::make_dir(parent, name, 0o700) {
            Ok(()) => Was::Free,
            Err(err) if err.kind() == io::ErrorKind::AlreadyExists => {
                let was = tree::clear(parent, name, true).map_err(refused())?;
                if was != Was::Directory {
                    at::make_dir(parent, name, 0o700).map_err(refused())?;
                }
                was
            }
            Err(err) => return Err(refused()(err)),
        };
        let dir = file::open_dir(parent.as_fd(), name).map(File::from).map_err(refused())?;
        if was == Was::Whiteout {
            tree::set_opaque(&dir).map_err(refused())?;
        }
        if was == Was::Directory {
            // It may be the one whose time is to be put back: that time is out of date now.
            self.tree.leave(&entry.path)?;
        }
        self.tree.told(&[above, &[name]].concat());
        at::set_owner(&dir, owner.0, owner.1).map_err(refused())?;
        self.attributes(&dir, entry)?;
        dir.set_permissions(Permissions::from_mode(entry.mode))
            .and_then(|()| file::set_times(dir.as_fd(), b".", entry.time))
            .map_err(refused())
    }

    pub(super) fn file<R: Read>(
        &mut self,
        above: &[&[u8]],
        name: &[u8],
        entry: &Entry,
        archive: &mut Archive<R>,
    ) -> Result<(), UnpackError> {
        let refused = || refused(entry);
        let owner = self.owner(entry)?;
        self.count(entry)?;
        let file = self.place(above, name, entry, |dir| file::create_file(dir.as_fd(), name))?;
        match &entry.sparse {
            None => {
                self.copy(archive, &file, entry, 0, entry.size)?;
            }
            Some((segments, size)) => {
                file.set_len(*size).map_err(refused())?;
                for &(offset, len) in segments {
                    self.copy(archive, &file, entry, offset, len)?;
                }
            }
        }
        // Owner before mode: changing it clears setuid.
        at::set_owner(&file, owner.0, owner.1).map_err(refused())?;
        self.attributes(&file, entry)?;
        file.set_permissions(Permissions::from_mode(entry.mode)).map_err(refused())?;
        let parent = self.tree.parent(above, &entry.path)?;
        file::set_times(parent.as_fd(), name, entry.time).map_err(refused())
    }

    /// Makes what is no directory under `name`, in the place of whatever has that name.
    fn place<T>(
        &mut self,
        above: &[&[u8]],
        name: &[u8],
        entry: &Entry,
        make: impl Fn(&File) -> io::Result<T>,
    ) -> Result<T, UnpackError> {
        let parent = self.tree.parent(above, &entry.path)?;
        let made = match make(parent) {
            Err(err) if err.kind() == io::ErrorKind::AlreadyExists => {
                tree::clear(parent, name, false).and_then(|_| make(parent))
            }
            made => made,
        };
        made.map_err(refused(entry))
    }

    /// Copies `len` bytes of the entry's data to `offset`.
    fn copy<R: Read>(
        &mut self,
        archive: &mut Archive<R>,
        file: &File,
        entry: &Entry,
        offset: u64,
        len: u64,
    ) -> Result<(), UnpackError> {
        let mut done = 0;
        while done < len {
            let want = usize::try_from(len - done).unwrap_or(BUFFER).min(BUFFER);
            let n = archive.read_data(&mut self.buffer[..want])?;
            if n == 0 {
                return Err(UnpackError::entry(&entry.path, "has less data than it says"));
            }
            file.write_all_at(&self.buffer[..n], offset + done)
                .map_err(UnpackError::refused(&entry.path, "cannot be written"))?;
            done += n as u64;
        }
        Ok(())
    }

    pub(super) fn symlink(
        &mut self,
        above: &[&[u8]],
        name: &[u8],
        entry: &Entry,
    ) -> Result<(), UnpackError> {
        if entry.link.is_empty() || entry.link.contains(&0) {
            return Err(UnpackError::entry(&entry.path, "is a symlink with no usable target"));
        }
        let owner = self.owner(entry)?;
        let make = |dir: &File| at::make_link(entry.link.as_slice(), dir, name);
        self.place(above, name, entry, make)?;
        let parent = self.tree.parent(above, &entry.path)?;
        own(parent, name, owner, entry).map_err(refused(entry))
    }

    pub(super) fn fifo(
        &mut self,
        above: &[&[u8]],
        name: &[u8],
        entry: &Entry,
    ) -> Result<(), UnpackError> {
        let owner = self.owner(entry)?;
        self.place(above, name, entry, |dir| file::make_fifo(dir.as_fd(), name))?;
        let parent = self.tree.parent(above, &entry.path)?;
        own(parent, name, owner, entry)
            .and_then(|()| file::set_mode_at(parent.as_fd(), name, entry.mode))
            .and_then(|()| file::set_times(parent.as_fd(), name, entry.time))
            .map_err(refused(entry))
    }

    /// A further name for a file of this archive. Owner, mode and time are the file's already.
    pub(super) fn hard_link(
        &mut self,
        above: &[&[u8]],
        name: &[u8],
        entry: &Entry,
    ) -> Result<(), UnpackError> {
        let no = |why: &str| UnpackError::entry(&entry.path, format!("is a hard link {why}"));
        let refused = || UnpackError::refused(&entry.path, "cannot be linked");
        let target =
            name::components(&entry.link).map_err(|why| no(&format!("to a name that {why}")))?;
        let (target_name, target_above) = target.split_last().ok_or_else(|| no("to the root"))?;
        let missing = || no("to something that is not in the archive before it");
        let target_dir = self.tree.find(target_above).map_err(|_| missing())?;
        let node = file::open_node(target_dir.as_fd(), target_name).map_err(|_| missing())?;
        let node = File::from(node);
        let meta = node.metadata().map_err(refused())?;
        if meta.is_dir() || meta.is_symlink() || tree::is_whiteout(&meta) {
            return Err(no("to something that is no file"));
        }
        let parent = self.tree.parent(above, &entry.path)?;
        let linked = match file::link(node.as_fd(), parent.as_fd(), name) {
            Err(err) if err.kind() == io::ErrorKind::AlreadyExists => {
                let there = tree::look(parent, name).map_err(refused())?;
                let itself = same(&parent.metadata().map_err(refused())?, &target_dir)
                    .map_err(refused())?
                    && name == *target_name;
                if itself {
                    return Err(no("to itself"));
                }
                if there.is_some_and(|there| (there.dev(), there.ino()) == (meta.dev(), meta.ino()))
                {
                    return Ok(());
                }
                tree::clear(parent, name, false).map_err(refused())?;
                file::link(node.as_fd(), parent.as_fd(), name)
            }
            other => other,
        };
        linked.map_err(refused())
    }

    /// Sets the extended attributes that may be set.
    fn attributes(&mut self, file: &File, entry: &Entry) -> Result<(), UnpackError> {
        if entry.xattrs.len() > XATTRS_MAX {
            let why = format!("has more than {XATTRS_MAX} extended attributes");
            return Err(UnpackError::entry(&entry.path, why));
        }
        for (name, value) in &entry.xattrs {
            let kept = may_have(name, value, self.options.file_capabilities);
            match CString::new(name.as_slice()) {
                Ok(name) if kept => {
                    file::set_xattr(file.as_fd(), &name, value).map_err(UnpackError::refused(
                        &entry.path,
                        "has an extended attribute that does not fit",
                    ))?
                }
                _ => self.summary.attributes_dropped += 1,
            }
        }
        Ok(())
    }

    /// Who is to own the entry.
    fn owner(&self, entry: &Entry) -> Result<(u32, u32), UnpackError> {
        if let Some(owner) = self.options.owner {
            return Ok(owner);
        }
        let id = |id: u64| u32::try_from(id).ok().filter(|id| *id < IdRange::WIDTH);
        id(entry.uid).zip(id(entry.gid)).ok_or_else(|| {
            let (uid, gid) = (entry.uid, entry.gid);
            let why = format!("belongs to {uid}:{gid}; a container holds ids 0 to 65535");
            UnpackError::entry(&entry.path, why)
        })
    }

    /// Adds the file to the sum, before a byte of it is written.
    fn count(&mut self, entry: &Entry) -> Result<(), UnpackError> {
        let size = entry.sparse.as_ref().map_or(entry.size, |(_, real)| *real);
        self.summary.bytes = self.summary.bytes.saturating_add(size);
        if self.summary.bytes > self.options.max_bytes.get() {
            let why = format!("brings the files to more than {}", self.options.max_bytes);
            return Err(UnpackError::entry(&entry.path, why));
        }
        Ok(())
    }
}

/// Whether a file of a layer may have this extended attribute. Of file capabilities only those that
/// belong to whoever is root: version 2 of `vfs_cap_data`, linux/capability.h. Version 3 names
/// somebody.
pub(super) fn may_have(name: &[u8], value: &[u8], file_capabilities: bool) -> bool {
    /// Length, and the version in the last of its first four bytes.
    const VERSION_2: (usize, Option<&u8>) = (20, Some(&2));
    match name {
        b"security.capability" => file_capabilities && (value.len(), value.get(3)) == VERSION_2,
        _ => name.starts_with(b"user.") && !name.starts_with(b"user.overlay."),
    }
}

/// For `map_err`: the kernel does not let it be made.
fn refused(entry: &Entry) -> impl FnOnce(io::Error) -> UnpackError {
    UnpackError::refused(&entry.path, "cannot be made")
}

/// Owner and time of something that cannot be opened for real.
fn own(parent: &File, name: &[u8], owner: (u32, u32), entry: &Entry) -> io::Result<()> {
    let node = file::open_node(parent.as_fd(), name)?;
    at::set_owner(&node, owner.0, owner.1)?;
    file::set_times(parent.as_fd(), name, entry.time)
}

/// Whether `dir` is the inode with `meta`.
fn same(meta: &Metadata, dir: &File) -> io::Result<bool> {
    let other = dir.metadata()?;
    Ok((meta.dev(), meta.ino()) == (other.dev(), other.ino()))
}
