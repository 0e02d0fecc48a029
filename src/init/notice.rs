//! What the app says of itself, as to systemd: sd_notify(3). Pid 1 hears it and keeps the last words,
//! whether a daemon is there or not.

use super::proto::Notified;
use crate::model::work::NOTIFY_NAME;
use crate::sys::words;
use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

/// Longest message that is read, in bytes; systemd's own limit.
const MESSAGE_MAX: usize = 4096;

/// Longest status that is kept, in bytes.
const STATUS_MAX: usize = 256;

/// Messages that are read in one turn of the loop.
const TURN_MAX: usize = 64;

/// The socket and what came by it.
pub(super) struct Notices {
    pub(super) socket: OwnedFd,
    words: Words,
    /// When the last sign of life came; before the first one, when the socket was made.
    last: Instant,
}

/// What was said, without the time.
#[derive(Debug, Default, PartialEq, Eq)]
struct Words {
    ready: bool,
    stopping: bool,
    status: String,
}

impl Notices {
    /// Before anything else runs in the container, so that nobody else can have the name.
    pub(super) fn new() -> io::Result<Notices> {
        let socket = words::bind(NOTIFY_NAME)?;
        Ok(Notices { socket, words: Words::default(), last: Instant::now() })
    }

    /// Takes what has come. Only processes of the container count.
    pub(super) fn hear(&mut self) {
        let mut buffer = [0; MESSAGE_MAX];
        for _ in 0..TURN_MAX {
            match words::take(&self.socket, &mut buffer) {
                Ok((_, 0)) => {}
                Ok((length, _)) => {
                    if self.words.take(&String::from_utf8_lossy(&buffer[..length])) {
                        self.last = Instant::now();
                    }
                }
                Err(_) => return,
            }
        }
    }

    /// What the daemon is told.
    pub(super) fn told(&self) -> Notified {
        let Words { ready, stopping, status } = &self.words;
        let age = self.last.elapsed().min(Duration::from_secs(u32::MAX.into()));
        Notified {
            ready: *ready,
            stopping: *stopping,
            age_ms: age.as_millis() as u64,
            status: status.clone(),
        }
    }
}

impl Words {
    /// Takes one message, lines of `NAME=value`. `true`: it is a sign of life.
    fn take(&mut self, message: &str) -> bool {
        let mut lives = false;
        for line in message.lines() {
            match line.split_once('=') {
                Some(("READY", "1")) => (self.ready, lives) = (true, true),
                Some(("WATCHDOG", "1")) => lives = true,
                Some(("STOPPING", "1")) => self.stopping = true,
                Some(("STATUS", text)) => {
                    let plain = text.chars().filter(|it| !it.is_control());
                    let ends = plain.scan(0, |bytes, it| {
                        *bytes += it.len_utf8();
                        (*bytes <= STATUS_MAX).then_some(it)
                    });
                    self.status = ends.collect();
                }
                _ => {}
            }
        }
        lives
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_words_are_kept() {
        let mut words = Words::default();
        assert!(!words.take("STATUS=warming up\nMAINPID=7"));
        assert_eq!((words.ready, words.status.as_str()), (false, "warming up"));
        assert!(words.take("READY=1\nSTATUS=serving\u{7}\n"));
        assert!(words.take("WATCHDOG=1"));
        assert!(!words.take("WATCHDOG=trigger") && !words.take("READY=0") && !words.take(""));
        assert!(!words.take("STOPPING=1"));
        assert_eq!(words, Words { ready: true, stopping: true, status: "serving".into() });
        words.take(&format!("STATUS={}", "\u{e4}".repeat(STATUS_MAX)));
        assert_eq!(words.status.len(), STATUS_MAX);
    }
}
