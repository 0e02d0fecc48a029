//! What holds an app up whose instances have begun, and how long somebody waits for that who wants to see
//! it run. Pure.
//!
//! | an instance of its newest version | is waited for |
//! |---|---|
//! | runs, and was never ready | for its `start_timeout` since it runs |
//! | runs, was ready, and is not now | for its `start_timeout` since that was seen |
//! | gets neither healthy nor ready, and may take as long as it will (`0s`) | for [`UNLIMITED`] |
//! | waits for something else | for [`UNLIMITED`] since that was seen |
//! | was healthy, has crashed, and rests | not at all |
//! | is not begun, as the cell begins nothing, and one of an older version is there | not at all |
//!
//! Else one that does not get healthy in its time crashes, and a version that may give way to the one before
//! does ([`super::rollout`]), which is told as such: who waits leaves it [`JUDGED`]. What the version before
//! had already ends no wait for what is new. Below all this is a net: when for [`UNLIMITED`], twice the
//! longest `start_timeout` and the `[stop] timeout` no more instances run than ever did, nobody waits any
//! longer, whatever holds them up.

use super::crash::Next;
use super::diff::Key;
use super::rollout;
use crate::model::lrp::{ActualLrp, DesiredLrp, LrpState, Side};
use crate::unit::span;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Who has no `start_timeout` is waited for as long as a staging may take.
const UNLIMITED: Duration = Duration::from_secs(15 * 60);
/// From the moment that a version has failed to the record that says so, at most.
const JUDGED: Duration = Duration::from_secs(30);

/// What holds an app up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delay {
    /// What is waited for; completes "it waits ...": `until instance web/0 is ready, 1m at most`. `None`:
    /// nothing, or nothing that could be named.
    pub what: Option<String>,
    /// What is to be said when that has not happened; completes "app web ...".
    pub why: String,
    /// It is waited for until then, in milliseconds since 1970.
    pub until_ms: u64,
}

/// What is given up first, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// That.
    pub delay: Delay,
    /// How long it is still waited for.
    pub left: Duration,
    /// Something is missing, whatever the state of the app says.
    pub is_missing: bool,
}

/// Since when somebody who waits sees what holds the app up. By the clock that nobody sets.
#[derive(Debug, Default)]
pub struct Seen {
    each: BTreeMap<Key, Instant>,
    /// So many ran, and never more, since then.
    most: Option<(usize, Instant)>,
}

/// What it follows from.
pub struct Facts<'a> {
    /// What the app wants to run.
    pub lrps: &'a [DesiredLrp],
    /// What it wanted to run in the version that it may go back to.
    pub before: &'a [DesiredLrp],
    /// All instances.
    pub actual: &'a BTreeMap<Key, ActualLrp>,
    /// Those that somebody works on, and whether they are on their way out.
    pub supervised: &'a BTreeMap<Key, bool>,
    /// What the readiness check of one has said last.
    pub said: &'a dyn Fn(&Key) -> Option<String>,
    /// Why the cell begins nothing new, if it does not.
    pub closed: Option<String>,
    /// Its newest version gives way to the one before when it fails.
    pub on_trial: bool,
    /// Now, in milliseconds since 1970, as the records have it.
    pub now_ms: u64,
    /// The same moment, by the clock that nobody sets.
    pub now: Instant,
}

impl Facts<'_> {
    /// A moment of before, as the records would have it.
    fn as_ms(&self, moment: Instant) -> u64 {
        let passed = self.now.saturating_duration_since(moment).as_millis() as u64;
        self.now_ms.saturating_sub(passed)
    }
}

/// What holds the app up, of several what is given up first; of that it may be only the net.
pub fn held(facts: &Facts<'_>, seen: &mut Seen) -> Held {
    let delays = delays(facts, seen);
    seen.each.retain(|key, _| delays.contains_key(key));
    for key in delays.keys() {
        seen.each.entry(key.clone()).or_insert(facts.now);
    }
    let is_missing = !delays.is_empty();
    let (first, net) = (delays.into_values().min_by_key(|it| it.until_ms), net(facts, seen));
    let delay = first.filter(|it| it.until_ms <= net.until_ms).unwrap_or(net);
    let left = Duration::from_millis(delay.until_ms.saturating_sub(facts.now_ms));
    Held { delay, left, is_missing }
}

