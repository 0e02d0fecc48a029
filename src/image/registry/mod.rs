//! What registries are asked, and how they answer.
//!
//! ```text
//! settings, credentials ─► http (reach, tls, trust, identity, proxy) ─► token (challenge) ─► repository
//!     ─► download (part, validator, pace)
//! ```
//!
//! Downloads of actions and the cloud controller are reached the same way ([`reach`]).
//! Everything that a registry says is checked where it enters: digests over exact bytes, lengths,
//! redirects, whom a login goes to. Failures say what can be done about them ([`failure::Kind`], and
//! `cure` for people).

mod backoff;
mod challenge;
pub mod credentials;
mod cure;
mod der;
pub(super) mod download;
pub mod failure;
pub(super) mod first;
mod http;
mod identity;
pub(super) mod pace;
pub(super) mod part;
mod proxy;
pub mod reach;
pub(super) mod repository;
pub mod settings;
pub mod tls;
mod token;
pub mod trust;
mod validator;

pub use http::Http;
