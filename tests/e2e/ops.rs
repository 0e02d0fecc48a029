//! The cell as a whole: room, removal, draining, checks of itself, reboots and clocks.

use super::bridge::socket;
use super::lab::{Lab, Ran, get};
use super::{PORT, WEB};
use nix::mount::{MsFlags, mount, umount};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

const IDLE: &str = "exec sleep 100000\n";
const PROCESS: &str = "[health]\ntype = \"process\"\n";

/// Manifest of an app with so many MiB of memory.
fn small(memory: u32) -> String {
    format!("[run]\nmemory = \"{memory}MiB\"\ndisk = \"32MiB\"\n\n{PROCESS}")
}

/// The cell as `status --json` has it.
fn cell(lab: &Lab) -> Value {
    let ran = lab.run(&["status", "--json"]);
    let view: Value = serde_json::from_str(&ran.out).unwrap_or_else(|_| panic!("{}", ran.err));
    view["box"]["cell"].clone()
}

/// Memory that is booked, in MiB.
fn booked(lab: &Lab) -> u64 {
    cell(lab)["capacity"]["taken"]["memory_bytes"].as_u64().expect("bytes") >> 20
}

fn handle(lab: &Lab, app: &str, index: usize) -> String {
    lab.instance(app, index)["handle"].as_str().expect("a handle").to_owned()
}

/// Pid 1 of a container, as the box numbers it.
fn first_process(lab: &Lab, handle: &str) -> Pid {
    let entry = lab.root.join("var/lib/terrarium/depot").join(handle).join("container.json");
    // Written down after the instance has its place.
    let pid = lab.until("pid 1 is recorded", |_| {
        let entry = fs::read_to_string(&entry).ok()?;
        let entry: Value = serde_json::from_str(&entry).ok()?;
        entry["pid"][0].as_i64()
    });
    Pid::from_raw(pid as i32)
}

/// Starts a verb that takes its time.
fn begin(lab: &Lab, args: &[&str]) -> Child {
    let mut command = lab.command(args);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().expect("start")
}

fn end(child: Child) -> Ran {
    Ran::new(child.wait_with_output().expect("its end"))
}

/// Puts a file system over a container's disk, so that nobody can remove it.
struct Cover(PathBuf);

impl Cover {
    fn over(lab: &Lab, handle: &str) -> Cover {
        let disk = lab.root.join("var/lib/terrarium/store/containers").join(handle);
        mount(Some("cover"), &disk, Some("tmpfs"), MsFlags::empty(), None::<&str>).expect("cover");
        Cover(disk)
    }

    fn lift(self) {
        umount(&self.0).expect("lift");
    }
}

/// Row 25: what a container has comes back when it is gone, and not before. Row 26: `status` tells
/// what there is. What does not go is shown, with the step that refuses; others start as usual.
#[test]
fn row_25_a_container_that_will_not_go_keeps_what_it_has_and_holds_up_nobody() {
    let mut lab = Lab::start("stuck");
    let total = &cell(&lab)["capacity"]["total"];
    assert_eq!(total["memory_bytes"], 8_u64 << 30, "{total}");
    assert_eq!(total["disk_bytes"], 16_u64 << 30, "{total}");
    lab.ok(&["apply", &lab.app("held", IDLE, &small(1000))]);
    lab.until_state("held", "running");
    lab.until("the staging has given back", |lab| (booked(lab) == 1000).then_some(()));
    let stuck = handle(&lab, "held", 0);
    let cover = Cover::over(&lab, &stuck);
    lab.ok(&["delete", "held"]);
    let shown = cell(&lab)["stuck"][0].clone();
    assert_eq!(shown["handle"], stuck.as_str(), "{shown}");
    assert!(shown["reason"].as_str().expect("a reason").contains("disk: "), "{shown}");
    assert_eq!(booked(&lab), 1000, "it stays booked");
    let status = lab.run(&["status"]);
    assert_eq!(status.code, 3);
    assert!(status.out.contains(&format!("container {stuck} is stuck")), "{}", status.out);
    // The room is no other's.
    let large = "[run]\nmemory = \"7500MiB\"\ndisk = \"32MiB\"\n\n".to_owned() + PROCESS;
    lab.run(&["apply", &lab.app("large", IDLE, &large)]);
    let one = lab.until("it waits", |lab| {
        let one = lab.instance("large", 0);
        (one["state"] == "waiting").then_some(one)
    });
    let why = one["placement_error"].as_str().expect("a reason").to_owned();
    assert!(why.starts_with("insufficient resources: memory ("), "{why}");
    // Another one starts as usual, and the next daemon serves as well, with it still there.
    lab.ok(&["apply", &lab.app("other", IDLE, &small(64))]);
    lab.until_state("other", "running");
    lab.end_daemon(Signal::SIGKILL);
    lab.serve();
    assert_eq!(cell(&lab)["stuck"][0]["handle"], stuck.as_str());
    lab.until_state("other", "running");
    assert_eq!(lab.view("large")["state"], "waiting");
    cover.lift();
    lab.until_state("large", "running");
    assert_eq!(cell(&lab)["stuck"].as_array().map(Vec::len), Some(0));
    assert_eq!(booked(&lab), 7564);
    lab.finish();
}

