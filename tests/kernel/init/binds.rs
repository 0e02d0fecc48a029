//! Binds as a plan asks for them: where from, where to, how far they are closed.

use super::lab::*;
use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;
use terrarium::init::proto::{Bind, Origin, Plan};

/// A writable bind of the box with plain owners.
fn bind(from: impl Into<std::path::PathBuf>, to: &str) -> Bind {
    Bind {
        from: from.into(),
        origin: Origin::Host,
        to: to.into(),
        read_only: false,
        mapped: false,
        ours: false,
    }
}

/// The same of the container itself.
fn own(from: &str, to: &str) -> Bind {
    Bind { origin: Origin::Container, ..bind(from, to) }
}

/// Makes the lab fit for one more container, and a plan with this bind.
fn again(lab: &Lab, wanted: Bind) -> Plan {
    let _ = fs::remove_file(lab.dir.join("depot/sock"));
    super::reset_writable(lab);
    Plan { binds: vec![wanted], ..lab.plan() }
}

#[test]
fn a_read_only_bind_is_read_only_in_all_that_is_mounted_below_it() {
    let lab = Lab::new();
    let dir = lab.dir.join("volume");
    fs::create_dir_all(dir.join("below")).expect("volume");
    let mounted = Command::new("mount").args(["-t", "tmpfs", "t"]).arg(dir.join("below")).status();
    assert!(mounted.expect("run mount").success());
    fs::write(dir.join("below/file"), "data").expect("file");
    let mut plan = lab.plan();
    plan.binds.push(Bind { mapped: false, ..bind(&dir, "/new/rw") });
    plan.binds.push(Bind { read_only: true, ..bind(&dir, "/new/ro") });
    let mut container = lab.launch(&plan).expect("a container");
    let inside = &mut container.connection;
    let said = inside.sh("stat -c %a:%u:%g /new; cat /new/ro/below/file; echo x > /new/ro/below/y");
    assert!(said.starts_with("755:0:0\ndata") && said.contains("Read-only"), "{said}");
    let options = inside.sh("grep -E ' /new/(ro|rw)/below ' /proc/mounts | cut -d ' ' -f 4");
    let options: Vec<&str> = options.lines().map(|line| &line[..15]).collect();
    assert_eq!(options, ["rw,nosuid,nodev", "ro,nosuid,nodev"]);
    drop(container);
    let unmounted = Command::new("umount").arg(dir.join("below")).status();
    assert!(unmounted.expect("run umount").success());
}

#[test]
fn only_what_is_ours_can_be_run_where_the_box_lets_nothing_run() {
    let lab = Lab::new();
    let dir = lab.dir.join("run");
    fs::create_dir_all(&dir).expect("a directory");
    let mount = |dir: &std::path::Path, options: &str| {
        let mut mount = Command::new("mount");
        let mounted = mount.args(["-t", "tmpfs", "-o", options, "t"]).arg(dir).status();
        assert!(mounted.expect("run mount").success());
    };
    mount(&dir, "noexec,mode=755");
    fs::create_dir(dir.join("below")).expect("a directory");
    mount(&dir.join("below"), "mode=755");
    let mut plan = lab.plan();
    plan.binds.push(Bind { ours: true, read_only: true, ..bind(&dir, "/ours") });
    plan.binds.push(Bind { read_only: true, ..bind(&dir, "/theirs") });
    let mut container = lab.launch(&plan).expect("a container");
    let options =
        container.connection.sh("grep -E ' /(ours|theirs) ' /proc/mounts | cut -d ' ' -f 4");
    let options: Vec<bool> = options.lines().map(|line| line.contains("noexec")).collect();
    assert_eq!(options, [false, true]);
    let below = container.connection.sh("grep ' /ours/below ' /proc/mounts | cut -d ' ' -f 4");
    assert!(below.starts_with("ro,nosuid,nodev"), "{below}");
    drop(container);
    let unmounted = Command::new("umount").args(["-R"]).arg(&dir).status();
    assert!(unmounted.expect("run umount").success());
}

#[test]
fn a_bind_of_the_containers_own_files_is_the_same_files_in_another_place() {
    let lab = Lab::new();
    fs::create_dir(lab.lower().join("data")).expect("data");
    fs::write(lab.lower().join("data/file"), "data\n").expect("file");
    symlink("/data", lab.lower().join("link")).expect("link");
    let mut plan = lab.plan();
    plan.binds = vec![
        own("/link", "/copy"),
        Bind { read_only: true, mapped: true, ..own("/data", "/ro") },
        own("/data/file", "/a/file"),
        own("/", "/all"),
    ];
    let mut container = lab.launch(&plan).expect("a container");
    let inside = &mut container.connection;
    assert_eq!(
        inside.sh("cat /copy/file /ro/file /a/file; stat -c %u /ro/file"),
        "data\ndata\ndata\n0\n"
    );
    assert_eq!(inside.sh("echo x >> /copy/file; cat /data/file"), "data\nx\n");
    let said = inside.sh("echo x > /ro/file; echo x > /ro/new");
    assert_eq!(said.matches("Read-only").count(), 2, "{said}");
    // What is mounted there does not come along: it would not be masked in its second place.
    assert_eq!(
        inside.sh("cat /all/copy/file; ls /all/proc /all/sys /all/dev"),
        "cat: can't open '/all/copy/file': No such file or directory\n/all/dev:\n\n/all/proc:\n\n/all/sys:\n"
    );
}

