//! What an app was, and what is done with what it is: revisions, stagings, Tasks of its own.

use super::handle::{invalid, nothing};
use super::{ApplyEvent, Served, handle};
use crate::api::http::Body;
use crate::api::http::server::Response;
use crate::model::view::RevisionView;
use crate::unit::{AppName, Bytes};
use serde::{Deserialize, Serialize};
use smol::stream;

/// Where to go back to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RollbackRequest {
    /// A revision's number; `None`: the last other one before what runs.
    #[serde(default)]
    pub to: Option<u64>,
}

/// The revision that going back has made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RolledBack {
    /// Its number.
    pub revision: u64,
}

/// A Task of an app.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskRequest {
    /// What a shell runs.
    pub command: String,
    /// `None`: as the app's process has.
    #[serde(default)]
    pub memory: Option<Bytes>,
    /// `None`: as the app's process has.
    #[serde(default)]
    pub disk: Option<Bytes>,
}

/// A Task that was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskMade {
    /// What `/v1/tasks` calls it.
    pub task_guid: String,
}

/// Longest command of a Task, in bytes.
const COMMAND_MAX: usize = 4096;

/// What the dialect needs for it.
pub trait HistoryService: Send + Sync {
    /// The revisions that are kept, oldest first.
    fn revisions(&self, name: &AppName) -> impl Future<Output = Served<Vec<RevisionView>>> + Send;
    /// What happens to it, until it runs or has failed.
    fn follow(
        &self,
        name: &AppName,
    ) -> impl Future<Output = Served<stream::Boxed<ApplyEvent>>> + Send;
    /// Runs an old revision again, as a new one; the number of that.
    fn rollback(&self, name: &AppName, to: Option<u64>)
    -> impl Future<Output = Served<u64>> + Send;
    /// Stages it again, whether its source has changed or not.
    fn restage(&self, name: &AppName) -> impl Future<Output = Served<()>> + Send;
    /// Asks for a Task of it; its guid.
    fn run_task(
        &self,
        name: &AppName,
        request: TaskRequest,
    ) -> impl Future<Output = Served<String>> + Send;
}

/// What is asked about one app's past.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HistoryVerb {
    /// GET revisions.
    Revisions,
    /// GET follow.
    Follow,
    /// POST rollback.
    Rollback,
    /// POST restage.
    Restage,
    /// POST tasks.
    RunTask,
}

/// Answers what is asked.
pub(super) async fn about(
    service: &impl HistoryService,
    name: &AppName,
    verb: HistoryVerb,
    body: &mut Body<'_>,
) -> Served<Response> {
    match verb {
        HistoryVerb::Revisions => Ok(Response::json(200, &service.revisions(name).await?)),
        HistoryVerb::Follow => Ok(handle::lines(service.follow(name).await?)),
        HistoryVerb::Rollback => {
            let request: RollbackRequest = handle::json(body, handle::BODY_MAX).await?;
            let revision = service.rollback(name, request.to).await?;
            Ok(Response::json(200, &RolledBack { revision }))
        }
        HistoryVerb::Restage => service.restage(name).await.map(|()| nothing()),
        HistoryVerb::RunTask => {
            let request: TaskRequest = handle::json(body, handle::BODY_MAX).await?;
            if request.command.trim().is_empty() || request.command.len() > COMMAND_MAX {
                return Err(invalid(&format!("`command` has 1 to {COMMAND_MAX} bytes")));
            }
            let task_guid = service.run_task(name, request).await?;
            Ok(Response::json(201, &TaskMade { task_guid }))
        }
    }
}
