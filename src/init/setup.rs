//! The short-lived process between the daemon and pid 1.
//!
//! It runs as root of the host, alone in its process, in the container's cgroup already. What it
//! makes belongs to two owners: user, net, uts, ipc and cgroup namespace to the container's user
//! namespace; mounts and pids to the host's, so that nobody inside ever has rights over them.

use super::order::{Given, check_owner, check_plan, read_filter, refused, take_given};
use super::proto::{InsideNet, MAX_MESSAGE, Order, Owner, Plan, SetUp};
use super::victim::Score;
use super::{
    Doing, InitError, confine, early, inside_net, limits, message, pea, root, serve, spawner,
};
use crate::sys::fd::{self, PollFd, PollFlags};
use crate::sys::ns::{self, Fork, Parent, Spaces};
use crate::sys::{process, signal};
use crate::unit::IdMap;
use serde::de::DeserializeOwned;
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;

/// How long the daemon may take for its next message, and pid 1 for its set-up.
const PATIENCE_MS: u16 = 60_000;

/// The same for the plan, in minutes: meanwhile a disk is made, perhaps of all files of a large image,
/// on a slow one.
const DISK_MINUTES: usize = 240;

/// The namespaces that belong to the container's user namespace, and that one.
pub(super) struct Made {
    /// The process that has made them, about to end; to be waited for.
    helper: i32,
    pub(super) user: OwnedFd,
    pub(super) net: OwnedFd,
    /// Each of the others with its kind.
    others: Vec<(OwnedFd, Spaces)>,
}

impl Made {
    /// Enters all but the user namespace. To be called once.
    pub(super) fn enter(&self) -> Result<(), InitError> {
        // It ends by itself.
        process::wait(self.helper).doing(|| "wait for the helper process".into())?;
        let others = self.others.iter().map(|(space, kind)| (space, *kind));
        for (space, kind) in others.chain([(&self.net, Spaces::CLONE_NEWNET)]) {
            ns::enter(space, kind)
                .doing(|| format!("enter the container's namespaces ({kind:?})"))?;
        }
        Ok(())
    }
}

