//! From what a manifest of cf says to a manifest of ours, and what could not be carried over. Pure.

use super::manifest::{App, Check, Process, Route};
use super::{Imported, Mistake, Named, Note, Port, Ports, Surroundings};
use crate::config::manifest::is_uri;
use crate::config::merge::{inline, key, quoted};
use crate::model::service::{Service, USER_PROVIDED};
use crate::unit::{AppName, ImageRef};
use std::collections::BTreeSet;
use std::fmt::Write;

/// What cf gives who says nothing, in MiB.
const USUAL_SIZE: u64 = 1024;
/// Buildpacks of cf, without `_buildpack`, and what those of this project that do the same are called.
const OURS: [(&str, &str); 3] =
    [("binary", "procfile"), ("nodejs", "node"), ("staticfile", "static")];
/// Longest name of a process type or a sidecar here.
const NAME_MAX: usize = 16;

/// The manifest of `app`. `ports`: asked for the port of the box that its `web` answers on, and told of those
/// that are `named`.
pub fn write(
    app: App,
    ports: &mut Ports<'_>,
    named: &BTreeSet<u16>,
    around: &Surroundings<'_>,
) -> Result<Imported, Mistake> {
    let name = name_of(&app)?;
    let of_route = |route: &Route| {
        let (line, column) = route.at;
        route.port.map(|port| Named { port, line, column })
    };
    let tcp = app.routes.iter().find_map(of_route).filter(|_| !app.no_route);
    let has_port = !app.no_route && tcp.is_none();
    let publish = match has_port {
        true => Some(ports(&name, named).ok_or_else(|| {
            let cure = "name one with --port, or write `no-route: true`";
            Mistake::new(app.line, format!("`{name}` has a route, and no port is free"), cure)
        })?),
        false => tcp.map(|named| Port::This(named.port)),
    };
    let mut writer = Writer { text: String::new(), notes: app.notes.clone(), around };
    if name.as_str() != app.name {
        writer.note(app.line, format!("name: `{}` is called `{name}` here", app.name));
    }
    writer.line(&format!("name = {}", quoted(name.as_str())));
    writer.uris(&app);
    writer.origin(&app)?;
    writer.sizes("run", &app.web, Some(USUAL_SIZE));
    if let Some(command) = &app.web.command {
        writer.line(&format!("command = {}", quoted(command)));
    }
    writer.rate(&app);
    writer.port(&app, publish);
    match app.has_processes {
        true => writer.processes(&app),
        false => writer.checks(&app.web, "", "port"),
    }
    writer.sidecars(&app);
    writer.env(&app);
    writer.services(&app);
    if app.services_by_file {
        writer.head("features");
        writer.line("file_based_services = true");
    }
    let text = "egress: cf lets an app reach other hosts; here it reaches what [[egress]] of its manifest says";
    writer.note(app.line, text);
    let mut notes = writer.notes;
    notes.sort_by_key(|note| note.line);
    Ok(Imported { name, text: writer.text, notes, has_port, named: tcp, line: app.line })
}

/// The app's name in our alphabet.
fn name_of(app: &App) -> Result<AppName, Mistake> {
    let name = plain(&app.name, 40);
    name.parse().map_err(|_| {
        let what = format!("`{}` cannot be the name of an app here", app.name);
        Mistake::new(app.line, what, "1 to 40 of a-z, 0-9 and inner `-`")
    })
}

/// Lower case, with hyphens for what is no letter or digit.
fn plain(text: &str, max: usize) -> String {
    let one = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
    let text: String = text.chars().map(one).take(max).collect();
    text.trim_matches('-').to_owned()
}

struct Writer<'a> {
    text: String,
    notes: Vec<Note>,
    around: &'a Surroundings<'a>,
}

