//! Tasks and containers as Diego writes them down, to what this box makes of them. Pure.

use super::action::{self, BadAction, Fields};
use super::{checks, egress, extras};
use crate::model::action::Action;
use crate::model::container::LrpContainer;
use crate::model::extras::MetricTag;
use crate::model::limits::Limits;
use crate::model::task::{GUID_MAX, InvalidField, Rootfs, Task, task_name};
use crate::unit::Bytes;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::time::Duration;

/// A record that will not do: which field, in Diego's words.
pub type Wrong = BadAction;

/// Names the stack at an absolute path that records of another cell name as their rootfs.
pub type Stacks<'a> = &'a (dyn Fn(&str) -> Option<String> + Sync);

/// What a container record asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Container {
    /// `lifecycle` is `task`.
    Task(Box<Task>),
    /// `lifecycle` is `lrp`.
    Lrp(Box<LrpContainer>),
}

/// Ports of one container.
const PORTS_MAX: usize = 32;

/// Fields of a Task that are its own.
const OF_TASK: [&str; 8] = [
    "action",
    "annotation",
    "completion_callback_url",
    "domain",
    "log_guid",
    "log_source",
    "result_file",
    "task_guid",
];

/// Fields of a container that are its own; some are told by the cell, and of no meaning to it.
const OF_CONTAINER: [&str; 17] = [
    "allocated_at",
    "check_definition",
    "external_ip",
    "guid",
    "internal_ip",
    "log_config",
    "metrics_config",
    "monitor",
    "ports",
    "run",
    "run_result",
    "setup",
    "sidecars",
    "start_timeout",
    "start_timeout_ms",
    "state",
    "tags",
];

fn invalid<T>(field: &str) -> Result<T, Wrong> {
    Err(BadAction(format!("Invalid field: {field}")))
}

impl From<InvalidField> for BadAction {
    fn from(err: InvalidField) -> BadAction {
        BadAction(err.to_string())
    }
}

/// Reads `metric_tags` by themselves.
pub fn tags(tags: &Value) -> Result<BTreeMap<String, MetricTag>, Wrong> {
    extras::metric_tags(&Fields(&[("metric_tags".to_owned(), tags.clone())].into_iter().collect()))
}

/// Reads a Task as the receptor takes it.
pub fn task(object: &Map<String, Value>, stacks: Stacks<'_>) -> Result<Task, Wrong> {
    let fields = Fields(object);
    let guid = guid(&fields, "task_guid")?;
    let Some(root) = fields.get("action") else { return invalid("action") };
    let task = Task {
        app: task_name(&guid),
        guid,
        domain: fields.needed("domain")?,
        rootfs: rootfs(&fields, stacks)?,
        limits: limits(&fields)?,
        egress: egress::decode(fields.list("egress_rules")?)?,
        env: fields.env("env")?,
        action: after(extras::exclusive_layers(&fields)?, action::decode(root)?),
        log_source: fields.text("log_source")?,
        silent: fields.text("log_guid")?.is_empty(),
        internal: false,
        result_file: fields.text("result_file")?,
        completion_callback_url: fields.text("completion_callback_url")?,
        annotation: fields.text("annotation")?,
        extras: extras::read(&fields, &OF_TASK)?,
        source: extras::without_secrets(object),
    };
    task.check()?;
    Ok(task)
}

