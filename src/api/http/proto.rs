//! HTTP/1.1 as values (RFC 9112): heads in, heads out, and where a body ends. Pure.
//!
//! A head that could be read in two ways is refused, never guessed at: that is how requests are
//! smuggled. Everything has a limit.

mod decoder;

pub use decoder::{Decoder, Step};

use crate::unit::escape;

/// Longest head where nothing else is said, in bytes; also the longest path.
pub const HEAD_MAX: usize = 16 * 1024;
/// Most segments of a path, and most pairs of a query: each takes many times its bytes.
const PARTS_MAX: usize = 1024;
/// Most header fields in a head.
pub const HEADERS_MAX: usize = 64;

/// A message that breaks a rule: the status that answers it and the rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed {
    /// 400, 413, 431, 501 or 505.
    pub status: u16,
    /// For a person.
    pub why: &'static str,
}

/// The usual kind: 400.
const fn bad(why: &'static str) -> Malformed {
    Malformed { status: 400, why }
}

/// More than we take.
const fn long(why: &'static str) -> Malformed {
    Malformed { status: 431, why }
}

/// Header fields in the order they came; names are compared without case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers(Vec<(String, String)>);

impl Headers {
    /// The first value of `name`.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.all(name).next()
    }

    /// Whether `token` is in the comma list of any field `name`.
    pub fn has_token(&self, name: &str, token: &str) -> bool {
        self.all(name)
            .flat_map(|value| value.split(','))
            .any(|part| trimmed(part).eq_ignore_ascii_case(token))
    }

    fn all<'a, 'n>(&'a self, name: &'n str) -> impl Iterator<Item = &'a str> + use<'a, 'n> {
        let fields = self.0.iter().filter(move |(key, _)| key.eq_ignore_ascii_case(name));
        fields.map(|(_, value)| value.as_str())
    }

    fn new(fields: &[httparse::Header<'_>]) -> Result<Headers, Malformed> {
        let field = |field: &httparse::Header<'_>| {
            let value = std::str::from_utf8(field.value).ok()?;
            Some((field.name.to_owned(), trimmed(value).to_owned()))
        };
        let fields: Option<Vec<_>> = fields.iter().map(field).collect();
        fields.map(Headers).ok_or(bad("a header value is not UTF-8"))
    }
}

/// `text` without spaces and tabs around it (RFC 9110, 5.6.3). What else Unicode calls white stays: a
/// proxy before us would see another value.
fn trimmed(text: &str) -> &str {
    text.trim_matches([' ', '\t'])
}

/// How the end of a body is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// After this many bytes.
    Length(u64),
    /// After the chunk of size 0.
    Chunked,
    /// When the connection closes; answers only.
    UntilClose,
}

/// The head of a request, decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// `GET`, as sent.
    pub method: String,
    /// Path segments, percent-decoded after splitting; `/` has none, `/a/` ends with an empty one.
    pub path: Vec<String>,
    /// Query pairs, decoded, in order.
    pub query: Vec<(String, String)>,
    /// Header fields.
    pub headers: Headers,
    /// Where its body ends.
    pub framing: Framing,
    /// The client means to send another request on this connection.
    pub keep_alive: bool,
    /// The client waits for `100 Continue` before it sends the body.
    pub expects_continue: bool,
    /// It speaks HTTP/1.1: other answers may come before the last.
    pub is_11: bool,
}

