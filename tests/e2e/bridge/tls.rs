//! A controller behind TLS.

use super::cc::Cc;
use super::flow::with_controller_at;
use super::{lab, socket};
use crate::lab::{Lab, tool};
use crate::server::certificates;
use nix::sys::signal::Signal;
use serde_json::json;
use std::fs;

const AT: &str = "https://127.0.0.1:9022";

/// It has synced since it was started.
fn is_fresh(lab: &Lab) -> bool {
    socket(lab, "GET /v1/domains", "").json() == json!(["cf-apps", "cf-tasks"])
}

/// Row 81: a controller is believed whose certificate the box's own file for it vouches for, or whom
/// the owner does not want to be checked; another one is told nothing, no password either.
#[test]
fn row_81_a_controller_has_to_prove_who_it_is_unless_it_need_not() {
    let mut lab = lab("cc-tls", "");
    let dir = lab.root.join("tls");
    certificates(&dir);
    let cc = Cc::start_tls(&dir);
    with_controller_at(&lab, AT, "");
    lab.serve();
    lab.until("it says whom it does not believe", |lab| {
        lab.daemon_log().contains("bridge.out_of_step").then_some(())
    });
    assert!(cc.state().got.is_empty() && !is_fresh(&lab), "{}", lab.daemon_log());

    // Its issuer, as for a registry of that name.
    let own = lab.root.join("etc/terrarium/certs.d/127.0.0.1:9022");
    fs::create_dir_all(&own).expect("directory");
    let issuer = dir.join("client/ca.crt");
    tool("cp", &[issuer.to_str().expect("text"), own.join("ca.crt").to_str().expect("text")]);
    lab.end_daemon(Signal::SIGTERM);
    lab.serve();
    lab.until("it has synced", |lab| is_fresh(lab).then_some(()));
    assert!(!cc.heard("GET", "/internal/bulk/apps").is_empty());

    fs::remove_dir_all(&own).expect("no issuer");
    with_controller_at(&lab, AT, "skip_cert_verify = true\n");
    lab.end_daemon(Signal::SIGTERM);
    lab.serve();
    lab.until("it has synced unchecked", |lab| is_fresh(lab).then_some(()));
    lab.finish();
}
