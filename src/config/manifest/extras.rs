//! `[sidecar.X]`, `[stop]`, `[[volume]]` and `[[file]]`: what an app has beside its processes.

use super::super::cursor::{Section, Value};
use super::super::words::{plain_name, shown};
use super::{Places, SIZE_MAX, read_command};
use crate::model::lrp::{FileMount, Holds, Volume};
use crate::model::manifest::{Process, SidecarCommand, StopWish};
use crate::model::signals;
use crate::unit::Bytes;
use std::collections::BTreeMap;
use std::path::{Component, Path};
use std::time::Duration;
use toml::de::DeValue;

/// Most sidecars of one app.
const SIDECARS_MAX: usize = 16;
/// Longest name of a sidecar: it is part of a process's name in the container.
const NAME_MAX: usize = 16;
/// Most `[[volume]]`s and `[[file]]`s.
const MOUNTS_MAX: usize = 32;
/// Longest content of a `[[file]]`, in bytes.
pub(super) const CONTENT_MAX: usize = 64 * 1024;
/// Longest time from a signal to KILL: more than a box wants to wait for its shutdown.
const GRACE_MAX: Duration = Duration::from_secs(3600);

/// Reads every `[sidecar.X]`. `None`: something was noted.
pub(super) fn read_sidecars(
    top: &mut Section<'_>,
    processes: Option<&BTreeMap<String, Process>>,
) -> Option<BTreeMap<String, SidecarCommand>> {
    let mut all = BTreeMap::new();
    let Some(value) = top.take("sidecar") else { return Some(all) };
    let entries = value.section()?.take_all();
    if entries.len() > SIDECARS_MAX {
        value.fail(format!("has {} sidecars", entries.len()), format!("at most {SIDECARS_MAX}"));
    }
    for entry in entries {
        if let Err(text) = plain_name("sidecar", entry.key, NAME_MAX) {
            let (what, cure) = text.split_once("; ").unwrap_or((&text, ""));
            entry.place.fail(what, cure);
        } else if let DeValue::Table(_) = entry.value.inner {
            let sidecar = read_sidecar(entry.value.section()?, processes)?;
            all.insert(entry.key.to_owned(), sidecar);
        } else {
            let cure = format!("write [sidecar.NAME] above `{}`", shown(entry.key));
            entry.value.mistyped::<()>("a table", Some(cure));
        }
    }
    Some(all)
}

fn read_sidecar(
    mut section: Section<'_>,
    processes: Option<&BTreeMap<String, Process>>,
) -> Option<SidecarCommand> {
    let command = match section.take("command") {
        Some(value) => read_command(&value),
        None => {
            section.missing("command", "add command = \"PROGRAM\"".into());
            None
        }
    };
    let names = section.take("processes").map(|list| read_names(&list, processes));
    let memory = section.take("memory").and_then(|value| {
        let memory = value.bytes(Bytes::mib(1), SIZE_MAX)?;
        let mine = |name: &str| names.as_ref().is_none_or(|all| all.iter().any(|it| it == name));
        let mut all = processes.into_iter().flatten();
        let small = all.find(|(name, it)| mine(name) && it.memory <= memory);
        if let Some((name, process)) = small {
            let text = format!("is as much as process `{name}` has, {}", process.memory);
            value.fail(text, "it is part of that: write less, or make `memory` of [run] larger");
        }
        Some(memory)
    });
    section.finish();
    Some(SidecarCommand { command: command?, processes: names.unwrap_or_default(), memory })
}

fn read_names(list: &Value<'_>, known: Option<&BTreeMap<String, Process>>) -> Vec<String> {
    let items = list.list(MOUNTS_MAX);
    if items.as_ref().is_some_and(Vec::is_empty) {
        list.fail("is empty", "remove it: then every process has the sidecar");
    }
    let mut names: Vec<String> = Vec::new();
    for item in items.unwrap_or_default() {
        let Some(name) = item.text(64) else { continue };
        if known.is_some_and(|known| !known.contains_key(name)) {
            let have: Vec<&str> = known.into_iter().flatten().map(|(name, _)| &**name).collect();
            let text = format!("there is no process `{}`", shown(name));
            item.place.fail(text, format!("declared: {}", have.join(", ")));
        } else if names.iter().any(|it| it == name) {
            item.place.fail(format!("process `{name}` is listed twice"), "remove one");
        } else {
            names.push(name.to_owned());
        }
    }
    names
}

/// Reads `[stop]`.
pub(super) fn read_stop(section: Option<Section<'_>>) -> StopWish {
    let Some(mut section) = section else { return StopWish::default() };
    let signal = section.take("signal").and_then(|value| {
        value.parsed(|text| {
            let number = signals::number(text).ok_or_else(|| {
                format!("`{}` is no signal; such as \"TERM\", \"INT\" or \"QUIT\"", shown(text))
            })?;
            match signals::halts(number) {
                false => Ok(number),
                true => Err(format!(
                    "`{}` only halts a process, which then could not end in good order; write \
                     \"TERM\", \"INT\" or \"QUIT\"",
                    shown(text)
                )),
            }
        })
    });
    let timeout = section.take("timeout").and_then(|it| it.time(Duration::ZERO, GRACE_MAX));
    section.finish();
    StopWish { signal, timeout }
}

