//! Where the daemon has died: right before and right after every change of every machine. The rows are
//! those of the golden tables, which the product's own tests keep true.
//!
//! A row is named from the record's side: `x` is its container, `a` its version, `here` its cell. Where
//! the record has none, whatever comes is the first: `y`, `b` and `there` are no rows of their own.

use crate::world::{Nature, World};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;
use terrarium::cell::lrp_state::LrpEvent;
use terrarium::cell::task::state::TaskOp;
use terrarium::model::lrp::{ActualLrp, LrpState};
use terrarium::model::manifest::Restart;
use terrarium::model::task::{TaskRecord, TaskState};
use terrarium::unit::{Bytes, Handle};

/// Whose record changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Machine {
    Lrp,
    Task,
}

/// A state and what happens in it.
pub type Row = (Machine, &'static str, &'static str);

/// When the daemon dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Moment {
    /// Nothing of the change is on the disk.
    Before,
    /// All of it is, and nobody has done anything about it.
    After,
}

/// Where a seed wants the daemon to die: there, it does so surely, so often.
#[derive(Clone, Copy, Debug)]
pub struct Aim {
    at: (Row, Moment),
    left: u32,
}

impl Aim {
    /// Seeds take the places in turn.
    pub fn of(seed: u64) -> Option<Aim> {
        let all = &*WANTED;
        let at = all.get((seed % all.len() as u64) as usize)?;
        Some(Aim { at: *at, left: AIMED })
    }

    /// What the box has to be like, where others would lead there once in hundreds of seeds: who is stopped
    /// before it has a container has waited for its turn to make one, and for room before that.
    pub fn lead(&self, nature: &mut Nature) {
        let (_, state, event) = self.at.0;
        if event != "stop none" {
            return;
        }
        nature.creators = 1;
        if state == "waiting" {
            nature.total.memory = nature.total.memory.min(Bytes::mib(512));
        }
    }

    /// It is where one has done its work before anybody knows that it is healthy: so seldom that the world
    /// has to lead there. Beside a check, only an instance with a sidecar ends by that.
    pub fn is_early_end(&self) -> bool {
        let (machine, state, event) = self.at.0;
        machine == Machine::Lrp && state == "claimed by x" && event.starts_with("exit 0")
    }
}

/// More would keep the world from going on.
const AIMED: u32 = 2;

/// Where the daemon has to have died.
static WANTED: LazyLock<Vec<(Row, Moment)>> = LazyLock::new(|| {
    let rows = ROWS.iter().filter(|row| reason_never(row).is_none());
    rows.flat_map(|row| [(*row, Moment::Before), (*row, Moment::After)]).collect()
});

/// Every row that is not refused.
static ROWS: LazyLock<BTreeSet<Row>> = LazyLock::new(|| {
    let lrp = lrp_rows(include_str!("../golden/lrp-states.txt"));
    lrp.chain(task_rows(include_str!("../golden/task-states.txt"))).filter(is_own).collect()
});

/// What the tables allow and the cell never does, and why.
const NEVER: [(Row, &str); 15] = [
    ((Machine::Lrp, "none", "start x"), CLAIMED_FIRST),
    ((Machine::Lrp, "unclaimed", "start x"), CLAIMED_FIRST),
    ((Machine::Lrp, "waiting", "start x"), CLAIMED_FIRST),
    ((Machine::Lrp, "unclaimed", "unclaim"), "`before_start` asks for it only where it is needed"),
    ((Machine::Lrp, "waiting", "unclaim"), "`before_start` asks for it only where it is needed"),
    (
        (Machine::Lrp, "claimed by x", "claim x"),
        "a supervisor claims once, an adopted one not at all",
    ),
    (
        (Machine::Lrp, "running in x", "claim x"),
        "a supervisor claims once, an adopted one not at all",
    ),
    ((Machine::Lrp, "claimed by x", "start y"), "each container has a supervisor of its own"),
    ((Machine::Lrp, "running in x", "start x"), "one that is recorded to run is not told of again"),
    ((Machine::Lrp, "claimed by x", "unclaim"), LOST_FIRST),
    ((Machine::Lrp, "running in x", "unclaim"), LOST_FIRST),
    ((Machine::Lrp, "claimed by x", "remove x"), LOST_FIRST),
    ((Machine::Lrp, "running in x", "remove x"), LOST_FIRST),
    ((Machine::Task, "RUNNING", "start here"), "whoever works on it begins it once"),
    (
        (Machine::Task, "RUNNING", "fail"),
        "only one that waits is given up; one that runs completes",
    ),
];
const CLAIMED_FIRST: &str = "its container is claimed before anything runs in it";
const LOST_FIRST: &str = "one that lives is somebody's, who stops it, or loses it at the start";

