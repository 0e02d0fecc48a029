//! `check_definition` and `sidecars` of Diego's records, to what this box makes of them. Pure.
//!
//! A check is one of `tcp_check` `{port, connect_timeout_ms, interval_ms}` and `http_check` `{port,
//! request_timeout_ms, path, interval_ms}`; what is not said is as in Diego: one second, `/`, and the
//! interval of healthy instances. The daemon tries them itself, as it does those of manifests.

use super::action::{self, BadAction, Fields};
use super::record::Wrong;
use crate::model::manifest::{Check, HealthTimes, Probe};
use crate::model::work::Sidecar;
use serde_json::Value;
use std::time::Duration;

/// Most items of one list.
const LIST_MAX: usize = 16;
/// Where the lines of checks always are.
const SOURCE: &str = "HEALTH";
/// One try.
const TIMEOUT_MS: u64 = 1000;
/// Longest try, longest pause between tries: a day.
const SPAN_MAX_MS: u64 = 24 * 60 * 60 * 1000;
/// Longest path, in bytes.
const PATH_MAX: usize = 4096;

/// What decides whether an instance is healthy, and whether connections are led to it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Checks {
    pub startup: Vec<Probe>,
    pub readiness: Vec<Probe>,
}

fn invalid<T>(field: &str) -> Result<T, Wrong> {
    Err(BadAction(format!("Invalid field: {field}")))
}

/// Puts the name of what a field is in before it.
fn within(name: &'static str) -> impl Fn(Wrong) -> Wrong {
    move |wrong| {
        BadAction(wrong.0.replacen("Invalid field: ", &format!("Invalid field: {name}: "), 1))
    }
}

/// Reads `check_definition`.
pub(super) fn definition(fields: &Fields<'_>) -> Result<Checks, Wrong> {
    let Some(said) = fields.object("check_definition")? else { return Ok(Checks::default()) };
    let named = within("check_definition");
    let source = said.text("log_source").map_err(&named)?;
    if !matches!(source.as_str(), "" | SOURCE) {
        return invalid(&format!("check_definition: log_source: of checks it is {SOURCE}"));
    }
    Ok(Checks {
        startup: probes(&said, "checks").map_err(&named)?,
        readiness: probes(&said, "readiness_checks").map_err(&named)?,
    })
}

fn probes(fields: &Fields<'_>, name: &'static str) -> Result<Vec<Probe>, Wrong> {
    let list = fields.list(name)?;
    if list.len() > LIST_MAX {
        return invalid(&format!("{name}: at most {LIST_MAX}"));
    }
    let one = |item: &Value| match item.as_object() {
        Some(item) => probe(&Fields(item)).map_err(within(name)),
        None => invalid(name),
    };
    list.iter().map(one).collect()
}

fn probe(fields: &Fields<'_>) -> Result<Probe, Wrong> {
    let (check, timeout, interval) =
        match (fields.object("tcp_check")?, fields.object("http_check")?) {
            (Some(tcp), None) => {
                let check = Check::Port { port: port(&tcp)? };
                (check, span(&tcp, "connect_timeout_ms")?, span(&tcp, "interval_ms")?)
            }
            (None, Some(http)) => {
                let check = Check::Http { port: port(&http)?, path: path(&http)? };
                (check, span(&http, "request_timeout_ms")?, span(&http, "interval_ms")?)
            }
            _ => return invalid("exactly one of tcp_check and http_check is wanted"),
        };
    Ok(Probe {
        check,
        timeout: timeout.unwrap_or(Duration::from_millis(TIMEOUT_MS)),
        interval: interval.unwrap_or(HealthTimes::default().interval_healthy),
    })
}

fn port(fields: &Fields<'_>) -> Result<u16, Wrong> {
    match u16::try_from(fields.number("port")?) {
        Ok(port @ 1..) => Ok(port),
        _ => invalid("port"),
    }
}

/// Milliseconds; `None`: the usual.
fn span(fields: &Fields<'_>, name: &str) -> Result<Option<Duration>, Wrong> {
    match fields.number(name)? {
        0 => Ok(None),
        ms @ ..=SPAN_MAX_MS => Ok(Some(Duration::from_millis(ms))),
        _ => invalid(name),
    }
}

/// It becomes part of a request's first line.
fn path(fields: &Fields<'_>) -> Result<String, Wrong> {
    let path = fields.text("path")?;
    let is_plain = path.bytes().all(|b| b.is_ascii_graphic()) && path.len() <= PATH_MAX;
    match path.as_str() {
        "" => Ok("/".into()),
        text if text.starts_with('/') && is_plain => Ok(path),
        _ => invalid("path"),
    }
}

