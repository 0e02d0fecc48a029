//! What becomes of an app that was declared anew: the order of steps is that of `src/cell/staging.rs`.

use crate::apps;
use crate::cell::Act;
use crate::memory::Staging;
use crate::script;
use crate::tasks::{Does, Work};
use crate::world::World;
use terrarium::cell::record::{AppRecord, Release};
use terrarium::cell::releases;
use terrarium::cell::task::state::TaskOp;
use terrarium::exec::room::Resources;
use terrarium::model::task::{Task, TaskState};
use terrarium::unit::{AppName, Bytes};

/// Stagings at a time.
const STAGING_MAX: usize = 2;

impl World {
    pub fn begin_staging(&mut self) {
        let Some(mem) = self.mem.as_mut().filter(|mem| !mem.closed()) else { return };
        let waits = mem.apps.iter().filter(|(name, app)| {
            let decided = app.staged == Some(app.generation);
            !app.deleting && !app.stopped && !decided && !mem.staging.contains_key(*name)
        });
        let waits: Vec<_> = waits.map(|(name, app)| (name.clone(), app.generation)).collect();
        for (name, generation) in waits {
            if self.mem.as_ref().is_none_or(|mem| mem.staging.len() >= STAGING_MAX) {
                return;
            }
            let ms = self.rng.between(5, 3_000);
            if let Some(mem) = &mut self.mem {
                let staging = Staging { task: None, cancelled: false };
                mem.staging.insert(name.clone(), staging);
            }
            self.act_after(ms, Act::Stage(name, generation));
        }
    }

    /// What it is made of is here: its Task begins, unless the bits are as they were.
    pub fn stage(&mut self, name: &AppName, generation: u64) {
        let Some(mem) = &self.mem else { return };
        let cancelled = mem.staging.get(name).is_none_or(|it| it.cancelled);
        let same = mem.apps.get(name).is_some_and(|app| {
            let bits = script::bits_of_app(app);
            let made = |release: &Release| *release == apps::release(&app.manifest, bits);
            app.release.as_ref().is_some_and(made)
        });
        let ended = |failed| Act::Staged(name.clone(), generation, failed);
        match () {
            () if cancelled => self.act_soon(ended(true)),
            () if same => self.act_soon(ended(false)),
            () => match self.stage_as_task(name, generation) {
                Some(guid) => {
                    let staging = self.mem.as_mut().and_then(|mem| mem.staging.get_mut(name));
                    staging.into_iter().for_each(|it| it.task = Some(guid.clone()));
                }
                None => self.act_soon(ended(true)),
            },
        }
    }

    /// Tells the staging that is under way to end.
    pub fn cancel_staging(&mut self, name: &AppName) {
        let staging = self.mem.as_mut().and_then(|mem| mem.staging.get_mut(name));
        let Some(staging) = staging else { return };
        staging.cancelled = true;
        if let Some(guid) = staging.task.clone() {
            self.end_task(&guid);
        }
    }

    pub fn staged(&mut self, name: &AppName, generation: u64, failed: bool) {
        let fails = failed || self.fails(20);
        let Some(mem) = &mut self.mem else { return };
        let stopped = mem.staging.remove(name).is_some_and(|it| it.cancelled);
        let lasts = |app: &&AppRecord| {
            app.generation == generation && !app.deleting && !app.stopped && !stopped
        };
        if let Some(app) = mem.apps.get(name).filter(lasts) {
            let mut app = app.clone();
            app.staged = Some(generation);
            match (fails, script::bits_of_app(&app)) {
                (false, bits) => {
                    app.failure = None;
                    let release = apps::release(&app.manifest, bits);
                    releases::replace(&mut app, release);
                }
                (true, _) => app.failure = Some("staging failed".to_owned()),
            }
            self.put_app(name, Some(app));
        }
        self.wake();
    }

    /// A staging as a Task: its room first, then its record. `None`: there is no room.
    pub fn stage_as_task(&mut self, app: &AppName, generation: u64) -> Option<String> {
        self.tasks_asked += 1;
        let guid = format!("s{}", self.tasks_asked);
        let memory = Bytes::mib(64);
        let needs = Resources { memory, disk: Bytes::default(), containers: 1 };
        let mem = self.mem.as_mut()?;
        mem.room.take(needs).ok()?;
        mem.serial += 1;
        let serial = mem.serial;
        mem.task_work.insert(guid.clone(), Work::of_staging(serial, needs));
        self.stagings.insert(guid.clone(), (app.clone(), generation));
        self.task_ends.insert(guid.clone(), (self.rng.between(5, 30_000), 0));
        let task = Task { internal: true, app: app.clone(), ..script::task(&guid, memory) };
        let _ = self.change_task(&guid, &TaskOp::Desire(Box::new(task)));
        self.act_soon(Act::Task(guid.clone(), serial, Does::Start));
        Some(guid)
    }

    /// Nobody works on a staging any more: its record goes with the answer.
    pub fn end_staging(&mut self, guid: &str) {
        let Some((app, generation)) = self.stagings.remove(guid) else { return };
        let record = self.mem.as_ref().and_then(|mem| mem.tasks.get(guid)).cloned();
        if record.as_ref().is_some_and(|it| it.state == TaskState::Pending) {
            let _ = self.change_task(guid, &TaskOp::Fail("it was rejected".to_owned()));
        }
        let record = self.mem.as_ref().and_then(|mem| mem.tasks.get(guid)).cloned();
        let _ = self.change_task(guid, &TaskOp::Resolve);
        let _ = self.change_task(guid, &TaskOp::Delete);
        let failed = record.is_none_or(|it| it.failed);
        self.act_soon(Act::Staged(app, generation, failed));
    }
}
