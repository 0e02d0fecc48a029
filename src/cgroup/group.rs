//! One group: a container's, or that of a process with limits of its own.

use super::metrics::{Metrics, Stats};
use super::name::Name;
use super::plan::{Controller, Dir, Layout};
use super::recipe::Devices;
use super::{CgroupError, files, recipe, v1, v2};
use crate::model::limits::Limits;
use crate::unit::Bytes;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;

/// One group: a name in every hierarchy. Cheap to copy, may outlive its group.
///
/// [`Group::kill`], [`Group::remove`] and [`Group::pids`] of a container's group are for its peas
/// as well; everything else is for the one group.
#[derive(Clone, Debug)]
pub struct Group {
    pub(super) layout: Arc<Layout>,
    pub(super) name: Name,
}

impl Group {
    pub(super) fn new(layout: Arc<Layout>, name: Name) -> Group {
        Group { layout, name }
    }

    /// Moves process `pid` (as our own pid namespace numbers it) into the group. Its children are
    /// born there. Errors: `Write` with `ESRCH` when it has ended. After an error the process may
    /// be in some hierarchies only: kill it, then [`Group::remove`].
    pub fn add(&self, pid: i32) -> Result<(), CgroupError> {
        let pid = pid.to_string();
        self.dirs().iter().try_for_each(|dir| files::write(dir, "cgroup.procs", &pid))
    }

    /// Files by which a process can move itself here, one for each hierarchy: it writes `0` to
    /// every one of them, and needs no rights and no sight of the hierarchies for it. Open for
    /// writing only, close-on-exec. After an error it may be in some hierarchies only.
    pub fn doors(&self) -> Result<Vec<OwnedFd>, CgroupError> {
        self.dirs().iter().map(|dir| files::door(dir)).collect()
    }

    /// The directory for `CLONE_INTO_CGROUP`, by which a process is born in the group and
    /// [`Group::add`] is not needed. `None` unless every controller is on the unified hierarchy.
    pub fn birthplace(&self) -> Result<Option<OwnedFd>, CgroupError> {
        let Some(unified) = self.layout.unified().filter(|_| self.layout.is_unified()) else {
            return Ok(None);
        };
        let dir = unified.parent.join(self.name.to_string());
        let opened = File::open(&dir);
        opened.map(|dir| Some(dir.into())).map_err(|err| CgroupError::refused("open", dir, err))
    }

    /// Applies limits; those that are `None` are lifted. Disk is not limited here.
    pub fn set(&self, limits: &Limits) -> Result<(), CgroupError> {
        self.set_memory(limits.memory)?;
        self.set_shares(recipe::cpu_shares(limits.cpu_shares, limits.cpu_weight))?;
        let (Dir::V1(dir) | Dir::V2(dir)) = self.dir(Controller::Pids);
        files::write(&dir, "pids.max", &recipe::or_max(limits.pids.map(u64::from)))
    }

    /// Limits memory, and memory with swap to the same; `None` lifts both. What runs goes on.
    ///
    /// Errors: `Write` with `EBUSY` when more is in use and cannot be reclaimed; then the limit is
    /// what it was.
    pub fn set_memory(&self, limit: Option<Bytes>) -> Result<(), CgroupError> {
        match self.dir(Controller::Memory) {
            Dir::V1(dir) => v1::set_memory(&dir, limit),
            Dir::V2(dir) => v2::set_memory(&dir, limit),
        }
    }

    /// Changes the share of the processor, on the scale of [`Limits::cpu_shares`]; `None` is the
    /// usual one.
    pub fn set_cpu_shares(&self, shares: Option<u64>) -> Result<(), CgroupError> {
        self.set_shares(recipe::cpu_shares(shares, None))
    }

    /// Writes a share that is within the kernel's range.
    fn set_shares(&self, shares: u64) -> Result<(), CgroupError> {
        match self.dir(Controller::Cpu) {
            Dir::V1(dir) => v1::set_cpu(&dir, shares),
            Dir::V2(dir) => v2::set_cpu(&dir, shares),
        }
    }

