//! `cargo xtask bench`: create, run to the first byte, destroy; beside the runtimes that this
//! machine has, in the same run, from the same root files.
//!
//! A peer's `create` is create and start, until its first process runs; `run` is a process that is
//! added to it, until its first byte of output; `destroy` is until the command answers. Peers make
//! no network here (an OCI runtime leaves that to its caller), we do: the comparison is in their
//! favour.

use crate::machine::State;
use crate::{host, rootfs};
use anyhow::{Context, Result, bail};
use serde::Deserialize;
use serde_json::json;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Medians of fewer say little.
const ROUNDS: usize = 25;

/// OCI runtimes, which share one command line.
const PEERS: [&str; 2] = ["crun", "runc"];

/// What was measured of one runtime, round by round.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Figures {
    create_us: Vec<u64>,
    run_us: Vec<u64>,
    destroy_us: Vec<u64>,
    /// Proportional set size of the daemon, where there is one.
    #[serde(default)]
    pss_kib: Option<u64>,
}

/// Measures all and prints the table.
pub fn run() -> Result<()> {
    host::need_root("bench")?;
    host::need(host::LAB)?;
    let stack = rootfs::run("tiny", rootfs::Mode::WhenNeeded)?;
    let program = host::build(true)?;
    let before = State::read();

    let mut rows = vec![("terrarium", ours(&program, &stack)?)];
    let mut unmeasured = Vec::new();
    for peer in PEERS.into_iter().filter(|peer| host::find(peer).is_some()) {
        match theirs(peer, &stack) {
            Ok(figures) => rows.push((peer, figures)),
            // Old runtimes refuse some kernels; that is no failure of ours.
            Err(err) => unmeasured.push(format!("{peer} does not run here: {err:#}")),
        }
    }
    println!("{}", table(&rows));
    unmeasured.iter().for_each(|line| println!("{line}"));
    if rows.len() + unmeasured.len() == 1 {
        println!("no peer is installed: `apt-get install crun` adds one");
    }
    before.need_same(Duration::from_secs(20))
}

/// Our own figures: the program measures itself and prints them as JSON.
fn ours(program: &Path, stack: &Path) -> Result<Figures> {
    let mut command = Command::new(program);
    command.arg("bench").arg("--stack").arg(stack).args(["--rounds", &ROUNDS.to_string()]);
    let text = host::capture(&mut command)?;
    let figures: Figures = serde_json::from_str(&text)
        .with_context(|| format!("`terrarium bench` printed no figures: {text}"))?;
    for list in [&figures.create_us, &figures.run_us, &figures.destroy_us] {
        if list.len() < 20 {
            bail!("`terrarium bench` measured {} rounds, less than 20", list.len());
        }
    }
    Ok(figures)
}

/// The figures of an OCI runtime.
fn theirs(peer: &str, stack: &Path) -> Result<Figures> {
    let bundle = Bundle::make(stack)?;
    let call = |args: &[&str]| {
        let mut command = Command::new(peer);
        command.arg("--root").arg(bundle.0.join("state"));
        command.args(args).stdin(Stdio::null());
        command
    };
    let folder = bundle.0.to_string_lossy();
    let mut figures = Figures::default();
    for round in 0..ROUNDS {
        let name = format!("xtask-bench-{}-{round}", std::process::id());
        let made = measured(|| {
            // Its output goes nowhere: the container inherits it and would keep a pipe open.
            let mut create = call(&["create", "--bundle", &folder, &name]);
            host::run(create.stdout(Stdio::null()).stderr(File::create(bundle.0.join("log"))?))?;
            host::run(&mut call(&["start", &name]))
        });
        let ran = made.and_then(|made| {
            figures.create_us.push(made.0);
            first_byte(&mut call(&["exec", &name, "/bin/echo", "x"]))
        });
        let gone = measured(|| host::run(&mut call(&["delete", "--force", &name])));
        figures.run_us.push(ran.with_context(|| {
            let log = std::fs::read_to_string(bundle.0.join("log")).unwrap_or_default();
            log.trim().to_owned()
        })?);
        figures.destroy_us.push(gone?.0);
    }
    Ok(figures)
}

fn measured<T>(act: impl FnOnce() -> Result<T>) -> Result<(u64, T)> {
    let begun = Instant::now();
    let done = act()?;
    Ok((micros(begun), done))
}

/// Time until a command's first byte of output; then waits for its end.
fn first_byte(command: &mut Command) -> Result<u64> {
    let begun = Instant::now();
    let mut child = command.stdout(Stdio::piped()).spawn()?;
    let mut byte = [0];
    let read = child.stdout.take().expect("it was asked for").read_exact(&mut byte);
    let took = micros(begun);
    let status = child.wait()?;
    if read.is_err() || !status.success() {
        bail!("{} failed: {status}", host::shown(command));
    }
    Ok(took)
}

fn micros(begun: Instant) -> u64 {
    u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX)
}

