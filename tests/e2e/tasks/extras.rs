//! What records ask for besides root, limits and actions.

use super::super::docker::{fill, image, text};
use super::super::lab::{Lab, tool};
use super::super::server::{Registry, Setup};
use super::{ask, log, post, task, try_ask_text, until};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

/// What was answered, by path and status.
type Told = Arc<Mutex<Vec<(String, u16)>>>;

/// Serves one archive at every path for as long as the test runs. Where, and what it answers.
fn serve(archive: Vec<u8>) -> (String, Told) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
    let at = format!("http://{}", listener.local_addr().expect("address"));
    let told = Told::default();
    let list = told.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut head = String::new();
            let mut reader = BufReader::new(stream.try_clone().expect("the same stream"));
            while !head.ends_with("\r\n\r\n") && reader.read_line(&mut head).is_ok_and(|n| n > 0) {}
            let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
            let known = head.to_ascii_lowercase().contains("if-none-match: \"one\"");
            let (status, body) = if known { (304, &[][..]) } else { (200, &archive[..]) };
            list.lock().expect("the list").push((path, status));
            let answer = format!(
                "HTTP/1.1 {status} x\r\nETag: \"one\"\r\nContent-Length: {}\r\n\r\n",
                body.len()
            );
            let _ = stream.write_all(answer.as_bytes()).and_then(|()| stream.write_all(body));
        }
    });
    (at, told)
}

/// A tar with `tool`, a text.
fn archive(lab: &Lab) -> Vec<u8> {
    let dir = lab.root.join("archive");
    fs::create_dir_all(&dir).expect("directory");
    fs::write(dir.join("tool"), "unpacked\n").expect("file");
    let tar = lab.root.join("archive.tgz");
    tool("tar", &["-C", text(&dir), "-czf", text(&tar), "."]);
    fs::read(tar).expect("archive")
}

/// A box that gives away `srv/data`, and tries Tasks again every second.
fn lab(name: &str) -> Lab {
    let mut lab = Lab::new(name);
    let srv = lab.root.join("srv");
    fs::create_dir_all(srv.join("data")).expect("directory");
    fs::set_permissions(srv.join("data"), fs::Permissions::from_mode(0o777)).expect("mode");
    fs::write(srv.join("data/in"), "of the box\n").expect("file");
    lab.configure(
        "records",
        &format!(
            "[cell]\nvolumes = [\"{}\"]\nplacement_tags = [\"edge\"]\n\
             optional_placement_tags = [\"gpu\"]\n\n[tasks]\nretry_interval = \"1s\"\n\n\
             [registry]\ninsecure = [\"127.0.0.0/8\"]\n",
            srv.display()
        ),
    );
    lab.serve();
    lab
}

/// Everything that a record may ask for at once.
fn wishes(at: &str, volume: Value) -> Value {
    let layer = |kind: &str, to: &str, digest: &str| {
        let name = if digest.is_empty() { "" } else { "SHA256" };
        json!({ "name": kind.to_lowercase(), "url": format!("{at}/{kind}"), "layer_type": kind,
            "destination_path": to, "media_type": "TGZ", "digest_algorithm": name,
            "digest_value": digest })
    };
    let digest = volume["digest"].as_str().expect("a digest").to_owned();
    json!({
        "placement_tags": ["edge"],
        "cached_dependencies": [{ "name": "dep", "from": format!("{at}/dep"), "to": "/opt/dep",
            "cache_key": "dep", "log_source": "DEP" }],
        "image_layers": [layer("SHARED", "/opt/shared", ""), layer("EXCLUSIVE", "/home/vcap/own", &digest)],
        "volume_mounts": [
            { "driver": "local", "container_dir": "/mnt/rw", "mode": "rw",
                "shared": { "volume_id": "data", "mount_config": "" } },
            { "driver": "local", "container_dir": "/mnt/ro", "mode": "r",
                "shared": { "volume_id": "x", "mount_config": volume["config"].to_string() } }],
        "volume_mounted_files": [{ "path": "db/password", "content": "correct horse" }],
        "trusted_system_certificates_path": "/etc/trust",
        "log_rate_limit": { "bytes_per_second": 1_000_000 },
        "metric_tags": { "team": { "static": "edge" }, "who": { "dynamic": "INSTANCE_GUID" } },
        "network": { "properties": { "policy_group_id": "x" } },
    })
}

