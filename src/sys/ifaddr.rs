//! The addresses of the network namespace that we are in.

use nix::net::if_::InterfaceFlags;
use std::io;
use std::net::Ipv4Addr;

/// The IPv4 addresses of all interfaces but loopback ones, in the kernel's order. getifaddrs(3).
pub fn ipv4_beyond_loopback() -> io::Result<Vec<Ipv4Addr>> {
    let found = nix::ifaddrs::getifaddrs()?
        .filter(|one| !one.flags.contains(InterfaceFlags::IFF_LOOPBACK))
        .filter_map(|one| one.address?.as_sockaddr_in().map(|sock| sock.ip()))
        .filter(|ip| !ip.is_loopback())
        .collect();
    Ok(found)
}
