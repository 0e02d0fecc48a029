//! Peas on the real kernel: processes of a container with files of their own.

use crate::container::{run, shell, spec};
use crate::lab::Lab;
use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::os::unix::fs::symlink;
use terrarium::cgroup::{Cgroups, Devices};
use terrarium::container::{Container, ContainerSpec, Fault, Host, PeaRoot, Posture, ProcessError};
use terrarium::init::proto::{Bind, FailKind};
use terrarium::model::limits::Limits;
use terrarium::model::process::{ExitStatus, ProcessSpec, Program, WindowSize};
use terrarium::unit::{Bytes, Digest, Handle};

fn handle() -> Handle {
    "web-0".parse().expect("handle")
}

/// A layer of busybox, a user of its own, and what images should not have.
fn make_layer(host: &Host) -> Digest {
    let layer = Digest::of(b"pea");
    let draft = host.store().draft().expect("draft");
    let root = draft.dir();
    for dir in ["bin", "etc", "home", "home/pete"] {
        fs::create_dir(root.join(dir)).expect("directory");
    }
    fs::copy("/bin/busybox", root.join("bin/busybox")).expect("busybox");
    symlink("busybox", root.join("bin/sh")).expect("applet");
    symlink("/etc", root.join("proc")).expect("a trap");
    symlink("/../../outside", root.join("etc/hosts")).expect("a trap");
    let passwd = "root:x:0:0::/root:/bin/sh\npete:x:1234:1234::/home/pete:/bin/sh\n";
    fs::write(root.join("etc/passwd"), passwd).expect("passwd");
    fs::write(root.join("pea-file"), "").expect("a file");
    draft.commit(&layer).expect("commit");
    layer
}

/// The disks in the store, and what is written down of them.
fn disks(lab: &Lab) -> (usize, usize) {
    let count = |dir: &str| fs::read_dir(lab.state.join(dir)).map_or(0, Iterator::count);
    (count("store/containers"), count("depot/web-0/peas"))
}

struct Peas {
    lab: Lab,
    host: Host,
    layer: Digest,
    container: Container,
}

impl Peas {
    fn new(name: &str, posture: Posture) -> Peas {
        let lab = Lab::new(name);
        let host = lab.host();
        let layer = make_layer(&host);
        let wanted = ContainerSpec { posture, ..spec(&lab, "web-0") };
        let container = host.create(wanted, Fault::None).expect("create");
        Peas { lab, host, layer, container }
    }

    fn root(&self, pea: &str, binds: Vec<Bind>) -> PeaRoot {
        self.host.make_pea_root(&handle(), pea, vec![self.layer], binds, None).expect("a root")
    }

    /// Runs a script in a pea's root; what it says on either stream.
    fn sh(&self, root: &PeaRoot, user: &str, script: &str) -> String {
        static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let number = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let script = format!("exec 2>&1; {script}");
        let wanted = ProcessSpec {
            user: user.into(),
            dir: None,
            ..shell(&format!("in-pea-{number}"), &script)
        };
        self.said(wanted, Some(root))
    }

    fn said(&self, wanted: ProcessSpec, root: Option<&PeaRoot>) -> String {
        smol::block_on(async {
            let mut process =
                self.container.start_in(wanted, root, Vec::new()).await.expect("start");
            process.wait().await.expect("its end");
            let (end, ended) = terrarium::exec::cancel::pair();
            end.cancel();
            let mut said = Vec::new();
            let streams = &mut process.streams;
            let out = streams.tty.take().or(streams.stdout.take()).expect("a stream");
            let take = |bytes: &[u8]| {
                said.extend_from_slice(bytes);
                Ok(())
            };
            terrarium::exec::streams::drain(out, ended, take).await.expect("drain");
            String::from_utf8(said).expect("UTF-8")
        })
    }

    fn close(self) {
        let Peas { lab, host, container, .. } = self;
        drop(container);
        host.destroy(&handle()).expect("destroy");
        let left = fs::read_dir(lab.state.join("store/containers")).expect("store").count();
        assert_eq!(left, 0, "disks are left");
        lab.close(host);
    }
}

