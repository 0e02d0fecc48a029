use super::*;
use crate::model::task::StagedSidecar;
use std::time::Duration;

const HELLO: &str = r#"
name = "hello"
source = { path = "/srv/hello" }

[build]
buildpacks = ["procfile"]
memory = "512MiB"

[run]
instances = 2
memory = "64MiB"

[process.web]
[process.worker]
command = "./work.sh"
memory = "1GiB"

[env]
GREETING = "hi"
LANG = "C"
MEMORY_LIMIT = "lots"

[[port]]
publish = 8080

[[egress]]
allow = "tcp"
to = ["10.0.0.0/8"]
ports = [443]
"#;

fn manifest(text: &str) -> Manifest {
    crate::config::manifest::parse(text, "hello.toml", Path::new("/etc/terrarium/apps.d"))
        .unwrap_or_else(|problems| panic!("{}", problems.render(false)))
}

fn input(cache: bool) -> StagingInput {
    StagingInput {
        guid: "staging-hello-1".into(),
        buildpacks: vec![(
            "procfile".into(),
            PackFrom::Box("/usr/lib/terrarium/buildpacks/procfile".into()),
        )],
        cache_from: cache.then(|| "/var/cache/terrarium/build/hello".into()),
        droplet_to: "/var/lib/terrarium/droplets/hello.tgz".into(),
        result_to: "/var/lib/terrarium/droplets/hello.json".into(),
        cache_to: "/var/cache/terrarium/build/hello/cache.tgz".into(),
        version: Digest::of(b"what it is made of"),
        memory: Bytes::mib(512),
        disk: Bytes::mib(4096),
        env: vec![pair("CF_INSTANCE_IP", "192.0.2.1")],
    }
}

fn staged(types: &[(&str, &str)]) -> StagingResult {
    let process_types = types.iter().map(|(name, command)| pair(name, command)).collect();
    StagingResult { process_types, ..StagingResult::default() }
}

fn droplet() -> Digest {
    Digest::of(b"droplet")
}

fn lrps(text: &str) -> Vec<DesiredLrp> {
    desired_lrps(&manifest(text), &staged(&[("web", "python3 app.py")]), droplet(), 1)
        .expect("every process has a command")
}

/// Compares with the file in tests/golden; TERRARIUM_BLESS=1 rewrites it, for review as code.
fn golden(name: &str, value: &impl Serialize) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    let text = serde_json::to_string_pretty(value).expect("JSON") + "\n";
    if std::env::var_os("TERRARIUM_BLESS").is_some() {
        std::fs::write(&path, &text).expect("golden file");
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(text, expected, "{}", path.display());
}

#[test]
fn a_manifest_becomes_this_staging_task() {
    golden("staging-task.json", &staging_task(&manifest(HELLO), &input(true)));
}

#[test]
fn a_staged_manifest_becomes_these_lrps() {
    golden("desired-lrps.json", &lrps(HELLO));
}

#[test]
fn ssh_is_a_sidecar_at_a_port_of_its_own_and_keys_make_a_version() {
    let ssh = |key: &str, more: &str| {
        let blob =
            format!("AAAAC3NzaC1lZDI1NTE5AAAAINdamAGCsQq31Uv+08lkBzoO4XLz2qYjJa8CGmj3BUR{key}");
        format!("{HELLO}\n[ssh]\nauthorized_keys = [\"ssh-ed25519 {blob}\"]\n{more}")
    };
    let (plain, one) = (lrps(HELLO), lrps(&ssh("o", "publish = 2022")));
    let ports = &one[0].ports;
    assert_eq!(ports.len(), plain[0].ports.len() + 1);
    let last = ports.last().expect("a port");
    assert_eq!((last.container, last.publish), (2222, Some(2022)));
    let port_of = |lrp: &DesiredLrp| lrp.env.iter().find(|(name, _)| name == "PORT").cloned();
    assert_eq!(port_of(&one[0]), port_of(&plain[0]));
    let names: Vec<&str> = one[0].work.sidecars.iter().map(|it| it.name.as_str()).collect();
    assert!(names.contains(&"sshd"), "{names:?}");
    assert_ne!(one[0].version, plain[0].version);
    assert_ne!(one[0].version, lrps(&ssh("s", "publish = 2022"))[0].version);
    let closed = lrps(&ssh("o", "publish = 2022\nforwarding = false\nidle_timeout = \"1m\""));
    assert_ne!(one[0].version, closed[0].version);
    let words = format!("{:?}", closed[0].work.sidecars.last().expect("the server").action);
    assert!(words.contains("-refuseForwarding") && words.contains("-idleTimeout=60s"), "{words}");
    let file = lrps(&ssh("o", "publish = 2022\nauthorized_keys_file = \"/x/keys\""));
    assert_ne!(one[0].version, file[0].version);
    assert_eq!(file[0].work.ssh_keys.as_deref(), Some(std::path::Path::new("/x/keys")));
    assert_eq!(one[0].version, lrps(&ssh("o", ""))[0].version, "a published port restarts nothing");
}

