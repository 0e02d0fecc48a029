//! What the daemon and `init` say to each other while a container is made, and what it is told.

use super::{Making, lock};
use crate::container::error::{Cause, ContainerError};
use crate::container::reserve::{self, Unused};
use crate::container::spawner::Init;
use crate::container::spec::RootDriver;
use crate::container::{Posture, host, posture};
use crate::init::proto::{MAX_MESSAGE, Order, Owner, Plan, SetUp};
use crate::sys;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

/// How long `init` may take for each of its two halves, in milliseconds; it is far from normal to
/// need a second.
pub(in crate::container) const INIT_MAX_MS: u16 = 60_000;

/// The same where nobody has asked for what it makes, and others wait behind it.
pub(in crate::container) const AHEAD_MAX_MS: u16 = 5_000;

impl Making<'_> {
    /// Spawns `init`, which does nothing until it is told what. If we end before, so does it.
    pub(super) fn spawn_init(&mut self) -> Result<(), Cause> {
        let Init { pid, channel } = self.host.spawner.spawn()?;
        *lock(&self.child) = Some(pid);
        let channel = self.control.insert(channel);
        if !self.is_early {
            return Ok(());
        }
        let entry = &self.entry;
        let place = self.host.depot.dir(&entry.spec.handle).join("scratch");
        let net = &self.host.net.addresses(entry.slot);
        let net = posture::inside_net(entry.slot, &self.host.net_tag, net);
        tell(channel, &reserve::order(entry.ids(), net, place)?, &[])
    }

    /// Makes the links. An early `init` has its network then, and goes on.
    pub(super) fn connect_network(&mut self) -> Result<(), Cause> {
        if self.is_early {
            self.await_birth()?;
        }
        let netns = self.netns.as_ref().expect("it was received before");
        let (slot, netns, net) = (self.entry.slot, netns.as_fd(), &self.host.net);
        self.may_lose_slot(match self.bridged {
            true => net.plug(slot, netns),
            false => net.attach(slot, netns),
        })?;
        match &self.control {
            Some(control) if self.is_early => tell(control, &serde_json::to_vec(&SetUp::Go)?, &[]),
            _ => Ok(()),
        }
    }

    /// Waits for the network namespace of `init`.
    fn await_birth(&mut self) -> Result<(), Cause> {
        let (said, mut came) = hear(self.control.as_ref().expect("the spawn step made it"))?;
        match said {
            SetUp::Born => {
                self.netns = Some(came.pop().ok_or("init sent no network namespace")?);
                Ok(())
            }
            other => Err(refusal(other)),
        }
    }

    /// Waits for the pid 1 of an early `init`; its network is up then.
    fn await_pid_one(&mut self) -> Result<(), Cause> {
        let pid = match hear(self.control.as_ref().expect("the spawn step made it"))?.0 {
            SetUp::Ready { pid } => pid,
            other => return Err(refusal(other)),
        };
        self.pid_one = Some(pid);
        let first = lock(&self.child).replace(pid);
        first.into_iter().for_each(Init::wait);
        self.settle()
    }

    /// Both ends of the network are up; before the kernel has seen it, a first packet would wait.
    pub(super) fn settle(&self) -> Result<(), Cause> {
        self.host.net.settle(self.entry.slot)?;
        Ok(())
    }

    /// Takes over what was made ahead. The entry is written: that names the slot now.
    pub(super) fn take_over(&mut self) {
        let Some(half) = self.half.take().and_then(Unused::take) else { return };
        *lock(&self.child) = Some(half.pid);
        self.pid_one = Some(half.pid);
        self.control = Some(half.channel);
        self.listener = Some(half.listener);
        self.bridged = true;
        self.of_half = true;
    }

    /// Puts `init` into the groups and has it make the namespaces.
    pub(super) fn start_init(&mut self) -> Result<(), Cause> {
        // In the groups before it is told what to do, so nothing of it runs unlimited. An early one only
        // puts mounts together before, and waits for our word then.
        // That of a half has been in them since they were made its own.
        if !self.of_half {
            self.group.add(lock(&self.child).expect("the spawn step made it"))?;
        }
        if self.is_early {
            return self.let_go();
        }
        let privileged = self.entry.spec.posture == Posture::Privileged;
        let order = Order::Container(Owner { ids: self.entry.ids(), privileged });
        let control = self.control.as_ref().expect("the spawn step made it");
        tell(control, &serde_json::to_vec(&order)?, &[])
    }

    /// Sends `init` the plan, once it can take it.
    pub(super) fn send_plan(&mut self) -> Result<(), Cause> {
        // Before it knows of them: it builds the inside while the network is being made.
        self.host.write_etc(&self.entry)?;
        let plan = serde_json::to_vec(&self.plan()?)?;
        if plan.len() > MAX_MESSAGE {
            return Err(format!("the plan takes {} bytes, over {MAX_MESSAGE}", plan.len()).into());
        }
        match (self.is_early, self.pid_one) {
            (true, None) => self.await_pid_one()?,
            (true, Some(_)) => {}
            (false, _) => self.await_birth()?,
        }
        let ours = self.control.as_ref().expect("the spawn step made it");
        let listener = self.listener.take().expect("the listener step made it");
        let depot = File::open(self.host.depot.dir(&self.entry.spec.handle).join("init"))?;
        let fds = [listener.as_fd(), depot.as_fd(), self.host.seccomp.as_fd()];
        tell(ours, &plan, &fds)
    }

    /// Lets `init` go on.
    fn let_go(&self) -> Result<(), Cause> {
        let control = self.control.as_ref().expect("the spawn step made it");
        tell(control, &serde_json::to_vec(&SetUp::Go)?, &[])
    }

    /// Lets `init` go on, unless it does already, and learns its pid 1.
    pub(super) fn build_inside(&mut self) -> Result<(), Cause> {
        if !self.is_early {
            self.let_go()?;
        }
        let said = hear(self.control.as_ref().expect("as before"))?.0;
        // It has no more to say here.
        self.control = None;
        match said {
            SetUp::Ready { pid } => {
                // Made ahead it does not know its number here, and there is no other process.
                let pid = self.pid_one.unwrap_or(pid);
                self.entry.pid = Some((pid, sys::process::start_time(pid)?));
                if let Some(child) = lock(&self.child).take().filter(|child| *child != pid) {
                    Init::wait(child);
                }
                Ok(())
            }
            other => Err(refusal(other)),
        }
    }

    /// Where the layers are; one at least.
    pub(super) fn layers(&self) -> Result<Vec<PathBuf>, Cause> {
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
            volumes: spec.volumes.clone(),
            capabilities: spec.posture.capabilities(),
            no_new_privs: spec.posture.no_new_privs(),
            user_capabilities: spec.posture.user_capabilities(),
            privileged: spec.posture == Posture::Privileged,
            masked,
            read_only,
            shm_bytes: spec.posture.shm_bytes(spec.limits.memory),
            memory_bytes: spec.limits.memory.map_or(0, |limit| limit.get()),
            init_name: spec.posture.init_name(&spec.manner),
            notify: spec.notify,
            apparmor: spec.posture.apparmor(&spec.manner),
        })
    }
}