impl Request {
    /// The first value of query key `name`.
    pub fn query(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// Reads a head from the beginning of `bytes`, with the number of bytes it took.
    /// `None`: it is not all there yet.
    pub fn parse(bytes: &[u8]) -> Result<Option<(Request, usize)>, Malformed> {
        Request::parse_within(bytes, HEAD_MAX)
    }

    /// The same with heads of at most `max` bytes.
    pub fn parse_within(bytes: &[u8], max: usize) -> Result<Option<(Request, usize)>, Malformed> {
        let mut fields = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut raw = httparse::Request::new(&mut fields);
        let Some(used) = head_length(raw.parse(bytes), bytes.len(), max)? else { return Ok(None) };
        let headers = Headers::new(raw.headers)?;
        let framing = framing(&headers)?.unwrap_or(Framing::Length(0));
        let is_11 = raw.version == Some(1);
        if !is_11 && framing == Framing::Chunked {
            return Err(bad("chunked body in HTTP/1.0"));
        }
        let (path, query) = target(raw.path.unwrap_or_default())?;
        let request = Request {
            method: raw.method.unwrap_or_default().to_owned(),
            path,
            query,
            framing,
            keep_alive: is_11 && !headers.has_token("connection", "close"),
            expects_continue: is_11 && headers.has_token("expect", "100-continue"),
            is_11,
            headers,
        };
        Ok(Some((request, used)))
    }
}

/// The head of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// 200 and so on.
    pub status: u16,
    /// Header fields.
    pub headers: Headers,
    /// Where its body ends.
    pub framing: Framing,
}

impl Answer {
    /// Reads a head as [`Request::parse`] does.
    pub fn parse(bytes: &[u8]) -> Result<Option<(Answer, usize)>, Malformed> {
        let mut fields = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut raw = httparse::Response::new(&mut fields);
        let Some(used) = head_length(raw.parse(bytes), bytes.len(), HEAD_MAX)? else {
            return Ok(None);
        };
        let headers = Headers::new(raw.headers)?;
        let status = raw.code.unwrap_or_default();
        let framing = match status {
            100..200 | 204 | 304 => Framing::Length(0),
            _ => framing(&headers)?.unwrap_or(Framing::UntilClose),
        };
        Ok(Some((Answer { status, headers, framing }, used)))
    }
}

/// When a head that comes piece by piece is worth another look. A long one is not read again for
/// every byte that its client sends: that would cost the square of its length.
#[derive(Debug, Default)]
pub struct Watch {
    searched: usize,
    parsed: usize,
}

impl Watch {
    /// Whether to parse `bytes`, which begin with all that were there before.
    pub fn is_worth(&mut self, bytes: &[u8], max: usize) -> bool {
        let have = bytes.len();
        let new = &bytes[self.searched.saturating_sub(2).min(have)..];
        self.searched = have;
        // Empty lines before a head are skipped, and many of them look like its end each time.
        let is_end = |new: &[u8]| {
            !bytes.starts_with(b"\n")
                && !bytes.starts_with(b"\r")
                && (new.windows(2).any(|two| two == b"\n\n")
                    || new.windows(3).any(|three| three == b"\n\r\n"))
        };
        let worth = have <= HEAD_MAX || have >= max || have >= 2 * self.parsed || is_end(new);
        if worth {
            self.parsed = have;
        }
        worth
    }
}

/// What `httparse` found, with our own limit on the length.
fn head_length(
    parsed: httparse::Result<usize>,
    have: usize,
    max: usize,
) -> Result<Option<usize>, Malformed> {
    match parsed {
        Ok(httparse::Status::Complete(used)) if used <= max => Ok(Some(used)),
        Ok(httparse::Status::Partial) if have < max => Ok(None),
        Ok(_) => Err(long("the head is too long")),
        Err(httparse::Error::TooManyHeaders) => Err(long("more than 64 header fields")),
        Err(httparse::Error::Version) => {
            Err(Malformed { status: 505, why: "only HTTP/1.1 is spoken here" })
        }
        Err(_) => Err(bad("not an HTTP/1.1 head")),
    }
}

