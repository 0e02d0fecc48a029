//! Which events a change of a record is, by what it was and what it is. Pure.

use crate::cell::record::AppRecord;
use crate::cell::releases;
use crate::model::desired::LrpFacts;
use crate::model::event::EventLrp;
use crate::model::lrp::{ActualLrp, DesiredLrp, LrpState, Place, ProcessGuid};
use crate::model::task::TaskRecord;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// An event that has no place in the order yet.
#[derive(Clone, Debug, PartialEq)]
pub struct Draft {
    /// What is told of, as BBS names it.
    pub event: &'static str,
    /// The payload.
    pub data: Value,
}

/// `cf-apps`: the domain that the apps of a Cloud Foundry live in.
const DOMAIN: &str = "cf-apps";

/// An instance's record was `before` and is `after`.
pub fn actual(before: Option<&ActualLrp>, after: Option<&ActualLrp>) -> Vec<Draft> {
    let mut drafts = Vec::new();
    let draft = |event, data| Draft { event, data };
    match (before, after) {
        (None, None) => {}
        (None, Some(after)) => {
            drafts.push(draft("actual_lrp_created", json!({ "actual_lrp": show(after) })));
        }
        (Some(before), None) => {
            drafts.push(draft("actual_lrp_removed", json!({ "actual_lrp": show(before) })));
        }
        (Some(before), Some(after)) if before == after || still_waits(before, after) => {}
        (Some(before), Some(after)) => {
            let data = json!({ "before": show(before), "after": show(after) });
            drafts.push(draft("actual_lrp_changed", data));
        }
    }
    if let Some(crash) = crashed(before, after) {
        drafts.push(draft("actual_lrp_crashed", crash));
    }
    drafts
}

/// It waits for room as before; how much is missing changes with whatever comes and goes, for hundreds
/// at a time, and would leave no place for anything else.
fn still_waits(before: &ActualLrp, after: &ActualLrp) -> bool {
    let waits = |lrp: &ActualLrp| lrp.placement_error.is_some();
    let (placement_error, tag) = (after.placement_error.clone(), after.tag.clone());
    waits(before) && waits(after) && ActualLrp { placement_error, tag, ..before.clone() } == *after
}

/// The payload of the crash that `after` tells of and `before` does not.
fn crashed(before: Option<&ActualLrp>, after: Option<&ActualLrp>) -> Option<Value> {
    let after = after?;
    let death = after.death.as_ref().filter(|death| death.counted)?;
    if before.and_then(|before| before.death.as_ref()) == Some(death) {
        return None;
    }
    // The record of who crashed does not name its container any more.
    let instance = before.and_then(place).map(|place| place.handle.to_string());
    Some(json!({
        "process_guid": after.guid.to_string(),
        "index": after.index,
        "domain": DOMAIN,
        "instance_guid": instance.unwrap_or_default(),
        "crash_count": after.crash_count,
        "crash_reason": after.crash_reason.clone().unwrap_or_default(),
        "since": after.since_ms.saturating_mul(1_000_000),
        "cause": death.cause,
    }))
}

/// An app's record was `before` and is `after`; beside each, its LRPs as they are wanted.
pub fn app(
    before: (Option<&AppRecord>, &BTreeMap<ProcessGuid, DesiredLrp>),
    after: (Option<&AppRecord>, &BTreeMap<ProcessGuid, DesiredLrp>),
) -> Vec<Draft> {
    let mut drafts = Vec::new();
    if let Some(app) = after.0
        && app.staged == Some(app.generation)
        && before.0.and_then(|before| before.staged) != app.staged
    {
        let data = json!({
            "app": app.manifest.name,
            "failed": app.failure.is_some(),
            "failure_reason": app.failure.clone().unwrap_or_default(),
        });
        drafts.push(Draft { event: "staging_completed", data });
    }
    let back = rolled_back(before.0, after.0);
    let mut guids: Vec<&ProcessGuid> = before.1.keys().chain(after.1.keys()).collect();
    guids.sort();
    guids.dedup();
    for guid in guids {
        let (old, new) = (before.1.get(guid), after.1.get(guid));
        if let (Some(why), Some(old), Some(new)) = (back, old, new)
            && old.version != new.version
        {
            drafts.push(Draft {
                event: "desired_lrp_rolled_back",
                data: json!({
                    "process_guid": guid.to_string(),
                    "domain": DOMAIN,
                    "version": new.version,
                    "failed_version": old.version,
                    "reason": why,
                }),
            });
        }
        // Secrets may have changed, and those are not shown: the comparison is of all; and of routes
        // and words, which leave what runs alone.
        let reworded = old.is_some() && facts(before.0) != facts(after.0);
        if old != new || reworded {
            drafts.extend(record("desired_lrp", old.map(wanted), new.map(wanted)));
        }
    }
    drafts
}

