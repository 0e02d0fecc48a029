//! A program for the inside: this test binary itself, which asks the kernel for what it must not
//! give and prints the answers.
#![allow(unsafe_code)]

use super::lab::*;
use std::fs;
use terrarium::init::proto::Plan;

/// Set inside the container only.
const MARK: &str = "TERRARIUM_PROBE";

/// Runs inside the container (see [`answers`]); does nothing elsewhere.
#[test]
#[ignore = "runs inside a container only"]
fn probe() {
    if std::env::var_os(MARK).is_none() {
        return;
    }
    // The test runner has begun a line.
    println!();
    let say = |name: &str, result: i64| {
        let errno = std::io::Error::last_os_error().raw_os_error().unwrap_or(0);
        println!("{name}={}", if result < 0 { errno } else { 0 });
    };
    let null = std::ptr::null::<u8>();
    let call = |name: &str, number: i64, args: [i64; 4]| {
        // SAFETY: every call below passes null or plain numbers where the kernel wants memory, so
        // at worst it answers EFAULT.
        let got = unsafe { libc::syscall(number, args[0], args[1], args[2], args[3]) };
        say(name, got);
    };
    let path = c"/".as_ptr() as i64;
    call("keyctl", libc::SYS_keyctl, [0, -3, 0, 0]);
    call("add_key", libc::SYS_add_key, [0; 4]);
    call("bpf", libc::SYS_bpf, [0; 4]);
    call("perf_event_open", libc::SYS_perf_event_open, [0; 4]);
    call("userfaultfd", libc::SYS_userfaultfd, [0; 4]);
    call("io_uring_setup", libc::SYS_io_uring_setup, [1, 0, 0, 0]);
    call("mount", libc::SYS_mount, [path, path, 0, libc::MS_BIND as i64]);
    call("umount", libc::SYS_umount2, [path, 2, 0, 0]);
    call("open_tree", libc::SYS_open_tree, [-100, path, 1, 0]);
    call("fsopen", libc::SYS_fsopen, [c"tmpfs".as_ptr() as i64, 0, 0, 0]);
    call("setns", libc::SYS_setns, [0, 0, 0, 0]);
    call("pivot_root", libc::SYS_pivot_root, [path, path, 0, 0]);
    call("open_by_handle_at", libc::SYS_open_by_handle_at, [0; 4]);
    call("init_module", libc::SYS_init_module, [0; 4]);
    call("kexec_load", libc::SYS_kexec_load, [0; 4]);
    call("unshare user", libc::SYS_unshare, [0x1000_0000, 0, 0, 0]);
    call("unshare time", libc::SYS_unshare, [0x80, 0, 0, 0]);
    call("unshare files", libc::SYS_unshare, [0x400, 0, 0, 0]);
    call("clone user", libc::SYS_clone, [0x1000_0000 | 17, 0, 0, 0]);
    call("clone3", libc::SYS_clone3, [0, 0, 0, 0]);
    call("young call", 500, [0; 4]);
    call("socket packet", libc::SYS_socket, [17, 3, 0, 0]);
    call("socket alg", libc::SYS_socket, [38, 5, 0, 0]);
    call("socket vsock", libc::SYS_socket, [40, 1, 0, 0]);
    call("socket raw", libc::SYS_socket, [2, 3, 1, 0]);
    call("socket high bits", libc::SYS_socket, [17 | 1 << 32, 3, 0, 0]);
    call("socket inet", libc::SYS_socket, [2, 1, 0, 0]);
    call("socket netlink", libc::SYS_socket, [16, 3, 0, 0]);
    for (name, request) in [
        ("TIOCSTI", 0x5412),
        ("TIOCSTI high bits", 0x5412 | 1 << 32),
        ("TIOCLINUX", 0x541c),
        ("SNAP_CREATE", 0x5000_9401),
        ("SUBVOL_CREATE", 0x5000_940e),
        ("SNAP_DESTROY", 0x5000_940f),
        ("SNAP_CREATE_V2", 0x5000_9417),
        ("SUBVOL_CREATE_V2", 0x5000_9418),
        ("SNAP_DESTROY_V2", 0x5000_943f),
    ] {
        call(name, libc::SYS_ioctl, [0, request, null as i64, 0]);
    }
    call("personality", libc::SYS_personality, [0x0020_0000, 0, 0, 0]);
    call("ptrace pid 1", libc::SYS_ptrace, [16, 1, 0, 0]);
    call("ptrace seize pid 1", libc::SYS_ptrace, [0x4206, 1, 0, 0]);
    call("pidfd_getfd", libc::SYS_pidfd_getfd, [0, 0, 0, 0]);
    let mut byte = 0u8;
    let part = libc::iovec { iov_base: (&raw mut byte).cast(), iov_len: 1 };
    // SAFETY: one iovec of one byte of our own; the remote side is only read, if at all.
    say("process_vm_readv pid 1", unsafe { libc::process_vm_readv(1, &part, 1, &part, 1, 0) }
        as i64);
    for file in ["exe", "mem", "environ", "maps", "root", "cwd", "fd", "ns/mnt"] {
        let path = format!("/proc/1/{file}");
        let opened = fs::File::open(&path).map(drop);
        println!("{path}={}", opened.err().and_then(|err| err.raw_os_error()).unwrap_or(0));
    }
    let written = fs::OpenOptions::new().write(true).open("/proc/1/exe").map(drop);
    println!("write exe={}", written.err().and_then(|err| err.raw_os_error()).unwrap_or(0));
}

