//! `[process.X]` and `[health]`: what runs, on which ports, and when it counts as running.

use super::super::cursor::{Section, Value};
use super::super::sink::Place;
use super::super::words::{plain_name, shown};
use super::network::{IMAGES_OWN, PortDraft};
use super::places::{Places, Sizes};
use super::{DAY, read_command, read_shape};
use crate::model::manifest::{Check, Health, Process, Run};
use std::collections::BTreeMap;
use std::time::Duration;
use toml::de::DeValue;

/// Most process types of one app.
const PROCESSES_MAX: usize = 16;
/// Longest name of a process type; the app's name, it and an index fit a container's name.
const NAME_MAX: usize = 16;

/// One process before ports and health checks are put together.
struct Draft<'a> {
    process: Process,
    ports: Option<Value<'a>>,
    health: Option<HealthDraft<'a>>,
    at: Sizes,
}

/// Reads `[health]` and every `[process.X]`. An app from an image always has `web`, which runs what
/// the image says: others are beside it. `None`: something was noted, here or in `ports`.
pub(super) fn read(
    top: &mut Section<'_>,
    run: &Run,
    is_image: bool,
    ports: Option<&[PortDraft<'_>]>,
    places: &mut Places,
) -> Option<BTreeMap<String, Process>> {
    let shared = top.section("health").map(read_health);
    let mut drafts = match top.take("process") {
        Some(value) => read_types(&value, run)?,
        None => BTreeMap::from([("web".to_owned(), Draft::new(run))]),
    };
    if is_image {
        drafts.entry("web".to_owned()).or_insert_with(|| Draft::new(run));
    }
    places.processes = drafts.iter().map(|(name, it)| (name.clone(), it.at.clone())).collect();
    assign_ports(&mut drafts, ports?)?;
    check_owners(&drafts, ports?);
    let finish = |(name, draft): (String, Draft<'_>)| {
        let health = resolve(&name, &draft, shared.as_ref(), ports?)?;
        Some((name, Process { health, ..draft.process }))
    };
    let all: Vec<_> = drafts.into_iter().map(finish).collect();
    all.into_iter().collect()
}

fn read_types<'a>(value: &Value<'a>, run: &Run) -> Option<BTreeMap<String, Draft<'a>>> {
    let entries = value.section()?.take_all();
    if entries.is_empty() {
        value.fail("names no process", "write [process.web]");
    }
    if entries.len() > PROCESSES_MAX {
        value.fail(format!("has {} processes", entries.len()), format!("at most {PROCESSES_MAX}"));
    }
    let mut drafts = BTreeMap::new();
    for entry in entries {
        if let Err(text) = plain_name("process", entry.key, NAME_MAX) {
            let (what, cure) = text.split_once("; ").unwrap_or((&text, ""));
            entry.place.fail(what, cure);
        } else if let DeValue::Table(_) = entry.value.inner {
            drafts.extend(entry.value.section().map(|it| (entry.key.into(), Draft::read(it, run))));
        } else {
            let cure = format!("write [process.NAME] above `{}`", shown(entry.key));
            entry.value.mistyped::<()>("a table", Some(cure));
        }
    }
    (!drafts.is_empty()).then_some(drafts)
}

impl<'a> Draft<'a> {
    /// A process that says nothing of its own.
    fn new(run: &Run) -> Draft<'a> {
        let process = Process {
            command: None,
            instances: run.instances,
            memory: run.memory,
            disk: run.disk,
            ports: Vec::new(),
            health: Timing::default().with(Check::Process),
        };
        Draft { process, ports: None, health: None, at: Sizes::default() }
    }

    fn read(mut section: Section<'a>, run: &Run) -> Draft<'a> {
        let mut draft = Draft::new(run);
        let shape = read_shape(&mut section);
        super::set(&mut draft.process.instances, shape.instances);
        super::set(&mut draft.process.memory, shape.memory);
        super::set(&mut draft.process.disk, shape.disk);
        draft.at = shape.at;
        draft.process.command = section.take("command").as_ref().and_then(read_command);
        draft.ports = section.take("ports");
        draft.health = section.section("health").map(read_health);
        section.later(&[
            "env",
            "cpu_weight",
            "pids",
            "nofile",
            "user",
            "stop",
            "restart",
            "limits",
        ]);
        section.finish();
        draft
    }
}

