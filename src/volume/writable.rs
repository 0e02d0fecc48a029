//! What one container writes: a subvolume of its own, under its own limit.

use super::VolumeError;
use super::store::{CONTAINERS, Store, names};
use crate::sys::btrfs;
use crate::unit::{Bytes, Handle, IdRange};
use std::fs::{self, DirBuilder, File, Permissions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

/// What is made sure of for a disk without a limit.
const UNLIMITED: Bytes = Bytes::mib(64);

impl Store {
    /// Makes the container's subvolume with the directories `upper` (0755) and `work` (0700), both
    /// owned by the root of `owner`. What is written into it beyond `limit` fails with `EDQUOT`,
    /// and up to there it fits: the store has the room from now on, or this fails.
    pub fn create_writable(
        &self,
        handle: &Handle,
        limit: Option<Bytes>,
        owner: IdRange,
    ) -> Result<PathBuf, VolumeError> {
        // Before the promise: a disk that is there keeps its own.
        if self.writable_path(handle).exists() {
            return Err(VolumeError::Exists { handle: handle.clone() });
        }
        {
            let mut promises = self.promises();
            self.ensure(&promises, limit.unwrap_or(UNLIMITED))?;
            limit.into_iter().for_each(|limit| promises.give(handle, limit));
        }
        let made = self.make_writable(handle, limit, owner);
        if made.is_err() {
            self.promises().take_back(handle);
        }
        made
    }

    /// Makes the subvolume, its limit and its directories.
    fn make_writable(
        &self,
        handle: &Handle,
        limit: Option<Bytes>,
        owner: IdRange,
    ) -> Result<PathBuf, VolumeError> {
        let place = self.dir.join(CONTAINERS);
        let dir = place.join(handle.as_str());
        let made = File::open(&place)
            .and_then(|place| btrfs::create_subvolume(place.as_fd(), handle.as_str()));
        made.map_err(VolumeError::refused("make", &dir))?;
        match furnish(self.root.as_fd(), &dir, limit, owner) {
            Ok(id) => {
                self.promises().count(handle, id);
                Ok(dir)
            }
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
            .map_err(VolumeError::refused("remove", self.writable_path(handle)))?;
        self.promises().take_back(handle);
        Ok(())
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
        let used = self.counter(id, "exclusive").map(Bytes::new);
        used.map_err(VolumeError::refused("measure", &dir))
    }

    pub(super) fn writable_path(&self, handle: &Handle) -> PathBuf {
        self.dir.join(CONTAINERS).join(handle.as_str())
    }
}

/// Sets the limit, then puts the two directories in; the subvolume's id.
fn furnish(
    root: BorrowedFd<'_>,
    dir: &Path,
    limit: Option<Bytes>,
    owner: IdRange,
) -> io::Result<u64> {
    let subvolume = File::open(dir)?;
    let id = btrfs::subvolume_id(subvolume.as_fd())?;
    if let Some(limit) = limit {
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
    Ok(id)
}