/// Row 23: of two first instances the larger one is first; row 22: the others wait with the text.
#[test]
fn row_23_when_only_one_of_two_fits_the_larger_first_instance_wins() {
    let mut lab = Lab::new("queue");
    lab.configure("cell", "[cell]\nmemory = \"1GiB\"\n");
    lab.serve();
    for (name, memory) in [("small", 300), ("large", 900)] {
        lab.ok(&["apply", &lab.app(name, IDLE, &small(memory)), "--no-wait"]);
        lab.until("it is staged", |lab| {
            let state = lab.view(name)["state"].as_str()?.to_owned();
            (state == "running" || state == "waiting").then_some(())
        });
        lab.ok(&["stop", name]);
    }
    lab.ok(&["drain", "--wait"]);
    lab.ok(&["start", "small"]);
    lab.ok(&["start", "large"]);
    lab.ok(&["undrain"]);
    lab.until_state("large", "running");
    let one = lab.until("the other waits", |lab| {
        let one = lab.instance("small", 0);
        (one["state"] == "waiting").then_some(one)
    });
    let why = one["placement_error"].as_str().expect("a reason");
    assert!(why.starts_with("insufficient resources: memory ("), "{why}");
    lab.finish();
}

/// Row 91: fifty starts at once, and never more than the pool has in the making.
#[test]
fn row_91_fifty_starts_make_no_more_than_so_many_containers_at_a_time() {
    let mut lab = Lab::new("pools");
    lab.configure("pools", "[pools]\ncreate = 3\ndelete = 2\n");
    lab.serve();
    lab.ok(&["apply", &lab.app("many", IDLE, &small(16))]);
    lab.ok(&["scale", "many=50"]);
    lab.until("all run", |lab| (lab.view("many")["processes"][0]["running"] == 50).then_some(()));
    lab.ok(&["delete", "many"]);
    let pools = cell(&lab)["pools"].clone();
    let peak = |name: &str| {
        let pool = pools.as_array().expect("pools").iter().find(|pool| pool["name"] == name);
        pool.expect(name)["peak"].as_u64().expect("a number")
    };
    assert_eq!((peak("create"), peak("delete")), (3, 2), "{pools}");
    lab.finish();
}

