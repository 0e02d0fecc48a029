//! Row 88: sample manifests and what becomes of them.

use super::*;
use crate::config::manifest::parse;
use crate::model::manifest::{Check, Image, Manifest};
use crate::unit::Rate;
use std::time::Duration;

/// As cf's documentation has them: every key at least once.
const WHOLE: &str = r#"---
version: 1
defaults: &defaults
  memory: 512M
  stack: cflinuxfs4
  env: &env
    RAILS_ENV: production
    VERSION: 1.10
    FEATURES: {beta: true, level: 3, names: [a, "1"]}
applications:
- <<: *defaults
  name: Orders_App
  path: ./orders
  buildpacks:
  - https://github.com/cloudfoundry/nodejs-buildpack.git#v1.8.0
  - ruby_buildpack
  disk-quota: 2GB
  instances: 2
  command: bundle exec rackup -p $PORT
  log-rate-limit-per-second: 16K
  timeout: 90
  health-check-type: http
  health_check_http_endpoint: /health
  health-check-invocation-timeout: 5
  health-check-interval: 20
  readiness-health-check-type: port
  readiness-health-check-interval: 7
  routes:
  - route: ((host)).example.org/api
    protocol: http2
  - route: tcp.example.org:9000
    protocol: tcp
  services:
  - orders-db
  - name: mail
    binding_name: post
    parameters: {from: a@example.org}
  - unknown
  sidecars:
  - name: relay
    process_types: [web, worker]
    command: ./relay
    memory: 16M
  metadata:
    labels: {team: shop}
  features:
    ssh: true
    file-based-vcap-services: true
- name: jobs
  docker: {image: redis:7, username: joe}
  no-route: true
  health-check-type: process
  processes:
  - type: worker
    command: work
    instances: 3
    memory: 64M
    disk_quota: 128m
    health-check-type: port
    readiness-health-check-type: http
  - type: clock_tick
    command: tick
  env:
    <<: *env
    PORT: "1"
    EMPTY:
    TEXT: "a\n\"b\" \\"
- name: plain
"#;

const SERVICES: &str = r#"
[orders-db]
label = "postgresql"
plan = "small"
tags = ["sql"]
credentials = { uri = "postgres://u:p@10.0.0.5/orders", port = 5432, ca = ["x", "y"] }
[mail]
credentials.host = "10.0.0.7"
"#;

fn around(services: Vec<Service>) -> Surroundings<'static> {
    Surroundings {
        dir: Path::new("/home/joe/shop"),
        stacks: &|name| name == "edgefs",
        buildpacks: BTreeSet::from(["ruby".to_owned()]),
        services,
        unpacks: false,
        no_route: false,
    }
}

fn converted(
    text: &str,
    vars: &[(String, Node)],
    around: &Surroundings<'_>,
) -> Result<Vec<Imported>, Vec<Mistake>> {
    convert(yaml::nodes(text).map_err(|err| vec![of_yaml(&err)])?, vars, around, &mut counted(8080))
}

fn converted_by(text: &str, ports: &mut Ports<'_>) -> Vec<Imported> {
    let top = yaml::nodes(text).expect("YAML");
    convert(top, &[], &around(Vec::new()), ports).expect("converted")
}

fn vars(text: &str) -> Vec<(String, Node)> {
    let Tree::Map(pairs) = yaml::nodes(text).expect("YAML").tree else { panic!("no map") };
    pairs.into_iter().map(|pair| (pair.key, pair.value)).collect()
}

/// Each as `check` reads it.
fn manifests(all: &[Imported]) -> Vec<Manifest> {
    let one = |one: &Imported| {
        parse(&one.text, "x.toml", Path::new("/x"))
            .unwrap_or_else(|bad| panic!("{}\n{}", one.text, bad.render(false)))
    };
    all.iter().map(one).collect()
}

