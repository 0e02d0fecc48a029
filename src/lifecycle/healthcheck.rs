//! `healthcheck`: asks the app in this container, by TCP or HTTP, once or until something changes.

pub mod answer;
mod http;

use super::flags::{Flag, Flags};
use crate::sys::ifaddr;
use crate::unit::span;
use std::ffi::OsString;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

const FLAGS: &[Flag] = &[
    Flag::text("network", "tcp", "network type, tcp"),
    Flag::text("uri", "", "path to ask by HTTP; without it a TCP connection is made"),
    Flag::port("port", "8080", "port of the app"),
    Flag::span("timeout", "1s", "how long one check may take"),
    Flag::span("startup-interval", "0s", "check at this interval until one succeeds"),
    Flag::span("startup-timeout", "60s", "how long that may take; 0: for ever"),
    Flag::span("liveness-interval", "0s", "check at this interval until one fails"),
    Flag::span("readiness-interval", "0s", "check at this interval until one fails"),
    Flag::span("until-ready-interval", "0s", "check at this interval until one succeeds, for ever"),
];

/// The role: exit codes 0, 3, 4, 5, 6, 64, 65 as [`Failure::code`] gives them, 127 for a network that is none.
pub(super) fn run(args: &[OsString]) -> Result<(), u8> {
    let flags = Flags::parse("healthcheck", FLAGS, args)?;
    if !matches!(flags.text("network").as_str(), "tcp" | "tcp4") {
        complain!("network {} is not supported; use tcp", flags.text("network"));
        return Err(127);
    }
    let check =
        Check { uri: flags.text("uri"), port: flags.port("port"), timeout: flags.span("timeout") };
    let once = || match own_address() {
        Some(ip) => check.once(ip),
        None => Err(Failure::NoInterface),
    };
    judge(&flags, once).map_err(|(code, text)| {
        complain!("{text}");
        code
    })
}

/// Checks once, or as often as the flags say.
fn judge(flags: &Flags, once: impl Fn() -> Result<(), Failure>) -> Verdict {
    let span = |name: &str| Some(flags.span(name)).filter(|every| !every.is_zero());
    if let Some(every) = span("startup-interval") {
        until_success(every, span("startup-timeout"), once)
    } else if let Some(every) = span("until-ready-interval") {
        until_success(every, None, once)
    } else if let Some(every) = span("liveness-interval") {
        until_failure(every, "Liveness", once)
    } else if let Some(every) = span("readiness-interval") {
        until_failure(every, "Readiness", once)
    } else {
        once().map_err(|failure| (failure.code(), failure.text()))
    }
}

/// The first address of the container that others can reach.
fn own_address() -> Option<Ipv4Addr> {
    ifaddr::ipv4_beyond_loopback().ok()?.first().copied()
}

/// A failure's exit code and the text for stderr.
type Verdict = Result<(), (u8, String)>;

fn until_success(
    every: Duration,
    limit: Option<Duration>,
    once: impl Fn() -> Result<(), Failure>,
) -> Verdict {
    let start = Instant::now();
    let mut attempts = 0u64;
    loop {
        attempts += 1;
        let Err(failure) = once() else { return Ok(()) };
        let left = limit.map(|limit| limit.saturating_sub(start.elapsed()));
        // No event: this is the interval between two tries.
        std::thread::sleep(left.map_or(every, |left| left.min(every)));
        if let (Some(limit), true) = (limit, left.is_some_and(|left| left <= every)) {
            let (limit, text) = (span::show_go(limit), failure.text());
            let text = format!(
                "Timed out after {limit} ({attempts} attempts) waiting for startup check to succeed: {text}"
            );
            return Err((failure.code(), text));
        }
    }
}

fn until_failure(every: Duration, what: &str, once: impl Fn() -> Result<(), Failure>) -> Verdict {
    loop {
        if let Err(failure) = once() {
            return Err((failure.code(), format!("{what} check unsuccessful: {}", failure.text())));
        }
        // No event: this is the interval between two tries.
        std::thread::sleep(every);
    }
}

