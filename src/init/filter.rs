//! The system calls that a container may make.
//!
//! An allow list, as Docker's and Garden's: what is not on it answers `EPERM`. Missing on purpose:
//! mounting and namespaces, keys, bpf, perf, userfaultfd, io_uring, kernel modules, kexec, swap,
//! clocks, handles to files (open_by_handle_at), quotas, reboot. 32-bit programs are killed.
//!
//! Answers are `ENOSYS` for clone3 (its flags are behind a pointer, so the C library must fall back
//! to clone, whose flags we can see) and for calls that are younger than this list, so that
//! programs fall back instead of failing.
//!
//! The lists are here, [`tree`] makes the kernel's program of them.

mod tree;

use crate::sys::seccomp::{nr, pack};
use tree::{Answer, Rule, Rules};

/// Allowed with any arguments, on every architecture.
#[rustfmt::skip]
const ALLOWED: &[i64] = &[
    nr::SYS_accept, nr::SYS_accept4, nr::SYS_adjtimex, nr::SYS_bind, nr::SYS_brk, nr::SYS_capget,
    nr::SYS_capset, nr::SYS_chdir, nr::SYS_chroot, nr::SYS_clock_adjtime, nr::SYS_clock_getres,
    nr::SYS_clock_gettime, nr::SYS_clock_nanosleep, nr::SYS_close, nr::SYS_close_range,
    nr::SYS_connect, nr::SYS_copy_file_range, nr::SYS_dup, nr::SYS_dup3, nr::SYS_epoll_create1,
    nr::SYS_epoll_ctl, nr::SYS_epoll_pwait, nr::SYS_epoll_pwait2, nr::SYS_eventfd2, nr::SYS_execve,
    nr::SYS_execveat, nr::SYS_exit, nr::SYS_exit_group, nr::SYS_faccessat, nr::SYS_faccessat2,
    nr::SYS_fadvise64, nr::SYS_fallocate, nr::SYS_fchdir, nr::SYS_fchmod, nr::SYS_fchmodat,
    nr::SYS_fchown, nr::SYS_fchownat, nr::SYS_fcntl, nr::SYS_fdatasync, nr::SYS_fgetxattr,
    nr::SYS_flistxattr, nr::SYS_flock, nr::SYS_fremovexattr, nr::SYS_fsetxattr, nr::SYS_fstat,
    nr::SYS_fstatfs, nr::SYS_fsync, nr::SYS_ftruncate, nr::SYS_futex, nr::SYS_futex_waitv,
    nr::SYS_get_robust_list, nr::SYS_getcpu, nr::SYS_getcwd, nr::SYS_getdents64, nr::SYS_getegid,
    nr::SYS_geteuid, nr::SYS_getgid, nr::SYS_getgroups, nr::SYS_getitimer, nr::SYS_getpeername,
    nr::SYS_getpgid, nr::SYS_getpid, nr::SYS_getppid, nr::SYS_getpriority, nr::SYS_getrandom,
    nr::SYS_getresgid, nr::SYS_getresuid, nr::SYS_getrlimit, nr::SYS_getrusage, nr::SYS_getsid,
    nr::SYS_getsockname, nr::SYS_getsockopt, nr::SYS_gettid, nr::SYS_gettimeofday, nr::SYS_getuid,
    nr::SYS_getxattr, nr::SYS_inotify_add_watch, nr::SYS_inotify_init1, nr::SYS_inotify_rm_watch,
    nr::SYS_io_cancel, nr::SYS_io_destroy, nr::SYS_io_getevents, nr::IO_PGETEVENTS,
    nr::SYS_io_setup, nr::SYS_io_submit, nr::SYS_ioprio_get, nr::SYS_ioprio_set, nr::SYS_kill,
    nr::SYS_landlock_add_rule, nr::SYS_landlock_create_ruleset, nr::SYS_landlock_restrict_self,
    nr::SYS_lgetxattr, nr::SYS_linkat, nr::SYS_listen, nr::SYS_listxattr, nr::SYS_llistxattr,
    nr::SYS_lremovexattr, nr::SYS_lseek, nr::SYS_lsetxattr, nr::SYS_madvise, nr::SYS_membarrier,
    nr::SYS_memfd_create, nr::SYS_memfd_secret, nr::SYS_mincore, nr::SYS_mkdirat, nr::SYS_mknodat,
    nr::SYS_mlock, nr::SYS_mlock2, nr::SYS_mlockall, nr::SYS_mmap, nr::SYS_mprotect,
    nr::SYS_mq_getsetattr, nr::SYS_mq_notify, nr::SYS_mq_open, nr::SYS_mq_timedreceive,
    nr::SYS_mq_timedsend, nr::SYS_mq_unlink, nr::SYS_mremap, nr::SYS_msgctl, nr::SYS_msgget,
    nr::SYS_msgrcv, nr::SYS_msgsnd, nr::SYS_msync, nr::SYS_munlock, nr::SYS_munlockall,
    nr::SYS_munmap, nr::SYS_name_to_handle_at, nr::SYS_nanosleep, nr::SYS_newfstatat,
    nr::SYS_openat, nr::SYS_openat2, nr::SYS_pidfd_open, nr::SYS_pidfd_send_signal, nr::SYS_pipe2,
    nr::SYS_pkey_alloc, nr::SYS_pkey_free, nr::SYS_pkey_mprotect, nr::SYS_ppoll, nr::SYS_prctl,
    nr::SYS_pread64, nr::SYS_preadv, nr::SYS_preadv2, nr::SYS_prlimit64, nr::SYS_process_mrelease,
    nr::SYS_process_vm_readv, nr::SYS_process_vm_writev, nr::SYS_pselect6, nr::SYS_ptrace,
    nr::SYS_pwrite64, nr::SYS_pwritev, nr::SYS_pwritev2, nr::SYS_read, nr::SYS_readahead,
    nr::SYS_readlinkat, nr::SYS_readv, nr::SYS_recvfrom, nr::SYS_recvmmsg, nr::SYS_recvmsg,
    nr::SYS_remap_file_pages, nr::SYS_removexattr, nr::SYS_renameat, nr::SYS_renameat2,
    nr::SYS_restart_syscall, nr::SYS_rseq, nr::SYS_rt_sigaction, nr::SYS_rt_sigpending,
    nr::SYS_rt_sigprocmask, nr::SYS_rt_sigqueueinfo, nr::SYS_rt_sigreturn, nr::SYS_rt_sigsuspend,
    nr::SYS_rt_sigtimedwait, nr::SYS_rt_tgsigqueueinfo, nr::SYS_sched_get_priority_max,
    nr::SYS_sched_get_priority_min, nr::SYS_sched_getaffinity, nr::SYS_sched_getattr,
    nr::SYS_sched_getparam, nr::SYS_sched_getscheduler, nr::SYS_sched_rr_get_interval,
    nr::SYS_sched_setaffinity, nr::SYS_sched_setattr, nr::SYS_sched_setparam,
    nr::SYS_sched_setscheduler, nr::SYS_sched_yield, nr::SYS_seccomp, nr::SYS_semctl,
    nr::SYS_semget, nr::SYS_semop, nr::SYS_semtimedop, nr::SYS_sendfile, nr::SYS_sendmmsg,
    nr::SYS_sendmsg, nr::SYS_sendto, nr::SYS_set_robust_list, nr::SYS_set_tid_address,
    nr::SYS_setfsgid, nr::SYS_setfsuid, nr::SYS_setgid, nr::SYS_setgroups, nr::SYS_setitimer,
    nr::SYS_setpgid, nr::SYS_setpriority, nr::SYS_setregid, nr::SYS_setresgid, nr::SYS_setresuid,
    nr::SYS_setreuid, nr::SYS_setrlimit, nr::SYS_setsid, nr::SYS_setsockopt, nr::SYS_setuid,
    nr::SYS_setxattr, nr::SYS_shmat, nr::SYS_shmctl, nr::SYS_shmdt, nr::SYS_shmget,
    nr::SYS_shutdown, nr::SYS_sigaltstack, nr::SYS_signalfd4, nr::SYS_splice, nr::SYS_statfs,
    nr::SYS_statx, nr::SYS_symlinkat, nr::SYS_sync, nr::SYS_sync_file_range, nr::SYS_syncfs,
    nr::SYS_sysinfo, nr::SYS_tee, nr::SYS_tgkill, nr::SYS_timer_create, nr::SYS_timer_delete,
    nr::SYS_timer_getoverrun, nr::SYS_timer_gettime, nr::SYS_timer_settime, nr::SYS_timerfd_create,
    nr::SYS_timerfd_gettime, nr::SYS_timerfd_settime, nr::SYS_times, nr::SYS_tkill,
    nr::SYS_truncate, nr::SYS_umask, nr::SYS_uname, nr::SYS_unlinkat, nr::SYS_utimensat,
    nr::SYS_vmsplice, nr::SYS_wait4, nr::SYS_waitid, nr::SYS_write, nr::SYS_writev, nr::CACHESTAT,
    nr::FCHMODAT2, nr::FUTEX_WAKE2, nr::FUTEX_WAIT2, nr::FUTEX_REQUEUE2, nr::MSEAL,
];

