//! What `container.json` says. Reads no file.

use crate::container::spec::ContainerSpec;
use crate::net::Addresses;
use crate::sys::clock::boot_id;
use crate::unit::{IdMap, Slot};
use serde::{Deserialize, Serialize};
use std::io;

/// Format that this program writes.
pub const FORMAT: u32 = 1;

/// What `container.json` holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Format of this file; readers refuse a newer one.
    pub format: u32,
    /// What was asked for.
    pub spec: ContainerSpec,
    /// Names, addresses and ids derive from it.
    pub slot: Slot,
    /// Host port and container port, in the order of `spec.ports`, then of `spec.host_ports`, then
    /// of later requests.
    pub ports: Vec<(u16, u16)>,
    /// What it has of the network that it asked for; `None`: the slot says it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub addresses: Option<Addresses>,
    /// Pid 1 as the box numbers it, and its start time in clock ticks since boot; `None` while
    /// the container is being made.
    pub pid: Option<(i32, u64)>,
    /// The box's boot in which that was: after another one the pid is anybody's.
    #[serde(default)]
    pub boot: String,
}

impl Entry {
    /// The box's ids of those inside.
    pub fn ids(&self) -> IdMap {
        self.spec.posture.ids(self.spec.manner.ids, self.slot)
    }

    /// Pid 1 and its start time, if it was started since the box did.
    pub fn process(&self) -> Option<(i32, u64)> {
        self.pid.filter(|_| self.boot == boot_id())
    }
}

/// The one field that every version has.
#[derive(Deserialize)]
struct Format {
    format: u32,
}

/// As much of an entry as can be read of one that is not for this program.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Glimpse {
    /// Names, addresses and ids derive from it.
    pub slot: Option<Slot>,
    /// Host port and container port.
    pub ports: Vec<(u16, u16)>,
    /// What it has of the network that it asked for.
    pub addresses: Option<Addresses>,
    /// What its owner keeps with it.
    pub owner: String,
    /// It is no Garden client's, or nobody knows.
    pub is_apps: bool,
}

/// What a file says, if it is for this program.
pub(super) fn entry_of(text: &[u8]) -> io::Result<Entry> {
    let broken = |err| io::Error::new(io::ErrorKind::InvalidData, err);
    let newer = |format| {
        let why = format!("its entry is of a newer version of this program (format {format})");
        Err(io::Error::new(io::ErrorKind::Unsupported, why))
    };
    match serde_json::from_slice::<Entry>(text) {
        Ok(entry) if entry.format > FORMAT => newer(entry.format),
        Ok(entry) => Ok(entry),
        // All but the format of a newer one may be anything.
        Err(err) => match serde_json::from_slice(text).map_err(broken)? {
            Format { format } if format > FORMAT => newer(format),
            Format { .. } => Err(broken(err)),
        },
    }
}
