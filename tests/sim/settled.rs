//! What must be true two hours after the last fault.

use crate::apps::bits_of;
use crate::world::{Bad, Process, World};
use std::collections::BTreeSet;
use terrarium::cell::diff::Key;
use terrarium::cell::owner::Owner;
use terrarium::cell::releases;
use terrarium::model::lrp::{ActualLrp, DesiredLrp, LrpState, ProcessGuid};
use terrarium::model::manifest::Restart;
use terrarium::unit::{AppName, Handle};

impl World {
    /// Two hours after the last fault.
    pub fn check_settled(&mut self) {
        if self.broken.is_some() {
            return;
        }
        let why = match &self.mem {
            Some(mem) if mem.serves => self.unsettled(),
            _ => Some("no daemon serves".to_owned()),
        };
        if let Some(why) = why {
            self.breaks(|| format!("at the end: {why}"));
        }
    }

    fn unsettled(&self) -> Option<String> {
        let mem = self.mem.as_ref()?;
        if let Some((guid, record)) = mem.tasks.first_key_value() {
            return Some(format!("task {guid} is still {}", record.state));
        }
        if !mem.stuck.is_empty() {
            return Some(format!("left are {:?}", mem.stuck.keys()));
        }
        let declared: BTreeSet<&AppName> = self.files.keys().collect();
        if mem.apps.keys().collect::<BTreeSet<_>>() != declared {
            return Some(format!("declared are {declared:?}, there are {:?}", mem.apps.keys()));
        }
        let owned = |handle: &Handle| {
            mem.supervised.values().any(|sup| sup.handle.as_ref() == Some(handle))
        };
        let mut apps = self.containers.iter().filter(|(_, it)| it.owner != Owner::Check);
        if let Some((handle, it)) = apps.find(|(handle, _)| !owned(handle)) {
            return Some(format!("container {handle} is nobody's: {it:?}"));
        }
        let wanted = |key: &Key| mem.desired.get(&key.0).is_some_and(|lrp| key.1 < lrp.instances);
        if let Some((key, _)) = mem.actual.iter().find(|(key, _)| !wanted(key)) {
            return Some(format!("{key:?} is there, and nothing wants it"));
        }
        if let Some(it) = self.containers.values().find(|it| matches!(it.owner, Owner::Task(_))) {
            return Some(format!("left of a task: {it:?}"));
        }
        let each = mem.desired.values().flat_map(|lrp| (0..lrp.instances).map(move |it| (lrp, it)));
        let missing = each.filter_map(|(lrp, index)| self.not_there(lrp, index)).next();
        missing.or_else(|| self.unjudged()).or_else(|| self.misled())
    }

    /// All of an app runs in its newest version, and it is on trial still.
    fn unjudged(&self) -> Option<String> {
        let mem = self.mem.as_ref()?;
        let mut open = mem.apps.iter().filter(|(_, app)| releases::is_open(app));
        let (name, _) = open.find(|(name, _)| {
            let mut mine = mem.desired.values().filter(|lrp| lrp.guid.app == **name);
            let runs = |lrp: &DesiredLrp| {
                let its = mem.actual.iter().filter(|(key, _)| key.0 == lrp.guid);
                let new = its.filter(|(_, it)| it.version == lrp.version && it.runs());
                new.filter(|(_, it)| it.routable != Some(false)).count() as u32 == lrp.instances
            };
            let any = mine.clone().any(|lrp| lrp.instances > 0);
            any && mine.all(runs)
        })?;
        Some(format!("all of {name} runs, and nobody has judged it"))
    }

    /// Ports lead to all instances that serve, and to no other.
    fn misled(&self) -> Option<String> {
        let mem = self.mem.as_ref()?;
        for lrp in mem.desired.values() {
            for port in lrp.ports.iter().filter_map(|port| port.publish) {
                let its = mem.actual.iter().filter(|(key, _)| key.0 == lrp.guid);
                let serves = its.filter(|(_, it)| it.runs() && it.routable != Some(false));
                let places = serves.filter_map(|(_, it)| it.place());
                let mut slots: Vec<u32> = places.map(|it| u32::from(it.slot.get())).collect();
                let mut led = self.ports.get(&port).cloned().unwrap_or_default();
                slots.sort_unstable();
                led.sort_unstable();
                if slots != led {
                    return Some(format!("port {port} leads to {led:?}, there are {slots:?}"));
                }
            }
        }
        None
    }

