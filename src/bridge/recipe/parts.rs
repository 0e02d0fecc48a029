//! What recipes have in common: actions, archives, weights, names of images.

use super::{Form, NoRecipe, Site};
use crate::bridge::request::Variable;
use serde_json::{Map, Value, json};

/// Where the lifecycle's programs are inside.
pub const LIFECYCLE: &str = "/tmp/lifecycle";
/// Where the certificates that the box trusts are inside.
pub const CERTIFICATES: &str = "/etc/cf-system-certificates";
/// Who runs what buildpacks have made.
pub const VCAP: &str = "vcap";
/// Who runs images that name nobody.
pub const ROOT: &str = "root";

/// Shares of memory, in MiB, between which a container's weight grows with it.
const WEIGHT_FROM: u64 = 128;
const WEIGHT_TO: u64 = 8192;

/// What a container of so many MiB weighs, 1 to 100.
pub fn cpu_weight(memory_mb: u64) -> u64 {
    (memory_mb.clamp(WEIGHT_FROM, WEIGHT_TO) * 100 / WEIGHT_TO).max(1)
}

/// An archive that a container has unpacked.
pub struct Archive {
    /// What a person calls it.
    pub name: String,
    /// Where it is.
    pub from: String,
    /// Directory inside.
    pub to: String,
    /// What it is kept under.
    pub cache_key: String,
}

impl Archive {
    /// The lifecycle's programs for apps of a stack; `None`: there are none for that stack.
    pub fn buildpack_lifecycle(site: &Site, stack: &str) -> Option<Archive> {
        site.stacks.contains(stack).then(|| Archive {
            name: String::new(),
            from: served(site, "buildpack_app_lifecycle/buildpack_app_lifecycle.tgz"),
            to: LIFECYCLE.into(),
            cache_key: format!("buildpack-{stack}-lifecycle"),
        })
    }

    /// The same for apps that are images.
    pub fn docker_lifecycle(site: &Site) -> Archive {
        Archive {
            name: String::new(),
            from: served(site, "docker_app_lifecycle/docker_app_lifecycle.tgz"),
            to: LIFECYCLE.into(),
            cache_key: "docker-lifecycle".into(),
        }
    }

    /// As a cached dependency.
    pub fn dependency(&self) -> Value {
        json!({ "name": self.name, "from": self.from, "to": self.to, "cache_key": self.cache_key })
    }

    /// As an action.
    pub fn download(&self, user: &str) -> Value {
        let mut download = json!({
            "from": self.from,
            "to": self.to,
            "cache_key": self.cache_key,
            "user": user,
        });
        if !self.name.is_empty() {
            download["artifact"] = self.name.as_str().into();
        }
        json!({ "download": download })
    }
}

/// Where the box serves a file.
fn served(site: &Site, path: &str) -> String {
    format!("{}/v1/static/{path}", site.base)
}

/// The droplet of an app, unpacked in its user's home.
pub fn droplet(uri: &str, hash: &str, guid: &str) -> Value {
    let mut download = json!({
        "from": uri,
        "to": ".",
        "user": VCAP,
        "cache_key": format!("droplets-{guid}"),
    });
    if !hash.is_empty() {
        download["checksum_algorithm"] = "sha1".into();
        download["checksum_value"] = hash.into();
    }
    json!({ "download": download })
}

/// A process; 0 open files: as many as the box lets it have.
pub fn run(path: &str, args: &[&str], user: &str, nofile: u64) -> Map<String, Value> {
    let limits = if nofile == 0 { json!({}) } else { json!({ "nofile": nofile }) };
    let run = json!({ "path": path, "args": args, "user": user, "resource_limits": limits });
    run.as_object().cloned().unwrap_or_default()
}

/// One after the other.
pub fn serial(actions: Vec<Value>) -> Value {
    json!({ "serial": { "actions": actions } })
}

/// All at once.
pub fn parallel(actions: Vec<Value>) -> Value {
    json!({ "parallel": { "actions": actions } })
}

/// What need not succeed.
pub fn attempt(action: Value) -> Value {
    json!({ "try": { "action": action } })
}

/// What may take so many seconds.
pub fn timeout(seconds: u64, action: Value) -> Value {
    json!({ "timeout": { "action": action, "timeout": seconds.saturating_mul(1_000_000_000) } })
}

/// What is talked about: before, after success, after a failure.
pub fn told(action: Value, [start, success, failure]: [&str; 3]) -> Value {
    json!({ "emit_progress": {
        "action": action,
        "start_message": start,
        "success_message": success,
        "failure_message_prefix": failure,
    }})
}

/// The variables, then these.
pub fn env(given: &[Variable], more: &[(&str, &str)]) -> Vec<Value> {
    let given = given.iter().map(|it| (it.name.as_str(), it.value.as_str()));
    let all = given.chain(more.iter().copied());
    all.map(|(name, value)| json!({ "name": name, "value": value })).collect()
}

/// Only what says something: members that are empty are left out.
pub fn filled(value: Value) -> Value {
    let says = |value: &Value| match value {
        Value::Null => false,
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        _ => true,
    };
    match value {
        Value::Object(members) => members.into_iter().filter(|(_, it)| says(it)).collect(),
        other => other,
    }
}

/// The tags of where it may run.
pub fn tags(segment: &str) -> Vec<&str> {
    if segment.is_empty() { Vec::new() } else { vec![segment] }
}

/// Archives in the form that the box wants: dependencies, and actions that come first.
pub fn archives(form: Form, archives: &[Archive], user: &str) -> (Vec<Value>, Vec<Value>) {
    match form {
        Form::Mounted => (archives.iter().map(Archive::dependency).collect(), Vec::new()),
        Form::Downloaded => (Vec::new(), archives.iter().map(|it| it.download(user)).collect()),
    }
}

/// A docker image's name as a rootfs: `docker://<host>/<repository>#<tag>`; with a digest as cloud
/// controllers write it, `#<tag>@sha256:<hex>`, and without a tag `@sha256#<hex>`.
pub fn docker_url(image: &str) -> Result<String, NoRecipe> {
    if image.contains("://") {
        return Err(NoRecipe(format!("docker URI [{image}] should not contain scheme")));
    }
    let is_host = |part: &str| part.contains(['.', ':']) || part == "localhost";
    let (host, rest) = match image.split_once('/') {
        Some((first, rest)) if is_host(first) => (first, rest),
        _ => ("", image),
    };
    let (name, digest) = match rest.split_once('@') {
        Some((name, digest)) => (name, digest),
        None => (rest, ""),
    };
    let (path, tag) = match name.rsplit_once(':') {
        Some((path, tag)) if !tag.contains('/') => (path, tag),
        _ => (name, ""),
    };
    let official = !path.contains('/') && matches!(host, "" | "docker.io");
    let library = if official { "library/" } else { "" };
    let which = match (tag, digest) {
        ("", "") => String::new(),
        ("", digest) => match digest.split_once(':') {
            Some((algorithm, hex)) => format!("@{algorithm}#{hex}"),
            None => format!("#{digest}"),
        },
        (tag, "") => format!("#{tag}"),
        (tag, digest) => format!("#{tag}@{digest}"),
    };
    Ok(format!("docker://{host}/{library}{path}{which}"))
}
