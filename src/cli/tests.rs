//! The verbs against a real server with the fake service behind it.

use super::exec::{Streams, session, start};
use super::signals::Signals;
use super::*;
use crate::api::apps::Apps;
use crate::api::apps::fake::Fake;
use crate::api::http::listen::{Socket, listen};
use crate::api::http::server::{Limits, serve};
use crate::api::testing::TempDir;
use smol::channel::{Sender, bounded};
use smol::io::{AsyncReadExt, AsyncWriteExt};
use smol::stream::StreamExt;
use smol::{future, stream};
use std::io::{self, Write};
use std::sync::{Arc, Mutex};

/// Collects what is written; clones share it.
#[derive(Clone, Default)]
struct Sink(Arc<Mutex<Vec<u8>>>);

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("sink").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Sink {
    fn take(&self) -> String {
        let bytes = std::mem::take(&mut *self.0.lock().expect("sink"));
        String::from_utf8(bytes).expect("text")
    }
}

/// A server on its own thread, and what the verbs have said.
struct World {
    fake: Fake,
    dir: TempDir,
    stop: Sender<()>,
    server: Option<std::thread::JoinHandle<()>>,
    out: Sink,
    err: Sink,
}

impl World {
    fn new(apps: &[(&str, &str)]) -> World {
        let (fake, dir) = (Fake::with(apps), TempDir::new());
        let socket: Socket = listen(&dir.path().join("s"), 0o660, None).expect("listen");
        let (stop, stopped) = bounded::<()>(1);
        let service = Apps::new(fake.clone());
        let server = std::thread::spawn(move || {
            let serving = async {
                let err = serve(socket.listener(), &service, Limits::default()).await;
                panic!("the listener broke: {err}");
            };
            smol::block_on(future::or(serving, async {
                let _ = stopped.recv().await;
            }));
        });
        let (out, err) = (Sink::default(), Sink::default());
        World { fake, dir, stop, server: Some(server), out, err }
    }

    fn remote(&self) -> Remote {
        Remote::new(self.dir.path().join("s"))
    }

    fn ui(&self, global: &Global) -> Ui {
        Ui::to(global, Box::new(self.out.clone()), Box::new(self.err.clone()))
    }

    /// Writes a file beside the socket.
    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        std::fs::write(&path, text).expect("file");
        path
    }

    /// Runs a command line; exit code, stdout, stderr.
    fn run(&self, line: &str) -> (u8, String, String) {
        let host = format!("unix://{}/s", self.dir.path().display());
        let typed = parse::parse(line.split_whitespace().map(Into::into));
        let result = typed.map_err(CliError::from).and_then(|Invocation { global, command }| {
            dispatch(&mut self.ui(&global), &global, Some(&host), command)
        });
        let code = result.unwrap_or_else(|err| {
            let _ = self
                .err
                .clone()
                .write_all(format!("terrarium: {}\n", crate::log::chain(&err)).as_bytes());
            err.code()
        });
        (code, self.out.take(), self.err.take())
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.stop.close();
        if let Some(server) = self.server.take() {
            server.join().expect("the server ends");
        }
    }
}

#[test]
fn looking_has_exit_codes_that_scripts_can_use() {
    let world = World::new(&[("web", "running"), ("old", "stopped")]);
    for (line, code) in [
        ("apps", 0),
        ("", 0),
        ("status", 0),
        ("app web", 0),
        ("app old", 3),
        ("app none", 4),
        ("logs none", 4),
        ("scale none=1", 4),
        ("delete none", 4),
        ("exec none -- true", 125),
        ("exec old -- true", 125),
        ("exec web -- missing", 127),
        ("exec web -- script", 126),
        ("exec web", 125),
        ("exec --nonsense web -- true", 125),
        ("-H unix:///nowhere/s exec web -- true", 125),
        ("-H tcp://x exec web -- true", 125),
        ("--nonsense exec web -- true", 2),
        ("nonsense", 2),
        ("-H tcp://x apps", 2),
        ("-H unix:///nowhere/s apps", 6),
        ("--root /nowhere apps", 6),
        ("help", 0),
        ("--version", 0),
    ] {
        let (got, out, err) = world.run(line);
        assert_eq!(got, code, "{line}: {out}{err}");
        assert_eq!(err.is_empty(), code == 0 || line == "app old", "{line}: {err}");
    }
    let (code, out, _) = World::new(&[("api", "crashed")]).run("");
    assert_eq!(code, 3);
    assert!(out.contains("1 of 1 apps not healthy"), "{out}");
    world.fake.add_problem("the disk is full");
    assert_eq!(world.run("status").0, 3);
    let (code, out, _) = world.run("status --json");
    let view: serde_json::Value = serde_json::from_str(&out).expect("json");
    assert_eq!((code, &view["healthy"]), (3, &false.into()));
    assert_eq!(view["box"]["problems"][0], "the disk is full");
    world.fake.add_containers((0..30).map(|n| format!("c{n:02}")));
    let (_, out, _) = world.run("status");
    assert!(out.contains("\ngarden: 30 containers\n") && out.contains("and 10 more"), "{out}");
    let (_, out, _) = world.run("status --json");
    let view: serde_json::Value = serde_json::from_str(&out).expect("json");
    assert_eq!(view["box"]["garden"]["containers"][29]["handle"], "c29");
}

