//! A new version takes over from an old one, and gives way again when it is no good.

use super::lab::{Lab, get};
use super::{PORT, WEB};
use nix::sys::signal::Signal;
use serde_json::Value;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

const SMALL: &str = "[run]\nmemory = \"32MiB\"\ndisk = \"32MiB\"\n";

/// A web app with a published port that tells its version.
fn versioned(lab: &Lab, version: &str, more: &str) -> String {
    let manifest = format!(
        "{SMALL}{more}\n[env]\nVERSION = \"{version}\"\n\n\
         [[port]]\ncontainer = 8080\npublish = 8000\n"
    );
    lab.app("web", WEB, &manifest)
}

/// One request; whether its answer came whole. An error: no connection.
fn ask(address: &str) -> std::io::Result<bool> {
    let mut stream = TcpStream::connect(address)?;
    let mut answer = String::new();
    let asked = stream.write_all(b"GET / HTTP/1.0\r\n\r\n");
    let read = asked.and_then(|()| stream.read_to_string(&mut answer));
    Ok(read.is_ok() && answer.contains("instance"))
}

fn instances(view: &Value) -> Vec<Value> {
    view["processes"][0]["instances"].as_array().cloned().unwrap_or_default()
}

fn handles(view: &Value) -> Vec<String> {
    let all = instances(view);
    let handles = all.iter().filter_map(|one| one["handle"].as_str());
    handles.map(str::to_owned).collect()
}

/// Row 82, row 83: a client that asks all the time never sees a refused connection while the app is
/// replaced; each old instance is kept until a new one runs, and gone afterwards.
#[test]
fn a_client_that_asks_all_the_time_sees_no_refused_connection_while_the_app_is_replaced() {
    let lab = Lab::start("rolling");
    lab.ok(&["apply", &versioned(&lab, "1", "instances = 2\n")]);
    let old = handles(&lab.until_state("web", "running"));
    let stop = Arc::new(AtomicBool::new(false));
    // A thread has the network of the one that makes it.
    let client = std::thread::spawn({
        let stop = stop.clone();
        move || {
            let (mut refused, mut cut, mut whole) = (0, 0, 0);
            while !stop.load(Ordering::Relaxed) {
                match ask("127.0.0.1:8000") {
                    Ok(true) => whole += 1,
                    Ok(false) => cut += 1,
                    Err(_) => refused += 1,
                }
            }
            (refused, cut, whole)
        }
    });
    lab.ok(&["apply", &versioned(&lab, "2", "instances = 2\n")]);
    let view = lab.until_state("web", "running");
    stop.store(true, Ordering::Relaxed);
    let (refused, cut, whole) = client.join().expect("the client");
    println!("{whole} answers, {cut} cut off, {refused} connections refused");
    assert!(
        refused == 0 && cut == 0 && whole > 100,
        "{whole} answers, {cut} cut, {refused} refused"
    );
    let new = handles(&view);
    assert_eq!(new.len(), 2, "{view:#}");
    assert!(new.iter().all(|handle| !old.contains(handle)), "{old:?} {new:?}");
    let env = lab.inside("web", "echo $VERSION").out;
    assert_eq!(env.trim(), "2");
    // Each new one is healthy before its old one is told to stop.
    for (old, new) in old.iter().zip(&new) {
        let log = lab.run(&["logs", "web", "-n", "1000"]).out;
        let at = |text: &str| log.find(text).unwrap_or_else(|| panic!("no `{text}` in\n{log}"));
        assert!(
            at(&format!("created container for instance {new}"))
                < at(&format!("Cell stopping instance {old}")),
            "{log}"
        );
    }
    lab.finish();
}

