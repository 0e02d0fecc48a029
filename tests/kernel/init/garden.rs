//! What Garden's containers may do beyond an app's.

use super::lab::*;
use super::probe;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;
use terrarium::init::proto::{Ask, Bind, FailKind, Origin, Plan};
use terrarium::model::process::{ProcessSpec, WindowSize};
use terrarium::unit::{IdMap, IdRange};

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
        chown(lab.dir.join(dir), Some(0), Some(0)).expect("chown");
    }
    let all: Vec<u8> = (0..64).collect();
    let users = capabilities().into_iter().chain([21]).collect();
    let mut plan = Plan {
        ids: IdMap::Range(IdRange { base: 0 }),
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
        let plan = Plan { ids: IdMap::Range(IdRange { base }), privileged, ..lab.plan() };
        let (_, why) = lab.launch(&plan).err().expect("refused");
        assert!(why.contains("cannot be mapped"), "{why}");
        fs::remove_file(lab.dir.join("depot/sock")).expect("old socket");
    }
}

/// A lab whose container has Garden's ids, and its plan.
fn with_gardens_ids() -> (Lab, Plan) {
    let lab = Lab::new();
    for dir in ["w/upper", "w/work", "depot/init"] {
        let root = Some(IdMap::NOBODYS);
        chown(lab.dir.join(dir), root, root).expect("chown");
    }
    let plan = Plan {
        ids: IdMap::Garden,
        capabilities: capabilities(),
        user_capabilities: capabilities(),
        no_new_privs: false,
        ..lab.plan()
    };
    (lab, plan)
}

/// User and group of a file of the box.
fn owner(path: impl AsRef<Path>) -> (u32, u32) {
    let file = fs::symlink_metadata(path).expect("is there");
    (file.uid(), file.gid())
}

#[test]
fn gardens_ids_move_root_alone() {
    let (lab, mut plan) = with_gardens_ids();
    let dir = lab.dir.join("volume");
    for (name, owner) in [("", 1000), ("of-1000", 1000), ("of-root", 0)] {
        fs::create_dir(dir.join(name)).expect("directory");
        chown(dir.join(name), Some(owner), Some(owner)).expect("chown");
        fs::set_permissions(dir.join(name), fs::Permissions::from_mode(0o700)).expect("mode");
    }
    let bind = |to: &str, mapped| Bind {
        from: dir.clone(),
        origin: Origin::Host,
        to: to.into(),
        read_only: false,
        mapped,
        ours: false,
    };
    plan.binds = vec![bind("/volume", false), bind("/mapped", true)];
    let mut container = lab.launch(&plan).expect("a container");
    let inside = &mut container.connection;
    for file in ["uid_map", "gid_map"] {
        let map = inside.sh(&format!("tr -s ' ' < /proc/self/{file}"));
        assert_eq!(map, " 0 4294967294 1\n 1 1 4294967293\n", "{file}");
    }
    assert_eq!(inside.sh("cat /proc/self/setgroups"), "allow\n");
    assert_eq!(inside.sh_as("vcap", "id -G"), "2000 29 44\n");

    // Files of the image have their owners, and keep them when they are copied to be changed.
    let said = inside.sh("chmod 700 /home/vcap /etc/passwd; stat -c %u:%g /home/vcap /etc/passwd");
    assert_eq!(said, "2000:2000\n0:0\n");
    assert_eq!(owner(lab.upper().join("home/vcap")), (2000, 2000));
    assert_eq!(owner(lab.upper().join("etc/passwd")), (IdMap::NOBODYS, IdMap::NOBODYS));
    assert_eq!(inside.sh("touch /made; mkdir /dir; chown 65535:7 /dir; stat -c %u /made"), "0\n");
    assert_eq!(owner(lab.upper().join("made")), (IdMap::NOBODYS, IdMap::NOBODYS));
    assert_eq!(owner(lab.upper().join("dir")), (65_535, 7));
    // What only the container has.
    let said = inside.sh("stat -c %u:%g /dev /dev/null /dev/shm / /tmp");
    assert_eq!(said, "0:0\n0:0\n0:0\n0:0\n0:0\n");

    // Who owns a directory of the box inside is who owns it outside; root is a stranger there.
    let said = inside.sh_as("1000:1000", "touch /volume/of-1000/file && ls -n /volume");
    assert!(said.contains("1000     1000") && !said.contains("denied"), "{said}");
    assert_eq!(owner(dir.join("of-1000/file")), (1000, 1000));
    let said = inside
        .sh("touch /volume/of-root/file; chown 0 /volume/of-root; stat -c %u /mapped/of-root");
    assert!(said.contains("denied") && said.contains("not permitted"), "{said}");
    assert!(said.ends_with("\n0\n"), "{said}");
    assert!(!dir.join("of-root/file").exists());
    // The price: it is the master of all others' files.
    assert_eq!(inside.sh("ls /volume/of-1000"), "file\n");

    // So are processes, and pid 1.
    let (_, fds) = inside.start(ProcessSpec {
        user: "1000:1000".into(),
        stdin: true,
        ..sh("echo stands; read line")
    });
    read_until(&fds[0], "stands");
    let children = format!("/proc/{0}/task/{0}/children", container.pid);
    let children = fs::read_to_string(children).expect("children");
    for (pid, user) in
        [(container.pid.to_string().as_str(), IdMap::NOBODYS), (children.trim(), 1000)]
    {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("status");
        let is = format!("\nUid:\t{user}\t{user}\t{user}\t{user}\n");
        assert!(status.contains(&is), "{status}");
    }
}

