//! The cell's events: what is remembered of them, and who listens.
//!
//! Nothing is written for them: the epoch in their ids is written once when a daemon begins, and who
//! goes on listening to the next one is told that there is a gap.

pub mod derive;
mod ring;

use super::shared::{Cell, now_ms};
use crate::model::event::{Event, EventLrp, From, Heard};
use derive::Draft;
use ring::Ring;
use smol::channel::{Receiver, Sender, TrySendError, bounded};
use std::sync::{Arc, Mutex, MutexGuard};

/// Events that a listener may be behind; one that is further behind is cut off. BBS has it so.
const BEHIND_MAX: usize = 1024;

/// Bytes of as many events as the one that is told: one that is longer leaves room for fewer, so that
/// what is behind does not depend on how much a client writes on its records.
const BEHIND_BYTES: usize = 4 << 20;

/// Listeners at a time.
const LISTENERS_MAX: usize = 64;

/// Remembers and tells.
pub(crate) struct Events(Mutex<Inner>);

struct Inner {
    ring: Ring,
    listeners: Vec<Sender<Arc<Event>>>,
    /// What was wrong with the box when that was told last.
    problems: Vec<String>,
    closed: bool,
}

/// What a new listener gets first, and where the rest comes.
pub struct Listening {
    /// What has happened, the oldest first.
    pub past: Vec<Heard>,
    /// What will happen; ends when the listener is too slow, or the daemon ends.
    pub rest: Receiver<Arc<Event>>,
}

impl Events {
    /// Those of the daemon `epoch`.
    pub fn new(epoch: u64) -> Events {
        let (ring, listeners, problems) = (Ring::new(epoch), Vec::new(), Vec::new());
        Events(Mutex::new(Inner { ring, listeners, problems, closed: false }))
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Tells these, in their order. Whoever is too far behind is cut off and not waited for.
    pub fn tell(&self, drafts: impl IntoIterator<Item = Draft>) {
        self.tell_of(None, drafts);
    }

    /// The same of what happens to an LRP that a client has asked for by a record.
    pub fn tell_of(&self, lrp: Option<EventLrp>, drafts: impl IntoIterator<Item = Draft>) {
        let (mut inner, lrp) = (self.inner(), lrp.map(Arc::new));
        for draft in drafts {
            let told = (draft.event, draft.data);
            let (bytes, event) = inner.ring.push(now_ms(), told, lrp.clone());
            let most = (BEHIND_BYTES / bytes.max(1)).clamp(1, BEHIND_MAX);
            inner.listeners.retain(|listener| {
                let sent = match listener.len() < most {
                    true => listener.try_send(event.clone()),
                    false => Err(TrySendError::Full(event.clone())),
                };
                if matches!(sent, Err(TrySendError::Full(_))) {
                    crate::warn!("events.listener_cut");
                }
                sent.is_ok()
            });
        }
    }

    /// Tells how the box is, when that has changed.
    pub fn tell_health(&self, problems: &[String]) {
        let before = std::mem::replace(&mut self.inner().problems, problems.to_vec());
        self.tell(derive::health(&before, problems));
    }

    /// Begins to listen. `None`: as many listen as may.
    fn listen(&self, from: From) -> Option<Listening> {
        let mut inner = self.inner();
        inner.listeners.retain(|listener| !listener.is_closed());
        if inner.listeners.len() >= LISTENERS_MAX {
            return None;
        }
        let past = inner.ring.since(from);
        let (sender, rest) = bounded(BEHIND_MAX);
        if !inner.closed {
            inner.listeners.push(sender);
        }
        Some(Listening { past, rest })
    }

    /// Nothing more happens: the daemon ends.
    pub fn close(&self) {
        let mut inner = self.inner();
        inner.closed = true;
        inner.listeners.clear();
    }
}

impl Cell {
    /// Begins to listen to events; `None`: as many listen as may.
    pub fn listen(&self, from: From) -> Option<Listening> {
        self.shared.events.listen(from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::event::EventId;
    use serde_json::json;

    fn draft(n: usize) -> Draft {
        Draft { event: "task_created", data: json!({ "n": n }) }
    }

    fn numbers(heard: impl IntoIterator<Item = Arc<Event>>) -> Vec<u64> {
        heard.into_iter().map(|event| event.data["n"].as_u64().expect("a number")).collect()
    }

    /// Row 21: a reader that is slower than the buffer is disconnected, and the others are not.
    #[test]
    fn row_21_a_slow_listener_is_cut_and_nobody_waits_for_it() {
        let events = Events::new(1);
        let slow = events.listen(From::Now).expect("room");
        let quick = events.listen(From::Now).expect("room");
        let mut heard = Vec::new();
        for n in 0..BEHIND_MAX + 10 {
            events.tell([draft(n)]);
            heard.extend(std::iter::from_fn(|| quick.rest.try_recv().ok()));
        }
        assert_eq!(numbers(heard).len(), BEHIND_MAX + 10);
        // What was in its buffer it still gets, and then the end.
        let got: Vec<_> = std::iter::from_fn(|| slow.rest.try_recv().ok()).collect();
        assert_eq!(numbers(got).len(), BEHIND_MAX);
        assert!(slow.rest.is_closed() && !quick.rest.is_closed());
    }

    /// Row 21: long events are kept for fewer.
    #[test]
    fn row_21_what_is_kept_for_a_slow_listener_has_a_bound_in_bytes() {
        let events = Events::new(1);
        let slow = events.listen(From::Now).expect("room");
        let long = || Draft { event: "x", data: json!("y".repeat(BEHIND_BYTES / 8)) };
        for _ in 0..20 {
            events.tell([long()]);
        }
        let got = std::iter::from_fn(|| slow.rest.try_recv().ok()).count();
        assert!((1..=8).contains(&got), "{got}");
        assert!(slow.rest.is_closed());
    }

    #[test]
    fn a_listener_goes_on_where_it_left_and_hears_of_the_end() {
        let events = Events::new(4);
        events.tell((1..=3).map(draft));
        let id = EventId { epoch: 4, sequence: 1 };
        let listening = events.listen(From::After(id)).expect("room");
        events.tell([draft(4)]);
        let past = listening.past.into_iter().map(|heard| match heard {
            Heard::Event(event) => event,
            Heard::Gap { .. } => panic!("nothing is missing"),
        });
        assert_eq!(numbers(past), [2, 3]);
        assert_eq!(numbers(listening.rest.try_recv().ok()), [4]);
        events.close();
        assert!(listening.rest.is_closed());
    }

    #[test]
    fn so_many_listen_and_no_more() {
        let events = Events::new(1);
        let mut all: Vec<_> = (0..LISTENERS_MAX).map(|_| events.listen(From::Now)).collect();
        assert!(all.iter().all(Option::is_some) && events.listen(From::Now).is_none());
        all.pop();
        assert!(events.listen(From::Now).is_some(), "one has gone");
    }

    #[test]
    fn the_boxs_health_is_told_when_it_changes() {
        let events = Events::new(1);
        let full = ["the disk is full".to_owned()];
        for problems in [&[][..], &full, &full, &[]] {
            events.tell_health(problems);
        }
        let kinds: Vec<_> = events.listen(From::Oldest).expect("room").past;
        let kinds = kinds.into_iter().map(|heard| match heard {
            Heard::Event(event) => event.event.clone(),
            Heard::Gap { .. } => "gap".into(),
        });
        assert_eq!(kinds.collect::<Vec<_>>(), ["cell_unhealthy", "cell_healthy"]);
    }
}
