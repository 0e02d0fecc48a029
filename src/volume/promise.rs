//! What containers may still write: room that is theirs before they use it.
//!
//! Nothing tells us when a container fills its disk, and a writer that finds the store full fails
//! at once: there is no moment to make room in. So the whole limit of a disk is made sure of when
//! the disk is made, and whoever else asks for room afterwards gets none of it. Disks without a limit
//! share what is left: `pool.rs`.

use super::pool::AHEAD;
use super::store::{QGROUPS, Store, names};
use super::{VolumeError, note, plan};
use crate::sys::btrfs::{self, QuotaKind};
use crate::sys::file;
use crate::unit::{Bytes, Handle};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{MutexGuard, PoisonError};

/// `BTRFS_QGROUP_LIMIT_MAX_EXCL`: the bit of `limit_flags` that arms `max_exclusive`.
const MAX_EXCLUSIVE: u64 = 1 << 1;

/// How often the pool is drained for one request: what its disks have used moves meanwhile.
const DRAINS: u32 = 4;

/// One container's disk.
#[derive(Clone, Copy, Debug)]
pub(super) struct Promise {
    /// `None`: it takes from the pool.
    pub limit: Option<Bytes>,
    /// What counts it, once it is made.
    pub disk: Option<Disk>,
}

/// A disk that is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Disk {
    /// Its subvolume.
    pub id: u64,
    /// The quota group that counts it and holds its limit.
    pub group: u64,
    /// Inodes that are older came with the image: the transaction that made a snapshot, or 0.
    pub born: u64,
    /// Its group can belong to the pool's.
    pub can_pool: bool,
}

/// The disks of all containers, and what is promised to those that have no limit, together.
#[derive(Debug)]
pub(super) struct Promises {
    disks: BTreeMap<Handle, Promise>,
    /// The pool's limit as its group has it, in bytes.
    pub pool: u64,
    /// Quota groups hold the promises, and the pool. `false`: no group does, and there is no pool.
    pub limited: bool,
}

impl Promises {
    /// None yet.
    pub fn new(limited: bool) -> Promises {
        Promises { disks: BTreeMap::new(), pool: 0, limited }
    }

    /// Promises `handle` as much as `limit`; it has used nothing of it.
    pub fn give(&mut self, handle: &Handle, limit: Option<Bytes>) {
        self.disks.insert(handle.clone(), Promise { limit, disk: None });
    }

    /// What `handle` uses is counted there.
    pub fn count(&mut self, handle: &Handle, disk: Disk) {
        if let Some(promise) = self.disks.get_mut(handle) {
            promise.disk = Some(disk);
        }
    }

    /// What is known of a disk.
    pub fn of(&self, handle: &Handle) -> Option<Promise> {
        self.disks.get(handle).copied()
    }

    /// Another limit for a disk that is there.
    pub fn change(&mut self, handle: &Handle, limit: Option<Bytes>) {
        if let Some(promise) = self.disks.get_mut(handle) {
            promise.limit = limit;
        }
        self.forget_empty_pool();
    }

    /// Takes a promise back; there need not be one.
    pub fn take_back(&mut self, handle: &Handle) {
        self.disks.remove(handle);
        self.forget_empty_pool();
    }

    /// A pool that nobody is in has nothing to give to who comes next.
    pub fn forget_empty_pool(&mut self) {
        if !self.has_pool() {
            self.pool = 0;
        }
    }

    /// Whether anybody takes from the pool.
    pub fn has_pool(&self) -> bool {
        let pooled =
            |disk: &Promise| disk.limit.is_none() && disk.disk.is_some_and(|it| it.can_pool);
        self.limited && self.disks.values().any(pooled)
    }

    /// All limits together: as much as can be outstanding.
    fn most(&self) -> Bytes {
        let limits = self.disks.values().filter_map(|promise| promise.limit);
        limits.fold(Bytes::default(), Bytes::saturating_add)
    }
}

impl Store {
    /// Makes sure that `need` more bytes can be written, beside what containers may still write
    /// and a margin that btrfs itself needs; enlarges the loop file when they cannot. An error
    /// says which limit stands in the way. What does not fit even so may fit when the keeper has
    /// removed something.
    pub fn ensure_room(&self, need: Bytes) -> Result<(), VolumeError> {
        match self.try_room(need) {
            Err(err) if err.is_full() => self.after_removal(need, err, &|| self.try_room(need)),
            tried => tried,
        }
    }

