//! The two formats inside a tar stream: 512-byte headers and PAX records. Bytes in, values out.
//!
//! Where readers disagree about what an archive says (two names, two sizes, an odd number), the
//! answer here is an error: an archive that reads differently elsewhere is an attack or a defect.
//!
//! | bytes    | field     | form                                                      |
//! |----------|-----------|-----------------------------------------------------------|
//! | 0..100   | name      | up to a NUL                                               |
//! | 100..124 | mode, uid, gid | 8 bytes each: octal, or base 256 when bit 7 is set   |
//! | 124..148 | size, mtime | 12 bytes each, the same                                 |
//! | 148..156 | checksum  | octal sum of all bytes, these eight counted as blanks     |
//! | 156      | type      | see [`Kind`]                                              |
//! | 157..257 | link name | up to a NUL                                               |
//! | 257..265 | magic     | `ustar\0` `00` POSIX, `ustar  \0` GNU, anything else V7   |
//! | 345..500 | prefix    | POSIX: put before the name with a `/`                     |
//! | 386..482 | sparse    | GNU: four times offset, length (12 bytes each)            |
//! | 482      | extended  | GNU: further such blocks follow                           |
//! | 483..495 | real size | GNU sparse: size of the file with its holes               |

use crate::sys::file::FileTime;
use crate::unit::escape;
use crate::unit::sparse::{Segment, SparseRecords};
use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

/// Size of a header, and what data is padded to.
pub const BLOCK: usize = 512;
/// Latest time kept, end of the year 9999; what is outside 1970 to then is moved to the nearer end.
const TIME_MAX: i64 = 253_402_300_799;

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `0`, NUL or `7`. With a name that ends with a slash it is a directory, as V7 had no other way
    /// to say so; the name may be a long one, so that only the whole entry tells.
    File,
    /// `1`: a further name of an earlier entry.
    HardLink,
    /// `2`.
    Symlink,
    /// `3` or `4`: character or block device.
    Device,
    /// `5`.
    Directory,
    /// `6`.
    Fifo,
    /// `S`: GNU file with holes.
    Sparse,
    /// `L`: the next entry's name.
    LongName,
    /// `K`: the next entry's link name.
    LongLink,
    /// `x`: PAX records about the next entry.
    Pax,
    /// `g`: PAX records about all further entries.
    PaxGlobal,
    /// Something that no container needs.
    Other(u8),
}

/// One header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// As in the type field.
    pub kind: Kind,
    /// Name with its prefix.
    pub path: Vec<u8>,
    /// Link name.
    pub link: Vec<u8>,
    /// Permission bits, 07777.
    pub mode: u32,
    /// Owner.
    pub uid: u64,
    /// Group.
    pub gid: u64,
    /// Bytes of data that follow.
    pub size: u64,
    /// Last change.
    pub time: FileTime,
}

/// What PAX records say; absent fields say nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pax {
    /// `path`
    pub path: Option<Vec<u8>>,
    /// `linkpath`
    pub link: Option<Vec<u8>>,
    /// `size`: overrides the header's.
    pub size: Option<u64>,
    /// `uid`
    pub uid: Option<u64>,
    /// `gid`
    pub gid: Option<u64>,
    /// `mtime`
    pub time: Option<FileTime>,
    /// `SCHILY.xattr.<name>` and `LIBARCHIVE.xattr.<name>`, names without that prefix.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// All `GNU.sparse.*`.
    pub sparse: SparseRecords,
}

/// Whether a block is all zero: the end of the archive.
pub fn is_end(block: &[u8; BLOCK]) -> bool {
    block.iter().all(|b| *b == 0)
}

