//! The two container records that a cell of 2015 logged, as they stand.

mod world;

use super::super::docker::{image, mode, text};
use super::super::lab::{BINARY, Lab, get, tool};
use super::super::server::{Registry, Setup};
use super::{ask, until};
use serde_json::Value;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use world::{AROUND, HOLD, Outside, assert_limits, told_of};

const TASK: &str = include_str!("../../fixtures/container-task.json");
pub(crate) const LRP: &str = include_str!("../../fixtures/container-lrp.json");

/// The cell's file server, under the name that the records have for it.
const FILE_SERVER: &str = "file-server.service.cf.internal";

/// Finds that name at loopback, for everybody who sees this test's mounts.
fn name_the_file_server(lab: &Lab) {
    let hosts = lab.root.join("hosts");
    fs::write(&hosts, format!("127.0.0.1 localhost {FILE_SERVER}\n")).expect("hosts");
    let bind = nix::mount::MsFlags::MS_BIND;
    nix::mount::mount(Some(&hosts), "/etc/hosts", None::<&str>, bind, None::<&str>)
        .expect("hosts of the test's own");
}

/// Serves the archive at the path that both records name, for as long as the test runs.
pub(crate) fn serve(archive: Vec<u8>) {
    let listener = TcpListener::bind("127.0.0.1:8080").expect("the file server's port");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut head = String::new();
            let mut reader = BufReader::new(stream.try_clone().expect("the same stream"));
            while !head.ends_with("\r\n\r\n") && reader.read_line(&mut head).is_ok_and(|n| n > 0) {}
            let path = "/v1/static/docker_app_lifecycle/docker_app_lifecycle.tgz";
            let known = head.starts_with(&format!("GET {path} "));
            let is_same = head.to_ascii_lowercase().contains("if-none-match: \"one\"");
            let (status, body) = match (known, is_same) {
                (true, true) => ("304 same", &[][..]),
                (true, false) => ("200 ok", &archive[..]),
                (false, _) => ("404 none", &[][..]),
            };
            let length = body.len();
            let answer =
                format!("HTTP/1.1 {status}\r\nETag: \"one\"\r\nContent-Length: {length}\r\n\r\n");
            let _ = stream.write_all(answer.as_bytes()).and_then(|()| stream.write_all(body));
        }
    });
}

/// A docker lifecycle: our own program in the roles of launcher and healthcheck, a builder that
/// finds nothing out, and something that listens where sshd would.
fn lifecycle(dir: &Path) -> Vec<u8> {
    let root = dir.join("lifecycle");
    fs::create_dir_all(&root).expect("directory");
    let program = root.join("terrarium");
    tool("strip", &["-o", text(&program), BINARY]);
    for role in ["docker-launcher", "healthcheck"] {
        std::os::unix::fs::symlink("terrarium", root.join(role)).expect("link");
    }
    // What is looked at from outside is asked for with the limits of the record itself.
    let (over, fits) = TASK_DISK;
    let builder = format!(
        "test \"$1$3\" = -outputMetadataJSONFilename-dockerRef || exit 2\n\
         echo \"building $4 on $CF_STACK as $(id -un) with $(ulimit -n) files\"\n\
         sh \"${{0%/*}}/around\" {over} {fits}\n{HOLD}\n\
         mkdir -p \"$(dirname \"$2\")\" && echo '{{\"docker_image\":\"'$4'\"}}' > \"$2\""
    );
    for (name, script) in [
        ("around", AROUND),
        ("launcher", "exec /tmp/lifecycle/docker-launcher \"$@\""),
        (
            "diego-sshd",
            "echo \"sshd $1 with $(ulimit -n) files\"; exec /bin/busybox httpd -f -p 2222 -h /srv",
        ),
        ("builder", &builder),
    ] {
        fs::write(root.join(name), format!("#!/bin/sh\n{script}\n")).expect("script");
        fs::set_permissions(root.join(name), mode(0o755)).expect("mode");
    }
    let archive = dir.join("lifecycle.tgz");
    tool("tar", &["-C", text(&root), "-czf", text(&archive), "."]);
    fs::read(archive).expect("archive")
}

