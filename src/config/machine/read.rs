//! The keys of `terrarium.toml`, their types and limits.

use super::super::Diagnostics;
use super::super::address::endpoint;
use super::super::cursor::{Section, Value};
use super::super::sink::walk;
use super::super::words::{shown, word};
use super::registry::read_path;
use super::{Amount, Cleanup, Config, Log};
use crate::log::Level;
use crate::unit::Bytes;
use std::net::SocketAddr;
use std::path::PathBuf;
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
            self.cell.read(section, &self.paths);
        }
        if let Some(section) = top.section("stacks") {
            self.stacks.read(section);
        }
        if let Some(section) = top.section("self_check") {
            self.self_check.read(section);
        }
        if let Some(section) = top.section("health") {
            self.health.read(section);
        }
        if let Some(section) = top.section("tasks") {
            self.tasks.read(section);
        }
        if let Some(section) = top.section("pools") {
            self.pools.read(section);
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
            let (dir, auto) = (section.take("dir"), self.paths.downloads());
            let dir = dir.and_then(|it| {
                // One of our own: what is in it and not known is removed at each start.
                let own = |path: PathBuf| match path == auto {
                    true => path,
                    false => path.join("terrarium-downloads"),
                };
                it.parsed(|text| read_path(text, &auto).map(own))
            });
            set(&mut self.downloads.dir, dir);
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
        if let Some(mut section) = top.section("metrics") {
            let listen = section.take("listen");
            let listen = listen.and_then(|it| it.parsed(read_listen));
            set(&mut self.metrics.listen, listen);
            section.finish();
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
        if let Some(section) = top.section("bridge") {
            self.bridge.read(section, &self.paths);
        }
        if let Some(section) = top.section("bbs") {
            self.bbs.read(section);
        }
        if let Some(section) = top.section("cloud_controller") {
            self.cloud_controller.read(section);
        }
        top.finish();
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
        set(&mut self.journal, section.take("journal").and_then(|it| read_journal(&it)));
        section.finish();
    }
}

/// Absolute directories.
pub(super) fn read_dirs(value: &Value<'_>) -> Option<Vec<PathBuf>> {
    let items = value.list(64)?;
    let dir = |item: &Value<'_>| {
        item.parsed(|text| match text.starts_with('/') && !text.contains("..") {
            true => Ok(PathBuf::from(text)),
            false => Err(format!("`{}` is not absolute; such as \"/srv\"", shown(text))),
        })
    };
    items.iter().map(dir).collect()
}

/// `"auto"`, `true` or `false`.
fn read_journal(value: &Value<'_>) -> Option<Amount<bool>> {
    match value.inner {
        DeValue::String(text) if text == "auto" => Some(Amount::Auto),
        DeValue::Boolean(truth) => Some(Amount::Fixed(*truth)),
        _ => value.mistyped("\"auto\", true or false", None),
    }
}

/// `"auto"` or a size of at least `least`.
pub(super) fn amount(value: &Value<'_>, least: Bytes) -> Option<Amount<Bytes>> {
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

/// `STACK:/PATH`, as path and stack.
pub(super) fn read_rootfs(text: &str) -> Result<(String, String), String> {
    match text.split_once(':') {
        Some((stack, path)) if path.starts_with('/') => {
            Ok((path.to_owned(), word("stack", stack, 63)?))
        }
        _ => Err(format!(
            "`{}` names no stack and path; such as \"cflinuxfs2:/var/vcap/packages/rootfs\"",
            shown(text)
        )),
    }
}

/// An address of this box that no other machine reaches; empty: nowhere.
pub(super) fn read_listen(text: &str) -> Result<Option<SocketAddr>, String> {
    match endpoint(text)? {
        Some(address) if !address.ip().is_loopback() => Err(format!(
            "`{address}` can be reached from other machines, without a password; write 127.0.0.1"
        )),
        address => Ok(address),
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
