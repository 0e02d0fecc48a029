//! `[garden]`: where Garden's clients find the daemon, and what their containers are by default.

use super::super::address;
use super::super::cursor::{Section, Value};
use super::super::words::{shown, word};
use super::net::all;
use super::read::{number_or_auto, set};
use super::{Amount, Paths};
use crate::unit::{Bytes, ImageRef};
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;
use toml::de::DeValue;

/// Longest grace time. Its wire form is a signed count of nanoseconds, which ends after 292 years.
const GRACE_MAX: Duration = Duration::from_secs(3650 * 86_400);
/// Longest name of a process as the kernel keeps it, in bytes.
const INIT_NAME_MAX: usize = 15;
/// Most images that are kept.
const LIST_MAX: usize = 256;
/// Longest name of an image or path, in bytes.
const TEXT_MAX: usize = 1024;

/// What Garden's clients get, and where they find it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Garden {
    /// Its protocol is spoken, on `socket` and at `listen`.
    pub enabled: bool,
    /// The unix socket; absolute.
    pub socket: PathBuf,
    /// Permission bits of the socket.
    pub socket_mode: u32,
    /// Where it is spoken over TCP besides.
    pub listen: Option<SocketAddr>,
    /// Where `GET /debug/vars` is answered.
    pub debug: Option<SocketAddr>,
    /// `listen` and `debug` may be reachable from other machines.
    pub listen_anywhere: bool,
    /// Connections at a time, on the socket and at `listen` each.
    pub connections: usize,
    /// How long a container without a request lives when its client says nothing; `None`: for ever.
    pub grace_time: Option<Duration>,
    /// What a container is made of whose client names nothing.
    pub default_rootfs: RootFs,
    /// Where the text that was read last says so, until all are read.
    pub(super) rootfs_at: Option<Range<usize>>,
    /// How a container's root is put together.
    pub graph: Graph,
    /// Containers of Garden's clients at once; auto: as many as the cell may have.
    pub containers: Amount<u32>,
    /// Which ids of the box stand behind those of an unprivileged container.
    pub id_mapping: IdMapping,
    /// Name of pid 1 in `/proc/1/status`; 1 to 15 bytes.
    pub init_name: String,
    /// AppArmor profile of processes in unprivileged containers.
    pub apparmor: Option<String>,
    /// When unused images are removed.
    pub cleanup_threshold: Cleanup,
    /// Images that stay all the same, written as clients write them.
    pub persistent_images: Vec<String>,
}

/// What a container is made of by default.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RootFs {
    /// The only stack of the box, or the first by name.
    Auto,
    /// This stack.
    Stack(String),
    /// A directory or a tar file of the box; absolute.
    Path(PathBuf),
}

/// How a container's root is put together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Graph {
    /// An overlay over the image's layers.
    Union,
    /// A btrfs snapshot of the image.
    Snapshot,
}

/// Which ids of the box stand behind those of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdMapping {
    /// 65536 of its own for each container.
    PerContainer,
    /// Garden's: root is one id that only roots of such containers have, every other id is the same
    /// on the box.
    Garden,
}

/// When unused images are removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cleanup {
    /// Never by itself.
    Never,
    /// Before a container is made, when all images together have more than this.
    Above(Bytes),
}

impl Garden {
    pub(super) fn defaults(paths: &Paths) -> Garden {
        Garden {
            enabled: false,
            socket: paths.garden_socket(),
            socket_mode: 0o600,
            listen: None,
            debug: None,
            listen_anywhere: false,
            connections: 2048,
            grace_time: None,
            default_rootfs: RootFs::Auto,
            rootfs_at: None,
            graph: Graph::Union,
            containers: Amount::Auto,
            id_mapping: IdMapping::PerContainer,
            init_name: "terrarium".into(),
            apparmor: None,
            cleanup_threshold: Cleanup::Never,
            persistent_images: Vec::new(),
        }
    }

