//! `[net]`: addresses, name servers and ports of containers, and what they may reach.

use super::super::address::{self, Range};
use super::super::cursor::{Section, Value};
use super::super::words::shown;
use super::Amount;
use super::read::set;
use std::net::{IpAddr, Ipv4Addr};
use toml::de::DeValue;

/// Most ranges in `deny` and in `allow`: each is a packet rule of every Garden container.
const RANGES_MAX: usize = 256;
/// Most name servers of a list: no resolver asks more.
const SERVERS_MAX: usize = 3;
/// Most lines that are added to `/etc/hosts`.
const HOSTS_MAX: usize = 64;
/// Most names in one of them.
const NAMES_MAX: usize = 16;

/// The network of all containers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Net {
    /// First address of the /16 that is cut into a /30 for each container.
    pub pool: Ipv4Addr,
    /// 0 to 2 letters in every link's name, to keep two daemons on one host apart.
    pub tag: String,
    /// Largest packet, in bytes.
    pub mtu: u16,
    /// The box's address as containers are told it; auto: the one that it uses towards the world.
    pub external_address: Amount<Ipv4Addr>,
    /// Name servers that containers are given; empty: the host's.
    pub dns: Vec<Ipv4Addr>,
    /// Name servers that come after those.
    pub additional_dns: Vec<Ipv4Addr>,
    /// Lines that every container's `/etc/hosts` has besides its own.
    pub additional_hosts: Vec<HostEntry>,
    /// Ports of the box, first and last, from which every instance gets its own.
    pub ports: (u16, u16),
    /// What a Garden container reaches only by a rule of its own; both ends included.
    pub deny: Vec<(Ipv4Addr, Ipv4Addr)>,
    /// What it reaches although `deny` holds it; both ends included.
    pub allow: Vec<(Ipv4Addr, Ipv4Addr)>,
    /// Garden containers may talk to the box itself.
    pub allow_host_access: bool,
}

/// One line of a hosts file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostEntry {
    /// What the names stand for.
    pub address: IpAddr,
    /// At least one, with one space between two.
    pub names: String,
}

impl Net {
    pub(super) fn defaults() -> Net {
        Net {
            pool: Ipv4Addr::new(10, 254, 0, 0),
            tag: String::new(),
            mtu: 1500,
            external_address: Amount::Auto,
            dns: Vec::new(),
            additional_dns: Vec::new(),
            additional_hosts: Vec::new(),
            ports: (61_001, 65_534),
            deny: Vec::new(),
            allow: Vec::new(),
            allow_host_access: false,
        }
    }

    pub(super) fn read(&mut self, mut section: Section<'_>) {
        set(&mut self.pool, section.take("pool").and_then(|it| it.parsed(read_pool)));
        set(&mut self.tag, section.take("tag").and_then(|it| it.parsed(read_tag)));
        let mtu = section.take("mtu").and_then(|it| it.number(576, 65_535));
        set(&mut self.mtu, mtu.map(|number| number as u16));
        let external = section.take("external_address");
        set(&mut self.external_address, external.and_then(|it| read_external(&it)));
        let servers = |it: Value<'_>| all(&it, SERVERS_MAX, address::one);
        set(&mut self.dns, section.take("dns").and_then(servers));
        set(&mut self.additional_dns, section.take("additional_dns").and_then(servers));
        let hosts = section.take("additional_hosts");
        set(&mut self.additional_hosts, hosts.and_then(|it| all(&it, HOSTS_MAX, read_host)));
        set(&mut self.ports, section.take("ports").and_then(|it| it.parsed(read_ports)));
        let ranges = |it: Value<'_>| -> Option<Vec<Range>> { all(&it, RANGES_MAX, address::range) };
        set(&mut self.deny, section.take("deny").and_then(ranges));
        set(&mut self.allow, section.take("allow").and_then(ranges));
        let access = section.take("allow_host_access").and_then(|it| it.truth());
        set(&mut self.allow_host_access, access);
        section.finish();
    }
}

/// Every item of a list that `read` accepts.
pub(super) fn all<T>(
    value: &Value<'_>,
    max: usize,
    read: impl Fn(&str) -> Result<T, String>,
) -> Option<Vec<T>> {
    let items = value.list(max)?;
    Some(items.iter().filter_map(|item| item.parsed(&read)).collect())
}

