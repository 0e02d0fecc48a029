//! A container that stands: the connection to its pid 1, and its processes.

use super::create::SOCKET;
use super::depot::Entry;
use super::error::{Cause, ProcessError};
use super::host::Host;
use super::link::Link;
use super::pea::PeaRoot;
use super::posture::Posture;
use super::program::OwnProgram;
use super::quiet::Quiet;
use super::record::Record;
use super::relief::Relief;
use super::spool::Spool;
use crate::cgroup::{Group, Stats};
use crate::init::proto::{Answer, Ask, FailKind, Notified, ProcessState};
use crate::model::process::{ExitStatus, ProcessSpec, Program, Rlimit, WindowSize};
use crate::sys;
use crate::sys::signal::{KILL, TERM};
use crate::unit::Handle;
use smol::channel::Receiver;
use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// How long processes may take to end when they are asked to, and when they are killed. Less than
/// pid 1 may take for an answer.
const STOP_MAX: Duration = Duration::from_secs(10);

/// A living container.
pub struct Container {
    record: Arc<Record>,
    link: Arc<Link>,
    own: Arc<OwnProgram>,
    quiet: Arc<Quiet>,
    group: Group,
    init_dir: PathBuf,
}

/// A process whose streams are ours.
pub struct Process {
    /// Its name in the container.
    pub id: String,
    /// Its streams; taken once.
    pub streams: Streams,
    /// Limits that were asked for and could not be had, as they are: `nofile 1024, ...`; empty: none.
    pub lowered: String,
    link: Arc<Link>,
    spool: Spool,
    exit: Receiver<ExitStatus>,
    ended: OnceLock<ExitStatus>,
}

/// Descriptors and earlier output of a process.
#[derive(Default)]
pub struct Streams {
    /// Master of its terminal; then the other three are `None`.
    pub tty: Option<OwnedFd>,
    /// Read end.
    pub stdout: Option<OwnedFd>,
    /// Read end.
    pub stderr: Option<OwnedFd>,
    /// Write end, when it was asked for.
    pub stdin: Option<OwnedFd>,
    /// What it wrote to stdout while nobody was attached; comes before `stdout`.
    pub spooled_out: Vec<u8>,
    /// The same for stderr.
    pub spooled_err: Vec<u8>,
}

impl Container {
    /// Connects to a container that has just been made, or was found in the depot.
    pub(super) fn connect(host: &Host, entry: Entry) -> Result<Container, Cause> {
        let handle = entry.spec.handle.clone();
        let (pid, _) = entry.pid.ok_or("it was never finished")?;
        let dir = host.depot.dir(&handle);
        let socket = sys::socket::connect(File::open(&dir)?.as_fd(), SOCKET)?;
        Ok(Container {
            link: Link::open(handle.clone(), socket, sys::process::pidfd_open(pid)?)?,
            own: host.own.clone(),
            quiet: host.quiet.clone(),
            group: host.cgroups.find(&handle),
            init_dir: dir.join("init"),
            record: host.records.open(entry),
        })
    }

    /// One whose pid 1 has ended, as it was found in the depot: it has limits and figures and can be
    /// destroyed, and nothing runs in it any more.
    pub(super) fn of_ended(host: &Host, entry: Entry) -> Result<Container, Cause> {
        let handle = entry.spec.handle.clone();
        Ok(Container {
            link: Link::of_ended(handle.clone())?,
            own: host.own.clone(),
            quiet: host.quiet.clone(),
            group: host.cgroups.find(&handle),
            init_dir: host.depot.dir(&handle).join("init"),
            record: host.records.open(entry),
        })
    }

    /// Its pid 1 could not be talked to, or not as it should be.
    pub(super) fn talk(&self, source: impl Into<Cause>) -> ProcessError {
        self.link.talk(source)
    }

    /// Its pid 1 may still answer through this connection.
    pub fn is_connected(&self) -> bool {
        self.link.is_open()
    }

    /// Its name.
    pub fn handle(&self) -> &Handle {
        self.link.handle()
    }

