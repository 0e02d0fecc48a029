//! Stop, destroy and grace time.

use super::client::{container, eventually, hijack, shell};
use super::place::Garden;
use super::wire::Wire;
use nix::sys::signal::Signal;
use serde_json::json;
use std::time::{Duration, Instant};

const POLITE: &str = "trap 'echo going; exit 5' TERM; echo up; while :; do sleep 1 & wait; done";
const RUDE: &str = "trap '' TERM; echo up; while :; do sleep 1; done";

#[test]
fn a_stop_gives_term_and_then_kill() {
    let garden = Garden::start("stopterm");
    garden.make("c");
    let [mut polite, mut rude] = [POLITE, RUDE].map(|script| garden.run("c", &shell(script)));
    assert_eq!(polite.line(), "up");
    assert_eq!(rude.line(), "up");
    garden.does("PUT", "/containers/c/stop", Some(&json!({"kill": false})));
    let ended = polite.finish();
    assert_eq!((ended.status, ended.out.as_str()), (5, "going\n"));
    assert_eq!(rude.finish().status, 137);
    assert_eq!(garden.info("c")["State"], "stopped");
    garden.does("PUT", "/containers/c/stop", Some(&json!({"kill": false})));
    assert_eq!(garden.list(""), ["c"], "it stands until it is destroyed");
    garden.finish();
}

#[test]
fn a_stop_by_kill_asks_nobody() {
    let garden = Garden::start("stopkill");
    garden.make("c");
    let mut polite = garden.run("c", &shell(POLITE));
    assert_eq!(polite.line(), "up");
    garden.does("PUT", "/containers/c/stop", Some(&json!({"kill": true})));
    let ended = polite.finish();
    assert_eq!((ended.status, ended.out.as_str()), (137, ""));
    assert_eq!(garden.info("c")["State"], "stopped");
    garden.finish();
}

#[test]
fn destroy_tells_every_client_before_it_closes() {
    let garden = Garden::start("told");
    garden.make("c");
    let mut first = garden.run("c", &shell(POLITE));
    assert_eq!(first.line(), "up");
    let second = garden.attach("c", &first.id);
    let mut reader = Wire::dial(&garden.socket);
    garden.says("c", "dd if=/dev/zero of=/tmp/big bs=1M count=32 2>/dev/null");
    reader.send(b"GET /containers/c/files?source=%2Ftmp%2Fbig HTTP/1.1\r\nHost: api\r\n\r\n");
    reader.exactly(1000);
    garden.destroy("c");
    for process in [first, second] {
        let ended = process.finish();
        assert_eq!((ended.status, ended.out.as_str()), (137, ""));
    }
    // The broken stream ends in whatever way, within a bound.
    reader.rest();
    let (status, kind, _) = garden.fails("GET", "/containers/c/info", None);
    assert_eq!((status, kind.as_str()), (404, "ContainerNotFoundError"));
    garden.finish();
}

#[test]
fn of_many_that_destroy_one_wins_and_the_others_are_told_why() {
    let garden = Garden::start("twice");
    for round in 0..5 {
        let handle = format!("c{round}");
        garden.make(&handle);
        garden.run_bare(&handle, &shell(RUDE));
        let answers: Vec<_> = std::thread::scope(|scope| {
            let ask = || garden.call("DELETE", &container(&handle, ""), None);
            let asked: Vec<_> = (0..8).map(|_| scope.spawn(ask)).collect();
            asked.into_iter().map(|one| one.join().expect("no panic")).collect()
        });
        let won = answers.iter().filter(|answer| answer.status() == 200).count();
        assert_eq!(won, 1, "{answers:?}");
        for answer in answers.iter().filter(|answer| answer.status() != 200) {
            let (kind, message) = answer.error();
            let busy = message == "container already being destroyed" && answer.status() == 500;
            assert!(busy || kind == "ContainerNotFoundError", "{message}");
        }
    }
    assert_eq!(garden.list(""), [""; 0]);
    garden.finish();
}

#[test]
fn calls_on_one_container_do_not_wait_for_each_other() {
    let garden = Garden::start("concurrent");
    garden.make("c");
    let mut rude = garden.run("c", &shell(RUDE));
    assert_eq!(rude.line(), "up");
    let mut stop = Wire::dial(&garden.socket);
    let request = hijack("PUT", "/containers/c/stop", Some("{\"kill\":false}"));
    stop.send(request.as_bytes());
    // The stop takes its ten seconds meanwhile: had these waited, the process would be gone.
    assert_eq!(garden.info("c")["State"], "active");
    garden.does("PUT", "/containers/c/properties/k", Some(&json!({"value": "v"})));
    garden.get("/containers/c/metrics");
    let running = garden.info("c")["State"] == "active";
    assert!(running, "an answer came while the stop was under way");
    assert_eq!(stop.answer().status(), 200);
    assert_eq!(rude.finish().status, 137);
    garden.finish();
}

#[test]
fn a_container_that_nobody_asks_for_is_destroyed() {
    let garden = Garden::start("graceend");
    garden.create(&json!({"handle": "c", "grace_time": 1_000_000_000u64}));
    garden.make("for ever");
    // Lists, pings and bulk calls do not touch it.
    eventually("its time is up", || {
        garden.get("/ping");
        garden.get("/containers/bulk_info?handles=c");
        garden.get("/containers/bulk_metrics?handles=c");
        (garden.list("") == ["for ever"]).then_some(())
    });
    garden.finish();
}

