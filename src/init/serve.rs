//! Pid 1 at work: one thread, one loop, woken only by events.
//!
//! ```text
//! signalfd   a child ended          -> reap, exit file, then the news
//!            the box shuts down     -> gone with the last child
//! listener   the daemon connects    -> a bounded number of connections
//! peer       a request              -> answered at once, a start when exec has worked
//! errors     a starting process     -> exec has worked, or what failed
//! streams    output, nobody reads   -> spool
//!            output, another reads  -> a look at whether he does, a little later
//! ```

mod answer;
mod begin;

use super::child;
use super::depot::Depot;
use super::guard::{Guard, LOOK};
use super::message;
use super::notice::Notices;
use super::peers::Peers;
use super::proto::{Answer, FailKind, MAX_MESSAGE, Plan, Reply, Request};
use super::root::Kept;
use super::start::{self, Failure, Workshop};
use super::table::{PeerId, Phase, Serial, Table};
use super::victim::Score;
use super::{Doing, InitError, limits};
use crate::model::process::ExitStatus;
use crate::sys::caps::Caps;
use crate::sys::fd::{self, PollFd, PollFlags};
use crate::sys::process::{self, Ended, Resource};
use crate::sys::{memory, signal};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

/// Ended children taken in one turn of the loop.
const REAP_MAX: usize = 4096;
/// Descriptors that pid 1 itself may open: its table is full long before.
const OWN_NOFILE: u64 = 4096;
/// Requests that may wait for the end of all processes.
const FOR_EMPTY_MAX: usize = 64;
/// No descriptor is free below our own limit.
const EMFILE: i32 = 24;
/// After so long without an event, in milliseconds, pid 1 lets go of what of the program it has used.
const CALM_MS: u16 = 1000;
/// Signals that are read as data.
const WATCHED: [signal::Signal; 2] = [signal::Signal::SIGCHLD, signal::Signal::SIGTERM];
/// What a ready descriptor belongs to.
#[derive(Clone, Copy)]
enum Source {
    Signals,
    Listener,
    Peer(PeerId),
    Notices,
    Starting(Serial),
    Stream(Serial, usize),
    Written(Serial, usize),
}

/// Pid 1.
pub struct Server {
    listener: OwnedFd,
    signals: OwnedFd,
    depot: Depot,
    workshop: Workshop,
    peers: Peers,
    table: Table,
    /// What the app says of itself, if it is heard.
    notices: Option<Notices>,
    /// Who waits for the end of all processes, and the number of the request.
    for_empty: Vec<(PeerId, u64)>,
    /// There may be more ended children than the last turn took.
    more_to_reap: bool,
    /// Something was done since the program was let go of.
    has_worked: bool,
    /// When those who read outputs are looked at.
    next_look: Option<Instant>,
    /// The box shuts down: everyone has been told to end, and we end with the last of ours.
    leaving: bool,
    /// Our own soft limit of open files.
    nofile: u64,
    buffer: Vec<u8>,
}

impl Server {
    /// Takes over what was prepared. The caller is confined already.
    pub fn new(
        listener: OwnedFd,
        depot: OwnedFd,
        (kept, score): (Kept, Score),
        plan: &Plan,
        usual: limits::Values,
    ) -> Result<Server, InitError> {
        let depot = Depot::new(&depot)?;
        fd::set_nonblocking(&listener, true).doing(|| "use the listener".into())?;
        let signals = signal::watch(&WATCHED).doing(|| "watch for children".into())?;
        let root = start::root_dir().doing(|| "open the root".into())?;
        let (soft, hard) =
            process::limit(Resource::OPEN_FILES).doing(|| "read the limits".into())?;
        let nofile = soft.max(OWN_NOFILE.min(hard));
        process::set_limit(Resource::OPEN_FILES, nofile, hard)
            .doing(|| "raise the number of open files".into())?;
        let notices = plan.notify.then(Notices::new).transpose();
        let notices = notices.doing(|| "make the socket for sd_notify".into())?;
        let granted = super::confine::granted(plan)?;
        let for_users = Caps::of(&plan.user_capabilities);
        Ok(Server {
            listener,
            signals,
            depot,
            workshop: Workshop {
                kept,
                score,
                root,
                last_id: plan.ids.last(),
                granted,
                for_users,
                usual,
                profile: plan.apparmor.clone(),
            },
            peers: Peers::new(plan.privileged),
            notices,
            table: Table::default(),
            for_empty: Vec::new(),
            more_to_reap: false,
            has_worked: true,
            next_look: None,
            leaving: false,
            nofile,
            buffer: vec![0; MAX_MESSAGE],
        })
    }

