//! The three connections of a process, byte for byte.

use super::client::{Process, hijack, shell};
use super::place::Garden;
use super::wire::{Head, Wire};
use serde_json::json;
use std::fmt::Write;

/// Compares with tests/golden/garden/NAME.txt.
fn golden(name: &str, text: &str) {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let path = path.join("tests/golden/garden").join(format!("{name}.txt"));
    let expected = std::fs::read_to_string(&path).expect("the golden transcript");
    assert_eq!(text, expected, "{}", path.display());
}

/// A head as far as it matters to Go's client.
fn shown(head: &Head) -> String {
    head.assert_hijackable();
    let reason = head.line.strip_prefix("HTTP/1.1 ").expect("checked while it was read");
    format!("{reason}, a length, stays open")
}

/// Everything that the server writes for one process, with the stream's id masked.
fn transcript(garden: &Garden, spec: &serde_json::Value, messages: &[serde_json::Value]) -> String {
    let mut a = Wire::dial(&garden.socket);
    a.send(hijack("POST", "/containers/c/processes", Some(&spec.to_string())).as_bytes());
    let mut text = format!("A: {}\n", shown(&a.head()));
    let first = String::from_utf8(a.until(b"\n").expect("the first line")).expect("text");
    let parsed: serde_json::Value = serde_json::from_str(&first).expect("JSON");
    let stream = parsed["stream_id"].as_str().expect("a stream").to_owned();
    assert!(!stream.is_empty() && !stream.contains('/'), "{stream:?}");
    let masked = first.replace(&format!(":\"{stream}\""), ":\"STREAM\"");
    write!(text, "A: {masked}").expect("to a string");
    let mut wires = Vec::new();
    for (name, which) in [("B", "stdout"), ("C", "stderr")] {
        let mut wire = Wire::dial(&garden.socket);
        let path = format!("/containers/c/processes/p/attaches/{stream}/{which}");
        wire.send(hijack("GET", &path, None).as_bytes());
        writeln!(text, "{name}: {}", shown(&wire.head())).expect("to a string");
        wires.push((name, wire));
    }
    for message in messages {
        a.send(format!("{message}\n").as_bytes());
    }
    let end = String::from_utf8(a.rest()).expect("text");
    writeln!(text, "A: {end}A: closed").expect("to a string");
    for (name, mut wire) in wires {
        let bytes = wire.rest();
        writeln!(text, "{name}: {}\n{name}: closed", bytes.escape_ascii()).expect("to a string");
    }
    text
}

#[test]
fn a_run_is_as_in_the_transcripts() {
    let garden = Garden::start("golden");
    garden.make("c");
    let spec = |script: &str| {
        let mut spec = shell(script);
        spec["id"] = json!("p");
        spec
    };
    let script = "printf 'out\\n'; printf 'err\\n' >&2; exit 3";
    golden("run", &transcript(&garden, &spec(script), &[]));
    let messages =
        [json!({"process_id": "p", "source": 0, "data": "<one>\n"}), json!({"source": 0})];
    golden("stdin", &transcript(&garden, &spec("cat"), &messages));
    let messages = [json!({"process_id": "p", "signal": 1})];
    golden("kill", &transcript(&garden, &spec("exec sleep 1000"), &messages));
    let mut with_tty = spec("stty size; printf 'out\\n'; printf 'err\\n' >&2");
    with_tty["tty"] = json!({});
    golden("tty", &transcript(&garden, &with_tty, &[]));
    let script = "printf '\\000\\377\\376\\r\\n\\303\\050'";
    golden("binary", &transcript(&garden, &spec(script), &[]));
    garden.finish();
}

#[test]
fn an_unknown_stream_is_answered_and_closed() {
    let garden = Garden::start("nostream");
    let c = garden.make("c");
    let mut process = garden.run(&c, &shell("read x"));
    for which in ["stdout", "stderr"] {
        let mut wire = garden.output(&c, &process.id, "no-such", which);
        assert_eq!(wire.rest(), b"");
    }
    process.end_stdin();
    process.finish();
    garden.finish();
}

