//! The processes of one container, running and ended.

use super::depot::Depot;
use super::guard::{Guard, LOOK, SOON};
use super::proto::ProcessState;
use super::spool::{Pulled, Stream};
use crate::model::process::{ExitStatus, INTERNAL, Rlimit};
use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::time::Duration;

/// Processes of one container, ended ones that nobody has forgotten included.
pub const PROCESSES_MAX: usize = 256;

/// Reads from one stream of an ended process before its end is reported. A full pipe is one
/// read; the rest is for descendants that go on writing, and they cannot hold us up for ever.
const DRAIN_READS: usize = 64;

/// Names one process for as long as pid 1 lives, also when its id is used again.
pub type Serial = u64;

/// Names one connection in the same way.
pub type PeerId = u64;

/// Where a process is in its life.
pub enum Phase {
    /// Forked; whether exec works is not known yet.
    Starting {
        /// Says what failed, or closes when exec has worked.
        errors: OwnedFd,
        /// Who asked.
        peer: PeerId,
        /// The number of that request.
        seq: u64,
        /// The write end of its standard input, for the one who asked.
        stdin: Option<OwnedFd>,
        /// Limits that are lower than it asked for.
        lowered: BTreeMap<Rlimit, u64>,
    },
    /// Exec has worked.
    Running,
    /// Waited for; the number belongs to somebody else now.
    Ended(ExitStatus),
}

/// One process.
pub struct Process {
    /// Its name.
    pub id: String,
    /// What was to be run, as it was asked for.
    pub program: String,
    /// Its number inside.
    pub pid: i32,
    /// It has a terminal: then there is one stream.
    pub tty: bool,
    /// It serves the daemon: see [`super::proto::Ask::Start`].
    pub internal: bool,
    /// Where it is in its life.
    pub phase: Phase,
    /// Its outputs: a terminal's one, or standard output and standard error.
    pub streams: Vec<Stream>,
    /// The connection that reads its streams; we read them when there is none.
    pub attached: Option<PeerId>,
    /// Who reads its streams is looked after: see [`super::guard`].
    pub never_waits: bool,
    /// Its standard input is kept open for who attaches later.
    pub keep_input: bool,
    /// The write end, when it is kept.
    pub input: Option<OwnedFd>,
}

impl Process {
    /// Its number, unless it has ended.
    pub fn live_pid(&self) -> Option<i32> {
        match self.phase {
            Phase::Starting { .. } | Phase::Running => Some(self.pid),
            Phase::Ended(_) => None,
        }
    }

    /// Its streams are ours to read.
    pub fn is_ours_to_read(&self) -> bool {
        self.attached.is_none() && !matches!(self.phase, Phase::Starting { .. })
    }

    /// Whether something is written to this stream tells whether its reader has to be looked after.
    pub fn is_looked_after(&self, stream: &Stream) -> bool {
        let guarded = self.never_waits && !self.tty && self.attached.is_some();
        guarded && stream.guard == Guard::Calm
    }

    /// Spools what its streams hold at present.
    pub fn drain(&mut self, depot: &Depot, buffer: &mut [u8]) {
        for stream in self.streams.iter_mut().filter(|stream| stream.open) {
            for _ in 0..DRAIN_READS {
                if stream.pull(depot, buffer) != Pulled::Some {
                    break;
                }
            }
        }
    }

    /// Copies of the streams' descriptors, for whoever attaches: the outputs, then the input if it
    /// is kept.
    pub fn stream_copies(&self) -> std::io::Result<Vec<OwnedFd>> {
        let outputs = self.streams.iter().map(|stream| &stream.fd);
        outputs.chain(&self.input).map(OwnedFd::try_clone).collect()
    }

    /// How the protocol tells it.
    fn state(&self) -> ProcessState {
        let ended = match self.phase {
            Phase::Ended(status) => Some(status),
            Phase::Starting { .. } | Phase::Running => None,
        };
        ProcessState { id: self.id.clone(), pid: self.pid, ended, tty: self.tty }
    }
}

/// All of them.
#[derive(Default)]
pub struct Table {
    all: BTreeMap<Serial, Process>,
    next: Serial,
}