    /// Serves until somebody kills us.
    pub fn run(mut self) -> ! {
        // It counts against us when the kernel looks for the largest, and most of it made the container.
        memory::let_go_of_program();
        loop {
            match self.wait() {
                Ok(none) if none.is_empty() && !self.more_to_reap => {
                    self.look();
                    memory::let_go_of_program();
                    self.has_worked = false;
                }
                Ok(ready) => {
                    // What is written wakes us for a look, after which it is let go of anyway.
                    self.has_worked |=
                        ready.iter().any(|(source, _)| !matches!(source, Source::Written(..)));
                    for (source, events) in ready {
                        self.handle(source, events);
                    }
                    self.look();
                }
                Err(err) if err.kind() == io::ErrorKind::InvalidInput => self.end_if_deaf(),
                // A lack of memory in the kernel, or a signal: ask again.
                Err(_) => {}
            }
            if self.more_to_reap {
                self.reap();
            }
            // Whoever loses its parent becomes our child: without one we are alone.
            if (self.leaving || !self.for_empty.is_empty())
                && !self.more_to_reap
                && process::is_childless()
            {
                if self.leaving {
                    std::process::exit(0);
                }
                for (peer, seq) in std::mem::take(&mut self.for_empty) {
                    self.say(peer, seq, Answer::Done, Vec::new());
                }
            }
        }
    }

    /// Waits for events and says whose they are.
    fn wait(&self) -> io::Result<Vec<(Source, PollFlags)>> {
        let (read, write) = (PollFlags::POLLIN, PollFlags::POLLIN | PollFlags::POLLOUT);
        let mut sources = vec![Source::Signals, Source::Listener];
        let mut watched =
            vec![PollFd::new(self.signals.as_fd(), read), PollFd::new(self.listener.as_fd(), read)];
        if let Some(notices) = &self.notices {
            sources.push(Source::Notices);
            watched.push(PollFd::new(notices.socket.as_fd(), read));
        }
        for (id, socket, waits) in self.peers.iter() {
            sources.push(Source::Peer(id));
            watched.push(PollFd::new(socket.as_fd(), if waits { write } else { read }));
        }
        for (serial, process) in self.table.iter() {
            if let Phase::Starting { errors, .. } = &process.phase {
                sources.push(Source::Starting(serial));
                watched.push(PollFd::new(errors.as_fd(), read));
            }
            for (index, stream) in process.streams.iter().enumerate().filter(|it| it.1.open) {
                if process.is_ours_to_read() {
                    sources.push(Source::Stream(serial, index));
                } else if process.is_looked_after(stream) {
                    sources.push(Source::Written(serial, index));
                } else {
                    continue;
                }
                watched.push(PollFd::new(stream.fd.as_fd(), read));
            }
        }
        // To the next millisecond, or we would come too early and wait for nothing.
        let until_look = self.next_look.map(|next| {
            let left = next.saturating_duration_since(Instant::now()).as_millis() + 1;
            left.min(LOOK.as_millis()) as u16
        });
        let patience = match (self.more_to_reap, self.has_worked) {
            (true, _) => Some(0),
            (false, true) => Some(until_look.map_or(CALM_MS, |left| left.min(CALM_MS))),
            (false, false) => until_look,
        };
        fd::poll(&mut watched, patience)?;
        let events = watched.iter().map(|fd| fd.revents().unwrap_or(PollFlags::POLLERR));
        Ok(sources.into_iter().zip(events).filter(|(_, events)| !events.is_empty()).collect())
    }

