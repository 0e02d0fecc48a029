//! Containers as Garden's clients mean them: handles of any text, properties, grace time, processes
//! that many clients are attached to.
//!
//! Owns: what is kept about such a container beside the container itself; who listens to which
//! process.
//! Must not: know HTTP or JSON on the wire; touch the cell's containers.
//! Called by: `api`, `daemon`. Calls: `container`, `model`, `unit`.
//! Entry points: [`record`] (pure), [`fan`].
//! Ancestor: garden-linux's and guardian's gardener.

pub mod fan;
pub mod plan;
pub mod record;
