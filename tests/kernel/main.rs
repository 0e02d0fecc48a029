//! Tests that need root and a real kernel: `cargo xtask test kernel`.

mod container;
mod lab;
//! Tests on the real kernel, as root: `cargo xtask test kernel`.

mod init;
mod net;
mod image;
mod volume;
mod cgroup;
