//! One daemon per state directory.

use super::{DaemonError, start};
use std::fs::{self, File, TryLockError};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::time::Duration;

/// Held as long as the daemon works. The kernel releases it, however the daemon ends.
pub struct Lock(#[allow(dead_code, reason = "held, never read")] File);

/// How often the lock is tried for, and how long between.
const TRIES: u32 = 40;
const WAIT: Duration = Duration::from_millis(50);

/// A child that a killed daemon was just making holds its lock until it executes its program.
fn try_for_a_moment(file: &File) -> Result<(), TryLockError> {
    for _ in 1..TRIES {
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => {}
            done => return done,
        }
        // No event: the kernel tells nobody that a lock is free but who waits for ever.
        std::thread::sleep(WAIT);
    }
    file.try_lock()
}

/// Takes the lock of `state`, or tells who has it.
pub fn take(state: &Path) -> Result<Lock, DaemonError> {
    let path = state.join("lock");
    let refuse = || start(format!("lock {}", path.display()));
    fs::DirBuilder::new().recursive(true).mode(0o700).create(state).map_err(refuse())?;
    let mut options = File::options();
    let options = options.read(true).write(true).create(true).truncate(false).mode(0o600);
    let mut file = options.open(&path).map_err(refuse())?;
    match try_for_a_moment(&file) {
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
