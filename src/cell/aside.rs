//! Apps whose records cannot be read: they are set aside, and what runs of them runs on, untouched.
//!
//! Nobody can tell what such an app shall be, so nobody makes, ends or judges anything of it. Its instances'
//! records are out of the loop's sight, its containers keep their place in the books and their ports. When
//! somebody has declared it anew, and there is a release, they are taken over as at the daemon's start;
//! whoever deletes it, or drains the cell, ends them.

use super::by_record;
use super::diff::{self, Key};
use super::drain;
use super::error::{CellError, Kind};
use super::record::AppRecord;
use super::shared::{AppChange, Cell, Shared, State};
use super::store::{Records, Unread};
use crate::exec::room::Resources;
use crate::log::chain;
use crate::model::lrp::{ActualLrp, Place};
use crate::unit::{AppName, Handle};
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::Arc;

/// What there is of an app that was set aside.
#[derive(Debug, Default)]
pub(super) struct Left {
    /// Its instances' records.
    actual: BTreeMap<Key, ActualLrp>,
    /// Its containers that live, or may, and what is booked for each.
    containers: BTreeMap<Handle, Resources>,
    /// Ports of the box that its record names.
    ports: BTreeSet<u16>,
}

/// Those apps, by name.
pub(super) type Aside = BTreeMap<AppName, Left>;

/// Takes from the records those of instances whose apps are set aside, or were declared anew since and have
/// no release yet.
pub(super) fn split(records: &mut Records) -> Aside {
    let mut aside = Aside::new();
    for (key, record) in std::mem::take(&mut records.actual) {
        let unread = records.set_aside.get(key.0.app.as_str()).map(|unread| unread.ports.clone());
        let app = records.apps.get(&key.0.app).filter(|app| next(true, Some(app)) == Next::Stays);
        let declared = |app: &AppRecord| {
            app.manifest.ports.iter().filter_map(|port| port.publish).collect::<BTreeSet<u16>>()
        };
        match unread.or(app.map(declared)) {
            None => drop(records.actual.insert(key, record)),
            Some(ports) => {
                let left = aside.entry(key.0.app.clone()).or_default();
                left.ports = ports;
                left.actual.insert(key, record);
            }
        }
    }
    aside
}

/// What becomes of what there is of such an app.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// It stays as it is.
    Stays,
    /// The app has a record again: the loop goes on with it.
    TakenOver,
}

/// `is_read`: no record is set aside any more; `app`: the one that there is instead.
fn next(is_read: bool, app: Option<&AppRecord>) -> Next {
    match app {
        _ if !is_read => Next::Stays,
        // What is declared anew takes over once there is something to start.
        Some(app) if app.release.is_none() && !app.stopped && !app.deleting => Next::Stays,
        _ => Next::TakenOver,
    }
}

impl State {
    /// The containers of apps that were set aside.
    pub(super) fn left_containers(&self) -> impl Iterator<Item = &Handle> {
        self.aside.values().flat_map(|left| left.containers.keys())
    }

    /// Ports that lead to them: nobody knows where to inside, so they stay as the last daemon wrote them.
    pub(super) fn left_ports(&self) -> BTreeSet<u16> {
        let alive = self.aside.values().filter(|left| !left.containers.is_empty());
        alive.flat_map(|left| &left.ports).copied().collect()
    }

    /// The instance of an app that was set aside that is recorded to live in this container.
    fn left_in(&self, handle: &Handle) -> Option<(Key, Place)> {
        self.aside.values().find_map(|left| diff::lives_in(handle, &left.actual))
    }

    /// There is no app of that name that could be read.
    pub(super) fn no_app(&self, name: &str) -> CellError {
        match self.set_aside.get(name) {
            None => CellError::no_app(name),
            Some(unread) => CellError::new(Kind::Conflict, told(name, unread)),
        }
    }
}

/// What people are told of such an app.
pub(super) fn told(name: &str, unread: &Unread) -> String {
    format!(
        "app {name} is set aside, as its record cannot be read: {}; what runs of it runs on; `terrarium \
         apply` its manifest anew, `terrarium delete {name}`, or start the daemon that wrote the record",
        unread.why
    )
}

