//! What happens to records, as those who watch hear of it.

use super::desired::LrpFacts;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// Names an event and its place in the order of all: `EPOCH-SEQUENCE`. The epoch counts daemons, so
/// that what a later one says comes after all that an earlier one has said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventId {
    /// Which daemon said it, from 1.
    pub epoch: u64,
    /// Its how manieth, from 1; 0 is before the first.
    pub sequence: u64,
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.epoch, self.sequence)
    }
}

impl FromStr for EventId {
    type Err = String;

    fn from_str(text: &str) -> Result<EventId, String> {
        let number = |part: &str| {
            let digits = !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
            digits.then(|| part.parse().ok()).flatten()
        };
        let ids = text.split_once('-').and_then(|(a, b)| Some((number(a)?, number(b)?)));
        let (epoch, sequence) =
            ids.ok_or_else(|| format!("`{}` is no event's id, such as 3-17", text.escape_debug()))?;
        Ok(EventId { epoch, sequence })
    }
}

impl Serialize for EventId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for EventId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<EventId, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// One event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Its place.
    pub id: EventId,
    /// When, in milliseconds since 1970. The clock of the box may jump; ids never do.
    pub time_ms: u64,
    /// `desired_lrp_created`, `actual_lrp_crashed`, ...
    pub event: String,
    /// The payload, by the event's kind.
    pub data: serde_json::Value,
    /// The LRP that it is of, where a client has asked for that by a record of its own.
    #[serde(skip)]
    pub lrp: Option<Arc<EventLrp>>,
}

/// An LRP of an event, as its client knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventLrp {
    /// Its process guid.
    pub guid: String,
    /// Its domain.
    pub domain: String,
    /// What its record said before and says now; neither in events of its instances.
    pub before: Option<LrpFacts>,
    /// See `before`.
    pub after: Option<LrpFacts>,
}

impl EventLrp {
    /// Bytes that it takes, about.
    pub fn bytes(&self) -> usize {
        let facts = [&self.before, &self.after].into_iter().flatten();
        facts.map(LrpFacts::bytes).sum::<usize>() + self.guid.len() + self.domain.len()
    }
}

/// Where somebody begins to listen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum From {
    /// With what comes.
    #[default]
    Now,
    /// With all that is still known.
    Oldest,
    /// After this event.
    After(EventId),
    /// With what has happened since, in milliseconds since 1970.
    Time(u64),
}

/// What a listener gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// An event.
    Event(Arc<Event>),
    /// Events after the one that was named are not known any more; what follows is all that is. Who
    /// keeps a picture of the records looks at all of them again.
    Gap {
        /// After which one the listener wanted to go on.
        after: EventId,
        /// The last one that is not known any more.
        missed: EventId,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_read_as_they_are_written_and_ordered_by_daemon_first() {
        let id = |text: &str| text.parse::<EventId>();
        assert_eq!(id("3-17").expect("an id").to_string(), "3-17");
        assert!(id("3-17") < id("3-18") && id("3-18") < id("4-1") && id("9-1") < id("10-0"));
        for wrong in ["", "3", "-", "3-", "-1", "3-x", "+3-1", "3-1-1", "99999999999999999999-1"] {
            assert!(id(wrong).is_err(), "{wrong}");
        }
    }
}
