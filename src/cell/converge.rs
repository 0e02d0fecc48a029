//! The loop: compare, mend, wait.

use super::autopsy::stopper;
use super::diff::{self, Key, Op, Plan, World};
use super::lrp_state::LrpEvent;
use super::queue;
use super::record::{AppRecord, Release};
use super::shared::{AppChange, Cell, Shared, State, now_ms};
use super::staging::Unstaged;
use super::stand::held;
use super::{app_task, away, by_record, pulse, releases, revisions, staging};
use crate::exec::cancel;
use crate::exec::metrics::COUNTERS;
use crate::log::chain;
use crate::model::death::Stopper;
use crate::model::lrp::{DesiredLrp, ProcessGuid};
use crate::net::RuleWatch;
use crate::stage::{docker, recipe};
use crate::unit::{AppName, Digest};
use async_io::Async;
use smol::future;
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// From a port that could not be published to the next try.
const PUBLISH_AGAIN_MS: u64 = 5_000;

/// From one look at the clock to the next.
const CLOCK: Duration = Duration::from_secs(30);

/// Stagings at a time: more would only take memory and disk from each other.
pub(super) const STAGING_MAX: usize = 2;

impl Cell {
    /// Compares and mends for ever. Cheap when nothing has changed: it sleeps until woken or until
    /// the next crashed instance is due.
    pub async fn converge(&self) {
        let shared = &self.shared;
        let mut asker = None;
        loop {
            let begun = Instant::now();
            let due_ms = shared.round().await;
            COUNTERS.syncs.add(begun, true);
            pulse::answer(asker);
            let due = async {
                match due_ms {
                    Some(at) => {
                        let wait = Duration::from_millis(at.saturating_sub(now_ms()).max(1));
                        async_io::Timer::after(wait).await;
                        None
                    }
                    None => future::pending().await,
                }
            };
            let woken = async {
                let _ = shared.woken.recv().await;
                None
            };
            // Whatever is told of times meanwhile is of the clock as it was looked at last.
            let clock = async {
                async_io::Timer::after(CLOCK).await;
                None
            };
            let asked = future::or(woken, shared.pulse.asked());
            asker = future::or(due, future::or(asked, clock)).await;
        }
    }
}

/// Changes of the box's packet rules this close together are looked at once.
const RULES_SETTLE: Duration = Duration::from_millis(200);

impl Cell {
    /// Puts the rules of containers and published ports back when somebody has emptied the box's
    /// packet rules; never ends. Until it has, containers would reach the box itself.
    pub async fn guard_rules(&self) {
        let watch = match RuleWatch::open().map_err(std::io::Error::other).and_then(Async::new) {
            Ok(watch) => watch,
            Err(err) => {
                crate::error!("net.rules_unwatched", err = chain(&err));
                return future::pending().await;
            }
        };
        while watch.readable().await.is_ok() {
            async_io::Timer::after(RULES_SETTLE).await;
            watch.get_ref().drain();
            let inner = self.shared.clone();
            match smol::unblock(move || inner.host.mend_rules()).await {
                Ok(false) => {}
                Ok(true) => {
                    crate::warn!("net.rules_mended");
                    self.shared.state().published.clear();
                    self.shared.wake();
                }
                Err(err) => crate::error!("net.rules_lost", err = chain(&err)),
            }
        }
    }
}

