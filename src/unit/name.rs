//! Names that become parts of paths, links and URLs, and so are checked before anything else.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// A name that breaks the rule; the text says which rule and shows the name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadName(String);

impl fmt::Display for BadName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for BadName {}

/// Letters a-z, digits and inner hyphens, 1 to `max` long: safe as file name and host name.
fn check(what: &str, text: &str, max: usize) -> Result<(), BadName> {
    let fail = |why: &str| Err(BadName(format!("{what} name `{}` {why}", text.escape_default())));
    if text.is_empty() || text.len() > max {
        return fail(&format!("must be 1 to {max} characters long"));
    }
    if !text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-') {
        return fail("may hold only a-z, 0-9 and `-`");
    }
    if text.starts_with('-') || text.ends_with('-') {
        return fail("must begin and end with a letter or digit");
    }
    Ok(())
}

macro_rules! checked_name {
    ($(#[$doc:meta])* $name:ident, $what:literal, $max:literal) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = BadName;
            fn from_str(text: &str) -> Result<$name, BadName> {
                check($what, text, $max).map(|()| $name(text.to_owned()))
            }
        }

        impl TryFrom<String> for $name {
            type Error = BadName;
            fn try_from(text: String) -> Result<$name, BadName> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
    };
}

checked_name!(
    /// The name of an app on this box, 1 to 40 characters: `orders`.
    AppName, "app", 40
);
checked_name!(
    /// The name of one container in the depot, 1 to 63 characters: `orders-0-3f2a91`.
    Handle, "container", 63
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_safe_as_paths_and_hosts() {
        for good in ["a", "web", "a-1", "0"] {
            assert!(good.parse::<AppName>().is_ok(), "{good}");
        }
        for bad in ["", "-a", "a-", "A", "a_b", "a/b", "..", "a b", "é", &"a".repeat(41)] {
            assert!(bad.parse::<AppName>().is_err(), "{bad}");
        }
        assert!("a".repeat(63).parse::<Handle>().is_ok());
        assert!("a".repeat(64).parse::<Handle>().is_err());
    }

    #[test]
    fn a_name_from_json_is_checked_too() {
        assert!(serde_json::from_str::<AppName>("\"../etc\"").is_err());
    }
}
