use super::super::diff::tests::{CRASHED, desired, guid, key, place, record, right, running};
use super::*;
use crate::model::lrp::ProcessGuid;

const MINUTE: u64 = 60_000;
const SECOND: Duration = Duration::from_secs(1);

/// An app and somebody who waits for it.
struct World {
    lrps: Vec<DesiredLrp>,
    before: Vec<DesiredLrp>,
    actual: BTreeMap<Key, ActualLrp>,
    supervised: BTreeMap<Key, bool>,
    closed: Option<String>,
    on_trial: bool,
    now_ms: u64,
    now: Instant,
    seen: Seen,
}

impl World {
    /// At 500,000, with a `start_timeout` of a minute; all of these are worked on that have not crashed.
    fn new(lrps: Vec<DesiredLrp>, actual: impl IntoIterator<Item = (Key, ActualLrp)>) -> World {
        let mut world = World {
            lrps,
            before: Vec::new(),
            actual: actual.into_iter().collect(),
            supervised: BTreeMap::new(),
            closed: None,
            on_trial: false,
            now_ms: 500_000,
            now: Instant::now(),
            seen: Seen::default(),
        };
        for lrp in &mut world.lrps {
            (lrp.health.start_timeout, lrp.stop.timeout) = (60 * SECOND, Duration::ZERO);
        }
        let works = |it: &ActualLrp| !matches!(it.state, LrpState::Crashed { .. });
        let working = world.actual.iter().filter(|(_, it)| works(it));
        world.supervised = working.map(|(key, _)| (key.clone(), false)).collect();
        world
    }

    fn look(&mut self) -> Held {
        let facts = Facts {
            lrps: &self.lrps,
            before: &self.before,
            actual: &self.actual,
            supervised: &self.supervised,
            said: &|_| Some("no flag".into()),
            closed: self.closed.clone(),
            on_trial: self.on_trial,
            now_ms: self.now_ms,
            now: self.now,
        };
        held(&facts, &mut self.seen)
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.now_ms += time.as_millis() as u64;
    }

    fn set_routable(&mut self, key: &Key, routable: bool) {
        self.actual.get_mut(key).expect("a record").routable = Some(routable);
    }
}

fn lrps(instances: u32, version: &str) -> Vec<DesiredLrp> {
    desired(instances, version).into_values().collect()
}

/// One that runs, was ready or not, and is not now.
fn unready((key, it): (Key, ActualLrp), was_ready: bool) -> (Key, ActualLrp) {
    (key, ActualLrp { routable: Some(false), was_ready, ..it })
}

/// What holds up an app whose instance 0 is `it` and lives since 1,000; seen at 500,000.
fn of(it: ActualLrp, start_timeout: Duration, on_trial: bool) -> Option<Delay> {
    let mut world = World::new(lrps(1, "b"), [(key(0), ActualLrp { since_ms: 1_000, ..it })]);
    world.lrps[0].health.start_timeout = start_timeout;
    world.on_trial = on_trial;
    let held = world.look();
    held.is_missing.then_some(held.delay)
}

#[test]
fn each_wait_has_an_end() {
    let unready = |was_ready| unready(running(0, "b"), was_ready).1;
    let claimed = || record(0, "b", LrpState::Claimed(place(0)), 0).1;
    let crashed = |ran| ActualLrp { ran, ..record(0, "b", CRASHED, 3).1 };
    let placement_error = Some("needs app db, which does not run yet".to_owned());
    let waits = ActualLrp { placement_error, ..record(0, "b", LrpState::Unclaimed, 0).1 };
    let (minute, none) = (60 * SECOND, Duration::ZERO);
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
        assert_eq!(of(it, limit, on_trial).map(|it| it.until_ms), until, "{shown}");
    }
}

