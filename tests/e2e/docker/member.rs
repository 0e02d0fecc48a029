//! Who is in the socket's group and not root works with files as himself: the daemon opens none.

use super::super::lab::{BINARY, Lab, Ran};
use super::super::server::{Registry, Setup, tool};
use super::{layout, mode, push, text};
use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::Path;
use std::process::{Command, Stdio};

/// A group that every Debian has, for the socket; and a user who is in it for as long as the test
/// wants.
const GROUP: (&str, &str) = ("users", "100");
const USER: u32 = 65534;

/// Runs a verb as that user, in the group or not.
fn run(lab: &Lab, is_member: bool, args: &[&str]) -> Ran {
    let user = USER.to_string();
    let groups = if is_member { ["--groups", GROUP.1] } else { ["--groups", &user] };
    let mut command = Command::new("setpriv");
    command.args(["--reuid", &user, "--regid", &user]).args(groups);
    // Where everybody can reach it.
    command.arg(lab.root.join("terrarium")).arg("--root").arg(&lab.root).args(args);
    Ran::new(command.stdin(Stdio::null()).output().expect("setpriv; util-linux has it"))
}

fn copy(from: &str, to: &str) {
    tool("skopeo", &["--insecure-policy", "copy", "-q", from, to]);
}

fn owner(path: &Path) -> u32 {
    fs::metadata(path).expect("metadata").uid()
}

#[test]
fn a_member_of_the_group_loads_and_saves_only_what_he_may_read_and_write_himself() {
    let mut lab = Lab::new("member");
    lab.configure("socket", &format!("[socket]\ngroup = \"{}\"\n", GROUP.0));
    lab.configure("registry", "[registry]\ninsecure = [\"127.0.0.0/8\"]\n");
    lab.serve();
    fs::copy(BINARY, lab.root.join("terrarium")).expect("copy");
    let dir = lab.root.join("registry");
    fs::create_dir_all(&dir).expect("directory");
    let registry = Registry::start(&dir, Setup::Plain);
    let made = layout(&dir, &[]);
    push(&made, "1");
    let (secret, own) = (lab.root.join("secret"), lab.root.join("own"));
    for dir in [&secret, &own] {
        fs::create_dir(dir).expect("directory");
    }
    chown(&own, Some(USER), Some(USER)).expect("owner");
    let archive = secret.join("app.tar");
    copy(
        &format!("oci:{}:one", text(&made)),
        &format!("docker-archive:{}:ops/secret:1", text(&archive)),
    );
    let given = own.join("app.tar");
    fs::copy(&archive, &given).expect("copy");

    // Root's own archive, closed to others; then its directory.
    fs::set_permissions(&archive, mode(0o600)).expect("mode");
    for closed in [&archive, &secret] {
        let ran = run(&lab, true, &["image", "load", text(&archive)]);
        assert_eq!(ran.code, 1, "{}{}", ran.out, ran.err);
        assert!(ran.err.contains("Permission denied"), "{}", ran.err);
        assert_eq!(lab.run(&["image", "inspect", "ops/secret:1"]).code, 4, "{closed:?}");
        fs::set_permissions(&secret, mode(0o700)).expect("mode");
    }
    let loaded = run(&lab, true, &["image", "load", text(&given)]);
    assert_eq!(loaded.code, 0, "{}", loaded.err);
    assert!(loaded.out.starts_with("docker.io/ops/secret:1@"), "{}", loaded.out);
    let pulled = run(&lab, true, &["image", "pull", "127.0.0.1:5000/ops/app:1"]);
    assert_eq!(pulled.code, 0, "{}", pulled.err);
    registry.stop();

    // What he saves is his, and not where he may not write.
    let saved = own.join("saved.tar");
    let ran = run(&lab, true, &["image", "save", "ops/secret:1", text(&saved)]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert_eq!(owner(&saved), USER);
    let ran = run(&lab, true, &["image", "save", "ops/secret:1", text(&lab.root.join("no.tar"))]);
    assert_eq!(ran.code, 1, "{}", ran.err);
    assert!(ran.err.contains("Permission denied"), "{}", ran.err);
    assert!(!lab.root.join("no.tar").exists());
    let before = fs::read(&archive).expect("read");
    let ran = run(&lab, true, &["image", "save", "ops/secret:1", text(&archive)]);
    assert_eq!(ran.code, 1, "{}", ran.err);
    assert!(fs::read(&archive).expect("read") == before, "it was written to");

    // Who is not in the group gets nowhere.
    let ran = run(&lab, false, &["image", "ls"]);
    assert_eq!(ran.code, 6, "{}{}", ran.out, ran.err);
    lab.finish();
}
