//! The life of an app, by a cloud controller through the sockets alone.

use super::cc::{self, Cc};
use super::{GUID, lab, packed, port, socket};
use crate::WEB;
use crate::lab::{Lab, get};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;

/// A staging of a Procfile app.
fn staging() -> Value {
    let at = format!("http://{}", cc::AT);
    json!({
        "app_id": "app-guid", "log_guid": "app-guid", "lifecycle": "buildpack",
        "memory_mb": 128, "disk_mb": 512, "file_descriptors": 16384, "timeout": 300,
        "environment": [{ "name": "GREETING", "value": "hello" }],
        "egress_rules": [],
        "lifecycle_data": {
            "app_bits_download_uri": format!("{at}/bits.tgz"), "stack": "tiny",
            "build_artifacts_cache_upload_uri": format!("http://u:p@{}/cache", cc::AT),
            "droplet_upload_uri": format!("http://u:p@{}/droplet", cc::AT),
            "buildpacks": [
                { "name": "procfile", "key": "procfile-1", "url": format!("{at}/procfile.tgz") },
            ],
        },
    })
}

/// What it wants to run.
pub fn desire(guid: &str, more: Value) -> Value {
    let mut desire = json!({
        "process_guid": guid, "droplet_uri": format!("http://{}/droplet.tgz", cc::AT),
        "stack": "tiny", "start_command": "sh app.sh", "execution_metadata": "",
        "environment": [{ "name": "VCAP_APPLICATION", "value": "{}" }],
        "memory_mb": 64, "disk_mb": 256, "file_descriptors": 1024, "num_instances": 1,
        "log_guid": "app-guid", "health_check_timeout_in_seconds": 60, "etag": "1",
        "routing_info": {
            "http_routes": [{ "hostname": "web.example.com" }],
            "tcp_routes": [
                { "router_group_guid": "r", "external_port": 8000, "container_port": 8080 },
            ],
        },
    });
    let fields = desire.as_object_mut().expect("an object");
    fields.extend(more.as_object().cloned().unwrap_or_default());
    desire
}

/// Settings that name this lab's password file.
pub fn with_controller(lab: &Lab) {
    with_controller_at(lab, &format!("http://{}", cc::AT), "");
}

/// The same for a controller at this URL, with further settings of it.
pub fn with_controller_at(lab: &Lab, url: &str, more: &str) {
    let file = lab.root.join("cc-password");
    fs::write(&file, format!("{}\n", cc::PASSWORD)).expect("password");
    let (file, user) = (file.display(), cc::USER);
    let text = format!(
        "[cloud_controller]\nurl = \"{url}\"\nuser = \"{user}\"\npassword_file = \"{file}\"\n{more}"
    );
    lab.configure("controller", &text);
}

pub fn states(lab: &Lab, guid: &str) -> Vec<String> {
    let shown = port(lab, &format!("GET /v1/actual_lrps/{guid}"), &[], b"").json();
    let states = shown.as_array().expect("a list").iter();
    states.map(|one| one["state"].as_str().unwrap_or("").to_owned()).collect()
}

fn until_states(lab: &Lab, guid: &str, wanted: &[&str]) {
    lab.until(&format!("{guid} is {wanted:?}"), |lab| (states(lab, guid) == wanted).then_some(()));
}

