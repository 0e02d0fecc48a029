//! The texts of `/etc/resolv.conf` and `/etc/hosts` in a container. Pure.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};

/// Name servers that a container may ask at most; the C library reads no more than 3.
const SERVERS_MAX: usize = 3;

/// How containers find names, worked out once from what the host has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolvers {
    /// Name servers to be let through.
    pub addresses: Vec<Ipv4Addr>,
    /// The host's own name server, reached at the gateway, answers first.
    pub on_gateway: bool,
    /// `search` and `options` lines of the host.
    kept: String,
    /// Whole lines of every hosts file.
    hosts: String,
}

impl Resolvers {
    /// Chooses: the operator's servers if there are any; else those of the host's `resolv.conf`
    /// that a container can reach (no loopback, no IPv6); when the host only asks itself, those of
    /// systemd-resolved (`/run/systemd/resolve/resolv.conf`); else the gateway.
    pub fn choose(operator: &[Ipv4Addr], host: &str, resolved: Option<&str>) -> Resolvers {
        if !operator.is_empty() {
            let addresses = operator.iter().copied().take(SERVERS_MAX).collect();
            let (kept, hosts) = Default::default();
            return Resolvers { addresses, on_gateway: false, kept, hosts };
        }
        let text = match (servers(host).as_slice(), resolved) {
            ([], Some(resolved)) if !servers(resolved).is_empty() => resolved,
            _ => host,
        };
        let addresses = servers(text);
        let kept = text.lines().filter(|line| {
            matches!(line.split_whitespace().next(), Some("search" | "domain" | "options"))
        });
        let kept = kept.flat_map(|line| [line.trim(), "\n"]).collect();
        Resolvers { on_gateway: addresses.is_empty(), addresses, kept, hosts: String::new() }
    }

    /// With more name servers, asked after those that were chosen.
    pub fn with_servers(mut self, more: &[Ipv4Addr]) -> Resolvers {
        for server in more {
            if !self.addresses.contains(server) {
                self.addresses.push(*server);
            }
        }
        self
    }

    /// With more names in every hosts file: each an address and what stands for it there.
    pub fn with_hosts<'a>(mut self, more: impl Iterator<Item = (IpAddr, &'a str)>) -> Resolvers {
        for (address, names) in more {
            let _ = writeln!(self.hosts, "{address} {names}");
        }
        self
    }

    /// The container's `/etc/resolv.conf`.
    pub fn resolv_conf(&self, gateway: Ipv4Addr) -> String {
        let mut text = self.kept.clone();
        let own = self.on_gateway.then_some(gateway);
        for address in own.into_iter().chain(self.addresses.iter().copied()) {
            let _ = writeln!(text, "nameserver {address}");
        }
        text
    }

    /// The container's `/etc/hosts`.
    pub fn hosts(&self, hostname: &str, address: Ipv4Addr) -> String {
        format!("127.0.0.1 localhost\n{address} {hostname}\n{}", self.hosts)
    }
}

/// The name servers of a `resolv.conf` that a container can reach.
fn servers(text: &str) -> Vec<Ipv4Addr> {
    let address = |line: &str| {
        let mut words = line.split_whitespace();
        let address = words.next().filter(|word| *word == "nameserver").and(words.next())?;
        match address.parse().ok()? {
            IpAddr::V4(v4) if !v4.is_loopback() && !v4.is_unspecified() => Some(v4),
            _ => None,
        }
    };
    text.lines().filter_map(address).take(SERVERS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv6Addr;

    fn check(operator: &[Ipv4Addr], host: &str, resolved: Option<&str>, want: &str) -> Resolvers {
        let resolvers = Resolvers::choose(operator, host, resolved);
        assert_eq!(resolvers.resolv_conf(Ipv4Addr::new(10, 254, 0, 1)), want);
        resolvers
    }

    #[test]
    fn the_hosts_servers_are_used_without_loopback_and_ipv6() {
        let host = "# made by dhcp\nsearch lan\nnameserver 127.0.0.1\nnameserver 192.168.1.1\n\
                    nameserver fe80::1%eth0\n options edns0 \nnameserver\nnameserver x\n";
        let want = "search lan\noptions edns0\nnameserver 192.168.1.1\n";
        let resolvers = check(&[], host, None, want);
        assert_eq!(resolvers.addresses, [Ipv4Addr::new(192, 168, 1, 1)]);
        assert!(!resolvers.on_gateway);
    }

    #[test]
    fn behind_the_stub_of_systemd_resolved_its_own_list_is_used() {
        let stub = "nameserver 127.0.0.53\noptions edns0 trust-ad\n";
        let list = "nameserver 9.9.9.9\nsearch home\n";
        check(&[], stub, Some(list), "search home\nnameserver 9.9.9.9\n");
    }

    #[test]
    fn a_host_that_only_asks_itself_answers_on_the_gateway() {
        for (host, resolved) in
            [("nameserver 127.0.0.1\n", None), ("", Some("")), ("nameserver ::1", None)]
        {
            let resolvers = check(&[], host, resolved, "nameserver 10.254.0.1\n");
            assert!(resolvers.on_gateway && resolvers.addresses.is_empty());
        }
    }

    #[test]
    fn the_operators_servers_beat_the_hosts() {
        let operator = [Ipv4Addr::new(1, 1, 1, 1)];
        check(&operator, "search lan\nnameserver 192.168.1.1\n", None, "nameserver 1.1.1.1\n");
    }

    #[test]
    fn no_more_servers_than_a_resolver_reads() {
        let host: String = (1..9).map(|n| format!("nameserver 10.0.0.{n}\n")).collect();
        assert_eq!(Resolvers::choose(&[], &host, None).addresses.len(), SERVERS_MAX);
    }

    #[test]
    fn additional_servers_come_last_and_once() {
        let ip = |last| Ipv4Addr::new(192, 168, 1, last);
        let gateway = Ipv4Addr::new(10, 254, 0, 1);
        let host = "search lan\nnameserver 192.168.1.1\n";
        let resolvers = Resolvers::choose(&[], host, None).with_servers(&[ip(2), ip(1), ip(3)]);
        let lines = [1, 2, 3].map(|n| format!("nameserver 192.168.1.{n}\n")).concat();
        assert_eq!(resolvers.resolv_conf(gateway), format!("search lan\n{lines}"));
        assert_eq!(resolvers.addresses, [ip(1), ip(2), ip(3)], "all are let through");

        let resolvers = Resolvers::choose(&[], "nameserver ::1", None).with_servers(&[ip(2)]);
        let want = "nameserver 10.254.0.1\nnameserver 192.168.1.2\n";
        assert_eq!(resolvers.resolv_conf(gateway), want);
        assert!(resolvers.on_gateway);
    }

    #[test]
    fn hosts_names_the_container_and_what_the_operator_adds() {
        let resolvers = Resolvers::choose(&[], "", None);
        let own = "127.0.0.1 localhost\n10.254.0.2 web-0\n";
        let address = Ipv4Addr::new(10, 254, 0, 2);
        assert_eq!(resolvers.hosts("web-0", address), own);
        let more: [(IpAddr, &str); 2] =
            [(Ipv4Addr::new(10, 0, 0, 7).into(), "db.lan db"), (Ipv6Addr::LOCALHOST.into(), "me")];
        let text = resolvers.with_hosts(more.into_iter()).hosts("web-0", address);
        assert_eq!(text, format!("{own}10.0.0.7 db.lan db\n::1 me\n"));
    }
}
