//! Containers of Garden's clients, without the wire. Each test is a process of its own: the backend
//! works on the pool, whose threads see the mounts of whoever began them.

use crate::lab::{Lab, alone, tool};
use smol::block_on;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use terrarium::container::{Host, IdMapping, Manner};
use terrarium::garden::{Backend, GardenError, Session, Settings, Which};
use terrarium::model::garden::{
    ContainerSpec, ImageRef, Limits, MemoryLimits, NetIn, Order, ProcessSpec, TtySpec,
};

/// A root of busybox as a tar, and a backend over the host.
fn backend(lab: &Lab, host: Host) -> (Arc<Host>, Backend) {
    backend_of(lab, host, Manner::default())
}

/// The same on a box that is set so.
fn backend_of(lab: &Lab, host: Host, manner: Manner) -> (Arc<Host>, Backend) {
    let host = Arc::new(host);
    let stacks = lab.state.join("stacks");
    if !stacks.exists() {
        make_stack(&stacks, &host.store().layer(&lab.layer).expect("the lab's layer"));
    }
    let settings = Settings {
        registries: Default::default(),
        stacks,
        default_rootfs: None,
        root: Default::default(),
        manner,
        containers_max: 4,
        grace: Duration::ZERO,
        external: "192.0.2.1".parse().expect("address"),
        depot: lab.state.join("depot"),
        memory_bytes: 1 << 30,
        store_max_bytes: 1 << 30,
    };
    let backend = Backend::new(host.clone(), settings);
    block_on(backend.adopt());
    (host, backend)
}

fn make_stack(stacks: &Path, from: &Path) {
    fs::create_dir(stacks).expect("directory");
    let (tar, from) = (stacks.join("tiny.tar.zst"), from.to_str().expect("UTF-8"));
    tool("tar", &["--zstd", "-cf", tar.to_str().expect("UTF-8"), "-C", from, "."]);
}

/// Takes the backend apart, with all that is left of clients' containers.
fn close(lab: Lab, host: Arc<Host>, backend: Backend) {
    for handle in backend.list(&[]) {
        block_on(backend.destroy(&handle)).expect("destroy");
    }
    lab.close(ended(host, backend));
}

/// The host of a backend that has ended.
fn ended(host: Arc<Host>, backend: Backend) -> Host {
    backend.close();
    drop(backend);
    let begin = std::time::Instant::now();
    while Arc::strong_count(&host) > 1 {
        assert!(begin.elapsed() < Duration::from_secs(60), "somebody holds on to the host");
        std::thread::park_timeout(Duration::from_millis(10));
    }
    Arc::into_inner(host).expect("nobody else")
}

fn named(handle: &str) -> ContainerSpec {
    ContainerSpec { handle: handle.into(), ..ContainerSpec::default() }
}

fn shell(script: &str) -> ProcessSpec {
    ProcessSpec {
        path: "/bin/sh".into(),
        args: vec!["-c".into(), script.into()],
        dir: "/".into(),
        ..ProcessSpec::default()
    }
}

/// All that a session's output says to its end.
fn heard(backend: &Backend, handle: &str, session: &Session, which: Which) -> String {
    let listener = backend
        .output(handle, &session.process_id, &session.stream_id, which)
        .expect("the stream is there");
    let mut said = Vec::new();
    block_on(async {
        while let Some(piece) = listener.next().await {
            said.extend(piece);
        }
    });
    String::from_utf8(said).expect("UTF-8")
}

fn exit(session: &Session) -> i32 {
    block_on(session.exit()).expect("the daemon goes on").expect("a status")
}

