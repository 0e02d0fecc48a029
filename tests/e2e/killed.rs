//! The daemon is killed at every step of what becomes of apps and their instances; what the next one
//! finds goes on where it was, and an app that has nothing to do with it does not notice. The same
//! of Tasks is in `tasks`, that of containers' own steps in the garden floor.

mod sound;

use super::lab::Lab;
use super::tasks::{ask, count_fetches, counted, ends, task, try_ask};
use nix::mount::{MsFlags, mount, umount};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use sound::{illegal, records, unowned};
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, SystemTime};
use terrarium::sys::fault::POINTS;

/// It tells by pid and start time whether it is still the process that it was.
const BORN: &str = "echo $$ $(cut -d' ' -f22 /proc/$$/stat) > /tmp/born\nexec sleep 100000\n";
const WHO: &str = "read pid at < /tmp/born; echo $pid $at $(cut -d' ' -f22 /proc/$pid/stat)";
const SMALL: &str = "[run]\nmemory = \"32MiB\"\ndisk = \"32MiB\"\n\n[health]\ntype = \"process\"\n";
/// It is healthy once it has told.
const PROBED: &str = "[run]\nmemory = \"32MiB\"\ndisk = \"32MiB\"\n\n[health]\ntype = \"exec\"\n\
                      command = \"test -e /tmp/born\"\nstart_timeout = \"10s\"\n\
                      interval = { unhealthy = \"100ms\", healthy = \"30s\" }\n\n\
                      [readiness]\ntype = \"exec\"\ncommand = \"test -e /tmp/born\"\n\
                      interval = { unhealthy = \"100ms\", healthy = \"30s\" }\n";
/// How points begin, and the test that dies at all of them.
const TESTS: [(&str, &str); 25] = [
    ("app:wish:", "rollout"),
    ("create:", "rollout"),
    ("run:", "rollout"),
    ("destroy:", "rollout"),
    ("lrp:desire:", "rollout"),
    ("lrp:claim:", "rollout"),
    ("lrp:ready:", "rollout"),
    ("lrp:start:", "rollout"),
    ("lrp:stop:", "rollout"),
    ("lrp:remove:", "rollout"),
    ("app:declare:", "declaration"),
    ("app:hook:", "hook"),
    ("app:staged:", "declaration"),
    ("app:judged:", "declaration"),
    ("app:delete:", "deletion"),
    ("app:remove:", "deletion"),
    ("lrp:crash:", "crash"),
    ("lrp:unclaim:", "wait"),
    ("lrp:fail:", "wait"),
    ("lrp:unmade:", "unmade"),
    ("lrp:lose:", "reboot"),
    ("drain:", "drain"),
    ("check:", "check"),
    ("task:", "task"),
    // Those of the garden floor, and of `bounds`.
    ("", "elsewhere"),
];

/// So often it is killed at a moment that the seed says.
const ROUNDS: u64 = 20;

/// Points that another test dies at: all of a kind where that takes them from the source (`reserve:` in
/// the garden floor, `clock:` in `tasks/clock`, those of images in `bounds`), else the very point.
const ELSEWHERE: [&str; 8] = [
    "reserve:",
    "owner:written",
    "change:written",
    "clock:",
    "layer:",
    "collect:",
    "load:",
    "forget:",
];

/// The points that a test dies at, as the source has them.
fn points_of(test: &str) -> Vec<&'static str> {
    let is_its = |point: &&&str| {
        let (_, who) = TESTS.iter().find(|(start, _)| point.starts_with(start)).expect("the last");
        *who == test
    };
    POINTS.iter().filter(is_its).copied().collect()
}

/// A point that is new in the source is one that some test dies at.
#[test]
fn every_point_of_the_source_has_its_test() {
    for (_, test) in TESTS {
        assert!(!points_of(test).is_empty(), "{test} dies nowhere");
    }
    for point in points_of("elsewhere") {
        let is_of =
            |kind: &&str| point == *kind || (kind.ends_with(':') && point.starts_with(kind));
        let known = ELSEWHERE.iter().any(is_of);
        assert!(known, "no test dies at {point}: see TESTS");
    }
}

/// A box with a bystander and a victim, both running.
struct Scene {
    lab: Lab,
    born: String,
    handle: Value,
    victim: String,
}

