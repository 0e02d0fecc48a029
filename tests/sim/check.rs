//! What must never be true. The list stands in ARCHITECTURE.md, too; what must not follow on what was is
//! in `ledger`, what must be true at the end in `settled`.

use crate::apps::NAMES;
use crate::world::{Process, World};
use std::collections::{BTreeMap, BTreeSet};
use terrarium::cell::diff::{Key, Op};
use terrarium::cell::record::AppRecord;
use terrarium::exec::room::{Resources, Room};
use terrarium::exec::state::ContainerState as S;
use terrarium::model::lrp::{ActualLrp, LrpState, ProcessGuid};
use terrarium::model::task::TaskState;
use terrarium::unit::{AppName, Handle};

/// Whose port it is.
fn index_of(app: &AppName) -> u64 {
    let at = NAMES.iter().position(|name| *name == app.as_str());
    at.map_or(u64::MAX - 8000, |at| at as u64)
}

fn add(room: &mut Resources, one: Resources) {
    room.memory = room.memory.saturating_add(one.memory);
    room.disk = room.disk.saturating_add(one.disk);
    room.containers += one.containers;
}

impl World {
    /// After every step.
    pub fn check(&mut self) {
        self.check_containers();
        self.check_room();
        self.check_records();
        self.check_waits();
        self.check_ports();
    }

    fn check_containers(&mut self) {
        let mut alive: BTreeMap<(&ProcessGuid, u32), Vec<&str>> = BTreeMap::new();
        let mut all = Resources::default();
        for container in self.containers.values() {
            add(&mut all, container.needs);
            if let (Process::Alive, Some((key, version))) = (container.process, &container.of) {
                alive.entry((&key.0, key.1)).or_default().push(version);
            }
        }
        let mut twice = None;
        for ((guid, index), versions) in &alive {
            let distinct: BTreeSet<&&str> = versions.iter().collect();
            if versions.len() > 2 || distinct.len() < versions.len() {
                twice =
                    Some(format!("{guid}/{index} lives {} times: {versions:?}", versions.len()));
            }
        }
        let total = self.nature.total;
        let over = all.memory > total.memory || all.containers > total.containers;
        if let Some(why) = twice {
            self.breaks(|| why);
        }
        if over {
            self.breaks(|| format!("containers have {all:?} of {total:?}"));
        }
    }

    /// Nobody's connection ends up with another app.
    fn check_ports(&mut self) {
        if !self.mem.as_ref().is_some_and(|mem| mem.serves) {
            return;
        }
        let mut why = None;
        for (port, slots) in &self.ports {
            for (handle, it) in self.containers.iter().filter(|(_, it)| slots.contains(&it.slot)) {
                let of = it.of.as_ref().map(|(key, _)| 8000 + index_of(&key.0.app));
                let is_its = of == Some(u64::from(*port));
                if !is_its {
                    why = Some(format!("port {port} leads to {handle}, which is {:?}", it.owner));
                }
            }
        }
        if let Some(why) = why {
            self.breaks(|| why);
        }
    }

    /// An instance that lives is told to end: no port may lead to it any more.
    pub fn check_told(&mut self, key: &Key) {
        let Some(mem) = &self.mem else { return };
        let handle = mem.supervised.get(key).and_then(|sup| sup.handle.as_ref());
        let slot = handle.and_then(|handle| self.containers.get(handle)).map(|it| it.slot);
        let led = self.ports.iter().find(|(_, slots)| slots.iter().any(|it| Some(*it) == slot));
        if let Some((port, _)) = led {
            let why = format!("{key:?} is told to end, and port {port} leads to it");
            self.breaks(|| why);
        }
    }

    /// One that waits is to have room made for it: that must be worth something.
    pub fn check_way_made(&mut self, key: &Key, needs: Resources) {
        let Some(mem) = &self.mem else { return };
        let Some(old) = mem.supervised.get(&(key.0.clone(), key.1, key.2.other())) else { return };
        let (total, taken) = (mem.room.total(), mem.room.taken());
        let stays = taken.memory.saturating_sub(old.needs.memory);
        let fits = stays.saturating_add(needs.memory) <= total.memory
            && taken.containers - old.needs.containers < total.containers;
        if !fits {
            let why = format!("one makes room for {key:?}, which does not fit all the same");
            self.breaks(|| why);
        }
    }

    /// What nobody knows is removed: nobody may work in it.
    pub fn check_reap(&mut self, handle: &Handle) {
        let Some(mem) = &self.mem else { return };
        let works = mem.supervised.values().any(|sup| sup.handle.as_ref() == Some(handle))
            || mem.task_work.values().any(|work| work.handle.as_ref() == Some(handle));
        if works {
            let why = format!("{handle} is taken for nobody's, and somebody works in it");
            self.breaks(|| why);
        }
    }

