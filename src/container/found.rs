//! Containers that are found in the depot when the daemon starts: what is known of them, and the way
//! back to those that live.

use super::client::Container;
use super::depot::{Entry, Glimpse};
use super::error::{Cause, ContainerError};
use super::host::{Host, open_process, ports, step};
use super::posture::Posture;
use crate::net::{PortMap, Renewal, Renewed};
use crate::sys;
use crate::unit::{Handle, Slot};
use std::collections::BTreeSet;
use std::io;
use std::sync::MutexGuard;
use std::time::Duration;

/// What is known of a container that is in the depot.
pub enum Sight {
    /// It was never finished, or nothing of it lives.
    Nothing,
    /// All of it.
    Entry(Box<Entry>),
    /// It may live, and is not for this program to judge: it is not to be touched.
    Closed(Closed),
}

/// A container that is not to be touched.
pub struct Closed {
    /// For a person.
    pub why: String,
    /// Asked again, the answer is the same.
    pub for_good: bool,
    /// Its entry is none of any program: nothing but its removal can come of it.
    pub is_damaged: bool,
    /// What can be told of it.
    pub seen: Glimpse,
}

/// How often an entry that cannot be read at this moment is read, and how long is between.
const READS: u32 = 5;
const READ_AGAIN: Duration = Duration::from_millis(50);

impl Host {
    /// What is known of a container that is in the depot. A reading that fails for want of
    /// descriptors, or by the disk, is tried again, for a quarter of a second. Blocking.
    pub fn sight(&self, handle: &Handle) -> Sight {
        let mut sight = self.sight_once(handle);
        for _ in 1..READS {
            match sight {
                Sight::Closed(Closed { for_good: false, .. }) => {}
                told => return told,
            }
            // No event: nothing tells that a descriptor is free, or that a disk reads again.
            std::thread::sleep(READ_AGAIN);
            sight = self.sight_once(handle);
        }
        sight
    }

    fn sight_once(&self, handle: &Handle) -> Sight {
        let err = match self.depot.read(handle) {
            Ok(Some(entry)) => return Sight::Entry(Box::new(entry)),
            Ok(None) => io::Error::new(io::ErrorKind::InvalidData, "its entry is gone"),
            Err(err) => err,
        };
        let is_damaged = err.kind() == io::ErrorKind::InvalidData;
        // A power cut leaves such a thing, and nothing that lives.
        if is_damaged && !self.may_live(handle) {
            return Sight::Nothing;
        }
        let for_good = is_damaged || err.kind() == io::ErrorKind::Unsupported;
        let why = match is_damaged {
            true => format!("its entry in the depot is damaged ({err}); destroy it"),
            false => crate::log::chain(&err),
        };
        Sight::Closed(Closed { why, for_good, is_damaged, seen: self.depot.glimpse(handle) })
    }

    /// Whether something of this name has processes, or nobody can tell.
    fn may_live(&self, handle: &Handle) -> bool {
        self.cgroups.find(handle).pids().map_or(true, |pids| !pids.is_empty())
    }

    /// Keeps the numbers of a container that is not touched from others. Blocking.
    pub fn hold(&self, handle: &Handle) {
        let seen = self.depot.glimpse(handle);
        if !self.claims().hold(handle, &seen) {
            return;
        }
        if let (Some(slot), Some(had)) = (seen.slot, seen.addresses)
            && let Err(err) = self.net.reclaim(slot, had)
        {
            crate::warn!("net.address_lost", handle = handle, err = crate::log::chain(&err));
        }
    }

    /// Keeps the numbers of an instance's container, as its owner has recorded them, from others, and
    /// tells the box's other users that it is an app's: its entry may be unreadable. Until
    /// [`Host::unhold`]. Blocking.
    pub fn hold_for_app(&self, handle: &Handle, slot: Slot, ports: &[(u16, u16)]) {
        self.sought().insert(handle.clone());
        let ports = ports.to_vec();
        let seen = Glimpse { slot: Some(slot), ports, is_apps: true, ..Glimpse::default() };
        self.claims().hold(handle, &seen);
    }

    /// Its owner knows what has become of it.
    pub fn unhold(&self, handle: &Handle) {
        self.sought().remove(handle);
    }

    /// Whether [`Host::hold_for_app`] keeps it.
    pub fn is_held_for_app(&self, handle: &Handle) -> bool {
        self.sought().contains(handle)
    }

    fn sought(&self) -> MutexGuard<'_, BTreeSet<Handle>> {
        self.sought.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Connects to a container that was found in the depot. `None`: its pid 1 is gone, or was
    /// never finished, or its removal has begun: destroy it. An error: nobody can tell, or it lives and cannot be reached;
    /// asked again, it may be. Blocking.
    pub fn reopen(&self, handle: &Handle) -> Result<Option<Container>, ContainerError> {
        let Some(entry) = self.living(handle)? else { return Ok(None) };
        self.adopt_numbers(&entry)?;
        self.renew_rules(&entry)
            .map_err(|source| step("write the network rules of", handle, source))?;
        Container::connect(self, entry)
            .map(Some)
            .map_err(|source| step("connect to the init process of", handle, source))
    }

