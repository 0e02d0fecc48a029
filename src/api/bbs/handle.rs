//! Questions to what the cell does, and back.

use super::change::update;
use super::events;
use super::proto::{decode, encode};
use super::refusal::{Done, Refusal};
use super::route::{Ask, Route, Unary, route};
use super::show::{self, Here};
use super::tables::requests::EVENTS_OF;
use crate::api::apps::watch::WatchService;
use crate::api::bridge::Bridged;
use crate::api::http::server::{Content, Response};
use crate::api::http::{Body, Request, pages};
use crate::api::records::{record, show_task};
use crate::bridge::Bridge;
use crate::cell::{Kind, Lrp};
use crate::model::lrp::ActualLrp;
use crate::model::task::TaskRecord;
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;
use std::time::Duration;

/// Longest body, in bytes: environments may be large.
const BODY_MAX: usize = 4 << 20;
/// Of every message.
const CONTENT_TYPE: &str = "application/x-protobuf";

/// Answers a request for `path`, which is the request's own or the end of it.
pub async fn answer<S: Bridged + WatchService>(
    service: &S,
    path: &[String],
    request: &Request,
    body: &mut Body<'_>,
) -> Response {
    if let Some(refused) = pages::refusal(request) {
        return refused;
    }
    let (route, bridge) = match (route(&request.method, path), service.bridge()) {
        (Ok(route), Some(bridge)) => (route, bridge),
        (Err(""), _) | (Ok(_), None) => {
            return Response::text(404, &format!("no such path: /{}", path.join("/")));
        }
        (Err(allowed), _) => {
            let text = format!("{} does not go here, only {allowed}", request.method);
            return Response::text(405, &text).with("Allow", allowed);
        }
    };
    let bytes = match body.bytes(BODY_MAX).await {
        Ok(bytes) => bytes,
        Err(err) => return Response::text(err.status(), &err.to_string()),
    };
    match route {
        Route::Events(kind) => {
            let asked = decode(&EVENTS_OF, &bytes).map_err(Refusal::from);
            let stream = match asked {
                Ok(asked) => events::answer(service, bridge, kind, text(&asked, "cell_id")).await,
                Err(err) => Err(err),
            };
            // As the BBS: a stream has no place for an error.
            stream.unwrap_or_else(|err| Response::text(500, &err.message).because(err.message))
        }
        Route::Unary(unary) => told(service, bridge, unary, &bytes).await,
    }
}

async fn told<S: WatchService>(
    service: &S,
    bridge: &Bridge,
    unary: Unary,
    bytes: &[u8],
) -> Response {
    let mut ignored = Vec::new();
    let done = match decode(unary.request, bytes) {
        Ok(asked) => act(service, bridge, unary.ask, asked, &mut ignored).await,
        Err(err) => Err(err.into()),
    };
    let (value, why) = match done {
        Ok(value) => (value, None),
        Err(err) => (err.view(), Some(format!("{}: {}", err.kind, err.message))),
    };
    let response = Response::new(200, Content::Full(encode(unary.response, &value)))
        .with("Content-Type", CONTENT_TYPE);
    let response = match ignored.is_empty() {
        true => response,
        false => response.with("Terrarium-Ignored", ignored.join(", ")),
    };
    match why {
        _ if unary.ask.is_read() => response.only_read(),
        Some(why) => response.because(why),
        None => response,
    }
}

