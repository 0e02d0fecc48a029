//! Why an instance ended: what is recorded, and Diego's text for each cause.

use crate::unit::span;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// The last end of an instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Death {
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
    /// It was counted as a crash.
    pub counted: bool,
    /// Why.
    pub cause: Cause,
}

/// Why something of an instance ended. `source`: whose it was, as in the log: `APP/PROC/WEB`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Cause {
    /// The process ended by itself.
    Exited {
        /// Whose process.
        source: String,
        /// Its exit status, 0 to 255.
        code: i32,
    },
    /// A signal ended the process.
    Signalled {
        /// Whose process.
        source: String,
        /// The signal's number.
        signal: i32,
        /// Who sent it.
        by: Sender,
    },
    /// The kernel ended a process for lack of memory.
    OutOfMemory {
        /// Whose process ended because of it.
        source: String,
        /// What that ended with; 137 when the kernel took itself.
        code: i32,
        /// The program that the kernel chose; `None`: the kernel's log does not tell.
        victim: Option<String>,
        /// The container's limit, in bytes; `None`: it has none.
        limit_bytes: Option<u64>,
        /// The box had no memory left; the container was within its own limit.
        whole_box: bool,
    },
    /// The process ended while the container's disk was full.
    DiskFull {
        /// Whose process.
        source: String,
        /// What it ended with.
        code: i32,
        /// What the container had written, in bytes.
        used_bytes: u64,
        /// What it may write, in bytes.
        limit_bytes: u64,
    },
    /// The health check failed after it had passed.
    Unhealthy {
        /// What the probe said.
        output: String,
    },
    /// The health check did not pass in time.
    NeverHealthy {
        /// The start timeout, in milliseconds.
        after_ms: u64,
        /// What the last probe said.
        output: String,
    },
    /// There was no container to run it in.
    CreateFailed {
        /// With all causes.
        why: String,
    },
    /// The container's first process ended from outside, and everything in it at once.
    ContainerLost,
    /// It ended while no daemon was there to see how.
    Unseen {
        /// The box has been started anew since.
        rebooted: bool,
    },
    /// It was told to end.
    Stopped {
        /// By whom.
        by: Stopper,
        /// It did not end in its time, and was killed.
        killed: bool,
    },
    /// Anything else: the text says it.
    Failed {
        /// Diego's text.
        text: String,
    },
}

/// Who sent a signal that ended a process. The kernel does not record it: what can be told is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sender {
    /// The kernel, for what the process itself has done: a wrong address, a broken pipe, an abort.
    Itself,
    /// A process of the container, or somebody on the box.
    Unknown,
}

/// Who told an instance to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stopper {
    /// `stop`.
    Stop,
    /// `restart`, or `start` of what had crashed.
    Restart,
    /// `delete`, or the manifest is gone.
    Delete,
    /// Fewer instances are wanted.
    Scale,
    /// A newer version takes its place.
    Update,
    /// `restart NAME/INDEX`: this very instance was to be made anew.
    RestartIndex,
    /// `drain`.
    Drain,
    /// The daemon, for reasons of its own. Older programs have written it for the two above, too.
    Cell,
}

/// Signals that the kernel sends for what a process did: ILL, TRAP, ABRT, BUS, FPE, SEGV, PIPE, XCPU,
/// XFSZ, SYS, by their numbers on Linux.
const OWN_FAULTS: [i32; 10] = [4, 5, 6, 7, 8, 11, 13, 24, 25, 31];

impl Sender {
    /// Who sends this signal, as far as its number tells.
    pub fn of(signal: i32) -> Sender {
        if OWN_FAULTS.contains(&signal) { Sender::Itself } else { Sender::Unknown }
    }
}

impl Cause {
    /// Diego's text, which records and logs have always shown.
    pub fn text(&self) -> String {
        let ended = |source: &str, code: i32| format!("{source}: Exited with status {code}");
        match self {
            Cause::Exited { source, code } | Cause::DiskFull { source, code, .. } => {
                ended(source, *code)
            }
            Cause::Signalled { source, signal, .. } => ended(source, 128 + signal),
            Cause::OutOfMemory { source, code, .. } => {
                format!("{} (out of memory)", ended(source, *code))
            }
            Cause::Unhealthy { output } => format!("Instance became unhealthy: {output}"),
            Cause::NeverHealthy { after_ms, output } => {
                let after = span::show_go(Duration::from_millis(*after_ms));
                format!("Instance never healthy after {after}: {output}")
            }
            Cause::CreateFailed { why } => format!("failed to create container: {why}"),
            Cause::ContainerLost => "missing garden container".into(),
            Cause::Unseen { .. } => "lost while no daemon ran".into(),
            Cause::Stopped { killed: false, .. } => "cancelled".into(),
            Cause::Stopped { killed: true, .. } => "exceeded graceful shutdown interval".into(),
            Cause::Failed { text } => text.clone(),
        }
    }

