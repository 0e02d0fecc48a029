//! The keys of `terrarium.toml`, their types and limits.

use super::super::Diagnostics;
use super::super::cursor::{Section, Value};
use super::super::sink::walk;
use super::super::words::{shown, word};
use super::{Amount, Cell, Cleanup, Config, Log};
use crate::log::Level;
use crate::unit::Bytes;
use toml::de::DeValue;

impl Config {
    /// Replaces what `text` names. On an error nothing useful is left in `self`.
    pub(super) fn apply(&mut self, text: &str, file: &str) -> Result<(), Diagnostics> {
        walk(text, file, |top| {
            self.read(top);
            Some(())
        })
    }

    pub(super) fn read(&mut self, mut top: Section<'_>) {
        if let Some(section) = top.section("cell") {
            self.cell.read(section);
        }
        if let Some(mut section) = top.section("store") {
            let size = section.take("size_max");
            set(&mut self.store.size_max, size.and_then(|it| amount(&it, Bytes::mib(128))));
            let images = section.take("images_max");
            set(&mut self.store.images_max, images.and_then(|it| read_images(&it)));
            set(&mut self.store.quotas, section.take("quotas").and_then(|it| it.truth()));
            section.finish();
        }
        if let Some(mut section) = top.section("downloads") {
            let size = section.take("size");
            let (least, most) = (Bytes::mib(1), Bytes::mib(1 << 20));
            set(&mut self.downloads.size, size.and_then(|it| it.bytes(least, most)));
            section.finish();
        }
        if let Some(section) = top.section("net") {
            self.net.read(section);
        }
        if let Some(mut section) = top.section("cgroup") {
            let parent = section.take("parent");
            set(
                &mut self.cgroup.parent,
                parent.and_then(|it| it.parsed(|text| word("name", text, 32))),
            );
            section.finish();
        }
        if let Some(section) = top.section("garden") {
            self.garden.read(section, &self.paths, self.net.ports);
        }
        if let Some(section) = top.section("registry") {
            self.registry.read(section, &self.paths);
        }
        if let Some(section) = top.section("log") {
            self.log.read(section);
        }
        if let Some(mut section) = top.section("socket") {
            let group = section.take("group");
            set(
                &mut self.socket.group,
                group.and_then(|it| it.parsed(|text| word("name", text, 32))),
            );
            let mode = section.take("mode");
            set(&mut self.socket.mode, mode.and_then(|it| it.parsed(read_mode)));
            section.finish();
        }
        top.finish();
    }
}

impl Cell {
    fn read(&mut self, mut section: Section<'_>) {
        if let Some(value) = section.take("name") {
            let host_name = self.name.clone();
            set(
                &mut self.name,
                value.parsed(|text| match text {
                    "auto" => Ok(host_name),
                    _ => word("name", text, 63),
                }),
            );
        }
        let least = Bytes::mib(16);
        set(&mut self.memory, section.take("memory").and_then(|it| amount(&it, least)));
        set(&mut self.disk, section.take("disk").and_then(|it| amount(&it, least)));
        let containers = section.take("containers").and_then(|it| it.number(1, 16_384));
        set(&mut self.containers, containers.map(|number| number as u32));
        section.finish();
    }
}

impl Log {
    fn read(&mut self, mut section: Section<'_>) {
        let levels = [("info", Level::Info), ("warn", Level::Warn), ("error", Level::Error)];
        set(&mut self.level, section.take("level").and_then(|it| it.one_of(&levels)));
        let bytes = section.take("app_bytes");
        let (least, most) = (Bytes::new(64 << 10), Bytes::mib(1024));
        set(&mut self.app_bytes, bytes.and_then(|it| it.bytes(least, most)));
        let files = section.take("app_files").and_then(|it| it.number(1, 16));
        set(&mut self.app_files, files.map(|number| number as u32));
        set(&mut self.rate, section.take("rate").and_then(|it| it.parsed(str::parse)));
        set(&mut self.rate_lines, section.take("rate_lines").and_then(|it| read_lines(&it)));
        set(&mut self.journal, section.take("journal").and_then(|it| it.truth()));
        section.finish();
    }
}

/// `"auto"` or a size of at least `least`.
fn amount(value: &Value<'_>, least: Bytes) -> Option<Amount<Bytes>> {
    match value.inner {
        DeValue::String(text) if text == "auto" => Some(Amount::Auto),
        _ => value.bytes(least, Bytes::mib(64 << 20)).map(Amount::Fixed),
    }
}

/// `"auto"`, `"never"` or a size.
fn read_images(value: &Value<'_>) -> Option<Amount<Cleanup>> {
    match value.inner {
        DeValue::String(text) if text == "never" => Some(Amount::Fixed(Cleanup::Never)),
        _ => match amount(value, Bytes::new(0))? {
            Amount::Auto => Some(Amount::Auto),
            Amount::Fixed(bytes) => Some(Amount::Fixed(Cleanup::Above(bytes))),
        },
    }
}

/// `"none"` or a number of lines.
fn read_lines(value: &Value<'_>) -> Option<Option<u32>> {
    match value.inner {
        DeValue::String(text) if text == "none" => Some(None),
        _ => value.number(1, 1_000_000).map(|number| Some(number as u32)),
    }
}

/// `"auto"` or a whole number from `min` to `max`.
pub(super) fn number_or_auto(value: &Value<'_>, min: u32, max: u32) -> Option<Amount<u32>> {
    match value.inner {
        DeValue::String(text) if text == "auto" => Some(Amount::Auto),
        _ => {
            let number = value.number(min.into(), max.into())?;
            Some(Amount::Fixed(number as u32))
        }
    }
}

/// Octal digits as chmod takes them; the owner can always use the socket.
fn read_mode(text: &str) -> Result<u32, String> {
    let mode = u32::from_str_radix(text, 8).ok().filter(|_| text.len() == 4);
    match mode.filter(|mode| mode & 0o600 == 0o600 && mode & !0o666 == 0) {
        Some(mode) => Ok(mode),
        None => Err(format!("`{}` is not a mode; such as \"0660\" or \"0600\"", shown(text))),
    }
}

/// Replaces a default by what was read, if it was good.
pub(super) fn set<T>(place: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *place = value;
    }
}