#[test]
fn row_88_a_whole_manifest_is_carried_over_with_a_list_of_what_is_not() {
    let around = around(services_of(SERVICES, false).expect("services"));
    let all = converted(WHOLE, &vars("host: shop"), &around).expect("converted");
    let [orders, jobs, plain] = &manifests(&all)[..] else { panic!("{all:?}") };
    assert_eq!(
        (orders.name.as_str(), orders.source.as_path()),
        ("orders-app", Path::new("/home/joe/shop/orders"))
    );
    let fork = "https://github.com/cloudfoundry/nodejs-buildpack.git#v1.8.0";
    assert_eq!(orders.build.buildpacks, [fork, "ruby"], "somebody's own stays his own");
    let web = &orders.processes["web"];
    assert_eq!((web.instances, web.memory.as_mib(), web.disk.as_mib()), (2, 512, 2048));
    assert_eq!(orders.run.command.as_deref(), Some("bundle exec rackup -p $PORT"));
    assert_eq!(orders.log.rate, Some("16KiB/s".parse::<Rate>().expect("a rate")));
    assert_eq!(web.health.check, Check::Http { port: 8080, path: "/health".into() });
    let times = [web.health.start_timeout, web.health.timeout, web.health.interval_healthy];
    assert_eq!(times, [90, 5, 20].map(Duration::from_secs));
    let ready = web.readiness.as_ref().expect("readiness");
    assert_eq!((&ready.check, ready.interval_healthy.as_secs()), (&Check::Port { port: 8080 }, 7));
    assert_eq!(orders.ports[0].publish, Some(9000), "the port of its TCP route");
    assert_eq!(orders.uris, ["shop.example.org/api", "tcp.example.org:9000"]);
    let env: Vec<_> = orders.env.iter().map(|(name, value)| (&**name, &**value)).collect();
    let json = r#"{"beta":true,"level":3,"names":["a","1"]}"#;
    assert_eq!(env, [("FEATURES", json), ("RAILS_ENV", "production"), ("VERSION", "1.10")]);
    let [db, mail] = &orders.services[..] else { panic!("{:?}", orders.services) };
    assert_eq!((&*db.label, db.credentials["port"].as_i64()), ("postgresql", Some(5432)));
    assert_eq!((&*mail.label, mail.binding_name.as_deref()), (USER_PROVIDED, Some("post")));
    assert!(orders.file_based_services);
    let relay = &orders.sidecars["relay"];
    assert_eq!(
        (&*relay.processes, relay.memory.map(|it| it.as_mib())),
        (&["web".to_owned()][..], Some(16))
    );

    assert_eq!(
        jobs.image.as_ref().map(Image::to_string).as_deref(),
        Some("docker.io/library/redis:7")
    );
    assert!(jobs.ports.iter().all(|port| port.publish.is_none()), "no route: {:?}", jobs.ports);
    let shape = |name: &str| {
        let process = &jobs.processes[name];
        (process.instances, process.memory.as_mib(), process.command.as_deref())
    };
    assert_eq!(shape("worker"), (3, 64, Some("work")));
    assert_eq!(shape("clock-tick"), (0, 1024, Some("tick")), "others than web: none until scaled");
    assert_eq!(jobs.processes["web"].health.check, Check::Process);
    assert_eq!((&*jobs.env["TEXT"], &*jobs.env["EMPTY"]), ("a\n\"b\" \\", ""));
    assert_eq!((plain.ports[0].publish, plain.run.memory.as_mib()), (Some(8080), 1024));

    let told: Vec<String> =
        all[0].notes.iter().map(|note| format!("{} {}", note.line, note.what)).collect();
    for (line, what) in [
        (11, "name: `Orders_App` is called `orders-app`"),
        (11, "stack: cflinuxfs4 is not on this box"),
        (11, "egress: cf lets an app reach other hosts"),
        (
            11,
            "buildpack https://github.com/cloudfoundry/nodejs-buildpack.git#v1.8.0: each staging fetches it",
        ),
        (11, "buildpack ruby_buildpack: is called ruby"),
        (29, "route shop.example.org/api: no names are routed here; it is port 9000"),
        (37, "parameters of service `mail`"),
        (38, "service unknown: nothing is known of its credentials"),
        (40, "sidecar relay: there is no process worker"),
        (44, "metadata: labels"),
        (47, "features.ssh"),
    ] {
        let found = told.iter().any(|it| it.starts_with(&format!("{line} {what}")));
        assert!(found, "{line} {what}\n{told:#?}");
    }
    assert_eq!(told.len(), 11, "{told:#?}");
    let lost = |what: &str| all[1].notes.iter().any(|note| note.what.contains(what));
    assert!(
        lost("env PORT") && lost("log in as `joe`") && lost("clock_tick: is called clock-tick")
    );
    for what in ["health-check-type", "readiness-health-check-type"] {
        let begin = format!("{what} of process worker: it has no port here");
        let found = all[1].notes.iter().any(|note| note.what.starts_with(&begin));
        assert!(found, "{begin}: {:?}", all[1].notes);
    }
}

