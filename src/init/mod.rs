//! Pid 1 of every container: builds the inside, starts and reaps processes, keeps their output.
//!
//! Owns: the container's namespaces and mounts while they are made; its process table; both ends
//! of every log pipe; the exit files and spools in the depot's `init` directory.
//! Must not: use smol or threads; read manifests; know what an app is; trust anything in the root.
//! Called by: `main` (as the verb `init`), `container` (the protocol). Calls: `sys`, `netlink`,
//! `model`, `unit`.
//! Entry points: [`proto`] (pure), and for `main` only `run`.
//! Ancestor: wshd, initd, iodaemon.

pub mod filter;
pub mod proto;
