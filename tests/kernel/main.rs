//! Tests on the real kernel, as root: `cargo xtask test kernel`.

mod accepting;
mod cgroup;
mod container;
mod daemon;
mod exec;
mod garden;
mod image;
mod init;
mod lab;
mod logs;
mod net;
mod peas;
mod podman;
mod registry;
mod reserve;
/// The tests of containers, with the other root driver.
#[allow(clippy::duplicate_mod)]
#[path = "container.rs"]
mod snapshot;
mod spawner;
mod streams;
mod tool;
mod volume;
