//! What the owner of the box sets.

use super::lab::PATIENCE;
use super::place::Garden;
use serde_json::json;
use std::process::Stdio;
use std::time::{Duration, Instant};

#[test]
fn roots_can_be_snapshots() {
    let garden = Garden::with("snap", "graph = \"snapshot\"");
    let limits = json!({"disk_limits": {"byte_hard": 8 << 20, "scope": 1}});
    let c = garden.create(&json!({"handle": "c", "limits": limits}));
    assert_eq!(garden.says(&c, "grep -c ' / btrfs ' /proc/mounts"), "1");
    assert_eq!(garden.sh(&c, "dd if=/dev/zero of=/file bs=1M count=6 && sync").status, 0);
    assert_ne!(garden.sh(&c, "dd if=/dev/zero of=/more bs=1M count=6 && sync").status, 0);
    garden.make("d");
    assert_eq!(garden.says("d", "test ! -e /file && echo apart"), "apart");
    garden.finish();
}

#[test]
fn ids_and_the_name_of_pid_1_can_be_gardens() {
    let garden = Garden::with("ids", "id_mapping = \"garden\"\ninit_name = \"garden-init\"");
    let c = garden.make("c");
    let map = garden.says(&c, "cat /proc/self/uid_map");
    let numbers: Vec<&str> = map.split_whitespace().collect();
    assert_eq!(numbers, ["0", "4294967294", "1", "1", "1", "4294967293"]);
    let far = json!({"path": "id", "args": ["-u"], "user": "1000000000"});
    let ended = garden.run(&c, &far).finish();
    assert_eq!((ended.status, &*ended.out), (0, "1000000000\n"));
    assert_eq!(garden.says(&c, "head -n1 /proc/1/status"), "Name:\tgarden-init");
    garden.finish();
}

#[test]
fn a_default_root_that_is_not_there_is_refused_at_the_start() {
    let mut garden = Garden::start("noroot");
    garden.end(nix::sys::signal::Signal::SIGTERM);
    let lab = garden.lab();
    // The last word counts.
    lab.configure("10-gone", "[garden]\ndefault_rootfs = \"nope\"\n");
    let mut daemon = lab.command(&["serve"]).stderr(Stdio::piped()).spawn().expect("start");
    let begin = Instant::now();
    while daemon.try_wait().expect("its state").is_none() {
        if begin.elapsed() > PATIENCE {
            daemon.kill().expect("kill");
        }
        std::thread::park_timeout(Duration::from_millis(50));
    }
    let refused = daemon.wait_with_output().expect("what it said");
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(refused.status.code().is_some_and(|code| code != 0), "{said}");
    let place = "10-gone.toml:2:18";
    assert!(said.contains(place) && said.contains("nope.tar.zst"), "{said}");
    assert!(said.contains("is not there"), "{said}");
    lab.configure("20-there", "[garden]\ndefault_rootfs = \"tiny\"\n");
    garden.serve();
    garden.make("c");
    garden.finish();
}

#[test]
fn the_socket_has_the_mode_that_was_set_whatever_was_there() {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    let mut garden = Garden::with("mode", "socket_mode = \"0777\"");
    let look = |garden: &Garden| {
        let found = std::fs::symlink_metadata(&garden.socket).expect("a socket");
        (found.permissions().mode() & 0o7777, found.ino())
    };
    let (mode, before) = look(&garden);
    assert_eq!(mode, 0o777);
    // Nobody has removed that one, and somebody has closed it.
    garden.end(nix::sys::signal::Signal::SIGKILL);
    let closed = std::fs::Permissions::from_mode(0o000);
    std::fs::set_permissions(&garden.socket, closed).expect("permissions");
    let kept = garden.socket.with_extension("kept");
    // So that its number is not given to the next one.
    std::fs::hard_link(&garden.socket, &kept).expect("a second name");
    garden.serve();
    let (mode, after) = look(&garden);
    assert!(mode == 0o777 && after != before, "{mode:o}");
    std::fs::remove_file(kept).expect("remove");
    garden.finish();
}