/// Reads `sidecars`, under names of their own; and what of them is not heeded: they share the limits of
/// their container.
pub(super) fn sidecars(fields: &Fields<'_>) -> Result<(Vec<Sidecar>, Option<&'static str>), Wrong> {
    let list = fields.list("sidecars")?;
    if list.len() > LIST_MAX {
        return invalid(&format!("sidecars: at most {LIST_MAX}"));
    }
    let (mut all, mut unheeded) = (Vec::new(), None);
    for (index, item) in list.iter().enumerate() {
        let Some(item) = item.as_object().map(Fields) else { return invalid("sidecars") };
        let Some(action) = item.get("action") else { return invalid("sidecars: action") };
        let action = action::decode(action).map_err(within("sidecars"))?;
        let limits = item.number("memory_mb").and_then(|it| Ok(it.max(item.number("disk_mb")?)));
        if limits.map_err(within("sidecars"))? > 0 {
            unheeded = Some("sidecars.memory_mb.disk_mb");
        }
        all.push(Sidecar { name: format!("sidecar-{index}"), action });
    }
    Ok((all, unheeded))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(value: Value) -> Result<Checks, String> {
        let object = json!({ "check_definition": value });
        definition(&Fields(object.as_object().expect("an object"))).map_err(|err| err.0)
    }

    /// Row 45, row 46: declared checks, with Diego's times where they say none.
    #[test]
    fn row_45_checks_are_tcp_or_http_with_diegos_times() {
        let checks = read(json!({
            "checks": [
                { "tcp_check": { "port": 8080 } },
                { "http_check": { "port": 81, "path": "/up?x", "request_timeout_ms": 250,
                    "interval_ms": 100 } },
            ],
            "readiness_checks": [{ "http_check": { "port": 82 }, "tcp_check": null }],
            "log_source": "HEALTH",
        }))
        .expect("checks");
        let probe = |check, timeout, interval| Probe {
            check,
            timeout: Duration::from_millis(timeout),
            interval: Duration::from_millis(interval),
        };
        let http = |port, path: &str| Check::Http { port, path: path.into() };
        let tcp = probe(Check::Port { port: 8080 }, 1000, 30_000);
        assert_eq!(checks.startup, [tcp, probe(http(81, "/up?x"), 250, 100)]);
        assert_eq!(checks.readiness, [probe(http(82, "/"), 1000, 30_000)]);
        assert_eq!(read(json!(null)), Ok(Checks::default()));
    }

    #[test]
    fn what_is_no_check_is_named() {
        let both = json!({ "tcp_check": { "port": 1 }, "http_check": { "port": 1 } });
        for (one, named) in [
            (json!({}), "exactly one of"),
            (both, "exactly one of"),
            (json!({ "tcp_check": { "port": 0 } }), "port"),
            (json!({ "tcp_check": { "port": 65_536 } }), "port"),
            (json!({ "tcp_check": { "port": 1, "interval_ms": u64::MAX } }), "interval_ms"),
            (json!({ "http_check": { "port": 1, "path": "up" } }), "path"),
            (json!({ "http_check": { "port": 1, "path": "/a b\r\n" } }), "path"),
        ] {
            let told = read(json!({ "checks": [one.clone()] })).expect_err("no check");
            let begin = format!("Invalid field: check_definition: checks: {named}");
            assert!(told.starts_with(&begin), "{one}: {told}");
        }
        assert!(read(json!({ "log_source": "APP" })).is_err());
        let many = vec![json!({ "tcp_check": { "port": 1 } }); LIST_MAX + 1];
        assert!(read(json!({ "checks": many })).is_err());
    }

    /// Row 47: sidecars of a record.
    #[test]
    fn row_47_sidecars_have_names_of_their_own_and_the_limits_of_all() {
        let run = json!({ "run": { "path": "sh", "user": "vcap" } });
        let object = json!({ "sidecars": [{ "action": run }, { "action": run, "memory_mb": 5 }] });
        let fields = Fields(object.as_object().expect("an object"));
        let (all, unheeded) = sidecars(&fields).expect("two");
        let names: Vec<&str> = all.iter().map(|it| it.name.as_str()).collect();
        assert_eq!(names, ["sidecar-0", "sidecar-1"]);
        assert_eq!(unheeded, Some("sidecars.memory_mb.disk_mb"));
        let object = json!({ "sidecars": [{ "action": null }] });
        let fields = Fields(object.as_object().expect("an object"));
        assert!(sidecars(&fields).is_err());
    }
}
