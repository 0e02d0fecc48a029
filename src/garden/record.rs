//! What is kept about a container for Garden's clients, as text in its depot entry. Pure.
//!
//! It outlives the daemon with the container: clients rebuild their own state from properties.

use crate::model::garden::{ContainerSpec, Limits};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// Format of the text; readers refuse a newer one.
const FORMAT: u32 = 1;

/// Names of processes that are kept for one container; each is one that runs or ended a short time
/// ago.
pub const NAMES_MAX: usize = 4096;

/// One container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Of this text.
    pub format: u32,
    /// What clients call it: any text; the depot has a name of our own.
    pub handle: String,
    /// Clients' notes.
    pub properties: BTreeMap<String, String>,
    /// `K=V`: the image's, then the container's.
    pub env: Vec<String>,
    /// How long it stays without a request, in nanoseconds; 0: for ever.
    pub grace_ns: u64,
    /// As asked for.
    pub limits: Limits,
    /// It was stopped.
    pub stopped: bool,
    /// When it was made, in milliseconds since 1970.
    pub made_ms: u64,
    /// Bytes of its image, for the total of its disk.
    pub image_bytes: u64,
    /// Names of processes that pid 1 could not be told as they are, by the names that it has.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub names: BTreeMap<String, String>,
}

impl Record {
    /// What is kept of a request, its image and the time.
    pub fn new(
        handle: &str,
        spec: &ContainerSpec,
        image_env: &[String],
        image_bytes: u64,
        made_ms: u64,
    ) -> Record {
        Record {
            format: FORMAT,
            handle: handle.to_owned(),
            properties: spec.properties.clone(),
            env: image_env.iter().chain(&spec.env).cloned().collect(),
            grace_ns: u64::try_from(spec.grace_time).unwrap_or_default(),
            limits: spec.limits,
            stopped: false,
            made_ms,
            image_bytes,
            names: BTreeMap::new(),
        }
    }
}

/// What marks a container as a Garden client's.
#[derive(Serialize, Deserialize)]
struct Owner {
    garden: Record,
}

/// The text for the depot.
pub fn to_text(record: &Record) -> String {
    let garden = Record { format: FORMAT, ..record.clone() };
    serde_json::to_string(&Owner { garden }).expect("plain data")
}

/// The record in a depot entry's text; `None`: the container is somebody else's, or a newer
/// program's.
pub fn from_text(text: &str) -> Option<Record> {
    let Owner { garden } = serde_json::from_str(text).ok()?;
    (garden.format <= FORMAT).then_some(garden)
}

/// Handle and properties in a text that [`from_text`] does not take; what is not there is empty.
pub fn glimpse(text: &str) -> Record {
    let all: Value = serde_json::from_str(text).unwrap_or_default();
    let seen = &all["garden"];
    Record {
        handle: seen["handle"].as_str().unwrap_or_default().to_owned(),
        properties: serde_json::from_value(seen["properties"].clone()).unwrap_or_default(),
        ..Record::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_comes_back_and_what_is_none_does_not() {
        let record = Record {
            handle: "any/thing \u{1F331}".into(),
            properties: BTreeMap::from([("garden.state".into(), "created".into())]),
            names: BTreeMap::from([("h-1".into(), "A process".into())]),
            ..Record::default()
        };
        let back = from_text(&to_text(&record)).expect("ours");
        assert_eq!(back, Record { format: FORMAT, ..record });
        let newer = to_text(&back).replace("\"format\":1", "\"format\":2");
        for text in ["", "{}", r#"{"lrp":{"guid":{"app":"a","process":"web"},"index":0}}"#, &newer]
        {
            assert_eq!(from_text(text), None, "{text}");
        }
    }
    #[test]
    fn of_a_newer_record_handle_and_properties_are_told() {
        let record = Record {
            handle: "web".into(),
            properties: BTreeMap::from([("owner".into(), "me".into())]),
            ..Record::default()
        };
        let newer = to_text(&record).replace("\"format\":1", "\"format\":2");
        let changed = newer.replace("\"env\":[]", "\"env\":{\"A\":\"b\"}");
        assert_ne!(newer, changed);
        assert_eq!(glimpse(&changed), record);
        assert_eq!(glimpse("{"), Record::default());
    }
}
