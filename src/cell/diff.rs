//! What has to be done so that the instances that are become the instances that shall be.

use super::crash::{self, Next};
use crate::model::lrp::{ActualLrp, DesiredLrp, LrpState, ProcessGuid};
use std::collections::BTreeMap;

/// One instance.
pub type Key = (ProcessGuid, u32);

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Stop its supervisor; it destroys the container.
    Stop(Key),
    /// Forget its record: it is not wanted and nothing of it is left.
    Forget(Key),
    /// Start a supervisor for it.
    Start(Key),
}

/// What is to be done now, and when to look again if nothing happens before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Stops first, highest index first; then what can be forgotten; then starts in order, those
    /// of instances that had a place before the others.
    pub ops: Vec<Op>,
    /// In milliseconds since 1970: a crashed instance is due then.
    pub due_ms: Option<u64>,
}

/// Compares. `supervised`: instances that somebody works on; `true`: it is being stopped already.
///
/// Instances of an older version are replaced one at a time, from index 0: the next one goes when
/// all before it run in the new version, so a version that does not start takes one instance only.
pub fn diff(
    desired: &BTreeMap<ProcessGuid, DesiredLrp>,
    actual: &BTreeMap<Key, ActualLrp>,
    supervised: &BTreeMap<Key, bool>,
    now_ms: u64,
) -> Plan {
    let mut plan = Plan::default();
    for (key, stopping) in supervised.iter().rev() {
        let wanted = desired.get(&key.0).is_some_and(|lrp| key.1 < lrp.instances);
        if !wanted && !stopping {
            plan.ops.push(Op::Stop(key.clone()));
        }
    }
    for (guid, lrp) in desired {
        if let Some(key) = outdated(guid, lrp, actual, supervised) {
            plan.ops.push(Op::Stop(key));
        }
    }
    for key in actual.keys() {
        let wanted = desired.get(&key.0).is_some_and(|lrp| key.1 < lrp.instances);
        if !wanted && !supervised.contains_key(key) {
            plan.ops.push(Op::Forget(key.clone()));
        }
    }
    let mut waiting = Vec::new();
    for (guid, lrp) in desired {
        for index in 0..lrp.instances {
            let key = (guid.clone(), index);
            if supervised.contains_key(&key) {
                continue;
            }
            match due(lrp, actual.get(&key)) {
                Next::At(at) if !crash::is_due(at, now_ms) => {
                    plan.due_ms = Some(plan.due_ms.map_or(at, |earlier| earlier.min(at)));
                }
                Next::Never => {}
                Next::Now | Next::At(_) => match actual.get(&key) {
                    // It had its place before, and gets it before those that never had one.
                    Some(record) if record.placement_error.is_none() => {
                        plan.ops.push(Op::Start(key));
                    }
                    _ => waiting.push(Op::Start(key)),
                },
            }
        }
    }
    plan.ops.append(&mut waiting);
    plan
}

/// The first instance of an older version, if its turn has come.
fn outdated(
    guid: &ProcessGuid,
    lrp: &DesiredLrp,
    actual: &BTreeMap<Key, ActualLrp>,
    supervised: &BTreeMap<Key, bool>,
) -> Option<Key> {
    for index in 0..lrp.instances {
        let key = (guid.clone(), index);
        let record = actual.get(&key)?;
        if record.version == lrp.version {
            match record.state {
                LrpState::Running(_) => continue,
                // It has done its work, and in the new version.
                LrpState::Crashed { succeeded: true } if !crash::wanted(lrp.restart, true) => {
                    continue;
                }
                LrpState::Unclaimed | LrpState::Claimed(_) | LrpState::Crashed { .. } => {
                    return None;
                }
            }
        }
        return (supervised.get(&key) == Some(&false)).then_some(key);
    }
    None
}

/// When an instance that nobody works on shall start.
fn due(lrp: &DesiredLrp, record: Option<&ActualLrp>) -> Next {
    match record {
        Some(ActualLrp {
            state: LrpState::Crashed { succeeded },
            version,
            crash_count,
            since_ms,
            ..
        }) if *version == lrp.version => {
            crash::after(lrp.restart, *succeeded, *crash_count, *since_ms)
        }
        // Never recorded, of an older version, or left half-way by a daemon that ended.
        _ => Next::Now,
    }
}

/// Whether nothing of an LRP that nobody works on starts again by itself.
pub fn rests(lrp: &DesiredLrp, actual: &BTreeMap<Key, ActualLrp>) -> bool {
    (0..lrp.instances).all(|index| due(lrp, actual.get(&(lrp.guid.clone(), index))) == Next::Never)
}

