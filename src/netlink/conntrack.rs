//! The kernel's memory of connections: linux/netfilter/nfnetlink_conntrack.h.

use super::socket::{NetlinkError, Reply, Socket};
use super::wire::{Request, attribute};
use std::net::Ipv4Addr;

/// Conntrack's subsystem number, in the upper byte of every message type.
const CTNETLINK: u16 = 1;
const GET: u16 = 1;
const DELETE: u16 = 2;
const AF_INET: u8 = 2;
const EINVAL: i32 = 22;

const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
const CTA_FILTER: u16 = 25;
const CTA_TUPLE_IP: u16 = 1;
const CTA_IP_V4_SRC: u16 = 1;
/// Filter bit: the tuple's source address counts.
const BY_SOURCE: u32 = 1;

/// Forgets every connection of which `address` is an end, so that an answer to whoever had it
/// before is no answer to who has it next. Needs a socket for netfilter.
pub fn forget(socket: &mut Socket, address: Ipv4Addr) -> Result<(), NetlinkError> {
    for side in [CTA_TUPLE_ORIG, CTA_TUPLE_REPLY] {
        // Linux 6.12 and later do it in one request, which passes over empty buckets without
        // locking each, as listing does: 20 ms for a table of usual size that holds next to nothing.
        match socket.request(about(DELETE, side, address)) {
            Ok(_) => continue,
            // Earlier kernels want a whole tuple: they remove nothing, and say so.
            Err(err) if err.errno() == Some(EINVAL) || err.unsupported() => {}
            Err(err) => return Err(err),
        }
        let replies = socket.dump(about(GET, side, address))?;
        // Kernels before 5.8 do not filter, so the answer is checked.
        for tuple in replies.iter().filter(|reply| is_from(reply, side, address)) {
            let Some(tuple) = tuple.body.get(4..).and_then(|a| attribute(a, CTA_TUPLE_ORIG)) else {
                continue;
            };
            match socket.request(header(DELETE).attr(0x8000 | CTA_TUPLE_ORIG, tuple)) {
                Err(err) if !err.missing() => return Err(err),
                _ => {}
            }
        }
    }
    Ok(())
}

fn header(kind: u16) -> Request {
    Request::new(CTNETLINK << 8 | kind, 0).body(&[AF_INET, 0, 0, 0])
}

/// A request about the connections that have this source address on one side. It always names an
/// address: a removal without one would be of all.
fn about(kind: u16, side: u16, address: Ipv4Addr) -> Request {
    let bits = |on: bool| if on { BY_SOURCE } else { 0 };
    header(kind)
        .nest(0x8000 | side, |m| {
            m.nest(0x8000 | CTA_TUPLE_IP, |m| m.attr(CTA_IP_V4_SRC, &address.octets()))
        })
        .nest(0x8000 | CTA_FILTER, |m| {
            m.u32(1, bits(side == CTA_TUPLE_ORIG)).u32(2, bits(side == CTA_TUPLE_REPLY))
        })
}

fn is_from(reply: &Reply, side: u16, address: Ipv4Addr) -> bool {
    let attrs = reply.body.get(4..).unwrap_or(&[]);
    let ip = attribute(attrs, side).and_then(|tuple| attribute(tuple, CTA_TUPLE_IP));
    ip.and_then(|ip| attribute(ip, CTA_IP_V4_SRC)) == Some(&address.octets())
}
