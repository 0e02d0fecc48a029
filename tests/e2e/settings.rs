//! What the box's owner sets.

use super::lab::{BINARY, Lab, fetch, tool};
use super::tasks::{ask, task};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

const IDLE: &str = "echo up\nexec sleep 100000\n";
const SMALL: &str = "[run]\nmemory = \"64MiB\"\ndisk = \"32MiB\"\n\n[health]\ntype = \"process\"\n";

/// What the daemon tells about itself.
fn vars() -> Value {
    let body = fetch("127.0.0.1", 17013, "/debug/vars").expect("an answer");
    serde_json::from_str(&body).expect("JSON")
}

#[test]
fn the_daemon_tells_its_figures_where_the_owner_wants_them() {
    let mut lab = Lab::new("figures");
    lab.configure("debug", "[garden]\ndebug = \"127.0.0.1:17013\"\n");
    lab.serve();
    let idle = vars();
    assert_eq!(idle["cmdline"][3], "serve", "{idle}");
    for count in ["numContainers", "depotDirs", "backingStores"] {
        assert_eq!(idle[count], 0, "{count}: {idle}");
    }
    let memory = |of: &str, name: &str| idle[of][name].as_u64().expect("bytes");
    assert!(memory("memstats", "Sys") > memory("memstats", "Alloc"), "{idle}");
    let resident = memory("memory", "resident");
    assert!((1 << 20..256 << 20).contains(&resident), "in bytes: {idle}");
    assert!(idle["numGoRoutines"].as_u64() >= Some(1), "{idle}");

    lab.ok(&["apply", &lab.app("one", IDLE, SMALL)]);
    lab.until_state("one", "running");
    // The container in which it was staged goes a moment after.
    lab.until("one container is left", |_| {
        let vars = vars();
        let counts = ["numContainers", "depotDirs", "backingStores"].map(|count| &vars[count]);
        (counts == [1, 1, 1]).then_some(())
    });
    lab.finish();
    assert_eq!(fetch("127.0.0.1", 17013, "/debug/vars"), None, "it goes with the daemon");
}

#[test]
fn containers_are_told_names_servers_and_the_address_that_the_owner_adds() {
    let mut lab = Lab::new("names");
    lab.configure(
        "net",
        "[net]\nexternal_address = \"192.0.2.10\"\ndns = [\"192.0.2.53\"]\n\
         additional_dns = [\"192.0.2.54\"]\nadditional_hosts = [\"10.0.0.7 db.lan db\"]\n\
         allow_host_access = true\n",
    );
    lab.serve();
    let rules = tool("nft", &["list", "table", "ip", "terrarium"]);
    assert!(rules.contains("192.0.2.53, 192.0.2.54"), "both are let through:\n{rules}");
    assert!(rules.contains("@guests accept"), "the box is open to Garden's containers:\n{rules}");
    lab.ok(&["apply", &lab.app("names", "echo at $CF_INSTANCE_IP\nexec sleep 100000\n", SMALL)]);
    lab.until_state("names", "running");
    let inside = |file: &str| lab.inside("names", &format!("cat {file}")).out;
    assert_eq!(inside("/etc/resolv.conf"), "nameserver 192.0.2.53\nnameserver 192.0.2.54\n");
    let hosts = inside("/etc/hosts");
    assert!(hosts.ends_with("\n10.0.0.7 db.lan db\n"), "{hosts}");
    lab.until("its first line is in the log", |lab| {
        (!lab.logged("names", "at 192.0.2.10").is_empty()).then_some(())
    });
    lab.finish();
}

#[test]
fn a_setting_that_cannot_be_is_refused_at_the_start_with_its_line_or_cure() {
    let lab = Lab::new("refused");
    let refused = |text: &str| {
        lab.configure("bad", text);
        let ran = lab.run(&["serve"]);
        assert_ne!(ran.code, 0, "{text}");
        ran.err
    };
    for (line, message, cure) in [
        ("listen = \"0.0.0.0:7777\"", "other machines", "listen_anywhere = true"),
        ("grace_tim = \"5m\"", "unknown key `grace_tim` in [garden]", "`grace_time`"),
        ("debug = \"17013\"", "`17013` is no address with a port", "127.0.0.1:7777"),
    ] {
        let err = refused(&format!("[garden]\n\n{line}\n"));
        assert!(err.contains("terrarium.toml.d/bad.toml:3:"), "{err}");
        assert!(err.contains(message) && err.contains(cure), "{err}");
    }
    let taken = TcpListener::bind("127.0.0.1:17013").expect("listen");
    let err = refused("[garden]\ndebug = \"127.0.0.1:17013\"\n");
    assert!(err.contains("`debug` of [garden]"), "{err}");
    assert!(err.contains("port 17013 of 127.0.0.1 is taken"), "{err}");
    drop(taken);
    let err = refused("[garden]\ndebug = \"192.0.2.1:17013\"\nlisten_anywhere = true\n");
    assert!(err.contains("192.0.2.1 is no address of this box"), "{err}");
    lab.assert_nothing_left();
    lab.remove();
}

