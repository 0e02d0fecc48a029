//! Bytes that the kernel's network configuration sockets understand.
//!
//! Owns: the encoding of rtnetlink (links, queues) and nf_tables requests, the reading of their answers.
//! Must not: decide what is configured; know containers, slots or names of our objects.
//! Called by: `net` (host side), `init` (inside a container's network namespace).
//! Calls: `netlink-sys`, `sys`.
//! Entry points: [`Route`] for links, addresses and routes; [`Socket`] with [`nft`] for packet rules.
//!
//! A socket belongs for life to the network namespace of the thread that opened it, whichever
//! thread uses it later.

pub mod conntrack;
pub mod nft;
pub mod route;
mod socket;
mod watch;
pub mod wire;

pub use route::{Link, Route};
pub use socket::{NetlinkError, Protocol, Reply, Socket};
pub use watch::RuleWatch;