/// Reads a header. Errors complete "the archive ...".
pub fn header(block: &[u8; BLOCK]) -> Result<Header, &'static str> {
    check_sum(block)?;
    let text = |from: usize, to: usize| until_nul(&block[from..to]).to_vec();
    let posix = &block[257..263] == b"ustar\0";
    let mut path = text(0, 100);
    if posix && block[345] != 0 {
        path = [&text(345, 500)[..], b"/", &path].concat();
    }
    let size = number(&block[124..136])?.ok_or("has a negative size in a header")?;
    let kind = match block[156] {
        b'0' | 0 | b'7' => Kind::File,
        b'1' => Kind::HardLink,
        b'2' => Kind::Symlink,
        b'3' | b'4' => Kind::Device,
        b'5' => Kind::Directory,
        b'6' => Kind::Fifo,
        b'S' => Kind::Sparse,
        b'L' => Kind::LongName,
        b'K' => Kind::LongLink,
        b'x' => Kind::Pax,
        b'g' => Kind::PaxGlobal,
        other => Kind::Other(other),
    };
    let id = |field: &[u8]| number(field)?.ok_or("has a negative owner in a header");
    let mode = number(&block[100..108])?.ok_or("has a negative mode in a header")?;
    let seconds = number(&block[136..148])?.unwrap_or(0);
    Ok(Header {
        kind,
        path,
        link: text(157, 257),
        mode: (mode & 0o7777) as u32,
        uid: id(&block[108..116])?,
        gid: id(&block[116..124])?,
        size,
        time: FileTime { seconds: seconds.min(TIME_MAX as u64) as i64, nanos: 0 },
    })
}

/// The segments that a GNU sparse header names itself, whether more blocks follow, and the file's
/// whole size.
pub fn sparse(block: &[u8; BLOCK]) -> Result<(Vec<Segment>, bool, u64), &'static str> {
    let size = number(&block[483..495])?.ok_or("has a negative size in a sparse header")?;
    Ok((segments(&block[386..482])?, block[482] != 0, size))
}

/// The segments of a further sparse block, and whether yet another follows.
pub fn sparse_more(block: &[u8; BLOCK]) -> Result<(Vec<Segment>, bool), &'static str> {
    Ok((segments(&block[..504])?, block[504] != 0))
}

/// Reads PAX records: `LENGTH KEY=VALUE\n`, LENGTH counting the whole record.
pub fn pax(mut data: &[u8]) -> Result<Pax, &'static str> {
    const BROKEN: &str = "has a malformed PAX record";
    let mut out = Pax::default();
    let mut coded = Vec::new();
    while !data.is_empty() {
        let digits = data.iter().take(8).take_while(|b| b.is_ascii_digit()).count();
        let len: usize = ascii(&data[..digits]).parse().map_err(|_| BROKEN)?;
        let record = data.get(..len).ok_or(BROKEN)?;
        let body = record.get(digits..).ok_or(BROKEN)?;
        let body = body.strip_prefix(b" ").and_then(|body| body.strip_suffix(b"\n"));
        let body = body.ok_or(BROKEN)?;
        let equals = body.iter().position(|b| *b == b'=').ok_or(BROKEN)?;
        let (key, value) = (&body[..equals], &body[equals + 1..]);
        match key.strip_prefix(b"LIBARCHIVE.xattr.") {
            Some(_) if coded.len() == RECORDS_MAX => return Err(MANY),
            Some(name) => coded.push(libarchive(name, value)?),
            None => record_value(&mut out, key, value)?,
        }
        data = &data[len..];
    }
    // bsdtar says each attribute in both forms.
    for (name, value) in coded {
        match out.xattrs.iter().find(|(other, _)| *other == name) {
            None => out.xattrs.push((name, value)),
            Some((_, same)) if *same == value => {}
            Some(_) => return Err(TWICE),
        }
    }
    Ok(out)
}

/// An extended attribute as libarchive writes it: the name as in a URL, the value as base 64 with or
/// without padding.
fn libarchive(name: &[u8], value: &[u8]) -> Result<(Vec<u8>, Vec<u8>), &'static str> {
    const BROKEN: &str = "has an extended attribute that cannot be read";
    let config = GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true);
    let code = GeneralPurpose::new(&alphabet::STANDARD, config);
    let value = code.decode(value).map_err(|_| BROKEN)?;
    Ok((escape::plain(name).ok_or(BROKEN)?, value))
}

