//! The kernel's log, read from its oldest line to its newest.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;

/// Longest record that the kernel gives out, in bytes.
const RECORD_MAX: usize = 8192;

/// Shows `see` at most `max` lines of the kernel's log, the oldest first, each with the numbers that
/// /dev/kmsg puts before it. Not waiting for more. Errors: `EPERM` without CAP_SYSLOG. Linux 3.5.
pub fn each(max: usize, mut see: impl FnMut(&str)) -> std::io::Result<()> {
    let how = libc::O_NONBLOCK | libc::O_CLOEXEC;
    let mut log: File = OpenOptions::new().read(true).custom_flags(how).open("/dev/kmsg")?;
    let mut record = [0; RECORD_MAX];
    for _ in 0..max {
        match log.read(&mut record) {
            Ok(0) => break,
            Ok(length) => see(&String::from_utf8_lossy(&record[..length])),
            // Overwritten while it was read: the next one is the oldest now.
            Err(err) if err.raw_os_error() == Some(libc::EPIPE) => {}
            Err(err) if err.kind() == ErrorKind::Interrupted => {}
            Err(err) if err.kind() == ErrorKind::WouldBlock => break,
            Err(err) => return Err(err),
        }
    }
    Ok(())
}