/// Row 35: nothing new is admitted, Tasks finish, apps get TERM, and what is desired stays. The
/// flag outlives the daemon, which may end in the middle, but not the box.
#[test]
fn row_35_a_cell_that_is_drained_ends_all_keeps_what_is_desired_and_goes_on_with_it() {
    let mut lab = Lab::start("drain");
    lab.buildpack("slow", "while [ ! -e /tmp/go ]; do sleep 0.1; done");
    let web = format!("[run]\nmemory = \"32MiB\"\ndisk = \"32MiB\"\n\n{PORT}");
    lab.ok(&[
        "apply",
        &lab.app(
            "web",
            &format!("trap 'echo good-bye; exit 0' TERM\n{WEB}")
                .replace("exec busybox httpd -f", "busybox httpd"),
            &web,
        ),
    ]);
    lab.until_state("web", "running");
    let handle = lab.instance("web", 0)["handle"].as_str().expect("a handle").to_owned();
    let task = lab.app("task", IDLE, &small(32));
    let text = fs::read_to_string(&task).expect("manifest").replace("procfile", "slow");
    fs::write(&task, text).expect("manifest");
    lab.ok(&["apply", &task, "--no-wait"]);
    let staging = lab.until("it is being staged", |lab| {
        let depot = fs::read_dir(lab.root.join("var/lib/terrarium/depot")).expect("depot");
        let names = depot.flatten().map(|item| item.file_name().into_string().expect("UTF-8"));
        names.into_iter().find(|name| name.starts_with("task-stage-"))
    });
    let drain = begin(&lab, &["drain", "--wait", "--timeout", "1h"]);
    lab.until("it is being drained", |lab| {
        (cell(lab)["drain"]["state"] == "draining").then_some(())
    });
    // The Task goes on, and so does the app meanwhile; what is new waits, with the reason.
    assert_eq!(lab.view("web")["state"], "running");
    let new = lab.run(&["apply", &lab.app("new", IDLE, &small(32))]);
    assert_ne!(new.code, 0);
    assert!(new.err.contains("this cell is drained") && new.err.contains("undrain"), "{}", new.err);
    let pid = first_process(&lab, &staging);
    fs::write(format!("/proc/{pid}/root/tmp/go"), "").expect("go");
    let ran = end(drain);
    assert_eq!(ran.code, 0, "{}\n{}", ran.err, lab.daemon_log());
    lab.assert_empty();
    assert!(!lab.logged("task", "Staging complete").is_empty(), "the Task was not finished");
    // Rep's words, once, and only for what served.
    let said = format!("requesting replacement for instance {handle}");
    assert_eq!(lab.logged("web", &said).len(), 1);
    assert!(lab.logged("task", "requesting replacement").is_empty());
    let status = lab.run(&["status"]);
    assert!(status.out.contains("\ndrained for "), "{}", status.out);
    for app in ["web", "task", "new"] {
        assert_eq!(lab.view(app)["processes"][0]["running"], 0, "{app}");
    }
    let why = lab.run(&["explain", "web"]).out;
    let told = ["somebody has drained the cell (`terrarium drain`)", "after `terrarium undrain`"];
    assert!(told.iter().all(|text| why.contains(text)), "{why}");
    let json = lab.run(&["explain", "web", "--json"]).out;
    let json: Value = serde_json::from_str(&json).expect("JSON");
    let cause = &json["parts"][0]["death"]["cause"];
    assert_eq!((&cause["kind"], &cause["by"]), (&"stopped".into(), &"drain".into()), "{json}");
    // It is still drained after the daemon, and asked twice.
    lab.end_daemon(Signal::SIGTERM);
    lab.serve();
    assert_eq!(cell(&lab)["drain"]["state"], "drained");
    lab.ok(&["drain", "--wait"]);
    lab.assert_empty();
    lab.ok(&["undrain"]);
    for app in ["web", "task", "new"] {
        lab.until_state(app, "running");
        assert_eq!(lab.instance(app, 0)["crash_count"], 0, "{app}");
    }
    assert_eq!(cell(&lab)["drain"], Value::Null);
    lab.finish();
}

/// Row 36: with an app that does not mind TERM all is gone within its grace and ten seconds; the
/// verb fails when it is not. A daemon that is told to end meanwhile leaves the rest to the next.
#[test]
fn row_36_a_drain_is_bounded_and_says_what_it_could_not_end() {
    let mut lab = Lab::start("bound");
    let deaf = "trap '' TERM\nwhile :; do sleep 1; done\n";
    // Its own grace first, then Diego's.
    let soon = format!("{}\n[stop]\ntimeout = \"1s\"\n", small(32));
    lab.ok(&["apply", &lab.app("deaf", deaf, &soon)]);
    lab.until_state("deaf", "running");
    lab.ok(&["drain", "--wait"]);
    lab.assert_empty();
    lab.ok(&["undrain"]);
    lab.ok(&["apply", &lab.app("deaf", deaf, &small(32))]);
    lab.until_state("deaf", "running");
    let drain = begin(&lab, &["drain", "--wait"]);
    lab.until("it is being drained", |lab| {
        (cell(lab)["drain"]["state"] == "draining").then_some(())
    });
    lab.end_daemon(Signal::SIGTERM);
    assert_ne!(end(drain).code, 0, "it was not drained");
    lab.serve();
    lab.until("the next daemon drains it", |lab| {
        (cell(lab)["drain"]["state"] == "drained").then_some(())
    });
    lab.assert_empty();
    lab.ok(&["undrain"]);
    // Here it is the mount over its group that holds it up.
    lab.ok(&["apply", &lab.app("deaf", deaf, &soon)]);
    lab.until_state("deaf", "running");
    let held = handle(&lab, "deaf", 0);
    let cover = Cover::over(&lab, &held);
    let ran = lab.run(&["drain", "--wait", "--timeout", "1s"]);
    assert_eq!(ran.code, 1, "{}", ran.err);
    assert!(ran.err.contains("not drained after 21 s") && ran.err.contains(&held), "{}", ran.err);
    cover.lift();
    lab.until("it is gone", |lab| (cell(lab)["drain"]["state"] == "drained").then_some(()));
    lab.ok(&["undrain"]);
    lab.finish();
}

