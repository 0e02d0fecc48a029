//! The daemon is killed at every step of what it does, and the next one finds a box that is in order.

use super::client::{container, eventually, plain, shell};
use super::lab::{fetch, get, tool};
use super::net::{DENY, reaches, serve};
use super::place::{EXTERNAL, Garden, OUTSIDE, outside};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

/// The points of one kind, as the source has them.
fn points(kind: &str) -> Vec<&'static str> {
    let of_kind = terrarium::sys::fault::POINTS.iter().filter_map(|point| point.strip_prefix(kind));
    let all: Vec<&str> = of_kind.collect();
    assert!(all.len() > 1, "{kind} {all:?}");
    all
}

/// Steps that are done where half of a container is made; the others finish it.
const AHEAD: [&str; 4] = ["spawn", "listener", "bridge", "links"];

/// Where the daemon tells how many halves are ready.
const DEBUG: &str = "debug = \"127.0.0.1:17014\"";

/// A box with a container that has nothing to do with what dies, and its process.
struct Scene {
    garden: Garden,
    before: Value,
    process: String,
}

impl Scene {
    fn new(name: &str) -> Scene {
        Scene::with(name, "")
    }

    fn with(name: &str, more: &str) -> Scene {
        let garden = Garden::with(name, more);
        garden.create(&json!({"handle": "by", "netin": [{"container_port": 8080}],
            "properties": {"note": "mine"}}));
        let script = "trap 'echo heard' TERM; while :; do sleep 0.1; done";
        let process = garden.run("by", &shell(script)).id.clone();
        let before = garden.info("by");
        Scene { garden, before, process }
    }

    /// Waits until as many halves of containers are ready as there may be, and nothing leaves any more.
    fn filled(&self) {
        eventually("the reserve is full", || {
            let vars = fetch("127.0.0.1", 17_014, "/debug/vars")?;
            let vars: Value = serde_json::from_str(&vars).expect("JSON");
            let bridges = tool("ip", &["-o", "link", "show", "type", "bridge"]).lines().count();
            let containers = self.garden.list("").len();
            (vars["reserve"] == 2 && bridges == containers + 2).then_some(())
        });
    }

    /// Has the daemon die at `point` of this request, and starts the next one.
    fn dies(&mut self, point: &str, method: &str, path: &str, body: Option<&str>) {
        let file = self.garden.lab().root.join("die-at");
        fs::write(&file, point).expect("point");
        let mut stream = UnixStream::connect(&self.garden.socket).expect("connect");
        stream.write_all(plain(method, path, body).as_bytes()).expect("send");
        // An answer may come before the end: some of a removal happens after it.
        let _ = stream.read_to_end(&mut Vec::new());
        eventually(point, || (!file.exists()).then_some(()));
        self.garden.restart(Signal::SIGKILL);
        self.bystander();
        self.counted(point);
    }

    /// The bystander is as it was.
    fn bystander(&self) {
        let after = self.garden.info("by");
        for field in ["State", "HostIP", "ContainerIP", "MappedPorts", "ProcessIDs", "Properties"] {
            assert_eq!(after[field], self.before[field], "{field}");
        }
        let mut talker = self.garden.attach("by", &self.process);
        talker.signal(0);
        assert_eq!(talker.line(), "heard");
    }

    /// Depot, disks and control groups are those of the containers that are listed, no more.
    fn counted(&self, point: &str) {
        let state = self.garden.lab().root.join("var/lib/terrarium");
        for dir in ["depot", "store/containers"] {
            eventually(&format!("{dir} is as the list after {point}"), || {
                let there = fs::read_dir(state.join(dir)).expect("directory").count();
                (there == self.garden.list("").len()).then_some(())
            });
        }
    }

    /// The victim is wholly there, or wholly gone and can be made again.
    fn settled(&self, point: &str) {
        let listed = self.garden.list("").contains(&"victim".to_owned());
        if !listed {
            self.garden.make("victim");
        }
        assert_eq!(self.garden.says("victim", "echo lives"), "lives", "{point}");
    }
}

#[test]
fn at_every_step_of_a_creation() {
    let mut scene = Scene::new("kcreate");
    scene.garden.lab().configure("reserve", "[cell]\nreserve = 0\n");
    scene.garden.restart(Signal::SIGTERM);
    let body = json!({"handle": "victim", "netin": [{"container_port": 1}]}).to_string();
    for step in points("create:") {
        scene.dies(&format!("create:{step}"), "POST", "/containers", Some(&body));
        scene.settled(step);
        scene.garden.destroy("victim");
    }
    scene.garden.finish();
}

