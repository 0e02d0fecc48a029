//! The box as containers see it: where they are kept and what they are made of.

use super::claims::{Claims, Numbers};
use super::depot::{Depot, Entry};
use super::error::{Cause, ContainerError};
use super::leaving::{self, Leaving};
use super::posture::Posture;
use super::program::OwnProgram;
use super::quiet::Quiet;
use super::record::Records;
use super::reserve::Reserve;
use super::spans::{CreateSpans, Spans};
use super::spawner::Spawner;
use super::spec::ContainerSpec;
use crate::cgroup::{Cgroups, Group};
use crate::net::egress::Range;
use crate::net::pool::{Ports, Slots};
use crate::net::text::Resolvers;
use crate::net::{Net, Otherwise, PortMap, Renewed};
use crate::sys;
use crate::sys::fd::{PollFd, PollFlags};
use crate::sys::signal::KILL;
use crate::unit::{Handle, Slot};
use crate::volume::Store;
use smol::channel::{self, Receiver, Sender};
use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

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
    /// What containers of Garden's clients reach.
    pub garden: GardenNetworks,
    /// How many halves of containers are kept ready, once [`Host::open_reserve`] was called.
    pub reserve: u32,
}

/// Where containers of Garden's clients may send without being told, and where not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GardenNetworks {
    /// Beats `deny`.
    pub allow: Vec<Range>,
    /// What only an opening of its own opens; everything else is open.
    pub deny: Vec<Range>,
}

/// Everything that containers share. One per daemon.
pub struct Host {
    pub(super) depot: Depot,
    pub(super) spawner: Arc<Spawner>,
    pub(super) own: Arc<OwnProgram>,
    pub(super) quiet: Arc<Quiet>,
    pub(super) store: Store,
    pub(super) cgroups: Arc<Cgroups>,
    pub(super) net: Arc<Net>,
    pub(super) net_tag: String,
    pub(super) seccomp: OwnedFd,
    pub(super) resolvers: Resolvers,
    garden: GardenNetworks,
    claims: Arc<Mutex<Claims>>,
    pub(super) records: Records,
    /// Containers of instances whose owner cannot tell yet what they are.
    pub(super) sought: Mutex<BTreeSet<Handle>>,
    /// Slots whose rules this daemon has written before it has looked at their containers, and those that
    /// it has seen without limit.
    pub(super) renewed: Mutex<Renewed>,
    pub(super) reserve: Arc<Reserve>,
    leaving: Leaving,
    pub(super) spans: Spans,
    /// Has a word in it when a container was made or removed since somebody looked.
    stirred: (Sender<()>, Receiver<()>),
}

/// How long a killed pid 1 may take to be gone, in milliseconds: it has to take its whole pid
/// namespace along.
pub(super) const DEATH_MAX_MS: u16 = 10_000;

impl Host {
    /// Puts the parts together, and removes what is on the box but not in the depot.
    pub fn new(parts: HostParts) -> Host {
        let (net, cgroups) = (Arc::new(parts.net), Arc::new(parts.cgroups));
        let mut ports = parts.ports;
        if let Some(next) = parts.depot.noted_port() {
            ports.begin_with(next);
        }
        let claims = Arc::new(Mutex::new(Claims::new(parts.slots, ports)));
        let spawner = Arc::new(Spawner::new(&parts.program));
        let quiet = Arc::<Quiet>::default();
        let reserve = Arc::new(Reserve {
            spawner: spawner.clone(),
            net: net.clone(),
            cgroups: cgroups.clone(),
            net_tag: parts.net_tag.clone(),
            depot: parts.depot.clone(),
            claims: claims.clone(),
            most: parts.reserve as usize,
            quiet: quiet.clone(),
            state: Mutex::default(),
        });
        let (leaves, its) = (parts.depot.clone(), claims.clone());
        let host = Host {
            leaving: Leaving::new(net.clone(), leaves, its, reserve.clone()),
            reserve,
            depot: parts.depot,
            own: OwnProgram::new(&parts.program),
            quiet,
            spawner,
            store: parts.store,
            cgroups,
            net,
            net_tag: parts.net_tag,
            seccomp: parts.seccomp,
            resolvers: parts.resolvers,
            garden: parts.garden,
            claims,
            records: Records::default(),
            sought: Mutex::default(),
            renewed: Mutex::default(),
            spans: Spans::default(),
            stirred: channel::bounded(1),
        };
        host.sweep_strays();
        host
    }

    /// The store, for imports.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Control groups, for peas.
    pub fn cgroups(&self) -> &Cgroups {
        &self.cgroups
    }

    /// The network, for published ports.
    pub fn net(&self) -> &Net {
        &self.net
    }

    /// How long making containers has taken until now.
    pub fn create_spans(&self) -> CreateSpans {
        self.spans.read()
    }

