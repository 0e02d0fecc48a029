//! The fixtures here are also those of `rollout`'s tests.

use super::*;
use crate::model::action::Action;
use crate::model::limits::Limits;
use crate::model::lrp::{LrpPort, Place, Work};
use crate::model::manifest::{Check, Health, Restart};
use crate::unit::Digest;
use std::time::Duration;

pub const CRASHED: LrpState = LrpState::Crashed { succeeded: false };

pub fn guid() -> ProcessGuid {
    ProcessGuid { app: "web".parse().expect("name"), process: "web".into() }
}

pub fn desired(instances: u32, version: &str) -> BTreeMap<ProcessGuid, DesiredLrp> {
    let second = Duration::from_secs(1);
    let lrp = DesiredLrp {
        guid: guid(),
        version: version.into(),
        stack: "tiny".into(),
        droplet: Digest::of(b""),
        image: None,
        instances,
        limits: Limits::default(),
        command: String::new(),
        work: Work::new(Action::Serial(Vec::new())),
        user: "vcap".into(),
        nofile: 1024,
        log_source: "APP/PROC/WEB".into(),
        log_rate: None,
        env: Vec::new(),
        ports: vec![LrpPort { container: 8080, publish: Some(80) }],
        egress: Vec::new(),
        health: Health {
            check: Check::Process,
            start_timeout: second,
            interval_unhealthy: second,
            interval_healthy: second,
            timeout: second,
            failures: 1,
            also: Vec::new(),
        },
        readiness: None,
        stop: Default::default(),
        volumes: Vec::new(),
        files: Vec::new(),
        dependencies: Vec::new(),
        restart: Restart::Always,
        by_record: false,
        rollout: Default::default(),
    };
    [(guid(), lrp)].into()
}

pub fn place(index: u32) -> Place {
    Place {
        handle: format!("web-{index}").parse().expect("handle"),
        slot: Slot::new(index).expect("slot"),
        ports: Vec::new(),
    }
}

pub fn record(index: u32, version: &str, state: LrpState, crash_count: u32) -> (Key, ActualLrp) {
    let lrp = ActualLrp {
        guid: guid(),
        index,
        side: Side::Left,
        version: version.into(),
        state,
        crash_count,
        crash_reason: None,
        death: None,
        routable: None,
        placement_error: None,
        ran: false,
        was_ready: false,
        tag: Default::default(),
        since_ms: 1_000,
    };
    (key(index), lrp)
}

pub fn running(index: u32, version: &str) -> (Key, ActualLrp) {
    record(index, version, LrpState::Running(place(index)), 0)
}

/// The usual key of an index.
pub fn key(index: u32) -> Key {
    (guid(), index, Side::Left)
}

/// The same on the other side.
pub fn right((key, record): (Key, ActualLrp)) -> (Key, ActualLrp) {
    ((key.0, key.1, Side::Right), ActualLrp { side: Side::Right, ..record })
}

/// `s` for a stop, `m` for one that makes room, `f` for forget, `+` for a start, `w` for a wait,
/// each with its index, and `r` for the right side.
pub fn ops(plan: &Plan) -> String {
    let name = |op: &Op| {
        let (letter, key) = match op {
            Op::Stop(key) => ('s', key),
            Op::MakeRoom(key) => ('m', key),
            Op::Forget(key) => ('f', key),
            Op::Start(key) => ('+', key),
            Op::Wait(key, _) => ('w', key),
        };
        format!("{letter}{}{}", key.1, if key.2 == Side::Right { "r" } else { "" })
    };
    plan.ops.iter().map(name).collect::<Vec<_>>().join(" ")
}

/// Compares where nobody waits.
pub fn diff(
    desired: &BTreeMap<ProcessGuid, DesiredLrp>,
    actual: &BTreeMap<Key, ActualLrp>,
    supervised: &BTreeMap<Key, bool>,
    now_ms: u64,
) -> Plan {
    let (no_room, held) = (BTreeSet::new(), BTreeMap::new());
    let (no_room, closed) = (&no_room, false);
    let trial = BTreeSet::new();
    let world = World { desired, actual, supervised, no_room, closed, held: &held, trial: &trial };
    super::diff(&world, now_ms)
}

