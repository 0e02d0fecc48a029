//! The connection to the pid 1 of one container: requests, their answers, and news.

use super::error::{Cause, ProcessError};
use crate::init::proto::{Answer, Ask, FailKind, MAX_MESSAGE, Reply, Request};
use crate::model::process::ExitStatus;
use crate::sys;
use crate::sys::signal::KILL;
use crate::unit::Handle;
use async_io::Async;
use smol::channel::{Receiver, Sender, bounded};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

/// How long pid 1 may take for an answer. It answers at once, a start when exec has worked; but it
/// shares its limits with the app, and a frozen group does not run at all.
pub(super) const ANSWER_MAX: Duration = Duration::from_secs(20);

/// How long pid 1 may take to be gone after its connection has ended: it waits for all that it has
/// killed.
const GONE_MAX: Duration = Duration::from_secs(10);

/// Starts that nobody waits for any more and that pid 1 has not answered yet. Its socket takes fewer.
const LATE_MAX: usize = 512;

/// What came for a question; no descriptors: they were lost on the way.
type Heard = (Answer, Option<Vec<OwnedFd>>);

/// The connection to pid 1.
pub(super) struct Link {
    handle: Handle,
    socket: Async<OwnedFd>,
    /// Readable when pid 1 is gone.
    pidfd: Async<OwnedFd>,
    state: Mutex<LinkState>,
}

#[derive(Default)]
struct LinkState {
    last_seq: u64,
    closed: bool,
    /// Why it has ended although pid 1 lives, or may.
    lost: Option<String>,
    /// Who waits for which answer.
    asked: BTreeMap<u64, Asker>,
    /// Who waits for the end of which process.
    watched: HashMap<String, Vec<Sender<ExitStatus>>>,
    /// Processes that were started too late and are being ended.
    unwanted: BTreeSet<String>,
}

/// Who has asked something.
struct Asker {
    sender: Sender<Heard>,
    /// The process that the request starts.
    starts: Option<String>,
}

/// A question that is on its way. Dropped before its answer was taken, it is as if it had not been
/// asked: what it starts after all is ended.
struct Question<'a> {
    link: &'a Arc<Link>,
    seq: u64,
    starts: Option<String>,
    answer: Receiver<Heard>,
    is_sent: bool,
}

impl Link {
    /// Listens to pid 1, whose `pidfd` this is, at the other end of `socket`, until it is gone.
    pub(super) fn open(
        handle: Handle,
        socket: OwnedFd,
        pidfd: OwnedFd,
    ) -> Result<Arc<Link>, Cause> {
        let link = Link::new(handle, socket, pidfd)?;
        smol::spawn(listen(link.clone(), GONE_MAX)).detach();
        Ok(link)
    }

    /// The link to a pid 1 that has ended: whatever is asked of it, it is gone.
    pub(super) fn of_ended(handle: Handle) -> Result<Arc<Link>, Cause> {
        // The other end is closed at once: readable for ever, as the pidfd of who has ended is.
        let (socket, _) = sys::socket::pair()?;
        let link = Link::new(handle, socket.try_clone()?, socket)?;
        link.state().closed = true;
        Ok(link)
    }

    fn new(handle: Handle, socket: OwnedFd, pidfd: OwnedFd) -> Result<Arc<Link>, Cause> {
        let (socket, pidfd) = (Async::new(socket)?, Async::new(pidfd)?);
        Ok(Arc::new(Link { handle, socket, pidfd, state: Mutex::default() }))
    }

    /// Returns when pid 1, and with it everything inside, is gone.
    pub(super) async fn ended(&self) {
        // An error of the reactor would mean a bad descriptor; the answer is the same: it is over.
        let _ = self.pidfd.readable().await;
    }

    /// The connection stands.
    pub(super) fn is_open(&self) -> bool {
        !self.state().closed
    }

    /// Whose pid 1 it is.
    pub(super) fn handle(&self) -> &Handle {
        &self.handle
    }

    fn state(&self) -> MutexGuard<'_, LinkState> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Will tell the end of process `id`. Asked for before the start, so that no end is missed.
    pub(super) fn watch(&self, id: &str) -> Receiver<ExitStatus> {
        let (sender, receiver) = bounded(1);
        let mut state = self.state();
        if !state.closed {
            let watchers = state.watched.entry(id.to_owned()).or_default();
            watchers.retain(|watcher| !watcher.is_closed());
            watchers.push(sender);
        }
        receiver
    }

