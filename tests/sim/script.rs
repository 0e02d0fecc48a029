//! What people and accidents do to the box, as the seed says.

use crate::apps::{NAMES, bits_of, parse};
use crate::cell::Act;
use crate::memory::Drains;
use crate::mutant::Mutant;
use crate::world::{Event, Exit, Process, World};
use terrarium::cell::DrainRecord;
use terrarium::cell::lrp_state::LrpEvent;
use terrarium::cell::owner::Owner;
use terrarium::cell::record::{AppRecord, generation_after};
use terrarium::cell::scaled::Said;
use terrarium::cell::task::state::TaskOp;
use terrarium::exec::room::Resources;
use terrarium::model::action::Action;
use terrarium::model::limits::Limits;
use terrarium::model::lrp::{LrpState, ProcessGuid, Side};
use terrarium::model::task::{Rootfs, Task};
use terrarium::unit::{AppName, Bytes, Handle};

/// From a look at manifests that cannot be read to the next.
const FOLLOW_AGAIN_MS: u64 = 10_000;

/// How long Tasks may go on in a cell that is drained.
const DRAIN_MS: u64 = 60_000;

/// Which bits an app is declared with.
pub fn bits_of_app(app: &AppRecord) -> u64 {
    let env: Vec<(String, String)> = app.manifest.env.clone().into_iter().collect();
    bits_of(&env)
}

impl World {
    /// One thing happens, and the next is put on the list.
    pub fn script(&mut self) {
        if self.kind {
            return;
        }
        let ms = if self.rng.once_in(3) { 200_000 } else { 6_000 };
        let ms = self.rng.between(1, ms);
        self.after(ms, Event::Script);
        match self.rng.below(24) {
            0..=4 => self.writes_manifest(),
            5 => self.removes_manifest(),
            6 => self.scales(),
            7 => self.wishes("stop", |app| app.stopped = true),
            8 => self.starts(),
            9 => self.wishes("restart", AppRecord::restart),
            10 => self.makes_one_afresh(),
            11..=13 => self.asks_for_task(),
            14 if self.mutant != Mutant::NobodyCancels => self.gives_up_task(),
            15 => self.ends_some_process(),
            16 => self.makes_manifests_unreadable(),
            17 => self.sets_clock(),
            18 if self.nature.crash_in > 0 => self.die = true,
            20 => self.drains(true),
            21 => self.drains(false),
            19 if self.rng.once_in(4) => self.reboots(),
            22 => self.turns_ill(),
            23 => self.leaves_a_stray(),
            _ => {}
        }
    }

    /// No fault from here on; what was begun goes on.
    pub fn becomes_kind(&mut self) {
        self.note(|| "world   is kind from here on".to_owned());
        self.kind = true;
        self.files_readable = true;
        self.ill = false;
        self.disk.drains = None;
        if let Some(mem) = &mut self.mem {
            mem.drains = None;
            mem.waiting.room_returned();
        }
        self.wake();
        self.act_soon(Act::Follow);
    }

    fn serves(&self) -> bool {
        self.mem.as_ref().is_some_and(|mem| mem.serves)
    }

    fn some_app(&mut self) -> Option<AppName> {
        let mem = self.mem.as_ref().filter(|mem| mem.serves)?;
        let all: Vec<AppName> = mem.apps.keys().cloned().collect();
        self.rng.pick(&all).cloned()
    }

    fn writes_manifest(&mut self) {
        let index = self.rng.below(NAMES.len() as u64) as usize;
        let wanted = self.invent(index);
        self.note(|| format!("script  writes {wanted:?}"));
        self.files.insert(NAMES[index].parse().expect("name"), wanted);
        self.act_after(200, Act::Follow);
    }

    fn removes_manifest(&mut self) {
        let all: Vec<AppName> = self.files.keys().cloned().collect();
        let Some(name) = self.rng.pick(&all) else { return };
        self.files.remove(name);
        self.note(|| format!("script  removes the manifest of {name}"));
        self.act_after(200, Act::Follow);
    }

