//! What one container writes: a subvolume of its own, under its own limit.

use super::store::{CONTAINERS, QGROUPS, Store, names};
use super::{VolumeError, plan};
use crate::sys::btrfs;
use crate::unit::{Bytes, Handle, IdRange};
use std::fs::{self, DirBuilder, File, Permissions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

/// Most that the store is kept ahead of what containers write.
const AHEAD_MAX: Bytes = Bytes::mib(1024);

impl Store {
    /// Makes the container's subvolume with the directories `upper` (0755) and `work` (0700), both
    /// owned by the root of `owner`. What is written into it beyond `limit` fails with `EDQUOT`.
    ///
    /// Limits may add up to more than the store can hold. What is made sure of is a first part;
    /// beyond it the store is kept ahead by what one container may write, as far as it can grow:
    /// nothing tells us when a container fills it, so that is looked after whenever one is made.
    pub fn create_writable(
        &self,
        handle: &Handle,
        limit: Option<Bytes>,
        owner: IdRange,
    ) -> Result<PathBuf, VolumeError> {
        let ahead = limit.unwrap_or(AHEAD_MAX).min(AHEAD_MAX);
        self.ensure_room(ahead.min(Bytes::new(plan::SLACK)))?;
        self.keep_ahead(ahead);
        let place = self.dir.join(CONTAINERS);
        let dir = place.join(handle.as_str());
        let made = File::open(&place)
            .and_then(|place| btrfs::create_subvolume(place.as_fd(), handle.as_str()));
        match made {
            Err(err) if err.kind() == io::ErrorKind::AlreadyExists => {
                return Err(VolumeError::Exists { handle: handle.clone() });
            }
            other => other.map_err(VolumeError::refused("make", &dir))?,
        }
        match furnish(self.root.as_fd(), &dir, limit, owner) {
            Ok(()) => Ok(dir),
            Err(source) => {
                // Half a disk has no limit yet: better none.
                let _ = self.destroy(CONTAINERS, handle.as_str());
                Err(VolumeError::Refused { doing: "make", path: dir, source })
            }
        }
    }

    /// Removes the container's subvolume with all it holds, also when it is gone already. The
    /// space comes back a little later, when the kernel's cleaner has been through it.
    pub fn remove_writable(&self, handle: &Handle) -> Result<(), VolumeError> {
        self.destroy(CONTAINERS, handle.as_str())
            .map_err(VolumeError::refused("remove", self.writable_path(handle)))
    }

    /// The containers that have a subvolume.
    pub fn writables(&self) -> Result<Vec<Handle>, VolumeError> {
        let names = names(&self.dir.join(CONTAINERS))?;
        Ok(names.into_iter().filter_map(|name| name.parse().ok()).collect())
    }

    /// What the container has written and still keeps. Lags behind by what the kernel has not
    /// written to the device yet, at most half a minute.
    pub fn used(&self, handle: &Handle) -> Result<Bytes, VolumeError> {
        let dir = self.writable_path(handle);
        let opened = File::open(&dir);
        if matches!(&opened, Err(err) if err.kind() == io::ErrorKind::NotFound) {
            return Err(VolumeError::Absent { handle: handle.clone() });
        }
        let id = opened
            .and_then(|dir| btrfs::subvolume_id(dir.as_fd()))
            .map_err(VolumeError::refused("inspect", &dir))?;
        let counter = self.sysfs.join(QGROUPS).join(format!("0_{id}/exclusive"));
        let text = fs::read_to_string(&counter).map_err(VolumeError::refused("read", &counter))?;
        let bytes = text.trim().parse().map_err(io::Error::other);
        bytes.map(Bytes::new).map_err(VolumeError::refused("read", &counter))
    }

    /// Makes as much of `ahead` fit as the limits allow.
    fn keep_ahead(&self, ahead: Bytes) {
        let mut part = ahead.get();
        // Four halves at most: 1 GiB down to 64 MiB, which is there already.
        while part > plan::SLACK && self.ensure_room(Bytes::new(part)).is_err() {
            part /= 2;
        }
    }

    fn writable_path(&self, handle: &Handle) -> PathBuf {
        self.dir.join(CONTAINERS).join(handle.as_str())
    }
}

/// Sets the limit, then puts the two directories in.
fn furnish(
    root: BorrowedFd<'_>,
    dir: &Path,
    limit: Option<Bytes>,
    owner: IdRange,
) -> io::Result<()> {
    let subvolume = File::open(dir)?;
    if let Some(limit) = limit {
        let id = btrfs::subvolume_id(subvolume.as_fd())?;
        btrfs::limit_exclusive(root, id, limit.get())?;
    }
    // The container's root must be able to pass through, but not to look around or write here.
    subvolume.set_permissions(Permissions::from_mode(0o711))?;
    for (name, mode) in [("upper", 0o755), ("work", 0o700)] {
        let path = dir.join(name);
        DirBuilder::new().mode(0o700).create(&path)?;
        // Past the umask.
        fs::set_permissions(&path, Permissions::from_mode(mode))?;
        chown(&path, Some(owner.base), Some(owner.base))?;
    }
    Ok(())
}
