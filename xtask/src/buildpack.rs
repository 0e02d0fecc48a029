//! `cargo xtask buildpack APP PACK...`: an app through its life by buildpacks that are not ours (D95).
//!
//! They are somebody else's, and not in this repository: whoever has one, as a directory, zip or tgz, sees
//! here whether it works as it is, with the commands that a person would type. What is shown is what was
//! answered; the first thing that is not so ends it.

use crate::demo::{self, Daemon};
use crate::machine::{self, State};
use crate::{host, rootfs};
use anyhow::{Context, Result, bail, ensure};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// What the app is called.
const APP: &str = "tried";
/// Parent of its control groups, as [`demo::lay_out`] names it.
const CGROUPS: &str = "terrarium-buildpack";
const SETTLE: Duration = Duration::from_secs(20);

/// Prepares on the host, then runs [`inside`] apart from it.
pub fn run(app: &str, packs: &[&str]) -> Result<()> {
    host::need_root("buildpack")?;
    host::need(host::LAB)?;
    let app = std::fs::canonicalize(app).with_context(|| format!("cannot find the app {app}"))?;
    let names: Vec<String> = packs.iter().map(|pack| name_of(pack)).collect::<Result<_>>()?;
    let stack = rootfs::run("edgefs", rootfs::Mode::WhenNeeded)?;
    let program = host::build(false)?;
    let root = demo::lay_out(&stack, "buildpack")?;
    let shelf = root.join("etc/terrarium/buildpacks");
    std::fs::create_dir_all(&shelf)?;
    for pack in packs {
        // With its modes and links, whatever it is.
        host::run(
            Command::new("cp").args(["-a", "--"]).arg(std::fs::canonicalize(pack)?).arg(&shelf),
        )?;
    }

    let mut apart = host::alone();
    apart.arg("--net").arg(std::env::current_exe()?).args(["buildpack", "--inside"]);
    let result = host::run(apart.arg(&root).arg(&program).arg(&app).args(names));
    machine::remove_cgroups(CGROUPS);
    let clean = State::need_none(&[CGROUPS, &root.to_string_lossy()], SETTLE);
    result.and(clean.context("it was to leave nothing"))?;
    std::fs::remove_dir_all(&root)?;
    println!("\nbuildpack: done, nothing is left");
    Ok(())
}

/// What the box calls a buildpack: its file's name without what tells the form of an archive.
fn name_of(pack: &str) -> Result<String> {
    let path = PathBuf::from(pack);
    let whole = std::fs::canonicalize(&path).with_context(|| format!("cannot find {pack}"))?;
    let name = whole.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let ends = [".zip", ".tgz", ".tar.gz"];
    let short = ends.iter().find_map(|end| name.strip_suffix(end));
    match (whole.is_dir(), short) {
        (true, _) => Ok(name.to_owned()),
        (false, Some(short)) => Ok(short.to_owned()),
        (false, None) => bail!("{pack} is neither a directory nor a zip or tgz"),
    }
}

/// The trial itself, as the first process of its own namespaces.
pub fn inside(root: &Path, program: &Path, app: &Path, names: &[&str]) -> Result<()> {
    demo::a_small_network()?;
    let log = root.with_file_name("daemon.log");
    let mut daemon = Daemon::start(program, root, &log)?;
    daemon.wait_for_socket(&demo::socket(root))?;
    let result = live(root, program, app, names, &mut daemon).and_then(|()| daemon.stop());
    result.with_context(|| format!("see also {}", log.display()))
}

/// Pushed, reached, restarted, scaled, staged again, made smaller, and rolled back from that.
fn live(
    root: &Path,
    program: &Path,
    app: &Path,
    names: &[&str],
    daemon: &mut Daemon,
) -> Result<()> {
    let terrarium = |args: &[&str]| {
        println!("\n$ terrarium {}", args.join(" "));
        host::run(Command::new(program).arg("--root").arg(root).args(args))
    };
    let mut answers = |least: usize| -> Result<()> {
        let view = demo::wait_until_running(APP, root, program, daemon)?;
        let ports = demo::ports(&view);
        ensure!(ports.len() >= least, "{} instances have a port, not {least}", ports.len());
        ports.iter().try_for_each(|it| demo::fetch(it.host, &format!("{APP}/{}", it.index)))
    };
    let app = app.to_str().context("the app's path is no UTF-8")?;
    let mut push = vec!["push", app, "-n", APP, "-k", "512M"];
    push.extend(names.iter().flat_map(|name| ["-b", *name]));
    terrarium(&[&push[..], &["-m", "256M"]].concat())?;
    answers(1)?;
    terrarium(&["restart", APP])?;
    answers(1)?;
    terrarium(&["scale", &format!("{APP}=2")])?;
    answers(2)?;
    // With the cache that the first staging has left.
    terrarium(&["restage", APP])?;
    answers(2)?;
    terrarium(&[&push[..], &["-m", "192M"]].concat())?;
    answers(1)?;
    terrarium(&["revisions", APP])?;
    terrarium(&["rollback", APP, "--to", "1"])?;
    answers(1)?;
    terrarium(&["delete", APP])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buildpack_is_called_as_the_box_calls_it() {
        let top = host::top();
        let of = |name: &str| name_of(&top.join(name).to_string_lossy());
        assert_eq!(of("config/buildpacks/procfile").expect("a directory"), "procfile");
        assert!(of("Cargo.toml").is_err() && of("nosuch").is_err());
    }
}
