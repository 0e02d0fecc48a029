//! Stagings that a controller asks for.

use super::client::{self, Answered, NOTICE, Unanswered};
use super::request::{Annotation, Completed, DockerData, Staging, read};
use super::{Bridge, Reply, recipe, text, trust};
use crate::cell::task::TaskError;
use crate::cell::task::state::Refusal;
use crate::model::lrp::FileMount;
use serde_json::{Value, json};

/// The lifecycles.
const LIFECYCLES: [&str; 2] = ["buildpack", DOCKER];
const DOCKER: &str = "docker";

impl Bridge {
    /// PUT of a staging. One that is there already is fine.
    pub async fn stage(&self, guid: &str, body: Value) -> Reply {
        let request: Staging = match read(body) {
            Ok(request) => request,
            Err(why) => return Reply::refused(400, why),
        };
        if !LIFECYCLES.contains(&request.lifecycle.as_str()) {
            return Reply::refused(404, format!("unknown lifecycle `{}`", request.lifecycle));
        }
        let failed = |why: String| Reply {
            why: Some(why.clone()),
            ..Reply::with(500, json!({ "error": text::error(&why) }))
        };
        let site = match self.site().await {
            Ok(site) => site,
            Err(why) => return failed(why),
        };
        let task = match recipe::staging(&site, guid, &request) {
            Ok(task) => task,
            Err(why) => return failed(why.0),
        };
        let files = self.trusted(&request).await;
        match self.desire_task_with(&task, files).await {
            Ok(()) => Reply::new(202),
            Err(Undesired::Task(TaskError::Refused(Refusal::Exists))) => Reply::new(202),
            Err(err) => failed(err.text()),
        }
    }

    /// DELETE of a staging: it is ended after the answer.
    pub async fn stop_staging(&self, guid: &str) -> Reply {
        self.end_task(guid)
    }

    /// POST of a staging's end by the record store, which tries again while the answer is 503.
    pub async fn staged(&self, guid: &str, body: Value) -> Reply {
        let done: Completed = match read(body) {
            Ok(done) => done,
            Err(why) => return Reply::refused(400, why),
        };
        if done.task_guid != guid {
            let why = format!("the task is {}, not {guid}", done.task_guid);
            return Reply::refused(400, why);
        }
        let annotation = serde_json::from_str(&done.annotation).map_err(|err| err.to_string());
        let annotation: Annotation = match annotation.and_then(read) {
            Ok(annotation) => annotation,
            Err(why) => return Reply::refused(400, format!("its annotation: {why}")),
        };
        if !LIFECYCLES.contains(&annotation.lifecycle.as_str()) {
            return Reply::refused(404, format!("unknown lifecycle `{}`", annotation.lifecycle));
        }
        let to = match annotation.completion_callback.as_str() {
            "" => format!("/internal/staging/{guid}/completed"),
            url => url.to_owned(),
        };
        let body = text::outcome(&done).to_string().into_bytes();
        match self.tell(&to, body).await {
            Ok(Answered { status: 200, .. }) => Reply::new(200),
            Ok(Answered { status, .. }) => Reply::passed_on(status),
            Err(err) => Reply::refused(503, err.why),
        }
    }

    /// Tells the controller, or whoever has this URL. A path without a controller is nobody's: told.
    pub(super) async fn tell(&self, to: &str, body: Vec<u8>) -> Result<Answered, Unanswered> {
        // Nothing of the cell goes along: it may end while somebody is still being told.
        let (controller, certs) = (self.0.controller.clone(), self.0.settings.certs.clone());
        let to = to.to_owned();
        smol::unblock(move || match &controller {
            Some(controller) => controller.post(&to, &body, NOTICE),
            None if to.starts_with('/') => Ok(Answered { status: 200, body: Vec::new() }),
            None => client::post(&to, &certs, &body, NOTICE),
        })
        .await
    }

    /// What the builder of an image gets of the box's own settings.
    async fn trusted(&self, request: &Staging) -> Vec<FileMount> {
        let data = request.lifecycle_data.clone().filter(|_| request.lifecycle == DOCKER);
        let Some(Ok(data)) = data.map(read::<DockerData>) else { return Vec::new() };
        let (bridge, request) = (self.clone(), request.clone());
        smol::unblock(move || trust::files(&bridge.0.settings, &request, &data)).await
    }

    /// Asks for a Task that a recipe has made.
    pub(super) async fn desire_task(&self, task: &Value) -> Result<(), Undesired> {
        self.desire_task_with(task, Vec::new()).await
    }

    /// The same with files that no recipe can name.
    async fn desire_task_with(&self, task: &Value, files: Vec<FileMount>) -> Result<(), Undesired> {
        let object = task.as_object().expect("recipes are objects");
        let mut task = (self.0.reader.task)(&self.0.cell, object).map_err(Undesired::Invalid)?;
        task.extras.files.extend(files);
        self.0.cell.desire_task(task).await.map_err(Undesired::Task)
    }

    /// Ends a Task after the answer, as its controller does not wait for it.
    pub(super) fn end_task(&self, guid: &str) -> Reply {
        if self.0.cell.task(guid).is_err() {
            return Reply::refused(404, format!("there is no task {guid}"));
        }
        let (cell, guid) = (self.0.cell.clone(), guid.to_owned());
        smol::spawn(async move {
            match cell.cancel_task(&guid).await {
                Ok(()) | Err(TaskError::Refused(_)) => {}
                Err(err) => crate::error!("task.unchanged", task = guid, err = err),
            }
        })
        .detach();
        Reply::new(202)
    }
}

/// Why a Task was not taken.
pub(super) enum Undesired {
    /// Its record will not do.
    Invalid(String),
    /// The store says no.
    Task(TaskError),
}

impl Undesired {
    pub(super) fn text(&self) -> String {
        match self {
            Undesired::Invalid(why) => why.clone(),
            Undesired::Task(err) => err.to_string(),
        }
    }
}