#[test]
fn row_88_short_manifests_mean_what_cf_makes_of_them() {
    for (text, want) in [
        ("applications:\n- name: a\n  memory: 64m\n", "web 1 64 1024 port Some(8080)"),
        (
            "applications: [{name: a, no-route: true, health-check-type: none}]",
            "web 1 1024 1024 process None",
        ),
        (
            "applications: [{name: a, random-route: true, disk_quota: 1g, instances: 0}]",
            "web 0 1024 1024 port Some(8080)",
        ),
        (
            "applications: [{name: a, processes: [{type: web, memory: 1T}, {type: w, command: x}]}]",
            "w 0 1024 1024 process None, web 1 1048576 1024 port Some(8080)",
        ),
        (
            "applications: [{name: a, buildpack: default, command: null}]",
            "web 1 1024 1024 port Some(8080)",
        ),
    ] {
        let all = converted(text, &[], &around(Vec::new()))
            .unwrap_or_else(|bad| panic!("{text}: {bad:?}"));
        let manifest = &manifests(&all)[0];
        assert!(manifest.build.buildpacks.is_empty() && manifest.run.command.is_none());
        let one = |(name, it): (&String, &crate::model::manifest::Process)| {
            let kind = match it.health.check {
                Check::Port { .. } => "port",
                Check::Process => "process",
                _ => "other",
            };
            let port = it.ports.first().and_then(|_| manifest.ports[0].publish);
            format!(
                "{name} {} {} {} {kind} {port:?}",
                it.instances,
                it.memory.as_mib(),
                it.disk.as_mib()
            )
        };
        let shown: Vec<String> = manifest.processes.iter().map(one).collect();
        assert_eq!(shown.join(", "), want, "{text}");
    }
}

#[test]
fn what_cf_would_refuse_is_refused_with_its_line() {
    for (text, line, why) in [
        ("", 1, "this is no manifest"),
        ("a: b", 1, "`applications` is missing"),
        ("applications: []", 1, "`applications` has none"),
        ("applications:", 1, "`applications` has none"),
        ("memori: 1G\napplications: []", 1, "did you mean `memory`?"),
        ("version: 2\napplications: []", 1, "the version is not 1"),
        ("applications:\n- memory: 1G\n", 2, "`name` is missing"),
        ("applications:\n- name: a\n  memori: 1G\n", 3, "did you mean `memory`?"),
        ("applications:\n- name: a\n  memory: 1000\n", 3, "`memory` is no size"),
        (
            "applications:\n- name: a\n  disk-quota: 1M\n  disk_quota: 1M\n",
            4,
            "`disk-quota` is there twice",
        ),
        ("applications:\n- name: a\n  instances: -1\n", 3, "no whole number from 0"),
        ("applications:\n- name: a\n- name: a\n", 3, "`a` is there twice"),
        ("applications:\n- name: a b\n- name: a-b\n", 3, "two apps are called `a-b`"),
        ("applications:\n- name: \"!\"\n", 2, "cannot be the name"),
        ("applications:\n- name: a\n  docker: {image: b}\n  path: c\n", 2, "exclude each other"),
        ("applications:\n- name: a\n  docker: {}\n", 3, "names no image"),
        (
            "applications:\n- name: a\n  processes:\n  - type: web\n  - type: web\n",
            5,
            "`web` is there twice",
        ),
        ("applications:\n- name: a\n  processes:\n  - command: x\n", 4, "a process has no type"),
        ("applications:\n- name: a\n  health-check-type: tcp\n", 3, "write port, http or process"),
        ("applications:\n- name: a\n  routes:\n  - a.example.org\n", 4, "a route is missing"),
        ("applications:\n- name: a\n  routes:\n  - {route: a, protocol: tcp}\n", 4, "has no port"),
        ("applications:\n- name: a\n  no-route: maybe\n", 3, "neither true nor false"),
        ("applications:\n- name: a\n  sidecars:\n  - name: x\n", 4, "needs `name` and `command`"),
        ("applications:\n- name: ((x))\n", 2, "((x)) has no value"),
        ("applications:\n\t- name: a\n", 2, "a tab cannot indent"),
        ("applications:\n- name: a\n  env: *x\n", 3, "no anchor `&x`"),
    ] {
        let mistakes = converted(text, &[], &around(Vec::new())).expect_err(text);
        let told =
            |it: &Mistake| it.line == line && format!("{}; {}", it.what, it.cure).contains(why);
        assert!(mistakes.iter().any(told), "{text:?}: {mistakes:?}");
    }
}

