//! How far the container of an instance or a Task is, as executor tells it: the only place where one
//! changes its state. Pure.
//!
//! ```text
//!            initialize               create              run
//!   reserved ----------> initializing ------> created ---------> running
//!       \_____________________\__________________\__________________\___ complete --> completed
//! ```
//!
//! Reserved: its room is taken, it waits for its turn; initializing: it is being made; created: it is
//! there, and what it is about is not healthy yet. A Task has no health: it runs as soon as it is begun.

use crate::model::lrp::LrpState;
use crate::model::task::TaskState;
use std::fmt;

/// How far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum ContainerState {
    Reserved,
    Initializing,
    Created,
    Running,
    Completed,
}

/// What happens to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContainerEvent {
    /// It is about to be made.
    Initialize,
    /// It is made.
    Create,
    /// It was healthy for the first time.
    Run,
    /// It has ended, or will never begin.
    Complete,
}

impl ContainerEvent {
    /// All of them.
    pub const ALL: [ContainerEvent; 4] = {
        use ContainerEvent::*;
        [Initialize, Create, Run, Complete]
    };
}

/// The event does not apply in this state. The text is executor's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidTransition;

impl fmt::Display for InvalidTransition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("container cannot transition to given state")
    }
}

impl std::error::Error for InvalidTransition {}

impl ContainerState {
    /// All of them, in their order.
    pub const ALL: [ContainerState; 5] = {
        use ContainerState::*;
        [Reserved, Initializing, Created, Running, Completed]
    };

    /// What it is after `event`: forward only, by a step at a time, and from anywhere to its end.
    pub fn next(self, event: ContainerEvent) -> Result<ContainerState, InvalidTransition> {
        use ContainerEvent as E;
        use ContainerState as S;
        match (self, event) {
            (S::Reserved, E::Initialize) => Ok(S::Initializing),
            (S::Initializing, E::Create) => Ok(S::Created),
            (S::Created, E::Run) => Ok(S::Running),
            (
                S::Reserved | S::Initializing | S::Created | S::Running | S::Completed,
                E::Complete,
            ) => Ok(S::Completed),
            (
                S::Reserved | S::Initializing | S::Created | S::Running | S::Completed,
                E::Initialize | E::Create | E::Run,
            ) => Err(InvalidTransition),
        }
    }

    /// That of one that has outlived the daemon which made it.
    pub fn survived(was_healthy: bool) -> ContainerState {
        if was_healthy { ContainerState::Running } else { ContainerState::Created }
    }

    /// That of an instance; `worked_on`: as whoever works on it says, `record`: what became of it, if
    /// anything has. Nobody makes one of which the app is stopped.
    pub fn of_instance(
        worked_on: Option<ContainerState>,
        record: Option<&LrpState>,
        stopped: bool,
    ) -> ContainerState {
        match (worked_on, record) {
            (Some(state), _) => state,
            (None, Some(LrpState::Crashed { .. })) => ContainerState::Completed,
            (None, _) if stopped => ContainerState::Completed,
            // Where it lives nobody works: that is about to be recorded.
            (None, Some(LrpState::Claimed(_) | LrpState::Running(_))) => ContainerState::Completed,
            (None, Some(LrpState::Unclaimed) | None) => ContainerState::Reserved,
        }
    }

    /// That of a Task, likewise; but that it has ended is true when its record says so, with how.
    pub fn of_task(worked_on: Option<ContainerState>, record: TaskState) -> ContainerState {
        match (record, worked_on) {
            (TaskState::Pending, _) => ContainerState::Reserved,
            (TaskState::Running, state) => {
                state.unwrap_or(ContainerState::Running).min(ContainerState::Running)
            }
            (TaskState::Completed | TaskState::Resolving, _) => ContainerState::Completed,
        }
    }

    /// It has its room, and does not run yet.
    pub fn is_starting(self) -> bool {
        self < ContainerState::Running
    }
}

impl fmt::Display for ContainerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ContainerState::Reserved => "reserved",
            ContainerState::Initializing => "initializing",
            ContainerState::Created => "created",
            ContainerState::Running => "running",
            ContainerState::Completed => "completed",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::lrp::Place;
    use std::fmt::Write;
    use std::path::Path;

    fn living() -> [LrpState; 2] {
        let slot = crate::unit::Slot::new(1).expect("a slot");
        let place = Place { handle: "x".parse().expect("a handle"), slot, ports: Vec::new() };
        [LrpState::Claimed(place.clone()), LrpState::Running(place)]
    }

    /// The whole table. TERRARIUM_BLESS=1 rewrites the file, for review as code.
    #[test]
    fn row_29_the_states_of_a_container_are_the_golden_ones() {
        let mut text = String::new();
        for state in ContainerState::ALL {
            for event in ContainerEvent::ALL {
                let next = state
                    .next(event)
                    .map_or_else(|refused| format!("refused: {refused}"), |next| next.to_string());
                let (state, event) = (state.to_string(), format!("{event:?}").to_lowercase());
                writeln!(text, "{state:<12} | {event:<10} | {next}").expect("text");
            }
        }
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/container-states.txt");
        if std::env::var_os("TERRARIUM_BLESS").is_some() {
            std::fs::write(&path, &text).expect("golden file");
        }
        let golden = std::fs::read_to_string(&path).expect("golden file");
        assert_eq!(text, golden, "TERRARIUM_BLESS=1 rewrites {}", path.display());
    }

    /// Row 29: forward only, and to the end from anywhere, whatever happens in whatever order.
    #[test]
    fn row_29_no_order_of_events_leads_back() {
        let mut seed = 1_u64;
        for _ in 0..2_000 {
            let mut state = ContainerState::Reserved;
            for _ in 0..20 {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let event = ContainerEvent::ALL[(seed >> 33) as usize % 4];
                let next = state.next(event).unwrap_or(state);
                let (now, then) = (state as u8, next as u8);
                let forward = then == now + 1 || then == now || next == ContainerState::Completed;
                assert!(forward, "{state} {event:?} {next}");
                assert_eq!(state.next(ContainerEvent::Complete), Ok(ContainerState::Completed));
                state = next;
            }
        }
    }

    #[test]
    fn row_29_what_nobody_works_on_is_told_by_its_record() {
        use ContainerState as S;
        let [claimed, running] = living();
        let of = |record: Option<&LrpState>| S::of_instance(None, record, false);
        assert_eq!(of(None), S::Reserved);
        assert_eq!(of(Some(&LrpState::Unclaimed)), S::Reserved, "it waits for room");
        assert_eq!(of(Some(&LrpState::Crashed { succeeded: false })), S::Completed);
        assert_eq!((of(Some(&claimed)), of(Some(&running))), (S::Completed, S::Completed));
        assert_eq!(S::of_instance(None, Some(&LrpState::Unclaimed), true), S::Completed);
        let crashed = LrpState::Crashed { succeeded: false };
        for state in S::ALL {
            assert_eq!(S::of_instance(Some(state), Some(&crashed), false), state, "it begins anew");
            assert_eq!(S::of_task(Some(state), TaskState::Running), state.min(S::Running));
            assert_eq!(S::of_task(Some(state), TaskState::Pending), S::Reserved);
            assert_eq!(S::of_task(Some(state), TaskState::Resolving), S::Completed);
        }
        assert_eq!(S::of_task(None, TaskState::Running), S::Running);
        let starting = S::ALL.map(S::is_starting);
        assert_eq!(starting, [true, true, true, false, false]);
    }
}
