//! Walks the recipe. Blocking: callers put it on the pool.

mod talk;

pub(super) use talk::{AHEAD_MAX_MS, INIT_MAX_MS, hear, hear_within, refusal, tell};

use super::client::Container;
use super::depot::{Entry, FORMAT};
use super::error::{Cause, ContainerError};
use super::host::{self, Host, step};
use super::recipe::{CREATE, FINISH, Step, WITHIN};
use super::reserve::{self, Unused};
use super::spans::Watch;
use super::spawner::Init;
use super::spec::{ContainerSpec, RootDriver};
use super::undo::Undo;
use crate::cgroup::Group;
use crate::image;
use crate::log::chain;
use crate::net::NetError;
use crate::sys;
use crate::sys::clock::boot_id;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};

/// A failure that a test asks for: after this step was done, as if it had failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fault {
    /// None: the normal case.
    #[default]
    None,
    /// After step `n` of the recipe: [`CREATE`], [`FINISH`] or [`WITHIN`].
    After(usize),
    /// The half that it is made of ends after step `n` of [`FINISH`], which is no failure then.
    Ended(usize),
}

/// The memory limit that is recommended to who asked for one that no container starts with, in bytes.
/// On Linux 6 some 768 KiB are enough for pid 1 alone; what counts besides differs between kernels.
pub(super) const MEMORY_MIN: u64 = 4 << 20;

/// Where pid 1 serves, in the container's depot directory.
pub(super) const SOCKET: &str = "init.sock";

/// Daemons that may wait to be accepted by pid 1: one, and one that replaces it.
pub(super) const BACKLOG: u16 = 4;

/// A creation under way.
struct Making<'a> {
    host: &'a Host,
    entry: Entry,
    group: Group,
    writable: PathBuf,
    listener: Option<OwnedFd>,
    control: Option<OwnedFd>,
    netns: Option<OwnedFd>,
    /// There is a bridge that is this container's alone.
    bridged: bool,
    /// Half of it, until it is taken over.
    half: Option<Unused<'a>>,
    /// What it is made of was a half: its process is in groups that were made ahead.
    of_half: bool,
    /// `init` makes what it can before it has its plan.
    is_early: bool,
    /// Its pid 1, once an early `init` has made it.
    pid_one: Option<i32>,
    /// The first process of `init`. Shared with the undos of the steps that know it; whichever comes
    /// first ends it.
    child: Arc<Mutex<Option<i32>>>,
    connected: Option<Container>,
}

impl Host {
    /// Makes a container; on any failure nothing of it is left on the box.
    pub fn create(&self, spec: ContainerSpec, fault: Fault) -> Result<Container, ContainerError> {
        let _busy = self.quiet.begin();
        self.stir();
        let made = match self.reserve.take(&spec).map(|half| Unused::new(self, half)) {
            None => self.create_with(spec, fault, None, &mut false),
            half => {
                let mut has_died = false;
                match self.create_with(spec.clone(), fault, half, &mut has_died) {
                    // That is no fault of who asks, and nothing of it is left.
                    Err(err) if has_died => {
                        crate::warn!("reserve.lost", handle = spec.handle, err = chain(&err));
                        self.create_with(spec, fault, None, &mut false)
                    }
                    made => made,
                }
            }
        };
        self.stir_reserve();
        made
    }

    /// The same of half a container, if there is one; `has_died` becomes true when this failed and that one
    /// had ended without a word.
    fn create_with(
        &self,
        spec: ContainerSpec,
        fault: Fault,
        half: Option<Unused<'_>>,
        has_died: &mut bool,
    ) -> Result<Container, ContainerError> {
        let handle = spec.handle.clone();
        let mut undo = Undo::default();
        let mut watch = Watch::start(half.is_some());
        let is_early = reserve::may_begin_early(&spec);
        let steps: &[Step] = match (&half, is_early) {
            (Some(_), _) => &FINISH,
            (None, true) => &CREATE,
            (None, false) => &WITHIN,
        };
        let (entry, half) = self.acquire(spec, half, &mut undo)?;
        let mut making = Making {
            host: self,
            group: self.cgroups.find(&handle),
            entry,
            writable: PathBuf::new(),
            listener: None,
            control: None,
            netns: None,
            bridged: false,
            half,
            of_half: false,
            is_early,
            pid_one: None,
            child: Arc::default(),
            connected: None,
        };
        for (n, now) in steps.iter().copied().enumerate() {
            watch.begin();
            // Pushed before the step: a step that fails half-way is taken back too, and every
            // removal is content with what is not there. But links take themselves back: one that
            // was there before is somebody else's.
            let is_link = matches!(now, Step::Bridge | Step::Links);
            if !is_link {
                making.push_undo(now, &mut undo);
            }
            if let Err(source) = making.act(now) {
                *has_died = making.half_has_died();
                return Err(step(now.doing(), &handle, making.short_of_memory(source)));
            }
            if is_link {
                making.push_undo(now, &mut undo);
            }
            if now == Step::Depot && making.of_half {
                // What was made ahead is the container's since this step.
                making.push_undo(Step::Links, &mut undo);
                making.push_undo_ahead(&mut undo);
                making.push_undo(Step::Spawn, &mut undo);
            }
            watch.end(now);
            sys::fault::point(format_args!("create:{}", now.name()));
            if fault == Fault::Ended(n) && making.of_half {
                end_first(&making.child);
            }
            if fault == Fault::After(n) {
                return Err(step(now.doing(), &handle, ContainerError::Injected));
            }
        }
        undo.keep();
        self.claims().rest(&handle);
        self.spans.add(&watch);
        Ok(making.connected.take().expect("the last step connects"))
    }