impl Shared {
    /// At the daemon's start: whether it is a container of an app that was set aside, and lives or may.
    /// Then it is left as it is.
    pub(super) async fn is_left(self: &Arc<Self>, handle: &Handle) -> bool {
        let Some((key, place)) = self.state().left_in(handle) else { return false };
        let (shared, name) = (self.clone(), handle.clone());
        let found = smol::unblock(move || {
            let needs = |name| {
                let entry = shared.host.entry(name).ok().flatten();
                entry.map(|entry| Resources::of(&entry.spec.limits))
            };
            match shared.host.reopen(&name) {
                Ok(None) => None,
                // It is let go of at once: its pid 1 keeps what it writes, as while no daemon is there.
                Ok(Some(_)) => Some(needs(&name)),
                Err(err) => {
                    crate::error!("container.lost", handle = name, err = chain(&err));
                    Some(needs(&name))
                }
            }
        });
        let Some(needs) = found.await else { return false };
        let needs = needs.unwrap_or(Resources { containers: 1, ..Resources::default() });
        self.host.hold_for_app(handle, place.slot, &place.ports);
        crate::warn!("instance.left", app = key.0, index = key.1, handle = handle);
        let mut state = self.state();
        state.room.force(needs);
        let left = state.aside.entry(key.0.app).or_default();
        left.containers.insert(handle.clone(), needs);
        true
    }

    /// Goes on with what runs of apps that were set aside and that somebody has declared anew, and ends it
    /// when the cell is drained.
    pub(super) async fn take_back(self: &Arc<Self>) {
        let (taken, ended) = {
            let state = self.state();
            let is_read = |name: &AppName| !state.set_aside.contains_key(name.as_str());
            let taken = |name: &&AppName| next(is_read(name), state.apps.get(*name));
            let taken = |name: &&AppName| taken(name) == Next::TakenOver;
            let drains = drain::ends_instances(&state);
            let ended = |(_, left): &(&AppName, &Left)| drains && !left.containers.is_empty();
            let ended = state.aside.iter().filter(ended).map(|(name, _)| name.clone());
            let ended: Vec<AppName> = ended.collect();
            (state.aside.keys().filter(taken).cloned().collect::<Vec<_>>(), ended)
        };
        for name in ended {
            self.end_left(&name).await;
        }
        for name in taken {
            self.take_over_left(&name).await;
        }
    }

    async fn take_over_left(self: &Arc<Self>, name: &AppName) {
        let starts =
            |state: &State| state.apps.get(name).is_some_and(|app| !app.stopped && !app.deleting);
        if !starts(&self.state()) {
            self.end_left(name).await;
        }
        let (actual, containers) = {
            let mut state = self.state();
            let Some(left) = state.aside.get_mut(name) else { return };
            // They stay on the list, so that nobody takes them for nobody's.
            let containers: Vec<Handle> = left.containers.keys().cloned().collect();
            (std::mem::take(&mut left.actual), containers)
        };
        for (key, record) in &actual {
            self.keep_actual(key.clone(), Some(record.clone()));
        }
        for handle in containers {
            self.host.unhold(&handle);
            self.decide(&handle).await;
            // Who goes on with it has booked it by now: it was in the books twice for a moment, not never.
            self.give_up_left(name, &handle);
        }
        self.lose_unsupervised(|key| actual.contains_key(key)).await;
        {
            let mut state = self.state();
            distrust(&mut state, name);
            state.aside.remove(name);
        }
        self.wake();
    }

    /// Ends what runs of an app that was set aside.
    async fn end_left(self: &Arc<Self>, name: &AppName) {
        let containers: Vec<Handle> = {
            let mut state = self.state();
            distrust(&mut state, name);
            let left = state.aside.get(name);
            left.map(|left| left.containers.keys().cloned().collect()).unwrap_or_default()
        };
        // Before its addresses can be others'.
        self.publish().await;
        for handle in containers {
            self.sweep(&handle).await;
            self.host.unhold(&handle);
            self.give_up_left(name, &handle);
        }
        self.wake();
    }

    /// It is somebody else's, or gone: it is no more in the books as one that is left.
    fn give_up_left(&self, name: &AppName, handle: &Handle) {
        let had = {
            let mut state = self.state();
            state.aside.get_mut(name).and_then(|left| left.containers.remove(handle))
        };
        had.into_iter().for_each(|had| self.give_back_room(had));
    }
}

/// The ports of an app that was set aside are written anew, for whoever has them from now on.
fn distrust(state: &mut State, name: &AppName) {
    let State { aside, published, .. } = state;
    let ports = aside.get_mut(name).map(|left| std::mem::take(&mut left.ports));
    for port in ports.into_iter().flatten() {
        published.entry(port).or_insert_with(|| vec![(Ipv4Addr::UNSPECIFIED, 0)]);
    }
}

