//! Long running processes: what was asked for (desired) and what there is (actual).

use super::death::Death;
use super::egress::Rule;
use super::limits::Limits;
use super::manifest::{Health, Restart, Rollout};
pub use super::work::{CachedDependency, FileMount, Holds, Sidecar, Stop, Volume, Work};
use crate::unit::{AppName, Handle, Rate, Slot};
use serde::{Deserialize, Serialize};
use std::fmt;

/// Names one process type of one app: `orders` (its web process) or `orders:worker`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ProcessGuid {
    /// The app.
    pub app: AppName,
    /// The process type; `web` is the default one.
    pub process: String,
}

impl fmt::Display for ProcessGuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.process.as_str() {
            "web" => write!(f, "{}", self.app),
            other => write!(f, "{}:{other}", self.app),
        }
    }
}

/// n instances of one process, as they shall be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DesiredLrp {
    /// Its name.
    pub guid: ProcessGuid,
    /// Changes with everything that makes a running instance out of date.
    pub version: String,
    /// Name of the stack, the lowest layer.
    pub stack: String,
    /// SHA-256 of the droplet, the layer above it; of an app from an image that of its manifest.
    pub droplet: crate::unit::Digest,
    /// For an app from an image, what else it is run with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<ImageFacts>,
    /// How many instances.
    pub instances: u32,
    /// Limits of each instance's container.
    pub limits: Limits,
    /// Start command as a person wrote it; empty: the image's own.
    pub command: String,
    /// What each instance does.
    pub work: Work,
    /// User inside.
    pub user: String,
    /// Open files of each process.
    pub nofile: u64,
    /// Log source of the process's output, such as `APP/PROC/WEB`.
    pub log_source: String,
    /// What each instance may log in a second; `None`: what the box says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_rate: Option<Rate>,
    /// Environment from the manifest and the recipe, without what the executor adds.
    pub env: Vec<(String, String)>,
    /// Ports inside; the first one is `PORT`.
    pub ports: Vec<LrpPort>,
    /// What it may reach.
    pub egress: Vec<Rule>,
    /// When it counts as running.
    pub health: Health,
    /// When connections are led to it; `None`: while it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub readiness: Option<Health>,
    /// How its processes are asked to end.
    #[serde(default, skip_serializing_if = "Stop::is_default")]
    pub stop: Stop,
    /// Directories of the box that it has.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<Volume>,
    /// Files that are made for it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<FileMount>,
    /// Archives that it has unpacked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dependencies: Vec<CachedDependency>,
    /// When it is started again.
    pub restart: Restart,
    /// It was asked for by the record of a container, which brings its own programs and says itself
    /// what the instance is called.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub by_record: bool,
    /// How a new version takes over from an old one.
    #[serde(default, skip_serializing_if = "Rollout::says_nothing")]
    pub rollout: Rollout,
}

/// How the processes of an app from an image begin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageFacts {
    /// Directories that are made when missing.
    pub volumes: Vec<String>,
}

/// One port of an LRP.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LrpPort {
    /// Port inside the container.
    pub container: u16,
    /// Port of the box that is spread over all running instances.
    pub publish: Option<u16>,
}

/// One instance, as it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActualLrp {
    /// Of which LRP.
    pub guid: ProcessGuid,
    /// Which one of its instances, from 0.
    pub index: u32,
    /// Tells it from the other one of its index, while a new version takes over from an old one.
    #[serde(default, skip_serializing_if = "Side::is_left")]
    pub side: Side,
    /// The version that it was made from.
    pub version: String,
    /// Where it stands.
    pub state: LrpState,
    /// Crashes in a row, by Diego's counting.
    pub crash_count: u32,
    /// Why it crashed last, at most 1024 bytes.
    pub crash_reason: Option<String>,
    /// How it ended last, whether that was a crash or not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub death: Option<Death>,
    /// Why it is not placed, while the box has no room for it.
    #[serde(default)]
    pub placement_error: Option<String>,
    /// Whether its readiness check leads connections to it; `None`: it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub routable: Option<bool>,
    /// It has passed a health check in this version, whatever became of it since.
    #[serde(default)]
    pub ran: bool,
    /// Its readiness check has passed in this version, whatever became of it since.
    /// Of one that an earlier program has recorded nobody knows.
    #[serde(default = "perhaps")]
    pub was_ready: bool,
    /// When it entered `state`, in milliseconds since 1970.
    pub since_ms: u64,
    /// Which one of its records this is.
    #[serde(default, skip_serializing_if = "Tag::is_none")]
    pub tag: Tag,
}

/// Orders what is told of one record, as BBS's modification tag does: of two with one epoch that with
/// the higher index is the later one; another epoch is another record. One that an earlier program has
/// written has none, and anything comes after it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tag {
    /// Of the record, from its first to its last word; no other has it.
    pub epoch: String,
    /// Counts its changes, from 0.
    pub index: u32,
}

impl Tag {
    /// That of the next change; `fresh`: an epoch for what has none yet.
    pub fn next(&self, fresh: impl FnOnce() -> String) -> Tag {
        match self.epoch.as_str() {
            "" => Tag { epoch: fresh(), index: 0 },
            epoch => Tag { epoch: epoch.to_owned(), index: self.index.wrapping_add(1) },
        }
    }

    fn is_none(&self) -> bool {
        self.epoch.is_empty()
    }
}

/// See [`ActualLrp::was_ready`].
fn perhaps() -> bool {
    true
}

/// Two instances of one index can live beside each other, as long as a new version takes over from
/// an old one: each has its side, from its first record to its last.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// The usual one.
    #[default]
    Left,
    /// The other one.
    Right,
}

impl Side {
    /// The one beside it.
    pub fn other(self) -> Side {
        match self {
            Side::Left => Side::Right,
            Side::Right => Side::Left,
        }
    }

    fn is_left(&self) -> bool {
        *self == Side::Left
    }
}

/// States of an instance, named as in the BBS.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "SCREAMING_SNAKE_CASE")]
pub enum LrpState {
    /// Nobody works on it yet.
    Unclaimed,
    /// Its container is being made, or it is not healthy yet.
    Claimed(Place),
    /// It passed its first health check.
    Running(Place),
    /// It ended by itself; it waits for its next start, if there is one.
    Crashed {
        /// With exit status 0.
        #[serde(default)]
        succeeded: bool,
    },
}

impl ActualLrp {
    /// Where it lives, if it lives anywhere.
    pub fn place(&self) -> Option<&Place> {
        match &self.state {
            LrpState::Claimed(place) | LrpState::Running(place) => Some(place),
            LrpState::Unclaimed | LrpState::Crashed { .. } => None,
        }
    }

    /// It passed its first health check and has not ended.
    pub fn runs(&self) -> bool {
        matches!(self.state, LrpState::Running(_))
    }
}

/// Where an instance lives.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// Its container.
    pub handle: Handle,
    /// The container's slot.
    pub slot: Slot,
    /// Host port and container port of each port.
    pub ports: Vec<(u16, u16)>,
}
