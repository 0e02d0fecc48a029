//! Hard links to files that are not in the archive but in a layer below.
//!
//! In the image both are names of one file. A union's upper layer cannot have an inode of a lower
//! one, so the file comes up, as overlay itself does it when somebody links: this layer gets it
//! under both names, its data shared with the layer below. Which file that is only shows once the
//! layers below are there; until then an empty file keeps its place, and whatever the archive does
//! to that name or links to it is done to it. A symlink of the layers below on the way to the file is
//! gone through as in the image, by its text: no path is given to the kernel.

use super::error::{UnpackError, shown};
use super::held::{Held, NO_MEMORY};
use super::implied::{self, Says};
use super::tree;
use crate::sys::at::{self, Open, Resolve};
use crate::sys::{beneath, file};
use crate::unit::Bytes;
use crate::volume::Store;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, Metadata};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Most such names of a layer, and the bytes of their paths together: each is looked for in every
/// layer below.
const NAMES_MAX: usize = 10_000;
const BYTES_MAX: usize = 1 << 20;
/// Bytes of memory that a name takes beside its text, and a file below.
const NAME: usize = 56;
const TARGET: usize = 160;
/// Symlinks on the way to one file: as many as the kernel goes through.
const HOPS_MAX: usize = 40;
/// Why there is no file.
const MISSING: &str = "is neither in the archive before it nor in a layer below";

/// The names of a layer that are files of the layers below.
#[derive(Debug, Default)]
pub struct LowerLinks {
    /// By the path of the file below.
    names: BTreeMap<Vec<u8>, Vec<Name>>,
    /// The paths below, by the inode that keeps the place.
    targets: BTreeMap<u64, Vec<u8>>,
    count: usize,
    bytes: usize,
    /// Memory for all of it.
    held: Held,
}

/// A name that the empty file `inode` was given; since then the archive may have taken it away.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Name {
    /// From the layer's root, through no symlink.
    path: Vec<u8>,
    inode: u64,
}

impl LowerLinks {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// Bytes of memory that they take, about.
    pub fn held(&self) -> usize {
        self.held.bytes()
    }

    /// Which file below the inode stands for, if it does.
    pub fn target(&self, inode: u64) -> Option<&[u8]> {
        self.targets.get(&inode).map(Vec::as_slice)
    }

    /// The empty file that stands for `target`, if it still has a name.
    pub fn find(&self, root: &File, target: &[u8]) -> io::Result<Option<File>> {
        for name in self.names.get(target).into_iter().flatten() {
            if let Some(file) = name.open(root)? {
                return Ok(Some(file));
            }
        }
        Ok(None)
    }

    /// One more name. Errors complete "is a hard link ...".
    pub fn add(&mut self, target: &[u8], path: Vec<u8>, inode: u64) -> Result<(), String> {
        self.count += 1;
        self.bytes += target.len() + path.len();
        if self.count > NAMES_MAX || self.bytes > BYTES_MAX {
            return Err(format!("to a layer below; of those at most {NAMES_MAX} are made"));
        }
        // The file's path is kept by name and by inode.
        let file = if self.names.contains_key(target) { 0 } else { 2 * target.len() + TARGET };
        if !self.held.take(path.len() + NAME + file) {
            return Err(format!("to a layer below, and {NO_MEMORY}"));
        }
        self.names.entry(target.to_vec()).or_default().push(Name { path, inode });
        self.targets.entry(inode).or_insert_with(|| target.to_vec());
        Ok(())
    }
}

