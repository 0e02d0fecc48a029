//! What a client asks for: containers, processes, rules.
//!
//! Everything may be absent or `null`: both mean zero, empty or none.

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

/// `null` is what an absent field is: Go sends it for every empty list and map.
fn or_default<'de, D, T>(from: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::<T>::deserialize(from)?.unwrap_or_default())
}

/// An address; the empty text is none, as in Go.
fn address<'de, D: Deserializer<'de>>(from: D) -> Result<Option<IpAddr>, D::Error> {
    from.deserialize_option(Address)
}

/// Reads one.
struct Address;

impl<'de> Visitor<'de> for Address {
    type Value = Option<IpAddr>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an IP address")
    }

    fn visit_none<E>(self) -> Result<Option<IpAddr>, E> {
        Ok(None)
    }

    fn visit_some<D: Deserializer<'de>>(self, from: D) -> Result<Option<IpAddr>, D::Error> {
        from.deserialize_str(self)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Option<IpAddr>, E> {
        match text {
            "" => Ok(None),
            text => text.parse().map(Some).map_err(E::custom),
        }
    }
}

/// Whether a number is left out, as Go does with zeros.
fn is_zero<T: Default + PartialEq>(number: &T) -> bool {
    *number == T::default()
}

/// Body of create.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct ContainerSpec {
    /// Empty: the server chooses one.
    #[serde(deserialize_with = "or_default")]
    pub handle: String,
    /// Nanoseconds; 0: the server's default.
    #[serde(deserialize_with = "or_default")]
    pub grace_time: i64,
    /// The old way to name the image.
    #[serde(deserialize_with = "or_default")]
    pub rootfs: String,
    /// Wins over `rootfs`.
    #[serde(deserialize_with = "or_default")]
    pub image: ImageRef,
    /// What of the box shows up inside.
    #[serde(deserialize_with = "or_default")]
    pub bind_mounts: Vec<BindMount>,
    /// `a.b.c.d/n`; empty: the next free /30.
    #[serde(deserialize_with = "or_default")]
    pub network: String,
    /// Notes of the client.
    #[serde(deserialize_with = "or_default")]
    pub properties: BTreeMap<String, String>,
    /// `K=V`, for every process.
    #[serde(deserialize_with = "or_default")]
    pub env: Vec<String>,
    /// Without a user namespace, with every right that the box's root has.
    #[serde(deserialize_with = "or_default")]
    pub privileged: bool,
    /// What it may use.
    #[serde(deserialize_with = "or_default")]
    pub limits: Limits,
    /// What it may reach.
    #[serde(deserialize_with = "or_default")]
    pub netout_rules: Vec<NetOutRule>,
    /// Ports of the box that lead into it.
    #[serde(deserialize_with = "or_default")]
    pub netin: Vec<NetIn>,
}

/// An image and who may fetch it.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct ImageRef {
    /// Where it is.
    #[serde(deserialize_with = "or_default")]
    pub uri: String,
    /// For the registry.
    #[serde(deserialize_with = "or_default")]
    pub username: String,
    /// For the registry.
    #[serde(deserialize_with = "or_default")]
    pub password: String,
}

impl fmt::Debug for ImageRef {
    /// Without the password: specs are logged.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ImageRef").field("uri", &self.uri).finish_non_exhaustive()
    }
}

/// A file or directory that shows up inside.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct BindMount {
    /// On the box, or inside for `origin` 1.
    #[serde(deserialize_with = "or_default")]
    pub src_path: String,
    /// Inside.
    #[serde(deserialize_with = "or_default")]
    pub dst_path: String,
    /// 0 read-only, 1 read-write.
    #[serde(deserialize_with = "or_default")]
    pub mode: u8,
    /// 0 the box, 1 the container.
    #[serde(deserialize_with = "or_default")]
    pub origin: u8,
}

/// All limits of a container; 0 is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Limits {
    /// Network.
    #[serde(rename = "bandwidth_limits", deserialize_with = "or_default")]
    pub bandwidth: BandwidthLimits,
    /// Processor.
    #[serde(rename = "cpu_limits", deserialize_with = "or_default")]
    pub cpu: CpuLimits,
    /// Disk.
    #[serde(rename = "disk_limits", deserialize_with = "or_default")]
    pub disk: DiskLimits,
    /// Memory.
    #[serde(rename = "memory_limits", deserialize_with = "or_default")]
    pub memory: MemoryLimits,
    /// Processes and threads.
    #[serde(rename = "pid_limits", deserialize_with = "or_default")]
    pub pid: PidLimits,
}

/// Limits of the network, each way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BandwidthLimits {
    /// Bytes per second.
    #[serde(skip_serializing_if = "is_zero")]
    pub rate: u64,
    /// Bytes at once.
    #[serde(skip_serializing_if = "is_zero")]
    pub burst: u64,
}

