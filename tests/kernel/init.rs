//! Containers as their pid 1 builds and serves them, seen from inside and from the box.

mod binds;
mod garden;
mod lab;
mod own;
mod probe;

use lab::*;
use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::os::unix::process::CommandExt;
use std::process::Command;
use terrarium::init::message;
use terrarium::init::proto::*;
use terrarium::model::process::{ExitStatus, ProcessSpec, Rlimit, WindowSize};
use terrarium::sys::{fd, process};

/// Errors as the kernel numbers them.
const EPERM: &str = "1";
const EACCES: &str = "13";
const ENOSYS: &str = "38";

#[test]
fn a_program_says_hello_in_a_world_of_its_own() {
    let lab = Lab::new();
    let mut container = lab.container();
    let inside = &mut container.connection;
    let ran = inside.run(spec("echo", &["hello", "world"]));
    assert_eq!(
        ran,
        Ran { status: ExitStatus::Exited(0), out: "hello world\n".into(), err: "".into() }
    );
    // Only pid 1, the shell and what it runs.
    let pids = inside.sh("ls /proc > /tmp/listed; grep -c '^[0-9]' /tmp/listed");
    assert_eq!(pids, "3\n");
    assert_eq!(inside.sh("cat /proc/1/comm; hostname"), "terrarium\nweb-0-3f2a\n");
    let net = inside.sh("ip -o address; ip route; ping -V");
    assert!(net.contains("127.0.0.1/8") && net.contains("10.254.0.2/30"), "{net}");
    assert!(net.contains("default via 10.254.0.1 dev eth0"), "{net}");
    let mounts = inside.sh("cat /proc/mounts");
    assert!(
        !mounts.contains("ext4") && !mounts.contains(lab.dir.to_str().expect("path")),
        "{mounts}"
    );
    let listed: Vec<&str> = mounts.lines().filter_map(|line| line.split(' ').nth(1)).collect();
    let wanted = ["/", "/proc", "/sys", "/dev", "/dev/pts", "/dev/shm", "/dev/mqueue"];
    assert_eq!(&listed[..7], wanted, "{mounts}");
}

#[test]
fn ids_inside_are_others_outside() {
    let lab = Lab::new();
    let mut container = lab.container();
    let inside = &mut container.connection;
    assert_eq!(
        inside
            .sh_as("vcap", "id -u; echo x > /home/vcap/file; ls -ln /home/vcap/file | tr -s \" \" | cut -d \" \" -f 1-4"),
        "2000\n-rw-r--r-- 1 2000 2000\n"
    );
    assert_eq!(inside.sh("echo y > /root/file; chown 33:44 /root/file; echo ok"), "ok\n");
    let owner = |path: &str| {
        let found = fs::metadata(lab.upper().join(path)).expect(path);
        (found.uid() - BASE, found.gid() - BASE)
    };
    assert_eq!(owner("home/vcap/file"), (2000, 2000));
    assert_eq!(owner("root/file"), (33, 44));
    // What the layer's root owns is the container's root's.
    assert_eq!(inside.sh("stat -c %u:%g /bin/busybox /etc/passwd"), "0:0\n0:0\n");
}

/// Lowers pid 1's limit of open files, as root inside may; its end must come by itself.
fn ends_with_open_files(limit: usize, wake: impl FnOnce(&Lab, &mut Connection)) {
    let lab = Lab::new();
    let mut container = lab.container();
    let (pid, files) = (format!("--pid={}", container.pid), format!("--nofile={limit}:"));
    let mut prlimit = std::process::Command::new("prlimit");
    // Its ids are what root inside has, too: that is all that the kernel asks for.
    let lowered = prlimit.args([pid, files]).uid(BASE).gid(BASE).status();
    assert!(lowered.expect("prlimit of util-linux").success());
    wake(&lab, &mut container.connection);
    assert!(fd::wait_readable(&container.pidfd, 30_000).expect("poll"), "it goes on, deaf");
    let end = process::wait_pidfd(&container.pidfd).expect("our child");
    assert_eq!(end, Some(process::Ended::Exited(1)), "of itself");
}

#[test]
fn pid_one_ends_when_its_open_files_are_taken_away() {
    // What is under way when it happens is answered or not: it may have noticed before it is asked.
    ends_with_open_files(0, |_, connection| drop(connection.try_tell(Ask::List)));
    // Room for what it has, and for nobody else: descriptors are given out from below.
    ends_with_open_files(4, |lab, _| drop(Connection::attempt(&lab.dir)));
}

#[test]
fn the_kernels_files_are_masked_or_read_only() {
    let lab = Lab::new();
    let mut container = lab.container();
    let inside = &mut container.connection;
    let masked = inside.sh("cat /proc/keys /proc/timer_list; ls -A /sys/firmware; echo end");
    assert_eq!(masked, "end\n");
    // As runc does it: files are the null device, directories an empty tmpfs.
    let masked = inside
        .sh("stat -c %t:%T /proc/keys; echo x > /proc/keys && echo gone; chmod 600 /proc/keys; \
         stat -f -c %T /sys/firmware; touch /sys/firmware/x");
    assert!(masked.starts_with("1:3\ngone\n") && masked.contains("\ntmpfs\n"), "{masked}");
    assert_eq!(masked.matches("Read-only").count(), 2, "{masked}");
    for file in
        ["/proc/sys/kernel/core_pattern", "/proc/sysrq-trigger", "/proc/sys/kernel/hostname"]
    {
        let said = inside.sh(&format!("echo x > {file}"));
        assert!(
            ["Read-only", "denied", "nonexistent"].iter().any(|why| said.contains(why)),
            "{file}: {said}"
        );
    }
    let said =
        inside.sh("mkdir /sys/x; echo x > /sys/kernel/uevent_helper; mkdir /sys/fs/cgroup/x");
    assert_eq!(
        said.matches("Read-only").count()
            + said.matches("nonexistent").count()
            + said.matches("No such").count(),
        3,
        "{said}"
    );
}

