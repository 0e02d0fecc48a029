//! What a controller wants, held against what the box has. Pure.

use std::collections::{BTreeMap, BTreeSet};

/// Fingerprint of each LRP or app, by its guid.
pub type Prints = BTreeMap<String, String>;

/// What has to be done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diff {
    /// Wanted, and not here.
    pub missing: Vec<String>,
    /// Here with another fingerprint.
    pub stale: Vec<String>,
    /// Here, and not wanted.
    pub excess: Vec<String>,
}

/// Compares.
pub fn compare(here: &Prints, wanted: &Prints) -> Diff {
    let missing = wanted.keys().filter(|guid| !here.contains_key(*guid));
    let stale =
        wanted.iter().filter(|(guid, print)| here.get(*guid).is_some_and(|it| it != *print));
    let excess = here.keys().filter(|guid| !wanted.contains_key(*guid));
    Diff {
        missing: missing.cloned().collect(),
        stale: stale.map(|(guid, _)| guid.clone()).collect(),
        excess: excess.cloned().collect(),
    }
}

/// Where a controller's task stands, as it knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// `PENDING`, `RUNNING`, `CANCELING`.
    pub state: String,
    /// Who is told of its end.
    pub callback: String,
}

/// What has to be done about tasks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TaskDiff {
    /// The controller thinks that they run, and they are not here: their guids and who is told.
    pub lost: Vec<(String, String)>,
    /// To be ended.
    pub cancel: Vec<String>,
}

/// Compares: `here` are the guids of Tasks that have not ended.
pub fn compare_tasks(here: &BTreeSet<String>, known: &BTreeMap<String, Known>) -> TaskDiff {
    let mut diff = TaskDiff::default();
    for (guid, task) in known {
        match (task.state.as_str(), here.contains(guid)) {
            ("RUNNING" | "CANCELING", false) => {
                diff.lost.push((guid.clone(), task.callback.clone()));
            }
            ("CANCELING", true) => diff.cancel.push(guid.clone()),
            _ => {}
        }
    }
    diff
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prints(pairs: &[(&str, &str)]) -> Prints {
        pairs.iter().map(|(guid, print)| ((*guid).to_owned(), (*print).to_owned())).collect()
    }

    /// Row 81: only what differs is touched.
    #[test]
    fn row_81_missing_stale_and_excess_are_told_apart() {
        let here = prints(&[("same", "1"), ("stale", "1"), ("excess", "1")]);
        let wanted = prints(&[("same", "1"), ("stale", "2"), ("missing", "1")]);
        let diff = compare(&here, &wanted);
        assert_eq!(diff.missing, ["missing"]);
        assert_eq!(diff.stale, ["stale"]);
        assert_eq!(diff.excess, ["excess"]);
        assert_eq!(compare(&wanted, &wanted), Diff::default());
    }

    #[test]
    fn tasks_that_are_not_here_are_lost_and_those_to_be_ended_are_ended() {
        let known = |state: &str| Known { state: state.into(), callback: "cb".into() };
        let known = BTreeMap::from([
            ("gone".to_owned(), known("RUNNING")),
            ("gone-too".to_owned(), known("CANCELING")),
            ("new".to_owned(), known("PENDING")),
            ("here".to_owned(), known("RUNNING")),
            ("end".to_owned(), known("CANCELING")),
        ]);
        let here = ["here", "end", "other"].map(str::to_owned).into();
        let diff = compare_tasks(&here, &known);
        let lost: Vec<&str> = diff.lost.iter().map(|(guid, _)| guid.as_str()).collect();
        assert_eq!((lost, diff.cancel), (vec!["gone", "gone-too"], vec!["end".to_owned()]));
    }
}