/// Makes a mount of the store read-only, or writable again, for whoever comes by that path.
fn set_read_only(store: &Path, read_only: bool) {
    let how = if read_only { MsFlags::MS_RDONLY } else { MsFlags::empty() };
    let flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | how;
    mount(None::<&str>, store, None::<&str>, flags, None::<&str>).expect("remount");
}

/// Row 37: a store that cannot be written makes the cell ill: nothing new starts, what runs is left
/// alone, `status` says so, and it mends by itself.
#[test]
fn row_37_a_cell_that_cannot_make_containers_starts_nothing_new_until_it_can() {
    let mut lab = Lab::new("check");
    // Stronger than what the other tests have.
    lab.configure("check", "[self_check]\ninterval = \"1s\"\nunhealthy_interval = \"1s\"\n");
    lab.serve();
    lab.until("it is well", |lab| (cell(lab)["check"] == "healthy").then_some(()));
    assert_eq!(booked(&lab), 0, "a check is not counted");
    let web = format!("[run]\nmemory = \"32MiB\"\ndisk = \"32MiB\"\n\n{PORT}");
    lab.ok(&["apply", &lab.app("web", WEB, &web)]);
    lab.until_state("web", "running");
    let before = lab.instance("web", 0);
    let store = lab.root.join("var/lib/terrarium/store");
    set_read_only(&store, true);
    lab.until("it is ill", |lab| (cell(lab)["check"] == "unhealthy").then_some(()));
    let status = lab.run(&["status"]);
    assert_eq!(status.code, 3);
    assert!(status.out.contains("the cell cannot make containers: "), "{}", status.out);
    // Whoever looks for a cell for his work is told to look elsewhere.
    let state = socket(&lab, "GET /rep/state", "");
    assert_eq!((state.status, &state.json()["name"]), (503, &"UnknownError".into()));
    lab.ok(&["scale", "web=2"]);
    let one = lab.until("the second waits", |lab| {
        let one = lab.instance("web", 1);
        (one["state"] == "waiting").then_some(one)
    });
    let why = one["placement_error"].as_str().expect("a reason");
    assert!(why.contains("cannot make containers at the moment"), "{why}");
    let port = before["ports"][0]["host"].as_u64().expect("a host port");
    assert!(get("127.0.0.1", port).is_some(), "what runs is left alone");
    set_read_only(&store, false);
    lab.until_state("web", "running");
    lab.until("it is well again", |lab| (cell(lab)["check"] == "healthy").then_some(()));
    assert_eq!(socket(&lab, "GET /rep/state", "").status, 200);
    assert_eq!(lab.instance("web", 0)["handle"], before["handle"]);
    lab.end_daemon(Signal::SIGTERM);
    lab.configure("check", "[self_check]\ninterval = \"never\"\n");
    lab.serve();
    assert_eq!(cell(&lab)["check"], "unknown");
    lab.finish();
}

