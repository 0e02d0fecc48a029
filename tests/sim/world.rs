//! What there is outside the daemon: the disk with the records, the kernel with containers and
//! processes, the clock, the manifests; and the queue of what happens next.

use crate::cell::Act;
use crate::deaths::{Aim, Deaths};
use crate::ledger::Ledger;
use crate::memory::Mem;
use crate::mutant::Mutant;
use crate::rng::Rng;
use std::collections::BTreeMap;
use terrarium::cell::DrainRecord;
use terrarium::cell::clock::ClockRecord;
use terrarium::cell::diff::Key;
use terrarium::cell::owner::Owner;
use terrarium::cell::record::AppRecord;
use terrarium::exec::ending::Rule;
use terrarium::exec::room::Resources;
use terrarium::model::lrp::ActualLrp;
use terrarium::model::task::TaskRecord;
use terrarium::unit::{AppName, Bytes, Handle};

/// What survives the daemon.
#[derive(Clone, Default)]
pub struct Disk {
    pub apps: BTreeMap<AppName, AppRecord>,
    pub actual: BTreeMap<Key, ActualLrp>,
    pub tasks: BTreeMap<String, TaskRecord>,
    /// The cell is to be drained.
    pub drains: Option<DrainRecord>,
    /// What the clocks showed when the times above were moved last.
    pub clock: Option<ClockRecord>,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    Code(i32),
    OutOfMemory,
    /// By whoever told it to end.
    Told,
}

/// Whether anything of what a container is about lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Process {
    None,
    Alive,
    Ended(Exit),
}

/// A container in the kernel and the depot.
#[derive(Clone, Debug)]
pub struct Container {
    pub owner: Owner,
    /// Of which instance and in which version.
    pub of: Option<(Key, String)>,
    pub needs: Resources,
    pub process: Process,
    /// How what it is about has ended by itself; something of it may live in the background.
    pub action: Option<Exit>,
    /// How what runs beside that has.
    pub beside: Option<Exit>,
    /// What it consists of.
    pub rule: Rule,
    /// Its probe would pass.
    pub healthy: bool,
    /// Its probe would fail though it has passed.
    pub sick: bool,
    /// Its readiness check would pass.
    pub ready: bool,
    /// Where its address comes from.
    pub slot: u32,
}

/// What is wrong with a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bad {
    EndsAtOnce,
    NeverHealthy,
    NeverReady,
}

/// What a manifest in apps.d says; the script writes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    pub text: String,
    /// Tells versions of the app's bits apart.
    pub bits: u64,
}

/// What happens next.
#[derive(Clone, Debug)]
pub enum Event {
    /// In this run of the daemon.
    Daemon(u64, Act),
    /// The process of this container ends by itself.
    Ends(Handle, Exit),
    /// What runs beside it does.
    BesideEnds(Handle, Exit),
    /// Its probe passes from now on.
    Healthy(Handle),
    /// Its probe fails from now on.
    Sick(Handle),
    /// Its readiness check passes from now on, or does not.
    Ready(Handle, bool),
    /// The script goes on.
    Script,
    /// The next daemon starts.
    Boot,
}

/// What the box of this seed is like.
pub struct Nature {
    /// In how many steps the daemon dies once; 0: never.
    pub crash_in: u64,
    /// In how many changes of a record the daemon dies at one; 0: never.
    pub changes_in: u64,
    pub create_fails_in: u64,
    pub create_full_in: u64,
    pub destroy_fails_in: u64,
    /// In how many starts of an app a process ends by itself.
    pub exits_in: u64,
    /// The clock is set now and then.
    pub clock: bool,
    /// So many containers are made at a time.
    pub creators: usize,
    pub total: Resources,
    /// How long the script goes on, in milliseconds.
    pub length_ms: u64,
}

pub struct World {
    pub rng: Rng,
    pub mutant: Mutant,
    pub nature: Nature,
    /// Virtual time that nobody sets, in milliseconds.
    pub now: u64,
    /// The box's clock is so far ahead.
    pub ahead: i64,
    /// How often the box was started.
    pub boots: u32,
    pub run: u64,
    pub disk: Disk,
    pub containers: BTreeMap<Handle, Container>,
    pub mem: Option<Mem>,
    queue: BTreeMap<(u64, u64, u64), Event>,
    queued: u64,
    /// No fault from here on.
    pub kind: bool,
    pub files: BTreeMap<AppName, Wanted>,
    pub files_readable: bool,
    /// Bits that are no good.
    pub bad: BTreeMap<(AppName, u64), Bad>,
    /// No container can be made.
    pub ill: bool,
    /// Where the kernel leads connections to, by slot.
    pub ports: BTreeMap<u16, Vec<u32>>,
    /// Task guids by when their action ends.
    pub task_ends: BTreeMap<String, (u64, i32)>,
    /// Apps and generations by the guids of their stagings.
    pub stagings: BTreeMap<String, (AppName, u64)>,
    pub ledger: Ledger,
    /// Where the daemon has died.
    pub deaths: Deaths,
    pub trace: Option<Vec<String>>,
    pub steps: u64,
    pub handles: u64,
    pub tasks_asked: u64,
    pub bits: u64,
    /// What must never be true is.
    pub broken: Option<String>,
    /// The daemon is to die before the next step.
    pub die: bool,
    /// Where it is to die.
    pub aim: Option<Aim>,
}

