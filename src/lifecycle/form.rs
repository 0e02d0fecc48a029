//! Forms of archives: told by content, made into tar. What is in them is not looked at: who unpacks
//! the tar judges it.

use super::error::LifecycleError;
use super::pack;
use flate2::bufread::MultiGzDecoder;
use flate2::read::DeflateDecoder;
use rawzip::{CompressionMethod, FileReader, ZipArchive};
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// What an archive is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `ustar` at 257.
    Tar,
    /// A tar behind gzip.
    TarGz,
    /// Entries behind a directory at the end.
    Zip,
}

/// What a mode says of the kind, and a symbolic link's.
const S_IFMT: u32 = 0o170_000;
const S_IFLNK: u32 = 0o120_000;
/// Longest target of one.
const TARGET_MAX: u64 = 4096;
/// The most that may be in an archive of the box; where it is unpacked has its own limit.
const ARCHIVE_MAX: u64 = 64 << 30;
/// Bytes that tell the form.
const HEAD: usize = 512;

impl Form {
    /// What begins like this; `None`: none of the three.
    pub fn of(head: &[u8]) -> Option<Form> {
        match head {
            [0x1f, 0x8b, ..] => Some(Form::TarGz),
            [b'P', b'K', 3, 4, ..] | [b'P', b'K', 5, 6, ..] => Some(Form::Zip),
            // Two blocks of zeros: a tar of nothing.
            head if head.get(257..262) == Some(b"ustar") => Some(Form::Tar),
            head if head.len() == HEAD && head.iter().all(|byte| *byte == 0) => Some(Form::Tar),
            _ => None,
        }
    }
}

/// Reads the form of `file` from its beginning, where it is afterwards.
pub fn form_of(file: &mut File) -> io::Result<Option<Form>> {
    let mut head = Vec::with_capacity(HEAD);
    file.seek(SeekFrom::Start(0))?;
    file.take(HEAD as u64).read_to_end(&mut head)?;
    file.seek(SeekFrom::Start(0))?;
    Ok(Form::of(&head))
}

/// Writes what is in `file` to `to` as a tar, of at most `most` bytes.
pub fn to_tar(form: Form, file: File, to: &mut dyn Write, most: u64) -> io::Result<()> {
    let mut to = Bounded { to, left: most };
    match form {
        Form::Tar => io::copy(&mut BufReader::new(file), &mut to).map(drop),
        Form::TarGz => io::copy(&mut MultiGzDecoder::new(BufReader::new(file)), &mut to).map(drop),
        Form::Zip => Zip::open(file)?.write(&mut to, 0, &|_, _| true),
    }
}

/// Writes what is at `from` as a tar: a tree as [`pack::pack_dir`] does, or what an archive has.
pub fn pack(from: &Path, exclude: &[String], mut to: File) -> Result<(), LifecycleError> {
    if !from.is_file() {
        return pack::pack_dir(from, exclude, to).map(drop);
    }
    let failed = |doing| LifecycleError::file(doing, from);
    let mut file = File::open(from).map_err(failed("open"))?;
    let neither = || io::Error::new(io::ErrorKind::InvalidData, "it is neither zip nor tar");
    let form = form_of(&mut file).and_then(|form| form.ok_or_else(neither));
    to_tar(form.map_err(failed("read"))?, file, &mut to, ARCHIVE_MAX).map_err(|source| match source
        .kind()
    {
        io::ErrorKind::BrokenPipe => LifecycleError::Stream { doing: "write", source },
        _ => failed("unpack")(source),
    })
}

/// A zip, also one behind something else, such as the script of a jar that runs by itself.
pub struct Zip(ZipArchive<FileReader>);

/// An entry, as its archive describes it.
type Entry<'a> = rawzip::ZipFileHeaderRecord<'a>;

impl Zip {
    /// Finds its directory, at the end.
    pub fn open(file: File) -> io::Result<Zip> {
        let mut buffer = vec![0; rawzip::RECOMMENDED_BUFFER_SIZE];
        ZipArchive::from_file(file, &mut buffer).map(Zip).map_err(io::Error::other)
    }

    /// The bytes of all its files, as it says itself, and how many entries it has.
    pub fn survey(&self) -> io::Result<(u64, u64)> {
        let (mut bytes, mut count) = (0u64, 0);
        self.each(|entry| {
            bytes = bytes.saturating_add(entry.uncompressed_size_hint());
            count += 1;
            Ok(())
        })?;
        Ok((bytes, count))
    }

    /// What is in the file `name`, `most` bytes of it; `None`: there is none.
    pub fn read(&self, name: &str, most: u64) -> io::Result<Option<Vec<u8>>> {
        let mut found = None;
        self.each(|entry| {
            if entry.file_path().as_bytes() == name.as_bytes() && found.is_none() {
                let mut bytes = Vec::new();
                self.content(entry)?.take(most).read_to_end(&mut bytes)?;
                found = Some(bytes);
            }
            Ok(())
        })?;
        Ok(found)
    }

