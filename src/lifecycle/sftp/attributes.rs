//! Attributes of files as SFTP writes them, and the line of `ls -l` that goes with a name.
//!
//! | flag | fields |
//! |---|---|
//! | 1 | size, eight bytes |
//! | 2 | uid, gid |
//! | 4 | mode with its kind, as in `st_mode` |
//! | 8 | time of access and of change, seconds since 1970 |
//! | 0x8000_0000 | a number of pairs of texts, which nobody asks for |

use super::wire::{Fields, Message, Status};
use std::fs::{self, File, FileTimes, Metadata, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::time::{Duration, SystemTime};

const SIZE: u32 = 1;
const OWNER: u32 = 2;
const MODE: u32 = 4;
const TIMES: u32 = 8;
const EXTENDED: u32 = 0x8000_0000;

/// What a client says of a file; what is `None` stays as it is.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Attributes {
    pub(super) size: Option<u64>,
    pub(super) owner: Option<(u32, u32)>,
    pub(super) mode: Option<u32>,
    /// Access, change.
    pub(super) times: Option<(u32, u32)>,
}

impl Attributes {
    pub(super) fn read(from: &mut Fields<'_>) -> Result<Attributes, Status> {
        let flags = from.u32()?;
        let mut read = Attributes::default();
        if flags & SIZE != 0 {
            read.size = Some(from.u64()?);
        }
        if flags & OWNER != 0 {
            read.owner = Some((from.u32()?, from.u32()?));
        }
        if flags & MODE != 0 {
            read.mode = Some(from.u32()? & 0o7777);
        }
        if flags & TIMES != 0 {
            read.times = Some((from.u32()?, from.u32()?));
        }
        if flags & EXTENDED != 0 {
            for _ in 0..from.u32()? {
                let _pair = (from.text()?, from.text()?);
            }
        }
        Ok(read)
    }

    /// Makes them those of an open file. What changes who may do so comes last.
    pub(super) fn give(&self, file: &File) -> io::Result<()> {
        if let Some(size) = self.size {
            file.set_len(size)?;
        }
        self.give_rest(file)
    }

    /// Makes them those of a path, through links.
    pub(super) fn give_path(&self, path: &Path) -> io::Result<()> {
        if let Some(size) = self.size {
            File::options().write(true).open(path)?.set_len(size)?;
        }
        // A fifo would wait for its other side.
        if self.times.is_some() && fs::metadata(path).is_ok_and(|it| it.is_file() || it.is_dir()) {
            let only = Attributes { times: self.times, ..Attributes::default() };
            only.give_rest(&File::open(path)?)?;
        }
        if let Some((uid, gid)) = self.owner {
            std::os::unix::fs::chown(path, Some(uid), Some(gid))?;
        }
        match self.mode {
            Some(mode) => fs::set_permissions(path, Permissions::from_mode(mode)),
            None => Ok(()),
        }
    }

    fn give_rest(&self, file: &File) -> io::Result<()> {
        if let Some((accessed, modified)) = self.times {
            let at = |seconds: u32| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds.into());
            let times = FileTimes::new().set_accessed(at(accessed)).set_modified(at(modified));
            file.set_times(times)?;
        }
        if let Some((uid, gid)) = self.owner {
            std::os::unix::fs::fchown(file, Some(uid), Some(gid))?;
        }
        match self.mode {
            Some(mode) => file.set_permissions(Permissions::from_mode(mode)),
            None => Ok(()),
        }
    }
}

/// Adds those of a file that is there.
pub(super) fn write(to: Message, of: &Metadata) -> Message {
    let seconds = |time: i64| u32::try_from(time).unwrap_or(0);
    to.u32(SIZE | OWNER | MODE | TIMES)
        .u64(of.size())
        .u32(of.uid())
        .u32(of.gid())
        .u32(of.mode())
        .u32(seconds(of.atime()))
        .u32(seconds(of.mtime()))
}

/// The line that `ls -ln` prints for it, with the time as the client cannot mistake it.
pub(super) fn line(name: &[u8], of: &Metadata) -> Vec<u8> {
    let (year, month, day, hour, minute) = moment(of.mtime());
    let mut line = format!(
        "{} {:>4} {:<8} {:<8} {:>8} {year:04}-{month:02}-{day:02} {hour:02}:{minute:02} ",
        letters(of.mode()),
        of.nlink(),
        of.uid(),
        of.gid(),
        of.size(),
    )
    .into_bytes();
    line.extend(name);
    line
}

/// `drwxr-xr-x`.
fn letters(mode: u32) -> String {
    let kind = match mode & 0o170_000 {
        0o040_000 => 'd',
        0o120_000 => 'l',
        0o010_000 => 'p',
        0o140_000 => 's',
        0o020_000 => 'c',
        0o060_000 => 'b',
        _ => '-',
    };
    let mut all = String::from(kind);
    let special = [(0o4000, 's', 'S'), (0o2000, 's', 'S'), (0o1000, 't', 'T')];
    for (at, (bit, both, alone)) in special.into_iter().enumerate() {
        let bits = mode >> (6 - 3 * at);
        all.push(if bits & 4 != 0 { 'r' } else { '-' });
        all.push(if bits & 2 != 0 { 'w' } else { '-' });
        all.push(match (bits & 1 != 0, mode & bit != 0) {
            (true, true) => both,
            (false, true) => alone,
            (true, false) => 'x',
            (false, false) => '-',
        });
    }
    all
}

/// Year, month, day, hour and minute of these seconds since 1970, UTC.
fn moment(seconds: i64) -> (i64, i64, i64, i64, i64) {
    let (days, rest) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // Eras of 400 years begin on the first of March, so that a leap day is the last of its year.
    let days = days + 719_468;
    let (era, day) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let date = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year + era * 400 + i64::from(month <= 2);
    (year, month, date, rest / 3600, rest / 60 % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_read_as_far_as_their_flags_say() {
        let message = Message::new(0, SIZE | MODE | TIMES | EXTENDED);
        let bytes = message.u64(7).u32(0o100_644).u32(1).u32(2).u32(1).text(b"a").text(b"b");
        let bytes = bytes.finish();
        let read = Attributes::read(&mut Fields(&bytes[5..])).expect("whole");
        let want =
            Attributes { size: Some(7), owner: None, mode: Some(0o644), times: Some((1, 2)) };
        assert_eq!(read, want);
        let cut = Attributes::read(&mut Fields(&bytes[5..bytes.len() - 1]));
        assert_eq!(cut, Err(Status::BadMessage));
    }

    #[test]
    fn a_line_is_as_ls_prints_it() {
        assert_eq!(letters(0o100_644), "-rw-r--r--");
        assert_eq!(letters(0o041_777), "drwxrwxrwt");
        assert_eq!(letters(0o104_750), "-rwsr-x---");
        assert_eq!(letters(0o120_777), "lrwxrwxrwx");
        assert_eq!(letters(0o102_644), "-rw-r-Sr--");
        assert_eq!(moment(0), (1970, 1, 1, 0, 0));
        assert_eq!(moment(951_782_399), (2000, 2, 28, 23, 59));
        assert_eq!(moment(951_782_400), (2000, 2, 29, 0, 0));
        assert_eq!(moment(1_795_305_600), (2026, 11, 22, 0, 0));
    }
}
