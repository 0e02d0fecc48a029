//! Tasks and container records over the local socket, as Diego's own clients write them.

mod clock;
mod extras;
pub(crate) mod of_2015;

use super::lab::Lab;
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// Status and body of a request to the daemon.
pub(crate) fn ask(lab: &Lab, method: &str, path: &str, body: &str) -> (u16, Value) {
    let asked = try_ask(lab, method, path, body);
    asked.unwrap_or_else(|| panic!("no answer to {method} {path}\n{}", lab.daemon_log()))
}

/// The same of a daemon that may end meanwhile.
pub(super) fn try_ask(lab: &Lab, method: &str, path: &str, body: &str) -> Option<(u16, Value)> {
    let (status, text) = try_ask_text(lab, method, path, body)?;
    Some((status, serde_json::from_str(&text).unwrap_or(Value::Null)))
}

/// The same with the body as it came.
fn try_ask_text(lab: &Lab, method: &str, path: &str, body: &str) -> Option<(u16, String)> {
    let socket = lab.root.join("run/terrarium/terrarium.sock");
    let mut stream = UnixStream::connect(&socket).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(60))).ok()?;
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).ok()?;
    stream.write_all(body.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1).and_then(|it| it.parse().ok())?;
    Some((status, body.to_owned()))
}

/// A Task of the receptor that runs a shell script as vcap.
pub(super) fn task(guid: &str, script: &str, rest: Value) -> Value {
    let mut task = json!({
        "task_guid": guid,
        "domain": "tests",
        "rootfs": "preloaded:tiny",
        "log_guid": guid,
        "log_source": "TASK",
        "memory_mb": 64,
        "disk_mb": 64,
        "action": { "run": { "path": "sh", "args": ["-c", script], "user": "vcap" } },
    });
    let task_fields = task.as_object_mut().expect("an object");
    task_fields.extend(rest.as_object().cloned().unwrap_or_default());
    task
}

fn post(lab: &Lab, task: &Value) {
    let (status, body) = ask(lab, "POST", "/v1/tasks", &task.to_string());
    assert_eq!(status, 201, "{body}\n{}", lab.daemon_log());
}

/// The Task when it is in `state`.
fn until(lab: &Lab, guid: &str, state: &str) -> Value {
    lab.until(&format!("{guid} is {state}"), |lab| {
        let (_, task) = ask(lab, "GET", &format!("/v1/tasks/{guid}"), "");
        (task["state"] == state).then_some(task)
    })
}

/// What a Task has logged.
fn log(lab: &Lab, task: &Value) -> String {
    let name = task["log_name"].as_str().expect("the name of a log");
    lab.ok(&["logs", name, "-n", "1000"]).out
}

