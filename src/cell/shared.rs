//! What the loop, the supervisors and the API share.

use super::away::Away;
use super::converge::desired;
use super::diff::Key;
use super::drain::Draining;
use super::error::CellError;
use super::events::{Events, derive};
use super::lost::Lost;
use super::lrp_state::{self, LrpEvent};
use super::metrics::Meter;
use super::mounts;
use super::node::{NodeState, catch_up};
use super::placement::Waiting;
use super::pulse::Pulse;
use super::record::{self, AppRecord};
use super::settings::Settings;
use super::sources::Sent;
use super::ssh::HostKeys;
use super::store::{Begun, RecordStore, Records, Unread};
use super::tag;
use super::worked_on::{Supervised, TaskWork};
use crate::config::site::Site;
use crate::container::{Container, Host, boot_id};
use crate::exec::cancel::Canceller;
use crate::exec::env::{self, Facts};
use crate::exec::fetch::Fetcher;
use crate::exec::limit::Limit;
use crate::exec::logs::Logs;
use crate::exec::room::{Insufficient, Resources, Room};
use crate::exec::turns::Pools;
use crate::image::catalog::Keep;
use crate::image::registry::settings::Settings as Registries;
use crate::lifecycle::SSH_SERVER;
use crate::model::lrp::{ActualLrp, ProcessGuid, Side};
use crate::model::task::TaskRecord;
use crate::sys::fault;
use crate::unit::{AppName, Handle};
use crate::volume::Pin;
use smol::channel::{Receiver, Sender, bounded};
use smol::lock::{Mutex as Turns, Semaphore};
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

/// Images that are fetched for apps at a time, those that were given up on included.
const FETCHES_MAX: usize = 4;

/// Directories of the box that the cell works with.
#[derive(Clone, Debug)]
pub struct Paths {
    /// `<state>`: staging work.
    pub state: PathBuf,
    /// May vanish at any time: build caches.
    pub cache: PathBuf,
    /// `<stack>.tar.zst` files.
    pub stacks: PathBuf,
    /// Directories with a directory per buildpack; an earlier one hides names of a later one.
    pub buildpacks: Vec<PathBuf>,
    /// Shown at /tmp/lifecycle in every container.
    pub lifecycle: PathBuf,
    /// Gone after a reboot, in memory on a box: files of containers.
    pub run: PathBuf,
    /// Whose subdirectories apps may have as volumes.
    pub volumes: Vec<PathBuf>,
    /// Our own, which no app may have.
    pub own: Vec<PathBuf>,
    /// Of manifests: an app that was declared in one of them changes with its file there.
    pub apps: Vec<PathBuf>,
}

/// What a cell is put together from.
pub struct CellParts {
    /// What Tasks are told that they run on.
    pub cell_id: String,
    /// Stacks by the absolute path that records of another cell name them by.
    pub rootfs: BTreeMap<String, String>,
    /// Containers.
    pub host: Arc<Host>,
    /// Records, already read.
    pub store: RecordStore,
    /// What they hold.
    pub records: Records,
    /// App logs.
    pub logs: Logs,
    /// Directories.
    pub paths: Paths,
    /// How actions download and upload.
    pub fetcher: Fetcher,
    /// Images that stay though nothing is made of them.
    pub keep: Keep,
    /// How images are fetched.
    pub registries: Registries,
    /// What the box gives away.
    pub total: Resources,
    /// The box's own address, for `CF_INSTANCE_IP`.
    pub host_ip: Ipv4Addr,
    /// Ports of the box that instances get; none of them can be published.
    pub instance_ports: RangeInclusive<u16>,
    /// What the box's owner says about the cell as a whole.
    pub settings: Settings,
}

/// The cell. Clones are the same cell.
#[derive(Clone)]
pub struct Cell {
    pub(super) shared: Arc<Shared>,
}

/// What becomes of an app's record.
pub(super) enum AppChange {
    /// It stays as it is.
    Keep,
    /// It becomes this.
    Put(Box<AppRecord>),
    /// It goes.
    Remove,
}