#[test]
fn devices_work_and_no_others_can_be_made() {
    let lab = Lab::new();
    let mut container = lab.container();
    let inside = &mut container.connection;
    for user in ["root", "vcap"] {
        let script = "echo x > /dev/null && head -c 3 /dev/zero | wc -c && head -c 5 /dev/urandom | wc -c \
                      && echo full > /dev/full; echo a > /dev/shm/a && cat /dev/shm/a; rm /dev/shm/a; \
                      echo out > /dev/stdout; ls /dev | tr '\\n' ' '; stat -c %a:%u /dev/shm /tmp /dev";
        let said = inside.sh_as(user, script);
        assert!(said.starts_with("3\n5\n"), "{said}");
        assert!(said.contains("No space left"), "{said}");
        assert!(said.contains("\na\nout\nfd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero "), "{said}");
        assert!(said.contains("1777:0\n755:0\n755:0\n"), "{said}");
    }
    let said = inside.sh("mknod /tmp/sda b 8 0; mknod /dev/mem c 1 1; mount -t tmpfs t /tmp; unshare -U true; unshare -m true; dd if=/dev/zero of=/dev/shm/big bs=64k count=17");
    assert_eq!(said.matches("not permitted").count(), 4, "{said}");
    assert!(said.contains("mount: permission denied"), "{said}");
    assert!(said.contains("No space left"), "{said}");
}

#[test]
fn what_the_kernel_must_not_give_it_does_not() {
    let lab = Lab::new();
    for user in ["root", "vcap"] {
        let answers = probe::answers(&lab, user);
        let answer = |name: &str| {
            let found = answers.lines().find_map(|line| line.strip_prefix(&format!("{name}=")));
            found.unwrap_or_else(|| panic!("{name} in {answers}")).to_owned()
        };
        for name in [
            "keyctl",
            "add_key",
            "bpf",
            "perf_event_open",
            "userfaultfd",
            "io_uring_setup",
            "mount",
            "umount",
            "open_tree",
            "fsopen",
            "setns",
            "pivot_root",
            "open_by_handle_at",
            "init_module",
            "kexec_load",
            "unshare user",
            "unshare time",
            "clone user",
            "socket packet",
            "socket alg",
            "socket vsock",
            "socket raw",
            "socket high bits",
            "TIOCSTI",
            "TIOCSTI high bits",
            "TIOCLINUX",
            "SNAP_CREATE",
            "SUBVOL_CREATE",
            "SNAP_DESTROY",
            "SNAP_CREATE_V2",
            "SUBVOL_CREATE_V2",
            "SNAP_DESTROY_V2",
            "personality",
            "ptrace pid 1",
            "ptrace seize pid 1",
            "pidfd_getfd",
            "process_vm_readv pid 1",
        ] {
            assert_eq!(answer(name), EPERM, "{user}: {name}");
        }
        for name in ["clone3", "young call"] {
            assert_eq!(answer(name), ENOSYS, "{user}: {name}");
        }
        for name in ["unshare files", "socket inet", "socket netlink"] {
            assert_eq!(answer(name), "0", "{user}: {name}");
        }
        for name in ["exe", "mem", "environ", "maps", "root", "cwd", "fd", "ns/mnt"] {
            assert!(
                [EACCES, EPERM].contains(&&*answer(&format!("/proc/1/{name}"))),
                "{user}: {name}: {answers}"
            );
        }
        assert!([EACCES, EPERM].contains(&&*answer("write exe")), "{user}");
        fs::remove_file(lab.dir.join("depot/sock")).expect("old socket");
        reset_writable(&lab);
    }
}

/// Makes upper and work fresh for a second container.
fn reset_writable(lab: &Lab) {
    for dir in ["w/upper", "w/work"] {
        fs::remove_dir_all(lab.dir.join(dir)).expect("remove");
        fs::create_dir(lab.dir.join(dir)).expect("make");
        chown(lab.dir.join(dir), Some(BASE), Some(BASE)).expect("chown");
    }
}

#[test]
fn a_process_has_three_descriptors_few_capabilities_and_no_new_ones() {
    let lab = Lab::new();
    let mut container = lab.container();
    let inside = &mut container.connection;
    // Descriptor 3 is the listing's own.
    assert_eq!(inside.sh("ls /proc/self/fd | tr '\\n' ' '"), "0 1 2 3 ");
    let granted = CAPABILITIES.iter().fold(0u64, |set, n| set | 1 << n);
    for (user, permitted) in [("root", granted), ("vcap", 0)] {
        let status = inside.sh_as(user, "cat /proc/self/status; umask; ulimit -c");
        for (key, value) in [
            ("CapInh", "0000000000000000".into()),
            ("CapAmb", "0000000000000000".into()),
            ("CapPrm", format!("{permitted:016x}")),
            ("CapEff", format!("{permitted:016x}")),
            ("CapBnd", format!("{granted:016x}")),
            ("NoNewPrivs", "1".into()),
            ("Seccomp", "2".into()),
            ("SigBlk", "0000000000000000".into()),
            ("SigIgn", "0000000000000000".into()),
        ] {
            assert!(status.contains(&format!("{key}:\t{value}\n")), "{user}: {key}: {status}");
        }
        assert!(status.ends_with("0022\n0\n"), "{status}");
    }
    let mut limited = sh("ulimit -n; ulimit -Hn");
    limited.nofile = Some(333);
    assert_eq!(inside.run(limited).out, "333\n333\n");
}

/// Soft and hard values of a `/proc/PID/limits`, in the kernel's order.
fn limits_in(text: &str) -> Vec<(u64, u64)> {
    let value = |word: Option<&str>| match word.expect("a value") {
        "unlimited" => u64::MAX,
        number => number.parse().expect("a number"),
    };
    let both = |line: &str| {
        let mut words = line[26..].split_whitespace();
        (value(words.next()), value(words.next()))
    };
    text.lines().skip(1).take(15).map(both).collect()
}

/// Whether this process, and so the daemon of a test, may raise hard limits.
fn may_raise_limits() -> bool {
    const SYS_RESOURCE: u8 = 24;
    terrarium::sys::caps::permitted().expect("capabilities").has(SYS_RESOURCE)
}

