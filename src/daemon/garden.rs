//! Garden's protocol beside the cell: what it listens on, and the backend behind it.

use super::{DaemonError, apparmor, parts, start};
use crate::api::garden::{self, Garden};
use crate::api::http::listen::{self, Socket};
use crate::api::http::server;
use crate::cell::Cell;
use crate::config::machine::{self, Amount, Cleanup, Config, Graph, RootFs};
use crate::container::{GardenNetworks, Host, IdMapping, Manner, RootDriver};
use crate::garden::{Backend, Settings};
use crate::image::catalog::{Keep, Sweep};
use crate::image::registry::settings::Settings as Registries;
use crate::sys;
use crate::unit::{Bytes, ImageRef, registry_name};
use smol::Task;
use smol::net::TcpListener;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// What Garden's clients connect to.
#[derive(Default)]
pub struct Doors {
    socket: Option<Socket>,
    tcp: Option<TcpListener>,
}

/// Opens them when they are wanted.
pub fn doors(config: &Config) -> Result<Doors, DaemonError> {
    let garden = &config.garden;
    if !garden.enabled {
        return Ok(Doors::default());
    }
    if let Some(profile) = &garden.apparmor {
        apparmor::check(profile, Path::new("/sys")).map_err(DaemonError::part)?;
    }
    // Every process that somebody watches takes three connections.
    raise_open_files()?;
    let group = (garden.socket_mode & 0o070 != 0).then_some(&*config.socket.group);
    let socket = listen::listen(&garden.socket, garden.socket_mode, group);
    let tcp = garden.listen.map(listen::listen_tcp).transpose();
    Ok(Doors {
        socket: Some(socket.map_err(DaemonError::part)?),
        tcp: tcp.map_err(start("serve what `listen` of [garden] names"))?,
    })
}

/// As many open files as the box allows; a shell gives far fewer.
fn raise_open_files() -> Result<(), DaemonError> {
    let kind = sys::process::Resource::OPEN_FILES;
    let raised =
        sys::process::limit(kind).and_then(|(_, most)| sys::process::set_limit(kind, most, most));
    raised.map_err(start("raise the limit of open files"))
}

/// Where containers of Garden's clients may send.
pub fn networks(config: &Config) -> GardenNetworks {
    GardenNetworks { allow: config.net.allow.clone(), deny: config.net.deny.clone() }
}

/// The backend, which takes over what lives whether it is asked for or not.
pub fn backend(
    config: &Config,
    host: &Arc<Host>,
    store_max: Bytes,
) -> Result<Backend, DaemonError> {
    let garden = &config.garden;
    let settings = Settings {
        stacks: config.paths.stacks(),
        registries: registries(config),
        default_rootfs: match &garden.default_rootfs {
            RootFs::Auto => None,
            RootFs::Stack(name) => Some(name.clone()),
            RootFs::Path(path) => Some(path.to_string_lossy().into_owned()),
        },
        root: match garden.graph {
            Graph::Union => RootDriver::Union,
            Graph::Snapshot => RootDriver::Snapshot,
        },
        manner: manner(garden),
        containers_max: config.garden_containers(),
        grace: garden.grace_time.unwrap_or_default(),
        external: parts::external_address(config),
        depot: config.paths.state.join("depot"),
        memory_bytes: machine::host_memory().map_err(start("read /proc/meminfo"))?.get(),
        store_max_bytes: store_max.get(),
    };
    Ok(Backend::new(host.clone(), settings))
}

/// How images are fetched.
pub fn registries(config: &Config) -> Registries {
    let own = &config.registry;
    // As names of images have it: Docker Hub is known by several.
    let folded = |one: &machine::Registry| registry_name(&one.to_string()).to_owned();
    let mut mirrors: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (of, mirror) in &own.mirrors {
        mirrors.entry(folded(of)).or_default().push(folded(mirror));
    }
    Registries {
        default: folded(&own.default),
        // Checked when it was read.
        insecure: own.insecure.iter().filter_map(|text| text.parse().ok()).collect(),
        v1: own.v1.iter().map(folded).collect(),
        mirrors,
        mirrors_tell_tags: own.mirrors_tell_tags,
        realms: own.token_servers.iter().map(ToString::to_string).collect(),
        certs: own.certs.clone(),
        credentials: own.logins.clone(),
        ..Registries::default()
    }
}

/// Which images stay though nothing is made of them.
pub fn keep(config: &Config, store_max: Bytes) -> Keep {
    let default = registries(config).default;
    let images = config.garden.persistent_images.iter().filter_map(|text| text.parse().ok());
    Keep {
        bytes: images_max(config, store_max),
        sweep: Sweep::Quiet,
        always: images.map(|image: ImageRef| image.at(&default)).collect(),
    }
}

