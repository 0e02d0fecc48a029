//! After a restart of the daemon: containers and their processes are there again, what lives and
//! cannot be reached is kept, and what was half-made is swept.

use super::backend::{Backend, Place};
use super::lost::Lost;
use super::member::Member;
use super::plan;
use super::process::Running;
use super::record::{self, Record};
use crate::container::{Closed, ContainerError, Posture, ProcessError, Sight};
use crate::log::chain;
use crate::sys::signal::KILL;
use crate::unit::Handle;
use async_io::Timer;
use smol::future;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

/// Containers that are looked at side by side: one whose pid 1 does not answer holds up no more.
const AT_ONCE: usize = 32;

/// How long a pid 1 may take to answer while nobody is served. One that does not is tried again.
const FIRST_MAX: Duration = Duration::from_secs(5);

/// What a look at a container comes to.
enum Look {
    /// It is an app's.
    Anothers,
    /// It is half-made, or of an earlier run of the box.
    Gone,
    /// It lives and has all its processes, or its pid 1 has ended.
    Stands(Arc<Member>),
    /// It lives, or may.
    Lost(Box<Lost>),
}

impl Backend {
    /// Looks at every container of the depot that is no app's: what lives is taken over where it
    /// stands, with its processes, now or as soon as that can be; what has ended by itself since the
    /// box was started stays for its client to see; what is of an earlier run of the box or was never
    /// finished is destroyed; what a newer program has made is left alone.
    pub async fn adopt(&self) {
        let shared = self.shared.clone();
        let listed = smol::unblock(move || {
            let handles = shared.host.list()?;
            shared.host.renew_ahead(&handles);
            Ok::<_, ContainerError>(handles)
        });
        let handles = match listed.await {
            Ok(handles) => handles,
            Err(err) => return crate::error!("depot.unreadable", err = chain(&err)),
        };
        self.look_at_all(handles.into_iter().map(|name| (name, None)).collect(), FIRST_MAX).await;
        smol::spawn(self.clone().seek()).detach();
    }

    /// Looks at these, of which some are known to be lost, and does what is to be done. Each has `max`
    /// for its pid 1 to answer.
    pub(super) async fn look_at_all(
        &self,
        mut all: Vec<(Handle, Option<Arc<Lost>>)>,
        max: Duration,
    ) {
        while !all.is_empty() {
            let some = all.drain(..all.len().min(AT_ONCE));
            let look = |(name, lost): (Handle, Option<Arc<Lost>>)| {
                let backend = self.clone();
                smol::spawn(async move {
                    match backend.look(&name, lost.as_deref(), max).await {
                        Look::Gone => backend.sweep(&name, lost.as_ref()).await,
                        look => backend.settle(&name, lost.as_ref(), look),
                    }
                })
            };
            for looked in some.map(look).collect::<Vec<_>>() {
                looked.await;
            }
        }
    }

    async fn look(&self, name: &Handle, lost: Option<&Lost>, max: Duration) -> Look {
        let member = match lost.and_then(|lost| lost.member.clone()) {
            Some(member) => member,
            None => match self.open(name).await {
                Ok(member) => member,
                Err(look) => return look,
            },
        };
        if member.container.has_ended() {
            return Look::Stands(member);
        }
        let too_long = async {
            Timer::after(max).await;
            Err((false, format!("its pid 1 has not answered for {} s", max.as_secs())))
        };
        let taken = async {
            let taken = self.take_over_processes(&member).await;
            taken.map_err(|err| (err.is_gone(), chain(&err)))
        };
        match future::or(taken, too_long).await {
            Ok(()) => Look::Stands(member),
            Err((is_gone, why)) => Look::Lost(Box::new(Lost {
                closed: false,
                // Its pid 1 may be there all the same, and listen to another connection.
                member: (!is_gone && !member.container.is_lost()).then(|| member.clone()),
                ..Lost::new(name, member.record(), why)
            })),
        }
    }

    /// Connects to a container.
    async fn open(&self, name: &Handle) -> Result<Arc<Member>, Look> {
        let (shared, known) = (self.shared.clone(), name.clone());
        let entry = match smol::unblock(move || shared.host.sight(&known)).await {
            Sight::Nothing => return Err(Look::Gone),
            Sight::Entry(entry) if entry.spec.posture == Posture::App => {
                return Err(Look::Anothers);
            }
            Sight::Entry(entry) => entry,
            Sight::Closed(_) if self.shared.host.is_held_for_app(name) => {
                return Err(Look::Anothers);
            }
            Sight::Closed(closed) => {
                self.hold(name).await;
                return Err(closed_look(name, closed));
            }
        };
        let Some(record) = record::from_text(&entry.spec.owner) else {
            self.hold(name).await;
            let why = "its record is of a newer version of this program, or none".to_owned();
            let lost = Lost::new(name, record::glimpse(&entry.spec.owner), why);
            return Err(Look::Lost(Box::new(lost)));
        };
        let (shared, known) = (self.shared.clone(), name.clone());
        match smol::unblock(move || shared.host.reopen(&known)).await {
            Ok(Some(container)) => Ok(Member::new(container, record)),
            Ok(None) => self.open_ended(name, record).await,
            Err(err) => Err(self.unopened(name, record, &err).await),
        }
    }

    /// The same for one whose pid 1 has ended: it is its client's until he destroys it.
    async fn open_ended(&self, name: &Handle, record: Record) -> Result<Arc<Member>, Look> {
        let (shared, known) = (self.shared.clone(), name.clone());
        match smol::unblock(move || shared.host.reopen_ended(&known)).await {
            Ok(Some(container)) => {
                crate::warn!("container.ended", handle = name, garden = record.handle);
                Ok(Member::new(container, record))
            }
            Ok(None) => Err(Look::Gone),
            Err(err) => Err(self.unopened(name, record, &err).await),
        }
    }

