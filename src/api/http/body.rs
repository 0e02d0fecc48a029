//! The reading half of a connection: a bounded buffer, and bodies taken from it piece by piece.

use super::proto::{self, CONTINUE, Decoder, Framing, HEAD_MAX, Malformed};
use smol::future;
use smol::io::{AsyncReadExt, AsyncWriteExt, BoxedReader, BoxedWriter};
use std::fmt;
use std::io;
use std::time::{Duration, Instant};

/// The buffer of a connection that has said little; one that says more gets more, step by step.
const FIRST: usize = 1024;

/// What was read from a peer and not yet used. Cancelling a read loses nothing.
pub struct Inlet {
    reader: BoxedReader,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

impl Inlet {
    /// An empty buffer before `reader`; it grows to [`HEAD_MAX`] bytes when the peer fills it.
    pub fn new(reader: BoxedReader) -> Inlet {
        Inlet { reader, buffer: Vec::new(), start: 0, end: 0 }
    }

    /// What is there.
    pub fn data(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    /// Drops the first `count` bytes of [`Inlet::data`].
    pub fn consume(&mut self, count: usize) {
        self.start += count;
        assert!(self.start <= self.end, "only what was seen is consumed");
    }

    /// Reads once more; `false`: the peer has ended its side. There must be room.
    pub async fn more(&mut self) -> io::Result<bool> {
        self.more_within(HEAD_MAX).await
    }

    /// The same with a buffer that grows to `max` bytes.
    pub(super) async fn more_within(&mut self, max: usize) -> io::Result<bool> {
        if self.end == self.buffer.len() {
            let room = (self.buffer.len() * 2).clamp(FIRST, max.max(self.buffer.len()));
            self.buffer.resize(room, 0);
        }
        self.buffer.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        assert!(self.end < self.buffer.len(), "callers consume or give up before it is full");
        // A piece: behind a long head there is little that belongs to its body.
        let room = self.buffer.len().min(self.end + HEAD_MAX);
        let count = self.reader.read(&mut self.buffer[self.end..room]).await?;
        self.end += count;
        Ok(count > 0)
    }

    /// There is no room to read more.
    pub fn is_full(&self) -> bool {
        self.end - self.start >= HEAD_MAX
    }

    /// Gives back the memory of a long head that was consumed.
    pub(super) fn shrink(&mut self) {
        if self.buffer.len() > HEAD_MAX {
            self.buffer = self.data().to_vec();
            (self.start, self.end) = (0, self.buffer.len());
        }
    }

    /// Returns when the peer has gone. What it sends meanwhile is kept for later; a peer that
    /// fills the buffer is not watched any further.
    pub async fn gone(&mut self) {
        while !self.is_full() {
            if !matches!(self.more().await, Ok(true)) {
                return;
            }
        }
        future::pending().await
    }

    /// The raw stream: what is buffered, then the rest.
    pub fn into_reader(self) -> BoxedReader {
        match self.data() {
            [] => self.reader,
            rest => Box::pin(smol::io::Cursor::new(rest.to_vec()).chain(self.reader)),
        }
    }
}

/// Why a body could not be read.
#[derive(Debug)]
pub enum BodyError {
    /// "the body is longer than {max} bytes"
    TooLarge {
        /// The limit of this request.
        max: usize,
    },
    /// It breaks the rules of HTTP.
    Malformed(Malformed),
    /// "the body did not arrive in time"
    Slow,
    /// "the connection broke inside the body"
    Lost(io::Error),
}

impl BodyError {
    /// The status that answers it.
    pub fn status(&self) -> u16 {
        match self {
            BodyError::TooLarge { .. } => 413,
            BodyError::Malformed(err) => err.status,
            BodyError::Slow => 408,
            BodyError::Lost(_) => 400,
        }
    }
}

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BodyError::TooLarge { max } => write!(f, "the body is longer than {max} bytes"),
            BodyError::Malformed(err) => f.write_str(err.why),
            BodyError::Slow => f.write_str("the body did not arrive in time"),
            BodyError::Lost(_) => f.write_str("the connection broke inside the body"),
        }
    }
}

impl std::error::Error for BodyError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            BodyError::Lost(err) => Some(err),
            _ => None,
        }
    }
}

/// The next piece of a body; `None`: it is whole.
pub async fn piece(inlet: &mut Inlet, decoder: &mut Decoder) -> Result<Option<Vec<u8>>, BodyError> {
    while !decoder.is_done() {
        match decoder.step(inlet.data()).map_err(BodyError::Malformed)? {
            Some(step) => {
                let data = inlet.data()[step.data].to_vec();
                inlet.consume(step.used);
                if !data.is_empty() {
                    return Ok(Some(data));
                }
            }
            None => {
                if !inlet.more().await.map_err(BodyError::Lost)? {
                    decoder.finish().map_err(BodyError::Malformed)?;
                }
            }
        }
    }
    Ok(None)
}

/// `work`, unless it takes longer than `limit`.
pub async fn within<T>(limit: Duration, work: impl Future<Output = T>) -> Option<T> {
    let late = async {
        smol::Timer::after(limit).await;
        None
    };
    future::or(async { Some(work.await) }, late).await
}

/// Writes all of `bytes`. A peer that takes nothing for as long as `stall` gets `TimedOut`; one that
/// takes a little now and then may need any time.
pub async fn write_while_taken(
    outlet: &mut BoxedWriter,
    mut bytes: &[u8],
    stall: Option<Duration>,
) -> io::Result<()> {
    let Some(stall) = stall else { return outlet.write_all(bytes).await };
    while !bytes.is_empty() {
        match within(stall, outlet.write(bytes)).await.ok_or(io::ErrorKind::TimedOut)?? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            count => bytes = &bytes[count..],
        }
    }
    Ok(())
}

