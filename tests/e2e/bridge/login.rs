//! Who may log in to a controller's app, with Debian's OpenSSH client.

use super::cc::{self, Cc};
use super::flow::{desire, states, with_controller};
use super::{GUID, lab, packed, port, socket};
use crate::lab::tool;
use crate::ssh::client::Client;
use serde_json::json;
use std::fs;
use std::os::unix::fs::PermissionsExt;

/// Row 77, row 82: an app with `allow_ssh` has a server beside it, and its route `diego-ssh` all that a
/// proxy needs: the port, the key to come in with, the fingerprint of whom it meets.
#[test]
fn row_77_the_route_of_an_app_leads_an_ssh_client_in() {
    let mut lab = lab("cc-ssh", "");
    with_controller(&lab);
    let cc = Cc::start();
    // The archive that the box makes has the SSH server in it; that of the other tests has none.
    fs::remove_dir_all(lab.root.join("usr/lib/terrarium/files")).expect("no other archive");
    Client::key(&lab, "me");
    let src = lab.root.join("src/droplet");
    fs::create_dir_all(src.join("app")).expect("directory");
    fs::write(src.join("app/app.sh"), crate::WEB).expect("script");
    cc.state().files.insert("/droplet.tgz".into(), packed(&src));
    lab.serve();

    let wanted = desire(GUID, json!({ "allow_ssh": true, "disk_mb": 512 }));
    cc.state().apps.insert(GUID.into(), wanted.clone());
    let answer = port(&lab, &format!("PUT /v1/apps/{GUID}"), &[], wanted.to_string().as_bytes());
    assert_eq!(answer.status, 202, "{}", answer.json());
    lab.until("it runs", |lab| (states(lab, GUID) == ["RUNNING"]).then_some(()));

    let shown = socket(&lab, &format!("GET /receptor/v1/desired_lrps/{GUID}"), "").json();
    let route = &shown["routes"]["diego-ssh"];
    assert_eq!(route["container_port"], 2222, "{shown}");
    let key = lab.root.join("client/proxy");
    fs::write(&key, route["private_key"].as_str().expect("a key")).expect("key");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).expect("mode");
    let actual = socket(&lab, &format!("GET /receptor/v1/actual_lrps/{GUID}/index/0"), "").json();
    let ports = actual["ports"].as_array().expect("ports");
    let ours = ports.iter().find(|it| it["container_port"] == 2222).expect("the server's port");
    let at = ours["host_port"].as_u64().expect("a port");

    // It is the server that the route says, and lets in who has the route's key, and nobody else.
    let stranger = Client::who_knows(&lab, at, "");
    let host =
        lab.until("its server answers", |_| Some(stranger.scanned()).filter(|it| !it.is_empty()));
    let line = lab.root.join("client/host.pub");
    fs::write(&line, format!("{host}\n")).expect("key");
    let told = tool("ssh-keygen", &["-E", "md5", "-lf", line.to_str().expect("text")]);
    let fingerprint = route["host_fingerprint"].as_str().expect("a fingerprint");
    assert!(told.contains(fingerprint), "{told} {fingerprint}");
    let ssh = Client::who_knows(&lab, at, &host);
    let ran = ssh.as_key("proxy").run("id -un; cat app.sh | wc -l; exit 5");
    assert_eq!(ran.code, 5, "{}", ran.err);
    assert!(ran.out.starts_with("vcap\n"), "{}", ran.out);
    let ran = ssh.run("true");
    assert!(ran.err.contains("Permission denied (publickey)"), "{}", ran.err);
    // Of its keys nothing goes with a change that does not name them.
    let more = desire(GUID, json!({ "allow_ssh": true, "disk_mb": 512, "etag": "2" }));
    cc.state().apps.insert(GUID.into(), more.clone());
    assert_eq!(
        port(&lab, &format!("PUT /v1/apps/{GUID}"), &[], more.to_string().as_bytes()).status,
        202
    );
    let again = socket(&lab, &format!("GET /receptor/v1/desired_lrps/{GUID}"), "").json();
    assert_eq!(again["routes"]["diego-ssh"], *route, "{again}");
    assert_eq!(again["annotation"], "2");
    cc.state().apps.remove(GUID);
    assert_eq!(port(&lab, &format!("DELETE /v1/apps/{GUID}"), &[], b"").status, 202);
    lab.until("it is gone", |lab| (lab.run(&["apps", "--json"]).out.trim() == "[]").then_some(()));
    assert!(cc.heard("POST", &format!("/internal/apps/{GUID}/crashed")).is_empty(), "{}", cc::AT);
    lab.finish();
}
