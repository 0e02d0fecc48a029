//! Apps that come as images: of Debian's own registry server, and of archives. umoci makes them.

use super::lab::{Lab, get, tool};
use super::server::{Registry, Setup};
use nix::sys::signal::Signal;
use std::fs;
use std::path::{Path, PathBuf};

/// Answers with what it was started with; then with whatever is in its directory.
const SERVE: &str = "#!/bin/sh\n\
    { id -u; id -g; pwd; echo \"$GREETING $NAME $PORT $#$1\"; } > /tmp/index.html\n\
    ln -s /etc /tmp/etc\n\
    exec /bin/busybox httpd -f -p \"$PORT\" -h /tmp\n";

/// An OCI layout with one image of busybox that serves, and as tag `one`.
fn layout(dir: &Path, how: &[&str]) -> PathBuf {
    let (layout, bundle) = (dir.join("layout"), dir.join("bundle"));
    let image = format!("{}:one", text(&layout));
    tool("umoci", &["init", "--layout", text(&layout)]);
    tool("umoci", &["new", "--image", &image]);
    tool("umoci", &["unpack", "--image", &image, text(&bundle)]);
    let root = bundle.join("rootfs");
    for dir in ["bin", "etc", "tmp", "srv"] {
        fs::create_dir_all(root.join(dir)).expect("directory");
    }
    fs::set_permissions(root.join("tmp"), mode(0o1777)).expect("mode");
    fs::copy("/bin/busybox", root.join("bin/busybox")).expect("busybox");
    for link in ["sh", "id", "ls", "cat", "stat"] {
        std::os::unix::fs::symlink("busybox", root.join("bin").join(link)).expect("link");
    }
    fs::write(root.join("bin/serve"), SERVE).expect("write");
    fs::set_permissions(root.join("bin/serve"), mode(0o755)).expect("mode");
    fs::write(root.join("etc/passwd"), "root:x:0:0::/:/bin/sh\nann:x:1000:50::/srv:/bin/sh\n")
        .expect("write");
    fs::write(root.join("etc/group"), "staff:x:50:\nmore:x:60:\n").expect("write");
    tool("umoci", &["repack", "--image", &image, text(&bundle)]);
    fs::remove_dir_all(&bundle).expect("clean up");
    let serve = ["--config.env", "GREETING=hello", "--config.env", "NAME=image"];
    let ports = ["--config.exposedports", "9000/tcp", "--config.exposedports", "7000/udp"];
    let entry = ["--config.entrypoint", "/bin/serve", "--config.cmd", "a b"];
    tool("umoci", &[&["config", "--image", &image][..], &serve, &ports, &entry, how].concat());
    layout
}

/// Puts it into the registry, under `tag`.
fn push(layout: &Path, tag: &str) {
    let from = format!("oci:{}:one", text(layout));
    let to = format!("docker://127.0.0.1:5000/ops/app:{tag}");
    tool("skopeo", &["--insecure-policy", "copy", "-q", "--dest-tls-verify=false", &from, &to]);
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a UTF-8 path")
}

fn mode(bits: u32) -> fs::Permissions {
    std::os::unix::fs::PermissionsExt::from_mode(bits)
}

/// Writes a manifest of `name`.
fn manifest(lab: &Lab, name: &str, rest: &str) -> String {
    let dir = lab.root.join("src");
    fs::create_dir_all(&dir).expect("directory");
    let path = dir.join(format!("{name}.toml"));
    let shape = "[run]\nmemory = \"32MiB\"\ndisk = \"64MiB\"\n";
    fs::write(&path, format!("name = \"{name}\"\n{rest}\n{shape}")).expect("manifest");
    text(&path).to_owned()
}

/// A box that takes images of 127.0.0.1, and a place for the registry.
fn lab(name: &str) -> (Lab, PathBuf) {
    let mut lab = Lab::new(name);
    lab.configure("registry", "[registry]\ninsecure = [\"127.0.0.0/8\"]\n");
    lab.serve();
    let dir = lab.root.join("registry");
    fs::create_dir_all(&dir).expect("directory");
    (lab, dir)
}

/// What the app answers at a port of the box, once it does.
fn answer(lab: &Lab, port: u64) -> String {
    lab.until("the app answers", |_| get("127.0.0.1", port))
}

