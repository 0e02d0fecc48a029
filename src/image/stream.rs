//! From a packed stream to a layer's directory, in three threads that work at the same time: one
//! reads (a file, or the network), one unpacks and hashes, one makes the files.
//!
//! ```text
//! source ─pieces─► decoded, hash, room ─pieces─► unpack (by the caller's thread)
//!        ◄─empty──                     ◄─empty──
//! ```
//!
//! Between them are few pieces of bounded size: memory does not depend on the length of the stream.
//! Those that were read go back to be filled again, as memory is dear to get and to give back. Whoever
//! waits for a piece sleeps and has to be woken, which takes a box as long as filling a small one: so one
//! layer at a time, as a rule the only one, has large ones.

use super::archive;
use super::unpack::{self, Options, Summary, UnpackError};
use super::work::{self, Feed, Wish};
use super::zstd::Zstd;
use crate::unit::{Bytes, Digest};
use crate::volume::Store;
use sha2::{Digest as _, Sha256};
use std::io::{self, BufRead, Read};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SendError, Sender, SyncSender, channel, sync_channel};
use std::thread;

/// Pieces that wait between two threads, of [`work::piece`] bytes: more where files are made, which takes
/// now long and now no time.
const PACKED: usize = 1;
const PLAIN: usize = 4;
/// All pieces of a layer: beside those that wait one is filled and one is read.
const PIECES: usize = PACKED + 2 + PLAIN + 2;
/// Bytes of a piece of who has [`work::wide`].
const WIDE_PIECE: usize = 128 << 10;
/// Room that is made sure of ahead of the unpacking, and how often we look.
const ROOM: u64 = 16 << 20;

/// What the large pieces of who has them come to, beyond others of so many bytes.
pub(super) const fn wide_bytes(piece: usize) -> u64 {
    (PIECES * (WIDE_PIECE - piece)) as u64
}

/// Most bytes that a layer takes while it is unpacked, without a window: two rows of pieces, what is written,
/// and what the archive says of an entry. For what is to be remembered of it, somebody is asked
/// ([`super::held`]).
pub(super) const fn layer_bytes(piece: usize) -> u64 {
    (PIECES * piece + unpack::BUFFER + archive::OWN) as u64
}

/// Unpacks `source`, a tar, plain or as gzip or zstd, into `dir`, with room made ahead of it; what
/// was unpacked, and the digest of the tar. The source is read to its end, whatever the archive says:
/// what checks itself there is checked. Waits until it is this layer's turn among those with the same
/// feed; ends at once when the daemon does.
pub(super) fn unpack_packed(
    store: &Store,
    feed: Feed,
    source: impl Read + Send,
    dir: &Path,
    options: &Options,
) -> Result<(Summary, Digest), UnpackError> {
    unpack_wanted(store, &Wish::new(store), feed, source, dir, options)
}

/// The same of what somebody gives, until nobody wants it any more.
pub(super) fn unpack_wanted(
    store: &Store,
    wish: &Wish,
    feed: Feed,
    source: impl Read + Send,
    dir: &Path,
    options: &Options,
) -> Result<(Summary, Digest), UnpackError> {
    let over = || UnpackError::stream(io::Error::other(Wish::failure()));
    let _turn = work::layer(feed, wish).ok_or_else(over)?;
    let wide = work::wide();
    let bytes = wide.as_ref().map_or_else(work::piece, |_| WIDE_PIECE);
    let options = &Options { allowance: wish.allowance(), ..options.clone() };
    let given_up = AtomicBool::new(false);
    let is_over = || wish.is_over() || given_up.load(Ordering::Relaxed);
    thread::scope(|scope| {
        let (packed, from_source) = row(PACKED, bytes);
        let (plain, mut from_decoder) = row(PLAIN, bytes);
        let named = |name: &str| thread::Builder::new().name(name.into());
        let source = Wanted { source, wish };
        let reader = named("reader").spawn_scoped(scope, || pump(source, packed, &given_up));
        let reader = reader.map_err(no_thread)?;
        let decode = || decode(store, (from_source, feed), plain, &is_over);
        let decoder = named("decoder").spawn_scoped(scope, decode).map_err(|err| {
            // The other one is waited for.
            given_up.store(true, Ordering::Relaxed);
            no_thread(err)
        })?;
        let unpacked = unpack::unpack(&mut from_decoder, dir, options);
        // Nobody reads it any more: whoever still sends is told.
        drop(from_decoder);
        given_up.store(unpacked.is_err(), Ordering::Relaxed);
        let diff = decoder.join().unwrap_or_else(|_| Err(panicked()));
        let read = reader.join().unwrap_or_else(|_| Err(panicked()));
        let summary = unpacked?;
        read.map_err(UnpackError::stream)?;
        Ok((summary, diff.map_err(UnpackError::stream)?))
    })
}

