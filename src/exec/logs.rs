//! The log of one app: the last lines on disk, and whoever follows.
//!
//! ```text
//! logs/<app>.log     one JSON LogLine per line, oldest first
//! logs/<app>.log.1   the file before it, .2 the one before that, as many as [log] app_files says;
//!                    each has at most [log] app_bytes, or one line that is longer
//! ```

use super::journal::{Journal, SOCKET};
use super::limit::Limit;
use crate::model::view::LogLine;
use crate::unit::{AppName, Bytes, Rate};
use smol::channel::{Receiver, Sender, TrySendError, bounded};
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{SystemTime, UNIX_EPOCH};

/// Lines that a slow follower may be behind before it loses the newest ones.
const FOLLOW_MAX: usize = 4096;

/// Files of one app, the current one included, whatever the settings have been.
const FILES_MAX: u32 = 16;

/// What is kept of each app's output.
#[derive(Clone, Debug)]
pub struct Keep {
    /// Size of a file.
    pub file_bytes: Bytes,
    /// Files, the current one included; 1 to 16.
    pub files: u32,
    /// What an instance may log in a second, unless its app says otherwise.
    pub rate: Rate,
    /// Lines that an instance may log in a second; `None`: any number.
    pub lines: Option<u32>,
    /// Every line goes to systemd's journal as well.
    pub journal: bool,
}

/// Whether the box has systemd's journal.
pub fn has_journal() -> bool {
    Path::new(SOCKET).exists()
}

/// All app logs of the box.
pub struct Logs {
    dir: PathBuf,
    keep: Keep,
    journal: Option<Arc<Journal>>,
    open: Mutex<HashMap<AppName, Arc<AppLog>>>,
}

/// The log of one app. Writing never waits for a reader and never fails the app.
pub struct AppLog {
    app: AppName,
    path: PathBuf,
    keep: Keep,
    journal: Option<Arc<Journal>>,
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
    /// Opens the directory, making it (0700) when missing. Files that were kept when `keep` had
    /// more of them go.
    pub fn open(dir: &Path, keep: Keep) -> io::Result<Logs> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        for item in fs::read_dir(dir)? {
            let path = item?.path();
            let end = path.extension().and_then(|end| end.to_str()?.parse::<u32>().ok());
            let ours =
                path.file_stem().is_some_and(|stem| stem.as_encoded_bytes().ends_with(b".log"));
            if ours && end.is_some_and(|number| number >= keep.files) {
                fs::remove_file(path)?;
            }
        }
        let journal = keep.journal.then(|| Journal::new(Path::new(SOCKET))).transpose()?;
        let (dir, journal) = (dir.to_owned(), journal.map(Arc::new));
        Ok(Logs { dir, keep, journal, open: Mutex::default() })
    }

    /// The log of `app`.
    pub fn app(&self, app: &AppName) -> Arc<AppLog> {
        let mut open = self.open.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let make = || {
            Arc::new(AppLog {
                path: self.dir.join(format!("{app}.log")),
                app: app.clone(),
                keep: self.keep.clone(),
                journal: self.journal.clone(),
                inner: Mutex::default(),
            })
        };
        open.entry(app.clone()).or_insert_with(make).clone()
    }

    /// How much one container may log: what its app says, else what the box does.
    pub fn limit(&self, own: Option<Rate>) -> Limit {
        Limit::new(own.unwrap_or(self.keep.rate), self.keep.lines)
    }

    /// Removes the log of a deleted app; its followers' streams end.
    pub fn remove(&self, app: &AppName) -> io::Result<()> {
        let log = self.app(app);
        self.open.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).remove(app);
        *log.inner() = Inner::default();
        for number in (0..FILES_MAX).rev() {
            match fs::remove_file(log.file(number)) {
                Err(err) if err.kind() != io::ErrorKind::NotFound => return Err(err),
                _ => {}
            }
        }
        Ok(())
    }

    /// Whose logs there are. Blocking.
    pub fn names(&self) -> io::Result<BTreeSet<AppName>> {
        let mut names = BTreeSet::new();
        for item in fs::read_dir(&self.dir)? {
            let file = item?.file_name();
            let name = file.to_str().and_then(|file| file.split_once(".log"));
            names.extend(name.and_then(|(name, _)| name.parse::<AppName>().ok()));
        }
        Ok(names)
    }
}

