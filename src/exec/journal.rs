//! Copies of app lines for systemd's journal, by its native protocol: one datagram for each line, of
//! fields.
//!
//! ```text
//! NAME=value\n                               a value of one line
//! NAME\n length, 8 bytes, little end first, value, \n   any value
//! ```

use crate::model::view::LogLine;
use crate::unit::AppName;
use std::collections::BTreeMap;
use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Where journald listens.
pub const SOCKET: &str = "/run/systemd/journal/socket";

/// The journal takes 10,000 lines in 30 s of one service, and drops what is more: to it all apps' lines are
/// this service's. So many of them all and of one app leave room for what the daemon itself has to say.
const SPAN: Duration = Duration::from_secs(30);
const ALL_LINES: u32 = 8_000;
const APP_LINES: u32 = 2_000;

/// The journal. Nobody ever waits for it.
pub struct Journal {
    path: PathBuf,
    socket: UnixDatagram,
    share: Mutex<Share>,
    /// Lines that it did not take since it last took one.
    dropped: AtomicU64,
    /// Lines that had no room since then.
    over: AtomicU64,
}

impl Journal {
    /// The journal that listens on `path`, there or not.
    pub fn new(path: &Path) -> io::Result<Journal> {
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        let share = Mutex::new(Share::default());
        Ok(Journal {
            path: path.to_owned(),
            socket,
            share,
            dropped: AtomicU64::new(0),
            over: AtomicU64::new(0),
        })
    }

    /// Gives it a line; one that it does not take at once is lost for it, which is told once, and how
    /// many it were when it takes them again.
    pub fn send(&self, app: &AppName, line: &LogLine) {
        let has_room = || {
            let mut share = self.share.lock().unwrap_or_else(PoisonError::into_inner);
            share.take(app, Instant::now())
        };
        if !has_room() {
            // Told with the next one that is taken.
            self.over.fetch_add(1, Ordering::Relaxed);
            return;
        }
        // By its name each time: another journald makes another socket.
        match self.socket.send_to(&entry(app, line), &self.path) {
            Ok(_) => {
                let lost = [&self.dropped, &self.over].map(|it| it.swap(0, Ordering::Relaxed));
                match lost.iter().sum::<u64>() {
                    0 => {}
                    lost => crate::warn!("journal.lines_lost", count = lost),
                }
            }
            Err(err) => {
                if self.dropped.fetch_add(1, Ordering::Relaxed) == 0 {
                    let cure = "set journal = false in [log], or look at systemd-journald";
                    crate::warn!(
                        "journal.refused",
                        path = self.path.display(),
                        err = err,
                        cure = cure
                    );
                }
            }
        }
    }
}

/// Lines that were sent in a span of time.
#[derive(Default)]
struct Share {
    begun: Option<Instant>,
    all: u32,
    apps: BTreeMap<AppName, u32>,
}

impl Share {
    /// Takes one for `app`; `false`: there is none before the span has gone by.
    fn take(&mut self, app: &AppName, now: Instant) -> bool {
        if self.begun.is_none_or(|begun| now.saturating_duration_since(begun) >= SPAN) {
            *self = Share { begun: Some(now), ..Share::default() };
        }
        let own = self.apps.entry(app.clone()).or_default();
        if self.all >= ALL_LINES || *own >= APP_LINES {
            return false;
        }
        *own += 1;
        self.all += 1;
        true
    }
}

