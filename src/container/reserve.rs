//! Containers that are half made before anybody asks for one: a pid 1 that waits for its plan, in
//! namespaces with a network and the mounts that all containers have, as drawn in `init`'s `early`.
//!
//! Each has a slot, and its ids, addresses and link names with it; what asks for other ids or another
//! network is made from the beginning. They are made one by one by the thread that removes links, when
//! nothing has happened for a moment, and are none of the daemon's that comes next: their processes end
//! with this one's connection, and their links are found by the directory that the depot has of each slot.
//! That daemon removes them in the same way, before it makes its own.

use super::claims::Claims;
use super::create::{AHEAD_MAX_MS, BACKLOG, MEMORY_MIN, SOCKET, hear_within, refusal, tell};
use super::depot::Depot;
use super::error::Cause;
use super::host::{DEATH_MAX_MS, Host};
use super::leaving::lock as lock_claims;
use super::posture::{Posture, inside_net};
use super::quiet::Quiet;
use super::spawner::{Init, Spawner};
use super::spec::{ContainerSpec, IdMapping};
use crate::cgroup::Cgroups;
use crate::init::proto::{self, InsideNet, Order, SetUp};
use crate::net::{Net, NetError};
use crate::sys;
use crate::unit::{Handle, IdMap, Slot};
use std::collections::VecDeque;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long after its beginning the steps of making a half wait for quiet moments: who asks without a
/// pause has no use for halves that are never ready, and links are to be removed, too.
const GIVE_WAY_MAX: Duration = Duration::from_millis(300);

/// All that they are made of, and those that there are.
pub(super) struct Reserve {
    pub(super) spawner: Arc<Spawner>,
    pub(super) net: Arc<Net>,
    pub(super) cgroups: Arc<Cgroups>,
    pub(super) net_tag: String,
    pub(super) depot: Depot,
    pub(super) claims: Arc<Mutex<Claims>>,
    /// How many there may be.
    pub(super) most: usize,
    pub(super) quiet: Arc<Quiet>,
    pub(super) state: Mutex<State>,
}

/// Which there are.
#[derive(Default)]
pub(super) struct State {
    /// Whoever was found on the box has its numbers: slots may be taken for more.
    open: bool,
    /// The last one could not be made; tried again after the next container.
    failed: bool,
    /// Oldest first.
    ready: VecDeque<Half>,
    /// Slots of a daemon before us, whose halves have ended: their links and groups are to go.
    old: Vec<Slot>,
}

/// Half a container.
pub(super) struct Half {
    /// Its slot, with links and rules, and groups that have its number.
    pub(super) slot: Slot,
    /// Its pid 1, a child of ours; it ends when the channel closes.
    pub(super) pid: i32,
    /// Where that one waits for its plan.
    pub(super) channel: OwnedFd,
    /// Where it will serve, in the directory that will be its container's.
    pub(super) listener: OwnedFd,
}

/// Half a container that goes back to the reserve when it is dropped.
pub(super) struct Unused<'a> {
    host: &'a Host,
    /// Who has claimed its slot.
    handle: Option<Handle>,
    half: Option<Half>,
}

impl<'a> Unused<'a> {
    /// `half` was taken from the host's reserve.
    pub(super) fn new(host: &'a Host, half: Half) -> Unused<'a> {
        Unused { host, handle: None, half: Some(half) }
    }

    /// Its slot.
    pub(super) fn slot(&self) -> Option<Slot> {
        self.half.as_ref().map(|half| half.slot)
    }

    /// A container has claimed its slot.
    pub(super) fn claimed_by(&mut self, handle: &Handle) {
        self.handle = Some(handle.clone());
    }

    /// It does not go back.
    pub(super) fn take(mut self) -> Option<Half> {
        self.half.take()
    }
}

impl Drop for Unused<'_> {
    fn drop(&mut self) {
        let Some(half) = self.half.take() else { return };
        if let Some(handle) = &self.handle {
            self.host.claims().lose_slot(handle);
        }
        self.host.reserve.put_back(half);
    }
}

impl Reserve {
    /// From now on there may be some.
    pub(super) fn open(&self) {
        self.state().open = true;
    }

    /// From now on no more are made.
    pub(super) fn close(&self) {
        self.state().open = false;
    }

    /// One for a container of this kind, if there is one. What dies meanwhile is found later.
    pub(super) fn take(&self, spec: &ContainerSpec) -> Option<Half> {
        if !fits(spec) {
            return None;
        }
        let mut state = self.state();
        // A dead one goes to the end, where the worker takes it away.
        let lives = |half: &Half| !sys::fd::has_hung_up(&half.channel);
        let at = state.ready.iter().position(lives)?;
        state.ready.remove(at)
    }

