//! Changes to what is known of a container that stands.

use super::depot::Entry;
use super::error::{Cause, ContainerError};
use super::host::{Host, step};
use crate::log::chain;
use crate::model::egress::Rule;
use crate::net::{Bandwidth, NetError, PortMap};
use crate::unit::Handle;
use std::error::Error;

impl Host {
    /// Replaces what the owner of a container keeps with it, in the depot in one step, and for
    /// everybody who holds it. `Absent`: it is not there, or not at rest. Blocking.
    pub fn set_owner(&self, handle: &Handle, owner: &str) -> Result<(), ContainerError> {
        let claims = self.claims();
        let mut entry = self.resting(handle, |entry| claims.rests(entry))?;
        entry.spec.owner = owner.to_owned();
        self.keep(entry)?;
        crate::sys::fault::point(format_args!("owner:written"));
        Ok(())
    }

    /// Leads one more host port to a container: it is its own, over restarts of the daemon too,
    /// until it is destroyed. Host port 0: any that is free; port 0 inside: the same as outside.
    /// Returns what they are. `PortTaken`, `Full`; `Absent`: it is not there, or not at rest.
    /// Blocking.
    pub fn add_port(
        &self,
        handle: &Handle,
        wanted: (u16, u16),
    ) -> Result<(u16, u16), ContainerError> {
        // Held until it is done: nobody else changes or removes the entry meanwhile.
        let mut claims = self.claims();
        let before = self.resting(handle, |entry| claims.rests(entry))?;
        let added = claims.add_ports(handle, &[wanted])?[0];
        self.note_ports(&claims);
        let mut entry = before.clone();
        entry.ports.push(added);
        let port = PortMap { host: added.0, container: added.1 };
        let map = || self.net.map_port(before.slot, port);
        // Written before it is made, as everything on the box.
        let Err(err) = self.change(&before, entry, "lead a port to", map) else { return Ok(added) };
        // Unless the entry names it still: the next daemon must not find it with two containers.
        if self.entry(handle).is_ok_and(|entry| entry.is_none_or(|it| !it.ports.contains(&added))) {
            claims.drop_ports(handle, &[added]);
        }
        Err(err)
    }

    /// Opens more to a container, all or none. `Absent`: it is not there, or not at rest. Blocking.
    pub fn add_egress(&self, handle: &Handle, more: &[Rule]) -> Result<(), ContainerError> {
        let claims = self.claims();
        let before = self.resting(handle, |entry| claims.rests(entry))?;
        let mut entry = before.clone();
        entry.spec.egress.extend_from_slice(more);
        // Before it is written: what is written is what the next daemon makes.
        let fits = self.net.check_egress(&entry.spec.egress, self.otherwise(&entry.spec));
        fits.map_err(|source| step("open networks to", handle, source))?;
        let log = &before.spec.log_name;
        let open = || self.net.open_more(before.slot, more, log);
        self.change(&before, entry, "open networks to", open)
    }

    /// Limits how fast a container receives and sends; `None`: not. `Absent`: it is not there, or
    /// not at rest. Blocking.
    pub fn set_bandwidth(
        &self,
        handle: &Handle,
        limit: Option<Bandwidth>,
    ) -> Result<(), ContainerError> {
        let claims = self.claims();
        let before = self.resting(handle, |entry| claims.rests(entry))?;
        let mut entry = before.clone();
        entry.spec.bandwidth = limit;
        let apply = |limit| self.net.limit_bandwidth(before.slot, limit);
        let changed = self.change(&before, entry, "limit the bandwidth of", || apply(limit));
        // A change that failed in the middle leaves no limit, and the entry may tell one.
        changed.map_err(|err| match apply(before.spec.bandwidth) {
            Ok(()) => err,
            Err(left) => also(err, "its old limit could not be set again either", &left),
        })
    }

    /// Writes down what a container shall be and makes it so; if that fails, it is as it was before.
    fn change(
        &self,
        before: &Entry,
        after: Entry,
        doing: &'static str,
        make: impl FnOnce() -> Result<(), NetError>,
    ) -> Result<(), ContainerError> {
        self.keep(after)?;
        crate::sys::fault::point(format_args!("change:written"));
        make().map_err(|source| {
            let err = step(doing, &before.spec.handle, source);
            match self.keep(before.clone()) {
                Ok(()) => err,
                Err(left) => also(err, "the depot keeps what was asked for", &left),
            }
        })
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

/// An error with what else went wrong when its change was taken back.
fn also(err: ContainerError, what: &str, left: &dyn Error) -> ContainerError {
    match err {
        ContainerError::Step { doing, handle, source } => {
            let text = format!("{}; {what}: {}", chain(&*source), chain(left));
            ContainerError::Step { doing, handle, source: text.into() }
        }
        err => err,
    }
}
