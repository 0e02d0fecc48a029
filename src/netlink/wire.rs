//! One netlink message as bytes, and a cursor over the messages that come back.
//!
//! Integers are in host order unless an attribute says otherwise. Layout: linux/netlink.h.
//!
//! | bytes  | field | value                                                                 |
//! |--------|-------|-----------------------------------------------------------------------|
//! | 0..4   | len   | header and body without the last padding; written by `finish`         |
//! | 4..6   | type  | what is asked                                                         |
//! | 6..8   | flags | REQUEST 1, ACK 4, DUMP 0x300; for new objects EXCL 0x200, CREATE 0x400 |
//! | 8..12  | seq   | chosen by the socket, echoed in every answer                          |
//! | 12..16 | port  | 0: the kernel knows who we are                                        |
//! | 16..   | body  | family header, then attributes (len u16, type u16, value), each padded to 4 |

use std::fmt;

/// This is a request; set on every message.
pub const REQUEST: u16 = 1;
/// Answer even when nothing went wrong.
pub const ACK: u16 = 4;
/// Send what came of it to who asked, too.
pub const ECHO: u16 = 8;
/// Replace what is there (new objects).
pub const REPLACE: u16 = 0x100;
/// Every object that matches (get requests).
pub const DUMP: u16 = 0x300;
/// Refuse when it exists (new objects).
pub const EXCL: u16 = 0x200;
/// Make it when it does not exist (new objects).
pub const CREATE: u16 = 0x400;
/// Put it at the end (new objects).
pub const APPEND: u16 = 0x800;

/// Answer type: a verdict, 0 or an errno.
pub const ERROR: u16 = 2;
/// Answer type: the end of a dump.
pub const DONE: u16 = 3;
/// Answer flag: the dumped objects changed meanwhile.
pub const DUMP_INTR: u16 = 0x10;
/// Verdict flag: the request is echoed without its body.
const CAPPED: u16 = 0x100;
/// Verdict flag: attributes follow the echoed request.
const ACK_TLVS: u16 = 0x200;
/// The flag bits in an attribute's type: nested, network byte order.
const KIND_MASK: u16 = 0x3fff;
/// Bytes of a message header.
const HEADER: usize = 16;

/// An attribute that does not fit its 16-bit length: the request would be garbage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLong {
    /// The attribute's type number.
    pub attribute: u16,
}

impl fmt::Display for TooLong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "netlink attribute {} is longer than 65535 bytes", self.attribute)
    }
}

impl std::error::Error for TooLong {}

/// One netlink request under construction.
///
/// An attribute that would overflow its length is left out and remembered; `finish` then fails, so
/// that no wrapped length ever reaches the kernel (CVE-2021-43784).
#[derive(Clone, Debug)]
pub struct Request {
    bytes: Vec<u8>,
    too_long: Option<TooLong>,
}