/// tutum/tomcat:8.0, as far as the record wants it: /run.sh, which listens at 8080.
pub(crate) fn push_tomcat(dir: &Path) {
    let fill = |root: &Path| {
        super::super::docker::fill(root);
        let script = "#!/bin/sh\necho \"tomcat of $INSTANCE_GUID/$CF_INSTANCE_INDEX $GREETING $(ulimit -n)\"\n\
                      echo it works > /tmp/index.html\n\
                      exec /bin/busybox httpd -f -p 8080 -h /tmp\n";
        fs::write(root.join("run.sh"), script).expect("write");
        fs::set_permissions(root.join("run.sh"), mode(0o755)).expect("mode");
    };
    let how = ["--config.env", "GREETING=hello", "--config.cmd", "/run.sh"];
    let layout = image(dir, fill, &how);
    let from = format!("oci:{}:one", text(&layout));
    let to = "docker://127.0.0.1:5000/tutum/tomcat:8.0";
    tool("skopeo", &["--insecure-policy", "copy", "-q", "--dest-tls-verify=false", &from, to]);
}

/// More than the disk of the record, and as much less as what was downloaded leaves, in bytes.
const TASK_DISK: (u64, u64) = (6145 << 20, 5900 << 20);
const LRP_DISK: (u64, u64) = (1025 << 20, 900 << 20);

fn lab(name: &str) -> (Lab, PathBuf) {
    let mut lab = Lab::new(name);
    configure(&lab);
    let dir = lab.root.join("fixtures");
    fs::create_dir_all(&dir).expect("directory");
    serve(lifecycle(&dir));
    lab.serve();
    (lab, dir)
}

/// What the records have to find on the box: their stack, their registry, their file server.
pub(crate) fn configure(lab: &Lab) {
    lab.configure(
        "of-2015",
        "[cell]\nrootfs = [\"tiny:/var/vcap/packages/rootfs_cflinuxfs2/rootfs\"]\n\n\
         [store]\nsize_max = \"12GiB\"\n\n\
         [registry]\ninsecure = [\"127.0.0.0/8\"]\nmirrors = [\"docker.io=127.0.0.1:5000\"]\n\
         mirrors_tell_tags = true\n",
    );
    name_the_file_server(lab);
}

/// Fails unless these are in the text, one after the other.
#[track_caller]
fn in_order(text: &str, parts: &[&str]) {
    let mut rest = text;
    for part in parts {
        let at = rest.find(part);
        let at = at.unwrap_or_else(|| panic!("`{part}` is not where it should be:\n{text}"));
        rest = &rest[at + part.len()..];
    }
}

/// Fails unless a container is shown with the tags and limits of its record.
#[track_caller]
fn assert_as_asked(shown: &Value, record: &str) {
    let record: Value = serde_json::from_str(record).expect("JSON");
    assert!(record["tags"].as_object().is_some_and(|tags| tags.len() >= 3));
    for field in ["tags", "memory_mb", "disk_mb", "cpu_weight", "privileged", "egress_rules"] {
        assert_eq!(shown[field], record[field], "{field}");
    }
}

fn guid_of(record: &str) -> String {
    let record: Value = serde_json::from_str(record).expect("JSON");
    record["guid"].as_str().expect("a guid").to_owned()
}

