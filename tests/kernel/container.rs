//! Containers on the real kernel: made whole or not at all, and gone without a trace.

use crate::lab::{Lab, tool};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};
use terrarium::container::recipe::CREATE;
use terrarium::container::{
    Container, ContainerError, ContainerSpec, Fault, Host, IdMapping, Manner, Posture, RootDriver,
};
use terrarium::model::limits::Limits;
use terrarium::model::process::{ExitStatus, ProcessSpec};
use terrarium::net::{Net, NetConfig};
use terrarium::unit::{Bytes, Handle};

/// This file is compiled twice: as `snapshot`, its containers' roots are snapshots.
fn driver() -> RootDriver {
    if module_path!().ends_with("snapshot") { RootDriver::Snapshot } else { RootDriver::Union }
}

fn lab_of(name: &str) -> Lab {
    match driver() {
        RootDriver::Union => Lab::new(name),
        RootDriver::Snapshot => Lab::new(&format!("{name}-snap")),
    }
}

pub fn spec(lab: &Lab, handle: &str) -> ContainerSpec {
    ContainerSpec {
        limits: Limits {
            memory: Some(Bytes::mib(64)),
            disk: Some(Bytes::mib(16)),
            cpu_weight: Some(10),
            pids: Some(64),
            ..Default::default()
        },
        ports: vec![8080],
        root: driver(),
        owner: "test".into(),
        ..ContainerSpec::new(handle.parse().expect("handle"), vec![lab.layer])
    }
}

pub fn shell(id: &str, script: &str) -> ProcessSpec {
    ProcessSpec {
        id: id.into(),
        path: "/bin/sh".into(),
        args: vec!["-c".into(), script.into()],
        program: Default::default(),
        argv0: None,
        env: Vec::new(),
        dir: Some("/".into()),
        dir_must_exist: false,
        user: "root".into(),
        nofile: None,
        rlimits: Default::default(),
        tty: None,
        stdin: false,
        keep_stdin: false,
        launches: false,
        never_waits: false,
    }
}

pub fn run(container: &Container, id: &str, script: &str) -> ExitStatus {
    smol::block_on(async {
        let process = container.start(shell(id, script)).await.expect("start");
        process.wait().await.expect("its end")
    })
}

/// Everything that containers leave on a box, as text: must be the same before and after.
fn traces(lab: &Lab, host: &Host) -> String {
    host.finish();
    lab.settle();
    let list = |dir: &str| {
        let mut names: Vec<_> = fs::read_dir(lab.state.join(dir))
            .map(|items| items.flatten().map(|item| item.file_name()).collect())
            .unwrap_or_default();
        names.sort();
        format!("{names:?}")
    };
    format!(
        "depot {}\nwritables {}\nlinks {}\nrules {}\ncgroups {:?}\nchildren {:?}\nleft {:?}",
        list("depot"),
        list("store/containers"),
        lab.links(),
        tool("nft", &["-s", "list", "ruleset"]),
        lab.cgroups(),
        lab.children(),
        host.list().expect("list"),
    )
}

#[test]
fn a_container_runs_and_is_destroyed_without_a_trace() {
    let lab = lab_of("whole");
    let host = lab.host();
    let before = traces(&lab, &host);
    let container = host.create(spec(&lab, "web-0"), Fault::None).expect("create");
    assert_eq!(
        run(&container, "ok", "test $(id -u) = 0 && test -c /dev/null"),
        ExitStatus::Exited(0)
    );
    assert_eq!(run(&container, "seven", "exit 7"), ExitStatus::Exited(7));
    assert_eq!(run(&container, "killed", "kill -9 $$"), ExitStatus::Signaled(9));
    drop(container);
    let handle: Handle = "web-0".parse().expect("handle");
    host.destroy(&handle).expect("destroy");
    host.destroy(&handle).expect("destroy again");
    assert_eq!(traces(&lab, &host), before);
    lab.close(host);
}

#[test]
fn a_failure_after_any_step_leaves_nothing_on_the_host() {
    let lab = lab_of("faults");
    let host = lab.host();
    let before = traces(&lab, &host);
    for (n, step) in CREATE.iter().enumerate() {
        let made = host.create(spec(&lab, &format!("fault-{n}")), Fault::After(n));
        let err = made.err().unwrap_or_else(|| panic!("step {n} must fail"));
        let handle = format!("container fault-{n}");
        assert!(err.to_string().contains(&handle), "{err}");
        assert_eq!(traces(&lab, &host), before, "after step {n}, {step:?}");
    }
    // Slots and ports came back too: the next one is the first one.
    let container = host.create(spec(&lab, "after"), Fault::None).expect("create");
    assert_eq!(container.entry().slot.get(), 0);
    drop(container);
    host.destroy(&"after".parse().expect("handle")).expect("destroy");
    assert_eq!(traces(&lab, &host), before);
    lab.close(host);
}

