//! The box's own configuration: `terrarium.toml`, its drop-ins, and where everything lives.
//!
//! Every key has a default, so that a box without any file works. `config/terrarium.toml` shows
//! them all; a test holds it against this file.

mod bridge;
mod cell;
mod defaults;
mod garden;
mod memory;
mod net;
mod read;
mod registry;
#[cfg(test)]
mod tests;

pub use super::address::Registry;
pub use bridge::{Bbs, Bridge, CloudController};
pub use cell::{Cell, Pools, SelfCheck, Stacks};
pub use defaults::{Checks, Tasks};
pub use garden::{Cleanup, Garden, Graph, IdMapping, RootFs};
pub use net::{HostEntry, Net};
pub use registry::Registries;

use super::Diagnostics;
use super::diagnostic::Finding;
use super::sink::MAX_TEXT;
use super::words::word;
use crate::log::Level;
use crate::unit::{Bytes, Rate};
use std::fmt;
use std::io::{self, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// Most drop-ins that are read.
const DROP_INS_MAX: usize = 256;

/// Everything that the daemon is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Where everything lives.
    pub paths: Paths,
    /// `[cell]`.
    pub cell: Cell,
    /// `[stacks]`.
    pub stacks: Stacks,
    /// `[self_check]`.
    pub self_check: SelfCheck,
    /// `[health]`.
    pub health: Checks,
    /// `[tasks]`.
    pub tasks: Tasks,
    /// `[pools]`.
    pub pools: Pools,
    /// `[store]`.
    pub store: Store,
    /// `[net]`.
    pub net: Net,
    /// `[garden]`.
    pub garden: Garden,
    /// `[registry]`.
    pub registry: Registries,
    /// `[downloads]`.
    pub downloads: Downloads,
    /// `[cgroup]`.
    pub cgroup: Cgroup,
    /// `[log]`.
    pub log: Log,
    /// `[metrics]`.
    pub metrics: Metrics,
    /// `[socket]`.
    pub socket: Socket,
    /// `[bridge]`.
    pub bridge: Bridge,
    /// `[bbs]`.
    pub bbs: Bbs,
    /// `[cloud_controller]`.
    pub cloud_controller: CloudController,
}

/// A limit that the daemon works out itself unless it is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Amount<T> {
    /// `"auto"`.
    Auto,
    /// As written.
    Fixed(T),
}

/// The store of layers and of what containers write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Store {
    /// How far its file may grow; auto: 80 % of what was free on the host's file system.
    pub size_max: Amount<Bytes>,
    /// What was asked for a container's disk is its limit; `false`: it may write more.
    pub quotas: bool,
    /// When images that nothing is made of are removed; auto: above half of what the store can hold.
    pub images_max: Amount<Cleanup>,
}

/// What is kept of files that actions download.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Downloads {
    /// All together, unpacked; the most that one may be, too.
    pub size: Bytes,
    /// Where.
    pub dir: PathBuf,
}

/// Control groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cgroup {
    /// The group below which every container's group is made.
    pub parent: String,
}

/// What is kept of output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// How bad an event of the daemon must be to be printed.
    pub level: Level,
    /// Size at which an app's log file is put aside.
    pub app_bytes: Bytes,
    /// How many files are kept of each app, the current one included.
    pub app_files: u32,
    /// What an instance may log in a second, unless its app says otherwise.
    pub rate: Rate,
    /// Lines that an instance may log in a second; `None`: any number.
    pub rate_lines: Option<u32>,
    /// Output of apps goes to systemd's journal as well; `Auto`: where there is one.
    pub journal: Amount<bool>,
}

/// Where figures are told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metrics {
    /// Where `GET /metrics` is answered besides the socket, on this box only.
    pub listen: Option<SocketAddr>,
}

/// The socket that the command line talks to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Socket {
    /// Who besides root may use it; a group that does not exist leaves it to root.
    pub group: String,
    /// Permission bits.
    pub mode: u32,
}

/// Where everything lives, all below one root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paths {
    /// `etc/terrarium`: what the box's owner decides.
    pub etc: PathBuf,
    /// `usr/lib/terrarium`: what came with the box.
    pub lib: PathBuf,
    /// `var/lib/terrarium`: records, the depot, the store.
    pub state: PathBuf,
    /// `var/cache/terrarium`: may vanish at any time.
    pub cache: PathBuf,
    /// `run/terrarium`: gone after a reboot.
    pub run: PathBuf,
}

