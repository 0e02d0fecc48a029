//! What a container may do: capabilities, masked paths, files, as plain lists.

use super::spec::{IdMapping, Manner};
use crate::cgroup::Devices;
use crate::init::proto::InsideNet;
use crate::net::Addresses;
use crate::unit::{Bytes, IdMap, IdRange, Slot};
use serde::{Deserialize, Serialize};

/// How far a container is trusted. In all but the last ids are mapped, devices few, system calls
/// filtered and the kernel's files hidden or read-only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Posture {
    /// An app: the fewest capabilities, and nothing inside ever gets more than it has.
    #[default]
    App,
    /// As guardian has its unprivileged containers: its capabilities, and set-user-id programs
    /// and those with file capabilities work.
    Garden,
    /// Root inside is the box's root, and may do to the box what the daemon may: a container in
    /// name only, for programs that are trusted as the box's own.
    Privileged,
}

impl Posture {
    /// What [`Default`] says; such a one is not written down.
    pub fn is_default(&self) -> bool {
        *self == Posture::App
    }

    /// Capabilities in the bounding set, by number of linux/capability.h.
    pub(super) fn capabilities(self) -> Vec<u8> {
        let more: &[u8] = match self {
            Posture::App => &[],
            Posture::Garden => &GARDEN_CAPABILITIES,
            Posture::Privileged => return (0..64).collect(),
        };
        CAPABILITIES.iter().chain(more).copied().collect()
    }

    /// The same for processes of other users than root.
    pub(super) fn user_capabilities(self) -> Vec<u8> {
        match self {
            Posture::App | Posture::Garden => self.capabilities(),
            Posture::Privileged => {
                let mut all = Posture::Garden.capabilities();
                all.push(SYS_ADMIN);
                all
            }
        }
    }

    /// The box's ids of those inside. What `mapping` says is for Garden's containers alone.
    pub(super) fn ids(self, mapping: IdMapping, slot: Slot) -> IdMap {
        match (self, mapping) {
            (Posture::Garden, IdMapping::Garden) => IdMap::Garden,
            (Posture::App | Posture::Garden, _) => IdMap::Range(slot.ids()),
            (Posture::Privileged, _) => IdMap::Range(IdRange { base: 0 }),
        }
    }

    /// What pid 1 is called; empty: as its program.
    pub(super) fn init_name(self, manner: &Manner) -> String {
        match self {
            Posture::App => String::new(),
            Posture::Garden | Posture::Privileged => manner.init_name.clone(),
        }
    }

    /// The AppArmor profile of its processes.
    pub(super) fn apparmor(self, manner: &Manner) -> Option<String> {
        manner.apparmor.clone().filter(|_| self == Posture::Garden)
    }

    /// Devices that can be opened.
    pub fn devices(self) -> Devices {
        match self {
            Posture::App | Posture::Garden => Devices::Common,
            Posture::Privileged => Devices::WithFuse,
        }
    }

    /// Paths that are hidden, and that are read-only.
    pub(super) fn closed(self) -> (Vec<String>, Vec<String>) {
        match self {
            Posture::App | Posture::Garden => {
                (MASKED.map(String::from).into(), READ_ONLY.map(String::from).into())
            }
            Posture::Privileged => Default::default(),
        }
    }

    /// Size of /dev/shm in bytes; 0: half of the box's memory. By the kernel's own rule it is half of
    /// the memory that there is, and for those inside that is their limit: what is put there belongs
    /// to no process that could be ended to get it back.
    pub(super) fn shm_bytes(self, memory: Option<Bytes>) -> u64 {
        match (self, memory) {
            (Posture::App, _) => SHM_BYTES,
            (_, Some(limit)) => (limit.get() / 2).max(SHM_LEAST),
            (_, None) => 0,
        }
    }

    /// No exec gives more privilege than its caller has.
    pub(super) fn no_new_privs(self) -> bool {
        self == Posture::App
    }
}

/// Nearly everything.
const SYS_ADMIN: u8 = 21;

/// What Garden's containers have beyond [`CAPABILITIES`]: together guardian's 14.
const GARDEN_CAPABILITIES: [u8; 4] = [
    13, // NET_RAW
    27, // MKNOD
    29, // AUDIT_WRITE
    31, // SETFCAP
];

/// Capabilities of an app: Garden's list without those that no app needs unless it asks.
const CAPABILITIES: [u8; 10] = [
    0,  // CHOWN
    1,  // DAC_OVERRIDE
    3,  // FOWNER
    4,  // FSETID
    5,  // KILL
    6,  // SETGID
    7,  // SETUID
    8,  // SETPCAP
    10, // NET_BIND_SERVICE
    18, // SYS_CHROOT
];

/// Hidden: guardian's list joined with docker's.
const MASKED: [&str; 14] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/devices/system/cpu/vulnerabilities",
    "/sys/firmware",
    "/sys/fs",
];

/// Read-only, as in docker.
const READ_ONLY: [&str; 5] =
    ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// Size of an app's /dev/shm, docker's 64 MiB; it counts against the container's memory.
const SHM_BYTES: u64 = 64 << 20;
/// Least size of /dev/shm of others, in bytes.
const SHM_LEAST: u64 = 64 << 10;

/// The inside end of the network of `slot`.
pub fn inside_net(slot: Slot, tag: &str, addresses: &Addresses) -> InsideNet {
    InsideNet {
        link: slot.veth_inside(tag),
        address: addresses.container,
        prefix: addresses.prefix,
        gateway: addresses.gateway,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn garden_has_guardians_fourteen_capabilities_and_an_app_ten_of_them() {
        let sorted = |posture: Posture| {
            let mut all = posture.capabilities();
            all.sort_unstable();
            all
        };
        assert_eq!(sorted(Posture::App), [0, 1, 3, 4, 5, 6, 7, 8, 10, 18]);
        assert_eq!(sorted(Posture::Garden), [0, 1, 3, 4, 5, 6, 7, 8, 10, 13, 18, 27, 29, 31]);
        assert!(Posture::App.no_new_privs() && !Posture::Garden.no_new_privs());
    }

    #[test]
    fn gardens_map_is_for_gardens_unprivileged_containers() {
        let slot = Slot::new(7).expect("slot");
        let ids = |posture: Posture, mapping| posture.ids(mapping, slot);
        assert_eq!(ids(Posture::Garden, IdMapping::Garden), IdMap::Garden);
        assert_eq!(ids(Posture::Garden, IdMapping::Own), IdMap::Range(slot.ids()));
        assert_eq!(ids(Posture::App, IdMapping::Garden), IdMap::Range(slot.ids()));
        assert!(ids(Posture::Privileged, IdMapping::Garden).is_the_boxs());
    }

    #[test]
    fn all_that_guardian_hides_is_hidden() {
        for path in ["kcore", "latency_stats", "sched_debug", "scsi", "timer_list", "timer_stats"] {
            assert!(MASKED.contains(&&*format!("/proc/{path}")), "{path}");
        }
        assert!(MASKED.contains(&"/proc/keys") && MASKED.contains(&"/sys/firmware"));
    }
}