/// Row 30: a container whose first process is killed by hand is seen at once, and its app restarted;
/// one of ours that nobody knows is removed. Row 31: also one that stands there at the start.
#[test]
fn row_30_and_31_what_is_killed_behind_our_back_starts_again_and_strays_go() {
    let mut lab = Lab::new("reaper");
    lab.configure("cell", "[cell]\npolling_interval = \"1s\"\n");
    lab.serve();
    lab.ok(&["apply", &lab.app("web", IDLE, &small(32))]);
    lab.until_state("web", "running");
    let first = handle(&lab, "web", 0);
    kill(first_process(&lab, &first), Signal::SIGKILL).expect("kill");
    lab.until("another one runs", |lab| {
        let one = lab.instance("web", 0);
        (one["state"] == "running" && one["handle"] != first.as_str()).then_some(())
    });
    // An entry as a container has it of whose app nobody knows.
    let depot = lab.root.join("var/lib/terrarium/depot");
    let own = depot.join(handle(&lab, "web", 0)).join("container.json");
    let entry = fs::read_to_string(own).expect("depot entry");
    let mut entry: Value = serde_json::from_str(&entry).expect("JSON");
    let mut stray = |lab: &Lab, name: &str| {
        entry["spec"]["handle"] = name.into();
        entry["spec"]["owner"] =
            r#"{"lrp":{"guid":{"app":"nobody","process":"web"},"index":0}}"#.into();
        entry["pid"] = Value::Null;
        // A slot of its own.
        entry["slot"] = (entry["slot"].as_u64().expect("a slot") + 100).into();
        entry["ports"] = Value::Array(Vec::new());
        let dir = lab.root.join("var/lib/terrarium/depot").join(name);
        fs::create_dir_all(&dir).expect("stray");
        fs::write(dir.join("container.json"), entry.to_string()).expect("stray");
    };
    stray(&lab, "stray-1");
    lab.until("it is gone", |_| (!depot.join("stray-1").exists()).then_some(()));
    lab.end_daemon(Signal::SIGKILL);
    stray(&lab, "stray-2");
    lab.serve();
    lab.until("it is gone", |_| (!depot.join("stray-2").exists()).then_some(()));
    lab.until_state("web", "running");
    lab.finish();
}

/// After another boot of the box nothing that was lives, whatever has its number by now. What was
/// desired is made anew; a cell that was drained serves again.
#[test]
fn after_a_reboot_everything_is_made_anew_and_nothing_is_waited_for() {
    let mut lab = Lab::start("reboot");
    let web = format!("[run]\ninstances = 2\nmemory = \"32MiB\"\ndisk = \"32MiB\"\n\n{PORT}");
    lab.ok(&["apply", &lab.app("web", WEB, &web)]);
    lab.until_state("web", "running");
    let before = [0, 1].map(|index| handle(&lab, "web", index));
    lab.ok(&["drain"]);
    lab.until("it is drained", |lab| (cell(lab)["drain"]["state"] == "drained").then_some(()));
    lab.ok(&["undrain"]);
    lab.until_state("web", "running");
    let later = [0, 1].map(|index| handle(&lab, "web", index));
    lab.ok(&["drain", "--timeout", "1h"]);
    lab.end_daemon(Signal::SIGKILL);
    for handle in &later {
        let entry = lab.root.join("var/lib/terrarium/depot").join(handle);
        if entry.exists() {
            let _ = kill(first_process(&lab, handle), Signal::SIGKILL);
        }
    }
    let boot = lab.root.join("boot_id");
    fs::write(&boot, "11111111-2222-3333-4444-555555555555\n").expect("boot id");
    let real = Path::new("/proc/sys/kernel/random/boot_id");
    mount(Some(&boot), real, None::<&str>, MsFlags::MS_BIND, None::<&str>).expect("another boot");
    lab.serve();
    assert_eq!(cell(&lab)["drain"], Value::Null, "a reboot ends it");
    lab.until("both run", |lab| (lab.view("web")["processes"][0]["running"] == 2).then_some(()));
    for index in [0, 1] {
        let now = handle(&lab, "web", index);
        assert!(!before.contains(&now) && !later.contains(&now), "{now}");
        assert_eq!(lab.instance("web", index)["crash_count"], 0);
    }
    lab.finish();
    umount(real).expect("the real one");
}

