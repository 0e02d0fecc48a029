//! What people ask of the cell. Each wish is recorded first; the loop does the rest.

use super::claims::{check_box_ports, check_ports};
use super::converge::desired;
use super::diff::Key;
use super::error::{CellError, Kind};
use super::record::{AppRecord, Wish};
use super::revisions;
use super::scaled::Said;
use super::shared::{AppChange, Cell, State, now_ms};
use crate::exec::logs::AppLog;
use crate::model::lrp::{ActualLrp, LrpState, ProcessGuid, Side};
use crate::model::manifest::Manifest;
use crate::model::view::Pushed;
use crate::unit::AppName;
use smol::future;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Instances of one process that may be asked for.
const INSTANCES_MAX: u32 = 1000;

/// How long a stop is waited for: ten seconds after TERM comes KILL, then containers are removed.
const STOP_MAX: Duration = Duration::from_secs(60);

/// An app's manifest, as it comes in.
#[derive(Clone, Copy, Debug)]
pub struct Declaration<'a> {
    /// The TOML.
    pub text: &'a str,
    /// Where it comes from: relative paths in it start there.
    pub file: &'a Path,
    /// What was pushed with it.
    pub pushed: Option<&'a Pushed>,
    /// The count of `web` in it was typed with it: no wish of before holds against that.
    pub counted: bool,
    /// What it is to become.
    pub how: How,
}

/// How an app is declared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// It runs, and stays.
    ToStay,
    /// The same, and it is staged whether anything has changed or not.
    Afresh,
    /// It goes when its [`Lease`](super::lease::Lease) or the daemon does.
    Temporary,
    /// It is there, and neither staged nor started before somebody starts it.
    Stopped,
}

impl Cell {
    /// Declares an app. `expected`: refused when the manifest has another name.
    pub async fn apply(
        &self,
        wanted: Declaration<'_>,
        expected: Option<&AppName>,
    ) -> Result<AppName, CellError> {
        let done = self.examine_and_declare(wanted, expected).await;
        if let (Err(_), Some(name)) = (&done, expected) {
            self.refuse_source(name, wanted.text).await;
        }
        done
    }

    async fn examine_and_declare(
        &self,
        wanted: Declaration<'_>,
        expected: Option<&AppName>,
    ) -> Result<AppName, CellError> {
        let manifest = self.examine(wanted.text, wanted.file).await?;
        if let Some(expected) = expected.filter(|name| **name != manifest.name) {
            let text = format!("the manifest is of app {}, not of {expected}", manifest.name);
            return Err(CellError::new(Kind::Invalid, text));
        }
        // A file of apps.d says itself where its source is.
        let kept = match wanted.pushed {
            Some(_) => self.with_kept_source(&manifest, wanted.text).await,
            None => None,
        };
        let Some((manifest, text)) = kept else {
            return self.declare(manifest, wanted, false).await;
        };
        let name = self.declare(manifest, Declaration { text: &text, ..wanted }, true).await?;
        // What has just been sent is there already.
        self.refuse_source(&name, wanted.text).await;
        Ok(name)
    }