#[test]
fn every_limit_of_a_process_is_what_was_asked_for_or_what_the_box_allows() {
    let lab = Lab::new();
    let mut container = lab.container();
    let of =
        |pid: &str| limits_in(&fs::read_to_string(format!("/proc/{pid}/limits")).expect("limits"));
    let (ours, makers) = (of(&container.pid.to_string()), of("self"));
    let highest = |kind| match kind {
        Rlimit::Nofile => {
            let text = fs::read_to_string("/proc/sys/fs/nr_open").expect("nr_open");
            text.trim().parse().expect("a number")
        }
        _ => u64::MAX,
    };
    for kind in Rlimit::ALL {
        let (soft, hard) = makers[kind as usize];
        // Only who has CAP_SYS_RESOURCE can give more than it has.
        let hard = match kind {
            // More could be had by the process, and not used in its user namespace.
            Rlimit::Msgqueue | Rlimit::Sigpending => soft,
            _ if may_raise_limits() => hard.max(highest(kind)),
            _ => hard,
        };
        assert_eq!(ours[kind as usize].1, hard, "{kind} of pid 1");
        let soft = if kind == Rlimit::Nofile { soft.max(4096.min(hard)) } else { soft };
        assert_eq!(ours[kind as usize].0, soft, "{kind} of pid 1");
    }
    let inside = &mut container.connection;
    let small =
        [100, 1 << 20, 1 << 27, 1 << 22, 4096, 1 << 26, 50, 77, 4096, 1 << 28, 5, 6, 7, 1, 2];
    for wish in [small, [u64::MAX; 15]] {
        let mut asked = spec("/bin/cat", &["/proc/self/limits"]);
        asked.user = "vcap".into();
        asked.nofile = Some(333);
        asked.rlimits = Rlimit::ALL.into_iter().zip(wish).collect();
        let id = asked.id.clone();
        let (answer, fds) = inside.ask(Ask::Start(asked));
        let Answer::Started { lowered, .. } = answer else { panic!("{answer:?}") };
        let has = limits_in(&read_all(&fds[0]));
        assert_eq!(inside.ended(&id), ExitStatus::Exited(0));
        for (kind, wish) in Rlimit::ALL.into_iter().zip(wish) {
            let hard = ours[kind as usize].1;
            let value = wish.min(hard);
            assert_eq!(has[kind as usize], (value, value), "{kind}");
            assert_eq!(lowered.get(&kind).copied(), (value < wish).then_some(value), "{kind}");
        }
    }
    let kept = limits_in(&inside.sh("cat /proc/self/limits"));
    let others =
        Rlimit::ALL.into_iter().filter(|kind| ![Rlimit::Nofile, Rlimit::Core].contains(kind));
    for kind in others {
        assert_eq!(kept[kind as usize], makers[kind as usize], "{kind} of who did not ask");
    }
    let (soft, hard) = kept[Rlimit::Nofile as usize];
    assert_eq!(soft, makers[Rlimit::Nofile as usize].0);
    assert_eq!(hard, makers[Rlimit::Nofile as usize].1.max(ours[7].1.min(1 << 20)));
    assert_eq!(kept[Rlimit::Core as usize], (0, 0));
}

#[test]
fn what_a_container_takes_of_a_users_share_is_not_the_share_of_the_hosts_root() {
    let lab = Lab::new();
    let mut plan = lab.plan();
    plan.binds.push(probe::bind());
    let mut container = lab.launch(&plan).expect("a container");
    let (_, fds) = container.connection.start(probe::hoarder());
    let said = read_until(&fds[0], " kept");
    assert!(!said.contains("\n0 kept"), "{said}");
    assert!(probe::can_watch(), "{said}");
}

#[test]
fn that_nobody_is_left_is_told_when_the_last_orphan_has_ended() {
    let lab = Lab::new();
    let mut container = lab.container();
    let inside = &mut container.connection;
    assert_eq!(inside.ask(Ask::Empty).0, Answer::Done);
    let orphan = sh("(mkfifo /go; echo up; read x < /go) & exit 0");
    let id = orphan.id.clone();
    let (_, fds) = inside.start(orphan);
    read_until(&fds[0], "up\n");
    inside.ended(&id);
    // Those who wait and go are forgotten; too many at once are refused.
    let mut other = Connection::new(&lab.dir);
    (0..64).for_each(|_| other.tell(Ask::Empty));
    assert_eq!(other.refused(Ask::Empty).0, FailKind::Refused);
    drop(other);
    // The turn of pid 1 that answers the first has seen the end of that connection too.
    inside.list();
    inside.list();
    inside.tell(Ask::Empty);
    let mut other = Connection::new(&lab.dir);
    let go = other.run(sh("echo x > /go; echo gone"));
    assert_eq!(go.out, "gone\n");
    assert_eq!(inside.answer(), Answer::Done);
    assert_eq!(inside.sh("set -- /proc/[0-9]*; echo $#"), "2\n");
}

#[test]
fn ended_processes_that_nobody_forgot_make_way_for_new_ones() {
    let lab = Lab::new();
    let mut container = lab.container();
    let inside = &mut container.connection;
    let runs = spec("sleep", &["1000"]);
    let oldest = runs.id.clone();
    inside.start(runs);
    let mut last = String::new();
    for _ in 0..300 {
        let one = spec("true", &[]);
        last = one.id.clone();
        inside.start(one);
        inside.ended(&last);
    }
    let list = inside.list();
    assert_eq!(list.len(), 256);
    assert_eq!((&list[0].id, list[0].ended), (&oldest, None), "what runs stays");
    assert_eq!(list[255].id, last);
    let files = fs::read_dir(lab.depot()).expect("depot").count();
    assert_eq!(files, 255, "one exit file each");
}

#[test]
fn ends_are_told_as_they_were_and_are_in_the_depot_first() {
    let lab = Lab::new();
    let mut container = lab.container();
    let inside = &mut container.connection;
    assert_eq!(inside.run(sh("exit 7")).status, ExitStatus::Exited(7));
    assert_eq!(inside.run(sh("kill -9 $$")).status, ExitStatus::Signaled(9));
    assert_eq!(inside.run(sh("kill -40 $$")).status, ExitStatus::Signaled(40));
    let sleeper = spec("sleep", &["1000"]);
    let id = sleeper.id.clone();
    inside.start(sleeper.clone());
    let (kind, text) = inside.refused(Ask::Start(sleeper));
    assert!(kind == FailKind::Refused && text.contains("already"), "{text}");
    assert_eq!(inside.refused(Ask::Forget { id: id.clone() }).0, FailKind::Refused);
    assert_eq!(
        inside.refused(Ask::Signal { id: id.clone(), signal: 65, group: false }).0,
        FailKind::Refused
    );
    assert_eq!(
        inside.ask(Ask::Signal { id: id.clone(), signal: 15, group: false }).0,
        Answer::Done
    );
    assert_eq!(inside.ended(&id), ExitStatus::Signaled(15));
    assert_eq!(exit_file(&lab, &id), ExitStatus::Signaled(15));
    let owner = fs::metadata(lab.depot().join(format!("{id}.exit"))).expect("exit file");
    assert_eq!((owner.uid(), owner.mode() & 0o777), (BASE, 0o600));
    let listed = inside.list();
    assert_eq!((&*listed[0].id, listed[0].ended), (&*id, Some(ExitStatus::Signaled(15))));
    assert_eq!(
        inside.refused(Ask::Signal { id: id.clone(), signal: 9, group: false }).0,
        FailKind::NoSuchProcess
    );
    // The name is free for another one, as when a daemon was killed before it could forget.
    let again = terrarium::model::process::ProcessSpec { id: id.clone(), ..sh("exit 3") };
    inside.start(again);
    assert_eq!(inside.ended(&id), ExitStatus::Exited(3));
    assert_eq!(inside.list().len(), 1);
    assert_eq!(inside.ask(Ask::Forget { id: id.clone() }).0, Answer::Done);
    assert_eq!(inside.ask(Ask::Forget { id }).0, Answer::Done);
    assert!(inside.list().is_empty());
    assert_eq!(fs::read_dir(lab.depot()).expect("depot").count(), 0);

    let ids: Vec<String> = (0..3)
        .map(|_| spec("sleep", &["1000"]))
        .map(|one| {
            let id = one.id.clone();
            inside.start(one);
            id
        })
        .collect();
    assert_eq!(inside.ask(Ask::SignalAll { signal: 9 }).0, Answer::Done);
    assert!(ids.iter().all(|id| inside.ended(id) == ExitStatus::Signaled(9)));
    assert_eq!(inside.sh("echo still here"), "still here\n");
}