/// Row 17, row 45: what a manifest leaves open is as the box has it; what it says is its own.
#[test]
fn row_17_the_box_has_its_own_times_of_checks() {
    let mut lab = Lab::new("times");
    lab.configure("health", "[health]\nstart_timeout = \"1s\"\ninterval_unhealthy = \"200ms\"\n");
    lab.serve();
    let size = "[run]\nmemory = \"32MiB\"\ndisk = \"32MiB\"\n\n[[port]]\ncontainer = 8080\n";
    lab.ok(&["apply", "--no-wait", &lab.app("deaf", IDLE, size)]);
    let own = format!("{size}\n[health]\nstart_timeout = \"2s\"\n");
    lab.ok(&["apply", "--no-wait", &lab.app("own", IDLE, &own)]);
    for (name, text) in
        [("deaf", "Instance never healthy after 1s"), ("own", "Instance never healthy after 2s")]
    {
        let why = lab.until(&format!("{name} has crashed"), |lab| {
            let one = lab.view(name)["processes"][0]["instances"][0].clone();
            one["crash_reason"].as_str().map(str::to_owned)
        });
        assert!(why.starts_with(text), "{why}");
    }
    lab.finish();
}

/// A control group of the test's own that may have so much memory; gone with it.
struct Group(PathBuf);