    /// What the depot says about it at this moment.
    pub fn entry(&self) -> Arc<Entry> {
        self.record.get()
    }

    /// Starts a process and attaches to it.
    pub async fn start(&self, spec: ProcessSpec) -> Result<Process, ProcessError> {
        self.start_in(spec, None, Vec::new()).await
    }

    /// The same in the root of a pea, whose files say who a user is; without a working directory
    /// it is `/` there. The process is in the groups that `doors` open (descriptors of their
    /// `cgroup.procs`, for writing, by whoever may move processes there) before it does anything.
    pub async fn start_in(
        &self,
        mut spec: ProcessSpec,
        root: Option<&PeaRoot>,
        doors: Vec<OwnedFd>,
    ) -> Result<Process, ProcessError> {
        let _busy = self.quiet.begin();
        if root.is_some() {
            spec.dir.get_or_insert_with(|| "/".to_owned());
        }
        let (id, tty) = (spec.id.clone(), spec.tty.is_some());
        let program = match spec.program {
            Program::Path => None,
            Program::Ours => Some(self.own.load().await.map_err(|err| {
                let text = format!(
                    "cannot copy our program to memory: {err}; is `vm.memfd_noexec` 2, or the \
                     program's file gone?"
                );
                ProcessError::Refused { kind: FailKind::System, text }
            })?),
        };
        let mut sent: Vec<_> = program.iter().map(|program| program.as_fd()).collect();
        sent.extend(doors.iter().map(AsFd::as_fd));
        let exit = self.link.watch(&id);
        sys::fault::point(format_args!("run:asked"));
        let asked = match (root, &*doors) {
            // What the pid 1 of an older daemon knows too.
            (None, []) => self.link.ask_with(Ask::Start(spec), &sent).await,
            (None, _) => self.link.ask_with(Ask::StartIn { spec }, &sent).await,
            (Some(root), _) => self.adopt(spec, root, &sent).await,
        };
        sys::fault::point(format_args!("run:started"));
        match asked {
            Ok((answer, fds)) => {
                let mut process = self.process(id, tty, fds, exit);
                if let Answer::Started { lowered, .. } = &answer {
                    process.lowered = told(lowered);
                }
                // Whoever has another name for the container says it himself.
                if self.entry().spec.posture == Posture::App && !process.lowered.is_empty() {
                    let (handle, id, limits) = (self.handle(), &process.id, &process.lowered);
                    crate::warn!("process.limits_lowered", handle = handle, id = id, to = limits);
                }
                Ok(process)
            }
            Err(err) => {
                self.link.unwatch(&id, exit);
                Err(err)
            }
        }
    }

