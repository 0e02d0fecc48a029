//! The process that every other one of `init` is a copy of.
//!
//! To execute a program costs more than to copy a process that has done so, and what the loader has
//! written into it is then there once and not once per container. So the daemon executes `init` once,
//! the first time that it needs one, and this process forks for each container and each pea:
//!
//! ```text
//! daemon                              spawner                        copy
//!   | Order::Spawner ------------------> |                             |
//!   | "\n" + [the copy's channel] -----> | forks, as the daemon's child|
//!   | <---------------------- Ready{pid} |                             |
//!   | Container or Pea ----------------------------------------------> |
//! ```
//!
//! Who kills it between the second and the third leaves a copy that the daemon has not heard of. So a
//! daemon that hears nothing stops sending on the copy's channel, and the copy, if there is one, says its
//! number there and ends.
//!
//! It was executed with no environment and no descriptor but the channel, reads nothing of the
//! daemon's, and knows no container: what a copy inherits is no secret. Nobody can trace it or a copy.
//! It ends when the daemon closes the channel.

use super::proto::SetUp;
use super::{Doing, InitError, limits, message, setup};
use crate::sys::ns::{self, Fork, Parent, Spaces};
use crate::sys::{fd, memory, process, socket};
use std::os::fd::OwnedFd;

/// How long a while is, in milliseconds.
const CALM_MS: u16 = 1000;

/// Forks a copy for each message, until the channel closes.
pub(super) fn run(channel: &OwnedFd, usual: limits::Values) -> Result<(), InitError> {
    while let Some(theirs) = next(channel)? {
        match ns::fork(Spaces::empty(), Parent::CallersParent) {
            Ok(Fork::Child) => process::exit_now(u8::from(!setup::obey_as_copy(&theirs, usual))),
            Ok(Fork::Parent { pid, .. }) => say(channel, &SetUp::Ready { pid })?,
            Err(err) => {
                let (doing, why) = ("copy the process".into(), err.to_string());
                say(channel, &SetUp::Refused { doing, why, pid: None })?;
            }
        }
    }
    Ok(())
}

/// The channel of the next copy; `None`: the daemon wants no more. When none comes for a while, lets go
/// of what of the program was used until now.
fn next(channel: &OwnedFd) -> Result<Option<OwnedFd>, InitError> {
    if matches!(fd::wait_readable(channel, CALM_MS), Ok(false)) {
        memory::let_go_of_program();
    }
    loop {
        match socket::recv_with_fds(channel, &mut [0]) {
            Ok((0, _)) => return Ok(None),
            Ok((_, mut fds)) if fds.len() == 1 => return Ok(fds.pop()),
            Ok((_, fds)) => {
                let why = format!("it came with {} descriptors, not 1", fds.len());
                return Err(InitError::refuse("take a channel", why));
            }
            Err(err) if err.kind() == std::io::ErrorKind::Interrupted => {}
            Err(err) => return Err(err).doing(|| "take a channel".into()),
        }
    }
}

fn say(channel: &OwnedFd, word: &SetUp) -> Result<(), InitError> {
    message::send(channel, word, &[]).map_err(|_| InitError::Abandoned)
}
