//! From a manifest to what is done: the Task that stages it and the LRPs that run it.
//!
//! Owns: the two recipes, the choice of buildpacks, and what makes a droplet or an instance stale.
//! Must not: run anything; touch the host; unpack what an app's owner wrote (that happens in
//! containers only).
//! Called by: `cell`. Calls: `image` (its plain values), `model`, `unit`.
//! Entry points: [`packs::choose_buildpacks`], [`recipe::staging_task`], [`hook::release_task`],
//! [`recipe::desired_lrps`], [`recipe::stand_in`], [`recipe::fingerprint`], [`docker::result`],
//! [`docker::desired_lrps`], [`task::of_app`], [`types::added`].
//! Ancestor: the recipe builders of stager and nsync.

pub mod docker;
pub mod hook;
pub mod packs;
pub mod recipe;
pub mod task;
pub mod types;
mod work;

use crate::model::limits;
use crate::unit::{Bytes, IdRange};
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
    /// Buildpacks want more beside a process than there can be.
    ManySidecars {
        /// The process type.
        process: String,
        /// So many.
        count: usize,
        /// And so many can be.
        most: usize,
    },
    /// The sidecars of buildpacks leave a process no memory.
    HungrySidecars {
        /// The process type.
        process: String,
        /// What it has with its sidecars.
        memory: Bytes,
    },
    /// Neither the manifest nor the image says how these processes start.
    ImageNoCommand {
        /// The process types; never empty.
        processes: Vec<String>,
    },
    /// The image's user is a number that no user of a container can have.
    ImageUser {
        /// As the image says it.
        user: String,
    },
    /// The image exposes ports, but none that a route or a check could reach.
    ImageNoTcp,
    /// The image exposes a range of ports.
    ImagePortRange {
        /// As it is written.
        range: String,
    },
    /// What a process is given at its start is more than can be handed to it.
    ImageTooWordy {
        /// Of this process.
        process: String,
        /// What environment, command and volumes take, in bytes.
        bytes: usize,
        /// The most that they may.
        most: usize,
    },
    /// The image alone is more than an instance may have.
    ImageTooLarge {
        /// The limit.
        disk: Bytes,
        /// What the image has, rounded up.
        image: Bytes,
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
            StageError::ManySidecars { process, count, most } => write!(
                f,
                "the buildpack wants {count} sidecars beside process `{process}`, at most {most} can \
                 be; take some out of its launch.yml, or use fewer buildpacks",
            ),
            StageError::HungrySidecars { process, memory } => write!(
                f,
                "the sidecars of process `{process}` take all of its {memory}, by the manifest and the \
                 buildpack's launch.yml; write a larger `memory` below [process.{process}]",
            ),
            StageError::ImageNoCommand { processes } => {
                let first = processes.first().map_or("web", String::as_str);
                write!(
                    f,
                    "no start command for process {}; write command = \"...\" below \
                     [process.{first}] (the image has neither entrypoint nor command)",
                    list(processes)
                )
            }
            StageError::ImageUser { user } => write!(
                f,
                "the image runs as user `{}`, but ids go from 0 to {}; write user = \"...\" below \
                 [run]",
                user.chars().take(40).collect::<String>().escape_default(),
                IdRange::WIDTH - 1
            ),
            StageError::ImageNoTcp => f.write_str(
                "the image exposes no TCP port, only others; write container = NUMBER below \
                 [[port]], or ports = [] below [process.web]",
            ),
            StageError::ImagePortRange { range } => write!(
                f,
                "the image exposes the ports `{range}`, and only single ones can be staged; make it \
                 with an EXPOSE for each"
            ),
            StageError::ImageTooWordy { process, bytes, most } => write!(
                f,
                "environment, command and volumes of process `{process}` take {bytes} bytes, at most \
                 {most} can be handed to it; shorten [env], or make the image with less of them",
            ),
            StageError::ImageTooLarge { disk, image } => write!(
                f,
                "the image has {image} and counts as part of `disk`, which is {disk}; write {} or more \
                 as `disk` below [run]",
                limits::with_image(image.get()),
            ),
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