impl Paths {
    /// The tree below `root`, which is `/` on a box.
    pub fn under(root: &Path) -> Paths {
        let at = |dir: &str| root.join(dir).join("terrarium");
        Paths {
            etc: at("etc"),
            lib: at("usr/lib"),
            state: at("var/lib"),
            cache: at("var/cache"),
            run: at("run"),
        }
    }

    /// All of them: nothing of an app's.
    pub fn own(&self) -> Vec<PathBuf> {
        [&self.etc, &self.lib, &self.state, &self.cache, &self.run].map(PathBuf::clone).into()
    }

    /// The SSH server that containers carry, if it came with the box.
    pub fn ssh_server(&self) -> PathBuf {
        self.lib.join("ssh/dropbearmulti")
    }

    /// The configuration file.
    pub fn config_file(&self) -> PathBuf {
        self.etc.join("terrarium.toml")
    }

    /// Directories of manifests; the same file name in an earlier one hides it in a later one.
    pub fn apps(&self) -> [PathBuf; 3] {
        [&self.etc, &self.run, &self.lib].map(|dir| dir.join("apps.d"))
    }

    /// `<stack>.tar.zst` files.
    pub fn stacks(&self) -> PathBuf {
        self.lib.join("stacks")
    }

    /// What is kept of downloads, unless the configuration names another directory.
    pub fn downloads(&self) -> PathBuf {
        self.cache.join("downloads")
    }

    /// Archives and layouts of images that came with the box.
    pub fn images(&self) -> PathBuf {
        self.lib.join("images")
    }

    /// Directories of buildpacks, by name; what the owner put in `etc` hides what came with the box.
    pub fn buildpacks(&self) -> [PathBuf; 2] {
        [&self.etc, &self.lib].map(|dir| dir.join("buildpacks"))
    }

    /// The socket that the command line talks to.
    pub fn socket(&self) -> PathBuf {
        self.run.join("terrarium.sock")
    }

    /// The socket that Garden's clients talk to, unless the configuration names another.
    pub fn garden_socket(&self) -> PathBuf {
        self.run.join("garden.sock")
    }
}

impl Config {
    /// What holds when no file says otherwise.
    pub fn defaults(root: &Path, host_name: &str) -> Config {
        let paths = Paths::under(root);
        Config {
            cell: Cell::defaults(host_name, &paths),
            stacks: Stacks::default(),
            self_check: SelfCheck::defaults(),
            health: Checks::default(),
            tasks: Tasks::default(),
            pools: Pools::defaults(),
            store: Store { size_max: Amount::Auto, quotas: true, images_max: Amount::Auto },
            downloads: Downloads { size: Bytes::mib(1024), dir: paths.downloads() },
            net: Net::defaults(),
            garden: Garden::defaults(&paths),
            registry: Registries::defaults(&paths),
            cgroup: Cgroup { parent: "terrarium".into() },
            log: Log::defaults(),
            metrics: Metrics::default(),
            socket: Socket { group: "terrarium".into(), mode: 0o660 },
            bridge: Bridge::defaults(&paths),
            bbs: Bbs::default(),
            cloud_controller: CloudController::default(),
            paths,
        }
    }
}

impl Log {
    fn defaults() -> Log {
        Log {
            level: Level::Info,
            app_bytes: Bytes::mib(4),
            app_files: 2,
            rate: Rate::Bytes(Bytes::mib(1)),
            rate_lines: None,
            journal: Amount::Auto,
        }
    }
}

impl Config {
    /// How many containers Garden's clients may have at once.
    pub fn garden_containers(&self) -> u32 {
        match self.garden.containers {
            Amount::Auto => self.cell.containers,
            Amount::Fixed(number) => number,
        }
    }

    /// Memory for all containers together; auto: what the host has, and no more than the daemon itself
    /// may use.
    pub fn memory(&self) -> io::Result<Bytes> {
        match self.cell.memory {
            Amount::Fixed(size) => Ok(size),
            Amount::Auto => {
                let host = host_memory()?;
                Ok(memory::own_limit().map_or(host, |limit| limit.min(host)))
            }
        }
    }
}

