//! Peas: processes of a container that have a root filesystem of their own.
//!
//! A pea's root is made of layers and a writable disk, as a container's; network, pids, ipc, user and
//! host name are the container's, and so are its /etc/hosts and the like. The disk has no limit
//! unless the store's; it is removed by [`Host::remove_pea`], at the latest with the container. What
//! is written down for it in the depot makes the next daemon find it.

use super::create::{etc, hear};
use super::depot::Entry;
use super::error::{Cause, ContainerError};
use super::host::{Host, step};
use super::posture::{self, Posture};
use crate::init::proto::{Bind, MAX_MESSAGE, Order, PeaPlan, Plan, SetUp};
use crate::sys;
use crate::unit::{Digest, Handle};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

/// What a person reads after "cannot".
const DOING: &str = "make the root of a pea in";

/// The root of a pea, which stands as long as somebody has this or a process runs in it. The disk
/// below it is not removed with it: see [`Host::remove_pea`].
pub struct PeaRoot {
    root: OwnedFd,
    space: OwnedFd,
    pts: OwnedFd,
}

impl PeaRoot {
    /// The descriptors in the protocol's order.
    pub(super) fn fds(&self) -> [BorrowedFd<'_>; 3] {
        [self.root.as_fd(), self.space.as_fd(), self.pts.as_fd()]
    }
}

impl Host {
    /// Makes the root filesystem of the pea `pea` (any text; the id of its process) of a container
    /// that stands: `layers` lowest first, `binds` of the box. On any failure nothing of it is left.
    /// `Absent`: the container is not there, or not at rest. Blocking.
    pub fn make_pea_root(
        &self,
        container: &Handle,
        pea: &str,
        layers: Vec<Digest>,
        binds: Vec<Bind>,
    ) -> Result<PeaRoot, ContainerError> {
        let entry = self.at_rest(container)?;
        let disk = disk_name(container, pea);
        let refused = |source: Cause| step(DOING, container, source);
        // Before the disk is made: whatever happens next, it is found again.
        self.depot.add_pea(container, &disk, pea).map_err(|err| refused(err.into()))?;
        let made = self.build_pea(&entry, &disk, &layers, binds).map_err(refused);
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

    /// Makes the disk and has `init` put the root together.
    fn build_pea(
        &self,
        entry: &Entry,
        disk: &Handle,
        layers: &[Digest],
        binds: Vec<Bind>,
    ) -> Result<PeaRoot, Cause> {
        let (pid, started) = entry.process().ok_or("it does not run")?;
        let pidfd = sys::process::pidfd_open(pid)?;
        if sys::process::start_time(pid)? != started {
            return Err("its init process has ended".into());
        }
        let writable = self.store.create_writable(disk, None, entry.ids())?;
        let plan = self.pea_plan(entry, writable, layers, binds)?;
        let order = serde_json::to_vec(&Order::Pea(PeaPlan { beside: pid, plan }))?;
        if order.len() > MAX_MESSAGE {
            return Err(format!("the plan takes {} bytes, over {MAX_MESSAGE}", order.len()).into());
        }
        let (ours, theirs) = sys::socket::pair()?;
        let mut child = Command::new(&self.program)
            .arg0("terrarium")
            .arg("init")
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null())
            .current_dir("/")
            .env_clear()
            .process_group(0)
            .spawn()?;
        let heard = sys::socket::send_with_fds(&ours, &order, &[pidfd.as_fd()])
            .map_err(Cause::from)
            .and_then(|()| hear(&ours));
        // It has nothing more to do; one that hangs is no use, and its child goes with its pidfd's.
        drop(ours);
        if heard.is_err() {
            let _ = child.kill();
        }
        child.wait()?;
        match heard? {
            (SetUp::Rooted, fds) => {
                let [root, space, pts] = <[OwnedFd; 3]>::try_from(fds)
                    .map_err(|fds| format!("init sent {} descriptors, not 3", fds.len()))?;
                Ok(PeaRoot { root, space, pts })
            }
            (SetUp::Refused { doing, why, .. }, _) => {
                Err(format!("init cannot {doing}: {why}").into())
            }
            (other, _) => Err(format!("init said {other:?} out of turn").into()),
        }
    }

    /// The container's plan with what is the pea's own.
    fn pea_plan(
        &self,
        entry: &Entry,
        writable: PathBuf,
        layers: &[Digest],
        own: Vec<Bind>,
    ) -> Result<Plan, Cause> {
        let posture = entry.spec.posture;
        let dir = self.depot.dir(&entry.spec.handle);
        let lower =
            |chain| self.store.layer(chain).ok_or(ContainerError::NoLayer { chain: *chain });
        let mut binds: Vec<Bind> =
            ["hosts", "resolv.conf", "hostname"].map(|name| etc(&dir, name)).into();
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
            capabilities: posture.capabilities(),
            no_new_privs: posture.no_new_privs(),
            user_capabilities: posture.user_capabilities(),
            privileged: posture == Posture::Privileged,
            masked,
            read_only,
            shm_bytes: posture::SHM_BYTES,
        })
    }
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
