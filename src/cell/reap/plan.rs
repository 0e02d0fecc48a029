//! Which containers nobody of the cell's knows. Pure.

use super::super::owner::Owner;
use crate::model::lrp::ProcessGuid;
use crate::unit::{AppName, Handle};
use std::collections::{BTreeMap, BTreeSet};

/// Whom the cell knows, told after the containers were listed: what is made meanwhile is not on the
/// list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// Instances that somebody works on, by LRP and index, and the container of each that has one;
    /// one without may be about to make it, to remove it, or to look for it.
    pub instances: BTreeMap<(ProcessGuid, u32), Vec<Option<Handle>>>,
    /// Apps that are being staged.
    pub staging: BTreeSet<AppName>,
    /// Tasks that somebody works on.
    pub tasks: BTreeSet<String>,
    /// Containers that are removed already, and do not go.
    pub stuck: BTreeSet<Handle>,
}

/// The containers that go. Whose owner is none that this room knows stays: it is somebody else's.
pub fn strays(listed: &[(Handle, Option<Owner>)], known: &Known) -> Vec<Handle> {
    let is_stray = |handle: &Handle, owner: &Option<Owner>| match owner {
        _ if known.stuck.contains(handle) => false,
        None => false,
        Some(Owner::Lrp { guid, index }) => match known.instances.get(&(guid.clone(), *index)) {
            None => true,
            Some(works) => !works.iter().any(|own| own.as_ref().is_none_or(|own| own == handle)),
        },
        Some(Owner::Staging(app)) => !known.staging.contains(app),
        Some(Owner::Task(guid)) => !known.tasks.contains(guid),
        // The check removes what it leaves itself.
        Some(Owner::Check) => false,
    };
    let strays = listed.iter().filter(|(handle, owner)| is_stray(handle, owner));
    strays.map(|(handle, _)| handle.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn handle(text: &str) -> Handle {
        text.parse().expect("handle")
    }

    #[test]
    fn row_30_and_32_each_mismatch_has_one_outcome() {
        let app: AppName = "web".parse().expect("name");
        let guid = ProcessGuid { app: app.clone(), process: "web".into() };
        let lrp = |index| Some(Owner::Lrp { guid: guid.clone(), index });
        let known = Known {
            instances: [
                ((guid.clone(), 0), vec![Some(handle("own")), Some(handle("beside"))]),
                ((guid.clone(), 1), vec![None]),
            ]
            .into(),
            tasks: ["task".to_owned()].into(),
            staging: [app.clone()].into(),
            stuck: [handle("stuck")].into(),
        };
        for (name, owner, goes) in [
            ("own", lrp(0), false),
            ("beside", lrp(0), false),
            ("third", lrp(0), true),
            ("in-the-making", lrp(1), false),
            ("nobodys", lrp(2), true),
            ("stuck", lrp(2), false),
            ("staging", Some(Owner::Staging(app)), false),
            ("staged", Some(Owner::Staging("gone".parse().expect("name"))), true),
            ("a-task", Some(Owner::Task("task".into())), false),
            ("a-lost-task", Some(Owner::Task("lost".into())), true),
            ("check", Some(Owner::Check), false),
            ("gardens", None, false),
        ] {
            let found = strays(&[(handle(name), owner)], &known);
            assert_eq!(!found.is_empty(), goes, "{name}");
        }
    }
}
