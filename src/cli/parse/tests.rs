//! Command lines as they are typed, and what they mean.

use super::*;

/// A command line in shell words, without quoting.
fn typed(line: &str) -> Result<Invocation, UsageError> {
    parse(line.split_whitespace().map(OsString::from))
}

fn command(line: &str) -> Command {
    typed(line).unwrap_or_else(|err| panic!("{line}: {err}")).command
}

fn name(text: &str) -> AppName {
    text.parse().expect("name")
}

fn target(app: &str, process: Option<&str>, index: Option<u32>) -> Target {
    Target { app: name(app), process: process.map(Into::into), index }
}

#[test]
fn the_verbs_of_cf_take_its_letters() {
    let push = |push| Command::Push(push);
    let bytes = |mib| Some(Bytes::mib(mib));
    let task = |command: &str, wait: bool| {
        let (command, memory) = (command.to_owned(), wait.then(|| Bytes::mib(64)));
        Command::RunTask(RunTask { app: name("web"), command, memory, disk: None, wait })
    };
    let rollback =
        |to, wait: bool| Command::Rollback { name: name("web"), to, wait, timeout: None };
    for (line, meaning) in [
        ("push", push(Push::default())),
        (
            "push shop -n web -b ruby -b node -m 64M -k 1G -i 2 -c run -s tiny --no-start",
            push(Push {
                what: Some("shop".into()),
                name: Some(name("web")),
                buildpacks: vec!["ruby".into(), "node".into()],
                memory: bytes(64),
                disk: bytes(1024),
                instances: Some(2),
                command: Some("run".into()),
                stack: Some("tiny".into()),
                no_start: true,
                ..Push::default()
            }),
        ),
        (
            "push -p shop",
            push(Push { kind: What::Path, what: Some("shop".into()), ..Push::default() }),
        ),
        (
            "push web -p shop.war -u none -t 90 --no-route --no-manifest --force",
            push(Push {
                what: Some("shop.war".into()),
                kind: What::Path,
                name: Some(name("web")),
                health: Some("process".into()),
                start_timeout_s: Some(90),
                no_route: true,
                no_manifest: true,
                force: true,
                ..Push::default()
            }),
        ),
        (
            "push web -o redis:7 --random-route",
            push(Push {
                what: Some("redis:7".into()),
                kind: What::Image,
                name: Some(name("web")),
                random_route: true,
                ..Push::default()
            }),
        ),
        ("restage web", Command::Restage { name: name("web"), wait: true, timeout: None }),
        ("revisions web", Command::Revisions { name: name("web") }),
        ("rollback web", rollback(None, true)),
        ("rollback web --to 3 --no-wait", rollback(Some(3), false)),
        ("run-task web ls -l", task("ls -l", false)),
        ("run-task --wait -m 64mb web -- ls -l", task("ls -l", true)),
        (
            "import m.yml --var a=b --vars-file v.yml -o out --port 9000",
            Command::Import(Import {
                file: "m.yml".into(),
                vars_files: vec!["v.yml".into()],
                vars: vec![("a".into(), "b".into())],
                out: Some("out".into()),
                port: Some(9000),
                ..Import::default()
            }),
        ),
    ] {
        assert_eq!(command(line), meaning, "{line}");
    }
    for (line, why) in [
        ("push a b", "`b` is one too many"),
        ("push -m 64", "`64` is no size; write a whole number and M, G or T, such as 256M"),
        ("push -k 1P", "--disk: `1P` is no size"),
        ("push -m 65T", "`65T` is too large; write 64TiB at most"),
        ("push web -p a -n shop", "called both `web` and `shop`"),
        ("push -p a -o b", "both --path and --docker-image"),
        ("push -u tcp", "`tcp` is no check"),
        ("push -t 0", "no number of seconds"),
        ("push -i many", "not a number from 0 to 1000"),
        ("run-task web", "`run-task` needs a command"),
        ("rollback web --to last", "no revision's number"),
        ("import m.yml --var a", "`a` is not NAME=VALUE"),
        ("import m.yml --port 0", "`0` is no port"),
    ] {
        let err = typed(line).expect_err(line).to_string();
        assert!(err.contains(why), "{line}: {err}");
    }
}

