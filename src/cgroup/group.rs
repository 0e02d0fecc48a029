//! One group: a container's, or that of a process with limits of its own.

use super::files::Removed;
use super::metrics::{Metrics, Stats};
use super::name::Name;
use super::plan::{Controller, Dir, Layout};
use super::recipe::Devices;
use super::{CgroupError, files, recipe, v1, v2};
use crate::model::limits::Limits;
use crate::sys::{fd, process};
use crate::unit::Bytes;
use std::collections::BTreeSet;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long killed processes may take to end. Only one that waits in the kernel takes that long.
const KILL_MAX: Duration = Duration::from_secs(10);

/// How long an emptied group may take until it can be removed.
const REMOVE_MAX: Duration = Duration::from_secs(2);

/// Nap when a group has no process to wait for and is not removable yet.
const NAP: Duration = Duration::from_millis(1);

/// Processes that are killed in one round; one descriptor each.
const ROUND_MAX: usize = 256;

/// SIGKILL on every Linux.
const SIGKILL: i32 = 9;

/// One group: a name in every hierarchy. Cheap to copy, may outlive its group.
///
/// [`Group::kill`], [`Group::remove`] and [`Group::pids`] of a container's group are for its peas
/// as well; everything else is for the one group.
#[derive(Clone, Debug)]
pub struct Group {
    layout: Arc<Layout>,
    name: Name,
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

    /// Files by which a process can move itself here, one for each hierarchy: it writes `0` to every
    /// one of them, and needs no rights and no sight of the hierarchies for it. Open for writing
    /// only, close-on-exec. After an error it may be in some hierarchies only.
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

    /// Kills every process of the group, of groups nested in it and of its peas, and waits until
    /// they have ended, at most 10 s. Our own children among them stay zombies until they are waited
    /// for. No pea may be made meanwhile.
    ///
    /// Errors: [`CgroupError::Alive`] when some would not end in time.
    pub fn kill(&self) -> Result<(), CgroupError> {
        let deadline = Instant::now() + KILL_MAX;
        let family = self.family()?;
        let mut at_one_stroke = true;
        for group in &family {
            at_one_stroke &= group.kill_at_one_stroke()?;
        }
        // Mostly this loop only waits. It kills where there was no such stroke, and processes that
        // are in some of the hierarchies only.
        loop {
            let pids = pids_of(&family)?;
            if pids.is_empty() {
                return family.iter().try_for_each(Group::thaw);
            }
            if Instant::now() >= deadline {
                return Err(self.alive(pids.len()));
            }
            if !at_one_stroke {
                // A fork bomb is faster than we are, but not when it stands still.
                family.iter().try_for_each(Group::freeze)?;
            }
            let killed = kill_round(&family);
            family.iter().try_for_each(Group::thaw)?;
            let killed = killed?;
            if killed.is_empty() {
                // No event: v1 does not tell when a group has emptied.
                std::thread::sleep(NAP);
            }
            for process in killed {
                wait_ended(&process, deadline);
            }
        }
    }

