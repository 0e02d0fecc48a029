//! After a restart of the daemon: keep what lives, sweep what does not, and go on looking at what
//! cannot be told yet.

use super::diff::{self, Key};
use super::instance::Begin;
use super::lrp_state::LrpEvent;
use super::releases::made_from;
use super::shared::{Cell, Shared};
use super::{converge, owner, releases, stuck};
use crate::container::{Container, Posture, ProcessError, Sight, boot_id};
use crate::exec::found::Attached;
use crate::exec::room::Resources;
use crate::exec::{assembly, places};
use crate::log::chain;
use crate::model::death::Cause;
use crate::model::lrp::{DesiredLrp, Place};
use crate::sys::signal::KILL;
use crate::unit::Handle;
use smol::future;
use std::sync::Arc;
use std::time::Duration;

/// Containers that are looked at side by side: one whose pid 1 does not answer holds up no more.
const AT_ONCE: usize = 32;

/// How long a pid 1 may take to answer while nobody is served. One that does not is tried again.
const FIRST_MAX: Duration = Duration::from_secs(5);

/// An instance that is wanted, and recorded to live in a container.
pub(super) struct Instance {
    pub(super) key: Key,
    pub(super) place: Place,
    /// What it was made from: the loop replaces it if that is out of date.
    pub(super) lrp: DesiredLrp,
    /// It is recorded as running.
    healthy: bool,
    /// It is recorded as ready.
    ready: bool,
    /// It is of an older version.
    outdated: bool,
}

/// A container that can be kept, connected, with its processes attached.
pub(super) struct Found {
    container: Container,
    processes: Vec<Attached>,
}

/// What a look at an instance's container comes to.
pub(super) enum Look {
    /// It lives, and is ours again.
    Taken(Box<Found>),
    /// Nothing of it lives that could be kept.
    Dead,
    /// It is not for this program to judge.
    Anothers,
    /// It lives, or may: asked again, the answer may be another.
    Unknown {
        /// For a person.
        why: String,
        /// What it needs on the box, where that can be read.
        needs: Option<Resources>,
        /// Connected already.
        container: Option<Box<Container>>,
    },
}

impl Cell {
    /// Looks at every container in the depot: an instance that is still wanted is taken over where it
    /// stands, even if its main process has ended meanwhile: that is a crash like any other, and
    /// what it wrote before is logged. One that may live and cannot be taken over yet is tried again
    /// in the background. Everything else is destroyed, what belonged to a `run` first of all. Only
    /// then is anything new made.
    pub async fn adopt(&self) {
        self.end_leases().await;
        let inner = self.shared.clone();
        let mut handles = match smol::unblock(move || inner.host.list()).await {
            Ok(handles) => handles,
            Err(err) => return crate::error!("depot.unreadable", err = chain(&err)),
        };
        while !handles.is_empty() {
            let some = handles.drain(..handles.len().min(AT_ONCE));
            let looks = some.map(|handle| {
                let shared = self.shared.clone();
                smol::spawn(async move { shared.decide(&handle).await })
            });
            for look in looks.collect::<Vec<_>>() {
                look.await;
            }
        }
        self.forget_places().await;
        self.forget_lost().await;
        self.shared.settle_tasks().await;
        let inner = self.shared.clone();
        smol::unblock(move || {
            if let Err(err) = inner.store.settle(&boot_id()) {
                crate::error!("record.refused", err = chain(&err));
            }
            inner.sweep_logs();
            inner.distrust_published();
            inner.sweep_mounted();
            inner.collect_sources(true);
            inner.host_keys.recall();
            // Of stagings that ended with the last daemon.
            let work = &inner.settings.temp;
            match std::fs::remove_dir_all(work) {
                Err(err) if err.kind() != std::io::ErrorKind::NotFound => {
                    crate::warn!("staging.left", path = work.display(), err = err);
                }
                _ => {}
            }
        })
        .await;
        // Before anything new can have the address of one that is gone.
        self.shared.publish().await;
    }

    /// Instances that were not taken over live nowhere: their old addresses may soon be others'.
    async fn forget_places(&self) {
        let gone: Vec<Key> = {
            let state = self.shared.state();
            let placed = state.actual.iter().filter(|(key, record)| {
                record.place().is_some() && !state.supervised.contains_key(*key)
            });
            placed.map(|(key, _)| key.clone()).collect()
        };
        for key in gone {
            self.shared.lose_instance(&key).await;
        }
    }
}