impl Shared {
    /// One comparison, and the beginning of everything that it asks for.
    async fn round(self: &Arc<Self>) -> Option<u64> {
        self.mind_the_clock().await;
        self.begin_staging();
        self.finish_deletions().await;
        self.make_afresh().await;
        let judge_ms = self.judge_releases().await;
        let away_ms = self.state().away.next_ms(now_ms());
        let mut due_ms = judge_ms.into_iter().chain(self.drain_on()).chain(away_ms).min();
        let (plan, desired) = {
            let mut state = self.state();
            if state.closing {
                return None;
            }
            let desired = desired(&state.apps);
            let (supervised, held) = (stopping(&state), held(&state, &desired));
            let trial = releases::on_trial(&state.apps);
            let world = world(&state, &desired, &supervised, (&held, &trial));
            let plan = diff::diff(&world, now_ms());
            // Those that are about to stop leave their ports before they are told. Why is known now: when they
            // have ended they may be wanted again.
            let State { supervised, apps, .. } = &mut *state;
            for op in &plan.ops {
                if let Op::Stop(key) | Op::MakeRoom(key) = op
                    && let Some(work) = supervised.get_mut(key)
                {
                    let (app, wanted) = (apps.get(&key.0.app), desired.get(&key.0));
                    work.leave(stopper(app, wanted, (key, &work.version), work.stopper));
                }
            }
            (plan, desired)
        };
        due_ms = due_ms.into_iter().chain(plan.due_ms).min();
        if !self.publish().await {
            let again = now_ms() + PUBLISH_AGAIN_MS;
            due_ms = Some(due_ms.map_or(again, |due| due.min(again)));
        }
        self.tell_leaving();
        if let Some(again) = self.act(plan, &desired).await {
            due_ms = Some(due_ms.map_or(again, |due| due.min(again)));
        }
        if let Some(again) = self.tend_tasks().await {
            due_ms = Some(due_ms.map_or(again, |due| due.min(again)));
        }
        self.sweep_litter().await;
        due_ms
    }

    /// Begins what the plan asks for. When to look again, if something of it has to wait for what
    /// nobody announces.
    async fn act(
        self: &Arc<Self>,
        plan: Plan,
        desired: &BTreeMap<ProcessGuid, DesiredLrp>,
    ) -> Option<u64> {
        let mut again: Option<u64> = None;
        let ops = queue::in_turn(plan.ops, desired, &self.state().actual);
        for op in ops {
            match op {
                Op::Stop(key) => self.cancel(&key),
                Op::MakeRoom(key) => {
                    let text = format!(
                        "The box has no room for two: instance {}/{} stops before its new version \
                         starts",
                        key.0, key.1
                    );
                    self.logs.app(&key.0.app).write("CELL", key.1, false, text);
                    self.cancel(&key);
                }
                Op::Wait(key, why) => {
                    if let Some(lrp) = desired.get(&key.0) {
                        self.wait_for_app(&key, &lrp.version, &why);
                    }
                }
                Op::Forget(key) => {
                    self.state().waiting.forget(&key);
                    self.forget(&key).await;
                    // It may have been the last thing that a deletion waited for.
                    self.wake();
                }
                Op::Start(key) => {
                    let release =
                        self.state().apps.get(&key.0.app).and_then(|app| app.release.clone());
                    if let (Some(lrp), Some(release)) = (desired.get(&key.0), release) {
                        let later = self.place(key, lrp, release).await;
                        again = again.into_iter().chain(later).min();
                    }
                }
            }
        }
        again
    }

    /// Marks the instances that are to be made afresh, and forgets those that nobody works on: the
    /// round makes them anew, whatever they had to wait for.
    async fn make_afresh(self: &Arc<Self>) {
        let forgotten: Vec<Key> = {
            let mut state = self.state();
            let asked = std::mem::take(&mut state.afresh);
            let (working, resting): (Vec<_>, Vec<_>) =
                asked.into_iter().partition(|key| state.supervised.contains_key(key));
            for key in working {
                if let Some(work) = state.supervised.get_mut(&key) {
                    work.leave(Stopper::RestartIndex);
                }
            }
            resting.into_iter().filter(|key| state.actual.contains_key(key)).collect()
        };
        for key in forgotten {
            self.forget(&key).await;
        }
    }

    /// Tells the supervisors of those that are to end, whatever the plan says: they have left their
    /// ports by now.
    fn tell_leaving(&self) {
        let state = self.state();
        let leaving = state.supervised.values().filter(|work| work.stopper.is_some());
        leaving.for_each(|work| work.canceller.cancel());
    }

    /// Tells an instance's supervisor to end it.
    fn cancel(&self, key: &Key) {
        if let Some(work) = self.state().supervised.get(key) {
            work.canceller.cancel();
        }
    }

    /// Forgets an instance that nobody works on.
    async fn forget(self: &Arc<Self>, key: &Key) {
        let place = {
            let state = self.state();
            state.actual.get(key).and_then(|record| record.place().cloned())
        };
        self.happen(key, LrpEvent::Remove(place.map(|place| place.handle))).await;
    }

