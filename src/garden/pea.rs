//! Peas: processes with a root filesystem of their own in a container, and limits of their own when
//! the client says so.

use super::backend::Shared;
use super::member::Member;
use super::{Done, GardenError, plan};
use crate::cgroup::Metrics;
use crate::container::{PeaRoot, Process, ProcessError};
use crate::image::Rootfs;
use crate::init::proto::Bind;
use crate::model::garden::ProcessSpec;
use crate::model::limits::Limits;
use crate::model::process;
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// What a pea is made from: all that may be refused by itself has been looked at.
pub(super) struct Files {
    rootfs: Rootfs,
    binds: Vec<Bind>,
    limits: Option<Limits>,
}

impl Files {
    /// What the image says of the environment.
    pub(super) fn env(&self) -> &[String] {
        &self.rootfs.env
    }
}

/// A pea that is made, but for its process.
pub(super) struct Pea {
    root: PeaRoot,
    doors: Vec<OwnedFd>,
    /// Its layers stay in the store until the process runs.
    _rootfs: Rootfs,
}

impl Pea {
    /// Starts the process. Its root stands for as long as it runs.
    pub(super) async fn start(
        self,
        member: &Member,
        spec: process::ProcessSpec,
    ) -> Result<Process, ProcessError> {
        member.container.start_in(spec, Some(&self.root), self.doors).await
    }
}

impl Shared {
    /// Reads what a client says of a pea, and imports its image when the store has it not yet.
    pub(super) async fn pea_files(self: &Arc<Self>, spec: &ProcessSpec) -> Done<Files> {
        let image = plan::image(&spec.image.uri, "").map_err(GardenError::Failed)?;
        let binds: Result<Vec<_>, _> = spec.bind_mounts.iter().map(plan::bind).collect();
        let binds = binds.map_err(GardenError::Failed)?;
        let (shared, login) = (self.clone(), spec.image.clone());
        let rootfs = smol::unblock(move || shared.rootfs(&image, &login)).await?;
        let disk = spec.limits.map_or(Ok(None), |limits| plan::disk(&limits, rootfs.bytes));
        let disk = disk.map_err(GardenError::Failed)?;
        let limits = spec.limits.map(|limits| plan::limits(&limits, disk));
        Ok(Files { rootfs, binds, limits })
    }

    /// Makes the root of a pea, and its groups when it has limits of its own. On a failure nothing of
    /// it is left.
    pub(super) async fn make_pea(
        self: &Arc<Self>,
        member: &Arc<Member>,
        inner: &str,
        files: Files,
    ) -> Done<Pea> {
        let Files { rootfs, binds, limits } = files;
        let disk = limits.as_ref().and_then(|own| own.disk);
        let (shared, name, pea) = (self.clone(), member.name.clone(), inner.to_owned());
        let (layers, own) = (rootfs.layers.clone(), limits.clone());
        let made = smol::unblock(move || {
            shared.host.make_pea_root(&name, &pea, layers, binds, own.as_ref())
        });
        let root = made.await.map_err(|err| member.refused(&err))?;
        if disk.is_none() {
            // Somebody may have to keep the store ahead of it.
            self.tell_change();
        }
        let (shared, name, pea) = (self.clone(), member.name.clone(), inner.to_owned());
        // As in its container.
        let devices = member.container.entry().spec.posture.devices();
        let doors = smol::unblock(move || match limits {
            None => Ok(Vec::new()),
            Some(limits) => shared
                .host
                .cgroups()
                .create_pea(&name, &pea, &limits, devices)
                .and_then(|group| group.doors()),
        });
        match doors.await {
            Ok(doors) => Ok(Pea { root, doors, _rootfs: rootfs }),
            Err(err) => {
                drop(root);
                self.clone().remove_pea(member, inner).await;
                Err(member.refused(&err))
            }
        }
    }

    /// Removes what is left of a pea that has ended, or was never begun. What cannot be removed goes
    /// with the container.
    pub(super) async fn remove_pea(self: Arc<Self>, member: &Member, inner: &str) {
        let (name, pea) = (member.name.clone(), inner.to_owned());
        let garden = member.handle.clone();
        smol::unblock(move || {
            let left = |err: String| {
                crate::warn!("pea.left", handle = name, garden = garden, pea = pea, err = err);
            };
            if let Err(err) = self.host.remove_pea(&name, &pea) {
                left(crate::log::chain(&err));
            }
            let group = self.host.cgroups().find_pea(&name, &pea);
            if let Err(err) = group.and_then(|group| group.remove()) {
                left(crate::log::chain(&err));
            }
        })
        .await;
    }

    /// Figures of a pea with limits of its own; `None`: it counts with its container. Blocking.
    pub(super) fn pea_figures(&self, member: &Member, inner: &str) -> Option<Metrics> {
        self.host.cgroups().find_pea(&member.name, inner).ok()?.metrics().ok()
    }
}
