//! What one container writes: a subvolume of its own, under its own limit.

use super::store::{CONTAINERS, LAYERS, Store, names};
use super::{VolumeError, note};
use crate::sys::btrfs::{self, QuotaKind};
use crate::unit::{Bytes, Digest, Handle, IdMap};
use std::fs::{self, DirBuilder, File, Permissions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

/// What is made sure of for a disk without a limit.
const UNLIMITED: Bytes = Bytes::mib(64);

impl Store {
    /// Makes the container's subvolume with the directories `upper` (0755) and `work` (0700), both
    /// owned by the root of `owner`. What is written into it beyond `limit` fails with `EDQUOT`,
    /// unless the store was opened without limits, and up to there it fits: the store has the
    /// room from now on, or this fails.
    pub fn create_writable(
        &self,
        handle: &Handle,
        limit: Option<Bytes>,
        owner: IdMap,
    ) -> Result<PathBuf, VolumeError> {
        // Before the promise: a disk that is there keeps its own.
        if self.writable_path(handle).exists() {
            return Err(VolumeError::Exists { handle: handle.clone() });
        }
        self.promised(handle, limit, || {
            let dir = self.make_in_place(handle, |place| {
                btrfs::create_subvolume(place.as_fd(), handle.as_str())
            })?;
            self.furnished(handle, dir, limit, |dir| furnish(dir, owner))
        })
    }

    /// Makes the container's subvolume a writable copy of the layer `tree`, which shares all that it
    /// does not change. For the limit the same holds, and it holds for subvolumes that are made
    /// inside as well. With full quota (before Linux 6.7) it does not hold for those, and a snapshot
    /// without a limit may write into what others were promised.
    pub fn create_snapshot(
        &self,
        handle: &Handle,
        tree: &Digest,
        limit: Option<Bytes>,
    ) -> Result<PathBuf, VolumeError> {
        let source = self.layer(tree).unwrap_or_else(|| self.dir.join(LAYERS).join(tree.hex()));
        let source = File::open(&source).map_err(VolumeError::refused("open", source))?;
        if self.writable_path(handle).exists() {
            return Err(VolumeError::Exists { handle: handle.clone() });
        }
        self.promised(handle, limit, || {
            let dir = self.make_in_place(handle, |place| {
                btrfs::create_snapshot(place.as_fd(), handle.as_str(), source.as_fd())
            })?;
            self.furnished(handle, dir, limit, |dir| self.own_group(dir))
        })
    }

    /// Promises `limit` and makes the disk; a promise for a disk that is not there
    /// afterwards is taken back.
    fn promised(
        &self,
        handle: &Handle,
        limit: Option<Bytes>,
        make: impl FnOnce() -> Result<PathBuf, VolumeError>,
    ) -> Result<PathBuf, VolumeError> {
        let need = limit.unwrap_or(UNLIMITED);
        let promise = || -> Result<(), VolumeError> {
            let mut promises = self.promises();
            self.ensure(&mut promises, need)?;
            promises.give(handle, limit);
            Ok(())
        };
        match promise() {
            Err(err) if err.is_full() => self.after_removal(need, err, &promise)?,
            promised => promised?,
        }
        let made = make();
        if made.is_err() {
            match fs::symlink_metadata(self.writable_path(handle)) {
                Err(err) if err.kind() == io::ErrorKind::NotFound => {
                    self.promises().take_back(handle);
                }
                // Its promise goes when it goes: see `remove_writable`.
                _ => crate::warn!("volume.half_disk_kept", handle = handle),
            }
        }
        made
    }

    /// Makes the subvolume.
    fn make_in_place(
        &self,
        handle: &Handle,
        make: impl FnOnce(File) -> io::Result<()>,
    ) -> Result<PathBuf, VolumeError> {
        let place = self.dir.join(CONTAINERS);
        let dir = place.join(handle.as_str());
        let made = File::open(&place).and_then(make);
        made.map(|()| dir.clone()).map_err(VolumeError::refused("make", dir))
    }

    /// Lets `furnish` do the rest to the subvolume and sets its limit.
    fn furnished(
        &self,
        handle: &Handle,
        dir: PathBuf,
        limit: Option<Bytes>,
        furnish: impl FnOnce(&Path) -> io::Result<()>,
    ) -> Result<PathBuf, VolumeError> {
        let limited = furnish(&dir).and_then(|()| self.disk(&dir)).and_then(|disk| {
            let mut promises = self.promises();
            promises.count(handle, disk);
            match limit {
                _ if !promises.limited => note::write(&dir, limit),
                Some(limit) => {
                    btrfs::limit_exclusive(self.root.as_fd(), disk.group, Some(limit.get()))
                }
                None => {
                    self.join_pool(&mut promises, &disk)?;
                    self.fill_pool(&mut promises);
                    Ok(())
                }
            }
        });
        match limited {
            Ok(()) => Ok(dir),
            Err(source) => {
                // Half a disk has no limit yet: better none.
                let _ = self.destroy(CONTAINERS, handle.as_str());
                Err(VolumeError::Refused { doing: "make", path: dir, source })
            }
        }
    }

    /// With simple quota, a group for a snapshot and every subvolume that is made inside: those
    /// belong to the groups above that of the subvolume around them.
    fn own_group(&self, dir: &Path) -> io::Result<()> {
        if self.quota != QuotaKind::Simple {
            return Ok(());
        }
        let id = btrfs::subvolume_id(File::open(dir)?.as_fd())?;
        let group = btrfs::qgroup(1, id);
        btrfs::create_qgroup(self.root.as_fd(), group)?;
        btrfs::assign_qgroup(self.root.as_fd(), id, group, true)
    }

    /// Removes the container's subvolume with all it holds, also when it is gone already. The
    /// space comes back a little later, when the kernel's cleaner has been through it.
    pub fn remove_writable(&self, handle: &Handle) -> Result<(), VolumeError> {
        let path = self.writable_path(handle);
        match self.destroy(CONTAINERS, handle.as_str()) {
            // Somebody else removed it at the same time.
            Err(err) if err.kind() == io::ErrorKind::NotFound && !path.exists() => {}
            removed => removed.map_err(VolumeError::refused("remove", path))?,
        }
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
        let (_, disk) = self.made(handle)?;
        let used = self.counter(disk.group, "exclusive").map(Bytes::new);
        used.map_err(VolumeError::refused("measure", self.writable_path(handle)))
    }

    /// Where a container's disk is, made or not.
    pub fn writable_path(&self, handle: &Handle) -> PathBuf {
        self.dir.join(CONTAINERS).join(handle.as_str())
    }
}

/// Puts the two directories in.
fn furnish(dir: &Path, owner: IdMap) -> io::Result<()> {
    // The container's root must be able to pass through, but not to look around or write here.
    fs::set_permissions(dir, Permissions::from_mode(0o711))?;
    for (name, mode) in [("upper", 0o755), ("work", 0o700)] {
        let path = dir.join(name);
        DirBuilder::new().mode(0o700).create(&path)?;
        // Past the umask.
        fs::set_permissions(&path, Permissions::from_mode(mode))?;
        chown(&path, Some(owner.root()), Some(owner.root()))?;
    }
    Ok(())
}
