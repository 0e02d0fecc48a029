//! What a manifest of cf says, key by key, checked. Pure.
//!
//! Keys are kebab-case; with underscores they mean the same. What is unknown is a mistake, what is
//! known and has no counterpart here a note.

use super::units::{bytes, is_default, json, mib};
use super::{Mistake, Note};
use crate::cli::text::nearest;
use crate::lifecycle::yaml::{Node, Pair, Tree};
use std::collections::BTreeSet;

/// Most applications in one file.
pub(super) const APPS_MAX: usize = 100;
/// Longest start command, as in Cloud Foundry.
const COMMAND_MAX: usize = 4096;

/// What one entry of `applications` says; what it does not say is `None` or empty.
#[derive(Clone, Debug, Default)]
pub struct App {
    pub line: usize,
    pub name: String,
    pub path: Option<String>,
    pub buildpacks: Vec<String>,
    pub docker: Option<(String, Option<String>)>,
    pub stack: Option<String>,
    pub web: Process,
    /// Its line, its type, what it says. `web` is not among them.
    pub processes: Vec<(usize, String, Process)>,
    pub has_processes: bool,
    pub sidecars: Vec<Sidecar>,
    pub env: Vec<(usize, String, String)>,
    pub routes: Vec<Route>,
    pub no_route: bool,
    pub services: Vec<Bound>,
    pub services_by_file: bool,
    pub notes: Vec<Note>,
}

/// What a process says.
#[derive(Clone, Debug, Default)]
pub struct Process {
    pub command: Option<String>,
    pub instances: Option<u64>,
    /// MiB.
    pub memory: Option<u64>,
    /// MiB.
    pub disk: Option<u64>,
    /// Bytes in a second; `None` inside: as many as there are.
    pub log_rate: Option<Option<u64>>,
    /// Seconds.
    pub timeout: Option<u64>,
    pub health: Check,
    pub readiness: Check,
}

/// A check of either kind.
#[derive(Clone, Debug, Default)]
pub struct Check {
    /// `port`, `http` or `process`.
    pub kind: Option<&'static str>,
    pub endpoint: Option<String>,
    /// Seconds.
    pub invocation_timeout: Option<u64>,
    /// Seconds.
    pub interval: Option<u64>,
}

/// One entry of `sidecars`.
#[derive(Clone, Debug)]
pub struct Sidecar {
    pub line: usize,
    pub name: String,
    pub command: String,
    pub processes: Vec<String>,
    /// MiB.
    pub memory: Option<u64>,
}

/// One entry of `routes`.
#[derive(Clone, Debug)]
pub struct Route {
    pub line: usize,
    /// Line and column of its text.
    pub at: (usize, usize),
    pub route: String,
    /// The port of a TCP route.
    pub port: Option<u16>,
}

/// One entry of `services`.
#[derive(Clone, Debug)]
pub struct Bound {
    pub line: usize,
    pub name: String,
    pub binding_name: Option<String>,
}

/// Reads a whole manifest, or says all that is wrong with it.
pub fn read(top: &Node) -> Result<Vec<App>, Vec<Mistake>> {
    let mut reader = Reader::default();
    let apps = reader.top(top);
    match reader.mistakes.is_empty() {
        true => Ok(apps),
        false => Err(reader.mistakes),
    }
}

#[derive(Default)]
struct Reader {
    mistakes: Vec<Mistake>,
    notes: Vec<Note>,
}

/// Keys of a process, which stand at the top of an app for its `web`.
const PROCESS: [&str; 15] = [
    "command",
    "instances",
    "memory",
    "disk-quota",
    "log-rate-limit-per-second",
    "timeout",
    "health-check-type",
    "health-check-http-endpoint",
    "health-check-invocation-timeout",
    "health-check-interval",
    "readiness-health-check-type",
    "readiness-health-check-http-endpoint",
    "readiness-health-check-invocation-timeout",
    "readiness-health-check-interval",
    "type",
];

/// Where cf shall push to, which is this box.
const TARGET: [&str; 4] = ["space", "org", "organization", "target"];

/// Keys of an app of before there were routes, which still stand in many manifests.
const OLD: [&str; 6] = ["host", "hosts", "domain", "domains", "no-hostname", "url"];