    /// The entry of a container whose pid 1 lives, and whose removal has not begun.
    fn living(&self, handle: &Handle) -> Result<Option<Entry>, ContainerError> {
        let Some(entry) = self.entry(handle)? else { return Ok(None) };
        let alive = match entry.process() {
            None => false,
            Some((pid, started)) => lives(pid, started)
                .map_err(|source| step("look for the init process of", handle, source))?,
        };
        Ok((alive && !self.leaves(handle)?).then_some(entry))
    }

    /// Writes the rules of all these that live and are Garden clients', before each is reopened: at once
    /// that takes a fraction of the time. What goes wrong here is told by [`Host::reopen`], which does what
    /// was not done. Blocking.
    pub fn renew_ahead(&self, handles: &[Handle]) {
        let living = handles.iter().filter_map(|handle| self.living(handle).ok().flatten());
        let guests = living.filter(|entry| entry.spec.posture != Posture::App);
        let known = |entry: &Entry| self.adopt_numbers(entry).is_ok();
        let entries: Vec<Entry> = guests.filter(known).collect();
        let renewals = entries.iter().map(|entry| Renewal {
            slot: entry.slot,
            ports: ports(entry),
            egress: &entry.spec.egress,
            otherwise: self.otherwise(&entry.spec),
        });
        match self.net.renew_all(&renewals.collect::<Vec<_>>()) {
            Ok(renewed) => *self.renewed() = renewed,
            Err(err) => crate::warn!("net.not_renewed_at_once", err = crate::log::chain(&err)),
        }
    }

    fn renewed(&self) -> MutexGuard<'_, Renewed> {
        self.renewed.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// A container whose pid 1 has ended since the box was started: all that is known of it, for who
    /// decides what becomes of it. `None`: it was never finished, is of an earlier run of the box, or
    /// its removal has begun: destroy it. Blocking.
    pub fn reopen_ended(&self, handle: &Handle) -> Result<Option<Container>, ContainerError> {
        let Some(entry) = self.entry(handle)? else { return Ok(None) };
        if entry.process().is_none() || self.leaves(handle)? {
            return Ok(None);
        }
        self.adopt_numbers(&entry)?;
        let ended = Container::of_ended(self, entry);
        ended.map(Some).map_err(|source| step("take over", handle, source))
    }

    /// Whether the removal of a container has begun. Nobody knows what is gone of it, even if its pid 1,
    /// stuck in the kernel, would not end in time.
    fn leaves(&self, handle: &Handle) -> Result<bool, ContainerError> {
        let leaves = self.depot.is_leaving(handle);
        leaves.map_err(|source| step("read the depot entry of", handle, source))
    }

    /// Gives a container that was found the numbers and the address of its entry.
    fn adopt_numbers(&self, entry: &Entry) -> Result<(), ContainerError> {
        let handle = &entry.spec.handle;
        if !self.claims().adopt(entry) {
            let why = "another container has its slot or ports; destroy one of them";
            return Err(step("find again the numbers of", handle, why));
        }
        match entry.addresses.map(|had| self.net.reclaim(entry.slot, had)) {
            Some(Err(source)) => Err(step("find again the address of", handle, source)),
            _ => Ok(()),
        }
    }

    /// The rules of a container that is found again. An app's never change, so they are there or
    /// somebody has emptied the box's packet rules. Another's change while it stands, and a daemon
    /// that was killed has written down what it did not make: all of them are written again.
    fn renew_rules(&self, entry: &Entry) -> Result<(), Cause> {
        let (slot, spec) = (entry.slot, &entry.spec);
        let (renewed, unlimited) = {
            let mut seen = self.renewed();
            (seen.done.remove(&slot), seen.unlimited.remove(&slot))
        };
        if !renewed {
            if spec.posture == Posture::App || !self.net.is_allowed(slot)? {
                return self.restore_rules(entry);
            }
            self.net.renew(slot, &self.free_ports(entry)?, &spec.egress, self.otherwise(spec))?;
        }
        if unlimited && spec.bandwidth.is_none() {
            return Ok(());
        }
        // None is a limit too: an earlier one may be in force.
        Ok(self.net.limit_bandwidth(slot, spec.bandwidth)?)
    }

    /// The ports of a container, but for those that an app has published meanwhile: better one port
    /// that leads elsewhere than a container without rules.
    pub(super) fn free_ports(&self, entry: &Entry) -> Result<Vec<PortMap>, Cause> {
        let published = self.net.published_ports()?;
        let mut ports = ports(entry);
        for PortMap { host, .. } in ports.extract_if(.., |port| published.contains(&port.host)) {
            const CURE: &str = "publish the app on another port and start the daemon again";
            let handle = &entry.spec.handle;
            crate::error!("net.port_taken", handle = handle, port = host, cure = CURE);
        }
        Ok(ports)
    }
}

/// Whether that process has not ended.
fn lives(pid: i32, started: u64) -> io::Result<bool> {
    match open_process(pid, started)? {
        Some(pidfd) => sys::fd::wait_readable(&pidfd, 0).map(|ended| !ended),
        None => Ok(false),
    }
}
