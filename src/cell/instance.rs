//! Supervises one instance: container, process, health, end.

use super::autopsy::{stopper, tell_of_kills};
use super::diff::Key;
use super::lrp_state::{self, End, LrpEvent};
use super::mounts::{self, Asked};
use super::owner;
use super::shared::Shared;
use super::ssh;
use super::{converge, crash, record::Release};
use crate::container::{Container, ContainerError, ContainerSpec, Fault};
use crate::exec::assembly::{self, Told, keep};
use crate::exec::cancel::{self, Cancel};
use crate::exec::env;
use crate::exec::found::{Attached, Found};
use crate::exec::health::Monitor;
use crate::exec::metrics::{self, COUNTERS};
use crate::exec::places;
use crate::exec::room::Resources;
use crate::exec::run::Executor;
use crate::exec::state::ContainerEvent;
use crate::exec::steps::{StepError, StepResult};
use crate::exec::streams::Sink;
use crate::model::death::Cause;
use crate::model::lrp::{DesiredLrp, Place};
use crate::model::manifest::Check;
use crate::model::process::ProcessSpec;
use crate::unit::Handle;
use smol::future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::{Duration, Instant};

/// How long an instance keeps the room that was taken for it before its container is made. Diego's.
const RESERVED_MAX: Duration = Duration::from_secs(60);

/// What a supervisor begins with.
pub(super) enum Begin {
    /// With nothing but the room that was taken for it.
    Fresh(Box<Release>),
    /// With a container that survived the daemon, and its attached processes.
    Adopted {
        /// The container.
        container: Arc<Container>,
        /// Its processes, and how each has ended while no daemon was there, if it has.
        processes: Vec<Attached>,
        /// It was recorded as running.
        healthy: bool,
        /// It was recorded as ready.
        ready: bool,
        /// It is of an older version.
        outdated: bool,
    },
}

/// Works on one instance until it has ended and nothing of it is left, the room that was taken for
/// it given back.
pub(super) async fn supervise(
    shared: Arc<Shared>,
    key: Key,
    lrp: DesiredLrp,
    (begin, needs): (Begin, Resources),
    cancel: Cancel,
) {
    let log = shared.logs.app(&key.0.app);
    let cell = Sink { log: Some(log), source: "CELL".into(), index: key.1, heard: None };
    // Before it is tried: what comes back meanwhile counts.
    let returned = shared.state().waiting.returned();
    let first = match begin {
        Begin::Adopted { container, processes, healthy, ready, outdated } => {
            Ok((container, (assembly::Begin::Adopted { healthy, ready, outdated }, processes)))
        }
        Begin::Fresh(release) => create(&shared, &key, &lrp, &release, (&cell, &cancel))
            .await
            .map(|container| (container, (assembly::Begin::Fresh, Vec::new()))),
    };
    let (handle, end) = match first {
        // It was told to end before it had a container.
        Err(_) if cancel.is_cancelled() => (None, Err(StepError::Cancelled)),
        // Broken off, as the daemon ends: the next one makes it.
        Err(_) if shared.state().closing => {
            shared.state().room.give_back(needs);
            drop(shared.state().supervised.remove(&key));
            return;
        }
        Err(NotMade::Container(err)) if err.is_full() => {
            // What it did not get is not what others wait for.
            shared.state().room.give_back(needs);
            shared.starve(&key, &lrp, returned, &err);
            shared.state().supervised.remove(&key);
            return shared.wake();
        }
        Err(err) => {
            let cause = err.cause();
            let text = cause.text();
            cell.say(true, format!("Cell failed to start instance {}/{}: {text}", key.0, key.1));
            (None, Err(StepError::died(cause)))
        }
        Ok((container, first)) => {
            let life = live(&shared, &key, &lrp, &container, first, &cell, &cancel);
            let kills = async {
                tell_of_kills(&container, &cell).await;
                future::pending().await
            };
            let end = future::or(life, kills).await;
            let end = shared.autopsy(&container, end).await;
            let handle = container.handle().clone();
            if let Some(work) = shared.state().supervised.get_mut(&key) {
                work.container = None;
                work.stopping = true;
                work.turn(ContainerEvent::Complete);
            }
            drop(container);
            // Before its address can be another's.
            shared.publish().await;
            cell.say(false, format!("Cell destroying container for instance {handle}"));
            shared.destroy(&handle).await;
            cell.say(false, format!("Cell successfully destroyed container for instance {handle}"));
            (Some(handle), end)
        }
    };
    shared.turn(&key, ContainerEvent::Complete);
    conclude(&shared, (&key, handle), &lrp, end, &cancel, &cell).await;
    // Only now: if it is to start again at once, it does not lose its room to one that waits
    // further behind.
    shared.leave(&key, needs);
}