#[test]
fn a_container_stands_as_its_posture_says() {
    let lab = lab_of("posture");
    let host = lab.host();
    for (posture, bounding, no_new_privs) in
        [(Posture::App, "000405fb", 1), (Posture::Garden, "a80425fb", 0)]
    {
        let wanted = ContainerSpec { posture, ..spec(&lab, "web-0") };
        let container = host.create(wanted, Fault::None).expect("create");
        let script = format!(
            "grep -q 'CapBnd:.00000000{bounding}$' /proc/self/status \
             && grep -q 'NoNewPrivs:.{no_new_privs}$' /proc/self/status \
             && test -z \"$(head -c 1 /proc/timer_list)\" && ! echo 1 > /proc/sys/vm/swappiness"
        );
        let script = format!("{script} && test ! -e /dev/fuse");
        assert_eq!(run(&container, "look", &script), ExitStatus::Exited(0), "{posture:?}");
        drop(container);
        host.destroy(&"web-0".parse().expect("handle")).expect("destroy");
        host.finish();
    }
    let before = traces(&lab, &host);
    let wanted = ContainerSpec { posture: Posture::Privileged, ..spec(&lab, "web-0") };
    drop(host.create(wanted, Fault::None).expect("create"));
    let host = lab.host_of(host.into_parts());
    let handle: Handle = "web-0".parse().expect("handle");
    let container = host.reopen(&handle).expect("look").expect("it lives");
    // Whether the kernel has it is another question than whether it may be opened.
    let script = "grep -q 'Seccomp:.0' /proc/self/status && mkdir -p /mnt && mount -t tmpfs t /mnt && touch /mnt/x \
                  && ! (true < /dev/fuse) 2>&1 | grep -i 'not permitted' && touch /x \
                  && ! mknod /mnt/mem c 1 1 2> /dev/null";
    assert_eq!(run(&container, "look", script), ExitStatus::Exited(0));
    drop(container);
    host.destroy(&handle).expect("destroy");
    assert_eq!(traces(&lab, &host), before);
    lab.close(host);
}

#[test]
fn the_root_is_made_as_its_driver_says_and_belongs_to_the_container() {
    let lab = lab_of("root");
    let host = lab.host();
    for posture in [Posture::App, Posture::Garden, Posture::Privileged] {
        let wanted = ContainerSpec { posture, ..spec(&lab, "web-0") };
        let container = host.create(wanted, Fault::None).expect("create");
        let driver = match driver() {
            RootDriver::Union => "overlay",
            RootDriver::Snapshot => "btrfs",
        };
        let nosuid = u8::from(posture == Posture::App);
        let script = format!(
            "set -e
            grep ' / ' /proc/mounts | grep -q ' {driver} '
            grep ' / ' /proc/mounts | grep -q nodev
            test \"$(grep ' / ' /proc/mounts | grep -c nosuid)\" = {nosuid}
            busybox stat -c '%n %u:%g %a' / /etc /bin/busybox /etc/hosts /dev /proc /tmp . > /out
            busybox mkdir /d && echo x > /d/f && busybox chown 65535:7 /d/f
            busybox stat -c '%n %u:%g' /d /d/f >> /out
            cat /out"
        );
        let mut wanted = shell("look", &script);
        (wanted.env, wanted.dir) =
            (vec![("PATH".into(), "/bin".into())], Some("/made/for/it".into()));
        let output = smol::block_on(async {
            let mut process = container.start(wanted).await.expect("start");
            let mut output = Vec::new();
            assert_eq!(process.wait().await.expect("its end"), ExitStatus::Exited(0));
            let (end, ended) = terrarium::exec::cancel::pair();
            end.cancel();
            let stdout = process.streams.stdout.take().expect("stdout");
            let drained = terrarium::exec::streams::drain(stdout, ended, |bytes| {
                output.extend_from_slice(bytes);
                Ok(())
            });
            drained.await.expect("drain");
            String::from_utf8(output).expect("UTF-8")
        });
        let owners: Vec<_> = output.lines().filter(|line| line.contains(" 0:0")).collect();
        // The host's own /etc/hosts is the daemon's, whom only a privileged container knows.
        let own = if posture == Posture::Privileged { 9 } else { 7 };
        assert!(owners.len() >= own, "{posture:?}: {output}");
        assert!(output.contains(". 0:0 755\n") && output.contains("/d/f 65535:7\n"), "{output}");
        drop(container);
        host.destroy(&"web-0".parse().expect("handle")).expect("destroy");
        host.finish();
    }
    lab.close(host);
}

#[test]
fn gardens_ids_are_whole_on_every_root_and_stay_with_the_container() {
    let lab = lab_of("gardenids");
    let host = lab.host();
    let before = traces(&lab, &host);
    let manner = Manner { ids: IdMapping::Garden, init_name: "wshd".into(), ..Manner::default() };
    let wanted = ContainerSpec { posture: Posture::Garden, manner, ..spec(&lab, "web-0") };
    let container = host.create(wanted.clone(), Fault::None).expect("create");
    let script = "set -e
        test \"$(tr -s ' \\n' ' ' < /proc/self/uid_map)\" = ' 0 4294967294 1 1 1 4294967293 '
        grep -q 'Name:.wshd$' /proc/1/status
        busybox stat -c %u:%g / /etc /bin/busybox /tmp /dev > /owners
        test \"$(sort -u /owners)\" = 0:0
        mkdir -p /d && touch /d/of-root /d/of-user && busybox chown -R 1000:7 /d
        busybox chown 0:0 /d/of-root
        test \"$(busybox stat -c %u:%g /d /d/of-root /d/of-user | tr '\\n' ' ')\" = '1000:7 0:0 1000:7 '";
    assert_eq!(run(&container, "look", script), ExitStatus::Exited(0));
    let disk = lab.state.join("store/containers/web-0");
    let (dir, root) = match driver() {
        RootDriver::Union => (disk.join("upper/d"), 4_294_967_294),
        // What is on the disk are the ids inside.
        RootDriver::Snapshot => (disk.join("d"), 0),
    };
    let owner = |name: &str| {
        let file = fs::symlink_metadata(dir.join(name)).expect("is there");
        (file.uid(), file.gid())
    };
    assert_eq!(
        (owner(""), owner("of-root"), owner("of-user")),
        ((1000, 7), (root, root), (1000, 7))
    );
    drop(container);

    // The next daemon finds what it was made with.
    let host = lab.host_of(host.into_parts());
    let handle: Handle = "web-0".parse().expect("handle");
    let container = host.reopen(&handle).expect("look").expect("it lives");
    assert_eq!(container.entry().spec, wanted);
    assert_eq!(run(&container, "again", "test -e /d/of-user"), ExitStatus::Exited(0));
    drop(container);
    host.destroy(&handle).expect("destroy");
    assert_eq!(traces(&lab, &host), before);
    lab.close(host);
}

