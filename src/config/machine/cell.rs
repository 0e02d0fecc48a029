//! `[cell]`, `[stacks]`, `[self_check]`, `[pools]`: the counterparts of rep's flags.

use super::super::cursor::{Section, Value};
use super::super::words::{shown, word};
use super::net::all;
use super::read::{amount, number_or_auto, read_dirs, read_rootfs, set};
use super::{Amount, Paths};
use crate::unit::Bytes;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;
use toml::de::DeValue;

/// Most entries of one list.
const LIST_MAX: usize = 64;
/// Most paths of `rootfs`.
const ROOTFS_MAX: usize = 32;
/// Longest path, in bytes.
const PATH_MAX: usize = 4096;
/// Longest placement tag.
const TAG_MAX: usize = 63;
/// Most of one kind of work side by side.
const POOL_MAX: u32 = 256;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// What the box offers to apps, as a Diego cell would announce it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cell {
    /// Default: the host's name.
    pub name: String,
    /// Where it stands, for people; empty: nobody said.
    pub zone: String,
    /// Memory of all containers together; auto: what the host has.
    pub memory: Amount<Bytes>,
    /// Disk of all containers together; auto: what the store can hold.
    pub disk: Amount<Bytes>,
    /// How many containers at once; at most 16384, one for each network slot.
    pub containers: u32,
    /// How many halves of containers are made ahead.
    pub reserve: u32,
    /// Absolute paths that container records of another cell name as their rootfs, each with the
    /// stack that is meant.
    pub rootfs: Vec<(String, String)>,
    /// Directories whose subdirectories apps may have as volumes, and they themselves.
    pub volumes: Vec<PathBuf>,
    /// The longest time between two looks at everything; `None`: it is only looked when something
    /// has happened.
    pub polling_interval: Option<Duration>,
    /// The same while the cell is drained.
    pub evacuation_polling_interval: Duration,
    /// How long Tasks may go on when the cell is drained.
    pub evacuation_timeout: Duration,
    /// Who comes by a record has to ask for all of these tags.
    pub placement_tags: Vec<String>,
    /// And may ask for these.
    pub optional_placement_tags: Vec<String>,
    /// Shares of the processor that weight 100 stands for.
    pub cpu_shares_max: u32,
    /// Containers are told their addresses and ports.
    pub export_network_variables: bool,
    /// Where stagings work.
    pub temp_dir: PathBuf,
    /// The manifest directories are followed.
    pub apps: bool,
}

impl Cell {
    pub(super) fn defaults(host_name: &str, paths: &Paths) -> Cell {
        Cell {
            name: host_name.to_owned(),
            zone: String::new(),
            memory: Amount::Auto,
            disk: Amount::Auto,
            containers: 250,
            reserve: 2,
            rootfs: Vec::new(),
            volumes: vec![PathBuf::from("/srv")],
            polling_interval: Some(10 * MINUTE),
            evacuation_polling_interval: 10 * SECOND,
            evacuation_timeout: 10 * MINUTE,
            placement_tags: Vec::new(),
            optional_placement_tags: Vec::new(),
            cpu_shares_max: 1024,
            export_network_variables: true,
            temp_dir: paths.state.join("staging"),
            apps: true,
        }
    }

    pub(super) fn read(&mut self, mut section: Section<'_>, paths: &Paths) {
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
        let zone = |text: &str| match text {
            "" => Ok(String::new()),
            text => word("zone", text, 63),
        };
        set(&mut self.zone, section.take("zone").and_then(|it| it.parsed(zone)));
        let least = Bytes::mib(16);
        set(&mut self.memory, section.take("memory").and_then(|it| amount(&it, least)));
        set(&mut self.disk, section.take("disk").and_then(|it| amount(&it, least)));
        let containers = section.take("containers").and_then(|it| it.number(1, 16_384));
        set(&mut self.containers, containers.map(|number| number as u32));
        let reserve = section.take("reserve").and_then(|it| it.number(0, 16));
        set(&mut self.reserve, reserve.map(|number| number as u32));
        let rootfs = section.take("rootfs").and_then(|it| {
            it.list(ROOTFS_MAX)?.iter().map(|item| item.parsed(read_rootfs)).collect()
        });
        set(&mut self.rootfs, rootfs);
        set(&mut self.volumes, section.take("volumes").and_then(|it| read_dirs(&it)));
        self.read_times(&mut section);
        for (key, place) in [
            ("placement_tags", &mut self.placement_tags),
            ("optional_placement_tags", &mut self.optional_placement_tags),
        ] {
            let tag = |text: &str| word("tag", text, TAG_MAX);
            set(place, section.take(key).and_then(|it| all(&it, LIST_MAX, tag)));
        }
        if let Some(inodes) = section.take("inodes") {
            inodes.place.fail(
                "the store has no limit of inodes: btrfs makes them as they are needed",
                "remove it; each counts toward the `disk` of its container",
            );
        }
        let shares = section.take("cpu_shares_max").and_then(|it| it.number(100, 1 << 18));
        set(&mut self.cpu_shares_max, shares.map(|number| number as u32));
        let export = section.take("export_network_variables");
        set(&mut self.export_network_variables, export.and_then(|it| it.truth()));
        let temp = section.take("temp_dir").and_then(|it| it.parsed(|text| read_temp(text, paths)));
        set(&mut self.temp_dir, temp);
        set(&mut self.apps, section.take("apps").and_then(|it| it.truth()));
        section.finish();
    }

