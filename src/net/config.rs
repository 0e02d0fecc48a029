//! What the net room is told.

use super::error::NetError;
use super::plan;
use serde::{Deserialize, Serialize};
use std::net::Ipv4Addr;

/// A host port and the port of the container to which tcp connections to it go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortMap {
    /// On every address of the box, 127.0.0.1 included.
    pub host: u16,
    /// On the container's address.
    pub container: u16,
}

/// What the operator decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetConfig {
    /// The addresses of all containers; the prefix is 16.
    pub pool: (Ipv4Addr, u8),
    /// Up to 2 lower-case letters that keep the link names of two daemons apart.
    pub tag: String,
    /// Largest packet of a container, in bytes; 68 at least.
    pub mtu: u16,
    /// The name of our nf_tables tables.
    pub table: String,
    /// Name servers that every container may ask.
    pub resolvers: Vec<Ipv4Addr>,
    /// The box itself answers DNS, at every container's gateway address.
    pub dns_on_gateway: bool,
    /// Containers with Garden's default may talk to the box itself. Apps never may.
    pub allow_host_access: bool,
}

impl NetConfig {
    /// 10.254.0.0/16, 1500 bytes, no name servers.
    pub fn new(table: &str, tag: &str) -> NetConfig {
        NetConfig {
            pool: (Ipv4Addr::new(10, 254, 0, 0), plan::POOL_PREFIX),
            tag: tag.to_owned(),
            mtu: 1500,
            table: table.to_owned(),
            resolvers: Vec::new(),
            dns_on_gateway: false,
            allow_host_access: false,
        }
    }

    /// Whether it can work.
    pub(super) fn check(&self) -> Result<(), NetError> {
        let tag = self.tag.len() <= 2 && self.tag.bytes().all(|b| b.is_ascii_lowercase());
        let pool = self.pool.1 == plan::POOL_PREFIX && plan::network(self.pool) == self.pool.0;
        let table = (1..=64).contains(&self.table.len())
            && self.table.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b));
        let checks = [
            (tag, "tag must be at most 2 letters a to z"),
            (pool, "pool must be the start of a /16, such as 10.254.0.0/16"),
            (self.mtu >= 68, "mtu must be at least 68"),
            (table, "table must be 1 to 64 letters, digits, _ or -"),
            (self.resolvers.len() <= 64, "resolvers must be at most 64"),
        ];
        match checks.into_iter().find(|(good, _)| !good) {
            Some((_, what)) => Err(NetError::Config { what }),
            None => Ok(()),
        }
    }
}
