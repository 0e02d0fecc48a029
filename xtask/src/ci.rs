//! `cargo xtask ci`: exactly what the server runs, from a fresh checkout.

use crate::{host, sim, test, tidy};
use anyhow::Result;
use std::process::{Command, Stdio};

/// The release of cargo-deny that `deny.toml` is written for.
const CARGO_DENY: &str = "0.20.2";

/// Everything, cheapest first; stops at the first failure.
pub fn run() -> Result<()> {
    host::need_root("ci")?;
    host::need_target()?;
    need_components()?;
    step("cargo fmt --check");
    host::run(host::cargo().args(["fmt", "--all", "--check"]))?;
    step("cargo clippy");
    let target = host::target();
    // The floors that need root are no test of plain `cargo test`: `--all-targets` leaves them out.
    let floors = ["--package", "terrarium", "--test", "*"];
    for which in [&["--workspace", "--all-targets"][..], &floors] {
        let mut clippy = host::cargo();
        clippy.args(["clippy", "--target", &target]).args(which);
        host::run(clippy.args(["--", "--deny", "warnings"]))?;
    }
    step("cargo xtask tidy");
    tidy::run()?;
    step("cargo deny check");
    if !runs(host::cargo().args(["deny", "--version"])) {
        let install = ["install", "--locked", "--version", CARGO_DENY, "cargo-deny"];
        host::run(host::cargo().args(install))?;
    }
    host::run(host::cargo().args(["deny", "check", "licenses", "bans", "sources"]))?;
    step("cargo xtask sim");
    sim::ci()?;
    step("cargo xtask test");
    test::run(&test::ALL, &[])
}

fn step(name: &str) {
    eprintln!("== {name}");
}

/// The formatter and the linter may be missing where the toolchain was installed small.
fn need_components() -> Result<()> {
    for component in ["fmt", "clippy"] {
        if !runs(host::cargo().args([component, "--version"])) {
            let name = if component == "fmt" { "rustfmt" } else { component };
            host::run(Command::new("rustup").args(["component", "add", name]))?;
        }
    }
    Ok(())
}

fn runs(command: &mut Command) -> bool {
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}
