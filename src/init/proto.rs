//! What the daemon and pid 1 of a container say to each other.
//!
//! Set-up, over a `SOCK_SEQPACKET` pair that is descriptor 0 of `terrarium init`:
//!
//! ```text
//! daemon                                   init
//!   | spawn, put into the cgroup             |
//!   | Order::Container --------------------> | makes user, net, uts, ipc, cgroup namespaces
//!   | (disk, listener, bridge)               |
//!   | <-- Born + [netns]                     |
//!   | Plan  + [listener, depot, seccomp] --> | new mounts and pids; forks pid 1, which builds
//!   | (veth, rules)                          | the inside meanwhile
//!   | Go ----------------------------------> | own address; lets pid 1 serve
//!   | <-- Ready{pid}  or  Refused{..}        | the first process ends
//! ```
//!
//! All files that the plan names are there before it is sent. Nothing but pid 1 runs before `Ready`.
//!
//! After that pid 1 serves requests on the listener (a `SOCK_SEQPACKET` socket in the depot), one
//! message each, at most [`MAX_MESSAGE`] bytes of JSON, descriptors beside it by `SCM_RIGHTS`.
//! It outlives the daemon: a new daemon connects, lists, attaches.

use crate::model::process::{ExitStatus, INTERNAL, ProcessSpec, Rlimit, WindowSize};
use crate::unit::IdMap;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;

/// The longest message, in bytes; a bigger request is refused by the sender.
pub const MAX_MESSAGE: usize = 128 * 1024;

/// Bytes of unread output that pid 1 keeps per stream while nobody is attached.
pub const SPOOL_MAX: u64 = 1 << 20;

/// First message: what `terrarium init` is to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// Wait, and copy yourself for each channel that comes, as drawn in [`super::spawner`].
    Spawner,
    /// Make the root of a pea and start processes in it, as drawn in [`super::pea`]. Descriptors:
    /// a pidfd of the container's pid 1, the seccomp filter.
    Pea(Box<PeaPlan>),
    /// Make a container, as drawn above; its [`Plan`] follows.
    Container(Owner),
    /// The same, and make what can be made before the plan is known, as drawn in [`super::early`].
    Early(Early),
}

/// What is known of a container before its [`Plan`], as that has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Early {
    /// Ids inside are these outside; not the box's own.
    pub ids: IdMap,
    /// The container's end of the network.
    pub net: InsideNet,
    /// Masked.
    pub masked: Vec<String>,
    /// Made read-only.
    pub read_only: Vec<String>,
    /// An empty directory on the box where the mounts are put together; nothing of it stays.
    pub place: PathBuf,
}

/// Whose a container's namespaces are. As its [`Plan`] has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// Ids inside are these outside.
    pub ids: IdMap,
    /// No user namespace: the box's root.
    pub privileged: bool,
}

/// The root filesystem of a pea: a process in a container that has files of its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeaPlan {
    /// Pid 1 of the container, as the box numbers it.
    pub beside: i32,
    /// As the container's, with layers, writable directory and binds of its own.
    pub plan: Plan,
}

/// Start a process in the root of a pea. Descriptors as with [`Ask::StartIn`]. The answer is
/// a [`Reply`] with [`Answer::Forked`] or [`Answer::Failed`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeaStart {
    /// Comes back in the answer.
    pub seq: u64,
    /// What to start.
    pub spec: ProcessSpec,
}

/// Everything pid 1 needs to build the inside. Descriptors: the listener, the
/// depot's `init` directory (owned by the mapped root), the seccomp filter (a memfd of
/// `sock_filter`s, empty for none).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// The container's host name.
    pub handle: String,
    /// Ids inside are these outside.
    pub ids: IdMap,
    /// The container's end of the network.
    pub net: InsideNet,
    /// Layer directories, lowest first; mounted read-only through the id map. None: `writable` is
    /// the root itself.
    pub lowers: Vec<PathBuf>,
    /// Directory that holds `upper` and `work`, both owned by the mapped root. As the root itself
    /// it has owners 0 to 65535, and is mounted through the id map.
    pub writable: PathBuf,
    /// An empty directory on the box where the mounts are put together; private to pid 1.
    pub scratch: PathBuf,
    /// Mounted after the root, in this order.
    pub binds: Vec<Bind>,
    /// Directories of the root that are made before when they are missing; absolute paths.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<String>,
    /// Capabilities (numbers) that stay in the bounding set of everything inside.
    pub capabilities: Vec<u8>,
    /// The same for processes of other users than root: no more than those.
    pub user_capabilities: Vec<u8>,
    /// No user namespace, so `ids` are the box's; no system call filter; /dev/fuse.
    pub privileged: bool,
    /// No exec inside gives more privilege than its caller has: set-user-id programs do not work.
    pub no_new_privs: bool,
    /// Masked: files by the null device, directories by an empty one that is read-only.
    pub masked: Vec<String>,
    /// Made read-only.
    pub read_only: Vec<String>,
    /// Size of /dev/shm in bytes; 0: the kernel's own.
    pub shm_bytes: u64,
    /// The memory limit of the group that pid 1 is in, in bytes; 0: none.
    pub memory_bytes: u64,
    /// Pid 1's name in /proc/1/status, at most 15 bytes; empty: that of its program.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub init_name: String,
    /// The AppArmor profile of everything that pid 1 starts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub apparmor: Option<String>,
    /// Pid 1 hears what the app says of itself; see [`NOTIFY_NAME`](crate::model::work::NOTIFY_NAME).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub notify: bool,
}

