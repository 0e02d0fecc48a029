//! One repository of a registry that speaks the first version of the protocol: an index that knows
//! names and gives tokens, and endpoints that hold layers. Nothing in it is named by its content.

use super::credentials::Login;
use super::download::Advice;
use super::failure::{self, Failure, Kind};
use super::http::{self, Ask, Http};
use super::repository::{DOCUMENT_MAX, Piece, piece};
use super::token::wrong_login;
use crate::image::bounded;
use crate::unit::Digest;
use serde::Deserializer as _;
use serde::de::{IgnoredAny, MapAccess, Visitor};
use sha2::{Digest as _, Sha256};
use std::collections::BTreeSet;
use std::fmt;
use ureq::Body;
use ureq::http::{HeaderMap, Response, Uri};

/// Most layers of an image, most endpoints that are tried.
const LAYERS_MAX: usize = 127;
const ENDPOINTS_MAX: usize = 4;

/// A repository that answers.
pub struct First<'a> {
    http: &'a Http,
    /// `https://host:port`, at least one.
    endpoints: Vec<String>,
    name: String,
    token: Option<String>,
    /// Where the login goes when there is no token: the index that holds layers itself.
    own: Option<(Uri, String)>,
}

/// What a registry says of a layer.
pub struct About {
    /// The layer's configuration.
    pub json: Vec<u8>,
    /// Bytes of its blob, if it says it.
    pub size: Option<u64>,
    /// Digests, one of which should be that of the JSON, a line feed, and the blob.
    sums: Vec<Digest>,
}

impl About {
    /// What tells whether the blob is what the registry means.
    pub fn advice(&self) -> Option<Advice> {
        let before = || Sha256::new_with_prefix(&self.json).chain_update(b"\n");
        (!self.sums.is_empty()).then(|| Advice { before: before(), sums: self.sums.clone() })
    }
}

impl<'a> First<'a> {
    /// Breaks off every connection to it.
    pub fn interrupt(&self) {
        self.http.interrupt();
    }