    /// Reads a manifest and looks whether the box has what it needs; nothing is changed.
    async fn examine(&self, text: &str, file: &Path) -> Result<Manifest, CellError> {
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

    /// The same, and whether no program of the box has a port that it asks for. Other apps may: they may be
    /// changed before it is applied.
    pub async fn check(&self, text: &str, file: &Path) -> Result<(), CellError> {
        check_box_ports(&self.examine(text, file).await?).await
    }

    /// Declares a checked manifest. `keeps`: its source is one that the app has already.
    async fn declare(
        &self,
        manifest: Manifest,
        wanted: Declaration<'_>,
        keeps: bool,
    ) -> Result<AppName, CellError> {
        let name = manifest.name.clone();
        let Declaration { text, file, how, .. } = wanted;
        let (temporary, stopped) = (how == How::Temporary, how == How::Stopped);
        self.check_owner(&name, file).await?;
        check_box_ports(&manifest).await?;
        let file = file.to_owned();
        let pushed = wanted.pushed.cloned();
        let said = Said::of(wanted.text, wanted.counted);
        let verb = if pushed.is_some() { "push" } else { "apply" };
        let text = if text.len() <= revisions::TEXT_MAX { text.to_owned() } else { String::new() };
        let changed = self.shared.change_app(&name, |state| {
            check_ports(state, &manifest)?;
            let kept = state.apps.get(&manifest.name).is_some_and(|app| app.has_source(&manifest));
            if keeps && !kept {
                let name = &manifest.name;
                let text = format!("app {name} was changed at this moment; push it again");
                return Err(CellError::new(Kind::Conflict, text));
            }
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
                    stopped,
                    temporary,
                    wish: Wish::new(verb, now_ms()),
                    text,
                    overruled: None,
                    forced: (how == How::Afresh).then_some(app.generation + 1),
                    pushed,
                    ..app.clone().declared(manifest, file, &said)
                },
                None => AppRecord {
                    stopped,
                    temporary,
                    wish: Wish::new(verb, now_ms()),
                    text,
                    pushed,
                    // An app of this name may have been there before, and a lease on it still is.
                    ..AppRecord::new(manifest, file, state.next_generation())
                },
            };
            Ok(AppChange::Put(Box::new(record)))
        });
        changed.await?;
        Ok(name)
    }

    /// An app of the manifest directories changes with its file there, for as long as there is one:
    /// what were applied from elsewhere would be gone with the next change of that.
    async fn check_owner(&self, name: &AppName, file: &Path) -> Result<(), CellError> {
        let dirs = &self.shared.paths.apps;
        let in_dir = |file: &Path| dirs.iter().any(|dir| file.parent() == Some(dir));
        let have = self.shared.state().apps.get(name).map(|app| app.file.clone());
        let Some(have) = have.filter(|have| in_dir(have) && !in_dir(file)) else { return Ok(()) };
        let shown = have.display().to_string();
        if !smol::unblock(move || have.exists()).await {
            return Ok(());
        }
        let text = format!(
            "app {name} is declared in {shown}, not in {}; change that file, or remove it first",
            file.display()
        );
        Err(CellError::new(Kind::Conflict, text))
    }

    /// Runs `instances` of one process.
    pub async fn scale(&self, name: &str, process: &str, instances: u32) -> Result<(), CellError> {
        if instances > INSTANCES_MAX {
            let text = format!("{instances} instances are more than {INSTANCES_MAX}");
            return Err(CellError::new(Kind::Invalid, text));
        }
        let process = process.to_owned();
        self.change(name, "scale", move |_, app| {
            let have = app.process_types();
            if !have.contains(&process) {
                let have: Vec<&str> = have.iter().map(String::as_str).collect();
                let text = format!(
                    "app {} has no process `{process}`; it has {}",
                    app.manifest.name,
                    have.join(", ")
                );
                return Err(CellError::new(Kind::NotFound, text));
            }
            app.scale(process.clone(), instances);
            Ok(())
        })
        .await
    }

    /// Ends all instances and keeps the app. `wait`: returns when nothing of it runs any more, or
    /// somebody has started it again.
    pub async fn stop(&self, name: &str, wait: bool) -> Result<(), CellError> {
        let changed = self.watch();
        self.change(name, "stop", |state, app| {
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
        self.change(name, "start", |state, app| {
            let ended = |(key, record): (&Key, &ActualLrp)| {
                key.0.app == app.manifest.name && matches!(record.state, LrpState::Crashed { .. })
            };
            let crashed = state.actual.iter().any(ended);
            app.start(crashed);
            Ok(())
        })
        .await
    }

    /// Replaces every instance by a fresh one, one at a time.
    pub async fn restart(&self, name: &str) -> Result<(), CellError> {
        self.change(name, "restart", |_, app| {
            app.restart();
            Ok(())
        })
        .await
    }

    /// Makes one instance afresh: a new container, the same index. What is wanted stays as it is.
    pub async fn restart_instance(
        &self,
        name: &str,
        process: &str,
        index: u32,
    ) -> Result<(), CellError> {
        let view = self.glance(name)?;
        super::view::expect(&view, Some(process), Some(index))?;
        let guid = ProcessGuid { app: view.name, process: process.to_owned() };
        {
            let mut state = self.shared.state();
            let wanted = desired(&state.apps).get(&guid).is_some_and(|lrp| index < lrp.instances);
            if !wanted {
                let text = format!(
                    "instance {guid}/{index} is not to run; `terrarium start {name}` or \
                     `terrarium scale {guid}={}` changes that",
                    index.saturating_add(1)
                );
                return Err(CellError::new(Kind::NotRunning, text));
            }
            for side in [Side::Left, Side::Right] {
                state.afresh.insert((guid.clone(), index, side));
            }
        }
        self.shared.wake();
        Ok(())
    }

    /// Removes an app; returns when nothing of it is left on the box.
    pub async fn delete(&self, name: &str) -> Result<(), CellError> {
        let changed = self.watch();
        self.change(name, "delete", |state, app| {
            cancel_staging(state, &app.manifest.name);
            app.deleting = true;
            // Whoever deletes it means what was asked for since, too.
            app.successor = None;
            Ok(())
        })
        .await?;
        self.cancel_app_tasks(name).await;
        // Somebody may ask for the same again meanwhile, and gets it.
        let is_leaving = || {
            let state = self.shared.state();
            let app = state.apps.iter().find(|(app, _)| app.as_str() == name);
            app.is_some_and(|(_, app)| app.deleting)
        };
        while is_leaving() {
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

    /// The app is declared exactly like this, from this file, already, or somebody has gone back from
    /// just that.
    pub fn has(&self, manifest: &Manifest, file: &Path) -> bool {
        let state = self.shared.state();
        let Some(app) = state.apps.get(&manifest.name) else { return false };
        let overruled = || app.overruled == Some(revisions::digest(manifest));
        (app.manifest == *manifest || overruled()) && app.file == file && !app.deleting
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
        self.shared.events.close();
    }

    /// The log of an app, or of one that is about to be declared.
    pub fn log(&self, name: &AppName) -> Arc<AppLog> {
        self.shared.logs.app(name)
    }

    /// Changes one app's record; `what` is asked for.
    async fn change(
        &self,
        name: &str,
        what: &str,
        change: impl FnOnce(&State, &mut AppRecord) -> Result<(), CellError>,
    ) -> Result<(), CellError> {
        let name: AppName = name.parse().map_err(|_| CellError::no_app(name))?;
        let changed = self.shared.change_app(&name, |state| {
            let old = state.apps.get(&name).ok_or_else(|| CellError::no_app(name.as_str()))?;
            let mut record = old.clone();
            change(state, &mut record)?;
            Ok(match record == *old {
                true => AppChange::Keep,
                false => {
                    record.wish = Wish::new(what, now_ms());
                    AppChange::Put(Box::new(record))
                }
            })
        });
        changed.await
    }
}

/// Ends the staging that is under way: it is not asked for as it was any more. Before the record is
/// written, or what is asked for now might be meant.
pub(super) fn cancel_staging(state: &State, name: &AppName) {
    if let Some(canceller) = state.staging.get(name) {
        canceller.cancel();
    }
}
