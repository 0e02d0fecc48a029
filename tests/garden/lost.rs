//! Containers that live and that the daemon finds it cannot work with: nothing of them is lost.

use super::client::{container, eventually, shell};
use super::place::Garden;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use std::fs;
use std::path::PathBuf;

/// The depot's entry of a container.
pub fn entry_file(garden: &Garden, handle: &str) -> PathBuf {
    let path = garden.info(handle)["ContainerPath"].as_str().expect("a path").to_owned();
    PathBuf::from(path).join("container.json")
}

fn read(file: &PathBuf) -> Value {
    serde_json::from_slice(&fs::read(file).expect("entry")).expect("JSON")
}

/// Its pid 1 as the box numbers it.
pub fn first_process(file: &PathBuf) -> Pid {
    Pid::from_raw(read(file)["pid"][0].as_i64().expect("a pid") as i32)
}

fn talks(garden: &Garden, handle: &str, process: &str) {
    let mut talker = garden.attach(handle, process);
    talker.signal(0);
    assert_eq!(talker.line(), "heard");
}

const HEARS: &str = "trap 'echo heard' TERM; while :; do sleep 0.1; done";

#[test]
fn a_container_whose_first_process_is_stopped_is_found_again_when_it_goes_on() {
    let mut garden = Garden::start("stopped");
    garden.create(&json!({"handle": "c", "properties": {"owner": "me"}}));
    for handle in ["d", "dead"] {
        garden.make(handle);
    }
    let process = garden.run("c", &shell(HEARS)).id.clone();
    let pids = ["c", "d", "dead"].map(|handle| first_process(&entry_file(&garden, handle)));
    garden.end(Signal::SIGKILL);
    for pid in pids {
        kill(pid, Signal::SIGSTOP).expect("stop");
    }
    garden.serve();
    assert_eq!(garden.list(""), ["c", "d", "dead"]);
    assert_eq!(garden.list("?owner=me"), ["c"]);
    for path in ["c/info", "c/properties", "d/metrics"] {
        let (status, kind, message) = garden.fails("GET", &format!("/containers/{path}"), None);
        assert_eq!((status, &*kind), (500, "ServiceUnavailableError"), "{path}: {message}");
    }
    let (_, _, message) = garden.fails("POST", "/containers", Some(&json!({"handle": "c"})));
    assert!(message.contains("already in use"), "{message}");
    garden.destroy("d");
    assert_eq!(garden.list(""), ["c", "dead"]);
    kill(pids[0], Signal::SIGCONT).expect("continue");
    kill(pids[2], Signal::SIGKILL).expect("kill");
    eventually("one is found again, and one is told to have ended", || {
        let found = garden.call("GET", "/containers/c/info", None).status() == 200;
        let ended = garden.call("GET", "/containers/dead/info", None);
        let ended = ended.status() == 200 && ended.json()["State"] == "stopped";
        (found && ended).then_some(())
    });
    garden.destroy("dead");
    talks(&garden, "c", &process);
    assert_eq!(garden.says("c", "echo lives"), "lives");
    garden.finish();
}

/// Has a daemon find the entry of container `c` changed, and the next one as it was.
fn is_left_alone_when(name: &str, change: impl Fn(&mut Value)) {
    let mut garden = Garden::start(name);
    garden.create(&json!({"handle": "c", "netin": [{"host_port": 7777, "container_port": 80}],
        "network": "10.77.0.0/24"}));
    garden.make("d");
    let process = garden.run("c", &shell(HEARS)).id.clone();
    let (before, file) = (garden.info("c"), entry_file(&garden, "c"));
    let (pid, entry) = (first_process(&file), read(&file));
    garden.end(Signal::SIGKILL);
    let mut newer = entry.clone();
    change(&mut newer);
    assert_ne!(newer, entry);
    fs::write(&file, newer.to_string()).expect("write");
    garden.serve();
    assert_eq!(garden.list(""), ["c", "d"]);
    for (method, path) in [("GET", container("c", "/info")), ("DELETE", container("c", ""))] {
        let (_, kind, message) = garden.fails(method, &path, None);
        assert_eq!(kind, "ServiceUnavailableError", "{message}");
        assert!(message.contains("newer"), "{message}");
    }
    let log = garden.lab().daemon_log();
    assert!(log.contains("container.lost") && log.contains("start the version"), "{log}");
    for taken in [json!({"handle": "c"}), json!({"network": "10.77.0.2/24"})] {
        garden.fails("POST", "/containers", Some(&taken));
    }
    let port = json!({"host_port": 7777, "container_port": 1});
    garden.fails("POST", "/containers/d/net/in", Some(&port));
    kill(pid, None).expect("its first process lives");
    garden.end(Signal::SIGTERM);
    fs::write(&file, entry.to_string()).expect("write");
    garden.serve();
    assert_eq!(garden.info("c"), before);
    talks(&garden, "c", &process);
    garden.finish();
}

#[test]
fn a_container_with_an_entry_of_a_newer_program_is_left_alone() {
    is_left_alone_when("newentry", |entry| entry["format"] = 2.into());
}

#[test]
fn a_container_with_a_record_of_a_newer_program_is_left_alone() {
    is_left_alone_when("newrecord", |entry| {
        let owner =
            entry["spec"]["owner"].as_str().expect("text").replace("\"format\":1", "\"format\":2");
        entry["spec"]["owner"] = owner.into();
    });
}

#[test]
fn what_lives_without_a_depot_is_swept_or_told() {
    let mut garden = Garden::start("nodepot");
    for handle in ["swept", "told"] {
        garden.make(handle);
    }
    let files = ["swept", "told"].map(|handle| entry_file(&garden, handle));
    let pid = first_process(&files[1]);
    let state = garden.lab().root.join("var/lib/terrarium");
    garden.end(Signal::SIGKILL);
    let dirs = files.each_ref().map(|file| file.parent().expect("a directory").to_owned());
    let name = |dir: &PathBuf| dir.file_name().expect("a name").to_str().expect("UTF-8").to_owned();
    for dir in &dirs {
        fs::remove_dir_all(dir).expect("remove");
    }
    // A disk that is not there proves nothing: it may be in another daemon's store.
    let hidden = dirs.each_ref().map(|dir| state.join("store/containers").join(name(dir)));
    let aside = state.join("store/aside");
    fs::rename(&hidden[1], &aside).expect("hide");
    garden.serve();
    assert_eq!(garden.list(""), [""; 0]);
    let log = garden.lab().daemon_log();
    let told: Vec<_> = log.lines().filter(|line| line.contains("container.stray ")).collect();
    assert!(
        told.len() == 1 && told[0].contains(&format!("handle={} pid={pid} ", name(&dirs[1]))),
        "{log}"
    );
    assert!(told[0].contains("cure="), "{log}");
    assert!(!hidden[0].exists(), "the disk of what was swept");
    garden.make("new");
    assert_eq!(garden.says("new", "echo lives"), "lives");
    garden.end(Signal::SIGKILL);
    kill(pid, Signal::SIGKILL).expect("kill");
    fs::rename(&aside, &hidden[1]).expect("as it was");
    garden.serve();
    assert_eq!(garden.list(""), ["new"]);
    garden.finish();
}
