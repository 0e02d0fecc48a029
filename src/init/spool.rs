//! One output of a process, and the file that it goes to while nobody is attached.
//!
//! The app must never wait for us, so a full spool does not stop the reading: what comes after
//! [`SPOOL_MAX`] bytes is counted and dropped. The first bytes are kept, not the last, so that the
//! gap is at the end, where a line of ours says how long it is; live output goes on right after. A
//! spool that was closed and that nobody has taken is gone on with, after a line that says so; the same
//! line stands for what who read an ended process has taken with it.
//!
//! What [`super::guard`] takes from a reader who stands still is kept in the same way.

use super::depot::Depot;
use super::guard::{self, Guard};
use super::proto::SPOOL_MAX;
use crate::sys::fd;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;

/// Bytes that are moved at once from a reader who stands still.
const PIECE: usize = 16 * 1024;

/// Stands where output may be missing.
const GAP: &str = "\n[terrarium: output may be missing here: whoever read it ended]\n";

/// The read end of one output.
pub struct Stream {
    /// A pipe's read end or a terminal's master, non-blocking.
    pub fd: OwnedFd,
    /// Something may still come.
    pub open: bool,
    /// What is known of who reads it, if it is looked after.
    pub guard: Guard,
    /// File name in the depot.
    name: String,
    /// The spool, while it is being written.
    file: Option<File>,
    /// Its length in bytes.
    length: u64,
    /// Bytes that were not kept.
    dropped: u64,
    /// How long it was when the last thing in it was that something may be missing.
    marked: Option<u64>,
}

/// What one [`Stream::pull`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pulled {
    /// Some bytes; there may be more.
    Some,
    /// Nothing at present.
    Nothing,
    /// The end: every writer is gone.
    End,
}

impl Stream {
    /// The stream whose spool has this name.
    pub fn new(fd: OwnedFd, name: String) -> Stream {
        let guard = Guard::Calm;
        Stream { fd, open: true, guard, name, file: None, length: 0, dropped: 0, marked: None }
    }

    /// Looks at what is unread of what somebody else reads; whether it was for us to read.
    pub fn look(&mut self, depot: &Depot, buffer: &mut [u8]) -> bool {
        let Ok((unread, capacity)) = fd::unread(&self.fd) else { return false };
        let next = self.guard.look(unread, capacity);
        let marked = match (self.guard, next) {
            (Guard::Seen, Guard::Asked) => fd::set_mark(&self.fd, true),
            (Guard::Asked, Guard::Calm) => fd::set_mark(&self.fd, false),
            _ => Ok(()),
        };
        if marked.is_ok() {
            self.guard = next;
        }
        if self.guard != Guard::Kept || !guard::may_be_full(unread, capacity) {
            return false;
        }
        let mut left = unread.saturating_sub(1);
        while left > 0 {
            let most = left.min(PIECE).min(buffer.len());
            match fd::read(&self.fd, &mut buffer[..most]) {
                Ok(length @ 1..) => {
                    self.keep(depot, &buffer[..length]);
                    left -= length;
                }
                Ok(_) | Err(_) => break,
            }
        }
        true
    }

    /// Somebody reads it: he may take what was kept, and then read on.
    pub fn hand_over(&mut self, depot: &Depot) {
        if self.dropped > 0 && self.file.is_none() {
            self.open_spool(depot.spool(&self.name));
        }
        self.close_spool();
        self.let_go();
    }

    /// Nobody is looked after any more.
    pub fn let_go(&mut self) {
        // It cannot fail on a descriptor that is open.
        let _ = fd::set_mark(&self.fd, false);
        self.guard = if self.guard == Guard::Over { Guard::Over } else { Guard::Calm };
    }

    /// Moves what is there, at most one buffer, to the spool.
    pub fn pull(&mut self, depot: &Depot, buffer: &mut [u8]) -> Pulled {
        match fd::read(&self.fd, buffer) {
            Ok(0) => self.end(),
            Ok(length) => {
                self.keep(depot, &buffer[..length]);
                Pulled::Some
            }
            Err(err) if err.kind() == io::ErrorKind::WouldBlock => Pulled::Nothing,
            Err(err) if err.kind() == io::ErrorKind::Interrupted => Pulled::Some,
            // EIO: the other side of a terminal is closed.
            Err(_) => self.end(),
        }
    }

    /// Marks the stream as ended.
    fn end(&mut self) -> Pulled {
        self.open = false;
        Pulled::End
    }

    /// Adds to the spool what fits.
    fn keep(&mut self, depot: &Depot, bytes: &[u8]) {
        match (&self.file, self.guard) {
            (Some(_), _) => {}
            (None, Guard::Kept) if self.dropped > 0 => {}
            // One that is there is being taken, and what is added after that is lost.
            (None, Guard::Kept) => self.open_spool(depot.new_spool(&self.name)),
            (None, _) => {
                self.open_spool(depot.spool(&self.name));
                if self.length > 0 {
                    self.mark_gap();
                }
            }
        }
        let fits = (SPOOL_MAX.saturating_sub(self.length) as usize).min(bytes.len());
        let kept = match &mut self.file {
            Some(file) if fits > 0 => match file.write_all(&bytes[..fits]) {
                Ok(()) => fits,
                // The disk is full, and the end of the file unknown: nothing more goes in.
                Err(_) => {
                    self.length = SPOOL_MAX;
                    0
                }
            },
            _ => 0,
        };
        self.length += kept as u64;
        self.dropped += (bytes.len() - kept) as u64;
    }