#[test]
fn orphans_are_reaped() {
    let lab = Lab::new();
    let mut container = lab.container();
    let inside = &mut container.connection;
    inside.sh("i=0; while [ $i -lt 300 ]; do ( ( exit 3 ) & ); i=$((i+1)); done");
    // The last of them may be on their way; each look lets pid 1 work.
    let gone = (0..100).any(|_| inside.sh("ls /proc | grep -c '^[0-9]'") == "4\n");
    assert!(gone, "{}", inside.sh("ps"));
    assert!(inside.list().is_empty());
}

#[test]
fn a_user_is_what_the_containers_own_files_say() {
    let lab = Lab::new();
    let mut container = lab.container();
    let inside = &mut container.connection;
    let script = "id -u; id -g; cat /proc/self/status | grep Groups; echo $USER $HOME $PWD";
    for (user, said) in [
        ("root", "0\n0\nGroups:\t \nroot /root /root\n"),
        ("0", "0\n0\nGroups:\t \nroot /root /root\n"),
        ("vcap", "2000\n2000\nGroups:\t29 44 \nvcap /home/vcap /home/vcap\n"),
        ("2000", "2000\n2000\nGroups:\t29 44 \nvcap /home/vcap /home/vcap\n"),
        ("vcap:audio", "2000\n29\nGroups:\t \nvcap /home/vcap /home/vcap\n"),
        ("1000", "1000\n0\nGroups:\t \n1000 / /\n"),
        ("1000:44", "1000\n44\nGroups:\t \n1000 / /\n"),
    ] {
        assert_eq!(inside.sh_as(user, script), said, "{user}");
    }
    for user in
        ["nobody", "65536", "-1", "4294967296", "2147483648", " 0", "+0", "0x0", "00", ":0", ""]
    {
        let mut wanted = sh("id");
        wanted.user = user.into();
        assert_eq!(inside.refused(Ask::Start(wanted)).0, FailKind::UserNotFound, "{user:?}");
    }
    let hostile = [
        ("rm /etc/passwd; ln -s /dev/zero /etc/passwd", "not a regular file"),
        ("rm /etc/passwd; mkfifo /etc/passwd", "not a regular file"),
        ("rm /etc/passwd; mkdir /etc/passwd", "not a regular file"),
        ("rmdir /etc/passwd; truncate -s 10G /etc/passwd", "longer than 1 MiB"),
        ("rm /etc/passwd; ln -s /proc/self/fd/3 /etc/passwd", "cannot read"),
    ];
    // Once passwd is broken nobody can be started, so one script does each and undoes it.
    for (deed, why) in hostile {
        let mut wait = sh(&format!(
            "cp /etc/passwd /saved; {deed}; echo done; read x; rm -rf /etc/passwd; mv /saved /etc/passwd"
        ));
        wait.args[1] = wait.args[1].replace("rmdir /etc/passwd", "rm /etc/passwd");
        wait.stdin = true;
        let id = wait.id.clone();
        let (_, fds) = inside.start(wait);
        read_until(&fds[0], "done\n");
        let (kind, text) = inside.refused(Ask::Start(sh("true")));
        assert!(kind == FailKind::UserNotFound && text.contains(why), "{deed}: {text}");
        fd::write(&fds[2], b"\n").expect("let it go on");
        assert_eq!(inside.ended(&id), ExitStatus::Exited(0));
    }
    assert_eq!(inside.sh("rm /etc/passwd /etc/group; echo gone"), "gone\n");
    assert_eq!(inside.sh("id -u; pwd"), "0\n/root\n");
}

#[test]
fn programs_that_cannot_run_say_why() {
    let lab = Lab::new();
    let bin = lab.lower().join("bin");
    fs::write(bin.join("plain"), "text").expect("file");
    fs::write(bin.join("orphan"), "#!/no/such/interpreter\n").expect("file");
    fs::write(bin.join("garbage"), [1; 64]).expect("file");
    for name in ["orphan", "garbage"] {
        fs::set_permissions(bin.join(name), fs::Permissions::from_mode(0o755)).expect("mode");
    }
    let mut container = lab.container();
    let inside = &mut container.connection;
    for (program, kind) in [
        ("nothing", FailKind::ProgramNotFound),
        ("/bin/nothing", FailKind::ProgramNotFound),
        ("/bin/sh/nothing", FailKind::ProgramNotFound),
        ("plain", FailKind::NotExecutable),
        ("/bin/plain", FailKind::NotExecutable),
        ("/etc", FailKind::NotExecutable),
        ("orphan", FailKind::NotExecutable),
        ("garbage", FailKind::NotExecutable),
        ("", FailKind::Refused),
        ("a\0b", FailKind::Refused),
    ] {
        let (got, text) = inside.refused(Ask::Start(spec(program, &[])));
        assert_eq!(got, kind, "{program}: {text}");
    }
    for id in ["", "Bad", "../x", "a/b", &"x".repeat(41)] {
        let mut bad = sh("true");
        bad.id = id.into();
        assert_eq!(inside.refused(Ask::Start(bad)).0, FailKind::Refused, "{id}");
    }
    let mut bad = sh("true");
    bad.env.push(("A=B".into(), "x".into()));
    assert_eq!(inside.refused(Ask::Start(bad)).0, FailKind::Refused);
    assert!(inside.list().is_empty());
    let mut named = sh("echo $0 $A $PATH");
    named.argv0 = Some("sh".into());
    named.env =
        vec![("A".into(), "1".into()), ("A".into(), "2".into()), ("PATH".into(), "/x:/bin".into())];
    named.path = "busybox".into();
    assert_eq!(inside.run(named).out, "sh 2 /x:/bin\n");
}

