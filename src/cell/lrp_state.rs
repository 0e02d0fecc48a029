//! Every way in which the record of an instance changes: Diego's table of states and events.
//!
//! | event \ state | none | UNCLAIMED | CLAIMED | RUNNING | CRASHED |
//! |---|---|---|---|---|---|
//! | desire | UNCLAIMED | fresh, if of another version | - | - | fresh, if of another version |
//! | claim | - | CLAIMED | same instance | same instance | - |
//! | start | RUNNING | RUNNING | RUNNING | same instance | - |
//! | crash | - | - | same instance | same instance | - |
//! | unmade | - | as a crash | - | - | - |
//! | stop | - | fresh | same instance: fresh | same instance: fresh | - |
//! | lose | - | - | UNCLAIMED | UNCLAIMED | - |
//! | unclaim | - | itself | UNCLAIMED | UNCLAIMED | UNCLAIMED |
//! | fail | - | with the reason | - | - | - |
//! | ready | - | - | same instance | same instance | - |
//! | remove | - | gone | same instance: gone | same instance: gone | gone |
//!
//! A crash leads to UNCLAIMED when the next start is due at once, to CRASHED otherwise. The instance
//! is named by its container's handle, which is Diego's instance guid. What Diego does not have:
//! there a container is claimed before it is made; here its making is part of the claim, so what
//! could not be made (`unmade`) was never claimed and counts as a crash all the same.

use super::crash::{self, Next};
use super::diff::Key;
use crate::exec::steps::{StepError, StepResult};
use crate::model::death::{Cause, Death, Stopper};
use crate::model::lrp::{ActualLrp, DesiredLrp, LrpState, Place};
use crate::model::manifest::Restart;
use crate::unit::Handle;
use std::fmt;

/// A crash reason is cut to this many bytes, as in the BBS.
pub(super) const REASON_MAX: usize = 1024;

/// What happens to a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LrpEvent {
    /// It is wanted in this version.
    Desire {
        /// As in [`ActualLrp::version`].
        version: String,
    },
    /// Its container is made.
    Claim(Place),
    /// It passed its first health check.
    Start {
        /// As in [`ActualLrp::version`]; counts where there is no record yet.
        version: String,
        /// Where it lives.
        place: Place,
    },
    /// Connections may be led to it, or not, by its readiness check.
    Ready {
        /// Its container.
        handle: Handle,
        /// They may.
        ready: bool,
    },
    /// It ended by itself.
    Crash {
        /// Its container.
        handle: Handle,
        /// How.
        end: End,
    },
    /// Its container could not be made.
    Unmade(End),
    /// It was stopped on purpose and is gone. What it did before is forgotten.
    Stop {
        /// Its container; `None`: it had none yet.
        handle: Option<Handle>,
        /// By whom.
        cause: Cause,
    },
    /// It lives nowhere any more, and nobody has seen how it ended.
    Lose(Cause),
    /// Its next start is due.
    Unclaim,
    /// There is no room for it.
    Fail(String),
    /// It is not wanted and nothing of it is left. The container that the record must have.
    Remove(Option<Handle>),
}

impl LrpEvent {
    /// The words for all of them. Taken apart in [`LrpEvent::name`], so that neither an event without
    /// a word nor a word without an event compiles.
    pub const NAMES: [&'static str; 11] = [
        "desire", "claim", "start", "ready", "crash", "unmade", "stop", "lose", "unclaim", "fail",
        "remove",
    ];

    /// A word for it.
    pub fn name(&self) -> &'static str {
        let [desire, claim, start, ready, crash, unmade, stop, lose, unclaim, fail, remove] =
            LrpEvent::NAMES;
        match self {
            LrpEvent::Desire { .. } => desire,
            LrpEvent::Claim(_) => claim,
            LrpEvent::Start { .. } => start,
            LrpEvent::Ready { .. } => ready,
            LrpEvent::Crash { .. } => crash,
            LrpEvent::Unmade(_) => unmade,
            LrpEvent::Stop { .. } => stop,
            LrpEvent::Lose(_) => lose,
            LrpEvent::Unclaim => unclaim,
            LrpEvent::Fail(_) => fail,
            LrpEvent::Remove(_) => remove,
        }
    }
}

/// How an instance ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    /// Why, for a person: Diego's text.
    pub reason: String,
    /// Why, as a value.
    pub cause: Cause,
    /// With exit status 0.
    pub succeeded: bool,
    /// When it is started again.
    pub restart: Restart,
}