impl Scene {
    fn new(name: &str) -> Scene {
        let lab = Lab::start(name);
        lab.ok(&["apply", &lab.app("by", BORN, SMALL)]);
        let victim = lab.app("victim", BORN, PROBED);
        lab.ok(&["apply", &victim]);
        let born = lab.inside("by", WHO).out;
        assert_eq!(born.split_whitespace().count(), 3, "{born}");
        let handle = lab.instance("by", 0)["handle"].clone();
        Scene { lab, born, handle, victim }
    }

    /// Has the daemon die at `point` of what `args` ask for, and starts the next one.
    fn dies(&mut self, point: &str, args: &[&str]) {
        self.dies_of(point, |lab| Some(asks(lab, args)));
    }

    /// The same of what `asks` asks for.
    fn dies_of(&mut self, point: &str, asks: impl FnOnce(&Lab) -> Option<Child>) {
        self.is_dead(point, asks);
        self.lab.serve();
        self.bystander(point);
    }

    /// The same without a next one.
    fn is_dead(&mut self, point: &str, asks: impl FnOnce(&Lab) -> Option<Child>) {
        let file = self.lab.root.join("die-at");
        fs::write(&file, point).expect("point");
        let asker = asks(&self.lab);
        self.lab.until(point, |_| (!file.exists()).then_some(()));
        self.lab.end_daemon(Signal::SIGKILL);
        let left = records(&self.lab).expect("the records of a daemon that was killed");
        assert_eq!(illegal(&left), Vec::<String>::new(), "{point}");
        if let Some(mut asker) = asker {
            let _ = asker.kill();
            asker.wait().expect("the end of whoever asked");
        }
    }

    /// The next daemon dies as it starts, or right after.
    fn start_dies(&self, point: &str) {
        let file = self.lab.root.join("die-at");
        fs::write(&file, point).expect("point");
        let mut daemon = asks(&self.lab, &["serve"]);
        daemon.wait().expect("its end");
        assert!(!file.exists(), "{point}");
    }

    /// Dies at an operation on the Task that stages the victim anew.
    fn staging_dies(&mut self, point: &str, op: &str) {
        let anew = self.lab.app("victim", &format!("# {point}\n{BORN}"), PROBED);
        let apply = |lab: &Lab| Some(asks(lab, &["apply", &anew]));
        if op == "fail" {
            // The daemon that finds one that was not begun is the one that gives it up.
            self.is_dead("task:desire:written", apply);
            self.start_dies(point);
            self.lab.serve();
            self.bystander(point);
        } else {
            self.dies_of(point, apply);
        }
        self.lab.ok(&["apply", &anew]);
    }

    /// The bystander is the very process that it was.
    fn bystander(&self, point: &str) {
        let now = self.lab.instance("by", 0);
        assert_eq!((&now["handle"], &now["crash_count"]), (&self.handle, &0.into()), "{point}");
        assert_eq!(self.lab.inside("by", WHO).out, self.born, "{point}");
    }

    /// The victim has so many instances that run, and nothing else is on the box.
    fn settled(&self, point: &str, instances: usize) {
        self.lab.until(&format!("{instances} run after {point}"), |lab| {
            let process = &lab.view("victim")["processes"][0];
            let all = process["instances"].as_array().map_or(0, Vec::len);
            let run = process["running"].as_u64().unwrap_or_default() as usize;
            (run == instances && (all == instances || instances == 0)).then_some(())
        });
        self.counted(point, 1 + instances);
    }

    /// Every container is somebody's, and what the records say is legal.
    fn counted(&self, point: &str, containers: usize) {
        let state = self.lab.root.join("var/lib/terrarium");
        for dir in ["depot", "store/containers"] {
            self.lab.until(&format!("{dir} holds {containers} after {point}"), |_| {
                let there = fs::read_dir(state.join(dir)).map(Iterator::count).unwrap_or_default();
                (there == containers).then_some(())
            });
        }
        let mut before = Vec::new();
        self.lab.until(&format!("every container is its owner's after {point}"), |lab| {
            // While it is written to, it may be torn.
            let there = records(lab).ok()?;
            assert_eq!(illegal(&there), Vec::<String>::new(), "{point}");
            let wrong = unowned(lab, &there);
            if wrong != before {
                eprintln!("{point}: {wrong:?}");
                before.clone_from(&wrong);
            }
            wrong.is_empty().then_some(())
        });
    }
}

