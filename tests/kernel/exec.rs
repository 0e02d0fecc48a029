//! Action trees in real containers, and files of real servers. Numbers are rows of the table of Diego's
//! features. Each runs in a process of its own: the pool's threads stay in the network in which they
//! were made.

mod assembly;
mod cancelled;
mod large;
mod server;

use crate::container::{run as run_in, shell, spec};
use crate::lab::{BINARY, Lab, alone};
use crate::tool::tool;
use server::{Answer, Request, Server};
use std::cell::Cell;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use terrarium::container::{ContainerSpec, Fault, Host};
use terrarium::exec::cancel;
use terrarium::exec::fetch::Fetcher;
use terrarium::exec::logs::{Keep, Logs};
use terrarium::exec::run::Executor;
use terrarium::exec::steps::StepResult;
use terrarium::exec::streams::Sink;
use terrarium::init::proto::Bind;
use terrarium::model::action::{
    Action, Checksum, ChecksumAlgorithm, DownloadAction, RunAction, UploadAction,
};
use terrarium::model::process::ExitStatus;
use terrarium::unit::Bytes;

/// A container with an executor, and where its lines go.
struct Stage {
    lab: Lab,
    host: Host,
    logs: Logs,
    exec: Executor,
    /// Lines that were looked at.
    told: Cell<usize>,
}

impl Stage {
    fn new(name: &str) -> Stage {
        Stage::with(name, |_| {})
    }

    /// With a container that is made otherwise.
    fn with(name: &str, change: impl FnOnce(&mut ContainerSpec)) -> Stage {
        let lab = Lab::new(name);
        let host = lab.host();
        let lifecycle = lab.state.join("lifecycle");
        fs::create_dir(&lifecycle).expect("mkdir");
        fs::copy(BINARY, lifecycle.join("terrarium")).expect("copy");
        for role in ["untar", "cat-file", "notify", "docker-launcher"] {
            std::os::unix::fs::symlink("terrarium", lifecycle.join(role)).expect("link");
        }
        let bind = Bind {
            from: lifecycle,
            origin: Default::default(),
            to: "/tmp/lifecycle".into(),
            read_only: true,
            mapped: false,
            ours: true,
        };
        let mut spec = spec(&lab, "stage");
        spec.binds = vec![bind];
        change(&mut spec);
        let container = Arc::new(host.create(spec, Fault::None).expect("create"));
        let rate = "none".parse().expect("a rate");
        let keep = Keep { file_bytes: Bytes::mib(4), files: 2, rate, lines: None, journal: false };
        let logs = Logs::open(&lab.state.join("logs"), keep).expect("logs");
        let log = Some(logs.app(&"stage".parse().expect("name")));
        let exec = Executor {
            container,
            sink: Sink { log, source: "CELL".into(), index: 0, heard: None },
            fetcher: fetcher(&lab, 1 << 20),
            limit: logs.limit(None),
            env: vec![("LAST".into(), "word".into())],
            last_id: AtomicU32::new(0),
            stop: Default::default(),
            found: Default::default(),
            begun: Default::default(),
        };
        Stage { lab, host, logs, exec, told: Cell::new(0) }
    }

    fn perform(&self, action: &Action) -> StepResult {
        let (_canceller, cancel) = cancel::pair();
        smol::block_on(self.exec.perform(action, &cancel))
    }

    /// The error's text.
    fn refused(&self, action: &Action) -> String {
        self.perform(action).expect_err("it fails").to_string()
    }

    /// `SOURCE OUT|ERR text`, all since it was last asked.
    fn said(&self) -> Vec<String> {
        let lines = self.logs.app(&"stage".parse().expect("name")).last(1000, |_| true);
        let told = self.told.replace(lines.len());
        let way = |err| if err { "ERR" } else { "OUT" };
        let line = |line: terrarium::model::view::LogLine| {
            format!("{} {} {}", line.source, way(line.err), line.text)
        };
        lines.into_iter().skip(told).map(line).collect()
    }

    fn close(self) {
        let Stage { lab, host, exec, .. } = self;
        let handle = exec.container.handle().clone();
        drop(exec);
        host.destroy(&handle).expect("destroy");
        lab.close(host);
    }
}

/// Cancels an action when `is_up` says so.
fn ask_for_end(stage: &Stage, action: &Action, is_up: impl Fn() -> bool) -> StepResult {
    let (canceller, cancel) = cancel::pair();
    let watch = async {
        until(is_up).await;
        canceller.cancel();
    };
    smol::block_on(smol::future::zip(stage.exec.perform(action, &cancel), watch)).0
}

/// Waits until it is so, a minute at most.
async fn until(is_so: impl Fn() -> bool) {
    let begin = Instant::now();
    while !is_so() {
        assert!(begin.elapsed() < Duration::from_secs(60), "it never came");
        smol::Timer::after(Duration::from_millis(20)).await;
    }
}

