//! Puts the rooms together, in order, and takes them apart again.
//!
//! Owns: the lock on the state directory, the order of start and stop, the systemd notifications.
//! Must not: decide anything about apps; speak HTTP itself.
//! Called by: `main`, `cli` (for `run`). Calls: every room below.
//! Entry points: [`serve`], [`start_embedded`], [`bench()`].
//!
//! Start: the steps of [`START`], any of which may fail and then takes back those before it; then
//! nothing fails any more: adopt what lives, the loop, the socket answers, READY, and then the
//! manifests of apps.d. A stop leaves containers as they are: the next start takes them over.

mod apparmor;
mod appsd;
mod bench;
mod bridge;
mod figures;
mod floor;
mod garden;
mod history;
mod images;
mod lifecycle;
mod lock;
mod logs;
mod notify;
mod open;
mod parts;
mod patience;
mod preload;
mod records;
mod report;
mod rest;
mod service;
mod session;
mod source;
mod watch;

pub use bench::{Figures, bench};
pub use open::{START, Step};

use crate::api::apps::Apps;
use crate::api::http::listen;
use crate::api::http::server;
use crate::cell::Cell;
use crate::config::machine::Config;
use crate::container::{Fault, Host};
use crate::garden::Backend;
use crate::sys::{self, signal::Signal};
use open::{Listeners, Opening};
use std::error::Error;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The daemon could not start or go on.
#[derive(Debug)]
pub enum DaemonError {
    /// Another daemon works on the state directory.
    Locked {
        /// The directory.
        dir: PathBuf,
        /// Its process id, when it could be read.
        pid: Option<i32>,
    },
    /// It does not run as root.
    NotRoot,
    /// A part's own words, which say all.
    Part(Box<dyn Error + Send + Sync>),
    /// "cannot {doing}".
    Start {
        /// What was tried, on what.
        doing: String,
        /// Why not.
        source: Box<dyn Error + Send + Sync>,
    },
}

impl DaemonError {
    /// For `map_err`: an error that names its object itself.
    fn part(source: impl Into<Box<dyn Error + Send + Sync>>) -> DaemonError {
        DaemonError::Part(source.into())
    }
}

impl fmt::Display for DaemonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DaemonError::Locked { dir, pid: Some(pid) } => write!(
                f,
                "another terrarium, process {pid}, works on {}; stop it first or name another \
                 --root",
                dir.display()
            ),
            DaemonError::Locked { dir, pid: None } => {
                write!(f, "another terrarium works on {}; stop it first", dir.display())
            }
            DaemonError::NotRoot => f.write_str(
                "terrarium makes namespaces, mounts and links and must run as root; use sudo",
            ),
            DaemonError::Part(part) => part.fmt(f),
            DaemonError::Start { doing, .. } => write!(f, "cannot {doing}"),
        }
    }
}

impl Error for DaemonError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            DaemonError::Part(part) => part.source(),
            DaemonError::Start { source, .. } => Some(source.as_ref()),
            DaemonError::Locked { .. } | DaemonError::NotRoot => None,
        }
    }
}

/// Wraps a foreign error with what was tried.
fn start<E: Into<Box<dyn Error + Send + Sync>>>(
    doing: impl Into<String>,
) -> impl FnOnce(E) -> DaemonError {
    let doing = doing.into();
    move |source| DaemonError::Start { doing, source: source.into() }
}

/// Runs until SIGTERM or SIGINT. Containers go on without the daemon.
pub fn serve(config: Config) -> Result<(), DaemonError> {
    // Before any thread exists, so that all of them leave the signals to us.
    let signals = sys::signal::watch(&[Signal::SIGTERM, Signal::SIGINT])
        .map_err(start("take over the signals"))?;
    let signals = async_io::Async::new(signals).map_err(start("wait for signals"))?;
    let running = Embedded::start(config, true, Fault::None)?;
    smol::block_on(async {
        notify::ready();
        crate::info!("daemon.ready", version = env!("CARGO_PKG_VERSION"));
        let cell = running.cell.clone();
        let watchdog = smol::spawn(notify::watchdog(move || {
            let cell = cell.clone();
            async move { cell.beat().await }
        }));
        let _ = signals.readable().await;
        notify::stopping();
        watchdog.cancel().await;
    });
    running.stop()
}

/// Starts a daemon within this process, for `terrarium run`. apps.d is left alone: only what is
/// applied runs.
pub fn start_embedded(config: Config) -> Result<Embedded, DaemonError> {
    start_with_fault(config, Fault::None)
}

/// As [`start_embedded`], failing after a step of [`START`] when a test asks for it.
pub fn start_with_fault(config: Config, fault: Fault) -> Result<Embedded, DaemonError> {
    Embedded::start(config, false, fault)
}

