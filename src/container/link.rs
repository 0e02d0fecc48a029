//! The connection to the pid 1 of one container: requests, their answers, and news.

use super::error::{Cause, ProcessError};
use crate::init::proto::{Answer, Ask, FailKind, MAX_MESSAGE, Reply, Request};
use crate::model::process::ExitStatus;
use crate::sys;
use crate::unit::Handle;
use async_io::Async;
use smol::channel::{Receiver, Sender, bounded};
use std::collections::HashMap;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

/// How long pid 1 may take for an answer. It answers at once, a start when exec has worked; but it
/// shares its limits with the app, and a frozen group does not run at all.
pub(super) const ANSWER_MAX: Duration = Duration::from_secs(20);

/// The connection to pid 1.
pub(super) struct Link {
    handle: Handle,
    socket: Async<OwnedFd>,
    state: Mutex<LinkState>,
}

#[derive(Default)]
struct LinkState {
    last_seq: u64,
    closed: bool,
    /// Who waits for which answer.
    asked: HashMap<u64, Sender<(Answer, Vec<OwnedFd>)>>,
    /// Who waits for the end of which process.
    watched: HashMap<String, Vec<Sender<ExitStatus>>>,
}

impl Link {
    /// Listens to pid 1 at the other end of `socket`, until it is gone.
    pub(super) fn open(handle: Handle, socket: OwnedFd) -> Result<Arc<Link>, Cause> {
        let link = Arc::new(Link { handle, socket: Async::new(socket)?, state: Mutex::default() });
        smol::spawn(listen(link.clone())).detach();
        Ok(link)
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
    pub(super) async fn ask(&self, ask: Ask) -> Result<(Answer, Vec<OwnedFd>), ProcessError> {
        self.ask_with(ask, &[]).await
    }

    /// The same, with copies of `fds` beside the request.
    pub(super) async fn ask_with(
        &self,
        ask: Ask,
        fds: &[BorrowedFd<'_>],
    ) -> Result<(Answer, Vec<OwnedFd>), ProcessError> {
        let (sender, receiver) = bounded(1);
        let seq = {
            let mut state = self.state();
            if state.closed {
                return Err(self.gone());
            }
            state.last_seq += 1;
            let seq = state.last_seq;
            state.asked.insert(seq, sender);
            seq
        };
        let request = Request { seq, ask };
        let talk = async {
            self.send(&request, fds).await?;
            receiver.recv().await.map_err(|_| self.gone())
        };
        let too_long = async {
            async_io::Timer::after(ANSWER_MAX).await;
            let why = format!("it has not answered for {} s", ANSWER_MAX.as_secs());
            Err(self.talk(why))
        };
        match smol::future::or(talk, too_long).await {
            Ok((Answer::Failed { kind, text }, _)) => Err(ProcessError::Refused { kind, text }),
            Ok(answer) => Ok(answer),
            Err(err) => {
                self.state().asked.remove(&seq);
                Err(err)
            }
        }
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

    /// It is not there any more.
    pub(super) fn gone(&self) -> ProcessError {
        ProcessError::Gone(self.handle.clone())
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
    fn deliver(&self, reply: Reply, fds: Vec<OwnedFd>) {
        match reply {
            Reply { seq: 0, answer: Answer::Ended { id, status } } => self.tell_end(&id, status),
            Reply { seq, answer } => {
                if let Some(asker) = self.state().asked.remove(&seq) {
                    let _ = asker.try_send((answer, fds));
                }
            }
        }
    }
}

/// Reads all that pid 1 says until it is gone, then lets everybody know who still waits.
async fn listen(link: Arc<Link>) {
    let mut buffer = vec![0; MAX_MESSAGE];
    loop {
        let read =
            link.socket.read_with(|socket| sys::socket::recv_with_fds(socket, &mut buffer)).await;
        match read {
            Ok((0, _)) => break,
            Ok((length, fds)) => match serde_json::from_slice(&buffer[..length]) {
                Ok(reply) => link.deliver(reply, fds),
                Err(err) => crate::warn!("init.nonsense", handle = link.handle, err = err),
            },
            Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
    let mut state = link.state();
    state.closed = true;
    state.asked.clear();
    state.watched.clear();
}
