//! Admission: what the box has for containers and what is left of it.

use crate::model::limits::Limits;
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
    /// `memory`, `disk`, `containers`, in Diego's order.
    pub what: Vec<&'static str>,
    asked: Resources,
    left: Resources,
}

impl fmt::Display for Insufficient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "insufficient resources: {} (asked: memory {}, disk {}; left: memory {}, disk {}, \
             containers {})",
            self.what.join(", "),
            self.asked.memory.rough(),
            self.asked.disk.rough(),
            self.left.memory.rough(),
            self.left.disk.rough(),
            self.left.containers
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
        let mut what = Vec::new();
        if asked.memory > left.memory {
            what.push("memory");
        }
        if asked.disk > left.disk {
            what.push("disk");
        }
        if asked.containers > left.containers {
            what.push("containers");
        }
        if !what.is_empty() {
            return Err(Insufficient { what, asked, left });
        }
        self.force(asked);
        Ok(())
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
        assert_eq!(err.what, ["memory", "disk"]);
        assert!(err.to_string().starts_with("insufficient resources: memory, disk ("), "{err}");
        assert_eq!(room.left(), some(40, 140, 1));
        room.give_back(some(60, 60, 1));
        assert_eq!(room.left(), some(100, 200, 2));
    }
}
