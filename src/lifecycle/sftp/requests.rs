//! What each request of SFTP does.

use super::attributes::{self, Attributes};
use super::handles::{Handles, Open};
use super::wire::{Fields, MESSAGE_MAX, Message, READ_MAX, Status};
use std::env;
use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File, Metadata};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

const VERSION: u32 = 3;
/// Names in one answer.
const NAMES_MAX: usize = 100;

/// Types of messages: the draft's, 3.
mod kind {
    pub(super) const INIT: u8 = 1;
    pub(super) const VERSION: u8 = 2;
    pub(super) const OPEN: u8 = 3;
    pub(super) const CLOSE: u8 = 4;
    pub(super) const READ: u8 = 5;
    pub(super) const WRITE: u8 = 6;
    pub(super) const LSTAT: u8 = 7;
    pub(super) const FSTAT: u8 = 8;
    pub(super) const SETSTAT: u8 = 9;
    pub(super) const FSETSTAT: u8 = 10;
    pub(super) const OPENDIR: u8 = 11;
    pub(super) const READDIR: u8 = 12;
    pub(super) const REMOVE: u8 = 13;
    pub(super) const MKDIR: u8 = 14;
    pub(super) const RMDIR: u8 = 15;
    pub(super) const REALPATH: u8 = 16;
    pub(super) const STAT: u8 = 17;
    pub(super) const RENAME: u8 = 18;
    pub(super) const READLINK: u8 = 19;
    pub(super) const SYMLINK: u8 = 20;
    pub(super) const STATUS: u8 = 101;
    pub(super) const HANDLE: u8 = 102;
    pub(super) const DATA: u8 = 103;
    pub(super) const NAME: u8 = 104;
    pub(super) const ATTRS: u8 = 105;
    pub(super) const EXTENDED: u8 = 200;
    pub(super) const EXTENDED_REPLY: u8 = 201;
}

/// What OpenSSH's clients use besides, with their versions; its PROTOCOL file, 4.
const EXTENSIONS: [(&[u8], &[u8]); 5] = [
    (b"posix-rename@openssh.com", b"1"),
    (b"hardlink@openssh.com", b"1"),
    (b"fsync@openssh.com", b"1"),
    (b"limits@openssh.com", b"1"),
    (b"expand-path@openssh.com", b"1"),
];

/// What a client has open.
#[derive(Default)]
pub(super) struct Server {
    handles: Handles,
}

impl Server {
    /// The answer to one message. An error ends the connection: it is no message that has an answer.
    pub(super) fn answer(&mut self, message: &[u8]) -> io::Result<Vec<u8>> {
        let mut fields = Fields(message);
        let broken = |_| io::Error::new(io::ErrorKind::InvalidData, "a message without a number");
        let (kind, number) = (fields.u8().map_err(broken)?, fields.u32().map_err(broken)?);
        if kind == kind::INIT {
            let mut version = Message::new(kind::VERSION, VERSION);
            for (name, value) in EXTENSIONS {
                version = version.text(name).text(value);
            }
            return Ok(version.finish());
        }
        let done = self.request(kind, number, fields);
        Ok(done.unwrap_or_else(|status| status_message(number, status)).finish())
    }