/// Runs inside the container: tells who it is.
#[test]
#[ignore = "runs inside a container only"]
fn identify() {
    if std::env::var_os(MARK).is_some() {
        println!("\n{}", fs::read_to_string("/proc/self/status").expect("status"));
    }
}

/// A process of `user` that runs [`identify`] in a container which has this binary as `program`.
pub fn identity(program: &str, user: &str) -> terrarium::model::process::ProcessSpec {
    let args = ["init::probe::identify", "--exact", "--ignored", "--nocapture", "--test-threads=1"];
    let mut identity = spec(program, &args);
    identity.user = user.into();
    identity.env.push((MARK.into(), "1".into()));
    identity
}

/// Runs inside the container: takes all the inotify instances that it can get, and keeps them.
#[test]
#[ignore = "runs inside a container only"]
fn hoard() {
    if std::env::var_os(MARK).is_none() {
        return;
    }
    // SAFETY: no memory is involved; the descriptors are kept until the end.
    let held = (0..1000).take_while(|_| unsafe { libc::inotify_init1(0) } >= 0).count();
    println!("\n{held} kept");
    loop {
        std::thread::park();
    }
}

/// A process that runs [`hoard`] in a container which has this binary as /probe.
pub fn hoarder() -> terrarium::model::process::ProcessSpec {
    let args = ["init::probe::hoard", "--exact", "--ignored", "--nocapture", "--test-threads=1"];
    let mut hoarder = spec("/probe", &args);
    hoarder.env.push((MARK.into(), "1".into()));
    hoarder
}

/// This binary as /probe.
pub fn bind() -> terrarium::init::proto::Bind {
    terrarium::init::proto::Bind {
        from: std::env::current_exe().expect("own program"),
        origin: Default::default(),
        to: "/probe".into(),
        read_only: true,
        mapped: false,
        ours: false,
    }
}

/// Whether this process, root of the host, can have an inotify instance.
pub fn can_watch() -> bool {
    // SAFETY: no memory is involved.
    let fd = unsafe { libc::inotify_init1(libc::IN_CLOEXEC) };
    if fd >= 0 {
        // SAFETY: the descriptor is new, and nobody else knows it.
        unsafe { libc::close(fd) };
    }
    fd >= 0
}

/// What [`probe`] printed when `user` ran it in a new container.
pub fn answers(lab: &Lab, user: &str) -> String {
    answers_of(lab, lab.plan(), user)
}

/// The same in a container of this plan.
pub fn answers_of(lab: &Lab, mut plan: Plan, user: &str) -> String {
    plan.binds.push(bind());
    let mut container = lab.launch(&plan).expect("a container");
    let args = ["init::probe::probe", "--exact", "--ignored", "--nocapture", "--test-threads=1"];
    let mut probe = spec("/probe", &args);
    probe.user = user.into();
    probe.env.push((MARK.into(), "1".into()));
    let ran = container.connection.run(probe);
    assert_eq!(ran.status, terrarium::model::process::ExitStatus::Exited(0), "{ran:?}");
    ran.out
}
