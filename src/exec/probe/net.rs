//! Tries over the network: a connection, a request.

use super::within;
use crate::lifecycle::healthcheck::answer::{self, Answer, Coming, REDIRECTS_MAX};
use crate::lifecycle::healthcheck::reason;
use async_io::Async;
use smol::io::{AsyncReadExt, AsyncWriteExt};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// Bytes of an HTTP answer that are read at once.
const PIECE: usize = 16 * 1024;

/// A TCP connection.
pub(super) async fn connect(at: (Ipv4Addr, u16), limit: Duration) -> Result<(), String> {
    let at = SocketAddr::from(at);
    within(limit, Async::<TcpStream>::connect(at))
        .await
        .ok_or_else(|| late(limit))
        .and_then(|tried| tried.map(drop).map_err(|err| reason(&err)))
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
        Some(Err(err)) => reason(&err),
        None => late(limit),
    };
    Err(format!("failed to make HTTP request to '{path}' on port {port}: {why}"))
}

fn late(limit: Duration) -> String {
    format!("timed out after {:.2} seconds", limit.as_secs_f64())
}

/// The status of the last answer to a GET. Redirects are followed within the instance: what is another
/// host's is asked of this one all the same, as only it counts and no app sends the daemon anywhere.
async fn get(at: SocketAddr, path: &str) -> io::Result<u16> {
    let mut target = answer::target(path)?;
    for _ in 0..=REDIRECTS_MAX {
        let answer = get_once(at, &target).await?;
        match answer.redirect(&target)? {
            Some(aim) => target = aim.target,
            None => return Ok(answer.code),
        }
    }
    Err(io::Error::other(format!("stopped after {REDIRECTS_MAX} redirects")))
}

/// One answer, read to its end.
async fn get_once(at: SocketAddr, target: &str) -> io::Result<Answer> {
    let mut stream = Async::<TcpStream>::connect(at).await?;
    stream.write_all(answer::request(target, &at.to_string()).as_bytes()).await?;
    let (mut coming, mut piece) = (Coming::default(), vec![0; PIECE]);
    loop {
        // A body that never pauses must not keep the executor's only thread.
        smol::future::yield_now().await;
        match stream.read(&mut piece).await? {
            0 => return coming.end(),
            length => {
                if let Some(answer) = coming.push(&piece[..length])? {
                    return Ok(answer);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::thread::JoinHandle;

    const LONG: Duration = Duration::from_secs(60);

    /// An app that answers one connection after the other with these; what it was asked for, and
    /// whether it could write all it had to say.
    fn app(answers: Vec<Vec<u8>>) -> (u16, JoinHandle<Vec<(String, bool)>>) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let port = listener.local_addr().expect("its number").port();
        let serve = move |answer: Vec<u8>| {
            let (mut stream, _) = listener.accept().expect("a connection");
            let (mut asked, mut byte) = (Vec::new(), [0]);
            while !asked.ends_with(b"\r\n\r\n") {
                stream.read_exact(&mut byte).expect("a request");
                asked.push(byte[0]);
            }
            let written = stream.write_all(&answer).is_ok();
            let line = String::from_utf8_lossy(&asked).lines().next().map(str::to_owned);
            (line.expect("a line"), written)
        };
        (port, std::thread::spawn(move || answers.into_iter().map(serve).collect()))
    }

    fn ask(port: u16) -> Result<(), String> {
        smol::block_on(request((Ipv4Addr::LOCALHOST, port), "/a/x", LONG))
    }

    fn redirect(to: &str) -> Vec<u8> {
        format!("HTTP/1.1 302 X\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n").into_bytes()
    }

    #[test]
    fn redirects_stay_within_the_instance_and_end() {
        let ok = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
        for (location, line) in [
            ("/login", "GET /login HTTP/1.1"),
            ("next", "GET /a/next HTTP/1.1"),
            ("https://example.org/a/b", "GET /a/b HTTP/1.1"),
            ("http://example.org", "GET / HTTP/1.1"),
        ] {
            let (port, app) = app(vec![redirect(location), ok.to_vec()]);
            assert_eq!(ask(port), Ok(()), "{location}");
            assert_eq!(app.join().expect("asked")[1].0, line, "{location}");
        }
        let (port, app) = app(vec![redirect("/a/x"); REDIRECTS_MAX + 1]);
        let why = ask(port).expect_err("a circle");
        assert!(why.ends_with("stopped after 10 redirects"), "{why}");
        app.join().expect("all of them came");
    }

    #[test]
    fn an_answer_is_what_the_app_says_last() {
        let (port, early) = app(vec![
            b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
                .to_vec(),
        ]);
        assert_eq!(ask(port), Ok(()), "1xx only announces");
        early.join().expect("asked");
        for (answer, why) in [
            (&b""[..], "EOF"),
            (b"HTTP/1.1 503 X\r\nContent-Length: 0\r\n\r\n", "received status code 503 in "),
            (b"SSH-2.0-x\r\n\r\n", "malformed HTTP response"),
        ] {
            let (port, app) = app(vec![answer.to_vec()]);
            let said = ask(port).expect_err(why);
            let begin = format!("failed to make HTTP request to '/a/x' on port {port}: {why}");
            assert!(said.starts_with(&begin), "{said}");
            app.join().expect("asked");
        }
    }

    /// More than the sockets hold: the app can only write it all when it is read.
    #[test]
    fn the_body_is_read_so_that_the_app_can_write_it() {
        let body = vec![b'x'; 32 << 20];
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
        let (port, app) = app(vec![[head.as_bytes(), &body].concat()]);
        assert_eq!(ask(port), Ok(()));
        assert!(app.join().expect("asked")[0].1, "the app's write failed");
    }
}