#[test]
fn row_88_web_below_processes_wins_over_the_top_of_the_app() {
    let text = "
defaults: &it {memory: 64M, instances: 3}
applications:
- name: a
  processes:
  - {type: web, instances: 2, command: serve}
  - {type: worker, command: work}
  <<: *it
- name: b
  buildpacks: [staticfile_buildpack]
  host: shop
";
    let all = converted(text, &[], &around(Vec::new())).expect("converted");
    let [a, b] = &manifests(&all)[..] else { panic!("{all:?}") };
    let web = &a.processes["web"];
    assert_eq!((web.instances, web.memory.as_mib()), (2, 64));
    assert_eq!(a.run.command.as_deref(), Some("serve"));
    let worker = &a.processes["worker"];
    assert_eq!(
        (worker.instances, worker.memory.as_mib()),
        (0, 1024),
        "the top is not of the others"
    );
    assert_eq!(b.build.buildpacks, ["static"]);
    let host = all[1].notes.iter().find(|note| note.what.starts_with("host:"));
    assert_eq!(
        host.map(|note| note.line),
        Some(11),
        "routes as they were once: {:?}",
        all[1].notes
    );
    let mut has = around(Vec::new());
    has.buildpacks.insert("staticfile".into());
    let all = converted(text, &[], &has).expect("converted");
    assert_eq!(manifests(&all)[1].build.buildpacks, ["staticfile"], "the box has one of that name");
}

#[test]
fn services_are_known_from_tables_or_from_what_an_app_of_cf_has() {
    let text = r#"{"VCAP_SERVICES": {"postgresql": [{"name": "db", "instance_name": "orders-db",
        "binding_name": "db", "plan": "small", "tags": ["sql"], "credentials": {"port": 5432, "ca": null},
        "volume_mounts": [{"container_dir": "/data"}], "syslog_drain_url": null}]}}"#;
    let [db] = &services_of(text, true).expect("services")[..] else { panic!("one") };
    assert_eq!(
        (&*db.name, &*db.label, db.plan.as_deref()),
        ("orders-db", "postgresql", Some("small"))
    );
    let app = "applications: [{name: a, services: [orders-db]}]";
    let all = converted(app, &[], &around(vec![db.clone()])).expect("converted");
    let it = &manifests(&all)[0].services[0];
    assert_eq!((it.credentials.len(), it.binding_name.as_deref()), (1, Some("db")));
    assert_eq!(services_of("x", true), None);
    assert_eq!(services_of("[a]\ncredentials = 1", false), None);
}