/// An OCI bundle: the stack unpacked, and a configuration with the usual namespaces.
struct Bundle(PathBuf);

impl Bundle {
    fn make(stack: &Path) -> Result<Bundle> {
        let bundle = Bundle(host::target_dir().join("bench"));
        bundle.remove()?;
        let root = bundle.0.join("rootfs");
        std::fs::create_dir_all(&root)?;
        let mut archive = tar::Archive::new(zstd::Decoder::new(File::open(stack)?)?);
        archive.set_preserve_permissions(true);
        archive.set_preserve_ownerships(true);
        archive.unpack(&root).context("cannot unpack the stack for a peer")?;
        std::fs::write(bundle.0.join("config.json"), config().to_string())?;
        Ok(bundle)
    }

    fn remove(&self) -> Result<()> {
        match std::fs::remove_dir_all(&self.0) {
            Err(err) if err.kind() != std::io::ErrorKind::NotFound => {
                Err(err).with_context(|| format!("cannot remove {}", self.0.display()))
            }
            _ => Ok(()),
        }
    }
}

impl Drop for Bundle {
    fn drop(&mut self) {
        if let Err(err) = self.remove() {
            eprintln!("warning: {err:#}");
        }
    }
}

fn config() -> serde_json::Value {
    let namespaces: Vec<_> =
        ["pid", "mount", "ipc", "uts", "network", "user"].map(|kind| json!({"type": kind})).into();
    let ids = json!([{"containerID": 0, "hostID": 100_000, "size": 65_536}]);
    let mount = |at: &str, kind: &str, options: &[&str]| json!({"destination": at, "type": kind, "source": kind, "options": options});
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "user": {"uid": 0, "gid": 0},
            "args": ["/bin/sleep", "1000"],
            "env": ["PATH=/bin"],
            "cwd": "/",
            "noNewPrivileges": true,
        },
        "root": {"path": "rootfs"},
        "hostname": "bench",
        "mounts": [
            mount("/proc", "proc", &[]),
            mount("/dev", "tmpfs", &["nosuid", "mode=755", "size=64k"]),
            mount("/dev/pts", "devpts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666"]),
        ],
        "linux": {
            "namespaces": namespaces,
            "uidMappings": ids,
            "gidMappings": ids,
            "resources": {"memory": {"limit": 64 << 20}, "pids": {"limit": 64}},
        },
    })
}

/// Medians, worst rounds in brackets, in milliseconds.
fn table(rows: &[(&str, Figures)]) -> String {
    let mut out = format!(
        "{:<16}{:>20}{:>20}{:>20}{:>12}\n",
        "", "create ms", "first byte ms", "destroy ms", "PSS KiB"
    );
    for (name, figures) in rows {
        let cell = |list: &[u64]| match (median(list), list.iter().max()) {
            (Some(median), Some(worst)) => format!("{} ({})", millis(median), millis(*worst)),
            _ => "-".to_owned(),
        };
        let pss = figures.pss_kib.map_or_else(|| "-".to_owned(), |kib| kib.to_string());
        let Figures { create_us, run_us, destroy_us, .. } = figures;
        let (create, run, destroy) = (cell(create_us), cell(run_us), cell(destroy_us));
        out.push_str(&format!("{name:<16}{create:>20}{run:>20}{destroy:>20}{pss:>12}\n"));
    }
    out.push_str(&format!("medians of {ROUNDS} rounds (worst round)"));
    out
}

fn median(list: &[u64]) -> Option<u64> {
    let mut sorted = list.to_vec();
    sorted.sort_unstable();
    let upper = *sorted.get(sorted.len() / 2)?;
    let lower = sorted[(sorted.len() - 1) / 2];
    Some(lower.midpoint(upper))
}

fn millis(us: u64) -> String {
    format!("{:.2}", us as f64 / 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median(&[9, 1, 5]), Some(5));
        assert_eq!(median(&[4, 1, 2, 9]), Some(3));
        assert_eq!(median(&[]), None);
    }

    #[test]
    fn the_table_lines_up() {
        let figures = Figures {
            create_us: vec![2_000, 3_000, 2_500],
            run_us: vec![1_000],
            destroy_us: Vec::new(),
            pss_kib: Some(4_100),
        };
        let text = table(&[("terrarium", figures)]);
        let row = text.lines().nth(1).expect("a row");
        let cells: Vec<&str> = row.split_whitespace().collect();
        assert_eq!(cells, ["terrarium", "2.50", "(3.00)", "1.00", "(1.00)", "-", "4100"]);
        assert_eq!(text.lines().next().map(str::len), Some(row.len()));
    }

    #[test]
    fn our_figures_are_read() {
        let text = r#"{"create_us":[1],"run_us":[2],"destroy_us":[3],"pss_kib":4}"#;
        let figures: Figures = serde_json::from_str(text).expect("figures");
        assert_eq!((figures.create_us, figures.pss_kib), (vec![1], Some(4)));
    }
}
