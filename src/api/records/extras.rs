//! The optional fields of Diego's records, to what this box makes of them. Pure.
//!
//! | field | here |
//! |---|---|
//! | `cached_dependencies`, shared `image_layers` | trees of the store, read-only |
//! | exclusive `image_layers` | downloads at once, before everything else |
//! | `volume_mounts` of driver `local` | the directory `source` of `mount_config`; without one, `volume_id` below the first of `[cell] volumes` |
//! | `volume_mounted_files` | files in memory below /etc/cf-service-bindings |
//! | `trusted_system_certificates_path` | the box's certificates there, and `CF_SYSTEM_CERT_PATH` |
//! | `log_rate_limit`, `metric_tags`, `placement_tags` | as in Diego |
//! | `image_username`, `image_password` | for that pull, and nowhere kept |
//! | `network`, what nobody knows | named in the answer's `Terrarium-Ignored`, and in the log |

use super::action::{self, BadAction, Fields};
use super::record::Wrong;
use crate::model::action::{Action, Checksum, ChecksumAlgorithm, DownloadAction};
use crate::model::extras::{Extras, ImageLogin, LOCAL_DRIVER, MetricTag};
use crate::model::lrp::{CachedDependency, FileMount, Holds, Volume};
use crate::unit::{Bytes, Rate};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::path::{Component, Path};

/// Most items of one list.
const LIST_MAX: usize = 64;
/// Names of fields that are told of as not heeded.
const IGNORED_MAX: usize = 16;
/// Longest of these, in bytes.
const NAME_MAX: usize = 64;
/// Where service bindings are, as in Diego.
const BINDINGS: &str = "/etc/cf-service-bindings";
/// Who unpacks exclusive layers. Diego's legacy download user.
const LAYER_USER: &str = "vcap";
/// Read by the user of the work alone.
const FILE_MODE: u32 = 0o400;

/// Fields that the records of Tasks and of containers have in common.
const COMMON: [&str; 20] = [
    "cached_dependencies",
    "cpu_weight",
    "disk_mb",
    "egress_rules",
    "env",
    "image_layers",
    "image_password",
    "image_username",
    "log_rate_limit",
    "max_pids",
    "memory_mb",
    "metric_tags",
    "metrics_guid",
    "placement_tags",
    "privileged",
    "rootfs",
    "trusted_system_certificates_path",
    "volume_mounted_files",
    "volume_mounts",
    "legacy_download_user",
];

fn invalid<T>(field: &str) -> Result<T, Wrong> {
    Err(BadAction(format!("Invalid field: {field}")))
}

/// All of them; `own`: names of the fields that this kind of record has beside the common ones.
pub(super) fn read(fields: &Fields<'_>, own: &[&str]) -> Result<Extras, Wrong> {
    let mut dependencies = items(fields, "cached_dependencies", dependency)?;
    dependencies
        .extend(items(fields, "image_layers", layer)?.into_iter().filter_map(Layer::shared));
    let mut extras = Extras {
        dependencies,
        files: items(fields, "volume_mounted_files", file)?,
        certificates: certificates(fields)?,
        log_rate: log_rate(fields)?,
        placement_tags: fields.texts("placement_tags")?,
        metric_tags: metric_tags(fields)?,
        login: login(fields)?,
        privileged: fields.truth("privileged")?,
        ignored: ignored(fields, own),
        ..Extras::default()
    };
    for (driver, volume) in items(fields, "volume_mounts", volume)? {
        match driver.as_str() {
            LOCAL_DRIVER => extras.volumes.push(volume),
            _ if extras.volume_drivers.contains(&driver) => {}
            _ => extras.volume_drivers.push(driver),
        }
    }
    let volumes = extras.volumes.iter().map(|it| it.to.as_str());
    let trees = extras.dependencies.iter().map(|it| it.to.as_str());
    let files = extras.files.iter().map(|it| it.path.as_str());
    let mut places: Vec<&str> = volumes.chain(trees).chain(files).collect();
    places.sort_unstable();
    match places.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => invalid(&format!("{} is asked for twice", pair[0])),
        None => Ok(extras),
    }
}

/// What is fetched into the container before anything else of it begins.
pub(super) fn exclusive_layers(fields: &Fields<'_>) -> Result<Option<Action>, Wrong> {
    let layers = items(fields, "image_layers", layer)?.into_iter();
    let downloads: Vec<Action> = layers.filter_map(Layer::exclusive).collect();
    Ok((!downloads.is_empty()).then_some(Action::Parallel(downloads)))
}