pub fn work(indices: &[(u32, bool)]) -> BTreeMap<Key, bool> {
    indices.iter().map(|(index, stopping)| (key(*index), *stopping)).collect()
}

#[test]
fn missing_ones_start_and_surplus_ones_stop_from_the_top() {
    let none = BTreeMap::new();
    assert_eq!(ops(&diff(&desired(2, "a"), &none, &work(&[]), 0)), "+0 +1");
    let actual = (0..4).map(|index| running(index, "a")).collect();
    let all = work(&[(0, false), (1, false), (2, false), (3, false)]);
    assert_eq!(ops(&diff(&desired(2, "a"), &actual, &all, 0)), "s3 s2");
    let half = work(&[(0, false), (1, false), (2, true), (3, true)]);
    assert_eq!(ops(&diff(&desired(2, "a"), &actual, &half, 0)), "");
    let gone = work(&[(0, false), (1, false)]);
    assert_eq!(ops(&diff(&desired(2, "a"), &actual, &gone, 0)), "f2 f3");
    assert_eq!(ops(&diff(&BTreeMap::new(), &actual, &gone, 0)), "s1 s0 f2 f3");
}

#[test]
fn crashed_ones_start_when_their_time_has_come() {
    let actual = [record(0, "a", CRASHED, 3)].into();
    let plan = diff(&desired(1, "a"), &actual, &work(&[]), 30_999);
    assert_eq!((ops(&plan).as_str(), plan.due_ms), ("", Some(31_000)));
    assert_eq!(ops(&diff(&desired(1, "a"), &actual, &work(&[]), 31_000)), "+0");
    let given_up = [record(0, "a", CRASHED, 200)].into();
    let plan = diff(&desired(1, "a"), &given_up, &work(&[]), u64::MAX);
    assert_eq!((ops(&plan).as_str(), plan.due_ms), ("", None));
    // Another version is another chance.
    assert_eq!(ops(&diff(&desired(1, "b"), &given_up, &work(&[]), 0)), "+0");
}

#[test]
fn what_the_manifest_lets_rest_rests_until_it_says_otherwise() {
    let ended = LrpState::Crashed { succeeded: true };
    let actual = [record(0, "a", ended, 1)].into();
    for (restart, expected) in
        [(Restart::Never, ""), (Restart::OnFailure, ""), (Restart::Always, "+0")]
    {
        let mut wanted = desired(1, "a");
        wanted.values_mut().for_each(|lrp| lrp.restart = restart);
        let plan = diff(&wanted, &actual, &work(&[]), u64::MAX);
        assert_eq!((ops(&plan).as_str(), plan.due_ms), (expected, None), "{restart:?}");
        let rests = rests(&wanted[&guid()], &actual);
        assert_eq!(rests, expected.is_empty(), "{restart:?}");
    }
    assert!(!rests(&desired(2, "a")[&guid()], &actual), "the second has never run");
    assert!(rests(&desired(0, "a")[&guid()], &actual));
}

#[test]
fn only_instances_that_run_and_stay_stand_behind_a_published_port() {
    let starting = record(2, "a", LrpState::Claimed(place(2)), 0);
    let actual = [running(0, "a"), running(1, "a"), starting].into();
    let some = work(&[(0, false), (1, true), (2, false)]);
    let ports = published(&desired(3, "a"), &[], &actual, &some);
    assert_eq!(ports[&80], [(Slot::new(0).expect("slot"), 8080)]);
}

