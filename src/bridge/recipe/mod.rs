//! What a controller's requests become: Tasks and DesiredLRPs in Diego's own JSON. Pure.
//!
//! | file | from | to |
//! |---|---|---|
//! | `staging` | a staging request | a Task of `cf-app-staging` |
//! | `app` | a desire request | a DesiredLRP of `cf-apps` |
//! | `task` | a task request | a Task of `cf-tasks` |
//! | `parts` | | what they have in common |

mod app;
mod parts;
mod staging;
mod task;
#[cfg(test)]
mod tests;

pub use app::{PORT, SshKeys, app, ports_of, routes};
pub use parts::{cpu_weight, docker_url};
pub use staging::staging;
pub use task::task;

use std::collections::BTreeSet;

/// What recipes need to know of the box.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Site {
    /// Where the box's own services are: `http://127.0.0.1:8787`.
    pub base: String,
    /// How containers get archives.
    pub form: Form,
    /// Stacks of the box.
    pub stacks: BTreeSet<String>,
    /// The stack in which images are looked at.
    pub docker_stack: String,
    /// Registries that are asked without TLS.
    pub insecure_registries: Vec<String>,
}

/// How a container gets the programs and buildpacks that it does not bring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Unpacked once for the box and mounted, as Diego does today.
    Mounted,
    /// Downloaded into each, as in 2015.
    Downloaded,
}

/// A request that no recipe is made of: Diego's words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoRecipe(pub String);

impl NoRecipe {
    fn new(text: &str) -> NoRecipe {
        NoRecipe(text.to_owned())
    }
}
