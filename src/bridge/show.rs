//! Instances as a controller is told of them. Pure.

use crate::cell::Lrp;
use crate::model::lrp::{ActualLrp, LrpState, Place};
use crate::model::metrics::InstanceFigures;
use crate::unit::date;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// The port whose host port is told as the instance's.
const APP_PORT: u16 = 8080;

/// What is known of one index.
struct One<'a> {
    index: u32,
    /// `None`: its root is still on its way.
    actual: Option<&'a ActualLrp>,
}

/// Every index that is wanted or there.
fn all(lrp: &Lrp) -> Vec<One<'_>> {
    let wanted = (0..lrp.container.instances()).map(|index| (index, None));
    let mut all: BTreeMap<u32, Option<&ActualLrp>> = wanted.collect();
    all.extend(lrp.instances.iter().map(|one| (one.index, Some(one))));
    all.into_iter().map(|(index, actual)| One { index, actual }).collect()
}

/// What is told of an LRP's instances, in the words of `/v1/actual_lrps`; `now_ms` since 1970.
pub fn instances(lrp: &Lrp, now_ms: u64) -> Vec<Value> {
    all(lrp).iter().map(|one| instance(lrp, one, now_ms)).collect()
}

fn instance(lrp: &Lrp, one: &One<'_>, now_ms: u64) -> Value {
    let place = one.actual.and_then(ActualLrp::place);
    let why = match one.actual {
        Some(actual) => actual.placement_error.as_deref(),
        None => lrp.failure.as_deref(),
    };
    let since_ms = one.actual.map_or(lrp.since_ms, |actual| actual.since_ms);
    let mut shown = json!({
        "process_guid": lrp.container.guid,
        "instance_guid": place.map(|place| place.handle.to_string()).unwrap_or_default(),
        "index": one.index,
        "state": state(one.actual, why),
        "since": since_ms / 1000,
        "uptime": now_ms.saturating_sub(since_ms) / 1000,
    });
    if let Some(why) = why {
        shown["details"] = why.into();
    }
    shown
}

/// The controller's word for where an instance stands.
fn state(actual: Option<&ActualLrp>, why: Option<&str>) -> &'static str {
    match actual.map(|actual| &actual.state) {
        None | Some(LrpState::Unclaimed) if why.is_some() => "DOWN",
        None | Some(LrpState::Unclaimed | LrpState::Claimed(_)) => "STARTING",
        Some(LrpState::Running(_)) => "RUNNING",
        Some(LrpState::Crashed { .. }) => "CRASHED",
    }
}

/// The same with addresses and figures; `host`: the box's address.
pub fn stats(lrp: &Lrp, figures: &[InstanceFigures], host: &str, now_ms: u64) -> Vec<Value> {
    let mut shown = instances(lrp, now_ms);
    for (shown, one) in shown.iter_mut().zip(all(lrp)) {
        let place = one.actual.and_then(ActualLrp::place);
        let mine = |place: &Place| figures.iter().find(|it| it.handle == place.handle.as_str());
        let is_crashed = matches!(one.actual.map(|it| &it.state), Some(LrpState::Crashed { .. }));
        if let Some(place) = place {
            shown["host"] = host.into();
            shown["port"] = outside(place).into();
            shown["net_info"] = json!({ "address": host, "ports": ports(place) });
        }
        let used = match place.and_then(mine) {
            Some(used) => Some((used.cpu.hundredths(), used.memory_bytes, used.disk_bytes)),
            None => is_crashed.then_some((0, 0, 0)),
        };
        if let Some((hundredths, mem, disk)) = used {
            shown["stats"] = json!({
                "time": date::rfc3339(now_ms / 1000),
                "cpu": hundredths as f64 / 10_000.0,
                "mem": mem,
                "disk": disk,
            });
        }
    }
    shown
}

fn outside(place: &Place) -> u16 {
    let found = place.ports.iter().find(|(_, inside)| *inside == APP_PORT);
    found.map_or(0, |(outside, _)| *outside)
}

fn ports(place: &Place) -> Vec<Value> {
    let port = |(host, inside): &(u16, u16)| json!({ "container_port": inside, "host_port": host });
    place.ports.iter().map(port).collect()
}

/// One instance in the words of the record store's actual LRPs.
pub fn actual(lrp: &Lrp, one: &ActualLrp, cell_id: &str, host: &str) -> Value {
    let place = one.place();
    let facts = lrp.container.desired.clone().unwrap_or_default();
    let state = match one.state {
        LrpState::Unclaimed => "UNCLAIMED",
        LrpState::Claimed(_) => "CLAIMED",
        LrpState::Running(_) => "RUNNING",
        LrpState::Crashed { .. } => "CRASHED",
    };
    let has_net = one.runs();
    json!({
        "process_guid": lrp.container.guid,
        "index": one.index,
        "domain": facts.domain,
        "instance_guid": place.map(|place| place.handle.to_string()).unwrap_or_default(),
        "cell_id": if place.is_some() { cell_id } else { "" },
        "address": if has_net { host } else { "" },
        "ports": place.filter(|_| has_net).map(ports).unwrap_or_default(),
        "state": state,
        "placement_error": one.placement_error.clone().unwrap_or_default(),
        "crash_count": one.crash_count,
        "crash_reason": one.crash_reason.clone().unwrap_or_default(),
        "since": one.since_ms.saturating_mul(1_000_000),
        "evacuating": false,
        "modification_tag": one.tag,
    })
}