impl Shared {
    /// Something happens to the container of an instance that somebody works on.
    fn turn(&self, key: &Key, event: ContainerEvent) {
        if let Some(work) = self.state().supervised.get_mut(key) {
            work.turn(event);
        }
    }
}

/// Why there is no container for an instance.
enum NotMade {
    /// Something that it was to hold is not there; Diego's text.
    Mounts(String),
    /// It could not be made itself.
    Container(ContainerError),
}

impl NotMade {
    fn cause(self) -> Cause {
        match self {
            NotMade::Mounts(text) => Cause::Failed { text },
            NotMade::Container(err) => Cause::CreateFailed { why: crate::log::chain(&err) },
        }
    }
}

impl From<ContainerError> for NotMade {
    fn from(err: ContainerError) -> NotMade {
        NotMade::Container(err)
    }
}

/// Makes the container and records where the instance lives.
async fn create(
    shared: &Arc<Shared>,
    key: &Key,
    lrp: &DesiredLrp,
    release: &Release,
    (cell, cancel): (&Sink, &Cancel),
) -> Result<Arc<Container>, NotMade> {
    let handle = shared.fresh_handle(key);
    let asked = Asked::by_lrp(lrp);
    let mounts = mounts::prepare(shared, &asked, &handle, (cell, cancel)).await;
    let mounts = match mounts {
        Ok(mounts) => mounts,
        Err(why) => {
            let (inner, name) = (shared.clone(), handle.clone());
            smol::unblock(move || inner.remove_mounted(&name)).await;
            return Err(NotMade::Mounts(why));
        }
    };
    let mut binds = match &release.container {
        Some(container) => mounts::trusted(&container.extras),
        None => shared.lifecycle_binds(),
    };
    binds.extend(mounts.binds.iter().cloned());
    let spec = ContainerSpec {
        image: release.image.as_ref().map(|image| image.digest),
        limits: shared.limits(&lrp.limits),
        ports: lrp.ports.iter().map(|port| port.container).collect(),
        egress: lrp.egress.clone(),
        binds,
        trees: mounts.layers.clone(),
        notify: lrp.health.probes().iter().any(|probe| probe.check == Check::Watchdog),
        owner: owner::lrp(key),
        ..ContainerSpec::new(handle, release.layers())
    };
    let guid = spec.handle.clone();
    cell.say(false, format!("Cell creating container for instance {guid}"));
    let (inner, handle) = (shared.clone(), guid.clone());
    let turn = cancel.or(shared.pools.create.enter_within(RESERVED_MAX)).await.flatten();
    let Some(turn) = turn else {
        smol::unblock(move || inner.remove_mounted(&handle)).await;
        // Of one that was stopped meanwhile nobody asks why.
        return Err(ContainerError::Expired.into());
    };
    shared.turn(key, ContainerEvent::Initialize);
    let begun = Instant::now();
    let made = smol::unblock(move || inner.host.create(spec, Fault::None)).await;
    drop(turn);
    COUNTERS.creations.add(begun, made.is_ok());
    let inner = shared.clone();
    let given = smol::unblock(move || {
        let made = made?;
        let given = inner.give_files(&asked, &made);
        given.map(|()| made).map_err(|why| ContainerError::Step {
            doing: "give its files to the user of",
            handle,
            source: why.into(),
        })
    });
    drop(mounts);
    let made = match given.await {
        Ok(made) => made,
        Err(err) => {
            // What the creation's own undo could not take back is tried once more.
            shared.destroy(&guid).await;
            return Err(err.into());
        }
    };
    cell.say(false, format!("Cell successfully created container for instance {guid}"));
    let container = Arc::new(made);
    shared.turn(key, ContainerEvent::Create);
    shared.happen(key, LrpEvent::Claim(place(&container))).await;
    if lrp.readiness.is_some() {
        // Until its check has passed in this very container.
        let handle = container.handle().clone();
        shared.happen(key, LrpEvent::Ready { handle, ready: false }).await;
    }
    Ok(container)
}