    /// Slot and pid 1 of each.
    pub(super) fn list(&self) -> Vec<(Slot, i32)> {
        self.state().ready.iter().map(|half| (half.slot, half.pid)).collect()
    }

    /// Takes one back that was not used.
    pub(super) fn put_back(&self, half: Half) {
        self.state().ready.push_front(half);
    }

    /// Takes over a slot of a half that a daemon before us has made, to be removed in a quiet moment: the
    /// kernel takes tens of milliseconds for it, and a start is waited for. `false`: somebody has the slot.
    pub(super) fn take_over(&self, slot: Slot) -> bool {
        let is_ours = lock_claims(&self.claims).reserve_this(slot);
        if is_ours {
            self.state().old.push(slot);
        }
        is_ours
    }

    /// Whether an old one is to be removed, or one more to be made.
    pub(super) fn wants(&self) -> bool {
        let state = self.state();
        let wants_more = !state.failed && state.ready.len() < self.most;
        state.open && (wants_more || !state.old.is_empty())
    }

    /// Something has happened: takes away what has died.
    pub(super) fn tidy(&self) {
        let dead = {
            let mut state = self.state();
            state.failed = false;
            let (dead, ready) = std::mem::take(&mut state.ready)
                .into_iter()
                .partition::<VecDeque<_>, _>(|half| sys::fd::has_hung_up(&half.channel));
            state.ready = ready;
            dead
        };
        for half in dead {
            crate::warn!("reserve.died", slot = half.slot, pid = half.pid);
            self.unmake(half);
        }
        // One came back after the others had gone.
        if !self.state().open {
            self.unmake_all();
        }
    }

    /// Removes an old one, or makes one.
    pub(super) fn fill(&self) {
        let old = self.state().old.pop();
        if let Some(slot) = old {
            return self.free(slot);
        }
        let Some(slot) = lock_claims(&self.claims).reserve() else {
            self.state().failed = true;
            return;
        };
        match self.make(slot) {
            Ok(half) => self.state().ready.push_back(half),
            Err(err) => {
                self.state().failed = true;
                crate::warn!("reserve.failed", slot = slot, err = crate::log::chain(&*err));
                let exists = |err: &NetError| matches!(err, NetError::LinkExists { .. });
                match err.downcast_ref::<NetError>().is_some_and(exists) {
                    // Somebody else's on this box: nobody gets the slot.
                    true => self.forget_note(slot),
                    false => self.free(slot),
                }
            }
        }
    }

    /// Removes all that there are.
    pub(super) fn empty(&self) {
        self.tidy();
        self.unmake_all();
        let old = std::mem::take(&mut self.state().old);
        old.into_iter().for_each(|slot| self.free(slot));
        self.depot.close_reserve();
    }

    fn unmake_all(&self) {
        // Taken at once: who makes a container does not wait until links are gone.
        let all = std::mem::take(&mut self.state().ready);
        all.into_iter().for_each(|half| self.unmake(half));
    }

    fn make(&self, slot: Slot) -> Result<Half, Cause> {
        let begun = Instant::now();
        self.give_way(begun);
        // Before anything is made that has the slot's name.
        self.depot.make_reserve(slot, IdMap::Range(slot.ids()))?;
        sys::fault::point(format_args!("reserve:noted"));
        let dir = File::open(self.depot.reserve_dir(slot))?;
        let listener = sys::socket::listen(dir.as_fd(), SOCKET, BACKLOG)?;
        let Init { pid, channel } = self.spawner.spawn_ahead()?;
        match self.set_up(slot, &channel, begun) {
            Ok(first) => {
                Init::wait(pid);
                // After all that it makes: what that takes of memory is not its container's.
                if let Err(err) = self.cgroups.make_ahead(slot, first, || self.give_way(begun)) {
                    Init::end(first);
                    return Err(err.into());
                }
                sys::fault::point(format_args!("reserve:made"));
                Ok(Half { slot, pid: first, channel, listener })
            }
            Err(err) => {
                Init::end(pid);
                // A pid 1 that waits already ends by this.
                drop(channel);
                sys::process::reap_process_group(pid, DEATH_MAX_MS);
                Err(err)
            }
        }
    }

