//! Diego's actions: what a Task or an LRP instance does inside its container.
//!
//! The first five of nine; download, upload, parallel and emit_progress join them with the
//! executor's own issue. Names and meaning: Diego's executor and BBS models.

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
    /// Interrupts the child when it takes too long.
    Timeout {
        /// What may take this long.
        action: Box<Action>,
        /// How long.
        timeout: Duration,
    },
    /// One after the other; stops at the first error.
    Serial(Vec<Action>),
    /// All at once; the end of any, also with success, ends all.
    Codependent(Vec<Action>),
}

/// Runs one process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunAction {
    /// The process; the executor appends its own environment.
    pub process: ProcessSpec,
    /// Log source of its output, such as `STG` or `APP/PROC/WEB`.
    pub log_source: String,
}

/// Copies a tree in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopyInAction {
    /// Directory on the box.
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
