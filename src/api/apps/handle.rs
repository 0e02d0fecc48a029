//! Requests of the local dialect to calls of the service, and back.

use super::cell::{self, CellService};
use super::history::{self, HistoryService};
use super::images::{self, ImageService};
use super::route::{NoRoute, Route, Verb, route};
use super::source::{self, SourceService};
use super::watch::{self, WatchService};
use super::{
    APPLY_MAX, AppService, ApplyRequest, Apps, ErrorKind, ExecRequest, LINES_MAX, LogQuery, Ping,
    ScaleRequest, Served, ServiceError, exec,
};
use crate::api::bridge::{self, Bridged, Place};
use crate::api::http::server::{Content, Handler, Response};
use crate::api::http::{Body, Request};
use crate::api::records::{self, RecordService};
use crate::unit::AppName;
use serde::Serialize;
use serde::de::DeserializeOwned;
use smol::stream::{self, StreamExt};

/// Longest body of every other request, in bytes.
pub(super) const BODY_MAX: usize = 256 * 1024;

impl<S> Handler for Apps<S>
where
    S: AppService + ImageService + RecordService + WatchService + CellService,
    S: HistoryService + SourceService + Bridged,
{
    async fn handle(&self, request: &Request, body: &mut Body<'_>) -> Response {
        if records::is_ours(&request.path) {
            let route = records::route(&request.method, &request.path);
            return records::answer(&self.service, route, request, body).await;
        }
        if let Some(found) = bridge::route(&request.method, &request.path, Place::Socket) {
            return bridge::answer(&self.service, found, request, body).await;
        }
        let result = match route(&request.method, &request.path) {
            Ok(Route::Ping) => Ok(ping()),
            Ok(Route::Box) => self.examine_box(request).await,
            Ok(Route::Check) => self.check(body).await,
            Ok(Route::List) => self.service.apps().await.map(|apps| Response::json(200, &apps)),
            Ok(Route::App(name, verb)) => self.about(&name, verb, request, body).await,
            Ok(Route::Source(name)) => source::take(&self.service, &name, body).await,
            Ok(Route::History(name, verb)) => {
                history::about(&self.service, &name, verb, body).await
            }
            Ok(Route::Exec(name, process, index)) => {
                self.exec(&name, &process, index, request, body).await
            }
            Ok(Route::Afresh(name, process, index)) => {
                let done = self.service.restart_instance(&name, &process, index).await;
                done.map(|()| Response::json(200, &serde_json::json!({})))
            }
            Ok(Route::Events) => watch::events(&self.service, request).await,
            Ok(Route::Explain(name)) => watch::explain(&self.service, &name, request).await,
            Ok(Route::Metrics) => watch::metrics(&self.service).await,
            Ok(Route::ContainerMetrics) => {
                watch::container_metrics(&self.service, &Default::default()).await
            }
            Ok(Route::Images) => {
                self.service.images().await.map(|images| Response::json(200, &images))
            }
            Ok(Route::Load) => {
                let (from, name) = (request.query("from"), request.query("name"));
                images::load(&self.service, from, name, body).await
            }
            Ok(Route::Image(image, verb)) => images::about(&self.service, &image, verb).await,
            Ok(Route::Collect) => match flag(request, "all") {
                Ok(all) => self.service.collect(all).await.map(|gone| Response::json(200, &gone)),
                Err(err) => Err(err),
            },
            Ok(Route::Cell(verb)) => cell::about(&self.service, verb, request).await,
            Err(NoRoute::Path) => {
                let path = request.path.join("/");
                Err(ServiceError::new(ErrorKind::NotFound, format!("no such path: /{path}")))
            }
            Err(NoRoute::Method(allowed)) => {
                let text = format!("{} does not go here, only {allowed}", request.method);
                let err = ServiceError::new(ErrorKind::Invalid, text);
                return Response::json(405, &err.view()).with("Allow", allowed);
            }
            Err(NoRoute::Wrong(err)) => Err(err),
        };
        result.unwrap_or_else(|err| {
            let view = err.view();
            Response::json(err.kind.status(), &view).because(view.message)
        })
    }
}

/// It is done, and there is nothing to tell.
pub(super) fn nothing() -> Response {
    Response::json(200, &serde_json::json!({}))
}

fn ping() -> Response {
    let version = env!("CARGO_PKG_VERSION").to_owned();
    Response::json(200, &Ping { version, pid: std::process::id() })
}

