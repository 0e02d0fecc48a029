//! A clock that is set while the daemon runs. A box without a battery starts in 1970 and learns the
//! time later; a person may set it back. Pure.
//!
//! Records hold times of the box's clock. When it jumps, they are moved along, so that each stays as
//! long ago as it is: no crash is forgiven and no start put off that time itself has not. Up to that
//! moment the cell goes by the clock as it was before, so no time of the new one gets among them. On the
//! disk they are moved in one transaction with what the clocks showed, so that the next daemon finds by
//! how much the clock was set while there was none.

use super::diff::Key;
use super::drain::DrainRecord;
use super::placement::Waiting;
use super::record::AppRecord;
use crate::model::lrp::ActualLrp;
use crate::model::task::TaskRecord;
use crate::sys::clock::Reading;
use crate::unit::AppName;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A jump that is worth anything, in milliseconds: less is what any clock is set by in passing.
const LEAST_MS: u64 = 2_000;

/// Nanoseconds of a millisecond.
const NS: u64 = 1_000_000;

/// The begin of 2026, in milliseconds since 1970: no clock that is right has ever told less to a daemon of
/// these records.
const FIRST_MS: u64 = 1_767_225_600_000;

/// What the clocks showed when the times in the records were moved last, as it stands among them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClockRecord {
    /// The run of the box.
    pub boot: String,
    /// As in [`Reading`].
    pub wall_ms: u64,
    /// As in [`Reading`].
    pub steady_ms: u64,
}

impl ClockRecord {
    /// What they show in this run of the box.
    pub fn of(boot: &str, now: Reading) -> ClockRecord {
        ClockRecord { boot: boot.to_owned(), wall_ms: now.wall_ms, steady_ms: now.steady_ms }
    }
}

/// By how much the clock was set between the two, in milliseconds; 0: it was not, or hardly.
fn by_ms(before: Reading, now: Reading) -> i64 {
    let passed = i128::from(now.steady_ms) - i128::from(before.steady_ms);
    let shown = i128::from(now.wall_ms) - i128::from(before.wall_ms);
    let jump = i64::try_from(shown - passed).unwrap_or(0);
    if jump.unsigned_abs() < LEAST_MS { 0 } else { jump }
}

/// The clock was set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Jump {
    /// By so much, in milliseconds.
    pub by_ms: i64,
    /// What it would tell, had nobody set it.
    unset_ms: u64,
}

/// All that is recorded, or follows from records, and has times.
pub struct Times<'a> {
    /// By name.
    pub apps: &'a mut BTreeMap<AppName, AppRecord>,
    /// By process and index.
    pub actual: &'a mut BTreeMap<Key, ActualLrp>,
    /// By guid.
    pub tasks: &'a mut BTreeMap<String, TaskRecord>,
    /// Who could not be placed.
    pub waiting: &'a mut Waiting,
    /// The wish to drain the cell.
    pub drain: Option<&'a mut DrainRecord>,
}

/// Whether the clock was set between the two.
pub fn jump(before: Reading, now: Reading) -> Option<Jump> {
    let by_ms = by_ms(before, now);
    let unset_ms = now.wall_ms.saturating_add_signed(by_ms.saturating_neg());
    (by_ms != 0).then_some(Jump { by_ms, unset_ms })
}

/// The same for a daemon that begins, by what the one before it has left in the records.
pub fn since(before: Option<&ClockRecord>, boot: &str, now: Reading) -> Option<Jump> {
    match before.filter(|before| before.boot == boot) {
        Some(&ClockRecord { wall_ms, steady_ms, .. }) => jump(Reading { wall_ms, steady_ms }, now),
        // How long the box was off nobody knows. A run that never learnt the time has noted times that
        // say nothing now.
        None => (now.wall_ms >= FIRST_MS)
            .then_some(Jump { by_ms: now.wall_ms.cast_signed(), unset_ms: 0 }),
    }
}