#[test]
fn a_pea_has_files_of_its_own_and_shares_the_rest() {
    for (name, posture) in
        [("papp", Posture::App), ("pgarden", Posture::Garden), ("ppriv", Posture::Privileged)]
    {
        let peas = Peas::new(name, posture);
        assert_eq!(run(&peas.container, "mark", "touch /of-container"), ExitStatus::Exited(0));
        let sleeper = smol::block_on(peas.container.start(shell("long", "exec sleep 1000")));
        let sleeper = sleeper.expect("start");
        let outside = shell(
            "look",
            "for ns in net pid ipc uts user cgroup; do readlink /proc/self/ns/$ns; done; \
             cat /etc/hosts /etc/resolv.conf /etc/hostname; hostname",
        );
        let shared = peas.said(outside.clone(), None);
        assert!(shared.contains("localhost") && shared.contains("nameserver"), "{shared}");
        let root = peas.root("side/car", Vec::new());
        let mounts = peas.sh(&root, "root", "readlink /proc/self/ns/mnt");
        let own = format!("test $(readlink /proc/self/ns/mnt) != {mounts}");
        assert_eq!(run(&peas.container, "own", &own), ExitStatus::Exited(0));
        let same = ProcessSpec { dir: None, id: "look-too".into(), ..outside };
        assert_eq!(peas.said(same, Some(&root)), shared, "{posture:?}");
        let said = peas.sh(
            &root,
            "root",
            "pwd; ls /pea-file /of-container; id -u; touch /made; ls -d /.. /made; \
             cat /proc/[0-9]*/comm | grep -c '^sleep$'; echo x > /dev/null; \
             head -c 1 /proc/timer_list | wc -c; stat -f -c %T /proc",
        );
        let masked = if posture == Posture::Privileged { "1" } else { "0" };
        assert!(said.starts_with("/\n"), "{said}");
        assert!(said.contains("/of-container: No such file"), "{said}");
        assert!(said.contains(&format!("0\n/..\n/made\n1\n{masked}\nproc\n")), "{said}");
        assert_eq!(run(&peas.container, "other", "test ! -e /made"), ExitStatus::Exited(0));
        assert_eq!(
            peas.sh(&root, "pete", "id -u; echo $HOME; touch /x"),
            "1234\n/home/pete\ntouch: /x: Permission denied\n"
        );
        // A terminal of the pea's own.
        let size = WindowSize { rows: 7, columns: 9 };
        let wanted =
            ProcessSpec { tty: Some(size), ..shell("tty", "tty; stty size; tty > /dev/tty") };
        assert_eq!(peas.said(wanted, Some(&root)), "/dev/pts/0\r\n7 9\r\n/dev/pts/0\r\n");
        // What it mounts is for who may mount at all, and for nobody else.
        let said =
            peas.sh(&root, "root", "mkdir /m; mount -t tmpfs t /m && grep -c ' /m ' /proc/mounts");
        match posture {
            Posture::Privileged => assert_eq!(said, "1\n"),
            _ => assert!(said.contains("ermitted") || said.contains("denied"), "{said}"),
        }
        smol::block_on(sleeper.signal(9)).expect("kill");
        drop(root);
        peas.close();
    }
}

#[test]
fn nobody_climbs_out_of_a_peas_root() {
    let peas = Peas::new("pclimb", Posture::Garden);
    assert_eq!(run(&peas.container, "mark", "touch /of-container"), ExitStatus::Exited(0));
    let root = peas.root("p", Vec::new());
    // One more chroot, with the working directory left above it.
    let said = peas.sh(
        &root,
        "root",
        "mkdir -p /in/bin /in/proc && cp /bin/busybox /in/bin/sh && cd / && exec 9< / && \
         chroot /in /bin/sh -c 'cd /proc/self/fd/9/../../../.. 2>/dev/null; ls -a' ; \
         ls -a /../../.. | head -n 30; ls /proc/self/fd",
    );
    assert!(said.contains("pea-file") && !said.contains("of-container"), "{said}");
    assert!(!said.contains("permission denied"), "{said}");
    let said = peas.sh(
        &root,
        "root",
        "grep -c ' / overlay' /proc/self/mounts; ls /proc/self/fd | tr '\\n' ' '",
    );
    assert_eq!(said, "1\n0 1 2 3 ", "its own mounts, and no door is left open");
    // Our own program runs there too.
    let wanted = ProcessSpec {
        program: Program::Ours,
        path: "tar-out".into(),
        args: vec!["/pea-file".into()],
        ..shell("ours", "")
    };
    assert!(peas.said(wanted, Some(&root)).starts_with("pea-file\0"));
    drop(root);
    peas.close();
}