impl Request {
    /// Starts a message; `REQUEST` is added to the flags.
    pub fn new(kind: u16, flags: u16) -> Request {
        let mut bytes = vec![0; HEADER];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&(flags | REQUEST).to_ne_bytes());
        Request { bytes, too_long: None }
    }

    /// Adds flags to those given at the start.
    pub fn flag(mut self, flags: u16) -> Request {
        let old = u16::from_ne_bytes([self.bytes[6], self.bytes[7]]);
        self.bytes[6..8].copy_from_slice(&(old | flags).to_ne_bytes());
        self
    }

    /// Appends bare bytes, padded to 4: the family header, or one inside a nest.
    pub fn body(mut self, bytes: &[u8]) -> Request {
        self.bytes.extend_from_slice(bytes);
        self.pad();
        self
    }

    /// Appends one attribute.
    pub fn attr(mut self, kind: u16, value: &[u8]) -> Request {
        let Ok(len) = u16::try_from(value.len() + 4) else {
            self.too_long.get_or_insert(TooLong { attribute: kind & KIND_MASK });
            return self;
        };
        self.bytes.extend_from_slice(&len.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.body(value)
    }

    /// Appends a text attribute with its closing NUL.
    pub fn text(self, kind: u16, value: &str) -> Request {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.attr(kind, &bytes)
    }

    /// Appends a 32-bit attribute in host order.
    pub fn u32(self, kind: u16, value: u32) -> Request {
        self.attr(kind, &value.to_ne_bytes())
    }

    /// Appends a 32-bit attribute in network order, as all of nf_tables wants it.
    pub fn be32(self, kind: u16, value: u32) -> Request {
        self.attr(kind, &value.to_be_bytes())
    }

    /// Opens an attribute, lets `fill` write inside it, and closes it with its true length.
    pub fn nest(mut self, kind: u16, fill: impl FnOnce(Request) -> Request) -> Request {
        let start = self.bytes.len();
        self = fill(self.attr(kind, &[]));
        match u16::try_from(self.bytes.len() - start) {
            Ok(len) => self.bytes[start..start + 2].copy_from_slice(&len.to_ne_bytes()),
            Err(_) => {
                self.too_long.get_or_insert(TooLong { attribute: kind & KIND_MASK });
            }
        }
        self
    }

    /// Appends the attributes of another request, without its header.
    pub fn embed(self, other: &Request) -> Request {
        let mut whole = self.body(&other.bytes[HEADER..]);
        whole.too_long = whole.too_long.or(other.too_long);
        whole
    }

    /// Closes the message with its sequence number. The bytes are padded to 4, so that another
    /// message can follow.
    pub fn finish(mut self, seq: u32) -> Result<Vec<u8>, TooLong> {
        if let Some(err) = self.too_long {
            return Err(err);
        }
        // A message of 4 GiB would need 65536 attributes of the greatest size.
        let len = u32::try_from(self.bytes.len()).map_err(|_| TooLong { attribute: 0 })?;
        self.bytes[0..4].copy_from_slice(&len.to_ne_bytes());
        self.bytes[8..12].copy_from_slice(&seq.to_ne_bytes());
        Ok(self.bytes)
    }

    fn pad(&mut self) {
        let padded = self.bytes.len().next_multiple_of(4);
        self.bytes.resize(padded, 0);
    }
}

/// One message in a datagram from the kernel.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    /// What it is: `ERROR`, `DONE` or an object.
    pub kind: u16,
    /// See the constants.
    pub flags: u16,
    /// The request it answers.
    pub seq: u32,
    /// Everything after the header.
    pub body: &'a [u8],
}

/// Walks the messages of one datagram; ends at the first that does not fit.
pub fn messages(mut rest: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let len = u32_at(rest, 0)? as usize;
        if len < HEADER {
            return None;
        }
        let message = Message {
            kind: u16_at(rest, 4)?,
            flags: u16_at(rest, 6)?,
            seq: u32_at(rest, 8)?,
            body: rest.get(HEADER..len)?,
        };
        rest = rest.get(len.next_multiple_of(4)..).unwrap_or(&[]);
        Some(message)
    })
}

/// Walks attributes as (type without flag bits, value); ends at the first that does not fit.
pub fn attributes(mut rest: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let len = usize::from(u16_at(rest, 0)?);
        let kind = u16_at(rest, 2)? & KIND_MASK;
        let value = rest.get(4..len)?;
        rest = rest.get(len.next_multiple_of(4)..).unwrap_or(&[]);
        Some((kind, value))
    })
}

/// The first attribute of this type.
pub fn attribute(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes).find(|(found, _)| *found == kind).map(|(_, value)| value)
}

/// A text value up to its NUL; `None` when it is not UTF-8.
pub fn text(value: &[u8]) -> Option<&str> {
    let end = value.iter().position(|b| *b == 0).unwrap_or(value.len());
    std::str::from_utf8(&value[..end]).ok()
}

/// The host-order number at this offset.
pub fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

/// The host-order number at this offset.
pub fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// What the kernel says to one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// 0: done. Otherwise the error number.
    pub errno: i32,
    /// The kernel's own explanation, when it gave one.
    pub text: Option<String>,
}