#[test]
fn a_client_makes_a_container_runs_in_it_and_destroys_it() {
    if !alone(module_path!(), "a_client_makes_a_container_runs_in_it_and_destroys_it") {
        return;
    }
    let lab = Lab::new("garden");
    let (host, backend) = backend(&lab, lab.host());
    let spec = ContainerSpec {
        env: vec!["A=container".into(), "B=container".into()],
        properties: [("owner".to_owned(), "me".to_owned())].into(),
        ..named("any/thing at all")
    };
    let handle = block_on(backend.create(spec.clone())).expect("create");
    assert_eq!(handle, "any/thing at all");
    let err = block_on(backend.create(spec)).expect_err("taken");
    assert_eq!(err.to_string(), "Handle 'any/thing at all' already in use");
    let filter = |value: &str| backend.list(&[("owner".into(), value.into())]);
    assert_eq!((filter("me"), filter("you")), (vec![handle.clone()], vec![]));

    let script = "read line; echo $A $B $line; echo low >&2; exit 42";
    let wanted = ProcessSpec { env: vec!["B=process".into()], ..shell(script) };
    let session = block_on(backend.run(&handle, wanted)).expect("run");
    block_on(async {
        session.order(Order::Input(b"typed\n".to_vec())).await;
        session.order(Order::EndOfInput).await;
    });
    assert_eq!(exit(&session), 42);
    assert_eq!(heard(&backend, &handle, &session, Which::Stdout), "container process typed\n");
    assert_eq!(heard(&backend, &handle, &session, Which::Stderr), "low\n");
    let late = block_on(backend.attach(&handle, &session.process_id)).expect("attach");
    assert_eq!(exit(&late), 42, "its end is remembered");
    assert_eq!(heard(&backend, &handle, &late, Which::Stdout), "");

    let info = block_on(backend.info(&handle)).expect("info");
    assert_eq!((&*info.state, &*info.external_ip), ("active", "192.0.2.1"));
    assert_eq!(info.properties["garden.network.container-ip"], info.container_ip);
    block_on(backend.destroy(&handle)).expect("destroy");
    assert_eq!(block_on(backend.destroy(&handle)), Err(GardenError::UnknownHandle(handle.clone())));
    close(lab, host, backend);
}

#[test]
fn what_cannot_be_run_says_why_in_gardens_words() {
    if !alone(module_path!(), "what_cannot_be_run_says_why_in_gardens_words") {
        return;
    }
    let lab = Lab::new("gardenwords");
    let (host, backend) = backend(&lab, lab.host());
    let handle = block_on(backend.create(ContainerSpec::default())).expect("create");
    assert_eq!(handle.len(), 11);
    let refused = |spec: ProcessSpec| block_on(backend.run(&handle, spec)).err().expect("refused");
    let nothing = ProcessSpec { path: "nothing".into(), ..ProcessSpec::default() };
    let err = refused(nothing);
    assert!(
        matches!(&err, GardenError::NoExecutable(text)
        if text.contains("executable file not found in $PATH")),
        "{err:?}"
    );
    let err = refused(ProcessSpec { user: "alice".into(), ..shell("true") });
    let text = "unable to find user alice: no matching entries in passwd file";
    assert_eq!(err.to_string(), text);
    let err = refused(ProcessSpec { user: "root:alice".into(), ..shell("true") });
    assert!(err.to_string().starts_with("unable to find group alice"), "{err}");
    let twice = ProcessSpec { id: "Some ID".into(), ..shell("read line") };
    let first = block_on(backend.run(&handle, twice.clone())).expect("run");
    assert!(refused(twice).to_string().contains("already in use"));
    let unknown = block_on(backend.attach(&handle, "other")).err();
    assert_eq!(unknown, Some(GardenError::UnknownProcess("other".into())));
    block_on(backend.destroy(&handle)).expect("destroy");
    assert_eq!(exit(&first), 137, "it went with its container");
    let none = block_on(backend.create(ContainerSpec {
        image: ImageRef { uri: "preloaded:none".into(), ..ImageRef::default() },
        ..ContainerSpec::default()
    }));
    assert!(none.expect_err("no such stack").to_string().starts_with("there is no stack `none`"));
    close(lab, host, backend);
}

