//! A pea: a process with files of its own that shares everything else with a container.
//!
//! Who makes its root and forks it must be of the box's user namespace, as pid 1 is not (D10); but
//! its parent shall be pid 1, which knows all about processes. So it is forked outside and handed
//! over:
//!
//! ```text
//! daemon            init, then its keeper                 pid 1
//!   | spawn, put into the container's groups                |
//!   | Pea --------->| enters all namespaces but user, mounts|
//!   | <-- Ready{pid}| has forked the keeper, ends           |
//!   | <------ Rooted| has built the root, in its own mounts |
//!   | PeaStart ---->| forks, is confined like pid 1,        |
//!   |               | forks the process, which waits at     |
//!   | <------ Forked| its gate, and ends: pid 1 inherits it |
//!   | Adopt ----------------------------------------------->| opens the gate
//!   | <----------------------------------------------Started|
//! ```
//!
//! The keeper ends when the daemon closes the channel; the root lasts as long as a process runs in
//! it. Nobody inside can trace the keeper or read what it has open.

use super::proto::{Answer, FailKind, MAX_MESSAGE, PeaPlan, PeaStart, Plan, Reply, SetUp};
use super::root::{self, Kept};
use super::start::{self, Failure, Launched, Sent, Workshop};
use super::victim::Score;
use super::{Doing, InitError, confine, limits, message};
use crate::sys::caps::Caps;
use crate::sys::fd::{self, PollFd, PollFlags};
use crate::sys::ns::{self, Fork, Parent, Spaces};
use crate::sys::process::{self, Ended};
use crate::sys::seccomp;
use crate::sys::signal::KILL;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

/// The keeper between two starts.
struct Keeper {
    plan: Plan,
    user: OwnedFd,
    filters: Vec<seccomp::Program>,
    kept: Kept,
    usual: limits::Values,
}

/// Follows the order. What is said on `channel` after [`SetUp::Ready`], or just before it, is said by
/// the keeper, which is in the pid namespace.
pub fn make(
    channel: &OwnedFd,
    order: PeaPlan,
    pidfd: OwnedFd,
    filters: Vec<seccomp::Program>,
    usual: limits::Values,
) -> Result<(), InitError> {
    let PeaPlan { beside, plan } = order;
    let open = |kind: &str| {
        File::open(format!("/proc/{beside}/ns/{kind}"))
            .map(OwnedFd::from)
            .doing(|| format!("open the container's {kind} namespace"))
    };
    let user = open("user")?;
    let spaces = [
        (open("net")?, Spaces::CLONE_NEWNET),
        (open("uts")?, Spaces::CLONE_NEWUTS),
        (open("ipc")?, Spaces::CLONE_NEWIPC),
        (open("cgroup")?, Spaces::CLONE_NEWCGROUP),
        (open("pid")?, Spaces::CLONE_NEWPID),
    ];
    // Asked after they were opened: then the number was not somebody else's meanwhile.
    if !matches!(fd::wait_readable(&pidfd, 0), Ok(false)) {
        return Err(InitError::refuse("enter the container", "it has ended"));
    }
    for (space, kind) in &spaces {
        ns::enter(space, *kind).doing(|| format!("enter the container's namespaces ({kind:?})"))?;
    }
    // Not our child but the daemon's: its pid namespace cannot end before somebody has waited for
    // it, and nobody would in our place.
    match ns::fork(Spaces::empty(), Parent::CallersParent).doing(|| "fork".into())? {
        Fork::Child => {
            let kept = keep(plan, user, filters, usual, channel);
            process::exit_now(u8::from(kept.is_err()))
        }
        Fork::Parent { pid, pidfd } => {
            message::send(channel, &SetUp::Ready { pid }, &[pidfd.as_fd()])
                .map_err(|_| InitError::Abandoned)
        }
    }
}

