//! Instances: ports, crashes, scaling, deletion, restarts of the daemon.

use super::lab::{Lab, get};
use super::{PORT, WEB};
use nix::sys::signal::Signal;
use std::io::Read;

/// Row 59: a port of the box for each.
#[test]
fn two_instances_answer_on_their_ports() {
    let lab = Lab::start("two");
    let manifest = format!("[run]\ninstances = 2\nmemory = \"32MiB\"\ndisk = \"32MiB\"\n\n{PORT}");
    lab.ok(&["apply", &lab.app("web", WEB, &manifest)]);
    lab.until_state("web", "running");
    let mut ports = Vec::new();
    for index in 0..2 {
        let port = lab.instance("web", index)["ports"][0]["host"].as_u64().expect("a host port");
        let body = get("127.0.0.1", port).expect("an answer");
        assert!(body.starts_with(&format!("instance {index} ")), "{body}");
        ports.push(port);
    }
    assert_ne!(ports[0], ports[1]);
    let table = lab.ok(&["apps"]).out;
    assert!(table.contains("web") && table.contains("2/2"), "{table}");
    lab.finish();
}

#[test]
fn the_sample_apps_run_as_they_are_shipped() {
    let lab = Lab::start("samples");
    let samples = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("config/apps");
    for name in ["hello", "site", "worker"] {
        lab.ok(&["apply", samples.join(format!("{name}.toml")).to_str().expect("UTF-8")]);
    }
    let mut seen: Vec<String> = (0..4).filter_map(|_| get("127.0.0.1", 8080)).collect();
    seen.sort();
    seen.dedup();
    assert!(seen[0].contains("Hello from instance 0"), "{seen:?}");
    assert!(seen[1].contains("Hello from instance 1"), "{seen:?}");
    assert!(get("127.0.0.1", 8081).expect("a page").contains("<html"));
    lab.until("the worker works", |lab| {
        (!lab.logged("worker", "OUT round 1").is_empty()).then_some(())
    });
    assert_eq!(lab.instance("worker", 0)["crash_count"], 0);
    assert_eq!(lab.ok(&["status"]).code, 0);
    lab.finish();
}

#[test]
fn a_published_port_is_spread_over_the_running_instances() {
    let lab = Lab::start("published");
    let manifest = "[run]\ninstances = 2\nmemory = \"32MiB\"\ndisk = \"32MiB\"\n\n\
                    [[port]]\ncontainer = 8080\npublish = 8000\n";
    lab.ok(&["apply", &lab.app("web", WEB, manifest)]);
    lab.until_state("web", "running");
    let seen = lab.until("both instances have answered", |_| {
        let mut seen: Vec<String> = (0..32).filter_map(|_| get("127.0.0.1", 8000)).collect();
        seen.sort();
        seen.dedup();
        (seen.len() == 2).then_some(seen)
    });
    assert!(seen[0].starts_with("instance 0") && seen[1].starts_with("instance 1"), "{seen:?}");
    lab.ok(&["scale", "web=1"]);
    lab.until("only instance 0 is left", |lab| {
        (lab.view("web")["processes"][0]["instances"].as_array()?.len() == 1).then_some(())
    });
    for _ in 0..16 {
        assert!(get("127.0.0.1", 8000).expect("an answer").starts_with("instance 0"));
    }
    lab.finish();
}

#[test]
fn crash_is_restarted_with_backoff() {
    let lab = Lab::start("crash");
    let script = "echo about to fail; exit 7\n";
    let manifest = "[run]\nmemory = \"32MiB\"\ndisk = \"32MiB\"\n\n[health]\ntype = \"process\"\n";
    lab.ok(&["apply", &lab.app("bad", script, manifest)]);
    let one = lab.until("it has crashed three times", |lab| {
        let one = lab.instance("bad", 0);
        (one["crash_count"] == 3 && one["state"] == "crashed").then_some(one)
    });
    let reason = one["crash_reason"].as_str().expect("a reason");
    assert_eq!(reason, "APP/PROC/WEB: Exited with status 7");
    // Two restarts at once, the third one waits 30 s.
    assert_eq!(lab.logged("bad", "about to fail").len(), 3);
    assert_eq!(lab.logged("bad", "starts again at once").len(), 2);
    assert_eq!(lab.logged("bad", "starts again in 30 s").len(), 1);
    assert_eq!(lab.run(&["app", "bad"]).code, 3, "an app that does not run");
    lab.finish();
}