impl Name {
    /// The empty file, if it still has this name.
    fn open(&self, root: &File) -> io::Result<Option<File>> {
        match at::open(root, Path::new(std::ffi::OsStr::from_bytes(&self.path)), FLAGS, 0, HOW) {
            Ok(fd) => {
                let file = File::from(fd);
                let meta = file.metadata()?;
                Ok((meta.is_file() && meta.ino() == self.inode).then_some(file))
            }
            // Gone, or it is something else now.
            Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(err) if err.kind() == io::ErrorKind::NotADirectory => Ok(None),
            Err(err) if err.kind() == io::ErrorKind::IsADirectory => Ok(None),
            // ELOOP and ENXIO have no kind: a symlink, a fifo.
            Err(err) if matches!(err.raw_os_error(), Some(40 | 6)) => Ok(None),
            Err(err) => Err(err),
        }
    }
}

const FLAGS: Open = Open::O_WRONLY.union(Open::O_NOFOLLOW).union(Open::O_NONBLOCK);
const HOW: Resolve = Resolve::RESOLVE_BENEATH.union(Resolve::RESOLVE_NO_SYMLINKS);

/// A file below.
struct Below {
    /// Through no symlink.
    path: Vec<u8>,
    file: File,
    meta: Metadata,
}

/// Makes the names `links` of the layer `own` what they are in `layers`, topmost first; the bytes of
/// files that it has more now, `room` at most.
pub fn settle(
    store: &Store,
    own: &File,
    links: &LowerLinks,
    layers: &[File],
    room: u64,
) -> Result<u64, UnpackError> {
    let mut bytes = 0;
    for (target, names) in &links.names {
        let mut done = BTreeSet::new();
        for name in names {
            let refused = |why| UnpackError::refused(&name.path, why);
            if done.contains(&name.inode) {
                continue;
            }
            let Some(to) = name.open(own).map_err(refused("cannot be opened"))? else { continue };
            let below = find(own, layers, target).map_err(refused("cannot be looked for below"))?;
            let below = below.map_err(|why| link_error(&name.path, target, why))?;
            bytes += below.meta.len();
            if bytes > room {
                let why = "brings the files to more than is allowed, with what it links below";
                return Err(UnpackError::entry(&name.path, why));
            }
            fill(store, &below, &to).map_err(refused("cannot be copied up"))?;
            if done.is_empty() {
                take_up(own, &below.path, &to, layers).map_err(refused("cannot be copied up"))?;
            }
            // Last: whatever was done to it has changed its time.
            file::set_times_of(to.as_fd(), tree::time_of(&below.meta))
                .map_err(refused("cannot be copied up"))?;
            done.insert(name.inode);
        }
    }
    Ok(bytes)
}

/// Says of a hard link that its target is not what it should be.
pub fn link_error(entry: &[u8], target: &[u8], why: &str) -> UnpackError {
    UnpackError::entry(entry, format!("is a hard link to `{}`, which {why}", shown(target)))
}

/// The file that the layers show at `path`; or why there is none.
fn find(own: &File, layers: &[File], path: &[u8]) -> io::Result<Result<Below, &'static str>> {
    if let Some(found) = topmost(layers, path)? {
        return below(path.to_vec(), found);
    }
    let real = match real(layers, path)? {
        Ok(real) => real,
        Err(why) => return Ok(Err(why)),
    };
    match (topmost(layers, &real)?, implied::says(own, &real)?) {
        (None, _) => Ok(Err(MISSING)),
        // What was there when the archive said it is not known any more.
        (Some(_), (Says::Is(_) | Says::Hidden, _) | (_, true)) => {
            Ok(Err("leads through a symlink of a layer below to what is in this layer"))
        }
        (Some(found), (Says::Nothing, false)) => below(real, found),
    }
}

/// Opens what was found, if it is a file.
fn below(path: Vec<u8>, (dir, meta): (File, Metadata)) -> io::Result<Result<Below, &'static str>> {
    if !meta.is_file() {
        return Ok(Err("is no file in the layers below"));
    }
    let file = file::open_to_read(dir.as_fd(), split(&path).1)?;
    Ok(Ok(Below { path, file, meta }))
}

