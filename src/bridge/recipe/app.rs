//! An app as a DesiredLRP.

use super::parts::{
    Archive, CERTIFICATES, ROOT, VCAP, archives, cpu_weight, docker_url, droplet, env, filled,
    parallel, run, serial, tags, timeout,
};
use super::{Form, NoRecipe, Site};
use crate::bridge::request::{DesireApp, Routing};
use crate::model::desired::APPS;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// What an app listens on that says nothing.
pub const PORT: u16 = 8080;
/// Where its sshd listens.
const SSH_PORT: u16 = 2222;
/// Open files of an app that says nothing; of a health check.
const NOFILE: u64 = 1024;
/// How long its health check may take, in seconds.
const CHECK_SECONDS: u64 = 600;

/// Keys of an app's sshd.
#[derive(Clone, PartialEq, Eq)]
pub struct SshKeys {
    /// Who may come in: a private key as PEM.
    pub private_key: String,
    /// The public half of it, as a line of authorized_keys.
    pub authorized_key: String,
    /// The host's own: a private key as PEM.
    pub host_key: String,
    /// How a client tells the host.
    pub host_fingerprint: String,
}

/// What the launcher is told of an image, as far as it is looked at here.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Metadata {
    user: String,
    ports: Vec<Exposed>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Exposed {
    port: u16,
    protocol: String,
}

/// The DesiredLRP that `desire` asks for. Without `ssh` nobody can log in, whatever it says.
pub fn app(site: &Site, desire: &DesireApp, ssh: Option<&SshKeys>) -> Result<Value, NoRecipe> {
    let is_docker = !desire.docker_image.is_empty();
    match (desire.droplet_uri.is_empty(), is_docker) {
        (false, true) => {
            return Err(NoRecipe::new(
                "desired app contains both droplet_uri and docker_image; exactly one is required.",
            ));
        }
        (true, false) => return Err(NoRecipe::new("desired app missing droplet_uri")),
        _ => {}
    }
    let metadata = metadata(desire)?;
    let ports = ports(desire, &metadata)?;
    let (user, archive, rootfs) = match is_docker {
        true => {
            let user = match metadata.user.as_str() {
                "" => ROOT,
                user => user,
            };
            (user, Archive::docker_lifecycle(site), docker_url(&desire.docker_image)?)
        }
        false => {
            let archive = Archive::buildpack_lifecycle(site, &desire.stack)
                .ok_or_else(|| NoRecipe::new("no lifecycle binary bundle defined for stack"))?;
            (VCAP, archive, format!("preloaded:{}", desire.stack))
        }
    };
    // An image need not know vcap.
    let fetcher = if is_docker { ROOT } else { VCAP };
    let (dependencies, mut setup) = archives(site.form, &[archive], fetcher);
    if !is_docker {
        setup.push(droplet(&desire.droplet_uri, &desire.droplet_hash, &desire.process_guid));
    }
    let ssh = ssh.filter(|_| desire.allow_ssh);
    let all_ports = ports.iter().copied().chain(ssh.map(|_| SSH_PORT));
    let mut routes = routes(desire, &ports);
    routes.extend(ssh.map(ssh_route));
    let mut lrp = json!({
        "process_guid": desire.process_guid,
        "domain": APPS,
        "rootfs": rootfs,
        "instances": desire.num_instances,
        "action": { "codependent": { "actions": actions(desire, user, &ports, is_docker, ssh) } },
        "env": container_env(is_docker),
        "memory_mb": desire.memory_mb,
        "disk_mb": desire.disk_mb,
        "cpu_weight": cpu_weight(desire.memory_mb),
        "privileged": false,
        "ports": all_ports.collect::<Vec<_>>(),
        "routes": routes,
        "annotation": desire.etag,
        "start_timeout": desire.health_check_timeout_in_seconds,
        "log_guid": desire.log_guid,
        "log_source": "CELL",
        "metrics_guid": desire.log_guid,
        "egress_rules": desire.egress_rules,
        "trusted_system_certificates_path": CERTIFICATES,
    });
    let setup = if setup.is_empty() { Value::Null } else { serial(setup) };
    let more = json!({
        "setup": setup,
        "monitor": monitor(desire, user, &ports),
        "cached_dependencies": dependencies,
        "network": desire.network,
        "volume_mounts": desire.volume_mounts,
        "placement_tags": tags(&desire.isolation_segment),
        "image_username": desire.docker_user,
        "image_password": desire.docker_password,
    });
    if let (Some(lrp), Value::Object(more)) = (lrp.as_object_mut(), filled(more)) {
        lrp.extend(more);
    }
    Ok(lrp)
}

fn container_env(is_docker: bool) -> Vec<Value> {
    match is_docker {
        true => Vec::new(),
        false => env(&[], &[("LANG", "en_US.UTF-8")]),
    }
}

/// What the image says of itself. A droplet's is for its launcher, and may be any text.
fn metadata(desire: &DesireApp) -> Result<Metadata, NoRecipe> {
    match desire.execution_metadata.trim() {
        _ if desire.docker_image.is_empty() => Ok(Metadata::default()),
        "" => Ok(Metadata::default()),
        text => {
            serde_json::from_str(text).map_err(|err| NoRecipe(format!("execution_metadata: {err}")))
        }
    }
}

