//! Opens every part of a cell in the order in which they need each other: all of them or none.

use super::bridge::{self, BbsDoor};
use super::garden::{self, Doors};
use super::lock::{self, Lock};
use super::{DaemonError, lifecycle, parts, patience, start};
use crate::api::http::listen::{self, Socket};
use crate::cell::store::{RecordStore, Records};
use crate::cell::{Cell, CellParts, Paths};
use crate::cgroup::Cgroups;
use crate::config::machine::Config;
use crate::container::{Depot, Fault, Host, HostParts};
use crate::exec::fetch::Fetcher;
use crate::exec::logs::Logs;
use crate::exec::room::Resources;
use crate::garden::Backend;
use crate::image;
use crate::net::Net;
use crate::net::pool::{Ports, Slots};
use crate::unit::Bytes;
use crate::volume::{Store, StoreConfig};
use smol::net::TcpListener;
use std::path::PathBuf;
use std::sync::Arc;

/// One step of a start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nobody else works on the state directory.
    Lock,
    /// The daemon's own directories.
    Directories,
    /// What the box gives away.
    Limits,
    /// The records, all read.
    Records,
    /// The apps' logs, and what is kept of downloads.
    Logs,
    /// The socket, and where figures are told. Who connects now waits for the end of the start.
    Socket,
    /// The programs that every container sees.
    Lifecycle,
    /// The store, mounted.
    Store,
    /// The parent of all control groups.
    Cgroups,
    /// The packet rules that all containers share.
    Network,
    /// All that containers are made of. From here on leftovers are removed.
    Host,
}

/// A whole start. What touches only the daemon's own files comes first: a mistake of a person is
/// found there, if anywhere.
pub const START: [Step; 11] = [
    Step::Lock,
    Step::Directories,
    Step::Limits,
    Step::Records,
    Step::Logs,
    Step::Socket,
    Step::Lifecycle,
    Step::Store,
    Step::Cgroups,
    Step::Network,
    Step::Host,
];

/// Only what containers are made of.
pub const HOST: [Step; 7] = [
    Step::Directories,
    Step::Limits,
    Step::Lifecycle,
    Step::Store,
    Step::Cgroups,
    Step::Network,
    Step::Host,
];

/// What the daemon listens on.
pub struct Listeners {
    /// For the command line.
    pub socket: Socket,
    /// For figures, when they are wanted.
    pub debug: Option<TcpListener>,
    /// For figures of the cell, when they are wanted.
    pub metrics: Option<TcpListener>,
    /// For a cloud controller, when it is wanted.
    pub bridge: Option<TcpListener>,
    /// For the record store's clients, when they are wanted.
    pub bbs: Option<BbsDoor>,
    /// For Garden's clients.
    pub garden: Doors,
}

/// What the steps have opened. When it is dropped, the box is as it was before; but what was
/// there before stays, and so does what living containers need.
pub struct Opening<'a> {
    config: &'a Config,
    lock: Option<Lock>,
    limits: Option<(Bytes, Resources)>,
    records: Option<(RecordStore, Records)>,
    logs: Option<Logs>,
    fetcher: Option<Fetcher>,
    socket: Option<Socket>,
    debug: Option<TcpListener>,
    metrics: Option<TcpListener>,
    bridge: Option<TcpListener>,
    bbs: Option<BbsDoor>,
    garden: Doors,
    store: Option<Store>,
    cgroups: Option<Cgroups>,
    net: Option<Net>,
    host: Option<Arc<Host>>,
}

