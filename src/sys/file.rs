//! What is needed to build a tree that somebody else has described, beside [`super::at`], and to
//! measure what it is built on.
//!
//! No function here takes a path that leads through a directory, except [`open_dir_in_root`],
//! which lets the kernel resolve it as if `root` were `/`.

use nix::fcntl::{AtFlags, FallocateFlags, OFlag, OpenHow, ResolveFlag};
use nix::sys::stat::{Mode, SFlag, UtimensatFlags};
use nix::unistd::UnlinkatFlags;
use std::ffi::{CStr, CString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// A point in time as inodes hold it: seconds since 1970 and nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FileTime {
    /// Whole seconds.
    pub seconds: i64,
    /// 0 to 999 999 999.
    pub nanos: u32,
}

/// Size and free space of a file system, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// `f_type` of statfs(2).
    pub magic: i64,
    /// All blocks.
    pub total_bytes: u64,
    /// What an ordinary user may still write.
    pub free_bytes: u64,
}

/// Opens a directory for reading, resolving `path` as if `root` were `/`: absolute symlinks and
/// `..` stay inside, magic links and mount points are refused.
///
/// `ENOENT`, `ENOTDIR`; `ELOOP`: more than 40 symlinks or a magic link; `EXDEV`: a mount point.
/// Linux 5.6, openat2(2).
pub fn open_dir_in_root(root: BorrowedFd<'_>, path: &[u8]) -> io::Result<OwnedFd> {
    let how =
        OpenHow::new().flags(OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC).resolve(
            ResolveFlag::RESOLVE_IN_ROOT
                | ResolveFlag::RESOLVE_NO_MAGICLINKS
                | ResolveFlag::RESOLVE_NO_XDEV,
        );
    // The kernel asks for a retry when a rename elsewhere races with `..`; a few are plenty.
    for _ in 0..8 {
        match nix::fcntl::openat2(root, path, how) {
            Err(nix::Error::EAGAIN) => continue,
            other => return Ok(other?),
        }
    }
    Err(io::ErrorKind::WouldBlock.into())
}

/// Opens the directory `name` in `dir` for reading. `ENOTDIR`: it is something else, a symlink
/// too. `name` must be a single component. openat(2).
pub fn open_dir(dir: BorrowedFd<'_>, name: &[u8]) -> io::Result<OwnedFd> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    Ok(nix::fcntl::openat(dir, name, flags, Mode::empty())?)
}

/// Opens whatever `name` in `dir` is, without following or activating it (`O_PATH`): for stat,
/// link and owner. `name` must be a single component. openat(2).
pub fn open_node(dir: BorrowedFd<'_>, name: &[u8]) -> io::Result<OwnedFd> {
    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    Ok(nix::fcntl::openat(dir, name, flags, Mode::empty())?)
}

/// Creates the regular file `name` in `dir`, mode 0600, open for writing. `EEXIST`: anything is
/// there already, a dangling symlink too. openat(2).
pub fn create_file(dir: BorrowedFd<'_>, name: &[u8]) -> io::Result<File> {
    create_file_as(dir, name, 0o600)
}

/// As [`create_file`] with the permission bits `mode`, less the umask's. Nobody may reach `dir` who
/// must not see what is written. openat(2).
pub fn create_file_as(dir: BorrowedFd<'_>, name: &[u8], mode: u32) -> io::Result<File> {
    let flags =
        OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    Ok(File::from(nix::fcntl::openat(dir, name, flags, Mode::from_bits_truncate(mode & 0o777))?))
}

/// Makes the fifo `name` in `dir`, mode 0600 before the umask. mknodat(2).
pub fn make_fifo(dir: BorrowedFd<'_>, name: &[u8]) -> io::Result<()> {
    Ok(nix::sys::stat::mknodat(dir, name, SFlag::S_IFIFO, Mode::S_IRUSR | Mode::S_IWUSR, 0)?)
}

/// Makes the overlay whiteout `name` in `dir`: the character device 0:0, which no driver answers.
/// `EEXIST`. Linux overlayfs documentation, mknodat(2).
pub fn make_whiteout(dir: BorrowedFd<'_>, name: &[u8]) -> io::Result<()> {
    Ok(nix::sys::stat::mknodat(dir, name, SFlag::S_IFCHR, Mode::empty(), 0)?)
}