    /// Takes a slot, which is that of `half`, and the host ports.
    fn acquire<'a>(
        &'a self,
        spec: ContainerSpec,
        mut half: Option<Unused<'a>>,
        undo: &mut Undo<'a>,
    ) -> Result<(Entry, Option<Unused<'a>>), ContainerError> {
        let handle = spec.handle.clone();
        let reserved = half.as_ref().and_then(Unused::slot);
        let (slot, mut ports) = self.begin(&handle, &spec.ports, reserved)?;
        if let Some(half) = &mut half {
            half.claimed_by(&handle);
        }
        // Only now: whoever works on this handle has claimed it.
        if self.depot.dir(&handle).exists() {
            // First: the slot of a half goes back with it, and is not free.
            drop(half);
            self.claims().forget(&handle);
            return Err(ContainerError::Exists(handle));
        }
        let name = handle.clone();
        undo.push_base("release slot, addresses and ports", move |clean| {
            let mut claims = self.claims();
            // What is left on the box keeps its numbers: the next container would meet it.
            if clean {
                // A half has no network of its choice, and may be back in the reserve.
                if reserved.is_none() {
                    self.net.unclaim(slot);
                }
                claims.forget(&name)
            } else {
                claims.rest(&name)
            }
            Ok(())
        });
        let mut more = self.claims().add_ports(&handle, &spec.host_ports);
        if more.is_err() {
            // One that was destroyed a moment ago may still have it.
            self.finish();
            more = self.claims().add_ports(&handle, &spec.host_ports);
        }
        ports.extend(more?);
        if !ports.is_empty() {
            self.note_ports(&self.claims());
        }
        let addresses = match &*spec.network {
            "" => None,
            network => {
                // One that was destroyed a moment ago may still have it.
                let claimed = self.net.claim(slot, network).or_else(|_| {
                    self.finish();
                    self.net.claim(slot, network)
                });
                Some(claimed.map_err(|err| step("find an address for", &handle, err))?)
            }
        };
        let boot = boot_id();
        Ok((Entry { format: FORMAT, spec, slot, ports, addresses, pid: None, boot }, half))
    }
}

impl<'a> Making<'a> {
    /// Pushes the undo of one step.
    fn push_undo(&self, now: Step, undo: &mut Undo<'a>) {
        let host = self.host;
        let handle = self.entry.spec.handle.clone();
        match now {
            Step::Depot => undo.push_base("remove the depot entry", move |clean| {
                // What is left is found again by its entry, at the next start at the latest.
                if !clean {
                    return Ok(());
                }
                host.depot.remove(&handle).map_err(|err| step("remove", &handle, err))
            }),
            Step::Writable => undo.push("remove the writable layer", move || {
                host.store.remove_writable(&handle).map_err(|err| step("clear", &handle, err))
            }),
            Step::Cgroup => {
                let group = self.group.clone();
                undo.push("remove the cgroup", move || {
                    group.remove().map_err(|err| step("remove the cgroup of", &handle, err))
                });
                if self.of_half {
                    // Its process is in there from the beginning.
                    self.push_undo(Step::Spawn, undo);
                }
            }
            // Twice: what is made after the first shall be removed when the processes are gone.
            Step::Init | Step::Plan => {
                let (child, group) = (self.child.clone(), self.group.clone());
                undo.push("end the init process", move || {
                    let first = end_first(&child);
                    let ended = host::end_group(&group);
                    // A pid 1 that ends by itself is in no group any more, but in `init`'s
                    // process group, and nobody else waits for it.
                    if let Some(first) = first {
                        sys::process::reap_process_group(first, host::DEATH_MAX_MS);
                    }
                    ended.map_err(|err| step("end", &handle, err))
                });
            }
            Step::Spawn => {
                let child = self.child.clone();
                undo.push("end the waiting init process", move || {
                    // Its pid 1, if there is one already, has nobody at the other end of its channel.
                    if let Some(first) = end_first(&child) {
                        sys::process::reap_process_group(first, host::DEATH_MAX_MS);
                    }
                    Ok(())
                });
            }
            Step::Bridge if !self.bridged => {}
            Step::Bridge | Step::Links => {
                let slot = self.entry.slot;
                undo.push("remove links and rules", move || {
                    host.net.release(slot).map_err(|err| step("disconnect", &handle, err))
                });
            }
            Step::Listener | Step::Rules | Step::Inside | Step::Commit | Step::Connect => {}
        }
    }