    /// Where a word comes whenever a container is made or removed.
    pub fn stirred(&self) -> Receiver<()> {
        self.stirred.1.clone()
    }

    /// Says it. A word that nobody has taken yet is as good.
    pub(super) fn stir(&self) {
        let _ = self.stirred.0.try_send(());
    }

    /// Halves of containers are made from now on: all that was found in the depot has its numbers.
    pub fn open_reserve(&self) {
        self.depot.forget_known();
        self.reserve.open();
        self.leaving.stir();
    }

    /// The halves that there are at this moment: slot and pid 1 of each.
    pub fn reserved(&self) -> Vec<(Slot, i32)> {
        self.reserve.list()
    }

    /// No more are made, and those that there are go. Who waits for [`Host::finish`] waits for that.
    pub fn close_reserve(&self) {
        self.reserve.close();
        self.leaving.empty_reserve();
    }

    /// A container was made or removed: not now is the time to make half a one.
    pub(super) fn stir_reserve(&self) {
        self.leaving.stir();
    }

    /// Waits until nothing is left of containers that were destroyed before. Blocking.
    pub fn finish(&self) {
        self.leaving.finish();
    }

    /// Takes the host apart for the end of the daemon; waits as [`Host::finish`] does.
    pub fn into_parts(self) -> (Store, Cgroups, Net) {
        let Host { store, cgroups, net, leaving, reserve, .. } = self;
        drop((leaving, reserve));
        const SHARED: &str = "only what has just been dropped shared it";
        let (net, cgroups) = (Arc::into_inner(net), Arc::into_inner(cgroups));
        (store, cgroups.expect(SHARED), net.expect(SHARED))
    }

