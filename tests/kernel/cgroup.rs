//! Groups on the machine's own hierarchies, whichever version they are.

mod garden;

use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::{fs, thread};
use terrarium::cgroup::{CgroupError, Cgroups, Devices, Group, recipe};
use terrarium::model::limits::Limits;
use terrarium::sys;
use terrarium::unit::{Bytes, Handle};

/// Hierarchies with a parent group of the test's own, which must be empty again at the end.
struct World {
    cgroups: Cgroups,
    parent: String,
}

impl World {
    fn new(name: &str) -> World {
        assert!(sys::process::effective_uid() == 0, "needs root: run `cargo xtask test kernel`");
        let parent = format!("terrarium-test-{name}-{}", std::process::id());
        World { cgroups: Cgroups::open(&parent).expect("open"), parent }
    }

    fn create(&self, limits: Limits) -> Group {
        self.cgroups.create(&handle("web-0"), &limits, Devices::Common).expect("create")
    }

    /// Directories of a group, found without our code.
    fn dirs_on_host(&self) -> Vec<PathBuf> {
        let found = Command::new("find")
            .args(["/sys/fs/cgroup", "-type", "d", "-path"])
            .arg(format!("*/{}/*", self.parent))
            .output()
            .expect("find");
        String::from_utf8_lossy(&found.stdout).lines().map(PathBuf::from).collect()
    }

    /// Ends `group` and checks that nothing of this test stays.
    fn end(self, group: &Group) {
        group.kill().expect("kill");
        group.remove().expect("remove");
        self.gone();
    }

    fn gone(self) {
        assert_eq!(self.dirs_on_host(), Vec::<PathBuf>::new());
        assert_eq!(self.cgroups.list().expect("list"), []);
        self.cgroups.remove_parent_if_empty();
        let left = Command::new("find")
            .args(["/sys/fs/cgroup", "-type", "d", "-name", &self.parent])
            .output()
            .expect("find");
        assert_eq!(String::from_utf8_lossy(&left.stdout), "");
    }
}

impl Drop for World {
    /// After a failure; in good weather everything is gone.
    fn drop(&mut self) {
        for handle in self.cgroups.list().unwrap_or_default() {
            let group = self.cgroups.find(&handle);
            let _ = group.kill().and_then(|()| group.remove());
        }
        self.cgroups.remove_parent_if_empty();
    }
}

/// A shell that runs `script` once it is in its group. It is killed when the test fails.
struct Shell {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Shell {
    fn in_group(group: &Group, script: &str) -> Shell {
        let mut shell = Shell::outside(script);
        group.add(shell.pid()).expect("add");
        shell.go();
        shell
    }

    fn outside(script: &str) -> Shell {
        Shell::outside_with(script, &[])
    }