/// A line as the journal takes it. Lines are short enough for one datagram.
fn entry(app: &AppName, line: &LogLine) -> Vec<u8> {
    // As of anything that systemd starts by itself: what is on stderr is an error.
    let priority = if line.err { "3" } else { "6" };
    let index = line.index.to_string();
    let mut out = Vec::with_capacity(line.text.len() + 192);
    for (name, value) in [
        ("PRIORITY", priority),
        ("SYSLOG_IDENTIFIER", "terrarium"),
        ("TERRARIUM_APP", app.as_str()),
        ("TERRARIUM_INSTANCE", &index),
        ("TERRARIUM_SOURCE", &line.source),
        ("MESSAGE", &line.text),
    ] {
        out.extend_from_slice(name.as_bytes());
        if value.contains('\n') {
            out.push(b'\n');
            out.extend_from_slice(&(value.len() as u64).to_le_bytes());
        } else {
            out.push(b'=');
        }
        out.extend_from_slice(value.as_bytes());
        out.push(b'\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exec::lines::LINE_MAX;
    use std::fs;

    fn line(text: &str) -> LogLine {
        LogLine {
            time_ms: 1,
            source: "APP/PROC/WEB".into(),
            index: 2,
            err: true,
            text: text.into(),
        }
    }

    fn app() -> AppName {
        "orders".parse().expect("name")
    }

    #[test]
    fn row_52_a_line_is_fields_and_one_with_newlines_has_its_length() {
        let head = "PRIORITY=3\nSYSLOG_IDENTIFIER=terrarium\nTERRARIUM_APP=orders\n\
                    TERRARIUM_INSTANCE=2\nTERRARIUM_SOURCE=APP/PROC/WEB\n";
        let one = entry(&app(), &line("a=b"));
        assert_eq!(String::from_utf8(one).expect("UTF-8"), format!("{head}MESSAGE=a=b\n"));
        let two = entry(&app(), &line("a\nPRIORITY=0"));
        let tail = b"MESSAGE\n\x0c\0\0\0\0\0\0\0a\nPRIORITY=0\n";
        assert_eq!(two, [head.as_bytes(), tail].concat());
        let calm = entry(&app(), &LogLine { err: false, ..line("x") });
        assert!(calm.starts_with(b"PRIORITY=6\n"));
    }

    #[test]
    fn row_52_apps_leave_room_for_the_daemon_and_for_each_other() {
        let (mut share, begun) = (Share::default(), Instant::now());
        let mut sent = |app: &str, now| {
            let app = app.parse().expect("name");
            (0..APP_LINES + 1).filter(|_| share.take(&app, now)).count()
        };
        let names = ["a", "b", "c", "d"];
        for name in names {
            assert_eq!(sent(name, begun), 2_000, "{name}");
        }
        assert_eq!(sent("e", begun + SPAN / 2), 0, "all of them have had theirs");
        assert_eq!(sent("e", begun + SPAN), 2_000);
    }

    #[test]
    fn row_52_a_journal_that_does_not_read_or_is_not_there_holds_nobody_up() {
        let dir = std::env::temp_dir().join(format!("journal-{}", std::process::id()));
        fs::create_dir(&dir).expect("dir");
        let path = dir.join("socket");
        let journal = Journal::new(&path).expect("a socket");
        let dropped = || journal.dropped.load(Ordering::Relaxed);
        journal.send(&app(), &line("nobody hears this"));
        assert_eq!(dropped(), 1);

        let reader = UnixDatagram::bind(&path).expect("bind");
        let long = "x".repeat(LINE_MAX);
        let mut sent = 0;
        while sent < 100_000 && (sent == 0 || dropped() == 0) {
            journal.send(&app(), &line(&long));
            sent += 1;
        }
        assert!((1..100_000).contains(&sent), "it is full at some time: {sent}");
        journal.send(&app(), &line("nor this"));
        assert_eq!(dropped(), 2);
        let mut buffer = vec![0; 2 * LINE_MAX];
        for _ in 1..sent {
            let length = reader.recv(&mut buffer).expect("a line");
            assert!(buffer[..length].ends_with(format!("MESSAGE={long}\n").as_bytes()));
        }
        journal.send(&app(), &line("this again"));
        let length = reader.recv(&mut buffer).expect("a line");
        assert!(buffer[..length].ends_with(b"MESSAGE=this again\n"));
        assert_eq!(dropped(), 0);
        fs::remove_dir_all(&dir).expect("clean");
    }
}
