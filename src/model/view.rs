//! What the reading verbs and the local API show: the JSON of `--json`. Fields are only ever added.

use super::death::Death;
use crate::unit::{AppName, Percent};
use serde::{Deserialize, Serialize};

/// One app.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppView {
    /// Its name.
    pub name: AppName,
    /// `staging`, `starting`, `waiting` (for room or another app), `running`, `finished`, `crashed`, `stopping`,
    /// `stopped`, `failed`, `deleting`.
    pub state: String,
    /// Why the last version could not be staged, or never ran, for a person; an older version may run
    /// all the same.
    pub reason: Option<String>,
    /// The buildpack that staged it.
    pub buildpack: Option<String>,
    /// The stack it runs on; empty for an app from an image.
    pub stack: String,
    /// The image that it comes as, with its digest once that is known.
    #[serde(default)]
    pub image: Option<String>,
    /// The manifest's file; empty: it was pushed, and there is none.
    pub manifest: String,
    /// Why that is not followed as it is now, `FILE:LINE:COLUMN: REASON`; what runs is what it said before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
    /// What was pushed: a directory, an archive of one, or an image's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pushed: Option<String>,
    /// It belongs to a `run` and goes with it.
    #[serde(default)]
    pub temporary: bool,
    /// Ports of the box that no other app may have, whether it runs or not; in the order of its manifest, that
    /// of its SSH servers last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub claims: Vec<u16>,
    /// Those of them that its manifest, as it was declared last, publishes in front of its own ports: that of its
    /// SSH servers is none of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub published: Vec<u16>,
    /// How to come in with SSH, if its manifest lets anybody in.
    #[serde(default)]
    pub ssh: Option<SshView>,
    /// Its processes.
    pub processes: Vec<ProcessView>,
}

/// What an app was pushed from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pushed {
    /// As people call it: a directory, an archive, an image's name.
    pub what: String,
    /// There was no manifest with it.
    pub is_bare: bool,
}

/// The SSH servers of an app.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SshView {
    /// Who comes in runs as this user.
    pub user: String,
    /// Port of the box in front of all instances, if one is published.
    pub publish: Option<u16>,
    /// Port inside each container, for the instances' own host ports.
    pub container: u16,
    /// The host key as clients keep it: `TYPE BASE64`.
    pub host_key: String,
    /// Its fingerprint: `SHA256:` and base64.
    pub fingerprint: String,
}

/// What an app has run, to go back to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevisionView {
    /// Counted from 1.
    pub revision: u64,
    /// It is what the app runs.
    pub current: bool,
    /// When it took over, in milliseconds since 1970.
    pub made_ms: u64,
    /// What had been asked for: `apply`, `push`, `restage`, `rollback to 2`.
    pub why: String,
    /// What has become of it: `healthy`, once at least; `failed`, and never healthy; `unproven`, neither.
    #[serde(default)]
    pub health: String,
    /// Why it has failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
    /// What is other than in the revision before, as far as that is kept: `image`, `droplet`, or keys of the
    /// manifest.
    #[serde(default)]
    pub changed: Vec<String>,
    /// Digest of the droplet's layer, or of the image.
    pub droplet: String,
    /// The image, by the name that was asked for.
    pub image: Option<String>,
    /// The text of its manifest; empty: it was longer than is kept.
    pub manifest: String,
}

/// The process that is meant when none is named: `web`, or the only one. What a droplet brings beside those
/// that the manifest names does not change what is meant.
pub fn meant(app: &AppView) -> Result<String, String> {
    let unclear = || format!("which process of {} is meant is not clear", app.name);
    meant_of(&app.processes).map(str::to_owned).ok_or_else(unclear)
}

fn meant_of(processes: &[ProcessView]) -> Option<&str> {
    let is_declared = processes.iter().any(|process| !process.added);
    let all = processes.iter().filter(|process| !process.added || !is_declared);
    let names: Vec<&str> = all.map(|process| process.name.as_str()).collect();
    match names[..] {
        [only] => Some(only),
        _ => names.contains(&"web").then_some("web"),
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
    /// The cell: what it has to give away, and how it stands.
    #[serde(default)]
    pub cell: CellView,
    /// Tasks, stagings among them.
    #[serde(default)]
    pub tasks: TasksView,
}

/// The cell as a Diego cell would tell of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CellView {
    /// What it is called.
    pub id: String,
    /// Where it stands; empty: nobody said.
    pub zone: String,
    /// What it has, what is booked of it, and what is left.
    pub capacity: CapacityView,
    /// `healthy`, `unhealthy`, or `unknown` before it has first tried itself.
    pub check: String,
    /// It is drained, or on its way there.
    pub drain: Option<DrainView>,
    /// Containers that do not go, with all that they keep.
    pub stuck: Vec<StuckView>,
    /// How much is done side by side.
    pub pools: Vec<PoolView>,
}

