//! Containers on the real kernel: made whole or not at all, and gone without a trace.

use crate::lab::{Lab, tool};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use terrarium::container::recipe::CREATE;
use terrarium::container::{Container, ContainerSpec, Fault, Host};
use terrarium::model::limits::Limits;
use terrarium::model::process::{ExitStatus, ProcessSpec};
use terrarium::unit::{Bytes, Handle};

fn spec(lab: &Lab, handle: &str) -> ContainerSpec {
    ContainerSpec {
        handle: handle.parse().expect("handle"),
        layers: vec![lab.layer],
        limits: Limits {
            memory: Some(Bytes::mib(64)),
            disk: Some(Bytes::mib(16)),
            cpu_weight: Some(10),
            pids: Some(64),
        },
        ports: vec![8080],
        egress: Vec::new(),
        binds: Vec::new(),
        owner: "test".into(),
    }
}

fn shell(id: &str, script: &str) -> ProcessSpec {
    ProcessSpec {
        id: id.into(),
        path: "/bin/sh".into(),
        args: vec!["-c".into(), script.into()],
        argv0: None,
        env: Vec::new(),
        dir: Some("/".into()),
        user: "root".into(),
        nofile: None,
        tty: None,
        stdin: false,
    }
}

fn run(container: &Container, id: &str, script: &str) -> ExitStatus {
    smol::block_on(async {
        let process = container.start(shell(id, script)).await.expect("start");
        process.wait().await.expect("its end")
    })
}

/// Everything that containers leave on a box, as text: must be the same before and after.
fn traces(lab: &Lab, host: &Host) -> String {
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
    let lab = Lab::new("whole");
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
    let lab = Lab::new("faults");
    let host = lab.host();
    let before = traces(&lab, &host);
    for n in 0..CREATE.len() {
        let made = host.create(spec(&lab, &format!("fault-{n}")), Fault::After(n));
        let err = made.err().unwrap_or_else(|| panic!("step {n} must fail"));
        let handle = format!("container fault-{n}");
        assert!(err.to_string().contains(&handle), "{err}");
        assert_eq!(traces(&lab, &host), before, "after step {n}, {:?}", CREATE[n]);
    }
    // Slots and ports came back too: the next one is the first one.
    let container = host.create(spec(&lab, "after"), Fault::None).expect("create");
    assert_eq!(container.entry.slot.get(), 0);
    drop(container);
    host.destroy(&"after".parse().expect("handle")).expect("destroy");
    assert_eq!(traces(&lab, &host), before);
    lab.close(host);
}

#[test]
fn a_missing_layer_is_named_and_nothing_is_left() {
    let lab = Lab::new("nolayer");
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
    let lab = Lab::new("taken");
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
    let lab = Lab::new("killed");
    let host = lab.host();
    let before = traces(&lab, &host);
    let container = host.create(spec(&lab, "web-0"), Fault::None).expect("create");
    let (pid, _) = container.entry.pid.expect("a pid");
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
fn a_second_host_takes_over_a_container_with_its_output() {
    let lab = Lab::new("reopen");
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
    let lab = Lab::new("two");
    let host = lab.host();
    let first = host.create(spec(&lab, "web-0"), Fault::None).expect("create");
    let second = host.create(spec(&lab, "web-1"), Fault::None).expect("create");
    assert_ne!(first.entry.slot, second.entry.slot);
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
