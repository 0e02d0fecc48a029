//! Whole instances: what begins when, what ends what, what a container has beside its layers.

use super::{Stage, archives, run, sh};
use crate::container::{run as run_in, shell, spec};
use crate::lab::{Lab, alone};
use std::fs::{self, File};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;
use terrarium::container::Fault;
use terrarium::exec::assembly::{Begin, Told, keep};
use terrarium::exec::cancel::{self, Canceller};
use terrarium::exec::health::Monitor;
use terrarium::exec::places;
use terrarium::exec::steps::StepResult;
use terrarium::exec::streams::Sink;
use terrarium::exec::turns::Pool;
use terrarium::init::proto::Bind;
use terrarium::model::manifest::{Check, Health};
use terrarium::model::process::{ExitStatus, ProcessSpec};
use terrarium::model::work::{NOTIFY_NAME, Work};

fn health(check: Check) -> Health {
    let often = Duration::from_millis(50);
    Health {
        check,
        start_timeout: Duration::from_secs(60),
        interval_unhealthy: often,
        interval_healthy: often,
        timeout: Duration::from_secs(20),
        failures: 1,
        also: Vec::new(),
    }
}

/// Keeps an instance until it ends; `on_healthy` may stop it.
fn live(stage: &Stage, work: &Work, on_healthy: impl Fn(&Canceller) + Send + Sync) -> StepResult {
    let (canceller, cancel) = cancel::pair();
    let (work, health) = (places::named(work), health(Check::Process));
    let monitor = Monitor {
        exec: &stage.exec,
        address: Ipv4Addr::LOCALHOST,
        work: &work,
        health: &health,
        readiness: None,
        sink: Sink { source: "HEALTH".into(), ..stage.exec.sink.clone() },
        pool: Arc::new(Pool::new(1)),
        programs: Arc::new(Pool::new(1)),
    };
    let tell = |told: Told| -> std::pin::Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        let (canceller, on_healthy) = (&canceller, &on_healthy);
        Box::pin(async move {
            if told == Told::Healthy {
                on_healthy(canceller);
            }
        })
    };
    smol::block_on(keep(&stage.exec, &monitor, Begin::Fresh, &tell, &cancel))
}

/// Row 43: setup to its end, then the action, then the check; healthy only when that has passed.
#[test]
fn row_43_setup_comes_first_and_healthy_is_when_the_monitor_passes() {
    if !alone(module_path!(), "row_43_setup_comes_first_and_healthy_is_when_the_monitor_passes") {
        return;
    }
    let stage = Stage::new("assembly");
    let work = Work {
        setup: Some(run("SETUP", "echo first")),
        monitor: Some(run("", "test -e /tmp/up")),
        ..Work::new(run("APP", "trap 'exit 0' TERM; touch /tmp/up; while :; do sleep 0.1; done"))
    };
    let end = live(&stage, &work, Canceller::cancel);
    assert_eq!(end.expect_err("it was stopped").to_string(), "cancelled");
    let said = stage.said();
    let wanted = [
        "SETUP OUT first",
        "SETUP OUT Exit status 0",
        "CELL OUT Starting health monitoring of container",
        "CELL OUT Container became healthy",
        "APP OUT Exit status 0",
    ];
    assert_eq!(said, wanted);
    stage.close();
}

/// Row 15, 44: with a monitor a program may put itself into the background; the monitor's output
/// says why the instance has ended.
#[test]
fn row_44_with_a_monitor_the_end_of_the_action_is_not_that_of_the_instance() {
    if !alone(
        module_path!(),
        "row_44_with_a_monitor_the_end_of_the_action_is_not_that_of_the_instance",
    ) {
        return;
    }
    let stage = Stage::new("daemonised");
    let monitor = "if test -e /tmp/down; then echo it is down; exit 1; fi";
    let work = Work {
        monitor: Some(run("", monitor)),
        ..Work::new(run("APP", "(sleep 1; touch /tmp/down) & exit 0"))
    };
    let end = live(&stage, &work, |_| {});
    assert_eq!(end.expect_err("it fails").to_string(), "Instance became unhealthy: it is down");
    let said = stage.said();
    assert!(said.contains(&"APP OUT Exit status 0".to_owned()), "{said:?}");
    assert!(said.contains(&"HEALTH ERR it is down".to_owned()), "{said:?}");
    assert!(!said.iter().any(|line| line.starts_with("HEALTH OUT Exit")), "{said:?}");
    stage.close();

    let stage = Stage::new("alone");
    live(&stage, &Work::new(sh("exit 0")), |_| {}).expect("without a monitor it has ended");
    stage.close();
}