impl Jump {
    /// A time of the clock before, as the clock now tells it. One that lies ahead of that clock is of an
    /// earlier run of the box: it stays where that run knew the time, and counts from now where it did not.
    pub fn moved(self, at_ms: u64) -> u64 {
        let at_ms = match at_ms > self.unset_ms {
            true if at_ms >= FIRST_MS => return at_ms,
            true => self.unset_ms,
            false => at_ms,
        };
        at_ms.saturating_add_signed(self.by_ms)
    }

    /// A time that lies ahead, as when something is tried next: as far ahead as it is.
    pub fn ahead(self, at_ms: u64) -> u64 {
        at_ms.saturating_add_signed(self.by_ms)
    }

    /// Moves all times along.
    pub fn move_all(self, times: Times<'_>) {
        let Times { apps, actual, tasks, waiting, drain } = times;
        apps.values_mut().for_each(|app| self.move_app(app));
        actual.values_mut().for_each(|record| self.move_actual(record));
        tasks.values_mut().for_each(|record| self.move_task(record));
        waiting.jump(self);
        if let Some(drain) = drain {
            drain.since_ms = self.moved(drain.since_ms);
        }
    }

    /// The times of an instance.
    fn move_actual(self, record: &mut ActualLrp) {
        record.since_ms = self.moved(record.since_ms);
        if let Some(death) = &mut record.death {
            death.at_ms = self.moved(death.at_ms);
        }
    }

    /// The times of an app.
    fn move_app(self, app: &mut AppRecord) {
        if let Some(wish) = &mut app.wish {
            wish.at_ms = self.moved(wish.at_ms);
        }
        for revision in &mut app.revisions {
            revision.made_ms = self.moved(revision.made_ms);
        }
    }