/// Bytes that all images may have; `None`: they stay until something else needs the room.
fn images_max(config: &Config, store_max: Bytes) -> Option<u64> {
    let above = |cleanup| match cleanup {
        Cleanup::Never => None,
        Cleanup::Above(bytes) => Some(bytes.get()),
    };
    let own = match config.store.images_max {
        Amount::Auto => Some(store_max.get() / 2),
        Amount::Fixed(cleanup) => above(cleanup),
    };
    own.into_iter().chain(above(config.garden.cleanup_threshold)).min()
}

/// Containers that nobody can reach, as the protocol is switched off, are worth a word.
pub fn warn_of_unreachable(config: &Config, backend: &Backend) {
    let there = backend.list(&[]).len();
    if there > 0 && !config.garden.enabled {
        const CURE: &str = "set `enabled = true` in [garden] to reach or destroy them";
        crate::warn!("garden.unreachable", containers = there, cure = CURE);
    }
}

/// What goes on beside requests, until the tasks are dropped: the store shrinks, images that are too
/// many and that nobody uses are removed, and there is room before those who write without a limit.
pub fn tend(backend: &Backend, cell: &Cell) -> Vec<Task<()>> {
    let (gone, cell) = (backend.gone(), cell.clone());
    let litter = smol::spawn(async move {
        while gone.recv().await.is_ok() {
            cell.look_at_store();
            let cell = cell.clone();
            smol::unblock(move || cell.look_at_images()).await;
        }
    });
    let backend = backend.clone();
    vec![litter, smol::spawn(async move { backend.tend_store().await })]
}

/// How containers of Garden's clients are made from now on.
fn manner(garden: &machine::Garden) -> Manner {
    Manner {
        ids: match garden.id_mapping {
            machine::IdMapping::PerContainer => IdMapping::Own,
            machine::IdMapping::Garden => IdMapping::Garden,
        },
        init_name: garden.init_name.clone(),
        apparmor: garden.apparmor.clone(),
    }
}

/// Answers clients, until the tasks are dropped.
pub fn serve(doors: Doors, config: &Config, backend: &Backend) -> Vec<Task<()>> {
    let Doors { socket, tcp } = doors;
    let connections = config.garden.connections;
    let dialect = || Garden::new(backend.clone(), garden::Settings::default());
    let limits = move |dialect: &Garden| server::Limits { connections, ..dialect.limits() };
    let mut tasks = Vec::new();
    if let Some(socket) = socket {
        let dialect = dialect();
        tasks.push(smol::spawn(async move {
            let err = server::serve(socket.listener(), &dialect, limits(&dialect)).await;
            crate::error!("garden.broken", err = err);
        }));
    }
    if let Some(tcp) = tcp {
        let dialect = dialect();
        tasks.push(smol::spawn(async move {
            let err = server::serve(&tcp, &dialect, limits(&dialect)).await;
            crate::error!("garden.broken", err = err);
        }));
    }
    tasks
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::machine::IdMapping as Setting;

    #[test]
    fn images_are_bounded_unless_somebody_says_otherwise() {
        let mut config = Config::defaults(Path::new("/"), "box");
        let store = Bytes::mib(100);
        assert_eq!(images_max(&config, store), Some(50 << 20));
        config.garden.cleanup_threshold = Cleanup::Above(Bytes::mib(7));
        assert_eq!(images_max(&config, store), Some(7 << 20), "the smaller one");
        config.store.images_max = Amount::Fixed(Cleanup::Never);
        assert_eq!(images_max(&config, store), Some(7 << 20));
        config.garden.cleanup_threshold = Cleanup::Never;
        assert_eq!(images_max(&config, store), None);
    }

    #[test]
    fn containers_are_made_as_the_settings_say() {
        let mut config = Config::defaults(Path::new("/"), "box");
        let safe = Manner { init_name: "terrarium".into(), ..Manner::default() };
        assert_eq!(manner(&config.garden), safe);
        assert_eq!(safe.ids, IdMapping::Own);
        config.garden.id_mapping = Setting::Garden;
        config.garden.init_name = "wshd".into();
        config.garden.apparmor = Some("garden-default".into());
        let wanted = Manner {
            ids: IdMapping::Garden,
            init_name: "wshd".into(),
            apparmor: Some("garden-default".into()),
        };
        assert_eq!(manner(&config.garden), wanted);
    }
}
