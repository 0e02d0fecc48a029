//! Values that carry their unit and their limits.
//!
//! Owns: sizes, times, names, numbers and digests that are checked once, where they enter.
//! Must not: read a clock, a file, a socket or a random source; know what an app is.
//! Called by: every room. Calls: nothing.
//! Entry points: [`Bytes`], [`AppName`], [`Handle`], [`Slot`], [`IdRange`], [`IdMap`],
//! [`Digest`], [`ImageRef`], [`Rate`], [`date`], [`escape`], [`span`], [`sparse`], [`xxh64_hex`],
//! [`public_line`].

mod bytes;
pub mod date;
mod digest;
pub mod escape;
mod ids;
mod image_ref;
mod name;
mod percent;
mod rate;
mod slot;
pub mod span;
pub mod sparse;
mod ssh_public;
mod xxh64;

pub use bytes::Bytes;
pub use digest::{BadDigest, Digest};
pub use ids::IdMap;
pub use image_ref::{BadImageRef, ImageRef, registry_name};
pub use name::{AppName, BadName, Handle};
pub use percent::Percent;
pub use rate::Rate;
pub use slot::{IdRange, Slot};
pub use ssh_public::public_line;
pub use xxh64::xxh64_hex;

use std::fmt;

/// A number that does not fit its type: what it is, what came, what would do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutOfRange {
    /// The noun, as a user would write it.
    pub what: &'static str,
    /// The number that came in.
    pub got: u64,
    /// The accepted range, readable.
    pub want: &'static str,
}

impl fmt::Display for OutOfRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} is out of range ({})", self.what, self.got, self.want)
    }
}

impl std::error::Error for OutOfRange {}
