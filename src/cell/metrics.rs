//! Figures of the cell and of its containers, read when somebody asks for them.

use super::diff::Key;
use super::shared::{Cell, Shared, State, now_ms};
use super::worked_on::{Supervised, TaskWork};
use crate::container::Container;
use crate::exec::limit::Limit;
use crate::exec::metrics::{COUNTERS, Looks, Share, Used};
use crate::exec::room::Resources;
use crate::model::lrp::{LrpState, ProcessGuid};
use crate::model::metrics::{Amounts, CellFigures, InstanceFigures};
use crate::unit::Rate;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

/// What the process of a Task is called in figures.
const TASK: &str = "task";

/// Remembers the last look at each container.
pub(super) struct Meter {
    begun: Instant,
    looks: Mutex<Looks>,
}

impl Default for Meter {
    fn default() -> Meter {
        Meter { begun: Instant::now(), looks: Mutex::default() }
    }
}

/// A container that is to be measured.
struct Subject {
    guid: ProcessGuid,
    index: u32,
    /// Whose it is, if it is a Task's.
    task: Option<String>,
    labels: Vec<(String, String)>,
    container: Arc<Container>,
    limit: Option<Limit>,
    running: bool,
    since_ms: u64,
}

impl Meter {
    fn looks(&self) -> MutexGuard<'_, Looks> {
        self.looks.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// A container's share since the last look at it; `None`: this is the first one.
    pub fn look(&self, container: &Container, used: Used) -> Option<Share> {
        let cpus = std::thread::available_parallelism().map_or(1, |count| count.get() as u64);
        self.looks().look(container.handle(), used, self.begun.elapsed(), cpus)
    }
}

impl Cell {
    /// All figures. On the pool: a few files of the kernel for each container.
    pub async fn figures(&self) -> CellFigures {
        let shared = self.shared.clone();
        let problems = self.examine_box().await.problems;
        let turn = shared.pools.metrics.enter().await;
        smol::unblock(move || {
            // Whoever asked may have left: the work goes on, and so does its turn.
            let _turn = turn;
            shared.figures(!problems.is_empty())
        })
        .await
    }
}

impl Shared {
    /// Blocking.
    fn figures(&self, unhealthy: bool) -> CellFigures {
        let (subjects, total, left, starting, self_check_failed, stalled) = {
            let state = self.state();
            let subjects = subjects(&state);
            let works = state.supervised.values().map(Supervised::state);
            let states = works.chain(state.task_work.values().map(TaskWork::state));
            let starting = states.filter(|it| it.is_starting()).count();
            let failed = state.node.node().unhealthy.is_some();
            let stalled = state.node.checking.map(|since| since.elapsed()).unwrap_or_default();
            (subjects, state.room.total(), state.room.left(), starting, failed, stalled)
        };
        self.meter
            .looks()
            .keep(|handle| subjects.iter().any(|subject| subject.container.handle() == handle));
        let (mut instances, mut tasks, mut measured) = (Vec::new(), Vec::new(), Vec::new());
        for subject in &subjects {
            let one = self.measured(subject);
            match (&subject.task, one.clone()) {
                (Some(guid), Some(one)) => tasks.push((guid.clone(), one)),
                (None, Some(one)) => instances.push(one),
                (_, None) => {}
            }
            measured.push(one);
        }
        // One that could not be read makes the sum unknown: BBS tells -1 then.
        let sum = |of: fn(&InstanceFigures) -> u64| -> Option<u64> {
            measured.iter().map(|one| one.as_ref().map(of)).sum()
        };
        CellFigures {
            cell_id: self.cell_id.clone(),
            total: amounts(total),
            remaining: amounts(left),
            containers: subjects.len() as u64,
            starting: starting as u64,
            memory_used_bytes: sum(|one| one.memory_bytes),
            disk_used_bytes: sum(|one| one.disk_bytes),
            unhealthy,
            self_check_failed,
            stalled,
            counts: COUNTERS.read(),
            instances,
            tasks,
        }
    }

    /// One container; `None`: it cannot be read, as one that is just going. Blocking.
    fn measured(&self, subject: &Subject) -> Option<InstanceFigures> {
        let Subject { guid, index, container, limit, running, since_ms, labels, .. } = subject;
        let entry = container.entry();
        let stats = container.stats().ok()?;
        let logged_bytes = limit.as_ref().map_or(0, Limit::logged_bytes);
        let share = self.meter.look(container, Used { cpu_ns: stats.cpu_ns, logged_bytes });
        let share = share.unwrap_or_default();
        Some(InstanceFigures {
            guid: guid.clone(),
            index: *index,
            labels: labels.clone(),
            handle: container.handle().to_string(),
            running: *running,
            cpu: share.cpu,
            cpu_ns: stats.cpu_ns,
            memory_bytes: stats.memory_bytes.get(),
            memory_quota_bytes: entry.spec.limits.memory.unwrap_or_default().get(),
            disk_bytes: self.host.store().used(container.handle()).ok()?.get(),
            disk_quota_bytes: entry.spec.limits.disk.unwrap_or_default().get(),
            age_ns: now_ms().saturating_sub(*since_ms).saturating_mul(1_000_000),
            traffic: self.host.net().traffic(entry.slot).ok().flatten(),
            logged_bytes,
            log_rate: share.log_rate,
            log_rate_limit: limit.as_ref().map_or(Rate::Unlimited, Limit::rate),
            pids: stats.pids,
            oom_kills: stats.oom_kills,
        })
    }
}

/// Containers of instances that somebody works on, and of Tasks.
fn subjects(state: &State) -> Vec<Subject> {
    let worked_on = state.supervised.iter();
    let subject = |(key, work): (&Key, &Supervised)| {
        let record = state.actual.get(key);
        let container = work.container.clone()?;
        let asked = state.apps.get(&key.0.app).and_then(|app| app.container.as_deref());
        let labels = asked.map(|it| it.extras.labels(Some(key.1), container.handle().as_str()));
        Some(Subject {
            guid: key.0.clone(),
            index: key.1,
            task: None,
            labels: labels.unwrap_or_default(),
            container,
            limit: work.limit.clone(),
            running: record.is_some_and(|it| matches!(it.state, LrpState::Running(_))),
            since_ms: record.map_or(0, |record| record.since_ms),
        })
    };
    let mut all: Vec<Subject> = worked_on.filter_map(subject).collect();
    let tasks = state.task_containers.iter();
    all.extend(tasks.filter_map(|(guid, (container, limit))| {
        let record = state.tasks.get(guid)?;
        Some(Subject {
            guid: ProcessGuid { app: record.task.app.clone(), process: TASK.into() },
            index: 0,
            task: Some(guid.clone()),
            labels: record.task.extras.labels(None, container.handle().as_str()),
            container: container.clone(),
            limit: Some(limit.clone()),
            running: true,
            since_ms: record.updated_at / 1_000_000,
        })
    }));
    all
}

fn amounts(of: Resources) -> Amounts {
    Amounts {
        memory_bytes: of.memory.get(),
        disk_bytes: of.disk.get(),
        containers: of.containers.into(),
    }
}
