//! `cargo xtask bench`: create, run to the first byte, destroy; beside the runtimes that this
//! machine has, in the same run, from the same root files; and what the daemon uses at rest.
//!
//! A peer's `create` is create and start, until its first process runs; `run` is a process that is
//! added to it, until its first byte of output; `destroy` is until the command answers. Peers make
//! no network and no disk limit here (an OCI runtime leaves those to its caller), we do; on the
//! other hand each of their steps starts a program, and ours are calls of a daemon that runs.
//!
//! Everything happens in mounts, process ids and a network of its own, as the demo does.

pub mod garden;
pub mod pull;
mod rest;
mod table;

use crate::machine::State;
use crate::{demo, host, rootfs};
use anyhow::{Context, Result, bail};
use serde::Deserialize;
use serde_json::json;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Medians of fewer say little.
const ROUNDS: usize = 40;

/// OCI runtimes, which share one command line.
const PEERS: [&str; 2] = ["crun", "runc"];

/// Between one round and the next; ours waits as long.
const CALM: Duration = Duration::from_millis(100);

/// What is torn down in the background.
const SETTLE: Duration = Duration::from_secs(20);

/// What was measured of one runtime, round by round.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Figures {
    create_us: Vec<u64>,
    run_us: Vec<u64>,
    destroy_us: Vec<u64>,
    /// While the kernel still removes an earlier container, where it is ours.
    #[serde(default)]
    create_again_us: Vec<u64>,
    /// Proportional set size of every pid 1, where it is ours.
    #[serde(default)]
    pid1_pss_kib: Vec<u64>,
    /// What the kernel alone takes: a program, namespaces and mounts, links.
    #[serde(default)]
    floor_program_us: Vec<u64>,
    #[serde(default)]
    floor_inside_us: Vec<u64>,
    #[serde(default)]
    floor_links_us: Vec<u64>,
}

/// Prepares on the host, then runs [`inside`] apart from it.
pub fn run() -> Result<()> {
    host::need_root("bench")?;
    host::need(host::LAB)?;
    let stack = rootfs::run("tiny", rootfs::Mode::WhenNeeded)?;
    let program = host::build(true)?;
    let before = State::read();
    let mut apart = host::alone();
    apart.arg("--net").arg(std::env::current_exe()?);
    apart.args(["bench", "--inside"]).arg(&stack).arg(&program);
    let result = host::run(&mut apart);
    let clean = before.need_same(SETTLE).context("the bench was to leave nothing");
    result.and(clean)
}

/// Measures all and prints the table, as the first process of its own namespaces.
pub fn inside(stack: &Path, program: &Path) -> Result<()> {
    demo::a_small_network()?;
    eprintln!("measuring the daemon at rest");
    let rest = rest::measure(program, stack)?;
    eprintln!("measuring containers, {ROUNDS} rounds");
    let ours = ours(program, stack)?;
    one_cgroup_version();
    let mut peers = Vec::new();
    let mut unmeasured = Vec::new();
    for peer in PEERS.into_iter().filter(|peer| host::find(peer).is_some()) {
        eprintln!("measuring {peer}");
        match theirs(peer, stack) {
            Ok(figures) => peers.push((peer, figures)),
            // Old runtimes refuse some kernels; that is no failure of ours.
            Err(err) => unmeasured.push(format!("{peer} does not run here: {err:#}")),
        }
    }
    println!("{}", table::latencies(&ours, &peers));
    println!("{}", table::floor(&ours));
    println!("{}", table::sizes(&ours, &rest, std::fs::metadata(program)?.len()));
    unmeasured.iter().for_each(|line| println!("{line}"));
    if peers.len() + unmeasured.len() == 0 {
        println!("no peer is installed: `apt-get install crun` adds one");
    }
    Ok(())
}

/// Takes the version 2 mount out of our own mounts where version 1 has the controllers: some peers
/// refuse to see both, and use only the latter. A box without it says so, and nothing is lost.
fn one_cgroup_version() {
    let mut umount = Command::new("umount");
    let _ = umount.args(["--lazy", "/sys/fs/cgroup/unified"]).stderr(Stdio::null()).status();
}

/// Our own figures: the program measures itself and prints them as JSON.
fn ours(program: &Path, stack: &Path) -> Result<Figures> {
    let mut command = Command::new(program);
    command.arg("bench").arg("--stack").arg(stack).args(["--rounds", &ROUNDS.to_string()]);
    // Its files lie on the disk that the peers' lie on.
    command.env("TMPDIR", host::target_dir());
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
        std::thread::sleep(CALM);
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
        let bundle = Bundle(host::target_dir().join("bench/bundle"));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_figures_are_read() {
        let text = r#"{"create_us":[1],"run_us":[2],"destroy_us":[3],"pid1_pss_kib":[4]}"#;
        let figures: Figures = serde_json::from_str(text).expect("figures");
        assert_eq!((figures.create_us, figures.pid1_pss_kib), (vec![1], vec![4]));
    }
}
