//! One container of a Garden client: its record, its processes, and who visits it.

use super::backend::{Settings, Shared};
use super::grace::Countdown;
use super::process::Running;
use super::record::{self, Record};
use super::subject::Subject;
use super::{Done, GardenError, properties};
use crate::container::{Container, Host};
use crate::exec::cancel::{self, Cancel, Canceller};
use crate::unit::Handle;
use smol::lock::{Mutex as Turns, MutexGuard as TurnGuard};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A container that stands.
pub(super) struct Member {
    /// What clients call it.
    pub(super) handle: String,
    /// What the depot calls it.
    pub(super) name: Handle,
    pub(super) container: Container,
    record: Mutex<Record>,
    /// Whoever changes the record has it from reading to writing.
    turn: Turns<()>,
    processes: Mutex<BTreeMap<String, Arc<Running>>>,
    /// Names under which somebody starts a process at this moment.
    starting: Mutex<BTreeSet<String>>,
    pub(super) countdown: Countdown,
    /// Held while anybody can reach it, and who waits for that to end.
    _stands: Canceller,
    gone: Cancel,
}

impl Member {
    /// A container and what is kept about it.
    pub(super) fn new(container: Container, record: Record) -> Arc<Member> {
        let (stands, gone) = cancel::pair();
        Arc::new(Member {
            handle: record.handle.clone(),
            name: container.handle().clone(),
            countdown: Countdown::new(record.grace_ns),
            container,
            record: Mutex::new(record),
            turn: Turns::new(()),
            processes: Mutex::default(),
            starting: Mutex::default(),
            _stands: stands,
            gone,
        })
    }

    /// What a lower room refused about it, for its client.
    pub(super) fn refused(&self, err: &(dyn std::error::Error + 'static)) -> GardenError {
        self.subject().refused(err)
    }

    /// Whom a refusal is about. File reads of a few microseconds.
    pub(super) fn subject(&self) -> Subject {
        let record = lock(&self.record);
        Subject {
            handle: self.handle.clone(),
            name: self.name.clone(),
            limits: record.limits,
            image_bytes: record.image_bytes,
            oom_kills: self.container.oom_kills(),
        }
    }

    /// What is kept, as it is at this moment.
    pub(super) fn record(&self) -> Record {
        lock(&self.record).clone()
    }

    /// Whether all of these properties are as told.
    pub(super) fn matches(
        &self,
        host: &Host,
        settings: &Settings,
        filter: &[(String, String)],
    ) -> bool {
        if filter.is_empty() {
            return true;
        }
        let all = properties::all(self, host, settings);
        let is_met = |(key, value): &(String, String)| match (&**key, &**value) {
            ("garden.state", "all") => true,
            _ => all.get(key) == Some(value),
        };
        filter.iter().all(is_met)
    }

    /// Waits until nobody else changes what is kept, and keeps others from it.
    pub(super) async fn turn(self: &Arc<Self>) -> Turn<'_> {
        Turn { member: self, _turn: self.turn.lock().await }
    }

    /// Changes what is kept in a turn of its own: see [`Turn::change`].
    pub(super) async fn change(
        self: &Arc<Self>,
        shared: &Arc<Shared>,
        change: impl FnOnce(&mut Record),
    ) -> Done<()> {
        self.turn().await.change(shared, change).await
    }

    /// Its processes by the names that clients have for them, those that ended a short time ago
    /// included.
    pub(super) fn processes(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Running>>> {
        lock(&self.processes)
    }

    /// Ends when nobody can reach it any more: it is destroyed, or the daemon ends.
    pub(super) fn gone(&self) -> Cancel {
        self.gone.clone()
    }

    /// Takes a name for a process that is about to be started; `None`: it is somebody's. The process
    /// that had it before has ended, but what it had may still be on the box.
    pub(super) fn claim(self: &Arc<Self>, id: &str) -> Option<Claim> {
        // Held to the end: a claim is given up after its process is among these.
        let processes = self.processes();
        let is_taken = processes.get(id).is_some_and(|running| running.has_name());
        if is_taken || !lock(&self.starting).insert(id.to_owned()) {
            return None;
        }
        Some(Claim { member: self.clone(), id: id.to_owned() })
    }

    /// The state that Garden tells.
    pub(super) fn state(&self) -> &'static str {
        match lock(&self.record).stopped || self.container.has_ended() {
            true => "stopped",
            false => "active",
        }
    }
}

/// The right to change what is kept, which one has at a time.
pub(super) struct Turn<'a> {
    member: &'a Arc<Member>,
    _turn: TurnGuard<'a, ()>,
}

impl Turn<'_> {
    /// Changes what is kept: written down first, then seen by everybody.
    pub(super) async fn change(
        self,
        shared: &Arc<Shared>,
        change: impl FnOnce(&mut Record),
    ) -> Done<()> {
        let member = self.member;
        let before = member.record();
        let mut record = before.clone();
        change(&mut record);
        if record == before {
            return Ok(());
        }
        let (shared, name, text) = (shared.clone(), member.name.clone(), record::to_text(&record));
        let written = smol::unblock(move || shared.host.set_owner(&name, &text)).await;
        written.map_err(|err| member.refused(&err))?;
        *lock(&member.record) = record;
        Ok(())
    }
}

/// A name that nobody else gets while a process is started under it; given up when dropped.
pub(super) struct Claim {
    member: Arc<Member>,
    id: String,
}

impl Drop for Claim {
    fn drop(&mut self) {
        lock(&self.member.starting).remove(&self.id);
    }
}

/// Who panicked with it in hand has left it whole: changes are single inserts.
fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}
