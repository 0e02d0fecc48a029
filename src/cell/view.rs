//! What people see of apps.

use super::claims::claims;
use super::converge::{STAGING_MAX, desired, stopping};
use super::diff::Key;
use super::error::{CellError, Kind};
use super::lacking::lacking;
use super::record::{AppRecord, Release};
use super::shared::{Cell, Shared, State, now_ms};
use super::waits::{self, Held, Seen};
use super::worked_on::Supervised;
use super::{diff, releases, rollout};
use crate::container::Container;
use crate::exec::metrics::Used;
use crate::model::lrp::{ActualLrp, DesiredLrp, LrpState};
use crate::model::manifest::{Image, Process, Ssh};
use crate::model::task::TaskState;
use crate::model::view::{AppView, InstanceView, PortView, ProcessView, SshView, WHOLE_BOX};
use crate::model::work::SSH_PORT;
use crate::stage::types;
use crate::unit::{AppName, span};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

impl Cell {
    /// Every app, by name.
    pub async fn apps(&self) -> Vec<AppView> {
        let (views, containers) = {
            let state = self.shared.state();
            let views = state.apps.values().map(|app| view(&self.shared, &state, app)).collect();
            (views, containers(&state))
        };
        self.measure(views, containers).await
    }

    /// One app.
    pub async fn app(&self, name: &str) -> Result<AppView, CellError> {
        let view = self.glance(name)?;
        let containers = containers(&self.shared.state());
        let mut views = self.measure(vec![view], containers).await;
        Ok(views.remove(0))
    }

    /// One app without what it uses: that would have to be read from files.
    pub fn glance(&self, name: &str) -> Result<AppView, CellError> {
        let state = self.shared.state();
        let found = state.apps.iter().find(|(app, _)| app.as_str() == name);
        let (_, app) = found.ok_or_else(|| CellError::no_app(name))?;
        Ok(view(&self.shared, &state, app))
    }

    /// Which declaration of an app counts; `None`: there is no such app.
    pub fn declaration(&self, name: &AppName) -> Option<u64> {
        self.shared.state().apps.get(name).map(|app| app.generation)
    }

    /// The app is gone, or nothing of it runs and nothing starts by itself: its log has ended.
    pub fn is_over(&self, name: &AppName) -> bool {
        let state = self.shared.state();
        let Some(app) = state.apps.get(name) else {
            let mut tasks = state.tasks.values().filter(|it| it.task.app == *name);
            return tasks.all(|it| matches!(it.state, TaskState::Completed | TaskState::Resolving));
        };
        let decided = app.stopped || (app.staged == Some(app.generation) && !app.away);
        let busy = state.staging.contains_key(name)
            || state.supervised.keys().any(|key| key.0.app == *name);
        let wanted = desired(&state.apps);
        let mut mine = wanted.values().filter(|lrp| lrp.guid.app == *name);
        decided && !busy && !app.deleting && mine.all(|lrp| diff::rests(lrp, &state.actual))
    }

    /// What somebody who waits for an app gives up first, and when; `None`: there is no such app. `seen`:
    /// what he has seen until now.
    pub fn held_up(&self, name: &AppName, seen: &mut Seen) -> Option<Held> {
        let state = self.shared.state();
        let app = state.apps.get(name)?;
        let is_wanted = !app.stopped && !app.deleting;
        let lrps = if is_wanted { releases::desired(app) } else { Vec::new() };
        let (before, supervised) = (releases::before(app), stopping(&state));
        let said = |key: &Key| state.supervised.get(key).and_then(|work| work.unready.clone());
        let facts = waits::Facts {
            lrps: &lrps,
            before: &before,
            actual: &state.actual,
            supervised: &supervised,
            said: &said,
            closed: self.shared.refusal(&state).map(|why| why.to_string()),
            on_trial: releases::is_on_trial(app),
            now_ms: now_ms(),
            now: Instant::now(),
        };
        Some(waits::held(&facts, seen))
    }