/// Row 1, row 29: its states and errors over the wire. Row 5: 50 KiB of a file become the result, and
/// a byte more is a failure. Row 57: a Task has its own environment and no ports.
#[test]
fn row_1_row_5_a_task_runs_once_and_its_result_is_kept() {
    let lab = Lab::start("tasks");
    let script = "echo \"$GREETING of $(id -un) $CF_INSTANCE_PORTS$INSTANCE_INDEX\"; echo bad >&2; \
                  head -c $N /dev/zero | tr '\\0' a > /tmp/result";
    let env = |n: u32| {
        json!({ "result_file": "/tmp/result", "annotation": "mine", "env": [
            { "name": "N", "value": n.to_string() }, { "name": "GREETING", "value": "hello" },
        ]})
    };
    post(&lab, &task("Fits_1", script, env(51_200)));
    let (status, err) =
        ask(&lab, "POST", "/v1/tasks", &task("Fits_1", "true", json!({})).to_string());
    assert_eq!((status, &err["name"]), (409, &"TaskGuidAlreadyExists".into()), "{err}");
    post(&lab, &task("too-large", script, env(51_201)));
    let fits = until(&lab, "Fits_1", "COMPLETED");
    assert_eq!((&fits["failed"], &fits["failure_reason"]), (&false.into(), &"".into()), "{fits}");
    assert_eq!(fits["result"].as_str().map(str::len), Some(51_200));
    assert_eq!((&fits["annotation"], &fits["rejection_count"]), (&"mine".into(), &0.into()));
    let lines = log(&lab, &fits);
    for text in ["OUT hello of vcap []", "ERR bad", "[TASK/0] OUT Exit status 0"] {
        assert!(lines.contains(text), "{text}: {lines}");
    }
    let at = |text: &str| lines.find(text).unwrap_or_else(|| panic!("{text}: {lines}"));
    assert!(at("Cell creating container for instance Fits_1") < at("Exit status 0"));
    let large = until(&lab, "too-large", "COMPLETED");
    assert_eq!((&large["failed"], &large["result"]), (&true.into(), &"".into()));
    assert_eq!(large["failure_reason"], "failed to fetch result");
    assert!(log(&lab, &large).contains("result file is too large (over 51200 bytes)"));
    // One that fails tells why; a domain names some of them.
    post(&lab, &task("fails", "exit 3", json!({ "domain": "others" })));
    let fails = until(&lab, "fails", "COMPLETED");
    assert_eq!(fails["failure_reason"], "TASK: Exited with status 3");
    let (_, others) = ask(&lab, "GET", "/v1/tasks?domain=others", "");
    assert_eq!(others.as_array().map(Vec::len), Some(1), "{others}");
    // The command line sees the same.
    let shown = lab.ok(&["tasks"]).out;
    assert!(shown.contains("Fits_1") && shown.contains("too-large"), "{shown}");
    assert_eq!(lab.run(&["task", "fails"]).code, 3);
    assert!(lab.ok(&["status"]).out.contains("tasks: 3 completed"));
    for guid in ["Fits_1", "too-large", "fails"] {
        assert_eq!(ask(&lab, "DELETE", &format!("/v1/tasks/{guid}"), "").0, 200);
        let (status, err) = ask(&lab, "GET", &format!("/v1/tasks/{guid}"), "");
        assert_eq!((status, &err["name"]), (404, &"TaskNotFound".into()));
    }
    let logs = lab.root.join("var/lib/terrarium/logs");
    assert_eq!(std::fs::read_dir(logs).expect("logs").count(), 0, "a log goes with its task");
    for wrong in ["", "[]", "{}", "{\"task_guid\":\"a b\"}"] {
        let (status, err) = ask(&lab, "POST", "/v1/tasks", wrong);
        assert_eq!(status, 400, "{wrong}: {err}");
    }
    lab.assert_empty();
    lab.finish();
}

/// A guid names a Task, and another one an LRP: each has its own record and its own log.
#[test]
fn row_1_a_task_and_an_lrp_of_one_guid_have_logs_of_their_own() {
    let lab = Lab::start("namesake");
    let script = "echo of the lrp; exec sleep 100000";
    let lrp = json!({
        "guid": "one", "rootfs": "preloaded:tiny", "memory_mb": 64, "disk_mb": 64,
        "tags": { "lifecycle": "lrp", "domain": "tests" }, "log_config": { "guid": "one" },
        "run": { "run": { "path": "sh", "args": ["-c", script], "user": "vcap" } },
    });
    let (status, answer) = ask(&lab, "POST", "/v1/containers", &lrp.to_string());
    assert_eq!(status, 201, "{answer}\n{}", lab.daemon_log());
    post(&lab, &task("one", "echo of the task", json!({})));
    let done = until(&lab, "one", "COMPLETED");
    assert_eq!(done["failed"], false, "{done}");
    let name = lab.until("the LRP runs", |lab| {
        let (_, shown) = ask(lab, "GET", "/v1/containers/one", "");
        let runs = shown["state"] == "running";
        runs.then(|| shown["log_name"].as_str().expect("the name of a log").to_owned())
    });
    let before = lab.instance(&name, 0)["handle"].clone();
    assert_ne!(done["log_name"], name.as_str(), "{done}");
    let of_lrp = || lab.ok(&["logs", &name, "-n", "1000"]).out;
    lab.until("it has said so", |_| of_lrp().contains("of the lrp").then_some(()));
    let of_task = log(&lab, &done);
    assert!(of_task.contains("of the task") && !of_task.contains("of the lrp"), "{of_task}");
    assert!(!of_lrp().contains("of the task"), "{}", of_lrp());
    // The one goes with its log, and the other does not notice.
    assert_eq!(ask(&lab, "DELETE", "/v1/tasks/one", "").0, 200);
    assert!(of_lrp().contains("of the lrp"));
    assert_eq!(lab.instance(&name, 0)["handle"], before, "the very instance that it was");
    assert_eq!(ask(&lab, "DELETE", "/v1/containers/one", "").0, 200);
    lab.assert_empty();
    lab.finish();
}

