//! A Task: work that is done at most once, such as staging.

use super::action::Action;
use super::egress::Rule;
use super::extras::Extras;
use super::limits::Limits;
use crate::unit::{AppName, BadImageRef, Digest, ImageRef};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Longest failure or rejection reason, in bytes.
pub const REASON_MAX: usize = 1024;
/// Longest annotation, in bytes.
pub const ANNOTATION_MAX: usize = 10 << 10;
/// Longest guid, in bytes.
pub const GUID_MAX: usize = 255;
/// Domain of stagings.
pub const STAGING: &str = "cf-app-staging";

/// What a Task is to do and in which container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    /// `staging-<app>-<n>`, or what its client calls it: letters, digits, `_` and `-`.
    pub guid: String,
    /// The app it works for, or a name that is made of the guid: its log's, and part of its
    /// container's.
    pub app: AppName,
    /// Groups Tasks; never read.
    pub domain: String,
    /// What its container is made of.
    pub rootfs: Rootfs,
    /// Limits of the container.
    pub limits: Limits,
    /// What it may reach.
    pub egress: Vec<Rule>,
    /// Environment of the container: between the image's and each action's own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<(String, String)>,
    /// What to do.
    pub action: Action,
    /// Log source of whatever names none.
    pub log_source: String,
    /// Nothing of it is logged.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub silent: bool,
    /// Our own programs are at /tmp/lifecycle: a Task of this box's own, which a part of the daemon
    /// waits for. It ends with the daemon, and nothing else begins it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub internal: bool,
    /// File in the container that becomes the result; empty: there is none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub result_file: String,
    /// Who is told of the end; empty: nobody.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub completion_callback_url: String,
    /// Its client's own words.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub annotation: String,
    /// What else it asks for.
    #[serde(default, skip_serializing_if = "Extras::is_none")]
    pub extras: Extras,
    /// All of it as its client wrote it, without what is secret, JSON; empty: of this box's own.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub source: String,
}

/// What a container's root is made of: a URL with a scheme.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Rootfs {
    /// `preloaded:NAME`.
    Stack(String),
    /// `docker:///repository#tag`, `docker://host/repository#tag`.
    Image(ImageRef),
    /// `app:NAME#DIGEST,DIGEST`: what an app of this box is made of, its layers, lowest first.
    App(AppName, Vec<Digest>),
}

impl FromStr for Rootfs {
    type Err = String;
    fn from_str(text: &str) -> Result<Rootfs, String> {
        match text.split_once(':') {
            Some(("preloaded", name)) if is_plain(name, 100) => Ok(Rootfs::Stack(name.into())),
            Some(("app", rest)) => {
                let (name, layers) = rest.split_once('#').ok_or("it names no layers")?;
                let name = name.parse().map_err(|err| format!("{err}"))?;
                let layers = layers.split(',').map(str::parse::<Digest>);
                let layers: Result<Vec<_>, _> = layers.collect();
                Ok(Rootfs::App(name, layers.map_err(|err| format!("{err}"))?))
            }
            Some(("docker", _)) => {
                text.parse().map(Rootfs::Image).map_err(|err: BadImageRef| err.to_string())
            }
            _ => Err(format!(
                "`{}` is no rootfs; write preloaded:STACK or docker:///REPOSITORY#TAG",
                text.escape_default()
            )),
        }
    }
}

impl TryFrom<String> for Rootfs {
    type Error = String;
    fn try_from(text: String) -> Result<Rootfs, String> {
        text.parse()
    }
}

impl From<Rootfs> for String {
    fn from(rootfs: Rootfs) -> String {
        rootfs.to_string()
    }
}

impl fmt::Display for Rootfs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Rootfs::Stack(name) => write!(f, "preloaded:{name}"),
            Rootfs::App(name, layers) => {
                let layers: Vec<String> = layers.iter().map(Digest::to_string).collect();
                write!(f, "app:{name}#{}", layers.join(","))
            }
            Rootfs::Image(name) => {
                write!(f, "docker://{}/{}", name.host().unwrap_or_default(), name.repository(""))?;
                match (name.digest(), name.has_tag()) {
                    (Some(digest), true) => write!(f, "#{}@{digest}", name.tag()),
                    (Some(digest), false) => write!(f, "#{digest}"),
                    (None, true) => write!(f, "#{}", name.tag()),
                    (None, false) => Ok(()),
                }
            }
        }
    }
}

