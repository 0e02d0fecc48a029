//! What containers without a limit may write, together: nobody else's, and not for ever.
//!
//! The groups of their disks belong to one quota group, whose limit is what they have used and what
//! is spare in the store. So they find their quota exceeded before they write into what others were
//! promised. When somebody is promised more, the pool's limit goes down first; when there is more
//! room again, up. Up to [`AHEAD`] the store's file grows for the pool before anybody writes: a
//! writer that finds the end of it cannot wait.

use super::promise::{Disk, Promises};
use super::store::Store;
use super::{VolumeError, plan};
use crate::sys::btrfs;
use crate::unit::Bytes;
use std::io;
use std::os::fd::AsFd;

/// What the pool finds ready, in bytes, if the store may grow that far: or half of what is left.
pub(super) const AHEAD: u64 = 1 << 30;

/// The pool's quota group, above those of disks: `terra` in ASCII, as nobody else would call it.
pub(super) const POOL: u64 = btrfs::qgroup(2, 0x74_6572_7261);

impl Store {
    /// Gives the pool what is spare, and makes some ahead of it. To be called now and then while
    /// containers without a limit write; costs a look while there are none, and then says `false`.
    pub fn keep_ahead(&self) -> bool {
        let mut promises = self.promises();
        self.fill_pool(&mut promises);
        promises.has_pool()
    }

    /// Lets the pool's group count a disk. It has no more to write than before.
    pub(super) fn join_pool(&self, promises: &mut Promises, disk: &Disk) -> io::Result<()> {
        if !disk.can_pool || !promises.limited {
            return Ok(());
        }
        let left = promises.pool.saturating_sub(self.pool_used());
        match self.assign_to_pool(disk) {
            // As after every start of the daemon: nothing changes, and a limit is dear to write.
            Err(err) if err.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
            // There is no pool yet, or the reason is told once more.
            Err(_) => {
                match btrfs::create_qgroup(self.root.as_fd(), POOL) {
                    Err(err) if err.kind() == io::ErrorKind::AlreadyExists => {}
                    other => other?,
                }
                self.assign_to_pool(disk)?;
            }
            Ok(()) => {}
        }
        self.limit_pool(promises, self.pool_used(), left)
    }

    fn assign_to_pool(&self, disk: &Disk) -> io::Result<()> {
        btrfs::assign_qgroup(self.root.as_fd(), disk.group, POOL, true)
    }

    /// The opposite.
    pub(super) fn leave_pool(&self, promises: &mut Promises, disk: &Disk) -> io::Result<()> {
        if !disk.can_pool {
            return Ok(());
        }
        let left = promises.pool.saturating_sub(self.pool_used());
        match btrfs::assign_qgroup(self.root.as_fd(), disk.group, POOL, false) {
            Err(err) if err.kind() == io::ErrorKind::NotFound => {}
            other => other?,
        }
        self.limit_pool(promises, self.pool_used(), left)
    }

    /// What those in the pool may still write, in bytes.
    pub(super) fn pool_left(&self, promises: &Promises) -> u64 {
        if promises.has_pool() { promises.pool.saturating_sub(self.pool_used()) } else { 0 }
    }

    /// Takes from the pool what is not spare once `need` more fits, but leaves it `floor`.
    pub(super) fn drain_pool(
        &self,
        promises: &mut Promises,
        need: Bytes,
        floor: u64,
    ) -> Result<(), VolumeError> {
        if !promises.has_pool() {
            return Ok(());
        }
        let (used, left) = (self.pool_used(), self.pool_left(promises));
        let spare = plan::spare(&self.hard_room(promises, need)?).max(floor);
        if spare >= left {
            return Ok(());
        }
        self.limit_pool(promises, used, spare)
            .map_err(VolumeError::refused("limit disks in", &self.dir))
    }

    /// Gives the pool what is spare. That it cannot be made more is told when it is needed.
    pub(super) fn fill_pool(&self, promises: &mut Promises) {
        if !promises.has_pool() {
            return;
        }
        let nothing = Bytes::default();
        // What is used comes first: what is written after it is then not spare any more.
        let spare = |promises: &Promises| {
            let used = self.pool_used();
            (used, self.hard_room(promises, nothing).map_or(0, |room| plan::spare(&room)))
        };
        let (mut used, mut found) = spare(promises);
        if found < AHEAD && self.loop_file().is_some() {
            let left = self.hard_room(promises, nothing).map_or(0, |room| plan::left(&room));
            let wish = AHEAD.min(left / 2);
            // The pool has part of it.
            let more = wish.saturating_sub(self.pool_left(promises));
            if found < wish && self.make_fit(promises, Bytes::new(more)).is_ok() {
                (used, found) = spare(promises);
            }
        }
        if used.saturating_add(found) > promises.pool
            && let Err(err) = self.limit_pool(promises, used, found)
        {
            crate::warn!("volume.pool_kept", dir = self.dir.display(), err = err);
        }
    }

    /// Lets the pool, which has written `used` bytes, write `left` more.
    fn limit_pool(&self, promises: &mut Promises, used: u64, left: u64) -> io::Result<()> {
        let limit = used.saturating_add(left);
        btrfs::limit_exclusive(self.root.as_fd(), POOL, Some(limit))?;
        promises.pool = limit;
        Ok(())
    }

    /// Lets those who are in the pool since there were limits write what they like.
    pub(super) fn lift_pool(&self) -> io::Result<()> {
        match btrfs::limit_exclusive(self.root.as_fd(), POOL, None) {
            // Nobody ever was in it.
            Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    /// The pool's limit as the daemon before us has left it.
    pub(super) fn pool_limit(&self) -> u64 {
        self.limit(POOL).ok().flatten().map_or(0, Bytes::get)
    }

    fn pool_used(&self) -> u64 {
        self.counter(POOL, "exclusive").unwrap_or(0)
    }
}
