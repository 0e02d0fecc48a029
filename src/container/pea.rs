//! Peas: processes of a container that have a root filesystem of their own.
//!
//! A pea's root is made of layers and a writable disk, as a container's; network, pids, ipc, user and
//! host name are the container's, and so are its /etc/hosts and the like. The disk has the limit
//! that is asked for, or none but the store's; it is removed by [`Host::remove_pea`], at the latest
//! with the container. What is written down for it in the depot makes the next daemon find it.

use super::create::hear;
use super::depot::Entry;
use super::error::{Cause, ContainerError};
use super::host::{Host, await_end, step};
use super::link::ANSWER_MAX;
use super::posture::{self, Posture};
use super::spawner::Init;
use crate::init::proto::{Answer, Bind, MAX_MESSAGE, Order, PeaPlan, PeaStart, Plan, Reply, SetUp};
use crate::model::limits::Limits;
use crate::model::process::ProcessSpec;
use crate::sys;
use crate::sys::signal::KILL;
use crate::unit::{Bytes, Digest, Handle};
use async_io::Async;
use smol::lock::Mutex;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

/// What a person reads after "cannot".
const DOING: &str = "make the root of a pea in";

/// The root of a pea, and who starts processes in it: a process of ours in the container, which ends
/// when this is dropped. The root stands on as long as processes run in it. The disk below it is not
/// removed with it: see [`Host::remove_pea`].
pub struct PeaRoot {
    keeper: Mutex<Keeper>,
    pidfd: Option<OwnedFd>,
}

/// The channel to the process, and the number of the last request.
struct Keeper {
    channel: Option<Async<OwnedFd>>,
    seq: u64,
}

