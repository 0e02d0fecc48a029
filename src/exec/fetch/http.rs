//! Requests of downloads and uploads: one attempt each, and when the next one is.

use super::checksum::Hasher;
use super::given_up::{GivenUp, UNWANTED};
use super::plan::Version;
use crate::image::registry::reach::{self, authority, login_of};
use crate::log::chain;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;
use std::time::{Duration, Instant};
use ureq::http::{Response, Uri, header};
use ureq::{Agent, Body, SendBody};

/// Of one attempt: all of it, to reach the server, and between two pieces. Diego's.
const WHOLE: Duration = Duration::from_secs(600);
const CONNECT: Duration = Duration::from_secs(10);
const IDLE: Duration = Duration::from_secs(10);
/// All of a notice.
const NOTICE: Duration = Duration::from_secs(10);
/// Attempts at a download, and the pauses between them.
pub const TRIES: u32 = 4;
const FIRST: Duration = Duration::from_millis(500);
const LONGEST: Duration = Duration::from_secs(5);
/// Redirects that are followed.
const REDIRECTS: u32 = 10;
/// Bytes that are read at once.
const PIECE: usize = 64 << 10;

/// Who may end it, and what may be taken.
pub struct Bounds<'a> {
    /// Set: nobody wants it any more.
    pub given_up: &'a GivenUp,
    /// Bytes that may come.
    pub most: u64,
}

/// Why an attempt failed. None of the texts shows what is behind the host: it may be a secret.
#[derive(Debug)]
pub enum Lost {
    /// Another attempt may do better.
    Passing(String),
    /// It would be the same again.
    Final(String),
}

/// How a server answered.
pub enum Answer {
    /// What is kept is still what it has.
    Same,
    /// It is in the file now; with its length and digest.
    New {
        /// What the server calls it.
        version: Version,
        /// Bytes that came.
        bytes: u64,
    },
}

/// Fetches `url` into `to` unless it is `known`; `hash` sees every byte.
pub fn download(
    (url, certs): (&str, &Path),
    known: &Version,
    to: &mut File,
    hash: Option<&mut Hasher>,
    bounds: &Bounds<'_>,
) -> Result<Answer, Lost> {
    let (agent, uri) = agent(url, certs)?;
    let mut request = agent.get(&uri);
    if let Some(login) = login_of(&uri) {
        request = request.header(header::AUTHORIZATION, login);
    }
    if let Some(etag) = &known.etag {
        request = request.header(header::IF_NONE_MATCH, etag);
    }
    if let Some(modified) = &known.modified {
        request = request.header(header::IF_MODIFIED_SINCE, modified);
    }
    let answer = request.call().map_err(|err| unanswered(&uri, &err))?;
    match answer.status().as_u16() {
        304 if !known.is_none() => Ok(Answer::Same),
        200 => {
            let field = |name| {
                let value = answer.headers().get(name)?;
                value.to_str().ok().map(str::to_owned)
            };
            let version =
                Version { etag: field(header::ETAG), modified: field(header::LAST_MODIFIED) };
            let bytes = take(&uri, answer, to, hash, bounds)?;
            Ok(Answer::New { version, bytes })
        }
        status => Err(Lost::Passing(format!("Download failed: Status code {status}"))),
    }
}

/// Whether there can be a server behind it.
pub fn is_url(url: &str) -> bool {
    reach::server(url).is_some()
}

/// Posts `length` bytes of `body`, with their digests.
pub fn upload(
    (url, certs): (&str, &Path),
    mut body: impl Read,
    length: u64,
    digests: &[(&str, String)],
) -> Result<(), Lost> {
    let (agent, uri) = agent(url, certs)?;
    let mut request = agent
        .post(&uri)
        .header(header::CONTENT_TYPE, "application/octet-stream")
        .header(header::CONTENT_LENGTH, length.to_string());
    if let Some(login) = login_of(&uri) {
        request = request.header(header::AUTHORIZATION, login);
    }
    for (name, value) in digests {
        request = request.header(*name, value);
    }
    let answer = request.send(SendBody::from_reader(&mut body));
    let answer = answer.map_err(|err| unanswered(&uri, &err))?;
    match answer.status().as_u16() {
        ..400 => Ok(()),
        status => Err(Lost::Passing(format!("Upload failed: Status code {status}"))),
    }
}

/// Posts a notice as JSON; the answer's status.
pub fn post((url, certs): (&str, &Path), body: &[u8]) -> Result<u16, Lost> {
    let (agent, uri) = agent(url, certs)?;
    let request = agent.post(&uri).header(header::CONTENT_TYPE, "application/json");
    let request = match login_of(&uri) {
        Some(login) => request.header(header::AUTHORIZATION, login),
        None => request,
    };
    let request = request.config().timeout_global(Some(NOTICE)).build();
    match request.send(body) {
        Ok(answer) => Ok(answer.status().as_u16()),
        Err(err) if is_passing(&err) => Err(unanswered(&uri, &err)),
        Err(err) => match unanswered(&uri, &err) {
            Lost::Passing(why) | Lost::Final(why) => Err(Lost::Final(why)),
        },
    }
}

