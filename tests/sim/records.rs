//! What the daemon writes: on the disk first, then in memory.

use crate::deaths::{Moment, row_of_lrp};
use crate::mutant::Mutant;
use crate::world::World;
use terrarium::cell::diff::Key;
use terrarium::cell::lrp_state::{self, LrpEvent};
use terrarium::cell::record::AppRecord;
use terrarium::cell::{clock, desired};
use terrarium::model::lrp::ActualLrp;
use terrarium::sys::clock::Reading;
use terrarium::unit::AppName;

impl World {
    /// An app's record: on the disk, then in memory.
    pub fn put_app(&mut self, name: &AppName, record: Option<AppRecord>) {
        self.note(|| match &record {
            Some(app) => format!(
                "app     {name} generation {} staged {:?} proven {} restarts {} stopped {} \
                 deleting {} scale {:?} failure {:?}",
                app.generation,
                app.staged,
                app.proven,
                app.restarts,
                app.stopped,
                app.deleting,
                app.scale,
                app.failure
            ),
            None => format!("app     {name} gone"),
        });
        self.check_deletion(name, record.as_ref());
        let Some(mem) = &mut self.mem else { return };
        match record {
            Some(record) => {
                self.disk.apps.insert(name.clone(), record.clone());
                mem.apps.insert(name.clone(), record);
            }
            None => {
                self.disk.apps.remove(name);
                mem.apps.remove(name);
                self.ledger.app_gone(name);
            }
        }
        mem.desired = desired(&mem.apps);
        self.wake();
    }

    /// Something happens to an instance: by the table, on the disk, then in memory.
    pub fn happen(&mut self, key: &Key, event: LrpEvent) -> Option<ActualLrp> {
        self.change(key, event, true)
    }

    pub fn change(&mut self, key: &Key, event: LrpEvent, durable: bool) -> Option<ActualLrp> {
        let wall = self.wall();
        let old = self.mem.as_ref()?.actual.get(key).cloned();
        let row = row_of_lrp(old.as_ref(), &event);
        let mut record = match lrp_state::apply(key, old.as_ref(), event.clone(), wall) {
            Ok(record) => record,
            Err(err) => {
                self.breaks(|| format!("{key:?}: {event:?} in {old:?}: {err}"));
                return old;
            }
        };
        self.check_row(&row);
        if self.dies_at(row, Moment::Before) {
            return old;
        }
        if self.mutant == Mutant::CountNotReset
            && let (Some(old), Some(new)) = (&old, &mut record)
            && new.crash_count == 1
            && old.crash_count > 0
        {
            new.crash_count = old.crash_count + 1;
        }
        self.note(|| {
            let short = record.as_ref().map(|it| (&it.state, it.crash_count, &it.placement_error));
            format!("record  {}/{} {:?} {event:?} -> {short:?}", key.0, key.1, key.2)
        });
        self.check_change(key, old.as_ref(), &event, record.as_ref());
        let mem = self.mem.as_mut()?;
        match &record {
            Some(record) => drop(mem.actual.insert(key.clone(), record.clone())),
            None => drop(mem.actual.remove(key)),
        }
        if durable {
            match &record {
                Some(record) => drop(self.disk.actual.insert(key.clone(), record.clone())),
                None => drop(self.disk.actual.remove(key)),
            }
        }
        self.dies_at(row, Moment::After);
        record
    }

    /// Times of the records are moved along with a clock that was set.
    pub fn mind_the_clock(&mut self) {
        let now = Reading { wall_ms: self.shown(), steady_ms: self.now };
        let Some(mem) = &mut self.mem else { return };
        let before = mem.reading.replace(now).unwrap_or(now);
        self.ledger.clock_was_seen();
        let Some(jump) = clock::jump(before, now) else { return };
        if self.mutant == Mutant::ClockTrusted {
            return;
        }
        for record in mem.actual.values_mut() {
            record.since_ms = jump.moved(record.since_ms);
        }
    }
}
