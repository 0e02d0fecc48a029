//! Where the `init` processes of containers and peas come from: copies of one that was executed once,
//! as drawn in `init`'s own `spawner`.

use super::create::{hear, refusal};
use super::error::Cause;
use crate::init::proto::{Order, SetUp};
use crate::sys;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
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
    child: Child,
}

impl Spawner {
    /// Copies of this program will be made.
    pub(super) fn new(program: &Path) -> Spawner {
        Spawner { program: program.to_owned(), running: Mutex::default() }
    }

    /// A new `init`, which does nothing until it is told what. If we end before, so does it.
    pub(super) fn spawn(&self) -> Result<Init, Cause> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = &*running {
            match known.copy() {
                Ok(init) => return Ok(init),
                // Somebody has killed it, or it finds no memory: another one is tried once.
                Err(err) => crate::warn!("init.spawner_lost", err = crate::log::chain(&*err)),
            }
            *running = None;
        }
        let fresh = Running::start(&self.program)?;
        let init = fresh.copy()?;
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
        let running = Running { channel, child };
        let order = serde_json::to_vec(&Order::Spawner)?;
        sys::socket::send_with_fds(&running.channel, &order, &[])?;
        Ok(running)
    }

    fn copy(&self) -> Result<Init, Cause> {
        let (channel, theirs) = sys::socket::pair()?;
        sys::socket::send_with_fds(&self.channel, b"\n", &[theirs.as_fd()])?;
        // Only the copy holds it then: its end is seen here.
        drop(theirs);
        match hear(&self.channel)?.0 {
            SetUp::Ready { pid } => Ok(Init { pid, channel }),
            other => Err(refusal(other)),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Init {
    /// Kills it, unless it has ended, and takes its end.
    pub(super) fn end(pid: i32) {
        // Ours until it is waited for, so the number cannot be somebody else's.
        let _ = sys::signal::send(pid, sys::signal::KILL);
        let _ = sys::process::wait(pid);
    }

    /// Waits for its end. An error: it was waited for before.
    pub(super) fn wait(pid: i32) -> io::Result<()> {
        sys::process::wait(pid).map(drop)
    }
}
