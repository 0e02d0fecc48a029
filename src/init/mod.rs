//! Pid 1 of every container: builds the inside, starts and reaps processes, keeps their output.
//!
//! Owns: the container's namespaces and mounts while they are made; its process table; both ends
//! of every log pipe; the exit files and spools in the depot's `init` directory.
//! Must not: use smol or threads; read manifests; know what an app is; trust anything in the root.
//! Called by: `main` (as the verb `init`), `container` (the protocol). Calls: `sys`, `netlink`,
//! `model`, `unit`.
//! Entry points: [`proto`] (pure), [`message`] (its packets), [`filter`] (pure), and for `main`
//! only [`run`].
//! Ancestor: wshd, initd, iodaemon.
//!
//! ```text
//! spawner    is executed once, and copied for each container and pea
//! setup      the copy, short-lived: namespaces, network, then it forks pid 1 and ends
//! root       pid 1 puts the root together (inside: /proc /sys /dev; bind: the plan's binds)
//! pea        the same for a pea, by a process that goes into a standing container, and starts there
//! confine    pid 1 gives up what it does not need
//! serve      pid 1 serves: table of processes, start (then child), spool, depot
//! guard      outputs of an app that a daemon reads, as long as he does
//! ```

mod bind;
mod child;
mod confine;
mod depot;
mod early;
mod environment;
pub mod filter;
mod guard;
mod inside;
mod inside_net;
mod limits;
pub mod message;
mod notice;
mod order;
mod pea;
mod peers;
mod profile;
pub mod proto;
mod root;
mod serve;
mod setup;
mod spawner;
mod spool;
mod start;
mod table;
pub mod users;
mod victim;

pub use setup::run;

use std::error::Error;
use std::fmt;

/// Why a container cannot be set up or served.
#[derive(Debug)]
pub enum InitError {
    /// "cannot {doing}"; the cause comes from `source()`.
    Step {
        /// What was tried, on what.
        doing: String,
        /// Why it failed.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The process that was to become pid 1 says: "cannot {doing}: {why}".
    Inside {
        /// What was tried, on what.
        doing: String,
        /// Why it failed.
        why: String,
    },
    /// The daemon has gone away, or says nothing.
    Abandoned,
}

impl fmt::Display for InitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            InitError::Step { doing, .. } => write!(f, "cannot {doing}"),
            InitError::Inside { doing, why } => write!(f, "cannot {doing}: {why}"),
            InitError::Abandoned => f.write_str("the daemon has gone away during set-up"),
        }
    }
}

impl Error for InitError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            InitError::Step { source, .. } => Some(source.as_ref()),
            InitError::Inside { .. } | InitError::Abandoned => None,
        }
    }
}

impl InitError {
    /// A step that fails for a reason of our own.
    fn refuse(doing: impl Into<String>, why: impl Into<String>) -> InitError {
        InitError::Step { doing: doing.into(), source: why.into().into() }
    }

    /// What was tried and why it failed, as [`proto::SetUp::Refused`] carries them.
    fn parts(&self) -> (String, String) {
        match self {
            InitError::Step { doing, source } => (doing.clone(), crate::log::chain(&**source)),
            InitError::Inside { doing, why } => (doing.clone(), why.clone()),
            InitError::Abandoned => ("set up the container".into(), self.to_string()),
        }
    }
}

/// Says what was being done when something failed.
trait Doing<T> {
    /// Wraps the error; `doing` completes "cannot …".
    fn doing(self, doing: impl FnOnce() -> String) -> Result<T, InitError>;
}

impl<T, E: Into<Box<dyn Error + Send + Sync>>> Doing<T> for Result<T, E> {
    fn doing(self, doing: impl FnOnce() -> String) -> Result<T, InitError> {
        self.map_err(|err| InitError::Step { doing: doing(), source: err.into() })
    }
}