/// Row 17: the text has the time that it had.
#[test]
fn an_app_that_never_listens_is_never_running() {
    let lab = Lab::start("deaf");
    let manifest = format!(
        "[run]\nmemory = \"32MiB\"\ndisk = \"32MiB\"\n\n{PORT}\n[health]\nstart_timeout = \"1s\"\n\
         interval = {{ unhealthy = \"100ms\", healthy = \"30s\" }}\n"
    );
    let ran = lab.run(&["apply", &lab.app("deaf", "exec sleep 1000\n", &manifest)]);
    assert_eq!(ran.code, 3, "{}", ran.err);
    let view = lab.until_state("deaf", "crashed");
    let reason = view["processes"][0]["instances"][0]["crash_reason"].as_str().expect("a reason");
    assert!(reason.starts_with("Instance never healthy after 1s: failed to make TCP"), "{reason}");
    assert!(lab.logged("deaf", "Container became healthy").is_empty());
    lab.finish();
}

#[test]
fn delete_leaves_nothing_on_the_host() {
    let lab = Lab::start("delete");
    let manifest = format!("[run]\ninstances = 3\nmemory = \"32MiB\"\ndisk = \"32MiB\"\n\n{PORT}");
    lab.ok(&["apply", &lab.app("web", WEB, &manifest)]);
    lab.until_state("web", "running");
    lab.ok(&["delete", "web"]);
    assert_eq!(lab.run(&["app", "web"]).code, 4, "no such app");
    lab.assert_empty();
    lab.finish();
}

#[test]
fn scale_stop_and_start_do_what_they_say() {
    let lab = Lab::start("scale");
    let manifest = format!("[run]\nmemory = \"32MiB\"\ndisk = \"32MiB\"\n\n{PORT}");
    lab.ok(&["apply", &lab.app("web", WEB, &manifest)]);
    lab.until_state("web", "running");
    lab.ok(&["scale", "web=3"]);
    lab.until("three run", |lab| (lab.view("web")["processes"][0]["running"] == 3).then_some(()));
    lab.ok(&["stop", "web"]);
    lab.until_state("web", "stopped");
    lab.assert_empty();
    lab.ok(&["start", "web"]);
    lab.until("three run again", |lab| {
        (lab.view("web")["processes"][0]["running"] == 3).then_some(())
    });
    let before = lab.instance("web", 0)["handle"].clone();
    lab.ok(&["restart", "web"]);
    lab.until("instance 0 is a fresh one", |lab| {
        let one = lab.instance("web", 0);
        (one["handle"] != before && one["state"] == "running").then_some(())
    });
    lab.finish();
}

/// Row 39: TERM, ten seconds, KILL.
#[test]
fn a_stop_gives_term_then_ten_seconds_then_kill() {
    let lab = Lab::start("stop");
    let manifest = "[run]\nmemory = \"32MiB\"\ndisk = \"32MiB\"\n\n[health]\ntype = \"process\"\n";
    let polite = "trap 'echo going; exit 0' TERM\necho up\nwhile :; do sleep 1 & wait; done\n";
    lab.ok(&["apply", &lab.app("polite", polite, manifest)]);
    let rude = "trap '' TERM\necho up\nwhile :; do sleep 1; done\n";
    lab.ok(&["apply", &lab.app("rude", rude, manifest)]);
    for name in ["polite", "rude"] {
        lab.until("it is up", |lab| (!lab.logged(name, "up").is_empty()).then_some(()));
    }
    assert_eq!(lab.ok(&["stop", "--no-wait", "rude"]).err, "rude: stopping\n");
    assert_eq!(lab.view("rude")["state"], "stopping");
    assert_eq!(lab.ok(&["stop", "polite", "rude"]).err, "polite: stopped\nrude: stopped\n");
    for name in ["polite", "rude"] {
        assert_eq!(lab.view(name)["state"], "stopped", "what was said is so");
    }
    lab.assert_empty();
    lab.until("both are down", |lab| {
        let down = |name: &str| !lab.logged(name, "successfully destroyed container").is_empty();
        (down("polite") && lab.logged("rude", "Exit status 137").len() == 1).then_some(())
    });
    assert_eq!(lab.logged("polite", "going").len(), 1);
    assert_eq!(lab.logged("rude", "(exceeded 10s graceful shutdown interval)").len(), 1);
    lab.finish();
}

