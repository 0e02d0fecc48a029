//! The two recipes: manifest to staging Task, staged manifest to LRPs.
//!
//! ```text
//! in the staging container                 made by        read by
//! /tmp/lifecycle/builder                   bind mount     the Task
//! /tmp/app                                 copy in        builder, buildpacks
//! /tmp/buildpacks/<xxh64 of the name>/     copy in        builder
//! /tmp/buildpackdownloads/<xxh64 of a URL> download       builder, which fetches what is not there
//! /tmp/cache-in/cache.tgz                  copy in, try   builder, which unpacks it to /tmp/cache
//! /tmp/droplet /tmp/result.json            builder        copy out
//! /tmp/output-cache                        builder        copy out, the next staging's cache.tgz; try
//! ```

mod env;
#[cfg(test)]
mod tests;

use super::StageError;
use super::packs::{self, PackFrom};
use super::types;
use super::work::{BUILT_MAX, Launch, is_beside, watchdog_env};
use crate::model::action::{Action, CopyInAction, CopyOutAction, RunAction};
use crate::model::egress::Rule;
use crate::model::limits::Limits;
use crate::model::lrp::{DesiredLrp, FileMount, Holds, LrpPort, ProcessGuid, Volume};
use crate::model::manifest::{Build, Health, Manifest, Process, SidecarCommand, StopWish};
use crate::model::process::ProcessSpec;
use crate::model::service::Service;
use crate::model::task::{Rootfs, STAGING, StagingResult, Task};
use crate::model::work::SSH_PORT;
use crate::unit::{AppName, Bytes, Digest, Rate};
use env::{Facts, common_env};
pub(super) use env::{own_memory, pair, without_lang};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Who stages and, by default, runs.
const VCAP: &str = "vcap";
/// Diego's weight of staging against running apps.
const STAGING_WEIGHT: u32 = 50;
/// Processes and threads of a staging container: compilers run many, a fork bomb runs more.
const STAGING_PIDS: u32 = 1024;
/// What a staging gets on a box that has enough.
const USUAL_MEMORY: Bytes = Bytes::mib(1024);
const USUAL_DISK: Bytes = Bytes::mib(4096);
/// What version control and desktops leave at the top of a source tree, as cf leaves it out.
pub const NOT_SOURCE: [&str; 7] =
    [".git", ".hg", ".svn", "_darcs", ".bzr", ".DS_Store", ".cfignore"];
/// Where an app finds what it is bound to that asks for a file.
const SERVICES_FILE: &str = "/etc/cf-service-bindings/vcap_services";
/// Name of the build cache in its directory on the box.
pub const CACHE_FILE: &str = "cache.tgz";

/// What staging needs besides the manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StagingInput {
    /// Name of the Task and its container.
    pub guid: String,
    /// Name and place of each buildpack, in their order; see [`packs::choose_buildpacks`].
    pub buildpacks: Vec<(String, PackFrom)>,
    /// Directory that holds nothing but the last staging's [`CACHE_FILE`]; `None`: no cache yet.
    pub cache_from: Option<PathBuf>,
    /// Where the droplet goes.
    pub droplet_to: PathBuf,
    /// Where the builder's result goes; its JSON reads as [`StagingResult`].
    pub result_to: PathBuf,
    /// Where the build cache goes.
    pub cache_to: PathBuf,
    /// Changes with everything from which the droplet is made: see [`fingerprint`].
    pub version: Digest,
    /// Memory of the container.
    pub memory: Bytes,
    /// Disk of the container.
    pub disk: Bytes,
    /// Environment of this one container, such as its addresses; wins over everything else.
    pub env: Vec<(String, String)>,
}

/// The most that a staging may get of the disk, however much the box has left.
pub fn most_disk(build: &Build) -> Bytes {
    build.disk.unwrap_or(USUAL_DISK)
}

/// Memory and disk of a staging: what the manifest says, else what is usual, but not more than half
/// of what the box has left, so that a small box can stage and another staging has room beside it.
pub fn share(build: &Build, left_memory: Bytes, left_disk: Bytes) -> (Bytes, Bytes) {
    let of = |asked: Option<Bytes>, usual: Bytes, least: Bytes, left: Bytes| {
        asked.unwrap_or_else(|| usual.min(Bytes::new(left.get() / 2)).max(least))
    };
    (
        of(build.memory, USUAL_MEMORY, Bytes::mib(128), left_memory),
        of(build.disk, USUAL_DISK, Bytes::mib(256), left_disk),
    )
}

