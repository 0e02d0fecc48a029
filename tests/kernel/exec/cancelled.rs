//! Every action cancelled while it is at it: its text, its lines, and nothing left in the container.
//! What is known of the original is section 3.1 of its executor's description: a cancelled step's
//! error is `cancelled`, which is left out among several.

use super::server::{Request, Server};
use super::{Stage, ask_for_end, assert_idle, download, run};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::net::Ipv4Addr;
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use terrarium::exec::assembly::{Begin, Told, keep};
use terrarium::exec::cancel;
use terrarium::exec::health::Monitor;
use terrarium::exec::places;
use terrarium::exec::turns::Pool;
use terrarium::model::action::{Action, UploadAction};
use terrarium::model::manifest::{Check, Health};
use terrarium::model::work::Work;

use crate::lab::alone;

/// Ends when it is told to, and says so.
fn up(source: &str) -> Action {
    run(source, "trap 'echo bye; exit 7' TERM; echo up; while :; do sleep 0.1; done")
}

fn next() -> Action {
    run("NEXT", "echo next")
}

struct Case {
    name: &'static str,
    action: Action,
    /// How many have to be up before it is cancelled.
    up: usize,
    /// Its error's text; `None`: it does not fail.
    end: Option<&'static str>,
    /// In order of the alphabet.
    said: Vec<&'static str>,
}

fn cases() -> Vec<Case> {
    let one = || vec!["A OUT Exit status 7", "A OUT bye", "A OUT up"];
    let two = || [one(), vec!["B OUT Exit status 7", "B OUT bye", "B OUT up"]].concat();
    let progress = |prefix: &str| Action::EmitProgress {
        action: Box::new(up("A")),
        start_message: String::new(),
        success_message: "well".into(),
        failure_message_prefix: prefix.into(),
    };
    let case = |name, action, up, end, said| Case { name, action, up, end, said };
    let tried = || Action::Try(Box::new(up("A")));
    let hour = Duration::from_secs(3600);
    vec![
        case("run", up("A"), 1, Some("cancelled"), one()),
        case("serial", Action::Serial(vec![up("A"), next()]), 1, Some("cancelled"), one()),
        case("parallel", Action::Parallel(vec![up("A"), up("B")]), 2, Some(""), two()),
        case("codependent", Action::Codependent(vec![up("A"), up("B")]), 2, Some(""), two()),
        case("try", tried(), 1, None, one()),
        case(
            "try before others",
            Action::Serial(vec![tried(), next()]),
            1,
            Some("cancelled"),
            one(),
        ),
        case("progress", progress("lost"), 1, Some("cancelled"), {
            [one(), vec!["CELL ERR lost"]].concat()
        }),
        case("progress that says nothing", progress(""), 1, Some("cancelled"), one()),
        case(
            "timeout",
            Action::Timeout { action: Box::new(up("A")), timeout: hour },
            1,
            Some("cancelled"),
            one(),
        ),
    ]
}

#[test]
fn row_39_a_cancelled_action_of_each_kind_ends_as_it_should_and_leaves_nothing() {
    if !alone(
        module_path!(),
        "row_39_a_cancelled_action_of_each_kind_ends_as_it_should_and_leaves_nothing",
    ) {
        return;
    }
    let stage = Stage::new("cancelled");
    for Case { name, action, up, end, said } in cases() {
        let log = stage.logs.app(&"stage".parse().expect("name"));
        let before = log.last(1000, |line| line.text == "up").len();
        let is_up = || log.last(1000, |line| line.text == "up").len() == before + up;
        let done = ask_for_end(&stage, &action, is_up);
        assert_eq!(done.err().map(|err| err.to_string()).as_deref(), end, "{name}");
        let mut lines = stage.said();
        lines.sort();
        assert_eq!(lines, said, "{name}");
        assert_idle(&stage);
    }
    stage.close();
}

