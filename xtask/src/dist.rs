//! `cargo xtask dist`: the program as it is shipped, one static file, and beside it the SSH server
//! for `/usr/lib/terrarium/ssh` with its licence.

use crate::{host, rootfs, ssh};
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
    let server = ssh::run()?;
    std::fs::create_dir_all(dir.join("ssh"))?;
    for name in ["dropbearmulti", "dropbear.licence"] {
        std::fs::copy(server.with_file_name(name), dir.join("ssh").join(name))?;
    }
    let mib = bytes.len() as f64 / f64::from(1 << 20);
    println!("{}  {} bytes ({mib:.2} MiB), static", program.display(), bytes.len());
    Ok(program)
}
