//! TCP ports of this network namespace.

use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrIn, bind, setsockopt, socket, sockopt,
};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

/// A socket on `port` of all IPv4 addresses that does not listen: others may still be bound and listen there,
/// which a listening one would keep them from. `AddrInUse`: a program listens on the port, at any address of
/// IPv4, or of IPv6 where that takes IPv4, too. `SO_REUSEADDR`, socket(7); bind(2); close-on-exec.
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
    use std::net::TcpListener;

    #[test]
    fn a_port_is_in_use_by_who_listens_and_not_by_who_looks() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
        let port = listener.local_addr().expect("its address").port();
        let err = bound(port).expect_err("somebody listens");
        assert_eq!(err.kind(), io::ErrorKind::AddrInUse);
        drop(listener);
        let looks = [bound(port), bound(port)].map(|it| it.expect("nobody listens"));
        TcpListener::bind(("0.0.0.0", port)).expect("nor is kept from it");
        drop(looks);
    }
}