/// How the body ends, from its two header fields; `None`: neither is there. RFC 9112, 6.3.
fn framing(headers: &Headers) -> Result<Option<Framing>, Malformed> {
    let mut lengths = headers.all("content-length");
    let mut codings = headers.all("transfer-encoding");
    match (lengths.next(), codings.next()) {
        (None, None) => Ok(None),
        (Some(_), Some(_)) => Err(bad("both Content-Length and Transfer-Encoding")),
        (None, Some(coding)) if codings.next().is_none() => {
            match coding.eq_ignore_ascii_case("chunked") {
                true => Ok(Some(Framing::Chunked)),
                false => Err(Malformed { status: 501, why: "only chunked is known here" }),
            }
        }
        (None, Some(_)) => Err(bad("more than one Transfer-Encoding")),
        (Some(_), None) if lengths.next().is_some() => Err(bad("more than one Content-Length")),
        // `parse` alone would take "+5".
        (Some(length), None) if length.bytes().all(|b| b.is_ascii_digit()) => {
            let length = length.parse().map_err(|_| bad("Content-Length is no number"))?;
            Ok(Some(Framing::Length(length)))
        }
        (Some(_), None) => Err(bad("Content-Length is no number")),
    }
}

/// Decoded path segments and query pairs of a request target.
type Target = (Vec<String>, Vec<(String, String)>);

fn target(text: &str) -> Result<Target, Malformed> {
    let (path, query) = text.split_once('?').unwrap_or((text, ""));
    let path = path.strip_prefix('/').ok_or(bad("the path does not begin with `/`"))?;
    let is_many = |text: &str, mark| text.split(mark).nth(PARTS_MAX).is_some();
    if path.len() > HEAD_MAX || is_many(path, '/') || is_many(query, '&') {
        return Err(long("the path is too long, or has too many parts"));
    }
    let path = match path {
        "" => Vec::new(),
        path => path.split('/').map(|part| decode(part, false)).collect::<Result<_, _>>()?,
    };
    let pair = |part: &str| {
        let (key, value) = part.split_once('=').unwrap_or((part, ""));
        Ok((decode(key, true)?, decode(value, true)?))
    };
    let query = query.split('&').filter(|part| !part.is_empty()).map(pair);
    Ok((path, query.collect::<Result<_, _>>()?))
}

/// Percent-decodes one piece. Broken escapes and broken UTF-8 are refused; what a
/// name may hold is its owner's to say.
fn decode(text: &str, plus_is_space: bool) -> Result<String, Malformed> {
    const BROKEN: Malformed = bad("a percent escape is broken");
    let spaced = if plus_is_space { text.replace('+', " ") } else { text.to_owned() };
    let out = escape::plain(spaced.as_bytes()).ok_or(BROKEN)?;
    String::from_utf8(out).map_err(|_| bad("the path or query is not UTF-8"))
}

/// `data` as one chunk. Empty data would end the body: it yields nothing.
pub fn chunk(data: &[u8]) -> Vec<u8> {
    if data.is_empty() {
        return Vec::new();
    }
    let mut out = format!("{:x}\r\n", data.len()).into_bytes();
    out.extend_from_slice(data);
    out.extend_from_slice(b"\r\n");
    out
}

/// What ends a chunked body.
pub const LAST_CHUNK: &[u8] = b"0\r\n\r\n";
/// Answers `Expect: 100-continue`.
pub const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// A head from its first line and fields. Control characters in values become spaces, so that no
/// value can begin a new field.
pub fn head<'a>(first: &str, fields: impl IntoIterator<Item = (&'a str, &'a str)>) -> Vec<u8> {
    let mut out = format!("{first}\r\n");
    for (name, value) in fields {
        let value: String = value.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        out.push_str(&format!("{name}: {value}\r\n"));
    }
    out.push_str("\r\n");
    out.into_bytes()
}

/// The first line of an answer: `HTTP/1.1 404 Not Found`.
pub fn status_line(status: u16) -> String {
    let reason = match status {
        101 => "Switching Protocols",
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        204 => "No Content",
        400 => "Bad Request",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        409 => "Conflict",
        413 => "Content Too Large",
        422 => "Unprocessable Content",
        426 => "Upgrade Required",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        503 => "Service Unavailable",
        505 => "HTTP Version Not Supported",
        _ => "",
    };
    format!("HTTP/1.1 {status} {reason}")
}

#[cfg(test)]
mod tests;