const BOUND: &str = r#"
[sidecar.relay]
command = "./relay"
processes = ["web"]
memory = "16MiB"

[[service]]
name = "orders-db"
label = "postgresql"
plan = "small"
tags = ["sql"]
binding_name = "db"
credentials = { uri = "postgres://u:p@10.0.0.5:5432/orders", port = 5432 }

[[service]]
name = "logs"
syslog_drain_url = "syslog-tls://10.0.0.9:6514"
"#;

/// What the platform says to a process or to the builder, as JSON where it is JSON.
fn told(env: &[(String, String)]) -> serde_json::Value {
    // Later entries win.
    let last: BTreeMap<_, _> = env.iter().cloned().collect();
    let json = |text: &String| {
        serde_json::from_str(text).unwrap_or_else(|_| serde_json::Value::from(text.as_str()))
    };
    last.iter().map(|(name, value)| (name.clone(), json(value))).collect()
}

/// Row 90: VCAP_APPLICATION, VCAP_SERVICES, MEMORY_LIMIT and the ports, running and while staging.
#[test]
fn row_90_what_apps_are_told_is_what_cloud_foundry_tells_them() {
    let text = format!("{HELLO}{BOUND}");
    let lrps = lrps(&text);
    let staging = staging_task(&manifest(&text), &input(false));
    let all: serde_json::Map<_, _> = lrps
        .iter()
        .map(|lrp| (lrp.guid.process.clone(), told(&lrp.env)))
        .chain([("staging".to_owned(), told(&builder_of(&staging).env))])
        .collect();
    golden("vcap.json", &all);
    assert_eq!(all["web"]["MEMORY_LIMIT"], "48m", "the sidecar has 16 of 64");
    assert_eq!(all["worker"]["MEMORY_LIMIT"], "1024m");
    assert_eq!(all["web"]["VCAP_SERVICES"]["user-provided"][0]["name"], "logs");
    // Services are part of the version and of what is staged; none change nothing of either.
    let version = |text: &str| self::lrps(text)[0].version.clone();
    assert_ne!(version(&text), version(&text.replace("5432", "5433")));
    let made = |text: &str| fingerprint(&manifest(text), &BTreeMap::new());
    assert_ne!(made(&text), made(&text.replace("5432", "5433")));
}

#[test]
fn services_are_told_by_a_file_where_that_is_asked_for() {
    let text = format!("{HELLO}{BOUND}[features]\nfile_based_services = true\n");
    let (by_file, by_variable) = (&lrps(&text)[0], &lrps(&format!("{HELLO}{BOUND}"))[0]);
    let env = told(&by_file.env);
    assert_eq!(env.get("VCAP_SERVICES"), None);
    assert_eq!(env["VCAP_SERVICES_FILE_PATH"], by_file.files[0].path.as_str());
    let Holds::Content(content) = &by_file.files[0].holds else { panic!("no content") };
    let content: serde_json::Value = serde_json::from_str(content).expect("JSON");
    assert_eq!(content, told(&by_variable.env)["VCAP_SERVICES"]);
    assert!(by_variable.files.is_empty());
}

/// The steps inside the timeout.
fn steps(task: &Task) -> &[Action] {
    let Action::Timeout { action, .. } = &task.action else { panic!("no timeout") };
    let Action::Serial(steps) = action.as_ref() else { panic!("not serial") };
    steps
}

fn builder_of(task: &Task) -> &ProcessSpec {
    let run = steps(task).iter().find_map(|step| match step {
        Action::Run(run) => Some(&run.process),
        _ => None,
    });
    run.expect("a builder")
}

