//! Tasks of apps: a command that runs once, in what the app runs in.

use super::converge::desired;
use super::error::{CellError, Kind};
use super::shared::{Cell, now_ms};
use crate::exec::room::Resources;
use crate::model::lrp::DesiredLrp;
use crate::model::task::{Rootfs, TaskRecord, TaskState};
use crate::stage::task::{self, TaskWish};
use crate::unit::{AppName, Digest};
use std::collections::BTreeMap;

impl Cell {
    /// Asks for a Task of an app, which runs what the app runs now; its guid. It goes on when the app
    /// stops, and ends when that is deleted.
    pub async fn run_task(&self, name: &str, wish: &TaskWish) -> Result<String, CellError> {
        let task = {
            let state = self.shared.state();
            let app =
                state.apps.iter().find(|(app, _)| app.as_str() == name && !app.as_str().is_empty());
            let (name, app) = app.ok_or_else(|| CellError::no_app(name))?;
            let release = app.release.as_ref().filter(|_| !app.deleting).ok_or_else(|| {
                let text = format!("app {name} has nothing to run yet: it is not staged");
                CellError::new(Kind::NotRunning, text)
            })?;
            // A stopped app has Tasks as well.
            let only = BTreeMap::from([(
                name.clone(),
                super::record::AppRecord { stopped: false, ..app.clone() },
            )]);
            let lrps = desired(&only);
            // What a droplet brings beside what the manifest names does not change what is meant.
            let named =
                |lrp: &&DesiredLrp| release.manifest.processes.contains_key(&lrp.guid.process);
            let web = |lrp: &&DesiredLrp| lrp.guid.process == "web";
            let (mut all, mut said) = (lrps.values(), lrps.values().filter(named));
            let declared = said.clone().find(web).or_else(|| said.next());
            let lrp = declared.or_else(|| all.clone().find(web).or_else(|| all.next()));
            let lrp = lrp.ok_or_else(|| {
                CellError::new(Kind::Invalid, format!("app {name} has no process to run it as"))
            })?;
            // Ends in the time: nobody has had it, and a person sees which is newer.
            let mut guid = format!("{name}-{:x}", now_ms());
            while state.tasks.contains_key(&guid) {
                guid.push('0');
            }
            let task = task::of_app(guid, lrp, release.layers(), wish).ok_or_else(|| {
                let text = format!(
                    "app {name} was asked for by a record of its own; ask for a Task as such"
                );
                CellError::new(Kind::Invalid, text)
            })?;
            // It would wait for what never comes.
            if let Some(why) = state.room.never(Resources::of(&task.limits)) {
                let text = format!("cannot run a task of app {name}: {why}; {}", why.cure());
                return Err(CellError::new(Kind::Invalid, text));
            }
            task
        };
        let (guid, app) = (task.guid.clone(), task.app.clone());
        self.desire_task(task)
            .await
            .map_err(|err| CellError::failed(format!("cannot run a task of app {name}"), &err))?;
        // Whoever deletes an app ends the Tasks that it has: this one may have come after that.
        if self.shared.state().apps.get(&app).is_none_or(|app| app.deleting) {
            self.cancel_app_tasks(name).await;
            return Err(CellError::no_app(name));
        }
        Ok(guid)
    }

    /// Ends the Tasks of an app that is deleted.
    pub(super) async fn cancel_app_tasks(&self, name: &str) {
        let open: Vec<String> = {
            let state = self.shared.state();
            let open = open(&state.tasks).filter(|(_, app, _)| app.as_str() == name);
            open.map(|(guid, ..)| guid.to_owned()).collect()
        };
        for guid in open {
            if let Err(err) = self.cancel_task(&guid).await {
                crate::warn!("task.uncancelled", task = guid, err = err);
            }
        }
    }
}

/// The Tasks of apps that have not ended: guid, app, and what they are made of.
fn open(tasks: &BTreeMap<String, TaskRecord>) -> impl Iterator<Item = (&str, &AppName, &[Digest])> {
    tasks.values().filter_map(|record| match (&record.task.rootfs, record.state) {
        (_, TaskState::Completed | TaskState::Resolving) => None,
        (Rootfs::App(app, layers), _) => Some((&*record.task.guid, app, &layers[..])),
        _ => None,
    })
}

/// Layers that Tasks of apps need yet: one may wait for room for longer than its app keeps what it ran.
pub(super) fn layers(tasks: &BTreeMap<String, TaskRecord>) -> impl Iterator<Item = Digest> {
    open(tasks).flat_map(|(.., layers)| layers.iter().copied())
}

#[cfg(test)]
mod tests {
    use super::super::task::due::tests::{after, task};
    use super::*;
    use crate::model::task::Task;

    #[test]
    fn the_layers_of_a_task_stay_until_it_has_ended() {
        let layer = Digest::of(b"droplet");
        let of_app = |guid: &str, state| {
            let rootfs = Rootfs::App("web".parse().expect("name"), vec![layer]);
            let mut record = after(Task { rootfs, ..task(guid, 1, "") }, &[]);
            record.state = state;
            (guid.to_owned(), record)
        };
        let mut tasks = BTreeMap::from([of_app("a", TaskState::Pending)]);
        assert_eq!(layers(&tasks).collect::<Vec<_>>(), [layer]);
        tasks = BTreeMap::from([of_app("b", TaskState::Completed)]);
        assert_eq!(layers(&tasks).count(), 0);
        tasks = BTreeMap::from([("c".to_owned(), after(task("c", 1, ""), &[]))]);
        assert_eq!(layers(&tasks).count(), 0, "it is none of an app's");
    }
}