/// The other keys of an app.
const APP: [&str; 18] = [
    "name",
    "path",
    "buildpack",
    "buildpacks",
    "docker",
    "lifecycle",
    "stack",
    "env",
    "routes",
    "no-route",
    "random-route",
    "default-route",
    "services",
    "processes",
    "sidecars",
    "metadata",
    "features",
    "cnb-credentials",
];

/// Whether an app may have this key, written with hyphens.
pub fn is_attribute(key: &str) -> bool {
    let of_process = PROCESS.contains(&key) && key != "type";
    of_process || APP.contains(&key) || OLD.contains(&key)
}

impl Reader {
    fn fail(&mut self, line: usize, what: impl Into<String>, cure: impl Into<String>) {
        self.mistakes.push(Mistake::new(line, what.into(), cure));
    }

    fn note(&mut self, line: usize, what: impl Into<String>) {
        self.notes.push(Note { line, what: what.into() });
    }

    fn top(&mut self, top: &Node) -> Vec<App> {
        let Some(pairs) = top.as_map() else {
            self.fail(
                top.line,
                "this is no manifest",
                "write `applications:` with a list below it",
            );
            return Vec::new();
        };
        let mut apps = Vec::new();
        let mut any = false;
        for pair in pairs {
            match pair.key.as_str() {
                "version" if pair.value.as_text() == Some("1") => {}
                "version" => self.fail(pair.line, "the version is not 1", "write version: 1"),
                "applications" => {
                    any = true;
                    let items = self.list(pair);
                    if items.len() > APPS_MAX {
                        let what = format!("{} applications are more than {APPS_MAX}", items.len());
                        self.fail(pair.line, what, "write some of them to a file of their own");
                    }
                    for item in items.iter().take(APPS_MAX) {
                        apps.extend(self.app(item));
                    }
                }
                // Where anchors are kept, of whom the apps below have what they want.
                _ if pair.anchored || matches!(pair.value.tree, Tree::Map(_) | Tree::List(_)) => {}
                key if TARGET.contains(&key) => {
                    self.note(pair.line, format!("{key}: it is pushed to this box"));
                }
                _ => self.unknown(pair, &APP.iter().chain(&PROCESS).copied().collect::<Vec<_>>()),
            }
        }
        if !any {
            self.fail(top.line, "`applications` is missing", "write it with a list below it");
        }
        if any && apps.is_empty() && self.mistakes.is_empty() {
            self.fail(top.line, "`applications` has none", "write `- name: NAME` below it");
        }
        if let Some(first) = apps.first_mut() {
            first.notes.append(&mut self.notes);
        }
        for (at, app) in apps.iter().enumerate() {
            if apps[..at].iter().any(|other: &App| other.name == app.name) {
                self.fail(app.line, format!("`{}` is there twice", app.name), "rename one of them");
            }
        }
        apps
    }

    fn app(&mut self, node: &Node) -> Option<App> {
        let Some(pairs) = node.as_map() else {
            let what = format!("an application is {} here", node.kind());
            self.fail(node.line, what, "write `- name: NAME`");
            return None;
        };
        let mut app = App { line: node.line, ..App::default() };
        let mut seen: Vec<String> = Vec::new();
        let mut processes = None;
        for pair in pairs {
            let key = pair.key.replace('_', "-");
            if seen.contains(&key) {
                self.fail(pair.line, format!("`{key}` is there twice"), "remove one");
            }
            seen.push(key.clone());
            let known = APP.contains(&key.as_str());
            if OLD.contains(&key.as_str()) {
                let text =
                    format!("{key}: no names are routed here; the app has a port of the box");
                self.note(pair.line, text);
            } else if !known && (key == "type" || !PROCESS.contains(&key.as_str())) {
                self.unknown(pair, &APP.iter().chain(&PROCESS).copied().collect::<Vec<_>>());
            } else if pair.value.tree == Tree::Null {
                // As if it were not there.
            } else if key == "processes" {
                // After all that the top says of `web`.
                processes = Some(pair);
            } else if known {
                self.app_key(&mut app, &key, pair);
            } else {
                self.process_key(&mut app.web, &key, pair);
            }
        }
        if let Some(pair) = processes {
            self.processes(&mut app, pair);
        }
        if app.name.is_empty() {
            self.fail(app.line, "`name` is missing", "write name: NAME");
        }
        let built = ["path", "buildpack", "buildpacks"];
        if let (true, Some(key)) =
            (app.docker.is_some(), seen.iter().find(|it| built.contains(&&***it)))
        {
            self.fail(app.line, format!("`docker` and `{key}` exclude each other"), "remove one");
        }
        app.notes = std::mem::take(&mut self.notes);
        Some(app)
    }

