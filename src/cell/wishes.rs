//! What people ask of the cell. Each wish is recorded first; the loop does the rest.

use super::converge::lrps;
use super::error::{CellError, Kind};
use super::record::AppRecord;
use super::shared::{Cell, State};
use crate::config::manifest;
use crate::exec::logs::AppLog;
use crate::model::manifest::Manifest;
use crate::unit::AppName;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Instances of one process that may be asked for.
const INSTANCES_MAX: u32 = 1000;

impl Cell {
    /// Declares an app. `file` is where `text` comes from: relative paths in it start there.
    /// `expected`: refused when the manifest has another name.
    pub async fn apply(
        &self,
        text: &str,
        file: &Path,
        expected: Option<&AppName>,
    ) -> Result<AppName, CellError> {
        let dir = file.parent().unwrap_or(Path::new("/"));
        let manifest = manifest::parse(text, &file.display().to_string(), dir)
            .map_err(|problems| CellError::new(Kind::Invalid, problems.render(false)))?;
        if let Some(expected) = expected.filter(|name| **name != manifest.name) {
            let text = format!("the manifest is of app {}, not of {expected}", manifest.name);
            return Err(CellError::new(Kind::Invalid, text));
        }
        self.declare(manifest, file).await
    }

    /// Declares a checked manifest.
    async fn declare(&self, manifest: Manifest, file: &Path) -> Result<AppName, CellError> {
        let name = manifest.name.clone();
        if !manifest.source.is_dir() {
            return Err(CellError::new(
                Kind::Invalid,
                format!(
                    "app {name}: [source] path {} is not a directory of this box",
                    manifest.source.display()
                ),
            ));
        }
        let record = {
            let state = self.shared.state();
            check_ports(&state, &manifest)?;
            match state.apps.get(&name) {
                Some(app) if app.deleting => {
                    let text = format!("app {name} is being deleted; try again in a moment");
                    return Err(CellError::new(Kind::Conflict, text));
                }
                Some(app) => AppRecord {
                    manifest,
                    file: file.to_owned(),
                    generation: app.generation + 1,
                    failure: None,
                    scale: Default::default(),
                    stopped: false,
                    ..app.clone()
                },
                None => AppRecord {
                    manifest,
                    file: file.to_owned(),
                    generation: 1,
                    staged: None,
                    failure: None,
                    release: None,
                    scale: Default::default(),
                    restarts: 0,
                    stopped: false,
                    deleting: false,
                },
            }
        };
        self.record(&name, record).await?;
        Ok(name)
    }

    /// Runs `instances` of one process.
    pub async fn scale(&self, name: &str, process: &str, instances: u32) -> Result<(), CellError> {
        if instances > INSTANCES_MAX {
            let text = format!("{instances} instances are more than {INSTANCES_MAX}");
            return Err(CellError::new(Kind::Invalid, text));
        }
        let process = process.to_owned();
        self.change(name, move |app| {
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

    /// Ends all instances and keeps the app.
    pub async fn stop(&self, name: &str) -> Result<(), CellError> {
        self.change(name, |app| {
            app.stopped = true;
            Ok(())
        })
        .await?;
        self.cancel_staging(name);
        Ok(())
    }

    /// Runs a stopped app again; one that has crashed too often, or whose staging failed, gets a
    /// new chance.
    pub async fn start(&self, name: &str) -> Result<(), CellError> {
        self.change(name, |app| {
            if app.failure.is_some() {
                app.staged = None;
            }
            app.stopped = false;
            app.restarts += 1;
            Ok(())
        })
        .await
    }

    /// Replaces every instance by a fresh one, one at a time.
    pub async fn restart(&self, name: &str) -> Result<(), CellError> {
        self.start(name).await
    }

    /// Removes an app; returns when nothing of it is left on the box.
    pub async fn delete(&self, name: &str) -> Result<(), CellError> {
        let changed = self.watch();
        self.change(name, |app| {
            app.deleting = true;
            Ok(())
        })
        .await?;
        self.cancel_staging(name);
        while self.shared.state().apps.keys().any(|app| app.as_str() == name) {
            let _ = changed.recv().await;
        }
        Ok(())
    }

    /// Every app and the file that it was declared in.
    pub fn files(&self) -> Vec<(AppName, PathBuf)> {
        let state = self.shared.state();
        state.apps.iter().map(|(name, app)| (name.clone(), app.file.clone())).collect()
    }

    /// The app is declared exactly like this, from this file, already.
    pub fn has(&self, manifest: &Manifest, file: &Path) -> bool {
        let state = self.shared.state();
        let app = state.apps.get(&manifest.name);
        app.is_some_and(|app| app.manifest == *manifest && app.file == file && !app.deleting)
    }

    /// Begins nothing more and touches no container: the daemon ends. Watchers hear that there is
    /// nothing more to hear.
    pub fn close(&self) {
        let mut state = self.shared.state();
        state.closing = true;
        state.watchers.clear();
    }

    /// Containers of the box, whole or half-made.
    pub fn containers(&self) -> usize {
        self.shared.host.list().map(|list| list.len()).unwrap_or(0)
    }

    /// The log of an app, or of one that is about to be declared.
    pub fn log(&self, name: &AppName) -> Arc<AppLog> {
        self.shared.logs.app(name)
    }

    /// Changes one app's record.
    async fn change(
        &self,
        name: &str,
        change: impl FnOnce(&mut AppRecord) -> Result<(), CellError>,
    ) -> Result<(), CellError> {
        let found = {
            let state = self.shared.state();
            let mut apps = state.apps.iter();
            apps.find(|(app, _)| app.as_str() == name).map(|(app, rec)| (app.clone(), rec.clone()))
        };
        let (app, mut record) = found.ok_or_else(|| CellError::no_app(name))?;
        change(&mut record)?;
        self.record(&app, record).await
    }

    /// Writes a record on the pool, for it waits for the disk, and lets the loop look.
    async fn record(&self, name: &AppName, record: AppRecord) -> Result<(), CellError> {
        let (shared, app) = (self.shared.clone(), name.clone());
        smol::unblock(move || shared.put_app(&app, record)).await?;
        self.shared.wake();
        Ok(())
    }

    fn cancel_staging(&self, name: &str) {
        let state = self.shared.state();
        if let Some((_, canceller)) = state.staging.iter().find(|(app, _)| app.as_str() == name) {
            canceller.cancel();
        }
    }
}

/// No two apps, and no app and an instance's own port, may claim one port of the box.
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
