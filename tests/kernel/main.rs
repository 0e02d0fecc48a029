//! Tests on the real kernel, as root: `cargo xtask test kernel`.

mod cgroup;
mod container;
mod daemon;
mod garden;
mod image;
mod init;
mod lab;
mod net;
mod volume;
