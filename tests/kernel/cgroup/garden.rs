//! What Garden's clients ask of groups: shares, figures, live limits, processes with own limits.

use super::*;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use std::os::fd::AsRawFd;

/// Holds 48 MiB until it is told to go.
const HOLD: &str = "exec perl -e '$| = 1; vec($x, 48 << 20, 8) = 1; print \"full\n\"; <STDIN>'";

impl World {
    /// What the kernel has in the first of `files` that the group's directories have.
    fn in_kernel(&self, group: &str, files: &[&str]) -> String {
        let dirs = self.dirs_on_host();
        let dirs = dirs.iter().filter(|dir| dir.ends_with(group));
        let paths = dirs.flat_map(|dir| files.iter().map(|file| dir.join(file)));
        let text = paths.map(fs::read_to_string).find_map(Result::ok).expect("one of the files");
        text.trim().to_owned()
    }

    /// The limits of memory and of memory with swap; the second is 0 where v2 limits swap alone.
    fn memory_limits(&self, group: &str) -> [String; 2] {
        let memory = self.in_kernel(group, &["memory.limit_in_bytes", "memory.max"]);
        let both = self.in_kernel(group, &["memory.memsw.limit_in_bytes", "memory.swap.max"]);
        [memory, both]
    }

    fn create_pea(&self, pea: &str, limits: &Limits) -> Result<Group, CgroupError> {
        self.cgroups.create_pea(&handle("web-0"), pea, limits, Devices::Common)
    }
}

fn mib(mib: u64) -> Option<Bytes> {
    Some(Bytes::mib(mib))
}

#[test]
fn a_memory_limit_changes_under_a_running_process() {
    let world = World::new("live");
    let group = world.create(limits(128, 64));
    let mut shell = Shell::in_group(&group, HOLD);
    assert_eq!(shell.line(), "full");
    let before = world.memory_limits("web-0");
    let err = group.set_memory(mib(16)).expect_err("48 MiB cannot be dropped");
    assert!(err.to_string().contains("while more is in use"), "{err}");
    assert_eq!(world.memory_limits("web-0"), before, "refused as a whole");
    for limit in [64, 256, 96] {
        group.set_memory(mib(limit)).expect("fits");
        let [memory, both] = world.memory_limits("web-0");
        assert_eq!(memory, Bytes::mib(limit).get().to_string());
        assert!(both == memory || both == "0", "{both}");
    }
    group.set_memory(None).expect("lift");
    let [memory, both] = world.memory_limits("web-0");
    assert!(memory == "max" || memory == "9223372036854771712", "{memory}");
    assert_eq!(both, memory);
    shell.go();
    assert_eq!(shell.end(), "exit status: 0", "nobody was killed");
    assert_eq!(group.stats().expect("stats").oom_kills, 0);
    world.end(&group);
}

#[test]
fn shares_of_the_processor_are_set_read_and_changed() {
    let world = World::new("shares");
    let asked = Limits { cpu_weight: Some(10), cpu_shares: Some(512), ..Limits::default() };
    let group = world.create(asked);
    let is_v1 = world.dirs_on_host().iter().any(|dir| dir.join("cpu.shares").exists());
    let in_effect = || {
        let shares = group.current_shares().expect("shares");
        assert_eq!(shares.to_string(), world.in_kernel("web-0", &["cpu.shares", "cpu.weight"]));
        shares
    };
    assert_eq!(in_effect(), if is_v1 { 512 } else { 59 });
    for (asked, v1, v2) in
        [(Some(10), 10, 4), (Some(0), 2, 1), (Some(u64::MAX), 262_144, 10_000), (None, 1024, 100)]
    {
        group.set_cpu_shares(asked).expect("change");
        assert_eq!(in_effect(), if is_v1 { v1 } else { v2 }, "{asked:?}");
    }
    world.end(&group);
}

