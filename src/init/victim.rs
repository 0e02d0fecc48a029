//! Who goes first when memory runs out: processes, and only then pid 1.
//!
//! The kernel ends the largest. Files in memory are nobody's, and many small processes are smaller than pid
//! 1, so that it might be that one, and with it the whole container. Who it ends is moved by a number that a
//! process inherits. None can raise its own before exec: it is not dumpable, and its files in /proc belong to
//! the box's root. After exec is too late: what it has forked by then keeps the lower number. So whoever
//! forks opens its own number while it is the box's root still, and has the higher one while it forks.

use super::{Doing, InitError};
use crate::sys::at::{self, Open, Resolve};
use crate::sys::ns::{self, Fork, Parent, Spaces};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;

/// Counts as a tenth of what the group, or the box, has: where that is much, more than a pid 1 takes.
const ADDED: i32 = 100;
/// The same where the group has little. No more: when the whole box has no memory left, it counts as half
/// of that.
const ADDED_MOST: i32 = 500;
/// What a pid 1 takes at most, its program's pages included, which are nobody's but count.
const PID_ONE_BYTES: u64 = 5 << 20;
/// The most that the kernel takes.
const MOST: i32 = 1000;

/// The number of this process, held open.
pub struct Score {
    file: File,
    own: String,
    children: String,
}

impl Score {
    /// Opens it, as the box's root. `proc` is the /proc of the process's pid namespace; `limit` what the
    /// group may have, in bytes, 0: all that there is.
    pub fn open(proc: impl AsFd, limit: u64) -> Result<Score, InitError> {
        // Nothing may be mounted on the way.
        let how =
            Resolve::RESOLVE_BENEATH | Resolve::RESOLVE_NO_XDEV | Resolve::RESOLVE_NO_SYMLINKS;
        let path = format!("{}/oom_score_adj", std::process::id());
        let opened = at::open(proc, &path, Open::O_RDWR | Open::O_NOCTTY, 0, how);
        let mut file = File::from(opened.doing(|| format!("open /proc/{path}"))?);
        let mut own = String::new();
        file.read_to_string(&mut own).doing(|| format!("read /proc/{path}"))?;
        let children = for_children(&own, limit).to_string();
        Ok(Score { file, own, children })
    }

    /// Forks a child of the caller that is ended before it, and all that the child forks with it.
    pub fn fork(&self) -> io::Result<Fork> {
        (&self.file).write_all(self.children.as_bytes())?;
        let forked = ns::fork(Spaces::empty(), Parent::Caller);
        if !matches!(forked, Ok(Fork::Child)) {
            // What a process had it can have again: no privilege is needed, and nothing else fails.
            let _ = (&self.file).write_all(self.own.as_bytes());
        }
        forked
    }
}

/// The number of children of a process that has `own`, as the kernel tells it. A thousandth counts as a
/// thousandth of the limit.
fn for_children(own: &str, limit: u64) -> i32 {
    let covers = (PID_ONE_BYTES * 1000).checked_div(limit).unwrap_or(0);
    let added = i32::try_from(covers).unwrap_or(ADDED_MOST).clamp(ADDED, ADDED_MOST);
    (own.trim().parse().unwrap_or(0) + added).min(MOST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn children_go_first_wherever_the_service_stands() {
        for (own, children) in [("0\n", 100), ("200\n", 300), ("950\n", 1000), ("1000\n", 1000)] {
            assert_eq!(for_children(own, 0), children);
        }
        let mib = |count: u64| for_children("0\n", count << 20);
        assert_eq!([4, 8, 16, 50, 64, 4096].map(mib), [500, 500, 312, 100, 100, 100]);
    }
}
