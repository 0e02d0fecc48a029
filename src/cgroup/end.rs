//! The end of a group, and of what ends with it.

use super::files::Removed;
use super::name::Name;
use super::plan::{Controller, Dir};
use super::{CgroupError, Group, files, v1, v2};
use crate::sys::{fd, process};
use std::collections::BTreeSet;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
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

impl Group {
    /// Kills every process of the group, of groups nested in it and of its peas, and waits until
    /// they have ended, at most 10 s. Our own children among them stay zombies until they are
    /// waited for. No pea may be made meanwhile.
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
        match remove_dirs(self.family()?.iter().flat_map(Group::dirs))? {
            0 => Ok(()),
            count => Err(self.alive(count)),
        }
    }

    /// Removes the group if it has no process, no nested group and no pea, which costs a tenth of
    /// [`Group::kill`] and [`Group::remove`]. `false`: it has, and parts of it may be gone.
    pub fn remove_if_empty(&self) -> Result<bool, CgroupError> {
        if self.sign().is_some_and(|sign| sign.is_there()) {
            return Ok(false);
        }
        for dir in self.dirs() {
            match std::fs::remove_dir(&dir) {
                Err(err) if files::is_gone(&err) => {}
                Err(err) if files::is_in_use(&err) => return Ok(false),
                removed => removed.map_err(|err| CgroupError::refused("remove", dir, err))?,
            }
        }
        Ok(true)
    }

    /// Processes in any part of the group, and of its peas.
    pub fn pids(&self) -> Result<BTreeSet<i32>, CgroupError> {
        pids_of(&self.family()?)
    }

    /// The names of the container's peas, in whatever hierarchy a part of one is left; a pea has
    /// none.
    pub(super) fn peas(&self) -> Result<BTreeSet<Name>, CgroupError> {
        match self.sign().filter(Group::is_there) {
            Some(sign) => self.peas_by(&sign),
            None => Ok(BTreeSet::new()),
        }
    }

    /// The same, when the sign is there.
    fn peas_by(&self, sign: &Group) -> Result<BTreeSet<Name>, CgroupError> {
        let mut peas = BTreeSet::new();
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
        let Some(sign) = self.sign().filter(Group::is_there) else { return Ok(Vec::new()) };
        let peas = self.peas_by(&sign)?.into_iter();
        let groups = peas.map(|pea| Group::new(self.layout.clone(), pea));
        Ok(groups.chain([sign]).collect())
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

    /// Kills what the unified hierarchy knows of; `false` when it has no such stroke.
    fn kill_at_one_stroke(&self) -> Result<bool, CgroupError> {
        match self.layout.unified() {
            Some(unified) => v2::kill(&unified.parent.join(self.name.to_string())),
            None => Ok(false),
        }
    }

    /// Lets the processes go on of a group, and of its peas, that was frozen to kill them and then
    /// left so by a daemon that ended: on v1 nothing that is frozen can be killed.
    pub fn thaw_all(&self) -> Result<(), CgroupError> {
        self.family()?.iter().try_for_each(Group::thaw)
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

/// Removes directories of groups as [`Group::remove`] does. Returns how many processes would not end.
pub(super) fn remove_dirs(dirs: impl IntoIterator<Item = PathBuf>) -> Result<usize, CgroupError> {
    let deadline = Instant::now() + REMOVE_MAX;
    for dir in dirs {
        while files::remove_tree(&dir)? == Removed::Busy {
            let pids = files::pids(&dir)?;
            if Instant::now() >= deadline {
                return Ok(pids.len().max(1));
            }
            // No event: the kernel counts a process out of the group a little after its end.
            std::thread::sleep(NAP);
            for process in pids.into_iter().take(1).filter_map(|p| process::pidfd_open(p).ok()) {
                wait_ended(&process, deadline);
            }
        }
    }
    Ok(0)
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