/// Allowed with any arguments; calls that only x86-64 has.
#[cfg(target_arch = "x86_64")]
#[rustfmt::skip]
const ALLOWED_HERE: &[i64] = &[
    nr::SYS_access, nr::SYS_alarm, nr::SYS_arch_prctl, nr::SYS_chmod, nr::SYS_chown, nr::SYS_creat,
    nr::SYS_dup2, nr::SYS_epoll_create, nr::SYS_epoll_ctl_old, nr::SYS_epoll_wait,
    nr::SYS_epoll_wait_old, nr::SYS_eventfd, nr::SYS_fork, nr::SYS_futimesat,
    nr::SYS_get_thread_area, nr::SYS_getdents, nr::SYS_getpgrp, nr::SYS_inotify_init,
    nr::SYS_lchown, nr::SYS_link, nr::SYS_lstat, nr::SYS_mkdir, nr::SYS_mknod, nr::SYS_modify_ldt,
    nr::SYS_open, nr::SYS_pause, nr::SYS_pipe, nr::SYS_poll, nr::SYS_readlink, nr::SYS_rename,
    nr::SYS_rmdir, nr::SYS_select, nr::SYS_set_thread_area, nr::SYS_signalfd, nr::SYS_stat,
    nr::SYS_symlink, nr::SYS_time, nr::SYS_unlink, nr::SYS_utime, nr::SYS_utimes, nr::SYS_vfork,
];

