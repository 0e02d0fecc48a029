//! The cell's own routes, as Diego's rep has them. On one box there is no auction: work is what the
//! records say, and begun by whoever looks at them.

use super::{Bridged, json_of, refused, status};
use crate::api::apps::cell::CellService;
use crate::api::apps::watch::{self, WatchService};
use crate::api::http::Body;
use crate::api::http::server::{Content, Response};
use crate::api::records::{Done, RecordError, RecordService};
use crate::bridge::Bridge;
use crate::cell::Lrp;
use crate::cell::task::TaskError;
use crate::model::lrp::{ActualLrp, LrpState};
use crate::model::metrics::Amounts;
use crate::model::task::{TaskRecord, TaskState};
use serde_json::{Value, json};

/// What is asked of the cell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rep {
    /// Does the process live?
    Ping,
    /// What it has and does.
    State,
    /// Figures of its containers.
    Metrics,
    /// Work for it.
    Work,
    /// One instance shall end: LRP and instance.
    Stop(String, String),
    /// Internal routes and metric tags of one instance are these: LRP and instance.
    Update(String, String),
    /// A Task shall end.
    Cancel(String),
    /// It shall take nothing more, and end what it does.
    Evacuate,
    /// For simulated cells.
    Reset,
}

/// Answers.
pub async fn answer<S: Bridged + RecordService + WatchService + CellService>(
    service: &S,
    bridge: &Bridge,
    what: Rep,
    body: &mut Body<'_>,
) -> Response {
    let done = match what {
        Rep::Ping => Ok(ping(bridge)),
        Rep::State => state(service, bridge).await,
        Rep::Metrics => {
            let known = bridge.cell().lrps().into_iter();
            let known = known.map(|lrp| (lrp.name.to_string(), lrp.container.guid)).collect();
            watch::container_metrics(service, &known).await.map_err(of_service)
        }
        Rep::Work => work(service, bridge, body).await,
        Rep::Stop(guid, instance) => stop(bridge, &guid, &instance).await,
        Rep::Update(guid, instance) => update(bridge, (&guid, &instance), body).await,
        Rep::Cancel(guid) => {
            let cell = bridge.cell().clone();
            // What is not there need not end, and nobody waits for it.
            smol::spawn(async move {
                if let Err(TaskError::Failed(err)) = cell.cancel_task(&guid).await {
                    crate::error!("task.unchanged", task = guid, err = err);
                }
            })
            .detach();
            Ok(status(202))
        }
        Rep::Evacuate => match service.drain(None, false).await {
            Ok(_) => Ok(Response::json(202, &json!({ "ping_path": "/ping" }))),
            Err(err) => Err(of_service(err)),
        },
        Rep::Reset => Err(RecordError::new(500, "UnknownError", "not-a-simulation-rep")),
    };
    done.unwrap_or_else(|err| refused(&err))
}

fn of_service(err: crate::api::apps::ServiceError) -> RecordError {
    RecordError::new(err.kind.status(), "UnknownError", err.message)
}

/// GET ping. Diego's rep ends with its draining, and who waits for that asks until nobody answers.
fn ping(bridge: &Bridge) -> Response {
    match bridge.cell().drain_view() {
        Some(view) if view.state == "drained" => Response::new(503, Content::HangUp),
        _ => status(200),
    }
}

/// GET state; 503 while the cell takes nothing.
async fn state<S: RecordService + WatchService>(service: &S, bridge: &Bridge) -> Done<Response> {
    let figures = service.figures().await.map_err(of_service)?;
    if figures.self_check_failed {
        let text = "the cell cannot make containers; `terrarium status` tells why";
        return Err(RecordError::new(503, "UnknownError", text));
    }
    let cell = bridge.cell();
    let (needed, optional) = cell.tags();
    let stacks = cell.stacks().await;
    let set: serde_json::Map<String, Value> =
        stacks.into_iter().map(|stack| (stack, json!({}))).collect();
    let lrps: Vec<Value> = cell.lrps().iter().flat_map(lrps).collect();
    let tasks = service.tasks(None);
    // The others have no container: they wait for one, or had one.
    let working = tasks.iter().filter(|record| record.state == TaskState::Running);
    let tasks: Vec<Value> = working.map(task).collect();
    Ok(Response::json(
        200,
        &json!({
            "rep_url": "",
            "cell_id": cell.id(),
            "cell_index": 0,
            "RootFSProviders": {
                "docker": { "type": "arbitrary" },
                "preloaded": { "type": "fixed_set", "set": set },
            },
            "AvailableResources": resources(figures.remaining),
            "TotalResources": resources(figures.total),
            "LRPs": lrps,
            "Tasks": tasks,
            "StartingContainerCount": figures.starting,
            "Zone": cell.zone(),
            "Evacuating": cell.drain_view().is_some(),
            "VolumeDrivers": [],
            "PlacementTags": needed,
            "OptionalPlacementTags": optional,
            "ProxyMemoryAllocationMB": 0,
        }),
    ))
}

fn resources(amounts: Amounts) -> Value {
    json!({
        "MemoryMB": amounts.memory_bytes >> 20,
        "DiskMB": amounts.disk_bytes >> 20,
        "Containers": amounts.containers,
    })
}