/// How often the daemon has died where.
#[derive(Clone, Debug, Default)]
pub struct Deaths(BTreeMap<(Row, Moment), u64>);

impl Deaths {
    pub fn add(&mut self, others: &Deaths) {
        for (at, times) in &others.0 {
            *self.0.entry(*at).or_default() += times;
        }
    }

    /// Where it should have died, and has not.
    pub fn missing(&self) -> Vec<(Row, Moment)> {
        WANTED.iter().filter(|at| !self.0.contains_key(at)).copied().collect()
    }

    /// For people: how much of the tables was seen, and what was seen least.
    pub fn summary(&self) -> String {
        let rarest = self.0.iter().min_by_key(|(_, times)| **times);
        let rarest = rarest.map(|(at, times)| format!("; {times} at {}", text(at)));
        let (seen, all) = (self.0.len(), WANTED.len());
        format!("the daemon died at {seen} of {all} places{}", rarest.unwrap_or_default())
    }
}

/// A place in words.
pub fn text(((machine, state, event), moment): &(Row, Moment)) -> String {
    format!("{machine:?} {state}: {event} ({moment:?})")
}

fn reason_never(row: &Row) -> Option<&'static str> {
    NEVER.iter().find(|(never, _)| never == row).map(|(_, why)| *why)
}

/// `state: record`, then a line for each event: `  event -> outcome`.
fn lrp_rows(table: &'static str) -> impl Iterator<Item = Row> {
    let mut state = "";
    table.lines().filter_map(move |line| {
        let Some((event, outcome)) = line.split_once(" -> ") else {
            state = line.split_once(':')?.0;
            return None;
        };
        let refused = outcome.starts_with("refused");
        (!refused).then_some((Machine::Lrp, state, event.trim()))
    })
}

/// `STATE | event | outcome`; what is refused begins with the error's name and a colon.
fn task_rows(table: &'static str) -> impl Iterator<Item = Row> {
    table.lines().filter_map(|line| {
        let mut columns = line.split('|').map(str::trim);
        let (state, event, outcome) = (columns.next()?, columns.next()?, columns.next()?);
        let refused = outcome.split(' ').next().is_some_and(|word| word.ends_with(':'));
        (!refused).then_some((Machine::Task, state, event))
    })
}

/// Not a row of what the record has none of.
fn is_own((machine, state, event): &Row) -> bool {
    let lives = matches!(*state, "claimed by x" | "running in x");
    match (machine, *event) {
        (Machine::Lrp, "desire b") => *state != "none",
        (Machine::Lrp, "claim y" | "start y") => lives,
        (Machine::Task, "start there") => *state != "PENDING",
        _ => true,
    }
}