/// Share of the processor, in the scale of `cpu.shares`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CpuLimits {
    /// Wins when it is not 0.
    #[serde(skip_serializing_if = "is_zero")]
    pub weight: u64,
    /// The old name.
    #[serde(skip_serializing_if = "is_zero")]
    pub limit_in_shares: u64,
}

/// What a container may write.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DiskLimits {
    /// Files; taken and told, not enforced.
    #[serde(skip_serializing_if = "is_zero")]
    pub inode_soft: u64,
    /// Files; taken and told, not enforced.
    #[serde(skip_serializing_if = "is_zero")]
    pub inode_hard: u64,
    /// Bytes; counts when there is no hard limit.
    #[serde(skip_serializing_if = "is_zero")]
    pub byte_soft: u64,
    /// Bytes.
    #[serde(skip_serializing_if = "is_zero")]
    pub byte_hard: u64,
    /// 0: the image counts; 1: it does not.
    #[serde(skip_serializing_if = "is_zero")]
    pub scope: u8,
}

/// Memory and swap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MemoryLimits {
    /// Bytes.
    #[serde(skip_serializing_if = "is_zero")]
    pub limit_in_bytes: u64,
}

/// Processes and threads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PidLimits {
    /// At most.
    #[serde(skip_serializing_if = "is_zero")]
    pub max: u64,
}

/// A port of the box that leads into a container: of create, of net/in and its answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NetIn {
    /// 0: the server chooses one.
    pub host_port: u32,
    /// 0: the same as on the box.
    pub container_port: u32,
}

/// What a container may reach.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NetOutRule {
    /// 0 all, 1 tcp, 2 udp, 3 icmp, 4 icmpv6.
    #[serde(deserialize_with = "or_default")]
    pub protocol: i64,
    /// None: everywhere.
    #[serde(deserialize_with = "or_default")]
    pub networks: Vec<AddressRange>,
    /// None: all.
    #[serde(deserialize_with = "or_default")]
    pub ports: Vec<PortRange>,
    /// For icmp.
    pub icmps: Option<Icmp>,
    /// Log the first packet of each connection.
    #[serde(deserialize_with = "or_default")]
    pub log: bool,
}

/// Addresses, both ends included; one alone is one address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AddressRange {
    /// First.
    #[serde(deserialize_with = "address")]
    pub start: Option<IpAddr>,
    /// Last.
    #[serde(deserialize_with = "address")]
    pub end: Option<IpAddr>,
}

/// Ports, both ends included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PortRange {
    /// First.
    pub start: u16,
    /// Last.
    pub end: u16,
}

/// One kind of ICMP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Icmp {
    /// Of the message.
    #[serde(rename = "type")]
    pub kind: u8,
    /// None: any.
    pub code: Option<u8>,
}

/// Body of run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct ProcessSpec {
    /// Empty: the server chooses one.
    #[serde(deserialize_with = "or_default")]
    pub id: String,
    /// Program.
    #[serde(deserialize_with = "or_default")]
    pub path: String,
    /// Without the program's name.
    #[serde(deserialize_with = "or_default")]
    pub args: Vec<String>,
    /// `K=V`, after the container's.
    #[serde(deserialize_with = "or_default")]
    pub env: Vec<String>,
    /// Empty: the user's home.
    #[serde(deserialize_with = "or_default")]
    pub dir: String,
    /// Empty: root.
    #[serde(deserialize_with = "or_default")]
    pub user: String,
    /// What is given is set, soft and hard.
    #[serde(deserialize_with = "or_default")]
    pub rlimits: ResourceLimits,
    /// Own limits instead of the container's; peas only.
    pub limits: Option<Limits>,
    /// A terminal instead of pipes.
    pub tty: Option<TtySpec>,
    /// A root of its own: a pea.
    #[serde(deserialize_with = "or_default")]
    pub image: ImageRef,
    /// For peas.
    #[serde(deserialize_with = "or_default")]
    pub bind_mounts: Vec<BindMount>,
}

/// Limits of one process, by the names of setrlimit(2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "setrlimit(2) says it better")]
pub struct ResourceLimits {
    pub r#as: Option<u64>,
    pub core: Option<u64>,
    pub cpu: Option<u64>,
    pub data: Option<u64>,
    pub fsize: Option<u64>,
    pub locks: Option<u64>,
    pub memlock: Option<u64>,
    pub msgqueue: Option<u64>,
    pub nice: Option<u64>,
    pub nofile: Option<u64>,
    pub nproc: Option<u64>,
    pub rss: Option<u64>,
    pub rtprio: Option<u64>,
    pub sigpending: Option<u64>,
    pub stack: Option<u64>,
}

/// A terminal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TtySpec {
    /// None: 80 x 24.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window_size: Option<WindowSize>,
}

impl TtySpec {
    /// Its size.
    pub fn size(self) -> WindowSize {
        self.window_size.unwrap_or(WindowSize { columns: 80, rows: 24 })
    }
}

/// Size of a terminal in character cells, in Garden's order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct WindowSize {
    /// Characters in a line.
    pub columns: u16,
    /// Lines.
    pub rows: u16,
}