    fn outside_with(script: &str, env: &[(&str, &str)]) -> Shell {
        let mut child = Command::new("/bin/sh")
            .args(["-c", &format!("read go && {{ {script}\n}}")])
            .envs(env.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("sh");
        let stdin = child.stdin.take().expect("piped");
        let stdout = BufReader::new(child.stdout.take().expect("piped"));
        Shell { child, stdin, stdout }
    }

    fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    fn go(&mut self) {
        writeln!(self.stdin, "go").expect("the shell reads");
    }

    /// The next line that the script prints.
    fn line(&mut self) -> String {
        let mut line = String::new();
        self.stdout.read_line(&mut line).expect("the shell writes");
        line.trim_end().to_owned()
    }

    fn end(mut self) -> String {
        drop(self.stdin);
        self.child.wait().expect("wait").to_string()
    }
}

fn handle(name: &str) -> Handle {
    name.parse().expect("handle")
}

fn limits(memory_mib: u64, pids: u32) -> Limits {
    let memory = Some(Bytes::mib(memory_mib));
    Limits { memory, cpu_weight: Some(10), pids: Some(pids), ..Limits::default() }
}

/// Eats memory until the limit, as one process of the shell.
const EAT: &str = "tail /dev/zero; echo status $?; read go";

#[test]
fn memory_limit_kills_only_the_process_that_reached_it() {
    let world = World::new("memory");
    let group = world.create(limits(32, 64));
    let watch = group.oom_watch().expect("watch");
    assert!(!sys::fd::wait_readable(&watch, 0).expect("poll"));
    let mut shell = Shell::in_group(&group, EAT);
    assert_eq!(shell.line(), "status 137", "tail was killed, its shell was not");
    assert!(sys::fd::wait_readable(&watch, 10_000).expect("poll"), "the kill was announced");
    assert!(sys::fd::read(watch.as_fd(), &mut [0; 4096]).expect("read") > 0);
    let stats = group.stats().expect("stats");
    assert_eq!(stats.oom_kills, 1);
    assert!(stats.memory_bytes < Bytes::mib(32) && stats.pids == 1, "{stats:?}");
    assert!(stats.cpu_ns > 0);
    shell.go();
    assert_eq!(shell.end(), "exit status: 0");
    world.end(&group);
}

#[test]
fn memory_limit_grows_and_shrinks() {
    let world = World::new("resize");
    let group = world.create(limits(32, 64));
    for mib in [64, 16, 256] {
        group.set(&limits(mib, 64)).expect("set");
        let mut shell = Shell::in_group(&group, EAT);
        assert_eq!(shell.line(), "status 137");
        shell.go();
        shell.end();
    }
    group.set(&Limits::default()).expect("lift all");
    assert_eq!(group.stats().expect("stats").oom_kills, 3);
    world.end(&group);
}

#[test]
fn fork_bomb_stays_below_the_limit_and_one_kill_ends_it() {
    let world = World::new("bomb");
    let group = world.create(limits(256, 48));
    let shell = Shell::in_group(&group, "exec perl -e 'fork while 1'");
    while group.stats().expect("stats").pids < 48 {
        thread::yield_now();
    }
    group.kill().expect("kill");
    assert_eq!(shell.end(), "signal: 9 (SIGKILL)");
    for dir in world.dirs_on_host() {
        assert_eq!(fs::read_to_string(dir.join("cgroup.procs")).expect("procs"), "");
    }
    world.end(&group);
}

/// The same where no unified hierarchy is mounted, so that processes are frozen and killed one by
/// one. A machine that has only the unified hierarchy cannot show this.
#[test]
fn fork_bomb_is_ended_without_the_unified_hierarchy() {
    assert!(sys::process::effective_uid() == 0, "needs root: run `cargo xtask test kernel`");
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
    let unified = mounts.lines().find(|line| line.contains(" - cgroup2 "));
    if !mounts.contains(" - cgroup cgroup ") {
        return;
    }
    if let Some(line) = unified {
        let point = line.split(' ').nth(4).expect("mount point");
        let flags = nix::sched::CloneFlags::CLONE_NEWNS;
        nix::sched::unshare(flags).expect("unshare mounts");
        let private = nix::mount::MsFlags::MS_REC | nix::mount::MsFlags::MS_PRIVATE;
        nix::mount::mount(None::<&str>, "/", None::<&str>, private, None::<&str>).expect("private");
        nix::mount::umount(point).expect("umount");
    }
    let world = World::new("frozen");
    let group = world.create(limits(256, 48));
    assert!(world.dirs_on_host().iter().all(|dir| !dir.join("cgroup.kill").exists()));
    let shell = Shell::in_group(&group, "exec perl -e 'fork while 1'");
    while group.stats().expect("stats").pids < 48 {
        thread::yield_now();
    }
    group.kill().expect("kill");
    assert_eq!(shell.end(), "signal: 9 (SIGKILL)");
    world.end(&group);
}

#[test]
fn device_nodes_beyond_the_few_are_refused() {
    let world = World::new("devices");
    let group = world.create(limits(64, 64));
    check_devices(|shell| group.add(shell).expect("add"));
    world.end(&group);
}

/// The program alone, also on a machine whose rules are applied by v1.
#[test]
fn device_program_refuses_on_the_unified_hierarchy() {
    assert!(sys::process::effective_uid() == 0, "needs root: run `cargo xtask test kernel`");
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
    let unified = mounts.lines().find(|line| line.contains(" - cgroup2 "));
    let unified = unified.expect("a machine with a cgroup2 mount");
    let point = Path::new(unified.split(' ').nth(4).expect("mount point"));
    let dir = point.join(format!("terrarium-test-program-{}", std::process::id()));
    fs::create_dir(&dir).expect("mkdir");
    let program =
        sys::bpf::load_device_program(&recipe::device_program(Devices::Common)).expect("load");
    let group = fs::File::open(&dir).expect("open");
    sys::bpf::attach_device_program(group.as_fd(), program.as_fd()).expect("attach");
    check_devices(|pid| fs::write(dir.join("cgroup.procs"), pid.to_string()).expect("add"));
    fs::remove_dir(&dir).expect("the shell has ended");
}

/// Tries device nodes from a shell that `add` has put into a group.
fn check_devices(add: impl FnOnce(i32)) {
    // No brackets in the name: a shell reads it.
    static LAST: AtomicU32 = AtomicU32::new(0);
    let n = LAST.fetch_add(1, Ordering::Relaxed);
    let dir = std::env::temp_dir().join(format!("terrarium-dev-{}-{n}", std::process::id()));
    fs::create_dir_all(&dir).expect("temp dir");
    let kmsg = dir.join("kmsg");
    let made = Command::new("mknod").arg(&kmsg).args(["c", "1", "11"]).status().expect("mknod");
    assert!(made.success());
    assert!(fs::File::open(&kmsg).is_ok(), "the node works outside of the group");
    let dir_text = dir.display();
    let script = format!(
        "try() {{ if (eval \"$1\"); then echo yes; else echo no; fi; }}
         try 'exec 3< /dev/zero'; try 'exec 3< /dev/urandom'; try 'exec 3> /dev/null'
         try 'exec 3< {dir_text}/kmsg'
         try 'mknod {dir_text}/null c 1 3'; try 'mknod {dir_text}/disk b 8 0'"
    );
    let mut shell = Shell::outside(&script);
    add(shell.pid());
    shell.go();
    let answers: Vec<String> = (0..6).map(|_| shell.line()).collect();
    shell.end();
    fs::remove_dir_all(&dir).expect("clean up");
    assert_eq!(answers, ["yes", "yes", "yes", "no", "yes", "no"]);
}

#[test]
fn killing_and_removing_again_is_success() {
    let world = World::new("again");
    let group = world.create(limits(64, 64));
    let shell = Shell::in_group(&group, "sleep 1000");
    assert!(matches!(group.remove(), Err(CgroupError::Alive { .. })), "it has processes");
    for _ in 0..2 {
        group.kill().expect("kill");
        group.remove().expect("remove");
    }
    shell.end();
    assert!(group.stats().expect_err("gone").is_not_found());
    world.gone();
}

#[test]
fn groups_are_found_by_name_after_a_restart_with_all_that_is_in_them() {
    let world = World::new("restart");
    let mut shell = Shell::in_group(&world.create(limits(64, 64)), "echo in; read go; echo out");
    assert_eq!(shell.line(), "in");
    let again = Cgroups::open(&world.parent).expect("open again");
    assert_eq!(again.list().expect("list"), [handle("web-0")]);
    let group = again.find(&handle("web-0"));
    assert_eq!(group.stats().expect("stats").pids, 1);
    assert!(
        again.create(&handle("web-0"), &limits(64, 64), Devices::Common).is_err(),
        "the name is taken"
    );
    assert_eq!(group.stats().expect("stats").pids, 1, "the refused one took nothing away");
    again.remove_parent_if_empty();
    shell.go();
    assert_eq!(shell.line(), "out");
    shell.end();
    world.end(&group);
}

#[test]
fn nested_groups_are_killed_and_removed_with_their_group() {
    let world = World::new("nested");
    let group = world.create(limits(64, 64));
    let mut shell = Shell::in_group(&group, "echo in; sleep 1000");
    assert_eq!(shell.line(), "in");
    for dir in world.dirs_on_host() {
        fs::create_dir_all(dir.join("a/b")).expect("nest");
        // Not where controllers are handed down: there only leaves take processes.
        let _ = fs::write(dir.join("a/b/cgroup.procs"), shell.pid().to_string());
    }
    group.kill().expect("kill");
    assert_eq!(shell.end(), "signal: 9 (SIGKILL)");
    world.end(&group);
}

#[test]
fn failing_creation_leaves_nothing() {
    let world = World::new("undo");
    // A directory of that name with a process in it stands in the way in the last hierarchy.
    let probe = world.create(limits(64, 64));
    let mut dirs = world.dirs_on_host();
    probe.remove().expect("remove");
    dirs.sort();
    for taken in &dirs {
        fs::create_dir(taken).expect("mkdir");
        let mut shell = Shell::outside("true");
        fs::write(taken.join("cgroup.procs"), shell.pid().to_string()).expect("add");
        let err = world
            .cgroups
            .create(&handle("web-0"), &limits(64, 64), Devices::Common)
            .expect_err("taken");
        assert!(err.to_string().contains(&taken.display().to_string()), "{err}");
        assert_eq!(world.dirs_on_host(), std::slice::from_ref(taken));
        shell.go();
        shell.end();
        fs::remove_dir(taken).expect("rmdir");
    }
    world.gone();
}

#[test]
fn an_empty_group_that_a_crash_left_is_replaced() {
    let world = World::new("stale");
    let group = world.create(limits(64, 64));
    Shell::in_group(&group, "true").end();
    assert!(group.stats().expect("stats").cpu_ns > 0);
    let group = world.create(limits(64, 64));
    assert_eq!(group.stats().expect("stats").cpu_ns, 0, "counts begin anew");
    world.end(&group);
}
