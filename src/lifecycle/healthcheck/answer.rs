//! HTTP as a health check speaks it: the request, its answer as its bytes come, where a redirect
//! leads. Pure: whoever has the connection hands on what it gives. The healthcheck in the container and
//! the daemon's probes share it.

use std::io;

/// How many redirects are followed.
pub const REDIRECTS_MAX: usize = 10;

/// The longest head of an answer, in bytes, and the most header fields.
const HEAD_MAX: usize = 64 * 1024;
const FIELDS_MAX: usize = 128;
/// The longest line that tells the size of a chunk, in bytes.
const SIZE_MAX: usize = 1024;

/// The request for `target` of server `host`.
pub fn request(target: &str, host: &str) -> String {
    format!(
        "GET {target} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: diego-healthcheck\r\n\
         X-Forwarded-Proto: https\r\nConnection: close\r\n\r\n"
    )
}

/// The request target of `uri`: it begins with `/` and holds nothing that ends a request line.
pub fn target(uri: &str) -> io::Result<String> {
    if uri.bytes().any(|byte| byte <= b' ' || byte == 0x7f) {
        let why = "the path holds a space or control character";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    }
    Ok(if uri.starts_with('/') { uri.to_owned() } else { format!("/{uri}") })
}

/// What was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Its status.
    pub code: u16,
    location: Option<String>,
}

impl Answer {
    /// Where it sends whoever asked for `target`; `None`: nowhere, it is the last one.
    pub fn redirect(&self, target: &str) -> io::Result<Option<Aim>> {
        match &self.location {
            Some(location) if matches!(self.code, 301 | 302 | 303 | 307 | 308) => {
                Aim::of(target, location).map(Some)
            }
            _ => Ok(None),
        }
    }
}

/// Where a redirect leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Aim {
    /// Scheme and `host[:port]`; `None`: the same server.
    pub server: Option<(String, String)>,
    /// What to ask for.
    pub target: String,
}

impl Aim {
    /// What a `Location` field names, seen from `base`.
    fn of(base: &str, location: &str) -> io::Result<Aim> {
        let location = location.split('#').next().unwrap_or_default();
        let named = location.strip_prefix("//").map(|rest| ("http", rest));
        if let Some((scheme, rest)) = named.or_else(|| with_scheme(location)) {
            let (host, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
            let server = Some((scheme.to_ascii_lowercase(), host.to_owned()));
            return Ok(Aim { server, target: target(path)? });
        }
        let path = match location.strip_prefix('/') {
            Some(_) => location.to_owned(),
            None => {
                let base = base.split('?').next().unwrap_or("/");
                format!("{}/{location}", base.rsplit_once('/').map_or("", |(above, _)| above))
            }
        };
        Ok(Aim { server: None, target: target(&path)? })
    }
}

/// Scheme and rest of a location that has one; in a query `://` means nothing.
fn with_scheme(location: &str) -> Option<(&str, &str)> {
    let is_scheme = |text: &str| {
        let is_own = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
        !text.is_empty() && text.bytes().all(is_own)
    };
    location.split_once("://").filter(|(scheme, _)| is_scheme(scheme))
}

/// An answer that is on its way. It is read to the end of its body: a server that finds its connection
/// closed while it writes takes that for an error.
#[derive(Default)]
pub struct Coming {
    /// Of a head, or of a line that tells a size.
    begun: Vec<u8>,
    rest: Rest,
    answer: Option<Answer>,
}

/// What comes next.
#[derive(Clone, Copy, Default)]
enum Rest {
    #[default]
    Head,
    /// So many bytes more.
    Body(u64),
    /// A line that tells how long the next chunk is.
    Size,
    /// So many bytes of a chunk, the end of its line included.
    Chunk(u64),
    /// Whatever comes until the connection ends.
    Open,
}

impl Coming {
    /// Takes the next bytes; the answer when they end it.
    pub fn push(&mut self, mut bytes: &[u8]) -> io::Result<Option<Answer>> {
        while !bytes.is_empty() {
            match self.rest {
                Rest::Head => {
                    let is_line = self.line(&mut bytes, HEAD_MAX, "its head is too long")?;
                    let is_whole = self.begun.ends_with(b"\n\n") || self.begun.ends_with(b"\n\r\n");
                    if is_line && is_whole && self.end_head()? {
                        return Ok(self.answer.take());
                    }
                }
                Rest::Size => {
                    if self.line(&mut bytes, SIZE_MAX, BROKEN)? {
                        match httparse::parse_chunk_size(&self.begun) {
                            // Trailer fields are not worth waiting for.
                            Ok(httparse::Status::Complete((_, 0))) => {
                                return Ok(self.answer.take());
                            }
                            Ok(httparse::Status::Complete((_, size))) => {
                                self.rest = Rest::Chunk(size.saturating_add(2));
                            }
                            _ => return Err(malformed(BROKEN)),
                        }
                        self.begun.clear();
                    }
                }
                Rest::Body(left) => match skip(&mut bytes, left) {
                    0 => return Ok(self.answer.take()),
                    left => self.rest = Rest::Body(left),
                },
                Rest::Chunk(left) => {
                    self.rest = match skip(&mut bytes, left) {
                        0 => Rest::Size,
                        left => Rest::Chunk(left),
                    }
                }
                Rest::Open => return Ok(None),
            }
        }
        Ok(None)
    }

