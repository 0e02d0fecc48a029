//! Tasks of the small service: they stand still until somebody cancels or deletes them.

use super::Fake;
use crate::api::records::{Done, LrpRecord, RecordService};
use crate::cell::task::TaskError;
use crate::cell::task::state::{Refusal, TaskOp, apply};
use crate::exec::state::ContainerState;
use crate::model::container::LrpContainer;
use crate::model::task::{Task, TaskRecord};
use crate::unit::AppName;

impl Fake {
    fn change_task(&self, guid: &str, op: TaskOp) -> Done<()> {
        self.note(format!("{op:.12?} {guid}"));
        let mut tasks = self.0.tasks.lock().expect("tasks");
        let outcome = apply(tasks.get(guid), &op, 1_000_000).map_err(TaskError::Refused)?;
        match outcome.record {
            Some(record) => tasks.insert(guid.into(), record),
            None => tasks.remove(guid),
        };
        Ok(())
    }
}

impl RecordService for Fake {
    fn stack_at(&self, path: &str) -> Option<String> {
        (path == "/stacks/tiny").then(|| "tiny".to_owned())
    }

    fn external_ip(&self) -> String {
        "192.0.2.1".into()
    }

    fn tasks(&self, domain: Option<&str>) -> Vec<TaskRecord> {
        let tasks = self.0.tasks.lock().expect("tasks");
        let wanted = |it: &&TaskRecord| domain.is_none_or(|domain| it.task.domain == domain);
        tasks.values().filter(wanted).cloned().collect()
    }

    fn task(&self, guid: &str) -> Done<TaskRecord> {
        let found = self.0.tasks.lock().expect("tasks").get(guid).cloned();
        Ok(found.ok_or(TaskError::Refused(Refusal::NotFound))?)
    }

    fn container_of_task(&self, record: &TaskRecord) -> ContainerState {
        ContainerState::of_task(None, record.state)
    }

    async fn desire_task(&self, task: Task) -> Done<()> {
        let guid = task.guid.clone();
        self.change_task(&guid, TaskOp::Desire(Box::new(task)))
    }

    async fn cancel_task(&self, guid: &str) -> Done<()> {
        self.change_task(guid, TaskOp::Cancel)
    }

    async fn delete_task(&self, guid: &str) -> Done<()> {
        self.change_task(guid, TaskOp::Resolve)?;
        self.change_task(guid, TaskOp::Delete)
    }

    fn lrps(&self) -> Vec<LrpRecord> {
        let apps = self.0.apps.lock().expect("apps").clone();
        let lrps = self.0.lrps.lock().expect("LRPs");
        let shown = lrps.iter().filter_map(|(name, container)| {
            let app = apps.iter().find(|app| app.name == *name)?.clone();
            Some(LrpRecord { container: container.clone(), state: ContainerState::Running, app })
        });
        shown.collect()
    }

    async fn desire_lrp(&self, lrp: LrpContainer) -> Done<()> {
        let app = crate::model::task::inner_name(&lrp.guid);
        self.note(format!("desire {app}"));
        self.0.apps.lock().expect("apps").push(super::view(app.as_str(), "running"));
        self.0.lrps.lock().expect("LRPs").push((app, lrp));
        Ok(())
    }

    async fn stop_lrp(&self, app: &AppName) -> Done<()> {
        self.note(format!("stop {app}"));
        Ok(())
    }

    async fn delete_lrp(&self, app: &AppName) -> Done<()> {
        self.note(format!("delete {app}"));
        self.0.lrps.lock().expect("LRPs").retain(|(name, _)| name != app);
        Ok(())
    }
}