/// Tells `init` something. When it has ended, what it said before is why.
pub(in crate::container) fn tell(
    control: &OwnedFd,
    message: &[u8],
    fds: &[BorrowedFd<'_>],
) -> Result<(), Cause> {
    let Err(err) = sys::socket::send_with_fds(control, message, fds) else { return Ok(()) };
    let has_ended = [io::ErrorKind::BrokenPipe, io::ErrorKind::ConnectionReset];
    // Nobody is there who could let us wait.
    match has_ended.contains(&err.kind()).then(|| hear(control)) {
        Some(Ok((said @ SetUp::Refused { .. }, _))) => Err(refusal(said)),
        _ => Err(err.into()),
    }
}

/// What `init` said instead of what it should have.
pub(in crate::container) fn refusal(said: SetUp) -> Cause {
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
pub(in crate::container) fn hear(control: &OwnedFd) -> Result<(SetUp, Vec<OwnedFd>), Cause> {
    hear_within(control, INIT_MAX_MS)
}

/// The same, if it comes in so many milliseconds.
pub(in crate::container) fn hear_within(
    control: &OwnedFd,
    most_ms: u16,
) -> Result<(SetUp, Vec<OwnedFd>), Cause> {
    if !sys::fd::wait_readable(control, most_ms)? {
        return Err(format!("init has said nothing for {} s", most_ms / 1000).into());
    }
    let mut buffer = vec![0; 16 * 1024];
    let (length, fds) = sys::socket::recv_with_fds(control, &mut buffer)?;
    if length == 0 {
        return Err("init ended without a word; see its message in the daemon's log".into());
    }
    Ok((serde_json::from_slice(&buffer[..length])?, fds))
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