#[test]
fn an_unreachable_daemon_is_named_with_the_cure() {
    let world = World::new(&[]);
    let (_, _, err) = world.run("-H unix:///nowhere/s apps");
    assert_eq!(
        err,
        "terrarium: no daemon to be reached on /nowhere/s; start the daemon that serves it, or \
         name another one's socket: No such file or directory (os error 2)\n"
    );
}

#[test]
fn json_is_one_document_or_one_line_an_item() {
    let world = World::new(&[("web", "running")]);
    let json = |line: &str| -> serde_json::Value {
        serde_json::from_str(&world.run(line).1).expect("one document")
    };
    assert_eq!(json("apps --json")[0]["name"], "web");
    assert_eq!(json("app web --json")["processes"][0]["running"], 1);
    assert_eq!(json("--json")["healthy"], true);
    assert_eq!(json("version --json")["version"], env!("CARGO_PKG_VERSION"));
    world.run("logs web/1 --since 1970-01-01T00:00:02 --source app");
    let asked = "lines: 10000, follow: false, process: None, index: Some(1), since_ms: Some(2000), \
                 source: Some(\"app\")";
    assert!(world.fake.calls().iter().any(|call| call.contains(asked)), "{:?}", world.fake.calls());
    let (_, out, _) = world.run("logs web -n 2 --json");
    let texts =
        out.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).expect("line"));
    assert_eq!(texts.map(|line| line["text"].clone()).collect::<Vec<_>>(), ["line 0", "line 1"]);
}

#[test]
fn changing_verbs_do_all_names_and_report_the_failures() {
    let world = World::new(&[("a", "running"), ("b", "running")]);
    let (code, out, err) = world.run("stop a none b");
    assert_eq!((code, out.as_str()), (4, ""));
    assert_eq!(err, "a: stopped\nb: stopped\nterrarium: no app `none`\n");
    assert_eq!(world.run("scale a:worker=3 -q"), (0, "".into(), "".into()));
    let calls = ["stop b", "stop and wait a", "stop and wait b", "scale Some(\"worker\")=3 a"];
    assert_eq!(world.fake.calls(), calls);
    assert_eq!(world.run("stop --no-wait a").2, "a: stopping\n");
    assert_eq!(world.fake.calls().last().map(String::as_str), Some("stop a"));
}

#[test]
fn scale_says_which_process_it_has_scaled_or_what_there_is_to_choose_from() {
    let world = World::new(&[("one", "running"), ("two", "running")]);
    assert_eq!(world.run("scale one=3").2, "one:web: 3 wanted\n");
    world.fake.add_process("one", "worker");
    assert_eq!(world.run("scale one=2").2, "one:web: 2 wanted\n", "web is the meant one");
    world.fake.rename_process("two", "web", "clock");
    assert_eq!(world.run("scale two=2").2, "two:clock: 2 wanted\n", "the only one");
    world.fake.add_process("two", "worker");
    let err = "terrarium: which process of two is meant is not clear; write `terrarium scale \
               two:clock=2` or `terrarium scale two:worker=2`\n";
    assert_eq!(world.run("scale two=2"), (2, "".into(), err.into()));
    let (code, _, err) = world.run("exec two -- true");
    assert_eq!(code, 125);
    assert!(err.ends_with("; write `two:clock` or `two:worker`\n"), "{err}");
}

