//! The box as containers see it: where they are kept and what they are made of.

use super::client::Container;
use super::depot::{Depot, Entry};
use super::error::{Cause, ContainerError};
use crate::cgroup::{Cgroups, Group};
use crate::net::Net;
use crate::net::pool::{Ports, Slots};
use crate::net::text::Resolvers;
use crate::sys;
use crate::sys::signal::KILL;
use crate::unit::Handle;
use crate::volume::Store;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard};

/// What a [`Host`] is put together from; the daemon opens each part.
pub struct HostParts {
    /// One directory per container.
    pub depot: Depot,
    /// The program that becomes pid 1: this binary.
    pub program: PathBuf,
    /// Layers and writable subvolumes.
    pub store: Store,
    /// Limits.
    pub cgroups: Cgroups,
    /// Links and rules.
    pub net: Net,
    /// Keeps two daemons' link names apart; as in the network's own configuration.
    pub net_tag: String,
    /// Numbers from which names and addresses derive.
    pub slots: Slots,
    /// Host ports for the instances' own ports.
    pub ports: Ports,
    /// The seccomp programs, in a sealed memfd.
    pub seccomp: OwnedFd,
    /// How containers find names.
    pub resolvers: Resolvers,
}

/// Everything that containers share. One per daemon.
pub struct Host {
    pub(super) depot: Depot,
    pub(super) program: PathBuf,
    pub(super) store: Store,
    pub(super) cgroups: Cgroups,
    pub(super) net: Net,
    pub(super) net_tag: String,
    pub(super) seccomp: OwnedFd,
    pub(super) resolvers: Resolvers,
    pools: Mutex<Pools>,
}

/// Numbers that no two containers may share.
pub(super) struct Pools {
    pub(super) slots: Slots,
    pub(super) ports: Ports,
}

/// How long a killed pid 1 may take to be gone, in milliseconds: it has to take its whole pid
/// namespace along.
const DEATH_MAX_MS: u16 = 10_000;

impl Host {
    /// Puts the parts together.
    pub fn new(parts: HostParts) -> Host {
        Host {
            depot: parts.depot,
            program: parts.program,
            store: parts.store,
            cgroups: parts.cgroups,
            net: parts.net,
            net_tag: parts.net_tag,
            seccomp: parts.seccomp,
            resolvers: parts.resolvers,
            pools: Mutex::new(Pools { slots: parts.slots, ports: parts.ports }),
        }
    }

    /// The store, for imports.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The network, for published ports.
    pub fn net(&self) -> &Net {
        &self.net
    }

    /// Takes the host apart for the end of the daemon.
    pub fn into_parts(self) -> (Store, Cgroups, Net) {
        (self.store, self.cgroups, self.net)
    }

    /// The pools. A thread that panicked while it held them has left them whole: every change to
    /// them is one call.
    pub(super) fn pools(&self) -> MutexGuard<'_, Pools> {
        self.pools.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Every container that the depot knows, whole or half-made.
    pub fn list(&self) -> Result<Vec<Handle>, ContainerError> {
        self.depot.list().map_err(|source| ContainerError::Depot { source: source.into() })
    }

    /// The depot's entry of one container.
    pub fn entry(&self, handle: &Handle) -> Result<Option<Entry>, ContainerError> {
        self.depot.read(handle).map_err(|source| step("read the depot entry of", handle, source))
    }

    /// Marks slot and ports of a container that was found as taken. `false`: they are taken by
    /// another container already, so this one cannot be kept.
    pub(super) fn reserve(&self, entry: &Entry) -> bool {
        let mut pools = self.pools();
        if !pools.slots.reserve(entry.slot) {
            return false;
        }
        let taken: Vec<u16> = entry
            .ports
            .iter()
            .map(|(host, _)| *host)
            .take_while(|port| pools.ports.reserve(*port))
            .collect();
        if taken.len() == entry.ports.len() {
            return true;
        }
        taken.into_iter().for_each(|port| pools.ports.release(port));
        pools.slots.release(entry.slot);
        false
    }

