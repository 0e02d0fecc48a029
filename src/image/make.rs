//! One entry of each kind, made by descriptor below its parent.

use super::archive::{Archive, Entry};
use super::error::UnpackError;
use super::tree::{self, Was};
use super::unpack::{BUFFER, Job};
use crate::sys::at;
use crate::sys::file;
use crate::unit::IdRange;
use std::borrow::Cow;
use std::ffi::CString;
use std::fs::{File, Permissions};
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, PermissionsExt};

/// Zeros that become a hole: so many, where a multiple of so many bytes of an entry's data have gone
/// before.
const HOLE: usize = 64 << 10;
static ZEROS: [u8; HOLE] = [0; HOLE];
/// So much of a file goes to the disk while the rest comes: who waits for the whole layer to be there
/// waits for little. Less is not worth the call.
const AHEAD: u64 = 256 << 10;

/// Most extended attributes of one entry; an inode holds fewer anyway.
const XATTRS_MAX: usize = 64;

/// Most bytes of one, with its name, where the blocks of btrfs have 16 KiB, as is usual: what a leaf has
/// less three headers.
const XATTR_MAX: usize = (16 << 10) - 101 - 25 - 30;

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
        let was = match at::make_dir(parent, name, entry.mode & 0o777) {
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
        self.adopt(&dir, owner, entry)?;
        file::set_times(dir.as_fd(), b".", entry.time).map_err(refused())
    }

    /// Owner, attributes and mode of a file or directory that was opened for real.
    fn adopt(&mut self, file: &File, owner: (u32, u32), entry: &Entry) -> Result<(), UnpackError> {
        let refused = || refused(entry);
        // Most have owner and mode already: asking costs less than saying it again.
        let is = at::stat(file).map_err(refused())?;
        // Owner before attributes: changing it clears capabilities.
        if (is.uid, is.gid) != owner {
            at::set_owner(file, owner.0, owner.1).map_err(refused())?;
        }
        self.attributes(file, entry)?;
        match is.mode == entry.mode {
            true => Ok(()),
            false => file.set_permissions(Permissions::from_mode(entry.mode)).map_err(refused()),
        }
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
        let make = |dir: &File| file::create_file_as(dir.as_fd(), name, entry.mode);
        let file = self.place(above, name, entry, make)?;
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
        self.adopt(&file, owner, entry)?;
        file::set_times_of(file.as_fd(), entry.time).map_err(refused())
    }

    /// Makes what is no directory under `name`, in the place of whatever has that name.
    pub(super) fn place<T>(
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

    /// Copies `len` bytes of the entry's data to `offset`, but for zeros: where there are many they
    /// become a hole, so that they take no room, whatever the archive claims of them.
    fn copy<R: Read>(
        &mut self,
        archive: &mut Archive<R>,
        file: &File,
        entry: &Entry,
        offset: u64,
        len: u64,
    ) -> Result<(), UnpackError> {
        let written = || UnpackError::refused(&entry.path, "cannot be written");
        let (mut done, mut end, mut begun) = (0, offset, 0);
        while done < len {
            let want = usize::try_from(len - done).unwrap_or(BUFFER).min(BUFFER);
            // Whole, so that holes are found wherever the stream's pieces end.
            let mut filled = 0;
            while filled < want {
                match archive.read_data(&mut self.buffer[filled..want])? {
                    0 => return Err(UnpackError::entry(&entry.path, "has less data than it says")),
                    n => filled += n,
                }
            }
            for piece in self.buffer[..want].chunks(HOLE) {
                if piece != &ZEROS[..] {
                    file.write_all_at(piece, offset + done).map_err(written())?;
                    end = offset + done + piece.len() as u64;
                }
                done += piece.len() as u64;
            }
            if done - begun >= AHEAD {
                file::begin_to_write(file.as_fd(), offset + begun, done - begun);
                begun = done;
            }
        }
        match end == offset + len {
            true => Ok(()),
            // In a sparse file this may be in the middle of it, which is as long as it gets already.
            false if entry.sparse.is_some() => Ok(()),
            false => file.set_len(offset + len).map_err(written()),
        }
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

    /// Sets the extended attributes that may be set.
    fn attributes(&mut self, file: &File, entry: &Entry) -> Result<(), UnpackError> {
        if entry.xattrs.len() > XATTRS_MAX {
            let why = format!("has more than {XATTRS_MAX} extended attributes");
            return Err(UnpackError::entry(&entry.path, why));
        }
        for (name, value) in &entry.xattrs {
            let value = of_anybody(name, value);
            let kept = may_have(name, &value, self.options.file_capabilities);
            match CString::new(name.as_slice()) {
                Ok(name) if kept => {
                    let set = file::set_xattr(file.as_fd(), &name, &value);
                    let bytes = name.count_bytes() + value.len();
                    set.map_err(|err| unfit(&entry.path, bytes, err))?
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
            let why = format!(
                "belongs to {uid}:{gid}; a container holds ids 0 to 65535: build the image with \
                 another owner (`chown`, `COPY --chown`)"
            );
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
        self.summary.spent.add(size).map_err(UnpackError::refused(&entry.path, "does not fit"))
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

/// File capabilities of version 3 that belong to root itself, as those of version 2, which say the
/// same; everything else as it is.
fn of_anybody<'a>(name: &[u8], value: &'a [u8]) -> Cow<'a, [u8]> {
    match (name, value) {
        (b"security.capability", [flags @ .., 0, 0, 0, 0])
            if (flags.len(), flags[3]) == (20, 3) =>
        {
            Cow::Owned([&flags[..3], &[2], &flags[4..]].concat())
        }
        _ => Cow::Borrowed(value),
    }
}

/// An attribute of so many bytes that cannot be set. btrfs says of one that is too large for it what it
/// says of a disk that is full.
fn unfit(path: &[u8], bytes: usize, err: io::Error) -> UnpackError {
    const WHY: &str = "has an extended attribute that does not fit";
    match err.kind() == io::ErrorKind::StorageFull && bytes > XATTR_MAX {
        true => UnpackError::entry(path, format!("{WHY}: it has {bytes} bytes with its name")),
        false => UnpackError::refused(path, WHY)(err),
    }
}

/// For `map_err`: the kernel does not let it be made.
fn refused(entry: &Entry) -> impl FnOnce(io::Error) -> UnpackError {
    UnpackError::refused(&entry.path, "cannot be made")
}

/// Owner and time of something that cannot be opened for real.
fn own(parent: &File, name: &[u8], owner: (u32, u32), entry: &Entry) -> io::Result<()> {
    let is = at::stat_entry(parent, name)?;
    if (is.uid, is.gid) != owner {
        at::set_link_owner(parent, name, owner.0, owner.1)?;
    }
    file::set_times(parent.as_fd(), name, entry.time)
}
