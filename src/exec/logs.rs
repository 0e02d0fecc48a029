//! The log of one app: the last lines on disk, and whoever follows.
//!
//! ```text
//! logs/<app>.log     one JSON LogLine per line, oldest first
//! logs/<app>.log.1   the file before it; together at most twice [log] app_bytes
//! ```

use crate::model::view::LogLine;
use crate::unit::{AppName, Bytes};
use smol::channel::{Receiver, Sender, TrySendError, bounded};
use std::collections::{HashMap, VecDeque};
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{SystemTime, UNIX_EPOCH};

/// Lines that a slow follower may be behind before it loses the newest ones.
const FOLLOW_MAX: usize = 4096;

/// All app logs of the box.
pub struct Logs {
    dir: PathBuf,
    file_max: Bytes,
    open: Mutex<HashMap<AppName, Arc<AppLog>>>,
}

/// The log of one app. Writing never waits for a reader and never fails the app.
pub struct AppLog {
    path: PathBuf,
    file_max: u64,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    file: Option<File>,
    written: u64,
    /// The disk refused a line; said once until it takes one again.
    refused: bool,
    followers: Vec<Sender<LogLine>>,
}

impl Logs {
    /// Opens the directory, making it (0700) when missing.
    pub fn open(dir: &Path, file_max: Bytes) -> io::Result<Logs> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        Ok(Logs { dir: dir.to_owned(), file_max, open: Mutex::default() })
    }

    /// The log of `app`.
    pub fn app(&self, app: &AppName) -> Arc<AppLog> {
        let mut open = self.open.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let make = || {
            Arc::new(AppLog {
                path: self.dir.join(format!("{app}.log")),
                file_max: self.file_max.get(),
                inner: Mutex::default(),
            })
        };
        open.entry(app.clone()).or_insert_with(make).clone()
    }

    /// Removes the log of a deleted app; its followers' streams end.
    pub fn remove(&self, app: &AppName) -> io::Result<()> {
        let log = self.app(app);
        self.open.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).remove(app);
        *log.inner() = Inner::default();
        for path in [log.older(), log.path.clone()] {
            match fs::remove_file(path) {
                Err(err) if err.kind() != io::ErrorKind::NotFound => return Err(err),
                _ => {}
            }
        }
        Ok(())
    }
}

impl AppLog {
    /// Adds one line, now.
    pub fn write(&self, source: &str, index: u32, err: bool, text: impl Into<String>) {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let time_ms = since.as_millis() as u64;
        self.add(LogLine { time_ms, source: source.into(), index, err, text: text.into() });
    }

    /// Adds one line.
    fn add(&self, line: LogLine) {
        let mut inner = self.inner();
        match self.store(&mut inner, &line) {
            Ok(()) => inner.refused = false,
            Err(err) if !inner.refused => {
                inner.refused = true;
                crate::warn!("log.refused", path = self.path.display(), err = err);
            }
            Err(_) => {}
        }
        inner.followers.retain(|follower| {
            !matches!(follower.try_send(line.clone()), Err(TrySendError::Closed(_)))
        });
    }

    /// Writes one line to the file, turning to a new file when this one is full.
    fn store(&self, inner: &mut Inner, line: &LogLine) -> io::Result<()> {
        if inner.file.is_some() && inner.written >= self.file_max {
            inner.file = None;
            fs::rename(&self.path, self.older())?;
        }
        if inner.file.is_none() {
            let mut options = File::options();
            let options = options.read(true).append(true).create(true).mode(0o600);
            let mut file = options.open(&self.path)?;
            inner.written = file.metadata()?.len();
            if !ends_whole(&file, inner.written)? {
                // Or the first new line would be torn like the last old one.
                file.write_all(b"\n")?;
                inner.written += 1;
            }
            inner.file = Some(file);
        }
        let mut text = serde_json::to_vec(line).map_err(io::Error::other)?;
        text.push(b'\n');
        inner.written += text.len() as u64;
        let written = inner.file.as_mut().expect("opened above").write_all(&text);
        if written.is_err() {
            // Part of it may be there.
            inner.file = None;
        }
        written
    }

    /// The last `count` lines, oldest first. Blocking.
    pub fn last(&self, count: usize, wanted: impl Fn(&LogLine) -> bool) -> Vec<LogLine> {
        last_of(self.files(), count, wanted)
    }

    /// The last `count` wanted lines, and then every new one, wanted or not; none twice and none
    /// missed. Blocking, but for 0 lines; whoever writes meanwhile does not wait.
    pub fn follow(
        &self,
        count: usize,
        wanted: impl Fn(&LogLine) -> bool,
    ) -> (Vec<LogLine>, Receiver<LogLine>) {
        let (sender, receiver) = bounded(FOLLOW_MAX);
        let mut inner = self.inner();
        inner.followers.push(sender);
        // Open files stay what they are, and what is written from now on lies behind their ends.
        let files = if count == 0 { Vec::new() } else { self.files() };
        drop(inner);
        (last_of(files, count, wanted), receiver)
    }

