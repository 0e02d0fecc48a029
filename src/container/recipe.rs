//! The steps that make a container, as a list.

/// One step. Each has exactly one undo, in [`super::create`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Write down in the depot what is about to be made.
    Depot,
    /// Start `init`, which waits for its order.
    Spawn,
    /// Groups with the limits, still empty.
    Cgroup,
    /// Put `init` into the groups. An early one goes on to serve then: nobody knows it yet, so that nothing
    /// of the image runs before the rules are written. In [`WITHIN`] it is told whose the container is only now, and makes
    /// user, net, uts, ipc and cgroup namespaces, which takes it as long as the next three steps take.
    Init,
    /// A subvolume with the disk limit, for everything the container writes; the store grows ahead
    /// of it.
    Writable,
    /// The socket on which pid 1 will serve.
    Listener,
    /// A bridge of its own with the gateway's address; a shared one is the next but one's matter.
    Bridge,
    /// Give `init` the plan; it begins to build the inside.
    Plan,
    /// The veth pair, and what else connects the container.
    Links,
    /// Port map, egress chain and anti-spoofing, in one batch.
    Rules,
    /// Let `init` connect the inside, which is built meanwhile, unless it does already; it answers with its
    /// pid 1.
    Inside,
    /// Write pid and start time to the depot: from here on the container is found alive.
    Commit,
    /// Connect to pid 1.
    Connect,
}

/// All steps in the order of creation. `init` makes namespaces while the bridge is made, what all
/// containers have while links and disk are made, and the rest of the inside while the groups are made;
/// then it is put into them.
pub const CREATE: [Step; 13] = [
    Step::Depot,
    Step::Spawn,
    Step::Bridge,
    Step::Links,
    Step::Writable,
    Step::Listener,
    Step::Plan,
    Step::Cgroup,
    Step::Init,
    Step::Rules,
    Step::Inside,
    Step::Commit,
    Step::Connect,
];

/// The same for a container of which half is ready: process, namespaces, links and socket. They become
/// its own with the depot's entry.
pub const FINISH: [Step; 9] = [
    Step::Depot,
    Step::Writable,
    Step::Plan,
    Step::Cgroup,
    Step::Init,
    Step::Rules,
    Step::Inside,
    Step::Commit,
    Step::Connect,
];

/// The same for one whose `init` does nothing outside of its groups: it is the box's root, or may be too
/// large for them and shall say so.
pub const WITHIN: [Step; 13] = [
    Step::Depot,
    Step::Spawn,
    Step::Cgroup,
    Step::Init,
    Step::Writable,
    Step::Listener,
    Step::Bridge,
    Step::Plan,
    Step::Links,
    Step::Rules,
    Step::Inside,
    Step::Commit,
    Step::Connect,
];

impl Step {
    /// A word for it, for figures.
    pub fn name(self) -> &'static str {
        match self {
            Step::Depot => "depot",
            Step::Spawn => "spawn",
            Step::Writable => "writable",
            Step::Cgroup => "cgroup",
            Step::Listener => "listener",
            Step::Init => "init",
            Step::Bridge => "bridge",
            Step::Plan => "plan",
            Step::Links => "links",
            Step::Rules => "rules",
            Step::Inside => "inside",
            Step::Commit => "commit",
            Step::Connect => "connect",
        }
    }

    /// What a person reads after "cannot".
    pub fn doing(self) -> &'static str {
        match self {
            Step::Depot => "write the depot entry of",
            Step::Spawn => "start the init process of",
            Step::Writable => "make the writable layer of",
            Step::Cgroup => "make the cgroup of",
            Step::Listener => "make the control socket of",
            Step::Init => "make the namespaces of",
            Step::Bridge => "make the bridge of",
            Step::Plan => "give its plan to the init process of",
            Step::Links => "connect the network of",
            Step::Rules => "write the network rules of",
            Step::Inside => "build the inside of",
            Step::Commit => "record the pid of",
            Step::Connect => "connect to the init process of",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn the_daemon_can_die_after_every_step() {
        let all = CREATE.iter().map(|step| format!("create:{}", step.name()));
        let points = crate::sys::fault::POINTS.iter().filter(|it| it.starts_with("create:"));
        let points: BTreeSet<String> = points.map(|point| point.to_string()).collect();
        assert_eq!(all.collect::<BTreeSet<String>>(), points);
    }

    #[test]
    fn limits_and_rules_stand_before_anything_of_the_image_can_run() {
        for steps in [&CREATE[..], &FINISH, &WITHIN] {
            let at = |step| steps.iter().position(|s| *s == step).expect("in the list");
            assert!(at(Step::Depot) == 0, "nothing is made before it is written down");
            for guard in [Step::Writable, Step::Cgroup, Step::Init, Step::Rules] {
                assert!(at(guard) < at(Step::Inside), "{guard:?}");
            }
            assert!(at(Step::Cgroup) < at(Step::Init));
            // The plan names it.
            assert!(at(Step::Writable) < at(Step::Plan));
            assert!(at(Step::Inside) < at(Step::Commit));
        }
    }

    #[test]
    fn the_plan_comes_with_the_listener() {
        for steps in [CREATE, WITHIN] {
            let at = |step| steps.iter().position(|s| *s == step).expect("in the list");
            assert!(at(Step::Listener) < at(Step::Plan) && at(Step::Links) < at(Step::Inside));
        }
    }

    #[test]
    fn what_was_made_ahead_is_not_made_again() {
        let ahead = [Step::Spawn, Step::Bridge, Step::Links, Step::Listener];
        let others = CREATE.iter().filter(|step| !ahead.contains(step));
        assert!(others.clone().all(|step| FINISH.contains(step)));
        assert_eq!(others.count(), FINISH.len());
        assert!(CREATE.iter().all(|step| WITHIN.contains(step)));
    }
}