#[test]
fn row_88_what_stands_at_the_top_holds_for_every_app() {
    let text = "
memory: 64M
disk_quota: 128M
buildpack: ruby
instances: 2
env: {A: top, B: top}
services: [orders-db]
random-route: true
kept: &kept {memory: 32M}
timeout: &later 90
space: default
applications:
- {name: a, disk-quota: 256M, env: {B: own}, services: [mail], buildpacks: [node]}
- {name: b, host: shop, timeout: *later}
";
    let around = around(services_of(SERVICES, false).expect("services"));
    let all = converted(text, &[], &around).expect("converted");
    let [a, b] = &manifests(&all)[..] else { panic!("{all:?}") };
    let sizes = |it: &Manifest| {
        let web = &it.processes["web"];
        (web.instances, web.memory.as_mib(), web.disk.as_mib())
    };
    assert_eq!((sizes(a), sizes(b)), ((2, 64, 256), (2, 64, 128)));
    assert_eq!((&*a.env["A"], &*a.env["B"], &*b.env["B"]), ("top", "own", "top"));
    let names = |it: &Manifest| it.services.iter().map(|one| one.name.clone()).collect::<Vec<_>>();
    assert_eq!(
        (names(a), names(b)),
        (vec!["orders-db".into(), "mail".into()], vec!["orders-db".into()])
    );
    assert_eq!(
        (&a.build.buildpacks[..], &b.build.buildpacks[..]),
        (&["node".to_owned()][..], &["ruby".to_owned()][..])
    );
    assert_eq!(
        a.processes["web"].health.start_timeout.as_secs(),
        60,
        "an anchor's is only kept there"
    );
    assert_eq!(b.processes["web"].health.start_timeout.as_secs(), 90);
    for (one, line, what) in [
        (&all[0], 11, "space: it is pushed to this box"),
        (&all[0], 8, "random-route: no names are routed here"),
        (&all[1], 8, "random-route: no names are routed here"),
        (&all[1], 14, "host: no names are routed here"),
    ] {
        let told = |note: &Note| note.line == line && note.what.starts_with(what);
        assert!(one.notes.iter().any(told), "{what}: {:?}", one.notes);
    }
    // Of an app alone.
    let all = converted(
        "name: c\nmemory: 16M\nbuildpack: binary_buildpack\ndescription: hello\n",
        &[],
        &around,
    );
    let all = all.expect("converted");
    let it = &manifests(&all)[0];
    assert_eq!(
        (it.name.as_str(), sizes(it), &*it.build.buildpacks[0]),
        ("c", (1, 16, 1024), "procfile")
    );
    assert!(
        all[0]
            .notes
            .iter()
            .any(|it| it.what.contains("unknown key `description`: it means nothing"))
    );
}

#[test]
fn row_88_a_manifest_is_laid_over_what_it_inherits() {
    let node = |text: &str| yaml::nodes(text).expect("YAML");
    let below = node(
        "memory: 64M\nenv: {A: base, B: base}\napplications:\n- {name: a, instances: 3}\n- {name: b}\n",
    );
    let above = node(
        "inherit: base.yml\nenv: {B: own}\nx: &x {instances: 2}\napplications:\n- !!merge <<: *x\n  name: b\n- {name: c, memory: 32M}\n",
    );
    assert_eq!(base::parent(&above), Some(("base.yml".into(), 1)));
    let all = convert(base::inherit(below, above, 1), &[], &around(Vec::new()), &mut counted(8080))
        .expect("converted");
    let shape = |it: &Manifest| {
        let web = &it.processes["web"];
        (
            it.name.to_string(),
            web.instances,
            web.memory.as_mib(),
            it.env["A"].clone(),
            it.env["B"].clone(),
        )
    };
    let shapes: Vec<_> = manifests(&all).iter().map(shape).collect();
    let one = |name: &str, instances, memory| {
        (name.to_owned(), instances, memory, "base".to_owned(), "own".to_owned())
    };
    assert_eq!(shapes, [one("a", 3, 64), one("b", 2, 64), one("c", 1, 32)]);
    let bad = base::inherit(
        node("memory: x\n"),
        node("\ninherit: base.yml\napplications: [{name: a}]\n"),
        2,
    );
    let mistakes = convert(bad, &[], &around(Vec::new()), &mut counted(8080)).expect_err("no size");
    assert_eq!(
        (mistakes[0].line, &*mistakes[0].what),
        (2, "`memory` is no size"),
        "where it inherits"
    );
}