#[test]
fn every_verb_is_understood() {
    let apply = |files: &[&str], wait, timeout| Command::Apply {
        files: files.iter().map(PathBuf::from).collect(),
        wait,
        timeout,
    };
    let act = |act, names: &[&str]| Command::Act {
        act,
        names: names.iter().map(|text| name(text)).collect(),
        wait: true,
    };
    let scale = |process: Option<&str>, instances| Command::Scale {
        app: name("web"),
        process: process.map(Into::into),
        instances,
    };
    let logs =
        |target, follow, lines| Command::Logs { target, follow, lines, since: None, source: None };
    let since = |since, source: Option<&str>| Command::Logs {
        target: target("web", None, None),
        follow: true,
        lines: None,
        since,
        source: source.map(Into::into),
    };
    for (line, meaning) in [
        ("", Command::Status),
        ("status", Command::Status),
        ("status web", Command::App { name: name("web") }),
        ("--json", Command::Status),
        ("run a.toml", Command::Run { file: "a.toml".into() }),
        ("serve", Command::Serve),
        ("apply a b", apply(&["a", "b"], true, None)),
        ("apply -f a --no-wait", apply(&["a"], false, None)),
        ("apply --timeout=5m -- -a", apply(&["-a"], true, Some(Duration::from_secs(300)))),
        ("tasks", Command::Tasks),
        ("top", Command::Top { name: None }),
        ("top web", Command::Top { name: Some(name("web")) }),
        ("task A_1", Command::Task { guid: "A_1".into() }),
        ("cancel A_1 b", Command::Cancel { guids: vec!["A_1".into(), "b".into()] }),
        ("apps", Command::Apps),
        ("ps", Command::Apps),
        ("ls", Command::Apps),
        ("app web", Command::App { name: name("web") }),
        ("events", Command::Events { since: None, follow: false }),
        (
            "events -f --since 3-17",
            Command::Events {
                since: Some(EventsSince::Id("3-17".parse().expect("an id"))),
                follow: true,
            },
        ),
        (
            "events --since 10m",
            Command::Events {
                since: Some(EventsSince::Time(Since::Ago(Duration::from_secs(600)))),
                follow: false,
            },
        ),
        ("explain web:w/1", Command::Explain { target: target("web", Some("w"), Some(1)) }),
        ("logs web", logs(target("web", None, None), false, None)),
        ("logs -fn5 web/1", logs(target("web", None, Some(1)), true, Some(5))),
        ("logs web:worker --lines 0", logs(target("web", Some("worker"), None), false, Some(0))),
        ("logs -f web --since 1h30m", since(Some(Since::Ago(Duration::from_secs(5400))), None)),
        ("logs -f web --since=1970-01-01T00:01Z", since(Some(Since::At(60_000)), None)),
        ("logs -f web --source STG", since(None, Some("STG"))),
        ("scale web=3", scale(None, 3)),
        ("scale web 0", scale(None, 0)),
        ("scale web:worker=1000", scale(Some("worker"), 1000)),
        ("stop web", act(Act::Stop, &["web"])),
        ("start web api", act(Act::Start, &["web", "api"])),
        ("restart web", act(Act::Restart, &["web"])),
        ("restart web/1", Command::Afresh(target("web", None, Some(1)))),
        ("restart web:worker/0", Command::Afresh(target("web", Some("worker"), Some(0)))),
        ("delete -f web", act(Act::Delete, &["web"])),
        ("rm web", act(Act::Delete, &["web"])),
        ("check a.toml", Command::Check { files: vec!["a.toml".into()] }),
        ("drain", Command::Drain { wait: false, timeout: None }),
        (
            "drain --wait --timeout 5m",
            Command::Drain { wait: true, timeout: Some(Duration::from_secs(300)) },
        ),
        ("undrain", Command::Undrain),
        ("version", Command::Version),
        ("apply --version", Command::Version),
        ("-V", Command::Version),
        ("help", Command::Help { verb: None }),
        ("-h", Command::Help { verb: None }),
        ("help rm", Command::Help { verb: Some(Id::Delete) }),
        ("scale --help", Command::Help { verb: Some(Id::Scale) }),
        ("bench --stack a --rounds 3", Command::Bench { stack: "a".into(), rounds: 3 }),
        ("init", Command::Init),
        (
            "lifecycle launcher -- --json",
            Command::Lifecycle {
                role: "launcher".into(),
                args: vec!["--".into(), "--json".into()],
            },
        ),
    ] {
        assert_eq!(command(line), meaning, "{line}");
    }
}

#[test]
fn exec_keeps_its_command_as_it_is() {
    let exec = |line: &str| match command(line) {
        Command::Exec(exec) => exec,
        other => panic!("{line}: {other:?}"),
    };
    for (line, argv) in [
        ("exec web -- ls -l", &["ls", "-l"][..]),
        ("exec web ls -l --json", &["ls", "-l", "--json"]),
        ("exec web -- sh -c x -- y", &["sh", "-c", "x", "--", "y"]),
        ("exec web sh -c x -- y", &["sh", "-c", "x", "--", "y"]),
        ("exec web -- --", &["--"]),
        ("ssh -it web bash", &["bash"]),
    ] {
        assert_eq!(exec(line).argv, argv, "{line}");
    }
    let all = exec("exec -u root web:worker/2 -w /tmp -e A=b=c -e D= -T -- id");
    assert_eq!(all.target, target("web", Some("worker"), Some(2)));
    assert_eq!((all.user.as_deref(), all.dir.as_deref()), (Some("root"), Some("/tmp")));
    assert_eq!(all.env, [("A".into(), "b=c".into()), ("D".into(), String::new())]);
    assert_eq!((all.tty, exec("exec -t web id").tty), (Some(false), Some(true)));
}

