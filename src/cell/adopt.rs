//! After a restart of the daemon: keep what lives, sweep what does not, and go on looking at what
//! cannot be told yet.

use super::diff::Key;
use super::instance::{Begin, MAIN};
use super::shared::{Cell, Shared, now_ms};
use super::{converge, owner};
use crate::container::{Container, Posture, Process, ProcessError, Sight};
use crate::exec::room::Resources;
use crate::log::chain;
use crate::model::lrp::{ActualLrp, DesiredLrp, LrpState, Place};
use crate::model::process::ExitStatus;
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
}

/// A container that can be kept, connected, with its main process attached.
pub(super) struct Found {
    container: Container,
    process: Process,
    ended: Option<ExitStatus>,
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
        let inner = self.shared.clone();
        smol::unblock(move || {
            inner.distrust_published();
            // Of stagings that ended with the last daemon.
            let work = inner.paths.state.join("staging");
            match std::fs::remove_dir_all(&work) {
                Err(err) if err.kind() != std::io::ErrorKind::NotFound => {
                    crate::warn!("staging.left", path = work.display(), err = err);
                }
                _ => {}
            }
        })
        .await;
    }

    /// Instances that were not taken over live nowhere: their old addresses may soon be others'.
    async fn forget_places(&self) {
        let gone: Vec<_> = {
            let state = self.shared.state();
            let placed = state.actual.iter().filter(|(key, record)| {
                matches!(record.state, LrpState::Claimed(_) | LrpState::Running(_))
                    && !state.supervised.contains_key(*key)
            });
            placed.map(|(key, record)| (key.clone(), record.clone())).collect()
        };
        for (key, record) in gone {
            let record = ActualLrp { state: LrpState::Unclaimed, since_ms: now_ms(), ..record };
            self.shared.put_actual(&key, Some(record)).await;
        }
    }
}

impl Shared {
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
        let (key, record, place) = state.actual.iter().find_map(|(key, record)| {
            let (LrpState::Claimed(place) | LrpState::Running(place)) = &record.state else {
                return None;
            };
            (place.handle == *handle).then_some((key, record, place))
        })?;
        let mut lrp = converge::desired(&state.apps).remove(&key.0)?;
        if key.1 >= lrp.instances || state.supervised.contains_key(key) {
            return None;
        }
        lrp.version = record.version.clone();
        let healthy = matches!(record.state, LrpState::Running(_));
        Some(Instance { key: key.clone(), place: place.clone(), lrp, healthy })
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
        self.destroy(handle).await;
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
        match main_process(&container, max).await {
            Ok(Some((process, ended))) => {
                Look::Taken(Box::new(Found { container, process, ended }))
            }
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
                Sight::Entry(entry) if owner::key(&entry.spec.owner) != Some(key) => {
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
    /// What its supervisor begins with.
    pub(super) fn adopted(&self, found: Found) -> Begin {
        crate::info!("instance.adopted", app = self.key.0, index = self.key.1);
        let Found { container, process, ended } = found;
        let container = Arc::new(container);
        Begin::Adopted { container, process, healthy: self.healthy, ended }
    }
}

/// An instance's main process, attached, and how it has ended if it has; `None`: it was never started.
async fn main_process(
    container: &Container,
    max: Duration,
) -> Result<Option<(Process, Option<ExitStatus>)>, String> {
    let text = |err: ProcessError| chain(&err);
    let too_long = async {
        async_io::Timer::after(max).await;
        Err(format!("its pid 1 has not answered for {} s", max.as_secs()))
    };
    let list = async { container.processes().await.map_err(text) };
    let processes = future::or(list, too_long).await?;
    let Some(main) = processes.iter().find(|process| process.id == MAIN) else { return Ok(None) };
    // Sessions of the daemon that has ended: their people are gone, nobody reads them.
    for other in processes.iter().filter(|process| process.id != MAIN) {
        // One that ends by itself at this moment is as good.
        let _ = container.signal(&other.id, KILL).await;
    }
    let ended = main.ended;
    // Last of all: from here on its output is ours.
    let process = container.attach(main).await.map_err(text)?;
    Ok(Some((process, ended)))
}
