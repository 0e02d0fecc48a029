//! What a cell that is drained does next. Pure.

use std::time::Duration;

/// From the word to the last instance until nothing of any is left: ten seconds of grace, and ten to
/// remove the containers. Diego's bound of a shutdown.
pub const STOP_MAX: Duration = Duration::from_secs(20);

/// How far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct World {
    /// Tasks that have not ended, stagings included.
    pub tasks: usize,
    /// Instances that were not told to end.
    pub running: usize,
    /// Instances of which anything is left.
    pub left: usize,
    /// Since when the cell is drained.
    pub since: Duration,
    /// How long Tasks may go on.
    pub timeout: Duration,
}

/// What is next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Tasks go on, for so long at most.
    Wait(Duration),
    /// They have had their time: they are told to end, and the instances with them.
    CutTasks,
    /// No Task is left: instances are told to end.
    StopInstances,
    /// All were told; the last ones end.
    Ending,
    /// Nothing is left.
    Drained,
}

/// Instances serve until the last Task has ended: there is no other cell to do it meanwhile.
pub fn next(world: &World) -> Step {
    match world {
        World { tasks: 0, left: 0, .. } => Step::Drained,
        World { tasks: 1.., since, timeout, .. } if since < timeout => {
            Step::Wait(*timeout - *since)
        }
        World { tasks: 1.., .. } => Step::CutTasks,
        World { running: 1.., .. } => Step::StopInstances,
        _ => Step::Ending,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    fn world(tasks: usize, running: usize, left: usize, since_s: u32) -> World {
        World { tasks, running, left, since: S * since_s, timeout: S * 600 }
    }

    #[test]
    fn row_35_tasks_finish_first_and_within_the_timeout_then_instances_end() {
        for (world, expected) in [
            (world(1, 2, 2, 0), Step::Wait(S * 600)),
            (world(1, 2, 2, 599), Step::Wait(S)),
            (world(1, 2, 2, 600), Step::CutTasks),
            (world(1, 0, 2, 601), Step::CutTasks),
            (world(0, 2, 2, 0), Step::StopInstances),
            (world(0, 1, 2, 601), Step::StopInstances),
            (world(0, 0, 2, 5), Step::Ending),
            (world(0, 0, 0, 0), Step::Drained),
            (world(1, 0, 0, 3), Step::Wait(S * 597)),
        ] {
            assert_eq!(next(&world), expected, "{world:?}");
        }
    }
}
