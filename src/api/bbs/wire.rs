//! Protobuf on the wire: tags, numbers, lengths. Pure.
//!
//! Source: protobuf.dev, "Encoding". Groups, which nothing has used since 2008, are refused.

/// Bytes that are no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed(pub &'static str);

/// What stands behind one tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Raw<'a> {
    /// A number of up to 64 bits; signed ones are in two's complement.
    Number(u64),
    /// A text, bytes, a message, or numbers one after the other.
    Bytes(&'a [u8]),
    /// Four or eight bytes; no message here has any.
    Fixed,
}

/// Takes a message apart, field by field.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a>(pub &'a [u8]);

/// Bytes of the longest number.
const NUMBER_MAX: usize = 10;

impl<'a> Reader<'a> {
    /// Number and content of the next field; `None`: that was all.
    pub fn field(&mut self) -> Result<Option<(u32, Raw<'a>)>, Malformed> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let tag = self.number()?;
        let number = u32::try_from(tag >> 3).ok().filter(|it| (1..1 << 29).contains(it));
        let number = number.ok_or(Malformed("a field has a number that there is not"))?;
        let raw = match tag & 7 {
            0 => Raw::Number(self.number()?),
            1 => self.take(8).map(|_| Raw::Fixed)?,
            2 => {
                let length = self.number()?;
                Raw::Bytes(self.take(length)?)
            }
            5 => self.take(4).map(|_| Raw::Fixed)?,
            _ => return Err(Malformed("a field is of a kind that there is not")),
        };
        Ok(Some((number, raw)))
    }

    /// The next number.
    pub fn number(&mut self) -> Result<u64, Malformed> {
        let mut value = 0;
        for (n, byte) in self.0.iter().take(NUMBER_MAX).enumerate() {
            let bits = u64::from(byte & 0x7f);
            // Of the tenth byte only one bit is left.
            if n + 1 == NUMBER_MAX && bits > 1 {
                break;
            }
            value |= bits << (7 * n);
            if byte & 0x80 == 0 {
                self.0 = &self.0[n + 1..];
                return Ok(value);
            }
        }
        Err(Malformed("a number does not end"))
    }

    fn take(&mut self, length: u64) -> Result<&'a [u8], Malformed> {
        let length = usize::try_from(length).ok();
        let cut = length.and_then(|length| self.0.split_at_checked(length));
        let (taken, rest) = cut.ok_or(Malformed("a field ends behind the end of its message"))?;
        self.0 = rest;
        Ok(taken)
    }
}

/// Appends a number.
pub fn put_number(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends a field that is a number.
pub fn put_numbered(out: &mut Vec<u8>, field: u32, value: u64) {
    put_number(out, u64::from(field) << 3);
    put_number(out, value);
}

/// Appends a field of bytes.
pub fn put_bytes(out: &mut Vec<u8>, field: u32, bytes: &[u8]) {
    put_number(out, u64::from(field) << 3 | 2);
    put_number(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_they_are_written() {
        for value in [0, 1, 127, 128, 300, u64::from(u32::MAX), u64::MAX - 1, u64::MAX] {
            let mut bytes = Vec::new();
            put_number(&mut bytes, value);
            let mut reader = Reader(&bytes);
            assert_eq!((reader.number(), reader.0.len()), (Ok(value), 0));
            for cut in 0..bytes.len() {
                assert!(Reader(&bytes[..cut]).number().is_err(), "{value} cut at {cut}");
            }
        }
        // 65 bits, and eleven bytes.
        assert!(Reader(&[0xff; 9].into_iter().chain([2]).collect::<Vec<u8>>()).number().is_err());
        assert!(Reader(&[0x80; 11]).number().is_err());
    }

    /// The examples of the protobuf documentation.
    #[test]
    fn fields_are_as_the_documentation_has_them() {
        let mut reader =
            Reader(&[0x08, 0x96, 0x01, 0x12, 0x07, b't', b'e', b's', b't', b'i', b'n', b'g']);
        assert_eq!(reader.field(), Ok(Some((1, Raw::Number(150)))));
        assert_eq!(reader.field(), Ok(Some((2, Raw::Bytes(b"testing")))));
        assert_eq!(reader.field(), Ok(None));
        let mut out = Vec::new();
        put_numbered(&mut out, 1, 150);
        put_bytes(&mut out, 2, b"testing");
        assert_eq!(out, [0x08, 0x96, 0x01, 0x12, 0x07, b't', b'e', b's', b't', b'i', b'n', b'g']);
    }

    #[test]
    fn what_is_no_field_is_refused() {
        for (bytes, why) in [
            (&[0x00, 0x00][..], "field number 0"),
            (&[0x0b], "a group"),
            (&[0x0f], "no kind"),
            (&[0x0a, 0x02, b'x'], "a length beyond the end"),
            (&[0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01], "a huge length"),
            (&[0x09, 1, 2, 3], "eight bytes of which three are there"),
            (&[0x0d, 1, 2, 3], "four bytes of which three are there"),
            (&[0xf8, 0xff, 0xff, 0xff, 0x7f, 0x00], "a field number above 2^29"),
        ] {
            assert!(Reader(bytes).field().is_err(), "{why}");
        }
        assert_eq!(Reader(&[0x0d, 1, 2, 3, 4]).field(), Ok(Some((1, Raw::Fixed))));
    }
}
