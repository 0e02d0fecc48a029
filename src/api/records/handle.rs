//! Requests of these dialects to calls of the service, and back.

use super::record::{self, Container};
use super::route::Route;
use super::{Done, RecordError, RecordService, show};
use crate::api::http::server::Response;
use crate::api::http::{Body, Request};
use crate::cell::task::state::Refusal;
use serde_json::{Map, Value, json};

/// Longest body, in bytes.
const BODY_MAX: usize = 1 << 20;
/// Most containers of one request.
const LIST_MAX: usize = 100;

/// Answers a request for `route`; without one, what the path has instead.
pub async fn answer(
    service: &impl RecordService,
    route: Result<Route, &'static str>,
    request: &Request,
    body: &mut Body<'_>,
) -> Response {
    let route = match route {
        Ok(route) => route,
        Err("") => {
            let text = format!("no such path: /{}", request.path.join("/"));
            return refused(&RecordError::new(404, "ResourceNotFound", text));
        }
        Err(allowed) => {
            let text = format!("{} does not go here, only {allowed}", request.method);
            let response = refused(&RecordError::new(405, "InvalidRequest", text));
            return response.with("Allow", allowed);
        }
    };
    act(service, route, request, body).await.unwrap_or_else(|err| refused(&err))
}

fn refused(err: &RecordError) -> Response {
    Response::json(err.status, &err.view()).because(err.message.clone())
}

async fn act(
    service: &impl RecordService,
    route: Route,
    request: &Request,
    body: &mut Body<'_>,
) -> Done<Response> {
    let nothing = |status| Ok(Response::json(status, &json!({})));
    match route {
        Route::Tasks => {
            let tasks = service.tasks(request.query("domain"));
            let shown: Vec<Value> = tasks.iter().map(show::task).collect();
            Ok(Response::json(200, &shown))
        }
        Route::DesireTask => {
            let value = json_of(body).await?;
            let invalid = |text: String| RecordError::new(400, "InvalidTask", text);
            let Value::Object(object) = value else {
                return Err(invalid("Invalid field: a task is an object".into()));
            };
            let task = record::task(&object, &|path| service.stack_at(path));
            let task = task.map_err(|err| invalid(err.0))?;
            let ignored = task.extras.ignored.clone();
            service.desire_task(task).await?;
            Ok(saying(Response::json(201, &json!({})), &ignored))
        }
        Route::Task(guid) => Ok(Response::json(200, &show::task(&service.task(&guid)?))),
        Route::CancelTask(guid) => {
            service.cancel_task(&guid).await?;
            nothing(200)
        }
        Route::DeleteTask(guid) => {
            service.delete_task(&guid).await?;
            nothing(200)
        }
        Route::Containers => Ok(Response::json(200, &containers(service))),
        Route::Create => create(service, json_of(body).await?).await,
        Route::Container(guid) => {
            let found = containers(service).into_iter().find(|it| it["guid"] == *guid);
            let found = found.ok_or_else(|| unknown(&guid))?;
            Ok(Response::json(200, &found))
        }
        Route::Stop(guid) => {
            stop(service, &guid).await?;
            nothing(202)
        }
        Route::Delete(guid) => {
            delete(service, &guid).await?;
            nothing(200)
        }
    }
}

/// Everything that was asked for as a container.
fn containers(service: &impl RecordService) -> Vec<Value> {
    let address = service.external_ip();
    let tasks = service.tasks(None);
    let tasks = tasks.iter().filter(|record| show::is_container(record));
    let tasks = tasks.map(|record| show::task_container(record, service.container_of_task(record)));
    tasks.chain(service.lrps().iter().map(|lrp| show::lrp(lrp, &address))).collect()
}

/// One container, or a list of them: of a list those that could not be made are told, as the
/// executor does, and the others are made.
async fn create(service: &impl RecordService, value: Value) -> Done<Response> {
    let items = match value {
        Value::Object(object) => {
            let ignored = create_one(service, &object).await?;
            return Ok(saying(Response::json(201, &json!({})), &ignored));
        }
        Value::Array(items) if items.len() <= LIST_MAX => items,
        Value::Array(_) => {
            let text = format!("more than {LIST_MAX} containers in one request; send fewer");
            return Err(RecordError::new(400, "InvalidRecord", text));
        }
        _ => {
            let text = "a container is an object, or a list of them is sent";
            return Err(RecordError::new(400, "InvalidRecord", text));
        }
    };
    let (mut failures, mut ignored) = (Map::new(), Vec::new());
    for (n, item) in items.iter().enumerate() {
        let guid = item["guid"].as_str().filter(|guid| !guid.is_empty());
        let guid = guid.map_or_else(|| format!("number {n}"), str::to_owned);
        let made = match item {
            Value::Object(object) => create_one(service, object).await,
            _ => Err(RecordError::new(400, "InvalidRecord", "a container is an object")),
        };
        match made {
            Ok(names) => ignored.extend(names),
            Err(err) => drop(failures.insert(guid, err.view())),
        }
    }
    ignored.sort();
    ignored.dedup();
    Ok(saying(Response::json(201, &failures), &ignored))
}

