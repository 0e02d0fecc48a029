//! Where the `init` processes of containers and peas come from: copies of one that was executed once,
//! as drawn in `init`'s own `spawner`.
//!
//! It makes one at a time, and who comes meanwhile waits. So it has five seconds for each, of which it
//! needs a thousandth; one that takes longer is stopped or sick, and is ended. Only the first copy of a
//! fresh one may take as long as a creation can wait, for then nothing else would help those behind it
//! either; and who makes what nobody has asked for yet does not try a second one.

use super::create::{AHEAD_MAX_MS, INIT_MAX_MS, hear_within, refusal};
use super::error::Cause;
use super::host::DEATH_MAX_MS;
use crate::init::proto::{Order, SetUp};
use crate::sys;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};

/// Makes `init` processes. Nothing runs before the first is wanted.
pub(super) struct Spawner {
    program: PathBuf,
    running: Mutex<Option<Running>>,
}

/// A process that waits for its order. Ours to wait for, and the first of a process group of its own.
#[derive(Debug)]
pub(super) struct Init {
    pub(super) pid: i32,
    /// The other end is its descriptor.
    pub(super) channel: OwnedFd,
}

/// The process that is copied. Ended when this is dropped.
struct Running {
    channel: OwnedFd,
    /// `None`: it was ended.
    pid: Option<i32>,
}

impl Spawner {
    /// Copies of this program will be made.
    pub(super) fn new(program: &Path) -> Spawner {
        Spawner { program: program.to_owned(), running: Mutex::default() }
    }

    /// A new `init`, which does nothing until it is told what. If we end before, so does it.
    pub(super) fn spawn(&self) -> Result<Init, Cause> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = &mut *running {
            match known.copy(AHEAD_MAX_MS) {
                Ok(init) => return Ok(init),
                // Somebody has killed it, or it finds no memory: another one is tried once.
                Err(err) => crate::warn!("init.spawner_lost", err = crate::log::chain(&*err)),
            }
            *running = None;
        }
        self.begin(&mut running, INIT_MAX_MS)
    }

    /// The same for what nobody waits for: others who want one are held up for one try and its end.
    pub(super) fn spawn_ahead(&self) -> Result<Init, Cause> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(known) = &mut *running else { return self.begin(&mut running, AHEAD_MAX_MS) };
        let made = known.copy(AHEAD_MAX_MS);
        if made.is_err() {
            *running = None;
        }
        made
    }

    /// The first copy of a fresh one.
    fn begin(&self, running: &mut Option<Running>, most_ms: u16) -> Result<Init, Cause> {
        let mut fresh = Running::start(&self.program)?;
        let init = fresh.copy(most_ms)?;
        *running = Some(fresh);
        Ok(init)
    }
}

impl Running {
    fn start(program: &Path) -> Result<Running, Cause> {
        let (channel, theirs) = sys::socket::pair()?;
        let child = Command::new(program)
            .arg0("terrarium")
            .arg("init")
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null())
            .current_dir("/")
            .env_clear()
            // Not the daemon's: a key pressed in its terminal is not for containers, and what
            // `init` leaves can be waited for.
            .process_group(0)
            .spawn()?;
        let running = Running { channel, pid: Some(child.id() as i32) };
        let order = serde_json::to_vec(&Order::Spawner)?;
        sys::socket::send_with_fds(&running.channel, &order, &[])?;
        Ok(running)
    }

    /// One more, in so many milliseconds; after an error this one is not to be used any more.
    fn copy(&mut self, most_ms: u16) -> Result<Init, Cause> {
        let (channel, theirs) = sys::socket::pair()?;
        sys::socket::send_with_fds(&self.channel, b"\n", &[theirs.as_fd()])?;
        // Only the copy holds it then: its end is seen here.
        drop(theirs);
        match hear_within(&self.channel, most_ms) {
            Ok((SetUp::Ready { pid }, _)) => Ok(Init { pid, channel }),
            Ok((other, _)) => Err(refusal(other)),
            Err(err) => {
                // Killed between a copy and the word about it? Then there is a child that nobody knows.
                self.end();
                give_up(&channel);
                Err(err)
            }
        }
    }

    /// Kills it, once: then its number may be somebody else's.
    fn end(&mut self) {
        if let Some(pid) = self.pid.take() {
            Init::end(pid);
        }
    }
}

/// Takes the end of whoever holds the other end of `channel`: a copy that is not told what to do ends,
/// and its last word is its number. Nobody: the channel is closed.
fn give_up(channel: &OwnedFd) {
    let ended = sys::socket::end_sending(channel);
    if let (Ok(()), Ok((last, _))) = (ended, hear_within(channel, AHEAD_MAX_MS)) {
        drop(refusal(last));
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end();
    }
}

impl Init {
    /// Kills it, unless it has ended, and takes its end.
    pub(super) fn end(pid: i32) {
        // Ours until it is waited for, so the number cannot be somebody else's.
        let _ = sys::signal::send(pid, sys::signal::KILL);
        if let Err(err) = sys::process::wait_within(pid, DEATH_MAX_MS) {
            crate::warn!("init.lingers", pid = pid, err = err);
        }
    }

    /// Takes the end of one that has done its work. One that does not end by itself is ended.
    pub(super) fn wait(pid: i32) {
        if let Err(err) = sys::process::wait_within(pid, DEATH_MAX_MS)
            && err.kind() == io::ErrorKind::TimedOut
        {
            Init::end(pid);
        }
    }
}
