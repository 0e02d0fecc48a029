//! Reads what a process writes, to its last byte.

use super::cancel::Cancel;
use super::lines::Lines;
use super::logs::AppLog;
use async_io::Async;
use smol::future;
use std::io::{self, Read};
use std::os::fd::OwnedFd;

/// Reads of at most this many bytes: a pipe's default capacity.
const CHUNK: usize = 64 * 1024;

/// Reads left to do after the process has ended, at most: pid 1 keeps the write end open, so a
/// pipe has no end, and a child of the process may go on writing.
const DRAIN_MAX: usize = 16;

/// Where the lines of a process go.
#[derive(Clone)]
pub struct Sink {
    /// The app's log.
    pub log: std::sync::Arc<AppLog>,
    /// `APP/PROC/WEB`, `STG`.
    pub source: String,
    /// Index of the instance.
    pub index: u32,
}

impl Sink {
    /// One line of the executor's own.
    pub fn say(&self, err: bool, text: impl Into<String>) {
        self.log.write(&self.source, self.index, err, text);
    }
}

/// Gives `take` every byte of `fd` until `ended` is cancelled, and then what is still in the pipe.
pub async fn drain(fd: OwnedFd, ended: Cancel, mut take: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
    let file = Async::new(std::fs::File::from(fd))?;
    let mut buffer = vec![0; CHUNK];
    loop {
        let read = future::or(async { Some(file.read_with(|mut file| file.read(&mut buffer)).await) }, async {
            ended.cancelled().await;
            None
        });
        match read.await {
            Some(Ok(0)) => return Ok(()),
            Some(Ok(length)) => take(&buffer[..length])?,
            // The other side of a terminal is closed.
            Some(Err(err)) if err.raw_os_error() == Some(5) => return Ok(()),
            Some(Err(err)) => return Err(err),
            None => break,
        }
    }
    for _ in 0..DRAIN_MAX {
        match file.get_ref().read(&mut buffer) {
            Ok(0) | Err(_) => break,
            Ok(length) => take(&buffer[..length])?,
        }
    }
    Ok(())
}

/// Turns one stream into log lines.
pub async fn log_lines(fd: Option<OwnedFd>, spooled: Vec<u8>, err: bool, sink: Sink, ended: Cancel) {
    let mut lines = Lines::default();
    lines.push(&spooled, |line| sink.say(err, line));
    if let Some(fd) = fd {
        let read = drain(fd, ended, |bytes| {
            lines.push(bytes, |line| sink.say(err, line));
            Ok(())
        });
        if let Err(error) = read.await {
            crate::warn!("stream.broken", source = sink.source, err = error);
        }
    }
    lines.flush(|line| sink.say(err, line));
}
