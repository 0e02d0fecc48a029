//! What a cloud controller sends, as values. Pure.
//!
//! As Go's decoder has it: names that nobody knows are not looked at, and `null` is what is not there.

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// An environment variable.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Variable {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: String,
}

/// `StagingRequestFromCC`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Staging {
    /// The app.
    pub app_id: String,
    /// Open files of the builder.
    pub file_descriptors: u64,
    /// Memory in MiB.
    pub memory_mb: u64,
    /// Disk in MiB.
    pub disk_mb: u64,
    /// For the builder.
    pub environment: Vec<Variable>,
    /// What it may reach, in Diego's form.
    pub egress_rules: Vec<Value>,
    /// Seconds; 0 or less: the usual ones.
    pub timeout: i64,
    /// What its log is called.
    pub log_guid: String,
    /// `buildpack` or `docker`.
    pub lifecycle: String,
    /// What the lifecycle needs.
    pub lifecycle_data: Option<Value>,
    /// Who is told of the end instead of the controller.
    pub completion_callback: String,
    /// A placement tag.
    pub isolation_segment: String,
}

/// `lifecycle_data` of `buildpack`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct BuildpackData {
    /// Where the app's files are.
    pub app_bits_download_uri: String,
    /// Where the cache of the staging before is; empty: there is none.
    pub build_artifacts_cache_download_uri: String,
    /// Where the cache goes.
    pub build_artifacts_cache_upload_uri: String,
    /// In the order in which they are asked.
    pub buildpacks: Vec<Pack>,
    /// Where the droplet goes.
    pub droplet_upload_uri: String,
    /// The stack.
    pub stack: String,
}

/// One buildpack.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Pack {
    /// `custom`: the builder fetches it itself, by its key.
    pub name: String,
    /// Names this version of it.
    pub key: String,
    /// Where it is.
    pub url: String,
    /// It need not be asked.
    pub skip_detect: bool,
}

/// `lifecycle_data` of `docker`.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct DockerData {
    /// The image.
    pub docker_image: String,
    /// Where the login is good.
    pub docker_login_server: String,
    /// Who fetches it.
    pub docker_user: String,
    /// His password.
    pub docker_password: String,
    /// His address.
    pub docker_email: String,
}

/// `DesireAppRequestFromCC`.
#[derive(Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct DesireApp {
    /// Guid of the process, `-`, guid of its version.
    pub process_guid: String,
    /// Where the droplet is.
    pub droplet_uri: String,
    /// Its SHA-1.
    pub droplet_hash: String,
    /// The image, in place of a droplet.
    pub docker_image: String,
    /// Who fetches it.
    pub docker_user: String,
    /// His password.
    pub docker_password: String,
    /// The stack.
    pub stack: String,
    /// Empty: the droplet's own, or the image's.
    pub start_command: String,
    /// JSON for the launcher, as text.
    pub execution_metadata: String,
    /// For the app.
    pub environment: Vec<Variable>,
    /// Memory in MiB.
    pub memory_mb: u64,
    /// Disk in MiB.
    pub disk_mb: u64,
    /// Open files; 0: the usual number.
    pub file_descriptors: u64,
    /// How many.
    pub num_instances: u32,
    /// Today's form of routes.
    pub routing_info: Option<Routing>,
    /// The form of 2015: host names.
    pub routes: Vec<String>,
    /// Somebody may log in.
    pub allow_ssh: bool,
    /// What its log is called.
    pub log_guid: String,
    /// Empty and `port`, `http`, `none`, `process`.
    pub health_check_type: String,
    /// Path for `http`.
    pub health_check_http_endpoint: String,
    /// Seconds until it must be healthy.
    pub health_check_timeout_in_seconds: u64,
    /// What it may reach, in Diego's form.
    pub egress_rules: Vec<Value>,
    /// Changes with all that may change while it runs.
    pub etag: String,
    /// Ports inside.
    pub ports: Vec<u16>,
    /// Log source; empty: `APP`.
    pub log_source: String,
    /// Passed on.
    pub network: Option<Value>,
    /// Passed on.
    pub volume_mounts: Vec<Value>,
    /// A placement tag.
    pub isolation_segment: String,
}

/// Routes as the controller knows them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Routing {
    /// By name.
    pub http_routes: Vec<HttpRoute>,
    /// By port.
    pub tcp_routes: Vec<TcpRoute>,
}

