//! What the records' containers are held to, as the kernel has it, and what they reach outside.

use super::super::super::lab::{Lab, fetch};
use super::super::super::neighbour::Neighbour;
use std::collections::BTreeSet;
use std::fs;
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::thread::JoinHandle;
use std::time::Duration;

/// Tells what of [`Outside`] answers, and whether more than the first number of bytes fits on the
/// container's disk, and the second.
pub const AROUND: &str = "\
    for at in 11.0.0.2:8081 10.77.0.2:53 10.77.0.2:8081; do\n\
        /bin/busybox wget -q -O /dev/null http://$at/hostname 2>&1 && echo \"$at answers\" ||\n\
            echo \"$at is refused\"\n\
    done\n\
    for at in 10.77.0.2:53 10.77.0.2:5353; do\n\
        /bin/busybox timeout 3 /bin/busybox nslookup -type=a box.test $at 2>&1 |\n\
            /bin/busybox grep -q 192.0.2.53 && echo \"$at names it\" || echo \"$at names nothing\"\n\
    done\n\
    for size in $1 $2; do\n\
        /bin/busybox fallocate -l $size /tmp/large 2>&1 && echo \"$size bytes fit\" ||\n\
            echo \"$size bytes do not fit\"\n\
    done\n\
    /bin/busybox rm -f /tmp/large\n";

/// Goes on when [`Outside::let_go`] says so.
pub const HOLD: &str = "\
    until /bin/busybox wget -q -O /dev/null http://11.0.0.2:8082/hostname 2>/dev/null; do\n\
        /bin/busybox sleep 0.1\n\
    done";

/// What every name leads to: 192.0.2.53, as [`AROUND`] has it.
const NAMED: [u8; 4] = [192, 0, 2, 53];

/// Asks from the box itself.
fn ask_name(port: u16) -> Option<()> {
    let socket = UdpSocket::bind("10.77.0.1:0").expect("a socket");
    socket.set_read_timeout(Some(Duration::from_secs(5))).expect("a bound");
    let question = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x03box\x04test\0\0\x01\0\x01";
    socket.send_to(question, ("10.77.0.2", port)).expect("sent");
    let mut answer = [0; 512];
    let (length, _) = socket.recv_from(&mut answer).ok()?;
    answer[..length].ends_with(&NAMED).then_some(())
}

/// A machine beside the box that serves at 11.0.0.2, which the records' rules open, and at
/// 10.77.0.2, where they open port 53 alone, of TCP and of UDP.
pub struct Outside {
    neighbour: Neighbour,
    servers: Vec<Child>,
    names: Vec<(u16, JoinHandle<()>)>,
}

impl Drop for Outside {
    fn drop(&mut self) {
        for server in &mut self.servers {
            let _ = server.kill().and_then(|()| server.wait());
        }
        for (port, server) in self.names.drain(..) {
            // A query of nothing ends it, and with it its hold on the neighbour's network.
            let socket = UdpSocket::bind("10.77.0.1:0").expect("a socket");
            socket.send_to(&[], ("10.77.0.2", port)).expect("sent");
            let _ = server.join();
        }
    }
}

impl Outside {
    /// Comes back when all of it answers the box itself.
    pub fn new(lab: &Lab, name: &str) -> Outside {
        let neighbour = Neighbour::new(name);
        neighbour.join("11.0.0");
        neighbour.join("10.77.0");
        let mut outside = Outside { neighbour, servers: Vec::new(), names: Vec::new() };
        for (address, port) in [("10.77.0.2", 53), ("11.0.0.2", 8081), ("10.77.0.2", 8081)] {
            if address != "10.77.0.2" || port != 8081 {
                outside.serve(port);
            }
            lab.until("it answers the box", |_| fetch(address, port, "/hostname"));
        }
        for port in [53, 5353] {
            outside.serve_names(port);
            lab.until("it names it to the box", |_| ask_name(port));
        }
        outside
    }

    /// Answers every query by [`NAMED`].
    fn serve_names(&mut self, port: u16) {
        let bind = move || UdpSocket::bind(("10.77.0.2", port)).expect("a name server's port");
        let socket = self.neighbour.within(bind);
        let server = std::thread::spawn(move || {
            let mut query = [0; 512];
            while let Ok((length @ 12.., from)) = socket.recv_from(&mut query) {
                // Its number; an answer, one question, one record; the question; the record: the
                // name at 12, A, IN, for a minute.
                let counts = [0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0];
                let record = [0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4];
                let answer = [&query[..2], &counts, &query[12..length], &record, &NAMED].concat();
                let _ = socket.send_to(&answer, from);
            }
        });
        self.names.push((port, server));
    }

    fn serve(&mut self, port: u64) {
        let port = port.to_string();
        self.servers.push(self.neighbour.within(move || {
            let args = ["httpd", "-f", "-p", &port, "-h", "/etc"];
            Command::new("busybox").args(args).spawn().expect("a service")
        }));
    }

    /// Whoever runs [`HOLD`] goes on.
    pub fn let_go(&mut self) {
        self.serve(8082);
    }
}

/// What [`AROUND`] says where the records' rules and so much disk hold.
pub fn told_of(fits: u64, over: u64) -> [String; 7] {
    [
        "11.0.0.2:8081 answers".to_owned(),
        "10.77.0.2:53 answers".to_owned(),
        "10.77.0.2:8081 is refused".to_owned(),
        "10.77.0.2:53 names it".to_owned(),
        "10.77.0.2:5353 names nothing".to_owned(),
        format!("{over} bytes do not fit"),
        format!("{fits} bytes fit"),
    ]
}

/// What the kernel has in the first of `files` that the groups of the box's containers have; of all
/// of them the same.
#[track_caller]
pub fn in_kernel(lab: &Lab, files: [&str; 2]) -> String {
    let parent = lab.root.file_name().expect("a name");
    let (mut left, mut found) = (vec![PathBuf::from("/sys/fs/cgroup")], BTreeSet::new());
    while let Some(dir) = left.pop() {
        let is_one = dir.parent().and_then(Path::file_name) == Some(parent);
        // Those of halves that the daemon has made ahead are nobody's yet.
        if is_one && dir.extension().is_none_or(|end| end != "reserve") {
            found.extend(files.iter().filter_map(|file| fs::read_to_string(dir.join(file)).ok()));
        }
        let items = fs::read_dir(&dir).into_iter().flatten().flatten();
        let dirs = items.filter(|item| item.file_type().is_ok_and(|kind| kind.is_dir()));
        left.extend(dirs.map(|item| item.path()));
    }
    assert_eq!(found.len(), 1, "{files:?} of its groups: {found:?}");
    found.pop_first().expect("one").trim().to_owned()
}

/// Fails unless the kernel has these limits for the one container of the box: memory in MiB, and
/// the share of the processor in the scale of `cpu.shares`.
#[track_caller]
pub fn assert_limits(lab: &Lab, memory_mb: u64, shares: u64) {
    let memory = in_kernel(lab, ["memory.limit_in_bytes", "memory.max"]);
    assert_eq!(memory, (memory_mb << 20).to_string());
    // The scale of v2, as every runtime converts it.
    let weight = 1 + (shares - 2) * 9999 / 262_142;
    let is_v1 = Path::new("/sys/fs/cgroup/cpu").is_dir();
    let want = if is_v1 { shares } else { weight };
    assert_eq!(in_kernel(lab, ["cpu.shares", "cpu.weight"]), want.to_string());
}
