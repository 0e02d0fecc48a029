//! What can go wrong with the store, and how to mend it.

use super::plan::{self, Room};
use crate::unit::{Bytes, Handle};
use std::error::Error;
use std::fmt;
use std::io;
use std::path::PathBuf;

/// An operation on the store that failed.
#[derive(Debug)]
pub enum VolumeError {
    /// The one external program is missing.
    NoMkfs,
    /// `mkfs.btrfs` ran and failed; `said` is what it printed.
    Mkfs {
        /// The file it was to format.
        file: PathBuf,
        /// Its output, trimmed.
        said: String,
    },
    /// No loop device can be had.
    NoLoop {
        /// Why.
        source: io::Error,
    },
    /// The kernel cannot mount btrfs.
    NoBtrfs {
        /// The mount point.
        dir: PathBuf,
    },
    /// The loop file would be hidden by its own mount.
    FileInside {
        /// The mount point.
        dir: PathBuf,
        /// The file.
        file: PathBuf,
    },
    /// The store was laid out by a program newer than this one.
    Newer {
        /// The store.
        dir: PathBuf,
        /// What its version file says.
        found: String,
    },
    /// The loop file has its greatest size and is too full.
    Full {
        /// What was asked for, and what there is.
        room: Box<Room>,
    },
    /// The loop file may grow, but the disk below it has no room to spare.
    HostFull {
        /// The loop file.
        file: PathBuf,
        /// What was asked for, and what there is.
        room: Box<Room>,
    },
    /// The partition that the store is on is too full.
    PartitionFull {
        /// The store.
        dir: PathBuf,
        /// What was asked for, and what there is.
        room: Box<Room>,
    },
    /// The store cannot be closed: somebody is still in it.
    Busy {
        /// The store.
        dir: PathBuf,
    },
    /// The store is unmounted here, but something keeps its loop device.
    Held {
        /// The loop device.
        device: PathBuf,
        /// The file behind it.
        file: PathBuf,
    },
    /// A container of this name has a writable subvolume already.
    Exists {
        /// The container.
        handle: Handle,
    },
    /// The container has no writable subvolume.
    Absent {
        /// The container.
        handle: Handle,
    },
    /// The kernel refused a step.
    Refused {
        /// "cannot {doing} {path}".
        doing: &'static str,
        /// The object.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl VolumeError {
    /// For `map_err`: the kernel refused `doing` with `path`.
    pub(super) fn refused(
        doing: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> VolumeError {
        let path = path.into();
        move |source| VolumeError::Refused { doing, path, source }
    }

    /// Whether the store has no room: making some, then trying again, can help.
    pub fn is_full(&self) -> bool {
        use VolumeError as E;
        matches!(self, E::Full { .. } | E::HostFull { .. } | E::PartitionFull { .. })
    }
}

/// A size for people: whole MiB, not bytes to the last digit.
fn mib(bytes: u64) -> Bytes {
    Bytes::mib(Bytes::new(bytes).as_mib())
}

/// What is missing, in words.
fn shortage(room: &Room) -> String {
    let [need, free, promised] = [room.need, room.free(), room.promised].map(mib);
    match room.promised {
        0 => format!("{free} free, {need} more is needed"),
        _ => {
            format!("{free} free, containers may still write {promised}, and {need} more is needed")
        }
    }
}

impl fmt::Display for VolumeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use VolumeError as E;
        match self {
            E::NoMkfs => write!(
                f,
                "cannot make the store's file system: mkfs.btrfs is not installed; run `apt \
                 install btrfs-progs`, or point [store] dir at a directory on btrfs"
            ),
            E::Mkfs { file, said } => {
                write!(f, "mkfs.btrfs cannot format {}: {said}", file.display())
            }
            E::NoLoop { .. } => write!(
                f,
                "cannot get a loop device for the store; run `modprobe loop`, or point [store] \
                 dir at a directory on btrfs"
            ),
            E::FileInside { dir, file } => write!(
                f,
                "[store] file {} lies inside [store] dir {}, which would hide it; move one of them",
                file.display(),
                dir.display()
            ),
            E::Newer { dir, found } => write!(
                f,
                "the store in {} has layout version `{}`, this program knows 1; run the newer \
                 program, or move the store away",
                dir.display(),
                found.escape_default()
            ),
            E::Full { room } => write!(
                f,
                "the store has {}, but it may not grow beyond {}; raise [store] size_max, give \
                 apps less `disk`, or delete apps that are not needed",
                shortage(room),
                mib(room.file.max)
            ),
            E::HostFull { file, room } => write!(
                f,
                "the store has {}, but {} cannot grow: its disk has {} free, of which {} is kept \
                 for the system; make room there, or give apps less `disk`",
                shortage(room),
                file.display(),
                mib(room.file.host_free),
                mib(plan::reserve(room.file.host_total))
            ),
            E::PartitionFull { dir, room } => write!(
                f,
                "the file system of {} has {}; make room on it, or give apps less `disk`",
                dir.display(),
                shortage(room)
            ),
            E::Busy { dir } => write!(
                f,
                "cannot unmount {}: something in it is still open or mounted; stop the apps first",
                dir.display()
            ),
            E::Held { device, file } => write!(
                f,
                "{} still holds {}: a container's root or another mount namespace is on it; it is \
                 let go when the last of them ends",
                device.display(),
                file.display()
            ),
            E::Exists { handle } => write!(f, "container {handle} has a disk already"),
            E::Absent { handle } => write!(f, "container {handle} has no disk"),
            E::NoBtrfs { dir } => write!(
                f,
                "cannot mount the store at {}: this kernel has no btrfs; run `modprobe btrfs`",
                dir.display()
            ),
            E::Refused { doing, path, .. } => write!(f, "cannot {doing} {}", path.display()),
        }
    }
}

impl Error for VolumeError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            VolumeError::Refused { source, .. } | VolumeError::NoLoop { source } => Some(source),
            _ => None,
        }
    }
}