#[test]
fn everything_is_there_again_after_a_restart_of_the_daemon() {
    if !alone(module_path!(), "everything_is_there_again_after_a_restart_of_the_daemon") {
        return;
    }
    let lab = Lab::new("gardenagain");
    let (host, first) = backend(&lab, lab.host());
    let spec = ContainerSpec {
        netin: vec![NetIn { host_port: 0, container_port: 8080 }],
        network: "10.77.0.0/24".into(),
        properties: [("owner".to_owned(), "me".to_owned())].into(),
        ..named("web")
    };
    block_on(first.create(spec)).expect("create");
    let added = block_on(first.net_in("web", NetIn { host_port: 70, container_port: 0 }));
    assert_eq!(added.expect("port"), NetIn { host_port: 70, container_port: 70 });
    block_on(first.set_property("web", "key", "value")).expect("set");
    let wanted = ProcessSpec { id: "A b".into(), ..shell("echo early; read x; echo $x; exit 7") };
    let session = block_on(first.run("web", wanted)).expect("run");
    let out = first.output("web", "A b", &session.stream_id, Which::Stdout).expect("the stream");
    assert_eq!(block_on(out.next()).as_deref(), Some(&b"early\n"[..]));
    let before = block_on(first.info("web")).expect("info");
    assert_eq!(before.mapped_ports.len(), 2);
    assert!(before.container_ip.starts_with("10.77.0."), "{before:?}");
    first.close();
    assert_eq!(block_on(session.exit()), None, "the daemon ends, the process goes on");
    drop((session, out));

    let (host, second) = backend(&lab, lab.host_of(ended(host, first).into_parts()));
    assert_eq!(second.list(&[("key".into(), "value".into())]), ["web"]);
    assert_eq!(block_on(second.info("web")).expect("info"), before);
    let session = block_on(second.attach("web", "A b")).expect("attach");
    assert_eq!(session.process_id, "A b");
    block_on(session.order(Order::Input(b"again\n".to_vec())));
    assert_eq!(exit(&session), 7, "its input was kept open");
    assert_eq!(heard(&second, "web", &session, Which::Stdout), "again\n");
    close(lab, host, second);
}

#[test]
fn names_of_processes_that_are_not_there_are_not_kept() {
    if !alone(module_path!(), "names_of_processes_that_are_not_there_are_not_kept") {
        return;
    }
    let lab = Lab::new("gardennames");
    let (host, first) = backend(&lab, lab.host());
    block_on(first.create(named("a"))).expect("create");
    let name = host.list().expect("list").remove(0);
    let kept = |host: &Host| {
        let owner = host.entry(&name).expect("read").expect("there").spec.owner;
        serde_json::from_str::<serde_json::Value>(&owner).expect("JSON")
    };
    let ids = |host: &Host| {
        let names = kept(host)["garden"]["names"].as_object().cloned().unwrap_or_default();
        names.values().map(|id| id.as_str().expect("text").to_owned()).collect::<Vec<_>>()
    };
    let wanted =
        |id: &str, path: &str| ProcessSpec { id: id.into(), path: path.into(), ..shell("read x") };
    let session = block_on(first.run("a", wanted("A b", "/bin/sh"))).expect("run");
    block_on(first.run("a", wanted("B c", "/bin/nothing"))).err().expect("no such program");
    block_on(first.run("a", wanted("A b", "/bin/sh"))).err().expect("it runs");
    assert_eq!(ids(&host), ["A b"]);
    let mut more = kept(&host);
    more["garden"]["names"]["h-of-another"] = "C d".into();
    host.set_owner(&name, &more.to_string()).expect("write");
    assert_eq!(ids(&host), ["A b", "C d"]);
    drop(session);
    let (host, second) = backend(&lab, lab.host_of(ended(host, first).into_parts()));
    assert_eq!(ids(&host), ["A b"]);
    block_on(second.attach("a", "A b")).expect("attach");
    close(lab, host, second);
}

