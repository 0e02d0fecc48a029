//! Links, addresses and routes: linux/rtnetlink.h, linux/if_link.h, linux/if_addr.h.
//!
//! The functions of [`message`] and [`queue`] are pure; [`Route`] sends what they build.

pub mod message;
pub mod queue;

use super::socket::{NetlinkError, Protocol, Reply, Socket};
use super::wire::{attribute, text, u32_at};
use std::net::Ipv4Addr;

/// A network interface as the kernel describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its number in its network namespace.
    pub index: u32,
    /// Its name, at most 15 bytes.
    pub name: String,
    /// Switched on.
    pub up: bool,
    /// On, and whatever it is connected to as well: packets pass.
    pub running: bool,
    /// Largest packet, in bytes.
    pub mtu: u32,
    /// Index of the bridge it is a port of.
    pub master: Option<u32>,
    /// `bridge`, `veth`, …; none for hardware and loopback.
    pub kind: Option<String>,
    /// Where what it sends waits: `noqueue`, `tbf`, …
    pub queue: Option<String>,
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

    /// The link of this name, or `None`. From Linux 6.8 on, asking also makes the kernel finish
    /// what it has put off for a link whose other end was switched on.
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

    /// Makes a veth pair, the outer end plugged into `bridge`, the inner end in `netns`, both off.
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

    /// Gives a link a token bucket for what it sends, in the place of the queue that it has.
    pub fn set_bucket(&mut self, link: u32, bucket: queue::Bucket) -> Result<(), NetlinkError> {
        self.0.request(queue::set_bucket(link, bucket)).map(drop)
    }

    /// Takes a link's queue away. `missing()`: it has none.
    pub fn delete_queue(&mut self, link: u32) -> Result<(), NetlinkError> {
        self.0.request(queue::delete_queue(link)).map(drop)
    }

    /// Rate and limit of a link's token bucket; `None`: it has none.
    pub fn bucket(&mut self, link: u32) -> Result<Option<(u64, u32)>, NetlinkError> {
        match self.0.request(queue::get_queue(link)) {
            Ok(replies) => Ok(replies.iter().find_map(queue::parse_bucket)),
            // EINVAL: a queue that the kernel does not show, as of a link that never had another.
            Err(err) if err.missing() || err.errno() == Some(22) => Ok(None),
            Err(err) => Err(err),
        }
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
    for (counter, bytes) in counters.iter_mut().zip(stats.as_chunks().0) {
        *counter = u64::from_ne_bytes(*bytes);
    }
    Some(Link {
        index: u32_at(&reply.body, 4)?,
        name: text(attribute(attrs, message::IFLA_IFNAME)?)?.to_owned(),
        up: u32_at(&reply.body, 8)? & message::IFF_UP != 0,
        running: attribute(attrs, message::IFLA_OPERSTATE) == Some(&[message::IF_OPER_UP]),
        mtu: number(message::IFLA_MTU).unwrap_or(0),
        master: number(message::IFLA_MASTER),
        kind: attribute(info, message::INFO_KIND).and_then(text).map(str::to_owned),
        queue: attribute(attrs, message::IFLA_QDISC).and_then(text).map(str::to_owned),
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

#[cfg(test)]
mod tests {
    use super::*;

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