/// Younger architectures were born without the calls that have a newer form.
#[cfg(not(target_arch = "x86_64"))]
const ALLOWED_HERE: &[i64] = &[];

/// The youngest call that was considered.
const YOUNGEST: u32 = nr::MSEAL as u32;

/// `CLONE_NEW*` flags of clone(2): mount, cgroup, uts, ipc, user, pid, net; linux/sched.h.
const CLONE_NEW: u32 = 0x7e02_0000;
/// The same for unshare(2), which has the time namespace too.
const UNSHARE_NEW: u32 = CLONE_NEW | 0x80;

/// Execution domains that only change this process's own layout; the values that Docker allows.
const PERSONALITIES: [u32; 5] = [0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff];

/// Families that socket(2) makes: unix, IPv4, IPv6, netlink. Not on it, among others: packet
/// (17), alg (38), vsock (40).
const FAMILIES: [u32; 4] = [1, 2, 10, 16];

/// Requests that ioctl(2) refuses. Pushing keys into a terminal: TIOCSTI, TIOCLINUX. Making and
/// removing btrfs subvolumes, which would leave the disk limit: SNAP_CREATE, SUBVOL_CREATE,
/// SNAP_DESTROY, SNAP_CREATE_V2, SUBVOL_CREATE_V2, SNAP_DESTROY_V2 (linux/btrfs.h).
const IOCTLS_REFUSED: [u32; 8] =
    [0x5412, 0x541c, 0x5000_9401, 0x5000_940e, 0x5000_940f, 0x5000_9417, 0x5000_9418, 0x5000_943f];

