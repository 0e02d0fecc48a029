//! The process that every `init` is a copy of, and what its copies share with it.

use crate::container::{run, spec};
use crate::lab::Lab;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use terrarium::container::{Container, Fault};
use terrarium::model::process::ExitStatus;

/// Children of this thread in our own pid namespace: a pid 1 is in another, and hosts of other tests
/// have forked theirs on other threads.
fn spawners() -> Vec<i32> {
    let space = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
    let children = fs::read_to_string("/proc/thread-self/children").expect("children");
    let ours = children.split_whitespace().filter(|pid| space(pid) == space("self"));
    ours.map(|pid| pid.parse().expect("a number")).collect()
}

/// Sum in KiB of `field` over the mappings of the program's file in process `pid` that can be written
/// to, or over the others.
fn program_kib(pid: i32, writable: bool, field: &str) -> u64 {
    let smaps = fs::read_to_string(format!("/proc/{pid}/smaps")).expect("smaps");
    let (mut counts, mut sum) = (false, 0);
    for line in smaps.lines() {
        let mut words = line.split_ascii_whitespace();
        match words.next().expect("a word") {
            word if !word.ends_with(':') => {
                let rights = words.next().expect("rights");
                counts = line.ends_with("/terrarium") && rights.contains('w') == writable;
            }
            word if counts && word.strip_suffix(':') == Some(field) => {
                sum += words.next().expect("a value").parse::<u64>().expect("a number");
            }
            _ => {}
        }
    }
    sum
}

/// Waits until a process has less than half of `busy` KiB of the program.
fn wait_for_half(pid: i32, busy: u64, seconds: u64) -> bool {
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(seconds) {
        if program_kib(pid, false, "Rss") * 2 < busy {
            return true;
        }
        std::thread::park_timeout(Duration::from_millis(20));
    }
    false
}

fn pid_one(container: &Container) -> i32 {
    container.entry().pid.expect("a pid").0
}

#[test]
fn one_process_is_copied_for_all_and_another_follows_when_it_is_killed() {
    let lab = Lab::new("spawner");
    let host = lab.host();
    assert_eq!(spawners(), [] as [i32; 0], "nothing runs before it is needed");
    let one = host.create(spec(&lab, "one"), Fault::None).expect("create");
    let [first] = spawners()[..] else { panic!("{:?}", spawners()) };
    let two = host.create(spec(&lab, "two"), Fault::None).expect("create");
    assert_eq!(spawners(), [first]);

    // What the loader wrote is there once: a copy has little of it for itself.
    for container in [&one, &two] {
        let pid = pid_one(container);
        let (all, own) = (program_kib(pid, true, "Rss"), program_kib(pid, true, "Private_Dirty"));
        assert!(own * 2 < all, "{own} of {all} KiB are its own");
    }

    kill(Pid::from_raw(first), Signal::SIGKILL).expect("kill");
    let three = host.create(spec(&lab, "three"), Fault::None).expect("create with another");
    assert!(!spawners().contains(&first) && spawners().len() == 1, "{:?}", spawners());
    for container in [&one, &two, &three] {
        assert_eq!(run(container, "true", "exit 3"), ExitStatus::Exited(3));
        host.destroy(container.handle()).expect("destroy");
    }
    drop((one, two, three));
    lab.close(host);
    assert_eq!(spawners(), [] as [i32; 0], "it ends with its host");
}

#[test]
fn a_spawner_that_stands_still_is_replaced_and_holds_up_nobody() {
    let lab = Lab::new("still");
    let host = lab.host();
    drop(host.create(spec(&lab, "one"), Fault::None).expect("create"));
    let [first] = spawners()[..] else { panic!("{:?}", spawners()) };
    kill(Pid::from_raw(first), Signal::SIGSTOP).expect("stop");
    // It has five seconds, and what it left undone another five.
    let begun = Instant::now();
    let two = host.create(spec(&lab, "two"), Fault::None).expect("create with another");
    let waited = begun.elapsed();
    assert!(waited < Duration::from_secs(40), "everybody behind it waits for {waited:?}");
    assert!(!spawners().contains(&first) && spawners().len() == 1, "{:?}", spawners());
    assert_eq!(run(&two, "true", "exit 3"), ExitStatus::Exited(3));
    drop(two);
    for name in ["one", "two"] {
        host.destroy(&name.parse().expect("handle")).expect("destroy");
    }
    lab.close(host);
    assert_eq!(spawners(), [] as [i32; 0], "it ends with its host");
}

#[test]
fn a_pid_one_that_rests_lets_go_of_the_program() {
    let lab = Lab::new("calm");
    let host = lab.host();
    let container = host.create(spec(&lab, "calm"), Fault::None).expect("create");
    let pid = pid_one(&container);
    let [spawner] = spawners()[..] else { panic!("{:?}", spawners()) };
    // The spawner after it has made a container.
    let busy = program_kib(spawner, false, "Rss");
    wait_for_half(spawner, busy, 60).then_some(()).expect("the spawner rests");
    // More than once, as a slow machine may let it rest before it is looked at.
    let rests = (0..6).any(|n| {
        assert_eq!(run(&container, &format!("run-{n}"), "exit 0"), ExitStatus::Exited(0));
        wait_for_half(pid, program_kib(pid, false, "Rss"), 10)
    });
    assert!(rests, "it still has {} KiB", program_kib(pid, false, "Rss"));
    assert_eq!(run(&container, "again", "exit 4"), ExitStatus::Exited(4));
    host.destroy(container.handle()).expect("destroy");
    drop(container);
    lab.close(host);
}

/// Children of a thread of ours, ended ones too.
fn children(thread: Pid) -> Vec<i32> {
    let text = fs::read_to_string(format!("/proc/self/task/{thread}/children")).expect("children");
    text.split_whitespace().map(|pid| pid.parse().expect("a number")).collect()
}

#[test]
fn a_spawner_that_is_killed_while_it_makes_a_copy_leaves_no_child() {
    // The bridge is not reached: only processes are made.
    const SPAWNED: Fault = Fault::After(1);
    let lab = Lab::new("killed");
    let host = lab.host();
    let me = nix::unistd::gettid();
    for n in 0..60 {
        assert!(host.create(spec(&lab, "first"), SPAWNED).is_err(), "the fault");
        let [spawner] = children(me)[..] else { panic!("round {n}: {:?}", children(me)) };
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while children(me).len() < 2 && !done.load(Ordering::Relaxed) {}
                kill(Pid::from_raw(spawner), Signal::SIGKILL).expect("kill");
            });
            assert!(host.create(spec(&lab, "second"), SPAWNED).is_err(), "the fault");
            done.store(true, Ordering::Relaxed);
        });
        // One that is killed now is found out by the next creation.
        assert!(host.create(spec(&lab, "third"), SPAWNED).is_err(), "the fault");
        assert_eq!(children(me).len(), 1, "round {n}");
    }
    lab.close(host);
    assert_eq!(children(me), [] as [i32; 0]);
}
