//! Does the work inside containers: action trees, health checks, logs, copies, admission.
//!
//! Owns: the meaning of each action, cancellation and its times, the app logs on disk, what an
//! instance may take of the box, what is kept of downloads.
//! Must not: decide whether something runs again; read manifests; touch records.
//! Called by: `cell`, `api` (through `cell`). Calls: `container`, `lifecycle` (packing, HTTP of checks), `model`,
//! `sys`, `unit`.
//! Entry points: [`run::Executor`], [`assembly::keep`], [`fetch::Fetcher`], [`health`],
//! [`logs::AppLog`], [`places`] (pure), [`ending`] (pure), [`state`] (pure), [`tries`] (pure), [`room`] (pure), [`mod@env`] (pure), [`lines`]
//! (pure), [`bucket`] (pure).
//! Ancestor: Diego's executor and its depot of steps.

pub mod assembly;
pub mod bucket;
pub mod cancel;
mod copy;
pub mod ending;
pub mod env;
pub mod fetch;
pub mod found;
pub mod health;
mod journal;
pub mod limit;
pub mod lines;
pub mod logs;
pub mod metrics;
pub mod places;
mod probe;
pub mod result;
pub mod room;
pub mod run;
pub mod state;
pub mod steps;
pub mod streams;
mod transfer;
pub mod tries;
pub mod turns;
