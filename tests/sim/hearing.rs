//! What whoever works on an instance hears of it: its process has ended, its probe passes or fails.

use crate::instance::{Stage, Sup};
use crate::world::{Exit, World};
use terrarium::cell::diff::Key;
use terrarium::cell::lrp_state::LrpEvent;
use terrarium::exec::ending::Part;
use terrarium::exec::state::ContainerEvent;
use terrarium::exec::steps::{StepError, StepResult};
use terrarium::model::death::Cause;
use terrarium::unit::Handle;

/// What the end of a process is to its step.
fn result_of(exit: Exit) -> StepResult {
    let source = "APP".to_owned();
    let cause = match exit {
        Exit::Code(0) => return Ok(()),
        Exit::Code(code) => Cause::Exited { source, code },
        // By a daemon that is no more.
        Exit::Told => Cause::Exited { source, code: 143 },
        Exit::OutOfMemory => {
            let (victim, limit_bytes, whole_box) = (None, None, false);
            Cause::OutOfMemory { source, code: 137, victim, limit_bytes, whole_box }
        }
    };
    Err(StepError::died(cause))
}

impl World {
    /// Its process has ended by itself.
    pub fn heard_of_end(&mut self, handle: &Handle) {
        let Some(exit) = self.containers.get(handle).and_then(|it| it.action) else { return };
        match self.worked_on(handle) {
            Some((key, sup)) if matches!(sup.stage, Stage::Living | Stage::Ending) => {
                self.part_ends(&key, sup.serial, Part::Action, result_of(exit));
            }
            Some(_) => {}
            None => self.task_ended(handle, exit),
        }
    }

    /// What runs beside it has.
    pub fn heard_of_beside(&mut self, handle: &Handle) {
        let Some(exit) = self.containers.get(handle).and_then(|it| it.beside) else { return };
        if let Some((key, sup)) = self.worked_on(handle)
            && matches!(sup.stage, Stage::Living | Stage::Ending)
        {
            self.part_ends(&key, sup.serial, Part::Sidecar, result_of(exit));
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
            self.turn_of(&key, sup.serial, ContainerEvent::Run);
            let version = sup.lrp.version.clone();
            self.happen(&key, LrpEvent::Start { version, place: self.place_of(&sup) });
            self.publish();
            self.wake();
        } else if !passes && sup.healthy {
            self.part_ends(&key, sup.serial, Part::Health, Err(StepError::unhealthy("")));
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