fn no_thread(err: io::Error) -> UnpackError {
    let text = format!("no thread can be started for it: {err}");
    UnpackError::stream(io::Error::new(err.kind(), text))
}

fn panicked() -> io::Error {
    io::Error::other("the thread that read it panicked")
}

/// Reads to the end. When nobody wants the pieces any more it still goes there, unless that is of
/// no use to anybody; then an error.
fn pump(mut source: impl Read, to: Filling, given_up: &AtomicBool) -> io::Result<()> {
    let mut is_wanted = true;
    while !given_up.load(Ordering::Relaxed) {
        let (piece, err) = to.fill(&mut source);
        let is_end = piece.filled == 0 && err.is_none();
        is_wanted = is_wanted && (piece.filled == 0 || to.full.send(Ok(piece)).is_ok());
        match err {
            Some(err) if is_wanted => {
                // Told where the stream is unpacked, unless nobody listens there any more.
                return match to.full.send(Err(err)) {
                    Err(SendError(Err(err))) => Err(err),
                    _ => Ok(()),
                };
            }
            Some(err) => return Err(err),
            None if is_end => return Ok(()),
            None => {}
        }
    }
    Err(io::ErrorKind::Interrupted.into())
}

/// Unpacks the stream, hashes it, and sends it on; its digest.
fn decode(
    store: &Store,
    (packed, feed): (Pieces, Feed),
    to: Filling,
    is_over: &dyn Fn() -> bool,
) -> io::Result<Digest> {
    let mut hash = Sha256::new();
    let work = || {
        let mut stream = decoded(packed, feed, is_over)?;
        let (mut seen, mut sure_until) = (0u64, 0u64);
        loop {
            if seen >= sure_until {
                // What is unpacked is never longer than the stream: room for it is room for the
                // files.
                store.ensure_room(Bytes::new(ROOM)).map_err(io::Error::other)?;
                sure_until = seen + ROOM / 2;
            }
            let (piece, err) = to.fill(&mut stream);
            hash.update(piece.bytes());
            seen += piece.filled as u64;
            let is_end = piece.filled == 0;
            // Who gave up does so for a better reason than ours.
            if to.full.send(Ok(piece)).is_err() {
                return Ok(());
            }
            match err {
                Some(err) => return Err(err),
                None if is_end => return Ok(()),
                None => {}
            }
        }
    };
    if let Err(err) = work() {
        // The caller has it from there.
        let _ = to.full.send(Err(err));
    }
    Ok(Digest::finish(hash))
}

