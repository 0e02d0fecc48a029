//! Diego's own dialects on the local socket: Tasks as the receptor of 2015 takes them, and container
//! records as a cell's executor does.
//!
//! | method | path | body | answer |
//! |---|---|---|---|
//! | POST | `/v1/tasks` | a Task | 201 |
//! | GET | `/v1/tasks?domain=` | | list of Tasks |
//! | GET | `/v1/tasks/G` | | a Task |
//! | POST | `/v1/tasks/G/cancel` | | 200 |
//! | DELETE | `/v1/tasks/G` | | 200, when it has completed |
//! | POST | `/v1/containers` | a container, or a list of them | 201; the list's failures |
//! | GET | `/v1/containers` | | list of containers |
//! | GET | `/v1/containers/G` | | a container |
//! | POST | `/v1/containers/G/stop` | | 202 |
//! | DELETE | `/v1/containers/G` | | 200 when nothing of it is left |
//!
//! Errors: `{"name":"...","message":"..."}` with Diego's names. A Task that was asked for as a
//! container is shown as both.

pub mod action;
mod checks;
pub mod egress;
mod extras;
mod handle;
pub mod record;
mod route;
mod show;

pub(in crate::api) use handle::answer;
pub(in crate::api) use route::{is_ours, route};
pub(in crate::api) use show::task as show_task;

use crate::api::apps::ErrorKind;
use crate::exec::state::ContainerState;
use crate::model::container::LrpContainer;
use crate::model::task::{Task, TaskRecord};
use crate::model::view::AppView;
use crate::unit::AppName;
use serde_json::{Value, json};

/// A refusal with Diego's name for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordError {
    /// HTTP status.
    pub status: u16,
    /// Type, for the caller.
    pub name: String,
    /// For a person.
    pub message: String,
}

impl RecordError {
    /// A refusal.
    pub fn new(status: u16, name: &str, message: impl Into<String>) -> RecordError {
        RecordError { status, name: name.into(), message: message.into() }
    }

    /// As it goes over the wire.
    pub fn view(&self) -> Value {
        // The last is for the command line: which exit code.
        let kind = match self.status {
            404 => ErrorKind::NotFound,
            409 => ErrorKind::Conflict,
            400..500 => ErrorKind::Invalid,
            _ => ErrorKind::Failed,
        };
        json!({ "name": self.name, "message": self.message, "kind": kind.as_str() })
    }
}

/// What comes out of the service.
pub type Done<T> = Result<T, RecordError>;

/// An LRP that was asked for by a container record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LrpRecord {
    /// What was asked for.
    pub container: LrpContainer,
    /// How far its container is.
    pub state: ContainerState,
    /// What became of it: its app here has one process with one instance.
    pub app: AppView,
}

/// What the dialects need.
pub trait RecordService: Send + Sync {
    /// The stack that a path of another cell's records stands for.
    fn stack_at(&self, path: &str) -> Option<String>;
    /// The box's address as clients are told it.
    fn external_ip(&self) -> String;
    /// All Tasks, or those of a domain.
    fn tasks(&self, domain: Option<&str>) -> Vec<TaskRecord>;
    /// One Task.
    fn task(&self, guid: &str) -> Done<TaskRecord>;
    /// How far its container is.
    fn container_of_task(&self, record: &TaskRecord) -> ContainerState;
    /// Asks for a Task.
    fn desire_task(&self, task: Task) -> impl Future<Output = Done<()>> + Send;
    /// Ends a Task.
    fn cancel_task(&self, guid: &str) -> impl Future<Output = Done<()>> + Send;
    /// Forgets a Task that has completed.
    fn delete_task(&self, guid: &str) -> impl Future<Output = Done<()>> + Send;
    /// All LRPs by record.
    fn lrps(&self) -> Vec<LrpRecord>;
    /// Asks for an LRP.
    fn desire_lrp(&self, lrp: LrpContainer) -> impl Future<Output = Done<()>> + Send;
    /// Ends its instance and keeps the record.
    fn stop_lrp(&self, app: &AppName) -> impl Future<Output = Done<()>> + Send;
    /// Removes it; returns when nothing of it is left.
    fn delete_lrp(&self, app: &AppName) -> impl Future<Output = Done<()>> + Send;
}
