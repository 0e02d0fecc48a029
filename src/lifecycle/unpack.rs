//! A tar stream becomes a tree in a directory, owned by who runs this.
//!
//! Runs inside the container, as the user who shall own the files. The directory is the border:
//! names that hold `..` are refused, and so is a way through a link that leads out of it, whoever
//! made the link. Links may *say* anything; they are not followed out. What stands in the way is
//! replaced, but no directory. Memory is bounded, whatever the archive says.

use super::error::LifecycleError;
use super::pack::MODE_MASK;
use crate::sys::at;
use crate::sys::beneath::{self, Links};
use crate::sys::file::{self, FileTime};
use records::{keep, records};
use std::ffi::OsStr;
use std::fs::{File, FileTimes, Permissions};
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use tail::Tail;
use tar::{Entry, EntryType};

mod content;
mod records;
mod tail;

/// Whose rules an archive is taken by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rules {
    /// An app's own bits: absolute names are refused, devices and fifos passed over; modes are as
    /// the archive has them, without setuid and setgid, and of extended attributes those of users.
    App,
    /// What tar does without options: a leading `/` says nothing, fifos are made, a device is an
    /// error, what is of no known kind is a file, modes lose what the umask forbids.
    Tar {
        /// The process's umask.
        umask: u32,
    },
}

impl Rules {
    fn file_mode(self, mode: u32) -> u32 {
        match self {
            Rules::App => mode & MODE_MASK & 0o777,
            Rules::Tar { umask } => mode & 0o777 & !umask,
        }
    }

    fn dir_mode(self, mode: u32) -> u32 {
        match self {
            Rules::App => mode & MODE_MASK,
            Rules::Tar { umask } => mode & 0o777 & !umask,
        }
    }

    /// The kind of an entry; `None`: it is passed over.
    fn kind(self, entry: &Entry<impl Read>, raw: &[u8]) -> Result<Option<EntryType>, &'static str> {
        use EntryType as T;
        let kind = entry.header().entry_type();
        let is_tar = self != Rules::App;
        Ok(match kind {
            // How archives from before 1988 mark a directory.
            T::Regular if raw.ends_with(b"/") => Some(T::Directory),
            T::Regular | T::Continuous | T::GNUSparse => Some(T::Regular),
            T::Directory | T::Symlink | T::Link => Some(kind),
            T::Fifo if is_tar => Some(kind),
            T::Char | T::Block if is_tar => return Err("it is a device, which is not made here"),
            // About the archive, not a file: what all entries share, the archive's label.
            T::XGlobalHeader => None,
            kind if kind.as_byte() == b'V' => None,
            // GNU's directory with a list of what was in it.
            kind if kind.as_byte() == b'D' && is_tar => Some(T::Directory),
            _ if is_tar => Some(T::Regular),
            _ => None,
        })
    }
}

/// Directories whose mode and time wait for the end, before those that are left are done early.
const DIRS_MAX: usize = 16_384;

/// Unpacks an app's own bits into `dir`, which nothing in them leads out of.
pub fn unpack_source(input: impl Read, dir: &Path) -> Result<(), LifecycleError> {
    unpack(input, dir, Rules::App)
}

/// Unpacks the tar stream `input` into `dir`, which is made when missing.
pub(super) fn unpack(input: impl Read, dir: &Path, rules: Rules) -> Result<(), LifecycleError> {
    std::fs::create_dir_all(dir).map_err(LifecycleError::file("make", dir))?;
    let root = File::open(dir).map_err(LifecycleError::file("open", dir))?;
    let broken = |source| LifecycleError::Stream { doing: "read", source };
    let state = tail::State::default();
    let mut archive = tar::Archive::new(Tail::new(input, &state));
    // Where there is nothing to lead out to, an absolute link is as good as any.
    let is_root = same(&root, Path::new("/")).map_err(LifecycleError::file("look at", dir))?;
    let links = if is_root { Links::AsRoot } else { Links::Within };
    let mut tree = Tree { root: root.into(), rules, links, dirs: Vec::new(), parent: None };
    let mut entries = archive.entries().map_err(broken)?;
    let mut is_empty = true;
    while let Some(entry) = state.describing(|| entries.next()) {
        is_empty = false;
        let mut entry = entry.map_err(broken)?;
        tree.add(&mut entry)?;
        // What was passed over is no description of the next one.
        io::copy(&mut entry, &mut io::sink()).map_err(broken)?;
    }
    // Who streams a tar in says by other means that it is whole, and some writers leave the mark out;
    // nothing at all is no tar.
    if (rules == Rules::App || is_empty) && !state.has_ended() {
        return Err(LifecycleError::Short);
    }
    tree.finish_dirs(None)?;
    let mut rest = archive.into_inner();
    // The writer may still be padding the last block: let it end in peace.
    io::copy(&mut rest, &mut io::sink()).map(drop).map_err(broken)
}

