//! The root of a pea: a process with files of its own that shares everything else with a container.
//!
//! It is made by a process of the box's root that goes into the container's network, ipc and pid
//! namespaces, so that /sys, /dev/mqueue and /proc are the container's, but stays in the box's user
//! namespace, as D10 wants. Nobody inside can trace it, and it ends when the root stands: the
//! descriptors that it hands back keep the mount namespace alive.

use super::proto::{PeaPlan, Plan, SetUp};
use super::root;
use super::{Doing, InitError, message};
use crate::sys::at::{self, Open, Resolve};
use crate::sys::fd;
use crate::sys::ns::{self, Fork, Parent, Spaces};
use crate::sys::process::{self, Ended};
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};

/// Follows the order: the answer on `channel` is told by a child, which is in the pid namespace.
pub fn make(channel: &OwnedFd, order: PeaPlan, pidfd: OwnedFd) -> Result<(), InitError> {
    let PeaPlan { beside, plan } = order;
    let open = |kind: &str| {
        File::open(format!("/proc/{beside}/ns/{kind}"))
            .map(OwnedFd::from)
            .doing(|| format!("open the container's {kind} namespace"))
    };
    let user = open("user")?;
    let spaces = [
        (open("net")?, Spaces::CLONE_NEWNET),
        (open("ipc")?, Spaces::CLONE_NEWIPC),
        (open("pid")?, Spaces::CLONE_NEWPID),
    ];
    // Asked after they were opened: then the number was not somebody else's meanwhile.
    if !matches!(fd::wait_readable(&pidfd, 0), Ok(false)) {
        return Err(InitError::refuse("enter the container", "it has ended"));
    }
    for (space, kind) in &spaces {
        ns::enter(space, *kind).doing(|| format!("enter the container's namespaces ({kind:?})"))?;
    }
    match ns::fork(Spaces::empty(), Parent::Caller).doing(|| "fork".into())? {
        Fork::Child => {
            let told = build(&plan, &user, channel);
            process::exit_now(u8::from(told.is_err()))
        }
        Fork::Parent { pid, .. } => match process::wait(pid).doing(|| "wait".into())? {
            // What went wrong is told already.
            Ended::Exited(_) => Ok(()),
            Ended::Signaled(_) => {
                Err(InitError::refuse("build the root of a pea", "its container has ended"))
            }
        },
    }
}

/// Builds the root and hands it over, or says why not.
fn build(plan: &Plan, user: &OwnedFd, channel: &OwnedFd) -> Result<(), InitError> {
    let built = root::build(plan, user).and_then(|kept| {
        let here = Open::O_PATH | Open::O_DIRECTORY;
        let root = at::open(at::HERE, "/", here, 0, Resolve::empty())
            .doing(|| "open the new root".into())?;
        // In a /proc of our own making, over which nothing is mounted there.
        let space = File::open("/proc/self/ns/mnt").doing(|| "open the mount namespace".into())?;
        Ok((root, OwnedFd::from(space), kept.pts))
    });
    let told = match &built {
        Ok((root, space, pts)) => {
            message::send(channel, &SetUp::Rooted, &[root.as_fd(), space.as_fd(), pts.as_fd()])
        }
        Err(err) => {
            let (doing, why) = err.parts();
            message::send(channel, &SetUp::Refused { doing, why, pid: None }, &[])
        }
    };
    told.map_err(|_| InitError::Abandoned)?;
    built.map(drop)
}