/// No process of an action or of a helper is left.
fn assert_idle(stage: &Stage) {
    let left = r"grep -q '[s]leep\|[c]at-file\|[u]ntar' /proc/[0-9]*/cmdline 2>/dev/null && exit 1; exit 0";
    let is_idle = || run_in(&stage.exec.container, "left", left) == ExitStatus::Exited(0);
    smol::block_on(until(is_idle));
}

fn fetcher(lab: &Lab, most: u64) -> Fetcher {
    let certs = lab.state.join("certs");
    Fetcher::open(&lab.state.join("downloads"), &certs, Bytes::new(most)).expect("cache")
}

fn sh(script: &str) -> Action {
    run("", script)
}

fn run(source: &str, script: &str) -> Action {
    Action::Run(RunAction {
        process: shell("", script),
        log_source: source.into(),
        suppress_log_output: false,
    })
}

fn from_source(source: &str, action: Action) -> Action {
    Action::LogSource { source: source.into(), action: Box::new(action) }
}

fn download(from: String, to: &str) -> DownloadAction {
    DownloadAction {
        from,
        to: to.into(),
        cache_key: String::new(),
        user: "root".into(),
        artifact: "bits".into(),
        log_source: "STG".into(),
        checksum: None,
    }
}

/// One file `hello` with `text`, in each form.
fn archives(dir: &Path, text: &str) -> Vec<Vec<u8>> {
    fs::create_dir_all(dir.join("bin")).expect("mkdir");
    fs::write(dir.join("bin/hello"), text).expect("write");
    let at = |name: &str| dir.join(name).to_str().expect("text").to_owned();
    let from = dir.to_str().expect("text");
    tool("tar", &["-C", from, "-cf", &at("a.tar"), "bin"]);
    tool("tar", &["-C", from, "-czf", &at("a.tgz"), "bin"]);
    tool("sh", &["-c", &format!("cd {from} && zip -qr a.zip bin")]);
    ["a.tar", "a.tgz", "a.zip"].map(|name| fs::read(dir.join(name)).expect("read")).into()
}

fn ok(body: &[u8]) -> Answer {
    (200, Vec::new(), body.to_vec())
}

#[test]
fn row_38_and_42_children_run_as_their_parents_say() {
    if !alone(module_path!(), "row_38_and_42_children_run_as_their_parents_say") {
        return;
    }
    let stage = Stage::new("tree");
    let both = || vec![run("A", "echo a; exit 3"), run("B", "echo b $LAST")];
    assert_eq!(stage.refused(&Action::Parallel(both())), "A: Exited with status 3");
    let mut said = stage.said();
    said.sort();
    assert_eq!(said, ["A OUT Exit status 3", "A OUT a", "B OUT Exit status 0", "B OUT b word"]);

    assert_eq!(stage.refused(&Action::Serial(both())), "A: Exited with status 3");
    assert_eq!(stage.said(), ["A OUT a", "A OUT Exit status 3"], "the second never began");

    let tried = Action::Serial(vec![Action::Try(Box::new(sh("exit 4"))), run("B", "echo next")]);
    stage.perform(&from_source("T", tried)).expect("nobody's failure");
    let next = ["T OUT Exit status 4", "B OUT next", "B OUT Exit status 0"];
    assert_eq!(stage.said(), next, "a source of its own wins");

    // One that has not begun has no end to be told of.
    let after = run("A", "until [ -e /tmp/b ]; do sleep 0.01; done");
    let ends = Action::Codependent(vec![after, run("B", ": > /tmp/b; exec sleep 1000")]);
    assert_eq!(stage.refused(&ends), "Codependent step exited");
    let mut said = stage.said();
    said.sort();
    assert_eq!(said, ["A OUT Exit status 0", "B OUT Exit status 143"]);

    let silent = Action::Run(RunAction {
        process: shell("", "echo secret; exit 5"),
        log_source: "S".into(),
        suppress_log_output: true,
    });
    assert_eq!(stage.refused(&silent), "S: Exited with status 5");
    assert_eq!(stage.said(), [""; 0]);
    stage.close();
}