/// Row 51: an archive that is unpacked once is shown to every container, and none can write to it.
#[test]
fn row_51_a_cached_tree_is_read_only_in_every_container() {
    if !alone(module_path!(), "row_51_a_cached_tree_is_read_only_in_every_container") {
        return;
    }
    let lab = Lab::new("trees");
    let host = lab.host();
    let tar = &archives(&lab.state.join("made"), "hello")[0];
    let path = lab.state.join("a.tar");
    fs::write(&path, tar).expect("write");
    let import = || terrarium::image::import_tree(host.store(), File::open(&path).expect("open"));
    let (tree, _pin) = import().expect("import");
    assert_eq!(import().expect("again").0, tree, "it is known by its bytes");
    for name in ["one", "two"] {
        let mut spec = spec(&lab, name);
        spec.trees = vec![tree];
        spec.binds = vec![Bind {
            from: host.store().layer(&tree).expect("it is there"),
            origin: Default::default(),
            to: "/opt/dependency".into(),
            read_only: true,
            mapped: true,
            ours: false,
        }];
        let container = host.create(spec, Fault::None).expect("create");
        let script = "cd /opt/dependency/bin && test \"$(cat hello)\" = hello && \
                      { echo x >> hello; } 2>&1 | grep -q 'Read-only file system' && \
                      mkdir new 2>&1 | grep -q 'Read-only file system'";
        assert_eq!(run_in(&container, "look", script), ExitStatus::Exited(0));
    }
    for name in ["one", "two"] {
        host.destroy(&name.parse().expect("handle")).expect("destroy");
    }
    lab.close(host);
}

/// What an app says to pid 1 is kept, whoever asks and when; what comes from elsewhere has no way in.
#[test]
fn pid_1_keeps_what_the_app_says_of_itself() {
    if !alone(module_path!(), "pid_1_keeps_what_the_app_says_of_itself") {
        return;
    }
    let stage = Stage::with("notify", |spec| spec.notify = true);
    let container = &stage.exec.container;
    let said = || smol::block_on(container.notified()).expect("an answer");
    assert!(!said().ready && said().status.is_empty());
    let tell = |id: &str, words: &[&str]| {
        let spec = ProcessSpec {
            path: "/tmp/lifecycle/notify".into(),
            args: words.iter().map(|word| (*word).into()).collect(),
            env: vec![("NOTIFY_SOCKET".into(), format!("@{NOTIFY_NAME}"))],
            ..shell(id, "")
        };
        smol::block_on(async {
            container.start(spec).await.expect("start").wait().await.expect("its end")
        })
    };
    assert_eq!(tell("a", &["READY=1", "STATUS=serving"]), ExitStatus::Exited(0));
    let now = said();
    assert_eq!((now.ready, now.stopping, now.status.as_str()), (true, false, "serving"));
    assert_eq!(tell("b", &["STOPPING=1"]), ExitStatus::Exited(0));
    assert!(said().ready && said().stopping);
    // The name means nothing in the box's own network.
    use std::os::linux::net::SocketAddrExt;
    let name = std::os::unix::net::SocketAddr::from_abstract_name(NOTIFY_NAME).expect("name");
    let ours = std::os::unix::net::UnixDatagram::unbound().expect("socket");
    assert!(ours.send_to_addr(b"STATUS=forged", &name).is_err());
    stage.close();

    let stage = Stage::new("deaf");
    let refused = smol::block_on(stage.exec.container.notified()).expect_err("it has no socket");
    assert!(refused.to_string().contains("without a socket for sd_notify"), "{refused}");
    stage.close();
}

