//! Every route once: what is asked, and what is answered, against a transcript that was reviewed by
//! hand.

use super::cc::Cc;
use super::{GUID, PORT, lab, port, socket};
use crate::lab::{Lab, tool};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;

/// Requests and answers as text; what differs from run to run is replaced.
struct Transcript<'a> {
    lab: &'a Lab,
    text: String,
}

/// Members whose value is another one in each run.
const VARIES: [&str; 30] = [
    "since",
    "uptime",
    "instance_guid",
    "cell_id",
    "host",
    "host_port",
    "address",
    "created_at",
    "updated_at",
    "first_completed_at",
    "AvailableResources",
    "TotalResources",
    "release",
    "capacity",
    "rootfs_providers",
    "set",
    // Of a record; its index is how often it was written, which is the same each time.
    "epoch",
    "port",
    "time",
    "cpu",
    "mem",
    "disk",
    // What an instance uses.
    "cpu_usage_fraction",
    "disk_usage_bytes",
    "memory_usage_bytes",
    "container_age_ns",
    "rx_bytes",
    "tx_bytes",
    // Of the keys of an app's sshd.
    "private_key",
    "host_fingerprint",
];

/// Of these 0 is nothing but one more value.
const COUNTS: [&str; 9] = [
    "uptime",
    "cpu",
    "mem",
    "disk",
    "cpu_usage_fraction",
    "disk_usage_bytes",
    "memory_usage_bytes",
    "rx_bytes",
    "tx_bytes",
];

/// Members that vary as a whole: a box has the stacks that it has.
const WHOLE: [&str; 1] = ["set"];

/// What it consists of: of a list one item, of what is no list and no object nothing.
fn shape(value: &mut Value) {
    match value {
        Value::Object(members) => members.values_mut().for_each(shape),
        Value::Array(items) => {
            items.truncate(1);
            items.iter_mut().for_each(shape);
        }
        other => *other = "*".into(),
    }
}

