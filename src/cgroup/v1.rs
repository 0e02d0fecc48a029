//! One group in the hierarchies of cgroup v1. Every `dir` is that of the controller in question.
//! Source of the file formats: kernel Documentation/admin-guide/cgroup-v1.

use super::metrics::{CpuTimes, Memory};
use super::recipe::Devices;
use super::{CgroupError, files, metrics, recipe};
use crate::sys::event;
use crate::unit::Bytes;
use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

/// How often the freezer is asked whether all processes stand still, and the nap between.
const FREEZE_TRIES: u32 = 100;
const FREEZE_NAP: Duration = Duration::from_millis(1);

/// Lets the limits of `parent` cover the groups in it: on by default only since Linux 5.11.
pub fn prepare_memory(parent: &Path) -> Result<(), CgroupError> {
    match files::number(parent, "memory.use_hierarchy") {
        Ok(0) => files::write(parent, "memory.use_hierarchy", "1"),
        Ok(_) => Ok(()),
        Err(err) if err.is_not_found() => Ok(()),
        Err(err) => Err(err),
    }
}

/// Memory with page cache, and nothing more in swap; `None` lifts both limits.
///
/// Errors: `Write` with `EBUSY` when more is in use and cannot be reclaimed.
pub fn set_memory(dir: &Path, limit: Option<Bytes>) -> Result<(), CgroupError> {
    const BOTH: &str = "memory.memsw.limit_in_bytes";
    const MEMORY: &str = "memory.limit_in_bytes";
    let text = limit.map_or_else(|| "-1".to_owned(), |limit| limit.get().to_string());
    let both_now = match files::number(dir, BOTH) {
        Ok(now) => now,
        // Booted without swap accounting: then at least nothing of the group is swapped out.
        Err(err) if err.is_not_found() => {
            files::write_if_there(dir, "memory.swappiness", "0")?;
            return files::write(dir, MEMORY, &text);
        }
        Err(err) => return Err(err),
    };
    // The kernel keeps memory <= memory + swap at every step, so a growing sum goes first.
    let grows = limit.is_none_or(|limit| limit.get() > both_now);
    let [first, second] = if grows { [BOTH, MEMORY] } else { [MEMORY, BOTH] };
    let before = files::read(dir, first)?;
    files::write(dir, first, &text)?;
    files::write(dir, second, &text).inspect_err(|_| {
        // Half of a limit is what nobody asked for. It held a moment ago, so it can hold again.
        let _ = files::write(dir, first, before.trim());
    })
}

/// Share of the processor, on the kernel's scale.
pub fn set_cpu(dir: &Path, shares: u64) -> Result<(), CgroupError> {
    files::write(dir, "cpu.shares", &shares.to_string())
}

/// The share in effect.
pub fn cpu_share(dir: &Path) -> Result<u64, CgroupError> {
    files::number(dir, "cpu.shares")
}

/// Refuses every device but those of the recipe.
pub fn limit_devices(dir: &Path, devices: Devices) -> Result<(), CgroupError> {
    files::write(dir, "devices.deny", "a")?;
    recipe::device_lines(devices).try_for_each(|line| files::write(dir, "devices.allow", &line))
}

/// What counts toward the limit and cannot be dropped at once: garden's formula.
pub fn memory_bytes(dir: &Path) -> Result<u64, CgroupError> {
    let text = files::read(dir, "memory.stat")?;
    let field = |key| {
        recipe::field(&text, key)
            .ok_or_else(|| CgroupError::Garbled { path: dir.join("memory.stat") })
    };
    let used = field("total_rss")?.saturating_add(field("total_cache")?);
    Ok(used.saturating_sub(field("total_inactive_file")?))
}

/// Every figure of memory.
pub fn memory(dir: &Path) -> Result<Memory, CgroupError> {
    let text = files::read(dir, "memory.stat")?;
    metrics::memory_v1(&text).ok_or_else(|| CgroupError::Garbled { path: dir.join("memory.stat") })
}

/// Processes that the kernel has killed for memory, in nested groups too, as long as they are
/// there: here each group counts for itself alone. Linux 4.13.
pub fn oom_kills(dir: &Path) -> Result<u64, CgroupError> {
    let kills = |dir: &Path| files::field(dir, "memory.oom_control", "oom_kill");
    let mut all = kills(dir)?;
    for nested in files::tree(dir)?.into_iter().skip(1) {
        all = all.saturating_add(files::if_there(kills(&nested))?.unwrap_or(0));
    }
    Ok(all)
}

