//! What containers may still write: room that is theirs before they use it.
//!
//! Nothing tells us when a container fills its disk, and a writer that finds the store full fails
//! at once: there is no moment to make room in. So the whole limit of a disk is made sure of when
//! the disk is made, and whoever else asks for room afterwards gets none of it.

use super::store::{QGROUPS, Store, names};
use super::{VolumeError, plan};
use crate::sys::{btrfs, file};
use crate::unit::{Bytes, Handle};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::sync::{MutexGuard, PoisonError};

/// `BTRFS_QGROUP_LIMIT_MAX_EXCL`: the bit of `limit_flags` that arms `max_exclusive`.
const MAX_EXCLUSIVE: u64 = 1 << 1;

/// One container's limit.
#[derive(Clone, Copy, Debug)]
struct Promise {
    limit: Bytes,
    /// Its subvolume, once that is made.
    id: Option<u64>,
}

/// The limits of all containers that have one.
#[derive(Debug, Default)]
pub(super) struct Promises(BTreeMap<Handle, Promise>);

impl Promises {
    /// Promises `handle` as much as `limit`; it has used nothing of it.
    pub fn give(&mut self, handle: &Handle, limit: Bytes) {
        self.0.insert(handle.clone(), Promise { limit, id: None });
    }

    /// What `handle` uses of its promise is counted by this subvolume's quota group.
    pub fn count(&mut self, handle: &Handle, id: u64) {
        if let Some(promise) = self.0.get_mut(handle) {
            promise.id = Some(id);
        }
    }

    /// Takes a promise back; there need not be one.
    pub fn take_back(&mut self, handle: &Handle) {
        self.0.remove(handle);
    }

    /// All limits together: as much as can be outstanding.
    fn most(&self) -> Bytes {
        let limits = self.0.values().map(|promise| promise.limit);
        limits.fold(Bytes::default(), Bytes::saturating_add)
    }
}

impl Store {
    /// Makes sure that `need` more bytes can be written, beside what containers may still write
    /// and a margin that btrfs itself needs; enlarges the loop file when they cannot. An error
    /// says which limit stands in the way.
    pub fn ensure_room(&self, need: Bytes) -> Result<(), VolumeError> {
        self.ensure(&self.promises(), need)
    }

    /// What can still be promised: free and not promised, and what the store may grow by.
    pub fn left(&self) -> Result<Bytes, VolumeError> {
        let promises = self.promises();
        Ok(Bytes::new(plan::left(&self.room(&promises, Bytes::default())?)))
    }

    /// Writes down what is only in memory yet: what was removed counts as free only after that.
    /// May take long; holds up nobody.
    pub fn write_down(&self) -> Result<(), VolumeError> {
        btrfs::sync(self.root.as_fd()).map_err(VolumeError::refused("write down", &self.dir))
    }

    /// Makes the loop file smaller when far more of it is free than is promised, as after a
    /// staging: the disk below gets the room back. Data is moved only when btrfs takes the tail at
    /// this very moment. `true`: it is smaller now.
    pub fn give_back(&self) -> Result<bool, VolumeError> {
        let Some(file) = self.loop_file() else { return Ok(false) };
        let promises = self.promises();
        let room = self.room(&promises, Bytes::default())?;
        let used_end = btrfs::allocated_end(self.root.as_fd())
            .map_err(VolumeError::refused("measure", &self.dir))?;
        let Some(len) = plan::shrunk(&room, used_end) else { return Ok(false) };
        let still_fits = || {
            let room = self.room(&promises, Bytes::default())?;
            Ok(plan::growth(&room) == plan::Growth::Enough)
        };
        file.shrink(self.root.as_fd(), len, &still_fits)
    }

    /// [`Store::ensure_room`] for who holds the promises already: they stay as they are, and the
    /// store grows for one at a time.
    pub(super) fn ensure(&self, promises: &Promises, need: Bytes) -> Result<(), VolumeError> {
        // The common case costs nothing for each container.
        let most = plan::Room { promised: promises.most().get(), ..self.measured(need)? };
        if plan::growth(&most) == plan::Growth::Enough {
            return Ok(());
        }
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

    /// Finds the promises of the daemon before us, in the quota groups themselves.
    pub(super) fn recall_promises(&self) -> Result<(), VolumeError> {
        let mut promises = self.promises();
        for name in names(&self.dir.join(super::store::CONTAINERS))? {
            let Ok(handle) = name.parse::<Handle>() else { continue };
            let path = self.writable_path(&handle);
            let refused = || VolumeError::refused("inspect", &path);
            let id = File::open(&path)
                .and_then(|dir| btrfs::subvolume_id(dir.as_fd()))
                .map_err(refused())?;
            if let Some(limit) = self.limit(id).map_err(refused())? {
                promises.give(&handle, limit);
                promises.count(&handle, id);
            }
        }
        Ok(())
    }

    /// Everything that decides about the store's size.
    fn room(&self, promises: &Promises, need: Bytes) -> Result<plan::Room, VolumeError> {
        let promised = self.outstanding(promises).get();
        Ok(plan::Room { promised, ..self.measured(need)? })
    }

    /// The same without promises.
    fn measured(&self, need: Bytes) -> Result<plan::Room, VolumeError> {
        let file = self.loop_file().map(|file| file.size()).transpose()?.unwrap_or_default();
        let refused = || VolumeError::refused("measure", &self.dir);
        let size = file::space(self.root.as_fd()).map_err(refused())?.total_bytes;
        let of = |kind: &str, counter: &str| {
            let text = fs::read_to_string(self.sysfs.join("allocation").join(kind).join(counter));
            text.ok().and_then(|text| text.trim().parse::<u64>().ok()).unwrap_or(0)
        };
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
        let rest = promises.0.values().map(|promise| {
            let used = promise.id.and_then(|id| self.counter(id, "exclusive").ok());
            promise.limit.saturating_sub(Bytes::new(used.unwrap_or(0)))
        });
        rest.fold(Bytes::default(), Bytes::saturating_add)
    }

    /// The limit of a subvolume, `None` when it has none.
    fn limit(&self, id: u64) -> io::Result<Option<Bytes>> {
        let flags = match self.counter(id, "limit_flags") {
            // Half a disk, made by a daemon that died before it had a group.
            Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        if flags & MAX_EXCLUSIVE == 0 {
            return Ok(None);
        }
        self.counter(id, "max_exclusive").map(|limit| Some(Bytes::new(limit)))
    }

    /// One number of a subvolume's quota group.
    pub(super) fn counter(&self, id: u64, name: &str) -> io::Result<u64> {
        let text = fs::read_to_string(self.sysfs.join(QGROUPS).join(format!("0_{id}/{name}")))?;
        let text = text.trim();
        let number = match text.strip_prefix("0x") {
            Some(hex) => u64::from_str_radix(hex, 16),
            None => text.parse(),
        };
        number.map_err(io::Error::other)
    }
}