#[test]
fn a_working_directory_is_inside_whatever_it_is_called() {
    let lab = Lab::new();
    let canary = lab.dir.join("canary");
    fs::create_dir(&canary).expect("canary");
    symlink(&canary, lab.lower().join("a")).expect("link");
    symlink("../../../../../..", lab.lower().join("up")).expect("link");
    let mut container = lab.container();
    let inside = &mut container.connection;
    let mut at = |dir: &str, user: &str| {
        let mut pwd = sh("pwd -P; stat -c %u:%a .");
        (pwd.dir, pwd.user) = (Some(dir.into()), user.into());
        match inside.ask(Ask::Start(pwd.clone())) {
            (Answer::Started { .. }, fds) => {
                inside.ended(&pwd.id);
                read_all(&fds[0])
            }
            (Answer::Failed { text, .. }, _) => text,
            (other, _) => panic!("{other:?}"),
        }
    };
    assert_eq!(at("/srv/app/x", "vcap"), "/srv/app/x\n2000:755\n");
    assert_eq!(at("/up/tmp", "root"), "/tmp\n0:755\n");
    for magic in ["/proc/self/cwd", "/proc/1/root", "/proc/self/fd/5", "/proc/self/fd/7/x"] {
        let said = at(magic, "root");
        assert!(said.starts_with("cannot use working directory"), "{magic}: {said}");
    }
    // The link leads nowhere inside: an error, and nothing is made outside.
    assert!(at("/a/b", "root").starts_with("cannot use working directory"));
    assert_eq!(fs::read_dir(&canary).expect("canary").count(), 0);
    assert!(at("relative", "root").contains("not absolute"));
    let said = at("/root/private", "root");
    assert!(said.starts_with("/root/private\n"), "{said}");
    // A directory that must be there is not made.
    let mut there = sh("pwd");
    there.dir_must_exist = true;
    for (dir, why) in [("/srv/nosuch/x", "is not in the container"), ("/etc/passwd/x", "directory")]
    {
        there.dir = Some(dir.into());
        let (kind, text) = inside.refused(Ask::Start(there.clone()));
        assert_eq!(kind, FailKind::NotExecutable);
        assert!(text.contains(dir) && text.contains(why), "{text}");
    }
    there.dir = Some("/srv/app/x".into());
    assert_eq!(inside.run(there).out, "/srv/app/x\n");
    assert_eq!(inside.run(sh("test -e /srv/nosuch || echo none")).out, "none\n");
}

#[test]
fn a_terminal_has_a_size_and_carries_keys() {
    let lab = Lab::new();
    let mut container = lab.container();
    let inside = &mut container.connection;
    let script =
        "stty size; tty; read x; stty size; echo got $x; ls -ln $(tty) | cut -c 1-10; exit 3";
    for user in ["root", "vcap"] {
        let mut terminal = with_tty(sh(script), 24, 80);
        terminal.user = user.into();
        let id = terminal.id.clone();
        let (_, fds) = inside.start(terminal);
        assert_eq!(fds.len(), 1);
        let said = read_until(&fds[0], "/dev/pts/");
        assert!(said.contains("24 80"), "{said}");
        let size = WindowSize { rows: 50, columns: 132 };
        assert_eq!(inside.ask(Ask::Resize { id: id.clone(), size }).0, Answer::Done);
        fd::write(&fds[0], b"keys\n").expect("type");
        let said = read_all(&fds[0]);
        assert!(
            said.contains("50 132") && said.contains("got keys") && said.contains("crw--w----"),
            "{said}"
        );
        assert_eq!(inside.ended(&id), ExitStatus::Exited(3));
    }
    // Control-C reaches the foreground process: the terminal controls the session.
    let catcher = with_tty(spec("sleep", &["1000"]), 1, 1);
    let id = catcher.id.clone();
    let (_, fds) = inside.start(catcher);
    fd::write(&fds[0], b"\x03").expect("type");
    assert_eq!(inside.ended(&id), ExitStatus::Signaled(2));
    let plain = spec("sleep", &["1000"]);
    let id = plain.id.clone();
    inside.start(plain);
    let size = WindowSize { rows: 1, columns: 1 };
    assert_eq!(inside.refused(Ask::Resize { id, size }).0, FailKind::Refused);
}

#[test]
fn standard_input_is_for_the_starter_or_empty() {
    let lab = Lab::new();
    let mut container = lab.container();
    let inside = &mut container.connection;
    assert_eq!(inside.run(spec("cat", &[])).out, "");
    let mut cat = spec("cat", &[]);
    cat.stdin = true;
    let id = cat.id.clone();
    let (_, mut fds) = inside.start(cat);
    fd::write(&fds[2], b"through").expect("write");
    drop(fds.remove(2));
    assert_eq!(read_all(&fds[0]), "through");
    assert_eq!(inside.ended(&id), ExitStatus::Exited(0));
}

#[test]
fn output_survives_a_daemon_that_goes_and_comes_back() {
    let lab = Lab::new();
    let mut container = lab.container();
    let mut counter = sh(
        "echo one; echo oops >&2; read x; echo two; read x; i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i+1)); done; echo last >&2; exit 5",
    );
    counter.stdin = true;
    let id = counter.id.clone();
    let (_, mut fds) = container.connection.start(counter);
    assert_eq!(read_until(&fds[0], "one\n"), "one\n");
    assert_eq!(read_until(&fds[1], "oops\n"), "oops\n");
    let stdin = fds.remove(2);
    drop(fds);

    // Gone. What comes now is spooled; that the daemon is away holds nobody up.
    container.connection = Connection::new(&lab.dir);
    fd::write(&stdin, b"\n").expect("write");
    let spool = lab.depot().join(format!("{id}.out"));
    while fs::read_to_string(&spool).unwrap_or_default() != "two\n" {
        container.connection.list();
    }
    // Back again.
    let inside = &mut container.connection;
    let (answer, fds) = inside.ask(Ask::Attach { id: id.clone(), never_waits: false });
    assert_eq!((answer, fds.len()), (Answer::Attached, 2));
    assert_eq!(fs::read_to_string(&spool).expect("spool"), "two\n");
    fs::remove_file(&spool).expect("take the spool");
    fd::write(&stdin, b"\n").expect("write");
    let first = read_until(&fds[0], "line 0\n");
    assert!(first.starts_with("line 0\n"));
    drop(fds);

    // Gone once more, while the pipe is full, and nobody comes until after the end.
    container.connection = Connection::new(&lab.dir);
    let inside = &mut container.connection;
    assert_eq!(inside.ended(&id), ExitStatus::Exited(5));
    assert_eq!(exit_file(&lab, &id), ExitStatus::Exited(5));
    let spooled = fs::read_to_string(&spool).expect("spool");
    let all: String = (0..20_000).map(|n| format!("line {n}\n")).collect();
    assert_eq!(first + &spooled, all);
    let errors = lab.depot().join(format!("{id}.err"));
    assert_eq!(fs::read_to_string(errors).expect("spool"), "last\n");
    // Attaching after the end finds the end.
    let (answer, fds) = inside.ask(Ask::Attach { id: id.clone(), never_waits: false });
    assert_eq!(
        (answer, read_all(&fds[0]), read_all(&fds[1])),
        (Answer::Attached, "".into(), "".into())
    );
    assert_eq!(inside.ask(Ask::Forget { id }).0, Answer::Done);
    assert_eq!(fs::read_dir(lab.depot()).expect("depot").count(), 0);
}

