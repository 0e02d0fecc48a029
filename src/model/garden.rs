//! Garden's own shapes: what its clients ask for and are told, field for field as the Go client
//! spells it.

mod ask;

pub use ask::{
    AddressRange, BandwidthLimits, BindMount, ContainerSpec, CpuLimits, DiskLimits, Icmp, ImageRef,
    Limits, MemoryLimits, NetIn, NetOutRule, PidLimits, PortRange, ProcessSpec, ResourceLimits,
    TtySpec, WindowSize,
};

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Answer to create; what the Go server spells with capitals stays so.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Created {
    /// The handle, also when the client had left it to us.
    #[serde(rename = "Handle")]
    pub handle: String,
}

/// Answer to list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Handles {
    /// In order of name.
    #[serde(rename = "Handles")]
    pub handles: Vec<String>,
}

/// Answer to capacity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Capacity {
    /// The box's memory.
    pub memory_in_bytes: u64,
    /// Size of the file system that holds the containers.
    pub disk_in_bytes: u64,
    /// How far the store can grow.
    pub schedulable_disk_in_bytes: u64,
    /// The smaller of the subnets of the pool and the configured maximum.
    pub max_containers: u64,
}

/// Facts about a container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Info {
    /// `active` or `stopped`.
    pub state: String,
    /// `Out of memory`, once for each time.
    pub events: Vec<String>,
    /// Gateway of its subnet.
    #[serde(rename = "HostIP")]
    pub host_ip: String,
    /// Its address.
    #[serde(rename = "ContainerIP")]
    pub container_ip: String,
    /// Always empty: containers have IPv4 only.
    #[serde(rename = "ContainerIPv6")]
    pub container_ipv6: String,
    /// Where mapped ports are reached.
    #[serde(rename = "ExternalIP")]
    pub external_ip: String,
    /// Its directory in the depot.
    pub container_path: String,
    /// Its processes that run.
    #[serde(rename = "ProcessIDs")]
    pub process_ids: Vec<String>,
    /// What clients have noted.
    pub properties: BTreeMap<String, String>,
    /// In order of the requests.
    pub mapped_ports: Vec<MappedPort>,
}

/// One port of the box that leads into a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct MappedPort {
    /// On the box.
    pub host_port: u32,
    /// Inside.
    pub container_port: u32,
}

/// Figures of a container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Metrics {
    /// Bytes and counts.
    #[serde(rename = "MemoryStat")]
    pub memory: BTreeMap<String, u64>,
    /// Nanoseconds.
    #[serde(rename = "CPUStat")]
    pub cpu: CpuStat,
    /// Bytes.
    #[serde(rename = "DiskStat")]
    pub disk: DiskStat,
    /// Bytes as the container sees them.
    #[serde(rename = "NetworkStat")]
    pub network: Option<NetworkStat>,
    /// Processes and threads.
    #[serde(rename = "PidStat")]
    pub pid: PidStat,
    /// Nanoseconds since it was made.
    #[serde(rename = "Age")]
    pub age: u64,
    /// Nanoseconds of processor time that were its due since then.
    #[serde(rename = "CPUEntitlement")]
    pub cpu_entitlement: u64,
}

/// Processor time in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct CpuStat {
    /// All of it.
    pub usage: u64,
    /// Outside the kernel.
    pub user: u64,
    /// In the kernel.
    pub system: u64,
}

/// What a container holds on disk; "total" counts its image too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct DiskStat {
    /// Bytes.
    pub total_bytes_used: u64,
    /// Files.
    pub total_inodes_used: u64,
    /// Bytes.
    pub exclusive_bytes_used: u64,
    /// Files.
    pub exclusive_inodes_used: u64,
}

/// Bytes through the container's link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct NetworkStat {
    /// Received by the container.
    pub rx_bytes: u64,
    /// Sent by it.
    pub tx_bytes: u64,
}

/// Processes and threads; a maximum of 0 is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct PidStat {
    /// Now.
    pub current: u64,
    /// At most.
    pub max: u64,
}

/// One entry of bulk_info.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct InfoEntry {
    /// Empty when there is an error.
    pub info: Info,
    /// Why there is none.
    pub err: Option<ErrorBody>,
}

/// One entry of bulk_metrics.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct MetricsEntry {
    /// Zero when there is an error.
    pub metrics: Metrics,
    /// Why there are none.
    pub err: Option<ErrorBody>,
}

/// An error, all fields always there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct ErrorBody {
    /// What the client makes of it; empty: an ordinary error.
    #[serde(rename = "Type")]
    pub kind: &'static str,
    /// For a person.
    pub message: String,
    /// Of a container that is not there.
    pub handle: String,
    /// Of a process that is not there.
    #[serde(rename = "ProcessID")]
    pub process_id: String,
    /// Never filled, in Garden neither.
    pub binary: String,
}

/// Body of stop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Stop {
    /// At once, without asking the processes first.
    pub kill: bool,
}

/// Body of, and answer to, one property.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Property {
    /// Any text.
    pub value: String,
}

/// One message of the control connection of a process; what is not meant is not there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Message {
    /// Which process; ignored when a client says it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub process_id: Option<String>,
    /// Under which its outputs are asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream_id: Option<String>,
    /// 0: this is about stdin.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<i64>,
    /// For stdin; none with a source: stdin ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<String>,
    /// The terminal's new size.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tty: Option<TtySpec>,
    /// 0 TERM, 1 KILL.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signal: Option<i64>,
    /// It has ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit_status: Option<i32>,
    /// It cannot be told how it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// What a client asks by one message, in the order in which the Go server looks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// A new size of the terminal.
    Resize(WindowSize),
    /// More input.
    Input(Vec<u8>),
    /// No more input.
    EndOfInput,
    /// Signal TERM.
    Terminate,
    /// Signal KILL.
    Kill,
    /// Nothing.
    Nothing,
    /// What nobody understands, and why; it ends the input, as in Garden.
    Nonsense(&'static str),
}

impl Message {
    /// What the client asks.
    pub fn order(self) -> Order {
        match self {
            // Without a size nothing is asked.
            Message { tty: Some(tty), .. } => tty.window_size.map_or(Order::Nothing, Order::Resize),
            Message { source: Some(_), data: Some(data), .. } => Order::Input(data.into_bytes()),
            Message { source: Some(_), data: None, .. } => Order::EndOfInput,
            Message { signal: Some(0), .. } => Order::Terminate,
            Message { signal: Some(1), .. } => Order::Kill,
            Message { signal: Some(_), .. } => {
                Order::Nonsense("its signal is neither 0 (TERM) nor 1 (KILL)")
            }
            _ => Order::Nonsense("it has neither `tty` nor `source` nor `signal`"),
        }
    }
}

#[cfg(test)]
mod tests;
