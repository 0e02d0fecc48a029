//! What was seen, and what must not follow on it: a start too soon, one too late, a crash counted
//! wrongly, an action that begins twice, an app before what it needs.

use crate::memory::Mem;
use crate::world::World;
use std::collections::{BTreeMap, BTreeSet};
use terrarium::cell::diff::Key;
use terrarium::cell::lrp_state::LrpEvent;
use terrarium::model::lrp::{ActualLrp, DesiredLrp, LrpState};
use terrarium::model::manifest::Restart;
use terrarium::model::task::TaskState;
use terrarium::unit::{AppName, Handle};

const SECOND: u64 = 1_000;
const FORGIVEN_MS: u64 = 300 * SECOND;
/// The longest wait after a crash, and what the loop may be late by.
const LONGEST_MS: u64 = 16 * 60 * SECOND;
const LATE_MS: u64 = 90 * SECOND;
/// The loop looks again at what may begin at once sooner than this, or it was not woken.
const FORGOTTEN_MS: u64 = 20 * SECOND;
/// A clock that is set by less is not told from one that runs.
const PASSING_MS: u64 = 2_500;
/// Nothing of this is longer ago.
const LOW_MS: u64 = 24 * 3600 * SECOND;
/// So long may a Task wait for its begin.
const PENDING_MAX_MS: u64 = 30 * 60 * SECOND;

/// The last crash of an instance that nobody has wished for anew since.
#[derive(Clone, Copy)]
struct Crash {
    count: u32,
    at: u64,
    clock: Clock,
    /// The cell must know how long ago it is.
    known: bool,
}

/// What was done to the clock by then.
#[derive(Clone, Copy, Default)]
struct Clock {
    /// How often it was set.
    sets: u64,
    /// How often so near to 1970 that what was before does not fit in front of it.
    lows: u64,
}

/// What was seen, by virtual time that nobody sets.
#[derive(Clone, Default)]
pub struct Ledger {
    crashes: BTreeMap<Key, Crash>,
    /// Since when it runs.
    running: BTreeMap<Key, (u64, Clock)>,
    /// Apps that have been healthy since the box was started.
    ran: BTreeSet<AppName>,
    /// Apps of which something has begun since.
    begun: BTreeSet<AppName>,
    task_starts: BTreeMap<String, u32>,
    /// Since when a Task is asked for, and whether the cell must know how long ago that is.
    tasks_asked: BTreeMap<String, (u64, Clock, bool)>,
    clock: Clock,
    /// Sets of the clock that the daemon has seen.
    seen: u64,
    /// No daemon has looked at the clock since the box was started anew.
    unlooked: bool,
    daemon_since: u64,
}

impl Ledger {
    pub fn daemon_started(&mut self, now: u64) {
        self.daemon_since = now;
        self.seen = self.clock.sets;
        self.unlooked = false;
    }

    /// The daemon has moved what it knows along with the clock.
    pub fn clock_was_seen(&mut self) {
        self.seen = self.clock.sets;
    }

    /// Something of it has its place: its start is not held up any more.
    pub fn app_begins(&mut self, name: &AppName) {
        self.begun.insert(name.clone());
    }

    /// Nothing of any app runs: each waits anew for what it needs. By how much a clock was set that no
    /// daemon has looked at since, nobody can tell any more.
    pub fn rebooted(&mut self) {
        self.ran.clear();
        self.begun.clear();
        self.unlooked = true;
        if self.seen != self.clock.sets {
            self.nobody_knows();
        }
    }

    /// How long ago what was noted is.
    fn nobody_knows(&mut self) {
        self.crashes.values_mut().for_each(|it| it.known = false);
        self.tasks_asked.values_mut().for_each(|it| it.2 = false);
    }

    /// The clock shows this from now on. Before the first daemon of a run of the box has looked, that is the
    /// same as a box that was off for so long: nothing tells the two apart (D91).
    pub fn clock_was_set(&mut self, to_ms: u64) {
        if self.unlooked {
            self.nobody_knows();
        }
        self.clock.sets += 1;
        self.clock.lows += u64::from(to_ms < LOW_MS);
    }

    pub fn task_asked(&mut self, guid: &str, now: u64) {
        self.tasks_asked.insert(guid.to_owned(), (now, self.clock, true));
    }

    /// By so much may a time that was noted then be wrong: that a clock is set by little is not noticed.
    fn unnoticed(&self, then: Clock) -> u64 {
        PASSING_MS * (self.clock.sets - then.sets)
    }

    pub fn app_gone(&mut self, name: &AppName) {
        self.ran.remove(name);
        self.begun.remove(name);
        self.crashes.retain(|key, _| key.0.app != *name);
    }
}

/// Diego's table: so long must pass from the so manieth crash to the next start.
fn wait_ms(count: u32) -> u64 {
    match count {
        0..=2 => 0,
        3 => 30 * SECOND,
        4 => 60 * SECOND,
        5 => 120 * SECOND,
        6 => 240 * SECOND,
        7 => 480 * SECOND,
        _ => 960 * SECOND,
    }
}