#[test]
fn apps_survive_a_restart_of_the_daemon() {
    let mut lab = Lab::start("survive");
    let script = WEB.replace(
        "exec busybox",
        "(n=0; while :; do n=$((n+1)); echo \"line $n\"; sleep 0.1; done) &\nexec busybox",
    );
    let manifest = format!("[run]\nmemory = \"32MiB\"\ndisk = \"32MiB\"\n\n{PORT}");
    lab.ok(&["apply", &lab.app("web", &script, &manifest)]);
    lab.until_state("web", "running");
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        let before = lab.instance("web", 0);
        let port = before["ports"][0]["host"].as_u64().expect("a host port");
        lab.end_daemon(signal);
        assert!(get("127.0.0.1", port).is_some(), "the app goes on without the daemon");
        lab.serve();
        let after = lab.instance("web", 0);
        assert_eq!(after["handle"], before["handle"], "{}", lab.daemon_log());
        assert_eq!(after["since_ms"], before["since_ms"], "it runs since then");
        assert!(get("127.0.0.1", port).is_some());
        assert_eq!(lab.view("web")["state"], "running");
        let last = lab.logged("web", "line ").len();
        lab.until("new lines arrive", |lab| {
            (lab.logged("web", "line ").len() > last).then_some(())
        });
    }
    // Nothing of what it wrote without a daemon is lost, nothing is there twice.
    let lines = lab.logged("web", "OUT line ");
    for (n, line) in lines.iter().enumerate() {
        assert!(line.ends_with(&format!("line {}", n + 1)), "{n}: {line}");
    }
    lab.finish();
}

/// The depot directory of an app's first instance.
fn depot_dir(lab: &Lab, app: &str) -> std::path::PathBuf {
    let handle = lab.instance(app, 0)["handle"].as_str().expect("a handle").to_owned();
    lab.root.join("var/lib/terrarium/depot").join(handle)
}

/// The pid 1 of the container whose directory this is, as the box numbers it.
fn first_process(dir: &std::path::Path) -> nix::unistd::Pid {
    let entry = std::fs::read_to_string(dir.join("container.json")).expect("depot entry");
    let entry: serde_json::Value = serde_json::from_str(&entry).expect("JSON");
    nix::unistd::Pid::from_raw(entry["pid"][0].as_i64().expect("pid 1") as i32)
}

/// The instance of `web` is not touched while it cannot be worked with, and the only one.
fn is_let_be(lab: &Lab, before: &serde_json::Value) {
    let log = lab.daemon_log();
    assert!(log.contains("container.lost") && !log.contains("container.swept"), "{log}");
    let now = lab.instance("web", 0);
    assert_eq!((&now["handle"], &now["state"]), (&before["handle"], &before["state"]), "{log}");
    let depot = std::fs::read_dir(lab.root.join("var/lib/terrarium/depot")).expect("depot");
    assert_eq!(depot.count(), 1, "there is no other one");
    let port = before["ports"][0]["host"].as_u64().expect("a host port");
    assert!(get("127.0.0.1", port).is_some(), "it goes on");
}

/// It can be worked with again.
fn is_found_again(lab: &Lab, before: &serde_json::Value) {
    lab.until("it is found again", |lab| {
        (lab.run(&["exec", "web", "--", "true"]).code == 0).then_some(())
    });
    let after = lab.instance("web", 0);
    for kept in ["handle", "since_ms", "crash_count"] {
        assert_eq!(after[kept], before[kept], "{kept}");
    }
}

