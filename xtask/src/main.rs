//! Every chore of this repository is a verb of `cargo xtask`.

mod bench;
mod buildpack;
mod ci;
mod demo;
mod dist;
mod elf;
mod host;
mod machine;
mod progress;
mod rootfs;
mod sim;
mod ssh;
mod test;
mod tidy;
mod vm;

use anyhow::{Context, Result, bail};
use std::path::Path;
use std::process::ExitCode;
use test::Floor;

const HELP: &str = "\
cargo xtask COMMAND
  demo                              one app from its manifest to its HTTP answers (root)
  buildpack APP PACK...             the life of an app by buildpacks from elsewhere, each a directory, zip or
                                    tgz (root)
  test [FLOOR] [-- ARGS]            the tests: unit, kernel, e2e, garden; all but unit need root
  tidy                              the rules of the house that the compiler does not hold
  rootfs NAME [--rebuild|--check]   build a stack into target/rootfs; --check builds it twice
  ssh                               build the SSH server that containers carry, into target/rootfs/ssh
  sim [--seeds N] [--seed S] [--trace] [--mutants] [--deaths]
                                    the cell on virtual time, in scripted worlds
  dist                              the shipped program: one static file
  bench                             latencies, beside other runtimes of this machine (root)
  bench garden [RESERVE]            the same through Garden's protocol, beside 250 containers; with so
                                    many halves of containers made ahead (root)
  bench pull [ROUNDS]               pulling images, beside skopeo, umoci, podman and tar (root)
  vm [COMMAND]                      a guest with systemd and a kernel of its own, and tests in it (root)
  ci                                exactly what the server runs (root)";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            eprintln!("xtask: {err:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &[&str]) -> Result<()> {
    match args {
        ["bench"] => bench::run(),
        // How the bench calls itself again, apart from the machine.
        ["bench", "--inside", stack, program] => {
            bench::inside(Path::new(stack), Path::new(program))
        }
        ["bench", "garden"] => bench::garden::run(None),
        ["bench", "garden", reserve] => {
            let number = reserve.parse().with_context(|| format!("{reserve} is no number"))?;
            bench::garden::run(Some(number))
        }
        ["bench", "garden", "--inside", stack, program] => {
            bench::garden::inside(Path::new(stack), Path::new(program))
        }
        ["bench", "pull"] => bench::pull::run(bench::pull::ROUNDS),
        ["bench", "pull", "--inside", rounds, tiny, stack, program] => bench::pull::inside(
            number(rounds)?,
            Path::new(tiny),
            Path::new(stack),
            Path::new(program),
        ),
        ["bench", "pull", "--meter", rest @ ..] => bench::pull::meter::inside(rest),
        ["bench", "pull", rounds] => bench::pull::run(number(rounds)?),
        // How it calls itself again, apart from the machine.
        ["buildpack", "--inside", root, program, app, names @ ..] => {
            buildpack::inside(Path::new(root), Path::new(program), Path::new(app), names)
        }
        ["buildpack", app, packs @ ..] if !packs.is_empty() => buildpack::run(app, packs),
        ["ci"] => ci::run(),
        ["demo"] => demo::run(),
        // How the demo calls itself again, apart from the machine.
        ["demo", "--inside", root, program] => demo::inside(Path::new(root), Path::new(program)),
        ["dist"] => dist::run().map(drop),
        ["rootfs", name] => rootfs::run(name, rootfs::Mode::WhenNeeded).map(drop),
        ["rootfs", name, "--rebuild"] => rootfs::run(name, rootfs::Mode::Rebuild).map(drop),
        ["rootfs", name, "--check"] => rootfs::run(name, rootfs::Mode::Check).map(drop),
        ["test"] => test::run(&test::ALL, &[]),
        ["test", "--", rest @ ..] => test::run(&test::ALL, rest),
        ["test", floor] => test::run(&[named(floor)?], &[]),
        ["test", floor, "--", rest @ ..] => test::run(&[named(floor)?], rest),
        ["sim", rest @ ..] => sim::run(rest),
        ["ssh"] => ssh::run().map(drop),
        ["tidy"] => tidy::run(),
        ["vm", rest @ ..] => vm::run(rest),
        ["help" | "--help" | "-h"] => {
            println!("{HELP}");
            Ok(())
        }
        _ => bail!("no such command\n{HELP}"),
    }
}

fn number(text: &str) -> Result<usize> {
    match text.parse() {
        Ok(number) if number > 0 => Ok(number),
        _ => bail!("`{text}` is no number of rounds\n{HELP}"),
    }
}

fn named(floor: &str) -> Result<Floor> {
    match floor {
        "unit" => Ok(Floor::Unit),
        "kernel" => Ok(Floor::Kernel),
        "e2e" => Ok(Floor::E2e),
        "garden" => Ok(Floor::Garden),
        _ => bail!("no such floor of tests: {floor}; there are unit, kernel, e2e, garden"),
    }
}
