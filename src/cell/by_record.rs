//! LRPs that are asked for by the container record of another cell instead of a manifest.
//!
//! Each is an app of its own here, under a name that is made of the record's guid, with one process
//! and one instance: so it is listed, logged, stopped, adopted and deleted as any other. Its staging
//! only sees that its root is in the store.

mod ports;

pub(super) use ports::{check_ports, share_ports};

use super::error::{CellError, Kind};
use super::record::{AppRecord, Release, Wish};
use super::shared::{AppChange, Cell, Shared, now_ms};
use super::tag;
use super::task::{beside_image, notes};
use super::worked_on::Supervised;
use crate::exec::cancel::Cancel;
use crate::exec::places;
use crate::exec::state::ContainerState;
use crate::model::action::Action;
use crate::model::container::LrpContainer;
use crate::model::image::StagedImage;
use crate::model::limits::Limits;
use crate::model::lrp::{DesiredLrp, ImageFacts, LrpPort, ProcessGuid, Work};
use crate::model::manifest::{
    Build, Check, Health, HealthTimes, Image, Log, Manifest, Port, Probe, Process, Restart, Run,
};
use crate::model::task::{Rootfs, StagingResult, inner_name};
use crate::model::work::Sidecar;
use crate::unit::{AppName, Bytes, Digest};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Such LRPs at the same time.
const RECORDS_MAX: usize = 1024;

/// Open files of a command that somebody runs inside, where the record says nothing.
const NOFILE: u64 = 16_384;

/// Name of the one process.
pub(super) const PROCESS: &str = "web";

impl Cell {
    /// The stack that a path of another cell's records stands for.
    pub fn stack_at(&self, path: &str) -> Option<String> {
        self.shared.rootfs.get(path).cloned()
    }

    /// The box's address as clients are told it.
    pub fn external_ip(&self) -> std::net::Ipv4Addr {
        self.shared.host_ip
    }

    /// Every LRP by record that is not on its way out, with its app's name.
    pub fn containers(&self) -> Vec<(AppName, LrpContainer)> {
        let state = self.shared.state();
        let apps = state.apps.iter().filter(|(_, app)| !app.deleting);
        let by_record = |(name, app): (&AppName, &AppRecord)| {
            Some((name.clone(), app.container.as_deref()?.clone()))
        };
        apps.filter_map(by_record).collect()
    }

    /// How far the container of an LRP by record is, in executor's words: of its one instance.
    pub fn container_of_lrp(&self, name: &AppName) -> ContainerState {
        let state = self.shared.state();
        let stopped = state.apps.get(name).is_none_or(|app| app.stopped);
        let all = state.actual.keys().chain(state.supervised.keys());
        let key = all.filter(|key| key.0.app == *name).min();
        let work = key.and_then(|key| state.supervised.get(key)).map(Supervised::state);
        let record = key.and_then(|key| state.actual.get(key)).map(|record| &record.state);
        ContainerState::of_instance(work, record, stopped)
    }

    /// Asks for an LRP. It is on the disk when this returns.
    ///
    /// One that was removed and of which something still runs may be asked for anew: the record is told
    /// and may change from now on, and it is begun when nothing of the one before is left.
    pub async fn desire_container(&self, mut container: LrpContainer) -> Result<(), CellError> {
        let name = inner_name(&container.guid);
        if let Some(facts) = &mut container.desired {
            facts.epoch = tag::epoch();
        }
        let changed = self.shared.change_app(&name, |state| {
            if state.closing {
                return Err(CellError::new(Kind::Failed, "the daemon ends; ask the next one"));
            }
            let described = manifest(&name, &container);
            match state.apps.get(&name) {
                Some(app) if makes_way(app) && container.desired.is_some() => {
                    check_ports(state, &described)?;
                    let successor = Some(Box::new(container.clone()));
                    return Ok(AppChange::Put(Box::new(AppRecord { successor, ..app.clone() })));
                }
                Some(_) => {
                    return Err(CellError::new(Kind::Conflict, "container guid not available"));
                }
                None => {}
            }
            let count = state.apps.values().filter(|app| app.container.is_some()).count();
            if count >= RECORDS_MAX {
                let text = format!("{RECORDS_MAX} containers are recorded already; delete some");
                return Err(CellError::new(Kind::Conflict, text));
            }
            check_ports(state, &described)?;
            let record = asked_for(described, container.clone(), state.next_generation());
            Ok(AppChange::Put(Box::new(record)))
        });
        changed.await?;
        crate::info!("container.desired", app = name, guid = container.guid);
        Ok(())
    }
}

/// The record of what was just asked for.
fn asked_for(described: Manifest, container: LrpContainer, generation: u64) -> AppRecord {
    let record = AppRecord::new(described, PathBuf::new(), generation);
    let wish = Wish::new("desire", now_ms());
    AppRecord { container: Some(Box::new(container)), wish, ..record }
}