fn asks(lab: &Lab, args: &[&str]) -> Child {
    let mut command = lab.command(args);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().expect("ask")
}

/// A new version takes over from an old one: each step of its instance, of its container, and of the
/// old one's end.
#[test]
fn at_every_step_of_a_rollout() {
    let mut scene = Scene::new("kroll");
    // Nothing is made ahead: every step is this container's.
    scene.lab.configure("reserve", "[cell]\nreserve = 0\n");
    scene.lab.end_daemon(Signal::SIGTERM);
    scene.lab.serve();
    for point in points_of("rollout") {
        scene.dies(point, &["restart", "victim"]);
        scene.settled(point, 1);
        assert_eq!(scene.lab.instance("victim", 0)["crash_count"], 0, "{point}");
    }
    scene.lab.finish();
}

/// The same of an end that makes way for nobody.
#[test]
fn at_every_step_of_a_stop_and_of_a_drain() {
    let mut scene = Scene::new("kstop");
    let of_stop = ["app:wish:", "lrp:stop:", "lrp:remove:", "destroy:"];
    let points = POINTS.iter().filter(|it| of_stop.iter().any(|start| it.starts_with(start)));
    for point in points {
        scene.dies(point, &["stop", "victim"]);
        scene.lab.ok(&["stop", "victim"]);
        scene.settled(point, 0);
        scene.lab.ok(&["start", "victim"]);
        scene.settled(point, 1);
    }
    for point in points_of("drain") {
        // Whether or not it was recorded, nothing ends that was not told to.
        scene.is_dead(point, |lab| Some(asks(lab, &["drain"])));
        scene.lab.serve();
        scene.lab.ok(&["undrain"]);
        scene.settled(point, 1);
    }
    scene.lab.finish();
}

#[test]
fn at_every_step_of_a_crash() {
    let mut scene = Scene::new("kcrash");
    for point in points_of("crash") {
        let script = "read pid at < /tmp/born; kill -9 $pid";
        scene.dies(point, &["exec", "victim", "--", "sh", "-c", script]);
        scene.settled(point, 1);
        // Each is counted once, whichever of the two daemons has recorded it.
        let least = if point == "lrp:crash:written" { 1 } else { 0 };
        let count = scene.lab.instance("victim", 0)["crash_count"].as_u64();
        assert!(count.is_some_and(|count| (least..=2).contains(&count)), "{point} {count:?}");
        scene.lab.ok(&["restart", "victim"]);
        scene.settled(point, 1);
    }
    for point in points_of("wait") {
        // One waits for an app that is not there; the other for its time after three crashes.
        let waits = format!("needs = [\"nobody\"]\n{SMALL}");
        let (script, manifest) = match point {
            "lrp:fail:noted" => ("exec sleep 100000\n", waits.as_str()),
            _ => ("exit 7\n", SMALL),
        };
        let path = scene.lab.app("third", script, SMALL);
        let text = fs::read_to_string(&path).expect("manifest");
        let head = manifest.strip_suffix(SMALL).expect("the same end");
        fs::write(&path, format!("{head}{text}")).expect("manifest");
        scene.dies(point, &["apply", &path]);
        let state = if point == "lrp:fail:noted" { "waiting" } else { "crashed" };
        scene.lab.until_state("third", state);
        scene.lab.ok(&["delete", "third"]);
        scene.counted(point, 2);
    }
    scene.lab.finish();
}

/// A container that cannot be made: a directory of the box that it is to have is gone.
#[test]
fn at_every_step_of_what_cannot_be_made() {
    let mut scene = Scene::new("kunmade");
    let (srv, data) = (scene.lab.root.join("srv"), scene.lab.root.join("srv/data"));
    fs::create_dir_all(&data).expect("directory");
    scene.lab.configure("volumes", &format!("[cell]\nvolumes = [\"{}\"]\n", srv.display()));
    scene.lab.end_daemon(Signal::SIGTERM);
    scene.lab.serve();
    let volume = format!("[[volume]]\nfrom = \"{}\"\nto = \"/mnt\"\n", data.display());
    let path = scene.lab.app("third", BORN, &format!("{SMALL}\n{volume}"));
    scene.lab.ok(&["apply", &path]);
    for point in points_of("unmade") {
        scene.lab.ok(&["stop", "third"]);
        fs::remove_dir(&data).expect("it goes");
        scene.dies(point, &["start", "third"]);
        fs::create_dir(&data).expect("it is there again");
        scene.lab.ok(&["restart", "third"]);
        scene.lab.until_state("third", "running");
        scene.counted(point, 3);
    }
    scene.lab.finish();
}

