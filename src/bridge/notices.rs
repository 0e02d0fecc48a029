//! Tells the controller of crashes, of readiness that changes, of what a drain ends. What nobody heard is
//! not told again, as in Diego.

use super::Bridge;
use super::client::{Answered, Controller};
use crate::model::desired::APPS;
use crate::model::event::{Event, From};
use serde_json::{Value, json};
use std::time::Duration;

/// From a try to listen that failed to the next.
const AGAIN: Duration = Duration::from_secs(1);

impl Bridge {
    /// Tells of what happens to apps, for ever; without a controller there is nobody to tell.
    pub async fn tell_notices(&self) {
        let Some(controller) = &self.0.controller else { return };
        loop {
            if let Some(listening) = self.0.cell.listen(From::Now) {
                while let Ok(event) = listening.rest.recv().await {
                    self.tell_of(controller, &event).await;
                }
            }
            // Cut off as too slow, as many listen as may, or the daemon ends.
            async_io::Timer::after(AGAIN).await;
        }
    }

    async fn tell_of(&self, controller: &Controller, event: &Event) {
        let is_drained = self.0.cell.drain_view().is_some();
        let Some((what, body)) = notice(event, &self.0.cell.id(), is_drained) else { return };
        let Some(lrp) = event.lrp.as_ref().filter(|lrp| lrp.domain == APPS) else { return };
        let guid = &lrp.guid;
        // Of what is on its way out the controller has said so itself.
        if self.0.cell.lrp(guid).is_none() {
            return;
        }
        let Some(to) = path(guid, what, controller.is_v4) else { return };
        match self.tell(&to, body.to_string().into_bytes()).await {
            Ok(Answered { status: 200, .. }) => {}
            Ok(answered) => {
                crate::warn!("bridge.untold", lrp = guid, notice = what, status = answered.status);
            }
            Err(err) => crate::warn!("bridge.untold", lrp = guid, notice = what, err = err.why),
        }
    }
}

const CRASHED: &str = "crashed";
const RESCHEDULING: &str = "rescheduling";
const READINESS: &str = "readiness_changed";
/// Why an instance is to run elsewhere, in Diego's words.
const EVACUATED: &str = "Cell is being evacuated";

/// Where a controller hears of it: today's paths, and that of 2015, when it heard of crashes alone.
fn path(guid: &str, what: &str, is_v4: bool) -> Option<String> {
    match (is_v4, what) {
        (true, _) => Some(format!("/internal/v4/apps/{guid}/{what}")),
        (false, CRASHED) => Some(format!("/internal/apps/{guid}/{what}")),
        (false, _) => None,
    }
}

/// What a controller hears of an event, if anything: the last part of the path, and the body.
fn notice(event: &Event, cell_id: &str, is_drained: bool) -> Option<(&'static str, Value)> {
    let data = &event.data;
    let (before, after) = (&data["before"], &data["after"]);
    match event.event.as_str() {
        "actual_lrp_crashed" => Some((CRASHED, crash(data, cell_id))),
        // Nobody takes its place here for as long as the cell is drained.
        "actual_lrp_changed" if is_drained && lives(before) && !lives(after) => {
            Some((RESCHEDULING, rescheduling(before, cell_id)))
        }
        "actual_lrp_removed" if is_drained && lives(&data["actual_lrp"]) => {
            Some((RESCHEDULING, rescheduling(&data["actual_lrp"], cell_id)))
        }
        "actual_lrp_changed" if lives(after) && is_ready(before) != is_ready(after) => {
            let body = json!({
                "instance": after["instance_guid"],
                "index": after["index"],
                "cell_id": cell_id,
                "ready": is_ready(after),
            });
            Some((READINESS, body))
        }
        _ => None,
    }
}

/// It has a container.
fn lives(lrp: &Value) -> bool {
    matches!(lrp["state"].as_str(), Some("CLAIMED" | "RUNNING"))
}

/// Its readiness check leads connections to it.
fn is_ready(lrp: &Value) -> bool {
    lrp["routable"] == true
}