/// It is on its way out, and nobody has its place yet.
fn makes_way(app: &AppRecord) -> bool {
    app.deleting && app.container.is_some() && app.successor.is_none()
}

/// What becomes of the record of an app of which nothing is left. `generation`: of what is next, if
/// something is.
pub(super) fn after(app: Option<&AppRecord>, generation: u64) -> AppChange {
    match app.and_then(|app| app.successor.as_deref().map(|next| (&app.manifest.name, next))) {
        Some((name, next)) => {
            let described = manifest(name, next);
            AppChange::Put(Box::new(asked_for(described, next.clone(), generation)))
        }
        None => AppChange::Remove,
    }
}

/// What a manifest would say of it: for whoever looks at the app.
pub(super) fn manifest(name: &AppName, container: &LrpContainer) -> Manifest {
    let Limits { memory, disk, cpu_weight, pids, .. } = container.limits;
    let (memory, disk) = (memory.unwrap_or_default(), disk.unwrap_or_default());
    let (image, stack) = match &container.rootfs {
        Rootfs::Image(name) => (Some(Image::Ref(name.clone())), String::new()),
        Rootfs::Stack(stack) => (None, stack.clone()),
        Rootfs::App(..) => (None, String::new()),
    };
    let port = |port: &u16| Port {
        name: format!("p{port}"),
        container: *port,
        publish: container.publish(*port),
    };
    let ports: Vec<Port> = container.ports.iter().map(port).collect();
    let process = Process {
        command: None,
        instances: container.instances(),
        memory,
        disk,
        ports: ports.iter().map(|port| port.name.clone()).collect(),
        health: health(container),
        readiness: readiness(container),
    };
    Manifest {
        name: name.clone(),
        source: PathBuf::new(),
        image,
        build: Build {
            buildpacks: Vec::new(),
            checksums: Default::default(),
            stack,
            memory: None,
            disk: None,
            timeout: Duration::ZERO,
        },
        run: Run {
            instances: container.instances(),
            memory,
            disk,
            cpu_weight,
            pids: pids.unwrap_or_default(),
            nofile: 0,
            command: None,
            user: String::new(),
        },
        processes: [(PROCESS.to_owned(), process)].into(),
        env: BTreeMap::new(),
        ports,
        egress: container.egress.clone(),
        restart: Default::default(),
        log: Log::default(),
        sidecars: BTreeMap::new(),
        stop: Default::default(),
        volumes: Vec::new(),
        files: Vec::new(),
        after: Vec::new(),
        needs: Vec::new(),
        ssh: None,
        rollout: Default::default(),
        release_hook: None,
        services: Vec::new(),
        uris: Vec::new(),
        file_based_services: false,
    }
}

/// Diego's times; what is tried are the record's checks, or its own monitor, where it has one.
pub(super) fn health(container: &LrpContainer) -> Health {
    of_probes(&container.checks, container.start_timeout)
}

/// When connections are led to it; `None`: while it runs.
fn readiness(container: &LrpContainer) -> Option<Health> {
    let probes = &container.readiness_checks;
    (!probes.is_empty()).then(|| of_probes(probes, Duration::ZERO))
}

fn of_probes(probes: &[Probe], start_timeout: Duration) -> Health {
    let usual = HealthTimes::default();
    let none = Probe {
        check: Check::Process,
        timeout: Duration::from_secs(1),
        interval: usual.interval_healthy,
    };
    let (first, also) = probes.split_first().unwrap_or((&none, &[]));
    Health {
        check: first.check.clone(),
        start_timeout,
        interval_unhealthy: usual.interval_unhealthy,
        interval_healthy: first.interval,
        timeout: first.timeout,
        failures: 1,
        also: also.to_vec(),
    }
}

/// Sees that its root is in the store. The error is for the user.
pub(super) async fn stage(
    shared: &Arc<Shared>,
    record: &AppRecord,
    container: &LrpContainer,
    cancel: &Cancel,
) -> Result<Release, String> {
    let name = &record.manifest.name;
    shared.say(name, "CELL", false, format!("Cell preparing rootfs {}", container.rootfs));
    for note in notes(&container.extras) {
        shared.say(name, "CELL", true, note);
    }
    shared.suits(&container.extras).map_err(|misfit| misfit.to_string())?;
    let login = container.extras.login.as_ref();
    let mut made =
        cancel.or(shared.root_of(&container.rootfs, login)).await.ok_or("it was stopped")??;
    if let Some(pin) = made.pin.take() {
        shared.state().fetched.insert(name.clone(), pin);
    }
    if let (Some((_, bytes)), Some(disk)) = (made.image, container.limits.disk) {
        beside_image(disk, bytes)?;
    }
    let base = made.image.map_or(made.layers[0], |(digest, _)| digest);
    let env = made.env.into_iter().map(|(name, value)| format!("{name}={value}")).collect();
    let image = made.image.map(|(digest, bytes)| StagedImage {
        digest,
        layers: made.layers,
        bytes,
        env,
        volumes: Vec::new(),
        stop_signal: None,
    });
    Ok(Release {
        manifest: record.manifest.clone(),
        fingerprint: base,
        result: StagingResult { lifecycle_type: "container".into(), ..StagingResult::default() },
        stack: base,
        droplet: base,
        image,
        container: Some(Box::new(container.clone())),
    })
}

