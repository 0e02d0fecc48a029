//! What a reader of an archive knows beside its entries: whether it has ended, and how long it may
//! speak of an entry before the entry comes.

use std::cell::Cell;
use std::io::{self, Read};

/// Most bytes that may describe one entry: header, long names, PAX records, their padding.
const DESCRIPTION_MAX: u64 = 2 << 20;

/// Shared between a [`Tail`] and who made it.
#[derive(Default)]
pub(super) struct State {
    /// Zero bytes that came last: an archive ends with blocks of them.
    zeros: Cell<u64>,
    /// What may still be read, while a description is.
    left: Cell<Option<u64>>,
}

impl State {
    /// Runs `next`, which reads no more than a description may be long: the crate that reads it
    /// keeps all of it in memory.
    pub(super) fn describing<T>(&self, next: impl FnOnce() -> Option<T>) -> Option<T> {
        self.left.set(Some(DESCRIPTION_MAX));
        // Those before were a file's; its padding is shorter than the block that ends an archive.
        self.zeros.set(0);
        let next = next();
        self.left.set(None);
        next
    }

    /// Whether a whole block of zeros came last.
    pub(super) fn has_ended(&self) -> bool {
        self.zeros.get() >= 512
    }
}

/// The stream of an archive.
pub(super) struct Tail<'a, R> {
    input: R,
    state: &'a State,
}

impl<'a, R> Tail<'a, R> {
    pub(super) fn new(input: R, state: &'a State) -> Tail<'a, R> {
        Tail { input, state }
    }
}

impl<R: Read> Read for Tail<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let State { zeros, left } = self.state;
        let got = self.input.read(buffer)?;
        if let Some(may) = left.get() {
            let may = may.checked_sub(got as u64).ok_or_else(|| {
                let why = format!("an entry is described in more than {DESCRIPTION_MAX} bytes");
                io::Error::new(io::ErrorKind::InvalidData, why)
            })?;
            left.set(Some(may));
        }
        match buffer[..got].iter().rposition(|byte| *byte != 0) {
            Some(last) => zeros.set((got - 1 - last) as u64),
            None => zeros.set(zeros.get() + got as u64),
        }
        Ok(got)
    }
}
