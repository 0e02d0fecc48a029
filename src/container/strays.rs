//! What is on the box and in no entry of the depot, when the daemon starts.

use super::error::Cause;
use super::host::{Host, end_group};
use crate::log::chain;
use crate::unit::Handle;
use std::collections::BTreeSet;

/// For who finds a container that lives and that no record speaks of.
const STRAY_CURE: &str = "it is another daemon's with this `parent` of [cgroup], or its state \
                          directory is gone: name another parent, or kill this pid and start again";

impl Host {
    /// Removes what no entry of the depot speaks of. A power cut may bring back a disk whose
    /// removal was not yet written down, when the entry is gone for good; an entry may have been
    /// unreadable. Nothing is being made yet, so whatever has no entry is not needed. What lives on
    /// a disk of our store is ours, and ends: nobody could reach it. What lives on another may be
    /// another daemon's, with a wrong tag or parent: that is left alone, and told.
    pub(super) fn sweep_strays(&self) {
        let swept = || -> Result<(), Cause> {
            let known: BTreeSet<Handle> = self.depot.list()?.into_iter().collect();
            let is_stray = |handle: &Handle| !known.contains(handle);
            let peas = known.iter().map(|handle| self.depot.peas(handle));
            let peas = peas.collect::<Result<Vec<_>, _>>()?.concat();
            let is_peas = |disk: &Handle| peas.iter().any(|(known, _)| known == disk);
            let writables = self.store.writables()?.into_iter();
            for handle in writables.filter(|disk| is_stray(disk) && !is_peas(disk)) {
                crate::warn!("container.stray_disk", handle = handle);
                end_group(&self.cgroups.find(&handle))?;
                self.store.remove_writable(&handle)?;
            }
            for handle in self.cgroups.list()?.into_iter().filter(is_stray) {
                let group = self.cgroups.find(&handle);
                match group.pids()?.first() {
                    Some(pid) => {
                        let cure = STRAY_CURE;
                        crate::error!("container.stray", handle = handle, pid = pid, cure = cure);
                    }
                    None => {
                        crate::warn!("container.stray_cgroup", handle = handle);
                        group.remove()?;
                    }
                }
            }
            let mut slots = BTreeSet::new();
            for handle in &known {
                let entry = self.depot.read(handle);
                if entry.is_err() {
                    self.hold(handle);
                }
                slots.extend(match entry {
                    Ok(Some(entry)) => Some(entry.slot),
                    _ => self.depot.glimpse(handle).slot,
                });
            }
            // Made ahead by a daemon that did not come to remove them; their processes have ended, or
            // do at this moment. A directory that could not be removed may name a slot that a
            // container has had since then: the links are that one's.
            let mut old = BTreeSet::new();
            for slot in self.depot.reserve()? {
                match !slots.contains(&slot) && self.reserve.take_over(slot) {
                    true => drop(old.insert(slot)),
                    false => self.depot.forget_reserve(slot)?,
                }
            }
            for slot in self.cgroups.ahead()?.into_iter().filter(|slot| !old.contains(slot)) {
                // One that lives is another daemon's, with the same parent: the rest is swept all the same.
                if let Err(err) = self.cgroups.remove_ahead(slot) {
                    let cure = STRAY_CURE;
                    crate::error!("reserve.stray", slot = slot, err = chain(&err), cure = cure);
                }
            }
            for slot in self.net.slots_on_host()? {
                if slots.contains(&slot) || old.contains(&slot) {
                    continue;
                }
                let lives = self.net.is_connected(slot)?;
                crate::warn!("container.stray_network", slot = slot, lives = lives);
                match lives {
                    // Not given away; swept at the first start that finds it dead.
                    true => self.claims().avoid(slot),
                    false => self.net.release(slot)?,
                }
            }
            Ok(())
        };
        if let Err(err) = swept() {
            crate::warn!("container.strays_left", err = chain(err.as_ref()));
        }
    }
}
