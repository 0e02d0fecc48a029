//! What a group uses: the figures, and how either version's texts are read. Pure.

use super::recipe::field;
use crate::unit::Bytes;
use std::collections::BTreeMap;

/// What a container uses, in short.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stats {
    /// Counts toward the memory limit: without file pages that can be dropped at once.
    pub memory_bytes: Bytes,
    /// Processor time since the group was made, in nanoseconds.
    pub cpu_ns: u64,
    /// Processes and threads, also those that have ended and were not waited for.
    pub pids: u64,
    /// Processes that the kernel has killed because the limit was reached.
    pub oom_kills: u64,
}

/// What a group uses, in Garden's words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metrics {
    /// One figure for each of [`MEMORY_NAMES`]: bytes, `pg*` counts. 0: this kernel has none.
    pub memory: BTreeMap<String, u64>,
    /// Bytes that count toward the memory limit, by Garden's formula of either version.
    pub usage_toward_limit: u64,
    /// Processor time since the group was made, in nanoseconds.
    pub cpu_ns: u64,
    /// The part of it outside the kernel; v1 counts it in steps of 10 ms.
    pub user_ns: u64,
    /// The part of it inside the kernel; likewise.
    pub system_ns: u64,
    /// Processes and threads, also those that have ended and were not waited for.
    pub pids: u64,
    /// How many there may be; 0 is no limit.
    pub pids_max: u64,
    /// Processes that the kernel has killed for lack of memory, as in [`Stats`].
    pub oom_kills: u64,
}

/// The figures of [`Metrics::memory`]; garden's `ContainerMemoryStat`.
pub const MEMORY_NAMES: [&str; 31] = [
    "active_anon",
    "active_file",
    "anon",
    "cache",
    "file",
    "hierarchical_memory_limit",
    "hierarchical_memsw_limit",
    "inactive_anon",
    "inactive_file",
    "mapped_file",
    "pgfault",
    "pgmajfault",
    "pgpgin",
    "pgpgout",
    "rss",
    "swap",
    "swapcached",
    "total_active_anon",
    "total_active_file",
    "total_cache",
    "total_inactive_anon",
    "total_inactive_file",
    "total_mapped_file",
    "total_pgfault",
    "total_pgmajfault",
    "total_pgpgin",
    "total_pgpgout",
    "total_rss",
    "total_swap",
    "total_unevictable",
    "unevictable",
];

/// What v1 writes for "no limit": the largest number of whole pages of 4096 bytes.
const UNLIMITED: u64 = i64::MAX as u64 & !4095;

/// The memory part of [`Metrics`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Memory {
    /// By name.
    pub figures: BTreeMap<String, u64>,
    /// Bytes.
    pub usage_toward_limit: u64,
}

/// Processor time in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CpuTimes {
    /// All of it.
    pub all: u64,
    /// Outside the kernel.
    pub user: u64,
    /// Inside the kernel.
    pub system: u64,
}

/// What v2 keeps in files beside `memory.stat`. `None`: no limit.
#[derive(Clone, Copy, Debug, Default)]
pub struct Beside {
    /// `memory.max`, bytes.
    pub max: Option<u64>,
    /// `memory.swap.max`, bytes.
    pub swap_max: Option<u64>,
    /// `memory.swap.current`, bytes.
    pub swap: u64,
}

/// Reads v1's `memory.stat`. `None`: it lacks a field that every kernel writes.
pub fn memory_v1(stat: &str) -> Option<Memory> {
    let stat = numbers(stat);
    let figure = |name: &str| stat.get(name).copied();
    // Without swap accounting there is no line for swap.
    let used = figure("total_rss")?
        .saturating_add(figure("total_cache")?)
        .saturating_add(figure("total_swap").unwrap_or(0));
    let usage_toward_limit = used.saturating_sub(figure("total_inactive_file")?);
    Some(Memory { figures: figures(figure), usage_toward_limit })
}

/// Reads v2's `memory.stat` into v1's words. Its figures always cover nested groups, so each
/// `total_*` is the same as the one without. `None`: it lacks a field that every kernel writes.
pub fn memory_v2(stat: &str, beside: &Beside) -> Option<Memory> {
    let stat = numbers(stat);
    let figure = |name: &str| stat.get(name).copied();
    // Counted since Linux 5.13.
    let used = figure("anon")?
        .saturating_add(figure("file")?)
        .saturating_add(figure("swapcached").unwrap_or(0));
    let usage_toward_limit = used.saturating_sub(figure("inactive_file")?);
    let limit = beside.max.unwrap_or(UNLIMITED);
    let with_swap = beside.swap_max.map_or(UNLIMITED, |swap| limit.saturating_add(swap));
    let in_v1_words = |name: &str| match name.strip_prefix("total_").unwrap_or(name) {
        "hierarchical_memory_limit" => Some(limit.min(UNLIMITED)),
        "hierarchical_memsw_limit" => Some(with_swap.min(UNLIMITED)),
        "swap" => Some(beside.swap),
        "rss" => figure("anon"),
        "cache" => figure("file"),
        "mapped_file" => figure("file_mapped"),
        same => figure(same),
    };
    Some(Memory { figures: figures(in_v1_words), usage_toward_limit })
}

/// Reads v1's `cpuacct.stat`, beside the number in `cpuacct.usage`.
pub fn cpu_v1(usage_ns: u64, stat: &str) -> Option<CpuTimes> {
    /// Nanoseconds in a tick of `USER_HZ`, which is 100 a second for every program.
    const TICK: u64 = 10_000_000;
    let part = |key| field(stat, key).map(|ticks| ticks.saturating_mul(TICK));
    Some(CpuTimes { all: usage_ns, user: part("user")?, system: part("system")? })
}

/// Reads v2's `cpu.stat`.
pub fn cpu_v2(stat: &str) -> Option<CpuTimes> {
    let part = |key| field(stat, key).map(|micros| micros.saturating_mul(1000));
    let (all, user, system) = (part("usage_usec")?, part("user_usec")?, part("system_usec")?);
    Some(CpuTimes { all, user, system })
}

/// `key number` lines; others are left out.
fn numbers(text: &str) -> BTreeMap<&str, u64> {
    let pairs = text.lines().filter_map(|line| line.split_once(' '));
    pairs.filter_map(|(key, number)| Some((key, number.trim().parse().ok()?))).collect()
}

/// All of [`MEMORY_NAMES`], 0 for what is not known.
fn figures(of: impl Fn(&str) -> Option<u64>) -> BTreeMap<String, u64> {
    MEMORY_NAMES.into_iter().map(|name| (name.to_owned(), of(name).unwrap_or(0))).collect()
}

#[cfg(test)]
mod tests;