/// What holds its instances up.
fn delays(facts: &Facts<'_>, seen: &Seen) -> BTreeMap<Key, Delay> {
    let was_there = |lrp: &DesiredLrp| {
        facts.before.iter().any(|it| it.guid == lrp.guid && it.version == lrp.version)
    };
    let is_done = |lrp: &DesiredLrp| well(facts, lrp) == lrp.instances as usize;
    // What was there before is not what somebody waits for who has pushed something else.
    let is_new_done = facts.lrps.iter().all(|lrp| was_there(lrp) || is_done(lrp));
    let mut delays = BTreeMap::new();
    for lrp in facts.lrps.iter().filter(|lrp| is_new_done || !was_there(lrp)) {
        for (key, it) in facts.actual {
            if it.guid != lrp.guid || it.index >= lrp.instances {
                continue;
            }
            let delay = match it.version == lrp.version {
                true => of_one(facts, seen, lrp, key, it),
                false => closed(facts, lrp, key),
            };
            delays.extend(delay.map(|delay| (key.clone(), delay)));
        }
    }
    delays
}

/// Who is to take over from `key` is not begun, and is not going to be as long as the cell begins nothing.
fn closed(facts: &Facts<'_>, lrp: &DesiredLrp, key: &Key) -> Option<Delay> {
    let why = facts.closed.as_deref()?;
    let is_begun = |key: &Key| match facts.actual.get(key) {
        Some(it) if it.version == lrp.version => {
            facts.supervised.contains_key(key) || rollout::due(lrp, it) == Next::Never
        }
        Some(_) => false,
        // Somebody works on it and will record what becomes of it.
        None => facts.supervised.contains_key(key),
    };
    let other = (key.0.clone(), key.1, key.2.other());
    (!is_begun(&other)).then(|| Delay {
        what: None,
        why: format!(
            "waits: instance {}/{} is of an older version, and nothing new is begun: {why}; it goes on by \
             itself then",
            key.0, key.1
        ),
        until_ms: facts.now_ms,
    })
}

/// How many indices have what they shall have.
fn well(facts: &Facts<'_>, lrp: &DesiredLrp) -> usize {
    let is_well = |key: &Key| {
        facts.actual.get(key).filter(|it| it.version == lrp.version).is_some_and(|it| {
            match facts.supervised.get(key) {
                Some(stopping) => it.runs() && it.routable != Some(false) && !stopping,
                None => rollout::is_done(lrp, it),
            }
        })
    };
    let of = |index: &u32| {
        [Side::Left, Side::Right].iter().any(|side| is_well(&(lrp.guid.clone(), *index, *side)))
    };
    (0..lrp.instances).filter(of).count()
}

/// The end of every wait. Each instance more that runs moves it, and there are only so many.
fn net(facts: &Facts<'_>, seen: &mut Seen) -> Delay {
    let wanted: usize = facts.lrps.iter().map(|lrp| lrp.instances as usize).sum();
    let well = facts.lrps.iter().map(|lrp| well(facts, lrp)).sum();
    let (most, since) = seen.most.get_or_insert((well, facts.now));
    if well > *most {
        (*most, *since) = (well, facts.now);
    }
    // One gets healthy, then ready; who is in its place may be asked to end before.
    let takes = |lrp: &DesiredLrp| limit(lrp).0.saturating_mul(2).saturating_add(lrp.stop.timeout);
    let all = facts.lrps.iter().chain(facts.before);
    let within = all.map(takes).max().unwrap_or_default().saturating_add(UNLIMITED);
    let why = format!(
        "is not what it shall be, and nothing came of it within {}: {well} of {wanted} instances run; it goes \
         on, and `terrarium explain` says what is missing",
        span::show(within)
    );
    let until_ms = facts.as_ms(*since).saturating_add(within.as_millis() as u64);
    Delay { what: None, why, until_ms }
}