fn crash(crash: &Value, cell_id: &str) -> Value {
    json!({
        "instance": crash["instance_guid"],
        "index": crash["index"],
        "cell_id": cell_id,
        "reason": "CRASHED",
        "exit_description": crash["crash_reason"],
        "crash_count": crash["crash_count"],
        "crash_timestamp": crash["since"],
    })
}

fn rescheduling(lrp: &Value, cell_id: &str) -> Value {
    json!({
        "instance": lrp["instance_guid"],
        "index": lrp["index"],
        "cell_id": cell_id,
        "reason": EVACUATED,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::event::EventId;

    fn told(event: &str, data: Value, is_drained: bool) -> Option<(&'static str, Value)> {
        let id = EventId { epoch: 1, sequence: 1 };
        let event = Event { id, time_ms: 0, event: event.into(), data, lrp: None };
        notice(&event, "cell", is_drained)
    }

    /// Row 85: what a controller hears of a crash.
    #[test]
    fn row_85_a_crash_is_told_with_its_count_and_reason() {
        let crash = json!({
            "process_guid": "a-1", "index": 2, "domain": "cf-apps", "instance_guid": "a-1-2-7",
            "crash_count": 4, "crash_reason": "APP: Exited with status 1", "since": 5_000_000,
        });
        let body = json!({
            "instance": "a-1-2-7", "index": 2, "cell_id": "cell", "reason": "CRASHED",
            "exit_description": "APP: Exited with status 1", "crash_count": 4,
            "crash_timestamp": 5_000_000,
        });
        assert_eq!(told("actual_lrp_crashed", crash, false), Some((CRASHED, body)));
        assert_eq!(path("g", CRASHED, true).as_deref(), Some("/internal/v4/apps/g/crashed"));
        assert_eq!(path("g", CRASHED, false).as_deref(), Some("/internal/apps/g/crashed"));
        let today = "/internal/v4/apps/g/readiness_changed";
        assert_eq!(path("g", READINESS, true).as_deref(), Some(today));
        assert_eq!(path("g", RESCHEDULING, false), None);
    }

    fn lrp(state: &str, routable: Option<bool>) -> Value {
        let mut lrp = json!({
            "process_guid": "a-1", "index": 1, "state": state, "instance_guid": "a-1-1-7",
        });
        if let Some(routable) = routable {
            lrp["routable"] = routable.into();
        }
        lrp
    }

    /// Row 85: readiness is told when it changes, and what leaves a drained cell.
    #[test]
    fn row_85_readiness_and_what_has_to_go_elsewhere_are_told() {
        let ready = |ready: bool| {
            let body = json!({
                "instance": "a-1-1-7", "index": 1, "cell_id": "cell", "ready": ready,
            });
            Some((READINESS, body))
        };
        let away = json!({
            "instance": "a-1-1-7", "index": 1, "cell_id": "cell",
            "reason": "Cell is being evacuated",
        });
        let away = || Some((RESCHEDULING, away.clone()));
        let (runs, waits) = (lrp("RUNNING", None), lrp("UNCLAIMED", None));
        let (on, off) = (lrp("RUNNING", Some(true)), lrp("RUNNING", Some(false)));
        for (before, after, is_drained, expected) in [
            (&runs, &off, false, None),
            (&off, &on, false, ready(true)),
            (&on, &off, false, ready(false)),
            (&on, &on, false, None),
            (&on, &waits, false, None),
            (&on, &waits, true, away()),
            (&lrp("CLAIMED", None), &runs, true, None),
            (&waits, &waits, true, None),
        ] {
            let data = json!({ "before": before, "after": after });
            assert_eq!(told("actual_lrp_changed", data, is_drained), expected, "{before} {after}");
        }
        let removed = json!({ "actual_lrp": on });
        assert_eq!(told("actual_lrp_removed", removed.clone(), true), away());
        assert_eq!(told("actual_lrp_removed", removed, false), None);
        assert_eq!(told("actual_lrp_created", json!({ "actual_lrp": runs }), true), None);
    }
}