impl World {
    pub fn new(seed: u64, mutant: Mutant, traced: bool) -> World {
        let mut rng = Rng::new(seed);
        let tight = rng.once_in(2);
        let memory = if tight { rng.between(4, 12) * 64 } else { 1 << 20 };
        let nature = Nature {
            crash_in: *rng.pick(&[0, 0, 40, 150, 600]).expect("some"),
            changes_in: 0,
            create_fails_in: *rng.pick(&[0, 4, 15]).expect("some"),
            create_full_in: *rng.pick(&[0, 0, 12]).expect("some"),
            destroy_fails_in: *rng.pick(&[0, 3, 10]).expect("some"),
            exits_in: *rng.pick(&[0, 2, 6]).expect("some"),
            clock: rng.once_in(3),
            creators: *rng.pick(&[1, 2, 8]).expect("some"),
            total: Resources {
                memory: Bytes::mib(memory),
                disk: Bytes::mib(1 << 20),
                containers: if rng.once_in(8) { rng.between(3, 8) as u32 } else { 250 },
            },
            length_ms: rng.between(2, 40) * 60_000,
        };
        // A box without a battery wakes up in 1970.
        let ahead = if rng.once_in(6) { 1_000 } else { 1_795_000_000_000 };
        let mut world = World {
            rng,
            mutant,
            nature,
            now: 0,
            ahead,
            boots: 1,
            run: 0,
            disk: Disk::default(),
            containers: BTreeMap::new(),
            mem: None,
            queue: BTreeMap::new(),
            queued: 0,
            kind: false,
            files: BTreeMap::new(),
            files_readable: true,
            bad: BTreeMap::new(),
            ill: false,
            ports: BTreeMap::new(),
            task_ends: BTreeMap::new(),
            stagings: BTreeMap::new(),
            ledger: Ledger::default(),
            deaths: Deaths::default(),
            trace: traced.then(Vec::new),
            steps: 0,
            handles: 0,
            tasks_asked: 0,
            bits: 0,
            broken: None,
            die: false,
            aim: None,
        };
        world.after(0, Event::Boot);
        world.after(10, Event::Script);
        world
    }

    /// What the box's clock shows, in milliseconds since 1970.
    pub fn shown(&self) -> u64 {
        self.now.saturating_add_signed(self.ahead)
    }

    /// The daemon's clock: the box's as it was when the loop looked last, and the steady one since.
    pub fn wall(&self) -> u64 {
        let looked = self.mem.as_ref().and_then(|mem| mem.reading);
        looked.map_or(self.shown(), |it| it.wall_ms + (self.now - it.steady_ms))
    }

    pub fn wall_ns(&self) -> u64 {
        self.wall().saturating_mul(1_000_000)
    }

    /// `event` happens in so many milliseconds; what happens at one moment, in any order.
    pub fn after(&mut self, ms: u64, event: Event) {
        self.queued += 1;
        let key = (self.now + ms, self.rng.next(), self.queued);
        self.queue.insert(key, event);
    }

    /// The daemon of now goes on with `act`; one that has died within this step does not.
    pub fn act_after(&mut self, ms: u64, act: Act) {
        if self.mem.is_some() {
            self.after(ms, Event::Daemon(self.run, act));
        }
    }

    /// The same, at once or nearly so: anything else may come before.
    pub fn act_soon(&mut self, act: Act) {
        let ms = self.rng.below(3);
        self.act_after(ms, act);
    }

    pub fn note(&mut self, text: impl FnOnce() -> String) {
        let (now, wall) = (self.now, self.wall());
        if let Some(trace) = &mut self.trace {
            trace.push(format!("{:>9}.{:03} {wall} {}", now / 1000, now % 1000, text()));
        }
    }

    /// What must never be true is: the first one counts.
    pub fn breaks(&mut self, why: impl FnOnce() -> String) {
        if self.broken.is_none() {
            let why = why();
            self.note(|| format!("VIOLATION {why}"));
            self.broken = Some(why);
        }
    }