/// Tells the client which fields it might as well not have sent, as Diego does not.
fn saying(response: Response, ignored: &[String]) -> Response {
    match ignored {
        [] => response,
        names => response.with("Terrarium-Ignored", names.join(", ")),
    }
}

/// The names of fields that are not heeded.
async fn create_one(
    service: &impl RecordService,
    object: &Map<String, Value>,
) -> Done<Vec<String>> {
    let invalid = |text: String| match text.starts_with("container limits") {
        true => RecordError::new(400, "LimitsInvalid", text),
        false => RecordError::new(400, "InvalidRecord", text),
    };
    if object.get("guid").is_none_or(|guid| guid.is_null() || guid == "") {
        return Err(RecordError::new(400, "GuidNotSpecified", "container guid not specified"));
    }
    let wanted = record::container(object, &|path| service.stack_at(path));
    let taken = |guid: &str| containers(service).iter().any(|it| it["guid"] == *guid);
    let not_available =
        || RecordError::new(409, "ContainerGuidNotAvailable", "container guid not available");
    let wanted = wanted.map_err(|err| invalid(err.0))?;
    let ignored = match &wanted {
        Container::Task(task) => task.extras.ignored.clone(),
        Container::Lrp(lrp) => lrp.extras.ignored.clone(),
    };
    let done = match wanted {
        Container::Task(task) if taken(&task.guid) => Err(not_available()),
        Container::Lrp(lrp) if taken(&lrp.guid) => Err(not_available()),
        Container::Task(task) => match service.desire_task(*task).await {
            Err(err) if err.name == "TaskGuidAlreadyExists" => Err(not_available()),
            done => done,
        },
        Container::Lrp(lrp) => service.desire_lrp(*lrp).await,
    };
    done.map(|()| ignored)
}

async fn stop(service: &impl RecordService, guid: &str) -> Done<()> {
    match find(service, guid)? {
        Found::Lrp(app) => service.stop_lrp(&app).await,
        // What has ended need not be stopped.
        Found::Task => match service.cancel_task(guid).await {
            Err(err) if err.name == INVALID => Ok(()),
            done => done,
        },
    }
}

async fn delete(service: &impl RecordService, guid: &str) -> Done<()> {
    match find(service, guid)? {
        Found::Lrp(app) => service.delete_lrp(&app).await,
        Found::Task => {
            stop(service, guid).await?;
            service.delete_task(guid).await
        }
    }
}

/// Diego's name of what a Task is not in the state for.
const INVALID: &str = "InvalidStateTransition";

enum Found {
    Task,
    Lrp(crate::unit::AppName),
}

fn find(service: &impl RecordService, guid: &str) -> Done<Found> {
    if let Some(lrp) = service.lrps().into_iter().find(|lrp| lrp.container.guid == guid) {
        return Ok(Found::Lrp(lrp.app.name));
    }
    let tasks = service.tasks(None);
    let task = tasks.iter().find(|record| record.task.guid == guid);
    match task.filter(|record| show::is_container(record)) {
        Some(_) => Ok(Found::Task),
        None => Err(unknown(guid)),
    }
}

fn unknown(_guid: &str) -> RecordError {
    RecordError::new(404, "ContainerNotFound", "container not found")
}

async fn json_of(body: &mut Body<'_>) -> Done<Value> {
    let invalid = |text: String| RecordError::new(400, "InvalidJSON", text);
    let bytes = body.bytes(BODY_MAX).await.map_err(|err| invalid(err.to_string()))?;
    serde_json::from_slice(&bytes).map_err(|err| invalid(err.to_string()))
}

impl From<crate::cell::task::TaskError> for RecordError {
    /// The receptor's names where it has its own.
    fn from(err: crate::cell::task::TaskError) -> RecordError {
        use crate::cell::task::TaskError as T;
        let (status, name) = match &err {
            T::Refused(Refusal::Exists) => (409, "TaskGuidAlreadyExists"),
            T::Refused(Refusal::NotFound) => (404, "TaskNotFound"),
            T::Refused(Refusal::Transition { to: "RESOLVING" | "DELETED", .. }) => {
                (409, "TaskNotDeletable")
            }
            T::Refused(_) => (409, err.name()),
            T::TooMany => (409, err.name()),
            T::Failed(_) => (500, err.name()),
        };
        RecordError::new(status, name, err.to_string())
    }
}

#[cfg(test)]
mod tests;
