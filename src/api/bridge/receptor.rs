//! The record store's own routes, as the receptor of 2015 had them: desired and actual LRPs, domains,
//! cells.

use super::{Bridged, desired, events, json_of, status};
use crate::api::apps::watch::WatchService;
use crate::api::http::server::Response;
use crate::api::http::{Body, Request};
use crate::api::records::{Done, RecordError};
use crate::bridge::{Bridge, show};
use crate::cell::{CellError, Kind, Lrp};
use serde_json::{Map, Value, json};
use std::time::Duration;

/// What is asked of the record store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Receptor {
    /// Every DesiredLRP, or those of a domain.
    DesiredAll,
    /// A new one.
    Desire,
    /// One of them.
    Desired(String),
    /// It shall be otherwise.
    Update(String),
    /// It shall go.
    Remove(String),
    /// Every instance, or those of a domain.
    ActualAll,
    /// Those of one LRP.
    Actuals(String),
    /// One of them: guid and index.
    Actual(String, String),
    /// It shall end.
    Kill(String, String),
    /// The fresh domains.
    Domains,
    /// A domain is fresh.
    Refresh(String),
    /// The cells: this one.
    Cells,
    /// What happens.
    Events,
    /// Which program this is.
    Version,
}

/// Answers.
pub async fn answer<S: Bridged + WatchService>(
    service: &S,
    bridge: &Bridge,
    what: Receptor,
    request: &Request,
    body: &mut Body<'_>,
) -> Done<Response> {
    let cell = bridge.cell();
    let in_domain = || {
        let wanted = request.query("domain");
        let all = cell.lrps().into_iter();
        all.filter(move |lrp| wanted.is_none_or(|domain| domain_of(lrp) == domain))
    };
    let actuals = |lrp: &Lrp| show::actuals(lrp, &cell.id(), &cell.external_ip().to_string());
    match what {
        Receptor::DesiredAll => {
            let shown: Vec<Value> = in_domain().map(|lrp| desired::encode(&lrp)).collect();
            Ok(Response::json(200, &shown))
        }
        Receptor::Desire => {
            let object = object(json_of(body).await?)?;
            let lrp = bridge.read_lrp(&object).map_err(invalid)?;
            let guid = lrp.guid.clone();
            match cell.desire_container(lrp).await {
                Ok(()) => Ok(status(201)),
                Err(err) if err.kind == Kind::Conflict && cell.lrp(&guid).is_some() => {
                    Err(RecordError::new(409, "DesiredLRPAlreadyExists", err.text))
                }
                Err(err) => Err(of_lrp(err)),
            }
        }
        Receptor::Desired(guid) => Ok(Response::json(200, &desired::encode(&find(bridge, &guid)?))),
        Receptor::Update(guid) => {
            let change = desired::change(&object(json_of(body).await?)?);
            let change = change.map_err(|err| invalid(err.0))?;
            cell.update_lrp(&guid, change).await.map_err(of_lrp)?;
            Ok(status(204))
        }
        Receptor::Remove(guid) => {
            cell.remove_lrp(&guid).await.map_err(of_lrp)?;
            Ok(status(204))
        }
        Receptor::ActualAll => {
            let shown: Vec<Value> = in_domain().flat_map(|lrp| actuals(&lrp)).collect();
            Ok(Response::json(200, &shown))
        }
        Receptor::Actuals(guid) => {
            let shown = cell.lrp(&guid).map(|lrp| actuals(&lrp)).unwrap_or_default();
            Ok(Response::json(200, &shown))
        }
        Receptor::Actual(guid, index) => {
            let index = number(&index)?;
            let lrp = cell.lrp(&guid).ok_or_else(|| no_index(&guid, index))?;
            let found = actuals(&lrp).into_iter().find(|one| one["index"] == index);
            Ok(Response::json(200, &found.ok_or_else(|| no_index(&guid, index))?))
        }
        Receptor::Kill(guid, index) => {
            let index = number(&index)?;
            match cell.retire(&guid, index).await {
                Ok(()) => Ok(status(204)),
                Err(err) if matches!(err.kind, Kind::NotFound | Kind::NotRunning) => {
                    Err(no_index(&guid, index))
                }
                Err(err) => Err(of_lrp(err)),
            }
        }
        Receptor::Domains => Ok(Response::json(200, &bridge.fresh())),
        Receptor::Refresh(domain) => refresh(bridge, &domain, request),
        Receptor::Cells => cells(service, bridge).await,
        Receptor::Events => events::answer(service, bridge).await,
        Receptor::Version => {
            Ok(Response::json(200, &json!({ "release": env!("CARGO_PKG_VERSION") })))
        }
    }
}

