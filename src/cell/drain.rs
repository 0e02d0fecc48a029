//! Draining: nothing new begins, Tasks end by themselves, then instances are told to. What is desired
//! stays as it is, so that the cell goes on where it was.
//!
//! The wish is recorded with the run of the box that it was made in: it outlives the daemon, or an
//! upgrade in the middle of it would start all apps again; it does not outlive the box, or one that
//! was drained for a reboot would come back and serve nothing, with nobody there.

pub mod plan;

use super::error::{CellError, Kind};
use super::shared::{Cell, Shared, State, now_ms};
use crate::exec::cancel::Canceller;
use crate::model::death::Stopper;
use crate::model::lrp::ActualLrp;
use crate::model::view::DrainView;
use crate::sys::fault;
use plan::{Step, World};
use serde::{Deserialize, Serialize};
use smol::future;
use smol::lock::{Mutex as Turns, MutexGuardArc};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The longest time that Tasks may be given.
pub const TIMEOUT_MAX: Duration = Duration::from_secs(24 * 3600);

/// The wish, as it stands in the records.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrainRecord {
    /// When it was made, in milliseconds since 1970.
    pub since_ms: u64,
    /// How long Tasks may go on, in milliseconds.
    pub timeout_ms: u64,
    /// The run of the box in which it was made.
    pub boot: String,
}

/// A cell that is drained.
pub(super) struct Draining {
    pub record: DrainRecord,
    /// When this daemon began with it: no Task of an earlier one is left.
    begun: Instant,
    /// Tasks were told to end: that is said once.
    pub cut: bool,
}

impl Draining {
    /// Goes on with what is recorded, unless that was of an earlier run of the box.
    pub fn resume(record: Option<DrainRecord>, boot: &str) -> Option<Draining> {
        let record = record.filter(|record| record.boot == boot)?;
        Some(Draining { record, begun: Instant::now(), cut: false })
    }

    fn world(&self, state: &State) -> World {
        World {
            tasks: tasks(state),
            running: state.supervised.values().filter(|work| !work.stopping).count(),
            left: state.supervised.len() + state.node.stuck.len(),
            since: self.begun.elapsed(),
            timeout: Duration::from_millis(self.record.timeout_ms),
        }
    }
}

/// Tasks that have not ended.
fn tasks(state: &State) -> usize {
    state.staging.len().max(working(state).count())
}

/// Guids of Tasks that somebody works on, with the means to end each; of a staging there is one, too.
fn working(state: &State) -> impl Iterator<Item = (&String, &Canceller)> {
    state.task_work.iter().filter_map(|(guid, work)| Some((guid, work.canceller.as_ref()?)))
}

impl Cell {
    /// Drains the cell; `timeout`: how long Tasks may go on, else what the box says. Asked again, a
    /// new timeout counts from the beginning. `wait`: returns when nothing is left, or says what is.
    pub async fn drain(
        &self,
        timeout: Option<Duration>,
        wait: bool,
    ) -> Result<DrainView, CellError> {
        let shared = &self.shared;
        let timeout = timeout.unwrap_or(shared.settings.evacuation_timeout).min(TIMEOUT_MAX);
        let changed = self.watch();
        shared.set_drain(Some(timeout)).await?;
        crate::info!("cell.draining", timeout_s = timeout.as_secs());
        shared.wake();
        if wait {
            self.drained(timeout, &changed).await?;
        }
        self.drain_view().ok_or_else(|| {
            CellError::new(Kind::Conflict, "somebody has ended the draining: `terrarium undrain`")
        })
    }

    /// Waits until nothing is left, for as long as it may take.
    async fn drained(
        &self,
        timeout: Duration,
        changed: &smol::channel::Receiver<()>,
    ) -> Result<(), CellError> {
        let all = timeout + plan::STOP_MAX;
        let done = async {
            while self.drain_view().is_some_and(|view| view.state != "drained") {
                if changed.recv().await.is_err() {
                    let text = "the daemon ends; the next one goes on draining the cell";
                    return Err(CellError::new(Kind::Failed, text));
                }
            }
            Ok(())
        };
        future::or(done, async {
            async_io::Timer::after(all).await;
            let left = self.drain_view().map(|view| view.left.join(", ")).unwrap_or_default();
            let text = format!(
                "the cell is not drained after {} s; it goes on, left are: {left}",
                all.as_secs()
            );
            Err(CellError::new(Kind::Failed, text))
        })
        .await
    }

    /// Ends the draining: what is desired starts again.
    pub async fn undrain(&self) -> Result<(), CellError> {
        self.shared.set_drain(None).await?;
        crate::info!("cell.undrained");
        self.shared.state().waiting.room_returned();
        self.shared.wake();
        Ok(())
    }