    /// Has a process forked in the root of a pea, and pid 1 take it.
    async fn adopt(
        &self,
        spec: ProcessSpec,
        root: &PeaRoot,
        sent: &[BorrowedFd<'_>],
    ) -> Result<(Answer, Vec<OwnedFd>), ProcessError> {
        let (id, program, tty) = (spec.id.clone(), spec.path.clone(), spec.tty.is_some());
        let keep_stdin = spec.keep_stdin;
        let (pid, lowered, fds) = match root.fork(spec, sent).await {
            Ok(Some((Answer::Forked { pid, lowered }, fds))) => (pid, lowered, fds),
            Ok(Some((Answer::Failed { kind, text }, _))) => {
                return Err(ProcessError::Refused { kind, text });
            }
            Ok(Some((other, _))) => return Err(self.link.out_of_turn(&other)),
            Ok(None) => return Err(self.link.gone()),
            Err(err) => return Err(self.link.talk(err)),
        };
        let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
        let adopt = Ask::Adopt { id, program, pid, tty, keep_stdin, lowered };
        self.link.ask_with(adopt, &fds).await
    }

    /// Takes over a process with what it has written since; it may have ended meanwhile. It never
    /// waits for us: its outputs are read by who knows [`Relief`].
    pub async fn attach(&self, known: &ProcessState) -> Result<Process, ProcessError> {
        let mut process = self.attach_to(known, true).await?;
        let (spool, streams) = (process.spool.clone(), &mut process.streams);
        (streams.spooled_out, streams.spooled_err) = smol::unblock(move || spool.take()).await;
        Ok(process)
    }

    /// The same, but what it has written since stays where it is until it is taken, and it waits for
    /// whoever reads.
    pub async fn attach_unread(
        &self,
        known: &ProcessState,
    ) -> Result<(Process, Spool), ProcessError> {
        let process = self.attach_to(known, false).await?;
        let spool = process.spool.clone();
        Ok((process, spool))
    }

    async fn attach_to(
        &self,
        known: &ProcessState,
        never_waits: bool,
    ) -> Result<Process, ProcessError> {
        let exit = self.link.watch(&known.id);
        let attach = Ask::Attach { id: known.id.clone(), never_waits };
        let (_, fds) = match self.link.ask(attach).await {
            Ok(answer) => answer,
            Err(err) => {
                self.link.unwatch(&known.id, exit);
                return Err(err);
            }
        };
        // Pid 1 told its end to whoever listened then, and says it once: if that was before our
        // watch, only the list still has it.
        let list = self.processes().await?;
        if let Some(status) = list.iter().find(|p| p.id == known.id).and_then(|p| p.ended) {
            self.link.tell_end(&known.id, status);
        }
        Ok(self.process(known.id.clone(), known.tty, fds, exit))
    }

    /// All processes that pid 1 knows, running and ended, but those that serve the daemon.
    pub async fn processes(&self) -> Result<Vec<ProcessState>, ProcessError> {
        match self.link.ask(Ask::List).await?.0 {
            Answer::Processes(mut list) => {
                list.retain(|process| !process.is_internal());
                Ok(list)
            }
            other => Err(self.link.out_of_turn(&other)),
        }
    }

    /// What the app has said of itself; refused for one whose pid 1 does not hear it.
    pub async fn notified(&self) -> Result<Notified, ProcessError> {
        if !self.entry().spec.notify {
            // The pid 1 of an older daemon does not even know the question.
            let text = "it was made without a socket for sd_notify; restart the app".to_owned();
            return Err(ProcessError::Refused { kind: FailKind::Refused, text });
        }
        match self.link.ask(Ask::Notified).await?.0 {
            Answer::Notified(said) => Ok(said),
            other => Err(self.link.out_of_turn(&other)),
        }
    }

    /// Sends a signal to one process, attached or not.
    pub async fn signal(&self, id: &str, signal: i32) -> Result<(), ProcessError> {
        self.link.ask(Ask::Signal { id: id.to_owned(), signal, group: false }).await.map(drop)
    }

    /// Sends a signal to every process but pid 1.
    pub async fn signal_all(&self, signal: i32) -> Result<(), ProcessError> {
        self.link.ask(Ask::SignalAll { signal }).await.map(drop)
    }

    /// Ends all its processes but pid 1: asks them to, and kills after 10 s what is left; with
    /// `kill` at once. The container stands, and may be given new ones. An error: some are left.
    pub async fn stop(&self, kill: bool) -> Result<(), ProcessError> {
        if !kill {
            self.signal_all(TERM).await?;
            if self.is_empty_within(STOP_MAX).await? {
                return Ok(());
            }
        }
        self.signal_all(KILL).await?;
        match self.is_empty_within(STOP_MAX).await? {
            true => Ok(()),
            false => {
                let seconds = STOP_MAX.as_secs();
                Err(self.link.talk(format!("some processes are left {seconds} s after a kill")))
            }
        }
    }

    /// Waits until no process but pid 1 is left, but no longer than this.
    async fn is_empty_within(&self, max: Duration) -> Result<bool, ProcessError> {
        let empty = async { self.link.ask(Ask::Empty).await.map(|_| true) };
        let too_long = async {
            async_io::Timer::after(max).await;
            Ok(false)
        };
        smol::future::or(empty, too_long).await
    }

    /// Lets pid 1 forget an ended process.
    pub async fn forget(&self, id: &str) -> Result<(), ProcessError> {
        self.link.ask(Ask::Forget { id: id.to_owned() }).await.map(drop)
    }

    /// The connection to its pid 1 has ended, and that is still there: take the container over again.
    pub fn is_lost(&self) -> bool {
        self.link.is_lost()
    }

    /// Its pid 1 has ended, and with it everything inside.
    pub fn has_ended(&self) -> bool {
        self.link.is_gone()
    }

    /// Returns when pid 1, and with it everything inside, is gone.
    pub async fn ended(&self) {
        self.link.ended().await;
    }

    /// Its control group, for figures and for limits that change. Blocking files.
    pub fn group(&self) -> &Group {
        &self.group
    }

    /// What it uses now. Blocking file reads of a few microseconds.
    pub fn stats(&self) -> Result<Stats, crate::cgroup::CgroupError> {
        self.group.stats()
    }

    /// How often the kernel ended one of its processes for lack of memory.
    pub fn oom_kills(&self) -> u64 {
        self.group.stats().map(|stats| stats.oom_kills).unwrap_or(0)
    }

    fn process(
        &self,
        id: String,
        tty: bool,
        fds: Vec<OwnedFd>,
        exit: Receiver<ExitStatus>,
    ) -> Process {
        let mut fds = fds.into_iter();
        let streams = match tty {
            true => Streams { tty: fds.next(), ..Streams::default() },
            false => Streams {
                stdout: fds.next(),
                stderr: fds.next(),
                stdin: fds.next(),
                ..Streams::default()
            },
        };
        let (link, lowered) = (self.link.clone(), String::new());
        let spool = Spool::new(self.init_dir.clone(), id.clone());
        Process { id, streams, lowered, link, spool, exit, ended: OnceLock::new() }
    }
}

impl Process {
    /// Waits for its end. May be asked again. [`ProcessError::Gone`]: it ended with its container; any
    /// other error: it may still run, but its end cannot be told.
    pub async fn wait(&self) -> Result<ExitStatus, ProcessError> {
        match (self.exit.recv().await, self.ended.get()) {
            (Ok(status), _) => Ok(*self.ended.get_or_init(|| status)),
            (Err(_), Some(status)) => Ok(*status),
            (Err(_), None) => Err(self.link.lost()),
        }
    }

