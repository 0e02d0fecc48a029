//! The least HTTP client that can ask an app how it is.
//!
//! GET, `Connection: close`, up to [`REDIRECTS_MAX`] redirects over plain HTTP; the body is read
//! and dropped. One deadline covers all of it.

use super::answer::{self, Aim, Answer, Coming, REDIRECTS_MAX};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

/// The status of the answer to GET `uri` at `to`.
///
/// Errors: `InvalidInput` when no request can be made of `uri`; `TimedOut` at the deadline;
/// anything else from the way there.
pub(super) fn status(to: SocketAddr, uri: &str, deadline: Instant) -> io::Result<u16> {
    let mut at = Place { to, host: to.to_string(), target: answer::target(uri)? };
    for _ in 0..=REDIRECTS_MAX {
        let answer = ask(&at, deadline)?;
        match answer.redirect(&at.target)? {
            Some(aim) => at = at.follow(aim)?,
            None => return Ok(answer.code),
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
    /// The place that a redirect leads to.
    fn follow(&self, aim: Aim) -> io::Result<Place> {
        let Aim { server, target } = aim;
        match server {
            None => Ok(Place { to: self.to, host: self.host.clone(), target }),
            Some((scheme, host)) if scheme == "http" => {
                let named = if host.contains(':') { host.clone() } else { format!("{host}:80") };
                let to = named.to_socket_addrs()?.next();
                let to = to.ok_or_else(|| io::Error::other(format!("no address for {host}")))?;
                Ok(Place { to, host, target })
            }
            Some((scheme, host)) => Err(io::Error::other(format!(
                "redirected to {scheme}://{host}{target}, which is not HTTP"
            ))),
        }
    }
}

fn ask(at: &Place, deadline: Instant) -> io::Result<Answer> {
    let mut stream = TcpStream::connect_timeout(&at.to, left(deadline)?)?;
    stream.set_write_timeout(Some(left(deadline)?))?;
    stream.write_all(answer::request(&at.target, &at.host).as_bytes())?;
    let (mut coming, mut piece) = (Coming::default(), vec![0; 16 * 1024]);
    loop {
        // All reads end at the same deadline, however slowly bytes drip in.
        stream.set_read_timeout(Some(left(deadline)?))?;
        match stream.read(&mut piece) {
            Ok(0) => return coming.end(),
            Ok(length) => {
                if let Some(answer) = coming.push(&piece[..length])? {
                    return Ok(answer);
                }
            }
            Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
            Err(err) => return Err(err),
        }
    }
}

/// The time that is left; `TimedOut` when there is none.
fn left(deadline: Instant) -> io::Result<Duration> {
    match deadline.checked_duration_since(Instant::now()) {
        Some(left) if !left.is_zero() => Ok(left),
        _ => Err(io::ErrorKind::TimedOut.into()),
    }
}
