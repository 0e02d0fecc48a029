//! What an instance consists of while it lives: which end of which part is the end of all, and what they
//! come to together. Pure.

use super::steps::{StepError, StepResult};
use crate::model::manifest::Health;
use crate::model::work::Work;

/// Which part of an instance, in the order in which their ends are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// What it is about.
    Action,
    /// The health check: first until it passes, then until it fails.
    Health,
    /// The readiness check.
    Readiness,
    /// What runs beside it.
    Sidecar,
}

/// What it consists of, as far as that decides about its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Something decides whether it is healthy, beside its process being there.
    pub monitored: bool,
    /// Something runs beside it.
    pub sidecars: bool,
}

impl Rule {
    /// That of an instance that does this and is tried like this.
    pub fn of(work: &Work, health: &Health) -> Rule {
        let monitored = !health.probes().is_empty() || work.monitor.is_some();
        Rule { monitored, sidecars: !work.sidecars.is_empty() }
    }

    /// A part has ended; `told`: all of them were told to end before. What that counts as, and whether it
    /// is the end of all.
    pub fn ended(self, part: Part, result: StepResult, told: bool) -> (StepResult, bool) {
        let result = match result {
            Ok(()) if part == Part::Sidecar && !told => {
                Err(StepError::Failed("Codependent step exited".into()))
            }
            result => result,
        };
        let all = self.ends_all(part, &result);
        (result, all)
    }

    fn ends_all(self, part: Part, result: &StepResult) -> bool {
        result.is_err() || self.sidecars || (part == Part::Action && !self.monitored)
    }
}

/// What an instance has come to, by what its parts have, in their order. `stopped`: somebody has told it
/// to end.
pub fn outcome(results: Vec<StepResult>, stopped: bool) -> StepResult {
    let mut errors: Vec<StepError> = results.into_iter().filter_map(Result::err).collect();
    if stopped {
        // One that had to be killed is told.
        let late = |err: &StepError| matches!(err, StepError::GraceExceeded | StepError::NotDead);
        return Err(errors.into_iter().find(late).unwrap_or(StepError::Cancelled));
    }
    errors.retain(|err| *err != StepError::Cancelled);
    match errors.len() {
        0 => Ok(()),
        1 => Err(errors.remove(0)),
        _ => Err(StepError::Several(errors)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed() -> StepResult {
        Err(StepError::Failed("x".into()))
    }

    #[test]
    fn row_15_and_47_which_end_is_the_end_of_all() {
        let alone = Rule { monitored: false, sidecars: false };
        let monitored = Rule { monitored: true, sidecars: false };
        let sidecars = Rule { monitored: true, sidecars: true };
        for (rule, part, result, ends) in [
            (alone, Part::Action, Ok(()), true),
            (monitored, Part::Action, Ok(()), false),
            (monitored, Part::Action, failed(), true),
            (monitored, Part::Health, failed(), true),
            (sidecars, Part::Action, Ok(()), true),
            (sidecars, Part::Sidecar, Ok(()), true),
        ] {
            let shown = format!("{part:?} {result:?}");
            assert_eq!(rule.ended(part, result, false).1, ends, "{shown}");
        }
    }

    #[test]
    fn a_sidecar_that_ends_by_itself_has_failed() {
        let rule = Rule { monitored: false, sidecars: true };
        let exited = StepError::Failed("Codependent step exited".into());
        assert_eq!(rule.ended(Part::Sidecar, Ok(()), false), (Err(exited), true));
        assert_eq!(rule.ended(Part::Sidecar, Ok(()), true), (Ok(()), true), "it was told to");
        assert_eq!(rule.ended(Part::Action, Ok(()), false), (Ok(()), true));
    }

    #[test]
    fn what_was_only_told_to_end_is_no_cause() {
        let cancelled = || Err(StepError::Cancelled);
        assert_eq!(outcome(vec![Ok(()), cancelled(), cancelled()], false), Ok(()));
        assert_eq!(outcome(vec![cancelled(), failed()], false), failed());
        assert_eq!(outcome(vec![cancelled(), failed()], true), cancelled());
        let late = vec![Err(StepError::GraceExceeded), cancelled()];
        assert_eq!(outcome(late, true), Err(StepError::GraceExceeded));
    }
}