/// Begins the records about a file with holes.
const SPARSE: &[u8] = b"GNU.sparse.";

/// Puts one record in its place.
fn record_value(out: &mut Pax, key: &[u8], value: &[u8]) -> Result<(), &'static str> {
    match key {
        b"" => Err("has a malformed PAX record"),
        b"path" => once(&mut out.path, value.to_vec()),
        b"linkpath" => once(&mut out.link, value.to_vec()),
        b"size" => once(&mut out.size, decimal(value)?),
        b"uid" => once(&mut out.uid, decimal(value)?),
        b"gid" => once(&mut out.gid, decimal(value)?),
        b"mtime" => once(&mut out.time, time(value)?),
        _ if key.starts_with(SPARSE) => out.sparse.take(&key[SPARSE.len()..], value),
        _ => match key.strip_prefix(b"SCHILY.xattr.") {
            // Each is compared with all: there are far fewer in any file.
            Some(_) if out.xattrs.len() == RECORDS_MAX => Err(MANY),
            Some(name) if out.xattrs.iter().any(|(other, _)| other == name) => Err(TWICE),
            Some(name) => {
                out.xattrs.push((name.to_vec(), value.to_vec()));
                Ok(())
            }
            // Comments, user names, access times, other programs' notes.
            None => Ok(()),
        },
    }
}

/// Most extended attributes in one block of records.
const RECORDS_MAX: usize = 1000;
const MANY: &str = "has more than 1000 extended attributes";
const TWICE: &str = "says something twice in its PAX records";

fn once<T>(field: &mut Option<T>, value: T) -> Result<(), &'static str> {
    if field.replace(value).is_some() { Err(TWICE) } else { Ok(()) }
}

/// A PAX number.
fn decimal(value: &[u8]) -> Result<u64, &'static str> {
    // Digits only: `parse` alone would take a `+` too.
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return Err("has a PAX number that is none");
    }
    ascii(value).parse().map_err(|_| "has a PAX number over 64 bits")
}

/// A PAX time: seconds with a sign and a fraction, both optional.
fn time(value: &[u8]) -> Result<FileTime, &'static str> {
    let (negative, value) = match value.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, value),
    };
    let point = value.iter().position(|b| *b == b'.').unwrap_or(value.len());
    let fraction = value.get(point + 1..).unwrap_or(&[]);
    let digits = value[..point].iter().chain(fraction).all(u8::is_ascii_digit);
    if point == 0 || !digits {
        return Err("has a PAX time that is none");
    }
    let seconds = ascii(&value[..point]).parse::<i64>().unwrap_or(TIME_MAX);
    let digit = |at: usize| fraction.get(at).map_or(0, |b| u32::from(b - b'0'));
    let nanos = (0..9).fold(0, |nanos, at| nanos * 10 + digit(at));
    match (negative, seconds > TIME_MAX) {
        (true, _) => Ok(FileTime::default()),
        (false, true) => Ok(FileTime { seconds: TIME_MAX, nanos: 0 }),
        (false, false) => Ok(FileTime { seconds, nanos }),
    }
}

fn segments(table: &[u8]) -> Result<Vec<Segment>, &'static str> {
    let mut out = Vec::new();
    for pair in table.as_chunks::<24>().0 {
        if pair[0] == 0 {
            break;
        }
        let negative = "has a negative number in a sparse header";
        let offset = number(&pair[..12])?.ok_or(negative)?;
        out.push((offset, number(&pair[12..])?.ok_or(negative)?));
    }
    Ok(out)
}

