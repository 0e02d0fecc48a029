//! The rtnetlink requests as bytes. Pure.
//!
//! | family header | bytes                                                                    |
//! |---------------|--------------------------------------------------------------------------|
//! | ifinfomsg 16  | family u8, pad u8, type u16, index u32, flags u32, change mask u32       |
//! | ifaddrmsg 8   | family u8, prefix u8, flags u8, scope u8, index u32                      |
//! | rtmsg 12      | family u8, dst len u8, src len u8, tos u8, table, protocol, scope, type u8, flags u32 |

use crate::netlink::wire::{CREATE, EXCL, Request};
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, BorrowedFd};

pub(super) const NEWLINK: u16 = 16;
const DELLINK: u16 = 17;
const GETLINK: u16 = 18;
const SETLINK: u16 = 19;
const NEWADDR: u16 = 20;
pub(super) const NEWROUTE: u16 = 24;
const GETROUTE: u16 = 26;

const AF_UNSPEC: u8 = 0;
pub(super) const AF_INET: u8 = 2;
const AF_BRIDGE: u8 = 7;
const AF_INET6: u16 = 10;
pub(super) const IFF_UP: u32 = 1;

const IFLA_ADDRESS: u16 = 1;
pub(super) const IFLA_IFNAME: u16 = 3;
pub(super) const IFLA_MTU: u16 = 4;
pub(super) const IFLA_QDISC: u16 = 6;
pub(super) const IFLA_MASTER: u16 = 10;
/// `IFLA_PROTINFO` with the nested bit, which bridge ports insist on.
const IFLA_PROTINFO_NESTED: u16 = 0x8000 | 12;
pub(super) const IFLA_OPERSTATE: u16 = 16;
pub(super) const IFLA_LINKINFO: u16 = 18;
pub(super) const IFLA_STATS64: u16 = 23;
const IFLA_AF_SPEC: u16 = 26;
const IFLA_GROUP: u16 = 27;
const IFLA_NET_NS_FD: u16 = 28;
pub(super) const IF_OPER_UP: u8 = 6;
pub(super) const INFO_KIND: u16 = 1;
const INFO_DATA: u16 = 2;
const BRIDGE_FORWARD_DELAY: u16 = 1;
const BRIDGE_STP_STATE: u16 = 5;
const BRIDGE_MCAST_SNOOPING: u16 = 23;
const BRPORT_MODE: u16 = 4;
const VETH_INFO_PEER: u16 = 1;
const INET6_ADDR_GEN_MODE: u16 = 8;

const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
pub(super) const RTA_DST: u16 = 1;
pub(super) const RTA_OIF: u16 = 4;
pub(super) const RTA_GATEWAY: u16 = 5;
pub(super) const RTA_PREFSRC: u16 = 7;

/// A bridge to be made.
#[derive(Clone, Copy, Debug)]
pub struct Bridge<'a> {
    /// Its name.
    pub name: &'a str,
    /// Largest packet, in bytes.
    pub mtu: u16,
    /// Its hardware address, which no port can change.
    pub mac: [u8; 6],
    /// The link group, by which packet rules can tell it from others.
    pub group: u32,
}

/// A veth pair to be made.
#[derive(Clone, Copy, Debug)]
pub struct Veth<'a> {
    /// Name of the end that stays here.
    pub outer: &'a str,
    /// Name of the end that is born in `netns`.
    pub inner: &'a str,
    /// Largest packet on both ends, in bytes.
    pub mtu: u16,
    /// Index of the bridge for the outer end.
    pub bridge: u32,
    /// The network namespace of the inner end.
    pub netns: BorrowedFd<'a>,
}

fn link_header(family: u8, index: u32, flags: u32, change: u32) -> [u8; 16] {
    let mut header = [0; 16];
    header[0] = family;
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..12].copy_from_slice(&flags.to_ne_bytes());
    header[12..16].copy_from_slice(&change.to_ne_bytes());
    header
}

/// One link by name.
pub fn get_link(name: &str) -> Request {
    Request::new(GETLINK, 0).body(&[0; 16]).text(IFLA_IFNAME, name)
}

/// All links; the socket adds the dump flag.
pub fn get_links() -> Request {
    Request::new(GETLINK, 0).body(&[0; 16])
}

