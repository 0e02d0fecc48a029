//! The single parts of a cell: what they are made from, and how the whole is closed.

use super::{DaemonError, start};
use crate::cell::fit::Tags;
use crate::cell::settings::{SelfCheck, Settings};
use crate::cell::task::due::Times;
use crate::config::machine::{Amount, Cell, Config};
use crate::container::{Host, boot_id};
use crate::exec::logs::{self, Keep};
use crate::exec::room::Resources;
use crate::exec::turns::Sizes;
use crate::init::filter;
use crate::net::text::Resolvers;
use crate::net::{self, Net, NetConfig};
use crate::sys;
use crate::unit::{Bytes, Slot};
use std::fs;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Name of our tables in the kernel.
const TABLE: &str = "terrarium";

/// How long [`close`] waits between looks, and how often it looks.
const LET_GO_WAIT: Duration = Duration::from_millis(10);
const LET_GO_TRIES: u32 = 500;

/// Closes a host without containers, once nobody else holds on to it: what answered clients ends by
/// itself within moments. The box is as it was before the start.
pub async fn close(host: Arc<Host>) -> Result<(), DaemonError> {
    for _ in 0..LET_GO_TRIES {
        if Arc::strong_count(&host) == 1 {
            break;
        }
        async_io::Timer::after(LET_GO_WAIT).await;
    }
    match Arc::into_inner(host) {
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

/// Makes the daemon's own directories.
pub fn make_dirs(config: &Config) -> Result<(), DaemonError> {
    let paths = &config.paths;
    for dir in [&paths.state, &paths.cache] {
        make_dir(dir, 0o700)?;
    }
    // Below it stand the socket, for its group, and the lifecycle, for every user inside.
    make_dir(&paths.run, 0o755)
}

/// Makes a directory of the daemon's own with exactly this mode.
fn make_dir(dir: &Path, mode: u32) -> Result<(), DaemonError> {
    let make = || {
        fs::DirBuilder::new().recursive(true).mode(mode).create(dir)?;
        fs::set_permissions(dir, fs::Permissions::from_mode(mode))
    };
    make().map_err(start(format!("make {}", dir.display())))
}

/// The program that becomes pid 1: this very file, whatever has its name by now. An update replaces it
/// while we run, and the new one's `init` may say other things than we understand.
pub fn program() -> PathBuf {
    PathBuf::from("/proc/self/exe")
}

/// How containers find names.
pub fn resolvers(config: &Config) -> Resolvers {
    let host = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let resolved = fs::read_to_string("/run/systemd/resolve/resolv.conf").ok();
    let hosts = config.net.additional_hosts.iter();
    Resolvers::choose(&config.net.dns, &host, resolved.as_deref())
        .with_servers(&config.net.additional_dns)
        .with_hosts(hosts.map(|line| (line.address, line.names.as_str())))
}

/// This box's address as containers and clients are told it.
pub fn external_address(config: &Config) -> Ipv4Addr {
    match config.net.external_address {
        Amount::Fixed(address) => address,
        Amount::Auto => net::host_address().unwrap_or(Ipv4Addr::LOCALHOST),
    }
}

/// The network of all containers.
pub fn net(config: &Config) -> Result<Net, DaemonError> {
    let resolvers = resolvers(config);
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
    wanted.allow_host_access = config.net.allow_host_access;
    Net::open(wanted).map_err(start("open the network"))
}

/// The seccomp programs, compiled once, where every pid 1 can read them.
pub fn seccomp() -> Result<OwnedFd, DaemonError> {
    let programs = filter::programs();
    sys::fd::sealed_memory("seccomp", &programs).map_err(start("keep the seccomp filter"))
}

/// What is kept of the apps' output.
pub fn log_keep(config: &Config) -> Keep {
    let log = &config.log;
    Keep {
        file_bytes: log.app_bytes,
        files: log.app_files,
        rate: log.rate,
        lines: log.rate_lines,
        journal: match log.journal {
            Amount::Auto => logs::has_journal(),
            Amount::Fixed(wanted) => wanted,
        },
    }
}

/// What the owner says about the cell as a whole.
pub fn settings(config: &Config) -> Settings {
    let Cell { name, zone, .. } = config.cell.clone();
    let check = &config.self_check;
    Settings {
        cell_id: name,
        zone,
        polling: config.cell.polling_interval,
        evacuation_polling: config.cell.evacuation_polling_interval,
        evacuation_timeout: config.cell.evacuation_timeout,
        health: config.health.times,
        tags: Tags {
            needed: config.cell.placement_tags.clone(),
            optional: config.cell.optional_placement_tags.clone(),
        },
        tasks: times(config),
        cpu_shares_max: config.cell.cpu_shares_max,
        export_network: config.cell.export_network_variables,
        temp: config.cell.temp_dir.clone(),
        preloaded: config.stacks.preloaded.clone(),
        self_check: check.interval.map(|interval| SelfCheck {
            interval,
            unhealthy_interval: check.unhealthy_interval,
            timeout: check.timeout,
        }),
        pools: pools(config),
        boot: boot_id(),
    }
}

fn times(config: &Config) -> Times {
    let ns = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    Times {
        pending_max: ns(config.tasks.pending_max),
        completed_max: ns(config.tasks.kept),
        kick: ns(config.tasks.retry_interval),
    }
}

fn pools(config: &Config) -> Sizes {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let scaled = Sizes::for_cores(cores);
    let size = |wanted: Amount<u32>, scaled: u32| match wanted {
        Amount::Auto => scaled,
        Amount::Fixed(size) => size,
    };
    let wanted = &config.pools;
    Sizes {
        create: size(wanted.create, scaled.create),
        delete: size(wanted.delete, scaled.delete),
        read: size(wanted.read, scaled.read),
        metrics: size(wanted.metrics, scaled.metrics),
        health: size(wanted.health, scaled.health),
    }
}

/// How far the store may grow, and what the box gives away.
pub fn limits(config: &Config) -> Result<(Bytes, Resources), DaemonError> {
    let store_max = store_max(config)?;
    Ok((store_max, total(config, store_max)?))
}

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

fn total(config: &Config, store_max: Bytes) -> Result<Resources, DaemonError> {
    let memory = config.memory().map_err(start("read /proc/meminfo"))?;
    let disk = match config.cell.disk {
        Amount::Fixed(size) => size,
        Amount::Auto => store_max,
    };
    // One slot is for the container with which the cell tries itself, as in Diego.
    let containers = config.cell.containers.min(Slot::COUNT - 1);
    Ok(Resources { memory, disk, containers })
}