#[test]
fn a_source_that_is_missing_or_not_to_be_had_is_named() {
    let lab = Lab::new();
    let missing = lab.dir.join("missing");
    symlink(&lab.dir, lab.lower().join("out")).expect("link");
    let inside_out = format!("/out{}", lab.dir.join("depot").display());
    for (wanted, why) in [
        (bind(&missing, "/x"), format!("{} is not on the box", missing.display())),
        (bind("l0", "/x"), "absolute".into()),
        (own("/missing", "/x"), "/missing is not in the container".into()),
        (own("/out/depot", "/x"), "/out/depot is not in the container".into()),
        (own(&inside_out, "/x"), format!("{inside_out} is not in the container")),
        (own("/../../..", "/x"), String::new()),
        (own("/proc", "/x"), "/proc or /sys".into()),
        (own("/sys/kernel", "/x"), "/proc or /sys".into()),
        (own("/proc/self/root", "/x"), "link".into()),
    ] {
        let from = wanted.from.display().to_string();
        match (lab.launch(&again(&lab, wanted)), why.is_empty()) {
            // Up from the root is the root.
            (Ok(mut container), true) => {
                assert_eq!(container.connection.sh("cat /x/etc/group | head -n 1"), "root:x:0:\n");
            }
            (Err((doing, text)), false) => {
                assert!(doing.contains(&from) && text.contains(&why), "{doing}: {text}");
            }
            (made, _) => panic!("{from}: {:?}", made.err()),
        }
    }
}

/// An app may put a link in the place of a directory that it can write to, after somebody has looked
/// whether that may be a volume: it leads nowhere.
#[test]
fn a_volume_is_never_reached_through_a_link() {
    let lab = Lab::new();
    let (volume, secret) = (lab.dir.join("volume"), lab.dir.join("secret"));
    for dir in [&volume.join("data"), &secret.join("data")] {
        fs::create_dir_all(dir).expect("directory");
        fs::write(dir.join("file"), dir.display().to_string()).expect("file");
    }
    let real =
        |from: &std::path::Path| Bind { origin: Origin::Real, mapped: true, ..bind(from, "/data") };
    let mut container = lab.launch(&again(&lab, real(&volume.join("data")))).expect("a container");
    let said = container.connection.sh("cat /data/file; echo x > /data/new && echo written");
    assert_eq!(said, format!("{}written\n", volume.join("data").display()));
    drop(container);
    fs::remove_dir_all(volume.join("data")).expect("swapped");
    symlink(secret.join("data"), volume.join("data")).expect("link");
    let (_, last) = lab.launch(&again(&lab, real(&volume.join("data")))).err().expect("refused");
    assert!(last.contains("a link is on the way to the source"), "{last}");
    fs::remove_file(volume.join("data")).expect("swapped");
    fs::remove_dir(&volume).expect("swapped");
    symlink(&secret, &volume).expect("link");
    let (_, between) = lab.launch(&again(&lab, real(&volume.join("data")))).err().expect("refused");
    assert!(between.contains("a link is on the way to the source"), "{between}");
}

#[test]
fn a_hostile_link_in_the_way_of_a_target_leads_nowhere_but_inside() {
    let lab = Lab::new();
    let (canary, volume) = (lab.dir.join("canary"), lab.dir.join("volume"));
    for dir in [&canary, &volume] {
        fs::create_dir(dir).expect("directory");
    }
    fs::write(volume.join("file"), "volume\n").expect("file");
    let lower = lab.lower();
    let up = format!("../../../../../../../../..{}", canary.display());
    symlink(&canary, lower.join("absolute")).expect("link");
    symlink(up, lower.join("relative")).expect("link");
    symlink("loop", lower.join("loop")).expect("link");
    symlink("../../../home", lower.join("within")).expect("link");
    for to in ["/absolute", "/absolute/sub", "/relative", "/relative/sub/sub", "/loop/x"] {
        let made = lab.launch(&again(&lab, bind(&volume, to)));
        let (doing, why) = made.err().unwrap_or_else(|| panic!("{to} was mounted"));
        assert!(doing.contains(to) && !why.is_empty(), "{to}: {doing}: {why}");
    }
    let mut container = lab.launch(&again(&lab, bind(&volume, "/within/sub"))).expect("container");
    assert_eq!(container.connection.sh("cat /home/sub/file"), "volume\n");
    assert_eq!(fs::read_dir(&canary).expect("canary").count(), 0);
}
