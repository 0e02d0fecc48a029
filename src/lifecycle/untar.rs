//! `untar -C DIR` and `tar-in DIR`: a tar stream on stdin becomes a tree, as [`super::unpack`] has
//! it. The one takes an app's bits, the other what Garden's clients stream in.

use super::error::LifecycleError;
use super::flags::{Flag, Flags};
use super::unpack::{Rules, unpack};
use crate::sys::process;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufReader};
use std::os::fd::AsFd;
use std::path::Path;

const FLAGS: &[Flag] = &[Flag::text("C", "", "directory to unpack into; made when missing")];

/// The role: exit 0, or 1 with one line about the first entry that failed.
pub(super) fn run(args: &[OsString]) -> Result<(), u8> {
    let flags = Flags::parse("untar", FLAGS, args)?;
    let dir = flags.path("C");
    if dir.as_os_str().is_empty() {
        complain!("usage: untar -C DIR < ARCHIVE");
        return Err(1);
    }
    from_stdin("untar", &dir, Rules::App)
}

/// The role `tar-in`, with the same exit codes. A DIR that is not absolute lies in the working
/// directory, and an empty one is that.
pub(super) fn tar_in(args: &[OsString]) -> Result<(), u8> {
    let [dir] = args else {
        complain!("usage: tar-in DIR < ARCHIVE");
        return Err(1);
    };
    let dir = if dir.is_empty() { Path::new(".") } else { Path::new(dir) };
    from_stdin("tar-in", dir, Rules::Tar { umask: process::umask() })
}

fn from_stdin(role: &str, dir: &Path, rules: Rules) -> Result<(), u8> {
    let fail = |err: LifecycleError| {
        complain!("{role}: {}", crate::log::chain(&err));
        1
    };
    let input = io::stdin().as_fd().try_clone_to_owned();
    let input = input.map_err(|source| fail(LifecycleError::Stream { doing: "read", source }))?;
    unpack(BufReader::with_capacity(64 * 1024, File::from(input)), dir, rules).map_err(fail)
}