impl Shared {
    /// An instance lives nowhere any more, and nobody has seen why.
    pub(super) async fn lose_instance(self: &Arc<Self>, key: &Key) {
        let cause = Cause::Unseen { rebooted: self.begun.rebooted };
        self.happen(key, LrpEvent::Lose(cause)).await;
    }

    /// Looks at one container of the depot, and does what is to be done.
    async fn decide(self: &Arc<Self>, handle: &Handle) {
        let Some(instance) = self.instance_in(handle) else {
            return match self.whose(handle).await {
                Whose::Nobodys => self.sweep(handle).await,
                Whose::Anothers => {}
                Whose::Unknown => smol::spawn(self.clone().find_out(handle.clone())).detach(),
            };
        };
        match self.look(&instance, None, FIRST_MAX).await {
            Look::Taken(found) => self.resume(instance, *found),
            Look::Dead => self.sweep(handle).await,
            Look::Anothers => {}
            Look::Unknown { why, needs, container } => {
                self.seek(instance, needs, container, &why);
            }
        }
    }

    /// The instance that is wanted and recorded to live in this container.
    fn instance_in(&self, handle: &Handle) -> Option<Instance> {
        let state = self.state();
        let (key, place) = diff::lives_in(handle, &state.actual)?;
        let lrp = converge::desired(&state.apps).remove(&key.0)?;
        if !diff::is_wanted(&key, &lrp) || state.supervised.contains_key(&key) {
            return None;
        }
        let record = state.actual.get(&key)?;
        let app = state.apps.get(&key.0.app);
        let before = app.map(releases::before).unwrap_or_default();
        let (lrp, outdated) = made_from(lrp, before, &record.version);
        let (healthy, ready) = (record.runs(), record.routable == Some(true));
        Some(Instance { key, place, lrp, healthy, ready, outdated })
    }

    /// Whose a container is that no wanted instance lives in.
    pub(super) async fn whose(self: &Arc<Self>, handle: &Handle) -> Whose {
        let (shared, known) = (self.clone(), handle.clone());
        match smol::unblock(move || shared.host.sight(&known)).await {
            Sight::Nothing => Whose::Nobodys,
            Sight::Entry(entry) if entry.spec.posture == Posture::App => Whose::Nobodys,
            Sight::Entry(_) => Whose::Anothers,
            Sight::Closed(closed) if closed.for_good => Whose::Anothers,
            Sight::Closed(_) => Whose::Unknown,
        }
    }

    /// Destroys what is half-made, dead or not wanted.
    pub(super) async fn sweep(self: &Arc<Self>, handle: &Handle) {
        crate::warn!("container.swept", handle = handle);
        self.destroy_within(handle, stuck::FIRST_MAX).await;
    }

    /// What can be kept of an instance's container; `container`: connected by an earlier look. Its pid
    /// 1 has `max` for its first answer.
    pub(super) async fn look(
        self: &Arc<Self>,
        instance: &Instance,
        container: Option<Box<Container>>,
        max: Duration,
    ) -> Look {
        let container = match container {
            Some(container) => *container,
            None => match self.open(instance).await {
                Ok(container) => container,
                Err(look) => return look,
            },
        };
        match processes(&container, &instance.lrp, max).await {
            Ok(Some(processes)) => Look::Taken(Box::new(Found { container, processes })),
            Ok(None) => Look::Dead,
            Err(why) => Look::Unknown {
                why,
                needs: Some(Resources::of(&container.entry().spec.limits)),
                // Pid 1 may listen to a new connection where this one is broken.
                container: container.is_connected().then(|| Box::new(container)),
            },
        }
    }

