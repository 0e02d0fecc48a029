//! Containers as Garden's clients mean them: handles of any text, properties, grace time, processes
//! that many clients are attached to.
//!
//! Owns: what is kept about such a container beside the container itself; who listens to which
//! process; the countdown that destroys what nobody asks for.
//! Must not: know HTTP or JSON on the wire; touch the cell's containers.
//! Called by: `api`, `daemon`. Calls: `container`, `image`, `exec` (streams), `model`, `unit`.
//! Entry points: [`Backend`]; [`plan`] and [`record`] (pure), [`fan`].
//! Ancestor: garden-linux's and guardian's gardener.
//!
//! A handle is any text, so the container has a name of our own below it, and everything that must
//! outlive the daemon is in the container's own depot entry: [`record`]. A container is seen by
//! clients from the moment it stands until somebody destroys it.

mod adopt;
mod backend;
mod error;
mod facts;
pub mod fan;
mod files;
mod grace;
mod input;
mod limits;
mod lost;
mod member;
mod network;
mod pea;
pub mod plan;
mod process;
mod properties;
pub mod record;
mod rootfs;
mod run;
mod subject;
mod tend;

pub use backend::{Backend, Settings};
pub use error::GardenError;
pub use files::{Inflow, Outflow};
pub use grace::Visit;
pub use process::Session;

/// What a request comes to.
type Done<T> = Result<T, GardenError>;

/// The two outputs of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// Standard output, and everything that goes to a terminal.
    Stdout,
    /// Standard error.
    Stderr,
}
