//! What the box's owner says about the cell as a whole.

use super::fit::Tags;
use super::task::due::Times;
use crate::exec::turns::Sizes;
use crate::model::manifest::HealthTimes;
use crate::unit::Bytes;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// Shares of the processor of the full weight, 100, as in Diego.
pub const SHARES_USUAL: u32 = 1024;

/// Counterparts of rep's flags.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// What this cell is called.
    pub cell_id: String,
    /// Where it stands; told, and nothing else.
    pub zone: String,
    /// The longest time between two looks of the loop when nothing happens; `None`: it only looks
    /// when something does.
    pub polling: Option<Duration>,
    /// The same while the cell is drained.
    pub evacuation_polling: Duration,
    /// How long Tasks may go on when the cell is drained.
    pub evacuation_timeout: Duration,
    /// Times of checks of which nobody says anything.
    pub health: HealthTimes,
    /// Its placement tags.
    pub tags: Tags,
    /// When Tasks are tried again, given up and forgotten.
    pub tasks: Times,
    /// Shares of the processor that weight 100 stands for.
    pub cpu_shares_max: u32,
    /// Containers are told their addresses and ports.
    pub export_network: bool,
    /// Where stagings work.
    pub temp: PathBuf,
    /// Stacks by name that are not in the stacks' own directory.
    pub preloaded: BTreeMap<String, PathBuf>,
    /// How the box tries itself; `None`: it does not.
    pub self_check: Option<SelfCheck>,
    /// How much is done side by side.
    pub pools: Sizes,
    /// Which run of the box this is.
    pub boot: String,
}

/// How the box tries whether it can make a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SelfCheck {
    /// From one to the next while all is well.
    pub interval: Duration,
    /// From one to the next while it is not.
    pub unhealthy_interval: Duration,
    /// The longest time that one may take.
    pub timeout: Duration,
}

impl SelfCheck {
    /// Memory and disk of its container.
    pub const SIZE: Bytes = Bytes::mib(32);
}
