//! The cell as Diego's dialects want it.

use super::service::Service;
use crate::api::records::{Done, LrpRecord, RecordError, RecordService};
use crate::cell::{CellError, Kind};
use crate::exec::state::ContainerState;
use crate::model::container::LrpContainer;
use crate::model::task::{Task, TaskRecord};
use crate::unit::AppName;

impl From<CellError> for RecordError {
    fn from(err: CellError) -> RecordError {
        let (status, name) = match err.kind {
            Kind::NotFound => (404, "ContainerNotFound"),
            Kind::Conflict => (409, "ContainerGuidNotAvailable"),
            Kind::Invalid => (400, "InvalidRecord"),
            _ => (500, "UnknownError"),
        };
        RecordError::new(status, name, err.text)
    }
}

impl RecordService for Service {
    fn stack_at(&self, path: &str) -> Option<String> {
        self.cell.stack_at(path)
    }

    fn external_ip(&self) -> String {
        self.cell.external_ip().to_string()
    }

    fn tasks(&self, domain: Option<&str>) -> Vec<TaskRecord> {
        self.cell.tasks(domain)
    }

    fn task(&self, guid: &str) -> Done<TaskRecord> {
        Ok(self.cell.task(guid)?)
    }

    fn container_of_task(&self, record: &TaskRecord) -> ContainerState {
        self.cell.container_of_task(record)
    }

    async fn desire_task(&self, task: Task) -> Done<()> {
        Ok(self.cell.desire_task(task).await?)
    }

    async fn cancel_task(&self, guid: &str) -> Done<()> {
        Ok(self.cell.cancel_task(guid).await?)
    }

    async fn delete_task(&self, guid: &str) -> Done<()> {
        Ok(self.cell.delete_task(guid).await?)
    }

    fn lrps(&self) -> Vec<LrpRecord> {
        let all = self.cell.containers().into_iter();
        // One that goes at this moment is not shown.
        let shown = all.filter_map(|(name, container)| {
            let state = self.cell.container_of_lrp(&name);
            Some(LrpRecord { container, state, app: self.cell.glance(name.as_str()).ok()? })
        });
        shown.collect()
    }

    async fn desire_lrp(&self, lrp: LrpContainer) -> Done<()> {
        Ok(self.cell.desire_container(lrp).await?)
    }

    async fn stop_lrp(&self, app: &AppName) -> Done<()> {
        Ok(self.cell.stop(app.as_str(), false).await?)
    }

    async fn delete_lrp(&self, app: &AppName) -> Done<()> {
        Ok(self.cell.delete(app.as_str()).await?)
    }
}
