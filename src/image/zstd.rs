//! Streams of zstd, with a window that fits into what this process may use.
//!
//! | bytes | field of a frame's head (RFC 8878, 3.1.1) |
//! |---|---|
//! | 0..4 | magic `28 b5 2f fd`; `5x 2a 4d 18` and four bytes of length: skipped |
//! | 4 | bits 0-1 length of the dictionary's id, 5 one segment, 6-7 length of the content's |
//! | 5 | unless it is one segment: window, 3 bits of eighths and 5 bits of power less 10 |
//! | then | id of a dictionary, 0, 1, 2 or 4 bytes |
//! | then | length of the content, 0, 1, 2, 4 or 8 bytes: with one segment, the window |

use super::work::{self, Feed, Pass, WINDOW_LOG_MAX, WINDOWS, Wish};
use std::io::{self, BufRead, Read};
use zstd::stream::raw::{DParameter, Decoder, InBuffer, Operation, OutBuffer};

/// Longest head of a frame.
const HEAD_MAX: usize = 18;

/// The content of a stream.
pub struct Zstd<'a, R> {
    packed: R,
    feed: Feed,
    is_over: &'a dyn Fn() -> bool,
    /// The head of the frame that begins, and what of it the decoder has.
    head: Vec<u8>,
    given: usize,
    /// `None`: before the first frame.
    frame: Option<Frame>,
}

/// The frame that is read. Its decoder keeps the largest window so far, so both go together.
struct Frame {
    decoder: Decoder<'static>,
    /// It is at its end.
    is_over: bool,
    window: u64,
    _memory: Pass<'static>,
}

impl<'a, R: BufRead> Zstd<'a, R> {
    /// Waits for memory until `is_over`.
    pub fn new(packed: R, feed: Feed, is_over: &'a dyn Fn() -> bool) -> Zstd<'a, R> {
        Zstd { packed, feed, is_over, head: Vec::new(), given: 0, frame: None }
    }

    /// Reads the next head and makes sure of memory for its frame; `false`: the stream ends.
    fn begin(&mut self) -> io::Result<bool> {
        // A frame may be shorter than the longest head: what follows it is in there, too.
        self.head.drain(..std::mem::take(&mut self.given));
        while self.head.len() < HEAD_MAX {
            let more = self.packed.fill_buf()?;
            if more.is_empty() {
                break;
            }
            let taken = more.len().min(HEAD_MAX - self.head.len());
            self.head.extend_from_slice(&more[..taken]);
            self.packed.consume(taken);
        }
        if self.head.is_empty() {
            return Ok(false);
        }
        let window = window(&self.head).unwrap_or_default();
        if window > WINDOWS {
            return Err(io::Error::new(io::ErrorKind::Unsupported, too_large(window)));
        }
        match &mut self.frame {
            Some(frame) if frame.window >= window => {
                frame.decoder.reinit()?;
                frame.is_over = false;
            }
            // Nobody may hold memory and wait for more: what the last one had goes first.
            last => {
                *last = None;
                *last = Some(Frame::new(window, self.feed, self.is_over)?);
            }
        }
        Ok(true)
    }
}

impl Frame {
    /// Waits for memory for its window.
    fn new(window: u64, feed: Feed, is_over: &dyn Fn() -> bool) -> io::Result<Frame> {
        let memory = work::window(window, feed, is_over);
        let memory = memory.ok_or_else(|| io::Error::other(Wish::failure()))?;
        let mut decoder = Decoder::new()?;
        decoder.set_parameter(DParameter::WindowLogMax(WINDOW_LOG_MAX))?;
        Ok(Frame { decoder, is_over: false, window, _memory: memory })
    }
}

impl<R: BufRead> Read for Zstd<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        let mut out = OutBuffer::around(buffer);
        loop {
            let is_between = self.frame.as_ref().is_none_or(|frame| frame.is_over);
            if is_between && !self.begin()? {
                return Ok(0);
            }
            let Some(frame) = &mut self.frame else { return Ok(0) };
            let is_head = self.given < self.head.len();
            let data = match is_head {
                true => &self.head[self.given..],
                false => self.packed.fill_buf()?,
            };
            let is_end = data.is_empty();
            let mut packed = InBuffer::around(data);
            let left = frame.decoder.run(&mut packed, &mut out)?;
            let used = packed.pos();
            match is_head {
                true => self.given += used,
                false => self.packed.consume(used),
            }
            frame.is_over = left == 0;
            match out.pos() {
                0 if frame.is_over => {}
                0 if is_end => return Err(io::ErrorKind::UnexpectedEof.into()),
                0 => {}
                made => return Ok(made),
            }
        }
    }
}