    /// What is on the disk now, oldest first: files and their lengths.
    fn files(&self) -> Vec<(File, u64)> {
        let open = |path: PathBuf| {
            let file = File::open(path).ok()?;
            let length = file.metadata().ok()?.len();
            Some((file, length))
        };
        [self.older(), self.path.clone()].into_iter().filter_map(open).collect()
    }

    fn older(&self) -> PathBuf {
        self.path.with_extension("log.1")
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// The last `count` lines of these files up to these lengths.
fn last_of(
    files: Vec<(File, u64)>,
    count: usize,
    wanted: impl Fn(&LogLine) -> bool,
) -> Vec<LogLine> {
    let mut lines = VecDeque::new();
    for (file, length) in files.into_iter().filter(|_| count > 0) {
        for text in BufReader::new(file.take(length)).split(b'\n').map_while(Result::ok) {
            // A line that a power cut has torn is skipped; the ones after it are whole.
            let Ok(line) = serde_json::from_slice(&text) else { continue };
            if !wanted(&line) {
                continue;
            }
            if lines.len() == count {
                lines.pop_front();
            }
            lines.push_back(line);
        }
    }
    lines.into()
}

/// Whether a file of this length is empty or ends with its last line's end.
fn ends_whole(file: &File, length: u64) -> io::Result<bool> {
    let mut last = *b"\n";
    if let Some(at) = length.checked_sub(1) {
        file.read_exact_at(&mut last, at)?;
    }
    Ok(last == *b"\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scratch(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("logs-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        dir
    }

    #[test]
    fn a_follower_gets_the_past_and_then_each_new_line_once() {
        let dir = scratch("follow");
        let logs = Logs::open(&dir, Bytes::mib(1)).expect("open");
        let log = logs.app(&"web".parse().expect("name"));
        (0..5).for_each(|n| log.write("APP", 0, false, format!("line {n}")));
        let (past, live) = log.follow(2, |_| true);
        log.write("APP", 0, true, "line 5");
        let texts: Vec<_> = past.into_iter().map(|line| line.text).collect();
        assert_eq!(texts, ["line 3", "line 4"]);
        assert_eq!(live.try_recv().expect("live").text, "line 5");
        assert!(live.try_recv().is_err());
        logs.remove(&"web".parse().expect("name")).expect("remove");
        assert!(live.try_recv().is_err_and(|err| err.is_closed()));
        assert_eq!(fs::read_dir(&dir).expect("dir").count(), 0);
        fs::remove_dir_all(&dir).expect("clean");
    }

    #[test]
    fn a_line_that_was_torn_takes_no_other_along() {
        let dir = scratch("torn");
        let logs = Logs::open(&dir, Bytes::mib(1)).expect("open");
        let web = "web".parse().expect("name");
        logs.app(&web).write("APP", 0, false, "before");
        let path = dir.join("web.log");
        let mut bytes = fs::read(&path).expect("read");
        bytes.extend_from_slice(b"{\"time_ms\":17,\"te\xff");
        fs::write(&path, bytes).expect("tear");
        let log = Logs::open(&dir, Bytes::mib(1)).expect("open").app(&web);
        assert_eq!(log.follow(0, |_| true).0, []);
        log.write("APP", 0, false, "after");
        let texts: Vec<_> = log.last(9, |_| true).into_iter().map(|line| line.text).collect();
        assert_eq!(texts, ["before", "after"]);
        fs::remove_dir_all(&dir).expect("clean");
    }

    #[test]
    fn the_disk_holds_at_most_two_files_of_the_given_size() {
        let dir = scratch("bound");
        let logs = Logs::open(&dir, Bytes::new(4096)).expect("open");
        let log = logs.app(&"web".parse().expect("name"));
        (0..1000).for_each(|n| log.write("APP", 0, false, format!("line {n}")));
        let size: u64 = fs::read_dir(&dir)
            .expect("dir")
            .map(|item| item.and_then(|item| item.metadata()).expect("file").len())
            .sum();
        assert!(size < 2 * 4096 + 2 * 128, "{size}");
        assert_eq!(log.last(1, |_| true)[0].text, "line 999");
        let sevens = log.last(2, |line| line.text.ends_with('7'));
        let sevens: Vec<&str> = sevens.iter().map(|line| line.text.as_str()).collect();
        assert_eq!(sevens, ["line 987", "line 997"], "what is not wanted does not count");
        fs::remove_dir_all(&dir).expect("clean");
    }
}
