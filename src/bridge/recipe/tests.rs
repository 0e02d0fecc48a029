//! Recipes against Diego's records of 2015, and against golden files that were reviewed by hand.

use super::*;
use crate::bridge::request::{DesireApp, RunTask, Staging, read};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::path::Path;

const TASK: &str = include_str!("../../../tests/fixtures/container-task.json");
const LRP: &str = include_str!("../../../tests/fixtures/container-lrp.json");

fn site(form: Form) -> Site {
    Site {
        base: "http://127.0.0.1:8787".into(),
        form,
        stacks: ["edgefs".to_owned(), "cflinuxfs2".to_owned()].into(),
        docker_stack: "edgefs".into(),
        insecure_registries: Vec::new(),
    }
}

fn request<T: DeserializeOwned>(value: Value) -> T {
    read(value).expect("a request")
}

/// Compares with the file in tests/golden/bridge; TERRARIUM_BLESS=1 rewrites it, for review as code.
fn golden(name: &str, value: &Value) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/bridge").join(name);
    let text = serde_json::to_string_pretty(value).expect("JSON") + "\n";
    if std::env::var_os("TERRARIUM_BLESS").is_some() {
        std::fs::write(&path, &text).expect("golden file");
    }
    let expected = std::fs::read_to_string(&path).expect("golden file");
    assert_eq!(text, expected, "{name}");
}

/// A fixture with the addresses of this box.
fn fixture(text: &str) -> Value {
    let text = text.replace("http://file-server.service.cf.internal:8080", "http://127.0.0.1:8787");
    serde_json::from_str(&text.replace("/tmp/docker_app_lifecycle", "/tmp/lifecycle"))
        .expect("JSON")
}

fn staging_request(lifecycle: &str, data: Value) -> Staging {
    request(json!({
        "app_id": "app guid", "log_guid": "log", "lifecycle": lifecycle, "lifecycle_data": data,
        "memory_mb": 1024, "disk_mb": 6144, "file_descriptors": 16384, "timeout": 0,
        "environment": [{ "name": "A", "value": "b" }], "egress_rules": [{ "protocol": "all",
        "destinations": ["0.0.0.0-9.255.255.255"] }], "completion_callback": "http://cc/done",
    }))
}

fn buildpack_data() -> Value {
    json!({
        "app_bits_download_uri": "http://cc/bits", "stack": "edgefs",
        "build_artifacts_cache_download_uri": "http://cc/cache",
        "build_artifacts_cache_upload_uri": "http://cc/cache?up=1",
        "droplet_upload_uri": "http://u:p@cc/droplet",
        "buildpacks": [
            { "name": "ruby", "key": "ruby-1", "url": "http://cc/ruby.zip" },
            { "name": "custom", "key": "http://git/x", "url": "http://git/x" },
        ],
    })
}

/// Row 79: a buildpack staging in both forms.
#[test]
fn row_79_a_buildpack_staging_is_the_task_of_the_table() {
    let wanted = staging_request("buildpack", buildpack_data());
    for (form, name) in
        [(Form::Downloaded, "staging-downloaded.json"), (Form::Mounted, "staging-mounted.json")]
    {
        let task = staging(&site(form), "staging-guid", &wanted).expect("a task");
        golden(name, &task);
    }
}

/// Row 79: the action of Diego's own record of a docker staging.
#[test]
fn row_79_a_docker_staging_does_what_diego_did_in_2015() {
    let recorded = fixture(TASK);
    let serial = &recorded["run"]["timeout"]["action"]["serial"]["actions"];
    let env = &serial[1]["emit_progress"]["action"]["run"]["env"];
    let mut wanted = staging_request("docker", json!({ "docker_image": "tutum/tomcat:8.0" }));
    wanted.environment = serde_json::from_value(env.clone()).expect("variables");
    let task = staging(&site(Form::Downloaded), "g", &wanted).expect("a task");
    assert_eq!(task["action"], recorded["run"]);
    assert_eq!(task["result_file"], recorded["tags"]["result-file"]);
    let mounted = staging(&site(Form::Mounted), "g", &wanted).expect("a task");
    assert_eq!(mounted["cached_dependencies"][0]["cache_key"], "docker-lifecycle");
    assert_eq!(mounted["action"]["timeout"]["action"]["serial"]["actions"][0], serial[1]);
    let login = json!({ "docker_image": "x", "docker_user": "u", "docker_password": "p" });
    let mut secured = site(Form::Mounted);
    secured.insecure_registries = vec!["10.0.0.7:5000".into(), "lan".into()];
    let task = staging(&secured, "g", &staging_request("docker", login)).expect("a task");
    let actions = &task["action"]["timeout"]["action"]["serial"]["actions"];
    let args = &actions[0]["emit_progress"]["action"]["run"]["args"];
    let words = ["-insecureDockerRegistries", "10.0.0.7:5000", "-dockerUser", "u"];
    assert_eq!(args.as_array().expect("a list")[4..8], words.map(Value::from));
}