    /// This one does not wait for it any more; others may.
    pub(super) fn unwatch(&self, id: &str, receiver: Receiver<ExitStatus>) {
        drop(receiver);
        let mut state = self.state();
        if let Some(watchers) = state.watched.get_mut(id) {
            watchers.retain(|watcher| !watcher.is_closed());
            if watchers.is_empty() {
                state.watched.remove(id);
            }
        }
    }

    /// Sends one request and waits for its answer.
    pub(super) async fn ask(
        self: &Arc<Link>,
        ask: Ask,
    ) -> Result<(Answer, Vec<OwnedFd>), ProcessError> {
        self.ask_with(ask, &[]).await
    }

    /// The same, with copies of `fds` beside the request. A process that is started although this
    /// gives an error, or is dropped, is ended and forgotten.
    pub(super) async fn ask_with(
        self: &Arc<Link>,
        ask: Ask,
        fds: &[BorrowedFd<'_>],
    ) -> Result<(Answer, Vec<OwnedFd>), ProcessError> {
        let mut question = self.question(&ask)?;
        let request = Request { seq: question.seq, ask };
        let talk = async {
            self.send(&request, fds).await?;
            question.is_sent = true;
            question.answer.recv().await.map_err(|_| self.lost())
        };
        let too_long = async {
            async_io::Timer::after(ANSWER_MAX).await;
            let why = format!("it has not answered for {} s", ANSWER_MAX.as_secs());
            Err(self.talk(why))
        };
        match smol::future::or(talk, too_long).await? {
            (Answer::Failed { kind, text }, _) => Err(ProcessError::Refused { kind, text }),
            (answer, Some(fds)) => Ok((answer, fds)),
            (answer, None) => {
                self.refuse(&answer, question.starts.as_deref());
                Err(self.talk(
                    "the descriptors of its answer are lost: this daemon may open no more files; \
                     raise LimitNOFILE of its service",
                ))
            }
        }
    }

    /// Writes down that an answer is waited for.
    fn question(self: &Arc<Link>, ask: &Ask) -> Result<Question<'_>, ProcessError> {
        let starts = match ask {
            Ask::Start(spec) | Ask::StartIn { spec } => Some(spec.id.clone()),
            Ask::Adopt { id, .. } => Some(id.clone()),
            _ => None,
        };
        let (sender, answer) = bounded(1);
        let mut state = self.state();
        if state.closed {
            drop(state);
            return Err(self.lost());
        }
        if let Some(id) = starts.as_ref().filter(|id| state.has_name(id)) {
            let text = format!("a process `{id}` runs already");
            return Err(ProcessError::Refused { kind: FailKind::Refused, text });
        }
        state.last_seq += 1;
        let seq = state.last_seq;
        state.asked.insert(seq, Asker { sender, starts: starts.clone() });
        Ok(Question { link: self, seq, starts, answer, is_sent: false })
    }

