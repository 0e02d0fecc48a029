//! Processes: descriptors for them, how they ended, and what one may do to itself.

use super::fd::{check, owned};
use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

/// How a process ended, as the kernel tells its parent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It called exit with this status.
    Exited(u8),
    /// This signal killed it.
    Signaled(i32),
}

/// Opens a pidfd: readable once the process has ended, never reused for another pid.
/// `pid` as seen from our own pid namespace. `ESRCH`: already gone. Linux 5.3, pidfd_open(2).
pub fn pidfd_open(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: two plain integers go in, a new descriptor comes out.
    unsafe { owned(libc::syscall(libc::SYS_pidfd_open, pid, 0)) }
}

/// Sends signal `number` to exactly the process that `pidfd` was opened for. `ESRCH`: it has
/// ended and was waited for. Linux 5.1, pidfd_send_signal(2).
pub fn pidfd_send_signal(pidfd: impl AsFd, number: i32) -> io::Result<()> {
    let fd = pidfd.as_fd().as_raw_fd();
    let no_info = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: a null siginfo means "as kill(2) would"; everything else is a plain integer.
    check(unsafe { libc::syscall(libc::SYS_pidfd_send_signal, fd, number, no_info, 0) })?;
    Ok(())
}

/// Takes the end of our own child behind `pidfd`, if it has ended. `ECHILD`: not our child (a
/// daemon that was restarted is not the parent of older containers), or already waited for.
/// waitid(2) with `P_PIDFD`, Linux 5.4.
pub fn wait_pidfd(pidfd: impl AsFd) -> io::Result<Option<Ended>> {
    let fd = pidfd.as_fd().as_raw_fd() as libc::id_t;
    Ok(take_ended(libc::P_PIDFD, fd, libc::WNOHANG)?.map(|(_, how)| how))
}

/// Takes the end of any one of our children; `None` when none has ended (or there is none).
pub fn wait_any() -> io::Result<Option<(i32, Ended)>> {
    match take_ended(libc::P_ALL, 0, libc::WNOHANG) {
        Err(err) if err.raw_os_error() == Some(libc::ECHILD) => Ok(None),
        other => other,
    }
}

/// Takes the ends of all our children in process group `group`, which are about to end: each is
/// waited for, up to `patience_ms`. waitid(2).
pub fn reap_process_group(group: i32, patience_ms: u16) {
    // An error is `ECHILD`: there is none left.
    while let Ok(taken) = take_ended(libc::P_PGID, group as libc::id_t, libc::WNOHANG) {
        if taken.is_some() {
            continue;
        }
        // Ours until it is waited for, so the number cannot be somebody else's.
        let pidfd = child_in_group(group).and_then(|pid| pidfd_open(pid).ok());
        let ends = pidfd.map(|pidfd| super::fd::wait_readable(&pidfd, patience_ms));
        if !matches!(ends, Some(Ok(true))) {
            return;
        }
    }
}

