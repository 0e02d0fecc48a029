//! One instance from its container to its end: the order of steps is that of `src/cell/instance.rs` and
//! `placement.rs`; which part's end is the end of all, and what it comes to, is `exec::ending`'s.

use crate::cell::Act;
use crate::mutant::Mutant;
use crate::upkeep::{Maker, RESERVED_MAX_MS};
use crate::world::{Container, Exit, Process, World};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use terrarium::cell::diff::Key;
use terrarium::cell::lrp_state::{End, LrpEvent, concluded, stopped};
use terrarium::cell::owner::Owner;
use terrarium::exec::ending::{Part, Rule, outcome};
use terrarium::exec::room::Resources;
use terrarium::exec::state::{ContainerEvent, ContainerState};
use terrarium::exec::steps::{StepError, StepResult};
use terrarium::model::death::{Cause, Stopper};
use terrarium::model::lrp::{DesiredLrp, Place};
use terrarium::unit::{Handle, Slot};

/// From the start of an instance to the first success of its probe.
const START_MAX_MS: u64 = 60_000;
/// From TERM to KILL.
const GRACE_MS: u64 = 10_000;

/// What a supervisor does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Does {
    /// A turn to make its container.
    Create,
    /// It has waited too long for that.
    Expire,
    Make,
    Created,
    Claim,
    Unready,
    /// One that could not be reached is looked at for the so manieth time.
    Look(u32),
    Start,
    /// The time is over in which it has to get healthy.
    TooLate,
    /// Its process has ended, or is killed now.
    Kill,
    Remove,
    Conclude,
}

/// How far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// It cannot be reached.
    Seeking,
    /// It waits for a turn to make its container.
    Queued,
    Making,
    Living,
    /// Its process was told to end.
    Ending,
    Over,
}

/// Who works on an instance.
#[derive(Clone, Debug)]
pub struct Sup {
    pub serial: u64,
    pub stopping: bool,
    pub lrp: Arc<DesiredLrp>,
    pub needs: Resources,
    pub cancelled: bool,
    /// It is to end, whatever the plan says.
    pub leaves: bool,
    pub handle: Option<Handle>,
    pub stage: Stage,
    /// How far its container is, in executor's words.
    pub container: ContainerState,
    pub healthy: bool,
    returned: u64,
    /// When all its parts were told to end.
    told_at: Option<u64>,
    /// How those of its parts have ended that have.
    ends: BTreeMap<Part, StepResult>,
    /// What it has come to.
    end: Option<StepResult>,
}

impl Sup {
    /// It is to end: told so once it has left its ports.
    pub fn leave(&mut self) {
        (self.stopping, self.leaves) = (true, true);
    }

    /// It has ended, and what of it goes on has its grace, or is being removed: then its end is recorded.
    pub fn is_ending(&self, now: u64) -> bool {
        let in_grace = self.told_at.is_some_and(|at| now < at + GRACE_MS);
        self.stage == Stage::Over || (self.stage == Stage::Ending && in_grace)
    }

    fn rule(&self) -> Rule {
        Rule::of(&self.lrp.work, &self.lrp.health)
    }

    /// Its parts that are processes.
    fn processes(&self) -> impl Iterator<Item = Part> + use<> {
        let beside = self.rule().sidecars.then_some(Part::Sidecar);
        [Part::Action].into_iter().chain(beside)
    }
}

impl World {
    /// Begins to work on an instance whose room is taken.
    pub fn begin(&mut self, key: Key, lrp: DesiredLrp) {
        if self.mem.is_none() {
            return;
        }
        self.ledger.app_begins(&key.0.app);
        let needs = Resources::of(&lrp.limits);
        let serial = self.enter(&key, lrp, needs);
        self.act_soon(Act::Sup(key, serial, Does::Create));
    }

    pub fn enter(&mut self, key: &Key, lrp: DesiredLrp, needs: Resources) -> u64 {
        let Some(mem) = &mut self.mem else { return 0 };
        mem.serial += 1;
        mem.waiting.placed(key);
        let sup = Sup {
            serial: mem.serial,
            stopping: false,
            lrp: Arc::new(lrp),
            needs,
            cancelled: false,
            leaves: false,
            handle: None,
            stage: Stage::Making,
            container: ContainerState::Reserved,
            healthy: false,
            returned: mem.waiting.returned(),
            told_at: None,
            ends: BTreeMap::new(),
            end: None,
        };
        mem.supervised.insert(key.clone(), sup);
        mem.serial
    }