#[test]
fn a_flood_that_nobody_reads_is_cut_and_counted_and_stops_nobody() {
    let lab = Lab::new();
    let mut container = lab.container();
    let mut flood = sh("read x; head -c 3000000 /dev/zero | tr '\\0' x; exit 4");
    flood.stdin = true;
    let id = flood.id.clone();
    let (_, fds) = container.connection.start(flood);
    container.connection = Connection::new(&lab.dir);
    container.connection.list();
    fd::write(&fds[2], b"\n").expect("write");
    let inside = &mut container.connection;
    assert_eq!(inside.ended(&id), ExitStatus::Exited(4));
    inside.ask(Ask::Attach { id: id.clone(), never_waits: false });
    let spool = fs::read_to_string(lab.depot().join(format!("{id}.out"))).expect("spool");
    let note =
        format!("\n[terrarium: {} bytes dropped while nobody listened]\n", 3_000_000 - SPOOL_MAX);
    assert!(spool.ends_with(&note), "{}", spool.trim_start_matches('x'));
    assert_eq!(spool.len() as u64, SPOOL_MAX + note.len() as u64);
}

#[test]
fn an_app_that_never_waits_goes_on_while_its_reader_stands_still_and_no_other_does() {
    let lab = Lab::new();
    let mut container = lab.container();
    let inside = &mut container.connection;
    let waits = sh("head -c 3000000 /dev/zero");
    let never = |script: &str| ProcessSpec { never_waits: true, ..sh(script) };
    let lines = never("i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i+1)); done; exit 3");
    let flood = never("head -c 3000000 /dev/zero | tr '\\0' x >&2; exit 4");
    // Two of these fit into no page of the pipe: it is full with less than half of its bytes in it.
    let even = never("dd if=/dev/zero bs=2100 count=200; exit 5");
    let uneven = never(
        "i=0; while [ $i -lt 50 ]; do for n in 4096 1; do dd if=/dev/zero bs=$n count=1; done; i=$((i+1)); done 2> /dev/null; exit 6",
    );
    let ids = [&waits, &lines, &flood, &even, &uneven].map(|spec| spec.id.clone());
    let (_, of_even) = inside.start(even);
    let (_, of_uneven) = inside.start(uneven);
    let (_, of_waits) = inside.start(waits);
    let (_, of_lines) = inside.start(lines);
    let (_, of_flood) = inside.start(flood);
    // Nobody reads.
    assert_eq!(inside.ended(&ids[1]), ExitStatus::Exited(3));
    assert_eq!(inside.ended(&ids[2]), ExitStatus::Exited(4));
    assert_eq!(inside.ended(&ids[3]), ExitStatus::Exited(5));
    assert_eq!(inside.ended(&ids[4]), ExitStatus::Exited(6));
    let first = inside.list().into_iter().find(|process| process.id == ids[0]).expect("it");
    assert_eq!(first.ended, None);
    assert!(!fd::has_mark(&of_waits[0]) && fd::has_mark(&of_lines[0]));
    assert!(fd::has_mark(&of_flood[1]) && !fd::has_mark(&of_flood[0]));

    // What was kept and what is in the pipe is all of it, in its order.
    let read_on = |inside: &mut Connection, id: &str, err| {
        assert_eq!(inside.ask(Ask::ReadOn { id: id.into(), err }).0, Answer::Done);
        let file = lab.depot().join(format!("{id}.{}", if err { "err" } else { "out" }));
        fs::read_to_string(file).expect("a spool")
    };
    let kept = read_on(inside, &ids[1], false);
    assert!(!fd::has_mark(&of_lines[0]));
    let all: String = (0..20_000).map(|n| format!("line {n}\n")).collect();
    assert_eq!(kept + &read_all(&of_lines[0]), all);
    let kept = read_on(inside, &ids[3], false);
    assert_eq!(kept.len() + read_all(&of_even[0]).len(), 200 * 2100);
    let kept = read_on(inside, &ids[4], false);
    assert_eq!(kept.len() + read_all(&of_uneven[0]).len(), 50 * 4097);
    let kept = read_on(inside, &ids[2], true);
    let rest = read_all(&of_flood[1]).len();
    let lost = 3_000_000 - SPOOL_MAX as usize - rest;
    let note = format!("\n[terrarium: {lost} bytes dropped while nobody listened]\n");
    assert!(kept.ends_with(&note), "{}", kept.trim_start_matches('x'));
    assert_eq!(kept.len(), SPOOL_MAX as usize + note.len());

    let (kind, text) = inside.refused(Ask::ReadOn { id: "gone".into(), err: false });
    assert_eq!(kind, FailKind::NoSuchProcess, "{text}");
    let mut other = Connection::new(&lab.dir);
    let (kind, text) = other.refused(Ask::ReadOn { id: ids[0].clone(), err: false });
    assert!(kind == FailKind::Refused && text.contains("not yours"), "{text}");
}