/// The half minute for whoever judges the version is nobody's `start_timeout`.
#[test]
fn the_time_that_is_told_is_that_of_the_manifest() {
    let it = || unready(running(0, "b"), false).1;
    let (guid, ..) = key(0);
    for on_trial in [false, true] {
        let what = of(it(), 60 * SECOND, on_trial).expect("a delay").what;
        let told = format!("until instance {guid}/0 is ready, 1m at most");
        assert_eq!(what, Some(told), "{on_trial}");
    }
    let crashed = ActualLrp { ran: true, ..record(0, "b", CRASHED, 3).1 };
    assert_eq!(of(crashed, 60 * SECOND, false).expect("a delay").what, None, "no time is left");
}

#[test]
fn what_is_said_names_instance_reason_and_cure() {
    let it = |was_ready| unready(running(0, "b"), was_ready).1;
    let said = |was_ready, limit| of(it(was_ready), limit, false).expect("a delay").why;
    let (guid, ..) = key(0);
    let begin = format!(
        "runs and is not ready: instance {guid}/0 was not ready within 1m (`start_timeout`): the probe \
         said: no flag; mend what the check asks for, or the check; connections are led"
    );
    let text = said(false, 60 * SECOND);
    assert!(text.starts_with(&begin), "{text}");
    let text = said(true, 60 * SECOND);
    assert!(text.contains("was ready before, and has not been for 1m: the probe"), "{text}");
    let text = said(false, Duration::ZERO);
    assert!(text.contains("was not ready within 15m: the probe said"), "{text}");
}

#[test]
fn the_version_that_serves_meanwhile_is_told_of() {
    let new = unready(right(running(0, "b")), false);
    let delay = World::new(lrps(1, "b"), [running(0, "a"), new]).look().delay;
    assert!(delay.what.is_some_and(|what| what.starts_with("until instance ")));
    assert!(delay.why.ends_with("the version before serves until it is"), "{}", delay.why);
}

/// A cell that is ill or drained takes nothing away for what it cannot begin: no record says so.
#[test]
fn what_a_closed_cell_does_not_begin_is_not_waited_for() {
    let mut world = World::new(lrps(2, "b"), [running(0, "a"), running(1, "b")]);
    let open = world.look();
    assert!(!open.is_missing && open.left > 60 * SECOND, "it is replaced in a moment: {open:?}");
    world.closed = Some("no container can be made: disk".into());
    let held = world.look();
    assert!(held.is_missing && held.left.is_zero() && held.delay.what.is_none(), "{held:?}");
    let (guid, ..) = key(0);
    let why = format!(
        "waits: instance {guid}/0 is of an older version, and nothing new is begun: no container can be made: \
         disk; it goes on by itself then"
    );
    assert_eq!(held.delay.why, why);
    // One that was begun before goes on; one that found no place does not.
    let begun = right(record(0, "b", LrpState::Claimed(place(2)), 0));
    world.supervised.insert(begun.0.clone(), false);
    world.actual.extend([begun.clone()]);
    assert!(!world.look().is_missing);
    world.supervised.remove(&begun.0);
    world.actual.extend([right(record(0, "b", LrpState::Unclaimed, 0))]);
    assert!(world.look().left.is_zero());
    // What is all there waits for nothing.
    let mut world = World::new(lrps(1, "b"), [running(0, "b")]);
    world.closed = Some("no container can be made: disk".into());
    assert!(!world.look().is_missing);
}

