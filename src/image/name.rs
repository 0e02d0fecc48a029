//! Names in archives: checked once, then used one component at a time.

/// Longest path, as the kernel takes it without its NUL.
const PATH_MAX: usize = 4095;
/// Longest component.
const NAME_MAX: usize = 255;
/// Deepest path.
const DEPTH_MAX: usize = 256;

/// What a layer says with a name that begins with `.wh.`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark<'a> {
    /// An ordinary name.
    None,
    /// `.wh.x`: the `x` of the layers below is gone.
    Whiteout(&'a [u8]),
    /// `.wh..wh..opq`: everything below is gone from this directory.
    Opaque,
    /// Notes of aufs to itself.
    Ignored,
}

/// The components of an entry's path; none for the root. Leading slashes, doubled slashes, a
/// trailing slash and `.` say nothing. The error completes "entry `x` ...".
pub fn components(path: &[u8]) -> Result<Vec<&[u8]>, &'static str> {
    if path.is_empty() {
        return Err("has no name");
    }
    if path.len() > PATH_MAX {
        return Err("has a path longer than 4095 bytes");
    }
    if path.contains(&0) {
        return Err("has a NUL in its path");
    }
    let said = path.split(|b| *b == b'/').filter(|part| !matches!(*part, b"" | b"."));
    let parts: Vec<&[u8]> = said.collect();
    if parts.contains(&b"..".as_slice()) {
        return Err("has `..` in its path");
    }
    if parts.iter().any(|part| part.len() > NAME_MAX) {
        return Err("has a name longer than 255 bytes in its path");
    }
    if parts.len() > DEPTH_MAX {
        return Err("lies more than 256 directories deep");
    }
    Ok(parts)
}

/// What the last of `parts` means in a layer.
pub fn mark<'a>(parts: &[&'a [u8]]) -> Result<Mark<'a>, &'static str> {
    if parts.iter().any(|part| part.starts_with(b".wh..wh.") && *part != b".wh..wh..opq") {
        return Ok(Mark::Ignored);
    }
    let Some((last, above)) = parts.split_last() else { return Ok(Mark::None) };
    if above.iter().any(|part| part.starts_with(b".wh.")) {
        return Err("lies below a whiteout");
    }
    match last.strip_prefix(b".wh.") {
        None => Ok(Mark::None),
        Some(b".wh..opq") => Ok(Mark::Opaque),
        Some(b"" | b"." | b"..") => Err("is a whiteout of nothing"),
        Some(hidden) => Ok(Mark::Whiteout(hidden)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_reduced_to_their_components() {
        let cases: [(&[u8], &[&[u8]]); 6] = [
            (b"./a//b/./c/", &[b"a", b"b", b"c"]),
            (b"/etc/x", &[b"etc", b"x"]),
            (b".", &[]),
            (b"./", &[]),
            (b"..a/b..", &[b"..a", b"b.."]),
            (b"\xff\\\n", &[b"\xff\\\n"]),
        ];
        for (path, parts) in cases {
            assert_eq!(components(path).expect("good"), parts);
        }
    }

    #[test]
    fn paths_that_lead_out_or_on_for_ever_are_refused() {
        for path in ["", "..", "../x", "a/../x", "a/..", "/..", "a\0b"] {
            assert!(components(path.as_bytes()).is_err(), "{path:?}");
        }
        assert!(components(&[b'a'; 255]).is_ok());
        assert!(components(&[b'a'; 256]).is_err());
        assert!(components("a/".repeat(256).as_bytes()).is_ok());
        assert!(components("a/".repeat(257).as_bytes()).is_err());
        assert!(components(&b"aaa/".repeat(1025)).is_err());
    }

    #[test]
    fn whiteouts_name_exactly_one_thing() {
        let of = |path: &'static str| mark(&components(path.as_bytes()).expect("path"));
        assert_eq!(of("a/.wh.b"), Ok(Mark::Whiteout(b"b")));
        assert_eq!(of("a/.wh..wh..opq"), Ok(Mark::Opaque));
        assert_eq!(of("a/.who"), Ok(Mark::None));
        assert_eq!(of("."), Ok(Mark::None));
        for ignored in [".wh..wh.plnk/12.3", ".wh..wh.aufs", "a/.wh..wh.orph"] {
            assert_eq!(of(ignored), Ok(Mark::Ignored), "{ignored}");
        }
        for bad in [".wh.", ".wh..", ".wh...", ".wh.a/b", "a/.wh.b/c"] {
            assert!(of(bad).is_err(), "{bad}");
        }
    }
}