/// What there is for containers, by what they were promised and not by what they use.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CapacityView {
    /// All.
    pub total: AmountView,
    /// Booked.
    pub taken: AmountView,
    /// Still to be had.
    pub left: AmountView,
}

/// An amount of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AmountView {
    /// Memory, in bytes.
    pub memory_bytes: u64,
    /// Disk of the store, in bytes.
    pub disk_bytes: u64,
    /// Containers.
    pub containers: u32,
}

/// A cell that is drained.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrainView {
    /// `draining`, or `drained` when nothing is left.
    pub state: String,
    /// When somebody asked for it, in milliseconds since 1970.
    pub since_ms: u64,
    /// What has not ended, for a person.
    pub left: Vec<String>,
}

/// A container that does not go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StuckView {
    /// Its handle.
    pub handle: String,
    /// The step that refuses, and why.
    pub reason: String,
    /// Since when, in milliseconds since 1970.
    pub since_ms: u64,
    /// How often it was tried.
    pub tries: u32,
    /// Memory that stays booked, in bytes.
    pub memory_bytes: u64,
    /// Disk that stays booked, in bytes.
    pub disk_bytes: u64,
}

/// How much of one kind of work goes on side by side.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolView {
    /// As in `[pools]`.
    pub name: String,
    /// At most so many.
    pub size: u32,
    /// So many now.
    pub busy: u32,
    /// So many at most since the daemon began.
    pub peak: u32,
}

/// How many Tasks stand where.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TasksView {
    /// Not begun.
    pub pending: usize,
    /// Begun.
    pub running: usize,
    /// Ended, and remembered for a while.
    pub completed: usize,
}

/// One Task, as far as a person is shown it; `--json` has all of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TaskView {
    /// What it was asked for by.
    pub task_guid: String,
    /// Groups Tasks.
    pub domain: String,
    /// `PENDING`, `RUNNING`, `COMPLETED`, `RESOLVING`.
    pub state: String,
    /// What its container is made of.
    pub rootfs: String,
    /// Who works on it.
    pub cell_id: String,
    /// When it was asked for, in nanoseconds since 1970.
    pub created_at: u64,
    /// It ended without success.
    pub failed: bool,
    /// Why.
    pub failure_reason: String,
    /// What was in its result file.
    pub result: String,
    /// How often it could not be begun.
    pub rejection_count: u32,
    /// Why not, the last time.
    pub rejection_reason: String,
    /// What `logs` calls its log; empty: it has none.
    pub log_name: String,
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
    /// The manifest does not name it: a droplet has it, or has had it.
    #[serde(default)]
    pub added: bool,
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
    /// From 0. Twice, while a new version takes over from an old one.
    pub index: u32,
    /// It is of an older version, and goes once a new one is healthy.
    #[serde(default)]
    pub outdated: bool,
    /// `unclaimed`, `waiting` (for room or another app), `starting`, `running`, `finished`, `crashed`.
    pub state: String,
    /// When it entered that state, in milliseconds since 1970.
    pub since_ms: u64,
    /// Crashes in a row.
    pub crash_count: u32,
    /// Why it crashed last, or how it finished.
    pub crash_reason: Option<String>,
    /// How it ended last, whether that was a crash or not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub death: Option<Death>,
    /// How long it has been running, in milliseconds, while it does.
    #[serde(default)]
    pub uptime_ms: Option<u64>,
    /// What the box lacks for it, or which app it needs, while it waits.
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
    /// Processor time since it was measured last, in percent of one processor; `None`: it was not.
    #[serde(default)]
    pub cpu_percent: Option<Percent>,
    /// Processes and threads.
    #[serde(default)]
    pub pids: Option<u64>,
    /// Whether its readiness check leads connections to it; `None`: it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready: Option<bool>,
    /// What that check has said last, while it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unready: Option<String>,
}

