//! Descriptors that become readable when the kernel has something to tell.

use super::fd::{check, owned};
use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
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

/// Readable once a file has been written, moved or removed in one of `dirs`, or one of them itself;
/// those that are not there are left out. Non-blocking, close-on-exec. Rearm with [`drain`]. inotify(7).
pub fn directory_changes(dirs: &[impl AsRef<Path>]) -> io::Result<OwnedFd> {
    // SAFETY: a plain integer goes in, a new descriptor comes out.
    let fd = unsafe { owned(libc::inotify_init1(libc::IN_CLOEXEC | libc::IN_NONBLOCK).into())? };
    let what = libc::IN_CLOSE_WRITE
        | libc::IN_CREATE
        | libc::IN_DELETE
        | libc::IN_MOVED_FROM
        | libc::IN_MOVED_TO
        | libc::IN_DELETE_SELF
        | libc::IN_MOVE_SELF
        | libc::IN_ONLYDIR;
    for dir in dirs {
        let path = CString::new(dir.as_ref().as_os_str().as_bytes())?;
        // SAFETY: `path` is a NUL-terminated string that outlives the call; `fd` is open.
        match check(unsafe { libc::inotify_add_watch(fd.as_raw_fd(), path.as_ptr(), what) }.into())
        {
            Err(err) if err.kind() == io::ErrorKind::NotFound => {}
            other => drop(other?),
        }
    }
    Ok(fd)
}

/// Reads and forgets everything that waits in a non-blocking event descriptor.
pub fn drain(fd: impl AsFd) -> io::Result<()> {
    let mut buffer = [0; 4096];
    loop {
        match nix::unistd::read(&fd, &mut buffer) {
            Ok(0) | Err(nix::errno::Errno::EAGAIN) => return Ok(()),
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(err) => return Err(err.into()),
        }
    }
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
