//! How the cell itself stands: whether it takes anything, what will not go, what its clock does.

use super::clock::{self, ClockRecord, Jump, Times};
use super::drain::Draining;
use super::fit::{self, Misfit, Node, Wish};
use super::placement::Waiting;
use super::record::Release;
use super::settings::SHARES_USUAL;
use super::shared::{Shared, State};
use super::store::{RecordStore, Records};
use super::stuck::Stuck;
use crate::container::boot_id;
use crate::exec::room::Resources;
use crate::log::chain;
use crate::model::extras::Extras;
use crate::model::limits::Limits;
use crate::model::view::{AmountView, CapacityView, CellView, PoolView};
use crate::sys::clock::Reading;
use crate::sys::fault;
use crate::unit::Handle;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

/// What the state has about it.
#[derive(Default)]
pub(super) struct NodeState {
    /// It is drained, or on its way there.
    pub drain: Option<Draining>,
    /// What the last check of itself found.
    pub health: Health,
    /// When the check of itself has begun that is under way.
    pub checking: Option<Instant>,
    /// Containers that do not go.
    pub stuck: BTreeMap<Handle, Stuck>,
    /// The clocks when the loop looked last.
    pub reading: Option<Reading>,
}

/// What the last check of itself found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Health {
    /// There was none yet.
    #[default]
    Unknown,
    /// It can make containers.
    Good,
    /// It cannot, for this reason.
    Bad(String),
}

impl NodeState {
    /// For the fit check.
    pub fn node(&self) -> Node {
        let unhealthy = match &self.health {
            Health::Bad(why) => Some(why.clone()),
            Health::Unknown | Health::Good => None,
        };
        Node { is_draining: self.drain.is_some(), unhealthy, ..Node::default() }
    }
}

/// Moves the times of the records that a daemon begins with along with a clock that was set since they
/// were written; what the clocks show now. Blocking.
pub(super) fn catch_up(store: &RecordStore, records: &mut Records) -> Reading {
    let (boot, now) = (boot_id(), Reading::now());
    now.adopt();
    let jump = clock::since(records.clock.as_ref(), &boot, now);
    if jump.is_none() && records.clock.as_ref().is_some_and(|it| it.boot == boot) {
        return now;
    }
    let before = records.clone();
    records.clock = Some(ClockRecord::of(&boot, now));
    if let Some(jump) = jump {
        let Records { apps, actual, tasks, drain, .. } = records;
        let (waiting, drain) = (&mut Waiting::default(), drain.as_mut());
        jump.move_all(Times { apps, actual, tasks, waiting, drain });
    }
    write_moved(store, &records.since(&before));
    now
}

/// A daemon that cannot write them goes on with what it knows. Blocking.
fn write_moved(store: &RecordStore, records: &Records) {
    if let Err(err) = store.put_moved(records) {
        // The clock that stands there is still that of before, as are the times.
        let cure = "make room on its disk, or mend it, and start the daemon again: that moves them";
        crate::error!("record.refused", what = "times", err = chain(&err), cure = cure);
    }
}

impl Shared {
    /// Whether what an instance is made of is here. An image is told by its digest; its layers are
    /// looked for when the container is made.
    pub(super) async fn has_rootfs(self: &Arc<Self>, release: &Release) -> bool {
        let (shared, droplet) = (self.clone(), release.droplet);
        release.image.is_some()
            || smol::unblock(move || shared.host.store().layer(&droplet).is_some()).await
    }

    /// Why nothing new is begun, whatever it is.
    pub(super) fn refusal(&self, state: &State) -> Option<Misfit> {
        let wish =
            Wish { has_rootfs: true, volume_drivers: &[], placement_tags: None, cpu_weight: None };
        fit::fit(&state.node.node(), &wish).err()
    }

    /// Whether this is a cell for somebody who asks by a record, whatever its state. The error is
    /// Diego's text.
    pub(super) fn suits(&self, extras: &Extras) -> Result<(), Misfit> {
        let node = Node { tags: self.settings.tags.clone(), ..Node::default() };
        let wish = Wish {
            has_rootfs: true,
            volume_drivers: &extras.volume_drivers,
            placement_tags: Some(&extras.placement_tags),
            cpu_weight: None,
        };
        fit::fit(&node, &wish)
    }

