//! One group in the unified hierarchy, cgroup v2.
//! Source of the file formats: kernel Documentation/admin-guide/cgroup-v2.rst.

use super::metrics::{Beside, CpuTimes, Memory};
use super::plan::{Controller, Unified};
use super::recipe::Devices;
use super::{CgroupError, files, metrics, recipe};
use crate::sys::{bpf, event};
use crate::unit::Bytes;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// How often the hand-down is tried again when another manager of the hierarchy undoes a part.
const ENABLE_TRIES: u32 = 3;

/// Makes our parent group and hands the controllers down to it and through it.
pub fn prepare(unified: &Unified) -> Result<(), CgroupError> {
    let mut result = Ok(());
    for _ in 0..ENABLE_TRIES {
        // Between the two steps systemd may take a controller back that no unit of its own wants.
        // Once it is handed on, the kernel refuses that with EBUSY.
        result = enable(&unified.root, unified)
            .and_then(|()| files::make_all(&unified.parent))
            .and_then(|()| enable(&unified.parent, unified));
        if result.is_ok() {
            break;
        }
    }
    result
}

/// Switches on what the groups in `dir` need; writes nothing when all of it is on.
fn enable(dir: &Path, unified: &Unified) -> Result<(), CgroupError> {
    const FILE: &str = "cgroup.subtree_control";
    if unified.controllers.is_empty() {
        return Ok(());
    }
    let on = files::read(dir, FILE)?;
    let is_on = |c: &&Controller| on.split_ascii_whitespace().any(|name| name == c.name());
    let off = unified.controllers.iter().filter(|c| !is_on(c));
    // One at a time, so that the error names the one that is refused.
    off.into_iter().try_for_each(|c| files::write(dir, FILE, &format!("+{}", c.name())))
}

/// Memory with page cache, and nothing in swap; `None` lifts both limits.
///
/// Errors: `Write` with `EBUSY` when more is in use and cannot be reclaimed, as on v1.
pub fn set_memory(dir: &Path, limit: Option<Bytes>) -> Result<(), CgroupError> {
    const MEMORY: &str = "memory.max";
    let text = recipe::or_max(limit.map(Bytes::get));
    // The kernel itself would make room by killing.
    if let Some(limit) = limit
        && least(dir, limit.get())? > limit.get()
    {
        let source = io::ErrorKind::ResourceBusy.into();
        return Err(CgroupError::Write { text, path: dir.join(MEMORY), source });
    }
    let swap = if limit.is_some() { "0" } else { "max" };
    files::write_if_there(dir, "memory.swap.max", swap)?;
    files::write(dir, MEMORY, &text)
}

/// Bytes that would be left of a group's memory after the kernel has dropped what it can; 0 when
/// not even all of it is above `limit`.
fn least(dir: &Path, limit: u64) -> Result<u64, CgroupError> {
    let used = files::number(dir, "memory.current")?;
    if used <= limit {
        return Ok(0);
    }
    let stat = files::read(dir, "memory.stat")?;
    let droppable = ["inactive_file", "active_file", "slab_reclaimable"];
    let droppable = droppable.into_iter().filter_map(|key| recipe::field(&stat, key));
    Ok(droppable.fold(used, u64::saturating_sub))
}

/// Share of the processor, given on v1's scale.
pub fn set_cpu(dir: &Path, shares: u64) -> Result<(), CgroupError> {
    files::write(dir, "cpu.weight", &recipe::cpu_weight(shares).to_string())
}

/// The share in effect, 1 to 10000.
pub fn cpu_share(dir: &Path) -> Result<u64, CgroupError> {
    files::number(dir, "cpu.weight")
}

/// Makes the kernel's copy of the device rules, to be attached to any number of groups.
pub fn load_devices(devices: Devices) -> Result<OwnedFd, CgroupError> {
    bpf::load_device_program(&recipe::device_program(devices))
        .map_err(|source| CgroupError::Program { source })
}

/// Refuses every device but those of the recipe.
pub fn limit_devices(dir: &Path, program: BorrowedFd<'_>) -> Result<(), CgroupError> {
    File::open(dir)
        .and_then(|group| bpf::attach_device_program(group.as_fd(), program))
        .map_err(|source| CgroupError::refused("attach the device rules to", dir.into(), source))
}

/// What counts toward the limit and cannot be dropped at once.
pub fn memory_bytes(dir: &Path) -> Result<u64, CgroupError> {
    let used = files::number(dir, "memory.current")?;
    Ok(used.saturating_sub(files::field(dir, "memory.stat", "inactive_file")?))
}

/// Every figure of memory. The files for swap are missing when the kernel does not count it.
pub fn memory(dir: &Path) -> Result<Memory, CgroupError> {
    let text = files::read(dir, "memory.stat")?;
    let beside = Beside {
        max: files::limit(dir, "memory.max")?,
        swap_max: files::if_there(files::limit(dir, "memory.swap.max"))?.flatten(),
        swap: files::if_there(files::number(dir, "memory.swap.current"))?.unwrap_or(0),
    };
    metrics::memory_v2(&text, &beside)
        .ok_or_else(|| CgroupError::Garbled { path: dir.join("memory.stat") })
}

/// Processes that the kernel has killed for memory, in nested groups too, unless the hierarchy was
/// mounted with `memory_localevents`, which systemd does not.
pub fn oom_kills(dir: &Path) -> Result<u64, CgroupError> {
    files::field(dir, "memory.events", "oom_kill")
}

/// Readable when a memory event was counted: an OOM kill, or running into the limit.
pub fn oom_watch(dir: &Path) -> Result<OwnedFd, CgroupError> {
    let path = dir.join("memory.events");
    event::file_changes(&path).map_err(|source| CgroupError::refused("watch", path, source))
}

/// Processor time used, in nanoseconds.
pub fn cpu_ns(dir: &Path) -> Result<u64, CgroupError> {
    Ok(files::field(dir, "cpu.stat", "usage_usec")?.saturating_mul(1000))
}

/// The same with its parts.
pub fn cpu_times(dir: &Path) -> Result<CpuTimes, CgroupError> {
    let text = files::read(dir, "cpu.stat")?;
    metrics::cpu_v2(&text).ok_or_else(|| CgroupError::Garbled { path: dir.join("cpu.stat") })
}

/// Kills every process at one stroke, also those that are being forked. `false` when there is no
/// such file: the group is gone, or the kernel is older than 5.14.
pub fn kill(dir: &Path) -> Result<bool, CgroupError> {
    files::write_if_there(dir, "cgroup.kill", "1")
}

/// Stops all processes; SIGKILL reaches them all the same. Linux 5.2.
pub fn freeze(dir: &Path) -> Result<(), CgroupError> {
    files::write_if_there(dir, "cgroup.freeze", "1").map(drop)
}

/// Lets them go on.
pub fn thaw(dir: &Path) -> Result<(), CgroupError> {
    files::write_if_there(dir, "cgroup.freeze", "0").map(drop)
}
