//! A cgroup hierarchy without a mount point.

use super::fd::{check, owned};
use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr::null;

/// Commands of fsconfig(2), linux/mount.h.
const FSCONFIG_SET_FLAG: libc::c_uint = 0;
const FSCONFIG_SET_STRING: libc::c_uint = 1;
const FSCONFIG_CMD_CREATE: libc::c_uint = 6;

/// Makes the cgroup v1 hierarchy `name`, which has no controllers, with option `favordynmods`. It
/// is mounted nowhere and ends with the descriptor (if no cgroup was made in it).
///
/// `EINVAL`: the kernel is older than the option (6.0); `ENODEV`, `ENOENT`: it has no v1 or no
/// named hierarchies. Source: kernel/cgroup/cgroup-v1.c, fsopen(2) of Linux 5.2.
pub fn favor_quick_moves(name: &CStr) -> io::Result<OwnedFd> {
    // SAFETY: the string is NUL-terminated and static; a new descriptor comes out.
    let fs = unsafe { owned(libc::syscall(libc::SYS_fsopen, c"cgroup".as_ptr(), 1))? };
    configure(&fs, FSCONFIG_SET_FLAG, Some(c"none"), None)?;
    configure(&fs, FSCONFIG_SET_STRING, Some(c"name"), Some(name))?;
    configure(&fs, FSCONFIG_SET_FLAG, Some(c"favordynmods"), None)?;
    configure(&fs, FSCONFIG_CMD_CREATE, None, None)?;
    // SAFETY: plain integers go in (1: close-on-exec), a new descriptor comes out.
    unsafe { owned(libc::syscall(libc::SYS_fsmount, fs.as_raw_fd(), 1, 0)) }
}

/// One fsconfig(2) request.
fn configure(
    fs: &OwnedFd,
    command: libc::c_uint,
    key: Option<&CStr>,
    value: Option<&CStr>,
) -> io::Result<()> {
    let (key, value) = (key.map_or(null(), CStr::as_ptr), value.map_or(null(), CStr::as_ptr));
    // SAFETY: key and value are null or NUL-terminated strings that outlive the call.
    check(unsafe { libc::syscall(libc::SYS_fsconfig, fs.as_raw_fd(), command, key, value, 0) })?;
    Ok(())
}
