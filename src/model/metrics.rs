//! Figures of the cell and of its containers, as every dialect tells them.

use super::lrp::ProcessGuid;
use crate::unit::{Percent, Rate};
use std::time::Duration;

/// What there is of something, in the units of Diego's gauges.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amounts {
    /// Bytes of memory.
    pub memory_bytes: u64,
    /// Bytes of disk.
    pub disk_bytes: u64,
    /// Containers.
    pub containers: u64,
}

/// How often something was done, and how long that took all together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// How often.
    pub count: u64,
    /// How long.
    pub total: Duration,
}

/// What succeeded and what failed of something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcomes {
    /// Succeeded.
    pub succeeded: Span,
    /// Failed.
    pub failed: Span,
}

/// What has been counted since the daemon began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Containers made for apps.
    pub creations: Outcomes,
    /// Containers of apps destroyed.
    pub destructions: Outcomes,
    /// What is done in a container before its process begins.
    pub setups: Outcomes,
    /// Comparisons of what is wanted with what there is.
    pub syncs: Span,
    /// Processes that did not end on TERM and were killed.
    pub exited_on_timeout: u64,
    /// Instances that have ended, for whatever reason.
    pub completed: u64,
    /// Times that an instance logged more than it may.
    pub log_overruns: u64,
    /// Instances that were ended because of their health check.
    pub checks_failed: u64,
}

/// The cell at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CellFigures {
    /// The cell's name.
    pub cell_id: String,
    /// What the box gives away.
    pub total: Amounts,
    /// What is left of it.
    pub remaining: Amounts,
    /// Containers of apps.
    pub containers: u64,
    /// Those that have their room and do not run yet, whether they are made already or not.
    pub starting: u64,
    /// Memory that they use, in bytes; `None`: that of one could not be read.
    pub memory_used_bytes: Option<u64>,
    /// Disk that they use, in bytes; likewise.
    pub disk_used_bytes: Option<u64>,
    /// Something is wrong with the box.
    pub unhealthy: bool,
    /// The last self-check failed.
    pub self_check_failed: bool,
    /// How long the self-check that is under way has taken; zero: none is.
    pub stalled: Duration,
    /// What has been counted.
    pub counts: Counts,
    /// Each container of an instance.
    pub instances: Vec<InstanceFigures>,
    /// Each container of a Task that runs, with its guid.
    pub tasks: Vec<(String, InstanceFigures)>,
}

/// One container at one moment; that of a Task is its only instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstanceFigures {
    /// Of which process.
    pub guid: ProcessGuid,
    /// Which one.
    pub index: u32,
    /// Its container.
    pub handle: String,
    /// It has passed its health check.
    pub running: bool,
    /// Processor time since the last look, in percent of one processor; at the first look 0.
    pub cpu: Percent,
    /// Processor time in all, in nanoseconds.
    pub cpu_ns: u64,
    /// Bytes that count toward the memory limit.
    pub memory_bytes: u64,
    /// The limit in bytes; 0 is none.
    pub memory_quota_bytes: u64,
    /// What it has written, without its image, in bytes.
    pub disk_bytes: u64,
    /// What it may write, in bytes; 0 is any amount.
    pub disk_quota_bytes: u64,
    /// How long it has been in its state, in nanoseconds.
    pub age_ns: u64,
    /// Bytes that it received, and sent; `None`: it has no link.
    pub traffic: Option<(u64, u64)>,
    /// Bytes that it has logged.
    pub logged_bytes: u64,
    /// Bytes in a second since the last look.
    pub log_rate: u64,
    /// What it may log in a second.
    pub log_rate_limit: Rate,
    /// Processes and threads.
    pub pids: u64,
    /// Processes that the kernel has ended for lack of memory.
    pub oom_kills: u64,
    /// Further labels, as its record asks for them.
    pub labels: Vec<(String, String)>,
}