impl<S: AppService> Apps<S> {
    async fn about(
        &self,
        name: &AppName,
        verb: Verb,
        request: &Request,
        body: &mut Body<'_>,
    ) -> Served<Response> {
        let service = &self.service;
        match verb {
            Verb::Show => return Ok(Response::json(200, &service.app(name).await?)),
            Verb::Apply => {
                let wait = flag(request, "wait")?;
                let apply = ApplyRequest { wait, ..manifest(body).await? };
                return Ok(lines(service.apply(name, apply).await?));
            }
            Verb::Logs => {
                let query = log_query(request)?;
                return Ok(lines(service.logs(name, query).await?));
            }
            Verb::Scale => service.scale(name, json::<ScaleRequest>(body, BODY_MAX).await?).await?,
            Verb::Delete => service.delete(name).await?,
            Verb::Start => service.start(name).await?,
            Verb::Stop => service.stop(name, flag(request, "wait")?).await?,
            Verb::Restart => service.restart(name).await?,
        }
        Ok(nothing())
    }

    async fn examine_box(&self, request: &Request) -> Served<Response> {
        let containers = number(request, "containers")?.unwrap_or(usize::MAX);
        Ok(Response::json(200, &self.service.examine_box(containers).await?))
    }

    async fn check(&self, body: &mut Body<'_>) -> Served<Response> {
        self.service.check(manifest(body).await?).await?;
        Ok(Response::json(200, &serde_json::json!({})))
    }

    async fn exec(
        &self,
        name: &AppName,
        process: &str,
        index: u32,
        request: &Request,
        body: &mut Body<'_>,
    ) -> Served<Response> {
        if request.headers.get("upgrade") != Some(exec::PROTOCOL) {
            let err = invalid("exec needs `Connection: Upgrade` and `Upgrade: terrarium-exec`");
            return Ok(Response::json(426, &err.view()).with("Upgrade", exec::PROTOCOL));
        }
        let exec: ExecRequest = json(body, BODY_MAX).await?;
        if exec.argv.first().is_none_or(String::is_empty) {
            return Err(invalid("`argv` names no program"));
        }
        let session = self.service.exec(name, process, index, exec).await?;
        let run = Content::Hijack(Box::new(move |stream| Box::pin(exec::run(session, stream))));
        let response = Response::new(101, run).with("Connection", "Upgrade");
        Ok(response.with("Upgrade", exec::PROTOCOL))
    }
}

/// A line of JSON for each item, as it comes.
pub(super) fn lines<T: Serialize + 'static>(items: stream::Boxed<T>) -> Response {
    let pieces = items.map(|item| {
        let mut line = serde_json::to_vec(&item).map_err(std::io::Error::other)?;
        line.push(b'\n');
        Ok(line)
    });
    Response::new(200, Content::Stream(pieces.boxed())).with("Content-Type", "application/x-ndjson")
}

async fn manifest(body: &mut Body<'_>) -> Served<ApplyRequest> {
    let apply: ApplyRequest = json(body, APPLY_MAX).await?;
    match apply.file.is_absolute() {
        true => Ok(apply),
        false => Err(invalid("`file` is not an absolute path")),
    }
}

pub(super) async fn json<T: DeserializeOwned>(body: &mut Body<'_>, max: usize) -> Served<T> {
    let bytes = body.bytes(max).await.map_err(|err| invalid(&err.to_string()))?;
    serde_json::from_slice(&bytes).map_err(|err| invalid(&format!("the body is wrong: {err}")))
}

fn log_query(request: &Request) -> Served<LogQuery> {
    Ok(LogQuery {
        lines: number(request, "lines")?.unwrap_or(100).min(LINES_MAX),
        follow: flag(request, "follow")?,
        process: request.query("process").map(str::to_owned),
        index: number(request, "index")?,
        since_ms: number(request, "since")?,
        source: request.query("source").map(str::to_owned),
    })
}

pub(super) fn flag(request: &Request, key: &str) -> Served<bool> {
    match request.query(key) {
        None | Some("false") => Ok(false),
        Some("" | "true") => Ok(true),
        Some(_) => Err(invalid(&format!("`{key}` is neither true nor false"))),
    }
}

pub(super) fn number<T: std::str::FromStr>(request: &Request, key: &str) -> Served<Option<T>> {
    let text = request.query(key);
    let parsed = text.map(str::parse).transpose();
    parsed.map_err(|_| invalid(&format!("`{key}` is not a number that will do")))
}

pub(super) fn invalid(message: &str) -> ServiceError {
    ServiceError::new(ErrorKind::Invalid, message)
}

#[cfg(test)]
mod tests;