/// A timeout, or a connection that was closed: the server may answer the next time.
fn is_passing(err: &ureq::Error) -> bool {
    use io::ErrorKind as K;
    match err {
        ureq::Error::Timeout(_) => true,
        ureq::Error::Io(err) => matches!(
            err.kind(),
            K::TimedOut
                | K::ConnectionReset
                | K::ConnectionAborted
                | K::BrokenPipe
                | K::UnexpectedEof
        ),
        _ => false,
    }
}

/// How long to wait after `failed` attempts; `None`: that was the last.
pub fn pause(failed: u32, tries: u32, jitter: u64) -> Option<Duration> {
    if failed >= tries {
        return None;
    }
    let own = FIRST.saturating_mul(1 << failed.saturating_sub(1).min(8)).min(LONGEST);
    Some(own + Duration::from_millis(jitter % 200))
}

/// Writes the body to the file.
fn take(
    uri: &Uri,
    answer: Response<Body>,
    to: &mut File,
    mut hash: Option<&mut Hasher>,
    bounds: &Bounds<'_>,
) -> Result<u64, Lost> {
    let began = Instant::now();
    let mut body = answer.into_body().into_reader();
    let (mut taken, mut piece) = (0_u64, vec![0; PIECE]);
    loop {
        let read = body.read(&mut piece).map_err(|err| Lost::Passing(broken(uri, &err)))?;
        if read == 0 {
            return Ok(taken);
        }
        taken += read as u64;
        if taken > bounds.most {
            return Err(Lost::Final(
                "it is larger than the box keeps of downloads ([downloads] size)".into(),
            ));
        }
        if bounds.given_up.is() {
            return Err(Lost::Final(UNWANTED.into()));
        }
        if began.elapsed() > WHOLE {
            return Err(Lost::Passing(format!("it was not here within {} s", WHOLE.as_secs())));
        }
        if let Some(hash) = &mut hash {
            hash.update(&piece[..read]);
        }
        to.write_all(&piece[..read])
            .map_err(|err| Lost::Final(format!("it cannot be written here: {err}")))?;
    }
}

/// What talks to the server of `url`.
fn agent(url: &str, certs: &Path) -> Result<(Agent, Uri), Lost> {
    let senseless = || Lost::Final("its URL is none of http or https".into());
    let uri = reach::server(url).ok_or_else(senseless)?;
    let agent = reach::agent(&uri, certs, false, |config| {
        config
            .max_redirects(REDIRECTS)
            .max_redirects_will_error(true)
            .max_idle_connections(0)
            .timeout_resolve(Some(CONNECT))
            .timeout_connect(Some(CONNECT))
            .timeout_recv_response(Some(WHOLE))
            .timeout_per_read(Some(IDLE))
            .timeout_per_write(Some(IDLE))
    });
    Ok((agent.map_err(|err| Lost::Final(err.text))?, uri))
}

fn unanswered(uri: &Uri, err: &ureq::Error) -> Lost {
    let host = authority(uri);
    match err {
        ureq::Error::HostNotFound => Lost::Passing(format!("{host}: no such host")),
        ureq::Error::Timeout(what) => Lost::Passing(format!("{host}: no answer in time ({what})")),
        ureq::Error::TooManyRedirects => {
            Lost::Final(format!("{host} redirects more than {REDIRECTS} times"))
        }
        other => Lost::Passing(format!("{host}: {}", chain(other))),
    }
}

fn broken(uri: &Uri, err: &io::Error) -> String {
    format!("{} broke off: {err}", authority(uri))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_the_longest_and_end() {
        let pauses: Vec<_> = (1..=7).map(|failed| pause(failed, 7, 0)).collect();
        let ms = |ms| Some(Duration::from_millis(ms));
        assert_eq!(pauses, [ms(500), ms(1000), ms(2000), ms(4000), ms(5000), ms(5000), None]);
        assert_eq!(pause(1, TRIES, 399), ms(699));
    }

    #[test]
    fn a_login_of_the_url_is_sent_and_never_shown() {
        let uri: Uri = "http://ann:s%40e@files.lan:80/x?sig=y".parse().expect("uri");
        assert_eq!(login_of(&uri).as_deref(), Some("Basic YW5uOnNAZQ=="));
        let Lost::Passing(text) = unanswered(&uri, &ureq::Error::HostNotFound) else { panic!() };
        assert_eq!(text, "files.lan:80: no such host");
    }
}