impl End {
    /// How an instance of this LRP ended.
    pub fn of(lrp: &DesiredLrp, end: &StepResult) -> End {
        let source = lrp.log_source.clone();
        let cause = end.as_ref().err().map_or(Cause::Exited { source, code: 0 }, StepError::cause);
        let cause = cause.within(REASON_MAX);
        let mut reason = end.as_ref().err().map(ToString::to_string).unwrap_or_default();
        if reason.is_empty() {
            reason.push_str("Exited with status 0");
        }
        End { reason, cause, succeeded: end.is_ok(), restart: lrp.restart }
    }
}

/// What one that was told to end has died of: of who told it, and how that went.
pub fn stopped(by: Stopper, end: &StepResult) -> Cause {
    let killed = matches!(end, Err(StepError::GraceExceeded | StepError::NotDead));
    Cause::Stopped { by, killed }
}

/// The event does not apply to the record, which stays as it is. The texts are the BBS's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Refused {
    NotFound,
    Exists,
    CannotBeClaimed,
    CannotBeStarted,
    CannotBeCrashed,
    CannotBeUnclaimed,
    CannotBeFailed,
    CannotBeRemoved,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Refused::NotFound => "ResourceNotFound",
            Refused::Exists => "ResourceExists",
            Refused::CannotBeClaimed => "ActualLRPCannotBeClaimed",
            Refused::CannotBeStarted => "ActualLRPCannotBeStarted",
            Refused::CannotBeCrashed => "ActualLRPCannotBeCrashed",
            Refused::CannotBeUnclaimed => "ActualLRPCannotBeUnclaimed",
            Refused::CannotBeFailed => "ActualLRPCannotBeFailed",
            Refused::CannotBeRemoved => "ActualLRPCannotBeRemoved",
        })
    }
}

impl std::error::Error for Refused {}

/// The record after `event`; `None`: there is none any more. What changes nothing gives an equal
/// record.
pub fn apply(
    key: &Key,
    record: Option<&ActualLrp>,
    event: LrpEvent,
    now_ms: u64,
) -> Result<Option<ActualLrp>, Refused> {
    let Some(old) = record else {
        return match event {
            LrpEvent::Desire { version } => Ok(Some(fresh(key, version, now_ms))),
            LrpEvent::Start { version, place } => {
                Ok(Some(started(fresh(key, version, now_ms), place, now_ms)))
            }
            _ => Err(Refused::NotFound),
        };
    };
    let old = old.clone();
    let new = match event {
        LrpEvent::Desire { version } => desired(key, old, version, now_ms)?,
        LrpEvent::Claim(place) => claimed(old, place, now_ms)?,
        LrpEvent::Start { place, .. } => match &old.state {
            LrpState::Running(there) if there.handle != place.handle => {
                return Err(Refused::CannotBeStarted);
            }
            LrpState::Crashed { .. } => return Err(Refused::CannotBeStarted),
            _ => started(old, place, now_ms),
        },
        LrpEvent::Ready { handle, ready } => match lives_in(&old, &handle) {
            true => {
                // What an older program has recorded says so only here.
                let was_ready = old.was_ready || ready || old.routable == Some(true);
                ActualLrp { routable: Some(ready), was_ready, ..old }
            }
            false => return Err(Refused::CannotBeStarted),
        },
        LrpEvent::Crash { handle, end } => match lives_in(&old, &handle) {
            true => crashed(old, end, now_ms),
            false => return Err(Refused::CannotBeCrashed),
        },
        LrpEvent::Unmade(end) => match old.state {
            LrpState::Unclaimed => crashed(old, end, now_ms),
            _ => return Err(Refused::CannotBeCrashed),
        },
        LrpEvent::Stop { handle, cause } => match is_instance(&old, handle.as_ref()) {
            true if !matches!(old.state, LrpState::Crashed { .. }) => {
                let death = Some(Death { at_ms: now_ms, counted: false, cause });
                ActualLrp { death, ..fresh(key, old.version, now_ms) }
            }
            _ => return Err(Refused::CannotBeUnclaimed),
        },
        LrpEvent::Lose(cause) => match old.place() {
            Some(_) => {
                let death = Some(Death { at_ms: now_ms, counted: false, cause });
                ActualLrp { death, ..unclaimed(old, now_ms) }
            }
            None => return Err(Refused::CannotBeUnclaimed),
        },
        LrpEvent::Unclaim => unclaimed(old, now_ms),
        LrpEvent::Fail(why) => match old.state {
            LrpState::Unclaimed => ActualLrp { placement_error: Some(why), ..old },
            _ => return Err(Refused::CannotBeFailed),
        },
        LrpEvent::Remove(handle) => match is_instance(&old, handle.as_ref()) {
            true => return Ok(None),
            false => return Err(Refused::CannotBeRemoved),
        },
    };
    Ok(Some(new))
}

