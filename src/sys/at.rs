//! One entry of a directory that is held open: ask for it, make, remove, rename, own it. What
//! leads through further directories is resolved by [`open`] only, under the caller's rules.
//!
//! Beside it: [`super::beneath`] opens paths that must not leave a directory; [`super::file`] deals
//! with what is open, and with what only image layers hold.

use nix::NixPath;
pub use nix::fcntl::{OFlag as Open, ResolveFlag as Resolve};
use nix::sys::stat::{Mode, SFlag};
use nix::unistd::UnlinkatFlags;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// Opens `path` from directory `dir` under the rules of `how`; always close-on-exec. `mode` is
/// for a file that is made. `ELOOP`: a link that the rules forbid; `EXDEV`: out of bounds.
/// openat2(2), Linux 5.6.
pub fn open(
    dir: impl AsFd,
    path: impl AsRef<Path>,
    flags: Open,
    mode: u32,
    how: Resolve,
) -> io::Result<OwnedFd> {
    let how = nix::fcntl::OpenHow::new()
        .flags(flags | Open::O_CLOEXEC)
        .mode(Mode::from_bits_truncate(mode))
        .resolve(how);
    for _ in 1..TRIES {
        match nix::fcntl::openat2(&dir, path.as_ref(), how) {
            Err(nix::Error::EAGAIN) => {}
            opened => return Ok(opened?),
        }
    }
    Ok(nix::fcntl::openat2(&dir, path.as_ref(), how)?)
}

/// The kernel asks for another try when anything was renamed or mounted anywhere while it walked a `..`.
const TRIES: usize = 64;

/// Whether [`open`] has failed as a link was in the way that the rules do not follow: `ELOOP`, which
/// has no kind.
pub fn is_link(err: &io::Error) -> bool {
    err.raw_os_error() == Some(libc::ELOOP)
}

/// The caller's present working directory as a `dir` argument.
pub const HERE: BorrowedFd<'static> = nix::fcntl::AT_FDCWD;

/// Kinds of file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Regular file.
    File,
    /// Directory.
    Directory,
    /// Symbolic link.
    Link,
    /// Character device with this major and minor number.
    Characters(u64, u64),
    /// Anything else.
    Other,
}

/// What we want to know of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// What it is.
    pub kind: Kind,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Length in bytes.
    pub size: u64,
}

impl From<nix::sys::stat::FileStat> for Stat {
    fn from(raw: nix::sys::stat::FileStat) -> Stat {
        let kind = match SFlag::from_bits_truncate(raw.st_mode) & SFlag::S_IFMT {
            SFlag::S_IFREG => Kind::File,
            SFlag::S_IFDIR => Kind::Directory,
            SFlag::S_IFLNK => Kind::Link,
            SFlag::S_IFCHR => Kind::Characters(
                nix::sys::stat::major(raw.st_rdev),
                nix::sys::stat::minor(raw.st_rdev),
            ),
            _ => Kind::Other,
        };
        Stat {
            kind,
            mode: raw.st_mode & 0o7777,
            uid: raw.st_uid,
            gid: raw.st_gid,
            size: raw.st_size as u64,
        }
    }
}

/// Asks an open file (an `O_PATH` one too).
pub fn stat(fd: impl AsFd) -> io::Result<Stat> {
    Ok(nix::sys::stat::fstat(fd)?.into())
}

/// Asks the entry `name` of `dir`, without following it.
pub fn stat_entry(dir: impl AsFd, name: &(impl NixPath + ?Sized)) -> io::Result<Stat> {
    let flags = nix::fcntl::AtFlags::AT_SYMLINK_NOFOLLOW;
    Ok(nix::sys::stat::fstatat(dir, name, flags)?.into())
}

/// Makes directory `name` in `dir`; the umask applies. mkdirat(2).
pub fn make_dir(dir: impl AsFd, name: &(impl NixPath + ?Sized), mode: u32) -> io::Result<()> {
    Ok(nix::sys::stat::mkdirat(dir, name, Mode::from_bits_truncate(mode))?)
}