/// Reads a container as the executor takes it.
pub fn container(object: &Map<String, Value>, stacks: Stacks<'_>) -> Result<Container, Wrong> {
    let fields = Fields(object);
    let guid = guid(&fields, "guid")?;
    let none = Map::new();
    let tags = fields.object("tags")?.unwrap_or(Fields(&none));
    let log = fields.object("log_config")?.unwrap_or(Fields(&none));
    let child = |name: &str| fields.get(name).map(action::decode).transpose();
    let (setup, monitor) = (child("setup")?, child("monitor")?);
    // "container cannot have empty action", as the executor says it.
    let Some(run) = child("run")? else { return invalid("run") };
    let (rootfs, limits) = (rootfs(&fields, stacks)?, limits(&fields)?);
    let (egress, env) = (egress::decode(fields.list("egress_rules")?)?, fields.env("env")?);
    let log_source = log.text("source_name")?;
    let (mut extras, layers) =
        (extras::read(&fields, &OF_CONTAINER)?, extras::exclusive_layers(&fields)?);
    let checks = checks::definition(&fields)?;
    let (sidecars, unheeded) = checks::sidecars(&fields)?;
    extras.ignored.extend(unheeded.map(str::to_owned));
    let source = extras::without_secrets(object);
    match tags.text("lifecycle")?.as_str() {
        "task" => {
            let action = after(layers, after(setup, run));
            let task = Task {
                app: task_name(&guid),
                guid,
                domain: tags.needed("domain")?,
                rootfs,
                limits,
                egress,
                env,
                action,
                log_source,
                silent: log.text("guid")?.is_empty(),
                internal: false,
                result_file: tags.text("result-file")?,
                completion_callback_url: String::new(),
                annotation: String::new(),
                extras,
                source,
            };
            task.check()?;
            Ok(Container::Task(task.into()))
        }
        "lrp" => Ok(Container::Lrp(Box::new(LrpContainer {
            guid,
            rootfs,
            limits,
            ports: ports(&fields)?,
            egress,
            env,
            setup: match (layers, setup) {
                (Some(layers), Some(setup)) => Some(after(Some(layers), setup)),
                (layers, setup) => layers.or(setup),
            },
            action: run,
            monitor,
            checks: checks.startup,
            readiness_checks: checks.readiness,
            sidecars,
            start_timeout: start_timeout(&fields)?,
            log_source,
            extras,
            source,
            desired: None,
        }))),
        _ => invalid("tags: lifecycle must be task or lrp"),
    }
}

fn guid(fields: &Fields<'_>, name: &str) -> Result<String, Wrong> {
    let guid = fields.needed(name)?;
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-');
    if guid.len() <= GUID_MAX && guid.bytes().all(plain) { Ok(guid) } else { invalid(name) }
}

fn rootfs(fields: &Fields<'_>, stacks: Stacks<'_>) -> Result<Rootfs, Wrong> {
    let text = fields.needed("rootfs")?;
    let named = if text.starts_with('/') { stacks(&text).map(Rootfs::Stack) } else { None };
    match named {
        Some(stack) => Ok(stack),
        None if text.starts_with('/') => Err(BadAction(format!(
            "found no compatible cell for required rootfs: no stack is at {text}; say which one is \
             meant: `rootfs` in [cell] of terrarium.toml"
        ))),
        None => match text.parse() {
            // Made by the cell itself, of an app's own layers.
            Ok(Rootfs::App(..)) => Err("of an app; ask it for a task".to_owned()),
            rootfs => rootfs,
        }
        .map_err(|why| BadAction(format!("Invalid field: rootfs: {why}"))),
    }
}

/// Memory and disk in MiB, 0: no limit; weight 0: all of it.
fn limits(fields: &Fields<'_>) -> Result<Limits, Wrong> {
    let mib = |name: &str| match fields.number(name)? {
        0 => Ok(None),
        amount @ ..=0xFFFF_FFFF => Ok(Some(Bytes::mib(amount))),
        _ => invalid(name),
    };
    let weight = match fields.number("cpu_weight")? {
        0 => 100,
        weight @ 1..=100 => weight as u32,
        _ => return Err(BadAction("container limits invalid".into())),
    };
    let pids = match fields.number("max_pids")? {
        0 => None,
        most => Some(u32::try_from(most).map_or_else(|_| invalid("max_pids"), Ok)?),
    };
    Ok(Limits {
        memory: mib("memory_mb")?,
        disk: mib("disk_mb")?,
        cpu_weight: Some(weight),
        pids,
        ..Limits::default()
    })
}

fn ports(fields: &Fields<'_>) -> Result<Vec<u16>, Wrong> {
    let list = fields.list("ports")?;
    let mut ports = Vec::new();
    for item in list {
        let number = item.get("container_port").and_then(Value::as_u64);
        match number.and_then(|it| u16::try_from(it).ok()) {
            Some(port @ 1..) if !ports.contains(&port) => ports.push(port),
            Some(1..) => {}
            _ => return invalid("ports"),
        }
    }
    if ports.len() > PORTS_MAX { invalid("ports") } else { Ok(ports) }
}

/// In seconds, as of 2015, or in milliseconds.
fn start_timeout(fields: &Fields<'_>) -> Result<Duration, Wrong> {
    match fields.number("start_timeout")? {
        0 => Ok(Duration::from_millis(fields.number("start_timeout_ms")?)),
        seconds => Ok(Duration::from_secs(seconds)),
    }
}

/// One after the other.
fn after(first: Option<Action>, then: Action) -> Action {
    match first {
        Some(first) => Action::Serial(vec![first, then]),
        None => then,
    }
}

#[cfg(test)]
mod tests;
