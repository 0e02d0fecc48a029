//! DesiredLRPs as Diego writes them, to what this box makes of them, and back. Pure.
//!
//! A DesiredLRP is a container record under other names, and what may change while it runs. The record
//! is read as every container's is: what that cannot have, this cannot have either.

use crate::api::records::action::{BadAction, Fields};
use crate::api::records::record::{self, Container, Stacks, Wrong};
use crate::cell::Lrp;
use crate::model::container::LrpContainer;
use crate::model::desired::{INSTANCES_MAX, LrpChange, LrpFacts, ROUTES_MAX};
use crate::model::task::ANNOTATION_MAX;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// What is told apart from the container, or called otherwise there.
const OWN: [&str; 12] = [
    "process_guid",
    "domain",
    "instances",
    "routes",
    "annotation",
    "action",
    "ports",
    "log_guid",
    "log_source",
    "start_timeout_ms",
    "modification_tag",
    "check_definition",
];

fn invalid<T>(field: &str) -> Result<T, Wrong> {
    Err(BadAction(format!("Invalid field: {field}")))
}

/// Reads a DesiredLRP.
pub fn decode(object: &Map<String, Value>, stacks: Stacks<'_>) -> Result<LrpContainer, Wrong> {
    let fields = Fields(object);
    let facts = LrpFacts {
        domain: fields.needed("domain")?,
        instances: instances(&fields)?.unwrap_or(0),
        annotation: annotation(&fields)?.unwrap_or_default(),
        routes: routes(&fields)?.unwrap_or_default(),
        epoch: String::new(),
        changes: 0,
    };
    // Under the name that its client has for it.
    let named = |wrong: Wrong| match wrong.0.as_str() {
        "Invalid field: guid" => BadAction("Invalid field: process_guid".into()),
        _ => wrong,
    };
    match record::container(&container(&fields)?, stacks).map_err(named)? {
        Container::Lrp(lrp) => Ok(LrpContainer { desired: Some(facts), ..*lrp }),
        Container::Task(_) => invalid("action"),
    }
}

/// The same under the names of a container.
fn container(fields: &Fields<'_>) -> Result<Map<String, Value>, Wrong> {
    let mut out: Map<String, Value> = fields
        .0
        .iter()
        .filter(|(name, _)| !OWN.contains(&name.as_str()))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    let port = |port: &Value| json!({ "container_port": port });
    let ports: Vec<Value> = fields.list("ports")?.iter().map(port).collect();
    let timeout = match (fields.number("start_timeout")?, fields.number("start_timeout_ms")?) {
        (0, ms) => ms.div_ceil(1000),
        (seconds, _) => seconds,
    };
    let guid = fields.needed("process_guid").or_else(|_| invalid("process_guid"))?;
    let log = json!({
        "guid": fields.text("log_guid")?,
        "source_name": fields.text("log_source")?,
    });
    let tags = json!({
        "lifecycle": "lrp",
        "domain": fields.needed("domain")?,
        "process-guid": guid,
    });
    out.insert("guid".into(), guid.into());
    out.insert("tags".into(), tags);
    out.insert("log_config".into(), log);
    out.insert("run".into(), fields.get("action").cloned().unwrap_or(Value::Null));
    out.insert("ports".into(), ports.into());
    out.insert("start_timeout".into(), timeout.into());
    // One that says nothing does not make another container.
    if let Some(checks) = fields.get("check_definition").filter(|it| **it != json!({})) {
        out.insert("check_definition".into(), checks.clone());
    }
    Ok(out)
}

fn instances(fields: &Fields<'_>) -> Result<Option<u32>, Wrong> {
    match fields.get("instances").map(|_| fields.number("instances")).transpose()? {
        None => Ok(None),
        Some(count) => match u32::try_from(count) {
            Ok(count @ ..=INSTANCES_MAX) => Ok(Some(count)),
            _ => invalid("instances"),
        },
    }
}

fn annotation(fields: &Fields<'_>) -> Result<Option<String>, Wrong> {
    match fields.get("annotation").map(|_| fields.text("annotation")).transpose()? {
        Some(text) if text.len() > ANNOTATION_MAX => invalid("annotation"),
        text => Ok(text),
    }
}

fn routes(fields: &Fields<'_>) -> Result<Option<BTreeMap<String, String>>, Wrong> {
    let Some(routes) = fields.object("routes")? else { return Ok(None) };
    let routes = routes.0.iter().map(|(router, value)| (router.clone(), value.to_string()));
    let routes: BTreeMap<String, String> = routes.collect();
    let bytes: usize = routes.values().map(String::len).sum();
    if bytes > ROUTES_MAX { invalid("routes") } else { Ok(Some(routes)) }
}

