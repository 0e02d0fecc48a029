//! The BBS's streams of events: the cell's own, in its messages, under the guids that clients know.
//!
//! The cell's events hold neither environments nor actions; the BBS's hold whole records. So each
//! stream remembers the records that it has told of, as far as a bound of memory allows.

use super::handle::here;
use super::proto::{Message, encode};
use super::refusal::{Done, Refusal};
use super::route::Events;
use super::show::{self, Here};
use super::tables::events as m;
use crate::api::apps::watch::WatchService;
use crate::api::http::server::{Content, Response};
use crate::api::records::show_task;
use crate::api::sse;
use crate::bridge::Bridge;
use crate::cell::{Cell, Lrp};
use crate::model::event::{Event, From, Heard};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use smol::stream::StreamExt;
use std::collections::BTreeMap;

/// Records that one listener remembers, of those that are gone too.
const RECORDS_MAX: usize = 4096;
/// Bytes of all that one listener remembers, about; of what is beyond that only keys are told.
const BYTES_MAX: usize = 4 << 20;

/// Answers: from now on, until the client is too slow or the daemon ends. With `cell_id`, instances of
/// that cell alone.
pub async fn answer<S: WatchService>(
    service: &S,
    bridge: &Bridge,
    kind: Events,
    cell_id: &str,
) -> Done<Response> {
    let heard = service.events(From::Now, true).await;
    let heard = heard.map_err(|err| Refusal::new("UnknownError", err.message))?;
    let mut picture = Picture::new(bridge.cell().clone(), here(bridge), kind, cell_id);
    picture.learn();
    let mut id: u64 = 0;
    let pieces = heard.filter_map(move |heard| {
        let Heard::Event(event) = heard else { return None };
        let (name, message, value) = picture.told(&event)?;
        let data = STANDARD.encode(encode(message, &value));
        let piece = sse::encode(Some(&id.to_string()), name, &data);
        id += 1;
        Some(Ok(piece))
    });
    let response = Response::new(200, Content::Stream(pieces.boxed()));
    Ok(response
        .with("Content-Type", "text/event-stream; charset=utf-8")
        .with("Cache-Control", "no-cache, no-store, must-revalidate"))
}

type Told = (&'static str, &'static Message, Value);

/// What one listener has been told, or was there before.
struct Picture {
    cell: Cell,
    here: Here,
    kind: Events,
    /// Nobody asked for the instances of this cell.
    elsewhere: bool,
    /// With the cell's name asked for, those that are on no cell are left out.
    only_placed: bool,
    /// By their app's name here.
    lrps: BTreeMap<String, Known>,
    tasks: BTreeMap<String, Value>,
    bytes: usize,
}

/// An LRP.
struct Known {
    guid: String,
    domain: String,
    /// As it was told last; `Null`: it is too large to be remembered.
    shown: Value,
    /// What that counts, in bytes.
    length: usize,
}

impl Known {
    /// As it was told last, or as much of it as is known.
    fn shown(&self) -> Value {
        match self.shown.is_object() {
            true => self.shown.clone(),
            false => json!({ "process_guid": self.guid, "domain": self.domain }),
        }
    }
}

impl Picture {
    fn new(cell: Cell, here: Here, kind: Events, cell_id: &str) -> Picture {
        let elsewhere = !cell_id.is_empty() && cell_id != here.cell_id;
        let only_placed = !cell_id.is_empty();
        let (lrps, tasks) = (BTreeMap::new(), BTreeMap::new());
        Picture { cell, here, kind, elsewhere, only_placed, lrps, tasks, bytes: 0 }
    }

    /// Looks at every record.
    fn learn(&mut self) {
        if self.lrps.len() + self.tasks.len() > RECORDS_MAX {
            (self.lrps, self.tasks, self.bytes) = Default::default();
        }
        if self.kind == Events::Tasks {
            for record in self.cell.tasks(None) {
                let shown = self.kept(show_task(&record), record.task.source.len());
                self.tasks.entry(record.task.guid).or_insert(shown);
            }
            return;
        }
        for lrp in self.cell.lrps() {
            if !self.lrps.contains_key(lrp.name.as_str()) {
                self.keep(&lrp);
            }
        }
    }