#[test]
fn hostile_roots_never_reach_the_box() {
    let lab = Lab::new();
    let canary = lab.dir.join("canary");
    fs::create_dir(&canary).expect("canary");
    fs::write(canary.join("hosts"), "untouched").expect("canary");
    let before = fs::metadata(&canary).expect("canary").mtime();
    let source = lab.dir.join("hosts");
    fs::write(&source, "1.2.3.4 inside\n").expect("source");
    let lower = lab.lower();
    for (name, to) in [("dev", "/"), ("proc", "../../../.."), ("sys", "/etc"), ("tmp", "/var/tmp")]
    {
        let _ = fs::remove_dir(lower.join(name));
        symlink(to, lower.join(name)).expect("link");
    }
    symlink(&canary, lower.join("out")).expect("link");
    symlink(canary.join("hosts"), lower.join("etc/hosts")).expect("link");
    let mut plan = lab.plan();
    let bind = |to: &str| Bind {
        from: source.clone(),
        origin: Default::default(),
        to: to.into(),
        read_only: true,
        mapped: false,
        ours: false,
    };
    plan.binds.push(bind("/etc/hosts"));
    plan.binds.push(bind("/new/dir/hosts"));
    let mut container = lab.launch(&plan).expect("a container");
    let inside = &mut container.connection;
    let said = inside.sh("cat /etc/hosts /new/dir/hosts; stat -c %F /dev /proc /sys; echo x > /etc/hosts; stat -c %u /new /new/dir");
    assert!(
        said.starts_with("1.2.3.4 inside\n1.2.3.4 inside\ndirectory\ndirectory\ndirectory\n"),
        "{said}"
    );
    assert!(said.contains("Read-only") && said.ends_with("0\n0\n"), "{said}");
    drop(container);

    // A target behind a link that leads out does not exist inside.
    for (to, why) in [
        ("/out/hosts", "exists"),
        ("/proc/self/environ", "/proc or /sys"),
        ("/sys/kernel/x", "/proc or /sys"),
        ("/etc", "directory"),
        ("/", "not the root"),
        ("/a/../b", "without `..`"),
        ("relative", "absolute"),
        ("/bin/busybox/x", "directory"),
    ] {
        reset_writable(&lab);
        fs::remove_file(lab.dir.join("depot/sock")).expect("old socket");
        let mut plan = lab.plan();
        plan.binds.push(bind(to));
        let (doing, text) = lab.launch(&plan).err().unwrap_or_else(|| panic!("{to} was mounted"));
        assert!(doing.contains(to) && text.contains(why), "{to}: {doing}: {text}");
    }
    // Files instead of directories are replaced as well.
    for name in ["dev", "proc", "sys", "tmp"] {
        fs::remove_file(lower.join(name)).expect("remove");
        fs::write(lower.join(name), "a file").expect("file");
    }
    reset_writable(&lab);
    fs::remove_file(lab.dir.join("depot/sock")).expect("old socket");
    let mut container = lab.container();
    assert_eq!(container.connection.sh("echo ok > /dev/null; cat /proc/1/comm"), "terrarium\n");
    assert_eq!(fs::read_to_string(canary.join("hosts")).expect("canary"), "untouched");
    assert_eq!(fs::read_dir(&canary).expect("canary").count(), 1);
    assert_eq!(fs::metadata(&canary).expect("canary").mtime(), before);
    assert_eq!(fs::read_to_string(&source).expect("source"), "1.2.3.4 inside\n");
}

#[test]
fn binds_show_owners_as_asked_and_hold_their_limits() {
    let lab = Lab::new();
    let dir = lab.dir.join("volume");
    fs::create_dir(&dir).expect("volume");
    fs::write(dir.join("file"), "data").expect("file");
    fs::copy("/bin/busybox", dir.join("busybox")).expect("copy");
    fs::set_permissions(dir.join("busybox"), fs::Permissions::from_mode(0o4755)).expect("mode");
    let mut plan = lab.plan();
    for (to, read_only, mapped) in
        [("/plain", false, false), ("/mapped", false, true), ("/ro", true, true)]
    {
        plan.binds.push(Bind {
            from: dir.clone(),
            origin: Default::default(),
            to: to.into(),
            read_only,
            mapped,
            ours: false,
        });
    }
    let mut container = lab.launch(&plan).expect("a container");
    let inside = &mut container.connection;
    assert_eq!(inside.sh("stat -c %u /plain/file /mapped/file /ro/file"), "65534\n0\n0\n");
    let said =
        inside.sh("echo x > /plain/file; echo y > /ro/file; echo z > /mapped/file; cat /ro/file");
    assert!(
        said.contains("denied") && said.contains("Read-only") && said.ends_with("z\n"),
        "{said}"
    );
    assert_eq!(inside.sh_as("vcap", "/mapped/busybox id -u"), "2000\n");
    let mounts = inside.sh("grep -E ' /(plain|mapped|ro) ' /proc/mounts | cut -d ' ' -f 4");
    assert!(
        mounts.lines().count() == 3 && mounts.lines().all(|line| line.contains("nosuid,nodev")),
        "{mounts}"
    );
}

#[test]
fn a_set_up_that_fails_says_so_and_leaves_nothing() {
    let lab = Lab::new();
    let mut plan = lab.plan();
    plan.lowers.push(lab.dir.join("missing"));
    let (doing, why) = lab.launch(&plan).err().expect("refused");
    assert!(doing.contains("missing") && why.contains("No such file"), "{doing}: {why}");
    assert_eq!(fs::read_dir(lab.dir.join("scratch")).expect("scratch").count(), 0);
    fs::remove_file(lab.dir.join("depot/sock")).expect("old socket");
    let mut plan = lab.plan();
    plan.net.link = "absent".into();
    let mut setting_up = lab.spawn(&plan);
    assert!(matches!(setting_up.hear(), Some((SetUp::Born, _))));
    message::send(&setting_up.channel, &SetUp::Go, &[]).expect("send");
    match setting_up.hear() {
        Some((SetUp::Refused { doing, pid: Some(pid), .. }, _)) => {
            assert!(doing.contains("absent"), "{doing}");
            assert_eq!(process::wait(pid).expect("ours"), process::Ended::Signaled(9));
        }
        other => panic!("{:?}", other.map(|(word, _)| word)),
    }
    assert!(!setting_up.child.wait().expect("wait").success());
    fs::remove_file(lab.dir.join("depot/sock")).expect("old socket");
    reset_writable(&lab);
    // A daemon that dies during set-up takes the container with it.
    let mut setting_up = lab.spawn(&lab.plan());
    assert!(matches!(setting_up.hear(), Some((SetUp::Born, _))));
    let pid = pid_one_beside(&setting_up);
    drop(setting_up.channel);
    assert!(!setting_up.child.wait().expect("wait").success());
    assert_eq!(process::wait(pid).expect("ours"), process::Ended::Signaled(9));
    fs::remove_file(lab.dir.join("depot/sock")).expect("old socket");
    reset_writable(&lab);
    // So does a maker of pid 1 that is killed before it has let it serve.
    let mut setting_up = lab.spawn(&lab.plan());
    assert!(matches!(setting_up.hear(), Some((SetUp::Born, _))));
    let pid = pid_one_beside(&setting_up);
    setting_up.child.kill().expect("kill");
    setting_up.child.wait().expect("wait");
    assert_eq!(process::wait(pid).expect("ours"), process::Ended::Exited(1));
}