    /// Connects to an instance's container.
    async fn open(self: &Arc<Self>, instance: &Instance) -> Result<Container, Look> {
        let unknown = |needs, why| Look::Unknown { why, needs, container: None };
        let (shared, key) = (self.clone(), instance.key.clone());
        let handle = instance.place.handle.clone();
        smol::unblock(move || {
            let entry = match shared.host.sight(&handle) {
                Sight::Nothing => return Err(Look::Dead),
                Sight::Entry(entry) if entry.spec.posture != Posture::App => {
                    return Err(Look::Anothers);
                }
                Sight::Entry(entry) if owner::index(&entry.spec.owner) != Some((key.0, key.1)) => {
                    return Err(Look::Dead);
                }
                Sight::Entry(entry) => entry,
                Sight::Closed(closed) if closed.for_good => return Err(Look::Anothers),
                Sight::Closed(closed) => return Err(unknown(None, closed.why)),
            };
            let needs = Resources::of(&entry.spec.limits);
            match shared.host.reopen(&handle) {
                Ok(container) => container.ok_or(Look::Dead),
                Err(err) => Err(unknown(Some(needs), chain(&err))),
            }
        })
        .await
    }

    /// Goes on supervising an instance.
    fn resume(self: &Arc<Self>, instance: Instance, found: Found) {
        let Instance { key, lrp, .. } = &instance;
        let (key, lrp) = (key.clone(), lrp.clone());
        self.begin(key, lrp, instance.adopted(found));
    }
}

/// Whose a container is.
pub(super) enum Whose {
    /// An app's, or nothing of it lives: it goes.
    Nobodys,
    /// A Garden client's, or of a newer program: not the cell's to judge.
    Anothers,
    /// It cannot be read now.
    Unknown,
}

impl Instance {
    /// It is recorded as running.
    pub(super) fn healthy(&self) -> bool {
        self.healthy
    }

    /// What its supervisor begins with.
    pub(super) fn adopted(&self, found: Found) -> Begin {
        crate::info!("instance.adopted", app = self.key.0, index = self.key.1);
        let Found { container, processes } = found;
        let container = Arc::new(container);
        let Instance { healthy, ready, outdated, .. } = *self;
        Begin::Adopted { container, processes, healthy, ready, outdated }
    }
}

/// The processes that an instance is about, attached, and how each has ended if it has; `None`: what
/// it is about was never started, or nobody can tell how far it was.
async fn processes(
    container: &Container,
    lrp: &DesiredLrp,
    max: Duration,
) -> Result<Option<Vec<Attached>>, String> {
    let text = |err: ProcessError| chain(&err);
    let too_long = async {
        async_io::Timer::after(max).await;
        Err(format!("its pid 1 has not answered for {} s", max.as_secs()))
    };
    let list = async { container.processes().await.map_err(text) };
    let all = future::or(list, too_long).await?;
    let known: Vec<String> = all.iter().map(|process| process.id.clone()).collect();
    let Some(ours) = assembly::resume(&places::named(&lrp.work), &known) else { return Ok(None) };
    // Sessions of the daemon that has ended, and its checks: nobody reads them any more.
    for other in all.iter().filter(|process| !ours.contains(&process.id)) {
        // One that ends by itself at this moment is as good.
        let _ = container.signal(&other.id, KILL).await;
    }
    let mut attached = Vec::new();
    // Last of all: from here on their output is ours.
    for process in all.iter().filter(|process| ours.contains(&process.id)) {
        attached.push((container.attach(process).await.map_err(text)?, process.ended));
    }
    Ok(Some(attached))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cell::diff::tests::desired;

    /// Row 83: an old instance is not judged by the checks of the version that takes over from it, when
    /// the daemon restarts in between.
    #[test]
    fn row_83_what_is_taken_over_keeps_the_checks_that_it_was_made_with() {
        let lrp = |version: &str, health: u16| {
            let mut lrp = desired(1, version).into_values().next().expect("one");
            lrp.ports[0].container = health;
            lrp
        };
        let (new, old) = (lrp("b", 2), lrp("a", 1));
        let made = |version: &str, before: &[DesiredLrp]| {
            let (lrp, outdated) = made_from(new.clone(), before.to_vec(), version);
            (lrp.version.clone(), lrp.ports[0].container, outdated)
        };
        assert_eq!(made("b", std::slice::from_ref(&old)), ("b".into(), 2, false));
        assert_eq!(made("a", std::slice::from_ref(&old)), ("a".into(), 1, false));
        assert_eq!(made("z", &[old]), ("z".into(), 2, true), "nobody knows it any more");
        assert_eq!(made("a", &[]), ("a".into(), 2, true));
    }
}