/// With what varies left out.
pub fn plain(value: &mut Value) {
    match value {
        Value::Object(members) => {
            for (name, value) in members {
                let name = name.as_str();
                let says = *value != json!("") && *value != json!(0) || COUNTS.contains(&name);
                match VARIES.contains(&name) && says {
                    true if WHOLE.contains(&name) => *value = "*".into(),
                    true => shape(value),
                    false => plain(value),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(plain),
        _ => {}
    }
}

impl Transcript<'_> {
    /// The same with a name of this run in the place of `INSTANCE`.
    fn ask_as(&mut self, line: &str, instance: &str) {
        let answer = port(self.lab, &line.replace("INSTANCE", instance), &[], b"");
        let body = String::from_utf8_lossy(&answer.body).trim_end().to_owned();
        let _ = writeln!(self.text, "> {line}\n< {} {body}\n", answer.status);
    }

    /// At the bridge's port.
    fn ask(&mut self, line: &str, fields: &[&str], body: &str) -> Value {
        let answer = port(self.lab, line, fields, body.as_bytes());
        let shown = match serde_json::from_slice::<Value>(&answer.body) {
            Ok(mut value) => {
                plain(&mut value);
                value.to_string()
            }
            Err(_) => String::from_utf8_lossy(&answer.body).trim_end().to_owned(),
        };
        let named = line.replace(GUID, "GUID");
        let _ = writeln!(self.text, "> {named}");
        for field in fields {
            let _ = writeln!(self.text, "> {field}");
        }
        if !body.is_empty() && body.len() < 300 {
            let _ = writeln!(self.text, ">\n> {body}");
        }
        let _ = writeln!(self.text, "< {} {}", answer.status, shown.replace(GUID, "GUID"));
        for name in ["Content-Length", "Content-Range", "Transfer-Encoding", "Allow"] {
            // Of what varies the length does.
            if name == "Content-Length" && !line.contains("/static/") {
                continue;
            }
            if let Some(value) = answer.header(name) {
                let _ = writeln!(self.text, "< {name}: {value}");
            }
        }
        self.text.push('\n');
        answer.json()
    }

    fn golden(self, name: &str) {
        compare(name, &self.text, &self.lab.daemon_log());
    }
}

/// Compares with the file in tests/golden/bridge; TERRARIUM_BLESS=1 rewrites it, for review as code.
pub fn compare(name: &str, text: &str, log: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/bridge").join(name);
    if std::env::var_os("TERRARIUM_BLESS").is_some() {
        fs::write(&path, text).expect("golden file");
    }
    let expected = fs::read_to_string(&path).expect("golden file");
    assert_eq!(text, expected, "{log}");
}

/// A DesiredLRP that waits for a connection and for nothing else.
fn lrp(guid: &str) -> Value {
    json!({
        "process_guid": guid, "domain": "cf-apps", "rootfs": "preloaded:tiny", "instances": 1,
        "action": { "run": { "path": "sh", "args": ["-c", "exec sleep 1000"], "user": "vcap" } },
        "ports": [8080], "memory_mb": 32, "disk_mb": 32, "cpu_weight": 1, "annotation": "one",
        "placement_tags": ["secure"],
        "log_guid": "log", "log_source": "APP", "routes": { "cf-router": [], "other": { "a": 1 } },
    })
}

/// Row 8, row 16, row 21, row 34: the record store's and the cell's routes.
#[test]
fn row_34_receptor_and_rep_answer_as_diegos_do() {
    let tags = "[cell]\nplacement_tags = [\"secure\"]\noptional_placement_tags = [\"gpu\"]\n";
    let mut lab = lab("cc-receptor", tags);
    lab.serve();
    let mut all = Transcript { lab: &lab, text: String::new() };
    let guid = "App_1";
    all.ask("GET /v1/desired_lrps", &[], "");
    all.ask("POST /v1/desired_lrps", &[], "{");
    all.ask("POST /v1/desired_lrps", &[], r#"{"process_guid":"a b","domain":"x"}"#);
    all.ask("POST /v1/desired_lrps", &[], &lrp(guid).to_string());
    all.ask("POST /v1/desired_lrps", &[], &lrp(guid).to_string());
    // Whoever publishes a port that an app has is in its way, and there is no such LRP.
    let other = lab.app(
        "web",
        crate::WEB,
        "[run]\nmemory = \"32MiB\"\ndisk = \"32MiB\"\n\n\
        [[port]]\ncontainer = 8080\npublish = 8001\n",
    );
    lab.ok(&["apply", &other]);
    let mut taken = lrp("App_2");
    taken["routes"] = json!({ "tcp-router": [{ "external_port": 8001, "container_port": 8080 }] });
    all.ask("POST /v1/desired_lrps", &[], &taken.to_string());
    lab.ok(&["delete", "web"]);
    // A page in somebody's browser.
    all.ask("GET /v1/desired_lrps", &["Origin: http://page.example.org"], "");
    lab.until("it runs", |lab| {
        let shown = socket(lab, "GET /receptor/v1/actual_lrps/App_1", "").json();
        (shown[0]["state"] == "RUNNING").then_some(())
    });
    all.ask("GET /v1/desired_lrps?domain=cf-apps", &[], "");
    all.ask("GET /v1/desired_lrps?domain=other", &[], "");
    all.ask("GET /v1/desired_lrps/App_2", &[], "");
    let actual = all.ask("GET /receptor/v1/actual_lrps/App_1/index/0", &[], "");
    all.ask("GET /receptor/v1/actual_lrps/App_1/index/1", &[], "");
    all.ask("GET /receptor/v1/actual_lrps/App_1/index/x", &[], "");
    all.ask("GET /v1/actual_lrps?domain=other", &[], "");
    all.ask(
        "PUT /v1/desired_lrps/App_1",
        &[],
        r#"{"annotation":"two","routes":{"cf-router":[1]}}"#,
    );
    all.ask("PUT /v1/desired_lrps/App_1", &[], r#"{"instances":-1}"#);
    all.ask("PUT /v1/desired_lrps/App_2", &[], r#"{"instances":1}"#);
    let changed = all.ask("GET /v1/desired_lrps/App_1", &[], "");
    assert_eq!(changed["routes"], json!({ "cf-router": [1] }));
    let same = socket(&lab, "GET /receptor/v1/actual_lrps/App_1/index/0", "").json();
    assert_eq!(same["instance_guid"], actual["instance_guid"], "what runs goes on");
    // One that has no root yet is listed, and ends as one that has not begun.
    let mut rootless = lrp("App_3");
    rootless["rootfs"] = "docker://127.0.0.1:9/none".into();
    rootless["ports"] = json!([]);
    all.ask("POST /v1/desired_lrps", &[], &rootless.to_string());
    let waits = port(&lab, "GET /receptor/v1/actual_lrps/App_3/index/0", &[], b"").json();
    assert_eq!(waits["state"], "UNCLAIMED", "{waits}");
    all.ask("DELETE /v1/actual_lrps/App_3/index/0", &[], "");
    all.ask("DELETE /v1/actual_lrps/App_3/index/1", &[], "");
    all.ask("DELETE /nsync/v1/apps/App_3/index/0", &[], "");
    all.ask("DELETE /nsync/v1/apps/App_3/index/1", &[], "");
    all.ask("DELETE /v1/desired_lrps/App_3", &[], "");
    all.ask("DELETE /v1/actual_lrps/App_1/index/7", &[], "");
    all.ask("DELETE /v1/actual_lrps/App_1/index/0", &[], "");
    let fresh = lab.until("a fresh one runs", |lab| {
        let shown = socket(lab, "GET /receptor/v1/actual_lrps/App_1/index/0", "").json();
        let is_new = shown["instance_guid"] != actual["instance_guid"];
        (is_new && shown["state"] == "RUNNING").then_some(shown)
    });
    all.ask("PUT /v1/domains/cf-apps", &["Cache-Control: max-age=120"], "");
    all.ask("PUT /v1/domains/for-ever", &[], "");
    all.ask("PUT /v1/domains/x", &["Cache-Control: soon"], "");
    all.ask("GET /v1/domains", &[], "");
    all.ask("GET /v1/version", &[], "");
    all.ask("GET /v1/nothing", &[], "");
    all.ask("PATCH /v1/cells", &[], "");
    // The cell's own.
    all.ask("GET /ping", &[], "");
    all.ask("POST /sim/reset", &[], "");
    let work = json!({ "LRPs": [
        { "process_guid": guid, "index": 0 }, { "process_guid": guid, "index": 5 },
    ], "Tasks": [{ "TaskGuid": "x" }] });
    all.ask("POST /work", &[], &work.to_string());
    all.ask("POST /work", &[], r#"{"cell_id":"another"}"#);
    all.ask("POST /v1/lrps/App_1/instances/nobody/stop", &[], "");
    let handle = fresh["instance_guid"].as_str().expect("an instance");
    let update = format!("PUT /v2/lrps/App_1/instances/{handle}");
    let tags = br#"{"internal_routes":[{"hostname":"a.apps.internal"}],"metric_tags":{"a":"b"}}"#;
    assert_eq!(port(&lab, &update, &[], tags).status, 202);
    let metrics = port(&lab, "GET /container_metrics", &[], b"").json();
    let measured = (&metrics["lrps"][0]["process_guid"], &metrics["lrps"][0]["instance_guid"]);
    assert_eq!(measured, (&json!(guid), &fresh["instance_guid"]), "{metrics}");
    all.ask_as("POST /v1/lrps/App_1/instances/INSTANCE/stop", handle);
    lab.until("another one runs", |lab| {
        let shown = socket(lab, "GET /receptor/v1/actual_lrps/App_1/index/0", "").json();
        (shown["instance_guid"] != handle && shown["state"] == "RUNNING").then_some(())
    });
    all.ask("PUT /v2/lrps/App_1/instances/nobody", &[], r#"{"internal_routes":[]}"#);
    all.ask("PUT /v1/lrps/App_1/instances/nobody", &[], r#"{"internal_routes":"x"}"#);
    all.ask("PUT /v1/lrps/App_1/instances/nobody", &[], "{");
    all.ask("POST /rep/v1/tasks/nobody/cancel", &[], "");
    all.ask("GET /v1/cells", &[], "");
    all.ask("GET /container_metrics", &[], "");
    let state = all.ask("GET /state", &[], "");
    assert_eq!(state["RootFSProviders"]["preloaded"]["set"]["tiny"], json!({}), "{state}");
    all.ask("POST /evacuate", &[], "");
    all.ask("POST /work", &[], r#"{"LRPs":[{"process_guid":"App_1","index":0}]}"#);
    // Whoever drains a cell asks until nobody answers.
    lab.until("its ping has gone", |lab| {
        let stream = TcpStream::connect(PORT).expect("the bridge's port");
        stream.set_read_timeout(Some(crate::lab::PATIENCE)).expect("a limit");
        let answer = super::talk(stream, "GET /ping", &[], b"");
        assert!(answer.as_ref().is_none_or(|it| it.status == 200), "{}", lab.daemon_log());
        answer.is_none().then_some(())
    });
    all.ask("GET /state", &[], "");
    lab.ok(&["undrain"]);
    all.ask("GET /ping", &[], "");
    all.ask("DELETE /v1/desired_lrps/App_1", &[], "");
    all.ask("DELETE /v1/desired_lrps/App_1", &[], "");
    all.golden("receptor.txt");
    lab.until("it is gone", |lab| (lab.run(&["apps", "--json"]).out.trim() == "[]").then_some(()));
    lab.finish();
}

/// Row 1, row 4, row 34: Tasks as the receptor has them, on the port that is a controller's.
#[test]
fn row_34_tasks_of_the_receptor_answer_as_diegos_do() {
    let mut lab = lab("cc-tasks", "");
    lab.serve();
    let mut all = Transcript { lab: &lab, text: String::new() };
    let task = |guid: &str, script: &str| {
        json!({
            "task_guid": guid, "domain": "d", "rootfs": "preloaded:tiny", "memory_mb": 32,
            "disk_mb": 32, "result_file": "/tmp/result", "annotation": "a",
            "action": { "run": { "path": "sh", "args": ["-c", script], "user": "vcap" } },
        })
        .to_string()
    };
    let until = |guid: &str, state: &str| {
        lab.until(&format!("{guid} is {state}"), |lab| {
            let shown = port(lab, &format!("GET /receptor/v1/tasks/{guid}"), &[], b"").json();
            (shown["state"] == state).then_some(())
        });
    };
    all.ask("GET /receptor/v1/tasks", &[], "");
    all.ask("POST /receptor/v1/tasks", &[], "{");
    all.ask("POST /receptor/v1/tasks", &[], r#"{"task_guid":"a b"}"#);
    all.ask("POST /receptor/v1/tasks", &[], &task("t-1", "echo done > /tmp/result"));
    until("t-1", "COMPLETED");
    all.ask("POST /receptor/v1/tasks", &[], &task("t-1", "true"));
    all.ask("GET /receptor/v1/tasks/t-1", &[], "");
    all.ask("GET /receptor/v1/tasks?domain=other", &[], "");
    all.ask("GET /receptor/v1/tasks/none", &[], "");
    all.ask("POST /receptor/v1/tasks/none/cancel", &[], "");
    all.ask("POST /receptor/v1/tasks", &[], &task("t-2", "exec sleep 100000"));
    until("t-2", "RUNNING");
    all.ask("DELETE /receptor/v1/tasks/t-2", &[], "");
    all.ask("POST /receptor/v1/tasks/t-2/cancel", &[], "");
    until("t-2", "COMPLETED");
    all.ask("POST /receptor/v1/tasks", &[], &task("t-3", "exec sleep 100000"));
    until("t-3", "RUNNING");
    // Of the cell are those that it works on.
    all.ask("GET /rep/state", &[], "");
    all.ask("POST /rep/v1/tasks/t-3/cancel", &[], "");
    until("t-3", "COMPLETED");
    all.ask("GET /receptor/v1/tasks/t-3", &[], "");
    all.ask("DELETE /receptor/v1/tasks/t-3", &[], "");
    all.ask("GET /receptor/v1/tasks?domain=d", &[], "");
    all.ask("DELETE /receptor/v1/tasks/t-1", &[], "");
    all.ask("DELETE /receptor/v1/tasks/t-2", &[], "");
    all.ask("DELETE /receptor/v1/tasks/t-2", &[], "");
    all.golden("tasks.txt");
    lab.finish();
}

/// Row 79, row 82, row 84: what stager, nsync and tps refuse.
#[test]
fn row_79_refusals_have_diegos_statuses() {
    let mut lab = lab("cc-refusals", "");
    lab.serve();
    let mut all = Transcript { lab: &lab, text: String::new() };
    for (line, body) in [
        ("PUT /v1/staging/s", "{"),
        ("PUT /v1/staging/s", r#"{"lifecycle":"cnb","app_id":"a"}"#),
        ("PUT /v1/staging/s", r#"{"lifecycle":"buildpack"}"#),
        ("PUT /v1/staging/s", r#"{"lifecycle":"docker","app_id":"a","lifecycle_data":{}}"#),
        (
            "PUT /v1/staging/s",
            r#"{"lifecycle":"buildpack","app_id":"a","lifecycle_data":{"stack":"none","app_bits_download_uri":"x"}}"#,
        ),
        ("DELETE /v1/staging/s", ""),
        ("POST /v1/staging/s/completed", "{"),
        ("POST /v1/staging/s/completed", r#"{"task_guid":"other"}"#),
        ("POST /v1/staging/s/completed", r#"{"task_guid":"s","annotation":"x"}"#),
        (
            "POST /v1/staging/s/completed",
            r#"{"task_guid":"s","annotation":"{\"lifecycle\":\"cnb\"}"}"#,
        ),
        (
            "POST /v1/staging/s/completed",
            r#"{"task_guid":"s","annotation":"{\"lifecycle\":\"docker\"}","result":"{}"}"#,
        ),
        (
            "POST /v1/staging/s/completed",
            r#"{"task_guid":"s","annotation":"{\"lifecycle\":\"docker\",\"completion_callback\":\"http://127.0.0.1:1/\"}"}"#,
        ),
        ("PUT /v1/apps/g", "{"),
        ("PUT /v1/apps/g", "{}"),
        ("PUT /v1/apps/g", r#"{"process_guid":"other"}"#),
        ("PUT /v1/apps/g", r#"{"process_guid":"g"}"#),
        ("PUT /v1/apps/g", r#"{"process_guid":"g","num_instances":1001,"droplet_uri":"x"}"#),
        ("DELETE /v1/apps/g", ""),
        ("DELETE /v1/apps/g/index/x", ""),
        ("DELETE /v1/apps/g/index/0", ""),
        ("POST /v1/tasks", "{"),
        ("POST /v1/tasks", r#"{"task_guid":"t","lifecycle":"buildpack"}"#),
        ("DELETE /v1/tasks/t", ""),
        ("GET /v1/actual_lrps/g", ""),
        ("GET /v1/actual_lrps/g/stats", ""),
        ("GET /v1/bulk_actual_lrp_status", ""),
        ("GET /v1/bulk_actual_lrp_status?guids=a,b", ""),
        ("POST /v1/droplet/g", ""),
        ("POST /v1/droplet/g", "x"),
        ("POST /v1/build_artifacts/g?timeout=x&cc-build-artifacts-upload-uri=x", "x"),
        ("POST /v1/build_artifacts/g?cc-build-artifacts-upload-uri=http://127.0.0.1:1/", "x"),
    ] {
        all.ask(line, &[], body);
    }
    all.ask("GET /v1/actual_lrps/g/stats", &["Authorization: x"], "");
    all.golden("refusals.txt");
    lab.finish();
}

/// Row 79, row 82, row 84: what stager, nsync and tps take, and what is told of it.
#[test]
fn row_79_what_is_taken_is_told_in_diegos_words() {
    let mut lab = lab("cc-taken", "lifecycle = \"mount\"\n");
    let cc = Cc::start();
    cc.state().files.insert("/droplet.tgz".into(), super::sync::droplet(&lab));
    lab.serve();
    let mut all = Transcript { lab: &lab, text: String::new() };
    let text = |value: Value| value.to_string();
    let app = |more: Value| text(super::flow::desire(GUID, more));
    let line = format!("PUT /v1/apps/{GUID}");
    all.ask(&line, &[], &app(json!({})));
    lab.until("it runs", |lab| (super::flow::states(lab, GUID) == ["RUNNING"]).then_some(()));
    all.ask(&line, &[], &app(json!({ "etag": "2" })));
    all.ask(&format!("GET /v1/actual_lrps/{GUID}"), &[], "");
    lab.until("it is measured", |lab| {
        let line = format!("GET /v1/actual_lrps/{GUID}/stats");
        let stats = port(lab, &line, &["Authorization: x"], b"").json();
        stats[0]["stats"]["mem"].as_u64().filter(|mem| *mem > 0).map(drop)
    });
    all.ask(&format!("GET /v1/actual_lrps/{GUID}/stats"), &["Authorization: x"], "");
    all.ask(&format!("GET /v1/bulk_actual_lrp_status?guids={GUID},none"), &[], "");
    all.ask(&format!("DELETE /v1/apps/{GUID}/index/0"), &[], "");
    all.ask(&format!("DELETE /v1/apps/{GUID}/index/7"), &[], "");
    let task = json!({
        "task_guid": "task-1", "log_guid": "app-guid", "memory_mb": 64, "disk_mb": 256,
        "lifecycle": "buildpack", "rootfs": "tiny", "command": "exec sleep 100000",
        "droplet_uri": format!("http://{}/droplet.tgz", super::cc::AT), "egress_rules": [],
        "environment": [], "completion_callback": "",
    });
    all.ask("POST /v1/tasks", &[], &text(task.clone()));
    all.ask("POST /v1/tasks", &[], &text(task));
    all.ask("DELETE /v1/tasks/task-1", &[], "");
    let at = format!("http://{}", super::cc::AT);
    let staging = json!({
        "app_id": "app-guid", "log_guid": "app-guid", "lifecycle": "buildpack", "memory_mb": 128,
        "disk_mb": 512, "timeout": 300, "environment": [], "egress_rules": [],
        "lifecycle_data": {
            "app_bits_download_uri": format!("{at}/none.tgz"), "stack": "tiny", "buildpacks": [],
            "droplet_upload_uri": format!("{at}/droplet"),
        },
    });
    all.ask("PUT /v1/staging/staging-1", &[], &text(staging));
    all.ask("DELETE /v1/staging/staging-1", &[], "");
    all.ask(&format!("DELETE /v1/apps/{GUID}"), &[], "");
    cc.state().job = Some("finished");
    let to = |what: &str| format!("http%3A%2F%2F127.0.0.1%3A9022%2F{what}&timeout=60");
    let line = format!("POST /v1/droplet/app-guid?cc-droplet-upload-uri={}", to("droplet"));
    all.ask(&line, &[], "a droplet");
    let key = "cc-build-artifacts-upload-uri";
    let line = format!("POST /v1/build_artifacts/app-guid?{key}={}", to("cache"));
    all.ask(&line, &[], "a cache");
    cc.state().job = Some("failed");
    let line = format!("POST /v1/droplet/app-guid?cc-droplet-upload-uri={}", to("droplet"));
    all.ask(&line, &[], "a droplet");
    let sent = ["/droplet.tgz", "/cache.tgz"].map(|name| cc.state().files[name].clone());
    assert_eq!(sent, [b"a droplet".to_vec(), b"a cache".to_vec()]);
    all.golden("taken.txt");
    lab.until("it is gone", |lab| (lab.run(&["apps", "--json"]).out.trim() == "[]").then_some(()));
    lab.until("its tasks, too", |lab| lab.links().is_empty().then_some(()));
    lab.finish();
}

/// Row 84: as many guids as are promised, each as long as a controller's are.
#[test]
fn row_84_a_thousand_apps_can_be_asked_for_at_once() {
    let mut lab = lab("cc-bulk", "");
    lab.serve();
    let guids: Vec<String> =
        (0..1000).map(|n| GUID.replace("c181be6b", &format!("{n:08}"))).collect();
    for comma in [",", "%2C"] {
        let line = format!("GET /v1/bulk_actual_lrp_status?guids={}", guids.join(comma));
        let shown = port(&lab, &line, &[], b"");
        assert_eq!(shown.status, 200, "{}", String::from_utf8_lossy(&shown.body));
        let shown = shown.json();
        assert_eq!(shown.as_object().map(|it| it.len()), Some(1000));
        assert_eq!(shown[&guids[999]], json!([]));
    }
    // There is an end to it; who still writes may not hear the refusal.
    let line = format!("GET /v1/static/x?y={}", "x".repeat(200_000));
    let stream = TcpStream::connect(PORT).expect("the bridge's port");
    stream.set_read_timeout(Some(crate::lab::PATIENCE)).expect("a limit");
    let answer = super::talk(stream, &line, &[], b"");
    assert!(answer.is_none_or(|it| it.status == 431), "{}", lab.daemon_log());
    assert_eq!(port(&lab, "GET /ping", &[], b"").status, 200);

    // 200 are answered at a time: of more that come at once some are told to come again.
    let mut idle = lrp("App_1");
    (idle["instances"], idle["placement_tags"]) = (json!(0), json!([]));
    assert_eq!(port(&lab, "POST /v1/desired_lrps", &[], idle.to_string().as_bytes()).status, 201);
    lab.until("some are told to come again", |lab| {
        let statuses = crowd(lab);
        assert!(statuses.iter().all(|it| matches!(it, 200 | 503)), "{statuses:?}");
        statuses.contains(&503).then_some(())
    });
    let line = "GET /v1/actual_lrps/App_1/stats";
    assert_eq!(port(&lab, line, &["Authorization: x"], b"").status, 200);
    lab.finish();
}

/// The statuses of 400 who ask for figures while the daemon stands still, and are answered when it goes on.
fn crowd(lab: &Lab) -> Vec<u16> {
    let asking = (0..400).map(|_| TcpStream::connect(PORT).expect("the bridge's port"));
    let mut asking: Vec<TcpStream> = asking.collect();
    let pid = Pid::from_raw(lab.daemon_pid() as i32);
    let head = "GET /v1/actual_lrps/App_1/stats HTTP/1.1\r\nHost: x\r\nAuthorization: x\r\n\
                Connection: close\r\n\r\n";
    kill(pid, Signal::SIGSTOP).expect("it stands still");
    for stream in &mut asking {
        stream.set_read_timeout(Some(crate::lab::PATIENCE)).expect("a limit");
        stream.write_all(head.as_bytes()).expect("asked");
    }
    kill(pid, Signal::SIGCONT).expect("it goes on");
    let status = |mut stream: TcpStream| {
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        answer.split(' ').nth(1).and_then(|it| it.parse().ok()).expect("a status")
    };
    asking.into_iter().map(status).collect()
}

/// Row 86, row 87: files as a file server serves them, and uploads on their way.
#[test]
fn row_86_files_come_whole_in_part_or_not_at_all() {
    let mut lab = lab("cc-files", "");
    let cc = Cc::start();
    let dir = lab.root.join("usr/lib/terrarium/files/sub");
    fs::create_dir_all(&dir).expect("directory");
    let file = dir.join("file.txt");
    fs::write(&file, "0123456789").expect("file");
    tool("touch", &["-d", "1994-11-06T08:49:37Z", file.to_str().expect("text")]);
    std::os::unix::fs::symlink("/etc/passwd", dir.join("out")).expect("link");
    lab.serve();
    let mut all = Transcript { lab: &lab, text: String::new() };
    let whole = port(&lab, "GET /v1/static/sub/file.txt", &[], b"");
    assert_eq!(whole.header("Last-Modified"), Some("Sun, 06 Nov 1994 08:49:37 GMT"));
    let sum = tool("sha256sum", &[file.to_str().expect("text")]);
    let tag = format!("\"{}\"", &sum[..64]);
    assert_eq!(whole.header("ETag"), Some(tag.as_str()));
    for fields in [
        &[][..],
        &["Range: bytes=2-4"],
        &["Range: bytes=-3"],
        &["Range: bytes=10-"],
        &["If-None-Match: \"other\""],
        &["If-Modified-Since: Sun, 06 Nov 1994 08:49:37 GMT"],
        &["If-Modified-Since: Sun, 06 Nov 1994 08:49:36 GMT"],
    ] {
        all.ask("GET /v1/static/sub/file.txt", fields, "");
    }
    for line in [
        "HEAD /v1/static/sub/file.txt",
        "GET /v1/static/sub",
        "GET /v1/static/",
        "GET /v1/static/sub/none",
        "GET /v1/static/sub/out",
        "GET /v1/static/sub/../../etc/passwd",
        "GET /v1/static/sub/%2e%2e/%2e%2e/passwd",
        "PUT /v1/static/sub/file.txt",
    ] {
        all.ask(line, &[], "");
    }
    all.golden("files.txt");
    let same = format!("If-None-Match: {tag}");
    assert_eq!(port(&lab, "GET /v1/static/sub/file.txt", &[&same], b"").status, 304);
    // What is served is what curl gets.
    let from =
        format!("http://{PORT}/v1/static/buildpack_app_lifecycle/buildpack_app_lifecycle.tgz");
    let to = lab.root.join("got.tgz");
    tool("curl", &["-sS", "--fail", "-o", to.to_str().expect("text"), &from]);
    let served = lab
        .root
        .join("usr/lib/terrarium/files/buildpack_app_lifecycle/buildpack_app_lifecycle.tgz");
    assert!(fs::read(to).expect("file") == fs::read(served).expect("file"), "byte for byte");

    let large: Vec<u8> = (0..300_000_u32).map(|n| (n / 7) as u8).collect();
    let cache = "http%3A%2F%2F127.0.0.1%3A9022%2Fcache";
    let line =
        format!("POST /v1/build_artifacts/a?cc-build-artifacts-upload-uri={cache}&timeout=60");
    assert_eq!(port(&lab, &line, &["Content-MD5: abc"], &large).status, 200);
    assert!(cc.state().files["/cache.tgz"] == large, "byte for byte");
    let got = cc.heard("POST", "/cache").first().cloned().expect("an upload");
    assert!(got.head.contains("abc"), "{}", got.head);
    let droplet = "http%3A%2F%2F127.0.0.1%3A9022%2Fdroplet";
    let line = format!("POST /v1/droplet/a?cc-droplet-upload-uri={droplet}&timeout=60");
    assert_eq!(port(&lab, &line, &[], &large).status, 201);
    assert!(cc.state().files["/droplet.tgz"] == large, "byte for byte");
    lab.finish();
}

/// Row 87: a file that does not come in its time is given up; 16 are on their way at most.
#[test]
fn row_87_an_upload_that_does_not_come_is_given_up() {
    let mut lab = lab("cc-late", "");
    lab.serve();
    let begun = |seconds: u32| {
        let mut stream = TcpStream::connect(PORT).expect("the bridge's port");
        stream.set_read_timeout(Some(crate::lab::PATIENCE)).expect("a limit");
        let head = format!(
            "POST /v1/droplet/g?timeout={seconds}&cc-droplet-upload-uri=http://127.0.0.1:1/ \
             HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\nx"
        );
        stream.write_all(head.as_bytes()).expect("asked");
        stream
    };
    let mut answer = [0; 12];
    begun(1).read_exact(&mut answer).expect("an answer");
    assert_eq!(&answer, b"HTTP/1.1 408", "{}", lab.daemon_log());
    // Nobody is where the others go, which is told when there is a place.
    let whole = |lab: &Lab| {
        let line = "POST /v1/droplet/g?cc-droplet-upload-uri=http://127.0.0.1:1/";
        port(lab, line, &[], b"x")
    };
    let slow: Vec<_> = (0..16).map(|_| begun(600)).collect();
    let full = lab.until("every place is taken", |lab| {
        Some(whole(lab)).filter(|answer| answer.status != 500)
    });
    let text = json!({ "error": { "message": "too many uploads at a time" } });
    assert_eq!((full.status, full.json()), (503, text));
    drop(slow);
    lab.until("there is room again", |lab| (whole(lab).status == 500).then_some(()));
    lab.finish();
}
