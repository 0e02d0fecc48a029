//! Requests to calls of the backend, and back.

use super::decode::json;
use super::refusal::Refusal;
use super::route::{Limit, NoRoute, Output, Route, Verb, route};
use super::{Garden, files, raw};
use crate::api::http::server::{Content, Handler, Hijacked, Response};
use crate::api::http::{Body, Request};
use crate::garden::{Session, Visit, Which};
use crate::model::garden::{
    BandwidthLimits, ContainerSpec, CpuLimits, Created, DiskLimits, Handles, MemoryLimits, Message,
    NetIn, NetOutRule, ProcessSpec, Property, Stop,
};
use serde::Serialize;
use smol::future;
use std::collections::BTreeSet;

type Answered = Result<Response, Refusal>;

impl Handler for Garden {
    async fn handle(&self, request: &Request, body: &mut Body<'_>) -> Response {
        let answered = match route(&request.method, &request.path) {
            Ok(Route::Container(handle, verb)) => {
                return self.about(&handle, verb, request, body).await;
            }
            Ok(Route::Ping) => self.backend.ping().await.map(|()| done()).map_err(Refusal::from),
            Ok(Route::Capacity) => {
                self.backend.capacity().await.map(|it| ok(&it)).map_err(Refusal::from)
            }
            Ok(Route::List) => {
                Ok(ok(&Handles { handles: self.backend.list(&filter(&request.query)) }))
            }
            Ok(Route::Create) => self.create(body).await,
            Ok(Route::BulkInfo) => Ok(ok(&self.backend.bulk_info(&handles(request)).await)),
            Ok(Route::BulkMetrics) => Ok(ok(&self.backend.bulk_metrics(&handles(request)).await)),
            Err(why) => Ok(nowhere(why)),
        };
        answered.unwrap_or_else(|refusal| refusal.answer())
    }
}

/// Plain text, as the Go server answers what is no request of its protocol.
fn nowhere(why: NoRoute) -> Response {
    match why {
        NoRoute::Path => Response::text(404, "404 page not found"),
        NoRoute::Method(allowed) => {
            Response::text(405, "Method Not Allowed").with("Allow", allowed)
        }
    }
}

/// `{}`: every client reads a value, also where there is nothing to say.
fn done() -> Response {
    ok(&serde_json::json!({}))
}

fn ok(value: &impl Serialize) -> Response {
    Response::json(200, value)
}

/// Every pair of the query is a property that must match; the first value of a name counts.
fn filter(query: &[(String, String)]) -> Vec<(String, String)> {
    let mut filter: Vec<(String, String)> = Vec::new();
    for (name, value) in query {
        if !filter.iter().any(|(known, _)| known == name) {
            filter.push((name.clone(), value.clone()));
        }
    }
    filter
}

/// The handles of a bulk call, each once, in order. Without a query at all it is about none.
fn handles(request: &Request) -> Vec<String> {
    let handles: BTreeSet<&str> = match request.query("handles") {
        None | Some("") => BTreeSet::new(),
        Some(handles) => handles.split(',').collect(),
    };
    handles.into_iter().map(str::to_owned).collect()
}

fn which(output: Output) -> Which {
    match output {
        Output::Stdout => Which::Stdout,
        Output::Stderr => Which::Stderr,
    }
}

impl Garden {
    /// One request on one container, which keeps it from going for as long as it takes.
    async fn about(
        &self,
        handle: &str,
        verb: Verb,
        request: &Request,
        body: &mut Body<'_>,
    ) -> Response {
        let query = |name| request.query(name).unwrap_or_default();
        let patience = self.settings.patience;
        let answered = match verb {
            Verb::Run => return self.raw(self.run(handle, body).await),
            Verb::Attach(process) => return self.raw(self.attach(handle, &process).await),
            Verb::Output(process, stream, output) => {
                return self.output(handle, &process, &stream, which(output));
            }
            Verb::StreamIn => {
                let place = (query("user"), query("destination"));
                files::take(&self.backend, handle, place, body, patience).await.map(|()| done())
            }
            Verb::StreamOut => {
                let place = (query("user"), query("source"));
                files::give(&self.backend, handle, place, body, patience).await
            }
            Verb::Destroy | Verb::SetGraceTime => self.unvisited(handle, verb, body).await,
            verb => match self.backend.visit(handle) {
                Ok(_visit) => self.visited(handle, verb, body).await,
                Err(err) => Err(err.into()),
            },
        };
        answered.unwrap_or_else(|refusal| refusal.answer())
    }

    async fn create(&self, body: &mut Body<'_>) -> Answered {
        let spec: ContainerSpec = json(body).await?;
        Ok(ok(&Created { handle: self.backend.create(spec).await? }))
    }

    /// What does not hold back the container's grace time.
    async fn unvisited(&self, handle: &str, verb: Verb, body: &mut Body<'_>) -> Answered {
        match verb {
            Verb::Destroy => self.backend.destroy(handle).await?,
            _ => self.backend.set_grace(handle, json(body).await?).await?,
        }
        Ok(done())
    }

