//! What clients send to a process's standard input, on its way there.
//!
//! A process that does not read holds up nobody at first: some of it is kept. Then those who send
//! wait, until it reads or ends.

use async_io::Async;
use smol::channel::{Receiver, Sender, bounded};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;

/// Pieces that are kept, and the longest: together 4 MiB.
const PIECES_MAX: usize = 64;
const PIECE_BYTES: usize = 64 << 10;

/// A piece, or the end.
type Piece = Option<Vec<u8>>;

/// The clients' end; clones feed the same process.
#[derive(Clone)]
pub(super) struct Input(Sender<Piece>);

impl Input {
    /// An input without a way yet, and the other end for [`carry`].
    pub(super) fn new() -> (Input, Receiver<Piece>) {
        let (sender, receiver) = bounded(PIECES_MAX);
        (Input(sender), receiver)
    }

    /// Sends some bytes. Waits for room; returns at once when the process reads no more.
    pub(super) async fn send(&self, bytes: &[u8]) {
        for piece in bytes.chunks(PIECE_BYTES) {
            if self.0.send(Some(piece.to_vec())).await.is_err() {
                return;
            }
        }
    }

    /// No more input comes: the process sees the end after what was sent before.
    pub(super) async fn end(&self) {
        let _ = self.0.send(None).await;
    }
}

/// Writes what is sent to `fd` until its end, or the process reads no more.
pub(super) async fn carry(fd: OwnedFd, pieces: Receiver<Piece>) -> io::Result<()> {
    let pipe = Async::new(File::from(fd))?;
    while let Ok(Some(piece)) = pieces.recv().await {
        let mut rest = &piece[..];
        while !rest.is_empty() {
            let written = pipe.write_with(|mut pipe| pipe.write(rest)).await?;
            rest = &rest[written..];
        }
    }
    Ok(())
}
