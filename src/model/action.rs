//! Diego's actions: what a Task or an LRP instance does inside its container.
//!
//! Its nine, two that copy on the box itself, and one that names a log source for those below it.
//! Names and meaning: Diego's executor and BBS models.

use super::process::ProcessSpec;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::time::Duration;

/// A node of the action tree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Runs one process to its end.
    Run(RunAction),
    /// Unpacks a directory of the box into the container, as `user`, inside the container.
    CopyIn(CopyInAction),
    /// Stores one file of the container in a file of the box.
    CopyOut(CopyOutAction),
    /// Fetches an archive and unpacks it in the container, as `user`, inside the container.
    Download(DownloadAction),
    /// Sends one file of the container to a server.
    Upload(UploadAction),
    /// Interrupts the child when it takes too long.
    Timeout {
        /// What may take this long.
        action: Box<Action>,
        /// How long.
        timeout: Duration,
    },
    /// One after the other; stops at the first error.
    Serial(Vec<Action>),
    /// All at once; ends when all have, with every error.
    Parallel(Vec<Action>),
    /// All at once; the end of any, also with success, ends all.
    Codependent(Vec<Action>),
    /// Its child's failure is nobody's.
    Try(Box<Action>),
    /// Says when the child begins and how it ended; empty texts are not said.
    EmitProgress {
        /// What is talked about.
        action: Box<Action>,
        /// Said before.
        start_message: String,
        /// Said after success.
        success_message: String,
        /// Said after a failure, before its text.
        failure_message_prefix: String,
    },
    /// The log source of all below that name none themselves.
    LogSource {
        /// `STG`, `APP/PROC/WEB`.
        source: String,
        /// Who it is for.
        action: Box<Action>,
    },
}

impl Action {
    /// The same with `env` before the own environment of every process.
    pub fn with_env(mut self, env: &[(String, String)]) -> Action {
        self.each_run(&mut |run| {
            let own = std::mem::take(&mut run.process.env);
            run.process.env = env.iter().cloned().chain(own).collect();
        });
        self
    }

    /// Adds the log sources that are named anywhere in the tree.
    pub fn log_sources(&self, to: &mut Vec<String>) {
        match self {
            Action::Run(RunAction { log_source, .. })
            | Action::Download(DownloadAction { log_source, .. })
            | Action::Upload(UploadAction { log_source, .. }) => to.push(log_source.clone()),
            Action::CopyIn(_) | Action::CopyOut(_) => {}
            Action::Serial(actions) | Action::Parallel(actions) | Action::Codependent(actions) => {
                actions.iter().for_each(|action| action.log_sources(to));
            }
            Action::Timeout { action, .. }
            | Action::Try(action)
            | Action::EmitProgress { action, .. } => action.log_sources(to),
            Action::LogSource { source, action } => {
                to.push(source.clone());
                action.log_sources(to);
            }
        }
    }

    /// Shows `change` every process of the tree.
    fn each_run(&mut self, change: &mut dyn FnMut(&mut RunAction)) {
        match self {
            Action::Run(run) => change(run),
            Action::CopyIn(_) | Action::CopyOut(_) | Action::Download(_) | Action::Upload(_) => {}
            Action::Serial(actions) | Action::Parallel(actions) | Action::Codependent(actions) => {
                actions.iter_mut().for_each(|action| action.each_run(change));
            }
            Action::Timeout { action, .. }
            | Action::Try(action)
            | Action::EmitProgress { action, .. }
            | Action::LogSource { action, .. } => action.each_run(change),
        }
    }
}

/// Runs one process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunAction {
    /// The process; the executor appends its own environment.
    pub process: ProcessSpec,
    /// Log source of its output, such as `STG` or `APP/PROC/WEB`; empty: that of what it is part of.
    pub log_source: String,
    /// Neither its output nor its exit status is logged.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub suppress_log_output: bool,
}

/// Fetches an archive: tar, gzipped tar or zip, told by its content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DownloadAction {
    /// URL, http or https.
    pub from: String,
    /// Directory in the container, made when missing; what is not absolute lies in the user's home.
    pub to: String,
    /// What the copy on the box is kept under; empty: none is kept.
    pub cache_key: String,
    /// Owner of everything that is unpacked.
    pub user: String,
    /// What a person calls it; empty: nothing is said about it.
    pub artifact: String,
    /// Log source; empty: that of what it is part of.
    pub log_source: String,
    /// What the archive must be, byte for byte.
    pub checksum: Option<Checksum>,
}

/// Sends one file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UploadAction {
    /// File in the container; of a directory its first file.
    pub from: String,
    /// URL that it is posted to.
    pub to: String,
    /// Who reads it inside.
    pub user: String,
    /// What a person calls it; empty: nothing is said about it.
    pub artifact: String,
    /// Log source; empty: that of what it is part of.
    pub log_source: String,
}

/// What the bytes of a download must come to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checksum {
    /// How it is computed.
    pub algorithm: ChecksumAlgorithm,
    /// Hex digits, in either case.
    pub value: String,
}

/// Diego's three.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ChecksumAlgorithm {
    /// 32 digits.
    Md5,
    /// 40 digits.
    Sha1,
    /// 64 digits.
    Sha256,
}

/// Copies a tree in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopyInAction {
    /// Directory on the box, or an archive of one: zip or tar, told by its content.
    pub from: PathBuf,
    /// Absolute directory in the container; made when missing.
    pub to: String,
    /// Owner of everything that is unpacked.
    pub user: String,
    /// What a person calls it: `app bits`, `buildpack static`.
    pub artifact: String,
    /// Names at the top of `from` that are left out (`.git`, `node_modules`).
    pub exclude: Vec<String>,
}

/// Copies one file out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopyOutAction {
    /// Absolute path of a regular file in the container.
    pub from: String,
    /// File on the box; replaced in one step when the copy is whole.
    pub to: PathBuf,
    /// Who reads it inside.
    pub user: String,
    /// What a person calls it: `droplet`.
    pub artifact: String,
    /// Missing is fine: nothing is copied (the build cache of a first staging).
    pub optional: bool,
}