    /// Writes what is `wanted` of it, by path and whether it is a directory, to `to` as a tar of at most
    /// `most` bytes. Every file and directory has at least the bits of `mode`.
    pub fn to_tar(
        &self,
        to: &mut dyn Write,
        most: u64,
        mode: u32,
        wanted: &dyn Fn(&[u8], bool) -> bool,
    ) -> io::Result<()> {
        self.write(&mut Bounded { to, left: most }, mode, wanted)
    }

    fn each(&self, mut see: impl FnMut(&Entry<'_>) -> io::Result<()>) -> io::Result<()> {
        let mut buffer = vec![0; rawzip::RECOMMENDED_BUFFER_SIZE];
        let mut entries = self.0.entries(&mut buffer);
        while let Some(entry) = entries.next_entry().map_err(io::Error::other)? {
            see(&entry)?;
        }
        Ok(())
    }

    /// What is in a file; its length and CRC are checked at the end.
    fn content(&self, entry: &Entry<'_>) -> io::Result<Box<dyn Read + '_>> {
        let inside = self.0.get_entry(entry.wayfinder()).map_err(io::Error::other)?;
        let method = entry.compression_method();
        let content: Box<dyn Read> = match method {
            CompressionMethod::STORE => Box::new(inside.reader()),
            CompressionMethod::DEFLATE => Box::new(DeflateDecoder::new(inside.reader())),
            other => {
                let path = String::from_utf8_lossy(entry.file_path().as_bytes()).into_owned();
                let text = format!("{path} is packed by {other:?}; 0 and 8 can be read");
                return Err(io::Error::new(io::ErrorKind::Unsupported, text));
            }
        };
        Ok(Box::new(inside.verifying_reader(content)))
    }

    fn write(
        &self,
        to: &mut Bounded<'_>,
        least: u32,
        wanted: &dyn Fn(&[u8], bool) -> bool,
    ) -> io::Result<()> {
        let mut tar = tar::Builder::new(to);
        self.each(|entry| {
            let path = PathBuf::from(OsStr::from_bytes(entry.file_path().as_bytes()));
            if !wanted(path.as_os_str().as_bytes(), entry.is_dir()) {
                return Ok(());
            }
            let mode = entry.mode().value();
            let mut header = tar::Header::new_gnu();
            header.set_mode((mode & 0o7777) | least);
            header.set_size(0);
            if entry.is_dir() {
                header.set_entry_type(tar::EntryType::Directory);
                return tar.append_data(&mut header, path, io::empty());
            }
            let content = self.content(entry)?;
            if mode & S_IFMT == S_IFLNK {
                let mut target = Vec::new();
                content.take(TARGET_MAX).read_to_end(&mut target)?;
                header.set_entry_type(tar::EntryType::Symlink);
                return tar.append_link(&mut header, path, OsStr::from_bytes(&target));
            }
            header.set_entry_type(tar::EntryType::Regular);
            let length = entry.uncompressed_size_hint();
            header.set_size(length);
            tar.append_data(&mut header, path, &mut exactly(content, length))
        })?;
        tar.finish()
    }
}

/// A content that is neither shorter nor longer than the entry says.
fn exactly(content: impl Read, length: u64) -> impl Read {
    struct Exactly<R>(R, u64);
    impl<R: Read> Read for Exactly<R> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let wrong = || io::Error::other("a file in it has another length than it says");
            let read = self.0.read(buffer)?;
            self.1 = self.1.checked_sub(read as u64).ok_or_else(wrong)?;
            if read == 0 && self.1 > 0 && !buffer.is_empty() {
                return Err(wrong());
            }
            Ok(read)
        }
    }
    Exactly(content, length)
}

/// Ends a stream that is larger than it may be.
struct Bounded<'a> {
    to: &'a mut dyn Write,
    left: u64,
}

impl Write for Bounded<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(left) = self.left.checked_sub(bytes.len() as u64) else {
            let text = "it is larger, unpacked, than what may come from an archive";
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, text));
        };
        let written = self.to.write(bytes)?;
        self.left = left + (bytes.len() - written) as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_are_told_by_their_first_bytes() {
        let mut tar = vec![b'x'; HEAD];
        tar[257..262].copy_from_slice(b"ustar");
        assert_eq!(Form::of(&tar), Some(Form::Tar));
        assert_eq!(Form::of(&[0; HEAD]), Some(Form::Tar));
        assert_eq!(Form::of(b"\x1f\x8b\x08\0"), Some(Form::TarGz));
        assert_eq!(Form::of(b"PK\x03\x04rest"), Some(Form::Zip));
        for other in [&b"<html>"[..], b"", &[0; 100], b"PK"] {
            assert_eq!(Form::of(other), None, "{other:?}");
        }
    }
}
