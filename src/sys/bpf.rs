//! The three requests of bpf(2) that device rules on cgroup v2 need.

use super::fd::{check, owned};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

/// Commands, program type, attach type and flag of linux/bpf.h.
const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_PROG_ATTACH: libc::c_int = 8;
const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const BPF_CGROUP_DEVICE: u32 = 6;
const BPF_F_ALLOW_MULTI: u32 = 2;

/// The part of `union bpf_attr` that `BPF_PROG_LOAD` has known since Linux 3.18.
#[repr(C)]
struct LoadAttr {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
}
const _: () = assert!(size_of::<LoadAttr>() == 48);

/// The part of `union bpf_attr` that `BPF_PROG_ATTACH` has known since Linux 4.10.
#[repr(C)]
struct AttachAttr {
    target_fd: u32,
    attach_bpf_fd: u32,
    attach_type: u32,
    attach_flags: u32,
}
const _: () = assert!(size_of::<AttachAttr>() == 16);

/// Hands a device program to the kernel: it decides every open and mknod of a device node in the
/// cgroups that it is attached to. Each instruction is a `struct bpf_insn` as a native number.
/// `EINVAL`: the verifier refuses it, or no CONFIG_CGROUP_BPF; `EPERM`: needs CAP_BPF or root
/// (below Linux 5.11 also memlock). Linux 4.15, bpf(2).
pub fn load_device_program(instructions: &[u64]) -> io::Result<OwnedFd> {
    let attr = LoadAttr {
        prog_type: BPF_PROG_TYPE_CGROUP_DEVICE,
        insn_cnt: instructions.len() as u32,
        insns: instructions.as_ptr() as u64,
        license: c"Apache-2.0".as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log_buf: 0,
        kern_version: 0,
        prog_flags: 0,
    };
    // SAFETY: `attr`, the instructions and the licence text outlive the call, and the size given
    // is that of `attr`; the kernel only reads them. The result is a new descriptor.
    unsafe { owned(libc::syscall(libc::SYS_bpf, BPF_PROG_LOAD, &attr, size_of::<LoadAttr>())) }
}

/// Attaches a device program to the cgroup v2 directory `group`, beside those that are there
/// already: every one must allow. It goes when the cgroup is removed. bpf(2).
pub fn attach_device_program(group: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let attr = AttachAttr {
        target_fd: group.as_raw_fd() as u32,
        attach_bpf_fd: program.as_raw_fd() as u32,
        attach_type: BPF_CGROUP_DEVICE,
        attach_flags: BPF_F_ALLOW_MULTI,
    };
    // SAFETY: `attr` outlives the call and the size given is its own; both descriptors are open.
    check(unsafe {
        libc::syscall(libc::SYS_bpf, BPF_PROG_ATTACH, &attr, size_of::<AttachAttr>())
    })?;
    Ok(())
}
