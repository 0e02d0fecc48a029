//! From registries and archives to layers: what a container's root filesystem is made of.
//!
//! Owns: talking to registries, reading tar streams that nobody vouches for, laying them out in
//! overlay form, naming layers by what is in them, remembering which file became which layer and
//! which images are here.
//! Must not: trust a name, size, owner, digest or redirect that it did not check; follow a path out
//! of the layer; run a program; show a layer before it is complete.
//! Called by: `container`, `stage`, `daemon`, `garden`. Calls: `volume`, `sys`, `unit`.
//! Entry points: [`pull()`], [`load()`], [`load_stream`], [`import_stack`], [`import_droplet`], [`import_local`],
//! [`import_layout`], [`look()`], [`Save`], [`merge()`], [`collect`], [`make_room`], [`catalog`],
//! [`preload::preload`], [`unpack::unpack`]; [`work`] says how much of it goes on at a time.
//! Ancestor: garden-linux's repository_fetcher and rootfs_provider.
//!
//! ```text
//! name ─► registry ─► fetch ─┐
//! file, layout ─► several ────┴► stream: [zstd | gzip] ─► hash, room ─► archive (headers) ─►
//!                               unpack (what), make, link (each kind) ─► tree (where, by fd) ─►
//!                               implied, lower (what layers below say)
//! directory ─► copy ─► tree
//! layers ─► pack ─► save: an archive as `docker save` writes it
//! ```

mod archive;
pub mod archived;
mod bounded;
mod called;
pub mod catalog;
mod config;
mod copy;
pub mod docker;
mod drafts;
mod error;
mod evict;
mod fetch;
mod gate;
mod held;
mod implied;
mod import;
mod layout;
mod link;
mod load;
mod local;
mod look;
mod lower;
mod make;
mod manifest;
mod merge;
mod name;
mod notes;
mod pack;
mod parts;
mod platform;
pub mod preload;
mod pull;
mod refusal;
pub mod registry;
mod save;
mod schema1;
mod seen;
mod several;
mod show;
mod stream;
mod tree;
mod unknown;
pub mod unpack;
mod walk;
mod wire;
pub mod work;
mod zstd;

pub use config::{Exposed, ImageConfig, Protocol};
pub use error::ImageError;
pub use evict::{Fits, check_room, exceeds, make_room, why_stay};
pub use import::{Progress, import_droplet, import_stack, import_tree, known_stack};
pub use layout::import_layout;
pub use load::{Loaded, load, load_stream, load_wanted};
pub use local::{Rootfs, import_local};
pub use look::look;
pub use merge::merge;
pub use notes::{Collected, LayerSize, collect, layers_bytes, layers_size};
pub use pull::{Pulled, pull, pull_for_later};
pub use save::Save;
pub use seen::recall as recall_time;