#[test]
fn who_comes_late_still_gets_the_output() {
    let garden = Garden::start("late");
    let c = garden.make("c");
    let mut process = garden.run_bare(&c, &shell("echo out; echo err >&2; exit 5"));
    assert_eq!(process.status(), 5);
    let output = |which| garden.output(&c, &process.id, &process.stream, which).rest();
    assert_eq!(output("stdout"), b"out\n");
    assert_eq!(output("stderr"), b"err\n");
    garden.finish();
}

#[test]
fn what_was_not_taken_at_the_end_is_taken_after_it() {
    let garden = Garden::start("drained");
    let c = garden.make("c");
    let script = "for s in 1 2; do printf '%300000s' x >&$s; done; exit 8";
    let mut process = garden.run(&c, &shell(script));
    // The end is told while both outputs wait.
    assert_eq!(process.status(), 8);
    let [out, err] = [process.stdout.take(), process.stderr.take()];
    assert_eq!(out.map(|mut wire| wire.rest().len()), Some(300_000));
    assert_eq!(err.map(|mut wire| wire.rest().len()), Some(300_000));
    garden.finish();
}

#[test]
fn a_process_that_has_ended_is_joined_with_its_status_and_obeys_nobody() {
    let garden = Garden::start("after");
    let c = garden.make("c");
    let first = garden.run(&c, &shell("exit 21"));
    let id = first.id.clone();
    assert_eq!(first.finish().status, 21);
    let mut late = garden.attach(&c, &id);
    // It may be closed by now; what comes is swallowed.
    for message in [json!({"signal": 1}), json!({"source": 0, "data": "x"}), json!({"source": 0})] {
        late.control.offer(format!("{message}\n").as_bytes());
    }
    assert_eq!(late.finish().status, 21);
    garden.finish();
}

#[test]
fn nobody_has_to_listen() {
    let garden = Garden::start("deaf");
    let c = garden.make("c");
    let script = "i=0; while [ $i -lt 64 ]; do printf '%65536s' x; i=$((i+1)); done; exit 6";
    assert_eq!(garden.run_bare(&c, &shell(script)).status(), 6);
    garden.finish();
}

#[test]
fn stdin_goes_in_whole_and_signals_work_after_its_end() {
    let garden = Garden::start("stdin");
    let c = garden.make("c");
    let mut process = garden.run(&c, &shell("wc -c"));
    let chunk = "\u{e9}<&>".repeat(1000);
    for _ in 0..20 {
        process.stdin(&chunk);
    }
    process.end_stdin();
    let ended = process.finish();
    assert_eq!(ended.out.trim(), (chunk.len() * 20).to_string(), "{ended:?}");

    let script = "cat; trap 'echo term; exit 9' TERM; echo ready; while :; do sleep 1 & wait; done";
    let mut process = garden.run(&c, &shell(script));
    process.end_stdin();
    assert_eq!(process.line(), "ready");
    process.signal(0);
    let ended = process.finish();
    assert_eq!((ended.status, ended.out.as_str()), (9, "term\n"));
    garden.finish();
}

#[test]
fn a_program_that_never_reads_ends_all_the_same() {
    let garden = Garden::start("unread");
    let c = garden.make("c");
    let mut process = garden.run(&c, &shell("exit 4"));
    for _ in 0..10 {
        let message = json!({"source": 0, "data": "x".repeat(1024)});
        process.control.offer(format!("{message}\n").as_bytes());
    }
    assert_eq!(process.finish().status, 4);
    garden.finish();
}

#[test]
fn a_signal_is_heard_behind_input_that_nobody_reads() {
    let garden = Garden::start("behind");
    let c = garden.make("c");
    let script = "trap 'echo term' TERM; echo up; sleep 1000 & while :; do wait; done";
    for (count, length) in [(1000, 200), (60, 60_000)] {
        let mut process = garden.run(&c, &shell(script));
        assert_eq!(process.line(), "up");
        let piece = "x".repeat(length);
        (0..count).for_each(|_| process.stdin(&piece));
        process.end_stdin();
        process.signal(0);
        assert_eq!(process.line(), "term");
        process.signal(1);
        assert_eq!(process.finish().status, 137);
    }
    garden.finish();
}