/// Reads what may change: `instances`, `routes`, `annotation`.
pub fn change(object: &Map<String, Value>) -> Result<LrpChange, Wrong> {
    let fields = Fields(object);
    Ok(LrpChange {
        instances: instances(&fields)?,
        annotation: annotation(&fields)?,
        routes: routes(&fields)?,
        keeps_routers: false,
    })
}

/// The routes of each router.
pub fn routes_of(facts: &LrpFacts) -> Value {
    let read = |text: &String| serde_json::from_str(text).unwrap_or(Value::Null);
    let routes = facts.routes.iter().map(|(router, text)| (router.clone(), read(text)));
    Value::Object(routes.collect())
}

/// A DesiredLRP as it was written, and as it was changed since.
pub fn encode(lrp: &Lrp) -> Value {
    let container = &lrp.container;
    let facts = container.desired.clone().unwrap_or_default();
    let source: Value = serde_json::from_str(&container.source).unwrap_or_default();
    let mut out = source.as_object().cloned().unwrap_or_default();
    for name in ["guid", "tags", "run", "log_config", "image_password"] {
        out.remove(name);
    }
    let own = json!({
        "process_guid": container.guid,
        "domain": facts.domain,
        "instances": facts.instances,
        "routes": routes_of(&facts),
        "annotation": facts.annotation,
        "action": source["run"],
        "ports": container.ports,
        "log_guid": source["log_config"]["guid"],
        "log_source": source["log_config"]["source_name"],
        "modification_tag": facts.tag(lrp.name.as_str()),
        // What `terrarium logs` calls its log.
        "log_name": lrp.name.as_str(),
    });
    out.extend(own.as_object().cloned().unwrap_or_default());
    Value::Object(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn minimal() -> Value {
        json!({
            "process_guid": "App_1", "domain": "cf-apps", "rootfs": "preloaded:tiny",
            "instances": 2, "ports": [8080, 2222], "annotation": "etag", "memory_mb": 64,
            "action": { "run": { "path": "sh", "user": "vcap" } },
            "routes": { "cf-router": [{ "hostnames": ["a.b"], "port": 8080 }] },
            "log_guid": "log", "log_source": "CELL", "start_timeout": 60,
            "modification_tag": null, "check_definition": null,
        })
    }

    fn read(value: &Value) -> Result<LrpContainer, Wrong> {
        decode(value.as_object().expect("an object"), &|_| None)
    }

    /// Row 8: what may change is told apart from what makes another container.
    #[test]
    fn row_8_a_desired_lrp_is_a_container_and_what_may_change() {
        let lrp = read(&minimal()).expect("it will do");
        let facts = lrp.desired.clone().expect("it has facts");
        assert_eq!((facts.instances, facts.annotation.as_str()), (2, "etag"));
        assert_eq!((lrp.guid.as_str(), &lrp.ports[..]), ("App_1", &[8080, 2222][..]));
        assert_eq!(facts.routes["cf-router"], r#"[{"hostnames":["a.b"],"port":8080}]"#);
        let mut changed = minimal();
        (changed["instances"], changed["annotation"]) = (json!(3), json!("new"));
        assert_eq!(read(&changed).expect("it will do").source, lrp.source);
        changed["memory_mb"] = json!(128);
        assert_ne!(read(&changed).expect("it will do").source, lrp.source);
        changed["memory_mb"] = json!(64);
        changed["check_definition"] = json!({ "checks": [{ "tcp_check": { "port": 8080 } }] });
        let checked = read(&changed).expect("it will do");
        assert_eq!(checked.checks.len(), 1);
        assert_ne!(checked.source, lrp.source);
    }

    #[test]
    fn what_will_not_do_is_named() {
        for (name, value, field) in [
            ("process_guid", json!("a b"), "process_guid"),
            ("process_guid", json!(""), "process_guid"),
            ("domain", json!(""), "domain"),
            ("instances", json!(-1), "instances"),
            ("instances", json!(1001), "instances"),
            ("ports", json!([0]), "ports"),
            ("annotation", json!("x".repeat(10_241)), "annotation"),
            ("routes", json!({ "r": "x".repeat(131_073) }), "routes"),
            ("action", json!(null), "run"),
            ("rootfs", json!("tiny"), "rootfs"),
            ("check_definition", json!([]), "check_definition"),
            ("check_definition", json!({ "checks": [{}] }), "check_definition: checks"),
            ("sidecars", json!([{}]), "sidecars: action"),
        ] {
            let mut wrong = minimal();
            wrong[name] = value;
            let err = read(&wrong).expect_err(name);
            assert!(err.0.starts_with(&format!("Invalid field: {field}")), "{name}: {}", err.0);
        }
    }
}
