//! Whose container it is, as text in the depot: read after a restart of the daemon.

use super::diff::Key;
use crate::model::lrp::ProcessGuid;
use crate::unit::AppName;
use serde::{Deserialize, Serialize};

/// The owner of a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Owner {
    /// A staging Task; not continued after a restart.
    Staging(AppName),
    /// An instance.
    Lrp {
        /// Of which LRP.
        guid: ProcessGuid,
        /// Which one.
        index: u32,
    },
}

/// Text for a staging container.
pub fn staging(app: &AppName) -> String {
    to_text(&Owner::Staging(app.clone()))
}

/// Text for an instance's container.
pub fn lrp(key: &Key) -> String {
    to_text(&Owner::Lrp { guid: key.0.clone(), index: key.1 })
}

/// The instance that a container belongs to, if it belongs to one.
pub fn key(text: &str) -> Option<Key> {
    match serde_json::from_str(text).ok()? {
        Owner::Lrp { guid, index } => Some((guid, index)),
        Owner::Staging(_) => None,
    }
}

fn to_text(owner: &Owner) -> String {
    serde_json::to_string(owner).expect("plain data always becomes JSON")
}
