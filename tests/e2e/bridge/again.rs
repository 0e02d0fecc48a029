//! The daemon is killed in the middle of a staging: the controller hears how it ended all the same.

use super::cc::{self, Cc};
use super::flow::with_controller;
use super::{lab, packed, socket};
use crate::lab::Lab;
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::PermissionsExt;

/// A buildpack for everything, as an archive.
fn pack(lab: &Lab, name: &str, compile: &str) -> Vec<u8> {
    let dir = lab.root.join("packs").join(name);
    fs::create_dir_all(dir.join("bin")).expect("directory");
    let release = "printf -- '---\\ndefault_process_types:\\n  web: sh app.sh\\n'";
    for (script, text) in [("detect", "echo own"), ("compile", compile), ("release", release)] {
        let path = dir.join("bin").join(script);
        fs::write(&path, format!("#!/bin/sh\n{text}\n")).expect("script");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("mode");
    }
    packed(&dir)
}

fn staging(pack: &str) -> Value {
    let at = format!("http://{}", cc::AT);
    json!({
        "app_id": "app-guid", "log_guid": "app-guid", "lifecycle": "buildpack",
        "memory_mb": 128, "disk_mb": 512, "timeout": 300, "environment": [], "egress_rules": [],
        "lifecycle_data": {
            "app_bits_download_uri": format!("{at}/bits.tgz"), "stack": "tiny",
            "build_artifacts_cache_upload_uri": format!("http://u:p@{}/cache", cc::AT),
            "droplet_upload_uri": format!("http://u:p@{}/droplet", cc::AT),
            "buildpacks": [{ "name": pack, "key": pack, "url": format!("{at}/{pack}.tgz") }],
        },
    })
}

fn stage(lab: &Lab, guid: &str, pack: &str) {
    let answer = socket(lab, &format!("PUT /v1/staging/{guid}"), &staging(pack).to_string());
    assert_eq!(answer.status, 202, "{}\n{}", answer.json(), lab.daemon_log());
}

/// What the controller is told of the end; how often.
fn told(cc: &Cc, guid: &str) -> Vec<Value> {
    let path = format!("/internal/staging/{guid}/completed");
    cc.heard("POST", &path).iter().map(cc::Got::json).collect()
}

/// Row 2, row 6, row 79: the builder runs when the daemon is killed; the next one tells that it has failed,
/// and runs it again for whoever asks again. One that ended while nobody listened is told with its
/// result by the next daemon.
#[test]
fn row_79_a_controller_hears_of_a_staging_that_a_killed_daemon_had_begun() {
    let mut lab = lab("cc-again", "");
    with_controller(&lab);
    let cc = Cc::start();
    let src = lab.root.join("src/app");
    fs::create_dir_all(&src).expect("directory");
    fs::write(src.join("app.sh"), crate::WEB).expect("script");
    cc.state().files.insert("/bits.tgz".into(), packed(&src));
    let slow = pack(&lab, "slow", "echo compiling for ever; exec sleep 100000");
    cc.state().files.insert("/slow.tgz".into(), slow);
    cc.state().files.insert("/quick.tgz".into(), pack(&lab, "quick", "echo compiled"));
    lab.serve();

    stage(&lab, "staging-1", "slow");
    lab.until("the builder is at work", |lab| {
        let lines = lab.logged("staging-1", "compiling for ever");
        (!lines.is_empty()).then_some(())
    });
    lab.end_daemon(Signal::SIGKILL);
    assert!(told(&cc, "staging-1").is_empty());
    lab.serve();
    let end = lab.until("its end is told", |_| told(&cc, "staging-1").pop());
    assert_eq!(end, json!({ "error": { "id": "StagingError", "message": "staging failed" } }));
    let gone = |guid: &str, lab: &Lab| {
        let shown = socket(lab, &format!("GET /receptor/v1/tasks/{guid}"), "");
        (shown.status == 404).then_some(())
    };
    lab.until("the task is gone", |lab| gone("staging-1", lab));
    assert_eq!(told(&cc, "staging-1").len(), 1, "it is told once");
    // Whoever asks again gets another one of the same name.
    stage(&lab, "staging-1", "quick");
    let end = lab.until("the other one's end is told", |_| told(&cc, "staging-1").get(1).cloned());
    assert_eq!(end["result"]["process_types"]["web"], "sh app.sh", "{end}");

    // Nobody takes the end of this one before the daemon is killed.
    cc.state().deaf = Some(503);
    stage(&lab, "staging-2", "quick");
    lab.until("it is told in vain", |_| told(&cc, "staging-2").pop());
    lab.end_daemon(Signal::SIGKILL);
    let before = told(&cc, "staging-2").len();
    cc.state().deaf = None;
    lab.serve();
    let end = lab.until("it is told again", |_| told(&cc, "staging-2").get(before).cloned());
    assert_eq!(end["result"]["process_types"]["web"], "sh app.sh", "{end}");
    lab.until("the task is gone", |lab| gone("staging-2", lab));
    assert_eq!(told(&cc, "staging-2").len(), before + 1, "it is told once");

    // Of logins that URLs carry nothing is written anywhere.
    let log = lab.daemon_log() + &lab.run(&["logs", "staging-1", "-n", "1000"]).out;
    assert!(!log.contains("u:p@") && !log.contains(cc::PASSWORD), "{log}");
    lab.finish();
}
