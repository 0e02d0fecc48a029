//! Terrarium: a Cloud Foundry cell in one process, for one Linux box.
//!
//! Every folder below is a room with an owner's card at the top of its `mod.rs`. A room imports
//! only rooms of a lower row; the table is in `ARCHITECTURE.md` and `cargo xtask tidy` holds it.

// row 0
pub mod log;
pub mod unit;
// row 1
pub mod config;
pub mod model;
pub mod netlink;
pub mod sys;
// row 2
pub mod cgroup;
pub mod init;
pub mod lifecycle;
pub mod net;
pub mod volume;
// row 3
pub mod image;
// row 4
pub mod container;
// row 5
pub mod exec;
pub mod garden;
pub mod stage;
// row 6
pub mod bridge;
pub mod cell;
// row 7
pub mod api;
// row 8
pub mod daemon;
// row 9
pub mod cli;
