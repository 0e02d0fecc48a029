//! What can go wrong with a container's network, in the words of who runs the box.

use super::subnets::SubnetError;
use crate::netlink::NetlinkError;
use crate::unit::Slot;
use std::path::PathBuf;
use std::{error, fmt, io};

/// An operation on an object that failed; the cause is its source.
#[derive(Debug)]
pub enum NetError {
    /// The configuration cannot work.
    Config {
        /// Which value, and what would do.
        what: &'static str,
    },
    /// The kernel's network sockets cannot be opened.
    Open {
        /// Why.
        source: NetlinkError,
    },
    /// A link could not be made, changed or removed.
    Link {
        /// The verb.
        doing: &'static str,
        /// Its name.
        link: String,
        /// Why.
        source: NetlinkError,
    },
    /// A link of this name is there already.
    LinkExists {
        /// Its name.
        link: String,
    },
    /// The packet rules could not be read or changed.
    Rules {
        /// The verb.
        doing: &'static str,
        /// The table, or chain in it.
        of: String,
        /// Why.
        source: NetlinkError,
    },
    /// A host port leads to another container already.
    PortTaken {
        /// The port.
        port: u16,
    },
    /// A container cannot have the network that it asks for.
    Subnet(SubnetError),
    /// A container has no packet rules to which something could be added.
    NoRules {
        /// Whose.
        slot: Slot,
    },
    /// Egress rules that come to too many packet rules.
    TooManyRules {
        /// How many.
        count: usize,
    },
    /// A kernel setting could not be made.
    Setting {
        /// Its file.
        file: PathBuf,
        /// What must be in it.
        value: &'static str,
        /// Why.
        source: io::Error,
    },
    /// Every block of private addresses meets a route of this box.
    NoPool,
}

impl fmt::Display for NetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NetError::Config { what } => write!(f, "network configuration: {what}"),
            NetError::Open { .. } => f.write_str("cannot talk to the kernel about networks"),
            NetError::Link { doing, link, .. } => write!(f, "cannot {doing} link {link}"),
            NetError::LinkExists { link } => write!(
                f,
                "link {link} exists already; it is left from an earlier run or belongs to another \
                 daemon: remove it, or give this daemon another [net] tag"
            ),
            NetError::Rules { doing, of, source } if source.unsupported() || source.missing() => {
                write!(
                    f,
                    "cannot {doing} packet rules {of}; the kernel needs nf_tables with nat, masq, fib, \
                 numgen, reject and log"
                )
            }
            NetError::Rules { doing, of, .. } => write!(f, "cannot {doing} packet rules {of}"),
            NetError::PortTaken { port } => {
                write!(f, "host port {port} is in use by another app; choose another port")
            }
            // The whole of it: as its source it would be said twice.
            NetError::Subnet(err) => err.fmt(f),
            NetError::NoRules { slot } => write!(
                f,
                "the container of slot {slot} has no packet rules; it is gone, or somebody emptied \
                 the rules of this box: try again in a moment"
            ),
            NetError::TooManyRules { count } => write!(
                f,
                "egress rules come to {count} packet rules, more than {}; write fewer ranges",
                super::egress::RULES_MAX
            ),
            NetError::Setting { file, value, .. } => write!(
                f,
                "cannot write {value} to {}; make it writable for this service, or set it by hand",
                file.display()
            ),
            NetError::NoPool => f.write_str(
                "every /16 in 10.200-254 and 172.16-31 meets a route of this box; set [net] pool",
            ),
        }
    }
}

impl error::Error for NetError {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        match self {
            NetError::Open { source }
            | NetError::Link { source, .. }
            | NetError::Rules { source, .. } => Some(source),
            NetError::Setting { source, .. } => Some(source),
            NetError::Config { .. }
            | NetError::LinkExists { .. }
            | NetError::PortTaken { .. }
            | NetError::NoRules { .. }
            | NetError::Subnet(_)
            | NetError::TooManyRules { .. }
            | NetError::NoPool => None,
        }
    }
}