    /// Goes on with one that survived the daemon.
    pub fn adopt(&mut self, key: Key, lrp: DesiredLrp, handle: &Handle, container: Container) {
        self.note(|| format!("daemon  adopts {handle}"));
        let Some(mem) = &mut self.mem else { return };
        mem.room.force(container.needs);
        let version = mem.actual.get(&key).map(|record| record.version.clone());
        let lrp = DesiredLrp { version: version.unwrap_or_default(), ..lrp };
        let serial = self.enter(&key, lrp, container.needs);
        self.take_over(&key, serial, handle, &container);
    }

    /// Its processes are attached: it goes on as it was recorded.
    pub fn take_over(&mut self, key: &Key, serial: u64, handle: &Handle, container: &Container) {
        let record = self.mem.as_ref().and_then(|mem| mem.actual.get(key));
        let healthy = record.is_some_and(|record| record.runs());
        if let Some(sup) = self.sup(key, serial) {
            (sup.handle, sup.stage, sup.healthy) = (Some(handle.clone()), Stage::Living, healthy);
            sup.container = ContainerState::survived(healthy);
        }
        if container.action.is_some() {
            self.act_soon(Act::Ended(handle.clone()));
        }
        if container.beside.is_some() {
            self.act_soon(Act::BesideEnded(handle.clone()));
        }
        self.act_soon(Act::Ready(handle.clone()));
        let late = Act::Sup(key.clone(), serial, Does::TooLate);
        match (healthy, container.healthy, container.sick) {
            (true, _, true) => self.act_soon(Act::Sick(handle.clone())),
            (false, true, false) => self.act_soon(Act::Healthy(handle.clone())),
            // That it has begun is all that is asked of it.
            (false, ..) if !container.rule.monitored => {
                self.act_soon(Act::Healthy(handle.clone()));
            }
            (false, ..) => self.act_after(START_MAX_MS, late),
            (true, ..) => {}
        }
    }

    pub fn sup(&mut self, key: &Key, serial: u64) -> Option<&mut Sup> {
        let sup = self.mem.as_mut()?.supervised.get_mut(key)?;
        (sup.serial == serial).then_some(sup)
    }

    /// Something happens to its container: by the table.
    pub fn turn_of(&mut self, key: &Key, serial: u64, event: ContainerEvent) {
        let Some(sup) = self.sup(key, serial) else { return };
        let state = sup.container;
        match state.next(event) {
            Ok(next) => sup.container = next,
            Err(err) => self.breaks(|| format!("{key:?}: {event:?} of one that is {state}: {err}")),
        }
    }

    /// Tells a supervisor to end its instance.
    pub fn cancel(&mut self, key: &Key) {
        let Some(sup) = self.mem.as_mut().and_then(|mem| mem.supervised.get_mut(key)) else {
            return;
        };
        (sup.stopping, sup.cancelled) = (true, true);
        let (serial, stage) = (sup.serial, sup.stage);
        let maker = Maker::Instance(key.clone(), serial);
        if stage == Stage::Seeking {
            self.give_up(key, serial);
        } else if stage == Stage::Queued && self.leaves_queue(&maker) {
            self.act_soon(Act::Sup(key.clone(), serial, Does::Conclude));
        } else if stage == Stage::Living {
            self.check_told(key);
            self.tell_parts(key, serial);
        }
    }

    /// One of its parts has ended: the others go on, or are told to end.
    pub fn part_ends(&mut self, key: &Key, serial: u64, part: Part, result: StepResult) {
        let Some(sup) = self.sup(key, serial).filter(|sup| !sup.ends.contains_key(&part)) else {
            return;
        };
        let (result, all) = sup.rule().ended(part, result, sup.told_at.is_some());
        sup.ends.insert(part, result);
        if all {
            self.tell_parts(key, serial);
        }
    }

    /// All its parts are told to end: checks do so at once, processes by TERM, or KILL at the end of the
    /// grace.
    fn tell_parts(&mut self, key: &Key, serial: u64) {
        let now = self.now;
        let Some(sup) = self.sup(key, serial) else { return };
        let first = sup.told_at.is_none();
        sup.told_at.get_or_insert(now);
        sup.stage = Stage::Ending;
        for check in [Part::Health, Part::Readiness] {
            sup.ends.entry(check).or_insert(Err(StepError::Cancelled));
        }
        if sup.processes().all(|part| sup.ends.contains_key(&part)) {
            self.over(key, serial);
        } else if first {
            let ms = self.rng.below(GRACE_MS);
            self.act_after(ms, Act::Sup(key.clone(), serial, Does::Kill));
        }
    }

