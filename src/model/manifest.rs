//! One app as its owner declares it. The TOML text is read and checked by `config::manifest`.

use super::egress::Rule;
use crate::unit::{AppName, Bytes, ImageRef, Rate};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

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
    /// Names of buildpacks in detection order; empty: all that the box has, by name.
    pub buildpacks: Vec<String>,
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
