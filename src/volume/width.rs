//! Room that nobody was promised: the loop file gets more than it needs while much is written, and gives
//! back what is too much when it is quiet.

use super::pool::AHEAD;
use super::store::Store;
use super::{VolumeError, plan};
use crate::sys::btrfs;
use crate::unit::Bytes;
use std::os::fd::AsFd;
use std::sync::atomic::Ordering;

impl Store {
    /// Lets the loop file grow so that whoever writes much, in many files, waits less for the disk: up
    /// to `unallocated` bytes that btrfs has not given to anything. Never all that there is, and
    /// [`Store::give_back`] takes it back. A store that does not grow stays as it is.
    pub fn widen(&self, unallocated: Bytes) -> Result<(), VolumeError> {
        let Some(file) = self.loop_file() else { return Ok(()) };
        let promises = self.promises();
        let room = self.hard_room(&promises, Bytes::default())?;
        match plan::widened(&room, unallocated.get()) {
            Some(len) => {
                self.widened.store(true, Ordering::Release);
                file.widen(self.root.as_fd(), len)
            }
            None => Ok(()),
        }
    }

    /// Whether it was made wider since this was last asked: [`Store::give_back`] is to be called some time.
    pub fn was_widened(&self) -> bool {
        self.widened.swap(false, Ordering::AcqRel)
    }

    /// Makes the loop file smaller when far more of it is free than is promised, as after a
    /// staging: the disk below gets the room back. Data is moved only when btrfs takes the tail at
    /// this very moment. `true`: it is smaller now.
    pub fn give_back(&self) -> Result<bool, VolumeError> {
        let Some(file) = self.loop_file() else { return Ok(false) };
        let mut promises = self.promises();
        self.drain_pool(&mut promises, Bytes::default(), AHEAD)?;
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
}
