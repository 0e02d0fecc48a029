//! A blob as a stream that survives bad links: what has come is kept in a file, what is missing is
//! asked for again from there, and at the end it is what its digest says or an error.

use super::failure::{Failure, Kind};
use super::http;
use super::repository::Piece;
use crate::unit::Digest;
use sha2::{Digest as _, Sha256};
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use ureq::http::Uri;

/// Progress that makes a server worth being asked at once.
const PROGRESS: u64 = 4 << 10;
/// How often somebody who waits looks whether he still has to.
const LOOK: Duration = Duration::from_millis(100);
/// Most connections for one blob.
const CONNECTIONS_MAX: u32 = 10_000;

/// What is wanted.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    /// What its bytes must be; `None`: nobody says.
    pub digest: Option<Digest>,
    /// How many they must be; `None`: as many as the server has.
    pub size: Option<u64>,
}

/// Where a blob comes from: from this byte on, as it was before with this `ETag`.
pub type Open<'a> = dyn FnMut(u64, Option<&str>) -> Result<Piece, Failure> + Send + 'a;

/// When a transfer is too slow to go on with.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Looked at this often.
    pub window: Duration,
    /// Bytes that must have come in it.
    pub least: u64,
}

/// The stream.
pub struct Download<'a> {
    open: Box<Open<'a>>,
    wanted: Wanted,
    pace: Pace,
    /// What has come; written at its end, read from its beginning first.
    part: Part,
    hash: Sha256,
    /// Bytes given out.
    given: u64,
    piece: Option<Piece>,
    etag: Option<String>,
    /// Failures in a row, and what was given when the last one was.
    failed: u32,
    connections: u32,
    since: u64,
    window: (Instant, u64),
    /// The server has nothing behind what we have, though something is missing: all is asked for,
    /// once.
    anew: bool,
    /// Nobody wants it any more.
    given_up: Option<&'a (dyn Fn() -> bool + Sync)>,
    /// Most bytes, when nobody says how many they are.
    most: u64,
    /// How it ended; an end that is wrong stays so, however often it is asked for.
    end: Option<Result<(), Failure>>,
}