/// What pid 1 does to its own network namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InsideNet {
    /// Name of the link that appears in the namespace.
    pub link: String,
    /// Its address and prefix length.
    pub address: Ipv4Addr,
    /// Prefix length of the subnet.
    pub prefix: u8,
    /// Default route.
    pub gateway: Ipv4Addr,
}

/// A file or directory that shows up inside, in another place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bind {
    /// Absolute path of what is there already, where `origin` says.
    pub from: PathBuf,
    /// Where `from` is.
    #[serde(default, skip_serializing_if = "Origin::is_default")]
    pub origin: Origin,
    /// Absolute path inside; made when missing, resolved within the root.
    pub to: String,
    /// Not writable inside, nor is anything that is mounted below it.
    pub read_only: bool,
    /// Owners are shown through the container's id map; those of the container's own files are
    /// what they are.
    pub mapped: bool,
    /// It is ours, in a place that the box may mount so that nothing there can be run, as Debian does
    /// with /run: inside it can.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ours: bool,
}

/// Where the source of a bind is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// On the box.
    #[default]
    Host,
    /// The same, under its real name: no link on the way is followed. For what an app can write to,
    /// as it may put a link there after somebody has looked.
    Real,
    /// In the container's root, with the binds before it; no mount below it comes along.
    Container,
}

impl Origin {
    /// What [`Default`] says; such a one is not written down.
    fn is_default(&self) -> bool {
        *self == Origin::Host
    }
}

/// What pid 1 says during set-up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub enum SetUp {
    /// The namespaces exist; carries the network namespace's descriptor.
    Born,
    /// The network is attached: go on. (The daemon's only message here after the plan.)
    Go,
    /// The container stands; its pid 1 has this number on the box.
    Ready {
        /// Process id as the daemon sees it.
        pid: i32,
    },
    /// The root of a pea stands: the sender takes [`PeaStart`]s now, until the daemon closes. It is
    /// the daemon's child, and told as [`SetUp::Ready`] with its pidfd, before this or after.
    Rooted,
    /// It cannot be built.
    Refused {
        /// What was tried, on what.
        doing: String,
        /// Why not.
        why: String,
        /// The process that was to become pid 1, when there was one already: it is dead, and a
        /// child of the daemon, which must wait for it. Of a copy of the spawner that finds the daemon's
        /// end closed for writing before it has an order: itself, about to end.
        #[serde(default)]
        pid: Option<i32>,
    },
}

/// What the daemon asks of pid 1. `seq` comes back in the answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Chosen by the asker.
    pub seq: u64,
    /// What is asked.
    pub ask: Ask,
}