/// The LRP of an app's record, where a client has asked for it by a record of its own.
pub fn lrp(app: Option<&AppRecord>) -> Option<EventLrp> {
    let container = app?.container.as_deref()?;
    let domain = container.desired.as_ref()?.domain.clone();
    Some(EventLrp { guid: container.guid.clone(), domain, ..EventLrp::default() })
}

/// The same of one whose record was `before` and is `after`.
pub fn changed_lrp(before: Option<&AppRecord>, after: Option<&AppRecord>) -> Option<EventLrp> {
    let named = lrp(after.or(before))?;
    Some(EventLrp { before: facts(before).cloned(), after: facts(after).cloned(), ..named })
}

/// What may change of such an LRP while it runs.
fn facts(app: Option<&AppRecord>) -> Option<&LrpFacts> {
    app?.container.as_deref()?.desired.as_ref()
}

/// Why an app has gone back to the version before, if that is what has changed.
fn rolled_back<'a>(before: Option<&AppRecord>, after: Option<&'a AppRecord>) -> Option<&'a str> {
    let (before, after) = before.zip(after)?;
    let is_back = before.last_good.is_some() && before.last_good == after.release;
    releases::rolled_back(after).filter(|_| is_back && before.release != after.release)
}

/// A Task's record was `before` and is `after`.
pub fn task(before: Option<&TaskRecord>, after: Option<&TaskRecord>) -> Option<Draft> {
    if before == after {
        return None;
    }
    record("task", before.map(show_task), after.map(show_task))
}

/// A Task under BBS's names, without its environment, action and result: those may hold secrets.
fn show_task(record: &TaskRecord) -> Value {
    json!({
        "task_guid": record.task.guid,
        "domain": record.task.domain,
        "state": record.state,
        "cell_id": record.cell_id,
        "created_at": record.created_at,
        "updated_at": record.updated_at,
        "failed": record.failed,
        "failure_reason": record.failure_reason,
        "rejection_count": record.rejection_count,
        "rejection_reason": record.rejection_reason,
    })
}

/// A record of this noun (`desired_lrp`, `task`) was `before` and is `after`, as they are shown.
/// Both there: it has changed.
pub fn record(noun: &'static str, before: Option<Value>, after: Option<Value>) -> Option<Draft> {
    let [created, changed, removed] = match noun {
        "task" => ["task_created", "task_changed", "task_removed"],
        _ => ["desired_lrp_created", "desired_lrp_changed", "desired_lrp_removed"],
    };
    let (event, data) = match (before, after) {
        (None, None) => return None,
        (None, Some(after)) => (created, json!({ noun: after })),
        (Some(before), Some(after)) => (changed, json!({ "before": before, "after": after })),
        (Some(before), None) => (removed, json!({ noun: before })),
    };
    Some(Draft { event, data })
}

/// What was wrong with the box, and what is.
pub fn health(before: &[String], after: &[String]) -> Option<Draft> {
    let event = if after.is_empty() { "cell_healthy" } else { "cell_unhealthy" };
    (before != after).then(|| Draft { event, data: json!({ "problems": after }) })
}

fn place(lrp: &ActualLrp) -> Option<&Place> {
    match &lrp.state {
        LrpState::Claimed(place) | LrpState::Running(place) => Some(place),
        LrpState::Unclaimed | LrpState::Crashed { .. } => None,
    }
}