#[test]
fn apply_shows_staging_and_then_the_app() {
    let world = World::new(&[]);
    let file = world.file("web.toml", "name = \"web\"\nsource.path = \".\"\n");
    let (code, out, err) = world.run(&format!("apply {}", file.display()));
    assert_eq!(code, 0, "{err}");
    assert!(
        out.starts_with("1970-01-01T00:00:01.000Z [STG/0] OUT -----> procfile\nname "),
        "{out}"
    );
    assert_eq!(err, "web: staging\nweb: starting\n");
    assert_eq!(world.fake.calls(), [format!("apply web {} wait=true", file.display())]);
    for (text, code, message) in [
        ("# broken", 1, "terrarium: cannot stage app web; the log above says why\n"),
        ("# conflict", 9, "port 8080 is taken by `other`"),
        ("# crash", 3, ""),
    ] {
        let file =
            world.file("web.toml", &format!("name = \"web\"\nsource.path = \".\"\n{text}\n"));
        let (got, _, err) = world.run(&format!("apply {}", file.display()));
        assert_eq!(got, code, "{text}: {err}");
        assert!(err.contains(message), "{err}");
    }
}

#[test]
fn nothing_is_applied_when_any_manifest_is_invalid() {
    let world = World::new(&[]);
    world.file("a.toml", "name = \"a\"\nsource.path = \".\"\n");
    let bad = world.file("b.toml", "nme = \"b\"\n");
    let dir = world.dir.path().display();
    let (code, out, err) = world.run(&format!("apply {dir}"));
    assert_eq!((code, out.as_str()), (5, ""));
    assert!(err.contains(&format!("{}:1:1", bad.display())), "{err}");
    assert!(err.ends_with("1 of 2 manifests are invalid; nothing was changed\n"), "{err}");
    let (code, _, err) = world.run(&format!("apply {dir}/a.toml {dir}/a.toml"));
    assert_eq!(code, 5, "{err}");
    assert!(err.contains("`a` stands in"), "{err}");
    assert!(world.fake.calls().is_empty());
}

#[test]
fn check_looks_at_the_box_and_needs_no_daemon() {
    let world = World::new(&[]);
    let root = world.dir.path().join("box");
    for dir in ["usr/lib/terrarium/stacks", "usr/lib/terrarium/buildpacks/procfile"] {
        std::fs::create_dir_all(root.join(dir)).expect("directory");
    }
    world.file("box/usr/lib/terrarium/stacks/edgefs.tar.zst", "");
    world.file("a.toml", "name = \"a\"\nsource.path = \".\"\n");
    let bad = "name = \"b\"\nsource.path = \"none\"\nbuild.stack = \"x\"\n";
    let bad = world.file("b.toml", &format!("{bad}build.buildpacks = [\"procfile\", \"y\"]\n"));
    world.file("c.toml", "name = \"c\"\nsource.path = \".\"\nrun.instances = 1000\n");
    std::fs::create_dir_all(root.join("etc/terrarium")).expect("directory");
    world.file("box/etc/terrarium/terrarium.toml", "[cell]\nmemory = \"8GiB\"\n");
    let dir = world.dir.path().display();
    let check = |rest: &str| world.run(&format!("--root {} check {rest}", root.display()));
    let (code, out, err) = check(&format!("{dir}"));
    assert_eq!((code, out), (5, format!("{dir}/a.toml: ok\n{dir}/c.toml: ok\n")), "{err}");
    for (place, text) in [
        ("2:15", "none is not there"),
        ("3:15", "stack `x` is not on this box"),
        ("4:33", "this box has no buildpack `y`"),
    ] {
        assert!(err.contains(&format!("{}:{place}", bad.display())), "{err}");
        assert!(err.contains(text), "{err}");
    }
    assert!(err.contains("warning: all instances together need 250GiB of memory"), "{err}");
    let (code, out, _) = check(&format!("--json {dir}/b.toml {dir}/c.toml"));
    let report: serde_json::Value = serde_json::from_str(&out).expect("json");
    assert_eq!((code, &report[0]["mistakes"][0]["line"]), (5, &2.into()), "{report}");
    assert_eq!(report[1]["warnings"][0]["line"], 3, "{report}");
    assert_eq!(check(&format!("{dir}/none.toml")).0, 1);
}