    fn makes_manifests_unreadable(&mut self) {
        self.files_readable = !self.files_readable;
        let readable = self.files_readable;
        self.note(|| format!("script  manifests can be read: {readable}"));
        self.act_after(200, Act::Follow);
    }

    /// One look at the manifests, as `daemon::appsd` does it.
    pub fn follow(&mut self) {
        if !self.serves() {
            return;
        }
        if !self.files_readable {
            self.act_after(FOLLOW_AGAIN_MS, Act::Follow);
            if self.mutant != Mutant::UnreadIsGone {
                return;
            }
        }
        let files = if self.files_readable { self.files.clone() } else { Default::default() };
        let apps = self.mem.as_ref().map(|mem| mem.apps.clone()).unwrap_or_default();
        for (name, app) in &apps {
            if !files.contains_key(name) && !app.deleting {
                self.cancel_staging(name);
                self.put_app(name, Some(AppRecord { deleting: true, ..app.clone() }));
            }
        }
        for (name, wanted) in &files {
            let manifest = parse(wanted);
            let record = match apps.get(name) {
                Some(app) if app.deleting => {
                    self.act_after(1_000, Act::Follow);
                    continue;
                }
                Some(app) if app.manifest == manifest => continue,
                Some(app) => {
                    self.cancel_staging(name);
                    let said = Said::of(&wanted.text, false);
                    app.clone().declared(manifest, "/x/app.toml".into(), &said)
                }
                None => AppRecord::new(manifest, "/x/app.toml".into(), self.next_generation()),
            };
            self.put_app(name, Some(record));
        }
    }

    fn next_generation(&self) -> u64 {
        let newest = self.mem.as_ref().map_or(0, |mem| mem.newest);
        match self.mutant {
            Mutant::NewestByClock => self.wall(),
            _ => generation_after(newest, self.wall()),
        }
    }

    fn wishes(&mut self, what: &str, change: impl FnOnce(&mut AppRecord)) {
        let Some(name) = self.some_app() else { return };
        self.note(|| format!("script  {what} {name}"));
        let app = self.mem.as_ref().and_then(|mem| mem.apps.get(&name)).cloned();
        let Some(mut app) = app else { return };
        let before = app.clone();
        change(&mut app);
        if app != before {
            if app.stopped {
                self.cancel_staging(&name);
            }
            self.put_app(&name, Some(app));
        }
    }

    fn starts(&mut self) {
        let Some(mem) = &self.mem else { return };
        let ended =
            mem.actual.iter().filter(|(_, it)| matches!(it.state, LrpState::Crashed { .. }));
        let ended: Vec<AppName> = ended.map(|(key, _)| key.0.app.clone()).collect();
        self.wishes("start", |app| {
            let crashed = ended.contains(&app.manifest.name);
            app.start(crashed);
        });
    }

    fn scales(&mut self) {
        let instances = self.rng.below(5) as u32;
        let process = if self.rng.once_in(3) { "worker" } else { "web" };
        self.wishes("scale", |app| {
            app.scale(process.to_owned(), instances);
        });
    }

    fn makes_one_afresh(&mut self) {
        if !self.serves() {
            return;
        }
        let Some(mem) = &mut self.mem else { return };
        let all: Vec<(ProcessGuid, u32)> =
            mem.desired.values().map(|lrp| (lrp.guid.clone(), lrp.instances)).collect();
        let Some((guid, instances)) = self.rng.pick(&all).filter(|it| it.1 > 0).cloned() else {
            return;
        };
        let index = self.rng.below(u64::from(instances)) as u32;
        let sides = [Side::Left, Side::Right].map(|side| (guid.clone(), index, side));
        mem.afresh.extend(sides);
        self.note(|| format!("script  makes {guid}/{index} afresh"));
        self.wake();
    }

