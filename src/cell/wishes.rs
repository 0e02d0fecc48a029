//! What people ask of the cell. Each wish is recorded first; the loop does the rest.

use super::converge::lrps;
use super::diff::Key;
use super::error::{CellError, Kind};
use super::record::AppRecord;
use super::shared::{AppChange, Cell, State, now_ms};
use crate::exec::logs::AppLog;
use crate::model::lrp::{ActualLrp, LrpState};
use crate::model::manifest::Manifest;
use crate::unit::AppName;
use smol::future;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Instances of one process that may be asked for.
const INSTANCES_MAX: u32 = 1000;

/// How long a stop is waited for: ten seconds after TERM comes KILL, then containers are removed.
const STOP_MAX: Duration = Duration::from_secs(60);

impl Cell {
    /// Declares an app. `file` is where `text` comes from: relative paths in it start there.
    /// `expected`: refused when the manifest has another name. `temporary`: it goes when its
    /// [`Lease`] or the daemon does.
    pub async fn apply(
        &self,
        text: &str,
        file: &Path,
        expected: Option<&AppName>,
        temporary: bool,
    ) -> Result<AppName, CellError> {
        let manifest = self.examine(text, file).await?;
        if let Some(expected) = expected.filter(|name| **name != manifest.name) {
            let text = format!("the manifest is of app {}, not of {expected}", manifest.name);
            return Err(CellError::new(Kind::Invalid, text));
        }
        self.declare(manifest, file, temporary).await
    }

    /// Reads a manifest and looks whether the box has what it needs; nothing is changed.
    pub async fn examine(&self, text: &str, file: &Path) -> Result<Manifest, CellError> {
        let site = self.shared.site();
        let (text, file) = (text.to_owned(), file.to_owned());
        // On the pool: it looks at the box's directories.
        let examined = smol::unblock(move || {
            let dir = file.parent().unwrap_or(Path::new("/"));
            site.examine(&text, &file.display().to_string(), dir)
        });
        let (manifest, _) = examined.await.map_err(|problems| CellError::invalid(&problems))?;
        Ok(manifest)
    }

    /// Declares a checked manifest.
    async fn declare(
        &self,
        manifest: Manifest,
        file: &Path,
        temporary: bool,
    ) -> Result<AppName, CellError> {
        let name = manifest.name.clone();
        self.check_box_ports(&manifest).await?;
        let file = file.to_owned();
        let changed = self.shared.change_app(&name, |state| {
            check_ports(state, &manifest)?;
            // What it was before need not be staged to the end.
            cancel_staging(state, &manifest.name);
            let record = match state.apps.get(&manifest.name) {
                Some(app) if app.deleting => {
                    let name = &manifest.name;
                    let text = format!("app {name} is being deleted; try again in a moment");
                    return Err(CellError::new(Kind::Conflict, text));
                }
                Some(_) if temporary => {
                    let name = &manifest.name;
                    let text = format!(
                        "`{name}` is there already; use `terrarium apply`, or `terrarium delete \
                         {name}` first"
                    );
                    return Err(CellError::new(Kind::Conflict, text));
                }
                Some(app) => AppRecord {
                    manifest,
                    file,
                    generation: app.generation + 1,
                    failure: None,
                    scale: Default::default(),
                    stopped: false,
                    temporary,
                    ..app.clone()
                },
                None => AppRecord {
                    manifest,
                    file,
                    // An app of this name may have been there before, and a lease on it still is.
                    generation: now_ms(),
                    staged: None,
                    failure: None,
                    release: None,
                    scale: Default::default(),
                    restarts: 0,
                    stopped: false,
                    temporary,
                    deleting: false,
                },
            };
            Ok(AppChange::Put(Box::new(record)))
        });
        changed.await?;
        Ok(name)
    }

