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
    /// Any other Task; not continued either.
    Task(String),
    /// An instance.
    Lrp {
        /// Of which LRP.
        guid: ProcessGuid,
        /// Which one.
        index: u32,
    },
    /// A check of the cell itself; not continued either.
    Check,
}

/// Text for a check of the cell itself.
pub fn check() -> String {
    to_text(&Owner::Check)
}

/// Whether it is one of those.
pub fn is_check(text: &str) -> bool {
    read(text) == Some(Owner::Check)
}

/// The owner, if it is one that this program knows.
pub fn read(text: &str) -> Option<Owner> {
    serde_json::from_str(text).ok()
}

/// Text for a staging container.
pub fn staging(app: &AppName) -> String {
    to_text(&Owner::Staging(app.clone()))
}

/// Text for the container of any other Task.
pub fn task(guid: &str) -> String {
    to_text(&Owner::Task(guid.to_owned()))
}

/// Text for an instance's container.
pub fn lrp(key: &Key) -> String {
    to_text(&Owner::Lrp { guid: key.0.clone(), index: key.1 })
}

/// The LRP and the index that a container belongs to, if it belongs to an instance. Which of an
/// index's two it is, the records tell.
pub fn index(text: &str) -> Option<(ProcessGuid, u32)> {
    match serde_json::from_str(text).ok()? {
        Owner::Lrp { guid, index } => Some((guid, index)),
        Owner::Staging(_) | Owner::Task(_) | Owner::Check => None,
    }
}

fn to_text(owner: &Owner) -> String {
    serde_json::to_string(owner).expect("plain data always becomes JSON")
}