#[test]
fn binds_of_a_pea_are_its_own() {
    let peas = Peas::new("pbinds", Posture::Garden);
    let dir = peas.lab.state.join("shared");
    fs::create_dir(&dir).expect("a directory");
    fs::write(dir.join("file"), "shared").expect("a file");
    let bind = |to: &str, read_only| Bind {
        from: dir.clone(),
        origin: Default::default(),
        to: to.into(),
        read_only,
        mapped: true,
        ours: false,
    };
    let root = peas.root("p", vec![bind("/ro/deep", true), bind("/rw", false)]);
    let said = peas.sh(&root, "root", "cat /ro/deep/file; echo x > /ro/deep/x; echo y > /rw/y");
    assert!(said.starts_with("shared") && said.contains("Read-only file system"), "{said}");
    assert_eq!(fs::read_to_string(dir.join("y")).expect("written"), "y\n");
    assert_eq!(run(&peas.container, "other", "test ! -e /rw"), ExitStatus::Exited(0));
    drop(root);
    peas.close();
}

#[test]
fn a_pea_may_have_limits_of_its_own_and_ends_with_its_container() {
    let peas = Peas::new("plimits", Posture::Garden);
    let name = format!("{}-peas", peas.lab.cgroup());
    let groups = Cgroups::open(&name).expect("cgroups");
    let limits = Limits { memory: Some(Bytes::mib(32)), pids: Some(9), ..Limits::default() };
    let group = groups.create(&"p".parse().expect("handle"), &limits, Devices::Common);
    let group = group.expect("a group");
    let doors = |name: &str| -> Vec<OwnedFd> {
        let mut found = Vec::new();
        let mut left = vec![std::path::PathBuf::from("/sys/fs/cgroup")];
        while let Some(dir) = left.pop() {
            if dir.ends_with(format!("{name}/p")) {
                let file = File::options().write(true).open(dir.join("cgroup.procs"));
                found.push(file.expect("its door").into());
            }
            let items = fs::read_dir(dir).into_iter().flatten().flatten();
            left.extend(
                items.filter(|i| i.file_type().is_ok_and(|k| k.is_dir())).map(|i| i.path()),
            );
        }
        found
    };
    let root = peas.root("p", Vec::new());
    let wanted = |id: &str| ProcessSpec { dir: None, ..shell(id, "sleep 1000 & wait") };
    let started = peas.container.start_in(wanted("limited"), Some(&root), doors(&name));
    let limited = smol::block_on(started).expect("start");
    let free = smol::block_on(peas.container.start_in(wanted("free"), Some(&root), Vec::new()));
    let free = free.expect("start");
    // One with the container's own files may have such groups too.
    let plain = ProcessSpec { dir: None, ..shell("plain", "exec sleep 2000") };
    let plain = smol::block_on(peas.container.start_in(plain, None, doors(&name)));
    let plain = plain.expect("start");
    let pids = group.pids().expect("pids");
    let inside = |pid: &i32| fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    // A process that becomes another program has no command line for a moment.
    let begin = std::time::Instant::now();
    let all = loop {
        let all: Vec<String> = pids.iter().map(inside).collect();
        if !all.iter().any(String::is_empty) || begin.elapsed().as_secs() > 60 {
            break all;
        }
        std::thread::park_timeout(std::time::Duration::from_millis(10));
    };
    assert!(all.iter().any(|text| text.contains("sleep 1000")), "{all:?}");
    assert!(all.iter().any(|text| text.contains("2000")), "{all:?}");
    assert!(all.len() <= 3, "the other one is in the container's group: {all:?}");
    assert!(peas.container.stats().expect("stats").pids >= 2);
    drop(root);
    let Peas { lab, host, container, .. } = peas;
    host.destroy(&handle()).expect("destroy");
    for process in [limited, free, plain] {
        match smol::block_on(process.wait()) {
            Ok(status) => assert_eq!(status.code(), 137),
            Err(err) => assert!(err.is_gone(), "{err}"),
        }
    }
    assert!(group.pids().expect("pids").is_empty());
    group.remove().expect("remove");
    groups.remove_parent_if_empty();
    drop(container);
    lab.close(host);
}