async fn act<S: WatchService>(
    service: &S,
    bridge: &Bridge,
    ask: Ask,
    asked: Map<String, Value>,
    ignored: &mut Vec<String>,
) -> Done<Value> {
    let cell = bridge.cell();
    let guid = text(&asked, "process_guid");
    let nothing = || Ok(json!({}));
    match ask {
        Ask::Ping => Ok(json!({ "available": true })),
        Ask::Domains => Ok(json!({ "domains": bridge.fresh() })),
        Ask::UpsertDomain => upsert(bridge, &asked),
        Ask::Cells => cells(service, bridge).await,
        Ask::Actuals => Ok(json!({ "actual_lrps": actuals(bridge, &asked) })),
        Ask::ActualsByGuids => {
            // Each once, however often it is named.
            let wanted: BTreeSet<String> = texts(&asked, "process_guids").into_iter().collect();
            let lrps = wanted.iter().filter_map(|guid| cell.lrp(guid));
            let shown: Vec<Value> = lrps.flat_map(|lrp| of_lrp(bridge, &lrp)).collect();
            Ok(json!({ "actual_lrps": shown }))
        }
        Ask::Groups => {
            let groups = actuals(bridge, &asked).into_iter().map(|one| json!({ "instance": one }));
            Ok(json!({ "actual_lrp_groups": groups.collect::<Vec<_>>() }))
        }
        Ask::Group => {
            let index = asked.get("index").cloned().unwrap_or(0.into());
            let lrp = cell.lrp(guid).ok_or_else(Refusal::missing)?;
            let found = of_lrp(bridge, &lrp).into_iter().find(|one| one["index"] == index);
            let found = found.ok_or_else(Refusal::missing)?;
            Ok(json!({ "actual_lrp_group": { "instance": found } }))
        }
        Ask::Retire => retire(bridge, &asked).await,
        Ask::Desireds => {
            let shown: Vec<Value> = lrps(bridge, &asked).iter().map(show::desired).collect();
            Ok(json!({ "desired_lrps": shown }))
        }
        Ask::Desired => {
            let lrp = cell.lrp(guid).ok_or_else(Refusal::missing)?;
            Ok(json!({ "desired_lrp": show::desired(&lrp) }))
        }
        Ask::Schedulings => {
            let shown: Vec<Value> = lrps(bridge, &asked).iter().map(show::scheduling).collect();
            Ok(json!({ "desired_lrp_scheduling_infos": shown }))
        }
        Ask::Scheduling => {
            let lrp = cell.lrp(guid).ok_or_else(Refusal::missing)?;
            Ok(json!({ "desired_lrp_scheduling_info": show::scheduling(&lrp) }))
        }
        Ask::Desire => {
            let lrp = bridge.read_lrp(&asked).map_err(Refusal::invalid)?;
            *ignored = lrp.extras.ignored.clone();
            let guid = lrp.guid.clone();
            match cell.desire_container(lrp).await {
                Err(err) if err.kind == Kind::Conflict && cell.lrp(&guid).is_some() => {
                    Err(Refusal::exists())
                }
                done => done.map_err(Refusal::from).and_then(|()| nothing()),
            }
        }
        Ask::Update => update(bridge, &asked).await,
        Ask::Remove => {
            cell.remove_lrp(guid).await?;
            nothing()
        }
        Ask::Tasks => {
            let (domain, cell_id) = (text(&asked, "domain"), text(&asked, "cell_id"));
            let all = cell.tasks((!domain.is_empty()).then_some(domain));
            let wanted = |it: &&TaskRecord| cell_id.is_empty() || it.cell_id == cell_id;
            let shown: Vec<Value> = all.iter().filter(wanted).map(show_task).collect();
            Ok(json!({ "tasks": shown }))
        }
        Ask::Task => Ok(json!({ "task": show_task(&cell.task(text(&asked, "task_guid"))?) })),
        Ask::DesireTask => {
            let task = record::task(&asked, &|path| cell.stack_at(path));
            let task = task.map_err(|err| Refusal::invalid(err.0))?;
            *ignored = task.extras.ignored.clone();
            cell.desire_task(task).await?;
            nothing()
        }
        Ask::CancelTask => {
            cell.cancel_task(text(&asked, "task_guid")).await?;
            nothing()
        }
        Ask::ResolvingTask => {
            cell.resolve_task(text(&asked, "task_guid")).await?;
            nothing()
        }
        Ask::DeleteTask => {
            cell.forget_task(text(&asked, "task_guid")).await?;
            nothing()
        }
        Ask::OfCell => Err(Refusal::invalid(
            "the cell of this box begins, ends and evacuates by itself and takes no other cell's \
             word; to end something use cancel, retire or remove, or `terrarium drain`",
        )),
    }
}

/// A text of a question; empty when it is not there.
pub(super) fn text<'a>(asked: &'a Map<String, Value>, name: &str) -> &'a str {
    asked.get(name).and_then(Value::as_str).unwrap_or_default()
}