/// What makes a record ready for a start in `version`; `None`: it is.
pub fn before_start(record: Option<&ActualLrp>, version: &str) -> Option<LrpEvent> {
    match record {
        Some(record) if record.version == version => {
            (record.state != LrpState::Unclaimed).then_some(LrpEvent::Unclaim)
        }
        _ => Some(LrpEvent::Desire { version: version.to_owned() }),
    }
}

/// What the end of an instance is to its record. `handle`: its container; `None`: it never had one.
/// `stopped`: by whom, if it was told to end; then there is nothing to count.
pub fn concluded(handle: Option<Handle>, end: End, stopped: Option<Cause>) -> LrpEvent {
    match (stopped, handle) {
        (Some(cause), handle) => LrpEvent::Stop { handle, cause },
        (None, Some(handle)) => LrpEvent::Crash { handle, end },
        (None, None) => LrpEvent::Unmade(end),
    }
}

fn fresh(key: &Key, version: String, now_ms: u64) -> ActualLrp {
    ActualLrp {
        guid: key.0.clone(),
        index: key.1,
        side: key.2,
        version,
        state: LrpState::Unclaimed,
        crash_count: 0,
        crash_reason: None,
        death: None,
        placement_error: None,
        routable: None,
        ran: false,
        was_ready: false,
        tag: Default::default(),
        since_ms: now_ms,
    }
}

fn desired(key: &Key, old: ActualLrp, version: String, now_ms: u64) -> Result<ActualLrp, Refused> {
    match old.place() {
        None if old.version != version => {
            // A newer version is not blamed for the crashes of an older one.
            let blameless =
                |death: &Death| matches!(death.cause, Cause::Stopped { .. } | Cause::Unseen { .. });
            let death = old.death.filter(blameless);
            Ok(ActualLrp { death, ..fresh(key, version, now_ms) })
        }
        _ => Err(Refused::Exists),
    }
}

fn claimed(old: ActualLrp, place: Place, now_ms: u64) -> Result<ActualLrp, Refused> {
    match &old.state {
        LrpState::Claimed(there) if *there == place => Ok(old),
        LrpState::Claimed(there) | LrpState::Running(there) if there.handle != place.handle => {
            Err(Refused::CannotBeClaimed)
        }
        LrpState::Crashed { .. } => Err(Refused::CannotBeClaimed),
        _ => Ok(ActualLrp {
            state: LrpState::Claimed(place),
            placement_error: None,
            since_ms: now_ms,
            ..old
        }),
    }
}

fn started(old: ActualLrp, place: Place, now_ms: u64) -> ActualLrp {
    let since_ms = if old.runs() { old.since_ms } else { now_ms };
    // What was found out about another container says nothing about this one.
    let same = lives_in(&old, &place.handle);
    let routable = old.routable.map(|ready| ready && same);
    ActualLrp {
        state: LrpState::Running(place),
        placement_error: None,
        routable,
        ran: true,
        since_ms,
        ..old
    }
}

fn crashed(old: ActualLrp, end: End, now_ms: u64) -> ActualLrp {
    let End { mut reason, cause, succeeded, restart } = end;
    cut(&mut reason, REASON_MAX);
    let running_since = old.runs().then_some(old.since_ms);
    let counted = crash::wanted(restart, succeeded) || !succeeded;
    let crash_count = match counted {
        true => crash::count(old.crash_count, running_since, now_ms),
        false => old.crash_count,
    };
    let state = match crash::after(restart, succeeded, crash_count, now_ms) {
        Next::Now => LrpState::Unclaimed,
        Next::At(_) | Next::Never => LrpState::Crashed { succeeded },
    };
    ActualLrp {
        state,
        crash_count,
        crash_reason: Some(reason),
        death: Some(Death { at_ms: now_ms, counted, cause }),
        placement_error: None,
        routable: None,
        since_ms: now_ms,
        ..old
    }
}

fn unclaimed(old: ActualLrp, now_ms: u64) -> ActualLrp {
    match old.state {
        LrpState::Unclaimed => old,
        _ => ActualLrp { state: LrpState::Unclaimed, routable: None, since_ms: now_ms, ..old },
    }
}

fn lives_in(record: &ActualLrp, handle: &Handle) -> bool {
    record.place().is_some_and(|place| place.handle == *handle)
}

/// Whether the record is of this instance; `None`: of none.
fn is_instance(record: &ActualLrp, handle: Option<&Handle>) -> bool {
    record.place().map(|place| &place.handle) == handle
}

/// Cuts text to at most `max` bytes, at a character.
pub(super) fn cut(text: &mut String, max: usize) {
    if text.len() > max {
        let end = (0..=max).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(end);
    }
}

#[cfg(test)]
mod tests;