/// The Task that makes a droplet of the app's source.
pub fn staging_task(manifest: &Manifest, input: &StagingInput) -> Task {
    let mut steps = vec![copy_in(&manifest.source, "/tmp/app", "app bits", &NOT_SOURCE)];
    let packs = input.buildpacks.iter();
    steps.extend(packs.filter_map(|(name, from)| packs::bring(name, from, VCAP)));
    if let Some(dir) = &input.cache_from {
        steps.push(best_effort(
            "Staging without the build cache",
            copy_in(dir, "/tmp/cache-in", "build artifacts cache", &[]),
        ));
    }
    steps.push(Action::Run(RunAction {
        process: builder(manifest, input),
        log_source: "STG".into(),
        suppress_log_output: false,
    }));
    let copy_out = |from: &str, to: &Path, artifact: &str, optional| {
        let (from, to, artifact) = (from.into(), to.to_owned(), artifact.into());
        Action::CopyOut(CopyOutAction { from, to, user: VCAP.into(), artifact, optional })
    };
    steps.extend([
        copy_out("/tmp/droplet", &input.droplet_to, "droplet", false),
        copy_out("/tmp/result.json", &input.result_to, "staging result", false),
        best_effort(
            "The build cache is not kept",
            copy_out("/tmp/output-cache", &input.cache_to, "build artifacts cache", true),
        ),
    ]);
    let timeout = manifest.build.timeout;
    let action = Action::Timeout { action: Box::new(Action::Serial(steps)), timeout };
    let rootfs = Rootfs::Stack(manifest.build.stack.clone());
    Task {
        app: manifest.name.clone(),
        limits: Limits {
            memory: Some(input.memory),
            disk: Some(input.disk),
            cpu_weight: Some(STAGING_WEIGHT),
            pids: Some(STAGING_PIDS.max(manifest.run.pids)),
            ..Default::default()
        },
        egress: manifest.egress.clone(),
        log_source: "STG".into(),
        internal: true,
        ..Task::new(&input.guid, STAGING, rootfs, action)
    }
}

/// What may fail; then `said` is told in the log, with the reason.
fn best_effort(said: &str, action: Action) -> Action {
    Action::Try(Box::new(Action::EmitProgress {
        action: Box::new(action),
        start_message: String::new(),
        success_message: String::new(),
        failure_message_prefix: said.to_owned(),
    }))
}

pub(super) fn copy_in(from: &Path, to: &str, artifact: &str, exclude: &[&str]) -> Action {
    Action::CopyIn(CopyInAction {
        from: from.to_owned(),
        to: to.into(),
        user: VCAP.into(),
        artifact: artifact.into(),
        exclude: exclude.iter().map(|name| (*name).to_owned()).collect(),
    })
}

/// The builder with all of its flags, so that nothing depends on its defaults.
fn builder(manifest: &Manifest, input: &StagingInput) -> ProcessSpec {
    let order: Vec<&str> = input.buildpacks.iter().map(|(name, _)| name.as_str()).collect();
    // Who names buildpacks means them, whatever they think of the app: a chain, as in Cloud Foundry.
    let skip_detect = !manifest.build.buildpacks.is_empty();
    let mut args = vec![
        "-buildDir=/tmp/app".into(),
        "-outputDroplet=/tmp/droplet".into(),
        "-outputMetadata=/tmp/result.json".into(),
        "-outputBuildArtifactsCache=/tmp/output-cache".into(),
        "-buildpacksDir=/tmp/buildpacks".into(),
        "-buildpacksDownloadDir=/tmp/buildpackdownloads".into(),
        "-buildArtifactsCacheDir=/tmp/cache".into(),
        format!("-buildpackOrder={}", order.join(",")),
        format!("-skipDetect={skip_detect}"),
        "-skipCertVerify=false".into(),
        format!("-startCommandGiven={}", !needs_web_command(manifest)),
    ];
    if input.cache_from.is_some() {
        args.push(format!("-buildArtifactsCacheArchive=/tmp/cache-in/{CACHE_FILE}"));
    }

    let StagingInput { memory, disk, .. } = *input;
    let facts = Facts::new(manifest, memory, disk).uris(&manifest.uris);
    let facts = facts.version(&input.version.to_string());
    let mut env = common_env(manifest, facts, memory);
    // Buildpacks ask by name for stacks that they know; who has one that is like it says so.
    if !manifest.env.contains_key("CF_STACK") {
        env.push(pair("CF_STACK", &manifest.build.stack));
    }
    env.extend(input.env.iter().cloned());
    ProcessSpec {
        id: "builder".into(),
        path: "/tmp/lifecycle/builder".into(),
        args,
        program: Default::default(),
        argv0: None,
        env,
        dir: None,
        dir_must_exist: false,
        user: VCAP.into(),
        nofile: Some(manifest.run.nofile),
        rlimits: Default::default(),
        tty: None,
        stdin: false,
        keep_stdin: false,
        launches: false,
        never_waits: false,
    }
}

