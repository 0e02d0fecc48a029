//! Peas: processes with an image of their own in a container.

use super::client::eventually;
use super::place::Garden;
use serde_json::{Value, json};

fn pea(id: &str, script: &str) -> Value {
    json!({
        "id": id, "path": "sh", "args": ["-c", script], "image": {"uri": "preloaded:tiny"},
    })
}

#[test]
fn a_pea_has_files_of_its_own_and_shares_the_rest() {
    let garden = Garden::start("pea");
    let c = garden.make("c");
    garden.says(&c, "echo theirs > /mine; echo 192.0.2.9 friend >> /etc/hosts");
    let script =
        "test ! -e /mine && pwd && grep -c friend /etc/hosts && hostname && echo own > /own";
    let ended = garden.run(&c, &pea("one", script)).finish();
    assert_eq!((ended.status, ended.out.as_str()), (0, "/\n1\nc\n"), "{ended:?}");
    assert_eq!(garden.says(&c, "test ! -e /own && echo apart"), "apart");
    let namespaces = "for n in net ipc uts user mnt; do readlink /proc/self/ns/$n; done";
    let inside = garden.says(&c, namespaces);
    let ended = garden.run(&c, &pea("two", namespaces)).finish();
    let (all, own): (Vec<_>, Vec<_>) = (inside.lines().collect(), ended.out.lines().collect());
    assert_eq!((all[..4].to_vec(), all.len()), (own[..4].to_vec(), 5));
    assert_ne!(all[4], own[4], "its mounts are its own");
    garden.finish();
}

#[test]
fn a_pea_may_have_limits_of_its_own_and_goes_with_its_container() {
    let garden = Garden::start("pealim");
    let spec = json!({"handle": "c", "limits": {"memory_limits": {"limit_in_bytes": 64 << 20}}});
    let c = garden.create(&spec);
    let mut wanted = pea("small", "exec sleep 1000");
    wanted["limits"] = json!({"memory_limits": {"limit_in_bytes": 32 << 20}});
    let process = garden.run(&c, &wanted);
    let told = garden.get("/containers/bulk_metrics?handles=small");
    assert_eq!(told["small"]["Err"], Value::Null, "{told}");
    let limit = &told["small"]["Metrics"]["MemoryStat"]["hierarchical_memory_limit"];
    assert_eq!(limit, &json!(32 << 20), "{told}");
    let (_, _, message) =
        garden.run_fails(&c, &json!({"path": "true", "bind_mounts": [{"src_path": "/"}]}));
    assert!(message.contains("image of their own"), "{message}");
    garden.destroy(&c);
    assert_eq!(process.finish().status, 137);
    let disks = garden.lab().root.join("var/lib/terrarium/store/containers");
    let left = || std::fs::read_dir(&disks).map(Iterator::count).unwrap_or(0);
    eventually("its disk is gone", || (left() == 0).then_some(()));
    garden.finish();
}

#[test]
fn a_program_that_is_not_in_its_image_is_told_and_leaves_nothing() {
    let garden = Garden::start("peanone");
    let c = garden.make("c");
    let wanted = json!({"path": "nothing", "image": {"uri": "preloaded:tiny"}});
    let (_, kind, message) = garden.run_fails(&c, &wanted);
    assert_eq!(kind, "ExecutableNotFoundError");
    assert!(message.contains("executable file not found in $PATH"), "{message}");
    let disks = garden.lab().root.join("var/lib/terrarium/store/containers");
    assert_eq!(std::fs::read_dir(&disks).expect("disks").count(), 1, "the container's own");
    garden.finish();
}
