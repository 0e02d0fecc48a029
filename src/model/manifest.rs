//! One app as its owner declares it. The TOML text is read and checked by `config::manifest`.

use super::egress::Rule;
use super::service::Service;
use super::work::{FileMount, Stop, Volume};
use crate::unit::{AppName, Bytes, Digest, ImageRef, Rate};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// The most that may be in a source that is pushed, in bytes of all its files, of which those with holes
/// count in full; Cloud Foundry's own bound of a package.
pub const SOURCE_MAX: u64 = 1 << 30;

/// Most process types of one app.
pub const PROCESSES_MAX: usize = 16;
/// Longest name of a process type; the app's name, it and an index fit a container's name.
pub const PROCESS_NAME_MAX: usize = 16;

/// A checked manifest. Every value is in range and every name in it resolves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// `name`.
    pub name: AppName,
    /// `[source] path`, absolute: relative paths are taken from the manifest's directory. Empty for
    /// an app from an image.
    pub source: PathBuf,
    /// `[image]`, instead of a source that is built.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<Image>,
    /// `[build]`.
    pub build: Build,
    /// `[run]`, the defaults of every process.
    pub run: Run,
    /// `[process.X]`, with `web` added when the manifest names no process.
    pub processes: BTreeMap<String, Process>,
    /// `[env]`.
    pub env: BTreeMap<String, String>,
    /// `[[port]]`.
    pub ports: Vec<Port>,
    /// `[[egress]]`.
    pub egress: Vec<Rule>,
    /// `[restart]`.
    pub restart: Restart,
    /// `[log]`.
    #[serde(default, skip_serializing_if = "Log::says_nothing")]
    pub log: Log,
    /// `[sidecar.X]`, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub sidecars: BTreeMap<String, SidecarCommand>,
    /// `[stop]`; what it leaves out is the image's own, or the box's usual.
    #[serde(default, skip_serializing_if = "StopWish::says_nothing")]
    pub stop: StopWish,
    /// `[[volume]]`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<Volume>,
    /// `[[file]]`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<FileMount>,
    /// `after`: apps that are up before this one starts, if they are there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub after: Vec<AppName>,
    /// `needs`: apps without which this one does not start.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub needs: Vec<AppName>,
    /// `[rollout]`.
    #[serde(default, skip_serializing_if = "Rollout::says_nothing")]
    pub rollout: Rollout,
    /// What has to succeed first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release_hook: Option<ReleaseHook>,
    /// `[ssh]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ssh: Option<Ssh>,
    /// `[[service]]`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub services: Vec<Service>,
    /// `uris`: under which a proxy before the box leads to it. Nothing here looks at them but the app.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub uris: Vec<String>,
    /// `[features] file_based_services`: they are told by a file, not by `VCAP_SERVICES`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub file_based_services: bool,
}

impl Manifest {
    /// The sidecars of one process.
    pub fn sidecars_of<'a>(
        &'a self,
        process: &'a str,
    ) -> impl Iterator<Item = (&'a String, &'a SidecarCommand)> {
        self.sidecars.iter().filter(move |(_, it)| {
            it.processes.is_empty() || it.processes.iter().any(|name| name == process)
        })
    }

    /// Ports of the box in front of the app's own ports.
    pub fn published(&self) -> impl Iterator<Item = u16> {
        self.ports.iter().filter_map(|port| port.publish)
    }

    /// All ports of the box that it asks for, its SSH servers' last.
    pub fn claims(&self) -> impl Iterator<Item = u16> {
        self.published().chain(self.ssh.as_ref().and_then(|ssh| ssh.publish))
    }

    /// All apps that it waits for, by either key.
    pub fn waits(&self) -> Vec<AppName> {
        self.after.iter().chain(&self.needs).cloned().collect()
    }
}

/// What has to succeed before a new version of the app starts: `[hook.release]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReleaseHook {
    /// What the shell runs, in a container of the new droplet.
    pub command: String,
    /// Memory; default that of `[run]`.
    pub memory: Bytes,
    /// Disk; default that of `[run]`.
    pub disk: Bytes,
    /// How long it may take; default 15m.
    pub timeout: Duration,
}