#[test]
fn a_container_in_which_somebody_keeps_a_peas_root_can_be_destroyed() {
    let peas = Peas::new("pkept", Posture::Garden);
    // Its keeper is a child of ours in the container's pid namespace, which waits for its end.
    let root = peas.root("kept", Vec::new());
    peas.host.destroy(&handle()).expect("destroy");
    drop(root);
    let Peas { lab, host, container, .. } = peas;
    drop(container);
    lab.close(host);
}

#[test]
fn the_store_knows_peas_that_may_write_without_a_limit() {
    let peas = Peas::new("pahead", Posture::Garden);
    let is_kept = || peas.host.store().keep_ahead();
    assert!(!is_kept(), "the container has a limit");
    let make = |pea: &str, disk| {
        let own = Limits { disk, ..Limits::default() };
        peas.host
            .make_pea_root(&handle(), pea, vec![peas.layer], Vec::new(), Some(&own))
            .expect("a root")
    };
    let limited = make("limited", Some(Bytes::mib(8)));
    assert!(!is_kept());
    let said = peas.sh(&limited, "root", "dd if=/dev/zero of=/big bs=64k count=512; rm /big");
    assert!(said.contains("uota exceeded"), "{said}");
    let free = make("free", None);
    assert!(is_kept());
    let said = peas.sh(&free, "root", "dd if=/dev/zero of=/big bs=64k count=512");
    assert!(!said.contains("exceeded"), "{said}");
    drop((limited, free));
    peas.host.remove_pea(&handle(), "free").expect("remove");
    assert!(!is_kept());
    peas.close();
}

#[test]
fn the_disk_of_a_pea_is_found_by_the_next_daemon_and_goes_when_it_is_told() {
    let Peas { lab, host, layer, container } = Peas::new("pdisk", Posture::Garden);
    let root = host.make_pea_root(&handle(), "a/1", vec![layer], Vec::new(), None).expect("a root");
    let other = host.make_pea_root(&handle(), "b", vec![layer], Vec::new(), None).expect("a root");
    let wanted = ProcessSpec { dir: None, ..shell("pea", "touch /mine; read x < /go") };
    let wanted = ProcessSpec {
        args: vec![
            "-c".into(),
            "mkfifo /go; echo up; read x < /go; test -e /pea-file && test -d /proc/1".into(),
        ],
        ..wanted
    };
    let process = smol::block_on(container.start_in(wanted, Some(&root), Vec::new()));
    drop((process.expect("start"), root, other, container));
    // The daemon dies and comes back.
    let host = lab.host_of(host.into_parts());
    let container = host.reopen(&handle()).expect("look").expect("it lives");
    let mut known = host.peas(&handle()).expect("peas");
    known.sort();
    assert_eq!(known, ["a/1", "b"]);
    host.remove_pea(&handle(), "b").expect("remove");
    let list = smol::block_on(container.processes()).expect("list");
    let process = smol::block_on(container.attach(&list[0])).expect("attach");
    // Its files are all there: it is let go through the root that /proc shows.
    let go = "for dir in /proc/[0-9]*/root; do test -p $dir/go && echo x > $dir/go; done; true";
    assert_eq!(run(&container, "go", go), ExitStatus::Exited(0));
    assert_eq!(smol::block_on(process.wait()).expect("its end"), ExitStatus::Exited(0));
    host.remove_pea(&handle(), "a/1").expect("remove");
    host.remove_pea(&handle(), "a/1").expect("again");
    assert!(host.peas(&handle()).expect("peas").is_empty());
    assert_eq!(disks(&lab), (1, 0));
    drop((process, container));
    host.destroy(&handle()).expect("destroy");
    lab.close(host);
}

