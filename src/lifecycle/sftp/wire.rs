//! Messages of SFTP as bytes. Trusts no length.

use std::ffi::OsStr;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// Longest message either side sends, in bytes; OpenSSH's.
pub(super) const MESSAGE_MAX: usize = 256 << 10;
/// Most bytes that one answer carries out of a file.
pub(super) const READ_MAX: usize = MESSAGE_MAX - 1024;

/// What a request could not be done for: codes of the draft, 7.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    Ok = 0,
    Eof = 1,
    NoSuchFile = 2,
    PermissionDenied = 3,
    Failure = 4,
    BadMessage = 5,
    OpUnsupported = 8,
}

impl From<io::Error> for Status {
    fn from(err: io::Error) -> Status {
        match err.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Status::NoSuchFile,
            io::ErrorKind::PermissionDenied => Status::PermissionDenied,
            _ => Status::Failure,
        }
    }
}

impl Status {
    /// For the person at the other end.
    pub(super) fn text(self) -> &'static str {
        match self {
            Status::Ok => "Success",
            Status::Eof => "End of file",
            Status::NoSuchFile => "No such file",
            Status::PermissionDenied => "Permission denied",
            Status::Failure => "Failure",
            Status::BadMessage => "Bad message",
            Status::OpUnsupported => "Operation unsupported",
        }
    }
}

/// The next message without its length; `None`: the other side has closed.
pub(super) fn read(input: &mut impl Read) -> io::Result<Option<Vec<u8>>> {
    let mut length = [0; 4];
    let mut have = 0;
    while have < length.len() {
        match input.read(&mut length[have..]) {
            Ok(0) if have == 0 => return Ok(None),
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(n) => have += n,
            Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
            Err(err) => return Err(err),
        }
    }
    let length = u32::from_be_bytes(length) as usize;
    if !(1..=MESSAGE_MAX).contains(&length) {
        let text = format!("a message of {length} bytes is none of SFTP's: 1 to {MESSAGE_MAX}");
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    }
    let mut message = vec![0; length];
    input.read_exact(&mut message)?;
    Ok(Some(message))
}

/// What is left of a request. A field that is not there makes it a bad message.
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl<'a> Fields<'a> {
    pub(super) fn u8(&mut self) -> Result<u8, Status> {
        let (first, rest) = self.0.split_first().ok_or(Status::BadMessage)?;
        self.0 = rest;
        Ok(*first)
    }

    pub(super) fn u32(&mut self) -> Result<u32, Status> {
        let (first, rest) = self.0.split_first_chunk().ok_or(Status::BadMessage)?;
        self.0 = rest;
        Ok(u32::from_be_bytes(*first))
    }

    pub(super) fn u64(&mut self) -> Result<u64, Status> {
        let (first, rest) = self.0.split_first_chunk().ok_or(Status::BadMessage)?;
        self.0 = rest;
        Ok(u64::from_be_bytes(*first))
    }

    pub(super) fn text(&mut self) -> Result<&'a [u8], Status> {
        let length = self.u32()? as usize;
        let (first, rest) = self.0.split_at_checked(length).ok_or(Status::BadMessage)?;
        self.0 = rest;
        Ok(first)
    }

    /// A path; an empty one is where the session began.
    pub(super) fn path(&mut self) -> Result<PathBuf, Status> {
        let text = self.text()?;
        let text = if text.is_empty() { b"." } else { text };
        Ok(OsStr::from_bytes(text).into())
    }
}

/// A message under construction: its length is filled in last.
pub(super) struct Message(Vec<u8>);

impl Message {
    pub(super) fn new(kind: u8, number: u32) -> Message {
        Message(vec![0, 0, 0, 0, kind]).u32(number)
    }

    pub(super) fn u32(mut self, number: u32) -> Message {
        self.0.extend(number.to_be_bytes());
        self
    }

    pub(super) fn u64(mut self, number: u64) -> Message {
        self.0.extend(number.to_be_bytes());
        self
    }

    pub(super) fn text(mut self, bytes: &[u8]) -> Message {
        self = self.u32(bytes.len() as u32);
        self.0.extend(bytes);
        self
    }

    pub(super) fn finish(mut self) -> Vec<u8> {
        let length = (self.0.len() - 4) as u32;
        self.0[..4].copy_from_slice(&length.to_be_bytes());
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_read_whole_or_refused() {
        let bytes = Message::new(5, 7).text(b"ab").u64(1).finish();
        assert_eq!(bytes.len(), 4 + 1 + 4 + 6 + 8);
        let message = read(&mut &bytes[..]).expect("read").expect("one");
        let mut fields = Fields(&message);
        assert_eq!((fields.u8(), fields.u32()), (Ok(5), Ok(7)));
        assert_eq!((fields.text(), fields.u64()), (Ok(&b"ab"[..]), Ok(1)));
        assert_eq!(fields.u8(), Err(Status::BadMessage));
        assert_eq!(read(&mut &b""[..]).expect("end"), None);
        for broken in [&bytes[..2], &bytes[..9], &[0, 0, 0, 0], &[0xff; 4]] {
            assert!(read(&mut &broken[..]).is_err(), "{broken:?}");
        }
        assert_eq!(Fields(&[0, 0, 0, 9, 1]).text(), Err(Status::BadMessage));
    }
}
