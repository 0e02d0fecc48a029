//! The app's record of 2015 with our own lifecycle archive: nothing of it is a stand-in.

use super::super::docker::text;
use super::super::lab::{BINARY, Lab, get, tool};
use super::super::server::{Registry, Setup};
use super::super::tasks::{ask, of_2015};
use super::client::Client;
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::Command;

/// The archive for images, of the program under test without what only a debugger reads.
fn archive(lab: &Lab, dir: &Path) -> Vec<u8> {
    let program = dir.join("terrarium");
    tool("strip", &["-o", text(&program), BINARY]);
    let make = |name: &str| {
        let file = dir.join(name);
        let mut command = Command::new(&program);
        command.args(["lifecycle", "archive", "docker_app_lifecycle"]).arg(&file);
        command.arg(lab.root.join("usr/lib/terrarium/ssh/dropbearmulti"));
        assert!(command.status().expect("the program").success(), "no archive");
        fs::read(file).expect("archive")
    };
    let once = make("one.tgz");
    assert!(once == make("two.tgz"), "the same programs give another archive");
    once
}

/// A pair as nsync makes it: RSA of 1024 bits, PKCS#1. Gives the private and the public text.
fn rsa(lab: &Lab, name: &str) -> (String, String) {
    let file = lab.root.join("client").join(name);
    let kind = ["-q", "-t", "rsa", "-b", "1024", "-m", "PEM", "-N", "", "-f", text(&file)];
    tool("ssh-keygen", &kind);
    let read = |path: &Path| fs::read_to_string(path).expect("a key");
    (read(&file), read(&file.with_extension("pub")))
}

/// Row 1, row 43, row 44, row 59, row 77: the record, as it stands: setup downloads the archive, launcher and
/// sshd run side by side, healthcheck is the monitor, ssh answers at its port; with keys as the
/// cloud controller's bridge makes them, who has the private one comes in.
#[test]
fn row_44_the_record_of_2015_runs_whole_and_is_come_into() {
    let mut lab = Lab::new("ssh-record");
    of_2015::configure(&lab);
    let dir = lab.root.join("fixtures");
    fs::create_dir_all(&dir).expect("directory");
    Client::key(&lab, "me");
    of_2015::serve(archive(&lab, &dir));
    lab.serve();
    let registry = Registry::start(&dir, Setup::Plain);
    of_2015::push_tomcat(&dir);
    let mut record: Value = serde_json::from_str(of_2015::LRP).expect("JSON");
    let path = format!("/v1/containers/{}", record["guid"].as_str().expect("a guid"));
    let run = |lab: &Lab, record: &Value| {
        let (status, failures) = ask(lab, "POST", "/v1/containers", &format!("[{record}]"));
        assert_eq!((status, failures.to_string().as_str()), (201, "{}"));
        lab.until("it runs", |lab| {
            let (_, shown) = ask(lab, "GET", &path, "");
            (shown["state"] == "running").then_some(shown)
        })
    };
    let port = |shown: &Value, n: usize| shown["ports"][n]["host_port"].as_u64().expect("a port");

    // Nobody here has the key that it names; its own host key is a fresh one each time.
    let shown = run(&lab, &record);
    assert_eq!(get("127.0.0.1", port(&shown, 0)).as_deref(), Some("it works\n"));
    let ssh = Client::who_knows(&lab, port(&shown, 1), "");
    let fresh =
        lab.until("its server answers", |_| Some(ssh.scanned()).filter(|key| !key.is_empty()));
    let refused = Client::who_knows(&lab, port(&shown, 1), &fresh).run("true");
    assert!(refused.err.contains("Permission denied (publickey)"), "{}", refused.err);
    assert_eq!(ask(&lab, "DELETE", &path, "").0, 200);

    let (host, host_line) = rsa(&lab, "host");
    let (_, user_line) = rsa(&lab, "nsync");
    let args = &mut record["run"]["codependent"]["actions"][1]["run"]["args"];
    args[1] = format!("-hostKey={host}").into();
    args[2] = format!("-authorizedKey={user_line}").into();
    let shown = run(&lab, &record);
    let words: Vec<&str> = host_line.split(' ').take(2).collect();
    let ssh = Client::who_knows(&lab, port(&shown, 1), words.join(" ").trim()).as_key("nsync");
    let ran = lab.until("its server answers", |_| {
        let ran = ssh.run("id -u; pwd; echo $VCAP_SERVICES $INSTANCE_GUID; exit 4");
        (!ran.err.contains("refused")).then_some(ran)
    });
    let want = "0\n/\n{} fc4a83cd-5ed9-40fb-51bf-1679beb41bfe\n";
    assert_eq!((ran.code, ran.out.as_str()), (4, want), "{}", ran.err);
    fs::write(dir.join("up"), "up").expect("file");
    ssh.scp(&[text(&dir.join("up")), "box:/tmp/up"]);
    assert_eq!(ssh.run("cat /tmp/up").out, "up");
    assert_eq!(ask(&lab, "DELETE", &path, "").0, 200);
    registry.stop();
    lab.assert_empty();
    lab.finish();
}
