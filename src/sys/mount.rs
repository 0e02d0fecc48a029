//! Mounts by descriptor: made detached, given their attributes, attached to an open target.

use super::fd::{check, owned};
use nix::mount::{MntFlags, MsFlags};
use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// What a mount forbids; bits of linux/mount.h, `MOUNT_ATTR_*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attr(u64);

impl Attr {
    /// Nothing.
    pub const NONE: Attr = Attr(0);
    /// Writing.
    pub const READ_ONLY: Attr = Attr(1);
    /// Set-user-id programs.
    pub const NO_SUID: Attr = Attr(2);
    /// Opening devices.
    pub const NO_DEV: Attr = Attr(4);
    /// Executing.
    pub const NO_EXEC: Attr = Attr(8);

    /// Both.
    pub const fn and(self, other: Attr) -> Attr {
        Attr(self.0 | other.0)
    }
}

/// `MOUNT_ATTR_IDMAP`.
const ATTR_IDMAP: u64 = 0x0010_0000;
/// `OPEN_TREE_CLONE`.
const OPEN_TREE_CLONE: libc::c_uint = 1;
/// `MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH`.
const MOVE_BY_FD: libc::c_uint = 0x4 | 0x40;

/// `struct mount_attr`, linux/mount.h.
#[repr(C)]
struct MountAttr {
    attr_set: u64,
    attr_clr: u64,
    propagation: u64,
    userns_fd: u64,
}
const _: () = assert!(size_of::<MountAttr>() == 32);

/// Makes a mount of a new file system of type `kind`, attached nowhere. An option is `key=value`
/// or a bare `key`. `ENODEV`: the kernel has no such type. fsopen(2), fsconfig(2), fsmount(2),
/// Linux 5.2.
pub fn new(kind: &str, options: &[(&str, &str)], attr: Attr) -> io::Result<OwnedFd> {
    /// `FSCONFIG_SET_FLAG`, `FSCONFIG_SET_STRING`, `FSCONFIG_CMD_CREATE`.
    const SET_FLAG: libc::c_uint = 0;
    const SET_STRING: libc::c_uint = 1;
    const CREATE: libc::c_uint = 6;
    let kind = CString::new(kind)?;
    // SAFETY: a NUL-terminated string goes in, a new descriptor comes out; 1 is FSOPEN_CLOEXEC.
    let context = unsafe { owned(libc::syscall(libc::SYS_fsopen, kind.as_ptr(), 1))? };
    let fd = context.as_raw_fd();
    let no_text = std::ptr::null::<libc::c_char>();
    // SAFETY: two NUL-terminated strings that outlive the call. What /proc/mounts tells as the source;
    // types that take none refuse it, which harms nothing.
    unsafe {
        libc::syscall(libc::SYS_fsconfig, fd, SET_STRING, c"source".as_ptr(), kind.as_ptr(), 0)
    };
    for (key, value) in options {
        let (key, value) = (CString::new(*key)?, CString::new(*value)?);
        let (command, value) = match value.is_empty() {
            true => (SET_FLAG, no_text),
            false => (SET_STRING, value.as_ptr()),
        };
        // SAFETY: both strings are NUL-terminated (or null for a flag) and outlive the call:
        // `value` shadows a pointer into the CString that lives until the end of this round.
        check(unsafe { libc::syscall(libc::SYS_fsconfig, fd, command, key.as_ptr(), value, 0) })?;
    }
    // SAFETY: CREATE takes neither key nor value.
    check(unsafe { libc::syscall(libc::SYS_fsconfig, fd, CREATE, no_text, no_text, 0) })?;
    // SAFETY: plain integers go in, a new descriptor comes out; 1 is FSMOUNT_CLOEXEC.
    unsafe { owned(libc::syscall(libc::SYS_fsmount, fd, 1, attr.0 as libc::c_uint)) }
}

/// Changes one option of the file system of `mount`, its topmost directory. fspick(2), Linux 5.2.
pub fn change_option(mount: impl AsFd, key: &str, value: &str) -> io::Result<()> {
    /// `FSCONFIG_SET_STRING`, `FSCONFIG_CMD_RECONFIGURE`.
    const SET_STRING: libc::c_uint = 1;
    const RECONFIGURE: libc::c_uint = 7;
    /// `FSPICK_CLOEXEC | FSPICK_EMPTY_PATH`.
    const FLAGS: libc::c_uint = 1 | 8;
    let (key, value) = (CString::new(key)?, CString::new(value)?);
    let mount = mount.as_fd().as_raw_fd();
    // SAFETY: the path is an empty NUL-terminated string; a new descriptor comes out.
    let context = unsafe { owned(libc::syscall(libc::SYS_fspick, mount, c"".as_ptr(), FLAGS))? };
    let (fd, no_text) = (context.as_raw_fd(), std::ptr::null::<libc::c_char>());
    // SAFETY: two NUL-terminated strings that outlive the call.
    check(unsafe {
        libc::syscall(libc::SYS_fsconfig, fd, SET_STRING, key.as_ptr(), value.as_ptr(), 0)
    })?;
    // SAFETY: RECONFIGURE takes neither key nor value.
    check(unsafe { libc::syscall(libc::SYS_fsconfig, fd, RECONFIGURE, no_text, no_text, 0) })?;
    Ok(())
}

