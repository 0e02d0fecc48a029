//! The AppArmor profile that a process gets together with its program.

use crate::sys::at::{self, Open, Resolve};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;

/// Where a thread says what it wants to become, below /proc. The second is any security module's
/// and all that kernels before 5.8 have.
const FILES: [&str; 2] = ["thread-self/attr/apparmor/exec", "thread-self/attr/exec"];

/// Lets the next exec of the caller put it under `profile`. Nobody else can do it for the caller,
/// nor can what it executes undo it. `proc`: the root of a /proc that we have mounted, so that no
/// other file gets these words. `ENOENT`: no such profile is loaded; `EINVAL`: another security
/// module, or none, has the file. apparmor(7), aa_change_onexec(3).
pub fn take_at_exec(proc: impl AsFd, profile: &str) -> io::Result<()> {
    // Nothing may be mounted on the way; `thread-self` is a plain link that stays below.
    let how = Resolve::RESOLVE_BENEATH | Resolve::RESOLVE_NO_XDEV | Resolve::RESOLVE_NO_MAGICLINKS;
    let mut last = Err(io::ErrorKind::NotFound.into());
    for file in FILES {
        last = at::open(&proc, file, Open::O_WRONLY | Open::O_NOCTTY, 0, how);
        if !matches!(&last, Err(err) if err.kind() == io::ErrorKind::NotFound) {
            break;
        }
    }
    // The kernel wants it in one piece.
    let order = order(profile);
    match File::from(last?).write(order.as_bytes())? {
        all if all == order.len() => Ok(()),
        _ => Err(io::ErrorKind::WriteZero.into()),
    }
}

/// The words for it.
fn order(profile: &str) -> String {
    format!("exec {profile}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_is_asked_for_the_next_exec_alone() {
        assert_eq!(order("garden-default"), "exec garden-default");
    }

    #[test]
    fn a_directory_that_is_no_proc_is_never_written_to() {
        let dir = File::open("/dev").expect("open");
        let err = take_at_exec(&dir, "x").expect_err("no such file");
        assert_eq!(err.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_profile_that_nobody_has_loaded_is_refused() {
        let proc = File::open("/proc").expect("open");
        take_at_exec(&proc, "no-such-profile-anywhere").expect_err("not loaded");
    }
}
