//! Files named relative to a directory that is held open, and never outside of it.
//!
//! Every call but those that say "anywhere" takes the directory's descriptor. A path is resolved by
//! openat2(2) (Linux 5.6) with `RESOLVE_BENEATH` (or `RESOLVE_IN_ROOT`) and no magic links, so neither `..`, nor an
//! absolute path, nor a symbolic link leads out, even when somebody renames things meanwhile
//! (`EXDEV` then). A *name* is one component: the last one, which is never followed.

use super::at;
use nix::fcntl::{OFlag, ResolveFlag};
use nix::sys::stat::Mode;
use nix::unistd::LinkatFlags;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// Whether symbolic links inside the path may be followed (they never lead out).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Links {
    /// A link that stays beneath the directory is followed.
    Within,
    /// The same, and an absolute link leads there as if the directory were `/`.
    AsRoot,
    /// No link is followed: `ELOOP`.
    Refused,
}

fn open(
    dir: BorrowedFd,
    path: &Path,
    flags: OFlag,
    mode: Mode,
    links: Links,
) -> io::Result<OwnedFd> {
    let resolve = ResolveFlag::RESOLVE_NO_MAGICLINKS
        | match links {
            Links::Within => ResolveFlag::RESOLVE_BENEATH,
            Links::AsRoot => ResolveFlag::RESOLVE_IN_ROOT,
            Links::Refused => ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS,
        };
    at::open(dir, path, flags, mode.bits(), resolve)
}

/// Opens the directory `path` beneath `dir` to work in it. `ENOENT`: missing; `ENOTDIR`: something
/// else; `EXDEV`: it lies outside of `dir`.
pub fn open_dir(dir: BorrowedFd, path: &Path, links: Links) -> io::Result<OwnedFd> {
    open(dir, path, OFlag::O_RDONLY | OFlag::O_DIRECTORY, Mode::empty(), links)
}

/// Holds whatever `path` is, without opening it for reading: its kind can be asked (`fstat`), and
/// [`read_link`] works on it. A symbolic link at the end is held itself.
pub fn hold(dir: BorrowedFd, path: &Path, links: Links) -> io::Result<OwnedFd> {
    open(dir, path, OFlag::O_PATH | OFlag::O_NOFOLLOW, Mode::empty(), links)
}

/// Opens `path` beneath `dir` for reading. Never waits for a fifo's other end; the caller checks
/// the kind.
pub fn open_file(dir: BorrowedFd, path: &Path, links: Links) -> io::Result<File> {
    let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    open(dir, path, flags, Mode::empty(), links).map(File::from)
}

/// Makes the file `name` in `dir`, open for writing, mode 0600. `EEXIST`: the name is taken.
pub fn create_file(dir: BorrowedFd, name: &OsStr) -> io::Result<File> {
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW;
    open(dir, Path::new(name), flags, Mode::from_bits_truncate(0o600), Links::Refused)
        .map(File::from)
}

/// Gives the file `from_name` in `from` a second name. A symbolic link is linked itself.
pub fn make_hard_link(
    from: BorrowedFd,
    from_name: &OsStr,
    dir: BorrowedFd,
    name: &OsStr,
) -> io::Result<()> {
    Ok(nix::unistd::linkat(from, from_name, dir, name, LinkatFlags::empty())?)
}

/// What the symbolic link `held` (by [`hold`]) says.
pub fn read_link(held: BorrowedFd) -> io::Result<OsString> {
    Ok(nix::fcntl::readlinkat(held, "")?)
}

/// Opens the file at `path` for reading, anywhere; its last component is not followed (`ELOOP`).
/// Never waits for a fifo's other end; the caller checks the kind.
pub fn open_regular(path: &Path) -> io::Result<File> {
    let flags = OFlag::O_RDONLY
        | OFlag::O_NOFOLLOW
        | OFlag::O_NONBLOCK
        | OFlag::O_NOCTTY
        | OFlag::O_CLOEXEC;
    Ok(nix::fcntl::open(path, flags, Mode::empty()).map(File::from)?)
}

/// Opens the directory at `path`, anywhere and through links, to work in it. `ENOTDIR`: it is
/// something else; a fifo is not waited for.
pub fn open_place(path: &Path) -> io::Result<File> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    Ok(nix::fcntl::open(path, flags, Mode::empty()).map(File::from)?)
}

/// Opens the file at `path` for reading, anywhere and through links. Never waits for a fifo's other
/// end; the caller checks the kind.
pub fn open_followed(path: &Path) -> io::Result<File> {
    let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    Ok(nix::fcntl::open(path, flags, Mode::empty()).map(File::from)?)
}

/// The names in the open directory `dir`, in no order, without `.` and `..`.
///
/// Reads through `/proc/self/fd`, so that no path is resolved again.
pub fn names(dir: BorrowedFd) -> io::Result<Vec<OsString>> {
    names_at_most(dir, usize::MAX)
}

/// As [`names`], of a directory with at most `max` of them; more are an error.
pub fn names_at_most(dir: BorrowedFd, max: usize) -> io::Result<Vec<OsString>> {
    use std::os::fd::AsRawFd;
    let path = format!("/proc/self/fd/{}", dir.as_fd().as_raw_fd());
    let mut names = Vec::new();
    for entry in std::fs::read_dir(path)? {
        if names.len() == max {
            return Err(io::Error::other(format!("it has more than {max} names")));
        }
        names.push(entry?.file_name());
    }
    Ok(names)
}