/// Row 83: a version that never becomes healthy goes back to the last good one, whose instances have
/// never stopped; and the same manifest is tried again when it is applied again.
#[test]
fn a_version_that_never_becomes_healthy_goes_back() {
    let mut lab = Lab::start("rollback");
    lab.ok(&["apply", &versioned(&lab, "1", "")]);
    lab.ok(&["scale", "web=2"]);
    let old = lab.until("two run", |lab| {
        let view = lab.view("web");
        (view["state"] == "running" && handles(&view).len() == 2).then(|| handles(&view))
    });
    let broken = || {
        let path = versioned(&lab, "2", "command = \"echo broken; exit 3\"\n");
        lab.run(&["apply", &path])
    };
    let ran = broken();
    assert_ne!(ran.code, 0, "{}", ran.out);
    assert!(ran.err.contains("cannot update app web: the new version failed"), "{}", ran.err);
    let view = lab.until_state("web", "running");
    let reason = view["reason"].as_str().unwrap_or_default();
    assert!(reason.contains("crashed 3 times and was never healthy"), "{reason}");
    assert!(reason.contains("status 3"), "{reason}");
    assert_eq!(handles(&view), old, "the old one was not touched");
    assert_eq!(lab.logged("web", "Rolled back").len(), 1);
    assert_eq!(lab.logged("web", "OUT broken").len(), 3);
    assert!(lab.ok(&["app", "web"]).out.contains("the new version failed"));
    assert!(get("127.0.0.1", 8000).is_some());
    // What was decided holds for the next daemon, too.
    lab.end_daemon(Signal::SIGKILL);
    lab.serve();
    let view = lab.until_state("web", "running");
    assert_eq!((handles(&view), view["reason"].as_str()), (old.clone(), Some(reason)));
    // Again.
    let path = versioned(&lab, "2", "command = \"echo broken; exit 3\"\n");
    assert_ne!(lab.run(&["apply", &path]).code, 0);
    assert_eq!(lab.logged("web", "OUT broken").len(), 6);
    assert_eq!(handles(&lab.until_state("web", "running")), old);
    // It runs as the revision that it was, and there is none that was ever healthy beside it.
    let revisions = || -> Vec<(Value, Value, Value)> {
        let all = lab.ok(&["revisions", "web", "--json"]).out;
        let all: Value = serde_json::from_str(&all).expect("JSON");
        let all = all.as_array().cloned().unwrap_or_default();
        all.iter()
            .map(|it| ["current", "health", "why"].map(|key| it[key].clone()).into())
            .collect()
    };
    let healthy = ("healthy".into(), "apply".into());
    let failed = ("failed".into(), "apply".into());
    let of = |current: bool, (health, why): &(Value, Value)| {
        (current.into(), health.clone(), why.clone())
    };
    assert_eq!(revisions(), [of(true, &healthy), of(false, &failed), of(false, &failed)]);
    assert!(lab.ok(&["revisions", "web"]).out.contains("revision 3: instance web/0 crashed 3"));
    let ran = lab.run(&["rollback", "web"]);
    assert!(ran.code == 4 && ran.err.contains("that was ever healthy"), "{}", ran.err);
    // A good one is a good one.
    lab.ok(&["apply", &versioned(&lab, "3", "")]);
    let view = lab.until_state("web", "running");
    assert_eq!((view["reason"].as_str(), handles(&view).contains(&old[0])), (None, false));
    // From that one it goes back past those that were never healthy.
    lab.ok(&["rollback", "web"]);
    let last = revisions().pop().expect("one");
    assert_eq!((last.0, last.2), (true.into(), "rollback to 1".into()));
    lab.finish();
}

/// A probe that looks often.
const OFTEN: &str = "interval = { unhealthy = \"100ms\", healthy = \"30s\" }\n";

/// Row 83: a version that runs and is never ready goes back when its start timeout is over; the old
/// instance serves all the time, and why the new one was not ready is shown meanwhile.
#[test]
fn row_83_a_version_that_runs_and_is_never_ready_goes_back() {
    let lab = Lab::start("unready");
    let app = |version: &str, script: &str| {
        let manifest = format!(
            "{SMALL}[health]\nstart_timeout = \"5s\"\n{OFTEN}\n[readiness]\ntype = \"exec\"\n\
             command = \"test -e /tmp/ready || {{ echo no flag; exit 1; }}\"\n{OFTEN}\n\
             [env]\nVERSION = \"{version}\"\n\n[[port]]\ncontainer = 8080\npublish = 8000\n"
        );
        lab.app("web", script, &manifest)
    };
    lab.ok(&["apply", &app("1", &format!("touch /tmp/ready\n{WEB}"))]);
    lab.until("the first one is ready", |_| get("127.0.0.1", 8000));
    let old = handles(&lab.view("web"));
    lab.ok(&["apply", "--no-wait", &app("2", WEB)]);
    let why = lab.until("it runs, is not ready, and says why", |lab| {
        let all = instances(&lab.view("web"));
        let new = all.into_iter().find(|one| one["outdated"] == false && one["ready"] == false);
        new.and_then(|one| one["unready"].as_str().map(str::to_owned))
    });
    assert!(why.contains("no flag"), "{why}");
    assert!(lab.run(&["app", "web"]).out.contains("is not ready: "));
    assert!(lab.run(&["status"]).out.contains("\nweb: web/0 is not ready: "));
    assert!(lab.run(&["explain", "web"]).out.contains("no flag"));
    let text = lab.run(&["explain", "web"]).out;
    assert!(text.contains("its new version takes over from the one before"), "{text}");
    assert!(text.contains("web (of the version before) is running"), "{text}");
    let view = lab.until("it has gone back", |lab| {
        let view = lab.view("web");
        (view["state"] == "running" && view["reason"].is_string()).then_some(view)
    });
    let reason = view["reason"].as_str().unwrap_or_default();
    assert!(reason.contains("runs and was not ready within 5s"), "{reason}");
    assert_eq!(handles(&view), old, "the old one was not touched");
    assert!(get("127.0.0.1", 8000).is_some());
    let events = lab.ok(&["events"]).out;
    let back: Vec<_> = events.lines().filter(|it| it.contains("desired_lrp_rolled_back")).collect();
    assert!(back.len() == 1 && back[0].contains("was not ready"), "{events}");
    let text = lab.run(&["explain", "web"]).out;
    assert!(text.contains("its new version was tried, and gave way to the one before"), "{text}");
    // The same where nothing older serves beside it: it goes back all the same.
    let recreate = app("3", WEB);
    let text = std::fs::read_to_string(&recreate).expect("manifest");
    std::fs::write(&recreate, format!("{text}\n[rollout]\nstrategy = \"recreate\"\n"))
        .expect("manifest");
    lab.ok(&["apply", "--no-wait", &recreate]);
    lab.until("the old one makes way", |lab| (handles(&lab.view("web")) != old).then_some(()));
    let view = lab.until("it has gone back", |lab| {
        let view = lab.view("web");
        (view["state"] == "running" && view["reason"].is_string()).then_some(view)
    });
    let reason = view["reason"].as_str().unwrap_or_default();
    assert!(reason.contains("runs and was not ready within 5s"), "{reason}");
    lab.until("the version before serves again", |_| get("127.0.0.1", 8000));
    lab.finish();
}