    fn unknown(&mut self, pair: &Pair, known: &[&str]) {
        let what = format!("unknown key `{}`", pair.key);
        match nearest(&pair.key.replace('_', "-"), known.iter().copied()) {
            Some(near) => self.fail(pair.line, what, format!("did you mean `{near}`?")),
            // cf passes it over, too.
            None => self.note(pair.line, format!("{what}: it means nothing here")),
        }
    }

    fn app_key(&mut self, app: &mut App, key: &str, pair: &Pair) {
        match key {
            "name" => app.name = self.text(pair).unwrap_or_default(),
            "path" => app.path = self.text(pair),
            "stack" => app.stack = self.text(pair),
            "buildpack" => app.buildpacks.extend(self.text(pair).filter(|it| !is_default(it))),
            "buildpacks" => {
                let names = self.texts(pair);
                app.buildpacks.extend(names.into_iter().filter(|it| !is_default(it)));
            }
            "docker" => app.docker = self.docker(pair),
            "lifecycle" => match self.text(pair).as_deref() {
                Some("buildpack" | "docker") | None => {}
                Some("cnb") => {
                    self.note(pair.line, "lifecycle: cnb: the box's own buildpacks build the app");
                }
                Some(other) => {
                    let text = format!("`lifecycle` cannot be `{other}`");
                    self.fail(pair.line, text, "write buildpack or docker");
                }
            },
            "env" => self.env(app, pair),
            "routes" => self.routes(app, pair),
            "no-route" => app.no_route = self.truth(pair).unwrap_or(false),
            "random-route" | "default-route" => {
                if self.truth(pair) == Some(true) {
                    let text =
                        format!("{key}: no names are routed here; the app has a port of the box");
                    self.note(pair.line, text);
                }
            }
            "services" => self.services(app, pair),
            "sidecars" => self.sidecars(app, pair),
            "features" => self.features(app, pair),
            "metadata" => {
                self.note(pair.line, "metadata: labels and annotations have no place here")
            }
            _ => self.note(pair.line, format!("{key}: there are no such buildpacks here")),
        }
    }

    fn docker(&mut self, pair: &Pair) -> Option<(String, Option<String>)> {
        let image = pair.value.get("image").and_then(Node::as_text).map(str::to_owned);
        for inner in pair.value.as_map().unwrap_or_default() {
            if !["image", "username"].contains(&inner.key.as_str()) {
                self.unknown(inner, &["image", "username"]);
            }
        }
        if image.is_none() {
            self.fail(pair.line, "`docker` names no image", "write image: NAME below it");
        }
        let user = pair.value.get("username").and_then(Node::as_text).map(str::to_owned);
        Some((image?, user))
    }

    fn env(&mut self, app: &mut App, pair: &Pair) {
        let Some(all) = pair.value.as_map() else {
            return self.fail(pair.line, format!("`env` is {}", pair.value.kind()), "write a map");
        };
        for one in all {
            let value = match &one.value.tree {
                Tree::Null => String::new(),
                Tree::Text { text, .. } => text.clone(),
                Tree::List(_) | Tree::Map(_) => json(&one.value).to_string(),
            };
            app.env.push((one.line, one.key.clone(), value));
        }
    }

    fn routes(&mut self, app: &mut App, pair: &Pair) {
        for item in self.list(pair) {
            let line = item.line;
            let text = item.get("route").and_then(|it| Some((it.as_text()?, (it.line, it.column))));
            let Some((route, at)) = text else {
                self.fail(line, "a route is missing here", "write `- route: HOST`");
                continue;
            };
            for inner in item.as_map().unwrap_or_default() {
                match inner.key.as_str() {
                    "route" | "protocol" => {}
                    "options" => {
                        self.note(inner.line, "options of a route: there is no router here")
                    }
                    _ => self.unknown(inner, &["route", "protocol", "options"]),
                }
            }
            let tcp = item.get("protocol").and_then(Node::as_text) == Some("tcp");
            let port = route.rsplit_once(':').map(|(_, port)| port);
            let port = port.filter(|port| !port.contains('/')).map(str::parse::<u16>);
            if tcp && !matches!(port, Some(Ok(1..))) {
                self.fail(line, format!("TCP route `{route}` has no port"), "write HOST:PORT");
            }
            let port = port.and_then(Result::ok).filter(|port| *port > 0);
            app.routes.push(Route { line, at, route: route.to_owned(), port });
        }
    }