/// The keeper: builds the root, then starts what it is asked to, until the channel closes.
fn keep(
    plan: Plan,
    user: OwnedFd,
    filters: Vec<seccomp::Program>,
    usual: limits::Values,
    channel: &OwnedFd,
) -> Result<(), InitError> {
    let kept = match root::build(&plan, &user, None) {
        Ok(kept) => kept,
        Err(err) => {
            let (doing, why) = err.parts();
            let _ = message::send(channel, &SetUp::Refused { doing, why, pid: None }, &[]);
            return Err(err);
        }
    };
    message::send(channel, &SetUp::Rooted, &[]).map_err(|_| InitError::Abandoned)?;
    let keeper = Keeper { plan, user, filters, kept, usual };
    let mut buffer = vec![0; MAX_MESSAGE];
    let refused = |seq, kind, text| {
        message::send(channel, &Reply { seq, answer: Answer::Failed { kind, text } }, &[])
            .map_err(|_| InitError::Abandoned)
    };
    while let Some((PeaStart { seq, spec }, fds)) =
        message::receive(channel, &mut buffer).doing(|| "read the daemon's message".into())?
    {
        let forked = ns::fork(Spaces::empty(), Parent::Caller);
        match forked {
            Err(err) => refused(seq, FailKind::System, format!("cannot fork: {err}"))?,
            Ok(Fork::Parent { pid, pidfd }) => {
                await_child(channel, &pidfd)?;
                // Its end makes pid 1 the parent of what it has forked. One that was killed may have
                // said nothing; a second answer is not waited for by anybody.
                if !matches!(process::wait(pid), Ok(Ended::Exited(0))) {
                    refused(seq, FailKind::System, "it was killed before it began".into())?;
                }
            }
            Ok(Fork::Child) => {
                let started = Sent::sort(&spec, fds).and_then(|sent| keeper.start(&spec, sent));
                let (answer, fds) = match &started {
                    Ok(one) => {
                        (Answer::Forked { pid: one.pid, lowered: one.lowered.clone() }, one.fds())
                    }
                    Err((kind, text)) => {
                        (Answer::Failed { kind: *kind, text: text.clone() }, Vec::new())
                    }
                };
                let told = message::send(channel, &Reply { seq, answer }, &fds);
                process::exit_now(u8::from(told.is_err()))
            }
        }
    }
    Ok(())
}

/// Waits for the end of our child: root inside may stop it, and then it comes only with the channel's.
/// The next request may be there before it and waits; a closed channel makes us kill the child.
fn await_child(channel: &OwnedFd, child: &OwnedFd) -> Result<(), InitError> {
    loop {
        // No event asked for: the channel's end is told all the same, and its messages are not.
        let mut watched = [
            PollFd::new(child.as_fd(), PollFlags::POLLIN),
            PollFd::new(channel.as_fd(), PollFlags::empty()),
        ];
        match fd::poll(&mut watched, None) {
            Err(err) if err.kind() == io::ErrorKind::Interrupted => continue,
            other => other.doing(|| "wait for a child".into())?,
        };
        let ready = |at: usize| watched[at].revents().is_some_and(|events| !events.is_empty());
        if ready(0) {
            return Ok(());
        }
        if ready(1) {
            // Whoever is dead already is just as well.
            let _ = process::pidfd_send_signal(child, KILL);
            return Err(InitError::Abandoned);
        }
    }
}

impl Keeper {
    /// Becomes what pid 1 is, without its number, and forks. Called once in a process.
    fn start(
        &self,
        spec: &crate::model::process::ProcessSpec,
        sent: Sent,
    ) -> Result<Launched, Failure> {
        let system = |err: io::Error| (FailKind::System, format!("cannot start in a pea: {err}"));
        let score = Score::open(&self.kept.proc, self.plan.memory_bytes)
            .map_err(|err| (FailKind::System, crate::log::chain(&err)))?;
        let confined = self.user.try_clone().map_err(system).and_then(|user| {
            confine::confine(&self.plan, user, &self.filters, Spaces::empty())
                .and_then(|()| confine::granted(&self.plan))
                .map_err(|err| (FailKind::System, crate::log::chain(&err)))
        });
        let Kept { null, pts, proc } = &self.kept;
        let kept = Kept {
            null: null.try_clone().map_err(system)?,
            pts: pts.try_clone().map_err(system)?,
            proc: proc.try_clone().map_err(system)?,
        };
        let workshop = Workshop {
            kept,
            score,
            profile: self.plan.apparmor.clone(),
            root: start::root_dir().map_err(system)?,
            last_id: self.plan.ids.last(),
            granted: confined?,
            for_users: Caps::of(&self.plan.user_capabilities),
            usual: self.usual,
        };
        let gate = fd::pipe().map_err(system)?;
        start::start(&workshop, spec, Sent { gate: Some(gate), ..sent })
    }
}
