//! Percent signs of URLs, RFC 3986.

/// `text` as one path segment or query value: everything but unreserved characters is escaped.
pub fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                out.push(char::from(byte));
            }
            byte => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

/// The bytes that `text` stands for; `None`: an escape in it is broken.
pub fn plain(text: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.iter();
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'%' => {
                let mut digit = || char::from(*bytes.next()?).to_digit(16);
                (digit()? << 4 | digit()?) as u8
            }
            byte => *byte,
        });
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_escaped_is_plain_again() {
        for (text, wire) in [("a-b_c.d~9", "a-b_c.d~9"), ("a b/ä%+", "a%20b%2F%C3%A4%25%2B")] {
            assert_eq!(escaped(text), wire);
            assert_eq!(plain(wire.as_bytes()).as_deref(), Some(text.as_bytes()));
        }
        assert_eq!(plain(b"%ff%Fe").as_deref(), Some(&[0xff, 0xfe][..]));
        for broken in ["%", "%4", "a%", "%4g", "%+1", "%-1", "% 1"] {
            assert_eq!(plain(broken.as_bytes()), None, "{broken}");
        }
    }
}
