//! Who goes first when memory runs out: processes, and only then pid 1.
//!
//! The kernel ends the largest. Files in memory are nobody's, so that it may be pid 1, and with it
//! the whole container, for what a program has put into /dev/shm. A process inherits pid 1's value and
//! cannot raise its own before exec: it is not dumpable, and its files in /proc belong to the box's
//! root. So pid 1 does it as soon as exec has worked.

use crate::sys::at::{self, Open, Resolve};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;

/// Counts as a tenth of what the group, or the box, has: more than a pid 1 takes.
const ADDED: &[u8] = b"100";

/// Has the process `pid` ended before pid 1. One that hides from everybody (a program that nobody may
/// read) stays as it is.
pub fn prefer(proc: impl AsFd, pid: i32) -> io::Result<()> {
    // Nothing may be mounted on the way.
    let how = Resolve::RESOLVE_BENEATH | Resolve::RESOLVE_NO_XDEV | Resolve::RESOLVE_NO_SYMLINKS;
    let path = format!("{pid}/oom_score_adj");
    let file = at::open(proc, &path, Open::O_WRONLY | Open::O_NOCTTY, 0, how)?;
    File::from(file).write_all(ADDED)
}
