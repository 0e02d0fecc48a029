//! One process that clients run: its outputs for everybody who listens, its input, its end.

use super::backend::Shared;
use super::fan::{Fan, Listener};
use super::input::{self, Input};
use super::member::Member;
use crate::container::{Process, Spool, Streams};
use crate::exec::cancel::{self, Cancel, Canceller};
use crate::exec::streams;
use crate::model::garden::Order;
use crate::model::process::WindowSize;
use crate::sys::signal::{KILL, TERM};
use crate::unit::Handle;
use async_io::Timer;
use smol::future;
use smol::lock::OnceCell;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

/// How long an ended process and its streams are remembered, for who comes late; with its container it
/// is forgotten at once.
const MEMORY: Duration = Duration::from_secs(60);

/// Streams of an ended process beyond which the oldest goes when somebody joins it.
const LATE_MAX: usize = 64;

/// Status of a process that went with its container: killed.
const KILLED: i32 = 128 + KILL;

/// A process that a client has started, running or ended a short time ago.
pub(super) struct Running {
    /// What clients call it.
    pub(super) id: String,
    process: Process,
    /// Of its container: the depot's name, and the client's.
    owner: (Handle, String),
    input: Input,
    state: Mutex<State>,
    /// Exit status, or why it cannot be told.
    exit: OnceCell<Result<i32, String>>,
    /// Held open while the process runs.
    alive: Cancel,
    /// Held open while anything of it is on the box that its name would find.
    there: Cancel,
}

struct State {
    /// `None` when both outputs are over.
    fans: Option<(Fan, Fan)>,
    /// For who joins first: what was said before he could.
    early: Option<Early>,
    /// Of sessions, the oldest first.
    streams: Vec<(String, (Listener, Listener))>,
}

/// What was said before anybody joined.
struct Early {
    /// While no daemon listened.
    spool: Option<Spool>,
    /// Since then.
    listeners: (Listener, Listener),
}

/// One client's view of a process. Dropping it disturbs nobody.
pub struct Session {
    /// The process's name.
    pub process_id: String,
    /// Under which its outputs are asked for.
    pub stream_id: String,
    running: Arc<Running>,
    /// Nonsense of this client is in the log: once is enough.
    is_told: AtomicBool,
    /// The daemon goes on.
    ended: Cancel,
}

impl Running {
    /// Takes a process over: from now on its outputs are read and its end is waited for. Whoever
    /// joins first hears what was said until then, first of all what is in its spool.
    pub(super) fn begin(
        member: &Arc<Member>,
        id: &str,
        (mut process, spool): (Process, Option<Spool>),
        has_root: bool,
        shared: &Arc<Shared>,
    ) -> Arc<Running> {
        let budget = &shared.budget;
        let streams = std::mem::take(&mut process.streams);
        let fans = (Fan::new(budget.clone()), Fan::new(budget.clone()));
        let early = Some(Early { spool, listeners: (fans.0.listen(), fans.1.listen()) });
        let (input, pieces) = Input::new(shared.inputs.clone());
        let (end, alive) = cancel::pair();
        let (clear, there) = cancel::pair();
        let running = Arc::new(Running {
            id: id.to_owned(),
            process,
            owner: (member.name.clone(), member.handle.clone()),
            input,
            state: Mutex::new(State { fans: Some(fans), early, streams: Vec::new() }),
            exit: OnceCell::new(),
            alive,
            there,
        });
        let stdin = match &streams.tty {
            Some(master) => match master.try_clone() {
                Ok(master) => Some(master),
                Err(err) => {
                    // What is sent is refused then, as behind an end of input.
                    let (name, handle) = &running.owner;
                    crate::error!("stream.no_input", handle = name, garden = handle, err = err);
                    None
                }
            },
            None => None,
        };
        let Streams { tty, stdout, stderr, stdin: pipe, .. } = streams;
        if let Some(fd) = stdin.or(pipe) {
            let (running, ended) = (running.clone(), shared.ended.clone());
            smol::spawn(async move {
                let carry = async {
                    // A broken pipe is the process's own wish.
                    let _ = input::carry(fd, pieces).await;
                    let _ = running.process.end_input().await;
                };
                ended.or(running.alive.or(carry)).await;
            })
            .detach();
        }
        let outputs = (tty.or(stdout), stderr);
        // Which goes with it.
        let pea = has_root.then(|| shared.clone());
        let owners = (Arc::downgrade(member), Arc::downgrade(shared), member.gone());
        let follow = running.clone().follow(owners, outputs, (end, clear), pea);
        let ended = shared.ended.clone();
        smol::spawn(async move {
            ended.or(follow).await;
        })
        .detach();
        running
    }

    /// Reads both outputs until the end of the process and of what it wrote, and tells both; takes
    /// away what a pea has on the box.
    async fn follow(
        self: Arc<Self>,
        (member, shared, gone): (Weak<Member>, Weak<Shared>, Cancel),
        outputs: (Option<OwnedFd>, Option<OwnedFd>),
        (end, clear): (Canceller, Canceller),
        pea: Option<Arc<Shared>>,
    ) {
        let outputs = future::zip(
            self.read(outputs.0, super::Which::Stdout),
            self.read(outputs.1, super::Which::Stderr),
        );
        let heard = async {
            outputs.await;
            self.exit.wait().await;
            self.state().fans = None;
        };
        let ended = async {
            let status = match self.process.wait().await {
                Ok(status) => Ok(status.code()),
                Err(err) if err.is_gone() => Ok(KILLED),
                // It may still run.
                Err(err) => Err(crate::log::chain(&err)),
            };
            let _ = self.exit.set(status).await;
            drop(end);
            if let (Some(shared), Some(member), false) = (pea, member.upgrade(), self.is_lost()) {
                shared.remove_pea(&member, self.inner_id()).await;
            }
            drop(clear);
        };
        future::zip(ended, heard).await;
        if self.is_lost() {
            return;
        }
        gone.sleep(MEMORY).await;
        if let (Some(member), Some(shared)) = (member.upgrade(), shared.upgrade()) {
            member.forget(&shared, &self).await;
        }
    }