/// The requests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ask {
    /// Start a process; the answer carries its descriptors as [`Answer::Started`] says. An ended
    /// process of the same name is forgotten, and the oldest ended one when the table is full.
    /// One whose program is [`Program::Ours`](crate::model::process::Program::Ours) comes with that
    /// program's descriptor, and then only such a one may have an internal name: it is killed when
    /// the connection that started it closes, and forgotten when it has ended; nobody can attach to
    /// it, and its streams are the starter's alone.
    Start(ProcessSpec),
    /// The same in other groups. Descriptors, in this order: the program, if it is ours; files that
    /// the process writes `0` to before it does anything else: the groups' `cgroup.procs`.
    StartIn {
        /// What to start.
        spec: ProcessSpec,
    },
    /// Take a process that waits at its gate as if it had been started here. Descriptors: those of
    /// [`Answer::Forked`]. The answer is that of a start.
    Adopt {
        /// Its name.
        id: String,
        /// What it is to run, for messages.
        program: String,
        /// Its number inside.
        pid: i32,
        /// It has a terminal.
        tty: bool,
        /// Its stdin is kept open for who attaches later.
        #[serde(default)]
        keep_stdin: bool,
        /// As [`Answer::Started`] has it.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        lowered: BTreeMap<Rlimit, u64>,
    },
    /// Take over the streams of a running process, as [`Answer::Attached`] says.
    Attach {
        /// Which process.
        id: String,
        /// As [`ProcessSpec::never_waits`] has it, from now on.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        never_waits: bool,
    },
    /// Read on, where the read end of an output has the mark of [`super::guard`]; until then nobody
    /// may read it. What pid 1 has kept of it meanwhile, for the asker to take first, is told as with
    /// [`Answer::Attached`]. The answer is [`Answer::Done`].
    ReadOn {
        /// Which process.
        id: String,
        /// Its standard error.
        err: bool,
    },
    /// Send a signal to one process.
    Signal {
        /// Which process.
        id: String,
        /// Signal number.
        signal: i32,
        /// To all that it has started and that has not left its group, too.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        group: bool,
    },
    /// Send a signal to every process but pid 1.
    SignalAll {
        /// Signal number.
        signal: i32,
    },
    /// Answer when no process but pid 1 is left; at once when there is none. Processes that
    /// nobody has asked for count too. What has ended before is told before.
    Empty,
    /// Change the size of a process's terminal.
    Resize {
        /// Which process.
        id: String,
        /// The new size.
        size: WindowSize,
    },
    /// Let go of an input that was kept open: with its last other holder it ends.
    EndInput {
        /// Which process.
        id: String,
    },
    /// Tell all processes, running and ended.
    List,
    /// Tell what the app has said of itself.
    Notified,
    /// Forget an ended process and its spool.
    Forget {
        /// Which process.
        id: String,
    },
}

/// What pid 1 says: an answer (`seq` of the request) or news (`seq` 0).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply {
    /// The request's number; 0 for news.
    pub seq: u64,
    /// The answer.
    pub answer: Answer,
}

/// The answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// Started. Descriptors: with a tty its master; else stdout and stderr (read ends, which pid 1
    /// keeps open too) and, when asked for, stdin (write end). The starter is attached.
    Started {
        /// Process id inside the container.
        pid: i32,
        /// Limits of `rlimits` that the box does not allow: what the process has instead.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        lowered: BTreeMap<Rlimit, u64>,
    },
    /// A process for [`Ask::Adopt`] exists. Descriptors: where it says why it cannot be executed; its
    /// gate, behind which it waits for one byte; and its streams, as with [`Answer::Started`].
    Forked {
        /// Its number inside.
        pid: i32,
        /// As [`Answer::Started`] has it.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        lowered: BTreeMap<Rlimit, u64>,
    },
    /// As [`Answer::Started`], but without stdin unless it is kept: its only write end went to the
    /// starter, so that closing it there ends the input. What was spooled meanwhile is in
    /// `<depot>/init/<id>.out` and `.err`, complete up to [`SPOOL_MAX`] (a last line tells how much was
    /// dropped, and one before what came after an earlier reader that may have the rest), and is
    /// the reader's to remove. Output after it comes by the descriptors, which are non-blocking;
    /// an ended process's deliver what is left and then the end. Pid 1 spools again when the
    /// connection that attached closes.
    Attached,
    /// Done.
    Done,
    /// What the app has said.
    Notified(Notified),
    /// The list.
    Processes(Vec<ProcessState>),
    /// It could not be done.
    Failed {
        /// The kind, for deciding.
        kind: FailKind,
        /// For a person: what, on what, why.
        text: String,
    },
    /// News: a process ended. Its status is in the depot already (`<depot>/init/<id>.exit`).
    Ended {
        /// Which process.
        id: String,
        /// How.
        status: ExitStatus,
    },
}

/// What an app has said of itself since its container stands. sd_notify(3).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notified {
    /// `READY=1`.
    pub ready: bool,
    /// `STOPPING=1`.
    pub stopping: bool,
    /// Milliseconds since the last `READY=1` or `WATCHDOG=1`; before the first, since there is a
    /// socket.
    pub age_ms: u64,
    /// The last `STATUS=`, at most 256 bytes.
    pub status: String,
}

/// Kinds of failure that a caller tells apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailKind {
    /// The program does not exist in the container.
    ProgramNotFound,
    /// The program cannot be executed.
    NotExecutable,
    /// The user or group does not exist in the container.
    UserNotFound,
    /// No process of that name, or it has ended.
    NoSuchProcess,
    /// The name is taken, malformed, or the table is full.
    Refused,
    /// The kernel said no.
    System,
}

/// One process of a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessState {
    /// Its name.
    pub id: String,
    /// Process id inside.
    pub pid: i32,
    /// `None`: it runs.
    pub ended: Option<ExitStatus>,
    /// It has a terminal.
    pub tty: bool,
}

impl ProcessState {
    /// It serves the daemon, and is none of the container's owner.
    pub fn is_internal(&self) -> bool {
        self.id.starts_with(INTERNAL)
    }
}
