//! What can go wrong with a group, and what its owner can do.

use super::plan::Missing;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::{fmt, io};

/// An operation on a group, or on the machine's hierarchies, that failed.
#[derive(Debug)]
pub enum CgroupError {
    /// The name for the parent group is no plain file name.
    Parent {
        /// As configured.
        name: String,
    },
    /// The name of a pea is no plain file name.
    Pea {
        /// As asked for.
        name: String,
    },
    /// The machine cannot limit a resource. The text names the cure.
    Missing(Missing),
    /// The kernel would not take the device program.
    Program {
        /// The kernel's answer.
        source: io::Error,
    },
    /// The kernel refused to read, make, list, watch or remove something.
    Refused {
        /// The verb.
        doing: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The kernel refused a value.
    Write {
        /// The value.
        text: String,
        /// The file.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A file of the kernel's does not have the field that every supported kernel writes.
    Garbled {
        /// The file.
        path: PathBuf,
    },
    /// Processes are left in a group that should be empty.
    Alive {
        /// The group's name.
        group: String,
        /// How many.
        count: usize,
    },
}

impl CgroupError {
    /// The variant [`CgroupError::Refused`].
    pub(super) fn refused(doing: &'static str, path: PathBuf, source: io::Error) -> CgroupError {
        CgroupError::Refused { doing, path, source }
    }

    /// Whether the file or the whole group does not exist.
    pub fn is_not_found(&self) -> bool {
        match self {
            CgroupError::Refused { source, .. } | CgroupError::Write { source, .. } => {
                super::files::is_gone(source)
            }
            _ => false,
        }
    }
}

impl fmt::Display for CgroupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CgroupError::Parent { name } => write!(
                f,
                "`{}` is no name for a cgroup: letters, digits, `-`, `_` and inner `.` only",
                name.escape_default()
            ),
            CgroupError::Pea { name } => write!(
                f,
                "`{}` is no name for the cgroup of a process: 1 to 128 letters, digits, `-`, `_` \
                 and inner `.` only",
                name.escape_default()
            ),
            CgroupError::Missing(missing) => missing.fmt(f),
            CgroupError::Program { .. } => f.write_str(
                "cannot load the device rules; the kernel needs CONFIG_CGROUP_BPF, and the daemon \
                 must be root",
            ),
            CgroupError::Refused { doing, path, .. } => {
                write!(f, "cannot {doing} {}", path.display())?;
                match self.is_not_found() {
                    true => f.write_str(GONE),
                    false => Ok(()),
                }
            }
            CgroupError::Write { text, path, source } => {
                write!(f, "cannot write `{text}` to {}", path.display())?;
                if source.kind() == io::ErrorKind::ResourceBusy {
                    f.write_str(busy(path))?;
                }
                Ok(())
            }
            CgroupError::Garbled { path } => {
                write!(f, "{} does not hold the number that it should", path.display())
            }
            CgroupError::Alive { group, count } => write!(
                f,
                "{count} processes of cgroup {group} are still there; they wait in the kernel, \
                 mostly for a disk or a network file system"
            ),
        }
    }
}

/// What a group that is not there means, and what helps.
const GONE: &str = ", which somebody has removed or which is not mounted here: destroy what it was of and \
                    make it anew, and leave groups below the daemon's parent to the daemon";

/// Why a file of a group takes no value just then, and what helps.
fn busy(path: &Path) -> &'static str {
    let file = path.file_name().and_then(|file| file.to_str()).unwrap_or_default();
    match file {
        "cgroup.subtree_control" => {
            " while processes live in that group; move them into one below it"
        }
        file if file.starts_with("memory.") => {
            " while more is in use; end some of its processes, or give it more"
        }
        _ => "",
    }
}

impl Error for CgroupError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            CgroupError::Program { source }
            | CgroupError::Refused { source, .. }
            | CgroupError::Write { source, .. } => Some(source),
            CgroupError::Parent { .. }
            | CgroupError::Pea { .. }
            | CgroupError::Missing(_)
            | CgroupError::Garbled { .. }
            | CgroupError::Alive { .. } => None,
        }
    }
}