    /// The same, or nothing, if that would be too much; `length` in bytes.
    fn kept(&mut self, shown: Value, length: usize) -> Value {
        if self.bytes + length > BYTES_MAX {
            return Value::Null;
        }
        self.bytes += length;
        shown
    }

    fn keep(&mut self, lrp: &Lrp) -> Value {
        let shown = show::desired(lrp);
        let name = lrp.name.to_string();
        // Its room is taken anew.
        if let Some(known) = self.lrps.remove(&name) {
            self.bytes = self.bytes.saturating_sub(known.length);
        }
        if self.lrps.len() >= RECORDS_MAX {
            // Of those that have gone no more is told.
            self.lrps.retain(|_, known| known.shown.is_object());
        }
        let length = lrp.container.source.len();
        let kept = self.kept(shown.clone(), length);
        let length = if kept.is_object() { length } else { 0 };
        let facts = lrp.container.desired.clone().unwrap_or_default();
        let (guid, domain) = (lrp.container.guid.clone(), facts.domain);
        self.lrps.insert(name, Known { guid, domain, shown: kept, length });
        shown
    }

    /// One has gone. Its instances may be told of a while longer.
    fn forget(&mut self, name: &str) {
        let Some(known) = self.lrps.get_mut(name) else { return };
        self.bytes = self.bytes.saturating_sub(std::mem::take(&mut known.length));
        known.shown = Value::Null;
    }

    /// An event of the cell on the wire; `None`: it is none of this stream's.
    fn told(&mut self, event: &Event) -> Option<Told> {
        let data = &event.data;
        match (event.event.as_str(), self.kind) {
            ("task_created" | "task_changed" | "task_removed", Events::Tasks) => self.task(event),
            (_, Events::Tasks) => None,
            ("desired_lrp_created", _) => self.desired_now(&data["desired_lrp"], true),
            ("desired_lrp_changed", _) => self.desired_now(&data["after"], false),
            ("desired_lrp_removed", _) => {
                let name = data["desired_lrp"]["process_guid"].as_str()?;
                let shown = self.known(name)?.shown();
                self.forget(name);
                Some(("desired_lrp_removed", &m::DESIRED_ONE, json!({ "desired_lrp": shown })))
            }
            ("actual_lrp_created", _) => {
                let one = self.instance(&data["actual_lrp"])?;
                self.instance_one(["actual_lrp_instance_created", "actual_lrp_created"], one)
            }
            ("actual_lrp_removed", _) => {
                let one = self.instance(&data["actual_lrp"])?;
                self.instance_one(["actual_lrp_instance_removed", "actual_lrp_removed"], one)
            }
            ("actual_lrp_changed", _) => {
                let (before, after) =
                    (self.instance(&data["before"])?, self.instance(&data["after"])?);
                self.instance_changed(before, after)
            }
            ("actual_lrp_crashed", _) => {
                let mut crash = self.instance(data)?;
                crash["cell_id"] = self.here.cell_id.clone().into();
                (!self.elsewhere).then_some(("actual_lrp_crashed", &m::CRASHED, crash))
            }
            _ => None,
        }
    }

    fn known(&mut self, name: &str) -> Option<&Known> {
        // An LRP may be new since; one that has gone is remembered.
        if !self.lrps.contains_key(name) {
            self.learn();
        }
        self.lrps.get(name)
    }

    /// A DesiredLRP is new, or otherwise than it was; it may be gone again already.
    fn desired_now(&mut self, told: &Value, is_new: bool) -> Option<Told> {
        let name = told["process_guid"].as_str()?;
        let before = self.lrps.get(name).map(Known::shown);
        let lrp = match self.lrps.get(name) {
            Some(known) => self.cell.lrp(&known.guid)?,
            None => self.cell.lrps().into_iter().find(|lrp| lrp.name.as_str() == name)?,
        };
        let after = self.keep(&lrp);
        if is_new {
            return Some(("desired_lrp_created", &m::DESIRED_ONE, json!({ "desired_lrp": after })));
        }
        // Clients look into both.
        let before = before.unwrap_or_else(|| after.clone());
        let data = json!({ "before": before, "after": after });
        Some(("desired_lrp_changed", &m::DESIRED_CHANGED, data))
    }