/// Copies the mount at `path` (from `dir`; empty: `dir` itself, which may be any file), attached
/// nowhere: a bind mount in the making. With `recursive` the mounts below come along.
/// open_tree(2), Linux 5.2.
pub fn copy(dir: BorrowedFd<'_>, path: &Path, recursive: bool) -> io::Result<OwnedFd> {
    use std::os::unix::ffi::OsStrExt;
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut flags = OPEN_TREE_CLONE | libc::O_CLOEXEC as libc::c_uint;
    if path.is_empty() {
        flags |= libc::AT_EMPTY_PATH as libc::c_uint;
    }
    if recursive {
        flags |= libc::AT_RECURSIVE as libc::c_uint;
    }
    // SAFETY: a NUL-terminated string and plain integers go in, a new descriptor comes out.
    unsafe { owned(libc::syscall(libc::SYS_open_tree, dir.as_raw_fd(), path.as_ptr(), flags)) }
}

/// Adds to what the mount `fd` forbids, and with `id_map` (a user namespace) shows its owners
/// through that map: only for a mount that was never attached. `EINVAL`: the file system cannot
/// be id-mapped. mount_setattr(2), Linux 5.12.
pub fn restrict(
    mount: impl AsFd,
    attr: Attr,
    id_map: Option<BorrowedFd<'_>>,
    recursive: bool,
) -> io::Result<()> {
    change(mount, attr, Attr::NONE, id_map, recursive)
}

/// As [`restrict`], for one mount, which may do what `allow` names unless `attr` does too.
pub fn replace(
    mount: impl AsFd,
    attr: Attr,
    allow: Attr,
    id_map: Option<BorrowedFd<'_>>,
) -> io::Result<()> {
    change(mount, attr, allow, id_map, false)
}

fn change(
    mount: impl AsFd,
    attr: Attr,
    allow: Attr,
    id_map: Option<BorrowedFd<'_>>,
    recursive: bool,
) -> io::Result<()> {
    let args = MountAttr {
        attr_set: attr.0 | if id_map.is_some() { ATTR_IDMAP } else { 0 },
        attr_clr: allow.0 & !attr.0,
        propagation: 0,
        userns_fd: id_map.map_or(0, |fd| fd.as_raw_fd() as u64),
    };
    let mut flags = libc::AT_EMPTY_PATH as libc::c_uint;
    if recursive {
        flags |= libc::AT_RECURSIVE as libc::c_uint;
    }
    let (fd, size) = (mount.as_fd().as_raw_fd(), size_of::<MountAttr>());
    // SAFETY: the path is an empty NUL-terminated string, `args` is a mount_attr of `size` bytes;
    // both outlive the call, which only reads them.
    check(unsafe { libc::syscall(libc::SYS_mount_setattr, fd, c"".as_ptr(), flags, &args, size) })?;
    Ok(())
}

/// Attaches a mount to the open file or directory `target` (an `O_PATH` descriptor will do).
/// `ENOTDIR`: one is a directory, the other not. move_mount(2), Linux 5.2.
pub fn attach(mount: impl AsFd, target: impl AsFd) -> io::Result<()> {
    let (from, to) = (mount.as_fd().as_raw_fd(), target.as_fd().as_raw_fd());
    let empty = c"".as_ptr();
    // SAFETY: both paths are empty NUL-terminated strings, the rest are plain integers.
    check(unsafe { libc::syscall(libc::SYS_move_mount, from, empty, to, empty, MOVE_BY_FD) })?;
    Ok(())
}

/// Mounts an overlay at `target`; that and the directories in `options` are taken from the
/// working directory. mount(2): fsconfig(2) would limit each option to 256 bytes.
pub fn overlay(target: &str, options: &str, attr: Attr) -> io::Result<()> {
    let mut flags = MsFlags::empty();
    flags.set(MsFlags::MS_RDONLY, attr.0 & Attr::READ_ONLY.0 != 0);
    flags.set(MsFlags::MS_NOSUID, attr.0 & Attr::NO_SUID.0 != 0);
    flags.set(MsFlags::MS_NODEV, attr.0 & Attr::NO_DEV.0 != 0);
    flags.set(MsFlags::MS_NOEXEC, attr.0 & Attr::NO_EXEC.0 != 0);
    Ok(nix::mount::mount(Some("overlay"), target, Some("overlay"), flags, Some(options))?)
}

/// Stops mounts and unmounts from travelling between this mount namespace and others.
pub fn make_all_private() -> io::Result<()> {
    let flags = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    Ok(nix::mount::mount(None::<&str>, "/", None::<&str>, flags, None::<&str>)?)
}

/// Makes the mount `root` the caller's root and working directory and lets go of the old root with
/// everything below it. pivot_root(2).
pub fn pivot(root: impl AsFd) -> io::Result<()> {
    use nix::fcntl::OFlag;
    let old = nix::fcntl::open(
        "/",
        OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC,
        nix::sys::stat::Mode::empty(),
    )?;
    nix::unistd::fchdir(&root)?;
    // The old root lands on top of the new one, where it is found again by descriptor.
    nix::unistd::pivot_root(".", ".")?;
    nix::unistd::fchdir(&old)?;
    nix::mount::umount2(".", MntFlags::MNT_DETACH)?;
    nix::unistd::chdir("/")?;
    Ok(())
}

/// File systems whose content is the kernel's: nothing of ours may be mounted over their entries
/// on somebody else's word.
pub fn is_kernel_made(fd: impl AsFd) -> io::Result<bool> {
    use nix::sys::statfs::{PROC_SUPER_MAGIC, SYSFS_MAGIC, fstatfs};
    Ok([PROC_SUPER_MAGIC, SYSFS_MAGIC].contains(&fstatfs(fd)?.filesystem_type()))
}