/// The tar stream inside, by its first bytes.
fn decoded<'a>(
    mut packed: impl BufRead + 'a,
    feed: Feed,
    is_over: &'a dyn Fn() -> bool,
) -> io::Result<Box<dyn Read + 'a>> {
    let unknown = |name: &str| {
        let text = format!("it is packed with {name}; gzip, zstd and plain tar can be read");
        io::Error::new(io::ErrorKind::Unsupported, text)
    };
    match packed.fill_buf()? {
        [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => {
            Ok(Box::new(Zstd::new(packed, feed, is_over)))
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

/// Bytes on their way from one thread to the next.
#[derive(Default)]
struct Piece {
    room: Box<[u8]>,
    filled: usize,
}

impl Piece {
    fn bytes(&self) -> &[u8] {
        &self.room[..self.filled]
    }
}

/// A row of pieces of so many `bytes`: at most so many that wait, one that is filled, one that is read.
fn row(waiting: usize, bytes: usize) -> (Filling, Pieces) {
    let (full, from) = sync_channel(waiting);
    let (back, empty) = channel();
    (Filling { full, empty, bytes }, Pieces { from, back, piece: Piece::default(), at: 0 })
}

/// The writing end.
struct Filling {
    full: SyncSender<io::Result<Piece>>,
    /// What was read.
    empty: Receiver<Box<[u8]>>,
    /// Of a piece.
    bytes: usize,
}

impl Filling {
    /// A whole piece, or what there was before the end or the error.
    fn fill(&self, source: &mut impl Read) -> (Piece, Option<io::Error>) {
        let room = self.empty.try_recv().unwrap_or_else(|_| vec![0; self.bytes].into());
        let mut piece = Piece { room, filled: 0 };
        let mut failed = None;
        while piece.filled < piece.room.len() && failed.is_none() {
            match source.read(&mut piece.room[piece.filled..]) {
                Ok(0) => break,
                Ok(read) => piece.filled += read,
                Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
                Err(err) => failed = Some(err),
            }
        }
        (piece, failed)
    }
}

/// The reading end.
struct Pieces {
    from: Receiver<io::Result<Piece>>,
    back: Sender<Box<[u8]>>,
    piece: Piece,
    at: usize,
}

impl BufRead for Pieces {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.at == self.piece.filled {
            let read = std::mem::take(&mut self.piece);
            self.at = 0;
            if !read.room.is_empty() {
                // Nobody fills it any more: it is freed here.
                let _ = self.back.send(read.room);
            }
            match self.from.recv() {
                Ok(next) => self.piece = next?,
                Err(_) => break,
            }
        }
        Ok(&self.piece.bytes()[self.at..])
    }

    fn consume(&mut self, read: usize) {
        self.at += read;
    }
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let here = self.fill_buf()?;
        let length = buffer.len().min(here.len());
        buffer[..length].copy_from_slice(&here[..length]);
        self.consume(length);
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PIECE: usize = 20 << 10;

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
        let (to, pieces) = row(PLAIN, PIECE);
        let given_up = AtomicBool::new(false);
        thread::scope(|scope| {
            let reader = scope.spawn(|| pump(source, to, &given_up));
            let got = match wanted {
                true => pieces.from.iter().map(|piece| piece.map(|piece| piece.filled)).collect(),
                false => {
                    drop(pieces);
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
            decoded(bytes, Feed::File, &|| false).map(|_| ()).map_err(|err| err.to_string())
        };
        assert!(of(b"\x28\xb5\x2f\xfd..").is_ok() && of(b"\x1f\x8b..").is_ok() && of(b"").is_ok());
        assert!(of(b"\xfd7zXZ\0....").expect_err("xz").contains("packed with xz"));
        assert!(of(b"BZh91AY&SY").expect_err("bzip2").contains("packed with bzip2"));
        assert!(of(b"BZhome/file").is_ok());
    }

    /// With lengths that fit no piece, so that an old one's end would show.
    #[test]
    fn what_goes_in_comes_out() {
        let data: Vec<u8> = (0..20 * PIECE + 777).map(|at| (at / 3 % 251) as u8).collect();
        let (to, mut pieces) = row(PLAIN, PIECE);
        thread::scope(|scope| {
            let reader = scope.spawn(|| pump(data.as_slice(), to, &AtomicBool::new(false)));
            let mut got = Vec::new();
            while !pieces.fill_buf().expect("bytes").is_empty() {
                let mut some = vec![0; 100_003];
                let read = pieces.read(&mut some).expect("bytes");
                got.extend_from_slice(&some[..read]);
            }
            assert!(reader.join().expect("no panic").is_ok());
            assert!(got == data, "other bytes came out");
        });
    }

    #[test]
    fn a_piece_that_was_read_is_filled_again() {
        let (to, mut pieces) = row(PLAIN, PIECE);
        for mut source in [vec![7; PIECE].as_slice(), &[8]] {
            let (piece, _) = to.fill(&mut source);
            assert!(to.full.send(Ok(piece)).is_ok());
        }
        pieces.read_exact(&mut vec![0; PIECE + 1]).expect("bytes");
        let (piece, _) = to.fill(&mut [9].as_slice());
        // A new one has zeros at its end.
        assert_eq!((piece.bytes(), piece.room[PIECE - 1]), (&[9][..], 7));
    }
}
