use super::*;
use serde_json::json;

fn read_of(value: Value) -> Result<Extras, String> {
    let object = value.as_object().expect("an object");
    read(&Fields(object), &["action"]).map_err(|err| err.0)
}

fn good(value: Value) -> Extras {
    read_of(value.clone()).unwrap_or_else(|why| panic!("{value}: {why}"))
}

/// Row 51: what is shown unpacked. Row 48: under which key it is kept.
#[test]
fn row_51_cached_dependencies_and_shared_layers_are_trees() {
    let extras = good(json!({
        "cached_dependencies": [{ "name": "java", "from": "http://x/j.tgz", "to": "/opt/java/",
            "cache_key": "j", "log_source": "DEP", "checksum_algorithm": "md5",
            "checksum_value": "00" }],
        "image_layers": [
            { "name": "l", "url": "http://x/l", "destination_path": "/opt/l",
                "layer_type": "SHARED", "media_type": "TGZ" },
            { "name": "m", "url": "http://x/m", "destination_path": "/opt/m",
                "layer_type": "shared", "media_type": "ZIP", "digest_algorithm": "SHA256",
                "digest_value": "ab" },
            { "name": "e", "url": "http://x/e", "destination_path": "/opt/e",
                "layer_type": "EXCLUSIVE", "media_type": "TAR", "digest_algorithm": "SHA256",
                "digest_value": "cd" }],
    }));
    let of = |n: usize| {
        let it: &CachedDependency = &extras.dependencies[n];
        (it.to.as_str(), it.cache_key.as_str(), it.checksum.is_some())
    };
    assert_eq!(extras.dependencies.len(), 3);
    assert_eq!(of(0), ("/opt/java", "j", true));
    assert_eq!(of(1), ("/opt/l", "http://x/l", false));
    assert_eq!(of(2), ("/opt/m", "sha256:ab", true));
}

/// Row 40: exclusive layers are downloads of the legacy user, all at once.
#[test]
fn row_40_exclusive_layers_are_downloads_before_all_else() {
    let layer = json!({ "image_layers": [{ "name": "e", "url": "http://x/e",
        "destination_path": "/opt/e", "layer_type": "EXCLUSIVE", "media_type": "TAR",
        "digest_algorithm": "SHA256", "digest_value": "cd" }] });
    let fields = |value: &Value| exclusive_layers(&Fields(value.as_object().expect("object")));
    let Ok(Some(Action::Parallel(all))) = fields(&layer) else { panic!("downloads") };
    let [Action::Download(one)] = &all[..] else { panic!("{all:?}") };
    assert_eq!((one.user.as_str(), one.to.as_str()), ("vcap", "/opt/e"));
    assert_eq!((one.cache_key.as_str(), one.artifact.as_str()), ("sha256:cd", "e"));
    assert_eq!(fields(&json!({})), Ok(None));
}

/// Row 63: the directory by its path, or by its name. Row 64: files below the bindings' directory.
#[test]
fn row_63_row_64_volumes_and_files_have_their_places() {
    let mount = |id: &str, config: Value| {
        json!({ "driver": "local", "container_dir": "/data", "mode": "rw",
            "shared": { "volume_id": id, "mount_config": config } })
    };
    let volume = |value: Value| good(json!({ "volume_mounts": [value] })).volumes.remove(0);
    let from = |value: Value| volume(value).from.display().to_string();
    assert_eq!(from(mount("a/b", Value::Null)), "a/b");
    assert_eq!(from(mount("x", json!({ "source": "/srv/x" }))), "/srv/x");
    assert_eq!(from(mount("x", json!("{\"source\":\"/srv/y\"}"))), "/srv/y");
    assert!(!volume(mount("x", Value::Null)).read_only);
    let mut foreign = mount("x", Value::Null);
    foreign["driver"] = "nfs".into();
    let extras = good(json!({ "volume_mounts": [foreign] }));
    assert_eq!((extras.volumes.len(), extras.volume_drivers), (0, vec!["nfs".to_owned()]));
    let files = good(json!({ "volume_mounted_files": [{ "path": "db/user", "content": "ann" }] }));
    assert_eq!(files.files[0].path, "/etc/cf-service-bindings/db/user");
}