/// Makes a block device node, mode 0600. `path` must be one of our own. mknod(2).
pub fn make_block_device(path: &Path, major: u32, minor: u32) -> io::Result<()> {
    let device = nix::sys::stat::makedev(major.into(), minor.into());
    Ok(nix::sys::stat::mknod(path, SFlag::S_IFBLK, Mode::S_IRUSR | Mode::S_IWUSR, device)?)
}

/// Gives the open inode `from` the further name `name` in `dir`. `EXDEV`, `EMLINK`, `EEXIST`;
/// `ENOENT`: it has no name left, or we lack `CAP_DAC_READ_SEARCH`. linkat(2), `AT_EMPTY_PATH`.
pub fn link(from: BorrowedFd<'_>, dir: BorrowedFd<'_>, name: &[u8]) -> io::Result<()> {
    Ok(nix::unistd::linkat(from, c"", dir, name, AtFlags::AT_EMPTY_PATH)?)
}

/// Removes an empty directory. `ENOTDIR`, `ENOTEMPTY`. unlinkat(2).
pub fn remove_dir(dir: BorrowedFd<'_>, name: &[u8]) -> io::Result<()> {
    Ok(nix::unistd::unlinkat(dir, name, UnlinkatFlags::RemoveDir)?)
}

/// Names in an open directory from its beginning, without `.` and `..`: as many as fit 32 KiB, so
/// at least one if there are any. For emptying a directory: remove them, then ask again.
/// `ENOENT`: the directory itself was removed. getdents64(2).
pub fn first_names(dir: BorrowedFd<'_>) -> io::Result<Vec<Vec<u8>>> {
    // struct linux_dirent64: inode and offset u64, record length u16, type u8, name with NUL.
    const NAME_AT: usize = 19;
    let mut buffer = [0u8; 32 << 10];
    // SAFETY: plain integers; the descriptor is open for as long as it is borrowed.
    if unsafe { libc::lseek(dir.as_raw_fd(), 0, libc::SEEK_SET) } < 0 {
        return Err(io::Error::last_os_error());
    }
    let mut names = Vec::new();
    // The first buffer holds `.` and `..` too; a second look is needed only if nothing else fits.
    for _ in 0..2 {
        // SAFETY: the kernel writes at most the length that goes with the pointer.
        let filled = unsafe {
            let (fd, room) = (dir.as_raw_fd(), buffer.len());
            libc::syscall(libc::SYS_getdents64, fd, buffer.as_mut_ptr(), room)
        };
        let filled = usize::try_from(filled).map_err(|_| io::Error::last_os_error())?;
        let mut rest = &buffer[..filled];
        while rest.len() > NAME_AT {
            let len = usize::from(u16::from_ne_bytes([rest[16], rest[17]])).clamp(1, rest.len());
            let name = rest[..len].get(NAME_AT..).unwrap_or(&[]);
            let name = name.split(|b| *b == 0).next().unwrap_or(&[]);
            if !matches!(name, b"" | b"." | b"..") {
                names.push(name.to_vec());
            }
            rest = &rest[len..];
        }
        if filled == 0 || !names.is_empty() {
            break;
        }
    }
    Ok(names)
}

/// Sets the permission bits (07777) of the name `name` in `dir`, which must not be a symlink: it
/// would be followed. For nodes that cannot be opened for real, such as fifos. fchmodat(2).
pub fn set_mode_at(dir: BorrowedFd<'_>, name: &[u8], mode: u32) -> io::Result<()> {
    let mode = Mode::from_bits_truncate(mode & 0o7777);
    Ok(nix::sys::stat::fchmodat(dir, name, mode, nix::sys::stat::FchmodatFlags::FollowSymlink)?)
}

/// Begins to write a part of a file to its device, and does not wait for it; no more than a hint.
/// sync_file_range(2).
pub fn begin_to_write(file: BorrowedFd<'_>, offset: u64, len: u64) {
    let (Ok(offset), Ok(len)) = (i64::try_from(offset), i64::try_from(len)) else { return };
    // SAFETY: takes numbers only.
    unsafe { libc::sync_file_range(file.as_raw_fd(), offset, len, libc::SYNC_FILE_RANGE_WRITE) };
}