/// Where a Task stands, named as in the BBS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum TaskState {
    /// Nobody works on it yet.
    Pending,
    /// Somebody does, and nobody else ever will.
    Running,
    /// It has ended; whoever wants to know is told.
    Completed,
    /// He is being told.
    Resolving,
}

impl TaskState {
    /// All of them.
    pub const ALL: [TaskState; 4] =
        [TaskState::Pending, TaskState::Running, TaskState::Completed, TaskState::Resolving];
}

impl fmt::Display for TaskState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TaskState::Pending => "PENDING",
            TaskState::Running => "RUNNING",
            TaskState::Completed => "COMPLETED",
            TaskState::Resolving => "RESOLVING",
        })
    }
}

/// A Task and how far it is. Times in nanoseconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskRecord {
    /// What was asked for.
    pub task: Task,
    /// Where it stands.
    pub state: TaskState,
    /// Who works on it; empty: nobody.
    pub cell_id: String,
    /// When it was asked for.
    pub created_at: u64,
    /// When it was changed last.
    pub updated_at: u64,
    /// When it first ended; 0: it has not.
    pub first_completed_at: u64,
    /// It ended without success.
    pub failed: bool,
    /// Why, at most [`REASON_MAX`] bytes.
    pub failure_reason: String,
    /// What was in its result file.
    pub result: String,
    /// How often its container could not be made, or had no room.
    pub rejection_count: u32,
    /// Why not, the last time; at most [`REASON_MAX`] bytes.
    pub rejection_reason: String,
}

/// A definition that is not valid: the field's name in the record's JSON.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidField(pub &'static str);

impl fmt::Display for InvalidField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Invalid field: {}", self.0)
    }
}

impl std::error::Error for InvalidField {}

impl Task {
    /// One of which no more is said: a client's, without limits, with nothing that it may reach.
    pub fn new(guid: &str, domain: &str, rootfs: Rootfs, action: Action) -> Task {
        Task {
            guid: guid.to_owned(),
            app: task_name(guid),
            domain: domain.to_owned(),
            rootfs,
            limits: Limits::default(),
            egress: Vec::new(),
            env: Vec::new(),
            action,
            log_source: String::new(),
            silent: false,
            internal: false,
            result_file: String::new(),
            completion_callback_url: String::new(),
            annotation: String::new(),
            extras: Extras::default(),
            source: String::new(),
        }
    }

    /// The first field that breaks a rule of the BBS; the action has been checked as it was read.
    pub fn check(&self) -> Result<(), InvalidField> {
        let callback = &self.completion_callback_url;
        let is_url = ["http://", "https://"].iter().any(|scheme| callback.starts_with(scheme));
        let rules = [
            ("task_guid", is_plain(&self.guid, GUID_MAX)),
            ("domain", !self.domain.is_empty()),
            ("cpu_weight", self.limits.cpu_weight.is_none_or(|weight| weight <= 100)),
            ("annotation", self.annotation.len() <= ANNOTATION_MAX),
            ("completion_callback_url", callback.is_empty() || is_url),
            ("result_file", !self.result_file.contains('\0')),
        ];
        match rules.into_iter().find(|(_, holds)| !holds) {
            Some((field, _)) => Err(InvalidField(field)),
            None => Ok(()),
        }
    }
}

/// Letters, digits, `_` and `-`, 1 to `max` of them: the BBS's rule for guids.
fn is_plain(text: &str, max: usize) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-');
    (1..=max).contains(&text.len()) && text.bytes().all(plain)
}

/// The name on this box of an LRP that a client calls by a guid of the BBS's charset: its beginning,
/// and digits that differ for each guid.
pub fn inner_name(guid: &str) -> AppName {
    name_of(guid, guid)
}

/// The same of a Task, whose guid an LRP may have as well: each has its own log.
pub fn task_name(guid: &str) -> AppName {
    // No guid has a space in it.
    name_of(guid, &format!("task {guid}"))
}

/// Whether a name is of the form that both have.
pub fn is_made_up(name: &AppName) -> bool {
    let end = name.as_str().rsplit_once('-').map(|(_, end)| end);
    end.is_some_and(|end| end.len() == 12 && end.bytes().all(|b| b.is_ascii_hexdigit()))
}

