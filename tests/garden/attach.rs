//! Many clients of one process, also across a daemon that was killed.

use super::client::{eventually, shell};
use super::lab::get;
use super::place::{EXTERNAL, Garden};
use nix::sys::signal::Signal;
use serde_json::json;

#[test]
fn every_client_gets_all_output_from_its_attach_on_and_the_same_status() {
    let garden = Garden::start("many");
    let c = garden.make("c");
    let script = "while read line; do echo \"got $line\"; echo \"err $line\" >&2; done; exit 11";
    let mut first = garden.run(&c, &shell(script));
    first.stdin("one\n");
    assert_eq!(first.line(), "got one");
    let mut others: Vec<_> = (0..5).map(|_| garden.attach(&c, &first.id)).collect();
    let mut streams: Vec<String> = others.iter().map(|other| other.stream.clone()).collect();
    streams.push(first.stream.clone());
    streams.sort();
    streams.dedup();
    assert_eq!(streams.len(), 6, "a stream of its own for each");
    for (n, other) in others.iter_mut().enumerate() {
        other.stdin(&format!("{n}\n"));
        assert_eq!(first.line(), format!("got {n}"));
    }
    first.stdin("last\n");
    assert_eq!(first.line(), "got last");
    // Who leaves closes stdin, as Go's server has it, and takes nothing else away.
    drop(others.pop());
    let ended = first.finish();
    assert_eq!((ended.status, ended.out.as_str()), (11, ""));
    for other in others {
        let ended = other.finish();
        assert_eq!(ended.status, 11);
        assert_eq!(ended.out, "got 0\ngot 1\ngot 2\ngot 3\ngot 4\ngot last\n");
        assert!(ended.err.ends_with("err 4\nerr last\n"), "{ended:?}");
    }
    garden.finish();
}

#[test]
fn one_control_connection_may_close_and_others_are_not_disturbed() {
    let garden = Garden::start("closes");
    let c = garden.make("c");
    let script = "trap 'echo term; exit 2' TERM; echo up; while :; do sleep 1 & wait; done";
    let mut first = garden.run(&c, &shell(script));
    assert_eq!(first.line(), "up");
    let mut second = garden.attach(&c, &first.id);
    drop(first);
    second.signal(0);
    let ended = second.finish();
    assert_eq!((ended.status, ended.out.as_str()), (2, "term\n"));
    garden.finish();
}

#[test]
fn everything_is_there_after_the_daemon_was_killed() {
    let mut garden = Garden::start("survives");
    garden.create(&json!({"handle": "c", "properties": {"record": "{\"a\":1}"},
        "env": ["A=1"], "netin": [{"host_port": 0, "container_port": 8080}],
        "limits": {"memory_limits": {"limit_in_bytes": 64 << 20}}}));
    garden.does("PUT", "/containers/c/properties/late", Some(&json!({"value": "set"})));
    let port = garden.ok("POST", "/containers/c/net/in", Some(&json!({"container_port": 8080})));
    let server = "mkdir /tmp/w; echo served > /tmp/w/index.html; exec httpd -f -p 8080 -h /tmp/w";
    let server = garden.run("c", &shell(server)).id.clone();
    let script = "n=0; while read line; do n=$((n+1)); echo \"$n $line\"; done; exit 9";
    let mut talker = garden.run("c", &shell(script));
    talker.stdin("before\n");
    assert_eq!(talker.line(), "1 before");
    let before = garden.info("c");
    for signal in [Signal::SIGKILL, Signal::SIGTERM] {
        garden.end(signal);
        let mapped = before["MappedPorts"][0]["HostPort"].as_u64().expect("a port");
        eventually("it serves without the daemon", || get(EXTERNAL, mapped));
        assert_eq!(talker.control.rest(), b"", "let go without an exit line");
        garden.serve();
        assert_eq!(garden.list("?record=%7B%22a%22%3A1%7D&late=set"), ["c"]);
        let after = garden.info("c");
        for field in ["State", "HostIP", "ContainerIP", "ExternalIP", "MappedPorts", "Properties"] {
            assert_eq!(after[field], before[field], "{field}");
        }
        let late = port["host_port"].as_u64().expect("a port");
        assert_eq!(get(EXTERNAL, late).expect("it serves"), "served\n");
        let limit = garden.get("/containers/c/limits/memory");
        assert_eq!(limit, json!({"limit_in_bytes": 64 << 20}));
        assert_eq!(garden.says("c", "echo $A"), "1");
        talker = garden.attach("c", &talker.id);
        let http = garden.attach("c", &server);
        http.control.half_close();
        garden.create(&json!({"handle": "other"}));
        assert_ne!(garden.info("other")["ContainerIP"], before["ContainerIP"]);
        garden.destroy("other");
    }
    talker.signal(1);
    assert_eq!(talker.finish().status, 137);
    garden.finish();
}

