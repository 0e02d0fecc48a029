//! `SOCK_SEQPACKET` sockets of the unix family: whole messages, with descriptors beside them.

use super::fd::{check, owned};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// The most descriptors that one message carries here; the kernel's own limit is 253.
pub const FDS_MAX: usize = 16;

/// Space for the control data of [`FDS_MAX`] descriptors, aligned as the kernel wants it.
#[repr(C, align(8))]
struct Control([u8; 128]);

// SAFETY: CMSG_SPACE only computes with its argument.
const _: () =
    assert!(unsafe { libc::CMSG_SPACE((FDS_MAX * size_of::<RawFd>()) as u32) } as usize <= 128);

/// Two ends that are connected to each other, close-on-exec. socketpair(2).
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut ends: [RawFd; 2] = [-1; 2];
    let kind = libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC;
    // SAFETY: `ends` has room for the two descriptors that the kernel writes.
    check(unsafe { libc::socketpair(libc::AF_UNIX, kind, 0, ends.as_mut_ptr()) }.into())?;
    // SAFETY: the call succeeded, so both numbers are new descriptors that nobody else owns.
    Ok(unsafe { (OwnedFd::from_raw_fd(ends[0]), OwnedFd::from_raw_fd(ends[1])) })
}

/// Listens on the new socket file `name` in directory `dir`, whatever the length of its path
/// (`sun_path` has 108 bytes; we go through `/proc/self/fd`). `AddrInUse`: the name exists.
/// unix(7). The file's mode follows the umask; close-on-exec.
pub fn listen(dir: BorrowedFd<'_>, name: &str, backlog: u16) -> io::Result<OwnedFd> {
    let socket = new_socket()?;
    let (address, length) = address(dir, name)?;
    // SAFETY: `address` is a sockaddr_un of which `length` bytes are filled; both outlive the call.
    check(unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length) }.into())?;
    // SAFETY: plain integers go in.
    check(unsafe { libc::listen(socket.as_raw_fd(), backlog.into()) }.into())?;
    Ok(socket)
}

/// Connects to the socket file `name` in directory `dir`. `ConnectionRefused`: a file is there but
/// nobody listens; `NotFound`: no file; `WouldBlock`: so many wait to be accepted already that
/// there is no place for 5 s. Close-on-exec, blocking, but no send waits for longer than that.
/// `SO_SNDTIMEO`, socket(7).
pub fn connect(dir: BorrowedFd<'_>, name: &str) -> io::Result<OwnedFd> {
    let socket = new_socket()?;
    let patience = nix::sys::time::TimeVal::new(5, 0);
    nix::sys::socket::setsockopt(&socket, nix::sys::socket::sockopt::SendTimeout, &patience)?;
    let (address, length) = address(dir, name)?;
    // SAFETY: as in `listen`.
    check(
        unsafe { libc::connect(socket.as_raw_fd(), (&raw const address).cast(), length) }.into(),
    )?;
    Ok(socket)
}

/// Takes one connection; it is non-blocking and close-on-exec. `WouldBlock` on a non-blocking
/// listener with nobody waiting. accept4(2).
pub fn accept(listener: impl AsFd) -> io::Result<OwnedFd> {
    let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    let listener = listener.as_fd().as_raw_fd();
    // SAFETY: null pointers say that we do not want the peer's address; the result is a new
    // descriptor.
    unsafe {
        owned(libc::accept4(listener, std::ptr::null_mut(), std::ptr::null_mut(), flags).into())
    }
}

/// Who made the other end, as seen from our own namespaces: a user that has no id here is 65534,
/// a process that is not visible here has pid 0. `SO_PEERCRED`, unix(7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its process id when it connected.
    pub pid: i32,
    /// Its effective user id.
    pub uid: u32,
    /// Its effective group id.
    pub gid: u32,
}

/// Asks the kernel who is at the other end of `socket`.
pub fn peer(socket: impl AsFd) -> io::Result<Peer> {
    let cred =
        nix::sys::socket::getsockopt(&socket.as_fd(), nix::sys::socket::sockopt::PeerCredentials)?;
    Ok(Peer { pid: cred.pid(), uid: cred.uid(), gid: cred.gid() })
}

