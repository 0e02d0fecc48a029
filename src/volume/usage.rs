//! What a container's disk holds, and other limits for it.

use super::promise::{Disk, Promise, Promises};
use super::store::Store;
use super::{VolumeError, note};
use crate::sys::btrfs;
use crate::unit::{Bytes, Handle};
use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsFd;
use std::sync::{MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// What is older is counted again when somebody asks.
const FRESH: Duration = Duration::from_secs(10);

/// The part of a container's disk that is its own: what it has written and still keeps, without the
/// image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes, with those of the file system's trees.
    pub bytes: Bytes,
    /// Files, directories and links; with a union, up to five of its own.
    pub inodes: u64,
}

/// When the store was last written down, and numbers of inodes since, by subvolume.
#[derive(Debug, Default)]
pub(super) struct Counted {
    at: Option<Instant>,
    inodes: BTreeMap<u64, u64>,
}

impl Store {
    /// What the container's disk holds, as it was at most 10 s ago. The kernel counts what it
    /// writes to the device, so the whole store is written down first when that was not done in
    /// this time, whoever asked then; that may take as long as the disk needs. Inodes are counted
    /// once in this time for each container, by what its tree has that the image has not: 1 ms for
    /// some thousand files; far more than 100 000 small ones may be told as fewer.
    pub fn usage(&self, handle: &Handle) -> Result<Usage, VolumeError> {
        let (_, disk) = self.made(handle)?;
        let dir = self.writable_path(handle);
        let refused = || VolumeError::refused("measure", &dir);
        let mut counted = self.fresh().map_err(refused())?;
        let inodes = match counted.inodes.get(&disk.id) {
            Some(inodes) => *inodes,
            None => {
                let inodes = btrfs::count_inodes(self.root.as_fd(), disk.id, disk.born);
                let inodes = inodes.map_err(refused())?.saturating_sub(disk.furniture());
                counted.inodes.insert(disk.id, inodes);
                inodes
            }
        };
        drop(counted);
        self.keep_ahead();
        let bytes = self.counter(disk.group, "exclusive").map_err(refused())?;
        Ok(Usage { bytes: Bytes::new(bytes), inodes })
    }

    /// What counts against the container's limit at this moment: what it has written, and what it was
    /// granted for what is not written to the device yet. Of what was removed and not written down,
    /// too much may be told.
    pub fn claimed(&self, handle: &Handle) -> Result<Bytes, VolumeError> {
        let (_, disk) = self.made(handle)?;
        let refused = || VolumeError::refused("measure", self.writable_path(handle));
        let written = self.counter(disk.group, "exclusive").map_err(refused())?;
        // Linux 5.9 and later show it.
        let granted = self.counter(disk.group, "rsv_data").unwrap_or(0);
        Ok(Bytes::new(written.saturating_add(granted)))
    }

    /// Gives a container's disk another limit, or none, while it is in use. Its promise becomes the
    /// new limit at once; on an error the old one stays. Below what is used, nothing more can be
    /// written until enough was removed. In a store without limits it becomes a promise alone.
    pub fn set_limit(&self, handle: &Handle, limit: Option<Bytes>) -> Result<(), VolumeError> {
        let mut promises = self.promises();
        let (old, disk) = made(handle, promises.of(handle))?;
        let dir = self.writable_path(handle);
        let refused = || VolumeError::refused("limit", &dir);
        let used = Bytes::new(self.counter(disk.group, "exclusive").map_err(refused())?);
        let rest =
            |limit: Option<Bytes>| limit.map_or(Bytes::default(), |it| it.saturating_sub(used));
        self.ensure(&mut promises, rest(limit).saturating_sub(rest(old)))?;
        let changed = match (old, limit) {
            _ if !promises.limited => self.promise_alone(handle, &disk, limit),
            (None, None) => Ok(()),
            (Some(_), Some(limit)) => self.arm(&disk, Some(limit)),
            (None, Some(limit)) => self.limit_one_of_pool(&mut promises, handle, &disk, limit),
            (Some(_), None) => self.lift_into_pool(&mut promises, handle, &disk),
        };
        match changed {
            Ok(()) => {
                promises.change(handle, limit);
                if promises.limited {
                    // Of a time without limits; out of date now, and otherwise without effect.
                    let _ = note::write(&dir, None);
                }
            }
            Err(_) => promises.change(handle, old),
        }
        // After an undo too: what it left and joined again has nothing to write yet.
        self.fill_pool(&mut promises);
        changed.map_err(refused())
    }

