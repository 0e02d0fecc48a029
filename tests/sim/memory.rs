//! What a daemon knows, and what follows from it.

use crate::cell::Todo;
use crate::instance::Sup;
use crate::tasks::Work;
use crate::upkeep::Turns;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;
use terrarium::cell::DrainRecord;
use terrarium::cell::diff::{self, Key};
use terrarium::cell::placement::Waiting;
use terrarium::cell::record::AppRecord;
use terrarium::cell::rollout::{Verdict, verdict};
use terrarium::cell::{desired, releases, stand};
use terrarium::exec::room::{Resources, Room};
use terrarium::model::lrp::{ActualLrp, DesiredLrp, ProcessGuid};
use terrarium::model::task::TaskRecord;
use terrarium::sys::clock::Reading;
use terrarium::unit::{AppName, Handle};

/// What a daemon knows.
pub struct Mem {
    pub apps: BTreeMap<AppName, AppRecord>,
    /// The highest generation that an app has or had.
    pub newest: u64,
    pub actual: BTreeMap<Key, ActualLrp>,
    pub tasks: BTreeMap<String, TaskRecord>,
    /// Follows from `apps`.
    pub desired: BTreeMap<ProcessGuid, DesiredLrp>,
    /// So do the LRPs of the versions that apps may go back to.
    pub before: Vec<DesiredLrp>,
    pub supervised: BTreeMap<Key, Sup>,
    pub task_work: BTreeMap<String, Work>,
    /// The guid of its Task, and whether it was told to end.
    pub staging: BTreeMap<AppName, Staging>,
    pub room: Room,
    pub waiting: Waiting,
    pub afresh: BTreeSet<Key>,
    /// Containers that do not go, and what is booked for them.
    pub stuck: BTreeMap<Handle, Resources>,
    /// The draining that it goes on with.
    pub drains: Option<Drains>,
    /// The cell cannot make containers.
    pub ill: bool,
    /// Who makes a container, and who waits for a turn to.
    pub turns: Turns,
    /// The clocks when the loop looked last.
    pub reading: Option<Reading>,
    /// It has looked through the depot, and serves.
    pub serves: bool,
    pub serial: u64,
    pub todo: VecDeque<Todo>,
    pub turning: bool,
    pub woken: bool,
    pub due: u64,
    /// When to look again by the box's clock.
    pub again: Option<u64>,
}

/// A draining that is recorded, and since when this daemon goes on with it.
#[derive(Clone, Debug)]
pub struct Drains {
    pub record: DrainRecord,
    pub begun: u64,
}

/// A staging that is under way.
#[derive(Clone, Debug)]
pub struct Staging {
    pub task: Option<String>,
    pub cancelled: bool,
}

impl Mem {
    /// An app has changed: what follows from it alone, as to make all of it anew each time takes long.
    pub fn derive(&mut self, name: &AppName) {
        self.desired.retain(|guid, _| guid.app != *name);
        self.before.retain(|lrp| lrp.guid.app != *name);
        if let Some(app) = self.apps.get(name) {
            self.desired.extend(desired(&[(name.clone(), app.clone())].into()));
            self.before.extend(releases::before(app));
        }
    }

    /// The LRPs of the version that an app may go back to.
    pub fn before_of(&self, name: &AppName) -> Vec<DesiredLrp> {
        self.before.iter().filter(|lrp| lrp.guid.app == *name).cloned().collect()
    }

    /// Who is worked on, and whether it is on its way out.
    pub fn stopping(&self) -> BTreeMap<Key, bool> {
        self.supervised.iter().map(|(key, sup)| (key.clone(), sup.stopping)).collect()
    }

    /// It begins nothing.
    pub fn closed(&self) -> bool {
        self.drains.is_some() || self.ill
    }

    pub fn world<'a>(
        &'a self,
        supervised: &'a BTreeMap<Key, bool>,
        held: &'a BTreeMap<AppName, String>,
        trial: &'a BTreeSet<AppName>,
    ) -> diff::World<'a> {
        let no_room = self.waiting.no_room();
        let closed = self.closed();
        let (desired, actual) = (&self.desired, &self.actual);
        diff::World { desired, actual, supervised, no_room, closed, held, trial }
    }

    pub fn held(&self) -> BTreeMap<AppName, String> {
        let (supervised, nobody, none) = (self.stopping(), BTreeMap::new(), BTreeSet::new());
        stand::held_of(&self.apps, &self.world(&supervised, &nobody, &none))
    }

    /// What is to be thought of an app's newest version; `patient`: with no limit on when it is ready.
    pub fn verdict(&self, app: &AppRecord, now: u64, patient: bool) -> Verdict {
        let (supervised, nobody) = (self.stopping(), BTreeMap::new());
        let trial = releases::on_trial(&self.apps);
        let name = &app.manifest.name;
        let mine = self.desired.values().filter(|lrp| lrp.guid.app == *name);
        let mine: Vec<&DesiredLrp> = mine.collect();
        let world = self.world(&supervised, &nobody, &trial);
        if patient {
            let mut mine: Vec<DesiredLrp> = mine.into_iter().cloned().collect();
            mine.iter_mut().for_each(|lrp| lrp.health.start_timeout = Duration::ZERO);
            return verdict(&mine.iter().collect::<Vec<_>>(), &self.before, &world, now);
        }
        verdict(&mine, &self.before, &world, now)
    }

    pub fn give_back(&mut self, had: Resources) {
        self.room.give_back(had);
        self.waiting.room_returned();
    }

    pub fn look_again(&mut self, at: u64) {
        self.again = Some(self.again.map_or(at, |again| again.min(at)));
    }
}