/// Row 4: cancelled while it sleeps, it sees TERM, and its container is gone.
#[test]
fn row_4_a_cancelled_task_ends_and_its_container_goes() {
    let lab = Lab::start("cancel");
    let script = "trap 'echo seen TERM; exit 0' TERM; echo ready; while :; do sleep 1; done";
    post(&lab, &task("sleeps", script, json!({})));
    let running = until(&lab, "sleeps", "RUNNING");
    lab.until("it is ready", |lab| log(lab, &running).contains("OUT ready").then_some(()));
    let (status, err) = ask(&lab, "DELETE", "/v1/tasks/sleeps", "");
    assert_eq!((status, &err["name"]), (409, &"TaskNotDeletable".into()), "{err}");
    lab.ok(&["cancel", "sleeps"]);
    // The record first: nobody has to wait for the process.
    let (_, task) = ask(&lab, "GET", "/v1/tasks/sleeps", "");
    assert_eq!((&task["state"], &task["failed"]), (&"COMPLETED".into(), &true.into()));
    assert_eq!(
        (&task["failure_reason"], &task["result"]),
        (&"task was cancelled".into(), &"".into())
    );
    lab.until("it has seen TERM", |lab| log(lab, &task).contains("seen TERM").then_some(()));
    lab.assert_empty();
    assert_eq!(lab.run(&["cancel", "sleeps"]).code, 9, "a second time is a conflict");
    assert_eq!(lab.run(&["cancel", "nobody"]).code, 4);
    lab.finish();
}

/// Row 35: what has no more time on a cell that is drained fails with a reason, also when its action has
/// none of its own, and the log says so.
#[test]
fn row_35_a_task_that_a_drained_cell_has_no_time_for_fails_with_a_reason() {
    let lab = Lab::start("cut");
    let script = "echo ready; exec sleep 1000";
    let run = json!({ "run": { "path": "sh", "args": ["-c", script], "user": "vcap" } });
    let both = json!({ "action": { "parallel": { "actions": [run, run] } } });
    post(&lab, &task("cut", script, both));
    let running = until(&lab, "cut", "RUNNING");
    lab.until("both are ready", |lab| {
        (log(lab, &running).matches("OUT ready").count() == 2).then_some(())
    });
    lab.ok(&["drain", "--wait", "--timeout", "1s"]);
    let (_, task) = ask(&lab, "GET", "/v1/tasks/cut", "");
    assert_eq!((&task["state"], &task["failed"]), (&"COMPLETED".into(), &true.into()), "{task}");
    assert_eq!(task["failure_reason"], "cell was drained before completion");
    let said = log(&lab, &task);
    assert!(said.contains("reached evacuation timeout for instance cut"), "{said}");
    lab.ok(&["undrain"]);
    assert_eq!(ask(&lab, "DELETE", "/v1/tasks/cut", "").0, 200);
    lab.assert_empty();
    lab.finish();
}

/// Row 2: killed in the middle, the next daemon completes it as failed and does not run it again; one
/// that was only asked for is run. Row 31: nothing of it is left.
#[test]
fn row_2_a_task_is_not_run_again_after_the_daemon_was_killed() {
    let mut lab = Lab::start("once");
    post(&lab, &task("once", "echo begun; exec sleep 1000", json!({})));
    let running = until(&lab, "once", "RUNNING");
    lab.until("it has begun", |lab| log(lab, &running).contains("OUT begun").then_some(()));
    // More than there is room for: it waits, and outlives the daemon as it is.
    post(&lab, &task("waits", "echo late", json!({ "memory_mb": 1 << 20 })));
    let waits = lab.until("it was rejected", |lab| {
        let (_, task) = ask(lab, "GET", "/v1/tasks/waits", "");
        (task["rejection_count"] == 1).then_some(task)
    });
    assert_eq!(waits["state"], "PENDING");
    let why = waits["rejection_reason"].as_str().expect("a reason");
    assert!(why.starts_with("insufficient resources: memory"), "{why}");
    lab.end_daemon(Signal::SIGKILL);
    lab.serve();
    let task = until(&lab, "once", "COMPLETED");
    assert_eq!(task["failed"], true);
    assert_eq!(task["failure_reason"], "cell disappeared before completion");
    assert_eq!(log(&lab, &task).matches("OUT begun").count(), 1);
    lab.assert_empty();
    let (_, waits) = ask(&lab, "GET", "/v1/tasks/waits", "");
    assert_eq!(waits["state"], "PENDING", "{waits}");
    lab.ok(&["cancel", "waits"]);
    lab.finish();
}