#[test]
fn an_instance_whose_first_process_is_stopped_survives_a_restart_of_the_daemon() {
    let mut lab = Lab::start("halted");
    let manifest = format!("[run]\nmemory = \"32MiB\"\ndisk = \"32MiB\"\n\n{PORT}");
    lab.ok(&["apply", &lab.app("web", WEB, &manifest)]);
    lab.until_state("web", "running");
    let before = lab.instance("web", 0);
    let pid = first_process(&depot_dir(&lab, "web"));
    lab.end_daemon(Signal::SIGKILL);
    nix::sys::signal::kill(pid, Signal::SIGSTOP).expect("stop");
    lab.serve();
    is_let_be(&lab, &before);
    nix::sys::signal::kill(pid, Signal::SIGCONT).expect("continue");
    is_found_again(&lab, &before);
    // It does not keep anybody from deleting its app.
    lab.end_daemon(Signal::SIGKILL);
    nix::sys::signal::kill(pid, Signal::SIGSTOP).expect("stop");
    lab.serve();
    is_let_be(&lab, &before);
    lab.ok(&["delete", "web"]);
    lab.finish();
}

#[test]
fn an_instance_whose_entry_cannot_be_read_survives_a_restart_of_the_daemon() {
    let mut lab = Lab::start("unread");
    let manifest = format!("[run]\nmemory = \"32MiB\"\ndisk = \"32MiB\"\n\n{PORT}");
    lab.ok(&["apply", &lab.app("web", WEB, &manifest)]);
    lab.until_state("web", "running");
    let before = lab.instance("web", 0);
    let dir = depot_dir(&lab, "web");
    let (entry, aside) = (dir.join("container.json"), dir.join("aside"));
    lab.end_daemon(Signal::SIGKILL);
    std::fs::rename(&entry, &aside).expect("rename");
    // Any error but its absence.
    std::fs::create_dir(&entry).expect("mkdir");
    lab.serve();
    is_let_be(&lab, &before);
    std::fs::remove_dir(&entry).expect("rmdir");
    std::fs::rename(&aside, &entry).expect("rename");
    is_found_again(&lab, &before);
    lab.finish();
}

#[test]
fn what_died_while_the_daemon_was_away_is_started_again() {
    let mut lab = Lab::start("died");
    let manifest = format!("[run]\nmemory = \"32MiB\"\ndisk = \"32MiB\"\n\n{PORT}");
    lab.ok(&["apply", &lab.app("web", WEB, &manifest)]);
    lab.until_state("web", "running");
    let before = lab.instance("web", 0)["handle"].clone();
    lab.end_daemon(Signal::SIGKILL);
    let entry = lab.root.join("var/lib/terrarium/depot").join(before.as_str().expect("a handle"));
    let entry = std::fs::read_to_string(entry.join("container.json")).expect("depot entry");
    let entry: serde_json::Value = serde_json::from_str(&entry).expect("JSON");
    let pid = entry["pid"][0].as_i64().expect("pid 1") as i32;
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), Signal::SIGKILL).expect("kill");
    lab.serve();
    lab.until("a fresh instance runs", |lab| {
        let one = lab.instance("web", 0);
        (one["state"] == "running" && one["handle"] != before).then_some(())
    });
    lab.finish();
}

#[test]
fn what_a_killed_daemon_was_removing_is_removed_by_the_next() {
    let mut lab = Lab::start("leaving");
    let manifest = "[run]\ninstances = 6\nmemory = \"32MiB\"\ndisk = \"32MiB\"\n\n\
                    [health]\ntype = \"process\"\n";
    let app = lab.app("web", "exec sleep 1000\n", manifest);
    let state = lab.root.join("var/lib/terrarium");
    let count = |dir: &str| std::fs::read_dir(state.join(dir)).expect(dir).count();
    // A disk is gone, and its container's entry is not: of that one only the links are left.
    let leaves = || count("store/containers") < count("depot");
    // On a busy box we may come too late to kill it in between.
    let caught = (0..5).any(|_| {
        lab.ok(&["apply", &app]);
        lab.until_state("web", "running");
        let mut delete = lab.command(&["delete", "web"]).spawn().expect("delete");
        let begin = std::time::Instant::now();
        while !leaves() && count("depot") > 0 {
            assert!(begin.elapsed() < std::time::Duration::from_secs(60), "nothing leaves");
            std::thread::yield_now();
        }
        lab.end_daemon(Signal::SIGKILL);
        delete.wait().expect("its end");
        let caught = leaves();
        lab.serve();
        // It may have died before the app's record was gone, too.
        lab.run(&["delete", "web"]);
        lab.assert_empty();
        caught
    });
    assert!(caught, "it never died while containers left");
    lab.finish();
}

