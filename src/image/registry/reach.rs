//! How a server is reached that a URL names: who it is, which login the URL carries, and an agent that
//! goes through the environment's proxy, and by TLS when the URL says so. Registries, downloads and the
//! cloud controller have this in common; times and redirects are each caller's own.

use super::credentials::base64;
use super::failure::{Failure, Kind};
use super::{proxy, tls::Tls};
use crate::unit::escape;
use std::path::Path;
use ureq::config::ConfigBuilder;
use ureq::http::Uri;
use ureq::typestate::AgentScope;
use ureq::unversioned::resolver::DefaultResolver;
use ureq::unversioned::transport::{ConnectProxyConnector, Connector, TcpConnector};
use ureq::{Agent, Proxy};

/// A URL of http or https with a host; `None`: it is none.
pub fn server(url: &str) -> Option<Uri> {
    let uri: Uri = url.parse().ok()?;
    let is_known = matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some();
    is_known.then_some(uri)
}

/// `host[:port]`, in lower case and without a user.
pub fn authority(uri: &Uri) -> String {
    let host = uri.host().unwrap_or_default().to_ascii_lowercase();
    match uri.port_u16() {
        Some(port) => format!("{host}:{port}"),
        None => host,
    }
}

/// The login that a URL carries, as the value of `Authorization`, as curl and Go send it.
pub fn login_of(uri: &Uri) -> Option<String> {
    let (login, _) = uri.authority()?.as_str().rsplit_once('@')?;
    Some(basic(&escape::plain(login.as_bytes())?))
}

/// The value of `Authorization` for `user:password`.
pub fn basic(login: &[u8]) -> String {
    format!("Basic {}", base64(login))
}

/// What talks to the server of `uri`; `certs`: see [`Tls`]; `unchecked`: whoever it is. `bounds` adds
/// times and what is done with redirects. An answer of any status is an answer.
///
/// Errors: [`Kind::Here`], of the box's own files and environment; nobody is asked yet.
pub fn agent(
    uri: &Uri,
    certs: &Path,
    unchecked: bool,
    bounds: impl FnOnce(ConfigBuilder<AgentScope>) -> ConfigBuilder<AgentScope>,
) -> Result<Agent, Failure> {
    agent_by(uri, Tls::new(&authority(uri), certs, unchecked)?, bounds)
}

/// The same by this TLS.
pub(super) fn agent_by(
    uri: &Uri,
    tls: Tls,
    bounds: impl FnOnce(ConfigBuilder<AgentScope>) -> ConfigBuilder<AgentScope>,
) -> Result<Agent, Failure> {
    let (authority, is_https) = (authority(uri), uri.scheme_str() == Some("https"));
    let proxy = proxy::choose(is_https, &authority, |name| std::env::var(name).ok());
    let proxy = proxy.map(|text| {
        Proxy::new(&text).map_err(|_| {
            let text = "the proxy that the environment names for it cannot be read; HTTPS_PROXY, HTTP_PROXY and \
                        ALL_PROXY of the service are `http://HOST:PORT`, NO_PROXY goes around them";
            Failure::new(Kind::Here, format!("{authority}: {text}"))
        })
    });
    let common = Agent::config_builder()
        .http_status_as_error(false)
        .proxy(proxy.transpose()?)
        .user_agent(concat!("terrarium/", env!("CARGO_PKG_VERSION")))
        .accept_encoding("identity");
    let way = ().chain(ConnectProxyConnector::default()).chain(TcpConnector::default()).chain(tls);
    Ok(Agent::with_parts(bounds(common).build(), way, DefaultResolver::default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_its_server_and_perhaps_a_login() {
        let server = |url: &str| server(url).expect("a server");
        assert_eq!(authority(&server("https://u:p@A.lan:1/x")), "a.lan:1");
        assert_eq!(authority(&server("http://a.lan/x?y")), "a.lan");
        for none in ["", "a.lan", "/x", "ftp://a.lan/", "http:///x"] {
            assert_eq!(super::server(none), None, "{none}");
        }
        let login = |url: &str| login_of(&server(url));
        assert_eq!(login("http://ann:s%40e@a.lan/"), Some("Basic YW5uOnNAZQ==".into()));
        assert_eq!(login("http://ann:s%4@a.lan/"), None);
        assert_eq!(login("http://a.lan/x@y"), None);
    }
}