/// No row knows what this one waits for.
#[test]
fn below_all_rows_is_a_net_that_only_more_of_it_moves() {
    let within = 17 * 60 * SECOND;
    let mut world = World::new(lrps(2, "b"), [running(0, "a"), running(1, "a")]);
    assert_eq!(world.look().left, within);
    world.pass(within - SECOND);
    assert_eq!(world.look().left, SECOND);
    world.actual.extend([right(running(0, "b"))]);
    world.supervised.insert(right(running(0, "b")).0, false);
    assert_eq!(world.look().left, within, "one more runs");
    world.pass(within - SECOND);
    // One that is there, is gone and comes again is none more.
    world.actual.extend([unready(right(running(0, "b")), true)]);
    world.look();
    world.actual.extend([right(running(0, "b"))]);
    assert_eq!(world.look().left, SECOND);
    world.pass(SECOND);
    let held = world.look();
    assert!(held.left.is_zero() && !held.is_missing, "{held:?}");
    assert!(held.delay.why.contains("within 17m: 1 of 2 instances run;"), "{}", held.delay.why);
    // Nor does one that is unready again and again outlast it.
    world.actual.extend([unready(right(running(0, "b")), true)]);
    assert!(world.look().left.is_zero());
    // Who is to make room may take its time to end.
    world.lrps[0].stop.timeout = 60 * SECOND;
    world.actual.extend([right(running(0, "b"))]);
    assert_eq!(world.look().left, 60 * SECOND);
}

/// Times of records are moved along with a clock that is set; what somebody has seen is by another one.
#[test]
fn a_clock_that_is_set_changes_no_wait() {
    for by_ms in [-400_000_i64, 86_400_000] {
        let mut world = World::new(lrps(1, "b"), [unready(running(0, "b"), true)]);
        assert_eq!(world.look().left, 60 * SECOND);
        world.pass(10 * SECOND);
        world.now_ms = world.now_ms.saturating_add_signed(by_ms);
        let it = world.actual.get_mut(&key(0)).expect("a record");
        it.since_ms = it.since_ms.saturating_add_signed(by_ms);
        assert_eq!(world.look().left, 50 * SECOND, "{by_ms}");
    }
}

#[test]
fn each_instance_has_its_own_time() {
    let both = [unready(running(0, "b"), true), running(1, "b")];
    let mut world = World::new(lrps(2, "b"), both);
    world.set_routable(&key(1), true);
    assert_eq!(world.look().left, 60 * SECOND);
    // While one is not ready, the other one gets so, and then the first one is.
    world.pass(50 * SECOND);
    world.actual.extend([unready(running(1, "b"), true)]);
    assert_eq!(world.look().left, 10 * SECOND, "that of the first");
    world.set_routable(&key(0), true);
    let held = world.look();
    assert_eq!(held.left, 60 * SECOND, "{held:?}");
    assert!(held.delay.why.contains("/1 was ready before"), "{}", held.delay.why);
    // One that was ready meanwhile begins anew.
    world.pass(30 * SECOND);
    world.set_routable(&key(0), false);
    world.set_routable(&key(1), true);
    assert_eq!(world.look().left, 60 * SECOND);
}

/// A process that is the same in both versions may rest: that is no news of what was pushed.
#[test]
fn what_was_there_before_ends_no_wait_for_what_is_new() {
    let worker = ProcessGuid { process: "worker".into(), ..guid() };
    let of_worker = |version: &str| {
        let mut lrp = lrps(1, version).remove(0);
        lrp.guid = worker.clone();
        lrp
    };
    let rests = {
        let (_, it) = record(0, "w", CRASHED, 3);
        let it = ActualLrp { guid: worker.clone(), ran: true, ..it };
        ((worker.clone(), 0, Side::Left), it)
    };
    let new = [lrps(1, "b"), vec![of_worker("w")]].concat();
    let claimed = right(record(0, "b", LrpState::Claimed(place(1)), 0));
    let mut world = World::new(new, [running(0, "a"), claimed, rests]);
    world.before = [lrps(1, "a"), vec![of_worker("w")]].concat();
    let held = world.look();
    assert!(!held.is_missing && !held.left.is_zero(), "{held:?}");
    // When that is there, it is.
    world.actual.extend([right(running(0, "b"))]);
    assert!(world.look().left.is_zero());
    // Who pushes the same worker for the first time wants to see it run.
    world.actual.extend([right(record(0, "b", LrpState::Claimed(place(1)), 0))]);
    world.before.pop();
    assert!(world.look().left.is_zero());
}
