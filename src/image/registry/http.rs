//! Requests to registries: one server, one answer, redirects followed by our own rules.

use super::failure::{self, Failure, Kind};
use super::reach::authority;
use super::settings::Settings;
use super::{backoff, cure, proxy, reach, tls};
use crate::image::work::Wish;
use std::collections::BTreeMap;
use std::io::Read;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;
use ureq::http::{HeaderMap, Response, StatusCode, Uri, header};
use ureq::{Agent, Body};

/// Redirects of one request.
const REDIRECTS_MAX: usize = 5;
/// Servers of one pull: a registry, its mirrors, servers of tokens and of storage.
const SERVERS_MAX: usize = 32;
/// To find and to reach a server.
const CONNECT: Duration = Duration::from_secs(15);
/// Longest text of a refusal that is read, and how long it may take.
const REFUSAL_MAX: usize = 64 << 10;
const REFUSAL: Duration = Duration::from_secs(5);
/// Bytes that a connection reads at once.
const BUFFER: usize = 128 << 10;
/// How often somebody who waits for an answer looks whether he still has to.
const LOOK: Duration = Duration::from_millis(100);

/// The way to registries. Connections are kept for as long as this is.
pub struct Http {
    /// What the operator says.
    pub settings: Settings,
    /// Waits end with it.
    pub wish: Wish,
    agents: Mutex<BTreeMap<String, Agent>>,
    tls: tls::Common,
}

/// Goes with an answer that another server gave than the one that was asked.
#[derive(Clone, Copy)]
struct Elsewhere;

/// What is asked for.
pub struct Ask<'a> {
    /// Where.
    pub uri: &'a Uri,
    /// `Accept`.
    pub accept: &'a str,
    /// `Authorization`; goes to this server only.
    pub authorization: Option<&'a str>,
    /// First byte that is wanted, and the `ETag` of what came before.
    pub from: Option<(u64, Option<&'a str>)>,
    /// Further headers; go to this server only.
    pub more: &'a [(&'a str, &'a str)],
}

impl<'a> Ask<'a> {
    /// For `uri`, whatever it is.
    pub fn new(uri: &'a Uri) -> Ask<'a> {
        Ask { uri, accept: "*/*", authorization: None, from: None, more: &[] }
    }
}

impl Http {
    /// Talks to nobody yet.
    pub fn new(settings: Settings, wish: Wish) -> Http {
        Http { settings, wish, agents: Mutex::default(), tls: tls::Common::default() }
    }

    /// Breaks off every connection, also those that somebody reads from. Who asks afterwards gets a
    /// new one.
    pub fn interrupt(&self) {
        let mut agents = self.agents.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *agents).into_values().for_each(Agent::shutdown);
    }

    /// What `call` answers, or an error when nobody waits for it any more: the call then ends by
    /// itself within its own times, as finding and reaching a server cannot be interrupted.
    fn answer(
        &self,
        uri: &Uri,
        call: impl FnOnce() -> Result<Response<Body>, ureq::Error> + Send + 'static,
    ) -> Result<Response<Body>, Failure> {
        let (tell, told) = sync_channel(1);
        let asking = thread::Builder::new().name("registry".into());
        let asked = asking.spawn(move || drop(tell.send(call())));
        asked.map_err(|err| Failure::new(Kind::Here, format!("cannot start a thread: {err}")))?;
        loop {
            if self.wish.is_over() {
                return Err(Wish::failure());
            }
            match told.recv_timeout(LOOK) {
                Ok(answer) => {
                    return answer.map_err(|err| lost(uri, &err, by_proxy(uri).as_deref()));
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(Failure::new(Kind::Here, "the thread that asked panicked"));
                }
            }
        }
    }

    /// Asks, follows redirects, and returns whatever the answer is.
    pub fn get(&self, ask: &Ask<'_>) -> Result<Response<Body>, Failure> {
        let mut uri = ask.uri.clone();
        for hop in 0..=REDIRECTS_MAX {
            let is_same = origin(&uri) == origin(ask.uri);
            let mut answer = self.get_once(&uri, ask, is_same).map_err(|err| {
                // Who redirects was reached.
                Failure { is_unreached: err.is_unreached && hop == 0, ..err }
            })?;
            let Some(next) = redirect(&uri, &answer)? else {
                if !is_same {
                    answer.extensions_mut().insert(Elsewhere);
                }
                return Ok(answer);
            };
            if uri.scheme_str() == Some("https") && next.scheme_str() != Some("https") {
                // Each for itself: neither cuts off what is wrong.
                let [uri, next] = [uri, next].map(|it| failure::clean(&shown(&it)));
                let text = format!("{uri} redirects to {next}, which is not encrypted");
                return Err(Failure::wrong(text));
            }
            uri = next;
        }
        let text = format!("{} redirects more than {REDIRECTS_MAX} times", shown(ask.uri));
        Err(Failure::wrong(failure::clean(&text)))
    }