/// Row 1, row 5, row 34, row 43: the staging task's record, posted as it stands, runs: the archive
/// from the named server, the builder as vcap on the stack that the path means, its lines in their
/// order, and its file as the result.
#[test]
fn row_1_the_task_record_of_2015_runs_as_it_stands() {
    let (lab, _) = lab("task2015");
    let mut outside = Outside::new(&lab, "task2015");
    let (status, err) = ask(&lab, "POST", "/v1/containers", TASK);
    assert_eq!(status, 201, "{err}");
    let guid = guid_of(TASK);
    let (status, err) = ask(&lab, "POST", "/v1/containers", TASK);
    assert_eq!((status, &err["name"]), (409, &"ContainerGuidNotAvailable".into()));
    let running = until(&lab, &guid, "RUNNING");
    let name = running["log_name"].as_str().expect("a log").to_owned();
    let (over, fits) = TASK_DISK;
    let told = told_of(fits, over);
    lab.until("it has looked around", |lab| lab.logged(&name, told.last()?).pop());
    assert_limits(&lab, 1024, 1024);
    outside.let_go();
    let task = until(&lab, &guid, "COMPLETED");
    let lines = lab.ok(&["logs", &name, "-n", "1000"]).out;
    assert_eq!(task["failed"], false, "{task}\n{lines}");
    assert_eq!(task["result"], "{\"docker_image\":\"tutum/tomcat:8.0\"}\n");
    in_order(
        &lines,
        &[
            "[CELL/0] OUT Cell creating container for instance c181be6b",
            // It asks to be the box's own root, which nobody is.
            "[CELL/0] ERR Cell runs it unprivileged, though the record asks for `privileged`",
            "[CELL/0] OUT Cell successfully created container for instance c181be6b",
            "[STG/0] OUT Staging...",
            "[STG/0] OUT building tutum/tomcat:8.0 on cflinuxfs2 as vcap with 16384 files",
            &told[0],
            &told[1],
            &told[2],
            &told[3],
            &told[4],
            &told[5],
            &told[6],
            "[STG/0] OUT Exit status 0",
            "[STG/0] OUT Staging Complete",
            "[CELL/0] OUT Cell destroying container for instance c181be6b",
        ],
    );
    let (status, shown) = ask(&lab, "GET", &format!("/v1/containers/{guid}"), "");
    assert_eq!((status, &shown["state"]), (200, &"completed".into()));
    assert_as_asked(&shown, TASK);
    assert_eq!(shown["run_result"]["failed"], false);
    assert_eq!(ask(&lab, "DELETE", &format!("/v1/containers/{guid}"), "").0, 200);
    let (status, err) = ask(&lab, "GET", &format!("/v1/containers/{guid}"), "");
    assert_eq!((status, &err["name"]), (404, &"ContainerNotFound".into()));
    drop(outside);
    lab.finish();
}

