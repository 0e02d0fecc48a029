//! Hard links to files that are not in the archive but in a layer below.
//!
//! In the image both are names of one file. A union's upper layer cannot have an inode of a lower
//! one, so the file comes up, as overlay itself does it when somebody links: this layer gets it
//! under both names, its data shared with the layer below. Which file that is only shows once the
//! layers below are there; until then an empty file keeps its place, and whatever the archive does
//! to that name or links to it is done to it. A symlink of the layers below on the way to the file is
//! gone through as in the image, by its text: no path is given to the kernel.

use super::error::{UnpackError, shown};
use super::held::Held;
use super::implied::{self, Says};
use super::tree;
use super::work::{Spent, Wish};
use crate::sys::at::{self, Open, Resolve};
use crate::sys::{beneath, file};
use crate::unit::Bytes;
use crate::volume::Store;
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, Metadata};
use std::io::{self, Read};
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
/// Directories of the layers below that are gone through for all of them together: some minutes' work. An
/// image may have so many names, so deep, below so many layers, that it were days.
const LOOKS_MAX: u64 = 1 << 25;
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

    /// One more name.
    pub fn add(&mut self, target: &[u8], path: Vec<u8>, inode: u64) -> Result<(), UnpackError> {
        self.count += 1;
        self.bytes += target.len() + path.len();
        if self.count > NAMES_MAX || self.bytes > BYTES_MAX {
            let why =
                format!("is a hard link to a layer below; of those at most {NAMES_MAX} are made");
            return Err(UnpackError::archive(why));
        }
        // The file's path is kept by name and by inode.
        let file = if self.names.contains_key(target) { 0 } else { 2 * target.len() + TARGET };
        if !self.held.take(path.len() + NAME + file) {
            return Err(UnpackError::no_memory("is a hard link to a layer below, and "));
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

/// What the search for a layer's links may take, and whether anybody still wants it.
struct Looks<'a> {
    left: Cell<u64>,
    is_over: &'a dyn Fn() -> bool,
}

impl<'a> Looks<'a> {
    fn new(is_over: &'a dyn Fn() -> bool) -> Looks<'a> {
        Looks { left: Cell::new(LOOKS_MAX), is_over }
    }

    /// The directory `path` is gone to, in so many layers.
    fn take(&self, path: &[u8], layers: usize) -> io::Result<()> {
        self.go_on()?;
        let deep = path.split(|byte| *byte == b'/').count();
        let left = self.left.get().checked_sub((deep as u64).saturating_mul(layers as u64));
        let why = "the links of its layer lead through more directories of the layers below than are \
                   gone through";
        self.left.set(left.ok_or_else(|| io::Error::other(why))?);
        Ok(())
    }

    /// An error when nobody wants it any more.
    fn go_on(&self) -> io::Result<()> {
        if (self.is_over)() { Err(io::Error::other(Wish::failure())) } else { Ok(()) }
    }
}

/// Makes the names `links` of the layer `own` what they are in `layers`, topmost first; the bytes of
/// files that it has more now, `room` at most, which are counted in `spent`.
pub fn settle(
    store: &Store,
    own: &File,
    links: &LowerLinks,
    layers: &[File],
    (room, spent): (u64, &mut Spent),
    is_over: &dyn Fn() -> bool,
) -> Result<u64, UnpackError> {
    let (mut bytes, looks) = (0u64, Looks::new(is_over));
    for (target, names) in &links.names {
        let mut done = BTreeSet::new();
        for name in names {
            let refused = |why| UnpackError::refused(&name.path, why);
            if done.contains(&name.inode) {
                continue;
            }
            let Some(to) = name.open(own).map_err(refused("cannot be opened"))? else { continue };
            let below = find(own, layers, target, &looks);
            let below = below.map_err(refused("cannot be looked for below"))?;
            let below = below.map_err(|why| link_error(&name.path, target, why))?;
            bytes = bytes.saturating_add(below.meta.len());
            if bytes > room {
                let why = "brings the files to more than is allowed, with what it links below";
                return Err(UnpackError::entry(&name.path, why));
            }
            spent.add(below.meta.len()).map_err(refused("does not fit"))?;
            fill(store, &below, &to, &looks).map_err(refused("cannot be copied up"))?;
            if done.is_empty() {
                let up = take_up(own, &below.path, &to, layers, &looks);
                up.map_err(refused("cannot be copied up"))?;
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
fn find(
    own: &File,
    layers: &[File],
    path: &[u8],
    looks: &Looks<'_>,
) -> io::Result<Result<Below, &'static str>> {
    if let Some(found) = topmost(layers, path, looks)? {
        return below(path.to_vec(), found);
    }
    let real = match real(layers, path, looks)? {
        Ok(real) => real,
        Err(why) => return Ok(Err(why)),
    };
    match (topmost(layers, &real, looks)?, implied::says(own, &real)?) {
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
fn topmost(
    layers: &[File],
    path: &[u8],
    looks: &Looks<'_>,
) -> io::Result<Option<(File, Metadata)>> {
    let (above, name) = split(path);
    for layer in layers {
        looks.take(above, 1)?;
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
fn real(
    layers: &[File],
    path: &[u8],
    looks: &Looks<'_>,
) -> io::Result<Result<Vec<u8>, &'static str>> {
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
        let Some((dir, meta)) = topmost(layers, &real.join(&b'/'), looks)? else {
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
fn fill(store: &Store, below: &Below, to: &File, looks: &Looks<'_>) -> io::Result<()> {
    if file::share_data(below.file.as_fd(), to.as_fd()).is_err() {
        store.ensure_room(Bytes::new(below.meta.len())).map_err(io::Error::other)?;
        io::copy(&mut Wanted { file: &below.file, looks }, &mut &*to)?;
    }
    implied::copy_attributes(&below.file, to)
}

/// A file that is read until nobody wants it any more.
struct Wanted<'a> {
    file: &'a File,
    looks: &'a Looks<'a>,
}

impl Read for Wanted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.looks.go_on()?;
        self.file.read(buffer)
    }
}

/// Gives `file` the name that it has below, too, unless this layer has something else there or
/// hides it.
fn take_up(
    own: &File,
    path: &[u8],
    file: &File,
    layers: &[File],
    looks: &Looks<'_>,
) -> io::Result<()> {
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
                looks.take(&above[..end], layers.len())?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_search_ends_when_it_takes_too_much_or_nobody_wants_it() {
        let root = std::env::temp_dir().join(format!("lower-{}", std::process::id()));
        std::fs::create_dir(&root).expect("directory");
        let layer = File::open(&root).expect("open");
        let mut asked = 0;
        let looks = Looks::new(&|| false);
        let err = loop {
            looks.left.set(looks.left.get() / 2);
            asked += 1;
            match topmost(std::slice::from_ref(&layer), b"a/b/c", &looks) {
                Ok(found) => assert!(found.is_none()),
                Err(err) => break err,
            }
            assert!(asked < 64);
        };
        assert!(err.to_string().contains("lead through more directories"), "{err}");
        let looks = Looks::new(&|| true);
        let err = topmost(&[layer], b"a", &looks).expect_err("nobody wants it");
        std::fs::remove_dir(&root).expect("clean");
        assert!(err.to_string().contains("nobody wants it any more"), "{err}");
    }
}
