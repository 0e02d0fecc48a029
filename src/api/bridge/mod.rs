//! What a cloud controller, its router and its cells speak to: the routes of Diego's stager, nsync,
//! tps, file server and uploader, and those of receptor and rep that are not [`super::records`]'.
//!
//! | component | method | path | body | answer |
//! |---|---|---|---|---|
//! | stager | PUT | `/v1/staging/G` | StagingRequestFromCC | 202 |
//! | | DELETE | `/v1/staging/G` | | 202 |
//! | | POST | `/v1/staging/G/completed` | the end of a Task | 200 |
//! | nsync | PUT | `/v1/apps/G` | DesireAppRequestFromCC | 202 |
//! | | DELETE | `/v1/apps/G`, `/v1/apps/G/index/I` | | 202 |
//! | | POST | `/v1/tasks` | TaskRequestFromCC | 202 |
//! | | DELETE | `/v1/tasks/G` | | 202 |
//! | tps | GET | `/v1/actual_lrps/G`, `/v1/actual_lrps/G/stats` | | list of LRPInstance |
//! | | GET | `/v1/bulk_actual_lrp_status?guids=` | | lists by guid |
//! | files | GET, HEAD | `/v1/static/PATH` | | a file |
//! | uploader | POST | `/v1/droplet/G`, `/v1/build_artifacts/G` | a file | 201, 200 |
//! | receptor | | `/v1/{desired_lrps,actual_lrps,domains,cells,tasks,events,version}` | | |
//! | rep | | `/{ping,state,work,evacuate,sim/reset}`, `/container_metrics`, `/v1/lrps/G/instances/I{,/stop}`, `/v1/tasks/G/cancel` | | |
//! | bbs | POST | `/bbs/v1/...`, see [`super::bbs`] | protobuf | protobuf |
//!
//! Each was a server of its own, and some of their paths are the same: before each path may stand the
//! component's name, `/nsync/v1/tasks`. Without it a path is the component's that stands further up in
//! the table; on the daemon's own socket the paths of [`super::apps`] and [`super::records`] go first.

pub mod desired;
mod events;
mod receptor;
mod rep;
mod route;
mod served;

pub use route::{Place, Route, route};

use super::apps::cell::CellService;
use super::apps::watch::WatchService;
use super::bbs;
use super::http::server::{Content, Handler, Response};
use super::http::{Body, Request, pages};
use super::records::{self, RecordError, RecordService};
use crate::bridge::{Bridge, Reply};
use serde_json::{Value, json};

/// Longest body of a request, in bytes: environments may be large.
const BODY_MAX: usize = 4 << 20;

/// What has a bridge behind it.
pub trait Bridged: Send + Sync {
    /// The bridge; `None`: nothing of it is served.
    fn bridge(&self) -> Option<&Bridge>;
}

/// Answers the bridge's routes and nothing else: for a listener of its own.
pub struct OnPort<S>(pub S);

impl<S: Bridged + RecordService + WatchService + CellService> Handler for OnPort<S> {
    async fn handle(&self, request: &Request, body: &mut Body<'_>) -> Response {
        if let Some(refused) = pages::refusal(request) {
            return refused;
        }
        match route(&request.method, &request.path, Place::Port) {
            Some(found) => answer(&self.0, found, request, body).await,
            None => refused(&no_path(request)),
        }
    }
}

/// Answers a request for `found`; without one, what the path has instead.
pub async fn answer<S: Bridged + RecordService + WatchService + CellService>(
    service: &S,
    found: Result<Route, &'static str>,
    request: &Request,
    body: &mut Body<'_>,
) -> Response {
    let route = match found {
        Ok(route) => route,
        Err("") => return refused(&no_path(request)),
        Err(allowed) => {
            let text = format!("{} does not go here, only {allowed}", request.method);
            return refused(&RecordError::new(405, "InvalidRequest", text)).with("Allow", allowed);
        }
    };
    let Some(bridge) = service.bridge() else { return refused(&no_path(request)) };
    match route {
        Route::Stage(guid) => with_json(body, async |value| bridge.stage(&guid, value).await).await,
        Route::StopStaging(guid) => plain(bridge.stop_staging(&guid).await),
        Route::Staged(guid) => {
            with_json(body, async |value| bridge.staged(&guid, value).await).await
        }
        Route::Desire(guid) => {
            with_json(body, async |value| bridge.desire(&guid, value).await).await
        }
        Route::StopApp(guid) => plain(bridge.stop_app(&guid).await),
        Route::KillIndex(guid, index) => plain(bridge.kill_index(&guid, &index).await),
        Route::RunTask => with_json(body, async |value| bridge.run_task(value).await).await,
        Route::StopTask(guid) => plain(bridge.stop_task(&guid).await),
        Route::Status(status) => plain(tps(bridge, status, request).await),
        Route::File(names) => served::file(bridge, names, request).await,
        Route::Upload(is_droplet) => served::upload(bridge, is_droplet, request, body).await,
        Route::Receptor(what) => {
            let done = receptor::answer(service, bridge, what, request, body).await;
            done.unwrap_or_else(|err| refused(&err))
        }
        Route::Tasks(path) => {
            let route = records::route(&request.method, &path);
            records::answer(service, route, request, body).await
        }
        Route::Rep(what) => rep::answer(service, bridge, what, body).await,
        Route::Bbs(path) => bbs::answer(service, &path, request, body).await,
    }
}

/// What is asked about how apps are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Status {
    /// One app's instances.
    Instances(String),
    /// The same with figures.
    Stats(String),
    /// Many apps' instances.
    Bulk,
}

async fn tps(bridge: &Bridge, status: Status, request: &Request) -> Reply {
    let Some(_busy) = bridge.enter() else {
        return Reply::refused(503, "too many requests for status at a time");
    };
    match status {
        Status::Instances(guid) => bridge.instances(&guid),
        Status::Stats(_) if request.headers.get("authorization").is_none() => {
            Reply::refused(401, "the header Authorization is missing")
        }
        Status::Stats(guid) => bridge.stats(&guid).await,
        Status::Bulk => bridge.bulk(request.query("guids")),
    }
}

fn no_path(request: &Request) -> RecordError {
    let text = format!("no such path: /{}", request.path.join("/"));
    RecordError::new(404, "ResourceNotFound", text)
}

fn refused(err: &RecordError) -> Response {
    Response::json(err.status, &err.view()).because(err.message.clone())
}

/// Nothing but a status.
fn status(status: u16) -> Response {
    Response::new(status, Content::Full(Vec::new()))
}

fn plain(reply: Reply) -> Response {
    let response = match &reply.body {
        Some(body) => Response::json(reply.status, body),
        None => status(reply.status),
    };
    match reply.why {
        Some(why) => response.because(why),
        None => response,
    }
}

async fn with_json(body: &mut Body<'_>, act: impl AsyncFnOnce(Value) -> Reply) -> Response {
    match json_of(body).await {
        Ok(value) => plain(act(value).await),
        Err(err) => {
            let text = err.message;
            Response::json(400, &json!({ "error": { "message": text } })).because(text)
        }
    }
}

async fn json_of(body: &mut Body<'_>) -> Result<Value, RecordError> {
    let invalid = |text: String| RecordError::new(400, "InvalidJSON", text);
    let bytes = body.bytes(BODY_MAX).await.map_err(|err| invalid(err.to_string()))?;
    serde_json::from_slice(&bytes).map_err(|err| invalid(err.to_string()))
}
