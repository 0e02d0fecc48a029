//! Containers whose first process has ended, and those whose entry is damaged: their clients see them,
//! and can destroy them.

use super::client::{container, eventually, shell};
use super::lost::{entry_file, first_process};
use super::place::Garden;
use nix::sys::signal::{Signal, kill};
use serde_json::{Value, json};
use std::fs;

/// What is left of a container is told, and nothing runs in it.
fn is_told_as_stopped(garden: &Garden, before: &Value) {
    assert_eq!(garden.list("?owner=me"), ["c"]);
    let info = garden.info("c");
    assert_eq!(info["State"], "stopped");
    for field in ["ContainerIP", "MappedPorts", "ContainerPath"] {
        assert_eq!(info[field], before[field], "{field}");
    }
    assert_eq!(info["Properties"]["owner"], "me");
    let (status, kind, message) = garden.run_fails("c", &shell("true"));
    assert_eq!((status, kind.as_str()), (500, ""));
    let why = "container c: its first process has ended, and with it everything inside; destroy it \
               and make it anew";
    assert_eq!(message, why);
    garden.does("PUT", &container("c", "/stop"), Some(&json!({"kill": false})));
    assert!(garden.get(&container("c", "/metrics"))["MemoryStat"].is_object());
    let (_, _, message) = garden.fails("POST", "/containers", Some(&json!({"handle": "c"})));
    assert!(message.contains("already in use"), "{message}");
}

#[test]
fn a_container_whose_first_process_ended_is_its_clients_until_he_destroys_it() {
    let mut garden = Garden::start("ended");
    garden.create(&json!({"handle": "c", "properties": {"owner": "me"},
        "netin": [{"host_port": 7777, "container_port": 80}]}));
    let before = garden.info("c");
    let mut process = garden.run("c", &shell("exec sleep 1000"));
    kill(first_process(&entry_file(&garden, "c")), Signal::SIGKILL).expect("kill");
    assert_eq!(process.status(), 137);
    eventually("its state is told", || (garden.info("c")["State"] == "stopped").then_some(()));
    is_told_as_stopped(&garden, &before);
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        garden.restart(signal);
        is_told_as_stopped(&garden, &before);
    }
    let (_, _, message) = garden.attach_fails("c", &process.id);
    assert!(message.contains("unknown process"), "{message}");
    garden.destroy("c");
    garden.create(&json!({"handle": "c", "netin": [{"host_port": 7777, "container_port": 80}]}));
    assert_eq!(garden.says("c", "echo lives"), "lives");
    garden.finish();
}

#[test]
fn a_container_that_ended_without_a_daemon_is_told_as_well() {
    let mut garden = Garden::start("off-ended");
    garden.create(&json!({"handle": "c", "properties": {"owner": "me"}}));
    let (before, pid) = (garden.info("c"), first_process(&entry_file(&garden, "c")));
    garden.end(Signal::SIGKILL);
    kill(pid, Signal::SIGKILL).expect("kill");
    eventually("it is gone", || kill(pid, None).is_err().then_some(()));
    garden.serve();
    is_told_as_stopped(&garden, &before);
    let log = garden.lab().daemon_log();
    assert!(log.contains("container.ended") && log.contains("garden=c"), "{log}");
    garden.finish();
}

#[test]
fn what_ended_before_the_box_was_started_is_swept() {
    let mut garden = Garden::start("rebooted");
    garden.make("c");
    let file = entry_file(&garden, "c");
    let pid = first_process(&file);
    garden.end(Signal::SIGKILL);
    kill(pid, Signal::SIGKILL).expect("kill");
    eventually("it is gone", || kill(pid, None).is_err().then_some(()));
    let mut entry: Value = serde_json::from_slice(&fs::read(&file).expect("entry")).expect("JSON");
    entry["boot"] = "another".into();
    fs::write(&file, entry.to_string()).expect("write");
    garden.serve();
    assert_eq!(garden.list(""), [""; 0]);
    garden.finish();
}

#[test]
fn a_container_with_a_damaged_entry_can_be_destroyed() {
    let mut garden = Garden::start("damaged");
    for handle in ["c", "d"] {
        garden.make(handle);
    }
    let files = ["c", "d"].map(|handle| entry_file(&garden, handle));
    let pids = files.each_ref().map(first_process);
    let names = files.each_ref().map(|file| {
        let dir = file.parent().expect("a directory").file_name().expect("a name");
        dir.to_str().expect("UTF-8").to_owned()
    });
    garden.end(Signal::SIGKILL);
    // Some of it can be read, and nothing.
    let text = fs::read_to_string(&files[0]).expect("entry");
    let mut entry: Value = serde_json::from_str(&text).expect("JSON");
    entry["spec"]["limits"] = "much".into();
    fs::write(&files[0], entry.to_string()).expect("write");
    fs::write(&files[1], &text[..text.len() / 2]).expect("write");
    garden.serve();
    assert_eq!(garden.list(""), ["c".to_owned(), names[1].clone()]);
    for handle in ["c", &names[1]] {
        let (_, kind, message) = garden.fails("GET", &container(handle, "/info"), None);
        assert_eq!(kind, "ServiceUnavailableError", "{message}");
        assert!(message.contains("is damaged (") && message.ends_with("; destroy it"), "{message}");
        garden.destroy(handle);
    }
    for pid in pids {
        eventually("its first process is gone", || kill(pid, None).is_err().then_some(()));
    }
    let state = garden.lab().root.join("var/lib/terrarium");
    eventually("nothing is left of them", || {
        let count = |dir: &str| fs::read_dir(state.join(dir)).expect("directory").count();
        (count("depot") + count("store/containers") == 0).then_some(())
    });
    garden.make("c");
    assert_eq!(garden.says("c", "echo lives"), "lives");
    garden.destroy("c");
    // Links that no entry named go at the next start.
    garden.restart(Signal::SIGTERM);
    garden.finish();
}