#[test]
fn metrics_tell_what_a_process_uses() {
    let world = World::new("metrics");
    let group = world.create(limits(128, 64));
    let busy = "i=0; while [ $i -lt 200000 ]; do i=$((i + 1)); done";
    let mut shell = Shell::in_group(&group, &format!("{busy}; {HOLD}"));
    assert_eq!(shell.line(), "full");
    let metrics = group.metrics().expect("metrics");
    let figure = |name: &str| metrics.memory[name];
    // The kernel adds up its figures in steps of some hundred pages for each processor.
    let held = Bytes::mib(44).get();
    let limit = Bytes::mib(128).get();
    let anon = figure("active_anon") + figure("inactive_anon");
    let total_anon = figure("total_active_anon") + figure("total_inactive_anon");
    for bytes in [anon, total_anon, figure("rss"), figure("total_rss")] {
        assert!((held..limit).contains(&bytes), "{metrics:?}");
    }
    assert!((held..limit).contains(&metrics.usage_toward_limit), "{metrics:?}");
    assert!(figure("pgfault") > 0 && figure("total_pgfault") >= figure("pgfault"));
    assert_eq!(figure("hierarchical_memory_limit"), limit);
    assert_eq!(metrics.memory.len(), 31);
    assert!(metrics.user_ns > 0 && metrics.cpu_ns >= metrics.user_ns, "{metrics:?}");
    assert_eq!((metrics.pids, metrics.pids_max, metrics.oom_kills), (1, 64, 0));
    group.set(&Limits::default()).expect("lift all");
    assert_eq!(group.metrics().expect("metrics").pids_max, 0);
    shell.go();
    shell.end();
    world.end(&group);
}

#[test]
fn each_watch_tells_of_its_own_container() {
    let world = World::new("watches");
    let make = |name: &str| {
        let made = world.cgroups.create(&handle(name), &limits(32, 64), Devices::Common);
        let group = made.expect("create");
        let watch = group.oom_watch().expect("watch");
        (group, watch)
    };
    let (one, two) = (make("one"), make("two"));
    let is_told = |watch, ms| sys::fd::wait_readable(watch, ms).expect("poll");
    let eat = |group: &Group| {
        let mut shell = Shell::in_group(group, EAT);
        assert_eq!(shell.line(), "status 137");
        shell.go();
        shell.end();
    };
    eat(&one.0);
    assert!(is_told(&one.1, 10_000));
    assert!(!is_told(&two.1, 0), "nothing happened there");
    sys::event::drain(&one.1).expect("rearm");
    eat(&two.0);
    assert!(is_told(&two.1, 10_000));
    let kills = |group: &Group| group.stats().expect("stats").oom_kills;
    assert_eq!((kills(&one.0), kills(&two.0)), (1, 1));
    eat(&one.0);
    assert!(is_told(&one.1, 10_000), "a second time");
    assert_eq!((kills(&one.0), kills(&two.0)), (2, 1));
    for (group, _) in [&one, &two] {
        group.remove().expect("remove");
    }
    world.gone();
}

#[test]
fn a_kill_in_a_nested_group_counts_for_its_container() {
    let world = World::new("inner");
    let group = world.create(limits(32, 64));
    let mut outer = Shell::in_group(&group, EAT);
    assert_eq!(outer.line(), "status 137");
    let mut inner = Shell::outside(EAT);
    for dir in world.dirs_on_host() {
        fs::create_dir_all(dir.join("a/b")).expect("nest");
        fs::write(dir.join("a/b/cgroup.procs"), inner.pid().to_string()).expect("add");
    }
    inner.go();
    assert_eq!(inner.line(), "status 137");
    assert_eq!(group.stats().expect("stats").oom_kills, 2);
    assert_eq!(group.metrics().expect("metrics").oom_kills, 2);
    for mut shell in [outer, inner] {
        shell.go();
        shell.end();
    }
    world.end(&group);
}