/// One LRP for each process of the manifest, by name, then for those that the droplet adds, without instances.
///
/// `generation` is counted up by the caller when all instances shall be replaced although nothing
/// has changed (restart).
pub fn desired_lrps(
    manifest: &Manifest,
    result: &StagingResult,
    droplet: Digest,
    generation: u64,
) -> Result<Vec<DesiredLrp>, StageError> {
    let mut lrps = Vec::new();
    let mut silent = Vec::new();
    let added = types::added(manifest, result);
    for (name, process) in manifest.processes.iter().chain(&added) {
        match start_command(manifest, result, name, process) {
            Some(command) => {
                lrps.push(lrp(manifest, result, droplet, generation, (name, process), command));
            }
            None => silent.push(name.clone()),
        }
    }
    if silent.is_empty() {
        return Ok(lrps);
    }
    let known = result.process_types.keys().cloned().collect();
    Err(StageError::NoCommand { processes: silent, known })
}

/// Whether the buildpack or the Procfile has to say how `web` starts.
fn needs_web_command(manifest: &Manifest) -> bool {
    let web = manifest.processes.get("web");
    web.is_some_and(|web| web.command.is_none() && manifest.run.command.is_none())
}

/// The LRP of a process that somebody wants and that neither the manifest nor the droplet has: like any that
/// nothing says how to start it runs what `web` does. `None`: it is there, or cannot be, or there is no `web`.
pub fn stand_in(
    manifest: &Manifest,
    result: &StagingResult,
    droplet: Digest,
    generation: u64,
    name: &str,
) -> Option<DesiredLrp> {
    let command = borrowed_command(manifest, result, name)?;
    let process = types::idle(manifest);
    Some(lrp(manifest, result, droplet, generation, (name, &process), command))
}

/// What [`stand_in`] runs.
pub(super) fn borrowed_command<'a>(
    manifest: &Manifest,
    result: &'a StagingResult,
    name: &str,
) -> Option<&'a str> {
    if built(result, name).is_some() || types::obstacle(manifest, result, name).is_some() {
        return None;
    }
    built(result, "web")
}

/// The command that the droplet has for a process type.
pub(super) fn built<'a>(result: &'a StagingResult, name: &str) -> Option<&'a str> {
    let command = result.process_types.get(name)?;
    (!command.trim().is_empty()).then_some(command)
}

/// The process's own command, the app's for `web`, else the buildpack's; else its for `web`, which is
/// what Cloud Foundry's launcher runs when it is told nothing (D94).
fn start_command<'a>(
    manifest: &'a Manifest,
    result: &'a StagingResult,
    name: &str,
    process: &'a Process,
) -> Option<&'a str> {
    let app = manifest.run.command.as_deref().filter(|_| name == "web");
    [process.command.as_deref(), app, built(result, name), built(result, "web")]
        .into_iter()
        .flatten()
        .find(|command| !command.trim().is_empty())
}