fn read_pool(text: &str) -> Result<Ipv4Addr, String> {
    let bad = || {
        let text = shown(text);
        format!("`{text}` is not a pool; a private /16 such as \"10.254.0.0/16\"")
    };
    let base: Ipv4Addr =
        text.strip_suffix("/16").and_then(|base| base.parse().ok()).ok_or_else(bad)?;
    let [.., third, fourth] = base.octets();
    match base.is_private() && third == 0 && fourth == 0 {
        true => Ok(base),
        false => Err(bad()),
    }
}

/// Letters only: a digit would run into the slot's number in a link's name.
fn read_tag(text: &str) -> Result<String, String> {
    match text.len() <= 2 && text.bytes().all(|b| b.is_ascii_lowercase()) {
        true => Ok(text.to_owned()),
        false => Err(format!("`{}` is not a tag; at most two letters a-z", shown(text))),
    }
}

/// `"auto"`, or an address that a client could connect to.
fn read_external(value: &Value<'_>) -> Option<Amount<Ipv4Addr>> {
    match value.inner {
        DeValue::String(text) if text == "auto" => Some(Amount::Auto),
        _ => value.parsed(address::one).and_then(|address| {
            let special =
                address.is_unspecified() || address.is_broadcast() || address.is_multicast();
            if special {
                value.fail(
                    format!("is {address}, which is no box's own"),
                    "write \"auto\" or an address of this box",
                );
            }
            (!special).then_some(Amount::Fixed(address))
        }),
    }
}

/// `10.0.0.7 db.lan db`: an address, then its names.
fn read_host(text: &str) -> Result<HostEntry, String> {
    let bad = || {
        format!(
            "`{}` is no line of a hosts file; an address and 1 to {NAMES_MAX} names, such as \
             \"10.0.0.7 db.lan db\"",
            shown(text)
        )
    };
    let mut words = text.split([' ', '\t']).filter(|word| !word.is_empty());
    let address: IpAddr = words.next().and_then(|word| word.parse().ok()).ok_or_else(bad)?;
    let names: Vec<&str> = words.collect();
    let good = (1..=NAMES_MAX).contains(&names.len())
        && names.iter().all(|name| address::is_host_name(&name.replace('_', "-")));
    match good {
        true => Ok(HostEntry { address, names: names.join(" ") }),
        false => Err(bad()),
    }
}

fn read_ports(text: &str) -> Result<(u16, u16), String> {
    let port = |text: &str| text.trim().parse::<u16>().ok().filter(|port| *port >= 1024);
    let ports = text.split_once('-').map(|(first, last)| (port(first), port(last)));
    match ports {
        Some((Some(first), Some(last))) if first <= last => Ok((first, last)),
        _ => Err(format!(
            "`{}` is not a range of ports; two numbers from 1024, such as \"61001-65534\"",
            shown(text)
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_a_hosts_file_is_an_address_and_its_names() {
        let entry = |text: &str| read_host(text).expect(text);
        assert_eq!(entry(" 10.0.0.7\tdb.lan  db ").names, "db.lan db");
        assert_eq!(entry("fd00::7 my_db").address, "fd00::7".parse::<IpAddr>().expect("one"));
        let many = format!("10.0.0.7{}", " a".repeat(NAMES_MAX + 1));
        for text in ["", "10.0.0.7", "db 10.0.0.7", "10.0.0.7 a\n10.0.0.8 b", "10.0.0.7 #x", &many]
        {
            assert!(read_host(text).is_err(), "{text}");
        }
    }

    #[test]
    fn lists_of_networks_are_ranges_with_both_ends() {
        let ip = Ipv4Addr::new;
        for (text, first, last) in [
            ("0.0.0.0/0", ip(0, 0, 0, 0), ip(255, 255, 255, 255)),
            ("10.1.0.0/16", ip(10, 1, 0, 0), ip(10, 1, 255, 255)),
            ("1.2.3.4", ip(1, 2, 3, 4), ip(1, 2, 3, 4)),
            ("1.2.3.4-1.2.3.9", ip(1, 2, 3, 4), ip(1, 2, 3, 9)),
        ] {
            assert_eq!(address::range(text), Ok((first, last)));
        }
    }
}
