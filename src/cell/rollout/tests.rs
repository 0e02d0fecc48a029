use super::super::diff::Plan;
use super::super::diff::tests::{
    CRASHED, desired, diff, guid, key, ops, place, record, right, running, work,
};
use super::super::lrp_state::{End, LrpEvent, apply, before_start};
use super::*;
use crate::model::death::{Cause, Stopper};
use crate::model::lrp::ProcessGuid;
use crate::model::manifest::{Restart, Rollout};
use std::collections::{BTreeMap, BTreeSet};

type Desired = BTreeMap<ProcessGuid, DesiredLrp>;

fn with(rollout: Rollout, mut desired: Desired) -> Desired {
    desired.values_mut().for_each(|lrp| lrp.rollout = rollout);
    desired
}

/// What is said of the newest version, which may give way to `before`.
fn judged(
    wanted: &Desired,
    before: &DesiredLrp,
    actual: &BTreeMap<Key, ActualLrp>,
    supervised: &BTreeMap<Key, bool>,
    now: u64,
) -> Verdict {
    let world = World {
        desired: wanted,
        actual,
        supervised,
        no_room: &BTreeSet::new(),
        closed: false,
        held: &BTreeMap::new(),
        trial: &BTreeSet::from([guid().app]),
    };
    let lrps: Vec<&DesiredLrp> = wanted.values().collect();
    verdict(&lrps, std::slice::from_ref(before), &world, now)
}

fn beside_of(index: u32) -> Key {
    (guid(), index, Side::Right)
}

/// Rows 82 and 83: what is done next, for each place where the two instances of an index may stand.
#[test]
fn the_old_one_stays_until_the_new_one_runs() {
    let claimed = || record(0, "b", LrpState::Claimed(place(7)), 0);
    let unclaimed = |version| record(0, version, LrpState::Unclaimed, 0);
    let crashed = || record(0, "b", CRASHED, 3);
    let (nobody, works, stops) = (None, Some(false), Some(true));
    for (old, old_work, new, new_work, outcome) in [
        (running(0, "a"), works, None, nobody, "+0r"),
        (running(0, "a"), stops, None, nobody, ""),
        (record(0, "a", LrpState::Claimed(place(0)), 0), works, None, nobody, "s0"),
        (unclaimed("a"), nobody, None, nobody, "+0"),
        (running(0, "a"), works, Some(unclaimed("b")), nobody, "+0r"),
        (running(0, "a"), works, Some(unclaimed("b")), works, ""),
        (running(0, "a"), works, Some(claimed()), works, ""),
        (running(0, "a"), works, Some(crashed()), nobody, ""),
        (running(0, "a"), works, Some(running(0, "b")), works, "s0"),
        (running(0, "a"), stops, Some(running(0, "b")), works, ""),
        (running(0, "a"), works, Some(running(0, "b")), stops, ""),
        (unclaimed("a"), nobody, Some(running(0, "b")), works, "f0"),
        (unclaimed("a"), nobody, Some(unclaimed("b")), nobody, "f0 +0r"),
        (unclaimed("a"), nobody, Some(claimed()), works, "f0"),
        // A version that came and went while the next one was declared.
        (running(0, "x"), works, Some(record(0, "y", CRASHED, 1)), nobody, "f0r"),
        (record(0, "x", CRASHED, 1), nobody, Some(running(0, "y")), works, "f0"),
        (running(0, "x"), works, Some(running(0, "y")), works, "s0r"),
    ] {
        let shown = format!("{old:?} {old_work:?} beside {new:?} {new_work:?}");
        let new = new.map(right);
        let on_right = new.as_ref().map(|(key, _)| key.clone());
        let supervised = [
            old_work.map(|it| (old.0.clone(), it)),
            on_right.and_then(|key| new_work.map(|it| (key, it))),
        ];
        let actual = [Some(old), new].into_iter().flatten().collect();
        let supervised = supervised.into_iter().flatten().collect();
        assert_eq!(ops(&diff(&desired(1, "b"), &actual, &supervised, 1_000)), outcome, "{shown}");
    }
}