/// State and tools.
pub(crate) struct Shared {
    pub(super) cell_id: String,
    pub(super) rootfs: BTreeMap<String, String>,
    pub(super) host: Arc<Host>,
    pub(super) store: RecordStore,
    pub(super) logs: Logs,
    pub(super) paths: Paths,
    pub(super) fetcher: Fetcher,
    pub(super) keep: Keep,
    pub(super) registries: Registries,
    /// Whoever fetches an image has one, also when nobody waits for it any more.
    pub(super) fetches: Arc<Semaphore>,
    pub(super) host_ip: Ipv4Addr,
    pub(super) instance_ports: RangeInclusive<u16>,
    pub(super) settings: Settings,
    /// How much is done side by side.
    pub(super) pools: Pools,
    /// What the records knew when this daemon began.
    pub(super) begun: Begun,
    /// What containers have used when somebody looked last.
    pub(super) meter: Meter,
    /// Host keys of the SSH servers in containers.
    pub(super) host_keys: HostKeys,
    /// What is told of changes.
    pub(super) events: Events,
    pub(super) state: Mutex<State>,
    /// Whoever changes an app's record has the turn from reading to writing it.
    pub(super) turns: Arc<Turns<()>>,
    /// The same for a Task's.
    pub(super) task_turns: Arc<Turns<()>>,
    /// The same for an instance's record.
    pub(super) record_turns: Arc<Turns<()>>,
    /// Whoever writes published ports has it, so that nothing old is written after something new.
    pub(super) publishing: Turns<()>,
    wake: Sender<()>,
    pub(super) woken: Receiver<()>,
    /// A container went, since it was last asked.
    pub(super) went: Sender<()>,
    pub(super) gone: Receiver<()>,
    /// Tells whether the loop turns.
    pub(super) pulse: Pulse,
    /// Tells containers of one instance apart; begins at the clock, so that restarts differ too.
    pub(super) last_handle: AtomicU32,
}

/// What changes. Held for moments only, never across an await.
pub(super) struct State {
    pub(super) apps: BTreeMap<AppName, AppRecord>,
    /// The highest generation that an app has or had.
    pub(super) newest: u64,
    /// Apps whose records cannot be read, by name, which stay on the disk as they are.
    pub(super) set_aside: BTreeMap<String, Unread>,
    /// Sources that are about to be applied.
    pub(super) sent: Sent,
    pub(super) actual: BTreeMap<Key, ActualLrp>,
    pub(super) supervised: BTreeMap<Key, Supervised>,
    pub(super) staging: BTreeMap<AppName, Canceller>,
    /// Every Task, by guid.
    pub(super) tasks: BTreeMap<String, TaskRecord>,
    /// When apps are tried again whose images, or roots by record, could not be had.
    pub(super) away: Away,
    /// Those that somebody works on, or of which somebody is told.
    pub(super) task_work: BTreeMap<String, TaskWork>,
    /// Containers of Tasks that run, and what each may log.
    pub(super) task_containers: BTreeMap<String, (Arc<Container>, Limit)>,
    /// Keeps the layers of images until their app's record names them.
    pub(super) fetched: BTreeMap<AppName, Pin>,
    /// What stands behind each published port in the kernel now.
    pub(super) published: BTreeMap<u16, Vec<(Ipv4Addr, u16)>>,
    pub(super) room: Room,
    /// Who could not be placed.
    pub(super) waiting: Waiting,
    /// Instances that nobody works on and that are to be made afresh.
    pub(super) afresh: BTreeSet<Key>,
    /// Manifests of the box that are not followed, and why.
    pub(super) refused: BTreeMap<PathBuf, String>,
    /// Who wants to know that something changed.
    pub(super) watchers: Vec<Sender<()>>,
    /// A droplet was replaced: its layer can be removed when nothing runs in it any more.
    pub(super) litter: bool,
    /// Images that came with the box are being loaded.
    pub(super) preloading: bool,
    /// Images that the store has lost.
    pub(super) lost: Lost,
    /// How the cell itself stands.
    pub(super) node: NodeState,
    /// No more work is begun: the daemon ends.
    pub(super) closing: bool,
}

impl State {
    /// The generation of what is declared, or asked for, for the first time.
    pub(super) fn next_generation(&self) -> u64 {
        record::generation_after(self.newest, now_ms())
    }

