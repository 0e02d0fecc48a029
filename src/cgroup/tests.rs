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
        fs::write(group.join("memory.current"), "0\n").expect("make a file");
        Fake(dir)
    }

    fn layout(&self) -> Layout {
        let mount = format!("1 1 0:1 / {} rw - cgroup2 cgroup2 rw\n", self.0.display());
        let mounts = Mounts::parse("0::/\n", &mount, "");
        Layout::new(&mounts, "cpuset cpu io memory pids", "t").expect("layout")
    }

    fn cgroups(&self) -> Cgroups {
        Cgroups { layout: Arc::new(self.layout()), devices: None, _quick: None }
    }

    fn group(&self) -> Group {
        self.cgroups().find(&handle("web-0"))
    }

    fn put(&self, file: &str, text: &str) {
        fs::write(self.0.join("t/web-0").join(file), text).expect(file);
    }

    fn text(&self, file: &str) -> String {
        fs::read_to_string(self.0.join("t/web-0").join(file)).expect(file)
    }
}

fn handle(text: &str) -> Handle {
    text.parse().expect("handle")
}

impl Drop for Fake {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn v2_limits_are_written_and_lifted() {
    let fake = Fake::new("limits");
    let memory = Some(Bytes::mib(64));
    let limits = Limits { memory, cpu_weight: Some(50), pids: Some(32), ..Limits::default() };
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
fn v2_shares_win_over_the_weight_and_change_alone() {
    let fake = Fake::new("shares");
    let limits = Limits { cpu_weight: Some(50), cpu_shares: Some(2048), ..Limits::default() };
    let group = fake.group();
    group.set(&limits).expect("set");
    assert_eq!(group.current_shares().expect("shares"), 174);
    fake.put("memory.max", "untouched");
    fake.put("pids.max", "untouched");
    for (shares, weight) in [(Some(10), 4), (None, 100), (Some(u64::MAX), 10_000)] {
        // Shorter texts would leave the end of longer ones in a plain file.
        fake.put("cpu.weight", "");
        group.set_cpu_shares(shares).expect("change");
        assert_eq!(group.current_shares().expect("shares"), weight, "{shares:?}");
    }
    assert_eq!(fake.text("memory.max"), "untouched");
    assert_eq!(fake.text("pids.max"), "untouched");
}

#[test]
fn v2_memory_in_use_is_not_taken_away_by_killing() {
    let fake = Fake::new("in-use");
    let group = fake.group();
    fake.put("memory.current", "9000\n");
    fake.put("memory.stat", "anon 5000\ninactive_file 2000\nactive_file 900\nslab_reclaimable 100");
    let err = group.set_memory(Some(Bytes::new(5999))).expect_err("6000 cannot be dropped");
    assert!(err.to_string().contains("memory.max while more is in use"), "{err}");
    assert_eq!(fake.text("memory.max") + &fake.text("memory.swap.max"), "", "nothing written");
    group.set_memory(Some(Bytes::new(6000))).expect("the rest can be dropped");
    assert_eq!(fake.text("memory.max"), "6000");
    assert_eq!(fake.text("memory.swap.max"), "0");
    fake.put("memory.max", "");
    fake.put("memory.swap.max", "");
    group.set_memory(None).expect("lift");
    assert_eq!(fake.text("memory.max"), "max");
    assert_eq!(fake.text("memory.swap.max"), "max");
}

#[test]
fn v2_metrics_are_put_together_from_all_files() {
    let fake = Fake::new("metrics");
    fake.put("memory.stat", "anon 100\nfile 50\nfile_mapped 7\nswapcached 4\ninactive_file 30\n");
    fake.put("memory.max", "max\n");
    fake.put("memory.swap.max", "0\n");
    fake.put("memory.events", "low 0\nhigh 0\nmax 9\noom 3\noom_kill 2\noom_group_kill 0\n");
    fake.put("cpu.stat", "usage_usec 1500\nuser_usec 1000\nsystem_usec 500\n");
    fake.put("pids.current", "7\n");
    fake.put("pids.max", "max\n");
    let metrics = fake.group().metrics().expect("metrics");
    let Metrics { usage_toward_limit, cpu_ns, user_ns, system_ns, .. } = metrics;
    assert_eq!((usage_toward_limit, cpu_ns), (124, 1_500_000));
    assert_eq!((user_ns, system_ns), (1_000_000, 500_000));
    assert_eq!((metrics.pids, metrics.pids_max, metrics.oom_kills), (7, 0, 2));
    assert_eq!((metrics.memory["rss"], metrics.memory["total_mapped_file"]), (100, 7));
    assert_eq!(metrics.memory["swap"], 0, "there is no memory.swap.current");
    fake.put("pids.max", "64\n");
    assert_eq!(fake.group().metrics().expect("metrics").pids_max, 64);
    fake.put("pids.max", "many\n");
    let err = fake.group().metrics().expect_err("no number");
    assert!(err.to_string().contains("pids.max"), "{err}");
}

#[test]
fn peas_belong_to_their_container_and_are_none() {
    let fake = Fake::new("peas");
    let cgroups = fake.cgroups();
    fake.put("cgroup.procs", "12\n");
    for (dir, pid) in [
        ("web-0.pea-a", "34"),
        ("web-0.pea-b.c", "56"),
        ("web-0.peas", ""),
        ("web.pea-a", "78"),
        ("x.service", "90"),
    ] {
        let dir = fake.0.join("t").join(dir);
        fs::create_dir(&dir).expect("mkdir");
        fs::write(dir.join("cgroup.procs"), pid).expect("procs");
    }
    let web_0 = handle("web-0");
    assert_eq!(cgroups.peas(&web_0).expect("peas"), ["a", "b.c"]);
    assert_eq!(cgroups.find(&web_0).pids().expect("pids"), [12, 34, 56].into());
    let pea = cgroups.find_pea(&web_0, "a").expect("plain");
    assert_eq!(pea.pids().expect("pids"), [34].into());
    assert_eq!(
        cgroups.list().expect("list"),
        [handle("web"), web_0],
        "`web` has no group of its own: what a crash left is found by it"
    );
}

#[test]
fn a_door_leads_in_by_writing_zero() {
    let fake = Fake::new("door");
    let doors = fake.group().doors().expect("open");
    assert_eq!(doors.len(), 1, "one hierarchy");
    crate::sys::fd::write(&doors[0], b"0").expect("write");
    assert_eq!(fake.text("cgroup.procs"), "0");
    assert!(crate::sys::fd::read(std::os::fd::AsFd::as_fd(&doors[0]), &mut [0; 8]).is_err());
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
    let gone = fake.cgroups().find(&handle("gone-0"));
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