#[test]
fn the_side_that_was_left_is_the_next_ones() {
    let actual = [right(running(0, "a"))].into();
    let supervised = [(beside_of(0), false)].into();
    assert_eq!(ops(&diff(&desired(1, "b"), &actual, &supervised, 0)), "+0");
}

#[test]
fn no_more_are_replaced_side_by_side_than_the_manifest_lets() {
    let actual = (0..4).map(|index| running(index, "a")).collect();
    let all = work(&[(0, false), (1, false), (2, false), (3, false)]);
    for (max_in_flight, outcome) in [(1, "+0r"), (2, "+0r +1r"), (9, "+0r +1r +2r +3r")] {
        let wanted = with(Rollout { max_in_flight, ..Rollout::default() }, desired(4, "b"));
        assert_eq!(ops(&diff(&wanted, &actual, &all, 0)), outcome, "{max_in_flight}");
    }
    // The first one is under way: it counts, and so does one that crashed in the new version.
    let mut under_way: BTreeMap<Key, ActualLrp> = actual;
    under_way.extend([right(record(0, "b", CRASHED, 3))]);
    let plan = diff(&desired(4, "b"), &under_way, &all, 0);
    assert_eq!((ops(&plan).as_str(), plan.due_ms), ("", Some(31_000)));
}

#[test]
fn recreate_stops_the_old_one_first() {
    let recreate = Rollout { strategy: Strategy::Recreate, ..Rollout::default() };
    let wanted = with(recreate, desired(2, "b"));
    let both = work(&[(0, false), (1, false)]);
    let actual = [running(0, "a"), running(1, "a")].into();
    assert_eq!(ops(&diff(&wanted, &actual, &both, 0)), "s0");
    let actual = [record(0, "b", LrpState::Claimed(place(0)), 0), running(1, "a")].into();
    assert_eq!(ops(&diff(&wanted, &actual, &both, 0)), "");
    let actual = [running(0, "b"), running(1, "a")].into();
    assert_eq!(ops(&diff(&wanted, &actual, &both, 0)), "s1");
}

#[test]
fn where_two_do_not_fit_the_old_one_makes_room() {
    let wanted = desired(1, "b");
    let mut waits = right(record(0, "b", LrpState::Unclaimed, 0));
    waits.1.placement_error = Some("insufficient resources: memory".into());
    let actual: BTreeMap<_, _> = [running(0, "a"), waits].into();
    let (no_room, held) = (BTreeSet::from([beside_of(0)]), BTreeMap::new());
    let plan = |supervised: BTreeMap<Key, bool>| {
        let world = World {
            closed: false,
            desired: &wanted,
            actual: &actual,
            supervised: &supervised,
            no_room: &no_room,
            held: &held,
            trial: &BTreeSet::new(),
        };
        super::super::diff::diff(&world, 0)
    };
    assert_eq!(ops(&plan(work(&[(0, false)]))), "m0");
    assert_eq!(ops(&plan(work(&[(0, true)]))), "+0r");
    assert_eq!(ops(&plan(work(&[]))), "f0 +0r");
    // Why else it may wait is no reason to stop what serves.
    assert_eq!(ops(&diff(&wanted, &actual, &work(&[(0, false)]), 0)), "+0r");
}

#[test]
fn a_job_that_is_done_in_the_new_version_holds_up_nobody() {
    let done = record(0, "b", LrpState::Crashed { succeeded: true }, 0);
    let actual = [done, running(1, "a")].into();
    for (restart, expected) in
        [(Restart::Never, "+1r"), (Restart::OnFailure, "+1r"), (Restart::Always, "+0")]
    {
        let mut wanted = desired(2, "b");
        wanted.values_mut().for_each(|lrp| lrp.restart = restart);
        let plan = diff(&wanted, &actual, &work(&[(1, false)]), u64::MAX);
        assert_eq!(ops(&plan), expected, "{restart:?}");
    }
}

