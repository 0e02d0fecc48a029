//! Tests that need root and a real kernel: `cargo xtask test kernel`.

mod container;
mod lab;
mod net;
mod image;
mod volume;
mod cgroup;
