//! What a container shall be.

use super::posture::Posture;
use crate::init::proto::Bind;
use crate::model::egress::Rule;
use crate::model::limits::Limits;
use crate::net::Bandwidth;
use crate::unit::{Digest, Handle};
use serde::{Deserialize, Serialize};

/// Everything the caller decides about a container. The host adds slot, addresses and paths.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerSpec {
    /// Its name in the depot, unique on the box.
    pub handle: Handle,
    /// Chain ids of its layers in the store, lowest first; at least one.
    pub layers: Vec<Digest>,
    /// The image of the catalogue that these are of, if they are of one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<Digest>,
    /// What its root is made of.
    #[serde(default, skip_serializing_if = "RootDriver::is_default")]
    pub root: RootDriver,
    /// What it calls itself, in letters, digits, `-`, `_` and `.`; empty: its handle.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub host_name: String,
    /// For a [`Posture`] of Garden's, what the kernel's log calls it, in printable ASCII; empty: by its
    /// bridge.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub log_name: String,
    /// What it may use.
    pub limits: Limits,
    /// Container ports that get a host port of their own.
    pub ports: Vec<u16>,
    /// Host ports that lead inside, each with the port there. Host port 0: any that is free; port 0
    /// inside: the same as outside.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub host_ports: Vec<(u16, u16)>,
    /// What it may reach. Everything else is refused; for a [`Posture`] of Garden's it is what
    /// Garden's networks of the box say.
    pub egress: Vec<Rule>,
    /// The network that it asks for, `a.b.c.d/n`, as Garden's clients write it; empty: a /30 of its
    /// own from the pool.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub network: String,
    /// How fast it may receive and send; `None`: as fast as it goes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bandwidth: Option<Bandwidth>,
    /// How far it is trusted.
    #[serde(default, skip_serializing_if = "Posture::is_default")]
    pub posture: Posture,
    /// For a container of Garden's clients, what else the box is set to.
    #[serde(default, skip_serializing_if = "Manner::is_default")]
    pub manner: Manner,
    /// Files and directories of the box that show up inside.
    pub binds: Vec<Bind>,
    /// Directories that are made in its root when they are missing, absolute paths.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<String>,
    /// Trees of the store that its binds show; they stay for as long as it does.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub trees: Vec<Digest>,
    /// Pid 1 hears what the app says of itself, as to systemd.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub notify: bool,
    /// For the owner of the container: kept in the depot, never read here.
    pub owner: String,
}

impl ContainerSpec {
    /// What it calls itself.
    pub fn host_name(&self) -> &str {
        if self.host_name.is_empty() { self.handle.as_str() } else { &self.host_name }
    }

    /// A container of that name with one layer after the other, without limits and without anything
    /// of the box.
    pub fn new(handle: Handle, layers: Vec<Digest>) -> ContainerSpec {
        ContainerSpec {
            handle,
            layers,
            image: None,
            host_name: String::new(),
            log_name: String::new(),
            limits: Limits::default(),
            ports: Vec::new(),
            host_ports: Vec::new(),
            egress: Vec::new(),
            network: String::new(),
            bandwidth: None,
            root: RootDriver::default(),
            posture: Posture::default(),
            manner: Manner::default(),
            binds: Vec::new(),
            volumes: Vec::new(),
            trees: Vec::new(),
            notify: false,
            owner: String::new(),
        }
    }
}

/// What the box is set to for containers of Garden's clients. It is written down with each: one
/// that lives keeps what it was made with.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manner {
    /// For [`Posture::Garden`].
    #[serde(default)]
    pub ids: IdMapping,
    /// Pid 1's name in /proc/1/status, at most 15 bytes; empty: that of its program. For
    /// [`Posture::Garden`] and [`Posture::Privileged`].
    #[serde(default)]
    pub init_name: String,
    /// AppArmor profile of its processes, which the box has loaded. For [`Posture::Garden`].
    #[serde(default)]
    pub apparmor: Option<String>,
}

impl Manner {
    /// What [`Default`] says; such a one is not written down.
    fn is_default(&self) -> bool {
        *self == Manner::default()
    }
}

/// Which ids of the box stand behind those inside.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IdMapping {
    /// 65536 of its own.
    #[default]
    Own,
    /// Root is one that nobody else has but the roots of other such containers; every other id is
    /// the same number on the box.
    Garden,
}

/// How a container's root is made of its layers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RootDriver {
    /// An overlay over the layers and a subvolume.
    #[default]
    Union,
    /// A btrfs snapshot of the layers' tree.
    Snapshot,
}

impl RootDriver {
    /// What [`Default`] says; such a one is not written down.
    fn is_default(&self) -> bool {
        *self == RootDriver::Union
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manner_is_written_down_and_found_again() {
        let handle: Handle = "a".parse().expect("handle");
        let manner = Manner {
            ids: IdMapping::Garden,
            init_name: "wshd".into(),
            apparmor: Some("garden-default".into()),
        };
        let spec = ContainerSpec { manner, ..ContainerSpec::new(handle, Vec::new()) };
        let text = serde_json::to_string(&spec).expect("JSON");
        assert!(text.contains(r#""manner":{"ids":"garden","init_name":"wshd""#), "{text}");
        assert_eq!(serde_json::from_str::<ContainerSpec>(&text).expect("JSON"), spec);
    }

    #[test]
    fn what_an_older_daemon_wrote_is_an_apps_container() {
        let text = r#"{"handle":"a","layers":[],
            "limits":{"memory":null,"disk":null,"cpu_weight":null,"pids":null},
            "ports":[],"egress":[],"owner":"x",
            "binds":[{"from":"/a","to":"/b","read_only":true,"mapped":false}]}"#;
        let spec: ContainerSpec = serde_json::from_str(text).expect("old form");
        assert_eq!((spec.posture, spec.root), (Posture::App, RootDriver::Union));
        assert_eq!(spec.manner, Manner::default());
        let again: serde_json::Value = serde_json::to_value(&spec).expect("JSON");
        let old: serde_json::Value = serde_json::from_str(text).expect("JSON");
        assert_eq!(again, old, "an older daemon can read it too");
    }
}
