//! Records in the words of the BBS, as JSON under the receptor's names. Pure.

use super::super::bridge::desired;
use crate::bridge::show;
use crate::cell::Lrp;
use crate::model::lrp::ActualLrp;
use serde_json::{Map, Value, json};
use std::net::Ipv4Addr;

/// The cell that everything is on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Here {
    /// What it is called.
    pub cell_id: String,
    /// Where it stands.
    pub zone: String,
    /// The box's address, as clients are told it.
    pub host: String,
}

/// A DesiredLRP.
pub fn desired(lrp: &Lrp) -> Value {
    let mut shown = desired::encode(lrp);
    let timeout = lrp.container.start_timeout.as_millis() as u64;
    shown["start_timeout_ms"] = timeout.into();
    if let Some(members) = shown.as_object_mut() {
        // It is the same in seconds, which has no field of its own any more.
        members.remove("start_timeout");
    }
    shown
}

/// The same without what it does.
pub fn scheduling(lrp: &Lrp) -> Value {
    let mut shown = desired(lrp);
    let mounts = shown["volume_mounts"].as_array().map(Vec::as_slice).unwrap_or_default();
    let drivers: Vec<Value> = mounts.iter().map(|mount| mount["driver"].clone()).collect();
    shown["volume_placement"] = json!({ "driver_names": drivers });
    shown
}

/// Every instance of an LRP; `inside`: where each that lives somewhere is found inside the box.
pub fn actuals(
    lrp: &Lrp,
    here: &Here,
    inside: &dyn Fn(&ActualLrp) -> Option<Ipv4Addr>,
) -> Vec<Value> {
    let all = show::actuals(lrp, &here.cell_id, &here.host).into_iter();
    let more = |mut shown: Value| {
        let one = lrp.instances.iter().find(|one| shown["index"] == one.index);
        let address = one.filter(|one| one.runs()).and_then(inside);
        let routable = one.is_some_and(|one| one.runs() && one.routable.unwrap_or(true));
        if let Some(address) = address {
            shown["instance_address"] = address.to_string().into();
        }
        let handle = shown["instance_guid"].as_str().unwrap_or_default().to_owned();
        if !handle.is_empty() {
            let labels = lrp.container.extras.labels(one.map(|one| one.index), &handle);
            let labels = labels.into_iter().map(|(name, value)| (name, Value::from(value)));
            shown["metric_tags"] = Value::Object(labels.collect());
        }
        placed(&mut shown, routable, here);
        shown
    };
    all.map(more).collect()
}

/// One instance as an event of the cell tells it, for a client that knows its LRP by `guid`.
pub fn told(event: &Value, guid: &str, domain: &str, here: &Here) -> Value {
    let mut shown = event.clone();
    let lives = event["instance_guid"].as_str().is_some_and(|handle| !handle.is_empty());
    let runs = event["state"] == "RUNNING";
    shown["process_guid"] = guid.into();
    shown["domain"] = domain.into();
    shown["cell_id"] = if lives { here.cell_id.as_str() } else { "" }.into();
    shown["address"] = if runs { here.host.as_str() } else { "" }.into();
    if !runs {
        shown["ports"] = json!([]);
    }
    placed(&mut shown, runs && event["routable"].as_bool().unwrap_or(true), here);
    shown
}

/// What is the same of all that are on this box.
fn placed(shown: &mut Value, routable: bool, here: &Here) {
    shown["routable"] = routable.into();
    shown["presence"] = "ORDINARY".into();
    if shown["address"].as_str().is_some_and(|address| !address.is_empty()) {
        shown["preferred_address"] = "HOST".into();
    }
    if shown["cell_id"].as_str().is_some_and(|id| !id.is_empty()) {
        shown["availability_zone"] = here.zone.clone().into();
    }
}

/// An instance that changed, in today's form: of whom is told apart from how it is.
pub fn changed(before: Value, after: Value) -> Value {
    let is_set = |value: &Value, name: &str| value[name].as_str().is_some_and(|it| !it.is_empty());
    let key = if is_set(&after, "instance_guid") { &after } else { &before };
    let mut shown = Map::new();
    for name in ["instance_guid", "cell_id"] {
        shown.insert(name.into(), key[name].clone());
    }
    for name in ["process_guid", "index", "domain"] {
        shown.insert(name.into(), after[name].clone());
    }
    shown.insert("before".into(), before);
    shown.insert("after".into(), after);
    Value::Object(shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn here() -> Here {
        Here { cell_id: "box".into(), zone: "z1".into(), host: "192.0.2.1".into() }
    }

    fn event(state: &str, handle: &str) -> Value {
        json!({ "process_guid": "app-1-ab", "index": 2, "domain": "cf-apps", "version": "v",
            "instance_guid": handle, "ports": [{ "container_port": 8080, "host_port": 61_000 }],
            "modification_tag": { "epoch": "e", "index": 7 },
            "state": state, "since": 5, "crash_count": 1, "crash_reason": "", "placement_error": "" })
    }

    /// Row 21: net and zone are told of those that have them.
    #[test]
    fn row_21_an_event_tells_an_instance_as_the_bbs_does() {
        let running = told(&event("RUNNING", "h"), "App_1", "mine", &here());
        assert_eq!(
            (&running["process_guid"], &running["domain"]),
            (&json!("App_1"), &json!("mine"))
        );
        assert_eq!(
            (&running["address"], &running["cell_id"]),
            (&json!("192.0.2.1"), &json!("box"))
        );
        assert_eq!(
            (&running["routable"], &running["availability_zone"]),
            (&json!(true), &json!("z1"))
        );
        assert_eq!(running["preferred_address"], "HOST");
        assert_eq!(running["modification_tag"], json!({ "epoch": "e", "index": 7 }));
        let claimed = told(&event("CLAIMED", "h"), "App_1", "mine", &here());
        assert_eq!((&claimed["ports"], &claimed["address"]), (&json!([]), &json!("")));
        assert_eq!((&claimed["cell_id"], &claimed["routable"]), (&json!("box"), &json!(false)));
        let mut waits = event("RUNNING", "h");
        waits["routable"] = false.into();
        assert_eq!(told(&waits, "App_1", "mine", &here())["routable"], false);
        // Of one that has crashed the instance before is named.
        let crashed = told(&event("CRASHED", ""), "App_1", "mine", &here());
        assert_eq!(crashed["cell_id"], "");
        let both = changed(running, crashed);
        assert_eq!((&both["instance_guid"], &both["cell_id"]), (&json!("h"), &json!("box")));
        assert_eq!(
            (&both["before"]["state"], &both["after"]["state"]),
            (&json!("RUNNING"), &json!("CRASHED"))
        );
    }
}
