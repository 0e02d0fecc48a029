//! Starts of the daemon that fail: nothing of them is left, and what lived before lives on.

use crate::lab::{BINARY, Lab, tool};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;
use terrarium::config::machine::{Amount, Config};
use terrarium::container::Fault;
use terrarium::daemon::{START, start_with_fault};
use terrarium::unit::Bytes;

/// A daemon's configuration for this lab, whose containers it would find.
fn config(lab: &Lab) -> Config {
    let mut config = Config::defaults(&lab.state, "lab");
    config.paths.state = lab.state.clone();
    config.cgroup.parent = lab.cgroup().to_owned();
    config.store.size_max = Amount::Fixed(Bytes::mib(2048));
    config
}

/// What a start changes outside of the daemon's own files.
fn traces(lab: &Lab, socket: &Path) -> String {
    let below = |text: String| {
        let root = lab.state.to_str().expect("UTF-8");
        let lines = text.lines().filter(|line| line.contains(root));
        lines.collect::<Vec<_>>().join("\n")
    };
    format!(
        "mounts {}\nloops {}\nlinks {}\nrules {}\ncgroups {:?} {:?}\nsocket {}",
        below(fs::read_to_string("/proc/thread-self/mountinfo").expect("mountinfo")),
        below(tool("losetup", &["-a"])),
        lab.links(),
        tool("nft", &["-s", "list", "ruleset"]),
        lab.parents(),
        lab.cgroups(),
        fs::metadata(socket).is_ok_and(|file| file.file_type().is_socket()),
    )
}

#[test]
fn a_start_that_fails_after_any_step_leaves_the_box_as_it_was() {
    let lab = Lab::new("starts");
    let config = config(&lab);
    let before = traces(&lab, &config.paths.socket());
    assert!(before.contains("mounts \nloops \nlinks lo\nrules \ncgroups [] []\n"), "{before}");
    for (n, step) in START.iter().enumerate() {
        let err = start_with_fault(config.clone(), Fault::After(n)).err().expect("it must fail");
        assert!(err.to_string().contains(&format!("{step:?}")), "{err}");
        assert_eq!(traces(&lab, &config.paths.socket()), before, "after step {step:?}");
    }
    fs::remove_dir_all(&lab.state).expect("clean up");
}

#[test]
fn a_start_that_fails_leaves_a_living_container_what_it_needs() {
    let lab = Lab::new("startlive");
    let host = lab.host();
    let container = host.create(crate::container::spec(&lab, "web-0"), Fault::None);
    let container = container.expect("create");
    // As a daemon that was killed leaves it.
    drop(host.into_parts());
    let config = config(&lab);
    // What all containers share is renewed, with this configuration's name servers.
    let last = Fault::After(START.len() - 1);
    start_with_fault(config.clone(), last).err().expect("it must fail");
    let before = traces(&lab, &config.paths.socket());
    for part in ["store.img", "w0-0", "goto c0", "web-0"] {
        assert!(before.contains(part), "{part} is gone: {before}");
    }
    for (n, step) in START.iter().enumerate() {
        start_with_fault(config.clone(), Fault::After(n)).err().expect("it must fail");
        assert_eq!(traces(&lab, &config.paths.socket()), before, "after step {step:?}");
        let ran = crate::container::run(&container, &format!("ok-{n}"), "test -c /dev/null");
        assert_eq!(ran.code(), 0, "after step {step:?}");
    }
    drop(container);
    let host = lab.host();
    host.destroy(&"web-0".parse().expect("handle")).expect("destroy");
    lab.settle();
    for dir in ["run", "var"] {
        let _ = fs::remove_dir_all(lab.state.join(dir));
    }
    lab.close(host);
}

/// `terrarium serve` below `root`, to its end.
fn serve(root: &Path) -> Output {
    Command::new(BINARY).arg("--root").arg(root).arg("serve").output().expect("run")
}

