//! What goes wrong with trees and archives.

use crate::log::chain;
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
    /// A file or directory that its own owner may not read.
    Closed {
        /// Which.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
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

    /// The whole text, causes and cure included, for who gave the tree `dir` as `what`: names what
    /// is wrong by its place within.
    pub fn within(&self, what: &str, dir: &Path) -> String {
        let (LifecycleError::File { path, .. }
        | LifecycleError::Changed { path }
        | LifecycleError::Closed { path, .. }) = self
        else {
            return format!("{what} {}: {}", dir.display(), chain(self));
        };
        let name = match path.strip_prefix(dir) {
            Ok(inside) if !inside.as_os_str().is_empty() => {
                format!("`{}` of {what} {}", inside.display(), dir.display())
            }
            _ => format!("{what} {}", path.display()),
        };
        match self {
            LifecycleError::File { doing, source, .. } => {
                format!("cannot {doing} {name}: {source}; mend it or move it out of there")
            }
            LifecycleError::Closed { mode, .. } => format!(
                "{name} has mode {mode:04o}, so that the app, who owns the copy, could not read \
                 it; `chmod u+rX` it or move it out of there"
            ),
            _ => format!("{name} changed while it was copied; apply again when it is at rest"),
        }
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
            LifecycleError::Closed { path, mode } => {
                write!(f, "{} has mode {mode:04o}; `chmod u+rX` it", path.display())
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
            | LifecycleError::Closed { .. }
            | LifecycleError::Refused { .. }
            | LifecycleError::Short => None,
        }
    }
}
