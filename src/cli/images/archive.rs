//! Archives of images as files of who types.

use smol::channel::{Receiver, Sender, bounded};
use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::thread;

/// Bytes of one piece, and pieces that are read ahead.
const PIECE: usize = 64 << 10;
const AHEAD: usize = 8;
/// What a directory with images has one of: that of an OCI layout, and that of `docker save`.
const CONTENTS: [&str; 2] = ["index.json", "manifest.json"];

/// The archive at `path` in pieces, an empty one last; a directory is packed. Read by a thread of
/// its own, which ends when nobody wants the pieces any more.
pub fn read(path: &Path) -> io::Result<Receiver<io::Result<Vec<u8>>>> {
    let is_dir = fs::metadata(path)?.is_dir();
    let (to, pieces) = bounded(AHEAD);
    if is_dir {
        fs::read_dir(path)?;
        // Else a whole box may be packed before anybody says that it is no image.
        if !CONTENTS.iter().any(|name| path.join(name).exists()) {
            let text = "it is no image: it has no index.json and no manifest.json";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        let path = path.to_owned();
        thread::spawn(move || pack(&path, &to));
    } else {
        let file = File::open(path)?;
        thread::spawn(move || send(file, &to));
    }
    Ok(pieces)
}

fn send(mut file: File, to: &Sender<io::Result<Vec<u8>>>) {
    loop {
        let mut piece = vec![0; PIECE];
        let read = file.read(&mut piece).map(|read| {
            piece.truncate(read);
            piece
        });
        // The empty piece tells the end.
        let is_last = read.as_ref().map_or(true, Vec::is_empty);
        if to.send_blocking(read).is_err() || is_last {
            return;
        }
    }
}

fn pack(dir: &Path, to: &Sender<io::Result<Vec<u8>>>) {
    write(to, |out| tree(dir, out));
}

/// What `make` writes, in pieces, an empty one last. By a thread of its own, as above.
pub fn stream(
    make: impl FnOnce(&mut dyn Write) -> io::Result<()> + Send + 'static,
) -> Receiver<io::Result<Vec<u8>>> {
    let (to, pieces) = bounded(AHEAD);
    thread::spawn(move || write(&to, make));
    pieces
}

fn write(to: &Sender<io::Result<Vec<u8>>>, make: impl FnOnce(&mut dyn Write) -> io::Result<()>) {
    let mut out = BufWriter::with_capacity(PIECE, Pieces(to));
    let packed = make(&mut out);
    // What is left of one that failed is no part of an archive.
    let last = packed.and_then(|()| out.flush()).map(|()| Vec::new());
    drop(out.into_parts());
    let _ = to.send_blocking(last);
}

fn tree(dir: &Path, to: &mut dyn Write) -> io::Result<()> {
    let mut tar = tar::Builder::new(to);
    tar.follow_symlinks(false);
    tar.mode(tar::HeaderMode::Deterministic);
    tar.append_dir_all(".", dir)?;
    tar.finish()
}

/// Sends on what is written.
struct Pieces<'a>(&'a Sender<io::Result<Vec<u8>>>);

impl Write for Pieces<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if !bytes.is_empty() {
            let sent = self.0.send_blocking(Ok(bytes.to_vec()));
            sent.map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A file in the making: it has its name when it is whole, and is gone when it does not become so.
pub struct Draft {
    file: File,
    /// Where it is, and where it shall be; `None`: what is there is no file, and is written to itself.
    place: Option<(PathBuf, PathBuf)>,
}

impl Draft {
    /// Whether the file at `path` will have a name only when it is whole.
    pub fn is_apart(path: &Path) -> bool {
        fs::metadata(path).map_or(true, |meta| meta.is_file())
    }

    /// For the file at `path`, which may be there.
    pub fn new(path: &Path) -> io::Result<Draft> {
        match fs::metadata(path) {
            Ok(meta) if meta.is_dir() => return Err(io::ErrorKind::IsADirectory.into()),
            Ok(meta) if !meta.is_file() => {
                let file = File::options().write(true).open(path)?;
                return Ok(Draft { file, place: None });
            }
            _ => {}
        }
        let name = path.file_name().ok_or(io::ErrorKind::InvalidFilename)?;
        let draft = format!(".{}.{}.part", name.to_string_lossy(), std::process::id());
        let draft = path.with_file_name(draft);
        let file = File::options().write(true).create_new(true).open(&draft)?;
        Ok(Draft { file, place: Some((draft, path.to_owned())) })
    }

    /// It is whole.
    pub fn finish(mut self) -> io::Result<()> {
        if let Some((draft, path)) = self.place.take() {
            let done = self.file.sync_all().and_then(|()| fs::rename(&draft, &path));
            if done.is_err() {
                let _ = fs::remove_file(draft);
            }
            return done;
        }
        Ok(())
    }
}

impl Write for Draft {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if let Some((draft, _)) = &self.place {
            let _ = fs::remove_file(draft);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What comes of a directory: its archive, or why there is none.
    fn sent(dir: &Path) -> io::Result<Vec<u8>> {
        let pieces = read(dir)?;
        let mut all = Vec::new();
        loop {
            match pieces.recv_blocking().expect("an end")? {
                piece if piece.is_empty() => return Ok(all),
                piece => all.extend(piece),
            }
        }
    }

    #[test]
    fn a_directory_is_packed_when_it_may_be_an_image() {
        let dir = std::env::temp_dir().join(format!("terrarium-pack-{}", std::process::id()));
        fs::create_dir_all(dir.join("blobs")).expect("directory");
        let err = sent(&dir).expect_err("no image");
        assert!(err.to_string().contains("no index.json"), "{err}");
        let data = vec![7; 3 * PIECE + 1];
        fs::write(dir.join("blobs/x"), &data).expect("write");
        fs::write(dir.join("index.json"), "{}").expect("write");
        let packed = sent(&dir).expect("an archive");
        let mut tar = tar::Archive::new(&packed[..]);
        let find = |entry: &tar::Entry<'_, &[u8]>| entry.path().expect("path").ends_with("blobs/x");
        let mut entries = tar.entries().expect("entries").map(|entry| entry.expect("entry"));
        let mut entry = entries.find(find).expect("the blob");
        let mut read = Vec::new();
        entry.read_to_end(&mut read).expect("read");
        assert!(read == data && packed.ends_with(&[0; 1024]));
        fs::remove_dir_all(&dir).expect("clean up");
    }
}