#[test]
fn file_capabilities_of_an_image_count_in_gardens_posture_alone() {
    use std::os::fd::AsFd;
    let lab = lab_of("filecaps");
    let host = lab.host();
    let draft = host.store().draft().expect("draft");
    fs::create_dir(draft.dir().join("caps")).expect("mkdir");
    let program = draft.dir().join("caps/grep");
    fs::copy("/bin/busybox", &program).expect("copy");
    let file = fs::File::open(&program).expect("open");
    // cap_net_raw=ep
    let value = b"\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
    terrarium::sys::file::set_xattr(file.as_fd(), c"security.capability", value).expect("set");
    drop(file);
    let layer = terrarium::unit::Digest::of(b"caps");
    draft.commit(&layer).expect("commit");
    for (posture, effective) in [(Posture::App, "0000"), (Posture::Garden, "2000")] {
        let mut wanted = ContainerSpec { posture, ..spec(&lab, "web-0") };
        wanted.layers.push(layer);
        let container = host.create(wanted, Fault::None).expect("create");
        let mut look = shell("look", "");
        look.path = "/caps/grep".into();
        look.args = vec![
            "-q".into(),
            format!("CapEff:.000000000000{effective}$"),
            "/proc/self/status".into(),
        ];
        look.user = "1000:1000".into();
        let status = smol::block_on(async {
            container.start(look).await.expect("start").wait().await.expect("its end")
        });
        assert_eq!(status, ExitStatus::Exited(0), "{posture:?}");
        drop(container);
        host.destroy(&"web-0".parse().expect("handle")).expect("destroy");
        host.finish();
    }
    lab.close(host);
}

#[test]
fn a_missing_layer_is_named_and_nothing_is_left() {
    let lab = lab_of("nolayer");
    let host = lab.host();
    let before = traces(&lab, &host);
    let mut wanted = spec(&lab, "web-0");
    let missing = terrarium::unit::Digest::of(b"missing");
    wanted.layers.push(missing);
    let err = host.create(wanted, Fault::None).err().expect("refused");
    let text = terrarium::log::chain(&err);
    assert!(text.contains("container web-0") && text.contains(&missing.to_string()), "{text}");
    assert_eq!(traces(&lab, &host), before);
    lab.close(host);
}

#[test]
fn a_handle_is_taken_once() {
    let lab = lab_of("taken");
    let host = lab.host();
    let container = host.create(spec(&lab, "web-0"), Fault::None).expect("create");
    let err = host.create(spec(&lab, "web-0"), Fault::None).err().expect("refused");
    assert_eq!(err.to_string(), "container web-0 exists already");
    assert_eq!(run(&container, "ok", "true"), ExitStatus::Exited(0), "the first one is unharmed");
    drop(container);
    host.destroy(&"web-0".parse().expect("handle")).expect("destroy");
    lab.close(host);
}

#[test]
fn a_container_whose_pid_1_was_killed_is_known_to_be_gone_and_can_be_destroyed() {
    let lab = lab_of("killed");
    let host = lab.host();
    let before = traces(&lab, &host);
    let container = host.create(spec(&lab, "web-0"), Fault::None).expect("create");
    let (pid, _) = container.entry().pid.expect("a pid");
    let process = smol::block_on(container.start(shell("long", "sleep 1000"))).expect("start");
    kill(Pid::from_raw(pid), Signal::SIGKILL).expect("kill");
    smol::block_on(container.ended());
    assert!(smol::block_on(process.wait()).expect_err("gone").is_gone());
    assert!(smol::block_on(container.start(shell("x", "true"))).err().expect("gone").is_gone());
    drop((container, process));
    assert!(host.reopen(&"web-0".parse().expect("handle")).expect("look").is_none());
    host.destroy(&"web-0".parse().expect("handle")).expect("destroy");
    assert_eq!(traces(&lab, &host), before);
    lab.close(host);
}

#[test]
fn a_container_whose_removal_has_begun_is_not_taken_over_though_it_lives() {
    let lab = lab_of("leaving");
    let host = lab.host();
    let before = traces(&lab, &host);
    drop(host.create(spec(&lab, "web-0"), Fault::None).expect("create"));
    let host = lab.host_of(host.into_parts());
    // As a removal leaves it that could not end its pid 1, or was killed at once: what is gone of the rest,
    // nobody knows.
    fs::write(lab.state.join("depot/web-0/leaving"), "").expect("mark");
    let handle: Handle = "web-0".parse().expect("handle");
    assert!(host.reopen(&handle).expect("look").is_none());
    assert!(host.reopen_ended(&handle).expect("look").is_none());
    host.destroy(&handle).expect("destroy");
    assert_eq!(traces(&lab, &host), before);
    lab.close(host);
}

