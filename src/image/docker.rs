//! Images in the words of docker: what its own programs call the fields. Pure.

use super::bounded::{self, ENTRIES_MAX};
use super::catalog::Known;
use super::config::{ImageConfig, Protocol};
use crate::unit::Digest;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// The members of a configuration, each as the text that it came as: some are other people's, and as
/// values they would take many times as much memory.
type Members = BTreeMap<String, Box<RawValue>>;

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
    let raw = members(&image.raw).unwrap_or_default();
    let said = |key: &str| text(&raw, key);
    // Several tags may be of one repository.
    let repositories: BTreeSet<&str> =
        names.iter().filter_map(|name| Some(name.rsplit_once(':')?.0)).collect();
    let pinned = repositories.iter().map(|repository| format!("{repository}@{}", image.digest));
    json!({
        "Id": image.id,
        "Digest": image.digest,
        "RepoTags": names,
        "RepoDigests": pinned.collect::<Vec<_>>(),
        "Created": said("created"),
        "Author": said("author"),
        "Architecture": said("architecture"),
        "Variant": said("variant"),
        "Os": said("os"),
        "Size": bytes,
        "Config": config(&image.config),
        "RootFS": { "Type": "layers", "Layers": image.diffs },
        "StoreLayers": image.layers,
        "LastUsedMs": image.used_ms,
        "UsedBy": used_by,
    })
}

/// What a configuration says; `None`: it is none, or has more members than are kept.
fn members(raw: &str) -> Option<Members> {
    let mut from = serde_json::Deserializer::from_str(raw);
    let members = bounded::map(&mut from, "a configuration", ENTRIES_MAX).ok()?;
    from.end().is_ok().then_some(members)
}

/// A member that is a text.
fn text(members: &Members, key: &str) -> Option<String> {
    serde_json::from_str(members.get(key)?.get()).ok()
}

/// The configuration of an image whose layers hold `diffs` now. As it came, byte for byte, when they
/// held that before. `architecture`: this box's, for images that name none.
pub(super) fn rewritten(image: &Known, diffs: &[Digest], architecture: &str) -> Vec<u8> {
    let Some(mut whole) = members(&image.raw) else { return fresh(image, diffs, architecture) };
    if !whole.contains_key("rootfs") {
        // What the layers below say of the processes stands in other files.
        OF_A_LAYER.iter().for_each(|key| drop(whole.remove(*key)));
        put(&mut whole, "config", &config(&image.config));
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
    let mut whole = Members::new();
    put(&mut whole, "config", &config(&image.config));
    finish(whole, diffs, architecture)
}

fn finish(mut whole: Members, diffs: &[Digest], architecture: &str) -> Vec<u8> {
    for (key, value) in [("os", "linux"), ("architecture", architecture)] {
        if text(&whole, key).is_none_or(|text| text.is_empty()) {
            put(&mut whole, key, &json!(value));
        }
    }
    put(&mut whole, "rootfs", &json!({ "type": "layers", "diff_ids": diffs }));
    serde_json::to_vec(&whole).expect("texts of JSON are written as they are")
}

fn put(whole: &mut Members, key: &str, value: &Value) {
    let text = RawValue::from_string(value.to_string()).expect("a value is its own text");
    whole.insert(key.into(), text);
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

    /// As values, lists in lists take some sixty times their text: what is not looked at stays what it came
    /// as, and there is a most of what is.
    #[test]
    fn what_others_say_stays_text_and_has_a_bound() {
        let (one, two) = (Digest::of(b"1"), Digest::of(b"2"));
        let deep = format!("[{}]", "[ [ [ [ ] ] ] ],".repeat(50_000) + "0");
        let raw = format!(
            r#"{{"os":"linux","author":{deep},"created":"now","rootfs":{{"diff_ids":["{one}"]}}}}"#
        );
        let known = image(&raw, &[one]);
        assert!(members(&raw).is_some_and(|own| own["author"].get() == deep));
        let told = inspect(&known, &[], 0, &[]);
        assert_eq!((&told["Author"], &told["Created"]), (&Value::Null, &json!("now")));
        let text = String::from_utf8(rewritten(&known, &[two], "amd64")).expect("UTF-8");
        assert!(text.contains(&deep), "it was not read");
        assert!(ImageConfig::read(text.as_bytes()).is_ok());

        let many: Vec<String> = (0..=ENTRIES_MAX).map(|n| format!("\"m{n}\":0")).collect();
        let many = format!(r#"{{"os":"plan9","rootfs":0,{}}}"#, many.join(","));
        assert!(members(&many).is_none());
        let known = image(&many, &[one]);
        assert_eq!(inspect(&known, &[], 0, &[])["Os"], Value::Null);
        let text = rewritten(&known, &[two], "amd64");
        assert!(text.len() < 1000 && ImageConfig::read(&text).is_ok(), "{} bytes", text.len());
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