/// The pid 1 that a set-up process has made: a child of ours in a pid namespace that only it has.
fn pid_one_beside(setting_up: &SettingUp) -> i32 {
    let first = setting_up.child.id();
    let made = || fs::read_link(format!("/proc/{first}/ns/pid_for_children")).ok();
    let ours = fs::read_link("/proc/self/ns/pid").expect("link");
    for _ in 0..3000 {
        let space = made().filter(|space| *space != ours);
        let pids = fs::read_dir("/proc").expect("proc").filter_map(|entry| {
            entry.ok().and_then(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
        });
        let within = |pid: &i32| {
            let of = fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
            of.is_some() && of == space && process::parent(*pid).is_ok_and(|of| of == own_id())
        };
        if let Some(pid) = space.as_ref().and_then(|_| pids.into_iter().find(within)) {
            return pid;
        }
        std::thread::park_timeout(std::time::Duration::from_millis(10));
    }
    panic!("there was no pid 1");
}

fn own_id() -> i32 {
    std::process::id() as i32
}

#[test]
fn the_end_of_pid_one_is_the_end_of_all() {
    let lab = Lab::new();
    let mut container = lab.container();
    let (_, fds) = container
        .connection
        .start(sh("trap '' TERM HUP INT; echo up; while :; do sleep 1000; done"));
    read_until(&fds[0], "up\n");
    // Nothing inside, and no polite signal from outside, ends pid 1.
    let inside = &mut container.connection;
    let said = inside.sh("kill -9 1; kill -15 1; echo alive");
    assert_eq!(said, "alive\n");
    process::pidfd_send_signal(&container.pidfd, 15).expect("signal");
    assert_eq!(container.connection.sh("echo alive"), "alive\n");
    process::pidfd_send_signal(&container.pidfd, 9).expect("signal");
    assert!(fd::wait_readable(&container.pidfd, 30_000).expect("poll"));
    // The last writer is dead: the stream ends.
    assert_eq!(read_all(&fds[0]), "");
}

#[test]
fn pid_one_cannot_be_seen_through_from_the_host_side_of_its_own_ids() {
    let lab = Lab::new();
    let mut container = lab.container();
    container.connection.list();
    let status = fs::read_to_string(format!("/proc/{}/status", container.pid)).expect("status");
    assert!(status.contains(&format!("Uid:\t{BASE}\t{BASE}\t{BASE}\t{BASE}\n")), "{status}");
    assert!(status.contains("Seccomp:\t2\n") && status.contains("NoNewPrivs:\t1\n"), "{status}");
    let fds = fs::read_dir(format!("/proc/{}/fd", container.pid)).expect("fds");
    let open: Vec<String> = fds
        .map(|entry| fs::read_link(entry.expect("entry").path()).expect("link"))
        .map(|link| link.to_string_lossy().into_owned())
        .collect();
    // Standard streams, null, terminals, /proc, root, listener, connection, depot, signals, own number.
    assert_eq!(open.len(), 12, "{open:?}");
    let host: Vec<&String> = open.iter().filter(|link| link.contains("terrarium-init")).collect();
    assert_eq!(host.len(), 1, "only the depot: {open:?}");
    let maps = File::open(format!("/proc/{}/ns/user", container.pid));
    assert!(maps.is_ok());
}

/// Leaves pid 1 room for `free` more descriptors. As its own user: that needs no capability.
fn leave_room(pid: i32, free: usize) {
    let open = fs::read_dir(format!("/proc/{pid}/fd")).expect("descriptors").flatten();
    let open: Vec<usize> =
        open.map(|fd| fd.file_name().to_str().expect("text").parse().expect("number")).collect();
    let limit = (0..).filter(|fd| !open.contains(fd)).nth(free).expect("endless");
    let args = [format!("--pid={pid}"), format!("--nofile={limit}:")];
    let set = Command::new("prlimit").args(args).uid(BASE).gid(BASE).status();
    assert!(set.expect("prlimit").success());
}

#[test]
fn a_process_whose_streams_cannot_be_sent_is_told_as_not_started_and_ended() {
    let lab = Lab::new();
    let mut container = lab.container();
    let inside = &mut container.connection;
    let pid: i32 = inside.sh("sleep 1000 >&- 2>&- & echo $!").trim().parse().expect("a pid");
    let [(errors, exec), (_at, gate), (out, _out), (err, _err)] =
        [(); 4].map(|()| fd::pipe().expect("a pipe"));
    drop(exec);
    let fds = [&errors, &gate, &out, &err].map(AsFd::as_fd);
    let adopt = |id: &str| Ask::Adopt {
        id: id.into(),
        program: "sleep".into(),
        pid,
        tty: false,
        keep_stdin: false,
        lowered: Default::default(),
    };
    // What comes fits; the gate makes way for one of the two copies.
    leave_room(container.pid, fds.len());
    let (answer, _) = inside.ask_with(adopt("late"), &fds);
    let Answer::Failed { text, .. } = answer else { panic!("{answer:?}") };
    assert!(text.contains("copy the streams"), "{text}");
    leave_room(container.pid, 1000);
    assert_eq!(inside.list(), [], "it is forgotten");
    assert_eq!(inside.ask(Ask::Empty).0, Answer::Done, "it has ended");
}

#[test]
fn a_starting_process_is_no_door_to_pid_one() {
    let lab = Lab::new();
    let mut container = lab.container();
    let inside = &mut container.connection;
    // Root inside looks into every process again and again while others are being started.
    let script =
        "while [ ! -e /stop ]; do ls -l /proc/[0-9]*/fd /proc/[0-9]*/cwd; done 2>/dev/null";
    let scanner = sh(&format!(
        "({script}) | grep -e socket: -e depot -e signalfd -e terrarium-init; echo clean"
    ));
    let id = scanner.id.clone();
    let (_, fds) = inside.start(scanner);
    for _ in 0..200 {
        inside.run(spec("true", &[]));
    }
    inside.sh("touch /stop");
    assert_eq!(read_all(&fds[0]), "clean\n");
    inside.ended(&id);
}