#[test]
fn a_second_host_takes_over_a_container_with_its_output() {
    let lab = lab_of("reopen");
    let host = lab.host();
    let container = host.create(spec(&lab, "web-0"), Fault::None).expect("create");
    let script =
        "i=0; while [ $i -lt 200 ]; do echo line $i; i=$((i+1)); done; read x < /go; echo end";
    assert_eq!(run(&container, "fifo", "mkfifo /go"), ExitStatus::Exited(0));
    let process = smol::block_on(container.start(shell("talk", script))).expect("start");
    drop((process, container));
    // The daemon is away: pid 1 keeps what the process says.
    let parts = host.into_parts();
    let host = lab.host_of(parts);
    let handle: Handle = "web-0".parse().expect("handle");
    let container = host.reopen(&handle).expect("look").expect("it lives");
    let output = smol::block_on(async {
        let list = container.processes().await.expect("list");
        let known = list.iter().find(|process| process.id == "talk").expect("it runs");
        assert_eq!(known.ended, None);
        let mut process = container.attach(known).await.expect("attach");
        let go = container.start(shell("go", "echo > /go")).await.expect("go");
        go.wait().await.expect("its end");
        assert_eq!(process.wait().await.expect("its end"), ExitStatus::Exited(0));
        let mut output = std::mem::take(&mut process.streams.spooled_out);
        let (end, ended) = terrarium::exec::cancel::pair();
        end.cancel();
        let stdout = process.streams.stdout.take().expect("stdout");
        terrarium::exec::streams::drain(stdout, ended, |bytes| {
            output.extend_from_slice(bytes);
            Ok(())
        })
        .await
        .expect("drain");
        String::from_utf8(output).expect("UTF-8")
    });
    let expected: String = (0..200).map(|n| format!("line {n}\n")).collect();
    assert_eq!(output, format!("{expected}end\n"));
    drop(container);
    host.destroy(&handle).expect("destroy");
    lab.close(host);
}

#[test]
fn a_root_process_cannot_write_past_its_disk_limit_nor_see_other_containers() {
    let lab = lab_of("two");
    let host = lab.host();
    let first = host.create(spec(&lab, "web-0"), Fault::None).expect("create");
    let second = host.create(spec(&lab, "web-1"), Fault::None).expect("create");
    assert_ne!(first.entry().slot, second.entry().slot);
    // Both: they share the descriptor that the filter comes by.
    for container in [&first, &second] {
        let filtered = "grep -q '^Seccomp:.2$' /proc/self/status && ! unshare -U true";
        assert_eq!(run(container, "filtered", filtered), ExitStatus::Exited(0));
    }
    assert_eq!(run(&first, "write", "echo mine > /x"), ExitStatus::Exited(0));
    assert_eq!(run(&second, "look", "test -e /x"), ExitStatus::Exited(1), "roots are shared");
    let full = "dd if=/dev/zero of=/big bs=1M count=64";
    assert_ne!(run(&second, "full", full), ExitStatus::Exited(0));
    assert_eq!(run(&first, "mine", "test $(cat /x) = mine"), ExitStatus::Exited(0));
    drop((first, second));
    for handle in ["web-0", "web-1"] {
        host.destroy(&handle.parse().expect("handle")).expect("destroy");
    }
    lab.close(host);
}

#[test]
fn a_disk_without_a_limit_can_be_written_and_gets_one_while_the_container_runs() {
    let lab = lab_of("nolimit");
    let host = lab.host();
    let mut wanted = spec(&lab, "web-0");
    wanted.limits.disk = None;
    let container = host.create(wanted, Fault::None).expect("create");
    let handle = container.handle();
    let fresh = host.store().usage(handle).expect("usage");
    let write = |name: &str, mib: u64| {
        let script = format!("dd if=/dev/zero of=/{name} bs=1M count={mib}");
        run(&container, name, &script) == ExitStatus::Exited(0)
    };
    assert!(write("a", 100));
    host.store().set_limit(handle, Some(Bytes::mib(150))).expect("a limit");
    assert!(!write("b", 100));
    assert_eq!(run(&container, "rm", "/bin/busybox rm /b"), ExitStatus::Exited(0));
    assert!(write("c", 10));
    host.store().set_limit(handle, None).expect("no limit");
    assert!(write("d", 100));
    // Usage is at most 10 s old: what another daemon counts first, it counts anew.
    let handle = handle.clone();
    drop(container);
    let (store, cgroups, net) = host.into_parts();
    drop(store);
    let host = lab.host_of((lab.store(), cgroups, net));
    let usage = host.store().usage(&handle).expect("usage");
    assert!(usage.bytes >= Bytes::mib(200), "{usage:?}");
    // Files a, c and d; what is mounted on was there before.
    assert_eq!(usage.inodes, fresh.inodes + 3, "{fresh:?}");
    host.destroy(&handle).expect("destroy");
    lab.close(host);
}

/// The depot entry of a container as JSON.
fn edit_entry(lab: &Lab, handle: &str, edit: impl FnOnce(&mut serde_json::Value)) {
    let file = lab.state.join("depot").join(handle).join("container.json");
    let mut entry = serde_json::from_slice(&fs::read(&file).expect("read")).expect("JSON");
    edit(&mut entry);
    fs::write(&file, entry.to_string()).expect("write");
}