fn name_of(guid: &str, of: &str) -> AppName {
    let plain = guid.bytes().map(|b| match b.to_ascii_lowercase() {
        b @ (b'a'..=b'z' | b'0'..=b'9') => char::from(b),
        _ => '-',
    });
    let head: String = plain.take(24).collect();
    let hex = crate::unit::Digest::of(of.as_bytes()).hex();
    let text = format!("{}-{}", head.trim_matches('-'), &hex[..12]);
    text.trim_start_matches('-').parse().expect("at most 37 letters, digits and inner hyphens")
}

/// What the builder leaves behind: Diego's `result.json`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StagingResult {
    /// Which buildpack made it.
    pub lifecycle_metadata: LifecycleMetadata,
    /// Start command of each process type.
    #[serde(default)]
    pub process_types: std::collections::BTreeMap<String, String>,
    /// What buildpacks want to run beside the processes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sidecars: Vec<StagedSidecar>,
    /// Passed to the launcher as its third argument.
    #[serde(default)]
    pub execution_metadata: String,
    /// `buildpack` or `docker`.
    #[serde(default)]
    pub lifecycle_type: String,
}

/// What a launch.yml wants to run beside processes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StagedSidecar {
    /// As the buildpack calls it; any text.
    pub name: String,
    /// Beside which process types.
    pub process_types: Vec<String>,
    /// What the shell runs.
    pub command: String,
    /// Its share of the process's memory in MiB, by which nobody is held: for who reads the result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<u64>,
}

/// The part of [`StagingResult`] about what the app is made of.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LifecycleMetadata {
    /// Key of the last buildpack.
    #[serde(default)]
    pub buildpack_key: String,
    /// Its name, or what it printed at detection.
    #[serde(default)]
    pub detected_buildpack: String,
    /// The image's name, as it was asked for.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub docker_image: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn row_1_a_definition_is_checked_by_the_rules_of_the_bbs() {
        let (rootfs, nothing) = (Rootfs::Stack("tiny".into()), Action::Serial(Vec::new()));
        let annotation = "a".repeat(ANNOTATION_MAX);
        let task = Task { annotation, ..Task::new("Some_guid-1", "d", rootfs, nothing) };
        assert_eq!(task.check(), Ok(()));
        let limits = Limits { cpu_weight: Some(101), ..Limits::default() };
        for (wrong, field) in [
            (Task { guid: String::new(), ..task.clone() }, "task_guid"),
            (Task { guid: "a b".into(), ..task.clone() }, "task_guid"),
            (Task { guid: "a/b".into(), ..task.clone() }, "task_guid"),
            (Task { guid: "a".repeat(256), ..task.clone() }, "task_guid"),
            (Task { domain: String::new(), ..task.clone() }, "domain"),
            (Task { limits, ..task.clone() }, "cpu_weight"),
            (Task { annotation: "a".repeat(ANNOTATION_MAX + 1), ..task.clone() }, "annotation"),
            (
                Task { completion_callback_url: "ftp://x".into(), ..task.clone() },
                "completion_callback_url",
            ),
        ] {
            assert_eq!(wrong.check(), Err(InvalidField(field)));
        }
    }

    #[test]
    fn a_rootfs_is_a_url_with_a_scheme() {
        for text in [
            "preloaded:cflinuxfs2",
            "docker:///tutum/tomcat#8.0",
            "docker:///busybox",
            "docker://reg.lan:5000/ops/app#1",
            &format!("docker:///busybox#{}", Digest::of(b"")),
            &format!("docker:///busybox#1@{}", Digest::of(b"")),
        ] {
            let rootfs: Rootfs = text.parse().expect("a rootfs");
            assert_eq!(rootfs.to_string(), text);
        }
        for bad in ["", "/var/x", "preloaded:", "preloaded:a/b", "docker://", "oci:///x"] {
            assert!(bad.parse::<Rootfs>().is_err(), "{bad}");
        }
    }

    #[test]
    fn every_guid_has_a_name_of_its_own_on_the_box() {
        let long = "c181be6b-d89c-469c-b79c-4cab1e99b8de-b4dcdbe9337046cc91410d126d4cf861";
        let names: std::collections::BTreeSet<String> =
            [long, &long[..60], "A", "a", "_", "__", "-"]
                .iter()
                .flat_map(|guid| [inner_name(guid).to_string(), task_name(guid).to_string()])
                .collect();
        assert_eq!(names.len(), 14);
        assert!(inner_name(long).as_str().starts_with("c181be6b-d89c-469c-b79c-"));
    }
}
