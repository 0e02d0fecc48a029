//! Where a process stands in the actions of an instance: its name, and how to go on after a restart.
//!
//! A process that lives on without the daemon is found again by its name, so the name is made of its
//! place in the tree of actions and of nothing else: `app` for the app's only process, `app-1-0` for
//! the first child of the second child, `sidecar-NAME` for a sidecar's only one, `deep-` and a digest
//! where that would be too long or unclear.

use crate::model::action::Action;
use crate::model::process::ProcessSpec;
use crate::model::work::Work;
use crate::unit::Digest;

/// The name of an instance's main process in its container.
pub const MAIN: &str = "app";

/// Longest name that pid 1 takes, in bytes.
const NAME_MAX: usize = 40;

/// The work with every process named by its place.
pub fn named(work: &Work) -> Work {
    let mut work = work.clone();
    work.setup.iter_mut().for_each(|setup| name(setup, "setup"));
    name(&mut work.action, MAIN);
    for sidecar in &mut work.sidecars {
        name(&mut sidecar.action, &format!("sidecar-{}", sidecar.name));
    }
    work.monitor.iter_mut().for_each(|monitor| name(monitor, "monitor"));
    work
}

fn name(action: &mut Action, place: &str) {
    match action {
        Action::Run(run) => {
            // Below a sidecar, numbers could be part of another one's name.
            let unclear = place.starts_with("sidecar-") && place.contains('/');
            run.process.id = match unclear || place.len() > NAME_MAX {
                true => format!("deep-{}", &Digest::of(place.as_bytes()).hex()[..16]),
                false => place.replace('/', "-"),
            };
        }
        Action::Serial(all) | Action::Parallel(all) | Action::Codependent(all) => {
            for (index, child) in all.iter_mut().enumerate() {
                name(child, &format!("{place}/{index}"));
            }
        }
        Action::Timeout { action, .. }
        | Action::EmitProgress { action, .. }
        | Action::LogSource { action, .. }
        | Action::Try(action) => name(action, place),
        Action::CopyIn(_) | Action::CopyOut(_) | Action::Download(_) | Action::Upload(_) => {}
    }
}

/// The names of all processes that live as long as the instance: those of the action and of the
/// sidecars.
pub fn long_lived(work: &Work) -> Vec<String> {
    let sidecars = work.sidecars.iter().map(|sidecar| &sidecar.action);
    [&work.action].into_iter().chain(sidecars).flat_map(runs).collect()
}

/// The names of all processes of an action.
pub fn runs(action: &Action) -> Vec<String> {
    match action {
        Action::Run(run) => vec![run.process.id.clone()],
        _ => children(action).into_iter().flat_map(runs).collect(),
    }
}

/// The first process of an action, as it is started.
pub fn first_process(action: &Action) -> Option<&ProcessSpec> {
    match action {
        Action::Run(run) => Some(&run.process),
        _ => children(action).into_iter().find_map(first_process),
    }
}

/// What is directly below.
fn children(action: &Action) -> Vec<&Action> {
    match action {
        Action::Serial(all) | Action::Parallel(all) | Action::Codependent(all) => {
            all.iter().collect()
        }
        Action::Timeout { action, .. }
        | Action::EmitProgress { action, .. }
        | Action::LogSource { action, .. }
        | Action::Try(action) => vec![action],
        _ => Vec::new(),
    }
}

/// The names of the processes with which an action has begun what it is about: the last one of a
/// sequence, all that are begun at once.
pub fn awaited(action: &Action) -> Vec<String> {
    match action {
        Action::Serial(all) => all.last().map(awaited).unwrap_or_default(),
        Action::Run(run) => vec![run.process.id.clone()],
        _ => children(action).into_iter().flat_map(awaited).collect(),
    }
}

/// Whether an action can be gone on with, given the processes that are known: a sequence at its
/// last known child, all else with all of its parts.
pub fn resumes(action: &Action, known: &dyn Fn(&str) -> bool) -> bool {
    match action {
        Action::Run(run) => known(&run.process.id),
        Action::Serial(all) => resume_at(all, known).is_some(),
        Action::CopyIn(_) | Action::CopyOut(_) | Action::Download(_) | Action::Upload(_) => false,
        _ => children(action).into_iter().all(|child| resumes(child, known)),
    }
}

/// The child of a sequence at which to go on: what is before it has been done. `None`: it has not
/// begun, or nobody can tell how far it is.
pub fn resume_at(actions: &[Action], known: &dyn Fn(&str) -> bool) -> Option<usize> {
    let has_known = |action: &Action| runs(action).iter().any(|id| known(id));
    let last = actions.iter().rposition(has_known)?;
    resumes(&actions[last], known).then_some(last)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::action::{DownloadAction, RunAction};
    use crate::model::work::Sidecar;

    fn run() -> Action {
        let text = r#"{"process":{"id":"","path":"/a","args":[],"argv0":null,"env":[],"dir":null,
            "user":"root","nofile":null,"tty":null,"stdin":false},"log_source":""}"#;
        Action::Run(serde_json::from_str::<RunAction>(text).expect("a run"))
    }

    fn download() -> Action {
        let text = r#"{"from":"http://a/b","to":"/b","cache_key":"","user":"root","artifact":"",
            "log_source":"","checksum":null}"#;
        Action::Download(serde_json::from_str::<DownloadAction>(text).expect("a download"))
    }

    fn work(action: Action) -> Work {
        let sidecar = Sidecar { name: "relay".into(), action: run() };
        named(&Work { sidecars: vec![sidecar], setup: Some(run()), ..Work::new(action) })
    }

    #[test]
    fn every_process_has_the_name_of_its_place() {
        assert_eq!(long_lived(&work(run())), ["app", "sidecar-relay"]);
        let inner = Action::Try(Box::new(Action::Serial(vec![download(), run()])));
        let tree = work(Action::Parallel(vec![run(), inner]));
        assert_eq!(long_lived(&tree), ["app-0", "app-1-1", "sidecar-relay"]);
        assert_eq!(awaited(&tree.action), ["app-0", "app-1-1"]);
        let pair = |name: &str, action: Action| Sidecar { name: name.into(), action };
        let sidecars = vec![pair("a", Action::Serial(vec![run()])), pair("a-0", run())];
        let names = long_lived(&named(&Work { sidecars, ..Work::new(run()) }));
        assert!(names[1].starts_with("deep-") && names[2] == "sidecar-a-0", "{names:?}");
        let mut deep = run();
        for _ in 0..30 {
            deep = Action::Serial(vec![deep]);
        }
        let names = long_lived(&work(deep));
        assert!(names[0].starts_with("deep-") && names[0].len() <= NAME_MAX, "{names:?}");
    }

    #[test]
    fn a_sequence_goes_on_at_its_last_known_process() {
        let tree = work(Action::Serial(vec![download(), run(), run()])).action;
        let Action::Serial(all) = &tree else { panic!("not serial") };
        for (known, at) in [("app-1", Some(1)), ("app-2", Some(2)), ("other", None)] {
            assert_eq!(resume_at(all, &|id| id == known), at, "{known}");
        }
        assert_eq!(awaited(&tree), ["app-2"]);
    }

    #[test]
    fn what_runs_side_by_side_goes_on_only_as_a_whole() {
        let tree = work(Action::Codependent(vec![run(), run()])).action;
        assert!(resumes(&tree, &|id| id.starts_with("app-")));
        assert!(!resumes(&tree, &|id| id == "app-0"));
        let half = work(Action::Parallel(vec![run(), download()])).action;
        assert!(!resumes(&half, &|_| true), "nobody knows how far the download was");
    }
}
