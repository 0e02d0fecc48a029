//! Why a registry did not give what was asked for.

use std::error::Error;
use std::fmt;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

/// What can be done about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Asking again may help: the network, an overloaded server.
    Passing,
    /// Credentials are missing, wrong, or do not suffice.
    Denied,
    /// There is no such thing.
    Missing,
    /// What came is not what was asked for, or cannot be used. Asking again does not help.
    Wrong,
    /// What came is not what its digest says, to the last byte. What was kept of it is forgotten, and
    /// asking once more from the beginning may help.
    Mismatch,
    /// Who answers cannot prove that he is the registry.
    Untrusted,
    /// The box's own fault: settings, files, a full disk.
    Here,
}

/// A request that failed; the text says what was asked for, why it failed, and the cure if we know
/// one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What can be done.
    pub kind: Kind,
    /// For people. Never holds a secret or a control character.
    pub text: String,
    /// The pause that the server asked for.
    pub after: Option<Duration>,
    /// Nobody answered: there was no connection, or none with TLS.
    pub is_unreached: bool,
}

impl Failure {
    /// One of this kind.
    pub fn new(kind: Kind, text: impl Into<String>) -> Failure {
        Failure { kind, text: text.into(), after: None, is_unreached: false }
    }

    /// The network, or the server, at this moment.
    pub fn passing(text: impl Into<String>) -> Failure {
        Failure::new(Kind::Passing, text)
    }

    /// The same, after another way to the same server was tried as well.
    #[must_use]
    pub fn and(self, other: &Failure) -> Failure {
        Failure { text: format!("{}; {}", self.text, other.text), ..self }
    }

    /// How long to wait before asking again, after so many failures in a row; `None`: give up. Boxes
    /// that failed together, of one image and with the same numbers of everything, part by it.
    pub fn pause(&self, failed: u32) -> Option<Duration> {
        super::backoff::pause(failed, self.kind, self.after, chance())
    }

    /// Something that must not be taken.
    pub fn wrong(text: impl Into<String>) -> Failure {
        Failure::new(Kind::Wrong, text)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Error for Failure {}

/// Any number: the kernel seeds it for each process, and each call has another.
fn chance() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// Somebody else's words, fit for a terminal and not longer than a line or two.
pub fn clean(words: &str) -> String {
    const MOST: usize = 200;
    let words = words.trim();
    let mut text: String = words.chars().take(MOST).flat_map(char::escape_debug).collect();
    if words.chars().nth(MOST).is_some() {
        text.push_str("...");
    }
    text.replace("\\\"", "\"").replace("\\'", "'")
}

/// What the body of a refusal says, in the two forms of registries or as plain text.
pub fn reason(body: &[u8]) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Body {
        #[serde(default)]
        errors: Vec<One>,
        error: Option<String>,
    }
    #[derive(serde::Deserialize)]
    struct One {
        #[serde(default)]
        code: String,
        #[serde(default)]
        message: String,
    }
    if let Ok(Body { errors, error }) = serde_json::from_slice(body) {
        let said = |one: One| match (one.code.as_str(), one.message.as_str()) {
            ("", message) => message.to_owned(),
            (code, "") => code.to_owned(),
            (code, message) => format!("{code}: {message}"),
        };
        let all: Vec<String> = errors.into_iter().take(4).map(said).chain(error).collect();
        return (!all.is_empty()).then(|| clean(&all.join("; ")));
    }
    let text = String::from_utf8_lossy(body);
    // A page for a browser says nothing to a reader of errors.
    let is_page = text.trim_start().starts_with('<');
    (!is_page && !text.trim().is_empty()).then(|| clean(&text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn pauses_of_those_who_failed_together_differ() {
        let pauses: BTreeSet<_> = (0..32).map(|_| Failure::passing("busy").pause(1)).collect();
        assert!(pauses.len() > 1, "{pauses:?}");
    }

    #[test]
    fn refusals_are_told_in_the_servers_words() {
        let v2 = br#"{"errors":[{"code":"DENIED","message":"no \u001b[31mpull"},{"code":"X"}]}"#;
        assert_eq!(reason(v2).as_deref(), Some(r"DENIED: no \u{1b}[31mpull; X"));
        assert_eq!(reason(br#"{"error":"Image not found"}"#).as_deref(), Some("Image not found"));
        assert_eq!(reason(b"too \"busy\"\n").as_deref(), Some("too \"busy\""));
        assert_eq!(reason(b"<html>502</html>"), None);
        assert_eq!(reason(b" "), None);
        assert_eq!(reason(b"{}"), None);
        assert!(reason(&[b'a'; 100_000]).expect("text").len() < 300);
    }
}
