//! What a Garden client asks for, in our own words. Pure; texts are those that clients match on.

use super::{Done, GardenError};
use crate::container::{self, Posture};
use crate::image::Rootfs;
use crate::init::proto::{Bind, Origin};
use crate::model;
use crate::model::egress::{Protocol, Rule};
use crate::model::garden::{
    self, AddressRange, BandwidthLimits, BindMount, ContainerSpec, CpuLimits, Limits, NetIn,
    NetOutRule, PortRange,
};
use crate::model::process::{ProcessSpec, Program, Rlimit, WindowSize};
use crate::net::Bandwidth;
use crate::unit::{Bytes, Digest, Handle, ImageRef};
use std::collections::{BTreeMap, HashMap};
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
    /// An image in a registry.
    Registry(ImageRef),
    /// An OCI image layout in a directory: `oci:///path`.
    Layout(PathBuf),
}

/// What of a request for a container has to be read before anything is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Its root.
    pub image: Image,
    binds: Vec<Bind>,
    egress: Vec<Rule>,
    host_ports: Vec<(u16, u16)>,
}

impl Wanted {
    /// Reads all that may be wrong by itself.
    pub fn read(spec: &ContainerSpec) -> Done<Wanted> {
        environment(&spec.env).map_err(GardenError::Failed)?;
        let binds = spec.bind_mounts.iter().map(bind).collect::<Result<_, _>>();
        let egress = spec.netout_rules.iter().map(egress).collect::<Result<_, _>>();
        let ports = spec.netin.iter().map(ports).collect::<Result<_, _>>();
        Ok(Wanted {
            image: image(&spec.image.uri, &spec.rootfs).map_err(GardenError::Failed)?,
            binds: binds.map_err(GardenError::Failed)?,
            egress: egress.map_err(GardenError::Failed)?,
            host_ports: ports.map_err(GardenError::Failed)?,
        })
    }
}

/// The container that is asked for, but for its name.
pub fn container(
    handle: &str,
    spec: &ContainerSpec,
    wanted: Wanted,
    root: &Rootfs,
    owner: String,
) -> Done<container::ContainerSpec> {
    let disk = disk(&spec.limits, root.bytes)
        .map_err(|why| GardenError::Failed(format!("container {handle}: {why}")))?;
    let nameless: Handle = "nameless".parse().expect("a word is a handle");
    Ok(container::ContainerSpec {
        image: root.image,
        host_name: host_name(handle).to_owned(),
        log_name: log_name(handle),
        limits: limits(&spec.limits, disk),
        host_ports: wanted.host_ports,
        egress: wanted.egress,
        network: spec.network.clone(),
        bandwidth: bandwidth(&spec.limits.bandwidth),
        posture: if spec.privileged { Posture::Privileged } else { Posture::Garden },
        binds: wanted.binds,
        volumes: root.volumes.clone(),
        owner,
        ..container::ContainerSpec::new(nameless, root.layers.clone())
    })
}

/// Limits in our own words; 0 is none. `disk`: what the container itself may write.
pub fn limits(asked: &Limits, disk: Option<Bytes>) -> model::limits::Limits {
    let some = |number: u64| (number > 0).then_some(number);
    model::limits::Limits {
        memory: some(asked.memory.limit_in_bytes).map(Bytes::new),
        disk,
        cpu_weight: None,
        cpu_shares: shares(&asked.cpu),
        pids: some(asked.pid.max).map(|max| u32::try_from(max).unwrap_or(u32::MAX)),
    }
}

/// A share of the processor; the weight wins over its old name, 0 is none.
pub fn shares(asked: &CpuLimits) -> Option<u64> {
    [asked.weight, asked.limit_in_shares].into_iter().find(|shares| *shares > 0)
}

/// A limit of the network; a rate of 0 is none.
pub fn bandwidth(asked: &BandwidthLimits) -> Option<Bandwidth> {
    let limit = Bandwidth { rate_bytes: asked.rate, burst_bytes: asked.burst };
    (asked.rate > 0).then_some(limit)
}