#[test]
fn a_version_is_good_when_all_of_it_runs_and_bad_when_one_never_does() {
    let old = desired(2, "a").remove(&guid()).expect("there");
    let fails = |crashes| right(record(0, "b", LrpState::Unclaimed, crashes));
    let ran = |(key, record): (Key, ActualLrp)| (key, ActualLrp { ran: true, ..record });
    let late = |(key, record): (Key, ActualLrp)| {
        let cause = Cause::NeverHealthy { after_ms: 60_000, output: "refused".into() };
        (key, ActualLrp { death: Some(Death { at_ms: 1, counted: true, cause }), ..record })
    };
    let why = "instance web/0 crashed 3 times and was never healthy: no reason is known";
    for (records, restart, expected) in [
        (vec![running(0, "b"), running(1, "b")], Restart::Always, Verdict::Good),
        (vec![running(0, "b"), running(1, "a")], Restart::Always, Verdict::Open(None)),
        (vec![running(0, "a"), fails(2), running(1, "a")], Restart::Always, Verdict::Open(None)),
        (vec![running(0, "a"), fails(3)], Restart::Always, Verdict::Bad(why.into())),
        (vec![running(0, "a"), ran(fails(3))], Restart::Always, Verdict::Open(None)),
        // The start timeout is the manifest's own word: once is enough.
        (
            vec![running(0, "a"), late(fails(1))],
            Restart::Always,
            Verdict::Bad(why.replace("3 times", "once")),
        ),
        (
            vec![running(0, "a"), right(record(0, "b", CRASHED, 1))],
            Restart::Never,
            Verdict::Bad(why.replace("3 times", "once")),
        ),
    ] {
        let mut wanted = desired(2, "b");
        wanted.values_mut().for_each(|lrp| lrp.restart = restart);
        let shown = format!("{records:?}");
        let actual: BTreeMap<_, _> = records.into_iter().collect();
        let supervised = work(&[(0, false), (1, false)]);
        let found = judged(&wanted, &old, &actual, &supervised, 0);
        assert_eq!(found, expected, "{shown}");
        // Going back to the same version makes nothing better.
        if let Verdict::Bad(_) = expected {
            let same = judged(&wanted, &wanted[&guid()], &actual, &supervised, 0);
            assert!(!matches!(same, Verdict::Bad(_)), "{shown}");
        }
    }
}

/// Rows 82 and 83: a whole rollout of four instances, played with the real table of states: at
/// every moment at least four instances are healthy, and at most five live. Every round may be the
/// first one of a new daemon: nothing but the records is carried over.
#[test]
fn a_played_rollout_never_has_less_than_all_instances() {
    let mut actual: BTreeMap<Key, ActualLrp> = (0..4).map(|index| running(index, "a")).collect();
    let mut supervised: BTreeMap<Key, bool> =
        work(&[(0, false), (1, false), (2, false), (3, false)]);
    let wanted = desired(4, "b");
    for now in 0..100 {
        let plan = diff(&wanted, &actual, &supervised, now);
        let healthy = actual.iter().filter(|(key, it)| it.runs() && supervised.contains_key(key));
        assert!(healthy.count() >= 4 && supervised.len() <= 5, "{now}: {actual:?}");
        if plan == Plan::default() && supervised.values().all(|stopping| !stopping) {
            // Whoever starts becomes healthy.
            let claimed = actual.values().find(|it| matches!(it.state, LrpState::Claimed(_)));
            let Some(record) = claimed.cloned() else { break };
            let place = record.place().expect("claimed").clone();
            let key = (record.guid.clone(), record.index, record.side);
            happen(&mut actual, &key, LrpEvent::Start { version: "b".into(), place }, now);
        }
        for op in plan.ops {
            act(op, &mut actual, &mut supervised, now);
        }
    }
    assert_eq!((actual.len(), supervised.len()), (4, 4));
    assert!(actual.values().all(|it| it.version == "b" && it.runs()));
}

use super::super::diff::Op;

fn happen(actual: &mut BTreeMap<Key, ActualLrp>, key: &Key, event: LrpEvent, now: u64) {
    match apply(key, actual.get(key), event, now).expect("applies") {
        Some(record) => actual.insert(key.clone(), record),
        None => actual.remove(key),
    };
}