    /// What a container comes to that could not be opened.
    async fn unopened(&self, name: &Handle, record: Record, err: &ContainerError) -> Look {
        self.hold(name).await;
        let lost = Lost { closed: false, ..Lost::new(name, record, chain(err)) };
        Look::Lost(Box::new(lost))
    }

    /// Keeps the numbers of what is not taken over from others.
    async fn hold(&self, name: &Handle) {
        let (shared, name) = (self.shared.clone(), name.clone());
        smol::unblock(move || shared.host.hold(&name)).await;
    }

    /// Puts a container where a look says, in the place of what it was until now (`lost`).
    fn settle(&self, name: &Handle, lost: Option<&Arc<Lost>>, look: Look) {
        let (shared, is_news) = (&self.shared, lost.is_none());
        let mut places = shared.places();
        if lost.is_some_and(|lost| !lost.leave(&mut places)) {
            // Somebody destroys it, or has.
            return;
        }
        match look {
            Look::Anothers | Look::Gone => {}
            Look::Stands(member) if !places.contains_key(&member.handle) => {
                crate::info!("container.adopted", handle = name, garden = member.handle);
                member.rest(shared);
                places.insert(member.handle.clone(), Place::Stands(member));
                shared.tell_change();
            }
            Look::Stands(member) => {
                let why = "another container has its handle".to_owned();
                let record = member.record();
                let lost =
                    Lost { closed: false, member: Some(member), ..Lost::new(name, record, why) };
                lost.keep(&mut places, is_news);
            }
            Look::Lost(lost) => lost.keep(&mut places, is_news),
        }
    }

    /// Destroys what is half-made, or of an earlier run of the box.
    async fn sweep(&self, name: &Handle, lost: Option<&Arc<Lost>>) {
        if let Some(lost) = lost {
            let mut places = self.shared.places();
            if !lost.leave(&mut places) {
                return;
            }
            places.insert(lost.handle.clone(), Place::Leaves);
        }
        let garden = lost.map_or("?", |lost| &lost.handle);
        crate::warn!("container.swept", handle = name, garden = garden);
        let (shared, gone) = (self.shared.clone(), name.clone());
        let destroyed = smol::unblock(move || shared.host.destroy(&gone)).await;
        if let Err(err) = &destroyed {
            crate::error!("container.left", handle = name, garden = garden, err = chain(err));
        }
        let Some(lost) = lost else { return };
        match destroyed {
            Ok(()) => {
                self.shared.places().remove(&lost.handle);
                self.shared.tell_gone();
            }
            // Tried again.
            Err(_) => {
                let place = Place::Lost(lost.clone());
                self.shared.places().insert(lost.handle.clone(), place);
            }
        }
    }

    /// Ends a process of a client that has given it up: nobody could reach it by its name.
    async fn end_nameless(&self, member: &Member, inner: &str) {
        if !plan::is_nameless(inner) {
            return;
        }
        crate::warn!("process.nameless", handle = member.name, garden = member.handle, id = inner);
        // Ended by now, or gone with its container: as good.
        let _ = member.container.signal(inner, KILL).await;
        let _ = member.container.forget(inner).await;
    }

    /// Reads on what its processes say, and waits for their ends; asked again, goes on with those that
    /// are left.
    async fn take_over_processes(&self, member: &Arc<Member>) -> Result<(), ProcessError> {
        let names = member.record().names;
        let (shared, name) = (self.shared.clone(), member.name.clone());
        // Unreadable: their disks go with the container.
        let mut peas = smol::unblock(move || shared.host.peas(&name)).await.unwrap_or_default();
        let all = member.container.processes().await?;
        for known in &all {
            let is_pea = peas.contains(&known.id);
            peas.retain(|pea| *pea != known.id);
            let Some(id) = plan::client_name(&known.id, &names) else {
                self.end_nameless(member, &known.id).await;
                continue;
            };
            if member.processes().contains_key(&id) {
                continue;
            }
            let (process, spool) = member.container.attach_unread(known).await?;
            let running = Running::begin(member, &id, (process, Some(spool)), is_pea, &self.shared);
            member.processes().insert(id, running);
        }
        // They ended without a daemon, or never began.
        for pea in peas {
            self.shared.clone().remove_pea(member, &pea).await;
        }
        // Names of those that pid 1 has forgotten. What cannot be written is tried at the next start.
        let known: BTreeSet<&str> = all.iter().map(|known| &*known.id).collect();
        let prune = |record: &mut Record| record.names.retain(|inner, _| known.contains(&**inner));
        if let Err(err) = member.change(&self.shared, prune).await {
            crate::warn!("container.names_left", handle = member.name, err = err);
        }
        Ok(())
    }
}

/// What a container comes to that is not to be touched.
fn closed_look(name: &Handle, closed: Closed) -> Look {
    let Closed { why, for_good, is_damaged, seen } = closed;
    let record = record::from_text(&seen.owner).unwrap_or_else(|| record::glimpse(&seen.owner));
    let lost = Lost { closed: for_good && !is_damaged, ..Lost::new(name, record, why) };
    // A damaged one may be whosever: better that somebody can destroy it.
    if lost.closed && seen.is_apps {
        lost.tell();
        return Look::Anothers;
    }
    Look::Lost(Box::new(lost))
}
