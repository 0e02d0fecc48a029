//! Files into a container and out of it, as tar streams.
//!
//! Our own program inside the container reads or writes the tree, as the user who is named: nothing
//! of it is ever resolved by the daemon (D13). The program comes by descriptor, so that it works in
//! whatever root filesystem. It ends when its stream is dropped, and when the daemon dies.

use super::client::{Container, Process};
use super::error::ProcessError;
use crate::model::process::{ExitStatus, INTERNAL, ProcessSpec, Program};
use crate::sys::signal::KILL;
use async_io::Async;
use smol::future;
use smol::io::{AsyncReadExt, AsyncWriteExt};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

/// Bytes of one piece that comes out: what a pipe holds.
const PIECE: usize = 64 * 1024;

/// Most bytes of what the program has to say when it fails: it says one line.
const WORDS_MAX: u64 = 4096;

/// A tar stream on its way into a container. Dropped before [`Inflow::finish`], it ends the unpacker
/// as a failure; what was unpacked until then stays.
pub struct Inflow {
    stdin: Option<Async<File>>,
    worker: Worker,
}

/// A tar stream on its way out of a container.
pub struct Outflow {
    stdout: Option<Async<File>>,
    /// Read already, to see whether there is anything.
    first: Option<Vec<u8>>,
    worker: Worker,
}

impl Container {
    /// Begins to unpack a tar, without compression, into directory `dest`, which is made when
    /// missing, as `user` (empty: root), who will own it all. What is not absolute lies in the
    /// user's home.
    pub async fn stream_in(&self, user: &str, dest: &str) -> Result<Inflow, ProcessError> {
        let mut worker = self.worker("tar-in", user, dest).await?;
        let stdin = worker.process.streams.stdin.take();
        let stdin = self.stream(stdin)?;
        Ok(Inflow { stdin: Some(stdin), worker })
    }

    /// Packs file or directory `src` of the container as a tar, read as `user` (empty: root).
    /// `/a/b` gives `b/` and what is in it, `/a/b/` gives `./` and that. Returns when the source is
    /// found, or an error when it is not.
    pub async fn stream_out(&self, user: &str, src: &str) -> Result<Outflow, ProcessError> {
        let mut worker = self.worker("tar-out", user, src).await?;
        let stdout = self.stream(worker.process.streams.stdout.take())?;
        let mut out = Outflow { stdout: Some(stdout), first: None, worker };
        out.first = out.next().await.transpose()?;
        Ok(out)
    }

    /// Starts one of the two programs.
    async fn worker(&self, role: &str, user: &str, path: &str) -> Result<Worker, ProcessError> {
        let spec = ProcessSpec {
            id: new_id(),
            path: role.to_owned(),
            program: Program::Ours,
            args: vec![path.to_owned()],
            argv0: None,
            env: Vec::new(),
            // Whoever names an absolute path need not have a home.
            // Where a tar goes is made with the rights of pid 1, which may make it anywhere.
            dir: match (role, path.starts_with('/')) {
                ("tar-in", true) => Some(path.to_owned()),
                (_, true) => Some("/".to_owned()),
                (_, false) => None,
            },
            dir_must_exist: role == "tar-out",
            user: if user.is_empty() { "root" } else { user }.to_owned(),
            nofile: None,
            rlimits: Default::default(),
            tty: None,
            stdin: role == "tar-in",
            keep_stdin: false,
            launches: false,
            never_waits: false,
        };
        let mut process = self.start(spec).await?;
        let words = process.streams.stderr.take();
        Ok(Worker { process, words, over: false })
    }

    fn stream(&self, fd: Option<OwnedFd>) -> Result<Async<File>, ProcessError> {
        let fd = fd.ok_or_else(|| io::Error::other("a stream is missing"));
        fd.and_then(|fd| Async::new(File::from(fd))).map_err(|err| self.talk(err))
    }
}