    /// Adds what instances use. On the pool: a few files of the kernel for each of them.
    async fn measure(
        &self,
        mut views: Vec<AppView>,
        containers: BTreeMap<String, Arc<Container>>,
    ) -> Vec<AppView> {
        let shared = self.shared.clone();
        let turn = shared.pools.metrics.enter().await;
        smol::unblock(move || {
            // Whoever asked may have left: the work goes on, and so does its turn.
            let _turn = turn;
            let processes = views.iter_mut().flat_map(|app| &mut app.processes);
            for one in processes.flat_map(|process| &mut process.instances) {
                let Some(handle) = &one.handle else { continue };
                let stats = containers.get(handle).and_then(|container| container.stats().ok());
                one.memory_bytes = stats.as_ref().map(|stats| stats.memory_bytes.get());
                one.cpu_ns = stats.as_ref().map(|stats| stats.cpu_ns);
                one.pids = stats.as_ref().map(|stats| stats.pids);
                let looked =
                    containers.get(handle).zip(one.cpu_ns).and_then(|(container, cpu_ns)| {
                        let logged_bytes = logged(&shared, handle);
                        shared.meter.look(container, Used { cpu_ns, logged_bytes })
                    });
                one.cpu_percent = looked.map(|share| share.cpu);
                let used = handle.parse().ok().and_then(|it| shared.host.store().used(&it).ok());
                one.disk_bytes = used.map(|bytes| bytes.get());
            }
            views
        })
        .await
    }
}

/// Refuses a process or an instance that `app` does not have, with what it has instead. One that
/// is wanted but not there is left to the caller, and so is any instance while none is wanted.
pub(super) fn expect(
    app: &AppView,
    process: Option<&str>,
    index: Option<u32>,
) -> Result<(), CellError> {
    let counts: Vec<_> = app.processes.iter().map(|it| (it.name.clone(), it.desired)).collect();
    let meant = |it: &&ProcessView| process.is_none_or(|name| it.name == name);
    // Those that are on their way out are there still.
    let mut there = app.processes.iter().filter(meant).flat_map(|it| &it.instances);
    let index = index.filter(|index| there.all(|one| one.index != *index));
    match lacking(("app", app.name.as_str()), &counts, process, index) {
        Some(text) => Err(CellError::new(Kind::NotFound, text)),
        None => Ok(()),
    }
}

/// Bytes that the instance in a container has logged.
fn logged(shared: &Shared, handle: &str) -> u64 {
    let state = shared.state();
    let is_in = |work: &&Supervised| {
        work.container.as_ref().is_some_and(|it| it.handle().as_str() == handle)
    };
    let limit = state.supervised.values().find(is_in).and_then(|work| work.limit.clone());
    limit.map_or(0, |limit| limit.logged_bytes())
}

/// Containers that somebody works on, by handle.
fn containers(state: &State) -> BTreeMap<String, Arc<Container>> {
    let containers = state.supervised.values().filter_map(|work| work.container.as_ref());
    containers.map(|container| (container.handle().to_string(), container.clone())).collect()
}

