//! From a tar stream to a layer directory in overlay form.
//!
//! What the archive says is taken when it is harmless, and refused, with the entry's name, when
//! it is not. The rules, by kind:
//!
//! | entry | what happens |
//! |---|---|
//! | path | leading `/` and `.` say nothing; `..` is refused; resolved as if the directory were `/` |
//! | twice the same path | the last one wins; directories merge |
//! | missing parents | made, 0755 |
//! | `.wh.x`, `.wh..wh..opq` | overlay's own marks, for lower layers only, in whatever order |
//! | hard link | to a file or fifo earlier in this archive; anything else is refused |
//! | symlink | kept as written; never followed out of the directory |
//! | device, socket, unknown | not made, counted |
//! | owner | numeric, 0 to 65535, or refused; or the owner that the caller wants |
//! | mode | all twelve bits; the root directory stays root's and open to all (at least 0755) |
//! | extended attributes | `user.*` but overlay's; all others are dropped: file capabilities too, which do nothing under no_new_privs |
//! | time | kept, for directories too; outside 1970 to 9999 the nearer end |

use super::archive::{Archive, Entry};
pub use super::error::UnpackError;
use super::name::{self, Mark};
use super::tree::{self, Tree, Was};
use super::wire::Kind;
use crate::sys::file;
use crate::unit::{Bytes, IdRange};
use std::ffi::CString;
use std::fs::{File, Metadata, Permissions};
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::Path;

/// Bytes that are read and written at once.
const BUFFER: usize = 128 << 10;
/// Most extended attributes of one entry; an inode holds fewer anyway.
const XATTRS_MAX: usize = 64;

/// How to unpack.
#[derive(Clone, Debug)]
pub struct Options {
    /// Directory below the layer's root that everything goes into and nothing gets out of. Its
    /// last component belongs to `owner`, those above to root.
    pub prefix: Option<&'static str>,
    /// User and group of everything; `None`: as the archive says.
    pub owner: Option<(u32, u32)>,
    /// Whether `.wh.` names are whiteouts, as in image layers, or just names.
    pub whiteouts: bool,
    /// Most bytes that the files may have together, holes included.
    pub max_bytes: Bytes,
    /// Most headers in the archive.
    pub max_entries: u64,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            prefix: None,
            owner: None,
            whiteouts: true,
            max_bytes: Bytes::mib(16 << 10),
            max_entries: 1_000_000,
        }
    }
}

/// What was unpacked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Entries that were made.
    pub made: u64,
    /// Bytes in files.
    pub bytes: u64,
    /// Devices, sockets and unknown things that were not made.
    pub skipped: u64,
    /// Extended attributes that were not set.
    pub attributes_dropped: u64,
    /// The archive hides everything that lies below it. Overlay cannot say that of a root, so
    /// nothing may be put below this layer.
    pub hides_all: bool,
}

/// Unpacks `stream` to its end into the directory `root`, which nobody else may write to.
pub fn unpack(
    stream: &mut dyn Read,
    root: &Path,
    options: &Options,
) -> Result<Summary, UnpackError> {
    let placed = UnpackError::refused(b".", "cannot be placed");
    let (tree, buffer) = (open_tree(root, options).map_err(placed)?, vec![0; BUFFER]);
    let mut archive = Archive::new(stream, options.max_entries);
    let mut job = Job { tree, options, buffer, summary: Summary::default() };
    while let Some(entry) = archive.next_entry()? {
        job.apply(&entry, &mut archive).map_err(|err| err.at(&entry.path))?;
    }
    job.tree.leave(b".")?;
    archive.drain()?;
    Ok(job.summary)
}

/// Opens the root, or makes and opens the prefix below it.
fn open_tree(root: &Path, options: &Options) -> io::Result<Tree> {
    let mut dir = File::open(root)?;
    let parts = options.prefix.map_or(Vec::new(), |prefix| prefix.split('/').collect());
    for (at, part) in parts.iter().enumerate() {
        let name = part.as_bytes();
        match file::make_dir(dir.as_fd(), name) {
            Err(err) if err.kind() != io::ErrorKind::AlreadyExists => return Err(err),
            _ => {}
        }
        dir = File::from(file::open_dir(dir.as_fd(), name)?);
        let last = at + 1 == parts.len();
        let (uid, gid) = options.owner.filter(|_| last).unwrap_or((0, 0));
        file::set_owner(dir.as_fd(), uid, gid)?;
        dir.set_permissions(Permissions::from_mode(0o755))?;
    }
    Ok(Tree::new(dir, options.owner.unwrap_or((0, 0))))
}

