//! The last events, in order. Pure.

use crate::model::event::{Event, EventId, EventLrp, From, Heard};
use serde_json::Value;
use std::collections::VecDeque;
use std::sync::Arc;

/// Events that are remembered.
const EVENTS_MAX: usize = 1024;

/// Bytes that their payloads may have all together, about.
const BYTES_MAX: usize = 1 << 20;

/// The last events of one daemon.
pub struct Ring {
    epoch: u64,
    /// Of the newest event; 0: there was none.
    last: u64,
    events: VecDeque<(usize, Arc<Event>)>,
    bytes: usize,
}

impl Ring {
    /// Nothing has happened yet.
    pub fn new(epoch: u64) -> Ring {
        Ring { epoch, last: 0, events: VecDeque::new(), bytes: 0 }
    }

    /// Remembers one more, and forgets the oldest when that is too much. Gives its bytes, about.
    pub fn push(
        &mut self,
        time_ms: u64,
        (event, data): (&str, Value),
        lrp: Option<Arc<EventLrp>>,
    ) -> (usize, Arc<Event>) {
        self.last += 1;
        let id = EventId { epoch: self.epoch, sequence: self.last };
        let bytes = data.to_string().len() + lrp.as_ref().map_or(0, |lrp| lrp.bytes());
        let event = Arc::new(Event { id, time_ms, event: event.to_owned(), data, lrp });
        self.events.push_back((bytes, event.clone()));
        self.bytes += bytes;
        while self.events.len() > EVENTS_MAX || (self.bytes > BYTES_MAX && self.events.len() > 1) {
            let Some((bytes, _)) = self.events.pop_front() else { break };
            self.bytes -= bytes;
        }
        (bytes, event)
    }

    /// What somebody gets who begins to listen there.
    pub fn since(&self, from: From) -> Vec<Heard> {
        let all = || self.events.iter().map(|(_, event)| event);
        let heard = |event: &Arc<Event>| Heard::Event(event.clone());
        match from {
            From::Now => Vec::new(),
            From::Oldest => all().map(heard).collect(),
            From::Time(ms) => all().filter(|event| event.time_ms >= ms).map(heard).collect(),
            From::After(after) => {
                let missed = self.before_all();
                let newest = EventId { epoch: self.epoch, sequence: self.last };
                // Of an earlier daemon, forgotten since, or of none of ours: records that were put
                // back have forgotten how many daemons there were.
                let gap = after < missed || after > newest;
                let gap = gap.then_some(Heard::Gap { after, missed });
                let known = all().filter(|event| gap.is_some() || event.id > after).map(heard);
                gap.clone().into_iter().chain(known).collect()
            }
        }
    }

    /// The last event that is not remembered any more.
    fn before_all(&self) -> EventId {
        let first = self.events.front().map_or(self.last + 1, |(_, event)| event.id.sequence);
        EventId { epoch: self.epoch, sequence: first - 1 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn ring(epoch: u64, events: u64) -> Ring {
        let mut ring = Ring::new(epoch);
        for n in 1..=events {
            ring.push(n * 10, ("x", json!(n)), None);
        }
        ring
    }

    /// `3-17` for an event, `!` for a gap.
    fn told(ring: &Ring, from: From) -> Vec<String> {
        let text = |heard| match heard {
            Heard::Event(event) => event.id.to_string(),
            Heard::Gap { after, missed } => format!("!{after} {missed}"),
        };
        ring.since(from).into_iter().map(text).collect()
    }

    fn after(epoch: u64, sequence: u64) -> From {
        From::After(EventId { epoch, sequence })
    }

    #[test]
    fn row_21_who_comes_back_gets_what_it_missed_and_nothing_twice() {
        let ring = ring(7, 4);
        assert_eq!(told(&ring, From::Now), [""; 0]);
        assert_eq!(told(&ring, From::Oldest), ["7-1", "7-2", "7-3", "7-4"]);
        assert_eq!(told(&ring, From::Time(30)), ["7-3", "7-4"]);
        assert_eq!(told(&ring, after(7, 2)), ["7-3", "7-4"]);
        assert_eq!(told(&ring, after(7, 4)), [""; 0]);
        assert_eq!(told(&ring, after(7, 0)), ["7-1", "7-2", "7-3", "7-4"]);
    }

    #[test]
    fn row_21_what_is_not_known_any_more_is_said() {
        let all = ["7-1", "7-2"];
        // Of the daemon before; and of one that there never was.
        assert_eq!(told(&ring(7, 2), after(6, 90)), ["!6-90 7-0", all[0], all[1]]);
        assert_eq!(told(&ring(7, 2), after(8, 1)), ["!8-1 7-0", all[0], all[1]]);
        assert_eq!(told(&ring(7, 2), after(7, 3)), ["!7-3 7-0", all[0], all[1]]);
        assert_eq!(told(&ring(7, 0), after(6, 90)), ["!6-90 7-0"]);
        assert_eq!(told(&ring(7, 0), after(7, 0)), [""; 0]);
        let long = ring(7, EVENTS_MAX as u64 + 5);
        let heard = told(&long, after(7, 4));
        assert_eq!((heard.len(), heard[0].as_str()), (EVENTS_MAX + 1, "!7-4 7-5"));
        assert_eq!(told(&long, after(7, 5)).len(), EVENTS_MAX);
    }

    #[test]
    fn large_payloads_do_not_fill_the_memory() {
        let mut ring = Ring::new(1);
        let large = "x".repeat(BYTES_MAX / 4);
        for _ in 0..10 {
            ring.push(0, ("x", json!(large)), None);
        }
        assert_eq!(told(&ring, From::Oldest), ["1-8", "1-9", "1-10"]);
        ring.push(0, ("x", json!("y".repeat(2 * BYTES_MAX))), None);
        assert_eq!(told(&ring, From::Oldest), ["1-11"], "one is always known");
        let routes = [("router".to_owned(), "z".repeat(BYTES_MAX))].into();
        let facts = crate::model::desired::LrpFacts { routes, ..Default::default() };
        let lrp = Arc::new(EventLrp { after: Some(facts), ..EventLrp::default() });
        ring.push(0, ("x", json!(1)), None);
        ring.push(0, ("x", json!(1)), Some(lrp));
        assert_eq!(told(&ring, From::Oldest), ["1-13"], "what a client writes counts, too");
    }
}
