//! Watching, in the local dialect: events, explanations and figures.

use super::handle::{flag, invalid, number};
use super::{ErrorKind, Served, ServiceError};
use crate::api::http::Request;
use crate::api::http::server::{Content, Response};
use crate::api::{openmetrics, sse};
use crate::model::event::{From, Heard};
use crate::model::explain::ExplainView;
use crate::model::metrics::{CellFigures, InstanceFigures};
use crate::unit::AppName;
use serde_json::{Value, json};
use smol::stream::{self, StreamExt};
use std::collections::BTreeMap;

/// What the dialect needs to be watched by.
pub trait WatchService: Send + Sync {
    /// Events from there on; `follow`: also those to come, until the client is too slow or the daemon
    /// ends.
    fn events(
        &self,
        from: From,
        follow: bool,
    ) -> impl Future<Output = Served<stream::Boxed<Heard>>> + Send;
    /// What is the matter with an app, one of its processes, or one instance.
    fn explain(
        &self,
        name: &AppName,
        process: Option<&str>,
        index: Option<u32>,
    ) -> impl Future<Output = Served<ExplainView>> + Send;
    /// All figures.
    fn figures(&self) -> impl Future<Output = Served<CellFigures>> + Send;
}

/// Answers GET events. The query: `since`, an id, `oldest`, or milliseconds since 1970; `follow`,
/// which is true unless it says otherwise. `Last-Event-ID` goes before `since`.
pub(super) async fn events(service: &impl WatchService, request: &Request) -> Served<Response> {
    let follow = request.query("follow").is_none() || flag(request, "follow")?;
    let heard = service.events(from(request)?, follow).await?;
    let pieces = heard.map(|heard| Ok(encode(&heard))).boxed();
    let response = Response::new(200, Content::Stream(pieces));
    Ok(response.with("Content-Type", "text/event-stream").with("Cache-Control", "no-store"))
}

/// Where a client begins.
fn from(request: &Request) -> Served<From> {
    let id = |text: &str| text.parse().map(From::After).map_err(|err: String| invalid(&err));
    match (request.headers.get("last-event-id"), request.query("since")) {
        (Some(last), _) if !last.is_empty() => id(last),
        (_, None) => Ok(From::Now),
        (_, Some("oldest")) => Ok(From::Oldest),
        (_, Some(since)) => match since.parse() {
            Ok(ms) => Ok(From::Time(ms)),
            Err(_) => id(since),
        },
    }
}

/// One event on the wire; its time is a member of the payload.
fn encode(heard: &Heard) -> Vec<u8> {
    match heard {
        Heard::Event(event) => {
            let mut data = event.data.clone();
            if let Value::Object(members) = &mut data {
                members.insert("time_ms".into(), event.time_ms.into());
            }
            sse::encode(Some(&event.id.to_string()), &event.event, &data.to_string())
        }
        Heard::Gap { after, missed } => {
            let data = json!({ "after": after, "missed": missed });
            sse::encode(None, "gap", &data.to_string())
        }
    }
}

/// Answers GET explain.
pub(super) async fn explain(
    service: &impl WatchService,
    name: &AppName,
    request: &Request,
) -> Served<Response> {
    let index = number(request, "index")?;
    Ok(Response::json(200, &service.explain(name, request.query("process"), index).await?))
}

/// Answers GET /metrics.
pub(crate) async fn metrics(service: &impl WatchService) -> Served<Response> {
    let text = openmetrics::render(&service.figures().await?);
    let response = Response::new(200, Content::Full(text.into_bytes()));
    Ok(response.with("Content-Type", openmetrics::CONTENT_TYPE))
}

/// Answers GET container_metrics, as Diego's rep does; `known`: guids that clients have for LRPs, by the
/// guid here.
pub(in crate::api) async fn container_metrics(
    service: &impl WatchService,
    known: &BTreeMap<String, String>,
) -> Served<Response> {
    let figures = service.figures().await?;
    let lrps: Vec<Value> = figures.instances.iter().map(|one| lrp(one, known)).collect();
    let task = |(guid, one): &(String, InstanceFigures)| json!({ "task_guid": guid, "metrics": measured(one, guid) });
    let tasks: Vec<Value> = figures.tasks.iter().map(task).collect();
    Ok(Response::json(200, &json!({ "cell_id": figures.cell_id, "lrps": lrps, "tasks": tasks })))
}

/// One instance under the rep's names.
fn lrp(one: &InstanceFigures, known: &BTreeMap<String, String>) -> Value {
    let guid = one.guid.to_string();
    let guid = known.get(&guid).cloned().unwrap_or(guid);
    json!({
        "process_guid": guid,
        "index": one.index,
        "instance_guid": one.handle,
        "metrics": measured(one, &guid),
    })
}

fn measured(one: &InstanceFigures, guid: &str) -> Value {
    let (received, sent) = one.traffic.unwrap_or_default();
    json!({
        "metric_guid": guid,
        "cpu_usage_fraction": one.cpu.hundredths() as f64 / 10_000.0,
        "disk_usage_bytes": one.disk_bytes,
        "disk_quota_bytes": one.disk_quota_bytes,
        "memory_usage_bytes": one.memory_bytes,
        "memory_quota_bytes": one.memory_quota_bytes,
        "container_age_ns": one.age_ns,
        "rx_bytes": received,
        "tx_bytes": sent,
    })
}

/// Answers `GET /metrics` and nothing else: for a listener that others than the box's user reach.
pub struct MetricsOnly<S>(pub S);

impl<S: WatchService> crate::api::http::server::Handler for MetricsOnly<S> {
    async fn handle(&self, request: &Request, _body: &mut crate::api::http::Body<'_>) -> Response {
        let path: Vec<&str> = request.path.iter().map(String::as_str).collect();
        match (path.as_slice(), request.method.as_str()) {
            (["metrics"], "GET" | "HEAD") => {
                metrics(&self.0).await.unwrap_or_else(|err: ServiceError| {
                    Response::text(err.kind.status(), &err.message)
                })
            }
            (["metrics"], _) => {
                Response::text(405, "only GET is answered here").with("Allow", "GET, HEAD")
            }
            _ => Response::text(ErrorKind::NotFound.status(), "nothing is here but /metrics"),
        }
    }
}
