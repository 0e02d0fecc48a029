//! What staging finds out about an app that comes as an image.

use crate::unit::Digest;
use serde::{Deserialize, Serialize};

/// The very image that runs: instances are made of it without asking anybody.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StagedImage {
    /// Digest of its manifest.
    pub digest: Digest,
    /// Its layers in the store, lowest first.
    pub layers: Vec<Digest>,
    /// Bytes in the files of all its layers; part of what an instance may have of the disk.
    pub bytes: u64,
    /// Environment of its processes, `NAME=value`.
    #[serde(default)]
    pub env: Vec<String>,
    /// Directories that an instance has in any case.
    #[serde(default)]
    pub volumes: Vec<String>,
    /// Number of the signal that asks its processes to end, if it names one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_signal: Option<i32>,
}

/// `execution_metadata` of Diego's docker lifecycle: how the image wants to be run. What is empty is
/// left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Execution {
    /// Further arguments, or all of it without an entrypoint.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cmd: Vec<String>,
    /// Program and first arguments.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub entrypoint: Vec<String>,
    /// Where they start; empty: `/`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub workdir: String,
    /// What is listened on, by number.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<ExposedPort>,
    /// `name`, `uid`, `name:group`, `uid:gid`; empty: root.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub user: String,
}

/// A port that the image exposes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ExposedPort {
    /// Its number.
    pub port: u16,
    /// `tcp`, `udp` or `sctp`.
    pub protocol: String,
}
