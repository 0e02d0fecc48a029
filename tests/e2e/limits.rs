//! What an app may use.

use super::PORT;
use super::WEB;
use super::lab::{Lab, get};
use std::fs;

const IDLE: &str = "echo up\nexec sleep 100000\n";
const PROCESS: &str = "[health]\ntype = \"process\"\n";

#[test]
fn memory_limit_kills_only_the_app() {
    let lab = Lab::start("memory");
    let small = format!("[run]\nmemory = \"32MiB\"\ndisk = \"32MiB\"\n\n{PORT}");
    lab.ok(&["apply", &lab.app("good", WEB, &small)]);
    lab.until_state("good", "running");
    let port = lab.instance("good", 0)["ports"][0]["host"].as_u64().expect("port");
    let hog = "echo up\nx=0123456789abcdef\nwhile :; do x=$x$x; done\n";
    let limits = format!("[run]\nmemory = \"32MiB\"\ndisk = \"32MiB\"\n\n{PROCESS}");
    lab.ok(&["apply", &lab.app("hog", hog, &limits)]);
    let view = lab.until_state("hog", "crashed");
    let reason = view["processes"][0]["instances"][0]["crash_reason"].as_str().expect("a reason");
    assert!(reason.ends_with("Exited with status 137 (out of memory)"), "{reason}");
    assert!(get("127.0.0.1", port).is_some(), "the other app goes on");
    assert_eq!(lab.instance("good", 0)["crash_count"], 0);
    lab.finish();
}

#[test]
fn disk_quota_stops_at_the_limit() {
    let lab = Lab::start("disk");
    let manifest = format!("[run]\nmemory = \"64MiB\"\ndisk = \"16MiB\"\n\n{PROCESS}");
    lab.ok(&["apply", &lab.app("writer", IDLE, &manifest)]);
    lab.until_state("writer", "running");
    let ran = lab.inside("writer", "dd if=/dev/zero of=/tmp/big bs=1M count=64 && sync");
    assert_ne!(ran.code, 0, "{}", ran.out);
    assert!(ran.err.contains("quota exceeded"), "{}", ran.err);
    let size: u64 = lab.inside("writer", "wc -c < /tmp/big").out.trim().parse().expect("a size");
    assert!((8 << 20..=16 << 20).contains(&size), "{size}");
    let again = lab.inside("writer", "rm /tmp/big && echo small > /tmp/small && cat /tmp/small");
    assert_eq!(again.out.trim(), "small", "{}", again.err);
    lab.finish();
}

#[test]
fn fork_bomb_is_contained() {
    let lab = Lab::start("bomb");
    let manifest = format!("[run]\nmemory = \"64MiB\"\ndisk = \"16MiB\"\npids = 40\n\n{PROCESS}");
    lab.ok(&["apply", &lab.app("bomb", IDLE, &manifest)]);
    lab.until_state("bomb", "running");
    let script = "i=0; while [ $i -lt 200 ]; do sleep 1000 & i=$((i+1)); done; echo made";
    let ran = lab.inside("bomb", script);
    assert!(ran.err.contains("can't fork"), "{} {}", ran.out, ran.err);
    // The daemon and the other processes of the container are as they were.
    assert_eq!(lab.instance("bomb", 0)["state"], "running");
    lab.ok(&["delete", "bomb"]);
    lab.assert_empty();
    lab.finish();
}

#[test]
fn two_apps_can_fill_their_disks_at_the_same_time() {
    let lab = Lab::start("full");
    let manifest = format!("[run]\nmemory = \"64MiB\"\ndisk = \"600MiB\"\n\n{PROCESS}");
    for name in ["one", "two"] {
        lab.ok(&["apply", &lab.app(name, IDLE, &manifest)]);
        lab.until_state(name, "running");
    }
    for name in ["one", "two"] {
        let ran = lab.inside(name, "dd if=/dev/zero of=/tmp/big bs=1M count=580 && sync");
        assert_eq!(ran.code, 0, "{}", ran.err);
    }
    for name in ["one", "two"] {
        let ran = lab.inside(name, "dd if=/dev/zero of=/tmp/more bs=1M count=100 && sync");
        assert!(ran.err.contains("quota exceeded"), "{}", ran.err);
    }
    lab.finish();
}