    /// Makes the kernel's published ports what they shall be; only differences are written.
    /// `false`: one of them could not be.
    pub(super) async fn publish(self: &Arc<Self>) -> bool {
        let _turn = self.publishing.lock().await;
        let mut changes: Vec<(u16, Vec<(Ipv4Addr, u16)>)> = Vec::new();
        {
            let state = self.state();
            let mut wanted = desired(&state.apps);
            let before = before(&state.apps);
            by_record::share_ports(&state, &mut wanted);
            let wanted = diff::published(&wanted, &before, &state.actual, &stopping(&state));
            let at = |(slot, inside)| (self.host.net().addresses(slot).container, inside);
            let wanted: BTreeMap<u16, Vec<_>> = wanted
                .into_iter()
                .map(|(port, behind)| (port, behind.into_iter().map(at).collect()))
                .collect();
            for port in wanted.keys().chain(state.published.keys()).collect::<BTreeSet<_>>() {
                let behind = wanted.get(port).cloned().unwrap_or_default();
                if state.published.get(port).unwrap_or(&Vec::new()) != &behind {
                    changes.push((*port, behind));
                }
            }
        }
        let mut done = true;
        for (port, behind) in changes {
            let (inner, there) = (self.clone(), behind.clone());
            match smol::unblock(move || inner.host.net().publish(port, &there)).await {
                Ok(()) if behind.is_empty() => drop(self.state().published.remove(&port)),
                Ok(()) => drop(self.state().published.insert(port, behind)),
                Err(err) => {
                    crate::error!("port.unpublished", port = port, err = chain(&err));
                    done = false;
                }
            }
        }
        done
    }

    /// Takes note of the ports that an earlier daemon has published, whatever stands behind them:
    /// the next [`Shared::publish`] writes all of them anew.
    pub(super) fn distrust_published(&self) {
        let ports = match self.host.net().published_ports() {
            Ok(ports) => ports,
            Err(err) => return crate::warn!("port.unknown", err = chain(&err)),
        };
        let nobody = || vec![(Ipv4Addr::UNSPECIFIED, 0)];
        self.state().published = ports.into_iter().map(|port| (port, nobody())).collect();
    }

    /// Begins to stage what was declared and is not staged yet.
    fn begin_staging(self: &Arc<Self>) {
        let mut state = self.state();
        // They wait until something new is begun again.
        if state.closing || self.refusal(&state).is_some() {
            return;
        }
        {
            let State { away, apps, .. } = &mut *state;
            away.retain(|name| apps.get(name).is_some_and(away::is_retried));
        }
        let (preloading, now) = (state.preloading, now_ms());
        let waiting: Vec<(AppName, AppRecord)> = state
            .apps
            .iter()
            .filter(|(name, app)| {
                let is_wanted = match app.staged == Some(app.generation) {
                    false => true,
                    true => away::is_retried(app) && state.away.is_due(name, now),
                };
                !app.deleting && !app.stopped && is_wanted && !state.staging.contains_key(*name)
            })
            // Its image may be on its way here without a network. It takes nobody's turn meanwhile.
            .filter(|(_, app)| !preloading || !self.lacks_image(app))
            .map(|(name, app)| (name.clone(), app.clone()))
            .collect();
        // One that is tried again may take long, and be in vain: the other turns are for what is new.
        let retried = |name: &AppName| state.apps.get(name).is_some_and(away::is_retried);
        let retried = state.staging.keys().any(retried);
        let turn: Vec<_> = away::in_turn(waiting, retried, |name| state.away.at_ms(name)).collect();
        for (name, app) in turn {
            if state.staging.len() >= STAGING_MAX {
                break;
            }
            let (canceller, cancel) = cancel::pair();
            state.staging.insert(name.clone(), canceller);
            let shared = self.clone();
            let work = async move {
                let outcome = staging::stage(&shared, &app, &cancel).await;
                shared.staged(&name, app.generation, outcome, cancel.is_cancelled()).await;
            };
            smol::spawn(work).detach();
        }
    }

