mod build;
mod extras;
mod health;
mod image;
mod network;
mod order;
mod run;

use super::*;
use crate::config::sink::absent_keys;
use crate::model::egress::Protocol;
use crate::model::manifest::{Check, Rollout, Strategy};
use crate::unit::Rate;
use std::collections::BTreeSet;
use std::net::Ipv4Addr;

fn good(text: &str) -> Manifest {
    match parse(text, "apps/web.toml", Path::new("/etc/terrarium/apps.d")) {
        Ok(manifest) => manifest,
        Err(problems) => panic!("{}", problems.render(false)),
    }
}

/// `line:column message | cure` of each problem.
fn problems(text: &str) -> Vec<String> {
    let Err(problems) = parse(text, "apps/web.toml", Path::new("/apps")) else {
        return Vec::new();
    };
    let show = |it: &crate::config::Diagnostic| {
        let cure = it.cure.as_deref().unwrap_or("");
        format!("{}:{} {} | {cure}", it.line, it.column, it.message)
    };
    problems.iter().map(show).collect()
}

/// What every manifest needs, on two lines.
const HEAD: &str = "name = \"web\"\nsource = { path = \".\" }\n";

/// Each text, after [`HEAD`] so that it begins on line 3, has this one mistake.
#[track_caller]
fn each_is_named(cases: &[(&str, &str)]) {
    let mut failed = String::new();
    for (text, expected) in cases {
        let found = problems(&format!("{HEAD}{text}\n"));
        if found.len() != 1 || !found[0].starts_with(expected) {
            failed.push_str(&format!("{text}\nwanted {expected}\ngot {found:#?}\n\n"));
        }
    }
    assert!(failed.is_empty(), "{failed}");
}

#[test]
fn every_mistake_of_the_whole_is_named_with_its_place_and_its_cure() {
    each_is_named(&[
        ("x = 1", "3:1 unknown key `x` | "),
        ("[rnu]", "3:2 unknown key `rnu` | did you mean `run`?"),
        ("memory = \"1GiB\"", "3:1 unknown key `memory` | it belongs below [run]"),
        ("run = 1", "3:7 `run` must be a table, not a number"),
        ("kind = \"task\"", "3:8 `kind = \"task\"` is not supported by this version yet"),
        ("kind = \"job\"", "3:8 `kind` cannot be \"job\" | write one of \"app\", \"task\""),
        ("[env]\nN = 8080", "4:5 `env.N` must be a string, not a number | write \"8080\""),
        (
            "[env]\nDEBUG = true",
            "4:9 `env.DEBUG` must be a string, not true or false | write \"true\"",
        ),
        ("[env]\nPORT = \"1\"", "4:1 `PORT` is set by Terrarium | write container = NUMBER"),
        ("[env]\nVCAP_SERVICES = \"{}\"", "4:1 `VCAP_SERVICES` is reserved"),
        ("[env]\n\"a=b\" = \"1\"", "4:1 `a=b` cannot be the name of a variable"),
        ("[image]\nref = \"x\"", "2:10 `source` and `image` do not go together | an app is built"),
        ("need = [\"x\"]", "3:1 unknown key `need` | did you mean `needs`?"),
        ("name = \"b\"", "3:1 duplicate key"),
        ("x = \"", "3:"),
    ]);
}

#[test]
fn what_must_be_there_is_asked_for() {
    for (text, expected) in [
        ("", vec!["1:1 `name` is missing", "1:1 `source` is missing"]),
        ("name = \"a\"\n[source]\n", vec!["2:1 `path` is missing in [source]"]),
        (
            "name = \"A b\"\nsource.path = \"\"\n",
            vec!["1:8 `A b` cannot be the name", "2:15 `source.path` is empty"],
        ),
    ] {
        let found = problems(text);
        assert_eq!(found.len(), expected.len(), "{text}\n{found:#?}");
        for (found, expected) in found.iter().zip(expected) {
            assert!(found.starts_with(expected), "{found}");
        }
    }
}

#[test]
fn all_mistakes_of_a_file_come_at_once_and_in_order() {
    let text = "name = \"web\"\ntypo = 1\n[source]\npath = 1\n[run]\nmemory = 1\ndisk = \"1M\"\n[env]\nA = 1\n";
    let lines: Vec<String> =
        problems(text).iter().map(|it| it.split(' ').next().expect("place").to_owned()).collect();
    assert_eq!(lines, ["2:1", "4:8", "6:10", "7:8", "9:5"]);
}

