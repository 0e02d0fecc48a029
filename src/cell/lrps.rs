//! LRPs that were asked for as Diego's DesiredLRPs: found by the guid that their client has for them,
//! changed, ended.

use super::by_record::{PROCESS, check_ports, manifest};
use super::error::{CellError, Kind};
use super::record::{AppRecord, Wish};
use super::shared::{AppChange, Cell, State, now_ms};
use crate::model::container::LrpContainer;
use crate::model::desired::LrpChange;
use crate::model::lrp::{ActualLrp, Place, ProcessGuid, Side};
use crate::model::task::inner_name;
use crate::unit::AppName;
use std::collections::BTreeSet;
use std::net::Ipv4Addr;

/// One of them, and how it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lrp {
    /// Its app here.
    pub name: AppName,
    /// What was asked for, with its facts.
    pub container: LrpContainer,
    /// One for each index that has a record, by index: of two, the one that runs, else the newer.
    pub instances: Vec<ActualLrp>,
    /// Why its root could not be had.
    pub failure: Option<String>,
    /// When it was asked for, in milliseconds since 1970.
    pub since_ms: u64,
}

impl Cell {
    /// What this cell is called.
    pub fn id(&self) -> String {
        self.shared.cell_id.clone()
    }

    /// Where it stands.
    pub fn zone(&self) -> String {
        self.shared.settings.zone.clone()
    }

    /// Tags that who comes here has to ask for, and those that he may.
    pub fn tags(&self) -> (Vec<String>, Vec<String>) {
        let tags = &self.shared.settings.tags;
        (tags.needed.clone(), tags.optional.clone())
    }

    /// Where a container is found inside the box.
    pub fn address_of(&self, place: &Place) -> Ipv4Addr {
        self.shared.host.net().addresses(place.slot).container
    }

    /// Every LRP that is not on its way out, by its app's name.
    pub fn lrps(&self) -> Vec<Lrp> {
        let state = self.shared.state();
        let all = state.apps.iter().filter_map(|(name, app)| found(&state, name, app));
        all.collect()
    }

    /// One of them.
    pub fn lrp(&self, guid: &str) -> Option<Lrp> {
        let name = inner_name(guid);
        let state = self.shared.state();
        let app = state.apps.get(&name)?;
        found(&state, &name, app).filter(|lrp| lrp.container.guid == guid)
    }

    /// Changes what may be changed while it runs. What runs goes on.
    pub async fn update_lrp(&self, guid: &str, change: LrpChange) -> Result<(), CellError> {
        let (name, guid) = (inner_name(guid), guid.to_owned());
        let changed = self.shared.change_app(&name, |state| {
            let mut app = of_guid(state, &name, &guid)?.clone();
            let held = if app.deleting { &mut app.successor } else { &mut app.container };
            let Some(container) = held else { return Err(unknown(&guid)) };
            let Some(facts) = container.desired.as_ref() else { return Err(unknown(&guid)) };
            let changed = facts.changed(&change);
            if changed == *facts {
                return Ok(AppChange::Keep);
            }
            container.desired = Some(changed.clone());
            let described = manifest(&name, container);
            check_ports(state, &described)?;
            if app.deleting {
                return Ok(AppChange::Put(Box::new(app)));
            }
            app.manifest = described;
            for release in app.release.iter_mut().chain(&mut app.last_good) {
                if let Some(container) = &mut release.container {
                    container.desired = Some(changed.clone());
                }
            }
            // What is being staged was asked for with the old words.
            if state.staging.contains_key(&name) {
                app.generation += 1;
            }
            // Whoever says how many says it for the command line, too.
            if change.instances.is_some() {
                app.unscale();
            }
            app.wish = Wish::new("update", now_ms());
            Ok(AppChange::Put(Box::new(app)))
        });
        changed.await
    }