    /// Connects to a container that was found in the depot. `None`: its pid 1 is gone, or was
    /// never finished, or its numbers are taken: destroy it. Blocking.
    pub fn reopen(&self, handle: &Handle) -> Result<Option<Container>, ContainerError> {
        let Some(entry) = self.entry(handle)? else { return Ok(None) };
        let alive = entry
            .pid
            .is_some_and(|(pid, started)| sys::process::start_time(pid).ok() == Some(started));
        if !alive || !self.reserve(&entry) {
            return Ok(None);
        }
        Container::connect(self, entry)
            .map(Some)
            .map_err(|source| step("connect to the init process of", handle, source))
    }

    /// Removes everything of a container: processes, rules, links, disk, cgroup, depot entry.
    /// Blocking. Parts that are gone already count as removed; all parts are tried before it
    /// reports what is left, and then the depot entry stays for the next try.
    pub fn destroy(&self, handle: &Handle) -> Result<(), ContainerError> {
        // An entry that cannot be read (half-written before its first rename) names no slot, and
        // then nothing but the directory can have been made.
        let entry = self.depot.read(handle).ok().flatten();
        let mut left = Left::default();
        let group = self.cgroups.find(handle);
        left.note("processes", end_group(&group));
        if let Some((pid, started)) = entry.as_ref().and_then(|entry| entry.pid) {
            left.note("init process", end(pid, started).map_err(Cause::from));
        }
        if let Some(entry) = &entry {
            left.note("network", self.net.release(entry.slot).map_err(Cause::from));
        }
        left.note("disk", self.store.remove_writable(handle).map_err(Cause::from));
        left.note("cgroup", group.remove().map_err(Cause::from));
        if left.0.is_empty() {
            left.note("depot entry", self.depot.remove(handle).map_err(Cause::from));
        }
        if !left.0.is_empty() {
            return Err(ContainerError::Left { handle: handle.clone(), parts: left.0.join("; ") });
        }
        if let Some(entry) = entry {
            let mut pools = self.pools();
            entry.ports.iter().for_each(|(host, _)| pools.ports.release(*host));
            pools.slots.release(entry.slot);
        }
        Ok(())
    }
}

/// Parts of a container that could not be removed, and why.
#[derive(Default)]
struct Left(Vec<String>);

impl Left {
    fn note(&mut self, what: &str, result: Result<(), Cause>) {
        if let Err(err) = result {
            self.0.push(format!("{what}: {}", crate::log::chain(err.as_ref())));
        }
    }
}

/// Kills pid 1 if it is still the process that was recorded, waits for its end and reaps it when
/// it is our child. The pid namespace dies with it.
fn end(pid: i32, started: u64) -> io::Result<()> {
    let Ok(pidfd) = sys::process::pidfd_open(pid) else { return Ok(()) };
    if sys::process::start_time(pid).ok() != Some(started) {
        return Ok(());
    }
    let _ = sys::process::pidfd_send_signal(&pidfd, KILL);
    await_end(&pidfd)
}

/// Waits for the end of a killed process and reaps it when it is our child.
fn await_end(pidfd: &OwnedFd) -> io::Result<()> {
    if !sys::fd::wait_readable(pidfd, DEATH_MAX_MS)? {
        let text = format!("a killed process is still there after {} s", DEATH_MAX_MS / 1000);
        return Err(io::Error::new(io::ErrorKind::TimedOut, text));
    }
    // Not our child after a restart of the daemon: then somebody else reaps it.
    let _ = sys::process::wait_pidfd(pidfd);
    Ok(())
}

/// Kills every process of a group and reaps those that are our children: `init` and pid 1, which
/// nobody else waits for.
pub(super) fn end_group(group: &Group) -> Result<(), Cause> {
    let pidfds: Vec<_> =
        group.pids()?.into_iter().filter_map(|pid| sys::process::pidfd_open(pid).ok()).collect();
    group.kill()?;
    for pidfd in &pidfds {
        await_end(pidfd)?;
    }
    Ok(())
}

/// An operation on a container failed because of `source`.
pub(super) fn step(
    doing: &'static str,
    handle: &Handle,
    source: impl Into<Cause>,
) -> ContainerError {
    ContainerError::Step { doing, handle: handle.clone(), source: source.into() }
}
