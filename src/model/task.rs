//! A Task: work that is done at most once, such as staging.

use super::action::Action;
use super::egress::Rule;
use super::limits::Limits;
use crate::unit::AppName;
use serde::{Deserialize, Serialize};

/// What a Task is to do and in which container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    /// `staging-<app>-<n>`; the container's handle.
    pub guid: String,
    /// The app it works for.
    pub app: AppName,
    /// Name of the stack, the container's only layer.
    pub stack: String,
    /// Limits of the container.
    pub limits: Limits,
    /// What it may reach.
    pub egress: Vec<Rule>,
    /// What to do.
    pub action: Action,
}

/// What the builder leaves behind: Diego's `result.json`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StagingResult {
    /// Which buildpack made it.
    pub lifecycle_metadata: LifecycleMetadata,
    /// Start command of each process type.
    #[serde(default)]
    pub process_types: std::collections::BTreeMap<String, String>,
    /// Passed to the launcher as its third argument.
    #[serde(default)]
    pub execution_metadata: String,
    /// `buildpack` or `docker`.
    #[serde(default)]
    pub lifecycle_type: String,
}

/// The part of [`StagingResult`] about what the app is made of.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LifecycleMetadata {
    /// Key of the last buildpack.
    #[serde(default)]
    pub buildpack_key: String,
    /// Its name, or what it printed at detection.
    #[serde(default)]
    pub detected_buildpack: String,
    /// The image's name, as it was asked for.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub docker_image: String,
}
