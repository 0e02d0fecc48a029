//! `[health]` and `[readiness]`: what is tried, how often, and what its failure means.

use super::super::cursor::{Section, Value};
use super::super::sink::Place;
use super::super::words::shown;
use super::network::PortDraft;
use super::process::{names_of, no_port};
use super::{COMMAND_MAX, DAY};
use crate::model::manifest::{Check, Health, HealthTimes, Probe};
use std::time::Duration;
use toml::de::DeValue;

/// Most checks of one process.
const CHECKS_MAX: usize = 8;
/// Most words of a command that is a list.
const WORDS_MAX: usize = 64;

/// Kinds of checks as they are written.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Port,
    Http,
    Exec,
    Watchdog,
    Process,
}

impl Kind {
    fn word(self) -> &'static str {
        match self {
            Kind::Port => "port",
            Kind::Http => "http",
            Kind::Exec => "exec",
            Kind::Watchdog => "watchdog",
            Kind::Process => "process",
        }
    }

    fn has_port(self) -> bool {
        matches!(self, Kind::Port | Kind::Http)
    }
}

/// How often and how long a check tries.
#[derive(Clone, Copy)]
pub(super) struct Timing {
    start_timeout: Duration,
    interval_unhealthy: Duration,
    interval_healthy: Duration,
    timeout: Duration,
    failures: u32,
}

impl From<HealthTimes> for Timing {
    fn from(usual: HealthTimes) -> Timing {
        Timing {
            start_timeout: usual.start_timeout,
            interval_unhealthy: usual.interval_unhealthy,
            interval_healthy: usual.interval_healthy,
            timeout: Duration::from_secs(1),
            failures: 1,
        }
    }
}

impl Timing {
    pub(super) fn with(self, check: Check) -> Health {
        Health {
            check,
            start_timeout: self.start_timeout,
            interval_unhealthy: self.interval_unhealthy,
            interval_healthy: self.interval_healthy,
            timeout: self.timeout,
            failures: self.failures,
            also: Vec::new(),
        }
    }
}

/// A check as written: its port may be a name that only [`resolve`] understands.
struct CheckDraft<'a> {
    place: Place<'a>,
    kind: Option<Kind>,
    port: Option<Value<'a>>,
    path: Option<String>,
    command: Vec<String>,
}

/// `[health]` or `[readiness]` as written.
pub(super) struct HealthDraft<'a> {
    first: CheckDraft<'a>,
    timing: Timing,
    /// Further checks, with a time limit and an interval of their own.
    more: Vec<(CheckDraft<'a>, Option<Duration>, Option<Duration>)>,
}

/// What a section is about.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Purpose {
    /// `[health]`: whether it lives.
    Life,
    /// `[readiness]`: whether connections are led to it.
    Readiness,
}

pub(super) fn read(
    mut section: Section<'_>,
    purpose: Purpose,
    usual: HealthTimes,
) -> HealthDraft<'_> {
    let first = read_check(&mut section, purpose);
    let timing = read_timing(&mut section, purpose, usual);
    let more = section.sections("check", CHECKS_MAX).unwrap_or_default();
    let more = more.into_iter().map(|mut section| {
        let draft = read_check(&mut section, purpose);
        if draft.kind == Some(Kind::Process) {
            draft.place.fail("a further check of this type checks nothing", "remove it");
        }
        let timeout = section.take("timeout").and_then(|it| it.time(SHORT, TIMEOUT_MAX));
        let interval = section.take("interval").and_then(|it| it.time(SHORT, LONG));
        section.finish();
        (draft, timeout, interval)
    });
    let more = more.collect();
    section.later(&["on_fail", "liveness"]);
    section.finish();
    HealthDraft { first, timing, more }
}

fn read_check<'a>(section: &mut Section<'a>, purpose: Purpose) -> CheckDraft<'a> {
    let place = section.place.clone();
    let written = section.take("type");
    let kind = written.as_ref().and_then(|value| read_kind(value, purpose));
    let port = section.take("port");
    if let (Some(port), Some(kind)) = (&port, kind.filter(|kind| !kind.has_port())) {
        let text = format!("a \"{}\" check has no port", kind.word());
        port.place.fail(text, "remove it or change `type`");
    }
    let path = section.take("path");
    if let Some(path) = &path {
        let message = "only \"http\" checks have a path";
        match kind {
            Some(Kind::Http) => {}
            Some(_) => path.place.fail(message, "write type = \"http\""),
            None if written.is_none() => path.place.fail(message, "add type = \"http\""),
            None => {}
        }
    }
    let path = path.and_then(|value| value.parsed(read_path));
    let command = section.take("command");
    match (&command, kind) {
        (None, Some(Kind::Exec)) => {
            section.missing("command", "add command = \"PROGRAM\", which exits with 0".into());
        }
        (None, _) | (Some(_), Some(Kind::Exec)) => {}
        (Some(command), Some(_)) => {
            command.place.fail("only \"exec\" checks have a command", "write type = \"exec\"");
        }
        (Some(command), None) if written.is_none() => {
            command.place.fail("only \"exec\" checks have a command", "add type = \"exec\"");
        }
        (Some(_), None) => {}
    }
    let command = command.and_then(|value| read_words(&value)).unwrap_or_default();
    CheckDraft { place, kind, port, path, command }
}