#[test]
fn global_flags_go_anywhere() {
    let both = ["--json -q -H unix:///x --root /r apps", "apps --root=/r --json -qHunix:///x"];
    for line in both {
        let global = typed(line).expect(line).global;
        assert!(global.json && global.quiet && !global.no_color, "{line}");
        assert_eq!(global.host.as_deref(), Some("unix:///x"));
        assert_eq!(global.root, Some("/r".into()));
    }
}

#[test]
fn mistakes_name_the_cure() {
    for (line, message) in [
        ("aply x", "no verb `aply`; did you mean `terrarium apply`?"),
        ("frobnicate", "no verb `frobnicate`; `terrarium help` lists all verbs"),
        ("lifecycl", "no verb `lifecycl`; `terrarium help` lists all verbs"),
        ("apps --jsno", "no flag `--jsno`; did you mean `--json`?"),
        ("logs web --folow", "no flag `--folow`; did you mean `--follow`?"),
        ("apps -x", "no flag `-x`; see `terrarium apps --help`"),
        ("--xyzzy", "no flag `--xyzzy`; see `terrarium --help`"),
        ("apps extra", "`extra` is one too many; see `terrarium apps --help`"),
        ("app", "`app` needs NAME; see `terrarium app --help`"),
        ("app a b", "`b` is one too many; see `terrarium app --help`"),
        ("app A", "app name `A` may hold only a-z, 0-9 and `-`; see `terrarium app --help`"),
        ("apply", "`apply` needs FILE|DIR...; see `terrarium apply --help`"),
        ("apply a --timeout 5", "time `5` has no unit; write \"5s\"; see `terrarium apply --help`"),
        ("logs web -n", "--lines needs a LINES; see `terrarium logs --help`"),
        ("logs web -n x", "`x` is no number of lines; see `terrarium logs --help`"),
        (
            "logs web --since yesterday",
            "`yesterday` is neither so long ago nor a time in UTC; write \"10m\" or \
             \"2026-11-21T15:04:05\"",
        ),
        (
            "events --since yesterday",
            "`yesterday` is neither an event's id, nor so long ago, nor a time; write \"3-17\", \"10m\" \
             or \"2026-11-21T15:04:05\" (UTC)",
        ),
        ("logs web/x", "`x` is no instance number; see `terrarium logs --help`"),
        ("logs web:", "`web:` names no process; see `terrarium logs --help`"),
        ("exec web", "`exec` needs a command; see `terrarium exec --help`"),
        ("exec web -e X -- id", "`X` is not NAME=VALUE; see `terrarium exec --help`"),
        ("exec web -tT -- id", "both --tty and --no-tty; see `terrarium exec --help`"),
        ("scale web", "`scale` needs NAME[:PROCESS]=N; see `terrarium scale --help`"),
        ("scale web=x", "`x` is not a number from 0 to 1000; see `terrarium scale --help`"),
        (
            "scale shop web=3",
            "`web=3` is not a number from 0 to 1000; write `shop:web=3`; see `terrarium scale --help`",
        ),
        ("scale web=1001", "`1001` is not a number from 0 to 1000; see `terrarium scale --help`"),
        ("lifecycle", "`lifecycle` needs ROLE [ARGS]...; see `terrarium lifecycle --help`"),
        ("help nothing", "no verb `nothing`; `terrarium help` lists all verbs"),
    ] {
        assert_eq!(typed(line).expect_err(line).to_string(), message, "{line}");
    }
    // A flag that has no value was given one.
    let err = typed("apps --json=yes").expect_err("no value").to_string();
    assert!(err.ends_with("see `terrarium apps --help`"), "{err}");
}

#[test]
fn every_word_of_image_is_understood() {
    let digest = format!("sha256:{:0<64}", "ab");
    let name = |text: &str| text.parse::<ImageRef>().expect("a name");
    let load = |name| Image::Load { path: "a.tar".into(), name };
    for (line, meaning) in [
        ("image ls", Image::List),
        ("images list", Image::List),
        ("image pull reg.lan:5000/ops/app:1", Image::Pull(name("reg.lan:5000/ops/app:1"))),
        ("image load a.tar", load(None)),
        ("image load --name ops/app a.tar", load(Some(name("ops/app")))),
        ("image save app x.tar", Image::Save { image: "app".into(), file: "x.tar".into() }),
        (&format!("image rm app {digest}"), Image::Remove(vec!["app".into(), digest.clone()])),
        ("image gc", Image::Collect { all: false }),
        ("image gc --all", Image::Collect { all: true }),
        ("image inspect abcdef", Image::Inspect("abcdef".into())),
    ] {
        assert_eq!(command(line), Command::Image(meaning), "{line}");
    }
    for line in [
        "image",
        "image frobnicate",
        "image ls all",
        "image pull",
        "image pull a b",
        "image pull UPPER",
        "image load",
        "image load a.tar --name A:B:C",
        &format!("image load a.tar --name app@{digest}"),
        "image save app",
        "image rm",
        "image gc now",
        "image ls --all",
        "image pull app --name other",
        "image ls --nonsense",
    ] {
        assert!(typed(line).is_err(), "{line}");
    }
}