    /// Removes it. It is on the disk when this returns; what runs of it ends from here on.
    pub async fn remove_lrp(&self, guid: &str) -> Result<(), CellError> {
        let (name, guid) = (inner_name(guid), guid.to_owned());
        let changed = self.shared.change_app(&name, |state| {
            let app = of_guid(state, &name, &guid)?;
            if app.deleting {
                let none = AppRecord { successor: None, ..app.clone() };
                return Ok(AppChange::Put(Box::new(none)));
            }
            if let Some(staging) = state.staging.get(&name) {
                staging.cancel();
            }
            let wish = Wish::new("delete", now_ms());
            Ok(AppChange::Put(Box::new(AppRecord { deleting: true, wish, ..app.clone() })))
        });
        changed.await
    }

    /// Ends one instance; what is wanted stays as it is, and a fresh one takes the index.
    pub async fn retire(&self, guid: &str, index: u32) -> Result<(), CellError> {
        let lrp = self.lrp(guid).ok_or_else(|| unknown(guid))?;
        if !lrp.instances.iter().any(|one| one.index == index) {
            // Nobody has begun it: it is listed as unclaimed, and so is the one that takes its place.
            if index < lrp.container.instances() {
                return Ok(());
            }
            let text = format!("LRP {guid} has no instance {index}");
            return Err(CellError::new(Kind::NotFound, text));
        }
        self.restart_instance(lrp.name.as_str(), PROCESS, index).await
    }

    /// Names of the box's stacks. Blocking work on the pool.
    pub async fn stacks(&self) -> BTreeSet<String> {
        let site = self.shared.site();
        let name = |path: std::path::PathBuf| {
            let name = path.file_name()?.to_str()?;
            Some(name.strip_suffix(".tar.zst").unwrap_or(name).to_owned())
        };
        smol::unblock(move || {
            let own = site.stack_archives().into_iter().filter_map(name);
            own.chain(site.preloaded.keys().cloned()).collect()
        })
        .await
    }
}

fn unknown(guid: &str) -> CellError {
    CellError::new(Kind::NotFound, format!("there is no DesiredLRP {guid}"))
}

fn of_guid<'a>(state: &'a State, name: &AppName, guid: &str) -> Result<&'a AppRecord, CellError> {
    let is_it = |app: &&AppRecord| wanted(app).is_some_and(|it| it.guid == guid);
    state.apps.get(name).filter(is_it).ok_or_else(|| unknown(guid))
}

/// The DesiredLRP that an app's record stands for: of one on its way out, what comes after it.
fn wanted(app: &AppRecord) -> Option<&LrpContainer> {
    let held = if app.deleting { &app.successor } else { &app.container };
    held.as_deref().filter(|it| it.desired.is_some())
}

fn found(state: &State, name: &AppName, app: &AppRecord) -> Option<Lrp> {
    let container = wanted(app)?;
    if app.deleting {
        // What runs of the one before is not its own, and nothing of its own has begun.
        return Some(Lrp {
            name: name.clone(),
            container: container.clone(),
            instances: Vec::new(),
            failure: None,
            since_ms: app.wish.as_ref().map_or(app.generation, |wish| wish.at_ms),
        });
    }
    let mut instances: Vec<ActualLrp> = Vec::new();
    let first = (ProcessGuid { app: name.clone(), process: PROCESS.into() }, 0, Side::default());
    let mine = state.actual.range(first..).take_while(|(key, _)| key.0.app == *name);
    for (_, actual) in mine {
        match instances.iter_mut().find(|one| one.index == actual.index) {
            None => instances.push(actual.clone()),
            Some(one) if (actual.runs(), actual.since_ms) > (one.runs(), one.since_ms) => {
                *one = actual.clone();
            }
            Some(_) => {}
        }
    }
    instances.sort_by_key(|one| one.index);
    Some(Lrp {
        name: name.clone(),
        container: container.clone(),
        instances,
        failure: app.failure.clone(),
        since_ms: app.wish.as_ref().map_or(app.generation, |wish| wish.at_ms),
    })
}