#[test]
fn a_terminal_is_one_output_and_has_a_size() {
    if !alone(module_path!(), "a_terminal_is_one_output_and_has_a_size") {
        return;
    }
    let lab = Lab::new("gardentty");
    let (host, backend) = backend(&lab, lab.host());
    block_on(backend.create(named("tty"))).expect("create");
    let spec = ProcessSpec { tty: Some(TtySpec::default()), ..shell("echo out; echo err >&2") };
    let session = block_on(backend.run("tty", spec)).expect("run");
    assert_eq!(exit(&session), 0);
    assert_eq!(heard(&backend, "tty", &session, Which::Stdout), "out\r\nerr\r\n");
    assert_eq!(heard(&backend, "tty", &session, Which::Stderr), "");
    close(lab, host, backend);
}

#[test]
fn stopping_ends_processes_and_memory_that_runs_out_is_an_event() {
    if !alone(module_path!(), "stopping_ends_processes_and_memory_that_runs_out_is_an_event") {
        return;
    }
    let lab = Lab::new("gardenstop");
    let (host, backend) = backend(&lab, lab.host());
    let memory = MemoryLimits { limit_in_bytes: 32 << 20 };
    let limits = Limits { memory, ..Limits::default() };
    block_on(backend.create(ContainerSpec { limits, ..named("a") })).expect("create");
    let hungry = block_on(backend.run("a", shell("exec dd if=/dev/zero of=/dev/null bs=64M")));
    assert_eq!(exit(&hungry.expect("run")), 137);
    let info = block_on(backend.info("a")).expect("info");
    assert_eq!(info.events, ["Out of memory"]);
    let session = block_on(backend.run("a", shell("exec sleep 1000"))).expect("run");
    assert_eq!(block_on(backend.info("a")).expect("info").process_ids, [&*session.process_id]);
    block_on(backend.stop("a", false)).expect("stop");
    assert_eq!(exit(&session), 143);
    let info = block_on(backend.info("a")).expect("info");
    assert_eq!((&*info.state, info.process_ids.len()), ("stopped", 0));
    close(lab, host, backend);
}

#[test]
fn whoever_is_not_asked_for_within_its_grace_time_goes() {
    if !alone(module_path!(), "whoever_is_not_asked_for_within_its_grace_time_goes") {
        return;
    }
    let lab = Lab::new("gardengrace");
    let (host, backend) = backend(&lab, lab.host());
    block_on(backend.create(named("a"))).expect("create");
    let visit = backend.visit("a").expect("it is there");
    block_on(backend.set_grace("a", 1)).expect("set");
    assert_eq!(backend.list(&[]), ["a"], "a request holds it");
    drop(visit);
    let begin = std::time::Instant::now();
    while !backend.list(&[]).is_empty() {
        assert!(begin.elapsed() < Duration::from_secs(60), "it stays");
        std::thread::park_timeout(Duration::from_millis(10));
    }
    assert!(matches!(backend.visit("a"), Err(GardenError::UnknownHandle(_))));
    close(lab, host, backend);
}

#[test]
fn a_container_that_could_not_be_removed_when_its_time_was_over_is_tried_again() {
    if !alone(
        module_path!(),
        "a_container_that_could_not_be_removed_when_its_time_was_over_is_tried_again",
    ) {
        return;
    }
    let lab = Lab::new("gardenstuck");
    let (host, backend) = backend(&lab, lab.host());
    block_on(backend.create(named("a"))).expect("create");
    let path = block_on(backend.info("a")).expect("info").container_path;
    let name = Path::new(&path).file_name().expect("a name").to_str().expect("UTF-8");
    // A disk of a pea that nobody can remove for now.
    let disk = lab.state.join("store/containers/stuck");
    fs::create_dir_all(Path::new(&path).join("peas")).expect("directory");
    fs::write(Path::new(&path).join("peas/stuck"), "pea").expect("file");
    fs::create_dir(&disk).expect("directory");
    fs::write(disk.join("x"), "").expect("file");
    let file = disk.join("x");
    let file = file.to_str().expect("UTF-8");
    tool("chattr", &["+i", file]);
    block_on(backend.set_grace("a", 1_000_000)).expect("set");
    let begin = std::time::Instant::now();
    let nap = || {
        assert!(begin.elapsed() < Duration::from_secs(60), "nobody tries");
        std::thread::park_timeout(Duration::from_millis(10));
    };
    let groups = || host.cgroups().list().expect("groups");
    while groups().iter().any(|group| group.as_str() == name) {
        nap();
    }
    tool("chattr", &["-i", file]);
    while host.list().expect("list").iter().any(|known| known.as_str() == name) {
        nap();
    }
    close(lab, host, backend);
}