/// The cell tries itself at its start.
#[test]
fn at_every_step_of_a_check_of_the_cell() {
    let mut scene = Scene::new("kcheck");
    scene.lab.configure("check", "[self_check]\ninterval = \"1h\"\n");
    scene.lab.end_daemon(Signal::SIGTERM);
    for point in points_of("check") {
        scene.start_dies(point);
        scene.lab.serve();
        scene.bystander(point);
        scene.settled(point, 1);
        scene.lab.end_daemon(Signal::SIGTERM);
    }
    scene.lab.serve();
    scene.lab.finish();
}

#[test]
fn at_every_step_of_a_declaration_and_a_deletion() {
    let mut scene = Scene::new("kapply");
    let victim = scene.victim.clone();
    for point in points_of("deletion") {
        scene.dies(point, &["delete", "victim"]);
        // Asked again: it is there, on its way out, or gone.
        scene.lab.run(&["delete", "victim"]);
        scene.lab.until("it is gone", |lab| (lab.run(&["app", "victim"]).code != 0).then_some(()));
        scene.counted(point, 1);
        scene.lab.ok(&["apply", &victim]);
    }
    for point in points_of("declaration") {
        scene.lab.ok(&["delete", "victim"]);
        scene.dies(point, &["apply", &victim]);
        scene.lab.ok(&["apply", &victim]);
        scene.settled(point, 1);
    }
    // A version that never gets healthy is gone back from, whoever looks at it.
    let good = scene.lab.inside("victim", WHO).out;
    assert_eq!(good.split_whitespace().count(), 3, "{good}");
    for point in ["app:staged:written", "app:judged:asked", "app:judged:written"] {
        let bad = scene.lab.app("victim", &format!("# {point}\nexec sleep 100000\n"), PROBED);
        scene.dies(point, &["apply", &bad]);
        scene.lab.until(&format!("it has gone back after {point}"), |lab| {
            let view = lab.view("victim").to_string();
            view.contains("the new version failed").then_some(())
        });
        scene.settled(point, 1);
        assert_eq!(scene.lab.inside("victim", WHO).out, good, "{point}: the good one ran on");
    }
    scene.lab.finish();
}

/// Row 2: a release hook is begun at most once for what was declared, wherever the daemon dies; whose
/// end nobody has seen fails its version, and runs again when a person says so.
#[test]
fn row_2_at_every_step_of_a_release_hook() {
    let mut scene = Scene::new("khook");
    let (srv, count) = (scene.lab.root.join("srv"), scene.lab.root.join("srv/count"));
    fs::create_dir_all(&srv).expect("directory");
    fs::set_permissions(&srv, fs::Permissions::from_mode(0o777)).expect("mode");
    scene.lab.configure("volumes", &format!("[cell]\nvolumes = [\"{}\"]\n", srv.display()));
    scene.lab.end_daemon(Signal::SIGTERM);
    scene.lab.serve();
    let begun = || fs::read_to_string(&count).map_or(0, |text| text.lines().count());
    // Only the hook changes: there is nothing to stage but its verdict.
    let app = |lab: &Lab, version: &str| {
        let manifest = format!(
            "{SMALL}\n[hook.release]\ncommand = \"echo {version} >> /mnt/count\"\n\n\
             [[volume]]\nfrom = \"{}\"\nto = \"/mnt\"\n",
            srv.display()
        );
        lab.app("third", BORN, &manifest)
    };
    let decided = |lab: &Lab, point: &str| {
        lab.until(&format!("it is decided after {point}"), |lab| {
            let view = lab.view("third");
            let all = view["processes"][0]["instances"].as_array().map_or(0, Vec::len);
            (view["state"] == "running" && all == 1).then_some(view)
        })
    };
    scene.lab.ok(&["apply", &app(&scene.lab, "first")]);
    assert_eq!(begun(), 1);
    let of_task = ["task:desire:", "task:start:", "task:complete:"];
    let of_task = POINTS.iter().filter(|it| of_task.iter().any(|start| it.starts_with(start)));
    let rest = ["app:staged:asked", "app:staged:written"];
    for point in points_of("hook").into_iter().chain(of_task.copied()).chain(rest) {
        let before = begun();
        let path = app(&scene.lab, point);
        scene.dies(point, &["apply", &path]);
        let reason = decided(&scene.lab, point)["reason"].as_str().map(str::to_owned);
        let is_known = matches!(point, "app:hook:asked" | "app:staged:written");
        let was_begun = is_known || point.contains("complete") || point == "app:staged:asked";
        assert_eq!(begun() - before, usize::from(was_begun), "{point}: {reason:?}");
        assert_eq!(reason.is_none(), is_known, "{point}: {reason:?}");
        if let Some(reason) = reason {
            assert!(reason.contains("cell disappeared before completion"), "{point}: {reason}");
            assert!(reason.contains("the version before runs on"), "{point}: {reason}");
            let before = begun();
            scene.lab.ok(&["start", "third"]);
            scene.lab.until(&format!("it was tried again after {point}"), |lab| {
                (lab.view("third")["reason"].is_null() && begun() > before).then_some(())
            });
            decided(&scene.lab, point);
            assert_eq!(begun(), before + 1, "{point}");
        }
        scene.counted(point, 3);
    }
    scene.lab.finish();
}

