//! Reads one app's TOML text and checks all of it: everything wrong is reported at once.
//!
//! Keys, defaults and limits of each section stand in the function that reads it. Keys that the
//! format knows but this version does not are refused by name, never ignored.

mod counts;
mod extras;
mod health;
mod image;
mod network;
mod order;
mod packs;
mod places;
mod process;
mod service;
mod ssh;
#[cfg(test)]
mod tests;

use super::Diagnostics;
use super::cursor::{Section, Value};
use super::diagnostic::Finding;
use super::sink::{Place, walk};
use super::words::{shown, word};
use crate::model::limits::DISK_MIN;
use crate::model::manifest::{Build, HealthTimes, Log, Manifest, Restart, Run};
use crate::unit::{AppName, Bytes, IdRange};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;
use toml::de::DeValue;

pub use counts::Counts;
pub(super) use places::Places;
use places::Sizes;
pub(super) use service::CREDENTIALS_MAX;

/// Least memory of a container: below it not even a shell starts.
const MEMORY_MIN: Bytes = Bytes::mib(4);
/// Largest size of anything: keeps every sum far from 64 bits.
const SIZE_MAX: Bytes = Bytes::mib(64 << 20);
/// Most instances of one process.
const INSTANCES_MAX: u64 = 1000;
/// Longest start command, as in Cloud Foundry.
const COMMAND_MAX: usize = 4096;
/// Longest `NAME=value` with its NUL that the kernel passes to a process.
const ENV_MAX: usize = 128 * 1024;
/// Longest time that any key takes.
const DAY: Duration = Duration::from_secs(86_400);

/// Top-level keys of the format that later versions bring.
const LATER: [&str; 12] = [
    "credential",
    "device",
    "env_file",
    "labels",
    "layer",
    "metrics",
    "requires",
    "route",
    "schedule",
    "security",
    "socket",
    "task",
];

/// Reads a manifest. `file` is how errors call it; `dir`, absolute, is where relative paths start.
pub fn parse(text: &str, file: &str, dir: &Path) -> Result<Manifest, Diagnostics> {
    parse_on(text, file, dir, HealthTimes::default())
}

/// The same as a box reads it; `usual`: its own times of checks.
pub fn parse_on(
    text: &str,
    file: &str,
    dir: &Path,
    usual: HealthTimes,
) -> Result<Manifest, Diagnostics> {
    parse_with_places(text, file, dir, usual).map(|(manifest, _)| manifest)
}

/// Whether `uris` may name this.
pub fn is_uri(text: &str) -> bool {
    network::read_uri(text).is_ok()
}

/// What a file holds, as text. TOML is UTF-8 and nothing else.
pub fn text_of(bytes: Vec<u8>, file: &str) -> Result<String, Diagnostics> {
    String::from_utf8(bytes).map_err(|err| {
        let at = err.utf8_error().valid_up_to();
        let text = String::from_utf8_lossy(err.as_bytes());
        // Up to there both are the same bytes.
        let span = at..at + char::REPLACEMENT_CHARACTER.len_utf8();
        let (message, cure) = ("this is not UTF-8 text".to_owned(), "save the file as UTF-8");
        let found = Finding { span, message, cure: Some(cure.into()), see: None, warning: false };
        Diagnostics::new(file, &text, vec![found], 0).expect("there is one")
    })
}

/// Ports of the box that a manifest asks for, each with its line and column.
pub type Claims = Vec<(u16, (usize, usize))>;

/// As [`parse`], with the places of the ports of the box.
pub fn parse_with_claims(
    text: &str,
    file: &str,
    dir: &Path,
) -> Result<(Manifest, Claims), Diagnostics> {
    let (manifest, places) = parse_with_places(text, file, dir, HealthTimes::default())?;
    Ok((manifest, places.claims(text)))
}

/// As [`parse_on`], with the places of what only the box can judge.
pub(super) fn parse_with_places(
    text: &str,
    file: &str,
    dir: &Path,
    usual: HealthTimes,
) -> Result<(Manifest, Places), Diagnostics> {
    walk(text, file, |top| {
        let mut places = Places::default();
        let manifest = read(top, (file, dir), usual, &mut places)?;
        Some((manifest, places))
    })
}