    async fn read(&self, fd: Option<OwnedFd>, which: super::Which) {
        let Some(fd) = fd else { return };
        let read = streams::drain(fd, self.alive.clone(), |bytes| {
            self.say(which, bytes);
            Ok(())
        });
        if let Err(err) = read.await {
            let (name, handle) = &self.owner;
            crate::warn!(
                "stream.broken",
                handle = name,
                garden = handle,
                process = self.id,
                err = err
            );
        }
    }

    fn say(&self, which: super::Which, bytes: &[u8]) {
        if let Some((out, err)) = &self.state().fans {
            match which {
                super::Which::Stdout => out.say(bytes),
                super::Which::Stderr => err.say(bytes),
            }
        }
    }

    /// It has ended.
    pub(super) fn is_over(&self) -> bool {
        self.exit.get().is_some()
    }

    /// How it ended cannot be told: it, and what it has on the box, may be there as before.
    fn is_lost(&self) -> bool {
        matches!(self.exit.get(), Some(Err(_)))
    }

    /// Nobody else may have its name.
    pub(super) fn has_name(&self) -> bool {
        !self.is_over() || self.is_lost()
    }

    /// Waits until nothing of an ended process is left that its name would find; `false`: something
    /// still is.
    pub(super) async fn is_cleared_within(&self, max: Duration) -> bool {
        let cleared = async {
            self.there.cancelled().await;
            true
        };
        let too_long = async {
            Timer::after(max).await;
            false
        };
        future::or(cleared, too_long).await
    }

    /// The name that pid 1 has for it.
    pub(super) fn inner_id(&self) -> &str {
        &self.process.id
    }

    /// Joins a client, who hears all outputs from now on under `stream`.
    pub(super) async fn join(self: &Arc<Self>, stream: String, ended: Cancel) -> Session {
        let early = self.state().early.take();
        let spooled = match early.as_ref().and_then(|early| early.spool.as_ref()) {
            Some(spool) => {
                let spool = spool.clone();
                smol::unblock(move || spool.open()).await
            }
            None => Default::default(),
        };
        let mut state = self.state();
        let (out, err) = match (early, &state.fans) {
            (Some(early), _) => early.listeners,
            (None, Some((out, err))) => (out.listen(), err.listen()),
            (None, None) => Default::default(),
        };
        out.hear_first(spooled.0);
        err.hear_first(spooled.1);
        // Those of running processes are as many as sessions.
        if self.is_over() && state.streams.len() >= LATE_MAX {
            state.streams.remove(0);
        }
        state.streams.push((stream.clone(), (out, err)));
        drop(state);
        let (process_id, is_told) = (self.id.clone(), AtomicBool::new(false));
        Session { process_id, stream_id: stream, running: self.clone(), is_told, ended }
    }

    /// An output of one session.
    pub(super) fn output(&self, stream: &str, which: super::Which) -> Option<Listener> {
        let state = self.state();
        let (_, (out, err)) = state.streams.iter().find(|(id, _)| id == stream)?;
        Some(match which {
            super::Which::Stdout => out.clone(),
            super::Which::Stderr => err.clone(),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Session {
    /// Does what the client says. Does not wait for the process to read its input, as long as there
    /// is room to keep it. After the end of the process it does nothing.
    pub async fn order(&self, order: Order) {
        let Running { process, input, .. } = &*self.running;
        if self.running.is_over() {
            return;
        }
        // A process that has just ended cannot obey; its end is told by the other side.
        let _ = match order {
            Order::Input(bytes) => {
                input.send(&bytes).await;
                Ok(())
            }
            Order::EndOfInput => {
                input.end();
                Ok(())
            }
            Order::Resize(size) => {
                process.resize(WindowSize { rows: size.rows, columns: size.columns }).await
            }
            Order::Terminate => process.signal(TERM).await,
            Order::Kill => process.signal(KILL).await,
            Order::Nothing => Ok(()),
            Order::Nonsense(why) => {
                self.tell_nonsense(why);
                input.end();
                Ok(())
            }
        };
    }

    /// What Garden's server does: the input is over, and the log says why.
    fn tell_nonsense(&self, why: &str) {
        if self.is_told.swap(true, Ordering::Relaxed) {
            return;
        }
        let ((name, handle), id) = (&self.running.owner, &self.process_id);
        crate::warn!("process.nonsense", handle = name, garden = handle, process = id, err = why);
    }

    /// Waits for the end: exit status, 128 + n after signal n, or why it cannot be told. `None`: the
    /// daemon ends and the process goes on. May be asked many times.
    pub async fn exit(&self) -> Option<Result<i32, String>> {
        self.ended.or(async { self.running.exit.wait().await.clone() }).await
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // Who has come late to a short process may still ask for its output.
        if !self.running.is_over() {
            self.running.state().streams.retain(|(id, _)| *id != self.stream_id);
        }
    }
}