fn lrp(
    manifest: &Manifest,
    result: &StagingResult,
    droplet: Digest,
    generation: u64,
    (name, process): (&str, &Process),
    command: &str,
) -> DesiredLrp {
    let find = |port: &String| manifest.ports.iter().find(|known| known.name == *port);
    let mut ports: Vec<LrpPort> = process
        .ports
        .iter()
        .filter_map(find)
        .map(|port| LrpPort { container: port.container, publish: port.publish })
        .collect();
    let run = &manifest.run;
    let limits = Limits {
        memory: Some(process.memory),
        disk: Some(process.disk),
        cpu_weight: Some(run.cpu_weight.unwrap_or_else(|| weight_of(process.memory))),
        pids: Some(run.pids),
        ..Default::default()
    };
    let version = version(&Stale {
        generation,
        stack: &manifest.build.stack,
        droplet,
        limits: &limits,
        nofile: run.nofile,
        log_rate: manifest.log.rate,
        command,
        metadata: &result.execution_metadata,
        user: &run.user,
        env: &manifest.env,
        ports: ports.iter().map(|port| port.container).collect(),
        egress: &manifest.egress,
        health: &process.health,
        readiness: process.readiness.as_ref(),
        sidecars: &manifest.sidecars,
        stop: manifest.stop,
        volumes: &manifest.volumes,
        files: &manifest.files,
        ssh: manifest.ssh.as_ref().map(|ssh| &ssh.authorized_keys[..]),
        ssh_no_forwarding: manifest.ssh.as_ref().is_some_and(|ssh| ssh.no_forwarding),
        ssh_idle_timeout: manifest.ssh.as_ref().and_then(|ssh| ssh.idle_timeout),
        ssh_file: manifest.ssh.as_ref().and_then(|ssh| ssh.authorized_keys_file.as_deref()),
        services: &manifest.services,
        uris: if name == "web" { &manifest.uris } else { &[] },
        file_based_services: manifest.file_based_services,
    });

    let facts = Facts::new(manifest, process.memory, process.disk);
    // As in Cloud Foundry, routes lead to one process, and the others are told of none.
    let facts = if name == "web" { facts.uris(&manifest.uris) } else { facts };
    let facts = facts.process(&manifest.name, name, &version);
    let own = own_memory(manifest, &result.sidecars, (name, process.memory));
    let mut env = common_env(manifest, facts, own);
    let mut files = manifest.files.clone();
    if manifest.file_based_services {
        env.retain(|(name, _)| name != "VCAP_SERVICES");
        env.push(pair("VCAP_SERVICES_FILE_PATH", SERVICES_FILE));
        let content = env::services(manifest).to_string();
        files.push(FileMount {
            path: SERVICES_FILE.into(),
            holds: Holds::Content(content),
            mode: 0o400,
        });
    }
    if let Some(first) = ports.first() {
        let port = first.container.to_string();
        env.extend([pair("PORT", &port), pair("VCAP_APP_PORT", &port)]);
        env.push(pair("VCAP_APP_HOST", "0.0.0.0"));
    }
    if let Some(ssh) = &manifest.ssh {
        // Last, so that it is nobody's PORT.
        let publish = ssh.publish.filter(|_| name == "web");
        ports.push(LrpPort { container: SSH_PORT, publish });
    }
    env.extend(watchdog_env(&process.health));
    let log_source = format!("APP/PROC/{}", name.to_uppercase());
    let launch = Launch {
        role: "launcher",
        dir: "/home/vcap",
        checks_dir: "/home/vcap/app",
        command,
        metadata: &result.execution_metadata,
        user: &run.user,
        nofile: run.nofile,
        env: &env,
        log_source: &log_source,
        process: name,
        health: &checks(process),
    };
    DesiredLrp {
        guid: ProcessGuid { app: manifest.name.clone(), process: name.to_owned() },
        version,
        stack: manifest.build.stack.clone(),
        droplet,
        image: None,
        instances: process.instances,
        limits,
        command: command.to_owned(),
        work: launch.work(manifest, &result.sidecars),
        user: run.user.clone(),
        nofile: run.nofile,
        log_source,
        log_rate: manifest.log.rate,
        env,
        ports,
        egress: manifest.egress.clone(),
        health: process.health.clone(),
        readiness: process.readiness.clone(),
        stop: manifest.stop.or(None),
        volumes: manifest.volumes.clone(),
        files,
        dependencies: Vec::new(),
        restart: manifest.restart,
        by_record: false,
        rollout: manifest.rollout,
    }
}