#[test]
fn row_79_what_is_missing_is_named_in_diegos_words() {
    let mut no_bits = buildpack_data();
    no_bits["app_bits_download_uri"] = "".into();
    let mut other_stack = buildpack_data();
    other_stack["stack"] = "windows".into();
    let image = |user: &str| json!({ "docker_image": "x", "docker_user": user });
    for (lifecycle, data, text) in [
        ("buildpack", Value::Null, "missing lifecycle data"),
        ("buildpack", no_bits, "missing app bits download uri"),
        ("buildpack", other_stack, "no compiler defined for requested stack"),
        ("docker", json!({}), "missing docker image download url"),
        ("docker", image("u"), "missing docker credentials"),
    ] {
        let wanted = staging_request(lifecycle, data);
        let err = staging(&site(Form::Mounted), "g", &wanted).expect_err(text);
        assert_eq!(err.0, text);
    }
    let nobody = Staging { app_id: String::new(), ..staging_request("docker", image("")) };
    let err = staging(&site(Form::Mounted), "g", &nobody).expect_err("no app");
    assert_eq!(err.0, "missing app id");
}

/// Row 80: what nobody limits takes 15 minutes at most.
#[test]
fn row_80_a_staging_has_a_time_limit() {
    for (seconds, expected) in [(0, 900_u64), (-5, 900), (60, 60)] {
        let wanted = Staging { timeout: seconds, ..staging_request("buildpack", buildpack_data()) };
        let task = staging(&site(Form::Mounted), "g", &wanted).expect("a task");
        assert_eq!(task["action"]["timeout"]["timeout"], expected * 1_000_000_000);
    }
}

#[test]
fn buildpacks_are_a_chain_when_none_of_them_need_be_asked() {
    for (skips, expected) in [
        (&[][..], "-skipDetect=false"),
        (&[true], "-skipDetect=true"),
        (&[true, true], "-skipDetect=true"),
        (&[true, false], "-skipDetect=false"),
    ] {
        let mut data = buildpack_data();
        let pack =
            |skip: &bool| json!({ "name": "n", "key": "k", "url": "u", "skip_detect": skip });
        data["buildpacks"] = skips.iter().map(pack).collect();
        let wanted = staging_request("buildpack", data);
        let task = staging(&site(Form::Mounted), "g", &wanted).expect("a task");
        assert!(task.to_string().contains(expected), "{skips:?}");
    }
}

fn desire(more: Value) -> DesireApp {
    let mut desire = json!({
        "process_guid": "process-version", "droplet_uri": "http://cc/droplet",
        "droplet_hash": "abc", "stack": "edgefs", "start_command": "run me",
        "execution_metadata": "", "environment": [{ "name": "A", "value": "b" }],
        "memory_mb": 256, "disk_mb": 1024, "file_descriptors": 0, "num_instances": 2,
        "log_guid": "log", "health_check_timeout_in_seconds": 60, "etag": "1.5",
        "routing_info": {
            "http_routes": [
                { "hostname": "a.b" }, { "hostname": "c.d" },
                { "hostname": "e.f", "port": 9090, "route_service_url": "https://s" },
            ],
            "tcp_routes": [{ "router_group_guid": "r", "external_port": 6000 }],
        },
    });
    let fields = desire.as_object_mut().expect("an object");
    fields.extend(more.as_object().cloned().unwrap_or_default());
    request(desire)
}

/// Row 82: an app as a DesiredLRP.
#[test]
fn row_82_an_app_is_the_lrp_of_the_table() {
    let lrp = app(&site(Form::Mounted), &desire(json!({})), None).expect("an LRP");
    golden("app-mounted.json", &lrp);
    let lrp = app(&site(Form::Downloaded), &desire(json!({})), None).expect("an LRP");
    golden("app-downloaded.json", &lrp);
}

