//! What the owner of the box sets.

use super::place::Garden;
use serde_json::json;

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