fn read_kind(value: &Value<'_>, purpose: Purpose) -> Option<Kind> {
    let kind = value.one_of(&[
        ("port", Kind::Port),
        ("tcp", Kind::Port),
        ("http", Kind::Http),
        ("exec", Kind::Exec),
        ("watchdog", Kind::Watchdog),
        ("process", Kind::Process),
        ("none", Kind::Process),
    ])?;
    match (purpose, kind) {
        (Purpose::Readiness, Kind::Process | Kind::Watchdog) => {
            let text = format!("readiness cannot be \"{}\"", kind.word());
            value.place.fail(text, "write \"port\", \"http\" or \"exec\"");
            None
        }
        _ => Some(kind),
    }
}

/// One line for the shell, or a program with its arguments.
fn read_words(value: &Value<'_>) -> Option<Vec<String>> {
    let DeValue::Array(_) = value.inner else {
        let line = value.filled(COMMAND_MAX)?;
        return Some(vec!["/bin/sh".into(), "-c".into(), line.into()]);
    };
    let items = value.list(WORDS_MAX)?;
    if items.is_empty() {
        value.fail("is empty", "write the program and its arguments");
    }
    items.iter().map(|item| item.text(COMMAND_MAX).map(str::to_owned)).collect()
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

/// Bounds of the times of a check.
const SHORT: Duration = Duration::from_millis(100);
const LONG: Duration = Duration::from_secs(3600);
const TIMEOUT_MAX: Duration = Duration::from_secs(600);

fn read_timing(section: &mut Section<'_>, purpose: Purpose, usual: HealthTimes) -> Timing {
    let mut timing = Timing::from(usual);
    if purpose == Purpose::Life
        && let Some(value) = section.take("start_timeout")
    {
        super::set(&mut timing.start_timeout, value.time(Duration::ZERO, DAY));
    }
    if let Some(value) = section.take("timeout") {
        super::set(&mut timing.timeout, value.time(SHORT, TIMEOUT_MAX));
    }
    if let Some(value) = section.take("failures") {
        super::set(&mut timing.failures, value.number(1, 1000).map(|number| number as u32));
    }
    let Some(value) = section.take("interval") else { return timing };
    // One time alone is Cloud Foundry's health-check-interval: how often a running app is asked.
    if !matches!(value.inner, DeValue::Table(_)) {
        super::set(&mut timing.interval_healthy, value.time(SHORT, LONG));
    } else if let Some(mut both) = value.section() {
        let mut time = |key| both.take(key).and_then(|value| value.time(SHORT, LONG));
        super::set(&mut timing.interval_unhealthy, time("unhealthy"));
        super::set(&mut timing.interval_healthy, time("healthy"));
        both.finish();
    }
    timing
}

/// A process, as far as checks are about it.
pub(super) struct Subject<'a> {
    pub(super) name: &'a str,
    /// Names of its ports.
    pub(super) mine: &'a [String],
    /// All ports of the app.
    pub(super) ports: &'a [PortDraft<'a>],
    /// Where nobody says anything.
    pub(super) usual: HealthTimes,
}

impl Subject<'_> {
    fn first_port(&self) -> Option<u16> {
        let first = self.ports.iter().find(|port| self.mine.first() == Some(&port.model.name));
        first.map(|port| port.model.container)
    }

    /// A section that all processes share is for `web`, and for who has a port.
    fn shares(&self) -> bool {
        self.name == "web" || self.first_port().is_some()
    }
}

/// The check of one process: its own, else the shared one, else by whether it has a port.
pub(super) fn resolve(
    it: &Subject<'_>,
    own: Option<&HealthDraft<'_>>,
    shared: Option<&HealthDraft<'_>>,
) -> Option<Health> {
    let Some(health) = own.or(shared) else {
        let check = it.first_port().map_or(Check::Process, |port| Check::Port { port });
        return Some(Timing::from(it.usual).with(check));
    };
    if own.is_none() && !it.shares() {
        return Some(health.timing.with(Check::Process));
    }
    health.resolve(it, own.is_some())
}

/// The readiness check of one process, if it has one.
pub(super) fn resolve_readiness(
    it: &Subject<'_>,
    own: Option<&HealthDraft<'_>>,
    shared: Option<&HealthDraft<'_>>,
) -> Option<Option<Health>> {
    let Some(health) = own.or(shared.filter(|_| it.shares())) else { return Some(None) };
    health.resolve(it, own.is_some()).map(Some)
}

impl HealthDraft<'_> {
    fn resolve(&self, it: &Subject<'_>, own: bool) -> Option<Health> {
        let check = self.first.resolve(it, own)?;
        let mut health = self.timing.with(check);
        for (draft, timeout, interval) in &self.more {
            health.also.push(Probe {
                check: draft.resolve(it, own)?,
                timeout: timeout.unwrap_or(health.timeout),
                interval: interval.unwrap_or(health.interval_healthy),
            });
        }
        Some(health)
    }
}

impl CheckDraft<'_> {
    fn resolve(&self, it: &Subject<'_>, own: bool) -> Option<Check> {
        let kind = match self.kind {
            Some(kind) => kind,
            None if it.first_port().is_none() && self.port.is_none() => Kind::Process,
            None => Kind::Port,
        };
        match kind {
            Kind::Process => return Some(Check::Process),
            Kind::Watchdog => return Some(Check::Watchdog),
            Kind::Exec => return Some(Check::Exec { command: self.command.clone() }),
            Kind::Port | Kind::Http => {}
        }
        let port = match &self.port {
            Some(value) => find_port(value, it.name, own, it.mine, it.ports)?,
            None => it.first_port().or_else(|| {
                let text = format!("process `{}` has no port that could be checked", it.name);
                self.place.fail(text, "add [[port]], or write type = \"process\"");
                None
            })?,
        };
        let path = self.path.clone().unwrap_or_else(|| "/".into());
        Some(if kind == Kind::Http { Check::Http { port, path } } else { Check::Port { port } })
    }
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
