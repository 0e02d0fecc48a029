//! Opens every part of a cell in the order in which they need each other.

use super::{DaemonError, start};
use crate::cell::store::RecordStore;
use crate::cell::{Cell, CellParts, Paths};
use crate::cgroup::Cgroups;
use crate::config::machine::{Amount, Config};
use crate::container::{Depot, Host, HostParts};
use crate::exec::logs::Logs;
use crate::exec::room::Resources;
use crate::init::filter;
use crate::net::pool::{Ports, Slots};
use crate::net::text::Resolvers;
use crate::net::{self, Net, NetConfig};
use crate::sys;
use crate::unit::Bytes;
use crate::volume::{Store, StoreConfig};
use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Names by which the binary is known inside containers; each is a role.
const ROLES: [&str; 5] = ["builder", "launcher", "healthcheck", "untar", "cat-file"];

/// Name of our tables in the kernel.
const TABLE: &str = "terrarium";

/// A cell, ready to adopt and converge.
pub fn cell(config: &Config) -> Result<Cell, DaemonError> {
    let paths = &config.paths;
    let opened = host(config)?;
    let records = RecordStore::open(&paths.state.join("state.redb"))
        .and_then(|store| store.load().map(|records| (store, records)))
        .map_err(start("open the records"))?;
    let logs = paths.state.join("logs");
    let host_ip = net::host_address().unwrap_or(Ipv4Addr::LOCALHOST);
    Ok(Cell::new(CellParts {
        host: opened.host,
        store: records.0,
        records: records.1,
        logs: Logs::open(&logs, config.log.app_bytes)
            .map_err(start(format!("open the app logs in {}", logs.display())))?,
        paths: Paths {
            state: paths.state.clone(),
            cache: paths.cache.clone(),
            stacks: paths.stacks(),
            buildpacks: paths.buildpacks().into(),
            lifecycle: opened.lifecycle,
        },
        total: total(config, opened.store_max)?,
        host_ip,
        instance_ports: config.net.ports.0..=config.net.ports.1,
    }))
}

/// What a cell stands on.
pub struct Opened {
    /// Makes containers.
    pub host: Host,
    /// The directory that every container sees at /tmp/lifecycle.
    pub lifecycle: PathBuf,
    /// How far the store may grow.
    pub store_max: Bytes,
}

/// Everything that containers are made of.
pub fn host(config: &Config) -> Result<Opened, DaemonError> {
    let paths = &config.paths;
    for dir in [&paths.state, &paths.cache] {
        make_dir(dir, 0o700)?;
    }
    // Below it stand the socket, for its group, and the lifecycle, for every user inside.
    make_dir(&paths.run, 0o755)?;
    let program = std::env::current_exe().map_err(start("find this program's own file"))?;
    let lifecycle = paths.run.join("lifecycle");
    lay_lifecycle(&program, &lifecycle)
        .map_err(start(format!("copy this program to {}", lifecycle.display())))?;
    let store_max = store_max(config)?;
    let store = Store::open(StoreConfig {
        dir: paths.state.join("store"),
        file: paths.state.join("store.img"),
        size_max: store_max,
    })
    .map_err(start("open the store"))?;
    let cgroups = Cgroups::open(&config.cgroup.parent).map_err(start("open the cgroups"))?;
    let resolvers = resolvers(config);
    let net = open_net(config, &resolvers)?;
    let host = Host::new(HostParts {
        depot: Depot::open(&paths.state.join("depot")).map_err(start("open the depot"))?,
        program,
        store,
        cgroups,
        net,
        net_tag: config.net.tag.clone(),
        slots: Slots::new(),
        ports: Ports::new(config.net.ports.0..=config.net.ports.1),
        seccomp: seccomp()?,
        resolvers,
    });
    Ok(Opened { host, lifecycle, store_max })
}

/// Closes a cell of which nothing runs: the box is as it was before the start.
pub async fn close(cell: Cell) -> Result<(), DaemonError> {
    match cell.into_host().await {
        Some(host) => close_host(host),
        None => {
            crate::warn!("daemon.unclosed");
            Ok(())
        }
    }
}