/// Runs the instance in its container.
async fn live(
    shared: &Arc<Shared>,
    key: &Key,
    lrp: &DesiredLrp,
    container: &Arc<Container>,
    (begin, processes): (assembly::Begin, Vec<Attached>),
    cell: &Sink,
    cancel: &Cancel,
) -> StepResult {
    if let Some(work) = shared.state().supervised.get_mut(key) {
        work.container = Some(container.clone());
    }
    shared.wake();
    let exec = Executor {
        container: container.clone(),
        sink: Sink { source: lrp.log_source.clone(), ..cell.clone() },
        fetcher: shared.fetcher.clone(),
        limit: shared.logs.limit(lrp.log_rate),
        env: match lrp.by_record {
            true => env::beside(shared.network_env(container, Some(key.1)), &lrp.env),
            false => shared.network_env(container, Some(key.1)),
        },
        last_id: AtomicU32::new(0),
        stop: lrp.stop,
        found: Found::new(processes),
        begun: Default::default(),
    };
    let mut work = places::named(&lrp.work);
    let say = |text: String| cell.say(true, text);
    if let Err(err) = ssh::give_keys(shared, lrp, &mut work, &say).await {
        let why = format!("cannot find the app's SSH host key: {err}");
        cell.say(true, why.clone());
        return Err(StepError::died(Cause::CreateFailed { why }));
    }
    if let Some(work) = shared.state().supervised.get_mut(key) {
        work.limit = Some(exec.limit.clone());
    }
    let monitor = Monitor {
        exec: &exec,
        address: shared.host.net().addresses(container.entry().slot).container,
        work: &work,
        health: &lrp.health,
        readiness: lrp.readiness.as_ref(),
        sink: Sink { source: "HEALTH".into(), ..cell.clone() },
        pool: shared.pools.health.clone(),
        programs: shared.pools.programs.clone(),
    };
    let tell = |told: Told| -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(heed(shared, key, lrp, container, told))
    };
    let fresh = begin == assembly::Begin::Fresh;
    let stopping = || cell.say(false, format!("Cell stopping instance {}", container.handle()));
    // Stopped before it began: then there is nothing to say good-bye to.
    if fresh && cancel.is_cancelled() {
        stopping();
        return Err(StepError::Cancelled);
    }
    let (stop, told) = cancel::pair();
    let life = async {
        make_volumes(&exec, lrp, fresh, &told).await?;
        keep(&exec, &monitor, begin, &tell, &told).await
    };
    let forward = async {
        cancel.cancelled().await;
        // Before anything of it ends.
        stopping();
        stop.cancel();
        future::pending().await
    };
    let end = future::or(life, forward).await;
    if cancel.is_cancelled() && !told.is_cancelled() {
        // It had ended by itself just then.
        stopping();
    }
    end
}

