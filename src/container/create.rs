//! Walks the recipe. Blocking: callers put it on the pool.

use super::client::Container;
use super::depot::{Entry, FORMAT, boot_id};
use super::error::{Cause, ContainerError};
use super::host::{self, Host, step};
use super::posture::{self, Posture};
use super::recipe::{CREATE, Step};
use super::spans::Watch;
use super::spawner::Init;
use super::spec::{ContainerSpec, RootDriver};
use super::undo::Undo;
use crate::cgroup::Group;
use crate::image;
use crate::init::proto::{MAX_MESSAGE, Order, Owner, Plan, SetUp};
use crate::net::NetError;
use crate::sys;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};

/// A failure that a test asks for: after this step was done, as if it had failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fault {
    /// None: the normal case.
    #[default]
    None,
    /// After step `n` of [`CREATE`].
    After(usize),
}

/// How long `init` may take for each of its two halves, in milliseconds; it is far from normal to
/// need a second.
const INIT_MAX_MS: u16 = 60_000;

/// The memory limit that is recommended to who asked for one that no container starts with, in bytes.
/// On Linux 6 some 768 KiB are enough for pid 1 alone; what counts besides differs between kernels.
const MEMORY_MIN: u64 = 4 << 20;

/// Where pid 1 serves, in the container's depot directory.
pub(super) const SOCKET: &str = "init.sock";

/// Daemons that may wait to be accepted by pid 1: one, and one that replaces it.
const BACKLOG: u16 = 4;

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
    /// The first process of `init`. Shared with the undos of the steps that know it; whichever comes
    /// first ends it.
    child: Arc<Mutex<Option<i32>>>,
    connected: Option<Container>,
}

impl Host {
    /// Makes a container; on any failure nothing of it is left on the box.
    pub fn create(&self, spec: ContainerSpec, fault: Fault) -> Result<Container, ContainerError> {
        self.stir();
        let handle = spec.handle.clone();
        let mut undo = Undo::default();
        let mut watch = Watch::start();
        let entry = self.acquire(spec, &mut undo)?;
        let mut making = Making {
            host: self,
            group: self.cgroups.find(&handle),
            entry,
            writable: PathBuf::new(),
            listener: None,
            control: None,
            netns: None,
            bridged: false,
            child: Arc::default(),
            connected: None,
        };
        for (n, now) in CREATE.into_iter().enumerate() {
            watch.begin();
            // Pushed before the step: a step that fails half-way is taken back too, and every
            // removal is content with what is not there. But links take themselves back: one that
            // was there before is somebody else's.
            let is_link = matches!(now, Step::Bridge | Step::Links);
            if !is_link {
                making.push_undo(now, &mut undo);
            }
            let done = making.act(now).map_err(|source| making.short_of_memory(source));
            done.map_err(|source| step(now.doing(), &handle, source))?;
            if is_link {
                making.push_undo(now, &mut undo);
            }
            watch.end(n);
            sys::fault::point(format_args!("create:{}", now.name()));
            if fault == Fault::After(n) {
                return Err(step(now.doing(), &handle, ContainerError::Injected));
            }
        }
        undo.keep();
        self.claims().rest(&handle);
        self.spans.add(&watch);
        Ok(making.connected.take().expect("the last step connects"))
    }

