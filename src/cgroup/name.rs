//! What a group is called below our parent: a container by its handle, a pea after its container.

use super::CgroupError;
use crate::unit::Handle;
use std::fmt;

/// What follows the container's handle, which has no dot: before a pea's own name, or alone.
const PEA: &str = ".pea-";
const PEAS: &str = ".peas";

/// Longest name of a pea; with the rest before it, it is a file name still.
const PEA_MAX: usize = 128;

/// The name of one group's directories.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Name {
    /// `<handle>`
    Container(Handle),
    /// `<handle>.pea-<pea>`: beside the container's, so that its limits do not cover the pea.
    Pea(Handle, String),
    /// `<handle>.peas`, an empty group: the container has had a pea, so it is worth while to read
    /// through all groups for them. That takes a millisecond when there are hundreds, and most
    /// containers never have any.
    Sign(Handle),
}

impl Name {
    /// The group of one pea. Errors: [`CgroupError::Pea`] when `pea` is no plain file name.
    pub fn pea(handle: &Handle, pea: &str) -> Result<Name, CgroupError> {
        match is_plain(pea, PEA_MAX) {
            true => Ok(Name::Pea(handle.clone(), pea.to_owned())),
            false => Err(CgroupError::Pea { name: pea.to_owned() }),
        }
    }

    /// What a directory is called, read back; `None`: it is not ours.
    pub fn parse(dir: &str) -> Option<Name> {
        if let Some(handle) = dir.strip_suffix(PEAS) {
            // Or else the end of a pea's own name.
            if let Ok(handle) = handle.parse() {
                return Some(Name::Sign(handle));
            }
        }
        match dir.split_once(PEA) {
            Some((handle, pea)) => Name::pea(&handle.parse().ok()?, pea).ok(),
            None => dir.parse().ok().map(Name::Container),
        }
    }

    /// The container that it belongs to.
    pub fn handle(&self) -> &Handle {
        match self {
            Name::Container(handle) | Name::Pea(handle, _) | Name::Sign(handle) => handle,
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Name::Container(handle) => handle.fmt(f),
            Name::Pea(handle, pea) => write!(f, "{handle}{PEA}{pea}"),
            Name::Sign(handle) => write!(f, "{handle}{PEAS}"),
        }
    }
}

/// A plain file name that is no option and no hidden file: letters, digits, `-`, `_`, inner `.`.
pub fn is_plain(name: &str, max: usize) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    (1..=max).contains(&name.len())
        && name.bytes().all(plain)
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && !name.ends_with('.')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn handle(text: &str) -> Handle {
        text.parse().expect("handle")
    }

    #[test]
    fn a_name_is_read_back_as_it_was_written() {
        for pea in ["p", "Some_id-1.x", "a.pea-b", "a.peas", &"a".repeat(PEA_MAX)] {
            let name = Name::pea(&handle("web-0"), pea).expect("plain");
            assert_eq!(Name::parse(&name.to_string()), Some(name), "{pea}");
        }
        let longest = Name::pea(&handle(&"h".repeat(63)), &"a".repeat(PEA_MAX)).expect("plain");
        assert!(longest.to_string().len() <= 255, "a file name");
        for name in [Name::Container(handle("web-0")), Name::Sign(handle("web-0"))] {
            assert_eq!(Name::parse(&name.to_string()), Some(name));
        }
    }

    #[test]
    fn what_is_not_ours_has_no_name() {
        for dir in [
            "",
            "web-0.service",
            "web-0.pea-",
            "web-0.pea-/",
            ".pea-a",
            "W.pea-a",
            ".peas",
            "W.peas",
        ] {
            assert_eq!(Name::parse(dir), None, "{dir}");
        }
    }

    #[test]
    fn a_pea_that_would_lead_elsewhere_is_refused() {
        for bad in ["", ".", "..", "a/b", "/a", ".a", "-a", "a.", "a b", "a\n", "é"] {
            let err = Name::pea(&handle("web-0"), bad).expect_err(bad);
            assert!(matches!(err, CgroupError::Pea { .. }), "{err}");
        }
        assert!(Name::pea(&handle("web-0"), &"a".repeat(PEA_MAX + 1)).is_err());
    }
}
