//! A blob as a stream that survives bad links: what has come is kept in a file, what is missing is
//! asked for again from there, and at the end it is what its digest says or an error.
//!
//! To keep a blob costs as much as to make half of the files that are in it. One that comes so fast that
//! all of it will be here in a moment is not kept beyond its beginning; if that turns out wrong, what was
//! not kept comes once more.
//!
//! Where nothing tells in the end whether it is the right blob, bytes of two answers are put together only
//! when the server says by a strong validator that both are of the same one. Without that it is asked for
//! from its beginning, and has to begin with what was given out: then it counts as one answer.

use super::failure::{Failure, Kind};
use super::http;
use super::pace::{Pace, Watch};
use super::part::{Kept, Part};
use super::repository::Piece;
use super::validator::Validator;
use crate::unit::Digest;
use sha2::{Digest as _, Sha256};
use std::io::{self, Read};
use std::path::Path;
use std::time::{Duration, Instant};

/// Progress that makes a server worth being asked at once.
const PROGRESS: u64 = 4 << 10;
/// How often somebody who waits looks whether he still has to.
const LOOK: Duration = Duration::from_millis(100);
/// What came whole in less than this comes again as soon: it need not be kept for longer than it takes
/// to unpack it.
const QUICK: Duration = Duration::from_secs(2);
/// How fast a blob comes is judged when so much of it has come, and then it has to come in this time.
const JUDGED: u64 = 1 << 20;
const MOMENT: Duration = Duration::from_secs(1);
/// Most connections for one blob.
const CONNECTIONS_MAX: u32 = 10_000;

/// What is wanted.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// What its bytes must be; `None`: nobody says.
    pub digest: Option<Digest>,
    /// How many they must be; `None`: as many as the server has.
    pub size: Option<u64>,
    /// What they should be, where no digest names them.
    pub advice: Option<&'a Advice>,
}

/// What a registry of the first version says of a blob. It may be mistaken, but then what was kept from
/// an earlier time is not gone on with.
#[derive(Clone, Debug)]
pub struct Advice {
    /// Of what stands before the blob in what the digests are of.
    pub before: Sha256,
    /// One of them should be it.
    pub sums: Vec<Digest>,
}

impl Wanted<'_> {
    /// Nothing says what it must be.
    fn is_bare(&self) -> bool {
        self.digest.is_none() && self.advice.is_none()
    }
}

/// Where a blob comes from: from this byte on, as it was before with this validator.
pub type Open<'a> = dyn FnMut(u64, Option<&str>) -> Result<Piece, Failure> + Send + 'a;