    /// `ports`: those of the box that containers get.
    pub(super) fn read(&mut self, mut section: Section<'_>, paths: &Paths, ports: (u16, u16)) {
        set(&mut self.enabled, section.take("enabled").and_then(|it| it.truth()));
        let socket = section.take("socket");
        set(&mut self.socket, socket.and_then(|it| read_socket(&it, paths)));
        let mode = section.take("socket_mode");
        set(&mut self.socket_mode, mode.and_then(|it| it.parsed(read_mode)));
        self.read_listeners(&mut section, ports);
        let connections = section.take("connections").and_then(|it| it.number(16, 65_536));
        set(&mut self.connections, connections.map(|number| number as usize));
        set(&mut self.grace_time, section.take("grace_time").and_then(|it| read_grace(&it)));
        let rootfs = section.take("default_rootfs");
        let at = rootfs.as_ref().map(|it| it.place.span());
        set(&mut self.default_rootfs, rootfs.and_then(|it| it.parsed(read_rootfs)));
        self.rootfs_at = at.filter(|_| self.default_rootfs != RootFs::Auto);
        let graphs = [("union", Graph::Union), ("snapshot", Graph::Snapshot)];
        set(&mut self.graph, section.take("graph").and_then(|it| it.one_of(&graphs)));
        let containers = section.take("containers");
        let containers = containers.and_then(|it| number_or_auto(&it, 1, 16_384));
        set(&mut self.containers, containers);
        let mappings = [("per-container", IdMapping::PerContainer), ("garden", IdMapping::Garden)];
        set(&mut self.id_mapping, section.take("id_mapping").and_then(|it| it.one_of(&mappings)));
        let name = section.take("init_name");
        let name = name.and_then(|it| it.parsed(|text| word("name", text, INIT_NAME_MAX)));
        set(&mut self.init_name, name);
        set(&mut self.apparmor, section.take("apparmor").and_then(|it| it.parsed(read_profile)));
        self.read_images(&mut section);
        section.finish();
    }

    /// Where it listens, on TCP: off the box only on purpose.
    fn read_listeners(&mut self, section: &mut Section<'_>, ports: (u16, u16)) {
        let anywhere = section.take("listen_anywhere");
        set(&mut self.listen_anywhere, anywhere.as_ref().and_then(Value::truth));
        let (listen, debug) = (section.take("listen"), section.take("debug"));
        let read = |it: Option<&Value<'_>>| it.and_then(|it| it.parsed(address::endpoint));
        set(&mut self.listen, read(listen.as_ref()));
        set(&mut self.debug, read(debug.as_ref()));
        // What stands in an earlier file is complained about where this one made it wrong.
        for (address, own) in [(self.listen, &listen), (self.debug, &debug)] {
            let Some(address) = address else { continue };
            if let (false, false, Some(value)) = (
                address.ip().is_loopback(),
                self.listen_anywhere,
                own.as_ref().or(anywhere.as_ref()),
            ) {
                value.place.fail(
                    format!("`{address}` can be reached from other machines, without a password"),
                    "write 127.0.0.1, or add listen_anywhere = true",
                );
            }
            if let (true, Some(value)) = ((ports.0..=ports.1).contains(&address.port()), own) {
                value.place.fail(
                    format!(
                        "port {} may become a container's: it is of `net.ports`",
                        address.port()
                    ),
                    format!("write a port outside of {}-{}", ports.0, ports.1),
                );
            }
        }
        if let (true, Some(second)) =
            (self.listen.is_some() && self.listen == self.debug, debug.or(listen))
        {
            second.place.fail("`listen` and `debug` are one address", "give one another port");
        }
    }