/// Every instance of an LRP so; an index whose root is still on its way is unclaimed.
pub fn actuals(lrp: &Lrp, cell_id: &str, host: &str) -> Vec<Value> {
    let one = |one: One<'_>| match one.actual {
        Some(it) => actual(lrp, it, cell_id, host),
        None => {
            let none = ActualLrp {
                guid: crate::model::lrp::ProcessGuid {
                    app: lrp.name.clone(),
                    process: "web".into(),
                },
                index: one.index,
                side: Default::default(),
                version: String::new(),
                state: LrpState::Unclaimed,
                crash_count: 0,
                crash_reason: None,
                death: None,
                placement_error: lrp.failure.clone(),
                routable: None,
                ran: false,
                was_ready: false,
                tag: Default::default(),
                since_ms: lrp.since_ms,
            };
            actual(lrp, &none, cell_id, host)
        }
    };
    all(lrp).into_iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::action::{Action, RunAction};
    use crate::model::container::LrpContainer;
    use crate::model::desired::LrpFacts;
    use crate::model::lrp::ProcessGuid;
    use crate::model::process::ProcessSpec;
    use crate::unit::{AppName, Slot};
    use std::time::Duration;

    fn lrp(states: Vec<(LrpState, Option<&str>)>) -> Lrp {
        let name: AppName = "app-1".parse().expect("a name");
        let guid = ProcessGuid { app: name.clone(), process: "web".into() };
        let one = |(index, (state, why)): (usize, (LrpState, Option<&str>))| ActualLrp {
            guid: guid.clone(),
            index: index as u32,
            side: Default::default(),
            version: "v".into(),
            state,
            crash_count: 3,
            crash_reason: None,
            death: None,
            placement_error: why.map(str::to_owned),
            routable: None,
            ran: false,
            was_ready: false,
            tag: Default::default(),
            since_ms: 5_000,
        };
        let run = RunAction {
            process: ProcessSpec::default(),
            log_source: String::new(),
            suppress_log_output: false,
        };
        Lrp {
            name,
            container: LrpContainer {
                guid: "App_1".into(),
                rootfs: "preloaded:tiny".parse().expect("a rootfs"),
                limits: Default::default(),
                ports: vec![8080],
                egress: Vec::new(),
                env: Vec::new(),
                setup: None,
                action: Action::Run(run),
                monitor: None,
                checks: Vec::new(),
                readiness_checks: Vec::new(),
                sidecars: Vec::new(),
                start_timeout: Duration::ZERO,
                log_source: String::new(),
                source: "{}".into(),
                extras: Default::default(),
                desired: Some(LrpFacts { instances: 6, ..LrpFacts::default() }),
            },
            instances: states.into_iter().enumerate().map(one).collect(),
            failure: Some("no root".into()),
            since_ms: 4_000,
        }
    }

    fn place() -> Place {
        let slot = Slot::new(3).expect("a slot");
        let handle = "app-1-0-7".parse().expect("a handle");
        Place { handle, slot, ports: vec![(61_001, 2222), (61_000, 8080)] }
    }

    /// Row 84: what a controller reads in each state.
    #[test]
    fn row_84_each_state_has_its_word_and_its_figures() {
        let lrp = lrp(vec![
            (LrpState::Unclaimed, None),
            (LrpState::Unclaimed, Some("insufficient resources")),
            (LrpState::Claimed(place()), None),
            (LrpState::Running(place()), None),
            (LrpState::Crashed { succeeded: false }, None),
        ]);
        let shown = stats(&lrp, &[], "192.0.2.1", 9_500);
        let states: Vec<_> = shown.iter().map(|one| one["state"].as_str().unwrap_or("")).collect();
        assert_eq!(states, ["STARTING", "DOWN", "STARTING", "RUNNING", "CRASHED", "DOWN"]);
        assert_eq!(shown[1]["details"], "insufficient resources");
        assert_eq!((&shown[3]["uptime"], &shown[3]["since"]), (&json!(4), &json!(5)));
        assert_eq!((&shown[3]["host"], &shown[3]["port"]), (&json!("192.0.2.1"), &json!(61_000)));
        assert!(shown[3].get("stats").is_none(), "nobody has measured it");
        assert_eq!(shown[4]["stats"]["mem"], 0, "of what has crashed there is nothing");
        assert_eq!(shown[5]["details"], "no root");
        let plain = instances(&lrp, 9_500);
        assert!(plain.iter().all(|one| one.get("host").is_none() && one.get("port").is_none()));
    }

    #[test]
    fn actual_lrps_name_their_net_only_while_they_run() {
        let lrp = lrp(vec![(LrpState::Claimed(place()), None), (LrpState::Running(place()), None)]);
        let shown = actuals(&lrp, "cell-1", "192.0.2.1");
        assert_eq!(shown.len(), 6);
        assert_eq!((&shown[0]["state"], &shown[0]["address"]), (&json!("CLAIMED"), &json!("")));
        assert_eq!(shown[1]["ports"][1], json!({ "container_port": 8080, "host_port": 61_000 }));
        assert_eq!((&shown[1]["cell_id"], &shown[2]["cell_id"]), (&json!("cell-1"), &json!("")));
        assert_eq!(shown[5]["placement_error"], "no root");
    }
}
