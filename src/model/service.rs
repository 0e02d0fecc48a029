//! What an app is bound to, as `[[service]]` of its manifest says and `VCAP_SERVICES` tells it.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::path::PathBuf;

/// Label of what no broker has made.
pub const USER_PROVIDED: &str = "user-provided";

/// One service instance and the app's binding to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// Of the instance, unique in the app.
    pub name: String,
    /// What kind it is; default [`USER_PROVIDED`].
    pub label: String,
    /// `None`: it has none, as what is user-provided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<String>,
    /// By which libraries find it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// What the app calls it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub binding_name: Option<String>,
    /// Told to the app, nothing else: logs stay on the box.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub syslog_drain_url: Option<String>,
    /// Told to the app, nothing else: what is mounted, `[[volume]]` says.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volume_mounts: Vec<Value>,
    /// What it needs to get in.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub credentials: Map<String, Value>,
    /// The file that they were read from when the manifest was applied, absolute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials_file: Option<PathBuf>,
}
