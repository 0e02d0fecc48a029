//! Stagings and tasks that fail, run late, or are ended; and what the next staging finds.

use super::cc::{self, Cc};
use super::flow::with_controller;
use super::{lab, packed, port, socket};
use crate::lab::Lab;
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::PermissionsExt;

/// A buildpack as an archive, by its scripts.
fn pack(lab: &Lab, cc: &Cc, name: &str, scripts: &[(&str, &str)]) {
    let dir = lab.root.join("packs").join(name);
    fs::create_dir_all(dir.join("bin")).expect("directory");
    let release = "printf -- '---\\ndefault_process_types:\\n  web: sh app.sh\\n'";
    let usual = [("detect", "echo own"), ("compile", "true"), ("release", release)];
    for (script, text) in usual.iter().chain(scripts) {
        let path = dir.join("bin").join(script);
        fs::write(&path, format!("#!/bin/sh\n{text}\n")).expect("script");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("mode");
    }
    cc.state().files.insert(format!("/{name}.tgz"), packed(&dir));
}

/// A box whose controller has a small app.
fn with_app(name: &str) -> (Lab, Cc) {
    let mut lab = lab(name, "");
    with_controller(&lab);
    let cc = Cc::start();
    let src = lab.root.join("src/app");
    fs::create_dir_all(&src).expect("directory");
    fs::write(src.join("app.sh"), crate::WEB).expect("script");
    cc.state().files.insert("/bits.tgz".into(), packed(&src));
    lab.serve();
    (lab, cc)
}

fn staging(packs: &[&str], more: Value) -> Value {
    let at = format!("http://{}", cc::AT);
    let pack =
        |name: &&str| json!({ "name": name, "key": name, "url": format!("{at}/{name}.tgz") });
    let mut data = json!({
        "app_bits_download_uri": format!("{at}/bits.tgz"), "stack": "tiny",
        "build_artifacts_cache_download_uri": format!("{at}/cache.tgz"),
        "build_artifacts_cache_upload_uri": format!("http://u:p@{}/cache", cc::AT),
        "droplet_upload_uri": format!("http://u:p@{}/droplet", cc::AT),
        "buildpacks": packs.iter().map(pack).collect::<Vec<_>>(),
    });
    let more = more.as_object().cloned().unwrap_or_default();
    if let Some(skip) = more.get("skip_detect") {
        for pack in data["buildpacks"].as_array_mut().expect("a list") {
            pack["skip_detect"] = skip.clone();
        }
    }
    json!({
        "app_id": "app-guid", "log_guid": "app-guid", "lifecycle": "buildpack",
        "memory_mb": 128, "disk_mb": 512, "environment": [], "egress_rules": [],
        "timeout": more.get("timeout").cloned().unwrap_or(300.into()),
        "lifecycle_data": data,
    })
}

fn stage(lab: &Lab, guid: &str, wanted: &Value) {
    let answer = socket(lab, &format!("PUT /v1/staging/{guid}"), &wanted.to_string());
    assert_eq!(answer.status, 202, "{}\n{}", answer.json(), lab.daemon_log());
}

/// What the controller is told of its end, which is told once.
fn told(lab: &Lab, cc: &Cc, guid: &str) -> Value {
    let path = format!("/internal/staging/{guid}/completed");
    lab.until(&format!("the end of {guid} is told"), |_| {
        cc.heard("POST", &path).first().map(cc::Got::json)
    })
}

fn until_no_container(lab: &Lab) {
    lab.until("no container is left", |lab| lab.links().is_empty().then_some(()));
}

fn failed(id: &str) -> Value {
    json!({ "error": { "id": id, "message": "staging failed" } })
}

/// Row 79, row 80: each way in which a builder fails has its id, and one that takes longer than it may is
/// ended.
#[test]
fn row_79_each_failure_of_a_staging_has_its_id() {
    let (lab, cc) = with_app("cc-fails");
    pack(&lab, &cc, "shy", &[("detect", "exit 1")]);
    pack(&lab, &cc, "clumsy", &[("compile", "exit 9")]);
    pack(&lab, &cc, "mute", &[("release", "exit 9")]);
    pack(&lab, &cc, "slow", &[("compile", "exec sleep 100000")]);
    for (name, id, more) in [
        ("shy", "NoAppDetectedError", json!({})),
        ("clumsy", "BuildpackCompileFailed", json!({})),
        ("mute", "BuildpackReleaseFailed", json!({})),
        ("slow", "StagingError", json!({ "timeout": 2 })),
    ] {
        let guid = format!("staging-{name}");
        stage(&lab, &guid, &staging(&[name], more));
        let end = told(&lab, &cc, &guid);
        assert_eq!(end, failed(id), "{name}\n{}", lab.daemon_log());
    }
    until_no_container(&lab);
    lab.finish();
}

