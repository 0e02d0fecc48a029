//! Apps and one-off tasks that a controller asks for.

use super::recipe::{self, PORT, SshKeys, ports_of, routes};
use super::request::{DesireApp, RunTask, read};
use super::stager::Undesired;
use super::{Bridge, Reply};
use crate::cell::task::TaskError;
use crate::cell::{CellError, Kind};
use crate::lifecycle::ssh_key::SshKey;
use crate::model::desired::{INSTANCES_MAX, LrpChange};
use serde_json::Value;

/// Why an app was not taken.
#[derive(Debug)]
pub(super) enum Unwanted {
    /// It will not do, whoever asks.
    Invalid(String),
    /// Something is in its way.
    Conflict(String),
    /// The box is not set up for apps of a controller.
    Unready(String),
    /// The records cannot be written.
    Failed(String),
}

impl From<CellError> for Unwanted {
    fn from(err: CellError) -> Unwanted {
        match err.kind {
            Kind::Invalid => Unwanted::Invalid(err.text),
            Kind::Conflict | Kind::NotFound => Unwanted::Conflict(err.text),
            _ => Unwanted::Failed(err.text),
        }
    }
}

impl Unwanted {
    pub(super) fn text(&self) -> &str {
        match self {
            Unwanted::Invalid(why)
            | Unwanted::Conflict(why)
            | Unwanted::Unready(why)
            | Unwanted::Failed(why) => why,
        }
    }
}

impl Bridge {
    /// PUT of an app: made, or changed as far as it can be changed.
    pub async fn desire(&self, guid: &str, body: Value) -> Reply {
        let desire: DesireApp = match read(body) {
            Ok(desire) => desire,
            Err(why) => return Reply::refused(400, why),
        };
        if desire.process_guid.is_empty() {
            let why =
                format!("the field `process_guid` is missing: for this path it is \"{guid}\"");
            return Reply::refused(400, why);
        }
        if desire.process_guid != guid {
            let why = format!("the process is {}, not {guid}", desire.process_guid);
            return Reply::refused(400, why);
        }
        // What is in the way may have gone in between, once.
        let done = match self.want(&desire).await {
            Err(Unwanted::Conflict(_)) => self.want(&desire).await,
            done => done,
        };
        match done {
            Ok(()) => Reply::new(202),
            Err(Unwanted::Invalid(why)) => Reply::refused(400, why),
            Err(Unwanted::Conflict(why)) => Reply::refused(409, why),
            Err(Unwanted::Unready(why) | Unwanted::Failed(why)) => Reply::refused(503, why),
        }
    }

    /// Makes an app, or changes it.
    pub(super) async fn want(&self, desire: &DesireApp) -> Result<(), Unwanted> {
        if desire.num_instances > INSTANCES_MAX {
            let why = format!("{} instances are more than {INSTANCES_MAX}", desire.num_instances);
            return Err(Unwanted::Invalid(why));
        }
        match self.0.cell.lrp(&desire.process_guid) {
            Some(_) => self.change(desire).await,
            None => self.make(desire).await,
        }
    }

    async fn make(&self, desire: &DesireApp) -> Result<(), Unwanted> {
        let site = self.site().await.map_err(Unwanted::Unready)?;
        let keys = match desire.allow_ssh {
            true => self.keys(&desire.process_guid).map_err(Unwanted::Failed)?,
            false => None,
        };
        let lrp =
            recipe::app(&site, desire, keys.as_ref()).map_err(|err| Unwanted::Invalid(err.0))?;
        let object = lrp.as_object().expect("recipes are objects");
        let lrp = self.read_lrp(object).map_err(Unwanted::Invalid)?;
        Ok(self.0.cell.desire_container(lrp).await?)
    }

    /// Keys that nobody has had; `None`: the box has no SSH server for containers.
    fn keys(&self, guid: &str) -> Result<Option<SshKeys>, String> {
        if !self.0.settings.ssh_server.is_file() {
            crate::warn!("bridge.no_ssh", lrp = guid);
            return Ok(None);
        }
        let (host, user) = (SshKey::fresh()?, SshKey::fresh()?);
        Ok(Some(SshKeys {
            private_key: user.pem(),
            authorized_key: user.public_line(),
            host_key: host.pem(),
            host_fingerprint: host.md5_fingerprint(),
        }))
    }

    async fn change(&self, desire: &DesireApp) -> Result<(), Unwanted> {
        // One that is here already may be of a program that asked less of its image.
        let ports = ports_of(desire).unwrap_or_else(|_| vec![PORT]);
        let routes = routes(desire, &ports).into_iter();
        let change = LrpChange {
            instances: Some(desire.num_instances),
            annotation: Some(desire.etag.clone()),
            routes: Some(routes.map(|(router, value)| (router, value.to_string())).collect()),
            // Such as the keys of its sshd, which a request does not name.
            keeps_routers: true,
        };
        Ok(self.0.cell.update_lrp(&desire.process_guid, change).await?)
    }

    /// DELETE of an app.
    pub async fn stop_app(&self, guid: &str) -> Reply {
        ended(self.0.cell.remove_lrp(guid).await)
    }

    /// DELETE of one index: a fresh instance takes it.
    pub async fn kill_index(&self, guid: &str, index: &str) -> Reply {
        match index.parse() {
            Ok(index) => ended(self.0.cell.retire(guid, index).await),
            Err(_) => Reply::refused(400, format!("`{}` is no index", index.escape_default())),
        }
    }

    /// POST of a one-off task. One that is there already is refused with 400, as Diego does.
    pub async fn run_task(&self, body: Value) -> Reply {
        let request: RunTask = match read(body) {
            Ok(request) => request,
            Err(why) => return Reply::refused(400, why),
        };
        let site = match self.site().await {
            Ok(site) => site,
            Err(why) => return Reply::refused(503, why),
        };
        let task = match recipe::task(&site, &request) {
            Ok(task) => task,
            Err(why) => return Reply::refused(400, why.0),
        };
        match self.desire_task(&task).await {
            Ok(()) => Reply::new(202),
            Err(Undesired::Task(TaskError::Failed(err))) => Reply::refused(503, err.text),
            Err(err) => Reply::refused(400, err.text()),
        }
    }

    /// DELETE of a one-off task: it is ended after the answer.
    pub async fn stop_task(&self, guid: &str) -> Reply {
        self.end_task(guid)
    }
}

fn ended(done: Result<(), CellError>) -> Reply {
    match done {
        Ok(()) => Reply::new(202),
        Err(err) if matches!(err.kind, Kind::NotFound | Kind::NotRunning) => {
            Reply::refused(404, err.text)
        }
        Err(err) => Reply::refused(503, err.text),
    }
}