/// Row 32: a Task whose container is killed behind the daemon's back has failed, and is not run again.
#[test]
fn row_32_a_task_whose_container_is_gone_has_failed() {
    let lab = Lab::start("gone");
    post(&lab, &task("gone", "echo begun; exec sleep 1000", json!({})));
    let running = until(&lab, "gone", "RUNNING");
    // By the guid that its client has for it.
    lab.until("it has begun", |lab| (!lab.logged("gone", "OUT begun").is_empty()).then_some(()));
    let depot = lab.root.join("var/lib/terrarium/depot");
    let entry = std::fs::read_dir(depot).expect("depot").flatten().next().expect("a container");
    let entry = std::fs::read(entry.path().join("container.json")).expect("entry");
    let entry: Value = serde_json::from_slice(&entry).expect("JSON");
    let pid = entry["pid"][0].as_i64().expect("pid 1") as i32;
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), Signal::SIGKILL).expect("kill");
    let task = until(&lab, "gone", "COMPLETED");
    assert_eq!(task["failure_reason"], "task container does not exist");
    assert_eq!(log(&lab, &running).matches("OUT begun").count(), 1);
    lab.assert_empty();
    lab.finish();
}

/// Row 3: a container that cannot be made gives the Task back, with the reason, and it is tried again;
/// how often and when is told by the tables of `cell::task`.
#[test]
fn row_3_a_task_whose_container_cannot_be_made_is_given_back() {
    let lab = Lab::new("rejected");
    lab.configure("registry", "[registry]\ninsecure = [\"127.0.0.0/8\"]\n");
    let mut lab = lab;
    lab.serve();
    let image = json!({ "rootfs": "docker://127.0.0.1:1/none#1" });
    post(&lab, &task("unmade", "echo never", image));
    let task = lab.until("it was given back", |lab| {
        let (_, task) = ask(lab, "GET", "/v1/tasks/unmade", "");
        (task["rejection_count"] == 1).then_some(task)
    });
    assert_eq!((&task["state"], &task["cell_id"]), (&"PENDING".into(), &"".into()));
    let why = task["rejection_reason"].as_str().expect("a reason");
    assert!(why.starts_with("failed to create container: "), "{why}");
    let stack = json!({ "rootfs": "preloaded:lucid64" });
    post(&lab, &self::task("unknown", "echo never", stack));
    let task = lab.until("it was refused", |lab| {
        let (_, task) = ask(lab, "GET", "/v1/tasks/unknown", "");
        (task["rejection_count"] == 1).then_some(task)
    });
    let why = task["rejection_reason"].as_str().expect("a reason");
    assert!(
        why.starts_with("found no compatible cell for required rootfs: stack `lucid64`"),
        "{why}"
    );
    lab.assert_empty();
    lab.finish();
}

/// Row 6: whoever asked is told, again after 503, and then the Task is forgotten.
#[test]
fn row_6_the_end_of_a_task_is_posted_until_it_is_heard() {
    let lab = Lab::start("told");
    let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
    let url = format!("http://{}/done", listener.local_addr().expect("address"));
    let server = std::thread::spawn(move || {
        let mut bodies = Vec::new();
        for status in [503, 503, 200] {
            let (mut stream, _) = listener.accept().expect("a notice");
            let mut text = String::new();
            let mut piece = [0; 4096];
            while !text.ends_with('}') {
                let read = stream.read(&mut piece).expect("read");
                assert!(read > 0, "it broke off: {text}");
                text.push_str(&String::from_utf8_lossy(&piece[..read]));
            }
            let answer = format!("HTTP/1.1 {status} x\r\nContent-Length: 0\r\n\r\n");
            stream.write_all(answer.as_bytes()).expect("answer");
            bodies.push(text.split_once("\r\n\r\n").expect("a body").1.to_owned());
        }
        bodies
    });
    let rest = json!({ "completion_callback_url": url, "annotation": "{\"a\":1}",
        "result_file": "/etc/hostname" });
    post(&lab, &task("told", "true", rest));
    let bodies = server.join().expect("three notices");
    let body: Value = serde_json::from_str(&bodies[2]).expect("JSON");
    assert_eq!(bodies[0], bodies[2]);
    assert_eq!((&body["task_guid"], &body["failed"]), (&"told".into(), &false.into()));
    assert_eq!((&body["failure_reason"], &body["annotation"]), (&"".into(), &"{\"a\":1}".into()));
    assert!(body["result"].as_str().is_some_and(|it| !it.is_empty()), "{body}");
    assert!(body["created_at"].as_u64().is_some_and(|ns| ns > 1_000_000_000_000_000_000));
    lab.until("it is forgotten", |lab| {
        (ask(lab, "GET", "/v1/tasks/told", "").0 == 404).then_some(())
    });
    lab.finish();
}

