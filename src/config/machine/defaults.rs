//! `[health]` and `[tasks]`: times where nobody says anything, and of Tasks.

use super::super::cursor::Section;
use super::read::set;
use crate::model::manifest::HealthTimes;
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);
/// The shortest interval of a check.
const SHORT: Duration = Duration::from_millis(100);

/// Checks of apps that say nothing about their times.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checks {
    /// For manifests that come from now on.
    pub times: HealthTimes,
}

impl Checks {
    pub(super) fn read(&mut self, mut section: Section<'_>) {
        let times = &mut self.times;
        let start = section.take("start_timeout").and_then(|it| it.time(Duration::ZERO, DAY));
        set(&mut times.start_timeout, start);
        for (key, place) in [
            ("interval_unhealthy", &mut times.interval_unhealthy),
            ("interval_healthy", &mut times.interval_healthy),
        ] {
            set(place, section.take(key).and_then(|it| it.time(SHORT, HOUR)));
        }
        section.finish();
    }
}

/// The times of Tasks, as the BBS has them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tasks {
    /// From a try that came to nothing to the next: of a beginning, or of telling of an end.
    pub retry_interval: Duration,
    /// How long one may wait for its beginning.
    pub pending_max: Duration,
    /// How long one is remembered after its end.
    pub kept: Duration,
}

impl Default for Tasks {
    fn default() -> Tasks {
        Tasks { retry_interval: 30 * SECOND, pending_max: 30 * MINUTE, kept: 2 * MINUTE }
    }
}

impl Tasks {
    pub(super) fn read(&mut self, mut section: Section<'_>) {
        for (key, place) in [
            ("retry_interval", &mut self.retry_interval),
            ("pending_max", &mut self.pending_max),
            ("kept", &mut self.kept),
        ] {
            set(place, section.take(key).and_then(|it| it.time(SECOND, DAY)));
        }
        section.finish();
    }
}
