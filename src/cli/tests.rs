//! The verbs against a real server with the fake service behind it.

mod foreground;
mod image_verbs;
mod manifest_verbs;
mod push;
mod session;
mod tasks;

use super::*;
use crate::api::apps::Apps;
use crate::api::apps::fake::Fake;
use crate::api::http::listen::{Socket, listen};
use crate::api::http::server::{Limits, serve};
use crate::api::testing::TempDir;
use smol::channel::{Sender, bounded};
use smol::future;
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
        ("explain web", 0),
        ("explain old", 3),
        ("explain none", 4),
        ("events", 0),
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
        assert_eq!(
            err.is_empty(),
            code == 0 || line.ends_with(" old") && code == 3,
            "{line}: {err}"
        );
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
fn a_directory_is_sent_and_applied_from_where_it_is_then() {
    let world = World::new(&[("web", "running")]);
    let file = world.file("Procfile", "web: ./run");
    let dir = file.parent().expect("a directory").display().to_string();
    let (code, _, err) = world.run(&format!("push {dir} -n web -m 64M --no-start"));
    assert_eq!(code, 0, "{err}");
    assert!(err.contains("web: there, and not started"), "{err}");
    let calls = world.fake.calls();
    assert!(calls.iter().any(|call| call == "source of web: some"), "{calls:?}");
    let (code, out, _) = world.run("revisions web");
    assert!(code == 0 && out.contains("2*"), "{out}");
    let (code, _, err) = world.run("rollback web --to 1");
    assert!(code == 0 && err.contains("web: revision 3"), "{err}");
    let (code, out, _) = world.run("run-task web ls");
    assert_eq!((code, out.as_str()), (0, "web-1\n"));
    assert_eq!(world.run("restage nobody").0, 4);
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
fn events_and_explanations_are_shown_and_told_as_json() {
    let world = World::new(&[("web", "crashed")]);
    let (code, out, _) = world.run("events");
    assert_eq!(code, 0);
    assert!(out.ends_with(" 3-17 actual_lrp_crashed web/0 crash 2: exit\\x1b[2J\n"), "{out}");
    let (code, out, err) = world.run("events -f --since 3-4 --json");
    let lines: Vec<serde_json::Value> =
        out.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(lines[0]["event"], "gap");
    assert_eq!((&lines[1]["id"], &lines[1]["data"]["crash_count"]), (&"3-17".into(), &2.into()));
    assert_eq!(lines[1]["time_ms"], 1_795_226_400_123_u64);
    // It was to go on for ever.
    assert_eq!(code, 1);
    assert!(err.contains("the daemon has ended the stream"), "{err}");
    let (_, _, err) = world.run("events --since 2-9");
    assert!(
        err.contains("the daemon was started anew, and what happened since 2-9 is not known"),
        "{err}"
    );
    let (code, out, _) = world.run("explain web:worker/2");
    assert_eq!(code, 3);
    assert!(out.contains("next  it starts again by itself\n  do    look\n"), "{out}");
    let (_, out, _) = world.run("explain web --json");
    let view: serde_json::Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!(view["parts"][0]["next_ms"], 31_000);
    let calls = world.fake.calls();
    assert_eq!(calls[0], "events Oldest false");
    assert!(calls[1].contains("After(EventId { epoch: 3, sequence: 4 }) true"), "{calls:?}");
    assert_eq!(calls[3], "explain web Some(\"worker\") Some(2)");
}