/// Any child of ours in process group `group`, alive or ended and not taken. Fields 4 and 5 of
/// proc_pid_stat(5).
fn child_in_group(group: i32) -> Option<i32> {
    let us = u64::from(std::process::id());
    let numbers = std::fs::read_dir("/proc").ok()?.filter_map(|entry| {
        entry.ok().and_then(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
    });
    let is_it = |pid: &i32| {
        std::fs::read(format!("/proc/{pid}/stat"))
            .is_ok_and(|stat| field(&stat, 4) == Some(us) && field(&stat, 5) == Some(group as u64))
    };
    numbers.into_iter().find(is_it)
}

/// Whether we have no child, alive or ended and not taken.
pub fn is_childless() -> bool {
    let flags = libc::WNOHANG | libc::WNOWAIT;
    let looked = take_ended(libc::P_ALL, 0, flags);
    looked.is_err_and(|err| err.raw_os_error() == Some(libc::ECHILD))
}

/// Waits until our own child `pid` has ended.
pub fn wait(pid: i32) -> io::Result<Ended> {
    loop {
        match take_ended(libc::P_PID, pid as libc::id_t, 0) {
            Ok(Some((_, how))) => return Ok(how),
            Ok(None) => {}
            Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
            Err(err) => return Err(err),
        }
    }
}

/// The same for one that is about to end. `TimedOut`: it has not, for `patience_ms`.
pub fn wait_within(pid: i32, patience_ms: u16) -> io::Result<Ended> {
    match pidfd_open(pid) {
        Ok(pidfd) if !super::fd::wait_readable(&pidfd, patience_ms)? => {
            let text = format!("process {pid} has not ended for {patience_ms} ms");
            Err(io::Error::new(io::ErrorKind::TimedOut, text))
        }
        // Without a descriptor to be had it is waited for all the same: nobody else will.
        _ => wait(pid),
    }
}

/// waitid(2) for ended children. Not `nix`'s: that one loses a child that a real-time signal
/// killed, because its signals are an enum without those.
fn take_ended(
    which: libc::idtype_t,
    id: libc::id_t,
    flags: libc::c_int,
) -> io::Result<Option<(i32, Ended)>> {
    // SAFETY: all-zero is a valid siginfo_t; pid 0 in it says "none" after WNOHANG.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel fills `info`, which is ours until the call returns.
    check(unsafe { libc::waitid(which, id, &mut info, libc::WEXITED | flags) }.into())?;
    // SAFETY: after a successful waitid the SIGCHLD fields of `info` are the valid ones.
    let (pid, status) = unsafe { (info.si_pid(), info.si_status()) };
    if pid == 0 {
        return Ok(None);
    }
    let how = match info.si_code {
        libc::CLD_EXITED => Ended::Exited(status as u8),
        _ => Ended::Signaled(status),
    };
    Ok(Some((pid, how)))
}

/// When process `pid` started, in clock ticks since boot: with the pid it names one process for
/// ever, across restarts of the daemon. `NotFound`: no such process. Field 22 of proc_pid_stat(5).
pub fn start_time(pid: i32) -> io::Result<u64> {
    let text = std::fs::read(format!("/proc/{pid}/stat"))?;
    start_time_in(&text).ok_or_else(|| {
        io::Error::new(io::ErrorKind::InvalidData, "/proc/<pid>/stat has no start time")
    })
}

/// The parent of process `pid`, 0 for one that we do not see. `NotFound`: no such process. Field 4
/// of proc_pid_stat(5).
pub fn parent(pid: i32) -> io::Result<i32> {
    let text = std::fs::read(format!("/proc/{pid}/stat"))?;
    field(&text, 4)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "/proc/<pid>/stat has no parent"))
}

/// Finds field 22.
fn start_time_in(stat: &[u8]) -> Option<u64> {
    field(stat, 22)
}

/// Finds a field after the second. Field 2, the program's name, may hold anything, spaces and `)`
/// included.
fn field<T: std::str::FromStr>(stat: &[u8], number: usize) -> Option<T> {
    let after_name = stat.iter().rposition(|byte| *byte == b')')? + 1;
    let rest = std::str::from_utf8(&stat[after_name..]).ok()?;
    rest.split_ascii_whitespace().nth(number - 3)?.parse().ok()
}

/// Whether the caller may be traced, and who owns its `/proc/<pid>` files. It is switched back on
/// by exec, and perhaps by a change of ids. `PR_SET_DUMPABLE`, prctl(2).
pub fn set_dumpable(on: bool) -> io::Result<()> {
    Ok(nix::sys::prctl::set_dumpable(on)?)
}

/// No exec from here on gives more privilege than its caller has; never undone. prctl(2).
pub fn set_no_new_privs() -> io::Result<()> {
    Ok(nix::sys::prctl::set_no_new_privs()?)
}

/// Longest name of a process that the kernel keeps, in bytes.
pub const NAME_MAX: usize = 15;

