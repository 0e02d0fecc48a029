//! `[process.X]`: what runs, on which ports, and which checks are about it.

use super::super::cursor::{Section, Value};
use super::super::words::{plain_name, shown};
use super::health::{self, HealthDraft, Purpose, Subject, Timing};
use super::network::{IMAGES_OWN, PortDraft};
use super::places::{Places, Sizes};
use super::{read_command, read_shape};
use crate::model::manifest::{Check, HealthTimes, PROCESS_NAME_MAX, PROCESSES_MAX, Process, Run};
use std::collections::BTreeMap;
use toml::de::DeValue;

/// One process before ports and health checks are put together.
struct Draft<'a> {
    process: Process,
    ports: Option<Value<'a>>,
    health: Option<HealthDraft<'a>>,
    readiness: Option<HealthDraft<'a>>,
    at: Sizes,
}

/// Reads `[health]`, `[readiness]` and every `[process.X]`. An app from an image always has `web`, which runs what
/// the image says: others are beside it. `None`: something was noted, here or in `ports`.
pub(super) fn read(
    top: &mut Section<'_>,
    run: &Run,
    is_image: bool,
    ports: Option<&[PortDraft<'_>]>,
    usual: HealthTimes,
    places: &mut Places,
) -> Option<BTreeMap<String, Process>> {
    let shared = top.section("health").map(|it| health::read(it, Purpose::Life, usual));
    let ready = top.section("readiness").map(|it| health::read(it, Purpose::Readiness, usual));
    let mut drafts = match top.take("process") {
        Some(value) => read_types(&value, run, usual)?,
        None => BTreeMap::from([("web".to_owned(), Draft::new(run))]),
    };
    if is_image {
        drafts.entry("web".to_owned()).or_insert_with(|| Draft::new(run));
    }
    places.processes = drafts.iter().map(|(name, it)| (name.clone(), it.at.clone())).collect();
    assign_ports(&mut drafts, ports?)?;
    check_owners(&drafts, ports?);
    let finish = |(name, draft): (String, Draft<'_>)| {
        let it = Subject { name: &name, mine: &draft.process.ports, ports: ports?, usual };
        let health = health::resolve(&it, draft.health.as_ref(), shared.as_ref());
        let own = draft.readiness.as_ref();
        let readiness = health::resolve_readiness(&it, own, ready.as_ref())?;
        let health = health?;
        Some((name, Process { health, readiness, ..draft.process }))
    };
    let all: Vec<_> = drafts.into_iter().map(finish).collect();
    all.into_iter().collect()
}

fn read_types<'a>(
    value: &Value<'a>,
    run: &Run,
    usual: HealthTimes,
) -> Option<BTreeMap<String, Draft<'a>>> {
    let entries = value.section()?.take_all();
    if entries.is_empty() {
        value.fail("names no process", "write [process.web]");
    }
    if entries.len() > PROCESSES_MAX {
        value.fail(format!("has {} processes", entries.len()), format!("at most {PROCESSES_MAX}"));
    }
    let mut drafts = BTreeMap::new();
    for entry in entries {
        if let Err(text) = plain_name("process", entry.key, PROCESS_NAME_MAX) {
            let (what, cure) = text.split_once("; ").unwrap_or((&text, ""));
            entry.place.fail(what, cure);
        } else if let DeValue::Table(_) = entry.value.inner {
            let section = entry.value.section();
            drafts.extend(section.map(|it| (entry.key.into(), Draft::read(it, run, usual))));
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
            health: Timing::from(HealthTimes::default()).with(Check::Process),
            readiness: None,
        };
        Draft { process, ports: None, health: None, readiness: None, at: Sizes::default() }
    }

    fn read(mut section: Section<'a>, run: &Run, usual: HealthTimes) -> Draft<'a> {
        let mut draft = Draft::new(run);
        let shape = read_shape(&mut section);
        super::set(&mut draft.process.instances, shape.instances);
        super::set(&mut draft.process.memory, shape.memory);
        super::set(&mut draft.process.disk, shape.disk);
        draft.at = shape.at;
        draft.process.command = section.take("command").as_ref().and_then(read_command);
        draft.ports = section.take("ports");
        let life = section.section("health");
        draft.health = life.map(|it| health::read(it, Purpose::Life, usual));
        let readiness = section.section("readiness");
        draft.readiness = readiness.map(|it| health::read(it, Purpose::Readiness, usual));
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

pub(super) fn no_port(name: &str) -> String {
    format!("there is no port `{}`", shown(name))
}

/// What to choose from.
pub(super) fn names_of(ports: &[PortDraft<'_>]) -> String {
    let show = |port: &PortDraft<'_>| match port.model.container {
        IMAGES_OWN => format!("\"{}\" (the image's own)", port.model.name),
        number => format!("\"{}\" ({number})", port.model.name),
    };
    match ports.is_empty() {
        true => "declare it with [[port]]".into(),
        false => format!("declared: {}", ports.iter().map(show).collect::<Vec<_>>().join(", ")),
    }
}
