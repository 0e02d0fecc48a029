//! `cargo xtask bench pull`: from a registry on loopback to files on btrfs; beside skopeo with umoci,
//! podman, and tar alone, in the same run, on the same disk, round by round in turn.
//!
//! A pull is cold when the store has nothing of the image; what the registry reads is in memory for
//! everybody. Time is that of the command; the processor's is the user's and the kernel's of all its
//! processes, and of the daemon where there is one, but neither the registry's nor that of threads
//! of the kernel's own. We write a layer down on the disk before we show it, the others do not.
//!
//! Everything happens in mounts, process ids and a network of its own, as the demo does.

mod image;
pub mod meter;
mod peer;
mod table;

use super::SETTLE;
use crate::machine::{self, State};
use crate::{demo, host, rootfs};
use anyhow::{Context, Result, bail};
use image::{Image, PACKINGS, Packed};
use meter::Cost;
use peer::{Ours, PEERS, Peer, Role};
use std::fs::File;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Also the name of its directory below `target`, and the end of its control groups' parent.
const CHORE: &str = "pbench";
const CGROUPS: &str = "terrarium-pbench";
const REGISTRY: &str = "127.0.0.1:5000";
const REGISTRY_STARTS: Duration = Duration::from_secs(60);

/// Rounds, unless the caller says how many.
pub const ROUNDS: usize = 5;
/// The file system that peers work on.
const GROUND_BYTES: u64 = 4 << 30;

/// What was measured of one of them with one image.
#[derive(Clone, Debug)]
pub struct Row {
    name: &'static str,
    role: Role,
    cold: Vec<Cost>,
    warm: Vec<Cost>,
}

/// One image in one packing.
#[derive(Clone, Debug)]
pub struct Section {
    image: &'static str,
    packing: &'static str,
    layers: usize,
    entries: u64,
    bytes: u64,
    packed_bytes: u64,
    /// What the daemon had in memory before its first pull of it.
    rest_kib: u64,
    rows: Vec<Row>,
}

/// Prepares on the host, then runs [`inside`] apart from it.
pub fn run(rounds: usize) -> Result<()> {
    host::need_root("bench pull")?;
    host::need(host::LAB)?;
    host::need(host::PULL)?;
    let tiny = rootfs::run("tiny", rootfs::Mode::WhenNeeded)?;
    let stack = rootfs::run("edgefs", rootfs::Mode::WhenNeeded)?;
    let program = host::build(true)?;
    let root = demo::lay_out(&tiny, CHORE)?;
    let settings = format!(
        "[cgroup]\nparent = \"{CGROUPS}\"\n[self_check]\ninterval = \"never\"\n[registry]\ninsecure = [\"{REGISTRY}\"]\n"
    );
    std::fs::write(root.join("etc/terrarium/terrarium.toml"), settings)?;
    let dir = host::target_dir().join(CHORE);
    let mut apart = host::alone();
    apart.arg("--net").arg(std::env::current_exe()?);
    apart.args(["bench", "pull", "--inside", &rounds.to_string()]);
    let result = host::run(apart.arg(&tiny).arg(&stack).arg(&program));
    // The kernel ends what a broken bench had started, but leaves its empty groups.
    machine::remove_cgroups(CGROUPS);
    let clean = State::need_none(&[CGROUPS, &dir.to_string_lossy()], SETTLE);
    // As large as all images together: it goes even when something failed.
    let log = std::fs::read_to_string(dir.join("daemon.log")).unwrap_or_default();
    let gone =
        std::fs::remove_dir_all(&dir).with_context(|| format!("cannot remove {}", dir.display()));
    if result.is_err() {
        eprintln!("the daemon's log:\n{log}");
    }
    result.and(clean.context("the bench was to leave nothing"))?;
    gone
}

