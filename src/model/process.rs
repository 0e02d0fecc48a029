//! A process to be started in a container, and how it ended.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// Names of processes that serve the daemon itself begin with it; no other process may have such a
/// name. They end with the connection that started them, leave nothing behind, and write to nobody
/// but who started them.
pub const INTERNAL: char = '_';

/// Where a launcher finds the number of the descriptor by which it says that it cannot become what it
/// launches; closing it, as exec does, says that it has.
pub const LAUNCH_FD: &str = "TERRARIUM_LAUNCH_FD";

/// What it says: this byte, the errno as native-endian `i32`, and the program's name.
pub const LAUNCH_FAILED: u8 = 0xff;

/// The errno by which it says that a program is there and its interpreter is not, for which exec has no
/// errno of its own: ELIBBAD of asm-generic/errno.h.
pub const LAUNCH_NO_INTERPRETER: i32 = 80;

/// Which program a process runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Program {
    /// The container's, which `path` names.
    #[default]
    Path,
    /// Ours, whatever the container has in its files: it comes as a descriptor, and `path` is the
    /// name that it goes by: the role.
    Ours,
}

impl Program {
    /// What [`Default`] says; such a one is not written down.
    pub fn is_default(&self) -> bool {
        *self == Program::Path
    }
}

/// One process, as pid 1 of the container is asked to start it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessSpec {
    /// Name within the container, chosen by the caller, `[a-z0-9-]{1,40}`; unique for its life.
    /// That of [our own](Program::Ours) may begin with [`INTERNAL`].
    pub id: String,
    /// Program: absolute, or a name that is looked up in the process's own `PATH`.
    pub path: String,
    /// Whose program that is.
    #[serde(default, skip_serializing_if = "Program::is_default")]
    pub program: Program,
    /// Arguments after the program's name.
    pub args: Vec<String>,
    /// `argv[0]` when it must differ from `path`.
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
    /// Open files, soft and hard; clamped to what the daemon itself may have, or may raise its own to.
    pub nofile: Option<u64>,
    /// Further limits, soft and hard, clamped in the same way; [`Rlimit::Nofile`] wins over
    /// `nofile`. What is not named stays as it is.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub rlimits: BTreeMap<Rlimit, u64>,
    /// A terminal of this size instead of pipes.
    pub tty: Option<WindowSize>,
    /// Keep stdin open for the caller; otherwise it is /dev/null. A tty always has one.
    pub stdin: bool,
    /// It stays open without the caller, too, for who attaches later, until somebody ends it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub keep_stdin: bool,
    /// The program is a launcher: the process has started when that has become what it launches. See
    /// [`LAUNCH_FD`].
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub launches: bool,
    /// It never waits for who reads its output: pid 1 takes that over from one who stands still, and
    /// the reader asks for it (`Ask::ReadOn`) where it finds the mark of that.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub never_waits: bool,
}

/// What setrlimit(2) can limit, with the kernel's numbers (asm-generic/resource.h, the same on
/// every architecture that this program runs on).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum Rlimit {
    /// Seconds of processor time.
    Cpu = 0,
    /// Bytes of a file that is written.
    Fsize = 1,
    /// Bytes of data segment and heap.
    Data = 2,
    /// Bytes of stack.
    Stack = 3,
    /// Bytes of a core dump.
    Core = 4,
    /// Bytes in memory; kernels of today do not look at it.
    Rss = 5,
    /// Processes of the user.
    Nproc = 6,
    /// Open files.
    Nofile = 7,
    /// Bytes locked in memory.
    Memlock = 8,
    /// Bytes of address space.
    As = 9,
    /// File locks; kernels of today do not look at it.
    Locks = 10,
    /// Signals that wait.
    Sigpending = 11,
    /// Bytes in message queues.
    Msgqueue = 12,
    /// 20 minus the lowest nice value.
    Nice = 13,
    /// Highest real-time priority.
    Rtprio = 14,
}

impl Rlimit {
    /// All of them.
    pub const ALL: [Rlimit; 15] = [
        Rlimit::Cpu,
        Rlimit::Fsize,
        Rlimit::Data,
        Rlimit::Stack,
        Rlimit::Core,
        Rlimit::Rss,
        Rlimit::Nproc,
        Rlimit::Nofile,
        Rlimit::Memlock,
        Rlimit::As,
        Rlimit::Locks,
        Rlimit::Sigpending,
        Rlimit::Msgqueue,
        Rlimit::Nice,
        Rlimit::Rtprio,
    ];
}

impl fmt::Display for Rlimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&format!("{self:?}").to_lowercase())
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_have_the_kernels_names_and_numbers() {
        for (number, limit) in Rlimit::ALL.into_iter().enumerate() {
            assert_eq!(limit as usize, number);
            let name = serde_json::to_string(&limit).expect("JSON");
            assert_eq!(name, format!("\"{limit}\""));
        }
    }

    #[test]
    fn a_process_of_an_older_daemon_has_no_further_limits() {
        let text = r#"{"id":"a","path":"/a","args":[],"argv0":null,"env":[],"dir":null,
            "user":"root","nofile":7,"tty":null,"stdin":false}"#;
        let mut spec: ProcessSpec = serde_json::from_str(text).expect("old form");
        assert!(spec.rlimits.is_empty() && !text_of(&spec).contains("rlimits"));
        spec.rlimits.insert(Rlimit::As, u64::MAX);
        assert!(text_of(&spec).contains(r#""rlimits":{"as":18446744073709551615}"#));
        assert_eq!(serde_json::from_str::<ProcessSpec>(&text_of(&spec)).expect("new form"), spec);
    }

    fn text_of(spec: &ProcessSpec) -> String {
        serde_json::to_string(spec).expect("JSON")
    }
}