    /// The repository `name` of the index at `authority`, which gives us a token for it: at the scheme at
    /// which it has answered already, as nobody who keeps that from us may choose another.
    pub fn find(
        http: &'a Http,
        (scheme, authority): (&str, &str),
        name: &str,
        login: Option<&Login>,
    ) -> Result<First<'a>, Failure> {
        let basic = login.and_then(Login::basic);
        let is_standalone = is_standalone(http, scheme, authority, basic.as_deref())?;
        // From here on it was reached: the login goes no other way, whoever breaks this off.
        let reached = |err| Failure { is_unreached: false, ..err };
        let uri = address(&format!("{scheme}://{authority}/v1/repositories/{name}/images"))?;
        let answer = http.get(&Ask {
            accept: "application/json",
            authorization: basic.as_deref(),
            more: &[("X-Docker-Token", "true")],
            ..Ask::new(&uri)
        });
        let answer = answer.map_err(reached)?;
        if !answer.status().is_success() {
            return Err(reached(not_let_in(http, authority, login, refusal(&uri, answer))));
        }
        let header = |name| http::text_of(answer.headers(), name).map(str::trim);
        let token = header("x-docker-token").filter(|token| !token.is_empty());
        let token = token.map(|token| format!("Token {token}"));
        let named = header("x-docker-endpoints").unwrap_or_default();
        let named = named.split(',').map(str::trim).filter(|host| !host.is_empty());
        let mut endpoints: Vec<String> =
            named.take(ENDPOINTS_MAX).map(|host| format!("{scheme}://{host}")).collect();
        if endpoints.is_empty() {
            endpoints.push(format!("{scheme}://{authority}"));
        }
        let own = basic.filter(|_| is_standalone).map(|basic| (uri.clone(), basic));
        Ok(First { http, endpoints, name: name.to_owned(), token, own })
    }

    /// Id of the image that has a tag.
    pub fn id(&self, tag: &str) -> Result<String, Failure> {
        let (uri, _, body) = self.document(&format!("repositories/{}/tags", self.name))?;
        // There may be any number of them.
        let mut from = serde_json::Deserializer::from_slice(&body);
        let found = from.deserialize_map(Tagged(tag));
        let found = found.and_then(|found| from.end().map(|()| found));
        let id = found.map_err(|err| nonsense(&uri, &err))?.ok_or_else(|| {
            let kind = failure::Kind::Missing;
            Failure::new(kind, failure::clean(&format!("{uri} knows no tag `{tag}`")))
        })?;
        checked(&uri, &id)
    }

    /// Ids of an image's layers, lowest first; the last is its own.
    pub fn layers(&self, id: &str) -> Result<Vec<String>, Failure> {
        let (uri, _, body) = self.document(&format!("images/{id}/ancestry"))?;
        let mut from = serde_json::Deserializer::from_slice(&body);
        let ids = bounded::list(&mut from, "ancestry", LAYERS_MAX);
        let ids = ids.and_then(|ids| from.end().map(|()| ids));
        let mut ids: Vec<String> = ids.map_err(|err| nonsense(&uri, &err))?;
        for id in &ids {
            checked(&uri, id)?;
        }
        let differ = ids.iter().collect::<BTreeSet<_>>().len() == ids.len();
        if ids.first().map(String::as_str) != Some(id) || !differ {
            let text = format!("{uri} answered with no family of {id}");
            return Err(Failure::wrong(failure::clean(&text)));
        }
        ids.reverse();
        Ok(ids)
    }

    /// What is said of a layer.
    pub fn about(&self, id: &str) -> Result<About, Failure> {
        let (_, headers, json) = self.document(&format!("images/{id}/json"))?;
        let size =
            http::text_of(&headers, "x-docker-size").and_then(|text| text.trim().parse().ok());
        let sums = ["x-docker-checksum-payload", "x-docker-checksum"];
        let sums = sums.iter().filter_map(|name| http::text_of(&headers, name)).flat_map(sums_of);
        // Servers that do not know it say 0 or -1.
        Ok(About { json, size: size.filter(|size| *size > 0), sums: sums.collect() })
    }

    /// A layer's tar from the byte `from` on.
    pub fn layer(&self, id: &str, from: u64, etag: Option<&str>) -> Result<Piece, Failure> {
        self.each(&format!("images/{id}/layer"), |uri, authorization| {
            let range = (from > 0).then_some((from, etag));
            let answer = self.http.get(&Ask { from: range, authorization, ..Ask::new(uri) })?;
            let good = answer.status().is_success() || answer.status().as_u16() == 416;
            match good {
                true => piece(uri.clone(), answer, from),
                false => Err(refusal(uri, answer)),
            }
        })
    }

    fn document(&self, path: &str) -> Result<(Uri, HeaderMap, Vec<u8>), Failure> {
        self.each(path, |uri, authorization| {
            let accept = "application/json";
            let answer = self.http.get(&Ask { accept, authorization, ..Ask::new(uri) })?;
            match answer.status().is_success() {
                true => {
                    let headers = answer.headers().clone();
                    Ok((uri.clone(), headers, self.http.document(uri, answer, DOCUMENT_MAX)?))
                }
                false => Err(refusal(uri, answer)),
            }
        })
    }

    /// Asks one endpoint after the other, until one answers.
    fn each<T>(
        &self,
        path: &str,
        ask: impl Fn(&Uri, Option<&str>) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let mut last = Failure::passing("no endpoint");
        for endpoint in &self.endpoints {
            let asked = address(&format!("{endpoint}/v1/{path}")).and_then(|uri| {
                let own = self.own.as_ref();
                let own = own.filter(|(own, _)| http::origin(own) == http::origin(&uri));
                ask(&uri, self.token.as_deref().or(own.map(|(_, login)| &**login)))
            });
            match asked {
                Err(err) => last = err,
                answer => return answer,
            }
        }
        Err(last)
    }
}

