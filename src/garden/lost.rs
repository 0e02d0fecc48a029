//! Containers that live, but that the daemon cannot work with at this moment, or not at all: their
//! handles are theirs, and nobody destroys them but a client who says so.

use super::GardenError;
use super::backend::{Backend, Place};
use super::member::Member;
use super::record::Record;
use crate::model::view::ContainerView;
use crate::unit::Handle;
use async_io::Timer;
use smol::future;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// How long it takes until such a container is looked at again, at first and at most.
const WAIT_MIN: Duration = Duration::from_secs(1);
const WAIT_MAX: Duration = Duration::from_secs(60);

/// How long its pid 1 may take to answer then.
const LOOK_MAX: Duration = Duration::from_secs(30);

/// One of them.
pub(super) struct Lost {
    /// What the depot calls it.
    pub(super) name: Handle,
    /// What clients call it.
    pub(super) handle: String,
    /// As much as is known of it.
    pub(super) record: Record,
    /// For a person.
    pub(super) why: String,
    /// It is of a newer program: it is not tried again, and not destroyed.
    pub(super) closed: bool,
    /// Who talks to its pid 1, with the processes that were taken over until now.
    pub(super) member: Option<Arc<Member>>,
}

impl Lost {
    /// A container that is not to be touched, of which this much is known.
    pub(super) fn new(name: &Handle, record: Record, why: String) -> Lost {
        let handle = match &*record.handle {
            "" => name.to_string(),
            known => known.to_owned(),
        };
        Lost { name: name.clone(), handle, record, why, closed: true, member: None }
    }

    /// One that stood until the connection to its pid 1 ended.
    pub(super) fn of(member: &Member) -> Lost {
        let why = "the connection to its pid 1 has ended".to_owned();
        Lost { closed: false, ..Lost::new(&member.name, member.record(), why) }
    }

    /// Gives it its handle, or its name in the depot where another has that.
    pub(super) fn keep(mut self, places: &mut BTreeMap<String, Place>, is_news: bool) {
        if is_news {
            self.tell();
        }
        if places.contains_key(&self.handle) {
            self.handle = self.name.to_string();
        }
        places.entry(self.handle.clone()).or_insert_with(|| Place::Lost(Arc::new(self)));
    }

    /// As much of it as the box's own user can be told.
    pub(super) fn view(&self) -> ContainerView {
        let limit = self.record.limits.memory.limit_in_bytes;
        ContainerView {
            handle: self.handle.clone(),
            name: self.name.to_string(),
            state: "lost".into(),
            since_ms: self.record.made_ms,
            address: "-".into(),
            processes: 0,
            memory_bytes: None,
            memory_limit_bytes: (limit > 0).then_some(limit),
        }
    }

    /// Gives its place up; `false`: it is not there any more.
    pub(super) fn leave(self: &Arc<Self>, places: &mut BTreeMap<String, Place>) -> bool {
        let place = places.get(&self.handle);
        let is_there = matches!(place, Some(Place::Lost(now)) if Arc::ptr_eq(now, self));
        if is_there {
            places.remove(&self.handle);
        }
        is_there
    }

    /// Whether all of these properties are as told, as far as is known.
    pub(super) fn matches(&self, filter: &[(String, String)]) -> bool {
        let is_met = |(key, value): &(String, String)| match (&**key, &**value) {
            ("garden.state", "all") => true,
            _ => self.record.properties.get(key) == Some(value),
        };
        filter.iter().all(is_met)
    }

    /// Why a client gets nothing of it.
    pub(super) fn refusal(&self) -> GardenError {
        let Lost { handle, why, .. } = self;
        GardenError::Unavailable(format!("container {handle:?} cannot be used now: {why}"))
    }

    /// What a person can do.
    fn cure(&self) -> &'static str {
        match self.closed {
            true => "start the version of this program that wrote it; it runs on untouched",
            false => {
                "it runs on and is tried again: look for a pid 1 that is stopped or frozen, and \
                 for a limit that is reached; or destroy it"
            }
        }
    }

    /// Says that it is so.
    pub(super) fn tell(&self) {
        let (name, handle) = (&self.name, &self.handle);
        crate::error!(
            "container.lost",
            handle = name,
            garden = handle,
            err = self.why,
            cure = self.cure()
        );
    }
}

impl Backend {
    /// Looks at what is lost again and again, less and less often but when somebody asks for it, until
    /// the daemon ends; sleeps while nothing is.
    pub(super) async fn seek(self) {
        let ended = self.shared.ended.clone();
        let seek = async {
            let mut wait = WAIT_MIN;
            loop {
                // No event: a pid 1 that is stopped does not tell when it goes on.
                let asked = async {
                    Timer::after(WAIT_MIN).await;
                    let _ = self.shared.wants.recv().await;
                };
                let in_time = async {
                    Timer::after(wait).await;
                };
                future::or(in_time, asked).await;
                let mut lost = self.lost();
                while lost.is_empty() {
                    wait = WAIT_MIN;
                    if self.shared.wants.recv().await.is_err() {
                        return;
                    }
                    lost = self.lost();
                }
                let again = lost.into_iter().map(|lost| (lost.name.clone(), Some(lost)));
                self.look_at_all(again.collect(), LOOK_MAX).await;
                wait = (wait * 2).min(WAIT_MAX);
            }
        };
        ended.or(seek).await;
    }

    /// What may be found again; what stood until its connection ended becomes one of them.
    fn lost(&self) -> Vec<Arc<Lost>> {
        let mut places = self.shared.places();
        for place in places.values_mut() {
            if let Place::Stands(member) = place
                && member.container.is_lost()
            {
                member.stop_countdown();
                let lost = Lost::of(member);
                lost.tell();
                *place = Place::Lost(Arc::new(lost));
            }
        }
        let lost = places.values().filter_map(|place| match place {
            Place::Lost(lost) if !lost.closed => Some(lost.clone()),
            _ => None,
        });
        lost.collect()
    }
}
