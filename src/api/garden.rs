//! Garden's own HTTP protocol, as its Go client speaks it; the clients of 2015 are understood too.
//!
//! A container's request is one connection that ends with its answer, but for the processes: `run`
//! and `attach` turn their connection into a stream of JSON messages, and each output of a process
//! is a raw connection of its own ([`raw`]). Every other answer is JSON, `{}` where there is nothing
//! to say; errors are the object of [`refusal`]. The shapes of all JSON are in `model::garden`.

mod decode;
mod files;
mod handle;
mod raw;
mod refusal;
mod route;
mod sequence;
mod traced;

use crate::api::http::server;
use crate::garden::Backend;
use raw::Room;
use std::sync::Arc;
use std::time::Duration;

/// Longest body that is JSON, in bytes.
const BODY_MAX: usize = 1024 * 1024;

/// Longest head, in bytes: clients ask for many containers at once, all handles in the query. There may
/// be 16384 of them, with some 40 bytes each.
const HEAD_MAX: usize = 1024 * 1024;

/// Connections at a time. A process that is watched holds three: 250 containers with an app and a
/// check each take 1500, and the plain calls find room beside them. A silent one costs less than 8 KiB.
const CONNECTIONS: usize = 2000;

/// How long clients may keep us waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// For a head, for the next piece of a body, for taking an answer or some of a tar.
    pub patience: Duration,
    /// For taking something of a process's output.
    pub deaf: Duration,
    /// For closing a connection on which we have said the last word.
    pub linger: Duration,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            patience: Duration::from_secs(30),
            // Somebody may read page by page; the process does not wait for it.
            deaf: Duration::from_secs(600),
            linger: Duration::from_secs(5),
        }
    }
}

/// The dialect.
pub struct Garden {
    backend: Backend,
    settings: Settings,
    /// For long messages to processes.
    room: Arc<Room>,
}

impl Garden {
    /// Speaks for `backend`.
    pub fn new(backend: Backend, settings: Settings) -> Garden {
        Garden { backend, settings, room: Arc::default() }
    }

    /// What to serve it with.
    pub fn limits(&self) -> server::Limits {
        server::Limits {
            connections: CONNECTIONS,
            patience: self.settings.patience,
            head: HEAD_MAX,
            drain: BODY_MAX,
            stall: Some(self.settings.patience),
        }
    }
}
