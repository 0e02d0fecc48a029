//! From a packed stream to a layer's directory, in three threads that work at the same time: one
//! reads (a file, or the network), one unpacks and hashes, one makes the files.
//!
//! ```text
//! source ─pieces─► decoded, hash, room ─pieces─► unpack (by the caller's thread)
//! ```
//!
//! Between them are few pieces of bounded size: memory does not depend on the length of the stream.

use super::unpack::{self, Options, Summary, UnpackError};
use super::work::{self, Wish};
use super::zstd::Zstd;
use crate::unit::{Bytes, Digest};
use crate::volume::Store;
use sha2::{Digest as _, Sha256};
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SendError, SyncSender, sync_channel};
use std::thread;

/// Bytes of one piece, and pieces between two threads.
const PIECE: usize = 256 << 10;
const PIECES: usize = 3;
/// Room that is made sure of ahead of the unpacking, and how often we look.
const ROOM: u64 = 16 << 20;

/// Unpacks `source`, a tar, plain or as gzip or zstd, into `dir`, with room made ahead of it; what
/// was unpacked, and the digest of the tar. The source is read to its end, whatever the archive
/// says: what checks itself there is checked. Waits until it is this layer's turn; ends at once when
/// the daemon does.
pub(super) fn unpack_packed(
    store: &Store,
    source: impl Read + Send,
    dir: &Path,
    options: &Options,
) -> Result<(Summary, Digest), UnpackError> {
    unpack_wanted(store, &Wish::new(store), source, dir, options)
}

/// The same, until nobody wants it any more.
pub(super) fn unpack_wanted(
    store: &Store,
    wish: &Wish,
    source: impl Read + Send,
    dir: &Path,
    options: &Options,
) -> Result<(Summary, Digest), UnpackError> {
    let over = || UnpackError::stream(io::Error::other(Wish::failure()));
    let _turn = work::layer(&|| wish.is_over()).ok_or_else(over)?;
    let given_up = AtomicBool::new(false);
    let is_over = || wish.is_over() || given_up.load(Ordering::Relaxed);
    thread::scope(|scope| {
        let (packed, from_source) = sync_channel(PIECES);
        let (plain, from_decoder) = sync_channel(PIECES);
        let reader = scope.spawn(|| pump(Wanted { source, wish }, packed, &given_up));
        let decoder = scope.spawn(|| {
            let packed = BufReader::with_capacity(PIECE, Pieces::new(from_source));
            decode(store, packed, plain, &is_over)
        });
        let unpacked = unpack::unpack(&mut Pieces::new(from_decoder), dir, options);
        given_up.store(unpacked.is_err(), Ordering::Relaxed);
        let diff = decoder.join().unwrap_or_else(|_| Err(panicked()));
        let read = reader.join().unwrap_or_else(|_| Err(panicked()));
        let summary = unpacked?;
        read.map_err(UnpackError::stream)?;
        Ok((summary, diff.map_err(UnpackError::stream)?))
    })
}

fn panicked() -> io::Error {
    io::Error::other("the thread that read it panicked")
}

/// Reads to the end. When nobody wants the pieces any more it still goes there, unless that is of
/// no use to anybody; then an error.
fn pump(
    mut source: impl Read,
    to: SyncSender<io::Result<Vec<u8>>>,
    given_up: &AtomicBool,
) -> io::Result<()> {
    let mut to = Some(to);
    while !given_up.load(Ordering::Relaxed) {
        let (piece, err) = fill(&mut source);
        let is_end = piece.is_empty() && err.is_none();
        if !piece.is_empty() && to.as_ref().is_some_and(|to| to.send(Ok(piece)).is_err()) {
            to = None;
        }
        match (err, &to) {
            (Some(err), Some(to)) => {
                // Told where the stream is unpacked, unless nobody listens there any more.
                return match to.send(Err(err)) {
                    Err(SendError(Err(err))) => Err(err),
                    _ => Ok(()),
                };
            }
            (Some(err), None) => return Err(err),
            (None, _) if is_end => return Ok(()),
            (None, _) => {}
        }
    }
    Err(io::ErrorKind::Interrupted.into())
}

/// Unpacks the stream, hashes it, and sends it on; its digest.
fn decode<'a>(
    store: &Store,
    packed: BufReader<impl Read + 'a>,
    to: SyncSender<io::Result<Vec<u8>>>,
    is_over: &'a dyn Fn() -> bool,
) -> io::Result<Digest> {
    let mut hash = Sha256::new();
    let work = || {
        let mut stream = decoded(packed, is_over)?;
        let (mut seen, mut sure_until) = (0u64, 0u64);
        loop {
            if seen >= sure_until {
                // What is unpacked is never longer than the stream: room for it is room for the
                // files.
                store.ensure_room(Bytes::new(ROOM)).map_err(io::Error::other)?;
                sure_until = seen + ROOM / 2;
            }
            let (piece, err) = fill(&mut stream);
            hash.update(&piece);
            seen += piece.len() as u64;
            let is_end = piece.is_empty();
            // Who gave up does so for a better reason than ours.
            if to.send(Ok(piece)).is_err() {
                return Ok(());
            }
            match err {
                Some(err) => return Err(err),
                None if is_end => return Ok(()),
                None => {}
            }
        }
    };
    match work() {
        Ok(()) => Ok(Digest::finish(hash)),
        Err(err) => {
            // The caller has it from there.
            let _ = to.send(Err(err));
            Ok(Digest::finish(hash))
        }
    }
}

