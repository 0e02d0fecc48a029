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
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

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

/// A person reads what is printed, between the lines of a command.
static PERSON: AtomicBool = AtomicBool::new(false);

/// From now on events look like what a command says: `terrarium: warning: event key=value`.
pub fn speak_to_person() {
    PERSON.store(true, Ordering::Relaxed);
}

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
    let prefix = prefix(level, PERSON.load(Ordering::Relaxed), stderr.is_terminal());
    // A closed stderr must not end the daemon; there is nobody left to tell.
    let _ = stderr.lock().write_all(line(&prefix, name, pairs).as_bytes());
}

/// What stands before the event.
fn prefix(level: Level, to_person: bool, terminal: bool) -> String {
    match (to_person, level) {
        (true, Level::Error) => "terrarium: error: ".to_owned(),
        (true, Level::Warn) => "terrarium: warning: ".to_owned(),
        (true, Level::Info) => "terrarium: ".to_owned(),
        (false, _) if terminal => String::new(),
        (false, _) => format!("<{}>", level as u8),
    }
}

/// The text of one event, with its newline.
fn line(prefix: &str, name: &str, pairs: &[(&str, &dyn fmt::Display)]) -> String {
    let mut out = format!("{prefix}{name}");
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
            &prefix(Level::Info, false, false),
            "container.created",
            &[("handle", &"web-0"), ("took_ms", &41), ("err", &"a b\nc"), ("app", &"")],
        );
        assert_eq!(text, "<6>container.created handle=web-0 took_ms=41 err=\"a b\\nc\" app=\"\"\n");
    }

    #[test]
    fn a_person_is_not_shown_the_numbers_of_syslog() {
        assert_eq!(prefix(Level::Warn, true, false), "terrarium: warning: ");
        assert_eq!(prefix(Level::Error, true, true), "terrarium: error: ");
        assert_eq!(prefix(Level::Warn, false, true), "");
    }
}