#[test]
fn the_first_staging_has_no_cache_to_copy() {
    let (first, next) = (
        staging_task(&manifest(HELLO), &input(false)),
        staging_task(&manifest(HELLO), &input(true)),
    );
    assert_eq!(steps(&first).len() + 1, steps(&next).len());
    let archive = "-buildArtifactsCacheArchive=/tmp/cache-in/cache.tgz".to_owned();
    assert!(!builder_of(&first).args.contains(&archive));
    assert!(builder_of(&next).args.contains(&archive));
}

#[test]
fn the_builder_knows_when_the_manifest_has_the_start_command() {
    let web = |more: &str| HELLO.replace("[process.web]", &format!("[process.web]\n{more}"));
    for (text, given) in [
        (HELLO.to_owned(), false),
        (web("command = \"./web\""), true),
        (HELLO.replace("[run]", "[run]\ncommand = \"./web\""), true),
        (HELLO.replace("[process.web]", "").replace("[[port]]\npublish = 8080", ""), true),
    ] {
        let task = staging_task(&manifest(&text), &input(false));
        let flag = format!("-startCommandGiven={given}");
        assert!(builder_of(&task).args.contains(&flag), "{text}");
    }
}

#[test]
fn buildpacks_that_are_named_are_a_chain_that_nobody_asks() {
    for (list, flag) in [("[\"procfile\"]", "true"), ("[\"a\", \"b\"]", "true"), ("[]", "false")] {
        let text = HELLO.replace("[\"procfile\"]", list);
        let task = staging_task(&manifest(&text), &input(false));
        assert!(builder_of(&task).args.contains(&format!("-skipDetect={flag}")), "{list}");
    }
}

/// What a process sees: the last entry of a name wins.
fn seen<'a>(env: &'a [(String, String)], name: &str) -> Option<&'a str> {
    env.iter().rev().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
}

#[test]
fn the_manifest_may_change_the_language_but_not_what_the_platform_promises() {
    let all = lrps(HELLO);
    let env = &all[0].env;
    assert_eq!(seen(env, "LANG"), Some("C"));
    assert_eq!(seen(env, "MEMORY_LIMIT"), Some("64m"));
    assert_eq!(seen(env, "PORT"), Some("8080"));
    assert_eq!(seen(env, "VCAP_APP_HOST"), Some("0.0.0.0"));
    assert_eq!(seen(&all[1].env, "PORT"), None, "a worker has no port");
    let task = staging_task(&manifest(HELLO), &input(false));
    let env = &builder_of(&task).env;
    assert_eq!(seen(env, "CF_STACK"), Some("edgefs"));
    assert_eq!(seen(env, "MEMORY_LIMIT"), Some("512m"));
    assert_eq!(seen(env, "PORT"), None);
}

#[test]
fn vcap_application_tells_the_app_about_itself() {
    let all = lrps(HELLO);
    let facts = |lrp: &DesiredLrp| -> serde_json::Value {
        serde_json::from_str(seen(&lrp.env, "VCAP_APPLICATION").expect("set")).expect("JSON")
    };
    let (web, worker) = (facts(&all[0]), facts(&all[1]));
    assert_eq!(web["name"], "hello");
    assert_eq!(web["limits"], serde_json::json!({"mem": 64, "disk": 512, "fds": 16384}));
    assert_eq!(web["process_id"], web["application_id"]);
    assert_ne!(worker["process_id"], worker["application_id"]);
    assert_eq!(worker["process_type"], "worker");
    assert_eq!(web["application_id"].as_str().map(str::len), Some(36));
}

/// Row 72: the process, the app, what was staged.
#[test]
fn the_nearest_command_wins() {
    let command = |text: &str, types: &[(&str, &str)]| {
        let all = desired_lrps(&manifest(text), &staged(types), droplet(), 1);
        all.map(|lrps| lrps[0].command.clone())
    };
    let base = "name = \"a\"\nsource = { path = \"x\" }\n";
    let run = format!("{base}[run]\ncommand = \"from run\"\n");
    let process = format!("{run}[process.web]\ncommand = \"from process\"\n");
    let built = [("web", "built"), ("worker", "w")];
    assert_eq!(command(base, &built), Ok("built".into()));
    assert_eq!(command(&run, &built), Ok("from run".into()));
    assert_eq!(command(&process, &built), Ok("from process".into()));
    let error = command(base, &[("worker", "w"), ("web", " ")]).expect_err("no command");
    assert_eq!(
        error.to_string(),
        "no start command for process `web`; write command = \"...\" below [process.web], or the \
         line `web: ...` in the app's Procfile (the buildpack knows `web`, `worker`)"
    );
}