    /// Who has which numbers.
    pub(super) fn claims(&self) -> MutexGuard<'_, Claims> {
        leaving::lock(&self.claims)
    }

    /// Claims a handle and numbers; if what leaves has them, once it is gone.
    pub(super) fn begin(
        &self,
        handle: &Handle,
        inside: &[u16],
        reserved: Option<Slot>,
    ) -> Result<Numbers, ContainerError> {
        let mut claims = self.claims();
        match claims.begin(handle, inside, reserved) {
            Err(ContainerError::Full { what: "slot", .. }) => self.leaving.empty_reserve(),
            Err(ContainerError::Full { .. }) => {}
            Err(ContainerError::Exists(_)) if claims.is_leaving(handle) => {}
            begun => return begun,
        }
        // The thread that is waited for needs them.
        drop(claims);
        self.finish();
        self.claims().begin(handle, inside, reserved)
    }

    /// Some host ports were given: the next daemon is not to give those again first.
    pub(super) fn note_ports(&self, claims: &Claims) {
        let Some(next) = claims.next_port() else { return };
        if let Err(err) = self.depot.note_port(next) {
            crate::warn!("ports.unnoted", next = next, err = err);
        }
    }

    /// Every container that the depot knows, whole or half-made, but for those that are destroyed.
    pub fn list(&self) -> Result<Vec<Handle>, ContainerError> {
        // Held over the reading: what is gone before it is not found, what leaves is known to.
        let claims = self.claims();
        let all = self.depot.list();
        let mut all = all.map_err(|source| ContainerError::Depot { source: source.into() })?;
        all.retain(|handle| !claims.is_leaving(handle));
        Ok(all)
    }

    /// The depot's entry of one container.
    pub fn entry(&self, handle: &Handle) -> Result<Option<Entry>, ContainerError> {
        self.depot.read(handle).map_err(|source| step("read the depot entry of", handle, source))
    }

    /// The rules of a container whose network they have left: somebody has emptied the box's
    /// packet rules while no daemon was there to mend it.
    pub(super) fn restore_rules(&self, entry: &Entry) -> Result<(), Cause> {
        if self.net.is_allowed(entry.slot)? {
            return Ok(());
        }
        crate::warn!("net.rules_restored", handle = entry.spec.handle);
        self.write_rules(entry, &self.free_ports(entry)?)
    }

    /// What becomes of traffic that no opening of a container lets through.
    pub(super) fn otherwise<'a>(&'a self, spec: &'a ContainerSpec) -> Otherwise<'a> {
        match spec.posture {
            Posture::App => Otherwise::Deny,
            Posture::Garden | Posture::Privileged => {
                let GardenNetworks { allow, deny } = &self.garden;
                Otherwise::Garden { allow, deny, log: &spec.log_name }
            }
        }
    }

    /// Writes all rules of a container, whatever it has, with these of its ports.
    pub(super) fn write_rules(&self, entry: &Entry, ports: &[PortMap]) -> Result<(), Cause> {
        let (slot, spec) = (entry.slot, &entry.spec);
        self.net.allow(slot, ports, &spec.egress, self.otherwise(spec))?;
        match spec.bandwidth {
            None => Ok(()),
            limit => Ok(self.net.limit_bandwidth(slot, limit)?),
        }
    }

    /// Puts the rules of all containers back when somebody has emptied the box's packet rules
    /// (`nft flush ruleset`): until then containers reach the box, its loopback included. `true`:
    /// it was so, and every published port must be published again. Costs one question when all is
    /// in place. Blocking.
    pub fn mend_rules(&self) -> Result<bool, ContainerError> {
        let depot = |source: Cause| ContainerError::Depot { source };
        if !self.net.mend().map_err(|err| depot(err.into()))? {
            return Ok(false);
        }
        let mut result = Ok(true);
        for handle in self.list()? {
            // What is being made or removed gets its own rules, or none.
            let entry = self.entry(&handle).ok().flatten();
            let Some(entry) = entry.filter(|entry| self.claims().rests(entry)) else { continue };
            if let Err(source) = self.restore_rules(&entry) {
                // Without rules it is cut off; the others are not to wait for it.
                result = Err(step("write the network rules of", &handle, source));
            }
        }
        result
    }

    /// Removes everything of a container: processes, rules, disk, cgroup; links and depot entry
    /// follow within a moment, and handle, slot and ports stay taken until then. Blocking. Parts
    /// that are gone already count as removed; all parts are tried before it reports what is left,
    /// and then the depot entry stays for the next try, and its slot and ports with it.
    pub fn destroy(&self, handle: &Handle) -> Result<(), ContainerError> {
        let _busy = self.quiet.begin();
        self.stir();
        self.stir_reserve();
        let mut claims = self.claims();
        if claims.is_leaving(handle) {
            return Ok(());
        }
        // Read under the lock: an earlier container of this name may be gone a moment later.
        // An entry that cannot be read (half-written before its first rename, or a newer
        // version's) names no slot; links and rules are then found by `sweep_strays`.
        let entry = self.depot.read(handle).ok().flatten();
        let Some(own_slot) = claims.begin_removal(handle, entry.as_ref()) else {
            let parts = "it is being made or removed at this moment".into();
            return Err(ContainerError::Left { handle: handle.clone(), parts });
        };
        // Two entries with one slot are not of our making; the network is the other's, then. One that
        // cannot be read has the slot that was kept for it, if any.
        let slot = match &entry {
            Some(entry) => own_slot.then_some(entry.slot),
            None => claims.slot(handle),
        };
        drop(claims);
        // A full disk: should we be killed now, it is found as one whose first process has ended.
        if let Err(err) = self.depot.mark_leaving(handle) {
            crate::warn!("container.unmarked", handle = handle, err = err);
        }
        let mut left = Left::default();
        let group = self.cgroups.find(handle);
        // What fails here fails again below, and is told there.
        let _ = group.thaw_all();
        // Pinned while the group still tells them.
        let keepers = self.keepers(handle, &group);
        // Its whole pid namespace dies with pid 1, which takes about as long as to remove the rules.
        let dying = entry.as_ref().and_then(Entry::process).map(kill).transpose();
        // As above.
        let revoked = slot.filter(|slot| self.net.revoke(*slot).is_ok());
        sys::fault::point(format_args!("destroy:rules"));
        let ended = dying
            .and_then(|pidfd| await_ends(pidfd.flatten().into_iter().chain(keepers).collect()));
        left.note("init process", ended.map_err(Cause::from));
        // As a rule nobody: an `init` that never came so far, and keepers of peas.
        if !group.remove_if_empty().unwrap_or(false) {
            left.note("processes", end_group(&group));
        }
        sys::fault::point(format_args!("destroy:processes"));
        left.note("disks of peas", self.remove_peas(handle, |_| true));
        left.note("disk", self.store.remove_writable(handle).map_err(Cause::from));
        sys::fault::point(format_args!("destroy:disk"));
        left.note("cgroup", group.remove().map_err(Cause::from));
        sys::fault::point(format_args!("destroy:cgroup"));
        if let Some(slot) = revoked
            && left.0.is_empty()
        {
            self.leaving.add(handle, slot);
            return Ok(());
        }
        if let Some(slot) = slot {
            left.note("network", self.net.release(slot).map_err(Cause::from));
        }
        if left.0.is_empty() {
            left.note("depot entry", self.depot.remove(handle).map_err(Cause::from));
        }
        if !left.0.is_empty() {
            self.claims().rest(handle);
            return Err(ContainerError::Left { handle: handle.clone(), parts: left.0.join("; ") });
        }
        self.claims().forget(handle);
        Ok(())
    }

    /// The keepers of a container's peas, which are in its pid namespace and children of ours: pid 1
    /// does not end before somebody has taken their ends. None when it has no pea.
    fn keepers(&self, handle: &Handle, group: &Group) -> Vec<OwnedFd> {
        match self.depot.peas(handle) {
            Ok(peas) if peas.is_empty() => Vec::new(),
            // What cannot be read is told where the disks are removed.
            _ => our_children(group).unwrap_or_default(),
        }
    }
}

