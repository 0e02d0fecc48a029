//! Images in the words of docker: what its own programs call the fields. Pure.

use super::catalog::Known;
use super::config::{ImageConfig, Protocol};
use crate::unit::Digest;
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;

/// What of an image of the first version belongs to one layer.
const OF_A_LAYER: [&str; 7] =
    ["id", "parent", "parent_id", "layer_id", "throwaway", "Size", "checksum"];

/// How an image's processes are run; what is not said is left out.
pub fn config(config: &ImageConfig) -> Value {
    let mut out = Map::new();
    let mut set = |key: &str, said: bool, value: Value| {
        if said {
            out.insert(key.into(), value);
        }
    };
    let empty = |keys: Vec<String>| -> Map<String, Value> {
        keys.into_iter().map(|key| (key, json!({}))).collect()
    };
    let ports = config.ports.iter().map(|it| {
        let protocol = match it.protocol {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Sctp => "sctp",
        };
        format!("{}/{protocol}", it.port)
    });
    set("Env", !config.env.is_empty(), json!(config.env));
    set("Entrypoint", !config.entrypoint.is_empty(), json!(config.entrypoint));
    set("Cmd", !config.cmd.is_empty(), json!(config.cmd));
    set("WorkingDir", !config.workdir.is_empty(), json!(config.workdir));
    set("User", !config.user.is_empty(), json!(config.user));
    set("ExposedPorts", !config.ports.is_empty(), json!(empty(ports.collect())));
    set("Volumes", !config.volumes.is_empty(), json!(empty(config.volumes.clone())));
    set("StopSignal", !config.stop_signal.is_empty(), json!(config.stop_signal));
    set("Labels", !config.labels.is_empty(), json!(config.labels));
    Value::Object(out)
}

/// All about an image, as `docker inspect` has it, with what is ours beside it. `bytes`: of its
/// layers; `used_by`: what is made of it.
pub fn inspect(image: &Known, names: &[String], bytes: u64, used_by: &[String]) -> Value {
    let raw: Value = serde_json::from_str(&image.raw).unwrap_or_default();
    // Several tags may be of one repository.
    let repositories: BTreeSet<&str> =
        names.iter().filter_map(|name| Some(name.rsplit_once(':')?.0)).collect();
    let pinned = repositories.iter().map(|repository| format!("{repository}@{}", image.digest));
    json!({
        "Id": image.id,
        "Digest": image.digest,
        "RepoTags": names,
        "RepoDigests": pinned.collect::<Vec<_>>(),
        "Created": raw["created"],
        "Author": raw["author"],
        "Architecture": raw["architecture"],
        "Variant": raw["variant"],
        "Os": raw["os"],
        "Size": bytes,
        "Config": config(&image.config),
        "RootFS": { "Type": "layers", "Layers": image.diffs },
        "StoreLayers": image.layers,
        "LastUsedMs": image.used_ms,
        "UsedBy": used_by,
    })
}

/// The configuration of an image whose layers hold `diffs` now. As it came, byte for byte, when they
/// held that before. `architecture`: this box's, for images that name none.
pub(super) fn rewritten(image: &Known, diffs: &[Digest], architecture: &str) -> Vec<u8> {
    let raw = serde_json::from_str(&image.raw);
    let Ok(Value::Object(mut whole)) = raw else { return fresh(image, diffs, architecture) };
    if !whole.contains_key("rootfs") {
        // What the layers below say of the processes stands in other files.
        OF_A_LAYER.iter().for_each(|key| drop(whole.remove(*key)));
        whole.insert("config".into(), config(&image.config));
    } else if image.diffs == diffs {
        return image.raw.clone().into_bytes();
    }
    // It tells of each layer; those that a later one hides wholly are not kept.
    if image.diffs.len() != diffs.len() {
        whole.remove("history");
    }
    finish(whole, diffs, architecture)
}

fn fresh(image: &Known, diffs: &[Digest], architecture: &str) -> Vec<u8> {
    finish(Map::from_iter([("config".into(), config(&image.config))]), diffs, architecture)
}