/// How long one may take to get healthy, or ready, and whether its manifest says so.
fn limit(lrp: &DesiredLrp) -> (Duration, bool) {
    match lrp.health.start_timeout {
        Duration::ZERO => (UNLIMITED, false),
        limit => (limit, true),
    }
}

fn of_one(
    facts: &Facts<'_>,
    seen: &Seen,
    lrp: &DesiredLrp,
    key: &Key,
    it: &ActualLrp,
) -> Option<Delay> {
    let (most, is_limited) = limit(lrp);
    let target = format!("{}/{}", it.guid, it.index);
    let until = |since: u64, most: Duration| since.saturating_add(most.as_millis() as u64);
    let delay = |what: String, why, since: u64, most: Duration| {
        let what = Some(format!("{what}, {} at most", span::show(most)));
        Some(Delay { what, why, until_ms: until(since, most) })
    };
    let works = facts.supervised.get(key) == Some(&false);
    let seen_ms = facts.as_ms(seen.each.get(key).copied().unwrap_or(facts.now));
    match &it.state {
        LrpState::Running(_) if works && it.routable == Some(false) => {
            let why = unready(facts, lrp, (key, it), most);
            let since = if it.was_ready { seen_ms.max(it.since_ms) } else { it.since_ms };
            let mut delay = delay(format!("until instance {target} is ready"), why, since, most)?;
            if !it.was_ready && facts.on_trial && is_limited {
                // Whoever judges the version is first, and tells more.
                delay.until_ms = until(delay.until_ms, JUDGED);
            }
            Some(delay)
        }
        LrpState::Claimed(_) if works && !is_limited => {
            let why = format!(
                "starts, and instance {target} was not healthy within {}, after which nobody waits for one \
                 without a `start_timeout`; it goes on",
                span::show(most)
            );
            delay(format!("until instance {target} is healthy"), why, it.since_ms, most)
        }
        LrpState::Unclaimed => {
            let why = it.placement_error.as_deref()?;
            let why = format!("waits: {why}; it starts by itself then");
            delay(format!("until instance {target} can start"), why, seen_ms, UNLIMITED)
        }
        LrpState::Crashed { .. } => {
            let is_done = rollout::is_done(lrp, it);
            let rests = it.ran && !is_done && !facts.supervised.contains_key(key);
            let why = it.crash_reason.as_deref().unwrap_or("no reason is known");
            let why = format!("does not run: instance {target} crashed: {why}");
            rests.then_some(Delay { what: None, why, until_ms: it.since_ms })
        }
        LrpState::Running(_) | LrpState::Claimed(_) => None,
    }
}

/// What is said of one that runs and was not ready in its time.
fn unready(
    facts: &Facts<'_>,
    lrp: &DesiredLrp,
    (key, it): (&Key, &ActualLrp),
    most: Duration,
) -> String {
    let (target, within) = (format!("{}/{}", it.guid, it.index), span::show(most));
    let how = match (it.was_ready, lrp.health.start_timeout.is_zero()) {
        (true, _) => format!("was ready before, and has not been for {within}"),
        (false, false) => format!("was not ready within {within} (`start_timeout`)"),
        (false, true) => format!("was not ready within {within}"),
    };
    let said = (facts.said)(key);
    let said = said.map_or("its [readiness] check has not passed yet".to_owned(), |why| {
        format!("the probe said: {why}")
    });
    let serves = |old: &ActualLrp| old.guid == lrp.guid && old.version != lrp.version && old.runs();
    let next = match facts.actual.values().any(serves) {
        true => "the version before serves until it is",
        false => "connections are led to it once it is",
    };
    format!(
        "runs and is not ready: instance {target} {how}: {said}; mend what the check asks for, or the check; \
         {next}"
    )
}

#[cfg(test)]
mod tests;
