//! Removing subvolumes, and what is left of them.

use super::pool::POOL;
use super::store::{QGROUPS, Store, names};
use crate::sys::btrfs::{self, QuotaKind};
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::sync::PoisonError;

/// Subvolumes inside one subvolume that are removed with it; more than any app makes by mistake.
const NESTED_MAX: usize = 100_000;

impl Store {
    /// Removes quota groups whose subvolume is gone. Simple quota does that by itself for those of
    /// level 0; those of level 1 are ours, of snapshots.
    pub(super) fn sweep_qgroups(&self) {
        for name in names(&self.sysfs.join(QGROUPS)).unwrap_or_default() {
            let number = |prefix: &str| name.strip_prefix(prefix)?.parse::<u64>().ok();
            // Ours and anybody's: a group 0/id without a subvolume counts nothing. Ids below 256
            // are the kernel's own trees. Above that, somebody else's groups may mean anything.
            let (id, group) = match (number("0_"), number("1_")) {
                (Some(id), _) if self.quota == QuotaKind::Full => (id, id),
                (_, Some(id)) if self.loop_file().is_some() => (id, btrfs::qgroup(1, id)),
                _ => continue,
            };
            let gone = id >= btrfs::ROOT_INODE
                && matches!(btrfs::subvolume_exists(self.root.as_fd(), id), Ok(false));
            if gone {
                let _ = btrfs::remove_qgroup(self.root.as_fd(), group);
            }
        }
    }

    /// Removes the subvolume (or, from a half-made past, plain directory or file) `name` of our
    /// directory `place`. Already gone is success.
    pub(super) fn destroy(&self, place: &str, name: &str) -> io::Result<()> {
        let place_path = self.dir.join(place);
        let path = place_path.join(name);
        let meta = match fs::symlink_metadata(&path) {
            Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other?,
        };
        if !meta.is_dir() {
            return fs::remove_file(&path);
        }
        if meta.ino() != btrfs::ROOT_INODE {
            return fs::remove_dir_all(&path);
        }
        let place = File::open(&place_path)?;
        let inside = File::open(&path)?;
        let id = btrfs::subvolume_id(inside.as_fd())?;
        drop(inside);
        let gone = match btrfs::destroy_subvolume(place.as_fd(), name) {
            Err(err) if err.kind() == io::ErrorKind::DirectoryNotEmpty => {
                self.lift(id);
                remove_nested(self.root.as_fd(), id)?;
                btrfs::destroy_subvolume(place.as_fd(), name)
            }
            other => other,
        };
        match gone {
            Err(err) if err.kind() != io::ErrorKind::NotFound => return Err(err),
            _ => {}
        }
        // Not before its members are gone, which simple quota sees to when the space is back.
        self.retire_group(id);
        if self.quota == QuotaKind::Full {
            // A kernel that refuses this (EBUSY, until the space is back) removes the group itself.
            let _ = btrfs::remove_qgroup(self.root.as_fd(), id);
        }
        Ok(())
    }
}

impl Store {
    /// Frees a subvolume of all limits: to take something out of it needs some room in it.
    fn lift(&self, id: u64) {
        for group in [id, btrfs::qgroup(1, id)] {
            // The group may not be there, or in no pool.
            let _ = btrfs::limit_exclusive(self.root.as_fd(), group, None);
            let _ = btrfs::assign_qgroup(self.root.as_fd(), group, POOL, false);
        }
    }

    /// Removes the group 1/`id` of a snapshot that is gone, now or later.
    fn retire_group(&self, id: u64) {
        let group = btrfs::qgroup(1, id);
        if self.has_group(group) {
            self.retired.lock().unwrap_or_else(PoisonError::into_inner).insert(group);
        }
        self.sweep_retired();
    }

    /// Removes the groups of snapshots that are gone and cleaned up.
    pub(super) fn sweep_retired(&self) {
        let mut retired = self.retired.lock().unwrap_or_else(PoisonError::into_inner);
        retired.retain(|group| {
            btrfs::remove_qgroup(self.root.as_fd(), *group).is_err() && self.has_group(*group)
        });
    }
}

/// Removes all subvolumes inside subvolume `id`, deepest first.
fn remove_nested(any: BorrowedFd<'_>, id: u64) -> io::Result<()> {
    let mut chain = vec![id];
    for _ in 0..NESTED_MAX {
        let Some(&last) = chain.last() else { return Ok(()) };
        if let Some(&child) = btrfs::children(any, last)?.first() {
            chain.push(child);
            continue;
        }
        chain.pop();
        if chain.is_empty() {
            return Ok(());
        }
        btrfs::destroy_subvolume_by_id(any, last)?;
    }
    Err(io::Error::other("too many subvolumes inside"))
}