    fn get_once(&self, uri: &Uri, ask: &Ask<'_>, is_same: bool) -> Result<Response<Body>, Failure> {
        let agent = self.agent(uri)?;
        let mut request = agent.get(uri).header(header::ACCEPT, ask.accept);
        if let Some((from, etag)) = ask.from {
            request = request.header(header::RANGE, format!("bytes={from}-"));
            if let Some(etag) = etag {
                request = request.header(header::IF_RANGE, etag);
            }
        }
        if is_same {
            for (name, value) in ask.more {
                request = request.header(*name, *value);
            }
            if let Some(authorization) = ask.authorization {
                request = request.header(header::AUTHORIZATION, authorization);
            }
        }
        self.answer(uri, move || request.call())
    }

    /// Sends a form, as servers of tokens have it.
    pub fn post_form(&self, uri: &Uri, form: &[(&str, &str)]) -> Result<Response<Body>, Failure> {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let form: Vec<(String, String)> = form.iter().map(owned).collect();
        let request = self.agent(uri)?.post(uri);
        self.answer(uri, move || request.send_form(form))
    }

    /// A whole document of at most `most` bytes, within the time that one may take.
    pub fn document(
        &self,
        uri: &Uri,
        answer: Response<Body>,
        most: u64,
    ) -> Result<Vec<u8>, Failure> {
        let (shown, bound) = (shown(uri), self.settings.document);
        let began = std::time::Instant::now();
        let mut body = answer.into_body().into_reader();
        let (mut data, mut piece) = (Vec::new(), [0; 16 << 10]);
        loop {
            let read = body.read(&mut piece).map_err(|err| broken_off(uri, &err))?;
            data.extend_from_slice(&piece[..read]);
            match read {
                0 => return Ok(data),
                _ if data.len() as u64 > most => {
                    let text = format!("{shown} answered with more than {most} bytes");
                    return Err(Failure::wrong(failure::clean(&text)));
                }
                _ if began.elapsed() > bound => {
                    let text = format!("{shown} was not read within {} s", bound.as_secs());
                    return Err(Failure::passing(failure::clean(&text)));
                }
                _ => {}
            }
        }
    }

    /// What talks to the server of `uri`.
    fn agent(&self, uri: &Uri) -> Result<Agent, Failure> {
        let (scheme, authority) = (uri.scheme_str().unwrap_or_default(), authority(uri));
        let is_insecure = self.settings.is_insecure(&authority);
        let is_https = match scheme {
            "https" => true,
            "http" if is_insecure => false,
            _ => {
                let text = format!(
                    "{authority} is asked for without encryption; if that is meant, name it in \
                     [registry] insecure"
                );
                return Err(Failure::new(Kind::Here, failure::clean(&text)));
            }
        };
        let mut agents = self.agents.lock().unwrap_or_else(PoisonError::into_inner);
        let key = format!("{scheme}://{authority}");
        if let Some(agent) = agents.get(&key) {
            return Ok(agent.clone());
        }
        if agents.len() >= SERVERS_MAX {
            let text = format!(
                "{authority} would be one server more than the {SERVERS_MAX} that are asked for one \
                 image: where a registry sends us to so many, it or its storage is not as it should be"
            );
            return Err(Failure::wrong(failure::clean(&text)));
        }
        // A server without TLS needs nobody who vouches for it.
        let Settings { certs, clock, .. } = &self.settings;
        let tls = self.tls.tls(&authority, certs, is_insecure || !is_https, *clock)?;
        let agent = reach::agent_by(uri, tls, |config| {
            config
                .max_redirects(0)
                .max_redirects_will_error(false)
                .timeout_resolve(Some(CONNECT))
                .timeout_connect(Some(CONNECT))
                .timeout_recv_response(Some(self.settings.answer))
                .timeout_per_read(Some(self.settings.idle))
                .timeout_per_write(Some(self.settings.idle))
                .max_response_header_size(64 << 10)
                .input_buffer_size(BUFFER)
        })?;
        agents.insert(key, agent.clone());
        Ok(agent)
    }
}

