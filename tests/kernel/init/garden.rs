//! What Garden's containers may do beyond an app's.

use super::lab::*;
use super::probe;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use terrarium::init::proto::Plan;
use terrarium::unit::IdRange;

/// Guardian's: an app's and net_raw, mknod, audit_write, setfcap.
fn capabilities() -> Vec<u8> {
    CAPABILITIES.into_iter().chain([13, 27, 29, 31]).collect()
}

#[test]
fn a_set_user_id_program_gives_rights_in_gardens_posture_alone() {
    for no_new_privs in [true, false] {
        let lab = Lab::new();
        let program = lab.lower().join("bin/as-root");
        fs::copy(std::env::current_exe().expect("own program"), &program).expect("copy");
        fs::set_permissions(&program, fs::Permissions::from_mode(0o4755)).expect("mode");
        let mut plan = lab.plan();
        (plan.no_new_privs, plan.capabilities) = (no_new_privs, capabilities());
        plan.user_capabilities = capabilities();
        let mut container = lab.launch(&plan).expect("a container");
        let inside = &mut container.connection;
        let said = inside.run(probe::identity("/bin/as-root", "vcap")).out;
        let all = "00000000a80425fb";
        let (uid, effective) = if no_new_privs { (2000, "0000000000000000") } else { (0, all) };
        for (key, value) in [
            ("Uid", format!("2000\t{uid}\t{uid}\t{uid}")),
            ("CapEff", effective.into()),
            ("CapInh", "0000000000000000".into()),
            ("CapBnd", all.into()),
            ("NoNewPrivs", u8::from(no_new_privs).to_string()),
            ("Seccomp", "2".into()),
        ] {
            assert!(said.contains(&format!("{key}:\t{value}\n")), "{key}: {said}");
        }
    }
}

#[test]
fn the_kernel_gives_a_garden_container_no_more_calls_than_an_app() {
    let lab = Lab::new();
    let app = probe::answers(&lab, "root");
    fs::remove_file(lab.dir.join("depot/sock")).expect("old socket");
    super::reset_writable(&lab);
    let mut plan = lab.plan();
    (plan.no_new_privs, plan.capabilities) = (false, capabilities());
    let garden = probe::answers_of(&lab, plan, "root");
    let differ: Vec<_> =
        app.lines().zip(garden.lines()).filter(|(a, b)| a != b && a.contains('=')).collect();
    assert_eq!(differ, [("socket raw=1", "socket raw=0")], "{garden}");
}

#[test]
fn a_privileged_container_has_the_boxs_root() {
    let lab = Lab::new();
    for dir in ["w", "w/upper", "w/work", "depot/init"] {
        std::os::unix::fs::chown(lab.dir.join(dir), Some(0), Some(0)).expect("chown");
    }
    let all: Vec<u8> = (0..64).collect();
    let users = capabilities().into_iter().chain([21]).collect();
    let mut plan = Plan {
        ids: IdRange { base: 0 },
        capabilities: all,
        user_capabilities: users,
        privileged: true,
        no_new_privs: false,
        masked: Vec::new(),
        read_only: Vec::new(),
        ..lab.plan()
    };
    plan.binds.push(probe::bind());
    let mut container = lab.launch(&plan).expect("a container");
    let text = fs::read_to_string("/proc/self/status").expect("status");
    let ours = text.lines().find_map(|line| line.strip_prefix("CapPrm:\t")).expect("a set");
    let inside = &mut container.connection;
    for (user, effective, bounding) in
        [("root", ours, ours), ("vcap", "0000000000000000", "00000000a82425fb")]
    {
        let said = inside.run(probe::identity("/probe", user)).out;
        for (key, value) in [
            ("CapEff", effective),
            ("CapInh", "0000000000000000"),
            ("CapBnd", bounding),
            ("NoNewPrivs", "0"),
            ("Seccomp", "0"),
        ] {
            assert!(said.contains(&format!("{key}:\t{value}\n")), "{user}: {key}: {said}");
        }
    }
    assert_eq!(inside.sh("cat /proc/self/uid_map | tr -s ' '"), " 0 0 4294967295\n");
    let said = inside.sh(
        "mkdir /m && mount -t tmpfs t /m && touch /m/x && umount /m; grep ' /sys ' /proc/mounts; \
         test -w /proc/sys/vm/swappiness; echo $?; stat -c '%t:%T %u' /dev/fuse; ls -d /proc/1; \
         hostname; ls /proc | grep -c '^[0-9]'; touch /made; stat -c %u /made /bin/busybox",
    );
    assert!(said.contains(" /sys sysfs ro,nosuid,nodev,noexec"), "{said}");
    assert!(said.contains("\n0\na:e5 0\n/proc/1\nweb-0-3f2a\n"), "{said}");
    assert!(said.ends_with("\n0\n0\n") && !said.contains("denied"), "{said}");
    // Its own world all the same.
    let spaces = inside.sh("readlink /proc/self/ns/pid /proc/self/ns/net /proc/self/ns/mnt");
    for (space, of) in spaces.lines().zip(["pid", "net", "mnt"]) {
        let host = fs::read_link(format!("/proc/self/ns/{of}")).expect("link");
        assert_ne!(space, host.to_str().expect("UTF-8"));
    }
}

#[test]
fn the_boxs_ids_are_for_privileged_containers_alone() {
    let lab = Lab::new();
    for (base, privileged) in [(0, false), (BASE, true)] {
        let plan = Plan { ids: IdRange { base }, privileged, ..lab.plan() };
        let (_, why) = lab.launch(&plan).err().expect("refused");
        assert!(why.contains("cannot be mapped"), "{why}");
        fs::remove_file(lab.dir.join("depot/sock")).expect("old socket");
    }
}
