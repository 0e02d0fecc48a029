//! Events of the daemon itself: one line each, logfmt on stderr, as journald likes it.
//!
//! Owns: the line format and the list of keys. App output never comes through here.
//! Must not: decide anything; fail; block on anything but stderr.
//! Called by: every room. Calls: nothing.
//! Entry points: [`crate::info!`], [`crate::warn!`], [`crate::error!`].
//!
//! `info!("container.created", handle = h, took_ms = t)` prints
//! `<6>container.created handle=web-0-3f2a took_ms=41`: the syslog level for journald, a constant
//! event, then `key=value` pairs. A terminal gets no level prefix.

use std::fmt::{self, Write as _};
use std::io::{IsTerminal, Write as _};
use std::sync::atomic::{AtomicU8, Ordering};

/// How bad it is, with the number that syslog gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// A person must act.
    Error = 3,
    /// We mended something.
    Warn = 4,
    /// A promise changed state.
    Info = 6,
}

/// Events with a higher syslog number are not printed; 6 prints all.
static LIMIT: AtomicU8 = AtomicU8::new(6);

/// Prints only events at least as bad as `level`.
pub fn set_limit(level: Level) {
    LIMIT.store(level as u8, Ordering::Relaxed);
}

/// Writes one event. Use the macros.
pub fn event(level: Level, name: &str, pairs: &[(&str, &dyn fmt::Display)]) {
    if level as u8 > LIMIT.load(Ordering::Relaxed) {
        return;
    }
    let stderr = std::io::stderr();
    let prefix = if stderr.is_terminal() { None } else { Some(level) };
    // A closed stderr must not end the daemon; there is nobody left to tell.
    let _ = stderr.lock().write_all(line(prefix, name, pairs).as_bytes());
}

/// The text of one event, with its newline.
fn line(level: Option<Level>, name: &str, pairs: &[(&str, &dyn fmt::Display)]) -> String {
    let mut out = match level {
        Some(level) => format!("<{}>{name}", level as u8),
        None => name.to_owned(),
    };
    for (key, value) in pairs {
        let value = value.to_string();
        let plain = !value.is_empty()
            && value.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'"' | b'=' | b'\\'));
        let _ = match plain {
            true => write!(out, " {key}={value}"),
            false => write!(out, " {key}={value:?}"),
        };
    }
    out.push('\n');
    out
}

/// Error and all its causes in one line: `cannot make x: permission denied`.
pub fn chain(err: &dyn std::error::Error) -> String {
    let mut text = err.to_string();
    let mut cause = err.source();
    while let Some(next) = cause {
        let _ = write!(text, ": {next}");
        cause = next.source();
    }
    text
}

/// A promise changed state.
#[macro_export]
macro_rules! info {
    ($name:literal $(, $key:ident = $value:expr)* $(,)?) => {
        $crate::log::event($crate::log::Level::Info, $name, &[$((stringify!($key), &$value)),*])
    };
}

/// We mended something.
#[macro_export]
macro_rules! warn {
    ($name:literal $(, $key:ident = $value:expr)* $(,)?) => {
        $crate::log::event($crate::log::Level::Warn, $name, &[$((stringify!($key), &$value)),*])
    };
}

/// A person must act.
#[macro_export]
macro_rules! error {
    ($name:literal $(, $key:ident = $value:expr)* $(,)?) => {
        $crate::log::event($crate::log::Level::Error, $name, &[$((stringify!($key), &$value)),*])
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_with_spaces_or_newlines_stay_on_one_line() {
        let text = line(
            Some(Level::Info),
            "container.created",
            &[("handle", &"web-0"), ("took_ms", &41), ("err", &"a b\nc"), ("app", &"")],
        );
        assert_eq!(text, "<6>container.created handle=web-0 took_ms=41 err=\"a b\\nc\" app=\"\"\n");
    }
}