/// A whole piece, or what there was before the end or the error.
fn fill(source: &mut impl Read) -> (Vec<u8>, Option<io::Error>) {
    let (mut piece, mut filled) = (vec![0; PIECE], 0);
    let mut failed = None;
    while filled < PIECE && failed.is_none() {
        match source.read(&mut piece[filled..]) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
            Err(err) => failed = Some(err),
        }
    }
    piece.truncate(filled);
    (piece, failed)
}

/// The tar stream inside, by its first bytes.
fn decoded<'a>(
    mut packed: BufReader<impl Read + 'a>,
    is_over: &'a dyn Fn() -> bool,
) -> io::Result<Box<dyn Read + 'a>> {
    let unknown = |name: &str| {
        let text = format!("it is packed with {name}; gzip, zstd and plain tar can be read");
        io::Error::new(io::ErrorKind::Unsupported, text)
    };
    match packed.fill_buf()? {
        [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => {
            Ok(Box::new(Zstd::new(packed, is_over)?))
        }
        [0x1f, 0x8b, ..] => Ok(Box::new(flate2::bufread::MultiGzDecoder::new(packed))),
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Err(unknown("xz")),
        [b'B', b'Z', b'h', b'1'..=b'9', 0x31, 0x41, ..] => Err(unknown("bzip2")),
        _ => Ok(Box::new(packed)),
    }
}

/// A source until nobody wants it any more.
struct Wanted<'a, R> {
    source: R,
    wish: &'a Wish,
}

impl<R: Read> Read for Wanted<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.wish.is_over() {
            true => Err(io::Error::other(Wish::failure())),
            false => self.source.read(buffer),
        }
    }
}

/// The reading end of a row of pieces.
struct Pieces {
    from: Receiver<io::Result<Vec<u8>>>,
    piece: Vec<u8>,
    at: usize,
}

impl Pieces {
    fn new(from: Receiver<io::Result<Vec<u8>>>) -> Pieces {
        Pieces { from, piece: Vec::new(), at: 0 }
    }
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.at == self.piece.len() {
            match self.from.recv() {
                Ok(piece) => (self.piece, self.at) = (piece?, 0),
                Err(_) => return Ok(0),
            }
        }
        let length = buffer.len().min(self.piece.len() - self.at);
        buffer[..length].copy_from_slice(&self.piece[self.at..self.at + length]);
        self.at += length;
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives `left` bytes and then an error, or its end.
    struct Source {
        left: usize,
        then: Option<&'static str>,
    }

    impl Read for Source {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let length = buffer.len().min(self.left);
            buffer[..length].fill(7);
            self.left -= length;
            match (length, self.then) {
                (0, Some(text)) => Err(io::Error::other(text)),
                _ => Ok(length),
            }
        }
    }

    fn pumped(source: Source, wanted: bool) -> (io::Result<()>, Vec<io::Result<usize>>) {
        let (to, from) = sync_channel(PIECES);
        let given_up = AtomicBool::new(false);
        thread::scope(|scope| {
            let reader = scope.spawn(|| pump(source, to, &given_up));
            let got = match wanted {
                true => from.iter().map(|piece| piece.map(|piece| piece.len())).collect(),
                false => {
                    drop(from);
                    Vec::new()
                }
            };
            (reader.join().expect("no panic"), got)
        })
    }

    #[test]
    fn a_source_is_read_to_its_end_though_nobody_wants_the_rest() {
        let (ended, _) = pumped(Source { left: 10 * PIECE, then: Some("wrong digest") }, false);
        assert_eq!(ended.expect_err("met at the end").to_string(), "wrong digest");
        let (ended, got) = pumped(Source { left: PIECE + 1, then: None }, true);
        assert!(ended.is_ok());
        let got: Vec<usize> = got.into_iter().map(|it| it.expect("bytes")).collect();
        assert_eq!(got, [PIECE, 1]);
    }

    #[test]
    fn an_error_comes_after_the_bytes_before_it() {
        let (_, got) = pumped(Source { left: 3, then: Some("broke off") }, true);
        assert_eq!(got[0].as_ref().expect("bytes"), &3);
        assert_eq!(got[1].as_ref().expect_err("error").to_string(), "broke off");
    }

    #[test]
    fn packed_streams_are_known_by_their_first_bytes() {
        let of = |bytes: &'static [u8]| {
            decoded(BufReader::new(bytes), &|| false).map(|_| ()).map_err(|err| err.to_string())
        };
        assert!(of(b"\x28\xb5\x2f\xfd..").is_ok() && of(b"\x1f\x8b..").is_ok() && of(b"").is_ok());
        assert!(of(b"\xfd7zXZ\0....").expect_err("xz").contains("packed with xz"));
        assert!(of(b"BZh91AY&SY").expect_err("bzip2").contains("packed with bzip2"));
        assert!(of(b"BZhome/file").is_ok());
    }
}