#[test]
fn an_image_of_a_registry_runs_and_later_without_the_registry() {
    let (mut lab, dir) = lab("docker");
    let registry = Registry::start(&dir, Setup::Plain);
    let made = layout(&dir, &[]);
    push(&made, "1");
    let image = "image.ref = \"docker://127.0.0.1:5000/ops/app#1\"\n";
    let path = manifest(&lab, "app", &format!("{image}port = [{{ publish = 8000 }}]"));
    lab.ok(&["apply", &path]);
    lab.until_state("app", "running");
    // Root's, in /, with the image's words and its lowest TCP port.
    assert_eq!(answer(&lab, 8000), "0\n0\n/\nhello image 9000 1a b\n");
    assert!(get("127.0.0.1", 8000).is_some());
    let view = lab.view("app");
    let shown = view["image"].as_str().expect("an image").to_owned();
    assert!(shown.starts_with("127.0.0.1:5000/ops/app:1@sha256:"), "{shown}");
    assert_eq!(view["processes"][0]["command"], "/bin/serve a b");
    // The registry is gone, and so is the daemon. What runs, runs on.
    registry.stop();
    lab.end_daemon(Signal::SIGKILL);
    assert!(get("127.0.0.1", 8000).is_some());
    lab.serve();
    lab.until_state("app", "running");
    assert!(get("127.0.0.1", 8000).is_some());
    // A fresh one, and one more, of what is recorded; also after nothing of it has run.
    lab.ok(&["scale", "app=2"]);
    lab.ok(&["stop", "app"]);
    lab.end_daemon(Signal::SIGKILL);
    lab.serve();
    lab.ok(&["start", "app"]);
    lab.until_state("app", "running");
    assert_eq!(answer(&lab, 8000), "0\n0\n/\nhello image 9000 1a b\n");
    // A tag is asked about with `apply`; who cannot be asked has not changed.
    lab.ok(&["apply", &path]);
    lab.until_state("app", "running");
    assert_eq!(lab.view("app")["image"], shown.as_str());
    // Another image under the same tag comes with the next `apply`, and not before.
    let registry = Registry::start(&dir, Setup::Plain);
    let image = format!("{}:one", text(&made));
    tool("umoci", &["config", "--image", &image, "--config.env", "NAME=another"]);
    push(&made, "1");
    lab.ok(&["restart", "app"]);
    lab.until_state("app", "running");
    assert_eq!(lab.view("app")["image"], shown.as_str());
    lab.ok(&["apply", &path]);
    lab.until("the other image answers", |_| {
        get("127.0.0.1", 8000).filter(|text| text.contains("hello another 9000"))
    });
    assert_ne!(lab.view("app")["image"], shown.as_str());
    registry.stop();
    lab.finish();
}

#[test]
fn an_image_of_an_archive_runs_as_its_own_user_in_its_own_directory() {
    let (lab, dir) = lab("archive");
    let own = ["--config.user", "ann:more", "--config.workingdir", "/var/lib/work"];
    let made = layout(&dir, &[&own[..], &["--config.volume", "/data/here"]].concat());
    fs::create_dir_all(lab.root.join("src")).expect("directory");
    let archive = lab.root.join("src/app.tar");
    let (from, to) = (format!("oci:{}:one", text(&made)), text(&archive).to_owned());
    let to = format!("docker-archive:{to}:ops/app:1");
    tool("skopeo", &["--insecure-policy", "copy", "-q", &from, &to]);
    lab.ok(&["apply", &manifest(&lab, "own", "image.archive = \"app.tar\"")]);
    lab.until_state("own", "running");
    let port = lab.instance("own", 0)["ports"][0]["host"].as_u64().expect("a host port");
    assert_eq!(answer(&lab, port), "1000\n60\n/var/lib/work\nhello image 9000 1a b\n");
    let said = lab.inside("own", "stat -c '%F %u' /data/here /var/lib/work").out;
    assert_eq!(said, "directory 0\ndirectory 1000\n");
    // The manifest's word counts more. The archive is an OCI layout as a directory.
    let text = format!(
        "image.archive = \"{}\"\nport = [{{ container = 7001 }}]\nenv.NAME = \"manifest\"\n\
         run.user = \"7:8\"\nrun.command = \"cd /srv; . /bin/serve\"",
        made.display()
    );
    let path = manifest(&lab, "said", &text);
    let whole = fs::read_to_string(&path).expect("manifest");
    let whole = whole.replace("[run]\n", "").replace("\nmemory", "\nrun.memory");
    fs::write(&path, whole.replace("\ndisk", "\nrun.disk")).expect("manifest");
    lab.ok(&["apply", &path]);
    lab.until_state("said", "running");
    let port = lab.instance("said", 0)["ports"][0]["host"].as_u64().expect("a host port");
    assert_eq!(answer(&lab, port), "7\n8\n/srv\nhello manifest 7001 0\n");
    // An instance writes within what the image leaves of its disk.
    let fills = "busybox dd if=/dev/zero of=/tmp/full bs=1M count=100";
    assert_ne!(lab.inside("said", fills).code, 0);
    lab.finish();
}

#[test]
fn an_image_that_cannot_be_had_or_run_is_a_failure_with_its_reason() {
    let (lab, dir) = lab("wrong");
    let registry = Registry::start(&dir, Setup::Plain);
    let path = manifest(&lab, "wrong", "image.ref = \"127.0.0.1:5000/ops/none:1\"");
    assert_ne!(lab.run(&["apply", &path]).code, 0);
    let view = lab.until_state("wrong", "failed");
    let reason = view["reason"].as_str().expect("a reason").to_owned();
    assert!(reason.contains("cannot fetch the image 127.0.0.1:5000/ops/none:1"), "{reason}");
    assert!(lab.run(&["app", "wrong"]).out.contains("ops/none:1"));
    assert_eq!(lab.logged("wrong", "Staging failed: cannot fetch").len(), 1);
    // It gets a new chance when it is asked for again.
    push(&layout(&dir, &[]), "1");
    let path = manifest(&lab, "wrong", "image.ref = \"127.0.0.1:5000/ops/app:1\"");
    lab.ok(&["apply", &path]);
    lab.until_state("wrong", "running");
    // Without a command, and too large for its disk.
    let path = manifest(&lab, "mute", "image.ref = \"127.0.0.1:5000/ops/app:1\"\n[process.w]");
    assert_ne!(lab.run(&["apply", &path]).code, 0);
    let view = lab.until_state("mute", "failed");
    assert!(view["reason"].as_str().expect("a reason").contains("no start command"), "{view}");
    registry.stop();
    lab.finish();
}