/// What the acting code does, at once.
fn act(
    op: Op,
    actual: &mut BTreeMap<Key, ActualLrp>,
    supervised: &mut BTreeMap<Key, bool>,
    now: u64,
) {
    match op {
        Op::Stop(key) | Op::MakeRoom(key) => {
            supervised.remove(&key);
            let handle = actual[&key].place().map(|place| place.handle.clone());
            let cause = Cause::Stopped { by: Stopper::Update, killed: false };
            happen(actual, &key, LrpEvent::Stop { handle, cause }, now);
        }
        Op::Forget(key) => happen(actual, &key, LrpEvent::Remove(None), now),
        Op::Start(key) => {
            if let Some(event) = before_start(actual.get(&key), "b") {
                happen(actual, &key, event, now);
            }
            let handle = format!("web-{}-{now}", key.1).parse().expect("handle");
            let there = crate::model::lrp::Place { handle, ..place(key.1) };
            happen(actual, &key, LrpEvent::Claim(there), now);
            supervised.insert(key, false);
        }
        Op::Wait(..) => unreachable!("nobody waits"),
    }
}

/// Row 83, the other end: the new one never gets healthy, and the old ones never notice.
#[test]
fn a_played_rollout_that_fails_touches_no_old_instance() {
    let mut actual: BTreeMap<Key, ActualLrp> = (0..2).map(|index| running(index, "a")).collect();
    let mut supervised = work(&[(0, false), (1, false)]);
    let wanted = desired(2, "b");
    let old = desired(2, "a").remove(&guid()).expect("there");
    let mut rounds = 0;
    let why = loop {
        rounds += 1;
        assert!(rounds < 50, "it ends: {actual:?}");
        for op in diff(&wanted, &actual, &supervised, rounds).ops {
            assert!(!matches!(op, Op::Stop(_) | Op::MakeRoom(_)), "{op:?}");
            act(op, &mut actual, &mut supervised, rounds);
        }
        let new = actual.values().find(|it| it.version == "b" && it.place().is_some()).cloned();
        if let Some(record) = new {
            let key = (record.guid.clone(), record.index, record.side);
            let reason = "exit status 1".to_owned();
            let cause = Cause::Failed { text: reason.clone() };
            let end = End { reason, cause, succeeded: false, restart: Restart::Always };
            let handle = record.place().expect("claimed").handle.clone();
            supervised.remove(&key);
            happen(&mut actual, &key, LrpEvent::Crash { handle, end }, rounds);
        }
        if let Verdict::Bad(why) = judged(&wanted, &old, &actual, &supervised, 0) {
            break why;
        }
    };
    assert_eq!(why, "instance web/0 crashed 3 times and was never healthy: exit status 1");
    // Back: what is left of the new one goes, and nothing else.
    assert_eq!(ops(&diff(&desired(2, "a"), &actual, &supervised, rounds)), "f0r");
    assert_eq!(supervised, work(&[(0, false), (1, false)]));
    assert!([0, 1].iter().all(|index| actual[&key(*index)].runs()));
}

/// Row 35: while the cell begins nothing, a new version stops nobody; what serves goes on.
#[test]
fn row_35_a_cell_that_begins_nothing_stops_nothing_for_a_new_version() {
    use crate::model::manifest::Strategy;
    let new = right(record(0, "b", LrpState::Unclaimed, 0));
    let no_room = BTreeSet::from([new.0.clone()]);
    let held = BTreeMap::new();
    let recreate = Rollout { strategy: Strategy::Recreate, ..Rollout::default() };
    for (rollout, new, open) in [(recreate, None, "s0"), (Rollout::default(), Some(new), "m0")] {
        let wanted = with(rollout, desired(1, "b"));
        let actual = [Some(running(0, "a")), new].into_iter().flatten().collect();
        for (closed, outcome) in [(false, open), (true, "")] {
            let world = World {
                desired: &wanted,
                actual: &actual,
                supervised: &work(&[(0, false)]),
                no_room: &no_room,
                closed,
                held: &held,
                trial: &BTreeSet::new(),
            };
            let plan = super::super::diff::diff(&world, 0);
            let stops: Vec<Op> =
                plan.ops.into_iter().filter(|op| !matches!(op, Op::Start(_))).collect();
            assert_eq!(ops(&Plan { ops: stops, due_ms: None }), outcome, "{closed}");
        }
    }
}