#[test]
fn a_person_sees_the_line() {
    let text = format!("{HEAD}[run]\nmemory = 256\n");
    let problems = parse(&text, "apps/web.toml", Path::new("/")).expect_err("a bare size");
    let expected = "\
error: size `256` has no unit
 --> apps/web.toml:4:10
  |
4 | memory = 256
  |          ^^^ write \"256MiB\"
";
    assert_eq!(problems.render(false), expected);
    assert_eq!(problems.to_string(), "apps/web.toml:4:10: size `256` has no unit");
}

#[test]
fn a_clash_shows_both_places() {
    let text = format!(
        "{HEAD}[[port]]\nname = \"a\"\ncontainer = 1\n[[port]]\nname = \"a\"\ncontainer = 2\n"
    );
    let problems = parse(&text, "web.toml", Path::new("/")).expect_err("one name twice");
    let shown = problems.render(false);
    assert!(shown.contains("web.toml:7:8"), "{shown}");
    assert!(shown.contains("first used here"), "{shown}");
}

const FULL: &str = r#"
name = "orders"
kind = "app"
source = { path = "./orders" }

[build]
lifecycle = "buildpack"
buildpacks = ["python", "procfile"]
stack = "cflinuxfs4"
memory = "512MiB"
disk = "1GiB"
timeout = "10m"

[run]
instances = 2
memory = "192MiB"
disk = "256MiB"
cpu_weight = 50
pids = 64
nofile = 1024
user = "1000:dialout"

[process.web]
command = "python web.py"
ports = ["admin", "web"]

[process.worker]
command = "python worker.py"
instances = 0
memory = "128MiB"
health = { type = "process" }

[process.feeder]

[env]
DATABASE_URL = "postgres://10.1.2.3:5432/orders"
"spring.profiles.active" = "edge"

[[port]]
name = "web"
container = 8080
publish = 80

[[port]]
name = "admin"
container = 9090

[[egress]]
allow = "tcp"
to = ["10.0.0.0/8", "192.168.1.5", "10.0.0.1-10.0.0.9"]
ports = [443, "8000-9000"]
log = true

[[egress]]
allow = "all"
to = ["0.0.0.0/0"]

[health]
type = "http"
port = "web"
path = "/healthz?deep=1"
start_timeout = "1m30s"
interval = { unhealthy = "250ms", healthy = "10s" }
timeout = "2s"

[restart]
policy = "on-failure"

[log]
rate = "64KiB/s"
"#;

#[test]
fn a_full_manifest_arrives_whole() {
    let it = good(FULL);
    assert_eq!(it.source, Path::new("/etc/terrarium/apps.d/orders"));
    assert_eq!(it.build.buildpacks, ["python", "procfile"]);
    assert_eq!((it.build.stack.as_str(), it.build.timeout.as_secs()), ("cflinuxfs4", 600));
    assert_eq!((it.run.cpu_weight, it.run.pids, it.run.nofile), (Some(50), 64, 1024));
    assert_eq!(it.processes.keys().collect::<Vec<_>>(), ["feeder", "web", "worker"]);

    let web = &it.processes["web"];
    assert_eq!((web.instances, web.memory), (2, Bytes::mib(192)));
    assert_eq!(web.ports, ["admin", "web"]);
    assert_eq!(web.health.check, Check::Http { port: 8080, path: "/healthz?deep=1".into() });
    assert_eq!(web.health.start_timeout, Duration::from_secs(90));
    assert_eq!(web.health.interval_unhealthy, Duration::from_millis(250));
    let worker = &it.processes["worker"];
    assert_eq!((worker.instances, worker.memory), (0, Bytes::mib(128)));
    assert_eq!(worker.health.check, Check::Process);
    // No port of its own: the shared check does not fit, its times do.
    let feeder = &it.processes["feeder"];
    assert_eq!(feeder.health.check, Check::Process);
    assert_eq!(feeder.health.interval_healthy, Duration::from_secs(10));

    let ip = |text: &str| text.parse::<Ipv4Addr>().expect(text);
    assert_eq!(it.egress[0].protocol, Protocol::Tcp);
    assert_eq!(
        it.egress[0].to,
        [
            (ip("10.0.0.0"), ip("10.255.255.255")),
            (ip("192.168.1.5"), ip("192.168.1.5")),
            (ip("10.0.0.1"), ip("10.0.0.9"))
        ]
    );
    assert_eq!(it.egress[0].ports, [(443, 443), (8000, 9000)]);
    assert_eq!(it.egress[1].to, [(ip("0.0.0.0"), ip("255.255.255.255"))]);
    assert_eq!(it.restart, Restart::OnFailure);
    assert_eq!(it.log.rate, Some(Rate::Bytes(Bytes::new(65_536))));
}

