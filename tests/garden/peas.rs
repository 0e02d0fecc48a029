//! Peas: processes with an image of their own in a container.

use super::client::{container, eventually, hijack};
use super::place::Garden;
use super::wire::{Answer, Wire};
use serde_json::{Value, json};

fn pea(id: &str, script: &str) -> Value {
    json!({
        "id": id, "path": "sh", "args": ["-c", script], "image": {"uri": "preloaded:tiny"},
    })
}

/// Disks of containers and peas in the store.
fn disks(garden: &Garden) -> usize {
    let disks = garden.lab().root.join("var/lib/terrarium/store/containers");
    std::fs::read_dir(&disks).map(Iterator::count).unwrap_or(0)
}

#[test]
fn a_pea_has_files_of_its_own_and_shares_the_rest() {
    let garden = Garden::start("peafiles");
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
fn files_in_memory_of_a_pea_count_as_its_limits_say() {
    let garden = Garden::start("peashm");
    let spec = json!({"handle": "c", "limits": {"memory_limits": {"limit_in_bytes": 16 << 20}}});
    let c = garden.create(&spec);
    let fill = "exec dd if=/dev/zero of=/dev/shm/x bs=1M count=24";
    let ends = |id: &str, limits: Value| {
        let mut wanted = pea(id, fill);
        wanted["limits"] = limits;
        garden.run(&c, &wanted).finish().status
    };
    assert_eq!(ends("shared", Value::Null), 1, "it is full before its container is");
    assert_eq!(ends("free", json!({})), 0, "its own limits are none");
    let memory = |mib: u64| json!({"memory_limits": {"limit_in_bytes": mib << 20}});
    assert_eq!(ends("small", memory(16)), 137, "more than it may have");
    assert_eq!(ends("large", memory(64)), 0, "less than it may have");
    assert_eq!(garden.says(&c, "echo up"), "up");
    garden.finish();
}

#[test]
fn a_pea_is_ended_before_pid_one_from_its_first_moment_on() {
    let garden = Garden::start("peascore");
    let c = garden.make("c");
    let own = garden.says(&c, "cat /proc/1/oom_score_adj").parse::<i32>().expect("a number");
    for (id, limits) in [("shared", Value::Null), ("own", json!({}))] {
        // The first that it does is to fork.
        let mut wanted = pea(id, "(cat /proc/self/oom_score_adj); cat /proc/$$/oom_score_adj");
        wanted["limits"] = limits;
        let ended = garden.run(&c, &wanted).finish();
        assert_eq!(ended.out, format!("{0}\n{0}\n", own + 100), "{ended:?}");
    }
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
    eventually("its disk is gone", || (disks(&garden) == 0).then_some(()));
    garden.finish();
}

#[test]
fn of_those_who_start_a_pea_at_the_same_time_one_has_the_name() {
    let garden = Garden::start("peatwice");
    let c = garden.make("c");
    let mut wanted = pea("one", "echo kept > /own; read go; cat /own; exit 7");
    wanted["limits"] = json!({"pid_limits": {"max": 20}});
    let path = container(&c, "/processes");
    let mut wires: Vec<_> = (0..4).map(|_| Wire::dial(&garden.socket)).collect();
    for wire in &mut wires {
        wire.send(hijack("POST", &path, Some(&wanted.to_string())).as_bytes());
    }
    let mut statuses = Vec::new();
    for wire in &mut wires {
        let head = wire.head();
        statuses.push(head.status);
        if head.status != 201 {
            let answer = Answer { body: wire.body(&head), head };
            assert_eq!(answer.error().1, "process id 'one' already in use");
        }
    }
    statuses.sort();
    assert_eq!(statuses, [201, 500, 500, 500]);
    assert_eq!(disks(&garden), 2, "its disk and the container's");
    let told = garden.get("/containers/bulk_metrics?handles=one");
    assert_eq!(told["one"]["Metrics"]["PidStat"]["Max"], 20, "{told}");
    let mut process = garden.attach(&c, "one");
    process.stdin("go\n");
    let ended = process.finish();
    assert!(ended.status == 7 && ended.out.ends_with("kept\n"), "{ended:?}");
    garden.finish();
}

#[test]
fn a_pea_that_is_started_again_at_once_has_a_disk_of_its_own() {
    let garden = Garden::start("peaagain");
    let c = garden.make("c");
    for round in 0..5 {
        let mut first = garden.run_bare(&c, &pea("again", "echo old > /file"));
        assert_eq!(first.status(), 0);
        let script = "read go; test ! -e /file && echo new > /file && cat /file";
        let mut second = garden.run(&c, &pea("again", script));
        assert_eq!(
            disks(&garden),
            2,
            "round {round}: the first one's is gone, the second's is there"
        );
        second.stdin("go\n");
        let ended = second.finish();
        assert_eq!((ended.status, ended.out.as_str()), (0, "new\n"), "{ended:?}");
    }
    garden.finish();
}

#[test]
fn a_pea_has_a_disk_limit_of_its_own() {
    let garden = Garden::start("peaquota");
    let c = garden.make("c");
    let fill = "dd if=/dev/zero of=/big bs=64k count=1024; sync; wc -c < /big";
    for (id, scope) in [("own", 1), ("total", 0)] {
        let mut wanted = pea(id, fill);
        wanted["limits"] = json!({"disk_limits": {"byte_hard": 16 << 20, "scope": scope}});
        let ended = garden.run(&c, &wanted).finish();
        let written: u64 = ended.out.trim().parse().expect("a size");
        assert!(ended.err.contains("uota exceeded"), "{ended:?}");
        assert!((4 << 20..=16 << 20).contains(&written), "{ended:?}");
    }
    let ended = garden.run(&c, &pea("free", "dd if=/dev/zero of=/big bs=64k count=512")).finish();
    assert_eq!(ended.status, 0, "{ended:?}");
    let mut wanted = pea("small", ":");
    wanted["limits"] = json!({"disk_limits": {"byte_hard": 4096, "scope": 0}});
    let (_, _, message) = garden.run_fails(&c, &wanted);
    assert!(message.contains("smaller than the image"), "{message}");
    garden.finish();
}

#[test]
fn what_is_refused_of_a_pea_is_refused_before_anything_is_made() {
    let garden = Garden::start("pearefused");
    let c = garden.make("c");
    let mut wanted = pea("one", ":");
    wanted["env"] = json!(["without a value"]);
    wanted["limits"] = json!({"pid_limits": {"max": 20}});
    let (_, _, message) = garden.run_fails(&c, &wanted);
    assert!(message.contains("entry 1 has no `=`"), "{message}");
    assert_eq!(disks(&garden), 1, "the container's own");
    wanted["env"] = json!([]);
    assert_eq!(garden.run(&c, &wanted).finish().status, 0, "nothing of it is in the way");
    garden.finish();
}

#[test]
fn a_pea_with_limits_of_its_own_opens_the_devices_that_its_container_opens() {
    let garden = Garden::start("peadev");
    // 10:229 is /dev/fuse; that a kernel has none is no matter of rights.
    let script = "mknod /dev/other c 10 229; exec 3<>/dev/other";
    for (handle, privileged) in [("root", true), ("other", false)] {
        garden.create(&json!({"handle": handle, "privileged": privileged}));
        let inside = garden.run(handle, &super::client::shell(script)).finish();
        let mut wanted = pea("small", script);
        wanted["user"] = "root".into();
        wanted["limits"] = json!({"memory_limits": {"limit_in_bytes": 32 << 20}});
        let own = garden.run(handle, &wanted).finish();
        let closed = |err: &str| err.contains("not permitted");
        assert_eq!(closed(&inside.err), !privileged, "{inside:?}");
        assert_eq!(closed(&own.err), !privileged, "{own:?}");
    }
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
    assert_eq!(disks(&garden), 1, "the container's own");
    garden.finish();
}

#[test]
fn the_layers_of_a_pea_that_runs_are_not_litter_after_a_restart() {
    let mut garden = Garden::start("pealayer");
    let root = |name: &str| {
        let root = garden.lab().root.join(name);
        std::fs::create_dir_all(root.join("bin")).expect("directory");
        std::fs::copy("/bin/busybox", root.join("bin/sh")).expect("busybox");
        std::fs::write(root.join("note"), name).expect("write");
        root.to_str().expect("text").to_owned()
    };
    let (used, unused) = (root("used"), root("unused"));
    let c = garden.make("c");
    let script = "read go; cat /note";
    let wanted = json!({
        "id": "p", "path": "/bin/sh", "args": ["-c", script], "image": {"uri": used}, "user": "0:0",
    });
    let process = garden.run_bare(&c, &wanted);
    garden.create(&json!({"handle": "other", "rootfs": unused}));
    garden.destroy("other");
    garden.restart(nix::sys::signal::Signal::SIGKILL);
    drop(process);
    let removed = || garden.lab().daemon_log().contains("layer.removed").then_some(());
    eventually("what nothing is made of is removed", removed);
    let mut process = garden.attach(&c, "p");
    process.stdin("go\n");
    let ended = process.finish();
    assert_eq!((ended.status, ended.out.as_str()), (0, "used"), "{ended:?}");
    garden.finish();
}
