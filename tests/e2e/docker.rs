//! Apps that come as images: of Debian's own registry server, and of archives. umoci makes them.

mod durable;
mod held;
mod kept;
mod many;
mod member;
mod oci;
mod podman;
mod preload;
mod software;
mod stop;

use super::lab::{Lab, get, tool};
use super::server::{Registry, Setup};
use nix::sys::signal::Signal;
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;

/// Answers with what it was started with; then with whatever is in its directory.
const SERVE: &str = "#!/bin/sh\n\
    { id -u; id -g; pwd; echo \"$GREETING $NAME $PORT $#$1\"; } > /tmp/index.html\n\
    ln -s /etc /tmp/etc\n\
    exec /bin/busybox httpd -f -p \"$PORT\" -h /tmp\n";

/// An OCI layout with one image, as tag `one`: what `fill` puts into its root, run as `how` says.
pub(super) fn image(dir: &Path, fill: impl FnOnce(&Path), how: &[&str]) -> PathBuf {
    let (layout, bundle) = (dir.join("layout"), dir.join("bundle"));
    let image = format!("{}:one", text(&layout));
    tool("umoci", &["init", "--layout", text(&layout)]);
    tool("umoci", &["new", "--image", &image]);
    tool("umoci", &["unpack", "--image", &image, text(&bundle)]);
    fill(&bundle.join("rootfs"));
    tool("umoci", &["repack", "--image", &image, text(&bundle)]);
    fs::remove_dir_all(&bundle).expect("clean up");
    tool("umoci", &[&["config", "--image", &image][..], how].concat());
    layout
}

/// One of busybox that serves.
pub(super) fn layout(dir: &Path, how: &[&str]) -> PathBuf {
    let serve = ["--config.env", "GREETING=hello", "--config.env", "NAME=image"];
    let ports = ["--config.exposedports", "9000/tcp", "--config.exposedports", "7000/udp"];
    let entry = ["--config.entrypoint", "/bin/serve", "--config.cmd", "a b"];
    image(dir, fill, &[&serve[..], &ports, &entry, how].concat())
}

/// Busybox, two users, and what serves.
pub(super) fn fill(root: &Path) {
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
    fs::write(root.join("bin/orphan"), "#!/no/such/interpreter\n").expect("write");
    fs::set_permissions(root.join("bin/orphan"), mode(0o755)).expect("mode");
    fs::write(root.join("etc/passwd"), "root:x:0:0::/:/bin/sh\nann:x:1000:50::/srv:/bin/sh\n")
        .expect("write");
    fs::write(root.join("etc/group"), "staff:x:50:\nmore:x:60:\n").expect("write");
}

/// Puts it into the registry, under `tag`.
pub(super) fn push(layout: &Path, tag: &str) {
    let from = format!("oci:{}:one", text(layout));
    let to = format!("docker://127.0.0.1:5000/ops/app:{tag}");
    tool("skopeo", &["--insecure-policy", "copy", "-q", "--dest-tls-verify=false", &from, &to]);
}

pub(super) fn text(path: &Path) -> &str {
    path.to_str().expect("a UTF-8 path")
}

pub(super) fn mode(bits: u32) -> fs::Permissions {
    std::os::unix::fs::PermissionsExt::from_mode(bits)
}

