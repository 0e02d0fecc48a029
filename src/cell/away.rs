//! Apps whose image nobody could give: the registry was not reached, or was overloaded. That says
//! nothing against the app, so it is tried again for as long as it takes, ever less often. So is the root
//! of an LRP by record, whatever was wrong with it, at the pace of who asks for such. Pure.
//!
//! The record says that it is so ([`is_retried`]); when, is known to this daemon only. The next one
//! tries at once. All of them have one turn between them, whoever is due for longest: what fails for ever
//! holds up neither what is new nor what may succeed by now.

use super::clock::Jump;
use super::record::AppRecord;
use crate::unit::AppName;
use std::collections::BTreeMap;

/// From the first failure to the next try, in milliseconds; each further pause is twice as long.
const FIRST_MS: u64 = 10_000;

/// The longest pause.
const MOST_MS: u64 = 300_000;

/// Every pause of an LRP by record.
const RECORD_MS: u64 = 30_000;

/// It could not be staged, and is tried again though nobody asks for that.
pub(super) fn is_retried(app: &AppRecord) -> bool {
    let failed = app.failure.is_some() && app.staged == Some(app.generation);
    app.away || (app.container.is_some() && failed)
}

/// What is to be staged now, in its order, of those that wait and that nobody stages: who is tried for
/// the first time before who is tried again, and of these only one; none while one of them is `retried`
/// already. `due_ms`: when each of these is due, at once if it says nothing.
pub(super) fn in_turn(
    waiting: Vec<(AppName, AppRecord)>,
    retried: bool,
    due_ms: impl Fn(&AppName) -> Option<u64>,
) -> impl Iterator<Item = (AppName, AppRecord)> {
    let (again, fresh): (Vec<_>, Vec<_>) =
        waiting.into_iter().partition(|(_, app)| is_retried(app));
    let first = again.into_iter().min_by_key(|(name, _)| due_ms(name));
    fresh.into_iter().chain(first.filter(|_| !retried))
}

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
    /// It was tried in vain; `by_record`: it is an LRP by record. How long it waits now, in milliseconds.
    pub fn failed(&mut self, app: &AppName, by_record: bool, now_ms: u64) -> u64 {
        let before = self.0.get(app).map(|wait| wait.pause_ms);
        let pause_ms = match by_record {
            true => RECORD_MS,
            false => before.map_or(FIRST_MS, |pause| (pause * 2).min(MOST_MS)),
        };
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
            assert_eq!(away.failed(&app, false, now), pause_s * 1_000);
            let at = now + pause_s * 1_000;
            assert_eq!((away.at_ms(&app), away.next_ms(now)), (Some(at), Some(at)));
            assert!(!away.is_due(&app, at - 1) && away.is_due(&app, at));
            assert_eq!(away.next_ms(at), None, "nothing turns until it has its turn");
            now = at;
        }
        away.retain(|_| false);
        assert_eq!(away.failed(&app, false, now), 10_000, "it had been here");
        for _ in 0..2 {
            assert_eq!(away.failed(&app, true, now), 30_000, "another cell's pace");
        }
    }

    /// One app with this mark, and how it is tried again.
    fn waits(name: &str, away: bool, by_record: bool) -> (AppName, AppRecord) {
        let app = super::super::releases::tests::app("memory = \"32MiB\"");
        let container = by_record.then(|| Box::new(super::super::releases::tests::container()));
        let failure = (away || by_record).then(|| "nobody gave it".to_owned());
        let staged = Some(app.generation);
        let app = AppRecord { away, container, failure, staged, ..app };
        (name.parse().expect("name"), app)
    }

    #[test]
    fn who_is_tried_again_is_behind_all_others_and_alone() {
        let order = |all: &[&(AppName, AppRecord)], retried, due: fn(&str) -> Option<u64>| {
            let all = all.iter().map(|&it| it.clone()).collect();
            let turn = in_turn(all, retried, |name| due(name.as_str()));
            turn.map(|(name, _)| name.to_string()).collect::<Vec<_>>().join(" ")
        };
        let (a, b) = (waits("a", true, false), waits("b", true, false));
        let (c, d) = (waits("c", false, false), waits("d", false, false));
        assert_eq!(order(&[&a, &b], false, |_| None), "a");
        assert_eq!(order(&[&a, &b, &c, &d], false, |_| None), "c d a");
        assert_eq!(order(&[&a, &c], true, |_| None), "c", "one is under way");
        // What fails for ever takes no turn from one that is away, whatever stands first.
        let record = waits("0", false, true);
        assert!(is_retried(&record.1) && !is_retried(&c.1));
        let due = |name: &str| Some(if name == "0" { 7 } else { 5 });
        assert_eq!(order(&[&record, &a], false, due), "a");
        assert_eq!(order(&[&record, &a], false, |_| None), "0");
    }

    #[test]
    fn a_clock_that_is_set_changes_no_pause() {
        let app: AppName = "web".parse().expect("name");
        for to_ms in [7, NOW * 2] {
            let mut away = Away::default();
            let pause = away.failed(&app, false, NOW);
            let reading = |wall_ms| Reading { wall_ms, steady_ms: 5 };
            away.jump(clock::jump(reading(NOW), reading(to_ms)).expect("a jump"));
            assert_eq!(away.at_ms(&app), Some(to_ms + pause));
        }
    }
}
