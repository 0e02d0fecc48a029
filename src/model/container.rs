//! What Diego's executor calls a container, as far as it becomes an LRP on this box.

use super::action::Action;
use super::desired::LrpFacts;
use super::egress::Rule;
use super::extras::Extras;
use super::limits::Limits;
use super::manifest::Probe;
use super::task::Rootfs;
use super::work::Sidecar;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// One instance of an LRP that somebody has asked for by its whole record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LrpContainer {
    /// What its client calls it: letters, digits, `_` and `-`.
    pub guid: String,
    /// What its root is made of.
    pub rootfs: Rootfs,
    /// What it may use.
    pub limits: Limits,
    /// Ports inside that get one of the box.
    pub ports: Vec<u16>,
    /// What it may reach.
    pub egress: Vec<Rule>,
    /// Environment of the container: between the image's and each action's own.
    pub env: Vec<(String, String)>,
    /// Comes first.
    pub setup: Option<Action>,
    /// What it is about.
    pub action: Action,
    /// Healthy when it succeeds; `None`: as soon as it runs.
    pub monitor: Option<Action>,
    /// In place of `monitor`, where there are any: healthy when all have passed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub checks: Vec<Probe>,
    /// Connections are led to it while all of these pass; empty: while it runs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub readiness_checks: Vec<Probe>,
    /// What runs beside `action`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sidecars: Vec<Sidecar>,
    /// How long the first success may take; zero: for ever.
    pub start_timeout: Duration,
    /// Log source of whatever names none.
    pub log_source: String,
    /// What else it asks for.
    #[serde(default, skip_serializing_if = "Extras::is_none")]
    pub extras: Extras,
    /// All of it as its client wrote it, without what is secret, JSON.
    pub source: String,
    /// It was asked for as a DesiredLRP; `None`: as the one container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub desired: Option<LrpFacts>,
}

impl LrpContainer {
    /// How many instances are wanted.
    pub fn instances(&self) -> u32 {
        self.desired.as_ref().map_or(1, |facts| facts.instances)
    }

    /// The ports of the box in front of its own.
    pub fn published(&self) -> impl Iterator<Item = u16> {
        self.ports.iter().filter_map(|port| self.publish(*port))
    }

    /// The port of the box in front of a port inside.
    pub fn publish(&self, port: u16) -> Option<u16> {
        self.desired.as_ref()?.published().get(&port).copied()
    }
}