#[test]
fn a_manifest_that_is_not_text_is_invalid_and_a_bad_configuration_is_shown_once() {
    let world = World::new(&[]);
    let path = world.dir.path().join("a.toml");
    std::fs::write(&path, b"name = \"a\"\n# caf\xe9\n").expect("file");
    for verb in ["check", "apply"] {
        let root = world.dir.path().display();
        let (code, _, err) = world.run(&format!("--root {root} {verb} {}", path.display()));
        assert_eq!(code, 5, "{err}");
        assert!(err.contains("this is not UTF-8 text") && err.contains("a.toml:2:6"), "{err}");
    }
    std::fs::create_dir_all(world.dir.path().join("etc/terrarium")).expect("directory");
    world.file("etc/terrarium/terrarium.toml", "colour = 1\n");
    let root = world.dir.path().display();
    let (code, _, err) = world.run(&format!("--root {root} check {}", path.display()));
    assert_eq!(code, 1);
    assert_eq!(err.matches("colour`").count(), 1, "{err}");
    assert!(
        err.ends_with("terrarium: the configuration of the box is invalid; nothing was done\n")
    );
}

#[test]
fn what_the_daemon_finds_in_a_manifest_looks_like_what_we_find() {
    let world = World::new(&[]);
    let file = world.file("web.toml", "name = \"web\"\nsource.path = \".\"\n# unfit\n");
    let (code, _, err) = world.run(&format!("apply {}", file.display()));
    assert_eq!(code, 5);
    let expected = "error: stack `x` is not on this box\n --> web.toml:3:9\n\
                    terrarium: the manifest is invalid; nothing was changed\n";
    assert_eq!(err, expected);
    let good = world.file("good.toml", "name = \"good\"\nsource.path = \".\"\n");
    let (code, _, err) = world.run(&format!("apply {} {}", good.display(), file.display()));
    assert_eq!(code, 5);
    assert!(err.ends_with("1 of 2 manifests are invalid; nothing was changed\n"), "{err}");
    assert!(world.fake.calls().is_empty(), "the good one is not applied either");
}

/// Signals that the test sends.
fn fake_signals() -> (Sender<i32>, Signals) {
    let (send, signals) = bounded(4);
    (send, signals.boxed())
}

#[test]
fn run_follows_the_app_and_removes_it_after_ctrl_c() {
    let world = World::new(&[]);
    let file = world.file("web.toml", "name = \"web\"\nsource.path = \".\"\n");
    let (interrupt, mut signals) = fake_signals();
    let mut ui = world.ui(&Global::default());
    let manifest = manifests::load(&mut ui, &[file]).expect("manifest").remove(0);
    let remote = world.remote();
    let running = run::foreground(&mut ui, &remote, &manifest, &mut signals);
    let press = async {
        // Ctrl-C when the log is being followed.
        while !world.fake.calls().iter().any(|call| call.starts_with("logs web")) {
            future::yield_now().await;
        }
        interrupt.send(2).await.expect("send");
    };
    let (code, ()) = smol::block_on(future::zip(running, press));
    assert_eq!(code.expect("no error"), 0);
    assert_eq!(world.fake.calls().last().map(String::as_str), Some("delete web"));
    let err = world.err.take();
    assert!(err.contains("web: runs at http://127.0.0.1:8080; Ctrl-C removes it\n"), "{err}");
    assert!(err.ends_with("web: removing it\nweb: removed\n"), "{err}");
    assert!(world.out.take().contains("[STG/0] OUT -----> procfile\n"));
}

#[test]
fn run_leaves_an_app_alone_that_somebody_has_taken_over() {
    let world = World::new(&[]);
    let file = world.file("web.toml", "name = \"web\"\nsource.path = \".\"\n");
    let (interrupt, mut signals) = fake_signals();
    let mut ui = world.ui(&Global::default());
    let manifest = manifests::load(&mut ui, &[file]).expect("manifest").remove(0);
    let remote = world.remote();
    let running = run::foreground(&mut ui, &remote, &manifest, &mut signals);
    let press = async {
        while !world.fake.calls().iter().any(|call| call.starts_with("logs web")) {
            future::yield_now().await;
        }
        world.fake.take_over("web");
        interrupt.send(2).await.expect("send");
    };
    let (code, ()) = smol::block_on(future::zip(running, press));
    assert_eq!(code.expect("no error"), 0);
    assert!(!world.fake.calls().iter().any(|call| call.starts_with("delete")));
    assert!(world.err.take().ends_with("web: somebody has applied it meanwhile; it stays\n"));
}

