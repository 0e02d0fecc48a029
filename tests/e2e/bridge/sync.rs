//! What a controller wants becomes what the box has, by fingerprints.

use super::cc::{self, Cc};
use super::flow::{desire, states, with_controller};
use super::{GUID, lab, packed, port, socket};
use crate::WEB;
use crate::lab::Lab;
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use std::fs;

/// A droplet as buildpacks leave it.
pub fn droplet(lab: &Lab) -> Vec<u8> {
    let root = lab.root.join("src/droplet");
    fs::create_dir_all(root.join("app")).expect("directory");
    fs::write(root.join("app/app.sh"), WEB).expect("script");
    let info = "{\"detected_buildpack\":\"\",\"start_command\":\"sh app.sh\"}\n";
    fs::write(root.join("staging_info.yml"), info).expect("info");
    packed(&root)
}

fn guids(lab: &Lab) -> Vec<String> {
    let shown = socket(lab, "GET /v1/desired_lrps?domain=cf-apps", "").json();
    let all = shown.as_array().expect("a list").iter();
    all.map(|one| one["process_guid"].as_str().unwrap_or("").to_owned()).collect()
}

/// Begins the next sync at once.
fn again(lab: &mut Lab) {
    lab.end_daemon(Signal::SIGTERM);
    lab.serve();
}

/// Row 19, row 51, row 81: missing apps are made, stale ones changed while they run, those that nobody wants
/// any more removed, and nothing is removed while the list cannot be read whole. Tasks that nobody
/// knows are told to have failed.
#[test]
fn row_81_the_box_follows_what_the_controller_wants() {
    let mut lab = lab("cc-sync", "lifecycle = \"mount\"\n");
    with_controller(&lab);
    let cc = Cc::start();
    cc.state().files.insert("/droplet.tgz".into(), droplet(&lab));
    let other = GUID.replace("c181be6b", "0badc0de");
    cc.state().apps.insert(GUID.into(), desire(GUID, json!({})));
    let tcp = json!({ "routing_info": {}, "etag": "7" });
    cc.state().apps.insert(other.clone(), desire(&other, tcp));
    // One that will not do stops nobody else.
    let wrong = GUID.replace("c181be6b", "00000000");
    cc.state().apps.insert(wrong.clone(), desire(&wrong, json!({ "stack": "none" })));
    let callback = format!("http://{}/internal/tasks/lost/completed", cc::AT);
    cc.state().tasks = vec![
        json!({ "task_guid": "lost", "state": "RUNNING", "completion_callback": callback }),
        json!({ "task_guid": "new", "state": "PENDING", "completion_callback": "" }),
    ];
    lab.serve();
    lab.until("both run", |lab| {
        let runs = |guid: &str| states(lab, guid) == ["RUNNING"];
        (runs(GUID) && runs(&other)).then_some(())
    });
    let lost = lab.until("the lost task is told", |_| {
        cc.heard("POST", "/internal/tasks/lost/completed").first().cloned()
    });
    assert_eq!(lost.json()["failure_reason"], "Unable to determine completion status");
    lab.until("both domains are fresh", |lab| {
        (socket(lab, "GET /v1/domains", "").json() == json!(["cf-apps", "cf-tasks"])).then_some(())
    });
    let handle = |lab: &Lab| {
        let shown = port(lab, &format!("GET /v1/actual_lrps/{GUID}"), &[], b"").json();
        shown[0]["instance_guid"].clone()
    };
    let first = handle(&lab);

    // Stale: more instances; what runs goes on. The list breaks off: nothing is removed.
    cc.state().tasks.clear();
    let more = json!({ "etag": "2", "num_instances": 2 });
    cc.state().apps.insert(GUID.into(), desire(GUID, more));
    again(&mut lab);
    lab.until("two run", |lab| (states(lab, GUID) == ["RUNNING", "RUNNING"]).then_some(()));
    assert_eq!(handle(&lab), first);
    cc.state().apps.remove(&other);
    cc.state().broken = Some(500);
    let asked = cc.heard("GET", "/internal/bulk/apps").len();
    again(&mut lab);
    lab.until("it has asked", |_| {
        (cc.heard("GET", "/internal/v3/bulk/task_states").len() > 2
            && cc.heard("GET", "/internal/bulk/apps").len() > asked)
            .then_some(())
    });
    assert_eq!(guids(&lab).len(), 2, "nothing goes that may be wanted");
    let fresh = socket(&lab, "GET /v1/domains", "").json();
    assert_eq!(fresh, json!([]), "nobody vouches for it");
    cc.state().broken = None;
    again(&mut lab);
    lab.until("the other one is gone", |lab| (guids(lab) == [GUID]).then_some(()));
    let first_page = cc.heard("GET", "/internal/bulk/apps").first().cloned().expect("a request");
    assert!(first_page.path.contains("batch_size=500&format=fingerprint&token=%7B%7D"));

    cc.state().apps.clear();
    again(&mut lab);
    lab.until("all are gone", |lab| {
        let apps: Value = serde_json::from_str(&lab.run(&["apps", "--json"]).out).ok()?;
        apps.as_array()?.is_empty().then_some(())
    });
    lab.finish();
}