/// Memory that the host has.
pub fn host_memory() -> io::Result<Bytes> {
    let text = std::fs::read_to_string("/proc/meminfo")?;
    let kib = text
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix("kB"))
        .and_then(|number| number.trim().parse::<u64>().ok())
        .ok_or_else(|| io::Error::other("it has no MemTotal"))?;
    Ok(Bytes::new(kib * 1024))
}

/// Why there is no configuration.
#[derive(Debug)]
pub enum ConfigError {
    /// A file or a directory of drop-ins cannot be read.
    Unreadable {
        /// Which one.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// There are more drop-ins than anyone could keep in mind.
    TooMany {
        /// Their directory.
        dir: PathBuf,
    },
    /// These files hold mistakes; never empty.
    Invalid(Vec<Diagnostics>),
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConfigError::Unreadable { path, .. } => write!(f, "cannot read {}", path.display()),
            ConfigError::TooMany { dir } => {
                write!(f, "{} holds more than {DROP_INS_MAX} files; merge them", dir.display())
            }
            ConfigError::Invalid(files) => {
                let texts: Vec<String> = files.iter().map(Diagnostics::to_string).collect();
                f.write_str(&texts.join("; "))
            }
        }
    }
}

impl std::error::Error for ConfigError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            ConfigError::Unreadable { source, .. } => Some(source),
            ConfigError::TooMany { .. } | ConfigError::Invalid(_) => None,
        }
    }
}

/// Reads the configuration of the tree below `root`, which must be absolute.
///
/// `file`, when given, stands in for `etc/terrarium/terrarium.toml` and must exist. After it come
/// the files `*.toml` of the directory beside it that has its name and `.d`, in order of their
/// names; a later one wins, key by key.
pub fn load(root: &Path, file: Option<&Path>) -> Result<Config, ConfigError> {
    let host_name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
    let host_name = host_name.and_then(|name| word("host", name.trim(), 63).ok());
    let mut config = Config::defaults(root, host_name.as_deref().unwrap_or("terrarium"));

    let main = file.map_or_else(|| config.paths.config_file(), Path::to_owned);
    let mut texts = Vec::new();
    match read_text(&main) {
        Ok(text) => texts.push((main.clone(), text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound && file.is_none() => {}
        Err(source) => return Err(ConfigError::Unreadable { path: main, source }),
    }
    let mut dir = main.into_os_string();
    dir.push(".d");
    for path in drop_ins(Path::new(&dir))? {
        match read_text(&path) {
            Ok(text) => texts.push((path, text)),
            Err(source) => return Err(ConfigError::Unreadable { path, source }),
        }
    }

    let (mut bad, mut rootfs) = (Vec::new(), None);
    for (path, text) in &texts {
        bad.extend(config.apply(text, &path.to_string_lossy()).err());
        rootfs = config.garden.rootfs_at.take().map(|span| (path, text, span)).or(rootfs);
    }
    // Only the last word counts: an earlier one need not be there.
    if let (Some((path, text, span)), Some((message, cure))) =
        (rootfs, config.garden.judge_rootfs(&config.paths))
    {
        let found = Finding { span, message, cure: Some(cure), see: None, warning: false };
        bad.extend(Diagnostics::new(&path.to_string_lossy(), text, vec![found], 0));
    }
    if bad.is_empty() { Ok(config) } else { Err(ConfigError::Invalid(bad)) }
}

/// The drop-ins of `dir` by name; none when it does not exist.
fn drop_ins(dir: &Path) -> Result<Vec<PathBuf>, ConfigError> {
    let unreadable = |source| ConfigError::Unreadable { path: dir.to_owned(), source };
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(unreadable(error)),
    };
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry.map_err(unreadable)?.path();
        if path.extension().is_some_and(|end| end == "toml") {
            paths.push(path);
        }
        if paths.len() > DROP_INS_MAX {
            return Err(ConfigError::TooMany { dir: dir.to_owned() });
        }
    }
    paths.sort();
    Ok(paths)
}

/// A text of which no more is read than will be accepted. A link to /dev/null is an empty one.
fn read_text(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    std::fs::File::open(path)?.take(MAX_TEXT.get() + 1).read_to_string(&mut text)?;
    Ok(text)
}