#[test]
fn the_room_of_a_finished_staging_goes_back_to_the_box() {
    let lab = Lab::start("room");
    let file = lab.root.join("var/lib/terrarium/store.img");
    let mib = || std::fs::metadata(&file).expect("the store's file").len() >> 20;
    let manifest = format!("[run]\nmemory = \"64MiB\"\ndisk = \"100MiB\"\n\n{PROCESS}");
    let path = lab.app("idle", IDLE, &manifest);
    let text = std::fs::read_to_string(&path).expect("manifest");
    std::fs::write(&path, text.replacen("\"64MiB\"\n\n", "\"3GiB\"\n\n", 1)).expect("manifest");
    lab.ok(&["apply", &path]);
    assert!(mib() >= 3072, "staging was not given its disk: {} MiB", mib());
    lab.until("the store is small again", |_| (mib() < 2048).then_some(()));
    assert_eq!(lab.view("idle")["state"], "running");
    lab.finish();
}

#[test]
fn a_full_disk_of_the_box_is_not_healthy() {
    let mut lab = Lab::new("fulldisk");
    let disk = lab.root.join("var/lib");
    fs::create_dir_all(&disk).expect("directory");
    // The store takes 256 MiB of it at once.
    let options = Some("size=400m");
    let none = nix::mount::MsFlags::empty();
    nix::mount::mount(Some("small"), &disk, Some("tmpfs"), none, options).expect("a small disk");
    lab.serve();
    let ran = lab.ok(&["status"]);
    assert!(
        ran.out.contains(": healthy\ndisk: ") && ran.out.contains(" of 400M free"),
        "{}",
        ran.out
    );
    let filler = disk.join("filler");
    fs::write(&filler, vec![0; 100 << 20]).expect("fill");
    let ran = lab.run(&["status"]);
    assert_eq!(ran.code, 3, "{}", ran.out);
    assert!(ran.out.contains("the box is not healthy"), "{}", ran.out);
    assert!(
        ran.out.contains("of 400 MiB are free") && ran.out.contains("make room"),
        "{}",
        ran.out
    );
    fs::remove_file(filler).expect("mend");
    lab.ok(&["status"]);
    lab.end_daemon(nix::sys::signal::Signal::SIGTERM);
    nix::mount::umount(&disk).expect("unmount");
    lab.assert_nothing_left();
    lab.remove();
}

#[test]
fn an_app_that_prints_without_end_is_applied_and_deleted_like_any_other() {
    let lab = Lab::start("noise");
    let stop = "[stop]\ntimeout = \"1s\"\n";
    let manifest = format!("[run]\nmemory = \"64MiB\"\ndisk = \"32MiB\"\n\n{PROCESS}\n{stop}");
    // The shell goes with TERM, the one that prints stays.
    lab.ok(&["apply", &lab.app("noise", "yes\n", &manifest)]);
    lab.ok(&["delete", "noise"]);
    lab.assert_empty();
    lab.finish();
}

#[test]
fn instances_that_find_no_room_wait_and_start_when_some_returns() {
    let lab = Lab::start("wait");
    // The box of the tests gives away 8 GiB of memory, and its store has 4 GiB.
    for (what, limits) in [("mem", ["3GiB", "32MiB"]), ("disk", ["32MiB", "1500MiB"])] {
        let [memory, disk] = limits;
        let manifest =
            format!("[run]\ninstances = 2\nmemory = \"{memory}\"\ndisk = \"{disk}\"\n\n{PROCESS}");
        lab.ok(&["apply", &lab.app(what, IDLE, &manifest)]);
        lab.ok(&["scale", &format!("{what}=3")]);
        let waits = lab.until("the third waits", |lab| {
            (lab.view(what)["state"] == "waiting").then(|| lab.instance(what, 2))
        });
        assert_eq!((&waits["state"], &waits["crash_count"]), (&"waiting".into(), &0.into()));
        let why = waits["placement_error"].as_str().expect("a reason").to_owned();
        assert!(
            why.contains("insufficient resources: memory") || why.contains("store has"),
            "{why}"
        );
        assert!(why.contains("delete"), "no cure: {why}");
        let status = lab.run(&["status"]);
        assert_eq!(status.code, 3);
        assert!(
            status.out.contains(&format!("{what}: it waits for room: {why}")),
            "{}",
            status.out
        );
        // What two others have is given back.
        lab.ok(&["scale", &format!("{what}=1")]);
        lab.until_state(what, "running");
        let other = format!("[run]\nmemory = \"{memory}\"\ndisk = \"{disk}\"\n\n{PROCESS}");
        lab.ok(&["apply", &lab.app("other", IDLE, &other)]);
        lab.ok(&["scale", &format!("{what}=2")]);
        lab.until("it waits", |lab| (lab.view(what)["state"] == "waiting").then_some(()));
        lab.ok(&["delete", "other"]);
        lab.until_state(what, "running");
        assert_eq!(lab.instance(what, 1)["crash_count"], 0);
        lab.ok(&["delete", what]);
    }
    lab.ok(&["status"]);
    lab.finish();
}

