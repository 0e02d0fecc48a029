//! Forms of archives: told by content, made into tar.

use flate2::bufread::MultiGzDecoder;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::path::Path;

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
    let mut zip = zip::ZipArchive::new(BufReader::new(file)).map_err(io::Error::other)?;
    let mut tar = tar::Builder::new(to);
    for at in 0..zip.len() {
        let mut entry = zip.by_index(at).map_err(io::Error::other)?;
        // Names that lead out are left to the unpacker inside the container, which refuses them.
        let name = entry.name().map_err(io::Error::other)?.into_owned();
        let path = Path::new(name.trim_end_matches('/'));
        let (is_dir, is_link) = (entry.is_dir(), entry.is_symlink());
        let mode =
            entry.unix_mode().map_or(if is_dir { 0o755 } else { 0o644 }, |mode| mode & 0o7777);
        let mut header = tar::Header::new_gnu();
        header.set_mode(mode);
        header.set_size(0);
        if is_dir {
            header.set_entry_type(tar::EntryType::Directory);
            tar.append_data(&mut header, path, io::empty())?;
        } else if is_link {
            let mut target = String::new();
            entry.by_ref().take(4096).read_to_string(&mut target)?;
            header.set_entry_type(tar::EntryType::Symlink);
            tar.append_link(&mut header, path, target)?;
        } else {
            header.set_entry_type(tar::EntryType::Regular);
            header.set_size(entry.size());
            tar.append_data(&mut header, path, &mut entry)?;
        }
    }
    tar.finish()
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