#[test]
fn messages_need_no_lines_between_them() {
    let garden = Garden::start("unlined");
    let c = garden.make("c");
    let mut process = garden.run(&c, &shell("cat"));
    process.control.send(br#"{"source":0,"data":"a"}{"source":0,"#);
    process.control.send(br#""data":"b"} {"unknown":1,"source":0,"data":"c"}{"source":0}"#);
    let ended = process.finish();
    assert_eq!((ended.status, ended.out.as_str()), (0, "abc"));
    garden.finish();
}

#[test]
fn a_client_that_leaves_closes_stdin_and_the_process_goes_on() {
    let garden = Garden::start("leaves");
    let c = garden.make("c");
    let script = "cat >/dev/null; echo over > /tmp/over; exec sleep 1000";
    let process = garden.run(&c, &shell(script));
    let id = process.id.clone();
    drop(process);
    super::client::eventually("stdin has ended", || {
        (garden.sh(&c, "test -e /tmp/over").status == 0).then_some(())
    });
    let mut again = garden.attach(&c, &id);
    again.signal(1);
    assert_eq!(again.finish().status, 137);
    garden.finish();
}

#[test]
fn a_terminal_has_the_size_that_was_asked_for() {
    let garden = Garden::start("tty");
    let c = garden.make("c");
    let mut spec = shell("stty size; read go; stty size");
    spec["tty"] = json!({"window_size": {"columns": 123, "rows": 45}});
    let mut process: Process = garden.run(&c, &spec);
    assert_eq!(process.line(), "45 123\r");
    process.send(&json!({"tty": {"window_size": {"columns": 99, "rows": 11}}}));
    process.stdin("go\n");
    let ended = process.finish();
    assert!(ended.out.ends_with("11 99\r\n"), "{ended:?}");
    assert_eq!((ended.status, ended.err.as_str()), (0, ""));
    let mut spec = shell(
        "test -t 0 && test -t 1 && test -t 2 && tty && trap 'exit 7' WINCH \
                          && echo up && while :; do sleep 1 & wait; done",
    );
    spec["tty"] = json!({});
    let mut process = garden.run(&c, &spec);
    assert!(process.line().starts_with("/dev/pts/"));
    assert_eq!(process.line(), "up\r");
    process.send(&json!({"tty": {"window_size": {"columns": 10, "rows": 10}}}));
    assert_eq!(process.finish().status, 7, "it is told of the new size");
    garden.finish();
}

#[test]
fn output_without_end_is_read_by_a_slow_client_and_ended_by_a_signal() {
    let garden = Garden::start("flood");
    let c = garden.make("c");
    let mut process = garden.run(&c, &shell("exec yes"));
    assert_eq!(process.line(), "y");
    process.signal(1);
    let ended = process.finish();
    assert_eq!(ended.status, 137);
    assert!(ended.out.lines().all(|line| line == "y" || line.is_empty()));
    garden.finish();
}

#[test]
fn who_stands_still_in_long_messages_does_not_make_others_fail() {
    let garden = Garden::start("standstill");
    let c = garden.make("c");
    // More than all that is kept of long messages, and no end of any.
    let piece = vec![b'x'; 4 << 20];
    let mut stuck: Vec<_> =
        (0..17).map(|_| garden.run_bare(&c, &shell("exec sleep 1000"))).collect();
    std::thread::scope(|scope| {
        for process in &mut stuck {
            scope.spawn(|| {
                process.control.offer(b"{\"source\":0,\"data\":\"");
                // The last of them is read when there is room.
                process.control.offer(&piece[..piece.len() - 100])
            });
        }
        let log = || garden.lab().daemon_log();
        super::client::eventually("one of them is pushed out", || {
            log().contains("its room is needed for others").then_some(())
        });
    });
    let mut process = garden.run(&c, &shell("wc -c"));
    process.stdin(&"y".repeat(3 << 20));
    process.end_stdin();
    assert_eq!(process.finish().out.trim(), (3 << 20).to_string());
    for mut process in stuck {
        // Whether it was heard or not: who has said nonsense is not read any more.
        let mut other = garden.attach(&c, &process.id);
        other.signal(1);
        assert_eq!((other.finish().status, process.status()), (137, 137));
    }
    garden.finish();
}