    pub fn supervise(&mut self, key: &Key, serial: u64, does: Does) {
        let Some(sup) = self.sup(key, serial).cloned() else { return };
        let next = |does| Act::Sup(key.clone(), serial, does);
        match does {
            Does::Look(n) => self.look(key, serial, n),
            Does::Create if sup.cancelled => self.act_soon(next(Does::Conclude)),
            Does::Create => match self.takes_turn(Maker::Instance(key.clone(), serial)) {
                true => self.act_soon(next(Does::Make)),
                false => {
                    let queued = self.sup(key, serial);
                    queued.into_iter().for_each(|sup| sup.stage = Stage::Queued);
                    self.act_after(RESERVED_MAX_MS, next(Does::Expire));
                }
            },
            Does::Expire => self.expire(key, &sup),
            Does::Make => {
                let handle = self.fresh_handle(key.0.app.as_str());
                let owner = Owner::Lrp { guid: key.0.clone(), index: key.1 };
                let of = Some((key.clone(), sup.lrp.version.clone()));
                self.make(&handle, owner, of, sup.needs);
                if let Some(sup) = self.sup(key, serial) {
                    sup.handle = Some(handle);
                }
                self.turn_of(key, serial, ContainerEvent::Initialize);
                // Where one is made at a time, others wait for it too long now and then.
                let slow = self.fails(if self.nature.creators == 1 { 4 } else { 15 });
                let ms = self.rng.between(20, if slow { 60_000 } else { 1500 });
                self.act_after(ms, next(Does::Created));
            }
            Does::Created => {
                self.gives_turn();
                self.created(key, sup);
            }
            Does::Claim => {
                self.happen(key, LrpEvent::Claim(self.place_of(&sup)));
                let last = self.mutant == Mutant::ClaimLate;
                if !last {
                    let has = sup.lrp.readiness.is_some();
                    self.act_soon(next(if has { Does::Unready } else { Does::Start }));
                }
            }
            Does::Unready => {
                if let Some(handle) = sup.handle.clone() {
                    self.happen(key, LrpEvent::Ready { handle, ready: false });
                }
                self.act_soon(next(Does::Start));
            }
            Does::Start if sup.cancelled => self.over(key, serial),
            Does::Start => {
                let Some(handle) = sup.handle.clone() else { return };
                self.check_start(key, &handle);
                self.run(&handle, key, &sup.lrp);
                if let Some(sup) = self.sup(key, serial) {
                    sup.stage = Stage::Living;
                }
                self.wake();
                self.act_after(START_MAX_MS, next(Does::TooLate));
                if self.mutant == Mutant::ClaimLate {
                    self.act_soon(next(Does::Claim));
                }
            }
            Does::TooLate => {
                let waits = sup.stage == Stage::Living && !sup.healthy;
                if waits && sup.rule().monitored {
                    let after = Duration::from_millis(START_MAX_MS);
                    let late = Err(StepError::never_healthy(after, ""));
                    self.part_ends(key, serial, Part::Health, late);
                }
            }
            Does::Kill => {
                let Some(handle) = sup.handle.as_ref().filter(|_| sup.stage == Stage::Ending)
                else {
                    return;
                };
                if let Some(container) = self.containers.get_mut(handle)
                    && container.process == Process::Alive
                {
                    container.process = Process::Ended(Exit::Told);
                    // The next daemon finds how they have ended.
                    container.action.get_or_insert(Exit::Told);
                    if container.rule.sidecars {
                        container.beside.get_or_insert(Exit::Told);
                    }
                }
                self.note(|| format!("kernel  {handle} ends, told to"));
                let killed = self.rng.once_in(4);
                if let Some(sup) = self.sup(key, serial) {
                    for part in sup.processes() {
                        let end =
                            if killed { StepError::GraceExceeded } else { StepError::Cancelled };
                        sup.ends.entry(part).or_insert(Err(end));
                    }
                }
                self.over(key, serial);
            }
            Does::Remove => {
                let Some(handle) = sup.handle.clone() else { return };
                self.publish();
                self.remove(&handle, 1);
                self.act_soon(next(Does::Conclude));
            }
            Does::Conclude => self.conclude(key, sup),
        }
    }