/// Row 83: one that does not get healthy in its start timeout has failed at once, and what is logged of
/// its end does not say that it starts again.
#[test]
fn row_83_a_version_that_is_not_healthy_in_its_time_goes_back_at_once() {
    let lab = Lab::start("toolate");
    let health = format!("[health]\nstart_timeout = \"2s\"\n{OFTEN}\n");
    let app = |script: &str| lab.app("web", script, &format!("{SMALL}{health}{}", super::PORT));
    lab.ok(&["apply", &app(WEB)]);
    let old = handles(&lab.until_state("web", "running"));
    let ran = lab.run(&["apply", &app("exec sleep 100000\n")]);
    assert_ne!(ran.code, 0, "{}", ran.out);
    let view = lab.until_state("web", "running");
    let reason = view["reason"].as_str().unwrap_or_default();
    assert!(reason.contains("crashed once and was never healthy"), "{reason}");
    assert_eq!(handles(&view), old, "the old one was not touched");
    let crashes = lab.logged("web", " crashed: ");
    assert_eq!(crashes.len(), 1, "{crashes:?}");
    assert!(crashes[0].ends_with("its version gives way to the one before"), "{crashes:?}");
    assert!(lab.logged("web", "starts again").is_empty());
    lab.finish();
}

/// Row 82: `max_in_flight` are replaced side by side, and no more.
#[test]
fn row_82_as_many_are_replaced_side_by_side_as_the_manifest_says() {
    let lab = Lab::start("inflight");
    let more = "instances = 4\n";
    let slow = |version: &str, command: &str| {
        let rollout = "\n[rollout]\nmax_in_flight = 2\n";
        versioned(&lab, version, &format!("{more}{command}{rollout}"))
    };
    lab.ok(&["apply", &slow("1", "")]);
    let old = handles(&lab.until_state("web", "running"));
    let command = "command = \"sleep 3; exec sh app.sh\"\n";
    lab.ok(&["apply", "--no-wait", &slow("2", command)]);
    let mut most = 0;
    let new = lab.until("all are of the new version", |lab| {
        let view = lab.view("web");
        let all = instances(&view);
        let new = all.iter().filter(|one| one["outdated"] == false);
        let starting = new.filter(|one| one["state"] == "starting").count();
        let serving = all.iter().filter(|one| one["state"] == "running").count();
        assert!(starting <= 2 && serving >= 4, "{view:#}");
        most = most.max(starting);
        let done = view["state"] == "running" && !handles(&view).iter().any(|it| old.contains(it));
        done.then(|| handles(&view))
    });
    assert_eq!((most, new.len()), (2, 4));
    lab.finish();
}

/// Row 83: where the box has no room for both, the old one goes first, and the log says so.
#[test]
fn where_two_do_not_fit_the_old_instance_stops_first() {
    let mut lab = Lab::new("tight");
    lab.configure("tight", "[cell]\nmemory = \"100MiB\"\n");
    lab.serve();
    let app = |version: &str| {
        let manifest = format!(
            "[run]\nmemory = \"64MiB\"\ndisk = \"32MiB\"\n\n[env]\nVERSION = \"{version}\"\n\n{PORT}"
        );
        lab.app("web", WEB, &manifest)
    };
    lab.ok(&["apply", &app("1")]);
    let old = handles(&lab.until_state("web", "running"));
    // Staging would find no room beside it.
    lab.ok(&["restart", "web"]);
    let new = lab.until("the new one runs", |lab| {
        let view = lab.view("web");
        (view["state"] == "running" && handles(&view) != old).then(|| handles(&view))
    });
    assert_eq!(new.len(), 1);
    assert_eq!(lab.logged("web", "The box has no room for two").len(), 1);
    lab.finish();
}