    fn request(&mut self, kind: u8, n: u32, mut from: Fields<'_>) -> Result<Message, Status> {
        match kind {
            kind::OPEN => return self.open(n, from),
            kind::READ => return self.read(n, from),
            kind::OPENDIR => return self.open_dir(n, &from.path()?),
            kind::READDIR => return self.read_dir(n, from.text()?),
            kind::EXTENDED => return self.extended(n, from),
            kind::LSTAT => return Ok(attrs(n, &fs::symlink_metadata(from.path()?)?)),
            kind::STAT => return Ok(attrs(n, &fs::metadata(from.path()?)?)),
            kind::FSTAT => {
                let (file, _) = self.handles.file(from.text()?)?;
                return Ok(attrs(n, &file.metadata()?));
            }
            kind::REALPATH => return Ok(one_name(n, &real_path(&from.path()?)?)),
            kind::READLINK => return Ok(one_name(n, &fs::read_link(from.path()?)?)),
            kind::CLOSE => self.handles.close(from.text()?)?,
            kind::WRITE => self.write(from)?,
            kind::SETSTAT => {
                let path = from.path()?;
                Attributes::read(&mut from)?.give_path(&path)?;
            }
            kind::FSETSTAT => {
                let (file, _) = self.handles.file(from.text()?)?;
                Attributes::read(&mut from)?.give(file)?;
            }
            kind::REMOVE => fs::remove_file(from.path()?)?,
            kind::RMDIR => fs::remove_dir(from.path()?)?,
            kind::MKDIR => {
                let path = from.path()?;
                let mode = Attributes::read(&mut from)?.mode.unwrap_or(0o777);
                DirBuilder::new().mode(mode).create(path)?;
            }
            kind::RENAME => rename(&from.path()?, &from.path()?)?,
            kind::SYMLINK => {
                // What it points to comes first: OpenSSH's order, not the draft's.
                let (to, link) = (from.path()?, from.path()?);
                std::os::unix::fs::symlink(to, link)?;
            }
            _ => return Err(Status::OpUnsupported),
        }
        Ok(status_message(n, Status::Ok))
    }

    fn open(&mut self, n: u32, mut from: Fields<'_>) -> Result<Message, Status> {
        let (path, flags) = (from.path()?, from.u32()?);
        let mode = Attributes::read(&mut from)?.mode.unwrap_or(0o666);
        let has = |bit: u32| flags & bit != 0;
        let (read, write, append) = (has(1), has(2), has(4));
        let mut how = File::options();
        how.read(read || !write).write(write && !append).append(append).mode(mode);
        how.create(has(8)).truncate(has(16)).create_new(has(8) && has(32));
        let file = how.open(path)?;
        let handle = self.handles.keep(Open::File { file, append })?;
        Ok(Message::new(kind::HANDLE, n).text(&handle))
    }

    fn read(&mut self, n: u32, mut from: Fields<'_>) -> Result<Message, Status> {
        let (handle, offset, length) = (from.text()?, from.u64()?, from.u32()?);
        let (file, _) = self.handles.file(handle)?;
        let mut bytes = vec![0; (length as usize).min(READ_MAX)];
        let count = match file.read_at(&mut bytes, offset) {
            // What has no places is read as it comes.
            Err(err) if err.kind() == io::ErrorKind::NotSeekable => {
                io::Read::read(&mut &*file, &mut bytes)?
            }
            count => count?,
        };
        if count == 0 && length > 0 {
            return Err(Status::Eof);
        }
        Ok(Message::new(kind::DATA, n).text(&bytes[..count]))
    }

    fn write(&mut self, mut from: Fields<'_>) -> Result<(), Status> {
        let (handle, offset, bytes) = (from.text()?, from.u64()?, from.text()?);
        let (file, append) = self.handles.file(handle)?;
        let done = match append {
            true => io::Write::write_all(&mut &*file, bytes),
            false => match file.write_all_at(bytes, offset) {
                Err(err) if err.kind() == io::ErrorKind::NotSeekable => {
                    io::Write::write_all(&mut &*file, bytes)
                }
                done => done,
            },
        };
        Ok(done?)
    }

    fn open_dir(&mut self, n: u32, path: &Path) -> Result<Message, Status> {
        let names = fs::read_dir(path)?;
        let open = Open::Dir { path: path.to_owned(), names, begun: false };
        Ok(Message::new(kind::HANDLE, n).text(&self.handles.keep(open)?))
    }