/// What an answer that is none means.
pub fn refusal(uri: &Uri, answer: Response<Body>) -> Failure {
    let (status, headers) = (answer.status(), answer.headers().clone());
    let is_elsewhere = is_elsewhere(&answer);
    let body = begin_of(answer);
    let kind = match status {
        // Addresses of storage are good for a while only: the registry gives out another one.
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN if is_elsewhere => Kind::Passing,
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Kind::Denied,
        StatusCode::NOT_FOUND | StatusCode::GONE => Kind::Missing,
        _ if matches!(status.as_u16(), 408 | 425 | 429 | 500 | 502 | 503 | 504) => Kind::Passing,
        _ => Kind::Wrong,
    };
    let mut text = format!("{} answered {}", shown(uri), status.as_u16());
    if let Some(reason) = failure::reason(&body) {
        text = format!("{text}: {reason}");
    }
    let sent = text_of(&headers, header::DATE.as_str());
    let after = text_of(&headers, header::RETRY_AFTER.as_str());
    let after = after.and_then(|text| backoff::retry_after(text, sent));
    let cure = cure::of_status(status, uri);
    Failure { after, ..Failure::new(kind, format!("{}{cure}", failure::clean(&text))) }
}

/// Reads a short body to its end, for nothing but that its connection serves the next request.
pub fn pass_over(answer: Response<Body>) {
    let length = text_of(answer.headers(), header::CONTENT_LENGTH.as_str());
    let length = length.and_then(|text| text.parse::<usize>().ok());
    if length.is_some_and(|length| length < REFUSAL_MAX) {
        begin_of(answer);
    }
}

/// What could be read of a refusal's body in a short time, which is enough.
fn begin_of(answer: Response<Body>) -> Vec<u8> {
    let began = std::time::Instant::now();
    let mut body = answer.into_body().into_reader();
    let (mut data, mut piece) = (Vec::new(), [0; 4 << 10]);
    while data.len() < REFUSAL_MAX && began.elapsed() < REFUSAL {
        match body.read(&mut piece) {
            Ok(0) | Err(_) => break,
            Ok(read) => data.extend_from_slice(&piece[..read]),
        }
    }
    data
}

/// Whether another server answered than the one that was asked.
pub fn is_elsewhere(answer: &Response<Body>) -> bool {
    answer.extensions().get::<Elsewhere>().is_some()
}

/// An address for people: what is behind the `?` may be a right to read.
pub fn shown(uri: &Uri) -> String {
    let text = uri.to_string();
    text.split_once('?').map_or(text.clone(), |(text, _)| text.to_owned())
}

/// A header as text.
pub fn text_of<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// Scheme, host and port: who gets what was meant for one of them.
pub fn origin(uri: &Uri) -> (String, String, u16) {
    let scheme = uri.scheme_str().unwrap_or_default().to_ascii_lowercase();
    let port = uri.port_u16().unwrap_or(if scheme == "https" { 443 } else { 80 });
    (scheme, uri.host().unwrap_or_default().to_ascii_lowercase(), port)
}

/// Where a redirect leads; `None`: it is none.
fn redirect(from: &Uri, answer: &Response<Body>) -> Result<Option<Uri>, Failure> {
    if !matches!(answer.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
        return Ok(None);
    }
    let to = text_of(answer.headers(), header::LOCATION.as_str()).unwrap_or_default();
    let senseless = || {
        let to = to.split('?').next().unwrap_or_default();
        let text = format!("{} redirects to `{to}`, which is no address", shown(from));
        Failure::wrong(failure::clean(&text))
    };
    let has_scheme = to.split_once("://").is_some_and(|(scheme, _)| {
        scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b))
    });
    let whole = match to {
        "" => return Err(senseless()),
        to if has_scheme => to.to_owned(),
        to if to.starts_with("//") => format!("{}:{to}", from.scheme_str().unwrap_or_default()),
        to if to.starts_with('/') => {
            format!("{}://{}{to}", from.scheme_str().unwrap_or_default(), authority(from))
        }
        to => {
            let above = from.path().rsplit_once('/').map_or("", |(above, _)| above);
            let scheme = from.scheme_str().unwrap_or_default();
            format!("{scheme}://{}{above}/{to}", authority(from))
        }
    };
    let next: Uri = whole.parse().map_err(|_| senseless())?;
    match next.scheme_str() {
        Some("https" | "http") if next.host().is_some() => Ok(Some(next)),
        _ => Err(senseless()),
    }
}

/// The proxy that this request goes by, without the login for it.
fn by_proxy(uri: &Uri) -> Option<String> {
    let is_https = uri.scheme_str() == Some("https");
    let proxy = proxy::choose(is_https, &authority(uri), |name| std::env::var(name).ok())?;
    let proxy = proxy.rsplit_once('@').map_or(&*proxy, |(_, host)| host);
    Some(failure::clean(proxy.rsplit("//").next().unwrap_or_default().trim_end_matches('/')))
}