/// What is said, else what the image declares, else the usual one.
fn ports(desire: &DesireApp, metadata: &Metadata) -> Result<Vec<u16>, NoRecipe> {
    if !desire.ports.is_empty() {
        return Ok(desire.ports.clone());
    }
    let declared = metadata.ports.iter().filter(|it| it.protocol == "tcp" && it.port > 0);
    let declared: Vec<u16> = declared.map(|it| it.port).collect();
    match declared.is_empty() {
        false => Ok(declared),
        // It says what it listens on, and no route of a controller leads there.
        true if !metadata.ports.is_empty() => {
            Err(NoRecipe::new("No tcp ports found in image metadata"))
        }
        true => Ok(vec![PORT]),
    }
}

/// The app, and its sshd.
fn actions(
    desire: &DesireApp,
    user: &str,
    ports: &[u16],
    is_docker: bool,
    ssh: Option<&SshKeys>,
) -> Vec<Value> {
    let nofile = match desire.file_descriptors {
        0 => NOFILE,
        files => files,
    };
    let port = ports.first().copied().unwrap_or(PORT).to_string();
    let mut more = vec![("PORT", port.as_str())];
    if !is_docker {
        more.extend([("VCAP_APP_PORT", port.as_str()), ("VCAP_APP_HOST", "0.0.0.0")]);
    }
    let env: Value = env(&desire.environment, &more).into();
    let source = match desire.log_source.as_str() {
        "" => "APP",
        source => source,
    };
    let args = ["app", &desire.start_command, &desire.execution_metadata];
    let mut app = run("/tmp/lifecycle/launcher", &args, user, nofile);
    app.insert("env".into(), env.clone());
    app.insert("log_source".into(), source.into());
    let sshd = ssh.map(|keys| {
        let host = format!("-hostKey={}", keys.host_key);
        let known = format!("-authorizedKey={}", keys.authorized_key);
        let address = format!("-address=0.0.0.0:{SSH_PORT}");
        let args = [&*address, &*host, &*known, "-inheritDaemonEnv", "-logLevel=fatal"];
        let mut sshd = run("/tmp/lifecycle/diego-sshd", &args, user, nofile);
        sshd.insert("env".into(), env);
        sshd
    });
    [app].into_iter().chain(sshd).map(|run: Map<String, Value>| json!({ "run": run })).collect()
}

/// Asks each port; `None`: it is healthy as soon as it runs.
fn monitor(desire: &DesireApp, user: &str, ports: &[u16]) -> Option<Value> {
    let endpoint = match desire.health_check_type.as_str() {
        "none" | "process" => return None,
        "http" => Some(format!("-uri={}", desire.health_check_http_endpoint)),
        _ => None,
    };
    let check = |port: &u16| {
        let port = format!("-port={port}");
        let args: Vec<&str> = [port.as_str()].into_iter().chain(endpoint.as_deref()).collect();
        let mut run = run("/tmp/lifecycle/healthcheck", &args, user, NOFILE);
        run.insert("log_source".into(), "HEALTH".into());
        run.insert("suppress_log_output".into(), true.into());
        json!({ "run": run })
    };
    Some(timeout(CHECK_SECONDS, parallel(ports.iter().map(check).collect())))
}

/// What the routers are told: the keys of http and tcp are always there.
pub fn routes(desire: &DesireApp, ports: &[u16]) -> Map<String, Value> {
    let first = ports.first().copied().unwrap_or(PORT);
    let inside = |port: u16| if port == 0 { first } else { port };
    let info = desire.routing_info.clone().unwrap_or_else(|| Routing {
        http_routes: desire.routes.iter().map(|name| named(name)).collect(),
        tcp_routes: Vec::new(),
    });
    let mut groups: BTreeMap<(u16, String), Vec<String>> = BTreeMap::new();
    for route in info.http_routes {
        let group = groups.entry((inside(route.port), route.route_service_url)).or_default();
        group.push(route.hostname);
    }
    let http = groups.into_iter().map(|((port, service), names)| {
        filled(json!({ "hostnames": names, "port": port, "route_service_url": service }))
    });
    let tcp = info.tcp_routes.iter().map(|route| {
        json!({
            "router_group_guid": route.router_group_guid,
            "external_port": route.external_port,
            "container_port": inside(route.container_port),
        })
    });
    let (http, tcp): (Value, Value) = (http.collect(), tcp.collect());
    Map::from_iter([("cf-router".to_owned(), http), ("tcp-router".to_owned(), tcp)])
}

fn named(name: &str) -> crate::bridge::request::HttpRoute {
    crate::bridge::request::HttpRoute { hostname: name.to_owned(), ..Default::default() }
}

fn ssh_route(keys: &SshKeys) -> (String, Value) {
    let route = json!({
        "container_port": SSH_PORT,
        "private_key": keys.private_key,
        "host_fingerprint": keys.host_fingerprint,
    });
    ("diego-ssh".to_owned(), route)
}

/// The ports of an app as its recipe has them: for what changes while it runs.
pub fn ports_of(desire: &DesireApp) -> Result<Vec<u16>, NoRecipe> {
    ports(desire, &metadata(desire).unwrap_or_default())
}

impl Form {
    /// As it stands in the settings.
    pub fn of(mounted: bool) -> Form {
        if mounted { Form::Mounted } else { Form::Downloaded }
    }
}