fn read(
    mut top: Section<'_>,
    (file, dir): (&str, &Path),
    usual: HealthTimes,
    places: &mut Places,
) -> Option<Manifest> {
    let name = read_name(&mut top, file);
    read_kind(&mut top);
    let image = image::read(&mut top, dir, places);
    let source = match image {
        Some(_) => Some(PathBuf::new()),
        None => read_source(&mut top, dir, places),
    };
    let build = match image {
        Some(_) => read_build(None, places),
        None => read_build(top.section("build"), places),
    };
    let user = if image.is_some() { "" } else { "vcap" };
    let (run, command) = read_run(top.section("run"), user, places);
    let env = read_env(top.section("env"));
    let restart = read_restart(top.section("restart"));
    let log = read_log(top.section("log"));
    let [after, needs] = order::read(&mut top, name.as_ref(), places);
    let rollout = order::read_rollout(top.section("rollout"));
    let place = image.as_ref().map(|(place, _)| place);
    let ports = network::read_ports(&mut top, place, places);
    let egress = network::read_egress(&mut top);
    let processes = process::read(&mut top, &run, image.is_some(), ports.as_deref(), usual, places);
    let sidecars = extras::read_sidecars(&mut top, processes.as_ref());
    let release_hook = packs::read_hooks(top.section("hook"), &run);
    let stop = extras::read_stop(top.section("stop"));
    let volumes = extras::read_volumes(&mut top, places);
    let files = extras::read_files(&mut top, dir, places);
    let ssh = ssh::read(&mut top, dir, ports.as_deref(), sidecars.as_ref(), places);
    let services = service::read_services(&mut top, dir, places);
    let uris = network::read_uris(&mut top);
    let file_based_services = service::read_features(top.section("features"));
    let web = processes.as_ref().is_none_or(|all| all.contains_key("web"));
    if let (false, Some(command)) = (web, command) {
        command.fail(
            "`run.command` starts the `web` process, but there is no [process.web]",
            "move it to the process that it starts",
        );
    }
    top.later(&LATER);
    for (key, home) in HOMES {
        top.misplaced(key, &format!("it belongs below [{home}]"));
    }
    top.finish();
    let processes = processes?;
    // One that is only implied is nobody's when `web` wants none.
    let is_used = |port: &network::PortDraft<'_>| {
        !port.implied || processes.values().any(|it| it.ports.contains(&port.model.name))
    };
    let ports = ports?.into_iter().filter(is_used).map(|port| port.model).collect();
    let image = match image {
        Some((_, image)) => Some(image?),
        None => None,
    };
    Some(Manifest {
        name: name?,
        source: source?,
        image,
        build,
        run,
        processes,
        env,
        ports,
        egress,
        restart,
        log,
        sidecars: sidecars?,
        stop,
        volumes,
        files,
        after,
        needs,
        rollout,
        release_hook,
        ssh: ssh?,
        services,
        uris,
        file_based_services,
    })
}

/// Keys that people write at the top, and the section that has them.
const HOMES: [(&str, &str); 13] = [
    ("path", "source"),
    ("buildpack", "build"),
    ("buildpacks", "build"),
    ("stack", "build"),
    ("lifecycle", "build"),
    ("instances", "run"),
    ("memory", "run"),
    ("disk", "run"),
    ("command", "run"),
    ("user", "run"),
    ("pids", "run"),
    ("nofile", "run"),
    ("policy", "restart"),
];

fn read_name(top: &mut Section<'_>, file: &str) -> Option<AppName> {
    match top.take("name") {
        Some(value) => value.parsed(|text| {
            let bad = |rule| format!("`{}` cannot be the name of an app; {rule}", shown(text));
            text.parse::<AppName>().map_err(|_| bad("1 to 40 of a-z, 0-9 and inner `-`"))
        }),
        None => {
            let stem = Path::new(file).file_stem().and_then(|stem| stem.to_str());
            let guess = stem.filter(|stem| stem.parse::<AppName>().is_ok()).unwrap_or("web");
            top.missing("name", format!("begin the file with: name = \"{guess}\""));
            None
        }
    }
}

