//! Reads and writes the frames of [`super::wire`] on a connection.

use super::wire::{Frame, HEADER, PAYLOAD_MAX};
use smol::future;
use smol::io::{AsyncReadExt, AsyncWriteExt, BoxedReader, BoxedWriter};
use smol::lock::Mutex;
use std::io;

/// The reading side. Cancelling [`Frames::next`] loses nothing.
pub struct Frames {
    reader: BoxedReader,
    buffer: Box<[u8]>,
    end: usize,
}

impl Frames {
    /// Frames from `reader`.
    pub fn new(reader: BoxedReader) -> Frames {
        Frames { reader, buffer: vec![0; HEADER + PAYLOAD_MAX].into(), end: 0 }
    }

    /// The next frame; `None`: the peer has gone. `InvalidData`: it does not keep to the format.
    pub async fn next(&mut self) -> io::Result<Option<Frame>> {
        loop {
            let frame = Frame::decode(&self.buffer[..self.end]).map_err(io::Error::other)?;
            if let Some((frame, used)) = frame {
                self.buffer.copy_within(used..self.end, 0);
                self.end -= used;
                return Ok(Some(frame));
            }
            match self.reader.read(&mut self.buffer[self.end..]).await? {
                0 if self.end == 0 => return Ok(None),
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => self.end += count,
            }
        }
    }
}

/// The writing side, shared by everybody who has something to say.
pub struct FrameWriter(Mutex<BoxedWriter>);

impl FrameWriter {
    /// Frames to `writer`.
    pub fn new(writer: BoxedWriter) -> FrameWriter {
        FrameWriter(Mutex::new(writer))
    }

    /// Writes one frame whole. A cancelled write leaves the connection unusable.
    pub async fn send(&self, frame: &Frame) -> io::Result<()> {
        // The lock is held across the write on purpose: two frames must not mix.
        let mut writer = self.0.lock().await;
        writer.write_all(&frame.encode()).await?;
        writer.flush().await
    }

    /// Sends what `reader` yields, made a frame by `wrap`, until it ends, or until `last` is over
    /// and there is nothing to read at the moment.
    pub async fn copy(
        &self,
        mut reader: BoxedReader,
        wrap: fn(Vec<u8>) -> Frame,
        last: impl Future<Output = ()>,
    ) -> io::Result<()> {
        let mut last = std::pin::pin!(async {
            last.await;
            Ok(0)
        });
        let mut buffer = vec![0; PAYLOAD_MAX / 4];
        loop {
            // Only the read is ever cancelled: half a frame would make the rest unreadable.
            match future::or(reader.read(&mut buffer), last.as_mut()).await {
                Ok(0) => return Ok(()),
                Ok(count) => self.send(&wrap(buffer[..count].to_vec())).await?,
                // EIO: how the master of a terminal says that the last process has closed it.
                Err(err) if err.raw_os_error() == Some(5) => return Ok(()),
                Err(err) => return Err(err),
            }
        }
    }
}