impl AppLog {
    /// Lets go of followers who have left: a silent app has no line at which that would be noticed.
    pub fn drop_gone(&self) {
        self.inner().followers.retain(|follower| !follower.is_closed());
    }

    /// Adds one line, now.
    pub fn write(&self, source: &str, index: u32, err: bool, text: impl Into<String>) {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let time_ms = since.as_millis() as u64;
        self.add(LogLine { time_ms, source: source.into(), index, err, text: text.into() });
    }

    /// Adds one line.
    fn add(&self, line: LogLine) {
        if let Some(journal) = &self.journal {
            journal.send(&self.app, &line);
        }
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

    /// Writes one line to the file, turning to a new file when it does not fit into this one.
    fn store(&self, inner: &mut Inner, line: &LogLine) -> io::Result<()> {
        let mut text = serde_json::to_vec(line).map_err(io::Error::other)?;
        text.push(b'\n');
        if inner.file.is_none() {
            self.open(inner)?;
        }
        if inner.written > 0 && inner.written + text.len() as u64 > self.keep.file_bytes.get() {
            inner.file = None;
            self.turn()?;
            self.open(inner)?;
        }
        inner.written += text.len() as u64;
        let written = inner.file.as_mut().expect("opened above").write_all(&text);
        if written.is_err() {
            // Part of it may be there.
            inner.file = None;
        }
        written
    }

    /// Opens the current file at its end.
    fn open(&self, inner: &mut Inner) -> io::Result<()> {
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
        Ok(())
    }

    /// Makes every file the next older one; the oldest goes.
    fn turn(&self) -> io::Result<()> {
        let gone = |result: io::Result<()>| match result {
            Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(()),
            result => result,
        };
        let Some(oldest) = self.keep.files.checked_sub(2) else {
            return gone(fs::remove_file(&self.path));
        };
        let mut numbers = (0..=oldest).rev();
        numbers.try_for_each(|number| gone(fs::rename(self.file(number), self.file(number + 1))))
    }

    /// The last `count` lines, oldest first. Blocking.
    pub fn last(&self, count: usize, wanted: impl Fn(&LogLine) -> bool) -> Vec<LogLine> {
        let files = {
            // Or a file could be turned away between the opening of two, and its lines be missed.
            let _inner = self.inner();
            self.files()
        };
        last_of(files, count, wanted)
    }

    /// Shows `see` every line that is kept, newest file first. Blocking.
    pub fn each(&self, mut see: impl FnMut(&LogLine)) {
        let files = {
            let _inner = self.inner();
            self.files()
        };
        for (file, length) in files {
            lines_of(file, length).for_each(|line| see(&line));
        }
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

    /// What is on the disk now, newest first: files and their lengths.
    fn files(&self) -> Vec<(File, u64)> {
        let open = |number| {
            let file = File::open(self.file(number)).ok()?;
            let length = file.metadata().ok()?.len();
            Some((file, length))
        };
        (0..self.keep.files).filter_map(open).collect()
    }

    /// The file so many before the current one, which is 0.
    fn file(&self, number: u32) -> PathBuf {
        match number {
            0 => self.path.clone(),
            _ => self.path.with_extension(format!("log.{number}")),
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// The last `count` wanted lines of these files, newest file first, up to these lengths. Files that
/// are too old to matter are not read.
fn last_of(
    files: Vec<(File, u64)>,
    count: usize,
    wanted: impl Fn(&LogLine) -> bool,
) -> Vec<LogLine> {
    let mut lines = VecDeque::new();
    for (file, length) in files {
        let room = count - lines.len();
        if room == 0 {
            break;
        }
        let mut older = VecDeque::new();
        for line in lines_of(file, length).filter(&wanted) {
            if older.len() == room {
                older.pop_front();
            }
            older.push_back(line);
        }
        older.append(&mut lines);
        lines = older;
    }
    lines.into()
}

/// The lines of a file up to this length, oldest first.
fn lines_of(file: File, length: u64) -> impl Iterator<Item = LogLine> {
    let texts = BufReader::new(file.take(length)).split(b'\n').map_while(Result::ok);
    // A line that a power cut has torn is skipped; the ones after it are whole.
    texts.filter_map(|text| serde_json::from_slice(&text).ok())
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
mod tests;
