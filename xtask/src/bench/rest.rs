//! What the daemon uses while nothing happens.

use crate::{demo, host};
use anyhow::{Context, Result};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// How long it is watched.
const IDLE: Duration = Duration::from_secs(10);
/// What follows a start in the background.
const CALM: Duration = Duration::from_secs(2);

/// Ten instances of the smallest app there is.
const MANIFEST: &str = "name = \"bench\"\n\
    [source]\npath = \"src\"\n\
    [build]\nbuildpacks = [\"procfile\"]\nstack = \"tiny\"\n\
    [process.worker]\ncommand = \"sleep 100000\"\ninstances = 10\nmemory = \"16MiB\"\n\
    disk = \"32MiB\"\nhealth = { type = \"process\" }\n";

/// The daemon at rest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rest {
    /// Proportional set size without containers.
    pub empty_kib: u64,
    /// The same with ten instances that run.
    pub full_kib: u64,
    /// How long the next two were looked at, with ten instances.
    pub idle_s: u64,
    /// Hundredths of a second of processor time.
    pub idle_ticks: u64,
    /// To storage.
    pub idle_written_bytes: u64,
}

/// Starts a daemon, lets it run ten instances, and takes both away again.
pub fn measure(program: &Path, stack: &Path) -> Result<Rest> {
    let root = demo::lay_out(stack, "bench")?;
    let log = root.with_file_name("daemon.log");
    let mut daemon = demo::Daemon::start(program, &root, &log)?;
    let measured = look(program, &root, &mut daemon).and_then(|rest| {
        daemon.stop()?;
        Ok(rest)
    });
    let rest = measured.with_context(|| format!("the daemon's log is {}", log.display()))?;
    std::fs::remove_dir_all(&root)?;
    Ok(rest)
}

fn look(program: &Path, root: &Path, daemon: &mut demo::Daemon) -> Result<Rest> {
    daemon.wait_for_socket(&demo::socket(root))?;
    std::thread::sleep(CALM);
    let id = daemon.id();
    let empty_kib = daemon_pss_kib(id)?;

    std::fs::create_dir_all(root.join("src"))?;
    std::fs::write(root.join("src/Procfile"), "")?;
    let manifest = root.join("bench.toml");
    std::fs::write(&manifest, MANIFEST)?;
    let terrarium = |args: &[&str]| {
        let mut command = Command::new(program);
        command.arg("--root").arg(root).args(args).stdout(Stdio::null());
        host::run(&mut command)
    };
    terrarium(&["apply", &manifest.to_string_lossy()])?;
    demo::wait_until_running("bench", root, program, daemon)?;
    std::thread::sleep(CALM);
    let full_kib = daemon_pss_kib(id)?;

    let (ticks, written) = (ticks(id)?, written_bytes(id)?);
    std::thread::sleep(IDLE);
    let rest = Rest {
        empty_kib,
        full_kib,
        idle_s: IDLE.as_secs(),
        idle_ticks: self::ticks(id)? - ticks,
        idle_written_bytes: written_bytes(id)? - written,
    };
    terrarium(&["delete", "bench"])?;
    Ok(rest)
}

pub fn pss_kib(id: u32) -> Result<u64> {
    field(&format!("/proc/{id}/smaps_rollup"), "Pss:")
}

/// The same of a daemon with its children that are no container's: the process that it copies, and each
/// pid 1 that it has made ahead. They are in the daemon's own control groups.
pub fn daemon_pss_kib(daemon: u32) -> Result<u64> {
    let groups = |id: u32| std::fs::read_to_string(format!("/proc/{id}/cgroup")).ok();
    let dir = format!("/proc/{daemon}/task");
    let threads = std::fs::read_dir(&dir).with_context(|| format!("cannot read {dir}"))?;
    // A thread that has ended meanwhile has given its children to another; the next look finds them.
    let lists = threads.flatten().map(|thread| thread.path().join("children"));
    let children: String = lists.flat_map(std::fs::read_to_string).collect();
    let beside = children.split_whitespace().filter_map(|id| id.parse().ok());
    let beside = beside.filter(|id| groups(*id).is_some_and(|its| Some(its) == groups(daemon)));
    beside.map(pss_kib).try_fold(pss_kib(daemon)?, |sum, kib| Ok(sum + kib?))
}

fn written_bytes(id: u32) -> Result<u64> {
    field(&format!("/proc/{id}/io"), "write_bytes:")
}

/// The number after `name` in a file of the kernel's.
pub fn field(file: &str, name: &str) -> Result<u64> {
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {file}"))?;
    let rest = text.lines().find_map(|line| line.strip_prefix(name));
    let number = rest.and_then(|rest| rest.split_whitespace().next()?.parse().ok());
    number.with_context(|| format!("{file} has no {name}"))
}

/// Processor time of its own so far: fields 14 and 15 of stat, after the name in brackets.
pub fn ticks(id: u32) -> Result<u64> {
    let file = format!("/proc/{id}/stat");
    let text = std::fs::read_to_string(&file).with_context(|| format!("cannot read {file}"))?;
    let after = text.rsplit_once(')').map_or("", |(_, after)| after);
    let fields: Vec<u64> =
        after.split_whitespace().skip(11).take(2).filter_map(|word| word.parse().ok()).collect();
    Ok(fields.iter().sum())
}