#[test]
fn what_cannot_be_taken_back_keeps_its_entry_and_its_numbers() {
    let lab = lab_of("stuck");
    let host = lab.host();
    let before = traces(&lab, &host);
    // A disk that nobody can remove for now.
    let disk = lab.state.join("store/containers/web-0");
    fs::create_dir(&disk).expect("directory");
    fs::write(disk.join("x"), "").expect("file");
    let file = disk.join("x");
    let file = file.to_str().expect("UTF-8");
    tool("chattr", &["+i", file]);
    host.create(spec(&lab, "web-0"), Fault::None).err().expect("the name is taken");
    let handle: Handle = "web-0".parse().expect("handle");
    assert_eq!(host.list().expect("list"), std::slice::from_ref(&handle));

    let slot_of_next = |host: &Host| {
        let next = host.create(spec(&lab, "next"), Fault::None).expect("create");
        host.destroy(next.handle()).expect("destroy");
        host.finish();
        next.entry().slot.get()
    };
    assert_eq!(slot_of_next(&host), 1, "the numbers of what is left are not given away");
    // The same after a restart, when the sweep fails too.
    let host = lab.host_of(host.into_parts());
    let err = host.destroy(&handle).expect_err("still stuck").to_string();
    assert!(err.contains("web-0") && err.contains("disk"), "{err}");
    assert_eq!(slot_of_next(&host), 1);
    tool("chattr", &["-i", file]);
    host.destroy(&handle).expect("destroy");
    host.finish();
    assert_eq!(slot_of_next(&host), 0);
    assert_eq!(traces(&lab, &host), before);
    lab.close(host);
}

#[test]
fn a_destroyed_container_is_gone_for_who_asks_and_its_name_can_be_had_at_once() {
    let lab = lab_of("again");
    let host = lab.host();
    let before = traces(&lab, &host);
    let handle: Handle = "web-0".parse().expect("handle");
    for _ in 0..3 {
        let container = host.create(spec(&lab, "web-0"), Fault::None).expect("create");
        let slot = container.entry().slot;
        assert_eq!(run(&container, "ok", "true"), ExitStatus::Exited(0));
        drop(container);
        host.destroy(&handle).expect("destroy");
        assert_eq!(host.list().expect("list"), []);
        assert!(!host.net().is_allowed(slot).expect("look"), "its rules go first");
        assert!(host.reopen(&handle).expect("look").is_none());
        host.destroy(&handle).expect("destroy again");
        assert!(!host.mend_rules().expect("mend"));
    }
    // What was asked for the earlier one does nothing to the later one.
    let container = host.create(spec(&lab, "web-0"), Fault::None).expect("create");
    host.finish();
    assert_eq!(host.list().expect("list"), std::slice::from_ref(&handle));
    assert!(host.net().is_connected(container.entry().slot).expect("look"), "{}", lab.links());
    drop(container);
    host.destroy(&handle).expect("destroy");
    assert_eq!(traces(&lab, &host), before);
    lab.close(host);
}

#[test]
fn many_that_are_destroyed_at_once_leave_nothing() {
    let lab = lab_of("many");
    let host = lab.host();
    let before = traces(&lab, &host);
    let names: Vec<String> = (0..50).map(|n| format!("web-{n}")).collect();
    for name in &names {
        drop(host.create(spec(&lab, name), Fault::None).expect("create"));
    }
    std::thread::scope(|scope| {
        for name in &names {
            let destroy = || host.destroy(&name.parse().expect("handle")).expect("destroy");
            scope.spawn(destroy);
        }
    });
    assert_eq!(host.list().expect("list"), []);
    host.finish();
    let left = fs::read_dir(lab.state.join("depot")).expect("depot").count();
    assert_eq!((left, lab.links().contains("wb-")), (0, false), "{}", lab.links());
    assert_eq!(traces(&lab, &host), before);
    lab.close(host);
}

#[test]
fn what_needs_the_ports_of_one_that_leaves_waits_for_them() {
    let lab = lab_of("full");
    let host = lab.host();
    // As many as the lab has.
    let all = |name: &str| ContainerSpec { ports: (8001..=8100).collect(), ..spec(&lab, name) };
    let first = host.create(all("web-0"), Fault::None).expect("create");
    let err = host.create(spec(&lab, "web-1"), Fault::None).err().expect("no port is left");
    assert!(err.to_string().contains("no host port is left"), "{err}");
    host.destroy(first.handle()).expect("destroy");
    let second = host.create(all("web-1"), Fault::None).expect("create");
    assert_eq!(first.entry().slot, second.entry().slot);
    host.destroy(second.handle()).expect("destroy");
    drop((first, second));
    lab.close(host);
}

