//! From archives to layers: what a container's root filesystem is made of.
//!
//! Owns: reading tar streams that nobody vouches for, laying them out in overlay form, naming
//! layers by what is in them, remembering which file became which layer.
//! Must not: trust a name, size or owner from an archive; follow a path out of the layer; run a
//! program; show a layer before it is complete.
//! Called by: `container`, `stage`, `daemon`. Calls: `volume`, `sys`, `unit`.
//! Entry points: [`import_stack`], [`import_droplet`], [`collect`], [`unpack::unpack`].
//! Ancestor: garden-linux's repository_fetcher and rootfs_provider.
//!
//! ```text
//! file ─► [zstd | gzip] ─► hash, room ─► archive (headers) ─► unpack (what),
//! make (each kind) ─► tree (where, by fd)
//! ```

mod archive;
mod error;
mod import;
mod make;
mod name;
mod tree;
pub mod unpack;
mod wire;

pub use error::ImageError;
pub use import::{collect, import_droplet, import_stack, known_stack};
