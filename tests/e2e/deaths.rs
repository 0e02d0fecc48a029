//! What `terrarium explain` says of every way an instance can end, or not begin.

use super::lab::Lab;
use super::{PORT, WEB};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

/// A manifest without ports, with this much of everything.
fn plain(more: &str) -> String {
    format!("[run]\nmemory = \"32MiB\"\ndisk = \"32MiB\"\n\n[health]\ntype = \"process\"\n\n{more}")
}

const NEVER: &str = "[restart]\npolicy = \"never\"\n";

/// `terrarium explain TARGET --json`, its first part.
fn explained(lab: &Lab, target: &str) -> Value {
    let ran = lab.run(&["explain", target, "--json"]);
    let view: Value = serde_json::from_str(&ran.out).unwrap_or_else(|err| {
        panic!("{err}: {}{}", ran.out, ran.err);
    });
    view["parts"][0].clone()
}

/// Waits until the explanation names this cause, and gives it with its text for a person.
fn cause(lab: &Lab, app: &str, kind: &str) -> (Value, String) {
    let part = lab.until(&format!("{app} has ended as {kind}"), |lab| {
        let part = explained(lab, &format!("{app}/0"));
        (part["death"]["cause"]["kind"] == kind).then_some(part)
    });
    (part, lab.run(&["explain", app]).out)
}

fn holds(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "no {part:?} in\n{text}");
    }
}

/// Row 14: the reason is Diego's, to the letter.
fn reason(lab: &Lab, app: &str, text: &str) {
    assert_eq!(lab.instance(app, 0)["crash_reason"], text);
}

#[test]
fn row_14_an_exit_status_and_a_signal_are_told() {
    let lab = Lab::start("deaths");
    lab.run(&["apply", &lab.app("code", "echo last words; exit 7\n", &plain(NEVER))]);
    let (part, text) = cause(&lab, "code", "exited");
    assert_eq!(part["death"]["cause"]["code"], 7);
    assert_eq!(part["crash_count"], 1);
    reason(&lab, "code", "APP/PROC/WEB: Exited with status 7");
    holds(&text, &["code/0 is crashed", "exit status 7", "terrarium logs code/0"]);
    holds(&text, &["next  nothing: [restart] of the manifest says so", "`terrarium start code`"]);

    // Another process of the container sends it.
    let script = "sh -c \"kill -9 $$\"\nexec sleep 1000\n";
    lab.run(&["apply", &lab.app("shot", script, &plain(NEVER))]);
    let (part, text) = cause(&lab, "shot", "signalled");
    assert_eq!(part["death"]["cause"]["signal"], 9);
    assert_eq!(part["death"]["cause"]["by"], "unknown");
    reason(&lab, "shot", "APP/PROC/WEB: Exited with status 137");
    holds(&text, &["signal 9 (KILL) ended its process", "The daemon did not", "memory was not"]);

    lab.run(&["apply", &lab.app("fault", "kill -SEGV $$\n", &plain(NEVER))]);
    let (part, text) = cause(&lab, "fault", "signalled");
    assert_eq!(part["death"]["cause"]["by"], "itself");
    holds(&text, &["signal 11 (SEGV) ended its process", "a wrong address in memory"]);
    lab.finish();
}

#[test]
fn row_14_lack_of_memory_is_told_with_the_victim_and_the_limit() {
    let lab = Lab::start("starved");
    let script = "exec tail -c 200m /dev/zero\n";
    lab.run(&["apply", &lab.app("hungry", script, &plain(NEVER))]);
    let (part, text) = cause(&lab, "hungry", "out_of_memory");
    assert_eq!(part["death"]["cause"]["limit_bytes"], 32 << 20);
    assert_eq!(part["death"]["cause"]["whole_box"], false);
    let victim = part["death"]["cause"]["victim"].as_str().expect("the kernel's log names it");
    assert!(["tail", "busybox"].contains(&victim), "{victim}");
    reason(&lab, "hungry", "APP/PROC/WEB: Exited with status 137 (out of memory)");
    let killed = format!("the kernel ended `{victim}` for lack of memory");
    holds(&text, &[killed.as_str(), "more than its 32", "raise `memory`"]);
    lab.finish();
}