/// Allowed in part, and what is refused in a way of its own.
const PARTLY: [(i64, Rule); 7] = [
    (nr::SYS_clone, Rule::Without(0, CLONE_NEW)),
    (nr::SYS_unshare, Rule::Without(0, UNSHARE_NEW)),
    (nr::SYS_personality, Rule::OneOf(0, &PERSONALITIES)),
    (nr::SYS_socket, Rule::OneOf(0, &FAMILIES)),
    (nr::SYS_socketpair, Rule::OneOf(0, &FAMILIES)),
    (nr::SYS_ioctl, Rule::NoneOf(1, &IOCTLS_REFUSED)),
    (nr::SYS_clone3, Rule::Always(NO_SUCH_CALL)),
];

/// The call is there, but not for a container.
const NOT_PERMITTED: Answer = Answer::Errno(nr::EPERM as u16);
/// The kernel has no such call.
const NO_SUCH_CALL: Answer = Answer::Errno(nr::ENOSYS as u16);

/// The filter's program as the bytes that travel to pid 1 with [`super::proto::Plan`].
pub fn programs() -> Vec<u8> {
    pack(&[tree::compile(&rules())])
}

/// The lists as one.
fn rules() -> Rules {
    let allowed = ALLOWED.iter().chain(ALLOWED_HERE);
    let allowed = allowed.map(|number| (*number, Rule::Always(Answer::Allow)));
    let all = allowed.chain(PARTLY).map(|(number, rule)| (number as u32, rule));
    Rules { of: all.collect(), refused: NOT_PERMITTED, youngest: YOUNGEST, unknown: NO_SUCH_CALL }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::seccomp::{Instruction, unpack};

    /// What the lists say, looked up one by one: `None` when another architecture asks.
    fn expected(number: u32, args: [u64; 6]) -> Answer {
        let call = i64::from(number);
        let low = |of: usize| args[of] as u32;
        let only = |passes: bool| if passes { Answer::Allow } else { NOT_PERMITTED };
        match call {
            nr::SYS_clone => only(low(0) & CLONE_NEW == 0),
            nr::SYS_unshare => only(low(0) & UNSHARE_NEW == 0),
            nr::SYS_personality => only(PERSONALITIES.contains(&low(0))),
            nr::SYS_socket | nr::SYS_socketpair => only(FAMILIES.contains(&low(0))),
            nr::SYS_ioctl => only(!IOCTLS_REFUSED.contains(&low(1))),
            nr::SYS_clone3 => NO_SUCH_CALL,
            _ if number > YOUNGEST => NO_SUCH_CALL,
            _ => only(ALLOWED.contains(&call) || ALLOWED_HERE.contains(&call)),
        }
    }

    /// Arguments at and around every value that a rule knows, in the lower and the upper half.
    fn edges() -> Vec<u64> {
        let bits = (0..32).map(|bit| 1 << bit);
        let known = PERSONALITIES.into_iter().chain(FAMILIES).chain(IOCTLS_REFUSED);
        let near = known.flat_map(|value| [value.wrapping_sub(1), value, value.wrapping_add(1)]);
        let low: Vec<u64> = near.chain(bits).chain([0, u32::MAX]).map(u64::from).collect();
        low.iter().flat_map(|low| [*low, low << 32, low | 1 << 32, low | !0 << 32]).collect()
    }

    #[test]
    fn the_program_says_of_every_call_what_the_lists_say() {
        let program = tree::compile(&rules());
        let edges = edges();
        let x32 = |number: u32| number | 0x4000_0000;
        let plain = 0..=600u32;
        let numbers = plain.clone().chain(plain.map(x32)).chain([
            0x3fff_ffff,
            0x7fff_ffff,
            1 << 31,
            u32::MAX,
        ]);
        for number in numbers {
            let looks = PARTLY.iter().any(|(call, _)| *call == i64::from(number));
            // Who does not look at arguments may be asked with any.
            for edge in edges.iter().take(if looks { usize::MAX } else { 3 }) {
                for of in 0..6 {
                    let mut args = [0; 6];
                    args[of] = *edge;
                    let (word, _) = interpret(&program, number, tree::HERE, args);
                    let answer = expected(number, args);
                    assert_eq!(word, answer.word(), "{number} with {args:x?}: {answer:?}");
                }
            }
        }
    }

    #[test]
    fn programs_of_another_architecture_are_killed_whatever_they_call() {
        let program = tree::compile(&rules());
        const I386: u32 = 0x4000_0003;
        for number in (0..=600).chain([0x4000_0000, u32::MAX]) {
            for architecture in [I386, tree::HERE ^ 0x8000_0000, 0, u32::MAX] {
                let (word, _) = interpret(&program, number, architecture, [0; 6]);
                assert_eq!(word, Answer::Kill.word());
            }
        }
    }

    #[test]
    fn the_program_is_short_and_every_way_through_it_is_shorter() {
        let programs = unpack(&programs()).expect("unpack");
        assert_eq!(programs.len(), 1);
        assert!(programs[0].len() < 400, "{}", programs[0].len());
        for number in 0..=600 {
            let (_, steps) = interpret(&programs[0], number, tree::HERE, [u64::MAX; 6]);
            assert!(steps < 25, "{steps} for {number}");
        }
    }

    /// Runs a program as the kernel does: its word, and how many instructions it took.
    fn interpret(
        program: &[Instruction],
        number: u32,
        architecture: u32,
        args: [u64; 6],
    ) -> (u32, usize) {
        let word = |at: u32| match at {
            tree::NUMBER => number,
            tree::ARCHITECTURE => architecture,
            _ => {
                let half = (0..6).find(|of| tree::argument(*of) == at).expect("a lower half");
                args[usize::from(half)] as u32
            }
        };
        let (mut at, mut loaded) = (0, 0);
        for steps in 1.. {
            let Instruction { code, jt, jf, k } = program[at];
            at += 1;
            let branch = |yes: bool| usize::from(if yes { jt } else { jf });
            match code {
                tree::LOAD => loaded = word(k),
                tree::JUMP => at += k as usize,
                tree::IF_EQUAL => at += branch(loaded == k),
                tree::IF_AT_LEAST => at += branch(loaded >= k),
                tree::IF_ANY_BIT => at += branch(loaded & k != 0),
                tree::RETURN => return (k, steps),
                other => panic!("{other:#x} at {at}"),
            }
        }
        unreachable!("every jump leads on")
    }

    #[test]
    fn what_must_not_be_there_is_not() {
        let absent = [
            nr::SYS_mount,
            nr::SYS_umount2,
            nr::SYS_pivot_root,
            nr::SYS_setns,
            nr::SYS_move_mount,
            nr::SYS_open_tree,
            nr::SYS_mount_setattr,
            nr::SYS_fsopen,
            nr::SYS_keyctl,
            nr::SYS_add_key,
            nr::SYS_request_key,
            nr::SYS_bpf,
            nr::SYS_perf_event_open,
            nr::SYS_userfaultfd,
            nr::SYS_io_uring_setup,
            nr::SYS_open_by_handle_at,
            nr::SYS_init_module,
            nr::SYS_finit_module,
            nr::SYS_delete_module,
            nr::SYS_kexec_load,
            nr::SYS_quotactl,
            nr::SYS_swapon,
            nr::SYS_reboot,
            nr::SYS_settimeofday,
            nr::SYS_clock_settime,
        ];
        for number in absent {
            assert!(!ALLOWED.contains(&number) && !ALLOWED_HERE.contains(&number), "{number}");
        }
    }
}
