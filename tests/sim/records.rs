//! What the daemon writes: on the disk first, then in memory.

use crate::deaths::{Moment, row_of_lrp};
use crate::memory::Mem;
use crate::mutant::Mutant;
use crate::world::{Disk, World};
use terrarium::cell::clock::{self, ClockRecord};
use terrarium::cell::diff::Key;
use terrarium::cell::lrp_state::{self, LrpEvent};
use terrarium::cell::placement::Waiting;
use terrarium::cell::record::AppRecord;
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
        self.check_newest(name, record.as_ref());
        let Some(mem) = &mut self.mem else { return };
        match record {
            Some(record) => {
                self.disk.apps.insert(name.clone(), record.clone());
                mem.newest = mem.newest.max(record.generation);
                mem.apps.insert(name.clone(), record);
            }
            None => {
                self.disk.apps.remove(name);
                mem.apps.remove(name);
                self.ledger.app_gone(name);
            }
        }
        mem.derive(name);
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
        let now = self.clocks();
        let Some(mem) = &mut self.mem else { return };
        let before = mem.reading.replace(now).unwrap_or(now);
        self.ledger.clock_was_seen();
        let Some(jump) = clock::jump(before, now) else { return };
        if self.mutant == Mutant::ClockTrusted {
            return;
        }
        let Mem { apps, actual, tasks, waiting, drains, .. } = mem;
        let drain = drains.as_mut().map(|drains| &mut drains.record);
        jump.move_all(clock::Times { apps, actual, tasks, waiting, drain });
        if self.fails(self.nature.changes_in) {
            self.note(|| "daemon  is killed before the moved times are on the disk".to_owned());
            return self.daemon_dies();
        }
        if self.mutant == Mutant::MovedForOne {
            return;
        }
        let Some(Mem { apps, actual, tasks, drains, .. }) = &self.mem else { return };
        self.disk = Disk {
            apps: apps.clone(),
            actual: actual.clone(),
            tasks: tasks.clone(),
            drains: drains.as_ref().map(|drains| drains.record.clone()),
            clock: Some(self.clock_record(now)),
        };
    }

    /// What a daemon that begins does about a clock that was set while there was none.
    pub fn catch_up(&mut self) -> Reading {
        let now = self.clocks();
        let record = self.clock_record(now);
        let before = self.disk.clock.replace(record);
        let jump = clock::since(before.as_ref(), &self.boot_id(), now);
        let trusts = matches!(self.mutant, Mutant::ClockTrusted | Mutant::MovedForOne);
        if let Some(jump) = jump.filter(|_| !trusts) {
            let Disk { apps, actual, tasks, drains, .. } = &mut self.disk;
            let (waiting, drain) = (&mut Waiting::default(), drains.as_mut());
            jump.move_all(clock::Times { apps, actual, tasks, waiting, drain });
        }
        now
    }

    /// What the kernel calls this run of the box.
    pub fn boot_id(&self) -> String {
        self.boots.to_string()
    }

    fn clocks(&self) -> Reading {
        Reading { wall_ms: self.shown(), steady_ms: self.now }
    }

    fn clock_record(&self, now: Reading) -> ClockRecord {
        ClockRecord::of(&self.boot_id(), now)
    }
}
