//! Revisions, stagings and Tasks of apps, as the local API wants them.

use super::service::{BEHIND_MAX, Service};
use crate::api::apps::history::{HistoryService, TaskRequest};
use crate::api::apps::{ApplyEvent, Served};
use crate::model::view::RevisionView;
use crate::stage::task::TaskWish;
use crate::unit::AppName;
use smol::channel::bounded;
use smol::stream;

impl HistoryService for Service {
    async fn revisions(&self, name: &AppName) -> Served<Vec<RevisionView>> {
        Ok(self.cell.revisions(name.as_str())?)
    }

    async fn follow(&self, name: &AppName) -> Served<stream::Boxed<ApplyEvent>> {
        let (_, lines) = self.cell.log(name).follow(0, |_| true);
        let changes = self.cell.watch();
        self.cell.glance(name.as_str())?;
        let (sender, receiver) = bounded(BEHIND_MAX);
        self.report(name, lines, changes, (sender, true));
        Ok(Box::pin(receiver))
    }

    async fn rollback(&self, name: &AppName, to: Option<u64>) -> Served<u64> {
        Ok(self.cell.rollback(name.as_str(), to).await?)
    }

    async fn restage(&self, name: &AppName) -> Served<()> {
        Ok(self.cell.restage(name.as_str()).await?)
    }

    async fn run_task(&self, name: &AppName, request: TaskRequest) -> Served<String> {
        let TaskRequest { command, memory, disk } = request;
        Ok(self.cell.run_task(name.as_str(), &TaskWish { command, memory, disk }).await?)
    }
}
