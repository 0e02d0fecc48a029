//! What is kept about a container for Garden's clients, as text in its depot entry. Pure.
//!
//! It outlives the daemon with the container: clients rebuild their own state from properties.

use crate::model::garden::{Limits, NetIn};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Format of the text; readers refuse a newer one.
const FORMAT: u32 = 1;

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
    /// In order of the requests.
    pub ports: Vec<NetIn>,
    /// What happened to it.
    pub events: Vec<String>,
    /// It was stopped.
    pub stopped: bool,
    /// When it was made, in milliseconds since 1970.
    pub made_ms: u64,
    /// Bytes of its image, for the total of its disk.
    pub image_bytes: u64,
    /// It has been made wholly; until then nobody sees it.
    pub whole: bool,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_comes_back_and_what_is_none_does_not() {
        let record = Record {
            handle: "any/thing \u{1F331}".into(),
            properties: BTreeMap::from([("garden.state".into(), "created".into())]),
            ports: vec![NetIn { host_port: 61_001, container_port: 8080 }],
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
}
