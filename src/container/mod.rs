//! One container: make it, enter it, keep it, find it again, destroy it.
//!
//! Owns: the depot (a directory per container), the order of creation and its undo, the pools of
//! slots and host ports, the connection to each pid 1, tar streams in and out, the thread that
//! removes links, and makes halves of containers ahead of them.
//! Must not: know what an app, a manifest or a buildpack is; restart anything; parse images.
//! Called by: `exec`, `cell`, `daemon`. Calls: `init` (protocol), `cgroup`, `volume`, `net`,
//! `image`, `sys`, `model`, `unit`.
//! Entry points: [`Host`], [`create`](Host::create), [`Host::reopen`], [`Host::destroy`],
//! [`Container::start`], [`Host::make_pea_root`], [`Container::stream_in`], [`Container::stream_out`], [`recipe`] (pure).
//! Ancestor: garden-linux's container pool and linux_container, warden.
//!
//! Creating is not a long function but a list: [`recipe`] says the steps, `create` walks them and
//! each finished step pushes its undo. What is about to be made on the box is written to the depot
//! before it is made, so a crash at any point is swept by [`Host::destroy`] at the next start.

mod amend;
mod claims;
mod client;
mod create;
mod depot;
mod error;
mod etc;
mod found;
mod host;
mod leaving;
mod link;
mod pea;
mod posture;
mod program;
mod quiet;
pub mod recipe;
mod record;
mod relief;
mod reserve;
mod spans;
mod spawner;
mod spec;
mod spool;
mod strays;
mod stream;
mod undo;

pub use crate::sys::clock::boot_id;
pub use client::{Container, Process, Streams};
pub use create::Fault;
pub use depot::{Depot, Entry, Glimpse};
pub use error::{ContainerError, ProcessError};
pub use found::{Closed, Sight};
pub use host::{GardenNetworks, Host, HostParts};
pub use pea::PeaRoot;
pub use posture::Posture;
pub use relief::Relief;
pub use spans::CreateSpans;
pub use spec::{ContainerSpec, IdMapping, Manner, RootDriver};
pub use spool::Spool;
pub use stream::{Inflow, Outflow};