/// A running daemon.
pub struct Embedded {
    socket: PathBuf,
    host: Arc<Host>,
    cell: Cell,
    backend: Backend,
    tasks: Vec<smol::Task<()>>,
    /// Released last.
    lock: lock::Lock,
}

impl Embedded {
    /// On any failure the box is as it was before: containers that live go on without a daemon.
    fn start(config: Config, with_apps: bool, fault: Fault) -> Result<Embedded, DaemonError> {
        if sys::process::effective_uid() != 0 {
            return Err(DaemonError::NotRoot);
        }
        // Before anything is touched at all.
        listen::check(&config.paths.socket()).map_err(DaemonError::part)?;
        let mut opening = Opening::new(&config);
        opening.walk(&START, fault)?;
        let (backend, cell, listeners, lock) = opening.into_cell()?;
        let host = backend.host();
        smol::block_on(async {
            cell.adopt().await;
            backend.adopt().await;
        });
        // Whoever lives has its slot by now.
        host.open_reserve();
        garden::warn_of_unreachable(&config, &backend);
        let path = listeners.socket.path().to_owned();
        let tasks = begin(&config, &cell, &backend, listeners, with_apps);
        Ok(Embedded { socket: path, host, cell, backend, tasks, lock })
    }

    /// Where it serves.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Ends it. What still runs goes on without it; with no container left, the box is as it was
    /// before the start.
    pub fn stop(self) -> Result<(), DaemonError> {
        let Embedded { socket, host, cell, backend, tasks, lock } = self;
        // First: what the store breaks off for that is nobody's failure.
        cell.close();
        host.store().end();
        backend.close();
        let closed = smol::block_on(async {
            for task in tasks {
                task.cancel().await;
            }
            cell.end_checks().await;
            // Also beside apps that live on: of what was destroyed, no link stays.
            drop((cell, backend));
            host.close_reserve();
            host.finish();
            match host.list() {
                Ok(none) if none.is_empty() => parts::close(host).await,
                _ => Ok(()),
            }
        });
        let _ = std::fs::remove_file(socket);
        drop(lock);
        crate::info!("daemon.stopped");
        closed
    }
}

/// The listeners, the loop and the manifest directories: tasks that do not end by themselves.
fn begin(
    config: &Config,
    cell: &Cell,
    backend: &Backend,
    listeners: Listeners,
    with_apps: bool,
) -> Vec<smol::Task<()>> {
    if with_apps {
        appsd::make_dirs(config);
    }
    let Listeners { socket, debug, metrics, bridge: port, bbs, garden: doors } = listeners;
    let images = images::Images::new(backend.host(), garden::registries(config));
    let bridge = bridge::bridge(config, cell);
    let service =
        |images| service::Service::new(cell.clone(), backend.clone(), images, bridge.clone());
    let apps = Apps::new(service(images));
    let serve = smol::spawn(async move {
        let err = server::serve(socket.listener(), &apps, server::Limits::default());
        crate::error!("socket.broken", err = err.await);
    });
    let looped = cell.clone();
    let converge = smol::spawn(async move { looped.converge().await });
    let guarded = cell.clone();
    let guard = smol::spawn(async move { guarded.guard_rules().await });
    let (watched, checked) = (cell.clone(), cell.clone());
    let watch = smol::spawn(async move { watched.keep_watch().await });
    let small = cell.clone();
    let small = smol::spawn(async move { small.keep_store_small().await });
    let registries = garden::registries(config);
    let host = Arc::downgrade(&backend.host());
    let preloaded = config.registry.preload.clone();
    let preload = preload::preload(preloaded, registries.default, host, cell.clone());
    let preload = smol::spawn(preload);
    let mut tasks = vec![serve, converge, guard, watch, small, preload];
    tasks.extend(debug.map(|listener| {
        smol::spawn(figures::serve(listener, config, Arc::downgrade(&backend.host())))
    }));
    tasks.extend(metrics.map(|listener| smol::spawn(watch::serve_metrics(listener, cell.clone()))));
    tasks.extend(port.map(|listener| {
        let images = images::Images::new(backend.host(), garden::registries(config));
        smol::spawn(bridge::serve(listener, service(images)))
    }));
    tasks.extend(bbs.map(|door| {
        let images = images::Images::new(backend.host(), garden::registries(config));
        smol::spawn(bridge::serve_bbs(door, service(images)))
    }));
    if with_apps {
        tasks.extend(bridge::follow(&bridge));
    }
    tasks.push(smol::spawn(rest::follow(backend.host().stirred())));
    tasks.extend(garden::serve(doors, config, backend));
    tasks.extend(garden::tend(backend, cell));
    cell.keep_store();
    if with_apps {
        tasks.push(smol::spawn(async move { checked.check_itself().await }));
    }
    if with_apps && config.cell.apps {
        let (config, cell) = (config.clone(), cell.clone());
        tasks.push(smol::spawn(async move { appsd::follow(&config, &cell).await }));
    }
    tasks
}
