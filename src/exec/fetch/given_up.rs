//! What nobody wants any more: the thread that works on it hears of that, and stops.

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Held by whoever wants something; dropped, it is given up.
#[derive(Default)]
pub struct GiveUp(Arc<AtomicBool>);

/// Held by the thread that works on it.
#[derive(Clone)]
pub struct GivenUp(Arc<AtomicBool>);

impl GiveUp {
    /// For the one who does the work.
    pub fn heard(&self) -> GivenUp {
        GivenUp(self.0.clone())
    }
}

impl Drop for GiveUp {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl GivenUp {
    /// Nobody wants it any more.
    pub fn is(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// What is read of `body` ends as a failure when it is given up.
    pub fn reading<R: Read>(&self, body: R) -> Reading<'_, R> {
        Reading { body, given_up: self }
    }
}

/// A body on its way to somebody else.
pub struct Reading<'a, R> {
    body: R,
    given_up: &'a GivenUp,
}

impl<R: Read> Read for Reading<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.given_up.is() {
            return Err(io::Error::other(UNWANTED));
        }
        self.body.read(buffer)
    }
}

/// Said of what was given up, to nobody as a rule.
pub const UNWANTED: &str = "nobody wants it any more";
