//! The last step of a launcher: it becomes what it launches, or says why it cannot.

use crate::model::process::{LAUNCH_FAILED, LAUNCH_FD, LAUNCH_NO_INTERPRETER};
use crate::sys::fd;
use std::env;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

/// Whom to tell, if anybody listens. To be taken first of all.
pub(super) struct Handover(Option<OwnedFd>);

impl Handover {
    pub(super) fn take() -> Handover {
        let number = env::var(LAUNCH_FD).ok().and_then(|text| text.parse().ok());
        Handover(number.and_then(|number| fd::take_inherited(number).ok()))
    }

    /// Becomes `child`. Returns only when that cannot be.
    pub(super) fn become_it(self, child: &mut Command) -> io::Error {
        let err = child.env_remove(LAUNCH_FD).exec();
        let program = child.get_program();
        // Of a name without a `/` it is not known which file it was.
        let is_there = program.as_encoded_bytes().contains(&b'/') && Path::new(program).is_file();
        let number = match err.kind() {
            io::ErrorKind::NotFound if is_there => LAUNCH_NO_INTERPRETER,
            _ => err.raw_os_error().unwrap_or(0),
        };
        self.failed(number, program.as_encoded_bytes());
        err
    }

    /// Says that a program cannot be executed, and by which errno.
    pub(super) fn failed(&self, number: i32, program: &[u8]) {
        let Some(tell) = &self.0 else { return };
        let mut word = vec![LAUNCH_FAILED];
        word.extend(number.to_ne_bytes());
        word.extend(program.iter().take(256));
        // Nobody listens any more: the exit status says it too.
        let _ = fd::write(tell, &word);
    }
}