    /// The same, and nothing is removed for it.
    pub fn try_room(&self, need: Bytes) -> Result<(), VolumeError> {
        let mut promises = self.promises();
        self.ensure(&mut promises, need)?;
        self.fill_pool(&mut promises);
        Ok(())
    }

    /// What can still be promised: free and not promised, and what the store may grow by.
    pub fn left(&self) -> Result<Bytes, VolumeError> {
        let promises = self.promises();
        Ok(Bytes::new(plan::left(&self.hard_room(&promises, Bytes::default())?)))
    }

    /// Writes down what is only in memory yet: what was removed counts as free only after that.
    /// May take long; holds up nobody.
    pub fn write_down(&self) -> Result<(), VolumeError> {
        btrfs::sync(self.root.as_fd()).map_err(VolumeError::refused("write down", &self.dir))?;
        self.sweep_retired();
        Ok(())
    }

    /// [`Store::ensure_room`] for who holds the promises already: those of limits stay as they are,
    /// the pool gives what it need not have, and the store grows for one at a time.
    pub(super) fn ensure(&self, promises: &mut Promises, need: Bytes) -> Result<(), VolumeError> {
        // The common case costs nothing for each container.
        let most = promises.most().get().saturating_add(self.pool_left(promises));
        let most = plan::Room { promised: most, ..self.measured(need)? };
        if plan::growth(&most) == plan::Growth::Enough {
            return Ok(());
        }
        self.drain_pool(promises, need, AHEAD)?;
        for _ in 0..DRAINS {
            match self.make_fit(promises, need) {
                Err(err) if err.is_full() && promises.has_pool() => {
                    self.drain_pool(promises, need, 0)?;
                }
                done => return done,
            }
        }
        self.make_fit(promises, need)
    }

    /// Grows the store until `need` fits beside all promises.
    pub(super) fn make_fit(&self, promises: &Promises, need: Bytes) -> Result<(), VolumeError> {
        match self.loop_file() {
            Some(file) => file.make_room(self.root.as_fd(), &|| self.room(promises, need)),
            None => {
                let room = self.room(promises, need)?;
                match plan::growth(&room) {
                    plan::Growth::Enough => Ok(()),
                    _ => {
                        Err(VolumeError::PartitionFull { dir: self.dir.clone(), room: room.into() })
                    }
                }
            }
        }
    }

    /// The promises, as they stand until the guard is let go.
    pub(super) fn promises(&self) -> MutexGuard<'_, Promises> {
        self.promises.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Finds the promises of the daemon before us: in the quota groups themselves, or where they
    /// were written down because no group holds them. With limits, disks that were made without
    /// take from the pool, whatever they asked for: nobody would stop them at it.
    pub(super) fn recall_promises(&self) -> Result<(), VolumeError> {
        let mut promises = self.promises();
        match promises.limited {
            true => promises.pool = self.pool_limit(),
            false => self.lift_pool().map_err(VolumeError::refused("lift limits in", &self.dir))?,
        }
        for name in names(&self.dir.join(super::store::CONTAINERS))? {
            let Ok(handle) = name.parse::<Handle>() else { continue };
            if let Err(err) = self.recall_one(&handle, &mut promises) {
                // A broken one must not keep the daemon from the others. Its limit, if it has one, is
                // in the kernel; it is gone when the container is.
                const CURE: &str = "what it was promised is not set aside until it is gone";
                crate::error!("volume.disk_unread", handle = handle, err = err, cure = CURE);
            }
        }
        // Its group may have kept the limit that it had with the last disk in it.
        promises.forget_empty_pool();
        self.fill_pool(&mut promises);
        Ok(())
    }

    /// The promise of one disk.
    fn recall_one(&self, handle: &Handle, promises: &mut Promises) -> io::Result<()> {
        let path = self.writable_path(handle);
        // What is no subvolume is half-made, by nobody we know, and removed like the others.
        if fs::symlink_metadata(&path)?.ino() != btrfs::ROOT_INODE {
            return Ok(());
        }
        let disk = self.disk(&path)?;
        let mut limit = self.limit(disk.group)?;
        if limit.is_none() && !promises.limited {
            limit = note::read(&path)?;
        }
        promises.give(handle, limit);
        promises.count(handle, disk);
        if limit.is_none() {
            self.join_pool(promises, &disk)?;
        }
        Ok(())
    }

