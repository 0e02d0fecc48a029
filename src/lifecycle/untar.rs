//! `untar -C DIR`: a tar stream on stdin becomes a tree in DIR, owned by who runs this.
//!
//! Runs inside the container, as the user who shall own the files. DIR is the border: names that
//! are absolute or hold `..` are refused, and so is a way through a link that leads out of DIR,
//! whoever made it. Links may *say* anything; they are not followed out. Devices and fifos are
//! skipped. Modes lose setuid and setgid; what stands in the way is replaced, but no directory.

use super::error::LifecycleError;
use super::flags::{Flag, Flags};
use super::pack::MODE_MASK;
use crate::sys::at;
use crate::sys::beneath::{self, Links};
use crate::sys::file::{self, FileTime};
use std::cell::Cell;
use std::ffi::{OsStr, OsString};
use std::fs::{File, FileTimes, Permissions};
use std::io::{self, BufReader, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use tar::{Entry, EntryType};

const FLAGS: &[Flag] = &[Flag::text("C", "", "directory to unpack into; made when missing")];

/// The role: exit 0, or 1 with one line about the first entry that failed.
pub(super) fn run(args: &[OsString]) -> Result<(), u8> {
    let flags = Flags::parse("untar", FLAGS, args)?;
    let dir = flags.path("C");
    if dir.as_os_str().is_empty() {
        complain!("usage: untar -C DIR < ARCHIVE");
        return Err(1);
    }
    let fail = |err: LifecycleError| {
        complain!("untar: {}", crate::log::chain(&err));
        1
    };
    let input = io::stdin().as_fd().try_clone_to_owned();
    let input = input.map_err(|source| fail(LifecycleError::Stream { doing: "read", source }))?;
    unpack(BufReader::with_capacity(64 * 1024, File::from(input)), &dir).map_err(fail)
}

/// Unpacks the tar stream `input` into `dir`, which is made when missing.
pub(super) fn unpack(input: impl Read, dir: &Path) -> Result<(), LifecycleError> {
    std::fs::create_dir_all(dir).map_err(LifecycleError::file("make", dir))?;
    let root = File::open(dir).map_err(LifecycleError::file("open", dir))?;
    let broken = |source| LifecycleError::Stream { doing: "read", source };
    let zeros = Cell::new(0);
    let mut archive = tar::Archive::new(Tail { input, zeros: &zeros });
    let mut tree = Tree { root: root.into(), dirs: Vec::new(), parent: None };
    for entry in archive.entries().map_err(broken)? {
        tree.add(&mut entry.map_err(broken)?)?;
        // An entry's padding is shorter than the block of zeros that ends an archive.
        zeros.set(0);
    }
    if zeros.get() < 512 {
        return Err(LifecycleError::Short);
    }
    tree.finish_dirs()?;
    let mut rest = archive.into_inner();
    // The writer may still be padding the last block: let it end in peace.
    io::copy(&mut rest, &mut io::sink()).map(drop).map_err(broken)
}

/// Knows how many zero bytes came last: an archive ends with blocks of them.
struct Tail<'a, R> {
    input: R,
    zeros: &'a Cell<u64>,
}

impl<R: Read> Read for Tail<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let got = self.input.read(buffer)?;
        match buffer[..got].iter().rposition(|byte| *byte != 0) {
            Some(last) => self.zeros.set((got - 1 - last) as u64),
            None => self.zeros.set(self.zeros.get() + got as u64),
        }
        Ok(got)
    }
}

/// The directory that is being filled.
struct Tree {
    root: OwnedFd,
    /// Directories whose mode and time are set at the end, because filling them changes both.
    dirs: Vec<(PathBuf, u32, u64)>,
    /// The directory of the last entry: the next one is usually beside it.
    parent: Option<(PathBuf, OwnedFd)>,
}

