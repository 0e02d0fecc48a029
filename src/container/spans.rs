//! How long making containers has taken, step by step, added up for whoever watches.

use super::recipe::{CREATE, Step};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Sums of all creations that succeeded since the daemon began.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CreateSpans {
    /// How many.
    pub count: u64,
    /// How many of these were made of a half that was ready.
    pub of_reserve: u64,
    /// From the first claim to the last step.
    pub total: Duration,
    /// Each step by its name, in the order of creation; less than the total by what is between.
    pub steps: Vec<(&'static str, Duration)>,
}

/// Where they are added up, in nanoseconds.
#[derive(Default)]
pub(super) struct Spans {
    count: AtomicU64,
    of_reserve: AtomicU64,
    total: AtomicU64,
    steps: [AtomicU64; CREATE.len()],
}

/// The watch on one creation.
pub(super) struct Watch {
    begun: Instant,
    last: Instant,
    of_reserve: bool,
    steps: [Duration; CREATE.len()],
}

impl Watch {
    /// A creation begins.
    pub(super) fn start(of_reserve: bool) -> Watch {
        let begun = Instant::now();
        Watch { begun, last: begun, of_reserve, steps: Default::default() }
    }

    /// What comes is a step's.
    pub(super) fn begin(&mut self) {
        self.last = Instant::now();
    }

    /// A step is done.
    pub(super) fn end(&mut self, step: Step) {
        if let Some(n) = CREATE.iter().position(|one| *one == step) {
            self.steps[n] = self.last.elapsed();
        }
    }
}

impl Spans {
    /// Adds a creation that has succeeded. Who reads meanwhile may see a part of it.
    pub(super) fn add(&self, watch: &Watch) {
        let nanos = |span: Duration| u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
        for (sum, span) in self.steps.iter().zip(watch.steps) {
            sum.fetch_add(nanos(span), Ordering::Relaxed);
        }
        self.total.fetch_add(nanos(watch.begun.elapsed()), Ordering::Relaxed);
        self.of_reserve.fetch_add(watch.of_reserve.into(), Ordering::Relaxed);
        self.count.fetch_add(1, Ordering::Relaxed);
    }

    /// The sums at this moment.
    pub(super) fn read(&self) -> CreateSpans {
        let span = |sum: &AtomicU64| Duration::from_nanos(sum.load(Ordering::Relaxed));
        let steps = CREATE.iter().zip(&self.steps);
        CreateSpans {
            count: self.count.load(Ordering::Relaxed),
            of_reserve: self.of_reserve.load(Ordering::Relaxed),
            total: span(&self.total),
            steps: steps.map(|(step, sum)| (step.name(), span(sum))).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_added_up_under_their_names_and_fit_into_the_total() {
        let spans = Spans::default();
        for of_reserve in [true, false] {
            let mut watch = Watch::start(of_reserve);
            watch.begin();
            watch.end(Step::Depot);
            watch.steps[5] = Duration::from_micros(7);
            spans.add(&watch);
        }
        let read = spans.read();
        assert_eq!((read.count, read.of_reserve), (2, 1));
        assert_eq!(read.steps[5], ("listener", Duration::from_micros(14)));
        assert_eq!(read.steps[12], ("connect", Duration::ZERO));
        assert!(read.steps[0].1 <= read.total, "{read:?}");
    }
}
