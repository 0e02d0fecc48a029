//! One repository of a registry that speaks the first version of the protocol: an index that knows
//! names and gives tokens, and endpoints that hold layers. Nothing in it is named by its content.

use super::credentials::Login;
use super::failure::{self, Failure};
use super::http::{self, Ask, Http};
use super::repository::{DOCUMENT_MAX, Piece, piece};
use std::collections::{BTreeMap, BTreeSet};
use ureq::http::Uri;

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
}

impl<'a> First<'a> {
    /// The repository `name` of the index at `authority`, which gives us a token for it.
    pub fn find(
        http: &'a Http,
        authority: &str,
        name: &str,
        login: Option<&Login>,
    ) -> Result<First<'a>, Failure> {
        let mut first: Option<Failure> = None;
        for scheme in ["https", "http"] {
            if scheme == "http" && !http.settings.is_insecure(authority) {
                break;
            }
            match First::find_at(http, scheme, authority, name, login) {
                // An answer is an answer: another one that anybody could give does not count.
                Err(err) if !err.is_unreached => return Err(err),
                Err(err) => {
                    first = Some(match first {
                        None => err,
                        Some(first) => first.and(&err),
                    });
                }
                found => return found,
            }
        }
        Err(first.unwrap_or_else(|| Failure::passing(format!("{authority}: no answer"))))
    }

    /// Breaks off every connection to it.
    pub fn interrupt(&self) {
        self.http.interrupt();
    }

    fn find_at(
        http: &'a Http,
        scheme: &str,
        authority: &str,
        name: &str,
        login: Option<&Login>,
    ) -> Result<First<'a>, Failure> {
        let uri = address(&format!("{scheme}://{authority}/v1/repositories/{name}/images"))?;
        let basic = login.and_then(Login::basic);
        let answer = http.get(&Ask {
            accept: "application/json",
            authorization: basic.as_deref(),
            more: &[("X-Docker-Token", "true")],
            ..Ask::new(&uri)
        })?;
        if !answer.status().is_success() {
            return Err(http::refusal(&uri, answer));
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
        Ok(First { http, endpoints, name: name.to_owned(), token })
    }

    /// Id of the image that has a tag.
    pub fn id(&self, tag: &str) -> Result<String, Failure> {
        let (uri, body) = self.document(&format!("repositories/{}/tags", self.name))?;
        let tags: BTreeMap<String, String> = read(&uri, &body)?;
        let id = tags.get(tag).ok_or_else(|| {
            let kind = failure::Kind::Missing;
            Failure::new(kind, failure::clean(&format!("{uri} knows no tag `{tag}`")))
        })?;
        checked(&uri, id)
    }

    /// Ids of an image's layers, lowest first; the last is its own.
    pub fn layers(&self, id: &str) -> Result<Vec<String>, Failure> {
        let (uri, body) = self.document(&format!("images/{id}/ancestry"))?;
        let mut ids: Vec<String> = read(&uri, &body)?;
        for id in &ids {
            checked(&uri, id)?;
        }
        let differ = ids.iter().collect::<BTreeSet<_>>().len() == ids.len();
        if ids.first().map(String::as_str) != Some(id) || !differ || ids.len() > LAYERS_MAX {
            let text = format!("{uri} answered with no family of at most {LAYERS_MAX} layers");
            return Err(Failure::wrong(failure::clean(&text)));
        }
        ids.reverse();
        Ok(ids)
    }

    /// What is said of a layer; JSON.
    pub fn about(&self, id: &str) -> Result<Vec<u8>, Failure> {
        self.document(&format!("images/{id}/json")).map(|(_, body)| body)
    }

    /// A layer's tar from the byte `from` on.
    pub fn layer(&self, id: &str, from: u64, etag: Option<&str>) -> Result<Piece, Failure> {
        self.each(&format!("images/{id}/layer"), |uri, authorization| {
            let range = (from > 0).then_some((from, etag));
            let answer = self.http.get(&Ask { from: range, authorization, ..Ask::new(uri) })?;
            let good = answer.status().is_success() || answer.status().as_u16() == 416;
            match good {
                true => piece(uri.clone(), answer, from),
                false => Err(http::refusal(uri, answer)),
            }
        })
    }

    fn document(&self, path: &str) -> Result<(Uri, Vec<u8>), Failure> {
        self.each(path, |uri, authorization| {
            let accept = "application/json";
            let answer = self.http.get(&Ask { accept, authorization, ..Ask::new(uri) })?;
            match answer.status().is_success() {
                true => Ok((uri.clone(), http::document(uri, answer, DOCUMENT_MAX)?)),
                false => Err(http::refusal(uri, answer)),
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
            let uri = address(&format!("{endpoint}/v1/{path}"))?;
            match ask(&uri, self.token.as_deref()) {
                Err(err) => last = err,
                answer => return answer,
            }
        }
        Err(last)
    }
}

fn address(text: &str) -> Result<Uri, Failure> {
    text.parse().map_err(|_| Failure::wrong(failure::clean(&format!("`{text}` is no address"))))
}

fn read<T: serde::de::DeserializeOwned>(uri: &Uri, body: &[u8]) -> Result<T, Failure> {
    serde_json::from_slice(body).map_err(|err| {
        Failure::wrong(failure::clean(&format!("{uri} answered with nonsense: {err}")))
    })
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