/// Row 79, row 82, row 84, row 85, row 86, row 87, row 89: an app is staged by a buildpack, desired,
/// scaled, one instance of it killed, stopped; a crash is told; all of it by a controller.
#[test]
fn row_79_a_controller_stages_runs_scales_and_stops_an_app() {
    let mut lab = lab("cc-flow", "");
    with_controller(&lab);
    let cc = Cc::start();
    let src = lab.root.join("src/app");
    fs::create_dir_all(&src).expect("directory");
    fs::write(src.join("app.sh"), WEB).expect("script");
    fs::write(src.join("Procfile"), "web: sh app.sh\n").expect("Procfile");
    let pack = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/buildpacks/procfile");
    let copy = lab.root.join("src/procfile");
    crate::lab::tool("cp", &["-a", pack.to_str().expect("text"), copy.to_str().expect("text")]);
    cc.state().files.insert("/bits.tgz".into(), packed(&src));
    cc.state().files.insert("/procfile.tgz".into(), packed(&copy));
    lab.serve();

    // It is staged, and asked for twice; the end is told once, with the builder's result.
    let line = "PUT /v1/staging/staging-1";
    let body = staging().to_string();
    assert_eq!(socket(&lab, line, &body).status, 202, "{}", lab.daemon_log());
    assert_eq!(socket(&lab, line, &body).status, 202);
    let done = lab.until("the staging is told", |_| {
        cc.heard("POST", "/internal/staging/staging-1/completed").first().cloned()
    });
    let log = lab.run(&["logs", "staging-1", "-n", "1000"]).out;
    let result = done.json();
    let lines = format!("{result}\n{log}\n{}", lab.daemon_log());
    assert_eq!(result["result"]["process_types"]["web"], "sh app.sh", "{lines}");
    assert!(done.head.contains(cc::LOGIN), "{}", done.head);
    let upload = cc.heard("POST", "/droplet").first().cloned().expect("a droplet");
    assert!(upload.path.contains("async=true"), "{}", upload.path);
    assert!(upload.head.to_ascii_lowercase().contains("content-md5: "), "{}", upload.head);
    assert_eq!(cc.state().looks, 2, "its job was followed to its end");

    // It runs, once.
    let line = format!("PUT /v1/apps/{GUID}");
    let put = |more: Value| {
        // The controller says the same to whoever asks it.
        let wanted = desire(GUID, more);
        cc.state().apps.insert(GUID.into(), wanted.clone());
        port(&lab, &line, &[], wanted.to_string().as_bytes())
    };
    let start = result["result"]["process_types"]["web"].clone();
    let answer = put(json!({ "start_command": start }));
    assert_eq!(answer.status, 202, "{}", answer.json());
    until_states(&lab, GUID, &["RUNNING"]);
    lab.until("it is published", |_| get("127.0.0.1", 8000).filter(|it| it.contains("instance 0")));
    let routes = socket(&lab, &format!("GET /receptor/v1/desired_lrps/{GUID}"), "").json();
    assert_eq!(routes["routes"]["cf-router"][0]["hostnames"], json!(["web.example.com"]));
    assert_eq!((&routes["domain"], &routes["annotation"]), (&json!("cf-apps"), &json!("1")));

    // It is scaled; what runs goes on.
    let guid_of = |index: usize| {
        let shown = port(&lab, &format!("GET /v1/actual_lrps/{GUID}"), &[], b"").json();
        shown[index]["instance_guid"].as_str().unwrap_or_default().to_owned()
    };
    let first = guid_of(0);
    assert_eq!(put(json!({ "num_instances": 2, "etag": "2" })).status, 202);
    until_states(&lab, GUID, &["RUNNING", "RUNNING"]);
    assert_eq!(guid_of(0), first, "it never noticed");

    // One index is killed; a fresh instance takes it.
    assert_eq!(port(&lab, &format!("DELETE /v1/apps/{GUID}/index/0"), &[], b"").status, 202);
    lab.until("another instance runs", |lab| {
        let runs = states(lab, GUID) == ["RUNNING", "RUNNING"];
        (runs && guid_of(0) != first).then_some(())
    });
    let line = format!("GET /v1/actual_lrps/{GUID}/stats");
    assert_eq!(port(&lab, &line, &[], b"").status, 401);
    let stats = port(&lab, &line, &["Authorization: Bearer x"], b"").json();
    assert!(stats[1]["stats"]["mem"].as_u64().is_some_and(|mem| mem > 0), "{stats:#}");
    assert!(stats[1]["port"].as_u64().is_some_and(|port| port > 1024), "{stats:#}");

    // A one-off task runs in the same droplet, and its end is told to whoever asked for it.
    let task = json!({
        "task_guid": "task-1", "log_guid": "app-guid", "memory_mb": 64, "disk_mb": 256,
        "lifecycle": "buildpack", "rootfs": "tiny", "command": "test -f app.sh && echo $GREETING",
        "droplet_uri": format!("http://{}/droplet.tgz", cc::AT), "egress_rules": [],
        "environment": [{ "name": "GREETING", "value": "hello task" }],
        "completion_callback": format!("http://{}/internal/tasks/task-1/completed", cc::AT),
    });
    // Without its login nobody is heard there; a callback has it in its URL.
    let task = task.to_string().replace(
        "http://127.0.0.1:9022/internal",
        &format!("http://{}:{}@{}/internal", cc::USER, cc::PASSWORD, cc::AT),
    );
    assert_eq!(port(&lab, "POST /v1/tasks", &[], task.as_bytes()).status, 202);
    let told = lab.until("the task's end is told", |_| {
        cc.heard("POST", "/internal/tasks/task-1/completed").first().cloned()
    });
    let log = lab.run(&["logs", "task-1", "-n", "1000"]).out;
    assert_eq!(told.json()["failed"], false, "{}\n{log}", told.json());
    assert_eq!(port(&lab, "DELETE /v1/tasks/none", &[], b"").status, 404);
    let line = format!("GET /v1/bulk_actual_lrp_status?guids={GUID},none");
    let bulk = socket(&lab, &line, "").json();
    assert_eq!(
        (bulk.as_object().map(|it| it.len()), &bulk["none"]),
        (Some(2), &json!([])),
        "{bulk}"
    );
    assert_eq!(bulk[GUID][1]["index"], 1);

    // One that cannot run crashes, and that is told.
    let broken = GUID.replace("6eac776b", "0badc0de");
    let more = json!({
        "start_command": "exit 3", "health_check_type": "none", "routing_info": {},
    });
    let wanted = desire(&broken, more);
    cc.state().apps.insert(broken.clone(), wanted.clone());
    let line = format!("PUT /v1/apps/{broken}");
    let answer = port(&lab, &line, &[], wanted.to_string().as_bytes());
    assert_eq!(answer.status, 202, "{}", answer.json());
    let path = format!("/internal/apps/{broken}/crashed");
    let crash = lab.until("a crash is told", |_| cc.heard("POST", &path).first().cloned()).json();
    assert_eq!((&crash["index"], &crash["reason"]), (&json!(0), &json!("CRASHED")), "{crash}");
    assert_eq!(crash["exit_description"], "APP: Exited with status 3", "{crash}");
    assert_eq!(crash["crash_count"], 1);

    // All of it goes.
    cc.state().apps.clear();
    for guid in [GUID, broken.as_str()] {
        let status = port(&lab, &format!("DELETE /v1/apps/{guid}"), &[], b"").status;
        // The controller's sync may have been there before.
        assert!(matches!(status, 202 | 404), "{guid}: {status}");
    }
    lab.until("both are gone", |lab| {
        let apps: Value = serde_json::from_str(&lab.run(&["apps", "--json"]).out).ok()?;
        apps.as_array()?.is_empty().then_some(())
    });
    assert_eq!(port(&lab, &format!("DELETE /v1/apps/{GUID}"), &[], b"").status, 404);
    lab.finish();
}