/// A number in a header: octal text, or base 256 when the first bit is set. `None`: negative. An
/// empty field is zero.
fn number(field: &[u8]) -> Result<Option<u64>, &'static str> {
    const BROKEN: &str = "has a header field that is no number";
    if field[0] & 0x80 != 0 {
        if field[0] & 0x40 != 0 {
            return Ok(None);
        }
        let mut bytes = field.iter().copied();
        let first = u128::from(bytes.next().unwrap_or(0) & 0x3f);
        let value = bytes.fold(first, |n, b| n << 8 | u128::from(b));
        return u64::try_from(value).map(Some).map_err(|_| "has a header number over 64 bits");
    }
    let start = field.iter().position(|b| *b != b' ').unwrap_or(field.len());
    let text = &field[start..];
    let end = text.iter().position(|b| matches!(b, 0 | b' ')).unwrap_or(text.len());
    if !text[..end].iter().all(|b| matches!(b, b'0'..=b'7')) {
        return Err(BROKEN);
    }
    // Twelve octal digits are 36 bits at most.
    Ok(Some(text[..end].iter().fold(0, |n, b| n << 3 | u64::from(b - b'0'))))
}

/// The checksum as a sum of bytes; some old programs summed signed ones.
fn check_sum(block: &[u8; BLOCK]) -> Result<(), &'static str> {
    const BROKEN: &str = "has a header with a wrong checksum, so it is damaged or no tar archive";
    let field = &block[148..156];
    if !field.iter().any(u8::is_ascii_digit) {
        return Err(BROKEN);
    }
    let said = number(field).ok().flatten().ok_or(BROKEN)?;
    let sum = |value: fn(u8) -> i64| -> i64 {
        let bytes = block[..148].iter().chain(&[b' '; 8]).chain(&block[156..]);
        bytes.map(|b| value(*b)).sum()
    };
    let said = i64::try_from(said).map_err(|_| BROKEN)?;
    if said == sum(i64::from) || said == sum(|b| i64::from(b as i8)) { Ok(()) } else { Err(BROKEN) }
}

fn until_nul(field: &[u8]) -> &[u8] {
    &field[..field.iter().position(|b| *b == 0).unwrap_or(field.len())]
}

