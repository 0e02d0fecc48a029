//! The kernel's side of a container: it is made, what runs in it does as the script says, and it goes or
//! does not. What the daemon does when it stays is that of `src/cell/stuck.rs`.

use crate::apps::bits_of;
use crate::cell::Act;
use crate::mutant::Mutant;
use crate::world::{Bad, Container, Event, Exit, Process, World};
use terrarium::cell::diff::Key;
use terrarium::cell::owner::Owner;
use terrarium::exec::ending::Rule;
use terrarium::exec::room::Resources;
use terrarium::model::lrp::DesiredLrp;
use terrarium::unit::Handle;

impl World {
    pub fn fresh_handle(&mut self, name: &str) -> Handle {
        self.handles += 1;
        format!("{name}-{}", self.handles).parse().expect("a handle")
    }

    /// The container is there, with nothing in it.
    pub fn make(
        &mut self,
        handle: &Handle,
        owner: Owner,
        of: Option<(Key, String)>,
        needs: Resources,
    ) {
        self.note(|| format!("kernel  {handle} is made for {of:?}"));
        let taken: Vec<u32> = self.containers.values().map(|it| it.slot).collect();
        let slot = (0..).find(|slot| !taken.contains(slot)).expect("there is one more");
        let container = Container {
            owner,
            of,
            needs,
            process: Process::None,
            action: None,
            beside: None,
            rule: Rule { monitored: false, sidecars: false },
            healthy: false,
            sick: false,
            ready: false,
            slot,
        };
        self.containers.insert(handle.clone(), container);
    }

    /// The process of an instance starts; what becomes of it is the script's.
    pub fn run(&mut self, handle: &Handle, key: &Key, lrp: &DesiredLrp) {
        let Some(container) = self.containers.get_mut(handle) else { return };
        let rule = Rule::of(&lrp.work, &lrp.health);
        (container.process, container.rule) = (Process::Alive, rule);
        self.note(|| format!("kernel  {handle} runs {}/{} {}", key.0, key.1, lrp.version));
        let bad = self.bad.get(&(key.0.app.clone(), bits_of(&lrp.env))).copied();
        let hangs = bad == Some(Bad::NeverHealthy) || self.fails(12);
        if bad == Some(Bad::EndsAtOnce) {
            self.after(50, Event::Ends(handle.clone(), Exit::Code(1)));
        }
        let ends_early = self.aim.is_some_and(|aim| aim.is_early_end());
        if rule.sidecars && rule.monitored && ends_early && self.fails(3) {
            return self.after(50, Event::Ends(handle.clone(), Exit::Code(0)));
        }
        let ms = match rule.monitored {
            true if hangs || bad == Some(Bad::EndsAtOnce) => return,
            true => self.rng.between(100, 5_000),
            // That it has begun is all that is asked of it.
            false => self.rng.below(3),
        };
        self.after(ms, Event::Healthy(handle.clone()));
        self.gets_ready(handle, key, lrp);
        if bad == Some(Bad::EndsAtOnce) {
            return;
        }
        if self.fails(self.nature.exits_in) {
            let exit = match self.rng.below(4) {
                0 => Exit::Code(0),
                1 => Exit::OutOfMemory,
                _ => Exit::Code(1),
            };
            let long = if self.rng.once_in(3) { 600_000 } else { 20_000 };
            let ms = self.rng.between(20, long);
            self.after(ms, Event::Ends(handle.clone(), exit));
        }
        if rule.sidecars && self.fails(4) {
            let exit = Exit::Code(if self.rng.once_in(2) { 0 } else { 1 });
            let ms = self.rng.between(20, 100_000);
            self.after(ms, Event::BesideEnds(handle.clone(), exit));
        }
        if rule.monitored && self.fails(10) {
            let ms = self.rng.between(6_000, 300_000);
            self.after(ms, Event::Sick(handle.clone()));
        }
    }

    /// Its readiness comes, and goes now and then.
    fn gets_ready(&mut self, handle: &Handle, key: &Key, lrp: &DesiredLrp) {
        let never = Some(&Bad::NeverReady);
        if self.bad.get(&(key.0.app.clone(), bits_of(&lrp.env))) == never {
            return;
        }
        let ms = self.rng.between(100, 20_000);
        self.after(ms, Event::Ready(handle.clone(), true));
        if self.fails(6) {
            let (from, to) = (self.rng.between(6_000, 200_000), self.rng.between(100, 90_000));
            self.after(from, Event::Ready(handle.clone(), false));
            self.after(from + to, Event::Ready(handle.clone(), true));
        }
    }

    /// Removes a container: what does not go stays booked, and is tried again.
    pub fn remove(&mut self, handle: &Handle, tries: u32) {
        let Some(container) = self.containers.get_mut(handle) else {
            // Somebody else has removed it.
            let booked = self.mem.as_mut().and_then(|mem| mem.stuck.remove(handle));
            return booked.into_iter().for_each(|had| self.give_back(had));
        };
        if container.process == Process::Alive {
            container.process = Process::Ended(Exit::Told);
        }
        let needs = container.needs;
        let stays = self.fails(self.nature.destroy_fails_in);
        let books = self.mutant != Mutant::StuckGivesRoomBack;
        let Some(mem) = &mut self.mem else { return };
        if !stays {
            self.containers.remove(handle);
            if let Some(booked) = mem.stuck.remove(handle).filter(|_| books) {
                mem.give_back(booked);
            }
            self.note(|| format!("kernel  {handle} is gone"));
            return self.wake();
        }
        if mem.stuck.insert(handle.clone(), needs).is_none() && books {
            mem.room.force(needs);
        }
        self.note(|| format!("kernel  {handle} does not go"));
        let pause = 1000 << tries.min(6);
        self.act_after(pause, Act::Again(handle.clone(), tries + 1));
    }

    fn give_back(&mut self, had: Resources) {
        if let Some(mem) = &mut self.mem {
            mem.give_back(had);
        }
        self.wake();
    }

    pub fn try_removal_again(&mut self, handle: &Handle, tries: u32) {
        if self.mem.as_ref().is_some_and(|mem| mem.stuck.contains_key(handle)) {
            self.remove(handle, tries);
        }
    }
}
