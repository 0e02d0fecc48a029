//! Halves of containers that are made ahead: what becomes of one is a container like every other, and
//! nothing of them stays.

use crate::container::{run, shell, spec};
use crate::lab::Lab;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use smol::io::AsyncReadExt;
use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};
use terrarium::container::recipe::{FINISH, Step};
use terrarium::container::{Container, ContainerSpec, Fault, Host, Posture, RootDriver};
use terrarium::model::process::ExitStatus;
use terrarium::unit::{Bytes, Handle, Slot};

/// As many as the lab's hosts keep.
const MOST: usize = 2;

/// Waits until there are as many as there may be.
fn fill(host: &Host) -> Vec<(Slot, i32)> {
    host.open_reserve();
    let begun = Instant::now();
    loop {
        let reserved = host.reserved();
        if reserved.len() == MOST {
            return reserved;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "only {reserved:?}");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

/// A container that was made of one of them.
fn finished(host: &Host, spec: ContainerSpec) -> Container {
    let reserved = fill(host);
    let container = host.create(spec, Fault::None).expect("create");
    let entry = container.entry();
    let made_of = (entry.slot, entry.pid.expect("a pid").0);
    assert!(reserved.contains(&made_of), "{made_of:?} is none of {reserved:?}");
    container
}

fn handle(text: &str) -> Handle {
    text.parse().expect("handle")
}

/// Links, children and control groups, and what is in the depot, when the reserve is empty.
fn traces(lab: &Lab, host: &Host) -> String {
    host.close_reserve();
    host.finish();
    lab.settle();
    let reserve = lab.state.join("depot.reserve");
    let left: Vec<_> = fs::read_dir(reserve).into_iter().flatten().flatten().collect();
    let listed = host.list().expect("list");
    format!("{} {:?} {:?} {left:?} {listed:?}", lab.links(), lab.children(), lab.cgroups())
}

/// What a process inside says.
fn said(container: &Container, script: &str) -> String {
    smol::block_on(async {
        let mut process = container.start(shell("look", script)).await.expect("start");
        let stdout = process.streams.stdout.take().expect("stdout");
        let mut stdout = smol::Async::new(fs::File::from(stdout)).expect("stdout");
        let mut text = String::new();
        stdout.read_to_string(&mut text).await.expect("read");
        process.wait().await.expect("its end");
        text
    })
}

/// All that can be told of a container from inside and outside and is not by its nature another in
/// each: numbers of processes, mounts and devices, and in which order mounts were made.
fn portrait(container: &Container) -> String {
    let mounts = said(container, "cat /proc/self/mountinfo");
    // Number, parent, device, root, place, options, -, type, source, options of the file system.
    let mut mounts: Vec<String> = mounts
        .lines()
        .map(|line| line.split(' ').skip(3).collect::<Vec<_>>().join(" "))
        .map(|line| {
            // The number of a subvolume counts up.
            let options = line.split(',').filter(|option| !option.starts_with("subvolid="));
            options.collect::<Vec<_>>().join(",")
        })
        .collect();
    mounts.sort();
    let status = |pid: &str| {
        let text = fs::read_to_string(format!("/proc/{pid}/status")).expect("status");
        const SAME: [&str; 15] = [
            "Name",
            "Umask",
            "Uid",
            "Gid",
            "Groups",
            "SigBlk",
            "SigIgn",
            "CapInh",
            "CapPrm",
            "CapEff",
            "CapBnd",
            "CapAmb",
            "NoNewPrivs",
            "Seccomp",
            "Seccomp_filters",
        ];
        let is_same = |line: &&str| SAME.contains(&line.split(':').next().unwrap_or_default());
        text.lines().filter(is_same).collect::<Vec<_>>().join("\n")
    };
    let pid = container.entry().pid.expect("a pid").0.to_string();
    let of = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}")).expect(file);
    let open = fs::read_dir(format!("/proc/{pid}/fd")).expect("descriptors").flatten();
    let mut open: Vec<String> = open
        .map(|fd| fs::read_link(fd.path()).expect("a descriptor").to_string_lossy().into_owned())
        .map(|name| name.split(|c: char| c.is_ascii_digit()).next().unwrap_or_default().to_owned())
        .collect();
    open.sort();
    let inside = said(
        container,
        "cat /proc/self/cgroup /proc/self/uid_map /proc/self/gid_map /proc/self/limits \
         /proc/sys/kernel/hostname /proc/net/route /etc/hosts \
         /etc/resolv.conf /etc/hostname; busybox ls -ln / /dev /proc/1/ns | busybox tr -s ' ' \
         | busybox cut -d ' ' -f 1,3,4; busybox ip -o address | grep -v fe80; grep -E 'Cap|Seccomp|NoNew' \
         /proc/self/status; busybox df -k /dev/shm; echo x > /proc/sys/kernel/hostname; \
         cat /proc/keys /proc/timer_list; busybox ls -A /sys/firmware /sys/fs",
    );
    // The numbers of links count up.
    let inside = inside.lines().filter(|it| !it.contains("name=terrarium"));
    let inside = inside.map(|line| match line.split_once(": ") {
        Some((number, rest)) if number.parse::<u32>().is_ok() => rest.replace("@if", "@ "),
        _ => line.to_owned(),
    });
    let inside: Vec<String> = inside
        .map(|line| line.split(' ').filter(|word| !word.contains("valid_lft")).collect::<String>())
        .collect();
    format!(
        "{}\n{}\n{}\n{}{}{}\n{open:?}\n{}",
        mounts.join("\n"),
        status(&pid),
        // A hierarchy that another test has, and may be rid of between two portraits.
        of("cgroup")
            .lines()
            .filter(|it| !it.contains("name=terrarium"))
            .collect::<Vec<_>>()
            .join("\n"),
        of("limits"),
        of("oom_score_adj"),
        of("uid_map"),
        inside.join("\n")
    )
}

#[test]
fn what_is_made_of_a_half_is_like_every_other() {
    for root in [RootDriver::Union, RootDriver::Snapshot] {
        for posture in [Posture::App, Posture::Garden] {
            let lab = Lab::new(&format!("half-{root:?}-{posture:?}").to_lowercase());
            let host = lab.host();
            let wanted = || ContainerSpec { posture, root, ..spec(&lab, "web-0") };
            let whole = host.create(wanted(), Fault::None).expect("create");
            assert_eq!(whole.entry().slot.get(), 0);
            let expected = portrait(&whole);
            drop(whole);
            host.destroy(&handle("web-0")).expect("destroy");
            host.finish();

            let half = finished(&host, wanted());
            assert_eq!(half.entry().slot.get(), 0, "the same numbers: the portraits have them");
            let got = portrait(&half);
            let other = expected.lines().zip(got.lines()).find(|(a, b)| a != b);
            assert_eq!(got, expected, "{root:?} {posture:?}: {other:?}");
            drop(half);
            host.destroy(&handle("web-0")).expect("destroy");
            drop(traces(&lab, &host));
            lab.close(host);
        }
    }
}

#[test]
fn a_failure_after_any_step_leaves_nothing() {
    let lab = Lab::new("half-faults");
    let host = lab.host();
    let before = traces(&lab, &host);
    for (n, step) in FINISH.iter().enumerate() {
        fill(&host);
        let made = host.create(spec(&lab, &format!("fault-{n}")), Fault::After(n));
        assert!(made.is_err(), "step {n} must fail");
        assert_eq!(traces(&lab, &host), before, "after step {n}, {step:?}");
    }
    // Slots came back too.
    let container = finished(&host, spec(&lab, "after"));
    assert_eq!(container.entry().slot.get(), 0);
    assert_eq!(run(&container, "ok", "test $(id -u) = 0"), ExitStatus::Exited(0));
    drop(container);
    host.destroy(&handle("after")).expect("destroy");
    assert_eq!(traces(&lab, &host), before);
    lab.close(host);
}

#[test]
fn a_half_that_is_not_used_goes_back() {
    let lab = Lab::new("half-back");
    let host = lab.host();
    let before = traces(&lab, &host);
    drop(finished(&host, spec(&lab, "web-0")));
    let reserved = fill(&host);
    // The name is taken, and no port has this number twice.
    assert!(host.create(spec(&lab, "web-0"), Fault::None).is_err());
    let twice = ContainerSpec { host_ports: vec![(7000, 1), (7000, 2)], ..spec(&lab, "web-1") };
    assert!(host.create(twice, Fault::None).is_err());
    // What nobody knows has the name.
    let unknown = lab.state.join("depot/web-9");
    fs::create_dir(&unknown).expect("mkdir");
    assert!(host.create(spec(&lab, "web-9"), Fault::None).is_err());
    fs::remove_dir(&unknown).expect("rmdir");
    assert_eq!(host.reserved().len(), MOST);
    let mut now = host.reserved();
    now.sort();
    let mut then = reserved.clone();
    then.sort();
    assert_eq!(now, then, "the same two, with their slots");
    // What is not like the others has no use for one.
    let network = ContainerSpec { network: "10.2.0.0/24".into(), ..spec(&lab, "web-2") };
    let container = host.create(network, Fault::None).expect("create");
    assert!(reserved.iter().all(|(slot, _)| *slot != container.entry().slot));
    drop(container);
    for name in ["web-0", "web-2"] {
        host.destroy(&handle(name)).expect("destroy");
    }
    assert_eq!(traces(&lab, &host), before);
    lab.close(host);
}

#[test]
fn a_half_that_has_died_is_passed_over_and_removed() {
    let lab = Lab::new("half-dead");
    let host = lab.host();
    let before = traces(&lab, &host);
    let reserved = fill(&host);
    for (_, pid) in &reserved {
        kill(Pid::from_raw(*pid), Signal::SIGKILL).expect("kill");
    }
    // Its end closes its channel.
    let begun = Instant::now();
    while reserved.iter().any(|(_, pid)| lives(*pid)) {
        assert!(begun.elapsed() < Duration::from_secs(60), "they live");
        std::thread::park_timeout(Duration::from_millis(5));
    }
    let container = host.create(spec(&lab, "web-0"), Fault::None).expect("create");
    assert_eq!(run(&container, "ok", "test $(id -u) = 0"), ExitStatus::Exited(0));
    let is_new = |(_, pid): &(Slot, i32)| reserved.iter().all(|(_, dead)| dead != pid);
    let begun = Instant::now();
    while host.reserved().len() < MOST || !host.reserved().iter().all(is_new) {
        assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", host.reserved());
        std::thread::park_timeout(Duration::from_millis(5));
    }
    drop(container);
    host.destroy(&handle("web-0")).expect("destroy");
    assert_eq!(traces(&lab, &host), before);
    lab.close(host);
}

#[test]
fn one_whose_half_dies_under_its_hands_is_made_from_the_beginning() {
    let lab = Lab::new("half-lost");
    let host = lab.host();
    let before = traces(&lab, &host);
    // In that step it is told to go on; once it serves, its end is the container's.
    let go = FINISH.iter().position(|step| *step == Step::Init).expect("in the list");
    for n in 0..go {
        let reserved = fill(&host);
        let container = host.create(spec(&lab, "web-0"), Fault::Ended(n)).expect("create");
        let (pid, _) = container.entry().pid.expect("a pid");
        assert!(reserved.iter().all(|(_, half)| *half != pid), "after step {n}: no half's");
        assert_eq!(run(&container, "ok", "test $(id -u) = 0"), ExitStatus::Exited(0));
        drop(container);
        host.destroy(&handle("web-0")).expect("destroy");
        assert_eq!(traces(&lab, &host), before, "after step {n}");
    }
    lab.close(host);
}

/// Not ended: a zombie has.
fn lives(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

#[test]
fn many_at_once_get_one_each_or_none() {
    let lab = Lab::new("half-crowd");
    let host = lab.host();
    let before = traces(&lab, &host);
    fill(&host);
    let names: Vec<String> = (0..6).map(|n| format!("web-{n}")).collect();
    let made: Vec<Container> = std::thread::scope(|scope| {
        let make = |name| host.create(spec(&lab, name), Fault::None).expect("create");
        let threads: Vec<_> = names.iter().map(|name| scope.spawn(move || make(name))).collect();
        threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
    });
    let mut slots: Vec<_> = made.iter().map(|container| container.entry().slot).collect();
    slots.sort();
    slots.dedup();
    assert_eq!(slots.len(), names.len());
    for container in &made {
        assert_eq!(run(container, "ok", "test $(id -u) = 0"), ExitStatus::Exited(0));
    }
    drop(made);
    for name in &names {
        host.destroy(&handle(name)).expect("destroy");
    }
    assert_eq!(traces(&lab, &host), before);
    lab.close(host);
}

#[test]
fn its_limits_hold_and_what_it_uses_is_its_own() {
    let lab = Lab::new("half-limits");
    let host = lab.host();
    let mut wanted = spec(&lab, "web-0");
    wanted.limits.memory = Some(Bytes::mib(16));
    let container = finished(&host, wanted);
    let eat = "busybox dd if=/dev/zero of=/dev/null bs=40M count=1 2> /dev/null";
    // Many times: pid 1 is never the largest, also right after it has made the container.
    for n in 0..5 {
        assert_ne!(
            run(&container, &format!("eat-{n}"), eat),
            ExitStatus::Exited(0),
            "over its memory"
        );
    }
    let fork = "i=0; while [ $i -lt 100 ]; do sleep 100 & i=$((i+1)); done";
    assert_ne!(run(&container, "fork", fork), ExitStatus::Exited(0), "over its processes");
    drop(container);
    host.destroy(&handle("web-0")).expect("destroy");
    drop(traces(&lab, &host));
    lab.close(host);
}

/// Whatever runs in it is ended before its pid 1 when memory runs out: there is no moment in which a process
/// has pid 1's number.
#[test]
fn every_process_is_ended_before_pid_one_from_its_first_moment_on() {
    let lab = Lab::new("half-victim");
    let host = lab.host();
    let container = finished(&host, spec(&lab, "web-0"));
    let pid = container.entry().pid.expect("a pid").0;
    let score = |pid: &str| {
        let text = fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).expect("score");
        text.trim().parse::<i32>().expect("a number")
    };
    let own = score(&pid.to_string());
    // The first that it does is to fork.
    for n in 0..20 {
        let told = said(&container, "(cat /proc/self/oom_score_adj); cat /proc/$$/oom_score_adj");
        let told: Vec<i32> = told.lines().map(|line| line.parse().expect("a number")).collect();
        assert_eq!(told, [own + 100; 2], "{n}");
    }
    assert_eq!(score(&pid.to_string()), own, "as before");
    drop(container);
    host.destroy(&handle("web-0")).expect("destroy");
    drop(traces(&lab, &host));
    lab.close(host);
}

#[test]
fn what_a_daemon_that_was_killed_has_left_is_removed_by_the_next() {
    let lab = Lab::new("half-left");
    let host = lab.host();
    let before = traces(&lab, &host);
    let reserved = fill(&host);
    // As after a kill: links, bridges and directories are there, and nobody has them.
    let kept = lab.state.join("kept");
    assert!(lab.links().contains("wb-0") && lab.links().contains("wb-1"), "{}", lab.links());
    fs::create_dir(&kept).expect("mkdir");
    for (slot, _) in &reserved {
        fs::create_dir(kept.join(slot.to_string())).expect("mkdir");
    }
    let parts = host.into_parts();
    let mut nobodys = Command::new("sleep").arg("1000").spawn().expect("sleep");
    parts.1.make_ahead(reserved[0].0, nobodys.id() as i32, || ()).expect("groups");
    assert!(!lab.cgroups().is_empty(), "they are there");
    nobodys.kill().and_then(|()| nobodys.wait()).expect("its end");
    for (slot, _) in &reserved {
        let bridge = format!("wb-{slot}");
        crate::tool::tool("ip", &["link", "add", &bridge, "type", "bridge"]);
    }
    let reserve = lab.state.join("depot.reserve");
    assert!(!reserve.exists(), "it was emptied");
    fs::rename(&kept, &reserve).expect("rename");
    let host = lab.host_of(parts);
    assert_eq!(traces(&lab, &host), before);
    let container = finished(&host, spec(&lab, "web-0"));
    assert_eq!(container.entry().slot.get(), 0);
    drop(container);
    host.destroy(&handle("web-0")).expect("destroy");
    assert_eq!(traces(&lab, &host), before);
    lab.close(host);
}

/// A note of a slot that could not be removed when it should have been, and now a container has it.
#[test]
fn a_note_that_was_left_does_not_take_the_links_of_who_has_the_slot_now() {
    let lab = Lab::new("half-note");
    let host = lab.host();
    let before = traces(&lab, &host);
    let container = host.create(spec(&lab, "web-0"), Fault::None).expect("create");
    let slot = container.entry().slot;
    drop(container);
    let links = lab.links();
    let reserve = lab.state.join("depot.reserve");
    fs::create_dir_all(reserve.join(slot.to_string())).expect("mkdir");
    let host = lab.host_of(host.into_parts());
    assert_eq!(lab.links(), links, "the container's");
    assert!(!reserve.exists(), "nobody needs the note");
    host.destroy(&handle("web-0")).expect("destroy");
    assert_eq!(traces(&lab, &host), before);
    lab.close(host);
}
