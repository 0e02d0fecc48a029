//! Descriptors: pipes, sealed memory files, polling, and which of them survive an exec.

use nix::fcntl::{FcntlArg, OFlag, fcntl};
pub use nix::poll::{PollFd, PollFlags};
use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// Turns the `-1` convention of a raw call into a result.
pub(super) fn check(result: libc::c_long) -> io::Result<libc::c_long> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Takes ownership of the descriptor that a call has just returned.
///
/// # Safety
/// `result` is what the kernel returned from a call that makes one new descriptor.
pub(super) unsafe fn owned(result: libc::c_long) -> io::Result<OwnedFd> {
    let fd = check(result)? as RawFd;
    // SAFETY: the kernel has just made this descriptor for us (the caller's promise); nobody
    // else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Makes a pipe: (read end, write end), both close-on-exec. pipe2(2).
pub fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(nix::unistd::pipe2(OFlag::O_CLOEXEC)?)
}

/// A file that lives in memory only, holds `bytes` and can never change again: neither size nor
/// content, nor the seals. Close-on-exec; position 0. memfd_create(2), Linux 3.17.
pub fn sealed_memory(name: &str, bytes: &[u8]) -> io::Result<OwnedFd> {
    use std::io::{Seek, Write};
    let name = CString::new(name)?;
    // SAFETY: `name` is a NUL-terminated string that outlives the call; the flags are plain bits.
    // The result is a new descriptor.
    let fd = unsafe {
        owned(
            libc::memfd_create(name.as_ptr(), libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING).into(),
        )?
    };
    let mut file = std::fs::File::from(fd);
    file.write_all(bytes)?;
    file.rewind()?;
    let seals = nix::fcntl::SealFlag::all();
    fcntl(&file, FcntlArg::F_ADD_SEALS(seals))?;
    Ok(file.into())
}

/// A copy in memory of the program `from`, to be executed by its descriptor: neither its content
/// nor its seals can change, and only who has power over the box's root can read it, so a process
/// that executes it is not dumpable. Close-on-exec. `MFD_EXEC`, Linux 6.3, where it may be needed.
pub fn sealed_program(name: &str, from: &mut impl io::Read) -> io::Result<OwnedFd> {
    const MFD_EXEC: libc::c_uint = 0x10;
    let name = CString::new(name)?;
    let make = |more: libc::c_uint| {
        let flags = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING | more;
        // SAFETY: `name` is a NUL-terminated string that outlives the call; the flags are plain
        // bits. The result is a new descriptor.
        unsafe { owned(libc::memfd_create(name.as_ptr(), flags).into()) }
    };
    // `EINVAL`: an older kernel, where every one can be executed.
    let fd = make(MFD_EXEC).or_else(|err| match err.kind() {
        io::ErrorKind::InvalidInput => make(0),
        _ => Err(err),
    })?;
    let mut file = std::fs::File::from(fd);
    io::copy(from, &mut file)?;
    nix::sys::stat::fchmod(&file, nix::sys::stat::Mode::from_bits_truncate(0o111))?;
    fcntl(&file, FcntlArg::F_ADD_SEALS(nix::fcntl::SealFlag::all()))?;
    Ok(file.into())
}

/// Switches `O_NONBLOCK`. The flag belongs to the open file, so every copy of `fd`, in other
/// processes too, follows.
pub fn set_nonblocking(fd: impl AsFd, on: bool) -> io::Result<()> {
    let flags = OFlag::from_bits_retain(fcntl(&fd, FcntlArg::F_GETFL)?);
    let wanted = if on { flags | OFlag::O_NONBLOCK } else { flags - OFlag::O_NONBLOCK };
    if wanted != flags {
        fcntl(&fd, FcntlArg::F_SETFL(wanted))?;
    }
    Ok(())
}

/// Sets or takes a mark on an open pipe's read end, that every copy of `fd`, in other processes too,
/// shows. It is `O_APPEND`, which means nothing to who reads. Nobody else may set flags meanwhile.
pub fn set_mark(fd: impl AsFd, on: bool) -> io::Result<()> {
    let flags = OFlag::from_bits_retain(fcntl(&fd, FcntlArg::F_GETFL)?);
    let wanted = if on { flags | OFlag::O_APPEND } else { flags - OFlag::O_APPEND };
    if wanted != flags {
        fcntl(&fd, FcntlArg::F_SETFL(wanted))?;
    }
    Ok(())
}

