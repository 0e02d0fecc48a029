//! Addresses as people write them: one, a range, a network, a place to listen at, a registry.

use super::words::shown;
use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

/// Addresses from the first to the last, both included.
pub(super) type Range = (Ipv4Addr, Ipv4Addr);

/// `10.0.0.0/8`, `1.2.3.4` or `10.0.0.1-10.0.0.9`.
pub(super) fn range(text: &str) -> Result<Range, String> {
    let bad = || {
        let text = shown(text);
        if text.contains("::") || text.matches(':').count() > 1 {
            return format!("`{text}`: IPv6 is not supported by this version yet");
        }
        if text.starts_with(|c: char| c.is_ascii_alphabetic()) {
            return format!("`{text}`: names are not supported here yet; write an address");
        }
        format!(
            "`{text}` is no address; write \"10.0.0.0/8\", \"10.1.2.3\" or \"10.0.0.1-10.0.0.9\""
        )
    };
    let address = |text: &str| text.trim().parse::<Ipv4Addr>().map_err(|_| bad());
    if let Some((first, last)) = text.split_once('-') {
        let (first, last) = (address(first)?, address(last)?);
        return match first <= last {
            true => Ok((first, last)),
            false => Err(format!("range `{text}` is backwards; write \"{last}-{first}\"")),
        };
    }
    let Some((base, bits)) = text.split_once('/') else {
        return address(text).map(|one| (one, one));
    };
    let base = address(base)?;
    let plain = !bits.is_empty() && bits.len() <= 2 && bits.bytes().all(|b| b.is_ascii_digit());
    let bits: u32 = bits.parse().ok().filter(|bits| plain && *bits <= 32).ok_or_else(bad)?;
    let hosts = u32::MAX.checked_shr(bits).unwrap_or(0);
    let first = Ipv4Addr::from_bits(base.to_bits() & !hosts);
    match first == base {
        true => Ok((first, Ipv4Addr::from_bits(base.to_bits() | hosts))),
        // Taking it for the whole network would open more than was written.
        false => Err(format!("`{text}` is not the start of its network; write \"{first}/{bits}\"")),
    }
}

/// `9.9.9.9`.
pub(super) fn one(text: &str) -> Result<Ipv4Addr, String> {
    let bad = |_| format!("`{}` is not an IPv4 address; such as \"9.9.9.9\"", shown(text));
    text.parse::<Ipv4Addr>().map_err(bad)
}

/// `127.0.0.1:7777` or `[::1]:7777`: an address of the box and a port. Empty: none.
pub(super) fn endpoint(text: &str) -> Result<Option<SocketAddr>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    let shown = shown(text);
    match text.parse::<SocketAddr>() {
        Ok(address) if address.port() == 0 => {
            Err(format!("`{shown}` has port 0, which nobody can find; write one from 1 to 65535"))
        }
        Ok(address) => Ok(Some(address)),
        Err(_) => Err(format!(
            "`{shown}` is no address with a port; such as \"127.0.0.1:7777\" or \"[::1]:7777\""
        )),
    }
}

/// A registry of images: a host's name or address, and a port if it is not that of https.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registry {
    /// Lower case; an IPv6 address without its brackets.
    pub host: String,
    /// 1 to 65535.
    pub port: Option<u16>,
}

impl fmt::Display for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]", self.host)?,
            false => f.write_str(&self.host)?,
        }
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

/// `registry.example.com`, `10.0.0.7:5000`, `[fd00::7]:5000`; no scheme and no path.
pub(super) fn registry(text: &str) -> Result<Registry, String> {
    let bad = || {
        format!(
            "`{}` is no registry; a host and, if need be, its port, such as \"10.0.0.7:5000\"",
            shown(text)
        )
    };
    let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, rest)) => {
            let host: Ipv6Addr = host.parse().map_err(|_| bad())?;
            let port = rest.strip_prefix(':');
            if port.is_none() && !rest.is_empty() {
                return Err(bad());
            }
            (host.to_string(), port)
        }
        None => {
            let (host, port) = match text.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (text, None),
            };
            if !is_host_name(host) {
                return Err(bad());
            }
            (host.to_ascii_lowercase(), port)
        }
    };
    let number = |port: &str| {
        let digits = port.bytes().all(|b| b.is_ascii_digit());
        port.parse::<u16>().ok().filter(|port| digits && *port > 0).ok_or_else(bad)
    };
    Ok(Registry { host, port: port.map(number).transpose()? })
}

/// Labels of letters, digits and inner hyphens with dots between them; an IPv4 address is one, too.
pub(super) fn is_host_name(text: &str) -> bool {
    let label = |label: &str| {
        let plain = label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        (1..=63).contains(&label.len()) && plain && !label.starts_with('-') && !label.ends_with('-')
    };
    text.len() <= 253 && text.split('.').all(label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registries_are_read_and_shown_alike() {
        for (text, host, port) in [
            ("registry-1.docker.io", "registry-1.docker.io", None),
            ("10.0.0.7:5000", "10.0.0.7", Some(5000)),
            ("[fd00::7]:5000", "fd00::7", Some(5000)),
            ("[::1]", "::1", None),
        ] {
            let read = registry(text).expect(text);
            assert_eq!((read.host.as_str(), read.port), (host, port));
            assert_eq!(read.to_string(), text);
        }
        assert_eq!(registry("Reg.LAN").expect("a name").host, "reg.lan");
        for text in [
            "", ":5000", "a:", "a:0", "a:65536", "a:+5", "a:5:5", "http://a", "a/b", "a..b", "-a",
            "[::1", "[::1]5", "[a]", "fd00::7", "a b",
        ] {
            let bad = registry(text).expect_err(text);
            assert!(bad.ends_with("such as \"10.0.0.7:5000\""), "{bad}");
        }
    }

    #[test]
    fn an_endpoint_has_an_address_and_a_port_that_can_be_found() {
        assert_eq!(endpoint(""), Ok(None));
        for text in ["127.0.0.1:7777", "[::1]:1", "0.0.0.0:65535"] {
            let read = endpoint(text).expect(text).expect("one");
            assert_eq!(read.to_string(), text);
        }
        for text in ["7777", ":7777", "localhost:7777", "127.0.0.1", "127.0.0.1:0", "::1:7777x"] {
            assert!(endpoint(text).is_err(), "{text}");
        }
    }
}
