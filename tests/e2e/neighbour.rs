//! A machine beside the box, which only a rule of egress leads to.

use crate::tool::tool;
use nix::sched::{CloneFlags, setns};
use std::fs::File;
use std::path::Path;

/// Where it is; the box has 192.0.2.1 towards it.
pub const ADDRESS: &str = "192.0.2.2";

/// A network namespace, joined to the test's own by a pair of links. Goes with this.
pub struct Neighbour {
    name: String,
}

impl Drop for Neighbour {
    fn drop(&mut self) {
        // The pair of links goes with the namespace.
        tool("ip", &["netns", "del", &self.name]);
    }
}

impl Neighbour {
    /// One for each test, by its `name`.
    pub fn new(name: &str) -> Neighbour {
        let name = format!("{name}-{}", std::process::id());
        tool("ip", &["netns", "add", &name]);
        let neighbour = Neighbour { name };
        let name = &neighbour.name;
        let pair = ["link", "add", "lan0", "type", "veth", "peer", "name", "lan1", "netns", name];
        tool("ip", &pair);
        tool("ip", &["addr", "add", "192.0.2.1/24", "dev", "lan0"]);
        tool("ip", &["link", "set", "lan0", "up"]);
        let address = format!("{ADDRESS}/24");
        for args in [
            ["-n", name, "addr", "add", &address, "dev", "lan1"].as_slice(),
            &["-n", name, "link", "set", "lan1", "up"],
            &["-n", name, "link", "set", "lo", "up"],
        ] {
            tool("ip", args);
        }
        neighbour
    }

    /// Gives both ends of the link one more address, in the network of 24 bits that `network` begins,
    /// such as `11.0.0`: the box's ends with 1, this machine's with 2.
    pub fn join(&self, network: &str) {
        let [ours, theirs] = [1, 2].map(|end| format!("{network}.{end}/24"));
        tool("ip", &["addr", "add", &ours, "dev", "lan0"]);
        tool("ip", &["-n", &self.name, "addr", "add", &theirs, "dev", "lan1"]);
    }

    /// Does `work` there, on a thread of its own.
    pub fn within<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let there = File::open(Path::new("/run/netns").join(&self.name)).expect("the neighbour");
        let done = std::thread::spawn(move || {
            setns(there, CloneFlags::CLONE_NEWNET).expect("to the neighbour");
            work()
        });
        done.join().expect("the work there panicked")
    }
}
