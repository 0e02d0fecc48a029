//! What the tries of a health check come to. Times are spans of the monotonic clock: a clock that is
//! set does not touch them.

use std::time::Duration;

/// What follows from a round of tries of an instance that is not healthy yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Startup {
    /// It is healthy.
    Healthy,
    /// It is tried again after an interval.
    Again,
    /// It had its time.
    TooLate,
}

/// `passed`: every check has passed. `elapsed`: since the checks began. `limit`: the start timeout,
/// zero: none. It ends with a try that fails, so that it is at most one try longer.
pub fn startup(passed: bool, elapsed: Duration, limit: Duration) -> Startup {
    match passed {
        true => Startup::Healthy,
        false if !limit.is_zero() && elapsed >= limit => Startup::TooLate,
        false => Startup::Again,
    }
}

/// Failures of one check in a row.
#[derive(Clone, Copy, Debug)]
pub struct InARow {
    count: u32,
    most: u32,
}

impl InARow {
    /// The check has failed after this many, at least 1.
    pub fn new(most: u32) -> InARow {
        InARow { count: 0, most: most.max(1) }
    }

    /// Counts a try. `true`: that was the last one that may fail.
    pub fn is_over(&mut self, passed: bool) -> bool {
        self.count = if passed { 0 } else { self.count + 1 };
        self.count >= self.most
    }
}

/// What an app has said of itself, as its container's pid 1 keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// `READY=1` came.
    pub ready: bool,
    /// `STOPPING=1` came: it says when it ends itself.
    pub stopping: bool,
    /// Since the last `READY=1` or `WATCHDOG=1`.
    pub age: Duration,
    /// The last `STATUS=`; empty: none.
    pub status: String,
}

/// When a watchdog looks again. `None`: the app has been silent for `most` intervals in a row.
///
/// Never sooner than a tenth of an interval, so that a clock that is read unevenly makes no loop.
pub fn watchdog(said: &Said, interval: Duration, most: u32) -> Option<Duration> {
    let limit = interval * most.max(1);
    match limit.checked_sub(said.age) {
        _ if said.stopping => Some(interval),
        Some(left) if !left.is_zero() => Some(left.max(interval / 10)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn row_17_a_start_ends_with_the_first_failure_after_its_limit() {
        assert_eq!(startup(false, SECOND, SECOND * 2), Startup::Again);
        assert_eq!(startup(false, SECOND * 2, SECOND * 2), Startup::TooLate);
        assert_eq!(startup(true, SECOND * 9, SECOND * 2), Startup::Healthy);
        assert_eq!(startup(false, SECOND * 999, Duration::ZERO), Startup::Again, "no limit");
    }

    #[test]
    fn only_failures_in_a_row_count() {
        let mut three = InARow::new(3);
        let told = [false, false, true, false, false, false].map(|passed| three.is_over(passed));
        assert_eq!(told, [false, false, false, false, false, true]);
        assert!(InARow::new(0).is_over(false), "one at least");
    }

    #[test]
    fn a_watchdog_looks_when_the_next_word_is_due() {
        let said = |age| Said { ready: true, stopping: false, age, status: String::new() };
        assert_eq!(watchdog(&said(SECOND * 4), SECOND * 10, 1), Some(SECOND * 6));
        assert_eq!(watchdog(&said(SECOND * 10), SECOND * 10, 1), None);
        assert_eq!(watchdog(&said(SECOND * 10), SECOND * 10, 2), Some(SECOND * 10));
        assert_eq!(watchdog(&said(Duration::from_millis(9_999)), SECOND * 10, 1), Some(SECOND));
        let leaving = Said { stopping: true, ..said(SECOND * 99) };
        assert_eq!(watchdog(&leaving, SECOND * 10, 1), Some(SECOND * 10));
    }
}