    /// Takes a slot and the host ports.
    fn acquire<'a>(
        &'a self,
        spec: ContainerSpec,
        undo: &mut Undo<'a>,
    ) -> Result<Entry, ContainerError> {
        let handle = spec.handle.clone();
        let (slot, mut ports) = self.begin(&handle, &spec.ports)?;
        // Only now: whoever works on this handle has claimed it.
        if self.depot.dir(&handle).exists() {
            self.claims().forget(&handle);
            return Err(ContainerError::Exists(handle));
        }
        let name = handle.clone();
        undo.push_base("release slot, addresses and ports", move |clean| {
            let mut claims = self.claims();
            // What is left on the box keeps its numbers: the next container would meet it.
            if clean {
                self.net.unclaim(slot);
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
        Ok(Entry { format: FORMAT, spec, slot, ports, addresses, pid: None, boot: boot_id() })
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
                    end_first(&child);
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

    /// Does one step.
    fn act(&mut self, now: Step) -> Result<(), Cause> {
        let (host, spec) = (self.host, &self.entry.spec);
        match now {
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
                self.group =
                    host.cgroups.create(&spec.handle, &spec.limits, spec.posture.devices())?
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
            Step::Links => {
                let netns = self.netns.as_ref().expect("the plan step received it");
                let (slot, netns) = (self.entry.slot, netns.as_fd());
                self.may_lose_slot(match self.bridged {
                    true => host.net.plug(slot, netns),
                    false => host.net.attach(slot, netns),
                })?;
            }
            Step::Rules => host.write_rules(&self.entry, &host::ports(&self.entry))?,
            Step::Inside => {
                self.build_inside()?;
                // Both ends are up now; before the kernel has seen it, a first packet would wait.
                host.net.settle(self.entry.slot)?;
            }
            Step::Commit => host.depot.write(&self.entry)?,
            Step::Connect => {
                self.connected = Some(Container::connect(host, self.entry.clone())?);
            }
        }
        Ok(())
    }

    /// A link that is there already is somebody else's, and its slot with it.
    fn may_lose_slot<T>(&self, made: Result<T, NetError>) -> Result<T, NetError> {
        if matches!(made, Err(NetError::LinkExists { .. })) {
            self.host.claims().lose_slot(&self.entry.spec.handle);
        }
        made
    }

    /// Spawns `init`, which does nothing until it is told what. If we end before, so does it.
    fn spawn_init(&mut self) -> Result<(), Cause> {
        let Init { pid, channel } = self.host.spawner.spawn()?;
        *lock(&self.child) = Some(pid);
        self.control = Some(channel);
        Ok(())
    }

    /// Puts `init` into the groups and has it make the namespaces.
    fn start_init(&mut self) -> Result<(), Cause> {
        // In the groups before it is told what to do, so nothing of it runs unlimited.
        let pid = lock(&self.child).expect("the spawn step made it");
        self.group.add(pid)?;
        let privileged = self.entry.spec.posture == Posture::Privileged;
        let order = Order::Container(Owner { ids: self.entry.ids(), privileged });
        let control = self.control.as_ref().expect("the spawn step made it");
        tell(control, &serde_json::to_vec(&order)?, &[])
    }

    /// Takes the network namespace of `init` and sends it the plan.
    fn send_plan(&mut self) -> Result<(), Cause> {
        let ours = self.control.take().expect("the spawn step made it");
        let plan = serde_json::to_vec(&self.plan()?)?;
        if plan.len() > MAX_MESSAGE {
            return Err(format!("the plan takes {} bytes, over {MAX_MESSAGE}", plan.len()).into());
        }
        let listener = self.listener.take().expect("the listener step made it");
        let depot = File::open(self.host.depot.dir(&self.entry.spec.handle).join("init"))?;
        let fds = [listener.as_fd(), depot.as_fd(), self.host.seccomp.as_fd()];
        // Before it knows of them: it builds the inside while the network is being made.
        self.host.write_etc(&self.entry)?;
        let (said, mut came) = hear(&ours)?;
        match said {
            SetUp::Born => self.netns = Some(came.pop().ok_or("init sent no network namespace")?),
            other => return Err(refusal(other)),
        }
        tell(&ours, &plan, &fds)?;
        self.control = Some(ours);
        Ok(())
    }

    /// Lets `init` go on and learns its pid 1.
    fn build_inside(&mut self) -> Result<(), Cause> {
        let control = self.control.take().expect("the init step made it");
        tell(&control, &serde_json::to_vec(&SetUp::Go)?, &[])?;
        match hear(&control)?.0 {
            SetUp::Ready { pid } => {
                self.entry.pid = Some((pid, sys::process::start_time(pid)?));
                if let Some(child) = lock(&self.child).take() {
                    Init::wait(child);
                }
                Ok(())
            }
            other => Err(refusal(other)),
        }
    }

    /// The cause of a failed step, which is the memory limit when the kernel has killed `init` for it,
    /// or refused it memory: a closed connection, a silence or ENOMEM tells nobody anything.
    fn short_of_memory(&self, source: Cause) -> Cause {
        /// ENOMEM, as it is told; from `init` only words come.
        const NO_MEMORY: &str = "(os error 12)";
        let is_short = |limit: crate::unit::Bytes| {
            let refused =
                limit.get() < MEMORY_MIN && crate::log::chain(&*source).contains(NO_MEMORY);
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

    /// Where the layers are; one at least.
    fn layers(&self) -> Result<Vec<PathBuf>, Cause> {
        let (store, layers) = (&self.host.store, &self.entry.spec.layers);
        if layers.is_empty() {
            return Err("its root has no layers; name at least one".into());
        }
        let place = |chain| store.layer(chain).ok_or(ContainerError::NoLayer { chain: *chain });
        Ok(layers.iter().map(place).collect::<Result<_, _>>()?)
    }

    /// Everything that `init` must know.
    fn plan(&self) -> Result<Plan, Cause> {
        let (host, spec) = (self.host, &self.entry.spec);
        let dir = host.depot.dir(&spec.handle);
        let lowers = match spec.root {
            RootDriver::Union => self.layers()?,
            RootDriver::Snapshot => Vec::new(),
        };
        let mut binds = host.etc_binds(&self.entry);
        binds.extend(spec.binds.iter().cloned());
        let (masked, read_only) = spec.posture.closed();
        Ok(Plan {
            handle: spec.host_name().to_owned(),
            ids: self.entry.ids(),
            net: posture::inside_net(
                self.entry.slot,
                &host.net_tag,
                &host.net.addresses(self.entry.slot),
            ),
            lowers,
            writable: self.writable.clone(),
            scratch: dir.join("scratch"),
            binds,
            capabilities: spec.posture.capabilities(),
            no_new_privs: spec.posture.no_new_privs(),
            user_capabilities: spec.posture.user_capabilities(),
            privileged: spec.posture == Posture::Privileged,
            masked,
            read_only,
            shm_bytes: spec.posture.shm_bytes(spec.limits.memory),
            init_name: spec.posture.init_name(&spec.manner),
            apparmor: spec.posture.apparmor(&spec.manner),
        })
    }
}

/// Tells `init` something. When it has ended, what it said before is why.
fn tell(control: &OwnedFd, message: &[u8], fds: &[BorrowedFd<'_>]) -> Result<(), Cause> {
    let Err(err) = sys::socket::send_with_fds(control, message, fds) else { return Ok(()) };
    let has_ended = [io::ErrorKind::BrokenPipe, io::ErrorKind::ConnectionReset];
    // Nobody is there who could let us wait.
    match has_ended.contains(&err.kind()).then(|| hear(control)) {
        Some(Ok((said @ SetUp::Refused { .. }, _))) => Err(refusal(said)),
        _ => Err(err.into()),
    }
}

/// What `init` said instead of what it should have.
pub(super) fn refusal(said: SetUp) -> Cause {
    match said {
        SetUp::Refused { doing, why, pid } => {
            // The pid 1 that failed is a child of ours that nobody else waits for.
            if let Some(pid) = pid {
                let _ = sys::process::wait_within(pid, host::DEATH_MAX_MS);
            }
            format!("init cannot {doing}: {why}").into()
        }
        other => format!("init said {other:?} out of turn").into(),
    }
}

/// One message of `init`.
pub(super) fn hear(control: &OwnedFd) -> Result<(SetUp, Vec<OwnedFd>), Cause> {
    if !sys::fd::wait_readable(control, INIT_MAX_MS)? {
        return Err(format!("init has said nothing for {} s", INIT_MAX_MS / 1000).into());
    }
    let mut buffer = vec![0; 16 * 1024];
    let (length, fds) = sys::socket::recv_with_fds(control, &mut buffer)?;
    if length == 0 {
        return Err("init ended without a word; see its message in the daemon's log".into());
    }
    Ok((serde_json::from_slice(&buffer[..length])?, fds))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_init_that_has_ended_is_told_by_its_last_words() {
        let told = |last: Option<SetUp>| {
            let (ours, theirs) = sys::socket::pair().expect("a pair");
            if let Some(last) = last {
                let last = serde_json::to_vec(&last).expect("JSON");
                sys::socket::send_with_fds(&theirs, &last, &[]).expect("send");
            }
            drop(theirs);
            tell(&ours, b"{}", &[]).expect_err("nobody is there").to_string()
        };
        let (doing, why) = ("make a pid namespace".into(), "there are too many".into());
        let refused = SetUp::Refused { doing, why, pid: None };
        assert_eq!(told(Some(refused)), "init cannot make a pid namespace: there are too many");
        assert!(told(None).contains("Broken pipe"));
    }
}