#[test]
fn a_short_manifest_has_the_documented_defaults() {
    let it = good(HEAD);
    assert_eq!(it.source, Path::new("/etc/terrarium/apps.d"));
    assert_eq!(it.build.stack, "edgefs");
    assert_eq!((it.build.memory, it.build.disk), (None, None));
    assert_eq!((it.run.instances, it.run.memory), (1, Bytes::mib(256)));
    assert_eq!((it.run.disk, it.run.pids, it.run.nofile), (Bytes::mib(512), 256, 16_384));
    assert_eq!(it.run.user, "vcap");
    assert_eq!(it.log.rate, None);
    assert_eq!(it.processes["web"].health.check, Check::Process);
    assert_eq!(it.processes["web"].health.start_timeout, Duration::from_secs(60));
    let it = good(&format!("{HEAD}[[port]]\n"));
    assert_eq!((it.ports[0].name.as_str(), it.ports[0].container), ("web", 8080));
    assert_eq!(it.processes["web"].health.check, Check::Port { port: 8080 });
    let it = good(&format!("{HEAD}[health]\ninterval = \"5s\"\n[[port]]\n"));
    let health = &it.processes["web"].health;
    assert_eq!(health.interval_healthy, Duration::from_secs(5));
    assert_eq!(health.interval_unhealthy, Duration::from_millis(500));
}

/// What the format will have one day is refused by name, and only that.
#[test]
fn a_manifest_of_a_later_version_is_refused_key_by_key() {
    let text = r#"
name = "orders"
after = ["postgres"]
source = { path = "./orders" }
[build]
buildpacks = ["python"]
cache = true
[process.web]
instances = 2
ports = ["web"]
[process.worker]
command = "python worker.py"
[hook.release]
command = "python manage.py migrate"
[[port]]
name = "web"
[[route]]
host = "orders.box.local"
[run]
memory_low = "64MiB"
[health]
type = "http"
on_fail = "x"
[restart]
backoff = { min = "1s" }
"#;
    let found = problems(text);
    let names: Vec<&str> = found.iter().filter_map(|it| it.split('`').nth(1)).collect();
    assert_eq!(
        names,
        ["build.cache", "[[route]]", "run.memory_low", "health.on_fail", "restart.backoff"]
    );
    assert!(
        found.iter().all(|it| it.contains("is not supported by this version yet")),
        "{found:#?}"
    );
}

#[test]
fn empty_lists_of_tables_are_no_tables() {
    let it = good(&format!("{HEAD}port = []\negress = []\n"));
    assert!(it.ports.is_empty() && it.egress.is_empty());
}

#[test]
fn the_sample_manifests_are_good() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/apps");
    let mut names = Vec::new();
    for entry in std::fs::read_dir(&dir).expect("config/apps") {
        let path = entry.expect("entry").path();
        if path.extension().is_some_and(|end| end == "toml") {
            let text = std::fs::read_to_string(&path).expect("sample");
            let manifest = parse(&text, &path.to_string_lossy(), &dir)
                .unwrap_or_else(|problems| panic!("{}", problems.render(false)));
            assert_eq!(path.file_stem(), Some(manifest.name.as_str().as_ref()));
            names.push(manifest.name.to_string());
        }
    }
    names.sort();
    assert_eq!(names, ["cache", "hello", "notes", "shop", "site", "talk", "worker"]);
}

#[test]
fn no_text_makes_it_panic() {
    let look = |text: &str| {
        if let Err(problems) = parse(text, "x", Path::new("/")) {
            assert!(problems.iter().next().is_some());
            assert!(!problems.render(false).is_empty() && !problems.render(true).is_empty());
        }
    };
    for end in 0..=FULL.len() {
        look(&FULL[..end]);
        look(&FULL[end..]);
    }
    // Every byte replaced by one that means something to TOML, or by more than one byte.
    for (at, _) in FULL.char_indices().step_by(13) {
        for odd in ["\"", "[", "=", "{", "\n", "#", "é", "\0", "1", "\r", "'", "."] {
            look(&format!("{}{odd}{}", &FULL[..at], &FULL[at + 1..]));
        }
    }
    look(&"[".repeat(10_000));
    look(&format!("a = {}", "[".repeat(10_000)));
    look(&"a.".repeat(10_000));
    look(&"x".repeat(2 << 20));
    look(&(0..10_000).map(|n| format!("k{n} = 1\n")).collect::<String>());
}