/// Row 60, row 53, row 55: certificates, what may be logged, labels.
#[test]
fn row_60_row_53_the_others_are_read_as_diego_means_them() {
    let extras = good(json!({
        "trusted_system_certificates_path": "/etc/certs", "log_rate_limit": { "bytes_per_second": -1 },
        "metric_tags": { "a": { "static": "b" }, "n": { "dynamic": "INDEX" } },
        "placement_tags": ["x"], "image_username": "ann", "image_password": "horse",
    }));
    assert_eq!(extras.certificates.as_deref(), Some("/etc/certs"));
    assert_eq!(extras.log_rate, Some(Rate::Unlimited));
    assert_eq!(extras.metric_tags["n"], MetricTag::Index);
    assert_eq!(extras.login.map(|it| it.password), Some("horse".into()));
    let none = good(json!({ "log_rate_limit": { "bytes_per_second": 0 } }));
    assert_eq!(none.log_rate, Some(Rate::Bytes(Bytes::new(0))));
    assert!(
        good(json!({ "action": {}, "cached_dependencies": null, "privileged": false })).is_none()
    );
}

#[test]
fn what_nobody_heeds_is_named_and_what_is_empty_is_not() {
    let extras = good(json!({ "network": { "properties": { "policy_group_id": "x" } },
        "check_definition": null, "sidecars": [], "odd\r\nname": 1, "action": {} }));
    assert_eq!(extras.ignored, ["network", "oddname"]);
}

#[test]
fn what_is_wrong_is_named() {
    let volume = |key: &str, value: Value| {
        let mut volume = json!({ "driver": "local", "container_dir": "/data", "mode": "rw",
            "shared": { "volume_id": "x" } });
        volume[key] = value;
        json!({ "volume_mounts": [volume] })
    };
    let dependency =
        |to: &str| json!({ "cached_dependencies": [{ "from": "http://x", "to": to }] });
    for (value, why) in [
        (dependency(""), "cached_dependencies: to"),
        (dependency("opt"), "cached_dependencies: to"),
        (dependency("/opt/../etc"), "cached_dependencies: to"),
        (dependency("/proc/x"), "cached_dependencies: to"),
        (json!({ "cached_dependencies": [1] }), "cached_dependencies"),
        (volume("driver", "".into()), "volume_mounts: driver"),
        (volume("mode", "x".into()), "volume_mounts: mode"),
        (volume("shared", Value::Null), "volume_mounts: shared"),
        (volume("shared", json!({ "volume_id": "../x" })), "volume_mounts: volume_id"),
        (
            volume("shared", json!({ "volume_id": "x", "mount_config": "{" })),
            "volume_mounts: mount_config",
        ),
        (
            json!({ "image_layers": [{ "layer_type": "EXCLUSIVE", "media_type": "TAR",
                "url": "http://x", "destination_path": "/x" }] }),
            "image_layers: digest_value",
        ),
        (json!({ "image_layers": [{ "layer_type": "x" }] }), "image_layers: layer_type"),
        (json!({ "volume_mounted_files": [{ "path": "/x" }] }), "volume_mounted_files: path"),
        (json!({ "log_rate_limit": { "bytes_per_second": -2 } }), "log_rate_limit"),
        (json!({ "metric_tags": { "a": "b" } }), "metric_tags"),
        (json!({ "metric_tags": { "a": { "dynamic": "X" } } }), "metric_tags"),
        (json!({ "image_username": "ann" }), "image_password"),
        (json!({ "image_password": "horse" }), "image_username"),
        (json!({ "trusted_system_certificates_path": "x" }), "trusted_system_certificates_path"),
        (
            json!({ "trusted_system_certificates_path": "/x",
                "cached_dependencies": [{ "from": "http://x", "to": "/y" }, { "from": "http://x", "to": "/y" }] }),
            "/y is asked for twice",
        ),
    ] {
        assert_eq!(read_of(value.clone()), Err(format!("Invalid field: {why}")), "{value}");
    }
}

#[test]
fn secrets_are_in_no_record() {
    let record = json!({ "image_username": "ann", "image_password": "horse", "domain": "d",
        "volume_mounted_files": [{ "path": "x", "content": "battery" }] });
    let text = without_secrets(record.as_object().expect("object"));
    assert!(text.contains("domain") && text.contains("\"path\":\"x\""), "{text}");
    assert!(["ann", "horse", "battery"].iter().all(|secret| !text.contains(secret)), "{text}");
}