#[test]
fn run_ends_when_staging_fails_or_the_app_crashes_for_good() {
    for (text, code) in [("# broken", 1), ("# crash", 3)] {
        let world = World::new(&[]);
        let file =
            world.file("web.toml", &format!("name = \"web\"\nsource.path = \".\"\n{text}\n"));
        let (_interrupt, mut signals) = fake_signals();
        let mut ui = world.ui(&Global::default());
        let manifest = manifests::load(&mut ui, &[file]).expect("manifest").remove(0);
        let remote = world.remote();
        let result = smol::block_on(run::foreground(&mut ui, &remote, &manifest, &mut signals));
        assert_eq!(result.unwrap_or_else(|err| err.code()), code, "{text}");
    }
}

#[test]
fn run_has_nothing_to_remove_when_the_manifest_is_refused() {
    let world = World::new(&[]);
    let file = world.file("web.toml", "name = \"web\"\nsource.path = \".\"\n# unfit\n");
    let (_interrupt, mut signals) = fake_signals();
    let mut ui = world.ui(&Global::default());
    let manifest = manifests::load(&mut ui, &[file]).expect("manifest").remove(0);
    let remote = world.remote();
    let result = smol::block_on(run::foreground(&mut ui, &remote, &manifest, &mut signals));
    assert_eq!(result.expect_err("refused").code(), 5);
    assert!(world.err.take().starts_with("error: stack `x`"));
    assert!(world.fake.calls().is_empty());
}

#[test]
fn run_leaves_an_app_alone_that_was_there_before() {
    let world = World::new(&[("web", "running")]);
    let file = world.file("web.toml", "name = \"web\"\nsource.path = \".\"\n");
    let (_interrupt, mut signals) = fake_signals();
    let mut ui = world.ui(&Global::default());
    let manifest = manifests::load(&mut ui, &[file]).expect("manifest").remove(0);
    let remote = world.remote();
    let err = smol::block_on(run::foreground(&mut ui, &remote, &manifest, &mut signals));
    assert_eq!(err.expect_err("refused").code(), 9);
    assert!(world.fake.calls().is_empty());
}

/// Runs an `exec` line with this input; exit code and output.
fn exec_line(world: &World, line: &str, input: &str, signal: Option<i32>) -> (i32, String, String) {
    let typed = parse::parse(line.split_whitespace().map(Into::into)).expect("line");
    let Command::Exec(exec) = typed.command else { panic!("{line} is no exec") };
    let pair = || smol::net::unix::UnixStream::pair().expect("pair");
    let ((stdin, mut feed), (stdout, mut out), (stderr, mut err)) = (pair(), pair(), pair());
    let streams =
        Streams { stdin: Box::pin(stdin), stdout: Box::pin(stdout), stderr: Box::pin(stderr) };
    let signals = stream::iter(signal).chain(stream::pending()).boxed();
    smol::block_on(async {
        feed.write_all(input.as_bytes()).await.expect("feed");
        drop(feed);
        let frames = start(&world.remote(), exec, None).await.expect("started");
        let (mut stdout, mut stderr) = (String::new(), String::new());
        let exit = session(frames, streams, signals, false).await.expect("an exit");
        out.read_to_string(&mut stdout).await.expect("out");
        err.read_to_string(&mut stderr).await.expect("err");
        (exit.code, stdout, stderr)
    })
}

#[test]
fn exec_carries_input_output_signals_and_the_exit_code() {
    let world = World::new(&[("web", "running")]);
    let text = |text: &str| text.to_owned();
    assert_eq!(exec_line(&world, "exec web -- echo hi", "", None), (0, text("hi"), text("oops")));
    assert_eq!(exec_line(&world, "exec web/3 -- cat", "ab\0c", None), (0, text("ab\0c"), text("")));
    assert_eq!(exec_line(&world, "exec web -- exit 42", "", None).0, 42);
    assert_eq!(exec_line(&world, "exec web:web -- forever", "", Some(2)).0, 130);
    assert!(world.fake.calls().contains(&"exec web:web/3 [\"cat\"]".to_owned()));
}