#[test]
fn a_child_that_the_kernel_ends_is_told_while_its_parent_lives() {
    let lab = Lab::start("child");
    let script = "tail -c 200m /dev/zero\necho survived\nexec sleep 1000\n";
    lab.ok(&["apply", &lab.app("parent", script, &plain(NEVER))]);
    lab.until("the kernel's deed is told", |lab| {
        let lines = lab.logged("parent", "The kernel ended `");
        (!lines.is_empty()).then_some(())
    });
    let line = &lab.logged("parent", "The kernel ended `")[0];
    holds(line, &["[CELL/0] ERR", "for lack of memory: the limit is 32"]);
    lab.until("it went on", |lab| (!lab.logged("parent", "survived").is_empty()).then_some(()));
    assert_eq!(lab.instance("parent", 0)["state"], "running");
    lab.finish();
}

/// Rows 14 and 17: the probe's own words, and the time that was given.
#[test]
fn row_14_row_17_a_failed_health_check_is_told_with_what_the_probe_said() {
    let lab = Lab::start("ill");
    let health = "[health]\nstart_timeout = \"1s\"\ninterval = { unhealthy = \"100ms\", healthy = \
                  \"200ms\" }\n";
    let manifest =
        format!("[run]\nmemory = \"32MiB\"\ndisk = \"32MiB\"\n\n{NEVER}\n{PORT}\n{health}");
    lab.run(&["apply", &lab.app("deaf", "exec sleep 1000\n", &manifest)]);
    let (part, text) = cause(&lab, "deaf", "never_healthy");
    assert_eq!(part["death"]["cause"]["after_ms"], 1000);
    let output = part["death"]["cause"]["output"].as_str().expect("an output").to_owned();
    assert!(output.starts_with("failed to make TCP connection to "), "{output}");
    reason(&lab, "deaf", &format!("Instance never healthy after 1s: {output}"));
    holds(&text, &["did not pass within 1s", &output, "`start_timeout`"]);

    let patient = manifest.replace("\"1s\"", "\"60s\"");
    let script = WEB.replace("exec busybox", "busybox").replace("-h www", "-h www & n=$!\n");
    let script = format!(
        "{script}while [ ! -e /tmp/enough ]; do sleep 0.1; done\nkill $n\nexec sleep 1000\n"
    );
    lab.ok(&["apply", &lab.app("faint", &script, &patient)]);
    lab.ok(&["exec", "faint", "--", "touch", "/tmp/enough"]);
    let (part, text) = cause(&lab, "faint", "unhealthy");
    let output = part["death"]["cause"]["output"].as_str().expect("an output").to_owned();
    assert!(output.contains("connection refused"), "{output}");
    reason(&lab, "faint", &format!("Instance became unhealthy: {output}"));
    holds(&text, &["failed after it had passed", &output]);
    lab.finish();
}

#[test]
fn a_crash_loop_is_told_with_the_time_of_its_next_start() {
    let lab = Lab::start("loop");
    lab.run(&["apply", &lab.app("bad", "exit 7\n", &plain(""))]);
    lab.until("it has crashed three times", |lab| {
        let one = lab.instance("bad", 0);
        (one["crash_count"] == 3 && one["state"] == "crashed").then_some(())
    });
    let part = explained(&lab, "bad");
    let (at, next) = (part["death"]["at_ms"].as_u64(), part["next_ms"].as_u64());
    assert_eq!(next, at.map(|at| at + 30_000), "{part}");
    let text = lab.run(&["explain", "bad"]);
    assert_eq!(text.code, 3);
    holds(&text.out, &["its crash 3 in a row", "next  it starts again by itself at 20", ", in "]);
    assert_eq!(lab.run(&["explain", "none"]).code, 4);
    lab.finish();
}