const LOOK: &str = "cat /opt/dep/tool /opt/shared/tool /home/vcap/own/tool /mnt/ro/in \
                    /etc/cf-service-bindings/db/password; echo; \
                    echo x > /opt/dep/x || echo x > /opt/shared/x || echo x > /mnt/ro/x || echo closed; \
                    echo y >> /home/vcap/own/tool && echo z >> /mnt/rw/out && echo open; \
                    test -s $CF_SYSTEM_CERT_PATH/trusted-ca-1.crt && echo $CF_SYSTEM_CERT_PATH";
const SEEN: [&str; 5] = ["unpacked", "of the box", "correct horse", "closed", "open"];

/// Row 51, row 40: dependencies and layers. Row 63: directories of the box. Row 64: files of service
/// bindings. Row 60: certificates. Row 24: the cell's own tags. Of a Task and of an LRP.
#[test]
fn row_51_row_63_row_64_a_record_gets_what_it_asks_for() {
    let lab = lab("extras");
    let archive = archive(&lab);
    let digest = tool("sha256sum", &[text(&lab.root.join("archive.tgz"))]);
    let digest = digest.split(' ').next().expect("a digest").to_owned();
    let (at, told) = serve(archive);
    let config = json!({ "source": lab.root.join("srv/data") });
    let mut wishes = wishes(&at, json!({ "digest": digest, "config": config }));
    post(&lab, &task("extras", LOOK, wishes.clone()));
    let done = until(&lab, "extras", "COMPLETED");
    let lines = log(&lab, &done);
    assert_eq!(done["failed"], false, "{done}\n{lines}");
    for text in SEEN.iter().chain(&["OUT /etc/trust"]) {
        assert!(lines.contains(text), "{text}: {lines}");
    }
    assert_eq!(lines.matches("OUT unpacked").count(), 3, "{lines}");
    assert!(lines.contains("[DEP/0] OUT Downloading dep..."), "{lines}");
    assert!(lines.contains("does not heed these fields of the record: network"), "{lines}");
    assert_eq!(fs::read_to_string(lab.root.join("srv/data/out")).expect("written"), "z\n");
    assert!(done["volume_mounted_files"][0]["content"].is_null(), "{done}");
    // The same of an LRP; what is here is only asked about.
    told.lock().expect("the list").clear();
    let run =
        |script: &str| json!({ "run": { "path": "sh", "args": ["-c", script], "user": "vcap" } });
    let record = wishes.as_object_mut().expect("an object");
    let own = json!({ "guid": "lrp", "rootfs": "preloaded:tiny", "memory_mb": 64, "disk_mb": 64,
        "tags": { "lifecycle": "lrp", "domain": "d" }, "log_config": { "guid": "lrp" },
        "run": run(&format!("{LOOK}; exec sleep 1000")) });
    record.extend(own.as_object().cloned().expect("an object"));
    let (status, err) = ask(&lab, "POST", "/v1/containers", &json!(record).to_string());
    assert_eq!(status, 201, "{err}");
    let running = lab.until("it runs", |lab| {
        let (_, shown) = ask(lab, "GET", "/v1/containers/lrp", "");
        (shown["state"] == "running").then_some(shown)
    });
    let name = running["log_name"].as_str().expect("a log").to_owned();
    lab.until("it has looked", |lab| {
        (!lab.logged(&name, "OUT /etc/trust").is_empty()).then_some(())
    });
    let lines = lab.ok(&["logs", &name, "-n", "1000"]).out;
    assert!(SEEN.iter().all(|text| lines.contains(text)), "{lines}");
    let told = told.lock().expect("the list").clone();
    assert!(told.iter().all(|(_, status)| *status == 304) && told.len() == 3, "{told:?}");
    // Its labels are those of its figures.
    let (_, figures) = try_ask_text(&lab, "GET", "/metrics", "").expect("figures");
    let labels = "team=\"edge\",who=\"";
    assert!(figures.lines().any(|it| it.starts_with("terrarium_app_pids{") && it.contains(labels)));
    assert_eq!(ask(&lab, "DELETE", "/v1/containers/lrp", "").0, 200);
    // One that does not come is told in Diego's words, and is no failure to make a container.
    record.insert("guid".into(), "without".into());
    record["log_config"]["guid"] = "without".into();
    record["cached_dependencies"][0]["cache_key"] = "".into();
    assert_eq!(ask(&lab, "POST", "/v1/containers", &json!(record).to_string()).0, 201);
    lab.until("it says why not", |lab| {
        let (_, shown) = ask(lab, "GET", "/v1/containers/without", "");
        let name = shown["log_name"].as_str()?;
        let why =
            "crashed: failed to download cached artifacts: Not cacheable directory: cache key";
        lab.logged(name, why).pop()
    });
    assert_eq!(ask(&lab, "DELETE", "/v1/containers/without", "").0, 200);
    lab.assert_empty();
    lab.finish();
}