/// Row 93: one store has one daemon.
#[test]
fn second_daemon_refuses() {
    let lab = Lab::start("second");
    let ran = lab.run(&["serve"]);
    assert_eq!(ran.code, 1);
    let pid = lab.daemon_pid().to_string();
    assert!(ran.err.contains(&format!("process {pid},")), "{}", ran.err);
    lab.ok(&["apps"]);
    lab.finish();
}

#[test]
fn an_app_that_writes_without_end_does_not_stop_the_daemon() {
    let lab = Lab::start("noisy");
    let manifest = "[run]\nmemory = \"32MiB\"\ndisk = \"32MiB\"\n\n[health]\ntype = \"process\"\n\n\
                    [log]\nrate = \"none\"\n";
    lab.ok(&["apply", "--no-wait", &lab.app("noisy", "exec yes\n", manifest)]);
    lab.until("it has written a lot", |lab| {
        let older = lab.root.join("var/lib/terrarium/logs/noisy.log");
        (std::fs::metadata(older).ok()?.len() > 1 << 20).then_some(())
    });
    for _ in 0..5 {
        let begin = std::time::Instant::now();
        lab.ok(&["app", "noisy"]);
        let took = begin.elapsed();
        assert!(took < std::time::Duration::from_secs(3), "{took:?}");
    }
    lab.finish();
}

#[test]
fn the_daemon_ends_while_somebody_waits_for_a_deletion() {
    let mut lab = Lab::start("leaving");
    let manifest = "[run]\nmemory = \"32MiB\"\ndisk = \"32MiB\"\n\n[health]\ntype = \"process\"\n";
    let rude = "trap '' TERM\necho up\nwhile :; do sleep 1; done\n";
    let file = lab.declare("rude", &lab.app("rude", rude, manifest));
    lab.until("it is up", |lab| (!lab.logged("rude", "up").is_empty()).then_some(()));
    // The daemon itself waits, on the thread that everything runs on.
    std::fs::remove_file(&file).expect("remove the manifest");
    lab.until_state("rude", "deleting");
    let begin = std::time::Instant::now();
    lab.end_daemon(Signal::SIGTERM);
    assert!(begin.elapsed() < std::time::Duration::from_secs(5), "{:?}", begin.elapsed());
    // The wish was recorded: the next daemon fulfils it.
    lab.serve();
    lab.until("it is gone", |lab| (lab.run(&["app", "rude"]).code == 4).then_some(()));
    lab.finish();
}

#[test]
fn a_start_right_after_a_stop_is_the_last_word() {
    let lab = Lab::start("again");
    let manifest = format!("[run]\nmemory = \"32MiB\"\ndisk = \"32MiB\"\n\n{PORT}");
    lab.ok(&["apply", "--no-wait", &lab.app("web", WEB, &manifest)]);
    lab.until("it is staged", |lab| {
        (!lab.logged("web", "Cell creating container for web-stage").is_empty()).then_some(())
    });
    lab.ok(&["stop", "web"]);
    lab.ok(&["start", "web"]);
    lab.until_state("web", "running");
    assert!(lab.logged("web", "Staging failed").is_empty());
    lab.finish();
}

#[test]
fn a_mended_app_is_not_blamed_for_the_crash_of_the_one_before() {
    let lab = Lab::start("mended");
    let manifest = "[run]\nmemory = \"32MiB\"\ndisk = \"32MiB\"\n\n[health]\ntype = \"process\"\n\n\
                    [restart]\npolicy = \"never\"\n";
    lab.run(&["apply", &lab.app("app", "exit 7\n", manifest)]);
    lab.until_state("app", "crashed");
    lab.ok(&["apply", &lab.app("app", "echo fine; exec sleep 1000\n", manifest)]);
    assert_eq!(lab.view("app")["state"], "running");
    lab.finish();
}

