//! result.json for the stager and staging_info.yml for the launcher. Pure.

use super::processes::Processes;
use crate::lifecycle::yaml::Value;
use serde_json::{Map, json};

/// What is known of one buildpack of the chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pack {
    key: String,
    name: String,
    version: String,
    prefix: String,
    output: serde_json::Value,
}

impl Pack {
    /// The buildpack `key` as its config.yml describes it; `detected` is its name without one.
    pub(super) fn new(key: &str, config: &Value, detected: &str) -> Pack {
        let text = |value: Option<&Value>| value.and_then(Value::as_text).unwrap_or("").to_owned();
        let name = config.get("name").and_then(Value::as_text).unwrap_or(detected).to_owned();
        let inner = config.get("config");
        Pack {
            key: key.to_owned(),
            name,
            version: text(config.get("version")),
            prefix: text(inner.and_then(|inner| inner.get("entrypoint_prefix"))),
            output: config.get("output_metadata").map_or(serde_json::Value::Null, to_json),
        }
    }

    fn to_json(&self) -> serde_json::Value {
        let mut map = Map::new();
        map.insert("key".into(), json!(self.key));
        map.insert("name".into(), json!(self.name));
        if !self.version.is_empty() {
            map.insert("version".into(), json!(self.version));
        }
        if !self.prefix.is_empty() {
            map.insert("config".into(), json!({"entrypoint_prefix": self.prefix}));
        }
        if !self.output.is_null() {
            map.insert("output_metadata".into(), self.output.clone());
        }
        map.into()
    }
}

/// The name that a person knows the buildpack by.
fn shown_name(packs: &[Pack], detected: &str) -> String {
    let name = packs.last().map(|pack| pack.name.clone()).unwrap_or_default();
    if name.is_empty() { detected.to_owned() } else { name }
}

/// The text of result.json.
pub(super) fn result(packs: &[Pack], detected: &str, processes: &Processes) -> String {
    let list: Vec<_> = processes
        .commands
        .iter()
        .map(|(kind, command)| json!({"type": kind, "command": command}))
        .collect();
    let sidecars = processes.sidecars.iter().map(|(name, sidecar)| {
        let mut map = Map::new();
        map.insert("name".into(), json!(name));
        map.insert("process_types".into(), json!(sidecar.beside));
        map.insert("command".into(), json!(sidecar.command));
        if let Some(memory) = sidecar.memory_mib {
            map.insert("memory".into(), json!(memory));
        }
        serde_json::Value::from(map)
    });
    let mut result = json!({
        "lifecycle_metadata": {
            "buildpack_key": packs.last().map(|pack| pack.key.as_str()).unwrap_or_default(),
            "detected_buildpack": shown_name(packs, detected),
            "buildpacks": packs.iter().map(Pack::to_json).collect::<Vec<_>>(),
        },
        "process_types": processes.commands,
        "processes": list,
        "execution_metadata": "",
        "lifecycle_type": "buildpack",
    });
    let sidecars: Vec<_> = sidecars.collect();
    if !sidecars.is_empty() {
        result["sidecars"] = sidecars.into();
    }
    result.to_string()
}

/// The text of staging_info.yml: JSON, which is YAML too.
pub(super) fn staging_info(packs: &[Pack], detected: &str, start_command: &str) -> String {
    let mut info = json!({
        "detected_buildpack": shown_name(packs, detected),
        "start_command": start_command,
    });
    if let Some(pack) = packs.last().filter(|pack| !pack.prefix.is_empty()) {
        info["config"] = json!({"entrypoint_prefix": pack.prefix});
    }
    info.to_string()
}

fn to_json(value: &Value) -> serde_json::Value {
    match value {
        Value::Null => serde_json::Value::Null,
        Value::Text(text) => json!(text),
        Value::List(items) => items.iter().map(to_json).collect(),
        Value::Map(pairs) => pairs.iter().map(|(k, v)| (k.clone(), to_json(v))).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::processes::Sidecar;
    use super::*;
    use crate::lifecycle::yaml;

    #[test]
    fn a_result_tells_buildpacks_processes_and_sidecars() {
        let config = "name: ruby\nversion: 1.10\nconfig:\n  entrypoint_prefix: sh -c\noutput_metadata: {a: [b]}";
        let config = yaml::parse(config).expect("config");
        let packs = [Pack::new("k1", &Value::Null, ""), Pack::new("k2", &config, "")];
        let mut processes = Processes::default();
        processes.commands.insert("web".into(), "run $PORT".into());
        let sidecar =
            Sidecar { command: "c".into(), beside: vec!["web".into()], memory_mib: Some(64) };
        processes.sidecars.insert("x".into(), sidecar);
        let text = result(&packs, "", &processes);
        let found: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        let want = json!({
            "lifecycle_metadata": {"buildpack_key": "k2", "detected_buildpack": "ruby", "buildpacks": [
                {"key": "k1", "name": ""},
                {"key": "k2", "name": "ruby", "version": "1.10",
                 "config": {"entrypoint_prefix": "sh -c"}, "output_metadata": {"a": ["b"]}}]},
            "process_types": {"web": "run $PORT"},
            "processes": [{"type": "web", "command": "run $PORT"}],
            "sidecars": [{"name": "x", "process_types": ["web"], "command": "c", "memory": 64}],
            "execution_metadata": "", "lifecycle_type": "buildpack"});
        assert_eq!(found, want);
        assert_eq!(
            staging_info(&packs, "", "run"),
            r#"{"config":{"entrypoint_prefix":"sh -c"},"detected_buildpack":"ruby","start_command":"run"}"#
        );
    }

    #[test]
    fn without_a_config_the_detect_output_is_the_name() {
        let packs = [Pack::new("static", &Value::Null, "Static")];
        let text = result(&packs, "Static", &Processes::default());
        assert!(text.contains(r#""detected_buildpack":"Static""#), "{text}");
        assert!(text.contains(r#""process_types":{}"#) && !text.contains("sidecars"), "{text}");
    }
}
