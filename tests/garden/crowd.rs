//! Many containers at once, and nothing of them left.

use super::client::{container, shell};
use super::lab::tool;
use super::place::Garden;
use serde_json::json;
use std::collections::BTreeSet;
use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Calls under way at a time.
const ABREAST: usize = 50;

/// Containers in total.
const TOTAL: usize = 250;

/// Everything that containers have on the box, and what the daemon holds for them.
#[derive(Debug, PartialEq, Eq)]
struct Held {
    links: usize,
    mounts: usize,
    subvolumes: usize,
    depot: usize,
    cgroups: usize,
    elements: usize,
    children: usize,
}

impl Held {
    fn look(garden: &Garden) -> Held {
        let state = garden.lab().root.join("var/lib/terrarium");
        let count = |dir: &str| fs::read_dir(state.join(dir)).map_or(0, Iterator::count);
        let daemon = garden.lab().daemon_pid();
        let mounts = fs::read_to_string(format!("/proc/{daemon}/mountinfo")).expect("mounts");
        let rules = tool("nft", &["-a", "list", "ruleset"]);
        // Of all threads: when one ends, its children are another's.
        let threads = fs::read_dir(format!("/proc/{daemon}/task")).expect("threads").flatten();
        let children = threads.map(|item| {
            let list = fs::read_to_string(item.path().join("children")).unwrap_or_default();
            list.split_whitespace().count()
        });
        Held {
            links: tool("ip", &["-o", "link"]).lines().count(),
            mounts: mounts.lines().count(),
            subvolumes: count("store/containers"),
            depot: count("depot"),
            cgroups: cgroups(&cgroup_of(garden)),
            elements: rules.lines().count(),
            children: children.sum(),
        }
    }
}

/// Name of the control group below which this box has its own, as its settings say.
fn cgroup_of(garden: &Garden) -> String {
    let path = garden.lab().root.join("etc/terrarium/terrarium.toml");
    let text = fs::read_to_string(path).expect("settings");
    let line = text.lines().find_map(|line| line.strip_prefix("parent = ")).expect("parent");
    line.trim_matches('"').to_owned()
}

fn cgroups(name: &str) -> usize {
    let mut left = vec![std::path::PathBuf::from("/sys/fs/cgroup")];
    let mut found = 0;
    while let Some(dir) = left.pop() {
        let inside = dir.to_string_lossy().contains(name);
        for item in fs::read_dir(&dir).into_iter().flatten().flatten() {
            if item.file_type().is_ok_and(|kind| kind.is_dir()) {
                found += usize::from(inside);
                left.push(item.path());
            }
        }
    }
    found
}

fn descriptors(garden: &Garden) -> usize {
    let path = format!("/proc/{}/fd", garden.lab().daemon_pid());
    fs::read_dir(path).expect("descriptors").count()
}

/// Does `act` for each number below `total`, `ABREAST` at a time.
fn abreast(total: usize, act: impl Fn(usize) + Sync) {
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..ABREAST {
            scope.spawn(|| {
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if n >= total {
                        return;
                    }
                    act(n);
                }
            });
        }
    });
}

#[test]
fn many_at_a_time_leave_nothing_behind() {
    let garden = Garden::start("crowd");
    // The first of all makes what stays for the others.
    garden.make("first");
    garden.says("first", "true");
    garden.destroy("first");
    garden.lab().assert_empty();
    // One process that forks the others, and both halves that are made ahead.
    let whole = || Some(Held::look(&garden)).filter(|held| held.children == 3);
    let before = super::client::eventually("what is made ahead is there", whole);
    let files = descriptors(&garden);
    abreast(TOTAL, |n| {
        let handle = format!("c{n}");
        garden.create(&json!({"handle": handle, "netin": [{"host_port": 0, "container_port": 1}],
            "properties": {"n": n.to_string()}}));
        if n % 5 == 0 {
            assert_eq!(garden.says(&handle, &format!("echo {n}")), n.to_string());
        }
    });
    let all = garden.list("");
    assert_eq!(all.len(), TOTAL);
    let infos = garden.get(&format!("/containers/bulk_info?handles={}", all.join(",")));
    let facts: Vec<_> = infos.as_object().expect("an object").values().collect();
    for field in ["/Info/ContainerIP", "/Info/MappedPorts/0/HostPort", "/Info/ContainerPath"] {
        let values: BTreeSet<String> =
            facts.iter().filter_map(|fact| Some(fact.pointer(field)?.to_string())).collect();
        assert_eq!(values.len(), TOTAL, "{field} is nobody else's");
    }
    let message = garden.create_fails(&json!({"handle": "one too many"}));
    assert_eq!(message, "max containers reached");
    abreast(TOTAL, |n| garden.destroy(&format!("c{n}")));
    garden.lab().assert_empty();
    super::client::eventually("everything is as before", || {
        (Held::look(&garden) == before).then_some(())
    });
    super::client::eventually("no descriptor is kept", || {
        (descriptors(&garden) <= files).then_some(())
    });
    // Nothing keeps the next crowd out.
    abreast(ABREAST, |n| {
        garden.make(&format!("again{n}"));
        garden.destroy(&format!("again{n}"));
    });
    garden.lab().assert_empty();
    super::client::eventually("everything is as before once more", || {
        (Held::look(&garden) == before).then_some(())
    });
    garden.finish();
}

/// An ended process is remembered for who comes late; with its container nobody can.
#[test]
fn ended_processes_are_forgotten_with_their_container() {
    const ROUNDS: usize = 30;
    let garden = Garden::start("forgotten");
    let round = || {
        garden.make("c");
        garden.says("c", "true");
        garden.destroy("c");
    };
    round();
    let before = descriptors(&garden);
    (0..ROUNDS).for_each(|_| round());
    let after = descriptors(&garden);
    // Each that is remembered holds two.
    assert!(after < before + ROUNDS, "{before} descriptors became {after}");
    garden.lab().assert_empty();
    garden.finish();
}

#[test]
fn many_calls_on_one_container_are_all_answered() {
    let garden = Garden::start("onecrowd");
    garden.make("c");
    abreast(200, |n| match n % 5 {
        0 => assert_eq!(garden.says("c", &format!("echo {n}")), n.to_string()),
        1 => {
            let path = container("c", &format!("/properties/k{n}"));
            garden.does("PUT", &path, Some(&json!({"value": n.to_string()})));
        }
        2 => {
            garden.ok("POST", "/containers/c/net/in", Some(&json!({"container_port": n})));
        }
        3 => drop(garden.get("/containers/c/metrics")),
        _ => drop(garden.info("c")),
    });
    let info = garden.info("c");
    assert_eq!(info["MappedPorts"].as_array().expect("ports").len(), 40);
    for n in (1..200).step_by(5) {
        assert_eq!(info["Properties"][format!("k{n}")], n.to_string());
    }
    garden.finish();
}

#[test]
fn destroy_while_things_start_leaves_nothing_behind() {
    let garden = Garden::start("busycrowd");
    for round in 0..5 {
        let handle = format!("c{round}");
        garden.make(&handle);
        std::thread::scope(|scope| {
            for _ in 0..10 {
                scope.spawn(|| {
                    // Started, refused or cut off: all three are right.
                    let body = shell("sleep 1000").to_string();
                    let mut wire = super::wire::Wire::dial(&garden.socket);
                    let path = container(&handle, "/processes");
                    wire.send(super::client::hijack("POST", &path, Some(&body)).as_bytes());
                    wire.rest();
                });
            }
            garden.destroy(&handle);
        });
    }
    garden.lab().assert_empty();
    garden.finish();
}