#[test]
fn at_every_step_of_a_creation_of_which_half_is_ready() {
    let mut scene = Scene::with("kfinish", DEBUG);
    let body = json!({"handle": "victim", "netin": [{"container_port": 1}]}).to_string();
    let all = points("create:");
    assert!(AHEAD.iter().all(|step| all.contains(step)), "{all:?}");
    for step in all.into_iter().filter(|step| !AHEAD.contains(step)) {
        scene.filled();
        scene.dies(&format!("create:{step}"), "POST", "/containers", Some(&body));
        scene.settled(step);
        scene.garden.destroy("victim");
    }
    scene.garden.finish();
}

#[test]
fn at_every_step_of_making_half_a_container() {
    let mut scene = Scene::with("kreserve", DEBUG);
    for step in points("reserve:") {
        scene.filled();
        // Which takes one, and another is made.
        let body = json!({"handle": "victim"}).to_string();
        scene.dies(&format!("reserve:{step}"), "POST", "/containers", Some(&body));
        scene.settled(step);
        scene.garden.destroy("victim");
        scene.filled();
    }
    scene.garden.finish();
}

#[test]
fn at_every_step_of_a_removal() {
    let mut scene = Scene::new("kdestroy");
    for step in points("destroy:") {
        scene.garden.create(&json!({"handle": "victim", "netin": [{"container_port": 1}]}));
        scene.garden.run("victim", &shell("exec sleep 1000"));
        scene.dies(&format!("destroy:{step}"), "DELETE", &container("victim", ""), None);
        scene.settled(step);
        scene.garden.destroy("victim");
    }
    scene.garden.finish();
}

#[test]
fn what_is_written_of_a_change_is_so_after_the_next_start() {
    let mut scene = Scene::with("kchange", DENY);
    outside();
    scene.garden.make("victim");
    let _server = serve(&scene.garden, "victim", 80);
    let port = json!({"host_port": 7777, "container_port": 80}).to_string();
    scene.dies("change:written", "POST", &container("victim", "/net/in"), Some(&port));
    scene.settled("net in");
    let mapped = json!([{"HostPort": 7777, "ContainerPort": 80}]);
    assert_eq!(scene.garden.info("victim")["MappedPorts"], mapped);
    assert_eq!(get(EXTERNAL, 7777).as_deref(), Some("victim\n"), "the port leads inside");

    assert!(!reaches(&scene.garden, "victim", OUTSIDE, 8080));
    let rule = json!({"protocol": 1, "networks": [{"start": OUTSIDE}]}).to_string();
    scene.dies("change:written", "POST", &container("victim", "/net/out"), Some(&rule));
    scene.settled("net out");
    assert!(reaches(&scene.garden, "victim", OUTSIDE, 8080), "the rule opens it");
    assert_eq!(get(EXTERNAL, 7777).as_deref(), Some("victim\n"), "and the port leads there still");

    let limit = container("victim", "/limits/bandwidth");
    let body = json!({"rate": 5_000_000, "burst": 2 << 20}).to_string();
    scene.dies("change:written", "PUT", &limit, Some(&body));
    scene.settled("bandwidth");
    let queues = tool("tc", &["qdisc", "show"]);
    assert!(queues.contains("tbf") && queues.contains("rate 40Mbit"), "{queues}");
    let rules = tool("nft", &["list", "ruleset"]);
    assert!(rules.contains("limit rate over"), "{rules}");

    let value = json!({"value": "v"}).to_string();
    let path = container("victim", "/properties/key");
    scene.dies("owner:written", "PUT", &path, Some(&value));
    scene.settled("property");
    let info = scene.garden.info("victim");
    assert_eq!((&info["Properties"]["key"], &info["MappedPorts"]), (&json!("v"), &mapped));
    scene.garden.finish();
}

#[test]
fn around_the_start_of_a_process() {
    let mut scene = Scene::new("krun");
    scene.garden.make("victim");
    for (point, started) in [("run:asked", false), ("run:started", true)] {
        let mut spec = shell("exec sleep 1000");
        spec["id"] = point.into();
        let path = container("victim", "/processes");
        scene.dies(point, "POST", &path, Some(&spec.to_string()));
        scene.settled(point);
        let running = scene.garden.info("victim")["ProcessIDs"].clone();
        let there = running.as_array().expect("a list").contains(&json!(point));
        assert_eq!(there, started, "{point}: {running}");
    }
    scene.garden.finish();
}