/// Closes a host without containers.
pub fn close_host(host: Host) -> Result<(), DaemonError> {
    let (store, cgroups, net) = host.into_parts();
    cgroups.remove_parent_if_empty();
    net.close().map_err(start("remove the network tables"))?;
    store.close().map_err(start("unmount the store"))
}

/// Makes a directory of the daemon's own with exactly this mode.
fn make_dir(dir: &Path, mode: u32) -> Result<(), DaemonError> {
    let make = || {
        fs::DirBuilder::new().recursive(true).mode(mode).create(dir)?;
        fs::set_permissions(dir, fs::Permissions::from_mode(mode))
    };
    make().map_err(start(format!("make {}", dir.display())))
}

/// The directory that every container sees at /tmp/lifecycle: one copy of this program and a link
/// per role. A copy, so that an update of the program never changes what runs.
fn lay_lifecycle(program: &Path, dir: &Path) -> io::Result<()> {
    let size = fs::metadata(program)?.len();
    let copy = dir.join("terrarium");
    let current = fs::metadata(&copy).is_ok_and(|meta| meta.len() == size)
        && fs::read(&copy)? == fs::read(program)?;
    if !current {
        // Containers that run keep the old directory: theirs is a mount of it.
        let fresh = dir.with_extension("new");
        let _ = fs::remove_dir_all(&fresh);
        fs::DirBuilder::new().recursive(true).mode(0o755).create(&fresh)?;
        fs::copy(program, fresh.join("terrarium"))?;
        for role in ROLES {
            std::os::unix::fs::symlink("terrarium", fresh.join(role))?;
        }
        for path in [&fresh, &fresh.join("terrarium")] {
            fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
        }
        let _ = fs::remove_dir_all(dir);
        fs::rename(&fresh, dir)?;
    }
    Ok(())
}

/// How containers find names.
fn resolvers(config: &Config) -> Resolvers {
    let host = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let resolved = fs::read_to_string("/run/systemd/resolve/resolv.conf").ok();
    Resolvers::choose(&config.net.dns, &host, resolved.as_deref())
}

fn open_net(config: &Config, resolvers: &Resolvers) -> Result<Net, DaemonError> {
    let pool = net::choose_pool(config.net.pool, &config.net.tag)
        .map_err(start("find addresses for containers"))?;
    if pool != config.net.pool {
        crate::warn!("net.pool_moved", from = config.net.pool, to = pool);
    }
    let mut wanted = NetConfig::new(&format!("{TABLE}{}", config.net.tag), &config.net.tag);
    wanted.pool.0 = pool;
    wanted.mtu = config.net.mtu;
    wanted.resolvers = resolvers.addresses.clone();
    wanted.dns_on_gateway = resolvers.on_gateway;
    Net::open(wanted).map_err(start("open the network"))
}

/// The seccomp programs, compiled once, where every pid 1 can read them.
fn seccomp() -> Result<std::os::fd::OwnedFd, DaemonError> {
    let programs = filter::programs().map_err(start("compile the seccomp filter"))?;
    sys::fd::sealed_memory("seccomp", &programs).map_err(start("keep the seccomp filter"))
}

/// How far the store may grow.
fn store_max(config: &Config) -> Result<Bytes, DaemonError> {
    match config.store.size_max {
        Amount::Fixed(size) => Ok(size),
        Amount::Auto => {
            let state = &config.paths.state;
            let free = sys::file::free_bytes(state)
                .map_err(start(format!("measure the free space of {}", state.display())))?;
            let there = fs::metadata(state.join("store.img")).map_or(0, |file| file.len());
            Ok(Bytes::new((free + there) / 5 * 4))
        }
    }
}

/// What the box gives away.
fn total(config: &Config, store_max: Bytes) -> Result<Resources, DaemonError> {
    let memory = config.memory().map_err(start("read /proc/meminfo"))?;
    let disk = match config.cell.disk {
        Amount::Fixed(size) => size,
        Amount::Auto => store_max,
    };
    Ok(Resources { memory, disk, containers: config.cell.containers })
}