/// Staging is a Task: its record is there while it runs, a killed daemon's has failed, and the app is
/// staged by another one.
#[test]
fn row_1_staging_is_a_task_and_an_interrupted_one_is_followed_by_another() {
    let mut lab = Lab::start("staged");
    lab.buildpack("slow", "echo compiling; test -f /tmp/app/quick || exec sleep 1000");
    let path = lab.app("web", super::WEB, super::PORT);
    let text = std::fs::read_to_string(&path).expect("manifest").replace("procfile", "slow");
    std::fs::write(&path, text).expect("manifest");
    lab.ok(&["apply", "--no-wait", &path]);
    let staging = |lab: &Lab| {
        let (_, tasks) = ask(lab, "GET", "/v1/tasks?domain=cf-app-staging", "");
        let running = |it: &&Value| it["state"] == "RUNNING";
        let tasks = tasks.as_array().cloned().unwrap_or_default();
        tasks.iter().find(running).cloned()
    };
    let first = lab.until("a staging runs", staging);
    let guid = first["task_guid"].as_str().expect("a guid");
    assert!(guid.starts_with("staging-web-"), "{guid}");
    lab.until("it compiles", |lab| (!lab.logged("web", "OUT compiling").is_empty()).then_some(()));
    lab.end_daemon(Signal::SIGKILL);
    lab.serve();
    let second = lab.until("another staging runs", staging);
    assert_ne!(second["task_guid"], first["task_guid"]);
    // Cancelled as a Task, it has failed as a staging.
    lab.ok(&["cancel", second["task_guid"].as_str().expect("a guid")]);
    let view = lab.until_state("web", "failed");
    assert!(view["reason"].as_str().expect("a reason").contains("task was cancelled"), "{view}");
    let (_, tasks) = ask(&lab, "GET", "/v1/tasks", "");
    assert_eq!(tasks, json!([]), "stagings are forgotten as soon as they are over");
    lab.finish();
}

/// Serves an empty tar and counts who has fetched which path.
pub(super) fn count_fetches() -> (String, std::sync::Arc<std::sync::Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
    let at = format!("http://{}", listener.local_addr().expect("address"));
    let fetched = std::sync::Arc::<std::sync::Mutex<Vec<String>>>::default();
    let seen = fetched.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut head = Vec::new();
            let mut piece = [0; 4096];
            while !head.ends_with(b"\r\n\r\n") {
                match stream.read(&mut piece) {
                    Ok(read @ 1..) => head.extend_from_slice(&piece[..read]),
                    _ => break,
                }
            }
            let head = String::from_utf8_lossy(&head).into_owned();
            let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
            seen.lock().expect("the list").push(path);
            let answer = b"HTTP/1.1 200 ok\r\nContent-Length: 1024\r\n\r\n";
            let _ = stream.write_all(answer).and_then(|()| stream.write_all(&[0; 1024]));
        }
    });
    (at, fetched)
}

/// A Task that fetches what has its name at `at`, so that its runs can be counted there.
pub(super) fn counted(at: &str, guid: &str) -> Value {
    let load = json!({ "download": { "from": format!("{at}/{guid}"), "to": "/tmp/x",
        "user": "vcap" } });
    let run = json!({ "run": { "path": "true", "user": "vcap" } });
    task(guid, "", json!({ "action": { "serial": { "actions": [load, run] } } }))
}

