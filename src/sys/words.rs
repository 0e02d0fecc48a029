//! Datagrams of the unix family on an abstract name, with who has sent them.

use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg, setsockopt, sockopt};
use std::io::{self, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// A datagram socket on abstract `name`, which is unique in our network namespace and reached from
/// nowhere else; non-blocking, close-on-exec. `AddrInUse`: somebody has it. unix(7).
pub fn bind(name: &str) -> io::Result<OwnedFd> {
    let socket = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(name)?)?;
    setsockopt(&socket, sockopt::PassCred, &true)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// The next datagram, cut to `buffer`, and the process id of its sender as seen from our own
/// namespace: 0 when it has none there. `WouldBlock`: there is none. Descriptors beside it find no
/// room and stay with nobody. `SO_PASSCRED`, unix(7).
pub fn take(socket: impl AsFd, buffer: &mut [u8]) -> io::Result<(usize, i32)> {
    let mut parts = [IoSliceMut::new(buffer)];
    // Room for the sender alone, which the kernel puts first.
    let mut control = nix::cmsg_space!(nix::sys::socket::UnixCredentials);
    let socket = socket.as_fd().as_raw_fd();
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let came = recvmsg::<()>(socket, &mut parts, Some(&mut control), flags)?;
    let sender = came.cmsgs().ok().into_iter().flatten().find_map(|message| match message {
        ControlMessageOwned::ScmCredentials(sender) => Some(sender.pid()),
        _ => None,
    });
    Ok((came.bytes, sender.unwrap_or(0)))
}