#[test]
fn the_weight_follows_the_memory_unless_it_is_given() {
    for (mib, weight) in [(4, 1), (128, 1), (256, 3), (1024, 12), (8192, 100), (1 << 20, 100)] {
        assert_eq!(weight_of(Bytes::mib(mib)), weight, "{mib} MiB");
    }
    let given = HELLO.replace("instances = 2", "cpu_weight = 77");
    assert_eq!(lrps(&given)[0].limits.cpu_weight, Some(77));
}

#[test]
fn only_what_instances_are_made_of_makes_them_stale() {
    let before = lrps(HELLO)[0].version.clone();
    for (from, to, stale) in [
        ("instances = 2", "instances = 3", false),
        ("publish = 8080", "publish = 80", false),
        ("[env]", "[restart]\npolicy = \"never\"\n[env]", false),
        ("memory = \"512MiB\"", "memory = \"1GiB\"", false),
        ("memory = \"1GiB\"", "memory = \"2GiB\"", false),
        ("memory = \"64MiB\"", "memory = \"65MiB\"", true),
        ("GREETING = \"hi\"", "GREETING = \"ho\"", true),
        ("[443]", "[444]", true),
        ("[env]", "[health]\ntimeout = \"2s\"\n[env]", true),
        ("[build]", "[build]\nstack = \"tiny\"", true),
        ("publish = 8080", "container = 8081", true),
    ] {
        assert!(HELLO.contains(from), "{from}");
        let after = lrps(&HELLO.replacen(from, to, 1))[0].version.clone();
        assert_eq!(after != before, stale, "{from} -> {to}");
    }
    let again = desired_lrps(&manifest(HELLO), &staged(&[("web", "python3 app.py")]), droplet(), 2);
    assert_ne!(again.expect("good")[0].version, before, "a restart makes all of them stale");
}

#[test]
fn only_what_a_droplet_is_made_of_stages_again() {
    let inputs =
        |source: &str| BTreeMap::from([("source".to_owned(), Digest::of(source.as_bytes()))]);
    let before = fingerprint(&manifest(HELLO), &inputs("a"));
    assert_ne!(fingerprint(&manifest(HELLO), &inputs("b")), before);
    for (from, to, stale) in [
        ("instances = 2", "instances = 3", false),
        ("memory = \"64MiB\"", "memory = \"65MiB\"", false),
        ("[build]", "[build]\ntimeout = \"1m\"", false),
        ("./work.sh", "./other.sh", false),
        ("GREETING = \"hi\"", "GREETING = \"ho\"", true),
        ("[\"procfile\"]", "[]", true),
        ("[build]", "[build]\nstack = \"tiny\"", true),
    ] {
        let after = fingerprint(&manifest(&HELLO.replacen(from, to, 1)), &inputs("a"));
        assert_eq!(after != before, stale, "{from} -> {to}");
    }
}

#[test]
fn staging_is_limited_in_time() {
    let task = staging_task(&manifest(HELLO), &input(false));
    let Action::Timeout { timeout, .. } = task.action else { panic!("no timeout") };
    assert_eq!(timeout, Duration::from_secs(900));
}

#[test]
fn staging_takes_what_is_usual_unless_the_box_is_small_or_the_manifest_says_otherwise() {
    let build = |lines: &str| {
        manifest(&format!("name = \"hello\"\n[source]\npath = \".\"\n[build]\n{lines}\n")).build
    };
    let gib = |n: u64| Bytes::mib(n * 1024);
    assert_eq!(share(&build(""), gib(8), gib(100)), (gib(1), gib(4)));
    assert_eq!(share(&build(""), gib(1), gib(3)), (Bytes::mib(512), Bytes::mib(1536)));
    // A box that is full says so; it is not asked for nothing.
    assert_eq!(share(&build(""), gib(0), gib(0)), (Bytes::mib(128), Bytes::mib(256)));
    let asked = build("memory = \"2GiB\"\ndisk = \"9GiB\"");
    assert_eq!(share(&asked, gib(1), gib(1)), (gib(2), gib(9)));
}

