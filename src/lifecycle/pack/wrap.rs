//! What stands at the two ends of a stream that is packed: the files, and where it goes.

use sha2::{Digest as _, Sha256};
use std::fs::File;
use std::io::{self, Read, Write};

/// What only the digest of a stream is wanted of.
pub(super) struct Hasher(pub Sha256);

impl Write for Hasher {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Counts what passes, and lets nothing pass any more once torn.
pub(super) struct Counted<W> {
    pub out: W,
    pub bytes: u64,
    /// After an error: without this, the builder would write the end mark when it is dropped, and
    /// the reader would take half a tree for a whole one.
    pub torn: bool,
}

impl<W: Write> Write for Counted<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.torn {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let written = self.out.write(bytes)?;
        self.bytes += written as u64;
        Ok(written)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Gives exactly `left` bytes: a file's own, then zeros when it is too short or cannot be read.
pub(super) struct Exact<'a> {
    pub file: &'a File,
    pub left: u64,
    pub failure: Option<io::Error>,
    /// The file ended before its time.
    pub short: bool,
}

impl Read for Exact<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let want = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let buffer = &mut buffer[..want];
        let got = match self.failure.is_some() {
            true => 0,
            false => match self.file.read(buffer) {
                Err(err) if err.kind() == io::ErrorKind::Interrupted => return Err(err),
                Err(err) => {
                    self.failure = Some(err);
                    0
                }
                Ok(got) => {
                    self.short |= got == 0 && want > 0;
                    got
                }
            },
        };
        let given = if got == 0 { want } else { got };
        buffer[got..given].fill(0);
        self.left -= given as u64;
        Ok(given)
    }
}