/// Row 46: one that is not ready gets no connection, and one without a readiness check does.
#[test]
fn row_46_only_what_is_ready_is_published() {
    let ready = |index: u32, routable: Option<bool>| {
        let (key, record) = running(index, "a");
        (key, ActualLrp { routable, ..record })
    };
    let actual = [ready(0, Some(false)), ready(1, Some(true)), ready(2, None)].into();
    let all = work(&[(0, false), (1, false), (2, false)]);
    let ports = published(&desired(3, "a"), &[], &actual, &all);
    let slots = [1, 2].map(|index| (Slot::new(index).expect("slot"), 8080));
    assert_eq!(ports[&80], slots);
}

#[test]
fn an_old_instance_is_reached_at_the_port_that_it_listens_on() {
    let old = desired(1, "a").remove(&guid()).expect("there");
    let mut new = desired(1, "b");
    new.values_mut().for_each(|lrp| lrp.ports[0].container = 9090);
    let actual = [running(0, "a")].into();
    let ports = published(&new, &[old], &actual, &work(&[(0, false)]));
    assert_eq!(ports[&80], [(Slot::new(0).expect("slot"), 8080)]);
    // Both, when both run.
    let both = [running(0, "a"), right(running(0, "b"))].into();
    let supervised = [(key(0), false), (right(running(0, "b")).0, false)].into();
    assert_eq!(published(&new, &[], &both, &supervised)[&80].len(), 2);
}

#[test]
fn who_waits_for_another_app_does_not_start() {
    let (wanted, none) = (desired(2, "a"), BTreeMap::new());
    let held = [(guid().app, "needs db".to_owned())].into();
    let (no_room, supervised) = (BTreeSet::new(), work(&[]));
    let world = World {
        closed: false,
        desired: &wanted,
        actual: &none,
        supervised: &supervised,
        no_room: &no_room,
        held: &held,
        trial: &BTreeSet::new(),
    };
    let plan = super::diff(&world, 0);
    assert_eq!(ops(&plan), "w0 w1");
    assert_eq!(plan.ops[0], Op::Wait(key(0), "needs db".into()));
}

/// Rows 18 and 32: every way in which a record, what works on it and what is wanted can differ has
/// one outcome. Columns: wanted, the record, who works on it; the outcome.
#[test]
fn each_mismatch_of_records_and_instances_has_its_outcome() {
    let claimed = || record(0, "a", LrpState::Claimed(place(0)), 0);
    let unclaimed = || record(0, "a", LrpState::Unclaimed, 0);
    let crashed = || record(0, "a", CRASHED, 3);
    let (nobody, works, stops) = (None, Some(false), Some(true));
    for (wanted, there, worker, outcome) in [
        (1, None, nobody, "+0"),
        (1, None, works, ""),
        (1, Some(unclaimed()), nobody, "+0"),
        (1, Some(unclaimed()), works, ""),
        (1, Some(claimed()), nobody, "+0"),
        (1, Some(claimed()), works, ""),
        (1, Some(claimed()), stops, ""),
        (1, Some(running(0, "a")), nobody, "+0"),
        (1, Some(running(0, "a")), works, ""),
        (1, Some(running(0, "a")), stops, ""),
        (1, Some(crashed()), nobody, ""),
        (0, None, nobody, ""),
        (0, None, works, "s0"),
        (0, Some(unclaimed()), nobody, "f0"),
        (0, Some(claimed()), nobody, "f0"),
        (0, Some(claimed()), works, "s0"),
        (0, Some(running(0, "a")), nobody, "f0"),
        (0, Some(running(0, "a")), works, "s0"),
        (0, Some(running(0, "a")), stops, ""),
        (0, Some(crashed()), nobody, "f0"),
    ] {
        let shown = format!("{wanted} {there:?} {worker:?}");
        let actual = there.into_iter().collect();
        let supervised = worker.map(|stopping| (key(0), stopping)).into_iter().collect();
        let plan = diff(&desired(wanted, "a"), &actual, &supervised, 1_000);
        assert_eq!(ops(&plan), outcome, "{shown}");
    }
}
