//! One daemon per state directory.

use super::{DaemonError, start};
use std::fs::{self, File, TryLockError};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

/// Held as long as the daemon works. The kernel releases it, however the daemon ends.
pub struct Lock(#[allow(dead_code, reason = "held, never read")] File);

/// Takes the lock of `state`, or tells who has it.
pub fn take(state: &Path) -> Result<Lock, DaemonError> {
    let path = state.join("lock");
    let refuse = || start(format!("lock {}", path.display()));
    fs::DirBuilder::new().recursive(true).mode(0o700).create(state).map_err(refuse())?;
    let mut options = File::options();
    let options = options.read(true).write(true).create(true).truncate(false).mode(0o600);
    let mut file = options.open(&path).map_err(refuse())?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut text = String::new();
            let _ = (&mut file).take(32).read_to_string(&mut text);
            let pid = text.trim().parse().ok();
            return Err(DaemonError::Locked { dir: state.to_owned(), pid });
        }
        Err(TryLockError::Error(err)) => return Err(refuse()(err)),
    }
    file.set_len(0).map_err(refuse())?;
    file.rewind().map_err(refuse())?;
    writeln!(file, "{}", std::process::id()).map_err(refuse())?;
    Ok(Lock(file))
}
