//! The loop: compare, mend, wait.

use super::diff::{self, Key, Op, Plan};
use super::instance::{Begin, supervise};
use super::record::{AppRecord, Release};
use super::shared::{Cell, Shared, State, Supervised, now_ms};
use super::staging;
use crate::exec::cancel;
use crate::log::chain;
use crate::model::lrp::{DesiredLrp, ProcessGuid};
use crate::stage::recipe;
use crate::unit::AppName;
use smol::future;
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

/// Stagings at a time: more would only take memory and disk from each other.
const STAGING_MAX: usize = 2;

impl Cell {
    /// Compares and mends for ever. Cheap when nothing has changed: it sleeps until woken or until
    /// the next crashed instance is due.
    pub async fn converge(&self) {
        let shared = &self.shared;
        loop {
            let due_ms = shared.round().await;
            let due = async {
                match due_ms {
                    Some(at) => {
                        let wait = Duration::from_millis(at.saturating_sub(now_ms()).max(1));
                        async_io::Timer::after(wait).await;
                    }
                    None => future::pending().await,
                }
            };
            future::or(due, async {
                let _ = shared.woken.recv().await;
            })
            .await;
        }
    }
}

impl Shared {
    /// One comparison, and the beginning of everything that it asks for.
    async fn round(self: &Arc<Self>) -> Option<u64> {
        self.begin_staging();
        self.finish_deletions().await;
        let (plan, desired, published) = {
            let state = self.state();
            if state.closing {
                return None;
            }
            let desired = desired(&state.apps);
            let supervised = stopping(&state);
            let plan = diff::diff(&desired, &state.actual, &supervised, now_ms());
            // Those that are about to stop leave their ports before they are told.
            let mut after = supervised;
            plan.ops.iter().for_each(|op| {
                if let Op::Stop(key) = op {
                    after.insert(key.clone(), true);
                }
            });
            let published = diff::published(&desired, &state.actual, &after);
            (plan, desired, published)
        };
        let net = self.host.net();
        let published = published
            .into_iter()
            .map(|(port, behind)| {
                let at = |(slot, inside)| (net.addresses(slot).container, inside);
                (port, behind.into_iter().map(at).collect())
            })
            .collect();
        self.publish(published).await;
        let due_ms = plan.due_ms;
        self.act(plan, &desired);
        due_ms
    }

    /// Begins what the plan asks for.
    fn act(self: &Arc<Self>, plan: Plan, desired: &BTreeMap<ProcessGuid, DesiredLrp>) {
        for op in plan.ops {
            match op {
                Op::Stop(key) => {
                    if let Some(work) = self.state().supervised.get_mut(&key) {
                        work.stopping = true;
                        work.canceller.cancel();
                    }
                }
                Op::Forget(key) => {
                    self.put_actual(&key, None);
                    // It may have been the last thing that a deletion waited for.
                    self.wake();
                }
                Op::Start(key) => {
                    let release =
                        self.state().apps.get(&key.0.app).and_then(|app| app.release.clone());
                    if let (Some(lrp), Some(release)) = (desired.get(&key.0), release) {
                        self.begin(key, lrp.clone(), Begin::Fresh(Box::new(release)));
                    }
                }
            }
        }
    }

    /// Begins to work on an instance.
    pub(super) fn begin(self: &Arc<Self>, key: Key, lrp: DesiredLrp, begin: Begin) {
        let (canceller, cancel) = cancel::pair();
        let work = Supervised { canceller, stopping: false, container: None };
        self.state().supervised.insert(key.clone(), work);
        smol::spawn(supervise(self.clone(), key, lrp, begin, cancel)).detach();
    }

    /// Makes the kernel's published ports what they shall be; only differences are written.
    async fn publish(self: &Arc<Self>, wanted: BTreeMap<u16, Vec<(Ipv4Addr, u16)>>) {
        let mut changes: Vec<(u16, Vec<(Ipv4Addr, u16)>)> = Vec::new();
        {
            let state = self.state();
            for port in wanted.keys().chain(state.published.keys()).collect::<BTreeSet<_>>() {
                let behind = wanted.get(port).cloned().unwrap_or_default();
                if state.published.get(port).unwrap_or(&Vec::new()) != &behind {
                    changes.push((*port, behind));
                }
            }
        }
        for (port, behind) in changes {
            let (inner, there) = (self.clone(), behind.clone());
            match smol::unblock(move || inner.host.net().publish(port, &there)).await {
                Ok(()) if behind.is_empty() => drop(self.state().published.remove(&port)),
                Ok(()) => drop(self.state().published.insert(port, behind)),
                Err(err) => crate::error!("port.unpublished", port = port, err = chain(&err)),
            }
        }
    }

    /// Begins to stage what was declared and is not staged yet.
    fn begin_staging(self: &Arc<Self>) {
        let mut state = self.state();
        if state.closing {
            return;
        }
        let waiting: Vec<(AppName, AppRecord)> = state
            .apps
            .iter()
            .filter(|(name, app)| {
                let decided = app.staged == Some(app.generation);
                !app.deleting && !app.stopped && !decided && !state.staging.contains_key(*name)
            })
            .map(|(name, app)| (name.clone(), app.clone()))
            .collect();
        for (name, app) in waiting {
            if state.staging.len() >= STAGING_MAX {
                break;
            }
            let (canceller, cancel) = cancel::pair();
            state.staging.insert(name.clone(), canceller);
            let shared = self.clone();
            let work = async move {
                let outcome = staging::stage(&shared, &app, &cancel).await;
                shared.staged(&name, app.generation, outcome);
            };
            smol::spawn(work).detach();
        }
    }

