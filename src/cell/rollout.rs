//! How the instances of one LRP become those of its newest version, and when a version has failed.
//!
//! While a new version takes over, an index has two instances, one on each [`Side`]. The new one is
//! made beside the old one; once it is healthy, the old one goes. Where the box has no room for both,
//! the old one goes first. All of it follows from the records, so a daemon that was killed in between
//! goes on where it was.

use super::crash::{self, Next};
use super::diff::{Key, World};
use crate::model::death::{Cause, Death};
use crate::model::lrp::{ActualLrp, DesiredLrp, LrpState, Side};
use crate::model::manifest::Strategy;
use crate::unit::AppName;
use crate::unit::span;
use std::collections::BTreeSet;
use std::time::Duration;

/// Crashes of an instance that has never been healthy after which its version has failed.
const HOPELESS: u32 = 3;

/// No app: whoever is judged here has no way back any more.
static NOBODY: BTreeSet<AppName> = BTreeSet::new();

/// What one index needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Start this one, when it is due.
    Start(Key, Next),
    /// Stop this one.
    Stop(Key),
    /// Stop this one so that the one beside it finds room.
    MakeRoom(Key),
    /// Forget this one: it does not live.
    Forget(Key),
}

/// Where one index stands.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Turn {
    /// It runs in the newest version, or has done its work in it.
    Settled,
    /// It is on its way there.
    Busy(Vec<Step>),
    /// This one of an older version lives, and nothing is beside it; whether it is healthy.
    Old(Key, bool),
}

/// What an LRP needs now, in order of index: at most `max_in_flight` of them are replaced at a time.
pub fn steps(lrp: &DesiredLrp, world: &World<'_>) -> Vec<Step> {
    let turns: Vec<Turn> = (0..lrp.instances).map(|index| turn(lrp, index, world)).collect();
    let mut busy = turns.iter().filter(|turn| matches!(turn, Turn::Busy(_))).count();
    let most = lrp.rollout.max_in_flight.max(1) as usize;
    let mut steps = Vec::new();
    for turn in turns {
        match turn {
            Turn::Settled => {}
            Turn::Busy(its) => steps.extend(its),
            Turn::Old(..) if busy >= most || world.closed => {}
            Turn::Old(old, healthy) => {
                busy += 1;
                steps.push(match lrp.rollout.strategy {
                    Strategy::Rolling if healthy => {
                        Step::Start((old.0, old.1, old.2.other()), Next::Now)
                    }
                    // Nobody misses one that was not healthy.
                    Strategy::Rolling | Strategy::Recreate => Step::Stop(old),
                });
            }
        }
    }
    steps
}

fn turn(lrp: &DesiredLrp, index: u32, world: &World<'_>) -> Turn {
    let sides = [Side::Left, Side::Right].map(|side| (lrp.guid.clone(), index, side));
    let found = |key: &Key| world.actual.get(key).map(|record| (key.clone(), record));
    let of_nobody = |key: &&Key| world.supervised.contains_key(key) && found(key).is_none();
    if sides.iter().any(|key| of_nobody(&key)) {
        // Somebody works on it and will record what becomes of it.
        return Turn::Busy(Vec::new());
    }
    let [left, right] = sides.each_ref().map(found);
    let is_new = |one: &(Key, &ActualLrp)| one.1.version == lrp.version;
    match (left, right) {
        (None, None) => {
            let [left, _] = sides;
            Turn::Busy(vec![Step::Start(left, Next::Now)])
        }
        (Some(one), None) | (None, Some(one)) if is_new(&one) => alone(lrp, one, world),
        (Some(one), None) | (None, Some(one)) => match world.supervised.get(&one.0) {
            None => Turn::Busy(vec![Step::Start(one.0, Next::Now)]),
            Some(true) => Turn::Busy(Vec::new()),
            Some(false) => Turn::Old(one.0, one.1.runs()),
        },
        (Some(left), Some(right)) => match (is_new(&left), is_new(&right)) {
            (true, false) => beside(lrp, left, right, world),
            (false, true) => beside(lrp, right, left, world),
            // Two of them are one too many: the one that serves stays.
            (true, true) | (false, false) => {
                let keeps_left = rank(&left, world) <= rank(&right, world);
                Turn::Busy(remove(if keeps_left { right.0 } else { left.0 }, world))
            }
        },
    }
}

