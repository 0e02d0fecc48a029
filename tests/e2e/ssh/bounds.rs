//! What the manifest does not allow of SSH.

use super::client::Client;
use crate::lab::{Lab, get};

/// Row 77: ports are refused in both directions where the manifest says so, and what is idle is closed.
#[test]
fn row_77_ports_are_refused_and_idle_connections_closed_where_the_manifest_says_so() {
    let lab = Lab::start("ssh-bounds");
    let key = Client::key(&lab, "me");
    let more = "forwarding = false\nidle_timeout = \"5s\"\n";
    lab.ok(&["apply", &super::serving(&lab, "web", &key, more)]);
    let view = lab.until_state("web", "running");
    let ssh = Client::new(&lab, &view["ssh"]);
    assert_eq!(ssh.run("echo in").out, "in\n");
    let ran = ssh.option("-W").option("127.0.0.1:8080").run("");
    assert_ne!(ran.code, 0);
    assert!(ran.err.contains("forwarding failed"), "{}", ran.err);
    assert!(get("127.0.0.1", 8000).is_some(), "the app itself answers");
    let ran =
        ssh.option("-R").option("7002:127.0.0.1:8000").run("wget -qO- http://127.0.0.1:7002/");
    assert!(!ran.out.contains("instance 0"), "{}{}", ran.out, ran.err);
    // It would go on for ever.
    let ran = ssh.run("echo begun; exec sleep 100000");
    assert_eq!((ran.code, ran.out.as_str()), (255, "begun\n"), "{}", ran.err);
    lab.finish();
}
