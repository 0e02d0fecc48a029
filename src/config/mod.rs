//! What people write in TOML, checked once and turned into values that are in range.
//!
//! Owns: the keys of manifests and of `terrarium.toml`, their defaults and limits, where each file
//! of the box lives, and the errors that point into a text.
//! Must not: act on what it reads; look into an app's source; keep anything between two calls.
//! Called by: `cli` (check, apply), `daemon`, `cell`. Calls: `unit`, `log`, `model`.
//! Entry points: [`manifest::parse`] (pure), [`machine::load`],
//! [`site::Site::examine`], [`Diagnostics`].
//! Ancestor: cf's manifest parser, the flag tables of rep and garden.

mod address;
mod cursor;
mod diagnostic;
pub mod keys;
pub mod machine;
pub mod manifest;
pub mod merge;
mod sink;
pub mod site;
pub mod waits;
mod words;

pub use diagnostic::{Diagnostic, Diagnostics};
