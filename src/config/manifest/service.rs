//! `[[service]]` and `[features]`: what an app is told that it is bound to.

use super::super::cursor::{Section, Value};
use super::super::words::shown;
use super::Places;
use crate::model::service::{Service, USER_PROVIDED};
use serde_json::{Map, Value as Json};
use std::path::Path;
use toml::de::DeValue;

/// Most `[[service]]`s of one app.
const SERVICES_MAX: usize = 32;
/// Longest name, label, plan or tag.
const WORD_MAX: usize = 255;
/// Most that all credentials together may take as JSON, in bytes: an environment variable of a process
/// has 128 KiB.
pub(in crate::config) const CREDENTIALS_MAX: usize = 64 * 1024;
/// How deep credentials may nest.
const DEPTH_MAX: usize = 16;

/// Reads every `[[service]]`; a relative `credentials_file` starts at `dir`.
pub(super) fn read_services(
    top: &mut Section<'_>,
    dir: &Path,
    places: &mut Places,
) -> Vec<Service> {
    let mut all: Vec<Service> = Vec::new();
    for mut section in top.sections("service", SERVICES_MAX).unwrap_or_default() {
        let name = match section.take("name") {
            Some(name)
                if name.filled(WORD_MAX).is_some_and(|it| all.iter().any(|s| s.name == it)) =>
            {
                name.fail("is the name of another service", "rename one of them");
                None
            }
            Some(name) => name.filled(WORD_MAX).map(str::to_owned),
            None => {
                section.missing("name", "add name = \"SERVICE\"".into());
                None
            }
        };
        let mut word = |key| Some(section.take(key)?.filled(WORD_MAX)?.to_owned());
        let label = word("label").unwrap_or_else(|| USER_PROVIDED.into());
        let [plan, binding_name] = ["plan", "binding_name"].map(&mut word);
        let drain = section.take("syslog_drain_url");
        let drain = drain.and_then(|it| it.text(4096).map(str::to_owned));
        let mounts = section.take("volume_mounts").and_then(|it| json(&it, it.inner, 0));
        let tags = section.take("tags").and_then(|list| {
            let items = list.list(SERVICES_MAX)?;
            items.iter().map(|it| it.filled(WORD_MAX).map(str::to_owned)).collect()
        });
        let (credentials, file) = (section.take("credentials"), section.take("credentials_file"));
        if let (Some(_), Some(file)) = (&credentials, &file) {
            file.fail("stands beside `credentials`", "a service has one of both; remove one");
        }
        let inline = credentials.and_then(|it| read_credentials(&it)).unwrap_or_default();
        let at = file.as_ref().map(|file| file.place.span());
        let file =
            file.and_then(|it| it.filled(4096).map(|path| dir.join(path).components().collect()));
        section.finish();
        let Some(name) = name else { continue };
        if let Some(at) = at {
            places.credentials.push((all.len(), at));
        }
        all.push(Service {
            name,
            label,
            plan,
            tags: tags.unwrap_or_default(),
            binding_name,
            syslog_drain_url: drain,
            volume_mounts: match mounts {
                Some(Json::Array(items)) => items,
                _ => Vec::new(),
            },
            credentials: inline,
            credentials_file: file,
        });
    }
    all
}

fn read_credentials(value: &Value<'_>) -> Option<Map<String, Json>> {
    let DeValue::Table(_) = value.inner else {
        return value.mistyped("a table", Some("write { password = \"...\" }".into()));
    };
    let Json::Object(map) = json(value, value.inner, 0)? else { return None };
    let bytes = serde_json::to_string(&map).map_or(usize::MAX, |text| text.len());
    if bytes > CREDENTIALS_MAX {
        value.fail(format!("is {bytes} bytes long as JSON"), format!("at most {CREDENTIALS_MAX}"));
        return None;
    }
    Some(map)
}

/// A value of TOML as JSON; dates become text. `at`: where mistakes are noted.
fn json(at: &Value<'_>, value: &DeValue<'_>, depth: usize) -> Option<Json> {
    if depth > DEPTH_MAX {
        at.fail(format!("is nested deeper than {DEPTH_MAX}"), "write it flatter");
        return None;
    }
    Some(match value {
        DeValue::String(text) => Json::from(text.as_ref()),
        DeValue::Boolean(truth) => Json::from(*truth),
        DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
            Ok(number) => Json::from(number),
            Err(_) => {
                at.fail(
                    format!("holds {}, out of range", shown(number.as_str())),
                    "write a string",
                );
                return None;
            }
        },
        DeValue::Float(number) => Json::from(number.as_str().parse::<f64>().unwrap_or_default()),
        DeValue::Datetime(time) => Json::from(time.to_string()),
        DeValue::Array(items) => {
            let items = items.iter().map(|item| json(at, item.get_ref(), depth + 1));
            Json::Array(items.collect::<Option<_>>()?)
        }
        DeValue::Table(table) => {
            let pair = |(key, value): (&toml::Spanned<_>, &toml::Spanned<DeValue<'_>>)| {
                let name: &std::borrow::Cow<'_, str> = key.get_ref();
                Some((name.to_string(), json(at, value.get_ref(), depth + 1)?))
            };
            Json::Object(table.iter().map(pair).collect::<Option<_>>()?)
        }
    })
}

/// Reads `[features]`: whether services are told by a file instead of a variable.
pub(super) fn read_features(section: Option<Section<'_>>) -> bool {
    let Some(mut section) = section else { return false };
    let by_file = section.take("file_based_services").and_then(|it| it.truth());
    section.finish();
    by_file.unwrap_or(false)
}