    /// By which whoever reads its standard output, or error, gets that back from pid 1.
    pub fn relief(&self, err: bool) -> Relief {
        let (link, spool, id) = (self.link.clone(), self.spool.clone(), self.id.clone());
        Relief { link, spool, id, err }
    }

    /// Sends it a signal.
    pub async fn signal(&self, signal: i32) -> Result<(), ProcessError> {
        self.link.ask(Ask::Signal { id: self.id.clone(), signal, group: false }).await.map(drop)
    }

    /// The same for somebody who does not stay to hear of it.
    pub(super) fn send_signal(&self, signal: i32) -> impl Future<Output = ()> + Send + 'static {
        let (link, id) = (self.link.clone(), self.id.clone());
        async move { drop(link.ask(Ask::Signal { id, signal, group: false }).await) }
    }

    /// Kills it and all that it has started and that has not left its group.
    pub async fn kill_all(&self) -> Result<(), ProcessError> {
        let kill = Ask::Signal { id: self.id.clone(), signal: KILL, group: true };
        self.link.ask(kill).await.map(drop)
    }

    /// No more input comes, from anybody who attaches later either: to be said when the descriptor
    /// of a stdin that is kept is closed.
    pub async fn end_input(&self) -> Result<(), ProcessError> {
        self.link.ask(Ask::EndInput { id: self.id.clone() }).await.map(drop)
    }

    /// Changes the size of its terminal.
    pub async fn resize(&self, size: WindowSize) -> Result<(), ProcessError> {
        self.link.ask(Ask::Resize { id: self.id.clone(), size }).await.map(drop)
    }
}

/// Limits as a person reads them.
fn told(limits: &BTreeMap<Rlimit, u64>) -> String {
    let each: Vec<_> = limits.iter().map(|(kind, value)| format!("{kind} {value}")).collect();
    each.join(", ")
}