    /// The times of a Task, which are in nanoseconds; 0 is none.
    fn move_task(self, record: &mut TaskRecord) {
        for at_ns in
            [&mut record.created_at, &mut record.updated_at, &mut record.first_completed_at]
        {
            // 0 is none: what would be before 1970 stays a time, so that it moves on with the next one.
            if *at_ns != 0 {
                *at_ns = self.moved(*at_ns / NS).max(1).saturating_mul(NS) + *at_ns % NS;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cell::crash::{self, Next};
    use crate::model::lrp::{LrpState, Side};

    const DAY_MS: u64 = 86_400_000;
    const YEAR_MS: u64 = 365 * DAY_MS;
    const NOW_MS: u64 = 1_795_000_000_000;

    fn reading(wall_ms: u64, steady_ms: u64) -> Reading {
        Reading { wall_ms, steady_ms }
    }

    #[test]
    fn time_that_passes_is_no_jump_and_a_clock_that_is_set_is_one() {
        let before = reading(NOW_MS, 5_000);
        assert_eq!(jump(before, reading(NOW_MS + 60_000, 65_000)), None);
        assert_eq!(jump(before, reading(NOW_MS + 61_999, 65_000)), None, "set in passing");
        assert_eq!(by_ms(before, reading(NOW_MS - 3_600_000, 5_000)), -3_600_000);
        let later = reading(NOW_MS + 10 * YEAR_MS, 6_000);
        assert_eq!(by_ms(before, later), (10 * YEAR_MS - 1_000) as i64);
        assert_eq!(jump(reading(0, 0), reading(u64::MAX, 0)), None, "no clock tells that");
    }

    #[test]
    fn what_was_noted_before_the_jump_stays_as_long_ago_as_it_is() {
        for to_ms in [7, NOW_MS - DAY_MS, NOW_MS - 10_000, NOW_MS + 10 * YEAR_MS] {
            let now = reading(to_ms + 60_000, 65_000);
            let jump = jump(reading(NOW_MS, 5_000), now).expect("a jump");
            for ago in [0, 15_000, 7_200_000] {
                let noted = NOW_MS + 60_000 - ago;
                assert_eq!(jump.moved(noted), now.wall_ms.saturating_sub(ago), "{to_ms}");
            }
        }
    }

    /// A box without a battery starts in 1970, finds records of today, and learns the time.
    #[test]
    fn what_was_noted_by_an_earlier_run_that_knew_the_time_stays() {
        let jump = jump(reading(20_000, 20_000), reading(NOW_MS, 21_000)).expect("a jump");
        for at_ms in [NOW_MS - DAY_MS, NOW_MS - 1] {
            assert_eq!(jump.moved(at_ms), at_ms);
        }
        assert_eq!(jump.moved(15_000), NOW_MS - 6_000, "this run's");
    }

    /// Such a box may be switched off before it has learnt the time, once or more often.
    #[test]
    fn what_was_noted_by_an_earlier_run_that_never_knew_the_time_counts_from_now() {
        let jump = jump(reading(20_000, 20_000), reading(NOW_MS, 21_000)).expect("a jump");
        assert_eq!(jump.moved(60_000), NOW_MS);
        let known = |at: Reading| Some(ClockRecord::of("a", at));
        let before = known(reading(90_000, 90_000));
        let found = |boot, now| since(before.as_ref(), boot, now);
        let anew = found("b", reading(NOW_MS, 5_000)).expect("a jump");
        assert_eq!(anew.moved(60_000), NOW_MS);
        assert_eq!(anew.moved(NOW_MS - 2 * DAY_MS), NOW_MS - 2 * DAY_MS, "of one that knew it");
        assert_eq!(found("b", reading(5_000, 5_000)), None, "nobody knows the time yet");
        assert_eq!(
            since(None, "a", reading(NOW_MS, 5_000)),
            Some(anew),
            "an older program's records"
        );
    }

    #[test]
    fn a_clock_that_is_set_while_there_is_no_daemon_moves_the_times_as_well() {
        let before = ClockRecord::of("a", reading(10_000, 10_000));
        let found = |now| since(Some(&before), "a", now);
        let jump = found(reading(NOW_MS, 70_000)).expect("a jump");
        assert_eq!(jump.moved(40_000), NOW_MS - 30_000);
        assert_eq!(found(reading(70_000, 70_000)), None, "it was not set");
        let back = since(
            Some(&ClockRecord::of("a", reading(NOW_MS, 70_000))),
            "a",
            reading(NOW_MS - DAY_MS, 80_000),
        );
        assert_eq!(back.map(|jump| jump.moved(NOW_MS)), Some(NOW_MS - DAY_MS - 10_000));
    }

    #[test]
    fn no_jump_changes_when_a_crashed_instance_starts() {
        for to_ms in [0, 7, NOW_MS - DAY_MS, NOW_MS + 10 * YEAR_MS] {
            for count in [3, 4, 8] {
                let since_ms = NOW_MS;
                let Next::At(due) = crash::next(count, since_ms) else { panic!("it waits") };
                let wait = due - since_ms;
                // Ten seconds later the clock is set, to a time that has been so long.
                let before = reading(NOW_MS + 10_000, 10_000);
                let set = reading(to_ms.max(10_000), 10_000);
                let since_ms = jump(before, set).expect("a jump").moved(since_ms);
                let Next::At(due) = crash::next(count, since_ms) else { panic!("it waits") };
                let rest = wait - 10_000;
                assert!(!crash::is_due(due, set.wall_ms + rest - 1), "{to_ms} {count}");
                assert!(crash::is_due(due, set.wall_ms + rest), "{to_ms} {count}");
            }
        }
    }

    #[test]
    fn no_jump_forgives_a_crash_that_time_has_not() {
        let ran = |ms: u64, to_ms: u64| {
            let before = reading(NOW_MS, 0);
            let set = reading(to_ms, 0);
            let since = jump(before, set).expect("a jump").moved(NOW_MS);
            crash::count(7, Some(since), to_ms + ms)
        };
        for to_ms in [0, NOW_MS - DAY_MS, NOW_MS + 10 * YEAR_MS] {
            assert_eq!(ran(5 * 60_000, to_ms), 8, "{to_ms}");
            assert_eq!(ran(5 * 60_000 + 1, to_ms), 1, "{to_ms}");
        }
    }

    /// What `explain` tells of an app is all of one clock.
    #[test]
    fn a_death_a_wish_and_a_revision_stay_as_long_ago_as_they_are() {
        use crate::cell::record::{Fate, Revision, Wish};
        use crate::cell::releases::tests::app;
        use crate::model::death::{Cause, Death};
        let jump = jump(reading(1_000, 5_000), reading(NOW_MS, 5_100)).expect("a jump");
        let by = jump.by_ms as u64;
        let key = crate::cell::diff::tests::desired(1, "a").into_keys().next().expect("one");
        let mut record = ActualLrp {
            tag: Default::default(),
            guid: key,
            index: 0,
            side: Side::Left,
            version: "1".into(),
            state: LrpState::Crashed { succeeded: false },
            crash_count: 3,
            crash_reason: None,
            death: Some(Death { at_ms: 300, counted: true, cause: Cause::ContainerLost }),
            placement_error: None,
            routable: None,
            ran: true,
            was_ready: false,
            since_ms: 300,
        };
        jump.move_actual(&mut record);
        let death = record.death.expect("it has crashed");
        assert_eq!((record.since_ms, death.at_ms), (300 + by, 300 + by));
        let mut web = app("memory = \"32MiB\"");
        let release = web.release.clone().expect("it is staged");
        web.wish = Wish::new("restart", 200);
        let revision = Revision {
            number: 1,
            made_ms: 100,
            why: String::new(),
            text: String::new(),
            release,
            fate: Fate::Good,
        };
        web.revisions = vec![revision];
        jump.move_app(&mut web);
        let wish = web.wish.expect("somebody has asked");
        assert_eq!((wish.at_ms, web.revisions[0].made_ms), (200 + by, 100 + by));
    }

    /// Row 7: a Task's times go with the clock, so that it is neither given up nor remembered longer.
    #[test]
    fn row_7_a_tasks_times_stay_as_long_ago_as_they_are() {
        let task = crate::cell::task::due::tests::task("a", 1, "");
        let ns = |ms: u64| ms * NS + 5;
        let record = TaskRecord {
            task,
            state: crate::model::task::TaskState::Pending,
            cell_id: String::new(),
            created_at: ns(100),
            updated_at: ns(200),
            first_completed_at: 0,
            failed: false,
            failure_reason: String::new(),
            result: String::new(),
            rejection_count: 1,
            rejection_reason: String::new(),
        };
        let jump = jump(reading(1_000, 5_000), reading(NOW_MS, 5_100)).expect("a jump");
        let mut tasks = BTreeMap::from([("a".to_owned(), record)]);
        let (mut apps, mut actual) = (BTreeMap::new(), BTreeMap::new());
        // Beside it one that found no room, and tries again after half a minute.
        let mut waiting = Waiting::default();
        let key = crate::cell::diff::tests::key(0);
        waiting.starved(&key, "1", 0, 300);
        // The cell is drained since then, too.
        let mut drain = DrainRecord { since_ms: 300, timeout_ms: 7, boot: "a".into() };
        jump.move_all(Times {
            apps: &mut apps,
            actual: &mut actual,
            tasks: &mut tasks,
            waiting: &mut waiting,
            drain: Some(&mut drain),
        });
        let (by, record) = (jump.by_ms as u64, &tasks["a"]);
        assert_eq!(waiting.until(&key, "1", 1_000 + by), Some(30_300 + by));
        assert_eq!(waiting.until(&key, "1", 30_300 + by), None);
        assert_eq!((drain.since_ms, drain.timeout_ms), (300 + by, 7));
        assert_eq!((record.created_at, record.updated_at), (ns(100 + by), ns(200 + by)));
        assert_eq!(record.first_completed_at, 0, "it has none");
        // Set back to before it was asked for, and on: it moves on too.
        let mut record = TaskRecord { created_at: 100 * NS, ..record.clone() };
        for (from, to) in [(5_000, 10), (10, NOW_MS)] {
            super::jump(reading(from, 0), reading(to, 0)).expect("a jump").move_task(&mut record);
        }
        assert_eq!(record.created_at, (NOW_MS - 9) * NS);
    }
}
