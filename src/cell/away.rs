//! Apps whose image nobody could give: the registry was not reached, or was overloaded. That says
//! nothing against the app, so it is tried again for as long as it takes, ever less often. Pure.
//!
//! The record says that it is so ([`AppRecord::away`]); when, is known to this daemon only. The next one
//! tries at once.
//!
//! [`AppRecord::away`]: super::record::AppRecord::away

use super::clock::Jump;
use crate::unit::AppName;
use std::collections::BTreeMap;

/// From the first failure to the next try, in milliseconds; each further pause is twice as long.
const FIRST_MS: u64 = 10_000;

/// The longest pause.
const MOST_MS: u64 = 300_000;

/// When they are tried next.
#[derive(Debug, Default)]
pub(super) struct Away(BTreeMap<AppName, Wait>);

#[derive(Clone, Copy, Debug)]
struct Wait {
    pause_ms: u64,
    /// Since 1970.
    at_ms: u64,
}

impl Away {
    /// It was tried in vain. How long it waits now, in milliseconds.
    pub fn failed(&mut self, app: &AppName, now_ms: u64) -> u64 {
        let before = self.0.get(app).map(|wait| wait.pause_ms);
        let pause_ms = before.map_or(FIRST_MS, |pause| (pause * 2).min(MOST_MS));
        self.0.insert(app.clone(), Wait { pause_ms, at_ms: now_ms + pause_ms });
        pause_ms
    }

    /// What is no longer away waits for nothing.
    pub fn retain(&mut self, is_away: impl Fn(&AppName) -> bool) {
        self.0.retain(|app, _| is_away(app));
    }

    /// When it is tried next, in milliseconds since 1970; one of an earlier daemon's, at once.
    pub fn at_ms(&self, app: &AppName) -> Option<u64> {
        self.0.get(app).map(|wait| wait.at_ms)
    }

    /// Whether its time has come.
    pub fn is_due(&self, app: &AppName, now_ms: u64) -> bool {
        self.at_ms(app).is_none_or(|at_ms| at_ms <= now_ms)
    }

    /// When the next one's time comes that has not come yet: whose has, waits for its turn only.
    pub fn next_ms(&self, now_ms: u64) -> Option<u64> {
        self.0.values().map(|wait| wait.at_ms).filter(|at_ms| *at_ms > now_ms).min()
    }

    /// The clock was set.
    pub fn jump(&mut self, jump: Jump) {
        self.0.values_mut().for_each(|wait| wait.at_ms = jump.ahead(wait.at_ms));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cell::clock;
    use crate::sys::clock::Reading;

    const NOW: u64 = 1_795_000_000_000;

    #[test]
    fn pauses_get_longer_up_to_a_bound_and_never_end() {
        let app: AppName = "web".parse().expect("name");
        let mut away = Away::default();
        assert!(away.is_due(&app, NOW), "an earlier daemon's is tried at once");
        let mut now = NOW;
        for pause_s in [10, 20, 40, 80, 160, 300, 300, 300] {
            assert_eq!(away.failed(&app, now), pause_s * 1_000);
            let at = now + pause_s * 1_000;
            assert_eq!((away.at_ms(&app), away.next_ms(now)), (Some(at), Some(at)));
            assert!(!away.is_due(&app, at - 1) && away.is_due(&app, at));
            assert_eq!(away.next_ms(at), None, "nothing turns until it has its turn");
            now = at;
        }
        away.retain(|_| false);
        assert_eq!(away.failed(&app, now), 10_000, "it had been here");
    }

    #[test]
    fn a_clock_that_is_set_changes_no_pause() {
        let app: AppName = "web".parse().expect("name");
        for to_ms in [7, NOW * 2] {
            let mut away = Away::default();
            let pause = away.failed(&app, NOW);
            let reading = |wall_ms| Reading { wall_ms, steady_ms: 5 };
            away.jump(clock::jump(reading(NOW), reading(to_ms)).expect("a jump"));
            assert_eq!(away.at_ms(&app), Some(to_ms + pause));
        }
    }
}