/// Row 81: a long list comes in pages, each asked for by the token of the one before; what is missing is
/// asked for in pieces. A full page without a token is no whole list, and nothing is removed.
#[test]
fn row_81_a_list_of_several_pages_is_read_to_its_end_or_not_believed() {
    let mut lab = lab("cc-pages", "lifecycle = \"mount\"\n");
    with_controller(&lab);
    let cc = Cc::start();
    cc.state().files.insert("/droplet.tgz".into(), droplet(&lab));
    // The last one of all: on the second page.
    let last = GUID.replace("c181be6b", "ffffffff");
    cc.state().listed = (0..500).map(|n| format!("listed-{n}")).collect();
    cc.state().apps.insert(last.clone(), desire(&last, json!({})));
    lab.serve();
    lab.until("it runs", |lab| (states(lab, &last) == ["RUNNING"]).then_some(()));
    let tokens: Vec<String> = cc
        .heard("GET", "/internal/bulk/apps")
        .iter()
        .filter_map(|got| Some(got.path.split_once("&token=")?.1.to_owned()))
        .collect();
    assert_eq!(tokens[..2], ["%7B%7D", "%7B%22id%22%3A500%7D"]);
    let sizes = |from: usize| -> Vec<usize> {
        let asked = cc.heard("POST", "/internal/bulk/apps");
        asked[from..].iter().map(|got| got.json().as_array().expect("a list").len()).collect()
    };
    assert_eq!(sizes(0)[..2], [500, 1]);
    lab.until("it is fresh", |lab| {
        let fresh = socket(lab, "GET /v1/domains", "").json();
        fresh.as_array()?.contains(&json!("cf-apps")).then_some(())
    });

    // Nobody wants it any more, by what can be read.
    cc.state().apps.clear();
    cc.state().loose = true;
    let asked = cc.heard("GET", "/internal/v3/bulk/task_states").len();
    again(&mut lab);
    lab.until("the sync is over", |lab| {
        lab.daemon_log().contains("a full page has no token").then_some(())
    });
    lab.until("the next one, too", |_| {
        (cc.heard("GET", "/internal/v3/bulk/task_states").len() > asked).then_some(())
    });
    assert_eq!(guids(&lab), [last.as_str()], "it may be wanted on a page that nobody has seen");
    let fresh = socket(&lab, "GET /v1/domains", "").json();
    assert!(!fresh.as_array().expect("a list").contains(&json!("cf-apps")), "{fresh}");
    cc.state().loose = false;
    again(&mut lab);
    lab.until("it is gone", |lab| (lab.run(&["apps", "--json"]).out.trim() == "[]").then_some(()));
    lab.finish();
}

/// Row 81, row 82: a box that serves nothing to containers can make no app: whoever asks hears that it is
/// not ready, and its sync neither vouches for anything nor removes what is there.
#[test]
fn row_81_a_box_that_is_not_set_up_for_apps_removes_none() {
    let mut lab = Lab::new("cc-unready");
    with_controller(&lab);
    let cc = Cc::start();
    cc.state().apps.insert(GUID.into(), desire(GUID, json!({})));
    lab.serve();
    let mine = json!({
        "process_guid": "mine", "domain": "cf-apps", "rootfs": "preloaded:tiny", "instances": 1,
        "action": { "run": { "path": "sh", "args": ["-c", "exec sleep 100000"], "user": "vcap" } },
        "memory_mb": 32, "disk_mb": 32,
    });
    assert_eq!(socket(&lab, "POST /v1/desired_lrps", &mine.to_string()).status, 201);
    let before = lab.daemon_log().matches("bridge.out_of_step").count();
    again(&mut lab);
    lab.until("it has synced", |lab| {
        (lab.daemon_log().matches("bridge.out_of_step").count() > before).then_some(())
    });
    assert_eq!(guids(&lab), ["mine"]);
    let fresh = socket(&lab, "GET /v1/domains", "").json();
    assert!(!fresh.as_array().expect("a list").contains(&json!("cf-apps")), "{fresh}");
    assert!(lab.daemon_log().contains("set `listen` in [bridge]"), "{}", lab.daemon_log());
    for (line, body) in [
        (format!("PUT /nsync/v1/apps/{GUID}"), desire(GUID, json!({}))),
        ("POST /nsync/v1/tasks".into(), json!({ "task_guid": "t", "lifecycle": "buildpack" })),
    ] {
        let answer = socket(&lab, &line, &body.to_string());
        assert_eq!(answer.status, 503, "{line}: {}", answer.json());
        let why = answer.json()["error"]["message"].as_str().unwrap_or_default().to_owned();
        assert!(why.contains("set `listen` in [bridge]"), "{why}");
    }
    assert_eq!(socket(&lab, "DELETE /v1/desired_lrps/mine", "").status, 204);
    lab.until("it is gone", |lab| (lab.run(&["apps", "--json"]).out.trim() == "[]").then_some(()));
    lab.finish();
}