/// The verb `terrarium init`; descriptor 0 is the daemon's channel.
pub fn run() -> ExitCode {
    // First of all: from here on nobody inside can trace us or read our descriptors, and this
    // stays so in every process forked from here, until it execs.
    if process::set_dumpable(false).is_err() {
        return ExitCode::FAILURE;
    }
    let channel = match fd::take_standard_input() {
        Ok(channel) => channel,
        Err(err) => {
            crate::error!("init.failed", err = err);
            return ExitCode::FAILURE;
        }
    };
    let prepared = prepare_self(&channel).doing(|| "prepare the set-up process".into());
    match told(&channel, |first| obey(&channel, prepared?, receive(&channel)?, first)) {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

/// What a copy that the spawner has made does instead of [`run`]: it inherits what is prepared.
pub(super) fn obey_as_copy(channel: &OwnedFd, usual: limits::Values) -> bool {
    let prepared = process::new_group().and_then(|()| fd::close_inherited(&[channel.as_fd()]));
    let prepared = prepared.doing(|| "prepare the set-up process".into());
    told(channel, |first| {
        prepared?;
        let order = receive(channel).inspect_err(|_| {
            // Nobody tells us what to do, but somebody may listen still: who has not heard of us.
            *first = fd::has_hung_up(channel).then(|| std::process::id() as i32);
        })?;
        obey(channel, usual, order, first)
    })
}

/// Does it, and tells the daemon why it failed. `act` leaves the pid of whom the daemon is to wait for.
fn told(channel: &OwnedFd, act: impl FnOnce(&mut Option<i32>) -> Result<(), InitError>) -> bool {
    let mut first = None;
    let Err(err) = act(&mut first) else { return true };
    let (doing, why) = err.parts();
    // The daemon may be gone; then there is nobody to tell.
    let _ = message::send(channel, &SetUp::Refused { doing, why, pid: first }, &[]);
    false
}

/// The daemon's first message says what this process is.
fn obey(
    channel: &OwnedFd,
    usual: limits::Values,
    (order, mut fds): (Order, Vec<OwnedFd>),
    first: &mut Option<i32>,
) -> Result<(), InitError> {
    match order {
        Order::Spawner => spawner::run(channel, usual),
        Order::Container(owner) => set_up(channel, owner, usual, first),
        Order::Early(order) => early::begin(channel, &order, usual, first),
        Order::Pea(order) => {
            check_plan(&order.plan)?;
            shed_unusable(order.plan.privileged)?;
            let (filter, pidfd) = (fds.pop(), fds.pop());
            let (Some(filter), Some(pidfd)) = (filter, pidfd) else {
                return Err(refused("it came without pidfd and filter".into()));
            };
            pea::make(channel, *order, pidfd, read_filter(filter)?, usual)
        }
    }
}

/// Everything up to a standing container. `first` becomes the pid of the future pid 1.
fn set_up(
    channel: &OwnedFd,
    owner: Owner,
    usual: limits::Values,
    first: &mut Option<i32>,
) -> Result<(), InitError> {
    check_owner(&owner)?;
    shed_unusable(owner.privileged)?;
    let made = make_spaces(&owner, Spaces::CLONE_NEWCGROUP)?;
    message::send(channel, &SetUp::Born, &[made.net.as_fd()]).map_err(|_| InitError::Abandoned)?;
    made.enter()?;
    // Meanwhile the daemon makes what the plan names. Should it end, so do we.
    let spoke = |_| matches!(fd::wait_readable(channel, PATIENCE_MS), Ok(true) | Err(_));
    if !(0..DISK_MINUTES).any(spoke) {
        return Err(InitError::Abandoned);
    }
    let (plan, fds): (Plan, Vec<OwnedFd>) = receive(channel)?;
    check_plan(&plan)?;
    if (plan.ids, plan.privileged) != (owner.ids, owner.privileged) {
        return Err(refused("it is not the one that was announced".into()));
    }
    let given = take_given(fds)?;
    set_host_name(&plan)?;
    ns::unshare(Spaces::CLONE_NEWPID).doing(|| "make a pid namespace".into())?;

    let (status, tell) = fd::pipe().doing(|| "make a pipe".into())?;
    let (gate, open) = fd::pipe().doing(|| "make a pipe".into())?;
    // Not our child but the daemon's, as if that one had forked it: we shall not be here.
    match ns::fork(Spaces::empty(), Parent::CallersParent).doing(|| "fork pid 1".into())? {
        Fork::Child => {
            // The channel, the network namespace and the rest are the other process's.
            let keep = [&given.listener, &given.depot, &made.user, &tell, &gate].map(AsFd::as_fd);
            match fd::close_inherited(&keep) {
                Ok(()) => become_pid_one(&plan, given, made.user, Maker { tell, gate }, &usual),
                Err(_) => process::exit_now(1),
            }
        }
        Fork::Parent { pid, pidfd } => {
            *first = Some(pid);
            drop((tell, gate));
            // It builds the inside while the daemon connects the network.
            see_born(channel, &plan.net, (pid, &pidfd), (&status, &open))
        }
    }
}

/// Sets the network up once it is attached, opens pid 1's gate when that stands, and tells the daemon
/// of it. A pid 1 with which that fails is killed.
pub(super) fn see_born(
    channel: &OwnedFd,
    net: &InsideNet,
    (pid, pidfd): (i32, &OwnedFd),
    (status, open): (&OwnedFd, &OwnedFd),
) -> Result<(), InitError> {
    let told = expect_go(channel)
        .and_then(|()| inside_net::configure(net))
        .and_then(|()| wait_for(status, channel))
        .and_then(|()| {
            // The gate first: who hears that it stands must not find that it ended there, because we
            // did before we could open it. And what comes on the channel from here on is for pid 1.
            fd::write(open, &[1])
                .and_then(|_| message::send(channel, &SetUp::Ready { pid }, &[]))
                .map_err(|_| InitError::Abandoned)
        });
    if told.is_err() {
        // Already dead is just as well.
        let _ = process::pidfd_send_signal(pidfd, signal::Signal::SIGKILL as i32);
    }
    told
}

/// Waits until the network is attached.
pub(super) fn expect_go(channel: &OwnedFd) -> Result<(), InitError> {
    match receive::<SetUp>(channel)?.0 {
        SetUp::Go => Ok(()),
        other => Err(InitError::refuse("wait for go", format!("got {other:?}"))),
    }
}

/// Sheds what was inherited. Returns the limits of processes that ask for none.
fn prepare_self(channel: &OwnedFd) -> std::io::Result<limits::Values> {
    fd::close_inherited(&[channel.as_fd()])?;
    // The daemon executes itself by a link, whose name this would be.
    process::set_name("terrarium")?;
    process::set_umask(0o022);
    // The daemon may be shielded from the out-of-memory killer; nobody in a container is. Raising
    // the value needs no privilege.
    let file = "/proc/self/oom_score_adj";
    if std::fs::read_to_string(file)?.starts_with('-') {
        std::fs::write(file, "0")?;
    }
    limits::raise()
}

/// Without a user namespace of its own a container has what the box's root has.
pub(super) fn shed_unusable(privileged: bool) -> Result<(), InitError> {
    match privileged {
        true => Ok(()),
        false => limits::keep_usable().doing(|| "lower limits that could not be used".into()),
    }
}

/// The next message of the daemon, in time.
fn receive<T: DeserializeOwned>(channel: &OwnedFd) -> Result<(T, Vec<OwnedFd>), InitError> {
    match fd::wait_readable(channel, PATIENCE_MS) {
        Ok(true) => {}
        _ => return Err(InitError::Abandoned),
    }
    let mut buffer = vec![0; MAX_MESSAGE];
    message::receive(channel, &mut buffer)
        .doing(|| "read the daemon's message".into())?
        .ok_or(InitError::Abandoned)
}

/// Names the box that the container takes itself for.
pub(super) fn set_host_name(plan: &Plan) -> Result<(), InitError> {
    let name = host_name(&plan.handle);
    ns::set_host_name(name).doing(|| format!("set the host name to {name}"))
}

/// The last 63 bytes of the handle, the longest that every program takes.
fn host_name(handle: &str) -> &str {
    let start = handle.len().saturating_sub(63);
    handle.get(start..).unwrap_or(handle).trim_start_matches('-')
}

/// Makes the namespaces by a helper process, which becomes root of the new user namespace before
/// it makes the others, so that what the kernel puts into them has a mapped owner. `more`: besides net,
/// uts and ipc.
pub(super) fn make_spaces(owner: &Owner, more: Spaces) -> Result<Made, InitError> {
    let ids = owner.ids;
    let (hear_mapped, mapped) = fd::pipe().doing(|| "make a pipe".into())?;
    let (hear_made, made) = fd::pipe().doing(|| "make a pipe".into())?;
    // What a user namespace uses of inotify, message queues, pending signals and locked memory
    // counts, beyond its own limits, for whoever made it: that shall not be the host's root, whose
    // share one container could use up for all others and for the host itself.
    // (With Garden's map, all such containers together have one share.)
    process::act_as_user(ids.root()).doing(|| format!("act as user {}", ids.root()))?;
    // Privileged: what it makes belongs to the host's user namespace, and so does its root.
    let fresh = if owner.privileged { Spaces::empty() } else { Spaces::CLONE_NEWUSER };
    let forked = ns::fork(fresh, Parent::Caller);
    if !matches!(forked, Ok(Fork::Child)) {
        process::act_as_user(0)
            // A change of ids may have made us visible.
            .and_then(|()| process::set_dumpable(false))
            .doing(|| "become root again".into())?;
    }
    let forked = forked.doing(|| {
        "make a user namespace (is user.max_user_namespaces 0, or is this a chroot?)".into()
    })?;
    let pid = match forked {
        Fork::Child => {
            drop((mapped, hear_made));
            let code =
                helper(&hear_mapped, &made, SPACES | more).err().and_then(|err| err.raw_os_error());
            // The parent sees the end of the pipe without a byte in it, and our status.
            process::exit_now(code.unwrap_or(0) as u8)
        }
        Fork::Parent { pid, .. } => pid,
    };
    drop((hear_mapped, made));
    let map = (!owner.privileged).then_some(ids);
    let opened = map_and_open(pid, map, (&mapped, &hear_made), more);
    drop(mapped);
    let Err(err) = opened else { return opened };
    let how = process::wait(pid).doing(|| "wait for the helper process".into())?;
    Err(match (err, how) {
        (InitError::Abandoned, process::Ended::Exited(code)) => InitError::Step {
            doing: format!("make the container's namespaces ({:?})", SPACES | more),
            source: std::io::Error::from_raw_os_error(code.into()).into(),
        },
        (err, _) => err,
    })
}

/// What every container has.
const SPACES: Spaces = Spaces::CLONE_NEWNET.union(Spaces::CLONE_NEWUTS).union(Spaces::CLONE_NEWIPC);

/// The helper: waits for its id map, makes the namespaces, says so, and stays until it is no
/// longer needed.
fn helper(mapped: &OwnedFd, made: &OwnedFd, spaces: Spaces) -> std::io::Result<()> {
    if fd::read(mapped, &mut [0])? == 0 {
        return Ok(());
    }
    process::become_user(0, 0, &[])?;
    ns::unshare(spaces)?;
    fd::write(made, &[1])?;
    fd::read(mapped, &mut [0]).map(drop)
}

/// The other side of [`helper`]. `Abandoned`: the helper has failed.
fn map_and_open(
    pid: i32,
    ids: Option<IdMap>,
    (mapped, made): (&OwnedFd, &OwnedFd),
    more: Spaces,
) -> Result<Made, InitError> {
    if let Some(ids) = ids {
        let map = ids.text();
        for file in ["uid_map", "gid_map"] {
            // One write, as the kernel demands.
            std::fs::write(format!("/proc/{pid}/{file}"), &map)
                .doing(|| format!("map ids from {} ({file})", ids.root()))?;
        }
    }
    fd::write(mapped, &[1]).map_err(|_| InitError::Abandoned)?;
    match fd::read(made, &mut [0]) {
        Ok(1) => {}
        _ => return Err(InitError::Abandoned),
    }
    let open = |kind: &str| {
        File::open(format!("/proc/{pid}/ns/{kind}"))
            .map(OwnedFd::from)
            .doing(|| format!("open the container's {kind} namespace"))
    };
    let mut others =
        vec![(open("uts")?, Spaces::CLONE_NEWUTS), (open("ipc")?, Spaces::CLONE_NEWIPC)];
    if more.contains(Spaces::CLONE_NEWCGROUP) {
        others.push((open("cgroup")?, Spaces::CLONE_NEWCGROUP));
    }
    Ok(Made { helper: pid, user: open("user")?, net: open("net")?, others })
}

/// Waits until pid 1 says that it stands. Anything else (its complaint, its silent end, the end of
/// the daemon, too long a time) is the error.
fn wait_for(status: &OwnedFd, channel: &OwnedFd) -> Result<(), InitError> {
    loop {
        let mut watched = [
            PollFd::new(status.as_fd(), PollFlags::POLLIN),
            PollFd::new(channel.as_fd(), PollFlags::POLLIN),
        ];
        match fd::poll(&mut watched, Some(PATIENCE_MS)) {
            Err(err) if err.kind() == std::io::ErrorKind::Interrupted => continue,
            Ok(ready) if ready > 0 => {}
            _ => return Err(InitError::refuse("build the inside", "it takes too long")),
        }
        if watched[0].any() == Some(true) {
            break;
        }
        // The daemon has nothing to say now, so this is its end.
        return Err(InitError::Abandoned);
    }
    let mut text = [0; 4096];
    let length = fd::read(status, &mut text).doing(|| "read pid 1's status".into())?;
    match serde_json::from_slice(&text[..length]) {
        Ok(SetUp::Ready { .. }) => Ok(()),
        Ok(SetUp::Refused { doing, why, .. }) => Err(InitError::Inside { doing, why }),
        _ => Err(InitError::refuse("build the inside", "pid 1 ended without a word")),
    }
}

/// Takes the name that shows in /proc/1/status; empty: keeps its own.
pub(super) fn take_name(name: &str) -> Result<(), InitError> {
    if name.is_empty() {
        return Ok(());
    }
    let doing = || format!("take the name `{}`", name.escape_default());
    if name.len() > process::NAME_MAX {
        let why = format!("it has more than {} bytes", process::NAME_MAX);
        return Err(InitError::refuse(doing(), why));
    }
    process::set_name(name).doing(doing)
}

/// What pid 1 has of its maker.
pub(super) struct Maker {
    /// Where it says that it stands, or why not.
    pub(super) tell: OwnedFd,
    /// Where it waits for the network. The end of it without a byte is its maker's end.
    pub(super) gate: OwnedFd,
}

/// Pid 1 from its first instruction on. It never returns, so nothing of the caller's is dropped.
fn become_pid_one(
    plan: &Plan,
    given: Given,
    user: OwnedFd,
    maker: Maker,
    usual: &limits::Values,
) -> ! {
    let built = take_name(&plan.init_name).and_then(|()| root::build(plan, &user, None));
    let server = built.and_then(|kept| {
        let score = Score::open(&kept.proc, plan.memory_bytes)?;
        confine::confine(plan, user, &given.filters, Spaces::empty())?;
        serve::Server::new(given.listener, given.depot, (kept, score), plan, *usual)
    });
    let told = report(File::from(maker.tell), server.as_ref().err());
    // No word from it after this says the same.
    let free = told && matches!(fd::read(&maker.gate, &mut [0]), Ok(1));
    drop(maker.gate);
    match server {
        Ok(server) if free => server.run(),
        _ => process::exit_now(1),
    }
}

/// Says on the status pipe of [`wait_for`] that all went well, or not. `false`: our maker is dead, then
/// nobody knows of us, and we are to end too.
pub(super) fn report(mut status: File, err: Option<&InitError>) -> bool {
    let word = match err {
        None => SetUp::Ready { pid: 1 },
        Some(err) => {
            // Short enough to pass the pipe in one piece.
            let (doing, why) = err.parts();
            let short = |text: String| text.chars().take(500).collect();
            SetUp::Refused { doing: short(doing), why: short(why), pid: None }
        }
    };
    let word = serde_json::to_vec(&word).expect("plain data becomes JSON");
    status.write_all(&word).is_ok()
}
