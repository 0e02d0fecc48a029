//! What the loop, the supervisors and the API share.

use super::diff::Key;
use super::error::CellError;
use super::lost::Lost;
use super::placement::Waiting;
use super::pulse::Pulse;
use super::record::AppRecord;
use super::store::{RecordStore, Records};
use crate::config::site::Site;
use crate::container::{Container, ContainerError, Host};
use crate::exec::cancel::Canceller;
use crate::exec::env::{self, Facts};
use crate::exec::fetch::Fetcher;
use crate::exec::logs::Logs;
use crate::exec::room::{Insufficient, Resources, Room};
use crate::image::catalog::Keep;
use crate::image::registry::settings::Settings as Registries;
use crate::init::proto::Bind;
use crate::model::lrp::ActualLrp;
use crate::unit::{AppName, Handle};
use crate::volume::Pin;
use smol::channel::{Receiver, Sender, bounded};
use smol::lock::{Mutex as Turns, Semaphore};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{SystemTime, UNIX_EPOCH};

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
}

/// What a cell is put together from.
pub struct CellParts {
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
    pub(super) state: Mutex<State>,
    /// Whoever changes an app's record has the turn from reading to writing it.
    turns: Arc<Turns<()>>,
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
    last_handle: AtomicU32,
}

/// What changes. Held for moments only, never across an await.
pub(super) struct State {
    pub(super) apps: BTreeMap<AppName, AppRecord>,
    pub(super) actual: BTreeMap<Key, ActualLrp>,
    pub(super) supervised: BTreeMap<Key, Supervised>,
    pub(super) staging: BTreeMap<AppName, Canceller>,
    /// Keeps the layers of images until their app's record names them.
    pub(super) fetched: BTreeMap<AppName, Pin>,
    /// What stands behind each published port in the kernel now.
    pub(super) published: BTreeMap<u16, Vec<(Ipv4Addr, u16)>>,
    pub(super) room: Room,
    /// Who could not be placed.
    pub(super) waiting: Waiting,
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
    /// No more work is begun: the daemon ends.
    pub(super) closing: bool,
}

/// An instance that somebody works on.
pub(super) struct Supervised {
    pub(super) canceller: Canceller,
    /// It is on its way out: no new connection is led to it.
    pub(super) stopping: bool,
    /// What it is made from.
    pub(super) version: String,
    pub(super) container: Option<Arc<Container>>,
}

impl Cell {
    /// A cell that does nothing yet: see [`Cell::adopt`] and [`Cell::converge`].
    pub fn new(parts: CellParts) -> Cell {
        let (wake, woken) = bounded(1);
        let (went, gone) = bounded(1);
        let state = State {
            apps: parts.records.apps,
            actual: parts.records.actual,
            supervised: BTreeMap::new(),
            staging: BTreeMap::new(),
            fetched: BTreeMap::new(),
            published: BTreeMap::new(),
            room: Room::new(parts.total),
            waiting: Waiting::default(),
            refused: BTreeMap::new(),
            watchers: Vec::new(),
            // What the last daemon left is not known.
            litter: true,
            preloading: true,
            lost: Lost::new(),
            closing: false,
        };
        Cell {
            shared: Arc::new(Shared {
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
                state: Mutex::new(state),
                turns: Arc::default(),
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
            shared
                .store
                .put_app(&name, record.as_ref())
                .map_err(|err| CellError::failed(format!("cannot record app {name}"), &err))?;
            match record {
                Some(record) => shared.state().apps.insert(name, record),
                None => shared.state().apps.remove(&name),
            };
            drop(turn);
            shared.wake();
            Ok(())
        })
        .await
    }

    /// Writes or removes an instance, on the pool. A record that cannot be written is kept in
    /// memory: the loop must go on, and a restart of the daemon makes the instance anew.
    pub(super) async fn put_actual(self: &Arc<Self>, key: &Key, record: Option<ActualLrp>) {
        let (shared, key) = (self.clone(), key.clone());
        smol::unblock(move || {
            if let Err(err) = shared.store.put_actual(&key, record.as_ref()) {
                let err = crate::log::chain(&err);
                crate::error!("record.refused", app = key.0, index = key.1, err = err);
            }
            let mut state = shared.state();
            match record {
                Some(record) => state.actual.insert(key, record),
                None => state.actual.remove(&key),
            };
        })
        .await;
    }

    /// What the box has for apps.
    pub(super) fn site(&self) -> Site {
        let total = self.state().room.total();
        Site {
            stacks: self.paths.stacks.clone(),
            buildpacks: self.paths.buildpacks.clone(),
            memory: Some(total.memory),
            disk: Some(total.disk),
            ports: self.instance_ports.clone(),
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

    /// The same for a staging container.
    pub(super) fn staging_handle(&self, app: &AppName) -> Handle {
        let n = self.last_handle.fetch_add(1, Ordering::Relaxed);
        let text = format!("{app}-stage-{n:08x}");
        text.parse().expect("an app name and hex digits, at most 55 characters")
    }

    /// Our own programs inside every container.
    pub(super) fn lifecycle_binds(&self) -> Vec<Bind> {
        vec![Bind {
            from: self.paths.lifecycle.clone(),
            origin: Default::default(),
            to: "/tmp/lifecycle".into(),
            read_only: true,
            mapped: false,
        }]
    }

    /// The executor's environment for a container.
    pub(super) fn network_env(
        &self,
        container: &Container,
        index: Option<u32>,
    ) -> Vec<(String, String)> {
        env::network(&Facts {
            handle: container.handle(),
            index,
            host_ip: self.host_ip,
            container_ip: self.host.net().addresses(container.entry().slot).container,
            ports: &container.entry().ports,
        })
    }

    /// Destroys a container on the pool. What is left is logged and swept at the next start.
    pub(super) async fn destroy(self: &Arc<Self>, handle: &Handle) {
        let (inner, name) = (self.clone(), handle.clone());
        let done: Result<(), ContainerError> =
            smol::unblock(move || inner.host.destroy(&name)).await;
        let _ = self.went.try_send(());
        if let Err(err) = done {
            crate::error!("container.left", handle = handle, err = crate::log::chain(&err));
        }
    }
}

/// Milliseconds since 1970.
pub(super) fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64
}
