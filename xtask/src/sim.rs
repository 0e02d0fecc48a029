//! `cargo xtask sim`: the cell on virtual time, in worlds that seeds write the scripts of.

use crate::host;
use anyhow::Result;

/// Seeds of a round on the server.
const SEEDS: &str = "10000";

/// Plays what `args` ask for: `--seeds N`, `--seed S`, `--trace`, `--mutants`, `--deaths`.
pub fn run(args: &[&str]) -> Result<()> {
    // For this machine, not for boxes: threads take turns at musl's allocator, and seeds allocate.
    let package =
        ["test", "--package", "terrarium", "--profile", "sim", "--quiet", "--test", "sim"];
    host::run(host::cargo().args(package).arg("--").args(args))
}

/// What the server plays: that nothing breaks, and that planted mistakes are found.
pub fn ci() -> Result<()> {
    run(&["--seeds", SEEDS])?;
    run(&["--mutants"])
}