/// One unpacking.
struct Job<'a> {
    tree: Tree,
    options: &'a Options,
    buffer: Vec<u8>,
    summary: Summary,
}

impl Job<'_> {
    /// Makes one entry.
    fn apply<R: Read>(
        &mut self,
        entry: &Entry,
        archive: &mut Archive<R>,
    ) -> Result<(), UnpackError> {
        let path = entry.path.as_slice();
        let refused = |why| UnpackError::entry(path, why);
        let parts = name::components(path).map_err(refused)?;
        let mark = match self.options.whiteouts {
            true => name::mark(&parts).map_err(refused)?,
            false => Mark::None,
        };
        let Some((last, above)) = parts.split_last() else {
            return self.root(entry);
        };
        match mark {
            Mark::Ignored => return Ok(()),
            Mark::Whiteout(hidden) => return self.whiteout(above, hidden, path),
            Mark::Opaque => return self.opaque(above, path),
            Mark::None => {}
        }
        match entry.kind {
            Kind::File | Kind::Sparse => self.file(above, last, entry, archive)?,
            Kind::Directory => self.directory(above, last, entry)?,
            Kind::Symlink => self.symlink(above, last, entry)?,
            Kind::HardLink => self.hard_link(above, last, entry)?,
            Kind::Fifo => self.fifo(above, last, entry)?,
            _ => {
                self.summary.skipped += 1;
                return Ok(());
            }
        }
        self.summary.made += 1;
        Ok(())
    }

    /// The entry `.`: the container's `/`, which everybody must be able to pass through.
    fn root(&mut self, entry: &Entry) -> Result<(), UnpackError> {
        if entry.kind != Kind::Directory {
            return Err(UnpackError::entry(&entry.path, "is the root but no directory"));
        }
        self.tree.leave(&entry.path)?;
        let root = self.tree.root();
        root.set_permissions(Permissions::from_mode(entry.mode | 0o755))
            .and_then(|()| file::set_times(root.as_fd(), b".", entry.time))
            .map_err(UnpackError::refused(&entry.path, "cannot be placed"))
    }

    fn directory(
        &mut self,
        above: &[&[u8]],
        name: &[u8],
        entry: &Entry,
    ) -> Result<(), UnpackError> {
        let refused = || UnpackError::refused(&entry.path, "cannot be made");
        let owner = self.owner(entry)?;
        let parent = self.tree.parent(above, &entry.path)?;
        let was = match file::make_dir(parent.as_fd(), name) {
            Ok(()) => Was::Free,
            Err(err) if err.kind() == io::ErrorKind::AlreadyExists => {
                let was = tree::clear(parent, name, true).map_err(refused())?;
                if was != Was::Directory {
                    file::make_dir(parent.as_fd(), name).map_err(refused())?;
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
        file::set_owner(dir.as_fd(), owner.0, owner.1).map_err(refused())?;
        self.attributes(&dir, entry)?;
        dir.set_permissions(Permissions::from_mode(entry.mode))
            .and_then(|()| file::set_times(dir.as_fd(), b".", entry.time))
            .map_err(refused())
    }

    fn file<R: Read>(
        &mut self,
        above: &[&[u8]],
        name: &[u8],
        entry: &Entry,
        archive: &mut Archive<R>,
    ) -> Result<(), UnpackError> {
        let refused = || UnpackError::refused(&entry.path, "cannot be made");
        let owner = self.owner(entry)?;
        self.count(entry)?;
        let parent = self.tree.parent(above, &entry.path)?;
        let file = match file::create_file(parent.as_fd(), name) {
            Err(err) if err.kind() == io::ErrorKind::AlreadyExists => {
                tree::clear(parent, name, false).map_err(refused())?;
                file::create_file(parent.as_fd(), name).map_err(refused())?
            }
            other => other.map_err(refused())?,
        };
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
        file::set_owner(file.as_fd(), owner.0, owner.1).map_err(refused())?;
        self.attributes(&file, entry)?;
        file.set_permissions(Permissions::from_mode(entry.mode)).map_err(refused())?;
        let parent = self.tree.parent(above, &entry.path)?;
        file::set_times(parent.as_fd(), name, entry.time).map_err(refused())
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

    fn symlink(&mut self, above: &[&[u8]], name: &[u8], entry: &Entry) -> Result<(), UnpackError> {
        let refused = || UnpackError::refused(&entry.path, "cannot be made");
        if entry.link.is_empty() || entry.link.contains(&0) {
            return Err(UnpackError::entry(&entry.path, "is a symlink with no usable target"));
        }
        let owner = self.owner(entry)?;
        let parent = self.tree.parent(above, &entry.path)?;
        match file::make_symlink(parent.as_fd(), name, &entry.link) {
            Err(err) if err.kind() == io::ErrorKind::AlreadyExists => {
                tree::clear(parent, name, false).map_err(refused())?;
                file::make_symlink(parent.as_fd(), name, &entry.link).map_err(refused())?;
            }
            other => other.map_err(refused())?,
        }
        own(parent, name, owner, entry).map_err(refused())
    }

    fn fifo(&mut self, above: &[&[u8]], name: &[u8], entry: &Entry) -> Result<(), UnpackError> {
        let refused = || UnpackError::refused(&entry.path, "cannot be made");
        let owner = self.owner(entry)?;
        let parent = self.tree.parent(above, &entry.path)?;
        tree::clear(parent, name, false).map_err(refused())?;
        file::make_fifo(parent.as_fd(), name).map_err(refused())?;
        own(parent, name, owner, entry).map_err(refused())?;
        file::set_mode_at(parent.as_fd(), name, entry.mode)
            .and_then(|()| file::set_times(parent.as_fd(), name, entry.time))
            .map_err(refused())
    }

    /// A further name for a file of this archive. Owner, mode and time are the file's already.
    fn hard_link(
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

    /// Hides `name` of the layers below. What this layer has there stays, whichever came first; a
    /// directory then hides the one below it.
    fn whiteout(&mut self, above: &[&[u8]], name: &[u8], path: &[u8]) -> Result<(), UnpackError> {
        let refused = || UnpackError::refused(path, "cannot be made");
        let parent = self.tree.parent(above, path)?;
        match tree::look(parent, name).map_err(refused())? {
            None => file::make_whiteout(parent.as_fd(), name).map_err(refused())?,
            Some(meta) if meta.is_dir() => {
                let dir = file::open_dir(parent.as_fd(), name).map(File::from).map_err(refused())?;
                tree::set_opaque(&dir).map_err(refused())?;
            }
            Some(_) => {}
        }
        self.summary.made += 1;
        Ok(())
    }

    /// Hides everything that the layers below have in a directory.
    fn opaque(&mut self, above: &[&[u8]], path: &[u8]) -> Result<(), UnpackError> {
        let dir = self.tree.parent(above, path)?;
        tree::set_opaque(dir).map_err(UnpackError::refused(path, "cannot be made"))?;
        self.summary.made += 1;
        self.summary.hides_all |= above.is_empty();
        Ok(())
    }

    /// Sets the extended attributes that may be set.
    fn attributes(&mut self, file: &File, entry: &Entry) -> Result<(), UnpackError> {
        if entry.xattrs.len() > XATTRS_MAX {
            return Err(UnpackError::entry(&entry.path, "has more than 64 extended attributes"));
        }
        for (name, value) in &entry.xattrs {
            let ours = name.starts_with(b"user.") && !name.starts_with(b"user.overlay.");
            match CString::new(name.as_slice()) {
                Ok(name) if ours => {
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

/// Owner and time of something that cannot be opened for real.
fn own(parent: &File, name: &[u8], owner: (u32, u32), entry: &Entry) -> io::Result<()> {
    let node = file::open_node(parent.as_fd(), name)?;
    file::set_owner(node.as_fd(), owner.0, owner.1)?;
    file::set_times(parent.as_fd(), name, entry.time)
}

/// Whether `dir` is the inode with `meta`.
fn same(meta: &Metadata, dir: &File) -> io::Result<bool> {
    let other = dir.metadata()?;
    Ok((meta.dev(), meta.ino()) == (other.dev(), other.ino()))
}