    /// Records how staging ended. `stopped`: it was told to end, so its failure is nobody's fault; nor
    /// is one that comes while the daemon ends, which breaks off what it does: the next one begins anew.
    async fn staged(
        self: &Arc<Self>,
        name: &AppName,
        generation: u64,
        outcome: Result<Release, Unstaged>,
        stopped: bool,
    ) {
        let mut decided = None;
        let recorded = self.change_app(name, |state| {
            // Deleted, stopped or declared anew meanwhile: this outcome is not the last word.
            let broken_off = stopped || (state.closing && outcome.is_err());
            let lasts = |app: &&AppRecord| {
                app.generation == generation && !app.deleting && !app.stopped && !broken_off
            };
            let Some(app) = state.apps.get(name).filter(lasts) else {
                return Ok(AppChange::Keep);
            };
            let mut app = app.clone();
            app.staged = Some(generation);
            match outcome {
                Ok(release) => {
                    if app.container.is_none() {
                        self.say(name, "STG", false, "Staging complete");
                    }
                    crate::info!("app.staged", app = name);
                    (app.failure, app.away) = (None, false);
                    app.hooked = release.hooked(generation);
                    revisions::replace(&mut app, release, now_ms());
                }
                Err(Unstaged { why, is_away }) => {
                    let again = if is_away { "; it is tried again by itself" } else { "" };
                    self.say(name, "STG", true, format!("Staging failed: {why}{again}"));
                    crate::warn!("app.unstaged", app = name, err = why);
                    (app.failure, app.away) = (Some(why), is_away);
                }
            }
            decided = Some(app.clone());
            Ok(AppChange::Put(Box::new(app)))
        });
        let recorded = recorded.await;
        let mut state = self.state();
        if let Some(app) = decided.as_ref().filter(|app| away::is_retried(app)) {
            state.away.failed(name, app.container.is_some(), now_ms());
        }
        state.litter |= leaves_litter(decided.as_ref());
        if let (Err(err), Some(mut app)) = (recorded, decided) {
            crate::error!("record.refused", app = name, err = err);
            // Kept in memory only, or it would be staged again and again.
            (app.failure, app.away) = (Some(err.to_string()), false);
            state.apps.insert(name.clone(), app);
        }
        // Until here: layers that no record names yet are not swept while something is staged.
        state.staging.remove(name);
        state.fetched.remove(name);
        drop(state);
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
            // The daemon that was asked to delete it may have died before it came to them.
            Cell { shared: self.clone() }.cancel_app_tasks(name.as_str()).await;
            let (inner, app) = (self.clone(), name.clone());
            smol::unblock(move || inner.remove_files(&app)).await;
            let next = |state: &State| {
                Ok(by_record::after(state.apps.get(&name), state.next_generation()))
            };
            if let Err(err) = self.change_app(&name, next).await {
                crate::error!("record.refused", app = name, err = err);
                continue;
            }
            self.state().litter = true;
            crate::info!("app.deleted", app = name);
        }
    }

    /// Removes layers that are of no more use, once no instance of an older version is left.
    async fn sweep_litter(self: &Arc<Self>) {
        {
            let mut state = self.state();
            let wanted = desired(&state.apps);
            let settled = state.supervised.iter().all(|(key, work)| {
                wanted.get(&key.0).is_some_and(|lrp| lrp.version == work.version)
            });
            if !state.litter || !settled || !state.staging.is_empty() || state.closing {
                return;
            }
            state.litter = false;
        }
        let inner = self.clone();
        smol::unblock(move || {
            inner.collect_layers();
            inner.collect_sources(false);
        })
        .await;
        // The store has room again for whoever waits for it.
        self.state().waiting.room_returned();
        self.wake();
    }

    /// Log and build cache of a deleted app. Blocking.
    fn remove_files(&self, name: &AppName) {
        if let Err(err) = self.logs.remove(name) {
            crate::warn!("log.left", app = name, err = err);
        }
        self.remove_sources(name);
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
        if let Err(err) =
            crate::image::collect(self.host.store(), &self.keep, || self.used_layers())
        {
            crate::warn!("layer.left", err = chain(&err));
        }
    }

    /// The layers that something refers to; `None` while that cannot be told.
    pub(super) fn used_layers(&self) -> Option<BTreeSet<Digest>> {
        // Let go of again: the layers are told from the same state.
        let is_staging = !self.state().staging.is_empty();
        if is_staging { None } else { self.layers_of_all() }
    }

    /// The same whether something is being staged or not: of that, only the layers of an image are
    /// kept otherwise, by a pin.
    pub(super) fn layers_of_all(&self) -> Option<BTreeSet<Digest>> {
        let mut used = BTreeSet::new();
        {
            let state = self.state();
            used.extend(state.apps.values().flat_map(AppRecord::kept).flat_map(Release::layers));
            used.extend(app_task::layers(&state.tasks));
            used.extend(state.set_aside.values().flat_map(|unread| &unread.digests));
        }
        let unknown = |err| crate::warn!("layer.all_kept", err = chain(&err));
        for handle in self.host.list().map_err(unknown).ok()? {
            // An entry that is gone by now was of a container that is; one that cannot be read
            // may be of one that runs.
            if let Some(entry) = self.host.entry(&handle).map_err(unknown).ok()? {
                used.extend(entry.spec.layers);
                used.extend(entry.spec.trees);
            }
            let peas = self.host.pea_layers(&handle).map_err(unknown).ok()?;
            used.extend(peas.into_iter().flatten());
        }
        let store = self.host.store();
        let stacks = self.site().stack_archives().into_iter();
        used.extend(stacks.filter_map(|path| crate::image::known_stack(store, &path)));
        Some(used)
    }
}

