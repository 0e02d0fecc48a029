//! Signals: blocked and read as data, or put back to what a new program expects.

use super::fd::{check, owned};
pub use nix::sys::signal::Signal;

/// Asks a process to end.
pub const TERM: i32 = libc::SIGTERM;
/// Tells a process that its terminal is gone.
pub const HUP: i32 = libc::SIGHUP;
/// Ends a process.
pub const KILL: i32 = libc::SIGKILL;
use nix::sys::signal::{SigSet, SigmaskHow, sigprocmask};
use std::io;
use std::os::fd::{AsFd, OwnedFd};

/// Blocks `signals` for the calling thread (call it before any other thread exists) and returns
/// a non-blocking, close-on-exec descriptor that is readable when one is pending. signalfd(2).
pub fn watch(signals: &[Signal]) -> io::Result<OwnedFd> {
    let set: SigSet = signals.iter().copied().collect();
    sigprocmask(SigmaskHow::SIG_BLOCK, Some(&set), None)?;
    let flags = libc::SFD_NONBLOCK | libc::SFD_CLOEXEC;
    // SAFETY: `set` holds an initialised sigset_t that outlives the call; -1 asks for a new
    // descriptor, which is returned.
    unsafe { owned(libc::signalfd(-1, set.as_ref(), flags).into()) }
}

/// One signal that came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// Its number.
    pub number: i32,
    /// Somebody outside our pid namespace called kill(2): the sender has no number that we could
    /// see.
    pub from_outside: bool,
}

/// Takes one pending signal from a [`watch`] descriptor; `None` when there is none.
pub fn take(watched: impl AsFd) -> io::Result<Option<Taken>> {
    /// `struct signalfd_siginfo` is 128 bytes: number, error, code and sender first.
    const SIZE: usize = size_of::<libc::signalfd_siginfo>();
    let mut record = [0u8; SIZE];
    match super::fd::read(watched, &mut record) {
        Ok(SIZE) => {
            let word = |at: usize| {
                i32::from_ne_bytes([record[at], record[at + 1], record[at + 2], record[at + 3]])
            };
            let from_outside = word(8) == libc::SI_USER && word(12) == 0;
            Ok(Some(Taken { number: word(0), from_outside }))
        }
        Ok(_) => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "short signal record")),
        Err(err) if err.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(err) => Err(err),
    }
}

/// Puts every signal back to its default action and unblocks all: for a child before exec.
/// Ignored signals and the mask would otherwise be inherited by the new program.
pub fn reset_all() -> io::Result<()> {
    /// Not less than the kernel's `struct sigaction` on any architecture; all zero is `SIG_DFL`
    /// with no flags and an empty mask.
    const DEFAULT: [u64; 8] = [0; 8];
    /// Bytes of the kernel's own signal set.
    const SET_BYTES: usize = 8;
    for number in 1..=64 {
        let none = std::ptr::null_mut::<u64>();
        // SAFETY: the kernel reads one sigaction from `DEFAULT` and is not asked for the old one.
        // The system call itself, because the C library's function refuses the signals it keeps
        // for threads (32 to 34). KILL and STOP cannot be changed: they have their default.
        unsafe {
            libc::syscall(libc::SYS_rt_sigaction, number, DEFAULT.as_ptr(), none, SET_BYTES);
        }
    }
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)?;
    Ok(())
}

/// Sends signal `number` to the process group that `pid` leads. As [`send`] in everything else: a
/// group has its number for as long as its leader has not been waited for.
pub fn send_to_group(pid: i32, number: i32) -> io::Result<()> {
    if pid <= 1 {
        return Err(io::Error::from_raw_os_error(libc::ESRCH));
    }
    // SAFETY: plain integers go in.
    check(unsafe { libc::kill(-pid, number) }.into())?;
    Ok(())
}

/// Sends signal `number` to process `pid`, as seen from our own pid namespace. Call it only for
/// our own child that has not been waited for: then the number cannot belong to another.
/// `ESRCH`: gone. kill(2).
pub fn send(pid: i32, number: i32) -> io::Result<()> {
    if pid <= 0 {
        return Err(io::Error::from_raw_os_error(libc::ESRCH));
    }
    // SAFETY: plain integers go in.
    check(unsafe { libc::kill(pid, number) }.into())?;
    Ok(())
}

/// Sends signal `number` to every process that we may signal, except ourselves and pid 1 of our
/// pid namespace. Call it only as pid 1 of a container. No process there: success. kill(2), `-1`.
pub fn send_to_all_others(number: i32) -> io::Result<()> {
    assert_eq!(std::process::id(), 1, "only pid 1 of a container signals everybody");
    // SAFETY: plain integers go in; the assertion keeps the meaning of -1 inside the container.
    match check(unsafe { libc::kill(-1, number) }.into()) {
        Err(err) if err.raw_os_error() == Some(libc::ESRCH) => Ok(()),
        other => other.map(|_| ()),
    }
}

/// Whether `number` names a signal of this kernel: 1 to 64.
pub fn is_valid(number: i32) -> bool {
    (1..=64).contains(&number)
}
