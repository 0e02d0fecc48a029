//! Reads what a process writes, to its last byte.

use super::cancel::Cancel;
use super::limit::Limit;
use super::lines::Lines;
use super::logs::AppLog;
use crate::container::Relief;
use crate::sys::fd::has_mark;
use async_io::{Async, Timer};
use smol::future;
use std::fs::File;
use std::io::{self, IsTerminal, Read};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

/// Reads of at most this many bytes. Turning so many into log lines keeps the daemon's one thread for
/// milliseconds at worst; then it is everybody else's turn.
const CHUNK: usize = 16 * 1024;

/// Reads left to do after the process has ended, at most: pid 1 keeps the write end open, so a
/// pipe has no end, and a child of the process may go on writing. Together they are the most that a
/// pipe can have held at the end of its process, 1 MiB.
const DRAIN_MAX: usize = 64;

/// How long the last words of an ended process may be on their way through its terminal.
const LINGER: Duration = Duration::from_millis(500);

/// Errno of a terminal whose other side is closed.
const EIO: i32 = 5;

/// Where the lines of a process go.
#[derive(Clone)]
pub struct Sink {
    /// The app's log; `None`: nowhere.
    pub log: Option<Arc<AppLog>>,
    /// `APP/PROC/WEB`, `STG`.
    pub source: String,
    /// Index of the instance.
    pub index: u32,
    /// The lines are heard by who asked for them, and are no lines of a log.
    pub heard: Option<Heard>,
}

/// Bytes of what is heard that are kept: the first ones.
const HEARD_MAX: usize = 4 * 1024;

/// Lines that are kept in memory, such as those of a health check. Clones share them.
#[derive(Clone, Default)]
pub struct Heard(Arc<Mutex<String>>);

impl Heard {
    /// What was said so far, without white space around it.
    pub fn text(&self) -> String {
        self.inner().trim().to_owned()
    }

    fn add(&self, line: &str) {
        let mut text = self.inner();
        let left = HEARD_MAX.saturating_sub(text.len());
        let end = (0..=left.min(line.len())).rev().find(|at| line.is_char_boundary(*at));
        text.push_str(&line[..end.unwrap_or(0)]);
        if text.len() < HEARD_MAX {
            text.push('\n');
        }
    }

    fn inner(&self) -> MutexGuard<'_, String> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Sink {
    /// The sink of a step: its own source if it names one.
    pub fn or(&self, source: &str) -> Sink {
        let source = if source.is_empty() { &self.source } else { source };
        Sink { source: source.to_owned(), ..self.clone() }
    }

    /// One line of the executor's own.
    pub fn say(&self, err: bool, text: impl Into<String>) {
        if let Some(heard) = &self.heard {
            return heard.add(&text.into());
        }
        if let Some(log) = &self.log {
            log.write(&self.source, self.index, err, text);
        }
    }
}

/// Reads one stream of a process: first as it comes, and after the end of the process what is still
/// in the pipe.
pub struct Reader {
    file: Async<File>,
    ended: Cancel,
    left: usize,
    terminal: bool,
    buffer: Vec<u8>,
    /// By which it gets back what pid 1 has taken over; `None`: that never does.
    relief: Option<Relief>,
    /// What came by it.
    kept: Vec<u8>,
}

impl Reader {
    /// Reads `fd` until `ended` is cancelled and the pipe is empty.
    pub fn new(fd: OwnedFd, ended: Cancel) -> io::Result<Reader> {
        let file = File::from(fd);
        let terminal = file.is_terminal();
        let file = Async::new(file)?;
        let (buffer, kept) = (vec![0; CHUNK], Vec::new());
        Ok(Reader { file, ended, left: DRAIN_MAX, terminal, buffer, relief: None, kept })
    }

    /// The same of a process that never waits for us.
    pub fn with(self, relief: Option<Relief>) -> Reader {
        Reader { relief, ..self }
    }