    /// Sets the limit of a disk's group.
    fn arm(&self, disk: &Disk, limit: Option<Bytes>) -> io::Result<()> {
        btrfs::limit_exclusive(self.root.as_fd(), disk.group, limit.map(Bytes::get))
    }

    /// Writes the promise down, and lifts what limit there is from when the store had limits.
    fn promise_alone(
        &self,
        handle: &Handle,
        disk: &Disk,
        promised: Option<Bytes>,
    ) -> io::Result<()> {
        // First: who has reached the limit cannot write anything down.
        let armed = self.limit(disk.group)?;
        if armed.is_some() {
            self.arm(disk, None)?;
        }
        let written = note::write(&self.writable_path(handle), promised);
        if written.is_err() && armed.is_some() {
            self.tell_undo(handle, self.arm(disk, armed));
        }
        written
    }

    /// Gives a disk of the pool a limit of its own. On an error it is in the pool as before.
    fn limit_one_of_pool(
        &self,
        promises: &mut Promises,
        handle: &Handle,
        disk: &Disk,
        limit: Bytes,
    ) -> io::Result<()> {
        self.arm(disk, Some(limit))?;
        promises.change(handle, Some(limit));
        let left = self.leave_pool(promises, disk);
        if left.is_err() {
            promises.change(handle, None);
            // In the pool before its own limit goes; without the pool it keeps that.
            let back = self.join_pool(promises, disk).and_then(|()| self.arm(disk, None));
            self.tell_undo(handle, back);
        }
        left
    }

    /// Takes a disk's limit away. On an error it has it as before, and is not in the pool.
    fn lift_into_pool(
        &self,
        promises: &mut Promises,
        handle: &Handle,
        disk: &Disk,
    ) -> io::Result<()> {
        let old = promises.of(handle).and_then(|promise| promise.limit);
        promises.change(handle, None);
        // In the pool before its own limit goes.
        let lifted = self.join_pool(promises, disk).and_then(|()| self.arm(disk, None));
        if lifted.is_err() {
            promises.change(handle, old);
            self.tell_undo(handle, self.leave_pool(promises, disk));
        }
        lifted
    }

    /// A change that failed and could not be undone either.
    fn tell_undo(&self, handle: &Handle, undone: io::Result<()>) {
        if let Err(err) = undone {
            crate::warn!("volume.limit_unclear", handle = handle, err = err);
        }
    }

    /// Promise and disk of a container.
    pub(super) fn made(&self, handle: &Handle) -> Result<(Option<Bytes>, Disk), VolumeError> {
        made(handle, self.promises().of(handle))
    }

    /// Writes the store down unless that was done just now; who comes meanwhile waits for it.
    fn fresh(&self) -> io::Result<MutexGuard<'_, Counted>> {
        let mut counted = self.counted();
        if counted.at.is_none_or(|at| at.elapsed() >= FRESH) {
            // Before: what is written from here on may not be in it.
            let at = Instant::now();
            btrfs::flush(self.root.as_fd())?;
            *counted = Counted { at: Some(at), inodes: BTreeMap::new() };
        }
        Ok(counted)
    }

    fn counted(&self) -> MutexGuard<'_, Counted> {
        self.counted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Disk {
    /// Inodes that every disk begins with: `upper` and `work`.
    fn furniture(&self) -> u64 {
        if self.born == 0 { 2 } else { 0 }
    }
}

/// A disk that is whole.
fn made(handle: &Handle, promise: Option<Promise>) -> Result<(Option<Bytes>, Disk), VolumeError> {
    let absent = || VolumeError::Absent { handle: handle.clone() };
    let promise = promise.ok_or_else(absent)?;
    Ok((promise.limit, promise.disk.ok_or_else(absent)?))
}