/// Fills in the names of every process's ports. By default `web` has all that no other one lists.
fn assign_ports(drafts: &mut BTreeMap<String, Draft<'_>>, ports: &[PortDraft<'_>]) -> Option<()> {
    let mut good = Some(());
    for draft in drafts.values_mut() {
        let Some(list) = &draft.ports else { continue };
        for item in list.list(64)? {
            match item.text(64) {
                Some(wanted) if !ports.iter().any(|port| port.model.name == wanted) => {
                    item.place.fail(no_port(wanted), names_of(ports));
                    good = None;
                }
                Some(wanted) if draft.process.ports.iter().any(|name| name == wanted) => {
                    item.place.fail(format!("port `{wanted}` is listed twice"), "remove one");
                }
                Some(wanted) => draft.process.ports.push(wanted.to_owned()),
                None => good = None,
            }
        }
    }
    good?;
    let listed: Vec<String> =
        drafts.values().flat_map(|draft| draft.process.ports.iter().cloned()).collect();
    if let Some(web) = drafts.get_mut("web").filter(|web| web.ports.is_none()) {
        let names = ports.iter().map(|port| port.model.name.clone());
        web.process.ports = names.filter(|name| !listed.contains(name)).collect();
    }
    Some(())
}

/// Every port belongs to a process, and what the box publishes belongs to one only.
fn check_owners(drafts: &BTreeMap<String, Draft<'_>>, ports: &[PortDraft<'_>]) {
    for port in ports {
        let name = &port.model.name;
        let mine = |draft: &Draft<'_>| draft.process.ports.contains(name);
        let mut owners = drafts.iter().filter(|(_, draft)| mine(draft)).map(|(owner, _)| owner);
        match (owners.next(), owners.next()) {
            (None, _) if port.implied => {}
            (None, _) => port.place.fail(
                format!("port `{name}` belongs to no process"),
                format!("add ports = [\"{name}\"] to one of them"),
            ),
            (Some(first), Some(second)) if port.model.publish.is_some() => port.place.fail(
                format!("published port `{name}` belongs to both `{first}` and `{second}`"),
                "only one process can answer on a port of the box",
            ),
            _ => {}
        }
    }
}

/// Kinds of checks as they are written.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Port,
    Http,
    Process,
}

/// How often and how long a check tries.
#[derive(Clone, Copy)]
struct Timing {
    start_timeout: Duration,
    interval_unhealthy: Duration,
    interval_healthy: Duration,
    timeout: Duration,
}

impl Default for Timing {
    fn default() -> Timing {
        Timing {
            start_timeout: Duration::from_secs(60),
            interval_unhealthy: Duration::from_millis(500),
            interval_healthy: Duration::from_secs(30),
            timeout: Duration::from_secs(1),
        }
    }
}

impl Timing {
    fn with(self, check: Check) -> Health {
        Health {
            check,
            start_timeout: self.start_timeout,
            interval_unhealthy: self.interval_unhealthy,
            interval_healthy: self.interval_healthy,
            timeout: self.timeout,
        }
    }
}

/// `[health]` as written: its port may be a name that only [`resolve`] understands.
struct HealthDraft<'a> {
    place: Place<'a>,
    kind: Option<Kind>,
    port: Option<Value<'a>>,
    path: Option<String>,
    timing: Timing,
}