#[test]
fn a_request_in_progress_holds_the_countdown() {
    let garden = Garden::start("graceheld");
    garden.make("c");
    garden.create(&json!({"handle": "clock", "grace_time": 4_000_000_000u64}));
    let mut held = garden.run("c", &shell("cat"));
    garden.does("PUT", "/containers/c/grace_time", Some(&json!(500_000_000u64)));
    // Another container's longer time ends: the shorter one would have, too.
    eventually("the clock has run down", || {
        (!garden.list("").contains(&"clock".to_owned())).then_some(())
    });
    assert_eq!(garden.list(""), ["c"]);
    held.stdin("still here\n");
    assert_eq!(held.line(), "still here");
    drop(held);
    eventually("its time is up", || garden.list("").is_empty().then_some(()));
    garden.finish();
}

#[test]
fn a_grace_time_is_a_bare_number_and_zero_is_never() {
    let garden = Garden::with("gracenone", "grace_time = \"2s\"");
    garden.make("short");
    garden.make("kept");
    garden.does("PUT", "/containers/kept/grace_time", Some(&json!(0)));
    eventually("the default's time is up", || (garden.list("") == ["kept"]).then_some(()));
    let body = json!({"grace_time": 5});
    let (status, kind, _) = garden.fails("PUT", "/containers/kept/grace_time", Some(&body));
    assert_eq!((status, kind.as_str()), (500, ""));
    garden.finish();
}

#[test]
fn countdowns_start_anew_with_the_daemon() {
    let mut garden = Garden::start("gracenew");
    garden.create(&json!({"handle": "c", "grace_time": 3_000_000_000u64}));
    garden.restart(nix::sys::signal::Signal::SIGKILL);
    assert_eq!(garden.list(""), ["c"]);
    eventually("its time is up", || garden.list("").is_empty().then_some(()));
    garden.finish();
}

#[test]
fn a_half_made_container_leaves_nothing() {
    let garden = Garden::start("halfmade");
    let bad = json!({"handle": "c", "netin": [{"host_port": 99999, "container_port": 1}]});
    garden.create_fails(&bad);
    let bad = json!({"handle": "c", "bind_mounts": [{"src_path": "/no/such", "dst_path": "/x"}]});
    garden.create_fails(&bad);
    // Whoever goes away while a container is made gets none, or a whole one.
    for n in 0..5 {
        let mut wire = Wire::dial(&garden.socket);
        let body = format!("{{\"handle\":\"gone{n}\"}}");
        wire.send(hijack("POST", "/containers", Some(&body)).as_bytes());
        drop(wire);
    }
    garden.make("c");
    let depot = garden.lab().root.join("var/lib/terrarium/depot");
    eventually("what was begun is there, or taken back", || {
        let all = std::fs::read_dir(&depot).expect("depot").count();
        (all == garden.list("").len()).then_some(())
    });
    for handle in garden.list("") {
        assert_eq!(garden.says(&handle, "echo whole"), "whole");
    }
    garden.finish();
}

#[test]
fn a_daemon_whose_program_is_replaced_makes_containers_by_its_own() {
    let mut garden = Garden::start("replaced");
    // As a package does it: another file of that name. This one is no program at all.
    let file = garden.lab().root.join("terrarium");
    std::fs::copy(super::lab::BINARY, &file).expect("copy");
    garden.end(Signal::SIGTERM);
    garden.run_from(&file);
    garden.serve();
    let update = file.with_extension("new");
    std::fs::write(&update, "an update\n").expect("write");
    std::fs::rename(&update, &file).expect("replace");
    garden.make("c");
    assert_eq!(garden.says("c", "cat /proc/1/comm"), "terrarium");
    // Our own program inside, too.
    assert_eq!(garden.call("GET", "/containers/c/files?source=%2Fetc", None).head.status, 200);
    garden.finish();
}

#[test]
fn a_daemon_that_rests_lets_go_of_the_program() {
    let garden = Garden::start("calm");
    let daemon = garden.lab().daemon_pid();
    // KiB of the program's file, but for what was written to.
    let mapped = || -> u64 {
        let smaps = std::fs::read_to_string(format!("/proc/{daemon}/smaps")).expect("smaps");
        let mut counts = false;
        let mut sum = 0;
        for line in smaps.lines() {
            let words: Vec<_> = line.split_ascii_whitespace().collect();
            match words[..] {
                [range, rights, ..] if !range.ends_with(':') => {
                    counts = line.ends_with("/terrarium") && !rights.contains('w');
                }
                ["Rss:", kib, ..] if counts => sum += kib.parse::<u64>().expect("a number"),
                _ => {}
            }
        }
        sum
    };
    let mut most = 0;
    let mut made = Instant::now();
    garden.make("c");
    eventually("it rests", || {
        // Again, as a slow machine may let it rest before it is looked at.
        if made.elapsed() > Duration::from_secs(5) {
            garden.destroy("c");
            garden.make("c");
            made = Instant::now();
        }
        let now = mapped();
        most = most.max(now);
        (now * 2 < most).then_some(())
    });
    assert_eq!(garden.says("c", "echo awake"), "awake");
    garden.finish();
}