    /// A port may be published when no program of the box has it: what the
    /// kernel leads to an app never reaches, say, the box's own sshd again.
    async fn check_box_ports(&self, manifest: &Manifest) -> Result<(), CellError> {
        let wanted: BTreeSet<u16> = manifest.ports.iter().filter_map(|port| port.publish).collect();
        let taken = smol::unblock(move || {
            let taken = |port: &u16| {
                let bound = TcpListener::bind((Ipv4Addr::UNSPECIFIED, *port));
                bound.is_err_and(|err| err.kind() == std::io::ErrorKind::AddrInUse)
            };
            wanted.into_iter().find(taken)
        });
        match taken.await {
            Some(port) => {
                let text = format!(
                    "app {}: port {port} cannot be published: a program of this box listens on \
                     it; `ss -ltnp 'sport = {port}'` tells which",
                    manifest.name
                );
                Err(CellError::new(Kind::Conflict, text))
            }
            None => Ok(()),
        }
    }

    /// Runs `instances` of one process.
    pub async fn scale(&self, name: &str, process: &str, instances: u32) -> Result<(), CellError> {
        if instances > INSTANCES_MAX {
            let text = format!("{instances} instances are more than {INSTANCES_MAX}");
            return Err(CellError::new(Kind::Invalid, text));
        }
        let process = process.to_owned();
        self.change(name, move |_, app| {
            if !app.manifest.processes.contains_key(&process) {
                let have: Vec<&str> = app.manifest.processes.keys().map(String::as_str).collect();
                let text = format!(
                    "app {} has no process `{process}`; it has {}",
                    app.manifest.name,
                    have.join(", ")
                );
                return Err(CellError::new(Kind::NotFound, text));
            }
            app.scale.insert(process.clone(), instances);
            Ok(())
        })
        .await
    }

    /// Ends all instances and keeps the app. `wait`: returns when nothing of it runs any more, or
    /// somebody has started it again.
    pub async fn stop(&self, name: &str, wait: bool) -> Result<(), CellError> {
        let changed = self.watch();
        self.change(name, |state, app| {
            cancel_staging(state, &app.manifest.name);
            app.stopped = true;
            Ok(())
        })
        .await?;
        if !wait {
            return Ok(());
        }
        let stopped = async {
            while self.is_stopping(name) {
                if changed.recv().await.is_err() {
                    let text = format!("the daemon ends; the next one goes on stopping app {name}");
                    return Err(CellError::new(Kind::Failed, text));
                }
            }
            Ok(())
        };
        future::or(stopped, async {
            async_io::Timer::after(STOP_MAX).await;
            let text = format!(
                "app {name} has not stopped after {} seconds; it goes on, `terrarium app {name}` \
                 tells how far it is",
                STOP_MAX.as_secs()
            );
            Err(CellError::new(Kind::Failed, text))
        })
        .await
    }

    /// The app was told to stop, and something of it is still there.
    fn is_stopping(&self, name: &str) -> bool {
        let state = self.shared.state();
        let stopped = |name: &str| {
            let app = state.apps.iter().find(|(app, _)| app.as_str() == name);
            app.is_some_and(|(_, app)| app.stopped && !app.deleting)
        };
        let busy = state.supervised.keys().any(|key| key.0.app.as_str() == name)
            || state.staging.keys().any(|app| app.as_str() == name);
        busy && stopped(name)
    }

    /// Runs a stopped app again; one that has crashed too often, or whose staging failed, gets a
    /// new chance.
    pub async fn start(&self, name: &str) -> Result<(), CellError> {
        self.change(name, |state, app| {
            let ended = |(key, record): (&Key, &ActualLrp)| {
                key.0.app == app.manifest.name && matches!(record.state, LrpState::Crashed { .. })
            };
            // What runs goes on as it is.
            if app.stopped || state.actual.iter().any(ended) {
                app.restarts += 1;
            }
            run_again(app);
            Ok(())
        })
        .await
    }

    /// Replaces every instance by a fresh one, one at a time.
    pub async fn restart(&self, name: &str) -> Result<(), CellError> {
        self.change(name, |_, app| {
            app.restarts += 1;
            run_again(app);
            Ok(())
        })
        .await
    }