    /// What is wrong with the root of who names none, and what to do; `None`: it is there, or nobody
    /// would use it.
    pub(super) fn judge_rootfs(&self, paths: &Paths) -> Option<(String, String)> {
        let (path, cure) = match &self.default_rootfs {
            _ if !self.enabled => return None,
            RootFs::Auto => return None,
            RootFs::Stack(name) => {
                let cure = "copy it there, or name another stack, a directory or a tar archive";
                (paths.stacks().join(format!("{name}.tar.zst")), cure)
            }
            RootFs::Path(path) => (path.clone(), "name a stack, a directory or a tar archive"),
        };
        let why = match fs::metadata(&path) {
            Ok(meta) if meta.is_dir() || meta.is_file() => return None,
            Ok(_) => "is neither a directory nor a file".to_owned(),
            Err(err) if err.kind() == io::ErrorKind::NotFound => "is not there".into(),
            Err(err) => format!("cannot be read: {err}"),
        };
        Some((format!("`garden.default_rootfs`: {} {why}", path.display()), cure.into()))
    }

    /// How long images stay.
    fn read_images(&mut self, section: &mut Section<'_>) {
        let threshold = section.take("cleanup_threshold");
        set(&mut self.cleanup_threshold, threshold.and_then(|it| read_threshold(&it)));
        let images = section.take("persistent_images");
        set(&mut self.persistent_images, images.and_then(|it| all(&it, LIST_MAX, read_image)));
    }
}

/// `"auto"` or an absolute path.
fn read_socket(value: &Value<'_>, paths: &Paths) -> Option<PathBuf> {
    value.parsed(|text| match text {
        "auto" => Ok(paths.garden_socket()),
        text => read_path(text),
    })
}

fn read_path(text: &str) -> Result<PathBuf, String> {
    match text.starts_with('/') && !text.ends_with('/') && text.len() <= TEXT_MAX {
        true => Ok(text.into()),
        false => Err(format!("`{}` is no absolute path; write \"/...\"", shown(text))),
    }
}

/// Octal digits as chmod takes them; the owner can always use the socket.
fn read_mode(text: &str) -> Result<u32, String> {
    let mode = u32::from_str_radix(text, 8).ok().filter(|_| text.len() == 4);
    match mode.filter(|mode| mode & 0o600 == 0o600 && mode & !0o777 == 0) {
        Some(mode) => Ok(mode),
        None => Err(format!("`{}` is not a mode; such as \"0600\" or \"0660\"", shown(text))),
    }
}

/// A time, of which nothing means for ever.
fn read_grace(value: &Value<'_>) -> Option<Option<Duration>> {
    match value.inner {
        DeValue::String(text) if text == "0" => Some(None),
        _ => {
            let time = value.time(Duration::ZERO, GRACE_MAX)?;
            Some((!time.is_zero()).then_some(time))
        }
    }
}

/// `"auto"`, the name of a stack, or an absolute path.
fn read_rootfs(text: &str) -> Result<RootFs, String> {
    match text {
        "auto" => Ok(RootFs::Auto),
        text if text.contains('/') => read_path(text).map(RootFs::Path),
        // As Diego names one of the cell's.
        text => {
            word("stack", text.strip_prefix("preloaded:").unwrap_or(text), 64).map(RootFs::Stack)
        }
    }
}

/// The name of a profile as the kernel takes it; empty: none.
fn read_profile(text: &str) -> Result<Option<String>, String> {
    let good = text.len() <= 255 && text.bytes().all(|b| b.is_ascii_graphic());
    match good {
        true => Ok(Some(text.to_owned()).filter(|text| !text.is_empty())),
        false => {
            Err(format!("`{}` is no name of a profile; one that `aa-status` lists", shown(text)))
        }
    }
}

/// `"never"` or a size.
fn read_threshold(value: &Value<'_>) -> Option<Cleanup> {
    match value.inner {
        DeValue::String(text) if text == "never" => Some(Cleanup::Never),
        _ => value.bytes(Bytes::new(0), Bytes::mib(64 << 20)).map(Cleanup::Above),
    }
}

/// The name of an image as a client writes it.
fn read_image(text: &str) -> Result<String, String> {
    match text.parse::<ImageRef>() {
        Ok(_) => Ok(text.to_owned()),
        Err(_) => Err(format!("`{}` is no image; such as \"docker:///busybox#1.36\"", shown(text))),
    }
}
