//! One repository of a registry that speaks the second version of the protocol.

use super::challenge::{self, Challenge};
use super::credentials::Login;
use super::failure::{self, Failure, Kind};
use super::http::{self, Ask, Http};
use super::token::{Access, Door, wrong_login};
use super::validator;
use crate::unit::Digest;
use std::sync::{Mutex, PoisonError};
use ureq::http::{Response, StatusCode, Uri, header};
use ureq::{Body, BodyReader};

/// Longest manifest, index or configuration.
pub const DOCUMENT_MAX: u64 = 4 << 20;

/// What we take for a manifest, best first.
const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, \
    application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.v2+json, \
    application/vnd.docker.distribution.manifest.v1+prettyjws;q=0.2, \
    application/vnd.docker.distribution.manifest.v1+json;q=0.1";

/// Says that a server speaks our version.
const VERSION: &str = "docker-distribution-api-version";

/// A repository that answers.
pub struct Repository<'a> {
    http: &'a Http,
    /// `https://host:port`
    base: String,
    authority: String,
    name: String,
    login: Option<Login>,
    access: Mutex<Access>,
}

/// A manifest or an index as it came.
pub struct Document {
    /// Its exact bytes; its digest is theirs.
    pub bytes: Vec<u8>,
    /// `Content-Type` without parameters, in lower case.
    pub media_type: String,
    /// What the registry says its digest is.
    pub says: Option<Digest>,
}

/// Bytes of a blob, from `from` on.
pub struct Piece {
    /// The first of them.
    pub from: u64,
    /// How many there are from there on, if the server says it.
    pub length: Option<u64>,
    /// Its `ETag`, and its `Last-Modified`, if they are strong ([`super::validator`]).
    pub etag: Option<String>,
    pub modified: Option<String>,
    /// Themselves.
    pub body: BodyReader<'static>,
    /// Where they come from, for errors.
    pub uri: Uri,
    /// There is nothing at that byte (416).
    pub is_past_end: bool,
}

/// What is at an address.
pub enum Found<'a> {
    /// A repository.
    Second(Repository<'a>),
    /// Somebody who answers, at this scheme, and does not speak our version; perhaps the first.
    Other(&'static str),
}

/// What a registry speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speaks {
    /// The second version, at this scheme.
    Second,
    /// Not that; perhaps the first.
    Other,
}