/// Whether who is asked holds layers himself, and then knows the same logins for them. Who does not say
/// does; some have no ping at all, which says nothing either.
fn is_standalone(
    http: &Http,
    scheme: &str,
    authority: &str,
    basic: Option<&str>,
) -> Result<bool, Failure> {
    let uri = address(&format!("{scheme}://{authority}/v1/_ping"))?;
    let answer = match http.get(&Ask { authorization: basic, ..Ask::new(&uri) }) {
        Ok(answer) => answer,
        Err(err) if err.is_unreached || err.kind == failure::Kind::Passing => return Err(err),
        // It leads elsewhere, to a page to log in perhaps.
        Err(_) => return Ok(true),
    };
    let said = http::text_of(answer.headers(), "x-docker-registry-standalone");
    let says_no =
        said.is_some_and(|it| !matches!(&*it.trim().to_ascii_lowercase(), "" | "1" | "true"));
    if answer.status().is_server_error() {
        return Err(refusal(&uri, answer));
    }
    http::pass_over(answer);
    Ok(!says_no)
}

/// The digests of a header that has one, or a list of them; those over a tar's entries are none.
fn sums_of(text: &str) -> Vec<Digest> {
    let words = text.split(|c: char| c.is_whitespace() || ",[]\"'".contains(c));
    words.filter(|word| word.starts_with("sha256:")).filter_map(|word| word.parse().ok()).collect()
}

/// What an answer that is none means here.
fn refusal(uri: &Uri, answer: Response<Body>) -> Failure {
    let is_bad = answer.status().as_u16() == 400;
    let refused = http::refusal(uri, answer);
    // "Image is being uploaded, retry later"
    match is_bad && refused.text.to_ascii_lowercase().contains("retry later") {
        true => Failure { kind: Kind::Passing, ..refused },
        false => refused,
    }
}

/// The same of the index, with what can be done about it.
fn not_let_in(http: &Http, authority: &str, login: Option<&Login>, refused: Failure) -> Failure {
    if refused.kind != Kind::Denied {
        return refused;
    }
    let cure = match login {
        Some(login) => wrong_login(login),
        None => format!("put a login for it into {}", http.settings.credentials.display()),
    };
    let text = format!("{authority} does not let us in: {refused}; {cure}");
    Failure { text, ..refused }
}

fn address(text: &str) -> Result<Uri, Failure> {
    text.parse().map_err(|_| Failure::wrong(failure::clean(&format!("`{text}` is no address"))))
}

fn nonsense(uri: &Uri, err: &serde_json::Error) -> Failure {
    Failure::wrong(failure::clean(&format!("{uri} answered with nonsense: {err}")))
}

/// The id that goes with one tag of a map of all.
struct Tagged<'a>(&'a str);

impl<'de> Visitor<'de> for Tagged<'_> {
    type Value = Option<String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map of tags")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut tags: A) -> Result<Option<String>, A::Error> {
        let mut found = None;
        while let Some(tag) = tags.next_key::<String>()? {
            match tag == self.0 {
                true => found = Some(tags.next_value()?),
                false => drop(tags.next_value::<IgnoredAny>()?),
            }
        }
        Ok(found)
    }
}

/// An id, which becomes part of addresses and file names.
fn checked(uri: &Uri, id: &str) -> Result<String, Failure> {
    let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    match id.len() == 64 && id.bytes().all(hex) {
        true => Ok(id.to_owned()),
        false => {
            let text = format!("{uri} answered with `{id}`, which is no id of 64 hex digits");
            Err(Failure::wrong(failure::clean(&text)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_read_from_a_word_or_a_list() {
        let (one, other) = (Digest::of(b"1"), Digest::of(b"2"));
        assert_eq!(sums_of(&one.to_string()), [one]);
        assert_eq!(sums_of(&format!(r#"["tarsum+{one}", "{other}"]"#)), [other]);
        assert_eq!(sums_of(&format!("{one},{other}")), [one, other]);
        assert_eq!(sums_of("sha256:12, md5:00"), []);
    }
}