#[test]
fn row_42_progress_and_limits_are_told() {
    if !alone(module_path!(), "row_42_progress_and_limits_are_told") {
        return;
    }
    let stage = Stage::new("progress");
    let progress = |action: Action, start: &str| {
        from_source(
            "STG",
            Action::EmitProgress {
                action: Box::new(action),
                start_message: start.into(),
                success_message: "Staging complete".into(),
                failure_message_prefix: "Staging failed".into(),
            },
        )
    };
    stage.perform(&progress(sh("true"), "Staging...")).expect("success");
    let good = ["STG OUT Staging...", "STG OUT Exit status 0", "STG OUT Staging complete"];
    assert_eq!(stage.said(), good);
    stage.refused(&progress(sh("exit 223"), ""));
    let bad = ["STG OUT Exit status 223", "STG ERR Staging failed: STG: Exited with status 223"];
    assert_eq!(stage.said(), bad);

    let silent = from_source(
        "STG",
        Action::EmitProgress {
            action: Box::new(sh("exit 2")),
            start_message: String::new(),
            success_message: String::new(),
            failure_message_prefix: String::new(),
        },
    );
    stage.refused(&silent);
    assert_eq!(stage.said(), ["STG OUT Exit status 2"], "an empty message is skipped");

    let slow = Action::Timeout {
        action: Box::new(run("STG", "trap 'exit 9' TERM; echo up; while :; do sleep 0.1; done")),
        timeout: Duration::from_secs(2),
    };
    assert_eq!(stage.refused(&slow), "exceeded 2s timeout", "that it was cancelled is no news");
    assert_eq!(stage.said(), ["STG OUT up", "STG OUT Exit status 9"]);
    stage.close();
}

#[test]
fn row_39_who_ignores_term_is_killed_and_it_is_told() {
    if !alone(module_path!(), "row_39_who_ignores_term_is_killed_and_it_is_told") {
        return;
    }
    let stage = Stage::new("grace");
    let deaf = run("APP", "trap '' TERM; echo up; while :; do sleep 0.1; done");
    let (canceller, cancel) = cancel::pair();
    let log = stage.logs.app(&"stage".parse().expect("name"));
    let watch = async {
        let begin = Instant::now();
        // Until it is there, a minute at most.
        while log.last(1, |line| line.text == "up").is_empty() {
            assert!(begin.elapsed() < Duration::from_secs(60), "it never said that it is up");
            smol::Timer::after(Duration::from_millis(20)).await;
        }
        canceller.cancel();
    };
    let (end, ()) = smol::block_on(smol::future::zip(stage.exec.perform(&deaf, &cancel), watch));
    assert_eq!(end.expect_err("killed").to_string(), "exceeded graceful shutdown interval");
    let last = "APP OUT Exit status 137 (exceeded 10s graceful shutdown interval)";
    assert_eq!(stage.said(), ["APP OUT up", last]);
    stage.close();
}

#[test]
fn row_40_archives_of_each_form_come_in_as_the_user_who_is_named() {
    if !alone(module_path!(), "row_40_archives_of_each_form_come_in_as_the_user_who_is_named") {
        return;
    }
    let stage = Stage::new("forms");
    let all = archives(&stage.lab.state.join("made"), "hello\n");
    let served = all.clone();
    let server = Server::start(move |request: &Request| {
        let at: usize = request.line.strip_prefix("GET /")?.parse().ok()?;
        Some(served.get(at).map_or((404, Vec::new(), Vec::new()), |body| ok(body)))
    });
    for at in 0..all.len() {
        let to = format!("in/{at}");
        stage
            .perform(&Action::Download(download(format!("{}/{at}", server.url), &to)))
            .expect("in");
        let script = format!("cat /root/in/{at}/bin/hello && test -O /root/in/{at}/bin/hello");
        stage.perform(&run("APP", &script)).expect("it is in root's home");
        let said = stage.said();
        assert_eq!(said[0], "STG OUT Downloading bits...");
        assert!(said[1].starts_with("STG OUT Downloaded bits ("), "{said:?}");
        assert_eq!(said[2..], ["APP OUT hello", "APP OUT Exit status 0"]);
    }
    let gone = Action::Download(download(format!("{}/9", server.url), "/tmp/x"));
    assert_eq!(stage.refused(&gone), "Downloading bits failed");
    let why = "STG ERR Download failed: Status code 404";
    assert_eq!(stage.said()[1..], [why, "STG ERR Downloading bits failed"]);
    assert_eq!(server.seen().len(), all.len() + 4, "it is tried four times");
    stage.close();
}

#[test]
fn row_49_what_is_not_what_was_asked_for_is_not_taken_and_not_asked_for_again() {
    if !alone(
        module_path!(),
        "row_49_what_is_not_what_was_asked_for_is_not_taken_and_not_asked_for_again",
    ) {
        return;
    }
    let stage = Stage::new("sums");
    let body = archives(&stage.lab.state.join("made"), "hello\n").remove(1);
    let server = Server::start(move |_| Some(ok(&body)));
    let mut wanted = download(format!("{}/x?secret=1", server.url), "/tmp/x");
    let value = "0".repeat(64);
    wanted.checksum = Some(Checksum { algorithm: ChecksumAlgorithm::Sha256, value });
    assert_eq!(stage.refused(&Action::Download(wanted)), "Downloading bits failed");
    let said = stage.said();
    assert!(said[1].contains("damaged or another file"), "{said:?}");
    assert!(!said.concat().contains("secret"), "{said:?}");
    assert_eq!(server.seen().len(), 1);
    stage.close();
}