fn finish(mut whole: Map<String, Value>, diffs: &[Digest], architecture: &str) -> Vec<u8> {
    for (key, value) in [("os", "linux"), ("architecture", architecture)] {
        if whole.get(key).and_then(Value::as_str).is_none_or(str::is_empty) {
            whole.insert(key.into(), json!(value));
        }
    }
    whole.insert("rootfs".into(), json!({ "type": "layers", "diff_ids": diffs }));
    Value::Object(whole).to_string().into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(raw: &str, diffs: &[Digest]) -> Known {
        let digest = Digest::of(b"manifest");
        let config = ImageConfig { env: vec!["A=b".into()], ..ImageConfig::default() };
        let known = Known::new(digest, Digest::of(raw.as_bytes()), config, raw.into());
        Known { diffs: diffs.to_vec(), ..known }
    }

    #[test]
    fn a_configuration_stays_as_it_came_when_its_layers_do() {
        let (one, two) = (Digest::of(b"1"), Digest::of(b"2"));
        let raw = format!(
            r#"{{ "os":"linux","architecture":"arm64","config":{{"Env":["X=y"]}},"x":1,
            "rootfs":{{"type":"layers","diff_ids":["{one}"]}},"history":[{{}}]}}"#
        );
        let known = image(&raw, &[one]);
        assert_eq!(rewritten(&known, &[one], "amd64"), raw.as_bytes());
        let other: Value = serde_json::from_slice(&rewritten(&known, &[two], "amd64")).expect("it");
        assert_eq!(other["rootfs"]["diff_ids"], json!([two]));
        assert_eq!(other["architecture"], "arm64");
        assert_eq!(other["config"]["Env"], json!(["X=y"]));
        assert_eq!((&other["x"], other.get("history")), (&json!(1), Some(&json!([{}]))));
        let fewer = image(&raw, &[one, two]);
        let text = rewritten(&fewer, &[two], "amd64");
        let other: Value = serde_json::from_slice(&text).expect("it");
        assert_eq!(other.get("history"), None);
        assert!(ImageConfig::read(&text).is_ok());
    }

    #[test]
    fn an_image_of_the_first_version_gets_a_configuration_of_today() {
        let one = Digest::of(b"1");
        let known = image(r#"{"id":"abc","parent":"def","config":{"Env":["X=y"]}}"#, &[one]);
        let text = rewritten(&known, &[one], "amd64");
        let value: Value = serde_json::from_slice(&text).expect("it");
        assert_eq!(value["config"]["Env"], json!(["A=b"]));
        assert_eq!((value["os"].as_str(), value["id"].as_str()), (Some("linux"), None));
        assert!(ImageConfig::read(&text).is_ok());
    }

    #[test]
    fn fields_are_called_as_docker_calls_them() {
        let one = Digest::of(b"1");
        let known = image(r#"{"os":"linux","created":"2026-01-01T00:00:00Z"}"#, &[one]);
        let names = ["reg.lan:5000/ops/app:1".to_owned()];
        let value = inspect(&known, &names, 7, &["one".into()]);
        assert_eq!(value["RepoDigests"][0], format!("reg.lan:5000/ops/app@{}", known.digest));
        assert_eq!((&value["Size"], &value["Os"]), (&json!(7), &json!("linux")));
        assert_eq!(value["Config"], json!({"Env": ["A=b"]}));
        assert_eq!(value["RootFS"]["Layers"], json!([one]));
        let (read, ..) = ImageConfig::read(
            json!({"config": {"ExposedPorts": {"53/udp": {}}, "Volumes": {"/v": {}}},
                "rootfs": {"diff_ids": [one]}})
            .to_string()
            .as_bytes(),
        )
        .expect("a configuration");
        let told = json!({"ExposedPorts": {"53/udp": {}}, "Volumes": {"/v": {}}});
        assert_eq!(config(&read), told);
    }
}
