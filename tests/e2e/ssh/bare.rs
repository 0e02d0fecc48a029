//! SSH into a container that has next to nothing.

use super::client::Client;
use crate::docker::{self, text};
use crate::lab::{Lab, get, tool};
use std::fs;

/// Row 77: without a shell and where nothing may be written: sftp and both kinds of scp work as far as they
/// can, and what cannot be done says why.
#[test]
fn row_77_an_image_without_a_shell_is_come_into_with_sftp_and_scp() {
    let lab = Lab::start("ssh-bare");
    let dir = lab.root.join("fixtures");
    fs::create_dir_all(&dir).expect("directory");
    // One program and no shell; all of it root's.
    let fill = |root: &std::path::Path| {
        for name in ["app", "srv"] {
            fs::create_dir_all(root.join(name)).expect("directory");
        }
        fs::copy("/bin/busybox", root.join("app/busybox")).expect("busybox");
        fs::write(root.join("srv/index.html"), "bare\n").expect("file");
    };
    let entry = ["--config.entrypoint", "/app/busybox"];
    let words = ["httpd", "-f", "-p", "8080", "-h", "/srv"];
    let words: Vec<&str> = words.iter().flat_map(|word| ["--config.cmd", word]).collect();
    let layout = docker::image(&dir, fill, &[&entry[..], &words].concat());
    let key = Client::key(&lab, "me");
    let file = dir.join("bare.toml");
    let manifest = format!(
        "name = \"bare\"\nimage.archive = \"{}\"\nrun.user = \"1234:77\"\nrun.memory = \"64MiB\"\n\
         run.disk = \"64MiB\"\n\n[[port]]\ncontainer = 8080\npublish = 8000\n\n\
         [ssh]\nauthorized_keys = [\"{key}\"]\npublish = 2022\n",
        text(&layout)
    );
    fs::write(&file, manifest).expect("manifest");
    lab.ok(&["apply", text(&file)]);
    let view = lab.until_state("bare", "running");
    let ssh = Client::new(&lab, &view["ssh"]);
    for ran in [ssh.run("true"), ssh.option("-tt").run("true")] {
        let told = format!("{}{}", ran.out, ran.err);
        assert_eq!(ran.code, 255, "{told}");
        assert!(
            told.contains("this container has no shell; sftp and scp work without one"),
            "{told}"
        );
    }
    let back = dir.join("back");
    for kind in ["-s", "-O"] {
        ssh.scp(&[kind, "box:/srv/index.html", text(&back)]);
        assert_eq!(fs::read_to_string(&back).expect("came back"), "bare\n", "{kind}");
        fs::remove_file(&back).expect("removed");
        let refused = ssh.try_scp(&[kind, text(&file), "box:/srv/up"]);
        assert_ne!(refused.code, 0, "{kind}");
        assert!(
            refused.err.to_lowercase().contains("permission denied"),
            "{kind}: {}",
            refused.err
        );
        let refused = ssh.try_scp(&[kind, text(&file), "box:/proc/sys/up"]);
        assert_ne!(refused.code, 0, "{kind}");
        let refused = ssh.try_scp(&[kind, "box:/srv/none", text(&back)]);
        assert!(refused.err.contains("No such file"), "{kind}: {}", refused.err);
    }
    fs::write(dir.join("batch"), "cd srv\nls -1\nget index.html back\n-rm index.html\n-mkdir x\n")
        .expect("batch");
    let session = ssh.sftp(&dir, "batch");
    assert_eq!(session.code, 0, "{}", session.err);
    assert!(session.out.contains("index.html"), "{}", session.out);
    assert_eq!(
        session.err.to_lowercase().matches("permission denied").count(),
        2,
        "{}",
        session.err
    );
    assert_eq!(fs::read_to_string(&back).expect("came back"), "bare\n");
    assert_eq!(get("127.0.0.1", 8000).as_deref(), Some("bare\n"));
    tool("rm", &["-r", text(&layout)]);
    lab.finish();
}
