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
use std::io::{self, Cursor, IsTerminal, Read};
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

/// Between two times that pid 1 is asked, when the first has failed.
const ASK_AGAIN: Duration = Duration::from_secs(1);

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
    /// By which it gets back what pid 1 has taken over; `None`: that never does, or is gone.
    relief: Option<Relief>,
    /// What came by it and was not given out yet.
    kept: Cursor<Vec<u8>>,
}

impl Reader {
    /// Reads `fd` until `ended` is cancelled and the pipe is empty.
    pub fn new(fd: OwnedFd, ended: Cancel) -> io::Result<Reader> {
        let file = File::from(fd);
        let terminal = file.is_terminal();
        let file = Async::new(file)?;
        let (buffer, kept) = (vec![0; CHUNK], Cursor::default());
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
        if let length @ 1.. = some_of(kept, buffer) {
            return Ok(Some(&self.buffer[..length]));
        }
        // Right before each read, as long as we may have stood still.
        let is_taken = |file: &File| relief.is_some() && has_mark(file);
        // Asked first: whoever is always ready to be read would never let the end be heard.
        if *left == DRAIN_MAX && !ended.is_cancelled() {
            let come = ended.or(file.read_with(|mut file| match is_taken(file) {
                true => Ok(None),
                false => file.read(buffer).map(Some),
            }));
            match come.await {
                Some(Ok(None)) => {
                    *kept = Cursor::new(take_back(relief, ended).await);
                    let length = some_of(kept, buffer);
                    return Ok(Some(&self.buffer[..length]));
                }
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
            *kept = Cursor::new(take_back(relief, ended).await);
            let length = some_of(kept, buffer);
            return Ok(Some(&self.buffer[..length]));
        }
        match file.get_ref().read(buffer) {
            Ok(length @ 1..) => Ok(Some(&self.buffer[..length])),
            _ => Ok(None),
        }
    }
}

/// Moves the next of what was kept to `buffer`, and lets go of it at its end.
fn some_of(kept: &mut Cursor<Vec<u8>>, buffer: &mut [u8]) -> usize {
    // It cannot fail in memory.
    let length = kept.read(buffer).unwrap_or(0);
    if kept.position() >= kept.get_ref().len() as u64 {
        *kept = Cursor::default();
    }
    length
}

/// Gets what pid 1 has taken over; perhaps nothing, and then there is more to read. It is asked until it
/// answers. When it is gone, or the process is and it does not answer either, it is asked no more, and
/// its mark means nothing any more.
async fn take_back(relief: &mut Option<Relief>, ended: &Cancel) -> Vec<u8> {
    let Some(from) = relief else { return Vec::new() };
    let (handle, id) = from.of();
    let mut is_told = false;
    let (kept, is_over) = loop {
        // Once more after the end: whoever tells that can answer.
        let is_last = ended.is_cancelled();
        match from.take_back().await {
            Ok(kept) => break (kept, false),
            Err(_) if is_last || !from.is_open() => break (from.take_kept().await, true),
            Err(err) => {
                if !std::mem::replace(&mut is_told, true) {
                    crate::warn!("output.held", handle = handle, id = id, err = err);
                }
                ended.sleep(ASK_AGAIN).await;
            }
        }
    };
    if !kept.is_empty() {
        crate::warn!("output.kept", handle = handle, id = id, bytes = kept.len());
    }
    if is_over {
        *relief = None;
    }
    kept
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
    for piece in spooled.chunks(CHUNK) {
        future::yield_now().await;
        lines.push(piece, |line| limit.say(&sink, err, line));
    }
    drop(spooled);
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
    use super::super::cancel;
    use super::*;
    use crate::init::proto::{Answer, Ask, FailKind, MAX_MESSAGE, Reply, Request};
    use crate::sys;

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

    /// A pipe that pid 1 has marked, with what it has kept of it, and pid 1's end of the connection.
    struct Scene {
        dir: std::path::PathBuf,
        reader: Reader,
        writer: OwnedFd,
        theirs: Async<OwnedFd>,
        /// Pid 1 lives as long as this does.
        lives: OwnedFd,
        end: cancel::Canceller,
    }

    impl Scene {
        fn new(name: &str, kept: &[u8], in_pipe: &[u8]) -> Scene {
            let dir = std::env::temp_dir().join(format!("{name}-{}", std::process::id()));
            std::fs::create_dir_all(&dir).expect("mkdir");
            std::fs::write(dir.join("one.out"), kept).expect("a spool");
            let (ours, theirs) = sys::socket::pair().expect("a pair");
            let (gone, lives) = sys::socket::pair().expect("a pair");
            let relief = Relief::of_one(ours, gone, dir.clone());
            let (fd, writer) = sys::fd::pipe().expect("a pipe");
            sys::fd::set_mark(&fd, true).expect("mark");
            sys::fd::write(&writer, in_pipe).expect("write");
            let (end, ended) = cancel::pair();
            let reader = Reader::new(fd, ended).expect("a reader").with(Some(relief));
            let theirs = Async::new(theirs).expect("async");
            Scene { dir, reader, writer, theirs, lives, end }
        }

        /// What is asked of pid 1.
        async fn asked(theirs: &Async<OwnedFd>) -> Request {
            let mut buffer = vec![0; MAX_MESSAGE];
            let receive = |socket: &OwnedFd| sys::socket::recv_with_fds(socket, &mut buffer);
            let (length, _) = theirs.read_with(receive).await.expect("a request");
            let request: Request = serde_json::from_slice(&buffer[..length]).expect("a request");
            assert_eq!(request.ask, Ask::ReadOn { id: "one".into(), err: false });
            request
        }

        fn say(theirs: &Async<OwnedFd>, seq: u64, answer: Answer) {
            let reply = serde_json::to_vec(&Reply { seq, answer }).expect("JSON");
            sys::socket::send_with_fds(theirs.get_ref(), &reply, &[]).expect("send");
        }
    }

    #[test]
    fn who_gets_no_answer_asks_again_and_gives_what_was_kept_in_pieces() {
        let kept = vec![b'k'; 2 * CHUNK + 1];
        let Scene { dir, mut reader, writer, theirs, lives, end } =
            Scene::new("asks-again", &kept, b"in the pipe");
        let marked = reader.file.get_ref().try_clone().expect("a copy");
        let pid_1 = async {
            let first = Scene::asked(&theirs).await;
            let (kind, text) = (FailKind::System, "not now".into());
            Scene::say(&theirs, first.seq, Answer::Failed { kind, text });
            let next = Scene::asked(&theirs).await;
            sys::fd::set_mark(&marked, false).expect("mark");
            Scene::say(&theirs, next.seq, Answer::Done);
        };
        let read = async {
            let mut lengths = Vec::new();
            while lengths.len() < 4 {
                let piece = reader.next().await.expect("no error").expect("no end");
                lengths.push((piece.len(), piece[0]));
            }
            lengths
        };
        let (lengths, ()) = smol::block_on(future::zip(read, pid_1));
        assert_eq!(lengths, [(CHUNK, b'k'), (CHUNK, b'k'), (1, b'k'), (11, b'i')]);
        assert_eq!(reader.kept.get_ref().capacity(), 0);
        drop((writer, lives, end));
        std::fs::remove_dir(&dir).expect("nothing is left");
    }

    #[test]
    fn when_pid_1_is_gone_its_mark_hides_no_last_words() {
        let Scene { dir, mut reader, writer, theirs, lives, end } =
            Scene::new("pid-1-gone", b"kept, ", b"last words");
        drop((theirs, lives, writer));
        let all = smol::block_on(async {
            let mut all = Vec::new();
            while let Some(piece) = reader.next().await.expect("no error") {
                all.extend_from_slice(piece);
            }
            all
        });
        drop(end);
        assert_eq!(String::from_utf8_lossy(&all), "kept, last words");
        std::fs::remove_dir(&dir).expect("nothing is left");
    }
}