impl<'a> Repository<'a> {
    /// The repository `name` of the registry at `authority`, whose scheme is found out: without TLS
    /// only where that is allowed and nobody answers with it.
    pub fn find(
        http: &'a Http,
        authority: &str,
        name: &str,
        login: Option<Login>,
    ) -> Result<Found<'a>, Failure> {
        let mut first: Option<Failure> = None;
        for scheme in ["https", "http"] {
            if scheme == "http" && !http.settings.is_insecure(authority) {
                break;
            }
            let base = format!("{scheme}://{authority}");
            let repository = Repository {
                http,
                base,
                authority: authority.to_owned(),
                name: name.to_owned(),
                login: login.clone(),
                access: Mutex::default(),
            };
            match repository.ping() {
                Ok(Speaks::Second) => return Ok(Found::Second(repository)),
                Ok(Speaks::Other) => return Ok(Found::Other(scheme)),
                // An answer is an answer: another one that anybody could give does not count.
                Err(err) if !err.is_unreached => return Err(err),
                Err(err) => {
                    first = Some(match first {
                        None => err,
                        Some(first) => first.and(&err),
                    });
                }
            }
        }
        Err(first.unwrap_or_else(|| Failure::passing(format!("{authority}: no answer"))))
    }

    /// Breaks off every connection to it.
    pub fn interrupt(&self) {
        self.http.interrupt();
    }

    /// Asks whether it speaks our version, and does what it wants before it lets us in.
    fn ping(&self) -> Result<Speaks, Failure> {
        let uri = self.uri("/v2/")?;
        let answer = self.http.get(&Ask::new(&uri))?;
        // From here on it was reached, whoever else is not.
        self.speaks(&uri, answer).map_err(|err| Failure { is_unreached: false, ..err })
    }

    fn speaks(&self, uri: &Uri, answer: Response<Body>) -> Result<Speaks, Failure> {
        let is_second = answer.headers().contains_key(VERSION);
        match answer.status() {
            StatusCode::OK => {
                http::pass_over(answer);
                Ok(Speaks::Second)
            }
            StatusCode::UNAUTHORIZED => {
                let asked = challenges(&answer);
                http::pass_over(answer);
                let has = |scheme: &str| asked.iter().any(|one| one.scheme == scheme);
                match (has("bearer"), has("basic"), is_second) {
                    // What scope it names here is of no repository.
                    (true, ..) | (_, true, true) => {
                        self.enter(&asked, false).map(|()| Speaks::Second)
                    }
                    // Whoever guards all of a server does so before it says what it speaks.
                    (false, true, false) => {
                        self.enter(&asked, false)?;
                        self.speaks_inside(uri)
                    }
                    (false, false, true) => Ok(Speaks::Second),
                    (false, false, false) => Ok(Speaks::Other),
                }
            }
            _ if is_second => Err(http::refusal(uri, answer)),
            StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => Ok(Speaks::Other),
            _ => Err(http::refusal(uri, answer)),
        }
    }

    /// What is spoken behind a door that was opened.
    fn speaks_inside(&self, uri: &Uri) -> Result<Speaks, Failure> {
        let value = self.access().value();
        let answer = self.http.get(&Ask { authorization: value.as_deref(), ..Ask::new(uri) })?;
        let is_second = answer.headers().contains_key(VERSION);
        match answer.status() {
            StatusCode::OK => {
                http::pass_over(answer);
                Ok(Speaks::Second)
            }
            StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED if !is_second => {
                Ok(Speaks::Other)
            }
            _ => Err(self.refusal(uri, answer)),
        }
    }

    /// The manifest or index of a tag or digest.
    pub fn manifest(&self, reference: &str) -> Result<Document, Failure> {
        let uri = self.uri(&format!("/v2/{}/manifests/{reference}", self.name))?;
        let answer = self.ask(&Ask { accept: ACCEPT, ..Ask::new(&uri) })?;
        let header = |name| http::text_of(answer.headers(), name);
        let media_type = header("content-type").unwrap_or_default();
        let media_type =
            media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        let says = header("docker-content-digest").and_then(|text| text.parse().ok());
        let bytes = self.http.document(&uri, answer, DOCUMENT_MAX)?;
        Ok(Document { bytes, media_type, says })
    }

    /// A small blob, whole, and as its digest says.
    pub fn document(&self, digest: &Digest, size: u64) -> Result<Vec<u8>, Failure> {
        let uri = self.uri(&format!("/v2/{}/blobs/{digest}", self.name))?;
        if size > DOCUMENT_MAX {
            let text =
                format!("{uri} is said to have {size} bytes; at most {DOCUMENT_MAX} are read");
            return Err(Failure::wrong(failure::clean(&text)));
        }
        let bytes = self.http.document(&uri, self.ask(&Ask::new(&uri))?, size)?;
        match Digest::of(&bytes) == *digest {
            true => Ok(bytes),
            false => {
                let text = format!("{uri} answered with something else than {digest}");
                Err(Failure::wrong(failure::clean(&text)))
            }
        }
    }

    /// A blob from the byte `from` on, or from its beginning when the server cannot do that.
    pub fn blob(&self, digest: &Digest, from: u64, etag: Option<&str>) -> Result<Piece, Failure> {
        let uri = self.uri(&format!("/v2/{}/blobs/{digest}", self.name))?;
        let from = (from > 0).then_some((from, etag));
        let answer = self.ask(&Ask { from, ..Ask::new(&uri) })?;
        piece(uri, answer, from.map_or(0, |(from, _)| from))
    }

    /// Asks, and once more with a fresh right to when ours is refused.
    fn ask(&self, ask: &Ask<'_>) -> Result<Response<Body>, Failure> {
        let value = self.access().value();
        let answer = self.http.get(&Ask { authorization: value.as_deref(), ..*ask })?;
        let answer = match answer.status() {
            StatusCode::UNAUTHORIZED if !http::is_elsewhere(&answer) => {
                let asked = challenges(&answer);
                http::pass_over(answer);
                self.enter(&asked, true)?;
                let value = self.access().value();
                self.http.get(&Ask { authorization: value.as_deref(), ..*ask })?
            }
            _ => answer,
        };
        match answer.status().is_success() || answer.status() == StatusCode::RANGE_NOT_SATISFIABLE {
            true => Ok(answer),
            false => Err(self.refusal(ask.uri, answer)),
        }
    }

    fn refusal(&self, uri: &Uri, answer: Response<Body>) -> Failure {
        let mut refused = http::refusal(uri, answer);
        if refused.kind == Kind::Denied {
            let (authority, name) = (&self.authority, &self.name);
            let login = match &self.login {
                Some(login) => wrong_login(login),
                None => format!(
                    "there is no login for it in {}",
                    self.http.settings.credentials.display()
                ),
            };
            // Who has no right to know is told the same of what is not there.
            let cure = match &self.login {
                Some(_) => {
                    "is the name right? Then log in again, or have the user given the right to pull"
                }
                None => {
                    "is the name right? Then put a login into that file, as `docker login` writes it"
                }
            };
            // The server's words are clean, and cut off nothing of ours.
            refused.text =
                format!("{authority} does not let us read {name} ({login}): {refused}; {cure}");
        }
        refused
    }

    /// Does what it asks for. `is_about_us`: it was asked for this repository.
    fn enter(&self, asked: &[Challenge], is_about_us: bool) -> Result<(), Failure> {
        let door = Door {
            http: self.http,
            authority: &self.authority,
            is_https: self.base.starts_with("https:"),
            repository: &self.name,
            is_about_us,
            login: self.login.as_ref(),
        };
        *self.access() = Access::obtain(&door, asked)?;
        Ok(())
    }

    fn access(&self) -> std::sync::MutexGuard<'_, Access> {
        self.access.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn uri(&self, path: &str) -> Result<Uri, Failure> {
        let whole = format!("{}{path}", self.base);
        whole
            .parse()
            .map_err(|_| Failure::wrong(failure::clean(&format!("`{whole}` is no address"))))
    }
}

