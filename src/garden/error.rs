//! What goes wrong for a Garden client, by the kinds that it tells apart.

use std::error::Error;
use std::fmt;

/// Why a request was not done. The texts are those that clients match on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GardenError {
    /// No container of this handle: "unknown handle: {0}".
    UnknownHandle(String),
    /// No process of this name: "unknown process: {0}".
    UnknownProcess(String),
    /// The program is not in the container.
    NoExecutable(String),
    /// Not at this moment; it may work later.
    Unavailable(String),
    /// Everything else, said in full.
    Failed(String),
}

impl fmt::Display for GardenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            GardenError::UnknownHandle(handle) => write!(f, "unknown handle: {handle}"),
            GardenError::UnknownProcess(id) => write!(f, "unknown process: {id}"),
            GardenError::NoExecutable(text)
            | GardenError::Unavailable(text)
            | GardenError::Failed(text) => f.write_str(text),
        }
    }
}

impl Error for GardenError {}