/// A request without an answer, perhaps by a proxy.
fn lost(uri: &Uri, err: &ureq::Error, by: Option<&str>) -> Failure {
    let authority = authority(uri);
    if let Some(err) = tls_error(err) {
        let text = untrusted(&failure::clean(&authority), err);
        return Failure { is_unreached: true, ..Failure::new(Kind::Untrusted, text) };
    }
    let by_proxy = by.map(|proxy| format!(" by the proxy {proxy}")).unwrap_or_default();
    let uri = format!("{}{by_proxy}", shown(uri));
    let text = match err {
        ureq::Error::HostNotFound => format!("{authority}{by_proxy}: no such host"),
        ureq::Error::Timeout(what) => format!("{uri}: no answer in time ({what})"),
        other => format!("{uri}: {}", crate::log::chain(other)),
    };
    let is_unreached = !matches!(err, ureq::Error::Timeout(ureq::Timeout::RecvResponse));
    let text = format!("{}{}", failure::clean(&text), cure::of_lost(err, by.is_some()));
    Failure { is_unreached, ..Failure::passing(text) }
}

/// What TLS has against the server, or the server against us.
fn tls_error(err: &ureq::Error) -> Option<&rustls::Error> {
    match err {
        ureq::Error::Io(err) => err.get_ref()?.downcast_ref(),
        ureq::Error::Other(err) => err.downcast_ref(),
        _ => None,
    }
}

/// The same for people, with the cure, which is not cut off whatever the certificate says.
fn untrusted(authority: &str, err: &rustls::Error) -> String {
    use rustls::{AlertDescription as Alert, CertificateError as Bad, Error};
    let why = failure::clean(&err.to_string());
    match err {
        Error::InvalidCertificate(
            Bad::NotValidYet
            | Bad::NotValidYetContext { .. }
            | Bad::Expired
            | Bad::ExpiredContext { .. },
        ) => format!("{authority}: is the clock of this box right? {why}"),
        Error::InvalidCertificate(Bad::NotValidForName | Bad::NotValidForNameContext { .. }) => {
            format!(
                "{authority}: {why}; its certificate has to name it as a subjectAltName, a common name \
                 does not count"
            )
        }
        Error::InvalidCertificate(_) => format!(
            "{authority}: {why}; if the registry has a certificate of its own, put that or its \
             issuer's into [registry] certs as {authority}/ca.crt"
        ),
        Error::AlertReceived(
            Alert::BadCertificate
            | Alert::CertificateRequired
            | Alert::UnknownCA
            | Alert::AccessDenied,
        ) => format!(
            "{authority} wants a certificate of us ({why}): put one into [registry] certs as \
             {authority}/client.cert and client.key"
        ),
        Error::InvalidMessage(_) => format!(
            "{authority} does not speak TLS; if that is meant, name it in [registry] insecure"
        ),
        _ => format!(
            "{authority}: TLS: {why}; it has to speak TLS 1.2 or 1.3 at that port: try again, or look at what it \
             logs"
        ),
    }
}