/// A port of the box and the one inside; 0 leaves the choice to the server.
pub fn ports(asked: &NetIn) -> Result<(u16, u16), String> {
    let port = |number: u32| {
        u16::try_from(number).map_err(|_| format!("{number} is no port: they go from 1 to 65535"))
    };
    Ok((port(asked.host_port)?, port(asked.container_port)?))
}

/// What of the box, or of the container itself, shows up in another place. Owners are the box's own
/// numbers, so that root inside has no more right to files of the box than any stranger.
pub fn bind(asked: &BindMount) -> Result<Bind, String> {
    let BindMount { src_path, dst_path, mode, origin } = asked;
    for path in [src_path, dst_path] {
        let why = match (path.starts_with('/'), path.contains('\0')) {
            (true, false) => continue,
            (_, true) => "holds a NUL",
            (false, _) => "is no absolute path",
        };
        return Err(format!("bind mount of `{src_path}` on `{dst_path}`: `{path}` {why}"));
    }
    let wrong = |what: &str, value: u8| {
        Err(format!(
            "bind mount of `{src_path}` on `{dst_path}`: {what} {value} is neither 0 nor 1"
        ))
    };
    Ok(Bind {
        from: src_path.into(),
        origin: match origin {
            0 => Origin::Host,
            1 => Origin::Container,
            other => return wrong("origin", *other),
        },
        to: dst_path.clone(),
        read_only: match mode {
            0 => true,
            1 => false,
            other => return wrong("mode", *other),
        },
        mapped: false,
        ours: false,
    })
}

/// The process that is asked for. `inner`: the name that pid 1 gets; `env`: the container's own.
pub fn process(asked: &garden::ProcessSpec, inner: &str, env: &[String]) -> Done<ProcessSpec> {
    if asked.image.uri.is_empty() && !asked.bind_mounts.is_empty() {
        let text = "bind mounts are for processes with an image of their own";
        return Err(GardenError::Failed(text.into()));
    }
    let fields = [("path", &asked.path), ("dir", &asked.dir), ("user", &asked.user)];
    let args = asked.args.iter().map(|arg| ("args", arg));
    if let Some((field, _)) = fields.into_iter().chain(args).find(|(_, text)| text.contains('\0')) {
        let text = format!("`{field}` of the process holds a NUL, which no program can be told");
        return Err(GardenError::Failed(text));
    }
    let all: Vec<String> = env.iter().chain(&asked.env).cloned().collect();
    let some = |text: &String| (!text.is_empty()).then(|| text.clone());
    Ok(ProcessSpec {
        id: inner.to_owned(),
        path: asked.path.clone(),
        args: asked.args.clone(),
        program: Program::Path,
        argv0: None,
        env: environment(&all).map_err(GardenError::Failed)?,
        dir: some(&asked.dir),
        dir_must_exist: false,
        user: some(&asked.user).unwrap_or_else(|| "root".into()),
        nofile: None,
        rlimits: rlimits(&asked.rlimits),
        tty: asked.tty.map(|tty| {
            let size = tty.size();
            WindowSize { rows: size.rows, columns: size.columns }
        }),
        stdin: true,
        keep_stdin: asked.tty.is_none(),
        launches: false,
        never_waits: false,
    })
}