    /// Ends us, and with us the container, if somebody took our open files away, which the
    /// container's root may: we could hear nobody any more, and ask again for ever. No word of it reaches anybody: `confine`
    /// has given our stderr away.
    fn end_if_deaf(&self) {
        let now = process::limit(Resource::OPEN_FILES).map_or(self.nofile, |(soft, _)| soft);
        if now < self.nofile {
            std::process::exit(1);
        }
    }

    /// Deals with one event. What it belongs to may have gone in the same turn.
    fn handle(&mut self, source: Source, events: PollFlags) {
        match source {
            Source::Signals => {
                // One record stands for any number of children.
                while let Ok(Some(taken)) = signal::take(&self.signals) {
                    // At shutdown, long after the daemon has ended, systemd sends it to all
                    // processes of the box and waits for each, up to 90 seconds. The container's
                    // own processes get no say in when pid 1 ends.
                    self.leaving |= taken.number == signal::TERM && taken.from_outside;
                }
                self.reap();
            }
            Source::Listener => {
                if let Err(err) = self.peers.accept(&self.listener)
                    && err.raw_os_error() == Some(EMFILE)
                {
                    self.end_if_deaf();
                }
            }
            Source::Peer(id) => {
                if events.contains(PollFlags::POLLOUT) && self.peers.flush(id).is_err() {
                    self.hang_up(id);
                }
                if events.intersects(!PollFlags::POLLOUT) {
                    self.hear(id);
                }
            }
            Source::Notices => self.notices.iter_mut().for_each(Notices::hear),
            Source::Starting(serial) => self.settle(serial, true),
            Source::Stream(serial, index) => {
                let Server { table, depot, buffer, .. } = self;
                // An answer to an attach may have gone out in this turn; then it is not ours.
                if let Some(process) = table.get(serial).filter(|p| p.is_ours_to_read()) {
                    process.streams[index].pull(depot, buffer);
                }
            }
            Source::Written(serial, index) => {
                let Some(process) = self.table.get(serial) else { return };
                if process.is_looked_after(&process.streams[index]) {
                    let hung_up = events.intersects(PollFlags::POLLHUP | PollFlags::POLLERR);
                    let stream = &mut process.streams[index];
                    stream.guard = if hung_up { Guard::Over } else { Guard::Seen };
                    self.next_look.get_or_insert_with(|| Instant::now() + LOOK);
                }
            }
        }
    }

    /// Looks after those who read outputs, when it is time.
    fn look(&mut self) {
        let now = Instant::now();
        if self.next_look.is_some_and(|next| next <= now) {
            let next = self.table.look(&self.depot, &mut self.buffer);
            self.next_look = next.map(|after| now + after);
        }
    }

    /// Reads one request and answers it. Anything but a request ends the connection.
    fn hear(&mut self, id: PeerId) {
        let Some(socket) = self.peers.socket(id) else { return };
        match message::receive::<Request>(socket, &mut self.buffer) {
            Ok(Some((Request { seq, ask }, sent))) => match self.answer(id, seq, ask, sent) {
                Ok(Some((answer, fds))) => self.say(id, seq, answer, fds),
                Ok(None) => {}
                Err((kind, text)) => self.say(id, seq, Answer::Failed { kind, text }, Vec::new()),
            },
            Err(err) if err.kind() == io::ErrorKind::WouldBlock => {}
            Ok(None) | Err(_) => self.hang_up(id),
        }
    }