#[test]
fn a_users_id_goes_as_far_as_the_containers_map() {
    let (lab, plan) = with_gardens_ids();
    let mut container = lab.launch(&plan).expect("a container");
    let inside = &mut container.connection;
    let passwd = "far:x:1000000000:70000::/home/far:/bin/sh\nout:x:4294967294:0::/:\n";
    inside.sh(&format!("printf '{passwd}' >> /etc/passwd; echo 'more:x:80000:far' >> /etc/group"));
    let script = "id -u; id -g; grep Groups /proc/self/status; pwd; echo x > /dev/stdout";
    for (user, said) in [
        ("1000000000", "1000000000\n70000\nGroups:\t80000 \n/home/far\nx\n"),
        ("far", "1000000000\n70000\nGroups:\t80000 \n/home/far\nx\n"),
        ("4294967293:65536", "4294967293\n65536\nGroups:\t \n/\nx\n"),
    ] {
        assert_eq!(inside.sh_as(user, script), said, "{user}");
    }
    assert_eq!(owner(lab.upper().join("home/far")), (1_000_000_000, 70_000));
    for user in ["out", "4294967294", "4294967295", "0:4294967294"] {
        let wanted = ProcessSpec { user: user.into(), ..sh("id") };
        let (kind, why) = inside.refused(Ask::Start(wanted));
        assert_eq!(kind, FailKind::UserNotFound, "{user}");
        assert!(why.contains("from 0 to 4294967293"), "{user}: {why}");
    }
    drop(container);

    // With ids of its own a container has fewer.
    let lab = Lab::new();
    let mut container = lab.container();
    let wanted = ProcessSpec { user: "1000000000".into(), ..sh("id") };
    let (kind, why) = container.connection.refused(Ask::Start(wanted));
    assert_eq!(kind, FailKind::UserNotFound);
    assert!(why.contains("0 to 65535") && why.contains("id_mapping"), "{why}");
}

#[test]
fn a_terminal_is_the_users_with_gardens_ids_too() {
    let (lab, plan) = with_gardens_ids();
    let mut container = lab.launch(&plan).expect("a container");
    let mut wanted = sh("stat -c %u:%g:%a $(tty)");
    wanted.user = "1000:1000".into();
    wanted.tty = Some(WindowSize { rows: 10, columns: 20 });
    assert_eq!(container.connection.run(wanted).out, "1000:5:620\r\n");
}

#[test]
fn pid_one_has_the_name_that_the_plan_says() {
    let lab = Lab::new();
    let name = |plan: &Plan| {
        let _ = fs::remove_file(lab.dir.join("depot/sock"));
        super::reset_writable(&lab);
        let mut container = lab.launch(plan).expect("a container");
        let said =
            container.connection.sh("sed -n 's/^Name:.//p' /proc/1/status /proc/self/status");
        let outside = fs::read_to_string(format!("/proc/{}/comm", container.pid)).expect("comm");
        assert_eq!(said, format!("{outside}sed\n"), "what it starts is named after its program");
        outside
    };
    assert_eq!(name(&lab.plan()), "terrarium\n");
    assert_eq!(
        name(&Plan { init_name: "wshd-1234567890".into(), ..lab.plan() }),
        "wshd-1234567890\n"
    );
    for long in ["wshd-12345678901", "w\0"] {
        let _ = fs::remove_file(lab.dir.join("depot/sock"));
        super::reset_writable(&lab);
        let plan = Plan { init_name: long.into(), ..lab.plan() };
        let (doing, _) = lab.launch(&plan).err().expect("refused");
        assert!(doing.starts_with("take the name `w"), "{doing}");
    }
}

#[test]
fn nothing_runs_without_the_profile_that_the_plan_says() {
    let lab = Lab::new();
    let plan = Plan { apparmor: Some("terrarium-has-no-such".into()), ..lab.plan() };
    let mut container = lab.launch(&plan).expect("a container");
    let inside = &mut container.connection;
    for user in ["root", "vcap"] {
        let wanted = ProcessSpec { user: user.into(), ..sh("touch /ran") };
        let (kind, text) = inside.refused(Ask::Start(wanted));
        assert_eq!(kind, FailKind::System, "{text}");
        assert!(text.starts_with("cannot put the process under its AppArmor profile: "), "{text}");
        assert!(!text.contains("denied") && !text.contains("descriptor"), "{text}");
    }
    assert!(!lab.upper().join("ran").exists());
}