#[test]
fn images_are_looked_at_and_changed() {
    let world = World::new(&[("web", "running")]);
    let digest = crate::api::apps::fake::image().digest;
    let (code, out, _) = world.run("image ls");
    assert_eq!((code, out.lines().count()), (0, 4), "{out}");
    assert!(out.contains("reg.lan/ops/app:2"), "{out}");
    let (_, json, _) = world.run("image ls --json");
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(json["images"][0]["used_by"][0], "one");
    let (code, out, err) = world.run("image pull ops/app:1");
    assert_eq!((code, out, err), (0, format!("ops/app:1@{digest}\n"), String::new()));
    assert_eq!(world.run("image pull ops/app:1 --json").1.lines().count(), 2);
    let (code, out, err) = world.run("image pull ops/broken:1");
    assert_eq!((code, out.as_str()), (1, ""));
    assert_eq!(err, "terrarium: cannot fetch the image: why not\n");
    let (code, out, _) = world.run("image inspect reg.lan/ops/app:1");
    assert!(code == 0 && out.contains("\"Id\""), "{out}");
    assert_eq!(world.run("image inspect none").0, 4);
    let (code, _, err) = world.run("image rm reg.lan/ops/app:1 reg.lan/ops/app:2");
    assert_eq!(code, 9);
    assert!(err.starts_with("reg.lan/ops/app:1: forgotten\n"), "{err}");
    let (code, _, err) = world.run("image gc");
    assert_eq!((code, err.as_str()), (0, "removed no image and 2 layers, 12.3MiB\n"));
    let said = world.fake.calls();
    assert_eq!(said.last().map(String::as_str), Some("collect"));
    assert_eq!(world.run("image gc --all").0, 0);
    assert_eq!(world.fake.calls().last().map(String::as_str), Some("collect all"));
    assert!(World::new(&[]).run("image ls").1.starts_with("no images; `terrarium image pull"));
}

#[test]
fn archives_are_read_and_written_by_the_client_itself() {
    let world = World::new(&[("web", "running")]);
    let file = world.file("a.tar", &"archive ".repeat(50_000));
    let (code, out, err) = world.run(&format!("image load {} --name ops/app", file.display()));
    assert_eq!(code, 0, "{err}");
    assert!(out.starts_with("ops/app@sha256:"), "{out}");
    assert!(world.fake.calls()[0].starts_with("load 400000 bytes as Some("));
    let file = world.file("b.tar", &"rubbish ".repeat(500_000));
    let (code, _, err) = world.run(&format!("image load {}", file.display()));
    assert_eq!((code, err), (1, format!("terrarium: {} is no archive\n", file.display())));
    let (code, _, err) = world.run("image load /nowhere/a.tar");
    assert_eq!(code, 1);
    assert!(err.starts_with("terrarium: cannot read /nowhere/a.tar: "), "{err}");
    let dir = world.dir.path().join("layout");
    std::fs::create_dir_all(dir.join("blobs")).expect("directory");
    std::fs::write(dir.join("index.json"), "{}").expect("file");
    assert_eq!(world.run(&format!("image load {}", dir.display())).0, 0);
    assert!(world.fake.calls().last().expect("a call").starts_with("load "));

    let to = world.dir.path().join("out.tar");
    let (code, out, err) = world.run(&format!("image save reg.lan/ops/app:1 {}", to.display()));
    assert_eq!((code, out.as_str()), (0, ""), "{err}");
    assert!(err.contains(&crate::api::apps::fake::image().id.to_string()), "{err}");
    assert_eq!(std::fs::read(&to).expect("written"), b"archive");
    // What breaks off leaves what was there.
    let (code, ..) = world.run(&format!("image save reg.lan/ops/app:2 {}", to.display()));
    assert_eq!(code, 1);
    assert_eq!(std::fs::read(&to).expect("kept"), b"archive");
    assert_eq!(world.run(&format!("image save none {}", to.display())).0, 4);
    let left = std::fs::read_dir(world.dir.path()).expect("list").count();
    assert_eq!(left, 5, "the socket, two archives, a layout, and what was saved");
}

#[test]
fn progress_is_shown_to_who_watches_a_line_for_each_second() {
    let world = World::new(&[]);
    let mut ui = world.ui(&Global::default());
    ui.is_watched = true;
    let name = "ops/app:1".parse().expect("a name");
    let remote = world.remote();
    let pulled = images::image(&mut ui, &remote, parse::Image::Pull(name));
    assert_eq!(smol::block_on(pulled).expect("pulled"), 0);
    assert_eq!(world.err.take(), "ops/app:1: 5M of 10M\n");
    assert!(world.out.take().starts_with("ops/app:1@sha256:"));
}
