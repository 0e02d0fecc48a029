//! The store: a btrfs that holds image layers and what containers write, with quota.
//!
//! Owns: the store's file system (its own loop file, or a directory on a btrfs that is there
//! already), read-only layer subvolumes, one writable subvolume with a limit per container.
//! Must not: know what is in a layer, mount overlays, decide who may have how much.
//! Called by: `image`, `container`, `daemon`. Calls: `sys`, `unit`, `log`, and the program
//! `mkfs.btrfs` once.
//! Entry points: [`Store::open`], [`Store::draft`], [`Store::pin`], [`Store::create_writable`],
//! [`Store::create_snapshot`], [`Store::usage`], [`Store::set_limit`], [`Store::ensure_room`],
//! [`Store::keep_ahead`], [`Store::widen`], [`Store::give_back`], [`Store::keep_with`],
//! [`Store::close`].
//! Ancestor: garden-linux's quota_manager and docker's btrfs graph driver.
//!
//! Inside the store, which only root may enter (0700):
//!
//! ```text
//! version             "1": what the rest looks like
//! layers/<64 hex>/    read-only subvolume, named by chain id, in overlay form; complete if there
//! tmp/<n>/            drafts; whatever is here when the store is opened is left over and removed
//! containers/<name>/  subvolume with `upper` and `work` of one container, under its quota group; or
//!                     a snapshot of a layer
//! downloads/          belongs to `image`: what has come of blobs that are not here whole
//! imports/            belongs to `image`: which archive file became which layer, what layers hold
//! ```

mod counters;
mod error;
mod keeper;
mod layer;
mod loopfile;
mod note;
mod pin;
mod plan;
mod pool;
mod promise;
mod remove;
mod store;
mod usage;
mod width;
mod writable;

pub use error::VolumeError;
pub use layer::Draft;
pub use pin::{Pin, Round, Turn};
pub use store::{Store, StoreConfig};
pub use usage::Usage;