fn view(shared: &Shared, state: &State, app: &AppRecord) -> AppView {
    let current = app.release.as_ref();
    let manifest = current.map_or(&app.manifest, |release| &release.manifest);
    let made = releases::made(app);
    let wanted = desired(&state.apps);
    let mut all = current.map(Release::added).unwrap_or_default();
    let gone = app.gone();
    all.extend(gone.iter().map(|name| ((*name).clone(), types::idle(manifest))));
    all.extend(manifest.processes.clone());
    let processes: Vec<ProcessView> = all
        .iter()
        .map(|(name, declared)| {
            let lrp = made.iter().find(|lrp| lrp.guid.process == *name);
            let ends = || gone.contains(&name).then(|| without_command(&made, name)).flatten();
            let instances = match lrp {
                Some(lrp) => instances(shared, state, lrp),
                None => ends().map(|lrp| instances(shared, state, &lrp)).unwrap_or_default(),
            };
            let count = lrp
                .and_then(|lrp| wanted.get(&lrp.guid))
                .map(|lrp| lrp.instances)
                // It does not run as long as nothing says how it starts.
                .or(gone.contains(&name).then_some(0))
                .unwrap_or_else(|| planned(app, name, declared));
            ProcessView {
                name: name.clone(),
                desired: count,
                running: running(&instances),
                memory_bytes: declared.memory.get(),
                disk_bytes: declared.disk.get(),
                command: lrp.map(|lrp| shown_command(lrp, current)).unwrap_or_default(),
                instances,
                added: !manifest.processes.contains_key(name),
            }
        })
        .collect();
    AppView {
        name: app.manifest.name.clone(),
        state: match shared.refusal(state).is_some() && is_to_be_staged(state, app) {
            true => "waiting".to_owned(),
            false => summary(state, app, &processes).to_owned(),
        },
        reason: turn(shared, state, app).or_else(|| failure(state, app)),
        buildpack: current.filter(|release| release.image.is_none()).map(|release| {
            let known = &release.result.lifecycle_metadata;
            let names = [&known.detected_buildpack, &known.buildpack_key];
            names.into_iter().find(|name| !name.is_empty()).cloned().unwrap_or_default()
        }),
        stack: match manifest.image {
            Some(_) => String::new(),
            None => manifest.build.stack.clone(),
        },
        image: manifest.image.as_ref().map(|image| shown_image(image, current)),
        manifest: match &app.container {
            Some(container) => format!("container {}", container.guid),
            // What was pushed itself is no manifest.
            None if app.pushed.as_ref().is_some_and(|it| it.is_bare) => String::new(),
            None => app.file.display().to_string(),
        },
        refused: refused(state, app),
        pushed: app.pushed.as_ref().map(|it| it.what.clone()),
        temporary: app.temporary,
        claims: claims(app),
        published: app.manifest.published().collect(),
        ssh: manifest.ssh.as_ref().and_then(|ssh| shown_ssh(shared, app, ssh, &made)),
        processes,
    }
}

/// Why an app's file in the manifest directories is not followed as it is now.
fn refused(state: &State, app: &AppRecord) -> Option<String> {
    let why = state.refused.get(&app.file).filter(|_| app.container.is_none())?;
    // What is wrong with its text begins with the place.
    let gap = if why.starts_with(|first: char| first.is_ascii_digit()) { "" } else { " " };
    Some(format!("{}:{gap}{why}", app.file.display()))
}

/// How to come in. Before the first instance has asked for the host key there is no telling, nor when it
/// cannot be had, which that one's log says why of.
fn shown_ssh(shared: &Shared, app: &AppRecord, ssh: &Ssh, made: &[DesiredLrp]) -> Option<SshView> {
    let key = shared.host_keys.shown(&app.manifest.name)?;
    Some(SshView {
        user: made.first().map(|lrp| lrp.user.clone()).unwrap_or_default(),
        publish: ssh.publish,
        container: SSH_PORT,
        host_key: key.public_line(),
        fingerprint: key.fingerprint(),
    })
}

/// An image with the digest that it had when it was staged.
fn shown_image(image: &Image, current: Option<&Release>) -> String {
    let name = image.to_string();
    match current.and_then(|release| release.image.as_ref()) {
        Some(staged) if !name.contains('@') => format!("{name}@{}", staged.digest),
        _ => name,
    }
}

/// How a process starts, in words when it is the image itself that says so.
fn shown_command(lrp: &DesiredLrp, current: Option<&Release>) -> String {
    let types = current.map(|release| &release.result.process_types);
    let own = || types?.get(&lrp.guid.process).or(types?.get("web")).cloned();
    match lrp.command.is_empty() {
        true => own().unwrap_or_default(),
        false => lrp.command.clone(),
    }
}

/// Instances of a process that has not been staged, or is stopped.
fn planned(app: &AppRecord, name: &str, declared: &Process) -> u32 {
    if app.stopped {
        return 0;
    }
    let asked = app.scale.get(name).filter(|_| !app.lapses.contains(name));
    asked.copied().unwrap_or(declared.instances)
}

