//! From a manifest to what is done: the Task that stages it and the LRPs that run it.
//!
//! Owns: the two recipes, the choice of buildpacks, and what makes a droplet or an instance stale.
//! Must not: run anything; touch the host; unpack what an app's owner wrote (that happens in
//! containers only).
//! Called by: `cell`. Calls: `model`, `unit`.
//! Entry points: [`recipe::choose_buildpacks`], [`recipe::staging_task`],
//! [`recipe::desired_lrps`], [`recipe::fingerprint`].
//! Ancestor: the recipe builders of stager and nsync.

pub mod recipe;

use std::fmt;

/// Why there is no recipe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StageError {
    /// The box has no buildpack at all.
    NoBuildpacks,
    /// The manifest names a buildpack that the box does not have.
    UnknownBuildpack {
        /// Its name.
        name: String,
        /// What the box has.
        known: Vec<String>,
    },
    /// Neither the manifest nor the buildpack says how these processes start.
    NoCommand {
        /// The process types; never empty.
        processes: Vec<String>,
        /// The process types that the buildpack has commands for.
        known: Vec<String>,
    },
}

impl fmt::Display for StageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StageError::NoBuildpacks => f.write_str(
                "this box has no buildpack; put one into the directory of its buildpacks",
            ),
            StageError::UnknownBuildpack { name, known } => {
                write!(f, "this box has no buildpack `{name}`; it has {}", list(known))
            }
            StageError::NoCommand { processes, known } => {
                let first = processes.first().map_or("web", String::as_str);
                write!(
                    f,
                    "no start command for process {}; write command = \"...\" below \
                     [process.{first}], or the line `{first}: ...` in the app's Procfile \
                     (the buildpack knows {})",
                    list(processes),
                    list(known)
                )
            }
        }
    }
}

impl std::error::Error for StageError {}

fn list(names: &[String]) -> String {
    match names.is_empty() {
        true => "none".into(),
        false => names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", "),
    }
}
