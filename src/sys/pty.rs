//! Terminals: making them for a container's process, and handling the operator's own.

use super::fd::{check, owned};
use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// `TIOCGPTPEER`, asm-generic/ioctls.h: opens the other side by the master alone. Linux 4.13.
const TIOCGPTPEER: libc::c_ulong = 0x5441;

/// Opens a new terminal: (master, slave), both close-on-exec and nobody's controlling terminal.
/// `ptmx` must be a descriptor of the multiplexer of the devpts that is meant; the slave comes
/// from the master itself, never from a path. pts(4), ioctl_tty(2).
pub fn open(ptmx: OwnedFd) -> io::Result<(OwnedFd, OwnedFd)> {
    let unlock: libc::c_int = 0;
    let master = ptmx.as_raw_fd();
    // SAFETY: TIOCSPTLCK reads one int, which lives on our stack.
    check(unsafe { libc::ioctl(master, libc::TIOCSPTLCK as _, &unlock) }.into())?;
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: TIOCGPTPEER takes open flags by value and returns a new descriptor.
    let slave = unsafe { owned(libc::ioctl(master, TIOCGPTPEER as _, flags).into())? };
    Ok((ptmx, slave))
}

/// Rows and columns of a terminal. `ENOTTY`: `fd` is none.
pub fn size(fd: impl AsFd) -> io::Result<(u16, u16)> {
    // SAFETY: all-zero is a valid winsize.
    let mut size: libc::winsize = unsafe { std::mem::zeroed() };
    // SAFETY: TIOCGWINSZ fills the winsize, which is ours until the call returns.
    check(unsafe { libc::ioctl(fd.as_fd().as_raw_fd(), libc::TIOCGWINSZ as _, &mut size) }.into())?;
    Ok((size.ws_row, size.ws_col))
}

/// Sets rows and columns; the foreground processes get `SIGWINCH` when they change.
pub fn set_size(fd: impl AsFd, rows: u16, columns: u16) -> io::Result<()> {
    let size = libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: TIOCSWINSZ reads the winsize, which lives on our stack.
    check(unsafe { libc::ioctl(fd.as_fd().as_raw_fd(), libc::TIOCSWINSZ as _, &size) }.into())?;
    Ok(())
}

/// Makes the terminal the controlling one of the caller, who leads a session that has none.
pub fn take_control(slave: impl AsFd) -> io::Result<()> {
    // SAFETY: TIOCSCTTY takes an int by value: 0, do not steal it from another session.
    check(unsafe { libc::ioctl(slave.as_fd().as_raw_fd(), libc::TIOCSCTTY as _, 0) }.into())?;
    Ok(())
}

/// The operator's terminal passes every key on as it is, until this value is dropped.
pub struct RawMode<'a> {
    terminal: BorrowedFd<'a>,
    before: Termios,
}

impl<'a> RawMode<'a> {
    /// Switches `terminal` to raw. `ENOTTY`: it is no terminal. termios(3).
    pub fn enter(terminal: BorrowedFd<'a>) -> io::Result<RawMode<'a>> {
        let before = tcgetattr(terminal)?;
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        tcsetattr(terminal, SetArg::TCSADRAIN, &raw)?;
        Ok(RawMode { terminal, before })
    }
}

impl Drop for RawMode<'_> {
    fn drop(&mut self) {
        // The terminal may be gone by now; then there is nothing to put back.
        let _ = tcsetattr(self.terminal, SetArg::TCSADRAIN, &self.before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::OpenOptions;

    #[test]
    fn a_terminal_keeps_its_size_and_raw_mode_is_undone() {
        let ptmx = OpenOptions::new().read(true).write(true).open("/dev/pts/ptmx");
        let ptmx = ptmx.or_else(|_| OpenOptions::new().read(true).write(true).open("/dev/ptmx"));
        let (master, slave) = open(ptmx.expect("ptmx").into()).expect("terminal");
        set_size(&master, 40, 132).expect("set");
        assert_eq!(size(&slave).expect("get"), (40, 132));
        let before = tcgetattr(&slave).expect("attributes");
        let raw = RawMode::enter(slave.as_fd()).expect("raw");
        assert_ne!(tcgetattr(&slave).expect("attributes").local_flags, before.local_flags);
        drop(raw);
        assert_eq!(tcgetattr(&slave).expect("attributes").local_flags, before.local_flags);
    }
}
