//! Changes to what is known of a container that stands.

use super::depot::Entry;
use super::error::{Cause, ContainerError};
use super::host::{Host, step};
use crate::unit::Handle;

impl Host {
    /// Replaces what the owner of a container keeps with it, in the depot in one step, and for
    /// everybody who holds it. `Absent`: it is not there, or not at rest. Blocking.
    pub fn set_owner(&self, handle: &Handle, owner: &str) -> Result<(), ContainerError> {
        let claims = self.claims();
        let mut entry = self.resting(handle, |entry| claims.rests(entry))?;
        entry.spec.owner = owner.to_owned();
        self.keep(entry)
    }

    /// Gives a container more host ports, each with the port inside that it leads to: they are
    /// its own, over restarts of the daemon too, until it is destroyed. Host port 0: any that is
    /// free; port 0 inside: the same as outside. Returns what they are now, and takes all or none.
    /// Packets are led there by the network's rules, which are the caller's to write. `PortTaken`,
    /// `Full`; `Absent`: it is not there, or not at rest. Blocking.
    pub fn add_ports(
        &self,
        handle: &Handle,
        wanted: &[(u16, u16)],
    ) -> Result<Vec<(u16, u16)>, ContainerError> {
        // Held until it is written: nobody else changes or removes the entry meanwhile.
        let mut claims = self.claims();
        let mut entry = self.resting(handle, |entry| claims.rests(entry))?;
        let added = claims.add_ports(handle, wanted)?;
        entry.ports.extend(&added);
        self.keep(entry).inspect_err(|_| claims.drop_ports(handle, &added))?;
        Ok(added)
    }

    /// The entry of a container that stands and that nobody makes or removes.
    fn resting(
        &self,
        handle: &Handle,
        rests: impl Fn(&Entry) -> bool,
    ) -> Result<Entry, ContainerError> {
        let absent = || ContainerError::Absent(handle.clone());
        self.entry(handle)?.filter(rests).ok_or_else(absent)
    }

    /// Writes a changed entry and lets everybody know.
    fn keep(&self, entry: Entry) -> Result<(), ContainerError> {
        let handle = &entry.spec.handle;
        let written = self.depot.write(&entry).map_err(Cause::from);
        written.map_err(|source| step("write the depot entry of", handle, source))?;
        self.records.replace(entry);
        Ok(())
    }
}