/// A bridge that forwards from the first moment and listens to no multicast group.
pub fn add_bridge(bridge: &Bridge<'_>) -> Request {
    Request::new(NEWLINK, CREATE | EXCL)
        .body(&[0; 16])
        .text(IFLA_IFNAME, bridge.name)
        .u32(IFLA_MTU, bridge.mtu.into())
        .attr(IFLA_ADDRESS, &bridge.mac)
        .u32(IFLA_GROUP, bridge.group)
        .nest(IFLA_LINKINFO, |m| {
            m.text(INFO_KIND, "bridge").nest(INFO_DATA, |m| {
                m.u32(BRIDGE_FORWARD_DELAY, 0)
                    .u32(BRIDGE_STP_STATE, 0)
                    .attr(BRIDGE_MCAST_SNOOPING, &[0])
            })
        })
}

/// Both ends and the plug into the bridge in one message.
pub fn add_veth(veth: &Veth<'_>) -> Request {
    let netns = veth.netns.as_raw_fd();
    Request::new(NEWLINK, CREATE | EXCL)
        .body(&[0; 16])
        .text(IFLA_IFNAME, veth.outer)
        .u32(IFLA_MTU, veth.mtu.into())
        .u32(IFLA_MASTER, veth.bridge)
        .nest(IFLA_LINKINFO, |m| {
            m.text(INFO_KIND, "veth").nest(INFO_DATA, |m| {
                m.nest(VETH_INFO_PEER, |m| {
                    m.body(&[0; 16])
                        .text(IFLA_IFNAME, veth.inner)
                        .u32(IFLA_MTU, veth.mtu.into())
                        .attr(IFLA_NET_NS_FD, &netns.to_ne_bytes())
                })
            })
        })
}

/// Switches a link on.
pub fn set_up(index: u32) -> Request {
    Request::new(SETLINK, 0).body(&link_header(AF_UNSPEC, index, IFF_UP, IFF_UP))
}

/// Reflects frames on a bridge port.
pub fn set_hairpin(port: u32) -> Request {
    Request::new(SETLINK, 0)
        .body(&link_header(AF_BRIDGE, port, 0, 0))
        .nest(IFLA_PROTINFO_NESTED, |m| m.attr(BRPORT_MODE, &[1]))
}

/// Address generation mode "none".
pub fn no_ipv6_address(index: u32) -> Request {
    Request::new(SETLINK, 0)
        .body(&link_header(AF_UNSPEC, index, 0, 0))
        .nest(IFLA_AF_SPEC, |m| m.nest(AF_INET6, |m| m.attr(INET6_ADDR_GEN_MODE, &[1])))
}

/// Removes a link by name.
pub fn delete_link(name: &str) -> Request {
    Request::new(DELLINK, 0).body(&[0; 16]).text(IFLA_IFNAME, name)
}

/// An address of a link.
pub fn add_address(index: u32, address: Ipv4Addr, prefix: u8) -> Request {
    let mut header = [AF_INET, prefix, 0, 0, 0, 0, 0, 0];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    Request::new(NEWADDR, CREATE | EXCL)
        .body(&header)
        .attr(IFA_LOCAL, &address.octets())
        .attr(IFA_ADDRESS, &address.octets())
}

/// The default route, in the main table (254), as a boot script (3) would make it.
pub fn add_default_route(index: u32, gateway: Ipv4Addr) -> Request {
    Request::new(NEWROUTE, CREATE | EXCL)
        .body(&[AF_INET, 0, 0, 0, 254, 3, 0, 1, 0, 0, 0, 0])
        .attr(RTA_GATEWAY, &gateway.octets())
        .u32(RTA_OIF, index)
}

/// A route lookup.
pub fn way_to(address: Ipv4Addr) -> Request {
    Request::new(GETROUTE, 0)
        .body(&[AF_INET, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])
        .attr(RTA_DST, &address.octets())
}

/// All IPv4 routes; the socket adds the dump flag.
pub fn get_routes() -> Request {
    Request::new(GETROUTE, 0).body(&[AF_INET, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The words of a finished message after its header, for a table that a person can check.
    fn words(request: Request) -> Vec<u32> {
        let bytes = request.finish(1).expect("short");
        bytes[16..].chunks(4).map(|w| u32::from_le_bytes([w[0], w[1], w[2], w[3]])).collect()
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn an_address_request_is_byte_for_byte_what_the_header_says() {
        let got = words(add_address(5, Ipv4Addr::new(10, 254, 0, 1), 30));
        assert_eq!(got, [0x1e02, 5, 0x0002_0008, 0x0100_fe0a, 0x0001_0008, 0x0100_fe0a]);
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn a_default_route_request_is_byte_for_byte_what_the_header_says() {
        let got = words(add_default_route(7, Ipv4Addr::new(10, 254, 0, 1)));
        assert_eq!(got, [2, 0x0100_03fe, 0, 0x0005_0008, 0x0100_fe0a, 0x0004_0008, 7]);
    }
}