#[test]
fn a_process_that_cannot_start_in_a_pea_is_told_like_any_other() {
    let peas = Peas::new("ptold", Posture::Garden);
    let root = peas.root("p", Vec::new());
    let refused = |wanted: ProcessSpec| {
        let started = peas.container.start_in(wanted, Some(&root), Vec::new());
        match smol::block_on(started).err().expect("refused") {
            ProcessError::Refused { kind, text } => (kind, text),
            other => panic!("{other:?}"),
        }
    };
    let sleeps = smol::block_on(peas.container.start(shell("taken", "exec sleep 1000")));
    let sleeps = sleeps.expect("start");
    for (wanted, expected, why) in [
        (
            ProcessSpec { user: "vcap".into(), ..shell("a", "true") },
            FailKind::UserNotFound,
            "user `vcap`",
        ),
        (
            ProcessSpec { path: "/bin/true".into(), ..shell("a", "") },
            FailKind::ProgramNotFound,
            "`/bin/true`",
        ),
        (
            ProcessSpec { path: "/pea-file".into(), ..shell("a", "") },
            FailKind::NotExecutable,
            "`/pea-file`",
        ),
        (
            ProcessSpec { dir: Some("/a/../b".into()), ..shell("a", "true") },
            FailKind::System,
            "/a/../b",
        ),
        (shell("taken", "touch /tmp/ran"), FailKind::Refused, "`taken` runs already"),
    ] {
        let (kind, text) = refused(wanted);
        assert!(kind == expected && text.contains(why), "{kind:?} {text}");
    }
    // None of them is left, and the last one never ran.
    let list = smol::block_on(peas.container.processes()).expect("list");
    assert_eq!(list.len(), 1, "{list:?}");
    assert_eq!(peas.sh(&root, "root", "ls /tmp/ran"), "ls: /tmp/ran: No such file or directory\n");
    smol::block_on(async {
        peas.container.signal_all(9).await.expect("kill");
        sleeps.wait().await.expect("its end");
        // Whoever keeps the root is no process of the container's owner.
        peas.container.stop(false).await.expect("nothing is left");
    });
    // It serves as many as are wanted, each with an input if it likes.
    let wanted = ProcessSpec { stdin: true, ..shell("cat", "read x; test \"$x\" = hello") };
    smol::block_on(async {
        let started = peas.container.start_in(wanted, Some(&root), Vec::new());
        let mut process = started.await.expect("start");
        let stdin = process.streams.stdin.take().expect("stdin");
        std::io::Write::write_all(&mut File::from(stdin), b"hello\n").expect("write");
        assert_eq!(process.wait().await.expect("its end"), ExitStatus::Exited(0));
    });
    drop(root);
    peas.close();
}

#[test]
fn a_pea_that_cannot_be_made_leaves_nothing() {
    let Peas { lab, host, layer, container } = Peas::new("pfails", Posture::Garden);
    let text = |made: Result<PeaRoot, terrarium::container::ContainerError>| {
        terrarium::log::chain(&made.err().expect("refused"))
    };
    let missing = Digest::of(b"missing");
    let said = text(host.make_pea_root(&handle(), "p", vec![layer, missing], Vec::new(), None));
    assert!(said.contains("in container web-0") && said.contains(&missing.to_string()), "{said}");
    let bind = Bind {
        from: "/gone".into(),
        origin: Default::default(),
        to: "/x".into(),
        read_only: true,
        mapped: true,
        ours: false,
    };
    let said = text(host.make_pea_root(&handle(), "p", vec![layer], vec![bind], None));
    assert!(said.contains("/gone") && said.contains("make it first"), "{said}");
    let said =
        text(host.make_pea_root(&"no".parse().expect("handle"), "p", vec![layer], vec![], None));
    assert!(said.contains("there is no container no"), "{said}");
    assert!(host.peas(&handle()).expect("peas").is_empty());
    assert_eq!(disks(&lab), (1, 0));
    drop(container);
    host.destroy(&handle()).expect("destroy");
    lab.close(host);
}