/// It would be staged, if anything new were begun.
fn is_to_be_staged(state: &State, app: &AppRecord) -> bool {
    let wants = app.staged != Some(app.generation) && !app.stopped && !app.deleting;
    wants && !state.staging.contains_key(&app.manifest.name)
}

/// What an app says that is to be staged while as many are as may be.
fn turn(shared: &Shared, state: &State, app: &AppRecord) -> Option<String> {
    let wants = app.staged != Some(app.generation) && !app.stopped && !app.deleting;
    if let (true, Some(why)) = (is_to_be_staged(state, app), shared.refusal(state)) {
        return Some(why.to_string());
    }
    let waits = wants
        && !state.staging.contains_key(&app.manifest.name)
        && state.staging.len() >= STAGING_MAX;
    waits.then(|| format!("waits for its turn: {STAGING_MAX} apps are staged at a time"))
}

/// Why it could not be staged, and when it is tried again, if it is.
fn failure(state: &State, app: &AppRecord) -> Option<String> {
    let why = app.failure.clone()?;
    match app.away {
        false => Some(why),
        // That is another try.
        true if state.staging.contains_key(&app.manifest.name) => None,
        true => {
            let at_ms = state.away.at_ms(&app.manifest.name).unwrap_or_default();
            let left = Duration::from_secs(at_ms.saturating_sub(now_ms()).div_ceil(1_000));
            let when = match left.is_zero() {
                true => "when its turn comes".to_owned(),
                false => format!("in {}", span::show(left)),
            };
            Some(format!("{why}; it is tried again {when}"))
        }
    }
}

/// One word for the whole app.
fn summary(state: &State, app: &AppRecord, processes: &[ProcessView]) -> &'static str {
    let any = |what: &str| {
        processes.iter().flat_map(|process| &process.instances).any(|one| one.state == what)
    };
    let stale = |lrp: &DesiredLrp| {
        let mut records = state.actual.values().filter(|record| record.guid == lrp.guid);
        records.any(|record| record.version != lrp.version)
    };
    let all = processes.iter().all(|process| process.settled() == process.desired)
        && !releases::made(app).iter().any(stale);
    let staging = state.staging.contains_key(&app.manifest.name)
        || (app.staged != Some(app.generation) && !app.stopped);
    let busy = state.supervised.keys().any(|key| key.0.app == app.manifest.name);
    match () {
        _ if app.deleting => "deleting",
        _ if app.stopped && busy => "stopping",
        _ if app.stopped => "stopped",
        _ if staging => "staging",
        _ if app.release.is_none() => "failed",
        _ if any("crashed") && !releases::is_on_trial(app) => "crashed",
        _ if any("waiting") => "waiting",
        _ if all && !any("running") && any("finished") => "finished",
        _ if all && processes.iter().any(|process| process.desired > 0) => "running",
        _ if all => "stopped",
        _ => "starting",
    }
}

/// Indices that have a healthy instance.
fn running(instances: &[InstanceView]) -> u32 {
    let running = instances.iter().filter(|one| one.state == "running").map(|one| one.index);
    running.collect::<BTreeSet<u32>>().len() as u32
}

/// A process that nothing says how to start any more, whose instances may be ending still.
fn without_command(made: &[DesiredLrp], name: &str) -> Option<DesiredLrp> {
    let mut lrp = made.first()?.clone();
    lrp.guid.process = name.to_owned();
    lrp.ports.clear();
    Some(lrp)
}

fn instances(shared: &Shared, state: &State, lrp: &DesiredLrp) -> Vec<InstanceView> {
    let records = state.actual.values().filter(|record| record.guid == lrp.guid);
    records.map(|record| instance(shared, state, lrp, record)).collect()
}

/// It asks for more than the whole box has.
fn is_too_large(record: &ActualLrp) -> bool {
    record.placement_error.iter().any(|why| why.contains(WHOLE_BOX))
}

