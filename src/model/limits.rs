//! What one container may use.

use crate::unit::Bytes;
use serde::{Deserialize, Serialize};

/// Limits of one container. `None` means that this resource is not limited.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Memory and page cache, swap excluded.
    pub memory: Option<Bytes>,
    /// Bytes that the container may write to its own root (exclusive scope).
    pub disk: Option<Bytes>,
    /// Share of the processor against other containers, 1 to 100; Diego's weight.
    pub cpu_weight: Option<u32>,
    /// Processes and threads.
    pub pids: Option<u32>,
}
