//! Limits of containers: memory, processor, processes, devices; and killing all of one at once.
//!
//! Owns: one group for each container, named by its handle, and one for each process that has
//! limits of its own, in every cgroup hierarchy that it needs. Each controller is taken where the
//! machine has it, v1 or v2.
//! Must not: know what an app is; keep state (everything is found again by name); limit disk.
//! Called by: `container`. Calls: `sys`, `model::limits`, `unit`.
//! Entry points: [`Cgroups::open`], [`Cgroups::create`], [`Cgroups::create_pea`],
//! [`Cgroups::make_ahead`], [`Cgroups::adopt`], [`Cgroups::find`], [`Cgroups::list`].
//! Ancestor: garden-linux's cgroups_manager.
//!
//! Where groups go, with the configured parent `terrarium`:
//! * v1: `<mount>/<own cgroup>/terrarium/<handle>`, as garden-linux did. A limit on the service
//!   covers its containers. The service's own cgroup is the same after every restart.
//! * v2: `/terrarium/<handle>`, outside the service's unit. Inside it would be the nicer place, but
//!   v2 allows no process in a group that hands controllers down, and systemd before 254 (Debian 12
//!   has 252) puts a restarted service right into its unit's group: with containers of the previous
//!   run below, it could not start. systemd leaves groups that it did not make alone, and cannot
//!   take controllers away from under us: the kernel refuses while our parent hands them on.
//! * A process with limits of its own (Garden's pea) has its group beside its container's,
//!   `<handle>.pea-<name>`: below it, the container's limits would cover it too. It is found by its
//!   name, killed and removed with the container, and is no container in [`Cgroups::list`]. An
//!   empty group `<handle>.peas` says that it is worth while to look for any.
//! * A unified hierarchy without controllers beside v1 ("hybrid") gets a group too: `cgroup.kill`.

mod ahead;
mod end;
mod error;
mod files;
mod group;
pub mod metrics;
mod name;
pub mod plan;
pub mod recipe;
mod v1;
mod v2;

pub use error::CgroupError;
pub use group::Group;
pub use metrics::{Metrics, Stats};
pub use recipe::Devices;

use crate::model::limits::Limits;
use crate::sys::cgroupfs;
use crate::unit::Handle;
use name::Name;
use plan::{Controller, Layout, Mounts};
use std::collections::BTreeSet;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The machine's hierarchies, ready to take groups.
#[derive(Debug)]
pub struct Cgroups {
    layout: Arc<Layout>,
    /// The device rules, when no v1 hierarchy applies them.
    devices: Option<OwnedFd>,
    /// Keeps moves between groups quick, see [`quick_moves`].
    _quick: Option<OwnedFd>,
}

impl Cgroups {
    /// Finds the hierarchies as the calling thread sees them and makes group `parent` in each;
    /// after a failure none is left that has no group in it.
    ///
    /// Errors: [`CgroupError::Missing`] when the machine cannot limit memory, processor, processes
    /// or devices: a container without its limits is not made.
    pub fn open(parent: &str) -> Result<Cgroups, CgroupError> {
        check_name(parent)?;
        let proc = Path::new("/proc");
        let mounts = Mounts::parse(
            &files::read(proc, "thread-self/cgroup")?,
            &files::read(proc, "thread-self/mountinfo")?,
            // Newer kernels may be built without the file; it only serves a better error.
            &files::read(proc, "cgroups").unwrap_or_default(),
        );
        let available = match &mounts.unified {
            Some(root) => files::read(root, "cgroup.controllers")?,
            None => String::new(),
        };
        let layout = Layout::new(&mounts, &available, parent).map_err(CgroupError::Missing)?;
        let parents: Vec<PathBuf> = layout.parents().into_iter().map(Path::to_owned).collect();
        let made = Cgroups::make(layout);
        if made.is_err() {
            remove_empty(&parents);
        }
        made
    }

    /// Makes the parent groups.
    fn make(mut layout: Layout) -> Result<Cgroups, CgroupError> {
        if let Some(unified) = layout.unified() {
            match v2::prepare(unified) {
                Ok(()) => {}
                // Here it would only have served `cgroup.kill`; v1 has all that must be.
                Err(_) if is_spare(&layout) => layout = layout.without_unified(),
                Err(err) => return Err(err),
            }
        }
        layout.parents().into_iter().try_for_each(files::make_all)?;
        if let Some(memory) = layout.v1_parent(Controller::Memory) {
            v1::prepare_memory(memory)?;
        }
        let devices =
            layout.devices_by_program().then(|| v2::load_devices(Devices::Common)).transpose()?;
        let _quick = quick_moves(&layout);
        Ok(Cgroups { layout: Arc::new(layout), devices, _quick })
    }

    /// Makes the group of a new container with its limits; on failure nothing of it is left.
    ///
    /// Errors: `Refused` with `EEXIST` when a group of that name has processes in it.
    pub fn create(
        &self,
        handle: &Handle,
        limits: &Limits,
        devices: Devices,
    ) -> Result<Group, CgroupError> {
        let group = self.make_group(self.find(handle), limits, devices)?;
        // Only now is it known that no such container is there, so its peas are left from a crash.
        let removed = group.followers().and_then(|left| left.iter().try_for_each(Group::remove));
        removed.inspect_err(|_| undo(&group.dirs()))?;
        Ok(group)
    }

