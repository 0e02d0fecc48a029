//! What goes wrong with trees and archives.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// A tree that could not be packed or unpacked.
#[derive(Debug)]
pub enum LifecycleError {
    /// A file or directory refused.
    File {
        /// The verb: `open`.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file changed while it was packed, so that the stream holds neither state.
    Changed {
        /// Which.
        path: PathBuf,
    },
    /// The stream itself broke: its other end is gone, or its bytes are no archive.
    Stream {
        /// The verb: `write`.
        doing: &'static str,
        /// Why.
        source: io::Error,
    },
    /// An entry that may not be unpacked.
    Refused {
        /// Its name, printable.
        entry: String,
        /// Which rule it breaks.
        why: &'static str,
    },
    /// An entry that could not be unpacked.
    Entry {
        /// Its name, printable.
        entry: String,
        /// The verb: `write`.
        doing: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The archive has no end mark: who wrote it stopped early.
    Short,
}

impl LifecycleError {
    /// For `map_err`: `doing` something to `path` failed.
    pub(super) fn file(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| LifecycleError::File { doing, path: path.to_owned(), source }
    }
}

impl fmt::Display for LifecycleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LifecycleError::File { doing, path, .. } => {
                write!(f, "cannot {doing} {}", path.display())
            }
            LifecycleError::Changed { path } => {
                write!(f, "{} changed while it was copied; try again", path.display())
            }
            LifecycleError::Stream { doing, .. } => write!(f, "cannot {doing} the archive"),
            LifecycleError::Refused { entry, why } => write!(f, "entry {entry}: {why}"),
            LifecycleError::Entry { entry, doing, .. } => {
                write!(f, "entry {entry}: cannot {doing} it")
            }
            LifecycleError::Short => f.write_str("the archive ends too early"),
        }
    }
}

impl std::error::Error for LifecycleError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            LifecycleError::File { source, .. }
            | LifecycleError::Stream { source, .. }
            | LifecycleError::Entry { source, .. } => Some(source),
            LifecycleError::Changed { .. }
            | LifecycleError::Refused { .. }
            | LifecycleError::Short => None,
        }
    }
}