/// What the layers show at `path`, through no symlink, and the directory that it is in; `None`: nothing.
fn topmost(layers: &[File], path: &[u8]) -> io::Result<Option<(File, Metadata)>> {
    let (above, name) = split(path);
    for layer in layers {
        let (dir, hides) = match implied::says(layer, above)? {
            (Says::Is(dir), hides) => (dir, hides),
            (Says::Nothing, false) => continue,
            _ => return Ok(None),
        };
        match tree::look(&dir, name)? {
            Some(meta) if tree::is_whiteout(&meta) => return Ok(None),
            Some(meta) => return Ok(Some((dir, meta))),
            None if hides => return Ok(None),
            None => {}
        }
    }
    Ok(None)
}

/// The path that `path` is in the layers, whose directories are gone through as in a root of their own;
/// or why it is none. Its last part is taken as it is.
fn real(layers: &[File], path: &[u8]) -> io::Result<Result<Vec<u8>, &'static str>> {
    let (above, name) = split(path);
    let parts = |path: &[u8]| -> Vec<Vec<u8>> {
        path.split(|byte| *byte == b'/').map(Vec::from).rev().collect()
    };
    let mut left = parts(above);
    let (mut real, mut hops) = (Vec::<Vec<u8>>::new(), 0);
    while let Some(part) = left.pop() {
        match &part[..] {
            b"" | b"." => continue,
            b".." => {
                real.pop();
                continue;
            }
            _ => real.push(part),
        }
        let Some((dir, meta)) = topmost(layers, &real.join(&b'/'))? else {
            return Ok(Err(MISSING));
        };
        if meta.is_dir() {
            continue;
        }
        let last = real.pop().expect("pushed just now");
        hops += 1;
        if !meta.is_symlink() || hops > HOPS_MAX {
            return Ok(Err(MISSING));
        }
        let node = file::open_node(dir.as_fd(), &last)?;
        let text = beneath::read_link(node.as_fd())?;
        if text.as_bytes().starts_with(b"/") {
            real.clear();
        }
        left.extend(parts(text.as_bytes()));
    }
    real.push(name.to_vec());
    Ok(Ok(real.join(&b'/')))
}

/// Content, owner, attributes and mode.
fn fill(store: &Store, below: &Below, to: &File) -> io::Result<()> {
    if file::share_data(below.file.as_fd(), to.as_fd()).is_err() {
        store.ensure_room(Bytes::new(below.meta.len())).map_err(io::Error::other)?;
        io::copy(&mut &below.file, &mut &*to)?;
    }
    implied::copy_attributes(&below.file, to)
}

/// Gives `file` the name that it has below, too, unless this layer has something else there or
/// hides it.
fn take_up(own: &File, path: &[u8], file: &File, layers: &[File]) -> io::Result<()> {
    let (above, name) = split(path);
    let mut dir = own.try_clone()?;
    let mut hides = implied::is_opaque(&dir)?;
    let mut end = 0;
    for part in above.split(|byte| *byte == b'/').filter(|part| !part.is_empty()) {
        end += part.len() + usize::from(end > 0);
        match tree::look(&dir, part)? {
            Some(meta) if meta.is_dir() => {
                dir = File::from(file::open_dir(dir.as_fd(), part)?);
                hides |= implied::is_opaque(&dir)?;
            }
            None if !hides => {
                let time = tree::time_of(&dir.metadata()?);
                at::make_dir(&dir, part, 0o700)?;
                file::set_times(dir.as_fd(), b".", time)?;
                dir = File::from(file::open_dir(dir.as_fd(), part)?);
                implied::settle_one(own, &above[..end], layers)?;
            }
            _ => return Ok(()),
        }
    }
    if hides || tree::look(&dir, name)?.is_some() {
        return Ok(());
    }
    let time = tree::time_of(&dir.metadata()?);
    file::link(file.as_fd(), dir.as_fd(), name)?;
    file::set_times(dir.as_fd(), b".", time)
}

/// What is before the last `/`, and after it.
fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (b"", path),
    }
}
