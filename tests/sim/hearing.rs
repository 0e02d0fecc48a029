//! What whoever works on an instance hears of it: its process has ended, its probe passes or fails.

use crate::instance::{Stage, Sup};
use crate::world::{Exit, Process, World};
use terrarium::cell::diff::Key;
use terrarium::cell::lrp_state::LrpEvent;
use terrarium::model::death::Cause;
use terrarium::unit::Handle;

impl World {
    /// Its process has ended by itself.
    pub fn heard_of_end(&mut self, handle: &Handle) {
        let Some(Process::Ended(exit)) = self.containers.get(handle).map(|it| it.process) else {
            return;
        };
        match self.worked_on(handle) {
            Some((key, sup)) if matches!(sup.stage, Stage::Living | Stage::Ending) => {
                let source = "APP".to_owned();
                let (victim, limit_bytes) = (None, None);
                let cause = match exit {
                    Exit::Code(code) => Cause::Exited { source, code },
                    Exit::OutOfMemory => Cause::OutOfMemory {
                        source,
                        code: 137,
                        victim,
                        limit_bytes,
                        whole_box: false,
                    },
                    Exit::Told => Cause::ContainerLost,
                };
                self.over(&key, sup.serial, Some((exit == Exit::Code(0), cause)));
            }
            Some(_) => {}
            None => self.task_ended(handle, exit),
        }
    }

    /// Its probe passes for the first time, or fails after it has passed.
    pub fn heard_of_health(&mut self, handle: &Handle, passes: bool) {
        let living = |(_, sup): &(Key, Sup)| sup.stage == Stage::Living;
        let Some((key, sup)) = self.worked_on(handle).filter(living) else { return };
        if passes && !sup.healthy {
            if let Some(sup) = self.sup(&key, sup.serial) {
                sup.healthy = true;
            }
            let version = sup.lrp.version.clone();
            self.happen(&key, LrpEvent::Start { version, place: self.place_of(&sup) });
            self.publish();
            self.wake();
        } else if !passes && sup.healthy {
            self.stop(&key, sup.serial, (false, Cause::Unhealthy { output: String::new() }));
        }
    }

    /// Its readiness check passes for the first time, or fails after it has passed.
    pub fn heard_of_readiness(&mut self, handle: &Handle) {
        let Some(ready) = self.containers.get(handle).map(|it| it.ready) else { return };
        let living = |(_, sup): &(Key, Sup)| sup.stage == Stage::Living;
        let Some((key, sup)) = self.worked_on(handle).filter(living) else { return };
        let record = self.mem.as_ref().and_then(|mem| mem.actual.get(&key));
        let known = record.and_then(|record| record.routable);
        if sup.lrp.readiness.is_some() && known != Some(ready) {
            self.happen(&key, LrpEvent::Ready { handle: handle.clone(), ready });
            self.publish();
            self.wake();
        }
    }

    /// Whose container it is.
    fn worked_on(&self, handle: &Handle) -> Option<(Key, Sup)> {
        let mem = self.mem.as_ref()?;
        let found = mem.supervised.iter().find(|(_, sup)| sup.handle.as_ref() == Some(handle));
        found.map(|(key, sup)| (key.clone(), sup.clone()))
    }
}
