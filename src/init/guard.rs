//! Looks after the outputs that somebody else reads, so that an app waits for no daemon that stands
//! still: stopped, or held up by a disk.
//!
//! ```text
//! Calm   silent: whatever is written wakes us once
//! Seen   looked at every LOOK: empty -> Calm; may be full -> the mark is set -> Asked
//! Asked  whoever reads asks first (`Ask::ReadOn`)              -> Calm, without the mark
//!        not asked, and may be full at the next look: he stands still -> Kept
//! Kept   whenever it may be full, we move all but a byte to the spool, until he asks: first comes what we
//!        kept, then what is in the pipe. By that byte he is woken
//! Over   every writer is gone: nobody can wait
//! ```
//!
//! The mark is a flag of the open file that reader and pid 1 share, and only pid 1 sets it. A reader
//! looks for it right before each read; so no byte is read by two, and none out of turn, unless a reader
//! is stopped for all that time just between his look and his read. An app that is silent, or whose
//! pipe is empty at each look, costs at most two wake-ups in [`LOOK`].

use std::time::Duration;

/// Between two looks. An app waits twice as long at most.
pub const LOOK: Duration = Duration::from_secs(2);

/// The same after one at which we had to read: an app gets rid of so many full pipes, a few MiB, in a
/// second while nobody else reads.
pub const SOON: Duration = Duration::from_millis(20);

/// What is known of who reads one output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Guard {
    /// Nothing is in the pipe, as far as we know.
    #[default]
    Calm,
    /// Something was.
    Seen,
    /// The mark is set.
    Asked,
    /// We read it.
    Kept,
    /// Nothing more is written.
    Over,
}

impl Guard {
    /// After a look at a pipe that has so many unread bytes, of so many.
    pub fn look(self, unread: usize, capacity: usize) -> Guard {
        let may_be_full = may_be_full(unread, capacity);
        match self {
            // Of one who was asked: he read between his look and our mark.
            Guard::Seen | Guard::Asked if unread == 0 => Guard::Calm,
            Guard::Seen if may_be_full => Guard::Asked,
            Guard::Asked if may_be_full => Guard::Kept,
            Guard::Calm | Guard::Seen | Guard::Asked | Guard::Kept | Guard::Over => self,
        }
    }

    /// There is something to look at.
    pub fn wants_looks(self) -> bool {
        matches!(self, Guard::Seen | Guard::Asked | Guard::Kept)
    }
}

/// Whether a pipe may be full. It is when each of its pages is in use, however little is in it. One may
/// hold a last byte that we have left. What is written goes to the page before if it fits there, so
/// each two of the others hold more than one has room for: of 16 pages, 7 and some bytes.
pub fn may_be_full(unread: usize, capacity: usize) -> bool {
    unread >= capacity / 4
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_was_asked_and_said_nothing_is_taken_from() {
        use Guard as G;
        for (before, unread, after) in [
            (G::Calm, 65_536, G::Calm),
            (G::Seen, 0, G::Calm),
            (G::Seen, 1, G::Seen),
            (G::Seen, 16_383, G::Seen),
            // Of 16 pages: one byte, and seven times 1 and 4096 and again 1.
            (G::Seen, 28_681, G::Asked),
            (G::Asked, 28_681, G::Kept),
            (G::Asked, 100, G::Asked),
            (G::Asked, 0, G::Calm),
            (G::Kept, 0, G::Kept),
            (G::Kept, 65_536, G::Kept),
            (G::Over, 65_536, G::Over),
        ] {
            assert_eq!(before.look(unread, 65_536), after, "{before:?} {unread}");
        }
    }
}