/// Writes a manifest of `name`.
fn manifest(lab: &Lab, name: &str, rest: &str) -> String {
    let dir = lab.root.join("src");
    fs::create_dir_all(&dir).expect("directory");
    let path = dir.join(format!("{name}.toml"));
    let shape = "[run]\nmemory = \"64MiB\"\ndisk = \"96MiB\"\n";
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
    let logins = lab.root.join("etc/terrarium/auth.json");
    fs::write(&logins, "{}").expect("write");
    fs::set_permissions(&logins, mode(0o644)).expect("mode");
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
    // Told once, however often it is read.
    lab.ok(&["apply", &path]);
    lab.until_state("app", "running");
    let log = lab.daemon_log();
    let told: Vec<_> = log.lines().filter(|line| line.contains("registry.logins_open")).collect();
    assert!(told.len() == 1 && told[0].contains("chmod 600 /"), "{told:?}");
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
    let told = lab.logged("app", "Cannot ask what 127.0.0.1:5000/ops/app:1 is now, it stays at ");
    assert!(told.len() == 1 && told[0].contains("http://127.0.0.1:5000"), "{told:?}");
    // Who names a digest asks nobody at all, also for an app that is new.
    let pinned = format!("image.ref = \"{shown}\"\nenv.NAME = \"pinned\"");
    lab.ok(&["apply", &manifest(&lab, "pinned", &pinned)]);
    lab.until_state("pinned", "running");
    assert_eq!(lab.view("pinned")["image"], shown.as_str());
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
    // Who made the directory says nothing of it.
    let ended = lab.logged("own", "Exit status");
    assert!(ended.is_empty(), "{ended:?}");
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
    // A directory that cannot be made is a failure, and its maker says why.
    let image = format!("{}:one", self::text(&made));
    tool("umoci", &["config", "--image", &image, "--config.volume", "/bin/busybox/no"]);
    let bad = manifest(&lab, "bad", &format!("image.archive = \"{}\"", made.display()));
    assert_ne!(lab.run(&["apply", &bad]).code, 0);
    assert!(!lab.logged("bad", "make-dirs: cannot make /bin/busybox/no: ").is_empty());
    assert!(!lab.logged("bad", "Exit status 1").is_empty());
    lab.ok(&["delete", "bad"]);
    // An instance writes within what the image, of 2 MiB, leaves of its disk: were that all its own, this
    // would fit.
    let fills = "busybox dd if=/dev/zero of=/tmp/full bs=1M count=95";
    assert_ne!(lab.inside("said", fills).code, 0);
    let written = lab.inside("said", "stat -c %s /tmp/full").out;
    let written: u64 = written.trim().parse().expect("a size");
    assert!((80 << 20..95 << 20).contains(&written), "{written}");
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
    // A program that is not in it: it has never run, not for a moment, and its name is told.
    let image = format!("{}:one", text(&dir.join("layout")));
    let entry = ["--clear", "config.entrypoint", "--config.entrypoint", "/srv/gone"];
    tool("umoci", &[&["config", "--image", &image][..], &entry].concat());
    push(&dir.join("layout"), "gone");
    let rest = "image.ref = \"127.0.0.1:5000/ops/app:gone\"\nhealth.type = \"process\"\n\
                restart.policy = \"never\"\n";
    assert_ne!(lab.run(&["apply", &manifest(&lab, "gone", rest)]).code, 0);
    let view = lab.until_state("gone", "crashed");
    let reason = view["processes"][0]["instances"][0]["crash_reason"].as_str().expect("a reason");
    assert_eq!(reason, "program `/srv/gone` is not in the container");
    let ran = |name: &str| format!("instance.running app={name} ");
    assert!(lab.daemon_log().contains(&ran("wrong")), "{}", lab.daemon_log());
    assert!(!lab.daemon_log().contains(&ran("gone")));
    // One that is there and cannot be executed, as the image's own word and as the manifest's.
    let entry = ["--clear", "config.entrypoint", "--config.entrypoint", "/bin/orphan"];
    tool("umoci", &[&["config", "--image", &image][..], &entry].concat());
    push(&dir.join("layout"), "orphan");
    let rest = rest.replace(":gone", ":orphan");
    for (name, command) in [("orphan", ""), ("said", "run.command = \"orphan --now\"\n")] {
        let path = manifest(&lab, name, &format!("{rest}{command}"));
        let whole = fs::read_to_string(&path).expect("manifest").replace("[run]\n", "");
        let whole = whole.replace("\nmemory", "\nrun.memory").replace("\ndisk", "\nrun.disk");
        fs::write(&path, whole).expect("manifest");
        assert_ne!(lab.run(&["apply", &path]).code, 0);
        let view = lab.until_state(name, "crashed");
        let reason = view["processes"][0]["instances"][0]["crash_reason"].as_str();
        let reason = reason.expect("a reason");
        assert!(
            reason.ends_with("orphan` needs an interpreter or loader that is not there"),
            "{reason}"
        );
        assert!(!lab.daemon_log().contains(&ran(name)));
    }
    registry.stop();
    lab.finish();
}

/// A box whose uplink comes after it, or whose power fails during the first pull: nobody has to ask again.
#[test]
fn an_image_that_nobody_gave_is_fetched_when_the_registry_is_there() {
    let (mut lab, dir) = lab("later");
    let path = manifest(&lab, "app", "image.ref = \"127.0.0.1:5000/ops/app:1\"");
    let ran = lab.run(&["apply", &path]);
    assert_eq!(ran.code, 1, "{}{}", ran.out, ran.err);
    for text in ["cannot stage app app", "; it is tried again in "] {
        assert!(ran.err.contains(text), "{text}: {}", ran.err);
    }
    let tells = |lab: &Lab, args: &[&str], text: &str| {
        lab.until(text, |lab| lab.run(args).out.contains(text).then_some(()));
    };
    tells(&lab, &["app", "app"], "; it is tried again in ");
    tells(&lab, &["status"], "; it is tried again in ");
    tells(&lab, &["explain", "app"], "it is tried again by itself, for as long as it takes");
    // One that is not there for another reason is not.
    let gone = manifest(&lab, "gone", "image.archive = \"/no/such/archive.tar\"");
    let ran = lab.run(&["apply", &gone]);
    assert!(ran.code != 0 && !ran.err.contains("tried again"), "{}", ran.err);
    lab.run(&["delete", "gone"]);
    // The next daemon tries at once, and then again.
    lab.end_daemon(Signal::SIGKILL);
    let before = lab.root.join("var/lib/terrarium/logs/app.log");
    let failures =
        |path: &Path| fs::read_to_string(path).expect("log").matches("Staging failed").count();
    let already = failures(&before);
    lab.serve();
    lab.until("it has failed again", |_| (failures(&before) > already).then_some(()));
    let registry = Registry::start(&dir, Setup::Plain);
    push(&layout(&dir, &[]), "1");
    lab.until_state("app", "running");
    assert_eq!(lab.view("app")["reason"], serde_json::Value::Null);
    registry.stop();
    lab.finish();
}

