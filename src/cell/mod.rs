//! The cell: what is declared, what there is, and the loop that makes the one into the other.
//!
//! Owns: the records, the crash policy, the converge loop, a supervisor per instance, the
//! Tasks, stagings among them, published ports.
//! Must not: parse HTTP; know how a container is made; run a process itself.
//! Called by: `api`, `daemon`. Calls: `exec`, `stage`, `container`, `image`, `config` (manifests),
//! `lifecycle` (packing), `net` (addresses, who has a port), `model`, `unit`.
//! Entry points: [`Cell`]; pure: [`diff`], [`rollout`], [`order`], [`lrp_state`], [`crash`],
//! [`owner`], [`queue`], [`waits`], [`fit`], [`clock`], [`task::state`], [`task::due`].
//! Ancestor: rep, BBS, converger, auctioneer, nsync's bulker.
//!
//! The loop is level-triggered: it compares and mends for ever; an event only makes it look sooner.

mod adopt;
mod app_task;
mod autopsy;
mod away;
mod by_record;
mod claims;
pub mod clock;
mod converge;
pub mod crash;
pub mod diff;
mod disk;
pub mod drain;
mod error;
pub mod events;
pub mod explain;
pub mod fit;
mod instance;
mod lacking;
mod lease;
mod lost;
pub mod lrp_state;
mod lrps;
mod metrics;
mod mounts;
mod node;
pub mod order;
pub mod owner;
pub mod placement;
mod pulse;
pub mod queue;
pub mod reap;
pub mod record;
pub mod releases;
mod revisions;
pub mod rollout;
pub mod scaled;
mod seek;
mod self_check;
mod session;
pub mod settings;
mod shared;
mod sources;
mod ssh;
mod staging;
pub mod stand;
pub mod store;
mod stuck;
mod tag;
pub mod task;
pub mod traces;
mod upkeep;
mod view;
pub mod waits;
mod wishes;
mod worked_on;

pub use converge::desired;
pub use drain::{DrainRecord, TIMEOUT_MAX};
pub use error::{CellError, Kind};
pub use lease::Lease;
pub use lrps::Lrp;
pub use session::{ExecRequest, ExecSession};
pub(crate) use shared::Shared;
pub use shared::{Cell, CellParts, Paths};
pub use upkeep::{ImageUse, UsedFor};
pub use wishes::{Declaration, How};