impl Table {
    /// Forgets what has ended and stands in the way of a new process of this name: the last one of
    /// that name, and the oldest of all when the table is full. A daemon that was killed cannot
    /// forget what it had started, and the next one does not know those names. Returns the names.
    pub fn make_way(&mut self, id: &str) -> Vec<String> {
        let ended = |process: &Process| process.live_pid().is_none();
        let of_name = self.all.iter().find(|(_, process)| process.id == id && ended(process));
        let mut gone: Vec<Serial> = of_name.map(|(serial, _)| *serial).into_iter().collect();
        if self.all.len() >= PROCESSES_MAX && gone.is_empty() {
            // One whose end was told to whoever reads it, before one that nobody has heard of.
            let told = |process: &Process| process.attached.is_some();
            let mut old = self.all.iter().filter(|(_, process)| ended(process));
            let oldest = old.clone().find(|(_, process)| told(process)).or_else(|| old.next());
            gone.extend(oldest.map(|(serial, _)| *serial));
        }
        gone.iter().filter_map(|serial| self.all.remove(serial)).map(|process| process.id).collect()
    }

    /// Whether a new process, running a program of ours or not, may have this name, and else why
    /// not.
    pub fn check_new(&self, id: &str, ours: bool) -> Result<(), String> {
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        let own = id.strip_prefix(INTERNAL).filter(|_| ours).unwrap_or(id);
        if own.is_empty() || id.len() > 40 || !own.bytes().all(plain) {
            let id = id.chars().take(60).collect::<String>();
            let id = id.escape_default();
            return Err(format!("process name `{id}` is not 1 to 40 of a-z, 0-9 and `-`"));
        }
        if self.all.values().any(|process| process.id == id) {
            return Err(format!("a process `{id}` runs already"));
        }
        if self.all.len() >= PROCESSES_MAX {
            return Err(format!("{PROCESSES_MAX} processes run already; end some first"));
        }
        Ok(())
    }

    /// Adds a process.
    pub fn add(&mut self, process: Process) {
        self.all.insert(self.next, process);
        self.next += 1;
    }

    /// Takes a process out.
    pub fn remove(&mut self, serial: Serial) {
        self.all.remove(&serial);
    }

    /// The process of this number.
    pub fn get(&mut self, serial: Serial) -> Option<&mut Process> {
        self.all.get_mut(&serial)
    }

    /// The process of this name that has at least been started.
    pub fn by_id(&mut self, id: &str) -> Option<(Serial, &mut Process)> {
        self.all.iter_mut().find(|(_, process)| process.id == id).map(|(n, process)| (*n, process))
    }

    /// The process that has this pid now.
    pub fn by_pid(&self, pid: i32) -> Option<Serial> {
        self.all.iter().find(|(_, process)| process.live_pid() == Some(pid)).map(|(n, _)| *n)
    }

    /// All, in the order in which they were started.
    pub fn iter(&self) -> impl Iterator<Item = (Serial, &Process)> {
        self.all.iter().map(|(serial, process)| (*serial, process))
    }

    /// The internal processes that this connection has started and that have not ended.
    pub fn internal_of(&self, peer: PeerId) -> Vec<i32> {
        let started = |process: &Process| match process.phase {
            Phase::Starting { peer: starter, .. } => starter == peer,
            Phase::Running => process.attached == Some(peer),
            Phase::Ended(_) => false,
        };
        let of = self.all.values().filter(|process| process.internal && started(process));
        of.map(|process| process.pid).collect()
    }

    /// Nobody reads through this connection any more.
    pub fn detach(&mut self, peer: PeerId, depot: &Depot) {
        for process in self.all.values_mut().filter(|process| process.attached == Some(peer)) {
            process.attached = None;
            let has_ended = matches!(process.phase, Phase::Ended(_));
            for stream in &mut process.streams {
                // The reader shares the flag with us and may have taken it away; a read of ours
                // must never wait. It cannot fail on a descriptor that is open.
                let _ = crate::sys::fd::set_nonblocking(&stream.fd, true);
                stream.let_go();
                if has_ended {
                    stream.mark_end(depot);
                }
            }
        }
    }

    /// Looks after those who read; when to look again, if at all.
    pub fn look(&mut self, depot: &Depot, buffer: &mut [u8]) -> Option<Duration> {
        let streams = self.all.values_mut().flat_map(|process| &mut process.streams);
        let mut next = None;
        for stream in streams.filter(|stream| stream.guard.wants_looks()) {
            if stream.look(depot, buffer) {
                next = Some(SOON);
            } else if stream.guard.wants_looks() {
                next = next.or(Some(LOOK));
            }
        }
        next
    }

    /// How the protocol tells them.
    pub fn states(&self) -> Vec<ProcessState> {
        self.all.values().map(Process::state).collect()
    }
}