    /// Removes an app; returns when nothing of it is left on the box.
    pub async fn delete(&self, name: &str) -> Result<(), CellError> {
        let changed = self.watch();
        self.change(name, |state, app| {
            cancel_staging(state, &app.manifest.name);
            app.deleting = true;
            Ok(())
        })
        .await?;
        while self.shared.state().apps.keys().any(|app| app.as_str() == name) {
            if changed.recv().await.is_err() {
                let text = format!("the daemon ends; the next one goes on deleting app {name}");
                return Err(CellError::new(Kind::Failed, text));
            }
        }
        Ok(())
    }

    /// Every app and the file that it was declared in.
    pub fn files(&self) -> Vec<(AppName, PathBuf)> {
        let state = self.shared.state();
        state.apps.iter().map(|(name, app)| (name.clone(), app.file.clone())).collect()
    }

    /// Keeps what stands in the box's own manifests and is not followed, for whoever asks how the
    /// box is.
    pub fn refuse(&self, refused: BTreeMap<PathBuf, String>) {
        self.shared.state().refused = refused;
    }

    /// The app is declared exactly like this, from this file, already.
    pub fn has(&self, manifest: &Manifest, file: &Path) -> bool {
        let state = self.shared.state();
        let app = state.apps.get(&manifest.name);
        app.is_some_and(|app| app.manifest == *manifest && app.file == file && !app.deleting)
    }

    /// The app is on its way out.
    pub fn is_leaving(&self, name: &AppName) -> bool {
        self.shared.state().apps.get(name).is_some_and(|app| app.deleting)
    }

    /// Begins nothing more and touches no container: the daemon ends. Watchers hear that there is
    /// nothing more to hear.
    pub fn close(&self) {
        let mut state = self.shared.state();
        state.closing = true;
        state.watchers.clear();
    }

    /// The log of an app, or of one that is about to be declared.
    pub fn log(&self, name: &AppName) -> Arc<AppLog> {
        self.shared.logs.app(name)
    }

    /// Changes one app's record.
    async fn change(
        &self,
        name: &str,
        change: impl FnOnce(&State, &mut AppRecord) -> Result<(), CellError>,
    ) -> Result<(), CellError> {
        let name: AppName = name.parse().map_err(|_| CellError::no_app(name))?;
        let changed = self.shared.change_app(&name, |state| {
            let old = state.apps.get(&name).ok_or_else(|| CellError::no_app(name.as_str()))?;
            let mut record = old.clone();
            change(state, &mut record)?;
            Ok(match record == *old {
                true => AppChange::Keep,
                false => AppChange::Put(Box::new(record)),
            })
        });
        changed.await
    }
}

/// Ends the staging that is under way: it is not asked for as it was any more. Before the record is
/// written, or what is asked for now might be meant.
fn cancel_staging(state: &State, name: &AppName) {
    if let Some(canceller) = state.staging.get(name) {
        canceller.cancel();
    }
}

/// It shall run; what failed gets a new chance.
fn run_again(app: &mut AppRecord) {
    if app.failure.take().is_some() {
        app.staged = None;
    }
    app.stopped = false;
}

/// No two apps may claim one port of the box.
fn check_ports(state: &State, manifest: &Manifest) -> Result<(), CellError> {
    let mine = manifest.ports.iter().filter_map(|port| port.publish);
    for port in mine {
        let other = state.apps.iter().find(|(name, app)| {
            let released = app.release.iter().flat_map(|release| lrps(release, 0));
            let mut running = released.flat_map(|lrp| lrp.ports).filter_map(|port| port.publish);
            let mut declared = app.manifest.ports.iter().filter_map(|port| port.publish);
            **name != manifest.name
                && (declared.any(|other| other == port) || running.any(|other| other == port))
        });
        if let Some((other, _)) = other {
            let text = format!("app {}: port {port} is published by app {other}", manifest.name);
            return Err(CellError::new(Kind::Conflict, text));
        }
    }
    Ok(())
}