#[test]
fn what_its_owner_keeps_and_its_later_ports_outlive_the_daemon_but_not_the_container() {
    let lab = lab_of("amended");
    let host = lab.host();
    let handle: Handle = "web-0".parse().expect("handle");
    assert!(matches!(host.set_owner(&handle, "x"), Err(ContainerError::Absent(_))));
    let container = host.create(spec(&lab, "web-0"), Fault::None).expect("create");
    assert_eq!(host.add_port(&handle, (0, 0)).expect("add"), (61_002, 61_002));
    assert_eq!(host.add_port(&handle, (70, 7)).expect("add"), (70, 7));
    let err = host.add_port(&handle, (70, 7)).expect_err("taken");
    assert_eq!(err.to_string(), "host port 70 is taken; name another, or 0 for one that is free");
    host.set_owner(&handle, "someone else").expect("set");
    let ports = [(61_001, 8080), (61_002, 61_002), (70, 7)];
    let entry = container.entry();
    assert_eq!((&*entry.spec.owner, &entry.ports[..]), ("someone else", &ports[..]));
    assert_eq!(host.entry(&handle).expect("read").as_ref(), Some(&*entry));
    // What cannot be written is not said, and its ports are free.
    let path = lab.state.join("depot/web-0");
    tool("chattr", &["+i", path.to_str().expect("UTF-8")]);
    assert!(host.set_owner(&handle, "nobody").is_err());
    assert!(host.add_port(&handle, (71, 7)).is_err());
    tool("chattr", &["-i", path.to_str().expect("UTF-8")]);
    assert_eq!(container.entry(), entry);
    drop(container);

    let host = lab.host_of(host.into_parts());
    assert!(matches!(host.set_owner(&handle, "x"), Err(ContainerError::Absent(_))), "not open");
    let container = host.reopen(&handle).expect("look").expect("it lives");
    let again = host.reopen(&handle).expect("look").expect("it lives");
    assert_eq!(container.entry(), entry);
    assert!(matches!(host.add_port(&handle, (70, 7)), Err(ContainerError::PortTaken { port: 70 })));
    host.add_port(&handle, (71, 7)).expect("71 was given back");
    assert_eq!(container.entry().ports.len(), 4);
    assert_eq!(again.entry(), container.entry(), "whoever holds it sees it");
    host.destroy(&handle).expect("destroy");
    assert!(matches!(host.set_owner(&handle, "x"), Err(ContainerError::Absent(_))));
    host.finish();
    let next = host.create(spec(&lab, "web-0"), Fault::None).expect("create");
    for port in [70, 71, 61_002] {
        host.add_port(&handle, (port, 1)).expect("all are free");
    }
    host.set_owner(&handle, "the next").expect("set");
    assert_eq!(next.entry().spec.owner, "the next");
    assert_eq!(container.entry().spec.owner, "someone else", "that one is gone");
    host.destroy(&handle).expect("destroy");
    drop((container, again, next));
    lab.close(host);
}

#[test]
fn a_stop_ends_all_processes_and_leaves_the_container() {
    let lab = lab_of("stop");
    let host = lab.host();
    let container = host.create(spec(&lab, "web-0"), Fault::None).expect("create");
    let up = |id: &str| {
        assert_eq!(
            run(
                &container,
                &format!("{id}-up"),
                &format!("until [ -e /{id} ]; do sleep 0.1; done")
            ),
            ExitStatus::Exited(0)
        )
    };
    let alone = "set -- /proc/[0-9]*; test $# = 2";
    smol::block_on(container.stop(false)).expect("nothing is there");
    smol::block_on(async {
        let polite =
            shell("polite", "trap 'exit 3' TERM; touch /polite; while :; do sleep 1; done");
        let polite = container.start(polite).await.expect("start");
        let orphan =
            "(trap 'sleep 1; exit' TERM; touch /orphan; while :; do sleep 1; done) & exit 0";
        container.start(shell("orphan", orphan)).await.expect("start").wait().await.expect("end");
        up("polite");
        up("orphan");
        container.stop(false).await.expect("stop");
        assert_eq!(polite.wait().await.expect("its end"), ExitStatus::Exited(3));
    });
    assert_eq!(run(&container, "alone", alone), ExitStatus::Exited(0));
    for (id, kill) in [("asked", false), ("killed", true)] {
        let script = format!("trap '' TERM; (touch /{id}; sleep 1000) & sleep 1000");
        smol::block_on(async {
            let stubborn = container.start(shell(id, &script)).await.expect("start");
            up(id);
            container.stop(kill).await.expect("stop");
            assert_eq!(stubborn.wait().await.expect("its end"), ExitStatus::Signaled(9));
        });
        assert_eq!(run(&container, "alone", alone), ExitStatus::Exited(0));
    }
    drop(container);
    host.destroy(&"web-0".parse().expect("handle")).expect("destroy");
    lab.close(host);
}

#[test]
fn what_could_not_leave_is_told_again_and_the_next_destroy_mends_it() {
    let lab = lab_of("stays");
    let host = lab.host();
    let before = traces(&lab, &host);
    let container = host.create(spec(&lab, "web-0"), Fault::None).expect("create");
    let entry = lab.state.join("depot/web-0/container.json");
    tool("chattr", &["+i", entry.to_str().expect("UTF-8")]);
    let handle: Handle = "web-0".parse().expect("handle");
    host.destroy(&handle).expect("all but what leaves later");
    host.finish();
    assert_eq!(host.list().expect("list"), std::slice::from_ref(&handle));
    assert_eq!(host.entry(&handle).expect("read").as_ref(), Some(&*container.entry()));
    assert!(host.create(spec(&lab, "web-0"), Fault::None).is_err(), "the name is taken");
    let next = host.create(spec(&lab, "next"), Fault::None).expect("create");
    assert_ne!(
        (next.entry().slot, &next.entry().ports),
        (container.entry().slot, &container.entry().ports)
    );
    host.destroy(next.handle()).expect("destroy");
    tool("chattr", &["-i", entry.to_str().expect("UTF-8")]);
    host.destroy(&handle).expect("destroy");
    drop((container, next));
    assert_eq!(traces(&lab, &host), before);
    lab.close(host);
}

