//! The recipe of an app that comes as an image: what its staging records, and the LRPs that run it.
//! Diego's docker lifecycle.

use super::StageError;
use super::recipe::{self, pair};
use super::work::Launch;
use crate::image::{ImageConfig, Protocol};
use crate::model::image::{Execution, ExposedPort, StagedImage};
use crate::model::limits::DISK_MIN;
use crate::model::lrp::{DesiredLrp, ImageFacts};
use crate::model::manifest::{Check, Health, Manifest};
use crate::model::task::{LifecycleMetadata, StagingResult};
use crate::unit::{Bytes, IdRange};

/// What an app listens on whose image says nothing.
const USUAL_PORT: u16 = 8080;
/// Who runs when neither manifest nor image says.
const USUAL_USER: &str = "root";

/// Most that a process may be given at its start, as JSON, in bytes: a request to pid 1 has 128 KiB,
/// and there is more in it (addresses, ports).
const WORDS_MAX: usize = 96 << 10;

/// What staging records of the image called `name`. A range among its ports is an error, as of Diego's
/// builder, which reads numbers only.
pub fn result(name: &str, config: &ImageConfig) -> Result<StagingResult, StageError> {
    if let Some(range) = &config.port_range {
        return Err(StageError::ImagePortRange { range: range.clone() });
    }
    let protocol = |protocol| match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
        Protocol::Sctp => "sctp",
    };
    let port = |it: &crate::image::Exposed| ExposedPort {
        port: it.port,
        protocol: protocol(it.protocol).into(),
    };
    let mut ports: Vec<ExposedPort> = config.ports.iter().map(port).collect();
    ports.sort();
    let execution = Execution {
        cmd: config.cmd.clone(),
        entrypoint: config.entrypoint.clone(),
        workdir: config.workdir.clone(),
        ports,
        user: config.user.clone(),
    };
    let words: Vec<&str> =
        config.entrypoint.iter().chain(&config.cmd).map(String::as_str).collect();
    let command = words.join(" ");
    let web = (!words.is_empty()).then(|| pair("web", &command));
    Ok(StagingResult {
        lifecycle_metadata: LifecycleMetadata {
            docker_image: name.into(),
            ..LifecycleMetadata::default()
        },
        process_types: web.into_iter().collect(),
        execution_metadata: text_of(&execution),
        lifecycle_type: "docker".into(),
        sidecars: Vec::new(),
    })
}

/// One LRP for each process of the manifest, by name; `generation` as in [`recipe::desired_lrps`].
pub fn desired_lrps(
    manifest: &Manifest,
    result: &StagingResult,
    image: &StagedImage,
    generation: u64,
) -> Result<Vec<DesiredLrp>, StageError> {
    let execution: Execution = serde_json::from_str(&result.execution_metadata).unwrap_or_default();
    let whole = resolve(manifest, &execution)?;
    // The launcher wants no ports, and of these an image may have tens of thousands.
    let metadata = text_of(&Execution { ports: Vec::new(), ..execution.clone() });
    // What is changed below follows from the image's digest, which makes the version, too.
    let mut lrps = recipe::desired_lrps(&whole, result, image.digest, generation).map_err(
        |err| match err {
            StageError::NoCommand { processes, .. } => StageError::ImageNoCommand { processes },
            other => other,
        },
    )?;
    // An image has no process types but what it says for `web`, and for what says nothing itself.
    lrps.retain(|lrp| manifest.processes.contains_key(&lrp.guid.process));
    for lrp in &mut lrps {
        let process = &manifest.processes[&lrp.guid.process];
        lrp.limits.disk = Some(rest(process.disk, image.bytes)?);
        let says = match lrp.guid.process.as_str() {
            "web" => says_command(manifest),
            _ => process.command.as_ref().is_some_and(|command| !command.trim().is_empty()),
        };
        if !says {
            // The launcher joins entrypoint and command itself, without a shell.
            lrp.command.clear();
        }
        // What has no name is nothing that a process could look up, and no process could have.
        let env = image.env.iter().filter_map(|entry| entry.split_once('='));
        let env = env.filter(|(name, _)| !name.is_empty());
        let own = recipe::without_lang(std::mem::take(&mut lrp.env), &manifest.env);
        lrp.env = env.map(|(name, value)| pair(name, value)).chain(own).collect();
        let dir = from_root(&execution.workdir);
        let launch = Launch {
            role: "docker-launcher",
            dir: &dir,
            checks_dir: &dir,
            command: &lrp.command,
            metadata: &metadata,
            user: &lrp.user,
            nofile: lrp.nofile,
            env: &lrp.env,
            log_source: &lrp.log_source,
            process: &lrp.guid.process,
            health: &recipe::checks(process),
        };
        lrp.work = launch.work(&whole, &[]);
        lrp.stop = manifest.stop.or(image.stop_signal);
        lrp.image = Some(ImageFacts { volumes: image.volumes.clone() });
        fits(lrp)?;
    }
    Ok(lrps)
}