/// Which of two should stay: the lower one. One that serves, and of these the older one.
fn rank(one: &(Key, &ActualLrp), world: &World<'_>) -> (bool, bool, u64) {
    let works = world.supervised.get(&one.0) == Some(&false);
    (!(works && one.1.runs()), !works, one.1.since_ms)
}

fn alone(lrp: &DesiredLrp, new: (Key, &ActualLrp), world: &World<'_>) -> Turn {
    match is_settled(lrp, &new.0, new.1, world) {
        true => Turn::Settled,
        false => Turn::Busy(start(lrp, new, world)),
    }
}

/// A new one beside an old one.
fn beside(
    lrp: &DesiredLrp,
    new: (Key, &ActualLrp),
    old: (Key, &ActualLrp),
    world: &World<'_>,
) -> Turn {
    let works = |key: &Key| world.supervised.get(key) == Some(&false);
    if is_settled(lrp, &new.0, new.1, world) {
        return Turn::Busy(remove(old.0, world));
    }
    if !world.supervised.contains_key(&old.0) {
        // It ended meanwhile; its place is the new one's.
        let mut steps = vec![Step::Forget(old.0)];
        steps.extend(start(lrp, new, world));
        return Turn::Busy(steps);
    }
    let crowded =
        !world.closed && world.no_room.contains(&new.0) && !world.supervised.contains_key(&new.0);
    match crowded && works(&old.0) {
        true => Turn::Busy(vec![Step::MakeRoom(old.0)]),
        false => Turn::Busy(start(lrp, new, world)),
    }
}

/// What takes an instance away.
fn remove(key: Key, world: &World<'_>) -> Vec<Step> {
    match world.supervised.get(&key) {
        Some(false) => vec![Step::Stop(key)],
        Some(true) => Vec::new(),
        None => vec![Step::Forget(key)],
    }
}

/// What starts an instance of the newest version that nobody works on.
fn start(lrp: &DesiredLrp, (key, record): (Key, &ActualLrp), world: &World<'_>) -> Vec<Step> {
    match world.supervised.contains_key(&key) {
        true => Vec::new(),
        false => vec![Step::Start(key, due(lrp, record))],
    }
}

/// It runs, is ready and stays, or has done its work.
fn is_settled(lrp: &DesiredLrp, key: &Key, record: &ActualLrp, world: &World<'_>) -> bool {
    match world.supervised.get(key) {
        Some(stopping) => record.runs() && record.routable != Some(false) && !stopping,
        None => is_done(lrp, record) || is_over(lrp, record, world),
    }
}

/// It has failed in this version and is not to start again: what comes of the other indices does not
/// wait for it. One that was never healthy fails its version first, where there is a way back.
fn is_over(lrp: &DesiredLrp, record: &ActualLrp, world: &World<'_>) -> bool {
    let LrpState::Crashed { succeeded } = record.state else { return false };
    let counts = record.ran || !world.trial.contains(&lrp.guid.app);
    counts && record.version == lrp.version && !crash::wanted(lrp.restart, succeeded)
}

/// It has done its work, and is not to do it again.
pub fn is_done(lrp: &DesiredLrp, record: &ActualLrp) -> bool {
    let ended = matches!(record.state, LrpState::Crashed { succeeded: true });
    ended && record.version == lrp.version && !crash::wanted(lrp.restart, true)
}

/// When an instance that nobody works on shall start.
pub fn due(lrp: &DesiredLrp, record: &ActualLrp) -> Next {
    match record.state {
        LrpState::Crashed { succeeded } if record.version == lrp.version => {
            crash::after(lrp.restart, succeeded, record.crash_count, record.since_ms)
        }
        // Of an older version, due, or left half-way by a daemon that ended.
        _ => Next::Now,
    }
}