/// Reads the verdict in an `ERROR` or `DONE` message; `None` for other messages and torn ones.
///
/// | bytes | of an `ERROR`                                          |
/// |-------|--------------------------------------------------------|
/// | 0..4  | i32: 0 or a negative errno                             |
/// | 4..20 | header of the request; its body follows unless CAPPED  |
/// | ..    | with ACK_TLVS: attributes, 1 is the explanation        |
pub fn verdict(message: &Message<'_>) -> Option<Verdict> {
    let code = i32::from_ne_bytes(message.body.get(0..4)?.try_into().ok()?);
    let extra = match message.kind {
        DONE => 4,
        ERROR if message.flags & CAPPED != 0 => 4 + HEADER,
        ERROR => 4 + (u32_at(message.body, 4)? as usize).next_multiple_of(4),
        _ => return None,
    };
    let mut explanation = None;
    if message.flags & ACK_TLVS != 0 {
        let attrs = message.body.get(extra..).unwrap_or(&[]);
        explanation = attribute(attrs, 1).and_then(text).map(str::to_owned);
    }
    Some(Verdict { errno: code.saturating_neg(), text: explanation })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_has_true_lengths_and_padding() {
        let bytes = Request::new(16, ACK)
            .body(&[7])
            .text(3, "lo")
            .nest(18, |m| m.u32(1, 5))
            .finish(9)
            .expect("short");
        #[rustfmt::skip]
        let mut want = vec![
            40, 0, 0, 0,  16, 0,  5, 0,  9, 0, 0, 0,  0, 0, 0, 0,
            7, 0, 0, 0,
            7, 0, 3, 0, b'l', b'o', 0, 0,
            12, 0, 18, 0,  8, 0, 1, 0,  5, 0, 0, 0,
        ];
        assert_eq!(bytes.len(), want.len());
        if cfg!(target_endian = "big") {
            want.clear();
        }
        assert!(want.is_empty() || bytes == want, "{bytes:?}");
    }

    #[test]
    fn an_attribute_that_overflows_its_length_is_an_error_not_a_wrap() {
        let value = vec![0; 65_532];
        let err = Request::new(1, 0).attr(4, &value).finish(0).expect_err("too long");
        assert_eq!(err, TooLong { attribute: 4 });
        assert!(Request::new(1, 0).attr(4, &value[1..]).finish(0).is_ok());
        let nested = Request::new(1, 0)
            .nest(0x8007, |m| m.attr(1, &value[..40_000]).attr(2, &value[..30_000]));
        assert_eq!(nested.finish(0), Err(TooLong { attribute: 7 }));
    }

    #[test]
    fn no_length_field_makes_the_cursor_read_outside() {
        let whole = Request::new(16, 0).body(&[0; 16]).text(3, "wb-1").u32(4, 1500).finish(1);
        let whole = whole.expect("short");
        for at in 0..whole.len() {
            for value in [0, 1, 3, 15, 17, 0x7f, 0xff] {
                let mut bytes = whole.clone();
                bytes[at] = value;
                for cut in [bytes.len(), bytes.len() / 2, 3] {
                    let seen = messages(&bytes[..cut]).map(|m| attributes(m.body).count());
                    assert!(seen.sum::<usize>() < 64);
                }
            }
        }
    }

    #[test]
    fn a_verdict_carries_the_kernels_explanation() {
        let mut body = (-17i32).to_ne_bytes().to_vec();
        body.extend([0; 16]);
        let tail = Request::new(0, 0).text(1, "name taken").finish(0).expect("short");
        body.extend(&tail[16..]);
        let message = Message { kind: ERROR, flags: CAPPED | ACK_TLVS, seq: 1, body: &body };
        let want = Verdict { errno: 17, text: Some("name taken".to_owned()) };
        assert_eq!(verdict(&message), Some(want));
        let torn = Message { body: &body[..2], ..message };
        assert_eq!(verdict(&torn), None);
    }
}