/// Row 2: every operation on a Task, be it a staging or one that a client asks for.
#[test]
fn row_2_at_every_operation_on_a_task() {
    let mut scene = Scene::new("ktask");
    scene.lab.configure("tasks", "[tasks]\nretry_interval = \"1s\"\n");
    scene.lab.end_daemon(Signal::SIGTERM);
    scene.lab.serve();
    for point in points_of("task") {
        let op = point.split(':').nth(1).expect("an operation");
        let guid = point.replace(':', "-");
        let path = format!("/v1/tasks/{guid}");
        let posted = |rest: Value| {
            let body = task(&guid, "exec sleep 100000", rest).to_string();
            move |lab: &Lab| {
                try_ask(lab, "POST", "/v1/tasks", &body);
                None
            }
        };
        let state = |lab: &Lab| ask(lab, "GET", &path, "").1["state"].clone();
        match op {
            "cancel" => {
                posted(json!({}))(&scene.lab);
                scene.lab.until("it runs", |lab| (state(lab) == "RUNNING").then_some(()));
                scene.dies(point, &["cancel", &guid]);
                scene.lab.until("it has ended", |lab| (state(lab) == "COMPLETED").then_some(()));
            }
            "reject" => {
                scene.dies_of(point, posted(json!({ "memory_mb": 1 << 20 })));
                assert_eq!(state(&scene.lab), "PENDING", "{point}");
                scene.lab.ok(&["cancel", &guid]);
            }
            "demote" => {
                // Nobody listens there; a second later it is to be told again.
                let url = json!({ "completion_callback_url": "http://127.0.0.1:1/" });
                let done = task(&guid, "true", url).to_string();
                scene.dies_of(point, |lab| {
                    try_ask(lab, "POST", "/v1/tasks", &done);
                    None
                });
                let there = state(&scene.lab);
                assert!(there == "COMPLETED" || there == "RESOLVING", "{point}: {there}");
            }
            _ => scene.staging_dies(point, op),
        }
        if matches!(op, "cancel" | "reject") {
            assert_eq!(ask(&scene.lab, "DELETE", &path, "").0, 200, "{point}");
        }
        scene.settled(point, 1);
    }
    scene.lab.finish();
}

/// Numbers that a seed decides.
struct Dice(u64);

impl Dice {
    /// `TERRARIUM_SEED`, or what the clock says; told, so that a failure can be played again.
    fn new() -> Dice {
        let given = std::env::var("TERRARIUM_SEED").ok().and_then(|text| text.parse().ok());
        let clock = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
        let seed = given.unwrap_or(clock.as_millis() as u64);
        eprintln!("seed {seed}; the same again: TERRARIUM_SEED={seed}");
        Dice(seed)
    }