/// The actions of Diego's own record of an app that is an image, with its sshd.
#[test]
fn row_82_an_image_does_what_diego_did_in_2015() {
    let recorded = fixture(LRP);
    let launcher = &recorded["run"]["codependent"]["actions"][0]["run"];
    let sshd = &recorded["run"]["codependent"]["actions"][1]["run"]["args"];
    let known = sshd[2].as_str().and_then(|arg| arg.strip_prefix("-authorizedKey="));
    let keys = SshKeys {
        private_key: "PEM".into(),
        authorized_key: known.expect("a key").into(),
        host_key: String::new(),
        host_fingerprint: "aa:bb".into(),
    };
    let env = launcher["env"].as_array().expect("a list");
    let wanted = desire(json!({
        "droplet_uri": "", "docker_image": "tutum/tomcat:8.0", "start_command": "",
        "execution_metadata": launcher["args"][2], "environment": env[..env.len() - 1],
        "file_descriptors": 16384, "allow_ssh": true,
    }));
    let lrp = app(&site(Form::Downloaded), &wanted, Some(&keys)).expect("an LRP");
    for (own, theirs) in [("action", "run"), ("setup", "setup"), ("rootfs", "rootfs")] {
        assert_eq!(lrp[own], recorded[theirs], "{own}");
    }
    assert_eq!(lrp["ports"], json!([8080, 2222]));
    let route =
        json!({ "container_port": 2222, "private_key": "PEM", "host_fingerprint": "aa:bb" });
    assert_eq!(lrp["routes"]["diego-ssh"], route);
    let quiet = DesireApp { allow_ssh: false, ..wanted };
    let lrp = app(&site(Form::Downloaded), &quiet, Some(&keys)).expect("an LRP");
    assert_eq!(lrp["ports"], json!([8080]));
}

/// Row 75: a host alone and a network are named by the image that is at one of them.
#[test]
fn row_75_a_builder_is_told_of_registries_with_their_ports() {
    let mut site = site(Form::Mounted);
    site.insecure_registries = ["a.lan:1", "b.lan", "10.0.0.0/8"].map(String::from).to_vec();
    for (image, told) in [
        ("busybox", "a.lan:1"),
        ("a.lan:1/x", "a.lan:1"),
        ("b.lan:7/x", "a.lan:1,b.lan:7"),
        ("b.lan/x", "a.lan:1,b.lan:443"),
        ("10.1.2.3:5000/ops/x:1", "a.lan:1,10.1.2.3:5000"),
        ("c.lan:1/x", "a.lan:1"),
    ] {
        let wanted = staging_request("docker", json!({ "docker_image": image }));
        let task = staging(&site, "g", &wanted).expect("a task").to_string();
        let words = format!("\"-insecureDockerRegistries\",\"{told}\"");
        assert!(task.contains(&words), "{image}: {task}");
    }
}

#[test]
fn row_82_health_checks_ask_each_port() {
    let monitor = |more: Value| {
        app(&site(Form::Mounted), &desire(more), None).expect("an LRP")["monitor"].clone()
    };
    for none in ["none", "process"] {
        assert_eq!(monitor(json!({ "health_check_type": none })), Value::Null);
    }
    let http = monitor(json!({
        "health_check_type": "http", "health_check_http_endpoint": "/up", "ports": [80, 81],
    }));
    let runs = &http["timeout"]["action"]["parallel"]["actions"];
    assert_eq!(http["timeout"]["timeout"], 600_000_000_000_u64);
    assert_eq!(runs[1]["run"]["args"], json!(["-port=81", "-uri=/up"]));
    assert_eq!(runs[0]["run"]["suppress_log_output"], true);
    let port = monitor(json!({}));
    let runs = &port["timeout"]["action"]["parallel"]["actions"];
    assert_eq!(runs[0]["run"]["args"], json!(["-port=8080"]));
}

#[test]
fn an_app_comes_as_a_droplet_or_as_an_image() {
    for (more, text) in [
        (json!({ "droplet_uri": "" }), "desired app missing droplet_uri"),
        (
            json!({ "docker_image": "x" }),
            "desired app contains both droplet_uri and docker_image; exactly one is required.",
        ),
        (json!({ "stack": "other" }), "no lifecycle binary bundle defined for stack"),
    ] {
        assert_eq!(app(&site(Form::Mounted), &desire(more), None).expect_err(text).0, text);
    }
    let image = json!({ "execution_metadata": "{", "droplet_uri": "", "docker_image": "x" });
    let err = app(&site(Form::Mounted), &desire(image), None).expect_err("it cannot be read");
    assert!(err.0.starts_with("execution_metadata: "), "{}", err.0);
}