/// Row 16: a new instance guid in the same index; what is wanted stays, and the others do not notice.
#[test]
fn one_index_is_made_afresh() {
    let lab = Lab::start("afresh");
    let manifest = format!("{SMALL}instances = 2\n\n{PORT}");
    lab.ok(&["apply", &lab.app("web", WEB, &manifest)]);
    let old = handles(&lab.until_state("web", "running"));
    lab.ok(&["restart", "web/1"]);
    let view = lab.until("a fresh one runs", |lab| {
        let view = lab.view("web");
        (view["state"] == "running" && handles(&view) != old).then_some(view)
    });
    let (new, all) = (handles(&view), instances(&view));
    assert_eq!(new[0], old[0]);
    assert_ne!(new[1], old[1]);
    assert_eq!(all[1]["death"]["cause"]["by"], "restart_index", "{:#}", all[1]);
    assert_eq!(
        (all.len(), all[1]["index"].as_u64(), all[1]["crash_count"].as_u64()),
        (2, Some(1), Some(0))
    );
    assert_eq!(view["processes"][0]["desired"], 2);
    assert_eq!(lab.run(&["restart", "web/7"]).code, 4, "there is no such instance");
    // One that waits after its crashes starts at once.
    let script = "exit 7\n";
    let manifest = format!("{SMALL}\n[health]\ntype = \"process\"\n");
    lab.run(&["apply", &lab.app("bad", script, &manifest)]);
    lab.until_state("bad", "crashed");
    lab.ok(&["restart", "bad/0"]);
    lab.until("it was tried again", |lab| {
        (lab.logged("bad", "crashed: ").len() >= 6).then_some(())
    });
    lab.finish();
}

/// Row 8: the number of instances, the published port and the restart policy change around running
/// instances; memory makes new ones.
#[test]
fn what_may_change_in_place_restarts_nothing() {
    let lab = Lab::start("inplace");
    let app = |instances: u32, memory: u32, publish: u16, more: &str| {
        let manifest = format!(
            "[run]\ninstances = {instances}\nmemory = \"{memory}MiB\"\ndisk = \"32MiB\"\n\n\
             [[port]]\ncontainer = 8080\npublish = {publish}\n{more}"
        );
        lab.app("web", WEB, &manifest)
    };
    lab.ok(&["apply", &app(1, 32, 8000, "")]);
    let old = handles(&lab.until_state("web", "running"));
    let more = "\n[restart]\npolicy = \"on-failure\"\n\n[rollout]\nmax_in_flight = 2\n";
    lab.ok(&["apply", &app(2, 32, 8001, more)]);
    let view = lab.until_state("web", "running");
    assert_eq!((handles(&view).len(), &handles(&view)[0]), (2, &old[0]));
    assert!(get("127.0.0.1", 8001).is_some() && get("127.0.0.1", 8000).is_none());
    lab.ok(&["apply", &app(2, 33, 8001, more)]);
    let view = lab.until_state("web", "running");
    assert!(!handles(&view).contains(&old[0]), "{view:#}");
    lab.finish();
}

/// A daemon that is killed in the middle of a rollout: the next one goes on, and the instance that
/// serves is served through both.
#[test]
fn a_rollout_goes_on_after_the_daemon_was_killed() {
    let mut lab = Lab::start("resume");
    lab.ok(&["apply", &versioned(&lab, "1", "")]);
    let old = handles(&lab.until_state("web", "running"));
    let slow = "command = \"sleep 3; exec sh app.sh\"\n";
    lab.ok(&["apply", "--no-wait", &versioned(&lab, "2", slow)]);
    lab.until("the new one stands beside the old one", |lab| {
        let states: Vec<_> = instances(&lab.view("web"))
            .iter()
            .map(|one| (one["state"].to_string(), one["outdated"] == true))
            .collect();
        let both = [("\"running\"".to_owned(), true), ("\"starting\"".to_owned(), false)];
        both.iter().all(|one| states.contains(one)).then_some(())
    });
    lab.end_daemon(Signal::SIGKILL);
    assert!(get("127.0.0.1", 8000).is_some(), "the old one serves without a daemon");
    lab.serve();
    let view = lab.until("the new one runs alone", |lab| {
        let view = lab.view("web");
        let done = view["state"] == "running" && !handles(&view).contains(&old[0]);
        done.then_some(view)
    });
    assert_eq!(handles(&view).len(), 1, "{view:#}");
    assert_eq!(lab.inside("web", "echo $VERSION").out.trim(), "2");
    lab.finish();
}