#[test]
fn a_start_that_cannot_succeed_says_why_once_and_what_to_do() {
    let lab = Lab::new("startwrong");
    let socket = Path::new("run/terrarium/terrarium.sock");
    let before = traces(&lab, &lab.state.join(socket));
    let fails = |root: &Path, parts: &[&str]| {
        let output = serve(root);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{said}");
        let last = said.lines().last().unwrap_or_default();
        for part in parts {
            assert_eq!(last.matches(part).count(), 1, "{part} in {said}");
        }
        assert!(!said.contains("daemon.left_open"), "{said}");
        assert_eq!(traces(&lab, &root.join(socket)), before);
    };
    let long = lab.state.join("x".repeat(100));
    fails(&long, &["/run/terrarium/terrarium.sock", "than the 107", "name a shorter --root"]);
    assert!(!long.exists(), "not even a directory is made");

    // Its directory is no place for a socket: something else stands there.
    let root = lab.state.join("foreign");
    fs::create_dir_all(root.join(socket)).expect("in the way");
    fails(&root, &["terrarium.sock", "exists and is no socket; move it away"]);
    assert!(!root.join("var/lib/terrarium/store.img").exists(), "no store for a mistake");

    // Records of a daemon that knows more.
    let root = lab.state.join("newer");
    let records = root.join("var/lib/terrarium");
    fs::create_dir_all(&records).expect("state");
    fs::write(records.join("state.redb"), "nothing that we know").expect("records");
    fails(&root, &["state.redb"]);
    assert!(!records.join("store.img").exists(), "no store for records of others");

    // A profile that no box has, if it has AppArmor at all.
    let root = lab.state.join("profile");
    let settings = root.join("etc/terrarium/terrarium.toml");
    fs::create_dir_all(settings.parent().expect("parent")).expect("settings");
    let text = "[garden]\nenabled = true\napparmor = \"terrarium-has-no-such\"\n";
    fs::write(&settings, text).expect("settings");
    let has = fs::read_to_string("/sys/module/apparmor/parameters/enabled");
    let has = has.is_ok_and(|text| text.starts_with('Y'));
    let why = if has { "the box has not loaded that profile" } else { "AppArmor" };
    fails(&root, &["setting `apparmor` of [garden] is `terrarium-has-no-such`", why]);
    assert!(!root.join("var/lib/terrarium/store.img").exists(), "no store for a mistake");

    // Something that only the kernel finds: the store's file is no file system.
    let root = lab.state.join("broken");
    let state = root.join("var/lib/terrarium");
    fs::create_dir_all(&state).expect("state");
    fs::write(state.join("store.img"), vec![0; 1 << 20]).expect("store");
    fails(&root, &["cannot open the store"]);
    fs::remove_dir_all(&lab.state).expect("clean up");
}

#[test]
fn systemd_hears_that_it_is_ready_what_it_does_and_that_the_loop_turns() {
    let lab = Lab::new("notify");
    let config = config(&lab);
    let before = traces(&lab, &config.paths.socket());
    let address = lab.state.join("notify");
    let notes = UnixDatagram::bind(&address).expect("socket");
    notes.set_read_timeout(Some(Duration::from_secs(60))).expect("patience");
    let etc = lab.state.join("etc/terrarium");
    fs::create_dir_all(&etc).expect("etc");
    let parent = format!("[cgroup]\nparent = \"{}\"\n", lab.cgroup());
    fs::write(etc.join("terrarium.toml"), parent).expect("settings");
    // In the way of the manifests: told, and no reason not to serve.
    fs::write(etc.join("apps.d"), "").expect("file");
    let mut daemon = Command::new(BINARY)
        .arg("--root")
        .arg(&lab.state)
        .arg("serve")
        .env("NOTIFY_SOCKET", &address)
        .env("WATCHDOG_USEC", "100000")
        .spawn()
        .expect("start");
    let mut next = || {
        let mut buffer = [0; 4096];
        let len = notes.recv(&mut buffer).expect("a note in time");
        String::from_utf8_lossy(&buffer[..len]).into_owned()
    };
    assert_eq!(next(), "READY=1\nSTATUS=Serving; reading the manifests of apps.d");
    UnixStream::connect(lab.state.join("run/terrarium/terrarium.sock")).expect("it serves");
    let status = std::iter::repeat_with(&mut next).find(|note| note.starts_with("STATUS="));
    let status = status.expect("a status");
    assert!(status.contains("apps.d, which must be a directory"), "{status}");
    for _ in 0..2 {
        assert_eq!(next(), "WATCHDOG=1");
    }
    kill(Pid::from_raw(daemon.id() as i32), Signal::SIGTERM).expect("kill");
    std::iter::repeat_with(next).find(|note| note == "STOPPING=1").expect("endless");
    assert!(daemon.wait().expect("wait").success());
    assert_eq!(traces(&lab, &config.paths.socket()), before);
    fs::remove_dir_all(&lab.state).expect("clean up");
}