    /// Records how staging ended.
    fn staged(&self, name: &AppName, generation: u64, outcome: Result<Release, String>) {
        let current = {
            let mut state = self.state();
            state.staging.remove(name);
            state.apps.get(name).cloned()
        };
        // Deleted, stopped or declared anew meanwhile: this outcome is not the last word.
        let Some(mut app) = current.filter(|app| app.generation == generation && !app.deleting)
        else {
            return self.wake();
        };
        if app.stopped {
            return self.wake();
        }
        app.staged = Some(generation);
        match outcome {
            Ok(release) => {
                self.say(name, "STG", false, "Staging complete");
                crate::info!("app.staged", app = name);
                app.failure = None;
                app.release = Some(release);
            }
            Err(why) => {
                self.say(name, "STG", true, format!("Staging failed: {why}"));
                crate::warn!("app.unstaged", app = name, err = why);
                app.failure = Some(why);
            }
        }
        if let Err(err) = self.put_app(name, app) {
            crate::error!("record.refused", app = name, err = err);
        }
        self.wake();
    }

    /// Removes apps that are on their way out and of which nothing runs any more.
    async fn finish_deletions(self: &Arc<Self>) {
        let gone: Vec<AppName> = {
            let state = self.state();
            let busy = |name: &AppName| {
                state.staging.contains_key(name)
                    || state.supervised.keys().any(|key| key.0.app == *name)
                    || state.actual.keys().any(|key| key.0.app == *name)
            };
            let leaving = state.apps.iter().filter(|(name, app)| app.deleting && !busy(name));
            leaving.map(|(name, _)| name.clone()).collect()
        };
        for name in gone {
            let (inner, app) = (self.clone(), name.clone());
            smol::unblock(move || inner.remove_files(&app)).await;
            if let Err(err) = self.store.put_app(&name, None) {
                crate::error!("record.refused", app = name, err = chain(&err));
                continue;
            }
            self.state().apps.remove(&name);
            crate::info!("app.deleted", app = name);
            let inner = self.clone();
            smol::unblock(move || inner.collect_layers()).await;
            self.wake();
        }
    }

    /// Log and build cache of a deleted app. Blocking.
    fn remove_files(&self, name: &AppName) {
        if let Err(err) = self.logs.remove(name) {
            crate::warn!("log.left", app = name, err = err);
        }
        let cache = self.paths.cache.join("staging").join(name.as_str());
        match std::fs::remove_dir_all(&cache) {
            Err(err) if err.kind() != std::io::ErrorKind::NotFound => {
                crate::warn!("cache.left", app = name, err = err);
            }
            _ => {}
        }
    }

    /// Removes layers that no release, no container and no stack of the box refers to. Left out
    /// while something is staged: its layers are not in the records yet. Blocking.
    pub(super) fn collect_layers(&self) {
        let mut used = BTreeSet::new();
        {
            let state = self.state();
            if !state.staging.is_empty() {
                return;
            }
            let releases = state.apps.values().filter_map(|app| app.release.as_ref());
            used.extend(releases.flat_map(|release| [release.stack, release.droplet]));
        }
        for handle in self.host.list().unwrap_or_default() {
            if let Ok(Some(entry)) = self.host.entry(&handle) {
                used.extend(entry.spec.layers);
            }
        }
        let store = self.host.store();
        let stacks = std::fs::read_dir(&self.paths.stacks).into_iter().flatten().flatten();
        used.extend(stacks.filter_map(|item| crate::image::known_stack(store, &item.path())));
        if let Err(err) = crate::image::collect(store, &used) {
            crate::warn!("layer.left", err = chain(&err));
        }
    }
}

/// Every LRP that shall be, from the apps' releases.
pub(super) fn desired(apps: &BTreeMap<AppName, AppRecord>) -> BTreeMap<ProcessGuid, DesiredLrp> {
    let mut all = BTreeMap::new();
    for app in apps.values().filter(|app| !app.stopped && !app.deleting) {
        let Some(release) = &app.release else { continue };
        for mut lrp in lrps(release, app.restarts) {
            if let Some(instances) = app.scale.get(&lrp.guid.process) {
                lrp.instances = *instances;
            }
            all.insert(lrp.guid.clone(), lrp);
        }
    }
    all
}

/// The LRPs of one release. Staging has seen that every process has a start command.
pub(super) fn lrps(release: &Release, restarts: u64) -> Vec<DesiredLrp> {
    let Release { manifest, result, droplet, .. } = release;
    recipe::desired_lrps(manifest, result, *droplet, restarts).unwrap_or_default()
}

/// Who is worked on, and whether it is on its way out.
pub(super) fn stopping(state: &State) -> BTreeMap<Key, bool> {
    state.supervised.iter().map(|(key, work)| (key.clone(), work.stopping)).collect()
}
