//! Where the bytes of a body begin and end: by length, by chunks or by the end of the connection.

use super::{Framing, Malformed, bad};
use std::ops::Range;

/// Longest line before a chunk, with its extensions, in bytes.
pub(super) const CHUNK_LINE_MAX: usize = 256;
/// Most bytes of trailer fields after the last chunk; they are dropped.
pub(super) const TRAILER_MAX: usize = 8 * 1024;

/// Finds the body in the bytes after a head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decoder(State);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Length(u64),
    ChunkLine,
    Chunk(u64),
    ChunkEnd,
    Trailer { seen: usize },
    UntilClose,
    Done,
}

/// What the decoder made of its input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Bytes of the input that are dealt with.
    pub used: usize,
    /// Those of them that belong to the body.
    pub data: Range<usize>,
}

impl Decoder {
    /// At the beginning of a body.
    pub fn new(framing: Framing) -> Decoder {
        Decoder(match framing {
            Framing::Length(0) => State::Done,
            Framing::Length(length) => State::Length(length),
            Framing::Chunked => State::ChunkLine,
            Framing::UntilClose => State::UntilClose,
        })
    }

    /// The whole body has gone by.
    pub fn is_done(&self) -> bool {
        self.0 == State::Done
    }

    /// The connection ended: was the body whole?
    pub fn finish(&mut self) -> Result<(), Malformed> {
        match self.0 {
            State::Done | State::UntilClose => {
                self.0 = State::Done;
                Ok(())
            }
            _ => Err(bad("the connection ended inside a body")),
        }
    }

    /// One step forward. `None`: it takes more input (or the body is done).
    pub fn step(&mut self, input: &[u8]) -> Result<Option<Step>, Malformed> {
        let plain = |used| Ok(Some(Step { used, data: 0..0 }));
        match self.0 {
            State::Done => Ok(None),
            _ if input.is_empty() => Ok(None),
            State::UntilClose => Ok(Some(Step { used: input.len(), data: 0..input.len() })),
            State::Length(left) | State::Chunk(left) => {
                let take = usize::try_from(left).unwrap_or(usize::MAX).min(input.len());
                let left = left - take as u64;
                self.0 = match (self.0, left) {
                    (State::Length(_), 0) => State::Done,
                    (State::Length(_), left) => State::Length(left),
                    (_, 0) => State::ChunkEnd,
                    (_, left) => State::Chunk(left),
                };
                Ok(Some(Step { used: take, data: 0..take }))
            }
            State::ChunkLine => {
                let Some(line) = line(input, CHUNK_LINE_MAX)? else { return Ok(None) };
                self.0 = match chunk_size(line)? {
                    0 => State::Trailer { seen: 0 },
                    size => State::Chunk(size),
                };
                plain(line.len() + 2)
            }
            State::ChunkEnd => {
                let Some(rest) = line(input, 2)? else { return Ok(None) };
                if !rest.is_empty() {
                    return Err(bad("a chunk is longer than it says"));
                }
                self.0 = State::ChunkLine;
                plain(2)
            }
            State::Trailer { seen } => {
                let Some(field) = line(input, TRAILER_MAX - seen)? else { return Ok(None) };
                self.0 = match field {
                    [] => State::Done,
                    field => State::Trailer { seen: seen + field.len() + 2 },
                };
                plain(field.len() + 2)
            }
        }
    }
}

/// The first line of `input` without its CRLF; `None`: it has no end yet.
fn line(input: &[u8], max: usize) -> Result<Option<&[u8]>, Malformed> {
    let window = &input[..input.len().min(max)];
    match window.iter().position(|&b| b == b'\n') {
        Some(end) if end > 0 && input[end - 1] == b'\r' => Ok(Some(&input[..end - 1])),
        Some(_) => Err(bad("a line ends without CR")),
        None if input.len() >= max => Err(bad("a chunk line or trailer is too long")),
        None => Ok(None),
    }
}

/// The size in a chunk's line; extensions are dropped.
fn chunk_size(line: &[u8]) -> Result<u64, Malformed> {
    let digits = line.iter().take_while(|b| b.is_ascii_hexdigit()).count();
    let (digits, rest) = line.split_at(digits);
    let clean = matches!(rest.iter().find(|b| !matches!(b, b' ' | b'\t')), None | Some(b';'));
    if digits.is_empty() || digits.len() > 15 || !clean {
        return Err(bad("a chunk size is no hexadecimal number"));
    }
    let text = std::str::from_utf8(digits).map_err(|_| bad("a chunk size is not ASCII"))?;
    u64::from_str_radix(text, 16).map_err(|_| bad("a chunk size is no hexadecimal number"))
}