/// Measures all and prints it, as the first process of its own namespaces.
pub fn inside(rounds: usize, tiny: &Path, stack: &Path, program: &Path) -> Result<()> {
    demo::a_small_network()?;
    let dir = host::target_dir().join(CHORE);
    eprintln!("making images");
    let images = dir.join("images");
    std::fs::create_dir_all(&images)?;
    let images_made = image::make(&images, tiny, stack)?;
    let _registry = Registry::start(&dir)?;
    let ground = ground(&dir)?;
    let root = dir.join("root");
    let mut daemon = demo::Daemon::start(program, &root, &dir.join("daemon.log"))?;
    daemon.wait_for_socket(&demo::socket(&root))?;
    let ours = Ours { program, root: &root, daemon: daemon.id() };
    let load = || std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    println!("load before: {}", load().trim());
    for image in &images_made {
        for packing in &PACKINGS {
            let packed = image::push(image, packing, &images, REGISTRY)?;
            eprintln!("measuring {}, {}, {rounds} rounds", image.name, packed.packing);
            let section = section(rounds, image, &packed, &ours, &ground)?;
            println!("{}", table::section(&section));
        }
    }
    println!("load after: {}", load().trim());
    for peer in PEERS {
        if let Some(program) = peer.missing() {
            println!("{} was not measured: {program} is not installed", peer.name);
        }
    }
    println!("{}", table::NOTES);
    daemon.stop()?;
    host::run(Command::new("umount").arg(&ground))
}

/// One image, all in turn; who is first changes from round to round.
fn section(
    rounds: usize,
    image: &Image,
    packed: &Packed,
    ours: &Ours<'_>,
    ground: &Path,
) -> Result<Section> {
    let peers: Vec<&Peer> = PEERS.iter().filter(|peer| peer.takes(packed.packing)).collect();
    let row = |name, role| Row { name, role, cold: Vec::new(), warm: Vec::new() };
    let mut rows = vec![row("terrarium", Role::Ours)];
    rows.extend(peers.iter().map(|peer| row(peer.name, peer.role)));
    let mut rest_kib = None;
    for round in 0..rounds {
        for turn in 0..rows.len() {
            let at = (round + turn) % rows.len();
            let (cold, warm) = match at.checked_sub(1) {
                None => {
                    let (cold, warm, rest) = ours.round(packed)?;
                    rest_kib.get_or_insert(rest);
                    (cold, warm)
                }
                Some(at) => peers[at].round(image, packed, ground)?,
            };
            rows[at].cold.push(cold);
            rows[at].warm.extend(warm);
        }
    }
    Ok(Section {
        image: image.name,
        packing: packed.packing,
        layers: packed.layers.len(),
        entries: image.entries,
        bytes: image.bytes,
        packed_bytes: packed.bytes,
        rest_kib: rest_kib.unwrap_or_default(),
        rows,
    })
}

/// A btrfs of its own for the others; the loop device goes with the mount.
fn ground(dir: &Path) -> Result<PathBuf> {
    let (file, place) = (dir.join("ground.img"), dir.join("ground"));
    // As the store's own file is made.
    let length = GROUND_BYTES.to_string();
    host::run(Command::new("fallocate").args(["--length", &length]).arg(&file))?;
    let mut format = Command::new("mkfs.btrfs");
    host::run(format.args(["--quiet", "--nodiscard"]).arg(&file).stderr(Stdio::null()))?;
    std::fs::create_dir_all(&place)?;
    host::run(Command::new("mount").args(["-o", "loop"]).arg(&file).arg(&place))?;
    Ok(place)
}

/// docker's own registry, ended with us at the latest.
struct Registry(Child);

impl Registry {
    fn start(dir: &Path) -> Result<Registry> {
        let (config, log) = (dir.join("registry.yml"), dir.join("registry.log"));
        let text = format!(
            "version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\nstorage: \
             {{filesystem: {{rootdirectory: {}/registry}}}}\nhttp: {{addr: \"{REGISTRY}\"}}\n",
            dir.display()
        );
        std::fs::write(&config, text)?;
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(&config).env("OTEL_TRACES_EXPORTER", "none");
        command.stdout(Stdio::null()).stderr(File::create(&log)?);
        let mut registry = Registry(command.spawn().context("cannot start docker-registry")?);
        let begun = Instant::now();
        while TcpStream::connect(REGISTRY).is_err() {
            let ended = registry.0.try_wait()?.is_some();
            if ended || begun.elapsed() > REGISTRY_STARTS {
                let said = std::fs::read_to_string(&log).unwrap_or_default();
                bail!("docker-registry does not listen on {REGISTRY}: {}", said.trim());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(registry)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        // Ended already, or past helping: either way there is nobody to tell.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