/// What the container's processes are told of their ids and of pid 1.
fn manner_of(backend: &Backend, handle: &str) -> String {
    // It says nothing before somebody listens: only then all of it is heard for sure.
    let script =
        "read go; tr -s ' \\n' ' ' < /proc/self/uid_map; sed -n 's/^Name:.//p' /proc/1/status";
    let session = block_on(backend.run(handle, shell(script))).expect("run");
    block_on(session.order(Order::Input(b"go\n".to_vec())));
    assert_eq!(exit(&session), 0);
    heard(backend, handle, &session, Which::Stdout)
}

#[test]
fn another_setting_is_for_containers_that_are_made_after_it() {
    if !alone(module_path!(), "another_setting_is_for_containers_that_are_made_after_it") {
        return;
    }
    let lab = Lab::new("gardenmanner");
    let manner = Manner { ids: IdMapping::Garden, init_name: "wshd".into(), ..Manner::default() };
    let (host, backend) = backend_of(&lab, lab.host(), manner);
    let gardens = " 0 4294967294 1 1 1 4294967293 wshd\n";
    for handle in ["a", "b"] {
        block_on(backend.create(named(handle))).expect("create");
        assert_eq!(manner_of(&backend, handle), gardens, "{handle}");
    }
    block_on(backend.create(ContainerSpec { privileged: true, ..named("root") })).expect("create");
    assert_eq!(manner_of(&backend, "root"), " 0 0 4294967295 wshd\n");
    block_on(backend.destroy("root")).expect("destroy");

    let host = lab.host_of(ended(host, backend).into_parts());
    let (host, backend) = backend_of(&lab, host, Manner::default());
    assert_eq!(backend.list(&[]), ["a", "b"]);
    assert_eq!(manner_of(&backend, "a"), gardens);
    block_on(backend.create(named("c"))).expect("create");
    let own = manner_of(&backend, "c");
    assert!(own.starts_with(" 0 26") && own.ends_with(" 65536 terrarium\n"), "{own}");
    close(lab, host, backend);
}

#[test]
fn a_start_whose_descriptors_are_lost_costs_nobody_else_anything() {
    use terrarium::sys::process::{Resource, limit, set_limit};
    if !alone(module_path!(), "a_start_whose_descriptors_are_lost_costs_nobody_else_anything") {
        return;
    }
    let lab = Lab::new("gcut");
    let (host, backend) = backend(&lab, lab.host());
    block_on(backend.create(named("c"))).expect("create");
    let bystander = block_on(backend.run("c", shell("read x; echo heard $x; exit 5")));
    let bystander = bystander.expect("run");
    // Whatever is open stays open, and nothing more can be.
    let (soft, hard) = limit(Resource::OPEN_FILES).expect("limit");
    set_limit(Resource::OPEN_FILES, 0, hard).expect("limit");
    let named = |script| ProcessSpec { id: "cut".into(), ..shell(script) };
    let started = block_on(backend.run("c", named("exec sleep 1000")));
    set_limit(Resource::OPEN_FILES, soft, hard).expect("limit");
    let err = started.err().expect("nobody could hear it").to_string();
    assert!(err.contains("descriptors") && err.contains("LimitNOFILE"), "{err}");
    // It is ended, and its name is free then.
    let begin = std::time::Instant::now();
    let again = loop {
        match block_on(backend.run("c", named("exit 6"))) {
            Ok(session) => break session,
            Err(err) => assert!(begin.elapsed() < Duration::from_secs(60), "{err}"),
        }
        std::thread::park_timeout(Duration::from_millis(10));
    };
    assert_eq!(exit(&again), 6);
    block_on(bystander.order(Order::Input(b"go\n".to_vec())));
    assert_eq!(heard(&backend, "c", &bystander, Which::Stdout), "heard go\n");
    assert_eq!(exit(&bystander), 5);
    drop((bystander, again));
    close(lab, host, backend);
}