/// A body that ended too early.
pub fn broken_off(uri: &Uri, err: &std::io::Error) -> Failure {
    let text = failure::clean(&format!("{} broke off: {err}", shown(uri)));
    Failure::passing(format!("{text}; try again: what has come of a layer is kept"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_are_resolved_and_senseless_ones_refused() {
        let from: Uri = "https://reg.lan:5000/v2/a/blobs/x?y=1".parse().expect("uri");
        let to = |location: &str| {
            let answer = Response::builder().status(307).header("location", location);
            let answer = answer.body(Body::builder().data("")).expect("answer");
            redirect(&from, &answer).map(|next| next.expect("a redirect").to_string())
        };
        assert_eq!(to("https://s3.lan/b?sig=1").expect("uri"), "https://s3.lan/b?sig=1");
        assert_eq!(to("/b").expect("uri"), "https://reg.lan:5000/b");
        assert_eq!(to("//cdn.lan/b").expect("uri"), "https://cdn.lan/b");
        assert_eq!(to("b").expect("uri"), "https://reg.lan:5000/v2/a/blobs/b");
        assert_eq!(to("/b?to=http://x/").expect("uri"), "https://reg.lan:5000/b?to=http://x/");
        let told = to("http://a b/?sig=secret").expect_err("senseless").text;
        assert!(told.starts_with("https://reg.lan:5000/v2/a/blobs/x redirects"), "{told}");
        assert!(!told.contains("secret") && !told.contains("y=1"), "{told}");
        for bad in ["", "ftp://x/y", "file:///etc/passwd", "http://", "https://a b/"] {
            assert!(to(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_a_certificate_says_cuts_off_no_cure() {
        use rustls::pki_types::UnixTime;
        use rustls::{CertificateError as Bad, Error};
        let at = |s| UnixTime::since_unix_epoch(Duration::from_secs(s));
        let early =
            Bad::NotValidYetContext { time: at(1_793_491_200), not_before: at(1_893_491_200) };
        let host = format!("{}.lan:5000", "registry.".repeat(12));
        let told = untrusted(&host, &Error::InvalidCertificate(early));
        assert!(told.starts_with(&format!("{host}: is the clock of this box right? ")), "{told}");
        assert!(told.contains("1893491200"), "{told}");
        let long = Bad::Other(rustls::OtherError(std::sync::Arc::new(std::io::Error::other(
            "no\n".repeat(400),
        ))));
        let told = untrusted(&host, &Error::InvalidCertificate(long));
        assert!(told.ends_with(&format!("as {host}/ca.crt")) && told.len() < 700, "{told}");
    }

    /// Each names the object, the reason, and what can be done.
    #[test]
    fn what_failed_is_told_with_object_reason_and_cure() {
        use std::io::{Error as Io, ErrorKind as K};
        use ureq::Error as E;
        let uri: Uri = "https://reg.lan:5000/v2/a/b/manifests/1?x=secret".parse().expect("uri");
        let io = |kind, text: &str| E::Io(Io::new(kind, text.to_owned()));
        let refused = || io(K::ConnectionRefused, "Connection refused");
        let by = Some("p.lan:3128");
        let untrusted = rustls::CertificateError::UnknownIssuer;
        let untrusted = Io::other(rustls::Error::InvalidCertificate(untrusted));
        let rows: [(E, Option<&str>, [&str; 3]); 10] = [
            (E::HostNotFound, None, ["reg.lan:5000", "no such host", "/etc/resolv.conf"]),
            (refused(), None, ["reg.lan:5000/v2/a/b", "refused", "is the port right"]),
            (refused(), by, ["by the proxy p.lan:3128", "refused", "NO_PROXY"]),
            (E::HostNotFound, by, ["by the proxy p.lan:3128", "no such host", "HTTPS_PROXY"]),
            (E::ConnectProxyFailed("407".into()), by, ["p.lan:3128", "407", "HTTPS_PROXY"]),
            (
                E::Timeout(ureq::Timeout::Connect),
                None,
                ["reg.lan", "no answer in time", "firewall"],
            ),
            (
                E::Timeout(ureq::Timeout::RecvResponse),
                None,
                ["reg.lan", "in time", "is the registry up"],
            ),
            (io(K::NetworkUnreachable, "unreachable"), None, ["reg.lan", "unreach", "network up"]),
            (io(K::ConnectionReset, "reset"), None, ["reg.lan", "reset", "Try again"]),
            (E::Io(untrusted), None, ["reg.lan:5000", "UnknownIssuer", "reg.lan:5000/ca.crt"]),
        ];
        for (err, by, parts) in rows {
            let text = lost(&uri, &err, by).text;
            assert!(parts.iter().all(|part| text.contains(part)), "{parts:?}: {text}");
            assert!(!text.contains("secret"), "{text}");
        }
        let manifest_unknown =
            r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#;
        let rows = [
            (
                404,
                "manifests/1",
                manifest_unknown,
                ["a/b/manifests/1 answered 404", "manifest unknown", "is it written"],
            ),
            (404, "blobs/x", "", ["a/b/blobs/x", "404", "push it again"]),
            (429, "manifests/1", "slow", ["a/b/manifests/1", "429: slow", "name a mirror"]),
            (503, "blobs/x", "", ["a/b/blobs/x", "503", "try again later"]),
            (418, "blobs/x", "", ["a/b/blobs/x", "418", "is it a registry"]),
        ];
        for (status, path, body, parts) in rows {
            let uri: Uri = format!("https://reg.lan/v2/a/b/{path}").parse().expect("uri");
            let answer = Response::builder().status(status);
            let answer = answer.body(Body::builder().data(body)).expect("answer");
            let text = refusal(&uri, answer).text;
            assert!(parts.iter().all(|part| text.contains(part)), "{parts:?}: {text}");
        }
    }

    #[test]
    fn an_origin_is_scheme_host_and_port() {
        let of = |text: &str| origin(&text.parse().expect("uri"));
        assert_eq!(of("https://A.lan/x"), of("https://a.lan:443/y"));
        assert_ne!(of("https://a.lan/"), of("http://a.lan/"));
        assert_ne!(of("https://a.lan/"), of("https://a.lan:444/"));
    }
}
