//! A pid 1 that is made before its plan is known: with its namespaces, its network and the mounts that
//! are the same in all of them. While it is made the daemon makes disk and groups; or nobody has asked
//! for its container yet.
//!
//! ```text
//! daemon                              set-up process                       pid 1
//!   | Order::Early --------------------> | user, net, uts, ipc namespaces     |
//!   | <------------------- Born + [netns]| forks pid 1                        |
//!   | (veth), Go ----------------------> | address, route                     | /proc, /sys, /dev
//!   | <--------------------- Ready{pid}  | ends                               |
//!   |        at once, or any time later                                       |
//!   | Plan + [listener, depot, seccomp] ------------------------------------> | builds the inside
//!   | (groups)                                                                |
//!   | Go -------------------------------------------------------------------> | is confined
//!   | (rules)                                                                 |
//!   | <------------------------------------------------- Ready or Refused     | serves
//! ```
//!
//! Until the plan comes it waits for nothing but that, and ends when the daemon closes the channel. It
//! has no part of the image and no way to anybody: no rule lets its network send. The daemon puts it into
//! its groups before it says Go again: all that it has done outside of them is to put mounts together.
//! The cgroup namespace is made then. It serves before its rules are written, and nobody asks it for
//! anything: the daemon connects after that.

use super::order::{Given, check_owner, check_plan, refused, take_given};
use super::proto::{Early, MAX_MESSAGE, Owner, Plan, SetUp};
use super::serve::Server;
use super::setup::{self, Maker, expect_go, see_born};
use super::victim::Score;
use super::{Doing, InitError, confine, inside, limits, message, root};
use crate::sys::fd;
use crate::sys::ns::{self, Fork, Parent, Spaces};
use crate::sys::{memory, process};
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};

/// After so long without its plan, in milliseconds, it lets go of what of the program it has used.
const CALM_MS: u16 = 1000;

/// Everything up to a pid 1 that waits for its plan. `first` becomes its pid.
pub(super) fn begin(
    channel: &OwnedFd,
    order: &Early,
    usual: limits::Values,
    first: &mut Option<i32>,
) -> Result<(), InitError> {
    let owner = Owner { ids: order.ids, privileged: false };
    check_owner(&owner)?;
    setup::shed_unusable(false)?;
    let made = setup::make_spaces(&owner, Spaces::empty())?;
    message::send(channel, &SetUp::Born, &[made.net.as_fd()]).map_err(|_| InitError::Abandoned)?;
    made.enter()?;
    ns::unshare(Spaces::CLONE_NEWPID).doing(|| "make a pid namespace".into())?;
    let (status, tell) = fd::pipe().doing(|| "make a pipe".into())?;
    let (gate, open) = fd::pipe().doing(|| "make a pipe".into())?;
    // Not our child but the daemon's, as if that one had forked it: we shall not be here.
    match ns::fork(Spaces::empty(), Parent::CallersParent).doing(|| "fork pid 1".into())? {
        Fork::Child => {
            // A copy that can be closed; all else is the other process's.
            let Ok(channel) = channel.try_clone() else { process::exit_now(1) };
            let keep = [&channel, &made.user, &tell, &gate].map(AsFd::as_fd);
            match fd::close_inherited(&keep) {
                Ok(()) => stand_by(channel, order, made.user, Maker { tell, gate }, usual),
                Err(_) => process::exit_now(1),
            }
        }
        Fork::Parent { pid, pidfd } => {
            *first = Some(pid);
            drop((tell, gate));
            // It makes its mounts while the daemon connects the network.
            see_born(channel, &order.net, (pid, &pidfd), (&status, &open))
        }
    }
}

/// Pid 1 from its first instruction on. It never returns, so nothing of the caller's is dropped.
fn stand_by(
    channel: OwnedFd,
    order: &Early,
    user: OwnedFd,
    maker: Maker,
    usual: limits::Values,
) -> ! {
    let closed = inside::Closed { masked: &order.masked, read_only: &order.read_only };
    let trees = root::trees_ahead(&order.place, order.ids, &user, closed);
    let told = setup::report(File::from(maker.tell), trees.as_ref().err());
    // Until then the channel is our maker's. Its end without a byte is ours.
    let is_ours = told && matches!(fd::read(&maker.gate, &mut [0]), Ok(1));
    drop(maker.gate);
    let server = match (trees, is_ours) {
        (Ok(trees), true) => become_server(&channel, order, user, trees, usual),
        _ => process::exit_now(1),
    };
    let word = match &server {
        Ok(_) => SetUp::Ready { pid: 1 },
        Err(err) => {
            let (doing, why) = err.parts();
            SetUp::Refused { doing, why, pid: None }
        }
    };
    // Who is not heard is known to nobody, and ends.
    let told = message::send(&channel, &word, &[]);
    drop(channel);
    match server {
        Ok(server) if told.is_ok() => server.run(),
        _ => process::exit_now(1),
    }
}

/// Waits for the plan and follows it.
fn become_server(
    channel: &OwnedFd,
    order: &Early,
    user: OwnedFd,
    trees: inside::Trees,
    usual: limits::Values,
) -> Result<Server, InitError> {
    if matches!(fd::wait_readable(channel, CALM_MS), Ok(false)) {
        memory::let_go_of_program();
    }
    let (plan, given) = await_plan(channel)?;
    let is_its_own = (plan.ids, plan.privileged, &plan.net) == (order.ids, false, &order.net)
        && (&plan.masked, &plan.read_only) == (&order.masked, &order.read_only);
    if !is_its_own {
        return Err(refused("it is not one that was prepared for".into()));
    }
    setup::set_host_name(&plan)?;
    setup::take_name(&plan.init_name)?;
    let kept = root::build(&plan, &user, Some(trees))?;
    let score = Score::open(&kept.proc, plan.memory_bytes)?;
    expect_go(channel)?;
    confine::confine(&plan, user, &given.filters, Spaces::CLONE_NEWCGROUP)?;
    Server::new(given.listener, given.depot, (kept, score), &plan, usual)
}

/// The plan, whenever it comes: until then only the daemon's end is one of ours.
fn await_plan(channel: &OwnedFd) -> Result<(Plan, Given), InitError> {
    let mut buffer = vec![0; MAX_MESSAGE];
    let (plan, fds): (Plan, Vec<OwnedFd>) = message::receive(channel, &mut buffer)
        .doing(|| "read the daemon's message".into())?
        .ok_or(InitError::Abandoned)?;
    check_plan(&plan)?;
    Ok((plan, take_given(fds)?))
}