/// Whether it has the mark of [`set_mark`].
pub fn has_mark(fd: impl AsFd) -> bool {
    let flags = fcntl(&fd, FcntlArg::F_GETFL);
    flags.is_ok_and(|flags| OFlag::from_bits_retain(flags).contains(OFlag::O_APPEND))
}

/// Bytes in a pipe that nobody has read yet, and how many it takes. `FIONREAD` of
/// asm-generic/ioctls.h, `F_GETPIPE_SZ`; pipe(7).
pub fn unread(pipe: impl AsFd) -> io::Result<(usize, usize)> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: `bytes` is a C int that outlives the call, which the kernel writes to.
    check(
        unsafe { libc::ioctl(pipe.as_fd().as_raw_fd(), libc::FIONREAD as _, &mut bytes) }.into(),
    )?;
    Ok((bytes as usize, fcntl(&pipe, FcntlArg::F_GETPIPE_SZ)? as usize))
}

/// Waits until one of `watched` is ready and returns how many are; 0 after `timeout_ms`.
/// `None` waits for ever. `Interrupted`: a signal came, ask again. poll(2).
pub fn poll(watched: &mut [PollFd<'_>], timeout_ms: Option<u16>) -> io::Result<usize> {
    let timeout = timeout_ms.map_or(nix::poll::PollTimeout::NONE, nix::poll::PollTimeout::from);
    Ok(nix::poll::poll(watched, timeout)? as usize)
}

/// Waits until `fd` can be read (or has hung up); `false` after `timeout_ms`. Not cut short by
/// signals, so the wait is at most one time-out longer for each that arrives.
pub fn wait_readable(fd: impl AsFd, timeout_ms: u16) -> io::Result<bool> {
    loop {
        match poll(&mut [PollFd::new(fd.as_fd(), PollFlags::POLLIN)], Some(timeout_ms)) {
            Ok(ready) => return Ok(ready > 0),
            Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
            Err(err) => return Err(err),
        }
    }
}

/// Whether the other end of a connected socket has gone, or sends nothing more, although there may
/// be something to read. Waits for nothing. poll(2), `POLLRDHUP`.
pub fn has_hung_up(socket: impl AsFd) -> bool {
    let ends =
        PollFlags::POLLHUP | PollFlags::POLLERR | PollFlags::from_bits_retain(libc::POLLRDHUP);
    let mut watched = [PollFd::new(socket.as_fd(), ends)];
    poll(&mut watched, Some(0)).is_ok_and(|ready| ready > 0)
}

/// Reads once into `buffer`; 0 is the end. `WouldBlock` on an empty non-blocking descriptor,
/// `EIO` on a terminal whose other side is gone. read(2).
pub fn read(fd: impl AsFd, buffer: &mut [u8]) -> io::Result<usize> {
    Ok(nix::unistd::read(fd, buffer)?)
}

/// Writes once, perhaps only a part, and returns how much. write(2).
pub fn write(fd: impl AsFd, bytes: &[u8]) -> io::Result<usize> {
    Ok(nix::unistd::write(fd, bytes)?)
}

/// Makes `fd` this process's standard input, output or error too, open across exec. dup2(2).
pub fn become_standard(fd: impl AsFd, stream: Standard) -> io::Result<()> {
    match stream {
        Standard::Input => nix::unistd::dup2_stdin(fd)?,
        Standard::Output => nix::unistd::dup2_stdout(fd)?,
        Standard::Error => nix::unistd::dup2_stderr(fd)?,
    }
    Ok(())
}

/// The three descriptors that every program expects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standard {
    /// Descriptor 0.
    Input,
    /// Descriptor 1.
    Output,
    /// Descriptor 2.
    Error,
}

/// Takes descriptor 0, which the parent prepared as a private channel; afterwards 0 is /dev/null.
/// For use once, at the start of a role whose contract says that 0 is a socket.
pub fn take_standard_input() -> io::Result<OwnedFd> {
    let channel = io::stdin().as_fd().try_clone_to_owned()?;
    become_standard(std::fs::File::open("/dev/null")?, Standard::Input)?;
    Ok(channel)
}