    fn asks_for_task(&mut self) {
        if !self.serves() {
            return;
        }
        self.tasks_asked += 1;
        let guid = format!("t{}", self.tasks_asked);
        let ends = (self.rng.between(10, 90_000), if self.rng.once_in(3) { 1 } else { 0 });
        self.task_ends.insert(guid.clone(), ends);
        let told = if self.rng.once_in(2) { "http://told" } else { "" };
        let memory = Bytes::mib(64 << self.rng.below(3));
        let task = Task { completion_callback_url: told.into(), ..task(&guid, memory) };
        if self.change_task(&guid, &TaskOp::Desire(Box::new(task))).is_ok() {
            self.ledger.task_asked(&guid, self.now);
        }
    }

    fn gives_up_task(&mut self) {
        let Some(mem) = self.mem.as_ref().filter(|mem| mem.serves) else { return };
        let all: Vec<String> = mem.tasks.keys().cloned().collect();
        if let Some(guid) = self.rng.pick(&all).cloned() {
            self.cancel_task(&guid);
        }
    }

    /// Somebody on the box kills it.
    fn ends_some_process(&mut self) {
        let alive = self.containers.iter().filter(|(_, it)| it.process == Process::Alive);
        let alive: Vec<Handle> = alive.map(|(handle, _)| handle.clone()).collect();
        if let Some(handle) = self.rng.pick(&alive).cloned() {
            self.process_ends(&handle, Exit::Code(137));
        }
    }

    /// No container can be made any more, or they can again.
    fn turns_ill(&mut self) {
        self.ill = !self.ill && self.rng.once_in(3);
        let ill = self.ill;
        self.note(|| format!("script  the box is ill: {ill}"));
    }

    /// A container of an instance that nobody works on, as only a mistake could leave it.
    fn leaves_a_stray(&mut self) {
        if !self.serves() || !self.rng.once_in(4) {
            return;
        }
        let app: AppName = NAMES[0].parse().expect("name");
        let guid = ProcessGuid { app, process: "worker".to_owned() };
        let handle = self.fresh_handle("stray");
        self.make(&handle, Owner::Lrp { guid, index: 77 }, None, Resources::default());
    }

    /// The wish is recorded first.
    fn drains(&mut self, wanted: bool) {
        if !self.serves() || (wanted && !self.rng.once_in(4)) {
            return;
        }
        let (since_ms, boot) = (self.wall(), self.boot_id());
        let record = wanted.then_some(DrainRecord { since_ms, timeout_ms: DRAIN_MS, boot });
        self.disk.drains = record.clone();
        self.note(|| format!("script  drains: {wanted}"));
        let begun = self.now;
        let Some(mem) = &mut self.mem else { return };
        mem.drains = record.map(|record| Drains { record, begun });
        if !wanted {
            mem.waiting.room_returned();
        }
        self.wake();
    }

    fn sets_clock(&mut self) {
        if !self.nature.clock {
            return;
        }
        let wall = self.shown() as i64;
        let to = match self.rng.below(4) {
            0 => 5_000,
            1 => wall + 10 * 365 * 86_400_000,
            2 => wall - self.rng.between(1, 1_000_000) as i64,
            _ => wall + self.rng.between(1, 1_000_000) as i64,
        };
        self.ahead = to.max(1_000) - self.now as i64;
        self.ledger.clock_was_set(self.shown());
        self.note(|| "script  sets the clock".to_owned());
    }

    /// Whether an event is one that a person or the loop wants, not an end of its own.
    pub fn is_wish(event: &LrpEvent) -> bool {
        matches!(event, LrpEvent::Stop { .. } | LrpEvent::Remove(_) | LrpEvent::Desire { .. })
    }
}

/// A Task that does nothing in particular.
pub fn task(guid: &str, memory: Bytes) -> Task {
    let (rootfs, nothing) = (Rootfs::Stack("tiny".into()), Action::Serial(Vec::new()));
    let limits = Limits { memory: Some(memory), ..Limits::default() };
    Task { limits, ..Task::new(guid, "d", rootfs, nothing) }
}