impl Writer<'_> {
    fn line(&mut self, line: &str) {
        self.text.push_str(line);
        self.text.push('\n');
    }

    fn head(&mut self, name: &str) {
        let _ = write!(self.text, "\n[{name}]\n");
    }

    fn note(&mut self, line: usize, what: impl Into<String>) {
        self.notes.push(Note { line, what: what.into() });
    }

    /// What the app is told of its routes, which lead here only if somebody before the box makes them.
    fn uris(&mut self, app: &App) {
        let mut uris: Vec<String> = Vec::new();
        for route in &app.routes {
            let name = route.route.trim_end_matches('/');
            let uri = quoted(name);
            if !is_uri(name) {
                self.note(route.line, format!("route {name}: the app is not told of such a name"));
            } else if !uris.contains(&uri) {
                uris.push(uri);
            }
        }
        if !uris.is_empty() && !app.no_route {
            self.line(&format!("uris = [{}]", uris.join(", ")));
        }
    }

    /// `[image]`, or `[source]` and `[build]`.
    fn origin(&mut self, app: &App) -> Result<(), Mistake> {
        if let Some((image, user)) = &app.docker {
            let mut name: ImageRef = image.parse().map_err(|err| {
                Mistake::new(app.line, format!("docker image `{image}`: {err}"), "mend its name")
            })?;
            if name.host().is_none() {
                // A name without a registry means that one to cf.
                let path = name.repository("");
                let library = if path.contains('/') { "" } else { "library/" };
                name = format!("docker.io/{library}{image}").parse().unwrap_or(name);
            }
            self.head("image");
            self.line(&format!("ref = {}", quoted(&name.to_string())));
            if let Some(user) = user {
                let text =
                    format!("docker.username: log in as `{user}` in [registry] of terrarium.toml");
                self.note(app.line, text);
            }
            return Ok(());
        }
        let path = self.around.dir.join(app.path.as_deref().unwrap_or("."));
        let path: std::path::PathBuf = path.components().collect();
        self.head("source");
        self.line(&format!("path = {}", quoted(&path.to_string_lossy())));
        let packed = ["zip", "jar", "war", "tgz", "gz", "tar"];
        let unpacked = self.around.unpacks;
        if !unpacked && path.extension().is_some_and(|end| packed.iter().any(|it| end == *it)) {
            self.note(app.line, "path: unpack the archive into a directory, and name that");
        }
        self.build(app);
        Ok(())
    }

    fn build(&mut self, app: &App) {
        let names: Vec<String> =
            app.buildpacks.iter().map(|name| self.buildpack(app, name)).collect();
        let stack = app.stack.as_ref().filter(|stack| (self.around.stacks)(stack));
        if let (Some(stack), None) = (&app.stack, stack) {
            self.note(
                app.line,
                format!("stack: {stack} is not on this box; its usual one is used"),
            );
        }
        if names.is_empty() && stack.is_none() {
            return;
        }
        self.head("build");
        if !names.is_empty() {
            let names: Vec<String> = names.iter().map(|name| quoted(name)).collect();
            self.line(&format!("buildpacks = [{}]", names.join(", ")));
        }
        if let Some(stack) = stack {
            self.line(&format!("stack = {}", quoted(stack)));
        }
    }

    /// What a buildpack is called here: a URL that the builder takes is itself, with its `#branch`;
    /// `ruby_buildpack` is `ruby`, unless the box has one of the whole name; `nodejs_buildpack` is `node`,
    /// unless it has `nodejs`.
    fn buildpack(&mut self, app: &App, name: &str) -> String {
        let last = name.split('#').next().unwrap_or(name).rsplit('/').next().unwrap_or(name);
        let last = last.trim_end_matches(".git").trim_end_matches(".zip").trim_end_matches(".tgz");
        if !name.contains("://") && self.around.buildpacks.contains(last) {
            return last.to_owned();
        }
        let short = last.trim_end_matches("buildpack").trim_end_matches(['-', '_']);
        let short = if short.is_empty() { last } else { short };
        let ours = OURS.iter().find(|(theirs, _)| *theirs == short).map(|(_, ours)| *ours);
        let short = ours.filter(|_| !self.around.buildpacks.contains(short)).unwrap_or(short);
        if let Some((scheme, _)) = name.split_once("://") {
            let text = format!(
                "buildpack {name}: each staging fetches it, which [[egress]] has to allow; or unpack it into \
                 /etc/terrarium/buildpacks/{short}, and write {short}"
            );
            self.note(app.line, text);
            if matches!(scheme, "http" | "https" | "git" | "ssh") {
                return name.to_owned();
            }
        } else if short != name {
            self.note(app.line, format!("buildpack {name}: is called {short} here"));
        }
        short.to_owned()
    }

    /// `instances`, `memory` and `disk`. `usual`: what is written where nothing is said, in MiB.
    fn sizes(&mut self, section: &str, process: &Process, usual: Option<u64>) {
        self.head(section);
        if let Some(instances) = process.instances {
            self.line(&format!("instances = {instances}"));
        }
        for (key, size) in [("memory", process.memory), ("disk", process.disk)] {
            if let Some(mib) = size.or(usual) {
                self.line(&format!("{key} = \"{mib}MiB\""));
            }
        }
    }

    fn rate(&mut self, app: &App) {
        for (line, name, process) in &app.processes {
            if process.log_rate.is_some() && process.log_rate != app.web.log_rate {
                let text =
                    format!("log-rate-limit-per-second of process {name}: an app has one rate");
                self.note(*line, text);
            }
        }
        let Some(rate) = app.web.log_rate else { return };
        self.head("log");
        match rate {
            None => self.line("rate = \"none\""),
            Some(bytes) => {
                let bytes = match bytes {
                    n if n > 0 && n % (1 << 20) == 0 => format!("{}MiB", n >> 20),
                    n if n > 0 && n % 1024 == 0 => format!("{}KiB", n >> 10),
                    n => format!("{n}B"),
                };
                self.line(&format!("rate = \"{bytes}/s\""));
            }
        }
    }

    /// The port of `web`, and of the box, which is the first TCP route's, if there is one.
    fn port(&mut self, app: &App, publish: Option<Port>) {
        self.text.push_str("\n[[port]]\n");
        if app.docker.is_none() {
            self.line("container = 8080");
        }
        let at = match publish {
            Some(Port::This(port)) => {
                self.line(&format!("publish = {port}"));
                format!("port {port} of the box")
            }
            Some(Port::Later) => "a port of the box".to_owned(),
            // Whoever pushes it later has said that, too.
            None => {
                self.line("publish = false");
                return;
            }
        };
        let mut has_tcp = false;
        for route in &app.routes {
            match route.port {
                Some(_) if !has_tcp => has_tcp = true,
                _ => {
                    let what = &route.route;
                    let text = format!("route {what}: no names are routed here; it is {at}");
                    self.note(route.line, text);
                }
            }
        }
        if app.routes.is_empty() {
            self.note(app.line, format!("route: the app answers on {at}"));
        }
    }

    fn processes(&mut self, app: &App) {
        // Sizes and command of `web` are those of [run].
        self.head("process.web");
        self.checks(&app.web, "process.web.", "port");
        for (line, name, process) in &app.processes {
            let called = plain(name, NAME_MAX);
            if called != *name {
                let text = match &process.command {
                    Some(_) => format!("process {name}: is called {called} here"),
                    None => format!(
                        "process {name}: is called {called} here, and needs the command that the \
                         Procfile has for {name}"
                    ),
                };
                self.note(*line, text);
            }
            let process =
                &Process { instances: Some(process.instances.unwrap_or(0)), ..process.clone() };
            self.sizes(&format!("process.{called}"), process, Some(USUAL_SIZE));
            if let Some(command) = &process.command {
                self.line(&format!("command = {}", quoted(command)));
            }
            if process.health.kind.is_some_and(|kind| kind != "process") {
                let text = format!(
                    "health-check-type of process {name}: it has no port here, and is well while it runs"
                );
                self.note(*line, text);
            }
            if let Some("port" | "http") = process.readiness.kind {
                let text = format!(
                    "readiness-health-check-type of process {name}: it has no port here, and is ready \
                     while it runs"
                );
                self.note(*line, text);
            }
            let health = Check { kind: Some("process"), ..process.health.clone() };
            let process = Process { health, readiness: Check::default(), ..process.clone() };
            self.checks(&process, &format!("process.{called}."), "process");
        }
    }

    /// `[health]` and `[readiness]`, whose headers begin with `prefix`. `usual`: the check of who names
    /// none.
    fn checks(&mut self, process: &Process, prefix: &str, usual: &'static str) {
        let kind = process.health.kind.unwrap_or(usual);
        self.head(&format!("{prefix}health"));
        self.line(&format!("type = \"{kind}\""));
        self.check(kind, &process.health);
        if let Some(seconds) = process.timeout {
            self.line(&format!("start_timeout = \"{seconds}s\""));
        }
        if let Some(kind @ ("port" | "http")) = process.readiness.kind {
            self.head(&format!("{prefix}readiness"));
            self.line(&format!("type = \"{kind}\""));
            self.check(kind, &process.readiness);
        }
    }

    fn check(&mut self, kind: &str, check: &Check) {
        if kind == "process" {
            return;
        }
        if let (Some(endpoint), "http") = (&check.endpoint, kind) {
            self.line(&format!("path = {}", quoted(endpoint)));
        }
        for (key, seconds) in [("timeout", check.invocation_timeout), ("interval", check.interval)]
        {
            if let Some(seconds) = seconds {
                self.line(&format!("{key} = \"{seconds}s\""));
            }
        }
    }

    fn sidecars(&mut self, app: &App) {
        for sidecar in &app.sidecars {
            let name = plain(&sidecar.name, NAME_MAX);
            if name != sidecar.name {
                self.note(sidecar.line, format!("sidecar {}: is called {name} here", sidecar.name));
            }
            let is_known = |wanted: &&String| {
                *wanted == "web" || app.processes.iter().any(|it| it.1 == **wanted)
            };
            let (known, lost): (Vec<&String>, Vec<_>) =
                sidecar.processes.iter().partition(is_known);
            for process in lost {
                let text = format!("sidecar {}: there is no process {process}", sidecar.name);
                self.note(sidecar.line, text);
            }
            if known.is_empty() && !sidecar.processes.is_empty() {
                continue;
            }
            self.head(&format!("sidecar.{}", key(&name)));
            self.line(&format!("command = {}", quoted(&sidecar.command)));
            if !known.is_empty() {
                let names: Vec<String> =
                    known.iter().map(|it| quoted(&plain(it, NAME_MAX))).collect();
                self.line(&format!("processes = [{}]", names.join(", ")));
            }
            if let Some(mib) = sidecar.memory {
                self.line(&format!("memory = \"{mib}MiB\""));
            }
        }
    }

    fn env(&mut self, app: &App) {
        let mut lines = String::new();
        for (line, name, value) in &app.env {
            let set = name == "PORT" || name.starts_with("VCAP_");
            if set || name.is_empty() || name.contains('=') || name.contains(char::is_control) {
                self.note(*line, format!("env {name}: it is set for the app, or cannot be"));
            } else if value.contains('\0') {
                self.note(*line, format!("env {name}: it holds a NUL character"));
            } else {
                let _ = writeln!(lines, "{} = {}", key(name), quoted(value));
            }
        }
        if !lines.is_empty() {
            self.head("env");
            self.text.push_str(&lines);
        }
    }

    fn services(&mut self, app: &App) {
        for bound in &app.services {
            let Some(service) = self.around.services.iter().find(|it| it.name == bound.name) else {
                let text = format!(
                    "service {}: nothing is known of its credentials; give them with --services FILE",
                    bound.name
                );
                self.note(bound.line, text);
                continue;
            };
            let name = bound.binding_name.clone().or(service.binding_name.clone());
            self.service(&Service { binding_name: name, ..service.clone() });
        }
    }

    fn service(&mut self, service: &Service) {
        self.text.push_str("\n[[service]]\n");
        self.line(&format!("name = {}", quoted(&service.name)));
        if service.label != USER_PROVIDED {
            self.line(&format!("label = {}", quoted(&service.label)));
        }
        for (key, value) in [
            ("plan", &service.plan),
            ("binding_name", &service.binding_name),
            ("syslog_drain_url", &service.syslog_drain_url),
        ] {
            if let Some(value) = value.as_ref().filter(|it| !it.is_empty()) {
                self.line(&format!("{key} = {}", quoted(value)));
            }
        }
        if !service.tags.is_empty() {
            let tags: Vec<String> = service.tags.iter().map(|tag| quoted(tag)).collect();
            self.line(&format!("tags = [{}]", tags.join(", ")));
        }
        if !service.volume_mounts.is_empty() {
            let mounts = serde_json::Value::Array(service.volume_mounts.clone());
            self.line(&format!("volume_mounts = {}", inline(&toml_of(&mounts))));
        }
        if !service.credentials.is_empty() {
            let all = serde_json::Value::Object(service.credentials.clone());
            self.line(&format!("credentials = {}", inline(&toml_of(&all))));
        }
    }
}

/// JSON as TOML, which has no null: entries that are nothing are left out.
fn toml_of(value: &serde_json::Value) -> toml::Value {
    use serde_json::Value as Json;
    match value {
        Json::Null => toml::Value::String(String::new()),
        Json::Bool(truth) => toml::Value::Boolean(*truth),
        Json::Number(number) => match number.as_i64() {
            Some(number) => toml::Value::Integer(number),
            None => toml::Value::Float(number.as_f64().unwrap_or_default()),
        },
        Json::String(text) => toml::Value::String(text.clone()),
        Json::Array(items) => toml::Value::Array(items.iter().map(toml_of).collect()),
        Json::Object(map) => {
            let some = map.iter().filter(|(_, value)| !value.is_null());
            toml::Value::Table(some.map(|(key, value)| (key.clone(), toml_of(value))).collect())
        }
    }
}