#[test]
fn row_48_and_50_a_copy_is_kept_asked_about_and_used_without_its_server() {
    if !alone(
        module_path!(),
        "row_48_and_50_a_copy_is_kept_asked_about_and_used_without_its_server",
    ) {
        return;
    }
    let stage = Stage::new("kept");
    let body = archives(&stage.lab.state.join("made"), "one\n").remove(1);
    let sum = tool("sha256sum", &[stage.lab.state.join("made/a.tgz").to_str().expect("text")]);
    let value = sum.split(' ').next().expect("digits").to_owned();
    let sent = Arc::new(AtomicU32::new(0));
    let count = sent.clone();
    let server = Server::start(move |request: &Request| {
        if request.fields.get("if-none-match").is_some_and(|tag| tag == "\"v1\"") {
            return Some((304, Vec::new(), Vec::new()));
        }
        count.fetch_add(1, Ordering::Relaxed);
        Some((200, vec![("ETag", "\"v1\"".into())], body.clone()))
    });
    let mut wanted = download(format!("{}/x", server.url), "/tmp/x");
    wanted.cache_key = "bits".into();
    wanted.checksum = Some(Checksum { algorithm: ChecksumAlgorithm::Sha256, value });
    let twice = vec![Action::Download(wanted.clone()), Action::Download(wanted.clone())];
    stage.perform(&Action::Parallel(twice)).expect("both");
    assert_eq!(sent.load(Ordering::Relaxed), 1, "one at a time for each key");
    let told = stage.said().iter().filter(|line| *line == "STG OUT Downloaded bits").count();
    assert_eq!(told, 1, "the second came from here");
    // The next daemon, without a server.
    server.stop();
    let Stage { lab, host, logs, exec, told } = stage;
    let stage =
        Stage { exec: Executor { fetcher: fetcher(&lab, 1 << 20), ..exec }, lab, host, logs, told };
    stage.perform(&Action::Download(wanted.clone())).expect("it is here and was checked");
    wanted.checksum = None;
    stage.refused(&Action::Download(wanted));
    // A cache that may hold nothing drops it, and what is under way has no name.
    let kept = || fs::read_dir(stage.lab.state.join("downloads")).expect("list").count();
    assert_eq!(kept(), 3, "the file, the index, and the place for what is under way");
    stage.close();
}

#[test]
fn row_41_a_file_is_sent_with_its_digests_until_it_is_taken() {
    if !alone(module_path!(), "row_41_a_file_is_sent_with_its_digests_until_it_is_taken") {
        return;
    }
    let stage = Stage::new("upload");
    let tries = Arc::new(AtomicU32::new(0));
    let count = tries.clone();
    let server = Server::start(move |_| {
        let status = if count.fetch_add(1, Ordering::Relaxed) < 2 { 503 } else { 201 };
        Some((status, Vec::new(), Vec::new()))
    });
    let upload = UploadAction {
        from: "/tmp/droplet".into(),
        to: format!("{}/droplet?secret=1", server.url),
        user: "root".into(),
        artifact: "droplet".into(),
        log_source: "STG".into(),
    };
    let action = Action::Upload(upload);
    let none = "Failed to copy stream contents into temp file for droplet";
    assert_eq!(stage.refused(&action), none);
    assert_eq!(server.seen().len(), 0);
    stage.said();
    stage.perform(&run("", "printf abc > /tmp/droplet")).expect("made");
    stage.said();
    let taken = stage.perform(&action);
    assert_eq!(taken, Ok(()), "the third is taken: {:?}", stage.said());
    assert_eq!(stage.said(), ["STG OUT Uploading droplet...", "STG OUT Uploaded droplet (3B)"]);
    let seen = server.seen();
    assert_eq!(seen.len(), 3);
    let last = &seen[2];
    assert_eq!((last.line.as_str(), &last.body[..]), ("POST /droplet?secret=1", &b"abc"[..]));
    for (name, value) in [
        ("content-type", "application/octet-stream"),
        ("content-length", "3"),
        ("content-md5", "kAFQmDzST7DWlj99KOF/cg=="),
        ("content-digest", "sha-256=:ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=:"),
    ] {
        assert_eq!(last.fields.get(name).map(String::as_str), Some(value), "{name}");
    }
    server.stop();
    let failed = "Failed to upload payload for droplet";
    assert_eq!(stage.refused(&action), failed);
    assert!(!stage.said().concat().contains("secret"));
    stage.close();
}