fn instance(shared: &Shared, state: &State, lrp: &DesiredLrp, record: &ActualLrp) -> InstanceView {
    let key = (record.guid.clone(), record.index, record.side);
    let beside = (record.guid.clone(), record.index, record.side.other());
    let (name, place) = match &record.state {
        LrpState::Unclaimed
            if record.placement_error.is_some()
                && record.version == lrp.version
                // The one beside it makes room, where that is of any use.
                && (is_too_large(record)
                    || ![&key, &beside].iter().any(|one| state.supervised.contains_key(*one))) =>
        {
            ("waiting", None)
        }
        LrpState::Unclaimed => ("unclaimed", None),
        LrpState::Claimed(place) => ("starting", Some(place)),
        LrpState::Running(place) => ("running", Some(place)),
        // Whoever worked on it has recorded its end and only lets go of it.
        LrpState::Crashed { .. }
            if state.supervised.get(&key).is_none_or(|work| work.stopping)
                && rollout::is_done(lrp, record) =>
        {
            ("finished", None)
        }
        // Its next start is under way.
        LrpState::Crashed { .. }
            if state.supervised.contains_key(&key) || record.version != lrp.version =>
        {
            ("starting", None)
        }
        LrpState::Crashed { .. } => ("crashed", None),
    };
    let publish = |inside: u16| {
        lrp.ports.iter().find(|port| port.container == inside).and_then(|port| port.publish)
    };
    InstanceView {
        index: record.index,
        outdated: record.version != lrp.version,
        state: name.to_owned(),
        since_ms: record.since_ms,
        crash_count: record.crash_count,
        crash_reason: record.crash_reason.clone(),
        death: record.death.clone(),
        uptime_ms: (name == "running").then(|| now_ms().saturating_sub(record.since_ms)),
        placement_error: record.placement_error.clone(),
        handle: place.map(|place| place.handle.to_string()),
        address: place.map(|place| shared.host.net().addresses(place.slot).container.to_string()),
        ports: place.map_or_else(Vec::new, |place| {
            let ports = place.ports.iter();
            ports
                .map(|&(host, container)| PortView { container, host, publish: publish(container) })
                .collect()
        }),
        memory_bytes: None,
        disk_bytes: None,
        cpu_ns: None,
        cpu_percent: None,
        pids: None,
        ready: record.routable.filter(|_| record.runs()),
        unready: state
            .supervised
            .get(&key)
            .filter(|_| record.runs() && record.routable == Some(false))
            .and_then(|work| work.unready.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn app(processes: &[(&str, u32)]) -> AppView {
        let process = |&(name, desired): &(&str, u32)| ProcessView {
            name: name.into(),
            desired,
            running: 0,
            memory_bytes: 0,
            disk_bytes: 0,
            command: String::new(),
            added: false,
            instances: Vec::new(),
        };
        AppView {
            name: "two".parse().expect("name"),
            state: "running".into(),
            reason: None,
            buildpack: None,
            stack: "tiny".into(),
            image: None,
            manifest: "/two.toml".into(),
            refused: None,
            pushed: None,
            temporary: false,
            claims: Vec::new(),
            published: Vec::new(),
            ssh: None,
            processes: processes.iter().map(process).collect(),
        }
    }

    #[test]
    fn what_an_app_does_not_have_is_said_with_what_it_has() {
        let both = app(&[("web", 2), ("worker", 1)]);
        for (process, index, why) in [
            (None, None, None),
            (None, Some(1), None),
            (Some("worker"), Some(0), None),
            (None, Some(5), Some("no instance 5 of `two`: it has 0..1")),
            (Some("worker"), Some(1), Some("no instance 1 of `two:worker`: it has 0")),
            (Some("nope"), None, Some("app two has no process `nope`: it has web, worker")),
        ] {
            let found = expect(&both, process, index).err();
            assert!(found.iter().all(|err| err.kind == Kind::NotFound));
            assert_eq!(found.map(|err| err.text).as_deref(), why);
        }
        let one = expect(&app(&[("web", 1)]), Some("web"), Some(7)).err().map(|err| err.text);
        assert_eq!(one.as_deref(), Some("no instance 7 of `two`: it has 0"));
        // That it does not run is another answer, which knows more.
        assert!(expect(&app(&[("web", 0)]), Some("web"), Some(3)).is_ok());
    }
}