/// Who may come into the app's containers with SSH.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ssh {
    /// Lines of public keys; at least one, unless there is a file.
    pub authorized_keys: Vec<String>,
    /// A file of the box with further lines, read whenever an instance starts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authorized_keys_file: Option<PathBuf>,
    /// Ports are not forwarded, in either direction.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub no_forwarding: bool,
    /// After so long without a byte a connection is closed; `None`: as long as its client lives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_timeout: Option<Duration>,
    /// On the box, in front of the instances of `web`; `None`: only the instances' own host ports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub publish: Option<u16>,
}

/// What runs beside the processes of an app, in the same container and within its limits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SidecarCommand {
    /// What the shell runs.
    pub command: String,
    /// The processes that have it; empty: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub processes: Vec<String>,
    /// What it needs of its process's memory, which the app is told to leave to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<Bytes>,
}

/// How the app's processes want to be asked to end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StopWish {
    /// Number of the signal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    /// From it to KILL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Duration>,
}

impl StopWish {
    /// What [`Default`] says; such a one is not written down.
    pub fn says_nothing(&self) -> bool {
        *self == StopWish::default()
    }

    /// With what it leaves out: `usual` is the signal that the image names, if it names one.
    pub fn or(self, usual: Option<i32>) -> Stop {
        let default = Stop::default();
        Stop {
            signal: self.signal.or(usual).unwrap_or(default.signal),
            timeout: self.timeout.unwrap_or(default.timeout),
        }
    }
}

/// Where an app's image comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Image {
    /// `ref`: a registry.
    Ref(ImageRef),
    /// `archive`, absolute: a file of `docker save`, or an OCI layout as an archive or a directory.
    Archive(PathBuf),
}

impl fmt::Display for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Image::Ref(name) => name.fmt(f),
            Image::Archive(path) => path.display().fmt(f),
        }
    }
}

/// How the app is staged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Build {
    /// Names or URLs of the buildpacks, a chain of which the last one is the app's; empty: all that
    /// the box has are asked, by name.
    pub buildpacks: Vec<String>,
    /// What the archives at some of the URLs must be. The box fetches these, and keeps them; the
    /// others the builder fetches, in its container.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub checksums: BTreeMap<String, Digest>,
    /// The stack for staging and running; default `edgefs`.
    pub stack: String,
    /// Memory of the staging container; `None`: half of what the box has left, at most 1GiB.
    pub memory: Option<Bytes>,
    /// Disk of the staging container; `None`: half of what the box has left, at most 4GiB, which
    /// is what Diego's stager asks for.
    pub disk: Option<Bytes>,
    /// Default 15m.
    pub timeout: Duration,
}

/// Limits and command of each instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// Default 1, at most 1000.
    pub instances: u32,
    /// Default 256MiB.
    pub memory: Bytes,
    /// Default 512MiB.
    pub disk: Bytes,
    /// 1 to 100; `None`: from memory, as Cloud Foundry does it.
    pub cpu_weight: Option<u32>,
    /// Default 256.
    pub pids: u32,
    /// Open files; default 16384, Cloud Foundry's.
    pub nofile: u64,
    /// Overrides what the droplet says, for the web process.
    pub command: Option<String>,
    /// Default `vcap`; for an app from an image empty: the image's own.
    pub user: String,
}

/// One process type, with the defaults of `[run]` and `[health]` already filled in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Overrides the droplet's command for this type.
    pub command: Option<String>,
    /// Instances; may be 0.
    pub instances: u32,
    /// Memory of each.
    pub memory: Bytes,
    /// Disk of each.
    pub disk: Bytes,
    /// Names of its `[[port]]`s; `web` has all of them by default, other types none.
    pub ports: Vec<String>,
    /// When it counts as running.
    pub health: Health,
    /// When connections are led to it; `None`: while it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub readiness: Option<Health>,
}

/// A port that the app listens on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Port {
    /// What other sections call it; default `web` for a single unnamed one.
    pub name: String,
    /// Inside the container; default 8080. Of an app from an image 0: the one that the image exposes.
    pub container: u16,
    /// On the box, in front of all running instances; `None`: only the instances' own host ports.
    pub publish: Option<u16>,
}

