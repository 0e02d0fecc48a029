//! The least HTTP client that can ask an app how it is.
//!
//! GET, `Connection: close`, up to [`REDIRECTS_MAX`] redirects over plain HTTP; the body is read
//! and dropped. One deadline covers all of it, the look-up of a redirect's name too.

use super::answer::{self, Aim, Answer, Coming, REDIRECTS_MAX};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

/// Look-ups that are given up on and go on all the same, each on a thread of its own, for as long as the
/// resolver takes: a check that repeats itself has no more of them.
pub(super) const LOOKUPS_MAX: usize = 4;

/// The status of the answer to GET `uri` at `to`.
///
/// Errors: `InvalidInput` when no request can be made of `uri`; `TimedOut` at the deadline;
/// anything else from the way there.
pub(super) fn status(to: SocketAddr, uri: &str, deadline: Instant) -> io::Result<u16> {
    status_by(to, uri, deadline, system)
}

/// The same with a resolver of the caller's.
pub(super) fn status_by(
    to: SocketAddr,
    uri: &str,
    deadline: Instant,
    resolver: Resolver,
) -> io::Result<u16> {
    let mut at = Place { to, host: to.to_string(), target: answer::target(uri)? };
    for _ in 0..=REDIRECTS_MAX {
        let answer = ask(&at, deadline)?;
        match answer.redirect(&at.target)? {
            Some(aim) => at = at.follow(aim, deadline, resolver)?,
            None => return Ok(answer.code),
        }
    }
    Err(io::Error::other(format!("stopped after {REDIRECTS_MAX} redirects")))
}

/// The first address of a `name:port`; it may block for as long as it likes.
type Resolver = fn(&str) -> io::Result<Option<SocketAddr>>;

/// The system's.
fn system(named: &str) -> io::Result<Option<SocketAddr>> {
    Ok(named.to_socket_addrs()?.next())
}

/// Look-ups that have not ended.
pub(super) static LOOKUPS: AtomicUsize = AtomicUsize::new(0);

/// The address of `named`, which is looked up on a thread of its own: the system's resolver has no deadline,
/// and its own time is longer than a check has.
fn look_up(named: &str, deadline: Instant, resolver: Resolver) -> io::Result<Option<SocketAddr>> {
    if let Ok(known) = named.parse() {
        return Ok(Some(known));
    }
    if LOOKUPS.fetch_add(1, Ordering::Relaxed) >= LOOKUPS_MAX {
        LOOKUPS.fetch_sub(1, Ordering::Relaxed);
        // Nothing was waited for: this is no timeout.
        return Err(io::Error::other(format!(
            "{named} is not looked up: {LOOKUPS_MAX} look-ups before it go on still; see to the resolver, or \
             redirect to an address"
        )));
    }
    let (told, hears) = sync_channel(1);
    let name = named.to_owned();
    let asks = move || {
        // Whoever asked may not wait any more.
        let _ = told.send(resolver(&name));
        LOOKUPS.fetch_sub(1, Ordering::Relaxed);
    };
    if let Err(err) = thread::Builder::new().spawn(asks) {
        LOOKUPS.fetch_sub(1, Ordering::Relaxed);
        return Err(err);
    }
    match hears.recv_timeout(left(deadline)?) {
        Ok(found) => found,
        Err(RecvTimeoutError::Timeout) => Err(io::ErrorKind::TimedOut.into()),
        Err(RecvTimeoutError::Disconnected) => Err(io::Error::other("the look-up broke off")),
    }
}

/// Where a request goes.
struct Place {
    to: SocketAddr,
    host: String,
    target: String,
}

impl Place {
    /// The place that a redirect leads to.
    fn follow(&self, aim: Aim, deadline: Instant, resolver: Resolver) -> io::Result<Place> {
        let Aim { server, target } = aim;
        match server {
            None => Ok(Place { to: self.to, host: self.host.clone(), target }),
            Some((scheme, host)) if scheme == "http" => {
                let named = if host.contains(':') { host.clone() } else { format!("{host}:80") };
                let to = look_up(&named, deadline, resolver)?;
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
