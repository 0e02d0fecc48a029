//! Admission: what the box has for containers and what is left of it.

use crate::model::limits::Limits;
use crate::model::view::{NO_ROOM_CURE, TOO_LARGE_CURE, WHOLE_BOX};
use crate::unit::Bytes;
use std::fmt;

/// An amount of what the box gives away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    /// Memory.
    pub memory: Bytes,
    /// Disk of the store.
    pub disk: Bytes,
    /// Containers.
    pub containers: u32,
}

impl Resources {
    /// What one container with these limits takes.
    pub fn of(limits: &Limits) -> Resources {
        Resources {
            memory: limits.memory.unwrap_or_default(),
            disk: limits.disk.unwrap_or_default(),
            containers: 1,
        }
    }
}

/// The box's capacity and what containers have taken of it.
#[derive(Clone, Debug)]
pub struct Room {
    total: Resources,
    taken: Resources,
}

/// Not enough of something. The text is Diego's, which cloud controllers and people match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Insufficient {
    /// `containers`, `disk`, `memory`: those that are short, sorted as Diego has them.
    pub what: Vec<&'static str>,
    asked: Resources,
    left: Resources,
    total: Resources,
}

impl Insufficient {
    /// It would not fit if nothing else were here.
    pub fn is_for_ever(&self) -> bool {
        let Insufficient { asked, total, .. } = self;
        asked.memory > total.memory
            || asked.disk > total.disk
            || asked.containers > total.containers
    }

    /// What can be done about it.
    pub fn cure(&self) -> &'static str {
        match self.is_for_ever() {
            true => TOO_LARGE_CURE,
            false => NO_ROOM_CURE,
        }
    }
}

impl fmt::Display for Insufficient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (has, there) = match self.is_for_ever() {
            true => (WHOLE_BOX, &self.total),
            false => ("left: ", &self.left),
        };
        write!(
            f,
            "insufficient resources: {} (asked: memory {}, disk {}; {has}memory {}, disk {}, \
             containers {})",
            self.what.join(", "),
            self.asked.memory.rough(),
            self.asked.disk.rough(),
            there.memory.rough(),
            there.disk.rough(),
            there.containers
        )
    }
}

impl std::error::Error for Insufficient {}

impl Room {
    /// A box with this capacity, nothing taken.
    pub fn new(total: Resources) -> Room {
        Room { total, taken: Resources::default() }
    }

    /// All that the box has.
    pub fn total(&self) -> Resources {
        self.total
    }

    /// What containers have, those that are there without fitting included.
    pub fn taken(&self) -> Resources {
        self.taken
    }

    /// What is left.
    pub fn left(&self) -> Resources {
        Resources {
            memory: self.total.memory.saturating_sub(self.taken.memory),
            disk: self.total.disk.saturating_sub(self.taken.disk),
            containers: self.total.containers.saturating_sub(self.taken.containers),
        }
    }

    /// Takes what a container needs, before it is made.
    pub fn take(&mut self, asked: Resources) -> Result<(), Insufficient> {
        let left = self.left();
        let short = [
            ("containers", asked.containers > left.containers),
            ("disk", asked.disk > left.disk),
            ("memory", asked.memory > left.memory),
        ];
        let what: Vec<_> = short.into_iter().filter(|it| it.1).map(|it| it.0).collect();
        if !what.is_empty() {
            return Err(Insufficient { what, asked, left, total: self.total });
        }
        self.force(asked);
        Ok(())
    }

    /// Why this would not fit if nothing else were here; `None`: it would.
    pub fn never(&self, asked: Resources) -> Option<Insufficient> {
        Room::new(self.total).take(asked).err()
    }

    /// Whether there would be room for this once that has gone.
    pub fn would_fit(&self, asked: Resources, gone: Resources) -> bool {
        let mut after = self.clone();
        after.give_back(gone);
        after.take(asked).is_ok()
    }

    /// Counts a container that is there already, whether it fits or not.
    pub fn force(&mut self, asked: Resources) {
        self.taken.memory = self.taken.memory.saturating_add(asked.memory);
        self.taken.disk = self.taken.disk.saturating_add(asked.disk);
        self.taken.containers = self.taken.containers.saturating_add(asked.containers);
    }