/// Clocks that are set: a box that has started in 1970 learns the time, and one is set back. What
/// waits goes on waiting as long as it should, and what runs does not notice.
#[test]
fn a_clock_that_is_set_changes_neither_backoff_nor_what_runs() {
    let lab = Lab::start("clock");
    let web = format!("[run]\nmemory = \"32MiB\"\ndisk = \"32MiB\"\n\n{PORT}");
    lab.ok(&["apply", &lab.app("web", WEB, &web)]);
    lab.until_state("web", "running");
    let before = lab.instance("web", 0);
    lab.run(&["apply", &lab.app("bad", "exit 7\n", &small(32))]);
    let third = |lab: &Lab| lab.instance("bad", 0)["crash_count"] == 3;
    lab.until("it waits for half a minute", |lab| third(lab).then_some(()));
    let clock = lab.root.join("clock");
    let year: i64 = 365 * 86_400_000;
    for (before, set_by) in [10 * year, -50 * year, 0].into_iter().enumerate() {
        fs::write(&clock, set_by.to_string()).expect("clock");
        // Anything that happens lets the loop look.
        lab.ok(&["scale", "web=2"]);
        lab.ok(&["scale", "web=1"]);
        lab.until("it has noticed", |lab| {
            (lab.daemon_log().matches("clock.set").count() == before + 1).then_some(())
        });
        assert!(third(&lab), "it was started though it waits: {}", lab.instance("bad", 0));
        // All that is told of it is of one clock: it crashed minutes ago at most, and starts soon.
        let told = lab.run(&["explain", "bad", "--json"]).out;
        let told: serde_json::Value = serde_json::from_str(&told).expect("JSON");
        let part = &told["parts"][0];
        let ms = |key: &str| part[key].as_i64().unwrap_or_else(|| panic!("{key}: {part}"));
        let span = ms("next_ms") - ms("happened_ms");
        assert!((0..600_000).contains(&span), "{span}: {part}");
    }
    let after = lab.instance("web", 0);
    assert_eq!((&after["handle"], &after["crash_count"]), (&before["handle"], &0.into()));
    lab.until("it starts in the end", |lab| {
        (lab.instance("bad", 0)["crash_count"] == 4).then_some(())
    });
    lab.finish();
}

/// How much the daemon says of itself is its owner's affair.
#[test]
fn a_daemon_says_as_much_as_its_owner_wants() {
    let mut lab = Lab::new("level");
    let log = lab.root.join("daemon.log");
    for (level, says_all) in [("info", true), ("warn", false)] {
        lab.configure("level", &format!("[log]\nlevel = \"{level}\"\n"));
        lab.serve();
        // Something to warn of; anything that happens lets the loop look.
        let set_by = if says_all { 86_400_000 } else { 0 };
        fs::write(lab.root.join("clock"), set_by.to_string()).expect("clock");
        lab.ok(&["drain"]);
        lab.until("it warns", |lab| lab.daemon_log().contains("<4>clock.set").then_some(()));
        let said = lab.daemon_log();
        for info in ["<6>api.called", "<6>cell.draining"] {
            assert_eq!(said.contains(info), says_all, "{level}: {info}\n{said}");
        }
        lab.end_daemon(Signal::SIGTERM);
        fs::remove_file(&log).expect("what was said");
    }
    lab.serve();
    lab.finish();
}

/// The first file of that name in the control groups of a container, whichever version has it.
fn cgroup_file(handle: &str, name: &str) -> Option<String> {
    let mut left = vec![PathBuf::from("/sys/fs/cgroup")];
    while let Some(dir) = left.pop() {
        for item in fs::read_dir(&dir).into_iter().flatten().flatten() {
            if !item.file_type().is_ok_and(|kind| kind.is_dir()) {
                continue;
            }
            if item.file_name() == handle
                && let Ok(text) = fs::read_to_string(item.path().join(name))
            {
                return Some(text.trim().to_owned());
            }
            left.push(item.path());
        }
    }
    None
}

/// What a group has for so many of the older scale, by either version.
fn has_shares(handle: &str, shares: u64) -> bool {
    match cgroup_file(handle, "cpu.shares") {
        Some(text) => text == shares.to_string(),
        None => {
            let weight = terrarium::cgroup::recipe::cpu_weight(shares).to_string();
            cgroup_file(handle, "cpu.weight").is_some_and(|text| text == weight)
        }
    }
}

