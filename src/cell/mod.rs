//! The cell: what is declared, what there is, and the loop that makes the one into the other.
//!
//! Owns: the records, the crash policy, the converge loop, a supervisor per instance, staging
//! Tasks, published ports.
//! Must not: parse HTTP; know how a container is made; run a process itself.
//! Called by: `api`, `daemon`. Calls: `exec`, `stage`, `container`, `image`, `config` (manifests),
//! `lifecycle` (packing), `net` (addresses), `model`, `unit`.
//! Entry points: [`Cell`]; pure: [`diff`], [`crash`], [`owner`].
//! Ancestor: rep, BBS, converger, auctioneer, nsync's bulker.
//!
//! The loop is level-triggered: it compares and mends for ever; an event only makes it look sooner.

mod adopt;
mod converge;
pub mod crash;
pub mod diff;
mod disk;
mod error;
mod instance;
mod lease;
mod lost;
pub mod owner;
mod placement;
mod pulse;
pub mod record;
mod seek;
mod session;
mod shared;
mod staging;
pub mod store;
mod upkeep;
mod view;
mod wishes;

pub use error::{CellError, Kind};
pub use lease::Lease;
pub use session::{ExecRequest, ExecSession};
pub(crate) use shared::Shared;
pub use shared::{Cell, CellParts, Paths};
