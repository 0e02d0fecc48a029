//! Archives of images as files of who types.

use smol::channel::{Receiver, Sender, bounded};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::thread;

/// Bytes of one piece, and pieces that are read ahead.
const PIECE: usize = 64 << 10;
const AHEAD: usize = 8;

/// The archive at `path` in pieces, an empty one last; a directory is packed. Read by a thread of its own, which ends
/// when nobody wants the pieces any more.
pub fn read(path: &Path) -> io::Result<Receiver<io::Result<Vec<u8>>>> {
    let is_dir = fs::metadata(path)?.is_dir();
    let (to, pieces) = bounded(AHEAD);
    if is_dir {
        fs::read_dir(path)?;
        let path = path.to_owned();
        thread::spawn(move || {
            let mut pieces = Pieces { to, piece: Vec::with_capacity(PIECE) };
            if let Err(err) = pack(&path, &mut pieces) {
                let _ = pieces.to.send_blocking(Err(err));
            }
        });
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

fn pack(dir: &Path, to: &mut Pieces) -> io::Result<()> {
    let mut tar = tar::Builder::new(&mut *to);
    tar.follow_symlinks(false);
    tar.mode(tar::HeaderMode::Deterministic);
    tar.append_dir_all(".", dir)?;
    tar.finish()?;
    drop(tar);
    to.flush()?;
    to.give(Vec::new())
}

/// Sends on what is written.
struct Pieces {
    to: Sender<io::Result<Vec<u8>>>,
    piece: Vec<u8>,
}

impl Pieces {
    fn give(&self, piece: Vec<u8>) -> io::Result<()> {
        self.to.send_blocking(Ok(piece)).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.piece.extend_from_slice(bytes);
        if self.piece.len() >= PIECE {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        match std::mem::take(&mut self.piece) {
            none if none.is_empty() => Ok(()),
            piece => self.give(piece),
        }
    }
}

/// A file in the making: it has its name when it is whole, and is gone when it does not become so.
pub struct Draft {
    file: File,
    /// Where it is, and where it shall be; `None`: what is there is no file, and is written to itself.
    place: Option<(PathBuf, PathBuf)>,
}

impl Draft {
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