impl World {
    /// Nobody waits longer than the table's longest time.
    pub fn check_waits(&mut self) {
        let serves = |mem: &&Mem| mem.serves && !mem.closed();
        let Some(mem) = self.mem.as_ref().filter(serves) else { return };
        let mut why = None;
        for (key, record) in &mem.actual {
            let Some(lrp) = mem.desired.get(&key.0) else { continue };
            if self.is_forgotten(key, record, lrp) {
                why = Some(format!("{key:?} shall begin, and nobody begins it: {record:?}"));
            }
            let LrpState::Crashed { succeeded } = record.state else { continue };
            let again = match lrp.restart {
                Restart::Always => true,
                Restart::OnFailure => !succeeded,
                Restart::Never => false,
            };
            let waits = again && record.crash_count < 200 && record.version == lrp.version;
            if !waits || key.1 >= lrp.instances || mem.supervised.contains_key(key) {
                continue;
            }
            let Some(Crash { count, at, clock, known }) = self.ledger.crashes.get(key) else {
                continue;
            };
            let waited = self.now.saturating_sub((*at).max(self.ledger.daemon_since));
            let told = *known && clock.lows == self.ledger.clock.lows;
            let longest = if told { wait_ms(*count) } else { LONGEST_MS };
            if waited > longest + LATE_MS {
                why = Some(format!("{key:?} waits for {waited} ms after its {count}th crash"));
            }
        }
        if let Some(why) = why {
            self.breaks(|| why);
        }
    }

    /// It could begin at once, nothing was found against it, and the loop does not look.
    fn is_forgotten(&self, key: &Key, record: &ActualLrp, lrp: &DesiredLrp) -> bool {
        let Some(mem) = &self.mem else { return false };
        let waits = record.state == LrpState::Unclaimed && record.placement_error.is_none();
        waits
            && key.1 < lrp.instances
            && !mem.turning
            && !mem.supervised.contains_key(key)
            && self.wall().saturating_sub(record.since_ms) > FORGOTTEN_MS
    }

    /// An app that needs another one begins before that has ever run.
    pub fn starts_too_early(&self, key: &Key) -> Option<String> {
        let mem = self.mem.as_ref()?;
        let app = &key.0.app;
        let release = mem.apps.get(app)?.release.as_ref()?;
        if self.ledger.begun.contains(app) {
            return None;
        }
        let is_done = |need: &AppName| {
            let mut records = mem.actual.iter().filter(|(key, _)| key.0.app == *need);
            records.any(|(_, it)| it.state == LrpState::Crashed { succeeded: true })
        };
        let missing = release.manifest.needs.iter();
        let mut missing = missing.filter(|it| !self.ledger.ran.contains(*it) && !is_done(it));
        let need = missing.next()?;
        Some(format!("{key:?} begins, and {need}, which it needs, has not run"))
    }

    /// A process of an instance is about to start.
    pub fn check_start(&mut self, key: &Key, handle: &Handle) {
        let record = self.mem.as_ref().and_then(|mem| mem.actual.get(key));
        let place = record.and_then(ActualLrp::place).map(|place| place.handle.clone());
        if place.as_ref() != Some(handle) {
            self.breaks(|| format!("{key:?} starts in {handle}, and its record says {place:?}"));
        }
        if let Some(Crash { count, at, clock, known }) = self.ledger.crashes.get(key).copied() {
            let waited = self.now - at;
            let unnoticed = PASSING_MS + self.ledger.unnoticed(clock);
            if known && waited + unnoticed < wait_ms(count) {
                self.breaks(|| {
                    format!("{key:?} starts {waited} ms after its {count}th crash, in {handle}")
                });
            }
        }
    }

    /// The action of a Task is about to begin.
    pub fn check_task_start(&mut self, guid: &str) {
        let starts = self.ledger.task_starts.entry(guid.to_owned()).or_default();
        *starts += 1;
        if *starts > 1 {
            self.breaks(|| format!("task {guid} runs twice"));
        }
        let state = self.mem.as_ref().and_then(|mem| mem.tasks.get(guid)).map(|it| it.state);
        if state != Some(TaskState::Running) {
            self.breaks(|| format!("task {guid} begins, and its record says {state:?}"));
        }
    }

    /// A Task is given up, as nobody could begin it for half an hour.
    pub fn check_given_up(&mut self, guid: &str) {
        let Some((asked, clock, known)) = self.ledger.tasks_asked.get(guid).copied() else {
            return;
        };
        let waited = self.now - asked;
        if known && waited + self.ledger.unnoticed(clock) < PENDING_MAX_MS {
            self.breaks(|| format!("task {guid} is given up {waited} ms after it was asked for"));
        }
    }

    /// A record has changed.
    pub fn check_change(
        &mut self,
        key: &Key,
        old: Option<&ActualLrp>,
        event: &LrpEvent,
        new: Option<&ActualLrp>,
    ) {
        let clock = self.ledger.clock;
        if World::is_wish(event) {
            self.ledger.crashes.remove(key);
        }
        match (event, old, new) {
            (LrpEvent::Start { .. }, Some(old), _) if !old.runs() => {
                self.ledger.running.insert(key.clone(), (self.now, clock));
                self.ledger.ran.insert(key.0.app.clone());
            }
            (LrpEvent::Crash { end, .. } | LrpEvent::Unmade(end), Some(old), Some(new)) => {
                let counts = match end.restart {
                    Restart::Always => true,
                    Restart::OnFailure | Restart::Never => !end.succeeded,
                };
                let since = self.ledger.running.get(key).copied().filter(|_| old.runs());
                let expected = match since {
                    _ if !counts => old.crash_count,
                    Some((since, _)) if self.now - since > FORGIVEN_MS => 1,
                    _ => old.crash_count + 1,
                };
                // That it ran so long does not fit in front of 1970.
                let told = since.is_none_or(|(since, then)| {
                    let near = (self.now - since).abs_diff(FORGIVEN_MS);
                    then.lows == clock.lows && near >= self.ledger.unnoticed(then)
                });
                if told && new.crash_count != expected {
                    let is = new.crash_count;
                    self.breaks(|| format!("{key:?} has crashed {expected} times, not {is}"));
                }
                let (count, at, known) = (new.crash_count, self.now, true);
                let crash = Crash { count, at, clock, known };
                self.ledger.crashes.insert(key.clone(), crash);
            }
            _ => {}
        }
    }
}