#[test]
fn row_39_what_waits_for_a_server_is_given_up_at_once() {
    if !alone(module_path!(), "row_39_what_waits_for_a_server_is_given_up_at_once") {
        return;
    }
    let stage = Stage::new("waiting");
    stage.perform(&run("", "echo x > /tmp/droplet")).expect("made");
    stage.said();
    // It answers when the test is over.
    let (over, wait) = mpsc::channel::<()>();
    let wait = Mutex::new(wait);
    let server = Server::start(move |_: &Request| {
        let _ = wait.lock().expect("one at a time").recv();
        None
    });
    let upload = UploadAction {
        from: "/tmp/droplet".into(),
        to: format!("{}/droplet", server.url),
        user: "root".into(),
        artifact: "droplet".into(),
        log_source: "STG".into(),
    };
    let mut kept = download(format!("{}/x", server.url), "/tmp/x");
    kept.cache_key = "bits".into();
    // The second waits for its turn behind the server's one connection.
    let both = vec![Action::Download(kept.clone()), Action::Download(kept)];
    let done = ask_for_end(&stage, &Action::Parallel(both), || server.seen().len() == 1);
    assert_eq!(done.expect_err("cancelled").to_string(), "");
    assert_eq!(stage.said(), ["STG OUT Downloading bits..."; 2]);
    assert_idle(&stage);
    drop(over);
    drop(server);

    let (over, wait) = mpsc::channel::<()>();
    let wait = Mutex::new(wait);
    let server = Server::start(move |_: &Request| {
        let _ = wait.lock().expect("one at a time").recv();
        None
    });
    let upload = UploadAction { to: format!("{}/droplet", server.url), ..upload };
    let done = ask_for_end(&stage, &Action::Upload(upload), || server.seen().len() == 1);
    assert_eq!(done.expect_err("cancelled").to_string(), "cancelled");
    assert_eq!(stage.said(), ["STG OUT Uploading droplet..."]);
    assert_idle(&stage);
    drop(over);
    stage.close();
}

/// Pid 1 does not answer: the step ends all the same, and what is started after all is ended.
#[test]
fn row_39_a_process_that_is_being_created_is_given_up_at_once() {
    if !alone(module_path!(), "row_39_a_process_that_is_being_created_is_given_up_at_once") {
        return;
    }
    let stage = Stage::new("late");
    let (pid, _) = stage.exec.container.entry().pid.expect("it runs");
    kill(Pid::from_raw(pid), Signal::SIGSTOP).expect("stop");
    let done = ask_for_end(&stage, &up("A"), || true);
    kill(Pid::from_raw(pid), Signal::SIGCONT).expect("go on");
    assert_eq!(done.expect_err("cancelled").to_string(), "cancelled");
    assert_idle(&stage);
    assert_eq!(stage.said(), [""; 0]);
    stage.close();
}

#[test]
fn row_43_a_cancelled_setup_is_the_end_of_the_instance() {
    if !alone(module_path!(), "row_43_a_cancelled_setup_is_the_end_of_the_instance") {
        return;
    }
    let stage = Stage::new("setup");
    let work = places::named(&Work { setup: Some(up("A")), ..Work::new(next()) });
    let often = Duration::from_millis(50);
    let health = Health {
        check: Check::Process,
        start_timeout: Duration::from_secs(60),
        interval_unhealthy: often,
        interval_healthy: often,
        timeout: often,
        failures: 1,
        also: Vec::new(),
    };
    let monitor = Monitor {
        exec: &stage.exec,
        address: Ipv4Addr::LOCALHOST,
        work: &work,
        health: &health,
        readiness: None,
        sink: stage.exec.sink.clone(),
        pool: Arc::new(Pool::new(1)),
        programs: Arc::new(Pool::new(1)),
    };
    let (canceller, cancel) = cancel::pair();
    let tell = |_: Told| -> std::pin::Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(std::future::ready(()))
    };
    let log = stage.logs.app(&"stage".parse().expect("name"));
    let watch = async {
        super::until(|| !log.last(1, |line| line.text == "up").is_empty()).await;
        canceller.cancel();
    };
    let kept = keep(&stage.exec, &monitor, Begin::Fresh, &tell, &cancel);
    let (end, ()) = smol::block_on(smol::future::zip(kept, watch));
    assert_eq!(end.expect_err("cancelled").to_string(), "cancelled");
    assert_eq!(stage.said(), ["A OUT up", "A OUT bye", "A OUT Exit status 7"]);
    assert_idle(&stage);
    stage.close();
}
