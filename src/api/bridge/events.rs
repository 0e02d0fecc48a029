//! What happens, as the record store tells it: the cell's own events of what clients have asked for,
//! under the guids that they know, with what [`super::receptor`] says of the same.

use crate::api::apps::watch::WatchService;
use crate::api::http::server::{Content, Response};
use crate::api::records::{Done, RecordError};
use crate::api::sse;
use crate::bridge::Bridge;
use crate::model::desired::LrpFacts;
use crate::model::event::{Event, EventLrp, From, Heard};
use serde_json::{Map, Value, json};
use smol::stream::StreamExt;

/// Answers GET events: from now on, until the client is too slow or the daemon ends.
pub async fn answer<S: WatchService>(service: &S, bridge: &Bridge) -> Done<Response> {
    let heard = service.events(From::Now, true).await;
    let failed =
        |err: crate::api::apps::ServiceError| RecordError::new(503, "UnknownError", err.message);
    let cell = bridge.cell();
    let place = Place { cell: cell.id(), address: cell.external_ip().to_string() };
    let pieces = heard.map_err(failed)?.filter_map(move |heard| match heard {
        Heard::Event(event) => told(&event, &place).map(Ok),
        Heard::Gap { .. } => None,
    });
    let response = Response::new(200, Content::Stream(pieces.boxed()));
    Ok(response.with("Content-Type", "text/event-stream").with("Cache-Control", "no-store"))
}

/// Where this cell is.
struct Place {
    cell: String,
    address: String,
}

/// The event on the wire; `None`: it is of nothing that the record store lists.
fn told(event: &Event, place: &Place) -> Option<Vec<u8>> {
    let data = match (&event.lrp, event.event.as_str()) {
        (_, name) if name.starts_with("task_") => event.data.clone(),
        (Some(lrp), "actual_lrp_crashed") => crashed(event.data.clone(), lrp, place),
        (Some(lrp), name) if name.starts_with("actual_lrp_") => {
            each(&event.data, |_, one| instance(one, lrp, place))
        }
        (Some(lrp), name) if name.starts_with("desired_lrp_") => each(&event.data, |key, one| {
            // The only one of an event is what is there now, unless there is nothing any more.
            let facts = match key == "before" || name.ends_with("_removed") {
                true => &lrp.before,
                false => &lrp.after,
            };
            wanted(one, lrp, facts.as_ref());
        }),
        _ => return None,
    };
    Some(sse::encode(Some(&event.id.sequence.to_string()), &event.event, &data.to_string()))
}

/// The payload with each record in it changed; without records it is one itself.
fn each(data: &Value, change: impl Fn(&str, &mut Map<String, Value>)) -> Value {
    let mut data = data.clone();
    let Value::Object(members) = &mut data else { return data };
    match members.values().any(Value::is_object) {
        true => {
            let records = members.iter_mut();
            records.for_each(|(key, one)| {
                one.as_object_mut().into_iter().for_each(|it| change(key, it))
            });
        }
        false => change("", members),
    }
    data
}

/// Under the guid and in the domain that its client knows; gives what it was called before.
fn renamed(one: &mut Map<String, Value>, lrp: &EventLrp) -> Value {
    one.insert("domain".into(), lrp.domain.clone().into());
    let name = one.insert("process_guid".into(), lrp.guid.clone().into());
    name.unwrap_or_default()
}

/// A crash names the cell, too.
fn crashed(mut data: Value, lrp: &EventLrp, place: &Place) -> Value {
    if let Value::Object(one) = &mut data {
        renamed(one, lrp);
        one.insert("cell_id".into(), place.cell.clone().into());
    }
    data
}

/// One instance, in the words of GET.
fn instance(one: &mut Map<String, Value>, lrp: &EventLrp, place: &Place) {
    renamed(one, lrp);
    let runs = one.get("state").is_some_and(|state| state == "RUNNING");
    let has_cell = one.get("instance_guid").is_some_and(|guid| guid != "");
    one.remove("version");
    if !runs {
        one.insert("ports".into(), json!([]));
    }
    one.insert("address".into(), if runs { place.address.as_str() } else { "" }.into());
    one.insert("cell_id".into(), if has_cell { place.cell.as_str() } else { "" }.into());
    one.insert("evacuating".into(), false.into());
}