    fn read_times(&mut self, section: &mut Section<'_>) {
        let polling = section.take("polling_interval");
        set(&mut self.polling_interval, polling.and_then(|it| or_never(&it, SECOND, DAY)));
        let polling = section.take("evacuation_polling_interval");
        let polling = polling.and_then(|it| it.time(SECOND, 10 * MINUTE));
        set(&mut self.evacuation_polling_interval, polling);
        let timeout = section.take("evacuation_timeout");
        set(&mut self.evacuation_timeout, timeout.and_then(|it| it.time(Duration::ZERO, DAY)));
    }
}

/// A directory of our own below the one that was named: all in it is removed at each start.
fn read_temp(text: &str, paths: &Paths) -> Result<PathBuf, String> {
    match text {
        "auto" => Ok(paths.state.join("staging")),
        text => Ok(read_path(text)?.join("terrarium-staging")),
    }
}

/// An absolute path.
fn read_path(text: &str) -> Result<PathBuf, String> {
    match text.starts_with('/') && text.len() <= PATH_MAX {
        true => Ok(text.into()),
        false => Err(format!("`{}` is no absolute path; write \"/...\"", shown(text))),
    }
}

/// `"never"` or a time.
fn or_never(value: &Value<'_>, least: Duration, most: Duration) -> Option<Option<Duration>> {
    match value.inner {
        DeValue::String(text) if text == "never" => Some(None),
        _ => value.time(least, most).map(Some),
    }
}

/// Stacks beside those of the stacks' own directory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stacks {
    /// Archives, by the names of their stacks.
    pub preloaded: BTreeMap<String, PathBuf>,
}

impl Stacks {
    pub(super) fn read(&mut self, mut section: Section<'_>) {
        let stacks = section.take("preloaded").and_then(|it| all(&it, LIST_MAX, read_stack));
        set(&mut self.preloaded, stacks.map(|stacks| stacks.into_iter().collect()));
        section.finish();
    }
}

/// `name:/path`, as rep's preloadedRootFS.
fn read_stack(text: &str) -> Result<(String, PathBuf), String> {
    let (name, path) = text.split_once(':').ok_or_else(|| {
        let text = shown(text);
        format!("`{text}` names no archive; such as \"cflinuxfs4:/srv/cflinuxfs4.tar.zst\"")
    })?;
    let name = word("stack", name, 63)?;
    Ok((name, read_path(path)?))
}

/// How the box tries itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SelfCheck {
    /// From one check to the next while all is well; `None`: there is none at all.
    pub interval: Option<Duration>,
    /// The same while it is not.
    pub unhealthy_interval: Duration,
    /// The longest time that one may take.
    pub timeout: Duration,
}

impl SelfCheck {
    pub(super) fn defaults() -> SelfCheck {
        SelfCheck {
            interval: Some(10 * MINUTE),
            unhealthy_interval: 30 * SECOND,
            timeout: 10 * MINUTE,
        }
    }

    pub(super) fn read(&mut self, mut section: Section<'_>) {
        let interval = section.take("interval");
        set(&mut self.interval, interval.and_then(|it| or_never(&it, SECOND, DAY)));
        let unhealthy = section.take("unhealthy_interval").and_then(|it| it.time(SECOND, DAY));
        set(&mut self.unhealthy_interval, unhealthy);
        let timeout = section.take("timeout").and_then(|it| it.time(SECOND, 60 * MINUTE));
        set(&mut self.timeout, timeout);
        section.finish();
    }
}

/// How much is done side by side; auto: by the number of processors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pools {
    /// Containers in the making.
    pub create: Amount<u32>,
    /// Containers in their removal.
    pub delete: Amount<u32>,
    /// Files that are read out of containers.
    pub read: Amount<u32>,
    /// Looks at what containers use.
    pub metrics: Amount<u32>,
    /// Health probes.
    pub health: Amount<u32>,
}

impl Pools {
    pub(super) fn defaults() -> Pools {
        let [create, delete, read, metrics, health] = [Amount::Auto; 5];
        Pools { create, delete, read, metrics, health }
    }

    pub(super) fn read(&mut self, mut section: Section<'_>) {
        for (key, place) in [
            ("create", &mut self.create),
            ("delete", &mut self.delete),
            ("read", &mut self.read),
            ("metrics", &mut self.metrics),
            ("health", &mut self.health),
        ] {
            set(place, section.take(key).and_then(|it| number_or_auto(&it, 1, POOL_MAX)));
        }
        section.finish();
    }
}