/// The record as its client wrote it, without what nobody else shall read.
pub(super) fn without_secrets(object: &Map<String, Value>) -> String {
    let mut shown = object.clone();
    for secret in ["image_username", "image_password"] {
        shown.remove(secret);
    }
    if let Some(Value::Array(files)) = shown.get_mut("volume_mounted_files") {
        for file in files.iter_mut().filter_map(Value::as_object_mut) {
            file.remove("content");
        }
    }
    serde_json::to_string(&shown).expect("JSON becomes JSON")
}

/// A list of objects.
fn items<T>(
    fields: &Fields<'_>,
    name: &str,
    read: impl Fn(&Fields<'_>) -> Result<T, Wrong>,
) -> Result<Vec<T>, Wrong> {
    let list = fields.list(name)?;
    if list.len() > LIST_MAX {
        return invalid(&format!("{name}: at most {LIST_MAX}"));
    }
    let item = |item: &Value| match item.as_object() {
        // Diego names the list; here its field is named as well.
        Some(item) => read(&Fields(item)).map_err(|err| {
            BadAction(err.0.replacen("Invalid field: ", &format!("Invalid field: {name}: "), 1))
        }),
        None => invalid(name),
    };
    list.iter().map(item).collect()
}

/// An absolute path inside for something that is mounted there.
fn target(fields: &Fields<'_>, name: &str) -> Result<String, Wrong> {
    let text = fields.needed(name)?;
    let mut parts = Path::new(&text).components();
    let rooted = parts.next() == Some(Component::RootDir);
    let plain = parts.all(|part| matches!(part, Component::Normal(_)));
    // What the container itself has there would be hidden.
    let own = ["/proc", "/sys", "/dev"].iter().any(|own| Path::new(&text).starts_with(own));
    match rooted && plain && !own && Path::new(&text).file_name().is_some() && text.len() < 4096 {
        true => {
            Ok(Path::new(&text).components().collect::<std::path::PathBuf>().display().to_string())
        }
        false => invalid(name),
    }
}

fn dependency(fields: &Fields<'_>) -> Result<CachedDependency, Wrong> {
    Ok(CachedDependency {
        from: fields.needed("from")?,
        to: target(fields, "to")?,
        cache_key: fields.text("cache_key")?,
        name: fields.text("name")?,
        log_source: fields.text("log_source")?,
        checksum: action::checksum(fields)?,
    })
}

/// One of `image_layers`.
struct Layer {
    is_shared: bool,
    name: String,
    url: String,
    to: String,
    checksum: Option<Checksum>,
}

fn layer(fields: &Fields<'_>) -> Result<Layer, Wrong> {
    let is_shared = match fields.needed("layer_type")?.to_ascii_uppercase().as_str() {
        "SHARED" => true,
        "EXCLUSIVE" => false,
        _ => return invalid("layer_type"),
    };
    // Which one it is, its own bytes say.
    if !["TGZ", "TAR", "ZIP"].contains(&fields.needed("media_type")?.to_ascii_uppercase().as_str())
    {
        return invalid("media_type");
    }
    let algorithm = fields.text("digest_algorithm")?;
    let checksum = match (algorithm.to_ascii_uppercase().as_str(), fields.text("digest_value")?) {
        ("" | "INVALID", value) if value.is_empty() => None,
        ("SHA256", value) if !value.is_empty() => {
            Some(Checksum { algorithm: ChecksumAlgorithm::Sha256, value })
        }
        ("SHA256", _) => return invalid("digest_value"),
        _ => return invalid("digest_algorithm"),
    };
    // Else it would be asked for anew, and might be another one, each time.
    if !is_shared && checksum.is_none() {
        return invalid("digest_value");
    }
    let to = target(fields, "destination_path")?;
    let (name, url) = (fields.text("name")?, fields.needed("url")?);
    Ok(Layer { is_shared, name, url, to, checksum })
}

impl Layer {
    fn cache_key(&self) -> String {
        match &self.checksum {
            Some(checksum) => format!("sha256:{}", checksum.value),
            None => self.url.clone(),
        }
    }

    fn shared(self) -> Option<CachedDependency> {
        self.is_shared.then(|| CachedDependency {
            cache_key: self.cache_key(),
            from: self.url,
            to: self.to,
            name: self.name,
            log_source: String::new(),
            checksum: self.checksum,
        })
    }

    fn exclusive(self) -> Option<Action> {
        (!self.is_shared).then(|| {
            Action::Download(DownloadAction {
                cache_key: self.cache_key(),
                from: self.url,
                to: self.to,
                user: LAYER_USER.into(),
                artifact: self.name,
                log_source: String::new(),
                checksum: self.checksum,
            })
        })
    }
}

/// A volume and its driver.
fn volume(fields: &Fields<'_>) -> Result<(String, Volume), Wrong> {
    let driver = fields.needed("driver")?;
    let to = target(fields, "container_dir")?;
    let read_only = match fields.needed("mode")?.as_str() {
        "r" => true,
        "rw" => false,
        _ => return invalid("mode"),
    };
    let Some(shared) = fields.object("shared")? else { return invalid("shared") };
    let id = shared.needed("volume_id")?;
    if driver != LOCAL_DRIVER {
        return Ok((driver, Volume { from: id.into(), to, read_only }));
    }
    let said = match shared.get("mount_config") {
        None => None,
        Some(Value::Object(config)) => Some(config.clone()),
        Some(Value::String(text)) if text.is_empty() => None,
        Some(Value::String(text)) => match serde_json::from_str(text) {
            Ok(config) => Some(config),
            Err(_) => return invalid("mount_config"),
        },
        Some(_) => return invalid("mount_config"),
    };
    let source = said.as_ref().map(|config| Fields(config).text("source")).transpose()?;
    let from = match source.filter(|source| !source.is_empty()) {
        Some(source) if source.starts_with('/') => source,
        Some(_) => return invalid("mount_config: source"),
        None if is_relative(&id) => id,
        None => return invalid("volume_id"),
    };
    Ok((driver, Volume { from: from.into(), to, read_only }))
}

/// A path without `..` and surprises, that begins nowhere.
fn is_relative(text: &str) -> bool {
    let mut parts = Path::new(text).components();
    !text.is_empty() && text.len() < 1024 && parts.all(|part| matches!(part, Component::Normal(_)))
}

fn file(fields: &Fields<'_>) -> Result<FileMount, Wrong> {
    let path = fields.needed("path")?;
    if !is_relative(&path) {
        return invalid("path");
    }
    let content = fields.text("content")?;
    let path = Path::new(BINDINGS).join(path).components().collect::<std::path::PathBuf>();
    Ok(FileMount {
        path: path.display().to_string(),
        holds: Holds::Content(content),
        mode: FILE_MODE,
    })
}

fn certificates(fields: &Fields<'_>) -> Result<Option<String>, Wrong> {
    let name = "trusted_system_certificates_path";
    match fields.text(name)?.is_empty() {
        true => Ok(None),
        false => target(fields, name).map(Some),
    }
}

fn log_rate(fields: &Fields<'_>) -> Result<Option<Rate>, Wrong> {
    let Some(limit) = fields.object("log_rate_limit")? else { return Ok(None) };
    let bytes = limit.get("bytes_per_second").map_or(Some(0), Value::as_i64);
    match bytes {
        Some(-1) => Ok(Some(Rate::Unlimited)),
        Some(bytes @ 0..) => Ok(Some(Rate::Bytes(Bytes::new(bytes as u64)))),
        _ => invalid("log_rate_limit"),
    }
}

pub(super) fn metric_tags(fields: &Fields<'_>) -> Result<BTreeMap<String, MetricTag>, Wrong> {
    let Some(tags) = fields.object("metric_tags")? else { return Ok(BTreeMap::new()) };
    if tags.0.len() > LIST_MAX {
        return invalid(&format!("metric_tags: at most {LIST_MAX}"));
    }
    let tag = |(name, value): (&String, &Value)| {
        let Some(value) = value.as_object().map(Fields) else { return invalid("metric_tags") };
        let tag = match (value.text("static")?, value.text("dynamic")?.as_str()) {
            (text, "") => MetricTag::Static(text),
            (text, "INDEX") if text.is_empty() => MetricTag::Index,
            (text, "INSTANCE_GUID") if text.is_empty() => MetricTag::InstanceGuid,
            _ => return invalid("metric_tags"),
        };
        Ok((name.clone(), tag))
    };
    tags.0.iter().map(tag).collect()
}

fn login(fields: &Fields<'_>) -> Result<Option<ImageLogin>, Wrong> {
    let (user, password) = (fields.text("image_username")?, fields.text("image_password")?);
    match (user.is_empty(), password.is_empty()) {
        (true, true) => Ok(None),
        (false, false) => Ok(Some(ImageLogin { user, password })),
        (true, false) => invalid("image_username"),
        (false, true) => invalid("image_password"),
    }
}

/// Names of fields that say something and are not heeded.
fn ignored(fields: &Fields<'_>, own: &[&str]) -> Vec<String> {
    let says = |value: &Value| match value {
        Value::Null => false,
        Value::Bool(truth) => *truth,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(members) => members.values().any(|value| *value != Value::Null),
    };
    let known = |name: &str| COMMON.contains(&name) || own.contains(&name);
    let names = fields.0.iter().filter(|(name, value)| !known(name) && says(value));
    // They go into a header and a log.
    let shown = |name: &String| {
        let plain = name.chars().filter(|it| it.is_ascii_alphanumeric() || "_-.".contains(*it));
        plain.take(NAME_MAX).collect::<String>()
    };
    names.map(|(name, _)| shown(name)).take(IGNORED_MAX).collect()
}

#[cfg(test)]
mod tests;