/// The body of a request while its handler runs.
pub struct Body<'a> {
    inlet: &'a mut Inlet,
    outlet: &'a mut BoxedWriter,
    decoder: Decoder,
    wants_continue: bool,
    takes_interim: bool,
    patience: Duration,
    broken: bool,
}

impl<'a> Body<'a> {
    /// The body that follows a head in `inlet`.
    pub(super) fn new(
        inlet: &'a mut Inlet,
        outlet: &'a mut BoxedWriter,
        framing: Framing,
        (wants_continue, takes_interim): (bool, bool),
        patience: Duration,
    ) -> Body<'a> {
        let decoder = Decoder::new(framing);
        let wants_continue = wants_continue && !decoder.is_done();
        Body { inlet, outlet, decoder, wants_continue, takes_interim, patience, broken: false }
    }

    /// The next piece, at most 16 KiB; `None`: that was all. A peer may pause between two pieces
    /// for as long as the server's read timeout.
    pub async fn next(&mut self) -> Result<Option<Vec<u8>>, BodyError> {
        let work = async {
            if std::mem::take(&mut self.wants_continue) {
                self.outlet.write_all(CONTINUE).await.map_err(BodyError::Lost)?;
            }
            piece(self.inlet, &mut self.decoder).await
        };
        let result = within(self.patience, work).await.unwrap_or(Err(BodyError::Slow));
        self.broken |= result.is_err();
        result
    }

    /// The whole body, when it has at most `max` bytes and is there before the read timeout.
    pub async fn bytes(&mut self, max: usize) -> Result<Vec<u8>, BodyError> {
        let deadline = Instant::now() + self.patience;
        let mut out = Vec::new();
        while let Some(data) = self.next().await? {
            if out.len() + data.len() > max {
                return Err(BodyError::TooLarge { max });
            }
            if Instant::now() > deadline {
                self.broken = true;
                return Err(BodyError::Slow);
            }
            out.extend_from_slice(&data);
        }
        Ok(out)
    }

    /// Returns when the client has gone, or has ended its side. With some of the body unread that
    /// cannot be seen: then it never returns.
    pub async fn gone(&mut self) {
        match self.decoder.is_done() {
            true => self.inlet.gone().await,
            false => future::pending().await,
        }
    }

    /// Tells the client something before the answer, by a head of its own; nothing, if it has not asked in
    /// HTTP/1.1 or has gone. The value is text of one line.
    pub async fn interim(&mut self, name: &str, value: &str) {
        if self.takes_interim {
            let head = proto::head("HTTP/1.1 102 Processing", [(name, value)]);
            // Whoever does not take that, does not wait for an answer either.
            let sent = within(self.patience, self.outlet.write_all(&head)).await;
            self.broken |= !matches!(sent, Some(Ok(())));
        }
    }

    /// What is left of it is not waited for: the connection ends with the answer.
    pub fn give_up(&mut self) {
        self.broken = true;
    }

    /// Reads and drops what the handler left, at most `max` bytes. `false`: the place of the next
    /// request is not known, so the connection must close.
    pub(super) async fn drain(&mut self, max: usize) -> bool {
        // A client that still waits for `100 Continue` may send the body or not: nobody knows.
        if self.broken || self.wants_continue {
            return false;
        }
        let mut left = max;
        loop {
            match self.next().await {
                Ok(None) => return true,
                Ok(Some(data)) if data.len() <= left => left -= data.len(),
                Ok(Some(_)) | Err(_) => return false,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_grows_with_what_is_said_and_no_further_than_a_head() {
        let said: Vec<u8> = (0..100_000_u32).map(|n| n as u8).collect();
        let mut inlet = Inlet::new(Box::pin(smol::io::Cursor::new(said.clone())));
        assert_eq!(inlet.buffer.capacity(), 0);
        let (mut heard, mut sizes) = (Vec::new(), Vec::new());
        while smol::block_on(inlet.more()).expect("it never fails") {
            sizes.push(inlet.buffer.len());
            heard.extend_from_slice(inlet.data());
            inlet.consume(inlet.data().len());
        }
        assert_eq!(heard, said);
        assert_eq!(sizes[..6], [1024, 2048, 4096, 8192, HEAD_MAX, HEAD_MAX]);
        assert_eq!(sizes.iter().max(), Some(&HEAD_MAX));

        let mut inlet = Inlet::new(Box::pin(smol::io::Cursor::new(said.clone())));
        while !inlet.is_full() {
            assert!(smol::block_on(inlet.more()).expect("it never fails"));
        }
        assert_eq!(inlet.data(), &said[..HEAD_MAX], "nothing is lost while it grows");

        while inlet.data().len() < 90_000 {
            assert!(smol::block_on(inlet.more_within(100_000)).expect("it never fails"));
            assert!(inlet.buffer.len() <= (2 * inlet.data().len()).max(FIRST));
        }
        inlet.consume(inlet.data().len() - 10_000);
        let rest = inlet.data().len();
        inlet.shrink();
        assert_eq!(inlet.buffer.capacity(), rest);
        while inlet.data().len() < 20_000 {
            let left = inlet.data().len().min(1000);
            inlet.consume(left);
            if !smol::block_on(inlet.more()).expect("it never fails") {
                break;
            }
        }
        assert!(said.ends_with(inlet.data()) && inlet.buffer.len() <= HEAD_MAX);
    }
}
