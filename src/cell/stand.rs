//! Where each app stands, for those that wait for it. Pure.

use super::converge;
use super::diff::{Key, World};
use super::order::{self, Fact, Stand};
use super::record::AppRecord;
use super::rollout;
use super::shared::State;
use crate::model::lrp::{ActualLrp, DesiredLrp, LrpState, ProcessGuid, Side};
use crate::unit::AppName;
use std::collections::{BTreeMap, BTreeSet};

/// Apps that must not start yet, and why.
pub(super) fn held(
    state: &State,
    desired: &BTreeMap<ProcessGuid, DesiredLrp>,
) -> BTreeMap<AppName, String> {
    let (supervised, nobody, none) = (converge::stopping(state), BTreeMap::new(), BTreeSet::new());
    held_of(&state.apps, &converge::world(state, desired, &supervised, (&nobody, &none)))
}

/// The same of these apps in this world; who waits in it does not count.
pub fn held_of(
    apps: &BTreeMap<AppName, AppRecord>,
    world: &World<'_>,
) -> BTreeMap<AppName, String> {
    let waits = |app: &AppRecord| {
        let manifest = app.release.as_ref().map(|release| &release.manifest);
        manifest.is_some_and(|it| !it.after.is_empty() || !it.needs.is_empty())
    };
    // Most boxes have none of them.
    if !apps.values().any(waits) {
        return BTreeMap::new();
    }
    let stand = |name: &AppName, app: &AppRecord| {
        let lrps: Vec<&DesiredLrp> =
            world.desired.values().filter(|lrp| lrp.guid.app == *name).collect();
        let works = |key: &Key| world.supervised.get(key).copied();
        let no_room = |key: &Key| world.no_room.contains(key);
        stand_of(app, &lrps, world.actual, &works, &no_room)
    };
    let facts = apps.iter().map(|(name, app)| {
        let manifest = app.release.as_ref().map_or(&app.manifest, |release| &release.manifest);
        let fact = Fact { after: &manifest.after, needs: &manifest.needs, stand: stand(name, app) };
        (name.clone(), fact)
    });
    order::held(&facts.collect())
}

/// Where one app stands. `works`: whether somebody works on an instance, and is stopping it;
/// `no_room`: the box had no room for it.
fn stand_of(
    app: &AppRecord,
    lrps: &[&DesiredLrp],
    actual: &BTreeMap<Key, ActualLrp>,
    works: &dyn Fn(&Key) -> Option<bool>,
    no_room: &dyn Fn(&Key) -> bool,
) -> Stand {
    match (app.deleting, app.stopped, &app.release, &app.failure) {
        (true, ..) => return Stand::Down("is being deleted"),
        (_, true, ..) => return Stand::Down("is stopped"),
        (.., None, Some(_)) => return Stand::Down("could not be staged"),
        (.., None, None) => return Stand::Coming,
        _ => {}
    }
    let keys = |lrp: &DesiredLrp| {
        let guid = lrp.guid.clone();
        let sides = [Side::Left, Side::Right];
        let keys = (0..lrp.instances).flat_map(move |index| sides.map(|side| (index, side)));
        keys.map(move |(index, side)| (guid.clone(), index, side)).collect::<Vec<Key>>()
    };
    let runs = |key: &Key| {
        works(key) == Some(false) && actual.get(key).is_some_and(|record| record.runs())
    };
    let is_done = |lrp: &DesiredLrp, key: &Key| {
        let done = |record: &ActualLrp| rollout::is_done(lrp, record);
        works(key).is_none() && actual.get(key).is_some_and(done)
    };
    // Where some have done their work and the others are to start, it is not up: they wait, too.
    let is_up = |lrp: &&DesiredLrp| {
        let keys = keys(lrp);
        let done = |index| keys.iter().any(|key| key.1 == index && is_done(lrp, key));
        keys.iter().any(runs) || (0..lrp.instances).all(done)
    };
    let some: Vec<&DesiredLrp> = lrps.iter().copied().filter(|lrp| lrp.instances > 0).collect();
    if some.is_empty() {
        return Stand::Down("has no instance");
    }
    if some.iter().all(is_up) {
        return Stand::Up;
    }
    let open = |lrp: &DesiredLrp| keys(lrp).into_iter().filter(|key| !is_done(lrp, key)).collect();
    let all: Vec<Key> = some.iter().flat_map(|lrp| -> Vec<Key> { open(lrp) }).collect();
    let is_crashed = |key: &Key| {
        let state = actual.get(key).map(|record| &record.state);
        matches!(state, Some(LrpState::Crashed { .. })) && works(key).is_none()
    };
    let begun = all.iter().any(|key| works(key).is_some());
    // Of one process nothing begins, as there is no room for it: its others do not bring it up.
    let is_shut_out = |lrp: &&DesiredLrp| {
        let open: Vec<Key> = open(lrp);
        !is_up(lrp) && open.iter().all(|key| works(key).is_none()) && open.iter().any(no_room)
    };
    match () {
        () if all.iter().any(is_crashed) && begun => Stand::Down("crashes"),
        () if all.iter().any(is_crashed) => Stand::Crashed,
        () if begun && some.iter().any(is_shut_out) => Stand::Down("has no room on the box"),
        () if begun => Stand::Coming,
        () if all.iter().any(no_room) => Stand::NoRoom,
        () => Stand::Idle,
    }
}

#[cfg(test)]
mod tests;