    /// An instance of an LRP that somebody desired.
    fn instance(&mut self, told: &Value) -> Option<Value> {
        let here = self.here.clone();
        let known = self.known(told["process_guid"].as_str()?)?;
        Some(show::told(told, &known.guid, &known.domain, &here))
    }

    /// Whether the one who listens asked for instances such as this.
    fn hears(&self, one: &Value) -> bool {
        !self.elsewhere && (!self.only_placed || one["cell_id"] != "")
    }

    fn instance_one(&self, [today, group]: [&'static str; 2], one: Value) -> Option<Told> {
        if !self.hears(&one) {
            return None;
        }
        Some(match self.kind {
            Events::Groups => {
                let data = json!({ "actual_lrp_group": { "instance": one } });
                (group, &m::GROUP_ONE, data)
            }
            _ => (today, &m::INSTANCE_ONE, json!({ "actual_lrp": one })),
        })
    }

    fn instance_changed(&self, before: Value, after: Value) -> Option<Told> {
        if !self.hears(&before) && !self.hears(&after) {
            return None;
        }
        Some(match self.kind {
            Events::Groups => {
                let data =
                    json!({ "before": { "instance": before }, "after": { "instance": after } });
                ("actual_lrp_changed", &m::GROUP_CHANGED, data)
            }
            _ => {
                let data = show::changed(before, after);
                ("actual_lrp_instance_changed", &m::INSTANCE_CHANGED, data)
            }
        })
    }

    fn task(&mut self, event: &Event) -> Option<Told> {
        let data = &event.data;
        let now = ["after", "task"].iter().find_map(|name| data.get(name))?;
        let guid = now["task_guid"].as_str()?.to_owned();
        let before = self.tasks.get(&guid).cloned().unwrap_or(Value::Null);
        if event.event == "task_removed" {
            if let Some(gone) = self.tasks.remove(&guid) {
                self.bytes = self.bytes.saturating_sub(length(&gone));
            }
            let task = with(before, now);
            return Some(("task_removed", &m::TASK_ONE, json!({ "task": task })));
        }
        // What it is to do and what came of it stand in the record; how it was then, in the event.
        let record = self.cell.task(&guid).ok().map(|record| show_task(&record));
        let mut after = record.clone().unwrap_or(before.clone());
        if after["updated_at"] != now["updated_at"] {
            after["result"] = "".into();
        }
        let after = with(after, now);
        let kept = match before.is_object() {
            true => after.clone(),
            false => self.kept(after.clone(), length(&after)),
        };
        self.tasks.insert(guid, kept);
        if event.event == "task_created" {
            return Some(("task_created", &m::TASK_ONE, json!({ "task": after })));
        }
        let before = with(if before.is_object() { before } else { after.clone() }, &data["before"]);
        let data = json!({ "before": before, "after": after });
        Some(("task_changed", &m::TASK_CHANGED, data))
    }
}

/// About how long a Task is as text.
fn length(task: &Value) -> usize {
    task.to_string().len()
}

/// A record with what the event says of it.
fn with(mut shown: Value, told: &Value) -> Value {
    if shown.is_null() {
        shown = json!({});
    }
    if let (Some(shown), Some(told)) = (shown.as_object_mut(), told.as_object()) {
        shown.extend(told.clone());
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_goes_before_what_the_record_has_become_since() {
        let record = json!({ "task_guid": "g", "state": "COMPLETED", "rootfs": "preloaded:tiny" });
        let told = json!({ "task_guid": "g", "state": "RUNNING" });
        let shown = with(record, &told);
        assert_eq!(
            (&shown["state"], &shown["rootfs"]),
            (&json!("RUNNING"), &json!("preloaded:tiny"))
        );
        assert_eq!(with(Value::Null, &told), told);
    }
}