fn read_kind(top: &mut Section<'_>) {
    let Some(kind) = top.take("kind") else { return };
    match kind.one_of(&[("app", true), ("task", false)]) {
        Some(true) | None => {}
        Some(false) => kind.place.fail(
            "`kind = \"task\"` is not supported by this version yet",
            "only \"app\" is, which is the default",
        ),
    }
}

fn read_source(top: &mut Section<'_>, dir: &Path, places: &mut Places) -> Option<PathBuf> {
    let Some(mut source) = top.section("source") else {
        let cure = "add [source] with the app's directory as `path`, or [image] with `ref`";
        top.missing("source", cure.into());
        return None;
    };
    let path = match source.take("path") {
        Some(path) => {
            places.source = Some(path.place.span());
            path.filled(4096).map(|path| dir.join(path).components().collect())
        }
        None => {
            source.missing("path", "add path = \"DIRECTORY\"".into());
            None
        }
    };
    source.later(&["git", "url", "exclude", "include"]);
    source.finish();
    path
}

fn read_build(section: Option<Section<'_>>, places: &mut Places) -> Build {
    let mut build = Build {
        buildpacks: Vec::new(),
        checksums: BTreeMap::new(),
        stack: "edgefs".into(),
        memory: None,
        disk: None,
        timeout: Duration::from_secs(900),
    };
    let Some(mut section) = section else { return build };
    if let Some(lifecycle) = section.take("lifecycle") {
        match lifecycle.text(64) {
            Some("docker") => lifecycle.place.fail(
                "an app that comes as an image has no [build]",
                "write [image] with `ref` instead of [source] and [build]",
            ),
            Some("cnb") => lifecycle.place.fail(
                "this lifecycle is not supported by this version yet",
                "only \"buildpack\" is, which is the default",
            ),
            _ => drop(lifecycle.one_of(&[("buildpack", ())])),
        }
    }
    if let Some(list) = section.take("buildpacks") {
        packs::read(&list, &mut build, places);
    }
    if let Some(stack) = section.take("stack") {
        places.stack = Some(stack.place.span());
        set(&mut build.stack, stack.parsed(|text| word("stack", text, 64)));
    }
    if let Some(memory) = section.take("memory") {
        places.build.memory = Some(memory.place.span());
        build.memory = memory.bytes(MEMORY_MIN, SIZE_MAX);
    }
    if let Some(disk) = section.take("disk") {
        places.build.disk = Some(disk.place.span());
        build.disk = disk.bytes(DISK_MIN, SIZE_MAX);
    }
    if let Some(timeout) = section.take("timeout") {
        set(&mut build.timeout, timeout.time(Duration::from_secs(1), DAY));
    }
    section.later(&["cache", "env", "egress", "dockerfile"]);
    section.finish();
    build
}

/// Reads `[run]`; also the place of its command, which is checked once the processes are known.
fn read_run<'a>(
    section: Option<Section<'a>>,
    user: &str,
    places: &mut Places,
) -> (Run, Option<Place<'a>>) {
    let mut run = Run {
        instances: 1,
        memory: Bytes::mib(256),
        disk: Bytes::mib(512),
        cpu_weight: None,
        pids: 256,
        nofile: 16_384,
        command: None,
        user: user.into(),
    };
    let Some(mut section) = section else { return (run, None) };
    let shape = read_shape(&mut section);
    places.run = shape.at;
    set(&mut run.instances, shape.instances);
    set(&mut run.memory, shape.memory);
    set(&mut run.disk, shape.disk);
    if let Some(weight) = section.take("cpu_weight") {
        run.cpu_weight = weight.number(1, 100).map(|number| number as u32);
    }
    if let Some(pids) = section.take("pids") {
        set(&mut run.pids, pids.number(8, 4_194_304).map(|number| number as u32));
    }
    if let Some(nofile) = section.take("nofile") {
        set(&mut run.nofile, nofile.number(64, 1_048_576));
    }
    if let Some(user) = section.take("user") {
        set(&mut run.user, user.parsed(read_user));
    }
    let command = section.take("command");
    run.command = command.as_ref().and_then(read_command);
    section.misplaced("log_rate", "write rate = \"16KiB/s\" below [log]");
    section.misplaced("stop", "write signal and timeout below [stop]");
    section.later(&["memory_low", "cpu_max", "io_weight", "read_only", "tmpfs"]);
    section.finish();
    (run, command.map(|value| value.place))
}