    fn read_dir(&mut self, n: u32, handle: &[u8]) -> Result<Message, Status> {
        let Open::Dir { path, names, begun } = self.handles.get(handle)? else {
            return Err(Status::Failure);
        };
        let mut found: Vec<(Vec<u8>, Metadata)> = Vec::new();
        if !std::mem::replace(begun, true) {
            for name in [".", ".."] {
                found.extend(fs::metadata(path.join(name)).map(|it| (name.into(), it)));
            }
        }
        for entry in names.by_ref().take(NAMES_MAX) {
            let entry = entry?;
            // It may be gone meanwhile.
            let Ok(metadata) = entry.metadata() else { continue };
            found.push((entry.file_name().as_bytes().to_owned(), metadata));
        }
        if found.is_empty() {
            return Err(Status::Eof);
        }
        let mut message = Message::new(kind::NAME, n).u32(found.len() as u32);
        for (name, metadata) in found {
            message = message.text(&name).text(&attributes::line(&name, &metadata));
            message = attributes::write(message, &metadata);
        }
        Ok(message)
    }

    fn extended(&mut self, n: u32, mut from: Fields<'_>) -> Result<Message, Status> {
        match from.text()? {
            b"posix-rename@openssh.com" => fs::rename(from.path()?, from.path()?)?,
            b"hardlink@openssh.com" => fs::hard_link(from.path()?, from.path()?)?,
            b"fsync@openssh.com" => self.handles.file(from.text()?)?.0.sync_all()?,
            b"expand-path@openssh.com" => {
                return Ok(one_name(n, &real_path(&expand(&from.path()?))?));
            }
            b"limits@openssh.com" => {
                let (most, data) = (MESSAGE_MAX as u64, READ_MAX as u64);
                let reply = Message::new(kind::EXTENDED_REPLY, n);
                return Ok(reply.u64(most).u64(data).u64(data).u64(0));
            }
            _ => return Err(Status::OpUnsupported),
        }
        Ok(status_message(n, Status::Ok))
    }
}

fn status_message(n: u32, status: Status) -> Message {
    let message = Message::new(kind::STATUS, n).u32(status as u32);
    message.text(status.text().as_bytes()).text(b"")
}

fn attrs(n: u32, of: &Metadata) -> Message {
    attributes::write(Message::new(kind::ATTRS, n), of)
}

/// A name without attributes.
fn one_name(n: u32, path: &Path) -> Message {
    let name = path.as_os_str().as_bytes();
    Message::new(kind::NAME, n).u32(1).text(name).text(name).u32(0)
}

/// Absolute and without links; the last part need not be there.
fn real_path(path: &Path) -> io::Result<PathBuf> {
    match fs::canonicalize(path) {
        Err(err) if err.kind() == io::ErrorKind::NotFound => {
            let name = path.file_name().ok_or(err)?;
            let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty());
            Ok(fs::canonicalize(dir.unwrap_or(Path::new(".")))?.join(name))
        }
        real => real,
    }
}

/// `~` and `~/X` lie in the home directory; there are no others here.
fn expand(path: &Path) -> PathBuf {
    let home = || PathBuf::from(env::var_os("HOME").unwrap_or_else(|| "/".into()));
    match path.as_os_str().as_bytes() {
        b"~" => home(),
        [b'~', b'/', rest @ ..] => home().join(OsStr::from_bytes(rest)),
        _ => path.to_owned(),
    }
}

/// Version 3 replaces nothing by renaming. A link cannot either, and is not a race; a directory has
/// none.
fn rename(from: &Path, to: &Path) -> io::Result<()> {
    if fs::symlink_metadata(from)?.is_file() {
        match fs::hard_link(from, to) {
            Ok(()) => return fs::remove_file(from),
            Err(err) if err.kind() == io::ErrorKind::AlreadyExists => return Err(err),
            // A file system without links.
            Err(_) => {}
        }
    }
    match fs::symlink_metadata(to) {
        Ok(_) => Err(io::ErrorKind::AlreadyExists.into()),
        Err(_) => fs::rename(from, to),
    }
}
