//! Supervises one instance: container, process, health, end.

use super::diff::Key;
use super::owner;
use super::shared::{Shared, now_ms};
use super::{crash, record::Release};
use crate::container::{Container, ContainerError, ContainerSpec, Fault, Process};
use crate::exec::cancel::Cancel;
use crate::exec::health::Monitor;
use crate::exec::instance::{First, keep};
use crate::exec::room::Resources;
use crate::exec::run::Executor;
use crate::exec::steps::{StepError, StepResult};
use crate::exec::streams::Sink;
use crate::model::action::RunAction;
use crate::model::lrp::{ActualLrp, DesiredLrp, LrpState, Place};
use crate::model::process::{ExitStatus, ProcessSpec};
use std::sync::Arc;
use std::sync::atomic::AtomicU32;

/// The name of an instance's main process in its container.
pub(super) const MAIN: &str = "app";

/// A crash reason is cut to this many bytes, as in the BBS.
const REASON_MAX: usize = 1024;

/// What a supervisor begins with.
pub(super) enum Begin {
    /// With nothing but the room that was taken for it.
    Fresh(Box<Release>),
    /// With a container that survived the daemon, and its attached main process.
    Adopted {
        /// The container.
        container: Arc<Container>,
        /// Its main process.
        process: Process,
        /// It was recorded as running.
        healthy: bool,
        /// How it has ended while no daemon was there, if it has.
        ended: Option<ExitStatus>,
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
    let cell = Sink { log: Some(log), source: "CELL".into(), index: key.1 };
    // Before it is tried: what comes back meanwhile counts.
    let returned = shared.state().waiting.returned();
    let first = match begin {
        Begin::Adopted { container, process, healthy, ended } => {
            let log_source = lrp.log_source.clone();
            Ok((container, First::Adopted { process, log_source, healthy, ended }))
        }
        Begin::Fresh(release) => create(&shared, &key, &lrp, &release, &cell)
            .await
            .map(|container| (container, First::Start(main_process(&lrp)))),
    };
    let end = match first {
        Err(err) if err.is_full() => {
            // What it did not get is not what others wait for.
            shared.state().room.give_back(needs);
            shared.starve(&key, &lrp, returned, &err);
            shared.state().supervised.remove(&key);
            return shared.wake();
        }
        Err(err) => {
            let why = format!("failed to create container: {}", crate::log::chain(&err));
            cell.say(true, format!("Cell failed to start instance {}/{}: {why}", key.0, key.1));
            Err(StepError::Failed(why))
        }
        Ok((container, first)) => {
            let end = live(&shared, &key, &lrp, &container, first, &cell, &cancel).await;
            let handle = container.handle().clone();
            if let Some(work) = shared.state().supervised.get_mut(&key) {
                work.container = None;
                work.stopping = true;
            }
            drop(container);
            // Before its address can be another's.
            shared.publish().await;
            cell.say(false, format!("Cell destroying container for instance {handle}"));
            shared.destroy(&handle).await;
            cell.say(false, format!("Cell successfully destroyed container for instance {handle}"));
            end
        }
    };
    conclude(&shared, &key, &lrp, end, &cancel, &cell).await;
    // Only now: if it is to start again at once, it does not lose its room to one that waits
    // further behind.
    shared.give_back_room(needs);
    shared.state().supervised.remove(&key);
    shared.wake();
}

/// Makes the container and records where the instance lives.
async fn create(
    shared: &Arc<Shared>,
    key: &Key,
    lrp: &DesiredLrp,
    release: &Release,
    cell: &Sink,
) -> Result<Arc<Container>, ContainerError> {
    let spec = ContainerSpec {
        image: release.image.as_ref().map(|image| image.digest),
        limits: lrp.limits.clone(),
        ports: lrp.ports.iter().map(|port| port.container).collect(),
        egress: lrp.egress.clone(),
        binds: shared.lifecycle_binds(),
        owner: owner::lrp(key),
        ..ContainerSpec::new(shared.fresh_handle(key), release.layers())
    };
    let guid = spec.handle.clone();
    cell.say(false, format!("Cell creating container for instance {guid}"));
    let inner = shared.clone();
    let made = smol::unblock(move || inner.host.create(spec, Fault::None)).await;
    let made = match made {
        Ok(made) => made,
        Err(err) => {
            // What the creation's own undo could not take back is tried once more.
            shared.destroy(&guid).await;
            return Err(err);
        }
    };
    cell.say(false, format!("Cell successfully created container for instance {guid}"));
    let container = Arc::new(made);
    record(shared, key, lrp, LrpState::Claimed(place(&container))).await;
    Ok(container)
}

/// Runs the instance in its container.
async fn live(
    shared: &Arc<Shared>,
    key: &Key,
    lrp: &DesiredLrp,
    container: &Arc<Container>,
    first: First,
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
        env: shared.network_env(container, Some(key.1)),
        last_id: AtomicU32::new(0),
    };
    let monitor = Monitor {
        address: shared.host.net().addresses(container.entry().slot).container,
        health: &lrp.health,
        sink: Sink { source: "HEALTH".into(), ..cell.clone() },
    };
    let healthy = async {
        record(shared, key, lrp, LrpState::Running(place(container))).await;
        crate::info!("instance.running", app = key.0, index = key.1);
        shared.wake();
    };
    // Stopped before it began: then there is nothing to say good-bye to.
    let end = match (cancel.is_cancelled(), &first) {
        (true, First::Start(_)) => Err(StepError::Cancelled),
        (false, First::Start(_)) => match make_volumes(&exec, lrp, cancel).await {
            Ok(()) => keep(&exec, first, monitor, cancel, healthy).await,
            err => err,
        },
        _ => keep(&exec, first, monitor, cancel, healthy).await,
    };
    if cancel.is_cancelled() {
        cell.say(false, format!("Cell stopping instance {}", container.handle()));
    }
    end
}