/// What a frame's window takes in bytes; `None`: it is no frame, or no whole head.
fn window(head: &[u8]) -> Option<u64> {
    let rest = head.strip_prefix(&[0x28, 0xb5, 0x2f, 0xfd])?;
    let (flags, rest) = rest.split_first()?;
    if flags & 0x20 == 0 {
        let byte = *rest.first()?;
        let base = 1u64 << (10 + (byte >> 3));
        return Some(base + base / 8 * u64::from(byte & 7));
    }
    let dictionary = [0, 1, 2, 4][usize::from(flags & 3)];
    let length = [1, 2, 4, 8][usize::from(flags >> 6)];
    let field = rest.get(dictionary..dictionary + length)?;
    let mut bytes = [0; 8];
    bytes[..length].copy_from_slice(field);
    let more = if length == 2 { 256 } else { 0 };
    Some(u64::from_le_bytes(bytes).saturating_add(more))
}

/// Why a frame is refused, and the cure.
fn too_large(window: u64) -> String {
    let (is, most) = (window.div_ceil(1 << 20), WINDOWS >> 20);
    format!(
        "it is packed by zstd with a window of {is} MiB, which is memory that this box would need to \
         unpack it; {most} MiB are allowed: pack it again without --long and --ultra, at level 19 or \
         below, or with gzip"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufReader, Write};
    use zstd::stream::raw::CParameter;

    fn packed(data: &[u8], log: u32) -> Vec<u8> {
        let mut to = zstd::Encoder::new(Vec::new(), 1).expect("encoder");
        to.set_parameter(CParameter::WindowLog(log)).expect("window");
        to.write_all(data).and_then(|()| to.finish()).expect("packed")
    }

    /// Through a buffer of this size.
    fn unpacked(data: &[u8], buffer: usize) -> Result<Vec<u8>, String> {
        let mut all = Vec::new();
        let from = BufReader::with_capacity(buffer, data);
        let read = Zstd::new(from, Feed::File, &|| false).read_to_end(&mut all);
        read.map(|_| all).map_err(|err| err.to_string())
    }

    fn noise(length: usize) -> Vec<u8> {
        (0..length as u64).map(|at| (at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect()
    }

    #[test]
    fn frames_follow_one_another_however_short() {
        let skipped = [&[0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0][..], b"abc"].concat();
        let (one, other, none) = (noise(300_000), b"b".to_vec(), Vec::new());
        let frames = [&one, &none, &other, &none].map(|data| packed(data, 20));
        let [a, b, c, d] = &frames;
        let stream = [&skipped, a, b, c, &skipped, d, &skipped].map(|it| &it[..]).concat();
        for buffer in [1, 7, 64 << 10] {
            assert!(unpacked(&stream, buffer) == Ok([&one[..], &other].concat()), "{buffer}");
        }
        assert_eq!(unpacked(&[], 9), Ok(Vec::new()));
        let cut = unpacked(&stream[..a.len()], 4096).expect_err("cut");
        assert!(cut.contains("unexpected end of file"), "{cut}");
        assert!(unpacked(&[a, &b"junk"[..]].concat(), 4096).is_err());
    }

    #[test]
    fn a_window_is_read_from_the_head() {
        let head = |flags: u8, rest: &[u8]| [&[0x28, 0xb5, 0x2f, 0xfd, flags], rest].concat();
        for (flags, rest, bytes) in [
            (0, &[0x00][..], 1 << 10),
            (0, &[0x6b], (8 << 20) + 3 * (1 << 20)),
            (0x20, &[200], 200),
            (0x60, &[0, 1], 512),
            (0x63, &[9, 9, 9, 9, 0, 1], 512),
            (0xa0, &[0, 0, 0, 2], 32 << 20),
            (0xe0, &[0xff; 8], u64::MAX),
        ] {
            assert_eq!(window(&head(flags, rest)), Some(bytes), "{flags:x}");
        }
        assert_eq!(window(&head(0x20, &[])), None);
        assert_eq!(window(b"\x50\x2a\x4d\x18...."), None);
    }

    #[test]
    fn a_window_that_is_too_large_is_refused_with_the_cure_in_later_frames_too() {
        let large = packed(&noise(300_000), 25);
        // What is shorter than the window says so as one segment, unless it comes as a stream.
        assert_eq!(window(&large), Some(32 << 20));
        let text = unpacked(&[packed(b"a", 24), large].concat(), 4096).expect_err("too large");
        assert!(text.contains("a window of 32 MiB") && text.contains("without --long"), "{text}");
        assert!(unpacked(&packed(&noise(300_000), 24), 4096).is_ok());
    }
}