/// A counter that the kernel adds to when the group or one above it is out of memory, and when the
/// group is removed; not when one nested in it reaches a limit of its own.
pub fn oom_watch(dir: &Path) -> Result<OwnedFd, CgroupError> {
    let path = dir.join("memory.oom_control");
    let refused = |source| CgroupError::refused("watch", path.clone(), source);
    let counter = event::counter().map_err(refused)?;
    let control = File::open(&path).map_err(refused)?;
    let request = format!("{} {}", counter.as_raw_fd(), control.as_raw_fd());
    files::write(dir, "cgroup.event_control", &request)?;
    Ok(counter)
}

/// Processor time used, in nanoseconds.
pub fn cpu_ns(dir: &Path) -> Result<u64, CgroupError> {
    files::number(dir, "cpuacct.usage")
}

/// The same with its parts.
pub fn cpu_times(dir: &Path) -> Result<CpuTimes, CgroupError> {
    let text = files::read(dir, "cpuacct.stat")?;
    metrics::cpu_v1(cpu_ns(dir)?, &text)
        .ok_or_else(|| CgroupError::Garbled { path: dir.join("cpuacct.stat") })
}

/// Stops all processes, or most: the wait for the last one is bounded.
pub fn freeze(dir: &Path) -> Result<(), CgroupError> {
    if !files::write_if_there(dir, "freezer.state", "FROZEN")? {
        return Ok(());
    }
    for _ in 0..FREEZE_TRIES {
        // No event: v1's freezer has none.
        match files::read(dir, "freezer.state") {
            Ok(state) if state.trim() == "FREEZING" => std::thread::sleep(FREEZE_NAP),
            Err(err) if !err.is_not_found() => return Err(err),
            _ => break,
        }
    }
    Ok(())
}

/// Lets them go on: only then does a SIGKILL reach them.
pub fn thaw(dir: &Path) -> Result<(), CgroupError> {
    files::write_if_there(dir, "freezer.state", "THAWED").map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::path::PathBuf;

    /// A directory that stands for a group of the memory hierarchy; numbers of nine digits, for a
    /// plain file keeps the end of a longer text.
    fn fake(name: &str, files: &[(&str, &str)]) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("terrarium-v1-{name}-{}", std::process::id()));
        fs::create_dir_all(&dir).expect("make the group");
        for (file, text) in files {
            fs::write(dir.join(file), text).expect("make a file");
        }
        dir
    }

    fn text(dir: &Path, file: &str) -> String {
        fs::read_to_string(dir.join(file)).expect(file)
    }

    #[test]
    fn without_swap_accounting_memory_alone_is_limited() {
        let files = [("memory.limit_in_bytes", "100000000"), ("memory.swappiness", "6")];
        let dir = fake("no-swap", &files);
        set_memory(&dir, Some(Bytes::new(200_000_000))).expect("set");
        assert_eq!(text(&dir, "memory.limit_in_bytes"), "200000000");
        assert_eq!(text(&dir, "memory.swappiness"), "0");
        fs::remove_dir_all(&dir).expect("clean up");
    }

    #[test]
    fn half_a_limit_does_not_stay() {
        let dir = fake("half", &[("memory.memsw.limit_in_bytes", "100000000")]);
        // It can be neither read nor written.
        fs::create_dir(dir.join("memory.limit_in_bytes")).expect("mkdir");
        set_memory(&dir, Some(Bytes::new(200_000_000))).expect_err("the second is refused");
        assert_eq!(text(&dir, "memory.memsw.limit_in_bytes"), "100000000");
        fs::remove_dir_all(&dir).expect("clean up");
    }

    #[test]
    fn both_limits_become_the_same_in_either_direction() {
        let files =
            [("memory.limit_in_bytes", "100000000"), ("memory.memsw.limit_in_bytes", "150000000")];
        let dir = fake("both", &files);
        for limit in [200_000_000, 120_000_000] {
            set_memory(&dir, Some(Bytes::new(limit))).expect("set");
            for (file, _) in files {
                assert_eq!(text(&dir, file), limit.to_string(), "{file}");
            }
        }
        fs::remove_dir_all(&dir).expect("clean up");
    }
}