/// What a 401 asks for, from all its headers.
fn challenges(answer: &Response<Body>) -> Vec<Challenge> {
    let all = answer.headers().get_all(header::WWW_AUTHENTICATE).iter();
    all.filter_map(|value| value.to_str().ok()).flat_map(challenge::parse).collect()
}

/// Reads what part of a blob an answer is.
pub fn piece(uri: Uri, answer: Response<Body>, asked: u64) -> Result<Piece, Failure> {
    let headers = answer.headers();
    let etag = validator::etag(headers).map(str::to_owned);
    let modified = validator::modified(headers).map(str::to_owned);
    let length = http::text_of(headers, "content-length").and_then(|text| text.parse().ok());
    let from = match answer.status() {
        StatusCode::PARTIAL_CONTENT => {
            let range = http::text_of(headers, "content-range").and_then(first_of_range);
            match range {
                Some(from) if from == asked => from,
                _ => {
                    let text = format!("{uri} answered with another part than the one asked for");
                    return Err(Failure::wrong(failure::clean(&text)));
                }
            }
        }
        // There is nothing after what we have; whether that is all shows its digest.
        StatusCode::RANGE_NOT_SATISFIABLE => {
            let body = Body::builder().data("").into_reader();
            let length = Some(0);
            return Ok(Piece { from: asked, length, etag, modified, body, uri, is_past_end: true });
        }
        _ => 0,
    };
    let body = answer.into_body().into_reader();
    Ok(Piece { from, length, etag, modified, body, uri, is_past_end: false })
}

/// Reads `bytes 5-9/10`; registries of the first version leave out the unit.
fn first_of_range(value: &str) -> Option<u64> {
    let range = value.trim();
    let range = range.strip_prefix("bytes").map_or(range, str::trim_start);
    range.split('-').next()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_with_and_without_their_unit() {
        assert_eq!(first_of_range("bytes 5-9/10"), Some(5));
        assert_eq!(first_of_range("5-9/10"), Some(5));
        assert_eq!(first_of_range("bytes */10"), None);
        assert_eq!(first_of_range(""), None);
    }
}