/// Sends `message` as one packet, with copies of `fds` beside it. All or nothing.
/// `WouldBlock`: the peer does not read; `BrokenPipe`: it is gone (no signal is raised);
/// `EMSGSIZE`: longer than the send buffer. More than [`FDS_MAX`] descriptors are refused.
pub fn send_with_fds(socket: impl AsFd, message: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    if fds.len() > FDS_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "too many descriptors"));
    }
    let mut part =
        libc::iovec { iov_base: message.as_ptr().cast_mut().cast(), iov_len: message.len() };
    let mut control = Control([0; 128]);
    // SAFETY: all-zero is a valid msghdr: null pointers and zero lengths.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    header.msg_iov = &raw mut part;
    header.msg_iovlen = 1;
    if !fds.is_empty() {
        let bytes = (fds.len() * size_of::<RawFd>()) as u32;
        header.msg_control = (&raw mut control).cast();
        // SAFETY: CMSG_SPACE only computes; the assertion above says that the space is enough.
        header.msg_controllen = unsafe { libc::CMSG_SPACE(bytes) } as _;
        // SAFETY: `header` describes `control`, which is aligned and holds at least one header,
        // so CMSG_FIRSTHDR points into it; CMSG_DATA has room for `bytes` bytes as computed.
        unsafe {
            let first = libc::CMSG_FIRSTHDR(&header);
            (*first).cmsg_level = libc::SOL_SOCKET;
            (*first).cmsg_type = libc::SCM_RIGHTS;
            (*first).cmsg_len = libc::CMSG_LEN(bytes) as _;
            let data = libc::CMSG_DATA(first).cast::<RawFd>();
            for (index, fd) in fds.iter().enumerate() {
                data.add(index).write_unaligned(fd.as_raw_fd());
            }
        }
    }
    let socket = socket.as_fd().as_raw_fd();
    // SAFETY: `header` and everything it points to live until the call returns; the kernel only
    // reads `message`.
    let sent = check(unsafe { libc::sendmsg(socket, &header, libc::MSG_NOSIGNAL) } as _)?;
    if sent as usize == message.len() {
        Ok(())
    } else {
        Err(io::Error::new(io::ErrorKind::WriteZero, "message sent in part"))
    }
}

/// Says that nothing more is sent; what the peer sends can still be received. shutdown(2), `SHUT_WR`.
pub fn end_sending(socket: impl AsFd) -> io::Result<()> {
    let socket = socket.as_fd().as_raw_fd();
    Ok(nix::sys::socket::shutdown(socket, nix::sys::socket::Shutdown::Write)?)
}

/// Receives one packet into `buffer`: its length, and the descriptors beside it, close-on-exec.
/// Length 0 with no descriptors: the peer has closed. `WouldBlock` on an empty non-blocking socket.
/// A message longer than `buffer`, or descriptors that did not all arrive, are `InvalidData`; what
/// arrived of it is closed.
pub fn recv_with_fds(socket: impl AsFd, buffer: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    match receive(socket, buffer)? {
        (length, Some(fds)) => Ok((length, fds)),
        (_, None) => Err(io::Error::new(io::ErrorKind::InvalidData, "descriptors cut off")),
    }
}

/// The same for who can go on without the descriptors: `None` when they did not all arrive, as there
/// were more than [`FDS_MAX`] or this process may not have so many open; those that did are closed.
/// `MSG_CTRUNC`, recv(2). That the other side has gone without reading everything is told by the kernel
/// first, once, and what it said before after that: then this is an end like any other.
pub fn receive(socket: impl AsFd, buffer: &mut [u8]) -> io::Result<(usize, Option<Vec<OwnedFd>>)> {
    match receive_once(&socket, buffer) {
        Err(err) if err.kind() == io::ErrorKind::ConnectionReset => receive_once(&socket, buffer),
        received => received,
    }
}

fn receive_once(
    socket: &impl AsFd,
    buffer: &mut [u8],
) -> io::Result<(usize, Option<Vec<OwnedFd>>)> {
    let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    let mut control = Control([0; 128]);
    // SAFETY: as in `send_with_fds`.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    header.msg_iov = &raw mut part;
    header.msg_iovlen = 1;
    header.msg_control = (&raw mut control).cast();
    header.msg_controllen =
        // SAFETY: CMSG_SPACE only computes.
        unsafe { libc::CMSG_SPACE((FDS_MAX * size_of::<RawFd>()) as u32) } as _;
    let socket = socket.as_fd().as_raw_fd();
    // SAFETY: the kernel writes at most `iov_len` bytes to `buffer` and `msg_controllen` bytes to
    // `control`, both exclusively ours until the call returns.
    let length = check(unsafe { libc::recvmsg(socket, &mut header, libc::MSG_CMSG_CLOEXEC) } as _)?;
    let fds = take_fds(&header);
    if header.msg_flags & libc::MSG_TRUNC != 0 {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "message cut off"));
    }
    Ok((length as usize, (header.msg_flags & libc::MSG_CTRUNC == 0).then_some(fds)))
}

/// Takes ownership of every descriptor that a received message carries.
fn take_fds(header: &libc::msghdr) -> Vec<OwnedFd> {
    let mut fds = Vec::new();
    // SAFETY: `header` was filled by recvmsg and its control buffer is alive and unchanged, so
    // CMSG_FIRSTHDR and CMSG_NXTHDR walk whole headers inside it or return null. A SCM_RIGHTS
    // payload is an array of descriptors that the kernel has just made for this process.
    unsafe {
        let mut next = libc::CMSG_FIRSTHDR(header);
        while !next.is_null() {
            if (*next).cmsg_level == libc::SOL_SOCKET && (*next).cmsg_type == libc::SCM_RIGHTS {
                let bytes = (*next).cmsg_len as usize - libc::CMSG_LEN(0) as usize;
                let data = libc::CMSG_DATA(next).cast::<RawFd>();
                for index in 0..bytes / size_of::<RawFd>() {
                    fds.push(OwnedFd::from_raw_fd(data.add(index).read_unaligned()));
                }
            }
            next = libc::CMSG_NXTHDR(header, next);
        }
    }
    fds
}

