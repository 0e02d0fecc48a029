//! The environment that staging and running have in common, as Cloud Foundry's controller makes it.

use crate::model::manifest::Manifest;
use crate::model::task::StagedSidecar;
use crate::stage::work;
use crate::unit::{AppName, Bytes, Digest};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// What stacks have for everybody.
const LANG: (&str, &str) = ("LANG", "en_US.UTF-8");

/// The variables in their order; later entries win.
///
/// The manifest's own variables stand between the defaults and what Cloud Foundry promises.
pub(super) fn common_env(
    manifest: &Manifest,
    facts: Facts,
    memory: Bytes,
) -> Vec<(String, String)> {
    let mut env = vec![pair(LANG.0, LANG.1)];
    env.extend(manifest.env.iter().map(|(name, value)| (name.clone(), value.clone())));
    env.push(pair("VCAP_APPLICATION", &Value::Object(facts.0).to_string()));
    env.push(pair("MEMORY_LIMIT", &format!("{}m", memory.as_mib())));
    env.push(pair("VCAP_SERVICES", &services(manifest).to_string()));
    env
}

/// What the app is bound to, as Cloud Foundry's controller writes it: lists by label.
pub(super) fn services(manifest: &Manifest) -> Value {
    let mut all: Map<String, Value> = Map::new();
    for service in &manifest.services {
        let mut told = json!({
            "name": service.binding_name.as_ref().unwrap_or(&service.name),
            "binding_name": service.binding_name,
            "binding_guid": guid(&format!("binding {} {}", manifest.name, service.name)),
            "instance_name": service.name,
            "instance_guid": guid(&format!("service {}", service.name)),
            "label": service.label,
            "tags": service.tags,
            "credentials": service.credentials,
            "syslog_drain_url": service.syslog_drain_url,
            "volume_mounts": service.volume_mounts,
        });
        if let Some(plan) = &service.plan {
            told["plan"] = json!(plan);
        }
        let list = all.entry(service.label.clone()).or_insert_with(|| json!([]));
        list.as_array_mut().expect("each label has a list").push(told);
    }
    Value::Object(all)
}

/// What an instance may take itself: its sidecars have their part of the same memory.
pub(in crate::stage) fn own_memory(
    manifest: &Manifest,
    built: &[StagedSidecar],
    (process, memory): (&str, Bytes),
) -> Bytes {
    let declared = manifest.sidecars_of(process).filter_map(|(_, it)| it.memory);
    let built = work::built(manifest, built, process).into_values();
    let built = built.filter_map(|it| it.memory).map(|mib| mib.saturating_mul(1 << 20));
    let all = declared.map(Bytes::get).chain(built).fold(0, u64::saturating_add);
    Bytes::new(memory.get().saturating_sub(all))
}

/// The same without the language, unless the manifest has one: images say themselves which they have.
pub(in crate::stage) fn without_lang(
    env: Vec<(String, String)>,
    own: &BTreeMap<String, String>,
) -> Vec<(String, String)> {
    let usual = |(name, _): &(String, String)| name == LANG.0 && !own.contains_key(name);
    env.into_iter().filter(|variable| !usual(variable)).collect()
}

/// One variable.
pub(in crate::stage) fn pair(name: &str, value: &str) -> (String, String) {
    (name.to_owned(), value.to_owned())
}

/// VCAP_APPLICATION under construction; the launcher adds host, port and instance.
///
/// There is no `cf_api`: libraries that find one try to reach it.
pub(super) struct Facts(Map<String, Value>);

impl Facts {
    /// What every container of the app is told.
    pub(super) fn new(manifest: &Manifest, memory: Bytes, disk: Bytes) -> Facts {
        let (app, nofile) = (&manifest.name, manifest.run.nofile);
        let limits = json!({ "mem": memory.as_mib(), "disk": disk.as_mib(), "fds": nofile });
        let facts = [
            ("application_id", json!(guid(&format!("app {app}")))),
            ("application_name", json!(app)),
            ("name", json!(app)),
            ("application_uris", json!([])),
            ("uris", json!([])),
            ("limits", limits),
            ("organization_id", json!(guid("organization"))),
            ("organization_name", json!("terrarium")),
            ("space_id", json!(guid("space"))),
            ("space_name", json!("terrarium")),
            ("users", Value::Null),
        ];
        Facts(facts.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
    }

    /// Under which names it is reached from elsewhere.
    pub(super) fn uris(mut self, uris: &[String]) -> Facts {
        for key in ["application_uris", "uris"] {
            self.0.insert(key.into(), json!(uris));
        }
        self
    }

    /// What a running process is told as well. As in Cloud Foundry, `web` has the app's own id.
    pub(super) fn process(mut self, app: &AppName, process: &str, version: &str) -> Facts {
        let id = match process {
            "web" => guid(&format!("app {app}")),
            other => guid(&format!("app {app} process {other}")),
        };
        for (key, value) in [("process_id", id.as_str()), ("process_type", process)] {
            self.0.insert(key.into(), value.into());
        }
        self.version(version)
    }

    /// Which version of the app it is: of what is staged, or of what runs.
    pub(super) fn version(mut self, version: &str) -> Facts {
        let version = guid(&format!("version {version}"));
        for key in ["application_version", "version"] {
            self.0.insert(key.into(), json!(version));
        }
        self
    }
}

/// An id in the form that Cloud Foundry's have, the same for the same text (RFC 9562, version 8).
fn guid(text: &str) -> String {
    let hex = Digest::of(format!("terrarium {text}").as_bytes()).hex();
    format!("{}-{}-8{}-8{}-{}", &hex[..8], &hex[8..12], &hex[13..16], &hex[17..20], &hex[20..32])
}