/// Reads every `[[volume]]`.
pub(super) fn read_volumes(top: &mut Section<'_>, places: &mut Places) -> Vec<Volume> {
    let mut all: Vec<Volume> = Vec::new();
    for mut section in top.sections("volume", MOUNTS_MAX).unwrap_or_default() {
        let from = section.take("from");
        if from.is_none() {
            section.missing("from", "add from = \"/srv/DIRECTORY\", which is on the box".into());
        }
        let at = from.as_ref().map(|value| value.place.span());
        let from = from.and_then(|value| value.parsed(read_inner));
        let to = read_target(&mut section, "to", |path| all.iter().any(|it| it.to == path));
        let read_only = section.take("read_only").and_then(|it| it.truth()).unwrap_or(false);
        section.later(&["name", "mount", "quota", "snapshot", "freeze"]);
        section.finish();
        if let (Some(from), Some(to), Some(at)) = (from, to, at) {
            places.volumes.push(at);
            all.push(Volume { from: from.into(), to, read_only });
        }
    }
    all
}

/// Reads every `[[file]]`; relative sources start at `dir`.
pub(super) fn read_files(top: &mut Section<'_>, dir: &Path, places: &mut Places) -> Vec<FileMount> {
    let mut all: Vec<FileMount> = Vec::new();
    for mut section in top.sections("file", MOUNTS_MAX).unwrap_or_default() {
        let path = read_target(&mut section, "path", |path| all.iter().any(|it| it.path == path));
        let holds = read_holds(&mut section, dir, places);
        let mode = section.take("mode").map_or(Some(0o400), |value| value.parsed(read_mode));
        section.finish();
        if let (Some(path), Some(holds), Some(mode)) = (path, holds, mode) {
            all.push(FileMount { path, holds, mode });
        }
    }
    all
}

fn read_holds(section: &mut Section<'_>, dir: &Path, places: &mut Places) -> Option<Holds> {
    match (section.take("content"), section.take("source")) {
        (Some(_), Some(source)) => {
            let text = "a file has `content` or `source`, not both";
            source.place.fail(text, "remove one");
            None
        }
        (Some(content), None) => content.text(CONTENT_MAX).map(|it| Holds::Content(it.into())),
        (None, Some(source)) => {
            let path = dir.join(source.filled(4096)?).components().collect::<std::path::PathBuf>();
            places.files.push((path.clone(), source.place.span()));
            Some(Holds::Source(path))
        }
        (None, None) => {
            let cure = "add content = \"TEXT\", or source = \"FILE\", which is on the box";
            section.missing("content", cure.into());
            None
        }
    }
}

/// A path inside, for something that is mounted there.
fn read_target(
    section: &mut Section<'_>,
    key: &'static str,
    taken: impl Fn(&str) -> bool,
) -> Option<String> {
    let Some(value) = section.take(key) else {
        section.missing(key, format!("add {key} = \"/PATH\", which is in the container"));
        return None;
    };
    let path = value.parsed(read_inner)?;
    if taken(&path) {
        value.fail(format!("names {} for the second time", shown(&path)), "remove one");
        return None;
    }
    // Who its users are is looked up in what the image or the stack has there.
    let users = ["/etc/passwd", "/etc/group"];
    if let Some(file) = users.iter().find(|file| Path::new(file).starts_with(&path)) {
        let text = format!("would hide {file}, by which the container's users are known");
        value.fail(text, "name another path; users belong into the image or the stack");
        return None;
    }
    // What the container itself has there would be hidden, or nothing could be mounted.
    let own = ["/proc", "/sys", "/dev", "/tmp/lifecycle"];
    if let Some(own) = own.iter().find(|own| Path::new(&path).starts_with(own)) {
        value.fail(format!("lies in {own}, which is the container's own"), "name another path");
        return None;
    }
    Some(path)
}

/// An absolute path without `.`, `..` and surprises, that is not the root.
fn read_inner(text: &str) -> Result<String, String> {
    let path = Path::new(text);
    let mut parts = path.components();
    let rooted = parts.next() == Some(Component::RootDir);
    let plain = parts.all(|part| matches!(part, Component::Normal(_)));
    let dots = text.split('/').any(|part| part == "." || part == "..");
    match rooted && plain && !dots && path.file_name().is_some() && text.len() < 4096 {
        true => Ok(path.components().collect::<std::path::PathBuf>().display().to_string()),
        false => Err(format!(
            "`{}` is not a path for this; it is absolute, below `/`, and has no `..`",
            shown(text)
        )),
    }
}

/// Octal digits as chmod takes them, of a file that nobody writes or executes as another.
fn read_mode(text: &str) -> Result<u32, String> {
    let mode = u32::from_str_radix(text, 8).ok().filter(|_| (3..=4).contains(&text.len()));
    match mode.filter(|mode| mode & !0o777 == 0 && mode & 0o222 == 0) {
        Some(mode) => Ok(mode),
        None => Err(format!(
            "`{}` is not a mode; such as \"0400\", \"0444\" or \"0500\": nobody writes to it",
            shown(text)
        )),
    }
}
