//! A buildpack of the user's own, which a controller only names: the builder fetches it from another machine.

use super::cc::{self, Cc};
use super::flow::with_controller;
use super::{lab, packed, staged};
use crate::docker::text;
use crate::lab::tool;
use crate::neighbour::{ADDRESS, Neighbour};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// Files of a directory by HTTP, on the machine beside the box.
struct Server(Child);

impl Server {
    fn start(neighbour: &Neighbour, dir: &Path) -> Server {
        let dir = text(dir).to_owned();
        let child = neighbour.within(move || {
            let words = ["-m", "http.server", "8000", "--bind", ADDRESS, "--directory", &dir];
            let mut server = Command::new("python3");
            server.args(words).stdout(Stdio::null()).stderr(Stdio::null()).spawn()
        });
        Server(child.expect("python3"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A buildpack that takes every app and starts it with `command`.
fn pack(dir: &Path, command: &str) {
    let release = format!("printf 'default_process_types:\\n  web: {command}\\n'");
    fs::create_dir_all(dir.join("bin")).expect("buildpack");
    for (name, script) in
        [("detect", "exit 1"), ("compile", "touch \"$1/compiled\""), ("release", &*release)]
    {
        let path = dir.join("bin").join(name);
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).expect("script");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("mode");
    }
}

/// A staging by the buildpack at `url`.
fn staging(url: &str) -> Value {
    let at = format!("http://{}", cc::AT);
    json!({
        "app_id": "app-guid", "log_guid": "app-guid", "lifecycle": "buildpack",
        "memory_mb": 256, "disk_mb": 1024, "file_descriptors": 16384, "timeout": 300,
        "environment": [],
        "egress_rules": [{ "protocol": "tcp", "destinations": [ADDRESS], "ports": [8000] }],
        "lifecycle_data": {
            "app_bits_download_uri": format!("{at}/bits.tgz"), "stack": "edgefs",
            "build_artifacts_cache_upload_uri": format!("http://u:p@{}/cache", cc::AT),
            "droplet_upload_uri": format!("http://u:p@{}/droplet", cc::AT),
            "buildpacks": [{ "name": "custom", "key": url, "url": url, "skip_detect": true }],
        },
    })
}

/// Row 67, row 79: as an archive and as a repository at a branch.
#[test]
fn row_67_a_controller_s_user_names_a_buildpack_of_his_own() {
    let mut lab = lab("cc-custom", "");
    with_controller(&lab);
    let cc = Cc::start();
    let src = lab.root.join("src/app");
    fs::create_dir_all(&src).expect("directory");
    fs::write(src.join("app.sh"), "sleep 1000\n").expect("script");
    cc.state().files.insert("/bits.tgz".into(), packed(&src));
    let (dir, work) = (lab.root.join("served"), lab.root.join("work"));
    pack(&dir.join("zipped"), "from the zip");
    let zip = dir.join("pack.zip");
    tool("python3", &["-m", "zipfile", "-c", text(&zip), text(&dir.join("zipped"))]);
    pack(&work, "from the branch");
    let git = |words: &[&str]| {
        let who = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "init.defaultBranch=main"];
        tool("git", &[&["-C", text(&work)], &who[..], words].concat());
    };
    git(&["init", "--quiet"]);
    git(&["checkout", "--quiet", "-b", "mine"]);
    git(&["add", "."]);
    git(&["commit", "--quiet", "-m", "a"]);
    let bare = dir.join("pack.git");
    git(&["clone", "--quiet", "--bare", ".", text(&bare)]);
    tool("git", &["-C", text(&bare), "update-server-info"]);
    let neighbour = Neighbour::new("packs");
    let server = Server::start(&neighbour, &dir);
    lab.serve();
    for (guid, file, command) in
        [("zip-1", "pack.zip", "from the zip"), ("git-1", "pack.git#mine", "from the branch")]
    {
        let url = format!("http://{ADDRESS}:8000/{file}");
        let (done, log) = staged(&lab, &cc, guid, &staging(&url));
        let told = format!("{done}\n{log}");
        assert_eq!(done["result"]["process_types"]["web"], command, "{told}");
        assert_eq!(done["result"]["lifecycle_metadata"]["buildpacks"][0]["key"], url, "{told}");
    }
    // One that is not there is the user's, and told with its address.
    let none = staging(&format!("http://{ADDRESS}:8000/none.zip"));
    let (done, log) = staged(&lab, &cc, "none-1", &none);
    assert_eq!(done["error"]["id"], "StagingError", "{done}");
    assert!(
        log.contains("Failed to download buildpack at http://192.0.2.2:8000/none.zip"),
        "{log}"
    );
    drop((server, neighbour));
    lab.finish();
}