    /// Makes the group of a process that runs in a container with limits of its own: the
    /// container's do not cover it, and `Limits::default()` is no limit. It ends with the
    /// container's group, or before that by its own [`Group::kill`] and [`Group::remove`]. On
    /// failure nothing of it is left. Not to be called while the container is being removed.
    ///
    /// Errors: [`CgroupError::Pea`] when `pea` is no plain name of at most 128 bytes; `Refused`
    /// with `EEXIST` when a pea of that name has processes in it; `is_not_found` when the container
    /// has no group.
    pub fn create_pea(
        &self,
        handle: &Handle,
        pea: &str,
        limits: &Limits,
        devices: Devices,
    ) -> Result<Group, CgroupError> {
        let group = self.find_pea(handle, pea)?;
        let container = self.find(handle);
        container.dirs().iter().try_for_each(|dir| files::look_for(dir))?;
        // Before the first pea, and it stays as long as the container.
        let sign = container.sign().expect("a container's group");
        sign.dirs().iter().try_for_each(|dir| files::make_all(dir))?;
        self.make_group(group, limits, devices)
    }

    /// Makes the directories of `group` and writes its limits.
    fn make_group(
        &self,
        group: Group,
        limits: &Limits,
        devices: Devices,
    ) -> Result<Group, CgroupError> {
        let mut made = Vec::new();
        let result = group
            .dirs()
            .into_iter()
            .try_for_each(|dir| {
                files::make_new(&dir)?;
                made.push(dir);
                Ok(())
            })
            .and_then(|()| group.set(limits))
            .and_then(|()| group.limit_devices(devices, self.devices.as_ref()));
        result.inspect_err(|_| undo(&made))?;
        Ok(group)
    }

    /// The group of one pea, as [`Cgroups::find`]. Errors: [`CgroupError::Pea`].
    pub fn find_pea(&self, handle: &Handle, pea: &str) -> Result<Group, CgroupError> {
        Ok(Group::new(self.layout.clone(), Name::pea(handle, pea)?))
    }

    /// The names of a container's peas; none when it is gone.
    pub fn peas(&self, handle: &Handle) -> Result<Vec<String>, CgroupError> {
        let peas = self.find(handle).peas()?.into_iter();
        Ok(peas
            .filter_map(|name| match name {
                Name::Pea(_, pea) => Some(pea),
                Name::Container(_) | Name::Sign(_) => None,
            })
            .collect())
    }

    /// The group of an existing container. Looks at nothing: its other methods tell if it is gone.
    pub fn find(&self, handle: &Handle) -> Group {
        Group::new(self.layout.clone(), Name::Container(handle.clone()))
    }

    /// Every container of which a group is left, in whatever hierarchy; be it a pea's, so that it
    /// is found and removed after a crash.
    pub fn list(&self) -> Result<Vec<Handle>, CgroupError> {
        let mut handles = BTreeSet::new();
        for parent in self.layout.parents() {
            let names = files::nested(parent)?.unwrap_or_default();
            // A name that is none of ours is not ours.
            let names = names.iter().filter_map(|name| Name::parse(name));
            handles.extend(names.map(|name| name.handle().clone()));
        }
        Ok(handles.into_iter().collect())
    }

    /// Removes our parent groups that have no group left in them.
    pub fn remove_parent_if_empty(&self) {
        remove_empty(&self.layout.parents());
    }
}

/// Removes the directories of a group that could not be finished. The first error is the one to
/// tell; what stays is found by [`Cgroups::list`].
fn undo(dirs: &[PathBuf]) {
    for dir in dirs.iter().rev() {
        let _ = files::remove_tree(dir);
    }
}

/// Removes those of the groups that have no group in them.
fn remove_empty(parents: &[impl AsRef<Path>]) {
    for parent in parents {
        // Not empty, or gone already: both are as wanted.
        let _ = std::fs::remove_dir(parent);
    }
}

/// Whether the containers can do without the unified hierarchy.
fn is_spare(layout: &Layout) -> bool {
    layout.unified().is_some_and(|unified| unified.controllers.is_empty())
        && !layout.devices_by_program()
        && layout.v1_parent(Controller::Cpuacct).is_some()
}

/// A plain file name that is no option and no hidden file.
fn check_name(name: &str) -> Result<(), CgroupError> {
    if name::is_plain(name, 64) {
        Ok(())
    } else {
        Err(CgroupError::Parent { name: name.to_owned() })
    }
}

/// Moving a process after a quiet moment takes 4 to 16 ms, a wait for all processors, unless some
/// hierarchy has asked for quick moves; then 0.1 ms. So a hierarchy of our own asks, without a
/// mount point and without controllers. Since Linux 6.18 the effect stays until reboot; before, as
/// long as the hierarchy. It shows as a line of `/proc/<pid>/cgroup`, which programs that look for
/// their memory limit there misread when it is the only v1 line: so it is not kept on a pure v2
/// machine. Best effort: kernels before 6.0 refuse.
fn quick_moves(layout: &Layout) -> Option<OwnedFd> {
    let hierarchy = cgroupfs::favor_quick_moves(c"terrarium").ok()?;
    (!layout.is_unified()).then_some(hierarchy)
}

#[cfg(test)]
mod tests;