    /// Removes the group and its peas, which must be empty or about to be: killed processes get up
    /// to 2 s to end. One that is gone already is success.
    ///
    /// Errors: [`CgroupError::Alive`] when a process is left.
    pub fn remove(&self) -> Result<(), CgroupError> {
        let deadline = Instant::now() + REMOVE_MAX;
        for dir in self.family()?.iter().flat_map(Group::dirs) {
            while files::remove_tree(&dir)? == Removed::Busy {
                let pids = files::pids(&dir)?;
                if Instant::now() >= deadline {
                    return Err(self.alive(pids.len()));
                }
                // No event: the kernel counts a process out of the group a little after its end.
                std::thread::sleep(NAP);
                for process in pids.into_iter().take(1).filter_map(|p| process::pidfd_open(p).ok())
                {
                    wait_ended(&process, deadline);
                }
            }
        }
        Ok(())
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

    /// The names of the container's peas, in whatever hierarchy a part of one is left; a pea has
    /// none.
    pub(super) fn peas(&self) -> Result<BTreeSet<Name>, CgroupError> {
        let mut peas = BTreeSet::new();
        let Some(sign) = self.sign().filter(Group::is_there) else { return Ok(peas) };
        let is_ours = |name: &Name| matches!(name, Name::Pea(of, _) if of == sign.name.handle());
        for parent in self.layout.parents() {
            let names = files::nested(parent)?.unwrap_or_default();
            peas.extend(names.iter().filter_map(|name| Name::parse(name)).filter(is_ours));
        }
        Ok(peas)
    }

    /// The group whose being there says that the container may have peas.
    pub(super) fn sign(&self) -> Option<Group> {
        let Name::Container(handle) = &self.name else { return None };
        Some(Group::new(self.layout.clone(), Name::Sign(handle.clone())))
    }

    /// What goes before the group does: its peas, then their sign. In this order, so that whoever
    /// looks for what a crash has left finds all of it.
    pub(super) fn followers(&self) -> Result<Vec<Group>, CgroupError> {
        let peas = self.peas()?.into_iter();
        let groups = peas.map(|pea| Group::new(self.layout.clone(), pea));
        Ok(groups.chain(self.sign().filter(Group::is_there)).collect())
    }

    /// All that ends with this group, itself last.
    fn family(&self) -> Result<Vec<Group>, CgroupError> {
        let mut family = self.followers()?;
        family.push(self.clone());
        Ok(family)
    }

    /// Whether any part of the group is there.
    pub(super) fn is_there(&self) -> bool {
        self.dirs().iter().any(|dir| dir.exists())
    }

    /// The directory of a controller that [`Layout::new`] made sure of: all but the freezer.
    fn dir(&self, controller: Controller) -> Dir {
        let dir = self.layout.dir(controller, &self.name.to_string());
        dir.expect("a layout without this controller is refused")
    }

    /// Processes in any part of the group, and of its peas.
    pub fn pids(&self) -> Result<BTreeSet<i32>, CgroupError> {
        pids_of(&self.family()?)
    }

    /// Kills what the unified hierarchy knows of; `false` when it has no such stroke.
    fn kill_at_one_stroke(&self) -> Result<bool, CgroupError> {
        match self.layout.unified() {
            Some(unified) => v2::kill(&unified.parent.join(self.name.to_string())),
            None => Ok(false),
        }
    }

    fn freeze(&self) -> Result<(), CgroupError> {
        match self.layout.dir(Controller::Freezer, &self.name.to_string()) {
            Some(Dir::V1(dir)) => v1::freeze(&dir),
            Some(Dir::V2(dir)) => v2::freeze(&dir),
            None => Ok(()),
        }
    }

    fn thaw(&self) -> Result<(), CgroupError> {
        match self.layout.dir(Controller::Freezer, &self.name.to_string()) {
            Some(Dir::V1(dir)) => v1::thaw(&dir),
            Some(Dir::V2(dir)) => v2::thaw(&dir),
            None => Ok(()),
        }
    }

    fn alive(&self, count: usize) -> CgroupError {
        CgroupError::Alive { group: self.name.to_string(), count }
    }
}

/// Processes in any part of these groups.
fn pids_of(groups: &[Group]) -> Result<BTreeSet<i32>, CgroupError> {
    let mut all = BTreeSet::new();
    for dir in groups.iter().flat_map(Group::dirs) {
        all.extend(files::pids(&dir)?);
    }
    Ok(all)
}

/// Kills what is in the groups now, some hundreds at most, and returns the processes to wait for. A
/// number read from a group may have passed on to a stranger meanwhile: so each is pinned by a
/// descriptor, and only those are killed that are in the groups still.
fn kill_round(groups: &[Group]) -> Result<Vec<OwnedFd>, CgroupError> {
    let pin = |pid| Some((pid, process::pidfd_open(pid).ok()?));
    let pinned: Vec<_> = pids_of(groups)?.into_iter().filter_map(pin).take(ROUND_MAX).collect();
    let members = pids_of(groups)?;
    let ours = pinned.into_iter().filter(|(pid, _)| members.contains(pid));
    Ok(ours
        .map(|(_, process)| process)
        // The only refusal is ESRCH: it has ended.
        .inspect(|process| drop(process::pidfd_send_signal(process, SIGKILL)))
        .collect())
}

/// Waits until the process behind a pidfd has ended, not past `deadline`.
fn wait_ended(process: &OwnedFd, deadline: Instant) {
    let left = deadline.saturating_duration_since(Instant::now()).as_millis();
    // A failing poll is no end of the world: the caller looks at the group again.
    let _ = fd::wait_readable(process, u16::try_from(left).unwrap_or(u16::MAX));
}