/// The stream.
pub struct Download<'a> {
    open: Box<Open<'a>>,
    wanted: Wanted<'a>,
    pace: Pace,
    part: Part,
    hash: Sha256,
    /// Not all of it came from one answer after another: something else may be in it.
    is_patched: bool,
    /// Bytes given out.
    given: u64,
    piece: Option<Piece>,
    /// What the server tells by what has come.
    same: Option<Validator>,
    /// When the first byte was asked for; `None`: it was here.
    begun: Option<Instant>,
    /// Bytes in the file; fewer than were given out while none are kept.
    kept: u64,
    /// None are kept, as all will be here in a moment.
    is_lean: bool,
    /// Failures in a row, and what was given when the last one was.
    failed: u32,
    connections: u32,
    since: u64,
    watch: Watch,
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
    /// counts as come, if a digest or the server says whether it is right.
    pub fn new(
        part: &Path,
        wanted: Wanted<'a>,
        pace: Pace,
        open: impl FnMut(u64, Option<&str>) -> Result<Piece, Failure> + Send + 'a,
    ) -> io::Result<Download<'a>> {
        let (part, same) = Part::open(part, wanted.is_bare(), wanted.size)?;
        Ok(Download {
            open: Box::new(open),
            wanted,
            pace,
            part,
            hash: wanted.advice.map_or_else(Sha256::new, |advice| advice.before.clone()),
            is_patched: false,
            given: 0,
            piece: None,
            same,
            begun: None,
            kept: 0,
            is_lean: false,
            failed: 0,
            connections: 0,
            since: 0,
            watch: Watch::new(pace),
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
        if self.is_lean && self.begun.is_some_and(|begun| begun.elapsed() >= QUICK) {
            // It does not come as fast as it seemed to: what was not kept comes with the rest.
            self.piece = None;
        }
        if self.piece.is_none() {
            if self.wanted.size == Some(self.given) {
                return Ok(0);
            }
            self.connections += 1;
            if self.given == 0 {
                self.begun.get_or_insert_with(Instant::now);
            }
            self.is_lean = false;
            let is_unknown = self.wanted.is_bare() && self.same.is_none();
            let from = if self.anew || is_unknown { 0 } else { self.kept };
            let mut piece = (self.open)(from, self.same.as_ref().map(Validator::value))?;
            if from > 0 && self.wanted.is_bare() && piece.from > 0 && !self.is_same(&piece) {
                // The rest of something, and nothing says of what.
                self.same = None;
                return self.fetch_once(buffer);
            }
            let is_short = self.wanted.size.is_some_and(|size| self.given < size);
            if piece.is_past_end && is_short && !self.anew {
                self.anew = true;
                return self.fetch_once(buffer);
            }
            let checked = self.check_length(&piece);
            checked.map_err(|failure| self.changed(failure))?;
            // Nobody else says it.
            self.wanted.size =
                self.wanted.size.or(piece.length.map(|length| piece.from.saturating_add(length)));
            self.skip(&mut piece)?;
            let same = Validator::of(&piece, self.wanted.digest.is_none());
            if self.wanted.is_bare() && piece.from == 0 {
                self.part.vouch(same.as_ref());
            }
            self.same = same;
            self.watch = Watch::new(self.pace);
            self.piece = Some(piece);
        }
        let piece = self.piece.as_mut().expect("opened just now");
        // One byte more than there should be shows that there are more.
        let most = self
            .wanted
            .size
            .map_or(u64::MAX, |size| size.saturating_sub(self.given).saturating_add(1));
        let most = usize::try_from(most).unwrap_or(usize::MAX).min(buffer.len());
        let read = match piece.body.read(&mut buffer[..most]) {
            Err(err) if err.kind() == io::ErrorKind::Interrupted => return self.fetch_once(buffer),
            read => read.map_err(|err| http::broken_off(&piece.uri, &err))?,
        };
        let is_short = self.wanted.size.is_some_and(|size| self.given + (read as u64) < size);
        if read == 0 && is_short {
            return Err(Failure::passing(format!("{} ended too early", piece.uri)));
        }
        if read > 0 {
            self.watch.came(read, &piece.uri)?;
        }
        Ok(read)
    }

    /// Adds to what is kept.
    fn keep(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.part.write(bytes)?;
        self.kept += bytes.len() as u64;
        Ok(())
    }

    /// Whether all that is missing comes in a moment, if it goes on as it began.
    fn is_fast(&self) -> bool {
        let (Some(begun), Some(size)) = (self.begun, self.wanted.size) else { return false };
        let is_named = self.wanted.digest.is_some();
        let is_time = self.given >= JUDGED && self.given < size && self.connections == 1;
        let whole = begun.elapsed().as_secs_f64() * size as f64 / self.given as f64;
        is_named && is_time && whole < MOMENT.as_secs_f64()
    }

    /// A server that says a length says ours.
    fn check_length(&self, piece: &Piece) -> Result<(), Failure> {
        match (self.wanted.size, piece.length) {
            (Some(size), Some(length)) if piece.from.saturating_add(length) != size => {
                let (uri, has) = (&piece.uri, piece.from.saturating_add(length));
                Err(Failure::wrong(format!("{uri} has {has} bytes, its descriptor says {size}")))
            }
            _ => Ok(()),
        }
    }

    /// Whether an answer is of the blob that the ones before were of.
    fn is_same(&self, piece: &Piece) -> bool {
        let new = Validator::of(piece, self.wanted.digest.is_none());
        new.is_some() && new == self.same
    }

    /// Passes over what was given out already, and keeps of it what was not kept.
    fn skip(&mut self, piece: &mut Piece) -> Result<(), Failure> {
        // Nothing says that it is still the same: what it should be has to show it.
        if self.given > 0 && (!self.is_same(piece) || piece.from < self.given) {
            self.is_patched = true;
        }
        let mut seen = Sha256::new();
        let mut scratch = [0; 16 << 10];
        let unkept = |err| Failure::new(Kind::Here, format!("what comes cannot be kept: {err}"));
        let mut left = self.given - piece.from.min(self.given);
        let mut watch = Watch::new(self.pace);
        while left > 0 {
            let most = usize::try_from(left).unwrap_or(usize::MAX).min(scratch.len());
            let read = match piece.body.read(&mut scratch[..most]) {
                Ok(0) => return Err(Failure::passing(format!("{} ended too early", piece.uri))),
                Err(err) if err.kind() == io::ErrorKind::Interrupted => 0,
                read => read.map_err(|err| http::broken_off(&piece.uri, &err))?,
            };
            if self.wanted.is_bare() {
                seen.update(&scratch[..read]);
            }
            let at = self.given - left;
            let known = usize::try_from(self.kept - at.min(self.kept)).unwrap_or(usize::MAX);
            if known < read {
                self.keep(&scratch[known..read]).map_err(unkept)?;
            }
            left -= read as u64;
            if self.is_given_up() {
                return Err(Failure::wrong("it is not wanted any more"));
            }
            watch.came(read, &piece.uri)?;
        }
        let is_whole = piece.from == 0 && self.given > 0;
        if self.wanted.is_bare()
            && is_whole
            && Digest::finish(seen) != Digest::finish(self.hash.clone())
        {
            let text = format!("{} does not begin any more with what came of it before", piece.uri);
            return Err(self.changed(Failure::wrong(text)));
        }
        Ok(())
    }

    /// The server has another blob now: where nothing else tells what it should be, all of that counts,
    /// from its beginning.
    fn changed(&mut self, failure: Failure) -> Failure {
        if !self.wanted.is_bare() || self.given == 0 {
            return failure;
        }
        self.part.forget();
        Failure { kind: Kind::Mismatch, ..failure }
    }

    /// Waits before the next connection, or gives up.
    fn after(&mut self, failure: Failure) -> Result<(), Failure> {
        self.piece = None;
        if self.given - self.since >= PROGRESS {
            (self.failed, self.since) = (0, self.given);
        }
        self.failed += 1;
        match failure.pause(self.failed) {
            Some(pause) if self.connections < CONNECTIONS_MAX && !self.is_given_up() => {
                crate::warn!("blob.again", failed = self.failed, at = self.given, err = failure);
                self.wait(pause);
                Ok(())
            }
            _ => Err(failure),
        }
    }

    /// Leaves the server alone for this long.
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
            Some(_) => Ok(()),
            None => self.heed(&is),
        }
    }

    /// What the registry says of bytes that nothing names tells whether those of an earlier time belong to
    /// those of today; of what came as one it is known to be wrong at times.
    fn heed(&mut self, is: &Digest) -> Result<(), Failure> {
        let Some(advice) = self.wanted.advice.filter(|advice| !advice.sums.contains(is)) else {
            return Ok(());
        };
        let said = advice.sums.first().map(Digest::to_string).unwrap_or_default();
        if self.is_patched {
            self.part.forget();
            let text = format!("what was kept of it does not belong to what came ({said}, {is})");
            return Err(Failure::new(Kind::Mismatch, text));
        }
        crate::warn!("layer.other_checksum", said = said, digest = is);
        Ok(())
    }

    fn ends(&mut self, end: Result<(), Failure>) -> io::Result<usize> {
        self.end = Some(end.clone());
        end.map(|()| 0).map_err(as_io)
    }

    /// What came cannot be unpacked: it is of no use to another try.
    pub fn forget(&mut self) {
        self.part.forget();
    }

    /// The same where nothing tells in the end that it is the wrong blob.
    pub fn forget_bare(&mut self) {
        if self.wanted.is_bare() {
            self.part.forget();
        }
    }

    /// Whether not all of it came as one: something else may be in it, which shows at its end.
    pub fn is_patched(&self) -> bool {
        self.is_patched
    }

    /// All was read; the file that is left of it.
    pub fn kept(self) -> Kept {
        let is_quick = self.begun.is_some_and(|begun| begun.elapsed() < QUICK);
        Kept::new(self.part, is_quick)
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
                let kept = if self.is_lean { Ok(()) } else { self.keep(&buffer[..read]) };
                if let Err(err) = kept {
                    // These bytes are in no count: whoever reads on hears that, and no lie about the rest.
                    let text = format!("what comes cannot be kept: {err}");
                    self.end = Some(Err(Failure::new(Kind::Here, text)));
                    return Err(err);
                }
                read
            }
            kept => {
                self.kept += kept as u64;
                self.is_patched = true;
                kept
            }
        };
        self.hash.update(&buffer[..read]);
        self.given += read as u64;
        self.is_lean = self.is_lean || self.is_fast();
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

#[cfg(test)]
mod tests;