pub(super) fn ports(entry: &Entry) -> Vec<PortMap> {
    entry.ports.iter().map(|&(host, container)| PortMap { host, container }).collect()
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

/// Kills pid 1 if it is still the process that was recorded; to be followed by [`await_end`]. The pid
/// namespace dies with it.
fn kill((pid, started): (i32, u64)) -> io::Result<Option<OwnedFd>> {
    let pidfd = open_process(pid, started)?;
    if let Some(pidfd) = &pidfd {
        // Dead already is just as well.
        let _ = sys::process::pidfd_send_signal(pidfd, KILL);
    }
    Ok(pidfd)
}

/// The process that had this pid at that time, if it is there: it may have ended and wait for us.
pub(super) fn open_process(pid: i32, started: u64) -> io::Result<Option<OwnedFd>> {
    const ESRCH: i32 = 3;
    const EINVAL: i32 = 22;
    // Only the kernel's word that there is none is one; no descriptor to be had is not.
    let absent = |err: &io::Error| {
        err.kind() == io::ErrorKind::NotFound
            || [Some(ESRCH), Some(EINVAL)].contains(&err.raw_os_error())
    };
    let told =
        sys::process::pidfd_open(pid).and_then(|pidfd| Ok((pidfd, sys::process::start_time(pid)?)));
    match told {
        Ok((pidfd, since)) => Ok((since == started).then_some(pidfd)),
        Err(err) if absent(&err) => Ok(None),
        Err(err) => Err(err),
    }
}

/// Waits for the end of a killed process and reaps it when it is our child.
pub(super) fn await_end(pidfd: &OwnedFd) -> io::Result<()> {
    if !sys::fd::wait_readable(pidfd, DEATH_MAX_MS)? {
        return Err(still_there());
    }
    // Not our child after a restart of the daemon: then somebody else reaps it.
    let _ = sys::process::wait_pidfd(pidfd);
    Ok(())
}

/// The same for several. In whatever order they end: a pid 1 does so after all of its pid namespace.
fn await_ends(mut left: Vec<OwnedFd>) -> io::Result<()> {
    let deadline = Instant::now() + Duration::from_millis(DEATH_MAX_MS.into());
    while !left.is_empty() {
        let rest = deadline.saturating_duration_since(Instant::now()).as_millis();
        let mut watched: Vec<_> =
            left.iter().map(|pidfd| PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)).collect();
        match sys::fd::poll(&mut watched, Some(rest.min(DEATH_MAX_MS.into()) as u16)) {
            Err(err) if err.kind() == io::ErrorKind::Interrupted => continue,
            Ok(0) => return Err(still_there()),
            polled => drop(polled?),
        }
        let ended: Vec<bool> = watched.iter().map(|one| one.any() == Some(true)).collect();
        let mut ended = ended.into_iter();
        left.retain(|pidfd| {
            let has_ended = ended.next() == Some(true);
            if has_ended {
                // As in `await_end`.
                let _ = sys::process::wait_pidfd(pidfd);
            }
            !has_ended
        });
    }
    Ok(())
}

fn still_there() -> io::Error {
    let text = format!("a killed process is still there after {} s", DEATH_MAX_MS / 1000);
    io::Error::new(io::ErrorKind::TimedOut, text)
}

/// Kills every process of a group and reaps those that are our children: `init`, pid 1 and keepers of
/// peas, which nobody else waits for. Only these are held open: an app may have more processes than we
/// may have descriptors.
pub(super) fn end_group(group: &Group) -> Result<(), Cause> {
    let ours = our_children(group)?;
    group.kill()?;
    Ok(await_ends(ours)?)
}

/// Children of ours in a group, but for those whose end only waits to be taken.
fn our_children(group: &Group) -> Result<Vec<OwnedFd>, Cause> {
    let me = std::process::id() as i32;
    let is_ours = |pid: &i32| sys::process::parent(*pid).ok() == Some(me);
    let ours = group.pids()?.into_iter().filter(is_ours);
    Ok(ours.filter_map(|pid| sys::process::pidfd_open(pid).ok()).collect())
}

/// An operation on a container failed because of `source`.
pub(super) fn step(
    doing: &'static str,
    handle: &Handle,
    source: impl Into<Cause>,
) -> ContainerError {
    ContainerError::Step { doing, handle: handle.clone(), source: source.into() }
}
