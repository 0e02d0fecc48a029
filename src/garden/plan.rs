//! What a Garden client asks for, in our own words. Pure; texts are those that clients match on.

use crate::model::egress::{Protocol, Rule};
use crate::model::garden::{AddressRange, Limits, NetOutRule, PortRange};
use crate::unit::Bytes;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

/// Where a container's root comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Image {
    /// The stack that the box is set to.
    Default,
    /// A stack of the box, by name: `preloaded:NAME`.
    Stack(String),
    /// A directory or tar file of the box.
    Local(PathBuf),
    /// An image in a registry: what follows `docker://`, and the tag behind `#`.
    Registry(String),
    /// An OCI image layout in a directory: `oci:///path`.
    Layout(PathBuf),
}

/// Reads `image.uri`, or `rootfs` when that is empty.
pub fn image(uri: &str, rootfs: &str) -> Result<Image, String> {
    let uri = if uri.is_empty() { rootfs } else { uri };
    let Some((scheme, rest)) = uri.split_once(':') else {
        return match uri {
            "" => Ok(Image::Default),
            path => Ok(Image::Local(path.into())),
        };
    };
    match scheme {
        _ if scheme.contains('/') => Ok(Image::Local(uri.into())),
        "preloaded" => Ok(Image::Stack(rest.to_owned())),
        "docker" => match rest.strip_prefix("//") {
            Some(reference) => Ok(Image::Registry(reference.to_owned())),
            None => Err(format!("`{uri}` is no image: write docker:///name#tag")),
        },
        "oci" => Ok(Image::Layout(rest.strip_prefix("//").unwrap_or(rest).into())),
        "" => Ok(Image::Local(rest.into())),
        _ => Err(format!(
            "`{uri}` is no image: `{scheme}` is none of docker, oci and preloaded, nor a path"
        )),
    }
}

/// Bytes that the container itself may write; `None`: as much as there is. `image_bytes`: what its
/// image holds, which counts in total scope.
pub fn disk(limits: &Limits, image_bytes: u64) -> Result<Option<Bytes>, String> {
    const TOTAL: u8 = 0;
    let asked = match limits.disk.byte_hard {
        0 => limits.disk.byte_soft,
        hard => hard,
    };
    match (asked, limits.disk.scope) {
        (0, _) => Ok(None),
        (total, TOTAL) => match total.checked_sub(image_bytes) {
            Some(rest) if rest > 0 => Ok(Some(Bytes::new(rest))),
            _ => Err(format!(
                "disk limit of {total} bytes is smaller than the image, which has {image_bytes}"
            )),
        },
        (exclusive, _) => Ok(Some(Bytes::new(exclusive))),
    }
}

/// One rule of net/out as ours. Garden's rules only allow.
pub fn egress(rule: &NetOutRule) -> Result<Rule, String> {
    let protocol = match rule.protocol {
        0 => Protocol::All,
        1 => Protocol::Tcp,
        2 => Protocol::Udp,
        3 => Protocol::Icmp,
        other => return Err(format!("invalid protocol: {other}")),
    };
    let named = match protocol {
        Protocol::All => Some("ALL"),
        Protocol::Icmp => Some("ICMP"),
        Protocol::Tcp | Protocol::Udp => None,
    };
    if let (Some(name), false) = (named, rule.ports.is_empty()) {
        return Err(format!("Ports cannot be specified for Protocol {name}"));
    }
    let port = |range: &PortRange| match range.start <= range.end {
        true => Ok((range.start, range.end)),
        false => Err(format!("ports {}-{} end before they begin", range.start, range.end)),
    };
    Ok(Rule {
        protocol,
        to: match &rule.networks[..] {
            // Everywhere, other containers included.
            [] => vec![(Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST)],
            networks => networks.iter().map(addresses).collect::<Result<_, _>>()?,
        },
        ports: rule.ports.iter().map(port).collect::<Result<_, _>>()?,
        icmp: rule.icmps.filter(|_| protocol == Protocol::Icmp).map(|icmp| (icmp.kind, icmp.code)),
        log: rule.log,
    })
}

fn addresses(range: &AddressRange) -> Result<(Ipv4Addr, Ipv4Addr), String> {
    let v4 = |address: IpAddr| match address.to_canonical() {
        IpAddr::V4(address) => Ok(address),
        IpAddr::V6(address) => Err(format!("{address} is IPv6, which containers here do not have")),
    };
    match (range.start, range.end) {
        (Some(start), Some(end)) => {
            let (start, end) = (v4(start)?, v4(end)?);
            match start <= end {
                true => Ok((start, end)),
                false => Err(format!("addresses {start}-{end} end before they begin")),
            }
        }
        (Some(one), None) | (None, Some(one)) => v4(one).map(|one| (one, one)),
        (None, None) => Ok((Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST)),
    }
}

/// `K=V` entries as pairs; one without a name or `=` is refused.
pub fn environment(entries: &[String]) -> Result<Vec<(String, String)>, String> {
    let pair = |entry: &String| match entry.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err(format!("invalid environment variable: {entry}")),
    };
    entries.iter().map(pair).collect()
}