fn domain_of(lrp: &Lrp) -> &str {
    lrp.container.desired.as_ref().map_or("", |facts| facts.domain.as_str())
}

fn find(bridge: &Bridge, guid: &str) -> Done<Lrp> {
    let unknown = || {
        let text = format!("there is no DesiredLRP {guid}");
        RecordError::new(404, "DesiredLRPNotFound", text)
    };
    bridge.cell().lrp(guid).ok_or_else(unknown)
}

fn object(value: Value) -> Done<Map<String, Value>> {
    match value {
        Value::Object(object) => Ok(object),
        _ => Err(invalid("Invalid field: a DesiredLRP is an object".into())),
    }
}

fn invalid(text: String) -> RecordError {
    RecordError::new(400, "InvalidLRP", text)
}

fn number(index: &str) -> Done<u32> {
    let wrong = |_| {
        let text = format!("`{}` is no index", index.escape_default());
        RecordError::new(400, "InvalidRequest", text)
    };
    index.parse().map_err(wrong)
}

fn no_index(guid: &str, index: u32) -> RecordError {
    let text = format!("LRP {guid} has no instance {index}");
    RecordError::new(404, "ActualLRPIndexNotFound", text)
}

fn of_lrp(err: CellError) -> RecordError {
    let (status, name) = match err.kind {
        Kind::NotFound => (404, "DesiredLRPNotFound"),
        Kind::Conflict => (409, "ResourceConflict"),
        Kind::Invalid => (400, "InvalidLRP"),
        _ => (500, "UnknownError"),
    };
    RecordError::new(status, name, err.text)
}

/// `Cache-Control: max-age=N`; without one the domain is fresh for ever.
fn refresh(bridge: &Bridge, domain: &str, request: &Request) -> Done<Response> {
    let invalid = |text: &str| RecordError::new(400, "InvalidDomain", text);
    if domain.is_empty() {
        return Err(invalid("a domain has a name"));
    }
    let ttl = match request.headers.get("cache-control") {
        None => None,
        Some(text) => {
            let seconds = text.trim().strip_prefix("max-age=").and_then(|it| it.parse().ok());
            let wrong = || invalid("Cache-Control is no `max-age=SECONDS`");
            Some(Duration::from_secs(seconds.ok_or_else(wrong)?))
        }
    };
    // 0 is for ever, as for the BBS.
    match bridge.refresh(domain, ttl.filter(|ttl| !ttl.is_zero())) {
        true => Ok(status(204)),
        false => Err(invalid("as many domains are remembered as may be; use fewer")),
    }
}

async fn cells<S: WatchService>(service: &S, bridge: &Bridge) -> Done<Response> {
    let figures = service.figures().await;
    let failed =
        |err: crate::api::apps::ServiceError| RecordError::new(500, "UnknownError", err.message);
    let figures = figures.map_err(failed)?;
    let stacks = bridge.cell().stacks().await;
    let cell = json!({
        "cell_id": bridge.cell().id(),
        "zone": bridge.cell().zone(),
        "capacity": {
            "memory_mb": figures.total.memory_bytes >> 20,
            "disk_mb": figures.total.disk_bytes >> 20,
            "containers": figures.total.containers,
        },
        "rootfs_providers": { "preloaded": stacks, "docker": [] },
    });
    Ok(Response::json(200, &[cell]))
}
