//! One version of an app after the other at the same port, and the same one again at once.

use super::cc::Cc;
use super::flow::{desire, states};
use super::{GUID, lab, packed, port, socket};
use crate::lab::{Lab, get};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use std::fs;

/// Says its argument, and takes no notice of TERM.
const STUBBORN: &str = "\
trap '' TERM
mkdir -p www
echo $1 > www/index.html
exec busybox httpd -f -p $PORT -h www
";

/// A box whose controller has a droplet with that.
fn with_droplet(name: &str) -> (Lab, Cc) {
    let mut lab = lab(name, "lifecycle = \"mount\"\n");
    let cc = Cc::start();
    let root = lab.root.join("src/droplet");
    fs::create_dir_all(root.join("app")).expect("directory");
    fs::write(root.join("app/app.sh"), STUBBORN).expect("script");
    let info = "{\"detected_buildpack\":\"\",\"start_command\":\"sh app.sh\"}\n";
    fs::write(root.join("staging_info.yml"), info).expect("info");
    cc.state().files.insert("/droplet.tgz".into(), packed(&root));
    lab.serve();
    (lab, cc)
}

fn put(lab: &Lab, guid: &str, word: &str) -> u16 {
    let body = desire(guid, json!({ "start_command": format!("sh app.sh {word}") })).to_string();
    port(lab, &format!("PUT /v1/apps/{guid}"), &[], body.as_bytes()).status
}

fn delete(lab: &Lab, guid: &str) -> u16 {
    port(lab, &format!("DELETE /v1/apps/{guid}"), &[], b"").status
}

fn until_gone(lab: &Lab) {
    lab.until("all are gone", |lab| {
        let apps: Value = serde_json::from_str(&lab.run(&["apps", "--json"]).out).ok()?;
        apps.as_array()?.is_empty().then_some(())
    });
}

/// Row 82: a controller begins the next version, waits until it runs, and removes the one before; the
/// port answers all the time. An app by manifest shares with nobody.
#[test]
fn row_82_a_tcp_route_goes_from_one_version_to_the_next_without_a_gap() {
    let (lab, cc) = with_droplet("cc-share");
    let next = GUID.replace("6eac776b", "7eac776b");
    assert_eq!(put(&lab, GUID, "one"), 202);
    lab.until("the first answers", |_| get("127.0.0.1", 8000).filter(|said| said == "one\n"));
    assert_eq!(put(&lab, &next, "two"), 202, "{}", lab.daemon_log());
    lab.until("the next answers", |_| {
        let said = get("127.0.0.1", 8000).expect("somebody answers all the time");
        assert!(said == "one\n" || said == "two\n", "{said}");
        (said == "two\n").then_some(())
    });
    assert_eq!(
        (states(&lab, GUID), states(&lab, &next)),
        (vec!["RUNNING".into()], vec!["RUNNING".into()])
    );
    assert_eq!(delete(&lab, GUID), 202);
    lab.until("the first is gone", |lab| {
        assert_eq!(get("127.0.0.1", 8000).as_deref(), Some("two\n"));
        let apps: Value = serde_json::from_str(&lab.run(&["apps", "--json"]).out).ok()?;
        (apps.as_array()?.len() == 1).then_some(())
    });

    // Whoever publishes it by a manifest gets it as little as before, nor gives it up.
    let manifest =
        "[run]\nmemory = \"32MiB\"\ndisk = \"32MiB\"\n\n[[port]]\ncontainer = 8080\npublish = ";
    let ran = lab.run(&["apply", &lab.app("web", crate::WEB, &format!("{manifest}8000\n"))]);
    assert!(ran.code == 9 && ran.err.contains("port 8000 is published by app"), "{}", ran.err);
    lab.ok(&["apply", &lab.app("web", crate::WEB, &format!("{manifest}8001\n"))]);
    let route =
        json!([{ "router_group_guid": "r", "external_port": 8001, "container_port": 8080 }]);
    let wanted = desire(GUID, json!({ "routing_info": { "tcp_routes": route } }));
    let answer = port(&lab, &format!("PUT /v1/apps/{GUID}"), &[], wanted.to_string().as_bytes());
    assert_eq!(answer.status, 409, "{}", answer.json());
    let why = answer.json()["error"]["message"].as_str().unwrap_or_default().to_owned();
    assert!(why.contains("port 8001 is published by app web"), "{why}");
    lab.ok(&["delete", "web"]);
    assert_eq!(delete(&lab, &next), 202);
    until_gone(&lab);
    drop(cc);
    lab.finish();
}

/// Row 82, row 51: what was removed is desired anew at once, while it still ends; it is told, changed and
/// removed like any other meanwhile, and begins when nothing of the one before is left, whatever becomes of
/// the daemon.
#[test]
fn row_82_an_app_that_is_being_removed_can_be_desired_again_at_once() {
    let (mut lab, cc) = with_droplet("cc-anew");
    let state = |lab: &Lab| states(lab, GUID);
    let line = format!("/receptor/v1/desired_lrps/{GUID}");
    let shown = |lab: &Lab| socket(lab, &format!("GET {line}"), "");
    assert_eq!(put(&lab, GUID, "one"), 202);
    lab.until("it answers", |_| get("127.0.0.1", 8000).filter(|said| said == "one\n"));
    let epoch = |lab: &Lab| shown(lab).json()["modification_tag"]["epoch"].clone();
    let first = epoch(&lab);

    assert_eq!((delete(&lab, GUID), shown(&lab).status), (202, 404));
    assert_eq!(put(&lab, GUID, "two"), 202, "{}", lab.daemon_log());
    // What ends is none of its instances.
    assert_eq!(state(&lab), ["STARTING"]);
    assert_ne!(epoch(&lab), first);
    let stats = format!("GET /receptor/v1/actual_lrps/{GUID}/index/0");
    assert_eq!(socket(&lab, &stats, "").json()["state"], "UNCLAIMED");
    // Once more, it is changed: it is there.
    let words = r#"{"annotation":"changed"}"#;
    assert_eq!(socket(&lab, &format!("PUT {line}"), words).status, 204);
    assert_eq!(shown(&lab).json()["annotation"], "changed");
    assert_eq!(shown(&lab).json()["modification_tag"]["index"], 1);
    // Removed, and desired a third time; then the daemon dies.
    assert_eq!((delete(&lab, GUID), shown(&lab).status, delete(&lab, GUID)), (202, 404, 404));
    assert_eq!(put(&lab, GUID, "three"), 202);
    lab.end_daemon(Signal::SIGKILL);
    lab.serve();
    assert_eq!(shown(&lab).status, 200);
    lab.until("the last one answers", |_| get("127.0.0.1", 8000).filter(|said| said == "three\n"));
    assert_eq!(state(&lab), ["RUNNING"]);

    // Whoever deletes it by its name here means what comes next, too.
    let name = shown(&lab).json()["log_name"].as_str().expect("a name").to_owned();
    assert_eq!(delete(&lab, GUID), 202);
    assert_eq!(put(&lab, GUID, "four"), 202);
    lab.ok(&["delete", &name]);
    assert_eq!(shown(&lab).status, 404);
    until_gone(&lab);
    drop(cc);
    lab.finish();
}