/// Whether a staging may have left layers that nobody needs; `decided`: what it has made of its app, if
/// that counts. One that got nothing has left nothing, and a sweep would take from the next try what it
/// finds there.
fn leaves_litter(decided: Option<&AppRecord>) -> bool {
    decided.is_none_or(|app| !away::is_retried(app))
}

/// Every LRP that shall be, from the apps' releases.
pub fn desired(apps: &BTreeMap<AppName, AppRecord>) -> BTreeMap<ProcessGuid, DesiredLrp> {
    let running = apps.values().filter(|app| !app.stopped && !app.deleting);
    let all = running.flat_map(releases::desired);
    all.map(|lrp| (lrp.guid.clone(), lrp)).collect()
}

/// Every LRP of the versions that are on their way out.
fn before(apps: &BTreeMap<AppName, AppRecord>) -> Vec<DesiredLrp> {
    apps.values().flat_map(releases::before).collect()
}

/// The LRPs of one release. Staging has seen that every process has a start command.
pub(super) fn lrps(release: &Release, restarts: u64) -> Vec<DesiredLrp> {
    let Release { manifest, result, droplet, image, container, .. } = release;
    if let Some(container) = container {
        return vec![by_record::lrp(
            &manifest.name,
            container,
            (*droplet, image.as_ref()),
            restarts,
        )];
    }
    let lrps = match image {
        Some(image) => docker::desired_lrps(manifest, result, image, restarts),
        None => recipe::desired_lrps(manifest, result, *droplet, restarts),
    };
    lrps.unwrap_or_default()
}

/// Who is worked on, and whether it is on its way out.
pub(super) fn stopping(state: &State) -> BTreeMap<Key, bool> {
    state.supervised.iter().map(|(key, work)| (key.clone(), work.stopping)).collect()
}

/// All that a plan follows from; last, who waits for others and who may go back.
pub(super) fn world<'a>(
    state: &'a State,
    desired: &'a BTreeMap<ProcessGuid, DesiredLrp>,
    supervised: &'a BTreeMap<Key, bool>,
    (held, trial): (&'a BTreeMap<AppName, String>, &'a BTreeSet<AppName>),
) -> World<'a> {
    let no_room = state.waiting.no_room();
    let node = state.node.node();
    let closed = node.is_draining || node.unhealthy.is_some();
    World { desired, actual: &state.actual, supervised, no_room, closed, held, trial }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_try_that_got_nothing_leaves_nothing_to_sweep() {
        let app = super::super::releases::tests::app("memory = \"32MiB\"");
        let failed = |away| AppRecord {
            staged: Some(app.generation),
            failure: Some("nobody gave it".into()),
            away,
            ..app.clone()
        };
        assert!(leaves_litter(None), "it was stopped half-way");
        assert!(leaves_litter(Some(&app)), "it replaces another one");
        assert!(leaves_litter(Some(&failed(false))), "its hook may have refused what was made");
        assert!(!leaves_litter(Some(&failed(true))));
        let container = Some(Box::new(super::super::releases::tests::container()));
        assert!(!leaves_litter(Some(&AppRecord { container, ..failed(false) })));
    }
}