/// The name that the server gives: eleven digits of base 32 that grow with `nanos`, so that names
/// of one box differ as long as its clock does not go back, and fit a link's name.
pub fn id(nanos: u64) -> String {
    const DIGITS: &[u8; 32] = b"0123456789abcdefghijklmnopqrstuv";
    let digit = |at: u32| DIGITS[(nanos >> (50 - 5 * at) & 31) as usize] as char;
    (0..11).map(digit).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::garden::{DiskLimits, Icmp};

    #[test]
    fn every_form_of_an_image() {
        let local = |path: &str| Ok(Image::Local(path.into()));
        for (uri, rootfs, expected) in [
            ("", "", Ok(Image::Default)),
            ("", "/srv/root", local("/srv/root")),
            ("docker:///busybox#1.36", "/old", Ok(Image::Registry("/busybox#1.36".into()))),
            ("docker://host:5000/a/b", "", Ok(Image::Registry("host:5000/a/b".into()))),
            ("preloaded:cflinuxfs4", "", Ok(Image::Stack("cflinuxfs4".into()))),
            ("oci:///srv/image", "", Ok(Image::Layout("/srv/image".into()))),
            ("/srv/with:colon", "", local("/srv/with:colon")),
            ("root.tar", "", local("root.tar")),
        ] {
            assert_eq!(image(uri, rootfs), expected, "{uri} {rootfs}");
        }
        for uri in ["ftp://x", "docker:busybox"] {
            let err = image(uri, "").expect_err(uri);
            assert!(err.starts_with(&format!("`{uri}` is no image: ")), "{err}");
        }
    }

    #[test]
    fn total_scope_counts_the_image_and_exclusive_does_not() {
        let of = |byte_soft, byte_hard, scope| {
            let disk_limits = DiskLimits { byte_soft, byte_hard, scope, ..Default::default() };
            disk(&Limits { disk: disk_limits, ..Default::default() }, 100)
        };
        assert_eq!(of(0, 0, 0), Ok(None));
        assert_eq!(of(0, 300, 1), Ok(Some(Bytes::new(300))));
        assert_eq!(of(0, 300, 0), Ok(Some(Bytes::new(200))));
        assert_eq!(of(300, 0, 0), Ok(Some(Bytes::new(200))));
        assert_eq!(of(300, 150, 0), Ok(Some(Bytes::new(50))));
        for total in [1, 100] {
            assert!(of(0, total, 0).is_err(), "{total}");
        }
    }

    #[test]
    fn rules_say_where_and_refuse_what_makes_no_sense() {
        let address = |text: &str| Some(text.parse::<IpAddr>().expect("address"));
        let range = |start, end| AddressRange { start, end };
        let all = |networks: Vec<AddressRange>| NetOutRule { networks, ..Default::default() };
        let to = |rule: &NetOutRule| egress(rule).expect("a rule").to;
        assert_eq!(to(&all(Vec::new())), [(Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST)]);
        let ping = Icmp { kind: 8, code: None };
        let icmp = NetOutRule { protocol: 3, icmps: Some(ping), ..Default::default() };
        assert_eq!(egress(&icmp).expect("icmp").icmp, Some((8, None)));
        let one = Ipv4Addr::new(10, 0, 0, 1);
        let last = Ipv4Addr::new(10, 0, 0, 9);
        assert_eq!(to(&all(vec![range(address("10.0.0.1"), address("10.0.0.9"))])), [(one, last)]);
        assert_eq!(to(&all(vec![range(address("10.0.0.1"), None)])), [(one, one)]);
        assert_eq!(to(&all(vec![range(None, address("::ffff:10.0.0.1"))])), [(one, one)]);
        let backwards = all(vec![range(address("10.0.0.9"), address("10.0.0.1"))]);
        assert!(egress(&backwards).is_err());
        assert!(egress(&all(vec![range(address("fe80::1"), None)])).is_err());

        let ports = vec![PortRange { start: 80, end: 81 }];
        let with = |protocol| NetOutRule { protocol, ports: ports.clone(), ..Default::default() };
        assert_eq!(egress(&with(1)).expect("tcp").ports, [(80, 81)]);
        let said = |protocol| egress(&with(protocol)).expect_err("no ports");
        assert_eq!(said(0), "Ports cannot be specified for Protocol ALL");
        assert_eq!(said(3), "Ports cannot be specified for Protocol ICMP");
        assert_eq!(said(5), "invalid protocol: 5");
    }

    #[test]
    fn names_grow_with_the_clock() {
        assert_eq!(id(0), "00000000000");
        assert_eq!(id(31), "0000000000v");
        assert_eq!(id(32), "00000000010");
        let (early, late) = (id(1_795_000_000_000_000_000), id(1_795_000_000_000_000_001));
        assert!(early < late && early.len() == 11, "{early} {late}");
        assert!(environment(&["A=1=2".into()]).is_ok_and(|it| it[0].1 == "1=2"));
        assert!(environment(&["A".into()]).is_err() && environment(&["=1".into()]).is_err());
    }
}