#[test]
fn who_may_come_in_is_read_and_what_cannot_be_says_so() {
    let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAINdamAGCsQq31Uv+08lkBzoO4XLz2qYjJa8CGmj3B1Ea me";
    let read = |text: &str| {
        let text = format!("name = \"web\"\nsource.path = \".\"\n{}", text.replace("KEY", key));
        parse(&text, "web.toml", Path::new("/x")).map_err(|bad| bad.render(false))
    };
    let ssh = read("[ssh]\nauthorized_keys = [\" KEY \"]\npublish = 2022").expect("good").ssh;
    let ssh = ssh.expect("there");
    assert_eq!((&ssh.authorized_keys[..], ssh.publish), (&[key.to_owned()][..], Some(2022)));
    assert_eq!(read("").expect("good").ssh, None);
    let ssh = read("[ssh]\nauthorized_keys_file = \"ops.keys\"").expect("good").ssh;
    let ssh = ssh.expect("there");
    assert_eq!(ssh.authorized_keys_file.as_deref(), Some(Path::new("/x/ops.keys")));
    assert!(ssh.authorized_keys.is_empty());
    assert_eq!((ssh.no_forwarding, ssh.idle_timeout), (false, None));
    let more = "[ssh]\nauthorized_keys = [\"KEY\"]\nforwarding = false\nidle_timeout = \"5m\"";
    let ssh = read(more).expect("good").ssh.expect("there");
    assert_eq!(
        (ssh.no_forwarding, ssh.idle_timeout),
        (true, Some(std::time::Duration::from_secs(300)))
    );
    for (text, why) in [
        ("[ssh]", "authorized_keys"),
        ("[ssh]\nauthorized_keys = []", "is empty"),
        ("[ssh]\nauthorized_keys_file = \"\"", "authorized_keys_file"),
        ("[ssh]\nauthorized_keys = [\"KEY\"]\nforwarding = 1", "forwarding"),
        ("[ssh]\nauthorized_keys = [\"KEY\"]\nidle_timeout = \"0s\"", "idle_timeout"),
        ("[ssh]\nauthorized_keys = [\"ssh-ed25519 AAAA\"]", "copy the whole line"),
        ("[ssh]\nauthorized_keys = [\"KEY\"]\npublish = 0", "publish"),
        ("port = [{ container = 2222 }]\n[ssh]\nauthorized_keys = [\"KEY\"]", "listen elsewhere"),
        (
            "port = [{ publish = 9000 }]\n[ssh]\nauthorized_keys = [\"KEY\"]\npublish = 9000",
            "for the second time",
        ),
        (
            "[ssh]\nauthorized_keys = [\"KEY\"]\n[sidecar.sshd]\ncommand = \"x\"",
            "call the other one differently",
        ),
    ] {
        let said = read(text).expect_err(text);
        assert!(said.contains(why), "{text}: {said}");
    }
}

const REFERENCE: &str = include_str!("../../../config/manifest.toml");

/// What is shown as a whole, behind `# `.
const WHOLE: [&str; 9] =
    ["process", "sidecar", "volume", "file", "service", "hook", "readiness", "health.check", "ssh"];

#[test]
fn the_reference_shows_every_key_with_its_true_default() {
    let switched_on = |mark: &str| -> String {
        let line = |line: &str| match line.strip_prefix(mark) {
            Some(key) if key.starts_with(|c: char| c.is_ascii_lowercase()) => format!("{key}\n"),
            _ => format!("{line}\n"),
        };
        REFERENCE.lines().map(line).collect()
    };
    let app = |text: &str| {
        parse(text, "reference.toml", Path::new("/x"))
            .unwrap_or_else(|bad| panic!("{}", bad.render(false)))
    };
    assert_eq!(app(REFERENCE), app(&switched_on("#")), "a default that is shown is not it");
    // Keys without a default stand behind `# `, between sentences: each line of TOML counts.
    let optional: BTreeSet<&str> = REFERENCE
        .lines()
        .filter_map(|line| line.strip_prefix("# ")?.split_once(" = "))
        .map(|(key, _)| key)
        .collect();
    let absent = absent_keys(&switched_on("#"), |top| {
        read(top, ("reference.toml", Path::new("/x")), Default::default(), &mut Places::default())
    });
    let shown = |key: &&String| {
        optional.contains(key.rsplit('.').next().unwrap_or(key)) || WHOLE.contains(&key.as_str())
    };
    let missing: Vec<&String> = absent.iter().filter(|key| !shown(key)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}