fn lrps(lrp: &Lrp) -> Vec<Value> {
    let container = &lrp.container;
    let mib = |bytes: Option<crate::unit::Bytes>| bytes.map_or(0, |bytes| bytes.as_mib());
    let one = |one: &ActualLrp| {
        let place = one.place()?;
        Some(json!({
            "instance_guid": place.handle.to_string(),
            "process_guid": container.guid,
            "index": one.index,
            "domain": container.desired.as_ref().map(|facts| facts.domain.clone()),
            "PlacementTags": container.extras.placement_tags,
            "VolumeDrivers": container.extras.volume_drivers,
            "RootFs": container.rootfs.to_string(),
            "MemoryMB": mib(container.limits.memory),
            "DiskMB": mib(container.limits.disk),
            "MaxPids": container.limits.pids.unwrap_or_default(),
            "state": if matches!(one.state, LrpState::Running(_)) { "RUNNING" } else { "CLAIMED" },
        }))
    };
    lrp.instances.iter().filter_map(one).collect()
}

fn task(record: &TaskRecord) -> Value {
    let task = &record.task;
    let mib = |bytes: Option<crate::unit::Bytes>| bytes.map_or(0, |bytes| bytes.as_mib());
    json!({
        "TaskGuid": task.guid,
        "Domain": task.domain,
        "PlacementTags": task.extras.placement_tags,
        "VolumeDrivers": task.extras.volume_drivers,
        "RootFs": task.rootfs.to_string(),
        "MemoryMB": mib(task.limits.memory),
        "DiskMB": mib(task.limits.disk),
        "MaxPids": task.limits.pids.unwrap_or_default(),
        "state": record.state,
        "failed": record.failed,
    })
}

/// POST work: what the records know is worked on already; the rest is given back, and so is all of it
/// while the cell is drained.
async fn work<S: RecordService>(
    service: &S,
    bridge: &Bridge,
    body: &mut Body<'_>,
) -> Done<Response> {
    let mut wanted = json_of(body).await?;
    if !wanted.is_object() {
        return Err(RecordError::new(400, "InvalidJSON", "work is an object"));
    }
    let cell = bridge.cell();
    let named = wanted["cell_id"].as_str().unwrap_or_default();
    if !named.is_empty() && named != cell.id() {
        let text = "workload cell ID does not match this cell";
        return Err(RecordError::new(500, "UnknownError", text));
    }
    let text = |item: &Value, names: [&str; 2]| {
        let found = names.iter().find_map(|name| item[*name].as_str());
        found.unwrap_or_default().to_owned()
    };
    let is_closed = cell.drain_view().is_some();
    let knows_lrp = |item: &Value| {
        let lrp = cell.lrp(&text(item, ["process_guid", "ProcessGuid"]));
        let index = item["index"].as_u64().unwrap_or(u64::MAX);
        lrp.is_some_and(|lrp| index < u64::from(lrp.container.instances()))
    };
    let knows_task = |item: &Value| service.task(&text(item, ["TaskGuid", "task_guid"])).is_ok();
    let mut back = |name: &str, knows: &dyn Fn(&Value) -> bool| -> Vec<Value> {
        let items = wanted[name].take();
        let items = items.as_array().cloned().unwrap_or_default().into_iter();
        items.filter(|item| is_closed || !knows(item)).collect()
    };
    let failed = json!({
        "LRPs": back("LRPs", &knows_lrp),
        "Tasks": back("Tasks", &knows_task),
        "cell_id": cell.id(),
    });
    Ok(Response::json(200, &failed))
}

/// POST stop of one instance; a fresh one takes its index.
async fn stop(bridge: &Bridge, guid: &str, instance: &str) -> Done<Response> {
    if guid.is_empty() || instance.is_empty() {
        return Err(RecordError::new(400, "InvalidRequest", "a guid is missing"));
    }
    let index = index_of(bridge, guid, instance)?;
    let failed = |err: crate::cell::CellError| RecordError::new(500, "UnknownError", err.text);
    bridge.cell().retire(guid, index).await.map_err(failed)?;
    Ok(status(202))
}

/// The index that this instance of an LRP has.
fn index_of(bridge: &Bridge, guid: &str, instance: &str) -> Done<u32> {
    let lrp = bridge.cell().lrp(guid);
    let is_it =
        |one: &&ActualLrp| one.place().is_some_and(|place| place.handle.as_str() == instance);
    let found = lrp.as_ref().and_then(|lrp| lrp.instances.iter().find(is_it));
    let missing =
        || RecordError::new(500, "UnknownError", format!("container not found: {instance}"));
    Ok(found.ok_or_else(missing)?.index)
}

/// PUT of one instance. No router leads from container to container here, and figures bear the tags of
/// the record: what is asked for is looked at and taken, and changes nothing, which the log tells.
async fn update(
    bridge: &Bridge,
    (guid, instance): (&str, &str),
    body: &mut Body<'_>,
) -> Done<Response> {
    let wanted = json_of(body).await?;
    if !is_update(&wanted) {
        let text = "internal_routes is a list, and metric_tags an object";
        return Err(RecordError::new(400, "InvalidJSON", text));
    }
    if guid.is_empty() || instance.is_empty() {
        return Err(RecordError::new(400, "InvalidRequest", "a guid is missing"));
    }
    index_of(bridge, guid, instance)?;
    crate::info!("rep.update_not_heeded", lrp = guid, instance = instance);
    Ok(status(202))
}

fn is_update(wanted: &Value) -> bool {
    let none_or = |name: &str, is_it: fn(&Value) -> bool| {
        wanted.get(name).is_none_or(|value| value.is_null() || is_it(value))
    };
    wanted.is_object()
        && none_or("internal_routes", Value::is_array)
        && none_or("metric_tags", Value::is_object)
}
