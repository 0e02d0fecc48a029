//! Archives between connections, which never block, and threads that do.

use crate::api::apps::images::Pieces;
use crate::api::http::within;
use crate::image::ImageError;
use crate::log::chain;
use smol::channel::Sender;
use std::io::{self, BufWriter, Read, Write};
use std::time::Duration;

/// Bytes of one piece of an archive.
const PIECE: usize = 64 << 10;
/// A client that takes nothing of an archive for so long gets no more of it.
const STALL: Duration = Duration::from_secs(600);

/// An archive as it comes in. Without its end it has broken off.
pub struct Incoming {
    pieces: Pieces,
    piece: Vec<u8>,
    at: usize,
    is_end: bool,
}

impl Incoming {
    /// Nothing is read yet.
    pub fn new(pieces: Pieces) -> Incoming {
        Incoming { pieces, piece: Vec::new(), at: 0, is_end: false }
    }
}

impl Read for Incoming {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.at == self.piece.len() {
            if self.is_end {
                return Ok(0);
            }
            let piece = self.pieces.recv_blocking();
            let piece = piece.map_err(|_| io::Error::from(io::ErrorKind::UnexpectedEof))?;
            (self.piece, self.at) = (piece?, 0);
            self.is_end = self.piece.is_empty();
        }
        let length = buffer.len().min(self.piece.len() - self.at);
        buffer[..length].copy_from_slice(&self.piece[self.at..self.at + length]);
        self.at += length;
        Ok(length)
    }
}

/// Sends an archive to a client: what `write` writes, in pieces, and why it broke off if it did.
pub fn send(
    to: Sender<io::Result<Vec<u8>>>,
    write: impl FnOnce(&mut dyn Write) -> Result<(), ImageError>,
) {
    let mut out = BufWriter::with_capacity(PIECE, Outgoing(to));
    let written = write(&mut out);
    // What is left of one that failed is no part of an archive. Nobody takes an error for its end.
    let (Outgoing(to), _) = out.into_parts();
    if let Err(err) = written {
        let _ = give(&to, Err(io::Error::other(chain(&err))));
    }
}

/// The sending end.
struct Outgoing(Sender<io::Result<Vec<u8>>>);

fn give(to: &Sender<io::Result<Vec<u8>>>, piece: io::Result<Vec<u8>>) -> io::Result<()> {
    let given = smol::block_on(within(STALL, to.send(piece)));
    let given = given.ok_or_else(|| io::Error::from(io::ErrorKind::TimedOut))?;
    given.map_err(|_| io::ErrorKind::BrokenPipe.into())
}

impl Write for Outgoing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if !bytes.is_empty() {
            give(&self.0, Ok(bytes.to_vec()))?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use smol::channel::bounded;

    #[test]
    fn an_archive_without_its_end_has_broken_off() {
        let read = |pieces: Vec<io::Result<Vec<u8>>>| {
            let (to, from) = bounded(pieces.len().max(1));
            pieces.into_iter().for_each(|piece| to.try_send(piece).expect("room"));
            drop(to);
            let mut all = Vec::new();
            let mut stream = Incoming::new(from);
            stream.read_to_end(&mut all).map(|_| all)
        };
        let whole = read(vec![Ok(b"arch".to_vec()), Ok(b"ive".to_vec()), Ok(Vec::new())]);
        assert_eq!(whole.expect("whole"), b"archive");
        let cut = read(vec![Ok(b"arch".to_vec())]).expect_err("cut");
        assert_eq!(cut.kind(), io::ErrorKind::UnexpectedEof);
        let broken = read(vec![Ok(b"arch".to_vec()), Err(io::Error::other("gone"))]);
        assert_eq!(broken.expect_err("broken").to_string(), "gone");
    }

    #[test]
    fn an_archive_that_breaks_off_ends_with_why() {
        let sent = |fails: bool| {
            let (to, from) = bounded(8);
            send(to, |out| {
                let wrote = out.write_all(&vec![7; PIECE + 1]).and_then(|()| match fails {
                    true => Err(io::Error::other("gone")),
                    false => out.flush(),
                });
                wrote.map_err(|source| ImageError::Read { archive: "x".into(), source })
            });
            let mut all = Vec::new();
            while let Ok(piece) = from.try_recv() {
                all.push(piece.map(|piece| piece.len()).map_err(|err| err.to_string()));
            }
            all
        };
        assert_eq!(sent(false).into_iter().sum::<Result<usize, _>>(), Ok(PIECE + 1));
        let failed = sent(true);
        assert_eq!(failed.last(), Some(&Err("cannot read x: gone".to_owned())), "{failed:?}");
    }
}