impl<'a> Opening<'a> {
    /// Nothing is open yet.
    pub fn new(config: &'a Config) -> Opening<'a> {
        Opening {
            config,
            lock: None,
            limits: None,
            records: None,
            logs: None,
            fetcher: None,
            socket: None,
            debug: None,
            metrics: None,
            bridge: None,
            bbs: None,
            garden: Doors::default(),
            store: None,
            cgroups: None,
            net: None,
            host: None,
        }
    }

    /// Does the steps in their order, up to the first that fails.
    pub fn walk(&mut self, steps: &[Step], fault: Fault) -> Result<(), DaemonError> {
        for (n, now) in steps.iter().enumerate() {
            self.act(*now)?;
            if fault == Fault::After(n) {
                let asked = "a test asked for this failure";
                return Err(start(format!("go on after {now:?}"))(asked));
            }
        }
        Ok(())
    }

    /// After [`HOST`]: the host, and the directory that every container sees at /tmp/lifecycle.
    pub fn into_host(mut self) -> (Arc<Host>, PathBuf) {
        (self.host.take().expect("the steps opened it"), lifecycle::dir(self.config))
    }

    /// After [`START`]: a backend and a cell over one host that do nothing yet, what is listened on, and the lock.
    pub fn into_cell(mut self) -> Result<(Backend, Cell, Listeners, Lock), DaemonError> {
        const ALL: &str = "the steps opened it";
        let (store_max, total) = self.limits.expect(ALL);
        let backend = garden::backend(self.config, self.host.as_ref().expect(ALL), store_max)?;
        let paths = &self.config.paths;
        let (store, records) = self.records.take().expect(ALL);
        let host = self.host.take().expect(ALL);
        let cell = Cell::new(CellParts {
            cell_id: self.config.cell.name.clone(),
            rootfs: self.config.cell.rootfs.iter().cloned().collect(),
            host,
            store,
            records,
            fetcher: self.fetcher.take().expect(ALL),
            logs: self.logs.take().expect(ALL),
            paths: Paths {
                state: paths.state.clone(),
                cache: paths.cache.clone(),
                stacks: paths.stacks(),
                buildpacks: paths.buildpacks().into(),
                lifecycle: lifecycle::dir(self.config),
                run: paths.run.clone(),
                volumes: self.config.cell.volumes.clone(),
                apps: paths.apps().into(),
                own: paths.own(),
            },
            keep: garden::keep(self.config, store_max),
            registries: garden::registries(self.config),
            total,
            host_ip: parts::external_address(self.config),
            instance_ports: self.config.net.ports.0..=self.config.net.ports.1,
            settings: parts::settings(self.config),
        });
        let listeners = Listeners {
            socket: self.socket.take().expect(ALL),
            debug: self.debug.take(),
            metrics: self.metrics.take(),
            bridge: self.bridge.take(),
            bbs: self.bbs.take(),
            garden: std::mem::take(&mut self.garden),
        };
        Ok((backend, cell, listeners, self.lock.take().expect(ALL)))
    }

    /// Does one step.
    fn act(&mut self, now: Step) -> Result<(), DaemonError> {
        let config = self.config;
        let state = &config.paths.state;
        match now {
            Step::Lock => self.lock = Some(lock::take(state)?),
            Step::Directories => parts::make_dirs(config)?,
            Step::Limits => self.limits = Some(parts::limits(config)?),
            Step::Records => {
                let opened = RecordStore::open(&state.join("state.redb"))
                    .and_then(|store| store.load().map(|records| (store, records)));
                self.records = Some(opened.map_err(DaemonError::part)?);
            }
            Step::Logs => {
                let logs = state.join("logs");
                let opened = Logs::open(&logs, parts::log_keep(config));
                let doing = format!("open the app logs in {}", logs.display());
                self.logs = Some(opened.map_err(start(doing))?);
                let dir = &config.downloads.dir;
                let opened = Fetcher::open(dir, &config.registry.certs, config.downloads.size);
                let doing = format!("open what is kept of downloads in {}", dir.display());
                self.fetcher = Some(opened.map_err(start(doing))?);
            }
            Step::Socket => {
                let (mode, group) = (config.socket.mode, &config.socket.group);
                let socket = listen::listen(&config.paths.socket(), mode, Some(group));
                self.socket = Some(socket.map_err(DaemonError::part)?);
                let debug = config.garden.debug.map(listen::listen_tcp).transpose();
                self.debug = debug.map_err(start("serve what `debug` of [garden] names"))?;
                let metrics = config.metrics.listen.map(listen::listen_tcp).transpose();
                self.metrics = metrics.map_err(start("serve what `listen` of [metrics] names"))?;
                let bridge = config.bridge.listen.map(listen::listen_tcp).transpose();
                self.bridge = bridge.map_err(start("serve what `listen` of [bridge] names"))?;
                self.bbs = bridge::bbs(config)?;
                self.garden = garden::doors(config)?;
            }
            Step::Lifecycle => lifecycle::lay(config)?,
            Step::Store => {
                let (size_max, _) = *self.limits.as_ref().expect("the limits come before");
                let (dir, file) = (state.join("store"), state.join("store.img"));
                let limited = config.store.quotas;
                let what = format!("the disk of the store {}", dir.display());
                let open = move || Store::open(StoreConfig { dir, file, size_max, limited });
                let opened = patience::wait(&what, patience::DISK, open).ok_or_else(|| {
                    let why =
                        format!("{what} does not answer; see what the kernel's log says of it");
                    start::<String>("open the store")(why)
                })?;
                let opened = opened.map_err(start("open the store"))?;
                // Before anybody is asked for anything over TLS.
                image::recall_time(&opened);
                self.store = Some(opened);
            }
            Step::Cgroups => {
                let opened = Cgroups::open(&config.cgroup.parent);
                self.cgroups = Some(opened.map_err(start("open the cgroups"))?);
            }
            Step::Network => self.net = Some(parts::net(config)?),
            Step::Host => self.make_host()?,
        }
        Ok(())
    }

    /// Puts together what containers are made of.
    fn make_host(&mut self) -> Result<(), DaemonError> {
        let config = self.config;
        let depot = Depot::open(&config.paths.state.join("depot"));
        let depot = depot.map_err(start("open the depot"))?;
        depot.remember();
        let (program, seccomp) = (parts::program(), parts::seccomp()?);
        const BEFORE: &str = "its step comes before";
        self.host = Some(Arc::new(Host::new(HostParts {
            depot,
            program,
            store: self.store.take().expect(BEFORE),
            cgroups: self.cgroups.take().expect(BEFORE),
            net: self.net.take().expect(BEFORE),
            net_tag: config.net.tag.clone(),
            slots: Slots::new(),
            ports: Ports::new(config.net.ports.0..=config.net.ports.1),
            seccomp,
            resolvers: parts::resolvers(config),
            garden: garden::networks(config),
            reserve: config.cell.reserve,
        })));
        Ok(())
    }
}

impl Drop for Opening<'_> {
    fn drop(&mut self) {
        if let Some(host) = self.host.take().and_then(Arc::into_inner) {
            let (store, cgroups, net) = host.into_parts();
            (self.store, self.cgroups, self.net) = (Some(store), Some(cgroups), Some(net));
        }
        // The first error is the one to tell; these come beside it.
        let left = |what: &str, err: &dyn std::error::Error| {
            crate::warn!("daemon.left_open", what = what, err = crate::log::chain(err));
        };
        if let Some(Err(err)) = self.net.take().map(|net| net.close()) {
            left("network", &err);
        }
        if let Some(cgroups) = self.cgroups.take() {
            cgroups.remove_parent_if_empty();
        }
        if let Some(Err(err)) = self.store.take().map(Store::take_back) {
            left("store", &err);
        }
        // The socket's file goes with it; the lock, which keeps others from it all, goes last.
        drop(self.socket.take());
        self.garden = Doors::default();
        drop(self.records.take());
        drop(self.lock.take());
    }
}