impl<'a> Download<'a> {
    /// Nothing is asked for before the first read. What the file `part` has from an earlier time
    /// counts as come, if a digest says whether it is right.
    pub fn new(
        part: &Path,
        wanted: Wanted,
        pace: Pace,
        open: impl FnMut(u64, Option<&str>) -> Result<Piece, Failure> + Send + 'a,
    ) -> io::Result<Download<'a>> {
        Ok(Download {
            open: Box::new(open),
            wanted,
            pace,
            part: Part::open(part, &wanted)?,
            hash: Sha256::new(),
            given: 0,
            piece: None,
            etag: None,
            failed: 0,
            connections: 0,
            since: 0,
            window: (Instant::now(), 0),
            anew: false,
            given_up: None,
            most: u64::MAX,
            end: None,
        })
    }

    /// The same; waits end when `given_up` says so.
    pub fn until(self, given_up: &'a (dyn Fn() -> bool + Sync)) -> Download<'a> {
        Download { given_up: Some(given_up), ..self }
    }

    /// The same, of so many bytes at most.
    pub fn at_most(self, bytes: u64) -> Download<'a> {
        Download { most: bytes, ..self }
    }

    /// Reads from the network, over as many connections as it takes.
    fn fetch(&mut self, buffer: &mut [u8]) -> Result<usize, Failure> {
        loop {
            match self.fetch_once(buffer) {
                Ok(read) => return Ok(read),
                Err(failure) => self.after(failure)?,
            }
        }
    }

    fn fetch_once(&mut self, buffer: &mut [u8]) -> Result<usize, Failure> {
        if self.piece.is_none() {
            if self.wanted.size == Some(self.given) {
                return Ok(0);
            }
            self.connections += 1;
            let from = if self.anew { 0 } else { self.given };
            let mut piece = (self.open)(from, self.etag.as_deref())?;
            let is_short = self.wanted.size.is_some_and(|size| self.given < size);
            if piece.is_past_end && is_short && !self.anew {
                self.anew = true;
                return self.fetch_once(buffer);
            }
            self.check_length(&piece)?;
            // Nobody else says it.
            self.wanted.size = self.wanted.size.or(piece.length.map(|length| piece.from + length));
            self.skip(&mut piece)?;
            self.etag = piece.etag.clone();
            self.window = (Instant::now(), self.given);
            self.piece = Some(piece);
        }
        let piece = self.piece.as_mut().expect("opened just now");
        // One byte more than there should be shows that there are more.
        let most = self.wanted.size.map_or(u64::MAX, |size| (size - self.given).saturating_add(1));
        let most = usize::try_from(most).unwrap_or(usize::MAX).min(buffer.len());
        let read = match piece.body.read(&mut buffer[..most]) {
            Err(err) if err.kind() == io::ErrorKind::Interrupted => return self.fetch_once(buffer),
            read => read.map_err(|err| http::broken_off(&piece.uri, &err))?,
        };
        let is_short = self.wanted.size.is_some_and(|size| self.given + (read as u64) < size);
        if read == 0 && is_short {
            return Err(Failure::passing(format!("{} ended too early", piece.uri)));
        }
        self.check_pace(read)?;
        Ok(read)
    }

    /// A server that says a length says ours.
    fn check_length(&self, piece: &Piece) -> Result<(), Failure> {
        match (self.wanted.size, piece.length) {
            (Some(size), Some(length)) if piece.from + length != size => {
                let (uri, has) = (&piece.uri, piece.from.saturating_add(length));
                Err(Failure::wrong(format!("{uri} has {has} bytes, its descriptor says {size}")))
            }
            _ => Ok(()),
        }
    }

    /// A server that begins anew although we asked for the rest: passes over what we have.
    fn skip(&self, piece: &mut Piece) -> Result<(), Failure> {
        if self.wanted.digest.is_none() && piece.from < self.given {
            // Nothing tells whether it is the same.
            return Err(Failure::wrong(format!("{} cannot be gone on with", piece.uri)));
        }
        let mut scratch = [0; 16 << 10];
        let mut left = self.given - piece.from.min(self.given);
        let mut window = (Instant::now(), left);
        while left > 0 {
            let most = usize::try_from(left).unwrap_or(usize::MAX).min(scratch.len());
            match piece.body.read(&mut scratch[..most]) {
                Ok(0) => return Err(Failure::passing(format!("{} ended too early", piece.uri))),
                Ok(read) => left -= read as u64,
                Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
                Err(err) => return Err(http::broken_off(&piece.uri, &err)),
            }
            if self.is_given_up() {
                return Err(Failure::wrong("it is not wanted any more"));
            }
            if window.0.elapsed() >= self.pace.window {
                self.pace.check(window.1 - left, &piece.uri)?;
                window = (Instant::now(), left);
            }
        }
        Ok(())
    }

    /// Gives up a connection on which next to nothing comes.
    fn check_pace(&mut self, read: usize) -> Result<(), Failure> {
        let (since, before) = self.window;
        if read == 0 || since.elapsed() < self.pace.window {
            return Ok(());
        }
        let came = self.given + read as u64 - before;
        self.window = (Instant::now(), self.given + read as u64);
        match &self.piece {
            Some(piece) => self.pace.check(came, &piece.uri),
            None => Ok(()),
        }
    }

    /// Waits before the next connection, or gives up.
    fn after(&mut self, failure: Failure) -> Result<(), Failure> {
        self.piece = None;
        if self.given - self.since >= PROGRESS {
            (self.failed, self.since) = (0, self.given);
        }
        self.failed += 1;
        let jitter = u64::from(self.hash.clone().finalize()[0]) * 4;
        match failure.pause(self.failed, jitter) {
            Some(pause) if self.connections < CONNECTIONS_MAX && !self.is_given_up() => {
                crate::warn!("blob.again", failed = self.failed, at = self.given, err = failure);
                self.wait(pause);
                Ok(())
            }
            _ => Err(failure),
        }
    }

    /// Leaves the server alone for this long; there is no event for it.
    fn wait(&self, pause: Duration) {
        let begin = Instant::now();
        while !self.is_given_up() {
            let left = pause.saturating_sub(begin.elapsed());
            if left.is_zero() {
                return;
            }
            // No event: the server is left alone, in slices that end when nobody wants it.
            std::thread::sleep(left.min(LOOK));
        }
    }

    fn is_given_up(&self) -> bool {
        self.given_up.is_some_and(|given_up| given_up())
    }

    /// All has come: is it what was wanted?
    fn finish(&mut self) -> Result<(), Failure> {
        let is = Digest::finish(self.hash.clone());
        match self.wanted.digest {
            Some(digest) if digest != is => {
                // What is wrong is of no use to the next try.
                self.part.forget();
                let text = format!("what came for {digest} is something else ({is})");
                Err(Failure::new(Kind::Mismatch, text))
            }
            _ => Ok(()),
        }
    }

    fn ends(&mut self, end: Result<(), Failure>) -> io::Result<usize> {
        self.end = Some(end.clone());
        end.map(|()| 0).map_err(as_io)
    }

    /// All was read; the file that is left of it.
    pub fn kept(self) -> Kept {
        Kept(self.part)
    }
}

