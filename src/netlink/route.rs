//! Links, addresses and routes: linux/rtnetlink.h, linux/if_link.h, linux/if_addr.h.
//!
//! | family header | bytes                                                                    |
//! |---------------|--------------------------------------------------------------------------|
//! | ifinfomsg 16  | family u8, pad u8, type u16, index u32, flags u32, change mask u32       |
//! | ifaddrmsg 8   | family u8, prefix u8, flags u8, scope u8, index u32                      |
//! | rtmsg 12      | family u8, dst len u8, src len u8, tos u8, table, protocol, scope, type u8, flags u32 |
//!
//! The functions of [`message`] are pure; [`Route`] sends what they build.

use super::socket::{NetlinkError, Protocol, Reply, Socket};
use super::wire::{attribute, text, u32_at};
use std::net::Ipv4Addr;
use std::os::fd::BorrowedFd;

/// A network interface as the kernel describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its number in its network namespace.
    pub index: u32,
    /// Its name, at most 15 bytes.
    pub name: String,
    /// Switched on.
    pub up: bool,
    /// Largest packet, in bytes.
    pub mtu: u32,
    /// Index of the bridge it is a port of.
    pub master: Option<u32>,
    /// `bridge`, `veth`, …; none for hardware and loopback.
    pub kind: Option<String>,
    /// Received packets, sent packets, received bytes, sent bytes.
    pub counters: [u64; 4],
}

/// A route of the main table, or the answer to "how would you get there".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RouteEntry {
    /// Where it leads; 0.0.0.0 with prefix 0 is the default route.
    pub to: Ipv4Addr,
    /// Leading bits of `to` that count.
    pub prefix: u8,
    /// Index of the outgoing link.
    pub link: Option<u32>,
    /// The next hop.
    pub gateway: Option<Ipv4Addr>,
    /// The source address that we would use.
    pub source: Option<Ipv4Addr>,
}

/// A conversation about links, addresses and routes of one network namespace.
pub struct Route(Socket);

impl Route {
    /// Opens it for the network namespace of the calling thread.
    pub fn open() -> Result<Route, NetlinkError> {
        Socket::open(Protocol::Route).map(Route)
    }

    /// The link of this name, or `None`.
    pub fn link(&mut self, name: &str) -> Result<Option<Link>, NetlinkError> {
        match self.0.request(message::get_link(name)) {
            Ok(replies) => Ok(replies.iter().find_map(parse_link)),
            Err(err) if err.missing() => Ok(None),
            Err(err) => Err(err),
        }
    }

    /// Every link.
    pub fn links(&mut self) -> Result<Vec<Link>, NetlinkError> {
        Ok(self.0.dump(message::get_links())?.iter().filter_map(parse_link).collect())
    }

    /// Makes a bridge, switched off. `exists()`: the name is taken.
    pub fn add_bridge(&mut self, bridge: &message::Bridge<'_>) -> Result<(), NetlinkError> {
        self.0.request(message::add_bridge(bridge)).map(drop)
    }

    /// Makes a veth pair, the outer end up and plugged into `bridge`, the inner end in `netns`.
    pub fn add_veth(&mut self, veth: &message::Veth<'_>) -> Result<(), NetlinkError> {
        self.0.request(message::add_veth(veth)).map(drop)
    }

    /// Switches a link on.
    pub fn set_up(&mut self, index: u32) -> Result<(), NetlinkError> {
        self.0.request(message::set_up(index)).map(drop)
    }

    /// Lets a bridge send frames back out of the port they came from.
    pub fn set_hairpin(&mut self, port: u32) -> Result<(), NetlinkError> {
        self.0.request(message::set_hairpin(port)).map(drop)
    }

    /// Keeps a link from giving itself an IPv6 address. `unsupported()`: no IPv6 in this kernel.
    pub fn no_ipv6_address(&mut self, index: u32) -> Result<(), NetlinkError> {
        self.0.request(message::no_ipv6_address(index)).map(drop)
    }

    /// Removes a link, and its peer if it is a veth. `missing()`: it is gone already.
    /// Waits for the kernel's readers: 16 ms for a veth, 36 ms for a bridge.
    pub fn delete_link(&mut self, name: &str) -> Result<(), NetlinkError> {
        self.0.request(message::delete_link(name)).map(drop)
    }

    /// Gives a link an address. `exists()`: it has it.
    pub fn add_address(
        &mut self,
        index: u32,
        address: Ipv4Addr,
        prefix: u8,
    ) -> Result<(), NetlinkError> {
        self.0.request(message::add_address(index, address, prefix)).map(drop)
    }

    /// Sends everything without a better route through `gateway`. The link must be up.
    pub fn add_default_route(&mut self, index: u32, gateway: Ipv4Addr) -> Result<(), NetlinkError> {
        self.0.request(message::add_default_route(index, gateway)).map(drop)
    }