/// The calling thread's name in /proc, until it executes another program; cut after [`NAME_MAX`]
/// bytes. `PR_SET_NAME`, prctl(2).
pub fn set_name(name: &str) -> io::Result<()> {
    Ok(nix::sys::prctl::set_name(&CString::new(name)?)?)
}

/// Makes this process the new parent of orphans below it. prctl(2).
pub fn set_child_subreaper(on: bool) -> io::Result<()> {
    Ok(nix::sys::prctl::set_child_subreaper(on)?)
}

/// Real, effective and saved user and group id and all supplementary groups, groups first, since
/// the right to set them goes with the user id. setgroups(2), setresgid(2), setresuid(2).
pub fn become_user(uid: u32, gid: u32, groups: &[u32]) -> io::Result<()> {
    use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};
    let groups: Vec<Gid> = groups.iter().map(|gid| Gid::from_raw(*gid)).collect();
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    setgroups(&groups)?;
    setresgid(gid, gid, gid)?;
    setresuid(uid, uid, uid)?;
    Ok(())
}

/// Changes the effective user id alone, and leaves the capabilities as they are: what is made now
/// belongs to, and counts for, that user. Only where the secure bits are locked, capabilities rest
/// until it is 0 again. seteuid(2); `SECBIT_NO_SETUID_FIXUP`, capabilities(7).
pub fn act_as_user(uid: u32) -> io::Result<()> {
    const NO_SETUID_FIXUP: libc::c_ulong = 1 << 2;
    let bits = |bits: libc::c_ulong| {
        // SAFETY: plain integers go in.
        unsafe { libc::prctl(libc::PR_SET_SECUREBITS, bits, 0, 0, 0) }
    };
    bits(NO_SETUID_FIXUP);
    let changed = nix::unistd::seteuid(nix::unistd::Uid::from_raw(uid));
    bits(0);
    Ok(changed?)
}

/// Effective user id of the caller, in its own user namespace.
pub fn effective_uid() -> u32 {
    nix::unistd::geteuid().as_raw()
}

/// A limit of one process: the kernel's number for it, `RLIMIT_*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resource(pub u8);

impl Resource {
    /// One above the highest descriptor number.
    pub const OPEN_FILES: Resource = Resource(libc::RLIMIT_NOFILE as u8);
    /// Bytes of a core dump.
    pub const CORE: Resource = Resource(libc::RLIMIT_CORE as u8);
}

/// Soft and hard value. `EINVAL`: no such limit. getrlimit(2).
pub fn limit(resource: Resource) -> io::Result<(u64, u64)> {
    let mut value = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the kernel fills `value`, which is ours until the call returns.
    check(unsafe { libc::getrlimit(resource.0.into(), &mut value) }.into())?;
    Ok((value.rlim_cur, value.rlim_max))
}

/// Sets soft and hard value. `EPERM`: above the present hard value without `CAP_SYS_RESOURCE`.
pub fn set_limit(resource: Resource, soft: u64, hard: u64) -> io::Result<()> {
    let value = libc::rlimit { rlim_cur: soft, rlim_max: hard };
    // SAFETY: the kernel reads `value`, which lives until the call returns.
    check(unsafe { libc::setrlimit(resource.0.into(), &value) }.into())?;
    Ok(())
}

/// Makes the caller the first process of a process group of its own. setpgid(2).
pub fn new_group() -> io::Result<()> {
    let this = nix::unistd::Pid::from_raw(0);
    Ok(nix::unistd::setpgid(this, this)?)
}

/// Starts a new session without a terminal. setsid(2).
pub fn new_session() -> io::Result<()> {
    nix::unistd::setsid()?;
    Ok(())
}

/// Rights that new files do not get.
pub fn set_umask(mask: u32) {
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(mask));
}

/// Rights that new files do not get. Call it while there is one thread only: the kernel tells the
/// mask to who changes it. umask(2).
pub fn umask() -> u32 {
    let mask = nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o077));
    nix::sys::stat::umask(mask);
    mask.bits()
}