/// It is there and ends, it was never asked for, or it is gone already; forgotten if need be.
pub(super) fn ends(lab: &Lab, guid: &str, why: &str) {
    let path = format!("/v1/tasks/{guid}");
    lab.until(&format!("{guid} has ended"), |lab| {
        let (status, task) = ask(lab, "GET", &path, "");
        match (status, task["state"].as_str()) {
            (404, _) => Some(()),
            (_, Some("COMPLETED")) => {
                assert_eq!(ask(lab, "DELETE", &path, "").0, 200);
                Some(())
            }
            (_, Some("RESOLVING")) => Some(()),
            (_, Some("PENDING" | "RUNNING")) => None,
            other => panic!("{why}: {other:?}"),
        }
    });
}

/// Row 2: killed before or after any change of its record, before its container, or before its
/// process, a Task is never run twice: what it fetches is fetched at most once. Its record is legal
/// afterwards, and nothing of it is left.
#[test]
fn row_2_no_task_runs_twice_wherever_the_daemon_is_killed() {
    let mut lab = Lab::start("killed");
    let (at, fetched) = count_fetches();
    let points = [
        "task:desire:asked",
        "task:desire:written",
        "task:start:asked",
        "task:start:written",
        "create:depot",
        "create:commit",
        "run:asked",
        "run:started",
        "task:complete:asked",
        "task:complete:written",
        "destroy:processes",
        "task:resolve:written",
        "task:delete:asked",
        "task:delete:written",
    ];
    for point in points {
        let guid = point.replace(':', "-");
        let path = format!("/v1/tasks/{guid}");
        let body = counted(&at, &guid).to_string();
        std::fs::write(lab.root.join("die-at"), point).expect("write");
        try_ask(&lab, "POST", "/v1/tasks", &body);
        lab.until(point, |lab| {
            let there = lab.root.join("die-at").exists();
            if there
                && try_ask(lab, "GET", &path, "").is_some_and(|it| it.1["state"] == "COMPLETED")
            {
                try_ask(lab, "DELETE", &path, "");
            }
            (!there).then_some(())
        });
        lab.end_daemon(Signal::SIGKILL);
        lab.serve();
        ends(&lab, &guid, point);
        let url = format!("/{guid}");
        let count = fetched.lock().expect("the list").iter().filter(|it| **it == url).count();
        assert!(count <= 1, "{point}: it ran {count} times");
        let began = !matches!(
            point,
            "task:desire:asked"
                | "task:start:written"
                | "create:depot"
                | "create:commit"
                | "run:asked"
                | "run:started"
        );
        assert!(count == 1 || !began, "{point}: it never ran");
        lab.assert_empty();
    }
    lab.finish();
}

/// Whoever deletes a Task as soon as it has completed is ahead of the end of its container, which is logged
/// as well.
#[test]
fn the_log_of_a_task_goes_with_it_and_does_not_come_back() {
    let mut lab = Lab::start("tasklogs");
    let logs = lab.root.join("var/lib/terrarium/logs");
    let names = || {
        let items = std::fs::read_dir(&logs).expect("logs").flatten();
        items.map(|item| item.file_name().to_string_lossy().into_owned()).collect::<Vec<_>>()
    };
    let guids: Vec<String> = (0..4).map(|number| format!("gone-{number}")).collect();
    for guid in &guids {
        post(&lab, &task(guid, "echo done", json!({})));
    }
    for guid in &guids {
        until(&lab, guid, "COMPLETED");
        assert_eq!(ask(&lab, "DELETE", &format!("/v1/tasks/{guid}"), "").0, 200);
    }
    lab.until("all containers are gone", |lab| lab.links().is_empty().then_some(()));
    // One that begins and ends after them.
    post(&lab, &task("later", "true", json!({})));
    until(&lab, "later", "COMPLETED");
    lab.until("no log is left of them", |_| {
        (!names().iter().any(|name| name.starts_with("gone-"))).then_some(())
    });
    // What a daemon that died has left goes at the next start, and no app's.
    for name in ["lost-0123456789ab.log", "lost-0123456789ab.log.1", "web.log"] {
        std::fs::write(logs.join(name), "{}\n").expect("a log");
    }
    lab.end_daemon(Signal::SIGKILL);
    lab.serve();
    let left = names();
    assert!(!left.iter().any(|name| name.starts_with("lost-")), "{left:?}");
    assert!(left.contains(&"web.log".to_owned()), "{left:?}");
    ask(&lab, "DELETE", "/v1/tasks/later", "");
    lab.finish();
}