impl Read for Download<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if let Some(end) = &self.end {
            return end.clone().map(|()| 0).map_err(as_io);
        }
        if buffer.is_empty() {
            return Ok(0);
        }
        let kept = self.part.read(buffer)?;
        let read = match kept {
            0 => {
                let read = match self.fetch(buffer) {
                    Ok(read) => read,
                    Err(failure) => return self.ends(Err(failure)),
                };
                self.part.write(&buffer[..read])?;
                read
            }
            kept => kept,
        };
        self.hash.update(&buffer[..read]);
        self.given += read as u64;
        if self.wanted.size.is_some_and(|size| self.given > size) {
            self.part.forget();
            let size = self.wanted.size.unwrap_or_default();
            let text = format!("more bytes came than the {size} of its descriptor");
            return self.ends(Err(Failure::new(Kind::Mismatch, text)));
        }
        if self.given > self.most {
            self.part.forget();
            let text = format!("it has more than {} bytes, and nobody says how many", self.most);
            return self.ends(Err(Failure::wrong(text)));
        }
        if read == 0 {
            let end = self.finish();
            return self.ends(end);
        }
        Ok(read)
    }
}

impl Pace {
    /// Whether so many bytes in a window are enough.
    fn check(&self, came: u64, uri: &Uri) -> Result<(), Failure> {
        if came >= self.least {
            return Ok(());
        }
        let seconds = self.window.as_secs();
        Err(Failure::passing(format!("{uri} gave {came} bytes in {seconds} s")))
    }
}

/// What was kept of a blob that came whole.
pub struct Kept(Part);

impl Kept {
    /// Its content is where it belongs: the file is not needed any more.
    pub fn forget(mut self) {
        self.0.forget();
    }
}

fn as_io(failure: Failure) -> io::Error {
    io::Error::other(failure)
}