/// When an instance counts as running.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// What is tried.
    pub check: Check,
    /// How long the first success may take; default 60s; zero: for ever.
    pub start_timeout: Duration,
    /// Wait between tries while not yet healthy; default 500ms.
    pub interval_unhealthy: Duration,
    /// Wait between tries once healthy; default 30s.
    pub interval_healthy: Duration,
    /// How long one try may take; default 1s.
    pub timeout: Duration,
    /// Failures in a row that make a healthy instance unhealthy; default 1, at least 1.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub failures: u32,
    /// Further checks: each has to pass, and the failure of any is that of the instance.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub also: Vec<Probe>,
}

/// Times of a health check of which its manifest says nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HealthTimes {
    /// How long the first success may take; zero: for ever.
    pub start_timeout: Duration,
    /// Wait between tries while not yet healthy.
    pub interval_unhealthy: Duration,
    /// Wait between tries once healthy.
    pub interval_healthy: Duration,
}

impl Default for HealthTimes {
    /// Diego's.
    fn default() -> HealthTimes {
        HealthTimes {
            start_timeout: Duration::from_secs(60),
            interval_unhealthy: Duration::from_millis(500),
            interval_healthy: Duration::from_secs(30),
        }
    }
}

fn one() -> u32 {
    1
}

fn is_one(number: &u32) -> bool {
    *number == 1
}

/// One check of several, with times of its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    /// What is tried.
    pub check: Check,
    /// How long one try may take.
    pub timeout: Duration,
    /// Wait between tries once healthy.
    pub interval: Duration,
}

impl Health {
    /// Everything that is tried; none: the process runs, nothing else.
    pub fn probes(&self) -> Vec<Probe> {
        let own = Probe {
            check: self.check.clone(),
            timeout: self.timeout,
            interval: self.interval_healthy,
        };
        let all = [own].into_iter().chain(self.also.iter().cloned());
        all.filter(|probe| probe.check != Check::Process).collect()
    }

    /// Every check, to be changed.
    pub fn checks_mut(&mut self) -> impl Iterator<Item = &mut Check> {
        [&mut self.check].into_iter().chain(self.also.iter_mut().map(|probe| &mut probe.check))
    }
}

/// What a health check tries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum Check {
    /// A TCP connection to this container port.
    Port {
        /// Port inside the container; 0 as in [`Port::container`].
        port: u16,
    },
    /// A GET that answers 200.
    Http {
        /// Port inside the container.
        port: u16,
        /// Path and query, beginning with `/`.
        path: String,
    },
    /// A program in the container that exits with status 0, run as the app's user.
    Exec {
        /// Program and arguments; at least one.
        command: Vec<String>,
    },
    /// The app says so itself, as to systemd: `READY=1` once, then `WATCHDOG=1` within each
    /// interval.
    Watchdog,
    /// The process runs, nothing else.
    Process,
}

/// What is kept of its output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Log {
    /// What each instance may log in a second; `None`: what the box says.
    pub rate: Option<Rate>,
}

impl Log {
    fn says_nothing(&self) -> bool {
        *self == Log::default()
    }
}

/// When a process that ended is started again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Restart {
    /// After every end, by Diego's crash policy.
    #[default]
    Always,
    /// After every end but exit status 0.
    OnFailure,
    /// Never.
    Never,
}

/// How a new version takes over from an old one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rollout {
    /// What goes first, the old or the new.
    pub strategy: Strategy,
    /// Instances that are replaced side by side; default 1, at most 1000.
    pub max_in_flight: u32,
    /// Goes back to the last good version when the new one never becomes healthy; default true.
    pub rollback: bool,
}

impl Default for Rollout {
    fn default() -> Rollout {
        Rollout { strategy: Strategy::Rolling, max_in_flight: 1, rollback: true }
    }
}

impl Rollout {
    /// It is the default.
    pub fn says_nothing(&self) -> bool {
        *self == Rollout::default()
    }
}

/// What goes first when an instance is replaced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Strategy {
    /// The new one becomes healthy beside the old one, where the box has room for both.
    #[default]
    Rolling,
    /// The old one stops first: the two never run at the same time.
    Recreate,
}
