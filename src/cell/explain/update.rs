//! A new version that takes over, or did not: one story of what runs, what is tried, why that was given
//! up, and what comes next. Pure.

use super::Facts;
use crate::cell::{releases, rollout};
use crate::model::explain::Explanation;
use crate::model::lrp::{ActualLrp, DesiredLrp};
use crate::model::view::{InstanceView, ROLLED_BACK};

/// What could not be staged, whose image could not be had, or what was gone back from.
pub(super) fn unstaged(facts: &Facts<'_>, part: &Explanation) -> Option<Explanation> {
    let failure = facts.app.failure.as_deref()?;
    let (name, old_runs) = (&facts.view.name, facts.app.release.is_some());
    let by_hook = failure.starts_with("the release hook");
    let happened = match &facts.app.manifest.image {
        _ if failure.starts_with(ROLLED_BACK) => {
            "its new version was tried, and gave way to the one before".into()
        }
        _ if by_hook && old_runs => "its release hook kept its new version back".into(),
        _ if by_hook => "its release hook kept it back".into(),
        Some(image) => format!("its image {image} could not be had"),
        None if old_runs => "its new version could not be staged".into(),
        None => "it could not be staged".into(),
    };
    let next = match old_runs {
        _ if facts.again_ms.is_some() => "it is tried again by itself, for as long as it takes",
        true => "nothing: the version before runs on, and the new one is not tried again by itself",
        false => "nothing: it does not start",
    };
    // What was pushed is a copy: whatever is mended in the directory, another try has the old one.
    let is_copy = facts.app.pushed.is_some() && facts.app.manifest.image.is_none();
    let cure = match facts.again_ms {
        Some(_) => format!("mend that; `terrarium start {name}` tries at once"),
        None if is_copy => format!(
            "mend that and `terrarium push` it again; `terrarium logs {name}` has all of it"
        ),
        None => format!(
            "mend that, then `terrarium start {name}` tries again; `terrarium logs {name}` has all of it"
        ),
    };
    let why = failure.strip_prefix(ROLLED_BACK).unwrap_or(failure);
    let why = why.strip_suffix(releases::RUNS_AGAIN).unwrap_or(why).to_owned();
    let next_ms = facts.again_ms;
    Some(Explanation { happened, why, next: next.into(), next_ms, cure, ..part.clone() })
}

/// Instances of a new version that take the place of others, as far as they are.
pub(super) fn under_way(facts: &Facts<'_>, part: &Explanation) -> Option<Explanation> {
    let (app, view) = (facts.app, facts.view);
    let all = || view.processes.iter().flat_map(|process| &process.instances);
    let serves = |one: &&InstanceView| one.state == "running" && one.ready != Some(false);
    let wanted: u32 = view.processes.iter().map(|process| process.desired).sum();
    let new = all().filter(|one| !one.outdated).filter(serves).count();
    let old = all().filter(|one| one.outdated).filter(serves).count();
    let on_trial = releases::is_on_trial(app);
    let lacks = on_trial && new < wanted as usize;
    if !all().any(|one| one.outdated) && !lacks {
        return None;
    }
    let happened = match app.proven {
        true => "fresh instances take the place of those before",
        false => "its new version takes over from the one before",
    };
    let next = match on_trial {
        true => {
            "those of the version before end as it runs; if one of it crashes 3 times, or is not \
             healthy or ready in its `start_timeout`, and never was, that version runs alone again"
        }
        false => "those before end as these run",
    };
    let cure = match on_trial {
        true => format!("`terrarium rollback {}` goes back now", view.name),
        false => String::new(),
    };
    let why = format!("{new} of {wanted} instances of it serve, and {old} of those before");
    let (happened, next) = (happened.into(), next.into());
    Some(Explanation { happened, why, next, cure, ..part.clone() })
}

/// What an instance is called, or several: one that is not of the newest version is told apart.
pub(super) fn subject(facts: &Facts<'_>, name: String, outdated: bool) -> String {
    match outdated {
        false => name,
        true if has_failed(facts) => format!("{name} (of the version that failed)"),
        true => format!("{name} (of the version before)"),
    }
}

/// What comes next to an instance that is not of the newest version.
pub(super) fn ends(facts: &Facts<'_>) -> &'static str {
    match has_failed(facts) {
        true => "it ends at once",
        false => "it serves on, and ends when the new one in its place does",
    }
}

/// The app has gone back: what is not of its version is of the one that failed.
fn has_failed(facts: &Facts<'_>) -> bool {
    releases::rolled_back(facts.app).is_some()
}

/// Its version has failed with it, and there is one to go back to.
pub(super) fn gives_way(facts: &Facts<'_>, lrp: &DesiredLrp, record: Option<&ActualLrp>) -> bool {
    let failed = record.is_some_and(|it| it.version == lrp.version && rollout::has_failed(lrp, it));
    failed && releases::is_on_trial(facts.app)
}
