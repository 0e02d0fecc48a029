//! What can go wrong with a container, for people and for callers who decide.

use super::recipe::Step;
use crate::init::proto::FailKind;
use crate::unit::Handle;
use crate::volume::VolumeError;
use std::error::Error;
use std::fmt;
use std::io;

/// The cause of a failed operation, from whichever room refused it.
pub type Cause = Box<dyn Error + Send + Sync>;

/// A container could not be made, found or destroyed.
#[derive(Debug)]
pub enum ContainerError {
    /// "cannot {doing} container {handle}".
    Step {
        /// What was tried.
        doing: &'static str,
        /// On which container.
        handle: Handle,
        /// Why not.
        source: Cause,
    },
    /// The depot itself cannot be read.
    Depot {
        /// Why not.
        source: Cause,
    },
    /// The handle is in use.
    Exists(Handle),
    /// It is not in the depot, or it is being made or removed.
    Absent(Handle),
    /// A host port that was asked for is somebody's.
    PortTaken {
        /// Which.
        port: u16,
    },
    /// Every slot or host port is taken.
    Full {
        /// `slot` or `host port`.
        what: &'static str,
        /// How to get more.
        cure: &'static str,
    },
    /// It had its room for too long without being made: others before it hang.
    Expired,
    /// The layer is not in the store.
    NoLayer {
        /// Its chain id.
        chain: crate::unit::Digest,
    },
    /// A test asked for this failure.
    Injected,
    /// Some parts of a container stay on the box; a later destroy tries again.
    Left {
        /// Which container.
        handle: Handle,
        /// What could not be removed, and why, joined by `; `.
        parts: String,
    },
}

impl ContainerError {
    /// Whether the box has no room for the container: it may have some later.
    pub fn is_full(&self) -> bool {
        if matches!(self, ContainerError::Full { .. } | ContainerError::Expired) {
            return true;
        }
        let mut cause = self.source();
        while let Some(err) = cause {
            // The kernel's ENOSPC is a full disk, or one namespace too many: others may make room.
            let refused = err.downcast_ref::<io::Error>().map(io::Error::kind);
            if err.downcast_ref::<VolumeError>().is_some_and(VolumeError::is_full)
                || refused == Some(io::ErrorKind::StorageFull)
            {
                return true;
            }
            cause = err.source();
        }
        false
    }
}

impl ContainerError {
    /// Whether what failed wrote to the container's own disk, and not to the box's.
    pub fn is_about_its_disk(&self) -> bool {
        let own = [Step::Writable, Step::Init, Step::Plan, Step::Inside].map(Step::doing);
        matches!(self, ContainerError::Step { doing, .. } if own.contains(doing))
    }
}

impl fmt::Display for ContainerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ContainerError::Step { doing, handle, .. } => {
                write!(f, "cannot {doing} container {handle}")
            }
            ContainerError::Depot { .. } => f.write_str("cannot list the depot"),
            ContainerError::Exists(handle) => write!(f, "container {handle} exists already"),
            ContainerError::Absent(handle) => {
                write!(f, "there is no container {handle}, or it is being made or removed")
            }
            ContainerError::PortTaken { port } => {
                write!(f, "host port {port} is taken; name another, or 0 for one that is free")
            }
            ContainerError::Full { what, cure } => {
                write!(f, "no {what} is left on this box; {cure}")
            }
            ContainerError::Expired => f.write_str(
                "expired container: it had its room for a minute, and no turn to be made came; \
                 `terrarium status --json` tells how many are being made",
            ),
            ContainerError::NoLayer { chain } => write!(f, "layer {chain} is not in the store"),
            ContainerError::Injected => f.write_str("failure asked for by a test"),
            ContainerError::Left { handle, parts } => {
                write!(f, "container {handle} is not wholly removed: {parts}")
            }
        }
    }
}

impl Error for ContainerError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            ContainerError::Step { source, .. } | ContainerError::Depot { source } => {
                Some(source.as_ref())
            }
            _ => None,
        }
    }
}

/// A process could not be started or reached.
#[derive(Debug)]
pub enum ProcessError {
    /// Pid 1 refused; its text names program, user or process.
    Refused {
        /// The kind, for deciding.
        kind: FailKind,
        /// For a person.
        text: String,
    },
    /// The container, or its pid 1, is gone.
    Gone(Handle),
    /// The request is over the protocol's limit.
    TooLong {
        /// Its size in bytes.
        bytes: usize,
    },
    /// Files could not be streamed in or out: the text is what the program said that was at it.
    Broken {
        /// For a person.
        text: String,
    },
    /// Pid 1 could not be talked to.
    Talk {
        /// Which container.
        handle: Handle,
        /// Why not.
        source: Cause,
    },
}

impl fmt::Display for ProcessError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ProcessError::Refused { text, .. } | ProcessError::Broken { text } => f.write_str(text),
            ProcessError::Gone(handle) => write!(f, "container {handle} is gone"),
            ProcessError::TooLong { bytes } => write!(
                f,
                "environment and arguments take {bytes} bytes; at most {} fit: shorten [env]",
                crate::init::proto::MAX_MESSAGE
            ),
            ProcessError::Talk { handle, .. } => {
                write!(f, "cannot talk to the init process of container {handle}")
            }
        }
    }
}

impl Error for ProcessError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            ProcessError::Talk { source, .. } => Some(source.as_ref()),
            _ => None,
        }
    }
}

impl ProcessError {
    /// The process or its container does not exist any more.
    pub fn is_gone(&self) -> bool {
        matches!(
            self,
            ProcessError::Gone(_) | ProcessError::Refused { kind: FailKind::NoSuchProcess, .. }
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lack_of_room_is_told_from_what_no_room_would_mend() {
        let handle: Handle = "web-0-1".parse().expect("handle");
        let step = |source: Cause| ContainerError::Step { doing: "make", handle, source };
        let refused = |number| {
            let source = io::Error::from_raw_os_error(number);
            VolumeError::Refused { doing: "make", path: "/x".into(), source }
        };
        assert!(ContainerError::Full { what: "slot", cure: "" }.is_full());
        assert!(step.clone()(refused(28).into()).is_full(), "ENOSPC");
        assert!(!step.clone()(refused(5).into()).is_full(), "EIO");
        assert!(!step("it was never finished".into()).is_full());
    }
}
