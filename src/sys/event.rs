//! Descriptors that become readable when the kernel has something to tell.

use super::fd::{check, owned};
use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// A counter at zero: readable (8 bytes) once somebody has added to it. Non-blocking,
/// close-on-exec. eventfd(2).
pub fn counter() -> io::Result<OwnedFd> {
    // SAFETY: two plain integers go in, a new descriptor comes out.
    unsafe { owned(libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK).into()) }
}

/// Readable once the content of `file` has changed, also for kernel files that announce their
/// changes (cgroup v2's `*.events`). Non-blocking, close-on-exec. Read at least 16 bytes to rearm.
/// `NotFound`: no such file; `EMFILE`: the user's inotify instances are used up
/// (fs.inotify.max_user_instances). inotify(7).
pub fn file_changes(file: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(file.as_os_str().as_bytes())?;
    // SAFETY: a plain integer goes in, a new descriptor comes out.
    let fd = unsafe { owned(libc::inotify_init1(libc::IN_CLOEXEC | libc::IN_NONBLOCK).into())? };
    // SAFETY: `path` is a NUL-terminated string that outlives the call; `fd` is open.
    check(
        unsafe { libc::inotify_add_watch(fd.as_raw_fd(), path.as_ptr(), libc::IN_MODIFY) }.into(),
    )?;
    Ok(fd)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::fd;

    #[test]
    fn a_counter_is_readable_after_somebody_added() {
        let counter = counter().expect("eventfd");
        assert!(!fd::wait_readable(&counter, 0).expect("poll"));
        fd::write(&counter, &1u64.to_ne_bytes()).expect("add");
        assert!(fd::wait_readable(&counter, 0).expect("poll"));
        assert_eq!(fd::read(&counter, &mut [0; 64]).expect("read"), 8);
        assert!(!fd::wait_readable(&counter, 0).expect("poll"));
    }

    #[test]
    fn a_changed_file_is_announced() {
        let path = std::env::temp_dir().join(format!("terrarium-event-{}", std::process::id()));
        std::fs::write(&path, "a").expect("write");
        let changes = file_changes(&path).expect("inotify");
        assert!(!fd::wait_readable(&changes, 0).expect("poll"));
        std::fs::write(&path, "b").expect("write");
        assert!(fd::wait_readable(&changes, 0).expect("poll"));
        std::fs::remove_file(&path).expect("remove");
    }
}