/// Which row of the table it is that `event` happens to this record.
pub fn row_of_lrp(record: Option<&ActualLrp>, event: &LrpEvent) -> Row {
    let state = match record.map(|it| (&it.state, it.placement_error.is_some())) {
        None => "none",
        Some((LrpState::Unclaimed, false)) => "unclaimed",
        Some((LrpState::Unclaimed, true)) => "waiting",
        Some((LrpState::Claimed(_), _)) => "claimed by x",
        Some((LrpState::Running(_), _)) => "running in x",
        Some((LrpState::Crashed { .. }, _)) => "crashed",
    };
    let place = record.and_then(ActualLrp::place).map(|place| &place.handle);
    let other = |handle: &Handle| place.is_some_and(|place| place != handle);
    let event = match event {
        LrpEvent::Desire { version } => match record.is_some_and(|it| it.version != *version) {
            true => "desire b",
            false => "desire a",
        },
        LrpEvent::Claim(place) if other(&place.handle) => "claim y",
        LrpEvent::Claim(_) => "claim x",
        LrpEvent::Start { place, .. } if other(&place.handle) => "start y",
        LrpEvent::Start { .. } => "start x",
        LrpEvent::Ready { .. } => "ready x",
        LrpEvent::Crash { handle, .. } if other(handle) => "crash y",
        LrpEvent::Crash { end, .. } => match (end.succeeded, end.restart) {
            (false, _) => "crash x",
            (true, Restart::Always) => "exit 0 of x, restart always",
            (true, Restart::OnFailure | Restart::Never) => "exit 0 of x, restart on-failure",
        },
        LrpEvent::Unmade(_) => "unmade",
        LrpEvent::Stop { handle: Some(_), .. } => "stop x",
        LrpEvent::Stop { handle: None, .. } => "stop none",
        LrpEvent::Lose(_) => "lose",
        LrpEvent::Unclaim => "unclaim",
        LrpEvent::Fail(_) => "fail",
        LrpEvent::Remove(Some(_)) => "remove x",
        LrpEvent::Remove(None) => "remove none",
    };
    (Machine::Lrp, state, event)
}

/// The same for a Task.
pub fn row_of_task(record: Option<&TaskRecord>, op: &TaskOp) -> Row {
    let state = match record.map(|it| it.state) {
        None => "nothing",
        Some(TaskState::Pending) => "PENDING",
        Some(TaskState::Running) => "RUNNING",
        Some(TaskState::Completed) => "COMPLETED",
        Some(TaskState::Resolving) => "RESOLVING",
    };
    let its = record.map(|it| it.cell_id.as_str()).filter(|cell| !cell.is_empty());
    let there = |cell: &String| its.is_some_and(|its| its != cell);
    let event = match op {
        TaskOp::Desire(_) => "desire",
        TaskOp::Start { cell } if there(cell) => "start there",
        TaskOp::Start { .. } => "start here",
        TaskOp::Complete { cell, .. } if there(cell) => "complete there",
        TaskOp::Complete { failure: None, .. } => "complete here",
        TaskOp::Complete { failure: Some(_), .. } => "complete here, failed",
        TaskOp::Cancel => "cancel",
        TaskOp::Fail(_) => "fail",
        TaskOp::Reject(_) => "reject",
        TaskOp::Resolve => "resolve",
        TaskOp::Demote => "demote",
        TaskOp::Delete => "delete",
    };
    (Machine::Task, state, event)
}

impl World {
    /// A record is about to change: by a row of the table, and by none that the cell never makes.
    pub fn check_row(&mut self, row: &Row) {
        if self.nature.changes_in == 0 {
            return;
        }
        let (machine, state, event) = row;
        if !ROWS.contains(row) {
            self.breaks(|| format!("{machine:?} {state}: {event} is done, the table refuses it"));
        }
        if let Some(why) = reason_never(row) {
            self.breaks(|| format!("{machine:?} {state}: {event} is never done: {why}; it was"));
        }
    }

    /// Whether the daemon dies here; it has, then.
    pub fn dies_at(&mut self, row: Row, moment: Moment) -> bool {
        let at = (row, moment);
        let aimed = match &mut self.aim {
            Some(aim) if aim.at == at && aim.left > 0 && !self.kind => {
                aim.left -= 1;
                true
            }
            _ => false,
        };
        let dies = self.mem.is_some() && (aimed || self.fails(self.nature.changes_in));
        if dies {
            *self.deaths.0.entry(at).or_default() += 1;
            self.note(|| format!("daemon  is killed at {}", text(&at)));
            self.daemon_dies();
        }
        dies
    }
}