/// An instance under BBS's names; times in nanoseconds since 1970, as there.
fn show(lrp: &ActualLrp) -> Value {
    let mut shown = show_all(lrp);
    // Without a readiness check nothing is said of it.
    if let Some(routable) = lrp.routable {
        shown["routable"] = routable.into();
    }
    shown
}

fn show_all(lrp: &ActualLrp) -> Value {
    let place = place(lrp);
    let ports = place.map(|place| place.ports.clone()).unwrap_or_default();
    let ports = ports
        .iter()
        .map(|(host, container)| json!({ "container_port": container, "host_port": host }));
    json!({
        "process_guid": lrp.guid.to_string(),
        "version": lrp.version,
        "index": lrp.index,
        "domain": DOMAIN,
        "instance_guid": place.map(|place| place.handle.to_string()).unwrap_or_default(),
        "ports": ports.collect::<Vec<_>>(),
        "state": match lrp.state {
            LrpState::Unclaimed => "UNCLAIMED",
            LrpState::Claimed(_) => "CLAIMED",
            LrpState::Running(_) => "RUNNING",
            LrpState::Crashed { .. } => "CRASHED",
        },
        "since": lrp.since_ms.saturating_mul(1_000_000),
        "crash_count": lrp.crash_count,
        "crash_reason": lrp.crash_reason.clone().unwrap_or_default(),
        "placement_error": lrp.placement_error.clone().unwrap_or_default(),
        "modification_tag": lrp.tag,
    })
}

