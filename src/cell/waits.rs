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
//!
//! All else ends by itself: one that does not get healthy in its time crashes, and a version that may give
//! way to the one before does ([`super::rollout`]), which is told as such: who waits leaves it [`JUDGED`].

use super::diff::Key;
use super::rollout;
use crate::model::lrp::{ActualLrp, DesiredLrp, LrpState};
use crate::unit::span;
use std::collections::BTreeMap;
use std::time::Duration;

/// Who has no `start_timeout` is waited for as long as a staging may take.
const UNLIMITED: Duration = Duration::from_secs(15 * 60);
/// From the moment that a version has failed to the record that says so, at most.
const JUDGED: Duration = Duration::from_secs(30);

/// What holds an app up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delay {
    /// What is waited for; completes "it waits ...": `until instance web/0 is ready, 1m at most`.
    pub what: String,
    /// What is to be said when that has not happened; completes "app web ...".
    pub why: String,
    /// It is waited for until then, in milliseconds since 1970.
    pub until_ms: u64,
}

/// What it follows from.
pub struct Facts<'a> {
    /// What the app wants to run.
    pub lrps: &'a [DesiredLrp],
    /// All instances.
    pub actual: &'a BTreeMap<Key, ActualLrp>,
    /// Those that somebody works on, and whether they are on their way out.
    pub supervised: &'a BTreeMap<Key, bool>,
    /// What the readiness check of one has said last.
    pub said: &'a dyn Fn(&Key) -> Option<String>,
    /// Its newest version gives way to the one before when it fails.
    pub on_trial: bool,
    /// Since when it is seen to be held up, in milliseconds since 1970.
    pub seen_ms: u64,
}

/// What holds the app up, of several what is given up first; `None`: nothing that would not end by itself.
pub fn delay(facts: &Facts<'_>) -> Option<Delay> {
    let of = |lrp: &DesiredLrp| {
        let its = facts.actual.iter().filter(move |(_, it)| it.guid == lrp.guid);
        let is_new = |it: &ActualLrp| it.version == lrp.version && it.index < lrp.instances;
        its.filter(move |(_, it)| is_new(it))
            .filter_map(|(key, it)| of_one(facts, lrp, key, it))
            .min_by_key(|delay| delay.until_ms)
    };
    facts.lrps.iter().filter_map(of).min_by_key(|delay| delay.until_ms)
}

