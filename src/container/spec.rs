//! What a container shall be.

use crate::init::proto::Bind;
use crate::model::egress::Rule;
use crate::model::limits::Limits;
use crate::unit::{Digest, Handle};
use serde::{Deserialize, Serialize};

/// Everything the caller decides about a container. The host adds slot, addresses and paths.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerSpec {
    /// Its name in the depot, unique on the box.
    pub handle: Handle,
    /// Chain ids of its layers in the store, lowest first; at least one.
    pub layers: Vec<Digest>,
    /// What it may use.
    pub limits: Limits,
    /// Container ports that get a host port of their own.
    pub ports: Vec<u16>,
    /// What it may reach; everything else is refused.
    pub egress: Vec<Rule>,
    /// Files and directories of the box that show up inside.
    pub binds: Vec<Bind>,
    /// For the owner of the container: kept in the depot, never read here.
    pub owner: String,
}