/// Row 3: three rejections, each seen, and then it has failed with the last reason. Row 22, row 24,
/// row 63: what this cell is not, by name.
#[test]
fn row_3_row_22_three_rejections_and_then_it_has_failed() {
    let lab = lab("thrice");
    let mount = json!([{ "driver": "nfs", "container_dir": "/x", "mode": "r",
        "shared": { "volume_id": "x" } }]);
    let gone = json!([{ "driver": "local", "container_dir": "/x", "mode": "r",
        "shared": { "volume_id": "nowhere" } }]);
    let edge = |rest: Value| {
        let mut all = json!({ "placement_tags": ["edge"] });
        let rest = rest.as_object().cloned().expect("an object");
        all.as_object_mut().expect("an object").extend(rest);
        all
    };
    let wrong = [
        (
            "stack",
            edge(json!({ "rootfs": "preloaded:lucid64" })),
            "found no compatible cell for required rootfs: stack `lucid64` is not on this box",
        ),
        ("untagged", json!({}), "found no compatible cell with no placement tags"),
        (
            "tagged",
            json!({ "placement_tags": ["edge", "moon"] }),
            "found no compatible cell with placement tags \"edge\" and \"moon\"",
        ),
        (
            "driver",
            edge(json!({ "volume_mounts": mount })),
            "found no compatible cell with required volume drivers: nfs; this box has `local`",
        ),
        ("volume", edge(json!({ "volume_mounts": gone })), "failed to mount volume, errors: "),
        (
            "image",
            edge(json!({ "rootfs": "docker://127.0.0.1:1/none#1" })),
            "failed to create container: ",
        ),
    ];
    for (guid, rest, _) in &wrong {
        post(&lab, &task(guid, "echo never", rest.clone()));
    }
    // All at once: each is tried again when its own second is over.
    let mut seen: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    let all = lab.until("all have failed", |lab| {
        let (_, all) = ask(lab, "GET", "/v1/tasks", "");
        let all = all.as_array().expect("a list").clone();
        for task in &all {
            let guid = task["task_guid"].as_str().expect("a guid");
            let count = task["rejection_count"].as_u64().expect("a count");
            seen.entry(guid.to_owned()).or_default().push(count);
            let (_, _, why) = wrong.iter().find(|it| it.0 == guid).expect("one of them");
            let reason = task["rejection_reason"].as_str().unwrap_or_default();
            assert!(count == 0 || reason.starts_with(why), "{guid}: {reason}");
        }
        all.iter().all(|task| task["state"] == "COMPLETED").then_some(all)
    });
    assert_eq!(all.len(), wrong.len());
    for (guid, _, why) in wrong {
        let ended = all.iter().find(|task| task["task_guid"] == guid).expect("it is there");
        let seen = &seen[guid];
        assert!([1, 2, 3].iter().all(|count| seen.contains(count)), "{guid}: {seen:?}");
        assert_eq!(ended["failed"], true, "{ended}");
        let reason = ended["failure_reason"].as_str().expect("a reason");
        assert!(reason.starts_with(why), "{guid}: {reason}");
        assert!(!log(&lab, ended).contains("OUT never"), "{guid}");
    }
    lab.assert_empty();
    lab.finish();
}