    /// How the disk at `path` is counted.
    pub(super) fn disk(&self, path: &Path) -> io::Result<Disk> {
        let dir = File::open(path)?;
        let id = btrfs::subvolume_id(dir.as_fd())?;
        let origin = btrfs::origin(dir.as_fd())?;
        let own = btrfs::qgroup(1, id);
        let group = if self.has_group(own) { own } else { id };
        Ok(Disk {
            id,
            group,
            born: if origin.snapshot { origin.transaction } else { 0 },
            can_pool: !origin.snapshot || self.quota == QuotaKind::Simple,
        })
    }

    /// Everything that decides about the store's size.
    pub(super) fn room(&self, promises: &Promises, need: Bytes) -> Result<plan::Room, VolumeError> {
        let hard = self.hard_room(promises, need)?;
        let promised = hard.promised.saturating_add(self.pool_left(promises));
        Ok(plan::Room { promised, ..hard })
    }

    /// The same but for the pool.
    pub(super) fn hard_room(
        &self,
        promises: &Promises,
        need: Bytes,
    ) -> Result<plan::Room, VolumeError> {
        let promised = self.outstanding(promises).get();
        Ok(plan::Room { promised, ..self.measured(need)? })
    }

    /// The same without promises.
    fn measured(&self, need: Bytes) -> Result<plan::Room, VolumeError> {
        let file = self.loop_file().map(|file| file.size()).transpose()?.unwrap_or_default();
        let refused = || VolumeError::refused("measure", &self.dir);
        let size = file::space(self.root.as_fd()).map_err(refused())?.total_bytes;
        let of = |kind: &str, counter: &str| self.counters.get(kind, counter);
        // What is written but not yet on the device is reserved; the rest of a part is free.
        let free = |kind: &str| {
            let taken = ["bytes_used", "bytes_reserved", "bytes_may_use", "bytes_readonly"];
            let taken = taken.into_iter().map(|counter| of(kind, counter));
            of(kind, "total_bytes").saturating_sub(taken.fold(0, u64::saturating_add))
        };
        let given = ["data", "metadata", "system", "mixed"].map(|kind| of(kind, "disk_total"));
        Ok(plan::Room {
            need: need.get(),
            promised: 0,
            data: free("data").saturating_add(free("mixed")),
            trees: free("metadata").saturating_add(free("mixed")),
            unallocated: size.saturating_sub(given.into_iter().fold(0, u64::saturating_add)),
            file,
        })
    }

    /// What containers may still write. What they have written but the kernel has not yet counted
    /// is in it twice, for at most half a minute: that errs on the safe side.
    fn outstanding(&self, promises: &Promises) -> Bytes {
        let rest = promises.disks.values().filter_map(|promise| {
            let used = promise.disk.and_then(|disk| self.counter(disk.group, "exclusive").ok());
            Some(promise.limit?.saturating_sub(Bytes::new(used.unwrap_or(0))))
        });
        rest.fold(Bytes::default(), Bytes::saturating_add)
    }

    /// The limit of a quota group, `None` when it has none.
    pub(super) fn limit(&self, group: u64) -> io::Result<Option<Bytes>> {
        let flags = match self.counter(group, "limit_flags") {
            // Half a disk, made by a daemon that died before it had a group.
            Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        if flags & MAX_EXCLUSIVE == 0 {
            return Ok(None);
        }
        self.counter(group, "max_exclusive").map(|limit| Some(Bytes::new(limit)))
    }

    /// Whether there is such a quota group.
    pub(super) fn has_group(&self, group: u64) -> bool {
        self.sysfs.join(QGROUPS).join(group_name(group)).exists()
    }

    /// One number of a quota group.
    pub(super) fn counter(&self, group: u64, name: &str) -> io::Result<u64> {
        let path = self.sysfs.join(QGROUPS).join(group_name(group)).join(name);
        let text = fs::read_to_string(path)?;
        let text = text.trim();
        let number = match text.strip_prefix("0x") {
            Some(hex) => u64::from_str_radix(hex, 16),
            None => text.parse(),
        };
        number.map_err(io::Error::other)
    }
}

/// The name of a quota group in sysfs.
fn group_name(group: u64) -> String {
    format!("{}_{}", group >> 48, group & ((1 << 48) - 1))
}