    /// The next bytes; `None` after the last ones.
    pub async fn next(&mut self) -> io::Result<Option<&[u8]>> {
        // A pipe that is never empty is always ready: without this, whoever writes fast enough
        // would have the executor's only thread for himself.
        future::yield_now().await;
        let Reader { file, ended, left, terminal, buffer, relief, kept } = self;
        // Right before each read, as long as we may have stood still.
        let is_taken = |file: &File| relief.is_some() && has_mark(file);
        // Asked first: whoever is always ready to be read would never let the end be heard.
        if *left == DRAIN_MAX && !ended.is_cancelled() {
            let come = ended.or(file.read_with(|mut file| match is_taken(file) {
                true => Ok(None),
                false => file.read(buffer).map(Some),
            }));
            match come.await {
                Some(Ok(None)) => return take_back(relief, kept).await.map(Some),
                Some(Ok(Some(0))) => return Ok(None),
                Some(Ok(Some(length))) => return Ok(Some(&self.buffer[..length])),
                // The other side of a terminal is closed.
                Some(Err(err)) if err.raw_os_error() == Some(EIO) => return Ok(None),
                Some(Err(err)) => return Err(err),
                None => {}
            }
        }
        let Some(rest) = left.checked_sub(1) else { return Ok(None) };
        *left = rest;
        if *terminal {
            // What was written to it is on its way for a moment, and one empty look is no end. Its
            // end is told, unless something that the process has left holds it open.
            let read = file.read_with(|mut file| file.read(buffer));
            let long_enough = async {
                Timer::after(LINGER).await;
                Ok(0)
            };
            return match future::or(read, long_enough).await {
                Ok(length @ 1..) => Ok(Some(&self.buffer[..length])),
                _ => Ok(None),
            };
        }
        if is_taken(file.get_ref()) {
            return take_back(relief, kept).await.map(Some);
        }
        match file.get_ref().read(buffer) {
            Ok(length @ 1..) => Ok(Some(&self.buffer[..length])),
            _ => Ok(None),
        }
    }
}

/// Gets what pid 1 has taken over; perhaps nothing, and then there is more to read.
async fn take_back<'a>(relief: &Option<Relief>, kept: &'a mut Vec<u8>) -> io::Result<&'a [u8]> {
    if let Some(relief) = relief {
        *kept = relief.take_back().await.map_err(io::Error::other)?;
        if !kept.is_empty() {
            let (handle, id) = relief.of();
            crate::warn!("output.kept", handle = handle, id = id, bytes = kept.len());
        }
    }
    Ok(kept)
}

/// Gives `take` every byte of `fd` until `ended` is cancelled, and then what is still in the pipe.
pub async fn drain(
    fd: OwnedFd,
    ended: Cancel,
    take: impl FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<()> {
    to_the_end(Reader::new(fd, ended)?, take).await
}

async fn to_the_end(
    mut reader: Reader,
    mut take: impl FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<()> {
    while let Some(bytes) = reader.next().await? {
        take(bytes)?;
    }
    Ok(())
}

/// Turns one stream into log lines, as many as `limit` allows. What is too much is read all the same:
/// no process waits for its log. `relief`: that of a process that never waits for us either.
pub async fn log_lines(
    (fd, spooled): (Option<OwnedFd>, Vec<u8>),
    err: bool,
    (sink, limit): (Sink, Limit),
    ended: Cancel,
    relief: Option<Relief>,
) {
    let mut lines = Lines::default();
    lines.push(&spooled, |line| limit.say(&sink, err, line));
    if let Some(fd) = fd {
        let take = |bytes: &[u8]| {
            match limit.is_silent() {
                true => lines.skip(bytes),
                false => lines.push(bytes, |line| limit.say(&sink, err, line)),
            }
            Ok(())
        };
        let read = async { to_the_end(Reader::new(fd, ended)?.with(relief), take).await };
        if let Err(error) = read.await {
            crate::warn!("stream.broken", source = sink.source, err = error);
        }
    }
    lines.flush(|line| limit.say(&sink, err, line));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_heard_is_bounded_and_cut_at_a_character() {
        let heard = Heard::default();
        heard.add("  first ");
        heard.add(&"\u{e4}".repeat(HEARD_MAX));
        heard.add("more");
        let text = heard.text();
        assert!(text.starts_with("first \n\u{e4}") && text.len() <= HEARD_MAX, "{}", text.len());
        assert!(text.ends_with('\u{e4}'));
    }
}