/// Ports of the box and the instances that stand behind each, in order of index.
pub fn published(
    desired: &BTreeMap<ProcessGuid, DesiredLrp>,
    actual: &BTreeMap<Key, ActualLrp>,
    supervised: &BTreeMap<Key, bool>,
) -> BTreeMap<u16, Vec<(crate::unit::Slot, u16)>> {
    let mut ports: BTreeMap<u16, Vec<_>> = BTreeMap::new();
    for (guid, lrp) in desired {
        for port in &lrp.ports {
            let Some(publish) = port.publish else { continue };
            let behind = ports.entry(publish).or_default();
            for index in 0..lrp.instances {
                let key = (guid.clone(), index);
                if supervised.get(&key) != Some(&false) {
                    continue;
                }
                if let Some(LrpState::Running(place)) = actual.get(&key).map(|lrp| &lrp.state) {
                    behind.push((place.slot, port.container));
                }
            }
        }
    }
    ports
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::limits::Limits;
    use crate::model::lrp::{LrpPort, Place};
    use crate::model::manifest::{Check, Health, Restart};
    use crate::unit::{Digest, Slot};
    use std::time::Duration;

    const CRASHED: LrpState = LrpState::Crashed { succeeded: false };

    fn guid() -> ProcessGuid {
        ProcessGuid { app: "web".parse().expect("name"), process: "web".into() }
    }

    fn desired(instances: u32, version: &str) -> BTreeMap<ProcessGuid, DesiredLrp> {
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
            metadata: String::new(),
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
            },
            restart: Restart::Always,
        };
        [(guid(), lrp)].into()
    }

    fn place(index: u32) -> Place {
        Place {
            handle: format!("web-{index}").parse().expect("handle"),
            slot: Slot::new(index).expect("slot"),
            ports: Vec::new(),
        }
    }

    fn record(index: u32, version: &str, state: LrpState, crash_count: u32) -> (Key, ActualLrp) {
        let lrp = ActualLrp {
            guid: guid(),
            index,
            version: version.into(),
            state,
            crash_count,
            crash_reason: None,
            placement_error: None,
            since_ms: 1_000,
        };
        ((guid(), index), lrp)
    }

    fn running(index: u32, version: &str) -> (Key, ActualLrp) {
        record(index, version, LrpState::Running(place(index)), 0)
    }

    /// `s` for a stop, `f` for forget, `+` for a start, each with its index.
    fn ops(plan: &Plan) -> String {
        let name = |op: &Op| match op {
            Op::Stop(key) => format!("s{}", key.1),
            Op::Forget(key) => format!("f{}", key.1),
            Op::Start(key) => format!("+{}", key.1),
        };
        plan.ops.iter().map(name).collect::<Vec<_>>().join(" ")
    }

    fn work(indices: &[(u32, bool)]) -> BTreeMap<Key, bool> {
        indices.iter().map(|(index, stopping)| ((guid(), *index), *stopping)).collect()
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
    fn a_new_version_replaces_one_instance_at_a_time() {
        let both = work(&[(0, false), (1, false)]);
        let actual = [running(0, "a"), running(1, "a")].into();
        assert_eq!(ops(&diff(&desired(2, "b"), &actual, &both, 0)), "s0");
        let starting = record(0, "b", LrpState::Claimed(place(0)), 0);
        let actual = [starting, running(1, "a")].into();
        assert_eq!(ops(&diff(&desired(2, "b"), &actual, &both, 0)), "");
        let actual = [running(0, "b"), running(1, "a")].into();
        assert_eq!(ops(&diff(&desired(2, "b"), &actual, &both, 0)), "s1");
        let crashed = record(0, "b", CRASHED, 3);
        let actual = [crashed, running(1, "a")].into();
        let plan = diff(&desired(2, "b"), &actual, &work(&[(1, false)]), 0);
        assert_eq!((ops(&plan).as_str(), plan.due_ms), ("", Some(31_000)));
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
    fn a_job_that_is_done_in_the_new_version_holds_up_nobody() {
        let done = record(0, "b", LrpState::Crashed { succeeded: true }, 0);
        let actual = [done, running(1, "a")].into();
        for (restart, expected) in
            [(Restart::Never, "s1"), (Restart::OnFailure, "s1"), (Restart::Always, "+0")]
        {
            let mut wanted = desired(2, "b");
            wanted.values_mut().for_each(|lrp| lrp.restart = restart);
            let plan = diff(&wanted, &actual, &work(&[(1, false)]), u64::MAX);
            assert_eq!(ops(&plan), expected, "{restart:?}");
        }
    }

    #[test]
    fn only_instances_that_run_and_stay_stand_behind_a_published_port() {
        let starting = record(2, "a", LrpState::Claimed(place(2)), 0);
        let actual = [running(0, "a"), running(1, "a"), starting].into();
        let some = work(&[(0, false), (1, true), (2, false)]);
        let ports = published(&desired(3, "a"), &actual, &some);
        assert_eq!(ports[&80], [(Slot::new(0).expect("slot"), 8080)]);
    }
}
