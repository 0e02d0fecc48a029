//! `[build] buildpacks`, by name or URL, and `[hook.release]`.

use super::super::cursor::{Section, Value};
use super::super::words::{shown, word};
use super::{DAY, MEMORY_MIN, Places, SIZE_MAX, read_command, set};
use crate::model::limits::DISK_MIN;
use crate::model::manifest::{Build, ReleaseHook, Run};
use crate::unit::Digest;
use std::time::Duration;
use toml::de::DeValue;

/// Most buildpacks of one app.
const BUILDPACKS_MAX: usize = 32;
/// Longest URL of one.
const URL_MAX: usize = 1024;
/// How long a hook may take that does not say so.
const HOOK_TIMEOUT: Duration = Duration::from_secs(900);

/// Reads the list.
pub(super) fn read(list: &Value<'_>, build: &mut Build, places: &mut Places) {
    for item in list.list(BUILDPACKS_MAX).unwrap_or_default() {
        let read = match item.inner {
            DeValue::Table(_) => item.clone().section().and_then(read_checked),
            _ => item.parsed(name_or_url).map(|name| (name, None)),
        };
        let Some((name, sum)) = read else { continue };
        if build.buildpacks.contains(&name) {
            item.place.fail(format!("buildpack `{}` is named twice", shown(&name)), "remove one");
            continue;
        }
        build.checksums.extend(sum.map(|sum| (name.clone(), sum)));
        build.buildpacks.push(name);
        places.buildpacks.push(item.place.span());
    }
}

/// `{ url = "...", sha256 = "..." }`.
fn read_checked(mut section: Section<'_>) -> Option<(String, Option<Digest>)> {
    let url = match section.take("url") {
        Some(value) => value.parsed(|text| match url(text)?.split_once("://") {
            Some(("http" | "https", _)) => Ok(text.to_owned()),
            _ => Err(format!("`{}` is not fetched by the box; http or https", shown(text))),
        }),
        None => {
            section.missing("url", "add url = \"https://...\", an archive".into());
            None
        }
    };
    let sum = match section.take("sha256") {
        Some(value) => value.parsed(|text| {
            let hex = text.strip_prefix("sha256:").unwrap_or(text).to_ascii_lowercase();
            format!("sha256:{hex}").parse::<Digest>().map_err(|_| {
                format!("`{}` is no digest; 64 hex digits, as of sha256sum", shown(text))
            })
        }),
        None => {
            section.missing("sha256", "add the digest of the archive, as of sha256sum".into());
            None
        }
    };
    section.finish();
    Some((url?, Some(sum?)))
}

fn name_or_url(text: &str) -> Result<String, String> {
    match text.contains("://") {
        true => url(text).map(str::to_owned),
        false => word("buildpack", text, 64),
    }
}

/// A URL that the builder can be given in its list.
fn url(text: &str) -> Result<&str, String> {
    let bad = |rule: &str| Err(format!("`{}` is no URL of a buildpack; {rule}", shown(text)));
    let Some((scheme, rest)) = text.split_once("://") else { return bad("https://HOST/PATH") };
    let plain = |b: u8| b.is_ascii_graphic() && !matches!(b, b',' | b'"' | b'\\' | b'`');
    match scheme {
        "http" | "https" | "git" | "ssh" => {}
        "file" => return bad("put it into the box's buildpack directory and write its name"),
        _ => return bad("http, https, git or ssh"),
    }
    match rest.is_empty() || text.len() > URL_MAX || !rest.bytes().all(plain) {
        true => bad("at most 1024 characters without blanks, quotes and commas"),
        false => Ok(text),
    }
}

/// Reads `[hook.release]`, the only hook.
pub(super) fn read_hooks(section: Option<Section<'_>>, run: &Run) -> Option<ReleaseHook> {
    let mut hooks = section?;
    let release = hooks.section("release");
    hooks.finish();
    let mut release = release?;
    let mut hook = ReleaseHook {
        command: String::new(),
        memory: run.memory,
        disk: run.disk,
        timeout: HOOK_TIMEOUT,
    };
    match release.take("command") {
        Some(value) => set(&mut hook.command, read_command(&value)),
        None => release.missing("command", "add command = \"PROGRAM\"".into()),
    }
    if let Some(memory) = release.take("memory") {
        set(&mut hook.memory, memory.bytes(MEMORY_MIN, SIZE_MAX));
    }
    if let Some(disk) = release.take("disk") {
        set(&mut hook.disk, disk.bytes(DISK_MIN, SIZE_MAX));
    }
    if let Some(timeout) = release.take("timeout") {
        set(&mut hook.timeout, timeout.time(Duration::from_secs(1), DAY));
    }
    release.finish();
    Some(hook)
}
