//! What the reading verbs and the local API show: the JSON of `--json`. Fields are only ever added.

use crate::unit::AppName;
use serde::{Deserialize, Serialize};

/// One app.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppView {
    /// Its name.
    pub name: AppName,
    /// `staging`, `starting`, `waiting` (for room), `running`, `finished`, `crashed`, `stopping`,
    /// `stopped`, `failed`, `deleting`.
    pub state: String,
    /// Why the last staging failed, for a person; an older version may run all the same.
    pub reason: Option<String>,
    /// The buildpack that staged it.
    pub buildpack: Option<String>,
    /// The stack it runs on; empty for an app from an image.
    pub stack: String,
    /// The image that it comes as, with its digest once that is known.
    #[serde(default)]
    pub image: Option<String>,
    /// The manifest it came from.
    pub manifest: String,
    /// It belongs to a `run` and goes with it.
    #[serde(default)]
    pub temporary: bool,
    /// Its processes.
    pub processes: Vec<ProcessView>,
}

/// The process that is meant when none is named: `web`, or the only one.
pub fn meant(app: &AppView) -> Result<String, String> {
    let names: Vec<&str> = app.processes.iter().map(|process| process.name.as_str()).collect();
    match names[..] {
        [only] => Ok(only.to_owned()),
        _ if names.contains(&"web") => Ok("web".to_owned()),
        _ => Err(format!("which process of {} is meant is not clear", app.name)),
    }
}

/// The box that apps run on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BoxView {
    /// Free space of the disk that everything of ours is on, in bytes.
    pub disk_free_bytes: u64,
    /// Its size.
    pub disk_total_bytes: u64,
    /// What apps can still write before the store has to grow, in bytes.
    pub store_free_bytes: u64,
    /// What is wrong with it and how to mend it, for a person; empty: nothing is.
    pub problems: Vec<String>,
    /// Containers of Garden's clients.
    #[serde(default)]
    pub garden: GardenView,
}

/// Containers of Garden's clients.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GardenView {
    /// How many there are.
    pub count: usize,
    /// The first of them by handle, as many as were asked for.
    pub containers: Vec<ContainerView>,
}

/// One container of a Garden client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerView {
    /// What its client calls it: any text.
    pub handle: String,
    /// Its name in the depot, and of its control group.
    pub name: String,
    /// `active`, `stopped` once somebody has stopped it, or `lost`: it lives, and the daemon cannot
    /// talk to it at the moment.
    pub state: String,
    /// When it was made, in milliseconds since 1970.
    pub since_ms: u64,
    /// Its address; `-`: not known.
    pub address: String,
    /// Processes of clients that run in it.
    pub processes: usize,
    /// Memory in use, in bytes.
    pub memory_bytes: Option<u64>,
    /// Memory limit, in bytes; `None`: it has none.
    pub memory_limit_bytes: Option<u64>,
}

/// One process type of an app.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessView {
    /// `web`, `worker`.
    pub name: String,
    /// Instances wanted.
    pub desired: u32,
    /// Instances that passed their health check.
    pub running: u32,
    /// Memory limit of each, in bytes.
    pub memory_bytes: u64,
    /// Disk limit of each, in bytes.
    pub disk_bytes: u64,
    /// The command that starts it.
    pub command: String,
    /// Every instance, by index.
    pub instances: Vec<InstanceView>,
}

impl ProcessView {
    /// Instances that run, or have done what they were to do.
    pub fn settled(&self) -> u32 {
        let finished = self.instances.iter().filter(|one| one.state == "finished").count();
        self.running + finished as u32
    }
}

/// One instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceView {
    /// From 0.
    pub index: u32,
    /// `unclaimed`, `waiting` (for room), `starting`, `running`, `finished`, `crashed`.
    pub state: String,
    /// When it entered that state, in milliseconds since 1970.
    pub since_ms: u64,
    /// Crashes in a row.
    pub crash_count: u32,
    /// Why it crashed last, or how it finished.
    pub crash_reason: Option<String>,
    /// What the box lacks for it, while it waits.
    #[serde(default)]
    pub placement_error: Option<String>,
    /// Its container, when it has one.
    pub handle: Option<String>,
    /// The container's address.
    pub address: Option<String>,
    /// Its ports.
    pub ports: Vec<PortView>,
    /// Memory in use, in bytes.
    pub memory_bytes: Option<u64>,
    /// Disk in use, in bytes.
    pub disk_bytes: Option<u64>,
    /// Processor time used, in nanoseconds.
    pub cpu_ns: Option<u64>,
}

/// One port of an instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortView {
    /// Inside the container.
    pub container: u16,
    /// This instance's own port on the box.
    pub host: u16,
    /// The app's port on the box, in front of all running instances.
    pub publish: Option<u16>,
}

/// One line of an app's log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    /// When it was read, in milliseconds since 1970.
    pub time_ms: u64,
    /// `STG`, `APP/PROC/WEB`, `CELL`, `HEALTH`, `API`.
    pub source: String,
    /// Instance index; staging has 0.
    pub index: u32,
    /// `true`: stderr.
    pub err: bool,
    /// The text without its newline.
    pub text: String,
}

/// The body of every error answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorView {
    /// `not_found`, `invalid`, `not_running`, `conflict`, `failed`.
    pub kind: String,
    /// What was tried, on which object, why it failed and how to mend it.
    pub message: String,
}
