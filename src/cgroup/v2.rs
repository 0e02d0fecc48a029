//! One group in the unified hierarchy, cgroup v2.
//! Source of the file formats: kernel Documentation/admin-guide/cgroup-v2.rst.

use super::plan::{Controller, Unified};
use super::recipe::Devices;
use super::{CgroupError, files, recipe};
use crate::sys::{bpf, event};
use crate::unit::Bytes;
use std::fs::File;
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
pub fn set_memory(dir: &Path, limit: Option<Bytes>) -> Result<(), CgroupError> {
    let swap = if limit.is_some() { "0" } else { "max" };
    files::write_if_there(dir, "memory.swap.max", swap)?;
    files::write(dir, "memory.max", &recipe::or_max(limit.map(Bytes::get)))
}

/// Share of the processor, from Diego's weight.
pub fn set_cpu(dir: &Path, weight: Option<u32>) -> Result<(), CgroupError> {
    let weight = recipe::cpu_weight(recipe::cpu_shares(weight));
    files::write(dir, "cpu.weight", &weight.to_string())
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

/// Processes that the kernel has killed for memory, in nested groups too.
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
