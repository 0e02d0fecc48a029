//! Namespaces, and the forks that make processes in them.

use super::fd::check;
pub use nix::sched::CloneFlags as Spaces;
use std::io;
use std::os::fd::{AsFd, FromRawFd, OwnedFd, RawFd};

/// Leaves the namespaces of `spaces` for new ones, owned by the caller's user namespace. With
/// `CLONE_NEWPID` it is the next child that lands in the new one. unshare(2).
pub fn unshare(spaces: Spaces) -> io::Result<()> {
    Ok(nix::sched::unshare(spaces)?)
}

/// Enters the namespace behind `fd`, which must be of kind `space`. A user namespace can be
/// entered by a process with one thread only, and gives it every capability there. setns(2).
pub fn enter(fd: impl AsFd, space: Spaces) -> io::Result<()> {
    Ok(nix::sched::setns(fd, space)?)
}

/// Sets the host name of the caller's uts namespace, at most 64 bytes. sethostname(2).
pub fn set_host_name(name: &str) -> io::Result<()> {
    Ok(nix::unistd::sethostname(name)?)
}

/// The two returns of a fork.
pub enum Fork {
    /// In the process that called.
    Parent {
        /// The child's number in the caller's pid namespace.
        pid: i32,
        /// The child itself; see [`super::process::pidfd_open`].
        pidfd: OwnedFd,
    },
    /// In the new process.
    Child,
}

/// Whose child a forked process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parent {
    /// The caller's.
    Caller,
    /// The caller's own parent's, as if that one had forked (`CLONE_PARENT`).
    CallersParent,
}

/// Copies the caller into a new process, which starts in new namespaces of the given kinds.
/// Its parent gets `SIGCHLD` when it ends. `EINVAL` when the caller has more than one thread:
/// a copy of one thread beside locks that others held is not sound. clone(2), Linux 5.2.
pub fn fork(spaces: Spaces, parent: Parent) -> io::Result<Fork> {
    // CLONE_THREAD makes unshare a check for a single thread, and nothing else.
    nix::sched::unshare(Spaces::CLONE_THREAD)?;
    let mut pidfd: RawFd = -1;
    let mut flags = spaces.bits() | libc::CLONE_PIDFD | libc::SIGCHLD;
    if parent == Parent::CallersParent {
        flags |= libc::CLONE_PARENT;
    }
    let (flags, no_stack) = (flags as u32 as libc::c_ulong, 0 as libc::c_ulong);
    // SAFETY: without CLONE_VM and with a null stack this is a fork: the child runs on its own
    // copy of our memory. There is one thread (checked above), so no lock is held by another. The
    // third argument is where CLONE_PIDFD stores the descriptor, on every architecture.
    let pid = check(unsafe { libc::syscall(libc::SYS_clone, flags, no_stack, &mut pidfd, 0, 0) })?;
    if pid == 0 {
        return Ok(Fork::Child);
    }
    // SAFETY: clone succeeded with CLONE_PIDFD, so this is a new descriptor that we own.
    Ok(Fork::Parent { pid: pid as i32, pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) } })
}