    /// The share of the processor in effect, as Garden reports it: `cpu.shares` (2 to 262144) on
    /// v1, `cpu.weight` (1 to 10000) on v2.
    pub fn current_shares(&self) -> Result<u64, CgroupError> {
        match self.dir(Controller::Cpu) {
            Dir::V1(dir) => v1::cpu_share(&dir),
            Dir::V2(dir) => v2::cpu_share(&dir),
        }
    }

    /// What the group uses now, in short. Errors: `is_not_found` when the group is gone.
    pub fn stats(&self) -> Result<Stats, CgroupError> {
        let (memory, oom_kills) = match self.dir(Controller::Memory) {
            Dir::V1(dir) => (v1::memory_bytes(&dir)?, v1::oom_kills(&dir)?),
            Dir::V2(dir) => (v2::memory_bytes(&dir)?, v2::oom_kills(&dir)?),
        };
        let cpu_ns = match self.dir(Controller::Cpuacct) {
            Dir::V1(dir) => v1::cpu_ns(&dir)?,
            Dir::V2(dir) => v2::cpu_ns(&dir)?,
        };
        let (Dir::V1(dir) | Dir::V2(dir)) = self.dir(Controller::Pids);
        let pids = files::number(&dir, "pids.current")?;
        Ok(Stats { memory_bytes: Bytes::new(memory), cpu_ns, pids, oom_kills })
    }

    /// What the group uses now, in Garden's words. Errors: `is_not_found` when the group is gone.
    pub fn metrics(&self) -> Result<Metrics, CgroupError> {
        let (memory, oom_kills) = match self.dir(Controller::Memory) {
            Dir::V1(dir) => (v1::memory(&dir)?, v1::oom_kills(&dir)?),
            Dir::V2(dir) => (v2::memory(&dir)?, v2::oom_kills(&dir)?),
        };
        let cpu = match self.dir(Controller::Cpuacct) {
            Dir::V1(dir) => v1::cpu_times(&dir)?,
            Dir::V2(dir) => v2::cpu_times(&dir)?,
        };
        let (Dir::V1(dir) | Dir::V2(dir)) = self.dir(Controller::Pids);
        Ok(Metrics {
            memory: memory.figures,
            usage_toward_limit: memory.usage_toward_limit,
            cpu_ns: cpu.all,
            user_ns: cpu.user,
            system_ns: cpu.system,
            pids: files::number(&dir, "pids.current")?,
            pids_max: files::limit(&dir, "pids.max")?.unwrap_or(0),
            oom_kills,
        })
    }

    /// A descriptor that polls readable (`POLLIN`) when the group may have lost a process for
    /// memory. Read and drop up to 4096 bytes to rearm it (non-blocking), then compare `oom_kills`
    /// of [`Group::stats`]: it also fires when the limit was merely reached (v2), just before the
    /// kernel picks its victim, and when the group is removed (v1). So look once more when a
    /// process has ended.
    pub fn oom_watch(&self) -> Result<OwnedFd, CgroupError> {
        match self.dir(Controller::Memory) {
            Dir::V1(dir) => v1::oom_watch(&dir),
            Dir::V2(dir) => v2::oom_watch(&dir),
        }
    }

    /// Refuses all devices but these; `program` is that for the common ones.
    pub(super) fn limit_devices(
        &self,
        devices: Devices,
        program: Option<&OwnedFd>,
    ) -> Result<(), CgroupError> {
        match self.dir(Controller::Devices) {
            Dir::V1(dir) => v1::limit_devices(&dir, devices),
            // Rare: the group keeps it, and its copy here goes.
            Dir::V2(dir) if devices != Devices::Common => {
                v2::limit_devices(&dir, v2::load_devices(devices)?.as_fd())
            }
            Dir::V2(dir) => {
                let program = program.expect("the program is loaded where v1 has no devices");
                v2::limit_devices(&dir, program.as_fd())
            }
        }
    }

    /// The group's directories, each once, the unified one first.
    pub(super) fn dirs(&self) -> Vec<PathBuf> {
        let parents = self.layout.parents();
        let name = self.name.to_string();
        parents.into_iter().map(|parent| parent.join(&name)).collect()
    }

    /// The directory of a controller that [`Layout::new`] made sure of: all but the freezer.
    fn dir(&self, controller: Controller) -> Dir {
        let dir = self.layout.dir(controller, &self.name.to_string());
        dir.expect("a layout without this controller is refused")
    }
}