    async fn visited(&self, handle: &str, verb: Verb, body: &mut Body<'_>) -> Answered {
        let backend = &self.backend;
        match verb {
            Verb::Info => return Ok(ok(&backend.info(handle).await?)),
            Verb::Metrics => return Ok(ok(&backend.metrics(handle).await?)),
            Verb::Properties => return Ok(ok(&backend.properties(handle)?)),
            Verb::Property(key) => {
                return Ok(ok(&Property { value: backend.property(handle, &key)? }));
            }
            Verb::Limits(limit) => return self.current_limits(handle, limit).await,
            Verb::SetLimits(limit) => return self.set_limits(handle, limit, body).await,
            Verb::NetIn => {
                let ports: NetIn = json(body).await?;
                return Ok(ok(&backend.net_in(handle, ports).await?));
            }
            Verb::NetOut => {
                let rule: NetOutRule = json(body).await?;
                backend.net_out(handle, &[rule]).await?;
            }
            Verb::BulkNetOut => {
                let rules: Vec<NetOutRule> = json(body).await?;
                backend.net_out(handle, &rules).await?;
            }
            Verb::Stop => {
                let stop: Stop = json(body).await?;
                backend.stop(handle, stop.kill).await?;
            }
            Verb::SetProperty(key) => {
                let property: Property = json(body).await?;
                backend.set_property(handle, &key, &property.value).await?;
            }
            Verb::RemoveProperty(key) => backend.remove_property(handle, &key).await?,
            Verb::Destroy
            | Verb::SetGraceTime
            | Verb::StreamIn
            | Verb::StreamOut
            | Verb::Run
            | Verb::Attach(_)
            | Verb::Output(..) => unreachable!("`about` has dealt with it"),
        }
        Ok(done())
    }

    async fn current_limits(&self, handle: &str, limit: Limit) -> Answered {
        let limits = self.backend.limits(handle).await?;
        Ok(match limit {
            Limit::Bandwidth => ok(&limits.bandwidth),
            Limit::Cpu => ok(&limits.cpu),
            Limit::Disk => ok(&limits.disk),
            Limit::Memory => ok(&limits.memory),
        })
    }

    async fn set_limits(&self, handle: &str, limit: Limit, body: &mut Body<'_>) -> Answered {
        let backend = &self.backend;
        Ok(match limit {
            Limit::Bandwidth => {
                ok(&backend.set_bandwidth(handle, json::<BandwidthLimits>(body).await?).await?)
            }
            Limit::Cpu => ok(&backend.set_cpu(handle, json::<CpuLimits>(body).await?).await?),
            Limit::Disk => ok(&backend.set_disk(handle, json::<DiskLimits>(body).await?).await?),
            Limit::Memory => {
                ok(&backend.set_memory(handle, json::<MemoryLimits>(body).await?).await?)
            }
        })
    }

    async fn run(&self, handle: &str, body: &mut Body<'_>) -> Answered {
        let visit = self.backend.visit(handle)?;
        let spec: ProcessSpec = json(body).await?;
        let session = self.backend.run(handle, spec).await?;
        Ok(self.control(201, session, visit))
    }

    async fn attach(&self, handle: &str, process: &str) -> Answered {
        let visit = self.backend.visit(handle)?;
        let session = self.backend.attach(handle, process).await?;
        Ok(self.control(200, session, visit))
    }

    /// The answer that turns into a control connection.
    fn control(&self, status: u16, session: Session, visit: Visit) -> Response {
        let (settings, room) = (self.settings, self.room.clone());
        let run = move |stream: Hijacked| -> future::Boxed<()> {
            Box::pin(async move {
                let _visit = visit;
                let first = Message {
                    process_id: Some(session.process_id.clone()),
                    stream_id: Some(session.stream_id.clone()),
                    ..Message::default()
                };
                let order = |order| session.order(order);
                raw::control(stream, first, order, session.exit(), (room, settings)).await;
            })
        };
        raw_head(status, run).with("Content-Type", "application/json")
    }

    /// The answer that turns into an output. A stream that is not there is one that has ended, and
    /// so is one of a container that is not there.
    fn output(&self, handle: &str, process: &str, stream: &str, which: Which) -> Response {
        let settings = self.settings;
        let visit = self.backend.visit(handle);
        let listener = self.backend.output(handle, process, stream, which);
        let run = move |stream: Hijacked| -> future::Boxed<()> {
            Box::pin(async move {
                let _visit = visit;
                let next = || async { listener.as_ref()?.next().await };
                raw::output(stream, next, settings).await;
            })
        };
        raw_head(200, run)
    }

    fn raw(&self, answered: Answered) -> Response {
        answered.unwrap_or_else(|refusal| refusal.raw_answer(self.settings))
    }
}

/// What the Go client must see to take the connection over: a body that is said to be chunked, and
/// is not.
fn raw_head(
    status: u16,
    run: impl FnOnce(Hijacked) -> future::Boxed<()> + Send + 'static,
) -> Response {
    Response::new(status, Content::Hijack(Box::new(run))).with("Transfer-Encoding", "chunked")
}

#[cfg(test)]
mod tests;