    /// A starting process has become its program, or failed to. `lives`: it has not been waited for.
    fn settle(&mut self, serial: Serial, lives: bool) {
        let Some(process) = self.table.get(serial) else { return };
        let (errors, peer, seq, stdin, lowered) =
            match std::mem::replace(&mut process.phase, Phase::Running) {
                Phase::Starting { errors, peer, seq, stdin, lowered } => {
                    (errors, peer, seq, stdin, lowered)
                }
                other => {
                    process.phase = other;
                    return;
                }
            };
        if let Some((kind, text)) = child::outcome(&errors, &process.program) {
            // Its end will be reaped like an orphan's.
            self.table.remove(serial);
            return self.say(peer, seq, Answer::Failed { kind, text }, Vec::new());
        }
        if process.keep_input {
            process.input = stdin.as_ref().and_then(|stdin| stdin.try_clone().ok());
        }
        if !self.peers.has(peer) {
            return;
        }
        let streams = match process.internal {
            // Not kept: each of its streams ends when either side does.
            true => Ok(process.streams.drain(..).map(|stream| stream.fd).collect()),
            false => process.stream_copies(),
        };
        match streams {
            Ok(mut fds) => {
                // A copy of it is among them when it is kept.
                fds.extend(stdin.filter(|_| process.input.is_none()));
                process.attached = Some(peer);
                let pid = process.pid;
                self.say(peer, seq, Answer::Started { pid, lowered }, fds);
            }
            Err(err) => {
                // Whoever asked takes it for not started, and a pea's disk from under it.
                if lives {
                    // The number is its own until it is waited for; it cannot fail.
                    let _ = signal::send(process.pid, signal::KILL);
                }
                self.table.remove(serial);
                let (kind, text) = system("copy the streams")(err);
                self.say(peer, seq, Answer::Failed { kind, text }, Vec::new());
            }
        }
    }

    /// Takes every ended child: ours, and the orphans that the kernel hands to pid 1.
    fn reap(&mut self) {
        for _ in 0..REAP_MAX {
            match process::wait_any() {
                Ok(Some((pid, how))) => {
                    if let Some(serial) = self.table.by_pid(pid) {
                        self.end(serial, how);
                    }
                }
                Ok(None) | Err(_) => {
                    self.more_to_reap = false;
                    return;
                }
            }
        }
        self.more_to_reap = true;
    }

    /// One of ours has ended: its last words and its status are in the depot before anyone hears.
    fn end(&mut self, serial: Serial, how: Ended) {
        // It may have been so quick that we have not seen its exec yet.
        self.settle(serial, false);
        let Server { table, depot, buffer, .. } = self;
        let Some(process) = table.get(serial) else { return };
        if process.attached.is_none() {
            process.drain(depot, buffer);
        }
        let status = match how {
            Ended::Exited(code) => ExitStatus::Exited(code),
            Ended::Signaled(signal) => ExitStatus::Signaled(signal),
        };
        process.phase = Phase::Ended(status);
        process.input = None;
        let id = process.id.clone();
        match process.internal {
            true => table.remove(serial),
            // A full disk must not hide the end from those who listen; the list has it too.
            false => drop(depot.write_exit(&id, status)),
        }
        let peers: Vec<PeerId> = self.peers.iter().map(|(id, ..)| id).collect();
        for peer in peers {
            self.say(peer, 0, Answer::Ended { id: id.clone(), status }, Vec::new());
        }
    }

    /// Sends a message. A peer that is gone or does not read is cut off.
    fn say(&mut self, id: PeerId, seq: u64, answer: Answer, fds: Vec<OwnedFd>) {
        if self.peers.say(id, &Reply { seq, answer }, fds).is_err() {
            self.hang_up(id);
        }
    }

    /// Ends a connection; its processes' output is ours to read from now on.
    fn hang_up(&mut self, id: PeerId) {
        self.peers.remove(id);
        self.for_empty.retain(|(peer, _)| *peer != id);
        for pid in self.table.internal_of(id) {
            // Not waited for yet, so the number is its own; it cannot fail.
            let _ = signal::send(pid, signal::KILL);
        }
        self.table.detach(id, &self.depot);
    }
}

/// A failure of the kernel's.
fn system(what: &str) -> impl Fn(io::Error) -> Failure {
    move |err| (FailKind::System, format!("cannot {what}: {err}"))
}