    /// Of an index's two instances the one that is healthy, if one is: its supervisor.
    pub(super) fn serving(&self, guid: &ProcessGuid, index: u32) -> Option<&Supervised> {
        let sides = [Side::Left, Side::Right].map(|side| (guid.clone(), index, side));
        let works = |key: &Key| self.supervised.get(key).filter(|work| !work.stopping);
        let runs = |key: &&Key| self.actual.get(*key).is_some_and(ActualLrp::runs);
        let mut healthy = sides.iter().filter(runs).filter_map(works);
        healthy.next().or_else(|| sides.iter().find_map(works))
    }
}

impl Cell {
    /// A cell that does nothing yet: see [`Cell::adopt`] and [`Cell::converge`].
    pub fn new(mut parts: CellParts) -> Cell {
        let (wake, woken) = bounded(1);
        let (went, gone) = bounded(1);
        let reading = Some(catch_up(&parts.store, &mut parts.records));
        let drain = Draining::resume(parts.records.drain, &parts.settings.boot);
        let generations = parts.records.apps.values().map(|app| app.generation);
        let state = State {
            newest: generations.max().unwrap_or(0),
            apps: parts.records.apps,
            set_aside: parts.records.set_aside,
            sent: Sent::default(),
            actual: tag::resume(parts.records.actual),
            supervised: BTreeMap::new(),
            staging: BTreeMap::new(),
            tasks: parts.records.tasks,
            away: Away::default(),
            task_work: BTreeMap::new(),
            task_containers: BTreeMap::new(),
            fetched: BTreeMap::new(),
            published: BTreeMap::new(),
            room: Room::new(parts.total),
            waiting: Waiting::default(),
            afresh: BTreeSet::new(),
            refused: BTreeMap::new(),
            watchers: Vec::new(),
            // What the last daemon left is not known.
            litter: true,
            preloading: true,
            lost: Lost::new(),
            node: NodeState { drain, reading, ..NodeState::default() },
            closing: false,
        };
        let begun = parts.store.begin(&boot_id()).unwrap_or_else(|err| {
            crate::error!("record.refused", err = crate::log::chain(&err));
            // No earlier daemon's: that has counted from 1.
            Begun { epoch: now_ms(), rebooted: false }
        });
        Cell {
            shared: Arc::new(Shared {
                cell_id: parts.cell_id,
                rootfs: parts.rootfs,
                events: Events::new(begun.epoch),
                meter: Meter::default(),
                host_keys: HostKeys::of(&parts.paths.state),
                begun,
                host: parts.host,
                store: parts.store,
                logs: parts.logs,
                paths: parts.paths,
                fetcher: parts.fetcher,
                keep: parts.keep,
                registries: parts.registries,
                fetches: Arc::new(Semaphore::new(FETCHES_MAX)),
                host_ip: parts.host_ip,
                instance_ports: parts.instance_ports,
                pools: Pools::new(parts.settings.pools),
                settings: parts.settings,
                state: Mutex::new(state),
                turns: Arc::default(),
                task_turns: Arc::default(),
                record_turns: Arc::default(),
                publishing: Turns::default(),
                wake,
                woken,
                went,
                gone,
                pulse: Pulse::default(),
                last_handle: AtomicU32::new(now_ms() as u32),
            }),
        }
    }

    /// Hears that something changed; one message stands for any number of changes. Closed when the
    /// daemon ends.
    pub fn watch(&self) -> Receiver<()> {
        let (sender, receiver) = bounded(1);
        let mut state = self.shared.state();
        if !state.closing {
            // Where nothing changes nobody else notices that they have left.
            state.watchers.retain(|watcher| !watcher.is_closed());
            state.watchers.push(sender);
        }
        receiver
    }
}

impl Shared {
    /// The state. Whoever panicked with it in hand has left it whole: changes are single inserts.
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Lets the loop look again, and tells the watchers.
    pub(super) fn wake(&self) {
        let _ = self.wake.try_send(());
        self.tell();
    }

