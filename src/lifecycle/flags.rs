//! Command lines in the style of Go's `flag`, which Diego's recipes write.
//!
//! `-name value`, `-name=value`, `--name=value`; a switch is `-name` or `-name=false`. What is no
//! flag is refused: none of our roles with flags takes anything else.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::Duration;

/// One flag of a role.
#[derive(Clone, Copy, Debug)]
pub(super) struct Flag {
    /// Name without hyphens.
    pub name: &'static str,
    /// Value when it is not given.
    pub default: &'static str,
    /// For the usage text.
    pub help: &'static str,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Text,
    Switch,
    Span,
    Port,
}

impl Flag {
    pub(super) const fn text(
        name: &'static str,
        default: &'static str,
        help: &'static str,
    ) -> Flag {
        Flag { name, default, help, kind: Kind::Text }
    }

    /// A switch, off when not given.
    pub(super) const fn switch(name: &'static str, help: &'static str) -> Flag {
        Flag { name, default: "false", help, kind: Kind::Switch }
    }

    pub(super) const fn span(
        name: &'static str,
        default: &'static str,
        help: &'static str,
    ) -> Flag {
        Flag { name, default, help, kind: Kind::Span }
    }

    pub(super) const fn port(
        name: &'static str,
        default: &'static str,
        help: &'static str,
    ) -> Flag {
        Flag { name, default, help, kind: Kind::Port }
    }
}

/// A command line that fits its table.
#[derive(Debug)]
pub(super) struct Flags {
    values: BTreeMap<&'static str, OsString>,
}

impl Flags {
    /// Reads `args`. An error is printed with the usage, and its exit code returned.
    pub(super) fn parse(role: &str, table: &[Flag], args: &[OsString]) -> Result<Flags, u8> {
        read(table, args).map_err(|why| {
            complain!("{why}\n{}", usage(role, table));
            1
        })
    }

    /// The value as bytes that are a path.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.value(name).into()
    }

    /// The value as text.
    pub(super) fn text(&self, name: &str) -> String {
        self.value(name).to_string_lossy().into_owned()
    }

    /// Whether a switch is on.
    pub(super) fn is_on(&self, name: &str) -> bool {
        truth(&self.text(name)).unwrap_or(false)
    }

    /// The value as a time.
    pub(super) fn span(&self, name: &str) -> Duration {
        go_duration(&self.text(name)).unwrap_or_default()
    }

    /// The value as a port.
    pub(super) fn port(&self, name: &str) -> u16 {
        self.text(name).parse().unwrap_or_default()
    }

    fn value(&self, name: &str) -> &OsStr {
        self.values.get(name).expect("the name is in the role's table")
    }
}

/// The text that explains `table`.
pub(super) fn usage(role: &str, table: &[Flag]) -> String {
    let mut text = format!("Usage of {role}:");
    for flag in table {
        let default = match flag.default {
            "" | "false" => String::new(),
            value => format!(" (default {value})"),
        };
        text.push_str(&format!("\n  -{}\n    \t{}{default}", flag.name, flag.help));
    }
    text
}

fn read(table: &[Flag], args: &[OsString]) -> Result<Flags, String> {
    let mut values: BTreeMap<_, _> =
        table.iter().map(|flag| (flag.name, OsString::from(flag.default))).collect();
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        let bytes = arg.as_bytes();
        let body = match bytes {
            [b'-', b'-', body @ ..] | [b'-', body @ ..] if !body.is_empty() => body,
            _ => return Err(format!("unexpected argument: {}", arg.to_string_lossy())),
        };
        let (name, given) = match body.iter().position(|byte| *byte == b'=') {
            Some(at) => (&body[..at], Some(OsStr::from_bytes(&body[at + 1..]).to_owned())),
            None => (body, None),
        };
        let shown = String::from_utf8_lossy(name);
        let Some(flag) = table.iter().find(|flag| flag.name.as_bytes() == name) else {
            return Err(format!("flag provided but not defined: -{shown}"));
        };
        let value = match (given, flag.kind) {
            (Some(value), _) => value,
            (None, Kind::Switch) => "true".into(),
            (None, _) => {
                args.next().cloned().ok_or_else(|| format!("flag needs an argument: -{shown}"))?
            }
        };
        check(flag, &value)?;
        values.insert(flag.name, value);
    }
    Ok(Flags { values })
}