/// Where a working directory leads from `/`, whatever of it is a link: `..` as docker reads it.
fn from_root(workdir: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in workdir.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

/// The image's user; a side of the colon that is empty says nothing.
fn user_of(text: &str) -> String {
    match text.split_once(':').unwrap_or((text, "")) {
        ("", "") => USUAL_USER.into(),
        (user, "") => user.into(),
        ("", group) => format!("{USUAL_USER}:{group}"),
        _ => text.into(),
    }
}

/// Whether the processes of an instance can be started at all.
fn fits(lrp: &DesiredLrp) -> Result<(), StageError> {
    let length = |text: serde_json::Result<String>| text.map_or(usize::MAX, |text| text.len());
    let env = length(serde_json::to_string(&lrp.env));
    let main = length(serde_json::to_string(&lrp.work.action));
    let volumes = lrp.image.as_ref().map(|image| &image.volumes);
    let volumes = env.saturating_add(length(serde_json::to_string(&volumes)));
    // The work has the environment in it.
    let bytes = main.max(volumes);
    match bytes > WORDS_MAX {
        false => Ok(()),
        true => Err(StageError::ImageTooWordy {
            process: lrp.guid.process.clone(),
            bytes,
            most: WORDS_MAX,
        }),
    }
}

fn text_of(execution: &Execution) -> String {
    serde_json::to_string(execution).expect("our own type with text keys becomes JSON")
}

/// Whether the manifest itself says how `web` starts.
fn says_command(manifest: &Manifest) -> bool {
    let own = manifest.processes.get("web").and_then(|web| web.command.as_deref());
    let said = own.or(manifest.run.command.as_deref());
    said.is_some_and(|command| !command.trim().is_empty())
}

/// The manifest with what it leaves to the image.
fn resolve(manifest: &Manifest, execution: &Execution) -> Result<Manifest, StageError> {
    let mut whole = manifest.clone();
    if whole.run.user.is_empty() {
        whole.run.user = user_of(&execution.user);
        // What a name stands for is known only inside.
        if !whole.run.user.split(':').all(IdRange::may_be) {
            return Err(StageError::ImageUser { user: whole.run.user });
        }
    }
    if whole.ports.iter().all(|port| port.container != 0) {
        return Ok(whole);
    }
    let mut tcp = execution.ports.iter().filter(|port| port.protocol == "tcp");
    let number = match tcp.next() {
        Some(port) => port.port,
        None if execution.ports.is_empty() => USUAL_PORT,
        None => return Err(StageError::ImageNoTcp),
    };
    whole.ports.iter_mut().filter(|port| port.container == 0).for_each(|it| it.container = number);
    for process in whole.processes.values_mut() {
        let healths = [&mut process.health].into_iter().chain(&mut process.readiness);
        for check in healths.flat_map(Health::checks_mut) {
            if let Check::Port { port: port @ 0 } | Check::Http { port: port @ 0, .. } = check {
                *port = number;
            }
        }
    }
    Ok(whole)
}

/// What an instance may write itself: as for Diego's docker apps, the image is part of the limit.
fn rest(disk: Bytes, image_bytes: u64) -> Result<Bytes, StageError> {
    match disk.get().checked_sub(image_bytes) {
        Some(rest) if rest > 0 => Ok(Bytes::new(rest)),
        _ => Err(too_large(disk, image_bytes)),
    }
}

fn too_large(disk: Bytes, image_bytes: u64) -> StageError {
    StageError::ImageTooLarge { disk, image: Bytes::mib(image_bytes.div_ceil(1 << 20)) }
}

/// Refuses an image that leaves its instances less than a container needs: each of them would fail at its
/// start. What runs already is left alone.
pub fn check_disk(manifest: &Manifest, image: &StagedImage) -> Result<(), StageError> {
    let of_hook = manifest.release_hook.iter().map(|hook| hook.disk);
    let mut disks = manifest.processes.values().map(|process| process.disk).chain(of_hook);
    let lacks = |disk: &Bytes| disk.saturating_sub(Bytes::new(image.bytes)) < DISK_MIN;
    disks.find(lacks).map_or(Ok(()), |disk| Err(too_large(disk, image.bytes)))
}

#[cfg(test)]
mod tests;