#[test]
fn who_stops_or_changes_an_app_does_not_wait_for_a_registry_that_says_nothing() {
    let (lab, _) = lab("silent");
    let silent = TcpListener::bind("127.0.0.1:5000").expect("bind");
    let path = manifest(&lab, "app", "image.ref = \"127.0.0.1:5000/ops/app:1\"");
    let mut waiting = lab.command(&["apply", &path]).spawn().expect("apply");
    // Accepted by the kernel; nobody ever answers.
    let held = silent.accept().expect("a request");
    assert_eq!(lab.view("app")["state"], "staging");
    lab.ok(&["stop", "app"]);
    assert_eq!(lab.view("app")["state"], "stopped");
    waiting.wait().expect("apply has ended");
    lab.ok(&["delete", "app"]);
    drop((held, silent));
    lab.finish();
}

#[test]
fn an_app_that_waits_for_others_to_be_staged_says_so() {
    let (lab, _) = lab("turns");
    let silent = TcpListener::bind("127.0.0.1:5000").expect("bind");
    let names = ["one", "two", "three"];
    let begin = |name: &&str| {
        let path = manifest(&lab, name, "image.ref = \"127.0.0.1:5000/ops/app:1\"");
        let child = lab.command(&["apply", &path]).spawn().expect("apply");
        lab.until("it is declared", |lab| (lab.run(&["app", name]).code != 4).then_some(()));
        child
    };
    let waiting: Vec<_> = names.iter().map(begin).collect();
    let held: Vec<_> = (0..2).map(|_| silent.accept().expect("a request")).collect();
    let third = lab.view("three");
    assert_eq!(
        (&third["state"], third["reason"].as_str()),
        (&"staging".into(), Some("waits for its turn: 2 apps are staged at a time"))
    );
    assert_eq!(lab.view("one")["reason"], serde_json::Value::Null);
    assert!(lab.run(&["status"]).out.contains("three: waits for its turn"));
    for name in names {
        lab.ok(&["delete", name]);
    }
    for mut child in waiting {
        child.wait().expect("apply has ended");
    }
    drop((held, silent));
    lab.finish();
}

#[test]
fn the_layers_of_a_stopped_app_stay_and_those_of_a_deleted_one_go() {
    let (mut lab, dir) = lab("layers");
    lab.configure("cleanup", "[garden]\ncleanup_threshold = \"1MiB\"\n");
    lab.end_daemon(Signal::SIGTERM);
    lab.serve();
    let registry = Registry::start(&dir, Setup::Plain);
    push(&layout(&dir, &[]), "1");
    lab.ok(&["apply", &manifest(&lab, "app", "image.ref = \"127.0.0.1:5000/ops/app:1\"")]);
    lab.until_state("app", "running");
    registry.stop();
    lab.ok(&["stop", "app"]);
    let store = lab.root.join("var/lib/terrarium/store");
    let count = |dir: &str| fs::read_dir(store.join(dir)).map(Iterator::count).unwrap_or_default();
    let layers = count("layers");
    // Another app comes and goes, and so does the daemon: both times it looks for litter.
    lab.ok(&["apply", &lab.app("web", "exec sleep 1000\n", "")]);
    let both = count("layers");
    assert!(layers > 0 && both > layers, "{layers} {both}");
    lab.ok(&["delete", "web"]);
    lab.until("the droplet's layer is gone", |_| (count("layers") < both).then_some(()));
    lab.end_daemon(Signal::SIGKILL);
    lab.serve();
    lab.ok(&["start", "app"]);
    lab.until_state("app", "running");
    let kept = count("layers");
    lab.ok(&["delete", "app"]);
    lab.until("the image's layers are gone", |_| {
        (count("layers") + layers <= kept && count("images/names") == 0).then_some(())
    });
    lab.finish();
}

#[test]
fn a_run_without_a_daemon_shows_how_an_archive_becomes_an_app_and_leaves_nothing() {
    let lab = Lab::new("run");
    let made = layout(&lab.root, &[]);
    let rest = format!("image.archive = \"{}\"\nport = [{{ publish = 8000 }}]", made.display());
    let path = manifest(&lab, "app", &rest);
    let mut child = lab.command(&["run", &path]).stdout(Stdio::piped()).spawn().expect("run");
    let lines = BufReader::new(child.stdout.take().expect("stdout")).lines();
    let mut lines = lines.map_while(Result::ok);
    let said: Vec<String> =
        lines.by_ref().take_while(|line| !line.contains("became healthy")).collect();
    let said = said.join("\n");
    assert!(
        said.contains("Fetching image /") && said.contains("is here: one layer, 2MiB"),
        "{said}"
    );
    assert!(answer(&lab, 8000).contains("hello image 9000"));
    let pid = nix::unistd::Pid::from_raw(child.id() as i32);
    nix::sys::signal::kill(pid, Signal::SIGINT).expect("Ctrl-C");
    lines.for_each(drop);
    assert_eq!(child.wait().expect("wait").code(), Some(0));
    lab.assert_empty();
    lab.assert_nothing_left();
    lab.remove();
}