    /// The connection has ended.
    pub fn end(self) -> io::Result<Answer> {
        let cut_off = |text: &str| io::Error::new(io::ErrorKind::UnexpectedEof, text);
        match (self.rest, self.answer) {
            (Rest::Open, Some(answer)) => Ok(answer),
            (Rest::Head, _) if self.begun.is_empty() => Err(cut_off("EOF")),
            (Rest::Head, _) => Err(malformed("it ends within its head")),
            (Rest::Size, _) => Err(malformed(BROKEN)),
            (Rest::Body(_) | Rest::Chunk(_) | Rest::Open, _) => Err(cut_off("unexpected EOF")),
        }
    }

    /// Takes bytes up to the end of a line. `true`: that has come.
    fn line(&mut self, bytes: &mut &[u8], most: usize, too_long: &str) -> io::Result<bool> {
        let room = bytes.len().min(most - self.begun.len());
        let end = bytes[..room].iter().position(|byte| *byte == b'\n');
        let (line, rest) = bytes.split_at(end.map_or(room, |at| at + 1));
        self.begun.extend_from_slice(line);
        *bytes = rest;
        if end.is_none() && self.begun.len() == most {
            return Err(malformed(too_long));
        }
        Ok(end.is_some())
    }

    /// A head has come. `true`: nothing follows it.
    fn end_head(&mut self) -> io::Result<bool> {
        let head = std::mem::take(&mut self.begun);
        let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
        let mut response = httparse::Response::new(&mut fields);
        response.parse(&head).map_err(|err| malformed(&err.to_string()))?;
        let code = response.code.ok_or_else(|| malformed("no status"))?;
        let field = |name: &str| {
            let found = response.headers.iter().find(|field| field.name.eq_ignore_ascii_case(name));
            found.map(|field| String::from_utf8_lossy(field.value).trim().to_owned())
        };
        // 1xx only announces; 101 would be the end of HTTP, which nobody asked for.
        if (100..200).contains(&code) && code != 101 {
            return Ok(false);
        }
        self.answer = Some(Answer { code, location: field("location") });
        let chunked = field("transfer-encoding").is_some_and(|how| how.ends_with("chunked"));
        let length = field("content-length").and_then(|length| length.parse().ok());
        self.rest = match (code, chunked, length) {
            (101 | 204 | 304, _, _) | (_, false, Some(0)) => return Ok(true),
            (_, true, _) => Rest::Size,
            (_, false, Some(length)) => Rest::Body(length),
            (_, false, None) => Rest::Open,
        };
        Ok(false)
    }
}

const BROKEN: &str = "broken chunk";

/// Drops at most so many bytes; how many are left to drop.
fn skip(bytes: &mut &[u8], left: u64) -> u64 {
    let now = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
    *bytes = &bytes[now..];
    left - now as u64
}

fn malformed(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("malformed HTTP response: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// However its bytes come, the answer is the same, and it is whole at its last byte.
    #[test]
    fn an_answer_is_whole_at_the_end_of_its_body() {
        for (text, code) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", 200),
            ("HTTP/1.1 404 X\nContent-Length: 0\n\n", 404),
            (
                "HTTP/1.1 200 X\r\nTransfer-Encoding: chunked\r\n\r\n2;x\r\nok\r\n1\r\n.\r\n0\r\n",
                200,
            ),
            ("HTTP/1.1 103 Hints\r\nLink: x\r\n\r\nHTTP/1.1 204 None\r\n\r\n", 204),
        ] {
            for piece in 1..=text.len() {
                let (mut coming, mut fed) = (Coming::default(), 0);
                let answer = text.as_bytes().chunks(piece).find_map(|bytes| {
                    fed += bytes.len();
                    coming.push(bytes).expect(text)
                });
                assert_eq!(answer.expect(text).code, code, "{text} by {piece}");
                assert_eq!(fed, text.len(), "{text} by {piece}");
            }
        }
        let mut open = Coming::default();
        assert_eq!(open.push(b"HTTP/1.0 200 OK\r\n\r\nany").expect("so far"), None);
        assert_eq!(open.end().expect("its end").code, 200);
    }

    #[test]
    fn what_breaks_off_is_no_answer() {
        for (text, why) in [
            ("", "EOF"),
            ("HTTP/1.1 100 Continue\r\n\r\n", "EOF"),
            ("HTTP/1.1 200 OK\r\nContent", "malformed HTTP response: it ends within its head"),
            ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok", "unexpected EOF"),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2",
                "malformed HTTP response: broken chunk",
            ),
        ] {
            let mut coming = Coming::default();
            assert_eq!(coming.push(text.as_bytes()).expect(text), None, "{text}");
            assert_eq!(coming.end().expect_err(text).to_string(), why, "{text}");
        }
        for text in ["HTTP/1.1 x\r\n\r\n".to_owned(), "x".repeat(HEAD_MAX)] {
            assert!(Coming::default().push(text.as_bytes()).is_err(), "{:.20}", text);
        }
    }

    #[test]
    fn a_redirect_is_seen_from_where_it_was_found() {
        let server = |scheme: &str, host: &str| Some((scheme.to_owned(), host.to_owned()));
        for (location, to, target) in [
            ("/b", None, "/b"),
            ("b?x", None, "/a/b?x"),
            ("../b", None, "/a/../b"),
            ("http://c.lan:80", server("http", "c.lan:80"), "/"),
            ("http://c.lan?q", server("http", "c.lan"), "/?q"),
            ("//c.lan/d#e", server("http", "c.lan"), "/d"),
            ("HTTPS://c.lan/d", server("https", "c.lan"), "/d"),
            ("/login?next=http://c.lan/d", None, "/login?next=http://c.lan/d"),
            ("login?u=http://c.lan", None, "/a/login?u=http://c.lan"),
        ] {
            let aim = Aim::of("/a/x?from=http://y/", location).expect(location);
            assert_eq!(aim, Aim { server: to, target: target.into() }, "{location}");
        }
        assert!(Aim::of("/", "/a\r\nb").is_err());
        let answer = |code| Answer { code, location: Some("/b".into()) };
        assert!(answer(307).redirect("/").expect("good").is_some());
        assert!(answer(304).redirect("/").expect("good").is_none());
    }
}