/// A host name that leads to a port.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct HttpRoute {
    /// The name.
    pub hostname: String,
    /// Port inside; 0: the first one.
    pub port: u16,
    /// A service before the app.
    pub route_service_url: String,
}

/// A port of the router that leads to a port.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct TcpRoute {
    /// Which routers.
    pub router_group_guid: String,
    /// Outside.
    pub external_port: u16,
    /// Inside; 0: the first one.
    pub container_port: u16,
}

/// `TaskRequestFromCC`.
#[derive(Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct RunTask {
    /// Its guid.
    pub task_guid: String,
    /// What its log is called.
    pub log_guid: String,
    /// Memory in MiB.
    pub memory_mb: u64,
    /// Disk in MiB.
    pub disk_mb: u64,
    /// `buildpack` or `docker`.
    pub lifecycle: String,
    /// For the command.
    pub environment: Vec<Variable>,
    /// What it may reach, in Diego's form.
    pub egress_rules: Vec<Value>,
    /// Where the droplet is.
    pub droplet_uri: String,
    /// Its SHA-1.
    pub droplet_hash: String,
    /// The image.
    pub docker_path: String,
    /// Who fetches it.
    pub docker_user: String,
    /// His password.
    pub docker_password: String,
    /// The stack.
    pub rootfs: String,
    /// Who is told of the end.
    pub completion_callback: String,
    /// What to run.
    pub command: String,
    /// Log source; empty: `APP`.
    pub log_source: String,
    /// Passed on.
    pub volume_mounts: Vec<Value>,
    /// A placement tag.
    pub isolation_segment: String,
}

/// What the record store says of a Task's end.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Completed {
    /// Which one.
    pub task_guid: String,
    /// Without success.
    pub failed: bool,
    /// Why.
    pub failure_reason: String,
    /// Its result file.
    pub result: String,
    /// What its client has written on it.
    pub annotation: String,
}

/// What the stager writes on its Tasks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Annotation {
    /// `buildpack` or `docker`.
    pub lifecycle: String,
    /// Who is told instead of the controller.
    pub completion_callback: String,
}

/// Reads one of them. `Err`: what is wrong with it.
pub fn read<T: DeserializeOwned>(value: Value) -> Result<T, String> {
    if !value.is_object() {
        return Err("the body is no JSON object".into());
    }
    serde_json::from_value(without_nulls(value)).map_err(|err| discreet(&err.to_string()))
}

/// What a decoder says, without the value that it has found: that may be a password.
fn discreet(text: &str) -> String {
    match (text.split_once(": "), text.rsplit_once(", expected ")) {
        (Some((kind, _)), Some((_, wanted))) => format!("{kind}: expected {wanted}"),
        _ => text.to_owned(),
    }
}

/// `value` without members that are `null`, however deep: a recipe's own are not told apart.
fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(members) => {
            let there = members.into_iter().filter(|(_, value)| !value.is_null());
            Value::Object(there.map(|(name, value)| (name, without_nulls(value))).collect())
        }
        Value::Array(items) => Value::Array(items.into_iter().map(without_nulls).collect()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_will_not_do_is_told_without_what_it_was() {
        for secret in [json!(1_234_567), json!(["1234567"]), json!({ "x": ", expected 1234567" })] {
            let body = json!({ "process_guid": "g", "docker_password": secret });
            let told = read::<DesireApp>(body).err().expect("it is no text");
            assert!(told.contains("invalid type: expected a string"), "{told}");
            assert!(!told.contains("1234567"), "{told}");
        }
        let told = read::<DesireApp>(json!({ "memory_mb": "1234567" })).err().expect("no number");
        assert_eq!(told, "invalid type: expected u64");
    }

    #[test]
    fn a_request_is_read_as_go_reads_it() {
        let body = json!({
            "process_guid": "g", "docker_image": null, "unknown": 1, "ports": null,
            "routing_info": { "http_routes": [{ "hostname": "a.b", "port": null }] },
        });
        let desire: DesireApp = read(body).expect("it is one");
        assert_eq!((desire.process_guid.as_str(), desire.docker_image.as_str()), ("g", ""));
        let routes = desire.routing_info.expect("they are there").http_routes;
        assert_eq!(routes, [HttpRoute { hostname: "a.b".into(), ..HttpRoute::default() }]);
        for wrong in
            [json!([]), json!("x"), json!({ "ports": "8080" }), json!({ "ports": [70000] })]
        {
            assert!(read::<DesireApp>(wrong.clone()).is_err(), "{wrong}");
        }
    }
}