/// Records what has become of an instance while it lives, and lets it be seen.
async fn heed(
    shared: &Arc<Shared>,
    key: &Key,
    lrp: &DesiredLrp,
    container: &Container,
    told: Told,
) {
    match told {
        Told::Healthy => {
            let version = lrp.version.clone();
            shared.turn(key, ContainerEvent::Run);
            shared.happen(key, LrpEvent::Start { version, place: place(container) }).await;
            crate::info!("instance.running", app = key.0, index = key.1);
        }
        Told::Ready(ready) => {
            let handle = container.handle().clone();
            shared.happen(key, LrpEvent::Ready { handle, ready }).await;
            crate::info!("instance.ready", app = key.0, index = key.1, ready = ready);
            if ready && let Some(work) = shared.state().supervised.get_mut(key) {
                work.unready = None;
            }
        }
        Told::Unready(mut why) => {
            lrp_state::cut(&mut why, lrp_state::REASON_MAX);
            let known = match shared.state().supervised.get_mut(key) {
                Some(work) => work.unready.replace(why).is_some(),
                None => true,
            };
            // What it says anew each time is shown to who asks.
            if !known {
                shared.tell();
            }
            return;
        }
    }
    // Whoever hears that it runs may ask its port at once.
    shared.publish().await;
    shared.wake();
}

/// Records how it ended, the one in this container; `None`: it never had one.
async fn conclude(
    shared: &Arc<Shared>,
    (key, handle): (&Key, Option<Handle>),
    lrp: &DesiredLrp,
    end: StepResult,
    cancel: &Cancel,
    cell: &Sink,
) {
    metrics::count(&COUNTERS.completed);
    if cancel.is_cancelled() {
        // It was stopped on purpose: nothing to count; the loop decides whether it comes back.
        let cause = stopped(shared, key, lrp, &end);
        let end = End::of(lrp, &end);
        shared.happen(key, lrp_state::concluded(handle, end, Some(cause))).await;
        return;
    }
    let end = End::of(lrp, &end);
    let succeeded = end.succeeded;
    let event = lrp_state::concluded(handle, end, None);
    let Some(record) = shared.happen(key, event).await else { return };
    let reason = record.crash_reason.unwrap_or_default();
    if succeeded && !crash::wanted(lrp.restart, true) {
        cell.say(false, format!("Instance {}/{} finished: {reason}", key.0, key.1));
        crate::info!("instance.finished", app = key.0, index = key.1);
        return;
    }
    let next = crash::after(lrp.restart, succeeded, record.crash_count, record.since_ms);
    let next = match next {
        _ if shared.gives_up(key, &lrp.version) => {
            "does not start again: its version gives way to the one before".to_owned()
        }
        crash::Next::Now => "starts again at once".to_owned(),
        crash::Next::At(at) => format!("starts again in {} s", (at - record.since_ms) / 1000),
        crash::Next::Never => "does not start again by itself".to_owned(),
    };
    cell.say(true, format!("Instance {}/{} crashed: {reason}; it {next}", key.0, key.1));
    crate::warn!("instance.crashed", app = key.0, index = key.1, err = reason);
}

/// Who told it to end, and how that went.
fn stopped(shared: &Shared, key: &Key, lrp: &DesiredLrp, end: &StepResult) -> Cause {
    let state = shared.state();
    let wanted = converge::desired(&state.apps).remove(&key.0);
    let told = state.supervised.get(key).and_then(|work| work.stopper);
    let app = state.apps.get(&key.0.app);
    let by = stopper(app, wanted.as_ref(), (key, &lrp.version), told);
    lrp_state::stopped(by, end)
}

fn place(container: &Container) -> Place {
    Place {
        handle: container.handle().clone(),
        slot: container.entry().slot,
        ports: container.entry().ports.clone(),
    }
}

/// Makes the directories that an image wants its containers to have.
async fn make_volumes(
    exec: &Executor,
    lrp: &DesiredLrp,
    fresh: bool,
    cancel: &Cancel,
) -> StepResult {
    let Some(image) = lrp.image.as_ref().filter(|_| fresh) else { return Ok(()) };
    let like =
        ProcessSpec { env: lrp.env.clone(), nofile: Some(lrp.nofile), ..ProcessSpec::default() };
    mounts::make_dirs(exec, &image.volumes, (&like, &lrp.log_source), cancel).await
}