#[test]
fn what_a_killed_daemon_had_not_removed_yet_is_removed_by_the_next() {
    let lab = lab_of("died");
    let host = lab.host();
    let before = traces(&lab, &host);
    let container = host.create(spec(&lab, "web-0"), Fault::None).expect("create");
    let (slot, handle) = (container.entry().slot, container.handle().clone());
    let (pid, _) = container.entry().pid.expect("a pid");
    drop(container);
    let (store, cgroups, net) = host.into_parts();
    // All that `destroy` does before it returns.
    kill(Pid::from_raw(pid), Signal::SIGKILL).expect("kill");
    nix::sys::wait::waitpid(Pid::from_raw(pid), None).expect("reap");
    net.revoke(slot).expect("revoke");
    store.remove_writable(&handle).expect("disk");
    cgroups.find(&handle).remove().expect("cgroup");
    let host = lab.host_of((store, cgroups, net));
    assert_eq!(host.list().expect("list"), std::slice::from_ref(&handle));
    assert!(host.reopen(&handle).expect("look").is_none());
    host.destroy(&handle).expect("destroy");
    assert_eq!(traces(&lab, &host), before);
    lab.close(host);
}

#[test]
fn an_entry_that_names_anothers_slot_is_removed_without_harm_to_the_other() {
    let lab = lab_of("twin");
    let host = lab.host();
    let container = host.create(spec(&lab, "web-0"), Fault::None).expect("create");
    let slot = container.entry().slot;
    drop(container);
    let depot = lab.state.join("depot");
    fs::create_dir(depot.join("twin")).expect("directory");
    fs::copy(depot.join("web-0/container.json"), depot.join("twin/container.json")).expect("copy");
    edit_entry(&lab, "twin", |entry| {
        entry["spec"]["handle"] = "twin".into();
        entry["pid"] = serde_json::Value::Null;
    });
    let host = lab.host_of(host.into_parts());
    let (handle, twin): (Handle, Handle) = ("web-0".parse().unwrap(), "twin".parse().unwrap());
    let container = host.reopen(&handle).expect("look").expect("it lives");
    assert!(host.reopen(&twin).expect("look").is_none());
    host.destroy(&twin).expect("destroy");
    assert!(host.net().is_allowed(slot).expect("look"), "the other's rules stay");
    assert!(host.net().is_connected(slot).expect("look"), "the other's links stay");
    let next = host.create(spec(&lab, "next"), Fault::None).expect("create");
    assert_ne!((next.entry().slot, &next.entry().ports), (slot, &container.entry().ports));
    drop((container, next));
    for handle in ["web-0", "next"] {
        host.destroy(&handle.parse().expect("handle")).expect("destroy");
    }
    lab.close(host);
}

#[test]
fn what_has_lost_its_depot_entry_is_removed_at_the_start() {
    let lab = lab_of("strays");
    let host = lab.host();
    let before = traces(&lab, &host);
    let container = host.create(spec(&lab, "web-0"), Fault::None).expect("create");
    let (pid, _) = container.entry().pid.expect("a pid");
    kill(Pid::from_raw(pid), Signal::SIGKILL).expect("kill");
    smol::block_on(container.ended());
    nix::sys::wait::waitpid(Pid::from_raw(pid), None).expect("reap");
    drop(container);
    // As after a power cut: the removal of the entry was written down, that of the rest was not.
    fs::remove_dir_all(lab.state.join("depot/web-0")).expect("remove");
    let begin = Instant::now();
    while lab.links().contains("w0-0") {
        assert!(begin.elapsed() < Duration::from_secs(60), "the dead network stays");
        std::thread::park_timeout(Duration::from_millis(10));
    }
    assert_eq!(lab.links(), "lo wb-0");
    let host = lab.host_of(host.into_parts());
    assert_eq!(traces(&lab, &host), before);
    lab.close(host);
}

#[test]
fn a_link_that_somebody_else_made_is_left_alone_and_its_slot_passed_over() {
    let lab = lab_of("foreign");
    let host = lab.host();
    tool("ip", &["link", "add", "wb-0", "type", "bridge"]);
    let err = host.create(spec(&lab, "web-0"), Fault::None).err().expect("the link is taken");
    let text = terrarium::log::chain(&err);
    assert!(text.contains("link wb-0 exists already"), "{text}");
    assert!(lab.links().contains("wb-0"), "{}", lab.links());
    assert!(host.list().expect("list").is_empty());
    let container = host.create(spec(&lab, "web-0"), Fault::None).expect("create");
    assert_eq!(container.entry().slot.get(), 1);
    drop(container);
    host.destroy(&"web-0".parse().expect("handle")).expect("destroy");
    tool("ip", &["link", "del", "wb-0"]);
    lab.close(host);
}

#[test]
fn a_port_that_was_published_meanwhile_costs_a_container_only_that_port() {
    let lab = lab_of("published");
    let host = lab.host();
    let container = host.create(spec(&lab, "web-0"), Fault::None).expect("create");
    let (slot, (port, _)) = (container.entry().slot, container.entry().ports[0]);
    tool("nft", &["flush", "ruleset"]);
    let app = (host.net().addresses(slot).container, 8080);
    host.net().publish(port, &[app]).expect("publish");
    assert!(host.mend_rules().expect("mend"));
    assert!(host.net().is_allowed(slot).expect("look"), "it has its other rules");
    host.net().publish(port, &[]).expect("publish");
    drop(container);
    host.destroy(&"web-0".parse().expect("handle")).expect("destroy");
    lab.close(host);
}

