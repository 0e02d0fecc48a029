//! Figures: what is counted while work is done, and shares from one look to the next.
//!
//! The counters are the process's: one process is one cell. Nothing here wakes anybody: shares are
//! reckoned when somebody asks.

use crate::model::metrics::{Counts, Outcomes, Span};
use crate::unit::{Handle, Percent};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A look this soon after another gets that one's shares: between so close looks they would jump.
const AGAIN: Duration = Duration::from_millis(500);

/// What is counted since the process began.
pub static COUNTERS: Counters = Counters::new();

/// Counters that anybody may add to.
#[allow(missing_docs, reason = "they are those of `Counts`")]
pub struct Counters {
    pub creations: Tally,
    pub destructions: Tally,
    pub setups: Tally,
    pub syncs: Tally,
    pub exited_on_timeout: AtomicU64,
    pub completed: AtomicU64,
    pub log_overruns: AtomicU64,
    pub checks_failed: AtomicU64,
}

/// Adds up how often and how long something was done.
pub struct Tally {
    succeeded: Sum,
    failed: Sum,
}

struct Sum {
    count: AtomicU64,
    ns: AtomicU64,
}

impl Sum {
    const fn new() -> Sum {
        Sum { count: AtomicU64::new(0), ns: AtomicU64::new(0) }
    }

    fn read(&self) -> Span {
        Span {
            count: self.count.load(Ordering::Relaxed),
            total: Duration::from_nanos(self.ns.load(Ordering::Relaxed)),
        }
    }
}

impl Tally {
    const fn new() -> Tally {
        Tally { succeeded: Sum::new(), failed: Sum::new() }
    }

    /// Adds what began at `begun` and has ended just now.
    pub fn add(&self, begun: Instant, succeeded: bool) {
        let sum = if succeeded { &self.succeeded } else { &self.failed };
        let ns = u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX);
        sum.ns.fetch_add(ns, Ordering::Relaxed);
        sum.count.fetch_add(1, Ordering::Relaxed);
    }

    fn read(&self) -> Outcomes {
        Outcomes { succeeded: self.succeeded.read(), failed: self.failed.read() }
    }
}

impl Counters {
    const fn new() -> Counters {
        Counters {
            creations: Tally::new(),
            destructions: Tally::new(),
            setups: Tally::new(),
            syncs: Tally::new(),
            exited_on_timeout: AtomicU64::new(0),
            completed: AtomicU64::new(0),
            log_overruns: AtomicU64::new(0),
            checks_failed: AtomicU64::new(0),
        }
    }

    /// What has been counted. Who counts meanwhile may be seen in part.
    pub fn read(&self) -> Counts {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Counts {
            creations: self.creations.read(),
            destructions: self.destructions.read(),
            setups: self.setups.read(),
            syncs: self.syncs.read().succeeded,
            exited_on_timeout: of(&self.exited_on_timeout),
            completed: of(&self.completed),
            log_overruns: of(&self.log_overruns),
            checks_failed: of(&self.checks_failed),
        }
    }
}

/// One more of something.
pub fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// What a container has used by now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Used {
    /// Processor time, in nanoseconds.
    pub cpu_ns: u64,
    /// Bytes that it has logged.
    pub logged_bytes: u64,
}

/// What a container has used from one look to the next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Share {
    /// Processor time in percent of one processor.
    pub cpu: Percent,
    /// Bytes logged in a second.
    pub log_rate: u64,
}

/// The last look at each container. Pure: time is an argument, counted from any moment.
#[derive(Debug, Default)]
pub struct Looks(BTreeMap<Handle, (Duration, Used, Option<Share>)>);

impl Looks {
    /// The share of a container since the last look at it; `None` at the first one.
    ///
    /// Row 55: (cpu now - before) / (age now - before), at most what `cpus` processors give.
    pub fn look(&mut self, handle: &Handle, used: Used, now: Duration, cpus: u64) -> Option<Share> {
        let before = self.0.get(handle).copied();
        let Some((then, earlier, share)) = before else {
            self.0.insert(handle.clone(), (now, used, None));
            return None;
        };
        let passed = now.saturating_sub(then);
        if passed < AGAIN {
            return share;
        }
        let nanos = u64::try_from(passed.as_nanos()).unwrap_or(u64::MAX);
        let most = nanos.saturating_mul(cpus.max(1));
        let cpu_ns = used.cpu_ns.saturating_sub(earlier.cpu_ns).min(most);
        let logged = used.logged_bytes.saturating_sub(earlier.logged_bytes);
        let log_rate = u128::from(logged) * 1_000_000_000 / u128::from(nanos.max(1));
        let share = Share {
            cpu: Percent::of(cpu_ns, nanos).unwrap_or_default(),
            log_rate: u64::try_from(log_rate).unwrap_or(u64::MAX),
        };
        self.0.insert(handle.clone(), (now, used, Some(share)));
        Some(share)
    }

    /// Forgets containers that are not there any more.
    pub fn keep(&mut self, is_there: impl Fn(&Handle) -> bool) {
        self.0.retain(|handle, _| is_there(handle));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn handle() -> Handle {
        "web-0-1".parse().expect("handle")
    }

    fn used(cpu_ms: u64, logged_bytes: u64) -> Used {
        Used { cpu_ns: cpu_ms * 1_000_000, logged_bytes }
    }

    /// Row 55: the share is of the time between two looks, 0 to 100 for each processor.
    #[test]
    fn row_55_a_share_is_what_was_used_between_two_looks() {
        let mut looks = Looks::default();
        let mut at = |ms, used| {
            let share = looks.look(&handle(), used, Duration::from_millis(ms), 2);
            share.map(|share| (share.cpu.hundredths(), share.log_rate))
        };
        assert_eq!(at(10_000, used(9_000, 500)), None, "the first look knows no time between");
        assert_eq!(at(12_000, used(11_000, 2_500)), Some((10_000, 1_000)), "one processor");
        assert_eq!(at(13_000, used(11_000, 2_500)), Some((0, 0)));
        assert_eq!(at(17_000, used(12_000, 2_500)), Some((2_500, 0)), "a quarter");
        assert_eq!(at(17_100, used(12_100, 9_000)), Some((2_500, 0)), "too soon for another");
        assert_eq!(at(18_000, used(30_000, 2_500)), Some((20_000, 0)), "no more than there are");
        // A counter that went back is of another group of the same name.
        assert_eq!(at(20_000, used(0, 0)), Some((0, 0)));
        looks.keep(|_| false);
        assert_eq!(looks.look(&handle(), used(1, 1), Duration::from_secs(30), 2), None);
    }

    #[test]
    fn row_92_what_succeeds_and_what_fails_is_added_up_apart() {
        let tally = Tally::new();
        let begun = Instant::now();
        tally.add(begun, true);
        tally.add(begun, true);
        tally.add(begun, false);
        let read = tally.read();
        assert_eq!((read.succeeded.count, read.failed.count), (2, 1));
        assert!(read.succeeded.total <= begun.elapsed() * 2);
    }
}