/// Records how it ended.
async fn conclude(
    shared: &Arc<Shared>,
    key: &Key,
    lrp: &DesiredLrp,
    end: StepResult,
    cancel: &Cancel,
    cell: &Sink,
) {
    let before = shared.state().actual.get(key).cloned();
    if cancel.is_cancelled() {
        // It was stopped on purpose: nothing to count; the loop decides whether it comes back.
        let fresh = ActualLrp { state: LrpState::Unclaimed, ..new_record(key, lrp) };
        return shared.put_actual(key, Some(fresh)).await;
    }
    let now = now_ms();
    let running_since = before
        .as_ref()
        .filter(|record| matches!(record.state, LrpState::Running(_)))
        .map(|record| record.since_ms);
    let earlier = before.filter(|record| record.version == lrp.version);
    let counted = earlier.map_or(0, |record| record.crash_count);
    let mut reason = end.as_ref().err().map(ToString::to_string).unwrap_or_default();
    if reason.is_empty() {
        reason.push_str("Exited with status 0");
    }
    cut(&mut reason, REASON_MAX);
    let succeeded = end.is_ok();
    let crash_count = if succeeded && !crash::wanted(lrp.restart, true) {
        cell.say(false, format!("Instance {}/{} finished: {reason}", key.0, key.1));
        crate::info!("instance.finished", app = key.0, index = key.1);
        counted
    } else {
        let crash_count = crash::count(counted, running_since, now);
        let next = match crash::after(lrp.restart, succeeded, crash_count, now) {
            crash::Next::Now => "starts again at once".to_owned(),
            crash::Next::At(at) => format!("starts again in {} s", (at - now) / 1000),
            crash::Next::Never => "does not start again by itself".to_owned(),
        };
        cell.say(true, format!("Instance {}/{} crashed: {reason}; it {next}", key.0, key.1));
        crate::warn!("instance.crashed", app = key.0, index = key.1, err = reason);
        crash_count
    };
    let record = ActualLrp {
        state: LrpState::Crashed { succeeded },
        crash_count,
        crash_reason: Some(reason),
        since_ms: now,
        ..new_record(key, lrp)
    };
    shared.put_actual(key, Some(record)).await;
}

/// Moves an instance's record to `state`, keeping its crash history within one version.
async fn record(shared: &Arc<Shared>, key: &Key, lrp: &DesiredLrp, state: LrpState) {
    let before = shared.state().actual.get(key).cloned();
    let kept = before.filter(|record| record.version == lrp.version);
    let fresh = new_record(key, lrp);
    let record = ActualLrp {
        state,
        crash_count: kept.as_ref().map_or(0, |record| record.crash_count),
        crash_reason: kept.and_then(|record| record.crash_reason),
        ..fresh
    };
    shared.put_actual(key, Some(record)).await;
}

fn new_record(key: &Key, lrp: &DesiredLrp) -> ActualLrp {
    ActualLrp {
        guid: key.0.clone(),
        index: key.1,
        version: lrp.version.clone(),
        state: LrpState::Unclaimed,
        crash_count: 0,
        crash_reason: None,
        placement_error: None,
        since_ms: now_ms(),
    }
}

fn place(container: &Container) -> Place {
    Place {
        handle: container.handle().clone(),
        slot: container.entry().slot,
        ports: container.entry().ports.clone(),
    }
}

/// Makes the directories that an image wants its containers to have.
async fn make_volumes(exec: &Executor, lrp: &DesiredLrp, cancel: &Cancel) -> StepResult {
    let volumes = lrp.image.as_ref().map(|image| image.volumes.clone()).unwrap_or_default();
    if volumes.is_empty() {
        return Ok(());
    }
    let mut process = process(lrp, "make-dirs", volumes, "/");
    process.user = "root".into();
    let log_source = lrp.log_source.clone();
    exec.help(&RunAction { process, log_source, suppress_log_output: false }, cancel).await
}

/// The launcher with the start command, as Diego's recipe runs it.
fn main_process(lrp: &DesiredLrp) -> RunAction {
    let (role, dir) = match &lrp.image {
        Some(image) => ("docker-launcher", image.dir.as_str()),
        None => ("launcher", "/home/vcap"),
    };
    let args = vec!["app".into(), lrp.command.clone(), lrp.metadata.clone()];
    let process = ProcessSpec { id: MAIN.into(), ..process(lrp, role, args, dir) };
    RunAction { process, log_source: lrp.log_source.clone(), suppress_log_output: false }
}

/// One of our own programs with an instance's environment.
fn process(lrp: &DesiredLrp, role: &str, args: Vec<String>, dir: &str) -> ProcessSpec {
    ProcessSpec {
        id: String::new(),
        path: format!("/tmp/lifecycle/{role}"),
        args,
        program: Default::default(),
        argv0: None,
        env: lrp.env.clone(),
        dir: Some(dir.into()),
        dir_must_exist: false,
        user: lrp.user.clone(),
        nofile: Some(lrp.nofile),
        rlimits: Default::default(),
        tty: None,
        stdin: false,
        keep_stdin: false,
    }
}

/// Cuts text to at most `max` bytes, at a character.
fn cut(text: &mut String, max: usize) {
    if text.len() > max {
        let end = (0..=max).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(end);
    }
}
