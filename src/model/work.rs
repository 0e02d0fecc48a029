//! What an instance of an LRP does, and what its container has besides its layers.

use super::action::{Action, Checksum};
use super::process::ProcessSpec;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::time::Duration;

/// Abstract name, in the container's own network namespace, of the socket at which pid 1 hears what
/// the app says of itself: `NOTIFY_SOCKET=@terrarium/notify`.
pub const NOTIFY_NAME: &str = "terrarium/notify";

/// Name of the sidecar that is the SSH server of `[ssh]`, where it listens in the container, and the
/// variable that it takes its host key from.
pub const SSHD: &str = "sshd";
/// How its argument with the keys that may come in begins.
pub const SSH_AUTHORIZED: &str = "-authorizedKey=";
/// Diego's.
pub const SSH_PORT: u16 = 2222;
/// Diego's.
pub const SSH_HOST_KEY: &str = "SSHD_HOSTKEY";

/// The actions of an instance, as Diego puts them together: `setup` to its end, then all others at
/// once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Work {
    /// What comes first; its failure is the instance's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub setup: Option<Action>,
    /// What the instance is about.
    pub action: Action,
    /// What runs beside it; the end of any of them ends the instance.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sidecars: Vec<Sidecar>,
    /// The older form of a health check: healthy when it succeeds. Not used when there are checks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub monitor: Option<Action>,
    /// How a check that is a command begins: user, limits, environment and directory. Its program
    /// and arguments are the check's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probe: Option<ProcessSpec>,
    /// A file of the box with keys that the sidecar [`SSHD`] lets in, besides those that it names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ssh_keys: Option<PathBuf>,
}

impl Work {
    /// An action and nothing else.
    pub fn new(action: Action) -> Work {
        Work {
            setup: None,
            action,
            sidecars: Vec::new(),
            monitor: None,
            probe: None,
            ssh_keys: None,
        }
    }
}

/// What runs beside the app, in its container and within its limits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sidecar {
    /// `[a-z0-9-]{1,16}`, unique within the LRP.
    pub name: String,
    /// What it does.
    pub action: Action,
}

/// How processes are asked to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stop {
    /// Number of the signal; default TERM.
    pub signal: i32,
    /// From it to KILL; default 10s, Diego's graceful shutdown interval.
    pub timeout: Duration,
}

impl Default for Stop {
    fn default() -> Stop {
        Stop { signal: 15, timeout: Duration::from_secs(10) }
    }
}

impl Stop {
    /// What [`Default`] says; such a one is not written down.
    pub fn is_default(&self) -> bool {
        *self == Stop::default()
    }
}

/// A directory of the box that shows up in the container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    /// Absolute directory of the box.
    pub from: PathBuf,
    /// Absolute path inside.
    pub to: String,
    /// Not writable inside.
    pub read_only: bool,
}

/// A file that is made for each instance, such as a secret: in memory, read-only inside, owned by
/// the app's user.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileMount {
    /// Absolute path inside.
    pub path: String,
    /// What it holds.
    pub holds: Holds,
    /// Permission bits; default 0400.
    pub mode: u32,
}

/// Where the content of a [`FileMount`] comes from.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Holds {
    /// This text.
    Content(String),
    /// A file of the box, read whenever an instance is made.
    Source(PathBuf),
}

impl std::fmt::Debug for FileMount {
    /// Without the content, which may be secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let from = match &self.holds {
            Holds::Content(_) => "content".to_owned(),
            Holds::Source(path) => path.display().to_string(),
        };
        write!(f, "FileMount({}, mode {:o}, from {from})", self.path, self.mode)
    }
}

/// An archive that is fetched once for the box and shown, unpacked and read-only, to every container
/// that asks for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CachedDependency {
    /// URL, http or https.
    pub from: String,
    /// Absolute directory inside.
    pub to: String,
    /// What it is kept under; must not be empty.
    pub cache_key: String,
    /// What a person calls it; empty: nothing is said about it.
    #[serde(default)]
    pub name: String,
    /// Log source.
    #[serde(default)]
    pub log_source: String,
    /// What the archive must be, byte for byte.
    #[serde(default)]
    pub checksum: Option<Checksum>,
}