/// Digits as text; anything else makes the parse that follows fail.
fn ascii(digits: &[u8]) -> &str {
    std::str::from_utf8(digits).unwrap_or("?")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A header by another program's rules.
    fn made(kind: u8, set: impl Fn(&mut tar::Header)) -> [u8; BLOCK] {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::new(kind));
        header.set_path("a/b").expect("path");
        header.set_mode(0o104_755);
        header.set_uid(1000);
        header.set_gid(100);
        header.set_size(42);
        header.set_mtime(1_500_000_000);
        set(&mut header);
        header.set_cksum();
        *header.as_bytes()
    }

    #[test]
    fn a_header_is_read_as_others_write_it() {
        let read = header(&made(b'0', |_| ())).expect("header");
        let time = FileTime { seconds: 1_500_000_000, nanos: 0 };
        assert_eq!((read.kind, read.path, read.mode), (Kind::File, b"a/b".to_vec(), 0o4755));
        assert_eq!((read.uid, read.gid, read.size, read.time), (1000, 100, 42, time));
        let large = header(&made(b'0', |h| h.set_size(1 << 40))).expect("base 256");
        assert_eq!(large.size, 1 << 40);
    }

    #[test]
    fn negative_huge_and_senseless_numbers_are_refused() {
        let with = |at: usize, bytes: &'static [u8]| {
            header(&made(b'0', |h| h.as_mut_bytes()[at..at + bytes.len()].copy_from_slice(bytes)))
        };
        assert!(with(124, &[0xff; 12]).is_err(), "negative size");
        assert!(with(124, &[0xbf; 12]).is_err(), "size over 64 bits");
        assert!(with(124, b"0000000009x\0").is_err(), "not octal");
        assert!(with(108, &[0xff; 8]).is_err(), "negative owner");
        assert_eq!(with(108, b"\x80\0\0\x01\0\0\0\0").expect("uid").uid, 1 << 32);
        assert_eq!(with(136, &[0xff; 12]).expect("before 1970").time, FileTime::default());
        let late = with(136, b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff").expect("late");
        assert_eq!(late.time.seconds, TIME_MAX);
    }

    #[test]
    fn a_checksum_of_blanks_or_a_wrong_one_is_refused() {
        let mut block = made(b'0', |_| ());
        block[148..156].copy_from_slice(b"        ");
        assert!(header(&block).is_err());
        let mut block = made(b'0', |_| ());
        block[0] ^= 1;
        assert!(header(&block).is_err());
    }

    #[test]
    fn pax_records_are_read_by_their_length() {
        let read = pax(b"12 path=a\nb\n18 linkpath=x y=z\n12 size=100\n20 mtime=1234.56789\n")
            .expect("records");
        assert_eq!(read.path.as_deref(), Some(b"a\nb".as_slice()));
        assert_eq!(read.link.as_deref(), Some(b"x y=z".as_slice()));
        assert_eq!(read.size, Some(100));
        assert_eq!(read.time, Some(FileTime { seconds: 1234, nanos: 567_890_000 }));
        let read = pax(b"26 SCHILY.xattr.user.a=x\0y\n20 GNU.sparse.major=1\n").err();
        assert!(read.is_some(), "lengths are exact");
        let read = pax(b"27 SCHILY.xattr.user.a=x\0y\n22 GNU.sparse.major=1\n").expect("records");
        assert_eq!(read.xattrs, [(b"user.a".to_vec(), b"x\0y".to_vec())]);
        assert!(read.sparse.has_any());
    }

    #[test]
    fn attributes_in_the_form_of_libarchive_are_taken_once() {
        let of = |text: &str| {
            let record = |line: &str| {
                let rest = line.len() + 2;
                let len = (rest + 1..).find(|len| *len == rest + len.to_string().len());
                format!("{} {line}\n", len.expect("a length"))
            };
            pax(text.split('|').map(record).collect::<String>().as_bytes()).map(|it| it.xattrs)
        };
        let wanted = |name: &[u8], value: &[u8]| Ok(vec![(name.to_vec(), value.to_vec())]);
        assert_eq!(of("LIBARCHIVE.xattr.user.a=YgBj"), wanted(b"user.a", b"b\0c"));
        assert_eq!(of("LIBARCHIVE.xattr.user.a%3d%20=YQ"), wanted(b"user.a= ", b"a"));
        assert_eq!(of("LIBARCHIVE.xattr.user.a=YQ=="), wanted(b"user.a", b"a"));
        let both = "SCHILY.xattr.user.a=a|LIBARCHIVE.xattr.user.a=YQ";
        assert_eq!(of(both), wanted(b"user.a", b"a"));
        assert!(of("LIBARCHIVE.xattr.user.a=Yg|SCHILY.xattr.user.a=a").is_err(), "two values");
        for bad in ["a=!", "a%=YQ", "a%4=YQ", "a%+4=YQ", "a=Y"] {
            assert!(of(&format!("LIBARCHIVE.xattr.{bad}")).is_err(), "{bad}");
        }
    }

    #[test]
    fn pax_records_that_read_two_ways_are_refused() {
        for bad in [
            "11 path=a\n",
            "8 path=a\n",
            "0 path=a\n",
            "-10 path=a\n",
            "10 path=a",
            "10 path_a\n",
            "99999999999999999999 path=a\n",
            "10 path=a\n10 path=b\n",
            "11 size=-1\n",
            "11 size=+1\n",
            "8 size=\n",
            "29 size=99999999999999999999\n",
            "6 =a\nx",
            "5 =\nxx",
            "11 mtime=x\n",
        ] {
            assert!(pax(bad.as_bytes()).is_err(), "{bad:?}");
        }
        assert_eq!(pax(b"12 mtime=-5\n").expect("early").time, Some(FileTime::default()));
    }
}