/// How the line of an app's log begins that tells of a declaration which changes nothing.
pub const UNCHANGED: &str = "Nothing changed";

/// How the reason of an app begins that went back to the version before.
pub const ROLLED_BACK: &str = "the new version failed: ";

/// What precedes all that the box has, in the reason of one that asks for more than that.
pub const WHOLE_BOX: &str = "the whole box has: ";
/// What can be done for such a one.
pub const TOO_LARGE_CURE: &str = "ask for less, or raise [cell] of terrarium.toml";
/// What can be done for one that does not fit beside the others.
pub const NO_ROOM_CURE: &str =
    "stop, delete or scale down an app, or raise [cell] of terrarium.toml";

/// What an instance is told that the cell does not take: it is drained, or ill.
pub const NO_CELL: &str = "unable to communicate to compatible cells";
/// How reasons begin and end that name another app.
const NEEDS: &str = "needs app ";
const STARTS_AFTER: &str = "starts after app ";
const NOT_YET: &str = ", which does not run yet";

/// Why an app waits that needs `other`, which `why`: `is stopped; start it`.
pub fn needs(other: &AppName, why: &str) -> String {
    format!("{NEEDS}{other}, which {why}")
}

/// Why an app waits for `other`, which is about to run. `needed`: without it it does not start.
pub fn waits_for(other: &AppName, needed: bool) -> String {
    format!("{}{other}{NOT_YET}", if needed { NEEDS } else { STARTS_AFTER })
}

impl InstanceView {
    /// It waits for another app, and not for room.
    pub fn waits_for_app(&self) -> bool {
        let why = self.placement_error.as_deref().unwrap_or("");
        why.starts_with(NEEDS) || why.starts_with(STARTS_AFTER)
    }

    /// It waits for room: neither for another app nor for a cell that starts things again, and not in
    /// vain.
    pub fn waits_for_room(&self) -> bool {
        let why = self.placement_error.as_deref().unwrap_or("");
        !self.waits_for_app() && !why.starts_with(NO_CELL) && !self.is_too_large()
    }

    /// It asks for more than the whole box has, and waits in vain.
    pub fn is_too_large(&self) -> bool {
        !self.waits_for_app() && self.placement_error.iter().any(|why| why.contains(WHOLE_BOX))
    }

    /// It waits for an app that is about to run.
    pub fn waits_for_start(&self) -> bool {
        self.waits_for_app() && self.placement_error.iter().any(|why| why.ends_with(NOT_YET))
    }
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

impl LogLine {
    /// Whether it is of this source, or of one below it.
    pub fn is_below(&self, source: &str) -> bool {
        is_below(&self.source, source)
    }

    /// Whether an instance of this process type has said it.
    pub fn is_of(&self, process: &str) -> bool {
        self.source.rsplit('/').next() == Some(&process.to_uppercase())
    }
}

/// Whether a log source is `other`, in any case, or below it: `APP/PROC/WEB` is below `app`.
pub fn is_below(source: &str, other: &str) -> bool {
    source.split_at_checked(other.len()).is_some_and(|(head, rest)| {
        head.eq_ignore_ascii_case(other) && (rest.is_empty() || rest.starts_with('/'))
    })
}

/// The body of every error answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorView {
    /// `not_found`, `invalid`, `not_running`, `conflict`, `failed`.
    pub kind: String,
    /// What was tried, on which object, why it failed and how to mend it.
    pub message: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_droplet_brings_does_not_change_which_process_is_meant() {
        let all = |processes: &[(&str, bool)]| {
            let process = |&(name, added): &(&str, bool)| {
                let text = format!(
                    r#"{{"name":"{name}","desired":0,"running":0,"memory_bytes":0,"disk_bytes":0,
                    "command":"","instances":[],"added":{added}}}"#
                );
                serde_json::from_str::<ProcessView>(&text).expect("a process")
            };
            processes.iter().map(process).collect::<Vec<_>>()
        };
        for (processes, wanted) in [
            (&[("worker", false), ("web", true)][..], Some("worker")),
            (&[("clock", true), ("worker", false)], Some("worker")),
            (&[("a", false), ("web", false), ("z", true)], Some("web")),
            (&[("a", false), ("b", false), ("web", true)], None),
            (&[("web", true), ("z", true)], Some("web")),
        ] {
            assert_eq!(meant_of(&all(processes)), wanted, "{processes:?}");
        }
    }
}
