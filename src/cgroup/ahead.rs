//! Groups that are made before it is known whose they will be.
//!
//! In a hierarchy of v1 a group can get another name, in a tenth of the time that it takes to make one;
//! in the unified one it cannot, and to move a process to another group takes longer there than to make
//! that group: nothing is won by one that is not the container's in the end. So what is made ahead of a container are its groups of v1, with the rules
//! for devices and its first process in them. They are called after its slot, `<slot>.reserve`, which no
//! handle can be. When the container comes they get its name, and what is missing is made.

use super::plan::Controller;
use super::{CgroupError, Cgroups, Devices, Group, end, files, v1};
use crate::model::limits::Limits;
use crate::unit::{Handle, Slot};
use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// What follows the slot's number.
const AHEAD: &str = ".reserve";

impl Cgroups {
    /// Makes what can be made ahead for the container that will have `slot`, with the common devices and
    /// without limits, and puts process `pid` into it. `pause` comes before each group that is made or
    /// entered: both have all others on the box who make or remove one wait. After an error a part of it
    /// is there: [`Cgroups::remove_ahead`] takes it away, when the process has ended.
    pub fn make_ahead(&self, slot: Slot, pid: i32, pause: impl Fn()) -> Result<(), CgroupError> {
        let dirs = self.dirs_ahead(slot);
        for dir in &dirs {
            pause();
            files::make_new(dir)?;
        }
        if let Some(devices) = self.layout.v1_parent(Controller::Devices) {
            v1::limit_devices(&devices.join(name(slot)), Devices::Common)?;
        }
        dirs.iter().try_for_each(|dir| {
            pause();
            add(std::slice::from_ref(dir), pid)
        })
    }

    /// As [`Cgroups::create`] with the common devices, of what was made ahead for `slot`; process `pid`,
    /// which is in that, is in all of it afterwards. After an error parts may have either name, with the
    /// process in them: end it, then [`Group::remove`] and [`Cgroups::remove_ahead`].
    pub fn adopt(
        &self,
        slot: Slot,
        handle: &Handle,
        limits: &Limits,
        pid: i32,
    ) -> Result<Group, CgroupError> {
        let group = self.find(handle);
        for parent in self.layout.v1_parents() {
            rename(&parent.join(name(slot)), &parent.join(handle.as_str()))?;
        }
        if let Some(unified) = self.layout.unified() {
            let dir = unified.parent.join(handle.as_str());
            files::make_new(&dir)?;
            if self.layout.devices_by_program() {
                group.limit_devices(Devices::Common, self.devices.as_ref())?;
            }
            group.set(limits)?;
            add(&[dir], pid)?;
        } else {
            group.set(limits)?;
        }
        // As in `create`: only now is it known that no such container is there.
        group.followers()?.iter().try_for_each(Group::remove)?;
        Ok(group)
    }

    /// Removes what was made ahead for `slot`, and is empty or about to be, as [`Group::remove`] does;
    /// success also when there is nothing.
    pub fn remove_ahead(&self, slot: Slot) -> Result<(), CgroupError> {
        let left = end::remove_dirs(self.dirs_ahead(slot))?;
        match left {
            0 => Ok(()),
            count => Err(CgroupError::Alive { group: name(slot), count }),
        }
    }

    /// The slots for which something that was made ahead is left, in whatever hierarchy.
    pub fn ahead(&self) -> Result<BTreeSet<Slot>, CgroupError> {
        let mut slots = BTreeSet::new();
        for parent in self.layout.v1_parents() {
            let names = files::nested(parent)?.unwrap_or_default();
            slots.extend(names.iter().filter_map(|name| parse(name)));
        }
        Ok(slots)
    }

    fn dirs_ahead(&self, slot: Slot) -> Vec<PathBuf> {
        self.layout.v1_parents().into_iter().map(|parent| parent.join(name(slot))).collect()
    }
}

fn name(slot: Slot) -> String {
    format!("{slot}{AHEAD}")
}

/// The name of such a group, read back; `None`: it is none.
fn parse(dir: &str) -> Option<Slot> {
    let number = dir.strip_suffix(AHEAD)?.parse().ok()?;
    Slot::new(number).ok().filter(|slot| name(*slot) == dir)
}

fn add(dirs: &[PathBuf], pid: i32) -> Result<(), CgroupError> {
    let pid = pid.to_string();
    dirs.iter().try_for_each(|dir| files::write(dir, "cgroup.procs", &pid))
}

/// Gives a group another name. An empty one of that name, which a crash has left, goes before.
fn rename(from: &Path, to: &Path) -> Result<(), CgroupError> {
    let refused = |source| CgroupError::refused("rename", from.into(), source);
    match fs::rename(from, to) {
        Err(err) if err.kind() == io::ErrorKind::AlreadyExists => match files::remove_tree(to)? {
            files::Removed::Busy => Err(CgroupError::refused("make", to.into(), err)),
            files::Removed::Gone => fs::rename(from, to).map_err(refused),
        },
        renamed => renamed.map_err(refused),
    }
}

#[cfg(test)]
mod tests {
    use super::super::name::Name;
    use super::*;

    #[test]
    fn what_is_made_ahead_is_known_by_its_name_and_is_nobodys_yet() {
        for number in [0, 7, Slot::COUNT - 1] {
            let slot = Slot::new(number).expect("a slot");
            assert_eq!(parse(&name(slot)), Some(slot));
            assert_eq!(Name::parse(&name(slot)), None, "no container's");
        }
        for other in
            ["7", "07.reserve", "-1.reserve", "16384.reserve", ".reserve", "7.reserve.reserve"]
        {
            assert_eq!(parse(other), None, "{other}");
        }
    }
}
