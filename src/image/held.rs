//! Memory for what a layer says and has to be remembered while it is unpacked, and until the layers below
//! are there: directories that it only implies, links to layers below, records about an entry, maps of
//! holes. All layers of this process have it together. Nobody who has some waits for more.

use std::sync::atomic::{AtomicUsize, Ordering};

/// All of it, in bytes.
pub const REMEMBERED: usize = 4 << 20;
/// So much of it for layers of an image, or of a file, that are unpacked and wait for those below. Of a
/// registry they are shown then, and while they cannot be, no others are begun; of a file they are made later.
pub(super) const HELD_MAX: usize = REMEMBERED / 8;
/// Why there is none.
pub(super) const NO_MEMORY: &str = "needs more memory for what is to be remembered than is left beside the other \
                             layers that are unpacked now; try again when they are here, or make the \
                             layer with entries of its own for all its directories";

/// What is left of it.
static FREE: Pool = Pool(AtomicUsize::new(REMEMBERED));

/// So many bytes that are free.
#[derive(Debug)]
struct Pool(AtomicUsize);

/// Bytes that nobody has.
pub fn free() -> usize {
    FREE.0.load(Ordering::Relaxed)
}

/// A part of it, given back when it is dropped.
#[derive(Debug)]
pub struct Held {
    of: &'static Pool,
    bytes: usize,
}

impl Default for Held {
    fn default() -> Held {
        Held { of: &FREE, bytes: 0 }
    }
}

impl Held {
    /// Takes so many bytes more; `false`: they are not to be had. Nobody has more than is left for those
    /// who come after, so no one layer has all.
    pub fn take(&mut self, more: usize) -> bool {
        let whole = self.bytes.saturating_add(more);
        let left = |free: usize| free.checked_sub(more).filter(|left| whole <= *left);
        let taken = self.of.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, left).is_ok();
        if taken {
            self.bytes = whole;
        }
        taken
    }

    /// Gives so many of them back.
    pub fn give_back(&mut self, bytes: usize) {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        self.of.0.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Bytes that it has.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.give_back(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_takes_all_and_all_comes_back() {
        static POOL: Pool = Pool(AtomicUsize::new(1024));
        let begin = || Held { of: &POOL, bytes: 0 };
        let free = || POOL.0.load(Ordering::Relaxed);
        let (mut one, mut two, mut three) = (begin(), begin(), begin());
        assert!(!one.take(513) && one.take(512) && !one.take(1), "{one:?}");
        assert!(!two.take(257) && two.take(256), "{two:?}");
        assert!(three.take(128) && !three.take(1) && !three.take(usize::MAX), "{three:?}");
        assert_eq!((free(), one.bytes(), three.bytes()), (128, 512, 128));
        one.give_back(500);
        // No more than it has.
        one.give_back(500);
        assert_eq!((free(), one.bytes()), (640, 0));
        drop((one, two, three));
        assert_eq!(free(), 1024);
    }
}
