//! What has to be done so that the instances that are become the instances that shall be.

use super::crash::{self, Next};
use super::rollout::{self, Step};
use crate::model::lrp::{ActualLrp, DesiredLrp, LrpState, Place, ProcessGuid, Side};
use crate::unit::{AppName, Handle, Slot};
use std::collections::{BTreeMap, BTreeSet};

/// One instance.
pub type Key = (ProcessGuid, u32, Side);

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Stop its supervisor; it destroys the container.
    Stop(Key),
    /// The same: the box has no room for it and the one that is to take over from it.
    MakeRoom(Key),
    /// Forget its record: it is not wanted and nothing of it is left.
    Forget(Key),
    /// Start a supervisor for it.
    Start(Key),
    /// It shall start, and waits for another app: for this reason.
    Wait(Key, String),
}

/// What is to be done now, and when to look again if nothing happens before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Stops first, highest index first; then what can be forgotten; then starts in order, those
    /// of instances that had a place before the others; then who waits.
    pub ops: Vec<Op>,
    /// In milliseconds since 1970: a crashed instance is due then.
    pub due_ms: Option<u64>,
}

/// Everything that a plan follows from.
#[derive(Clone, Copy, Debug)]
pub struct World<'a> {
    /// What shall be.
    pub desired: &'a BTreeMap<ProcessGuid, DesiredLrp>,
    /// What there is.
    pub actual: &'a BTreeMap<Key, ActualLrp>,
    /// Instances that somebody works on; `true`: it is being stopped already.
    pub supervised: &'a BTreeMap<Key, bool>,
    /// Instances that the box had no room for when they were tried last.
    pub no_room: &'a BTreeSet<Key>,
    /// The cell begins nothing at the moment: then nothing is stopped for the sake of a new version.
    pub closed: bool,
    /// Apps that wait for others, and why: see [`super::order`].
    pub held: &'a BTreeMap<AppName, String>,
    /// Apps that go back to the version before when the newest one fails.
    pub trial: &'a BTreeSet<AppName>,
}

/// Compares. Instances of an older version are replaced as [`rollout::steps`] says.
pub fn diff(world: &World<'_>, now_ms: u64) -> Plan {
    let wanted = |key: &Key| world.desired.get(&key.0).is_some_and(|lrp| is_wanted(key, lrp));
    let mut plan = Plan::default();
    let surplus =
        world.supervised.iter().rev().filter(|(key, stopping)| !wanted(key) && !**stopping);
    plan.ops.extend(surplus.map(|(key, _)| Op::Stop(key.clone())));
    let left = |key: &&Key| !wanted(key) && !world.supervised.contains_key(*key);
    let mut forgets: Vec<Op> = world.actual.keys().filter(left).cloned().map(Op::Forget).collect();
    let (mut placed, mut waiting, mut held) = (Vec::new(), Vec::new(), Vec::new());
    for step in world.desired.values().flat_map(|lrp| rollout::steps(lrp, world)) {
        match step {
            Step::Stop(key) => plan.ops.push(Op::Stop(key)),
            Step::MakeRoom(key) => plan.ops.push(Op::MakeRoom(key)),
            Step::Forget(key) => forgets.push(Op::Forget(key)),
            Step::Start(_, Next::Never) => {}
            Step::Start(_, Next::At(at)) if !crash::is_due(at, now_ms) => {
                plan.due_ms = Some(plan.due_ms.map_or(at, |earlier| earlier.min(at)));
            }
            Step::Start(key, Next::Now | Next::At(_)) => match world.held.get(&key.0.app) {
                Some(why) => held.push(Op::Wait(key, why.clone())),
                // It had its place before, and gets it before those that never had one.
                None if had_place(&key, world) => placed.push(Op::Start(key)),
                None => waiting.push(Op::Start(key)),
            },
        }
    }
    plan.ops.extend([forgets, placed, waiting, held].into_iter().flatten());
    plan
}

/// The instance that is recorded to live in this container.
pub fn lives_in(handle: &Handle, actual: &BTreeMap<Key, ActualLrp>) -> Option<(Key, Place)> {
    actual.iter().find_map(|(key, record)| {
        let place = record.place()?;
        (place.handle == *handle).then(|| (key.clone(), place.clone()))
    })
}

/// Whether its LRP has an instance of this index.
pub fn is_wanted(key: &Key, lrp: &DesiredLrp) -> bool {
    key.1 < lrp.instances
}

/// One of its index has lived, and did not have to wait for room.
fn had_place(key: &Key, world: &World<'_>) -> bool {
    let sides = [key.clone(), (key.0.clone(), key.1, key.2.other())];
    let mut records = sides.iter().filter_map(|side| world.actual.get(side));
    records.any(|record| record.placement_error.is_none())
}

/// Whether nothing of an LRP that nobody works on starts again by itself.
pub fn rests(lrp: &DesiredLrp, actual: &BTreeMap<Key, ActualLrp>) -> bool {
    (0..lrp.instances).all(|index| {
        let sides = [Side::Left, Side::Right].map(|side| (lrp.guid.clone(), index, side));
        let mut records = sides.iter().filter_map(|key| actual.get(key));
        records.any(|it| it.version == lrp.version && rollout::due(lrp, it) == Next::Never)
    })
}

/// Ports of the box and the instances that stand behind each, in order of index. `before`: the LRPs
/// that are on their way out, for the ports that their instances listen on.
pub fn published(
    desired: &BTreeMap<ProcessGuid, DesiredLrp>,
    before: &[DesiredLrp],
    actual: &BTreeMap<Key, ActualLrp>,
    supervised: &BTreeMap<Key, bool>,
) -> BTreeMap<u16, Vec<(Slot, u16)>> {
    let mut ports: BTreeMap<u16, Vec<_>> = BTreeMap::new();
    for (guid, lrp) in desired {
        for publish in lrp.ports.iter().filter_map(|port| port.publish) {
            ports.entry(publish).or_default();
        }
        for index in 0..lrp.instances {
            for side in [Side::Left, Side::Right] {
                let key = (guid.clone(), index, side);
                let Some(record) = actual.get(&key) else { continue };
                let LrpState::Running(place) = &record.state else { continue };
                // One that is not ready gets no connection.
                if supervised.get(&key) != Some(&false) || record.routable == Some(false) {
                    continue;
                }
                let of = |it: &&DesiredLrp| it.guid == *guid && it.version == record.version;
                let made = before.iter().find(of).filter(|_| record.version != lrp.version);
                for port in &lrp.ports {
                    let Some(publish) = port.publish else { continue };
                    let then =
                        made.and_then(|it| it.ports.iter().find(|it| it.publish == port.publish));
                    let inside = then.map_or(port.container, |port| port.container);
                    ports.entry(publish).or_default().push((place.slot, inside));
                }
            }
        }
    }
    ports
}

#[cfg(test)]
pub(super) mod tests;