/// The LRP of its release, which is made of a layer of the store or of an image.
pub(super) fn lrp(
    name: &AppName,
    container: &LrpContainer,
    (droplet, image): (Digest, Option<&StagedImage>),
    restarts: u64,
) -> DesiredLrp {
    let stack = match &container.rootfs {
        Rootfs::Stack(stack) => stack.clone(),
        Rootfs::Image(_) | Rootfs::App(..) => String::new(),
    };
    let said = image.iter().flat_map(|image| &image.env).filter_map(|it| it.split_once('='));
    let said = said.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let env: Vec<(String, String)> = said.chain(container.env.iter().cloned()).collect();
    let with_env = |action: &Action| action.clone().with_env(&env);
    let beside = |it: &Sidecar| Sidecar { name: it.name.clone(), action: with_env(&it.action) };
    let work = Work {
        setup: container.setup.as_ref().map(with_env),
        monitor: container.monitor.as_ref().map(with_env),
        sidecars: container.sidecars.iter().map(beside).collect(),
        ..Work::new(with_env(&container.action))
    };
    let first = places::first_process(&work.action);
    let (user, nofile) = first.map_or((String::new(), None), |it| (it.user.clone(), it.nofile));
    // What it is made from, and how often somebody has wished for another one of the same.
    let version = Digest::of(format!("{restarts} {}", container.source).as_bytes()).hex();
    DesiredLrp {
        guid: ProcessGuid { app: name.clone(), process: PROCESS.into() },
        version: version[..16].to_owned(),
        stack,
        droplet,
        image: image.map(|image| ImageFacts { volumes: image.volumes.clone() }),
        instances: container.instances(),
        limits: limits(container, image),
        command: first.map_or_else(String::new, |process| process.path.clone()),
        work,
        user,
        nofile: nofile.unwrap_or(NOFILE),
        log_source: match container.log_source.as_str() {
            "" => "LOG".into(),
            source => source.into(),
        },
        log_rate: container.extras.log_rate,
        env,
        ports: container
            .ports
            .iter()
            .map(|port| LrpPort { container: *port, publish: container.publish(*port) })
            .collect(),
        egress: container.egress.clone(),
        health: health(container),
        readiness: readiness(container),
        stop: Default::default(),
        volumes: container.extras.volumes.clone(),
        files: container.extras.files.clone(),
        dependencies: container.extras.dependencies.clone(),
        restart: Restart::Always,
        by_record: true,
        rollout: Default::default(),
    }
}

/// What it may write itself: the image is part of what it asked for.
fn limits(container: &LrpContainer, image: Option<&StagedImage>) -> Limits {
    let rest = |disk: Bytes| match image {
        // Staging has seen that something is left.
        Some(image) => beside_image(disk, image.bytes).unwrap_or(disk),
        None => disk,
    };
    Limits { disk: container.limits.disk.map(rest), ..container.limits.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Row 45: times of each check, and that of the first try.
    #[test]
    fn row_45_checks_of_a_record_are_those_of_an_instance() {
        let probe = |port, seconds| Probe {
            check: Check::Port { port },
            timeout: Duration::from_secs(2),
            interval: Duration::from_secs(seconds),
        };
        let probes = [probe(80, 5), probe(81, 7)];
        let health = of_probes(&probes, Duration::from_secs(9));
        assert_eq!(health.probes(), probes);
        assert_eq!(health.start_timeout, Duration::from_secs(9));
        assert!(of_probes(&[], Duration::ZERO).probes().is_empty());
    }

    /// Who asks for it after another one, or after what it was, is newer, whatever the clock says; and
    /// what it tells of its age is a time.
    #[test]
    fn what_is_asked_for_knows_when_that_was() {
        let container = crate::cell::releases::tests::container();
        let name = inner_name(&container.guid);
        let first = asked_for(manifest(&name, &container), container.clone(), 7);
        assert_eq!(first.generation, 7);
        assert!(first.wish.as_ref().is_some_and(|wish| wish.at_ms > 7));
        let successor = Some(Box::new(container));
        let leaving = AppRecord { successor, deleting: true, ..first };
        let AppChange::Put(next) = after(Some(&leaving), 8) else { panic!("it is next") };
        assert!(next.generation == 8 && !next.deleting && next.container.is_some());
        assert!(matches!(after(None, 9), AppChange::Remove));
    }
}