    /// The limits of a container, with its weight in shares where the owner has another scale.
    pub(super) fn limits(&self, limits: &Limits) -> Limits {
        let most = self.settings.cpu_shares_max;
        let weight = fit::weight(limits.cpu_weight).ok().filter(|_| most != SHARES_USUAL);
        let shares = weight.map(|weight| fit::shares(weight, most));
        Limits { cpu_shares: limits.cpu_shares.or(shares), ..limits.clone() }
    }

    /// Looks whether the clock was set since it was last looked at, and moves all times along: in memory
    /// at one moment, then on the disk.
    pub(super) async fn mind_the_clock(self: &Arc<Self>) {
        if self.reads_the_clock().is_none() {
            return;
        }
        // No record is being made with a time of the clock before, nor written before these are.
        let apps = self.turns.lock_arc().await;
        let turns = (apps, self.record_turns.lock_arc().await, self.task_turns.lock_arc().await);
        let Some(moved) = self.moves_along() else { return };
        let shared = self.clone();
        smol::unblock(move || {
            let _turns = turns;
            fault::point(format_args!("clock:asked"));
            write_moved(&shared.store, &moved);
            fault::point(format_args!("clock:written"));
        })
        .await;
    }

    /// Moves all times along if the clock was set; what is to be written then.
    fn moves_along(&self) -> Option<Records> {
        let mut state = self.state();
        let state = &mut *state;
        let now = Reading::now();
        let before = state.node.reading.replace(now).unwrap_or(now);
        now.adopt();
        let jump = clock::jump(before, now)?;
        crate::warn!("clock.set", by_ms = jump.by_ms);
        for stuck in state.node.stuck.values_mut() {
            stuck.since_ms = jump.moved(stuck.since_ms);
        }
        state.away.jump(jump);
        let State { apps, actual, tasks, waiting, node, .. } = state;
        let drain = node.drain.as_mut().map(|draining| &mut draining.record);
        jump.move_all(Times { apps, actual, tasks, waiting, drain });
        Some(Records {
            apps: apps.clone(),
            actual: actual.clone(),
            tasks: tasks.clone(),
            drain: node.drain.as_ref().map(|draining| draining.record.clone()),
            clock: Some(ClockRecord::of(&boot_id(), now)),
            ..Records::default()
        })
    }

    /// Goes by the clock as it is, unless it was set.
    fn reads_the_clock(&self) -> Option<Jump> {
        let mut state = self.state();
        let now = Reading::now();
        let jump = clock::jump(state.node.reading.unwrap_or(now), now);
        if jump.is_none() {
            state.node.reading = Some(now);
            now.adopt();
        }
        jump
    }

    /// What people are told of the cell.
    pub(super) fn cell_view(&self) -> CellView {
        let state = self.state();
        let (total, taken, left) = (state.room.total(), state.room.taken(), state.room.left());
        let of = |it: Resources| AmountView {
            memory_bytes: it.memory.get(),
            disk_bytes: it.disk.get(),
            containers: it.containers,
        };
        let pools = self.pools.all().map(|(name, pool)| PoolView {
            name: name.to_owned(),
            size: pool.size(),
            busy: pool.busy(),
            peak: pool.peak(),
        });
        CellView {
            id: self.settings.cell_id.clone(),
            zone: self.settings.zone.clone(),
            capacity: CapacityView { total: of(total), taken: of(taken), left: of(left) },
            stuck: state.node.stuck.iter().map(|(handle, stuck)| stuck.view(handle)).collect(),
            drain: None,
            check: match &state.node.health {
                Health::Unknown => "unknown",
                Health::Good => "healthy",
                Health::Bad(_) => "unhealthy",
            }
            .to_owned(),
            pools: pools.into(),
        }
    }

    /// What is wrong with the cell, for people.
    pub(super) fn cell_problems(&self) -> Vec<String> {
        let state = self.state();
        let ill = match &state.node.health {
            Health::Bad(why) => Some(format!(
                "the cell cannot make containers: {why}; nothing new starts until that is mended, \
                 what runs goes on"
            )),
            Health::Unknown | Health::Good => None,
        };
        let stuck = state.node.stuck.iter().map(|(handle, stuck)| {
            let reason = stuck.view(handle).reason;
            format!("container {handle} is stuck, and keeps its memory and disk: {reason}")
        });
        let unread = state.set_aside.iter().map(|(name, unread)| {
            format!(
                "app {name} is set aside, as its record cannot be read: {}; `terrarium apply` its \
                 manifest anew, or start the daemon that wrote the record",
                unread.why
            )
        });
        ill.into_iter().chain(stuck).chain(unread).collect()
    }
}