/// Refuses sidecars of buildpacks that could not all run, or that leave their process no memory: what
/// would be missing at run time is found while somebody looks.
pub fn check_sidecars(manifest: &Manifest, result: &StagingResult) -> Result<(), StageError> {
    for (name, process) in &manifest.processes {
        let count = result.sidecars.iter().filter(|it| is_beside(it, name)).count();
        if count > BUILT_MAX {
            let process = name.clone();
            return Err(StageError::ManySidecars { process, count, most: BUILT_MAX });
        }
        let memory = process.memory;
        if count > 0 && own_memory(manifest, &result.sidecars, (name, memory)) == Bytes::new(0) {
            return Err(StageError::HungrySidecars { process: name.clone(), memory });
        }
    }
    Ok(())
}

/// Everything that is tried of a process.
pub(super) fn checks(process: &Process) -> Vec<&Health> {
    [&process.health].into_iter().chain(&process.readiness).collect()
}

/// Cloud Foundry's share of the processor for this much memory: 8 GiB or more have all of it.
fn weight_of(memory: Bytes) -> u32 {
    let mib = memory.as_mib().clamp(128, 8192) as u32;
    (mib * 100 / 8192).max(1)
}

/// Everything that makes a running instance out of date.
///
/// How many instances, which port of the box is published and when an ended process is started
/// again are not in it: they change around a running instance. What the recipe adds by itself is
/// not in it either, or a new version of this program would restart every app; for the same reason
/// a test pins the version of one app, and a field that is added later is left out while it has
/// its default.
#[derive(Serialize)]
struct Stale<'a> {
    generation: u64,
    stack: &'a str,
    droplet: Digest,
    limits: &'a Limits,
    nofile: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    log_rate: Option<Rate>,
    command: &'a str,
    metadata: &'a str,
    user: &'a str,
    env: &'a BTreeMap<String, String>,
    ports: Vec<u16>,
    egress: &'a [Rule],
    health: &'a Health,
    #[serde(skip_serializing_if = "Option::is_none")]
    readiness: Option<&'a Health>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    sidecars: &'a BTreeMap<String, SidecarCommand>,
    #[serde(skip_serializing_if = "StopWish::says_nothing")]
    stop: StopWish,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    volumes: &'a [Volume],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    files: &'a [FileMount],
    #[serde(skip_serializing_if = "Option::is_none")]
    ssh: Option<&'a [String]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ssh_file: Option<&'a Path>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    ssh_no_forwarding: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    ssh_idle_timeout: Option<std::time::Duration>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    services: &'a [Service],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    uris: &'a [String],
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    file_based_services: bool,
}

fn version(stale: &Stale<'_>) -> String {
    digest_of(stale).hex()[..16].to_owned()
}

/// Changes with everything from which the droplet is made: staging again is worth it if and only
/// if this differs from the last successful staging's.
///
/// `inputs` are digests of what the manifest only names: the source tree, the stack and each
/// buildpack, with names that the caller keeps to. Limits and times of staging are not in it: they
/// decide whether a droplet comes out, not which one.
pub fn fingerprint(manifest: &Manifest, inputs: &BTreeMap<String, Digest>) -> Digest {
    #[derive(Serialize)]
    struct Made<'a> {
        name: &'a AppName,
        buildpacks: &'a [String],
        #[serde(skip_serializing_if = "BTreeMap::is_empty")]
        checksums: &'a BTreeMap<String, Digest>,
        stack: &'a str,
        env: &'a BTreeMap<String, String>,
        inputs: &'a BTreeMap<String, Digest>,
        // Buildpacks look for what the app is bound to.
        #[serde(skip_serializing_if = "<[_]>::is_empty")]
        services: &'a [Service],
    }
    digest_of(&Made {
        name: &manifest.name,
        buildpacks: &manifest.build.buildpacks,
        checksums: &manifest.build.checksums,
        stack: &manifest.build.stack,
        env: &manifest.env,
        inputs,
        services: &manifest.services,
    })
}

/// Tells build caches apart: what one stack or buildpack has left is nothing for another, which may even
/// break by it.
pub fn cache_key(manifest: &Manifest, buildpacks: &[(String, PackFrom)]) -> String {
    let names: Vec<&str> = buildpacks.iter().map(|(name, _)| name.as_str()).collect();
    let is_chain = !manifest.build.buildpacks.is_empty();
    digest_of(&(&manifest.build.stack, is_chain, names)).hex()[..16].to_owned()
}

fn digest_of(value: &impl Serialize) -> Digest {
    Digest::of(&serde_json::to_vec(value).expect("our own types with text keys become JSON"))
}
