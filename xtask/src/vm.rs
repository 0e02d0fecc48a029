//! `cargo xtask vm [build|test|shell|up|down]`: a guest with a kernel, control groups and systemd of its
//! own, for what this machine's cannot show.
//!
//! qemu emulates the processor, so this is slow and belongs to no other chore. Everything is in
//! `target/vm`.

mod disk;
mod floors;
mod guest;
mod parcel;
mod power;
mod run;

use crate::host;
use anyhow::{Context, Result, bail};
use guest::{Guest, Life};
use std::fs::{self, File, TryLockError};
use std::path::PathBuf;

/// The guest's name, for its ssh key.
pub const NAME: &str = "terrarium-vm";

const HELP: &str = "\
cargo xtask vm COMMAND            a Debian guest: systemd, control groups v2, Linux 6.1 (root)
  build [--rebuild]               make its disk, when needed or with newer packages
  test [FLOOR] [FILTER...]        run tests in it; FLOOR is one of those below, or all
  power                           install the unit, let the power fail, see the apps come back
  shell [COMMAND...]              look around in it
  up, down                        keep one running between tests and shells; end it
TERRARIUM_VM_ACCEL=kvm is faster where kvm works.";

/// Does what a person typed.
pub fn run(args: &[&str]) -> Result<()> {
    match args {
        [] => {
            println!("{}", overview());
            Ok(())
        }
        ["build"] => locked(|| build(false)),
        ["build", "--rebuild"] => locked(|| build(true)),
        ["test"] => locked(|| test("all", &[])),
        ["test", floor, filters @ ..] => locked(|| test(floor, filters)),
        ["power"] => locked(power),
        // As many as you like in one guest.
        ["shell", command @ ..] if Guest::running().is_some() => shell(command),
        ["shell", command @ ..] => locked(|| shell(command)),
        ["up"] => locked(up),
        ["down"] => locked(down),
        _ => bail!("no such command\n{}", overview()),
    }
}

/// Where all of it is.
pub fn dir() -> PathBuf {
    host::target_dir().join("vm")
}

fn overview() -> String {
    let floors: String =
        floors::ALL.iter().map(|floor| format!("\n  {:<12} {}", floor.name, floor.what)).collect();
    let disk = if disk::is_built() { "built" } else { "not built" };
    let guest = if Guest::running().is_some() { "running" } else { "not running" };
    format!("{HELP}\nfloors:{floors}\ndisk: {disk}; guest: {guest}")
}

/// One of these at a time: they share a disk and a drive.
fn locked(chore: impl FnOnce() -> Result<()>) -> Result<()> {
    fs::create_dir_all(dir())?;
    let lock = File::create(dir().join("lock"))?;
    match lock.try_lock() {
        Ok(()) => chore(),
        Err(TryLockError::WouldBlock) => {
            bail!("another `cargo xtask vm` is at work: try again when it has ended")
        }
        Err(TryLockError::Error(err)) => Err(err).context("cannot lock target/vm"),
    }
}

fn build(anew: bool) -> Result<()> {
    if Guest::running().is_some() {
        bail!("a guest runs on the disk: end it with `cargo xtask vm down`");
    }
    disk::build(anew)
}

/// The guest that runs, or a new one.
fn guest(life: Life) -> Result<Guest> {
    if let Some(mut guest) = Guest::running() {
        guest.until_it_answers()?;
        return Ok(guest);
    }
    host::need_root("vm")?;
    host::need(host::VM)?;
    disk::build(false)?;
    parcel::prepare()?;
    Guest::boot(life)
}

fn test(floor: &str, filters: &[&str]) -> Result<()> {
    let floors = floors::chosen(floor)?;
    let suites = floors::compile(&floors)?;
    let guest = guest(Life::Ours)?;
    let result = floors::run(&guest, &suites, filters);
    let stopped = if guest.is_ours() { guest.stop() } else { Ok(()) };
    match (result, stopped) {
        (Err(tests), Err(stop)) => bail!("{tests:#}; {stop:#}"),
        (tests, stop) => tests.and(stop),
    }
}

fn power() -> Result<()> {
    if Guest::running().is_some() {
        bail!("a guest runs, and its power is about to fail: end it with `cargo xtask vm down`");
    }
    power::compile()?;
    let mut guest = guest(Life::Ours)?;
    let result = power::cut(&mut guest);
    let stopped = guest.stop();
    result.and(stopped)
}

fn shell(command: &[&str]) -> Result<()> {
    let guest = guest(Life::Ours)?;
    let mut ssh = guest.ssh();
    if command.is_empty() {
        ssh.arg("-t");
    }
    let status = ssh.args(command).status().context("cannot run ssh")?;
    let stopped = if guest.is_ours() { guest.stop() } else { Ok(()) };
    if !command.is_empty() && !status.success() {
        bail!("the command in the guest ended with {status}");
    }
    stopped
}

fn up() -> Result<()> {
    guest(Life::Own).map(drop)
}

fn down() -> Result<()> {
    match Guest::running() {
        Some(guest) => guest.stop(),
        None => {
            eprintln!("vm: no guest runs");
            Ok(())
        }
    }
}