/// Row 79, row 85: a chain of buildpacks that nobody asks whether they will, each with the cache that the
/// staging before has left.
#[test]
fn row_85_the_second_staging_finds_the_cache_of_the_first() {
    let (lab, cc) = with_app("cc-cache");
    let count = "cat $2/count 2>/dev/null | sed 's/^/found /'; mkdir -p $2; echo x >> $2/count";
    // Neither would take the app, and both are told to.
    let supply = [("detect", "exit 1"), ("supply", count)];
    pack(&lab, &cc, "first", &supply);
    pack(&lab, &cc, "last", &[("detect", "exit 1"), ("supply", "true"), ("finalize", count)]);
    let wanted = staging(&["first", "last"], json!({ "skip_detect": true }));
    let said = |guid: &str| {
        // Its log goes with it as soon as the controller has heard of its end.
        cc.state().deaf = Some(503);
        stage(&lab, guid, &wanted);
        let end = told(&lab, &cc, guid);
        let log = lab.run(&["logs", guid, "-n", "1000"]).out;
        assert_eq!(end["result"]["process_types"]["web"], "sh app.sh", "{end}\n{log}");
        cc.state().deaf = None;
        log.matches("found x").count()
    };
    assert_eq!(said("staging-1"), 0);
    assert!(cc.state().files.contains_key("/cache.tgz"));
    assert_eq!(said("staging-2"), 2, "one line in the cache of each");
    until_no_container(&lab);
    lab.finish();
}

/// Row 79, row 83: what runs is ended by whoever asked for it: it is told to have failed, and nothing of
/// it is left.
#[test]
fn row_79_a_staging_and_a_task_that_run_are_ended_by_their_controller() {
    let (lab, cc) = with_app("cc-ends");
    pack(&lab, &cc, "slow", &[("compile", "echo compiling for ever; exec sleep 100000")]);
    stage(&lab, "staging-1", &staging(&["slow"], json!({})));
    lab.until("the builder is at work", |lab| {
        (!lab.logged("staging-1", "compiling for ever").is_empty()).then_some(())
    });
    assert_eq!(port(&lab, "DELETE /v1/staging/staging-1", &[], b"").status, 202);
    assert_eq!(told(&lab, &cc, "staging-1"), failed("StagingError"));
    until_no_container(&lab);
    lab.until("it is forgotten", |lab| {
        let status = port(lab, "DELETE /v1/staging/staging-1", &[], b"").status;
        (status == 404).then_some(())
    });

    pack(&lab, &cc, "quick", &[]);
    stage(&lab, "staging-2", &staging(&["quick"], json!({})));
    assert!(told(&lab, &cc, "staging-2")["result"].is_object(), "{}", lab.daemon_log());
    let task = json!({
        "task_guid": "task-1", "log_guid": "app-guid", "memory_mb": 64, "disk_mb": 256,
        "lifecycle": "buildpack", "rootfs": "tiny",
        "command": "echo working for ever; exec sleep 100000", "environment": [],
        "droplet_uri": format!("http://{}/droplet.tgz", cc::AT), "egress_rules": [],
        "completion_callback":
            format!("http://{}:{}@{}/internal/tasks/task-1/completed", cc::USER, cc::PASSWORD, cc::AT),
    });
    assert_eq!(port(&lab, "POST /v1/tasks", &[], task.to_string().as_bytes()).status, 202);
    lab.until("it works", |lab| {
        (!lab.logged("task-1", "working for ever").is_empty()).then_some(())
    });
    assert_eq!(port(&lab, "DELETE /v1/tasks/task-1", &[], b"").status, 202);
    let end = lab.until("its end is told", |_| {
        cc.heard("POST", "/internal/tasks/task-1/completed").first().map(cc::Got::json)
    });
    assert_eq!(
        (&end["failed"], &end["failure_reason"]),
        (&json!(true), &json!("task was cancelled"))
    );
    until_no_container(&lab);
    lab.finish();
}

/// Row 87: a droplet whose job fails, or never ends, is none that the controller has.
#[test]
fn row_87_an_upload_is_as_good_as_its_job() {
    let (lab, cc) = with_app("cc-jobs");
    let ask = |seconds: u32| {
        let to = "http%3A%2F%2F127.0.0.1%3A9022%2Fdroplet";
        let line = format!("POST /v1/droplet/a?cc-droplet-upload-uri={to}&timeout={seconds}");
        let answer = port(&lab, &line, &[], b"a droplet");
        let why = answer.json()["error"]["message"].as_str().unwrap_or_default().to_owned();
        (answer.status, why)
    };
    cc.state().job = Some("failed");
    assert_eq!(ask(60), (500, "upload job failed".into()));
    cc.state().job = Some("running");
    assert_eq!(ask(1), (504, "the upload's job did not end in time".into()));
    cc.state().job = Some("lost");
    assert_eq!(ask(60), (500, "unknown upload status `lost`".into()));
    lab.finish();
}