#[test]
fn row_88_a_file_that_inherits_is_read_with_the_others_of_it() {
    let dir = std::env::temp_dir().join(format!("terrarium-inherit-{}", std::process::id()));
    fs::create_dir_all(dir.join("sub")).expect("directory");
    fs::write(dir.join("base.yml"), "memory: 48M\n").expect("base");
    fs::write(dir.join("sub/prod.yml"), "inherit: ../base.yml\napplications:\n- name: a\n")
        .expect("manifest");
    fs::write(dir.join("circle.yml"), "inherit: circle.yml\n").expect("circle");
    let global = crate::cli::parse::Global::default();
    let mut ui = Ui::to(&global, Box::new(io::sink()), Box::new(io::sink()));
    let top = whole(&mut ui, &dir.join("sub/prod.yml")).expect("read");
    let all = convert(top, &[], &around(Vec::new()), &mut counted(8080)).expect("converted");
    assert_eq!(manifests(&all)[0].run.memory.as_mib(), 48);
    assert!(matches!(whole(&mut ui, &dir.join("circle.yml")), Err(CliError::Invalid { .. })));
    fs::remove_dir_all(&dir).expect("clean up");
}

#[test]
fn row_88_the_app_is_told_of_its_routes_as_far_as_they_are_names() {
    let text = "applications:\n- name: a\n  routes:\n  - route: \"*.example.org/\"\n  - route: b\u{fc}cher.example\n  \
                - route: \"*.example.org\"\n- {name: b, no-route: true, routes: [{route: b.example.org}]}\n";
    let all = converted(text, &[], &around(Vec::new())).expect("converted");
    let uris: Vec<_> = manifests(&all).into_iter().map(|it| it.uris).collect();
    assert_eq!(uris, [vec!["*.example.org".to_owned()], Vec::new()]);
    let told = |it: &Note| it.line == 5 && it.what.contains("not told of such a name");
    assert!(all[0].notes.iter().any(told), "{:?}", all[0].notes);
}

#[test]
fn a_port_that_the_manifest_names_is_given_to_nobody_else() {
    let text = "applications:\n- name: a\n- name: b\n  routes:\n  - route: tcp.example.org:8080\n    \
                protocol: tcp\n- name: c\n- name: d\n  no-route: true\n";
    let publishes = |around: &Surroundings<'_>, ports: &mut Ports<'_>| {
        let all = convert(yaml::nodes(text).expect("YAML"), &[], around, ports).expect("converted");
        let all = manifests(&all).into_iter().map(|it| it.ports[0].publish);
        all.collect::<Vec<_>>()
    };
    let all = publishes(&around(Vec::new()), &mut counted(8080));
    assert_eq!(all, [Some(8081), Some(8080), Some(8082), None]);
    let mut told = Vec::new();
    let mut ports = |name: &AppName, named: &BTreeSet<u16>| {
        told.push((name.to_string(), named.clone()));
        Some(Port::This(9000))
    };
    publishes(&around(Vec::new()), &mut ports);
    let named = BTreeSet::from([8080]);
    assert_eq!(told, [("a".to_owned(), named.clone()), ("c".to_owned(), named)]);
    // Who is given one later is told of no number, and none is written.
    let later = converted_by(text, &mut |_, _| Some(Port::Later));
    assert_eq!(manifests(&later)[0].ports[0].publish, None);
    let told = |it: &Note| it.what == "route: the app answers on a port of the box";
    assert!(later[0].has_port && later[0].notes.iter().any(told), "{:?}", later[0].notes);
    // Without routes nobody is asked for a port, and that none is free is no mistake.
    let bare = Surroundings { no_route: true, ..around(Vec::new()) };
    assert_eq!(publishes(&bare, &mut |_, _| None), [None; 4]);
}

/// Issue 6: the second of them was refused when the first one ran already.
#[test]
fn two_apps_that_name_one_port_are_refused_with_both_places() {
    let tcp = |name: &str, port: u16| {
        format!("- name: {name}\n  routes:\n  - protocol: tcp\n    route: tcp.example.org:{port}\n")
    };
    let text = |second| format!("applications:\n{}{}", tcp("a", 9000), tcp("b", second));
    let all = |second| converted(&text(second), &[], &around(Vec::new())).expect("converted");
    assert_eq!(clash(&all(9001)), Ok(()));
    let both = all(9000);
    assert_eq!(clash(&both[1..]), Ok(()), "one of them alone");
    let mistake = clash(&both).expect_err("one port");
    assert_eq!(
        shown(Path::new("manifest.yml"), &mistake),
        "manifest.yml:9:12: port 9000 of the box is named for a and for b, see manifest.yml:5:12; give \
         one of them another port\n"
    );
}