fn texts(asked: &Map<String, Value>, name: &str) -> Vec<String> {
    let list = asked.get(name).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    list.iter().filter_map(Value::as_str).map(str::to_owned).collect()
}

/// The cell, as it is told.
pub(super) fn here(bridge: &Bridge) -> Here {
    let cell = bridge.cell();
    Here { cell_id: cell.id(), zone: cell.zone(), host: cell.external_ip().to_string() }
}

/// LRPs of a domain, of these guids, of these apps: what is not said is not asked for.
fn lrps(bridge: &Bridge, asked: &Map<String, Value>) -> Vec<Lrp> {
    let domain = text(asked, "domain");
    let (guids, apps) = (texts(asked, "process_guids"), texts(asked, "app_guids"));
    let is_wanted = |lrp: &Lrp| {
        let guid = &lrp.container.guid;
        let its = lrp.container.desired.as_ref().map_or("", |facts| facts.domain.as_str());
        (domain.is_empty() || its == domain)
            && (guids.is_empty() || guids.contains(guid))
            && (apps.is_empty() || apps.iter().any(|app| guid.starts_with(app.as_str())))
    };
    let mut all = bridge.cell().lrps();
    all.retain(is_wanted);
    all
}

fn of_lrp(bridge: &Bridge, lrp: &Lrp) -> Vec<Value> {
    let cell = bridge.cell();
    let inside = |one: &ActualLrp| one.place().map(|place| cell.address_of(place));
    show::actuals(lrp, &here(bridge), &inside)
}

fn actuals(bridge: &Bridge, asked: &Map<String, Value>) -> Vec<Value> {
    let (guid, cell_id) = (text(asked, "process_guid"), text(asked, "cell_id"));
    let lrps = match guid {
        "" => lrps(bridge, asked),
        guid => bridge.cell().lrp(guid).into_iter().collect(),
    };
    let domain = text(asked, "domain");
    let all = lrps.iter().flat_map(|lrp| of_lrp(bridge, lrp));
    let is_wanted = |one: &Value| {
        (cell_id.is_empty() || one["cell_id"] == cell_id)
            && (domain.is_empty() || one["domain"] == domain)
            && asked.get("index").is_none_or(|index| one["index"] == *index)
    };
    all.filter(is_wanted).collect()
}

async fn retire(bridge: &Bridge, asked: &Map<String, Value>) -> Done<Value> {
    let index = asked.get("index").map_or(Some(0), Value::as_u64);
    let index = index.and_then(|index| u32::try_from(index).ok());
    let index = index.ok_or_else(|| Refusal::invalid("Invalid field: index"))?;
    match bridge.cell().retire(text(asked, "process_guid"), index).await {
        Err(err) if err.kind == Kind::NotRunning => Err(Refusal::missing()),
        done => done.map_err(Refusal::from).map(|()| json!({})),
    }
}

/// 0 is for ever.
fn upsert(bridge: &Bridge, asked: &Map<String, Value>) -> Done<Value> {
    let domain = text(asked, "domain");
    if domain.is_empty() {
        return Err(Refusal::invalid("Invalid field: domain"));
    }
    let ttl = asked.get("ttl").and_then(Value::as_u64).filter(|ttl| *ttl > 0);
    match bridge.refresh(domain, ttl.map(Duration::from_secs)) {
        true => Ok(json!({})),
        false => {
            let text = "as many domains are remembered as may be; use fewer";
            Err(Refusal::new("ResourceConflict", text))
        }
    }
}

async fn cells<S: WatchService>(service: &S, bridge: &Bridge) -> Done<Value> {
    let figures = service.figures().await;
    let figures = figures.map_err(|err| Refusal::new("UnknownError", err.message))?;
    let cell = bridge.cell();
    let (needed, optional) = cell.tags();
    let one = json!({
        "cell_id": cell.id(),
        "zone": cell.zone(),
        "capacity": {
            "memory_mb": figures.total.memory_bytes >> 20,
            "disk_mb": figures.total.disk_bytes >> 20,
            "containers": figures.total.containers,
        },
        "rootfs_providers": [
            { "name": "docker" },
            { "name": "preloaded", "properties": cell.stacks().await },
        ],
        "placement_tags": needed,
        "optional_placement_tags": optional,
    });
    Ok(json!({ "cells": [one] }))
}