fn of_one(facts: &Facts<'_>, lrp: &DesiredLrp, key: &Key, it: &ActualLrp) -> Option<Delay> {
    let limit = lrp.health.start_timeout;
    let (most, is_limited) = if limit.is_zero() { (UNLIMITED, false) } else { (limit, true) };
    let target = format!("{}/{}", it.guid, it.index);
    let delay = |what: String, why, since: u64, most: Duration| {
        let what = format!("{what}, {} at most", span::show(most));
        Some(Delay { what, why, until_ms: since.saturating_add(most.as_millis() as u64) })
    };
    let works = facts.supervised.get(key) == Some(&false);
    match &it.state {
        LrpState::Running(_) if works && it.routable == Some(false) => {
            let why = unready(facts, lrp, (key, it), most);
            let what = format!("until instance {target} is ready");
            match (it.was_ready, facts.on_trial && is_limited) {
                (true, _) => delay(what, why, facts.seen_ms.max(it.since_ms), most),
                (false, true) => delay(what, why, it.since_ms, most + JUDGED),
                (false, false) => delay(what, why, it.since_ms, most),
            }
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
            delay(format!("until instance {target} can start"), why, facts.seen_ms, UNLIMITED)
        }
        LrpState::Crashed { .. } => {
            let is_done = rollout::is_done(lrp, it);
            let rests = it.ran && !is_done && !facts.supervised.contains_key(key);
            let why = it.crash_reason.as_deref().unwrap_or("no reason is known");
            let why = format!("does not run: instance {target} crashed: {why}");
            let what = format!("for instance {target}");
            rests.then(|| delay(what, why, it.since_ms, Duration::ZERO)).flatten()
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
mod tests {
    use super::super::diff::tests::{CRASHED, desired, key, place, record, right, running};
    use super::*;

    const MINUTE: u64 = 60_000;

    /// What holds up an app whose instance 0 is `it` and lives since 1,000; seen at 500,000.
    fn of(it: ActualLrp, start_timeout: Duration, on_trial: bool) -> Option<(String, u64)> {
        let mut lrps: Vec<DesiredLrp> = desired(1, "b").into_values().collect();
        lrps[0].health.start_timeout = start_timeout;
        let works = !matches!(it.state, LrpState::Crashed { .. });
        let supervised = works.then_some((key(0), false)).into_iter().collect();
        let actual = [(key(0), ActualLrp { since_ms: 1_000, ..it })].into();
        let facts = Facts {
            lrps: &lrps,
            actual: &actual,
            supervised: &supervised,
            said: &|_| Some("no flag".into()),
            on_trial,
            seen_ms: 500_000,
        };
        delay(&facts).map(|delay| (delay.why, delay.until_ms))
    }

    #[test]
    fn each_wait_has_an_end() {
        let unready =
            |was_ready| ActualLrp { routable: Some(false), was_ready, ..running(0, "b").1 };
        let claimed = || record(0, "b", LrpState::Claimed(place(0)), 0).1;
        let crashed = |ran| ActualLrp { ran, ..record(0, "b", CRASHED, 3).1 };
        let placement_error = Some("needs app db, which does not run yet".to_owned());
        let waits = ActualLrp { placement_error, ..record(0, "b", LrpState::Unclaimed, 0).1 };
        let (minute, none) = (Duration::from_secs(60), Duration::ZERO);
        for (it, limit, on_trial, until) in [
            (unready(false), minute, false, Some(1_000 + MINUTE)),
            // Whoever judges the version is first, and tells more.
            (unready(false), minute, true, Some(1_000 + MINUTE + 30_000)),
            (unready(false), none, true, Some(1_000 + 15 * MINUTE)),
            (unready(true), minute, true, Some(500_000 + MINUTE)),
            (unready(true), none, false, Some(500_000 + 15 * MINUTE)),
            (ActualLrp { routable: Some(true), ..unready(false) }, minute, false, None),
            (ActualLrp { version: "a".into(), ..unready(false) }, minute, false, None),
            (ActualLrp { index: 1, ..unready(false) }, minute, false, None),
            // It crashes when that is over.
            (claimed(), minute, false, None),
            (claimed(), none, false, Some(1_000 + 15 * MINUTE)),
            (waits, minute, false, Some(500_000 + 15 * MINUTE)),
            (record(0, "b", LrpState::Unclaimed, 0).1, minute, false, None),
            (crashed(true), minute, true, Some(1_000)),
            (crashed(false), minute, true, None),
        ] {
            let shown = format!("{it:?} {limit:?} {on_trial}");
            assert_eq!(of(it, limit, on_trial).map(|it| it.1), until, "{shown}");
        }
    }

    #[test]
    fn what_is_said_names_instance_reason_and_cure() {
        let it = |was_ready| ActualLrp { routable: Some(false), was_ready, ..running(0, "b").1 };
        let minute = Duration::from_secs(60);
        let said = |was_ready, limit| of(it(was_ready), limit, false).expect("a delay").0;
        let (guid, ..) = key(0);
        let begin = format!(
            "runs and is not ready: instance {guid}/0 was not ready within 1m (`start_timeout`): the probe \
             said: no flag; mend what the check asks for, or the check; connections are led"
        );
        assert!(said(false, minute).starts_with(&begin), "{}", said(false, minute));
        let text = said(true, minute);
        assert!(text.contains("was ready before, and has not been for 1m: the probe"), "{text}");
        let text = said(false, Duration::ZERO);
        assert!(text.contains("was not ready within 15m: the probe said"), "{text}");
    }

    #[test]
    fn the_version_that_serves_meanwhile_is_told_of() {
        let lrps: Vec<DesiredLrp> = desired(1, "b").into_values().collect();
        let new = |(key, it)| (key, ActualLrp { routable: Some(false), ..it });
        let (old, new) = (running(0, "a"), new(right(running(0, "b"))));
        let supervised = [(old.0.clone(), false), (new.0.clone(), false)].into();
        let facts = Facts {
            lrps: &lrps,
            actual: &[old, new].into(),
            supervised: &supervised,
            said: &|_| None,
            on_trial: false,
            seen_ms: 0,
        };
        let found = delay(&facts).expect("a delay");
        assert!(found.what.starts_with("until instance "), "{}", found.what);
        assert!(found.why.contains("has not passed yet; mend"), "{}", found.why);
        assert!(found.why.ends_with("the version before serves until it is"), "{}", found.why);
    }
}