    fn below(&mut self, sides: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

/// Whenever it is killed while much is asked for, what was asked for last is what runs. The seed says
/// what is asked for, in which order, and when the daemon is killed.
///
/// Row 2: the Tasks among it run at most once each.
#[test]
fn at_any_moment_under_load() {
    let mut scene = Scene::new("kload");
    let mut dice = Dice::new();
    let (at, fetched) = count_fetches();
    let wishes: [&[&str]; 5] = [
        &["scale", "victim=2"],
        &["restart", "victim"],
        &["restart", "victim/0"],
        &["scale", "victim=1"],
        &["stop", "victim"],
    ];
    for round in 0..ROUNDS {
        let guids: Vec<String> =
            (0..1 + dice.below(3)).map(|task| format!("r{round}-{task}")).collect();
        for guid in &guids {
            let posted = try_ask(&scene.lab, "POST", "/v1/tasks", &counted(&at, guid).to_string());
            assert_eq!(posted.map(|it| it.0), Some(201), "{guid}");
        }
        let asked = 2 + dice.below(4);
        let mut askers = Vec::new();
        for _ in 0..asked {
            askers.push(asks(&scene.lab, wishes[dice.below(5) as usize]));
        }
        // Some of them are done by then, some are not begun: no condition, a moment.
        std::thread::park_timeout(Duration::from_millis(dice.below(800)));
        scene.lab.end_daemon(Signal::SIGKILL);
        for mut asker in askers {
            let _ = asker.kill();
            asker.wait().expect("the end of whoever asked");
        }
        scene.lab.serve();
        scene.bystander(&format!("round {round}"));
        for guid in &guids {
            ends(&scene.lab, guid, &format!("round {round}"));
        }
        scene.lab.ok(&["start", "victim"]);
        scene.lab.ok(&["scale", "victim=2"]);
        scene.settled(&format!("round {round}"), 2);
    }
    let all = fetched.lock().expect("the list").clone();
    let once: BTreeSet<&String> = all.iter().collect();
    assert_eq!(once.len(), all.len(), "no Task ran twice: {all:?}");
    assert!(all.len() as u64 >= ROUNDS / 4, "many of them ran: {all:?}");
    scene.lab.finish();
}

/// The daemon of a box that has started again dies in the middle of finding that out; the next one
/// makes everything anew in the declared order, of what is here: there is no network.
#[test]
fn after_a_reboot_in_the_declared_order_without_a_network() {
    let mut lab = Lab::start("kboot");
    let app = |name: &str, wait: &str| {
        let path = lab.app(name, BORN, SMALL);
        let text = fs::read_to_string(&path).expect("manifest");
        fs::write(&path, format!("{wait}\n{text}")).expect("manifest");
        path
    };
    let all = [app("top", "needs = [\"mid\"]"), app("mid", "after = [\"low\"]"), app("low", "")];
    lab.ok(&["apply", &all[0], &all[1], &all[2]]);
    let staged = lab.logged("top", "Staging complete").len();
    lab.end_daemon(Signal::SIGKILL);
    lab.kill_all();
    let boot = lab.root.join("boot_id");
    fs::write(&boot, "22222222-2222-3333-4444-555555555555\n").expect("boot id");
    let real = Path::new("/proc/sys/kernel/random/boot_id");
    mount(Some(&boot), real, None::<&str>, MsFlags::MS_BIND, None::<&str>).expect("another boot");
    for point in points_of("reboot") {
        fs::write(lab.root.join("die-at"), point).expect("point");
        let mut daemon = asks(&lab, &["serve"]);
        daemon.wait().expect("its end");
        assert!(!lab.root.join("die-at").exists(), "{point}");
    }
    lab.serve();
    for name in ["top", "mid", "low"] {
        lab.until_state(name, "running");
        assert_eq!(lab.instance(name, 0)["crash_count"], 0, "{name}");
        // Whichever daemon told it: the first one died before it had told all.
        let cause = &lab.instance(name, 0)["death"]["cause"];
        assert_eq!(
            (&cause["kind"], &cause["rebooted"]),
            (&"unseen".into(), &true.into()),
            "{name}"
        );
    }
    let at = |app: &str, text: &str| {
        let lines = lab.logged(app, text);
        lines.last().and_then(|line| line.split(' ').next().map(str::to_owned)).expect("a line")
    };
    let made = |app: &str| at(app, "Cell creating container for instance");
    let since = |app: &str| lab.instance(app, 0)["since_ms"].as_u64().expect("a time");
    assert!(since("low") < since("mid") && since("mid") < since("top"));
    assert!(made("low") <= made("mid") && made("mid") <= made("top"));
    assert_eq!(lab.logged("top", "Staging complete").len(), staged, "nothing is staged again");
    lab.finish();
    umount(real).expect("the real one");
}