fn check(flag: &Flag, value: &OsStr) -> Result<(), String> {
    let text = value.to_string_lossy();
    let (fits, want) = match flag.kind {
        Kind::Text => (true, ""),
        Kind::Switch => (truth(&text).is_some(), "true or false"),
        Kind::Span => (go_duration(&text).is_some(), "a time such as 1s or 500ms"),
        Kind::Port => (text.parse::<u16>().is_ok_and(|port| port > 0), "a port, 1 to 65535"),
    };
    match fits {
        true => Ok(()),
        false => Err(format!("invalid value \"{text}\" for flag -{}: want {want}", flag.name)),
    }
}

fn truth(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// Go's text of a time: `0`, `1m0s`, `1.5s`, `250ms`. Not below zero.
fn go_duration(text: &str) -> Option<Duration> {
    const UNITS: [(&str, f64); 7] = [
        ("ns", 1e-9),
        ("us", 1e-6),
        ("µs", 1e-6),
        ("ms", 1e-3),
        ("s", 1.0),
        ("m", 60.0),
        ("h", 3600.0),
    ];
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Some(Duration::ZERO);
    }
    let mut total = Duration::ZERO;
    while !rest.is_empty() || text.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let letters = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let (_, factor) = UNITS.into_iter().find(|(name, _)| *name == &rest[..letters])?;
        total = total.checked_add(Duration::try_from_secs_f64(number * factor).ok()?)?;
        rest = &rest[letters..];
    }
    Some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &[Flag] = &[
        Flag::text("dir", "/tmp", "d"),
        Flag::switch("skip", "s"),
        Flag::span("wait", "1s", "w"),
        Flag::port("port", "8080", "p"),
    ];

    fn parse(args: &[&str]) -> Result<Flags, String> {
        read(TABLE, &args.iter().map(OsString::from).collect::<Vec<_>>())
    }

    #[test]
    fn every_form_that_go_takes_is_taken() {
        for args in [
            &["-dir", "/x", "-skip", "-wait=2s", "--port=1"][..],
            &["--dir=/x", "--skip=true", "-wait", "2000ms", "-port", "1"],
            &["-dir=/y", "-dir=/x", "-skip=0", "-skip=t", "-wait=0.5s1.5s", "-port=1"],
        ] {
            let flags = parse(args).expect("fits");
            assert_eq!(flags.path("dir"), PathBuf::from("/x"), "{args:?}");
            assert!(flags.is_on("skip"));
            assert_eq!(flags.span("wait"), Duration::from_secs(2));
            assert_eq!(flags.port("port"), 1);
        }
        let none = parse(&[]).expect("defaults");
        assert_eq!((none.text("dir").as_str(), none.is_on("skip")), ("/tmp", false));
        assert_eq!(parse(&["-dir="]).expect("empty").text("dir"), "");
    }

    #[test]
    fn what_does_not_fit_is_named() {
        for (args, why) in [
            (&["-nope"][..], "not defined: -nope"),
            (&["a"], "unexpected argument: a"),
            (&["-skip", "false"], "unexpected argument: false"),
            (&["-"], "unexpected argument: -"),
            (&["-dir"], "needs an argument: -dir"),
            (&["-skip=maybe"], "\"maybe\" for flag -skip"),
            (&["-wait=5"], "a time such as"),
            (&["-wait="], "a time such as"),
            (&["-wait=-1s"], "a time such as"),
            (&["-wait=1.2.3s"], "a time such as"),
            (&["-wait=99999999999999999999h"], "a time such as"),
            (&["-port=0"], "1 to 65535"),
            (&["-port=65536"], "1 to 65535"),
        ] {
            let err = parse(args).expect_err(why);
            assert!(err.contains(why), "{args:?}: {err}");
        }
    }

    #[test]
    fn times_are_go_s() {
        for (text, ms) in [("0", 0), ("0s", 0), ("1m0s", 60_000), ("1h", 3_600_000), ("1us", 0)] {
            assert_eq!(go_duration(text).map(|t| t.as_millis()), Some(ms), "{text}");
        }
    }
}