/// What is asked.
#[derive(Clone, Debug)]
struct Check {
    uri: String,
    port: u16,
    timeout: Duration,
}

impl Check {
    /// One check of the app at `ip`.
    fn once(&self, ip: Ipv4Addr) -> Result<(), Failure> {
        let start = Instant::now();
        let deadline = start + self.timeout;
        let to = SocketAddr::from((ip, self.port));
        if self.uri.is_empty() {
            let connected = TcpStream::connect_timeout(&to, self.timeout.max(SHORTEST));
            return connected.map(drop).map_err(|err| self.unconnected(to, &err));
        }
        let fail = |kind| Failure::Http { uri: self.uri.clone(), port: self.port, kind };
        match http::status(to, &self.uri, deadline) {
            Ok(200) => Ok(()),
            Ok(code) => {
                Err(fail(HttpFailure::Status { code, took_ms: start.elapsed().as_millis() }))
            }
            Err(err) if is_timeout(&err) => Err(fail(HttpFailure::Timeout(self.timeout))),
            Err(err) if err.kind() == io::ErrorKind::InvalidInput => {
                Err(fail(HttpFailure::Request(err.to_string())))
            }
            Err(err) => Err(fail(HttpFailure::Transport(reason(&err)))),
        }
    }

    /// There was no connection.
    fn unconnected(&self, to: SocketAddr, err: &io::Error) -> Failure {
        match is_timeout(err) {
            true => Failure::TcpTimeout { to, after: self.timeout },
            false => Failure::Tcp { to, why: reason(err) },
        }
    }
}

/// Connecting takes no timeout of zero.
const SHORTEST: Duration = Duration::from_millis(1);

/// Why a check did not succeed.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Failure {
    NoInterface,
    Tcp { to: SocketAddr, why: String },
    TcpTimeout { to: SocketAddr, after: Duration },
    Http { uri: String, port: u16, kind: HttpFailure },
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum HttpFailure {
    Transport(String),
    Timeout(Duration),
    Status { code: u16, took_ms: u128 },
    Request(String),
}

impl Failure {
    /// The exit code that Diego gives this failure.
    fn code(&self) -> u8 {
        match self {
            Failure::NoInterface => 3,
            Failure::Tcp { .. } => 4,
            Failure::TcpTimeout { .. } => 64,
            Failure::Http { kind: HttpFailure::Transport(_), .. } => 5,
            Failure::Http { kind: HttpFailure::Timeout(_), .. } => 65,
            Failure::Http {
                kind: HttpFailure::Status { .. } | HttpFailure::Request(_), ..
            } => 6,
        }
    }

    /// The text that Diego prints, and its users search for.
    fn text(&self) -> String {
        match self {
            Failure::NoInterface => "failure to find suitable interface".into(),
            Failure::Tcp { to, why } => format!("failed to make TCP connection to {to}: {why}"),
            Failure::TcpTimeout { to, after } => format!(
                "failed to make TCP connection to {to}: timed out after {:.2} seconds",
                after.as_secs_f64()
            ),
            Failure::Http { uri, port, kind } => {
                format!("failed to make HTTP request to '{uri}' on port {port}: {}", kind.text())
            }
        }
    }
}

impl HttpFailure {
    fn text(&self) -> String {
        match self {
            HttpFailure::Transport(why) | HttpFailure::Request(why) => why.clone(),
            HttpFailure::Timeout(after) => {
                format!("timed out after {:.2} seconds", after.as_secs_f64())
            }
            HttpFailure::Status { code, took_ms } => {
                format!("received status code {code} in {took_ms}ms")
            }
        }
    }
}

/// A socket's own timeout reads as "would block".
fn is_timeout(err: &io::Error) -> bool {
    matches!(err.kind(), io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock)
}

/// The reason without the system's number: `connection refused`.
pub fn reason(err: &io::Error) -> String {
    let text = err.to_string();
    if err.raw_os_error().is_none() {
        return text;
    }
    let text = text.split(" (os error").next().unwrap_or(&text);
    let mut chars = text.chars();
    chars.next().map(|first| first.to_lowercase().chain(chars).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests;