    /// Pushes the undo of groups that were made ahead and have no other name yet.
    fn push_undo_ahead(&self, undo: &mut Undo<'a>) {
        let (host, slot, handle) = (self.host, self.entry.slot, self.entry.spec.handle.clone());
        undo.push("remove the cgroup that was made ahead", move || {
            let removed = host.cgroups.remove_ahead(slot);
            removed.map_err(|err| step("remove the cgroup of", &handle, err))
        });
    }

    /// Does one step.
    fn act(&mut self, now: Step) -> Result<(), Cause> {
        let (host, spec) = (self.host, &self.entry.spec);
        match now {
            Step::Depot if self.half.is_some() => {
                host.depot.make_of_reserve(&self.entry)?;
                self.take_over();
            }
            Step::Depot => host.depot.make(&self.entry)?,
            Step::Writable => {
                let (limit, ids) = (spec.limits.disk, self.entry.ids());
                self.writable = match spec.root {
                    RootDriver::Union => host.store.create_writable(&spec.handle, limit, ids)?,
                    RootDriver::Snapshot => {
                        self.layers()?;
                        let (tree, _pin) = image::merge(&host.store, &spec.layers)?;
                        host.store.create_snapshot(&spec.handle, &tree, limit)?
                    }
                };
            }
            Step::Cgroup => {
                let (handle, limits) = (&spec.handle, &spec.limits);
                self.group = match self.pid_one.filter(|_| self.of_half) {
                    Some(pid) => host.cgroups.adopt(self.entry.slot, handle, limits, pid)?,
                    None => host.cgroups.create(handle, limits, spec.posture.devices())?,
                }
            }
            Step::Listener => {
                let dir = File::open(host.depot.dir(&spec.handle))?;
                self.listener = Some(sys::socket::listen(dir.as_fd(), SOCKET, BACKLOG)?);
            }
            Step::Spawn => self.spawn_init()?,
            Step::Init => self.start_init()?,
            Step::Bridge => {
                self.bridged = self.may_lose_slot(host.net.make_bridge(self.entry.slot))?;
            }
            Step::Plan => self.send_plan()?,
            Step::Links => self.connect_network()?,
            Step::Rules => host.write_rules(&self.entry, &host::ports(&self.entry))?,
            Step::Inside => {
                self.build_inside()?;
                if !self.is_early {
                    self.settle()?;
                }
            }
            Step::Commit => host.depot.write(&self.entry)?,
            Step::Connect => {
                self.connected = Some(Container::connect(host, self.entry.clone())?);
            }
        }
        Ok(())
    }

    /// It was made of a half, and that one has ended without a word.
    fn half_has_died(&self) -> bool {
        self.of_half && self.control.as_ref().is_some_and(sys::fd::has_hung_up)
    }

    /// A link that is there already is somebody else's, and its slot with it.
    fn may_lose_slot<T>(&self, made: Result<T, NetError>) -> Result<T, NetError> {
        if matches!(made, Err(NetError::LinkExists { .. })) {
            self.host.claims().lose_slot(&self.entry.spec.handle);
        }
        made
    }

    /// The cause of a failed step, which is the memory limit when the kernel has killed `init` for it,
    /// or refused it memory: a closed connection, a silence or ENOMEM tells nobody anything.
    fn short_of_memory(&self, source: Cause) -> Cause {
        /// ENOMEM, as it is told; from `init` only words come.
        const NO_MEMORY: &str = "(os error 12)";
        let is_short = |limit: crate::unit::Bytes| {
            let refused = limit.get() < MEMORY_MIN && chain(&*source).contains(NO_MEMORY);
            refused || self.group.stats().is_ok_and(|stats| stats.oom_kills > 0)
        };
        match self.entry.spec.limits.memory {
            Some(limit) if is_short(limit) => format!(
                "its memory limit of {} bytes is too small for its init process; ask for \
                 {MEMORY_MIN} or more",
                limit.get()
            )
            .into(),
            _ => source,
        }
    }
}

/// Kills the first process of `init` unless it was ended or waited for before; returns its id, which
/// is its process group's as well.
fn end_first(child: &Mutex<Option<i32>>) -> Option<i32> {
    let child = lock(child).take();
    child.inspect(|pid| Init::end(*pid))
}

/// The child, whoever panicked with it in hand.
fn lock(child: &Mutex<Option<i32>>) -> MutexGuard<'_, Option<i32>> {
    child.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}
