//! Tries over the network: a connection, a request.

use super::within;
use async_io::Async;
use smol::io::{AsyncReadExt, AsyncWriteExt};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// Bytes of an HTTP answer that are looked at; the status line is in the first of them.
const ANSWER_MAX: usize = 16 * 1024;

/// Redirects to the same instance that are followed.
const REDIRECT_MAX: usize = 3;

/// A TCP connection.
pub(super) async fn connect(at: (Ipv4Addr, u16), limit: Duration) -> Result<(), String> {
    let at = SocketAddr::from(at);
    within(limit, Async::<TcpStream>::connect(at))
        .await
        .ok_or_else(|| late(limit))
        .and_then(|tried| tried.map(drop).map_err(|err| plain(&err)))
        .map_err(|why| format!("failed to make TCP connection to {at}: {why}"))
}

/// A GET that is answered with 200.
pub(super) async fn request(
    at: (Ipv4Addr, u16),
    path: &str,
    limit: Duration,
) -> Result<(), String> {
    let (at, port) = (SocketAddr::from(at), at.1);
    let begin = Instant::now();
    let why = match within(limit, get(at, path)).await {
        Some(Ok(200)) => return Ok(()),
        Some(Ok(code)) => {
            format!("received status code {code} in {}ms", begin.elapsed().as_millis())
        }
        Some(Err(_)) => "connection refused".to_owned(),
        None => late(limit),
    };
    Err(format!("failed to make HTTP request to '{path}' on port {port}: {why}"))
}

fn late(limit: Duration) -> String {
    format!("timed out after {:.2} seconds", limit.as_secs_f64())
}

/// The system's words without its number.
fn plain(err: &std::io::Error) -> String {
    match err.kind() {
        std::io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        _ => err.to_string(),
    }
}

/// The status of the last answer to a GET, redirects within the instance followed.
async fn get(at: SocketAddr, path: &str) -> std::io::Result<u16> {
    let mut path = path.to_owned();
    for _ in 0..=REDIRECT_MAX {
        let answer = get_once(at, &path).await?;
        let mut headers = [httparse::EMPTY_HEADER; 64];
        let mut head = httparse::Response::new(&mut headers);
        head.parse(&answer).map_err(std::io::Error::other)?;
        let code = head.code.unwrap_or(0);
        let next = head
            .headers
            .iter()
            .find(|header| header.name.eq_ignore_ascii_case("location"))
            .and_then(|header| std::str::from_utf8(header.value).ok());
        match next {
            Some(next) if (300..400).contains(&code) => path = local_path(next, at),
            _ => return Ok(code),
        }
    }
    Ok(310)
}

/// Path of a redirect; another host's is asked of this instance all the same, as only it counts.
fn local_path(location: &str, at: SocketAddr) -> String {
    let rest = location.strip_prefix(&format!("http://{at}")).unwrap_or(location);
    match rest.split_once("://") {
        Some((_, rest)) => rest.find('/').map_or("/".to_owned(), |at| rest[at..].to_owned()),
        None if rest.starts_with('/') => rest.to_owned(),
        None => format!("/{rest}"),
    }
}

/// The head of one answer.
async fn get_once(at: SocketAddr, path: &str) -> std::io::Result<Vec<u8>> {
    let mut stream = Async::<TcpStream>::connect(at).await?;
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {at}\r\nUser-Agent: diego-healthcheck\r\n\
         X-Forwarded-Proto: https\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    let mut answer = vec![0; ANSWER_MAX];
    let mut length = 0;
    loop {
        let read = stream.read(&mut answer[length..]).await?;
        length += read;
        let whole = answer[..length].windows(4).any(|four| four == b"\r\n\r\n");
        if read == 0 || whole || length == ANSWER_MAX {
            answer.truncate(length);
            return Ok(answer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_stay_within_the_instance() {
        let at: SocketAddr = "10.254.0.2:8080".parse().expect("address");
        for (location, path) in [
            ("/login", "/login"),
            ("http://10.254.0.2:8080/x?y", "/x?y"),
            ("https://example.org/a/b", "/a/b"),
            ("https://example.org", "/"),
            ("next", "/next"),
        ] {
            assert_eq!(local_path(location, at), path, "{location}");
        }
    }
}