/// Joins a group through its doors as an ordinary user, and then runs a script as [`Shell`] does.
fn through_doors(group: &Group, script: &str) -> Shell {
    let doors = group.doors().expect("open");
    for door in &doors {
        let flags = fcntl(door, FcntlArg::F_GETFD).expect("flags");
        assert_eq!(flags, FdFlag::FD_CLOEXEC.bits());
        // A child of a test beside this one may get it too, which does no harm.
        fcntl(door, FcntlArg::F_SETFD(FdFlag::empty())).expect("hand it down");
    }
    let numbers: Vec<String> = doors.iter().map(|door| door.as_raw_fd().to_string()).collect();
    let join = format!(
        "exec perl -e '$) = 65534; $( = 65534; $< = $> = 65534; for (split /,/, $ARGV[0]) {{
             open(my $door, \">&=\", $_) or die; syswrite($door, \"0\") or die \"$!\"; }}
         exec \"/bin/sh\", \"-c\", $ARGV[1] or die' {} \"$SCRIPT\"",
        numbers.join(",")
    );
    let mut shell = Shell::outside_with(&join, &[("SCRIPT", script)]);
    shell.go();
    shell
}

#[test]
fn a_pea_has_limits_of_its_own_and_ends_with_its_container() {
    let world = World::new("pea");
    let group = world.create(limits(32, 8));
    let free = world.create_pea("free", &Limits::default()).expect("create");
    let tight = world.create_pea("Tight_1.x", &limits(16, 4)).expect("create");
    assert_eq!(world.cgroups.list().expect("list"), [handle("web-0")], "no container");
    assert_eq!(world.cgroups.peas(&handle("web-0")).expect("peas"), ["Tight_1.x", "free"]);
    assert!(free.metrics().expect("metrics").pids_max == 0);

    // More than the container may have.
    let mut in_free = through_doors(&free, HOLD);
    assert_eq!(in_free.line(), "full");
    let mut in_tight = through_doors(&tight, EAT);
    assert_eq!(in_tight.line(), "status 137");
    let mut in_group = Shell::in_group(&group, "echo in; sleep 1000");
    assert_eq!(in_group.line(), "in");
    let kills = |group: &Group| group.stats().expect("stats").oom_kills;
    assert_eq!((kills(&group), kills(&free), kills(&tight)), (0, 0, 1));
    let own = |group: &Group| group.stats().expect("stats").pids;
    assert_eq!((own(&free), own(&tight)), (1, 1));
    assert_eq!(free.pids().expect("pids"), [in_free.pid()].into());

    // A daemon that was restarted knows them by the container's name alone.
    let again = Cgroups::open(&world.parent).expect("open again");
    let all = again.find(&handle("web-0"));
    let pids = all.pids().expect("pids");
    for pid in [in_free.pid(), in_tight.pid(), in_group.pid()] {
        assert!(pids.contains(&pid), "{pid} in {pids:?}");
    }
    assert!(matches!(all.remove(), Err(CgroupError::Alive { .. })), "a pea holds the container");
    all.kill().expect("kill");
    for shell in [in_free, in_tight, in_group] {
        assert_eq!(shell.end(), "signal: 9 (SIGKILL)");
    }
    world.end(&all);
}

#[test]
fn a_pea_can_end_alone() {
    let world = World::new("alone");
    let group = world.create(limits(64, 64));
    let pea = world.create_pea("p", &limits(64, 64)).expect("create");
    let mut stays = Shell::in_group(&group, "echo in; read go");
    let goes = Shell::in_group(&pea, "sleep 1000");
    assert_eq!(stays.line(), "in");
    assert!(world.create_pea("p", &limits(64, 64)).is_err(), "the name is taken");
    pea.kill().expect("kill");
    pea.remove().expect("remove");
    assert_eq!(goes.end(), "signal: 9 (SIGKILL)");
    assert_eq!(world.cgroups.peas(&handle("web-0")).expect("peas"), [""; 0]);
    assert_eq!(group.pids().expect("pids"), [stays.pid()].into());
    stays.go();
    assert_eq!(stays.end(), "exit status: 0");
    world.end(&group);
}

#[test]
fn a_pea_needs_its_container_and_a_plain_name() {
    let world = World::new("orphan");
    let err = world.create_pea("p", &limits(64, 64)).expect_err("no container");
    assert!(err.is_not_found(), "{err}");
    assert_eq!(world.dirs_on_host(), Vec::<PathBuf>::new());
    let group = world.create(limits(64, 64));
    let before = world.dirs_on_host();
    let err = world.create_pea("../p", &limits(64, 64)).expect_err("a path");
    assert!(matches!(err, CgroupError::Pea { .. }), "{err}");
    assert_eq!(world.dirs_on_host(), before);
    world.end(&group);
}

#[test]
fn what_a_crash_left_of_a_pea_does_not_stay() {
    let world = World::new("left");
    let group = world.create(limits(64, 64));
    world.create_pea("p", &limits(64, 64)).expect("create");
    for dir in world.dirs_on_host().into_iter().filter(|dir| dir.ends_with("web-0")) {
        fs::remove_dir(dir).expect("rmdir");
    }
    assert_eq!(world.cgroups.list().expect("list"), [handle("web-0")], "or nobody would look");
    world.create(limits(64, 64));
    assert_eq!(world.cgroups.peas(&handle("web-0")).expect("peas"), [""; 0]);

    // One that lives is not taken for a leftover, and the new container is undone.
    let pea = world.create_pea("p", &limits(64, 64)).expect("create");
    let shell = Shell::in_group(&pea, "sleep 1000");
    let err = world.cgroups.create(&handle("web-0"), &limits(64, 64), Devices::Common);
    assert!(matches!(err, Err(CgroupError::Alive { .. })), "{err:?}");
    let left = world.dirs_on_host();
    assert!(!left.is_empty() && left.iter().all(|dir| !dir.ends_with("web-0")), "{left:?}");
    group.kill().expect("kill");
    shell.end();
    world.end(&group);
}