    fn services(&mut self, app: &mut App, pair: &Pair) {
        for item in self.list(pair) {
            let line = item.line;
            let name = item.as_text().or(item.get("name").and_then(Node::as_text));
            let Some(name) = name else {
                self.fail(line, "a service has no name", "write `- NAME`, or name: NAME");
                continue;
            };
            for inner in item.as_map().unwrap_or_default() {
                match inner.key.replace('-', "_").as_str() {
                    "name" | "binding_name" => {}
                    "parameters" => {
                        let text = format!("parameters of service `{name}`: no broker is asked");
                        self.note(inner.line, text);
                    }
                    _ => self.unknown(inner, &["name", "parameters", "binding_name"]),
                }
            }
            let binding = item.get("binding_name").or(item.get("binding-name"));
            let binding_name = binding.and_then(Node::as_text).map(str::to_owned);
            app.services.push(Bound { line, name: name.to_owned(), binding_name });
        }
    }

    fn processes(&mut self, app: &mut App, pair: &Pair) {
        app.has_processes = true;
        let mut seen = BTreeSet::new();
        for item in self.list(pair) {
            let Some(name) = item.get("type").and_then(Node::as_text).map(str::to_owned) else {
                self.fail(item.line, "a process has no type", "write `- type: web`");
                continue;
            };
            if !seen.insert(name.clone()) {
                self.fail(item.line, format!("process `{name}` is there twice"), "remove one");
                continue;
            }
            // What the app says at its top is of its `web`, and gives way to what that says itself.
            let mut process = if name == "web" { app.web.clone() } else { Process::default() };
            for inner in item.as_map().unwrap_or_default() {
                let key = inner.key.replace('_', "-");
                match PROCESS.contains(&key.as_str()) {
                    false => self.unknown(inner, &PROCESS),
                    true if key == "type" || inner.value.tree == Tree::Null => {}
                    true => self.process_key(&mut process, &key, inner),
                }
            }
            match name.as_str() {
                "web" => app.web = process,
                _ => app.processes.push((item.line, name, process)),
            }
        }
    }

    fn sidecars(&mut self, app: &mut App, pair: &Pair) {
        for item in self.list(pair) {
            let text = |key: &str| item.get(key).and_then(Node::as_text).map(str::to_owned);
            let (name, command) = (text("name"), text("command"));
            let mut sidecar = Sidecar {
                line: item.line,
                name: name.clone().unwrap_or_default(),
                command: command.clone().unwrap_or_default(),
                processes: Vec::new(),
                memory: None,
            };
            for inner in item.as_map().unwrap_or_default() {
                match inner.key.replace('_', "-").as_str() {
                    "name" | "command" => {}
                    "process-types" => sidecar.processes = self.texts(inner),
                    "memory" => sidecar.memory = self.size(inner),
                    _ => self.unknown(inner, &["name", "command", "process-types", "memory"]),
                }
            }
            match name.is_some() && command.is_some() {
                true => app.sidecars.push(sidecar),
                false => self.fail(item.line, "a sidecar needs `name` and `command`", "add them"),
            }
        }
    }

    fn features(&mut self, app: &mut App, pair: &Pair) {
        for inner in pair.value.as_map().unwrap_or_default() {
            let on = self.truth(inner).unwrap_or(false);
            match inner.key.as_str() {
                "file-based-vcap-services" => app.services_by_file = on,
                // Revisions are always kept.
                "revisions" => {}
                "ssh" => self.note(inner.line, "features.ssh: `terrarium ssh` always gets in"),
                key => {
                    self.note(inner.line, format!("features.{key}: there is no such feature here"))
                }
            }
        }
    }

