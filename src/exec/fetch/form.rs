//! Forms of archives: told by content, made into tar.

use flate2::bufread::MultiGzDecoder;
use flate2::read::DeflateDecoder;
use rawzip::{CompressionMethod, ZipArchive};
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

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
pub fn to_tar(form: Form, file: File, to: &mut File, most: u64) -> io::Result<()> {
    let mut to = Bounded { to, left: most };
    match form {
        Form::Tar => io::copy(&mut BufReader::new(file), &mut to).map(drop),
        Form::TarGz => io::copy(&mut MultiGzDecoder::new(BufReader::new(file)), &mut to).map(drop),
        Form::Zip => zip_to_tar(file, &mut to),
    }
}

fn zip_to_tar(file: File, to: &mut Bounded<'_>) -> io::Result<()> {
    let mut buffer = vec![0; rawzip::RECOMMENDED_BUFFER_SIZE];
    let zip = ZipArchive::from_file(file, &mut buffer).map_err(io::Error::other)?;
    let mut tar = tar::Builder::new(to);
    let mut entries = zip.entries(&mut buffer);
    while let Some(entry) = entries.next_entry().map_err(io::Error::other)? {
        let path = PathBuf::from(OsStr::from_bytes(entry.file_path().as_bytes()));
        let mode = entry.mode().value();
        let method = entry.compression_method();
        let inside = zip.get_entry(entry.wayfinder()).map_err(io::Error::other)?;
        let content: Box<dyn Read> = match method {
            CompressionMethod::STORE => Box::new(inside.reader()),
            CompressionMethod::DEFLATE => Box::new(DeflateDecoder::new(inside.reader())),
            other => {
                let text =
                    format!("{} is packed by {other:?}; 0 and 8 can be read", path.display());
                return Err(io::Error::new(io::ErrorKind::Unsupported, text));
            }
        };
        // Checks length and CRC at the end.
        let content = inside.verifying_reader(content);
        let mut header = tar::Header::new_gnu();
        header.set_mode(mode & 0o7777);
        header.set_size(0);
        if entry.is_dir() {
            header.set_entry_type(tar::EntryType::Directory);
            tar.append_data(&mut header, path, io::empty())?;
        } else if mode & S_IFMT == S_IFLNK {
            let mut target = Vec::new();
            content.take(TARGET_MAX).read_to_end(&mut target)?;
            header.set_entry_type(tar::EntryType::Symlink);
            tar.append_link(&mut header, path, OsStr::from_bytes(&target))?;
        } else {
            header.set_entry_type(tar::EntryType::Regular);
            let length = entry.uncompressed_size_hint();
            header.set_size(length);
            tar.append_data(&mut header, path, &mut exactly(content, length))?;
        }
    }
    tar.finish()
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
    to: &'a mut File,
    left: u64,
}

impl Write for Bounded<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(left) = self.left.checked_sub(bytes.len() as u64) else {
            let text = "it is larger than the box keeps of downloads ([downloads] size)";
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
