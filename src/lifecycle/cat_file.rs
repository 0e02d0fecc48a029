//! `cat-file PATH`: copies one regular file to stdout, for what is taken out of a container.

use crate::sys::beneath;
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;

/// Exit code for a file that does not exist, which may be fine.
const MISSING: u8 = 4;

/// The role: exit 0, 4 when there is no such file, 1 for everything else.
pub(super) fn run(args: &[OsString]) -> Result<(), u8> {
    let [path] = args else {
        complain!("usage: cat-file PATH");
        return Err(1);
    };
    let path = Path::new(path);
    copy(path).map_err(|err| {
        complain!("cat-file: cannot copy {}: {err}", path.display());
        match err.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => MISSING,
            _ => 1,
        }
    })
}

fn copy(path: &Path) -> io::Result<()> {
    let mut file = beneath::open_regular(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    // Not through `Stdout`, which looks for line ends.
    let mut out = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    io::copy(&mut file, &mut out).map(drop)
}