/// What is wanted of an LRP, without its environment and command: those hold secrets.
fn wanted(lrp: &DesiredLrp) -> Value {
    json!({
        "process_guid": lrp.guid.to_string(),
        "version": lrp.version,
        "domain": DOMAIN,
        "instances": lrp.instances,
        "memory_mb": lrp.limits.memory.map_or(0, |bytes| bytes.get() >> 20),
        "disk_mb": lrp.limits.disk.map_or(0, |bytes| bytes.get() >> 20),
        "ports": lrp.ports.iter().map(|port| port.container).collect::<Vec<_>>(),
        "published": lrp.ports.iter().filter_map(|port| port.publish).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::death::{Cause, Death};
    use crate::model::lrp::Side;
    use crate::unit::Slot;

    fn lrp(state: LrpState, crash_count: u32, death: Option<Death>) -> ActualLrp {
        ActualLrp {
            guid: ProcessGuid { app: "web".parse().expect("name"), process: "worker".into() },
            index: 1,
            side: Side::Left,
            routable: None,
            ran: false,
            was_ready: false,
            tag: Default::default(),
            version: "1".into(),
            state,
            crash_count,
            crash_reason: death.as_ref().map(|death| death.cause.text()),
            death,
            placement_error: None,
            since_ms: 5,
        }
    }

    fn running() -> LrpState {
        let slot = Slot::new(3).expect("slot");
        let handle = "web-1-00000007".parse().expect("handle");
        LrpState::Running(Place { handle, slot, ports: vec![(61_000, 8080)] })
    }

    fn death(at_ms: u64, counted: bool, code: i32) -> Option<Death> {
        let cause = Cause::Exited { source: "APP/PROC/WORKER".into(), code };
        Some(Death { at_ms, counted, cause })
    }

    fn kinds(drafts: &[Draft]) -> Vec<&str> {
        drafts.iter().map(|draft| draft.event).collect()
    }

    /// Row 21: created, changed, removed; and a crash with its count, whatever state it leads to.
    #[test]
    fn row_21_a_change_of_an_instance_is_told_by_what_it_was_and_is() {
        let crashed = LrpState::Crashed { succeeded: false };
        let up = lrp(running(), 1, None);
        let down = lrp(crashed.clone(), 2, death(9, true, 7));
        assert_eq!(kinds(&actual(None, Some(&up))), ["actual_lrp_created"]);
        assert_eq!(kinds(&actual(Some(&up), None)), ["actual_lrp_removed"]);
        assert!(actual(Some(&up), Some(&up)).is_empty() && actual(None, None).is_empty());
        let told = actual(Some(&up), Some(&down));
        assert_eq!(kinds(&told), ["actual_lrp_changed", "actual_lrp_crashed"]);
        let crash = &told[1].data;
        for (key, value) in [
            ("process_guid", json!("web:worker")),
            ("index", json!(1)),
            ("instance_guid", json!("web-1-00000007")),
            ("crash_count", json!(2)),
            ("crash_reason", json!("APP/PROC/WORKER: Exited with status 7")),
            ("since", json!(5_000_000)),
            ("domain", json!("cf-apps")),
        ] {
            assert_eq!(crash[key], value, "{key}");
        }
        // BBS makes it unclaimed at once while it restarts at once.
        let again = lrp(LrpState::Unclaimed, 2, death(9, true, 7));
        assert_eq!(kinds(&actual(Some(&up), Some(&again))).len(), 2);
        // The record goes on, the crash is told once; the same end once more is another crash.
        assert_eq!(kinds(&actual(Some(&down), Some(&again))), ["actual_lrp_changed"]);
        let second = lrp(crashed, 2, death(10, true, 7));
        assert_eq!(kinds(&actual(Some(&down), Some(&second))).len(), 2);
        // One that waits is told of once, whatever the box lacks now.
        let waits = |why: &str| ActualLrp {
            placement_error: Some(why.into()),
            ..lrp(LrpState::Unclaimed, 0, None)
        };
        let fresh = lrp(LrpState::Unclaimed, 0, None);
        assert_eq!(kinds(&actual(Some(&fresh), Some(&waits("a")))), ["actual_lrp_changed"]);
        assert!(actual(Some(&waits("a")), Some(&waits("b"))).is_empty());
        // Work that is done is no crash, nor is a stop.
        let done = lrp(LrpState::Crashed { succeeded: true }, 1, death(9, false, 0));
        assert_eq!(kinds(&actual(Some(&up), Some(&done))), ["actual_lrp_changed"]);
    }

    /// Row 83: a way back is an event of its own, before the change that it is.
    #[test]
    fn row_83_a_way_back_is_told_with_its_reason_and_both_versions() {
        use crate::cell::releases::tests::app as of;
        use crate::cell::rollout::Verdict;
        let good = of("memory = \"32MiB\"");
        let next = of("memory = \"33MiB\"");
        let trial = AppRecord { last_good: good.release.clone(), ..next };
        let (back, _) = releases::judged(&trial, Verdict::Bad("it fell".into())).expect("back");
        let lrps = |app: &AppRecord| {
            let all = releases::desired(app).into_iter();
            all.map(|lrp| (lrp.guid.clone(), lrp)).collect::<BTreeMap<_, _>>()
        };
        let told = app((Some(&trial), &lrps(&trial)), (Some(&back), &lrps(&back)));
        assert_eq!(kinds(&told), ["desired_lrp_rolled_back", "desired_lrp_changed"]);
        let data = &told[0].data;
        let versions = [&trial, &back].map(|app| releases::desired(app).remove(0).version);
        assert_eq!(data["process_guid"], "web");
        assert_eq!(
            (&data["failed_version"], &data["version"]),
            (&json!(versions[0]), &json!(versions[1]))
        );
        assert!(data["reason"].as_str().is_some_and(|why| why.contains("it fell")), "{data}");
        // Declared anew, it is only changed.
        let anew = AppRecord { failure: None, release: good.release.clone(), ..trial.clone() };
        let told = app((Some(&trial), &lrps(&trial)), (Some(&anew), &lrps(&anew)));
        assert_eq!(kinds(&told), ["desired_lrp_changed"]);
    }

    #[test]
    fn row_21_records_of_every_noun_are_created_changed_and_removed() {
        let told = |before, after| record("task", before, after).map(|draft| draft.event);
        assert_eq!(told(None, Some(json!(1))), Some("task_created"));
        assert_eq!(told(Some(json!(1)), Some(json!(2))), Some("task_changed"));
        assert_eq!(told(Some(json!(1)), None), Some("task_removed"));
        assert_eq!(told(None, None), None);
        let draft = record("desired_lrp", None, Some(json!(1))).expect("an event");
        assert_eq!((draft.event, draft.data), ("desired_lrp_created", json!({"desired_lrp": 1})));
    }
}