#[test]
fn a_container_that_is_taken_over_gets_its_rules_back() {
    let lab = lab_of("flushed");
    let host = lab.host();
    let container = host.create(spec(&lab, "web-0"), Fault::None).expect("create");
    let (slot, (port, _)) = (container.entry().slot, container.entry().ports[0]);
    drop(container);
    let (store, cgroups, net) = host.into_parts();
    drop(net);
    tool("nft", &["flush", "ruleset"]);
    let net = Net::open(NetConfig::new("terrarium", "")).expect("network");
    let host = lab.host_of((store, cgroups, net));
    let handle: Handle = "web-0".parse().expect("handle");
    let container = host.reopen(&handle).expect("look").expect("it lives");
    assert!(host.net().is_allowed(slot).expect("look"));
    let rules = tool("nft", &["list", "ruleset"]);
    // `tcp`, or its number where no /etc/protocols names it.
    assert!(rules.contains(&format!(" . {port} : ")), "{rules}");
    // The same while the daemon runs.
    assert!(!host.mend_rules().expect("mend"), "all is in place");
    tool("nft", &["flush", "ruleset"]);
    assert!(host.mend_rules().expect("mend"));
    assert_eq!(tool("nft", &["list", "ruleset"]), rules);
    // Also when something else came first and made the tables again.
    tool("nft", &["flush", "ruleset"]);
    host.net().publish(7070, &[]).expect("publish");
    assert!(host.mend_rules().expect("mend"));
    assert!(!host.mend_rules().expect("mend"));
    assert_eq!(tool("nft", &["list", "ruleset"]), rules);
    drop(container);
    host.destroy(&handle).expect("destroy");
    lab.close(host);
}

#[test]
fn after_a_reboot_the_process_that_has_the_old_pid_is_not_touched() {
    let lab = lab_of("reboot");
    let host = lab.host();
    drop(host.create(spec(&lab, "web-0"), Fault::None).expect("create"));
    let mut stranger = std::process::Command::new("sleep").arg("1000").spawn().expect("sleep");
    let pid = stranger.id() as i32;
    let started = terrarium::sys::process::start_time(pid).expect("start time");
    edit_entry(&lab, "web-0", |entry| {
        entry["pid"] = serde_json::json!([pid, started]);
        entry["boot"] = "another".into();
    });
    let host = lab.host_of(host.into_parts());
    let handle: Handle = "web-0".parse().expect("handle");
    assert!(host.reopen(&handle).expect("look").is_none());
    host.destroy(&handle).expect("destroy");
    assert_eq!(stranger.try_wait().expect("look"), None, "it was killed");
    stranger.kill().expect("kill");
    stranger.wait().expect("wait");
    lab.close(host);
}

#[test]
fn a_process_that_ended_before_it_was_attached_is_told_to_have_ended() {
    let lab = lab_of("ended");
    let host = lab.host();
    let container = host.create(spec(&lab, "web-0"), Fault::None).expect("create");
    let begun = smol::block_on(container.start(shell("app", "sleep 1000"))).expect("start");
    let list = smol::block_on(container.processes()).expect("list");
    // The list says that it runs; it ends before the taking over goes on.
    smol::block_on(begun.signal(9)).expect("kill");
    smol::block_on(begun.wait()).expect("its end");
    let process = smol::block_on(container.attach(&list[0])).expect("attach");
    let end = smol::block_on(smol::future::or(async { process.wait().await.ok() }, async {
        async_io::Timer::after(Duration::from_secs(10)).await;
        None
    }));
    assert_eq!(end, Some(ExitStatus::Signaled(9)));
    // A spool that leads elsewhere is not read.
    let spool = lab.state.join("depot/web-0/init/app.out");
    std::os::unix::fs::symlink("/etc/passwd", &spool).expect("link");
    let again = smol::block_on(container.attach(&list[0])).expect("attach");
    assert!(again.streams.spooled_out.is_empty() && !spool.exists());
    drop((begun, process, again, container));
    host.destroy(&"web-0".parse().expect("handle")).expect("destroy");
    lab.close(host);
}

#[test]
fn a_pid_1_that_stands_still_is_not_waited_for_without_end() {
    let lab = lab_of("still");
    let host = lab.host();
    let container = host.create(spec(&lab, "web-0"), Fault::None).expect("create");
    let (pid, _) = container.entry().pid.expect("a pid");
    kill(Pid::from_raw(pid), Signal::SIGSTOP).expect("stop");
    let err = smol::block_on(container.processes()).expect_err("no answer");
    let text = terrarium::log::chain(&err);
    assert!(text.contains("web-0") && text.contains("has not answered for 20 s"), "{text}");
    drop(container);
    host.destroy(&"web-0".parse().expect("handle")).expect("destroy");
    lab.close(host);
}

#[test]
fn who_learns_that_a_container_is_destroyed_can_have_its_name_whoever_destroys_it() {
    let lab = lab_of("both");
    let host = lab.host();
    let before = traces(&lab, &host);
    let handle: Handle = "web-0".parse().expect("handle");
    for _ in 0..20 {
        drop(host.create(spec(&lab, "web-0"), Fault::None).expect("create"));
        std::thread::scope(|scope| {
            scope.spawn(|| host.destroy(&handle).expect("destroy"));
            let begin = Instant::now();
            while !host.list().expect("list").is_empty() {
                assert!(begin.elapsed() < Duration::from_secs(60), "it stays");
                std::thread::yield_now();
            }
            drop(host.create(spec(&lab, "web-0"), Fault::None).expect("create"));
        });
        host.destroy(&handle).expect("destroy");
    }
    assert_eq!(traces(&lab, &host), before);
    lab.close(host);
}