/// Rows 26 and 27, and what else stands for a flag of rep: each setting does what it says.
#[test]
fn row_27_weights_become_shares_and_the_cells_settings_hold() {
    let mut lab = Lab::new("flags");
    let weight = |weight: u32| {
        format!("[run]\nmemory = \"32MiB\"\ndisk = \"32MiB\"\ncpu_weight = {weight}\n\n{PROCESS}")
    };
    lab.serve();
    lab.ok(&["apply", &lab.app("half", IDLE, &weight(50))]);
    lab.until_state("half", "running");
    assert!(has_shares(&handle(&lab, "half", 0), 512), "1024 x 50 / 100");
    assert!(lab.inside("half", "echo $CF_INSTANCE_IP").out.contains('.'));
    lab.ok(&["delete", "half"]);
    lab.end_daemon(Signal::SIGTERM);

    let root = lab.root.display().to_string();
    let stack = lab.root.join("usr/lib/terrarium/stacks/tiny.tar.zst");
    fs::rename(&stack, lab.root.join("elsewhere.tar.zst")).expect("move");
    let temp = lab.root.join("temp");
    fs::create_dir_all(temp.join("terrarium-staging/old")).expect("temp");
    fs::write(temp.join("mine"), "").expect("temp");
    lab.configure(
        "flags",
        &format!(
            "[cell]\nname = \"cell-7\"\nzone = \"z1\"\nmemory = \"auto\"\ndisk = \"auto\"\ncpu_shares_max = 300\n\
             export_network_variables = false\ntemp_dir = \"{root}/temp\"\n\
             evacuation_timeout = \"1s\"\n\
             [stacks]\npreloaded = [\"tiny:{root}/elsewhere.tar.zst\"]\n\
             [downloads]\ndir = \"{root}/temp\"\n\
             [pools]\nread = 1\nmetrics = 2\nhealth = 1\n"
        ),
    );
    lab.serve();
    let status = lab.ok(&["status"]).out;
    assert!(status.contains("\ncell cell-7 in z1: booked: memory 0"), "{status}");
    let memory = fs::read_to_string("/proc/meminfo").expect("meminfo");
    let kib = memory.lines().find_map(|line| line.strip_prefix("MemTotal:")).expect("MemTotal");
    let kib: u64 = kib.trim().trim_end_matches(" kB").parse().expect("a number");
    let total = cell(&lab)["capacity"]["total"].clone();
    assert_eq!(total["memory_bytes"], kib * 1024);
    assert_eq!(total["disk_bytes"], 4_u64 << 30, "what the store may grow to");
    let sizes = |lab: &Lab, field: &str| -> Vec<u64> {
        let pools = cell(lab)["pools"].clone();
        pools.as_array().expect("pools").iter().filter_map(|pool| pool[field].as_u64()).collect()
    };
    assert_eq!(sizes(&lab, "size")[2..], [1, 2, 1, 1]);
    let old = temp.join("terrarium-staging/old");
    assert!(!old.exists() && temp.join("mine").exists(), "only what is ours goes");
    assert!(temp.join("terrarium-downloads").is_dir());

    let web = format!(
        "[run]\ninstances = 3\nmemory = \"32MiB\"\ndisk = \"32MiB\"\ncpu_weight = 50\n\n{PORT}"
    );
    lab.ok(&["apply", &lab.app("web", WEB, &web)]);
    lab.until_state("web", "running");
    assert!(has_shares(&handle(&lab, "web", 0), 150), "300 x 50 / 100");
    let env = lab.inside("web", "env");
    assert!(env.out.contains("CF_INSTANCE_INDEX=0"), "{}{}", env.out, env.err);
    assert!(
        !env.out.contains("CF_INSTANCE_IP") && !env.out.contains("CF_INSTANCE_PORT"),
        "{}",
        env.out
    );
    // Eight who ask for figures at once.
    let asking: Vec<_> = (0..8).map(|_| lab.command(&["app", "web"])).collect();
    let asking = asking.into_iter().map(|mut ask| ask.stdout(Stdio::null()).spawn().expect("ask"));
    for mut child in asking.collect::<Vec<_>>() {
        assert!(child.wait().expect("its end").success());
    }
    let peaks = sizes(&lab, "peak");
    assert_eq!((peaks[2], peaks[4]), (1, 1), "droplets that are read, and probes, take turns");
    assert!((1..=2).contains(&peaks[3]), "so do looks: {peaks:?}");

    // A Task that does not end has the time that the box gives it.
    lab.buildpack("endless", "sleep 100000");
    let task = lab.app("task", IDLE, &small(32));
    let text = fs::read_to_string(&task).expect("manifest").replace("procfile", "endless");
    fs::write(&task, text).expect("manifest");
    lab.ok(&["apply", &task, "--no-wait"]);
    lab.until("it works below the box's own directory", |_| {
        temp.join("terrarium-staging/task").is_dir().then_some(())
    });
    lab.until("it is being staged", |lab| {
        let depot = fs::read_dir(lab.root.join("var/lib/terrarium/depot")).expect("depot");
        let mut names = depot.flatten().map(|item| item.file_name().into_string().expect("UTF-8"));
        names.any(|name| name.starts_with("task-stage-")).then_some(())
    });
    lab.ok(&["drain", "--wait"]);
    let text = "Cell cell-7 reached evacuation timeout for instance task";
    assert_eq!(lab.logged("task", text).len(), 1);
    lab.assert_empty();
    lab.ok(&["delete", "task"]);
    lab.ok(&["undrain"]);
    lab.until_state("web", "running");
    lab.finish();
}

