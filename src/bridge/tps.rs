//! How a controller's apps are.

use super::{Bridge, Reply, show};
use crate::sys::clock::now_ms;
use serde_json::{Map, Value};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Requests for status that are answered at the same time.
const BUSY_MAX: usize = 200;
/// Guids of one request.
const GUIDS_MAX: usize = 1000;

/// A request that is being answered, of a kind of which only so many are.
pub struct Busy(Arc<AtomicUsize>);

impl Busy {
    /// Takes one of `most` places.
    pub(super) fn enter(places: &Arc<AtomicUsize>, most: usize) -> Option<Busy> {
        let busy = Busy(places.clone());
        (places.fetch_add(1, Ordering::AcqRel) < most).then_some(busy)
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Bridge {
    /// Takes a place among those who are answered; `None`: there is none, say 503.
    pub fn enter(&self) -> Option<Busy> {
        Busy::enter(&self.0.busy, BUSY_MAX)
    }

    /// GET of an app's instances; none of what is not here.
    pub fn instances(&self, guid: &str) -> Reply {
        let lrp = self.0.cell.lrp(guid);
        let shown = lrp.map(|lrp| show::instances(&lrp, now_ms())).unwrap_or_default();
        Reply::with(200, shown.into())
    }

    /// The same with figures.
    pub async fn stats(&self, guid: &str) -> Reply {
        let Some(lrp) = self.0.cell.lrp(guid) else {
            return Reply::refused(404, format!("there is no app {guid}"));
        };
        let figures = self.0.cell.figures().await;
        let host = self.0.cell.external_ip().to_string();
        Reply::with(200, show::stats(&lrp, &figures.instances, &host, now_ms()).into())
    }

    /// GET of many apps' instances, by guid; none of those that are not here.
    pub fn bulk(&self, guids: Option<&str>) -> Reply {
        let list = guids.unwrap_or_default();
        let guids: Vec<&str> = list.split(',').collect();
        if guids.len() > GUIDS_MAX || guids.iter().any(|guid| guid.is_empty()) {
            let why = format!("`guids` is no list of 1 to {GUIDS_MAX} guids with commas between");
            return Reply::refused(400, why);
        }
        let shown = guids.into_iter().map(|guid| {
            let lrp = self.0.cell.lrp(guid);
            let shown = lrp.map(|lrp| show::instances(&lrp, now_ms())).unwrap_or_default();
            (guid.to_owned(), shown.into())
        });
        Reply::with(200, Value::Object(shown.collect::<Map<_, _>>()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Row 84: 200 are answered at a time, and one more as soon as one of them is.
    #[test]
    fn row_84_so_many_requests_for_status_are_answered_at_a_time() {
        let places = Arc::new(AtomicUsize::new(0));
        let mut busy: Vec<Busy> = (0..200).filter_map(|_| Busy::enter(&places, BUSY_MAX)).collect();
        assert_eq!(busy.len(), 200);
        // Who is turned away takes nobody's place, however often.
        assert!((0..1000).all(|_| Busy::enter(&places, BUSY_MAX).is_none()));
        drop(busy.pop());
        let another = Busy::enter(&places, BUSY_MAX);
        assert!(another.is_some() && Busy::enter(&places, BUSY_MAX).is_none());
    }

    #[test]
    fn as_many_are_answered_as_may_be_and_a_place_is_given_back() {
        let places = Arc::new(AtomicUsize::new(0));
        let one = Busy::enter(&places, 2).expect("a place");
        let two = Busy::enter(&places, 2);
        assert!(two.is_some() && Busy::enter(&places, 2).is_none());
        drop(one);
        assert!(Busy::enter(&places, 2).is_some() && Busy::enter(&places, 2).is_some());
    }
}
