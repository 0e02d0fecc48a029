mod image;

use super::*;
use crate::config::sink::absent_keys;
use crate::model::egress::Protocol;
use crate::model::manifest::Check;
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

#[test]
fn every_mistake_is_named_with_its_place_and_its_cure() {
    // Each text follows HEAD, so that it begins on line 3.
    let cases = [
        ("x = 1", "3:1 unknown key `x` | "),
        (
            "[run]\ninstnaces = 2",
            "4:1 unknown key `instnaces` in [run] | did you mean `instances`?",
        ),
        ("[rnu]", "3:2 unknown key `rnu` | did you mean `run`?"),
        ("memory = \"1GiB\"", "3:1 unknown key `memory` | it belongs below [run]"),
        ("[run]\nmemory = 256", "4:10 size `256` has no unit | write \"256MiB\""),
        ("[run]\nmemory = \"256\"", "4:10 size `256` has no unit | write \"256MiB\" or \"256B\""),
        ("[run]\nmemory = \"256M\"", "4:10 unit `M` is not known here"),
        ("[run]\nmemory = true", "4:10 `run.memory` must be a string, not true or false"),
        ("[run]\nmemory = \"2MiB\"", "4:10 `run.memory` is 2MiB, out of range | 4MiB to 64TiB"),
        ("[run]\ndisk = \"1KiB\"", "4:8 `run.disk` is 1KiB, out of range"),
        ("[run]\ninstances = 1001", "4:13 `run.instances` is 1001, out of range | 0 to 1000"),
        ("[run]\ninstances = -1", "4:13 `run.instances` is -1, out of range"),
        (
            "[run]\ninstances = \"2\"",
            "4:13 `run.instances` must be a number, not a string | write 2",
        ),
        ("[run]\ninstances = 1.5", "4:13 `run.instances` must be a whole number, not a fraction"),
        ("[run]\ncpu_weight = 0", "4:14 `run.cpu_weight` is 0, out of range | 1 to 100"),
        ("[run]\npids = 1", "4:8 `run.pids` is 1, out of range"),
        ("[run]\nnofile = 9999999", "4:10 `run.nofile` is 9999999, out of range"),
        ("[run]\ncommand = \" \"", "4:11 `run.command` is empty"),
        (
            "[run]\ncommand = [\"a\"]",
            "4:11 `run.command` must be a string, not a list | write one line",
        ),
        ("[run]\ncommand = \"a\\u0000b\"", "4:11 `run.command` holds a NUL character"),
        (
            "[run]\nuser = \"99999999999\"",
            "4:8 `99999999999` is no id | write a number from 0 to 65535",
        ),
        ("[run]\nuser = \"1:70000\"", "4:8 `70000` is no id | write a number from 0 to 65535"),
        ("[run]\nuser = \"a b\"", "4:8 `a b` is not a user | write \"vcap\""),
        (
            "[run]\nmemory_low = \"1MiB\"",
            "4:1 `run.memory_low` is not supported by this version yet",
        ),
        ("[log]\nrate = \"16KiB\"", "4:8 `16KiB` is not a rate | write \"16KiB/s\" or \"none\""),
        ("[log]\nrate = 16384", "4:8 `log.rate` must be a string, not a number"),
        ("[log]\nburst = 1", "4:1 `log.burst` is not supported by this version yet"),
        (
            "[run]\nlog_rate = \"1KiB/s\"",
            "4:1 unknown key `log_rate` in [run] | write rate = \"16KiB/s\" below [log]",
        ),
        ("run = 1", "3:7 `run` must be a table, not a number"),
        ("[[run]]", "3:1 `run` must be one table, not a list | write [run] once"),
        ("[build]\ntimeout = 900", "4:11 time `900` has no unit | write \"900s\""),
        ("[build]\ntimeout = \"900\"", "4:11 time `900` has no unit | write \"900s\""),
        ("[build]\ntimeout = \"2 days\"", "4:11 `2 days` is not a time"),
        ("[build]\ntimeout = \"0s\"", "4:11 `build.timeout` is 0s, out of range | 1s to 1d"),
        (
            "[build]\nlifecycle = \"docker\"",
            "4:13 an app that comes as an image has no [build] | write [image] with `ref`",
        ),
        (
            "[build]\nlifecycle = \"buidpack\"",
            "4:13 `build.lifecycle` cannot be \"buidpack\" | did you mean",
        ),
        (
            "[build]\nbuildpacks = \"static\"",
            "4:14 `build.buildpacks` must be a list, not a string | write [\"static\"]",
        ),
        ("[build]\nbuildpacks = [\"a\", \"../b\"]", "4:20 buildpack `../b` is not good"),
        ("[build]\nbuildpacks = [\"a\", \"a\"]", "4:20 buildpack `a` is named twice"),
        ("[build]\nbuildpacks = [\"https://x/y\"]", "4:15 buildpacks from a URL are not supported"),
        ("[build]\nstack = \"a/b\"", "4:9 stack `a/b` is not good"),
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
        ("[port]\ncontainer = 1", "3:1 `port` is a list | write [[port]]"),
        (
            "[[port]]\ncontainer = 70000",
            "4:13 `port.container` is 70000, out of range | 1 to 65535",
        ),
        (
            "[[port]]\npublish = \"0.0.0.0:80\"",
            "4:11 publishing on one address is not supported by this version yet | write 80",
        ),
        (
            "[[port]]\npublish = \"80\"",
            "4:11 `port.publish` must be a number, not a string | write 80 without quotes",
        ),
        (
            "[[port]]\nname = \"a\"\ncontainer = 2\n[[port]]\nname = \"a\"\ncontainer = 1",
            "7:8 port name `a` is used twice",
        ),
        (
            "[[port]]\nname=\"a\"\ncontainer=1\n[[port]]\nname=\"b\"\ncontainer=1",
            "8:11 container port `1` is used twice",
        ),
        (
            "[[port]]\nname=\"a\"\ncontainer=1\npublish=9\n[[port]]\nname=\"b\"\ncontainer=2\npublish=9",
            "10:9 published port `9` is used twice",
        ),
        (
            "[[port]]\ncontainer=1\n[[port]]\nname=\"b\"\ncontainer=2",
            "3:1 `name` is missing in [port]",
        ),
        ("[[port]]\nname = \"Web\"", "4:8 port `Web` is not good"),
        (
            "[process.worker]\n[[port]]",
            "4:1 port `web` belongs to no process | add ports = [\"web\"]",
        ),
        (
            "[process.web]\nports=[\"web\"]\n[process.b]\nports=[\"web\"]\n[[port]]\npublish=80",
            "7:1 published port `web` belongs to both `b` and `web`",
        ),
        (
            "[process.web]\nports = [\"http\"]\n[[port]]",
            "4:10 there is no port `http` | declared: \"web\" (8080)",
        ),
        ("[process]", "3:1 `process` names no process | write [process.web]"),
        (
            "[process]\ncommand = \"a\"",
            "4:11 `process.command` must be a table, not a string | write [process.NAME] above",
        ),
        ("[process.Web]", "3:10 process `Web` is not good"),
        ("[process.a]\nfoo = 1", "4:1 unknown key `foo` in [process.a]"),
        (
            "[run]\ncommand = \"a\"\n[process.worker]",
            "4:11 `run.command` starts the `web` process, but there is no [process.web]",
        ),
        (
            "[health]\ntype = \"htpt\"",
            "4:8 `health.type` cannot be \"htpt\" | did you mean \"http\"?",
        ),
        (
            "[health]\ntype = \"watchdog\"",
            "4:8 health checks of type \"watchdog\" are not supported",
        ),
        ("[health]\ntype = \"none\"", "4:8 `health.type` cannot be \"none\" | write \"process\""),
        (
            "[health]\ntype = \"port\"",
            "3:1 process `web` has no port that could be checked | add [[port]]",
        ),
        (
            "[health]\npath = \"/\"\n[[port]]",
            "4:8 only \"http\" checks have a path | add type = \"http\"",
        ),
        (
            "[health]\ntype = \"port\"\npath = \"/\"\n[[port]]",
            "5:8 only \"http\" checks have a path | write type",
        ),
        ("[health]\ntype = \"process\"\nport = 1\n[[port]]", "5:8 a \"process\" check has no port"),
        (
            "[health]\ntype = \"http\"\nport = \"x\"\n[[port]]",
            "5:8 there is no port `x` | declared: \"web\" (8080)",
        ),
        ("[health]\nport = 81\n[[port]]", "4:8 there is no port `81`"),
        (
            "[health]\nport = true\n[[port]]",
            "4:8 `health.port` must be the name or the number of a port",
        ),
        ("[health]\ntype = \"http\"\npath = \"x\"\n[[port]]", "5:8 `x` is not a path"),
        ("[health]\ninterval = 5", "4:12 time `5` has no unit"),
        (
            "[health]\ninterval = { health = \"5s\" }",
            "4:14 unknown key `health` in [health.interval] | did you mean `healthy`?",
        ),
        (
            "[health]\ntimeout = \"1ms\"",
            "4:11 `health.timeout` is 1ms, out of range | 100ms to 10m",
        ),
        (
            "[restart]\npolicy = \"onfailure\"",
            "4:10 `restart.policy` cannot be \"onfailure\" | did you mean \"on-failure\"?",
        ),
        ("[restart]\nbackoff = 1", "4:1 `restart.backoff` is not supported by this version yet"),
        ("[[egress]]", "3:1 `allow` is missing in [egress]"),
        ("[[egress]]\nallow = \"http\"", "4:9 `egress.allow` cannot be \"http\""),
        ("[[egress]]\nallow = \"icmp\"\nports = [1]", "5:9 only \"tcp\" and \"udp\" have ports"),
        (
            "[[egress]]\nallow = \"tcp\"\nto = [\"10.0.0.1/8\"]",
            "5:7 `10.0.0.1/8` is not the start of its network | write \"10.0.0.0/8\"",
        ),
        (
            "[[egress]]\nallow = \"tcp\"\nto = [\"10.0.0.9-10.0.0.1\"]",
            "5:7 range `10.0.0.9-10.0.0.1` is backwards",
        ),
        (
            "[[egress]]\nallow = \"tcp\"\nto = [\"backup.lan\"]",
            "5:7 `backup.lan`: names are not supported here yet",
        ),
        ("[[egress]]\nallow = \"tcp\"\nto = [\"fe80::1\"]", "5:7 `fe80::1`: IPv6 is not supported"),
        ("[[egress]]\nallow = \"tcp\"\nto = [\"10.0.0.0/33\"]", "5:7 `10.0.0.0/33` is no address"),
        ("[[egress]]\nallow = \"tcp\"\nto = []", "5:6 `egress.to` is empty | remove it"),
        ("[[egress]]\nallow = \"tcp\"\nports = [\"9-8\"]", "5:10 `9-8` is no port range"),
        ("[[egress]]\nallow = \"tcp\"\nports = [0]", "5:10 `egress.ports` is 0, out of range"),
        ("[[egress]]\nallow = \"tcp\"\nlog = 1", "5:7 `egress.log` must be true or false"),
        ("[image]\nref = \"x\"", "2:10 `source` and `image` do not go together | an app is built"),
        ("[[volume]]\nname = \"x\"", "3:3 `[[volume]]` is not supported by this version yet"),
        ("after = [\"x\"]", "3:1 `after` is not supported by this version yet"),
        ("name = \"b\"", "3:1 duplicate key"),
        ("x = \"", "3:"),
    ];
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

#[test]
fn web_has_every_port_that_no_other_process_lists() {
    let it = good(&format!(
        "{HEAD}[process.web]\n[process.admin]\nports = [\"admin\"]\n\
         [[port]]\nname = \"web\"\ncontainer = 1\npublish = 80\n\
         [[port]]\nname = \"admin\"\ncontainer = 2\npublish = 81\n"
    ));
    assert_eq!(it.processes["web"].ports, ["web"]);
    assert_eq!(it.processes["admin"].health.check, Check::Port { port: 2 });
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
[sidecar.statsd]
command = "/app/bin/statsd-relay"
[hook.release]
command = "python manage.py migrate"
[[port]]
name = "web"
[[route]]
host = "orders.box.local"
[[volume]]
name = "data"
[run]
memory_low = "64MiB"
stop = { signal = "TERM", timeout = "5s" }
[health]
type = "http"
failures = 3
[restart]
backoff = { min = "1s" }
"#;
    let found = problems(text);
    let names: Vec<&str> = found.iter().filter_map(|it| it.split('`').nth(1)).collect();
    assert_eq!(
        names,
        [
            "after",
            "build.cache",
            "[sidecar]",
            "[hook]",
            "[[route]]",
            "[[volume]]",
            "run.memory_low",
            "run.stop",
            "health.failures",
            "restart.backoff"
        ]
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
    assert_eq!(names, ["hello", "site", "worker"]);
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

const REFERENCE: &str = include_str!("../../../config/manifest.toml");

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
        read(top, "reference.toml", Path::new("/x"), &mut Places::default())
    });
    let shown = |key: &&String| {
        optional.contains(key.rsplit('.').next().unwrap_or(key)) || key.as_str() == "process"
    };
    let missing: Vec<&String> = absent.iter().filter(|key| !shown(key)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}
