//! The one door to the kernel: everything `unsafe` is in here.
//!
//! Owns: one function per request that `nix` or `std` does not have in a safe form.
//! Must not: decide, retry, log or keep state; hand out raw descriptor numbers.
//! Called by: rows 1 and up. Calls: `libc`, `nix`.
#![allow(unsafe_code)]

pub mod at;
pub mod beneath;
pub mod bpf;
pub mod btrfs;
pub mod caps;
pub mod cgroupfs;
pub mod clock;
pub mod event;
pub mod fault;
pub mod fd;
pub mod file;
pub mod ifaddr;
pub mod kmsg;
pub mod loopdev;
pub mod memory;
pub mod mount;
pub mod ns;
pub mod process;
pub mod pty;
pub mod seccomp;
pub mod signal;
pub mod sockbuf;
pub mod socket;
pub mod tcp;
pub mod unix;
pub mod words;