/// Replaces the program by the open file `program`, whatever names are to be found here. Returns
/// only on failure. execveat(2), `AT_EMPTY_PATH`, Linux 3.19.
pub fn exec_open(program: impl AsFd, argv: &[CString], env: &[CString]) -> io::Error {
    match nix::unistd::execveat(program, c"", argv, env, nix::fcntl::AtFlags::AT_EMPTY_PATH) {
        Err(err) => err.into(),
        Ok(never) => match never {},
    }
}

/// Replaces the program. Returns only on failure: `NotFound`: the file, or the interpreter that it
/// names, does not exist; `PermissionDenied`: not executable by us; `ENOEXEC`: not a program.
pub fn exec(program: &CStr, argv: &[CString], env: &[CString]) -> io::Error {
    match nix::unistd::execve(program, argv, env) {
        Err(err) => err.into(),
        Ok(never) => match never {},
    }
}

/// Ends this process at once, without running exit handlers: for a forked child.
pub fn exit_now(status: u8) -> ! {
    // SAFETY: the process ends here; nothing of it is used afterwards.
    unsafe { libc::_exit(status.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_start_time_is_found_behind_a_hostile_name() {
        let stat = b"12 (a) 9 (b) R) S 1 12 12 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 4711 1 1\n";
        assert_eq!(start_time_in(stat), Some(4711));
        assert_eq!(field(stat, 4), Some(1));
        assert_eq!(start_time_in(b"12 no name"), None);
        assert!(start_time(std::process::id() as i32).expect("own start time") > 0);
    }

    #[test]
    #[allow(clippy::zombie_processes)] // Waited for by the function under test.
    fn a_real_time_signal_is_told_as_it_is() {
        let mut child = std::process::Command::new("/bin/sleep");
        let child = child.arg("60").spawn().expect("spawn");
        let pidfd = pidfd_open(child.id() as i32).expect("pidfd");
        assert_eq!(wait_pidfd(&pidfd).expect("runs"), None);
        pidfd_send_signal(&pidfd, 40).expect("signal");
        assert_eq!(wait(child.id() as i32).expect("wait"), Ended::Signaled(40));
    }

    #[test]
    #[allow(clippy::zombie_processes)] // Waited for by the function under test.
    fn children_of_a_group_that_are_about_to_end_are_waited_for() {
        use std::os::unix::process::CommandExt;
        for _ in 0..20 {
            let mut child = std::process::Command::new("/bin/sleep");
            let mut child = child.arg("60").process_group(0).spawn().expect("spawn");
            child.kill().expect("kill");
            reap_process_group(child.id() as i32, 60_000);
            let err = wait(child.id() as i32).expect_err("waited for");
            assert_eq!(err.raw_os_error(), Some(libc::ECHILD));
        }
    }

    #[test]
    #[allow(clippy::zombie_processes)] // Waited for by the function under test.
    fn a_child_that_does_not_end_is_not_waited_for_without_a_bound() {
        let mut child = std::process::Command::new("/bin/sleep");
        let mut child = child.arg("60").spawn().expect("spawn");
        let pid = child.id() as i32;
        let late = wait_within(pid, 1).expect_err("it sleeps");
        assert_eq!(late.kind(), io::ErrorKind::TimedOut);
        child.kill().expect("kill");
        assert_eq!(wait_within(pid, 60_000).expect("its end"), Ended::Signaled(libc::SIGKILL));
    }

    #[test]
    #[allow(clippy::zombie_processes)] // Waited for by the function under test.
    fn a_pidfd_tells_how_our_child_ended() {
        let child = std::process::Command::new("/proc/self/exe")
            .arg("--no-such-flag")
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .expect("spawn");
        let pidfd = pidfd_open(child.id() as i32).expect("pidfd");
        assert!(super::super::fd::wait_readable(&pidfd, 60_000).expect("poll"));
        assert!(matches!(wait_pidfd(&pidfd), Ok(Some(Ended::Exited(code))) if code != 0));
        assert_eq!(wait_pidfd(&pidfd).expect_err("waited").raw_os_error(), Some(libc::ECHILD));
    }
}