/// Writes everything of the file system of `any` to its device. Slow. syncfs(2).
pub fn sync_file_system(any: BorrowedFd<'_>) -> io::Result<()> {
    Ok(nix::unistd::syncfs(any)?)
}

/// Sets access and modification time of the name `name` in `dir` without following it; of `dir`
/// itself when `name` is `.`. utimensat(2).
pub fn set_times(dir: BorrowedFd<'_>, name: &[u8], time: FileTime) -> io::Result<()> {
    let spec = nix::sys::time::TimeSpec::new(time.seconds as _, time.nanos.into());
    let flags = UtimensatFlags::NoFollowSymlink;
    Ok(nix::sys::stat::utimensat(dir, name, &spec, &spec, flags)?)
}

/// Sets access and modification time of what is open for real. futimens(2).
pub fn set_times_of(file: BorrowedFd<'_>, time: FileTime) -> io::Result<()> {
    let spec = nix::sys::time::TimeSpec::new(time.seconds as _, time.nanos.into());
    Ok(nix::sys::stat::futimens(file, &spec, &spec)?)
}

/// Sets an extended attribute of a file or directory that is open for real (not `O_PATH`).
/// `ENOTSUP`, `E2BIG`, `ENOSPC`: does not fit the inode's item. fsetxattr(2).
pub fn set_xattr(file: BorrowedFd<'_>, name: &CStr, value: &[u8]) -> io::Result<()> {
    // SAFETY: the name is NUL-terminated and the value's length goes with its pointer; the kernel
    // only reads both, during the call.
    let done = unsafe {
        libc::fsetxattr(file.as_raw_fd(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0)
    };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// The names of the extended attributes of a file or directory that is open for real. `ENOTSUP`: the
/// file system has none. At most 64 KiB of names, which is as many as there can be. flistxattr(2).
pub fn xattr_names(file: BorrowedFd<'_>) -> io::Result<Vec<Vec<u8>>> {
    let names = filled(|buffer| {
        // SAFETY: the kernel writes at most the length that goes with the pointer.
        unsafe { libc::flistxattr(file.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len()) }
    })?;
    Ok(names.split(|b| *b == 0).filter(|name| !name.is_empty()).map(Vec::from).collect())
}

/// The value of one extended attribute, at most 64 KiB; `None`: there is none. fgetxattr(2).
pub fn xattr(file: BorrowedFd<'_>, name: &CStr) -> io::Result<Option<Vec<u8>>> {
    let value = filled(|buffer| {
        // SAFETY: the name is NUL-terminated; the kernel writes at most the length that goes with
        // the pointer.
        unsafe {
            let room = buffer.len();
            libc::fgetxattr(file.as_raw_fd(), name.as_ptr(), buffer.as_mut_ptr().cast(), room)
        }
    });
    match value {
        Err(err) if matches!(err.raw_os_error(), Some(libc::ENODATA | libc::ENOTSUP)) => Ok(None),
        value => value.map(Some),
    }
}

/// What `ask` puts into a buffer; it returns how many bytes that are, or -1. Nearly always few, and
/// the kernel clears as many as there is room for: 64 KiB only for what does not fit.
fn filled(ask: impl Fn(&mut [u8]) -> isize) -> io::Result<Vec<u8>> {
    let get =
        |buffer: &mut [u8]| usize::try_from(ask(buffer)).map_err(|_| io::Error::last_os_error());
    let mut few = [0u8; 256];
    match get(&mut few) {
        Err(err) if err.raw_os_error() == Some(libc::ERANGE) => {
            let mut many = vec![0u8; 64 << 10];
            let len = get(&mut many)?;
            many.truncate(len);
            Ok(many)
        }
        len => Ok(few[..len?].to_vec()),
    }
}

/// Opens the regular file `name` of `dir` for reading, without following it or waiting for a fifo;
/// the caller checks the kind. `name` must be a single component. openat(2).
pub fn open_to_read(dir: BorrowedFd<'_>, name: &[u8]) -> io::Result<File> {
    let flags = OFlag::O_RDONLY
        | OFlag::O_NOFOLLOW
        | OFlag::O_NONBLOCK
        | OFlag::O_NOCTTY
        | OFlag::O_CLOEXEC;
    Ok(File::from(nix::fcntl::openat(dir, name, flags, Mode::empty())?))
}

/// The next piece of `file` that holds data, at or after `from`: where it begins and ends. `None`:
/// only a hole is left. What a file system does not know is data. lseek(2).
pub fn next_data(file: BorrowedFd<'_>, from: u64) -> io::Result<Option<(u64, u64)>> {
    use nix::unistd::{Whence, lseek};
    let at = i64::try_from(from).map_err(|_| io::ErrorKind::FileTooLarge)?;
    let begin = match lseek(file, at, Whence::SeekData) {
        Err(nix::Error::ENXIO) => return Ok(None),
        other => other?,
    };
    let end = lseek(file, begin, Whence::SeekHole)?;
    Ok(Some((begin as u64, end as u64)))
}

/// Lets the empty file `to` share all data of `from`. `EXDEV`, `EOPNOTSUPP`: not on these file
/// systems; `EINVAL`: not with these two files. ioctl_ficlone(2).
pub fn share_data(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> io::Result<()> {
    const FICLONE: u32 = 0x4004_9409; // _IOW(0x94, 9, int), linux/fs.h
    // SAFETY: the argument is a plain descriptor number, open for as long as it is borrowed.
    let done = unsafe { libc::ioctl(to.as_raw_fd(), FICLONE as libc::Ioctl, from.as_raw_fd()) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Makes `[offset, offset + len)` of a file real blocks that cannot run out later; the file grows
/// to hold it. `EOPNOTSUPP`: the file system cannot; `ENOSPC`. fallocate(2).
pub fn allocate(file: BorrowedFd<'_>, offset: u64, len: u64) -> io::Result<()> {
    let signed =
        |n: u64| i64::try_from(n).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge));
    let (offset, len) = (signed(offset)?, signed(len)?);
    Ok(nix::fcntl::fallocate(file, FallocateFlags::empty(), offset, len)?)
}

/// Size and free space of the file system that `file` is on. fstatfs(2).
pub fn space(file: BorrowedFd<'_>) -> io::Result<Space> {
    let stat = nix::sys::statfs::fstatfs(file.as_fd())?;
    // The widths and signs of these differ between C libraries; the values fit.
    #[allow(clippy::unnecessary_cast)]
    let (block, magic) = (stat.block_size() as u64, stat.filesystem_type().0 as u32);
    Ok(Space {
        magic: i64::from(magic),
        total_bytes: stat.blocks().saturating_mul(block),
        free_bytes: stat.blocks_available().saturating_mul(block),
    })
}

/// Bytes that root may still write to the file system that `path` is on. statfs(2).
pub fn free_bytes(path: &Path) -> io::Result<u64> {
    Ok(space(File::open(path)?.as_fd())?.free_bytes)
}

/// Renames `old` to `new`, both our own paths, unless `new` exists: `EEXIST`. Linux 3.15,
/// renameat2(2) with `RENAME_NOREPLACE`.
pub fn rename_new(old: &CStr, new: &CStr) -> io::Result<()> {
    rename_with(old, new, libc::RENAME_NOREPLACE)
}

/// Each of two paths of our own gets the other's name, in one step. `ENOENT`: both must be there;
/// `EINVAL`: this file system cannot. Linux 3.15, renameat2(2) with `RENAME_EXCHANGE`.
pub fn exchange(one: &Path, other: &Path) -> io::Result<()> {
    let [one, other] = [one, other].map(|path| CString::new(path.as_os_str().as_bytes()));
    rename_with(&one?, &other?, libc::RENAME_EXCHANGE)
}

fn rename_with(old: &CStr, new: &CStr, flags: libc::c_uint) -> io::Result<()> {
    // SAFETY: two NUL-terminated strings that the kernel reads during the call.
    let done = unsafe {
        libc::syscall(
            libc::SYS_renameat2,
            libc::AT_FDCWD,
            old.as_ptr(),
            libc::AT_FDCWD,
            new.as_ptr(),
            flags,
        )
    };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Size of the file system that `path` is on, in bytes. statfs(2).
pub fn total_bytes(path: &Path) -> io::Result<u64> {
    Ok(space(File::open(path)?.as_fd())?.total_bytes)
}