impl PeaRoot {
    /// Has a process forked that waits at its gate; what comes beside
    /// [`Answer::Forked`]. `None`: nobody is there to do so.
    pub(super) async fn fork(
        &self,
        spec: ProcessSpec,
        sent: &[BorrowedFd<'_>],
    ) -> io::Result<Option<(Answer, Vec<OwnedFd>)>> {
        let too_long = async {
            async_io::Timer::after(ANSWER_MAX).await;
            None
        };
        let asked = async { Some(self.ask(spec, sent).await) };
        if let Some(answer) = smol::future::or(asked, too_long).await {
            return answer;
        }
        // What it forks after all finds nobody who opens its gate, and ends.
        self.keeper.lock().await.channel = None;
        let text = format!("the root's keeper has not answered for {} s", ANSWER_MAX.as_secs());
        Err(io::Error::new(io::ErrorKind::TimedOut, text))
    }

    async fn ask(
        &self,
        spec: ProcessSpec,
        sent: &[BorrowedFd<'_>],
    ) -> io::Result<Option<(Answer, Vec<OwnedFd>)>> {
        // One start after the other: held for as long as the answer takes.
        let mut keeper = self.keeper.lock().await;
        keeper.seq += 1;
        let seq = keeper.seq;
        let request = serde_json::to_vec(&PeaStart { seq, spec })?;
        if request.len() > MAX_MESSAGE {
            let text = format!("the request takes {} bytes, over {MAX_MESSAGE}", request.len());
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        let Some(channel) = &keeper.channel else { return Ok(None) };
        channel.write_with(|channel| sys::socket::send_with_fds(channel, &request, sent)).await?;
        let mut buffer = vec![0; MAX_MESSAGE];
        loop {
            let receive = |channel: &OwnedFd| sys::socket::recv_with_fds(channel, &mut buffer);
            let (length, fds) = channel.read_with(receive).await?;
            if length == 0 {
                return Ok(None);
            }
            let reply: Reply = serde_json::from_slice(&buffer[..length])?;
            // What an earlier request was answered, after its asker had gone, is of no use.
            if reply.seq == seq {
                return Ok(Some((reply.answer, fds)));
            }
        }
    }
}

impl Drop for PeaRoot {
    fn drop(&mut self) {
        self.keeper.get_mut().channel = None;
        // A child of ours: somebody must take its end, which comes at once.
        if let Some(pidfd) = self.pidfd.take() {
            smol::unblock(move || await_end(&pidfd)).detach();
        }
    }
}

impl Host {
    /// Makes the root filesystem of the pea `pea` (any text; the id of its process) of a container
    /// that stands: `layers` lowest first, `binds` of the box. `limits` are those of its own, if it has
    /// any: `disk` is the most that can be written into it. On any failure nothing of it is left.
    /// `Absent`: the container is not there, or not at rest. Blocking.
    pub fn make_pea_root(
        &self,
        container: &Handle,
        pea: &str,
        layers: Vec<Digest>,
        binds: Vec<Bind>,
        limits: Option<&Limits>,
    ) -> Result<PeaRoot, ContainerError> {
        let entry = self.at_rest(container)?;
        let disk = disk_name(container, pea);
        let refused = |source: Cause| step(DOING, container, source);
        // Before the disk is made: whatever happens next, it is found again.
        let written = self.depot.add_pea(container, &disk, pea, &layers);
        written.map_err(|err| refused(err.into()))?;
        let made = self.build_pea(&entry, (&disk, limits), &layers, binds).map_err(refused);
        // Whoever destroys the container has not seen what was made after he looked.
        let made = made.and_then(|root| self.at_rest(container).map(|_| root));
        if made.is_err()
            && let Err(err) = self.remove_disk(container, &disk)
        {
            crate::warn!("pea.disk_left", handle = container, err = crate::log::chain(&*err));
        }
        made
    }

    /// Removes the disk of a pea that has ended; gone already is success. Blocking.
    pub fn remove_pea(&self, container: &Handle, pea: &str) -> Result<(), ContainerError> {
        self.remove_peas(container, |id| id == pea)
            .map_err(|source| step("remove the disk of a pea of", container, source))
    }

    /// Ids of the peas of a container that have a disk. After a restart of the daemon those without
    /// a process have ended meanwhile, or never began: remove them.
    pub fn peas(&self, container: &Handle) -> Result<Vec<String>, ContainerError> {
        let peas = self.depot.peas(container);
        let peas = peas.map_err(|source| step("list the peas of", container, source))?;
        Ok(peas.into_iter().map(|(_, pea)| pea).collect())
    }

    /// The layers that each pea of a container is made of, lowest first.
    pub fn pea_layers(&self, container: &Handle) -> Result<Vec<Vec<Digest>>, ContainerError> {
        let layers = self.depot.pea_layers(container);
        layers.map_err(|source| step("list the layers of the peas of", container, source))
    }

    /// Removes the disks of those peas; tries all before it reports one that is left.
    pub(super) fn remove_peas(
        &self,
        container: &Handle,
        which: impl Fn(&str) -> bool,
    ) -> Result<(), Cause> {
        let mut result = Ok(());
        for (disk, pea) in self.depot.peas(container)? {
            if which(&pea) {
                result = self.remove_disk(container, &disk).and(result);
            }
        }
        result
    }

    /// Removes one disk, and after it what is written down of it.
    fn remove_disk(&self, container: &Handle, disk: &Handle) -> Result<(), Cause> {
        self.store.remove_writable(disk)?;
        Ok(self.depot.remove_pea(container, disk)?)
    }

    /// The entry of a container that stands and that nobody makes or removes.
    fn at_rest(&self, container: &Handle) -> Result<Entry, ContainerError> {
        let claims = self.claims();
        let entry = self.entry(container)?.filter(|entry| claims.rests(entry));
        entry.ok_or_else(|| ContainerError::Absent(container.clone()))
    }

    /// Makes the disk with its limit and has `init` put the root together.
    fn build_pea(
        &self,
        entry: &Entry,
        (disk, limits): (&Handle, Option<&Limits>),
        layers: &[Digest],
        binds: Vec<Bind>,
    ) -> Result<PeaRoot, Cause> {
        let (pid, started) = entry.process().ok_or("it does not run")?;
        let pidfd = sys::process::pidfd_open(pid)?;
        if sys::process::start_time(pid)? != started {
            return Err("its init process has ended".into());
        }
        let writable =
            self.store.create_writable(disk, limits.and_then(|own| own.disk), entry.ids())?;
        // With limits of its own what it puts there is on its own account, of which pid 1 takes nothing.
        let memory = entry.spec.limits.memory.filter(|_| limits.is_none());
        let plan = self.pea_plan(entry, (writable, memory), layers, binds)?;
        let order = serde_json::to_vec(&Order::Pea(Box::new(PeaPlan { beside: pid, plan })))?;
        if order.len() > MAX_MESSAGE {
            return Err(format!("the plan takes {} bytes, over {MAX_MESSAGE}", order.len()).into());
        }
        let Init { pid, channel: ours } = self.spawner.spawn()?;
        let made = self.order(&entry.spec.handle, pid, &ours, &order, &pidfd);
        if made.is_err() {
            // If it goes on, the keeper has nobody to serve, and ends too.
            Init::end(pid);
        } else {
            Init::wait(pid);
        }
        match made {
            Ok(keeper) => {
                let channel = Some(Async::new(ours)?);
                Ok(PeaRoot { keeper: Mutex::new(Keeper { channel, seq: 0 }), pidfd: Some(keeper) })
            }
            Err(why) => {
                drop(ours);
                sys::process::reap_process_group(pid, super::host::DEATH_MAX_MS);
                Err(why)
            }
        }
    }

    /// Puts `init` into the container's groups, tells it what to do, and hears that it is done; the
    /// keeper's pidfd.
    fn order(
        &self,
        container: &Handle,
        pid: i32,
        channel: &OwnedFd,
        order: &[u8],
        beside: &OwnedFd,
    ) -> Result<OwnedFd, Cause> {
        // Before it is told: nothing of it runs unlimited.
        self.cgroups.find(container).add(pid)?;
        sys::socket::send_with_fds(channel, order, &[beside.as_fd(), self.seccomp.as_fd()])?;
        let (mut keeper, mut failed, mut rooted) = (None::<OwnedFd>, None::<String>, false);
        loop {
            // Told from two sides, in whatever order: the keeper's existence, and its success.
            match hear(channel) {
                Ok((SetUp::Ready { .. }, mut fds)) if keeper.is_none() => keeper = fds.pop(),
                Ok((SetUp::Rooted, _)) if !rooted => rooted = true,
                Ok((SetUp::Refused { doing, why, .. }, _)) if failed.is_none() => {
                    failed = Some(format!("init cannot {doing}: {why}"));
                }
                Ok((other, _)) => return Err(format!("init said {other:?} out of turn").into()),
                // There never was a keeper, or it was killed, or it hangs.
                Err(err) => {
                    keeper.as_ref().map_or(Ok(()), end)?;
                    return Err(failed.map_or(err, Cause::from));
                }
            }
            match (&keeper, &failed) {
                (Some(_), None) if rooted => return Ok(keeper.expect("just seen")),
                (Some(keeper), Some(why)) => {
                    end(keeper)?;
                    return Err(why.clone().into());
                }
                _ => {}
            }
        }
    }

    /// The container's plan with what is the pea's own: its disk, and the memory that bounds
    /// its files in memory.
    fn pea_plan(
        &self,
        entry: &Entry,
        (writable, memory): (PathBuf, Option<Bytes>),
        layers: &[Digest],
        own: Vec<Bind>,
    ) -> Result<Plan, Cause> {
        let posture = entry.spec.posture;
        let dir = self.depot.dir(&entry.spec.handle);
        let lower =
            |chain| self.store.layer(chain).ok_or(ContainerError::NoLayer { chain: *chain });
        let mut binds = self.etc_binds(entry);
        binds.extend(own);
        let (masked, read_only) = posture.closed();
        let addresses = self.net.addresses(entry.slot);
        Ok(Plan {
            handle: entry.spec.handle.to_string(),
            ids: entry.ids(),
            net: posture::inside_net(entry.slot, &self.net_tag, &addresses),
            lowers: layers.iter().map(lower).collect::<Result<_, _>>()?,
            writable,
            scratch: dir.join("scratch"),
            binds,
            // Guardian makes them for containers alone.
            volumes: Vec::new(),
            capabilities: posture.capabilities(),
            no_new_privs: posture.no_new_privs(),
            user_capabilities: posture.user_capabilities(),
            privileged: posture == Posture::Privileged,
            masked,
            read_only,
            shm_bytes: posture.shm_bytes(memory),
            // Its group is not pid 1's.
            memory_bytes: 0,
            init_name: String::new(),
            notify: false,
            apparmor: posture.apparmor(&entry.spec.manner),
        })
    }
}

/// Ends a keeper and takes its end, which nobody else would.
fn end(keeper: &OwnedFd) -> io::Result<()> {
    // Dead already is just as well.
    let _ = sys::process::pidfd_send_signal(keeper, KILL);
    await_end(keeper)
}

/// The name of a new disk: another one each time, as the last one of the same pea may still be there.
fn disk_name(container: &Handle, pea: &str) -> Handle {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let next = NEXT.fetch_add(1, Ordering::Relaxed);
    let text = format!("{container}\0{pea}\0{}\0{next}", since.as_nanos());
    let digest = Digest::of(text.as_bytes()).to_string();
    let hex = digest.rsplit(':').next().unwrap_or_default();
    format!("pea-{}", &hex[..40]).parse().expect("letters and digits, 44 of them")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disks_have_names_of_their_own() {
        let handle: Handle = "web-0".parse().expect("handle");
        let (one, two) = (disk_name(&handle, "a/b"), disk_name(&handle, "a/b"));
        assert!(one != two && one.as_str().starts_with("pea-"), "{one} {two}");
    }
}