/// An unconnected socket.
fn new_socket() -> io::Result<OwnedFd> {
    let kind = libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC;
    // SAFETY: plain integers go in, a new descriptor comes out.
    unsafe { owned(libc::socket(libc::AF_UNIX, kind, 0).into()) }
}

/// The address of file `name` in `dir`, and its length with the final NUL.
fn address(dir: BorrowedFd<'_>, name: &str) -> io::Result<(libc::sockaddr_un, libc::socklen_t)> {
    let bad = |why| Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    if name.is_empty() || name.contains(['/', '\0']) {
        return bad("a socket name is one path component");
    }
    let path = format!("/proc/self/fd/{}/{name}", dir.as_raw_fd());
    // SAFETY: all-zero is a valid sockaddr_un.
    let mut address: libc::sockaddr_un = unsafe { std::mem::zeroed() };
    if path.len() >= address.sun_path.len() {
        return bad("socket name too long");
    }
    address.sun_family = libc::AF_UNIX as _;
    for (to, from) in address.sun_path.iter_mut().zip(path.bytes()) {
        *to = from as _;
    }
    let length = std::mem::offset_of!(libc::sockaddr_un, sun_path) + path.len() + 1;
    Ok((address, length as libc::socklen_t))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::Read;

    #[test]
    fn messages_keep_their_edges_and_descriptors_work() {
        let (a, b) = pair().expect("pair");
        let memory = super::super::fd::sealed_memory("t", b"inside").expect("memfd");
        send_with_fds(&a, b"one", &[memory.as_fd()]).expect("send");
        send_with_fds(&a, b"two", &[]).expect("send");
        let mut buffer = [0; 64];
        let (length, mut fds) = recv_with_fds(&b, &mut buffer).expect("recv");
        assert_eq!((&buffer[..length], fds.len()), (&b"one"[..], 1));
        let mut text = String::new();
        File::from(fds.remove(0)).read_to_string(&mut text).expect("read");
        assert_eq!(text, "inside");
        assert_eq!(recv_with_fds(&b, &mut buffer).expect("recv").0, 3);
        drop(a);
        assert_eq!(recv_with_fds(&b, &mut buffer).expect("end").0, 0);
    }

    #[test]
    fn last_words_are_heard_though_their_sender_went_without_reading() {
        let (a, b) = pair().expect("pair");
        send_with_fds(&b, b"unread", &[]).expect("send");
        send_with_fds(&a, b"last", &[]).expect("send");
        drop(a);
        let mut buffer = [0; 64];
        assert_eq!(recv_with_fds(&b, &mut buffer).expect("words").0, 4);
        assert_eq!(recv_with_fds(&b, &mut buffer).expect("end").0, 0);
    }

    #[test]
    fn a_message_that_does_not_fit_is_an_error_and_leaks_nothing() {
        let (a, b) = pair().expect("pair");
        let (reader, writer) = super::super::fd::pipe().expect("pipe");
        send_with_fds(&a, b"too long", &[writer.as_fd()]).expect("send");
        drop(writer);
        let err = recv_with_fds(&b, &mut [0; 4]).expect_err("cut");
        assert_eq!(err.kind(), io::ErrorKind::InvalidData);
        // The copy that travelled is closed: the pipe has no writer left.
        assert!(super::super::fd::wait_readable(&reader, 1000).expect("poll"));
        assert_eq!(super::super::fd::read(&reader, &mut [0; 1]).expect("end"), 0);
    }

    #[test]
    fn a_listener_that_does_not_accept_holds_nobody_up_for_ever() {
        let dir = std::env::temp_dir().join(format!("terrarium-deaf-{}", std::process::id()));
        std::fs::create_dir(&dir).expect("dir");
        let open = File::open(&dir).expect("open");
        let _listener = listen(open.as_fd(), "s", 0).expect("listen");
        let _first = connect(open.as_fd(), "s").expect("connect");
        let err = connect(open.as_fd(), "s").expect_err("no place");
        std::fs::remove_dir_all(&dir).expect("clean");
        assert_eq!(err.kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn a_long_directory_path_does_not_matter() {
        let dir = std::env::temp_dir().join(format!(
            "terrarium-socket-{}-{}",
            std::process::id(),
            "x".repeat(120)
        ));
        std::fs::create_dir(&dir).expect("dir");
        let open = File::open(&dir).expect("open");
        let listener = listen(open.as_fd(), "s", 4).expect("listen");
        let client = connect(open.as_fd(), "s").expect("connect");
        let server = accept(&listener).expect("accept");
        assert_eq!(peer(&server).expect("peer").pid, std::process::id() as i32);
        drop(client);
        std::fs::remove_dir_all(&dir).expect("clean");
        assert!(listen(open.as_fd(), "a/b", 4).is_err());
    }
}
