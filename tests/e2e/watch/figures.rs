//! Figures of what goes wrong and of what an app does, from where it happens to the text that
//! collectors read.

use super::super::openmetrics::Metrics;
use super::super::tasks;
use super::*;
use crate::lab::get;

fn read(lab: &Lab) -> Metrics {
    Metrics::read(&answer(lab, "/metrics").1)
}

/// Row 56: containers that could not be made, checks that ended an instance, and output beyond
/// what an app may log are counted.
#[test]
fn row_56_what_fails_is_counted() {
    let mut lab = Lab::new("failures");
    let given = lab.root.join("given");
    std::fs::create_dir_all(given.join("v")).expect("a directory to give away");
    let volumes = format!("[cell]\nvolumes = [\"{}\"]\n", given.display());
    lab.configure("volumes", &volumes);
    lab.serve();
    let failed = [("result", "failed")];
    let counts = |lab: &Lab| {
        let now = read(lab);
        [
            now.value("terrarium_container_creation_seconds_count", &failed),
            now.value("terrarium_checks_failed_total", &[]),
            now.value("terrarium_app_instance_exceeded_log_rate_limit_total", &[]),
        ]
    };
    assert_eq!(counts(&lab), [0.0; 3]);

    // No root of a container has a directory below a file.
    let mount = json!({ "driver": "local", "volume_id": "v", "container_dir": "/etc/passwd/v",
        "mode": "rw", "shared": { "volume_id": "v", "mount_config": "" } });
    let task = tasks::task("no-place", "true", json!({ "volume_mounts": [mount] }));
    assert_eq!(tasks::ask(&lab, "POST", "/v1/tasks", &task.to_string()).0, 201);
    lab.until("a creation has failed", |lab| (counts(lab)[0] >= 1.0).then_some(()));
    tasks::ask(&lab, "POST", "/v1/tasks/no-place/cancel", "");

    let never = "[restart]\npolicy = \"never\"\n\n";
    let small = "[run]\nmemory = \"32MiB\"\ndisk = \"32MiB\"\n\n";
    let manifest = format!(
        "{small}{PORT}{never}[health]\ntype = \"http\"\npath = \"/none\"\nstart_timeout = \"1s\"\n"
    );
    lab.run(&["apply", &lab.app("ill", WEB, &manifest)]);
    lab.until_state("ill", "crashed");
    assert_eq!(counts(&lab)[1], 1.0);

    let manifest = format!("{PLAIN}\n{never}[log]\nrate = \"0B/s\"\n");
    lab.ok(&["apply", &lab.app("loud", "echo one\necho two\n", &manifest)]);
    lab.until_state("loud", "finished");
    lab.until("it is counted", |lab| (counts(lab)[2] >= 1.0).then_some(()));
    lab.finish();
}

/// Row 55: what an app writes to its disk and sends over its network is in its figures.
#[test]
fn row_55_disk_and_network_of_an_app_are_told() {
    let lab = Lab::start("used");
    let manifest = format!("[run]\nmemory = \"64MiB\"\ndisk = \"64MiB\"\n\n{PORT}");
    lab.ok(&["apply", &lab.app("web", WEB, &manifest)]);
    lab.until_state("web", "running");
    let web = [("app", "web"), ("process", "web"), ("index", "0")];
    let value = |lab: &Lab, name: &str| read(lab).value(&format!("terrarium_app_{name}"), &web);
    assert_eq!(value(&lab, "disk_quota_bytes"), 64.0 * 1_048_576.0);
    let eight = 8.0 * 1_048_576.0;
    let before = value(&lab, "disk_bytes");
    assert!(before < eight, "{before}");
    let ran = lab.inside("web", "dd if=/dev/zero of=/tmp/big bs=1M count=8 && sync");
    assert_eq!(ran.code, 0, "{}", ran.err);
    lab.until("its disk is told", |lab| (value(lab, "disk_bytes") >= eight).then_some(()));
    assert!(value(&lab, "disk_bytes") < 2.0 * eight);

    let port = lab.instance("web", 0)["ports"][0]["host"].as_u64().expect("a port");
    let sent = value(&lab, "network_transmit_bytes_total");
    let received = value(&lab, "network_receive_bytes_total");
    let body = fetch("127.0.0.1", port, "/index.html").expect("an answer");
    assert!(body.starts_with("instance 0"), "{body}");
    assert!(get("127.0.0.1", port).is_some());
    // The body at least, and its request.
    assert!(value(&lab, "network_transmit_bytes_total") - sent > body.len() as f64);
    assert!(value(&lab, "network_receive_bytes_total") - received > "GET /index.html".len() as f64);
    lab.finish();
}
