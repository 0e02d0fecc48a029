//! What the operator says about registries. Plain data.

use super::trust::Clock;
use crate::sys::clock;
use crate::unit::registry_name;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Where Docker Hub really is.
const HUB: &str = "docker.io";
const HUB_AT: &str = "registry-1.docker.io";

/// How registries are talked to.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The registry of images that name none.
    pub default: String,
    /// Registries that may be without TLS, or with a certificate that nobody vouches for.
    pub insecure: Vec<Insecure>,
    /// Registries that may be asked by the first version of the protocol, and for manifests of the
    /// first schema.
    pub v1: Vec<String>,
    /// For a registry: those that are asked before it, in order.
    pub mirrors: BTreeMap<String, Vec<String>>,
    /// Whether mirrors may say what a tag means; by digest they cannot lie.
    pub mirrors_tell_tags: bool,
    /// Servers of tokens that get the logins of any registry which names them.
    pub realms: Vec<String>,
    /// Directory of `<host[:port]>/{*.crt,*.cert,*.key}`, as docker has it.
    pub certs: PathBuf,
    /// Logins, as `docker login` writes them.
    pub credentials: PathBuf,
    /// A read without a byte for so long is a broken connection.
    pub idle: Duration,
    /// The head of an answer is here by then.
    pub answer: Duration,
    /// And a document as long after it.
    pub document: Duration,
    /// Transfers slower than this many bytes in twice the idle time are broken off, too.
    pub least_bytes: u64,
    /// What time it is, for certificates.
    pub clock: Clock,
}

/// Registries that are named by host, host and port, or network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Insecure {
    /// `host` or `host:port`.
    Host(String),
    /// Address and length of the prefix.
    Network(IpAddr, u8),
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            default: HUB.into(),
            insecure: Vec::new(),
            v1: Vec::new(),
            mirrors: BTreeMap::new(),
            mirrors_tell_tags: false,
            realms: Vec::new(),
            certs: "/etc/terrarium/certs.d".into(),
            credentials: "/etc/terrarium/auth.json".into(),
            idle: Duration::from_secs(30),
            answer: Duration::from_secs(60),
            document: Duration::from_secs(120),
            least_bytes: 64 << 10,
            clock: clock::wall,
        }
    }
}

impl Settings {
    /// Whether a registry may be without TLS.
    pub fn is_insecure(&self, authority: &str) -> bool {
        let host = host_of(authority);
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        self.insecure.iter().any(|one| match one {
            Insecure::Host(name) => {
                [authority, host].iter().any(|one| registry_name(one) == registry_name(name))
            }
            Insecure::Network(net, length) => {
                bare.parse().is_ok_and(|address| is_within(address, *net, *length))
            }
        })
    }

    /// Whether a registry may speak the first version.
    pub fn is_old(&self, authority: &str) -> bool {
        self.v1.iter().any(|name| name == authority)
    }

    /// Where the registry of this name listens.
    pub fn address<'a>(&self, host: &'a str) -> &'a str {
        if host == HUB { HUB_AT } else { host }
    }
}

impl std::str::FromStr for Insecure {
    type Err = String;

    fn from_str(text: &str) -> Result<Insecure, String> {
        if let Some((address, length)) = text.split_once('/') {
            let address: IpAddr =
                address.parse().map_err(|_| format!("`{address}` is no IP address"))?;
            let most = if address.is_ipv4() { 32 } else { 128 };
            let length = length.parse().ok().filter(|length| *length <= most);
            let length = length.ok_or(format!("a prefix has 0 to {most} bits"))?;
            return Ok(Insecure::Network(address, length));
        }
        match format!("{text}/a").parse::<crate::unit::ImageRef>() {
            Ok(image) if image.host().is_some() => Ok(Insecure::Host(text.to_ascii_lowercase())),
            // A name without a dot is no host in the name of an image, but it is one in a network.
            _ if text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
                && !text.is_empty() =>
            {
                Ok(Insecure::Host(text.to_ascii_lowercase()))
            }
            _ => Err(format!("`{text}` is neither host, host:port nor network")),
        }
    }
}

/// `host` of `host:port`, `[v6]` of `[v6]:port`.
pub fn host_of(authority: &str) -> &str {
    match authority.rfind(':') {
        Some(at) if !authority[at..].contains(']') => &authority[..at],
        _ => authority,
    }
}

fn is_within(address: IpAddr, net: IpAddr, length: u8) -> bool {
    let bits = |address: IpAddr| match address {
        IpAddr::V4(v4) => (u128::from(u32::from(v4)) << 96, true),
        IpAddr::V6(v6) => (u128::from(v6), false),
    };
    let ((address, is_v4), (net, is_v4_too)) = (bits(address), bits(net));
    is_v4 == is_v4_too && (address ^ net).checked_shr(128 - u32::from(length)).unwrap_or(0) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_is_named_may_be_insecure() {
        let insecure = ["reg.lan:5000", "10.0.0.0/8", "old", "fd00::/8"];
        let insecure = insecure.map(|text| text.parse().expect("a name")).to_vec();
        let settings = Settings { insecure, ..Settings::default() };
        let hub = Insecure::Host("docker.io".into());
        let settings_of_hub = Settings { insecure: vec![hub], ..Settings::default() };
        assert!(settings_of_hub.is_insecure("registry-1.docker.io"));
        let yes = ["reg.lan:5000", "10.1.2.3", "10.1.2.3:80", "old:99", "[fd00::1]:5000"];
        let no = ["reg.lan", "reg.lan:5001", "11.0.0.1", "127.0.0.1", "[fe00::1]", "a.old"];
        assert!(yes.iter().all(|name| settings.is_insecure(name)));
        assert!(no.iter().all(|name| !settings.is_insecure(name)));
        for bad in ["", "a/b", "10.0.0.0/33", "http://x", "a b"] {
            assert!(bad.parse::<Insecure>().is_err(), "{bad}");
        }
    }
}
