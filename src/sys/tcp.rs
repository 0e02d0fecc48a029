//! TCP ports of this network namespace.

use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrIn, bind, setsockopt, socket, sockopt,
};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

/// A socket on `port` of all IPv4 addresses that does not listen: others that set `SO_REUSEADDR`, as servers do,
/// may still be bound and listen there, and those that do not get `EADDRINUSE` while it lives. `AddrInUse`: a
/// program listens on the port, at any address of IPv4, or of IPv6 where that takes IPv4, too; or it is bound
/// without `SO_REUSEADDR`, as the near ends of connections are. socket(7); bind(2); close-on-exec.
pub fn bound(port: u16) -> io::Result<OwnedFd> {
    let kind = SockType::Stream;
    let made = socket(AddressFamily::Inet, kind, SockFlag::SOCK_CLOEXEC, None)?;
    setsockopt(&made, sockopt::ReuseAddr, &true)?;
    bind(made.as_raw_fd(), &SockaddrIn::new(0, 0, 0, 0, port))?;
    Ok(made)
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::socket::getsockname;
    use std::net::TcpListener;

    #[test]
    fn a_port_is_in_use_by_who_listens_and_not_by_who_looks() {
        // For as long as somebody looks, the kernel gives the port to nobody who asks for any.
        let look = bound(0).expect("some port");
        let port = getsockname::<SockaddrIn>(look.as_raw_fd()).expect("its address").port();
        let again = bound(port).expect("nobody listens");
        let listener = TcpListener::bind(("0.0.0.0", port)).expect("nor is kept from it");
        let err = bound(port).expect_err("somebody listens");
        assert_eq!(err.kind(), io::ErrorKind::AddrInUse);
        drop((look, again, listener));
    }
}