/// Whether an open directory is the one at `path`.
fn same(dir: &File, path: &Path) -> io::Result<bool> {
    let (one, other) = (dir.metadata()?, std::fs::metadata(path)?);
    Ok((one.dev(), one.ino()) == (other.dev(), other.ino()))
}

/// The directory that is being filled.
struct Tree {
    root: OwnedFd,
    rules: Rules,
    /// How links on the way to an entry are followed.
    links: Links,
    /// Directories whose mode and time are set at the end, because filling them changes both.
    dirs: Vec<(PathBuf, u32, FileTime)>,
    /// The directory of the last entry: the next one is usually beside it.
    parent: Option<(PathBuf, OwnedFd)>,
}

impl Tree {
    fn add(&mut self, entry: &mut Entry<impl Read>) -> Result<(), LifecycleError> {
        let raw = entry.path_bytes().into_owned();
        let mut records =
            records(entry).map_err(entry_error(&printable(&raw), "read the records of"))?;
        let raw = records.sparse.name.take().unwrap_or(raw);
        let shown = printable(&raw);
        let refuse = |why| Err(LifecycleError::Refused { entry: shown.clone(), why });
        let kind = match self.rules.kind(entry, &raw) {
            Ok(Some(kind)) => kind,
            Ok(None) => return Ok(()),
            Err(why) => return refuse(why),
        };
        let path = match clean(&raw, self.rules) {
            Ok(path) => path,
            Err(why) => return refuse(why),
        };
        let Some(name) = path.file_name() else { return Ok(()) };
        let fail = |doing| entry_error(&shown, doing);
        let mode = entry.header().mode().map_err(fail("read the mode of"))?;
        let seconds = entry.header().mtime().map_err(fail("read the time of"))?;
        let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
        let time = records.time.unwrap_or(FileTime { seconds, nanos: 0 });
        let rules = self.rules;
        match kind {
            EntryType::Directory => {
                let dir = self.enter(&path).map_err(fail("make"))?;
                keep(dir, &records, rules);
                let mode = self.rules.dir_mode(mode);
                self.dirs.push((path, mode, time));
                if self.dirs.len() > DIRS_MAX {
                    let current = self.dirs.last().expect("just pushed").0.clone();
                    self.finish_dirs(Some(&current))?;
                }
            }
            EntryType::Symlink => {
                let target = entry.link_name_bytes().unwrap_or_default().into_owned();
                let target = OsStr::from_bytes(&target);
                let dir = self.enter(parent_of(&path)).map_err(fail("make the directory of"))?;
                replace(dir, name, || at::make_link(target, dir, name)).map_err(fail("make"))?;
                file::set_times(dir.as_fd(), name.as_bytes(), time).map_err(fail("finish"))?;
                self.parent = None;
            }
            EntryType::Link => {
                let target = entry.link_name_bytes().unwrap_or_default().into_owned();
                let target = match clean(&target, self.rules) {
                    Ok(target) if target.file_name().is_some() => target,
                    _ => return refuse("it is one more name of something outside"),
                };
                self.hard_link(&target, &path).map_err(fail("link"))?;
            }
            EntryType::Fifo => {
                let mode = self.rules.file_mode(mode);
                let dir = self.enter(parent_of(&path)).map_err(fail("make the directory of"))?;
                let make = || file::make_fifo(dir.as_fd(), name.as_bytes());
                replace(dir, name, make).map_err(fail("make"))?;
                file::set_mode_at(dir.as_fd(), name.as_bytes(), mode).map_err(fail("finish"))?;
            }
            _ => {
                let mode = self.rules.file_mode(mode);
                let dir = self.enter(parent_of(&path)).map_err(fail("make the directory of"))?;
                let mut file = replace(dir, name, || beneath::create_file(dir.as_fd(), name))
                    .map_err(fail("make"))?;
                let map = match records.sparse.map() {
                    Ok(map) => map,
                    Err(why) => return refuse(why),
                };
                let size = entry.size();
                match content::write(&mut *entry, size, map, &mut file) {
                    Err(err) if err.kind() == io::ErrorKind::UnexpectedEof => {
                        return Err(LifecycleError::Short);
                    }
                    written => written.map_err(fail("write"))?,
                }
                keep(&file, &records, rules);
                finish(&file, mode, time).map_err(fail("finish"))?;
            }
        }
        Ok(())
    }

    fn hard_link(&mut self, target: &Path, path: &Path) -> io::Result<()> {
        let root = self.root.as_fd();
        let from = beneath::open_dir(root, &dot(parent_of(target)), self.links)?;
        let from_name = target.file_name().unwrap_or_default();
        if target == path {
            return Ok(());
        }
        let name = path.file_name().unwrap_or_default();
        let dir = self.enter(parent_of(path))?;
        replace(dir, name, || beneath::make_hard_link(from.as_fd(), from_name, dir.as_fd(), name))
    }