    /// The same with texts of at most `max` bytes: what a probe or a program says has no bound.
    pub fn within(mut self, max: usize) -> Cause {
        let texts = match &mut self {
            Cause::Unhealthy { output } | Cause::NeverHealthy { output, .. } => Some(output),
            Cause::CreateFailed { why: text } | Cause::Failed { text } => Some(text),
            _ => None,
        };
        if let Some(text) = texts
            && text.len() > max
        {
            let end = (0..=max).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
            text.truncate(end);
        }
        self
    }

    /// One word, as it stands in the JSON.
    pub fn word(&self) -> &'static str {
        match self {
            Cause::Exited { .. } => "exited",
            Cause::Signalled { .. } => "signalled",
            Cause::OutOfMemory { .. } => "out_of_memory",
            Cause::DiskFull { .. } => "disk_full",
            Cause::Unhealthy { .. } => "unhealthy",
            Cause::NeverHealthy { .. } => "never_healthy",
            Cause::CreateFailed { .. } => "create_failed",
            Cause::ContainerLost => "container_lost",
            Cause::Unseen { .. } => "unseen",
            Cause::Stopped { .. } => "stopped",
            Cause::Failed { .. } => "failed",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn web() -> String {
        "APP/PROC/WEB".into()
    }

    /// Row 14: the text of each cause is Diego's, to the letter.
    #[test]
    fn row_14_every_cause_has_diegos_text_and_one_word() {
        let refused = || "connection refused".to_owned();
        for (cause, text) in [
            (Cause::Exited { source: web(), code: 7 }, "APP/PROC/WEB: Exited with status 7"),
            (
                Cause::Signalled { source: web(), signal: 15, by: Sender::Unknown },
                "APP/PROC/WEB: Exited with status 143",
            ),
            (
                Cause::OutOfMemory {
                    source: web(),
                    code: 137,
                    victim: Some("java".into()),
                    limit_bytes: Some(1 << 25),
                    whole_box: false,
                },
                "APP/PROC/WEB: Exited with status 137 (out of memory)",
            ),
            (
                Cause::DiskFull { source: web(), code: 1, used_bytes: 2, limit_bytes: 2 },
                "APP/PROC/WEB: Exited with status 1",
            ),
            (
                Cause::Unhealthy { output: refused() },
                "Instance became unhealthy: connection refused",
            ),
            (
                Cause::NeverHealthy { after_ms: 60_000, output: refused() },
                "Instance never healthy after 1m0s: connection refused",
            ),
            (Cause::CreateFailed { why: "no".into() }, "failed to create container: no"),
            (Cause::ContainerLost, "missing garden container"),
            (Cause::Stopped { by: Stopper::Stop, killed: false }, "cancelled"),
            (
                Cause::Stopped { by: Stopper::Scale, killed: true },
                "exceeded graceful shutdown interval",
            ),
            (Cause::Failed { text: "Codependent step exited".into() }, "Codependent step exited"),
        ] {
            assert_eq!(cause.text(), text);
            let json = serde_json::to_value(&cause).expect("JSON");
            assert_eq!(json["kind"], cause.word());
            assert_eq!(serde_json::from_value::<Cause>(json).expect("and back"), cause);
        }
    }

    #[test]
    fn what_is_kept_of_a_text_is_bounded() {
        let long = "ä".repeat(1000);
        for cause in [
            Cause::Unhealthy { output: long.clone() },
            Cause::NeverHealthy { after_ms: 1, output: long.clone() },
            Cause::CreateFailed { why: long.clone() },
            Cause::Failed { text: long.clone() },
        ] {
            let kept = cause.within(1023).text();
            assert!(kept.contains(&"ä".repeat(511)) && !kept.contains(&"ä".repeat(512)));
        }
        assert_eq!(Cause::ContainerLost.within(0), Cause::ContainerLost);
    }

    #[test]
    fn what_a_process_does_to_itself_is_told_from_what_others_do() {
        for own in [6, 7, 8, 11, 13] {
            assert_eq!(Sender::of(own), Sender::Itself, "{own}");
        }
        for others in [1, 2, 9, 15] {
            assert_eq!(Sender::of(others), Sender::Unknown, "{others}");
        }
    }
}