/// Row 33: whatever is asked of an app at once, an instance has one container, or two while a new
/// version takes over, and in the end what was asked last.
#[test]
fn row_33_an_instance_never_has_more_containers_than_it_may_whatever_is_asked_at_once() {
    let lab = Lab::start("serial");
    lab.ok(&["apply", &lab.app("web", IDLE, &small(16))]);
    lab.until_state("web", "running");
    let depot = lab.root.join("var/lib/terrarium/store/containers");
    let done = std::sync::atomic::AtomicBool::new(false);
    let ask = |args: &[&str]| drop(lab.run(args));
    std::thread::scope(|scope| {
        let watch = scope.spawn(|| {
            let mut looks = 0;
            while !done.load(std::sync::atomic::Ordering::SeqCst) {
                let names = fs::read_dir(&depot).expect("containers").flatten();
                let mut of = std::collections::BTreeMap::<String, u32>::new();
                for name in names.filter_map(|item| item.file_name().into_string().ok()) {
                    // Its app and its index.
                    let (instance, _) = name.rsplit_once('-').expect("a handle");
                    *of.entry(instance.to_owned()).or_default() += 1;
                }
                // The one that is, and the one of a new version that takes over from it.
                assert!(of.values().all(|count| *count <= 2), "{of:?}");
                looks += 1;
                std::thread::yield_now();
            }
            looks
        });
        let askers = [0, 1, 2].map(|n| {
            scope.spawn(move || {
                for round in 0..6 {
                    match (n + round) % 3 {
                        0 => ask(&["restart", "web"]),
                        1 => ask(&["scale", &format!("web={}", 1 + round % 3)]),
                        _ => {
                            ask(&["stop", "web", "--no-wait"]);
                            ask(&["start", "web"]);
                        }
                    }
                }
            })
        });
        askers.into_iter().for_each(|asker| asker.join().expect("asked"));
        lab.ok(&["start", "web"]);
        lab.ok(&["scale", "web=2"]);
        lab.until("both run", |lab| {
            let view = lab.view("web");
            (view["state"] == "running" && view["processes"][0]["running"] == 2).then_some(())
        });
        done.store(true, std::sync::atomic::Ordering::SeqCst);
        assert!(watch.join().expect("it looked") > 0);
    });
    lab.finish();
}

/// A container of which one part hangs in the kernel for ever: the removal gives up waiting, others
/// start and stop as usual, and what it has stays booked until it is gone.
#[test]
fn a_removal_that_hangs_in_the_kernel_holds_up_nobody() {
    use std::os::fd::AsRawFd;
    let lab = Lab::start("hangs");
    lab.ok(&["apply", &lab.app("held", IDLE, &small(500))]);
    lab.until_state("held", "running");
    let held = handle(&lab, "held", 0);
    let disk = lab.root.join("var/lib/terrarium/store/containers").join(&held);
    // A file system of which nobody answers.
    let fuse = fs::File::options().read(true).write(true).open("/dev/fuse").expect("fuse");
    let options = format!("fd={},rootmode=40000,user_id=0,group_id=0", fuse.as_raw_fd());
    let none = MsFlags::empty();
    mount(Some("hangs"), &disk, Some("fuse"), none, Some(options.as_str())).expect("mount");
    lab.ok(&["delete", "held"]);
    let reason = cell(&lab)["stuck"][0]["reason"].as_str().expect("it is stuck").to_owned();
    assert!(reason.contains("has not come to an end in 30 s"), "{reason}");
    lab.ok(&["apply", &lab.app("other", IDLE, &small(64))]);
    lab.until_state("other", "running");
    assert_eq!(booked(&lab), 564);
    drop(fuse);
    // Whoever hangs in it holds it for a moment yet.
    nix::mount::umount2(&disk, nix::mount::MntFlags::MNT_DETACH).expect("unmount");
    lab.until("it is gone", |lab| {
        (cell(lab)["stuck"].as_array().map(Vec::len) == Some(0)).then_some(())
    });
    lab.finish();
}