/// Row 1: who fetches an image is told to its registry, and is neither shown, logged nor on the disk.
#[test]
fn row_1_an_images_login_is_for_its_registry_alone() {
    let mut lab = lab("login");
    let dir = lab.root.join("registry");
    fs::create_dir_all(&dir).expect("directory");
    let registry = Registry::start(&dir, Setup::Basic);
    let layout = image(&dir, fill, &[]);
    let from = format!("oci:{}:one", text(&layout));
    let to = "docker://127.0.0.1:5000/ops/app:1";
    tool(
        "skopeo",
        &[
            "--insecure-policy",
            "copy",
            "-q",
            "--dest-tls-verify=false",
            "--dest-creds=ann:secret",
            &from,
            to,
        ],
    );
    let run =
        json!({ "run": { "path": "sh", "args": ["-c", "echo in an image"], "user": "root" } });
    let asked = |user: &str, password: &str| {
        json!({ "action": run, "rootfs": "docker://127.0.0.1:5000/ops/app#1", "disk_mb": 128,
            "placement_tags": ["edge"], "image_username": user, "image_password": password })
    };
    post(&lab, &task("wrong", "true", asked("ann", "battery-staple")));
    let wrong = until(&lab, "wrong", "COMPLETED");
    let why = wrong["failure_reason"].as_str().expect("a reason");
    assert!(why.starts_with("failed to create container: "), "{why}");
    post(&lab, &task("right", "", asked("ann", "secret")));
    let right = until(&lab, "right", "COMPLETED");
    assert_eq!(right["failed"], false, "{right}");
    assert!(log(&lab, &right).contains("in an image"));
    // One that waits while the daemon is killed has lost it, and says so.
    let waits = json!({ "memory_mb": 1 << 20 });
    let mut lost = asked("ann", "secret");
    lost.as_object_mut().expect("object").extend(waits.as_object().cloned().expect("object"));
    post(&lab, &task("waits", "true", lost));
    for word in ["secret", "battery-staple"] {
        let shown = ask(&lab, "GET", "/v1/tasks", "").1.to_string();
        assert!(!shown.contains(word), "{shown}");
        assert!(!lab.daemon_log().contains(word), "the daemon's own log");
        let state = lab.root.join("var/lib/terrarium");
        let found = Command::new("grep")
            .args(["-rqaF", "--exclude-dir=store", "--exclude=store.img", word])
            .arg(state)
            .stdout(Stdio::null())
            .status()
            .expect("grep");
        assert_eq!(found.code(), Some(1), "`{word}` is on the disk");
    }
    lab.end_daemon(nix::sys::signal::Signal::SIGKILL);
    lab.serve();
    let (_, shown) = ask(&lab, "GET", "/v1/tasks/waits", "");
    assert_eq!(shown["state"], "PENDING", "{shown}");
    lab.ok(&["cancel", "waits"]);
    registry.stop();
    lab.assert_empty();
    lab.finish();
}