/// A start command: one string that bash reads.
fn read_command(value: &Value<'_>) -> Option<String> {
    if let DeValue::Array(_) = value.inner {
        return value.mistyped("a string", Some("write one line, as for a shell".into()));
    }
    value.filled(COMMAND_MAX).map(str::to_owned)
}

/// What `[run]` and every `[process.X]` have in common.
struct Shape {
    instances: Option<u32>,
    memory: Option<Bytes>,
    disk: Option<Bytes>,
    at: Sizes,
}

fn read_shape(section: &mut Section<'_>) -> Shape {
    let [instances, memory, disk] = ["instances", "memory", "disk"].map(|key| section.take(key));
    let at = |value: &Option<Value<'_>>| value.as_ref().map(|value| value.place.span());
    let at = Sizes { instances: at(&instances), memory: at(&memory), disk: at(&disk) };
    let instances = instances.and_then(|value| value.number(0, INSTANCES_MAX));
    Shape {
        instances: instances.map(|number| number as u32),
        memory: memory.and_then(|value| value.bytes(MEMORY_MIN, SIZE_MAX)),
        disk: disk.and_then(|value| value.bytes(DISK_MIN, SIZE_MAX)),
        at,
    }
}

/// `name`, `uid`, either with `:group`.
fn read_user(text: &str) -> Result<String, String> {
    let part = |part: &str| {
        let safe = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
        !part.is_empty() && part.len() <= 32 && !part.starts_with('-') && part.bytes().all(safe)
    };
    if let Some(part) = text.split(':').find(|part| !IdRange::may_be(part)) {
        let last = IdRange::WIDTH - 1;
        return Err(format!("`{}` is no id; write a number from 0 to {last}", shown(part)));
    }
    let (user, group) = text.split_once(':').unwrap_or((text, "0"));
    match part(user) && part(group) {
        true => Ok(text.to_owned()),
        false => Err(format!(
            "`{}` is not a user; write \"vcap\", \"1000\" or \"1000:dialout\"",
            shown(text)
        )),
    }
}

fn read_env(section: Option<Section<'_>>) -> BTreeMap<String, String> {
    let mut env = BTreeMap::new();
    for entry in section.into_iter().flat_map(|mut section| section.take_all()) {
        let name = entry.key;
        if name.is_empty() || name.contains('=') || name.contains(char::is_control) {
            entry.place.fail(
                format!("`{}` cannot be the name of a variable", shown(name)),
                "letters, digits and `_`",
            );
        } else if name == "PORT" {
            entry
                .place
                .fail("`PORT` is set by Terrarium", "write container = NUMBER below [[port]]");
        } else if name.starts_with("VCAP_") {
            entry
                .place
                .fail(format!("`{}` is reserved", shown(name)), "names with VCAP_ are set for you");
        } else if let Some(value) = entry.value.text(ENV_MAX - 2 - name.len().min(ENV_MAX / 2)) {
            env.insert(name.to_owned(), value.to_owned());
        }
    }
    env
}

fn read_restart(section: Option<Section<'_>>) -> Restart {
    let mut restart = Restart::Always;
    let Some(mut section) = section else { return restart };
    if let Some(policy) = section.take("policy") {
        let words = [
            ("always", Restart::Always),
            ("on-failure", Restart::OnFailure),
            ("never", Restart::Never),
        ];
        set(&mut restart, policy.one_of(&words));
    }
    section.later(&["on_unhealthy", "backoff", "max"]);
    section.finish();
    restart
}

fn read_log(section: Option<Section<'_>>) -> Log {
    let Some(mut section) = section else { return Log::default() };
    let rate = section.take("rate").and_then(|rate| rate.parsed(str::parse));
    section.later(&["burst", "target"]);
    section.finish();
    Log { rate }
}

/// Replaces a default by what was read, if it was good.
fn set<T>(place: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *place = value;
    }
}
