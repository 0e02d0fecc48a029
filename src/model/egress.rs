//! What a container may reach.

use serde::{Deserialize, Serialize};
use std::net::Ipv4Addr;

/// One opening: traffic that matches every given part may leave. Nothing else may.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// Which traffic.
    pub protocol: Protocol,
    /// Inclusive address ranges; empty means every address that is not the box itself or link-local.
    pub to: Vec<(Ipv4Addr, Ipv4Addr)>,
    /// Inclusive destination port ranges, for tcp and udp only; empty means every port.
    pub ports: Vec<(u16, u16)>,
    /// For icmp only: the one type, and of it the one code; none means every one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub icmp: Option<(u8, Option<u8>)>,
    /// Log the first packet of each connection.
    pub log: bool,
}

/// The protocol of an egress rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// Every protocol; has no ports.
    All,
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// ICMP, every type unless the rule names one; has no ports.
    Icmp,
}
