//! Which proxy a request takes, by the environment: `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and
//! `NO_PROXY`, in capitals or not. Pure.

use super::settings::host_of;
use std::net::IpAddr;

/// The proxy for a request to `authority`; `var` reads the environment.
pub fn choose(
    is_https: bool,
    authority: &str,
    var: impl Fn(&str) -> Option<String>,
) -> Option<String> {
    let either = |name: &str| {
        let set = |name: &str| var(name).filter(|value| !value.trim().is_empty());
        set(name).or_else(|| set(&name.to_ascii_lowercase()))
    };
    // The box itself: a proxy would take its own loopback.
    if is_loopback(authority) || either("NO_PROXY").is_some_and(|list| is_exempt(authority, &list))
    {
        return None;
    }
    let own = if is_https { "HTTPS_PROXY" } else { "HTTP_PROXY" };
    either(own).or_else(|| either("ALL_PROXY"))
}

fn is_loopback(authority: &str) -> bool {
    let host = host_of(authority).trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost")
        || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Whether a list of names, `.suffixes`, addresses and networks has the host.
fn is_exempt(authority: &str, list: &str) -> bool {
    let host =
        host_of(authority).trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
    let address: Option<IpAddr> = host.parse().ok();
    list.split(',').map(|item| item.trim().to_ascii_lowercase()).any(|item| {
        let name = item.trim_start_matches('*');
        match (item.as_str(), address) {
            ("", _) => false,
            ("*", _) => true,
            (item, _) if item == authority || item == host => true,
            (item, Some(_)) => match item.parse() {
                Ok(network @ super::settings::Insecure::Network(..)) => {
                    let settings =
                        super::settings::Settings { insecure: vec![network], ..Default::default() };
                    settings.is_insecure(authority)
                }
                _ => false,
            },
            _ => host
                .strip_suffix(name.trim_start_matches('.'))
                .is_some_and(|rest| rest.ends_with('.') || rest.is_empty()),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_proxy_is_the_environments() {
        let env = |name: &str| match name {
            "https_proxy" => Some("http://p:1".to_owned()),
            "HTTP_PROXY" => Some("http://p:2".to_owned()),
            "NO_PROXY" => Some("localhost, .lan,*.corp,10.0.0.0/8,db:5000".to_owned()),
            _ => None,
        };
        let at = |https, host| choose(https, host, env);
        assert_eq!(at(true, "reg.example").as_deref(), Some("http://p:1"));
        assert_eq!(at(false, "reg.example:80").as_deref(), Some("http://p:2"));
        for exempt in ["localhost:5000", "reg.lan", "lan", "a.b.corp:1", "10.9.9.9:80", "db:5000"] {
            assert_eq!(at(true, exempt), None, "{exempt}");
        }
        assert!(
            at(true, "plan").is_some()
                && at(true, "db").is_some()
                && at(true, "11.0.0.1").is_some()
        );
        for own in ["localhost:5000", "127.0.0.9:1", "[::1]:5000"] {
            assert_eq!(choose(false, own, |_| Some("http://p:1".into())), None, "{own}");
        }
        assert_eq!(choose(true, "x", |_| None), None);
        assert_eq!(
            choose(true, "x", |name| (name == "ALL_PROXY").then(|| "s".into())).as_deref(),
            Some("s")
        );
    }
}