#[test]
fn what_could_not_be_fetched_or_placed_is_told_with_what_is_missing() {
    let lab = Lab::start("refused");
    // Nobody listens there.
    let path = lab.root.join("src/gone.toml");
    std::fs::create_dir_all(lab.root.join("src")).expect("src");
    let text = "name = \"gone\"\n\n[image]\nref = \"127.0.0.1:9/ops/app:1\"\n";
    std::fs::write(&path, text).expect("manifest");
    let ran = lab.run(&["apply", path.to_str().expect("UTF-8")]);
    assert_ne!(ran.code, 0, "{}", ran.err);
    let part = explained(&lab, "gone");
    assert_eq!(part["state"], "failed", "{part}");
    let text = lab.run(&["explain", "gone"]).out;
    holds(&text, &["its image ", "127.0.0.1:9/ops/app:1", "could not be had", "why   "]);
    // Nobody was reached: that may be another time.
    holds(&text, &["it is tried again by itself, for as long as it takes"]);

    // The box has 8 GiB.
    let large = "[run]\ninstances = 2\nmemory = \"5GiB\"\ndisk = \"32MiB\"\n\n[health]\ntype = \
                 \"process\"\n";
    lab.run(&["apply", "--no-wait", &lab.app("large", "exec sleep 1000\n", large)]);
    lab.until("one runs and one waits", |lab| {
        let states = [0, 1].map(|index| lab.instance("large", index)["state"].clone());
        (states == ["running", "waiting"]).then_some(())
    });
    let part = explained(&lab, "large/1");
    let why = part["why"].as_str().expect("a reason");
    assert!(why.starts_with("insufficient resources: memory (asked: memory 5"), "{why}");
    let text = lab.run(&["explain", "large"]).out;
    holds(&text, &["large/1 is waiting", "could not be placed", "as soon as the box has room"]);
    holds(&text, &["large is running", "has not ended since"]);
    lab.finish();
}

#[test]
fn a_full_disk_is_told_with_what_it_had() {
    let lab = Lab::start("full");
    let script = "dd if=/dev/urandom of=big bs=64k count=10000 || exit 1\n";
    lab.run(&["apply", &lab.app("writer", script, &plain(NEVER))]);
    let (part, text) = cause(&lab, "writer", "disk_full");
    assert_eq!(part["death"]["cause"]["limit_bytes"], 32 << 20);
    assert_eq!(part["death"]["cause"]["code"], 1);
    reason(&lab, "writer", "APP/PROC/WEB: Exited with status 1");
    holds(&text, &["while its disk was full", "of the 32", "raise `disk`"]);
    lab.finish();
}

#[test]
fn what_was_lost_without_a_daemon_and_who_stopped_what_is_told() {
    let mut lab = Lab::start("unseen");
    let manifest = format!("[run]\nmemory = \"32MiB\"\ndisk = \"32MiB\"\n\n{PORT}");
    lab.ok(&["apply", &lab.app("web", WEB, &manifest)]);
    let text = lab.ok(&["explain", "web"]).out;
    holds(&text, &["web is running", "it started, and has not ended since", "next  nothing"]);
    let before = lab.instance("web", 0)["handle"].clone();
    let dir = lab.root.join("var/lib/terrarium/depot").join(before.as_str().expect("a handle"));
    let entry = std::fs::read_to_string(dir.join("container.json")).expect("depot entry");
    let entry: Value = serde_json::from_str(&entry).expect("JSON");
    let pid = Pid::from_raw(entry["pid"][0].as_i64().expect("pid 1") as i32);
    lab.end_daemon(Signal::SIGKILL);
    kill(pid, Signal::SIGKILL).expect("kill");
    lab.serve();
    lab.until("a fresh instance runs", |lab| {
        let one = lab.instance("web", 0);
        (one["state"] == "running" && one["handle"] != before).then_some(())
    });
    let (part, text) = cause(&lab, "web", "unseen");
    assert_eq!(part["death"]["cause"]["rebooted"], false);
    assert_eq!(part["crash_count"], 0, "nobody saw it crash");
    holds(&text, &["web/0 is running", "it was lost while no daemon ran"]);

    // Its pid 1 is killed while the daemon looks.
    let handle = lab.instance("web", 0)["handle"].as_str().expect("a handle").to_owned();
    let dir = lab.root.join("var/lib/terrarium/depot").join(handle);
    let entry = std::fs::read_to_string(dir.join("container.json")).expect("depot entry");
    let entry: Value = serde_json::from_str(&entry).expect("JSON");
    let pid = Pid::from_raw(entry["pid"][0].as_i64().expect("pid 1") as i32);
    kill(pid, Signal::SIGKILL).expect("kill");
    let (_, text) = cause(&lab, "web", "container_lost");
    holds(&text, &["its container ended at once", "killed from outside"]);
    lab.until_state("web", "running");

    lab.ok(&["stop", "web"]);
    let ran = lab.run(&["explain", "web"]);
    assert_eq!(ran.code, 3);
    holds(&ran.out, &["web is stopped", "somebody has stopped it", "`terrarium start web`"]);
    lab.finish();
}