impl Inflow {
    /// Hands on the next bytes of the tar; returns when they are taken. An error is the unpacker's
    /// own, and final.
    pub async fn write(&mut self, bytes: &[u8]) -> Result<(), ProcessError> {
        let Some(stdin) = &mut self.stdin else { return Err(self.worker.failure().await) };
        // A pipe that is always taken from would keep the executor's thread for itself.
        future::yield_now().await;
        match stdin.write_all(bytes).await {
            Ok(()) => Ok(()),
            Err(_) => {
                self.stdin = None;
                Err(self.worker.failure().await)
            }
        }
    }

    /// Returns when the unpacker has ended, which is before its time, with what it had to say. Dropped
    /// before that, nothing is lost.
    pub async fn over(&mut self) -> ProcessError {
        // May be asked again.
        let _ = self.worker.process.wait().await;
        self.stdin = None;
        self.worker.failure().await
    }

    /// The tar is at its end: returns when all of it is unpacked, or says why it is not.
    pub async fn finish(mut self) -> Result<(), ProcessError> {
        self.stdin = None;
        self.worker.end().await
    }
}

impl Outflow {
    /// The next bytes of the tar, at most 64 KiB; `None` after the last ones. After an error there
    /// is nothing more, and what came before is no whole tar.
    pub async fn next(&mut self) -> Option<Result<Vec<u8>, ProcessError>> {
        if let Some(first) = self.first.take() {
            return Some(Ok(first));
        }
        let stdout = self.stdout.as_mut()?;
        future::yield_now().await;
        let mut piece = vec![0; PIECE];
        if let Ok(length @ 1..) = stdout.read(&mut piece).await {
            piece.truncate(length);
            return Some(Ok(piece));
        }
        // Only the program had the other end.
        self.stdout = None;
        self.worker.end().await.err().map(Err)
    }
}

/// One of the two programs at work.
struct Worker {
    process: Process,
    /// Read end of its standard error.
    words: Option<OwnedFd>,
    /// It has ended.
    over: bool,
}

impl Worker {
    /// Waits for its end, and says why it failed if it did.
    async fn end(&mut self) -> Result<(), ProcessError> {
        let status = self.process.wait().await;
        self.over = true;
        match status? {
            ExitStatus::Exited(0) => Ok(()),
            ExitStatus::Exited(_) => Err(ProcessError::Broken { text: self.said() }),
            ExitStatus::Signaled(signal) => {
                let text = format!(
                    "the program that was at it inside the container was ended by signal {signal}; \
                     was the container stopped, or out of memory?"
                );
                Err(ProcessError::Broken { text })
            }
        }
    }

    /// The same when it cannot have gone well.
    async fn failure(&mut self) -> ProcessError {
        let why = self.end().await.err();
        why.unwrap_or_else(|| ProcessError::Broken { text: "it ended before its stream".into() })
    }

    /// What it had to say: it is all there, as it has ended.
    fn said(&mut self) -> String {
        let mut text = Vec::new();
        if let Some(words) = self.words.take() {
            // Non-blocking; what was read before an error is better than nothing.
            let _ = File::from(words).take(WORDS_MAX).read_to_end(&mut text);
        }
        String::from_utf8_lossy(&text).trim().to_owned()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        if !self.over {
            // Not waited for: pid 1 forgets it when it has ended.
            smol::spawn(self.process.send_signal(KILL)).detach();
        }
    }
}

/// A name that no other process of any daemon on this box has had: the clock at the daemon's first
/// one, and a number.
fn new_id() -> String {
    static FIRST: std::sync::OnceLock<u64> = std::sync::OnceLock::new();
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let now = || {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        since.as_nanos() as u64
    };
    let (first, next) = (FIRST.get_or_init(now), NEXT.fetch_add(1, Ordering::Relaxed));
    format!("{INTERNAL}{first:x}-{next:x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_differ_and_are_short_enough() {
        let (one, two) = (new_id(), new_id());
        assert!(one != two && one.starts_with(INTERNAL) && one.len() <= 40, "{one} {two}");
    }
}