    fn check_room(&mut self) {
        let Some(mem) = self.mem.as_ref().filter(|mem| mem.serves) else { return };
        let mut taken = Resources::default();
        mem.supervised.values().for_each(|sup| add(&mut taken, sup.needs));
        mem.task_work.values().filter_map(|it| it.needs).for_each(|it| add(&mut taken, it));
        mem.stuck.values().for_each(|it| add(&mut taken, *it));
        let mut expected = Room::new(mem.room.total());
        expected.force(taken);
        let (left, expected) = (mem.room.left(), expected.left());
        if left != expected {
            self.breaks(|| format!("the books say {left:?} are left, it is {expected:?}"));
        }
    }

    fn check_records(&mut self) {
        let Some(mem) = self.mem.as_ref().filter(|mem| mem.serves) else { return };
        let mut why = None;
        for (key, record) in &mem.actual {
            let Some(place) = record.place() else { continue };
            let sup = mem.supervised.get(key);
            if sup.and_then(|sup| sup.handle.as_ref()) != Some(&place.handle) {
                why = Some(format!("{key:?} is {:?}, and nobody works on it", record.state));
            }
            let state = sup.map(|sup| sup.container);
            let lives = if record.runs() { S::Running } else { S::Created };
            if state.is_none_or(|state| state != lives && state != S::Completed) {
                let is = &record.state;
                why = Some(format!("{key:?} is {is:?}, and its container is {state:?}"));
            }
            let same =
                |it: &ActualLrp| (&it.state, &it.version) == (&record.state, &record.version);
            if !self.disk.actual.get(key).is_some_and(same) {
                why = Some(format!("{key:?} lives somewhere, and the disk does not say where"));
            }
        }
        for (guid, task) in &mem.tasks {
            if task.state == TaskState::Running && !mem.task_work.contains_key(guid) {
                why = Some(format!("task {guid} runs, and nobody works on it"));
            }
        }
        if let Some(why) = why {
            self.breaks(|| why);
        }
    }

    /// What the loop is about to do.
    pub fn check_op(&mut self, op: &Op) {
        let Some(mem) = &self.mem else { return };
        let why = match op {
            Op::Stop(key) | Op::MakeRoom(key) => {
                let lrp = mem.desired.get(&key.0).filter(|lrp| key.1 < lrp.instances);
                let version = mem.supervised.get(key).map(|sup| sup.lrp.version.as_str());
                let is_last = lrp.is_some_and(|lrp| Some(lrp.version.as_str()) == version);
                let beside = (key.0.clone(), key.1, key.2.other());
                let other = mem.actual.get(&beside);
                let serves = mem.actual.get(key).is_some_and(ActualLrp::runs);
                let needless = lrp.is_some() && serves && mem.closed();
                // What has ended for good beside it has had its turn.
                let ended = |it: &ActualLrp| matches!(it.state, LrpState::Crashed { .. });
                match () {
                    () if is_last && other.is_none() => {
                        Some(format!("{key:?} is stopped, and nothing asks for that"))
                    }
                    () if needless && !other.is_some_and(|it| it.runs() || ended(it)) => {
                        Some(format!("{key:?} is stopped for one that the cell does not begin"))
                    }
                    () => None,
                }
            }
            Op::Start(key) if mem.supervised.contains_key(key) => {
                Some(format!("{key:?} is begun, and somebody works on it"))
            }
            Op::Start(key) => self.starts_too_early(key),
            Op::Forget(_) | Op::Wait(..) => None,
        };
        if let Some(why) = why {
            self.breaks(|| why);
        }
    }

    /// An app is on its way out only once its manifest is gone.
    pub fn check_deletion(&mut self, name: &AppName, record: Option<&AppRecord>) {
        let Some(mem) = &self.mem else { return };
        let was = mem.apps.get(name).is_some_and(|app| app.deleting);
        let goes = !was && record.is_some_and(|app| app.deleting);
        if goes && self.files.contains_key(name) {
            self.breaks(|| format!("{name} is deleted, and its manifest is there"));
        }
    }

    /// What is declared for the first time is newer than what was there, whatever the clock says.
    pub fn check_newest(&mut self, name: &AppName, record: Option<&AppRecord>) {
        let (Some(mem), Some(record)) = (&self.mem, record) else { return };
        let older = mem.apps.iter().find(|(_, app)| app.generation >= record.generation);
        if let Some((older, _)) = older.filter(|_| !mem.apps.contains_key(name)) {
            let why = format!("{older} was declared before {name}, and counts as newer");
            self.breaks(|| why);
        }
    }

    /// The start of a daemon removes what it does not keep.
    pub fn check_sweep(&mut self, handle: &Handle) {
        let (Some(mem), Some(container)) = (&self.mem, self.containers.get(handle)) else { return };
        if let (Process::Alive, Some((key, _))) = (container.process, &container.of)
            && mem.desired.get(&key.0).is_some_and(|lrp| key.1 < lrp.instances)
        {
            let why = format!("the daemon's start ends {key:?}, which lives and is wanted");
            self.breaks(|| why);
        }
    }
}
