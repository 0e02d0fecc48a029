//! Queues of links (traffic control): linux/pkt_sched.h, linux/rtnetlink.h. Pure.
//!
//! | structure  | bytes                                                                           |
//! |------------|---------------------------------------------------------------------------------|
//! | tcmsg 20   | family u8, pad 3, link u32, handle u32, parent u32, info u32                    |
//! | rate 12    | cell log u8, link layer u8, overhead u16, align u16, mpu u16, bytes a second u32 |
//! | tbf 36     | rate, peak rate, limit u32, buffer u32 in ticks, mtu u32                        |

use crate::netlink::socket::Reply;
use crate::netlink::wire::{self, CREATE, REPLACE, Request, attribute, text, u32_at};

pub(super) const NEWQDISC: u16 = 36;
const DELQDISC: u16 = 37;
const GETQDISC: u16 = 38;
/// The parent of a link's own queue.
const ROOT: u32 = 0xffff_ffff;

const TCA_KIND: u16 = 1;
const TCA_OPTIONS: u16 = 2;
const TBF_PARMS: u16 = 1;
const TBF_RATE64: u16 = 4;
const TBF_BURST: u16 = 6;
/// Byte offsets in the tbf structure.
const RATE: usize = 8;
const LIMIT: usize = 24;
/// Lengths are counted as on a cable, so that no table is needed.
const ETHERNET: u8 = 1;
/// A tick of the kernel's packet scheduler.
const TICK_NANOSECONDS: u64 = 64;

/// A token bucket: what a link sends, at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bucket {
    /// Bytes a second.
    pub rate: u64,
    /// Bytes at once; at least the largest packet with its header.
    pub burst: u32,
    /// Bytes that may wait, those of the burst included; more are dropped.
    pub limit: u32,
}

fn header(link: u32) -> [u8; 20] {
    let mut header = [0; 20];
    header[4..8].copy_from_slice(&link.to_ne_bytes());
    header[12..16].copy_from_slice(&ROOT.to_ne_bytes());
    header
}

/// Gives a link a token bucket, in the place of the queue that it has.
pub fn set_bucket(link: u32, bucket: Bucket) -> Request {
    let mut parms = [0; 36];
    parms[1] = ETHERNET;
    let small = u32::try_from(bucket.rate).unwrap_or(u32::MAX);
    parms[RATE..RATE + 4].copy_from_slice(&small.to_ne_bytes());
    parms[LIMIT..LIMIT + 4].copy_from_slice(&bucket.limit.to_ne_bytes());
    // Kernels count by `TBF_BURST`; this is for who lists it.
    let ticks = u64::from(bucket.burst) * 1_000_000_000 / bucket.rate.max(1) / TICK_NANOSECONDS;
    let ticks = u32::try_from(ticks).unwrap_or(u32::MAX);
    parms[LIMIT + 4..LIMIT + 8].copy_from_slice(&ticks.to_ne_bytes());
    let m = Request::new(NEWQDISC, CREATE | REPLACE).body(&header(link)).text(TCA_KIND, "tbf");
    m.nest(TCA_OPTIONS, |m| {
        let m = m.attr(TBF_PARMS, &parms).u32(TBF_BURST, bucket.burst);
        match bucket.rate == u64::from(small) {
            true => m,
            false => m.attr(TBF_RATE64, &bucket.rate.to_ne_bytes()),
        }
    })
}

/// Takes a link's queue away; the kernel gives it the one that it was born with.
pub fn delete_queue(link: u32) -> Request {
    Request::new(DELQDISC, 0).body(&header(link))
}

/// A link's queue. Before Linux 6.7 the answer comes only to who wants an echo.
pub fn get_queue(link: u32) -> Request {
    Request::new(GETQDISC, wire::ECHO).body(&header(link))
}

/// Rate and limit of a token bucket in an answer to `get_queue`; of the burst the kernel tells only
/// a rounded time.
pub fn parse_bucket(reply: &Reply) -> Option<(u64, u32)> {
    if reply.kind != NEWQDISC {
        return None;
    }
    let attrs = reply.body.get(20..)?;
    attribute(attrs, TCA_KIND).and_then(text).filter(|kind| *kind == "tbf")?;
    let options = attribute(attrs, TCA_OPTIONS)?;
    let parms = attribute(options, TBF_PARMS)?;
    let wide = attribute(options, TBF_RATE64).and_then(|rate| rate.try_into().ok());
    let rate = wide.map(u64::from_ne_bytes).or(u32_at(parms, RATE).map(u64::from))?;
    Some((rate, u32_at(parms, LIMIT)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_back(bucket: Bucket) -> Option<(u64, u32)> {
        let bytes = set_bucket(7, bucket).finish(1).expect("short");
        parse_bucket(&Reply { kind: NEWQDISC, body: bytes[16..].to_vec() })
    }

    #[test]
    fn a_bucket_is_read_back_as_it_was_written_whatever_its_size() {
        for rate in [1, 125_000, u64::from(u32::MAX), 10_000_000_000] {
            let bucket = Bucket { rate, burst: 3000, limit: 5000 };
            assert_eq!(read_back(bucket), Some((rate, 5000)));
        }
    }

    #[test]
    fn torn_answers_are_passed_over() {
        let bucket = Bucket { rate: 1, burst: 3000, limit: 5000 };
        let whole = set_bucket(7, bucket).finish(1).expect("short")[16..].to_vec();
        for len in 0..whole.len() {
            let _ = parse_bucket(&Reply { kind: NEWQDISC, body: whole[..len].to_vec() });
        }
        assert_eq!(parse_bucket(&Reply { kind: NEWQDISC, body: whole[..24].to_vec() }), None);
    }
}
