//! The least HTTP client that can ask an app how it is.
//!
//! GET, `Connection: close`, up to [`REDIRECTS_MAX`] redirects over plain HTTP; the body is read
//! and dropped. One deadline covers all of it.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

/// How many redirects are followed.
const REDIRECTS_MAX: usize = 10;

/// The longest head of an answer, in bytes, and the most header fields.
const HEAD_MAX: usize = 64 * 1024;
const FIELDS_MAX: usize = 128;

/// The status of the answer to GET `uri` at `to`.
///
/// Errors: `InvalidInput` when no request can be made of `uri`; `TimedOut` at the deadline;
/// anything else from the way there.
pub(super) fn status(to: SocketAddr, uri: &str, deadline: Instant) -> io::Result<u16> {
    let mut at = Place { to, host: to.to_string(), target: target(uri)? };
    for _ in 0..=REDIRECTS_MAX {
        let answer = ask(&at, deadline)?;
        match answer.location {
            Some(location) if matches!(answer.code, 301 | 302 | 303 | 307 | 308) => {
                at = at.follow(&location)?;
            }
            _ => return Ok(answer.code),
        }
    }
    Err(io::Error::other(format!("stopped after {REDIRECTS_MAX} redirects")))
}

/// Where a request goes.
struct Place {
    to: SocketAddr,
    host: String,
    target: String,
}

impl Place {
    /// The place that a `Location` field names, seen from here.
    fn follow(&self, location: &str) -> io::Result<Place> {
        let location = location.split('#').next().unwrap_or_default();
        let other = |host: &str, path: &str| {
            let named = if host.contains(':') { host.to_owned() } else { format!("{host}:80") };
            let to = named.to_socket_addrs()?.next();
            let to = to.ok_or_else(|| io::Error::other(format!("no address for {host}")))?;
            Ok(Place { to, host: host.to_owned(), target: target(path)? })
        };
        let split = |rest: &str| match rest.find(['/', '?']) {
            Some(at) if rest[at..].starts_with('/') => {
                (rest[..at].to_owned(), rest[at..].to_owned())
            }
            Some(at) => (rest[..at].to_owned(), format!("/{}", &rest[at..])),
            None => (rest.to_owned(), "/".to_owned()),
        };
        if let Some(rest) = location.strip_prefix("http://").or(location.strip_prefix("//")) {
            let (host, path) = split(rest);
            return other(&host, &path);
        }
        if location.contains("://") {
            return Err(io::Error::other(format!("redirected to {location}, which is not HTTP")));
        }
        let path = match location.strip_prefix('/') {
            Some(_) => location.to_owned(),
            None => {
                let base = self.target.split('?').next().unwrap_or("/");
                format!("{}/{location}", base.rsplit_once('/').map_or("", |(above, _)| above))
            }
        };
        Ok(Place { to: self.to, host: self.host.clone(), target: target(&path)? })
    }
}

/// The request target of `uri`: it begins with `/` and holds nothing that ends a request line.
fn target(uri: &str) -> io::Result<String> {
    if uri.bytes().any(|byte| byte <= b' ' || byte == 0x7f) {
        let why = "the path holds a space or control character";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    }
    Ok(if uri.starts_with('/') { uri.to_owned() } else { format!("/{uri}") })
}

struct Answer {
    code: u16,
    location: Option<String>,
}

fn ask(at: &Place, deadline: Instant) -> io::Result<Answer> {
    let stream = TcpStream::connect_timeout(&at.to, left(deadline)?)?;
    let mut stream = BufReader::new(Timed { stream, deadline });
    let request = format!(
        "GET {} HTTP/1.1\r\nHost: {}\r\nUser-Agent: diego-healthcheck\r\n\
         X-Forwarded-Proto: https\r\nConnection: close\r\n\r\n",
        at.target, at.host
    );
    stream.get_mut().stream.set_write_timeout(Some(left(deadline)?))?;
    stream.get_mut().stream.write_all(request.as_bytes())?;
    loop {
        let head = read_head(&mut stream)?;
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
            continue;
        }
        let chunked = field("transfer-encoding").is_some_and(|how| how.ends_with("chunked"));
        let length = field("content-length").and_then(|length| length.parse().ok());
        match (code, chunked, length) {
            (101 | 204 | 304, _, _) => {}
            (_, true, _) => drop_chunks(&mut stream)?,
            (_, _, Some(length)) => drop_exactly(&mut stream, length)?,
            _ => io::copy(&mut stream, &mut io::sink()).map(drop)?,
        }
        return Ok(Answer { code, location: field("location") });
    }
}

/// The answer's head up to its empty line.
fn read_head(stream: &mut impl BufRead) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    loop {
        let before = head.len();
        let room = (HEAD_MAX - before) as u64;
        stream.by_ref().take(room).read_until(b'\n', &mut head)?;
        match &head[before..] {
            b"\r\n" | b"\n" if before > 0 => return Ok(head),
            line if line.last() != Some(&b'\n') => {
                return Err(match head.len() {
                    0 => io::Error::new(io::ErrorKind::UnexpectedEof, "EOF"),
                    HEAD_MAX => malformed("its head is too long"),
                    _ => malformed("it ends within its head"),
                });
            }
            _ => {}
        }
    }
}

fn drop_exactly(stream: &mut impl Read, length: u64) -> io::Result<()> {
    match io::copy(&mut stream.take(length), &mut io::sink())? {
        got if got == length => Ok(()),
        _ => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "unexpected EOF")),
    }
}

fn drop_chunks(stream: &mut impl BufRead) -> io::Result<()> {
    loop {
        let mut line = Vec::new();
        stream.by_ref().take(1024).read_until(b'\n', &mut line)?;
        match httparse::parse_chunk_size(&line) {
            // Trailer fields are not worth waiting for.
            Ok(httparse::Status::Complete((_, 0))) => return Ok(()),
            Ok(httparse::Status::Complete((_, size))) => {
                drop_exactly(stream, size.saturating_add(2))?;
            }
            _ => return Err(malformed("broken chunk")),
        }
    }
}

fn malformed(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("malformed HTTP response: {why}"))
}

/// The time that is left; `TimedOut` when there is none.
fn left(deadline: Instant) -> io::Result<Duration> {
    match deadline.checked_duration_since(Instant::now()) {
        Some(left) if !left.is_zero() => Ok(left),
        _ => Err(io::ErrorKind::TimedOut.into()),
    }
}

/// A stream whose reads all end at the same deadline, however slowly bytes drip in.
struct Timed {
    stream: TcpStream,
    deadline: Instant,
}

impl Read for Timed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.set_read_timeout(Some(left(self.deadline)?))?;
        self.stream.read(buffer)
    }
}