#[test]
fn a_published_port_takes_nothing_from_anybody() {
    let lab = Lab::start("taken");
    let app = |port: u16| {
        let manifest = format!("[[port]]\ncontainer = 8080\npublish = {port}\n");
        lab.run(&["apply", &lab.app("web", WEB, &manifest)])
    };
    let service = std::net::TcpListener::bind(("127.0.0.1", 8000)).expect("listen");
    let ran = app(8000);
    assert_eq!(ran.code, 9, "{}", ran.err);
    assert!(
        ran.err.contains("port 8000") && ran.err.contains("program of this box"),
        "{}",
        ran.err
    );
    drop(service);
    let ran = app(61005);
    assert_eq!(ran.code, 5, "{}", ran.err);
    assert!(ran.err.contains("[net] ports"), "{}", ran.err);
    lab.finish();
}

#[test]
fn last_words_and_a_crash_without_the_daemon_are_heard_by_the_next_one() {
    let mut lab = Lab::start("words");
    let manifest = "[run]\nmemory = \"32MiB\"\ndisk = \"32MiB\"\n\n[health]\ntype = \"process\"\n";
    let script = "echo up; sleep 2; echo last words; exit 7\n";
    lab.ok(&["apply", &lab.app("app", script, manifest)]);
    lab.until("it is up", |lab| (!lab.logged("app", "up").is_empty()).then_some(()));
    lab.end_daemon(Signal::SIGKILL);
    std::thread::park_timeout(std::time::Duration::from_secs(4));
    lab.serve();
    lab.until("it is started again", |lab| (lab.logged("app", "up").len() > 1).then_some(()));
    let log = lab.run(&["logs", "app", "-n", "1000"]).out;
    let at = |text: &str| log.find(text).unwrap_or_else(|| panic!("no {text:?} in\n{log}"));
    assert!(at("last words") < at("Exit status 7"), "{log}");
    assert!(at("Exit status 7") < at("starts again at once"), "{log}");
    assert!(lab.instance("app", 0)["crash_count"].as_u64() >= Some(1));
    lab.finish();
}

#[test]
fn a_published_port_leads_nowhere_while_what_died_without_the_daemon_is_made_again() {
    let mut lab = Lab::start("stale");
    let manifest = "[run]\nmemory = \"32MiB\"\ndisk = \"32MiB\"\n\n\
                    [[port]]\ncontainer = 8080\npublish = 8000\n";
    lab.ok(&["apply", &lab.app("web", &format!("sleep 3\n{WEB}"), manifest)]);
    lab.until("it answers", |_| get("127.0.0.1", 8000));
    let before = lab.instance("web", 0)["handle"].clone();
    lab.end_daemon(Signal::SIGKILL);
    let entry = lab.root.join("var/lib/terrarium/depot").join(before.as_str().expect("a handle"));
    let entry = std::fs::read_to_string(entry.join("container.json")).expect("depot entry");
    let entry: serde_json::Value = serde_json::from_str(&entry).expect("JSON");
    let pid = entry["pid"][0].as_i64().expect("pid 1") as i32;
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), Signal::SIGKILL).expect("kill");
    lab.serve();
    let rules = lab.until("a fresh instance is on its way", |lab| {
        let one = lab.instance("web", 0);
        assert_ne!(one["handle"], before, "{one}");
        (one["state"] == "starting" && !one["handle"].is_null())
            .then(|| super::lab::tool("nft", &["list", "ruleset"]))
    });
    assert!(!rules.contains("8000"), "{rules}");
    lab.until("it answers again", |_| get("127.0.0.1", 8000));
    lab.finish();
}

