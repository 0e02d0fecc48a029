//! PAX records of an entry: times with fractions, extended attributes.

use super::Rules;
use crate::sys::file::{self, FileTime};
use crate::unit::sparse::SparseRecords;
use std::ffi::CString;
use std::io::{self, Read};
use std::os::fd::AsFd;
use tar::Entry;

/// What PAX records say of an entry beyond what the crate takes from them.
#[derive(Default)]
pub(super) struct Records {
    /// Extended attributes: name and value.
    pub(super) attributes: Vec<(CString, Vec<u8>)>,
    /// Last change, with its fraction.
    pub(super) time: Option<FileTime>,
    /// Its holes.
    pub(super) sparse: SparseRecords,
}

/// The records of an entry.
pub(super) fn records(entry: &mut Entry<impl Read>) -> io::Result<Records> {
    let mut found = Records::default();
    // A record that is malformed is one that we do not understand.
    for record in entry.pax_extensions()?.into_iter().flatten().flatten() {
        let Ok(key) = record.key() else { continue };
        if let Some(key) = key.strip_prefix("GNU.sparse.") {
            let taken = found.sparse.take(key.as_bytes(), record.value_bytes());
            taken.map_err(|why| io::Error::new(io::ErrorKind::InvalidData, format!("it {why}")))?;
        }
        if key == "mtime" {
            found.time = record.value().ok().and_then(time);
        }
        if let Some(name) = key.strip_prefix("SCHILY.xattr.")
            && let Ok(name) = CString::new(name)
        {
            found.attributes.push((name, record.value_bytes().to_vec()));
        }
    }
    Ok(found)
}

/// Seconds since 1970 with a fraction, as PAX writes them: `1700000000.25`.
fn time(text: &str) -> Option<FileTime> {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let digits: String = part.chars().chain("000000000".chars()).take(9).collect();
    let seconds = whole.parse().ok().filter(|seconds| *seconds >= 0)?;
    Some(FileTime { seconds, nanos: digits.parse().ok()? })
}

/// Sets the attributes that the user may set here; of an app's own bits only those that are a user's: root
/// could set others, too, such as what a program may do whoever runs it.
pub(super) fn keep(file: impl AsFd, records: &Records, rules: Rules) {
    let is_kept = |name: &CString| rules != Rules::App || name.as_bytes().starts_with(b"user.");
    for (name, value) in records.attributes.iter().filter(|(name, _)| is_kept(name)) {
        // Not allowed, or not known to the file system: tar goes on without it, too.
        let _ = file::set_xattr(file.as_fd(), name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The daemon unpacks sources as root, who may set what tells the kernel to trust a program.
    #[test]
    fn of_an_app_s_bits_only_attributes_of_users_are_kept() {
        let path = std::env::temp_dir().join(format!("terrarium-keep-{}", std::process::id()));
        let names = [c"user.note", c"security.capability", c"trusted.overlay.opaque"];
        let value = b"\x01\0\0\x02\0\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0".to_vec();
        let attributes = names.map(|name| (name.to_owned(), value.clone())).into();
        let records = Records { attributes, ..Records::default() };
        let kept = |rules| {
            let file = std::fs::File::create(&path).expect("file");
            keep(&file, &records, rules);
            std::fs::remove_file(&path).expect("remove");
            let found = file::xattr_names(file.as_fd()).unwrap_or_default();
            names.map(|name| found.iter().any(|it| it == name.to_bytes()))
        };
        let tar = kept(Rules::Tar { umask: 0 });
        assert_eq!(kept(Rules::App), [tar[0], false, false], "of {tar:?}");
    }

    #[test]
    fn times_have_fractions() {
        for (text, expected) in [
            ("12", Some((12, 0))),
            ("12.5", Some((12, 500_000_000))),
            ("12.000000001999", Some((12, 1))),
            ("-1", None),
            ("1.x", None),
            ("", None),
        ] {
            assert_eq!(time(text).map(|time| (time.seconds, time.nanos)), expected, "{text}");
        }
    }
}