/// Row 43, row 44, row 59, row 16: the app's record, posted as it stands, runs: the image of the hub
/// from its mirror, the archive before all else, launcher and sshd side by side, healthy by its own
/// monitor; it outlives the daemon, is started again when it ends, and goes when it is deleted.
#[test]
fn row_44_the_lrp_record_of_2015_runs_as_it_stands() {
    let (mut lab, dir) = lab("lrp2015");
    let outside = Outside::new(&lab, "lrp2015");
    let registry = Registry::start(&dir, Setup::Plain);
    push_tomcat(&dir);
    let list = format!("[{LRP}]");
    let (status, failures) = ask(&lab, "POST", "/v1/containers", &list);
    assert_eq!((status, failures.to_string().as_str()), (201, "{}"));
    let guid = guid_of(LRP);
    let path = format!("/v1/containers/{guid}");
    let running = |lab: &Lab| {
        let (_, shown) = ask(lab, "GET", &path, "");
        (shown["state"] == "running").then_some(shown)
    };
    let shown = lab.until("it runs", running);
    let name = shown["log_name"].as_str().expect("its app").to_owned();
    let port = |shown: &Value, n: usize| {
        shown["ports"][n]["host_port"].as_u64().expect("a port of the box")
    };
    assert_eq!(
        (&shown["ports"][0]["container_port"], shown["ports"].as_array().map(Vec::len)),
        (&8080.into(), Some(2))
    );
    assert_eq!(get("127.0.0.1", port(&shown, 0)).as_deref(), Some("it works\n"));
    assert!(get("127.0.0.1", port(&shown, 1)).is_some(), "sshd's port leads to it");
    // What names the instance is the record's own; what the image says is there, too.
    let own = "[APP/0] OUT tomcat of fc4a83cd-5ed9-40fb-51bf-1679beb41bfe/0 hello 16384";
    let sshd = "[CELL/0] OUT sshd -address=0.0.0.0:2222 with 16384 files";
    lab.until("sshd's line has come", |lab| lab.logged(&name, sshd).pop());
    assert_as_asked(&shown, LRP);
    assert_limits(&lab, 256, 10);
    assert_reach(&lab, &name);
    let app = lab.view(&name);
    assert_eq!((&app["state"], &app["image"].is_string()), (&"running".into(), &true));
    let handle = |lab: &Lab| lab.instance(&name, 0)["handle"].clone();
    let before = handle(&lab);
    lab.end_daemon(nix::sys::signal::Signal::SIGKILL);
    lab.serve();
    lab.until("it is taken over", running);
    assert_eq!(handle(&lab), before, "the same container");
    // Its end is a crash like any other's.
    lab.inside(&name, "kill -9 -1");
    lab.until("another one runs", |lab| {
        (running(lab).is_some() && handle(lab) != before).then_some(())
    });
    for line in ["Container became healthy", own, sshd] {
        lab.until("it has told as much", |lab| (lab.logged(&name, line).len() == 2).then_some(()));
    }
    // A stopped one has ended in order, and its log stays.
    assert_eq!(ask(&lab, "POST", &format!("{path}/stop"), "").0, 202);
    let gone = "[CELL/0] OUT Cell successfully destroyed container for instance";
    lab.until("both are gone", |lab| (lab.logged(&name, gone).len() == 2).then_some(()));
    let shown = lab.until("it has completed", |lab| {
        let (_, shown) = ask(lab, "GET", &path, "");
        (shown["state"] == "completed").then_some(shown)
    });
    assert_eq!(shown["run_result"]["stopped"], true, "{shown}");
    assert_told(&lab.ok(&["logs", &name, "-n", "1000"]).out, own, sshd);
    assert_eq!(ask(&lab, "DELETE", &path, "").0, 200);
    assert_eq!(ask(&lab, "GET", &path, "").0, 404);
    registry.stop();
    drop(outside);
    lab.assert_empty();
    lab.finish();
}

/// Fails unless a container of the app's record reaches what its rules open, is refused the rest,
/// and has the record's disk.
#[track_caller]
fn assert_reach(lab: &Lab, name: &str) {
    let (over, fits) = LRP_DISK;
    let around = lab.inside(name, &format!("sh /tmp/lifecycle/around {over} {fits}"));
    let told = told_of(fits, over);
    in_order(&around.out, &told.iter().map(String::as_str).collect::<Vec<_>>());
}

/// Fails unless the log tells both lives of the app's record in order: `own` line of the app and
/// that of `sshd`, healthy, killed from inside; the same, and stopped.
#[track_caller]
fn assert_told(lines: &str, own: &str, sshd: &str) {
    let made = "[CELL/0] OUT Cell creating container for instance";
    let well = "[CELL/0] OUT Cell successfully created container for instance";
    let monitored = "Starting health monitoring of container";
    let healthy = "[CELL/0] OUT Container became healthy";
    let (killed, asked) = ("[APP/0] OUT Exit status 137", "[APP/0] OUT Exit status 143");
    let stopping = "[CELL/0] OUT Cell stopping instance";
    let going = "[CELL/0] OUT Cell destroying container for instance";
    let gone = "[CELL/0] OUT Cell successfully destroyed container for instance";
    let first = [made, well, own, healthy, killed, going, gone];
    let second = [made, well, own, healthy, stopping, asked, going, gone];
    in_order(lines, &[&first[..], &second].concat());
    in_order(lines, &[well, monitored, healthy, gone, well, monitored, healthy, gone]);
    // Side by side with it.
    let ended = "[CELL/0] OUT Exit status";
    in_order(lines, &[well, sshd, ended, going, gone, well, sshd, ended, going, gone]);
}
