//! `cargo xtask dist`: the program as it is shipped, one static file.

use crate::{host, rootfs};
use anyhow::{Context, Result};
use std::path::PathBuf;

/// Builds it into `target/dist`, with its digest beside it, and says how big it is.
pub fn run() -> Result<PathBuf> {
    let built = host::build(true)?;
    let dir = host::target_dir().join("dist");
    std::fs::create_dir_all(&dir)?;
    let program = dir.join("terrarium");
    std::fs::copy(&built, &program).with_context(|| format!("cannot write {}", dir.display()))?;
    let bytes = std::fs::read(&program)?;
    let digest = rootfs::sha256(&bytes);
    std::fs::write(dir.join("terrarium.sha256"), format!("{digest}  terrarium\n"))?;
    let mib = bytes.len() as f64 / f64::from(1 << 20);
    println!("{}  {} bytes ({mib:.2} MiB), static", program.display(), bytes.len());
    Ok(program)
}