    /// How a packet to this address would leave, or `None` when it could not. Sends nothing.
    pub fn way_to(&mut self, address: Ipv4Addr) -> Result<Option<RouteEntry>, NetlinkError> {
        // ENETUNREACH and EHOSTUNREACH: no route leads there.
        match self.0.request(message::way_to(address)) {
            Ok(replies) => Ok(replies.iter().find_map(parse_route)),
            Err(err) if matches!(err.errno(), Some(101 | 113)) => Ok(None),
            Err(err) => Err(err),
        }
    }

    /// Every IPv4 route of every table.
    pub fn routes(&mut self) -> Result<Vec<RouteEntry>, NetlinkError> {
        Ok(self.0.dump(message::get_routes())?.iter().filter_map(parse_route).collect())
    }
}

/// Reads a `RTM_NEWLINK`.
pub fn parse_link(reply: &Reply) -> Option<Link> {
    if reply.kind != message::NEWLINK {
        return None;
    }
    let attrs = reply.body.get(16..)?;
    let number = |kind| attribute(attrs, kind).and_then(|value| u32_at(value, 0));
    let info = attribute(attrs, message::IFLA_LINKINFO).unwrap_or(&[]);
    let mut counters = [0; 4];
    let stats = attribute(attrs, message::IFLA_STATS64).unwrap_or(&[]);
    for (counter, bytes) in counters.iter_mut().zip(stats.chunks_exact(8)) {
        *counter = u64::from_ne_bytes(bytes.try_into().ok()?);
    }
    Some(Link {
        index: u32_at(&reply.body, 4)?,
        name: text(attribute(attrs, message::IFLA_IFNAME)?)?.to_owned(),
        up: u32_at(&reply.body, 8)? & message::IFF_UP != 0,
        mtu: number(message::IFLA_MTU).unwrap_or(0),
        master: number(message::IFLA_MASTER),
        kind: attribute(info, message::INFO_KIND).and_then(text).map(str::to_owned),
        counters,
    })
}

/// Reads a `RTM_NEWROUTE` of IPv4.
pub fn parse_route(reply: &Reply) -> Option<RouteEntry> {
    if reply.kind != message::NEWROUTE || *reply.body.first()? != message::AF_INET {
        return None;
    }
    let attrs = reply.body.get(12..)?;
    let address = |kind| {
        let bytes: [u8; 4] = attribute(attrs, kind)?.try_into().ok()?;
        Some(Ipv4Addr::from(bytes))
    };
    Some(RouteEntry {
        to: address(message::RTA_DST).unwrap_or(Ipv4Addr::UNSPECIFIED),
        prefix: *reply.body.get(1)?,
        link: attribute(attrs, message::RTA_OIF).and_then(|value| u32_at(value, 0)),
        gateway: address(message::RTA_GATEWAY),
        source: address(message::RTA_PREFSRC),
    })
}

/// The requests as bytes.
pub mod message {
    use super::super::wire::{CREATE, EXCL, Request};
    use super::{BorrowedFd, Ipv4Addr};
    use std::os::fd::AsRawFd;

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
    pub(super) const IFLA_MASTER: u16 = 10;
    /// `IFLA_PROTINFO` with the nested bit, which bridge ports insist on.
    const IFLA_PROTINFO_NESTED: u16 = 0x8000 | 12;
    pub(super) const IFLA_LINKINFO: u16 = 18;
    pub(super) const IFLA_STATS64: u16 = 23;
    const IFLA_AF_SPEC: u16 = 26;
    const IFLA_GROUP: u16 = 27;
    const IFLA_NET_NS_FD: u16 = 28;
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

    /// Both ends, the plug into the bridge and the switch in one message.
    pub fn add_veth(veth: &Veth<'_>) -> Request {
        let netns = veth.netns.as_raw_fd();
        Request::new(NEWLINK, CREATE | EXCL)
            .body(&link_header(AF_UNSPEC, 0, IFF_UP, IFF_UP))
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
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The words of a finished message after its header, for a table that a person can check.
    fn words(request: crate::netlink::wire::Request) -> Vec<u32> {
        let bytes = request.finish(1).expect("short");
        bytes[16..].chunks(4).map(|w| u32::from_le_bytes([w[0], w[1], w[2], w[3]])).collect()
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn an_address_request_is_byte_for_byte_what_the_header_says() {
        let got = words(message::add_address(5, Ipv4Addr::new(10, 254, 0, 1), 30));
        assert_eq!(got, [0x1e02, 5, 0x0002_0008, 0x0100_fe0a, 0x0001_0008, 0x0100_fe0a]);
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn a_default_route_request_is_byte_for_byte_what_the_header_says() {
        let got = words(message::add_default_route(7, Ipv4Addr::new(10, 254, 0, 1)));
        assert_eq!(got, [2, 0x0100_03fe, 0, 0x0005_0008, 0x0100_fe0a, 0x0004_0008, 7]);
    }

    #[test]
    fn torn_answers_are_passed_over() {
        for len in 0..40 {
            for kind in [16, 24] {
                let reply = Reply { kind, body: vec![2; len] };
                assert_eq!(parse_link(&reply), None);
                let _ = parse_route(&reply);
            }
        }
    }
}
