//! Clients' notes on a container, and what Garden itself tells among them.

use super::backend::{Backend, Settings};
use super::member::Member;
use super::{Done, GardenError};
use crate::container::Host;
use crate::model::garden::MappedPort;
use std::collections::BTreeMap;

/// All properties of a container: the client's, and Garden's own, which win.
pub(super) fn all(member: &Member, host: &Host, settings: &Settings) -> BTreeMap<String, String> {
    let record = member.record();
    let entry = member.container.entry();
    let addresses = host.net().addresses(entry.slot);
    let ports: Vec<MappedPort> = mapped(&entry.ports);
    let ports = serde_json::to_string(&ports).unwrap_or_default();
    let mut all = record.properties;
    for (key, value) in [
        ("garden.network.container-ip", addresses.container.to_string()),
        ("garden.network.host-ip", addresses.gateway.to_string()),
        ("garden.network.external-ip", settings.external.to_string()),
        ("garden.network.mapped-ports", ports),
        ("garden.state", "created".into()),
        ("garden.grace-time", record.grace_ns.to_string()),
    ] {
        all.insert(key.into(), value);
    }
    all
}

/// Ports as Garden tells them.
pub(super) fn mapped(ports: &[(u16, u16)]) -> Vec<MappedPort> {
    let port = |&(host, container): &(u16, u16)| MappedPort {
        host_port: host.into(),
        container_port: container.into(),
    };
    ports.iter().map(port).collect()
}

impl Backend {
    /// All properties.
    pub fn properties(&self, handle: &str) -> Done<BTreeMap<String, String>> {
        let member = self.shared.member(handle)?;
        Ok(all(&member, &self.shared.host, &self.shared.settings))
    }

    /// One of them.
    pub fn property(&self, handle: &str, key: &str) -> Done<String> {
        let missing = || GardenError::Failed(format!("property does not exist: {key}"));
        self.properties(handle)?.remove(key).ok_or_else(missing)
    }

    /// Makes or replaces one.
    pub async fn set_property(&self, handle: &str, key: &str, value: &str) -> Done<()> {
        let member = self.shared.member(handle)?;
        let (key, value) = (key.to_owned(), value.to_owned());
        let insert = |record: &mut super::record::Record| {
            record.properties.insert(key, value);
        };
        member.change(&self.shared, insert).await
    }

    /// Removes one; one that is not there is fine.
    pub async fn remove_property(&self, handle: &str, key: &str) -> Done<()> {
        let member = self.shared.member(handle)?;
        let remove = |record: &mut super::record::Record| drop(record.properties.remove(key));
        member.change(&self.shared, remove).await
    }
}