    /// Gives back what a container had, after it is destroyed.
    pub fn give_back(&mut self, had: Resources) {
        self.taken.memory = self.taken.memory.saturating_sub(had.memory);
        self.taken.disk = self.taken.disk.saturating_sub(had.disk);
        self.taken.containers = self.taken.containers.saturating_sub(had.containers);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some(memory: u64, disk: u64, containers: u32) -> Resources {
        Resources { memory: Bytes::mib(memory), disk: Bytes::mib(disk), containers }
    }

    #[test]
    fn what_is_taken_comes_back_and_a_refusal_takes_nothing() {
        let mut room = Room::new(some(100, 200, 2));
        room.take(some(60, 60, 1)).expect("fits");
        let err = room.take(some(60, 300, 1)).expect_err("does not fit");
        assert_eq!(err.what, ["disk", "memory"]);
        assert!(err.to_string().starts_with("insufficient resources: disk, memory ("), "{err}");
        assert_eq!(room.left(), some(40, 140, 1));
        room.give_back(some(60, 60, 1));
        assert_eq!(room.left(), some(100, 200, 2));
    }

    #[test]
    fn row_83_whether_it_helps_that_one_goes() {
        let mut room = Room::new(some(100, 200, 2));
        room.take(some(40, 40, 1)).expect("fits");
        room.take(some(50, 50, 1)).expect("fits");
        assert!(room.would_fit(some(50, 50, 1), some(40, 40, 1)));
        assert!(!room.would_fit(some(51, 50, 1), some(40, 40, 1)));
        assert_eq!(room.taken(), some(90, 90, 2), "only asked");
    }

    #[test]
    fn row_22_what_is_short_is_told_sorted() {
        for (asked, what) in [
            (some(101, 0, 0), "memory"),
            (some(0, 201, 0), "disk"),
            (some(0, 0, 3), "containers"),
            (some(101, 201, 3), "containers, disk, memory"),
            (some(101, 0, 3), "containers, memory"),
        ] {
            let err = Room::new(some(100, 200, 2)).take(asked).expect_err("does not fit");
            let start = format!("insufficient resources: {what} (");
            assert!(err.to_string().starts_with(&start), "{err}");
        }
        assert!(Room::new(some(100, 200, 2)).take(some(100, 200, 2)).is_ok(), "to the last byte");
    }

    #[test]
    fn row_22_what_can_never_fit_is_told_from_what_does_not_fit_now() {
        let mut room = Room::new(some(100, 200, 2));
        room.take(some(60, 60, 1)).expect("fits");
        let now = room.take(some(60, 60, 1)).expect_err("does not fit");
        assert!(!now.is_for_ever() && room.never(some(60, 60, 1)).is_none());
        assert!(now.to_string().contains("; left: memory 40"), "{now}");
        for asked in [some(101, 0, 1), some(0, 201, 1), some(0, 0, 3)] {
            let never = room.never(asked).expect("never fits");
            assert!(never.is_for_ever(), "{never}");
            assert_eq!(room.take(asked).expect_err("does not fit").cure(), never.cure());
            let text = never.to_string();
            assert!(text.starts_with("insufficient resources: "), "{text}");
            assert!(text.contains("; the whole box has: memory 100"), "{text}");
        }
        assert_eq!(room.taken(), some(60, 60, 1), "only asked");
    }

    /// Row 25: whatever comes and goes, what was admitted never sums up to more than there is, and
    /// is all there again when everybody has gone.
    #[test]
    fn row_25_the_sum_of_reservations_never_exceeds_the_capacity() {
        let total = some(1000, 3000, 20);
        for seed in 1..=200_u64 {
            let mut state = seed;
            let mut dice = move |sides: u64| {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                (state >> 33) % sides
            };
            let (mut room, mut held) = (Room::new(total), Vec::new());
            for _ in 0..200 {
                if dice(3) > 0 {
                    let asked = some(dice(400), dice(900), 1);
                    if room.take(asked).is_ok() {
                        held.push(asked);
                    }
                } else if !held.is_empty() {
                    let gone = held.swap_remove(dice(held.len() as u64) as usize);
                    room.give_back(gone);
                }
                let memory: u64 = held.iter().map(|it| it.memory.get()).sum();
                let disk: u64 = held.iter().map(|it| it.disk.get()).sum();
                assert!(memory <= total.memory.get() && disk <= total.disk.get(), "seed {seed}");
                assert!(held.len() <= total.containers as usize, "seed {seed}");
                assert_eq!(room.taken().memory.get(), memory, "seed {seed}");
                assert_eq!(room.taken().disk.get(), disk, "seed {seed}");
                assert_eq!(room.taken().containers as usize, held.len(), "seed {seed}");
            }
            held.drain(..).for_each(|had| room.give_back(had));
            assert_eq!(room.left(), total, "seed {seed}");
        }
    }
}