    async fn send(&self, request: &Request, fds: &[BorrowedFd<'_>]) -> Result<(), ProcessError> {
        let bytes = serde_json::to_vec(request).map_err(|err| self.talk(err))?;
        if bytes.len() > MAX_MESSAGE {
            return Err(ProcessError::TooLong { bytes: bytes.len() });
        }
        self.socket
            .write_with(|socket| sys::socket::send_with_fds(socket, &bytes, fds))
            .await
            .map_err(|err| self.talk(err))
    }

    /// It has ended, and pid 1 is still there.
    pub(super) fn is_lost(&self) -> bool {
        self.state().lost.is_some()
    }

    /// Pid 1 is known to have ended.
    pub(super) fn is_gone(&self) -> bool {
        let state = self.state();
        state.closed && state.lost.is_none()
    }

    /// It is not there any more.
    pub(super) fn gone(&self) -> ProcessError {
        ProcessError::Gone(self.handle.clone())
    }

    /// The connection has ended: pid 1 is gone, or cannot be heard any more.
    pub(super) fn lost(&self) -> ProcessError {
        let why = self.state().lost.clone();
        why.map_or_else(|| self.gone(), |why| self.talk(why))
    }

    /// Pid 1 could not be talked to.
    pub(super) fn talk(&self, source: impl Into<Cause>) -> ProcessError {
        ProcessError::Talk { handle: self.handle.clone(), source: source.into() }
    }

    /// It said what it was not asked for.
    pub(super) fn out_of_turn(&self, answer: &Answer) -> ProcessError {
        let text = format!("pid 1 answered {answer:?} out of turn");
        ProcessError::Refused { kind: FailKind::System, text }
    }

    /// Tells who waits that a process has ended.
    pub(super) fn tell_end(&self, id: &str, status: ExitStatus) {
        for watcher in self.state().watched.remove(id).unwrap_or_default() {
            // Nobody waits any more: fine.
            let _ = watcher.try_send(status);
        }
    }

    /// Hands one message to who waits for it.
    fn deliver(self: &Arc<Link>, reply: Reply, fds: Option<Vec<OwnedFd>>) {
        match reply {
            Reply { seq: 0, answer: Answer::Ended { id, status } } => self.tell_end(&id, status),
            Reply { seq, answer } => {
                let Some(asker) = self.state().asked.remove(&seq) else { return };
                if let Err(unheard) = asker.sender.try_send((answer, fds)) {
                    self.refuse(&unheard.into_inner().0, asker.starts.as_deref());
                }
            }
        }
    }

    /// Nobody can take this answer: what it says to have started is ended and forgotten.
    fn refuse(self: &Arc<Link>, answer: &Answer, starts: Option<&str>) {
        let (Answer::Started { .. }, Some(id)) = (answer, starts) else { return };
        crate::warn!("process.unwanted", handle = self.handle, id = id);
        let (link, id) = (self.clone(), id.to_owned());
        // Before its end can be told.
        let end = link.watch(&id);
        link.state().unwanted.insert(id.clone());
        smol::spawn(async move {
            if link.ask(Ask::Signal { id: id.clone(), signal: KILL, group: false }).await.is_ok() {
                let too_long = async {
                    async_io::Timer::after(ANSWER_MAX).await;
                };
                let ended = async {
                    let _ = end.recv().await;
                };
                smol::future::or(ended, too_long).await;
            }
            link.unwatch(&id, end);
            // Should it still run, it goes with its container.
            let _ = link.ask(Ask::Forget { id: id.clone() }).await;
            link.state().unwanted.remove(&id);
        })
        .detach();
    }
}

impl LinkState {
    /// A process of this name may be there that nobody wants: the end of that one would be taken for
    /// the end of the next.
    fn has_name(&self, id: &str) -> bool {
        self.unwanted.contains(id)
            || self.asked.values().any(|asker| asker.starts.as_deref() == Some(id))
    }
}

impl Drop for Question<'_> {
    fn drop(&mut self) {
        if self.starts.is_none() || !self.is_sent {
            self.link.state().asked.remove(&self.seq);
            return;
        }
        // From here on an answer finds nobody; this one came before.
        self.answer.close();
        if let Ok((answer, _)) = self.answer.try_recv() {
            self.link.refuse(&answer, self.starts.as_deref());
        }
        let mut state = self.link.state();
        let late = state.asked.iter().filter(|(_, asker)| asker.sender.is_closed());
        let (count, oldest) = (late.clone().count(), late.map(|(seq, _)| *seq).next());
        if let Some(oldest) = oldest.filter(|_| count > LATE_MAX) {
            state.asked.remove(&oldest);
        }
    }
}

/// Reads all that pid 1 says until it is gone, then lets everybody know who still waits. Those who
/// wait for an answer or an end hear that it cannot be told when pid 1 is still there after `gone_max`.
async fn listen(link: Arc<Link>, gone_max: Duration) {
    let why = read(&link).await;
    {
        let mut state = link.state();
        state.closed = true;
        // Until it is known that pid 1 is gone, nobody hears that.
        state.lost = Some(why.clone());
    }
    let gone = async {
        link.ended().await;
        None
    };
    let too_long = async {
        async_io::Timer::after(gone_max).await;
        Some(why)
    };
    let lost = smol::future::or(gone, too_long).await;
    if let Some(why) = &lost {
        crate::error!("init.lost", handle = link.handle, err = why);
    }
    let mut state = link.state();
    state.lost = lost;
    state.asked.clear();
    state.watched.clear();
}

/// The same, until the connection ends; why it has.
async fn read(link: &Arc<Link>) -> String {
    let mut buffer = vec![0; MAX_MESSAGE];
    loop {
        let read = link.socket.read_with(|socket| sys::socket::receive(socket, &mut buffer)).await;
        match read {
            Ok((0, _)) => return "it has closed the connection, and runs".into(),
            Ok((length, fds)) => match serde_json::from_slice(&buffer[..length]) {
                Ok(reply) => link.deliver(reply, fds),
                Err(err) => crate::warn!("init.nonsense", handle = link.handle, err = err),
            },
            // This one is lost; what comes after it is whole.
            Err(err) if err.kind() == io::ErrorKind::InvalidData => {
                crate::warn!("init.nonsense", handle = link.handle, err = err);
            }
            Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
            Err(err) => return format!("the connection is broken, and it runs: {err}"),
        }
    }
}

#[cfg(test)]
mod tests;