    /// Why an instance is not as it shall be, unless there is an excuse.
    fn not_there(&self, lrp: &DesiredLrp, index: u32) -> Option<String> {
        let mem = self.mem.as_ref()?;
        let app = mem.apps.get(&lrp.guid.app)?;
        let records = mem.actual.iter().filter(|(key, _)| key.0 == lrp.guid && key.1 == index);
        let records: Vec<(&Key, &ActualLrp)> = records.collect();
        let trial = app.last_good.is_some()
            && app.release.as_ref().is_some_and(|it| it.manifest.rollout.rollback);
        let runs = |it: &&(&Key, &ActualLrp)| it.1.version == lrp.version && it.1.runs();
        if let ([one], true) = (&records[..], records.iter().filter(runs).count() == 1) {
            let place = one.1.place()?;
            let process = self.containers.get(&place.handle).map(|it| it.process);
            let ends = mem.supervised.get(one.0).is_some_and(|sup| sup.is_ending(self.now));
            if ends && self.ends_at_once(lrp) {
                // One that ends again and again is met at it now and then.
                return None;
            }
            let why = format!("{:?} is recorded to run, its process is {process:?}", one.0);
            // D47: with a way back, a version that never gets ready has given way by now.
            let ready = one.1.routable != Some(false) || (self.is_never_ready(lrp) && !trial);
            return (process != Some(Process::Alive) || !ready).then_some(why);
        }
        let bad = self.bad.get(&(lrp.guid.app.clone(), bits_of(&lrp.env))).copied();
        let ends = bad == Some(Bad::EndsAtOnce);
        let ended = records.iter().find(|(_, it)| {
            let by_policy = match it.state {
                LrpState::Crashed { succeeded: true } => lrp.restart != Restart::Always,
                LrpState::Crashed { succeeded: false } => lrp.restart == Restart::Never,
                _ => false,
            };
            by_policy && it.version == lrp.version
        });
        let no_room = || {
            let memory = lrp.limits.memory.unwrap_or_default();
            let left = mem.room.left();
            left.memory < memory || left.containers < 1
        };
        match () {
            () if bad.is_some() && !trial => None,
            // One that was healthy for a moment stays, however often it ends.
            () if ends && records.iter().any(|(key, it)| self.ends_again(lrp, key, it)) => None,
            () if ends && self.serves_on(lrp, &records) => None,
            // A way back is only known once something of it was to run; one that was healthy before it
            // ended for good is no reason for it.
            () if ended.is_some_and(|(_, it)| it.ran || !trial) => None,
            () if mem.held().contains_key(&lrp.guid.app) && self.is_stuck(&lrp.guid.app) => None,
            () if no_room() => None,
            () => Some(format!(
                "{}/{index} does not run in version {}: {records:?}; on trial: {trial}, bad: {bad:?}",
                lrp.guid, lrp.version
            )),
        }
    }

    /// An older one serves on: as many as may be replaced at a time have been so, by ones that were healthy
    /// for a moment. Those end again and again, which is no reason to go back, nor to take one more away (D111).
    fn serves_on(&self, lrp: &DesiredLrp, records: &[(&Key, &ActualLrp)]) -> bool {
        let (Some(mem), [(_, old)]) = (&self.mem, records) else { return false };
        let container = old.place().and_then(|place| self.containers.get(&place.handle));
        let lives = container.is_some_and(|it| it.process == Process::Alive);
        let its = mem.actual.iter().filter(|(key, _)| key.0 == lrp.guid);
        let tried = its.filter(|(key, it)| self.ends_again(lrp, key, it)).count();
        old.runs() && lives && tried >= lrp.rollout.max_in_flight.max(1) as usize
    }

    /// It was healthy for a moment in this version, and has ended, or is on its way to that once more.
    fn ends_again(&self, lrp: &DesiredLrp, key: &Key, it: &ActualLrp) -> bool {
        let container = || it.place().and_then(|place| self.containers.get(&place.handle));
        let sup = self.mem.as_ref().and_then(|mem| mem.supervised.get(key));
        let is_so = match it.state {
            LrpState::Unclaimed => sup.is_some(),
            LrpState::Claimed(_) => container().is_some(),
            LrpState::Running(_) => {
                container().is_some_and(|it| it.process == Process::Alive)
                    || sup.is_some_and(|sup| sup.is_ending(self.now))
            }
            LrpState::Crashed { .. } => true,
        };
        is_so && it.ran && it.version == lrp.version
    }

    fn ends_at_once(&self, lrp: &DesiredLrp) -> bool {
        let bits = (lrp.guid.app.clone(), bits_of(&lrp.env));
        self.bad.get(&bits) == Some(&Bad::EndsAtOnce)
    }

    fn is_never_ready(&self, lrp: &DesiredLrp) -> bool {
        let bits = (lrp.guid.app.clone(), bits_of(&lrp.env));
        self.bad.get(&bits) == Some(&Bad::NeverReady)
    }

    /// It needs an app of which nothing runs.
    fn is_stuck(&self, app: &AppName) -> bool {
        let Some(mem) = &self.mem else { return false };
        let Some(release) = mem.apps.get(app).and_then(|it| it.release.as_ref()) else {
            return false;
        };
        let of = |need: &AppName, process: &str| ProcessGuid {
            app: need.clone(),
            process: process.to_owned(),
        };
        release.manifest.needs.iter().any(|need| {
            let all = ["web", "worker"].map(|process| of(need, process));
            let wanted = all
                .iter()
                .filter(|guid| mem.desired.get(*guid).is_some_and(|lrp| lrp.instances > 0));
            let mut down = wanted
                .clone()
                .filter(|guid| !mem.actual.iter().any(|(key, it)| key.0 == **guid && it.runs()));
            wanted.count() == 0 || down.next().is_some()
        })
    }
}
