//! What is left of destroyed containers for a moment: links, and the entry that names them.
//!
//! The kernel takes tens of milliseconds to remove a link, all of it waiting. Nobody waits with it:
//! one thread removes the links, one container after the other, then the depot entry, and only then
//! may handle, slot and ports be had again. A daemon that is killed before finds the entry at its
//! next start and destroys the rest. The thread is none of the pool's: those may all wait for it.
//!
//! When it has nothing to remove, and nothing has happened for a moment, it makes half a container for
//! the reserve: so neither is made while links are removed, which would wait for each other, nor while
//! somebody waits for the box.

use super::claims::Claims;
use super::depot::Depot;
use super::host::step;
use super::reserve::Reserve;
use crate::net::Net;
use crate::unit::{Handle, Slot};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

/// After so long without a container made or removed the reserve is filled, one at a time.
const CALM: Duration = Duration::from_millis(20);

/// Removes what destroyed containers have left.
pub(super) struct Leaving {
    shared: Arc<Shared>,
    /// Holds no more containers than there are slots: each is in it once, and has one. `None` only
    /// while this is dropped.
    jobs: Option<Sender<Job>>,
    worker: Option<JoinHandle<()>>,
}

struct Shared {
    net: Arc<Net>,
    depot: Depot,
    claims: Arc<Mutex<Claims>>,
    reserve: Arc<Reserve>,
    /// A [`Job::Stir`] is on its way.
    stirred: AtomicBool,
}

enum Job {
    /// Remove what is left of this container.
    Remove(Handle, Slot),
    /// Drop this: who waits at its other end learns that all before it is done.
    Tell(Sender<()>),
    /// A container was made or removed.
    Stir,
    /// Remove the whole reserve.
    Empty,
}

impl Leaving {
    /// Nothing leaves yet.
    pub(super) fn new(
        net: Arc<Net>,
        depot: Depot,
        claims: Arc<Mutex<Claims>>,
        reserve: Arc<Reserve>,
    ) -> Leaving {
        let stirred = AtomicBool::new(false);
        let shared = Arc::new(Shared { net, depot, claims, reserve, stirred });
        let (jobs, todo) = mpsc::channel();
        let its = shared.clone();
        // No thread to be had: then `add` finds nobody at the other end and does the work itself.
        let worker = Builder::new().name("links".into()).spawn(move || its.work(todo)).ok();
        Leaving { shared, jobs: Some(jobs), worker }
    }

    /// Takes over a container of which only the links are left. Does not wait.
    pub(super) fn add(&self, handle: &Handle, slot: Slot) {
        // In one: who finds the mark and calls `finish` is to come after it in the queue.
        let mut claims = lock(&self.shared.claims);
        claims.leave(handle);
        let sent = self.send(Job::Remove(handle.clone(), slot));
        drop(claims);
        if !sent {
            self.shared.remove(handle, slot);
        }
    }

    /// A container was made or removed: the reserve is not filled now, but soon.
    pub(super) fn stir(&self) {
        // One that nobody has taken yet is as good: so there is one at most.
        if !self.shared.stirred.swap(true, Ordering::AcqRel) {
            self.send(Job::Stir);
        }
    }

    /// Removes the reserve; who waits for [`Leaving::finish`] waits for that.
    pub(super) fn empty_reserve(&self) {
        self.send(Job::Empty);
    }

    /// Waits until all that leaves now is gone, or has failed to go.
    pub(super) fn finish(&self) {
        let (told, end) = mpsc::channel();
        let _hurry = self.shared.reserve.quiet.hurry();
        if self.send(Job::Tell(told)) {
            // It never comes: that the other end is dropped is the news.
            let _ = end.recv();
        }
    }

    fn send(&self, job: Job) -> bool {
        self.jobs.as_ref().is_some_and(|jobs| jobs.send(job).is_ok())
    }
}

impl Drop for Leaving {
    /// All that leaves is gone afterwards, and the parts of the host are nobody else's.
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(worker) = self.worker.take() {
            // It panicked: it has said so.
            let _ = worker.join();
        }
    }
}

impl Shared {
    /// Until the last sender is gone.
    fn work(&self, todo: Receiver<Job>) {
        loop {
            let job = match self.reserve.wants() {
                true => todo.recv_timeout(CALM),
                false => todo.recv().map_err(RecvTimeoutError::from),
            };
            match job {
                Ok(Job::Remove(handle, slot)) => self.remove(&handle, slot),
                Ok(Job::Tell(told)) => drop(told),
                Ok(Job::Stir) => {
                    self.stirred.store(false, Ordering::Release);
                    self.reserve.tidy();
                }
                Ok(Job::Empty) => self.reserve.empty(),
                Err(RecvTimeoutError::Timeout) => self.reserve.fill(),
                Err(RecvTimeoutError::Disconnected) => return self.reserve.empty(),
            }
        }
    }

    fn remove(&self, handle: &Handle, slot: Slot) {
        let links = self.net.release(slot).map_err(|err| step("disconnect", handle, err));
        crate::sys::fault::point(format_args!("destroy:links"));
        // As long as links are there, so is what they are found by.
        let removed = links.and_then(|()| {
            let removed = self.depot.remove(handle);
            removed.map_err(|err| step("remove the depot entry of", handle, err))
        });
        crate::sys::fault::point(format_args!("destroy:entry"));
        match removed {
            Ok(()) => lock(&self.claims).forget(handle),
            Err(err) => {
                // It keeps its numbers; the next destroy or the next start tries again.
                let err = crate::log::chain(&err);
                crate::error!("container.left", handle = handle, err = err);
                lock(&self.claims).rest(handle);
            }
        }
    }
}

/// Who has which numbers. A thread that panicked while it held them has left them whole: every
/// change to them is one call.
pub(super) fn lock(claims: &Mutex<Claims>) -> MutexGuard<'_, Claims> {
    claims.lock().unwrap_or_else(PoisonError::into_inner)
}