    /// How far it is; `None`: the cell is not drained.
    pub fn drain_view(&self) -> Option<DrainView> {
        let state = self.shared.state();
        let draining = state.node.drain.as_ref()?;
        let world = draining.world(&state);
        let instances = state.supervised.keys().map(|key| format!("{}/{}", key.0, key.1));
        let tasks = state.staging.keys().map(|app| format!("the staging of {app}"));
        let tasks = tasks.chain(working(&state).map(|(guid, _)| format!("task {guid}")));
        let stuck = state.node.stuck.keys().map(|handle| format!("container {handle}"));
        Some(DrainView {
            state: match plan::next(&world) {
                Step::Drained => "drained".to_owned(),
                _ => "draining".to_owned(),
            },
            since_ms: draining.record.since_ms,
            left: tasks.chain(instances).chain(stuck).collect(),
        })
    }
}

impl Shared {
    /// Records the wish, and only then follows it; `None`: it is drained no more.
    async fn set_drain(self: &Arc<Self>, timeout: Option<Duration>) -> Result<(), CellError> {
        let record = |timeout: Duration| DrainRecord {
            since_ms: now_ms(),
            timeout_ms: timeout.as_millis() as u64,
            boot: self.settings.boot.clone(),
        };
        // Of two at once, the one whose wish is on the disk last is followed.
        let (turn, record) = in_turn(&self.turns, || timeout.map(record)).await;
        let shared = self.clone();
        smol::unblock(move || {
            let _turn = turn;
            fault::point(format_args!("drain:asked"));
            let written = shared.store.put_drain(record.as_ref());
            written.map_err(|err| CellError::failed("cannot record the draining", &err))?;
            fault::point(format_args!("drain:written"));
            let mut state = shared.state();
            state.node.drain = Draining::resume(record, &shared.settings.boot);
            Ok(())
        })
        .await
    }

    /// Takes the next step of a draining, if there is one. When to look again at the latest, in
    /// milliseconds since 1970.
    pub(super) fn drain_on(&self) -> Option<u64> {
        let mut state = self.state();
        let world = state.node.drain.as_ref()?.world(&state);
        let polling = self.settings.evacuation_polling;
        let again = match plan::next(&world) {
            Step::Drained => return None,
            Step::Ending => polling,
            Step::Wait(rest) => rest.min(polling),
            Step::CutTasks => {
                let cut = state.node.drain.as_mut().map(|it| std::mem::replace(&mut it.cut, true));
                if cut == Some(false) {
                    self.tell_of_cut(&state);
                }
                state.staging.values().for_each(Canceller::cancel);
                working(&state).for_each(|(_, canceller)| canceller.cancel());
                polling
            }
            Step::StopInstances => {
                self.tell_of_replacement(&state);
                for work in state.supervised.values_mut().filter(|work| !work.stopping) {
                    // They leave their ports before they are told.
                    work.leave(Stopper::Drain);
                }
                polling
            }
        };
        Some(now_ms() + again.as_millis() as u64)
    }

    /// Says in the logs of instances that serve that another one is to. Each is told so once: none of them
    /// has been told to end.
    fn tell_of_replacement(&self, state: &State) {
        for (key, _) in state.supervised.iter().filter(|(_, work)| !work.stopping) {
            let actual = state.actual.get(key).filter(|actual| actual.runs());
            let Some(place) = actual.and_then(ActualLrp::place) else { continue };
            let (cell, guid) = (&self.settings.cell_id, &place.handle);
            let text = format!("Cell {cell} requesting replacement for instance {guid}");
            self.logs.app(&key.0.app).write("CELL", key.1, false, text);
        }
    }

    /// Says in the logs of all Tasks that their time is over.
    fn tell_of_cut(&self, state: &State) {
        let stagings = state.staging.keys().map(|app| (app, app.as_str()));
        let tasks = working(state).filter_map(|(guid, _)| state.tasks.get(guid));
        // A staging was named by its app.
        let tasks = tasks.map(|record| &record.task).filter(|it| !it.internal && !it.silent);
        for (app, name) in stagings.chain(tasks.map(|task| (&task.app, task.guid.as_str()))) {
            let id = &self.settings.cell_id;
            let text = format!("Cell {id} reached evacuation timeout for instance {name}");
            self.say(app, "CELL", true, text);
        }
    }
}

/// What `make` gives once it has the turn: what waits while the clock is set would have a time of before.
async fn in_turn<T>(turns: &Arc<Turns<()>>, make: impl FnOnce() -> T) -> (MutexGuardArc<()>, T) {
    let turn = turns.lock_arc().await;
    (turn, make())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell as Value;
    use std::pin::pin;

    #[test]
    fn a_drain_that_waits_for_its_turn_is_of_the_clock_that_it_finds_then() {
        let (turns, clock) = (Arc::new(Turns::new(())), Value::new(1970));
        let moves = turns.try_lock_arc().expect("nobody has it");
        let mut asked = pin!(in_turn(&turns, || clock.get()));
        assert!(smol::block_on(future::poll_once(asked.as_mut())).is_none(), "it waits");
        clock.set(2026);
        drop(moves);
        let (_turn, since) = smol::block_on(asked);
        assert_eq!(since, 2026);
        assert!(turns.try_lock().is_none(), "it has the turn until it is written");
    }
}