impl Tree {
    fn add(&mut self, entry: &mut Entry<impl Read>) -> Result<(), LifecycleError> {
        let raw = entry.path_bytes().into_owned();
        let shown = printable(&raw);
        let refuse = |why| Err(LifecycleError::Refused { entry: shown.clone(), why });
        let path = match clean(&raw) {
            Ok(path) => path,
            Err(why) => return refuse(why),
        };
        let Some(name) = path.file_name() else { return Ok(()) };
        let fail = |doing| entry_error(&shown, doing);

        let kind = match entry.header().entry_type() {
            // How archives from before 1988 mark a directory.
            EntryType::Regular if raw.ends_with(b"/") => EntryType::Directory,
            kind => kind,
        };
        let mode = entry.header().mode().map_err(fail("read the mode of"))? & MODE_MASK;
        let mtime_s = entry.header().mtime().map_err(fail("read the time of"))?;
        match kind {
            EntryType::Directory => {
                self.enter(&path).map_err(fail("make"))?;
                self.dirs.push((path, mode, mtime_s));
            }
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                let dir = self.enter(parent_of(&path)).map_err(fail("make the directory of"))?;
                let mut file = replace(dir, name, || beneath::create_file(dir.as_fd(), name))
                    .map_err(fail("make"))?;
                let bytes = io::copy(entry, &mut file).map_err(fail("write"))?;
                if bytes != entry.size() {
                    return Err(LifecycleError::Short);
                }
                finish(&file, mode & 0o777, mtime_s).map_err(fail("finish"))?;
            }
            EntryType::Symlink => {
                let target = entry.link_name_bytes().unwrap_or_default().into_owned();
                let target = OsStr::from_bytes(&target);
                let dir = self.enter(parent_of(&path)).map_err(fail("make the directory of"))?;
                replace(dir, name, || at::make_link(target, dir, name)).map_err(fail("make"))?;
                let seconds = i64::try_from(mtime_s).unwrap_or(i64::MAX);
                let time = FileTime { seconds, nanos: 0 };
                file::set_times(dir.as_fd(), name.as_bytes(), time).map_err(fail("finish"))?;
                self.parent = None;
            }
            EntryType::Link => {
                let target = entry.link_name_bytes().unwrap_or_default().into_owned();
                let target = match clean(&target) {
                    Ok(target) if target.file_name().is_some() => target,
                    _ => return refuse("it is one more name of something outside"),
                };
                self.hard_link(&target, &path).map_err(fail("link"))?;
            }
            // Devices, fifos and what newer programs may invent.
            _ => {}
        }
        Ok(())
    }

    fn hard_link(&mut self, target: &Path, path: &Path) -> io::Result<()> {
        let root = self.root.as_fd();
        let from = beneath::open_dir(root, &dot(parent_of(target)), Links::Within)?;
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
        match beneath::open_dir(root, path, Links::Within) {
            Err(err) if err.kind() == io::ErrorKind::NotFound => {}
            other => return other,
        }
        let mut above = beneath::open_dir(root, Path::new("."), Links::Refused)?;
        let mut here = PathBuf::new();
        for name in path {
            here.push(name);
            above = match beneath::open_dir(root, &here, Links::Within) {
                Err(err) if err.kind() == io::ErrorKind::NotFound => {
                    at::make_dir(&above, name, 0o755)?;
                    beneath::open_dir(root, &here, Links::Within)?
                }
                other => other?,
            };
        }
        Ok(above)
    }

    /// Innermost first, so that a directory may lose its write or search bit.
    fn finish_dirs(&mut self) -> Result<(), LifecycleError> {
        for (path, mode, mtime_s) in self.dirs.drain(..).rev() {
            let shown = printable(path.as_os_str().as_bytes());
            beneath::open_dir(self.root.as_fd(), &path, Links::Within)
                .and_then(|fd| finish(&File::from(fd), mode, mtime_s))
                .map_err(entry_error(&shown, "finish"))?;
        }
        Ok(())
    }
}

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

fn finish(file: &File, mode: u32, mtime_s: u64) -> io::Result<()> {
    file.set_permissions(Permissions::from_mode(mode))?;
    match SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(mtime_s)) {
        Some(time) => file.set_times(FileTimes::new().set_accessed(time).set_modified(time)),
        None => Ok(()),
    }
}

/// The name without empty parts and `.`; an error says why it may not be used.
fn clean(raw: &[u8]) -> Result<PathBuf, &'static str> {
    if raw.starts_with(b"/") {
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