/// Row 82: what a buildpack has noted for its launcher is not an image's word about itself.
#[test]
fn row_82_a_droplet_s_metadata_is_its_launcher_s_affair() {
    for metadata in ["{", "start: now", r#"{"ports":[{"Port":9000,"Protocol":"tcp"}],"user":"x"}"#]
    {
        let wanted = desire(json!({ "execution_metadata": metadata }));
        let lrp = app(&site(Form::Mounted), &wanted, None).expect("an LRP");
        assert_eq!(lrp["ports"], json!([8080]), "{metadata}");
        let run = &lrp["action"]["codependent"]["actions"][0]["run"];
        assert_eq!((&run["user"], &run["args"][2]), (&json!("vcap"), &json!(metadata)));
        assert_eq!(ports_of(&wanted), Ok(vec![8080]), "{metadata}");
    }
}

/// Row 82: an image that listens on datagrams alone gets no route.
#[test]
fn row_82_an_image_without_tcp_ports_is_refused_in_diegos_words() {
    let with = |ports: &str, more: Value| {
        let mut all = json!({
            "docker_image": "busybox", "droplet_uri": "",
            "execution_metadata": format!("{{\"ports\":{ports}}}"),
        });
        all.as_object_mut()
            .expect("an object")
            .extend(more.as_object().cloned().unwrap_or_default());
        app(&site(Form::Mounted), &desire(all), None).map(|lrp| lrp["ports"].clone())
    };
    let udp = r#"[{"Port":53,"Protocol":"udp"}]"#;
    let err = with(udp, json!({})).expect_err("it has none");
    assert_eq!(err.0, "No tcp ports found in image metadata");
    assert_eq!(with(udp, json!({ "ports": [53] })).expect("it is said"), json!([53]));
    let both = r#"[{"Port":53,"Protocol":"udp"},{"Port":54,"Protocol":"tcp"}]"#;
    assert_eq!(with(both, json!({})).expect("one of them"), json!([54]));
    assert_eq!(with("[]", json!({})).expect("the usual one"), json!([8080]));
}

#[test]
fn a_one_off_task_runs_the_launcher_once() {
    let wanted: RunTask = request(json!({
        "task_guid": "task", "log_guid": "log", "memory_mb": 512, "disk_mb": 1024,
        "lifecycle": "buildpack", "droplet_uri": "http://cc/droplet", "droplet_hash": "abc",
        "rootfs": "edgefs", "command": "rake db", "completion_callback": "http://cc/done",
        "environment": [{ "name": "A", "value": "b" }],
    }));
    golden("task.json", &task(&site(Form::Downloaded), &wanted).expect("a task"));
    let image =
        RunTask { lifecycle: "docker".into(), docker_path: "busybox".into(), ..wanted.clone() };
    let made = task(&site(Form::Downloaded), &image).expect("a task");
    assert_eq!(made["rootfs"], "docker:///library/busybox");
    let run = &made["action"]["serial"]["actions"][1]["run"];
    assert_eq!((&run["user"], &run["args"][2]), (&json!("root"), &json!("{}")));
    let nothing = RunTask { droplet_uri: String::new(), ..wanted };
    assert!(task(&site(Form::Mounted), &nothing).is_err());
}

#[test]
fn weights_grow_with_memory() {
    for (memory_mb, weight) in [(0, 1), (64, 1), (256, 3), (1024, 12), (8192, 100), (65_536, 100)] {
        assert_eq!(cpu_weight(memory_mb), weight, "{memory_mb}");
    }
}

#[test]
fn images_have_names_of_garden() {
    for (image, url) in [
        ("busybox", "docker:///library/busybox"),
        ("tutum/tomcat:8.0", "docker:///tutum/tomcat#8.0"),
        ("docker.io/busybox", "docker://docker.io/library/busybox"),
        ("docker.io/a/b:1", "docker://docker.io/a/b#1"),
        ("10.0.0.7:5000/a/b", "docker://10.0.0.7:5000/a/b"),
        ("localhost/a:latest", "docker://localhost/a#latest"),
    ] {
        assert_eq!(docker_url(image).as_deref(), Ok(url));
        url.parse::<crate::unit::ImageRef>().expect("the box reads it");
    }
    let hex = "a1".repeat(32);
    for (image, url) in [
        (format!("busybox@sha256:{hex}"), format!("docker:///library/busybox@sha256#{hex}")),
        (
            format!("busybox:1.36@sha256:{hex}"),
            format!("docker:///library/busybox#1.36@sha256:{hex}"),
        ),
        (
            format!("10.0.0.7:5000/a/b:1@sha256:{hex}"),
            format!("docker://10.0.0.7:5000/a/b#1@sha256:{hex}"),
        ),
        (
            format!("10.0.0.7:5000/a/b@sha256:{hex}"),
            format!("docker://10.0.0.7:5000/a/b@sha256#{hex}"),
        ),
    ] {
        assert_eq!(docker_url(&image).as_ref(), Ok(&url));
        let read = url.parse::<crate::unit::ImageRef>().expect("the box reads it");
        let whole = image.parse::<crate::unit::ImageRef>().expect("as it was written");
        let of = |it: &crate::unit::ImageRef| (it.digest().copied(), it.tag().to_owned());
        assert_eq!(of(&read), of(&whole), "{url}");
    }
    assert!(docker_url("docker://a/b").is_err());
}