#[test]
fn output_and_end_that_nobody_heard_are_kept() {
    let mut garden = Garden::start("unheard");
    garden.make("c");
    let script = "while [ ! -e /tmp/go ]; do sleep 0.1; done; echo said; exit 12";
    let process = garden.run("c", &shell(script));
    let id = process.id.clone();
    let go = shell("while [ ! -e /tmp/gone ]; do sleep 0.1; done; touch /tmp/go");
    garden.run("c", &go);
    garden.says("c", "touch /tmp/gone");
    garden.restart(Signal::SIGKILL);
    assert_eq!(garden.attach("c", &id).finish().status, 12);
    garden.finish();
}

#[test]
fn what_a_killed_daemon_had_read_of_an_ended_process_is_not_missing_in_silence() {
    let mut garden = Garden::start("unsaid");
    garden.make("c");
    let script = "while [ ! -e /tmp/go ]; do sleep 0.1; done; echo said; exit 12";
    let starter = garden.run("c", &shell(script));
    let id = starter.id.clone();
    // The next daemon reads what it says, and nobody asks that one.
    garden.restart(Signal::SIGKILL);
    drop(starter);
    garden.says("c", "touch /tmp/go");
    let depot = garden.lab().root.join("var/lib/terrarium/depot");
    eventually("it has ended", || {
        let container = std::fs::read_dir(&depot).ok()?.flatten().next()?.path();
        let mut files = std::fs::read_dir(container.join("init")).ok()?.flatten();
        let said = |text: String| text.contains("12");
        let is_end = |path: &std::path::Path| path.extension().is_some_and(|end| end == "exit");
        files
            .any(|file| {
                is_end(&file.path()) && std::fs::read_to_string(file.path()).is_ok_and(said)
            })
            .then_some(())
    });
    garden.restart(Signal::SIGKILL);
    let late = garden.attach("c", &id).finish();
    assert_eq!(late.status, 12);
    assert!(late.out.contains("output may be missing here"), "{:?}", late.out);
    garden.finish();
}

#[test]
fn what_was_written_without_a_daemon_waits_for_whoever_attaches_first() {
    let mut garden = Garden::start("spooled");
    garden.make("c");
    let script = "touch /tmp/waits-for-go; while [ ! -e /tmp/go ]; do sleep 0.1; done; \
                  echo said; echo low >&2; read line; echo $line; exit 12";
    // Its end would be that of the input.
    let starter = garden.run("c", &shell(script));
    let id = starter.id.clone();
    garden.says("c", "while [ ! -e /tmp/waits-for-go ]; do sleep 0.1; done");
    garden.end(Signal::SIGKILL);
    let depot = garden.lab().root.join("var/lib/terrarium/depot");
    for item in std::fs::read_dir("/proc").expect("proc").flatten() {
        let tmp = item.path().join("root/tmp");
        if tmp.join("waits-for-go").exists() {
            std::fs::write(tmp.join("go"), "").expect("go");
        }
    }
    eventually("pid 1 has kept it", || {
        let container = std::fs::read_dir(&depot).ok()?.flatten().next()?.path();
        let spools = std::fs::read_dir(container.join("init")).ok()?.flatten();
        let kept = spools.filter_map(|item| std::fs::read_to_string(item.path()).ok());
        kept.into_iter().any(|text| text == "low\n").then_some(())
    });
    // Nobody attaches to this daemon.
    garden.serve();
    garden.restart(Signal::SIGTERM);
    let mut process = garden.attach("c", &id);
    let mut other = garden.attach("c", &id);
    assert_eq!(process.line(), "said");
    process.stdin("more\n");
    assert_eq!((process.line(), other.line()), ("more".into(), "more".into()));
    let (first, second) = (process.finish(), other.finish());
    assert_eq!((first.status, first.err.as_str(), second.err.as_str()), (12, "low\n", ""));
    drop(starter);
    garden.finish();
}