/// Row 25: a box whose owner gives less disk away than its store has says so, and of disk alone.
#[test]
fn row_25_disk_alone_may_be_short() {
    let mut lab = Lab::new("shortdisk");
    lab.configure("disk", "[cell]\ndisk = \"1GiB\"\n");
    lab.serve();
    let manifest = format!("[run]\nmemory = \"32MiB\"\ndisk = \"600MiB\"\n\n{PROCESS}");
    lab.ok(&["apply", &lab.app("big", IDLE, &manifest)]);
    lab.ok(&["scale", "big=2"]);
    let waits = lab.until("the second waits", |lab| {
        (lab.view("big")["state"] == "waiting").then(|| lab.instance("big", 1))
    });
    let why = waits["placement_error"].as_str().expect("a reason");
    let text = "insufficient resources: disk (asked: memory 32MiB, disk 600MiB; left: memory ";
    assert!(why.starts_with(text), "{why}");
    assert_eq!(lab.instance("big", 0)["state"], "running", "the first goes on");
    lab.ok(&["scale", "big=1"]);
    lab.until_state("big", "running");
    lab.finish();
}

#[test]
fn hundreds_may_wait_for_room_and_nothing_is_written_for_them() {
    let mut lab = Lab::new("crowd");
    let config = lab.root.join("etc/terrarium/terrarium.toml");
    let text = fs::read_to_string(&config).expect("configuration");
    fs::write(&config, text.replace("[cell]", "[cell]\ncontainers = 2")).expect("configuration");
    lab.serve();
    let manifest = format!("[run]\nmemory = \"16MiB\"\ndisk = \"16MiB\"\n\n{PROCESS}");
    lab.ok(&["apply", &lab.app("crowd", IDLE, &manifest)]);
    lab.ok(&["scale", "crowd=1000"]);
    let waits = |lab: &Lab| -> usize {
        let view = lab.view("crowd");
        let all = view["processes"][0]["instances"].as_array().expect("instances").clone();
        all.iter().filter(|one| one["state"] == "waiting" && one["crash_count"] == 0).count()
    };
    let running = |lab: &Lab| lab.view("crowd")["processes"][0]["running"] == 2;
    lab.until("998 wait", |lab| (waits(lab) == 998 && running(lab)).then_some(()));
    // One ends and is started again: all others have looked, too.
    lab.ok(&["exec", "crowd", "--", "sh", "-c", "kill -9 $(pidof sleep)"]);
    lab.until("it is back", |lab| {
        let one = lab.instance("crowd", 0);
        (one["crash_count"] == 1 && one["state"] == "running" && waits(lab) == 998).then_some(())
    });
    let records = fs::read(lab.root.join("var/lib/terrarium/state.redb")).expect("records");
    assert!(!records.windows(12).any(|bytes| bytes == b"insufficient"));
    let why = lab.instance("crowd", 999)["placement_error"].as_str().expect("a reason").to_owned();
    assert!(why.starts_with("insufficient resources: containers ("), "{why}");
    // The next daemon knows them all again.
    lab.end_daemon(nix::sys::signal::Signal::SIGKILL);
    lab.serve();
    lab.until("998 wait", |lab| (waits(lab) == 998 && running(lab)).then_some(()));
    lab.finish();
}

#[test]
fn an_app_that_fills_its_shared_memory_is_out_of_memory() {
    let lab = Lab::start("shm");
    let fill = "dd if=/dev/zero of=/dev/shm/big bs=1M count=60\nexec sleep 1000\n";
    let manifest = format!(
        "[run]\nmemory = \"16MiB\"\ndisk = \"16MiB\"\n\n{PROCESS}\n[restart]\npolicy = \"never\"\n"
    );
    lab.run(&["apply", &lab.app("shm", fill, &manifest)]);
    let view = lab.until_state("shm", "crashed");
    let reason = view["processes"][0]["instances"][0]["crash_reason"].as_str().expect("a reason");
    assert!(reason.ends_with("Exited with status 137 (out of memory)"), "{reason}");
    lab.finish();
}
