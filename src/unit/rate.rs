//! Bytes in a second, written as `16KiB/s`, or `none` for as many as there are.

use super::Bytes;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// How much may come in a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum Rate {
    /// All there is; `none`.
    Unlimited,
    /// So many bytes, `0B/s` being nothing at all.
    Bytes(Bytes),
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Rate::Unlimited => f.write_str("none"),
            Rate::Bytes(bytes) => write!(f, "{bytes}/s"),
        }
    }
}

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Rate, String> {
        match (text, text.strip_suffix("/s")) {
            ("none", _) => Ok(Rate::Unlimited),
            (_, Some(bytes)) => bytes.parse().map(Rate::Bytes),
            _ => Err(format!("`{text}` is not a rate; write \"16KiB/s\" or \"none\"")),
        }
    }
}

impl From<Rate> for String {
    fn from(rate: Rate) -> String {
        rate.to_string()
    }
}

impl TryFrom<String> for Rate {
    type Error = String;

    fn try_from(text: String) -> Result<Rate, String> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_rate_are_inverse_and_mistakes_name_the_cure() {
        for text in ["none", "0B/s", "16KiB/s", "1MiB/s"] {
            let rate: Rate = text.parse().expect(text);
            assert_eq!(rate.to_string(), text);
            let json = serde_json::to_string(&rate).expect("JSON");
            assert_eq!(json, format!("\"{text}\""));
            assert_eq!(serde_json::from_str::<Rate>(&json).expect("JSON"), rate);
        }
        for (text, cure) in [
            ("16KiB", "; write \"16KiB/s\""),
            ("", "\"none\""),
            ("16/s", "has no unit"),
            ("16KB/s", "; write \"16KiB\""),
            ("-1", "\"none\""),
        ] {
            let err = text.parse::<Rate>().expect_err(text);
            assert!(err.contains(cure), "{text}: {err}");
        }
    }
}