/// What is to be thought of a version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// All its instances run, or have done their work.
    Good,
    /// Not known yet; at this time it is looked at again if nothing happens before, in milliseconds
    /// since 1970.
    Open(Option<u64>),
    /// It never gets healthy, or never ready, for this reason.
    Bad(String),
}

/// Judges an app's newest version. `before`: its LRPs in the version that it would go back to; what
/// is the same in both cannot be made better by going back.
pub fn verdict(
    lrps: &[&DesiredLrp],
    before: &[DesiredLrp],
    world: &World<'_>,
    now_ms: u64,
) -> Verdict {
    let mut due_ms: Option<u64> = None;
    for lrp in lrps {
        if before.iter().any(|it| it.guid == lrp.guid && it.version == lrp.version) {
            continue;
        }
        let of = |(_, record): &(&Key, &ActualLrp)| {
            record.guid == lrp.guid && record.version == lrp.version && record.index < lrp.instances
        };
        for (key, record) in world.actual.iter().filter(of) {
            if has_failed(lrp, record) {
                return Verdict::Bad(failure(record));
            }
            match ready_until(lrp, key, record, world) {
                Some(until) if is_past(until, now_ms, lrp.health.start_timeout) => {
                    return Verdict::Bad(never_ready(lrp, record));
                }
                until => due_ms = due_ms.into_iter().chain(until).min(),
            }
        }
    }
    // What has failed for good and is the same in both versions is over: it has no way back.
    let world = World { trial: &NOBODY, ..*world };
    let settled = |lrp: &&&DesiredLrp| {
        (0..lrp.instances).all(|index| turn(lrp, index, &world) == Turn::Settled)
    };
    let any = lrps.iter().any(|lrp| lrp.instances > 0);
    match any && lrps.iter().filter(settled).count() == lrps.len() {
        true => Verdict::Good,
        false => Verdict::Open(due_ms),
    }
}

fn failure(record: &ActualLrp) -> String {
    let why = record.crash_reason.as_deref().unwrap_or("no reason is known");
    let (guid, index, count) = (&record.guid, record.index, record.crash_count);
    let times = if count == 1 { "once" } else { &format!("{count} times") };
    format!("instance {guid}/{index} crashed {times} and was never healthy: {why}")
}

fn never_ready(lrp: &DesiredLrp, record: &ActualLrp) -> String {
    let within = span::show_go(lrp.health.start_timeout);
    let (guid, index) = (&record.guid, record.index);
    format!("instance {guid}/{index} runs and was not ready within {within} (`start_timeout`)")
}

/// Until when one that runs and has never been ready in its version may take to get so, in
/// milliseconds since 1970; `None`: it need not, was ready before, or may take as long as it will.
fn ready_until(lrp: &DesiredLrp, key: &Key, record: &ActualLrp, world: &World<'_>) -> Option<u64> {
    let limit = lrp.health.start_timeout;
    let waits = record.runs() && record.routable == Some(false) && !record.was_ready;
    let waits = waits && world.supervised.get(key) == Some(&false) && !limit.is_zero();
    waits.then(|| record.since_ms.saturating_add(limit.as_millis() as u64))
}

/// Whether that time has come, or lies so far ahead that the clock was set back since.
fn is_past(until: u64, now_ms: u64, limit: Duration) -> bool {
    until <= now_ms || u128::from(until - now_ms) > 2 * limit.as_millis()
}

/// It has never been healthy, and there is no hope that it will be.
pub(super) fn has_failed(lrp: &DesiredLrp, record: &ActualLrp) -> bool {
    let ended = matches!(record.state, LrpState::Crashed { .. });
    let over = ended && due(lrp, record) == Next::Never && !is_done(lrp, record);
    // It had all the time that its manifest gives it.
    let too_late = |death: &Death| matches!(death.cause, Cause::NeverHealthy { .. });
    let late = record.crash_count > 0 && record.death.as_ref().is_some_and(too_late);
    !record.ran && (record.crash_count >= HOPELESS || over || late)
}

#[cfg(test)]
mod tests;