impl Cell {
    /// Removes an app whose record cannot be read, with what runs of it. `None`: it is none of these.
    pub(super) async fn delete_unread(&self, name: &str) -> Option<Result<(), CellError>> {
        let shared = &self.shared;
        if !shared.state().set_aside.contains_key(name) {
            return None;
        }
        Some(match name.parse::<AppName>() {
            Ok(name) => self.delete_left(&name).await,
            // No app was ever called so.
            Err(_) => {
                let (inner, key) = (shared.clone(), name.to_owned());
                let gone = smol::unblock(move || inner.store.forget_app(&key)).await;
                drop(shared.state().set_aside.remove(name));
                gone.map_err(|err| CellError::failed(format!("cannot forget app {name}"), &err))
            }
        })
    }

    async fn delete_left(&self, name: &AppName) -> Result<(), CellError> {
        let shared = &self.shared;
        self.cancel_app_tasks(name.as_str()).await;
        shared.end_left(name).await;
        let mut records: Vec<Key> = Vec::new();
        if let Some(left) = shared.state().aside.remove(name) {
            records.extend(left.actual.into_keys());
        }
        let (inner, app) = (shared.clone(), name.clone());
        smol::unblock(move || {
            for key in records {
                if let Err(err) = inner.store.put_actual(&key, None) {
                    crate::error!("record.refused", app = key.0, index = key.1, err = chain(&err));
                }
            }
            inner.remove_files(&app);
        })
        .await;
        // Last: a daemon that dies before has an app that is set aside, and can be deleted again.
        let next = |state: &State| match state.apps.contains_key(name) {
            // Somebody has declared it meanwhile.
            true => Ok(AppChange::Keep),
            false => Ok(by_record::after(None, 0)),
        };
        shared.change_app(name, next).await?;
        shared.state().litter = true;
        crate::info!("app.deleted", app = name);
        shared.wake();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::diff::tests::{CRASHED, key, record, running};
    use super::*;

    #[test]
    fn what_is_of_an_unread_app_is_out_of_the_loops_sight() {
        let unread = Unread::new(br#"{"ports":[{"publish":8080}],"release":"#, "torn".into());
        let mut other = running(0, "a");
        other.0.0.app = "other".parse().expect("name");
        let other_key = other.0.clone();
        let actual = [running(0, "a"), record(1, "a", CRASHED, 3), other].into();
        let set_aside = [("web".to_owned(), unread)].into();
        let mut records = Records { actual, set_aside, ..Records::default() };
        let all = records.actual.clone();
        let aside = split(&mut records);
        assert_eq!(records.actual.into_keys().collect::<Vec<_>>(), [other_key]);
        let left = aside.into_values().next().expect("web");
        assert_eq!(left.actual.into_keys().collect::<Vec<_>>(), [key(0), key(1)]);
        assert!(left.ports == [8080].into() && left.containers.is_empty());
        // A daemon that died while it was staged again finds a record without a release.
        let app = super::super::releases::tests::app("memory = \"32MiB\"");
        for (release, out_of_sight) in [(None, 2), (app.release.clone(), 0)] {
            let apps = [(app.manifest.name.clone(), AppRecord { release, ..app.clone() })].into();
            let mut records = Records { apps, actual: all.clone(), ..Records::default() };
            let left =
                split(&mut records).into_values().map(|left| left.actual.len()).sum::<usize>();
            assert_eq!((left, records.actual.len()), (out_of_sight, all.len() - out_of_sight));
        }
    }

    #[test]
    fn what_runs_is_taken_over_when_there_is_something_to_start_and_not_before() {
        let app = super::super::releases::tests::app("memory = \"32MiB\"");
        let unstaged = AppRecord { release: None, ..app.clone() };
        for (is_read, app, expected) in [
            (false, None, Next::Stays),
            (false, Some(&app), Next::Stays),
            (true, Some(&unstaged), Next::Stays),
            (true, Some(&AppRecord { stopped: true, ..unstaged.clone() }), Next::TakenOver),
            (true, Some(&AppRecord { deleting: true, ..unstaged.clone() }), Next::TakenOver),
            (true, Some(&app), Next::TakenOver),
            (true, None, Next::TakenOver),
        ] {
            assert_eq!(next(is_read, app), expected, "{is_read} {app:?}");
        }
    }
}