/// Row 83: a new instance that runs and was never ready fails its version when its start timeout is
/// over, whether an old one serves beside it or not; until then the loop is told when to look again.
#[test]
fn row_83_what_runs_and_is_never_ready_fails_its_version_in_its_time() {
    let old = desired(1, "a").remove(&guid()).expect("there");
    let unready = |(key, record): (Key, ActualLrp)| {
        (key, ActualLrp { routable: Some(false), ran: true, ..record })
    };
    let ready = |(key, record): (Key, ActualLrp)| {
        (key, ActualLrp { routable: Some(true), ran: true, ..record })
    };
    let no_more = |one: (Key, ActualLrp)| {
        let (key, record) = unready(one);
        (key, ActualLrp { was_ready: true, ..record })
    };
    let both = [(key(0), false), (beside_of(0), false)];
    let ends = [(key(0), false), (beside_of(0), true)];
    let alone = [(beside_of(0), false)];
    let stops = [(key(0), true), (beside_of(0), false)];
    let why = "instance web/0 runs and was not ready within 1m0s (`start_timeout`)";
    let bad = || Verdict::Bad(why.into());
    let new = || right(running(0, "b"));
    // It runs since second 1.
    for (limit, new, supervised, now, expected) in [
        (60, unready(new()), &both[..], 60_999, Verdict::Open(Some(61_000))),
        (60, unready(new()), &both, 61_000, bad()),
        (60, unready(new()), &both, 9_000_000, bad()),
        (0, unready(new()), &both, 9_000_000, Verdict::Open(None)),
        (60, ready(new()), &both, 61_000, Verdict::Open(None)),
        // Nothing older serves in its place: it made room, was recreated, or had ended before.
        (60, unready(new()), &stops, 60_999, Verdict::Open(Some(61_000))),
        (60, unready(new()), &stops, 61_000, bad()),
        (60, unready(new()), &alone, 61_000, bad()),
        // It was ready once: what it is now is no fault of its version.
        (60, no_more(new()), &both, 61_000, Verdict::Open(None)),
        (60, no_more(new()), &alone, 61_000, Verdict::Open(None)),
        // It ends already.
        (60, unready(new()), &ends, 61_000, Verdict::Open(None)),
        // The clock was set back by years since.
        (
            60,
            {
                let (key, record) = unready(new());
                (key, ActualLrp { since_ms: 1_795_000_000_000, ..record })
            },
            &both,
            5_000,
            bad(),
        ),
    ] {
        let mut wanted = desired(1, "b");
        let limit = std::time::Duration::from_secs(limit);
        wanted.values_mut().for_each(|lrp| lrp.health.start_timeout = limit);
        let shown = format!("{new:?} {supervised:?} {now}");
        let actual = [running(0, "a"), new].into();
        let supervised = supervised.iter().cloned().collect();
        let found = judged(&wanted, &old, &actual, &supervised, now);
        assert_eq!(found, expected, "{shown}");
    }
}

/// One that failed at first and does not start again holds up nobody, unless its version gives way.
#[test]
fn what_failed_at_first_by_policy_holds_up_nobody_without_a_way_back() {
    let failed = record(0, "b", CRASHED, 1);
    let actual = [failed, running(1, "a")].into();
    let mut wanted = desired(2, "b");
    wanted.values_mut().for_each(|lrp| lrp.restart = Restart::Never);
    for (trial, expected) in [(BTreeSet::new(), "+1r"), (BTreeSet::from([guid().app]), "")] {
        let world = World {
            desired: &wanted,
            actual: &actual,
            supervised: &work(&[(1, false)]),
            no_room: &BTreeSet::new(),
            closed: false,
            held: &BTreeMap::new(),
            trial: &trial,
        };
        assert_eq!(ops(&super::super::diff::diff(&world, 0)), expected, "{trial:?}");
    }
}