fn rlimits(asked: &garden::ResourceLimits) -> BTreeMap<Rlimit, u64> {
    let all = [
        (Rlimit::As, asked.r#as),
        (Rlimit::Core, asked.core),
        (Rlimit::Cpu, asked.cpu),
        (Rlimit::Data, asked.data),
        (Rlimit::Fsize, asked.fsize),
        (Rlimit::Locks, asked.locks),
        (Rlimit::Memlock, asked.memlock),
        (Rlimit::Msgqueue, asked.msgqueue),
        (Rlimit::Nice, asked.nice),
        (Rlimit::Nofile, asked.nofile),
        (Rlimit::Nproc, asked.nproc),
        (Rlimit::Rss, asked.rss),
        (Rlimit::Rtprio, asked.rtprio),
        (Rlimit::Sigpending, asked.sigpending),
        (Rlimit::Stack, asked.stack),
    ];
    all.into_iter().filter_map(|(kind, value)| Some((kind, value?))).collect()
}

/// Longest name of a process that pid 1 takes as it is, behind [`PLAIN`].
const PLAIN_MAX: usize = 38;

/// Before names that pid 1 has as clients said them, and before digests of all other names.
const PLAIN: &str = "p-";
const DIGEST: &str = "h-";

/// The name that pid 1 has for a client's process, which may have any name.
pub fn process_name(id: &str) -> String {
    let safe = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    match id.len() <= PLAIN_MAX && id.bytes().all(safe) {
        true => format!("{PLAIN}{id}"),
        false => {
            let digest = Digest::of(id.as_bytes()).to_string();
            let hex = digest.rsplit(':').next().unwrap_or_default();
            format!("{DIGEST}{}", &hex[..PLAIN_MAX])
        }
    }
}

/// The client's name of a process in the list of pid 1; `None`: it is not a client's. `names`: of
/// those that pid 1 has by their digest.
pub fn client_name(inner: &str, names: &BTreeMap<String, String>) -> Option<String> {
    match inner.strip_prefix(PLAIN) {
        Some(id) => Some(id.to_owned()),
        None => names.get(inner).cloned(),
    }
}

/// It is a client's process, though nobody knows its name any more.
pub fn is_nameless(inner: &str) -> bool {
    inner.starts_with(DIGEST)
}

/// Pid 1 has the name as the client said it: nothing else must be kept.
pub fn is_plain(inner: &str) -> bool {
    inner.starts_with(PLAIN)
}

/// Reads `image.uri`, or `rootfs` when that is empty.
pub fn image(uri: &str, rootfs: &str) -> Result<Image, String> {
    let uri = if uri.is_empty() { rootfs } else { uri };
    if uri.contains('\0') {
        return Err(format!("root `{}` holds a NUL", uri.escape_default()));
    }
    let image = named_image(uri)?;
    match &image {
        Image::Local(path) | Image::Layout(path) if !path.is_absolute() => Err(format!(
            "root `{uri}` is a relative path; name it from `/` on, or a stack of the box as \
             `preloaded:NAME`"
        )),
        _ => Ok(image),
    }
}

fn named_image(uri: &str) -> Result<Image, String> {
    let Some((scheme, rest)) = uri.split_once(':') else {
        return match uri {
            "" => Ok(Image::Default),
            path => Ok(Image::Local(path.into())),
        };
    };
    match scheme {
        _ if scheme.contains('/') => Ok(Image::Local(uri.into())),
        "preloaded" => Ok(Image::Stack(rest.to_owned())),
        "docker" => match rest.starts_with("//") {
            true => uri.parse().map(Image::Registry).map_err(|err| format!("{err}")),
            false => Err(format!("`{uri}` is no image: write docker:///name#tag")),
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
    // As in Garden, whatever is not exclusive is total.
    const EXCLUSIVE: u8 = 1;
    let asked = match limits.disk.byte_hard {
        0 => limits.disk.byte_soft,
        hard => hard,
    };
    match (asked, limits.disk.scope) {
        (0, _) => Ok(None),
        (exclusive, EXCLUSIVE) => Ok(Some(Bytes::new(exclusive))),
        (total, _) => match total.checked_sub(image_bytes) {
            Some(rest) if rest > 0 => Ok(Some(Bytes::new(rest))),
            _ => Err(format!(
                "disk limit of {total} bytes is smaller than the image, which has {image_bytes}; \
                 ask for more, or for exclusive scope, which does not count the image"
            )),
        },
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

/// `K=V` entries as pairs, the last one of each name at its own place; one without a name or `=` is
/// refused.
pub fn environment(entries: &[String]) -> Result<Vec<(String, String)>, String> {
    let mut all: Vec<(&str, &str)> = Vec::with_capacity(entries.len());
    let mut last: HashMap<&str, usize> = HashMap::with_capacity(entries.len());
    for (at, entry) in entries.iter().enumerate() {
        match entry.split_once('=') {
            _ if entry.contains('\0') => {
                let text = format!("invalid environment variable: entry {} holds a NUL", at + 1);
                return Err(text);
            }
            Some((name, value)) if !name.is_empty() => {
                last.insert(name, at);
                all.push((name, value));
            }
            // Without its value, which may be a secret.
            Some(_) => return Err("invalid environment variable: it has no name".into()),
            // It may be a secret as well, whose name was forgotten.
            None => {
                let text = format!("invalid environment variable: entry {} has no `=`", at + 1);
                return Err(text);
            }
        }
    }
    let kept = all.into_iter().enumerate().filter(|(at, (name, _))| last.get(name) == Some(at));
    Ok(kept.map(|(_, (name, value))| (name.to_owned(), value.to_owned())).collect())
}

/// Longest host name that is taken from a handle: guardian's.
const HOST_NAME_MAX: usize = 49;

/// What a container calls itself: the end of its handle. Empty when that would be no host name.
pub fn host_name(handle: &str) -> &str {
    let safe = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    match handle.bytes().all(safe) {
        true => &handle[handle.len().saturating_sub(HOST_NAME_MAX)..],
        false => "",
    }
}

/// Characters of a handle in lines of the kernel's log: Garden's.
const LOG_NAME_MAX: usize = 28;

/// What the kernel's log calls a container: the beginning of its handle. No line ends in it, nor is
/// anything in it but what a person can read.
fn log_name(handle: &str) -> String {
    let shown = |c: char| if c.is_ascii_graphic() || c == ' ' { c } else { '_' };
    handle.chars().take(LOG_NAME_MAX).map(shown).collect()
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

    /// As it is said: the last one of each name, at its own place.
    fn environment_by_the_book(entries: &[String]) -> Vec<(String, String)> {
        let mut all: Vec<(String, String)> = Vec::new();
        for (name, value) in entries.iter().filter_map(|entry| entry.split_once('=')) {
            all.retain(|(known, _)| known != name);
            all.push((name.to_owned(), value.to_owned()));
        }
        all
    }

    #[test]
    fn of_every_list_of_up_to_six_variables_the_last_of_each_name_stays_at_its_place() {
        const NAMES: [&str; 3] = ["A", "B", "AB"];
        for length in 0..=6u32 {
            for number in 0..3usize.pow(length) {
                let name = |at: u32| NAMES[number / 3usize.pow(at) % 3];
                let entries: Vec<_> =
                    (0..length).map(|at| format!("{}=v{at}=", name(at))).collect();
                let book = environment_by_the_book(&entries);
                assert_eq!(environment(&entries), Ok(book), "{entries:?}");
            }
        }
    }

    #[test]
    fn every_form_of_an_image() {
        let local = |path: &str| Ok(Image::Local(path.into()));
        for (uri, rootfs, expected) in [
            ("", "", Ok(Image::Default)),
            ("", "/srv/root", local("/srv/root")),
            (
                "docker:///busybox#1.36",
                "/old",
                Ok(Image::Registry("busybox:1.36".parse().expect("name"))),
            ),
            (
                "docker://host:5000/a/b",
                "",
                Ok(Image::Registry("host:5000/a/b".parse().expect("name"))),
            ),
            ("preloaded:cflinuxfs4", "", Ok(Image::Stack("cflinuxfs4".into()))),
            ("oci:///srv/image", "", Ok(Image::Layout("/srv/image".into()))),
            ("/srv/with:colon", "", local("/srv/with:colon")),
        ] {
            assert_eq!(image(uri, rootfs), expected, "{uri} {rootfs}");
        }
        for uri in ["root.tar", "./root", "oci://image", ":root"] {
            let err = image(uri, "").expect_err(uri);
            assert!(err.starts_with(&format!("root `{uri}` is a relative path; ")), "{err}");
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
        let all = environment(&["A=1".into(), "B=2".into(), "A=3".into()]).expect("good");
        assert_eq!(all, [("B".into(), "2".into()), ("A".into(), "3".into())]);
        assert_eq!((host_name("a/b"), host_name("web.1")), ("", "web.1"));
        assert_eq!(host_name(&"x".repeat(60)).len(), 49);
        assert_eq!(log_name(&"x".repeat(60)), "x".repeat(28));
        assert_eq!(log_name("a/b\n\u{e9} c"), "a/b__ c");
    }
}