    /// Tells the watchers that something changed.
    pub(super) fn tell(&self) {
        self.state().watchers.retain(|watcher| {
            let _ = watcher.try_send(());
            !watcher.is_closed()
        });
    }

    /// Changes one app: `change` sees the state and gives the app's new record. It is written on
    /// the pool, for that waits for the disk, and only then seen: what is seen is also durable.
    /// From `change` to the end nobody else changes any app, so no change is lost to another one;
    /// and once written it is also looked at, even when the caller is gone.
    pub(super) async fn change_app(
        self: &Arc<Self>,
        name: &AppName,
        change: impl FnOnce(&State) -> Result<AppChange, CellError>,
    ) -> Result<(), CellError> {
        let turn = self.turns.lock_arc().await;
        let record = match change(&self.state())? {
            AppChange::Keep => return Ok(()),
            AppChange::Put(record) => Some(*record),
            AppChange::Remove => None,
        };
        let (shared, name) = (self.clone(), name.clone());
        smol::unblock(move || {
            let turn_of = record::turn(shared.state().apps.get(&name), record.as_ref());
            fault::point(format_args!("app:{turn_of}:asked"));
            shared
                .store
                .put_app(&name, record.as_ref())
                .map_err(|err| CellError::failed(format!("cannot record app {name}"), &err))?;
            fault::point(format_args!("app:{turn_of}:written"));
            shared.keep_app(&name, record);
            drop(turn);
            shared.wake();
            Ok(())
        })
        .await
    }

    /// Something happens to an instance: its record changes by the table, and is written, on the
    /// pool. A record that cannot be written is kept in memory: the loop must go on, and a restart of
    /// the daemon makes the instance anew. The record as it is then.
    pub(super) async fn happen(self: &Arc<Self>, key: &Key, event: LrpEvent) -> Option<ActualLrp> {
        let turn = self.record_turns.lock_arc().await;
        let (shared, key) = (self.clone(), key.clone());
        smol::unblock(move || {
            let old = shared.state().actual.get(&key).cloned();
            let what = event.name();
            let record = match lrp_state::apply(&key, old.as_ref(), event, now_ms()) {
                Ok(record) => tag::next(old.as_ref(), record),
                Err(err) => {
                    crate::warn!("record.kept", app = key.0, index = key.1, err = err);
                    return old;
                }
            };
            fault::point(format_args!("lrp:{what}:asked"));
            if let Err(err) = shared.store.put_actual(&key, record.as_ref()) {
                let err = crate::log::chain(&err);
                crate::error!("record.refused", app = key.0, index = key.1, err = err);
            }
            fault::point(format_args!("lrp:{what}:written"));
            shared.keep_actual(key, record.clone());
            drop(turn);
            record
        })
        .await
    }

    /// The same in memory only, for what the next daemon finds out by itself. For the loop: nobody
    /// works on the instance.
    pub(super) fn note(&self, key: &Key, event: LrpEvent) {
        let old = self.state().actual.get(key).cloned();
        let what = event.name();
        match lrp_state::apply(key, old.as_ref(), event, now_ms()) {
            Ok(record) => {
                fault::point(format_args!("lrp:{what}:noted"));
                self.keep_actual(key.clone(), tag::next(old.as_ref(), record));
            }
            Err(err) => crate::warn!("record.kept", app = key.0, index = key.1, err = err),
        }
    }

    /// Keeps or removes an instance's record in memory, and tells of it. The only place that does.
    pub(super) fn keep_actual(&self, key: Key, record: Option<ActualLrp>) {
        let mut state = self.state();
        let drafts = derive::actual(state.actual.get(&key), record.as_ref());
        let lrp = derive::lrp(state.apps.get(&key.0.app));
        match record {
            Some(record) => state.actual.insert(key, record),
            None => state.actual.remove(&key),
        };
        // With the state in hand: what is told comes in the order in which it happened.
        self.events.tell_of(lrp, drafts);
    }