/// Row 35: a cell that is drained lets Tasks go on to their end and begins none; then it goes on with
/// those that have waited. Row 55: what a Task uses is in the rep's figures.
#[test]
fn row_35_tasks_of_a_drained_cell_end_and_others_wait() {
    let lab = lab("drained");
    let wait = "until test -e /mnt/go; do sleep 0.1; done; echo done";
    let wishes = json!({ "placement_tags": ["edge"], "volume_mounts": [{ "driver": "local",
        "container_dir": "/mnt", "mode": "r", "shared": { "volume_id": "data" } }] });
    post(&lab, &task("works", &format!("echo begun; {wait}"), wishes.clone()));
    let works = until(&lab, "works", "RUNNING");
    lab.until("it has begun", |lab| log(lab, &works).contains("OUT begun").then_some(()));
    let metrics = lab.until("it is measured", |lab| {
        let (_, all) = ask(lab, "GET", "/v1/container_metrics", "");
        all["tasks"].get(0).cloned()
    });
    assert_eq!(metrics["task_guid"], "works", "{metrics}");
    assert_eq!(metrics["metrics"]["memory_quota_bytes"], 64 << 20);
    assert!(metrics["metrics"]["memory_usage_bytes"].as_u64() > Some(0), "{metrics}");
    lab.ok(&["drain", "--timeout", "1h"]);
    post(&lab, &task("waits", "echo late", wishes));
    // Whoever is asked to look does so now.
    let drain = lab.until("it is draining", |lab| {
        let status: Value = serde_json::from_str(&lab.run(&["status", "--json"]).out).ok()?;
        let drain = status["box"]["cell"]["drain"].clone();
        (drain["state"] == "draining").then_some(drain)
    });
    assert!(drain["left"].to_string().contains("task works"), "{drain}");
    let (_, waits) = ask(&lab, "GET", "/v1/tasks/waits", "");
    assert_eq!((&waits["state"], &waits["rejection_count"]), (&"PENDING".into(), &0.into()));
    fs::write(lab.root.join("srv/data/go"), "").expect("file");
    let done = until(&lab, "works", "COMPLETED");
    assert_eq!(done["failed"], false, "{done}");
    lab.until("it is drained", |lab| {
        let status: Value = serde_json::from_str(&lab.run(&["status", "--json"]).out).ok()?;
        (status["box"]["cell"]["drain"]["state"] == "drained").then_some(())
    });
    let (_, waits) = ask(&lab, "GET", "/v1/tasks/waits", "");
    assert_eq!(waits["state"], "PENDING", "{waits}");
    lab.ok(&["undrain"]);
    let late = until(&lab, "waits", "COMPLETED");
    assert_eq!(late["failed"], false, "{late}");
    lab.assert_empty();
    lab.finish();
}

/// Row 48: what is kept of downloads is no more than the box's owner says: the one that was not used for
/// longest goes, and comes anew when it is asked for again; what is kept is only asked about.
#[test]
fn row_48_downloads_take_as_much_of_the_disk_as_the_owner_says() {
    let mut lab = Lab::new("downloads");
    lab.configure("downloads", "[downloads]\nsize = \"1MiB\"\n");
    lab.serve();
    let dir = lab.root.join("archive");
    fs::create_dir_all(&dir).expect("directory");
    fs::write(dir.join("large"), vec![0; 600 << 10]).expect("file");
    let tar = lab.root.join("archive.tgz");
    tool("tar", &["-C", text(&dir), "-czf", text(&tar), "."]);
    let (at, told) = serve(fs::read(tar).expect("archive"));
    let kept = || {
        let files =
            fs::read_dir(lab.root.join("var/cache/terrarium/downloads")).expect("downloads");
        files.flatten().filter_map(|it| it.metadata().ok()).map(|it| it.len()).sum::<u64>()
    };
    for (number, name, status) in [(1, "a", 200), (2, "a", 304), (3, "b", 200), (4, "a", 200)] {
        let guid = format!("get-{number}");
        let from = format!("{at}/{name}");
        let wanted = json!([{ "name": name, "from": from, "to": "/opt/dep", "cache_key": name,
            "log_source": "DEP" }]);
        post(
            &lab,
            &task(&guid, "test -s /opt/dep/large", json!({ "cached_dependencies": wanted })),
        );
        let done = until(&lab, &guid, "COMPLETED");
        assert_eq!(done["failed"], false, "{done}");
        let last = told.lock().expect("the list").last().cloned();
        assert_eq!(last, Some((format!("/{name}"), status)), "{guid}");
        assert!((600 << 10..=1 << 20).contains(&kept()), "{} bytes", kept());
    }
    lab.finish();
}