    /// Something goes wrong once in so many times, as long as the world is not kind.
    pub fn fails(&mut self, once_in: u64) -> bool {
        !self.kind && self.rng.once_in(once_in)
    }

    /// One step. `false`: nothing is left to happen before `end`.
    pub fn step(&mut self, end: u64) -> bool {
        let Some((key, _)) = self.queue.first_key_value() else { return false };
        let key = *key;
        if key.0 > end {
            self.now = end;
            return false;
        }
        self.now = self.now.max(key.0);
        let Some(event) = self.queue.remove(&key) else { return false };
        self.steps += 1;
        let dies = self.fails(self.nature.crash_in) || std::mem::take(&mut self.die);
        if dies && self.mem.is_some() {
            self.daemon_dies();
        }
        match event {
            Event::Daemon(run, act) if run == self.run && self.mem.is_some() => self.act(act),
            Event::Daemon(..) => {}
            Event::Ends(handle, exit) => self.process_ends(&handle, exit),
            Event::BesideEnds(handle, exit) => self.beside_ends(&handle, exit),
            Event::Healthy(handle) => self.probe_turns(&handle, true),
            Event::Sick(handle) => self.probe_turns(&handle, false),
            Event::Ready(handle, ready) => self.readiness_turns(&handle, ready),
            Event::Script => self.script(),
            Event::Boot => self.daemon_starts(),
        }
        true
    }

    /// It ends by itself; whoever watches it hears of it.
    pub fn process_ends(&mut self, handle: &Handle, exit: Exit) {
        let (leaves_some, ms) = (self.rng.once_in(2), self.rng.between(1_000, 30_000));
        let Some(container) = self.containers.get_mut(handle) else { return };
        if container.process != Process::Alive {
            return;
        }
        let Rule { monitored, .. } = container.rule;
        let first = container.action.is_none();
        // Where a check decides, it may have put itself into the background.
        let goes_on = first && exit == Exit::Code(0) && monitored && leaves_some;
        container.action.get_or_insert(exit);
        if !goes_on {
            container.process = Process::Ended(exit);
        }
        self.note(|| format!("kernel  {handle} ends {exit:?}, some of it goes on: {goes_on}"));
        if monitored && !goes_on {
            // Nobody answers its check any more.
            self.after(ms, Event::Sick(handle.clone()));
        }
        if first {
            self.told_of(handle, Act::Ended(handle.clone()));
        }
    }

    fn beside_ends(&mut self, handle: &Handle, exit: Exit) {
        let Some(container) = self.containers.get_mut(handle) else { return };
        if container.process == Process::Alive && container.beside.is_none() {
            container.beside = Some(exit);
            self.note(|| format!("kernel  {handle}: what runs beside it ends {exit:?}"));
            self.told_of(handle, Act::BesideEnded(handle.clone()));
        }
    }

    fn probe_turns(&mut self, handle: &Handle, passes: bool) {
        let Some(container) = self.containers.get_mut(handle) else { return };
        match container.process {
            Process::Alive => {}
            Process::Ended(_) if !passes => {}
            Process::Ended(_) | Process::None => return,
        }
        match passes {
            true => container.healthy = true,
            false => container.sick = true,
        }
        self.note(|| format!("kernel  {handle} probe passes: {passes}"));
        let act = if passes { Act::Healthy(handle.clone()) } else { Act::Sick(handle.clone()) };
        self.told_of(handle, act);
    }

    fn readiness_turns(&mut self, handle: &Handle, ready: bool) {
        let Some(container) = self.containers.get_mut(handle) else { return };
        if container.process != Process::Alive || container.ready == ready {
            return;
        }
        container.ready = ready;
        self.note(|| format!("kernel  {handle} is ready: {ready}"));
        self.told_of(handle, Act::Ready(handle.clone()));
    }

    fn told_of(&mut self, _handle: &Handle, act: Act) {
        if self.mem.is_some() {
            self.act_soon(act);
        }
    }

    /// SIGKILL: memory is gone; containers and their processes live on.
    pub fn daemon_dies(&mut self) {
        if self.mem.take().is_none() {
            return;
        }
        self.run += 1;
        self.note(|| "daemon  DIES".to_owned());
        let ms = if self.kind { 10 } else { self.rng.between(1, 20_000) };
        self.after(ms, Event::Boot);
    }

    /// The power goes: nothing of any container is left.
    pub fn reboots(&mut self) {
        self.daemon_dies();
        self.note(|| "box     REBOOTS".to_owned());
        self.containers.clear();
        self.ports.clear();
        self.boots += 1;
        self.ledger.rebooted();
    }
}