/// What a buildpack's launch.yml brings beside `web`.
fn beside_web(name: &str, memory: Option<u64>) -> StagedSidecar {
    let (process_types, command) = (vec!["web".into()], "run".into());
    StagedSidecar { name: name.into(), process_types, command, memory }
}

#[test]
fn sidecars_of_buildpacks_have_their_part_of_the_memory_and_all_of_them_run() {
    let manifest = manifest(&format!("{HELLO}{BOUND}"));
    let limit = |sidecars: &[StagedSidecar]| {
        let sidecars = sidecars.to_vec();
        let result = StagingResult { sidecars, ..staged(&[("web", "python3 app.py")]) };
        let lrps = desired_lrps(&manifest, &result, Digest::of(b"droplet"), 0).expect("lrps");
        let web = lrps.iter().find(|lrp| lrp.guid.process == "web").expect("web");
        let refused = check_sidecars(&manifest, &result).err();
        (told(&web.env)["MEMORY_LIMIT"].clone(), refused)
    };
    assert_eq!(limit(&[beside_web("agent", Some(8))]), ("40m".into(), None));
    assert_eq!(limit(&[beside_web("agent", None)]), ("48m".into(), None));
    // The manifest's is in its place, and has 16.
    assert_eq!(limit(&[beside_web("relay", Some(8))]), ("48m".into(), None));
    let memory = Bytes::mib(64);
    let hungry = StageError::HungrySidecars { process: "web".into(), memory };
    assert_eq!(limit(&[beside_web("agent", Some(48))]).1, Some(hungry));
    let many: Vec<_> = (0..17).map(|n| beside_web(&format!("agent-{n}"), None)).collect();
    assert_eq!(limit(&many[..16]).1, None);
    let many = limit(&many).1.expect("refused");
    assert_eq!(many, StageError::ManySidecars { process: "web".into(), count: 17, most: 16 });
}

#[test]
fn a_cache_is_of_one_stack_and_one_list_of_buildpacks() {
    let of = |text: &str, names: &[&str]| {
        let from = |name: &&str| (name.to_string(), PackFrom::Box("/x".into()));
        cache_key(&manifest(text), &names.iter().map(from).collect::<Vec<_>>())
    };
    let this = of(HELLO, &["a", "b"]);
    assert_eq!(this, of(HELLO, &["a", "b"]));
    let stack = HELLO.replace("[build]", "[build]\nstack = \"other\"");
    for other in [of(HELLO, &["b"]), of(HELLO, &["b", "a"]), of(&stack, &["a", "b"])] {
        assert_ne!(this, other);
    }
}

#[test]
fn nothing_fails_for_want_of_the_cache() {
    let task = staging_task(&manifest(HELLO), &input(true));
    let touches = |step: &&Action| format!("{step:?}").contains("build artifacts cache");
    let cached: Vec<&Action> = steps(&task).iter().filter(touches).collect();
    assert_eq!(cached.len(), 2, "in and out");
    for step in cached {
        let Action::Try(step) = step else { panic!("it must not fail: {step:?}") };
        assert!(matches!(step.as_ref(), Action::EmitProgress { .. }), "and is told: {step:?}");
    }
}

#[test]
fn web_and_the_builder_are_told_under_which_names_the_app_is_reached() {
    let named =
        HELLO.replacen("name = \"hello\"", "name = \"hello\"\nuris = [\"hello.example.org\"]", 1);
    let uris = |env: &[(String, String)]| {
        let found = env.iter().find(|(name, _)| name == "VCAP_APPLICATION").expect("it is told");
        let all: serde_json::Value = serde_json::from_str(&found.1).expect("JSON");
        assert_eq!(all["uris"], all["application_uris"]);
        all["uris"].to_string()
    };
    let (plain, told) = (lrps(HELLO), lrps(&named));
    let shown: Vec<String> = told.iter().map(|lrp| uris(&lrp.env)).collect();
    assert_eq!(shown, ["[\"hello.example.org\"]", "[]"], "web, and a worker");
    assert_eq!(uris(&plain[0].env), "[]");
    assert_ne!(plain[0].version, told[0].version, "it is made anew with them");
    assert_eq!(plain[1].version, told[1].version);
    let builder = super::builder(&manifest(&named), &input(false));
    assert_eq!(uris(&builder.env), "[\"hello.example.org\"]");
}