/// A launcher has started when it has become the app: one that cannot be executed never has, and its
/// name is told.
#[test]
fn a_launcher_that_cannot_become_its_app_never_started() {
    if !alone(module_path!(), "a_launcher_that_cannot_become_its_app_never_started") {
        return;
    }
    let stage = Stage::new("launcher");
    let container = &stage.exec.container;
    let launch = |id: &str, program: &str| {
        let metadata = format!("{{\"entrypoint\":[\"{program}\",\"-c\",\"exit 0\"]}}");
        let spec = ProcessSpec {
            path: "/tmp/lifecycle/docker-launcher".into(),
            args: vec!["app".into(), String::new(), metadata],
            launches: true,
            ..shell(id, "")
        };
        smol::block_on(container.start(spec))
    };
    for (program, why) in [
        ("/bin/none", "program `/bin/none` is not in the container"),
        ("nowhere", "program `nowhere` is not in the container"),
        ("/etc/passwd", "program `/etc/passwd` may not be executed"),
    ] {
        let refused = launch("app", program).err().expect("refused").to_string();
        assert!(refused.contains(why), "{refused}");
    }
    let good = launch("app", "/bin/sh").expect("start");
    assert_eq!(smol::block_on(good.wait()).expect("its end"), ExitStatus::Exited(0));
    drop(good);
    // Nobody else learns of the descriptor.
    let spec = ProcessSpec {
        path: "/tmp/lifecycle/docker-launcher".into(),
        args: vec![
            "app".into(),
            "test -z \"$TERRARIUM_LAUNCH_FD\"; set -- $? /proc/self/fd/*; test $1$# -le 5".into(),
            String::new(),
        ],
        launches: true,
        ..shell("look", "")
    };
    let look = smol::block_on(container.start(spec)).expect("start");
    assert_eq!(smol::block_on(look.wait()).expect("its end"), ExitStatus::Exited(0));
    drop(look);
    stage.close();
}

/// A check that takes too long is ended with all that it has started, try after try.
#[test]
fn row_44_a_check_that_hangs_leaves_no_process() {
    if !alone(module_path!(), "row_44_a_check_that_hangs_leaves_no_process") {
        return;
    }
    let stage = Stage::new("hangs");
    let work = places::named(&Work::new(sh("exec sleep 1000")));
    let command = ["/bin/sh", "-c", "echo asked; sleep 1000; true"].map(str::to_owned).to_vec();
    let health = Health {
        start_timeout: Duration::from_millis(500),
        timeout: Duration::from_millis(200),
        ..health(Check::Exec { command })
    };
    let monitor = Monitor {
        exec: &stage.exec,
        address: Ipv4Addr::LOCALHOST,
        work: &work,
        health: &health,
        readiness: None,
        sink: Sink { source: "HEALTH".into(), ..stage.exec.sink.clone() },
        pool: Arc::new(Pool::new(1)),
        programs: Arc::new(Pool::new(1)),
    };
    let (_canceller, cancel) = cancel::pair();
    let end = smol::block_on(monitor.startup(&cancel)).expect_err("it never passes");
    let text = "Instance never healthy after 500ms: timed out after 200ms: asked";
    assert_eq!(end.to_string(), text);
    let left = "for it in /proc/[0-9]*/cmdline; do grep -q [s]leep $it && exit 1; done; exit 0";
    let ended = || run_in(&stage.exec.container, "left", left) == ExitStatus::Exited(0);
    let begin = std::time::Instant::now();
    while !ended() {
        assert!(begin.elapsed() < Duration::from_secs(20), "processes of checks are left");
    }
    stage.close();
}

/// A check that runs a program waits behind others that do, and what only connects does not; that it
/// waits is no part of the time that the app has to start.
#[test]
fn row_44_checks_that_run_programs_hold_up_no_others_and_their_turns_cost_no_start_time() {
    if !alone(
        module_path!(),
        "row_44_checks_that_run_programs_hold_up_no_others_and_their_turns_cost_no_start_time",
    ) {
        return;
    }
    let stage = Stage::new("turns");
    // Fails the first time, which is the end once the start timeout is over.
    let monitor = "test -e /tmp/asked || { : > /tmp/asked; exit 1; }";
    let work = places::named(&Work {
        monitor: Some(run("", monitor)),
        ..Work::new(sh("exec sleep 1000"))
    });
    let programs = Arc::new(Pool::new(1));
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("its number").port();
    let limit = Duration::from_secs(5);
    let startup = |check: Check| {
        let health = Health { start_timeout: limit, ..health(check) };
        let (stage, work, programs) = (&stage, &work, programs.clone());
        async move {
            let monitor = Monitor {
                exec: &stage.exec,
                address: Ipv4Addr::LOCALHOST,
                work,
                health: &health,
                readiness: None,
                sink: Sink { source: "HEALTH".into(), ..stage.exec.sink.clone() },
                pool: Arc::new(Pool::new(1)),
                programs,
            };
            let (_canceller, cancel) = cancel::pair();
            monitor.startup(&cancel).await
        }
    };
    smol::block_on(async {
        let hangs = programs.enter().await;
        startup(Check::Port { port }).await.expect("it waits for nobody");
        let frees = async {
            smol::Timer::after(limit).await;
            drop(hangs);
        };
        let (end, ()) = smol::future::zip(startup(Check::Process), frees).await;
        end.expect("it had its time after its turn had come");
    });
    stage.close();
}