fn read_health(mut section: Section<'_>) -> HealthDraft<'_> {
    let place = section.place.clone();
    let written = section.take("type");
    let kind = written.as_ref().and_then(read_kind);
    let port = section.take("port");
    let path = section.take("path");
    if let (Some(port), Some(Kind::Process)) = (&port, kind) {
        port.place.fail("a \"process\" check has no port", "remove it or change `type`");
    }
    if let Some(path) = &path {
        let message = "only \"http\" checks have a path";
        match kind {
            Some(Kind::Port | Kind::Process) => path.place.fail(message, "write type = \"http\""),
            None if written.is_none() => path.place.fail(message, "add type = \"http\""),
            Some(Kind::Http) | None => {}
        }
    }
    let path = path.and_then(|value| value.parsed(read_path));
    let timing = read_timing(&mut section);
    section.later(&["failures", "readiness", "command", "on_fail", "liveness"]);
    section.finish();
    HealthDraft { place, kind, port, path, timing }
}

fn read_kind(value: &Value<'_>) -> Option<Kind> {
    match value.text(64)? {
        later @ ("exec" | "watchdog") => {
            let text =
                format!("health checks of type \"{later}\" are not supported by this version yet");
            value.place.fail(text, "\"port\", \"http\" and \"process\" are");
            None
        }
        "none" => {
            value.fail("cannot be \"none\"", "write \"process\"");
            None
        }
        _ => value.one_of(&[
            ("port", Kind::Port),
            ("tcp", Kind::Port),
            ("http", Kind::Http),
            ("process", Kind::Process),
        ]),
    }
}

/// A request target: goes into a request line as it is.
fn read_path(text: &str) -> Result<String, String> {
    let plain = text.bytes().all(|b| b.is_ascii_graphic());
    match text.starts_with('/') && plain && text.len() <= 1024 {
        true => Ok(text.to_owned()),
        false => Err(format!(
            "`{}` is not a path; it begins with `/` and has no spaces, such as \"/healthz\"",
            shown(text)
        )),
    }
}

fn read_timing(section: &mut Section<'_>) -> Timing {
    let (short, long) = (Duration::from_millis(100), Duration::from_secs(3600));
    let mut timing = Timing::default();
    if let Some(value) = section.take("start_timeout") {
        super::set(&mut timing.start_timeout, value.time(Duration::ZERO, DAY));
    }
    if let Some(value) = section.take("timeout") {
        super::set(&mut timing.timeout, value.time(short, Duration::from_secs(600)));
    }
    let Some(value) = section.take("interval") else { return timing };
    // One time alone is Cloud Foundry's health-check-interval: how often a running app is asked.
    if !matches!(value.inner, DeValue::Table(_)) {
        super::set(&mut timing.interval_healthy, value.time(short, long));
    } else if let Some(mut both) = value.section() {
        let mut time = |key| both.take(key).and_then(|value| value.time(short, long));
        super::set(&mut timing.interval_unhealthy, time("unhealthy"));
        super::set(&mut timing.interval_healthy, time("healthy"));
        both.finish();
    }
    timing
}

/// The check of one process: its own, else the shared one, else by whether it has a port.
fn resolve(
    name: &str,
    draft: &Draft<'_>,
    shared: Option<&HealthDraft<'_>>,
    ports: &[PortDraft<'_>],
) -> Option<Health> {
    let mine = &draft.process.ports;
    let first = ports.iter().find(|port| mine.first() == Some(&port.model.name));
    let first = first.map(|port| port.model.container);
    let Some(health) = draft.health.as_ref().or(shared) else {
        let check = first.map_or(Check::Process, |port| Check::Port { port });
        return Some(Timing::default().with(check));
    };
    let own = draft.health.is_some();
    let kind = match health.kind {
        // The shared check is about a port, of which this process has none at all.
        _ if !own && name != "web" && first.is_none() => Kind::Process,
        Some(kind) => kind,
        None if first.is_none() && health.port.is_none() => Kind::Process,
        None => Kind::Port,
    };
    let port = match &health.port {
        _ if kind == Kind::Process => return Some(health.timing.with(Check::Process)),
        Some(value) => find_port(value, name, own, mine, ports)?,
        None => first.or_else(|| {
            let text = format!("process `{name}` has no port that could be checked");
            health.place.fail(text, "add [[port]], or write type = \"process\"");
            None
        })?,
    };
    let path = health.path.clone().unwrap_or_else(|| "/".into());
    let check = if kind == Kind::Http { Check::Http { port, path } } else { Check::Port { port } };
    Some(health.timing.with(check))
}

/// The container port that a health check names; it must be one of the process's own.
fn find_port(
    value: &Value<'_>,
    process: &str,
    own: bool,
    mine: &[String],
    ports: &[PortDraft<'_>],
) -> Option<u16> {
    let wanted = match value.inner {
        DeValue::String(name) => name.to_string(),
        DeValue::Integer(_) => value.number(1, 65_535)?.to_string(),
        _ => return value.mistyped("the name or the number of a port", None),
    };
    let is_meant = |port: &&PortDraft<'_>| match value.inner {
        DeValue::String(_) => port.model.name == wanted,
        _ => port.model.container.to_string() == wanted,
    };
    let Some(port) = ports.iter().find(is_meant) else {
        value.place.fail(no_port(&wanted), names_of(ports));
        return None;
    };
    if !mine.contains(&port.model.name) {
        let cure = match own {
            true => format!("add it to process.{process}.ports"),
            false => format!("give [process.{process}] its own health"),
        };
        value.place.fail(format!("process `{process}` has no port `{}`", port.model.name), cure);
        return None;
    }
    Some(port.model.container)
}

fn no_port(name: &str) -> String {
    format!("there is no port `{}`", shown(name))
}

/// What to choose from.
fn names_of(ports: &[PortDraft<'_>]) -> String {
    let show = |port: &PortDraft<'_>| match port.model.container {
        IMAGES_OWN => format!("\"{}\" (the image's own)", port.model.name),
        number => format!("\"{}\" ({number})", port.model.name),
    };
    match ports.is_empty() {
        true => "declare it with [[port]]".into(),
        false => format!("declared: {}", ports.iter().map(show).collect::<Vec<_>>().join(", ")),
    }
}
