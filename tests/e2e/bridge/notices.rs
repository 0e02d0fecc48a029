//! What a controller of today hears of an app's instances, whose checks are declared.

use super::cc::{self, Cc};
use super::flow::with_controller_at;
use super::{GUID, lab, socket};
use serde_json::{Value, json};

/// An app with a check of each kind and a sidecar; it is ready as long as it has a file.
fn lrp() -> Value {
    let app = "mkdir -p /tmp/www; echo up > /tmp/www/index.html; \
               exec busybox httpd -f -p 8080 -h /tmp/www";
    let beside = "echo beside the app; exec sleep 100000";
    let run =
        |script: &str| json!({ "run": { "path": "sh", "args": ["-c", script], "user": "vcap" } });
    json!({
        "process_guid": GUID, "domain": "cf-apps", "rootfs": "preloaded:tiny", "instances": 1,
        "action": run(app), "ports": [8080], "memory_mb": 64, "disk_mb": 64, "annotation": "1",
        "log_guid": "log", "log_source": "APP", "routes": {}, "start_timeout": 60,
        "monitor": run("exit 1"),
        "check_definition": {
            "checks": [
                { "tcp_check": { "port": 8080, "connect_timeout_ms": 2000 } },
                { "http_check": { "port": 8080, "path": "/index.html" } },
            ],
            "readiness_checks": [
                { "http_check": { "port": 8080, "path": "/ready", "interval_ms": 100 } },
            ],
            "log_source": "HEALTH",
        },
        "sidecars": [{ "action": run(beside), "memory_mb": 16 }],
    })
}

/// Row 45, row 46, row 47, row 85: declared checks decide, whatever an older monitor says; connections are led to what
/// is ready, and a controller hears of that, and of instances that a drain takes away.
#[test]
fn row_85_readiness_and_a_drain_are_told() {
    let mut lab = lab("cc-notices", "");
    with_controller_at(&lab, &format!("http://{}", cc::AT), "crashes = \"v4\"\n");
    let cc = Cc::start();
    // Nothing is removed that it does not list: it lists nothing.
    cc.state().broken = Some(500);
    lab.serve();
    let answer = socket(&lab, "POST /v1/desired_lrps", &lrp().to_string());
    assert_eq!(answer.status, 201, "{} {}", answer.json(), lab.daemon_log());
    let path = format!("GET /receptor/v1/actual_lrps/{GUID}");
    let runs = lab.until("it runs", |lab| {
        let shown = socket(lab, &path, "").json();
        (shown[0]["state"] == "RUNNING").then(|| shown[0].clone())
    });
    let wanted = socket(&lab, &format!("GET /receptor/v1/desired_lrps/{GUID}"), "").json();
    assert_eq!(wanted["check_definition"], lrp()["check_definition"]);
    let name = wanted["log_name"].as_str().expect("a name").to_owned();
    lab.until("its sidecar has spoken", |lab| {
        lab.run(&["logs", &name, "-n", "1000"]).out.contains("beside the app").then_some(())
    });

    let of = |what: &str| cc.heard("POST", &format!("/internal/v4/apps/{GUID}/{what}"));
    assert_eq!(of("readiness_changed").len(), 0, "it was never ready");
    assert_eq!(lab.inside(&name, "echo yes > /tmp/www/ready").code, 0);
    let told = lab.until("it is ready", |_| of("readiness_changed").first().map(cc::Got::json));
    assert_eq!((&told["ready"], &told["index"]), (&json!(true), &json!(0)), "{told}");
    assert_eq!(told["instance"], runs["instance_guid"]);
    assert_eq!(lab.inside(&name, "rm /tmp/www/ready").code, 0);
    let told = lab.until("it is not", |_| of("readiness_changed").get(1).map(cc::Got::json));
    assert_eq!(told["ready"], false, "{told}");

    assert_eq!(of("rescheduling").len(), 0);
    lab.ok(&["drain"]);
    let told = lab.until("it has to go", |_| of("rescheduling").first().map(cc::Got::json));
    assert_eq!(told["instance"], runs["instance_guid"], "{told}");
    assert_eq!(told["reason"], "Cell is being evacuated");
    lab.ok(&["undrain"]);
    lab.until("another one runs", |lab| {
        let shown = socket(lab, &path, "").json();
        (shown[0]["state"] == "RUNNING").then_some(())
    });
    assert_eq!(of("crashed").len(), 0, "{}", lab.daemon_log());
    assert_eq!(socket(&lab, &format!("DELETE /v1/desired_lrps/{GUID}"), "").status, 204);
    lab.until("it is gone", |lab| (lab.run(&["apps", "--json"]).out.trim() == "[]").then_some(()));
    lab.finish();
}
