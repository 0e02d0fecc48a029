//! Our own program in a container, by its descriptor.

use super::lab::*;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use terrarium::init::message;
use terrarium::init::proto::*;
use terrarium::model::process::{ExitStatus, ProcessSpec, Program};
use terrarium::sys::{fd, process, socket};

/// The binary, sealed in memory.
fn sealed() -> OwnedFd {
    let mut file = File::open(env!("CARGO_BIN_EXE_terrarium")).expect("the program");
    fd::sealed_program("terrarium", &mut file).expect("memory")
}

fn ours(id: &str, role: &str, args: &[&str]) -> ProcessSpec {
    ProcessSpec { id: id.into(), program: Program::Ours, stdin: true, ..spec(role, args) }
}

#[test]
fn our_program_runs_without_any_file_of_the_container_and_cannot_be_looked_into() {
    let lab = Lab::new();
    let mut container = lab.container();
    let inside = &mut container.connection;
    let program = sealed();
    // It waits for its tar, while root of the container looks at it.
    let (answer, fds) =
        inside.ask_with(Ask::Start(ours("_1", "tar-in", &["/to"])), &[program.as_fd()]);
    let Answer::Started { pid, .. } = answer else { panic!("{answer:?}") };
    assert_eq!(fds.len(), 3);
    let said = inside.sh(&format!(
        "cat /proc/{pid}/cmdline | tr '\\0' ' '; echo; readlink /proc/{pid}/exe; \
         echo x > /proc/{pid}/exe; head -c 4 /proc/{pid}/exe; ls /proc/{pid}/fd; \
         cat /proc/{pid}/environ; id -u; grep -E 'Seccomp:|NoNewPrivs' /proc/{pid}/status"
    ));
    assert!(said.starts_with("tar-in /to \n"), "{said}");
    assert_eq!(said.matches("ermission denied").count(), 4, "{said}");
    assert!(said.ends_with("0\nNoNewPrivs:\t1\nSeccomp:\t2\n") && !said.contains("ELF"), "{said}");
    // One that serves the daemon is told as such, and nobody attaches to it.
    let list = inside.list();
    assert!(list.iter().any(|one| one.id == "_1" && one.is_internal()), "{list:?}");
    assert_eq!(
        inside.refused(Ask::Attach { id: "_1".into(), never_waits: false }).0,
        FailKind::NoSuchProcess
    );
    drop(fds);
    assert_eq!(inside.ended("_1"), ExitStatus::Exited(1));
    assert!(inside.list().is_empty(), "forgotten by itself");
    assert_eq!(std::fs::read_dir(lab.depot()).expect("depot").count(), 0, "without a file");
}

#[test]
fn internal_names_are_for_our_programs_alone_and_those_need_their_descriptor() {
    let lab = Lab::new();
    let mut container = lab.container();
    let inside = &mut container.connection;
    let (kind, text) = inside.refused(Ask::Start(ProcessSpec { id: "_x".into(), ..sh("true") }));
    assert!(kind == FailKind::Refused && text.contains("`_x`"), "{text}");
    let (kind, text) = inside.refused(Ask::Start(ours("_x", "tar-in", &["/"])));
    assert!(kind == FailKind::Refused && text.contains("without its program"), "{text}");
    let wanted = ProcessSpec { user: "nobody-here".into(), ..ours("_x", "tar-in", &["/"]) };
    let (answer, _) = inside.ask_with(Ask::Start(wanted), &[sealed().as_fd()]);
    assert!(matches!(answer, Answer::Failed { kind: FailKind::UserNotFound, .. }), "{answer:?}");
    // What is no program is told like any other.
    let empty = fd::sealed_memory("empty", b"").expect("memory");
    let (answer, _) = inside.ask_with(Ask::Start(ours("_x", "tar-in", &["/"])), &[empty.as_fd()]);
    assert!(matches!(answer, Answer::Failed { kind: FailKind::NotExecutable, .. }), "{answer:?}");
    // With a name of its own it is a process like any other.
    let program = sealed();
    let wanted = ProcessSpec { stdin: false, ..ours("plain", "tar-out", &["/gone"]) };
    let (answer, fds) = inside.ask_with(Ask::Start(wanted), &[program.as_fd()]);
    assert!(matches!(answer, Answer::Started { .. }), "{answer:?}");
    assert_eq!(inside.ended("plain"), ExitStatus::Exited(1));
    assert!(read_until(&fds[1], "\n").contains("cannot open /gone"));
    assert_eq!(exit_file(&lab, "plain"), ExitStatus::Exited(1));
    assert!(!inside.list()[0].is_internal());
}

#[test]
fn what_serves_a_daemon_ends_with_it() {
    let lab = Lab::new();
    let mut container = lab.container();
    let program = sealed();
    let mut other = Connection::new(&lab.dir);
    // Both ends stay open here, as if a child of the dead daemon held them.
    let mut held = Vec::new();
    for (id, role) in [("_in", "tar-in"), ("_out", "tar-out")] {
        let (answer, fds) = other.ask_with(Ask::Start(ours(id, role, &["/"])), &[program.as_fd()]);
        assert!(matches!(answer, Answer::Started { .. }), "{answer:?}");
        held.push(fds);
    }
    drop(other);
    let inside = &mut container.connection;
    for id in ["_in", "_out"] {
        assert_eq!(inside.ended(id), ExitStatus::Signaled(9));
    }
    assert!(inside.list().is_empty());
}

#[test]
fn a_copy_that_nobody_has_heard_of_says_who_it_is_and_ends() {
    let (ours, theirs) = socket::pair().expect("pair");
    let mut spawner = std::process::Command::new(env!("CARGO_BIN_EXE_terrarium"))
        .arg("init")
        .stdin(std::process::Stdio::from(theirs))
        .spawn()
        .expect("spawn terrarium init");
    message::send(&ours, &Order::Spawner, &[]).expect("send the order");
    let (channel, theirs) = socket::pair().expect("pair");
    socket::send_with_fds(&ours, b"\n", &[theirs.as_fd()]).expect("ask for a copy");
    drop(theirs);
    assert!(fd::wait_readable(&ours, 60_000).expect("poll"), "it has made one");
    // As if it had been killed before it could say so.
    spawner.kill().expect("kill");
    spawner.wait().expect("wait");
    socket::end_sending(&channel).expect("nothing to do");
    assert!(fd::wait_readable(&channel, 60_000).expect("poll"), "the copy has a last word");
    let last = message::receive::<SetUp>(&channel, &mut [0; 4096]).expect("receive");
    let Some((SetUp::Refused { pid: Some(pid), .. }, _)) = last else { panic!("{last:?}") };
    assert_eq!(process::wait(pid).expect("a child of ours"), process::Ended::Exited(1));
}