#[test]
fn who_attaches_again_and_again_to_what_has_ended_piles_up_nothing() {
    if !alone(module_path!(), "who_attaches_again_and_again_to_what_has_ended_piles_up_nothing") {
        return;
    }
    let lab = Lab::new("glate");
    let (host, backend) = backend(&lab, lab.host());
    block_on(backend.create(named("c"))).expect("create");
    let first = block_on(backend.run("c", shell("echo said; exit 3"))).expect("run");
    assert_eq!(exit(&first), 3);
    assert_eq!(heard(&backend, "c", &first, Which::Stdout), "said\n");
    let attach = || block_on(backend.attach("c", &first.process_id)).expect("attach");
    let late: Vec<Session> = (0..100).map(|_| attach()).collect();
    let is_there = |session: &&Session| {
        let Session { process_id, stream_id, .. } = session;
        backend.output("c", process_id, stream_id, Which::Stdout).is_some()
    };
    assert_eq!(late.iter().filter(is_there).count(), 64);
    assert!(is_there(&&late[99]) && !is_there(&&first), "the oldest have gone");
    assert!(late.iter().all(|session| exit(session) == 3), "which takes no status away");
    drop((first, late));
    close(lab, host, backend);
}

#[test]
fn an_end_that_nobody_could_hear_is_told_as_such() {
    if !alone(module_path!(), "an_end_that_nobody_could_hear_is_told_as_such") {
        return;
    }
    let lab = Lab::new("gunheard");
    let (host, backend) = backend(&lab, lab.host());
    block_on(backend.create(named("c"))).expect("create");
    let script = "trap : TERM; echo up; while :; do sleep 1000 & wait; done";
    let session = block_on(backend.run("c", shell(script))).expect("run");
    let listener = backend.output("c", &session.process_id, &session.stream_id, Which::Stdout);
    assert_eq!(block_on(listener.expect("there").next()), Some(b"up\n".to_vec()));
    // The daemon's one thread is held, so that answers pile up until pid 1 has had enough.
    let (go_on, held) = std::sync::mpsc::channel::<()>();
    smol::spawn(async move { held.recv() }).detach();
    let begin = std::time::Instant::now();
    while block_on(smol::future::poll_once(session.order(Order::Terminate))).is_none() {
        assert!(begin.elapsed() < Duration::from_secs(60), "pid 1 takes any number");
    }
    drop(go_on);
    let told = block_on(session.exit()).expect("the daemon goes on");
    let text = told.expect_err("it still runs");
    assert!(text.contains("closed the connection"), "{text}");
    let id = session.process_id.clone();
    drop(session);
    // Whoever asks has the container connected again, with all that runs in it.
    let begin = std::time::Instant::now();
    let info = loop {
        match block_on(backend.info("c")) {
            Ok(info) => break info,
            Err(err) => assert!(begin.elapsed() < Duration::from_secs(60), "{err}"),
        }
        block_on(async_io::Timer::after(Duration::from_millis(50)));
    };
    assert_eq!(info.process_ids, std::slice::from_ref(&id));
    let again = ProcessSpec { id, ..shell(":") };
    let err = block_on(backend.run("c", again)).err().expect("it runs");
    assert!(err.to_string().contains("already in use"), "{err}");
    let session = block_on(backend.attach("c", &info.process_ids[0])).expect("attach");
    block_on(session.order(Order::Kill));
    assert_eq!(exit(&session), 137);
    drop(session);
    close(lab, host, backend);
}
