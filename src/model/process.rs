//! A process to be started in a container, and how it ended.

use serde::{Deserialize, Serialize};
use std::fmt;

/// One process, as pid 1 of the container is asked to start it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessSpec {
    /// Name within the container, chosen by the caller, `[a-z0-9-]{1,40}`; unique for its life.
    pub id: String,
    /// Program: absolute, or a name that is looked up in the process's own `PATH`.
    pub path: String,
    /// Arguments after the program's name.
    pub args: Vec<String>,
    /// argv[0] when it must differ from `path`.
    pub argv0: Option<String>,
    /// Environment, later entries win; `PATH`, `USER` and `HOME` are added when absent.
    pub env: Vec<(String, String)>,
    /// Working directory; the user's home when `None`. Made, owned by the user, when missing.
    pub dir: Option<String>,
    /// A working directory that is missing is a mistake and is not made.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dir_must_exist: bool,
    /// `name`, `uid`, `uid:gid`, `name:group`: looked up in the container's own passwd and group.
    pub user: String,
    /// Open files, soft and hard; clamped to what the daemon itself may have.
    pub nofile: Option<u64>,
    /// A terminal of this size instead of pipes.
    pub tty: Option<WindowSize>,
    /// Keep stdin open for the caller; otherwise it is /dev/null. A tty always has one.
    pub stdin: bool,
}

/// Size of a terminal in character cells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WindowSize {
    /// Lines.
    pub rows: u16,
    /// Characters in a line.
    pub columns: u16,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExitStatus {
    /// It returned this status, 0 to 255.
    Exited(u8),
    /// This signal ended it.
    Signaled(i32),
}

impl ExitStatus {
    /// The status as a shell shows it: 128 + n for signal n.
    pub fn code(self) -> i32 {
        match self {
            ExitStatus::Exited(code) => code.into(),
            ExitStatus::Signaled(signal) => 128 + signal,
        }
    }
}

impl fmt::Display for ExitStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ExitStatus::Exited(code) => write!(f, "exit status {code}"),
            ExitStatus::Signaled(signal) => write!(f, "signal {signal}"),
        }
    }
}