#[test]
fn a_staging_that_ended_with_the_daemon_is_done_by_the_next_one() {
    let mut lab = Lab::start("halfway");
    let manifest = format!("[run]\nmemory = \"32MiB\"\ndisk = \"32MiB\"\n\n{PORT}");
    let steps = [
        ("one", Signal::SIGTERM, "Cell creating container"),
        ("two", Signal::SIGKILL, "Cell creating container"),
        ("three", Signal::SIGTERM, "Cell successfully created container"),
        ("four", Signal::SIGTERM, "Cell destroying container"),
        // From here on its droplet is imported, which takes a while as it is large and cannot be packed.
        ("five", Signal::SIGTERM, "Cell successfully destroyed container"),
        ("six", Signal::SIGKILL, "Cell successfully destroyed container"),
    ];
    for (name, signal, step) in steps {
        let app = lab.app(name, WEB, &manifest);
        let mut noise = std::fs::File::open("/dev/urandom").expect("open noise").take(8 << 20);
        let source = lab.root.join("src").join(name).join("noise");
        let mut to = std::fs::File::create(source).expect("make the source large");
        std::io::copy(&mut noise, &mut to).expect("write noise");
        lab.ok(&["apply", "--no-wait", &app]);
        let log = lab.root.join(format!("var/lib/terrarium/logs/{name}.log"));
        lab.until(&format!("its log says `{step}`"), |_| {
            std::fs::read_to_string(&log).ok()?.contains(step).then_some(())
        });
        lab.end_daemon(signal);
        lab.serve();
        lab.until_state(name, "running");
        lab.ok(&["delete", name]);
    }
    lab.finish();
}

#[test]
fn a_daemon_at_rest_is_not_woken_at_all() {
    let lab = Lab::start("rest");
    let manifest = "[run]\ninstances = 2\nmemory = \"32MiB\"\ndisk = \"32MiB\"\n\n\
                    [health]\ntype = \"process\"\n";
    lab.ok(&["apply", &lab.app("quiet", "exec sleep 1000\n", manifest)]);
    lab.until_state("quiet", "running");
    let switches = || -> std::collections::BTreeMap<String, String> {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", lab.daemon_pid())).expect("tasks");
        let of = |task: std::fs::DirEntry| {
            let status = std::fs::read_to_string(task.path().join("status")).unwrap_or_default();
            let field = |key| status.lines().find_map(|line| line.strip_prefix(key));
            let name = format!("{:?} {}", task.file_name(), field("Name:").unwrap_or_default());
            (name, field("voluntary_ctxt_switches:").unwrap_or_default().trim().to_owned())
        };
        tasks.flatten().map(of).collect()
    };
    // The threads of the pool wait for more work for a moment before they end.
    lab.until("nothing has woken it for three seconds", |_| {
        let before = switches();
        std::thread::park_timeout(std::time::Duration::from_secs(3));
        (switches() == before).then_some(())
    });
    lab.finish();
}

#[test]
fn a_job_that_is_done_is_finished_and_nothing_is_wrong() {
    let lab = Lab::start("job");
    let manifest = |policy: &str| {
        format!(
            "[run]\nmemory = \"32MiB\"\ndisk = \"32MiB\"\n\n[health]\ntype = \"process\"\n\n\
             [restart]\npolicy = \"{policy}\"\n"
        )
    };
    for policy in ["never", "on-failure"] {
        let ran = lab.ok(&["apply", &lab.app(policy, "echo done\n", &manifest(policy))]);
        assert_eq!(lab.until_state(policy, "finished")["state"], "finished", "{}", ran.out);
        let one = lab.instance(policy, 0);
        assert_eq!((&one["state"], &one["crash_count"]), (&"finished".into(), &0.into()));
        assert_eq!(one["crash_reason"], "Exited with status 0");
    }
    lab.ok(&["app", "never"]);
    lab.ok(&["status"]);
    // It can be run once more, and ends its `run` too.
    lab.ok(&["start", "never"]);
    lab.until("it ran again", |lab| (lab.logged("never", "OUT done").len() == 2).then_some(()));
    let ran = lab.ok(&["run", &lab.app("once", "echo done\n", &manifest("never"))]);
    assert!(ran.err.contains("once: finished"), "{}", ran.err);

    // One that fails after it ran is no success, and its log and its `run` have an end as well.
    let bad = lab.app("bad", "echo on my way; sleep 1; exit 3\n", &manifest("never"));
    let ran = lab.run(&["run", &bad]);
    assert_eq!(ran.code, 3, "{}", ran.err);
    assert!(ran.err.contains("bad: APP/PROC/WEB: Exited with status 3\n"), "{}", ran.err);
    lab.run(&["apply", &bad]);
    assert!(lab.run(&["logs", "-f", "bad"]).out.contains("does not start again by itself"));
    assert_eq!(lab.view("bad")["state"], "crashed");
    assert_eq!(lab.run(&["status"]).code, 3);
    lab.finish();
}