    /// The same for an app's record.
    fn keep_app(&self, name: &AppName, record: Option<AppRecord>) {
        let wanted = |app: Option<&AppRecord>| {
            let app = app.map(|app| (name.clone(), app.clone()));
            desired(&app.into_iter().collect())
        };
        let mut state = self.state();
        let before = state.apps.get(name);
        let lrps = (wanted(before), wanted(record.as_ref()));
        let drafts = derive::app((before, &lrps.0), (record.as_ref(), &lrps.1));
        let lrp = derive::changed_lrp(before, record.as_ref());
        match record {
            Some(record) => {
                state.newest = state.newest.max(record.generation);
                state.apps.insert(name.clone(), record)
            }
            None => state.apps.remove(name),
        };
        // Its record is another one now.
        state.set_aside.remove(name.as_str());
        self.events.tell_of(lrp, drafts);
    }

    /// What the box has for apps.
    pub(super) fn site(&self) -> Site {
        let (total, waits) = {
            let state = self.state();
            let apps = state.apps.iter().filter(|(_, app)| !app.deleting);
            let waits = apps.map(|(name, app)| (name.clone(), app.manifest.waits()));
            (state.room.total(), waits.collect())
        };
        Site {
            stacks: self.paths.stacks.clone(),
            buildpacks: self.paths.buildpacks.clone(),
            memory: Some(total.memory),
            disk: Some(total.disk),
            ports: self.instance_ports.clone(),
            preloaded: self.settings.preloaded.clone(),
            waits,
            volumes: self.paths.volumes.clone(),
            own: self.paths.own.clone(),
            ssh_server: self.paths.lifecycle.join(SSH_SERVER),
            health: self.settings.health,
        }
    }

    /// Takes what a container needs.
    pub(super) fn take_room(&self, needs: Resources) -> Result<(), Insufficient> {
        self.state().room.take(needs)
    }

    /// Gives it back.
    pub(super) fn give_back_room(&self, had: Resources) {
        let mut state = self.state();
        state.room.give_back(had);
        state.waiting.room_returned();
    }

    /// Nobody works on an instance any more: it gives back what it had. In one step, or whoever waits
    /// would get its room while it cannot ask for it again yet.
    pub(super) fn leave(&self, key: &Key, had: Resources) {
        {
            let mut state = self.state();
            state.room.give_back(had);
            state.waiting.room_returned();
            state.supervised.remove(key);
        }
        self.wake();
    }

    /// One line in an app's log.
    pub(super) fn say(&self, app: &AppName, source: &str, err: bool, text: impl Into<String>) {
        self.logs.app(app).write(source, 0, err, text);
    }

    /// A handle that no container has had.
    pub(super) fn fresh_handle(&self, key: &Key) -> Handle {
        let n = self.last_handle.fetch_add(1, Ordering::Relaxed);
        let text = format!("{}-{}-{n:08x}", key.0.app, key.1);
        text.parse().expect("an app name, a number and hex digits, at most 60 characters")
    }

    /// The same for a Task's container; `what`: at most five letters.
    pub(super) fn task_handle(&self, app: &AppName, what: &str) -> Handle {
        let n = self.last_handle.fetch_add(1, Ordering::Relaxed);
        let text = format!("{app}-{what}-{n:08x}");
        text.parse().expect("an app name, a word and hex digits, at most 55 characters")
    }

    /// A guid that no staging has had.
    pub(super) fn staging_guid(&self, app: &AppName) -> String {
        format!("staging-{app}-{:08x}", self.last_handle.fetch_add(1, Ordering::Relaxed))
    }

    /// The executor's environment for a container.
    pub(super) fn network_env(
        &self,
        container: &Container,
        index: Option<u32>,
    ) -> Vec<(String, String)> {
        let entry = container.entry();
        let certificates = mounts::certificates(&entry.spec.binds);
        if !self.settings.export_network {
            return env::names(container.handle(), index, certificates);
        }
        env::network(&Facts {
            certificates,
            handle: container.handle(),
            index,
            host_ip: self.host_ip,
            container_ip: self.host.net().addresses(container.entry().slot).container,
            ports: &container.entry().ports,
        })
    }
}

/// Nanoseconds since 1970.
pub(super) fn now_ns() -> u64 {
    now_ms() * 1_000_000
}

/// Milliseconds since 1970.
pub(super) fn now_ms() -> u64 {
    crate::sys::clock::now_ms()
}