    fn process_key(&mut self, process: &mut Process, key: &str, pair: &Pair) {
        let (check, inner) = match key.strip_prefix("readiness-") {
            Some(inner) => (&mut process.readiness, inner),
            None => (&mut process.health, key),
        };
        match inner {
            "health-check-type" => check.kind = self.check_kind(pair),
            "health-check-http-endpoint" => check.endpoint = self.text(pair),
            "health-check-invocation-timeout" => check.invocation_timeout = self.number(pair, 1),
            "health-check-interval" => check.interval = self.number(pair, 1),
            "command" => {
                process.command = self.text(pair).filter(|it| !is_default(it));
                if process.command.as_ref().is_some_and(|it| it.len() > COMMAND_MAX) {
                    let text = format!("the command is longer than {COMMAND_MAX} bytes");
                    self.fail(pair.line, text, "put it into a script");
                }
            }
            "instances" => process.instances = self.number(pair, 0),
            "memory" => process.memory = self.size(pair),
            "disk-quota" => process.disk = self.size(pair),
            "timeout" => process.timeout = self.number(pair, 1),
            _ => process.log_rate = self.rate(pair),
        }
    }

    fn check_kind(&mut self, pair: &Pair) -> Option<&'static str> {
        match self.text(pair)?.as_str() {
            "port" => Some("port"),
            "http" => Some("http"),
            "process" | "none" => Some("process"),
            other => {
                let text = format!("`{}` cannot be `{other}`", pair.key);
                self.fail(pair.line, text, "write port, http or process");
                None
            }
        }
    }

    fn text(&mut self, pair: &Pair) -> Option<String> {
        let text = pair.value.as_text();
        if text.is_none() {
            let what = format!("`{}` is {}", pair.key, pair.value.kind());
            self.fail(pair.line, what, "write text");
        }
        text.map(str::to_owned)
    }

    fn list<'a>(&mut self, pair: &'a Pair) -> &'a [Node] {
        match &pair.value.tree {
            Tree::List(items) => items,
            Tree::Null => &[],
            _ => {
                let what = format!("`{}` is {}", pair.key, pair.value.kind());
                self.fail(pair.line, what, "write a list, each item behind `- `");
                &[]
            }
        }
    }

    fn texts(&mut self, pair: &Pair) -> Vec<String> {
        let items = self.list(pair).iter();
        let texts = items.map(|item| item.as_text().ok_or(item.line).map(str::to_owned));
        let mut good = Vec::new();
        for text in texts.collect::<Vec<_>>() {
            match text {
                Ok(text) => good.push(text),
                Err(line) => {
                    self.fail(line, format!("`{}` lists no text here", pair.key), "write it")
                }
            }
        }
        good
    }

    fn truth(&mut self, pair: &Pair) -> Option<bool> {
        match pair.value.as_text().map(str::to_lowercase).as_deref() {
            Some("true" | "yes" | "on") => Some(true),
            Some("false" | "no" | "off") => Some(false),
            _ => {
                let what = format!("`{}` is neither true nor false", pair.key);
                self.fail(pair.line, what, "write one of both");
                None
            }
        }
    }

    fn number(&mut self, pair: &Pair, least: u64) -> Option<u64> {
        let number = pair.value.as_text().and_then(|text| text.parse().ok());
        let number = number.filter(|number| (least..=1_000_000).contains(number));
        if number.is_none() {
            let what = format!("`{}` is no whole number from {least} on", pair.key);
            self.fail(pair.line, what, "write one");
        }
        number
    }

    /// MiB, of `64M`, `64MB`, `1G`, `1GB`, `1T` or `1TB` in any case.
    fn size(&mut self, pair: &Pair) -> Option<u64> {
        let text = pair.value.as_text().unwrap_or_default().to_uppercase();
        let size = mib(&text);
        if size.is_none() {
            let what = format!("`{}` is no size", pair.key);
            self.fail(pair.line, what, "write a number with M, G or T, such as 256M");
        }
        size
    }

    fn rate(&mut self, pair: &Pair) -> Option<Option<u64>> {
        let text = pair.value.as_text().unwrap_or_default().to_uppercase();
        let rate = match text.as_str() {
            "-1" => Some(None),
            text => bytes(text).map(Some),
        };
        if rate.is_none() {
            let what = format!("`{}` is no rate", pair.key);
            self.fail(pair.line, what, "write a number with B, K, M or G, or -1");
        }
        rate
    }
}