    /// Opens the directory `path`, making it and those above it when missing.
    fn enter(&mut self, path: &Path) -> io::Result<&OwnedFd> {
        if path.as_os_str().is_empty() {
            return Ok(&self.root);
        }
        if self.parent.as_ref().is_none_or(|(known, _)| known != path) {
            let fd = self.make_dirs(path)?;
            self.parent = Some((path.to_owned(), fd));
        }
        Ok(&self.parent.as_ref().expect("it was set above").1)
    }

    fn make_dirs(&self, path: &Path) -> io::Result<OwnedFd> {
        let root = self.root.as_fd();
        match beneath::open_dir(root, path, self.links) {
            Err(err) if err.kind() == io::ErrorKind::NotFound => {}
            other => return other,
        }
        let mut above = beneath::open_dir(root, Path::new("."), Links::Refused)?;
        let mut here = PathBuf::new();
        for name in path {
            here.push(name);
            above = match beneath::open_dir(root, &here, self.links) {
                Err(err) if err.kind() == io::ErrorKind::NotFound => {
                    at::make_dir(&above, name, 0o755)?;
                    beneath::open_dir(root, &here, self.links)?
                }
                other => other?,
            };
        }
        Ok(above)
    }

    /// Innermost first, so that a directory may lose its write or search bit. With `but`, those
    /// that it lies in wait on.
    fn finish_dirs(&mut self, but: Option<&Path>) -> Result<(), LifecycleError> {
        let all = std::mem::take(&mut self.dirs);
        let waits = |path: &Path| but.is_some_and(|but| but.starts_with(path));
        let (wait, done): (Vec<_>, Vec<_>) = all.into_iter().partition(|(path, ..)| waits(path));
        self.dirs = wait;
        for (path, mode, time) in done.into_iter().rev() {
            let shown = printable(path.as_os_str().as_bytes());
            let finished = beneath::open_dir(self.root.as_fd(), &path, self.links)
                .and_then(|fd| finish(&File::from(fd), mode, time));
            match finished {
                // It was there before, and is somebody else's.
                Err(err) if self.rules != Rules::App && err.raw_os_error() == Some(EPERM) => {}
                other => other.map_err(entry_error(&shown, "finish"))?,
            }
        }
        Ok(())
    }
}

/// Not ours to change.
const EPERM: i32 = 1;

/// Runs `make`; when the name is taken, frees it and tries once more.
fn replace<T>(dir: &OwnedFd, name: &OsStr, make: impl Fn() -> io::Result<T>) -> io::Result<T> {
    match make() {
        Err(err) if err.kind() == io::ErrorKind::AlreadyExists => {
            at::remove(dir, name)?;
            make()
        }
        other => other,
    }
}

fn finish(file: &File, mode: u32, time: FileTime) -> io::Result<()> {
    file.set_permissions(Permissions::from_mode(mode))?;
    let since = Duration::new(time.seconds.try_into().unwrap_or(0), time.nanos);
    match SystemTime::UNIX_EPOCH.checked_add(since) {
        Some(time) => file.set_times(FileTimes::new().set_accessed(time).set_modified(time)),
        None => Ok(()),
    }
}

/// The name without empty parts and `.`; an error says why it may not be used.
fn clean(raw: &[u8], rules: Rules) -> Result<PathBuf, &'static str> {
    if raw.starts_with(b"/") && rules == Rules::App {
        return Err("its name is absolute");
    }
    let mut path = PathBuf::new();
    for part in raw.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => return Err("its name holds `..`"),
            part if part.contains(&0) => return Err("its name holds a zero byte"),
            part => path.push(OsStr::from_bytes(part)),
        }
    }
    Ok(path)
}

fn parent_of(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new(""))
}

fn dot(path: &Path) -> PathBuf {
    if path.as_os_str().is_empty() { ".".into() } else { path.to_owned() }
}

/// EXDEV is how openat2 says that the way leads out.
fn entry_error<'a>(
    shown: &'a str,
    doing: &'static str,
) -> impl FnOnce(io::Error) -> LifecycleError + 'a {
    move |source| match source.kind() {
        io::ErrorKind::CrossesDevices => LifecycleError::Refused {
            entry: shown.to_owned(),
            why: "a link on its way leads out of the directory",
        },
        _ => LifecycleError::Entry { entry: shown.to_owned(), doing, source },
    }
}

/// At most 200 characters, none of them a control character.
fn printable(raw: &[u8]) -> String {
    let text = String::from_utf8_lossy(raw);
    let short: String = text.chars().take(200).collect();
    format!("`{}`", short.escape_debug())
}
