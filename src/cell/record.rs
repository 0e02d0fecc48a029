//! What is kept about an app, as it stands in the records.

use crate::model::image::StagedImage;
use crate::model::manifest::Manifest;
use crate::model::task::StagingResult;
use crate::unit::Digest;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// One app.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppRecord {
    /// As last declared.
    pub manifest: Manifest,
    /// The file that it was declared in.
    pub file: PathBuf,
    /// Changes with each declaration; what was staged for an older one is not the last word.
    pub generation: u64,
    /// The generation whose staging has been decided, with or without success.
    pub staged: Option<u64>,
    /// Why the last staging failed.
    pub failure: Option<String>,
    /// What runs: the last declaration that could be staged.
    pub release: Option<Release>,
    /// Instances by process, where `scale` has overridden the manifest.
    pub scale: BTreeMap<String, u32>,
    /// Counts wishes for fresh instances: `restart` adds one.
    pub restarts: u64,
    /// Nothing shall run.
    pub stopped: bool,
    /// It belongs to a `run` in the foreground and goes with it, or with the daemon.
    #[serde(default)]
    pub temporary: bool,
    /// On its way out: removed as soon as nothing of it runs.
    pub deleting: bool,
}

/// A declaration that was staged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Release {
    /// The declaration.
    pub manifest: Manifest,
    /// SHA-256 of everything that staging depends on; equal: no new staging.
    pub fingerprint: Digest,
    /// What the builder said.
    pub result: StagingResult,
    /// Chain id of the stack's layer; of an app from an image the image's digest.
    pub stack: Digest,
    /// Chain id of the droplet's layer above it; of an app from an image the image's digest.
    pub droplet: Digest,
    /// The image, for an app that comes as one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<StagedImage>,
}

impl Release {
    /// The layers of its containers, lowest first.
    pub fn layers(&self) -> Vec<Digest> {
        match &self.image {
            Some(image) => image.layers.clone(),
            None => vec![self.stack, self.droplet],
        }
    }
}
