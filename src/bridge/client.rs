//! Requests to the cloud controller: one attempt each, bounded in time and size. Blocking.

use crate::image::registry::reach::{self, authority, basic, login_of};
use crate::log::chain;
use std::io::Read;
use std::path::PathBuf;
use std::time::Duration;
use ureq::http::{Uri, header};
use ureq::{Agent, SendBody};

/// All of a notice.
pub const NOTICE: Duration = Duration::from_secs(5);
/// All of a page of the sync.
pub const PAGE: Duration = Duration::from_secs(60);
/// Longest answer that is read, in bytes.
const ANSWER_MAX: u64 = 32 << 20;
/// Longest password, in bytes.
const PASSWORD_MAX: u64 = 4096;

/// Where the controller is, and who we are to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Controller {
    /// `https://cc.example.com:9023`, without a slash at its end.
    pub url: String,
    /// User, and the file that holds the password.
    pub login: Option<(String, PathBuf)>,
    /// Any certificate of it will do.
    pub unchecked: bool,
    /// Directories of further certificates, one for each host, and of our own for it.
    pub certs: PathBuf,
    /// It is told of crashes as today, not as in 2015.
    pub is_v4: bool,
}

/// What was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answered {
    /// Status.
    pub status: u16,
    /// Body.
    pub body: Vec<u8>,
}

/// A request did not get there, or nothing came back. Shows neither path nor query of its URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unanswered {
    /// Why.
    pub why: String,
    /// Nothing of it was sent: asking again is safe.
    pub unsent: bool,
}

impl Unanswered {
    fn new(why: impl Into<String>) -> Unanswered {
        Unanswered { why: why.into(), unsent: false }
    }
}

type Asked = Result<Answered, Unanswered>;

impl Controller {
    /// GET of a path of the controller's own.
    pub fn get(&self, path: &str) -> Asked {
        let url = format!("{}{path}", self.url);
        let (agent, uri) = self.agent(&url, PAGE)?;
        let request = agent.get(&uri);
        let request = match self.authorization(&uri)? {
            Some(login) => request.header(header::AUTHORIZATION, login),
            None => request,
        };
        read(&uri, request.call())
    }

    /// POST of a JSON text to a path of the controller's own, or to any URL.
    pub fn post(&self, to: &str, body: &[u8], whole: Duration) -> Asked {
        let url = if to.starts_with('/') { format!("{}{to}", self.url) } else { to.to_owned() };
        let (agent, uri) = self.agent(&url, whole)?;
        let request = agent.post(&uri).header(header::CONTENT_TYPE, "application/json");
        let request = match self.authorization(&uri)? {
            Some(login) => request.header(header::AUTHORIZATION, login),
            None => request,
        };
        read(&uri, request.send(body))
    }

    fn agent(&self, url: &str, whole: Duration) -> Result<(Agent, Uri), Unanswered> {
        agent(url, &self.certs, self.is_trusted(url), whole)
    }

    /// Its server need not prove who it is.
    pub fn is_trusted(&self, url: &str) -> bool {
        self.unchecked && url.parse().is_ok_and(|uri| self.is_own(&uri))
    }

    /// The controller's own server: nobody else gets its password, or goes without a certificate.
    fn is_own(&self, uri: &Uri) -> bool {
        let own = self.url.parse::<Uri>();
        own.is_ok_and(|own| {
            own.scheme_str() == uri.scheme_str() && authority(&own) == authority(uri)
        })
    }

    fn authorization(&self, uri: &Uri) -> Result<Option<String>, Unanswered> {
        if let Some(own) = login_of(uri) {
            return Ok(Some(own));
        }
        match &self.login {
            Some((user, file)) if self.is_own(uri) => {
                let failed =
                    |err| Unanswered::new(format!("cannot read {}: {err}", file.display()));
                let mut password = String::new();
                let opened = crate::sys::beneath::open_followed(file).map_err(failed)?;
                opened.take(PASSWORD_MAX).read_to_string(&mut password).map_err(failed)?;
                Ok(Some(basic(
                    format!("{user}:{}", password.trim_end_matches(['\n', '\r'])).as_bytes(),
                )))
            }
            _ => Ok(None),
        }
    }
}

/// POST of a JSON text to somebody who is not the controller.
pub fn post(url: &str, certs: &std::path::Path, body: &[u8], whole: Duration) -> Asked {
    let (agent, uri) = agent(url, certs, false, whole)?;
    let request = agent.post(&uri).header(header::CONTENT_TYPE, "application/json");
    let request = match login_of(&uri) {
        Some(login) => request.header(header::AUTHORIZATION, login),
        None => request,
    };
    read(&uri, request.send(body))
}

/// What talks to the server of `url`; `unchecked`: whoever it is.
pub fn agent(
    url: &str,
    certs: &std::path::Path,
    unchecked: bool,
    whole: Duration,
) -> Result<(Agent, Uri), Unanswered> {
    let senseless = || Unanswered::new("its URL is none of http or https");
    let uri = reach::server(url).ok_or_else(senseless)?;
    let agent = reach::agent(&uri, certs, unchecked, |config| {
        config
            .max_redirects(0)
            .max_redirects_will_error(false)
            .max_idle_connections(0)
            .timeout_global(Some(whole))
    });
    Ok((agent.map_err(|err| Unanswered::new(err.text))?, uri))
}

/// The answer, whole.
pub fn read(uri: &Uri, answer: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> Asked {
    let host = authority(uri);
    let failed = |err: &ureq::Error| Unanswered {
        why: format!("{host}: {}", chain(err)),
        unsent: is_unsent(err),
    };
    let mut answer = answer.map_err(|err| failed(&err))?;
    let status = answer.status().as_u16();
    let body = answer.body_mut().with_config().limit(ANSWER_MAX).read_to_vec();
    Ok(Answered { status, body: body.map_err(|err| failed(&err))? })
}

/// There was no connection.
fn is_unsent(err: &ureq::Error) -> bool {
    match err {
        ureq::Error::HostNotFound | ureq::Error::ConnectionFailed => true,
        ureq::Error::Io(err) => err.kind() == std::io::ErrorKind::ConnectionRefused,
        _ => false,
    }
}

/// What is sent from a reader.
pub fn body_of(reader: &mut dyn Read) -> SendBody<'_> {
    SendBody::from_reader(reader)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_controller_gets_its_password() {
        let dir = std::env::temp_dir().join(format!("terrarium-cc-{}", std::process::id()));
        std::fs::write(&dir, "s:ecret\n").expect("a password");
        let controller = Controller {
            url: "http://cc.lan:9022".into(),
            login: Some(("ann".into(), dir.clone())),
            unchecked: false,
            certs: "/nonexistent".into(),
            is_v4: false,
        };
        let login = |url: &str| {
            controller.authorization(&url.parse().expect("a URL")).expect("it can be read")
        };
        let ann = Some("Basic YW5uOnM6ZWNyZXQ=".to_owned());
        assert_eq!(login("http://cc.lan:9022/internal/x?y=z"), ann);
        assert_eq!(login("http://cc.lan:90220/internal/x"), None);
        assert_eq!(login("http://other.lan/internal"), None);
        assert_eq!(login("http://b%40:c@other.lan/"), Some(basic(b"b@:c")));
        std::fs::remove_file(dir).expect("clean up");
    }
}
