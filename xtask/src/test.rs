//! `cargo xtask test [unit|kernel|e2e|garden] [-- ARGS]`: the floors of tests.
//!
//! `unit` needs nothing; the others need root, and must leave the machine as it was.
//! Tests find what they need in the environment: `TERRARIUM_BIN`, the static program, and
//! `TERRARIUM_STACKS`, the directory with `<stack>.tar.zst` and, in `software`, roots to make images of.

use crate::machine::State;
use crate::{host, rootfs, ssh, tidy};
use anyhow::{Context, Result, bail};
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How long the kernel may take to finish in the background what was torn down.
const SETTLE: Duration = Duration::from_secs(20);

/// One floor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Floor {
    /// Functions from values to values; the checks of xtask; the rules of the house.
    Unit,
    /// Rooms against the real kernel.
    Kernel,
    /// The whole program.
    E2e,
    /// Garden's protocol, held against its specification.
    Garden,
}

/// From below.
pub const ALL: [Floor; 4] = [Floor::Unit, Floor::Kernel, Floor::E2e, Floor::Garden];

impl Floor {
    fn name(self) -> &'static str {
        match self {
            Floor::Unit => "unit",
            Floor::Kernel => "kernel",
            Floor::E2e => "e2e",
            Floor::Garden => "garden",
        }
    }
}

/// Runs the floors from below, all of them, and fails when any of them did.
pub fn run(floors: &[Floor], args: &[&str]) -> Result<()> {
    if floors.iter().any(|floor| *floor != Floor::Unit) {
        let all = floors.len() > 1;
        host::need_root(&if all {
            "test".to_owned()
        } else {
            format!("test {}", floors[0].name())
        })?;
    }
    host::need_target()?;
    let mut lines = Vec::new();
    let mut failed = Vec::new();
    for floor in floors {
        let begun = Instant::now();
        let mut count = Count::default();
        let result = one(*floor, args, &mut count);
        let Count { passed, failed: broken } = count;
        let seconds = begun.elapsed().as_secs();
        lines.push(format!("{}: {passed} passed, {broken} failed, {seconds} s", floor.name()));
        if let Err(err) = result {
            lines.push(format!("{}: {err:#}", floor.name()));
            failed.push(floor.name());
        }
    }
    println!("{}", lines.join("\n"));
    if !failed.is_empty() {
        bail!("{} failed", failed.join(", "));
    }
    Ok(())
}

fn one(floor: Floor, args: &[&str], count: &mut Count) -> Result<()> {
    let target = host::target();
    let package = ["test", "--package", "terrarium", "--target", &target];
    match floor {
        Floor::Unit => {
            let library = cargo_test(host::cargo().args(package).arg("--lib"), args, count);
            // A filter is meant for the program's tests.
            if !args.is_empty() {
                return library;
            }
            let chores = cargo_test(host::cargo().args(["test", "--package", "xtask"]), &[], count);
            tidy::run().and(library).and(chores)
        }
        Floor::Kernel => {
            let stacks = ["tiny"];
            in_the_lab(&stacks, host::cargo().args(package).args(["--test", "kernel"]), args, count)
        }
        Floor::E2e => {
            // The second stack takes minutes the first time; a quick round can do without.
            let stacks = std::env::var("TERRARIUM_E2E_STACKS").ok();
            let stacks: Vec<&str> =
                stacks.as_deref().unwrap_or("tiny edgefs").split_whitespace().collect();
            let stacks = [&stacks[..], &rootfs::SOFTWARE].concat();
            ssh::run()?;
            whole_programs(
                &stacks,
                host::cargo().args(package).args(["--test", "e2e"]),
                args,
                count,
            )
        }
        Floor::Garden => {
            let stacks = ["tiny"];
            let tests = ["--test", "garden"];
            whole_programs(&stacks, host::cargo().args(package).args(tests), args, count)
        }
    }
}

/// Tests that start whole programs: as many at a time as the machine bears.
fn whole_programs(
    stacks: &[&str],
    cargo: &mut Command,
    args: &[&str],
    count: &mut Count,
) -> Result<()> {
    let mut args = args.to_vec();
    let threads = format!("--test-threads={}", side_by_side());
    if !args.iter().any(|arg| arg.starts_with("--test-threads")) {
        args.push(&threads);
    }
    in_the_lab(stacks, cargo, &args, count)
}

/// Whole programs at a time: each starts containers of its own.
fn side_by_side() -> usize {
    std::thread::available_parallelism().map_or(1, |cores| cores.get().min(4))
}

/// Runs tests that touch the machine, and sees that they leave it as it was.
fn in_the_lab(
    stacks: &[&str],
    cargo: &mut Command,
    args: &[&str],
    count: &mut Count,
) -> Result<()> {
    host::need(host::LAB)?;
    host::need(host::TESTS)?;
    for stack in stacks {
        rootfs::run(stack, rootfs::Mode::WhenNeeded)?;
    }
    let program = host::build(false)?;
    cargo.env("TERRARIUM_BIN", program).env("TERRARIUM_STACKS", rootfs::output());
    // Compiling is no part of what is compared.
    let mut compile = host::cargo();
    host::run(compile.args(cargo.get_args()).arg("--no-run").arg("--quiet"))?;
    let before = State::read();
    let tests = cargo_test(cargo, args, count);
    let clean = before.need_same(SETTLE);
    match (tests, clean) {
        (Err(tests), Err(clean)) => bail!("{tests:#}; {clean:#}"),
        (tests, clean) => tests.and(clean),
    }
}

/// How many tests went which way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    pub passed: u64,
    pub failed: u64,
}

impl Count {
    /// Adds what a closing line says: `test result: ok. 3 passed; 0 failed; ...`.
    pub fn add(&mut self, line: &str) {
        let Some((_, numbers)) =
            line.strip_prefix("test result: ").and_then(|rest| rest.split_once(". "))
        else {
            return;
        };
        for part in numbers.split(';') {
            match part.trim().split_once(' ') {
                Some((number, "passed")) => self.passed += number.parse().unwrap_or(0),
                Some((number, "failed")) => self.failed += number.parse().unwrap_or(0),
                _ => {}
            }
        }
    }
}

/// Runs `cargo test`, shows all it prints, and counts.
fn cargo_test(cargo: &mut Command, args: &[&str], count: &mut Count) -> Result<()> {
    cargo.arg("--").args(args).stdout(Stdio::piped());
    let name = host::shown(cargo);
    let mut child = cargo.spawn().with_context(|| format!("cannot run {name}"))?;
    let stdout = child.stdout.take().expect("it was asked for");
    for line in BufReader::new(stdout).lines() {
        let line = line?;
        println!("{line}");
        count.add(&line);
    }
    match child.wait()?.success() {
        true => Ok(()),
        false => bail!("{name} failed"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closing_lines_add_up() {
        let mut count = Count::default();
        count.add("test result: ok. 12 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out");
        count.add("test result: FAILED. 3 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out");
        count.add("test a::b ... ok");
        assert_eq!(count, Count { passed: 15, failed: 2 });
    }
}