    /// It had no turn in a minute: it gives its room back and waits for what others leave.
    fn expire(&mut self, key: &Key, sup: &Sup) {
        let waits = sup.stage == Stage::Queued && !sup.cancelled;
        if !waits || !self.leaves_queue(&Maker::Instance(key.clone(), sup.serial)) {
            return;
        }
        let (wall, keeps) = (self.wall(), self.mutant == Mutant::ReservedForEver);
        let Some(mem) = &mut self.mem else { return };
        if !keeps {
            mem.room.give_back(sup.needs);
        }
        mem.waiting.starved(key, &sup.lrp.version, sup.returned, wall);
        self.wait(key, "it has waited for its container for a minute");
        if let Some(mem) = &mut self.mem {
            mem.supervised.remove(key);
        }
        self.wake();
    }

    fn created(&mut self, key: &Key, sup: Sup) {
        let Some(handle) = sup.handle.clone() else { return };
        let (full, failed) =
            (self.fails(self.nature.create_full_in), self.fails(self.nature.create_fails_in));
        let failed = failed || self.ill;
        if full && !sup.cancelled {
            self.containers.remove(&handle);
            self.note(|| format!("kernel  {handle} finds no room"));
            let wall = self.wall();
            let Some(mem) = &mut self.mem else { return };
            mem.room.give_back(sup.needs);
            mem.waiting.starved(key, &sup.lrp.version, sup.returned, wall);
            self.wait_for_room(key, "the store is full");
            if let Some(mem) = &mut self.mem {
                mem.supervised.remove(key);
            }
            return self.wake();
        }
        if failed || full {
            self.note(|| format!("kernel  {handle} cannot be made"));
            self.containers.remove(&handle);
            let end = Err(StepError::died(Cause::CreateFailed { why: "it failed".to_owned() }));
            self.turn_of(key, sup.serial, ContainerEvent::Complete);
            if let Some(sup) = self.sup(key, sup.serial) {
                (sup.handle, sup.end) = (None, Some(end));
            }
            return self.act_soon(Act::Sup(key.clone(), sup.serial, Does::Conclude));
        }
        self.turn_of(key, sup.serial, ContainerEvent::Create);
        let late = self.mutant == Mutant::ClaimLate;
        let does = if late { Does::Start } else { Does::Claim };
        self.act_soon(Act::Sup(key.clone(), sup.serial, does));
    }

    pub fn place_of(&self, sup: &Sup) -> Place {
        let handle = sup.handle.clone().expect("it is made");
        let slot = self.containers.get(&handle).map_or(0, |it| it.slot);
        Place { handle, slot: Slot::new(slot).expect("a slot"), ports: Vec::new() }
    }

    /// Nothing of it lives any more; its container goes.
    fn over(&mut self, key: &Key, serial: u64) {
        let slow = self.fails(10);
        let ms = self.rng.between(5, if slow { 20_000 } else { 300 });
        self.turn_of(key, serial, ContainerEvent::Complete);
        if let Some(sup) = self.sup(key, serial) {
            sup.stage = Stage::Over;
            sup.stopping = true;
            let ends = std::mem::take(&mut sup.ends);
            sup.end = Some(outcome(ends.into_values().collect(), sup.cancelled));
            self.act_after(ms, Act::Sup(key.clone(), serial, Does::Remove));
        }
    }

    /// How it ended is recorded, then its room is given back.
    fn conclude(&mut self, key: &Key, sup: Sup) {
        // Without an end it was told to, before it had a container.
        let end = sup.end.unwrap_or(Err(StepError::Cancelled));
        let stopped = sup.cancelled.then(|| stopped(Stopper::Cell, &end));
        let was_stopped = stopped.is_some();
        self.happen(key, concluded(sup.handle, End::of(&sup.lrp, &end), stopped));
        let twice = was_stopped && self.mutant == Mutant::RoomTwice;
        let Some(mem) = &mut self.mem else { return };
        mem.give_back(sup.needs);
        if twice {
            mem.give_back(sup.needs);
        }
        mem.supervised.remove(key);
        if self.mutant != Mutant::NoWake {
            self.wake();
        }
    }
}