/// Makes a character device; the umask applies. mknodat(2).
pub fn make_device(
    dir: impl AsFd,
    name: &str,
    mode: u32,
    major: u64,
    minor: u64,
) -> io::Result<()> {
    let device = nix::sys::stat::makedev(major, minor);
    let mode = Mode::from_bits_truncate(mode);
    Ok(nix::sys::stat::mknodat(dir, name, SFlag::S_IFCHR, mode, device)?)
}

/// Makes symbolic link `name` in `dir`, which says `to`; that is not looked at. symlinkat(2).
pub fn make_link(
    to: &(impl NixPath + ?Sized),
    dir: impl AsFd,
    name: &(impl NixPath + ?Sized),
) -> io::Result<()> {
    Ok(nix::unistd::symlinkat(to, dir, name)?)
}

/// Removes the entry `name` of `dir`. `EISDIR`: it is a directory. unlinkat(2).
pub fn remove(dir: impl AsFd, name: &(impl NixPath + ?Sized)) -> io::Result<()> {
    Ok(nix::unistd::unlinkat(dir, name, UnlinkatFlags::NoRemoveDir)?)
}

/// Gives entry `from` of `dir` the name `to`, replacing what has it. renameat(2).
pub fn rename(dir: impl AsFd, from: &str, to: &str) -> io::Result<()> {
    Ok(nix::fcntl::renameat(dir.as_fd(), from, dir.as_fd(), to)?)
}

/// Changes the owner of an open file, an `O_PATH` one too; a symbolic link's own. Clears setuid and
/// setgid of files, so modes come after it. fchownat(2).
pub fn set_owner(fd: impl AsFd, uid: u32, gid: u32) -> io::Result<()> {
    let (uid, gid) = (nix::unistd::Uid::from_raw(uid), nix::unistd::Gid::from_raw(gid));
    Ok(nix::unistd::fchownat(fd, "", Some(uid), Some(gid), nix::fcntl::AtFlags::AT_EMPTY_PATH)?)
}

/// Changes the owner of link `name` in `dir`, itself. fchownat(2).
pub fn set_link_owner(
    dir: impl AsFd,
    name: &(impl NixPath + ?Sized),
    uid: u32,
    gid: u32,
) -> io::Result<()> {
    let (uid, gid) = (nix::unistd::Uid::from_raw(uid), nix::unistd::Gid::from_raw(gid));
    let no_follow = nix::fcntl::AtFlags::AT_SYMLINK_NOFOLLOW;
    Ok(nix::unistd::fchownat(&dir, name, Some(uid), Some(gid), no_follow)?)
}

/// Changes owner and permissions of entry `name` of `dir`, which the caller has just made there
/// and nobody else can reach yet.
pub fn adopt(dir: impl AsFd, name: &str, uid: u32, gid: u32, mode: u32) -> io::Result<()> {
    let (uid, gid) = (nix::unistd::Uid::from_raw(uid), nix::unistd::Gid::from_raw(gid));
    let no_follow = nix::fcntl::AtFlags::AT_SYMLINK_NOFOLLOW;
    nix::unistd::fchownat(&dir, name, Some(uid), Some(gid), no_follow)?;
    let follow = nix::sys::stat::FchmodatFlags::FollowSymlink;
    Ok(nix::sys::stat::fchmodat(&dir, name, Mode::from_bits_truncate(mode), follow)?)
}

/// Makes `dir` the working directory. fchdir(2).
pub fn change_dir(dir: impl AsFd) -> io::Result<()> {
    Ok(nix::unistd::fchdir(dir)?)
}

/// Path of the working directory. `NotFound` when it is not below the caller's root.
pub fn working_dir() -> io::Result<std::path::PathBuf> {
    match nix::unistd::getcwd()? {
        path if path.is_absolute() => Ok(path),
        _ => Err(io::ErrorKind::NotFound.into()),
    }
}