/// The failure inside an error of the stream.
pub fn failure_in(err: &(dyn std::error::Error + 'static)) -> Option<Failure> {
    let mut next = Some(err);
    while let Some(err) = next {
        if let Some(failure) = err.downcast_ref::<Failure>() {
            return Some(failure.clone());
        }
        let inner = err.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        if let Some(failure) = inner.and_then(|inner| inner.downcast_ref::<Failure>()) {
            return Some(failure.clone());
        }
        next = err.source();
    }
    None
}

/// The file of what has come.
struct Part {
    path: PathBuf,
    /// Read to its end before anything is added.
    file: File,
    at_end: bool,
    forgotten: bool,
    /// Of no use to anybody else: nothing says what it must be.
    is_own: bool,
}

impl Drop for Part {
    fn drop(&mut self) {
        if self.is_own {
            self.forget();
        }
    }
}

impl Part {
    fn open(path: &Path, wanted: &Wanted) -> io::Result<Part> {
        let mut options = File::options();
        let file = options.read(true).append(true).create(true).open(path)?;
        let is_own = wanted.digest.is_none();
        // What is longer than the blob is not the beginning of it.
        let too_long =
            || Ok::<_, io::Error>(file.metadata()?.len() > wanted.size.unwrap_or(u64::MAX));
        if is_own || too_long()? {
            file.set_len(0)?;
        }
        Ok(Part { path: path.to_owned(), file, at_end: false, forgotten: false, is_own })
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at_end {
            return Ok(0);
        }
        let read = self.file.read(buffer)?;
        self.at_end = read == 0;
        Ok(read)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)
    }

    fn forget(&mut self) {
        if !std::mem::replace(&mut self.forgotten, true) {
            // Gone already, or swept later.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
    use ureq::Body;

    const PACE: Pace = Pace { window: Duration::from_secs(3600), least: 0 };

    struct Bed {
        dir: PathBuf,
        data: Vec<u8>,
    }

    impl Bed {
        fn new(name: &str, length: usize) -> Bed {
            let dir = std::env::temp_dir().join(format!("download-{name}-{}", std::process::id()));
            std::fs::create_dir_all(&dir).expect("directory");
            let data = (0..length).map(|at| (at * 7 % 251) as u8).collect();
            Bed { dir, data }
        }

        fn wanted(&self) -> Wanted {
            let digest = Some(Digest::of(&self.data));
            Wanted { digest, size: Some(self.data.len() as u64) }
        }

        /// What a server gives from `from` on: at most `most` bytes on a connection.
        fn piece(&self, from: u64, most: usize) -> Piece {
            let rest = &self.data[from as usize..];
            let body = Body::builder().data(rest[..rest.len().min(most)].to_vec()).into_reader();
            let uri = "https://a.lan/b".parse().expect("uri");
            let length = Some(rest.len() as u64);
            Piece { from, length, etag: None, body, uri, is_past_end: false }
        }

        fn part(&self) -> PathBuf {
            self.dir.join("part")
        }
    }

    impl Drop for Bed {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.dir);
        }
    }

    fn all(mut download: Download<'_>) -> Result<Vec<u8>, Failure> {
        let mut data = Vec::new();
        match download.read_to_end(&mut data) {
            Ok(_) => {
                download.kept().forget();
                Ok(data)
            }
            Err(err) => Err(failure_in(&err).expect("a failure")),
        }
    }

    #[test]
    fn broken_connections_are_gone_on_with() {
        let bed = Bed::new("again", 1 << 20);
        let asked = AtomicU32::new(0);
        let open = |from, _: Option<&str>| {
            asked.fetch_add(1, Ordering::Relaxed);
            Ok(bed.piece(from, 100_000))
        };
        let download = Download::new(&bed.part(), bed.wanted(), PACE, open).expect("new");
        assert!(all(download).expect("data") == bed.data);
        assert_eq!(asked.into_inner(), 11);
        assert!(!bed.part().exists());
    }

    #[test]
    fn what_came_before_is_not_asked_for_again() {
        let bed = Bed::new("before", 300_000);
        std::fs::write(bed.part(), &bed.data[..200_000]).expect("write");
        let first = std::sync::Mutex::new(Vec::new());
        let open = |from, _: Option<&str>| {
            first.lock().expect("lock").push(from);
            Ok(bed.piece(from, usize::MAX))
        };
        let download = Download::new(&bed.part(), bed.wanted(), PACE, open).expect("new");
        assert!(all(download).expect("data") == bed.data);
        assert_eq!(first.into_inner().expect("list"), [200_000]);
    }

    #[test]
    fn a_part_that_is_longer_than_the_blob_is_thrown_away() {
        let bed = Bed::new("long", 300_000);
        std::fs::write(bed.part(), [&bed.data[..], b"more"].concat()).expect("write");
        let asked = std::sync::Mutex::new(Vec::new());
        let open = |from, _: Option<&str>| {
            asked.lock().expect("lock").push(from);
            Ok(bed.piece(from, usize::MAX))
        };
        let download = Download::new(&bed.part(), bed.wanted(), PACE, open).expect("new");
        assert!(all(download).expect("data") == bed.data);
        assert_eq!(asked.into_inner().expect("list"), [0]);
    }

    #[test]
    fn a_server_without_ranges_is_read_from_its_beginning() {
        let bed = Bed::new("whole", 300_000);
        std::fs::write(bed.part(), &bed.data[..200_000]).expect("write");
        let open = |_, _: Option<&str>| Ok(bed.piece(0, usize::MAX));
        let download = Download::new(&bed.part(), bed.wanted(), PACE, open).expect("new");
        assert!(all(download).expect("data") == bed.data);
    }

    #[test]
    fn lies_are_found_out_and_leave_nothing() {
        let bed = Bed::new("lies", 1000);
        let told = |wanted: Wanted, other: Option<Vec<u8>>| {
            let open = |from, _: Option<&str>| {
                let mut piece = bed.piece(from, usize::MAX);
                if let Some(other) = &other {
                    piece.length = None;
                    piece.body = Body::builder().data(other.clone()).into_reader();
                }
                Ok(piece)
            };
            let download = Download::new(&bed.part(), wanted, PACE, open).expect("new");
            all(download).expect_err("a lie")
        };
        let wanted = bed.wanted();
        let damaged = told(wanted, Some(vec![7; 1000]));
        assert!(damaged.kind == Kind::Mismatch && !bed.part().exists(), "{damaged}");
        let long = told(wanted, Some(vec![7; 1001]));
        assert!(long.text.contains("more bytes came") && !bed.part().exists(), "{long}");
        assert_eq!(long.kind, Kind::Mismatch);
        let short = told(Wanted { size: Some(999), ..wanted }, None);
        assert_eq!(short.kind, Kind::Wrong);
        let text = short.text;
        assert_eq!(text, "https://a.lan/b has 1000 bytes, its descriptor says 999");
    }

    #[test]
    fn a_server_that_knows_nothing_behind_a_part_is_asked_for_all_once() {
        let bed = Bed::new("past", 1000);
        let asked = std::sync::Mutex::new(Vec::new());
        let past = |from| Piece { length: Some(0), is_past_end: true, ..bed.piece(from, 0) };
        let tried = |is_odd: bool| {
            std::fs::write(bed.part(), &bed.data[..600]).expect("write");
            let open = |from, _: Option<&str>| {
                asked.lock().expect("lock").push(from);
                Ok(if from == 0 && !is_odd { bed.piece(0, usize::MAX) } else { past(from) })
            };
            all(Download::new(&bed.part(), bed.wanted(), PACE, open).expect("new"))
        };
        assert!(tried(false).expect("data") == bed.data);
        assert!(tried(true).is_err());
        assert_eq!(asked.into_inner().expect("list"), [600, 0, 600, 0]);
    }

    /// The pause is far longer than any test.
    #[test]
    fn a_wait_ends_when_nobody_wants_it_any_more() {
        let bed = Bed::new("unwanted", 10);
        let given_up = AtomicBool::new(false);
        let open = |_, _: Option<&str>| {
            given_up.store(true, Ordering::Relaxed);
            Err(Failure { after: Some(Duration::from_secs(60)), ..Failure::passing("busy") })
        };
        let download = Download::new(&bed.part(), bed.wanted(), PACE, open).expect("new");
        let is_over = || given_up.load(Ordering::Relaxed);
        assert_eq!(all(download.until(&is_over)).expect_err("busy").text, "busy");
    }

    #[test]
    fn a_server_that_never_answers_is_given_up() {
        let bed = Bed::new("never", 10);
        let asked = AtomicU32::new(0);
        let open = |_, _: Option<&str>| {
            asked.fetch_add(1, Ordering::Relaxed);
            let after = Some(Duration::from_secs(3600));
            Err(Failure { after, ..Failure::passing("busy") })
        };
        let download = Download::new(&bed.part(), bed.wanted(), PACE, open).expect("new");
        assert_eq!(all(download).expect_err("busy").text, "busy");
        assert_eq!(asked.into_inner(), 1);
    }
}