    /// The process has ended, and so has who read this: what that one has read and told nobody comes from
    /// nowhere else, so it is written down that something may be missing.
    pub fn mark_end(&mut self, depot: &Depot) {
        if self.file.is_none() {
            self.open_spool(depot.spool(&self.name));
        }
        self.mark_gap();
        self.close_spool();
    }

    fn open_spool(&mut self, opened: io::Result<File>) {
        if let Ok((length, file)) = opened.and_then(|file| Ok((file.metadata()?.len(), file))) {
            (self.length, self.file) = (length, Some(file));
        }
    }

    /// A spool that nobody has taken is added to: what came since it was closed went to a reader who
    /// has ended, and how much that was nobody knows. Once is enough.
    fn mark_gap(&mut self) {
        let is_marked = self.length > 0 && self.marked == Some(self.length);
        let Some(file) = self.file.as_mut().filter(|_| !is_marked) else { return };
        if self.length + (GAP.len() as u64) <= SPOOL_MAX && file.write_all(GAP.as_bytes()).is_ok() {
            self.length += GAP.len() as u64;
            self.marked = Some(self.length);
        }
    }

    /// Closes the spool for a reader, with a line about what was dropped.
    fn close_spool(&mut self) {
        if let Some(mut file) = self.file.take()
            && self.dropped > 0
        {
            let lost = self.dropped;
            // If the disk is full this is lost too.
            let _ = writeln!(file, "\n[terrarium: {lost} bytes dropped while nobody listened]");
        }
        self.dropped = 0;
        self.length = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spool_that_nobody_has_taken_is_gone_on_with_after_a_line_that_says_so() {
        let dir = std::env::temp_dir().join(format!("spool-gap-{}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("mkdir");
        let depot = Depot::new(&File::open(&dir).expect("open").into()).expect("depot");
        let (reader, writer) = fd::pipe().expect("a pipe");
        let mut stream = Stream::new(reader, "a.out".into());
        let mut say = |text: &str, is_last: bool| {
            fd::write(&writer, text.as_bytes()).expect("write");
            assert_eq!(stream.pull(&depot, &mut [0; 64]), Pulled::Some);
            if is_last {
                stream.close_spool();
            }
        };
        say("one\n", false);
        say("two\n", true);
        say("four\n", true);
        let file = dir.join("a.out");
        let kept = std::fs::read_to_string(&file).expect("spool");
        assert_eq!(kept, format!("one\ntwo\n{GAP}four\n"));
        std::fs::remove_file(&file).expect("taken");
        say("five\n", true);
        let kept = std::fs::read_to_string(&file).expect("spool");
        std::fs::remove_dir_all(&dir).expect("clean");
        assert_eq!(kept, "five\n");
    }

    #[test]
    fn what_comes_while_an_earlier_spool_is_being_taken_is_counted_in_the_next() {
        let dir = std::env::temp_dir().join(format!("spool-taken-{}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("mkdir");
        let depot = Depot::new(&File::open(&dir).expect("open").into()).expect("depot");
        let (reader, writer) = fd::pipe().expect("a pipe");
        fd::set_nonblocking(&reader, true).expect("fcntl");
        let mut stream = Stream::new(reader, "a.out".into());
        let file = dir.join("a.out");
        let kept = || std::fs::read_to_string(&file).expect("spool");
        let keep = |stream: &mut Stream, text: &str| {
            stream.guard = Guard::Kept;
            fd::write(&writer, text.as_bytes()).expect("write");
            assert_eq!(stream.pull(&depot, &mut [0; 64]), Pulled::Some);
        };
        keep(&mut stream, "one\n");
        stream.hand_over(&depot);
        assert_eq!((kept(), stream.guard), ("one\n".to_owned(), Guard::Calm));
        // Its reader stands still again before he has taken it.
        keep(&mut stream, "two\n");
        assert_eq!(kept(), "one\n");
        std::fs::remove_file(&file).expect("taken");
        keep(&mut stream, "three\n");
        stream.hand_over(&depot);
        assert_eq!(kept(), "\n[terrarium: 10 bytes dropped while nobody listened]\n");
        std::fs::remove_file(&file).expect("taken");
        keep(&mut stream, "four\n");
        stream.hand_over(&depot);
        let last = kept();
        std::fs::remove_dir_all(&dir).expect("clean");
        assert_eq!(last, "four\n");
    }

    #[test]
    fn what_a_reader_may_have_taken_with_it_is_told_once_after_the_end() {
        let dir = std::env::temp_dir().join(format!("spool-end-{}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("mkdir");
        let depot = Depot::new(&File::open(&dir).expect("open").into()).expect("depot");
        let (reader, writer) = fd::pipe().expect("a pipe");
        let mut stream = Stream::new(reader, "a.out".into());
        let file = dir.join("a.out");
        let kept = || std::fs::read_to_string(&file).expect("spool");
        stream.mark_end(&depot);
        stream.mark_end(&depot);
        assert_eq!(kept(), GAP);
        // It is gone on with: what its reader had not come to.
        fd::write(&writer, b"last\n").expect("write");
        assert_eq!(stream.pull(&depot, &mut [0; 64]), Pulled::Some);
        stream.close_spool();
        assert_eq!(kept(), format!("{GAP}last\n"));
        std::fs::remove_file(&file).expect("taken");
        stream.mark_end(&depot);
        let after = kept();
        std::fs::remove_dir_all(&dir).expect("clean");
        assert_eq!(after, GAP);
    }
}
