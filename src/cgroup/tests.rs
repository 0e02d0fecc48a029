//! cgroup v2 against plain files in a directory: what is written where, and how it is read.

use super::*;
use crate::unit::Bytes;
use std::fs;
use std::path::PathBuf;

/// A directory that stands for the unified hierarchy of a pure v2 machine.
struct Fake(PathBuf);

impl Fake {
    fn new(name: &str) -> Fake {
        let dir = std::env::temp_dir().join(format!("terrarium-v2-{name}-{}", std::process::id()));
        let group = dir.join("t/web-0");
        fs::create_dir_all(&group).expect("make the group");
        for file in ["memory.max", "memory.swap.max", "cpu.weight", "pids.max", "cgroup.procs"] {
            fs::write(group.join(file), "").expect("make a file");
        }
        Fake(dir)
    }

    fn layout(&self) -> Layout {
        let mount = format!("1 1 0:1 / {} rw - cgroup2 cgroup2 rw\n", self.0.display());
        let mounts = Mounts::parse("0::/\n", &mount, "");
        Layout::new(&mounts, "cpuset cpu io memory pids", "t").expect("layout")
    }

    fn group(&self) -> Group {
        Group::new(Arc::new(self.layout()), "web-0".parse().expect("handle"))
    }

    fn put(&self, file: &str, text: &str) {
        fs::write(self.0.join("t/web-0").join(file), text).expect(file);
    }

    fn text(&self, file: &str) -> String {
        fs::read_to_string(self.0.join("t/web-0").join(file)).expect(file)
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn v2_limits_are_written_and_lifted() {
    let fake = Fake::new("limits");
    let limits =
        Limits { memory: Some(Bytes::mib(64)), disk: None, cpu_weight: Some(50), pids: Some(32) };
    fake.group().set(&limits).expect("set");
    for (file, text) in [
        ("memory.max", "67108864"),
        ("memory.swap.max", "0"),
        ("cpu.weight", "59"),
        ("pids.max", "32"),
    ] {
        assert_eq!(fake.text(file), text, "{file}");
    }
    let fake = Fake::new("none");
    fake.group().set(&Limits::default()).expect("set");
    for (file, text) in [
        ("memory.max", "max"),
        ("memory.swap.max", "max"),
        ("cpu.weight", "100"),
        ("pids.max", "max"),
    ] {
        assert_eq!(fake.text(file), text, "{file}");
    }
}

#[test]
fn v2_without_swap_accounting_limits_memory_alone() {
    let fake = Fake::new("no-swap");
    fs::remove_file(fake.0.join("t/web-0/memory.swap.max")).expect("remove");
    let limits = Limits { memory: Some(Bytes::mib(1)), ..Limits::default() };
    fake.group().set(&limits).expect("set");
    assert_eq!(fake.text("memory.max"), "1048576");
}

#[test]
fn v2_stats_are_read_in_the_kernels_format() {
    let fake = Fake::new("stats");
    fake.put("memory.current", "5000000\n");
    fake.put("memory.stat", "anon 1\nfile 2\ninactive_anon 7\ninactive_file 1000000\n");
    fake.put("memory.events", "low 0\nhigh 0\nmax 9\noom 3\noom_kill 2\noom_group_kill 0\n");
    fake.put("cpu.stat", "usage_usec 1500\nuser_usec 1000\nsystem_usec 500\n");
    fake.put("pids.current", "7\n");
    let stats = fake.group().stats().expect("stats");
    let memory_bytes = Bytes::new(4_000_000);
    assert_eq!(stats, Stats { memory_bytes, cpu_ns: 1_500_000, pids: 7, oom_kills: 2 });
    fake.put("cpu.stat", "nonsense\n");
    let err = fake.group().stats().expect_err("no field");
    assert!(err.to_string().contains("cpu.stat"), "{err}");
}

#[test]
fn v2_controllers_are_handed_down_once() {
    let fake = Fake::new("hand-down");
    let layout = fake.layout();
    fs::write(fake.0.join("cgroup.subtree_control"), "cpuset memory pids\n").expect("root");
    fs::write(fake.0.join("t/cgroup.subtree_control"), "cpu memory pids\n").expect("parent");
    v2::prepare(layout.unified().expect("unified")).expect("prepare");
    let root = fs::read_to_string(fake.0.join("cgroup.subtree_control")).expect("root");
    assert!(root.starts_with("+cpu"), "only what is off is written: {root}");
    let parent = fs::read_to_string(fake.0.join("t/cgroup.subtree_control")).expect("parent");
    assert_eq!(parent, "cpu memory pids\n", "all on: nothing is written");
}

#[test]
fn a_process_goes_into_the_one_v2_directory() {
    let fake = Fake::new("add");
    fake.group().add(4711).expect("add");
    assert_eq!(fake.text("cgroup.procs"), "4711");
    assert!(fake.group().birthplace().expect("open").is_some());
}

#[test]
fn groups_that_are_gone_are_killed_and_removed_with_success() {
    let fake = Fake::new("gone");
    let gone = Group::new(Arc::new(fake.layout()), "gone-0".parse().expect("handle"));
    gone.kill().expect("kill");
    gone.remove().expect("remove");
    assert!(gone.stats().expect_err("gone").is_not_found());
    assert!(gone.add(1).expect_err("gone").is_not_found());
    assert!(gone.birthplace().expect_err("gone").is_not_found());
}

#[test]
fn nested_groups_are_found_outer_first_and_their_processes_too() {
    let fake = Fake::new("nested");
    let top = fake.0.join("t/web-0");
    fs::create_dir_all(top.join("a/b")).expect("nest");
    fs::write(top.join("cgroup.procs"), "12\n0\n").expect("procs");
    fs::write(top.join("a/b/cgroup.procs"), "34\n").expect("procs");
    assert_eq!(files::tree(&top).expect("tree"), [top.clone(), top.join("a"), top.join("a/b")]);
    assert_eq!(files::pids(&top).expect("pids"), [12, 34].into());
    assert_eq!(files::tree(&fake.0.join("none")).expect("tree"), Vec::<PathBuf>::new());
}

#[test]
fn parent_names_are_plain() {
    for good in ["terrarium", "t", "terrarium-test_1", "a.b"] {
        assert!(check_name(good).is_ok(), "{good}");
    }
    for bad in ["", ".", "..", "a/b", "/a", ".a", "-a", "a.", "a b", &"a".repeat(65)] {
        assert!(check_name(bad).is_err(), "{bad}");
    }
}