/// One DesiredLRP, with what may change while it runs; without its action and environment.
fn wanted(one: &mut Map<String, Value>, lrp: &EventLrp, facts: Option<&LrpFacts>) {
    let name = renamed(one, lrp);
    one.remove("version");
    let Some(facts) = facts else { return };
    one.insert("instances".into(), facts.instances.into());
    one.insert("annotation".into(), facts.annotation.clone().into());
    one.insert("routes".into(), super::desired::routes_of(facts));
    let tag = facts.tag(name.as_str().unwrap_or_default());
    one.insert("modification_tag".into(), json!(tag));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::event::EventId;
    use std::sync::Arc;

    fn event(event: &str, data: Value, lrp: Option<EventLrp>) -> Event {
        let id = EventId { epoch: 2, sequence: 9 };
        Event { id, time_ms: 5, event: event.into(), data, lrp: lrp.map(Arc::new) }
    }

    fn of(before: Option<LrpFacts>, after: Option<LrpFacts>) -> Option<EventLrp> {
        Some(EventLrp { guid: "App_1".into(), domain: "d".into(), before, after })
    }

    fn text(told: Option<Vec<u8>>) -> String {
        String::from_utf8(told.expect("it is told")).expect("text")
    }

    fn place() -> Place {
        Place { cell: "cell-1".into(), address: "192.0.2.1".into() }
    }

    /// Row 21: the dialect of the record store.
    #[test]
    fn row_21_events_name_instances_as_their_clients_do() {
        let one = |state: &str, guid: &str| {
            json!({ "process_guid": "app-1-ab", "domain": "cf-apps", "index": 0, "version": "v",
                "state": state, "instance_guid": guid, "crash_count": 1, "ports": [1],
                "modification_tag": { "epoch": "e", "index": 7 } })
        };
        let data = json!({ "before": one("UNCLAIMED", ""), "after": one("RUNNING", "i") });
        let wire = text(told(&event("actual_lrp_changed", data, of(None, None)), &place()));
        let mut lines = wire.lines();
        assert_eq!(
            (lines.next(), lines.next()),
            (Some("id: 9"), Some("event: actual_lrp_changed"))
        );
        let data = lines.next().and_then(|line| line.strip_prefix("data: ")).expect("a payload");
        let data: Value = serde_json::from_str(data).expect("JSON");
        let shown = |state: &str, guid: &str, cell: &str, address: &str, ports: Value| {
            json!({ "process_guid": "App_1", "domain": "d", "index": 0, "state": state,
                "instance_guid": guid, "crash_count": 1, "ports": ports, "cell_id": cell,
                "address": address, "evacuating": false,
                "modification_tag": { "epoch": "e", "index": 7 } })
        };
        assert_eq!(data["before"], shown("UNCLAIMED", "", "", "", json!([])));
        assert_eq!(data["after"], shown("RUNNING", "i", "cell-1", "192.0.2.1", json!([1])));
        assert_eq!((lines.next(), lines.next()), (Some(""), None));
        let crash = json!({ "process_guid": "app-1-ab", "index": 2 });
        let wire = text(told(&event("actual_lrp_crashed", crash, of(None, None)), &place()));
        assert!(
            wire.contains(r#"{"cell_id":"cell-1","domain":"d","index":2,"process_guid":"App_1"}"#),
            "{wire}"
        );
    }

    /// Row 21: routes are what routers listen for.
    #[test]
    fn row_21_a_desired_lrp_comes_with_its_routes_and_tag() {
        let facts = |changes, route: &str| LrpFacts {
            changes,
            epoch: "e".into(),
            routes: [("cf-router".to_owned(), route.to_owned())].into(),
            ..LrpFacts::default()
        };
        let one = json!({ "process_guid": "app-1-ab", "version": "v", "instances": 7 });
        let data = json!({ "before": one, "after": one });
        let lrp = of(Some(facts(1, "[1]")), Some(facts(2, "[2]")));
        let wire = text(told(&event("desired_lrp_changed", data, lrp.clone()), &place()));
        for part in [
            r#""modification_tag":{"epoch":"e","index":1},"process_guid":"App_1","routes":{"cf-router":[1]}"#,
            r#""modification_tag":{"epoch":"e","index":2},"process_guid":"App_1","routes":{"cf-router":[2]}"#,
        ] {
            assert!(wire.contains(part), "{wire}");
        }
        let data = json!({ "desired_lrp": one });
        let removed =
            text(told(&event("desired_lrp_removed", data.clone(), lrp.clone()), &place()));
        assert!(removed.contains(r#""index":1"#), "{removed}");
        let created = text(told(&event("desired_lrp_created", data, lrp), &place()));
        assert!(created.contains(r#""index":2"#), "{created}");
    }

    #[test]
    fn what_no_client_of_the_record_store_asked_for_is_not_told() {
        let data = json!({ "actual_lrp": { "process_guid": "web" } });
        assert_eq!(told(&event("actual_lrp_created", data, None), &place()), None);
        assert_eq!(told(&event("cell_unhealthy", json!({}), None), &place()), None);
        let task = json!({ "task": { "task_guid": "t" } });
        assert!(told(&event("task_created", task, None), &place()).is_some());
    }
}