    /// Tells `init` what to make, and connects its network meanwhile. Returns the number of its pid 1.
    fn set_up(&self, slot: Slot, channel: &OwnedFd, begun: Instant) -> Result<i32, Cause> {
        let net = inside_net(slot, &self.net_tag, &self.net.addresses(slot));
        let place = self.depot.reserve_dir(slot).join("scratch");
        self.give_way(begun);
        tell(channel, &order(IdMap::Range(slot.ids()), net, place)?, &[])?;
        self.net.make_bridge(slot)?;
        sys::fault::point(format_args!("reserve:bridge"));
        let netns = match hear_within(channel, AHEAD_MAX_MS)? {
            (SetUp::Born, mut came) => came.pop().ok_or("init sent no network namespace")?,
            (other, _) => return Err(refusal(other)),
        };
        self.give_way(begun);
        self.net.plug(slot, netns.as_fd())?;
        sys::fault::point(format_args!("reserve:links"));
        self.give_way(begun);
        tell(channel, &serde_json::to_vec(&SetUp::Go)?, &[])?;
        let first = match hear_within(channel, AHEAD_MAX_MS)?.0 {
            SetUp::Ready { pid } => pid,
            other => return Err(refusal(other)),
        };
        // Both ends are up: the kernel has seen it long before there is a first packet.
        self.net.settle(slot)?;
        Ok(first)
    }

    /// Nobody waits for this half, which was begun then: what somebody asks for now goes first.
    fn give_way(&self, begun: Instant) {
        self.quiet.wait(GIVE_WAY_MAX.saturating_sub(begun.elapsed()));
    }

    fn unmake(&self, half: Half) {
        Init::end(half.pid);
        drop(half.channel);
        self.free(half.slot);
    }

    /// Removes what has the name of a slot of ours, where nobody is any more, and gives the slot away.
    fn free(&self, slot: Slot) {
        let gone = self.cgroups.remove_ahead(slot).map_err(Cause::from);
        match gone.and_then(|()| Ok(self.net.release(slot)?)) {
            Ok(()) => {
                self.forget_note(slot);
                lock_claims(&self.claims).unreserve(slot);
            }
            // The next start tries again, by the note; until then nobody gets the slot.
            Err(err) => {
                crate::error!("reserve.left", slot = slot, err = crate::log::chain(&*err));
            }
        }
    }

    fn forget_note(&self, slot: Slot) {
        // One that is left names a slot of which there is nothing.
        if let Err(err) = self.depot.forget_reserve(slot) {
            crate::warn!("reserve.note_kept", slot = slot, err = err);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The order for an `init` that begins before its plan is known; what is closed is the same in all
/// containers of which [`may_begin_early`] says so.
pub(super) fn order(ids: IdMap, net: InsideNet, place: PathBuf) -> serde_json::Result<Vec<u8>> {
    let (masked, read_only) = Posture::App.closed();
    serde_json::to_vec(&Order::Early(proto::Early { ids, net, masked, read_only, place }))
}

/// Whether the `init` of such a container may do something outside of its groups, and before its plan
/// is known: not as the box's root; and a memory limit that is too small for it shall be met while it is
/// made, as it says so.
pub(super) fn may_begin_early(spec: &ContainerSpec) -> bool {
    spec.posture != Posture::Privileged
        && spec.limits.memory.is_none_or(|limit| limit.get() >= MEMORY_MIN)
}

/// Whether such a container can be made of a half: it has the ids and the network of its slot.
fn fits(spec: &ContainerSpec) -> bool {
    let own_ids = spec.posture == Posture::App || spec.manner.ids == IdMapping::Own;
    own_ids && spec.network.is_empty() && may_begin_early(spec)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::unit::Bytes;

    #[test]
    fn what_is_not_like_the_others_is_made_from_the_beginning() {
        let app = ContainerSpec::new("a".parse().expect("handle"), Vec::new());
        assert!(fits(&app) && may_begin_early(&app));
        let with = |change: &dyn Fn(&mut ContainerSpec)| {
            let mut spec = app.clone();
            change(&mut spec);
            fits(&spec)
        };
        assert!(!with(&|spec| spec.network = "10.1.0.0/24".into()));
        assert!(!with(&|spec| spec.posture = Posture::Privileged));
        let network = ContainerSpec { network: "10.1.0.0/24".into(), ..app.clone() };
        assert!(may_begin_early(&network), "its addresses are known");
        assert!(!with(&|spec| spec.limits.memory = Some(Bytes::new(MEMORY_MIN - 1))));
        assert!(with(&|spec| spec.limits.memory = Some(Bytes::new(MEMORY_MIN))));
        for (ids, fits) in [(IdMapping::Own, true), (IdMapping::Garden, false)] {
            let garden = with(&|spec| {
                spec.posture = Posture::Garden;
                spec.manner.ids = ids;
            });
            assert_eq!(garden, fits, "{ids:?}");
        }
        // What is closed in an app is closed in a Garden container, and in what is made ahead.
        assert_eq!(Posture::App.closed(), Posture::Garden.closed());
    }
}