/// Closes every descriptor from 3 up except `keep`: the first act of a role that serves strangers
/// and does not know what it inherited. Call it at the start of the process only, when every
/// descriptor that is owned by anyone, other than in frames that are never returned to, is in
/// `keep`. close_range(2), Linux 5.9.
pub fn close_inherited(keep: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut numbers: Vec<u32> = keep.iter().map(|fd| fd.as_raw_fd() as u32).collect();
    numbers.sort_unstable();
    let mut first = 3;
    for number in numbers.into_iter().chain([u32::MAX]) {
        if first < number {
            let last = if number == u32::MAX { number } else { number - 1 };
            // SAFETY: plain integers go in; no memory is touched. That nobody owns one of these
            // descriptors is the documented condition of this function.
            check(unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) })?;
        }
        first = first.max(number.saturating_add(1));
    }
    Ok(())
}

/// Marks every descriptor from 3 up close-on-exec: the last thing before exec of a foreign
/// program. close_range(2), Linux 5.11.
pub fn close_all_on_exec() -> io::Result<()> {
    // SAFETY: plain integers go in; no descriptor is closed by this call itself.
    check(unsafe {
        libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC)
    })?;
    Ok(())
}

/// Lets `fd` stay open in the next program, whatever was said before. fcntl(2).
pub fn keep_on_exec(fd: impl AsFd) -> io::Result<()> {
    let none = nix::fcntl::FdFlag::empty();
    nix::fcntl::fcntl(fd, nix::fcntl::FcntlArg::F_SETFD(none))?;
    Ok(())
}

/// The number by which the next program finds `fd`, if it stays open.
pub fn number(fd: &OwnedFd) -> i32 {
    fd.as_raw_fd()
}

/// Takes a descriptor that the program before this one has left open under `number`; it is
/// close-on-exec from now on. To be called once for each number, before anything else is opened.
/// `EBADF`: there is none. fcntl(2).
pub fn take_inherited(number: i32) -> io::Result<OwnedFd> {
    if number <= 2 {
        return Err(io::Error::from_raw_os_error(libc::EBADF));
    }
    // SAFETY: plain integers go in; a number that is not open is an error.
    check(unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) }.into())?;
    // SAFETY: the number is open, and by the caller's word nobody else in this process owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    #[test]
    fn sealed_memory_holds_its_bytes_and_refuses_change() {
        let mut file = std::fs::File::from(sealed_memory("t", b"abc").expect("memfd"));
        let mut text = String::new();
        file.read_to_string(&mut text).expect("read");
        assert_eq!(text, "abc");
        assert!(file.write_all(b"d").is_err());
        assert!(file.set_len(0).is_err());
    }

    #[test]
    fn a_mark_is_seen_through_every_copy_and_changes_nothing_else() {
        let (reader, writer) = pipe().expect("pipe");
        let copy = reader.try_clone().expect("a copy");
        assert!(!has_mark(&reader));
        set_mark(&copy, true).expect("mark");
        set_nonblocking(&copy, true).expect("fcntl");
        assert!(has_mark(&reader) && has_mark(&copy) && !has_mark(&writer));
        write(&writer, b"xyz").expect("write");
        assert_eq!(read(&reader, &mut [0; 1]).expect("data"), 1);
        let (left, takes) = unread(&reader).expect("its size");
        assert!(left == 2 && takes >= 4096, "{left} {takes}");
        set_mark(&reader, false).expect("mark");
        assert!(!has_mark(&copy));
        assert_eq!(read(&copy, &mut [0; 4]).expect("data"), 2);
        let empty = read(&reader, &mut [0; 4]).expect_err("still non-blocking");
        assert_eq!(empty.kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn a_closed_pipe_is_readable_and_ends() {
        let (reader, writer) = pipe().expect("pipe");
        assert!(!wait_readable(&reader, 0).expect("poll"));
        set_nonblocking(&reader, true).expect("fcntl");
        assert_eq!(
            read(&reader, &mut [0; 4]).expect_err("empty").kind(),
            io::ErrorKind::WouldBlock
        );
        assert_eq!(write(&writer, b"xy").expect("write"), 2);
        drop(writer);
        let mut buffer = [0; 4];
        assert_eq!(read(&reader, &mut buffer).expect("data"), 2);
        assert!(wait_readable(&reader, 0).expect("poll"));
        assert_eq!(read(&reader, &mut buffer).expect("end"), 0);
    }
}
