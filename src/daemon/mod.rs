//! Puts the rooms together, in order, and takes them apart again.
//!
//! Owns: the lock on the state directory, the order of start and stop, the systemd notifications.
//! Must not: decide anything about apps; speak HTTP itself.
//! Called by: `main`, `cli` (for `run`). Calls: every room below.
//! Entry points: [`serve`], [`start_embedded`].
//!
//! Start: lock, store, cgroups, network, records, adopt what lives, then the loop, then the
//! socket, then the manifests of apps.d, then READY. A stop leaves containers as they are: the
//! next start takes them over.

mod appsd;
mod lock;
mod notify;
mod parts;
mod service;

use crate::api::apps::Apps;
use crate::api::http;
use crate::cell::Cell;
use crate::config::machine::Config;
use crate::sys::{self, signal::Signal};
use std::error::Error;
use std::fmt;

/// The daemon could not start or go on.
#[derive(Debug)]
pub enum DaemonError {
    /// Another daemon works on the state directory.
    Locked {
        /// The directory.
        dir: std::path::PathBuf,
        /// Its process id, when it could be read.
        pid: Option<i32>,
    },
    /// It does not run as root.
    NotRoot,
    /// "cannot {doing}".
    Start {
        /// What was tried, on what.
        doing: String,
        /// Why not.
        source: Box<dyn Error + Send + Sync>,
    },
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
            DaemonError::Start { doing, .. } => write!(f, "cannot {doing}"),
        }
    }
}

impl Error for DaemonError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            DaemonError::Start { source, .. } => Some(source.as_ref()),
            DaemonError::Locked { .. } | DaemonError::NotRoot => None,
        }
    }
}

/// Wraps a foreign error with what was tried.
fn start<E: Into<Box<dyn Error + Send + Sync>>>(doing: impl Into<String>) -> impl FnOnce(E) -> DaemonError {
    let doing = doing.into();
    move |source| DaemonError::Start { doing, source: source.into() }
}

/// Runs until SIGTERM or SIGINT. Containers go on without the daemon.
pub fn serve(config: &Config) -> Result<(), DaemonError> {
    // Before any thread exists, so that all of them leave the signals to us.
    let signals = sys::signal::watch(&[Signal::SIGTERM, Signal::SIGINT])
        .map_err(start("take over the signals"))?;
    let (lock, cell) = open(config)?;
    smol::block_on(async {
        let server = smol::spawn(begin(config.clone(), cell.clone(), true)?);
        notify::ready();
        crate::info!("daemon.ready", version = env!("CARGO_PKG_VERSION"));
        let watchdog = smol::spawn(notify::watchdog());
        let signal = async_io::Async::new(signals).map_err(start("wait for signals"))?;
        let _ = signal.readable().await;
        notify::stopping();
        cell.close();
        server.cancel().await;
        watchdog.cancel().await;
        Ok(())
    })?;
    end(config, cell, lock)
}

/// A daemon within this process, for `terrarium run`.
pub struct Embedded {
    config: Config,
    cell: Cell,
    lock: lock::Lock,
    server: smol::Task<()>,
}

/// Starts a daemon within this process. apps.d is left alone: only what is applied runs.
pub fn start_embedded(config: &Config) -> Result<Embedded, DaemonError> {
    let (lock, cell) = open(config)?;
    let server = smol::block_on(async {
        Ok(smol::spawn(begin(config.clone(), cell.clone(), false)?))
    })?;
    Ok(Embedded { config: config.clone(), cell, lock, server })
}

impl Embedded {
    /// Ends it. What still runs goes on without it; with nothing left, the store is unmounted.
    pub fn stop(self) -> Result<(), DaemonError> {
        self.cell.close();
        smol::block_on(self.server.cancel());
        end(&self.config, self.cell, self.lock)
    }
}

/// Everything up to a cell that has taken over what lives.
fn open(config: &Config) -> Result<(lock::Lock, Cell), DaemonError> {
    if sys::process::effective_uid() != 0 {
        return Err(DaemonError::NotRoot);
    }
    let lock = lock::take(&config.paths.state)?;
    let cell = parts::cell(config)?;
    smol::block_on(cell.adopt());
    Ok((lock, cell))
}

/// The socket and the loop, as one task that never ends by itself.
fn begin(
    config: Config,
    cell: Cell,
    with_apps_dir: bool,
) -> Result<impl Future<Output = ()> + Send, DaemonError> {
    let path = config.paths.socket();
    let socket = http::listen::listen(&path, config.socket.mode, Some(&config.socket.group))
        .map_err(start(format!("listen on {}", path.display())))?;
    let apps = Apps::new(service::Service::new(cell.clone()));
    Ok(async move {
        let serve = smol::spawn(async move {
            let err = http::server::serve(socket.listener(), &apps, http::server::Limits::default()).await;
            crate::error!("socket.broken", err = err);
        });
        let converge = {
            let cell = cell.clone();
            smol::spawn(async move { cell.converge().await })
        };
        let apps = smol::spawn(async move {
            if with_apps_dir {
                appsd::follow(&config, &cell).await;
            }
        });
        smol::future::zip(smol::future::zip(serve, converge), apps).await;
    })
}

/// Closes what can be closed: with no container left, the box is as it was before the start.
fn end(config: &Config, cell: Cell, lock: lock::Lock) -> Result<(), DaemonError> {
    let _ = std::fs::remove_file(config.paths.socket());
    if cell.containers() == 0 {
        parts::close(cell)?;
    }
    drop(lock);
    crate::info!("daemon.stopped");
    Ok(())
}