impl Group {
    fn new(name: &str, bytes: u64) -> Group {
        let top = Path::new("/sys/fs/cgroup");
        let older = top.join("memory");
        let (dir, file) = match older.is_dir() {
            true => (older.join(name), "memory.limit_in_bytes"),
            false => {
                fs::write(top.join("cgroup.subtree_control"), "+memory").expect("controller");
                (top.join(name), "memory.max")
            }
        };
        fs::create_dir(&dir).expect("control group");
        let group = Group(dir);
        fs::write(group.0.join(file), bytes.to_string()).expect("limit");
        group
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

/// Row 26: what a box gives away is no more than the control group lets it have that its daemon runs
/// in, as in a container or below a limit of systemd; what asks for more is refused with both sizes.
#[test]
fn row_26_auto_memory_is_no_more_than_the_daemons_own_group_may_have() {
    const CAP: u64 = 768 << 20;
    let group = Group::new(&format!("terrarium-cap-{}", std::process::id()), CAP);
    let mut lab = Lab::new("capped");
    lab.configure("auto", "[cell]\nmemory = \"auto\"\n");
    let inside = lab.root.join("inside");
    let procs = group.0.join("cgroup.procs");
    let script = format!("#!/bin/sh\necho $$ > {} && exec {BINARY} \"$@\"\n", procs.display());
    fs::write(&inside, script).expect("script");
    fs::set_permissions(&inside, fs::Permissions::from_mode(0o755)).expect("mode");
    lab.binary = inside;
    lab.serve();
    let status: Value = serde_json::from_str(&lab.run(&["status", "--json"]).out).expect("JSON");
    assert_eq!(status["box"]["cell"]["capacity"]["total"]["memory_bytes"], CAP);
    let large = SMALL.replace("64MiB", "800MiB");
    let ran = lab.run(&["apply", &lab.app("large", IDLE, &large)]);
    assert_eq!(ran.code, 5, "{}", ran.err);
    assert!(ran.err.contains("needs 800MiB of memory, the box has 768MiB"), "{}", ran.err);
    lab.ok(&["apply", &lab.app("small", IDLE, SMALL)]);
    lab.until_state("small", "running");
    // A Task that could never begin is refused at once, and nothing of it is left.
    let ran = lab.run(&["run-task", "small", "-m", "800M", "true"]);
    assert_eq!(ran.code, 5, "{}", ran.err);
    assert!(ran.err.contains("insufficient resources: memory (asked: memory 800"), "{}", ran.err);
    assert!(ran.err.contains("the whole box has: memory 768"), "{}", ran.err);
    assert!(ran.err.contains("ask for less, or raise [cell]"), "{}", ran.err);
    assert_eq!(lab.ok(&["tasks"]).out, "no tasks\n");
    // What it was accepted for before the box became smaller can never be placed any more.
    lab.ok(&["apply", &lab.app("large", IDLE, &SMALL.replace("64MiB", "700MiB"))]);
    lab.end_daemon(Signal::SIGTERM);
    lab.configure("auto", "[cell]\nmemory = \"512MiB\"\n");
    lab.serve();
    lab.ok(&["restart", "large"]);
    let text = lab.until("it waits in vain", |lab| {
        let text = lab.run(&["explain", "large"]).out;
        text.contains("can never be placed").then_some(text)
    });
    assert!(text.contains("insufficient resources: memory"), "{text}");
    assert!(text.contains("nothing: it does not start"), "{text}");
    let text = lab.run(&["status"]).out;
    assert!(text.contains("large: it does not fit the box: insufficient resources"), "{text}");
    lab.ok(&["delete", "large", "small"]);
    lab.assert_empty();
    lab.end_daemon(Signal::SIGTERM);
    lab.until("its group is empty", |_| fs::remove_dir(&group.0).is_ok().then_some(()));
    lab.assert_nothing_left();
    lab.remove();
}

/// Row 7: a Task is given up when it has waited for as long as the box says, and forgotten when that has
/// kept it for as long as it says.
#[test]
fn row_7_tasks_wait_and_are_kept_for_as_long_as_the_box_says() {
    let mut lab = Lab::new("tasktimes");
    lab.configure("tasks", "[tasks]\npending_max = \"1s\"\nretry_interval = \"10m\"\n");
    lab.serve();
    let body = task("waits", "echo never", json!({ "memory_mb": 1 << 20 })).to_string();
    assert_eq!(ask(&lab, "POST", "/v1/tasks", &body).0, 201);
    let state = |lab: &Lab| ask(lab, "GET", "/v1/tasks/waits", "");
    let ended = lab.until("it was given up", |lab| {
        let (_, task) = state(lab);
        (task["state"] == "COMPLETED").then_some(task)
    });
    assert_eq!(ended["failed"], true, "{ended}");
    assert_eq!(ended["failure_reason"], "not started within time limit", "{ended}");
    // It would be there for two minutes yet.
    lab.end_daemon(Signal::SIGTERM);
    lab.serve();
    assert_eq!(state(&lab).0, 200);
    lab.end_daemon(Signal::SIGTERM);
    lab.configure("tasks", "[tasks]\nkept = \"1s\"\n");
    lab.serve();
    lab.until("it is forgotten", |lab| (state(lab).0 == 404).then_some(()));
    lab.assert_empty();
    lab.finish();
}

/// `response:` lines of an app's busybox httpd so far: requests that it has answered.
fn answered(lab: &Lab, app: &str) -> usize {
    let log = lab.run(&["logs", app, "-n", "10000"]).out;
    log.lines().filter(|line| line.contains("response:200")).count()
}

/// The number of the next process of an app's container. What it takes to ask takes a few, too.
fn next_pid(lab: &Lab, app: &str) -> usize {
    let ran = lab.inside(app, "echo $$");
    ran.out.trim().parse().unwrap_or_else(|_| panic!("{}{}", ran.out, ran.err))
}

/// When a line of the app's log was written, in milliseconds of its day.
fn time_of(lab: &Lab, app: &str, text: &str) -> u64 {
    let line = lab.logged(app, text).pop().unwrap_or_else(|| panic!("no `{text}`"));
    let (_, time) = line.split(' ').next().and_then(|it| it.split_once('T')).expect("a time");
    let parts: Vec<u64> = time.split([':', '.', 'Z']).map_while(|part| part.parse().ok()).collect();
    ((parts[0] * 60 + parts[1]) * 60 + parts[2]) * 1000 + parts[3]
}

/// Row 45: from one try to the next the box's own times pass, before the first success and after it; and
/// no try makes a process: the server forks once for each, and nothing else in its container does.
/// What is not bad enough is not said.
#[test]
fn row_45_the_box_has_its_own_intervals_and_asks_without_a_process() {
    let mut lab = Lab::new("intervals");
    lab.configure(
        "health",
        "[health]\ninterval_unhealthy = \"2s\"\ninterval_healthy = \"100ms\"\n\n\
         [log]\nlevel = \"warn\"\n",
    );
    lab.serve();
    let script = "mkdir www; echo here > www/index.html\n\
                  exec busybox httpd -f -v -p 8080 -h www\n";
    let manifest = "[run]\nmemory = \"32MiB\"\ndisk = \"32MiB\"\n\n[[port]]\ncontainer = 8080\n\n\
                    [health]\ntype = \"http\"\n";
    lab.ok(&["apply", &lab.app("web", script, manifest)]);
    lab.until_state("web", "running");
    let began = time_of(&lab, "web", "Starting health monitoring of container");
    let healthy = time_of(&lab, "web", "Container became healthy");
    let waited = (healthy + 86_400_000 - began) % 86_400_000;
    assert!(waited >= 2000, "the first try is after 2 s, not after {waited} ms");

    // Every 30 s, as by default, it would take twenty minutes.
    let (before, from) = (answered(&lab, "web"), next_pid(&lab, "web"));
    lab.until("forty more tries", |lab| (answered(lab, "web") >= before + 40).then_some(()));
    let made = next_pid(&lab, "web") - from;
    let tries = answered(&lab, "web") - before;
    // A process of a probe's own beside the server's would make it eighty.
    assert!(made < tries + 20, "{made} processes for {tries} tries");

    lab.ok(&["exec", "web", "--", "sh", "-c", "kill -9 -1"]);
    lab.until("its end is told", |lab| lab.daemon_log().contains("instance.crashed").then_some(()));
    let log = lab.daemon_log();
    assert!(!log.contains("instance.running") && !log.contains("<6>"), "{log}");
    lab.finish();
}
